//! The current thread's role in the runtime: its processor, the task that it runs, and its budget.
//!
//! It is constant-initialised and has no destructor, so an access costs one thread-local load and
//! works during thread exit.

use std::cell::Cell;
use std::future::poll_fn;
use std::ptr;
use std::task::{Context as TaskContext, Poll, Waker};

use super::sched::processor::Processor;
pub(crate) use super::sched::processor::{BUDGET, REFILL};
use super::sched::record::Waits;
use super::sched::task_data::TaskData;
use crate::sync::{AtomicU8, Ordering};

/// No waker has this data pointer.
const NO_TURN: *const () = ptr::without_provenance(usize::MAX);

#[derive(Debug)]
struct Context {
    processor: Cell<Option<&'static Processor>>,
    task: Cell<*const TaskData>,
    /// The data pointer of the waker of the future in whose turn this thread is, or [`NO_TURN`].
    own: Cell<*const ()>,
    /// The direction of the last call of this turn with a short count, or null, and whether
    /// something was written since.
    short: Cell<*const ()>,
    has_written: Cell<bool>,
    /// The nesting depth of worker loops and `block_on` on this thread.
    depth: Cell<u32>,
    /// Whether the thread is in the turn of a root future. After the turn it polls, or makes sure
    /// that another thread does.
    is_root: Cell<bool>,
    /// The number of tasks that are being dropped, nested within each other.
    discards: Cell<u32>,
    /// The budget of a root future's turn on a thread without a processor. Outside of turns it
    /// counts operations without a descriptor.
    budget: Cell<u32>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            processor: Cell::new(None),
            task: Cell::new(ptr::null()),
            own: Cell::new(NO_TURN),
            short: Cell::new(ptr::null()),
            has_written: Cell::new(false),
            depth: Cell::new(0),
            is_root: Cell::new(false),
            discards: Cell::new(0),
            budget: Cell::new(BUDGET),
        }
    };
}

/// Returns the processor that this thread owns, which may be of an epoch that is over.
#[inline]
pub(crate) fn processor() -> Option<&'static Processor> {
    CONTEXT.with(|context| context.processor.get())
}

pub(crate) fn set_processor(processor: Option<&'static Processor>) {
    CONTEXT.with(|context| context.processor.set(processor));
}

/// Returns whether this thread is inside a worker loop or `block_on`.
pub(crate) fn is_inside() -> bool {
    CONTEXT.with(|context| context.depth.get() > 0)
}

/// Marks the thread as inside until [`leave`]. Returns whether it was inside before.
pub(crate) fn enter() -> bool {
    CONTEXT.with(|context| context.depth.replace(context.depth.get() + 1) > 0)
}

/// Undoes one [`enter`].
pub(crate) fn leave() {
    CONTEXT.with(|context| context.depth.set(context.depth.get() - 1));
}

/// Returns whether this thread is in the turn of a root future.
#[inline]
pub(crate) fn is_root() -> bool {
    CONTEXT.with(|context| context.is_root.get())
}

/// Sets whether this thread is in the turn of a root future. Returns the previous value.
pub(crate) fn set_root(is_root: bool) -> bool {
    CONTEXT.with(|context| context.is_root.replace(is_root))
}

/// Starts a turn on a thread without a processor.
pub(crate) fn refill_budget() {
    CONTEXT.with(|context| context.budget.set(BUDGET));
}

/// The maximum nesting of drops. It is more than 1 because a destructor may wait until another task
/// is dropped.
pub(crate) const DISCARDS_MAX: u32 = 16;

/// Calls `f` with the number of nested drops on this thread, including the one that `f` performs.
pub(crate) fn discarding(f: impl FnOnce(u32)) {
    with_discards(CONTEXT.with(|context| context.discards.get()) + 1, f);
}

