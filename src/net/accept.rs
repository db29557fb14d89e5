//! [`Accepting`]: accepting one connection within the limits of its listener.
//!
//! # Permits
//! With a [`Limit`](super::permits::Limit), an accept takes a permit before accept4(2) and returns
//! the permit if there is no connection. The permit of a connection is stored in its `Fd` and
//! returned after close(2), or when the descriptor is released. An accept that finds no permit
//! *parks*: it leaves the list of operations that wait for an edge and joins the limit's list. It
//! still ends at the listener's deadline or close, at a shutdown of the runtime, and at a shutdown
//! of the socket by another owner.
//!
//! # Cancellation
//! A dropped accept leaves all lists. If it was woken for a permit, it wakes the next parked
//! accept.

use std::io;
use std::task::{Context, Poll, ready};

use socket2::SockAddr;

use super::fd::operation::{LockScope, Operation, Remaining};
use super::limits::{Admission, Outcome};
use super::net_fd::{Accepted, NetFd};
use crate::rt::poll::poller::{Direction, Failure};
use crate::rt::waiters::{Key, Waiter};
use crate::trace;

/// Creates a stream from an accepted socket and its peer's address.
pub(crate) type Adopt<T> = fn(NetFd, SockAddr) -> io::Result<T>;

/// The state of an accept between polls.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    operation: Operation,
    /// The accept's place among the parked accepts, or the place from which it was woken.
    place: Option<Key>,
    /// Whether the accept is parked, so that `operation` waits only for the end of the listener.
    parked: bool,
    /// Whether the descriptor could not be registered during the wait for the end of the listener.
    /// Another attempt in the same wait would wake all operations of the direction, including this
    /// one.
    is_unregistered: bool,
    /// Whether the accept needs no permit.
    beyond_limit: bool,
}

impl Accepting {
    /// Makes the accept ignore the maximum number of connections. The connection then holds no
    /// permit.
    pub(crate) fn ignore_limit(&mut self) {
        self.beyond_limit = true;
    }

    /// Attempts to accept a connection within the limits of `admission`, if there are any. `adopt`
    /// creates the stream.
    #[inline]
    pub(crate) fn poll<T>(
        &mut self,
        listener: &NetFd,
        admission: Option<&Admission>,
        cx: &mut Context<'_>,
        adopt: Adopt<T>,
    ) -> Poll<io::Result<T>> {
        match admission {
            None => listener.poll_accept(Waiter::Future(&mut self.operation), cx, adopt),
            Some(admission) => self.poll_admitted(listener, admission, cx, adopt),
        }
    }

