//! UDP sockets: addresses, buffers, batches, errors, deadlines, close, wake-ups of receivers,
//! conversions.

mod common;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::by_hand::Wakes;
use common::{becomes, has_ipv6, op_error, own_address, park_on, poll_once, poll_with, run};
use netpoll::net::{
    Ancillary, RecvBatch, SendBatch, SocketAddr, ToSocketAddrs, ToSocketAddrsFuture, UdpSocket, is_closed, is_timeout,
    raw_os_error,
};
use netpoll::task;

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// Returns two sockets and their addresses.
async fn sockets() -> (UdpSocket, UdpSocket, SocketAddr, SocketAddr) {
    let (one, other) = (socket().await, socket().await);
    let (a, b) = (one.local_addr().unwrap(), other.local_addr().unwrap());
    (one, other, a, b)
}

async fn connected_pair() -> (UdpSocket, UdpSocket) {
    let (one, other, a, b) = sockets().await;
    one.connect(b).await.unwrap();
    other.connect(a).await.unwrap();
    (one, other)
}

/// Polls `future`, asserts that it waits, increments `waiting`, and awaits `future`.
async fn counted<T: std::fmt::Debug>(future: impl Future<Output = T>, waiting: &AtomicUsize) -> T {
    let mut future = pin!(future);
    let polled = poll_once(&mut future).await;
    assert!(polled.is_pending(), "{polled:?} without a wait");
    waiting.fetch_add(1, Ordering::SeqCst);
    future.await
}

fn op_text(error: &io::Error) -> String {
    op_error(error).to_string()
}

/// A datagram with an address goes to that address, even from a connected socket, as in std. A
/// datagram without an address needs a peer. Go (TestWriteToUDP) rejects an address on a connected
/// socket.
#[test]
fn datagram_goes_to_address_or_peer() {
    run(async {
        let (one, other, a, b) = sockets().await;
        let plain = Ancillary::new();
        let bufs = [IoSlice::new(b"x")];
        let mut batch = SendBatch::new();

        // An unconnected socket needs an address.
        assert_eq!(raw_os_error(&one.send(b"x").await.unwrap_err()), Some(libc::EDESTADDRREQ));
        assert_eq!(one.send_to(b"x", b).await.unwrap(), 1);
        assert_eq!(one.send_msg(&bufs, b, &plain).await.unwrap(), 1);
        batch.push(b"x", b);
        assert_eq!(one.send_many(&mut batch).await.unwrap(), 1);
        batch.push(b"x", None);
        for error in [
            one.send_msg(&bufs, None, &plain).await.unwrap_err(),
            one.send_to(b"x", &[][..]).await.unwrap_err(),
            one.send_many(&mut batch).await.unwrap_err(),
        ] {
            assert_eq!(op_text(&error), format!("write udp {a}: missing address"));
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(one.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);

        // A connected socket sends to its peer if there is no address.
        one.connect(b).await.unwrap();
        assert_eq!(one.peer_addr().unwrap(), b);
        assert_eq!(one.send(b"x").await.unwrap(), 1);
        assert_eq!(one.send_msg(&bufs, None, &plain).await.unwrap(), 1);
        assert_eq!(one.send_many(&mut batch).await.unwrap(), 1);
        for _ in 0..6 {
            assert_eq!(other.recv_from(&mut [0; 8]).await.unwrap(), (1, a));
        }
        // Sending to another address does not change the peer.
        let third = socket().await;
        let c = third.local_addr().unwrap();
        for to in [b, c] {
            let receiver = if to == b { &other } else { &third };
            assert_eq!(one.send_to(b"1", to).await.unwrap(), 1);
            assert_eq!(one.send_msg(&[IoSlice::new(b"22")], to, &plain).await.unwrap(), 2);
            batch.push(b"333", to);
            assert_eq!(one.send_many(&mut batch).await.unwrap(), 1);
            assert_eq!(std::future::poll_fn(|cx| one.poll_send_to(cx, b"4444", to)).await.unwrap(), 4);
            for count in 1..=4 {
                assert_eq!(receiver.recv_from(&mut [0; 8]).await.unwrap(), (count, a));
            }
        }
        assert_eq!(one.peer_addr().unwrap(), b);
        batch.push(b"x", None);
        batch.push(b"x", c);
        batch.push(b"x", None);
        while !batch.is_empty() {
            one.send_many(&mut batch).await.unwrap();
        }
        for receiver in [&other, &third, &other] {
            assert_eq!(receiver.recv_from(&mut [0; 8]).await.unwrap(), (1, a));
        }
        // The socket can be connected to another peer.
        one.connect(c).await.unwrap();
        one.send(b"third").await.unwrap();
        assert_eq!(third.recv(&mut [0; 8]).await.unwrap(), 5);
    });
}

/// Go: TestUDPZeroBytePayload.
#[test]
fn empty_datagram_is_received() {
    run(async {
        let (one, other, a, b) = sockets().await;
        let mut buf = [0; 8];
        let mut batch = RecvBatch::new(4, 8);
        for _ in 0..4 {
            assert_eq!(one.send_to(b"", b).await.unwrap(), 0);
        }
        assert_eq!(other.recv_from(&mut buf).await.unwrap(), (0, a));
        assert_eq!(other.recv(&mut buf).await.unwrap(), 0);
        let info = other.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await.unwrap();
        assert_eq!((info.len, info.from, info.is_truncated), (0, a, false));
        assert_eq!(other.recv_many(&mut batch).await.unwrap(), 1);
        assert!(batch.get(0).unwrap().bytes().is_empty() && batch.get(0).unwrap().segments().next().is_none());
    });
}

/// Go: TestUDPZeroByteBuffer.
#[test]
fn empty_buffer_succeeds_or_times_out() {
    run(async {
        let (one, other, a, b) = sockets().await;
        // `recv` with an empty buffer receives nothing and does not wait.
        assert_eq!(other.recv(&mut []).await.unwrap(), 0);
        one.send_to(b"first", b).await.unwrap();
        one.send_to(b"second", b).await.unwrap();
        assert_eq!(other.recv(&mut []).await.unwrap(), 0);
        assert_eq!(other.recv_from(&mut []).await.unwrap(), (0, a), "the first datagram is received");
        assert_eq!(other.recv(&mut [0; 8]).await.unwrap(), 6);
        other.set_read_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&other.recv_from(&mut []).await.unwrap_err()));
        assert_eq!(other.recv(&mut []).await.unwrap(), 0);
    });
}

