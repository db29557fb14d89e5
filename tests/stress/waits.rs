//! Actions that occupy threads: nested `block_on`, threads in `block_on`, tasks that block on a
//! channel or a lock, actors that block their own threads, computations before I/O, and crowds that
//! yield. However a task occupies its thread, timers and sockets make progress, and so do other
//! tasks as long as there are spare workers. Root futures make progress too, unless threads in
//! `block_on` run tasks.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::UnixStream;
use netpoll::task;

use crate::actors::{Peer, park_on, peer, spin};
use crate::faults::actor_thread;
use crate::oracle::{self, Blocking, Span, Token, fail, watch, watch_for};
use crate::program::{ComputeOp, CrowdOf, GuardWait, Party, Preempt, Sender, WokenBy};
use crate::words::{Few, Many, Ms};

/// Nests calls of `block_on` in a task. The innermost call waits. Afterwards the task blocks until
/// a task that it spawned has run.
pub async fn nested(span: Span, depth: Few, ms: Ms, woken: WokenBy) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("{} nested block_on, woken by {woken:?} after {length:?}", depth.0));
    let token = Token::new("nested");
    let handle = task::spawn(async move {
        let _token = token;
        let _blocking = Blocking::begin();
        within(depth.0, &mut || task::block_on(wait_for(span, length, woken)));
        let (send, receive) = mpsc::channel();
        drop(task::spawn(async move { send.send(7) }));
        let got = receive.recv();
        span.check(got == Ok(7), || format!("a task gets {got:?} from the one that it spawned"));
    });
    handle.await;
}

/// Runs `last`, which calls `block_on`, within `depth - 1` other calls of `block_on`.
fn within(depth: u64, last: &mut dyn FnMut()) {
    match depth {
        0 | 1 => last(),
        _ => task::block_on(async { within(depth - 1, last) }),
    }
}

async fn wait_for(span: Span, length: Duration, woken: WokenBy) {
    match woken {
        WokenBy::Timer => task::sleep(length).await,
        WokenBy::Task => {
            let (send, receive) = oneshot::channel();
            drop(task::spawn(async move {
                task::sleep(length).await;
                let _ = send.send(());
            }));
            span.ok(receive.await, "the message of a task");
        }
        WokenBy::Foreign => {
            let (send, receive) = oneshot::channel();
            drop(actor_thread("wakes", move || {
                thread::sleep(length);
                let _ = send.send(());
            }));
            span.ok(receive.await, "the message of a thread");
        }
        WokenBy::Socket => {
            let Some((one, other)) = span.ok(UnixStream::pair(), "a pair") else { return };
            drop(actor_thread("writes", move || {
                thread::sleep(length);
                span.ok(park_on(other.write_all(b"x")), "a write");
            }));
            let read = one.read(&mut [0; 8]).await;
            span.check(matches!(read, Ok(1)), || format!("a read in a nested block_on gives {read:?}"));
        }
    }
}

/// Runs many tasks, each of which calls `block_on`.
pub async fn crowd(span: Span, tasks: Many, of: CrowdOf, ms: Ms) {
    let length = ms.duration();
    let rounds = 1 + tasks.0 / (oracle::config().spares + oracle::config().workers).max(1);
    let _watch = watch_for(length * rounds as u32, format!("{} tasks in block_on of {of:?}, {length:?} each", tasks.0));
    let _blocking = Blocking::begin();
    let handles: Vec<_> = (0..tasks.0)
        .map(|_| {
            let token = Token::new("in a crowd");
            task::spawn(async move {
                let _token = token;
                task::block_on(async {
                    match of {
                        CrowdOf::Sleep => task::sleep(length).await,
                        CrowdOf::Yield => task::yield_now().await,
                        CrowdOf::Join => task::spawn(task::sleep(length)).await,
                        CrowdOf::Read => wait_for(span, length, WokenBy::Socket).await,
                    }
                    7
                })
            })
        })
        .collect();
    for handle in handles {
        let result = handle.await;
        span.check(result == 7, || format!("a nested block_on gives {result}"));
    }
}

