//! TCP Fast Open: connect(2) defers the connection to the first data. The first wait starts a
//! deferred connection, and a close loses no data.
//!
//! The client's sockets need no cookie (TCP_FASTOPEN_NO_COOKIE), so connect(2) defers even the
//! first connection to a server. On a kernel that does not defer, some tests use a plain connect,
//! and the others are skipped.
#![cfg(target_os = "linux")] // TCP_FASTOPEN_CONNECT

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use black_hole::{BlackHole, refusing};
use common::{BOUND, becomes, listener, park_on, poll_once, run};
use futures_io::{AsyncRead, AsyncWrite};
use netpoll::io::{self, ReadExt, WriteExt};
use netpoll::net::{Dialer, Shutdown, TcpListener, TcpStream, is_timeout};
use netpoll::task;

/// The state of a socket that has sent a SYN, or has deferred it (TCP_SYN_SENT).
const SYN_SENT: u8 = 2;
/// An option of linux/tcp.h. The libc crate does not have it for all targets.
const TCP_FASTOPEN_NO_COOKIE: libc::c_int = 34;

fn set_int(fd: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is valid for the call. The kernel rejects unknown options.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, name, (&raw const value).cast(), size) };
}

/// Returns the state of a TCP socket.
fn state(fd: libc::c_int) -> u8 {
    let mut info = [0_u8; 104];
    let mut size = info.len() as libc::socklen_t;
    // SAFETY: the buffer is valid for writes of `size` bytes.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut size) };
    assert_eq!(result, 0);
    info[0]
}

fn dialer() -> Dialer {
    Dialer::new().fast_open(true).control(|_, _, fd: BorrowedFd<'_>| {
        set_int(fd.as_raw_fd(), TCP_FASTOPEN_NO_COOKIE, 1);
        Ok(())
    })
}

async fn dial(addr: SocketAddr) -> TcpStream {
    dialer().dial(addr).await.unwrap()
}

/// Returns whether the kernel defers connects, and prints a note if not.
fn is_deferring() -> bool {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = task::block_on(dial(listener.local_addr().unwrap()));
    let is_deferring = state(stream.as_raw_fd()) == SYN_SENT;
    if !is_deferring {
        println!("skipped: this kernel does not defer connects");
    }
    is_deferring
}

type Wait = for<'a> fn(&'a TcpStream) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// Operations without data that begin the connection to a server that sends first.
const WAITS: &[(&str, Wait)] = &[
    ("read", |stream| Box::pin(async { stream.read(&mut [0; 1]).await.map(drop) })),
    ("peek", |stream| Box::pin(async { stream.peek(&mut [0; 1]).await.map(drop) })),
    ("read_vectored", |stream| {
        Box::pin(async { stream.read_vectored(&mut [IoSliceMut::new(&mut [0; 1])]).await.map(drop) })
    }),
    ("read with a deadline", |stream| {
        Box::pin(async {
            stream.set_read_deadline(Instant::now() + BOUND)?;
            stream.read(&mut [0; 1]).await.map(drop)
        })
    }),
    ("read with a timeout", |stream| {
        Box::pin(async {
            stream.set_read_timeout(Some(BOUND))?;
            stream.read(&mut [0; 1]).await.map(drop)
        })
    }),
    ("readable", |stream| Box::pin(async { stream.readable().await })),
    ("peer_closed", |stream| Box::pin(async { stream.peer_closed().await })),
    ("poll_readable", |stream| Box::pin(poll_fn(|cx| stream.poll_readable(cx)))),
    ("poll_read", |stream| Box::pin(poll_fn(|cx| Pin::new(&mut &*stream).poll_read(cx, &mut [0; 1])).map_ok_to_unit())),
    ("poll_read_vectored", |stream| {
        Box::pin(
            poll_fn(|cx| Pin::new(&mut &*stream).poll_read_vectored(cx, &mut [IoSliceMut::new(&mut [0; 1])]))
                .map_ok_to_unit(),
        )
    }),
    ("read_to_end", |stream| Box::pin(async { (&mut &*stream).read_to_end(&mut Vec::new()).await.map(drop) })),
    ("read_with", |stream| {
        Box::pin(async {
            let call = |fd: BorrowedFd<'_>| Ok(rustix::io::read(fd, &mut [0_u8; 1])?);
            stream.read_with(call).await.map(drop)
        })
    }),
    ("copy from it", |stream| Box::pin(async { io::copy(&mut &*stream, &mut io::sink()).await.map(drop) })),
    ("copy to it", |stream| {
        Box::pin(async {
            // The source has no data, so the greeting of the stream's peer ends the wait.
            let (_silent, source) = netpoll::os::unix::net::UnixStream::pair()?;
            let copied = async { io::copy(&mut &source, &mut &*stream).await.map(drop) };
            futures_lite::future::or(copied, async { stream.readable().await }).await
        })
    }),
    ("proxy", |stream| {
        Box::pin(async {
            let (client, proxied) = common::pair().await;
            let relay = task::spawn({
                let stream = stream.clone();
                async move { io::copy_bidirectional(&mut &proxied, &mut &stream).await }
            });
            assert_eq!(client.read(&mut [0; 1]).await?, 1);
            drop(client);
            let _ = relay.await;
            Ok(())
        })
    }),
    ("write of nothing", |stream| Box::pin(async { stream.write(b"").await.map(drop) })),
    ("write_all of nothing", |stream| Box::pin(async { stream.write_all(b"").await })),
    ("write_vectored of nothing", |stream| {
        Box::pin(async { stream.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).await.map(drop) })
    }),
    ("write_vectored_all of nothing", |stream| Box::pin(async { stream.write_vectored_all(&mut []).await })),
    ("poll_write of nothing", |stream| {
        Box::pin(poll_fn(|cx| Pin::new(&mut &*stream).poll_write(cx, b"")).map_ok_to_unit())
    }),
    ("close_write", |stream| {
        Box::pin(async {
            stream.close_write()?;
            stream.read(&mut [0; 1]).await.map(drop)
        })
    }),
    ("shutdown of writing", |stream| {
        Box::pin(async {
            stream.shutdown(Shutdown::Write)?;
            stream.readable().await
        })
    }),
    ("close of the traits", |stream| {
        Box::pin(async {
            WriteExt::close(&mut &*stream).await?;
            stream.read(&mut [0; 1]).await.map(drop)
        })
    }),
    ("close_read", |stream| Box::pin(async { stream.close_read() })),
];

