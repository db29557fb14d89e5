//! Fixed sequences of system calls for cases that random sequences do not reach. The real kernel
//! and a simulation must give equal results. The sequences of the module `kinds` test the
//! differences between kinds of sockets, and those of `states` the differences between states of a
//! socket. The sequences of `ends` make calls after the end of a connection, after a call that
//! fails, and on further descriptors of a socket. Those of `full` use Unix sockets without room.
//! The modules `sequences` and `any_state` have random sequences.

mod any_state;
mod ends;
mod full;
mod kinds;
mod sequences;
mod states;

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use std::{io, ptr};

use netpoll::sim::{Sim, ms};
use netpoll::task;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Draw, compare, difference, in_kernel, lasting_difference, listen_after_connection, receive, shown};

const V4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// The results of a program.
struct Trace {
    /// The time after which the network of the real kernel is likely to be quiet, or `None` in a
    /// simulation.
    pause: Option<Duration>,
    lines: Vec<String>,
}

impl Trace {
    fn note(&mut self, what: &str, result: impl Into<String>) {
        self.lines.push(format!("{what}: {}", result.into()));
    }

    /// Waits until the network is likely to be quiet.
    async fn settle(&self) {
        match self.pause {
            Some(pause) => std::thread::sleep(pause),
            None => task::sleep(ms(20)).await,
        }
    }
}

/// Runs a program in the real kernel and in a simulation, and compares the results. See
/// [`PATIENCE`](super::PATIENCE).
fn same(program: impl AsyncFn(&mut Trace) + Copy + Send + 'static) {
    let differs = |patience| {
        let mut real = Trace { pause: Some(patience * Duration::from_millis(2)), lines: Vec::new() };
        in_kernel(program(&mut real));
        let simulated = Sim::run(1, async move |sim| {
            let mut trace = Trace { pause: None, lines: Vec::new() };
            program(&mut trace).await;
            trace.lines.extend(sim.refusals());
            trace.lines
        });
        difference(&real.lines, &simulated)
    };
    if let Some(difference) = lasting_difference(differs) {
        panic!("{difference}");
    }
}

fn open(domain: Domain, ty: Type) -> Socket {
    let socket = Socket::new(domain, ty, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn tcp() -> Socket {
    open(Domain::IPV4, Type::STREAM)
}

fn udp() -> Socket {
    open(Domain::IPV4, Type::DGRAM)
}

fn at(ip: impl Into<std::net::IpAddr>, port: u16) -> SockAddr {
    SocketAddr::new(ip.into(), port).into()
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// Returns a port that is free.
fn free_port(ty: Type) -> u16 {
    let socket = open(Domain::IPV4, ty);
    socket.bind(&at(ANY, 0)).unwrap();
    local(&socket).port()
}

/// Returns the bits that poll(2) reports.
fn ready(fd: RawFd) -> String {
    let mut entry = libc::pollfd { fd, events: !0, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut entry, 1, 0) };
    let bits = libc::POLLIN | libc::POLLOUT | libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP | libc::POLLNVAL;
    format!("{:#x}", entry.revents & bits)
}

/// Returns the readiness of a socket, and whether it has a peer.
fn state(socket: &Socket) -> String {
    format!("{} {}", ready(socket.as_raw_fd()), shown(socket.peer_addr().map(|_| ())))
}

fn error(socket: &Socket) -> String {
    shown(socket.take_error().map(|error| error.and_then(|error| error.raw_os_error())))
}

fn send(socket: &Socket) -> String {
    shown(socket.send_vectored(&[io::IoSlice::new(b"x")]))
}

fn recv(socket: &Socket) -> String {
    shown(receive(socket, &mut [MaybeUninit::uninit()], 0))
}

/// Calls connect(2) with an address of the family AF_UNSPEC.
fn disconnect(socket: &Socket) -> String {
    let none = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the address is valid for its length.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const none, size_of::<libc::sockaddr>() as u32) };
    shown(if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) })
}

