//! `Dialer`: time limits, racing of addresses, errors, local addresses, options, the control
//! function, the resolver, the number of system calls, and clean-up.
//!
//! `src/net/happy_eyeballs.rs` tests the rules of the race, `src/net/dialer.rs` the division of
//! time, and `dialer_linux.rs` the options that only Linux has.

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use black_hole::{BlackHole, refusing, refusing_at};
use common::{becomes, fd_count, has_ipv6, listener, no_forks, op_error, own_address, poll_once, run};
use netpoll::net::{
    AddrError, Dialer, Family, KeepAlive, LookupError, Resolve, TcpListener, TcpStream, ToSocketAddrs,
    ToSocketAddrsFuture, is_timeout,
};
use netpoll::task;
use socket2::SockRef;

/// A name whose look-up does not end during a test.
struct Never;

impl ToSocketAddrs for Never {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
        ToSocketAddrsFuture::blocking(|| {
            // The process does not wait for this call when it exits.
            std::thread::sleep(common::BOUND);
            Ok(Vec::new().into_iter())
        })
    }
}

/// Returns the error inside the `OpError`.
fn inner<T: std::error::Error + 'static>(error: &io::Error) -> &T {
    let inner = op_error(error).io_error().and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref());
    inner.unwrap_or_else(|| panic!("not inside: {error:?}"))
}

// ---- time ----

/// Go: TestDialTimeout, TestDialTimeoutMaxDuration.
#[test]
fn timeout_and_deadline_end_dial_but_not_early() {
    let hole = BlackHole::new();
    run(async {
        let millis = Duration::from_millis;
        for (timeout, deadline) in [
            (Some(millis(30)), None),
            (None, Some(millis(30))),
            (Some(millis(30)), Some(Duration::from_secs(3600))),
            (Some(Duration::MAX), Some(millis(30))),
            (Some(Duration::ZERO), None),
            (None, Some(Duration::ZERO)),
        ] {
            let start = Instant::now();
            let dialer = Dialer::new().timeout(timeout).deadline(deadline.map(|after| start + after));
            let error = dialer.dial(hole.addr).await.unwrap_err();
            assert!(is_timeout(&error) && op_error(&error).is_deadline(), "{error}");
            assert_eq!(error.to_string(), format!("dial tcp {}: i/o timeout", hole.addr));
            let least = [timeout, deadline].into_iter().flatten().min().unwrap();
            assert!(start.elapsed() >= least, "{timeout:?}, {deadline:?}");
        }
        let listener = listener().await;
        for timeout in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_nanos(u64::MAX)] {
            let stream = Dialer::new().timeout(timeout).dial(listener.local_addr().unwrap()).await.unwrap();
            stream.write_all(b"x").await.unwrap();
        }
    });
}

#[test]
fn timeout_covers_name_resolution() {
    run(async {
        let start = Instant::now();
        let dialer = Dialer::new().timeout(Duration::from_millis(30));
        for dialer in [dialer.clone(), dialer.stagger(None)] {
            let error = dialer.dial(Never).await.unwrap_err();
            assert!(is_timeout(&error), "{error}");
            assert_eq!(error.to_string(), "dial tcp: i/o timeout");
        }
        assert!(start.elapsed() >= Duration::from_millis(60));
        let past = Dialer::new().deadline(start);
        for dialer in [past.clone(), past.stagger(None)] {
            let error = dialer.dial("netpoll-test.invalid:80").await.unwrap_err();
            // The look-up may have ended before the deadline was checked.
            assert!(
                is_timeout(&error) && inner::<LookupError>(&error).is_timeout()
                    || inner::<LookupError>(&error).name() == "netpoll-test.invalid",
                "{error}"
            );
        }
    });
}

