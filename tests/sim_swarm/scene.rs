//! `Scene`: a program in its simulation, with the state of the oracle.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netpoll::net::{OpError, TcpListener, TcpStream, is_closed};
use netpoll::sim::Sim;
use netpoll::task::{self, JoinHandle};

use crate::draw::Draw;
use crate::program::{Program, Trouble};

const EMFILE: i32 = 24;

/// The maximum number of attempts of a call that fails for lack of descriptors.
pub const TRIES: usize = 200;

/// Awaits a call, and retries it while it fails for lack of descriptors, up to [`TRIES`] attempts
/// in total.
macro_rules! retried {
    ($call:expr) => {{
        let mut tries = 0;
        loop {
            tries += 1;
            match $call.await {
                Err(error) if tries < $crate::scene::TRIES && $crate::scene::lacks_descriptors(&error) => {
                    netpoll::task::yield_now().await;
                }
                result => break result,
            }
        }
    }};
}

pub(crate) use retried;

/// The state that sessions share.
#[derive(Debug)]
pub struct Scene {
    pub sim: Sim,
    pub program: Program,
    failures: Mutex<Vec<String>>,
    /// The number of handlers and tasks that have not ended.
    open: AtomicU64,
    /// The number of timeouts that are excused because the network may lose packets.
    pub excused: AtomicU64,
}

/// Counts one handler or task until it ends.
#[derive(Debug)]
pub struct Open(Arc<Scene>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The failures that a connection may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Both ends are on one host, which does not crash.
    Local,
    /// The other end may crash, or packets may be lost.
    Remote,
    /// One side ends the connection early.
    Cut { is_local: bool },
}

impl Scene {
    pub fn new(sim: Sim, program: Program) -> Arc<Scene> {
        let failures = Mutex::default();
        Arc::new(Scene { sim, program, failures, open: AtomicU64::new(0), excused: AtomicU64::new(0) })
    }

    /// Returns random source number `stream` of this program.
    pub fn draw(&self, stream: u64) -> Draw {
        Draw::new(self.program.seed, 1000 + stream)
    }

    /// Counts a handler or task until the returned value is dropped.
    pub fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Spawns a task that must end before the program ends, even if the task's handle is dropped.
    pub fn spawn<F: Future<Output: Send> + Send + 'static>(self: &Arc<Self>, future: F) -> JoinHandle<F::Output> {
        let open = self.open();
        task::spawn(async move {
            let _open = open;
            future.await
        })
    }

    pub fn still_open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn fail(&self, text: String) {
        self.sim.note(&text);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    pub fn check(&self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(text());
        }
    }

    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks that an operation ends exactly `expected` after `begin`.
    pub fn exactly(&self, begin: Instant, expected: Duration, what: &str) {
        let took = begin.elapsed();
        self.check(took == expected, || format!("{what} took {took:?}, not {expected:?}"));
    }

    /// Returns whether this program can cause an error of this kind. Counts the timeouts that
    /// losses excuse.
    pub fn explains(&self, fate: Fate, error: &io::Error) -> bool {
        use ErrorKind::*;
        let kind = error.kind();
        let is_remote = matches!(fate, Fate::Remote | Fate::Cut { is_local: false });
        if is_remote && self.program.network.is_lossy() && kind == TimedOut {
            self.excused.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let is_end = matches!(kind, ConnectionReset | BrokenPipe | UnexpectedEof);
        match fate {
            Fate::Cut { .. } if is_end || is_closed(error) || kind == NotConnected => true,
            _ if is_remote && self.program.trouble == Trouble::Crashes => {
                is_end || matches!(kind, TimedOut | ConnectionRefused | HostUnreachable | NotConnected)
            }
            _ => false,
        }
    }

    /// Checks the error of an operation.
    pub fn judge(&self, fate: Fate, error: &io::Error, what: &str) {
        self.check(self.explains(fate, error), || format!("{what}: {error} ({:?})", error.kind()));
    }

    /// Binds a listener. Retries while the bind fails for lack of descriptors.
    pub async fn listen(&self, addr: &str) -> io::Result<TcpListener> {
        retried!(TcpListener::bind(addr))
    }

    /// Connects to `addr`. Retries while the connect fails for lack of descriptors.
    pub async fn connect(&self, addr: &str) -> io::Result<TcpStream> {
        retried!(TcpStream::connect(addr))
    }
}

fn op_error(error: &io::Error) -> Option<&OpError> {
    error.get_ref()?.downcast_ref()
}

/// Returns whether a call has failed for lack of descriptors. If the dials of all addresses of a
/// name have failed, `error` is that of one attempt: with `TcpStream::connect`, the attempt with
/// the last address, and with a `Dialer`, the attempt that failed first.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().or_else(|| op_error(error)?.raw_os_error());
    errno == Some(EMFILE)
}

/// Returns whether the error says that the deadline or timeout of the socket ended the operation.
pub fn is_deadline(error: &io::Error) -> bool {
    op_error(error).is_some_and(OpError::is_deadline)
}
