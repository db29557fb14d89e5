//! The miniature of the runtime that the models of [`sleep`](crate::sleep) and
//! [`shards`](crate::shards) use.
//!
//! `Role`, `Roles`, `Root`, `Awake` and `Parker` are the crate's. The code that connects them is
//! spread over files that cannot be compiled here, because they make system calls or use such
//! files: `rt/runtime.rs`, `rt/poll/driver.rs`, `rt/poll/epoll.rs`, `rt/sched/injector.rs`,
//! `rt/sched/idle.rs`, `rt/sched/resting.rs`, `rt/sched/polling.rs`, `rt/sched/worker.rs` and
//! `rt/sched/block_on.rs`. So this file is a miniature of that code. Except as noted, each function
//! accesses the same words in the same order as the function of the same name, or as the function
//! that its comment names. Words that no model needs are left out. A change to the protocol in one
//! of those files must be made here too.
//!
//! The runtime always runs, every sleep is without a time limit, and there are no spare processors.

use std::sync::Arc;

use crate::engine::thread;
use crate::rt::parker::Parker;
use crate::rt::poll::role::By;
use crate::rt::poll::roles::{Roles, SHARDS_MAX, Shards};
use crate::rt::sched::awake::Awake;
use crate::rt::sched::root::Root;
use crate::rt::time::clock::NEVER;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering, fence, injected_bug};

/// The edges of an epoll instance that the kernel has not reported yet.
#[derive(Clone, Copy, Default)]
struct Edges {
    /// The edge of the eventfd, which is edge-triggered and never drained.
    broken: bool,
    /// The edge of a socket.
    event: bool,
}

impl Edges {
    fn is_any(self) -> bool {
        self.broken || self.event
    }
}

/// The kernel's state of all epoll instances.
struct Kernel {
    /// The edges of the instances of two epochs, by the number of the instance.
    edges: Mutex<[Edges; 2 * SHARDS_MAX]>,
    changed: Condvar,
}

impl Kernel {
    fn set(&self, number: usize, set: impl FnOnce(&mut Edges)) {
        set(&mut self.edges.lock()[number]);
        self.changed.notify_all();
    }

    /// Mirrors epoll_wait(2): takes the edges of an instance, after waiting for them without a time
    /// limit if `block`.
    fn take(&self, number: usize, block: bool) -> Edges {
        let mut edges = self.edges.lock();
        while block && !edges[number].is_any() {
            edges = self.changed.wait(edges);
        }
        std::mem::take(&mut edges[number])
    }

    /// Mirrors poll(2): waits without a time limit until an instance has an edge, or not at all if
    /// `block` is false. Returns the numbers of the instances that have edges.
    fn wait(&self, numbers: &[usize], block: bool) -> Vec<usize> {
        let mut edges = self.edges.lock();
        loop {
            let ready: Vec<usize> = numbers.iter().copied().filter(|&number| edges[number].is_any()).collect();
            if !block || !ready.is_empty() {
                return ready;
            }
            edges = self.changed.wait(edges);
        }
    }
}

/// Mirrors `Epoll`: an instance with its eventfd, and the flag that avoids redundant writes to the
/// eventfd.
pub(crate) struct Epoll {
    kernel: Arc<Kernel>,
    number: usize,
    breaking: AtomicBool,
}

impl Epoll {
    /// Takes the edges, after waiting for them if `block`. Returns whether there was an event of a
    /// socket.
    pub(crate) fn wait(&self, block: bool) -> bool {
        self.take(block).event
    }

    fn take(&self, block: bool) -> Edges {
        let edges = self.kernel.take(self.number, block);
        if edges.broken && !injected_bug!("break_seen_and_kept") {
            self.breaking.swap(false, Ordering::SeqCst);
        }
        edges
    }

    /// Takes the edges without waiting, and repeats an interrupt that it takes. Returns whether
    /// there was an event of a socket.
    pub(crate) fn look(&self) -> bool {
        let edges = self.take(false);
        if edges.broken && !injected_bug!("look_keeps_the_interrupt") {
            self.wake();
        }
        edges.event
    }

    /// Interrupts a wait.
    fn wake(&self) {
        if self.breaking.swap(true, Ordering::SeqCst) {
            return;
        }
        self.kernel.set(self.number, |edges| edges.broken = true);
    }
}

/// Mirrors `Wish`, for the only thread in `block_on` of a model.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Wish {
    #[default]
    None,
    Asked,
    Granted,
}

/// Mirrors `Idle`, for one resting worker.
#[derive(Default)]
struct Idle {
    /// The number of free processors.
    free: usize,
    /// Whether the worker rests.
    resting: bool,
    /// Whether a processor was assigned to the worker.
    assigned: bool,
    wish: Wish,
    /// Whether the thread in `block_on` is listed as parked.
    root_parked: bool,
}