#[test]
fn poll_accepts_negative_and_real_descriptors() {
    same(async |trace| {
        let mut pipe = [0; 2];
        // SAFETY: there is room for two descriptors. The call is not replaced, so they are real in
        // a simulation too.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        let (one, _other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let mut entries = [-1, pipe[1], pipe[0], one.as_raw_fd()].map(|fd| libc::pollfd { fd, events: !0, revents: 7 });
        // SAFETY: four valid entries.
        let count = unsafe { libc::poll(entries.as_mut_ptr(), 4, 0) };
        let bits = entries.map(|entry| entry.revents & (libc::POLLIN | libc::POLLOUT | libc::POLLNVAL));
        trace.note("poll", format!("{count} {bits:?}"));
        for fd in pipe {
            // SAFETY: the descriptor is open, and nothing else uses it.
            unsafe { libc::close(fd) };
        }
    });
}

/// Sets an option, and returns its value afterwards.
fn set(socket: &Socket, level: i32, name: i32, value: &[u8]) -> io::Result<i32> {
    let (fd, length) = (socket.as_raw_fd(), value.len() as libc::socklen_t);
    // SAFETY: the value is valid for its length.
    if unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut got, mut length) = (0_i32, 4);
    // SAFETY: there is room for an int.
    match unsafe { libc::getsockopt(fd, level, name, (&raw mut got).cast(), &raw mut length) } {
        0 => Ok(got),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn options_have_the_limits_of_the_kernel() {
    same(async |trace| {
        let values = [-2, -1, 0, 1, 255, 256, 300];
        for (level, name) in [
            (libc::IPPROTO_IP, libc::IP_TTL),
            (libc::IPPROTO_IP, libc::IP_TOS),
            (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL),
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
            (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        ] {
            let domain = if level == libc::IPPROTO_IP { Domain::IPV4 } else { Domain::IPV6 };
            let socket = open(domain, Type::DGRAM);
            for value in values {
                let set = set(&socket, level, name, &i32::to_ne_bytes(value));
                trace.note(&format!("{level} {name} {value}"), shown(set));
            }
        }
        for (level, name) in [
            (libc::IPPROTO_IP, libc::IP_TTL),
            (libc::IPPROTO_IP, libc::IP_TOS),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            (libc::SOL_SOCKET, libc::SO_RCVBUF),
            (libc::SOL_SOCKET, libc::SO_PRIORITY),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY),
        ] {
            for value in [&b"\x04"[..], b"\x04\0", b"\x04\0\0"] {
                trace.note(&format!("{level} {name} {value:?}"), shown(set(&tcp(), level, name, value)));
            }
        }
        let v6 = open(Domain::IPV6, Type::DGRAM);
        for name in [libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS, libc::IPV6_V6ONLY] {
            trace.note(&format!("v6 {name}, a byte"), shown(set(&v6, libc::IPPROTO_IPV6, name, b"\x04")));
        }
        for name in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
            // The maximum depends on net.core.rmem_max or net.core.wmem_max.
            let set = set(&tcp(), libc::SOL_SOCKET, name, &i32::to_ne_bytes(-1));
            trace.note(&format!("buffer {name}"), shown(set.map(|value| value >= 212_992)));
        }
    });
}

