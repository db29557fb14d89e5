//! Actions that use deadlines and reused slots. They check that a deadline is never early and stays
//! until it is moved, and that a closed socket leaves nothing in its slot for the next owner.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::select;
use netpoll::net::{TcpListener, UdpSocket, is_closed, is_timeout};
use netpoll::task;

use crate::actors::{peer, with_peer};
use crate::conn::{Conn, fill};
use crate::oracle::{Span, Token, watch, watch_for};
use crate::program::{DeadlineHow, Party, Stream, WaitOp};
use crate::timers::not_early;
use crate::waits::Stops;
use crate::words::{Many, Ms};

/// Opens `count` connections, one after another, and reads from both ends of each until the reads
/// time out.
pub async fn has_timeouts(span: Span, stream: Stream, count: usize) {
    for _ in 0..count {
        let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { return };
        for conn in [&one, &other] {
            let length = Duration::from_millis(15);
            let _watch = watch("a read with a timeout on a slot that was used before");
            span.ok(conn.set_read_timeout(Some(length)), "a timeout");
            let start = Instant::now();
            let read = conn.read(&mut [0; 4]).await;
            times_out(span, start, length, read);
        }
    }
}

/// Checks that the result is a timeout that is not early.
fn times_out<T: std::fmt::Debug>(span: Span, start: Instant, length: Duration, result: io::Result<T>) {
    match result {
        Err(error) if is_timeout(&error) => not_early(start, length, "a timeout"),
        other => span.check(false, || format!("an operation that only a timeout can end returned {other:?}")),
    }
}

/// Runs `op` with a deadline that is set as `how` says, and checks that the operation times out,
/// but not early. With [`DeadlineHow::Cleared`], the operation may also wait until the action ends
/// it.
pub async fn deadline(span: Span, op: WaitOp, how: DeadlineHow, party: Party, ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length * 3, format!("{op:?} with a deadline of {length:?} that is set {how:?}"));
    let Some(waiter) = Waiter::new(span, op).await else { return };
    let waiter = Arc::new(waiter);
    let start = Instant::now();
    let far = start + Duration::from_secs(3600);
    let due = start + length;
    let set = |deadline: Option<Instant>| _ = span.ok(waiter.set_deadline(deadline), "a deadline");
    let other = waiter.clone();
    let later = move |deadline: Option<Instant>| {
        peer(span, party, async move {
            // The deadline is set before the operation waits in some runs, and after in others.
            if length > Duration::from_millis(2) {
                task::sleep(length / 3).await;
            }
            span.ok(other.set_deadline(deadline), "a deadline that is moved");
        })
    };
    let result = match how {
        DeadlineHow::Before => {
            set(Some(due));
            waiter.wait().await
        }
        DeadlineHow::Past => {
            set(Some(start));
            let result = waiter.wait().await;
            return times_out(span, start, Duration::ZERO, result);
        }
        DeadlineHow::During => {
            let Some(result) = with_peer(waiter.wait(), later(Some(due))).await else { return };
            result
        }
        DeadlineHow::Moved => {
            set(Some(start + length / 2 + length / 4));
            let Some(result) = with_peer(waiter.wait(), later(Some(due))).await else { return };
            // The first deadline may have fired before it was moved.
            return times_out(span, start, length / 2 + length / 4, result);
        }
        DeadlineHow::MovedEarlier => {
            set(Some(far));
            let Some(result) = with_peer(waiter.wait(), later(Some(due))).await else { return };
            result
        }
        DeadlineHow::Cleared => {
            set(Some(start + length * 2));
            let cleared = later(None);
            let kept = waiter.clone();
            let wait = async move {
                let (wait, late) = (pin!(kept.wait()), pin!(task::sleep(length * 2 + Duration::from_millis(20))));
                match select(wait, late).await {
                    futures::future::Either::Left((result, _)) => Some(result),
                    futures::future::Either::Right(_) => None,
                }
            };
            // If the deadline was cleared too late, it has fired.
            if let Some(Some(result)) = with_peer(wait, cleared).await {
                times_out(span, start, length * 2, result);
            }
            set(None);
            return;
        }
        DeadlineHow::Relative => {
            span.ok(waiter.set_timeout(Some(length.max(Duration::from_millis(1)))), "a timeout");
            waiter.wait().await
        }
        DeadlineHow::RelativeAgain => {
            let length = length.max(Duration::from_millis(1));
            span.ok(waiter.set_timeout(Some(length)), "a timeout");
            let first = waiter.wait().await;
            times_out(span, start, length, first);
            let again = Instant::now();
            if op == WaitOp::Accept {
                span.ok(waiter.set_timeout(Some(length)), "a deadline");
            }
            let second = waiter.wait().await;
            times_out(span, again, length, second);
            span.ok(waiter.set_timeout(None), "no timeout");
            return;
        }
    };
    times_out(span, start, length, result);
    // The deadline stays until it is moved. A shutdown may have prevented the last move.
    if !matches!(how, DeadlineHow::Relative) && span.is_calm() {
        let again = waiter.wait().await;
        times_out(span, start, length, again);
        set(None);
    }
}