/// Mirrors `Runtime` and its `Driver`, with one worker that may rest, one thread in `block_on`, and
/// further threads of the model. No worker is stuck.
pub(crate) struct Runtime {
    pub(crate) epoch: AtomicU32,
    /// The number of tasks in the shared queue.
    injected: AtomicUsize,
    pub(crate) awake: Awake,
    pub(crate) roles: Roles,
    kernel: Arc<Kernel>,
    epolls: [Mutex<Option<Arc<Epoll>>>; SHARDS_MAX],
    /// The time of the first timer of each shard.
    next: [AtomicU64; SHARDS_MAX],
    idle: Mutex<Idle>,
    parker: Parker,
    pub(crate) root: Root,
    role_wished: AtomicBool,
}

/// The epoch in which a model begins.
pub(crate) const EPOCH: u32 = 0;

impl Runtime {
    /// Creates a runtime with one open shard, in which `awake` threads own a processor.
    pub(crate) fn new(awake: usize) -> Arc<Runtime> {
        Runtime::with_open(1, awake)
    }

    /// Creates a runtime with two shards, of which `open` are open, and in which `awake` threads
    /// own a processor.
    pub(crate) fn with_open(open: usize, awake: usize) -> Arc<Runtime> {
        let runtime = Runtime {
            epoch: AtomicU32::new(EPOCH),
            injected: AtomicUsize::new(0),
            awake: Awake::new(),
            roles: Roles::new(),
            kernel: Arc::new(Kernel { edges: Mutex::new(Default::default()), changed: Condvar::new() }),
            epolls: std::array::from_fn(|_| Mutex::new(None)),
            next: std::array::from_fn(|_| AtomicU64::new(NEVER)),
            idle: Mutex::new(Idle::default()),
            parker: Parker::new(),
            root: Root::new(),
            role_wished: AtomicBool::new(false),
        };
        runtime.awake.begin(EPOCH);
        (0..awake).for_each(|_| runtime.awake.up(EPOCH));
        (1..open).for_each(|shard| runtime.roles.set_open(shard));
        Arc::new(runtime)
    }

    // ---- Driver ----

    pub(crate) fn epoll(&self, shard: usize) -> Arc<Epoll> {
        let open = || {
            // Each epoch has its own instances.
            let number = shard + self.epoch.load(Ordering::SeqCst) as usize * SHARDS_MAX;
            Arc::new(Epoll { kernel: self.kernel.clone(), number, breaking: AtomicBool::new(false) })
        };
        self.epolls[shard].lock().get_or_insert_with(open).clone()
    }

    /// Mirrors `Driver::close`, except that the shards stay open.
    pub(crate) fn close(&self) {
        self.epolls.iter().for_each(|epoll| drop(epoll.lock().take()));
    }

    fn interrupt_sleep(&self, shard: usize) {
        let epoll = self.epolls[shard].lock().clone();
        if let Some(epoll) = epoll {
            epoll.wake();
        }
    }

    /// Interrupts a sleep in a shard that ends after `at`. Returns whether a thread sleeps in the
    /// shard.
    fn wake_if_later(&self, shard: usize, at: u64) -> bool {
        let (is_asleep, is_later) = self.roles.role(shard).asleep_beyond(at);
        if is_later {
            self.interrupt_sleep(shard);
        }
        is_asleep
    }

    pub(crate) fn wake(&self) {
        for shard in self.roles.open() {
            self.wake_if_later(shard, 0);
            if injected_bug!("wakes_one_sleeper") {
                break;
            }
        }
    }

    /// Mirrors `Driver::wake_one`.
    fn wake_one_of(&self, first: usize, by: Option<By>) -> bool {
        let shard = self.roles.asleep(first, by);
        if let Some(shard) = shard {
            self.interrupt_sleep(shard);
        }
        shard.is_some()
    }

    fn wake_worker(&self, first: usize) -> bool {
        let by = if injected_bug!("root_taken_for_a_worker") { None } else { Some(By::Worker) };
        self.wake_one_of(first, by)
    }

    /// Posts an event of a socket that is registered in a shard.
    pub(crate) fn event(&self, shard: usize) {
        let epoll = self.epoll(shard);
        self.kernel.set(epoll.number, |edges| edges.event = true);
    }

    // ---- timers ----

    fn next_timer(&self, shards: Shards) -> u64 {
        let looks = if injected_bug!("next_timer_of_one_shard") { Shards::one(shards.first()) } else { shards };
        looks.into_iter().map(|shard| self.next[shard].load(Ordering::SeqCst)).min().unwrap_or(NEVER)
    }

    /// Arms the first timer of a shard. Mirrors `timer_moved` on a thread that does not poll.
    pub(crate) fn arm(&self, shard: usize, at: u64) {
        self.next[shard].store(at, Ordering::SeqCst);
        if !self.wake_if_later(shard, at) {
            self.ensure_poller();
        }
    }

