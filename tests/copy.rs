//! `io::copy_bidirectional`, its idle limit, the flushes of a copy, how a copy notices that a side
//! has closed, and urgent data. `zero_copy.rs` has the other tests of copies in the kernel.

mod common;

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use common::*;
use netpoll::io::{BufWriter, Read, ReadExt, Write, copy, copy_bidirectional, copy_bidirectional_with};
use netpoll::net::{TcpStream, is_timeout};
use netpoll::os::unix::net::UnixStream;
use netpoll::{rt, task};

/// A stream whose type hides that it is a socket, so its bytes go through the buffer.
struct Foreign<S = TcpStream>(S);

impl<S: Read + Unpin> Read for Foreign<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

/// Implements `Write` by the first field.
macro_rules! forward_writes {
    ($writer:ty $(, $($generics:tt)+)?) => {
        impl $(<$($generics)+>)? Write for $writer {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.0).poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_close(cx)
            }
        }
    };
}

forward_writes!(Foreign<S>, S: Write + Unpin);

type Proxy = task::JoinHandle<io::Result<(u64, u64)>>;

/// Returns a client, a server, and the proxy between them. `foreign` tells whether the proxy uses a
/// foreign stream instead of a socket on the side of the client, and on the side of the server.
async fn proxied(foreign: (bool, bool)) -> (TcpStream, TcpStream, Proxy) {
    let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
    let proxy = task::spawn(async move {
        match foreign {
            (false, false) => copy_bidirectional(&mut inbound, &mut outbound).await,
            (true, false) => copy_bidirectional(&mut Foreign(inbound), &mut outbound).await,
            (false, true) => copy_bidirectional(&mut inbound, &mut Foreign(outbound)).await,
            (true, true) => copy_bidirectional(&mut Foreign(inbound), &mut Foreign(outbound)).await,
        }
    });
    (client, server, proxy)
}

/// All arguments of [`proxied`]: whether the side of the client and the side of the server are
/// foreign.
const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

async fn rest(stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut reader = stream;
    reader.read_to_end(&mut all).await.unwrap();
    all
}

