//! `ListenConfig`: the effect of each setting on the listener and its streams, and the errors of
//! invalid settings and addresses. `admission.rs` tests permits and reserved descriptors.
#![cfg(target_os = "linux")] // TCP_DEFER_ACCEPT, SO_BINDTODEVICE, multipath TCP

mod common;

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use common::{child, has_ipv6, no_forks, op_error, own_address, poll_once, run};
use netpoll::net::{AddrError, ListenConfig, TcpListener, TcpStream, raw_os_error};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const ANY: &str = "127.0.0.1:0";

/// Returns the value of an integer option.
fn int(fd: impl AsFd, level: libc::c_int, name: libc::c_int) -> libc::c_int {
    let (mut value, mut length) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: value and length are valid for writes during the call.
    let result = unsafe { libc::getsockopt(raw, level, name, (&raw mut value).cast(), &raw mut length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    value
}

/// Returns the backlog, which TCP_INFO of a listener has in `tcpi_sacked`.
fn backlog(listener: &TcpListener) -> u32 {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let raw = listener.as_raw_fd();
    // SAFETY: the structure is valid for writes of its length during the call.
    let result =
        unsafe { libc::getsockopt(raw, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    assert_eq!(result, 0);
    // SAFETY: the structure has numbers only, so every bit pattern is a value.
    unsafe { info.assume_init() }.tcpi_sacked
}

/// Go: TestMaxAckBacklog.
#[test]
fn backlog_is_somaxconn_or_configured() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    run(async {
        assert_eq!(backlog(&TcpListener::bind(ANY).await.unwrap()), somaxconn);
        for (asked, got) in [(1, 1), (7, 7), (u32::MAX, somaxconn)] {
            let listener = ListenConfig::new().backlog(asked).listen(ANY).await.unwrap();
            assert_eq!(backlog(&listener), got.min(somaxconn));
        }
    });
}

#[test]
fn config_opens_any_number_of_listeners() {
    run(async {
        let config = ListenConfig::new().nodelay(false).user_timeout(Duration::from_secs(3));
        for config in [config.clone(), config] {
            let listener = config.listen(ANY).await.unwrap();
            assert!(!listener.nodelay().unwrap() && SockRef::from(&listener).reuse_address().unwrap());
            assert_eq!(listener.user_timeout().unwrap(), Some(Duration::from_secs(3)));
            assert!(format!("{config:?}").contains("nodelay: Some(false)"));
        }
    });
}

#[test]
fn port_is_shared_when_all_set_reuse_port() {
    run(async {
        let config = ListenConfig::new().reuse_port(true);
        let first = config.listen(ANY).await.unwrap();
        let addr = first.local_addr().unwrap();
        let second = config.listen(addr).await.unwrap();
        assert_eq!(second.local_addr().unwrap(), addr);
        assert_eq!(TcpListener::bind(addr).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    });
}

/// Returns the address of a closed listener that has a connection in TIME_WAIT, because the
/// listening side was the first to close the connection.
async fn address_in_time_wait() -> SocketAddr {
    let listener = TcpListener::bind(own_address()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client = TcpStream::connect(addr).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    server.force_close().await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    client.force_close().await.unwrap();
    let _no_forks = no_forks();
    listener.close().await.unwrap();
    addr
}

#[test]
fn reuse_address_can_be_disabled() {
    run(async {
        let addr = address_in_time_wait().await;
        let error = ListenConfig::new().reuse_address(false).listen(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        ListenConfig::new().listen(addr).await.unwrap();
    });
}

#[test]
fn listener_group_shares_one_port() {
    const CLIENTS: usize = 128;
    if !common::has_descriptors(500) {
        return;
    }
    run(async {
        let listeners = ListenConfig::new().listen_many(ANY, 4).await.unwrap();
        assert_eq!(listeners.len(), 4);
        let addr = listeners[0].local_addr().unwrap();
        assert_ne!(addr.port(), 0);
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == addr));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(TcpStream::connect(addr).await.unwrap());
        }
        let mut got = [0; 4];
        let mut streams = Vec::new();
        while streams.len() < CLIENTS {
            for (listener, got) in listeners.iter().zip(&mut got) {
                while let Poll::Ready(accepted) = poll_once(&mut listener.accept()).await {
                    streams.push(accepted.unwrap());
                    *got += 1;
                }
            }
        }
        // The probability that a given listener gets no connection is (3/4)^128.
        assert!(got.iter().all(|&got| got > 0), "{got:?}");
        let error = ListenConfig::new().listen_many(ANY, 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let taken = TcpListener::bind(ANY).await.unwrap();
        let error = ListenConfig::new().listen_many(taken.local_addr().unwrap(), 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn ipv6_only_leaves_ipv4_to_others() {
    if !has_ipv6() {
        return;
    }
    run(async {
        let config = ListenConfig::new().only_v6(true);
        let six = config.listen((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
        assert!(six.only_v6().unwrap());
        let port = six.local_addr().unwrap().port();
        let four = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
        // Skips this part if another process uses the port.
        if let Ok(four) = four {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            let (_, peer) = four.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
        let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
        assert!(!both.only_v6().unwrap());
    });
}

#[test]
fn buffers_fast_open_and_deferred_accept_are_set() {
    run(async {
        let config = ListenConfig::new()
            .recv_buffer_size(70_000)
            .send_buffer_size(80_000)
            .fast_open(17)
            .defer_accept(Duration::from_millis(2500));
        let listener = config.listen(ANY).await.unwrap();
        assert_eq!((listener.recv_buffer_size().unwrap(), listener.send_buffer_size().unwrap()), (140_000, 160_000));
        assert_eq!(int(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN), 17);
        // The kernel stores the time as a number of retransmissions, which end after 1, 3, 7 …
        // seconds.
        assert_eq!(int(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT), 3);
    });
}

#[test]
fn deferred_accept_waits_for_data() {
    run(async {
        let listener = ListenConfig::new().defer_accept(Duration::from_secs(30)).listen(ANY).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut accept = listener.accept();
        let early = netpoll::future::timeout(Duration::from_millis(50), &mut accept).await;
        assert!(early.is_err(), "the client has not sent data");
        client.write_all(b"hello").await.unwrap();
        let (server, _) = accept.await.unwrap();
        assert_eq!(poll_once(&mut server.read(&mut [0; 8])).await.map(Result::unwrap), Poll::Ready(5));
    });
}

#[test]
fn device_bound_listener_accepts_on_that_device() {
    run(async {
        let config = ListenConfig::new().bind_device("lo");
        let listener = match config.listen(ANY).await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return println!("skipped: this process may not bind to a device");
            }
            listener => listener.unwrap(),
        };
        assert_eq!(listener.device().unwrap().as_deref(), Some("lo"));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(server.device().unwrap().as_deref(), Some("lo"));
    });
}

/// Go: TestListenConfigControl.
#[test]
fn control_function_sees_each_socket_before_bind() {
    run(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let config = ListenConfig::new().reuse_port(true).control({
            let calls = calls.clone();
            move |network, addr, fd| {
                calls.fetch_add(1, Ordering::SeqCst);
                assert_eq!(network, if addr.is_ipv4() { "tcp4" } else { "tcp6" });
                let socket = SockRef::from(&fd);
                assert!(socket.reuse_port()? && !socket.is_listener()?);
                assert_eq!(socket.local_addr()?.as_socket().map(|addr| addr.port()), Some(0));
                socket.set_recv_buffer_size(12_345)
            }
        });
        let listener = config.listen(ANY).await.unwrap();
        assert_eq!((calls.load(Ordering::SeqCst), listener.recv_buffer_size().unwrap()), (1, 24_690));
        let group = config.listen_many(ANY, 3).await.unwrap();
        assert_eq!((calls.load(Ordering::SeqCst), group.len()), (4, 3));
        if has_ipv6() {
            config.listen((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        }

        let before = common::fd_count();
        let refusing = ListenConfig::new().control(|_, _, _| Err(io::Error::other("not this one")));
        let error = refusing.listen("127.0.0.1:1").await.unwrap_err();
        assert_eq!(error.to_string(), "listen tcp 127.0.0.1:1: not this one");
        // Other tests open and close descriptors at the same time, but none of them opens a
        // thousand.
        for _ in 0..2000 {
            refusing.listen(ANY).await.unwrap_err();
        }
        assert!(common::fd_count() < before + 1000, "the socket is closed");
    });
}

/// Go: TestMultiPathTCP.
#[test]
fn multipath_listener_serves_tcp_and_mptcp_clients() {
    run(async {
        let listener = ListenConfig::new().multipath(true).listen(ANY).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let plain = TcpStream::connect(addr).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert!(!plain.is_multipath().unwrap() && !server.is_multipath().unwrap());
        common::ping_pong(&plain, &server).await;

        let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) else {
            return println!("the rest is skipped: this kernel has no multipath TCP");
        };
        socket.connect(&addr.into()).unwrap();
        let client = TcpStream::from(OwnedFd::from(socket));
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        common::ping_pong(&client, &server).await;
        assert!(client.is_multipath().unwrap() && server.is_multipath().unwrap());
        server.force_close().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        // Multipath TCP is off by default.
        let listener = TcpListener::bind(ANY).await.unwrap();
        assert_eq!(SockRef::from(&listener).protocol().unwrap(), Some(Protocol::TCP));
    });
}

#[test]
fn multipath_falls_back_to_tcp() {
    child("multipath_falls_back_to_tcp", || {
        // Moves this thread to a new network namespace.
        // SAFETY: no memory is passed; only this thread's view of the network changes, in a
        // separate process.
        let alone = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        if !alone || std::fs::write("/proc/sys/net/mptcp/enabled", "0").is_err() {
            return println!("skipped: this process cannot disable multipath TCP");
        }
        assert!(Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).is_err());
        let listener = run(ListenConfig::new().multipath(true).listen("0.0.0.0:0")).unwrap();
        assert_eq!(SockRef::from(&listener).protocol().unwrap(), Some(Protocol::TCP));
    });
}

#[test]
fn invalid_settings_fail_listen() {
    run(async {
        let zero = Duration::ZERO;
        let long = "d".repeat(16);
        let keepalive = netpoll::net::KeepAlive::new();
        let cases = [
            ListenConfig::new().keepalive(keepalive.with_count(0)),
            ListenConfig::new().keepalive(keepalive.with_interval(Duration::MAX)),
            ListenConfig::new().user_timeout(zero),
            ListenConfig::new().user_timeout(Duration::MAX),
            ListenConfig::new().defer_accept(zero),
            ListenConfig::new().defer_accept(Duration::MAX),
            ListenConfig::new().recv_buffer_size(0),
            ListenConfig::new().send_buffer_size(usize::MAX),
            ListenConfig::new().fast_open(u32::MAX),
            ListenConfig::new().bind_device(""),
            ListenConfig::new().bind_device(long),
            ListenConfig::new().bind_device("lo\0"),
        ];
        for config in cases {
            let error = config.listen("127.0.0.1:1").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{config:?}: {error}");
            assert!(error.to_string().starts_with("listen tcp 127.0.0.1:1: setsockopt: "), "{error}");
            assert_eq!(op_error(&error).op(), "listen");
        }
        let error = ListenConfig::new().bind_device("missing").listen(ANY).await.unwrap_err();
        assert!(matches!(raw_os_error(&error), Some(libc::ENODEV | libc::EPERM)), "{error}");
    });
}

/// Go: TestListenError, TestProtocolListenError.
#[test]
fn invalid_addresses_fail_listen() {
    run(async {
        let texts = [
            ("127.0.0.1", "listen tcp: address 127.0.0.1: missing port in address"),
            ("127.0.0.1:", "listen tcp: address 127.0.0.1:: missing port in address"),
            ("127.0.0.1:65536", "listen tcp: address 65536: invalid port"),
            ("127.0.0.1:-1", "listen tcp: address -1: invalid port"),
            ("[::1", "listen tcp: address [::1: missing ']' in address"),
        ];
        for (addr, text) in texts {
            for error in [
                TcpListener::bind(addr).await.unwrap_err(),
                ListenConfig::new().listen_many(addr, 2).await.unwrap_err(),
            ] {
                assert_eq!((error.to_string().as_str(), error.kind()), (text, ErrorKind::InvalidInput));
                let op = op_error(&error);
                assert!(op.io_error().and_then(io::Error::get_ref).unwrap().is::<AddrError>());
            }
        }
        let error = TcpListener::bind("a b:80").await.unwrap_err();
        assert!(error.to_string().starts_with("listen tcp: lookup a b: "), "{error}");
        let none: &[SocketAddr] = &[];
        for error in
            [TcpListener::bind(none).await.unwrap_err(), ListenConfig::new().listen_many(none, 2).await.unwrap_err()]
        {
            assert_eq!(error.to_string(), "listen tcp: missing address");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        // No host has an address of 192.0.2.0/24 (RFC 5737), so `unassigned` cannot be bound. Of
        // several addresses, the first that can be bound is used.
        let unassigned: SocketAddr = ([192, 0, 2, 1], 0).into();
        let error = TcpListener::bind(unassigned).await.unwrap_err();
        let op = op_error(&error);
        assert_eq!((op.kind(), op.raw_os_error()), (ErrorKind::AddrNotAvailable, Some(libc::EADDRNOTAVAIL)));
        assert!(!netpoll::net::is_closed(&error) && !netpoll::net::is_timeout(&error));
        let group = [unassigned, ([127, 0, 0, 1], 0).into()];
        let listeners = ListenConfig::new().listen_many(&group[..], 2).await.unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().ip() == Ipv4Addr::LOCALHOST));
    });
}
