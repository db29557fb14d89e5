//! The events of a program (shutdowns and restarts, refused threads, snapshots), and the checks at
//! the end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use netpoll::rt::{self, StillRunning};
use netpoll::task;

use crate::actors::{builder, open_descriptors};
use crate::faults;
use crate::inspection;
use crate::oracle::{self, Span, Token, eventually, fail, watch, watch_for};
use crate::program::{By, Config, Event, Residue, Restart};
use crate::shared;

/// Runs an event of the program.
pub fn happen(event: Event, config: &Config) {
    match event {
        Event::Refuse { after, threads } => {
            thread::sleep(after.duration());
            faults::refuse_threads(threads.0);
        }
        Event::Inspect { after, looks } => {
            thread::sleep(after.duration());
            inspection::look(looks);
        }
        Event::Shutdown { after, timeout, by, restart, residue } => {
            thread::sleep(after.duration());
            leave_residue(residue);
            let timeout = timeout.duration();
            match by {
                By::Thread => storm(timeout, restart, config),
                By::Two => {
                    let also = config.clone();
                    let other = faults::own_thread("event", move || storm(timeout, restart, &also));
                    storm(timeout, restart, config);
                    if other.join().is_err() {
                        fail("a second shutdown panicked");
                    }
                }
                By::Destructor => {
                    let token = Token::new("shuts down");
                    drop(task::spawn(async move {
                        let _shuts = Shuts(token);
                        task::sleep(Duration::from_secs(3600)).await;
                    }));
                    storm(timeout, restart, config);
                }
                By::Task => {
                    refused(|| futures::executor::block_on(task::spawn(async { rt::shutdown(Duration::ZERO) })))
                }
                By::Pool => {
                    refused(|| futures::executor::block_on(task::spawn_blocking(|| rt::shutdown(Duration::ZERO))));
                }
                By::Root => refused(|| task::block_on(async { rt::shutdown(Duration::ZERO) })),
            }
        }
    }
}

/// Calls `shutdown` inside the runtime. The call must be refused, unless a shutdown from outside
/// has dropped the caller.
fn refused(shutdown: impl FnOnce() -> Result<(), StillRunning>) {
    let _watch = watch("a shutdown from inside, which is refused");
    let span = Span::begin();
    match catch_unwind(AssertUnwindSafe(shutdown)) {
        Ok(Err(still)) if still.on_runtime_thread => {}
        Ok(result) => span.check(false, || format!("a shutdown from inside gives {result:?}")),
        Err(payload) => span.check(false, || format!("a shutdown from inside: {}", oracle::panic_text(&*payload))),
    }
}

/// Shuts the runtime down and restarts it as `restart` says.
fn storm(timeout: Duration, restart: Restart, config: &Config) {
    /// Marks the runtime as usable again when this value is dropped, whether the restart succeeds
    /// or fails.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            oracle::storm_is_over();
        }
    }
    let storm = oracle::storm_begins();
    let _over = Over;
    let start = Instant::now();
    let result = {
        // Another shutdown with its own bound may be in progress.
        let _watch = watch_for(timeout * 2, format!("a shutdown with a bound of {timeout:?}"));
        rt::shutdown(timeout)
    };
    if let Err(still) = result {
        let passed = start.elapsed();
        // A second call returns the result of the first, whose bound began earlier.
        if passed < timeout && storm.is_alone() {
            fail(format!("a shutdown gave up after {passed:?} of {timeout:?}: {still:?}"));
        }
    }
    match restart {
        Restart::Use => {}
        // Another caller may have started the runtime first.
        Restart::Builder => _ = builder(config).start(),
        Restart::Other => _ = builder(&Config { workers: 5 - config.workers.min(4), ..config.clone() }).start(),
        Restart::Later => thread::sleep(Duration::from_millis(30)),
    }
}

