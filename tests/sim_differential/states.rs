//! Calls that fail or have an unusual effect because of the state of their socket.

use std::time::Duration;

use socket2::MaybeUninitSlice;

use super::*;

/// Returns the two ends of a TCP connection.
async fn pair(trace: &Trace) -> (Socket, Socket) {
    let server = tcp();
    server.bind(&at(V4, 0)).unwrap();
    server.listen(8).unwrap();
    let client = tcp();
    let _ = client.connect(&server.local_addr().unwrap());
    trace.settle().await;
    let (accepted, _) = server.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    (client, accepted)
}

/// Calls connect(2) three times. Notes each result and the state of the socket after it.
async fn connect(trace: &mut Trace, what: &str, socket: &Socket, to: &SockAddr) {
    for _ in 0..3 {
        trace.note(what, shown(socket.connect(to)));
        trace.settle().await;
        trace.note(what, state(socket));
    }
}

#[test]
fn connect_reports_the_success_of_a_handshake_once() {
    same(async |trace| {
        let server = tcp();
        server.bind(&at(V4, 0)).unwrap();
        server.listen(8).unwrap();
        let to = server.local_addr().unwrap();
        let reset = |socket: Socket| {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            drop(socket);
        };
        let client = tcp();
        connect(trace, "new", &client, &to).await;
        let (accepted, _) = server.accept().unwrap();
        connect(trace, "accepted", &accepted, &to).await;
        reset(accepted);
        trace.settle().await;
        connect(trace, "reset", &client, &to).await;
        for is_reset in [false, true] {
            let (client, accepted) = pair(trace).await;
            match is_reset {
                true => reset(accepted),
                false => drop(accepted),
            }
            trace.settle().await;
            connect(trace, &format!("without a second call {is_reset}"), &client, &to).await;
            let (client, accepted) = pair(trace).await;
            match is_reset {
                true => reset(client),
                false => drop(client),
            }
            trace.settle().await;
            accepted.set_nonblocking(true).unwrap();
            connect(trace, &format!("accepted, with an end {is_reset}"), &accepted, &to).await;
            let _ = accepted.shutdown(Shutdown::Write);
            trace.settle().await;
            connect(trace, &format!("accepted, with both ends {is_reset}"), &accepted, &to).await;
        }
        let (client, accepted) = pair(trace).await;
        client.shutdown(Shutdown::Write).unwrap();
        drop(accepted);
        trace.settle().await;
        connect(trace, "after a shutdown", &client, &to).await;
    });
}

#[test]
fn disconnect_ends_connections_and_listeners() {
    same(async |trace| {
        let (client, accepted) = pair(trace).await;
        trace.note("disconnect", disconnect(&client));
        trace.settle().await;
        for socket in [&client, &accepted] {
            trace.note("state", state(socket));
            trace.note("error", format!("{} {}", error(socket), recv(socket)));
        }
        let server = tcp();
        server.bind(&at(V4, 0)).unwrap();
        server.listen(8).unwrap();
        trace.note("connect", shown(client.connect(&server.local_addr().unwrap())));
        trace.settle().await;
        trace.note("client", state(&client));
        trace.note("disconnect", disconnect(&server));
        trace.settle().await;
        trace.note("server", state(&server));
        trace.note("client", state(&client));
        trace.note("listen", shown(server.listen(8)));
        let fresh = tcp();
        trace.note("fresh", format!("{} {}", disconnect(&fresh), state(&fresh)));
        let unix = open(Domain::UNIX, Type::STREAM);
        trace.note("unix", format!("{} {}", disconnect(&unix), shown(unix.connect(&at(V4, 9)))));
    });
}