    fn poll_admitted<T>(
        &mut self,
        listener: &NetFd,
        admission: &Admission,
        cx: &mut Context<'_>,
        adopt: Adopt<T>,
    ) -> Poll<io::Result<T>> {
        let limit = admission.limit.as_ref().filter(|_| !self.beyond_limit);
        loop {
            if let Some(limit) = limit {
                let parks = limit.poll_free(&mut self.place, cx).is_pending();
                if self.parked != parks {
                    // Moves from the list of waiters for an edge to the limit's list, so that an
                    // edge wakes only accepts that can use it. When a permit is free, moves back.
                    listener.fd.cancel(Direction::Read, &mut self.operation);
                    self.parked = parks;
                    self.is_unregistered = false;
                }
                if parks {
                    let error = ready!(self.poll_end(listener, cx));
                    self.cancel(listener, Some(admission));
                    return Poll::Ready(Err(error));
                }
            }
            // Declared outside the call, because returning a permit runs wakers, which must not run
            // under the listener's lock.
            let mut permit = None;
            let polled = listener.fd.poll_call(
                Direction::Read,
                LockScope::PerCall,
                Waiter::Future(&mut self.operation),
                cx,
                |fd| {
                    if let (Some(limit), None) = (limit, &permit) {
                        permit = limit.try_take();
                        if permit.is_none() {
                            return Ok((Outcome::Full, Remaining::Maybe));
                        }
                    }
                    listener.fd.ensure_nonblocking();
                    let outcome = admission.accept(fd, listener)?;
                    if matches!(outcome, Outcome::Accepted(..)) {
                        listener.fd.poll.count_accept();
                    }
                    Ok((outcome, Remaining::Maybe))
                },
            );
            match polled {
                Poll::Pending => {
                    // If this accept was woken for a permit, wakes the next parked accept, because
                    // several listeners may share the limit, and the listener of the next accept
                    // may have a connection.
                    if let Some(limit) = limit {
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
                    if let Some(permit) = permit {
                        stream.fd.hold(permit);
                    }
                    // The permit that this accept was woken for is in use.
                    self.place = None;
                    if trace::wants_accepts() {
                        Accepted::of(&stream, &peer).trace();
                    }
                    return Poll::Ready(adopt(stream, peer));
                }
                Poll::Ready(Err(failure)) => {
                    drop(permit);
                    self.cancel(listener, Some(admission));
                    return Poll::Ready(Err(listener.error("accept", failure)));
                }
            }
        }
    }

    /// Waits, while no accept is attempted, for the end of the listener, which is its deadline, its
    /// close, a shutdown of the runtime, or a shutdown of the socket by another owner. If the
    /// descriptor cannot be registered, waits only for the deadline and the close. The caller must
    /// [cancel](Accepting::cancel) the wait before the next accept.
    #[cold]
    pub(crate) fn poll_end(&mut self, listener: &NetFd, cx: &mut Context<'_>) -> Poll<io::Error> {
        let fd = &listener.fd;
        let mut polled = Poll::Pending;
        if !self.is_unregistered {
            polled = fd.poll_until(Direction::Read, &mut self.operation, cx, |side| side.is_hung_up());
            self.is_unregistered = matches!(polled, Poll::Ready(Err(Failure::Io(_))));
        }
        if self.is_unregistered {
            polled = fd.poll_interrupt(Direction::Read, Waiter::Future(&mut self.operation), cx);
        }
        let ended = ready!(polled);
        listener.fd.cancel(Direction::Read, &mut self.operation);
        Poll::Ready(listener.error("accept", ended.err().unwrap_or_else(|| shut_down(listener))))
    }

    /// Ends an accept without a connection, or cancels a dropped accept.
    pub(crate) fn cancel(&mut self, listener: &NetFd, admission: Option<&Admission>) {
        listener.fd.cancel(Direction::Read, &mut self.operation);
        self.parked = false;
        self.is_unregistered = false;
        if let Some(limit) = admission.and_then(|admission| admission.limit.as_ref()) {
            limit.leave(&mut self.place);
        }
    }
}

/// Returns the failure of an accept whose listener has hung up: the error of a blocking accept(2).
/// A listener has no peer, so another owner of the socket has shut it down.
#[cold]
fn shut_down(listener: &NetFd) -> Failure {
    let error = io::Error::from_raw_os_error(libc::EINVAL);
    listener.fd.poll.count_failure(&error);
    Failure::Io(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting_waker::CountingWaker;
    use crate::net::futures::Accept;
    use crate::net::{ListenConfig, TcpListener, TcpStream};
    use crate::task;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Waker;

    fn waits(accept: &mut Accept<'_>, waker: &Waker) -> bool {
        Pin::new(accept).poll(&mut Context::from_waker(waker)).is_pending()
    }

    /// Two listeners share a limit. An accept that was woken for a permit, but whose listener has
    /// no connection, passes the wake-up on to an accept of the other listener, which has
    /// connections.
    #[test]
    fn permit_passes_to_listener_with_a_connection() {
        task::block_on(async {
            let idle = ListenConfig::new().max_connections(1).listen("127.0.0.1:0").await.unwrap();
            let busy = TcpListener::bind("127.0.0.1:0").await.unwrap().admitting(idle.admission.clone());
            let addr = busy.local_addr().unwrap();
            let (counts, noop) = (std::sync::Arc::new(CountingWaker::default()), Waker::noop());
            // The first accept waits for a connection of its listener.
            let mut first = idle.accept();
            assert!(waits(&mut first, noop));
            let _clients = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
            let (stream, _) = busy.accept().await.unwrap();
            // The first accept is polled although no connection has arrived. It parks as the first
            // in the list.
            assert!(waits(&mut first, noop));
            let mut second = busy.accept();
            assert!(waits(&mut second, &counts.clone().into()));
            drop(stream);
            assert_eq!(counts.wakeups(), 0, "the second accept was woken although it is not first in the list");
            assert!(waits(&mut first, noop));
            assert_eq!(counts.wakeups(), 1, "the permit woke no accept");
            second.await.unwrap();
        });
    }
}
