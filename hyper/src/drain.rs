//! [`Group`]: the connections of a server. A server that stops notifies its connections and waits
//! until they have ended.
//!
//! # States
//! The stage of a group is first *serving*. In the stage *draining*, requests that have arrived are
//! answered, and no new requests are accepted. In the stage *cut*, connections end immediately. If
//! the server's future is dropped, *cut* may follow *serving* directly. The stage never moves back.
//!
//! The stage is an atomic that a connection loads on every poll. From its first poll on, the
//! connection's waker is in the group, so a change of the stage wakes waiting connections. A change
//! removes the wakers. A connection that sees a new stage registers its waker again.
//!
//! # Locking
//! Wakers are cloned, woken and dropped outside the lock.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use netpoll::time::{Duration, Sleep};

use super::activity::Activity;
use super::lock;

// The stages of a group, in order.
pub(super) const SERVING: u32 = 0;
pub(super) const DRAINING: u32 = 1;
pub(super) const CUT: u32 = 2;

/// The connections of a server.
#[derive(Debug, Default)]
pub(super) struct Group {
    stage: AtomicU32,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// One slot per connection.
    wakers: Vec<Option<Waker>>,
    /// The free slots in `wakers`.
    free: Vec<usize>,
    count: usize,
    /// The server's waker while the server waits for a connection to end.
    server: Option<Waker>,
}

impl Group {
    /// Adds a connection to the group.
    pub(super) fn join(self: &Arc<Group>) -> Member {
        let mut members = lock(&self.members);
        members.count += 1;
        let place = members.free.pop().unwrap_or(members.wakers.len());
        if place == members.wakers.len() {
            members.wakers.push(None);
        }
        drop(members);
        let counted = Arc::new(Counted { group: Arc::clone(self) });
        Member { counted, place, seen: SERVING, waker: None }
    }

    /// Returns `Ready` if there are fewer than `most` connections. Otherwise, returns `Pending`,
    /// and the task is woken when a connection ends.
    pub(super) fn poll_fewer(&self, most: usize, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut members = lock(&self.members);
        if members.count < most {
            return Poll::Ready(());
        }
        let old = members.server.replace(waker);
        drop(members);
        drop(old);
        Poll::Pending
    }

    /// Advances to `stage` and wakes all connections. Does nothing if the group is already in this
    /// stage or a later one, because the connections that have seen the stage would not register
    /// their wakers again.
    pub(super) fn advance(&self, stage: u32) {
        let mut members = lock(&self.members);
        // ORDERING: Release pairs with the Acquire in `Member::stage` of members whose wakers are
        // registered. Other members load the stage under the lock.
        if self.stage.fetch_max(stage, Ordering::Release) >= stage {
            return;
        }
        let wakers: Vec<Waker> = members.wakers.iter_mut().filter_map(Option::take).collect();
        drop(members);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A guard that counts a connection. The last drop of its `Arc` ends the connection for the server.
/// It is shared with the handlers of HTTP/2 requests, because they run in their own tasks, which
/// may end later than the task of the connection.
#[derive(Debug)]
pub(super) struct Counted {
    group: Arc<Group>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut members = lock(&self.group.members);
        members.count -= 1;
        let server = members.server.take();
        drop(members);
        if let Some(server) = server {
            server.wake();
        }
    }
}

/// A connection's membership in its group. Dropping it removes the connection from the group, but
/// the connection counts until no handler has its [`Counted`].
#[derive(Debug)]
pub(super) struct Member {
    counted: Arc<Counted>,
    place: usize,
    /// The stage at the time of the last registration.
    seen: u32,
    /// A clone of the registered waker.
    waker: Option<Waker>,
}

impl Member {
    /// Returns a weak reference to the guard that counts the connection.
    pub(super) fn counted(&self) -> Weak<Counted> {
        Arc::downgrade(&self.counted)
    }

    /// Returns the stage, and registers the task to be woken when the stage changes.
    pub(super) fn stage(&mut self, cx: &mut Context<'_>) -> u32 {
        // ORDERING: pairs with the Release in `Group::advance`.
        let stage = self.counted.group.stage.load(Ordering::Acquire);
        if stage == self.seen && self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return stage;
        }
        let (kept, given) = (cx.waker().clone(), cx.waker().clone());
        let mut members = lock(&self.counted.group.members);
        self.seen = self.counted.group.stage.load(Ordering::Relaxed);
        let old = members.wakers[self.place].replace(given);
        drop(members);
        drop((old, self.waker.replace(kept)));
        self.seen
    }

    /// Awaits `future`. Returns a `TimedOut` error if the future is not ready within `limit`. When
    /// the server stops, returns `None` as soon as the future is pending and no bytes are available
    /// to read. Also returns `None` when all connections are cut off.
    pub(super) async fn while_serving<T, F: Future<Output = io::Result<T>>>(
        &mut self,
        limit: Option<Duration>,
        activity: &Activity,
        future: F,
    ) -> Option<io::Result<T>> {
        let mut future = pin!(future);
        let mut sleep = limit.map_or_else(Sleep::never, Sleep::new);
        poll_fn(|cx| {
            let stage = self.stage(cx);
            if stage == CUT {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if stage == DRAINING && !activity.is_readable() {
                return Poll::Ready(None);
            }
            Pin::new(&mut sleep).poll(cx).map(|()| {
                Some(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no request arrived on the connection within the time limit",
                )))
            })
        })
        .await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = lock(&self.counted.group.members);
        members.free.push(self.place);
        let own = members.wakers[self.place].take();
        drop(members);
        drop(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Regression test: the server advanced to *draining* twice, and the second time removed the
    /// wakers of the members that had seen the stage. They were not woken for *cut*.
    #[test]
    fn member_is_woken_for_cut_after_repeated_advance() {
        let group = Arc::new(Group::default());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut member = group.join();
        assert_eq!(member.stage(&mut cx), SERVING);
        group.advance(DRAINING);
        assert_eq!(member.stage(&mut cx), DRAINING);
        group.advance(DRAINING);
        assert_eq!(member.stage(&mut cx), DRAINING);
        woken.0.store(false, Ordering::Relaxed);
        group.advance(CUT);
        assert!(woken.0.load(Ordering::Relaxed), "the member does not learn that it is cut off");
    }
}
