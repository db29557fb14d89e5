//! Wakers of other executors, and a tracing subscriber, that block the thread that calls them. Each
//! test runs in its own process.

mod common;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use common::{BOUND, child, eventually, park_on};
use netpoll::os::unix::net::UnixStream;
use netpoll::{rt, task};

/// A waker that blocks until the sender is dropped.
struct Blocks(Mutex<mpsc::Receiver<()>>);

impl Blocks {
    fn waker() -> (mpsc::Sender<()>, Waker) {
        let (release, wait) = mpsc::channel();
        (release, Waker::from(Arc::new(Blocks(Mutex::new(wait)))))
    }
}

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().unwrap().recv();
    }
}

#[test]
fn close_wakes_the_waiters_behind_a_blocking_waker() {
    child("close_wakes_the_waiters_behind_a_blocking_waker", || {
        for in_task in [false, true] {
            let (one, _other) = UnixStream::pair().unwrap();
            let (release, waker) = Blocks::waker();
            let first = one.clone();
            let mut blocked = Box::pin(first.readable());
            assert!(blocked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            // The next waiter is the future of a `block_on`.
            let second = one.clone();
            let (waits, is_waiting) = mpsc::channel();
            let root = thread::spawn(move || {
                task::block_on(async {
                    let mut readable = Box::pin(second.readable());
                    poll_fn(|cx| {
                        let polled = readable.as_mut().poll(cx);
                        let _ = waits.send(());
                        polled
                    })
                    .await
                })
            });
            is_waiting.recv_timeout(BOUND).unwrap();
            let closer = one.clone();
            let close = move || drop(closer.force_close());
            let closing = if in_task {
                drop(task::spawn(async move { close() }));
                None
            } else {
                Some(thread::spawn(close))
            };
            eventually("the other waiter is woken", || root.is_finished());
            assert!(root.join().unwrap().is_err());
            drop(release);
            if let Some(closing) = closing {
                closing.join().unwrap();
            }
        }
    });
}

/// The waker of an executor that polls its future in `wake`. The call blocks after the poll.
struct PollsAndBlocks {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    begun: Mutex<mpsc::Sender<()>>,
    wait: Mutex<mpsc::Receiver<()>>,
}

impl Wake for PollsAndBlocks {
    fn wake(self: Arc<Self>) {
        let mut future = self.future.lock().unwrap().take().expect("one wake-up");
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        drop(future);
        self.begun.lock().unwrap().send(()).unwrap();
        let _ = self.wait.lock().unwrap().recv();
    }
}

/// The record of a task is freed with its future. Afterwards the waker of the task's handle drops
/// the handle and blocks the worker. Regression: the worker was never found stuck.
#[test]
fn tasks_run_while_the_waker_of_a_handle_blocks_the_only_worker() {
    child("tasks_run_while_the_waker_of_a_handle_blocks_the_only_worker", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (go, goes) = futures::channel::oneshot::channel::<()>();
        let other = task::spawn(goes);
        eventually("the other task waits", || rt::inspect().tasks.iter().all(|task| task.polls() == 1));
        let (end, ends) = mpsc::channel::<()>();
        let handle = task::spawn(async move {
            let (one, _other) = UnixStream::pair().unwrap();
            for _ in 0..3 {
                one.write_all(b"x").await.unwrap();
            }
            let _ = ends.recv();
        });
        let (begun, begins) = mpsc::channel();
        let (release, wait) = mpsc::channel::<()>();
        let waker =
            Arc::new(PollsAndBlocks { future: Mutex::new(None), begun: Mutex::new(begun), wait: Mutex::new(wait) });
        let mut future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(handle);
        let polled = future.as_mut().poll(&mut Context::from_waker(&Waker::from(waker.clone())));
        assert_eq!(polled, Poll::Pending);
        *waker.future.lock().unwrap() = Some(future);
        drop(end);
        begins.recv_timeout(BOUND).unwrap();
        go.send(()).unwrap();
        park_on(netpoll::future::timeout(BOUND, other)).expect("another worker runs the task").unwrap();
        drop(release);
    });
}

/// The runtime reports spare workers to the subscriber.
#[cfg(feature = "tracing")]
#[test]
fn tasks_run_while_a_subscriber_blocks_the_report_of_a_spare_worker() {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static WAIT: OnceLock<Mutex<mpsc::Receiver<()>>> = OnceLock::new();
    struct BlocksOnce(AtomicBool);
    impl tracing::Subscriber for BlocksOnce {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "netpoll::worker" && metadata.is_event()
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            if !self.0.swap(true, Ordering::SeqCst) {
                let _ = WAIT.get().unwrap().lock().unwrap().recv();
            }
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    child("tasks_run_while_a_subscriber_blocks_the_report_of_a_spare_worker", || {
        let (release, wait) = mpsc::channel();
        assert!(WAIT.set(Mutex::new(wait)).is_ok());
        tracing::subscriber::set_global_default(BlocksOnce(AtomicBool::new(false))).unwrap();
        rt::Builder::new().workers(1).start().unwrap();
        let (end, ends) = mpsc::channel::<()>();
        let ends = Arc::new(Mutex::new(ends));
        for _ in 0..2 {
            let (begun, begins) = mpsc::channel();
            let ends = ends.clone();
            drop(task::spawn(async move {
                begun.send(()).unwrap();
                let _ = ends.lock().unwrap().recv();
            }));
            begins.recv_timeout(BOUND).unwrap();
        }
        assert_eq!(park_on(netpoll::future::timeout(BOUND, task::spawn(async { 5 }))).unwrap(), 5);
        drop((end, release));
    });
}
