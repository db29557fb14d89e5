//! The system calls with which operations use sockets fail once with each errno of their man pages.
//! The crate repeats the call, uses another method, returns the error or ignores it, and the socket
//! works afterwards. No operation hangs, panics or leaks. Only a failed wait for events aborts the
//! process.
//!
//! Each row of the tables is an operation and a system call that it makes. Each cell is one errno,
//! which `faults` injects into the call. The tables omit calls that fail only if an argument is
//! invalid (such as clock_gettime, the signal calls and sysconf) and getaddrinfo, which has its own
//! codes (`src/sys/names.rs`).
#![cfg(target_os = "linux")] // epoll, and the C library's functions

mod common;
mod faults;

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::time::{Duration, Instant};

use common::{
    Folder, becomes, child, child_on_epoll, fd_count, is_child, listener, pair, park_on, ping_pong, poll_once, run,
};
use faults::{Injection, inject, inject_after, watch};
use libc::*;
use netpoll::__private::ListenerView;
use netpoll::io::AsyncFd;
use netpoll::net::{
    Ancillary, RecvBatch, SendBatch, Shutdown, TcpListener, TcpStream, UdpSocket, is_closed, raw_os_error,
};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixSeqpacketListener, UnixStream};
use netpoll::prelude::StreamExt;
use netpoll::{future, rt, task};

/// The effect of a fault on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The operation succeeds: the call is repeated, another method is used, or nothing depends on
    /// the call.
    Done,
    /// The operation fails with this errno. The socket works afterwards, or is closed if it was
    /// being created.
    Surfaced,
}
use Outcome::{Done, Surfaced};

struct Row {
    /// The operation that [`cell`] performs. With the suffix `, made`, the call is made, and then
    /// its result is replaced by the errno.
    operation: &'static str,
    /// The system call that fails.
    call: &'static str,
    cells: &'static [(Outcome, &'static [i32])],
}

const fn row(operation: &'static str, call: &'static str, cells: &'static [(Outcome, &'static [i32])]) -> Row {
    Row { operation, call, cells }
}

/// Errnos of reads, except the two that mean "try again".
const READ: &[i32] = &[EBADF, ECONNREFUSED, ECONNRESET, EFAULT, EINVAL, EIO, ENOMEM, ENOTCONN, ENOTSOCK, ETIMEDOUT];
/// Errnos of writes, except the two that mean "try again".
const WRITE: &[i32] = &[
    EACCES,
    EALREADY,
    EBADF,
    ECONNRESET,
    EDESTADDRREQ,
    EFAULT,
    EINVAL,
    EISCONN,
    EMSGSIZE,
    ENOBUFS,
    ENOMEM,
    ENOTCONN,
    ENOTSOCK,
    EOPNOTSUPP,
    EPIPE,
    EPERM,
    ENETUNREACH,
    EHOSTUNREACH,
    ENETDOWN,
];
/// [`WRITE`] without EINVAL and EMSGSIZE, after which the datagrams are sent without segmentation.
const WRITE_MANY: &[i32] = &[
    EACCES,
    EALREADY,
    EBADF,
    ECONNRESET,
    EDESTADDRREQ,
    EFAULT,
    EISCONN,
    ENOBUFS,
    ENOMEM,
    ENOTCONN,
    ENOTSOCK,
    EOPNOTSUPP,
    EPIPE,
    EPERM,
    ENETUNREACH,
    EHOSTUNREACH,
    ENETDOWN,
];
/// The two errnos that mean "try again".
const AGAIN: &[i32] = &[EINTR, EAGAIN];

