//! What several test files share: a bound on every test, connected pairs, wakers that count, polling by hand.
//!
//! Nothing here sleeps for a guessed time: tests wait on conditions, and the bound turns a hang into a failure.
#![allow(dead_code, unreachable_pub, unused_imports)] // Each test binary uses a part.

#[path = "../common/kernel.rs"]
mod kernel;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::task;

pub use kernel::{in_flight, own_address};

/// After this long a test counts as hung; none needs a tenth of it on an idle machine.
pub const HANG: Duration = Duration::from_secs(240);

/// Runs a test on a thread of its own, within [`HANG`]. Its panic is resumed here.
pub fn bounded<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::Builder::new().name(std::thread::current().name().unwrap_or("test").to_owned());
    let thread = thread.spawn(move || {
        let result = test();
        let _ = done.send(());
        result
    });
    let thread = thread.expect("a thread for the test");
    if wait.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("hung: {:?}", netpoll::rt::metrics());
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// [`bounded`], inside `block_on`.
pub fn run<T: Send + 'static, F: Future<Output = T>>(test: impl FnOnce() -> F + Send + 'static) -> T {
    bounded(|| task::block_on(test()))
}

/// A connection over loopback: the side that connected, the side that accepted.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    connect_to(&listener).await
}

/// A connection to `listener`.
pub async fn connect_to(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("listening")).await.expect("connect");
    let (server, _) = listener.accept().await.expect("accept");
    // Tests that poll by hand begin with a full budget: an operation that is used up asks for a yield by being Pending.
    task::yield_now().await;
    (client, server)
}

/// A connection whose buffers are small and do not grow, so that writing fills it soon.
pub async fn narrow_pair() -> (TcpStream, TcpStream) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.set_send_buffer_size(4096).expect("SO_SNDBUF");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    socket.listen(16).expect("listen");
    let listener = TcpListener::from(std::net::TcpListener::from(socket));
    let (client, server) = connect_to(&listener).await;
    socket2::SockRef::from(&client).set_send_buffer_size(4096).expect("SO_SNDBUF");
    socket2::SockRef::from(&client).set_recv_buffer_size(4096).expect("SO_RCVBUF");
    (client, server)
}

/// Writes zeroes until the stream has taken no more for a while: how many.
pub async fn fill(stream: &TcpStream) -> usize {
    let mut total = 0;
    let chunk = [0; 16 * 1024];
    let mut idle = 0;
    // The kernel moves what was written from this side's buffer to the other's, which makes room once more. An acknowledgement
    // may be delayed by 200 ms, and by more on a busy machine. (Where the peer has dropped bytes, it tries for ever.)
    while idle == 0 || idle < 10 && in_flight(stream.as_fd()) > 0 {
        match netpoll::future::timeout(Duration::from_millis(250), stream.write(&chunk)).await {
            Ok(written) => (total, idle) = (total + written.expect("the connection is whole"), 0),
            Err(_) => idle += 1,
        }
    }
    total
}

/// Reads until `buf` is full.
pub async fn read_exact(stream: &TcpStream, buf: &mut [u8]) -> io::Result<()> {
    let mut got = 0;
    while got < buf.len() {
        match stream.read(&mut buf[got..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => got += count,
        }
    }
    Ok(())
}

/// A read through the traits. (A method call on `&TcpStream` is the inherent one.)
pub async fn trait_read(mut stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    netpoll::io::ReadExt::read(&mut stream, buf).await
}

/// A write through the traits.
pub async fn trait_write(mut stream: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    netpoll::io::WriteExt::write(&mut stream, buf).await
}

/// A `write_all` through the traits: a series of writes.
pub async fn trait_write_all(mut stream: &TcpStream, buf: &[u8]) -> io::Result<()> {
    netpoll::io::WriteExt::write_all(&mut stream, buf).await
}

/// Proves that a connection carries bytes both ways, none of them old.
pub async fn round_trip(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let message = *b"there and back";
        from.write_all(&message).await.expect("write");
        let mut buf = [0; 14];
        read_exact(to, &mut buf).await.expect("read");
        assert_eq!(buf, message);
    }
}

/// A waker that counts.
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

/// Polls, with a waker of one's own. Pending means that it waits, and has not called the waker: an operation that need not wait may be
/// turned away for the sake of fairness, on a busy machine any, and is polled once more.
pub fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    match Pin::new(&mut *future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Pin::new(future).poll(&mut Context::from_waker(waker)),
        ready => ready,
    }
}

/// The same for a waiter that nobody will wake.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// Polls `future` by hand until it is ready, whenever its own waker was woken.
pub async fn drive<F: Future + Unpin>(future: &mut F, wakes: &Wakes, waker: &Waker) -> F::Output {
    loop {
        let seen = wakes.count();
        if let Poll::Ready(output) = poll_with(future, waker) {
            return output;
        }
        // An operation may have asked the task to yield, so it must.
        task::yield_now().await;
        eventually("a wake-up", || wakes.count() > seen).await;
    }
}

/// Waits for a condition, without blocking the thread.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < HANG / 2, "waited in vain for {what}: {:?}", netpoll::rt::metrics());
        task::sleep(Duration::from_micros(200)).await;
    }
}

/// Polls both until both are ready.
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

/// A moment that is over.
pub fn past() -> Instant {
    Instant::now()
}

pub fn in_ms(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// The text of an operation on a connection: Go's `OP tcp LOCAL->PEER: REASON`.
pub fn between(op: &str, local: SocketAddr, peer: SocketAddr, reason: &str) -> String {
    format!("{op} tcp {local}->{peer}: {reason}")
}

/// Asserts that an operation ended by its deadline.
#[track_caller]
pub fn assert_timeout<T: std::fmt::Debug>(result: io::Result<T>) -> io::Error {
    let error = result.expect_err("must time out");
    assert!(is_timeout(&error) && !is_closed(&error), "{error}");
    assert!(error.to_string().ends_with(": i/o timeout"), "{error}");
    error
}

/// Asserts that an operation found its socket closed by this side.
#[track_caller]
pub fn assert_closed<T: std::fmt::Debug>(result: io::Result<T>) -> io::Error {
    let error = result.expect_err("must be closed");
    assert!(is_closed(&error) && !is_timeout(&error), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert!(error.to_string().ends_with(": use of closed network connection"), "{error}");
    error
}
