//! A shutdown returns at its time limit or soon after it, even if user code that it runs does not
//! return. Each test runs in a child process.

mod common;

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{child, eventually, pair, park_on, poll_now};
use futures::channel::oneshot;
use netpoll::{rt, task};

const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(300);
/// A limit within which everything that can end does end, even on a busy machine.
const AMPLE: Duration = Duration::from_secs(3);

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Spawns a task that waits for the network and calls `f` when it is dropped. Returns when the task
/// has begun.
fn waits_and_then(f: impl FnMut() + Send + 'static) {
    let guard = OnDrop(f);
    let (begun, begins) = mpsc::channel();
    drop(task::spawn(async move {
        let _guard = guard;
        let (client, _server) = pair().await;
        begun.send(()).unwrap();
        let _ = client.read(&mut [0; 1]).await;
    }));
    begins.recv_timeout(common::BOUND).unwrap();
}

/// Runs `body` in a child process, with one worker and with several.
#[track_caller]
fn with_workers(name: &str, body: impl Fn()) {
    child(name, || {
        for workers in [1, 4] {
            rt::Builder::new().workers(workers).start().unwrap();
            body();
            let _ = rt::shutdown(LONG);
        }
    });
}

/// Regression: each of these destructors ran on the thread that called `shutdown`, and the call did
/// not return.
#[test]
fn destructors_that_wait_for_runtime_complete() {
    with_workers("destructors_that_wait_for_runtime_complete", || {
        let done = Arc::new(Mutex::new(Vec::new()));
        // Each function returns whether its result is as expected. (An assertion would have no
        // effect, because the runtime contains panics of destructors.)
        let uses: [fn() -> bool; 10] = [
            || {
                task::block_on(task::sleep(Duration::from_millis(10)));
                true
            },
            || {
                task::block_on(async { task::block_on(task::sleep(Duration::from_millis(10))) });
                true
            },
            || {
                park_on(task::sleep(Duration::from_millis(10)));
                true
            },
            // A task or blocking call that is spawned here is dropped at once, and awaiting it
            // panics.
            || catch_unwind(|| task::block_on(task::spawn(task::sleep(Duration::from_millis(1))))).is_err(),
            || catch_unwind(|| task::block_on(task::spawn_blocking(|| ()))).is_err(),
            || task::block_on(task::spawn(pending::<()>()).cancel()).is_none(),
            || {
                let (end, _other) = netpoll::net::pipe().unwrap();
                end.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
                netpoll::net::is_timeout(&task::block_on(end.read(&mut [0; 1])).unwrap_err())
            },
            // A runtime that is shutting down refuses to wait for a socket.
            || task::block_on(async { pair().await.0.read(&mut [0; 1]).await }).is_err(),
            || rt::shutdown(LONG).is_err_and(|still| still.on_runtime_thread),
            || rt::Builder::new().start().is_err_and(|error| error.to_string().contains("while it is shutting down")),
        ];
        for (number, f) in uses.into_iter().enumerate() {
            for _ in 0..4 {
                let done = done.clone();
                waits_and_then(move || {
                    let is_right = catch_unwind(f);
                    done.lock().unwrap().push((number, is_right.is_ok_and(|is_right| is_right)));
                });
            }
        }
        std::panic::set_hook(Box::new(|_| {}));
        let ended = rt::shutdown(LONG);
        drop(std::panic::take_hook());
        ended.unwrap();
        let mut done = std::mem::take(&mut *done.lock().unwrap());
        done.sort_unstable();
        let expected: Vec<_> = (0..uses.len()).flat_map(|number| [(number, true); 4]).collect();
        assert_eq!(done, expected);
    });
}

#[test]
fn shutdown_abandons_destructor_that_never_returns() {
    with_workers("shutdown_abandons_destructor_that_never_returns", || {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let dropped = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let held = held.clone();
            waits_and_then(move || assert!(held.lock().unwrap().recv().is_err()));
        }
        for _ in 0..50 {
            let dropped = dropped.clone();
            waits_and_then(move || _ = dropped.fetch_add(1, Ordering::SeqCst));
        }
        let still = rt::shutdown(AMPLE).unwrap_err();
        assert!(!still.on_runtime_thread && still.tasks == 3, "{still}");
        assert!(still.threads.len() == 3 && still.threads.iter().all(|name| name == "netpoll-shutdown"), "{still:?}");
        assert_eq!(dropped.load(Ordering::SeqCst), 50, "stuck destructors delay no other task");
        // The next runtime works while these destructors still run.
        assert_eq!(task::block_on(async { task::spawn(async { 5 }).await }), 5);
        drop(release);
        eventually("the destructors end", || rt::metrics().tasks_alive == 0);
        rt::shutdown(LONG).unwrap();
    });
}