#[test]
fn listener_that_was_shut_down_keeps_an_explicit_port() {
    same(async |trace| {
        for (is_explicit, ip, how) in [
            (true, V4, Shutdown::Read),
            (true, ANY, Shutdown::Both),
            (false, V4, Shutdown::Both),
            (false, ANY, Shutdown::Read),
        ] {
            let listener = tcp();
            listener.bind(&at(ip, if is_explicit { free_port(Type::STREAM) } else { 0 })).unwrap();
            listener.listen(8).unwrap();
            let own = local(&listener);
            let client = tcp();
            let _ = client.connect(&at(V4, own.port()));
            trace.settle().await;
            trace.note("shutdown", shown(listener.shutdown(how)));
            trace.settle().await;
            trace.note("address stays", (local(&listener) == own).to_string());
            trace.note("poll", ready(listener.as_raw_fd()));
            trace.note("client", error(&client));
            trace.note("accept", shown(listener.accept().map(|_| ())));
            for _ in 0..2 {
                let other = tcp();
                trace.note("other", shown(other.bind(&at(V4, own.port()))));
                drop(other);
                trace.note("bind", shown(listener.bind(&at(ip, 0))));
            }
            trace.note("listen", shown(listener.listen(8)));
            trace.note("same port", (local(&listener) == own).to_string());
            trace.note("other", shown(tcp().bind(&at(V4, local(&listener).port()))));
            let client = tcp();
            let _ = client.connect(&at(V4, local(&listener).port()));
            trace.settle().await;
            trace.note("accept", shown(listener.accept().map(|_| ())));
            trace.note("again", format!("{:?}", [0; 2].map(|_| shown(listener.shutdown(how)))));
        }
    });
}

#[test]
fn listener_without_an_explicit_port_gets_another_after_shutdown() {
    same(async |trace| {
        for ip in [None, Some(V4)] {
            let listener = tcp();
            ip.map_or(Ok(()), |ip| listener.bind(&at(ip, 0))).unwrap();
            listener.listen(8).unwrap();
            let own = local(&listener);
            listener.shutdown(Shutdown::Both).unwrap();
            let other = tcp();
            trace.note("other", shown(other.bind(&at(ANY, own.port()))));
            trace.note("listen", shown(listener.listen(8)));
            trace.note("ip", local(&listener).ip().to_string());
            trace.note("same port", (local(&listener).port() == own.port()).to_string());
            let client = tcp();
            let _ = client.connect(&at(V4, local(&listener).port()));
            trace.settle().await;
            trace.note("accept", shown(listener.accept().map(|_| ())));
        }
    });
}

#[test]
fn unix_listener_that_was_shut_down_keeps_its_name() {
    same(async |trace| {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let unix = || open(Domain::UNIX, Type::STREAM);
            let name = SockAddr::unix(format!("\0netpoll-{}-{how:?}", std::process::id())).unwrap();
            let (listener, waiting) = (unix(), unix());
            listener.bind(&name).unwrap();
            listener.listen(8).unwrap();
            waiting.connect(&name).unwrap();
            trace.note("shutdown", shown(listener.shutdown(how)));
            trace.note("poll", ready(listener.as_raw_fd()));
            trace.note("waiting", format!("{} {} {}", ready(waiting.as_raw_fd()), send(&waiting), recv(&waiting)));
            for _ in 0..2 {
                let late = unix();
                trace.note("connect", shown(late.connect(&name)));
                trace.note("accept", format!("{:?}", [0; 3].map(|_| shown(listener.accept().map(|_| ())))));
                trace.note("poll", ready(listener.as_raw_fd()));
                trace.note("bind", shown(unix().bind(&name)));
                trace.note("listen", shown(listener.listen(8)));
            }
        }
    });
}

#[test]
fn connect_after_a_failed_one_uses_the_addresses_of_bind() {
    same(async |trace| {
        for bound in [None, Some((V4, true)), Some((ANY, true)), Some((V4, false)), Some((ANY, false))] {
            let client = tcp();
            if let Some((ip, is_explicit)) = bound {
                client.bind(&at(ip, if is_explicit { free_port(Type::STREAM) } else { 0 })).unwrap();
            }
            let _ = client.connect(&at(V4, free_port(Type::STREAM)));
            trace.settle().await;
            let own = local(&client);
            trace.note("error", error(&client));
            let other = tcp();
            trace.note("other", shown(other.bind(&at(V4, own.port()))));
            trace.note("listen", shown(client.listen(8)));
            let server = tcp();
            server.bind(&at(V4, 0)).unwrap();
            server.listen(8).unwrap();
            trace.note("connect", shown(client.connect(&at(V4, local(&server).port()))));
            trace.note("ip", local(&client).ip().to_string());
            trace.note("poll", ready(client.as_raw_fd()));
            trace.note("connect", shown(client.connect(&at(V4, local(&server).port()))));
            trace.settle().await;
            trace.note("peer", shown(client.peer_addr().map(|peer| peer.as_socket() == Some(local(&server)))));
            if bound.is_some_and(|(_, is_explicit)| is_explicit) {
                trace.note("same port", (local(&client).port() == own.port()).to_string());
            }
        }
    });
}

