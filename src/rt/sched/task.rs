//! Tasks: spawning, scheduling, and their end.
//!
//! The crate `async-task` implements tasks. [`TaskData`] adds the identity, the name, task-local
//! values, the lane and the epoch. It is the metadata of `async-task`, in the same allocation as
//! the future, so a task without a name or local values costs one allocation.
//!
//! # Invariants
//! * 11 — a panic of a future ends only its task. [`Output`] has the payload, for the awaiting
//!   task.
//! * E1 — a runnable task whose epoch is not the current one is dropped instead of queued, which
//!   cancels it (in a child of fork(2), it is leaked). So a shutdown ends all tasks, even if their
//!   wakers still exist. Local tasks and those of simulations belong to no epoch.
//! * 12 — during a shutdown, no waker drops a task ([`discard_later`]): some crates for channels
//!   and events call wakers under a lock that the destructor of the task's future may take.

use std::any::Any;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_task::{Runnable, ScheduleInfo, WithInfo};
use pin_project_lite::pin_project;

use super::identity::{Name, Task};
use super::lanes::Lane;
use super::own_waker::{self, Spare};
use super::queue::Item;
use super::record::{Kind, Record};
use super::task_data::TaskData;
use super::waits::Waits;
use crate::rt::context::{self, DISCARDS_MAX};
use crate::rt::fork;
use crate::rt::runtime::runtime;
use crate::rt::waiters::drop_payload;
use crate::sync::{Ordering, fence};
use crate::trace;

pin_project! {
    /// A task's future. Its destructor drops the future and the task's local values, catches panics
    /// of their destructors (11), and counts the end of the task.
    ///
    /// The task's number is not stored, because the task is the current one whenever its future is
    /// dropped, which happens only in a turn or in [`discard`].
    struct Tracked<F> {
        #[pin]
        future: Option<F>,
        // The record that keeps a waker of the task, or `None` if the task has not waited yet or is
        // simulated.
        kept: Option<&'static Record>,
    }

    impl<F> PinnedDrop for Tracked<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            contain(|| this.future.set(None));
            if let Some(record) = this.kept.take() {
                record.release();
            }
            end_current();
        }
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = Output<F::Output>;

    // Has one caller per type of future, the function of `async-task` that runs the task.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output<F::Output>> {
        let this = self.project();
        let future = this.future.as_pin_mut().expect("the future has not been dropped");
        own_waker::note(cx.waker());
        let polled = Output::of_poll(|| future.poll(cx));
        if polled.is_pending() && this.kept.is_none() {
            *this.kept = keep(cx.waker());
        }
        polled
    }
}

/// Keeps a waker of the current task, and returns the task's record. Returns `None` for a task of a
/// simulation, which keeps the wakers of its tasks itself.
#[cold]
fn keep(waker: &Waker) -> Option<&'static Record> {
    context::with_task(|task| {
        let task = task.filter(|task| !task.is_simulated())?;
        task.record().keep(waker.clone());
        // ORDERING: SeqCst, before the epoch is read; see `Keeper`.
        fence(Ordering::SeqCst);
        if task.epoch() != runtime().epoch() {
            // A shutdown may have looked for the waker before it was kept. The task is dropped
            // after this turn.
            waker.wake_by_ref();
        }
        Some(task.record())
    })
}

/// Ends the current task, whose future was just dropped: drops its local values, frees its record
/// if the task has no [`Rare`](super::rare::Rare), clears the current task, and counts the end.
fn end_current() {
    let task = context::with_task(|task| {
        let task = task?;
        let ended = (task.number(), task.lane(), task.is_simulated());
        if !task.end(record_is_freed) {
            end_with_locals(task);
        }
        Some(ended)
    });
    debug_assert!(task.is_some(), "a future was dropped outside its task");
    if let Some((_number, lane, is_simulated)) = task {
        context::clear_task();
        if lane == Lane::Control && !is_simulated {
            runtime().control.task_ended();
        }
        #[cfg(feature = "sim")]
        super::hooks::task_ended(_number);
        if is_simulated {
            return;
        }
    }
    runtime().task_ended();
}

/// Makes the rest of the turn of this thread belong to no task, if it is a turn of the task of
/// `record`.
#[inline]
fn record_is_freed(record: &Record) {
    if let Some(processor) = context::processor() {
        processor.task_ends(record);
    }
}

/// Drops the local values of a task whose future was just dropped, and records its end.
#[cold]
fn end_with_locals(task: &TaskData) {
    drop_locals(task);
    task.record().end();
}