#[test]
fn destructor_may_lock_mutex_of_caller() {
    with_workers("destructor_may_lock_mutex_of_caller", || {
        let lock = Arc::new(Mutex::new(0));
        let own = lock.clone();
        waits_and_then(move || *own.lock().unwrap() += 1);
        let guard = lock.lock().unwrap();
        assert_eq!(rt::shutdown(SHORT).unwrap_err().tasks, 1);
        drop(guard);
        eventually("the task is dropped", || *lock.lock().unwrap() == 1 && rt::metrics().tasks_alive == 0);
    });
}

/// Regression: the shutdown waited without a limit for thread-local destructors of a thread whose
/// function had returned. It waited for at most 200 ms for those of a thread that the shutdown had
/// started itself, and then returned an error before its time limit.
#[test]
fn shutdown_waits_for_thread_local_destructors() {
    type Kept = OnDrop<Box<dyn FnMut()>>;
    thread_local!(static LOCAL: RefCell<Option<Kept>> = const { RefCell::new(None) });
    fn keep(f: impl FnMut() + 'static) {
        LOCAL.set(Some(OnDrop(Box::new(f))));
    }
    with_workers("shutdown_waits_for_thread_local_destructors", || {
        let done = Arc::new(AtomicUsize::new(0));
        let count = |done: &Arc<AtomicUsize>| {
            let done = done.clone();
            move || _ = done.fetch_add(1, Ordering::SeqCst)
        };
        // The destructors run on a worker and on a thread of the blocking pool.
        let counted = count(&done);
        park_on(task::spawn(async move {
            keep(move || {
                task::block_on(task::sleep(Duration::from_millis(10)));
                counted();
            });
        }));
        let counted = count(&done);
        park_on(task::spawn_blocking(move || {
            keep(move || {
                assert!(rt::shutdown(LONG).is_err_and(|still| still.on_runtime_thread));
                task::block_on(task::sleep(Duration::from_millis(10)));
                counted();
            });
        }));
        rt::shutdown(LONG).unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 2);

        // The destructor runs on a thread on which the shutdown drops tasks.
        let counted = count(&done);
        waits_and_then(move || {
            let counted = counted.clone();
            keep(move || {
                thread::sleep(Duration::from_millis(500));
                counted();
            });
        });
        rt::shutdown(LONG).unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 3);

        let (release, held) = mpsc::channel::<()>();
        park_on(task::spawn(async move { keep(move || assert!(held.recv().is_err())) }));
        let still = rt::shutdown(AMPLE).unwrap_err();
        assert_eq!((still.threads, still.tasks), (vec!["netpoll".to_owned()], 0));
        assert_eq!(task::block_on(async { task::spawn(async { 5 }).await }), 5);
        drop(release);
        rt::shutdown(LONG).unwrap();
    });
}

/// Calls `link` to spawn each task of a chain of `count` tasks. The first task ends when the
/// returned sender is dropped, and each other task when its predecessor ends.
fn chain(count: usize, link: fn(oneshot::Receiver<()>, oneshot::Sender<()>)) -> oneshot::Sender<()> {
    let (first, mut receive) = oneshot::channel();
    for _ in 0..count {
        let (send, next) = oneshot::channel();
        link(receive, send);
        receive = next;
    }
    first
}

/// The number of waiting tasks in chains.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Spawns one task of a [`chain`]. The task waits for `receive`, and then drops `send`.
fn awaits(receive: oneshot::Receiver<()>, send: oneshot::Sender<()>) {
    drop(task::spawn(async move {
        let _send = (send, OnDrop(|| _ = WAITING.fetch_sub(1, Ordering::SeqCst)));
        WAITING.fetch_add(1, Ordering::SeqCst);
        let _ = receive.await;
    }));
}

