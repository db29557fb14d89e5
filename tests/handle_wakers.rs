//! The waker of a future that awaits a task. The waker is foreign code: it runs outside of the
//! task, after the task has ended, and may panic.

mod common;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

use common::{eventually, run};
use netpoll::task::{self, JoinHandle};

/// A waker that calls a function.
struct Calls<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Calls<F> {
    fn wake(self: Arc<Calls<F>>) {
        (self.0)();
    }
}

/// Polls the handles of a task and of a blocking call with `waker`, and keeps or drops the handles.
/// Then lets the task and the call end. Returns the kept handles.
fn end_with(waker: &Waker, keeps_handle: bool) -> Vec<JoinHandle<u64>> {
    let is_over = Arc::new(AtomicBool::new(false));
    let (first, second) = (is_over.clone(), is_over.clone());
    let tasks = [
        task::spawn(async move {
            while !first.load(Ordering::SeqCst) {
                task::sleep(Duration::from_millis(1)).await;
            }
            7
        }),
        task::spawn_blocking(move || {
            while !second.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            7
        }),
    ];
    let mut kept = Vec::new();
    for mut handle in tasks {
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(waker)).is_pending());
        if keeps_handle {
            kept.push(handle);
        }
    }
    is_over.store(true, Ordering::SeqCst);
    kept
}

/// When the waker runs, the task has ended and may be freed.
#[test]
fn waker_of_handle_runs_outside_of_ended_task() {
    for keeps_handle in [false, true] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        let waker = Waker::from(Arc::new(Calls(move || {
            let current = task::try_current().map(|task| task.id());
            record.lock().unwrap().push(current);
        })));
        let kept = end_with(&waker, keeps_handle);
        eventually("each task wakes its waker", || seen.lock().unwrap().len() == 2);
        assert_eq!(*seen.lock().unwrap(), [None; 2]);
        kept.into_iter().for_each(|handle| assert_eq!(run(handle), 7));
    }
}

/// When the waker of a future that waits for a cancellation runs, the cancelled task has ended and
/// may be freed.
#[test]
fn waker_of_cancelled_task_runs_outside_of_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let waker = Waker::from(Arc::new(Calls(move || {
        record.lock().unwrap().push(task::try_current().map(|task| task.id()));
        panic!("in a waker, on purpose");
    })));
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = std::sync::mpsc::channel();
    // The turn of this task lasts until the cancellation has been requested.
    let handle = task::spawn(async move {
        begun.send(()).unwrap();
        let _ = receiver.recv();
        std::future::pending::<()>().await;
    });
    begins.recv().unwrap();
    let mut cancel = Box::pin(handle.cancel());
    assert!(cancel.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(sender);
    eventually("the waker is called", || !seen.lock().unwrap().is_empty());
    assert_eq!(seen.lock().unwrap()[0], None);
    assert_eq!(run(cancel), None);
}

#[test]
fn panicking_waker_of_handle_ends_neither_process_nor_task() {
    for keeps_handle in [false, true] {
        let count = Arc::new(Mutex::new(0));
        let counted = count.clone();
        let waker = Waker::from(Arc::new(Calls(move || {
            *counted.lock().unwrap() += 1;
            panic!("in a waker, on purpose");
        })));
        let kept = end_with(&waker, keeps_handle);
        eventually("each task wakes its waker", || *count.lock().unwrap() == 2);
        kept.into_iter().for_each(|handle| assert_eq!(run(handle), 7));
        assert_eq!(run(task::spawn(async { 8 })), 8, "the workers continue");
    }
}

/// A waker with the data pointer of the running task's waker is still foreign code if it has
/// another vtable.
#[test]
fn panicking_waker_with_the_data_pointer_of_the_tasks_waker_does_not_end_the_process() {
    static WOKEN: AtomicUsize = AtomicUsize::new(0);
    static TABLE: RawWakerVTable = RawWakerVTable::new(|data| RawWaker::new(data, &TABLE), wake, wake, |_| ());
    fn wake(_: *const ()) {
        WOKEN.fetch_add(1, Ordering::SeqCst);
        panic!("in a waker, on purpose");
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = is_over.clone();
    let mut inner = task::spawn(async move {
        while !ends.load(Ordering::SeqCst) {
            task::sleep(Duration::from_millis(1)).await;
        }
        7
    });
    let outer = task::spawn(async move {
        poll_fn(|cx| {
            // SAFETY: no function of the table uses the data.
            let alike = unsafe { Waker::new(cx.waker().data(), &TABLE) };
            assert!(Pin::new(&mut inner).poll(&mut Context::from_waker(&alike)).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        [inner]
    });
    let [inner] = run(outer);
    is_over.store(true, Ordering::SeqCst);
    eventually("the waker is called", || WOKEN.load(Ordering::SeqCst) == 1);
    assert_eq!(run(inner), 7);
}