/// Calls `f` while this thread drops no tasks; see [`discard`](super::sched::task::discard).
pub(crate) fn defer_discards(f: impl FnOnce()) {
    with_discards(DISCARDS_MAX, |_| f());
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

/// Calls `f` with the task that this thread is running.
pub(crate) fn with_task<T>(f: impl FnOnce(Option<&TaskData>) -> T) -> T {
    let task = CONTEXT.with(|context| context.task.get());
    // SAFETY: null, or set by `run_task` further up this thread's stack. A task is alive until its
    // future is dropped, which calls `end_task`.
    #[allow(unsafe_code)]
    f(unsafe { task.as_ref() })
}

/// Ends the turn of the task `number`, whose future was dropped. What follows in this call of
/// `async-task`, such as the waker of the handle, may run after the task is freed.
pub(crate) fn end_task(number: u64) {
    if with_task(|task| task.is_some_and(|task| task.number() == number)) {
        CONTEXT.with(|context| context.task.set(ptr::null()));
    }
}

/// Returns whether `waker` is the own waker of the future in whose turn this thread is.
pub(crate) fn is_own(waker: &Waker) -> bool {
    CONTEXT.with(|context| context.own.get() == waker.data())
}

/// Records in the current task, if there is one, what an operation that returned Pending waits for.
pub(crate) fn note(waits: Waits) {
    with_task(|task| {
        if let Some(task) = task {
            task.record().note(waits.pack());
        }
    });
}

/// Records one of the [`edge_notes`](super::sched::record::edge_notes) in the current task, as
/// [`note`] does, replacing the previous word.
#[inline]
pub(crate) fn note_edge(note: u32) {
    with_task(|task| {
        if let Some(task) = task {
            task.record().note_edge(note);
        }
    });
}

/// Returns the processor that this thread owns in `epoch`. A thread that a shutdown left behind has
/// none in the next epoch.
#[inline]
pub(crate) fn processor_in(epoch: u32) -> Option<&'static Processor> {
    // ORDERING: Relaxed: written by the owner, or before the processor was handed to it.
    processor().filter(|processor| processor.epoch.load(Ordering::Relaxed) == epoch)
}

/// Returns the processor that this thread owns in `epoch`, and whether it is running a task.
#[inline]
pub(crate) fn processor_and_task(epoch: u32) -> (Option<&'static Processor>, bool) {
    (processor_in(epoch), CONTEXT.with(|context| !context.task.get().is_null()))
}

/// Makes `task` the current task while `f` runs, and resets it also if `f` panics.
pub(crate) fn run_task<T>(task: *const TaskData, f: impl FnOnce() -> T) -> T {
    run_turn(task, NO_TURN, f)
}

/// Runs a turn of the task as [`run_task`] does. `own` is the data pointer of the task's waker.
#[inline]
pub(crate) fn run_turn<T>(task: *const TaskData, own: *const (), f: impl FnOnce() -> T) -> T {
    struct Restore(*const TaskData);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| {
                context.task.set(self.0);
                // An outer turn, if there is one, goes on without it and asks the kernel.
                context.own.set(NO_TURN);
            });
        }
    }
    let before = CONTEXT.with(|context| {
        context.own.set(own);
        context.short.set(ptr::null());
        context.task.replace(task)
    });
    let _restore = Restore(before);
    f()
}

/// Records that a call in the direction of `state` had a short count.
#[inline]
pub(crate) fn set_short(state: &AtomicU8) {
    CONTEXT.with(|context| {
        context.short.set(ptr::from_ref(state).cast());
        context.has_written.set(false);
    });
}

/// Records a call on the descriptor `fd` that transferred something.
#[inline]
pub(crate) fn record_call(writes: bool, fd: i32) {
    CONTEXT.with(|context| {
        if writes {
            context.has_written.set(true);
        }
        if let Some(processor) = context.processor.get() {
            processor.events.record_call(writes, fd);
        }
    });
}

/// Returns whether the last short count of this turn was in the direction of `state`, something was
/// written since, and `waker` is the task's own waker, which an awaited operation waits with. Once
/// per short count.
#[inline]
pub(crate) fn take_short(state: &AtomicU8, waker: &Waker) -> bool {
    CONTEXT.with(|context| {
        let is_short = context.short.get() == ptr::from_ref(state).cast()
            && context.has_written.get()
            && context.own.get() == waker.data();
        if is_short {
            context.short.set(ptr::null());
        }
        is_short
    })
}

/// Takes one unit from the budget of the turn, for an operation that need not wait. Returns false
/// if the budget is used up or this thread is not in a turn.
#[inline]
pub(crate) fn take_budget() -> bool {
    CONTEXT.with(|context| context.left().is_some_and(|left| context.take(left)))
}

