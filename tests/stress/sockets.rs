//! Actions on sockets. They check that the right bytes arrive, every wait ends, errors are of the
//! right kind, and wakers do not accumulate.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::join_all;
use netpoll::net::{TcpListener, TcpStream, UdpSocket, is_closed};
use netpoll::os::unix::net::UnixDatagram;
use netpoll::task;

use crate::actors::{Peer, peer, with_peer};
use crate::conn::{Conn, Counting, byte, bytes, fill, fresh_waker};
use crate::deadlines::has_timeouts;
use crate::oracle::{self, Span, Token, fail, watch, watch_for};
use crate::program::{Datagram, Party, PollOp, Stream};
use crate::words::{Bytes, Few, Ms, Polls};

/// Reads `count` bytes and compares them with the sequence of [`byte`] from offset `at` on.
async fn read_exactly(conn: &Conn, at: usize, count: usize) -> io::Result<()> {
    let mut buf = vec![0; count.min(70_000)];
    let mut got = 0;
    while got < count {
        let most = (count - got).min(buf.len());
        let read = conn.read(&mut buf[..most]).await?;
        if read == 0 {
            return Err(io::Error::other(format!("the stream ends after {got} of {count} bytes")));
        }
        if let Some(wrong) = buf[..read].iter().zip(at + got..).find(|(value, at)| **value != byte(*at)) {
            fail(format!("byte {} of a stream is {}", wrong.1, wrong.0));
        }
        got += read;
    }
    Ok(())
}

pub async fn echo(span: Span, stream: Stream, party: Party, size: Bytes, rounds: Few) {
    let (size, rounds) = (size.0 as usize, rounds.0 as usize);
    let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { return };
    let reader = one.clone();
    let own = async move {
        for round in 0..rounds {
            let _watch = watch(format!("an echo of {size} bytes, {stream:?}, {party:?}"));
            let at = round * size;
            let message = bytes(at, size);
            // Writes and reads concurrently, because the buffers may not hold the whole message.
            let write = async { span.ok(one.write_all(&message).await, "a write") };
            let read = async { span.ok(read_exactly(&reader, at, size).await, "an echo") };
            if let (None, _) | (_, None) = futures::join!(write, read) {
                return;
            }
        }
        let _watch = watch(format!("the end of an echo, {stream:?}, {party:?}"));
        span.ok(one.finish(), "the end of a direction");
        let end = reader.read(&mut [0; 8]).await;
        span.check(matches!(end, Ok(0)), || format!("after the last echo a read gives {end:?}"));
    };
    let echoes = async move {
        let mut buf = vec![0; 16 << 10];
        loop {
            match span.ok(other.read(&mut buf).await, "a read of the peer") {
                None | Some(0) => break,
                Some(count) => {
                    if span.ok(other.write_all(&buf[..count]).await, "a write of the peer").is_none() {
                        break;
                    }
                }
            }
        }
    };
    with_peer(own, peer(span, party, echoes)).await;
}

/// Sends from one side, shuts down this direction, and then checks the answer.
pub async fn half(span: Span, stream: Stream, party: Party, size: Bytes) {
    let size = size.0 as usize;
    let _watch = watch(format!("a half close after {size} bytes, {stream:?}, {party:?}"));
    let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { return };
    let own = async move {
        span.ok(one.write_all(&bytes(0, size)).await, "a write");
        span.ok(one.finish(), "the end of a direction");
        span.ok(read_exactly(&one, 0, size).await, "the answer after a half close");
        let end = one.read(&mut [0; 8]).await;
        span.check(matches!(end, Ok(0)), || format!("after the answer a read gives {end:?}"));
    };
    let answers = async move {
        let mut got = 0;
        let mut buf = vec![0; 4096];
        loop {
            match span.ok(other.read(&mut buf).await, "a read of the peer") {
                None => return,
                Some(0) => break,
                Some(count) => got += count,
            }
        }
        span.check(got == size, || format!("{got} bytes of {size} before a half close"));
        span.ok(other.write_all(&bytes(0, size)).await, "the answer");
    };
    with_peer(own, peer(span, party, answers)).await;
}

