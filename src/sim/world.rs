//! `World`: one simulation on one thread, and its run loop.
//!
//! # States of the thread
//! *outside* → [`World::run`] → *inside* → the guards are dropped → *outside*. Inside, the thread
//! uses the clock, the random numbers and the sockets of the world (with real sockets: only the
//! clock), tasks spawned on it belong to the world, and it owns a processor for its timers.
//!
//! # The run loop
//! While any task is runnable, the next task is chosen, by default at random, and polled. When no
//! task is runnable, edges (reports of readiness) are taken. If no edge wakes a task, the clock
//! advances to the time of the earliest event or timer, which then takes place (`advance`).
//!
//! # Wake-ups
//! Tasks are woken by the thread itself, or by other threads. Wake-ups by other threads go through
//! [`Shared`], or through `Main` for the test's own future. The seed then no longer reproduces the
//! run.
//!
//! # Invariants
//! * Neither the kernel nor the scheduler is borrowed while user code runs (futures, destructors,
//!   wakers).
//! * All random choices and all orders depend only on the seed and the test. Task numbers are
//!   unique in the process, so a simulation uses only their order, which is the order in which the
//!   tasks of the world were spawned.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
#[cfg(feature = "signal")]
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use async_task::Runnable;

use super::busy::Busy;
use super::machine::current::{Machine, TIME_MAX};
use super::machine::kernel::Kernel;
use super::machine::kernel::random::Random;
use super::machine::kernel::socket::HostId;
use super::machine::{Tag, is_here};
use super::metrics::{self, Totals};
use super::rules::Rule;
use super::shared::{Shared, lock};
use crate::rt::context;
use crate::rt::runtime::runtime;
use crate::rt::sched::hooks::{self, Hooks};
use crate::rt::sched::lanes::Lane;
use crate::rt::sched::processor::Processor;
use crate::rt::sched::record::Kind;
use crate::rt::sched::task::{RootLocals, discard};
use crate::rt::sched::task_data::TaskData;
use crate::rt::time::ticks;
use crate::rt::unsent;
use crate::rt::waiters::drop_payload;
#[cfg(feature = "signal")]
use crate::signal::SignalKind;

/// The maximum budget of a turn with [`Order::Random`], in the units of [`context::BUDGET`]. The
/// budget is random and usually smaller than outside simulations, so that tasks yield in more
/// places.
const BUDGET_MAX: u64 = 32;

/// While both control tasks and ordinary tasks are runnable, one of this many draws (on average,
/// with [`Order::Random`]) may choose any task, and the others choose a control task. This does not
/// depend on [`control_share`](crate::rt::Builder::control_share), because a simulation does not
/// measure the time of turns.
const CONTROL_DRAWS: u64 = 20;

/// The default of [`World::patience_ms`].
const PATIENCE_MS: u64 = 60_000;

thread_local! {
    static CURRENT: Cell<*const World> = const { Cell::new(ptr::null()) };
}

/// The order in which runnable tasks are polled. In both orders, control tasks (tasks in
/// [`Lane::Control`](crate::rt::Lane::Control)) precede other tasks in at least 19 of 20 cases on
/// average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The next task is chosen at random, depending on the seed.
    #[default]
    Random,
    /// The next task is the one that was woken first. The test's own future follows the tasks that
    /// are woken in the same turn, or when the clock reaches the same time.
    Fifo,
}

/// The shared parts of the worlds that have not ended, by number.
pub(super) static WORLDS: Mutex<BTreeMap<u32, Arc<Shared>>> = Mutex::new(BTreeMap::new());

/// Processors that worlds have used, for reuse by later worlds.
static PROCESSORS: Mutex<Vec<&'static Processor>> = Mutex::new(Vec::new());

/// The program of a host, which can be started again.
#[derive(Clone)]
pub(super) struct Start {
    /// The location of the call of [`Host::spawn`](super::Host::spawn).
    pub(super) place: &'static Location<'static>,
    pub(super) program: Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>,
}

