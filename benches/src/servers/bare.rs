//! The bare loop, which is the baseline of the comparison: a level-triggered epoll loop on libc,
//! without a runtime.
//!
//! There is one loop per worker. Each has a thread, an epoll instance, one buffer and a table of
//! connections by descriptor. The first loop also accepts connections and distributes them
//! round-robin. For each event, a loop makes one read and one write. After a short write, it keeps
//! the rest, sends it when the socket is writable, and reads from the connection again only after
//! that. A deadline is a number in the table. In the modes with a deadline, the loop checks all
//! deadlines once per second.

use super::{Mode, Options, READ_DEADLINE};
use crate::sys::{self, Epoll, NO_EVENT};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

/// The maximum number of events per epoll_wait(2).
const EVENTS_MAX: usize = 1024;
/// The time between two checks of the deadlines, in milliseconds.
const SWEEP_MS: i32 = 1_000;

#[derive(Debug, Default)]
struct Connection {
    /// The deadline in milliseconds since the creation of the loop, or 0 if there is none.
    deadline_ms: u64,
    /// The rest of an echo that the socket has not accepted yet.
    unsent: Vec<u8>,
}

#[derive(Debug)]
struct Loop {
    options: &'static Options,
    epoll: Arc<Epoll>,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    start: Instant,
}

/// Runs the echo server until the process ends.
///
/// # Errors
/// Returns an error if the set-up fails, or if epoll_wait(2) fails in the first loop. If it fails
/// in another loop, this loop ends without a message.
pub fn serve(options: &'static Options) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let epolls = (0..options.workers.max(1)).map(|_| Epoll::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    epolls[0].add(listener.as_raw_fd(), libc::EPOLLIN, listener.as_raw_fd() as u64)?;
    options.ready(listener.local_addr()?.port());
    for _ in 0..options.hogs {
        // This server has no tasks, so a hog is a thread.
        let hog = options.hog;
        std::thread::Builder::new().name("hog".to_owned()).spawn(move || {
            loop {
                hog.turn();
                std::thread::yield_now();
            }
        })?;
    }
    for epoll in &epolls[1..] {
        let mut own = Loop::new(options, epoll);
        std::thread::Builder::new().name("loop".to_owned()).spawn(move || own.run(None))?;
    }
    Loop::new(options, &epolls[0]).run(Some((listener, &epolls)))
}

impl Loop {
    fn new(options: &'static Options, epoll: &Arc<Epoll>) -> Loop {
        Loop {
            options,
            epoll: Arc::clone(epoll),
            connections: Vec::new(),
            buffer: vec![0; options.buffer],
            start: Instant::now(),
        }
    }

    /// Runs the loop. `accepting` is the listener and the epoll instances of all loops, and `None`
    /// for all loops but the first.
    fn run(&mut self, accepting: Option<(TcpListener, &[Arc<Epoll>])>) -> io::Result<()> {
        let listener = accepting.as_ref().map_or(-1, |(listener, _)| listener.as_raw_fd());
        let mut events = [NO_EVENT; EVENTS_MAX];
        let deadlines = self.options.mode.has_deadline();
        let timeout = if deadlines { SWEEP_MS } else { -1 };
        let (mut dealt, mut now_ms, mut swept_ms) = (0, 0, 0);
        loop {
            let count = self.epoll.wait(&mut events, timeout)?;
            if deadlines {
                now_ms = self.start.elapsed().as_millis() as u64;
                if now_ms >= swept_ms + SWEEP_MS as u64 {
                    swept_ms = now_ms;
                    self.sweep(now_ms);
                }
            }
            for event in &events[..count] {
                let fd = event.u64 as RawFd;
                if fd != listener {
                    self.event(fd, event.events, now_ms);
                } else if let Some((_, epolls)) = &accepting {
                    while let Ok(new) = sys::accept_nonblocking(listener) {
                        if epolls[dealt % epolls.len()].add(new, libc::EPOLLIN, new as u64).is_err() {
                            sys::close(new);
                        }
                        dealt += 1;
                    }
                }
            }
        }
    }

    /// Handles an event of a connection.
    fn event(&mut self, fd: RawFd, events: u32, now_ms: u64) {
        let slot = fd as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, Connection::default);
        }
        if events & libc::EPOLLOUT as u32 != 0 && !self.flush(fd) {
            return self.end(fd);
        }
        if events & !(libc::EPOLLOUT as u32) == 0 {
            return;
        }
        match sys::receive(fd, &mut self.buffer) {
            Ok(0) => self.end(fd),
            Ok(count) => {
                self.options.work.burn();
                if self.options.mode.has_deadline() {
                    self.connections[slot].deadline_ms = now_ms + READ_DEADLINE.as_millis() as u64;
                }
                let sent = match sys::send(fd, &self.buffer[..count]) {
                    Ok(sent) => sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(_) => return self.end(fd),
                };
                if sent < count {
                    self.connections[slot].unsent.extend_from_slice(&self.buffer[sent..count]);
                    if self.epoll.modify(fd, libc::EPOLLOUT, fd as u64).is_err() {
                        self.end(fd);
                    }
                } else if self.options.mode == Mode::Churn {
                    self.end(fd);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.end(fd),
        }
    }

    /// Sends the rest of an echo. Returns whether the connection stays open.
    fn flush(&mut self, fd: RawFd) -> bool {
        let unsent = &mut self.connections[fd as usize].unsent;
        match sys::send(fd, unsent) {
            Ok(sent) => {
                unsent.drain(..sent);
                if !unsent.is_empty() {
                    return true;
                }
                self.options.mode != Mode::Churn && self.epoll.modify(fd, libc::EPOLLIN, fd as u64).is_ok()
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Closes a connection.
    fn end(&mut self, fd: RawFd) {
        self.connections[fd as usize] = Connection::default();
        sys::close(fd);
    }

    /// Closes the connections whose deadlines have passed.
    fn sweep(&mut self, now_ms: u64) {
        for slot in 0..self.connections.len() {
            if (1..now_ms).contains(&self.connections[slot].deadline_ms) {
                self.end(slot as RawFd);
            }
        }
    }
}
