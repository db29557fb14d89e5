//! Tests of own wakers and of the references that they leave with their tasks.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker};

use super::*;
use crate::rt::context;
use crate::rt::runtime::runtime;
use crate::rt::sched::processor::Processor;
use crate::rt::sched::record::Record;
use crate::rt::sched::task::{discard, take_item};
use crate::rt::sched::task_data::TaskData;

/// A waker that a task has stored, and whether it is the task's own.
type Stored = Arc<Mutex<Option<(Waker, bool)>>>;

/// The result of [`Worker::turn`] for a turn without a spare reference.
const NO_SPARE: Option<(bool, bool)> = Some((false, false));
/// The result of [`Worker::turn`] for a turn in which a wait has used the spare reference.
const USED: Option<(bool, bool)> = Some((true, false));
/// The result of [`Worker::turn`] for a turn in which no wait has used the spare reference.
const UNUSED: Option<(bool, bool)> = Some((true, true));

/// A thread with a processor of its own, so that tasks stay in its queue until [`Worker::turn`]
/// runs them.
struct Worker(&'static Processor);

impl Worker {
    fn with<T: Send>(test: impl FnOnce(Worker) -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let processor: &'static Processor = Box::leak(Box::new(Processor::new(0)));
                processor.epoch.store(runtime().ensure_running(), Ordering::Relaxed);
                context::set_processor(Some(processor));
                let value = test(Worker(processor));
                context::set_processor(None);
                value
            });
            thread.join().unwrap()
        })
    }

    /// Runs a turn of the oldest queued task, as a worker does. Returns `None` if there is none,
    /// and otherwise whether the task had a spare reference before and after its poll.
    #[allow(unsafe_code)]
    fn turn(&self) -> Option<(bool, bool)> {
        let item = self.0.queue.pop()?;
        let (runnable, own) = (take_item(item), item.as_ptr().cast_const());
        let data: *const TaskData = runnable.metadata();
        let has_spare = || TURN.with(|turn| !turn.spare.get().is_null());
        begin(own, runnable.metadata().spare());
        let had_spare = has_spare();
        context::run_turn(data, Some(own), || runnable.run());
        let kept_spare = has_spare();
        end();
        Some((had_spare, kept_spare))
    }

    /// Spawns and detaches a task whose polls call `poll` with their number. Returns the record of
    /// the task.
    fn spawn(&self, mut poll: impl FnMut(u32, &mut Context<'_>) -> Poll<()> + Send + 'static) -> &'static Record {
        let mut polls = 0;
        let task = crate::task::spawn(poll_fn(move |cx| {
            polls += 1;
            poll(polls, cx)
        }));
        let record = self.peek();
        drop(task);
        record
    }

    /// Drops the task of `record`, which waits, as a shutdown does.
    fn discard(&self, record: &Record) {
        record.keeper().wake();
        discard(take_item(self.0.queue.pop().expect("the woken task")));
    }

    /// Returns the record of the only queued task.
    fn peek(&self) -> &'static Record {
        let runnable = take_item(self.0.queue.pop().expect("a queued task"));
        let record = runnable.metadata().record();
        self.0.queue.push(runnable.into_raw());
        record
    }
}

/// Runs `test` on a [`Worker`], and checks that the task whose record `test` returns is freed. The
/// task's future must own a clone of the [`Stored`].
fn check_freed(test: impl FnOnce(&Worker, &Stored) -> &'static Record + Send) {
    let stored = Stored::default();
    let record = Worker::with(|worker| test(&worker, &stored));
    assert_eq!((record.id(), Arc::strong_count(&stored)), (0, 1), "the task is freed");
}

fn store(stored: &Stored, cx: &Context<'_>) {
    let new = to_store(cx.waker());
    let old = stored.lock().unwrap().replace(new);
    drop(old);
}

fn take(stored: &Stored) -> Waker {
    let (waker, is_own) = stored.lock().unwrap().take().expect("the task has stored its waker");
    assert!(is_own);
    waker
}

