//! Calls after the end of a connection, after bind(2) or shutdown(2) has failed, and on further
//! descriptors of a socket. Other sequences call listen(2) on a port in use, and pass MSG_OOB to
//! sockets that have no urgent data.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use super::*;

fn listener() -> Socket {
    let server = tcp();
    server.bind(&at(V4, 0)).unwrap();
    server.listen(8).unwrap();
    server
}

/// Returns the address of a socket. In place of the port, the text has the word "own" if the port
/// is equal to `own`, and otherwise whether the port is not 0.
fn address(socket: &Socket, own: u16) -> String {
    let addr = local(socket);
    let port = if addr.port() == own { "own".to_owned() } else { (addr.port() != 0).to_string() };
    format!("{}:{port}", addr.ip())
}

/// Returns the numbers of bytes to read and of bytes not acknowledged.
fn queued(socket: &Socket) -> String {
    let counts = [libc::FIONREAD, libc::TIOCOUTQ].map(|request| {
        let mut count = 7;
        // SAFETY: both requests take a pointer to an int.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut count) };
        shown(if result < 0 { Err(io::Error::last_os_error()) } else { Ok(count) })
    });
    counts.join(" ")
}

/// The ways in which both ends of a connection are closed while the descriptor of one stays open.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The end that stays open has sent the first FIN and is in TIME-WAIT.
    First,
    /// The end that stays open has sent the last FIN.
    Last,
}

/// Returns a client whose connection has ended, and the client's port. The client has not read the
/// one byte that it received.
async fn ended(trace: &Trace, end: End, chooses_port: bool) -> (Socket, u16) {
    let server = listener();
    let client = tcp();
    if chooses_port {
        client.bind(&at(V4, free_port(Type::STREAM))).unwrap();
    }
    let _ = client.connect(&server.local_addr().unwrap());
    trace.settle().await;
    let (accepted, _) = server.accept().unwrap();
    let own = local(&client).port();
    send(&accepted);
    trace.settle().await;
    match end {
        End::First => {
            client.shutdown(Shutdown::Write).unwrap();
            trace.settle().await;
            drop(accepted);
        }
        End::Last => {
            drop(accepted);
            trace.settle().await;
            client.shutdown(Shutdown::Write).unwrap();
        }
    }
    trace.settle().await;
    (client, own)
}

#[test]
fn socket_whose_connection_has_ended_counts_as_closed() {
    same(async |trace| {
        for end in [End::First, End::Last] {
            for chooses_port in [false, true] {
                let (client, own) = ended(trace, end, chooses_port).await;
                trace.note(&format!("{end:?} {chooses_port}"), state(&client));
                trace.note("address", address(&client, own));
                trace.note("queued", queued(&client));
                trace.note("send", format!("{} {}", send(&client), error(&client)));
                trace.note("recv", format!("{} {} {}", recv(&client), recv(&client), recv(&client)));
                trace.note("queued", queued(&client));
                for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
                    trace.note("shutdown", shown(client.shutdown(how)));
                    trace.note("state", state(&client));
                }
                trace.note("listen", shown(client.listen(8)));
                trace.note("accept", shown(client.accept().map(|_| ())));
                trace.note(
                    "options",
                    format!("{} {}", shown(client.set_tcp_nodelay(true)), shown(client.tcp_nodelay())),
                );
                trace.note("other", shown(tcp().bind(&at(V4, own))));
                trace.note("send", format!("{} {}", send(&client), recv(&client)));
            }
        }
    });
}

