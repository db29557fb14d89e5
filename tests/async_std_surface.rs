//! Public names of async-std 1.13 with its feature `unstable`, and the signatures of many of them.
//! If this file compiles, this crate has these names and signatures. `absent_items.rs` tests the
//! modules and traits of async-std that this crate does not have.
#![allow(unused_imports)]

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::os::fd::OwnedFd;
use std::time::Duration;

mod names {
    pub(super) use netpoll::future::{Future, FutureExt, IntoFuture, TimeoutError, pending, poll_fn, ready, timeout};
    pub(super) use netpoll::io::prelude::{BufRead, BufReadExt, Read, ReadExt, Seek, SeekExt, Write, WriteExt};
    pub(super) use netpoll::io::{
        BufReader, BufWriter, Bytes, Chain, Cursor, Empty, Error, ErrorKind, IntoInnerError, IoSlice, IoSliceMut,
        Lines, Repeat, Result, SeekFrom, Sink, Split, Stderr, Stdin, Stdout, Take, copy, empty, repeat, sink, stderr,
        stdin, stdout,
    };
    pub(super) use netpoll::net::{
        AddrParseError, Incoming, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
        TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
    };
    pub(super) use netpoll::os::unix::io::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
    pub(super) use netpoll::os::unix::net as unix;
    pub(super) use netpoll::stream::{
        Extend, FromStream, Interval, IntoStream, Merge, Stream, StreamExt, extend, from_fn, from_iter, interval, once,
        repeat_with, successors,
    };
    pub(super) use netpoll::task::{
        AccessError, Builder, Context, JoinHandle, LocalKey, Poll, Task, TaskId, Waker, block_on, current,
        spawn_blocking, spawn_local, try_current, yield_now,
    };
    pub(super) use netpoll::{eprint, eprintln, print, println, task_local, write, writeln};
}

use names::*;

fn debug<T: Debug>() {}
fn cloned<T: Clone>() {}
fn shared<T: Send + Sync + Unpin + 'static>() {}
/// Checks the traits of a socket type. The conversions from the std type, from a descriptor and to
/// a descriptor are infallible. The conversion to the std type is fallible.
fn socket<T, S>()
where
    T: Debug + Send + Sync + Unpin + From<S> + From<OwnedFd> + Into<OwnedFd> + AsFd + AsRawFd + FromRawFd + IntoRawFd,
    S: TryFrom<T, Error = Error>,
{
}
fn stream_and_reference<T: Read + Write>()
where
    for<'a> &'a T: Read + Write,
{
}
fn address<T: ToSocketAddrs + ?Sized>() {}
fn output<T>(_: impl Future<Output = T> + Send) {}

#[test]
fn types_implement_the_traits_of_async_std() {
    socket::<TcpListener, std::net::TcpListener>();
    socket::<TcpStream, std::net::TcpStream>();
    socket::<UdpSocket, std::net::UdpSocket>();
    socket::<unix::UnixListener, std::os::unix::net::UnixListener>();
    socket::<unix::UnixStream, std::os::unix::net::UnixStream>();
    socket::<unix::UnixDatagram, std::os::unix::net::UnixDatagram>();
    stream_and_reference::<TcpStream>();
    stream_and_reference::<unix::UnixStream>();
    cloned::<TcpStream>();
    cloned::<unix::UnixStream>();
    debug::<Incoming<'_>>();
    debug::<unix::Incoming<'_>>();
    debug::<JoinHandle<()>>();
    cloned::<Task>();
    shared::<JoinHandle<u8>>();
    shared::<(Stdin, Stdout, Stderr)>();
    fn id<T: Eq + Hash + Copy + Display + Debug>() {}
    id::<TaskId>();
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    error::<TimeoutError>();
    error::<AccessError>();
    error::<IntoInnerError<Empty>>();

    address::<SocketAddr>();
    address::<SocketAddrV4>();
    address::<SocketAddrV6>();
    address::<(IpAddr, u16)>();
    address::<(Ipv4Addr, u16)>();
    address::<(Ipv6Addr, u16)>();
    address::<(&str, u16)>();
    address::<str>();
    address::<String>();
    address::<&[SocketAddr]>();
    address::<&&String>();
}

