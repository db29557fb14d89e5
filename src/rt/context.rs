//! The current thread's state in the runtime: its processor, the task that it runs, and its budget.
//!
//! The state is constant-initialised and has no destructor, so an access costs one thread-local
//! load and works during thread exit.

use std::cell::Cell;
use std::future::poll_fn;
use std::ptr;
use std::sync::OnceLock;
use std::task::{Context as TaskContext, Poll, Waker};

use super::sched::event_ring::Mark;
use super::sched::own_waker;
pub(crate) use super::sched::processor::{BUDGET, REFILL};
use super::sched::processor::{CHECK_EVERY, Processor};
use super::sched::record::{Pool, Record};
use super::sched::task_data::TaskData;
use super::sched::turn_ring::CallPlace;
use super::sched::waits::Waits;
use super::{short_count, unsent};
use crate::sync::{AtomicU8, Ordering};

#[derive(Debug)]
struct Context {
    processor: Cell<Option<&'static Processor>>,
    task: Cell<*const TaskData>,
    /// The blocking call that this thread makes. It is the current task while `task` is null.
    call: Cell<*const TaskData>,
    /// The place in the processor's ring of turns for the next call of this turn on a descriptor.
    calls: Cell<CallPlace<'static>>,
    /// The number of calls of [`enter`] that [`leave`] has not undone.
    depth: Cell<u32>,
    /// Whether the thread is in `block_on`, except while it runs tasks there. After each turn of
    /// its root future, the thread polls or makes sure that another thread does.
    is_root: Cell<bool>,
    /// Whether the thread is sysmon and is running wakers, reports or tasks.
    is_sysmon: Cell<bool>,
    /// The nesting depth of drops of tasks, or [`DISCARDS_MAX`] while drops are deferred.
    discards: Cell<u32>,
    /// Whether the thread has deferred a drop since the last [`defer_discards`] began.
    has_deferred: Cell<bool>,
    /// The remaining budget of a root future's turn on a thread without a processor. Outside turns,
    /// it limits consecutive operations without a descriptor.
    budget: Cell<u32>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            processor: Cell::new(None),
            task: Cell::new(ptr::null()),
            call: Cell::new(ptr::null()),
            calls: Cell::new(CallPlace::NONE),
            depth: Cell::new(0),
            is_root: Cell::new(false),
            is_sysmon: Cell::new(false),
            discards: Cell::new(0),
            has_deferred: Cell::new(false),
            budget: Cell::new(BUDGET),
        }
    };
}

/// Returns the processor that this thread owns. Its epoch may be over.
#[inline]
pub(crate) fn processor() -> Option<&'static Processor> {
    CONTEXT.with(|context| context.processor.get())
}

pub(crate) fn set_processor(processor: Option<&'static Processor>) {
    Pool::set_of_thread(processor.map(|processor| &processor.pool));
    CONTEXT.with(|context| {
        context.processor.set(processor);
        context.calls.set(CallPlace::NONE);
    });
}

/// Sets the place where calls on descriptors are recorded. Called when a turn begins and ends.
#[inline]
pub(crate) fn record_calls_at(place: CallPlace<'static>) {
    if cfg!(netpoll_no_black_box) {
        return;
    }
    CONTEXT.with(|context| context.calls.set(place));
}

/// Returns whether this thread belongs to the runtime, is inside `block_on` or a simulation, stands
/// in for the runtime's threads, or runs the wakers and destructors of a shutdown.
pub(crate) fn is_inside() -> bool {
    CONTEXT.with(|context| context.depth.get() > 0)
}

/// Marks the thread as inside the runtime until [`leave`]. Returns whether it already was.
pub(crate) fn enter() -> bool {
    CONTEXT.with(|context| context.depth.replace(context.depth.get() + 1) > 0)
}

/// Undoes one [`enter`].
pub(crate) fn leave() {
    CONTEXT.with(|context| context.depth.set(context.depth.get() - 1));
}

