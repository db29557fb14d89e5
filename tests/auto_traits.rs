//! Auto traits and sizes of public types. docs/public-api.txt lists the auto traits of every public
//! type (`ci/public-api.sh`). This file checks those that programs rely on and that an added field
//! could remove.

use std::panic::{RefUnwindSafe, UnwindSafe};

use netpoll::net::futures as net;
use netpoll::net::{self as sockets, TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::{self as unix, UnixDatagram, UnixListener, UnixStream, futures};
use netpoll::{future, io, rt, task, time};

fn everywhere<T: Send + Sync + Unpin>() {}
fn moved<T: Send + Unpin>() {}
fn unwinding<T: UnwindSafe + RefUnwindSafe>() {}

/// Asserts that each type is `Send`, `Sync` and `Unpin`.
macro_rules! everywhere {
    ($($name:ty),* $(,)?) => {
        $(everywhere::<$name>();)*
    };
}

/// Asserts that each type is `Send` and `Unpin`.
macro_rules! moved {
    ($($name:ty),* $(,)?) => {
        $(moved::<$name>();)*
    };
}

#[test]
fn sockets_are_send_sync_and_unpin() {
    everywhere!(TcpStream, TcpListener, UdpSocket, UnixStream, UnixListener, UnixDatagram);
    everywhere!(sockets::Pipe, io::AsyncFd<std::net::TcpStream>);
    everywhere!(sockets::Dialer, sockets::ListenConfig, sockets::OpError, sockets::Ancillary);
    everywhere!(sockets::RecvBatch, sockets::RecvBatchIter<'_>, sockets::Datagram<'_>, sockets::SendBatch);
    unwinding::<TcpStream>();
    unwinding::<UdpSocket>();
    unwinding::<UnixStream>();
}

#[test]
fn futures_and_streams_are_send_and_unpin() {
    everywhere!(net::Read<'_>, net::ReadVectored<'_>, net::Peek<'_>, net::Write<'_>, net::WriteVectored<'_>);
    everywhere!(net::WriteAll<'_>, net::WriteVectoredAll<'_, '_>, net::Readable<'_>, net::Writable<'_>, net::Closed);
    everywhere!(
        net::PeerClosed<'_>,
        net::SendFile<'_>,
        net::RecvFrom<'_>,
        net::SendTo<'_, std::vec::IntoIter<std::net::SocketAddr>>
    );
    everywhere!(net::RecvDatagram<'_>, net::SendDatagram<'_>, net::PeekFrom<'_>, net::RecvMsg<'_>, net::SendMsg<'_>);
    everywhere!(net::PipeRead<'_>, net::PipeWrite<'_>, net::PipeWriteAll<'_>);
    everywhere!(futures::Recv<'_>, futures::Send<'_>, futures::RecvWithFds<'_>, futures::SendWithFds<'_>);
    moved!(sockets::Incoming<'_>, unix::Incoming<'_>, time::Sleep, task::JoinHandle<u8>);
    moved!(sockets::ToSocketAddrsFuture<std::vec::IntoIter<std::net::SocketAddr>>);
}

#[test]
fn thread_bound_types_are_not_send() {
    /// For a type that is `Send`, `check` is ambiguous, so the call does not compile.
    trait NotSend<Marker> {
        fn check() {}
    }
    struct IsSend;
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<IsSend> for T {}
    // A handle is not `Send` if the task's result is not.
    <task::JoinHandle<std::rc::Rc<u8>> as NotSend<_>>::check();
    <io::AsyncFd<std::rc::Rc<std::net::TcpStream>> as NotSend<_>>::check();
    <future::TimeoutFuture<future::Ready<std::rc::Rc<u8>>> as NotSend<_>>::check();
}

#[test]
fn sizes_do_not_grow_unnoticed() {
    let word = size_of::<usize>();
    let sizes = [
        ("TcpStream", size_of::<TcpStream>(), word),
        ("TcpListener", size_of::<TcpListener>(), 12 * word),
        ("UdpSocket", size_of::<UdpSocket>(), 12 * word),
        ("UnixStream", size_of::<UnixStream>(), word),
        ("Read", size_of::<net::Read<'_>>(), 9 * word),
        ("Write", size_of::<net::Write<'_>>(), 9 * word),
        ("WriteAll", size_of::<net::WriteAll<'_>>(), 9 * word),
        ("Sleep", size_of::<time::Sleep>(), 4 * word),
        ("JoinHandle", size_of::<task::JoinHandle<()>>(), 4 * word),
        ("Metrics", size_of::<rt::Metrics>(), 74 * word),
    ];
    let large: Vec<_> = sizes.iter().filter(|(_, size, most)| size > most).collect();
    assert!(large.is_empty(), "(type, size, limit) in bytes: {large:?}");
}