#[test]
fn socket_whose_connection_failed_may_be_bound_again() {
    same(async |trace| {
        for is_explicit in [true, false] {
            let client = tcp();
            client.bind(&at(V4, if is_explicit { free_port(Type::STREAM) } else { 0 })).unwrap();
            let _ = client.connect(&at(V4, free_port(Type::STREAM)));
            trace.settle().await;
            trace.note("error", error(&client));
            trace.note("bind", shown(client.bind(&at(V4, 0))));
        }
    });
}

#[test]
fn shutdown_ends_an_attempt_to_connect() {
    same(async |trace| {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let server = tcp();
            server.bind(&at(V4, 0)).unwrap();
            server.listen(0).unwrap();
            let (first, client) = (tcp(), tcp());
            let _ = first.connect(&at(V4, local(&server).port()));
            trace.settle().await;
            // The backlog is full, so the SYN of the second client is not answered.
            let _ = client.connect(&at(V4, local(&server).port()));
            trace.settle().await;
            trace.note("shutdown", shown(client.shutdown(how)));
            trace.note("poll", ready(client.as_raw_fd()));
            match how {
                Shutdown::Read => trace.note("recv", format!("{} {}", recv(&client), recv(&client))),
                Shutdown::Write => trace.note("send", format!("{} {}", send(&client), send(&client))),
                Shutdown::Both => {}
            }
            trace.note("ip", local(&client).ip().to_string());
            trace.note("peer", shown(client.peer_addr().map(|_| ())));
            server.accept().unwrap();
            trace.note("connect", shown(client.connect(&at(V4, local(&server).port()))));
            trace.settle().await;
            trace.note("error", error(&client));
            trace.note("peer", shown(client.peer_addr().map(|_| ())));
        }
    });
}

#[test]
fn mapped_wildcard_address_is_reported_as_it_was_bound() {
    same(async |trace| {
        let mapped = ANY.to_ipv6_mapped();
        let listener = open(Domain::IPV6, Type::STREAM);
        listener.bind(&at(mapped, 0)).unwrap();
        listener.listen(8).unwrap();
        trace.note("ip", local(&listener).ip().to_string());
        for (ip, is_only_v6) in [(Ipv6Addr::UNSPECIFIED, false), (Ipv6Addr::UNSPECIFIED, true), (mapped, false)] {
            let other = open(Domain::IPV6, Type::STREAM);
            other.set_only_v6(is_only_v6).unwrap();
            trace.note("bind", shown(other.bind(&at(ip, local(&listener).port()))));
        }
        trace.note("bind", shown(tcp().bind(&at(ANY, local(&listener).port()))));
        let client = tcp();
        let _ = client.connect(&at(V4, local(&listener).port()));
        trace.settle().await;
        let (server, peer) = listener.accept().unwrap();
        trace.note("ips", format!("{:?} {:?}", local(&server).ip(), peer.as_socket().unwrap().ip()));
    });
}

