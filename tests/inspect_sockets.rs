//! `rt::inspect`: the kind, the use, the host name, the errors, the limits and the state of
//! sockets.

mod common;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{pair, run};
use futures_lite::AsyncReadExt as _;
use netpoll::net::{Dialer, ListenConfig, TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::{UnixDatagram, UnixStream};
use netpoll::rt::{self, Inspect, SocketInfo, SocketState};
use netpoll::task;

/// The bound of each wait, less than that of `run`, so that a failure shows the sockets.
const BOUND: Duration = Duration::from_secs(common::BOUND.as_secs() / 4);

fn by_fd(fd: &impl AsRawFd) -> SocketInfo {
    let fd = fd.as_raw_fd();
    let sockets = Inspect::new().tcp(true).take().sockets;
    sockets.into_iter().find(|socket| socket.fd() == fd).expect("the socket is open")
}

/// Returns the numbers of reads and writes of a socket (of segments for TCP), and the numbers of
/// bytes received and sent. Asserts that the last use is not earlier than the opening, within the
/// precision of these times.
fn counts(fd: &impl AsRawFd) -> ([u32; 2], [Option<u64>; 2]) {
    let socket = by_fd(fd);
    assert!(socket.last_use().is_some_and(|last| last <= socket.age() + Duration::from_millis(10)), "{socket:?}");
    ([socket.reads().unwrap(), socket.writes().unwrap()], [socket.bytes_received(), socket.bytes_sent()])
}

#[test]
fn datagrams_are_counted_each_way_and_peeks_are_not() {
    run(async {
        let (one, other) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let to = other.local_addr().unwrap();
        for size in [5, 7, 0] {
            assert_eq!(one.send_to(&[1; 7][..size], to).await.unwrap(), size);
        }
        let mut buf = [0; 16];
        assert_eq!(other.peek(&mut buf).await.unwrap(), 5);
        for size in [5, 7, 0] {
            assert_eq!(other.recv_from(&mut buf).await.unwrap().0, size);
        }
        assert_eq!(counts(&one), ([0, 3], [Some(0), Some(12)]));
        assert_eq!(counts(&other), ([3, 0], [Some(12), Some(0)]));

        let (one, other) = UnixDatagram::pair().unwrap();
        assert_eq!(one.send(b"hello").await.unwrap(), 5);
        assert_eq!(other.recv(&mut buf).await.unwrap(), 5);
        assert_eq!(counts(&one), ([0, 1], [Some(0), Some(5)]));
        assert_eq!(counts(&other), ([1, 0], [Some(5), Some(0)]));
    });
}

#[test]
fn batches_of_datagrams_are_counted_with_their_bytes() {
    use netpoll::net::{RecvBatch, SendBatch};
    run(async {
        let (one, other) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let mut batch = SendBatch::new();
        for size in [100, 100, 30] {
            batch.push(&[1; 100][..size], other.local_addr().unwrap());
        }
        while !batch.is_empty() {
            one.send_many(&mut batch).await.unwrap();
        }
        let (mut received, mut batch) = (0, RecvBatch::new(8, 200));
        while received < 3 {
            received += other.recv_many(&mut batch).await.unwrap();
        }
        let (operations, bytes) = counts(&one);
        assert!((1..=3).contains(&operations[1]), "{operations:?}");
        assert_eq!(bytes, [Some(0), Some(230)]);
        assert_eq!(counts(&other).1, [Some(230), Some(0)]);
    });
}

#[test]
fn unix_streams_are_counted_each_way() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        one.write_all(&[1; 100]).await.unwrap();
        let mut buf = [0; 60];
        assert_eq!(other.read(&mut buf).await.unwrap(), 60);
        assert_eq!(other.read(&mut buf).await.unwrap(), 40);
        assert_eq!(counts(&one), ([0, 1], [Some(0), Some(100)]));
        assert_eq!(counts(&other), ([2, 0], [Some(100), Some(0)]));
    });
}

#[test]
fn counts_restart_with_the_next_socket_of_a_slot() {
    run(async {
        for _ in 0..64 {
            let (one, other) = UnixStream::pair().unwrap();
            assert_eq!(counts(&one), ([0, 0], [Some(0), Some(0)]));
            one.write_all(&[1; 10]).await.unwrap();
            assert_eq!(other.read(&mut [0; 60]).await.unwrap(), 10);
            assert_eq!(counts(&other), ([1, 0], [Some(10), Some(0)]));
        }
    });
}