const MATRIX: &[Row] = &[
    row("read", "recv", &[(Done, AGAIN), (Surfaced, READ)]),
    row("read_vectored", "readv", &[(Done, AGAIN), (Surfaced, READ)]),
    row("recv_from", "recvfrom", &[(Done, AGAIN), (Surfaced, READ)]),
    row("recv_msg", "recvmsg", &[(Done, AGAIN), (Surfaced, READ)]),
    row("recv_many", "recvmmsg", &[(Done, AGAIN), (Surfaced, READ)]),
    row("write", "send", &[(Done, AGAIN), (Surfaced, WRITE)]),
    row("write_vectored", "sendmsg", &[(Done, AGAIN), (Surfaced, WRITE)]),
    row("send_to", "sendto", &[(Done, AGAIN), (Surfaced, WRITE)]),
    row("send_msg", "sendmsg", &[(Done, AGAIN), (Surfaced, WRITE)]),
    // Three errnos may mean that the kernel cannot segment the datagrams, which are then sent
    // without segmentation.
    row("send_many", "sendmmsg", &[(Done, AGAIN), (Done, &[EINVAL, EMSGSIZE, EIO]), (Surfaced, WRITE_MANY)]),
    row(
        "accept",
        "accept4",
        &[
            (Done, &[EINTR, EAGAIN, ECONNABORTED, EPROTO, ENOPROTOOPT, EPERM, EOPNOTSUPP]),
            (Done, &[ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH, ENONET]),
            (Surfaced, &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EBADF, EFAULT, EINVAL, ENOTSOCK]),
            (Surfaced, &[ENOSR, ESOCKTNOSUPPORT, EPROTONOSUPPORT, ETIMEDOUT]),
        ],
    ),
    // A loop over `incoming` waits for the missing resource and continues.
    row(
        "incoming",
        "accept4",
        &[(Done, &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EINTR, EAGAIN, ECONNABORTED]), (Surfaced, &[EBADF, EINVAL])],
    ),
    row(
        "connect",
        "connect",
        &[
            // EADDRNOTAVAIL: the dial tries another port, at most twice.
            (Done, &[EADDRNOTAVAIL]),
            (Surfaced, &[EACCES, EPERM, EADDRINUSE, EAFNOSUPPORT, EAGAIN, EBADF, ECONNREFUSED, EFAULT, ENETUNREACH]),
            (Surfaced, &[EHOSTUNREACH, ENOTSOCK, EPROTOTYPE, ETIMEDOUT]),
        ],
    ),
    // The connect is in progress or complete.
    row("connect, made", "connect", &[(Done, &[EINPROGRESS, EALREADY, EINTR, EISCONN])]),
    row(
        "connect unix",
        "connect unix",
        &[
            (Done, &[EINTR, EAGAIN]),
            (Surfaced, &[EACCES, EPERM, ENOENT, ENOTDIR, ELOOP, EADDRINUSE, EBADF, ECONNREFUSED, EFAULT, ENOTSOCK]),
            (Surfaced, &[EPROTOTYPE, ENAMETOOLONG]),
        ],
    ),
    row(
        "bind",
        "socket",
        &[(Surfaced, &[EACCES, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT])],
    ),
    row(
        "connect",
        "socket",
        &[(Surfaced, &[EACCES, EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT])],
    ),
    row("bind", "bind", &[(Surfaced, &[EACCES, EADDRINUSE, EADDRNOTAVAIL, EBADF, EINVAL, ENOTSOCK, EFAULT, ENOMEM])]),
    row(
        "bind unix",
        "bind",
        &[(Surfaced, &[EACCES, EADDRINUSE, EBADF, EINVAL, ENOTSOCK, EFAULT, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM])],
    ),
    row("bind unix", "bind", &[(Surfaced, &[ENOTDIR, EROFS])]),
    row("bind", "listen", &[(Surfaced, &[EADDRINUSE, EBADF, ENOTSOCK, EOPNOTSUPP])]),
    row("bind unix", "listen", &[(Surfaced, &[EADDRINUSE, EBADF, ENOTSOCK, EOPNOTSUPP])]),
    row("unix pair", "socketpair", &[(Surfaced, &[EAFNOSUPPORT, EFAULT, EMFILE, ENFILE, EOPNOTSUPP, EPROTONOSUPPORT])]),
    row("ttl", "getsockopt", &[(Surfaced, &[EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK])]),
    row("set_ttl", "setsockopt", &[(Surfaced, &[EBADF, EDOM, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK, ENOMEM, EPERM])]),
    row("shutdown", "shutdown", &[(Surfaced, &[EBADF, EINVAL, ENOTCONN, ENOTSOCK])]),
    row("local_addr", "getsockname", &[(Surfaced, &[EBADF, EFAULT, EINVAL, ENOBUFS, ENOTSOCK])]),
    row("peer_addr", "getpeername", &[(Surfaced, &[EBADF, EFAULT, EINVAL, ENOBUFS, ENOTCONN, ENOTSOCK])]),
    // The caller can do nothing about the error, and the number is free.
    row("close", "close", &[(Done, &[EINTR, EIO, ENOSPC, EDQUOT, EBADF])]),
    row("AsyncFd::new", "fcntl F_GETFL", &[(Surfaced, &[EBADF, EACCES, EINVAL])]),
    row("AsyncFd::new", "fcntl F_SETFL", &[(Surfaced, &[EBADF, EPERM, EINVAL])]),
    // If the kernel refuses, bytes go through a buffer. `copy_without_pipe_uses_buffer` tests
    // copies without a pipe.
    row("copy", "splice", &[(Done, &[EINTR, EAGAIN, EINVAL]), (Surfaced, &[EBADF, ENOMEM, ESPIPE])]),
    row(
        "send_file",
        "sendfile64",
        &[(Done, &[EINTR, EAGAIN, EINVAL, ENOSYS]), (Surfaced, &[EBADF, EFAULT, EIO, ENOMEM, EOVERFLOW, ESPIPE])],
    ),
    // The receiver's queue is full. The operation calls poll(2) to check the send buffer.
    row("send to a full queue", "poll", &[(Done, &[EINTR]), (Surfaced, &[EFAULT, EINVAL, ENOMEM])]),
];