/// Go: TestDialContextCancelRace, TestCancelAfterDial.
#[test]
fn dial_deadline_does_not_apply_to_connection() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let dial = async |timeout| Dialer::new().deadline(Instant::now() + timeout).dial(addr).await;
        let (stream, timeout) = common::within_a_timeout(dial).await;
        // Connections of dials that timed out may precede this one in the queue.
        let peer = loop {
            let (peer, from) = listener.accept().await.unwrap();
            if from == stream.local_addr().unwrap() {
                break peer;
            }
        };
        task::sleep(timeout).await;
        stream.write_all(b"x").await.unwrap();
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 1);
        // A dial whose timeout ends at the moment of success returns a timeout or a working
        // connection.
        for micros in (0..400).step_by(4) {
            let dialer = Dialer::new().timeout(Duration::from_micros(micros));
            match dialer.dial(addr).await {
                Ok(stream) => stream.write_all(b"x").await.unwrap(),
                Err(error) => assert!(is_timeout(&error), "{error}"),
            }
        }
    });
}

#[test]
fn sequential_attempts_share_the_timeout() {
    let holes = [BlackHole::new(), BlackHole::new()];
    run(async {
        // With less than 2 s, the first attempt may use all of the time.
        let start = Instant::now();
        let addrs = [holes[0].addr, holes[1].addr];
        let dialer = Dialer::new().stagger(None).timeout(Duration::from_millis(60));
        let error = dialer.dial(&addrs[..]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp {}: i/o timeout", addrs[0]));
        assert!(start.elapsed() >= Duration::from_millis(60));
        // With more than 4 s, the first attempt leaves half of the time for the second.
        let listener = listener().await;
        let addrs = [holes[0].addr, listener.local_addr().unwrap()];
        let start = Instant::now();
        let dialer = Dialer::new().stagger(None).timeout(Duration::from_millis(4200));
        let stream = dialer.dial(&addrs[..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addrs[1]);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(2100), "{took:?}");
    });
}

// ---- several addresses ----

#[test]
fn next_attempt_starts_after_stagger_or_failure() {
    let hole = BlackHole::new();
    run(async {
        let (_refusing, refused) = refusing();
        let listener = listener().await;
        let good = listener.local_addr().unwrap();
        // The first dialer has the default stagger of 250 ms, the second has a configured one.
        for (dialer, stagger) in [(Dialer::new(), 250), (Dialer::new().stagger(Duration::from_millis(40)), 40)] {
            let start = Instant::now();
            let stream = dialer.dial(&[hole.addr, good][..]).await.unwrap();
            assert!(start.elapsed() >= Duration::from_millis(stagger), "{:?}", start.elapsed());
            assert_eq!(stream.peer_addr().unwrap(), good);
        }
        // With a stagger too long for a test, only a failure can start the second attempt.
        for stagger in [Some(Duration::from_secs(3600)), None] {
            let stream = Dialer::new().stagger(stagger).dial(&[refused, good][..]).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good);
        }
        let (_other, second) = refusing();
        for stagger in [Some(Duration::from_secs(3600)), None] {
            let error = Dialer::new().stagger(stagger).dial(&[refused, second][..]).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("dial tcp {refused}: connect: connection refused"),
                "the first error"
            );
        }
    });
}