#[test]
fn tcp_bytes_and_segments_are_those_of_the_kernel() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            client.write_all(&[1; 1000]).await.unwrap();
            (&server).read_exact(&mut [0; 1000]).await.unwrap();
        }
        let (segments, bytes) = counts(&server);
        assert!(segments[0] >= 3 && segments[1] == 0, "{segments:?}");
        assert_eq!(bytes[0], Some(3000));
        assert!(counts(&client).0[1] >= 3);
        assert_eq!(by_fd(&listener).reads(), Some(1), "one accept");
        // The acknowledgement may come later.
        let begin = Instant::now();
        while by_fd(&client).bytes_sent() < Some(3000) {
            assert!(begin.elapsed() < BOUND, "{:?}", by_fd(&client));
            task::sleep(Duration::from_millis(1)).await;
        }
        let plain = rt::inspect();
        let plain = plain.sockets.iter().find(|socket| socket.fd() == client.as_raw_fd()).unwrap();
        assert_eq!(
            (plain.bytes_sent(), plain.writes(), plain.last_use()),
            (None, None, None),
            "without `tcp(true)`, the kernel's counts are not read"
        );
    });
}

#[test]
fn host_name_that_was_dialled_is_shown() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = format!("localhost:{}", address.port());
        let by_name = TcpStream::connect(&name).await.unwrap();
        let by_dialer = Dialer::new().dial(("localhost", address.port())).await.unwrap();
        let one_by_one = Dialer::new().stagger(None).dial(&*name).await.unwrap();
        let by_address = TcpStream::connect(address).await.unwrap();
        let literal = TcpStream::connect(address.to_string()).await.unwrap();
        for stream in [&by_name, &by_dialer, &one_by_one] {
            assert_eq!(by_fd(stream).host(), Some("localhost"));
        }
        for stream in [&by_address, &literal] {
            assert_eq!(by_fd(stream).host(), None);
        }
        let snapshot = rt::inspect();
        assert!(snapshot.to_string().contains(&format!("{address} (localhost)")), "{snapshot}");
        assert!(snapshot.to_json().contains("\"host\":\"localhost\""), "{}", snapshot.to_json());
        // The next sockets in these slots were not dialled by name, so they have no host name.
        drop((by_name, by_dialer, one_by_one));
        let (client, server) = pair().await;
        assert_eq!((by_fd(&client).host(), by_fd(&server).host()), (None, None));
    });
}

#[test]
fn errors_are_counted_with_the_last_errno() {
    run(async {
        let (client, server) = pair().await;
        assert_eq!((by_fd(&client).errors(), by_fd(&client).last_errno()), (0, None));
        server.set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        client.read(&mut [0; 8]).await.unwrap_err();
        let socket = by_fd(&client);
        assert_eq!((socket.errors(), socket.last_errno()), (1, Some(libc::ECONNRESET)));
        assert_eq!(client.write(b"x").await.unwrap_err().raw_os_error(), Some(libc::EPIPE));
        let socket = by_fd(&client);
        assert_eq!((socket.errors(), socket.last_errno()), (2, Some(libc::EPIPE)));
        let text = rt::inspect().to_string();
        assert!(text.contains(&format!("errors 2 (errno {})", libc::EPIPE)), "{text}");
    });
}

/// A stream socket that is not TCP is not shown as TCP, and a datagram socket that is not UDP is
/// not shown as UDP.
#[test]
#[cfg(target_os = "linux")] // netlink(7), IPPROTO_UDPLITE
fn sockets_of_other_families_and_protocols_have_the_kind_socket() {
    use socket2::{Domain, Protocol, Socket, Type};
    run(async {
        let kind = |family, ty, protocol| {
            let socket = Socket::new(Domain::from(family), ty, Some(Protocol::from(protocol))).ok()?;
            Some(by_fd(&netpoll::io::AsyncFd::new(socket).unwrap()).kind())
        };
        assert_eq!(kind(libc::AF_INET, Type::STREAM, 0), Some("tcp"));
        assert_eq!(kind(libc::AF_INET, Type::DGRAM, 0), Some("udp"));
        assert_eq!(kind(libc::AF_UNIX, Type::STREAM, 0), Some("unix"));
        assert_eq!(kind(libc::AF_UNIX, Type::SEQPACKET, 0), Some("unixpacket"));
        assert_eq!(kind(libc::AF_NETLINK, Type::DGRAM, libc::NETLINK_ROUTE), Some("socket"));
        // The system need not support these kinds of sockets.
        for (family, ty, protocol) in [
            (libc::AF_VSOCK, Type::STREAM, 0),
            (libc::AF_INET, Type::DGRAM, libc::IPPROTO_UDPLITE),
            (libc::AF_INET, Type::DGRAM, libc::IPPROTO_ICMP),
            (libc::AF_INET, Type::STREAM, libc::IPPROTO_SCTP),
            (libc::AF_INET, Type::SEQPACKET, libc::IPPROTO_SCTP),
        ] {
            let kind = kind(family, ty, protocol);
            assert!(kind.is_none_or(|kind| kind == "socket"), "{family} {ty:?} {protocol}: {kind:?}");
        }
    });
}