trait MapOkToUnit: Future + Sized {
    fn map_ok_to_unit<T>(self) -> impl Future<Output = io::Result<()>>
    where
        Self: Future<Output = io::Result<T>>,
    {
        async { self.await.map(drop) }
    }
}
impl<F: Future> MapOkToUnit for F {}

async fn check_first_wait(name: &str, wait: Wait) {
    check_first_wait_of(dialer(), name, wait).await;
}

/// Asserts that `wait` begins a connection that `dialer` has deferred: the server accepts it, and
/// its greeting ends the wait.
async fn check_first_wait_of(dialer: Dialer, name: &str, wait: Wait) {
    let listener = listener().await;
    let stream = dialer.dial(listener.local_addr().unwrap()).await.unwrap();
    let client = async {
        let waited = wait(&stream).await;
        waited.unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    let server = async {
        let (peer, _) = listener.accept().await.unwrap();
        // Sends the greeting. This may fail if the client has already shut down its side.
        let _ = peer.write_all(b"220 ready\r\n").await;
        let _ = peer.close_write();
        peer
    };
    futures_lite::future::zip(client, server).await;
}

#[test]
fn first_wait_begins_deferred_connect() {
    for &(name, wait) in WAITS {
        println!("{name}");
        run(check_first_wait(name, wait));
    }
}

/// Runs the first waits under another executor.
#[test]
fn first_wait_begins_deferred_connect_on_foreign_executor() {
    let _watchdog = common::Watchdog::new();
    for &(name, wait) in WAITS {
        park_on(check_first_wait(name, wait));
    }
}

#[test]
fn first_wait_begins_deferred_connect_on_workers() {
    run(async {
        let tasks: Vec<_> =
            (0..4).flat_map(|_| WAITS).map(|&(name, wait)| task::spawn(check_first_wait(name, wait))).collect();
        for task in tasks {
            task.await;
        }
    });
}

/// Runs the first waits with other options of the dialer: multipath TCP if available; no default
/// options and no stagger; a local address.
#[test]
fn first_wait_begins_deferred_connect_with_other_options() {
    for &(name, wait) in WAITS {
        run(check_first_wait_of(dialer().multipath(true), name, wait));
        run(check_first_wait_of(dialer().defaults(false).stagger(None), name, wait));
        run(check_first_wait_of(dialer().local_addr(SocketAddr::from(([127, 0, 0, 7], 0))), name, wait));
    }
}

/// Other code has connected the socket before the conversion.
#[test]
fn first_wait_begins_connect_of_adopted_socket() {
    run(async {
        for way in 0..3 {
            let listener = listener().await;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            set_int(socket.as_raw_fd(), libc::TCP_FASTOPEN_CONNECT, 1);
            set_int(socket.as_raw_fd(), TCP_FASTOPEN_NO_COOKIE, 1);
            let connected = socket.connect(&listener.local_addr().unwrap().into());
            assert!(connected.is_ok() || state(socket.as_raw_fd()) != SYN_SENT);
            let stream = match way {
                0 => TcpStream::from(std::net::TcpStream::from(socket)),
                1 => TcpStream::from(OwnedFd::from(socket)),
                // SAFETY: `into_raw_fd` just transferred ownership of the number.
                _ => unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) },
            };
            let client = async { stream.read(&mut [0; 8]).await.unwrap() };
            let server = async { listener.accept().await.unwrap().0.write_all(b"220").await.unwrap() };
            assert_eq!(futures_lite::future::zip(client, server).await.0, 3);
        }
    });
}