#[test]
fn dial_falls_back_from_silent_ipv6_address_to_ipv4() {
    if !has_ipv6() {
        return;
    }
    let hole = BlackHole::at(Ipv6Addr::LOCALHOST.into());
    run(async {
        let listener = listener().await;
        let good = listener.local_addr().unwrap();
        // The other family is tried before a second address of the first family.
        let addrs = [hole.addr, hole.addr, good];
        let tried = Arc::new(Mutex::new(Vec::new()));
        let log = tried.clone();
        let dialer = Dialer::new().stagger(Duration::from_millis(30)).control(move |network, addr, _| {
            log.lock().unwrap().push((network.to_owned(), addr));
            Ok(())
        });
        let stream = dialer.dial(&addrs[..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        // A third address may have been tried before the second attempt connected.
        assert_eq!(tried.lock().unwrap()[..2], [("tcp6".to_owned(), hole.addr), ("tcp4".to_owned(), good)]);
    });
}

/// Go: TestDialParallelSpuriousConnection, TestDialerDualStackFDLeak.
#[test]
fn losing_attempts_are_closed() {
    common::child("losing_attempts_are_closed", || {
        let hole = BlackHole::new();
        run(async {
            let listener = listener().await;
            let addr = listener.local_addr().unwrap();
            common::warm_up().await;
            let before = fd_count();
            // The attempts start without a stagger, so several may connect. One of them is kept,
            // and the others are closed.
            let dialer = Dialer::new().stagger(Duration::ZERO);
            let stream = dialer.dial(&[addr; 3][..]).await.unwrap();
            assert_eq!(fd_count(), before + 1, "only the winner");
            // The queue contains the connection that won, and possibly others before and behind it.
            // An attempt that was closed before it connected is not in the queue.
            let loser = async |(peer, from): (TcpStream, SocketAddr)| {
                let won = from == stream.local_addr().unwrap();
                // The peer of a closed attempt reads the end of the stream or a reset.
                assert!(won || matches!(peer.read(&mut [0; 1]).await, Ok(0) | Err(_)));
                !won
            };
            while loser(listener.accept().await.unwrap()).await {}
            while let Ok(late) = netpoll::io::timeout(Duration::from_millis(200), listener.accept()).await {
                assert!(loser(late).await, "a second winner");
            }
            drop(stream);
            becomes("all descriptors are closed", || fd_count() == before).await;
            for _ in 0..10 {
                let stream = dialer.dial(&[hole.addr, hole.addr, addr][..]).await.unwrap();
                assert_eq!(fd_count(), before + 1);
                let (peer, _) = listener.accept().await.unwrap();
                drop((stream, peer));
            }
            let failed = Dialer::new().timeout(Duration::from_millis(30)).dial(&[hole.addr; 5][..]).await;
            assert!(failed.is_err());
            assert_eq!(fd_count(), before);
        });
    });
}

/// Go: TestDialCancel.
#[test]
fn dropped_dial_leaks_nothing() {
    common::child("dropped_dial_leaks_nothing", || {
        let hole = BlackHole::new();
        run(async {
            common::warm_up().await;
            let before = fd_count();
            let sockets = netpoll::rt::metrics().descriptors;
            for in_flight in [1, 4] {
                let dialer = Dialer::new().stagger(Duration::ZERO);
                let addrs = vec![hole.addr; in_flight];
                let mut dial = Box::pin(dialer.dial(&addrs[..]));
                poll_until(&mut dial, || fd_count() == before + in_flight).await;
                assert_eq!(netpoll::rt::metrics().descriptors, sockets + in_flight);
                drop(dial);
                assert_eq!((fd_count(), netpoll::rt::metrics().descriptors), (before, sockets));
                assert_eq!(netpoll::rt::metrics().waiters, 0);
            }
            // A dial may also be dropped during its look-up.
            let dialer = Dialer::new();
            for _ in 0..10 {
                let mut dial = Box::pin(dialer.dial("netpoll-test.invalid:80"));
                let _ = poll_once(&mut dial).await;
                drop(dial);
            }
            becomes("no task is left", || netpoll::rt::metrics().tasks_alive == 0).await;
            // A look-up that has begun runs to its end although its future was dropped.
            becomes("nothing is left", || fd_count() == before).await;
        });
    });
}

/// Polls a pending future until `condition` holds.
async fn poll_until<F: Future + Unpin>(future: &mut F, condition: impl Fn() -> bool) {
    let start = Instant::now();
    loop {
        assert!(matches!(poll_once(future).await, Poll::Pending), "the dial has ended");
        if condition() {
            return;
        }
        assert!(start.elapsed() < common::BOUND);
        task::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn name_is_raced_over_its_addresses() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        for stagger in [Some(Duration::from_millis(20)), None] {
            let dialer = Dialer::new().stagger(stagger).timeout(Duration::from_secs(30));
            for name in [format!("localhost:{}", addr.port()), addr.to_string()] {
                assert_eq!(dialer.dial(name).await.unwrap().peer_addr().unwrap(), addr);
            }
            assert_eq!(dialer.dial(("localhost", addr.port())).await.unwrap().peer_addr().unwrap(), addr);
            assert_eq!(dialer.dial(("localhost".to_owned(), addr.port())).await.unwrap().peer_addr().unwrap(), addr);
            assert_eq!(dialer.dial(addr).await.unwrap().peer_addr().unwrap(), addr);
        }
    });
}

#[test]
fn dialer_works_under_another_executor_and_from_many_tasks() {
    let _watchdog = common::Watchdog::new();
    common::park_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let dialer = Dialer::new();
        let dials: Vec<_> = (0..20)
            .map(|_| {
                let dialer = dialer.clone();
                task::spawn(async move { dialer.dial(addr).await })
            })
            .collect();
        for dial in dials {
            dial.await.unwrap();
        }
        dialer.dial(("localhost", addr.port())).await.unwrap();
    });
}