/// Checks the signatures of TCP and UDP sockets when it is compiled. It is never called.
#[allow(dead_code)]
fn sockets(tcp: &TcpStream, listener: &TcpListener, udp: &UdpSocket, buf: &mut [u8]) {
    output::<Result<TcpListener>>(TcpListener::bind("localhost:0"));
    output::<Result<(TcpStream, SocketAddr)>>(listener.accept());
    let _: Incoming<'_> = listener.incoming();
    fn into_incoming(listener: TcpListener) -> impl Stream<Item = Result<TcpStream>> + Send {
        listener.into_incoming()
    }
    let _: Result<SocketAddr> = listener.local_addr();
    output::<Result<TcpStream>>(TcpStream::connect(&[SocketAddr::from(([127, 0, 0, 1], 1))][..]));
    let _: [Result<SocketAddr>; 2] = [tcp.local_addr(), tcp.peer_addr()];
    let _: (Result<u32>, Result<()>) = (tcp.ttl(), tcp.set_ttl(1));
    let _: (Result<bool>, Result<()>) = (tcp.nodelay(), tcp.set_nodelay(true));
    let _: Result<()> = tcp.shutdown(Shutdown::Both);
    output::<Result<usize>>(tcp.peek(buf));

    output::<Result<UdpSocket>>(UdpSocket::bind("localhost:0"));
    output::<Result<()>>(udp.connect("localhost:1"));
    output::<Result<usize>>(udp.send_to(b"", "localhost:1"));
    output::<Result<usize>>(udp.send(b""));
    output::<Result<(usize, SocketAddr)>>(udp.recv_from(buf));
    output::<Result<(usize, SocketAddr)>>(udp.peek_from(buf));
    output::<Result<usize>>(udp.recv(buf));
    output::<Result<usize>>(udp.peek(buf));
    let _: [Result<SocketAddr>; 2] = [udp.local_addr(), udp.peer_addr()];
    let _: (Result<bool>, Result<()>) = (udp.broadcast(), udp.set_broadcast(true));
    let _: (Result<bool>, Result<()>) = (udp.multicast_loop_v4(), udp.set_multicast_loop_v4(true));
    let _: (Result<u32>, Result<()>) = (udp.multicast_ttl_v4(), udp.set_multicast_ttl_v4(1));
    let _: (Result<bool>, Result<()>) = (udp.multicast_loop_v6(), udp.set_multicast_loop_v6(true));
    let _: (Result<u32>, Result<()>) = (udp.ttl(), udp.set_ttl(1));
    let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let _: [Result<()>; 2] = [udp.join_multicast_v4(v4, v4), udp.leave_multicast_v4(v4, v4)];
    let _: [Result<()>; 2] = [udp.join_multicast_v6(&v6, 0), udp.leave_multicast_v6(&v6, 0)];
}

