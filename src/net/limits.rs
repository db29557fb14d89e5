//! Connection limits of a listener, and refusing connections when the process has no descriptor
//! left.
//!
//! # Permits
//! With a [`Limit`], an accept takes a permit before accept4(2) and returns it if there is no
//! connection. The permit is stored in the connection's `Fd` and is returned when close(2) has
//! returned, or when the descriptor is given away. An accept that finds no permit *parks*: it
//! leaves the list of operations that wait for an edge, joins the limit's list, and stays
//! registered for expiry and close.
//!
//! # The reserve
//! The reserve holds descriptor numbers by keeping files open. When accept4(2) fails for lack of a
//! number (EMFILE, ENFILE), a spare is closed, the oldest connection is accepted in its place,
//! answered and closed, and the spare is opened again. A client thus learns at once that the server
//! is full, and the loop neither spins nor leaves the queue full. Another thread may take the
//! number first; then the next spare is tried, and with none left the caller gets the error.
//! Numbers that become free go to the reserve first: a connection is admitted only while the
//! reserve is whole, and otherwise refused and its number kept. Each spare is a file of its own,
//! because ENFILE counts files.
//!
//! # Cancellation
//! A dropped accept leaves all lists. If it was woken for a permit, it wakes the next.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use socket2::SockAddr;

use super::fd::net_fd::{NetFd, accept};
use super::fd::operation::{Hold, Left, Operation};
use super::options;
use super::permits::Limit;
use super::tcp::TcpStream;
use crate::rt::poll::poller::Direction;
use crate::rt::waiters::Key;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::sys::socket;

/// The maximum number of connections refused in one poll, so that other tasks get their turn.
const SHED_BATCH_MAX: u32 = 64;

/// The maximum number of bytes read before a refused connection is closed. Closing with unread data
/// resets the connection, and the reset may overtake the answer.
const DRAIN_MAX: usize = 64 << 10;

/// Descriptors held back for when no others are left.
#[derive(Debug)]
pub(crate) struct Reserve {
    most: usize,
    spares: Mutex<Vec<OwnedFd>>,
    answer: Box<[u8]>,
    shed: AtomicU64,
}

impl Reserve {
    /// # Errors
    /// Returns the error of open(2).
    pub(crate) fn new(most: usize, answer: Box<[u8]>) -> io::Result<Reserve> {
        let spares = (0..most).map(|_| spare()).collect::<io::Result<_>>()?;
        Ok(Reserve { most, spares: Mutex::new(spares), answer, shed: AtomicU64::new(0) })
    }

    /// Reopens missing spares. Returns false if the process has too few descriptors.
    fn refill(&self) -> bool {
        let mut spares = self.spares.lock();
        while spares.len() < self.most {
            match spare() {
                Ok(spare) => spares.push(spare),
                Err(error) => return !is_want_of_numbers(&error),
            }
        }
        true
    }

    /// Answers and closes a connection, and keeps its number.
    fn turn_away(&self, socket: OwnedFd) {
        turn_away(socket.as_fd(), &self.answer);
        drop(socket);
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.refill();
    }