#[test]
fn time_wait_continues_after_a_close_with_unread_data() {
    same(async |trace| {
        for (is_unread, lingers) in [(false, false), (true, false), (false, true)] {
            let server = tcp();
            server.bind(&at(V4, 0)).unwrap();
            server.listen(8).unwrap();
            let client = tcp();
            client.bind(&at(V4, 0)).unwrap();
            let own = client.local_addr().unwrap();
            let _ = client.connect(&server.local_addr().unwrap());
            trace.settle().await;
            let (accepted, _) = server.accept().unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            if is_unread {
                send(&accepted);
            }
            trace.settle().await;
            drop(accepted);
            trace.settle().await;
            client.set_linger(lingers.then_some(Duration::ZERO)).unwrap();
            drop(client);
            trace.settle().await;
            trace.note("bind", shown(tcp().bind(&own)));
        }
    });
}

#[test]
fn tcp_socket_without_a_connection_has_nothing_queued() {
    same(async |trace| {
        for listens in [false, true] {
            let socket = tcp();
            if listens {
                socket.listen(8).unwrap();
            }
            for request in [libc::FIONREAD, libc::TIOCOUTQ] {
                let mut count = 7;
                // SAFETY: both requests take a pointer to an int.
                let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut count) };
                let result = if result < 0 { Err(io::Error::last_os_error()) } else { Ok(count) };
                trace.note("queued", shown(result));
            }
        }
    });
}

#[test]
fn trunc_discards_the_bytes_of_a_tcp_stream() {
    same(async |trace| {
        let (client, accepted) = pair(trace).await;
        client.send_vectored(&[io::IoSlice::new(b"0123456789")]).unwrap();
        trace.settle().await;
        let mut receive = |what: &str, flags| {
            let mut buf = [b'-'; 3].map(MaybeUninit::new);
            let result = accepted.recv_vectored_with_flags(&mut [MaybeUninitSlice::new(&mut buf)], flags);
            // SAFETY: the whole buffer is initialised.
            let buf = buf.map(|byte| char::from(unsafe { byte.assume_init() }));
            trace.note(what, shown(result.map(|(count, flags)| (count, flags.is_truncated(), buf))));
        };
        receive("peek", libc::MSG_PEEK | libc::MSG_TRUNC);
        receive("trunc", libc::MSG_TRUNC);
        receive("recv", 0);
        let mut discard = |count| {
            let (fd, none) = (accepted.as_raw_fd(), ptr::null_mut());
            let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
            // SAFETY: with this flag, the kernel does not use the buffer of a TCP socket.
            let result = unsafe { libc::recvfrom(fd, none, count, flags, ptr::null_mut(), ptr::null_mut()) };
            let result = if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
            trace.note("without a buffer", shown(result));
        };
        [2, 100, 100].into_iter().for_each(&mut discard);
    });
}

#[test]
fn calls_with_too_many_buffers_fail() {
    same(async |trace| {
        let (client, _accepted) = pair(trace).await;
        for count in [1024, 1025] {
            let bufs = vec![io::IoSlice::new(b"x"); count];
            trace.note("sendmsg", shown(client.send_vectored(&bufs)));
            // SAFETY: the buffers are valid, and have the representation of `iovec`.
            let result = unsafe { libc::writev(client.as_raw_fd(), bufs.as_ptr().cast(), count as i32) };
            let result = if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
            trace.note("writev", shown(result));
        }
    });
}

#[test]
fn poll_reports_normal_data_together_with_any_data() {
    same(async |trace| {
        let (client, accepted) = pair(trace).await;
        send(&client);
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        send(&one);
        let datagrams = udp();
        datagrams.bind(&at(V4, 0)).unwrap();
        datagrams.send_to(b"x", &datagrams.local_addr().unwrap()).unwrap();
        trace.settle().await;
        for socket in [&client, &accepted, &one, &other, &datagrams, &tcp()] {
            let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: !0, revents: 0 };
            // SAFETY: one valid entry.
            let count = unsafe { libc::poll(&raw mut entry, 1, 0) };
            trace.note("poll", format!("{count} {:#x}", entry.revents));
        }
    });
}