#[test]
fn socket_whose_connection_has_ended_may_be_bound_again() {
    same(async |trace| {
        for end in [End::First, End::Last] {
            for chooses_port in [false, true] {
                let (client, own) = ended(trace, end, chooses_port).await;
                trace.note(&format!("{end:?} {chooses_port}"), shown(client.bind(&at(V4, own))));
                trace.note("address", address(&client, own));
                trace.note("bind", shown(client.bind(&at(V4, 0))));
                trace.note("address", address(&client, own));
                trace.note("option", shown(client.set_tcp_nodelay(true)));
                trace.note("bind", shown(client.bind(&at(V4, 0))));
                trace.note("state", state(&client));
                trace.note("recv", format!("{} {}", recv(&client), recv(&client)));
                let bound = local(&client).port();
                trace.note("listen", shown(client.listen(8)));
                let server = listener();
                for _ in 0..3 {
                    trace.note("connect", shown(client.connect(&server.local_addr().unwrap())));
                    trace.settle().await;
                    trace.note("address", address(&client, bound));
                    trace.note("state", state(&client));
                }
                trace.note("other", shown(tcp().bind(&at(V4, own))));
                drop(client);
                trace.note("other", shown(tcp().bind(&at(V4, own))));
            }
        }
    });
}

#[test]
fn socket_whose_connection_has_ended_may_be_disconnected() {
    same(async |trace| {
        for end in [End::First, End::Last] {
            for chooses_port in [false, true] {
                let (client, own) = ended(trace, end, chooses_port).await;
                trace.note(&format!("{end:?} {chooses_port}"), disconnect(&client));
                trace.note("address", address(&client, own));
                trace.note("state", format!("{} {}", state(&client), error(&client)));
                trace.note("recv", format!("{} {}", recv(&client), send(&client)));
                trace.note("bind", shown(client.bind(&at(V4, 0))));
                trace.note("address", address(&client, own));
                trace.note("listen", listen_after_connection(&client));
                trace.note("other", shown(tcp().bind(&at(V4, own))));
            }
        }
    });
}

#[test]
fn listen_needs_a_port_without_other_sockets() {
    same(async |trace| {
        for reuses in [false, true] {
            let (server, client) = (tcp(), tcp());
            server.set_reuse_address(reuses).unwrap();
            server.bind(&at(V4, free_port(Type::STREAM))).unwrap();
            server.listen(8).unwrap();
            let _ = client.connect(&server.local_addr().unwrap());
            trace.settle().await;
            let (accepted, _) = server.accept().unwrap();
            server.shutdown(Shutdown::Both).unwrap();
            trace.note(&format!("connected {reuses}"), shown(server.listen(8)));
            let second = tcp();
            second.set_reuse_address(true).unwrap();
            trace.note("bind", shown(second.bind(&server.local_addr().unwrap())));
            trace.note("listen", shown(second.listen(8)));
            trace.note("again", shown(server.listen(8)));
            drop(accepted);
            trace.settle().await;
            drop(client);
            trace.settle().await;
            trace.note("in TIME-WAIT", shown(server.listen(8)));
        }
    });
}

