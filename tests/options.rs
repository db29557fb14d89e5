//! Socket options: each getter returns the value in effect, a setter changes no other option, and
//! accepted connections inherit options of their listener. Invalid values, closed sockets and
//! descriptors that are not TCP sockets are errors.
#![cfg(target_os = "linux")] // options that only Linux has

mod common;

use std::fs::File;
use std::io::{ErrorKind, Result};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use common::{fill, has_ipv6, listener, pair, run};
use netpoll::net::{KeepAlive, ListenConfig, TcpListener, TcpStream, UdpSocket, is_closed, raw_os_error};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn pair_of(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// Returns the names and values of the options that [`SETTERS`] sets, and of the MSS.
fn snapshot(stream: &TcpStream) -> Vec<(&'static str, String)> {
    fn show<T: std::fmt::Debug>(value: Result<T>) -> String {
        format!("{:?}", value.unwrap())
    }
    vec![
        ("nodelay", show(stream.nodelay())),
        ("ttl", show(stream.ttl())),
        ("keepalive", show(stream.keepalive())),
        ("linger", show(stream.linger())),
        ("user_timeout", show(stream.user_timeout())),
        ("recv_buffer_size", show(stream.recv_buffer_size())),
        ("send_buffer_size", show(stream.send_buffer_size())),
        ("tos", show(stream.tos())),
        ("congestion_control", show(stream.congestion_control())),
        ("mss", show(stream.mss())),
        ("notsent_lowat", show(stream.notsent_lowat())),
        ("device", show(stream.device())),
        ("cork", show(stream.cork())),
    ]
}

type Set = fn(&TcpStream) -> Result<()>;

/// Setters, each with the name of its option and the value that the getter returns afterwards, as
/// text.
const SETTERS: &[(&str, Set, &str)] = &[
    ("nodelay", |stream| stream.set_nodelay(false), "false"),
    ("ttl", |stream| stream.set_ttl(33), "33"),
    ("keepalive", |stream| stream.set_keepalive(None), "None"),
    ("linger", |stream| stream.set_linger(Some(secs(7))), "Some(7s)"),
    ("linger", |stream| stream.set_linger(None), "None"),
    ("user_timeout", |stream| stream.set_user_timeout(Some(Duration::from_micros(1500))), "Some(2ms)"),
    ("user_timeout", |stream| stream.set_user_timeout(None), "None"),
    ("recv_buffer_size", |stream| stream.set_recv_buffer_size(40_000), "80000"),
    ("send_buffer_size", |stream| stream.set_send_buffer_size(30_000), "60000"),
    ("tos", |stream| stream.set_tos(0xb8), "184"),
    ("congestion_control", |stream| stream.set_congestion_control("reno"), "\"reno\""),
    ("notsent_lowat", |stream| stream.set_notsent_lowat(16_384), "16384"),
    ("device", |stream| stream.bind_device(Some("lo")), "Some(\"lo\")"),
    ("device", |stream| stream.bind_device(None), "None"),
    ("cork", |stream| stream.set_cork(true), "true"),
    ("cork", |stream| stream.set_cork(false), "false"),
];

#[test]
fn setter_changes_only_its_option() {
    run(async {
        let (stream, _peer) = pair().await;
        for (name, set, wanted) in SETTERS {
            let before = snapshot(&stream);
            match set(&stream) {
                // An unprivileged process cannot change the device to which a socket is bound.
                // Before Linux 5.7, it cannot bind a socket to a device either.
                Err(error) if *name == "device" && error.kind() == ErrorKind::PermissionDenied => continue,
                result => result.unwrap_or_else(|error| panic!("{name}: {error}")),
            }
            for (before, after) in before.iter().zip(snapshot(&stream)) {
                let wanted = if after.0 == *name { *wanted } else { &before.1 };
                assert_eq!(after.1, wanted, "{} after {name} was set", after.0);
            }
        }
    });
}

#[test]
fn ipv6_streams_have_options_of_both_families() {
    if !has_ipv6() {
        return;
    }
    run(async {
        let on_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let (client, server) = pair_of(&on_v6).await;
        client.set_tos(0x20).unwrap();
        assert_eq!(client.tos().unwrap(), 0x20);
        assert_eq!(socket2::SockRef::from(&client).tos_v4().unwrap(), 0x20);
        assert_eq!(server.tos().unwrap() & 0xfc, 0, "the peer's option is unchanged");
        assert!(client.only_v6().is_ok());
        let only = ListenConfig::new().only_v6(true).listen((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        assert!(only.only_v6().unwrap());
        let error = listener().await.only_v6().unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    });
}

#[test]
fn quickack_is_set_and_incoming_cpu_is_known() {
    run(async {
        let (stream, peer) = pair().await;
        // The kernel may reset the option when data flows, so no data flows before these checks.
        stream.set_quickack(false).unwrap();
        assert!(!stream.quickack().unwrap());
        stream.set_quickack(true).unwrap();
        assert!(stream.quickack().unwrap());
        peer.write_all(b"x").await.unwrap();
        stream.readable().await.unwrap();
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap().matches("processor").count();
        assert!(stream.incoming_cpu().unwrap().is_some_and(|cpu| cpu < cpus.max(1024)));
    });
}

/// An inline urgent byte is like other bytes. A read stops before an out-of-band byte, and recv(2)
/// with MSG_OOB reads that byte.
#[test]
fn urgent_bytes_are_inline_or_out_of_band() {
    run(async {
        let (stream, peer) = pair().await;
        for inline in [true, false] {
            peer.set_out_of_band_inline(inline).unwrap();
            assert_eq!(peer.out_of_band_inline().unwrap(), inline);
            stream.write_all(b"ab").await.unwrap();
            stream.send_out_of_band(b'!').await.unwrap();
            stream.write_all(b"cd").await.unwrap();
            let (mut got, before) = (Vec::new(), if inline { &b"ab!cd"[..] } else { b"ab" });
            let read = async |got: &mut Vec<u8>, wanted: usize| {
                while got.len() < wanted {
                    let mut buf = [0; 16];
                    let count = peer.read(&mut buf).await.unwrap();
                    got.extend_from_slice(&buf[..count]);
                }
            };
            read(&mut got, before.len()).await;
            assert_eq!(got, before);
            if !inline {
                // The mark stays until the stream is read past it.
                let mut urgent = [0];
                let received = peer.read_with(|fd| {
                    // SAFETY: the buffer is one byte, valid for writes.
                    match unsafe { libc::recv(fd.as_raw_fd(), urgent.as_mut_ptr().cast(), 1, libc::MSG_OOB) } {
                        1 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
                received.await.unwrap();
                assert_eq!(urgent, *b"!");
                read(&mut got, 4).await;
                assert_eq!(got, b"abcd");
            }
        }
    });
}

#[test]
fn listeners_pass_options_to_streams() {
    run(async {
        let listener = listener().await;
        assert!(listener.nodelay().unwrap());
        assert_eq!(listener.keepalive().unwrap(), Some(KeepAlive::new()));
        assert_eq!(listener.user_timeout().unwrap(), None);
        assert_eq!(listener.incoming_cpu().unwrap(), None);
        let keepalive = KeepAlive::new().with_idle(secs(21)).with_interval(secs(22)).with_count(23);
        listener.set_nodelay(false).unwrap();
        listener.set_keepalive(Some(keepalive)).unwrap();
        listener.set_user_timeout(Some(secs(24))).unwrap();
        listener.set_recv_buffer_size(50_000).unwrap();
        listener.set_send_buffer_size(60_000).unwrap();
        listener.set_tos(0x48).unwrap();
        listener.set_congestion_control("reno").unwrap();
        listener.set_mss(1000).unwrap();
        listener.set_notsent_lowat(9_000).unwrap();
        listener.set_incoming_cpu(0).unwrap();
        assert_eq!(listener.incoming_cpu().unwrap(), Some(0));
        let (client, server) = pair_of(&listener).await;
        assert!(!server.nodelay().unwrap());
        assert_eq!(server.keepalive().unwrap(), Some(keepalive));
        assert_eq!(server.user_timeout().unwrap(), Some(secs(24)));
        assert_eq!((server.recv_buffer_size().unwrap(), server.send_buffer_size().unwrap()), (100_000, 120_000));
        assert_eq!(server.tos().unwrap() & 0xfc, 0x48);
        assert_eq!(server.congestion_control().unwrap(), "reno");
        assert_eq!(server.notsent_lowat().unwrap(), 9_000);
        // TCP timestamps take 12 bytes of each segment.
        let mss = server.mss().unwrap();
        assert!((900..=1000).contains(&mss) && client.info().unwrap().send_mss <= 1000, "{mss}");
        assert_ne!(client.keepalive().unwrap(), Some(keepalive), "the dialer's options are unchanged");
    });
}

/// Go: TestTCPConnKeepAliveConfig, TestTCPConnKeepAliveConfigListener. Tests each field, set or
/// omitted, on a stream and inherited from a listener.
#[test]
fn unset_keepalive_fields_are_unchanged() {
    run(async {
        let before = KeepAlive::new().with_idle(secs(101)).with_interval(secs(102)).with_count(103);
        for set in 0..8 {
            let mut keepalive = KeepAlive::unchanged();
            let mut wanted = before;
            if set & 1 != 0 {
                (keepalive, wanted) = (keepalive.with_idle(secs(1)), wanted.with_idle(secs(1)));
            }
            if set & 2 != 0 {
                (keepalive, wanted) = (keepalive.with_interval(secs(2)), wanted.with_interval(secs(2)));
            }
            if set & 4 != 0 {
                (keepalive, wanted) = (keepalive.with_count(3), wanted.with_count(3));
            }
            let (stream, _peer) = pair().await;
            stream.set_keepalive(Some(before)).unwrap();
            stream.set_keepalive(Some(keepalive)).unwrap();
            assert_eq!(stream.keepalive().unwrap(), Some(wanted));
            // Switches the option off and on again, which keeps its parameters.
            stream.set_keepalive(None).unwrap();
            assert_eq!(stream.keepalive().unwrap(), None);
            stream.set_keepalive(KeepAlive::unchanged()).unwrap();
            assert_eq!(stream.keepalive().unwrap(), Some(wanted));

            let listener = ListenConfig::new().keepalive(keepalive).listen("127.0.0.1:0").await.unwrap();
            let (_client, server) = pair_of(&listener).await;
            let (got, host) = (server.keepalive().unwrap().unwrap(), host_keepalive());
            assert_eq!(got.idle(), keepalive.idle().or(host.idle()));
            assert_eq!(got.interval(), keepalive.interval().or(host.interval()));
            assert_eq!(got.count(), keepalive.count().or(host.count()));
        }
        let listener = ListenConfig::new().keepalive(None).listen("127.0.0.1:0").await.unwrap();
        let (_client, server) = pair_of(&listener).await;
        assert_eq!(server.keepalive().unwrap(), None);
    });
}

fn host_keepalive() -> KeepAlive {
    let read = |name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_keepalive_{name}")).unwrap();
        text.trim().parse().unwrap()
    };
    KeepAlive::new().with_idle(secs(read("time"))).with_interval(secs(read("intvl"))).with_count(read("probes") as u32)
}

#[test]
fn invalid_option_values_are_rejected() {
    run(async {
        let (stream, _peer) = pair().await;
        let before = snapshot(&stream);
        let long = "d".repeat(16);
        let refused: [(&str, Set); 20] = [
            ("no idle time", |stream| stream.set_keepalive(Some(KeepAlive::new().with_idle(Duration::ZERO)))),
            ("a long idle time", |stream| stream.set_keepalive(Some(KeepAlive::new().with_idle(secs(32_768))))),
            ("endless intervals", |stream| stream.set_keepalive(Some(KeepAlive::new().with_interval(Duration::MAX)))),
            ("no interval", |stream| stream.set_keepalive(Some(KeepAlive::new().with_interval(Duration::ZERO)))),
            ("no probes", |stream| stream.set_keepalive(Some(KeepAlive::new().with_idle(secs(5)).with_count(0)))),
            ("many probes", |stream| {
                stream.set_keepalive(Some(KeepAlive::new().with_idle(secs(5)).with_count(u32::MAX)))
            }),
            ("no user timeout", |stream| stream.set_user_timeout(Some(Duration::ZERO))),
            ("an endless user timeout", |stream| stream.set_user_timeout(Some(Duration::MAX))),
            ("25 days", |stream| stream.set_user_timeout(Some(Duration::from_millis(1 << 31)))),
            ("no receive buffer", |stream| stream.set_recv_buffer_size(0)),
            ("all memory", |stream| stream.set_recv_buffer_size(usize::MAX)),
            ("no send buffer", |stream| stream.set_send_buffer_size(0)),
            ("2 GiB", |stream| stream.set_send_buffer_size(1 << 31)),
            ("ttl 0", |stream| stream.set_ttl(0)),
            ("ttl 256", |stream| stream.set_ttl(256)),
            ("ttl -1", |stream| stream.set_ttl(u32::MAX)),
            ("no segments", |stream| stream.set_mss(0)),
            ("short segments", |stream| stream.set_mss(1)),
            ("long segments", |stream| stream.set_mss(u32::MAX)),
            ("a NUL", |stream| stream.bind_device(Some("lo\0x"))),
        ];
        for (name, set) in refused {
            assert_eq!(set(&stream).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
        for name in ["", long.as_str(), "reno\0"] {
            assert_eq!(stream.bind_device(Some(name)).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(stream.set_congestion_control(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        assert_eq!(stream.set_congestion_control("missing").unwrap_err().kind(), ErrorKind::NotFound);
        let error = stream.bind_device(Some("missing")).unwrap_err();
        assert!(matches!(raw_os_error(&error), Some(libc::ENODEV | libc::EPERM)), "{error}");
        assert_eq!(snapshot(&stream), before);
        if let Ok(socket) = UdpSocket::bind("[::1]:0").await {
            let before = socket.ttl().unwrap();
            assert_eq!(socket.set_ttl(0).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(socket.ttl().unwrap(), before);
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for set in [UdpSocket::set_recv_buffer_size, UdpSocket::set_send_buffer_size] {
            for size in [0, 1 << 30, usize::MAX] {
                assert_eq!(set(&datagrams, size).unwrap_err().kind(), ErrorKind::InvalidInput, "{size}");
            }
        }
    });
}

#[test]
fn closed_socket_rejects_options() {
    run(async {
        let (stream, _peer) = pair().await;
        stream.force_close().await.unwrap();
        for (name, set, _) in SETTERS {
            let error = set(&stream).unwrap_err();
            assert!(is_closed(&error) && error.to_string().starts_with("set tcp "), "{name}: {error}");
        }
        for error in [stream.info().unwrap_err(), stream.mss().unwrap_err(), stream.nodelay().unwrap_err()] {
            assert!(is_closed(&error) && error.to_string().starts_with("get tcp "), "{error}");
        }
        let listener = listener().await;
        listener.close().await.unwrap();
        assert!(is_closed(&listener.set_nodelay(true).unwrap_err()) && is_closed(&listener.device().unwrap_err()));
    });
}

#[test]
fn tcp_info_has_plausible_values() {
    run(async {
        let (stream, peer) = pair().await;
        let info = stream.info().unwrap();
        assert!(info.congestion_window > 0 && info.send_mss > 0 && info.path_mtu > info.send_mss);
        assert!(info.retransmission_timeout >= Duration::from_millis(1) && info.rtt < secs(60));
        assert_eq!((info.unacknowledged, info.lost, info.total_retransmits), (0, 0, 0));
        // After data has arrived, the peer's estimate of the size of received segments is at least
        // the stream's initial estimate.
        let sent = fill(&stream).await;
        assert!(sent > 0 && peer.info().unwrap().recv_mss >= info.recv_mss);
    });
}

/// Go: TestFileError. No option can be set on a file. On a Unix socket, only options that every
/// socket has can be set. An accept on a file fails, and returns its permit.
#[test]
fn wrong_descriptor_kind_rejects_options() {
    let file = || -> OwnedFd { File::open("/proc/self/status").unwrap().into() };
    let unix = || -> OwnedFd { std::os::unix::net::UnixStream::pair().unwrap().0.into() };
    run(async {
        for fd in [file(), unix()] {
            let is_file = socket2::SockRef::from(&fd).domain().is_err();
            let stream = TcpStream::from(fd);
            for (name, set, _) in SETTERS {
                // Unix sockets also have buffer sizes, SO_LINGER, SO_KEEPALIVE and SO_BINDTODEVICE.
                let is_generic =
                    ["linger", "recv_buffer_size", "send_buffer_size", "device", "keepalive"].contains(name);
                assert!(set(&stream).is_err() || is_generic && !is_file, "{name}");
            }
            assert!(stream.info().is_err() && stream.peer_addr().is_err() && stream.mss().is_err());
            assert!(stream.is_multipath().is_err() || !is_file);
        }
        // Converts the raw descriptor of a file to a listener.
        // SAFETY: the descriptor is open, and `into_raw_fd` has given up its ownership.
        let listener = unsafe { TcpListener::from_raw_fd(file().into_raw_fd()) };
        assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert!(listener.local_addr().is_err() && listener.nodelay().is_err());
        let limited = ListenConfig::new().max_connections(1).reserve_descriptors(1).limit(listener).unwrap();
        assert_eq!(limited.accept().await.unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
        assert_eq!(limited.connections(), 0, "the permit was returned");
    });
}