/// Runs at most 40 threads in `block_on`. Each has a timer and a connection to a task.
pub async fn roots(span: Span, threads: Many, ms: Ms) {
    let length = ms.duration();
    let threads = threads.0.min(40);
    let _watch = watch_for(length, format!("{threads} roots with a connection each"));
    let results: Vec<_> = (0..threads)
        .map(|_| {
            peer(span, Party::Root, async move {
                let Some((one, other)) = span.ok(UnixStream::pair(), "a pair") else { return };
                let token = Token::new("answers a root");
                let answers = task::spawn(async move {
                    let _token = token;
                    let mut buf = [0; 8];
                    while let Ok(count @ 1..) = other.read(&mut buf).await {
                        span.ok(other.write_all(&buf[..count]).await, "an answer");
                    }
                });
                for _ in 0..3 {
                    task::sleep(length / 3).await;
                    span.ok(one.write_all(b"x").await, "a write");
                    let read = one.read(&mut [0; 8]).await;
                    span.check(matches!(read, Ok(1)), || format!("a root reads {read:?}"));
                }
                drop(one);
                answers.await;
            })
        })
        .collect();
    futures::future::join_all(results.into_iter().map(Peer::ends)).await;
}

/// Runs tasks that block their threads until a message is sent.
pub async fn recv(span: Span, tasks: Few, sender: Sender, ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("{} tasks that block until {sender:?} sends after {length:?}", tasks.0));
    let _blocking = Blocking::begin();
    let (mut senders, mut handles) = (Vec::new(), Vec::new());
    for _ in 0..tasks.0 {
        let (send, receive) = mpsc::channel::<u64>();
        senders.push(send);
        let token = Token::new("blocked");
        handles.push(task::spawn(async move {
            let _token = token;
            receive.recv()
        }));
    }
    let send_all = move || senders.iter().for_each(|send| _ = send.send(7));
    match sender {
        Sender::Own => {
            task::sleep(length).await;
            send_all();
        }
        Sender::Task => drop(task::spawn(async move {
            task::sleep(length).await;
            send_all();
        })),
        Sender::Foreign => drop(actor_thread("sends", move || {
            oracle::keep(length, true);
            send_all();
        })),
        Sender::Pool => drop(task::spawn_blocking(move || {
            oracle::keep(length, true);
            send_all();
        })),
    }
    for handle in handles {
        let got = handle.await;
        span.check(got == Ok(7), || format!("a task that blocks on a channel gets {got:?}"));
    }
}

/// Blocks the actor's own thread, without using the runtime in the meantime.
pub fn pause(ms: Ms) {
    let _blocking = Blocking::begin();
    thread::sleep(ms.duration());
}

/// Blocks the actor's own thread, and then spawns a task in the same turn.
pub async fn stall(ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("a task that is spawned after {length:?} in the same turn"));
    {
        let _blocking = Blocking::begin();
        thread::sleep(length);
    }
    // The new task belongs to the runtime that is current now.
    let span = Span::begin();
    let token = Token::new("after a stall");
    let spawned = AssertUnwindSafe(task::spawn(async move {
        let _token = token;
        7
    }));
    let result = spawned.catch_unwind().await;
    span.check(matches!(result, Ok(7)), || "a task that was spawned after a stall was dropped".to_owned());
}

/// Runs a task that blocks its thread and then sends a message to another task, which was spawned
/// later and waits for the message.
pub async fn bridge(ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("a task woken by one that has blocked its thread for {length:?}"));
    let (go, goes) = mpsc::channel::<()>();
    let (send, receive) = oneshot::channel();
    let token = Token::new("bridge");
    let before = Span::begin();
    let (at_it, is_at_it) = oneshot::channel();
    let _blocking = Blocking::begin();
    drop(task::spawn(async move {
        let _token = token;
        let _ = at_it.send(());
        let _ = goes.recv();
        let _ = send.send(7);
        spin(Duration::from_millis(5));
    }));
    if is_at_it.await.is_err() {
        return before.check(false, || "a task was dropped before it began".to_owned());
    }
    task::sleep(length).await;
    let span = Span::begin();
    let waiting = task::spawn(receive);
    task::yield_now().await;
    let _ = go.send(());
    let result = AssertUnwindSafe(waiting).catch_unwind().await;
    span.check(matches!(result, Ok(Ok(7))), || "a task woken by one from before a restart was dropped".to_owned());
}