// ---- errors ----

/// Go: TestDialError, TestProhibitionaryDialArg.
#[test]
fn malformed_address_is_a_typed_error() {
    run(async {
        for stagger in [Some(Duration::ZERO), None] {
            let dialer = Dialer::new().stagger(stagger);
            let none: &[SocketAddr] = &[];
            let error = dialer.dial(none).await.unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.kind()),
                ("dial tcp: missing address", ErrorKind::InvalidInput)
            );
            assert_eq!(inner::<AddrError>(&error).reason(), "missing address");
            for (form, text) in [
                ("", "dial tcp: missing address"),
                ("127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"),
                ("127.0.0.1:99999", "dial tcp: address 99999: invalid port"),
                ("::1:80", "dial tcp: address ::1:80: too many colons in address"),
            ] {
                let error = dialer.dial(form).await.unwrap_err();
                assert_eq!((error.to_string().as_str(), error.kind()), (text, ErrorKind::InvalidInput));
            }
            let long = "x".repeat(64) + ".invalid";
            for name in [&long, "a b", "nul\0byte"] {
                let error = dialer.dial((name, 80)).await.unwrap_err();
                assert_eq!(error.to_string(), format!("dial tcp: lookup {name}: no such host"));
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(inner::<LookupError>(&error).is_not_found());
            }
        }
    });
}

#[test]
fn refused_dial_names_both_addresses() {
    run(async {
        let (_socket, addr) = refusing();
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let error = Dialer::new().dial(addr).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp {addr}: connect: connection refused"));
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = Dialer::new().local_addr(local).dial(addr).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp 127.0.0.1:0->{addr}: connect: connection refused"));
    });
}

// ---- local addresses ----

/// Go: TestDialerLocalAddr.
#[test]
fn connection_uses_local_address() {
    run(async {
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), port);
        let local = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 0);
        for stagger in [Some(Duration::from_millis(20)), None] {
            let dialer = |ip| Dialer::new().stagger(stagger).local_addr(local(ip));
            for to in [v4.local_addr().unwrap(), mapped] {
                for from in ["127.0.0.5", "::ffff:127.0.0.5"] {
                    let stream = dialer(from).dial(to).await.unwrap();
                    assert_eq!(stream.local_addr().unwrap().ip(), local("127.0.0.5").ip());
                }
            }
            // Addresses of the other family are skipped.
            let both = [(Ipv6Addr::LOCALHOST, port).into(), v4.local_addr().unwrap()];
            let stream = dialer("127.0.0.5").dial(&both[..]).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), both[1]);
            for (from, to) in [("127.0.0.1", &both[..1]), ("::1", &both[1..])] {
                let error = dialer(from).dial(to).await.unwrap_err();
                let text = format!("dial tcp: address {}: no suitable address found", local(from));
                assert_eq!((error.to_string(), error.kind()), (text, ErrorKind::InvalidInput));
                assert_eq!(inner::<AddrError>(&error).reason(), "no suitable address found");
            }
            // 192.0.2.0/24 is reserved for documentation, so 192.0.2.1 is not an address of this
            // host.
            let error = dialer("192.0.2.1").dial(both[1]).await.unwrap_err();
            let text = format!("dial tcp 192.0.2.1:0->{}: bind: cannot assign requested address", both[1]);
            assert_eq!((error.to_string(), error.kind()), (text, ErrorKind::AddrNotAvailable));
        }
        if has_ipv6() {
            let v6 = TcpListener::bind("[::1]:0").await.unwrap();
            let stream = Dialer::new().local_addr(local("::1")).dial(v6.local_addr().unwrap()).await.unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), local("::1").ip());
        }
    });
}