#[test]
fn bind_that_fails_removes_the_address() {
    same(async |trace| {
        let taken = listener();
        let port = local(&taken).port();
        let foreign = Ipv4Addr::new(192, 0, 2, 1);
        for ty in [Type::STREAM, Type::DGRAM] {
            let busy = open(Domain::IPV4, ty);
            busy.bind(&at(V4, 0)).unwrap();
            let port = local(&busy).port();
            let fresh = open(Domain::IPV4, ty);
            for to in [at(V4, port), at(foreign, 0), at(Ipv6Addr::LOCALHOST, 0)] {
                trace.note("bind", shown(fresh.bind(&to)));
                trace.note("address", address(&fresh, port));
                trace.note("state", state(&fresh));
            }
            trace.note("bind", shown(fresh.bind(&at(V4, 0))));
            trace.note("bind", shown(fresh.bind(&at(V4, port))));
            trace.note("address", address(&fresh, port));
            let six = open(Domain::IPV6, ty);
            let busy = open(Domain::IPV6, ty);
            busy.bind(&at(Ipv6Addr::LOCALHOST, 0)).unwrap();
            trace.note("bind", shown(six.bind(&at(Ipv6Addr::LOCALHOST, local(&busy).port()))));
            trace.note("address", address(&six, port));
        }
        for end in [End::First, End::Last] {
            let (client, own) = ended(trace, end, false).await;
            for to in [at(foreign, 0), at(Ipv6Addr::LOCALHOST, 0), at(V4, port)] {
                trace.note(&format!("bind {end:?}"), shown(client.bind(&to)));
                trace.note("address", address(&client, own));
                trace.note("state", state(&client));
            }
            let server = listener();
            for _ in 0..3 {
                trace.note("connect", shown(client.connect(&server.local_addr().unwrap())));
                trace.settle().await;
                trace.note("state", state(&client));
                trace.note("ip", local(&client).ip().to_string());
            }
        }
        let refused = tcp();
        let _ = refused.connect(&at(V4, free_port(Type::STREAM)));
        trace.settle().await;
        let own = local(&refused).port();
        trace.note("refused", format!("{} {}", error(&refused), address(&refused, own)));
        trace.note("bind", shown(refused.bind(&at(V4, port))));
        trace.note("address", address(&refused, own));
        trace.note("listen", listen_after_connection(&refused));
        let stopped = listener();
        let own = local(&stopped).port();
        stopped.shutdown(Shutdown::Both).unwrap();
        trace.note("bind", shown(stopped.bind(&at(V4, port))));
        trace.note("address", address(&stopped, own));
        trace.note("listen", shown(stopped.listen(8)));
        trace.note("ip", local(&stopped).ip().to_string());
    });
}

#[test]
fn shutdown_that_fails_shuts_down_the_next_connection() {
    same(async |trace| {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let (client, server) = (tcp(), listener());
            trace.note(&format!("{how:?}"), shown(client.shutdown(how)));
            trace.note("state", state(&client));
            trace.note("calls", format!("{} {} {}", recv(&client), send(&client), error(&client)));
            trace.note("connect", shown(client.connect(&server.local_addr().unwrap())));
            trace.settle().await;
            let (accepted, _) = server.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            trace.note("state", state(&client));
            trace.note("peer", state(&accepted));
            trace.note("calls", format!("{} {} {}", recv(&client), send(&client), error(&client)));
            trace.settle().await;
            trace.note("peer", format!("{} {}", recv(&accepted), send(&accepted)));
            trace.settle().await;
            trace.note("state", state(&client));
            trace.note("calls", format!("{} {}", recv(&client), recv(&client)));
            trace.note("shutdown", shown(client.shutdown(Shutdown::Write)));
            trace.settle().await;
            trace.note("peer", format!("{} {}", state(&accepted), recv(&accepted)));
            trace.note("state", state(&client));
            drop(accepted);
            trace.settle().await;
            trace.note("state", state(&client));
            trace.note("calls", format!("{} {}", recv(&client), send(&client)));
        }
    });
}

#[test]
fn shutdown_that_fails_has_an_effect_until_the_socket_is_disconnected() {
    same(async |trace| {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let client = tcp();
            trace.note(&format!("{how:?}"), shown(client.shutdown(how)));
            trace.note("disconnect", disconnect(&client));
            trace.note("state", state(&client));
            trace.note("calls", format!("{} {}", recv(&client), send(&client)));
            trace.note("shutdown", shown(client.shutdown(how)));
            let _ = client.connect(&at(V4, free_port(Type::STREAM)));
            trace.settle().await;
            trace.note("refused", state(&client));
            trace.note("connect", shown(client.connect(&at(V4, 9))));
            trace.note("state", state(&client));
            let server = listener();
            for _ in 0..2 {
                trace.note("connect", shown(client.connect(&server.local_addr().unwrap())));
                trace.settle().await;
            }
            trace.note("state", state(&client));
            // The handshake cannot complete, because the backlog is full.
            let (full, first, waiting) = (tcp(), tcp(), tcp());
            full.bind(&at(V4, 0)).unwrap();
            full.listen(0).unwrap();
            let _ = first.connect(&full.local_addr().unwrap());
            trace.settle().await;
            trace.note("shutdown", shown(waiting.shutdown(how)));
            trace.note("connect", shown(waiting.connect(&full.local_addr().unwrap())));
            trace.settle().await;
            trace.note("waiting", ready(waiting.as_raw_fd()));
            trace.note("calls", format!("{} {}", recv(&waiting), send(&waiting)));
        }
    });
}

