//! Close × {read, write, accept, connect, deadline, drop} × {same thread, other thread} × {task,
//! block_on, another executor}: 36 cells.
//!
//! An operation waits until the same or another thread closes its socket. The operation must end
//! with the closed error, and the descriptor must be closed, both within 1 s, and within 10 ms if
//! `NETPOLL_TIMED` is 1, because the machine is then idle (`ci/faults.sh` sets it). Each cell runs
//! [`ROUNDS`] times, and its median counts. A slow cell is tried up to [`TRIES`] times, because a
//! close that depends on a clock is slow each time, whereas a busy machine is not.
//!
//! The operation of `deadline` is a read with a deadline in an hour. The operation of `drop` is a
//! read beside other operations of the socket that were dropped or are not polled again. The
//! operation of `connect` is a dial, which is dropped, because it has no socket that could be
//! closed.

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use black_hole::BlackHole;
use common::{eventually, fill, listener, pair, park_on, poll_once};
use netpoll::net::{TcpListener, TcpStream, is_closed, pipe};
use netpoll::{rt, task};

const OPERATIONS: [&str; 6] = ["read", "write", "accept", "connect", "deadline", "drop"];
const EXECUTORS: [&str; 3] = ["task", "block_on", "another executor"];
const ROUNDS: usize = 5;
const TRIES: usize = 4;

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;
type Closing = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> + Send>;