/// Regression: dropping a task woke the next, whose drop woke the next, and the nested drops
/// overflowed the stack.
#[test]
fn task_chains_are_dropped_iteratively() {
    const COUNT: usize = 50_000;
    with_workers("task_chains_are_dropped_iteratively", || {
        let alive = || rt::metrics().tasks_alive as usize;
        let all_wait = || eventually("all tasks of the chain wait", || WAITING.load(Ordering::SeqCst) == COUNT);
        // Tasks that are linked by handles.
        let (client, _server) = park_on(pair());
        let mut last = task::spawn(async move { drop(client.read(&mut [0; 1]).await) });
        for _ in 0..COUNT {
            last = task::spawn(last);
        }
        // Tasks that are linked by channels. A task of the runtime owns the sender of the first
        // channel.
        let (client, _peer) = park_on(pair());
        let first = chain(COUNT, awaits);
        drop(task::spawn(async move { drop((client.read(&mut [0; 1]).await, first)) }));
        // Tasks that are linked by wakers in destructors.
        let mut waker = Waker::noop().clone();
        for _ in 0..COUNT {
            let wakes_next = OnDrop(move || waker.wake_by_ref());
            let (send, receive) = mpsc::channel();
            drop(task::spawn(poll_fn(move |cx| {
                let _ = (send.send(cx.waker().clone()), &wakes_next);
                Poll::<()>::Pending
            })));
            waker = receive.recv_timeout(common::BOUND).unwrap();
        }
        let sleeper = OnDrop(move || waker.wake_by_ref());
        drop(task::spawn(async move {
            let _sleeper = sleeper;
            task::sleep(Duration::from_secs(3600)).await;
        }));
        all_wait();
        rt::shutdown(LONG).unwrap();
        assert_eq!(alive(), 0);
        drop(last);

        // The sender of the first channel is outside the runtime.
        let first = chain(COUNT, awaits);
        all_wait();
        rt::shutdown(LONG).unwrap();
        assert_eq!(alive(), 0);
        drop(first);
    });
}

/// A destructor cancels another task and waits until that task is dropped.
#[test]
fn destructor_may_wait_for_another_task_drop() {
    with_workers("destructor_may_wait_for_another_task_drop", || {
        for _ in 0..20 {
            let mut inner = Some(task::spawn(async {
                let _guard = OnDrop(|| task::block_on(task::sleep(Duration::from_millis(1))));
                pending::<()>().await;
            }));
            waits_and_then(move || assert!(task::block_on(inner.take().unwrap().cancel()).is_none()));
        }
        rt::shutdown(LONG).unwrap();
        assert_eq!(rt::metrics().tasks_alive, 0);
    });
}

/// A waker is user code, so it may block. A shutdown still returns soon after its time limit, and
/// other waiters are not delayed.
#[test]
fn shutdown_abandons_waker_that_blocks() {
    struct Blocks(Mutex<mpsc::Receiver<()>>);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            assert!(self.0.lock().unwrap().recv().is_err());
        }
    }
    with_workers("shutdown_abandons_waker_that_blocks", || {
        let (release, held) = mpsc::channel::<()>();
        let waker = Waker::from(Arc::new(Blocks(Mutex::new(held))));
        let (client, _server) = park_on(pair());
        let mut read = Box::pin(async { client.read(&mut [0; 1]).await.map(drop) });
        assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let dropped = Arc::new(AtomicUsize::new(0));
        for _ in 0..20 {
            let dropped = dropped.clone();
            waits_and_then(move || _ = dropped.fetch_add(1, Ordering::SeqCst));
        }
        let still = rt::shutdown(AMPLE).unwrap_err();
        assert_eq!((still.threads.len(), still.tasks), (1, 0), "{still:?}");
        assert_eq!(dropped.load(Ordering::SeqCst), 20);
        drop(release);
        assert!(matches!(poll_now(&mut read), Poll::Ready(Err(_))));
    });
}

/// A waker blocks until the shutdown has timed out, and then wakes a task that the shutdown has
/// dropped.
#[test]
fn wake_up_after_shutdown_timeout_has_no_effect() {
    struct WakesLate(Mutex<mpsc::Receiver<()>>, Mutex<Option<Waker>>);
    impl Wake for WakesLate {
        fn wake(self: Arc<Self>) {
            assert!(self.0.lock().unwrap().recv().is_err());
            let waker = self.1.lock().unwrap().take();
            waker.unwrap().wake();
        }
    }
    with_workers("wake_up_after_shutdown_timeout_has_no_effect", || {
        let (send, receive) = mpsc::channel();
        drop(task::spawn(poll_fn(move |cx| {
            send.send(cx.waker().clone()).unwrap();
            Poll::<()>::Pending
        })));
        let (release, held) = mpsc::channel::<()>();
        let inner = receive.recv_timeout(common::BOUND).unwrap();
        let late = Arc::new(WakesLate(Mutex::new(held), Mutex::new(Some(inner))));
        let waker = Waker::from(late.clone());
        let mut sleep = Box::pin(task::sleep(Duration::from_secs(3600)));
        assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let still = rt::shutdown(AMPLE).unwrap_err();
        assert_eq!((still.threads.len(), still.tasks, rt::metrics().tasks_alive), (1, 0, 0), "{still:?}");
        drop(release);
        eventually("the waker of the task is taken", || late.1.lock().unwrap().is_none());
        drop(waker);
        eventually("the waker is dropped", || Arc::strong_count(&late) == 1);
    });
}