/// Closes one end of a connection and checks that every operation that waits on this end fails as
/// closed. Deadlines of the slot's next owner must work.
pub async fn close(span: Span, stream: Stream, waiters: Few, party: Party, ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length * 2, format!("{} waiters of a {stream:?} that {party:?} closes", waiters.0));
    let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { return };
    fill(&one).await;
    let waits: Vec<_> = (0..waiters.0)
        .map(|number| {
            let (conn, token) = (one.clone(), Token::new("waits for a close"));
            let body = async move {
                let _token = token;
                match number % 3 {
                    0 => conn.read(&mut [0; 8]).await.map(drop),
                    1 => conn.write_all(&[7; 1 << 20]).await,
                    _ => conn.peer_closed().await,
                }
            };
            // The first operation runs in the actor's own future, each of the others in a separate
            // task.
            peer(span, if number == 0 { Party::Joined } else { Party::Task }, body)
        })
        .collect();
    let closer = one.clone();
    let closes = async move {
        task::sleep(length).await;
        closer.close();
    };
    let waits = join_all(waits.into_iter().map(Peer::ends));
    let results = with_peer(waits, peer(span, party, closes)).await;
    for result in results.into_iter().flatten().flatten() {
        let fails_as_closed = matches!(&result, Err(error) if is_closed(error));
        span.check(fails_as_closed, || format!("a wait for a closed end gives {result:?}"));
    }
    drop((one, other));
    has_timeouts(span, stream, 2).await;
}

/// Dials a listener that accepts, then closes the listener while three accepts wait.
pub async fn accept(span: Span, dials: Few, party: Party, ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length * 2, format!("{} dials by {party:?}, and the close of their listener", dials.0));
    let Some(listener) = span.ok(TcpListener::bind("127.0.0.1:0").await, "a listener") else { return };
    let listener = Arc::new(listener);
    let Some(address) = span.ok(listener.local_addr(), "an address") else { return };
    let dialing = async move {
        let mut streams = Vec::new();
        for number in 0..dials.0 {
            let Some(stream) = span.ok(TcpStream::connect(address).await, "a dial") else { return };
            span.ok(stream.write_all(&[number as u8]).await, "a write");
            streams.push(stream);
        }
        for stream in streams {
            let mut buf = [0; 1];
            let read = stream.read(&mut buf).await;
            span.check(matches!(read, Ok(1)), || format!("an answer is {read:?}"));
        }
    };
    let accepting = listener.clone();
    let own = async move {
        for _ in 0..dials.0 {
            let Some((stream, _)) = span.ok(accepting.accept().await, "an accept") else { return };
            let mut buf = [0; 1];
            let read = stream.read(&mut buf).await;
            span.check(matches!(read, Ok(1)), || format!("a request is {read:?}"));
            span.ok(stream.write_all(&buf).await, "an answer");
        }
    };
    with_peer(own, peer(span, party, dialing)).await;
    let closing = listener.clone();
    let closes = async move {
        task::sleep(length).await;
        drop(closing.close());
    };
    let accepts = async {
        let waits = [(); 3].map(|()| listener.accept());
        join_all(waits).await
    };
    let results = with_peer(accepts, peer(span, party, closes)).await;
    for result in results.into_iter().flatten() {
        let fails_as_closed = matches!(&result, Err(error) if is_closed(error));
        span.check(fails_as_closed, || format!("an accept on a listener that is closed gives {result:?}"));
    }
}

/// The socket that waits for answers, held by the answering side. A datagram socket has no end of
/// stream, so if the answering side ends early, the drop of this value ends the wait with a
/// deadline.
struct Asker {
    socket: Arc<UdpSocket>,
    is_over: bool,
}

impl Asker {
    /// Records that every message has been answered.
    fn end(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.socket.set_read_deadline(Instant::now());
        }
    }
}

