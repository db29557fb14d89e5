//! Models of going to sleep and waking up: workers, the poller's role, the eventfd, the root future's thread.
//!
//! The protocol is spread over files that make system calls (`rt/runtime.rs`, `rt/driver.rs`, `rt/epoll.rs`, `rt/sched/idle.rs`,
//! `rt/sched/worker.rs`, `rt/sched/block_on.rs`), which cannot be compiled here. So this is a miniature: the same words in the same
//! order, function by function under the same names; whoever changes one of those changes this. `Parker` is the real one.

use std::sync::Arc;

use crate::engine::thread;
use crate::rt::clock::NEVER;
use crate::rt::parker::Parker;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering, fence, planted};

/// `Epoll`: an eventfd that is edge-triggered and never drained, and the flag that spares its writes.
struct Epoll {
    breaking: AtomicBool,
    /// The kernel's part: an edge that was not reported yet.
    edge: Mutex<bool>,
    changed: Condvar,
}

impl Epoll {
    fn new() -> Epoll {
        Epoll { breaking: AtomicBool::new(false), edge: Mutex::new(false), changed: Condvar::new() }
    }

    /// epoll_wait(2), without a limit or (`block` is false) without waiting.
    fn wait(&self, block: bool) {
        let broken = {
            let mut edge = self.edge.lock();
            while block && !*edge {
                edge = self.changed.wait(edge);
            }
            std::mem::take(&mut *edge)
        };
        if broken && !planted!("break_seen_and_kept") {
            self.breaking.swap(false, Ordering::SeqCst);
        }
    }

    fn wake(&self) {
        if self.breaking.swap(true, Ordering::SeqCst) {
            return;
        }
        *self.edge.lock() = true;
        self.changed.notify_one();
    }
}

/// `Idle`, as far as one worker goes.
#[derive(Default)]
struct Idle {
    free: usize,
    /// The worker rests.
    resting: bool,
    /// It was assigned a processor.
    assigned: bool,
    /// The thread inside `block_on` would rather poll itself, and rests until then.
    wants_role: bool,
    /// It was assigned a processor.
    participant_assigned: bool,
}

/// `Runtime` with its `Driver`, one worker of its own and whoever the model adds.
struct Runtime {
    injected: AtomicUsize,
    awake: AtomicUsize,
    role: AtomicBool,
    sleep_until: AtomicU64,
    epoll: Epoll,
    idle: Mutex<Idle>,
    parker: Parker,
    /// The participant's `Sleeper::has_role`.
    has_role: AtomicBool,
}

impl Runtime {
    /// `awake` threads own a processor.
    fn new(awake: usize) -> Arc<Runtime> {
        Arc::new(Runtime {
            injected: AtomicUsize::new(0),
            awake: AtomicUsize::new(awake),
            role: AtomicBool::new(false),
            sleep_until: AtomicU64::new(0),
            epoll: Epoll::new(),
            idle: Mutex::new(Idle::default()),
            parker: Parker::new(),
            has_role: AtomicBool::new(false),
        })
    }

    // ---- Driver ----

