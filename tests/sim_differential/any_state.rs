//! Random sequences of calls on Unix and UDP sockets in any state, and of calls that bind sockets
//! of both families with options that let them share a port.

use std::net::IpAddr;

use socket2::MaybeUninitSlice;

use super::kinds::{name, unix_types};
use super::*;

const SOCKETS: u64 = 5;

/// The flags of receive calls.
const FLAGS: [i32; 6] =
    [0, libc::MSG_PEEK, libc::MSG_TRUNC, libc::MSG_PEEK | libc::MSG_TRUNC, libc::MSG_DONTWAIT, libc::MSG_WAITALL];

/// Receives at most `count` bytes with recvmsg(2). Returns the result, the bytes of the buffer,
/// those behind the message included, and the sender.
fn receive_message(socket: &Socket, count: usize, flags: i32, sender: impl Fn(SockAddr) -> String) -> String {
    let mut buf = vec![MaybeUninit::new(b'-'); count];
    let result = socket.recv_from_vectored_with_flags(&mut [MaybeUninitSlice::new(&mut buf)], flags);
    // SAFETY: the whole buffer is initialised.
    let text: String = buf.iter().map(|byte| char::from(unsafe { byte.assume_init() })).collect();
    shown(result.map(|(count, flags, from)| (count, flags.is_truncated(), text, sender(from))))
}

fn letters(draw: &mut Draw) -> Vec<u8> {
    let count = draw.below(7) as usize;
    vec![b'a' + draw.below(26) as u8; count]
}

/// The sockets of a sequence of calls on Unix sockets.
struct Unix {
    sequence: String,
    sockets: Vec<Socket>,
}

impl Unix {
    fn new(sequence: String, draw: &mut Draw) -> Unix {
        let sockets = (0..SOCKETS).map(|_| Unix::fresh(draw)).collect();
        Unix { sequence, sockets }
    }

    /// Returns a new socket, usually of the types that most calls accept.
    fn fresh(draw: &mut Draw) -> Socket {
        open(Domain::UNIX, unix_types()[draw.below(3) as usize])
    }

    /// Returns one of a few names.
    fn name(&self, number: u64) -> SockAddr {
        name(&format!("{}-{number}", self.sequence))
    }

    /// Returns the text of an address: the last character of a name, or the length of another.
    fn shown_name(addr: &SockAddr) -> String {
        match addr.as_abstract_namespace() {
            Some([.., _, last]) if addr.len() > 8 => char::from(*last).to_string(),
            _ => format!("length {}", addr.len()),
        }
    }

    fn step(&mut self, draw: &mut Draw) -> String {
        let [place, other] = [(); 2].map(|()| draw.below(SOCKETS) as usize);
        let (call, choice) = (draw.below(22), draw.below(3));
        let (to, none) = (self.name(choice), SockAddr::unix("").unwrap());
        let socket = &self.sockets[place];
        let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][choice as usize];
        // MSG_WAITALL is left out: on Linux, a read of a stream with this flag that returns data
        // also clears an error that follows the data.
        let flags = FLAGS[draw.below(FLAGS.len() as u64 - 1) as usize];
        let (what, result) = match call {
            0 => {
                self.sockets[place] = Unix::fresh(draw);
                ("close", String::new())
            }
            1 => {
                let ty = unix_types()[choice as usize];
                let (one, two) = Socket::pair(Domain::UNIX, ty, None).unwrap();
                for socket in [&one, &two] {
                    socket.set_nonblocking(true).unwrap();
                }
                self.sockets[place] = one;
                self.sockets[other] = two;
                ("pair", String::new())
            }
            2 | 3 => ("bind", shown(socket.bind(&to))),
            4 if choice == 0 => match draw.below(3) {
                0 => ("bind to none", shown(socket.bind(&none))),
                1 => ("connect to none", shown(socket.connect(&none))),
                _ => ("send to none", shown(socket.send_to(b"x", &none))),
            },
            4 | 5 => ("listen", shown(socket.listen(choice as i32))),
            6..=8 => ("connect", shown(socket.connect(&to))),
            9 if choice == 0 => ("disconnect", disconnect(socket)),
            9 | 10 => match socket.accept() {
                Ok((accepted, from)) if place != other => {
                    accepted.set_nonblocking(true).unwrap();
                    self.sockets[other] = accepted;
                    ("accept", Unix::shown_name(&from))
                }
                result => ("accept", shown(result.map(|_| ()))),
            },
            11 => ("shutdown", format!("{how:?} {}", shown(socket.shutdown(how)))),
            12..=16 => {
                let letters = letters(draw);
                // Versions of Linux differ in whether an unread message without bytes counts when
                // its receiver is closed.
                match letters.is_empty() && socket.r#type().unwrap() == Type::SEQPACKET {
                    true => ("left out", String::new()),
                    false if call < 15 => ("send", shown(socket.send_vectored(&[io::IoSlice::new(&letters)]))),
                    false => ("send_to", shown(socket.send_to(&letters, &to))),
                }
            }
            17..=19 => {
                let count = draw.below(6) as usize;
                ("recv", format!("{flags} {}", receive_message(socket, count, flags, |from| Unix::shown_name(&from))))
            }
            20 => ("error", error(socket)),
            _ => {
                let names = (socket.local_addr().map(|addr| Unix::shown_name(&addr)), socket.peer_addr());
                ("names", format!("{} {}", shown(names.0), shown(names.1.map(|addr| Unix::shown_name(&addr)))))
            }
        };
        format!("{place} {what} {other} {choice}: {result}")
    }
}

