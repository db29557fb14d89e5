//! What a listener does at its limit of connections, and when the process has no descriptor left.
//!
//! # Permits
//! With a [`Limit`] an accept takes a permit before accept4(2) and gives it back if there is nothing to accept. The permit goes into
//! the connection's `Fd`, and comes back when close(2) has returned, or when the descriptor is given away. An accept that finds none
//! *parks*: it leaves the list of those who wait for an edge, enters the limit's, and stays among those who hear of
//! expiry and close.
//!
//! # The reserve
//! Numbers kept back by open files. When accept4(2) fails for want of one (EMFILE, ENFILE), a spare is closed, the oldest connection
//! is accepted in its place, answered and closed, and the spare is opened again. So a client learns at once that there is no room,
//! and the loop neither spins nor waits with a full queue. Another thread may be quicker to take the number: then the next spare
//! is tried, and with none left the error is the caller's. What it gives back is the reserve's: a connection is let in while the
//! reserve is whole, else it is turned away and the reserve has its number. Every spare is a file of its own, because ENFILE
//! counts files.
//!
//! # Cancellation
//! A dropped accept leaves all lists; a permit that it was woken for wakes the next.

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

/// Connections turned away in one poll, before other tasks get their turn.
const SHED_BATCH_MAX: u32 = 64;

/// What the peer has sent is read before its connection is closed, this much at most: a close with data unread is a reset, which
/// may overtake the answer.
const DRAIN_MAX: usize = 64 << 10;

/// Numbers kept back for when there are none.
#[derive(Debug)]
pub(crate) struct Reserve {
    most: usize,
    spares: Mutex<Vec<OwnedFd>>,
    answer: Box<[u8]>,
    shed: AtomicU64,
}

impl Reserve {
    /// # Errors
    /// open(2)'s.
    pub(crate) fn new(most: usize, answer: Box<[u8]>) -> io::Result<Reserve> {
        let spares = (0..most).map(|_| spare()).collect::<io::Result<_>>()?;
        Ok(Reserve { most, spares: Mutex::new(spares), answer, shed: AtomicU64::new(0) })
    }

    /// Fills up what is missing; false if there are too few numbers for that.
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

    /// Answers and closes a connection, and has its number.
    fn turn_away(&self, socket: OwnedFd) {
        turn_away(socket.as_fd(), &self.answer);
        drop(socket);
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.refill();
    }

    /// Accepts the oldest connection in place of a spare, answers and closes it.
    ///
    /// # Errors
    /// accept4(2)'s, also that nobody waits; `want` when no spare is left.
    fn shed(&self, listener: BorrowedFd<'_>, want: io::Error) -> io::Result<()> {
        loop {
            let Some(spare) = self.spares.lock().pop() else { return Err(want) };
            drop(spare);
            match accept(listener) {
                Ok((socket, _)) => {
                    self.turn_away(socket);
                    return Ok(());
                }
                // Somebody was quicker.
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

/// Sends `answer` to a peer whose connection is closed next. The part that does not fit, or comes too late, is lost.
fn turn_away(socket: BorrowedFd<'_>, answer: &[u8]) {
    // The listener may have handed SO_LINGER on, and nobody may wait for this close.
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

/// What a listener lets in; listeners opened together share one.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) limit: Option<Arc<Limit>>,
    pub(crate) reserve: Option<Reserve>,
}

enum Outcome {
    Accepted(NetFd, SocketAddr),
    /// No permit is free.
    Full,
    /// Connections were turned away, and more may wait.
    Shed,
}

impl Admission {
    /// Permits that are out.
    pub(crate) fn connections(&self) -> usize {
        self.limit.as_ref().map_or(0, |limit| limit.taken())
    }

    /// Connections turned away so far.
    pub(crate) fn shed(&self) -> u64 {
        self.reserve.as_ref().map_or(0, |reserve| reserve.shed.load(Ordering::Relaxed))
    }

    /// Accepts from `listener`, whose number is `fd`.
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

/// What an accept keeps between polls.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    operation: Operation,
    /// Its place among the parked, or the one that it was woken from.
    place: Option<Key>,
    /// Whether the operation waits for expiry and close only.
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

    /// An accept without limits, of any kind of stream.
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
                    // From one list into the other: an edge is for who can use it.
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
            // Outlives the call, so that what its return wakes does not run under the listener's lock.
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
                    // The permit that it was woken for is for the next: that one's listener, where several share the limit, may have a
                    // connection.
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

    /// The accept ends without a connection, or its future is dropped.
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

    /// Two listeners share a limit. An accept that was woken for a permit, and whose listener had no connection, waited for one with the
    /// wake-up, while the other listener had some.
    #[test]
    fn permit_passes_to_listener_with_a_connection() {
        task::block_on(async {
            let idle = ListenConfig::new().max_connections(1).listen("127.0.0.1:0").await.unwrap();
            let busy = TcpListener::bind("127.0.0.1:0").await.unwrap().admitting(idle.admission.clone());
            let addr = busy.local_addr().unwrap();
            let (counts, noop) = (std::sync::Arc::new(Count::default()), Waker::noop());
            // It waits for a connection, and knows that there is none.
            let mut first = idle.accept();
            assert!(waits(&mut first, noop));
            let _clients = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
            let (stream, _) = busy.accept().await.unwrap();
            // Polled for another reason it parks, and is the first that did.
            assert!(waits(&mut first, noop));
            let mut second = busy.accept();
            assert!(waits(&mut second, &counts.clone().into()));
            drop(stream);
            assert_eq!(counts.0.load(Ordering::SeqCst), 0, "it is not its turn");
            assert!(waits(&mut first, noop));
            assert_eq!(counts.0.load(Ordering::SeqCst), 1, "the permit is for nobody");
            second.await.unwrap();
        });
    }
}