    fn try_take(&self) -> bool {
        !self.role.load(Ordering::Relaxed)
            && self.role.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn release(&self) {
        self.role.store(false, Ordering::SeqCst);
    }

    fn is_taken(&self) -> bool {
        self.role.load(Ordering::SeqCst)
    }

    fn wake(&self) -> bool {
        let until = self.sleep_until.load(Ordering::SeqCst);
        if until > 0 {
            self.epoll.wake();
        }
        until != 0
    }

    // ---- Runtime, Idle ----

    fn inject(&self) {
        self.injected.fetch_add(1, Ordering::SeqCst);
        self.attend();
    }

    /// Takes one task.
    fn take_injected(&self) -> bool {
        let less = |count: usize| count.checked_sub(1);
        self.injected.load(Ordering::SeqCst) > 0
            && self.injected.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    fn attend(&self) {
        fence(Ordering::SeqCst);
        if self.awake.load(Ordering::SeqCst) == 0 && !self.wake() {
            self.wake_one();
        }
    }

    fn attend_poller(&self) {
        fence(Ordering::SeqCst);
        if self.awake.load(Ordering::SeqCst) == 0 && !self.is_taken() {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        let mut idle = self.idle.lock();
        if idle.free == 0 || !idle.resting {
            return;
        }
        idle.free -= 1;
        self.awake.fetch_add(1, Ordering::SeqCst);
        (idle.resting, idle.assigned) = (false, true);
        drop(idle);
        self.parker.unpark();
    }

    fn give_back(&self) -> bool {
        {
            let mut idle = self.idle.lock();
            if self.injected.load(Ordering::SeqCst) > 0 || !self.is_taken() {
                return false;
            }
            idle.free += 1;
            idle.resting = true;
            self.awake.fetch_sub(1, Ordering::SeqCst);
        }
        if self.injected.load(Ordering::SeqCst) > 0 {
            self.attend();
        } else if !planted!("rest_without_another_look") && !self.is_taken() {
            self.attend_poller();
        }
        true
    }

    fn rest(&self) {
        while !std::mem::take(&mut self.idle.lock().assigned) {
            self.parker.park();
        }
    }

    /// A thread inside `block_on` leaves for good.
    fn leave(&self) {
        self.idle.lock().free += 1;
        self.awake.fetch_sub(1, Ordering::SeqCst);
        if self.injected.load(Ordering::SeqCst) > 0 {
            self.attend();
        } else if !planted!("leave_attends_to_nothing") {
            self.attend_poller();
        }
    }

    /// The worker, with the role, to the participant. The caller rests afterwards.
    fn hand_over(&self) -> bool {
        let mut idle = self.idle.lock();
        if !std::mem::take(&mut idle.wants_role) {
            return false;
        }
        idle.participant_assigned = true;
        idle.resting = true;
        self.has_role.store(true, Ordering::SeqCst);
        true
    }

    /// The participant, whose root future was woken. Whether it has a processor.
    fn acquire(&self) -> bool {
        let mut idle = self.idle.lock();
        if !planted!("role_wanted_by_who_left") {
            idle.wants_role = false;
        }
        if std::mem::take(&mut idle.participant_assigned) {
            return true;
        }
        let free = idle.free > 0;
        if free {
            idle.free -= 1;
            self.awake.fetch_add(1, Ordering::SeqCst);
        }
        free
    }

    // ---- Core ----

    /// One turn without anything to run, for a thread with the role: the sleep in epoll.
    fn sleep(&self, called_off: impl Fn() -> bool) {
        let early = planted!("look_before_the_count") && !called_off();
        self.sleep_until.store(NEVER, Ordering::SeqCst);
        self.awake.fetch_sub(1, Ordering::SeqCst);
        let block = early || !called_off();
        self.epoll.wait(block);
        self.awake.fetch_add(1, Ordering::SeqCst);
        self.sleep_until.store(0, Ordering::SeqCst);
        self.release();
    }

    /// A worker that runs `tasks` tasks and ends.
    fn work(&self, tasks: usize) {
        let mut run = 0;
        while run < tasks {
            if self.take_injected() {
                run += 1;
            } else if self.try_take() {
                self.sleep(|| self.injected.load(Ordering::SeqCst) > 0);
            } else if self.give_back() {
                self.rest();
            }
        }
    }
}

fn spawn(runtime: &Arc<Runtime>, run: impl FnOnce(&Runtime) + Send + 'static) -> thread::JoinHandle<()> {
    let runtime = runtime.clone();
    thread::spawn(move || run(&runtime))
}

/// Tasks are injected while the only worker goes to sleep in epoll: it runs them.
pub fn sleep_against_inject() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| runtime.work(2));
    runtime.inject();
    runtime.inject();
    worker.join().unwrap();
}

/// Two threads break the sleep at once, and again: one write may serve both, but none is relied on that has been used up.
pub fn breaks_are_not_lost() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| runtime.work(3));
    let other = spawn(&runtime, Runtime::inject);
    runtime.inject();
    runtime.inject();
    other.join().unwrap();
    worker.join().unwrap();
}