/// The attempts share the local port.
#[test]
fn local_port_gets_past_silent_addresses() {
    run(async {
        let holes = [BlackHole::new(), BlackHole::new()];
        let (_socket, refused) = refusing();
        let listener = listener().await;
        let good = listener.local_addr().unwrap();
        let free_port = || {
            let _no_forks = no_forks();
            refusing_at(own_address().ip()).1
        };
        let staggers = [Some(Duration::from_millis(10)), Some(Duration::ZERO)];
        for (stagger, defaults) in staggers.into_iter().flat_map(|stagger| [(stagger, true), (stagger, false)]) {
            // No connection has used this port, so it is free immediately.
            let port = free_port();
            let dialer = Dialer::new().stagger(stagger).defaults(defaults).local_addr(port);
            let addrs = [holes[0].addr, refused, holes[1].addr, good];
            let stream = dialer.dial(&addrs[..]).await.unwrap();
            assert_eq!((stream.local_addr().unwrap(), stream.peer_addr().unwrap()), (port, good));
            let (peer, from) = listener.accept().await.unwrap();
            assert_eq!(from, port);
            // Resets both sides, so that the port is free immediately.
            stream.set_linger(Some(Duration::ZERO)).unwrap();
            drop((stream, peer));
        }
        // These attempts are sequential, each within its share of the time.
        let port = free_port();
        let dialer = Dialer::new().stagger(None).timeout(Duration::from_secs(6)).local_addr(port);
        let stream = dialer.dial(&[holes[0].addr, good][..]).await.unwrap();
        assert_eq!((stream.local_addr().unwrap(), stream.peer_addr().unwrap()), (port, good));
        // A listener on the port, or a socket that does not share it, makes the bind fail.
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let exclusive = refusing_at(Ipv4Addr::LOCALHOST.into());
        for held in [taken.local_addr().unwrap(), exclusive.1] {
            let error = Dialer::new().local_addr(held).dial(good).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        }
    });
}