/// Returns whether this thread is in `block_on` and is not running tasks there.
#[inline]
pub(crate) fn is_root() -> bool {
    CONTEXT.with(|context| context.is_root.get())
}

/// Sets the result of [`is_root`]. Returns the previous value.
pub(crate) fn set_root(is_root: bool) -> bool {
    CONTEXT.with(|context| context.is_root.replace(is_root))
}

/// Sets whether this thread is sysmon and is running wakers, reports or tasks.
pub(crate) fn set_sysmon(is_sysmon: bool) {
    CONTEXT.with(|context| context.is_sysmon.set(is_sysmon));
}

/// Refills the budget of a thread without a processor, for the next turn.
pub(crate) fn refill_budget() {
    CONTEXT.with(|context| context.budget.set(BUDGET));
}

/// The maximum nesting depth of drops of tasks. It is greater than 1 because a destructor may wait
/// until another task is dropped.
pub(crate) const DISCARDS_MAX: u32 = 16;

/// Calls `f` with the nesting depth of drops on this thread, including the drop that `f` performs.
pub(crate) fn discarding(f: impl FnOnce(u32)) {
    with_discards(CONTEXT.with(|context| context.discards.get()) + 1, f);
}

/// Calls `f`, during which this thread defers drops of tasks; see
/// [`discard`](super::sched::task::discard). Returns whether it has deferred any. If so, the caller
/// must make sure that the tasks are dropped, for example with
/// [`Runtime::discard_deferred`](super::runtime::Runtime::discard_deferred).
#[inline]
pub(crate) fn defer_discards(f: impl FnOnce()) -> bool {
    CONTEXT.with(|context| context.has_deferred.set(false));
    with_discards(DISCARDS_MAX, |_| f());
    CONTEXT.with(|context| context.has_deferred.get())
}

/// Returns whether this thread is dropping a task and does not defer further drops.
pub(crate) fn is_discarding() -> bool {
    CONTEXT.with(|context| (1..DISCARDS_MAX).contains(&context.discards.get()))
}

/// Returns whether this thread defers further drops of tasks.
pub(crate) fn defers_discards() -> bool {
    CONTEXT.with(|context| context.discards.get() >= DISCARDS_MAX)
}

/// Records that this thread has deferred the drop of a task.
pub(crate) fn note_deferred() {
    CONTEXT.with(|context| context.has_deferred.set(true));
}

fn with_discards(count: u32, f: impl FnOnce(u32)) {
    struct Restore(u32);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| context.discards.set(self.0));
        }
    }
    let _restore = Restore(CONTEXT.with(|context| context.discards.replace(count)));
    f(count);
}

/// Calls `f` with the task or the blocking call that this thread is running, or `None`.
pub(crate) fn with_task<T>(f: impl FnOnce(Option<&TaskData>) -> T) -> T {
    with_turn(|task| match task {
        Some(task) => f(Some(task)),
        None => with_call(f),
    })
}

/// Calls `f` with the task whose turn this thread is in, or `None`. A blocking call on a thread of
/// a pool has no turn.
#[inline]
fn with_turn<T>(f: impl FnOnce(Option<&TaskData>) -> T) -> T {
    let task = CONTEXT.with(|context| context.task.get());
    // SAFETY: null, or set by a `run_turn` that is still on this thread's stack. A task is alive
    // until its future is dropped, which calls `end_task` or `clear_task`.
    #[allow(unsafe_code)]
    f(unsafe { task.as_ref() })
}

/// Calls `f` with the blocking call that this thread of a pool makes, or `None`.
fn with_call<T>(f: impl FnOnce(Option<&TaskData>) -> T) -> T {
    let call = CONTEXT.with(|context| context.call.get());
    // SAFETY: as in `with_turn`, but set by `run_call`.
    #[allow(unsafe_code)]
    f(unsafe { call.as_ref() })
}

