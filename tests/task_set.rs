//! `TaskSet`: no result is lost, and a set that is dropped cancels its tasks, except those that
//! were detached.

mod common;

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{child, eventually, run};
use netpoll::prelude::*;
use netpoll::rt;
use netpoll::task::{self, TaskSet};

/// A guard that counts as one in a counter until it is dropped.
struct Living(Arc<AtomicUsize>);

impl Living {
    fn new(count: &Arc<AtomicUsize>) -> Living {
        count.fetch_add(1, Ordering::SeqCst);
        Living(count.clone())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Adds `count` tasks that never end. Returns a counter of their futures that have not been
/// dropped.
fn with_pending(set: &mut TaskSet<()>, count: usize) -> Arc<AtomicUsize> {
    let living = Arc::new(AtomicUsize::new(0));
    for _ in 0..count {
        let guard = Living::new(&living);
        set.spawn(async move {
            let _guard = guard;
            pending::<()>().await
        });
    }
    living
}

#[test]
fn each_result_is_returned_once() {
    run(async {
        let mut set = TaskSet::new();
        for n in 0..1000_u64 {
            set.spawn(async move {
                if n % 3 == 0 {
                    task::yield_now().await;
                }
                if n % 100 == 0 {
                    task::sleep(Duration::from_millis(2)).await;
                }
                n
            });
        }
        assert_eq!(set.len(), 1000);
        let mut all = Vec::new();
        while let Some(n) = set.join_next().await {
            all.push(n);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000) && set.is_empty());
        assert_eq!(set.join_next().await, None);
    });
}

#[test]
fn results_are_in_completion_order() {
    run(async {
        let mut set = TaskSet::new();
        let (send, receive) = futures::channel::oneshot::channel();
        set.spawn(async move { receive.await.unwrap() });
        set.spawn(async { 1 });
        assert_eq!(set.next().await, Some(1));
        send.send(2).unwrap();
        assert_eq!(set.join_all().await, [2]);
    });
}

#[test]
fn dropped_join_next_loses_no_result() {
    run(async {
        let mut set = TaskSet::new();
        for n in 0..50 {
            set.spawn(async move { n });
        }
        let mut all = Vec::new();
        while all.len() < 50 {
            // The future is polled once and dropped, whether it is ready or not.
            let polled = pin!(set.join_next()).poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(Some(n)) = polled {
                all.push(n);
            }
            task::yield_now().await;
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..50));
    });
}

#[test]
fn dropped_set_cancels_its_tasks() {
    run(async {
        let mut set = TaskSet::new();
        let living = with_pending(&mut set, 20);
        drop(set);
        eventually("all futures are dropped", || living.load(Ordering::SeqCst) == 0);
    });
}

#[test]
fn cancel_all_returns_after_futures_are_dropped() {
    run(async {
        let mut set = TaskSet::new();
        let living = with_pending(&mut set, 20);
        set.spawn(async {});
        set.cancel_all().await;
        assert!(living.load(Ordering::SeqCst) == 0 && set.is_empty());
        set.spawn(async {});
        assert_eq!(set.join_next().await, Some(()));
        assert_eq!(set.join_next().await, None);
    });
}

#[test]
fn first_error_cancels_remaining_tasks() {
    run(async {
        let living = Arc::new(AtomicUsize::new(0));
        let mut set = TaskSet::new();
        for n in 0..10 {
            let guard = Living::new(&living);
            set.spawn(async move {
                let _guard = guard;
                if n == 7 {
                    return Err("seven");
                }
                pending::<()>().await;
                Ok(n)
            });
        }
        assert_eq!(set.try_join_all().await, Err("seven"));
        assert_eq!(living.load(Ordering::SeqCst), 0);
        let mut set = TaskSet::new();
        set.spawn(async { Ok::<_, ()>(1) });
        assert_eq!(set.try_join_all().await, Ok(vec![1]));
    });
}