/// An operation that waits for an event that never happens.
struct Waiter {
    op: WaitOp,
    on: Target,
    /// Keeps the peer open while the operation waits.
    _peer: Option<Conn>,
}

enum Target {
    Conn(Conn),
    Listener(TcpListener),
    Socket(UdpSocket),
}

impl Waiter {
    async fn new(span: Span, op: WaitOp) -> Option<Waiter> {
        let (on, peer) = match op {
            WaitOp::Accept => {
                let listener = span.ok(TcpListener::bind("127.0.0.1:0").await, "a listener")?;
                (Target::Listener(listener), None)
            }
            WaitOp::RecvFrom => {
                let socket = span.ok(UdpSocket::bind("127.0.0.1:0").await, "a socket")?;
                (Target::Socket(socket), None)
            }
            _ => {
                let stream = if op == WaitOp::Queued { Stream::Unix } else { Stream::Tcp };
                let (one, other) = span.ok(Conn::pair(stream).await, "a pair")?;
                if matches!(op, WaitOp::Write | WaitOp::Queued) {
                    fill(&one).await;
                }
                (Target::Conn(one), Some(other))
            }
        };
        Some(Waiter { op, on, _peer: peer })
    }

    fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        match (&self.on, self.op) {
            (Target::Conn(conn), WaitOp::Write) => conn.set_write_deadline(deadline),
            (Target::Conn(conn), WaitOp::Queued) => conn.set_deadline(deadline),
            (Target::Conn(conn), _) => conn.set_read_deadline(deadline),
            (Target::Listener(listener), _) => listener.set_deadline(deadline),
            (Target::Socket(socket), _) => socket.set_read_deadline(deadline),
        }
    }

    /// Sets the relative timeout of the operation. A listener has no such timeout, so this sets its
    /// deadline.
    fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match (&self.on, self.op) {
            (Target::Conn(conn), WaitOp::Write | WaitOp::Queued) => conn.set_write_timeout(timeout),
            (Target::Conn(conn), _) => conn.set_read_timeout(timeout),
            (Target::Listener(listener), _) => listener.set_deadline(timeout.map(|timeout| Instant::now() + timeout)),
            (Target::Socket(socket), _) => socket.set_read_timeout(timeout),
        }
    }

    async fn wait(&self) -> io::Result<()> {
        let mut buf = [0; 8];
        // This is more than the socket accepts at once after the kernel has reported room.
        let large = 8 << 20;
        match (&self.on, self.op) {
            (Target::Conn(conn), WaitOp::Readable) => conn.readable().await,
            (Target::Conn(conn), WaitOp::PollRead) => poll_fn(|cx| conn.poll_read(cx, &mut buf)).await.map(drop),
            (Target::Conn(conn), WaitOp::Write) => conn.write_all(&vec![7; large]).await,
            // The second operation waits for the lock that the first one holds.
            (Target::Conn(conn), WaitOp::Queued) => {
                let large = vec![7; large];
                let (first, second) = futures::join!(conn.write_all(&large), conn.write_all(b"x"));
                if first.as_ref().is_err_and(is_timeout) { second } else { first }
            }
            (Target::Conn(conn), _) => conn.read(&mut buf).await.map(drop),
            (Target::Listener(listener), _) => listener.accept().await.map(drop),
            (Target::Socket(socket), _) => socket.recv_from(&mut buf).await.map(drop),
        }
    }
}