/// A value that calls shutdown when it is dropped, perhaps during another shutdown.
struct Shuts(#[expect(dead_code, reason = "the oracle counts tokens")] Token);

impl Drop for Shuts {
    fn drop(&mut self) {
        let _watch = watch("a shutdown from a destructor");
        incidental();
    }
}

/// Calls shutdown in a destructor, where it is usually refused. A destructor that an earlier
/// shutdown left behind may run at any time, so the call may also succeed or time out.
fn incidental() {
    let _storm = oracle::storm_begins();
    // The result does not matter; the call must return.
    let _ = rt::shutdown(Duration::from_millis(100));
    oracle::storm_is_over();
}

/// A thread-local value of a thread that runs tasks. The value is dropped when the thread ends or
/// another task replaces the value. On the main thread, it is dropped at the latest when all actors
/// have ended.
struct Left(Residue, #[expect(dead_code, reason = "the oracle counts tokens")] Token);

impl Drop for Left {
    fn drop(&mut self) {
        match self.0 {
            Residue::None => {}
            Residue::Sleep => task::block_on(task::sleep(Duration::from_millis(5))),
            Residue::Spawn => drop(task::spawn(async {})),
            Residue::Shutdown => incidental(),
        }
    }
}

thread_local! {
    static LEFT: std::cell::RefCell<Option<Box<dyn Any>>> = const { std::cell::RefCell::new(None) };
}

fn leave_residue(residue: Residue) {
    if residue == Residue::None {
        return;
    }
    let _watch = watch("a task that leaves a thread-local value");
    let span = Span::begin();
    let left = catch_unwind(AssertUnwindSafe(|| {
        futures::executor::block_on(task::spawn(async move {
            let value = Left(residue, Token::new("thread-local"));
            // The destructor of the previous value runs on a thread that continues.
            let before = LEFT.with(|left| left.borrow_mut().replace(Box::new(value)));
            drop(before);
        }));
    }));
    span.check(left.is_ok(), || "a task that leaves a thread-local value panics".to_owned());
}

/// Checks, after all actors have ended, that all threads of actors end, and that few ended threads
/// are neither joined nor detached. If [`oracle::tasks_end`] returns true, also checks that no
/// operation waits, no socket is open, no task is left and no nested `block_on` runs.
pub fn all_is_at_rest(unreaped: u64, threads: usize) {
    shared::clear();
    // Drops the thread-local value of this thread, which may have run tasks.
    let left = LEFT.with(|left| left.borrow_mut().take());
    drop(left);
    eventually("all threads of actors have ended", || faults::actor_threads() == 0);
    let bound = oracle::config().spares + 16;
    eventually("threads that have ended are joined or detached", || {
        let alive = faults::threads().saturating_sub(threads) as u64;
        faults::unreaped().saturating_sub(unreaped + alive) <= bound
    });
    if !oracle::tasks_end() {
        return;
    }
    eventually("after the last action nothing is left", || {
        let metrics = rt::metrics();
        (metrics.tasks_alive, metrics.waiters, metrics.descriptors, metrics.nested_block_on) == (0, 0, 0, 0)
    });
}

const FOR_EVER: Duration = Duration::from_secs(3600);

/// Shuts the runtime down, and waits for the tasks that earlier shutdowns left behind.
fn last_shutdown() {
    // The report of a blocked task may delay the shutdown. The watch, not the timeout, limits the
    // duration of the shutdown.
    let _watch = watch_for(oracle::config().report.duration() * 2, "the last shutdown");
    let mut nap = Duration::from_millis(1);
    while let Err(still) = rt::shutdown(FOR_EVER) {
        // A task that an earlier shutdown left behind may wait for a destructor of its thread.
        if !oracle::is_stormy() {
            fail(format!("the last shutdown: {still:?}"));
        }
        thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(50));
    }
}

/// Performs the last shutdown, and checks that no thread, descriptor, task or waker of the runtime
/// is left.
pub fn nothing_is_left(threads: usize, unreaped: u64, descriptors: &[PathBuf]) {
    last_shutdown();
    // A thread of the stress test, or one that an earlier shutdown left behind, may still be
    // exiting.
    eventually("all tokens are dropped", || oracle::tokens_left().is_empty());
    if oracle::is_stormy() {
        // A thread-local value that was dropped only now may have spawned a task, which has started
        // the runtime again.
        last_shutdown();
    }
    eventually("all threads have ended", || faults::threads() == threads);
    eventually("all threads are joined or detached", || faults::unreaped() == unreaped);
    let (begin, mut is_named) = (Instant::now(), false);
    eventually("all descriptors are closed", || {
        let open = open_descriptors();
        if open.len() != descriptors.len() && begin.elapsed() > oracle::late() / 2 && !is_named {
            is_named = true;
            eprintln!("open descriptors: {open:?}; at the beginning: {descriptors:?}");
        }
        open.len() == descriptors.len()
    });
    let metrics = rt::metrics();
    let left = (metrics.worker_threads, metrics.blocking_threads, metrics.tasks_alive, metrics.waiters);
    if left != (0, 0, 0, 0) || metrics.nested_block_on != 0 || metrics.descriptors != 0 {
        fail(format!("after the last shutdown: {metrics:?}"));
    }
}