/// Returns whether this thread is making a blocking call, and is not in the turn of a task or of a
/// root future within this call.
pub(crate) fn is_call() -> bool {
    CONTEXT.with(|context| {
        // `depth` is 1 because the thread belongs to the runtime.
        !context.call.get().is_null() && context.task.get().is_null() && context.depth.get() == 1
    })
}

/// Clears the current task if it is the task `number`, whose future was just dropped. Code that
/// `async-task` runs afterwards in the same call, such as the waker of the handle, may run when the
/// task is already freed.
pub(crate) fn end_task(number: u64) {
    if with_task(|task| task.is_some_and(|task| task.number() == number)) {
        clear_task();
    }
}

/// Clears the current task or, if there is none, the current blocking call.
#[inline]
pub(crate) fn clear_task() {
    CONTEXT.with(|context| {
        let current = if context.task.get().is_null() { &context.call } else { &context.task };
        current.set(ptr::null());
    });
}

/// Returns whether this thread is in a turn whose end flushes gathered writes; see
/// [`unsent`]. Outside simulations, returns false in the part of a turn that follows a nested
/// turn.
pub(crate) fn gathers_writes() -> bool {
    own_waker::data().is_some() || CONTEXT.with(|context| unsent::is_simulating() && !context.task.get().is_null())
}

/// Flushes gathered writes, and records the wait of an operation that returns `Pending` in the
/// current task or blocking call, if there is one. The caller must hold no lock.
pub(crate) fn note(waits: Waits, cx: &TaskContext<'_>) {
    unsent::flush();
    with_turn(|task| match task {
        Some(task) => task.record().note(waits.pack()),
        None => waits_outside(cx.waker(), |record| record.note(waits.pack())),
    });
}

/// The function that [`watch_waits_outside`] has set.
static WAITS_OUTSIDE: OnceLock<fn(&Waker)> = OnceLock::new();

/// Makes [`note`] and [`note_edge`] call `f` on a thread that is not in the turn of a task. Later
/// calls, which pass the same function, have no effect.
pub(crate) fn watch_waits_outside(f: fn(&Waker)) {
    WAITS_OUTSIDE.get_or_init(|| f);
}

/// Records a wait of the blocking call that this thread makes, if there is one, by `note`. Calls
/// the function that [`watch_waits_outside`] has set.
#[cold]
fn waits_outside(waker: &Waker, note: impl FnOnce(&Record)) {
    with_call(|call| {
        if let Some(call) = call {
            note(call.record());
        }
    });
    if let Some(f) = WAITS_OUTSIDE.get() {
        f(waker);
    }
}

/// Records one of the [`edge_notes`](super::sched::waits::edge_notes) in the current task or
/// blocking call, in place of its previous wait. Unlike [`note`], does not flush gathered writes.
/// The caller must hold no lock.
#[inline]
pub(crate) fn note_edge(note: u32, cx: &TaskContext<'_>) {
    with_turn(|task| match task {
        Some(task) => task.record().note_edge(note),
        None => waits_outside(cx.waker(), |record| record.note_edge(note)),
    });
}

/// Records in `record` that the task of this thread has woken the task of the record or, if this
/// thread runs no task, that a thread has. A thread that runs no task but may be calling the wakers
/// of events and timers records nothing, so the record keeps the wait of the task.
pub(crate) fn note_waker(record: &Record) {
    match with_task(|task| task.map(TaskData::number)) {
        Some(number) => record.note_waker(Waits::WokenByTask(number)),
        None if CONTEXT.with(Context::may_poll) => {}
        None => record.note_waker(Waits::WokenByThread),
    }
}

/// Returns the processor that this thread owns, if the thread got it in `epoch`. The processor of a
/// thread that outlived a shutdown does not count in the next epoch.
#[inline]
pub(crate) fn processor_in(epoch: u32) -> Option<&'static Processor> {
    // ORDERING: Relaxed: written by the owner, or before the processor was handed to it.
    processor().filter(|processor| processor.epoch.load(Ordering::Relaxed) == epoch)
}

