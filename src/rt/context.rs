//! What the current thread is to the runtime: its processor, the task it runs, its budget.
//!
//! Constant-initialised and without a destructor, so reaching it costs one thread-local load and works during thread exit.

use std::cell::Cell;
use std::ptr;
use std::task::{Context as TaskContext, Poll};

use super::sched::processor::Processor;
use super::sched::task::TaskData;
use crate::sync::Ordering;

/// I/O operations that a task may complete in one poll before it yields.
///
/// A task whose socket is always ready would otherwise keep its thread for ever. Large enough that the yield costs nothing
/// measurable (one requeue in 32 operations), small enough that 32 calls of a few microseconds end within a fraction of a millisecond.
pub(crate) const BUDGET: u32 = 32;

/// What it has within the same poll once that is used up. A turn that ends with this or less was a long one.
pub(crate) const REFILL: u32 = BUDGET * 3 / 4;

#[derive(Debug)]
struct Context {
    processor: Cell<Option<&'static Processor>>,
    task: Cell<*const TaskData>,
    /// A thread that runs the runtime: a worker, or one inside `block_on`.
    depth: Cell<u32>,
    /// The thread is in the turn of a root future: it polls, or sees that another does, when that is over.
    is_root: Cell<bool>,
    /// Tasks that are being dropped, one within the other.
    discards: Cell<u32>,
    /// The budget of a thread without a processor; never refilled by a scheduler, so it refills itself.
    budget: Cell<u32>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            processor: Cell::new(None),
            task: Cell::new(ptr::null()),
            depth: Cell::new(0),
            is_root: Cell::new(false),
            discards: Cell::new(0),
            budget: Cell::new(BUDGET),
        }
    };
}

/// The processor that this thread owns, maybe one of an epoch that is over.
#[inline]
pub(crate) fn processor() -> Option<&'static Processor> {
    CONTEXT.with(|context| context.processor.get())
}

pub(crate) fn set_processor(processor: Option<&'static Processor>) {
    CONTEXT.with(|context| context.processor.set(processor));
}

/// Whether this thread is inside a worker loop or `block_on`.
pub(crate) fn is_inside() -> bool {
    CONTEXT.with(|context| context.depth.get() > 0)
}

/// Marks the thread as being inside until [`leave`]. Returns whether it was before.
pub(crate) fn enter() -> bool {
    CONTEXT.with(|context| context.depth.replace(context.depth.get() + 1) > 0)
}

/// Undoes one [`enter`].
pub(crate) fn leave() {
    CONTEXT.with(|context| context.depth.set(context.depth.get() - 1));
}

/// Whether this thread is in the turn of a root future.
#[inline]
pub(crate) fn is_root() -> bool {
    CONTEXT.with(|context| context.is_root.get())
}

/// Returns what it was before.
pub(crate) fn set_root(is_root: bool) -> bool {
    CONTEXT.with(|context| context.is_root.replace(is_root))
}

/// A turn begins on a thread without a processor.
pub(crate) fn refill_budget() {
    CONTEXT.with(|context| context.budget.set(BUDGET));
}

/// Drops of tasks within drops. More than 1: a destructor may wait until another task is dropped.
pub(crate) const DISCARDS_MAX: u32 = 16;

/// Calls `f` with how many tasks this thread is dropping, one within the other, the one that `f` drops included.
pub(crate) fn discarding(f: impl FnOnce(u32)) {
    with_discards(CONTEXT.with(|context| context.discards.get()) + 1, f);
}

/// Calls `f`, in which no task is dropped on this thread; see [`discard`](super::sched::task::discard).
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
    // SAFETY: null, or set by `run_task` further up this thread's stack, where the task is kept alive.
    #[allow(unsafe_code)]
    f(unsafe { task.as_ref() })
}

/// The processor that this thread owns in `epoch`. A thread that a shutdown left behind has none in the next epoch.
#[inline]
pub(crate) fn processor_in(epoch: u32) -> Option<&'static Processor> {
    // ORDERING: Relaxed: written by the owner, or before the processor was handed to it.
    processor().filter(|processor| processor.epoch.load(Ordering::Relaxed) == epoch)
}