/// The calls of the epoll back end.
const EPOLL_MATRIX: &[Row] = &[
    row(
        "first wait",
        "epoll_ctl ADD",
        // EEXIST: the open file description is already registered under this number, so the
        // registration is changed. `descriptor_rejected_by_epoll_is_invalid_input` tests EPERM.
        &[(Done, &[EEXIST]), (Surfaced, &[EBADF, EINVAL, ELOOP, ENOENT, ENOMEM, ENOSPC])],
    ),
    row("first wait after EEXIST", "epoll_ctl MOD", &[(Done, &[EBADF, EINVAL, ENOENT, ENOMEM])]),
    row("close of an exposed socket", "epoll_ctl DEL", &[(Done, &[EBADF, EINVAL, ENOENT])]),
    row("sleep and wait", "epoll_wait", &[(Done, &[EINTR])]),
    row("sleep and wait", "epoll_pwait2", &[(Done, &[EINTR])]),
    // EAGAIN means that the counter is full, so the event is pending.
    row("wake from outside, made", "write", &[(Done, &[EAGAIN])]),
    row("wake from outside", "write", &[(Done, &[EINTR])]),
];

/// The result of an operation with a fault, and how often the fault occurred.
type Result = (io::Result<()>, usize);

fn ended<T>(result: io::Result<T>, fault: Injection) -> Result {
    (result.map(drop), fault.hits())
}

/// Asserts that one read returns `hello`, all of the peer's data.
async fn expect_hello(stream: &TcpStream) {
    let mut buf = [0; 8];
    assert_eq!(stream.read(&mut buf).await.unwrap(), 5);
    assert_eq!(&buf[..5], b"hello");
}

async fn tcp(operation: &str, call: &'static str, errno: i32) -> Result {
    let (client, server) = pair().await;
    let fd = client.as_raw_fd();
    let result = match operation {
        "read" | "read_vectored" => {
            server.write_all(b"hello").await.unwrap();
            let mut buf = [0; 8];
            let (one, two) = buf.split_at_mut(2);
            let fault = inject(call, fd, errno, 1);
            let read = match operation {
                "read" => client.read(&mut buf).await,
                _ => client.read_vectored(&mut [IoSliceMut::new(one), IoSliceMut::new(two)]).await,
            };
            match &read {
                Ok(count) => assert_eq!((*count, &buf[..5]), (5, &b"hello"[..])),
                Err(_) => expect_hello(&client).await,
            }
            ended(read, fault)
        }
        "write" | "write_vectored" => {
            let fault = inject(call, fd, errno, 1);
            let written = match operation {
                "write" => client.write(b"hello").await,
                _ => client.write_vectored(&[IoSlice::new(b"he"), IoSlice::new(b"llo")]).await,
            };
            if written.is_ok() {
                expect_hello(&server).await;
            }
            ended(written, fault)
        }
        "ttl" => {
            let fault = inject(call, fd, errno, 1);
            ended(client.ttl(), fault)
        }
        "set_ttl" => {
            let fault = inject(call, fd, errno, 1);
            ended(client.set_ttl(64), fault)
        }
        "shutdown" => {
            let fault = inject(call, fd, errno, 1);
            ended(client.shutdown(Shutdown::Write), fault)
        }
        "first wait" | "first wait after EEXIST" => {
            let exists = (operation != "first wait").then(|| inject("epoll_ctl ADD", fd, EEXIST, 1));
            let fault = inject(call, fd, errno, 1);
            let mut buf = [0; 8];
            let mut read = client.read(&mut buf);
            let read = match poll_once(&mut read).await {
                std::task::Poll::Ready(read) => read,
                std::task::Poll::Pending => {
                    server.write_all(b"hello").await.unwrap();
                    read.await
                }
            };
            assert!(exists.is_none_or(|exists| exists.hits() == 1));
            ended(read, fault)
        }
        other => unreachable!("{other}"),
    };
    ping_pong(&client, &server).await;
    result
}

async fn udp(operation: &str, call: &'static str, errno: i32) -> Result {
    let (client, server) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (to, own) = (server.local_addr().unwrap(), client.local_addr().unwrap());
    let fd = client.as_raw_fd();
    let mut buf = [0; 8];
    if operation.starts_with("recv") {
        server.send_to(b"hello", own).await.unwrap();
        let fault = inject(call, fd, errno, 1);
        let received = match operation {
            "recv_from" => client.recv_from(&mut buf).await.map(|(count, _)| count),
            "recv_msg" => client.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await.map(|info| info.len),
            _ => {
                let mut batch = RecvBatch::new(4, 64);
                let many = client.recv_many(&mut batch).await;
                many.map(|_| batch.get(0).map_or(0, |datagram| datagram.bytes().len()))
            }
        };
        match &received {
            Ok(count) => assert_eq!(*count, 5),
            Err(_) => {
                assert_eq!(client.recv_from(&mut buf).await.unwrap(), (5, to), "the datagram is still in the queue")
            }
        }
        return ended(received, fault);
    }
    let fault = inject(call, fd, errno, 1);
    let sent = match operation {
        "send_to" => client.send_to(b"hello", to).await,
        "send_msg" => client.send_msg(&[IoSlice::new(b"hello")], to, &Ancillary::default()).await,
        _ => {
            let mut batch = SendBatch::new();
            batch.push(b"hello", to);
            client.send_many(&mut batch).await
        }
    };
    if sent.is_err() {
        client.send_to(b"hello", to).await.unwrap();
    }
    assert_eq!(server.recv_from(&mut buf).await.unwrap(), (5, own), "one datagram");
    assert!(poll_once(&mut server.recv_from(&mut buf)).await.is_pending(), "and no other data");
    ended(sent, fault)
}