/// A task of the world.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) host: HostId,
    pub(super) name: Option<String>,
    pub(super) lane: Lane,
    pub(super) waker: Waker,
}

/// A future that was woken and waits for its turn.
pub(super) enum Ready {
    Task(Runnable<TaskData>),
    /// The future of the test.
    Main,
}

#[derive(Default)]
pub(super) struct Schedule {
    pub(super) ready: Vec<Ready>,
    pub(super) members: BTreeMap<u64, Member>,
    /// For each host, the number of times that its tasks were ended.
    pub(super) lives: Vec<u16>,
    /// The number of draws in the order [`Order::Fifo`] while both control tasks and ordinary tasks
    /// were runnable.
    control_draws: u64,
}

/// Returns false if the host of the tasks with this tag has ended them.
pub(super) fn is_current(lives: &[u16], tag: Tag) -> bool {
    lives.get(usize::from(tag.host)).copied().unwrap_or_default() == tag.life
}

/// The waker of the test's future.
pub(super) struct Main {
    woken: AtomicBool,
    shared: Arc<Shared>,
    thread: std::thread::ThreadId,
}

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if std::thread::current().id() != self.thread {
            self.shared.note_foreign();
        }
    }
}

/// One simulation; see the [module documentation](self).
pub(crate) struct World {
    pub(super) id: u32,
    pub(super) seed: u64,
    pub(super) machine: Machine,
    pub(super) schedule: RefCell<Schedule>,
    random: RefCell<Random>,
    pub(super) order: Cell<Order>,
    /// The digest at the end of the test, before the remaining tasks were dropped.
    pub(super) digest: Cell<u64>,
    /// The first failure, which ends the simulation after the current turn.
    failure: RefCell<Option<Box<dyn std::any::Any + Send>>>,
    /// The virtual time after which the simulation fails, in nanoseconds.
    pub(super) limit: Cell<u64>,
    /// The maximum real time, in milliseconds, of a wait for other threads or for the real kernel,
    /// and of a period in which a task can always run.
    pub(super) patience_ms: Cell<u64>,
    /// The number of the test's own future.
    pub(super) root: Cell<u64>,
    pub(super) rules: RefCell<Vec<Rule>>,
    /// The programs of the hosts.
    pub(super) starts: RefCell<Vec<(HostId, Start)>>,
    /// The sending ends of the listeners for signals. The keys are in the order of creation.
    #[cfg(feature = "signal")]
    pub(super) signals: RefCell<BTreeMap<u64, (HostId, SignalKind, UnixStream)>>,
    pub(super) shared: Arc<Shared>,
    pub(super) processor: &'static Processor,
    pub(super) totals: Totals,
    pub(super) busy: Busy,
    /// The tag of the task that is polled or dropped now, or `None` if there is none.
    pub(super) running: Cell<Option<Tag>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Calls `f` with the world of this thread, or with `None` if the thread is in no world.
#[allow(unsafe_code)]
pub(super) fn with<T>(f: impl FnOnce(Option<&World>) -> T) -> T {
    // SAFETY: the pointer is null, or that of a world that is borrowed by a call of `run` further
    // up on the stack of this thread. `Inside` clears the pointer before `run` returns.
    f(CURRENT.with(|current| unsafe { current.get().as_ref() }))
}

/// Queues a task that belongs to a world, or discards the task if its world has ended.
#[cold]
fn schedule_member(runnable: Runnable<TaskData>) {
    let tag = runnable.metadata().tag();
    let elsewhere = with(|world| match world.filter(|world| world.id == tag.world) {
        Some(world) => {
            world.add(runnable);
            None
        }
        None => Some(runnable),
    });
    if let Some(runnable) = elsewhere {
        let shared = lock(&WORLDS).get(&tag.world).cloned();
        match shared {
            Some(shared) => shared.push(runnable),
            None => discard(runnable),
        }
    }
}

/// Asks the running task to yield, as sysmon does when a turn is long.
fn ask_to_yield() {
    with(|world| world.map(|world| context::ask_to_yield(world.processor)));
}

/// Removes a task from its world. Called when the task's future has been dropped.
fn task_ended(number: u64) {
    let member = with(|world| world?.schedule.borrow_mut().members.remove(&number));
    drop(member);
}

/// A guard. When it is dropped, the thread leaves its world.
struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        context::set_processor(None);
        context::leave();
        CURRENT.with(|current| current.set(ptr::null()));
    }
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let shared = Arc::<Shared>::default();
        let notified = shared.clone();
        World::with_machine(seed, Machine::new(seed, move || notified.note_foreign()), shared)
    }

    /// Creates a world in which only the clock is virtual.
    pub(super) fn with_real_sockets() -> io::Result<World> {
        let shared = Arc::<Shared>::default();
        let notified = shared.clone();
        let world = World::with_machine(0, Machine::with_real_sockets(move || notified.note_foreign())?, shared);
        world.order.set(Order::Fifo);
        Ok(world)
    }

    fn with_machine(seed: u64, machine: Machine, shared: Arc<Shared>) -> World {
        static LAST: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let processor = lock(&PROCESSORS).pop();
        let processor = processor.unwrap_or_else(|| Box::leak(Box::new(Processor::new(usize::MAX))));
        lock(&WORLDS).insert(id, shared.clone());
        hooks::install(Hooks { schedule: schedule_member, task_ended });
        let world = World {
            id,
            seed,
            machine,
            schedule: RefCell::default(),
            random: RefCell::new(Random::new(seed, 3)),
            order: Cell::default(),
            digest: Cell::new(0),
            failure: RefCell::new(None),
            limit: Cell::new(TIME_MAX),
            patience_ms: Cell::new(PATIENCE_MS),
            root: Cell::new(0),
            rules: RefCell::default(),
            starts: RefCell::default(),
            #[cfg(feature = "signal")]
            signals: RefCell::default(),
            shared,
            processor,
            totals: Totals::new(processor.timers.armed()),
            busy: Busy::default(),
            running: Cell::default(),
        };
        world.add_host("test");
        world
    }

    /// Runs the future that `make` returns to completion, with this world as the thread's current
    /// world. Panics if the future panics, if the simulation fails, or if the thread is already in
    /// a simulation or in a runtime.
    pub(super) fn run<F, Fut>(&self, make: F) -> Fut::Output
    where
        F: FnOnce() -> Fut,
        Fut: Future,
    {
        assert!(!is_here(), "a simulation cannot run inside another: use the existing `Sim`");
        assert!(!context::is_inside(), "a simulation cannot run inside a runtime: call it outside `block_on`");
        CURRENT.with(|current| current.set(self));
        let machine = self.machine.enter();
        self.machine.on_long_block.set(Some(ask_to_yield));
        self.set_host(0);
        self.processor.epoch.store(runtime().epoch(), Ordering::Relaxed);
        context::enter();
        context::set_processor(Some(self.processor));
        let inside = Inside;
        // `drive` owns the future, so the future is dropped while the thread is still in the world.
        let output = catch_unwind(AssertUnwindSafe(|| unsent::simulating(|| self.drive(make))));
        self.digest.set(self.machine.kernel.borrow().log.digest());
        self.end();
        drop(inside);
        drop(machine);
        match output {
            Ok(output) => output,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    fn drive<F, Fut>(&self, make: F) -> Fut::Output
    where
        F: FnOnce() -> Fut,
        Fut: Future,
    {
        let data =
            TaskData::new(Kind::Root, None, Lane::Normal, runtime().epoch(), Location::caller(), ticks::rough_now());
        let _locals = RootLocals(&data);
        self.root.set(data.number());
        let thread = std::thread::current().id();
        let main = Arc::new(Main { woken: AtomicBool::new(true), shared: self.shared.clone(), thread });
        let waker = Waker::from(main.clone());
        let future = context::run_task(&data, make);
        let future = std::pin::pin!(future);
        let mut future = crate::task::with_local(future);
        loop {
            self.collect(&main);
            let Some(ready) = self.draw() else {
                self.advance();
                continue;
            };
            match ready {
                Ready::Task(runnable) => self.turn(runnable),
                Ready::Main => {
                    self.begin_turn(0, "the test's own future");
                    let mut cx = Context::from_waker(&waker);
                    let polled =
                        context::run_task(&data, || data.record().polling(|| Pin::new(&mut future).poll(&mut cx)));
                    unsent::flush();
                    if let Poll::Ready(output) = polled {
                        context::run_task(&data, || data.clear_locals());
                        return output;
                    }
                }
            }
            let failure = self.failure.borrow_mut().take();
            if let Some(payload) = failure {
                std::panic::resume_unwind(payload);
            }
            // A task may have advanced the clock by blocking its thread.
            let now = self.machine.kernel.borrow().now;
            self.check_limit(now, now);
            self.check_busy();
        }
    }

    /// Ends the simulation with this panic after the current turn, unless an earlier failure ends
    /// it.
    pub(super) fn fail(&self, payload: Box<dyn std::any::Any + Send>) {
        self.failure.borrow_mut().get_or_insert(payload);
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    // ---- the scheduler ----

    /// Makes `host` the current host.
    fn set_host(&self, host: HostId) {
        let life = self.schedule.borrow().lives.get(usize::from(host)).copied().unwrap_or_default();
        self.machine.host.set(host);
        self.machine.tag.set(Tag { world: self.id, host, life });
    }

    /// Returns false if the host of the tasks with this tag has ended them.
    fn is_alive(&self, tag: Tag) -> bool {
        is_current(&self.schedule.borrow().lives, tag)
    }

    /// Queues a task. If its host has ended the task, its future is dropped later and not here,
    /// because the caller is a waker, which may be called under a lock that the future's destructor
    /// takes.
    fn add(&self, runnable: Runnable<TaskData>) {
        let data = runnable.metadata();
        let (tag, number) = (data.tag(), data.number());
        let mut schedule = self.schedule.borrow_mut();
        schedule.members.entry(number).or_insert_with(|| {
            metrics::add(&self.totals.spawned, 1);
            let name = data.task().name().map(str::to_owned);
            Member { host: tag.host, name, lane: data.lane(), waker: runnable.waker() }
        });
        schedule.ready.push(Ready::Task(runnable));
    }

    /// Collects the tasks that were woken by other threads, and the test's future if it was woken.
    /// Closes the descriptors that other threads have asked to close.
    fn collect(&self, main: &Main) {
        self.machine.close_from_elsewhere();
        let inbox = std::mem::take(&mut *lock(&self.shared.inbox));
        inbox.into_iter().for_each(|runnable| self.add(runnable));
        if main.woken.swap(false, Ordering::Acquire) {
            self.schedule.borrow_mut().ready.push(Ready::Main);
        }
    }

    /// Takes the next task, or the test's future, to poll. Returns `None` if neither is runnable.
    /// Most draws choose a control task if one is runnable. With [`Order::Random`], the choice
    /// among the control tasks is random as well.
    fn draw(&self) -> Option<Ready> {
        let Schedule { ready, control_draws, .. } = &mut *self.schedule.borrow_mut();
        let is_control = |ready: &Ready| matches!(ready, Ready::Task(task) if task.metadata().lane() == Lane::Control);
        let controls = ready.iter().filter(|ready| is_control(ready)).count();
        let has_both = controls > 0 && controls < ready.len();
        if has_both {
            let control: Vec<usize> = (0..ready.len()).filter(|&at| is_control(&ready[at])).collect();
            let (is_first, at) = match self.order.get() {
                Order::Fifo => {
                    *control_draws += 1;
                    (!control_draws.is_multiple_of(CONTROL_DRAWS), 0)
                }
                Order::Random => {
                    let mut random = self.random.borrow_mut();
                    (random.below(CONTROL_DRAWS) > 0, random.below(control.len() as u64) as usize)
                }
            };
            if is_first {
                metrics::add(&self.totals.control_turns, 1);
                // `swap_remove` would change the order of wake-ups, which `Fifo` uses.
                return Some(ready.remove(control[at]));
            }
        }
        if !has_both && controls > 0 {
            metrics::add(&self.totals.control_turns, 1);
        }
        match ready.len() {
            0 => None,
            1 => ready.pop(),
            _ if self.order.get() == Order::Fifo => Some(ready.remove(0)),
            count => {
                let at = self.random.borrow_mut().below(count as u64) as usize;
                Some(ready.swap_remove(at))
            }
        }
    }

    fn begin_turn(&self, host: HostId, name: &str) {
        self.set_host(host);
        let budget = match self.order.get() {
            Order::Fifo => context::BUDGET.into(),
            Order::Random => 1 + self.random.borrow_mut().below(BUDGET_MAX),
        };
        self.processor.budget.store(budget as u32, Ordering::Relaxed);
        {
            let mut running = lock(&self.shared.running);
            running.clear();
            running.push_str(name);
        }
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        let log = &mut self.machine.kernel.borrow_mut().log;
        log.counters.turns += 1;
        log.mix(u64::from(host));
    }

    fn turn(&self, runnable: Runnable<TaskData>) {
        let tag = runnable.metadata().tag();
        if !self.is_alive(tag) {
            self.schedule.borrow_mut().ready.push(Ready::Task(runnable));
            return self.drop_ended();
        }
        let data: *const TaskData = runnable.metadata();
        let record = runnable.metadata().record();
        let task = runnable.metadata().task();
        self.begin_turn(tag.host, task.name().unwrap_or("a task without a name"));
        drop(task);
        metrics::add(&self.totals.polls, 1);
        self.running.set(Some(tag));
        // The task catches the panics of its future and of its destructors. Other panics end only
        // the turn.
        if let Err(payload) =
            catch_unwind(AssertUnwindSafe(|| context::run_task(data, || record.polling(|| runnable.run()))))
        {
            drop_payload(payload);
            runtime().panics.add(1);
        }
        self.running.set(None);
        unsent::flush();
    }

    // ---- hosts ----

    pub(super) fn add_host(&self, name: &str) -> HostId {
        let host = self.machine.kernel.borrow_mut().add_host(name);
        self.schedule.borrow_mut().lives.push(0);
        host
    }

    pub(super) fn current_host(&self) -> HostId {
        self.machine.host.get()
    }

    /// Runs `f` as code of `host`.
    pub(super) fn on_host<T>(&self, host: HostId, f: impl FnOnce() -> T) -> T {
        struct Restore<'a>(&'a World, Tag);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set_host(self.1.host);
                // `f` may have ended the running task. Tasks that it spawns later have ended too.
                if self.0.running.get() == Some(self.1) {
                    self.0.machine.tag.set(self.1);
                }
            }
        }
        let _restore = Restore(self, self.machine.tag.get());
        self.set_host(host);
        f()
    }

    pub(super) fn tasks_of(&self, host: HostId) -> usize {
        self.schedule.borrow().members.values().filter(|member| member.host == host).count()
    }

    // ---- the kernel ----

    pub(super) fn kernel<T>(&self, f: impl FnOnce(&mut Kernel) -> T) -> T {
        f(&mut self.machine.kernel.borrow_mut())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        lock(&WORLDS).remove(&self.id);
        lock(&PROCESSORS).push(self.processor);
    }
}