/// Go: TestUDPReadSizeError.
#[test]
fn oversize_datagram_is_truncated_and_flagged() {
    run(async {
        let (one, other, a, b) = sockets().await;
        let mut buf = [0; 5];
        for _ in 0..5 {
            one.send_to(b"0123456789", b).await.unwrap();
        }
        assert_eq!(other.peek_from(&mut buf).await.unwrap(), (5, a));
        assert_eq!(other.recv_from(&mut buf).await.unwrap(), (5, a));
        assert_eq!(other.peek(&mut buf).await.unwrap(), 5);
        assert_eq!(other.recv(&mut buf).await.unwrap(), 5);
        let info = other.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await.unwrap();
        assert_eq!((info.len, info.is_truncated), (5, true));
        let (mut head, mut tail) = ([0; 3], [0; 100]);
        let info = other.recv_msg(&mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)]).await.unwrap();
        assert_eq!((info.len, info.is_truncated), (10, false));
        assert_eq!((&head, &tail[..7]), (b"012", &b"3456789"[..]));
        let mut batch = RecvBatch::new(4, 5);
        assert_eq!(other.recv_many(&mut batch).await.unwrap(), 1);
        let datagram = batch.get(0).unwrap();
        assert_eq!((datagram.bytes(), datagram.is_truncated()), (&b"01234"[..], true));
    });
}

#[test]
fn batch_iterates_in_order() {
    run(async {
        let (one, other, a, b) = sockets().await;
        let mut batch = RecvBatch::new(8, 16);
        assert_eq!(batch.iter().len(), 0);
        for text in ["a", "bc", "def"] {
            one.send_to(text.as_bytes(), b).await.unwrap();
        }
        let mut lengths = Vec::new();
        while lengths.len() < 3 {
            let count = other.recv_many(&mut batch).await.unwrap();
            let mut walk = batch.iter();
            assert_eq!(walk.len(), count);
            walk.next();
            assert_eq!(walk.len(), count - 1);
            for datagram in &batch {
                assert_eq!(datagram.from(), Some(a));
                lengths.push(datagram.bytes().len());
            }
        }
        assert_eq!(lengths, [1, 2, 3]);
    });
}

