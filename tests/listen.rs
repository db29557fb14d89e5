//! Binding of listeners: forms of addresses, address families, conflicts, names, and the flags and
//! TTL of sockets.

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use common::{echo, has_ipv6, ping, run};
use netpoll::net::{TcpListener, TcpStream, raw_os_error};
use netpoll::task;

/// The wildcard address and the loopback address of IPv4.
const V4: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::LOCALHOST)];
/// The wildcard address and the loopback address of IPv6.
const V6: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn hosts() -> Vec<IpAddr> {
    V4.into_iter().chain(V6.into_iter().filter(|_| has_ipv6())).collect()
}

/// Returns addresses at which a listener on `host` can be reached.
fn reachable(host: IpAddr) -> Vec<IpAddr> {
    let mut at = vec![if host.is_unspecified() && host.is_ipv6() {
        V6[1]
    } else if host.is_unspecified() {
        V4[1]
    } else {
        host
    }];
    if host == V6[0] {
        at.push(V4[1]);
    }
    if host.is_unspecified() {
        // On Linux, a connection to the wildcard address reaches this host.
        at.push(host);
    }
    at
}

/// Go: TestTCPServer.
#[test]
fn every_address_form_serves_three_clients() {
    run(async {
        for host in hosts() {
            let listener = Arc::new(TcpListener::bind((host, 0)).await.unwrap());
            let port = listener.local_addr().unwrap().port();
            let servers: Vec<_> = (0..3)
                .map(|_| {
                    let listener = listener.clone();
                    task::spawn(async move {
                        while let Ok((stream, _)) = listener.accept().await {
                            drop(task::spawn(async move { echo(&stream).await }));
                        }
                    })
                })
                .collect();
            for at in reachable(host) {
                let clients: Vec<_> = (0..3)
                    .map(|_| {
                        task::spawn(async move {
                            let stream = TcpStream::connect((at, port)).await.unwrap();
                            for _ in 0..5 {
                                ping(&stream, b"SERVER AND CLIENT").await.unwrap();
                            }
                        })
                    })
                    .collect();
                for client in clients {
                    client.await;
                }
            }
            listener.close().await.unwrap();
            for server in servers {
                server.await;
            }
        }
    });
}

/// Go: TestTCPListener.
#[test]
fn bind_to_used_port_names_address() {
    run(async {
        for host in hosts() {
            let first = TcpListener::bind((host, 0)).await.unwrap();
            let addr = first.local_addr().unwrap();
            assert_eq!(addr.ip(), host);
            let error = TcpListener::bind(addr).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert_eq!(raw_os_error(&error), Some(libc::EADDRINUSE));
            assert_eq!(error.to_string(), format!("listen tcp {addr}: bind: address already in use"));
        }
    });
}

/// Go: TestDualStackTCPListener.
#[test]
fn wildcard_conflicts_follow_kernel() {
    if !has_ipv6() {
        return;
    }
    // Each case has a first address, a second address, and whether both can be bound. `[::]` takes
    // the port for both families.
    let cases = [
        (V4[0], V4[0], false),
        (V4[0], V4[1], false),
        (V4[1], V4[0], false),
        (V4[1], V4[1], false),
        (V4[0], V6[0], false),
        (V4[1], V6[0], false),
        (V6[0], V4[0], false),
        (V6[0], V4[1], false),
        (V6[0], V6[0], false),
        (V6[0], V6[1], false),
        (V6[1], V6[0], false),
        (V6[1], V6[1], false),
        (V4[0], V6[1], true),
        (V4[1], V6[1], true),
        (V6[1], V4[0], true),
        (V6[1], V4[1], true),
    ];
    run(async {
        for (first, second, both) in cases {
            // If another process uses the port in the other family, the test tries another port.
            for attempt in 0.. {
                let listener = TcpListener::bind((first, 0)).await.unwrap();
                let port = listener.local_addr().unwrap().port();
                match TcpListener::bind((second, port)).await {
                    Ok(_) => assert!(both, "{first} and {second}"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
                        if both && attempt < 10 {
                            continue;
                        }
                        assert!(!both, "{first} and {second}: {error}");
                    }
                }
                break;
            }
        }
    });
}

#[test]
fn ipv6_wildcard_accepts_ipv4() {
    if !has_ipv6() {
        return;
    }
    run(async {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.port(), client.local_addr().unwrap().port());
        assert_eq!(server.peer_addr().unwrap(), peer);
    });
}

/// Go: TestTCPListenerName.
#[test]
fn bind_to_port_zero_assigns_a_port() {
    run(async {
        for host in hosts() {
            let listener = TcpListener::bind((host, 0)).await.unwrap();
            let addr = listener.local_addr().unwrap();
            assert_ne!(addr.port(), 0);
            assert!(format!("{listener:?}").contains(&addr.to_string()));
        }
        let named = TcpListener::bind("localhost:0").await.unwrap();
        assert!(named.local_addr().unwrap().ip().is_loopback());
    });
}

#[test]
fn first_bindable_address_is_used() {
    run(async {
        let taken = common::listener().await;
        // An address reserved for documentation (RFC 5737), which no host has.
        let foreign: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let taken = (taken.local_addr().unwrap(), taken);
        let listener = TcpListener::bind(&[foreign, taken.0, free][..]).await.unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
        let error = TcpListener::bind(&[taken.0, foreign][..]).await.unwrap_err();
        assert_eq!(error.to_string(), "listen tcp 192.0.2.1:0: bind: cannot assign requested address");
        let none: &[SocketAddr] = &[];
        assert!(TcpListener::bind(none).await.unwrap_err().to_string().contains("missing address"));
    });
}

#[test]
fn sockets_are_cloexec_and_nonblocking() {
    run(async {
        let listener = common::listener().await;
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        for fd in [listener.as_raw_fd(), client.as_raw_fd(), server.as_raw_fd()] {
            // SAFETY: the call takes no pointers, and the descriptor is open.
            let fd_flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
            // SAFETY: as above.
            let status_flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
            assert_ne!(fd_flags & libc::FD_CLOEXEC, 0);
            assert_ne!(status_flags & libc::O_NONBLOCK, 0);
        }
    });
}

#[test]
fn ttl_is_inherited() {
    run(async {
        let listener = common::listener().await;
        listener.set_ttl(42).unwrap();
        assert_eq!(listener.ttl().unwrap(), 42);
        assert!(listener.take_error().unwrap().is_none());
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert_eq!(server.ttl().unwrap(), 42);
        assert_eq!(listener.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}