/// In each round, begins a read with a timeout while another thread closes the reading end at about
/// the same time. If that end is a socket, the socket of the next round usually gets the same slot.
/// After every 16 rounds and after the last one, also checks timeouts without a close.
pub async fn reuse(span: Span, stream: Stream, rounds: Many, ms: Ms) {
    let length = Duration::from_millis(1 + ms.0 % 20);
    // The end to close, whether it has been closed, and 1 if the closing thread is to close it.
    let shared: Arc<(Mutex<Option<Conn>>, AtomicBool, AtomicU64)> = Arc::default();
    let closer = shared.clone();
    let end = Arc::new(AtomicBool::new(false));
    let stop = end.clone();
    drop(crate::faults::actor_thread("closes", move || {
        let mut delay = 7_u64;
        while !stop.load(SeqCst) {
            if closer.2.load(SeqCst) == 0 {
                thread::yield_now();
                continue;
            }
            closer.2.store(0, SeqCst);
            delay = delay.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for _ in 0..(delay >> 33) % 1500 {
                std::hint::spin_loop();
            }
            if let Some(conn) = closer.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
                conn.close();
            }
            closer.1.store(true, SeqCst);
        }
    }));
    let _stops = Stops(end);
    for round in 0..rounds.0 {
        let _watch =
            watch_for(length, format!("a read of a {stream:?} with a timeout of {length:?} that is closed meanwhile"));
        let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { return };
        let start = Instant::now();
        span.ok(one.set_read_timeout(Some(length)), "a timeout");
        *shared.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(one.clone());
        shared.1.store(false, SeqCst);
        shared.2.store(1, SeqCst);
        let read = one.read(&mut [0; 4]).await;
        match &read {
            Err(error) if is_closed(error) => {}
            Err(error) if is_timeout(error) => not_early(start, length, "a timeout"),
            other => span.check(false, || format!("a read of an end that is closed gives {other:?}")),
        }
        while !shared.1.load(SeqCst) && span.is_calm() {
            task::yield_now().await;
        }
        drop((one, other, _watch));
        if round % 16 == 15 || round + 1 == rounds.0 {
            has_timeouts(span, stream, 1).await;
        }
    }
}

/// A waker that closes one end of a connection when it is dropped.
struct Closes(Mutex<Option<Conn>>, #[expect(dead_code, reason = "the oracle counts tokens")] Token);

impl Wake for Closes {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Closes {
    fn drop(&mut self) {
        if let Some(conn) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            conn.close();
        }
    }
}

/// Reads with a waker whose destructor closes the reading end. The next poll replaces the waker, so
/// the close happens inside that poll. Then checks that timeouts work in the slots that were used.
pub async fn closer(span: Span, stream: Stream, ms: Ms) {
    let _watch = watch_for(ms.duration(), format!("a waker whose destructor closes the reading end of a {stream:?}"));
    let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { return };
    span.ok(one.set_read_timeout(Some(ms.duration() + Duration::from_millis(5))), "a timeout");
    {
        let reader = one.clone();
        let mut buf = [0; 8];
        let mut read = pin!(reader.read(&mut buf));
        let waker = Waker::from(Arc::new(Closes(Mutex::new(Some(one.clone())), Token::new("waker"))));
        let first = read.as_mut().poll(&mut Context::from_waker(&waker));
        drop(waker);
        if first.is_pending() {
            let second = read.await;
            let is_expected = matches!(&second, Err(error) if is_closed(error) || is_timeout(error));
            span.check(is_expected, || format!("a read whose end is closed in its poll gives {second:?}"));
        }
    }
    drop((one, other));
    has_timeouts(span, stream, 2).await;
}