/// Returns the result of [`processor_in`] (in a simulation, `None`), and whether this thread is
/// running a task.
#[inline]
pub(crate) fn processor_and_task(epoch: u32) -> (Option<&'static Processor>, bool) {
    let is_in_task = CONTEXT.with(|context| !context.task.get().is_null());
    // The processor of a simulation runs only tasks of the simulation.
    #[cfg(feature = "sim")]
    if crate::sim::is_here() {
        return (None, is_in_task);
    }
    (processor_in(epoch), is_in_task)
}

/// Makes `task` the current task while `f` runs. Restores the previous task, even if `f` panics.
pub(crate) fn run_task<T>(task: *const TaskData, f: impl FnOnce() -> T) -> T {
    run_turn(task, None, f)
}

/// Runs a turn of the task, as [`run_task`] does. `own` is the data pointer of its waker, if known.
#[inline]
pub(crate) fn run_turn<T>(task: *const TaskData, own: Option<*const ()>, f: impl FnOnce() -> T) -> T {
    struct Restore(*const TaskData);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| {
                context.task.set(self.0);
            });
            short_count::end_turn();
            // The remaining part of an outer turn does not use the optimisations that depend on
            // `own`.
            own_waker::set_data(None);
        }
    }
    own_waker::set_data(own);
    short_count::end_turn();
    let before = CONTEXT.with(|context| context.task.replace(task));
    let _restore = Restore(before);
    f()
}

/// Makes `call` the blocking call of this thread, which belongs to a pool, while `f` runs.
pub(crate) fn run_call<T>(call: *const TaskData, f: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| context.call.set(ptr::null()));
        }
    }
    CONTEXT.with(|context| context.call.set(call));
    let _restore = Restore;
    run_task(ptr::null(), f)
}

/// Records a call on the descriptor `fd` that completed without waiting, even if it failed: for the
/// black box and, if the call writes, for [`short_count`].
#[inline(always)]
pub(crate) fn record_call(writes: bool, fd: i32) {
    if writes {
        short_count::note_write();
    }
    if cfg!(netpoll_no_black_box) {
        return;
    }
    // Several small closures, because a large one is not inlined.
    match CONTEXT.with(|context| context.calls.get()).store(writes, fd) {
        Some(next) => CONTEXT.with(|context| context.calls.set(next)),
        None => CONTEXT.with(|context| context.record_further_call(writes, fd)),
    }
}

/// Takes one unit from the budget of the turn, for an operation that need not wait. Returns false
/// if the budget or the time of the turn is used up, or if this thread is not in a turn.
#[inline]
pub(crate) fn take_budget() -> bool {
    CONTEXT.with(|context| context.left().is_some_and(|left| context.take(left)))
}

/// The time for which a turn may gather writes, in multiples of `TURN_NANOS`, the time after which
/// other turns end. It is longer, because the end of the turn costs one system call per socket with
/// gathered bytes.
const GATHERS_FOR: u64 = 25;

/// Returns whether the turn may gather further writes. If the duration of the turn is known, a turn
/// that may gather counts as possibly long, and any other turn ends at its next operation. If the
/// duration is not known, takes a unit of the budget instead. Returns false outside turns.
pub(crate) fn may_gather() -> bool {
    CONTEXT.with(|context| {
        let Some(left) = context.left() else { return false };
        match context.processor.get().and_then(|processor| processor.has_lasted(GATHERS_FOR)) {
            Some(false) => {
                context.set_left(left.min(REFILL));
                true
            }
            Some(true) => {
                // The next operation checks the time.
                context.set_left(left - left % CHECK_EVERY);
                false
            }
            None => context.take(left),
        }
    })
}

impl Context {
    /// Returns whether this thread, which runs no task, may call the wakers of events and timers.
    fn may_poll(&self) -> bool {
        self.processor.get().is_some() || self.depth.get() > 0 || self.is_sysmon.get()
    }