async fn accepting(operation: &str, call: &'static str, errno: i32) -> Result {
    let listener = listener().await;
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let fault = inject(call, listener.as_raw_fd(), errno, 1);
    let accepted = match operation {
        "accept" => listener.accept().await.map(|(stream, _)| stream),
        _ => {
            let mut incoming = listener.incoming();
            std::future::poll_fn(|cx| futures_core::Stream::poll_next(Pin::new(&mut incoming), cx)).await.unwrap()
        }
    };
    let (result, server) = match accepted {
        Ok(server) => (Ok(()), server),
        // The connection stays in the queue.
        Err(error) => (Err(error), listener.accept().await.unwrap().0),
    };
    ping_pong(&client, &server).await;
    ended(result, fault)
}

async fn connecting(operation: &str, call: &'static str, errno: i32) -> Result {
    let listener = listener().await;
    let addr = listener.local_addr().unwrap();
    let fault = if operation == "connect" { inject(call, None, errno, 1) } else { inject_after(call, None, errno, 1) };
    let connected = TcpStream::connect(addr).await;
    let result =
        connected.as_ref().map(drop).map_err(|error| io::Error::from_raw_os_error(raw_os_error(error).unwrap()));
    if let Err(error) = &connected {
        assert!(error.to_string().starts_with(&format!("dial tcp {addr}: ")), "{error}");
    }
    let client = match connected {
        Ok(client) => client,
        Err(_) => TcpStream::connect(addr).await.unwrap(),
    };
    // Sockets of failed attempts may precede this connection in the queue.
    let own = client.local_addr().unwrap();
    let server = loop {
        let (server, peer) = listener.accept().await.unwrap();
        if peer == own {
            break server;
        }
    };
    ping_pong(&client, &server).await;
    ended(result, fault)
}

async fn binding(operation: &str, call: &'static str, errno: i32) -> Result {
    let folder = Folder::new();
    let fault = inject(call, None, errno, 1);
    let bound = match operation {
        "bind" => TcpListener::bind("127.0.0.1:0").await.map(drop),
        "bind unix" => UnixListener::bind(folder.join("s")).await.map(drop),
        _ => UnixStream::pair().map(drop),
    };
    match operation {
        "bind" => drop(TcpListener::bind("127.0.0.1:0").await.unwrap()),
        "bind unix" => drop(UnixListener::bind(folder.join("t")).await.unwrap()),
        _ => drop(UnixStream::pair().unwrap()),
    }
    ended(bound, fault)
}

async fn connecting_unix(call: &'static str, errno: i32) -> Result {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.join("s")).await.unwrap();
    let fault = inject(call, None, errno, 1);
    let connected = UnixStream::connect(folder.join("s")).await;
    drop(UnixStream::connect(folder.join("s")).await.unwrap());
    listener.accept().await.unwrap();
    ended(connected, fault)
}

/// Reads the local or the peer address of a converted socket.
async fn naming(operation: &str, call: &'static str, errno: i32) -> Result {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let std = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    std.connect(udp.local_addr().unwrap()).unwrap();
    let foreign = UdpSocket::from(std);
    let fault = inject(call, foreign.as_raw_fd(), errno, 1);
    let name = match operation {
        "local_addr" => foreign.local_addr(),
        _ => foreign.peer_addr(),
    };
    foreign.local_addr().unwrap();
    foreign.peer_addr().unwrap();
    ended(name, fault)
}

async fn closing(operation: &str, call: &'static str, errno: i32) -> Result {
    let (client, server) = pair().await;
    if operation == "close of an exposed socket" {
        client.control(|_| Ok(())).unwrap();
    }
    let mut buf = [0; 1];
    assert!(poll_once(&mut client.read(&mut buf)).await.is_pending(), "the socket is registered");
    let fault = inject(call, common::number(&client), errno, 3);
    let closed = client.force_close().await;
    assert_eq!(server.read(&mut buf).await.unwrap(), 0, "the socket is closed, not leaked");
    assert_eq!(fault.hits(), 1, "the call is not repeated: after close(2) the number may be in use again");
    ended(closed, fault)
}