/// Drops the local values of `task`, which is the current task, in reverse order of creation.
fn drop_locals(task: &TaskData) {
    while let Some(value) = task.take_local() {
        contain(|| drop(value));
    }
}

/// Drops the local values that a root future has left, because it or the destructor of a value has
/// panicked. Its task is the current one meanwhile, so the destructors may use other keys. Panics
/// of the destructors are caught, because they would abort the process.
pub(crate) struct RootLocals<'a>(pub(crate) &'a TaskData);

impl Drop for RootLocals<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.has_locals() {
            context::run_task(self.0, || drop_locals(self.0));
        }
    }
}

/// Drops the local values of the local task `number`, whose future was just dropped, records its
/// end, and clears the current task. The task is the current one whenever its future is dropped.
/// The values must not live as long as the task's handle and wakers, because they would then be
/// dropped where a panic aborts the process.
pub(crate) fn end_locals(number: u64) {
    context::with_task(|task| {
        if let Some(task) = task.filter(|task| task.number() == number) {
            end_with_locals(task);
        }
    });
    context::end_task(number);
}

/// The output of a task, or the payload of its panic. If it is not taken, it is dropped with the
/// task, and a panic of its destructor is caught (11). It is part of every task, so the rare
/// payload is in a box and takes one word.
#[derive(Debug)]
pub(crate) struct Output<T>(ManuallyDrop<Result<T, Box<Payload>>>);

/// The payload of a panic.
#[derive(Debug)]
struct Payload(Box<dyn Any + Send>);

const _: () = assert!(size_of::<Output<()>>() == size_of::<usize>());

impl<T> Output<T> {
    fn new(result: Result<T, Box<Payload>>) -> Output<T> {
        Output(ManuallyDrop::new(result))
    }

    #[cold]
    fn of_panic(payload: Box<dyn Any + Send>) -> Output<T> {
        Output::new(Err(Box::new(Payload(payload))))
    }

    /// Calls `poll`, which polls the future of a task, and catches its panic. `async-task` could
    /// also catch it, but would drop the payload where a panic of the payload's destructor aborts
    /// the process.
    #[inline]
    pub(crate) fn of_poll(poll: impl FnOnce() -> Poll<T>) -> Poll<Output<T>> {
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(polled) => polled.map(|output| Output::new(Ok(output))),
            Err(payload) => Poll::Ready(Output::of_panic(payload)),
        }
    }

    /// Returns the output.
    ///
    /// # Panics
    /// Resumes the panic of the task.
    #[inline]
    pub(crate) fn take(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and its destructor does not run.
        #[allow(unsafe_code)]
        let result = unsafe { ManuallyDrop::take(&mut this.0) };
        result.unwrap_or_else(|payload| resume_unwind(payload.0))
    }
}

impl<T> Drop for Output<T> {
    fn drop(&mut self) {
        // SAFETY: the field is not used again.
        #[allow(unsafe_code)]
        let result = unsafe { ManuallyDrop::take(&mut self.0) };
        contain(|| drop(result));
    }
}

/// Calls a destructor or a waker, and catches and counts its panic. Used where `async-task` would
/// abort the process.
pub(crate) fn contain(user_code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(user_code)) {
        drop_payload(payload);
        runtime().panics.add(1);
    }
}

/// The handle that `async-task` returns for a task.
pub(crate) type RawTask<T> = async_task::Task<Output<T>, TaskData>;

/// Returns the lane of the current task, which the tasks that it spawns inherit.
fn current_lane() -> Lane {
    context::with_task(|task| task.map_or(Lane::Normal, TaskData::lane))
}

/// A spawned task and its identity. The identity was created before the task was queued, because
/// the task's record may be freed when the task ends.
pub(crate) struct Spawned<T> {
    pub(crate) task: RawTask<T>,
    pub(crate) identity: Task,
}

/// Spawns a task on the workers. If `lane` is `None`, the task inherits the lane of the current
/// task.
#[inline]
pub(crate) fn spawn<F>(
    name: Option<Name>,
    lane: Option<Lane>,
    place: &'static Location<'static>,
    future: F,
) -> Spawned<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fork::assert_not_child();
    let lane = lane.unwrap_or_else(current_lane);
    let data = TaskData::new(Kind::Task, name, lane, runtime().ensure_running(), place, runtime().time_of_spawn());
    let future = trace::in_task(data.number(), data.name(), place, future);
    let identity = data.task_at(Some(place));
    Spawned { task: spawn_with(data, future), identity }
}

