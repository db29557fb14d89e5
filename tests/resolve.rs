//! Name resolution: the system's answers, errors, sharing, literals, cancellation. (The unit tests
//! in `src/net/resolve/flight.rs` also test the sharing of queries. Those in
//! `src/net/resolve/families.rs` test the queries per address family.)

mod common;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use common::{poll_once, run};
use netpoll::net::{
    AddrError, LookupError, TcpListener, TcpStream, ToSocketAddrs, ToSocketAddrsFuture, lookup_addr, lookup_cname,
    lookup_host, lookup_port, resolve,
};
use netpoll::{rt, task};

fn lookup_error(error: &io::Error) -> &LookupError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap_or_else(|| panic!("no LookupError: {error:?}"))
}

#[test]
fn lookup_returns_system_answers() {
    run(async {
        let addrs = lookup_host("localhost").await.unwrap();
        assert!(!addrs.is_empty() && addrs.iter().all(IpAddr::is_loopback), "{addrs:?}");
        let with_port = resolve(("localhost", 7)).await.unwrap();
        assert_eq!(with_port.iter().map(SocketAddr::ip).collect::<Vec<_>>(), addrs, "in the same order");
        assert!(with_port.iter().all(|addr| addr.port() == 7));
        assert!(!lookup_cname("localhost").await.unwrap().is_empty());
        let names = lookup_addr(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        assert!(names.iter().all(|name| !name.is_empty()) && !names.is_empty());
    });
}

/// Addresses are in the order of getaddrinfo(3), which std also keeps. RFC 6724 and gai.conf(5)
/// determine the order.
#[test]
fn lookup_keeps_system_order() {
    run(async {
        let std = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 1)).unwrap().collect::<Vec<_>>();
        assert_eq!(resolve("localhost:1").await.unwrap(), std);
    });
}

#[test]
fn unknown_names_are_not_found() {
    run(async {
        let long = "x".repeat(64) + ".invalid";
        for name in [&long[..], "a b", "nul\0byte", ""] {
            let error = lookup_host(name).await.unwrap_err();
            assert_eq!(error.to_string(), format!("lookup {name}: no such host"));
            assert_eq!((error.kind(), lookup_error(&error).name()), (ErrorKind::NotFound, name));
            assert!(lookup_error(&error).is_not_found() && !lookup_error(&error).is_temporary());
            assert!(lookup_cname(name).await.is_err());
        }
        // If a DNS server answers, the error says that the name does not exist. Without a server,
        // the error says that the look-up failed. Both errors contain the name.
        let error = lookup_host("netpoll-test.invalid").await.unwrap_err();
        assert!(error.to_string().starts_with("lookup netpoll-test.invalid: "), "{error}");
        // 192.0.2.0/24 is reserved for documentation.
        let error = lookup_addr([192, 0, 2, 1].into()).await.unwrap_err();
        assert!(error.to_string().starts_with("lookup 192.0.2.1: "), "{error}");
    });
}

/// Go: TestLookupPort.
#[test]
fn port_names_are_resolved() {
    run(async {
        let literal = [("0", 0), ("80", 80), ("+80", 80), ("65535", 65535), ("", 0), ("-0", 0), ("0080", 80)];
        for (service, port) in literal {
            for network in ["tcp", "tcp4", "udp6", "ip", ""] {
                assert_eq!(lookup_port(network, service).await.unwrap(), port, "{network}/{service}");
            }
        }
        for service in ["-1", "65536", "99999999999999999999"] {
            let error = lookup_port("tcp", service).await.unwrap_err();
            assert_eq!(
                (error.to_string(), error.kind()),
                (format!("address {service}: invalid port"), ErrorKind::InvalidInput)
            );
            assert!(error.get_ref().unwrap().is::<AddrError>());
        }
        let error = lookup_port("tcp", "no-such-service").await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.kind()),
            ("lookup tcp/no-such-service: unknown port", ErrorKind::NotFound)
        );
        let error = lookup_port("smoke", "80").await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.kind()),
            ("lookup smoke/80: unknown network", ErrorKind::InvalidInput)
        );
        // Port names are tested only if the host has a list of services.
        if std::fs::read_to_string("/etc/services").is_ok_and(|text| text.contains("\ndomain")) {
            assert_eq!(lookup_port("tcp", "domain").await.unwrap(), 53);
            assert_eq!(lookup_port("udp", "domain").await.unwrap(), 53);
            assert_eq!(lookup_port("", "domain").await.unwrap(), 53);
        } else {
            println!("skipped in part: no /etc/services");
        }
    });
}