#[test]
fn shutdown_that_fails_affects_a_listener() {
    same(async |trace| {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let server = tcp();
            trace.note(&format!("{how:?}"), shown(server.shutdown(how)));
            server.bind(&at(V4, 0)).unwrap();
            trace.note("state", state(&server));
            trace.note("listen", shown(server.listen(8)));
            trace.note("state", state(&server));
            trace.note("recv", recv(&server));
            let client = tcp();
            let _ = client.connect(&server.local_addr().unwrap());
            trace.settle().await;
            trace.note("state", state(&server));
            let (accepted, _) = server.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            trace.note("accepted", state(&accepted));
            trace.note("client", state(&client));
            for socket in [&client, &accepted] {
                trace.note("send", send(socket));
                trace.settle().await;
            }
            trace.note("calls", format!("{} {} {}", recv(&client), recv(&accepted), recv(&accepted)));
            trace.note("shutdown", shown(server.shutdown(Shutdown::Both)));
            trace.note("state", state(&server));
            trace.note("listen", shown(server.listen(8)));
            let client = tcp();
            let _ = client.connect(&server.local_addr().unwrap());
            trace.settle().await;
            let (accepted, _) = server.accept().unwrap();
            trace.note("accepted", state(&accepted));
        }
    });
}

fn fcntl(fd: RawFd, command: i32, argument: i32) -> io::Result<i32> {
    // SAFETY: the commands take an int.
    let result = unsafe { libc::fcntl(fd, command, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a call that returns a new descriptor, and closes the descriptor. Returns whether its
/// number is at least `least`, and its flags.
fn duplicate(fd: RawFd, command: i32, argument: i32, least: RawFd) -> String {
    let new = fcntl(fd, command, argument).map(|new| {
        // SAFETY: the call has returned this descriptor, and nothing else owns it.
        unsafe { OwnedFd::from_raw_fd(new) }
    });
    shown(new.map(|new| (new.as_raw_fd() >= least, shown(fcntl(new.as_raw_fd(), libc::F_GETFD, 0)))))
}

#[test]
fn further_descriptors_have_flags_of_their_own() {
    same(async |trace| {
        let socket = udp();
        let fd = socket.as_raw_fd();
        let flags = |fd| format!("{} {}", shown(fcntl(fd, libc::F_GETFD, 0)), shown(fcntl(fd, libc::F_GETFL, 0)));
        trace.note("new", flags(fd));
        for value in [0, 2, 3, libc::FD_CLOEXEC] {
            trace.note("set", format!("{} {}", shown(fcntl(fd, libc::F_SETFD, value)), flags(fd)));
        }
        let clone = socket.as_fd().try_clone_to_owned().unwrap();
        trace.note("clone", flags(clone.as_raw_fd()));
        fcntl(clone.as_raw_fd(), libc::F_SETFD, 0).unwrap();
        fcntl(clone.as_raw_fd(), libc::F_SETFL, 0).unwrap();
        trace.note("first", flags(fd));
        for command in [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC] {
            for argument in [0, 3, -1, i32::MIN, i32::MAX] {
                trace.note(&format!("{command} {argument}"), duplicate(fd, command, argument, 0));
            }
            for more in [1, 20] {
                trace.note(&format!("{command} {more} higher"), duplicate(fd, command, fd + more, fd + more));
            }
        }
        for flags in [0, libc::SOCK_CLOEXEC, libc::SOCK_NONBLOCK] {
            // SAFETY: no pointer is passed.
            let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | flags, 0) };
            assert!(fd >= 0);
            // SAFETY: the call has returned this descriptor, and nothing else owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            trace.note("socket", shown(fcntl(fd.as_raw_fd(), libc::F_GETFD, 0)));
            let mut pair = [0; 2];
            // SAFETY: there is room for two descriptors.
            assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | flags, 0, pair.as_mut_ptr()) }, 0);
            for fd in pair {
                // SAFETY: as above.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                trace.note("socketpair", shown(fcntl(fd.as_raw_fd(), libc::F_GETFD, 0)));
            }
            let (server, client) = (listener(), tcp());
            let _ = client.connect(&server.local_addr().unwrap());
            trace.settle().await;
            // SAFETY: null pointers stand for no address.
            let fd = unsafe { libc::accept4(server.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
            assert!(fd >= 0);
            // SAFETY: as above.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            trace.note("accept", shown(fcntl(fd.as_raw_fd(), libc::F_GETFD, 0)));
        }
        trace.note("unknown", shown(fcntl(fd, 77, 0)));
        drop((socket, clone));
        for command in [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD, 77] {
            trace.note("closed", shown(fcntl(i32::MAX, command, 0)));
        }
    });
}