/// Makes the poller wait, with a time limit and without one, until the fault has occurred.
async fn waiting(call: &'static str, errno: i32) -> Result {
    let (client, server) = pair().await;
    let fault = inject(call, None, errno, 1);
    let start = Instant::now();
    while fault.hits() == 0 && start.elapsed() < common::BOUND / 2 {
        task::sleep(Duration::from_micros(300)).await;
        let peer = std::thread::spawn({
            let server = server.clone();
            move || park_on(async { server.write_all(b"hello").await })
        });
        expect_hello(&client).await;
        peer.join().unwrap().unwrap();
    }
    ended(Ok(()), fault)
}

/// Returns the runtime's eventfd, found by its type.
fn breaker() -> i32 {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let found = entries.filter(|entry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("eventfd"))
    });
    found.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).next().expect("an eventfd")
}

async fn waking(operation: &str, call: &'static str, errno: i32) -> Result {
    let (client, _server) = pair().await;
    assert!(poll_once(&mut client.read(&mut [0; 1])).await.is_pending(), "the poller exists");
    let fault = match operation {
        "wake from outside" => inject(call, breaker(), errno, 1),
        _ => inject_after(call, breaker(), errno, 1),
    };
    let start = Instant::now();
    while fault.hits() == 0 && start.elapsed() < common::BOUND / 2 {
        // After the pause of the new thread, the runtime usually sleeps in epoll. The thread spawns
        // a task, because on a busy machine a worker may poll, and this future could then be woken
        // without a write.
        let (send, receive) = futures::channel::oneshot::channel();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(2));
            park_on(task::spawn(async move { send.send(()).unwrap() }));
        });
        receive.await.unwrap();
        thread.join().unwrap();
    }
    ended(Ok(()), fault)
}