/// Go: ":80" listens on every address (net/dial.go).
#[test]
fn port_without_a_host_means_every_local_address() {
    run(async {
        let everywhere = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80)), (Ipv4Addr::UNSPECIFIED, 80).into()];
        assert_eq!(resolve(":80").await.unwrap(), everywhere);
        assert_eq!(resolve("[]:80".to_owned()).await.unwrap(), everywhere);
        let listener = TcpListener::bind(":0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for addr in [format!(":{port}"), format!("127.0.0.1:{port}")] {
            let client = TcpStream::connect(&addr).await.unwrap();
            let (server, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.port(), client.local_addr().unwrap().port(), "{addr}");
            drop(server);
        }
    });
}

/// Go: TestLookupPort. The names of services are those of services(5).
#[test]
fn port_of_an_address_may_be_the_name_of_a_service() {
    run(async {
        let error = resolve("localhost:no-such-service").await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.kind()),
            ("lookup ip/no-such-service: unknown port", ErrorKind::NotFound)
        );
        assert!(error.get_ref().unwrap().is::<LookupError>());
        // Port names are tested only if the host has a list of services.
        if std::fs::read_to_string("/etc/services").is_ok_and(|text| text.contains("\ndomain")) {
            assert_eq!(resolve("192.0.2.7:domain").await.unwrap(), [SocketAddr::from(([192, 0, 2, 7], 53))]);
            assert_eq!(resolve(":domain").await.unwrap(), resolve(":53").await.unwrap());
            assert_eq!(resolve("localhost:domain").await.unwrap(), resolve("localhost:53").await.unwrap());
            let error = resolve("no-such-host.invalid:domain").await.unwrap_err();
            assert_eq!(error.to_string(), "could not resolve address `\"no-such-host.invalid:domain\"`");
        } else {
            println!("skipped in part: no /etc/services");
        }
    });
}

