//! Compares the simulated kernel with the real kernel (feature `sim`). Random sequences of system
//! calls, drawn from seeds, are made in the real kernel and in a simulation. All results must be
//! equal: counts, bytes, errors, readiness, options. The tests avoid the differences that
//! docs/SIMULATION.md lists. The module `programs` has fixed sequences, and random sequences of
//! calls on TCP sockets in any state.
//!
//! `NETPOLL_DIFFERENTIAL=n` sets the number of random sequences of each kind (default 20).

#[path = "sim_differential/programs.rs"]
mod programs;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::LazyLock;
use std::time::Duration;

use netpoll::sim::{Sim, ms};
use netpoll::task;
use socket2::{Domain, MaybeUninitSlice, SockAddr, Socket, Type};

/// A source of random numbers (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    TcpV6,
    Udp,
    UnixStream,
    UnixDatagram,
    UnixPackets,
}

/// The sockets of a sequence by index, and the results so far.
struct Player {
    kind: Kind,
    sockets: Vec<Option<Socket>>,
    trace: Vec<String>,
    /// The address of the TCP listener, or `None` for other kinds.
    addr: Option<SocketAddr>,
    /// The number of bytes passed so far to calls that send. It is limited, so that the buffers of
    /// both kernels never fill.
    sent: usize,
}

/// Returns the text of a result, which is the value or the errno.
fn shown<T: Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or_default()),
    }
}

impl Player {
    fn new(kind: Kind) -> Player {
        Player { kind, sockets: Vec::new(), trace: Vec::new(), addr: None, sent: 0 }
    }

    fn note(&mut self, what: &str, result: String) {
        self.trace.push(format!("{what}: {result}"));
    }