#[test]
fn next_wait_uses_the_reference_of_the_last_wake_up() {
    check_freed(|worker, stored| {
        let to = Arc::clone(stored);
        let record = worker.spawn(move |_, cx| {
            store(&to, cx);
            Poll::Pending
        });
        assert_eq!(worker.turn(), NO_SPARE);
        for _ in 0..100 {
            wake(take(stored));
            assert_eq!(worker.turn(), USED);
        }
        // The task is not dropped, although nothing else can wake it.
        drop(take(stored));
        assert_eq!((worker.turn(), Arc::strong_count(stored)), (None, 2));
        worker.discard(record);
        record
    });
}

#[test]
fn spare_reference_is_dropped_after_a_turn_that_does_not_use_it() {
    check_freed(|worker, stored| {
        let to = Arc::clone(stored);
        let record = worker.spawn(move |polls, cx| {
            if polls == 1 {
                store(&to, cx);
            }
            Poll::Pending
        });
        assert_eq!(worker.turn(), NO_SPARE);
        wake(take(stored));
        assert_eq!((worker.turn(), worker.turn()), (UNUSED, None));
        worker.discard(record);
        record
    });
}

#[test]
fn task_that_ends_in_the_turn_is_freed() {
    check_freed(|worker, stored| {
        let to = Arc::clone(stored);
        let record = worker.spawn(move |polls, cx| {
            if polls == 2 {
                return Poll::Ready(());
            }
            store(&to, cx);
            Poll::Pending
        });
        assert_eq!(worker.turn(), NO_SPARE);
        wake(take(stored));
        assert_eq!((worker.turn(), worker.turn()), (UNUSED, None));
        record
    });
}

#[test]
fn task_that_is_dropped_before_its_turn_is_freed() {
    check_freed(|worker, stored| {
        let to = Arc::clone(stored);
        let record = worker.spawn(move |_, cx| {
            store(&to, cx);
            Poll::Pending
        });
        assert_eq!(worker.turn(), NO_SPARE);
        wake(take(stored));
        discard(take_item(worker.0.queue.pop().expect("the woken task")));
        record
    });
}

#[test]
fn cancelled_task_is_freed() {
    check_freed(|worker, stored| {
        let to = Arc::clone(stored);
        let task = crate::task::spawn(poll_fn(move |cx| {
            store(&to, cx);
            Poll::<()>::Pending
        }));
        let record = worker.peek();
        assert_eq!(worker.turn(), NO_SPARE);
        wake(take(stored));
        let cancel = std::pin::pin!(task.cancel());
        assert!(cancel.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // The turn drops the future without a poll.
        assert_eq!((worker.turn(), worker.turn()), (UNUSED, None));
        record
    });
}

#[test]
fn wake_up_of_a_queued_or_ended_task_drops_its_reference() {
    check_freed(|worker, stored| {
        let to = Arc::clone(stored);
        let record = worker.spawn(move |polls, cx| {
            store(&to, cx);
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        assert_eq!(worker.turn(), NO_SPARE);
        let waker = take(stored);
        wake(waker.clone());
        wake(waker.clone());
        assert_eq!((worker.turn(), worker.turn()), (USED, None));
        wake(take(stored));
        wake(waker);
        assert_eq!((worker.turn(), worker.turn()), (USED, None));
        wake(take(stored));
        assert_eq!(worker.turn(), None);
        record
    });
}

/// A waker of a user with the data pointer of the task's waker is cloned by its own function.
#[test]
#[allow(unsafe_code)]
fn waker_with_another_table_is_not_own() {
    static CLONES: Mutex<u32> = Mutex::new(0);
    fn clone(data: *const ()) -> RawWaker {
        *CLONES.lock().unwrap() += 1;
        RawWaker::new(data, &TABLE)
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
    Worker::with(|worker| {
        let stored = Stored::default();
        let to = stored.clone();
        worker.spawn(move |polls, cx| {
            store(&to, cx);
            if polls == 1 {
                return Poll::Pending;
            }
            // SAFETY: no function of the table uses the data.
            let alike = unsafe { Waker::new(cx.waker().data(), &TABLE) };
            assert!(!to_store(&alike).1);
            Poll::Ready(())
        });
        assert_eq!(worker.turn(), NO_SPARE);
        wake(take(&stored));
        assert_eq!((worker.turn(), worker.turn()), (USED, None));
    });
    assert_eq!(*CLONES.lock().unwrap(), 1);
}

#[test]
fn waker_outside_a_turn_is_not_own() {
    assert!(!to_store(Waker::noop()).1 && data().is_none());
}