/// A function that closes a stream or shuts it down. The caller drops the returned stream later.
type End = fn(TcpStream) -> Option<TcpStream>;

/// Data sent with the SYN arrives, although the stream is closed or shut down before the handshake
/// ends.
#[test]
fn syn_data_survives_close_and_shutdown() {
    syn_data_survives(false, &["all of it"]);
}

/// The data was gathered, and the close or the shutdown sends it.
#[test]
fn gathered_syn_data_survives_close_and_shutdown() {
    syn_data_survives(true, &["all of it"]);
}

/// The SYN carries a part of the data. The rest is gathered, and the socket does not accept it
/// before the handshake ends.
#[test]
fn data_gathered_after_syn_survives_close_and_shutdown() {
    syn_data_survives(true, &["all ", "of it"]);
}

fn syn_data_survives(gathers: bool, pieces: &[&str]) {
    if !is_deferring() {
        return;
    }
    let _watchdog = common::Watchdog::new();
    let ends: [(&str, End); 6] = [
        ("drop", |stream| {
            drop(stream);
            None
        }),
        ("force_close", |stream| {
            drop(stream.force_close());
            None
        }),
        ("close_write", |stream| {
            stream.close_write().unwrap();
            Some(stream)
        }),
        ("shutdown of both", |stream| {
            stream.shutdown(Shutdown::Both).unwrap();
            Some(stream)
        }),
        ("close of the traits", |stream| {
            task::block_on(WriteExt::close(&mut &stream)).unwrap();
            Some(stream)
        }),
        ("close_write and drop", |stream| {
            stream.close_write().unwrap();
            None
        }),
    ];
    for (name, end) in ends {
        // The traits' close waits until the socket has accepted everything.
        if name == "close of the traits" && pieces.len() > 1 {
            continue;
        }
        println!("{name}");
        let busy = BlackHole::new();
        let kept = task::block_on(async {
            let stream = dial(busy.addr).await;
            stream.set_auto_cork(gathers).unwrap();
            for piece in pieces {
                // The end of the turn sends the gathered bytes.
                task::yield_now().await;
                assert_eq!(stream.write(piece.as_bytes()).await.unwrap(), piece.len(), "{name}");
            }
            end(stream)
        });
        let listener = TcpListener::from(busy.serve());
        task::block_on(async {
            // The connections that filled the queue may still be in it. They send nothing.
            loop {
                let (peer, _) = listener.accept().await.unwrap();
                let mut all = Vec::new();
                peer.set_read_timeout(Some(BOUND)).unwrap();
                let read = (&mut &peer).read_to_end(&mut all).await;
                if read.is_ok() && all == b"all of it" {
                    break;
                }
                assert!(all.is_empty(), "{name}: {:?}, {read:?}", all.escape_ascii().to_string());
            }
        });
        drop(kept);
    }
}