/// Go: TestSpuriousENOTAVAIL, selfConnect (issue 2690).
#[test]
fn self_connection_is_redialled() {
    run(async {
        // A socket that is bound to the address that it dials connects to itself.
        let (reserved, addr) = refusing_at(own_address().ip());
        reserved.set_reuse_address(true).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let dialer = move |most: usize| {
            let count = count.clone();
            Dialer::new().control(move |_, addr, fd| {
                let socket = SockRef::from(&fd);
                socket.set_reuse_address(true)?;
                if count.fetch_add(1, Ordering::SeqCst) < most { socket.bind(&addr.into()) } else { Ok(()) }
            })
        };
        // The first two attempts connect to themselves. The third uses another port and is refused,
        // as expected.
        let error = dialer(2).dial(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(calls.swap(0, Ordering::SeqCst), 3, "two more attempts");
        // With a local port chosen by the caller, a self-connection is accepted.
        let (other, addr) = refusing_at(own_address().ip());
        let _no_forks = no_forks();
        drop((reserved, other));
        let stream = Dialer::new().local_addr(addr).dial(addr).await.unwrap();
        assert_eq!((stream.local_addr().unwrap(), stream.peer_addr().unwrap()), (addr, addr));
    });
}

// ---- options ----

/// Go: TestDialerKeepAlive, TestTCPConnKeepAliveConfigDialer.
#[test]
fn nodelay_and_keepalive_follow_the_options_of_the_dialer() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let ours = KeepAlive::new().with_idle(Duration::from_secs(61)).with_count(3);
        let cases = [
            (Dialer::new(), true, Some(KeepAlive::new())),
            (Dialer::default(), true, Some(KeepAlive::new())),
            (Dialer::new().keepalive(ours), true, Some(ours)),
            (Dialer::new().keepalive(None), true, None),
            (Dialer::new().defaults(false), false, None),
            (Dialer::new().defaults(false).keepalive(ours), false, Some(ours)),
        ];
        for (dialer, nodelay, keepalive) in cases {
            let stream = dialer.dial(addr).await.unwrap();
            assert_eq!((stream.nodelay().unwrap(), stream.keepalive().unwrap()), (nodelay, keepalive), "{dialer:?}");
        }
        let error = Dialer::new().keepalive(ours.with_count(1000)).dial(addr).await.unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp {addr}: setsockopt: invalid argument"));
    });
}

/// Go: TestDialerControl.
#[test]
fn control_function_sees_each_socket_before_connect() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let dialer = Dialer::new().control(move |network, addr, fd| {
            let socket = SockRef::from(&fd);
            assert!(socket.peer_addr().is_err(), "not connected yet");
            socket.set_recv_buffer_size(20_000)?;
            log.lock().unwrap().push((network.to_owned(), addr));
            Ok(())
        });
        let stream = dialer.clone().dial(addr).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [("tcp4".to_owned(), addr)]);
        // The kernel doubles the size for its own use.
        assert_eq!(SockRef::from(&stream).recv_buffer_size().unwrap(), 40_000);
        if has_ipv6() {
            let v6 = TcpListener::bind("[::1]:0").await.unwrap();
            dialer.dial(v6.local_addr().unwrap()).await.unwrap();
            assert_eq!(seen.lock().unwrap()[1].0, "tcp6");
        }
    });
}

#[test]
fn error_of_control_function_fails_dial_without_leak() {
    common::child("error_of_control_function_fails_dial_without_leak", || {
        run(async {
            let listener = listener().await;
            let addr = listener.local_addr().unwrap();
            let before = fd_count();
            let dialer = Dialer::new().control(|_, _, _| Err(io::Error::new(ErrorKind::PermissionDenied, "not there")));
            let error = dialer.dial(addr).await.unwrap_err();
            assert_eq!(error.to_string(), format!("dial tcp {addr}: not there"));
            assert_eq!((error.kind(), fd_count()), (ErrorKind::PermissionDenied, before));
            // The function keeps a duplicate, but the registration must still end with the
            // connection.
            let kept = Arc::new(Mutex::new(None));
            let keep = kept.clone();
            let dialer = Dialer::new().control(move |_, _, fd| {
                *keep.lock().unwrap() = Some(fd.try_clone_to_owned()?);
                Ok(())
            });
            let stream = dialer.dial(addr).await.unwrap();
            let (peer, _) = listener.accept().await.unwrap();
            assert!(poll_once(&mut stream.read(&mut [0; 1])).await.is_pending());
            drop(stream);
            common::assert_no_stale_events("the duplicate", async || {
                peer.write_all(b"x").await.unwrap();
                let (other, its_peer) = common::pair().await;
                its_peer.write_all(b"y").await.unwrap();
                assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 1);
            })
            .await;
        });
    });
}