    fn open(&self) -> io::Result<Socket> {
        let (domain, ty) = match self.kind {
            Kind::Tcp => (Domain::IPV4, Type::STREAM),
            Kind::TcpV6 => (Domain::IPV6, Type::STREAM),
            Kind::Udp => (Domain::IPV4, Type::DGRAM),
            Kind::UnixStream => (Domain::UNIX, Type::STREAM),
            Kind::UnixDatagram => (Domain::UNIX, Type::DGRAM),
            Kind::UnixPackets => (Domain::UNIX, Type::SEQPACKET),
        };
        let socket = Socket::new(domain, ty, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn loopback(&self) -> SockAddr {
        match self.kind {
            Kind::TcpV6 => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)).into(),
            _ => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.kind {
            Kind::Tcp | Kind::TcpV6 => {
                let listener = self.open()?;
                listener.bind(&self.loopback())?;
                listener.listen(8)?;
                self.addr = listener.local_addr()?.as_socket();
                self.sockets = vec![Some(listener), None, None, None];
            }
            Kind::Udp => {
                for _ in 0..3 {
                    let socket = self.open()?;
                    socket.bind(&self.loopback())?;
                    self.sockets.push(Some(socket));
                }
            }
            _ => {
                let ty = match self.kind {
                    Kind::UnixStream => Type::STREAM,
                    Kind::UnixDatagram => Type::DGRAM,
                    _ => Type::SEQPACKET,
                };
                let (one, other) = Socket::pair(Domain::UNIX, ty, None)?;
                one.set_nonblocking(true)?;
                other.set_nonblocking(true)?;
                self.sockets = vec![Some(one), Some(other)];
            }
        }
        Ok(())
    }

    fn is_tcp(&self) -> bool {
        matches!(self.kind, Kind::Tcp | Kind::TcpV6)
    }

    /// Makes a randomly chosen call on a randomly chosen socket and records the result. If the
    /// socket is not open, connects or accepts another for TCP, and does nothing for other kinds.
    fn step(&mut self, draw: &mut Draw) {
        let place = draw.below(self.sockets.len() as u64) as usize;
        let (call, argument) = (draw.below(14), draw.below(600) as usize);
        let byte = draw.below(256) as u8;
        if self.is_tcp() && place > 0 && self.sockets[place].is_none() {
            return if call < 8 || place == 1 { self.connect(place) } else { self.accept(place) };
        }
        let Some(socket) = &self.sockets[place] else { return };
        let is_listener = self.is_tcp() && place == 0;
        let mut buf = [MaybeUninit::uninit(); 700];
        let filled = |buf: &[MaybeUninit<u8>], count: usize| -> Vec<u8> {
            // SAFETY: the call has written `count` bytes.
            buf[..count].iter().map(|byte| unsafe { byte.assume_init() }).collect()
        };
        let (what, result) = match call {
            0..=2 if self.sent < 20_000 => {
                self.sent += argument + 1;
                ("send", shown(socket.send_vectored(&[IoSlice::new(&vec![byte; argument + 1])])))
            }
            3..=5 => {
                let result = receive(socket, &mut buf[..argument + 1], 0);
                ("recv", shown(result.map(|count| filled(&buf, count))))
            }
            6 => {
                let result = receive(socket, &mut buf[..argument + 1], libc::MSG_PEEK);
                ("peek", shown(result.map(|count| filled(&buf, count))))
            }
            7 if !is_listener => {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][argument % 3];
                // Data that arrives after both directions were shut down resets the connection, and
                // the two kernels send this reset at different times.
                let how = if self.is_tcp() { Shutdown::Write } else { how };
                ("shutdown", format!("{how:?} {}", shown(socket.shutdown(how))))
            }
            8 if argument.is_multiple_of(4) && !is_listener => {
                self.sockets[place] = None;
                ("close", "()".to_owned())
            }
            9 => ("take_error", shown(socket.take_error().map(|error| error.and_then(|error| error.raw_os_error())))),
            10 => ("peer_addr", shown(socket.peer_addr().map(|_| ()))),
            11 => {
                let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: !0, revents: 0 };
                // SAFETY: one valid entry.
                let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
                let bits = [
                    (libc::POLLIN, "in"),
                    (libc::POLLOUT, "out"),
                    (libc::POLLHUP, "hup"),
                    (libc::POLLERR, "err"),
                    (libc::POLLRDHUP, "rdhup"),
                ];
                let set: Vec<_> =
                    bits.iter().filter(|(bit, _)| entry.revents & bit != 0).map(|(_, name)| *name).collect();
                ("poll", format!("{} {set:?}", ready >= 0))
            }
            12 if self.kind == Kind::Udp => {
                let to = argument % self.sockets.len();
                let addr = self.sockets[to].as_ref().and_then(|socket| socket.local_addr().ok());
                match addr {
                    Some(addr) if argument.is_multiple_of(5) => ("connect", shown(socket.connect(&addr))),
                    Some(addr) => {
                        self.sent += 10;
                        ("send_to", shown(socket.send_to(&[byte; 10], &addr)))
                    }
                    // No socket is bound to this port, so a later send causes an error, which
                    // arrives before the next call.
                    None => ("connect", shown(socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, 9)).into()))),
                }
            }
            _ => ("options", options(socket, byte, self.is_tcp())),
        };
        self.note(&format!("{place} {what}"), result);
    }

    fn connect(&mut self, place: usize) {
        let (Some(addr), Ok(socket)) = (self.addr, self.open()) else { return };
        // EINPROGRESS counts as success, because the handshake may end within the call or after it.
        let result = match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
            result => result,
        };
        self.note(&format!("{place} connect"), shown(result));
        self.sockets[place] = Some(socket);
    }

    fn accept(&mut self, place: usize) {
        let accepted = self.sockets[0].as_ref().map(Socket::accept);
        let Some(accepted) = accepted else { return };
        self.note(&format!("{place} accept"), shown(accepted.as_ref().map(|_| ()).map_err(copy)));
        if let Ok((socket, _)) = accepted {
            let _ = socket.set_nonblocking(true);
            self.sockets[place] = Some(socket);
        }
    }
}