#[test]
fn panic_is_resumed_and_other_tasks_remain() {
    let mut set = TaskSet::new();
    set.spawn(async { panic!("on purpose") });
    let (send, receive) = futures::channel::oneshot::channel::<u32>();
    set.spawn(async move { receive.await.unwrap() });
    let panic = catch_unwind(AssertUnwindSafe(|| run(set.join_next()))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert_eq!(set.len(), 1);
    send.send(5).unwrap();
    assert_eq!(run(set.join_next()), Some(5));
}

/// Adds tasks that panic, and waits until they have ended. No other task may be alive.
fn with_panicked<T: Send + 'static>(set: &mut TaskSet<T>, count: usize) {
    for _ in 0..count {
        set.spawn(async { panic!("on purpose") });
    }
    eventually("all have ended", || rt::metrics().tasks_alive == 0);
}

#[test]
fn panics_of_members_are_dropped_with_their_set() {
    child("panics_of_members_are_dropped_with_their_set", || {
        let mut set = TaskSet::new();
        with_panicked(&mut set, 2);
        let living = with_pending(&mut set, 2);
        drop(set);
        eventually("the others are cancelled", || living.load(Ordering::SeqCst) == 0);

        let mut set = TaskSet::new();
        with_panicked(&mut set, 2);
        let living = with_pending(&mut set, 2);
        run(set.cancel_all());
        assert_eq!((set.len(), living.load(Ordering::SeqCst)), (0, 0));

        // The task panics after the cancellation has been requested.
        let (begun, begins) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        set.spawn(async move {
            begun.send(()).unwrap();
            wait.recv().unwrap();
            panic!("on purpose")
        });
        begins.recv().unwrap();
        let mut cancel = pin!(set.cancel_all());
        let mut poll = || cancel.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        go.send(()).unwrap();
        eventually("cancelled", || poll().is_ready());

        // The set is dropped while the panic of the member that ended first is resumed.
        let mut set = TaskSet::new();
        with_panicked(&mut set, 3);
        let living = with_pending(&mut set, 1);
        let panic = catch_unwind(AssertUnwindSafe(|| run(set.join_all()))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        eventually("the others are cancelled", || living.load(Ordering::SeqCst) == 0);
    });
}

#[test]
fn error_of_a_member_takes_precedence_over_later_panics() {
    child("error_of_a_member_takes_precedence_over_later_panics", || {
        let mut set = TaskSet::new();
        set.spawn(async { Err::<(), _>("failed") });
        eventually("the first has ended", || rt::metrics().tasks_alive == 0);
        with_panicked(&mut set, 2);
        assert_eq!(run(set.try_join_all()), Err("failed"));
    });
}

#[test]
fn detached_tasks_continue() {
    run(async {
        let (send, receive) = futures::channel::oneshot::channel();
        let (go, wait) = futures::channel::oneshot::channel::<()>();
        let mut set = TaskSet::new();
        set.spawn(async move {
            wait.await.unwrap();
            send.send(3).unwrap();
        });
        set.detach_all();
        drop(set);
        go.send(()).unwrap();
        assert_eq!(receive.await, Ok(3));
    });
}

#[test]
fn id_and_panic_of_an_ended_task_are_returned() {
    let mut set = TaskSet::new();
    let fails = set.spawn(async { panic!("on purpose") });
    let works = set.spawn_with(task::Builder::new().name("works".into()), async { 5 }).unwrap();
    let mut ended: Vec<_> = (0..2).map(|_| task::block_on(set.join_next_with_id()).unwrap()).collect();
    ended.sort_by_key(|(id, _)| *id == works);
    let [(first, failed), (second, five)] = <[_; 2]>::try_from(ended).unwrap();
    assert_eq!((first, second, five.unwrap()), (fails, works, 5));
    assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert!(task::block_on(set.join_next_with_id()).is_none());
}

#[test]
fn snapshots_show_where_a_task_of_a_set_was_spawned() {
    let mut set = TaskSet::new();
    let ids = [
        (set.spawn(std::future::pending::<()>()), line!()),
        (set.spawn_with(task::Builder::new(), std::future::pending()).unwrap(), line!()),
    ];
    for (id, line) in ids {
        let snapshot = netpoll::rt::inspect();
        let task = snapshot.tasks.iter().find(|task| task.id() == id).expect("a live task");
        let place = task.spawned_at().expect("a place");
        assert!(place.file().ends_with("task_set.rs") && place.line() == line, "{place}");
    }
}

/// Invariant 11. Regression: the second panic, during the unwinding of the first, aborted the
/// process.
#[test]
fn panicking_waker_and_destructor_of_a_member_do_not_end_the_process() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Panics>) {
            panic!("in a waker, on purpose");
        }
    }
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("in a destructor, on purpose");
        }
    }
    child("panicking_waker_and_destructor_of_a_member_do_not_end_the_process", || {
        let (mut set, (begun, begins)) = (TaskSet::new(), mpsc::channel());
        set.spawn(async move {
            let _panics = PanicsOnDrop;
            begun.send(()).unwrap();
            pending::<()>().await;
        });
        begins.recv_timeout(common::BOUND).unwrap();
        assert!(set.poll_join_next(&mut Context::from_waker(&Waker::from(Arc::new(Panics)))).is_pending());
        drop(set);
        eventually("the member is dropped", || rt::metrics().tasks_alive == 0);
        assert_eq!(rt::metrics().contained_panics, 1);
    });
}