#[test]
fn options_of_streams_are_set_before_connect() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let keepalive = KeepAlive::new().with_idle(Duration::from_secs(60));
        let dialer = Dialer::new()
            .nodelay(false)
            .keepalive(keepalive)
            .recv_buffer_size(20_000)
            .send_buffer_size(30_000)
            .control(|_, _, fd| {
                let socket = SockRef::from(&fd);
                assert_eq!((socket.recv_buffer_size()?, socket.send_buffer_size()?), (40_000, 60_000));
                Ok(())
            });
        let stream = dialer.dial(addr).await.unwrap();
        assert!(!stream.nodelay().unwrap());
        assert_eq!(stream.keepalive().unwrap(), Some(keepalive));
        assert_eq!(stream.recv_buffer_size().unwrap(), 40_000);
        assert_eq!(stream.send_buffer_size().unwrap(), 60_000);

        let stream = Dialer::new().keepalive(None).dial(addr).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.keepalive().unwrap(), None);
        let stream = Dialer::new().defaults(false).nodelay(true).dial(addr).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.keepalive().unwrap(), None);

        let error = Dialer::new().send_buffer_size(0).dial(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(&format!("dial tcp {addr}: setsockopt: ")), "{error}");
    });
}

// ---- the resolver ----

/// Regression: if the port was the name of a service, the dial asked the host's name service for
/// the addresses, not the configured resolver.
#[test]
fn resolver_is_asked_for_a_host_with_a_named_service() {
    /// A resolver that finds no name and counts the look-ups.
    #[derive(Clone, Debug, Default)]
    struct Counts(Arc<AtomicUsize>);
    type Answer = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>>;
    impl Resolve for Counts {
        fn addrs(&self, host: &str, _: Family) -> Answer {
            self.0.fetch_add(1, Ordering::SeqCst);
            let error = LookupError::not_found(host);
            Box::pin(async move { Err(error) })
        }
    }
    run(async {
        for staggers in [false, true] {
            let counts = Counts::default();
            let dialer = Dialer::new().resolver(counts.clone());
            let dialer = if staggers { dialer } else { dialer.stagger(None) };
            // The host's name service finds this name.
            let error = dialer.dial("localhost:http").await.unwrap_err();
            assert_eq!(error.to_string(), "dial tcp: lookup localhost: no such host");
            let asked = counts.0.load(Ordering::SeqCst);
            assert!(asked > 0);
            // These addresses contain no host name.
            let error = dialer.dial("192.0.2.1:nonexistent-service").await.unwrap_err();
            assert!(error.to_string().contains("nonexistent-service"), "{error}");
            let _ = poll_once(&mut Box::pin(dialer.dial("192.0.2.1:http"))).await;
            assert_eq!(counts.0.load(Ordering::SeqCst), asked);
        }
    });
}

/// The error of a dial that ends at its own deadline has `is_deadline`, even if the dial ends
/// during the look-up. The error of a timeout of the resolver does not have it, although the text
/// is the same.
#[test]
fn deadline_during_look_up_differs_from_timeout_of_resolver() {
    /// A resolver that never answers for `silent.test`, and reports a timeout of its servers for
    /// other hosts.
    #[derive(Debug)]
    struct Slow;
    type Answer = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>>;
    impl Resolve for Slow {
        fn addrs(&self, host: &str, _: Family) -> Answer {
            let host = host.to_owned();
            Box::pin(async move {
                if host == "silent.test" {
                    std::future::pending::<()>().await;
                }
                Err(LookupError::timed_out(host))
            })
        }
    }
    run(async {
        for stagger in [None, Some(Duration::from_millis(300))] {
            let dialer = Dialer::new().resolver(Slow).stagger(stagger).timeout(Duration::from_millis(30));
            let error = dialer.dial("silent.test:1").await.unwrap_err();
            assert_eq!(error.to_string(), "dial tcp: lookup silent.test: i/o timeout");
            assert!(is_timeout(&error) && op_error(&error).is_deadline());
            let inner = op_error(&error).io_error().and_then(|error| error.get_ref()).unwrap();
            assert!(inner.downcast_ref::<LookupError>().is_some_and(LookupError::is_timeout));

            let dialer = Dialer::new().resolver(Slow).stagger(stagger).timeout(common::BOUND);
            let error = dialer.dial("unanswered.test:1").await.unwrap_err();
            assert_eq!(error.to_string(), "dial tcp: lookup unanswered.test: i/o timeout");
            assert!(is_timeout(&error) && !op_error(&error).is_deadline());
        }
    });
}