    /// Records a call for which the turn's entry has no room: first moves the calls in the entry to
    /// the processor's ring of events. Does nothing if calls are not recorded.
    #[cold]
    fn record_further_call(&self, writes: bool, fd: i32) {
        if let Some(processor) = self.processor.get().filter(|_| !self.calls.get().is_none()) {
            let (moved, next) = processor.turns.replace_calls(writes, fd);
            processor.record(Mark::Calls, moved);
            self.calls.set(next);
        }
    }

    /// Returns the remaining budget of the current turn, or `None` on a thread that neither owns a
    /// processor nor is in `block_on`, and so is outside turns.
    #[inline]
    fn left(&self) -> Option<u32> {
        match self.processor.get() {
            // ORDERING: Relaxed: only the owner and `ask_to_yield` change the counter. If a change
            // by `ask_to_yield` is overwritten, it is repeated later.
            Some(processor) => Some(processor.budget.load(Ordering::Relaxed)),
            None if self.is_root.get() => Some(self.budget.get()),
            None => None,
        }
    }

    #[inline]
    fn set_left(&self, left: u32) {
        match self.processor.get() {
            // ORDERING: Relaxed, as in `left`.
            Some(processor) => processor.budget.store(left, Ordering::Relaxed),
            None => self.budget.set(left),
        }
    }

    #[inline]
    fn take(&self, left: u32) -> bool {
        if self.is_over(left) {
            return false;
        }
        self.set_left(left - 1);
        true
    }

    /// Returns whether the turn may continue at a check, because neither the budget nor the time is
    /// used up.
    #[cold]
    fn continues(&self, left: u32) -> bool {
        left > 0 && self.processor.get().is_none_or(|processor| !processor.is_turn_over())
    }

    /// Returns whether [`take`](Context::take) refuses the next unit.
    #[inline]
    fn is_over(&self, left: u32) -> bool {
        left.is_multiple_of(CHECK_EVERY) && !self.continues(left)
    }
}

/// The number of bytes per unit of the budget.
pub(crate) const BYTES_PER_UNIT: usize = 16 << 10;

/// Takes additional units from the budget for an operation that moved many bytes. Otherwise a task
/// that saturates its connection would delay the other tasks of its thread by up to 31 calls of
/// maximum size.
#[inline]
pub(crate) fn charge(bytes: usize) {
    if bytes > BYTES_PER_UNIT {
        let units = u32::try_from(bytes / BYTES_PER_UNIT).unwrap_or(BUDGET);
        CONTEXT.with(|context| {
            if let Some(left) = context.left() {
                let mut left = left.saturating_sub(units);
                if left >= CHECK_EVERY && context.processor.get().is_some_and(|processor| processor.turns.began() != 0)
                {
                    // The next operation checks the time.
                    left -= left % CHECK_EVERY;
                }
                context.set_left(left);
            }
        });
    }
}

/// Asks the task that `processor` runs to yield, by taking the rest of its budget. If the turn has
/// not used any of its budget, one unit remains, so that a task that computes for a long time
/// before each operation makes progress.
pub(crate) fn ask_to_yield(processor: &Processor) {
    // One remaining unit was left by an earlier call, or is the last of the turn. It stays.
    let cut = |left| Some(u32::from(left == BUDGET || left == 1));
    // ORDERING: Relaxed: a hint to the owner, which may overwrite it.
    let _ = processor.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut);
}

/// The state of a direction whose last operation in a turn was refused.
const REFUSED: u8 = u8::MAX;

