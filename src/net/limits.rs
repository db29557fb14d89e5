//! How many connections a listener lets in, and what it does when the process has no descriptor left.
//!
//! # Permits
//! With a [`Limit`] an accept takes a permit before accept4(2) and gives it back if there is nothing to accept. The permit goes into
//! the connection's `Fd`, and comes back when close(2) has returned, or when the descriptor is given away. An accept that finds none
//! *parks*: it leaves the list of those who wait for an edge, enters the limit's, and stays among those who hear of
//! expiry and close.
//!
//! # Invariants
//! * L1 — no more permits are out than the limit allows, and each comes back once.
//! * L2 — while a permit is free and somebody is parked, somebody who was woken for it has yet to act: it takes the permit, or
//!   gives it back, or is dropped; the last two wake the next.
//!
//! # The reserve
//! Numbers kept back by open files. When accept4(2) fails for want of one (EMFILE, ENFILE), a spare is closed, the oldest connection
//! is accepted in its place, answered and closed, and the spare is opened again. So a client learns at once that there is no room,
//! and the loop neither spins nor waits with a full queue. Another thread may be quicker to take the number: then the next spare
//! is tried, and with none left the error is the caller's. Every spare is a file of its own, because ENFILE counts files.
//!
//! # Cancellation
//! A dropped accept leaves all lists; a permit that it was woken for wakes the next.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use super::fd::net_fd::{NetFd, accept_tcp};
use super::fd::operation::{Hold, Left, Operation};
use crate::rt::poller::Direction;
use crate::rt::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};
use crate::sys::socket;

/// Connections turned away in one poll, before other tasks get their turn.
const SHED_BATCH_MAX: u32 = 64;

/// What the peer has sent is read before its connection is closed, this much at most: a close with data unread is a reset, which
/// may overtake the answer.
const DRAIN_MAX: usize = 64 << 10;

/// A number of permits.
#[derive(Debug)]
pub(crate) struct Limit {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    out: usize,
    parked: Waiters,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Limit {
        Limit { most, state: Mutex::new(State { out: 0, parked: Waiters::new() }) }
    }

    fn try_take(self: &Arc<Limit>) -> Option<Permit> {
        let mut state = self.state.lock();
        if state.out >= self.most {
            return None;
        }
        state.out += 1;
        Some(Permit { limit: self.clone(), held: AtomicBool::new(true) })
    }

    /// Ready while a permit is free, which is not taken. Who is parked keeps its `place`.
    fn poll_free(&self, place: &mut Option<Key>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned and dropped outside the lock: it is foreign code.
        let waker = cx.waker().clone();
        let (polled, _removed) = {
            let mut state = self.state.lock();
            if state.out < self.most {
                // Still in the list if something else than a permit woke it; the place is kept as if it had been woken.
                (Poll::Ready(()), place.and_then(|key| state.parked.remove(key)))
            } else {
                let (key, replaced) = state.parked.insert(*place, Interest::Event, waker);
                *place = Some(key);
                (Poll::Pending, replaced)
            }
        };
        polled
    }

    /// Gives up a place. Who was woken and took no permit leaves it to the next.
    fn leave(&self, place: &mut Option<Key>) {
        let Some(key) = place.take() else { return };
        let mut wakers = Wakers::new();
        let _removed = {
            let mut state = self.state.lock();
            let removed = state.parked.remove(key);
            if removed.is_none() && state.out < self.most {
                state.parked.take_event(&mut wakers);
            }
            removed
        };
        wakers.wake_all();
    }

    fn give_back(&self) {
        let mut wakers = Wakers::new();
        {
            let mut state = self.state.lock();
            state.out -= 1;
            state.parked.take_event(&mut wakers);
        }
        wakers.wake_all();
    }
}

/// The right to be one of a limited number.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<Limit>,
    held: AtomicBool,
}

impl Permit {
    /// The permit, for whoever asks first.
    pub(crate) fn take(&self) -> Option<Permit> {
        let held = self.held.swap(false, Ordering::Relaxed);
        held.then(|| Permit { limit: self.limit.clone(), held: AtomicBool::new(true) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if *self.held.get_mut() {
            self.limit.give_back();
        }
    }
}

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

    /// Fills up what is missing, as far as there are numbers.
    fn refill(&self) {
        let mut spares = self.spares.lock();
        while spares.len() < self.most {
            let Ok(spare) = spare() else { return };
            spares.push(spare);
        }
    }

    /// Accepts the oldest connection in place of a spare, answers and closes it.
    ///
    /// # Errors
    /// accept4(2)'s, also that nobody waits; `want` when no spare is left.
    fn shed(&self, listener: BorrowedFd<'_>, want: io::Error) -> io::Result<()> {
        let accepted = loop {
            let Some(spare) = self.spares.lock().pop() else { break Err(want) };
            drop(spare);
            match accept_tcp(listener) {
                // Somebody was quicker.
                Err(error) if is_want_of_numbers(&error) => {}
                accepted => break accepted,
            }
        };
        let accepted = accepted.map(|(socket, _)| {
            turn_away(socket.as_fd(), &self.answer);
            self.shed.fetch_add(1, Ordering::Relaxed);
        });
        self.refill();
        accepted
    }
}

fn spare() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}