/// Runs a root future that repeatedly holds a lock across an await while a task takes the same
/// lock.
#[allow(clippy::await_holding_lock)]
pub async fn guard(span: Span, rounds: Many, wait: GuardWait) {
    let (done, is_done) = oneshot::channel();
    let rounds = rounds.0.min(200);
    drop(actor_thread("guards", move || {
        let _watch = watch(format!("a root that holds a lock across an await ({wait:?}), {rounds} times"));
        let _blocking = Blocking::begin();
        let lock = Arc::new(Mutex::new(0));
        task::block_on(async {
            let Some((one, other)) = span.ok(UnixStream::pair(), "a pair") else { return };
            let (go, goes) = mpsc::channel::<()>();
            let writer = actor_thread("writes", move || {
                while goes.recv().is_ok() {
                    span.ok(park_on(other.write_all(b"x")), "a write");
                }
            });
            for _ in 0..rounds {
                let (token, shared) = (Token::new("locks"), lock.clone());
                let taker = task::spawn(async move {
                    let _token = token;
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                });
                {
                    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
                    match wait {
                        GuardWait::Yield => task::yield_now().await,
                        GuardWait::Sleep => task::sleep(Duration::from_millis(1)).await,
                        GuardWait::Read => {
                            let _ = go.send(());
                            span.ok(one.read(&mut [0; 4]).await, "a read");
                        }
                    }
                    drop(guard);
                }
                taker.await;
            }
            drop(go);
            if writer.join().is_err() {
                fail("a writer panicked");
            }
        });
        let count = *lock.lock().unwrap_or_else(PoisonError::into_inner);
        span.check(count == rounds, || format!("{count} of {rounds} tasks had the lock"));
        let _ = done.send(());
    }));
    span.ok(is_done.await, "a root that holds a lock");
}

/// Computes for `length` before each poll of `future`. Returns the output and the number of polls.
async fn computing<F: Future>(length: Duration, future: F) -> (F::Output, u32) {
    let (mut future, mut polls) = (pin!(future), 0);
    let output = poll_fn(|cx| {
        polls += 1;
        spin(length);
        future.as_mut().poll(cx)
    })
    .await;
    (output, polls)
}

/// The maximum number of polls of an operation, however long its task computes before each poll.
const POLLS_MAX: u32 = 5;

/// Runs a task that computes in each of its turns, and checks that its operation takes at most
/// [`POLLS_MAX`] polls.
pub async fn compute(span: Span, ms: Ms, op: ComputeOp) {
    let length = Duration::from_millis(12 + ms.0 % 50);
    let _watch = watch_for(length * 20, format!("a task that computes {length:?} before each {op:?}"));
    let _blocking = Blocking::begin();
    let token = Token::new("computes");
    let polls = task::spawn(async move {
        let _token = token;
        let mut most = 0;
        for _ in 0..2 {
            most = most.max(computed(span, length, op).await.unwrap_or(0));
        }
        most
    })
    .await;
    // A wait adds a poll, and stops of the thread may add further polls.
    span.check(polls <= POLLS_MAX, || format!("{op:?} took {polls} polls of {length:?}"));
}

