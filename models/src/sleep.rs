//! Models of going to sleep and waking up: workers, threads in `block_on`, the role of polling, the eventfd.
//!
//! `Role`, `Root`, `Awake` and `Parker` are the crate's. The code that connects them is spread over files that make
//! system calls (`rt/runtime.rs`, `rt/poll/driver.rs`, `rt/poll/epoll.rs`, `rt/sched/resting.rs`,
//! `rt/sched/polling.rs`, `rt/sched/worker.rs`, `rt/sched/block_on.rs`), which cannot be compiled here. So that part
//! is a miniature: the same words in the same order, function by function, under the same names. A change of one of
//! those files must be made here too.

use std::sync::Arc;

use crate::engine::thread;
use crate::rt::parker::Parker;
use crate::rt::poll::role::{By, Role};
use crate::rt::sched::awake::Awake;
use crate::rt::sched::root::Root;
use crate::rt::time::clock::NEVER;
use crate::sync::{AtomicBool, AtomicU32, AtomicUsize, Condvar, Mutex, Ordering, fence, injected_bug};

/// `Epoll`: an eventfd that is edge-triggered and never drained, and the flag that spares its writes.
struct Epoll {
    breaking: AtomicBool,
    /// The kernel's state: an edge that was not reported yet.
    edge: Mutex<bool>,
    changed: Condvar,
}

impl Epoll {
    fn new() -> Arc<Epoll> {
        Arc::new(Epoll { breaking: AtomicBool::new(false), edge: Mutex::new(false), changed: Condvar::new() })
    }