fn is_want_of_numbers(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Says `answer` to a peer whose connection is closed next. What does not fit, or is too late, is lost.
fn turn_away(socket: BorrowedFd<'_>, answer: &[u8]) {
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
        self.limit.as_ref().map_or(0, |limit| limit.state.lock().out)
    }

    /// Connections turned away so far.
    pub(crate) fn shed(&self) -> u64 {
        self.reserve.as_ref().map_or(0, |reserve| reserve.shed.load(Ordering::Relaxed))
    }

    fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<Outcome> {
        for _ in 0..SHED_BATCH_MAX {
            match (accept_tcp(listener), &self.reserve) {
                (Err(error), Some(reserve)) if is_want_of_numbers(&error) => reserve.shed(listener, error)?,
                (accepted, reserve) => {
                    let (socket, peer) = accepted?;
                    if let Some(reserve) = reserve {
                        reserve.refill();
                    }
                    return Ok(Outcome::Accepted(NetFd::tcp(socket)?, peer));
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
    ) -> Poll<io::Result<(NetFd, SocketAddr)>> {
        match admission {
            None => listener.poll_accept(Some(&mut self.operation), cx),
            Some(admission) => self.poll_admitted(listener, admission, cx),
        }
    }

    fn poll_admitted(
        &mut self,
        listener: &NetFd,
        admission: &Admission,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(NetFd, SocketAddr)>> {
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
                Ok((admission.accept(fd)?, Left::Maybe))
            });
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Outcome::Full)) => {}
                Poll::Ready(Ok(Outcome::Shed)) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Outcome::Accepted(mut stream, peer))) => {
                    stream.fd.hold(permit);
                    // The permit that it was woken for is used.
                    self.place = None;
                    return Poll::Ready(Ok((stream, peer)));
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
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A parked accept, as far as the limit knows it.
    #[derive(Default)]
    struct Parked {
        count: std::sync::Arc<Count>,
        place: Option<Key>,
    }

    impl Parked {
        fn poll(&mut self, limit: &Limit) -> Poll<()> {
            limit.poll_free(&mut self.place, &mut Context::from_waker(&Waker::from(self.count.clone())))
        }

        fn wakes(&self) -> usize {
            self.count.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_permit_comes_back_once() {
        let limit = Arc::new(Limit::new(2));
        let (first, _second) = (limit.try_take().unwrap(), limit.try_take().unwrap());
        assert!(limit.try_take().is_none());
        let taken = first.take().unwrap();
        assert!(first.take().is_none());
        drop(first);
        assert!(limit.try_take().is_none(), "who took it has it");
        drop(taken);
        assert_eq!(limit.state.lock().out, 1);
    }

    #[test]
    fn each_permit_that_comes_back_wakes_one() {
        let limit = Arc::new(Limit::new(1));
        let permit = limit.try_take().unwrap();
        let mut parked = [Parked::default(), Parked::default(), Parked::default()];
        for parked in &mut parked {
            assert!(parked.poll(&limit).is_pending());
            assert!(parked.poll(&limit).is_pending(), "listed once, however often it is polled");
        }
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 0, 0]);
        // It is dropped before it acts.
        limit.leave(&mut parked[0].place);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 0]);
        // It acts: nobody else is woken until the permit comes back.
        assert!(parked[1].poll(&limit).is_ready());
        let permit = limit.try_take().unwrap();
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 0]);
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [1, 1, 1]);
    }

    #[test]
    fn who_leaves_in_time_is_not_woken() {
        let limit = Arc::new(Limit::new(1));
        let permit = limit.try_take().unwrap();
        let mut parked = [Parked::default(), Parked::default()];
        assert!(parked.iter_mut().all(|parked| parked.poll(&limit).is_pending()));
        limit.leave(&mut parked[0].place);
        drop(permit);
        assert_eq!(parked.each_ref().map(Parked::wakes), [0, 1]);
    }
}