/// The processor that this thread owns in `epoch`, and whether it is running a task.
#[inline]
pub(crate) fn processor_and_task(epoch: u32) -> (Option<&'static Processor>, bool) {
    (processor_in(epoch), CONTEXT.with(|context| !context.task.get().is_null()))
}

/// Makes `task` the current one while `f` runs, also if it panics.
pub(crate) fn run_task<T>(task: *const TaskData, f: impl FnOnce() -> T) -> T {
    struct Restore(*const TaskData);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| context.task.set(self.0));
        }
    }
    let _restore = Restore(CONTEXT.with(|context| context.task.replace(task)));
    f()
}

/// Takes one from the budget before an I/O operation, if the runtime keeps one for this thread and some is left.
#[inline]
pub(crate) fn take_budget() -> bool {
    CONTEXT.with(|context| match context.processor.get() {
        Some(processor) => {
            // ORDERING: Relaxed, as in `poll_budget`.
            let left = processor.budget.load(Ordering::Relaxed);
            if left > 0 {
                processor.budget.store(left - 1, Ordering::Relaxed);
            }
            left > 0
        }
        None => {
            let left = if context.is_root.get() { context.budget.get() } else { 0 };
            if left > 0 {
                context.budget.set(left - 1);
            }
            left > 0
        }
    })
}

/// Bytes that an operation moves for what it has taken from the budget.
const BYTES_A_UNIT: usize = 16 << 10;

/// Takes more from the budget for an operation that moved many bytes: a task that saturates its connection would keep the others on
/// its thread waiting for 32 of the largest calls.
#[inline]
pub(crate) fn charge(bytes: usize) {
    if bytes > BYTES_A_UNIT
        && let Some(processor) = processor()
    {
        let units = u32::try_from(bytes / BYTES_A_UNIT).unwrap_or(BUDGET);
        // ORDERING: Relaxed, as in `poll_budget`.
        let left = processor.budget.load(Ordering::Relaxed);
        processor.budget.store(left.saturating_sub(units), Ordering::Relaxed);
    }
}

/// Takes one from the budget before an I/O operation. Pending, with the task woken, when it is used up or sysmon has asked the
/// task to yield.
#[inline]
pub(crate) fn poll_budget(cx: &mut TaskContext<'_>) -> Poll<()> {
    let left = CONTEXT.with(|context| match context.processor.get() {
        // ORDERING: Relaxed: the owner's own counter; sysmon's zero is a hint that may be lost and is then sent again.
        Some(processor) => {
            let left = processor.budget.load(Ordering::Relaxed);
            // Used up, it is refilled at once: the task may be an executor of another make that polls on within this turn.
            processor.budget.store(left.checked_sub(1).unwrap_or(REFILL), Ordering::Relaxed);
            left
        }
        None => {
            let left = context.budget.get();
            context.budget.set(left.checked_sub(1).unwrap_or(BUDGET));
            left
        }
    });
    if left > 0 {
        return Poll::Ready(());
    }
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

    /// The polls until the budget is used up, and whether the task is woken then, once.
    fn polls(most: u32) -> u32 {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let granted = (0..most).take_while(|_| poll_budget(&mut TaskContext::from_waker(&waker)).is_ready()).count();
        assert_eq!(count.0.load(Ordering::SeqCst), usize::from(granted < most as usize));
        granted as u32
    }

    #[test]
    fn a_budget_is_used_up_and_refilled() {
        with_processor(|processor| {
            assert_eq!((polls(100), polls(100)), (BUDGET, REFILL));
            processor.budget.store(2, Ordering::Relaxed);
            assert_eq!([(); 4].map(|()| take_budget()), [true, true, false, false]);
            assert_eq!(polls(100), 0);
            assert_eq!(processor.budget.load(Ordering::Relaxed), REFILL);
        });
        std::thread::spawn(|| {
            assert!(!take_budget(), "nobody keeps one here");
            assert_eq!((polls(100), polls(100)), (BUDGET, BUDGET));
        })
        .join()
        .unwrap();
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
    fn a_thread_knows_where_it_is() {
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
