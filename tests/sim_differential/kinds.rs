//! Calls whose results depend on the family and the type of the socket: options, addresses, and the
//! limits of datagrams.

use super::*;

pub(super) fn unix(ty: Type) -> Socket {
    open(Domain::UNIX, ty)
}

/// Returns an abstract name that no other process uses.
pub(super) fn name(text: &str) -> SockAddr {
    SockAddr::unix(format!("\0netpoll-kinds-{}-{text}", std::process::id())).unwrap()
}

/// Sends `count` bytes with one call.
pub(super) fn send_many(socket: &Socket, count: usize) -> String {
    shown(socket.send_vectored(&[io::IoSlice::new(&vec![1; count])]))
}

/// Receives at most `count` bytes with one call. Returns the number of bytes.
pub(super) fn recv_many(socket: &Socket, count: usize) -> String {
    shown(receive(socket, &mut vec![MaybeUninit::uninit(); count], 0))
}

/// Receives a message and the address of its sender. Returns the lengths of both.
fn recv_from(socket: &Socket) -> String {
    let result = socket.recv_from(&mut [MaybeUninit::uninit(); 9]);
    shown(result.map(|(count, from)| (count, from.len())))
}

/// Returns the types of Unix sockets.
pub(super) fn unix_types() -> [Type; 3] {
    [Type::STREAM, Type::DGRAM, Type::SEQPACKET]
}

fn get(socket: &Socket, level: i32, option: i32) -> String {
    let (mut value, mut length) = (0_i32, 4);
    // SAFETY: there is room for an int.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length) };
    shown(if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) })
}