/// Calls recvmsg(2), because a simulation does not replace recv(2).
fn receive(socket: &Socket, buf: &mut [MaybeUninit<u8>], flags: i32) -> io::Result<usize> {
    socket.recv_vectored_with_flags(&mut [MaybeUninitSlice::new(buf)], flags).map(|(count, _)| count)
}

/// Returns an error with the same errno, because `io::Error` cannot be cloned.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Sets an option and reads it back. Some options are only read.
fn options(socket: &Socket, byte: u8, is_tcp: bool) -> String {
    let on = byte.is_multiple_of(2);
    match byte % 8 {
        0 => format!("nodelay {} {}", shown(socket.set_tcp_nodelay(on)), shown(socket.tcp_nodelay())),
        1 => format!("keepalive {} {}", shown(socket.set_keepalive(on)), shown(socket.keepalive())),
        2 => {
            let linger = on.then(|| Duration::from_secs(u64::from(byte) + 1));
            // The two kernels close a lingering connection at different times.
            let set = socket.set_linger(linger);
            let text = format!("linger {} {}", shown(set), shown(socket.linger()));
            let _ = socket.set_linger(None);
            text
        }
        3 => format!("reuse {} {}", shown(socket.set_reuse_address(on)), shown(socket.reuse_address())),
        4 if is_tcp => format!(
            "user timeout {} {}",
            // The timeout is longer than the sequence, whose pauses are longer in a simulation.
            shown(socket.set_tcp_user_timeout(Some(ms(10_000 + u64::from(byte) * 100)))),
            shown(socket.tcp_user_timeout())
        ),
        5 => format!("buffer {} {}", shown(socket.set_recv_buffer_size(40_000)), shown(socket.recv_buffer_size())),
        6 => format!("type {} {}", shown(socket.r#type()), shown(socket.domain())),
        _ => format!("nonblocking {}", shown(socket.nonblocking())),
    }
}

/// Whether listen(2) on a TCP socket whose connection has ended, or whose connect(2) was refused,
/// fails in this kernel, as it does in a simulation. It fails on Linux 6.18.44, but not on all
/// earlier versions.
static REFUSES_SECOND_ROLE: LazyLock<bool> = LazyLock::new(|| {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.connect(&bound.local_addr().unwrap()).unwrap_err();
    socket.listen(8).is_err()
});

/// Calls listen(2) on a TCP socket that may have had a connection, or a refused attempt at one.
/// Makes no call if the kernel would permit it; see [`REFUSES_SECOND_ROLE`].
fn listen_after_connection(socket: &Socket) -> String {
    if *REFUSES_SECOND_ROLE { shown(socket.listen(8)) } else { "left out".to_owned() }
}

/// Runs `program` in the real kernel, if possible in a network namespace of this thread alone, in
/// which no other program takes a port or fills the table of connections in TIME-WAIT.
fn in_kernel<F: Future>(program: F) -> F::Output {
    thread_local! {
        static NETWORK: () = enter_network();
    }
    NETWORK.with(|()| ());
    // The value is computed here, outside a simulation, because it needs real sockets.
    LazyLock::force(&REFUSES_SECOND_ROLE);
    task::block_on(program)
}

/// Moves this thread into a new network namespace. The thread stays in its namespace if that is not
/// permitted, or if the loopback device of the new namespace cannot be set up.
fn enter_network() {
    let Ok(before) = std::fs::File::open("/proc/thread-self/ns/net") else { return };
    // SAFETY: the call affects only this thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return;
    }
    // SAFETY: plain data for which all zeroes is a valid value.
    let mut loopback: libc::ifreq = unsafe { std::mem::zeroed() };
    loopback.ifr_name[..2].copy_from_slice(&b"lo".map(|byte| byte as libc::c_char));
    loopback.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    // SAFETY: the request takes a pointer to this struct.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut loopback) } < 0 {
        // SAFETY: the descriptor is that of a namespace.
        let returned = unsafe { libc::setns(before.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(returned, 0, "the thread returns to its namespace");
    }
}

/// Makes the calls of a sequence and returns the results. After each call, `settle` waits until the
/// network is likely to be quiet.
async fn play(kind: Kind, seed: u64, settle: impl AsyncFn()) -> Vec<String> {
    let mut draw = Draw(seed.wrapping_mul(0x1234_5678_9abc_def1) ^ kind as u64);
    let mut player = Player::new(kind);
    player.begin().expect("sockets");
    for _ in 0..40 {
        player.step(&mut draw);
        settle().await;
    }
    player.trace
}

/// Makes the calls of a sequence in the real kernel and in a simulation, and returns the first
/// difference between the results.
fn differs(kind: Kind, seed: u64, patience: u32) -> Option<String> {
    let real = in_kernel(play(kind, seed, async || {
        // Loopback delivers within the call, or shortly after on a busy machine.
        if matches!(kind, Kind::Tcp | Kind::TcpV6) {
            std::thread::sleep(patience * Duration::from_micros(300));
        }
    }));
    let simulated = Sim::run(seed, async move |_| play(kind, seed, async || task::sleep(ms(20)).await).await);
    difference(&real, &simulated).map(|text| format!("{kind:?}, seed {seed}, {text}"))
}

/// Returns the first difference between the results in the real kernel and in the simulation, with
/// the results before it.
fn difference(real: &[String], simulated: &[String]) -> Option<String> {
    let at = (0..real.len().max(simulated.len())).find(|&at| real.get(at) != simulated.get(at))?;
    let before = real[at.saturating_sub(12)..at].join("\n  ");
    let show = |trace: &[String]| trace.get(at).cloned().unwrap_or_else(|| "no further result".to_owned());
    Some(format!("after\n  {before}\nreal      {}\nsimulated {}", show(real), show(simulated)))
}

/// The factors by which the pauses in the real kernel are multiplied in the runs of a program. On a
/// busy machine the real kernel may be late, so a program counts as different only if each of these
/// runs finds a difference.
const PATIENCE: [u32; 3] = [1, 5, 25];

/// Returns the difference that the last run finds, if all runs find one.
fn lasting_difference(differs: impl Fn(u32) -> Option<String>) -> Option<String> {
    PATIENCE.into_iter().map_while(differs).nth(PATIENCE.len() - 1)
}

/// Compares the results of each random sequence, and fails with the difference of each sequence
/// that differs.
fn compare(differs: impl Fn(u64, u32) -> Option<String>) {
    let count = std::env::var("NETPOLL_DIFFERENTIAL").map_or(20, |count| count.parse().expect("a number"));
    let differing: Vec<_> =
        (0..count).filter_map(|seed| lasting_difference(|patience| differs(seed, patience))).collect();
    assert!(differing.is_empty(), "{} of {count} sequences differ:\n{}", differing.len(), differing.join("\n"));
}

#[test]
fn tcp_calls_have_the_results_of_the_kernel() {
    compare(|seed, patience| differs(Kind::Tcp, seed, patience));
}

#[test]
fn tcp_calls_over_ipv6_have_the_results_of_the_kernel() {
    compare(|seed, patience| differs(Kind::TcpV6, seed, patience));
}

#[test]
fn udp_calls_have_the_results_of_the_kernel() {
    compare(|seed, patience| differs(Kind::Udp, seed, patience));
}

#[test]
fn unix_streams_have_the_results_of_the_kernel() {
    compare(|seed, patience| differs(Kind::UnixStream, seed, patience));
}

#[test]
fn unix_datagrams_have_the_results_of_the_kernel() {
    compare(|seed, patience| differs(Kind::UnixDatagram, seed, patience));
}

#[test]
fn unix_packets_have_the_results_of_the_kernel() {
    compare(|seed, patience| differs(Kind::UnixPackets, seed, patience));
}