/// Spawns a task of this crate on the workers. Unlike [`spawn`], does not call a `tracing`
/// subscriber, so it may be called on any thread.
pub(crate) fn spawn_untraced<F>(place: &'static Location<'static>, future: F) -> RawTask<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fork::assert_not_child();
    let (epoch, now) = (runtime().ensure_running(), runtime().time_of_spawn());
    spawn_with(TaskData::new(Kind::Task, None, current_lane(), epoch, place, now), future)
}

fn spawn_with<F>(data: TaskData, future: F) -> RawTask<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    if !data.is_simulated() {
        runtime().task_begins();
        if data.lane() == Lane::Control {
            runtime().control.task_begins();
        }
    }
    let (runnable, task) = async_task::Builder::new()
        .metadata(data)
        .spawn(move |_| Tracked { future: Some(future), kept: None }, WithInfo(schedule_woken));
    let data = runnable.metadata();
    if data.epoch_word() == runtime().epoch() {
        schedule(runnable, false);
    } else if data.epoch() == runtime().epoch() || data.is_simulated() {
        runnable.schedule();
    } else {
        // A shutdown has advanced the epoch. The task has no waker yet.
        discard(runnable);
    }
    runtime().stand_in_once();
    task
}

/// Spawns a call of `f` on the blocking pool.
pub(crate) fn spawn_blocking<F, T>(name: Option<Name>, place: &'static Location<'static>, f: F) -> Spawned<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    spawn_call(name, place, f, |runnable| runtime().pool_push(&runtime().pool, runnable))
}

/// Spawns a call of `f` on the pool for name look-ups.
#[track_caller]
pub(crate) fn spawn_lookup<F, T>(f: F) -> Spawned<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    spawn_call(None, Location::caller(), f, |runnable| runtime().pool_push(&runtime().lookups, runnable))
}

/// Spawns a call of `close`, which may wait, on the pool for closes.
#[track_caller]
pub(crate) fn spawn_close(close: impl FnOnce() + Send + 'static) {
    let push = |runnable| runtime().pool_push(&runtime().closes, runnable);
    spawn_call(None, Location::caller(), close, push).task.detach();
}

fn spawn_call<F, T, S>(name: Option<Name>, place: &'static Location<'static>, f: F, push: S) -> Spawned<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    S: Fn(Runnable<TaskData>) + Send + Sync + 'static,
{
    fork::assert_not_child();
    let (epoch, now) = (runtime().ensure_running(), runtime().time_of_spawn());
    let data = TaskData::new(Kind::Call, name, Lane::Normal, epoch, place, now);
    let future = trace::in_task(data.number(), data.name(), place, async move { f() });
    let identity = data.task_at(Some(place));
    if !data.is_simulated() {
        runtime().task_begins();
    }
    // A simulation makes the call in a turn of the task.
    #[cfg(feature = "sim")]
    let push = move |runnable| {
        if let Some(runnable) = super::hooks::schedule(runnable, false) {
            push(runnable);
        }
    };
    let (runnable, task) =
        async_task::Builder::new().metadata(data).spawn(move |_| Tracked { future: Some(future), kept: None }, push);
    runnable.schedule();
    runtime().stand_in_once();
    Spawned { task, identity }
}

// `own_waker::wake` relies on this.
const _: () = assert!(size_of_val(&schedule_woken) == 0);

/// The schedule function of a task on the workers.
fn schedule_woken(runnable: Runnable<TaskData>, info: ScheduleInfo) {
    schedule(runnable, info.woken_while_running);
}

/// Queues a task that was spawned or woken. `while_running` says whether it was woken in its own
/// turn.
#[allow(unsafe_code)]
#[inline]
fn schedule(runnable: Runnable<TaskData>, while_running: bool) {
    let runtime = runtime();
    let epoch = runtime.epoch();
    // The word also differs if the task is a control task.
    if runnable.metadata().epoch_word() != epoch {
        return schedule_other(runnable, while_running);
    }
    let record = runnable.metadata().record();
    match context::processor_and_task(epoch) {
        // No task runs on this thread. Usually, the poller or a timer has woken the task, or the
        // last reference to the task was dropped. The record already has the cause.
        (Some(processor), false) => {
            let spare: *const Spare = runnable.metadata().spare();
            let item = runnable.into_raw();
            // SAFETY: the item owns the task, and it is not queued yet.
            own_waker::accept(item.as_ptr(), unsafe { &*spare });
            processor.queue.push(item);
        }
        // The task that runs on this thread has spawned or woken another task, which runs next,
        // while its data is in the cache. A task that was woken in its own turn goes to the end of
        // the queue.
        (Some(processor), true) if !while_running => {
            context::note_waker(record);
            processor.queue.push_next(runnable.into_raw());
        }
        (Some(processor), true) => {
            record.note_waker(Waits::Turn);
            // If much of the budget was used, the worker may poll after this turn. The tasks that
            // this poll wakes run before this task. ORDERING: Relaxed, as in `Context::left`.
            if processor.budget.load(Ordering::Relaxed) <= context::REFILL {
                processor.queue.push_aside(runnable.into_raw());
            } else {
                processor.queue.push(runnable.into_raw());
            }
        }
        (None, _) => {
            if while_running {
                record.note_waker(Waits::Turn);
            } else {
                context::note_waker(record);
            }
            runtime.inject(runnable);
        }
    }
}