#[test]
fn connection_to_another_loopback_address_comes_from_127_0_0_1() {
    same(async |trace| {
        let other = Ipv4Addr::new(127, 9, 9, 9);
        let server = tcp();
        server.bind(&at(ANY, 0)).unwrap();
        server.listen(8).unwrap();
        let client = tcp();
        trace.note("connect", shown(client.connect(&at(other, local(&server).port()))));
        trace.settle().await;
        let (accepted, peer) = server.accept().unwrap();
        let ips = [local(&client), peer.as_socket().unwrap(), local(&accepted)].map(|addr| addr.ip());
        trace.note("addresses", format!("{ips:?}"));
        let (receiver, sender) = (udp(), udp());
        receiver.bind(&at(other, 0)).unwrap();
        sender.send_to(b"x", &receiver.local_addr().unwrap()).unwrap();
        trace.settle().await;
        let (_, from) = receiver.recv_from(&mut [MaybeUninit::uninit()]).unwrap();
        trace.note("sender", from.as_socket().unwrap().ip().to_string());
    });
}

#[test]
fn sockets_of_another_protocol_are_errors() {
    same(async |trace| {
        for protocol in [0, libc::PF_UNIX, 9] {
            let protocol = socket2::Protocol::from(protocol);
            for ty in [Type::STREAM, Type::DGRAM, Type::SEQPACKET] {
                let pair = Socket::pair(Domain::UNIX, ty, Some(protocol)).map(|_| ());
                let single = Socket::new(Domain::UNIX, ty, Some(protocol)).map(|_| ());
                trace.note("open", format!("{} {}", shown(pair), shown(single)));
            }
        }
    });
}

#[test]
fn socket_bound_after_a_failed_connect_keeps_its_error_and_port() {
    same(async |trace| {
        for calls in ["connect", "disconnect", "listen"] {
            let client = tcp();
            let _ = client.connect(&at(V4, free_port(Type::STREAM)));
            trace.settle().await;
            trace.note("bind", shown(client.bind(&at(V4, 0))));
            let result = match calls {
                "connect" => shown(client.connect(&at(V4, 9))),
                "disconnect" => disconnect(&client),
                _ => format!("{} {}", disconnect(&client), listen_after_connection(&client)),
            };
            trace.note(calls, result);
            trace.note("poll", ready(client.as_raw_fd()));
            trace.note("error", error(&client));
            trace.note("bind", shown(client.bind(&at(V4, 0))));
            let own = local(&client);
            trace.note("other", format!("{} {}", own.ip(), shown(tcp().bind(&at(V4, own.port())))));
        }
    });
}

#[test]
fn datagram_call_that_fails_binds_the_socket() {
    same(async |trace| {
        let sockets = [0; 4].map(|_| udp());
        trace.note("send", send(&sockets[0]));
        trace.note("send_to", shown(sockets[1].send_to(b"x", &at(V4, 0))));
        trace.note("connect", shown(sockets[2].connect(&at(Ipv6Addr::LOCALHOST, 9))));
        trace.note("recv", recv(&sockets[3]));
        let client = udp();
        client.connect(&at(V4, free_port(Type::DGRAM))).unwrap();
        for how in [None, Some(Shutdown::Write)] {
            how.map_or(Ok(()), |how| client.shutdown(how)).unwrap();
            trace.note("send", send(&client));
            trace.settle().await;
            for to in [at(V4, 0), at(Ipv6Addr::LOCALHOST, 9)] {
                trace.note("send_to", shown(client.send_to(b"x", &to)));
            }
            trace.note("send_to", shown(client.send_to(&vec![1; 70_000], &at(V4, 9))));
            trace.note("send", format!("{} {}", send(&client), send(&client)));
            trace.settle().await;
        }
        trace.note("disconnect", format!("{} {} {}", disconnect(&client), send(&client), error(&client)));
        for socket in &sockets {
            let own = local(socket);
            trace.note("bound", format!("{} {}", own.ip(), own.port() != 0));
        }
    });
}