    // ---- Runtime, Idle ----

    pub(crate) fn inject(&self) {
        self.inject_in(0);
    }

    /// Mirrors `inject` on a thread whose home is the shard `own`.
    pub(crate) fn inject_in(&self, own: usize) {
        self.injected.fetch_add(1, Ordering::SeqCst);
        self.ensure_worker(own);
    }

    /// Takes a task, if one is queued. Returns whether it took one.
    pub(crate) fn take_injected(&self) -> bool {
        let less = |count: usize| count.checked_sub(1);
        self.injected.load(Ordering::SeqCst) > 0
            && self.injected.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    fn ensure_worker(&self, own: usize) {
        fence(Ordering::SeqCst);
        if self.awake.count() == 0 && !self.wake_worker(own) && self.awake.count() == 0 {
            self.wake_one();
        }
    }

    pub(crate) fn leaves_a_shard(&self) -> bool {
        self.awake.count() == 0 && !self.roles.are_taken()
    }

    pub(crate) fn ensure_poller(&self) {
        fence(Ordering::SeqCst);
        let wakes_sleeper = !injected_bug!("sleeper_is_left_in_its_shard");
        let wakes = || wakes_sleeper && self.wake_one_of(0, None);
        if self.leaves_a_shard() && !wakes() && !self.nudge_root() && self.leaves_a_shard() {
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

    pub(crate) fn give_back(&self, home: usize) -> bool {
        let mut idle = self.idle.lock();
        let may_poll = || !self.roles.role(home).is_taken() || (self.awake.count() <= 1 && !self.roles.are_taken());
        if self.injected.load(Ordering::SeqCst) > 0 || may_poll() {
            return false;
        }
        self.list(&mut idle);
        drop(idle);
        if self.injected.load(Ordering::SeqCst) > 0 {
            self.ensure_worker(home);
        } else if !injected_bug!("rest_without_another_look") && !self.roles.are_taken() {
            self.ensure_poller();
        }
        true
    }

    pub(crate) fn rest(&self) {
        while !std::mem::take(&mut self.idle.lock().assigned) {
            self.parker.park();
        }
    }

    /// Mirrors `leave`: a thread gives up its processor and never gets one again.
    pub(crate) fn leave(&self) {
        self.idle.lock().free += 1;
        self.awake.down(EPOCH);
        if self.injected.load(Ordering::SeqCst) > 0 {
            self.ensure_worker(0);
        } else if !injected_bug!("leave_ensures_no_worker") {
            self.ensure_poller();
        }
    }

    pub(crate) fn grant_role(&self, shards: Shards) -> bool {
        if !self.role_wished.load(Ordering::SeqCst) {
            return false;
        }
        self.role_wished.store(false, Ordering::SeqCst);
        let mut idle = self.idle.lock();
        if idle.wish != Wish::Asked {
            return false;
        }
        idle.wish = Wish::Granted;
        let kept = if injected_bug!("grant_keeps_a_shard") { Shards::one(1) } else { Shards::NONE };
        self.roles.release(shards.without(kept));
        self.list(&mut idle);
        drop(idle);
        self.root.nudge();
        if self.injected.load(Ordering::SeqCst) > 0 && !injected_bug!("grant_looks_at_nothing") {
            self.ensure_worker(0);
        }
        true
    }

    pub(crate) fn ask_for_role(&self) -> bool {
        let mut idle = self.idle.lock();
        if idle.wish != Wish::None {
            return false;
        }
        idle.wish = Wish::Asked;
        self.role_wished.store(true, Ordering::SeqCst);
        drop(idle);
        self.wake_worker(0);
        true
    }

    pub(crate) fn withdraw_wish(&self) -> bool {
        let mut idle = self.idle.lock();
        let was_granted = std::mem::take(&mut idle.wish) == Wish::Granted;
        self.role_wished.store(false, Ordering::SeqCst);
        was_granted && !injected_bug!("granted_wish_is_forgotten")
    }

    /// Mirrors `needs_poller` for workers that are neither stuck nor in long turns.
    pub(crate) fn needs_poller(&self) -> bool {
        self.awake.count() == 0
    }

    pub(crate) fn park_root(&self) {
        self.idle.lock().root_parked = true;
        if injected_bug!("root_parks_without_another_look") || self.roles.are_taken() || !self.needs_poller() {
            self.root.park();
        }
        self.idle.lock().root_parked = false;
    }

    pub(crate) fn nudge_root(&self) -> bool {
        let is_parked = self.idle.lock().root_parked;
        if is_parked {
            self.root.nudge();
        }
        is_parked
    }

    // ---- Polling, Core, Thread ----

    /// Mirrors `Polling::sleep` of a thread with the roles of `shards`. Every timer counts as due.
    /// The events are taken after `rise`, as in `Polling::sleep_in_several`. (`Polling::sleep_in`
    /// takes them before.) Returns whether the thread took an event of a socket, or a timer was
    /// due.
    fn sleep(&self, shards: Shards, by: By, falls_asleep: impl FnOnce() -> bool, rises: impl FnOnce()) -> bool {
        let epoch = if injected_bug!("sleep_in_any_epoch") { self.epoch.load(Ordering::SeqCst) } else { EPOCH };
        let until = self.next_timer(shards);
        if until != NEVER {
            self.roles.release(shards);
            return true;
        }
        let epolls: Vec<Arc<Epoll>> = shards.into_iter().map(|shard| self.epoll(shard)).collect();
        self.roles.sleep(shards, until, by);
        let early = injected_bug!("sleep_looks_for_a_shard_too_early") && !self.leaves_a_shard();
        let called_off = falls_asleep()
            | (self.next_timer(shards) < until)
            | (self.epoch.load(Ordering::SeqCst) != epoch)
            | (!early && self.leaves_a_shard());
        let mut numbers: Vec<usize> = epolls.iter().map(|epoll| epoll.number).collect();
        if injected_bug!("waits_in_one_shard") {
            numbers.truncate(1);
        }
        let ready = self.kernel.wait(&numbers, !called_off);
        rises();
        self.roles.rise(shards);
        let has_event = epolls
            .iter()
            .filter(|epoll| ready.contains(&epoll.number))
            .fold(false, |any, epoll| epoll.wait(false) | any);
        self.roles.release(shards);
        has_event
    }

    /// Mirrors the sleep of a worker with the roles of `shards`.
    pub(crate) fn sleep_as_worker(&self, shards: Shards) -> bool {
        let has_work = || self.injected.load(Ordering::SeqCst) > 0;
        let early = injected_bug!("look_before_the_count") && !has_work();
        let falls_asleep = || {
            self.awake.down(EPOCH);
            !early && (has_work() || self.role_wished.load(Ordering::SeqCst))
        };
        self.sleep(shards, By::Worker, falls_asleep, || self.awake.up(EPOCH))
    }

    /// Takes the roles with which a worker sleeps. In a model, no shard is stale: some thread has
    /// polled each shard recently.
    pub(crate) fn take(&self, home: usize) -> Shards {
        self.roles.take(home, || self.awake.count() <= 1, || 0)
    }

    /// Mirrors `Core::idle`, without its look for events. Returns whether the worker took an event
    /// or a timer was due.
    pub(crate) fn idle(&self, home: usize) -> bool {
        let shards = self.take(home);
        if shards.is_empty() {
            if self.give_back(home) {
                self.rest();
            }
        } else if self.grant_role(shards) {
            self.rest();
        } else {
            return self.sleep_as_worker(shards);
        }
        false
    }

    /// Mirrors a worker. Returns when it has run `tasks` tasks.
    pub(crate) fn work(&self, tasks: usize) {
        let mut run = 0;
        while run < tasks {
            if self.take_injected() {
                run += 1;
            } else {
                self.idle(0);
            }
        }
    }

    /// Mirrors `Thread::wait` after the wish was withdrawn, for a thread that does not ask again.
    /// Returns whether the thread took an event or a timer was due.
    pub(crate) fn wait_as_root(&self, was_granted: bool) -> bool {
        let polls = was_granted || self.needs_poller();
        let shards = if polls { self.roles.take_free() } else { Shards::NONE };
        if shards.is_empty() {
            self.park_root();
            return false;
        }
        let (root, shard) = (&self.root, shards.first());
        let early = injected_bug!("root_looks_too_early") && !root.is_woken();
        let falls_asleep = || if early { root.enter_poll(shard) && false } else { !root.enter_poll(shard) };
        self.sleep(shards, By::Root, falls_asleep, || root.leave_poll())
    }

    /// Waits until the root future is woken, and begins its turn.
    pub(crate) fn block_on(&self) {
        while !self.root.begin_turn() {
            self.wait_as_root(false);
        }
    }

    /// Mirrors the waker of the root future in `rt/sched/block_on.rs`.
    pub(crate) fn wake_root(&self) {
        self.root.wake(|shard| {
            self.wake_if_later(if injected_bug!("root_is_woken_in_shard_0") { 0 } else { shard }, 0);
        });
    }

    /// Lists the worker as resting, and a processor as free.
    pub(crate) fn set_resting(&self) {
        let mut idle = self.idle.lock();
        (idle.free, idle.resting) = (1, true);
    }
}

pub(crate) fn spawn(runtime: &Arc<Runtime>, run: impl FnOnce(&Runtime) + Send + 'static) -> thread::JoinHandle<()> {
    let runtime = runtime.clone();
    thread::spawn(move || run(&runtime))
}