#[test]
fn options_of_another_family_or_type_are_errors() {
    same(async |trace| {
        let sockets =
            [tcp(), udp(), open(Domain::IPV6, Type::STREAM), open(Domain::IPV6, Type::DGRAM), unix(Type::STREAM)];
        for (kind, socket) in sockets.iter().enumerate() {
            for (level, option) in [
                (libc::IPPROTO_IP, libc::IP_TTL),
                (libc::IPPROTO_IP, libc::IP_TOS),
                (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL),
                (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
                (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
                (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
                (libc::IPPROTO_IP, libc::IP_FREEBIND),
                (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
                (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP),
                (libc::IPPROTO_IP, libc::IP_PKTINFO),
                (libc::IPPROTO_IP, libc::IP_RECVTTL),
                (libc::IPPROTO_IP, libc::IP_RECVTOS),
                (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
                (libc::SOL_SOCKET, libc::SO_BROADCAST),
                (libc::SOL_SOCKET, libc::SO_DONTROUTE),
                (libc::SOL_SOCKET, libc::SO_OOBINLINE),
                (libc::IPPROTO_TCP, libc::TCP_NODELAY),
                (libc::IPPROTO_TCP, libc::TCP_CORK),
                (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
            ] {
                // On a TCP socket, both kernels return ENOPROTOOPT for IPV6_MULTICAST_HOPS. A
                // simulation also reports the option as refused, which counts as a difference.
                if kind == 2 && option == libc::IPV6_MULTICAST_HOPS && level == libc::IPPROTO_IPV6 {
                    continue;
                }
                let what = format!("socket {kind}, option {option} of level {level}");
                trace.note(&what, get(socket, level, option));
                let value = i32::to_ne_bytes(7);
                let value = if option == libc::IPV6_V6ONLY { i32::to_ne_bytes(1) } else { value };
                trace.note(&what, shown(set(socket, level, option, &value)));
            }
        }
        let bound = open(Domain::IPV6, Type::STREAM);
        bound.bind(&at(Ipv6Addr::LOCALHOST, 0)).unwrap();
        trace.note("only v6 after bind", shown(bound.set_only_v6(true)));
    });
}

#[test]
fn addresses_of_another_family_have_the_errors_of_the_kernel() {
    same(async |trace| {
        let mapped = V4.to_ipv6_mapped();
        for ty in [Type::STREAM, Type::DGRAM] {
            let six = || open(Domain::IPV6, ty);
            trace.note("bind", shown(six().bind(&at(V4, 0))));
            trace.note("bind", shown(open(Domain::IPV4, ty).bind(&at(Ipv6Addr::LOCALHOST, 0))));
            trace.note("connect", shown(open(Domain::IPV4, ty).connect(&at(Ipv6Addr::LOCALHOST, 9))));
            trace.note("connect", shown(open(Domain::IPV4, ty).connect(&name("none"))));
            let only = six();
            only.set_only_v6(true).unwrap();
            trace.note("bind", shown(only.bind(&at(mapped, 0))));
            trace.note("connect", shown(only.connect(&at(mapped, 9))));
            let bound = six();
            bound.bind(&at(Ipv6Addr::LOCALHOST, 0)).unwrap();
            trace.note("connect", shown(bound.connect(&at(mapped, 9))));
        }
        trace.note("connect", shown(open(Domain::IPV6, Type::STREAM).connect(&at(V4, 9))));
        let (socket, peer) = (open(Domain::IPV6, Type::DGRAM), udp());
        peer.bind(&at(V4, 0)).unwrap();
        let to = peer.local_addr().unwrap();
        trace.note("send_to", shown(socket.send_to(b"x", &to)));
        trace.note("connect", format!("{} {}", shown(socket.connect(&to)), send(&socket)));
        trace.settle().await;
        trace.note("recv", format!("{} {}", recv(&peer), recv(&peer)));
        for only_v6 in [false, true] {
            let bound = open(Domain::IPV6, Type::DGRAM);
            bound.set_only_v6(only_v6).unwrap();
            bound.bind(&at(if only_v6 { Ipv6Addr::LOCALHOST } else { mapped }, 0)).unwrap();
            for to in [at(Ipv6Addr::LOCALHOST, 9), at(mapped, 9), at(V4, 9)] {
                let results = (shown(bound.send_to(b"x", &to)), shown(bound.connect(&to)));
                trace.note("send_to and connect", format!("{results:?}"));
            }
        }
    });
}

#[test]
fn datagrams_have_the_limits_of_the_kernel() {
    same(async |trace| {
        for (domain, ip) in [(Domain::IPV4, V4.into()), (Domain::IPV6, std::net::IpAddr::from(Ipv6Addr::LOCALHOST))] {
            let socket = open(domain, Type::DGRAM);
            socket.bind(&at(ip, 0)).unwrap();
            for count in [0, 65_507, 65_508, 65_527, 65_528] {
                let sent = socket.send_to(&vec![1; count], &socket.local_addr().unwrap());
                trace.settle().await;
                trace.note(&format!("{count} bytes"), format!("{} {}", shown(sent), recv_many(&socket, 70_000)));
            }
        }
        // An empty queue takes a datagram that is longer than the buffer.
        for (size, count) in [(1, 3_000), (2304, 6_000), (10_000, 60_000)] {
            let (socket, sender) = (udp(), udp());
            socket.bind(&at(V4, 0)).unwrap();
            socket.set_recv_buffer_size(size).unwrap();
            for _ in 0..2 {
                sender.send_to(&vec![1; count], &socket.local_addr().unwrap()).unwrap();
            }
            trace.settle().await;
            trace.note(&format!("buffer of {size}"), format!("{:?}", [0; 2].map(|_| recv_many(&socket, count))));
        }
        let (client, sender) = (udp(), udp());
        trace.note("port 0", shown(client.connect(&at(V4, 0))));
        trace.note("port 0", format!("{} {}", shown(client.peer_addr().map(|_| ())), send(&client)));
        trace.note("port 0", shown(sender.send_to(b"x", &at(V4, 0))));
        trace.settle().await;
        trace.note("port 0", error(&client));
    });
}

#[test]
fn address_that_is_reused_belongs_to_the_last_socket() {
    same(async |trace| {
        let bound = |ip: Ipv4Addr, port: u16| {
            let socket = udp();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&at(ip, port)).unwrap();
            socket
        };
        let first = bound(V4, 0);
        let port = local(&first).port();
        let mut sockets = vec![first, bound(ANY, port), bound(V4, port), bound(V4, port)];
        let peer = udp();
        peer.bind(&at(V4, 0)).unwrap();
        while !sockets.is_empty() {
            for sender in [&peer, &udp(), &udp(), &udp()] {
                sender.send_to(b"x", &at(V4, port)).unwrap();
            }
            trace.settle().await;
            let count = |socket: &Socket| std::iter::repeat_with(|| recv(socket)).take_while(|got| got == "1").count();
            trace.note("received", format!("{:?}", sockets.iter().map(count).collect::<Vec<_>>()));
            sockets.pop();
            if sockets.len() == 2 {
                sockets[0].connect(&peer.local_addr().unwrap()).unwrap();
            }
        }
    });
}

#[test]
fn unix_sockets_of_different_types_are_told_apart() {
    same(async |trace| {
        for (number, ty) in unix_types().into_iter().enumerate() {
            let own = name(&format!("type-{number}"));
            let (one, other) = Socket::pair(Domain::UNIX, ty, None).unwrap();
            let fresh = unix(ty);
            for socket in [&one, &other] {
                socket.set_nonblocking(true).unwrap();
            }
            trace.note("listen", format!("{} {}", shown(one.listen(1)), shown(fresh.listen(1))));
            trace.note("accept", format!("{:?}", [&one, &fresh].map(|socket| shown(socket.accept().map(|_| ())))));
            trace.note("fresh", format!("{} {} {}", ready(fresh.as_raw_fd()), send(&fresh), recv(&fresh)));
            let bound = unix(ty);
            bound.bind(&own).unwrap();
            trace.note("send_to", format!("{:?}", [&one, &fresh].map(|socket| shown(socket.send_to(b"x", &own)))));
            for listens in [false, true] {
                if listens {
                    let _ = bound.listen(1);
                    trace.note("listener", format!("{} {}", send(&bound), recv(&bound)));
                }
                for ty in unix_types() {
                    trace.note("connect", shown(unix(ty).connect(&own)));
                    trace.note("send_to", shown(unix(ty).send_to(b"x", &own)));
                }
            }
            for ty in unix_types() {
                trace.note("bind", shown(unix(ty).bind(&own)));
            }
            for how in [Shutdown::Write, Shutdown::Both] {
                fresh.shutdown(how).unwrap();
                trace.note("shut", format!("{} {} {}", ready(fresh.as_raw_fd()), send(&fresh), recv(&fresh)));
            }
        }
    });
}

#[test]
fn unix_messages_have_the_current_name_of_the_sender() {
    same(async |trace| {
        for (number, ty) in unix_types().into_iter().enumerate() {
            let (one, other) = Socket::pair(Domain::UNIX, ty, None).unwrap();
            other.set_nonblocking(true).unwrap();
            let peer = || shown(other.peer_addr().map(|peer| peer.len()));
            let queued = || {
                let mut count = 0;
                // SAFETY: the request takes a pointer to an int.
                unsafe { libc::ioctl(other.as_raw_fd(), libc::FIONREAD, &raw mut count) };
                count
            };
            send(&one);
            trace.note("without a name", format!("{} {}", peer(), recv_from(&other)));
            one.bind(&name(&format!("late-{number}"))).unwrap();
            send_many(&one, 2);
            send_many(&one, 3);
            trace.note("with a name", format!("{} {} {}", peer(), queued(), recv_from(&other)));
            drop(one);
            trace.note("after close", format!("{} {} {}", peer(), recv_from(&other), recv_from(&other)));
        }
        let (receiver, sender) = (unix(Type::DGRAM), unix(Type::DGRAM));
        receiver.bind(&name("receiver of names")).unwrap();
        sender.send_to(b"x", &name("receiver of names")).unwrap();
        sender.send_to(b"y", &name("receiver of names")).unwrap();
        sender.bind(&name("late")).unwrap();
        trace.note("sender", recv_from(&receiver));
        drop(sender);
        trace.note("sender that was closed", recv_from(&receiver));
    });
}

#[test]
fn connections_in_the_queue_of_a_closed_unix_listener_are_reset() {
    same(async |trace| {
        for (number, ty) in [Type::STREAM, Type::SEQPACKET].into_iter().enumerate() {
            for sends in [false, true] {
                let own = name(&format!("left-{number}-{sends}"));
                let (listener, client) = (unix(ty), unix(ty));
                listener.bind(&own).unwrap();
                listener.listen(8).unwrap();
                client.connect(&own).unwrap();
                if sends {
                    send(&client);
                }
                trace.note("connect", shown(client.connect(&own)));
                drop(listener);
                trace.note("poll", ready(client.as_raw_fd()));
                trace.note("calls", format!("{} {} {}", recv(&client), send(&client), recv(&client)));
                trace.note("connect", shown(client.connect(&own)));
            }
        }
    });
}

#[test]
fn unix_datagrams_arrive_only_from_the_peer() {
    same(async |trace| {
        let bound = |text: &str| {
            let socket = unix(Type::DGRAM);
            socket.bind(&name(text)).unwrap();
            socket
        };
        let (first, second, third) = (bound("first"), bound("second"), bound("third"));
        first.connect(&name("second")).unwrap();
        second.connect(&name("third")).unwrap();
        for socket in [&first, &unix(Type::DGRAM)] {
            let results = (send(socket), socket.send_to(b"x", &name("second")), socket.connect(&name("second")));
            trace.note("stranger", format!("{} {} {}", results.0, shown(results.1), shown(results.2)));
        }
        trace.note("second", recv(&second));
        third.connect(&name("second")).unwrap();
        trace.note("third", format!("{} {}", send(&third), send(&third)));
        // The messages are lost, and the peer gets an error.
        trace.note("disconnect", disconnect(&second));
        trace.note("second", format!("{} {}", ready(second.as_raw_fd()), recv(&second)));
        trace.note("third", format!("{} {} {}", ready(third.as_raw_fd()), error(&third), send(&third)));
        trace.note("first", format!("{} {}", send(&first), recv(&second)));
        trace.note("reconnect", format!("{} {}", shown(second.connect(&name("third"))), recv(&second)));
        drop(third);
        trace.note("closed peer", format!("{} {}", shown(first.connect(&name("second"))), send(&second)));
        trace.note("forgotten peer", format!("{} {}", shown(first.connect(&name("second"))), send(&second)));
        let (one, other) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        for socket in [&one, &other] {
            socket.set_nonblocking(true).unwrap();
        }
        trace.note("pair", (0..50).take_while(|_| send(&one) == "1").count().to_string());
        trace.note("long", send_many(&other, 200_000));
        let small = unix(Type::DGRAM);
        small.set_send_buffer_size(5_000).unwrap();
        let receiver = bound("receiver");
        small.connect(&name("receiver")).unwrap();
        receiver.set_recv_buffer_size(1).unwrap();
        trace.note("own buffer", format!("{:?}", [9_968, 9_969].map(|count| send_many(&small, count))));
        trace.note("own buffer", recv_many(&receiver, 20_000));
    });
}

#[test]
fn unix_messages_in_several_queues_fill_the_buffer_of_their_sender() {
    same(async |trace| {
        let sender = unix(Type::DGRAM);
        let receivers: Vec<_> = (0..20)
            .map(|number| {
                let receiver = unix(Type::DGRAM);
                receiver.bind(&name(&format!("queue-{number}"))).unwrap();
                receiver
            })
            .collect();
        let send = |to: usize| shown(sender.send_to(&[7; 60_000], &name(&format!("queue-{to}"))));
        let sent = (0..20).take_while(|&to| send(to) == "60000").count();
        trace.note("full", format!("{} {}", sent < 20, ready(sender.as_raw_fd())));
        trace.note("full", send(19));
        for receiver in &receivers[..sent] {
            assert_eq!(recv_many(receiver, 60_000), "60000");
        }
        trace.note("received", format!("{} {}", ready(sender.as_raw_fd()), send(19)));
        while send(0) == "60000" {}
        trace.note("full", ready(sender.as_raw_fd()));
        drop(receivers);
        trace.note("closed", ready(sender.as_raw_fd()));
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        one.set_nonblocking(true).unwrap();
        let empty = (0..500_000).take_while(|_| shown(one.send_vectored(&[])) == "0").count();
        trace.note("empty messages", format!("{} {}", empty < 500_000, ready(one.as_raw_fd())));
        drop(other);
    });
}

#[test]
fn unix_socket_keeps_its_name_when_the_kernel_is_to_choose_one() {
    same(async |trace| {
        let none = SockAddr::unix("").unwrap();
        for (number, ty) in unix_types().into_iter().enumerate() {
            let own = name(&format!("kept-{number}"));
            let named = unix(ty);
            named.bind(&own).unwrap();
            for to in [&none, &own, &name("another")] {
                trace.note("named", shown(named.bind(to)));
            }
            trace.note("name", (named.local_addr().unwrap() == own).to_string());
            let chosen = unix(ty);
            trace.note("choose", format!("{} {}", shown(chosen.bind(&none)), shown(chosen.bind(&none))));
            trace.note("choose", shown(chosen.bind(&name("another"))));
        }
    });
}

#[test]
fn unix_sockets_remember_shutdowns_and_the_end_of_their_peer() {
    same(async |trace| {
        for (number, ty) in [Type::STREAM, Type::SEQPACKET].into_iter().enumerate() {
            for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
                let own = name(&format!("shut-{number}-{how:?}"));
                let (listener, client) = (unix(ty), unix(ty));
                listener.bind(&own).unwrap();
                listener.shutdown(how).unwrap();
                trace.note("listen", format!("{} {}", shown(listener.listen(8)), ready(listener.as_raw_fd())));
                trace.note("connect", shown(client.connect(&own)));
                trace.note("send_to", shown(listener.send_to(b"x", &own)));
            }
            let own = name(&format!("hung-up-{number}"));
            let (one, other) = Socket::pair(Domain::UNIX, ty, None).unwrap();
            one.bind(&own).unwrap();
            drop(other);
            trace.note("listen", shown(one.listen(8)));
        }
        let own = name("self");
        let socket = unix(Type::DGRAM);
        socket.bind(&own).unwrap();
        socket.connect(&own).unwrap();
        trace.note("send", send(&socket));
        for how in [Shutdown::Read, Shutdown::Write] {
            socket.shutdown(how).unwrap();
            trace.note("shutdown", format!("{} {} {}", ready(socket.as_raw_fd()), send(&socket), recv(&socket)));
        }
    });
}