/// Checks the signatures of Unix sockets when it is compiled. It is never called.
#[allow(dead_code)]
fn unix_sockets(
    listener: &unix::UnixListener,
    stream: &unix::UnixStream,
    datagram: &unix::UnixDatagram,
    buf: &mut [u8],
) {
    type Addr = std::os::unix::net::SocketAddr;
    output::<Result<unix::UnixListener>>(unix::UnixListener::bind("path"));
    output::<Result<(unix::UnixStream, Addr)>>(listener.accept());
    let _: unix::Incoming<'_> = listener.incoming();
    let _: Result<unix::SocketAddr> = listener.local_addr();
    output::<Result<unix::UnixStream>>(netpoll::unix::UnixStream::connect("path"));
    let _: Result<(unix::UnixStream, unix::UnixStream)> = unix::UnixStream::pair();
    let _: [Result<Addr>; 2] = [stream.local_addr(), stream.peer_addr()];
    let _: Result<()> = stream.shutdown(Shutdown::Both);
    output::<Result<unix::UnixDatagram>>(unix::UnixDatagram::bind("path"));
    let _: Result<unix::UnixDatagram> = unix::UnixDatagram::unbound();
    let _: Result<(unix::UnixDatagram, unix::UnixDatagram)> = unix::UnixDatagram::pair();
    output::<Result<()>>(datagram.connect("path"));
    let _: [Result<Addr>; 2] = [datagram.local_addr(), datagram.peer_addr()];
    output::<Result<(usize, Addr)>>(datagram.recv_from(buf));
    output::<Result<usize>>(datagram.recv(buf));
    output::<Result<usize>>(datagram.send_to(b"", "path"));
    output::<Result<usize>>(datagram.send(b""));
    let _: Result<()> = datagram.shutdown(Shutdown::Both);
}

/// Checks the signatures of `io` when it is compiled. It is never called.
#[allow(dead_code)]
async fn io() -> Result<()> {
    let (mut text, mut bytes) = (String::new(), Vec::new());
    let mut reader = BufReader::with_capacity(16, Cursor::new(vec![0; 8]));
    let _: (&Cursor<Vec<u8>>, &[u8]) = (reader.get_ref(), reader.buffer());
    reader.get_mut().set_position(0);
    let _: usize = reader.read(&mut [0; 2]).await?;
    let _: usize = reader.read_vectored(&mut [IoSliceMut::new(&mut [0; 2])]).await?;
    let _: usize = reader.read_to_end(&mut bytes).await?;
    let _: usize = reader.read_to_string(&mut text).await?;
    let _: () = reader.read_exact(&mut []).await?;
    let _: usize = reader.read_until(0, &mut bytes).await?;
    let _: usize = reader.read_line(&mut text).await?;
    let _: u64 = reader.seek(SeekFrom::Start(0)).await?;
    let _: Take<&mut BufReader<_>> = reader.by_ref().take(1);
    let _: Chain<&mut BufReader<_>, Empty> = reader.by_ref().chain(empty());
    let _: Option<Result<u8>> = reader.by_ref().bytes().next().await;
    let _: Option<Result<Vec<u8>>> = BufReader::new(empty()).split(b',').next().await;
    let _: Option<Result<String>> = BufReader::new(empty()).lines().next().await;
    let _: (u64, Vec<u8>) = (reader.get_ref().position(), reader.into_inner().into_inner());

    let mut writer = BufWriter::with_capacity(16, Vec::new());
    let _: usize = writer.write(b"a").await?;
    let _: usize = writer.write_vectored(&[IoSlice::new(b"a")]).await?;
    let _: () = writer.write_all(b"a").await?;
    write!(writer, "{}", 1).await?;
    writeln!(writer, "{}", 1).await?;
    let _: () = writer.flush().await?;
    let _: (&Vec<u8>, &[u8]) = (writer.get_ref(), writer.buffer());
    writer.get_mut().clear();
    let inner: std::result::Result<Vec<u8>, IntoInnerError<BufWriter<Vec<u8>>>> = writer.into_inner().await;
    drop(inner.map_err(|error| (error.error().kind(), error.into_inner())));

    let mut array = [0; 4];
    Cursor::new(&mut array[..]).write_all(b"a").await?;
    Cursor::new(&mut bytes).write_all(b"a").await?;
    let _: u64 = copy(&mut repeat(1).take(3), &mut sink()).await?;
    let _: usize = netpoll::io::timeout(Duration::from_secs(1), stdin().read_line(&mut text)).await?;
    stdout().flush().await?;
    stderr().flush().await?;
    let _: [RawFd; 3] = [stdin().as_raw_fd(), stdout().as_raw_fd(), stderr().as_raw_fd()];
    Ok(())
}

