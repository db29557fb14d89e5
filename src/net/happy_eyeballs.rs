//! [`Race`]: connecting to the first of several addresses that accepts the connection, with Happy
//! Eyeballs version 2 (RFC 8305).
//!
//! # Rules
//! * Addresses keep their order within a family, and the families alternate, starting with the
//!   family of the first address (section 4). Addresses that arrive later are inserted in the same
//!   way.
//! * The next attempt begins when an attempt has failed, or when the stagger has passed since the
//!   previous attempt began (section 5). Earlier attempts continue. If there is a deadline, the
//!   remaining time is divided equally between the attempt that begins and the untried addresses. A
//!   stagger that is longer than this share is reduced to it, but to no less than 10 ms.
//! * At most [`AT_ONCE_MAX`] attempts are in progress at a time, so that a DNS reply does not
//!   determine how many descriptors a dial uses. A further attempt replaces the oldest attempt,
//!   and begins at least 10 ms after the previous attempt.
//! * The first connection wins. If no attempt connects, the error of the first to fail is returned.
//!   (Go returns the first error of the first address's family.) An error of the look-up is
//!   returned only if there was no address.
//!
//! # Cancellation
//! Attempts are futures. An attempt that loses, or is dropped with the race, closes its socket. If
//! two attempts have connected by the time they are polled, the earlier attempt wins and the
//! other connection is closed.
//!
//! # Compared with Go (net/dial.go)
//! Go races the two families, one address of each at a time (RFC 6555), 300 ms apart, after all
//! addresses are known.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;

use crate::rt::time::clock;
use crate::time::Sleep;

/// The default time between attempts (RFC 8305, section 8).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// The value below which a deadline does not reduce the stagger, and the minimum of the pause
/// before an attempt that replaces the oldest attempt (RFC 8305, section 5).
const STAGGER_MIN: Duration = Duration::from_millis(10);

/// The maximum number of concurrent attempts. If attempts begin 10 ms apart, each attempt has
/// 640 ms before it is replaced.
const AT_ONCE_MAX: usize = 64;

/// Addresses that have not been tried yet.
#[derive(Debug, Default)]
struct Queue {
    v6: VecDeque<SocketAddr>,
    v4: VecDeque<SocketAddr>,
    /// Whether the next address should be IPv6; `None` before the first address is known.
    v6_next: Option<bool>,
}

impl Queue {
    fn extend(&mut self, addrs: Vec<SocketAddr>) {
        for addr in addrs {
            self.v6_next.get_or_insert(addr.is_ipv6());
            if addr.is_ipv6() { self.v6.push_back(addr) } else { self.v4.push_back(addr) }
        }
    }

    fn pop(&mut self) -> Option<SocketAddr> {
        let (first, second) = if self.v6_next? { (&mut self.v6, &mut self.v4) } else { (&mut self.v4, &mut self.v6) };
        let addr = first.pop_front().or_else(|| second.pop_front())?;
        self.v6_next = Some(addr.is_ipv4());
        Some(addr)
    }

    fn len(&self) -> usize {
        self.v6.len() + self.v4.len()
    }
}

/// A future that returns the first connection that `dial` establishes to an address from `source`.
/// See the [module documentation](self).
pub(crate) struct Race<S, D, F> {
    source: Option<S>,
    dial: D,
    stagger: Duration,
    deadline: Option<Instant>,
    queue: Queue,
    /// The attempts in progress, oldest first.
    attempts: Vec<Pin<Box<F>>>,
    /// The time until the next attempt may begin; `None` if it may begin immediately.
    pause: Option<Sleep>,
    error: Option<io::Error>,
    lookup_error: Option<io::Error>,
}

// No field is pinned.
impl<S, D, F> Unpin for Race<S, D, F> {}