/// A request to drop a dial.
#[derive(Default)]
struct GiveUp {
    set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl GiveUp {
    fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        let waker = self.waker.lock().unwrap().take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Returns an operation that waits when it is polled, and the close of its socket or, for a dial,
/// the request to drop it. The operation keeps its resources alive.
async fn prepare(operation: &str) -> (Waiting, Closing) {
    match operation {
        "read" | "deadline" | "drop" => {
            let (client, server) = pair().await;
            if operation == "deadline" {
                client.set_deadline(Instant::now() + Duration::from_secs(3600)).unwrap();
            }
            let (waiting, drops) = (client.clone(), operation == "drop");
            (
                Box::pin(async move {
                    let _server = server;
                    let mut buf = [0; 1];
                    if drops {
                        // Neither a dropped operation nor one that is not polled again prevents the
                        // close.
                        assert!(poll_once(&mut waiting.read(&mut [0; 1])).await.is_pending());
                        let mut idle = waiting.write_all(&[0; 1]);
                        let _ = poll_once(&mut idle).await;
                        let mut forgotten = waiting.peer_closed();
                        assert!(poll_once(&mut forgotten).await.is_pending());
                        let read = waiting.read(&mut buf).await;
                        drop((idle, forgotten));
                        return read.map(drop);
                    }
                    waiting.read(&mut buf).await.map(drop)
                }),
                Box::new(move || Box::pin(client.force_close())),
            )
        }
        "write" => {
            let (client, server) = pair().await;
            fill(&client).await;
            let waiting = client.clone();
            (
                Box::pin(async move {
                    let _server = server;
                    waiting.write_all(&vec![0; 16 << 20]).await
                }),
                Box::new(move || Box::pin(client.force_close())),
            )
        }
        "accept" => {
            let listener: Arc<TcpListener> = Arc::new(listener().await);
            let waiting = listener.clone();
            (
                Box::pin(async move { waiting.accept().await.map(drop) }),
                Box::new(move || Box::pin(async move { listener.close().await })),
            )
        }
        _ => {
            let hole = BlackHole::new();
            let give_up = Arc::new(GiveUp::default());
            let seen = give_up.clone();
            (
                Box::pin(async move {
                    // Without this line, the future would contain only the field `addr`.
                    let hole = hole;
                    let mut dial = Box::pin(TcpStream::connect(hole.addr));
                    let dialled = poll_fn(|cx| {
                        *seen.waker.lock().unwrap() = Some(cx.waker().clone());
                        if seen.set.load(Ordering::SeqCst) {
                            return Poll::Ready(None);
                        }
                        dial.as_mut().poll(cx).map(Some)
                    })
                    .await;
                    drop(dial);
                    match dialled {
                        // A dropped dial returns no error, so the closed error of a pipe takes its
                        // place.
                        None => Err(pipe_closed().await),
                        Some(result) => panic!("the queue has room: {result:?}"),
                    }
                }),
                Box::new(move || {
                    give_up.set();
                    Box::pin(async { Ok(()) })
                }),
            )
        }
    }
}

/// Returns the closed error of an end of a pipe.
async fn pipe_closed() -> io::Error {
    let (one, _other) = pipe().unwrap();
    one.force_close().await.unwrap();
    one.read(&mut [0; 1]).await.unwrap_err()
}

fn execute<T: Send + 'static>(executor: &str, future: impl Future<Output = T> + Send + 'static) -> T {
    match executor {
        "task" => task::block_on(task::spawn(future)),
        "block_on" => task::block_on(future),
        _ => park_on(future),
    }
}

/// Returns the time from the close until the waiter has its error and the close has completed. Its
/// completion means that the descriptor is closed.
fn play(operation: &'static str, executor: &'static str, same_thread: bool) -> Duration {
    let descriptors = rt::metrics().descriptors;
    let (mut waiting, close) = execute(executor, prepare(operation));
    let (result, begin) = if same_thread {
        execute(executor, async move {
            for _ in 0..3 {
                assert!(poll_once(&mut waiting).await.is_pending(), "{operation} waits");
                task::yield_now().await;
            }
            let begin = Instant::now();
            close().await.unwrap();
            let result = waiting.await;
            (result, begin)
        })
    } else {
        let (ended, wait) = mpsc::channel();
        let (pending, is_pending) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let result = execute(executor, async move {
                assert!(poll_once(&mut waiting).await.is_pending(), "{operation} waits");
                pending.send(()).unwrap();
                waiting.await
            });
            ended.send(result).unwrap();
        });
        is_pending.recv().unwrap();
        // After this pause, the waiter usually sleeps.
        std::thread::sleep(Duration::from_millis(2));
        let begin = Instant::now();
        park_on(close()).unwrap();
        let result = wait.recv_timeout(common::BOUND).expect("the waiter ends");
        waiter.join().unwrap();
        (result, begin)
    };
    let took = begin.elapsed();
    let error = result.unwrap_err();
    assert!(is_closed(&error), "{operation}, {executor}: {error}");
    eventually("the descriptors are closed", || rt::metrics().descriptors == descriptors);
    took
}

#[test]
fn every_way_to_close_ends_every_wait_in_time() {
    let output = common::child_with("every_way_to_close_ends_every_wait_in_time", &[], || {
        let limit = Duration::from_millis(if common::is_timed() { 10 } else { 1000 });
        let mut slow = Vec::new();
        let (mut cells, mut longest) = (0, Duration::ZERO);
        for operation in OPERATIONS {
            for executor in EXECUTORS {
                for same_thread in [true, false] {
                    let mut times = Vec::new();
                    for _ in 0..TRIES {
                        times = (0..ROUNDS).map(|_| play(operation, executor, same_thread)).collect();
                        times.sort();
                        if times[ROUNDS / 2] <= limit {
                            break;
                        }
                    }
                    let median = times[ROUNDS / 2];
                    println!("{operation}, {executor}, same thread: {same_thread}: {median:.1?} of {times:.1?}");
                    longest = longest.max(median);
                    cells += 1;
                    if median > limit {
                        slow.push(format!("{operation}, {executor}, same thread: {same_thread}: {times:?}"));
                    }
                }
            }
        }
        assert_eq!(cells, 36);
        println!("{cells} cells, {longest:.1?} at most");
        assert!(slow.is_empty(), "\n{}", slow.join("\n"));
    });
    common::print_lines(output, " cells, ");
}