async fn wrapping(call: &'static str, errno: i32) -> Result {
    let (mine, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
    let fault = inject(call, mine.as_raw_fd(), errno, 1);
    let wrapped = AsyncFd::new(mine.as_fd()).map(drop);
    let again = AsyncFd::new(mine.as_fd()).unwrap();
    other.write_all(b"x").unwrap();
    again.readable().await.unwrap().retain_ready();
    ended(wrapped, fault)
}

/// Copies from one connection to another, or from a file.
async fn copying(operation: &str, call: &'static str, errno: i32) -> Result {
    let (source, mut from) = pair().await;
    let (mut to, sink) = pair().await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let reader = task::spawn(async move {
        let mut got = Vec::new();
        let mut buf = [0; 8192];
        while let Ok(count @ 1..) = sink.read(&mut buf).await {
            got.extend_from_slice(&buf[..count]);
        }
        got
    });
    let (result, hits) = match operation {
        "copy" => {
            let writer = task::spawn({
                let bytes = bytes.clone();
                async move {
                    let _ = source.write_all(&bytes).await;
                }
            });
            let fd = (call == "splice").then(|| from.as_raw_fd());
            let fault = inject(call, fd, errno, 1);
            let copied = netpoll::io::copy(&mut from, &mut to).await;
            drop((from, to));
            writer.await;
            ended(copied, fault)
        }
        _ => {
            let folder = Folder::new();
            std::fs::write(folder.join("f"), &bytes).unwrap();
            let file = File::open(folder.join("f")).unwrap();
            let fault = inject(call, to.as_raw_fd(), errno, 1);
            let sent = to.send_file(&file, 0, bytes.len() as u64).await;
            drop(to);
            ended(sent, fault)
        }
    };
    let got = reader.await;
    if result.is_ok() {
        assert!(got == bytes, "{} of {} bytes received", got.len(), bytes.len());
    } else {
        assert!(bytes.starts_with(&got));
    }
    (result, hits)
}

async fn sending_to_a_full_queue(call: &'static str, errno: i32) -> Result {
    let folder = Folder::new();
    let receiver = UnixDatagram::bind(folder.join("r")).await.unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    loop {
        let mut send = sender.send_to(b"fill", folder.join("r"));
        if poll_once(&mut send).await.is_pending() {
            break;
        }
    }
    let fault = inject(call, None, errno, 1);
    let mut send = Box::pin(sender.send_to(b"last", folder.join("r")));
    let mut buf = [0; 8];
    let sent = match poll_once(&mut send).await {
        std::task::Poll::Ready(sent) => sent,
        std::task::Poll::Pending => {
            receiver.recv_from(&mut buf).await.unwrap();
            send.await
        }
    };
    ended(sent, fault)
}

async fn cell(operation: &str, call: &'static str, errno: i32) -> Result {
    match operation {
        "read"
        | "read_vectored"
        | "write"
        | "write_vectored"
        | "ttl"
        | "set_ttl"
        | "shutdown"
        | "first wait"
        | "first wait after EEXIST" => tcp(operation, call, errno).await,
        "recv_from" | "recv_msg" | "recv_many" | "send_to" | "send_msg" | "send_many" => {
            udp(operation, call, errno).await
        }
        "accept" | "incoming" => accepting(operation, call, errno).await,
        "connect" | "connect, made" => connecting(operation, call, errno).await,
        "connect unix" => connecting_unix(call, errno).await,
        "bind" | "bind unix" | "unix pair" => binding(operation, call, errno).await,
        "local_addr" | "peer_addr" => naming(operation, call, errno).await,
        "close" | "close of an exposed socket" => closing(operation, call, errno).await,
        "sleep and wait" => waiting(call, errno).await,
        "wake from outside" | "wake from outside, made" => waking(operation, call, errno).await,
        "AsyncFd::new" => wrapping(call, errno).await,
        "copy" | "send_file" => copying(operation, call, errno).await,
        "send to a full queue" => sending_to_a_full_queue(call, errno).await,
        other => unreachable!("{other}"),
    }
}

/// Checks every cell of `matrix`, in a child process, because some faults apply to any descriptor
/// and would affect other tests, and because descriptors are counted.
fn check_matrix(name: &str, variables: &[(&str, &str)], matrix: &[Row]) {
    let output = common::child_with(name, variables, || {
        let _watch = watch();
        // Creates the poller, and a pipe that is kept for later copies.
        run(async {
            copying("copy", "splice", EINTR).await.0.unwrap();
            becomes("all sockets are closed", || rt::metrics().descriptors == 0).await;
        });
        let (mut cells, mut wrong) = (0, Vec::new());
        for Row { operation, call, cells: groups } in matrix {
            for &(expected, errnos) in *groups {
                for &errno in errnos {
                    cells += 1;
                    let before = fd_count();
                    let name = format!("{operation}: {call} → {}", io::Error::from_raw_os_error(errno));
                    // The output of a test that fails or hangs has this line.
                    println!("{name}");
                    let (result, hits) = run(cell(operation, call, errno));
                    let got = match &result {
                        Ok(()) => Some(Done),
                        Err(error) if raw_os_error(error) == Some(errno) => Some(Surfaced),
                        Err(_) => None,
                    };
                    if got != Some(expected) || hits == 0 {
                        wrong.push(format!("{name}: {result:?} instead of {expected:?}, injected {hits} times"));
                    }
                    run(becomes(&format!("{name}: all sockets are closed"), || rt::metrics().descriptors == 0));
                    // A pipe may be kept for the next copy.
                    let after = fd_count();
                    if after > before && !matches!(*operation, "copy" | "send_file") {
                        wrong.push(format!("{name}: {before} descriptors before, {after} after"));
                    }
                    assert_eq!(rt::metrics().waiters, 0, "{name}");
                }
            }
        }
        assert!(wrong.is_empty(), "of {cells} cells {} are wrong:\n{}", wrong.len(), wrong.join("\n"));
        assert!(cells >= matrix.len());
        println!("{cells} cells as expected");
    });
    common::print_lines(output, "cells as expected");
}

#[test]
fn every_call_handles_every_errno() {
    check_matrix("every_call_handles_every_errno", &[], MATRIX);
}

#[test]
fn every_call_of_epoll_handles_every_errno() {
    check_matrix("every_call_of_epoll_handles_every_errno", &common::ON_ONE_EPOLL, EPOLL_MATRIX);
}

/// EPOLL_CTL_ADD fails with EPERM if epoll does not support the kind of file.
#[test]
fn descriptor_rejected_by_epoll_is_invalid_input() {
    child_on_epoll("descriptor_rejected_by_epoll_is_invalid_input", || {
        run(async {
            let (client, server) = pair().await;
            let fault = inject("epoll_ctl ADD", client.as_raw_fd(), EPERM, 1);
            let error = client.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!((error.kind(), fault.hits()), (io::ErrorKind::InvalidInput, 1));
            assert!(error.to_string().starts_with("not pollable"), "{error}");
            ping_pong(&client, &server).await;
        });
    });
}

/// Regression: a stream of connections whose listener could not be registered woke itself, and
/// returned ENOSPC, the user's limit of registrations, without a pause. So a server kept a thread
/// busy.
#[test]
fn incoming_pauses_while_its_listener_cannot_be_registered() {
    child_on_epoll("incoming_pauses_while_its_listener_cannot_be_registered", || {
        run(async {
            for errno in [ENOMEM, ENOSPC] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut incoming = listener.incoming();
                let fault = inject("epoll_ctl ADD", listener.as_raw_fd(), errno, usize::MAX);
                let accepted = future::timeout(Duration::from_millis(300), incoming.next()).await;
                assert!(accepted.is_err(), "{errno}: {accepted:?}");
                assert!((1..=30).contains(&fault.hits()), "{errno}: {} registrations", fault.hits());
                drop(fault);
                let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                incoming.next().await.unwrap().unwrap();
            }
        });
    });
}