impl<S, D, F, T> Race<S, D, F>
where
    S: Stream<Item = io::Result<Vec<SocketAddr>>> + Unpin,
    D: FnMut(SocketAddr) -> F,
    F: Future<Output = io::Result<T>>,
{
    pub(crate) fn new(source: S, stagger: Duration, deadline: Option<Instant>, dial: D) -> Race<S, D, F> {
        Race {
            source: Some(source),
            dial,
            stagger,
            deadline,
            queue: Queue::default(),
            attempts: Vec::new(),
            pause: None,
            error: None,
            lookup_error: None,
        }
    }

    /// Takes the available addresses from the source.
    fn gather(&mut self, cx: &mut Context<'_>) {
        while let Some(source) = &mut self.source {
            match Pin::new(source).poll_next(cx) {
                Poll::Ready(Some(Ok(addrs))) => self.queue.extend(addrs),
                Poll::Ready(Some(Err(error))) => self.lookup_error = Some(error),
                Poll::Ready(None) => self.source = None,
                Poll::Pending => return,
            }
        }
    }

    /// Polls the attempts. Returns the connection of the first attempt that has succeeded.
    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Option<T> {
        let mut at = 0;
        while at < self.attempts.len() {
            match self.attempts[at].as_mut().poll(cx) {
                Poll::Ready(Ok(connection)) => return Some(connection),
                Poll::Ready(Err(error)) => {
                    drop(self.attempts.remove(at));
                    self.error.get_or_insert(error);
                    self.pause = None;
                }
                Poll::Pending => at += 1,
            }
        }
        None
    }

    /// Starts an attempt if one is due. Returns whether an attempt was started.
    fn launch(&mut self, cx: &mut Context<'_>) -> bool {
        if self.queue.len() == 0 {
            return false;
        }
        if !self.attempts.is_empty()
            && let Some(pause) = &mut self.pause
            && Pin::new(pause).poll(cx).is_pending()
        {
            return false;
        }
        let Some(addr) = self.queue.pop() else { return false };
        let left = self.queue.len();
        let mut pause = match self.deadline {
            Some(deadline) if left > 0 => {
                let share = deadline.saturating_duration_since(clock::instant()) / (left as u32).saturating_add(1);
                self.stagger.min(share.max(STAGGER_MIN))
            }
            _ => self.stagger,
        };
        if self.attempts.len() == AT_ONCE_MAX {
            drop(self.attempts.remove(0));
        }
        self.attempts.push(Box::pin((self.dial)(addr)));
        if self.attempts.len() == AT_ONCE_MAX {
            pause = pause.max(STAGGER_MIN);
        }
        self.pause = Some(Sleep::new(pause));
        true
    }
}