/// Resets the connection.
fn reset(stream: TcpStream) {
    stream.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn bidirectional_copy_counts_both_directions() {
    run(async {
        for foreign in KINDS {
            let (client, server, proxy) = proxied(foreign).await;
            let (up, down) = (vec![1; 3_000_000], vec![2; 5_000_001]);
            let send = async |stream: &TcpStream, bytes: &[u8]| {
                stream.write_all(bytes).await.unwrap();
                stream.close_write().unwrap();
            };
            let ((), (), at_server, at_client) =
                futures::join!(send(&client, &up), send(&server, &down), rest(&server), rest(&client));
            assert!(at_server == up && at_client == down, "{foreign:?}");
            assert_eq!(proxy.await.unwrap(), (3_000_000, 5_000_001), "{foreign:?}");
        }
    });
}

/// Go: issue 25985. One side ends its stream while the other side continues. In the first round
/// this is the client, and in the second round the server.
#[test]
fn half_close_is_forwarded_and_other_direction_continues() {
    run(async {
        for foreign in KINDS {
            for client_first in [true, false] {
                let (client, server, proxy) = proxied(foreign).await;
                let (first, second) = if client_first { (client, server) } else { (server, client) };
                first.write_all(b"question").await.unwrap();
                first.close_write().unwrap();
                assert_eq!(rest(&second).await, b"question");
                for part in 0..100u8 {
                    second.write_all(&[part; 100]).await.unwrap();
                    read_exact(&first, &mut [0; 100]).await.unwrap();
                }
                second.close_write().unwrap();
                assert_eq!(rest(&first).await, b"");
                let counts = if client_first { (8, 10_000) } else { (10_000, 8) };
                assert_eq!(proxy.await.unwrap(), counts, "{foreign:?}");
            }
        }
    });
}

/// Go: issue 58628. The copy notices that the writer's peer has reset the connection although the
/// reader receives no data.
#[test]
fn reset_of_writer_ends_copy_with_silent_reader() {
    run(async {
        for foreign in [false, true] {
            let ((_client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
            let copying = task::spawn(async move {
                if foreign {
                    copy(&mut Foreign(inbound), &mut outbound).await
                } else {
                    copy(&mut inbound, &mut outbound).await
                }
            });
            becomes("the copy waits for both sides", || rt::metrics().waiters >= 2).await;
            reset(server);
            let error = copying.await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        }
    });
}

/// The copy notices that the server has reset the connection, even after the server has ended its
/// stream. The copy then no longer reads from the server.
#[test]
fn reset_after_the_last_byte_of_the_server_is_noticed() {
    run(async {
        for foreign in [(false, false), (true, false)] {
            let (client, server, proxy) = proxied(foreign).await;
            server.write_all(b"last").await.unwrap();
            server.close_write().unwrap();
            assert_eq!(rest(&client).await, b"last");
            reset(server);
            let error = proxy.await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
            assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        }
    });
}

/// Regression: the copy to a reset connection consumed the socket's error, so the copy from the
/// connection found a regular end of stream.
#[test]
fn copy_from_a_reset_connection_fails_while_another_copy_writes_to_it() {
    /// Checks that both copies fail. `to` and `from` are handles of one connection. `resets` resets
    /// the connection from the other side.
    async fn fails<S>(to: S, from: S, is_foreign: bool, resets: impl AsyncFnOnce())
    where
        S: Read + Write + Unpin + 'static,
    {
        let (_silent, mut client) = pair().await;
        let (mut to, mut from, mut client_too) = (to, Foreign(from), client.clone());
        let mut watching = Box::pin(copy(&mut client, &mut to));
        assert!(poll_once(&mut watching).await.is_pending());
        let mut reading: Pin<Box<dyn Future<Output = io::Result<u64>>>> = match is_foreign {
            true => Box::pin(copy(&mut from, &mut client_too)),
            false => Box::pin(copy(&mut from.0, &mut client_too)),
        };
        assert!(poll_once(&mut reading).await.is_pending());
        resets().await;
        let error = watching.await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        let error = reading.await.expect_err("an error, not a regular end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    run(async {
        for is_foreign in [false, true] {
            let (outbound, server) = pair().await;
            fails(outbound.clone(), outbound, is_foreign, async || reset(server)).await;
            // Closing a Unix stream that has unread bytes resets the connection.
            let (outbound, server) = UnixStream::pair().unwrap();
            outbound.write_all(b"unread").await.unwrap();
            fails(outbound.clone(), outbound, is_foreign, async || drop(server)).await;
        }
    });
}

/// `take_error` reports the error that the copy has taken, once, as a read does.
#[test]
fn take_error_reports_the_error_of_a_connection_beside_a_copy_to_it() {
    async fn fails<S: Read + Write + Unpin>(to: S, resets: impl AsyncFnOnce()) {
        let (_silent, mut client) = pair().await;
        let mut to = to;
        let mut watching = Box::pin(copy(&mut client, &mut to));
        assert!(poll_once(&mut watching).await.is_pending());
        resets().await;
        watching.await.unwrap_err();
    }
    fn is_reported_once(mut take_error: impl FnMut() -> io::Result<Option<io::Error>>) {
        assert_eq!(take_error().unwrap().expect("an error").kind(), ErrorKind::ConnectionReset);
        assert!(take_error().unwrap().is_none());
    }
    run(async {
        let (outbound, server) = pair().await;
        fails(outbound.clone(), async || reset(server)).await;
        is_reported_once(|| outbound.take_error());
        assert_eq!(outbound.read(&mut [0; 1]).await.unwrap(), 0);

        let (outbound, server) = UnixStream::pair().unwrap();
        outbound.write_all(b"unread").await.unwrap();
        fails(outbound.clone(), async || drop(server)).await;
        is_reported_once(|| outbound.take_error());
        assert_eq!(outbound.read(&mut [0; 1]).await.unwrap(), 0);
    });
}

#[test]
fn reset_of_either_side_ends_both_directions() {
    run(async {
        for foreign in KINDS {
            for client_resets in [true, false] {
                let (client, server, proxy) = proxied(foreign).await;
                ping_through(&client, &server).await;
                let (resets, other) = if client_resets { (client, server) } else { (server, client) };
                reset(resets);
                let error = proxy.await.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
                other.peer_closed().await.unwrap();
            }
        }
    });
}

async fn ping_through(client: &TcpStream, server: &TcpStream) {
    client.write_all(b"ping").await.unwrap();
    read_exact(server, &mut [0; 4]).await.unwrap();
}

/// Copies in both directions between sockets or foreign streams. `swapped` swaps the arguments.
async fn copy_both<A, B>(mut a: A, mut b: B, foreign: (bool, bool), swapped: bool) -> io::Result<()>
where
    A: Read + Write + Unpin,
    B: Read + Write + Unpin,
{
    let copied = match (foreign, swapped) {
        ((false, false), false) => copy_bidirectional(&mut a, &mut b).await,
        ((false, false), true) => copy_bidirectional(&mut b, &mut a).await,
        ((true, false), false) => copy_bidirectional(&mut Foreign(&mut a), &mut b).await,
        ((true, false), true) => copy_bidirectional(&mut b, &mut Foreign(&mut a)).await,
        ((false, true), false) => copy_bidirectional(&mut a, &mut Foreign(&mut b)).await,
        ((false, true), true) => copy_bidirectional(&mut Foreign(&mut b), &mut a).await,
        ((true, true), false) => copy_bidirectional(&mut Foreign(&mut a), &mut Foreign(&mut b)).await,
        ((true, true), true) => copy_bidirectional(&mut Foreign(&mut b), &mut Foreign(&mut a)).await,
    };
    copied.map(drop)
}

/// Reads until the end of the stream or an error, and returns the data.
async fn all_of(mut stream: impl Read + Unpin) -> Vec<u8> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut buf).await {
        all.extend_from_slice(&buf[..count]);
    }
    all
}

/// A server that refuses an upload answers and closes while the client is still sending.
/// Regression: the failed write ended both directions, and the answer was lost.
#[test]
fn answer_reaches_the_client_when_the_server_closes_during_an_upload() {
    const ANSWER: &[u8] = b"413 Content Too Large";
    run(async {
        for foreign in KINDS {
            for round in 0..20 {
                let ((client, inbound), (outbound, server)) = (pair().await, pair().await);
                let proxy = task::spawn(copy_both(inbound, outbound, foreign, round % 2 == 1));
                let upload = task::spawn({
                    let client = client.clone();
                    async move { client.write_all(&vec![1; 8 << 20]).await }
                });
                read_exact(&server, &mut [0; 1000]).await.unwrap();
                server.write_all(ANSWER).await.unwrap();
                drop(server);
                assert_eq!(all_of(&client).await, ANSWER, "{foreign:?}, round {round}");
                proxy.await.unwrap_err();
                let _ = upload.await;

                let ((client, inbound), (outbound, server)) =
                    (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
                let proxy = task::spawn(copy_both(inbound, outbound, foreign, round % 2 == 1));
                let upload = task::spawn({
                    let client = client.clone();
                    async move { client.write_all(&vec![1; 8 << 20]).await }
                });
                (&server).read_exact(&mut [0; 1000]).await.unwrap();
                server.write_all(ANSWER).await.unwrap();
                drop(server);
                assert_eq!(all_of(&client).await, ANSWER, "unix, {foreign:?}, round {round}");
                proxy.await.unwrap_err();
                let _ = upload.await;
            }
        }
    });
}

/// If the peer of a Unix stream shuts down only its reading side, writes to the peer fail, but the
/// peer may continue to write. The direction from the peer is copied to its end.
#[test]
fn peer_that_stops_reading_is_read_to_eof() {
    const BYTES: usize = 3_000_000;
    run(async {
        for foreign in KINDS {
            for (swapped, client_stops) in [(false, false), (false, true), (true, false), (true, true)] {
                let ((client, inbound), (outbound, server)) =
                    (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
                let proxy = task::spawn(copy_both(inbound, outbound, foreign, swapped));
                let (stops, other) = if client_stops { (client, server) } else { (server, client) };
                stops.shutdown(Shutdown::Read).unwrap();
                // The copy continues to read although it cannot write, so that a peer that sends
                // before it reads is not blocked.
                other.write_all(&vec![1; BYTES]).await.unwrap();
                let answer = task::spawn(async move {
                    stops.write_all(&vec![2; BYTES]).await.unwrap();
                    stops.close_write().unwrap();
                    stops
                });
                assert!(all_of(&other).await == vec![2; BYTES], "{foreign:?}, {swapped}, {client_stops}");
                let error = proxy.await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                drop(answer.await);
            }
        }
    });
}

/// Regression: an urgent byte of a TCP stream, inline or out of band, made the copy in the kernel
/// end or wait forever.
#[test]
fn urgent_data_does_not_end_copy() {
    run(async {
        for case in 0..32 {
            let [inline, after, fin, late, both] = [1, 2, 4, 8, 16].map(|bit| case & bit != 0);
            let ((sender, mut source), (mut target, receiver)) = (pair().await, pair().await);
            source.set_out_of_band_inline(inline).unwrap();
            let send = async || {
                sender.write_all(b"before").await.unwrap();
                sender.send_out_of_band(b'!').await.unwrap();
                if after {
                    sender.write_all(b"after").await.unwrap();
                }
                if fin {
                    sender.close_write().unwrap();
                }
            };
            let copying = async {
                if both {
                    copy_bidirectional(&mut target, &mut source).await.unwrap().1
                } else {
                    let count = copy(&mut source, &mut target).await.unwrap();
                    target.close_write().unwrap();
                    count
                }
            };
            let expected =
                [&b"before"[..], if inline { b"!" } else { b"" }, if after { b"after" } else { b"" }].concat();
            let check = async {
                if late {
                    becomes("the copy waits", || rt::metrics().waiters >= 1).await;
                    send().await;
                }
                let mut got = vec![0; expected.len()];
                read_exact(&receiver, &mut got).await.unwrap();
                assert_eq!(got, expected, "case {case}");
                if !fin {
                    sender.write_all(b"more").await.unwrap();
                    read_exact(&receiver, &mut [0; 4]).await.unwrap();
                    sender.close_write().unwrap();
                }
                assert_eq!(rest(&receiver).await, b"", "case {case}");
                receiver.close_write().unwrap();
            };
            if !late {
                send().await;
            }
            let count = futures::join!(copying, check).0;
            assert_eq!(count, (expected.len() + if fin { 0 } else { 4 }) as u64, "case {case}");
        }
    });
}

/// An idle limit ends the copy to a peer that has shut down its reading side, because bytes that
/// are read and dropped are not progress.
#[test]
fn idle_limit_ends_copy_to_stalled_server() {
    run(async {
        for foreign in [false, true] {
            let ((client, mut inbound), (mut outbound, server)) =
                (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            server.shutdown(Shutdown::Read).unwrap();
            let limit = Duration::from_millis(200);
            let proxy = task::spawn(async move {
                if foreign {
                    copy_bidirectional_with(&mut Foreign(&mut inbound), &mut Foreign(&mut outbound), limit).await
                } else {
                    copy_bidirectional_with(&mut inbound, &mut outbound, limit).await
                }
            });
            // Writes until the proxy has ended.
            while client.write_all(&[1; 1000]).await.is_ok() {
                task::sleep(Duration::from_millis(1)).await;
            }
            assert!(is_timeout(&proxy.await.unwrap_err()));
        }
    });
}

/// Unix sockets have urgent bytes too. `take` counts only the bytes copied, not the urgent byte.
#[test]
fn copy_skips_urgent_byte_of_unix_stream_and_of_limited_reader() {
    run(async {
        let ((sender, mut source), (mut target, receiver)) = (UnixStream::pair().unwrap(), pair().await);
        sender.write_all(b"before").await.unwrap();
        // SAFETY: the call reads one byte, which is valid.
        let send =
            |fd: BorrowedFd<'_>| match unsafe { libc::send(fd.as_raw_fd(), c"!".as_ptr().cast(), 1, libc::MSG_OOB) } {
                1 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            };
        match sender.write_with(send).await {
            Ok(()) => {
                sender.write_all(b"after").await.unwrap();
                sender.close_write().unwrap();
                assert_eq!(copy(&mut source, &mut target).await.unwrap(), 11);
                target.close_write().unwrap();
                assert_eq!(rest(&receiver).await, b"beforeafter");
            }
            Err(error) => println!("skipped: the kernel has no urgent bytes on Unix sockets: {error}"),
        }

        let ((sender, source), (mut target, receiver)) = (pair().await, pair().await);
        sender.write_all(b"before").await.unwrap();
        sender.send_out_of_band(b'!').await.unwrap();
        sender.write_all(b"after").await.unwrap();
        assert_eq!(copy(&mut (&source).take(8), &mut target).await.unwrap(), 8);
        read_exact(&source, &mut [0; 3]).await.unwrap();
        target.close_write().unwrap();
        assert_eq!(rest(&receiver).await, b"beforeaf");
    });
}

/// A stream that ends after one byte, and panics if it is read after its end. It accepts all
/// writes.
#[derive(Default)]
struct Strict {
    reads: usize,
}

impl Read for Strict {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.reads += 1;
        assert!(self.reads <= 2, "read after its end");
        Poll::Ready(Ok(2 - self.reads))
    }
}

impl Write for Strict {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A stream that ends at the fifth poll, and whose flush fails.
#[derive(Default)]
struct Unflushed {
    reads: usize,
}

impl Read for Unflushed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.reads += 1;
        if self.reads < 5 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(0))
    }
}