async fn computed(span: Span, length: Duration, op: ComputeOp) -> Option<u32> {
    let polls = match op {
        ComputeOp::Read | ComputeOp::Write | ComputeOp::Joined | ComputeOp::Accept => {
            let listener = span.ok(TcpListener::bind("127.0.0.1:0").await, "a listener")?;
            let address = span.ok(listener.local_addr(), "an address")?;
            let client = span.ok(TcpStream::connect(address).await, "a dial")?;
            if op == ComputeOp::Accept {
                let (accepted, polls) = computing(length, listener.accept()).await;
                span.ok(accepted, "an accept")?;
                return Some(polls);
            }
            let (server, _) = span.ok(listener.accept().await, "an accept")?;
            span.ok(client.write_all(b"abc").await, "a write")?;
            span.ok(server.readable().await, "a wait for data")?;
            let mut buf = [0; 8];
            match op {
                ComputeOp::Write => {
                    let (wrote, polls) = computing(length, server.write(b"abc")).await;
                    span.ok(wrote, "a write")?;
                    polls
                }
                ComputeOp::Joined => {
                    let busy = async {
                        for _ in 0..8 {
                            spin(length);
                            task::yield_now().await;
                        }
                    };
                    let mut polls = 0;
                    let mut read = pin!(server.read(&mut buf));
                    let counted = poll_fn(|cx| {
                        polls += 1;
                        read.as_mut().poll(cx)
                    });
                    let (read, ()) = futures::join!(counted, busy);
                    span.ok(read, "a read")?;
                    polls
                }
                _ => {
                    let (read, polls) = computing(length, server.read(&mut buf)).await;
                    span.check(matches!(read, Ok(3)), || format!("a read gives {read:?}"));
                    polls
                }
            }
        }
        ComputeOp::SendTo | ComputeOp::RecvFrom => {
            let one = span.ok(UdpSocket::bind("127.0.0.1:0").await, "a socket")?;
            let to = span.ok(one.local_addr(), "an address")?;
            let (sent, polls) = computing(length, one.send_to(b"abc", to)).await;
            span.ok(sent, "a send")?;
            if op == ComputeOp::SendTo {
                return Some(polls);
            }
            span.ok(one.readable().await, "a wait for data")?;
            let mut buf = [0; 8];
            let (got, polls) = computing(length, one.recv_from(&mut buf)).await;
            span.ok(got, "a receive")?;
            polls
        }
        ComputeOp::UnixRead => {
            let (one, other) = span.ok(UnixStream::pair(), "a pair")?;
            span.ok(other.write_all(b"abc").await, "a write")?;
            let mut buf = [0; 8];
            let (read, polls) = computing(length, one.read(&mut buf)).await;
            span.ok(read, "a read")?;
            polls
        }
        ComputeOp::Sleep => computing(length, task::sleep(Duration::from_millis(1))).await.1,
    };
    Some(polls)
}

/// Sets a flag when it is dropped, so that the tasks or threads that check the flag end, whether
/// the action succeeds or fails.
pub struct Stops(pub Arc<AtomicBool>);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The maximum number of turns that a task of a yielding crowd gets, on average, during one of the
/// two hops of the median echo.
const ROUNDS_MAX: u64 = 5;

/// Runs tasks that yield repeatedly during echoes between two other tasks.
pub async fn yielding(span: Span, tasks: Many, echoes: Few) {
    let echoes = echoes.0 * 8;
    let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let crowd: Vec<_> = (0..tasks.0)
        .map(|_| {
            let (stop, turns, token) = (stop.clone(), turns.clone(), Token::new("yields"));
            task::spawn(async move {
                let _token = token;
                while !stop.load(SeqCst) {
                    turns.fetch_add(1, SeqCst);
                    spin(Duration::from_micros(3));
                    task::yield_now().await;
                }
            })
        })
        .collect();
    let stops = Stops(stop);
    let counter = turns.clone();
    let echo = task::spawn(async move {
        let Some((one, other)) = span.ok(UnixStream::pair(), "a pair") else { return Vec::new() };
        let server = task::spawn(async move {
            let mut buf = [0; 8];
            while let Ok(count @ 1..) = other.read(&mut buf).await {
                if other.write_all(&buf[..count]).await.is_err() {
                    return;
                }
            }
        });
        let mut rounds = Vec::new();
        for _ in 0..echoes {
            let _watch = watch(format!("an echo during {} tasks that yield", tasks.0));
            let before = counter.load(SeqCst);
            span.ok(one.write_all(b"x").await, "a write");
            let read = one.read(&mut [0; 8]).await;
            span.check(matches!(read, Ok(1)), || format!("an echo among tasks that yield gives {read:?}"));
            rounds.push((counter.load(SeqCst) - before) / tasks.0);
        }
        drop(one);
        server.await;
        rounds
    });
    let mut rounds = echo.await;
    let _watch = watch(format!("the end of {} tasks that yield", tasks.0));
    drop(stops);
    for handle in crowd {
        handle.await;
    }
    rounds.sort_unstable();
    let config = oracle::config();
    // If other threads compete with the crowd, the cause of a delay is unknown.
    let is_alone = config.workers == 1 && config.preempt == Preempt::Off && oracle::actors() == 1;
    if let Some(&median) = rounds.get(rounds.len() / 2)
        && is_alone
        && tasks.0 >= 64
    {
        span.check(median <= 2 * ROUNDS_MAX, || {
            format!("with {} tasks that yield, an echo took {median} turns of each", tasks.0)
        });
    }
}