#[test]
fn set_joins_blocking_calls_and_local_tasks_with_other_tasks() {
    run(async {
        let shared = Rc::new(3);
        let mut set = TaskSet::new();
        let line = line!() + 1;
        let calls = [set.spawn_blocking(|| 1), set.spawn_local(async move { *shared })];
        // The local task has not run yet. The call may have ended.
        let snapshot = rt::inspect();
        let tasks = snapshot.tasks.iter().filter(|task| calls.contains(&task.id()));
        let places: Vec<_> = tasks.map(|task| task.spawned_at().unwrap()).collect();
        assert!(!places.is_empty());
        assert!(places.iter().all(|place| place.file() == file!() && place.line() == line), "{places:?}");
        set.spawn(async { 2 });
        let mut all = set.join_all().await;
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    });
}

#[test]
fn panics_of_blocking_calls_and_local_tasks_are_returned() {
    run(async {
        let mut set = TaskSet::<()>::new();
        let ids = [set.spawn_blocking(|| panic!("call")), set.spawn_local(async { panic!("local") })];
        for _ in ids {
            let (id, result) = set.join_next_with_id().await.unwrap();
            let text = if id == ids[0] { "call" } else { "local" };
            assert_eq!(result.unwrap_err().downcast_ref(), Some(&text));
        }
        assert!(set.join_next().await.is_none());
    });
}

#[test]
fn set_cancels_local_tasks_and_waits_for_blocking_calls() {
    run(async {
        let (mut set, living) = (TaskSet::new(), Arc::new(AtomicUsize::new(0)));
        let guard = Living::new(&living);
        let (release, released) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        set.spawn_blocking(move || {
            begin.send(()).unwrap();
            released.recv().unwrap();
            drop(guard);
        });
        let guard = Living::new(&living);
        set.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await
        });
        task::spawn_blocking(move || begun.recv()).await.unwrap();
        {
            let mut cancel = pin!(set.cancel_all());
            // The first poll requests the cancellation of both.
            assert!(cancel.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            release.send(()).unwrap();
            cancel.await;
        }
        assert_eq!(living.load(Ordering::SeqCst), 0);

        // Dropping the set cancels as well.
        let guard = Living::new(&living);
        let mut set = TaskSet::new();
        set.spawn_local(async move {
            let _guard = guard;
            pending::<()>().await
        });
        drop(set);
        common::becomes("the local task is dropped", || living.load(Ordering::SeqCst) == 0).await;
    });
}

#[test]
fn spawn_local_of_a_set_inside_a_spawned_task_panics() {
    run(async {
        let panicked = task::spawn(async { catch_unwind(|| _ = TaskSet::new().spawn_local(async {})) }).await;
        let text = panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("spawn it in the future of block_on"), "{text}");
    });
}