impl Write for Unflushed {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(ErrorKind::Other.into()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn reader_is_not_read_after_its_end_when_the_writer_fails() {
    run(async {
        let (mut strict, mut unflushed) = (Strict::default(), Unflushed::default());
        let error = copy_bidirectional(&mut strict, &mut unflushed).await.unwrap_err();
        assert_eq!((error.kind(), unflushed.reads), (ErrorKind::Other, 5));
        let (mut strict, mut unflushed) = (Strict::default(), Unflushed::default());
        let error = copy_bidirectional(&mut unflushed, &mut strict).await.unwrap_err();
        assert_eq!((error.kind(), unflushed.reads), (ErrorKind::Other, 5));
    });
}

/// A stream whose first read returns four bytes and whose later reads fail. It accepts all writes.
struct Failing(bool);

impl Read for Failing {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        buf[..4].copy_from_slice(b"half");
        Poll::Ready(Ok(4))
    }
}

impl Write for Failing {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A stream that never has data to read, and buffers written bytes until it is flushed, as a TLS
/// stream does.
#[derive(Default)]
struct Gathering {
    gathered: Vec<u8>,
    sent: Vec<u8>,
    is_closed: bool,
}

impl Read for Gathering {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl Write for Gathering {
    fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gathered = std::mem::take(&mut self.gathered);
        self.sent.extend(gathered);
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_closed = true;
        self.poll_flush(cx)
    }
}

/// The peer may send its first byte only after it has received a request that was written before
/// the copy.
#[test]
fn bytes_written_before_the_copy_are_flushed_before_the_first_wait() {
    run(async {
        let written = || Gathering { gathered: b"ping".to_vec(), ..Gathering::default() };
        let (mut silent, mut writer) = (Gathering::default(), written());
        assert!(poll_now(&mut pin!(copy(&mut silent, &mut writer))).is_pending());
        assert_eq!(writer.sent, b"ping");
        let (mut one, mut other) = (written(), written());
        assert!(poll_now(&mut pin!(copy_bidirectional(&mut one, &mut other))).is_pending());
        assert_eq!((one.sent.as_slice(), other.sent.as_slice()), (&b"ping"[..], &b"ping"[..]));
    });
}

/// Closing a TLS stream sends close_notify, from which the peer would conclude that the data is
/// complete.
#[test]
fn failed_read_flushes_and_does_not_close_the_other_side() {
    run(async {
        for swapped in [false, true] {
            let (mut failing, mut other) = (Failing(false), Gathering::default());
            let copied = if swapped {
                copy_bidirectional(&mut other, &mut failing).await
            } else {
                copy_bidirectional(&mut failing, &mut other).await
            };
            assert_eq!(copied.unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(other.sent, b"half");
            assert!(!other.is_closed);
        }
    });
}

/// A silent reader, and a writer with a buffer in front of a socket.
struct Buffered(BufWriter<TcpStream>);

impl Read for Buffered {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

forward_writes!(Buffered);

#[test]
fn failed_read_flushes_the_other_side_even_at_the_end_of_a_turn() {
    async fn rounds() {
        let (socket, peer) = pair().await;
        for round in 0..70 {
            let mut other = Buffered(BufWriter::new(socket.clone()));
            // The turn of a task is over after this time, and that of a root future after a number
            // of operations.
            std::thread::sleep(Duration::from_micros(50));
            let copied = copy_bidirectional(&mut Failing(false), &mut other).await;
            assert_eq!(copied.unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert!(other.0.buffer().is_empty(), "round {round}");
        }
        drop(socket);
        assert_eq!(rest(&peer).await, b"half".repeat(70));
    }
    run(rounds());
    run(async { task::spawn(rounds()).await });
    futures::executor::block_on(rounds());
}

#[test]
fn failed_read_ends_the_stream_of_a_socket_that_stays_open() {
    run(async {
        for swapped in [false, true] {
            let (mut failing, (mut socket, peer)) = (Failing(false), pair().await);
            let copied = if swapped {
                copy_bidirectional(&mut socket, &mut failing).await
            } else {
                copy_bidirectional(&mut failing, &mut socket).await
            };
            assert_eq!(copied.unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(rest(&peer).await, b"half");
            drop(socket);
        }
    });
}

/// The copy ends if no data moves in either direction for the idle limit. Data in one direction
/// restarts the limit, even if the other direction has ended.
#[test]
fn idle_limit_ends_idle_copy() {
    const IDLE: Duration = Duration::from_millis(200);
    run(async {
        for foreign in [false, true] {
            let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
            let mut last = Instant::now();
            let proxy = task::spawn(async move {
                if foreign {
                    copy_bidirectional_with(&mut Foreign(inbound), &mut Foreign(outbound), IDLE).await
                } else {
                    copy_bidirectional_with(&mut inbound, &mut outbound, IDLE).await
                }
            });
            client.close_write().unwrap();
            // Together, the messages take longer than the limit. On a busy machine, a message may
            // be late by the whole limit. Then the proxy has ended.
            for _ in 0..10 {
                task::sleep(IDLE / 5).await;
                let sent = Instant::now();
                if server.write_all(b"x").await.is_err() || read_exact(&client, &mut [0]).await.is_err() {
                    break;
                }
                last = sent;
            }
            let error = proxy.await.unwrap_err();
            assert!(is_timeout(&error), "{error}");
            assert!(last.elapsed() >= IDLE, "{:?} after the last message", last.elapsed());
        }
    });
}

/// A copy whose task has used up its turn yields. The idle limit must not end the copy then if
/// there are bytes to copy.
#[test]
fn idle_limit_does_not_end_a_copy_that_yields() {
    const IDLE: Duration = Duration::from_millis(50);

    async fn round(operations: usize) {
        let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
        let mut copied = pin!(copy_bidirectional_with(&mut inbound, &mut outbound, IDLE));
        task::yield_now().await;
        for _ in 0..operations {
            task::sleep(Duration::ZERO).await;
        }
        assert!(poll_fn(|cx| Poll::Ready(copied.as_mut().poll(cx))).await.is_pending());
        client.write_all(b"data").await.unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(2 * IDLE);
        assert_eq!(copied.await.unwrap(), (4, 0), "after {operations} operations");
    }
    run(async {
        for operations in 0..6 {
            task::spawn(round(operations)).await;
            round(operations).await;
        }
    });
}

/// A limit of `Duration::MAX` has no effect.
#[test]
fn longest_idle_limit_does_not_overflow() {
    run(async {
        let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
        let proxy =
            task::spawn(async move { copy_bidirectional_with(&mut inbound, &mut outbound, Duration::MAX).await });
        ping_through(&client, &server).await;
        drop((client, server));
        assert_eq!(proxy.await.unwrap(), (4, 0));
    });
}

#[test]
fn copy_runs_under_another_executor() {
    let _watchdog = Watchdog::new();
    park_on(async {
        let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
        let session = async {
            ping_through(&client, &server).await;
            ping_through(&server, &client).await;
            client.close_write().unwrap();
            server.close_write().unwrap();
        };
        let (counts, ()) = futures::join!(copy_bidirectional(&mut inbound, &mut outbound), session);
        assert_eq!(counts.unwrap(), (4, 4));
    });
}

/// The futures of copies are `Send`, so a task that awaits them can be spawned.
#[test]
fn copy_futures_are_send() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    run(async {
        let ((client, mut inbound), (mut outbound, server)) = (pair().await, pair().await);
        drop((client, server));
        assert_eq!(is_send(copy(&mut inbound, &mut outbound)).await.unwrap(), 0);
        assert_eq!(is_send(copy_bidirectional(&mut inbound, &mut outbound)).await.unwrap(), (0, 0));
    });
}