/// The first write has more data than fits into a SYN.
#[test]
fn first_data_arrives_by_every_write_path() {
    const LONG: usize = 300_000;
    let expected: Vec<u8> = (0..LONG).map(|index| (index % 251) as u8).collect();
    run(async {
        for way in ["write_all", "write_vectored_all", "poll_write", "splice", "sendfile", "zerocopy", "write_with"] {
            let listener = listener().await;
            let stream = dial(listener.local_addr().unwrap()).await;
            let bytes = expected.clone();
            let client = task::spawn(async move {
                match way {
                    "write_all" => stream.write_all(&bytes).await.unwrap(),
                    "write_vectored_all" => {
                        let mut bufs: Vec<_> = bytes.chunks(1000).map(IoSlice::new).collect();
                        stream.write_vectored_all(&mut bufs).await.unwrap();
                    }
                    "poll_write" => WriteExt::write_all(&mut &stream, &bytes).await.unwrap(),
                    "splice" => {
                        let (from, source) = common::pair().await;
                        let feed = task::spawn(async move { from.write_all(&bytes).await });
                        io::copy(&mut &source, &mut &stream).await.unwrap();
                        feed.await.unwrap();
                    }
                    "sendfile" => {
                        let folder = common::Folder::new();
                        std::fs::write(folder.join("file"), &bytes).unwrap();
                        let file = std::fs::File::open(folder.join("file")).unwrap();
                        let sent = stream.send_file(&file, 0, LONG as u64).await.unwrap();
                        assert_eq!(sent, LONG as u64);
                    }
                    "zerocopy" => {
                        stream.set_zerocopy(true).unwrap();
                        stream.send_zerocopy(bytes).await.unwrap();
                    }
                    _ => {
                        let mut rest = &bytes[..];
                        while !rest.is_empty() {
                            let call = |fd: BorrowedFd<'_>| Ok(rustix::io::write(fd, rest)?);
                            let count = stream.write_with(call).await.unwrap();
                            rest = &rest[count..];
                        }
                    }
                }
                stream
            });
            let (peer, _) = listener.accept().await.unwrap();
            let mut got = vec![0; LONG];
            common::read_exact(&peer, &mut got).await.unwrap();
            assert!(got == expected, "{way}");
            drop(client.await);
        }
    });
}

/// The server answers after it has read to the end of the stream.
#[test]
fn fin_without_data_reaches_server() {
    if !is_deferring() {
        return;
    }
    run(async {
        let busy = BlackHole::new();
        let stream = dial(busy.addr).await;
        stream.close_write().unwrap();
        let mut buf = [0; 8];
        let mut read = stream.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending());
        let listener = TcpListener::from(busy.serve());
        let server = async {
            loop {
                let (peer, _) = listener.accept().await.unwrap();
                if peer.read(&mut [0; 1]).await.is_ok_and(|count| count == 0) && peer.write_all(b"done").await.is_ok() {
                    return peer;
                }
            }
        };
        let (count, _peer) = futures_lite::future::zip(async { read.await.unwrap() }, server).await;
        assert_eq!(count, 4);
    });
}

/// If no operation has waited, there is no connection. If an operation has waited but no data was
/// written, there is nothing to deliver.
#[test]
fn close_without_data_is_immediate() {
    if !is_deferring() {
        return;
    }
    run(async {
        let listener = listener().await;
        let stream = dial(listener.local_addr().unwrap()).await;
        stream.force_close().await.unwrap();
        drop(stream);
        let mut accept = listener.accept();
        assert!(poll_once(&mut accept).await.is_pending(), "no connection was made");

        let busy = BlackHole::new();
        let stream = dial(busy.addr).await;
        let mut buf = [0; 1];
        let mut read = stream.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending());
        stream.force_close().await.unwrap();
        assert!(netpoll::net::is_closed(&read.await.unwrap_err()));
    });
}

/// Dropping the socket ends a connect in progress that has no data to send.
#[test]
fn dropped_connect_in_progress_is_closed_at_once() {
    if !is_deferring() {
        return;
    }
    common::child("dropped_connect_in_progress_is_closed_at_once", || {
        run(async {
            common::warm_up().await;
            let busy = BlackHole::new();
            let before = common::fd_count();
            for waits in [false, true] {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let error = socket.connect(&busy.addr.into()).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
                let stream = TcpStream::from(OwnedFd::from(socket));
                if waits {
                    assert!(poll_once(&mut stream.writable()).await.is_pending());
                }
                drop(stream);
                assert_eq!(common::fd_count(), before);
            }
            // A deferred connection that a wait has begun is also closed at once.
            let stream = dial(busy.addr).await;
            assert!(poll_once(&mut stream.readable()).await.is_pending());
            drop(stream);
            assert_eq!(common::fd_count(), before);
        });
    });
}