fn play_unix(seed: u64) -> Vec<String> {
    let mut draw = Draw(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let mut calls = Unix::new(format!("any-{seed}"), &mut draw);
    let mut trace = Vec::new();
    for _ in 0..80 {
        let result = calls.step(&mut draw);
        let states: Vec<_> = calls.sockets.iter().map(|socket| ready(socket.as_raw_fd())).collect();
        trace.push(format!("{result}; {}", states.join(" ")));
    }
    trace
}

/// The sockets of a sequence of calls on sockets that are bound to ports.
struct Ports {
    sockets: Vec<(Socket, bool)>,
    /// Whether the sockets send and receive datagrams. If not, their types differ.
    transfers: bool,
    /// The ports in the order in which they were seen. The results have the index of a port.
    ports: Vec<u16>,
}

impl Ports {
    fn new(draw: &mut Draw, transfers: bool) -> Ports {
        let mut ports = Ports { sockets: Vec::new(), transfers, ports: vec![0] };
        for _ in 0..SOCKETS {
            let socket = ports.fresh(draw);
            ports.sockets.push(socket);
        }
        ports
    }

    fn fresh(&self, draw: &mut Draw) -> (Socket, bool) {
        let is_v6 = draw.below(2) == 0;
        let ty = if self.transfers || draw.below(2) == 0 { Type::DGRAM } else { Type::STREAM };
        (open(if is_v6 { Domain::IPV6 } else { Domain::IPV4 }, ty), is_v6)
    }

    fn shown(&mut self, addr: &SockAddr) -> String {
        let Some(addr) = addr.as_socket() else { return format!("length {}", addr.len()) };
        let index = self.ports.iter().position(|port| *port == addr.port()).unwrap_or_else(|| {
            self.ports.push(addr.port());
            self.ports.len() - 1
        });
        format!("{} port {index}", addr.ip())
    }

    /// Returns an address for a socket of the family of `place`, rarely of the other one.
    fn address(&self, place: usize, port: u16, draw: &mut Draw) -> SockAddr {
        let is_v6 = self.sockets[place].1 != (draw.below(12) == 0);
        let six = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, V4.to_ipv6_mapped(), ANY.to_ipv6_mapped()];
        let four = [V4, ANY, Ipv4Addr::new(127, 0, 0, 2), V4];
        let at = draw.below(4) as usize;
        let ip = if is_v6 { IpAddr::V6(six[at]) } else { IpAddr::V4(four[at]) };
        super::at(ip, port)
    }

    fn step(&mut self, draw: &mut Draw) -> String {
        let [place, other] = [(); 2].map(|()| draw.below(SOCKETS) as usize);
        let (call, choice) = (draw.below(20), draw.below(3) as usize);
        let port = local(&self.sockets[other].0).port();
        let to = self.address(place, if call < 5 && choice == 0 { 0 } else { port }, draw);
        let to_text = self.shown(&to);
        // On Linux, a socket that has a source address of one family from its last peer may send to
        // the other family.
        let own = local(&self.sockets[place].0).ip();
        let call = match own.is_unspecified()
            || own.to_canonical().is_ipv4() == to.as_socket().unwrap().ip().to_canonical().is_ipv4()
        {
            false if call > 8 => 19,
            _ => call,
        };
        let socket = &self.sockets[place].0;
        let on = choice > 0;
        let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][choice];
        let flags = FLAGS[draw.below(FLAGS.len() as u64) as usize];
        let (what, result) = match call {
            0 => {
                self.sockets[place] = self.fresh(draw);
                ("close", String::new())
            }
            1..=4 => ("bind", format!("{to_text} {}", shown(socket.bind(&to)))),
            5 | 6 => ("reuse", shown(socket.set_reuse_address(on))),
            // A UDP socket is left out, because bind(2) on Linux ignores conflicts with other
            // sockets after it has found one that shares the port by this option.
            7 if !self.transfers && socket.r#type().unwrap() == Type::STREAM => {
                ("reuse port", shown(socket.set_reuse_port(on)))
            }
            7 | 8 => ("only v6", shown(socket.set_only_v6(on))),
            9 | 10 if !self.transfers => ("listen", shown(socket.listen(8))),
            // The other sequence would need pauses for connections.
            9..=11 if self.transfers => ("connect", format!("{to_text} {}", shown(socket.connect(&to)))),
            // IPv6 sockets are left out, because on Linux, such a socket still ignores IPv6
            // datagrams from other addresses than that of its former peer.
            12 if self.transfers && !self.sockets[place].1 => ("disconnect", disconnect(socket)),
            13 if self.transfers && choice == 0 => ("shutdown", format!("{how:?} {}", shown(socket.shutdown(how)))),
            13 | 14 if self.transfers => ("send", shown(socket.send_vectored(&[io::IoSlice::new(&letters(draw))]))),
            15 | 16 if self.transfers => {
                ("send_to", format!("{to_text} {}", shown(socket.send_to(&letters(draw), &to))))
            }
            17 | 18 if self.transfers => {
                let from = std::cell::Cell::new(None);
                let count = draw.below(6) as usize;
                let text = receive_message(socket, count, flags, |addr| {
                    from.set(Some(addr));
                    String::new()
                });
                let from = from.take().map(|from| self.shown(&from));
                ("recv", format!("{flags} {text} {from:?}"))
            }
            _ => ("error", error(socket)),
        };
        format!("{place} {what} {other}: {result}")
    }

    fn states(&mut self) -> String {
        let mut texts = Vec::new();
        for place in 0..self.sockets.len() {
            let socket = &self.sockets[place].0;
            let (own, peer) = (socket.local_addr().unwrap(), socket.peer_addr());
            let ready = ready(socket.as_raw_fd());
            let peer = match peer {
                Ok(peer) => self.shown(&peer),
                Err(error) => shown::<()>(Err(error)),
            };
            let own = self.shown(&own);
            texts.push(format!("{own} {peer} {ready}"));
        }
        texts.join(", ")
    }
}