pub async fn datagrams(span: Span, kind: Datagram, count: Few, party: Party) {
    let _watch = watch(format!("{} datagrams and their echoes, {kind:?}, {party:?}", count.0));
    match kind {
        Datagram::Udp => {
            let Some(one) = span.ok(UdpSocket::bind("127.0.0.1:0").await, "a socket") else { return };
            let Some(other) = span.ok(UdpSocket::bind("127.0.0.1:0").await, "a socket") else { return };
            let Some(to) = span.ok(other.local_addr(), "an address") else { return };
            let one = Arc::new(one);
            let mut asker = Asker { socket: one.clone(), is_over: false };
            let echoes = async move {
                for _ in 0..count.0 {
                    let mut buf = [0; 64];
                    let Some((got, from)): Option<(usize, SocketAddr)> =
                        span.ok(other.recv_from(&mut buf).await, "a receive")
                    else {
                        return;
                    };
                    span.ok(other.send_to(&buf[..got], from).await, "a send");
                }
                asker.end();
            };
            let own = async {
                for number in 0..count.0 {
                    let message = bytes(number as usize, 1 + number as usize);
                    span.ok(one.send_to(&message, to).await, "a send");
                    let mut buf = [0; 64];
                    let got = one.recv_from(&mut buf).await;
                    let fits = matches!(&got, Ok((got, _)) if buf[..*got] == message[..]);
                    span.check(fits, || format!("a datagram is echoed as {got:?}"));
                }
            };
            with_peer(own, peer(span, party, echoes)).await;
        }
        Datagram::Unix => {
            let Some((one, other)) = span.ok(UnixDatagram::pair(), "a pair") else { return };
            let echoes = async move {
                for _ in 0..count.0 {
                    let mut buf = [0; 64];
                    let Some(got) = span.ok(other.recv(&mut buf).await, "a receive") else { return };
                    span.ok(other.send(&buf[..got]).await, "a send");
                }
            };
            let own = async {
                for number in 0..count.0 {
                    let message = bytes(number as usize, 1 + number as usize);
                    span.ok(one.send(&message).await, "a send");
                    let mut buf = [0; 64];
                    let got = one.recv(&mut buf).await;
                    let fits = matches!(&got, Ok(got) if buf[..*got] == message[..]);
                    span.check(fits, || format!("a datagram is echoed as {got:?}"));
                }
            };
            with_peer(own, peer(span, party, echoes)).await;
        }
    }
}

/// The maximum number of wakers of one operation that may be kept, however it is polled.
const WAKERS_MAX: i64 = 10_000;

/// Polls with a new waker each time. Only a limited number of wakers may be kept. If the operation
/// is on a socket, the last waker must be called.
pub async fn wakers(span: Span, polls: Polls, op: PollOp) {
    let _watch = watch(format!("{} polls with a new waker each, {op:?}", polls.0));
    let Some((one, other)) = span.ok(Conn::pair(Stream::Unix).await, "a pair") else { return };
    let large = vec![7; 4 << 20];
    let mut buf = [0; 4];
    let sockets = UdpSocket::bind("127.0.0.1:0").await;
    let Some(socket) = span.ok(sockets, "a socket") else { return };
    // If `op` needs a held lock, one of these operations holds it and waits.
    let (keeper, locked_buf) = (one.clone(), &mut [0; 4]);
    let mut holds_write = pin!(keeper.write_all(&large));
    let mut holds_read = pin!(keeper.read(locked_buf));
    match op {
        PollOp::LockedWrite => _ = holds_write.as_mut().poll(&mut Context::from_waker(Waker::noop())),
        PollOp::LockedRead => _ = holds_read.as_mut().poll(&mut Context::from_waker(Waker::noop())),
        PollOp::Write => fill(&one).await,
        _ => {}
    }
    let mut sleep = netpoll::time::Sleep::new(Duration::from_secs(3600));
    let (_keep, kept) = oneshot::channel::<()>();
    let mut handle = task::spawn(kept);
    let before = oracle::tokens("waker");
    let (mut last, mut most, mut pending) = (Counting::new(), 0, false);
    for _ in 0..polls.0 {
        last = Counting::new();
        let waker = Waker::from(last.clone());
        let cx = &mut Context::from_waker(&waker);
        pending = match op {
            PollOp::Read | PollOp::LockedRead => one.poll_read(cx, &mut buf).is_pending(),
            PollOp::Write | PollOp::LockedWrite => one.poll_write(cx, &large).is_pending(),
            PollOp::Readable => match &one {
                Conn::Unix(unix) => unix.poll_readable(cx).is_pending(),
                _ => false,
            },
            PollOp::RecvFrom => socket.poll_recv_from(cx, &mut buf).is_pending(),
            PollOp::Join => std::pin::Pin::new(&mut handle).poll(cx).is_pending(),
            PollOp::Sleep => std::pin::Pin::new(&mut sleep).poll(cx).is_pending(),
        };
        most = most.max(oracle::tokens("waker") - before);
    }
    // Other actors of the program hold wakers too.
    let bound = WAKERS_MAX * oracle::actors() as i64;
    span.check(most <= bound, || format!("{op:?} kept {most} wakers after {} polls", polls.0));
    // Causes the event that the last poll waits for, except for a join or a sleep. The waker of
    // this poll must be called.
    match op {
        PollOp::Read | PollOp::Readable => _ = span.ok(other.write_all(b"x").await, "a write"),
        PollOp::RecvFrom => {
            let Some(to) = span.ok(socket.local_addr(), "an address") else { return };
            span.ok(socket.send_to(b"x", to).await, "a send");
        }
        _ => one.close(),
    }
    let must_wake = !matches!(op, PollOp::Join | PollOp::Sleep);
    while must_wake && pending && last.woken() == 0 && span.is_calm() {
        task::sleep(Duration::from_millis(1)).await;
    }
}