#[test]
fn deadline_ends_first_wait_on_silent_server() {
    if !is_deferring() {
        return;
    }
    run(async {
        let busy = BlackHole::new();
        let stream = dial(busy.addr).await;
        stream.set_deadline(Instant::now() + Duration::from_millis(50)).unwrap();
        assert!(is_timeout(&stream.read(&mut [0; 1]).await.unwrap_err()));
        stream.set_deadline(None).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(is_timeout(&stream.peek(&mut [0; 1]).await.unwrap_err()));
        let mut write = stream.write(b"x");
        assert!(poll_once(&mut write).await.is_pending(), "the wait has begun the connection, without data");
    });
}

#[test]
fn first_wait_reports_refused_connection() {
    run(async {
        let (_socket, addr) = refusing();
        for operation in ["read", "readable", "empty write", "data"] {
            let stream = match dialer().dial(addr).await {
                Ok(stream) => stream,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                    return println!("this kernel does not defer connects");
                }
            };
            let error = match operation {
                "read" => stream.read(&mut [0; 1]).await.unwrap_err(),
                "readable" => {
                    stream.readable().await.unwrap();
                    stream.read(&mut [0; 1]).await.unwrap_err()
                }
                "empty write" => stream.write(b"").await.unwrap_err(),
                _ => match stream.write(b"data").await {
                    Ok(_) => stream.read(&mut [0; 1]).await.unwrap_err(),
                    Err(error) => error,
                },
            };
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{operation}: {error}");
        }
    });
}

/// The first write does not wait for the handshake, but the second does.
#[test]
fn first_write_goes_with_syn() {
    if !is_deferring() {
        return;
    }
    run(async {
        let busy = BlackHole::new();
        let stream = dial(busy.addr).await;
        assert!(matches!(poll_once(&mut stream.write(b"early")).await, Poll::Ready(Ok(5))));
        assert_eq!(state(stream.as_raw_fd()), SYN_SENT);
        let mut second = stream.write_all(b" late");
        assert!(poll_once(&mut second).await.is_pending());
        let listener = TcpListener::from(busy.serve());
        let server = async {
            loop {
                let (peer, _) = listener.accept().await.unwrap();
                let mut buf = [0; 10];
                if common::read_exact(&peer, &mut buf).await.is_ok() {
                    assert_eq!(&buf, b"early late");
                    return;
                }
            }
        };
        futures_lite::future::zip(async { second.await.unwrap() }, server).await;
    });
}

/// A task that completes a close in the background ends and frees the descriptor, whether the
/// connection is established or refused. An unused connection is closed at once.
#[test]
fn deferred_closes_leak_no_descriptor() {
    if !is_deferring() {
        return;
    }
    common::child("deferred_closes_leak_no_descriptor", || {
        run(async {
            common::warm_up().await;
            let before = common::fd_count();
            {
                let listener = listener().await;
                for round in 0..30 {
                    let stream = dial(listener.local_addr().unwrap()).await;
                    match round % 3 {
                        0 => drop(stream.write(b"x").await.unwrap()),
                        1 => stream.close_write().unwrap(),
                        _ => {}
                    }
                }
                let busy = BlackHole::new();
                let stream = dial(busy.addr).await;
                stream.write(b"x").await.unwrap();
                drop(stream);
                // From here on, the connection is refused.
                drop(busy);
            }
            becomes("all descriptors are closed", || common::fd_count() == before).await;
        });
    });
}

/// The first data may be gathered by [`Dialer::auto_cork`].
#[test]
fn gathered_data_begins_deferred_connect() {
    run(async {
        let listener = listener().await;
        for flushes in [false, true] {
            let stream = dialer().auto_cork(true).dial(listener.local_addr().unwrap()).await.unwrap();
            let client = task::spawn(async move {
                stream.write_all(b"all ").await.unwrap();
                stream.write_all(b"of it").await.unwrap();
                if flushes {
                    stream.flush().await.unwrap();
                }
            });
            let (server, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            (&server).read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"all of it");
            client.await;
        }
    });
}

/// The drop of a connection in progress starts a task that waits for the handshake, unless the
/// runtime was shut down.
#[test]
fn drop_of_connection_in_progress_after_shutdown_starts_no_runtime() {
    if !is_deferring() {
        return;
    }
    common::child("drop_of_connection_in_progress_after_shutdown_starts_no_runtime", || {
        let busy = BlackHole::new();
        let stream = task::block_on(async {
            let stream = dial(busy.addr).await;
            assert_eq!(stream.write(b"x").await.unwrap(), 1);
            stream
        });
        netpoll::rt::shutdown(BOUND).unwrap();
        drop(stream);
        netpoll::rt::Builder::new().workers(1).start().expect("no runtime has started");
    });
}