/// Regression: the wait failed with ENOSPC, so the server of netpoll-hyper, which polls it at its
/// connection limit, ended. The stream of connections would have paused.
#[test]
fn wait_for_the_end_of_a_listener_outlasts_failed_registrations() {
    child_on_epoll("wait_for_the_end_of_a_listener_outlasts_failed_registrations", || {
        run(async {
            for errno in [ENOMEM, ENOSPC] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let fault = inject("epoll_ctl ADD", listener.as_raw_fd(), errno, 2);
                let mut ended = Box::pin(listener.until_closed());
                let early = future::timeout(Duration::from_millis(150), &mut ended).await;
                assert!(early.is_err() && (1..=2).contains(&fault.hits()), "{errno}: {early:?}, {}", fault.hits());
                listener.close().await.unwrap();
                assert!(is_closed(&ended.await.unwrap_err()), "{errno}");
            }
        });
    });
}

/// If the poller cannot be created, the operation that needs it fails, and the next one tries
/// again. 16 cells.
#[test]
fn poller_creation_failure_is_returned() {
    const NAME: &str = "poller_creation_failure_is_returned";
    const CELLS: &[(&str, &[i32])] = &[
        ("epoll_create1", &[EINVAL, EMFILE, ENFILE, ENOMEM]),
        ("eventfd", &[EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM]),
        ("epoll_ctl ADD", &[EBADF, EEXIST, EINVAL, ELOOP, ENOENT, ENOMEM, ENOSPC]),
    ];
    child_on_epoll(NAME, || {
        // This process has not used the poller, and `park_on` starts no runtime.
        let before = fd_count();
        park_on(async {
            let (client, server) = std::os::unix::net::UnixStream::pair().unwrap();
            let (client, server) = (UnixStream::from(client), UnixStream::from(server));
            // Sysmon keeps a file of /proc open while it runs.
            let most = before + 2 + usize::from(std::path::Path::new("/proc/loadavg").exists());
            for &(call, errnos) in CELLS {
                for &errno in errnos {
                    let fault = inject(call, None, errno, 1);
                    let error = client.read(&mut [0; 1]).await.unwrap_err();
                    assert_eq!((raw_os_error(&error), fault.hits()), (Some(errno), 1), "{call}: {error}");
                    assert!(fd_count() <= most, "{call}, {errno}: a descriptor is left");
                }
            }
            let mut buf = [0; 8];
            let mut read = client.read(&mut buf);
            assert!(poll_once(&mut read).await.is_pending());
            server.write_all(b"hello").await.unwrap();
            assert_eq!(read.await.unwrap(), 5);
        });
    });
}

/// On a kernel or in a sandbox without epoll_pwait2(2), waits have timeouts in milliseconds.
#[test]
fn without_epoll_pwait2_waits_use_milliseconds() {
    for (name, errno) in [("ENOSYS", ENOSYS), ("EPERM", EPERM), ("EACCES", EACCES), ("EINVAL", EINVAL), ("EIO", EIO)] {
        const NAME: &str = "without_epoll_pwait2_waits_use_milliseconds";
        let variables = [("NETPOLL_ERRNO", name), common::ON_EPOLL];
        if is_child(NAME) && std::env::var("NETPOLL_ERRNO").unwrap() != name {
            continue;
        }
        common::child_with(NAME, &variables, || {
            let fault = inject("epoll_pwait2", None, errno, usize::MAX);
            run(async {
                for _ in 0..20 {
                    let start = std::time::Instant::now();
                    task::sleep(Duration::from_micros(1500)).await;
                    assert!(start.elapsed() >= Duration::from_micros(1500));
                }
                let (client, server) = pair().await;
                ping_pong(&client, &server).await;
            });
            // Several threads may have made their first call at the same time.
            assert!((1..=8).contains(&fault.hits()), "{} calls", fault.hits());
        });
    }
}

/// A copy that gets no pipe uses a buffer and succeeds (5 cells). A copy whose pipe cannot be
/// enlarged also succeeds (3 cells). The pipe is kept for the next copy, so each of these 3 cells
/// runs in its own process.
#[test]
fn copy_without_pipe_uses_buffer() {
    const NAME: &str = "copy_without_pipe_uses_buffer";
    for (name, errno) in [("EPERM", EPERM), ("EBUSY", EBUSY), ("EINVAL", EINVAL)] {
        if is_child(NAME) && std::env::var("NETPOLL_ERRNO").unwrap() != name {
            continue;
        }
        common::child_with(NAME, &[("NETPOLL_ERRNO", name)], || {
            let pipes = [EMFILE, ENFILE, ENOMEM, EFAULT, EINVAL].map(|errno| ("pipe2", errno));
            for (call, errno) in pipes.into_iter().chain([("fcntl F_SETPIPE_SZ", errno)]) {
                let (result, hits) = run(copying("copy", call, errno));
                result.unwrap_or_else(|error| panic!("{call}, {errno}: {error}"));
                assert!(hits > 0, "{call}, {errno}");
            }
        });
    }
}