#[test]
fn datagram_socket_without_a_peer_has_the_address_of_bind() {
    same(async |trace| {
        for bound in [None, Some((V4, true)), Some((ANY, true)), Some((V4, false)), Some((ANY, false))] {
            let socket = udp();
            if let Some((ip, is_explicit)) = bound {
                socket.bind(&at(ip, if is_explicit { free_port(Type::DGRAM) } else { 0 })).unwrap();
            }
            let peer = udp();
            peer.bind(&at(V4, 0)).unwrap();
            socket.connect(&peer.local_addr().unwrap()).unwrap();
            let own = local(&socket);
            trace.note("ip", own.ip().to_string());
            trace.note("disconnect", disconnect(&socket));
            let now = local(&socket);
            trace.note("ip", format!("{} {} {}", now.ip(), now.port() == own.port(), now.port() == 0));
            trace.note("send", send(&socket));
            trace.note("other", shown(udp().bind(&at(V4, own.port()))));
            trace.note("send_to", shown(socket.send_to(b"x", &peer.local_addr().unwrap())));
            trace.settle().await;
            trace.note("recv", recv(&peer));
            let now = local(&socket);
            trace.note("ip", format!("{} {}", now.ip(), now.port() != 0));
            trace.note("bind", shown(socket.bind(&at(V4, 0))));
        }
    });
}

#[test]
fn datagram_socket_forgets_a_unix_peer_that_was_closed() {
    same(async |trace| {
        let unix = || open(Domain::UNIX, Type::DGRAM);
        for fills in [false, true] {
            let name = SockAddr::unix(format!("\0netpoll-{}-{fills}", std::process::id())).unwrap();
            let (socket, peer) = (unix(), unix());
            peer.bind(&name).unwrap();
            socket.connect(&name).unwrap();
            trace.note("send", send(&socket));
            let own = SockAddr::unix(format!("\0netpoll-{}-{fills}-own", std::process::id())).unwrap();
            socket.bind(&own).unwrap();
            trace.note("send_to", shown(peer.send_to(b"x", &own)));
            while fills && send(&socket) == "1" {}
            trace.note("poll", ready(socket.as_raw_fd()));
            drop(peer);
            trace.note("poll", ready(socket.as_raw_fd()));
            for _ in 0..3 {
                trace.note("peer", shown(socket.peer_addr().map(|_| ())));
                trace.note("send", send(&socket));
            }
            trace.note("recv", recv(&socket));
        }
    });
}

#[test]
fn control_messages_that_fit_are_returned() {
    same(async |trace| {
        let (socket, sender) = (udp(), udp());
        socket.bind(&at(V4, 0)).unwrap();
        for name in [libc::IP_PKTINFO, libc::IP_RECVTTL, libc::IP_RECVTOS] {
            set(&socket, libc::IPPROTO_IP, name, &i32::to_ne_bytes(1)).unwrap();
        }
        for room in 0..100 {
            sender.send_to(b"x", &socket.local_addr().unwrap()).unwrap();
            trace.settle().await;
            let (mut byte, mut control) = (0_u8, [0_u64; 16]);
            let mut buf = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            // SAFETY: plain data for which all zeroes is a valid value.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            (message.msg_iov, message.msg_iovlen) = (&raw mut buf, 1);
            (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), room);
            // SAFETY: the message and the buffers in it are valid.
            let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
            let mut headers = Vec::new();
            // SAFETY: the message is valid, and so is its control data.
            let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
            // SAFETY: the pointer is null, or that of a header within the control data.
            while let Some(header) = unsafe { next.as_ref() } {
                headers.push((header.cmsg_len, header.cmsg_level, header.cmsg_type));
                // SAFETY: as above.
                next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
            }
            let (length, flags) = (message.msg_controllen, message.msg_flags);
            trace.note(&format!("room for {room}"), format!("{count} {length} {flags:#x} {headers:?}"));
        }
    });
}

/// Calls getaddrinfo(3), and returns its result.
fn resolve(host: Option<&std::ffi::CStr>, service: Option<&std::ffi::CStr>, family: i32, flags: i32) -> i32 {
    // SAFETY: plain data for which all zeroes is a valid value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    (hints.ai_family, hints.ai_flags, hints.ai_socktype) = (family, flags, libc::SOCK_STREAM);
    let (host, service) =
        (host.map_or(ptr::null(), |name| name.as_ptr()), service.map_or(ptr::null(), |name| name.as_ptr()));
    let mut list = ptr::null_mut();
    // SAFETY: the arguments are null or valid.
    let code = unsafe { libc::getaddrinfo(host, service, &raw const hints, &raw mut list) };
    if code == 0 {
        // SAFETY: the call has returned this list.
        unsafe { libc::freeaddrinfo(list) };
    }
    code
}