/// Schedules a task whose epoch word is not the current epoch. Queues a control task of the current
/// epoch in its lane, and a task of a simulation in the simulation. Drops any other task, whose
/// epoch is over, or leaves the drop to a shutdown.
#[cold]
fn schedule_other(runnable: Runnable<TaskData>, while_running: bool) {
    if runnable.metadata().epoch() == runtime().epoch() {
        return runtime().schedule_control(runnable, while_running);
    }
    #[cfg(feature = "sim")]
    let Some(runnable) = super::hooks::schedule(runnable, while_running) else { return };
    // After the task's own turn, no waker is being called.
    if while_running && !fork::is_child() { discard(runnable) } else { discard_later(runnable) }
}

/// Converts a task from its raw form.
///
/// # Safety
/// `item` must be the result of `into_raw` of a `Runnable<TaskData>`, and must be used only once.
#[allow(unsafe_code)]
pub(crate) unsafe fn from_item(item: Item) -> Runnable<TaskData> {
    // SAFETY: the caller guarantees that `into_raw` created it, with this metadata type, and that
    // it is used once.
    unsafe { Runnable::from_raw(item) }
}

/// Converts an item that was just taken out of a queue to a task.
#[allow(unsafe_code)]
pub(crate) fn take_item(item: Item) -> Runnable<TaskData> {
    // SAFETY: the caller took the item out of a queue and passes its ownership.
    unsafe { from_item(item) }
}

/// Drops a task, which cancels it. The drop wakes the tasks that await it, and if the epoch of such
/// a task is over, the wake-up drops that task as well. At a nesting depth of [`DISCARDS_MAX`],
/// further drops are deferred and made one after the other, so that a chain of any length fits on
/// the stack.
pub(crate) fn discard(runnable: Runnable<TaskData>) {
    context::discarding(|depth| {
        if depth > DISCARDS_MAX {
            runtime().deferred.lock().push_back(runnable);
            context::note_deferred();
            return;
        }
        discard_here(runnable);
        while depth == DISCARDS_MAX
            && let Some(next) = runtime().pop_deferred()
        {
            discard_here(next);
        }
    });
}

/// Drops a task whose epoch is over, as [`discard`] does. During a shutdown, leaves the drop to the
/// shutdown, because the caller may be a waker. After the shutdown, this drops only the tasks that
/// the shutdown did not drop in time, and those that a thread began to wake before the shutdown
/// ended. In a child of fork(2), the tasks are those of the parent: they are leaked, because they
/// live on in the parent, and their destructors must not run in the child.
pub(super) fn discard_later(runnable: Runnable<TaskData>) {
    if fork::is_child() {
        std::mem::forget(runnable);
        return;
    }
    let runtime = runtime();
    if !runtime.is_stopping() {
        return discard(runnable);
    }
    runtime.deferred.lock().push_back(runnable);
    context::note_deferred();
    // The shutdown changes the state and then takes the deferred tasks. If the state has changed,
    // the shutdown may have taken them before this task was added. At the maximum depth, a caller
    // drops the deferred tasks.
    if !runtime.is_stopping() && !context::defers_discards() {
        runtime.discard_deferred();
    }
}

fn discard_here(runnable: Runnable<TaskData>) {
    let runnable = release_spare(runnable);
    let data: *const TaskData = runnable.metadata();
    // The future's destructor and the wakers that it calls are user code. The task is the current
    // one while they run, and its local values are dropped with it.
    contain(|| context::run_task(data, || drop(runnable)));
}

/// Drops the reference that a wake-up has left with the task.
#[allow(unsafe_code)]
fn release_spare(runnable: Runnable<TaskData>) -> Runnable<TaskData> {
    let spare: *const Spare = runnable.metadata().spare();
    let item = runnable.into_raw();
    // SAFETY: the item owns the task.
    unsafe { (*spare).release(item.as_ptr()) };
    // SAFETY: `into_raw` has just created the item.
    unsafe { from_item(item) }
}
