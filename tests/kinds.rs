//! Tests every kind of descriptor: timeouts in reused slots, and closes and deadlines while
//! operations wait in both directions.
//!
//! `NETPOLL_KINDS_SECONDS` sets for how many seconds `timeouts_fire_in_slots_that_are_used_again`
//! runs with one worker, and then with four workers. The default is one second.
#![cfg(target_os = "linux")] // abstract names, and SOCK_SEQPACKET

mod common;

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::{child_with, park_on, run};
use netpoll::io::AsyncFd;
use netpoll::net::{TcpListener, TcpStream, UdpSocket, is_closed, is_timeout};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream};
use netpoll::{rt, task};

type Operation = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A descriptor with operations that wait.
trait Silent: Send + Sync {
    /// Returns operations that wait, in the read direction and, if possible, in the write
    /// direction.
    fn waiting(self: Arc<Self>) -> Vec<(&'static str, Operation)>;
    fn set_timeouts(&self, timeout: Option<Duration>);
    fn set_deadlines(&self, deadline: Option<Instant>);
    fn close(&self) -> Operation;
}

/// Defines the type `$name` of a socket with its peer, and implements [`Silent`] for it. The other
/// arguments are the socket's type, whether it has timeouts, the method that closes it, and its
/// operations.
macro_rules! silent {
    ($name:ident, $socket:ty, $timeouts:tt, $close:ident; $($operation:literal, |$own:ident| $future:expr;)*) => {
        struct $name($socket, #[allow(dead_code)] Box<dyn Send + Sync>);

        impl Silent for $name {
            fn waiting(self: Arc<Self>) -> Vec<(&'static str, Operation)> {
                vec![$((concat!(stringify!($name), " ", $operation), {
                    let shared = self.clone();
                    let operation: Operation = Box::pin(async move {
                        let $own = &shared.0;
                        $future.await.map(drop)
                    });
                    operation
                })),*]
            }

            fn set_timeouts(&self, timeout: Option<Duration>) {
                silent!(@timeouts $timeouts, self, timeout);
            }

            fn set_deadlines(&self, deadline: Option<Instant>) {
                self.0.set_deadline(deadline).unwrap();
            }

            fn close(&self) -> Operation {
                Box::pin(self.0.$close())
            }
        }
    };
    (@timeouts both, $self:ident, $timeout:ident) => {
        $self.0.set_read_timeout($timeout).unwrap();
        $self.0.set_write_timeout($timeout).unwrap();
    };
    (@timeouts none, $self:ident, $timeout:ident) => {
        // Listeners have deadlines but no relative timeouts.
        let _ = $self.0.set_deadline($timeout.map(|timeout| Instant::now() + timeout));
    };
}

silent! { Tcp, TcpStream, both, force_close;
    "read", |own| own.read(&mut [0; 8]);
    "poll_read", |own| poll_fn(|cx| netpoll::io::Read::poll_read(Pin::new(&mut &*own), cx, &mut [0; 8]));
    "readable", |own| own.readable();
    "peek", |own| own.peek(&mut [0; 8]);
    "write", |own| own.write(&[0; 8]);
    "write_all", |own| own.write_all(&[0; 8]);
    "writable", |own| own.writable();
}

silent! { Unix, UnixStream, both, force_close;
    "read", |own| own.read(&mut [0; 8]);
    "recv_with_fds", |own| async { own.recv_with_fds(&mut [0; 8], &mut Vec::new()).await };
    "readable", |own| own.readable();
    "poll_readable", |own| poll_fn(|cx| own.poll_readable(cx));
    "write", |own| own.write(&[0; 8]);
    "send_with_fds", |own| own.send_with_fds(&[0; 8], &[]);
    "writable", |own| own.writable();
    "poll_writable", |own| poll_fn(|cx| own.poll_writable(cx));
}

silent! { Udp, UdpSocket, both, close;
    "recv", |own| own.recv(&mut [0; 8]);
    "recv_from", |own| own.recv_from(&mut [0; 8]);
    "poll_recv", |own| poll_fn(|cx| own.poll_recv(cx, &mut [0; 8]));
    "poll_recv_from", |own| poll_fn(|cx| own.poll_recv_from(cx, &mut [0; 8]));
    "readable", |own| own.readable();
    "poll_readable", |own| poll_fn(|cx| own.poll_readable(cx));
}

silent! { Datagram, UnixDatagram, both, close;
    "recv", |own| own.recv(&mut [0; 8]);
    "recv_from", |own| own.recv_from(&mut [0; 8]);
    "recv_with_fds", |own| async { own.recv_with_fds(&mut [0; 8], &mut Vec::new()).await };
    "readable", |own| own.readable();
    "poll_readable", |own| poll_fn(|cx| own.poll_readable(cx));
    "send", |own| own.send(&[0; 8]);
    "writable", |own| own.writable();
    "poll_writable", |own| poll_fn(|cx| own.poll_writable(cx));
}

silent! { Packets, UnixSeqpacket, both, force_close;
    "recv", |own| own.recv(&mut [0; 8]);
    "peek", |own| own.peek(&mut [0; 8]);
    "readable", |own| own.readable();
    "poll_readable", |own| poll_fn(|cx| own.poll_readable(cx));
    "send", |own| own.send(&[0; 8]);
    "writable", |own| own.writable();
    "poll_writable", |own| poll_fn(|cx| own.poll_writable(cx));
}

silent! { Other, AsyncFd<OwnedFd>, both, force_close;
    "readable", |own| own.readable();
    "poll_readable", |own| poll_fn(|cx| own.poll_readable(cx).map(|ready| ready.map(drop)));
    "read_with", |own| own.read_with(|_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    "poll_read_with", |own| poll_fn(|cx| own.poll_read_with(cx, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into())));
    "write_with", |own| own.write_with(|_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

silent! { ListeningTcp, TcpListener, none, close;
    "accept", |own| own.accept();
    "incoming", |own| async { futures::StreamExt::next(&mut own.incoming()).await.unwrap() };
}

silent! { ListeningUnix, UnixListener, none, close;
    "accept", |own| own.accept();
    "incoming", |own| async { futures::StreamExt::next(&mut own.incoming()).await.unwrap() };
}

silent! { ListeningPackets, UnixSeqpacketListener, none, close;
    "accept", |own| own.accept();
}

/// The number of kinds of descriptors that [`silent`] creates.
const KINDS: usize = 9;

/// Returns a descriptor of the given kind, whose operations ([`Silent::waiting`]) all wait.
async fn silent(kind: usize) -> Arc<dyn Silent> {
    let chunk = [0; 1024];
    match kind {
        0 => {
            let (one, other) = common::pair().await;
            common::fill(&one).await;
            Arc::new(Tcp(one, Box::new(other)))
        }
        1 => {
            let (one, other) = UnixStream::pair().unwrap();
            while let Poll::Ready(count) = common::poll_now(&mut one.write(&chunk)) {
                count.unwrap();
            }
            Arc::new(Unix(one, Box::new(other)))
        }
        2 => {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(socket.local_addr().unwrap()).await.unwrap();
            Arc::new(Udp(socket, Box::new(())))
        }
        3 => {
            let (one, other) = UnixDatagram::pair().unwrap();
            while let Poll::Ready(count) = common::poll_now(&mut one.send(&chunk)) {
                count.unwrap();
            }
            Arc::new(Datagram(one, Box::new(other)))
        }
        4 => {
            let (one, other) = UnixSeqpacket::pair().unwrap();
            while let Poll::Ready(count) = common::poll_now(&mut one.send(&chunk)) {
                count.unwrap();
            }
            Arc::new(Packets(one, Box::new(other)))
        }
        5 => {
            let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
            one.set_nonblocking(true).unwrap();
            Arc::new(Other(AsyncFd::new(OwnedFd::from(one)).unwrap(), Box::new(other)))
        }
        6 => Arc::new(ListeningTcp(TcpListener::bind("127.0.0.1:0").await.unwrap(), Box::new(()))),
        7 => Arc::new(ListeningUnix(UnixListener::bind("").await.unwrap(), Box::new(()))),
        _ => Arc::new(ListeningPackets(UnixSeqpacketListener::bind("").await.unwrap(), Box::new(()))),
    }
}

/// Starts all operations of `socket`. Each adds 1 to `begun` after its first poll.
fn start(socket: &Arc<dyn Silent>, begun: &Arc<AtomicUsize>) -> Vec<(&'static str, task::JoinHandle<io::Result<()>>)> {
    let operations = socket.clone().waiting().into_iter();
    let started = operations.map(|(name, mut operation)| {
        let begun = begun.clone();
        let mut is_first = true;
        let counted = poll_fn(move |cx| {
            let polled = operation.as_mut().poll(cx);
            if std::mem::take(&mut is_first) {
                begun.fetch_add(1, Ordering::SeqCst);
            }
            polled
        });
        (name, task::spawn(counted))
    });
    started.collect()
}

/// Returns the error of an operation, or `None` if a short TCP write has succeeded. Such a write
/// may find room behind the last segment.
fn error_of(name: &str, ended: io::Result<()>) -> Option<io::Error> {
    match ended {
        Ok(()) if name.starts_with("Tcp write") => None,
        ended => Some(ended.expect_err(name)),
    }
}

/// Closes each kind of descriptor, from the calling task or another thread, while all of its
/// operations wait.
async fn close_ends_all(by_thread: bool) {
    for kind in 0..KINDS {
        for _ in 0..3 {
            let socket = silent(kind).await;
            let begun = Arc::new(AtomicUsize::new(0));
            let waiting = start(&socket, &begun);
            common::becomes("all operations wait", || begun.load(Ordering::SeqCst) == waiting.len()).await;
            if by_thread {
                let socket = socket.clone();
                std::thread::spawn(move || park_on(socket.close())).join().unwrap().unwrap();
            } else {
                socket.close().await.unwrap();
            }
            for (name, operation) in waiting {
                if let Some(error) = error_of(name, operation.await) {
                    assert!(is_closed(&error), "{name}: {error}");
                }
            }
        }
    }
}

#[test]
fn close_ends_operations_of_every_kind_in_both_directions() {
    for workers in ["1", "4"] {
        child_with("close_ends_operations_of_every_kind_in_both_directions", &[("NETPOLL_THREADS", workers)], || {
            for by_thread in [false, true] {
                run(close_ends_all(by_thread));
                park_on(task::spawn(close_ends_all(by_thread)));
            }
            common::eventually("all descriptors are closed", || {
                rt::metrics().descriptors == 0 && rt::metrics().waiters == 0
            });
        });
    }
}

/// Checks that a deadline ends all operations, and that operations wait again after the deadline is
/// cleared.
async fn expiry_ends_all() {
    for kind in 0..KINDS {
        for is_past in [false, true] {
            let socket = silent(kind).await;
            let begun = Arc::new(AtomicUsize::new(0));
            let waiting = start(&socket, &begun);
            common::becomes("all operations wait", || begun.load(Ordering::SeqCst) == waiting.len()).await;
            let now = Instant::now();
            socket.set_deadlines(Some(if is_past { now } else { now + Duration::from_millis(5) }));
            for (name, operation) in waiting {
                if let Some(error) = error_of(name, operation.await) {
                    assert!(is_timeout(&error), "{name}: {error}");
                }
            }
            socket.set_deadlines(None);
            for (name, mut operation) in socket.clone().waiting() {
                let polled = poll_fn(|cx| Poll::Ready(operation.as_mut().poll(cx))).await;
                // A TCP socket may have room by now; see `error_of`.
                assert!(polled.is_pending() || name.starts_with("Tcp w"), "{name}: {polled:?}");
            }
        }
    }
}

#[test]
fn expiry_ends_operations_of_every_kind_in_both_directions() {
    run(expiry_ends_all());
    park_on(expiry_ends_all());
    park_on(task::spawn(expiry_ends_all()));
}

/// Opens sockets of random kinds, which reuse the slots of earlier ones. Closes most of them at
/// about the time at which their timeouts fire. Returns the number of sockets.
async fn reuse(seed: u64, until: Instant) -> u64 {
    let mut state = seed | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) % below
    };
    let mut rounds = 0;
    while Instant::now() < until {
        rounds += 1;
        let socket = silent(random(KINDS as u64) as usize).await;
        socket.set_timeouts(Some(Duration::from_micros(100 + random(3000))));
        let begun = Arc::new(AtomicUsize::new(0));
        let waiting = start(&socket, &begun);
        if random(3) > 0 {
            let after = Duration::from_micros(random(4000));
            let socket = socket.clone();
            match random(3) {
                0 => {
                    task::sleep(after).await;
                    socket.close().await.unwrap();
                }
                1 => {
                    drop(task::spawn(async move {
                        task::sleep(after).await;
                        socket.close().await.unwrap();
                    }));
                }
                _ => {
                    drop(task::spawn_blocking(move || {
                        std::thread::sleep(after);
                        park_on(socket.close()).unwrap();
                    }));
                }
            }
        }
        drop(socket);
        for (name, operation) in waiting {
            if let Some(error) = error_of(name, operation.await) {
                assert!(is_timeout(&error) || is_closed(&error), "{name}: {error}");
            }
        }
    }
    rounds
}

/// Tasks open and close sockets of random kinds. Each operation must end, because of its timeout or
/// a close.
#[test]
fn timeouts_fire_in_slots_that_are_used_again() {
    let seconds = std::env::var("NETPOLL_KINDS_SECONDS").map_or(1, |text| text.parse().unwrap());
    for workers in ["1", "4"] {
        let output = child_with("timeouts_fire_in_slots_that_are_used_again", &[("NETPOLL_THREADS", workers)], || {
            let until = Instant::now() + Duration::from_secs(seconds);
            let tasks: Vec<_> =
                (1..=6).map(|seed| task::spawn(reuse(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15), until))).collect();
            let rounds: u64 = tasks.into_iter().map(park_on).sum();
            println!("{rounds} rounds");
            common::eventually("all descriptors are closed", || rt::metrics().descriptors == 0);
        });
        common::print_lines(output, "rounds");
    }
}
