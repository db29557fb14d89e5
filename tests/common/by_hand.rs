//! Helpers for tests that poll futures by hand: wakers that count, futures that are polled step by
//! step, connections with small buffers, deadlines, checks of errors.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use netpoll::net::{ListenConfig, TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::task;

use super::{becomes, listener, poll_with, read_exact};

/// Returns a loopback connection (the connecting side, the accepting side). Afterwards, the calling
/// task has its whole budget.
pub async fn fresh_pair() -> (TcpStream, TcpStream) {
    connect_to(&listener().await).await
}

/// Connects to `listener`, and returns both sides as [`fresh_pair`] does. Yields before it returns,
/// because an operation of a task whose budget is used up returns Pending once without waiting.
pub async fn connect_to(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("listening")).await.expect("connect");
    let (server, _) = listener.accept().await.expect("accept");
    task::yield_now().await;
    (client, server)
}

/// Returns a connection with small buffers that do not grow, so that few writes fill it.
pub async fn narrow_pair() -> (TcpStream, TcpStream) {
    let config = ListenConfig::new().recv_buffer_size(4096).send_buffer_size(4096);
    let listener = config.listen("127.0.0.1:0").await.expect("listen");
    let (client, server) = connect_to(&listener).await;
    client.set_send_buffer_size(4096).expect("SO_SNDBUF");
    client.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    (client, server)
}

/// Reads through the traits. (A method call on `&TcpStream` would call the inherent method.)
pub async fn trait_read(mut stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    netpoll::io::ReadExt::read(&mut stream, buf).await
}

/// Writes through the traits.
pub async fn trait_write(mut stream: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    netpoll::io::WriteExt::write(&mut stream, buf).await
}

/// Calls the traits' `write_all`, which makes a series of writes.
pub async fn trait_write_all(mut stream: &TcpStream, buf: &[u8]) -> io::Result<()> {
    netpoll::io::WriteExt::write_all(&mut stream, buf).await
}

/// Asserts that a connection transfers a message in each direction, and that no earlier bytes
/// precede it.
pub async fn round_trip(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let message = *b"there and back";
        from.write_all(&message).await.expect("write");
        let mut buf = [0; 14];
        read_exact(to, &mut buf).await.expect("read");
        assert_eq!(buf, message);
    }
}

/// A waker that counts its wake-ups.
#[derive(Debug, Default)]
pub struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Wakes>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    pub fn new() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (wakes.clone(), Waker::from(wakes))
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Waits until each of `wakers` was called.
pub async fn are_woken(wakers: &[(Arc<Wakes>, Waker)]) {
    becomes("all waiters are woken", || wakers.iter().all(|(wakes, _)| wakes.count() > 0)).await;
}

/// Polls `future` immediately, and then each time `waker` was called, until `future` is ready.
pub async fn drive<F: Future + Unpin>(future: &mut F, wakes: &Wakes, waker: &Waker) -> F::Output {
    loop {
        let seen = wakes.count();
        if let Poll::Ready(output) = poll_with(future, waker) {
            return output;
        }
        // The operation may have asked the task to yield.
        task::yield_now().await;
        becomes("the waker is called", || wakes.count() > seen).await;
    }
}

/// Polls `future`, which must wait, and calls `cause`. Then waits until the waker is called, and
/// returns the output of `future`.
pub async fn woken_by<F: Future + Unpin>(mut future: F, cause: impl AsyncFnOnce()) -> F::Output {
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut future, &waker).is_pending(), "the operation must wait");
    cause().await;
    becomes("the operation is woken", || wakes.count() > 0).await;
    drive(&mut future, &wakes, &waker).await
}

/// Polls both futures until both are ready.
pub async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            second = Some(output);
        }
        if first.is_some() && second.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (first.expect("ready"), second.expect("ready"))
}

/// Returns a deadline that has passed.
pub fn past() -> Instant {
    Instant::now()
}

pub fn in_ms(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// Returns the text of a connection's error in Go's format, `OP tcp LOCAL->PEER: REASON`.
pub fn between(op: &str, local: SocketAddr, peer: SocketAddr, reason: &str) -> String {
    format!("{op} tcp {local}->{peer}: {reason}")
}

/// Asserts that an operation timed out. Returns the error.
#[track_caller]
pub fn assert_timeout<T: std::fmt::Debug>(result: io::Result<T>) -> io::Error {
    let error = result.expect_err("must time out");
    assert!(is_timeout(&error) && !is_closed(&error), "{error}");
    assert!(error.to_string().ends_with(": i/o timeout"), "{error}");
    error
}

/// Asserts that an operation failed because this process closed the socket. Returns the error.
#[track_caller]
pub fn assert_closed<T: std::fmt::Debug>(result: io::Result<T>) -> io::Error {
    let error = result.expect_err("must be closed");
    assert!(is_closed(&error) && !is_timeout(&error), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert!(error.to_string().ends_with(": use of closed network connection"), "{error}");
    error
}