    /// Mirrors epoll_wait(2) without a timeout, or without waiting if `block` is false.
    fn wait(&self, block: bool) {
        let broken = {
            let mut edge = self.edge.lock();
            while block && !*edge {
                edge = self.changed.wait(edge);
            }
            std::mem::take(&mut *edge)
        };
        if broken && !injected_bug!("break_seen_and_kept") {
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

/// `Wish`, for the one thread in `block_on` that a model has.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Wish {
    #[default]
    None,
    Asked,
    Granted,
}

/// `Idle`, for one worker.
#[derive(Default)]
struct Idle {
    free: usize,
    /// Whether the worker rests.
    resting: bool,
    /// Whether it was assigned a processor.
    assigned: bool,
    wish: Wish,
    /// Whether the thread in `block_on` is listed as parked.
    root_parked: bool,
}

/// `Runtime` with its `Driver`, one worker, one thread in `block_on`, and the threads that the model adds.
struct Runtime {
    epoch: AtomicU32,
    injected: AtomicUsize,
    awake: Awake,
    role: Role,
    epoll: Mutex<Option<Arc<Epoll>>>,
    idle: Mutex<Idle>,
    parker: Parker,
    root: Root,
    role_wished: AtomicBool,
}

const EPOCH: u32 = 0;

impl Runtime {
    /// Creates a runtime of which `awake` threads own a processor.
    fn new(awake: usize) -> Arc<Runtime> {
        let runtime = Runtime {
            epoch: AtomicU32::new(EPOCH),
            injected: AtomicUsize::new(0),
            awake: Awake::new(),
            role: Role::new(),
            epoll: Mutex::new(Some(Epoll::new())),
            idle: Mutex::new(Idle::default()),
            parker: Parker::new(),
            root: Root::new(),
            role_wished: AtomicBool::new(false),
        };
        runtime.awake.begin(EPOCH);
        (0..awake).for_each(|_| runtime.awake.up(EPOCH));
        Arc::new(runtime)
    }

    // ---- Driver ----

    fn epoll(&self) -> Arc<Epoll> {
        self.epoll.lock().get_or_insert_with(Epoll::new).clone()
    }

    fn break_sleep(&self) {
        let epoll = self.epoll.lock().clone();
        if let Some(epoll) = epoll {
            epoll.wake();
        }
    }

    fn wake(&self) {
        if self.role.asleep().is_some() {
            self.break_sleep();
        }
    }

    fn wake_worker(&self) -> bool {
        let asleep = self.role.asleep();
        let is_worker = asleep == Some(By::Worker) || (asleep.is_some() && injected_bug!("root_taken_for_a_worker"));
        if is_worker {
            self.break_sleep();
        }
        is_worker
    }

    // ---- Runtime, Idle ----

    fn inject(&self) {
        self.injected.fetch_add(1, Ordering::SeqCst);
        self.ensure_worker();
    }

    /// Takes one task.
    fn take_injected(&self) -> bool {
        let less = |count: usize| count.checked_sub(1);
        self.injected.load(Ordering::SeqCst) > 0
            && self.injected.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    fn ensure_worker(&self) {
        fence(Ordering::SeqCst);
        if self.awake.count() == 0 && !self.wake_worker() {
            self.wake_one();
        }
    }

    fn ensure_poller(&self) {
        fence(Ordering::SeqCst);
        if self.awake.count() == 0 && !self.role.is_taken() && !self.nudge_root() {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        let mut idle = self.idle.lock();
        if idle.free == 0 || !idle.resting {
            return;
        }
        idle.free -= 1;
        self.awake.up(EPOCH);
        (idle.resting, idle.assigned) = (false, true);
        drop(idle);
        self.parker.unpark();
    }

    fn list(&self, idle: &mut Idle) {
        idle.free += 1;
        idle.resting = true;
        self.awake.down(EPOCH);
    }

    fn give_back(&self) -> bool {
        let mut idle = self.idle.lock();
        if self.injected.load(Ordering::SeqCst) > 0 || !self.role.is_taken() {
            return false;
        }
        self.list(&mut idle);
        drop(idle);
        if self.injected.load(Ordering::SeqCst) > 0 {
            self.ensure_worker();
        } else if !injected_bug!("rest_without_another_look") && !self.role.is_taken() {
            self.ensure_poller();
        }
        true
    }

    fn rest(&self) {
        while !std::mem::take(&mut self.idle.lock().assigned) {
            self.parker.park();
        }
    }

    /// Mirrors `leave`: a thread gives its processor away for good.
    fn leave(&self) {
        self.idle.lock().free += 1;
        self.awake.down(EPOCH);
        if self.injected.load(Ordering::SeqCst) > 0 {
            self.ensure_worker();
        } else if !injected_bug!("leave_ensures_no_worker") {
            self.ensure_poller();
        }
    }

    fn grant_role(&self) -> bool {
        if !self.role_wished.load(Ordering::SeqCst) {
            return false;
        }
        self.role_wished.store(false, Ordering::SeqCst);
        let mut idle = self.idle.lock();
        if idle.wish != Wish::Asked {
            return false;
        }
        idle.wish = Wish::Granted;
        self.role.release();
        self.list(&mut idle);
        drop(idle);
        self.root.nudge();
        if self.injected.load(Ordering::SeqCst) > 0 && !injected_bug!("grant_looks_at_nothing") {
            self.ensure_worker();
        }
        true
    }

    fn ask_for_role(&self) -> bool {
        let mut idle = self.idle.lock();
        if idle.wish != Wish::None {
            return false;
        }
        idle.wish = Wish::Asked;
        self.role_wished.store(true, Ordering::SeqCst);
        drop(idle);
        self.wake_worker();
        true
    }

    fn withdraw_wish(&self) -> bool {
        let mut idle = self.idle.lock();
        let was_granted = std::mem::take(&mut idle.wish) == Wish::Granted;
        self.role_wished.store(false, Ordering::SeqCst);
        was_granted && !injected_bug!("granted_wish_is_forgotten")
    }

    /// Mirrors `needs_poller`, where no worker is stuck.
    fn needs_poller(&self) -> bool {
        self.awake.count() == 0
    }

    fn park_root(&self) {
        self.idle.lock().root_parked = true;
        if injected_bug!("root_parks_without_another_look") || self.role.is_taken() || !self.needs_poller() {
            self.root.park();
        }
        self.idle.lock().root_parked = false;
    }

    fn nudge_root(&self) -> bool {
        let is_parked = self.idle.lock().root_parked;
        if is_parked {
            self.root.nudge();
        }
        is_parked
    }

    // ---- Polling, Core, Thread ----

    /// Mirrors `Polling::sleep` of a thread with the role. `poll` runs once the sleep can no longer be interrupted.
    fn sleep(
        &self,
        by: By,
        falls_asleep: impl FnOnce() -> bool,
        rises: impl FnOnce(),
        poll: impl FnOnce(&Epoll, bool),
    ) {
        let epoch = if injected_bug!("sleep_in_any_epoch") { self.epoch.load(Ordering::SeqCst) } else { EPOCH };
        let epoll = self.epoll();
        self.role.sleep(NEVER, by);
        let called_off = falls_asleep() | (self.epoch.load(Ordering::SeqCst) != epoch);
        poll(&epoll, !called_off);
        rises();
        self.role.rise();
        self.role.release();
    }

    /// Mirrors the worker's sleep.
    fn sleep_as_worker(&self) {
        let has_work = || self.injected.load(Ordering::SeqCst) > 0;
        let early = injected_bug!("look_before_the_count") && !has_work();
        let falls_asleep = || {
            self.awake.down(EPOCH);
            !early && (has_work() || self.role_wished.load(Ordering::SeqCst))
        };
        self.sleep(By::Worker, falls_asleep, || self.awake.up(EPOCH), Epoll::wait);
    }

    /// Mirrors a worker that runs `tasks` tasks and ends.
    fn work(&self, tasks: usize) {
        let mut run = 0;
        while run < tasks {
            if self.take_injected() {
                run += 1;
            } else if self.role.try_take() {
                if self.grant_role() { self.rest() } else { self.sleep_as_worker() }
            } else if self.give_back() {
                self.rest();
            }
        }
    }

    /// Mirrors `Thread::wait` until the root future is woken.
    fn block_on(&self) {
        while !self.root.begin_turn() {
            if self.needs_poller() && self.role.try_take() {
                let early = injected_bug!("root_looks_too_early") && !self.root.is_woken();
                let falls_asleep = || if early { self.root.enter_poll() && false } else { !self.root.enter_poll() };
                self.sleep(By::Root, falls_asleep, || self.root.leave_poll(), Epoll::wait);
            } else {
                self.park_root();
            }
        }
    }

    fn wake_root(&self) {
        self.root.wake(|| self.wake());
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

/// Two threads interrupt the sleep at the same time, and again: one write may serve both, but a write that was used
/// up serves none.
pub fn breaks_are_not_lost() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| runtime.work(3));
    let other = spawn(&runtime, Runtime::inject);
    runtime.inject();
    runtime.inject();
    other.join().unwrap();
    worker.join().unwrap();
}

/// A task is injected while the worker goes to rest because another thread has the role, and that thread leaves.
pub fn rest_against_inject() {
    let runtime = Runtime::new(2);
    assert!(runtime.role.try_take());
    let worker = spawn(&runtime, |runtime| runtime.work(1));
    let injecting = spawn(&runtime, Runtime::inject);
    runtime.role.release();
    runtime.leave();
    injecting.join().unwrap();
    worker.join().unwrap();
}

/// A task is injected while the thread in `block_on` goes to sleep in epoll: the resting worker runs it.
pub fn inject_against_the_sleep_of_a_root() {
    let runtime = Runtime::new(0);
    {
        let mut idle = runtime.idle.lock();
        (idle.free, idle.resting) = (1, true);
    }
    runtime.root.begin_turn();
    let worker = spawn(&runtime, |runtime| {
        runtime.rest();
        runtime.work(1);
        // From here on it sleeps in epoll or rests, and ends.
        runtime.wake_root();
    });
    let injecting = spawn(&runtime, Runtime::inject);
    runtime.block_on();
    injecting.join().unwrap();
    worker.join().unwrap();
}

/// Runs the worker until it has the role, which it must get because no other thread polls.
fn ends_up_polling(runtime: &Runtime) {
    while !runtime.role.try_take() {
        if runtime.give_back() {
            runtime.rest();
        }
    }
}

/// A thread returns from epoll and leaves while the worker goes to rest because the role is taken: the worker returns
/// in time to poll.
pub fn some_thread_polls_when_all_rest() {
    let runtime = Runtime::new(2);
    assert!(runtime.role.try_take());
    let worker = spawn(&runtime, ends_up_polling);
    runtime.role.release();
    runtime.leave();
    worker.join().unwrap();
}

/// The worker goes to rest while sysmon polls.
///
/// Mirrors `Monitor::poll`.
pub fn sysmon_gives_the_role_back() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, ends_up_polling);
    if runtime.role.try_take() {
        runtime.epoll().wait(false);
        runtime.role.release();
        if !injected_bug!("sysmon_leaves_no_poller") {
            runtime.ensure_poller();
        }
    }
    worker.join().unwrap();
}

/// The thread in `block_on` parks while sysmon polls: afterwards it polls itself.
///
/// Mirrors `Thread::wait` and `Monitor::poll`.
pub fn a_root_polls_after_sysmon() {
    let runtime = Runtime::new(0);
    runtime.root.begin_turn();
    let root = spawn(&runtime, |runtime| {
        while !(runtime.needs_poller() && runtime.role.try_take()) {
            runtime.park_root();
        }
    });
    if runtime.role.try_take() {
        runtime.role.release();
        if !injected_bug!("sysmon_leaves_no_poller") {
            runtime.ensure_poller();
        }
    }
    root.join().unwrap();
}

/// The worker grants the wish of the thread in `block_on`, whose root future is woken in the meantime: the thread
/// declines, and the worker polls.
///
/// Mirrors `Thread::wait` and `Thread::settle_wish`.
pub fn the_role_is_not_lost_when_a_wish_is_granted() {
    let runtime = Runtime::new(1);
    runtime.root.begin_turn();
    let worker = spawn(&runtime, |runtime| {
        loop {
            if !runtime.role.try_take() {
                if runtime.give_back() {
                    runtime.rest();
                }
            } else if runtime.grant_role() {
                runtime.rest();
            } else {
                break;
            }
        }
    });
    if runtime.ask_for_role() {
        let waking = spawn(&runtime, Runtime::wake_root);
        runtime.park_root();
        // Woken: the turn of the root future begins.
        if runtime.withdraw_wish() {
            runtime.ensure_poller();
        }
        waking.join().unwrap();
    }
    worker.join().unwrap();
}

/// A task is injected while the worker grants the role, and rests.
pub fn a_granted_role_against_inject() {
    let runtime = Runtime::new(1);
    runtime.root.begin_turn();
    runtime.ask_for_role();
    let worker = spawn(&runtime, |runtime| runtime.work(1));
    runtime.inject();
    worker.join().unwrap();
}

/// The root future is woken while its thread goes to sleep in epoll.
pub fn root_waker_against_sleep() {
    let runtime = Runtime::new(0);
    runtime.root.begin_turn();
    let waiting = spawn(&runtime, Runtime::block_on);
    runtime.wake_root();
    waiting.join().unwrap();
}

/// The root future is woken twice while its thread parks because another thread polls.
pub fn root_waker_against_park() {
    let runtime = Runtime::new(1);
    runtime.root.begin_turn();
    let waiting = spawn(&runtime, |runtime| {
        runtime.block_on();
        runtime.block_on();
    });
    let nudging = spawn(&runtime, |runtime| _ = runtime.nudge_root());
    runtime.wake_root();
    while runtime.root.is_woken() {
        thread::yield_now();
    }
    runtime.wake_root();
    nudging.join().unwrap();
    waiting.join().unwrap();
}

/// A shutdown advances the epoch and closes the epoll instance while a worker goes to sleep in it: the worker
/// notices.
///
/// Mirrors `shutdown` and `Core::run`.
pub fn an_epoch_ends_against_sleep() {
    let runtime = Runtime::new(1);
    let worker = spawn(&runtime, |runtime| {
        while runtime.epoch.load(Ordering::SeqCst) == EPOCH {
            if runtime.role.try_take() {
                runtime.sleep_as_worker();
            }
        }
    });
    runtime.epoch.store(EPOCH + 1, Ordering::SeqCst);
    runtime.wake();
    drop(runtime.epoll.lock().take());
    worker.join().unwrap();
}

/// A worker polls and then runs a task: another thread may poll in the meantime.
///
/// Mirrors `Polling::poll_now` and D2 of `driver.rs`.
pub fn the_role_is_free_while_a_task_runs() {
    let (runtime, in_turn) = (Runtime::new(1), Arc::new(AtomicBool::new(false)));
    let worker = thread::spawn({
        let (runtime, in_turn) = (runtime.clone(), in_turn.clone());
        move || {
            if runtime.role.try_take() {
                runtime.epoll().wait(false);
                if !injected_bug!("role_held_in_a_turn") {
                    runtime.role.release();
                }
            }
            in_turn.store(true, Ordering::SeqCst);
        }
    });
    if in_turn.load(Ordering::SeqCst) {
        assert!(runtime.role.try_take(), "the role is held in a turn");
    }
    worker.join().unwrap();
}