impl Context {
    /// Returns the remaining budget of the turn that this thread is in.
    #[inline]
    fn left(&self) -> Option<u32> {
        match self.processor.get() {
            // ORDERING: Relaxed: the owner's own counter. A change by `ask_to_yield` may be
            // overwritten, and is made again later.
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
        if left > 0 {
            self.set_left(left - 1);
        }
        left > 0
    }
}

/// The number of bytes that one unit of the budget pays for.
const BYTES_A_UNIT: usize = 16 << 10;

/// Takes more from the budget for an operation that moved many bytes. Otherwise a task that
/// saturates its connection would keep the other tasks of its thread waiting for 32 calls of
/// maximum size.
#[inline]
pub(crate) fn charge(bytes: usize) {
    if bytes > BYTES_A_UNIT {
        let units = u32::try_from(bytes / BYTES_A_UNIT).unwrap_or(BUDGET);
        CONTEXT.with(|context| {
            if let Some(left) = context.left() {
                context.set_left(left.saturating_sub(units));
            }
        });
    }
}

/// Asks the task that `processor` runs to yield, by taking the rest of its budget. The first
/// operation of a turn keeps its unit, so a task that computes for long before each operation makes
/// progress.
pub(crate) fn ask_to_yield(processor: &Processor) {
    // One unit is what an earlier call left, or the last of the turn.
    let cut = |left| Some(u32::from(left == BUDGET || left == 1));
    // ORDERING: Relaxed: a hint to the owner, which may overwrite it.
    let _ = processor.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, cut);
}

/// The state of a direction whose last operation in a turn was refused.
const REFUSED: u8 = u8::MAX;

/// Takes one unit from the budget for an operation on a descriptor that need not wait. If the
/// budget is used up, wakes the task and returns `Pending`. `state` belongs to one direction of the
/// descriptor, and begins as 0.
///
/// A waker without data wakes no task, so an operation that is polled with one would not be polled
/// again, and its caller acts on the answer. Such an operation is never refused. It takes its unit,
/// and leaves a refusal to the next operation of the turn that can be polled again.
///
/// An operation that was refused is not refused the next time. Of several operations in one task
/// each therefore makes progress, even if the others use up every turn. Outside of turns, under
/// another executor, a number of consecutive operations on one direction is followed by one
/// refusal.
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
        None if u32::from(seen) < BUDGET => (true, seen + 1),
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
    let left = CONTEXT.with(Context::left);
    left.map_or_else(|| u32::from(state.load(Ordering::Relaxed)) >= BUDGET, |left| left == 0)
}

/// Returns the unit that [`poll_turn`] took, for an operation that has to wait.
pub(crate) fn give_turn_back(state: &AtomicU8) {
    CONTEXT.with(|context| match context.left() {
        Some(left) => context.set_left((left + 1).min(BUDGET)),
        None => state.store(state.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed),
    });
}