#[test]
fn arguments_of_lookups_have_the_errors_of_the_c_library() {
    same(async |trace| {
        for flags in [0, libc::AI_PASSIVE] {
            for family in [libc::AF_UNSPEC, libc::AF_INET, libc::AF_UNIX, 77, -1] {
                for (host, service) in [(None, None), (None, Some(c"80")), (Some(c"127.0.0.1"), None)] {
                    let code = resolve(host, service, family, flags);
                    trace.note(&format!("{host:?} {service:?} {family} {flags}"), code.to_string());
                }
            }
        }
        for host in [c"localhost", c"LOCALHOST"] {
            trace.note("localhost", resolve(Some(host), Some(c"80"), libc::AF_INET, 0).to_string());
        }
    });
}

#[test]
fn numeric_names_have_the_errors_of_the_c_library() {
    same(async |trace| {
        for flags in [0, libc::AI_NUMERICHOST, libc::AI_NUMERICSERV, libc::AI_NUMERICHOST | libc::AI_NUMERICSERV] {
            for family in [libc::AF_UNSPEC, libc::AF_INET, libc::AF_INET6, 77] {
                for host in [None, Some(c""), Some(c"127.0.0.1"), Some(c"::1"), Some(c"nobody.invalid")] {
                    for service in [None, Some(c"80"), Some(c""), Some(c"no-such-service")] {
                        // The real resolver may need the network.
                        if host != Some(c"nobody.invalid") || flags & libc::AI_NUMERICHOST != 0 {
                            let code = resolve(host, service, family, flags);
                            trace.note(&format!("{host:?} {service:?} {family} {flags:#x}"), code.to_string());
                        }
                    }
                }
            }
        }
        let code = resolve(Some(c"localhost"), None, libc::AF_INET, libc::AI_NUMERICHOST);
        trace.note("localhost", code.to_string());
    });
}

#[test]
fn clocks_of_threads_measure_cpu_time() {
    same(async |trace| {
        let (mut of_thread, mut of_process) = (0, 0);
        // SAFETY: the call has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: this thread is alive, and there is room for the number.
        assert_eq!(unsafe { libc::pthread_getcpuclockid(thread, &raw mut of_thread) }, 0);
        // SAFETY: there is room for the number.
        assert_eq!(unsafe { libc::clock_getcpuclockid(0, &raw mut of_process) }, 0);
        for clock in [of_thread, of_process, libc::CLOCK_THREAD_CPUTIME_ID] {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: there is room for the time.
            let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
            // The monotonic clock of a simulation begins at 100 days.
            trace.note("clock", format!("{result} {}", time.tv_sec < 50 * 86_400));
        }
    });
}

#[test]
fn sleeps_of_invalid_length_fail() {
    same(async |trace| {
        for (tv_sec, tv_nsec) in [(0, 1), (0, 1_000_000_000), (0, -1), (-1, 0), (i64::MIN, i64::MAX)] {
            let time = libc::timespec { tv_sec: tv_sec as _, tv_nsec: tv_nsec as _ };
            // SAFETY: the time is valid for the call.
            let plain = unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
            let errno = (plain < 0).then(|| std::io::Error::last_os_error().raw_os_error());
            let by_clock = [0, libc::TIMER_ABSTIME].map(|flags| {
                // SAFETY: the time is valid for the call.
                unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, flags, &raw const time, std::ptr::null_mut()) }
            });
            let results = (plain, errno, by_clock);
            trace.note("sleep", format!("{tv_sec} {tv_nsec}: {results:?}"));
        }
    });
}