/// The wait fails, for example because other code of the program has closed the epoll descriptor.
/// The process aborts with a message. 3 cells.
#[test]
fn failing_epoll_wait_aborts_process() {
    const NAME: &str = "failing_epoll_wait_aborts_process";
    if is_child(NAME) {
        let errno: i32 = std::env::var("NETPOLL_ERRNO").unwrap().parse().unwrap();
        let _fault = inject("epoll_wait", None, errno, 1);
        let _other = inject("epoll_pwait2", None, errno, 1);
        let wait: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
            loop {
                task::sleep(Duration::from_millis(5)).await;
            }
        });
        return run(wait);
    }
    for errno in [EBADF, EFAULT, EINVAL] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).envs([
            ("NETPOLL_TEST_CHILD", NAME),
            ("NETPOLL_ERRNO", &errno.to_string()),
            common::ON_EPOLL,
        ]);
        let output = common::output(&mut command).unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(SIGABRT), "{errno}: {text}");
        assert!(text.contains("netpoll: waiting for events failed"), "{text}");
    }
}

/// A failed listen removes the socket file, which would prevent the next bind. A failed bind does
/// not remove a file that existed before.
#[test]
fn failed_listen_removes_socket_file() {
    child("failed_listen_removes_socket_file", || {
        run(async {
            let folder = Folder::new();
            let path = folder.join("s");
            for kind in ["stream", "packets"] {
                let bind = async || match kind {
                    "stream" => UnixListener::bind(&path).await.map(drop),
                    _ => UnixSeqpacketListener::bind(&path).await.map(drop),
                };
                let fault = inject("listen", None, EACCES, 1);
                let error = bind().await.unwrap_err();
                assert_eq!((raw_os_error(&error), fault.hits()), (Some(EACCES), 1), "{kind}: {error}");
                assert!(!path.exists(), "{kind}: the file is left behind");
                bind().await.unwrap();
                let taken = std::os::unix::net::UnixListener::bind(&path).unwrap();
                assert_eq!(raw_os_error(&bind().await.unwrap_err()), Some(EADDRINUSE));
                assert!(path.exists(), "{kind}: another file was removed");
                drop(taken);
                std::fs::remove_file(&path).unwrap();
            }
        });
    });
}

/// After a lack of memory that is over, a stream whose writes are gathered has no gap.
#[test]
fn gathered_bytes_survive_a_lack_of_memory() {
    run(async {
        for (errno, times) in [(ENOBUFS, 1), (ENOBUFS, 4), (ENOMEM, 4)] {
            for end in 0..4 {
                let (ours, peer) = UnixStream::pair().unwrap();
                let fd = ours.as_raw_fd();
                ours.set_auto_cork(true).unwrap();
                let (sends, vectored) = (inject("send", fd, errno, times), inject("sendmsg", fd, errno, times));
                ours.write_all(b"gathered").await.unwrap();
                task::yield_now().await;
                let mut written = true;
                // The operation that follows the gathered write.
                match end {
                    0 => ours.flush().await.unwrap(),
                    1 => written = ours.write(&[b'x'; 20_000]).await.is_ok(),
                    2 => ours.close_write().unwrap(),
                    _ => ours.writable().await.unwrap(),
                }
                if end != 2 {
                    written &= ours.flush().await.is_ok();
                    ours.write_all(b" and sent").await.unwrap();
                    ours.close_write().unwrap();
                }
                let mut all = Vec::new();
                netpoll::io::ReadExt::read_to_end(&mut &peer, &mut all).await.unwrap();
                assert!(all.starts_with(b"gathered"), "{errno} {times} {end}");
                assert_eq!(all.ends_with(b" and sent"), end != 2, "{errno} {times} {end}");
                assert_eq!(all.len() > 10_000, end == 1 && written, "{errno} {times} {end}");
                assert!(sends.hits() + vectored.hits() > 0);
            }
        }
    });
}

/// Regression: the task that sends the last bytes of a closed stream reset the connection.
#[test]
fn gathered_bytes_of_a_closed_stream_survive_a_lack_of_memory() {
    child("gathered_bytes_of_a_closed_stream_survive_a_lack_of_memory", || {
        run(async {
            for (errno, times) in [(ENOBUFS, 3), (ENOBUFS, 6), (ENOMEM, 6)] {
                let (ours, peer) = UnixStream::pair().unwrap();
                ours.set_auto_cork(true).unwrap();
                ours.write_all(b"gathered").await.unwrap();
                // The close tries twice.
                let sends = inject("send", None, errno, times);
                drop(ours);
                let mut all = Vec::new();
                netpoll::io::ReadExt::read_to_end(&mut &peer, &mut all).await.unwrap();
                assert_eq!((all.as_slice(), sends.hits()), (&b"gathered"[..], times), "{errno}");
            }
        });
    });
}