#[test]
fn further_descriptors_keep_a_socket_open() {
    same(async |trace| {
        let (server, client) = (listener(), tcp());
        let _ = client.connect(&server.local_addr().unwrap());
        trace.settle().await;
        let (accepted, _) = server.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let clone = accepted.try_clone().unwrap();
        drop(accepted);
        trace.settle().await;
        trace.note("client", format!("{} {}", state(&client), recv(&client)));
        trace.note("clone", format!("{} {}", state(&clone), send(&clone)));
        trace.settle().await;
        trace.note("client", recv(&client));
        drop(clone);
        trace.settle().await;
        trace.note("client", format!("{} {}", state(&client), recv(&client)));
    });
}

#[test]
fn sockets_without_urgent_data_refuse_it() {
    same(async |trace| {
        let bound = || {
            let socket = udp();
            socket.bind(&at(V4, 0)).unwrap();
            socket
        };
        let (one, other) = (bound(), bound());
        let to = other.local_addr().unwrap();
        let take = |socket: &Socket, flags| shown(receive(socket, &mut [MaybeUninit::uninit(); 9], flags));
        trace.note("send_to", shown(one.send_to_with_flags(b"x", &to, libc::MSG_OOB)));
        trace.note("send", shown(udp().send_vectored_with_flags(&[io::IoSlice::new(b"x")], libc::MSG_OOB)));
        one.connect(&to).unwrap();
        trace.note("send", shown(one.send_vectored_with_flags(&[io::IoSlice::new(b"x")], libc::MSG_OOB)));
        trace.settle().await;
        trace.note("poll", format!("{} {}", ready(one.as_raw_fd()), ready(other.as_raw_fd())));
        trace.note("recv", take(&other, libc::MSG_OOB));
        send(&one);
        trace.settle().await;
        trace.note("recv", format!("{} {}", take(&other, libc::MSG_OOB), take(&other, libc::MSG_OOB)));
        let bound = udp();
        trace.note("send", shown(bound.send_to_with_flags(b"x", &to, libc::MSG_OOB)));
        trace.note("port", (local(&bound).port() != 0).to_string());
        for ty in [Type::DGRAM, Type::SEQPACKET] {
            let (one, other) = Socket::pair(Domain::UNIX, ty, None).unwrap();
            other.set_nonblocking(true).unwrap();
            trace.note("unix", shown(one.send_vectored_with_flags(&[io::IoSlice::new(b"x")], libc::MSG_OOB)));
            send(&one);
            trace.note("recv", take(&other, libc::MSG_OOB));
            trace.note("recv", take(&other, 0));
        }
        let (server, client) = (listener(), tcp());
        for socket in [&server, &client] {
            trace.note("tcp", take(socket, libc::MSG_OOB));
        }
        let _ = client.connect(&server.local_addr().unwrap());
        trace.settle().await;
        trace.note("connected", take(&client, libc::MSG_OOB));
    });
}