/// Takes one unit from the budget for an operation on a descriptor that need not wait. If the
/// budget or the time of the turn is used up, refuses the operation: wakes the task and returns
/// `Pending`. `state` belongs to one direction of the descriptor and is initially 0.
///
/// After a refusal in a turn, the next operation in the same direction for which this function is
/// called is not refused. So each of several operations in a task makes progress, even if the other
/// operations use up every turn. An operation that takes its unit with [`take_budget`] leaves the
/// state as it is.
///
/// An operation that is polled with a waker without data is never refused, because such a waker
/// wakes no task, and the operation might not be polled again. The refusal then applies to the next
/// operation of the turn that has a waker with data.
///
/// Outside turns, under another executor, an operation is refused after [`BUDGET`] consecutive
/// operations in the same direction.
pub(crate) fn poll_turn(cx: &mut TaskContext<'_>, state: &AtomicU8) -> Poll<()> {
    // ORDERING: Relaxed: the state only affects fairness.
    let seen = state.load(Ordering::Relaxed);
    let yields = can_yield(cx);
    let (granted, next) = CONTEXT.with(|context| match context.left() {
        Some(left) => match context.take(left) {
            _ if !yields => (true, seen),
            is_taken if is_taken || seen == REFUSED => (true, 0),
            _ => {
                context.set_left(REFILL);
                (false, REFUSED)
            }
        },
        // `REFUSED` counts as -1.
        None if u32::from(seen.wrapping_add(1)) <= BUDGET => (true, seen.wrapping_add(1)),
        None if !yields => (true, seen),
        None => (false, 0),
    });
    if next != seen {
        state.store(next, Ordering::Relaxed);
    }
    granted_or_yield(granted, cx)
}

/// Returns whether [`poll_turn`] may refuse the next operation.
pub(crate) fn is_spent(state: &AtomicU8) -> bool {
    CONTEXT.with(|context| match context.left() {
        Some(left) => context.is_over(left),
        None => u32::from(state.load(Ordering::Relaxed).wrapping_add(1)) > BUDGET,
    })
}

/// Ends a run of consecutive operations in a direction, because the current one has to wait.
/// `only_asked` says whether the direction was not marked as ready and the call was made only to
/// find out whether it is. If so, and in a turn, gives back the unit that [`poll_turn`] took.
pub(crate) fn end_run(state: &AtomicU8, only_asked: bool) {
    CONTEXT.with(|context| match context.left() {
        Some(left) if only_asked => context.set_left((left + 1).min(BUDGET)),
        Some(_) => {}
        None => state.store(0, Ordering::Relaxed),
    });
}

/// Takes one unit from the budget for an operation that need not wait and has no descriptor. If the
/// budget or the time of the turn is used up, wakes the task and returns `Pending`. `refused` is
/// initially false and belongs to the operation, which is not refused twice in a row. An operation
/// that is polled with a waker without data is never refused.
pub(crate) fn poll_budget(cx: &mut TaskContext<'_>, refused: &mut bool) -> Poll<()> {
    let yields = can_yield(cx);
    let granted = CONTEXT.with(|context| {
        // A budget that is used up is refilled immediately, because the task may contain another
        // executor, which continues to poll within this turn.
        let (left, refill) = context.left().map_or((context.budget.get(), BUDGET), |left| (left, REFILL));
        if context.take(left) || *refused || !yields {
            return true;
        }
        context.set_left(refill);
        false
    });
    if yields {
        *refused = !granted;
    }
    granted_or_yield(granted, cx)
}

/// Takes one unit from the budget of the turn. Yields once if the turn is used up.
pub async fn take_turn() {
    let mut refused = false;
    poll_fn(|cx| poll_budget(cx, &mut refused)).await;
}

/// Returns whether waking the waker of `cx` may cause another poll. A waker without data, such as
/// [`Waker::noop`](std::task::Waker::noop), wakes no task.
pub(crate) fn can_yield(cx: &TaskContext<'_>) -> bool {
    !cx.waker().data().is_null()
}

fn granted_or_yield(granted: bool, cx: &TaskContext<'_>) -> Poll<()> {
    if granted {
        return Poll::Ready(());
    }
    super::refusals::record();
    note(Waits::Turn, cx);
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