async fn play_ports(seed: u64, transfers: bool, settle: impl AsyncFn()) -> Vec<String> {
    let mut draw = Draw(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let mut calls = Ports::new(&mut draw, transfers);
    let mut trace = Vec::new();
    for _ in 0..60 {
        let result = calls.step(&mut draw);
        settle().await;
        let states = calls.states();
        trace.push(format!("{result}; {states}"));
    }
    trace
}

#[test]
fn unix_calls_in_any_state_have_the_results_of_the_kernel() {
    compare(|seed, _| {
        let real = in_kernel(async { play_unix(seed) });
        let simulated = Sim::run(seed, async move |_| play_unix(seed));
        difference(&real, &simulated).map(|text| format!("seed {seed}, {text}"))
    });
}

#[test]
fn udp_calls_in_any_state_have_the_results_of_the_kernel() {
    compare(|seed, patience| {
        let pause = async || std::thread::sleep(patience.saturating_sub(1) * Duration::from_micros(300));
        let real = in_kernel(play_ports(seed, true, pause));
        let simulated = Sim::run(seed, async move |_| play_ports(seed, true, async || task::sleep(ms(20)).await).await);
        difference(&real, &simulated).map(|text| format!("seed {seed}, {text}"))
    });
}

#[test]
fn sockets_share_ports_as_in_the_kernel() {
    compare(|seed, _| {
        let real = in_kernel(play_ports(seed, false, async || ()));
        let simulated = Sim::run(seed, async move |_| play_ports(seed, false, async || ()).await);
        difference(&real, &simulated).map(|text| format!("seed {seed}, {text}"))
    });
}