#[test]
fn literals_resolve_without_a_thread() {
    common::child("literals_resolve_without_a_thread", || {
        run(async {
            assert_eq!(lookup_host("::1").await.unwrap(), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
            assert_eq!(lookup_host("192.0.2.7").await.unwrap(), [IpAddr::from([192, 0, 2, 7])]);
            assert_eq!(resolve("[::1]:80").await.unwrap().len(), 1);
            assert_eq!(resolve(("127.0.0.1", 80)).await.unwrap().len(), 1);
            // In every kind of address argument, a literal may have a zone, which is a number or a
            // name.
            for host in ["fe80::1%1", "fe80::1%lo", "::1%lo"] {
                assert_eq!(
                    lookup_host(host).await.unwrap(),
                    [host.split_once('%').unwrap().0.parse::<IpAddr>().unwrap()]
                );
                for addrs in [resolve((host, 80)).await.unwrap(), resolve(format!("[{host}]:80")).await.unwrap()] {
                    let [SocketAddr::V6(addr)] = addrs[..] else { panic!("{addrs:?}") };
                    assert!(addr.scope_id() != 0 && addr.port() == 80, "{addr}");
                }
            }
            assert_eq!("[fe80::1%lo]:80".host_and_port(), None);
            assert_eq!(lookup_port("tcp", "80").await.unwrap(), 80);
            let _ = netpoll::net::Dialer::new().dial("127.0.0.1:1").await;
            let _ = TcpStream::connect("127.0.0.1:1").await;
            assert_eq!(rt::metrics().blocking_threads, 0);
            lookup_host("localhost").await.unwrap();
            assert!(rt::metrics().blocking_threads > 0, "a name needs a thread");
        });
    });
}

/// Returns a look-up that occupies a look-up thread, and a sender. The look-up ends when the sender
/// is used or dropped.
fn busy_lookup() -> (std::sync::mpsc::Sender<()>, ToSocketAddrsFuture<std::vec::IntoIter<SocketAddr>>) {
    let (free, busy) = std::sync::mpsc::channel();
    let call = ToSocketAddrsFuture::blocking(move || {
        let _ = busy.recv();
        Ok(Vec::new().into_iter())
    });
    (free, call)
}

/// The only look-up thread is busy, so new look-ups wait in the queue.
#[test]
fn identical_lookups_share_one_query() {
    common::child("identical_lookups_share_one_query", || {
        rt::Builder::new().blocking_threads(1).start().unwrap();
        run(async {
            let (free, blocker) = busy_lookup();
            let before = rt::metrics().tasks_spawned;
            let mut lookups: Vec<_> = (0..100).map(|_| Box::pin(lookup_host("localhost"))).collect();
            for lookup in &mut lookups {
                assert!(poll_once(lookup).await.is_pending());
            }
            let mut other = "localhost:1".to_socket_addrs();
            assert!(poll_once(&mut other).await.is_pending());
            let mut port = Box::pin(lookup_port("tcp", "no-such-service"));
            assert!(poll_once(&mut port).await.is_pending());
            assert_eq!(rt::metrics().tasks_spawned - before, 2, "one for the host, one for the port");
            // Drops 40 look-ups. The others get their answer.
            lookups.truncate(60);
            free.send(()).unwrap();
            assert_eq!(blocker.await.unwrap().count(), 0);
            for lookup in lookups {
                assert!(lookup.await.unwrap().iter().all(IpAddr::is_loopback));
            }
            assert!(other.await.unwrap().all(|addr| addr.port() == 1));
            assert!(port.await.is_err());
            // Nothing is cached, so the next look-up makes a query again.
            let before = rt::metrics().tasks_spawned;
            lookup_host("localhost").await.unwrap();
            assert_eq!(rt::metrics().tasks_spawned - before, 1);
        });
    });
}

#[test]
fn lookups_and_blocking_calls_use_separate_threads() {
    common::child("lookups_and_blocking_calls_use_separate_threads", || {
        rt::Builder::new().blocking_threads(2).start().unwrap();
        run(async {
            let (free, busy) = std::sync::mpsc::channel::<()>();
            let busy = std::sync::Arc::new(std::sync::Mutex::new(busy));
            let calls: Vec<_> = (0..8)
                .map(|_| {
                    let busy = busy.clone();
                    task::spawn_blocking(move || busy.lock().is_ok_and(|busy| busy.recv().is_ok()))
                })
                .collect();
            common::becomes("all threads are busy", || rt::metrics().blocking_threads == 2).await;
            let listener = common::listener().await;
            let port = listener.local_addr().unwrap().port();
            assert!(!lookup_host("localhost").await.unwrap().is_empty());
            assert!(!lookup_cname("localhost").await.unwrap().is_empty());
            assert!(!lookup_addr(Ipv4Addr::LOCALHOST.into()).await.unwrap().is_empty());
            assert!(lookup_port("tcp", "no-such-service").await.is_err());
            TcpStream::connect(("localhost", port)).await.unwrap();
            netpoll::net::Dialer::new().dial(("localhost", port)).await.unwrap();
            let own = ToSocketAddrsFuture::blocking(|| Ok(vec![SocketAddr::from(([192, 0, 2, 1], 1))].into_iter()));
            assert_eq!(own.await.unwrap().count(), 1);
            assert!(calls.iter().all(|call| !call.is_finished()));
            drop(free);
            for call in calls {
                assert!(!call.await);
            }
            // Look-ups do not delay other blocking calls either.
            let (_free, blockers): (Vec<_>, Vec<_>) = (0..8).map(|_| busy_lookup()).unzip();
            assert_eq!(task::spawn_blocking(|| 7).await, 7);
            drop(blockers);
        });
    });
}

/// Invalid host names in hosts(5) are not returned.
#[test]
fn invalid_system_host_names_are_omitted() {
    let hosts = "127.0.0.1 localhost\n192.0.2.77 bad;name alias\n192.0.2.78 good-name\n192.0.2.79 \x1b[31mred colour\n\
        192.0.2.80 192.0.2.81\n";
    common::child_on_host(
        "invalid_system_host_names_are_omitted",
        &[("/etc/hosts", hosts), ("/etc/resolv.conf", "")],
        || {
            run(async {
                assert_eq!(lookup_addr([192, 0, 2, 78].into()).await.unwrap(), ["good-name"]);
                assert_eq!(lookup_cname("good-name").await.unwrap(), "good-name");
                for last in [77, 79, 80] {
                    let error = lookup_addr([192, 0, 2, last].into()).await.unwrap_err();
                    assert_eq!(error.to_string(), format!("lookup 192.0.2.{last}: no such host"));
                }
                for alias in ["alias", "colour"] {
                    assert_eq!(lookup_host(alias).await.unwrap().len(), 1);
                    assert!(lookup_error(&lookup_cname(alias).await.unwrap_err()).is_not_found());
                }
                // The canonical name of a literal is the literal.
                assert_eq!(lookup_cname("192.0.2.1").await.unwrap(), "192.0.2.1");
            });
        },
    );
}

/// Go: TestLookupHostCancel.
#[test]
fn lookup_completes_after_others_were_dropped() {
    run(async {
        for _ in 0..50 {
            let mut lookup: Pin<Box<dyn Future<Output = _>>> = Box::pin(lookup_host("netpoll-test.invalid"));
            let _ = poll_once(&mut lookup).await;
        }
        // The dropped look-ups do not delay a later one.
        lookup_host("localhost").await.unwrap();
    });
}

#[test]
fn shutdown_ends_pending_lookups() {
    common::child("shutdown_ends_pending_lookups", || {
        rt::Builder::new().blocking_threads(1).start().unwrap();
        let (free, _blocker) = busy_lookup();
        let mut future = "localhost:1".to_socket_addrs();
        assert!(common::poll_now(&mut future).is_pending());
        drop(free);
        let _ = rt::shutdown(Duration::from_secs(20));
        // The look-up was answered, or was dropped and fails. It does not hang.
        match common::park_on(future) {
            Ok(mut addrs) => assert!(addrs.all(|addr| addr.ip().is_loopback())),
            Err(error) => assert!(error.to_string().contains("localhost"), "{error}"),
        }
    });
}

#[test]
fn lookup_works_under_any_executor() {
    assert!(!common::park_on(lookup_host("localhost")).unwrap().is_empty());
    assert!(!futures::executor::block_on(resolve("localhost:1")).unwrap().is_empty());
}

#[test]
fn host_and_port_is_known_only_for_names() {
    assert_eq!("localhost:80".host_and_port(), Some(("localhost", 80)));
    assert_eq!(("localhost", 81).host_and_port(), Some(("localhost", 81)));
    assert_eq!("localhost:82".to_owned().host_and_port(), Some(("localhost", 82)));
    let reference = &&("localhost".to_owned(), 83);
    assert_eq!(reference.host_and_port(), Some(("localhost", 83)));
    for literal in ["127.0.0.1:80", "[::1]:80", "no address", ""] {
        assert_eq!(literal.host_and_port(), None);
    }
    assert_eq!(SocketAddr::from(([127, 0, 0, 1], 1)).host_and_port(), None);
}

#[test]
fn custom_to_socket_addrs_is_used() {
    struct Table;
    impl ToSocketAddrs for Table {
        type Iter = std::vec::IntoIter<SocketAddr>;

        fn to_socket_addrs(&self) -> ToSocketAddrsFuture<Self::Iter> {
            ToSocketAddrsFuture::blocking(|| Ok(vec![SocketAddr::from(([192, 0, 2, 1], 1))].into_iter()))
        }
    }
    run(async {
        assert_eq!(resolve(Table).await.unwrap(), [SocketAddr::from(([192, 0, 2, 1], 1))]);
    });
}