    /// Accepts the oldest connection in place of a spare, answers it and closes it.
    ///
    /// # Errors
    /// Returns the error of accept4(2), including that there is no connection; `want` if no spare
    /// is left.
    fn shed(&self, listener: BorrowedFd<'_>, want: io::Error) -> io::Result<()> {
        loop {
            let Some(spare) = self.spares.lock().pop() else { return Err(want) };
            drop(spare);
            match accept(listener) {
                Ok((socket, _)) => {
                    self.turn_away(socket);
                    return Ok(());
                }
                // Another thread took the number first.
                Err(error) if is_want_of_numbers(&error) => {}
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

fn is_want_of_numbers(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Sends `answer` to a peer whose connection is closed next. Bytes that do not fit into the buffer,
/// or arrive too late, are lost.
fn turn_away(socket: BorrowedFd<'_>, answer: &[u8]) {
    // The listener may have passed SO_LINGER on, and this close must not wait.
    let _ = options::set_linger(socket, None);
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

/// The admission policy of a listener; listeners that were opened together share one.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) limit: Option<Arc<Limit>>,
    pub(crate) reserve: Option<Reserve>,
}

enum Outcome {
    Accepted(NetFd, SocketAddr),
    /// No permit is available.
    Full,
    /// Connections were refused, and more may be queued.
    Shed,
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

    /// Accepts a connection from `listener`, whose descriptor is `fd`.
    fn accept(&self, fd: BorrowedFd<'_>, listener: &NetFd) -> io::Result<Outcome> {
        for _ in 0..SHED_BATCH_MAX {
            match (accept(fd), &self.reserve) {
                (Err(error), Some(reserve)) if is_want_of_numbers(&error) => reserve.shed(fd, error)?,
                (accepted, reserve) => {
                    let (socket, peer) = accepted?;
                    if let Some(reserve) = reserve
                        && !reserve.refill()
                    {
                        reserve.turn_away(socket);
                        continue;
                    }
                    let peer = peer.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
                    return Ok(Outcome::Accepted(listener.accepted(socket)?, peer));
                }
            }
        }
        Ok(Outcome::Shed)
    }
}

/// State of an accept between polls.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    operation: Operation,
    /// Its place among the parked accepts, or the place from which it was woken.
    place: Option<Key>,
    /// Whether the operation waits only for expiry and close.
    parked: bool,
}

impl Accepting {
    #[inline]
    pub(crate) fn poll(
        &mut self,
        listener: &NetFd,
        admission: Option<&Admission>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match admission {
            None => self.poll_any(listener, cx, TcpStream::adopt),
            Some(admission) => self.poll_admitted(listener, admission, cx),
        }
    }

    /// Accepts without limits, for any kind of stream.
    #[inline]
    pub(crate) fn poll_any<T>(
        &mut self,
        listener: &NetFd,
        cx: &mut Context<'_>,
        adopt: fn(NetFd, SockAddr) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        listener.poll_accept(Some(&mut self.operation), cx, adopt)
    }

    fn poll_admitted(
        &mut self,
        listener: &NetFd,
        admission: &Admission,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            if let Some(limit) = &admission.limit {
                let parks = limit.poll_free(&mut self.place, cx).is_pending();
                if self.parked != parks {
                    // Moves from one list to the other: edges are for accepts that can use them.
                    listener.fd.cancel(Direction::Read, &mut self.operation);
                    self.parked = parks;
                }
                if parks
                    && let Err(failure) = ready!(listener.fd.poll_interrupt(Direction::Read, &mut self.operation, cx))
                {
                    self.cancel(listener, Some(admission));
                    return Poll::Ready(Err(listener.error("accept", failure)));
                }
            }
            // Outlives the call, so that wakers run by its return do not run under the listener's
            // lock.
            let mut permit = None;
            let polled = listener.fd.poll_call(Direction::Read, Hold::Call, Some(&mut self.operation), cx, |fd| {
                if let (Some(limit), None) = (&admission.limit, &permit) {
                    permit = limit.try_take();
                    if permit.is_none() {
                        return Ok((Outcome::Full, Left::Maybe));
                    }
                }
                listener.fd.ensure_nonblocking();
                Ok((admission.accept(fd, listener)?, Left::Maybe))
            });
            match polled {
                Poll::Pending => {
                    // Passes the permit that it was woken for to the next accept: if several
                    // listeners share the limit, that accept's listener may have a connection.
                    if let Some(limit) = &admission.limit {
                        limit.leave(&mut self.place);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Outcome::Full)) => {}
                Poll::Ready(Ok(Outcome::Shed)) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Outcome::Accepted(mut stream, peer))) => {
                    stream.fd.hold(permit);
                    // The permit that it was woken for is used.
                    self.place = None;
                    return Poll::Ready(Ok((TcpStream::from_net_fd(stream), peer)));
                }
                Poll::Ready(Err(failure)) => {
                    drop(permit);
                    self.cancel(listener, Some(admission));
                    return Poll::Ready(Err(listener.error("accept", failure)));
                }
            }
        }
    }

    /// Ends an accept without a connection, or cancels a dropped one.
    pub(crate) fn cancel(&mut self, listener: &NetFd, admission: Option<&Admission>) {
        listener.fd.cancel(Direction::Read, &mut self.operation);
        self.parked = false;
        if let Some(limit) = admission.and_then(|admission| admission.limit.as_ref()) {
            limit.leave(&mut self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::futures::Accept;
    use crate::net::{ListenConfig, TcpListener};
    use crate::task;
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn waits(accept: &mut Accept<'_>, waker: &Waker) -> bool {
        Pin::new(accept).poll(&mut Context::from_waker(waker)).is_pending()
    }

    /// Two listeners share a limit. An accept that was woken for a permit, but whose listener had
    /// no connection, used to keep the wake-up while the other listener had connections.
    #[test]
    fn permit_passes_to_listener_with_a_connection() {
        task::block_on(async {
            let idle = ListenConfig::new().max_connections(1).listen("127.0.0.1:0").await.unwrap();
            let busy = TcpListener::bind("127.0.0.1:0").await.unwrap().admitting(idle.admission.clone());
            let addr = busy.local_addr().unwrap();
            let (counts, noop) = (std::sync::Arc::new(Count::default()), Waker::noop());
            // It waits for a connection and knows that there is none.
            let mut first = idle.accept();
            assert!(waits(&mut first, noop));
            let _clients = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
            let (stream, _) = busy.accept().await.unwrap();
            // Polled for another reason, it parks, as the first.
            assert!(waits(&mut first, noop));
            let mut second = busy.accept();
            assert!(waits(&mut second, &counts.clone().into()));
            drop(stream);
            assert_eq!(counts.0.load(Ordering::SeqCst), 0, "it is not first in the list");
            assert!(waits(&mut first, noop));
            assert_eq!(counts.0.load(Ordering::SeqCst), 1, "the permit woke no accept");
            second.await.unwrap();
        });
    }
}