/// Uses a connection again later, perhaps after a restart of the runtime.
pub async fn survive(stream: Stream, ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("a {stream:?} that is used again after {length:?}"));
    let before = Span::begin();
    let Some((one, other)) = before.ok(Conn::pair(stream).await, "a pair") else { return };
    let is_clean = exchange(before, &one, &other).await;
    task::sleep(length).await;
    // Bytes of an exchange that a shutdown cut short may still arrive.
    if is_clean {
        exchange(Span::begin(), &one, &other).await;
    }
}

/// Sends a few bytes from one end of a connection to the other, which waits for them. Returns
/// whether they arrived.
async fn exchange(span: Span, one: &Conn, other: &Conn) -> bool {
    let mut buf = [0; 8];
    let write = async {
        task::yield_now().await;
        one.write_all(b"abc").await
    };
    let (read, wrote) = futures::join!(other.read(&mut buf), write);
    span.ok(wrote, "a write");
    span.check(matches!(read, Ok(3)), || format!("three bytes are read as {read:?}"));
    matches!(read, Ok(3))
}

/// Checks that a single poll sees the end of the stream once the kernel has received it.
pub async fn liveness(span: Span, stream: Stream) {
    use std::os::fd::AsRawFd;
    let _watch = watch(format!("the end of a {stream:?} is seen by one poll"));
    // A pipe has no state in the kernel.
    let stream = if stream == Stream::Pipe { Stream::Unix } else { stream };
    let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { return };
    span.ok(other.write_all(b"answer").await, "a write");
    let mut buf = [0; 64];
    let read = one.read(&mut buf).await;
    span.check(matches!(read, Ok(6)), || format!("a short answer is {read:?}"));
    drop(other);
    let number = match &one {
        Conn::Tcp(conn) => conn.as_raw_fd(),
        Conn::Unix(conn) => conn.as_raw_fd(),
        Conn::Pipe(_) => return,
    };
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the buffer is valid for one byte, and the descriptor is open.
    while unsafe { libc::recv(number, buf.as_mut_ptr().cast(), 1, flags) } != 0 {
        task::yield_now().await;
    }
    // A poll that is deferred for fairness calls its waker at once. Such a poll does not count.
    let counter = Counting::new();
    let waker = Waker::from(counter.clone());
    let mut polled = one.poll_read(&mut Context::from_waker(&waker), &mut buf);
    if polled.is_pending() && counter.woken() > 0 {
        polled = one.poll_read(&mut Context::from_waker(&fresh_waker()), &mut buf);
    }
    span.check(matches!(polled, Poll::Ready(Ok(0))), || {
        format!("a poll of a {stream:?} whose peer has closed gives {polled:?}")
    });
}

/// Sets a flag when it is dropped.
#[derive(Default)]
struct Over(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Over {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

/// Dials by name while the pool for blocking calls is full.
pub async fn names(span: Span, calls: Few, ms: Ms) {
    let length = ms.duration();
    let Some(listener) = span.ok(TcpListener::bind("127.0.0.1:0").await, "a listener") else { return };
    let Some(address) = span.ok(listener.local_addr(), "an address") else { return };
    let calls = calls.0 * oracle::config().blocking;
    // The calls last until the look-up has ended, or until its bound has long passed.
    let over = Over::default();
    let busy: Vec<_> = (0..calls)
        .map(|_| {
            let is_over = over.0.clone();
            task::spawn_blocking(move || {
                let over = is_over.0.lock().unwrap_or_else(PoisonError::into_inner);
                drop(is_over.1.wait_timeout_while(over, length + oracle::late() * 3, |over| !*over));
            })
        })
        .collect();
    {
        let _watch = watch(format!("a look-up during {calls} blocking calls"));
        let dialed = TcpStream::connect(("localhost", address.port())).await;
        span.ok(dialed, "a dial by name");
    }
    drop(over);
    let _watch = watch_for(length * (calls / oracle::config().blocking + 1) as u32, "blocking calls");
    for call in busy {
        call.await;
    }
}
