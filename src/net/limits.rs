//! The limits of a listener: the maximum number of its connections, and the refusal of connections
//! when no descriptor is available.
//!
//! # The reserve
//! The reserve holds descriptor numbers by keeping files open, the *spares*. When accept4(2) fails
//! for lack of a number (EMFILE, ENFILE), a spare is closed, the oldest connection is accepted in
//! its place, answered and closed, and the spare is opened again. A client thus learns immediately
//! that the server is full, and the accept loop neither spins nor leaves the queue full. If another
//! thread takes the number first, the next spare is tried; if no spare is left, the caller gets the
//! error. Numbers that become free refill the reserve first. If the reserve cannot be filled for
//! lack of a number, an accepted connection is refused, and its number refills the reserve. Each
//! spare is a separate open file, because ENFILE counts open files.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Weak;

use socket2::SockAddr;

use super::net_fd::{NetFd, accept};
use super::permits::Limit;
use crate::rt::poll::labels::Limits;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::sys::{option, socket};

/// The maximum number of connections refused in one [`Admission::accept`], so that other tasks get
/// their turn.
const SHED_BATCH_MAX: u32 = 64;

/// A refused connection that was answered is closed at the latest when this many of its bytes have
/// been read and discarded. Closing with unread data resets the connection, and the client may then
/// lose the answer.
const DRAIN_MAX: usize = 64 << 10;

/// Descriptors that are held back for refusing connections.
#[derive(Debug)]
pub(crate) struct Reserve {
    most: usize,
    spares: Mutex<Vec<OwnedFd>>,
    answer: Box<[u8]>,
    shed: AtomicU64,
}

impl Reserve {
    /// Creates a reserve of `most` descriptors. Refused connections receive `answer`.
    ///
    /// # Errors
    /// Returns the error of open(2).
    pub(crate) fn new(most: usize, answer: Box<[u8]>) -> io::Result<Reserve> {
        let spares = (0..most).map(|_| spare()).collect::<io::Result<_>>()?;
        Ok(Reserve { most, spares: Mutex::new(spares), answer, shed: AtomicU64::new(0) })
    }

    /// Reopens the missing spares. Returns false if open(2) fails with EMFILE or ENFILE. Ignores
    /// its other errors.
    fn refill(&self) -> bool {
        let mut spares = self.spares.lock();
        while spares.len() < self.most {
            match spare() {
                Ok(spare) => spares.push(spare),
                Err(error) => return !is_lack_of_numbers(&error),
            }
        }
        true
    }

    /// Answers and closes a connection, and refills the reserve with its number.
    fn turn_away(&self, socket: OwnedFd) {
        turn_away(socket.as_fd(), &self.answer);
        drop(socket);
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.refill();
    }

    /// Accepts the oldest connection in place of a spare, answers it and closes it.
    ///
    /// # Errors
    /// Returns the error of accept4(2), including `WouldBlock` if there is no connection. Returns
    /// `cause`, the error of the accept that failed before, if no spare is left.
    fn shed(&self, listener: BorrowedFd<'_>, cause: io::Error) -> io::Result<()> {
        loop {
            let Some(spare) = self.spares.lock().pop() else { return Err(cause) };
            drop(spare);
            match accept(listener) {
                Ok((socket, _)) => {
                    self.turn_away(socket);
                    return Ok(());
                }
                // Another thread took the number first.
                Err(error) if is_lack_of_numbers(&error) => {}
                Err(error) => {
                    self.refill();
                    return Err(error);
                }
            }
        }
    }
}

fn spare() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}

fn is_lack_of_numbers(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// If `answer` is not empty, sends it on a connection that is about to be closed, and then discards
/// the bytes that the client has sent, until [`DRAIN_MAX`] are discarded. Bytes of the answer that
/// do not fit into the send buffer are lost. The answer is also lost if the connection is reset
/// before the client reads it.
fn turn_away(socket: BorrowedFd<'_>, answer: &[u8]) {
    // The socket may have inherited SO_LINGER from the listener, and this close must not wait.
    let _ = option::socket::set_linger(socket, None);
    if answer.is_empty() || socket::send(socket, answer, 0).is_err() {
        return;
    }
    let _ = socket::shutdown(socket, Shutdown::Write);
    let mut buf = [0; 4096];
    let mut drained = 0;
    while drained < DRAIN_MAX {
        match socket::recv(socket, &mut buf, 0) {
            Ok(count @ 1..) => drained += count,
            _ => return,
        }
    }
}

/// The limits of a listener. Listeners that were opened together share one value.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) limit: Option<Arc<Limit>>,
    pub(crate) reserve: Option<Reserve>,
}

/// The result of an accept within limits.
// Returned once per poll and not stored.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Outcome {
    Accepted(NetFd, SockAddr),
    /// No permit is available.
    Full,
    /// Connections were refused, and more may be queued.
    Shed,
}

impl Limits for Admission {
    fn connections(&self) -> usize {
        self.connections()
    }

    fn most(&self) -> Option<usize> {
        self.limit.as_ref().map(|limit| limit.most())
    }

    fn refused(&self) -> u64 {
        self.shed()
    }
}

impl Admission {
    /// Returns the number of permits in use.
    pub(crate) fn connections(&self) -> usize {
        self.limit.as_ref().map_or(0, |limit| limit.taken())
    }

    /// Returns the number of connections refused so far.
    pub(crate) fn shed(&self) -> u64 {
        self.reserve.as_ref().map_or(0, |reserve| reserve.shed.load(Ordering::Relaxed))
    }

    /// Makes snapshots show these limits for `listener`.
    pub(crate) fn show(self: &Arc<Admission>, listener: &NetFd) {
        let weak: Weak<Admission> = Arc::downgrade(self);
        listener.fd.poll.set_limits(weak);
    }

    /// Makes snapshots show no limits for `listener`.
    pub(crate) fn hide(listener: &NetFd) {
        listener.fd.poll.set_limits(Weak::<Admission>::new());
    }

    /// Accepts a connection from `listener`, whose descriptor is `fd`. Refuses connections while
    /// there are too few descriptors.
    ///
    /// # Errors
    /// Returns the error of accept4(2), including `WouldBlock`, and the error of
    /// [`NetFd::accepted`].
    pub(crate) fn accept(&self, fd: BorrowedFd<'_>, listener: &NetFd) -> io::Result<Outcome> {
        for _ in 0..SHED_BATCH_MAX {
            match (accept(fd), &self.reserve) {
                (Err(error), Some(reserve)) if is_lack_of_numbers(&error) => reserve.shed(fd, error)?,
                (accepted, reserve) => {
                    let (socket, peer) = accepted?;
                    if let Some(reserve) = reserve
                        && !reserve.refill()
                    {
                        reserve.turn_away(socket);
                        continue;
                    }
                    return Ok(Outcome::Accepted(listener.accepted(socket, &peer)?, peer));
                }
            }
        }
        Ok(Outcome::Shed)
    }
}