/// A task is injected while the worker goes to rest because another thread has the role, which leaves `block_on`.
pub fn rest_against_inject() {
    let runtime = Runtime::new(2);
    runtime.role.store(true, Ordering::SeqCst);
    let worker = spawn(&runtime, |runtime| runtime.work(1));
    let injecting = spawn(&runtime, Runtime::inject);
    runtime.release();
    runtime.leave();
    injecting.join().unwrap();
    worker.join().unwrap();
}

/// The worker until it has the role of polling, as it must in the end: nobody else is there.
fn ends_up_polling(runtime: &Runtime) {
    while !runtime.try_take() {
        if runtime.give_back() {
            runtime.rest();
        }
    }
}

/// A thread comes back from epoll and leaves `block_on` while the worker goes to rest because the role is taken: the worker is
/// back in time to poll.
pub fn somebody_polls_when_all_rest() {
    let runtime = Runtime::new(2);
    runtime.role.store(true, Ordering::SeqCst);
    let worker = spawn(&runtime, ends_up_polling);
    runtime.release();
    runtime.leave();
    worker.join().unwrap();
}

/// A thread comes back from epoll and runs a task that blocks in a nested `block_on`, while the worker goes to rest.
///
/// Mirrors `nested` and `Runtime::replace_blocked`.
pub fn somebody_polls_when_one_blocks() {
    let runtime = Runtime::new(2);
    runtime.role.store(true, Ordering::SeqCst);
    let worker = spawn(&runtime, ends_up_polling);
    runtime.release();
    runtime.awake.fetch_sub(1, Ordering::SeqCst);
    if runtime.awake.load(Ordering::SeqCst) == 0 && !runtime.wake() {
        runtime.wake_one();
    }
    worker.join().unwrap();
}

/// The worker goes to rest while sysmon polls.
///
/// Mirrors `Monitor::poll`.
pub fn sysmon_gives_the_role_back() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, ends_up_polling);
    if runtime.try_take() {
        runtime.epoll.wait(false);
        runtime.release();
        if !planted!("sysmon_leaves_nobody") {
            runtime.attend_poller();
        }
    }
    worker.join().unwrap();
}

/// The worker hands the role to the thread inside `block_on` that wants it, while that one's root future ends.
///
/// Mirrors `Core::idle`, `participate` and `Participant::drop`.
pub fn the_role_is_not_lost_in_a_hand_over() {
    let runtime = Runtime::new(1);
    {
        let mut idle = runtime.idle.lock();
        (idle.free, idle.wants_role) = (1, true);
    }
    let worker = spawn(&runtime, |runtime| {
        loop {
            if !runtime.try_take() {
                if runtime.give_back() {
                    runtime.rest();
                }
            } else if runtime.hand_over() {
                runtime.rest();
            } else {
                break;
            }
        }
    });
    assert!(runtime.acquire(), "its own processor is free, or the worker's is assigned");
    if runtime.has_role.swap(false, Ordering::SeqCst) {
        runtime.release();
    }
    // The root future is polled and ends.
    runtime.leave();
    if runtime.has_role.swap(false, Ordering::SeqCst) {
        runtime.release();
        runtime.attend_poller();
    }
    worker.join().unwrap();
}

/// The root future is woken while its thread goes to sleep in epoll, or is elsewhere.
///
/// Mirrors `Root::wake_by_ref` and `Core::idle`.
pub fn root_waker_against_sleep() {
    let runtime = Runtime::new(1);
    let (woken, in_poll) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let waiting = thread::spawn({
        let (runtime, woken, in_poll) = (runtime.clone(), woken.clone(), in_poll.clone());
        move || {
            while !woken.swap(false, Ordering::AcqRel) {
                assert!(runtime.try_take());
                let early = planted!("root_looks_too_early") && !woken.load(Ordering::SeqCst);
                in_poll.store(true, Ordering::SeqCst);
                runtime.sleep(|| !early && woken.load(Ordering::SeqCst));
                in_poll.store(false, Ordering::SeqCst);
            }
        }
    });
    if !woken.swap(true, Ordering::SeqCst) {
        if in_poll.load(Ordering::SeqCst) {
            runtime.wake();
        }
        runtime.parker.unpark();
    }
    waiting.join().unwrap();
}
