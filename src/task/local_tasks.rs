//! Local tasks: `spawn_local`, for tasks that stay on their thread and therefore need not be
//! `Send`.
//!
//! Local tasks run inside [`block_on`](super::block_on) on the thread that spawned them.
//! [`WithLocal`], the root future, polls the user's future first and then, if that is pending, the
//! queued local tasks. Workers are not involved. For a thread that never spawns a local task, the
//! cost is one check of a thread-local flag per poll of a root future.
//!
//! # Where spawning is allowed
//! Code outside any task, the future of a `block_on`, and local tasks may spawn local tasks. Tasks
//! of `spawn` and calls of `spawn_blocking` may not, because the thread that runs them may have no
//! `block_on` in which local tasks could run.
//!
//! # Invariants
//! * A [`Runnable`] is run and dropped only on the thread that spawned its task. When the thread
//!   exits, its local tasks are woken, which queues them, and then dropped. A task that is queued
//!   later is leaked, because dropping it on another thread makes `async-task` panic.
//! * Local tasks belong to no epoch (the time from one shutdown of the runtime to the next), and
//!   the runtime does not count them among its tasks. A shutdown does not affect them, just as it
//!   does not affect the future of `block_on`.
//! * A panic stays in its task, and the root's waker is called outside the lock (invariants 11 and
//!   12 of ARCHITECTURE.md).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_task::Runnable;
use pin_project_lite::pin_project;

use crate::rt::context;
use crate::rt::runtime::runtime;
use crate::rt::sched::identity::Name;
use crate::rt::sched::lanes::Lane;
use crate::rt::sched::pool::pop_front;
use crate::rt::sched::record::{Kind, Record};
use crate::rt::sched::task::{Output, Spawned, contain, discard, end_locals};
use crate::rt::sched::task_data::TaskData;
use crate::rt::unsent;
use crate::sync::Mutex;

/// The maximum number of local tasks run per poll of the root future. Further tasks run in the next
/// poll.
const BATCH_TASKS_MAX: usize = 64;

thread_local! {
    /// Whether this thread has ever spawned a local task.
    static USED: Cell<bool> = const { Cell::new(false) };
    static THREAD: Thread = Thread { queue: Arc::default(), living: RefCell::default() };
}

/// The queue of runnable tasks of a thread. Wakers on other threads access it.
#[derive(Default)]
struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    runnables: VecDeque<Runnable<TaskData>>,
    /// The root waker. It is a waker of this crate, so it may be cloned and dropped under the lock.
    root: Option<Waker>,
    /// Whether the thread has dropped its local tasks on exit. Further runnables are leaked.
    ended: bool,
}

impl Queue {
    fn push(&self, runnable: Runnable<TaskData>) {
        let mut state = self.0.lock();
        if state.ended {
            drop(state);
            return std::mem::forget(runnable);
        }
        state.runnables.push_back(runnable);
        let root = state.root.take();
        drop(state);
        if let Some(root) = root {
            root.wake();
        }
    }

    fn pop(&self) -> Option<Runnable<TaskData>> {
        pop_front(&mut self.0.lock().runnables)
    }
}

struct Thread {
    queue: Arc<Queue>,
    /// The wakers of all tasks whose futures are not dropped, by task number.
    living: RefCell<BTreeMap<u64, Waker>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Destructors may wake other tasks of this thread, but cannot spawn new ones.
        let living = std::mem::take(&mut *self.living.borrow_mut());
        living.into_values().for_each(Waker::wake);
        loop {
            let mut state = self.queue.0.lock();
            let Some(runnable) = state.runnables.pop_front() else {
                state.ended = true;
                return;
            };
            drop(state);
            discard(runnable);
        }
    }
}

pin_project! {
    struct Local<F> {
        #[pin]
        future: Option<F>,
        record: &'static Record,
    }

    impl<F> PinnedDrop for Local<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            contain(|| this.future.set(None));
            let number = this.record.id();
            end_locals(number);
            // The thread-local may already be destroyed if the thread is exiting.
            let waker = THREAD.try_with(|thread| thread.living.borrow_mut().remove(&number));
            drop(waker);
        }
    }
}

impl<F: Future> Future for Local<F> {
    type Output = Output<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output<F::Output>> {
        let this = self.project();
        let future = this.future.as_pin_mut().expect("the future is not dropped before this poll");
        this.record.polling(|| Output::of_poll(|| future.poll(cx)))
    }
}

/// Returns whether the calling code may spawn a local task; see the module documentation.
pub(super) fn is_possible() -> bool {
    context::with_task(|task| task.is_none_or(TaskData::stays)) && THREAD.try_with(|_| ()).is_ok()
}

/// Spawns a local task. [`is_possible`] must be true. `place` appears in snapshots.
pub(super) fn spawn<F>(name: Option<Name>, place: &'static Location<'static>, future: F) -> Spawned<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let data = TaskData::new(Kind::Local, name, Lane::Normal, 0, place, runtime().time_of_spawn());
    let (record, identity) = (data.record(), data.task());
    THREAD.with(|thread| {
        let queue = thread.queue.clone();
        let (runnable, task) = async_task::Builder::new().metadata(data).spawn_local(
            move |_| Local { future: Some(future), record },
            move |runnable: Runnable<TaskData>| {
                context::note_waker(runnable.metadata().record());
                queue.push(runnable);
            },
        );
        thread.living.borrow_mut().insert(record.id(), runnable.waker());
        USED.set(true);
        runnable.schedule();
        Spawned { task, identity }
    })
}

/// A root future: the future of a `block_on`, together with the local tasks of its thread.
pub(super) struct WithLocal<'a, F> {
    future: Pin<&'a mut F>,
    /// The root waker of an outer `block_on` on this thread, while this `block_on` replaces it.
    outer: Option<Waker>,
    /// Whether this root future has set the root waker of the thread.
    has_set_root: bool,
}

impl<'a, F> WithLocal<'a, F> {
    pub(super) fn new(future: Pin<&'a mut F>) -> WithLocal<'a, F> {
        WithLocal { future, outer: None, has_set_root: false }
    }
}

impl<F> Drop for WithLocal<'_, F> {
    fn drop(&mut self) {
        if !self.has_set_root {
            return;
        }
        let outer = self.outer.take();
        let waker = outer.clone();
        let _ = THREAD.try_with(|thread| thread.queue.0.lock().root = outer);
        // The outer `block_on` runs tasks that were queued in the meantime.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<F: Future> Future for WithLocal<'_, F> {
    type Output = F::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.future.as_mut().poll(cx);
        if polled.is_pending() && USED.get() {
            let this = &mut *self;
            let _ = THREAD.try_with(|thread| thread.run(cx, &mut this.outer, &mut this.has_set_root));
        }
        polled
    }
}

impl Thread {
    #[cold]
    fn run(&self, cx: &mut Context<'_>, outer: &mut Option<Waker>, has_set_root: &mut bool) {
        let before = self.queue.0.lock().root.replace(cx.waker().clone());
        if !std::mem::replace(has_set_root, true) {
            *outer = before;
        }
        for _ in 0..BATCH_TASKS_MAX {
            let Some(runnable) = self.queue.pop() else { return };
            // This is a raw pointer, because the task and its data may be freed during the turn.
            let data: *const TaskData = runnable.metadata();
            let own = runnable.waker().data();
            context::run_turn(data, Some(own), || contain(|| _ = runnable.run()));
            unsent::flush();
        }
        cx.waker().wake_by_ref();
    }
}
