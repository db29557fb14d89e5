//! A worker that a waker blocks beyond the end of its runtime drops no task of the next runtime.

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::{BOUND, child, eventually, park_on, thread_count};
use netpoll::{rt, task, time};

/// The number of tasks that are queued when the late worker continues.
const TASKS: usize = 200;

/// A waker that blocks its thread until the sender is dropped, for at most [`BOUND`].
struct Gate {
    entered: AtomicBool,
    open: Mutex<mpsc::Receiver<()>>,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.entered.store(true, Ordering::SeqCst);
        let _ = self.open.lock().unwrap().recv_timeout(BOUND);
    }
}

/// A value that a task owns. Counts the drop of the task, unless the task has run.
struct Guard {
    has_run: bool,
    /// Whether the drop of a task that has not run waits.
    waits: bool,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.has_run {
            self.dropped.fetch_add(1, Ordering::SeqCst);
            if self.waits {
                // The nested wait gives away the processor of this thread.
                task::block_on(task::sleep(Duration::from_millis(1)));
            }
        }
    }
}

/// Starts a runtime with one worker. Each report of a blocked task sends a message to `reported`.
fn start(reported: Option<mpsc::Sender<()>>) {
    let mut builder = rt::Builder::new().workers(1).spare_workers(0);
    if let Some(reported) = reported {
        let reported = Mutex::new(reported);
        builder = builder.on_blocked_task(move |_| {
            let _ = reported.lock().unwrap().send(());
        });
    }
    builder.start().unwrap();
}

/// Blocks the only worker in a waker, shuts the runtime down, and lets the worker continue while
/// the next runtime has queued tasks. `waits` sets whether the destructors of dropped tasks would
/// wait.
fn late_worker_drops_no_task(waits: bool) {
    start(None);
    drop(task::spawn(async {
        loop {
            task::yield_now().await;
        }
    }));
    let (opens, open) = mpsc::channel();
    let gate = Arc::new(Gate { entered: AtomicBool::new(false), open: Mutex::new(open) });
    let waker = Waker::from(gate.clone());
    let mut sleep = time::Sleep::new(Duration::from_millis(1));
    // On a busy machine, the sleep may end at its first poll, without a call of the waker.
    while Pin::new(&mut sleep).poll(&mut Context::from_waker(&waker)).is_ready() {
        sleep = time::Sleep::new(Duration::from_millis(1));
    }
    eventually("the worker is in the waker", || gate.entered.load(Ordering::SeqCst));
    rt::shutdown(Duration::ZERO).unwrap_err();

    let (reported, reports) = mpsc::channel();
    start(Some(reported));
    let dropped = Arc::new(AtomicUsize::new(0));
    let (ends, end) = mpsc::channel::<()>();
    let (spawned, queued) = mpsc::channel();
    let counter = dropped.clone();
    let blocks = task::spawn(async move {
        let tasks: Vec<_> = (0..TASKS)
            .map(|at| {
                let mut guard = Guard { has_run: false, waits, dropped: counter.clone() };
                task::spawn(async move {
                    // Captures the whole guard, so that dropping the task drops the guard.
                    let guard = &mut guard;
                    guard.has_run = true;
                    at
                })
            })
            .collect();
        spawned.send(tasks).unwrap();
        // Blocks the only worker.
        let _ = end.recv_timeout(BOUND);
    });
    // Waits until sysmon has found the worker stuck, so that other threads may take its queue.
    reports.recv_timeout(BOUND).unwrap();
    let threads = thread_count();
    drop(opens);
    eventually("the late worker ends", || thread_count() < threads);
    drop(ends);
    for (at, task) in queued.recv_timeout(BOUND).unwrap().into_iter().enumerate() {
        assert_eq!(park_on(task), at);
    }
    park_on(blocks);
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    rt::shutdown(BOUND).unwrap();
}

#[test]
fn late_worker_drops_no_task_of_the_next_runtime() {
    child("late_worker_drops_no_task_of_the_next_runtime", || late_worker_drops_no_task(false));
}

#[test]
fn late_worker_that_gives_its_processor_away_drops_no_task_of_the_next_runtime() {
    let name = "late_worker_that_gives_its_processor_away_drops_no_task_of_the_next_runtime";
    child(name, || late_worker_drops_no_task(true));
}
