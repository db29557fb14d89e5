//! Random sequences of calls on TCP sockets in any state: new, bound, listening, connecting,
//! connected, ended, and after calls that have failed.

use super::*;

const SOCKETS: u64 = 4;

/// Returns the number of bytes to read.
fn queued(socket: &Socket) -> String {
    let mut count = 7;
    // SAFETY: the request takes a pointer to an int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    shown(if result < 0 { Err(io::Error::last_os_error()) } else { Ok(count) })
}

/// The sockets of a sequence, and its results so far.
struct Calls {
    sockets: Vec<Socket>,
    /// Whether each socket may have had a connection.
    connected: [bool; SOCKETS as usize],
    /// The ports in the order in which they were seen. The results have the index of a port in
    /// place of the port.
    ports: Vec<u16>,
    /// A socket that is bound and does not listen, so that its port refuses connections.
    refusing: Socket,
    trace: Vec<String>,
}

impl Calls {
    fn new() -> Calls {
        let sockets = (0..SOCKETS).map(|_| tcp()).collect();
        let refusing = tcp();
        refusing.bind(&at(V4, 0)).unwrap();
        Calls { sockets, connected: Default::default(), ports: vec![0], refusing, trace: Vec::new() }
    }

    /// Returns the text of an address, with the index of the port.
    fn shown(&mut self, addr: io::Result<SockAddr>) -> String {
        let Ok(addr) = addr else { return shown(addr.map(|_| ())) };
        let addr = addr.as_socket().unwrap();
        let index = self.ports.iter().position(|port| *port == addr.port()).unwrap_or_else(|| {
            self.ports.push(addr.port());
            self.ports.len() - 1
        });
        format!("{} port {index}", addr.ip())
    }

    /// Makes a randomly chosen call on a randomly chosen socket, and returns the result.
    fn step(&mut self, draw: &mut Draw) -> String {
        let [place, other] = [(); 2].map(|()| draw.below(SOCKETS) as usize);
        let (call, choice) = (draw.below(20), draw.below(3) as usize);
        let socket = &self.sockets[place];
        let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][choice];
        let address = self.sockets[other].local_addr().unwrap();
        let port = address.as_socket().unwrap().port();
        let (what, result) = match call {
            0 => {
                self.sockets[place] = tcp();
                self.connected[place] = false;
                ("close", String::new())
            }
            1 | 2 => {
                let to = at([V4, ANY][choice % 2], if choice == 2 { port } else { 0 });
                ("bind", shown(socket.bind(&to)))
            }
            3 | 4 if self.connected[place] => ("listen", listen_after_connection(socket)),
            3 | 4 => ("listen", shown(socket.listen(8))),
            // A simulation does not connect a socket to its own address.
            5..=7 if port != 0 && port != local(socket).port() => {
                self.connected[place] = true;
                ("connect", shown(socket.connect(&at(V4, port))))
            }
            5 => {
                self.connected[place] = true;
                ("connect, refused", shown(socket.connect(&self.refusing.local_addr().unwrap())))
            }
            8 if choice == 0 => ("disconnect", disconnect(socket)),
            8 | 9 => match socket.accept() {
                Ok((accepted, from)) if place != other => {
                    accepted.set_nonblocking(true).unwrap();
                    self.sockets[other] = accepted;
                    self.connected[other] = true;
                    ("accept", self.shown(Ok(from)))
                }
                result => ("accept", shown(result.map(|_| ()))),
            },
            10 | 11 => ("shutdown", format!("{how:?} {}", shown(socket.shutdown(how)))),
            12 => ("send", send(socket)),
            13 => ("recv", recv(socket)),
            14 => ("error", error(socket)),
            15 => ("reuse", shown(socket.set_reuse_address(choice > 0))),
            16 => {
                // Without a linger time, or with a time of zero, close(2) does not wait.
                let linger = (choice > 0).then_some(Duration::ZERO);
                ("linger", shown(socket.set_linger(linger)))
            }
            17 => {
                let flags = [libc::MSG_PEEK, libc::MSG_TRUNC, libc::MSG_PEEK | libc::MSG_TRUNC][choice];
                let result = receive(socket, &mut [MaybeUninit::uninit(); 2], flags);
                ("recv with flags", format!("{flags} {}", shown(result)))
            }
            18 => ("queued", queued(socket)),
            _ => ("peer", shown(socket.peer_addr().map(|_| ()))),
        };
        format!("{place} {what} {other}: {result}")
    }

    /// Returns the address and the readiness of each socket.
    fn states(&mut self) -> String {
        let addrs: Vec<_> = self.sockets.iter().map(Socket::local_addr).collect();
        let addrs: Vec<_> = addrs.into_iter().map(|addr| self.shown(addr)).collect();
        let states =
            self.sockets.iter().zip(addrs).map(|(socket, addr)| format!("{addr} {}", ready(socket.as_raw_fd())));
        states.collect::<Vec<_>>().join(", ")
    }
}

async fn play(seed: u64, settle: impl AsyncFn()) -> Vec<String> {
    let mut draw = Draw(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let mut calls = Calls::new();
    for _ in 0..40 {
        let result = calls.step(&mut draw);
        settle().await;
        let states = calls.states();
        calls.trace.push(format!("{result}; {states}"));
    }
    calls.trace
}

fn differs(seed: u64, patience: u32) -> Option<String> {
    let real = in_kernel(play(seed, async || std::thread::sleep(patience * Duration::from_micros(300))));
    let simulated = Sim::run(seed, async move |_| play(seed, async || task::sleep(ms(20)).await).await);
    difference(&real, &simulated).map(|text| format!("seed {seed}, {text}"))
}

#[test]
fn tcp_calls_in_any_state_have_the_results_of_the_kernel() {
    compare(differs);
}