/// Go: TestUDPIPVersionReadMsg, TestIPv4WriteMsgUDPAddrPortTargetAddrIPVersion,
/// TestIPv6WriteMsgUDPAddrPortTargetAddrIPVersion.
#[test]
fn send_to_checks_address_family() {
    run(async {
        let v4 = socket().await;
        let to = v4.local_addr().unwrap();
        let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", to.port()).parse().unwrap();
        let from = socket().await;
        let mut buf = [0; 8];
        for target in [to, mapped] {
            from.send_to(b"x", target).await.unwrap();
            assert_eq!(v4.recv_from(&mut buf).await.unwrap().1, from.local_addr().unwrap(), "{target}");
            from.send_msg(&[IoSlice::new(b"x")], target, &Ancillary::new()).await.unwrap();
            assert_eq!(v4.recv_from(&mut buf).await.unwrap().1, from.local_addr().unwrap(), "{target}");
        }
        let v6_loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, to.port()));
        let refused = Some(libc::EAFNOSUPPORT);
        assert_eq!(raw_os_error(&from.send_to(b"x", v6_loopback).await.unwrap_err()), refused);
        let error = from.connect(v6_loopback).await.unwrap_err();
        assert!(op_text(&error).starts_with(&format!("dial udp {v6_loopback}: connect: ")), "{error}");
        assert_eq!(raw_os_error(&error), refused);
        from.connect(mapped).await.unwrap();
        assert_eq!(from.peer_addr().unwrap(), to);

        if !has_ipv6() {
            return;
        }
        let dual = UdpSocket::bind("[::]:0").await.unwrap();
        let port = dual.local_addr().unwrap().port();
        let sender = socket().await;
        sender.send_to(b"x", ("127.0.0.1", port)).await.unwrap();
        let (_, from) = dual.recv_from(&mut buf).await.unwrap();
        assert!(from.is_ipv6() && from.ip().to_canonical() == sender.local_addr().unwrap().ip());
        for target in [from, sender.local_addr().unwrap()] {
            dual.send_to(b"y", target).await.unwrap();
            assert_eq!(sender.recv_from(&mut buf).await.unwrap().1.port(), port);
        }
        let v6 = UdpSocket::bind("[::1]:0").await.unwrap();
        dual.send_to(b"z", v6.local_addr().unwrap()).await.unwrap();
        assert_eq!(v6.recv_from(&mut buf).await.unwrap(), (1, (Ipv6Addr::LOCALHOST, port).into()));
    });
}

/// A name that resolves to the given addresses, in their order.
struct Name(Vec<SocketAddr>);

impl ToSocketAddrs for Name {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        let addrs = self.0.clone();
        ToSocketAddrsFuture::blocking(move || Ok(addrs.into_iter()))
    }
}

#[test]
fn send_to_picks_address_of_fitting_family() {
    run(async {
        if !has_ipv6() {
            return;
        }
        let v4 = socket().await;
        let to_v4 = v4.local_addr().unwrap();
        let v6 = UdpSocket::bind("[::1]:0").await.unwrap();
        let to_v6 = v6.local_addr().unwrap();
        let only_v6 = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
            socket.set_only_v6(true).unwrap();
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
            UdpSocket::from(OwnedFd::from(socket))
        };
        // The local address of each sender, and whether it sends to IPv4 and to IPv6.
        let senders = [
            ("127.0.0.1:0", [true, false]),
            ("0.0.0.0:0", [true, false]),
            ("[::ffff:127.0.0.1]:0", [true, false]),
            ("[::1]:0", [false, true]),
            ("[::]:0", [true, true]),
            ("[::]:0, IPv6 only", [false, true]),
        ];
        let mapped = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), to_v4.port());
        let mut buf = [0; 8];
        for (what, [sends_v4, sends_v6]) in senders {
            let sender = async || if what.contains("only") { only_v6() } else { UdpSocket::bind(what).await.unwrap() };
            for addrs in [vec![to_v6, to_v4], vec![to_v4, to_v6], vec![to_v6, mapped], vec![to_v6, to_v6, to_v4]] {
                let goes_to_v4 = if addrs[0].ip().to_canonical().is_ipv4() { sends_v4 } else { !sends_v6 };
                let receiver = if goes_to_v4 { &v4 } else { &v6 };
                let sender = sender().await;
                let port = sender.local_addr().unwrap().port();
                assert_eq!(sender.send_to(b"list", &addrs[..]).await.unwrap(), 4, "{what}: {addrs:?}");
                let (count, from) = receiver.recv_from(&mut buf).await.unwrap();
                assert_eq!((count, from.port()), (4, port), "{what}: {addrs:?}");
                // The answer arrives only if the datagram was sent from an address of the
                // receiver's family.
                receiver.send_to(b"answer", from).await.unwrap();
                assert_eq!(sender.recv_from(&mut buf).await.unwrap().0, 6, "{what}: {addrs:?}");
                assert_eq!(sender.send_to(b"name", Name(addrs.clone())).await.unwrap(), 4, "{what}: {addrs:?}");
                assert_eq!(receiver.recv_from(&mut buf).await.unwrap(), (4, from), "{what}: {addrs:?}");
                sender.connect(Name(addrs)).await.unwrap();
                let peer = sender.peer_addr().unwrap();
                assert_eq!(peer.ip().to_canonical().is_ipv4(), goes_to_v4, "{what}: {peer}");
                assert_eq!(sender.send(b"peer").await.unwrap(), 4);
                assert_eq!(receiver.recv_from(&mut buf).await.unwrap(), (4, from), "{what}");
            }
            // If no address is suitable, the result is the kernel's error.
            let wrong = if !sends_v4 { to_v4 } else { to_v6 };
            if !(sends_v4 && sends_v6) {
                let error = sender().await.send_to(b"x", &[wrong, wrong][..]).await.unwrap_err();
                assert!(error.raw_os_error().is_some(), "{what}: {error}");
            }
        }
    });
}