#[test]
fn second_shutdown_uses_its_own_timeout() {
    with_workers("second_shutdown_uses_its_own_timeout", || {
        let (release, held) = mpsc::channel::<()>();
        waits_and_then(move || assert!(held.recv().is_err()));
        let first = thread::spawn(|| rt::shutdown(LONG));
        // A refused socket shows that the shutdown has begun.
        eventually("the shutdown begins", || task::block_on(async { begin_read(pair().await).is_err() }));
        let start = Instant::now();
        let still = rt::shutdown(Duration::from_millis(50)).unwrap_err();
        assert!(
            start.elapsed() >= Duration::from_millis(50) && !still.on_runtime_thread && still.tasks == 1,
            "{still}"
        );
        assert!(rt::shutdown(Duration::ZERO).is_err());
        let third = thread::spawn(|| rt::shutdown(LONG));
        drop(release);
        assert_eq!(
            (first.join().unwrap(), third.join().unwrap()),
            (Ok(()), Ok(())),
            "both calls report how the shutdown ended"
        );
        assert_eq!(rt::shutdown(Duration::ZERO), Ok(()));
    });
}

/// Polls a read of a connection once. Returns the error if the runtime refuses to wait for the
/// socket.
fn begin_read((client, _server): (netpoll::net::TcpStream, netpoll::net::TcpStream)) -> std::io::Result<()> {
    match poll_now(&mut client.read(&mut [0; 1])) {
        Poll::Ready(Err(error)) => Err(error),
        _ => Ok(()),
    }
}

/// A start during a shutdown waits until the shutdown has ended.
#[test]
fn start_waits_for_shutdown() {
    with_workers("start_waits_for_shutdown", || {
        let (release, held) = mpsc::channel::<()>();
        waits_and_then(move || assert!(held.recv().is_err()));
        let first = thread::spawn(|| rt::shutdown(SHORT));
        // Until the shutdown begins, a start fails, because the runtime is running.
        eventually("a start succeeds", || rt::Builder::new().workers(2).start().is_ok());
        assert!(first.join().unwrap().is_err());
        assert_eq!((rt::metrics().workers, park_on(task::spawn(async { 3 }))), (2, 3));
        drop(release);
        eventually("the task is dropped", || rt::metrics().tasks_alive == 0);
    });
}

/// Regression: a task that called `start` at the beginning of a shutdown waited for the shutdown,
/// which waited for the task.
#[test]
fn start_in_a_task_does_not_wait_for_a_shutdown_that_begins() {
    child("start_in_a_task_does_not_wait_for_a_shutdown_that_begins", || {
        let builder = rt::Builder::new().workers(4).poller_shards(1).thread_name("starts");
        for _ in 0..300 {
            builder.clone().start().unwrap();
            let (begun, begins) = mpsc::channel();
            for _ in 0..4 {
                let (begun, builder) = (begun.clone(), builder.clone());
                drop(task::spawn(async move {
                    begun.send(()).unwrap();
                    while builder.clone().start().unwrap_err().kind() == std::io::ErrorKind::AlreadyExists {}
                }));
            }
            begins.recv_timeout(common::BOUND).unwrap();
            rt::shutdown(LONG).unwrap();
        }
    });
}

/// A shutdown finds no waker of a task that is in its first poll, or in the next poll after a
/// yield. The task must not wait forever after this poll.
#[test]
fn first_poll_that_outlasts_the_shutdown_is_the_last() {
    with_workers("first_poll_that_outlasts_the_shutdown_is_the_last", || {
        for yields in [0, 1] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let count = OnDrop({
                let dropped = dropped.clone();
                move || _ = dropped.fetch_add(1, Ordering::SeqCst)
            });
            let (begun, begins) = mpsc::channel();
            let (release, wait) = mpsc::channel::<()>();
            drop(task::spawn(async move {
                let _count = count;
                for _ in 0..yields {
                    task::yield_now().await;
                }
                begun.send(()).unwrap();
                let _ = wait.recv();
                pending::<()>().await;
            }));
            begins.recv_timeout(common::BOUND).unwrap();
            assert_eq!(rt::shutdown(SHORT).unwrap_err().tasks, 1);
            drop(release);
            rt::shutdown(LONG).unwrap();
            assert_eq!((dropped.load(Ordering::SeqCst), rt::metrics().tasks_alive), (1, 0));
        }
    });
}

