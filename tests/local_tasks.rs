//! `spawn_local`: the thread that runs its tasks, the places from which it may be called, and the
//! drop of its tasks when the thread ends.

mod common;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{becomes, eventually, run};
use netpoll::prelude::*;
use netpoll::{rt, task, task_local};

#[test]
fn local_tasks_run_on_their_thread() {
    run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let home = thread::current().id();
        let handles: Vec<_> = (0..200)
            .map(|number| {
                let order = order.clone();
                task::spawn_local(async move {
                    task::yield_now().await;
                    task::sleep(Duration::from_millis(number % 3)).await;
                    assert_eq!(thread::current().id(), home);
                    order.borrow_mut().push(number);
                    number
                })
            })
            .collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.await;
        }
        assert_eq!(sum, 199 * 200 / 2);
        assert_eq!(order.borrow().len(), 200);
    });
}

#[test]
fn local_tasks_support_task_operations() {
    task_local! {
        static LOCAL: Cell<u8> = Cell::new(0);
    }
    run(async {
        let named = task::Builder::new().name("local".into()).local(async {
            LOCAL.with(|local| local.set(1));
            // A local task may spawn local tasks and ordinary tasks.
            let inner = task::spawn_local(async { LOCAL.with(Cell::get) }).await;
            let sent = task::spawn(async { 5 }).await;
            (task::current().name().map(str::to_owned), inner, sent)
        });
        assert_eq!(named.unwrap().await, (Some("local".to_owned()), 0, 5));

        assert_eq!(task::spawn_local(pending::<()>()).cancel().await, None);

        let panicking = task::spawn_local(async { panic!("on purpose") });
        assert!(futures::FutureExt::catch_unwind(AssertUnwindSafe(panicking)).await.is_err());

        // A task whose handle was dropped continues to run.
        let done = Rc::new(Cell::new(false));
        let flag = done.clone();
        drop(task::spawn_local(async move { flag.set(true) }));
        becomes("the detached task has run", || done.get()).await;
    });
}

#[test]
fn another_thread_wakes_local_tasks() {
    run(async {
        let (stream, peer) = common::pair().await;
        let reader = task::spawn_local(async move {
            let mut buf = [0; 4];
            (&stream).read_exact(&mut buf).await.map(|()| Rc::new(buf))
        });
        let (sender, receiver) = mpsc::channel();
        let writer = thread::spawn(move || {
            receiver.recv().unwrap();
            common::park_on(peer.write_all(b"ping")).unwrap();
        });
        let id = reader.task().id();
        becomes("the reader waits", || rt::inspect().task(id).is_some_and(|task| task.waits_for().is_some())).await;
        sender.send(()).unwrap();
        assert_eq!(&*reader.await.unwrap(), b"ping");
        writer.join().unwrap();
    });
}

#[test]
fn local_tasks_spawned_before_block_on_run_in_it() {
    let _watchdog = common::Watchdog::new();
    let shared = Rc::new(Cell::new(1));
    let handle = task::spawn_local({
        let shared = shared.clone();
        async move { shared.replace(2) }
    });
    assert!(!handle.is_finished());
    assert_eq!(task::block_on(handle), 1);
    assert_eq!(shared.get(), 2);

    // The next block_on continues tasks that the previous one left unfinished.
    let (sender, receiver) = futures::channel::oneshot::channel();
    let handle = task::spawn_local(receiver);
    task::block_on(task::yield_now());
    sender.send(3).unwrap();
    assert_eq!(task::block_on(handle), Ok(3));
}

#[test]
fn nested_block_on_runs_local_tasks() {
    run(async {
        let first = task::spawn_local(async { 1 });
        assert_eq!(task::block_on(first), 1);
        let (sender, receiver) = futures::channel::oneshot::channel::<u8>();
        let waits = task::spawn_local(receiver);
        let nested = task::spawn_local(async move { task::block_on(task::spawn_local(async { 2 })) });
        assert_eq!(nested.await, 2);
        // After the nested call, the wake-up of a local task wakes the outer root future again.
        let sends = task::spawn(async move { sender.send(3) });
        assert_eq!(waits.await, Ok(3));
        sends.await.unwrap();
    });
}

/// `spawn_local` panics, and `Builder::local` returns an error.
#[test]
fn spawn_local_inside_spawned_task_panics() {
    run(async {
        let error = task::spawn(async { task::Builder::new().local(async {}).map(drop).unwrap_err() }).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = task::spawn_blocking(|| task::Builder::new().local(async {}).map(drop).unwrap_err()).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let panicked = task::spawn(async { catch_unwind(|| drop(task::spawn_local(async {}))).is_err() }).await;
        assert!(panicked);
        // A task may call `spawn_local` inside its own block_on, which ends before the task can
        // move to another thread.
        assert_eq!(task::spawn(async { task::block_on(async { task::spawn_local(async { 4 }).await }) }).await, 4);
    });
}

/// Counts its drop.
struct Drops(Arc<AtomicUsize>);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn thread_exit_drops_local_tasks() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (give, wakers) = mpsc::channel();
    let count = drops.clone();
    let thread = thread::spawn(move || {
        // There are two tasks. One waits, and its waker is sent to another thread. The other is
        // queued.
        let waits = Drops(count.clone());
        drop(task::spawn_local(async move {
            std::future::poll_fn(|cx| {
                give.send(cx.waker().clone()).unwrap();
                std::task::Poll::<()>::Pending
            })
            .await;
            drop(waits);
        }));
        task::block_on(task::yield_now());
        let queued = Drops(count);
        drop(task::spawn_local(async move { drop(queued) }));
    });
    thread.join().unwrap();
    let waker = wakers.recv().unwrap();
    eventually("both tasks are dropped", || drops.load(Ordering::SeqCst) == 2);
    // The waker no longer has an effect.
    waker.wake_by_ref();
    drop(waker);
}

#[test]
fn shutdown_keeps_local_tasks() {
    common::child("shutdown_keeps_local_tasks", || {
        let (sender, receiver) = futures::channel::oneshot::channel();
        let handle = task::spawn_local(async { receiver.await.unwrap() });
        task::block_on(task::yield_now());
        rt::shutdown(common::BOUND).unwrap();
        sender.send(6).unwrap();
        assert_eq!(task::block_on(handle), 6);
    });
}