impl<S, D, F, T> Future for Race<S, D, F>
where
    S: Stream<Item = io::Result<Vec<SocketAddr>>> + Unpin,
    D: FnMut(SocketAddr) -> F,
    F: Future<Output = io::Result<T>>,
{
    /// The output is `None` if there was neither an address nor an error of the look-up.
    type Output = Option<io::Result<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.gather(cx);
        loop {
            if let Some(connection) = this.poll_attempts(cx) {
                // The other attempts close their sockets before the caller sees the winner.
                this.attempts.clear();
                this.source = None;
                return Poll::Ready(Some(Ok(connection)));
            }
            if !this.launch(cx) {
                break;
            }
        }
        if this.source.is_none() && this.attempts.is_empty() {
            return Poll::Ready(this.error.take().or(this.lookup_error.take()).map(Err));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{FutureExt, future, stream};
    use std::sync::{Arc, Mutex};

    fn v4(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 1).into()
    }

    fn v6(last: u16) -> SocketAddr {
        ([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 1).into()
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The outcome of an attempt, after a number of milliseconds.
    #[derive(Clone, Copy)]
    enum Fate {
        Connects(u64),
        Fails(u64),
        Hangs,
    }

    type Outcome = (Option<Result<SocketAddr, String>>, Vec<(SocketAddr, Duration)>);

    /// Runs a race. Returns its outcome, and each attempt with the time at which it began.
    fn race(
        source: impl Stream<Item = io::Result<Vec<SocketAddr>>> + Unpin,
        stagger: Duration,
        within: Option<Duration>,
        fate: impl Fn(SocketAddr) -> Fate,
    ) -> Outcome {
        let start = Instant::now();
        let began = Arc::new(Mutex::new(Vec::new()));
        let deadline = within.map(|within| start + within);
        let race = Race::new(source, stagger, deadline, |addr| {
            began.lock().unwrap().push((addr, start.elapsed()));
            let fate = fate(addr);
            async move {
                match fate {
                    Fate::Connects(after) => {
                        Sleep::new(millis(after)).await;
                        Ok(addr)
                    }
                    Fate::Fails(after) => {
                        Sleep::new(millis(after)).await;
                        Err(io::Error::other(addr.to_string()))
                    }
                    Fate::Hangs => future::pending().await,
                }
            }
        });
        let race = async { race.await.map(|result| result.map_err(|error| error.to_string())) };
        let timeout = async {
            Sleep::new(within.unwrap_or(Duration::from_secs(30))).await;
            Some(Err("over".to_owned()))
        };
        let outcome = future::block_on(race.or(timeout));
        (outcome, Arc::into_inner(began).unwrap().into_inner().unwrap())
    }

    fn of(addrs: &[SocketAddr]) -> impl Stream<Item = io::Result<Vec<SocketAddr>>> + Unpin + use<> {
        stream::iter([Ok(addrs.to_vec())])
    }

    fn order(began: &[(SocketAddr, Duration)]) -> Vec<SocketAddr> {
        began.iter().map(|(addr, _)| *addr).collect()
    }

    #[test]
    fn families_alternate_starting_with_the_first_address() {
        let mut queue = Queue::default();
        queue.extend(vec![v6(1), v6(2), v6(3), v4(1), v4(2)]);
        let mut order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        queue = Queue::default();
        queue.extend(vec![v4(1), v4(2), v6(1)]);
        order = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [v4(1), v6(1), v4(2)]);
        // A late address of the other family is not put at the end of the whole list.
        queue = Queue::default();
        queue.extend(vec![v4(1), v4(2), v4(3)]);
        assert_eq!(queue.pop(), Some(v4(1)));
        queue.extend(vec![v6(1), v6(2)]);
        order = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [v6(1), v4(2), v6(2), v4(3)]);
    }

    /// Go: TestDialParallel.
    #[test]
    fn first_connection_wins_or_first_failure_is_returned() {
        use Fate::{Connects, Fails, Hangs};
        let refused = |addr: SocketAddr| Some(Err(addr.to_string()));
        // The fates of the first and the second address, the outcome, and whether the second
        // attempt begins after the stagger (`true`) or immediately (`false`). `None` means that it
        // does not begin. In the cases where it must not wait, the stagger is longer than any test.
        let cases = [
            (Connects(0), Connects(0), Some(Ok(v6(1))), None),
            (Connects(5), Hangs, Some(Ok(v6(1))), None),
            (Hangs, Connects(0), Some(Ok(v4(1))), Some(true)),
            (Fails(0), Connects(0), Some(Ok(v4(1))), Some(false)),
            (Fails(5), Connects(0), Some(Ok(v4(1))), Some(false)),
            (Connects(5000), Connects(5), Some(Ok(v4(1))), Some(true)),
            (Connects(400), Connects(5000), Some(Ok(v6(1))), Some(true)),
            (Connects(400), Fails(0), Some(Ok(v6(1))), Some(true)),
            (Fails(0), Fails(0), refused(v6(1)), Some(false)),
            // Unlike in Go, the error is that of the first attempt to fail, not of the first to
            // begin.
            (Fails(400), Fails(0), refused(v4(1)), Some(true)),
        ];
        for (number, (first, second, outcome, staggered)) in cases.into_iter().enumerate() {
            let fate = |addr: SocketAddr| if addr == v6(1) { first } else { second };
            let stagger = if staggered == Some(true) { millis(40) } else { Duration::from_secs(3600) };
            let (got, began) = race(of(&[v6(1), v4(1)]), stagger, None, fate);
            assert_eq!(got, outcome, "case {number}: {began:?}");
            assert_eq!(began.len(), 1 + usize::from(staggered.is_some()), "case {number}: {began:?}");
            if staggered == Some(true) {
                assert!(began[1].1 - began[0].1 >= stagger, "case {number}: {began:?}");
            }
        }
    }

    #[test]
    fn a_thousand_addresses_are_all_tried() {
        let addrs: Vec<_> = (0..1000).map(|number: u32| (number.to_be_bytes(), 1).into()).collect();
        let (outcome, began) = race(of(&addrs), STAGGER, None, |_| Fate::Fails(0));
        assert_eq!(outcome, Some(Err(addrs[0].to_string())));
        assert_eq!(order(&began), addrs);
    }

    #[test]
    fn concurrent_attempts_are_bounded() {
        let addrs: Vec<_> = (0..100).map(v6).collect();
        let live = Arc::new(());
        let mut most = 0;
        let race = Race::new(of(&addrs), Duration::ZERO, None, |addr| {
            let own = live.clone();
            most = most.max(Arc::strong_count(&live) - 1);
            let last = addrs[99];
            async move {
                let _own = own;
                if addr == last { Ok(addr) } else { future::pending().await }
            }
        });
        assert_eq!(future::block_on(race).map(Result::unwrap), Some(addrs[99]));
        assert_eq!((most, Arc::strong_count(&live)), (AT_ONCE_MAX, 1));
    }

    #[test]
    fn short_deadline_gives_every_address_a_turn() {
        let addrs = [v4(1), v4(2), v4(3), v4(4)];
        let (outcome, _) = race(of(&addrs), Duration::from_secs(3600), Some(millis(2000)), |addr| match addr {
            addr if addr == v4(4) => Fate::Connects(0),
            _ => Fate::Hangs,
        });
        assert_eq!(outcome, Some(Ok(v4(4))));
    }

    #[test]
    fn late_addresses_are_tried() {
        let late = || {
            let first = stream::once(Ok(vec![v4(1), v4(2)]));
            let second = stream::once_future(Box::pin(async {
                Sleep::new(millis(20)).await;
                Ok(vec![v6(1)])
            }));
            Box::pin(stream::StreamExt::chain(first, second))
        };
        let (outcome, began) = race(late(), millis(60), None, |addr| match addr {
            addr if addr == v6(1) => Fate::Connects(0),
            _ => Fate::Hangs,
        });
        assert_eq!((outcome, order(&began)), (Some(Ok(v6(1))), vec![v4(1), v6(1)]));
        // Failures of all addresses so far do not end the race while more may arrive.
        let (outcome, began) = race(late(), millis(60), None, |addr| match addr {
            addr if addr == v6(1) => Fate::Connects(0),
            _ => Fate::Fails(0),
        });
        assert_eq!((outcome, order(&began)), (Some(Ok(v6(1))), vec![v4(1), v4(2), v6(1)]));
    }

    #[test]
    fn without_addresses_the_lookup_error_is_returned() {
        let none = |_| Fate::Hangs;
        assert_eq!(race(of(&[]), STAGGER, None, none).0, None);
        let failed = stream::iter([Err(io::Error::other("no such host"))]);
        assert_eq!(race(failed, STAGGER, None, none).0, Some(Err("no such host".to_owned())));
        let half = stream::iter([Ok(vec![v4(1)]), Err(io::Error::other("no such host"))]);
        assert_eq!(race(half, STAGGER, None, |_| Fate::Fails(0)).0, Some(Err(v4(1).to_string())));
    }
}