/// Wakers of other executors occupy all threads on which the shutdown calls wakers.
#[test]
fn blocked_wakers_do_not_keep_tasks_alive() {
    struct Blocks(Mutex<mpsc::Receiver<()>>);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            let _ = self.0.lock().unwrap().recv();
        }
    }
    with_workers("blocked_wakers_do_not_keep_tasks_alive", || {
        let (release, wait) = mpsc::channel::<()>();
        let waker = Waker::from(Arc::new(Blocks(Mutex::new(wait))));
        drop(task::spawn(pending::<()>()));
        let mut sleeps = Vec::new();
        for _ in 0..70 {
            let mut sleep = Box::pin(task::sleep(Duration::from_secs(3600)));
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            sleeps.push(sleep);
        }
        let still = rt::shutdown(AMPLE).unwrap_err();
        assert_eq!((still.tasks, rt::metrics().tasks_alive), (0, 0), "{still}");
        drop((release, sleeps));
    });
}

/// Tasks that other threads spawn or wake during the shutdown are dropped, and cause no error.
#[test]
fn shutdown_succeeds_while_other_threads_spawn_and_wake_tasks() {
    use std::sync::atomic::AtomicBool;

    with_workers("shutdown_succeeds_while_other_threads_spawn_and_wake_tasks", || {
        let stop = Arc::new(AtomicBool::new(false));
        let spawner = |wakes: bool| {
            let stop = stop.clone();
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let (sender, receiver) = futures::channel::oneshot::channel::<()>();
                    drop(task::spawn(receiver));
                    if wakes {
                        let _ = sender.send(());
                    }
                    thread::sleep(Duration::from_micros(50));
                }
            }
        };
        let others: Vec<_> = [false, true, true].map(|wakes| thread::spawn(spawner(wakes))).into();
        for _ in 0..50 {
            thread::sleep(Duration::from_millis(2));
            rt::shutdown(LONG).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|other| other.join().unwrap());
        rt::shutdown(LONG).unwrap();
        assert_eq!(rt::metrics().tasks_alive, 0);
    });
}

/// Crates for channels and events call wakers under a lock, which their futures also take when they
/// are dropped. If such a waker dropped the future of its task, its thread would wait forever for
/// the lock that it holds itself.
#[test]
fn waker_drops_no_task_during_a_shutdown() {
    use std::cell::Cell;
    use std::sync::atomic::AtomicBool;

    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    static DROPPED_BY_WAKER: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static WAKES: Cell<bool> = const { Cell::new(false) });

    #[derive(Clone, Default)]
    struct Event(Arc<Mutex<Option<Waker>>>);
    impl Event {
        fn notify(&self) {
            let waker = self.0.lock().unwrap();
            WAKES.set(true);
            waker.iter().for_each(Waker::wake_by_ref);
            WAKES.set(false);
        }
    }
    impl Future for Event {
        type Output = ();
        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            *self.0.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    with_workers("waker_drops_no_task_during_a_shutdown", || {
        let far = || Box::pin(task::sleep(Duration::from_secs(3600)));
        for _ in 0..3 {
            let (event, stop) = (Event::default(), Arc::new(AtomicBool::new(false)));
            // The shutdown takes the wakers of these sleeps before it finds the task. Another
            // thread wakes the task in the meantime.
            let mut sleeps: Vec<_> = (0..100_000).map(|_| far()).collect();
            sleeps.iter_mut().for_each(|sleep| assert!(poll_now(sleep).is_pending()));
            let guard = OnDrop(|| {
                DROPPED.fetch_add(1, Ordering::SeqCst);
                DROPPED_BY_WAKER.fetch_add(usize::from(WAKES.get()), Ordering::SeqCst);
            });
            let own = event.clone();
            drop(task::spawn(async move {
                let _guard = guard;
                own.await;
            }));
            eventually("the task waits", || event.0.lock().unwrap().is_some());
            let notifier = thread::spawn({
                let stop = stop.clone();
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        event.notify();
                    }
                }
            });
            rt::shutdown(LONG).unwrap();
            stop.store(true, Ordering::Relaxed);
            notifier.join().unwrap();
            assert_eq!(DROPPED_BY_WAKER.load(Ordering::SeqCst), 0);
            assert_eq!(DROPPED.swap(0, Ordering::SeqCst), 1);
        }
    });
}