#[test]
fn tasks_futures_and_streams_have_the_surface_of_async_std() {
    block_on(async {
        task_local! {
            static A: u8 = 1;
            pub static B: String = String::from("b");
        }
        assert_eq!((A.with(|a| *a), B.try_with(String::len)), (1, Ok(1)));
        let _: (Task, Option<Task>) = (current(), try_current());
        let handle: JoinHandle<u8> = Builder::new().name("name".into()).spawn(async { 1 }).unwrap();
        let _: (TaskId, Option<&str>) = (handle.task().id(), handle.task().name());
        assert_eq!(handle.cancel().await.unwrap_or(1), 1);
        assert_eq!(Builder::new().blocking(async { 2 }), 2);
        assert_eq!(Builder::new().local(spawn_local(async { 3 })).unwrap().await, 3);
        assert_eq!(spawn_blocking(|| 4).await, 4);
        yield_now().await;
        netpoll::task::sleep(Duration::from_millis(1)).await;

        let far = Duration::from_secs(3600);
        assert_eq!(timeout(far, ready(1)).await, Ok(1));
        assert!(timeout(Duration::from_millis(1), pending::<()>()).await.is_err());
        assert_eq!(ready(1).delay(Duration::from_millis(1)).timeout(far).await, Ok(1));
        assert_eq!(ready(ready(1)).flatten().await, 1);
        assert_eq!(ready(1).race(pending()).await, 1);
        assert_eq!(ready(Ok::<_, ()>(1)).try_race(pending()).await, Ok(1));
        assert_eq!(ready(1).join(ready('a')).await, (1, 'a'));
        assert_eq!(ready(Ok::<_, ()>(1)).try_join(ready(Ok('a'))).await, Ok((1, 'a')));
        assert_eq!(poll_fn(|_: &mut Context<'_>| Poll::Ready(1)).await, 1);

        let merged: Merge<_, _> = once(1).merge(from_iter([2, 3]));
        let mut all: Vec<i32> = merged.collect().await;
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        let mut ticks: Interval = interval(Duration::from_millis(1));
        assert_eq!(ticks.next().await, Some(()));
        let mut count = 0;
        let counts = from_fn(move || {
            count += 1;
            (count < 4).then_some(count)
        });
        assert_eq!(counts.collect::<Vec<_>>().await, [1, 2, 3]);
        let doubles = successors(Some(1), |n| (*n < 8).then_some(n * 2));
        assert_eq!(doubles.collect::<Vec<_>>().await, [1, 2, 4, 8]);
        assert_eq!(netpoll::stream::repeat(1).take(2).chain(netpoll::stream::empty()).count().await, 2);
        assert_eq!(repeat_with(|| 1).take(2).sum::<i32>().await, 2);
        let mut vec = vec![0];
        extend(&mut vec, once(1).into_stream()).await;
        let odd: std::result::Result<Vec<_>, u8> = from_iter([Ok(1), Err(2)]).collect().await;
        assert_eq!((vec, odd), (vec![0, 1], Err(2)));
        let mut numbers = from_iter(1..);
        assert_eq!(numbers.nth(1).await, Some(2));
        assert_eq!(numbers.find(|n| n % 5 == 0).await, Some(5));
        assert_eq!(numbers.find_map(|n| (n > 6).then_some('a')).await, Some('a'));
        assert_eq!(numbers.position(|n| n == 9).await, Some(1));
        assert!(numbers.any(|n| n == 10).await && !numbers.all(|n| n == 11).await);
        assert_eq!(numbers.try_for_each(|n| if n < 20 { Ok(()) } else { Err(n) }).await, Err(20));
        let late = netpoll::stream::pending::<()>().timeout(Duration::from_millis(1)).next().await;
        assert!(matches!(late, Some(Err(_))));
    });
}