// ---- cost ----

/// The number of dials in a round of measurement.
const DIALS: usize = 20;
/// A path whose stat(2) marks the beginning and the end of each round in the trace.
const MARK: &str = "/netpoll-dialer-test-mark";

/// Counts the system calls per dial of a literal address on epoll, except waits, wake-ups of other
/// threads and the calls of other threads. About 10 are allowed with Go's options, and about 5
/// without them. Skipped if strace(1) is missing or may not trace.
#[test]
fn dial_of_literal_makes_few_system_calls() {
    let name = "dial_of_literal_makes_few_system_calls";
    let mark = || drop(std::fs::metadata(MARK));
    if common::is_child(name) {
        let far = far_address();
        return run(async {
            let near = listener().await;
            let far = match far {
                Some(ip) => Some(TcpListener::bind((ip, 0)).await.unwrap()),
                None => None,
            };
            // The one-time costs, such as those of the poller, are not counted.
            common::warm_up().await;
            for listener in [Some(near), far].into_iter().flatten() {
                let addr = listener.local_addr().unwrap();
                for dialer in [Dialer::new(), Dialer::new().defaults(false)] {
                    let mut streams = Vec::with_capacity(DIALS);
                    mark();
                    for _ in 0..DIALS {
                        streams.push(dialer.dial(addr).await.unwrap());
                    }
                    mark();
                }
            }
        });
    }
    let trace = std::env::temp_dir().join(format!("netpoll-dialer-{}.strace", std::process::id()));
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("NETPOLL_TEST_CHILD", name)
        // LeakSanitizer does not work in a process that is traced.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .envs(common::ON_ONE_EPOLL);
    let output = common::output(&mut command);
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    let _ = std::fs::remove_file(&trace);
    if output.is_err() || !text.contains(MARK) {
        return println!("skipped: no strace, or tracing is not permitted");
    }
    assert!(output.unwrap().status.success());
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let dialling = text.lines().find(|line| line.contains(MARK)).and_then(thread);
    let lines: Vec<_> = text.lines().filter(|line| thread(line) == dialling).collect();
    let rounds: Vec<_> = lines.split(|line| line.contains(MARK)).skip(1).step_by(2).collect();
    assert!(rounds.len() >= 2, "{text}");
    for (round, lines) in rounds.into_iter().enumerate() {
        // If another thread's line splits a call in the trace, the first part has the name. A
        // thread that is about to wait may wake another thread to poll, by write(2) to an eventfd,
        // so these writes count as waits.
        let is_wait = |line: &&&str| {
            line.contains("epoll_") && line.contains("wait") || line.contains("futex") || line.contains("write(")
        };
        let calls = lines.iter().filter(|line| !line.contains(" resumed>"));
        let waits = calls.clone().filter(is_wait).count();
        let others = calls.count() - waits;
        let most = if round % 2 == 0 { 10 } else { 5 };
        println!("round {round}: {others} calls and {waits} waits for {DIALS} dials");
        // Allows a few calls for other work of the runtime.
        assert!(others <= most * DIALS + DIALS / 2, "round {round}:\n{}", lines.join("\n"));
    }
}

/// Returns an IPv4 address of this host that is not a loopback address, or `None` if this host has
/// no route to other hosts.
fn far_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a UDP socket sends nothing. 192.0.2.0/24 is reserved for documentation.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