/// If the kernel refuses an address, the next one is tried, and one datagram is sent.
#[test]
fn send_to_tries_next_address_after_refusal() {
    run(async {
        if !has_ipv6() {
            return;
        }
        let (sender, receiver) = (UdpSocket::bind("[::]:0").await.unwrap(), UdpSocket::bind("[::1]:0").await.unwrap());
        let good = receiver.local_addr().unwrap();
        // Port 0 is invalid.
        let nowhere = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let refused = sender.send_to(b"x", nowhere).await.unwrap_err();
        let error = sender.send_to(b"x", &[nowhere, nowhere][..]).await.unwrap_err();
        assert_eq!(error.raw_os_error(), refused.raw_os_error());
        assert_eq!(sender.send_to(b"x", &[nowhere, good, good][..]).await.unwrap(), 1);
        assert_eq!(receiver.recv(&mut [0; 4]).await.unwrap(), 1);
        let mut buf = [0; 4];
        assert!(poll_once(&mut receiver.recv(&mut buf)).await.is_pending(), "one datagram");
        // A datagram that is too long for one address is too long for all.
        let long = vec![0; 70_000];
        let error = sender.send_to(&long, &[good, good][..]).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    });
}

/// Go: TestReadWriteMsgUDPAddrPortEmptyCmsg.
#[test]
fn message_without_ancillary_data_is_sent() {
    run(async {
        let (one, other, a, b) = sockets().await;
        one.send_msg(&[IoSlice::new(b"ab"), IoSlice::new(b"c")], b, &Ancillary::default()).await.unwrap();
        let mut buf = [0; 8];
        let info = other.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await.unwrap();
        assert_eq!((info.len, info.from, info.ancillary), (3, a, Ancillary::new()));
        one.send_msg(&[], b, &Ancillary::default()).await.unwrap();
        assert_eq!(other.recv_msg(&mut []).await.unwrap().len, 0);
    });
}

/// Go: TestUDPServer, TestPacketConn, TestConnAndPacketConn, TestUDPConnLocalName, TestUDPListener.
#[test]
fn every_address_form_echoes() {
    run(async {
        let mut forms = vec![("0.0.0.0:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1"), ("localhost:0", "localhost")];
        if has_ipv6() {
            forms.extend([("[::]:0", "127.0.0.1"), ("[::]:0", "::1"), ("[::1]:0", "::1")]);
            forms.push(("[::ffff:127.0.0.1]:0", "127.0.0.1"));
        }
        for (bound, dialled) in forms {
            let server = UdpSocket::bind(bound).await.unwrap();
            let port = server.local_addr().unwrap().port();
            assert_ne!(port, 0, "{bound}");
            assert!(UdpSocket::bind(server.local_addr().unwrap()).await.is_err(), "{bound} twice");
            let echo = task::spawn(async move {
                let mut buf = [0; 64];
                for _ in 0..2 {
                    let (count, from) = server.recv_from(&mut buf).await.unwrap();
                    server.send_to(&buf[..count], from).await.unwrap();
                }
            });
            let client = UdpSocket::bind(if dialled == "::1" { "[::1]:0" } else { "127.0.0.1:0" }).await.unwrap();
            let mut buf = [0; 64];
            client.send_to(b"unconnected", (dialled, port)).await.unwrap();
            assert_eq!(client.recv_from(&mut buf).await.unwrap().0, 11);
            client.connect((dialled, port)).await.unwrap();
            client.send(b"connected").await.unwrap();
            assert_eq!(client.recv(&mut buf).await.unwrap(), 9);
            assert_eq!(&buf[..9], b"connected");
            echo.await;
        }
    });
}

