//! `rt::inspect`: the addresses of sockets, and the system calls for them. Each test has its own
//! process, because a snapshot with a limit continues where the previous one ended.

mod common;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use common::child;
use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::rt::{self, Inspect, Snapshot, SocketAddress, SocketInfo, SocketState};
use netpoll::task;

/// Takes a snapshot without system calls for addresses.
fn without() -> Snapshot {
    Inspect::new().addresses(false).take()
}

fn of<'a>(snapshot: &'a Snapshot, fd: &impl AsRawFd) -> &'a SocketInfo {
    let number = fd.as_raw_fd();
    snapshot.sockets.iter().find(|socket| socket.fd() == number).expect("an open socket")
}

fn addresses(socket: &SocketInfo) -> (Option<SocketAddr>, Option<SocketAddr>, SocketState) {
    let ip = |address: &Option<SocketAddress>| match address {
        Some(SocketAddress::Ip(address)) => Some(*address),
        _ => None,
    };
    (ip(&socket.local()), ip(&socket.peer()), socket.state())
}

async fn pair(to: &str) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind(to).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (listener, client, server)
}

#[test]
fn addresses_of_dialled_and_accepted_connections_take_no_system_call() {
    child("addresses_of_dialled_and_accepted_connections_take_no_system_call", || {
        task::block_on(async {
            for to in ["127.0.0.1:0", "[::1]:0"] {
                if to.starts_with('[') && !common::has_ipv6() {
                    continue;
                }
                let (listener, client, server) = pair(to).await;
                let snapshot = without();
                let (at, from) = (server.local_addr().unwrap(), client.local_addr().unwrap());
                assert_eq!(addresses(of(&snapshot, &listener)), (Some(at), None, SocketState::Listening));
                assert_eq!(addresses(of(&snapshot, &client)), (Some(from), Some(at), SocketState::Open));
                assert_eq!(addresses(of(&snapshot, &server)), (Some(at), Some(from), SocketState::Open));
                // A snapshot that may query the kernel has the same addresses.
                let asked = Inspect::new().addresses(true).take();
                for fd in [client.as_raw_fd(), server.as_raw_fd(), listener.as_raw_fd()] {
                    let find = |snapshot: &Snapshot| {
                        addresses(snapshot.sockets.iter().find(|socket| socket.fd() == fd).unwrap())
                    };
                    assert_eq!(find(&snapshot), find(&asked));
                }
            }
        });
    });
}

#[test]
fn local_address_behind_a_wildcard_listener_is_resolved_once() {
    child("local_address_behind_a_wildcard_listener_is_resolved_once", || {
        task::block_on(async {
            let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (server, peer) = listener.accept().await.unwrap();
            let local = SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!(addresses(of(&without(), &server)), (None, Some(peer), SocketState::Open));
            assert_eq!(addresses(of(&rt::inspect(), &server)), (Some(local), Some(peer), SocketState::Open));
            assert_eq!(addresses(of(&without(), &server)), (Some(local), Some(peer), SocketState::Open));
            let listens = addresses(of(&without(), &listener));
            assert_eq!(listens, (Some(listener.local_addr().unwrap()), None, SocketState::Listening));
            drop(client);
        });
    });
}

#[test]
fn addresses_of_an_adopted_connection_are_resolved_once() {
    child("addresses_of_an_adopted_connection_are_resolved_once", || {
        task::block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let client = TcpStream::from(client);
            let unknown = without();
            assert_eq!(addresses(of(&unknown, &client)), (None, None, SocketState::Unknown));
            assert_eq!(of(&unknown, &client).kind(), "tcp");
            assert_eq!(addresses(of(&rt::inspect(), &client)), (Some(local), Some(peer), SocketState::Open));
            assert_eq!(addresses(of(&without(), &client)), (Some(local), Some(peer), SocketState::Open));
        });
    });
}

/// A new socket may use the slot of a closed connection.
#[test]
fn addresses_are_not_those_of_an_earlier_socket_of_the_slot() {
    child("addresses_are_not_those_of_an_earlier_socket_of_the_slot", || {
        task::block_on(async {
            for _ in 0..50 {
                let (listener, client, server) = pair("127.0.0.1:0").await;
                let snapshot = without();
                let at = Some(listener.local_addr().unwrap());
                assert_eq!(addresses(of(&snapshot, &client)).1, at);
                assert_eq!(addresses(of(&snapshot, &server)).0, at);
                drop((listener, client, server));
                let adopted = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let adopted: Vec<_> = (0..3).map(|_| TcpListener::from(adopted.try_clone().unwrap())).collect();
                let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let snapshot = without();
                for listener in &adopted {
                    assert_eq!(addresses(of(&snapshot, listener)), (None, None, SocketState::Unknown));
                }
                assert_eq!(addresses(of(&snapshot, &udp)), (None, None, SocketState::Unknown));
                assert_eq!(of(&snapshot, &udp).kind(), "udp");
            }
        });
    });
}

#[test]
fn snapshot_resolves_sockets_that_the_previous_one_omitted() {
    child("snapshot_resolves_sockets_that_the_previous_one_omitted", || {
        common::set_nofile(2_000);
        task::block_on(async {
            const SOCKETS: usize = 1_100;
            let mut sockets = Vec::new();
            for _ in 0..SOCKETS {
                sockets.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            }
            let known = |snapshot: Snapshot| -> Vec<i32> {
                assert_eq!(snapshot.sockets.len(), SOCKETS);
                assert!(snapshot.sockets.iter().all(|socket| socket.kind() == "udp"));
                let known = snapshot.sockets.iter().filter(|socket| socket.local().is_some());
                known.map(|socket| socket.fd()).collect()
            };
            assert_eq!(known(without()), []);
            let mut all = Vec::new();
            for _ in 0..3 {
                // The limit is 2,000 calls. A snapshot reserves three calls for each socket.
                let some = known(rt::inspect());
                assert!((1..=666).contains(&some.len()), "{}", some.len());
                all.extend(some);
            }
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), SOCKETS, "three snapshots find all addresses");
            assert_eq!(known(Inspect::new().addresses(true).take()).len(), SOCKETS);
        });
    });
}