/// Takes one unit from the budget for an operation that need not wait and has no descriptor. If the
/// budget is used up, wakes the task and returns `Pending`. `refused` begins as false and is kept
/// with the operation, which is not refused twice in a row.
pub(crate) fn poll_budget(cx: &mut TaskContext<'_>, refused: &mut bool) -> Poll<()> {
    let yields = can_yield(cx);
    let granted = CONTEXT.with(|context| {
        // When it is used up, it is refilled at once: the task may be another executor that
        // continues to poll within this turn.
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

/// Takes one unit of the task's budget, and yields once if the budget is used up.
pub async fn take_turn() {
    let mut refused = false;
    poll_fn(|cx| poll_budget(cx, &mut refused)).await;
}

/// Returns whether the caller is polled again after it has been woken.
pub(crate) fn can_yield(cx: &TaskContext<'_>) -> bool {
    !cx.waker().data().is_null()
}

fn granted_or_yield(granted: bool, cx: &TaskContext<'_>) -> Poll<()> {
    if granted {
        return Poll::Ready(());
    }
    note(Waits::Turn);
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Runs `test` on a thread that owns a processor.
    fn with_processor(test: impl FnOnce(&'static Processor) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            let processor: &'static Processor = Box::leak(Box::new(Processor::new(0)));
            set_processor(Some(processor));
            test(processor);
            set_processor(None);
        });
        thread.join().unwrap();
    }

    /// Returns the number of polls until the budget is used up, and checks that the task is then
    /// woken once.
    fn polls(most: u32) -> u32 {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let poll = || poll_budget(&mut TaskContext::from_waker(&waker), &mut false).is_ready();
        let granted = (0..most).take_while(|_| poll()).count();
        assert_eq!(count.0.load(Ordering::SeqCst), usize::from(granted < most as usize));
        granted as u32
    }

    #[test]
    fn budget_is_used_up_and_refilled() {
        with_processor(|processor| {
            assert_eq!((polls(100), polls(100)), (BUDGET, REFILL));
            processor.budget.store(2, Ordering::Relaxed);
            assert_eq!([(); 4].map(|()| take_budget()), [true, true, false, false]);
            assert_eq!(polls(100), 0);
            assert_eq!(processor.budget.load(Ordering::Relaxed), REFILL);
        });
        std::thread::spawn(|| {
            assert!(!take_budget(), "no budget outside of turns");
            assert_eq!((polls(100), polls(100)), (BUDGET, BUDGET));
        })
        .join()
        .unwrap();
    }

    fn is_granted(state: &AtomicU8) -> bool {
        poll_turn(&mut TaskContext::from_waker(&Arc::new(Count::default()).into()), state).is_ready()
    }

    /// With 40 operations in one task, the same ones would otherwise be refused in every turn.
    #[test]
    fn refused_operation_is_granted_next_time() {
        with_processor(|processor| {
            let states = [const { AtomicU8::new(0) }; 40];
            let turn = || {
                processor.budget.store(BUDGET, Ordering::Relaxed);
                states.each_ref().map(is_granted)
            };
            let first = turn();
            assert_eq!(first.map(usize::from).iter().sum::<usize>(), 39, "{first:?}");
            assert!(!first[32] && turn()[32] && turn()[33]);
            let mut refused = false;
            let waker = Arc::new(Count::default()).into();
            let mut poll = || poll_budget(&mut TaskContext::from_waker(&waker), &mut refused).is_ready();
            let mut last = || {
                processor.budget.store(0, Ordering::Relaxed);
                poll()
            };
            assert_eq!([(); 5].map(|()| last()), [false, true, false, true, false]);
        });
    }

    #[test]
    fn task_asked_to_yield_keeps_first_operation_of_its_turn() {
        with_processor(|processor| {
            let (first, second) = (AtomicU8::new(0), AtomicU8::new(0));
            for _ in 0..3 {
                processor.budget.store(BUDGET, Ordering::Relaxed);
                (0..3).for_each(|_| ask_to_yield(processor));
                assert!(is_granted(&first));
            }
            assert!(!is_granted(&second));
            processor.budget.store(7, Ordering::Relaxed);
            ask_to_yield(processor);
            assert!(!take_budget());
        });
    }

    #[test]
    fn refusals_outside_of_turns_count_per_direction() {
        let count = |state: &AtomicU8| (0..100).take_while(|_| is_granted(state)).count();
        let (one, other) = (AtomicU8::new(0), AtomicU8::new(0));
        assert_eq!([&one, &one, &other].map(count), [BUDGET as usize; 3]);
    }

    #[test]
    fn root_future_has_a_budget_per_turn() {
        let state = AtomicU8::new(0);
        assert!(!set_root(true));
        for _ in 0..2 {
            refill_budget();
            let granted = (0..100).take_while(|_| is_granted(&state)).count();
            assert!((BUDGET as usize..=BUDGET as usize + 1).contains(&granted), "{granted}");
        }
        charge(100 * BYTES_A_UNIT);
        assert!(!take_budget() && set_root(false));
        charge(1 << 20);
    }

    #[test]
    fn operation_that_has_to_wait_gives_its_unit_back() {
        let is_granted_and_back = |state: &AtomicU8| {
            let granted = is_granted(state);
            give_turn_back(state);
            granted
        };
        let state = AtomicU8::new(0);
        assert!((0..100).all(|_| is_granted_and_back(&state) && !is_spent(&state)));
        with_processor(move |processor| {
            processor.budget.store(1, Ordering::Relaxed);
            assert!((0..100).all(|_| is_granted_and_back(&state) && processor.budget.load(Ordering::Relaxed) == 1));
            processor.budget.store(0, Ordering::Relaxed);
            assert!(is_spent(&state));
        });
    }

    /// A caller that polls only once acts on the answer, and does not poll again after a wake-up.
    #[test]
    fn waker_that_wakes_no_task_is_never_refused() {
        let (state, mut cx) = (AtomicU8::new(0), TaskContext::from_waker(Waker::noop()));
        assert!((0..100).all(|_| poll_turn(&mut cx, &state).is_ready()));
        with_processor(|_| {
            let (state, mut cx) = (AtomicU8::new(0), TaskContext::from_waker(Waker::noop()));
            assert!((0..100).all(|_| poll_turn(&mut cx, &state).is_ready()));
        });
    }

    /// The refusal that such a waker is spared goes to the next operation, and the turn of an operation that was refused stays its own.
    #[test]
    fn waker_that_wakes_no_task_leaves_the_refusal_to_others() {
        let once = |state: &AtomicU8| poll_turn(&mut TaskContext::from_waker(Waker::noop()), state).is_ready();
        with_processor(move |processor| {
            for count in 0..3 * BUDGET {
                let (polled, state) = (AtomicU8::new(0), AtomicU8::new(0));
                processor.budget.store(BUDGET, Ordering::Relaxed);
                assert!((0..count).all(|_| once(&polled)));
                assert_eq!(is_granted(&state), count < BUDGET, "after {count}");
            }
            let state = AtomicU8::new(REFUSED);
            for left in [BUDGET, 0] {
                processor.budget.store(left, Ordering::Relaxed);
                assert!((0..100).all(|_| once(&state)));
                assert_eq!(state.load(Ordering::Relaxed), REFUSED);
            }
            assert!(is_granted(&state) && !is_granted(&state));
            let mut refused = false;
            let mut cx = TaskContext::from_waker(Waker::noop());
            assert!((0..100).all(|_| poll_budget(&mut cx, &mut refused).is_ready()) && !refused);
            let waker = Arc::new(Count::default()).into();
            processor.budget.store(0, Ordering::Relaxed);
            assert!(poll_budget(&mut TaskContext::from_waker(&waker), &mut refused).is_pending() && refused);
            assert!(poll_budget(&mut cx, &mut refused).is_ready() && refused);
        });
        let state = AtomicU8::new(0);
        assert!((0..100).all(|_| once(&state)) && !is_granted(&state), "outside of turns");
    }

    #[test]
    fn short_count_counts_for_its_turn_and_its_task_alone() {
        let (one, other) = (AtomicU8::new(0), AtomicU8::new(0));
        let (own, foreign) = (Waker::from(Arc::new(Count::default())), Waker::from(Arc::new(Count::default())));
        let set_short_and_write = |state| {
            set_short(state);
            record_call(true, 3);
        };
        run_turn(ptr::null(), own.data(), || {
            record_call(true, 3);
            assert!(!take_short(&one, &own));
            set_short(&one);
            assert!(!take_short(&one, &own), "nothing was written since");
            record_call(true, 3);
            assert!(!take_short(&one, &foreign) && !take_short(&one, Waker::noop()) && !take_short(&other, &own));
            assert!(take_short(&one, &own.clone()) && !take_short(&one, &own), "once");
            set_short_and_write(&one);
            set_short_and_write(&other);
            assert!(!take_short(&one, &own) && take_short(&other, &own));
            set_short_and_write(&other);
        });
        assert!(!take_short(&other, &own), "the turn is over");
        run_turn(ptr::null(), own.data(), || assert!(!take_short(&other, &own), "another turn"));
        run_task(ptr::null(), || {
            set_short_and_write(&one);
            assert!(!take_short(&one, Waker::noop()), "in no turn");
        });
    }

    /// `take_short` relies on it.
    #[test]
    fn waker_of_a_turn_is_known() {
        let knows =
            || std::future::poll_fn(|cx| Poll::Ready(CONTEXT.with(|context| context.own.get()) == cx.waker().data()));
        crate::task::block_on(async {
            assert!(knows().await);
            assert!(crate::task::spawn(knows()).await);
            assert!(crate::task::spawn_local(knows()).await);
        });
    }

    #[test]
    fn many_bytes_cost_more() {
        with_processor(|processor| {
            let left = |bytes| {
                processor.budget.store(BUDGET, Ordering::Relaxed);
                charge(bytes);
                processor.budget.load(Ordering::Relaxed)
            };
            assert_eq!([0, 1, BYTES_A_UNIT - 1].map(left), [BUDGET; 3]);
            assert_eq!([2, 5, 31].map(|units| left(units * BYTES_A_UNIT)), [BUDGET - 2, BUDGET - 5, BUDGET - 31]);
            assert_eq!(left(3 * BYTES_A_UNIT - 1), BUDGET - 2);
            assert_eq!([left(1 << 20), left(usize::MAX)], [0; 2]);
        });
        charge(1 << 20);
    }

    #[test]
    fn context_follows_the_running_task() {
        assert!(!is_inside());
        assert!(!enter() && enter() && is_inside());
        leave();
        assert!(is_inside());
        leave();
        assert!(!is_inside());
        with_processor(|processor| {
            let is_own = |own: Option<&Processor>| own.is_some_and(|own| ptr::eq(own, processor));
            assert!(is_own(processor_and_task(0).0) && !processor_and_task(0).1 && is_own(processor_in(0)));
            assert!(processor_in(1).is_none() && processor_and_task(1).0.is_none());
            let task = ptr::without_provenance(8);
            let ran = std::panic::catch_unwind(|| run_task(task, || assert!(!processor_and_task(0).1, "on purpose")));
            assert!(ran.is_err() && !processor_and_task(0).1, "also if it panics");
            run_task(task, || {
                assert!(processor_and_task(0).1);
                run_task(ptr::null(), || assert!(!processor_and_task(0).1));
                assert!(processor_and_task(0).1);
            });
        });
        assert!(processor().is_none());
    }
}