#[test]
fn errors_of_bind_and_resolve_name_the_operation() {
    run(async {
        let taken = socket().await;
        let addr = taken.local_addr().unwrap();
        let error = UdpSocket::bind(addr).await.unwrap_err();
        assert_eq!(op_text(&error), format!("listen udp {addr}: bind: address already in use"));
        assert_eq!((error.kind(), raw_os_error(&error)), (ErrorKind::AddrInUse, Some(libc::EADDRINUSE)));
        let error = UdpSocket::bind(&[][..]).await.unwrap_err();
        assert_eq!(op_text(&error), "listen udp: missing address");
        let error = taken.connect(&[][..]).await.unwrap_err();
        assert_eq!(op_text(&error), "dial udp: missing address");
        let error = taken.send_to(b"x", "nonsense").await.unwrap_err();
        assert!(op_text(&error).starts_with(&format!("write udp {addr}: ")), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        // The first address that can be bound is used.
        let second = UdpSocket::bind(&[addr, "127.0.0.1:0".parse().unwrap()][..]).await.unwrap();
        assert_ne!(second.local_addr().unwrap(), addr);
    });
}

#[test]
fn oversize_datagrams_and_refusals_are_errors() {
    run(async {
        let (one, other) = (socket().await, UdpSocket::bind(own_address()).await.unwrap());
        let b = other.local_addr().unwrap();
        let long = vec![0; 65_508];
        assert_eq!(one.send_to(&long, b).await.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(one.send_to(&long[1..], b).await.unwrap(), 65_507);
        let broadcast = one.send_to(b"x", "255.255.255.255:9").await.unwrap_err();
        // `NetworkUnreachable` occurs on a host without a network.
        assert!(matches!(broadcast.kind(), ErrorKind::PermissionDenied | ErrorKind::NetworkUnreachable), "{broadcast}");

        drop(other);
        one.connect(b).await.unwrap();
        one.send(b"anybody?").await.unwrap();
        let mut buf = [0; 8];
        assert_eq!(one.recv(&mut buf).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let mut again = one.recv(&mut buf);
        assert!(poll_once(&mut again).await.is_pending(), "the error is reported once");
        // A waiting receive gets the error.
        one.send(b"anybody?").await.unwrap();
        assert_eq!(again.await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

/// Go: TestReadFromTimeout, TestReadFromTimeoutFluctuation, TestUDPReadTimeout.
#[test]
fn receives_time_out() {
    run(async {
        let (one, other, a, b) = sockets().await;
        let mut buf = [0; 8];
        let mut batch = RecvBatch::new(2, 8);
        let assert_read_timeout = |error: io::Error| {
            assert!(is_timeout(&error), "{error}");
            assert_eq!(op_text(&error), format!("read udp {b}: i/o timeout"));
        };
        one.send_to(b"there", b).await.unwrap();
        other.readable().await.unwrap();
        for deadline in [Instant::now() - Duration::from_secs(1), Instant::now()] {
            other.set_read_deadline(deadline).unwrap();
            assert_read_timeout(other.recv_from(&mut buf).await.unwrap_err());
            assert_read_timeout(other.recv(&mut buf).await.unwrap_err());
            assert_read_timeout(other.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await.unwrap_err());
            assert_read_timeout(other.recv_many(&mut batch).await.unwrap_err());
            assert_read_timeout(other.readable().await.unwrap_err());
            assert_read_timeout(other.try_read_io(|_| Ok(())).unwrap_err());
        }
        other.set_read_deadline(None).unwrap();
        assert_eq!(other.recv_from(&mut buf).await.unwrap(), (5, a), "nothing was lost");
        for millis in [1, 5, 20, 50] {
            let start = Instant::now();
            other.set_read_deadline(start + Duration::from_millis(millis)).unwrap();
            assert_read_timeout(other.recv_from(&mut buf).await.unwrap_err());
            assert!(start.elapsed() >= Duration::from_millis(millis));
        }
        other.set_deadline(None).unwrap();
        other.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(other.read_timeout().unwrap(), Some(Duration::from_millis(5)));
        for _ in 0..3 {
            assert_read_timeout(other.recv_from(&mut buf).await.unwrap_err());
        }
        assert_eq!(other.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        // A changed deadline applies to operations that already wait.
        other.set_read_timeout(None).unwrap();
        let mut waiting = other.recv_from(&mut buf);
        assert!(poll_once(&mut waiting).await.is_pending());
        other.set_deadline(Instant::now()).unwrap();
        assert_read_timeout(waiting.await.unwrap_err());
    });
}

/// Go: TestWriteToTimeout.
#[test]
fn timed_out_send_sends_nothing() {
    run(async {
        let (one, other, a, b) = sockets().await;
        one.set_write_deadline(Instant::now()).unwrap();
        let mut batch = SendBatch::new();
        batch.push(b"x", b);
        for _ in 0..2 {
            for error in [
                one.send_to(b"x", b).await.unwrap_err(),
                one.send_to(b"", b).await.unwrap_err(),
                one.send_msg(&[IoSlice::new(b"x")], b, &Ancillary::new()).await.unwrap_err(),
                one.send_many(&mut batch).await.unwrap_err(),
                one.writable().await.unwrap_err(),
                one.try_write_io(|_| Ok(())).unwrap_err(),
            ] {
                assert!(is_timeout(&error), "{error}");
                assert_eq!(op_text(&error), format!("write udp {a}: i/o timeout"));
            }
        }
        assert_eq!(batch.len(), 1);
        one.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(one.write_timeout().unwrap(), Some(Duration::from_secs(5)));
        one.set_deadline(None).unwrap();
        one.send_many(&mut batch).await.unwrap();
        assert_eq!(other.recv(&mut [0; 8]).await.unwrap(), 1);
        let mut buf = [0; 8];
        assert!(poll_once(&mut other.recv(&mut buf)).await.is_pending());
    });
}

/// Regression: a send that waited for the look-up of a name outlasted its deadline and the socket.
#[test]
fn send_that_looks_up_a_name_times_out_and_is_closed() {
    /// A name whose look-up ends when the sender of the channel is dropped.
    struct Slow(Mutex<Option<mpsc::Receiver<()>>>, SocketAddr);

    impl ToSocketAddrs for Slow {
        type Iter = std::vec::IntoIter<SocketAddr>;

        fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
            let (end, to) = (self.0.lock().unwrap().take().unwrap(), self.1);
            ToSocketAddrsFuture::blocking(move || {
                let _ = end.recv();
                Ok(vec![to].into_iter())
            })
        }
    }

    run(async {
        let (one, other, _, b) = sockets().await;
        let slow = || {
            let (end, ended) = mpsc::channel();
            (end, Slow(Mutex::new(Some(ended)), b))
        };
        let soon = Duration::from_millis(20);

        let (_end, name) = slow();
        one.set_write_deadline(Instant::now() + soon).unwrap();
        assert!(is_timeout(&one.send_to(b"x", name).await.unwrap_err()));
        one.set_write_deadline(None).unwrap();
        let (_end, name) = slow();
        one.set_write_timeout(Some(soon)).unwrap();
        assert!(is_timeout(&one.send_to(b"x", name).await.unwrap_err()));

        // A look-up that ends in time is followed by the send.
        one.set_write_timeout(Some(common::BOUND)).unwrap();
        let (end, name) = slow();
        let mut send = one.send_to(b"sent", name);
        assert!(poll_once(&mut send).await.is_pending());
        drop(end);
        assert_eq!(send.await.unwrap(), 4);
        let mut buf = [0; 8];
        assert_eq!(other.recv(&mut buf).await.unwrap(), 4);

        let (_end, name) = slow();
        let mut send = one.send_to(b"x", name);
        assert!(poll_once(&mut send).await.is_pending());
        one.close().await.unwrap();
        assert!(is_closed(&send.await.unwrap_err()));
        let (_end, name) = slow();
        assert!(is_closed(&one.send_to(b"x", name).await.unwrap_err()));
        assert!(poll_once(&mut other.recv(&mut buf)).await.is_pending());
    });
}

/// Go: TestPacketConnClose, TestCloseUnblocksReadUDP, TestCloseError.
#[test]
fn close_wakes_all_and_later_calls_fail() {
    run(async {
        let (one, other) = (Arc::new(UdpSocket::bind(own_address()).await.unwrap()), socket().await);
        let (a, b) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        let waiting = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..5)
            .map(|n| {
                let (one, waiting) = (one.clone(), waiting.clone());
                task::spawn(async move {
                    let (mut buf, mut batch) = ([0; 8], RecvBatch::new(2, 2));
                    let wait: Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>> = match n {
                        0 => Box::pin(async { one.recv_from(&mut []).await.map(drop) }),
                        1 => Box::pin(async { one.recv(&mut buf).await.map(drop) }),
                        2 => Box::pin(async { one.recv_many(&mut batch).await.map(drop) }),
                        3 => Box::pin(async { one.peek_from(&mut buf).await.map(drop) }),
                        _ => Box::pin(one.readable()),
                    };
                    counted(wait, &waiting).await
                })
            })
            .collect();
        let mut buf = [0; 1];
        let mut by_hand = one.recv(&mut buf);
        assert!(poll_once(&mut by_hand).await.is_pending());
        becomes("all tasks wait", || waiting.load(Ordering::SeqCst) == 5).await;
        one.close().await.unwrap();
        for waiter in waiters {
            assert!(is_closed(&waiter.await.unwrap_err()));
        }
        one.close().await.unwrap();
        let text = format!("read udp {a}: use of closed network connection");
        assert_eq!(op_text(&one.recv_from(&mut [0; 1]).await.unwrap_err()), text);
        assert_eq!(op_text(&one.recv(&mut []).await.unwrap_err()), text);
        assert_eq!(op_text(&by_hand.await.unwrap_err()), text);
        let mut batch = SendBatch::new();
        for error in [
            one.send_to(b"x", b).await.unwrap_err(),
            one.send_many(&mut batch).await.unwrap_err(),
            one.set_deadline(None).unwrap_err(),
            one.set_broadcast(true).unwrap_err(),
            one.local_addr().unwrap_err(),
            one.connect(b).await.unwrap_err(),
            one.try_write_io(|_| Ok(())).unwrap_err(),
        ] {
            assert!(is_closed(&error), "{error}");
        }
        // The port is free again.
        UdpSocket::bind(a).await.unwrap();
        other.send_to(b"x", b).await.unwrap();
        assert_eq!(other.recv(&mut [0; 8]).await.unwrap(), 1);
    });
}

/// Go: TestFdReadRace.
#[test]
fn raw_fd_is_available_during_a_receive() {
    run(async {
        let one = socket().await;
        let mut buf = [0; 8];
        let mut recv = one.recv(&mut buf);
        assert!(poll_once(&mut recv).await.is_pending());
        assert!(one.as_raw_fd() >= 0 && one.as_fd().as_raw_fd() == one.as_raw_fd());
        one.send_to(b"self", one.local_addr().unwrap()).await.unwrap();
        assert_eq!(recv.await.unwrap(), 4);
    });
}

/// Invariant 8. Several datagrams that arrive with one edge reach as many receivers.
#[test]
fn merged_datagram_edges_wake_all_receivers() {
    run(async {
        const RECEIVERS: usize = 20;
        let socket = Arc::new(socket().await);
        let addr = socket.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..50 {
            let waiting = Arc::new(AtomicUsize::new(0));
            let receivers: Vec<_> = (0..RECEIVERS)
                .map(|_| {
                    let (socket, waiting) = (socket.clone(), waiting.clone());
                    task::spawn(async move { counted(socket.recv_from(&mut [0; 8]), &waiting).await.unwrap() })
                })
                .collect();
            becomes("all receivers wait", || waiting.load(Ordering::SeqCst) == RECEIVERS).await;
            for _ in 0..RECEIVERS {
                sender.send_to(b"x", addr).unwrap();
            }
            for receiver in receivers {
                receiver.await;
            }
        }
    });
}

/// Invariant 8. A woken receiver that is dropped passes its wake-up on.
#[test]
fn dropped_receive_passes_wakeup_on() {
    run(async {
        let (one, other, _, b) = sockets().await;
        for _ in 0..100 {
            let (mut first, mut second) = ([0; 8], [0; 8]);
            let (wakes, waker) = Wakes::new();
            let mut dropped = other.recv(&mut first);
            assert!(poll_with(&mut dropped, &waker).is_pending());
            let mut kept = other.recv(&mut second);
            assert!(poll_once(&mut kept).await.is_pending());
            one.send_to(b"x", b).await.unwrap();
            becomes("the first receiver is woken", || wakes.count() > 0).await;
            drop(dropped);
            assert_eq!(kept.await.unwrap(), 1);
        }
    });
}

/// Invariant 8. Four tasks receive and four send concurrently through one socket. Each datagram
/// reaches one receiver.
#[test]
fn receives_and_sends_run_in_parallel() {
    const EACH: usize = 200;
    run(async {
        let socket = Arc::new(socket().await);
        let addr = socket.local_addr().unwrap();
        let (sent, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let spawn_receiver = |_| {
            let (socket, received) = (socket.clone(), received.clone());
            task::spawn(async move {
                let mut buf = [0; 8];
                loop {
                    match socket.recv_from(&mut buf).await {
                        Ok(_) => received.fetch_add(1, Ordering::SeqCst),
                        Err(error) if is_closed(&error) => return,
                        Err(error) => panic!("{error}"),
                    };
                }
            })
        };
        let spawn_sender = |_| {
            let (socket, sent, received) = (socket.clone(), sent.clone(), received.clone());
            task::spawn(async move {
                for _ in 0..EACH {
                    // Limits the datagrams in flight, because the kernel drops those that do not
                    // fit in the receive buffer.
                    let under_way = || sent.load(Ordering::SeqCst).saturating_sub(received.load(Ordering::SeqCst));
                    becomes("there is room", || under_way() < 50).await;
                    sent.fetch_add(1, Ordering::SeqCst);
                    socket.send_to(b"x", addr).await.unwrap();
                }
            })
        };
        let receivers: Vec<_> = (0..4).map(spawn_receiver).collect();
        let senders: Vec<_> = (0..4).map(spawn_sender).collect();
        for sender in senders {
            sender.await;
        }
        becomes("all datagrams are received", || received.load(Ordering::SeqCst) == 4 * EACH).await;
        socket.close().await.unwrap();
        for receiver in receivers {
            receiver.await;
        }
    });
}

#[test]
fn any_number_of_tasks_may_wait_for_readiness() {
    run(async {
        let (one, other, _, b) = sockets().await;
        let (other, waiting) = (Arc::new(other), Arc::new(AtomicUsize::new(0)));
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let (other, waiting) = (other.clone(), waiting.clone());
                task::spawn(async move { counted(other.readable(), &waiting).await })
            })
            .collect();
        becomes("all tasks wait", || waiting.load(Ordering::SeqCst) == 10).await;
        one.writable().await.unwrap();
        one.send_to(b"x", b).await.unwrap();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        let mut buf = [0; 8];
        let count = other.try_read_io(|fd| {
            // SAFETY: the buffer is valid for writes of its length.
            let count = unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        });
        assert_eq!(count.unwrap(), 1);
        let again = other.try_read_io(|_| -> io::Result<()> { Err(ErrorKind::WouldBlock.into()) });
        assert_eq!(again.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(poll_once(&mut other.readable()).await.is_pending());
        assert_eq!(one.try_write_io(|_| Ok(7)).unwrap(), 7);
    });
}

#[test]
fn poll_functions_work_under_another_executor() {
    park_on(async {
        let (one, other) = connected_pair().await;
        let mut buf = [0; 8];
        let mut batch = RecvBatch::new(2, 8);
        let received = std::future::poll_fn(|cx| {
            let polled = other.poll_recv(cx, &mut buf);
            if polled.is_pending() {
                assert!(matches!(one.poll_send(cx, b"ping"), Poll::Ready(Ok(4))));
            }
            polled
        });
        assert_eq!(received.await.unwrap(), 4);
        one.send(b"again").await.unwrap();
        std::future::poll_fn(|cx| other.poll_readable(cx)).await.unwrap();
        std::future::poll_fn(|cx| other.poll_writable(cx)).await.unwrap();
        let (count, from) = std::future::poll_fn(|cx| other.poll_recv_from(cx, &mut buf)).await.unwrap();
        assert_eq!((count, from), (5, one.local_addr().unwrap()));
        one.send(b"").await.unwrap();
        assert_eq!(std::future::poll_fn(|cx| other.poll_recv_many(cx, &mut batch)).await.unwrap(), 1);
    });
}

#[test]
fn conversions_keep_the_socket_and_its_peer() {
    run(async {
        let (one, other) = connected_pair().await;
        let (a, b) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        let std_socket = std::net::UdpSocket::try_from(one).unwrap();
        assert_eq!(std_socket.local_addr().unwrap(), a);
        std_socket.set_nonblocking(false).unwrap();
        let one = UdpSocket::from(std_socket);
        let mut buf = [0; 8];
        assert!(poll_once(&mut one.recv(&mut buf)).await.is_pending(), "the socket is non-blocking");
        assert_eq!(one.peer_addr().unwrap(), b, "the socket is connected");
        one.send(b"std").await.unwrap();
        assert_eq!(other.recv(&mut buf).await.unwrap(), 3);
        let number = one.into_raw_fd();
        // SAFETY: `into_raw_fd` transferred ownership of the number.
        let one = unsafe { UdpSocket::from_raw_fd(number) };
        let one = UdpSocket::from(OwnedFd::from(one));
        one.send(b"owned").await.unwrap();
        assert_eq!(other.recv(&mut buf).await.unwrap(), 5);
        assert!(format!("{one:?}").contains(&format!("addr: {a}, peer: {b}")), "{one:?}");
        one.close().await.unwrap();
        assert!(is_closed(&std::net::UdpSocket::try_from(one).unwrap_err()));
    });
}

/// Go: TestErrNotPollable, TestNonpollableDeadline, TestFileError.
#[test]
fn other_descriptor_kinds_get_the_results_of_the_kernel() {
    run(async {
        let file = UdpSocket::from(OwnedFd::from(std::fs::File::open("Cargo.toml").unwrap()));
        file.set_deadline(Instant::now() + common::BOUND).unwrap();
        assert_eq!(file.recv_from(&mut [0; 1]).await.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(file.send(b"x").await.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(file.local_addr().unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));

        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let unix = UdpSocket::from(OwnedFd::from(theirs));
        ours.send(b"one").unwrap();
        ours.send(b"two").unwrap();
        let mut buf = [0; 8];
        assert_eq!(unix.recv_from(&mut buf).await.unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        let mut batch = RecvBatch::new(2, 8);
        // The failed receive has taken the first datagram.
        unix.recv_many(&mut batch).await.unwrap();
        assert_eq!((batch.get(0).unwrap().from(), batch.get(0).unwrap().bytes()), (None, &b"two"[..]));
        let mut out = SendBatch::new();
        out.push(b"one", None);
        out.push(b"two", None);
        assert_eq!(unix.send_many(&mut out).await.unwrap(), 2);
        assert_eq!(
            (ours.recv(&mut buf).unwrap(), ours.recv(&mut buf).unwrap()),
            (3, 3),
            "the batch is sent as two datagrams"
        );

        let (tcp, _peer) = common::pair().await;
        let tcp = UdpSocket::from(OwnedFd::from(tcp));
        assert_eq!(tcp.send(b"tcp").await.unwrap(), 3);
    });
}