#[test]
fn limits_of_a_listener_are_shown_and_among_its_metrics() {
    run(async {
        let listener =
            ListenConfig::new().max_connections(2).reserve_descriptors(1).listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (stream, _) = listener.accept().await.unwrap();
        let limits = *by_fd(&listener).limits().unwrap();
        assert_eq!((limits.connections, limits.max_connections, limits.refused), (1, Some(2), 0));
        let other = listener.accept().await.unwrap();
        assert_eq!(by_fd(&listener).limits().unwrap().connections, 2);
        let text = rt::openmetrics();
        for (name, value) in [("accepted_total", 2), ("connections", 2), ("connections_max", 2), ("refused_total", 0)] {
            let line =
                format!("netpoll_listener_{name}{{local=\"{address}\",fd=\"{}\"}} {value}", listener.as_raw_fd());
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(rt::inspect().to_string().contains("accepted 2, 2 of 2 permits"));
        drop((stream, other, clients));
        let without = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(by_fd(&without).limits(), None);
        let shared = ListenConfig::new().max_connections(3).listen_many("127.0.0.1:0", 2).await.unwrap();
        let [limited, freed] = <[TcpListener; 2]>::try_from(shared).unwrap();
        let freed = ListenConfig::new().limit(freed).unwrap();
        assert_eq!(by_fd(&limited).limits().unwrap().max_connections, Some(3));
        assert_eq!(by_fd(&freed).limits(), None);
    });
}

#[test]
fn half_closed_connections_are_shown() {
    run(async {
        let (client, server) = pair().await;
        client.close_write().unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        let begin = Instant::now();
        while [by_fd(&client).state(), by_fd(&server).state()] != [SocketState::HalfClosed; 2] {
            assert!(begin.elapsed() < BOUND, "{:?} {:?}", by_fd(&client), by_fd(&server));
            task::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn connections_in_progress_are_shown() {
    run(async {
        // The listener accepts nothing. Once its queue is full, the kernel drops SYN segments, so
        // further dials stay in progress.
        let listener = ListenConfig::new().backlog(1).listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dials: Vec<_> = (0..8).map(|_| task::spawn(TcpStream::connect(address))).collect();
        let is_connecting = |socket: &SocketInfo| {
            socket.state() == SocketState::Connecting && socket.kind() == "tcp" && socket.writers() > 0
        };
        let begin = Instant::now();
        loop {
            let snapshot = rt::inspect();
            if snapshot.sockets.iter().any(is_connecting) {
                break;
            }
            assert!(begin.elapsed() < BOUND, "{snapshot}");
            task::sleep(Duration::from_millis(1)).await;
        }
        for dial in dials {
            dial.cancel().await;
        }
    });
}

/// Regression: the operations were counted, but a snapshot that queried the kernel for the kind of
/// the socket did not show them.
#[cfg(target_os = "linux")]
#[test]
fn operations_of_multipath_connections_are_counted_in_each_snapshot() {
    if socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, Some(socket2::Protocol::MPTCP)).is_err() {
        return;
    }
    run(async {
        let listener = ListenConfig::new().multipath(true).listen("127.0.0.1:0").await.unwrap();
        let client = Dialer::new().multipath(true).dial(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            client.write_all(b"hello").await.unwrap();
            (&server).read_exact(&mut [0; 5]).await.unwrap();
        }
        let fd = client.as_raw_fd();
        for inspect in
            [Inspect::new().addresses(false), Inspect::new().addresses(true), Inspect::new().addresses(true).tcp(true)]
        {
            let socket = inspect.take().sockets.into_iter().find(|socket| socket.fd() == fd).unwrap();
            assert_eq!((socket.reads(), socket.writes()), (Some(0), Some(3)), "{socket:?}");
            assert_eq!((socket.bytes_received(), socket.bytes_sent()), (Some(0), Some(15)), "{socket:?}");
        }
    });
}
