//! The list of wakers that wait for one thing: an edge in one direction of a socket, or one side of an `FdMutex`.
//!
//! Plain data for use inside a [`Mutex`](crate::sync::Mutex). Two kinds of waiter differ in how many of them one event may wake:
//!
//! * **futures** have a key, wait in order of arrival and are woken *one at a time*. A future that is gone from the list
//!   without having removed itself knows that it was woken; when it is dropped before it acts it passes the wake-up on.
//!   Keyed instead of intrusive, so that named futures stay `Unpin`. A future may wait for *interruption only*
//!   (expiry or close); it sits in the list but no ordinary event takes it.
//! * **polls** come from `poll_*` methods, which have no object that could pass a wake-up on. They are de-duplicated by
//!   `will_wake`, and *all* of them are taken by each event.
//!
//! # Invariants
//! * W1 — a waker is cloned, woken and dropped outside the lock that holds the list: methods hand wakers out
//!   ([`Wakers`]) and the caller lets go of the lock first.
//! * W2 — the list allocates only for a second waiter: the usual case, one reader, has its place inline.
//! * W3 — the oldest future is the inline one or, where a poll or nobody is inline, the first of the others.
//! * W4 — polls of tasks that have lost interest, of whom nobody hears, do not pile up where no event comes: now and then all are woken,
//!   and those that still wait come again.

use std::any::Any;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::{Duration, Instant};

/// A waiting future's place in a list; unique for the list's life.
pub(crate) type Key = NonZeroU64;

/// What may take a waiting future out of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Every event.
    Event,
    /// Only what ends the wait for everybody: expiry, close, shutdown.
    Interrupt,
}

/// So many polls are kept without asking whether anybody still waits for them. Of more, twice as many as come within [`POLLS_TIME`].
const POLLS_MIN: usize = 64;
const POLLS_TIME: Duration = Duration::from_secs(1);

const INTERRUPT_ONLY: u64 = 1 << 63;

/// The tag of a poll.
const POLL: u64 = 0;

#[derive(Debug)]
struct Entry {
    /// [`POLL`], or the key, with [`INTERRUPT_ONLY`] in its top bit.
    tag: u64,
    waker: Waker,
}

impl Entry {
    fn is(&self, key: Key) -> bool {
        self.tag & !INTERRUPT_ONLY == key.get()
    }

    fn takes_events(&self) -> bool {
        self.tag & INTERRUPT_ONLY == 0
    }

    fn is_poll(&self) -> bool {
        self.tag == POLL
    }
}

#[derive(Debug, Default)]
struct More {
    futures: VecDeque<Entry>,
    polls: Vec<Waker>,
    /// How many are kept; below [`POLLS_MIN`]: that many. When there were as many last.
    polls_most: usize,
    polls_full: Option<Instant>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    first: Option<Entry>,
    more: Option<Box<More>>,
    last_key: u64,
}

impl Waiters {
    pub(crate) const fn new() -> Waiters {
        Waiters { first: None, more: None, last_key: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.as_ref().is_none_or(|more| more.futures.is_empty() && more.polls.is_empty())
    }

    /// Waiters of both kinds, for counters and tests.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.as_ref().map_or(0, |more| more.futures.len() + more.polls.len())
    }

    /// Whether there are more than `most`, which is at least 1: nobody counts where there is no list.
    #[inline]
    pub(crate) fn is_beyond(&self, most: usize) -> bool {
        self.more.is_some() && self.len() > most
    }

    fn entry_mut(&mut self, key: Key) -> Option<&mut Entry> {
        let found = |entry: &&mut Entry| entry.is(key);
        self.first.as_mut().filter(found).or_else(|| self.more.as_mut()?.futures.iter_mut().find(|e| found(e)))
    }

    /// Whether the future `key` waits here with a waker that would wake the same task as `waker`.
    pub(crate) fn holds(&mut self, key: Key, waker: &Waker) -> bool {
        self.entry_mut(key).is_some_and(|entry| entry.waker.will_wake(waker))
    }

    /// Stores `waker` for the future `key`, which is a new one (at the tail) where `key` is none or no longer here.
    /// Returns the key and the waker it replaced, to be dropped outside the lock.
    #[must_use]
    pub(crate) fn insert(&mut self, key: Option<Key>, interest: Interest, waker: Waker) -> (Key, Option<Waker>) {
        if let Some(key) = key
            && let Some(entry) = self.entry_mut(key)
        {
            return (key, Some(std::mem::replace(&mut entry.waker, waker)));
        }
        (self.push(interest, waker), None)
    }

    /// Stores the waker of a new future, at the tail, and returns its key.
    #[inline(always)]
    pub(crate) fn push(&mut self, interest: Interest, waker: Waker) -> Key {
        let key = Key::MIN.saturating_add(self.last_key);
        self.last_key = key.get();
        let tag = if interest == Interest::Interrupt { key.get() | INTERRUPT_ONLY } else { key.get() };
        let entry = Entry { tag, waker };
        if self.first.is_none() && self.more.is_none() {
            self.first = Some(entry);
        } else {
            self.push_beside(entry);
        }
        key
    }

    #[cold]
    fn push_beside(&mut self, entry: Entry) {
        let more = self.more.get_or_insert_default();
        if self.first.is_none() && more.futures.is_empty() {
            self.first = Some(entry);
        } else {
            more.futures.push_back(entry);
        }
    }

    /// Takes the future `key` out. `None` says that it was woken, or never here.
    #[must_use]
    pub(crate) fn remove(&mut self, key: Key) -> Option<Waker> {
        if self.first.as_ref().is_some_and(|entry| entry.is(key)) {
            let entry = self.first.take();
            self.promote();
            return entry.map(|entry| entry.waker);
        }
        let futures = &mut self.more.as_mut()?.futures;
        let at = futures.iter().position(|entry| entry.is(key))?;
        futures.remove(at).map(|entry| entry.waker)
    }

    /// Moves the oldest of the other futures into the place inline, which is empty.
    fn promote(&mut self) {
        if let Some(more) = &mut self.more {
            self.first = more.futures.pop_front();
        }
    }

    /// Whether a poll with a waker like this one is stored already.
    pub(crate) fn holds_poll(&self, waker: &Waker) -> bool {
        self.first.as_ref().is_some_and(|entry| entry.is_poll() && entry.waker.will_wake(waker))
            || self.more.as_ref().is_some_and(|more| more.polls.iter().any(|held| held.will_wake(waker)))
    }

    /// Before one is stored: takes out the polls where they have become too many (W4).
    pub(crate) fn take_old_polls(&mut self, now: impl FnOnce() -> Instant, wakers: &mut Wakers) {
        let Some(more) = &mut self.more else { return };
        let most = more.polls_most.max(POLLS_MIN);
        if more.polls.len() < most {
            return;
        }
        let now = now();
        if more.polls_full.replace(now).is_none_or(|last| now.saturating_duration_since(last) < POLLS_TIME) {
            more.polls_most = most * 2;
        }
        wakers.extend(more.polls.drain(..));
    }

    /// Stores a poll's waker; the caller has asked [`holds_poll`](Waiters::holds_poll) under the same lock.
    pub(crate) fn insert_poll(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(Entry { tag: POLL, waker });
        } else {
            self.more.get_or_insert_default().polls.push(waker);
        }
    }

    /// What one event wakes: every poll and the oldest future that waits for events. Returns whether the list is empty now.
    #[inline(always)]
    pub(crate) fn take_event(&mut self, wakers: &mut Wakers) -> bool {
        if self.more.is_some() {
            return self.take_event_of_many(wakers);
        }
        if let Some(entry) = self.first.take_if(|entry| entry.takes_events()) {
            wakers.push(entry.waker);
        }
        self.first.is_none()
    }

    #[cold]
    fn take_event_of_many(&mut self, wakers: &mut Wakers) -> bool {
        let first = self.first.take_if(|entry| entry.takes_events());
        let is_future = first.as_ref().is_some_and(|entry| !entry.is_poll());
        wakers.extend(first.map(|entry| entry.waker));
        if let Some(more) = &mut self.more {
            wakers.extend(more.polls.drain(..));
            if !is_future && let Some(at) = more.futures.iter().position(Entry::takes_events) {
                wakers.extend(more.futures.remove(at).map(|entry| entry.waker));
            }
        }
        if self.first.is_none() {
            self.promote();
        }
        self.is_empty()
    }

    /// What an event wakes that has woken a future elsewhere: every poll.
    pub(crate) fn take_polls(&mut self, wakers: &mut Wakers) {
        if let Some(entry) = self.first.take_if(|entry| entry.is_poll()) {
            wakers.push(entry.waker);
            self.promote();
        }
        if let Some(more) = &mut self.more {
            wakers.extend(more.polls.drain(..));
        }
    }

    /// What expiry and close wake: everybody.
    pub(crate) fn take_all(&mut self, wakers: &mut Wakers) {
        wakers.extend(self.first.take().map(|entry| entry.waker));
        if let Some(more) = self.more.take() {
            wakers.extend(more.polls);
            wakers.extend(more.futures.into_iter().map(|entry| entry.waker));
        }
    }
}

/// Wakers taken out of lists, to be woken when no lock is held. One is kept inline.
#[derive(Debug, Default)]
#[must_use = "wakers that are dropped instead of woken are lost wake-ups"]
pub(crate) struct Wakers {
    one: Option<Waker>,
    rest: Vec<Waker>,
}

impl Wakers {
    pub(crate) const fn new() -> Wakers {
        Wakers { one: None, rest: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, waker: Waker) {
        if self.one.is_none() {
            self.one = Some(waker);
        } else {
            self.rest.push(waker);
        }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.one.is_some()) + self.rest.len()
    }

    /// Takes all of them out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.one.take().into_iter().chain(self.rest.drain(..))
    }

    /// Wakes each, in the order in which they were taken, and keeps the allocation. A waker is foreign code: a panic in
    /// one is contained, the others are still woken. Returns how many were woken.
    pub(crate) fn wake_all(&mut self) -> usize {
        let Some(first) = self.one.take() else { return 0 };
        wake(first);
        let woken = 1 + self.rest.len();
        if woken > 1 {
            self.rest.drain(..).for_each(wake);
        }
        woken
    }
}

/// Wakes a task and contains the panic of its waker.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        let_go(payload);
    }
}

/// Drops what a panic of foreign code threw, which is foreign too: should it panic in turn, only what that throws is forgotten.
pub(crate) fn let_go(payload: Box<dyn Any + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
}

impl Extend<Waker> for Wakers {
    fn extend<I: IntoIterator<Item = Waker>>(&mut self, wakers: I) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// Throws itself, and panics once more when that is dropped.
    struct Bomb {
        _token: Arc<()>,
        again: bool,
    }

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.again || std::thread::panicking(), "in a payload, on purpose");
        }
    }

    struct Throws(Arc<()>, bool);

    impl Wake for Throws {
        fn wake(self: Arc<Throws>) {
            panic_any(Bomb { _token: self.0.clone(), again: self.1 });
        }
    }

    /// A waiter of the oracle: its key (none for a poll), what it waits for, its waker's count.
    type Waiting = (Option<Key>, Interest, Arc<Count>);

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wherever a waiter has its place, the list is one queue of futures beside a set of polls.
    #[test]
    fn the_list_agrees_with_an_oracle() {
        let mut random = numbers(7);
        let mut list = Waiters::new();
        let mut oracle: Vec<Waiting> = Vec::new();
        let mut wakers = Wakers::new();
        for _ in 0..100_000 {
            let mut expected: Vec<Arc<Count>> = Vec::new();
            match random() % 8 {
                kind @ 0..=2 => {
                    let count = Arc::new(Count::default());
                    let interest = if kind == 0 { Interest::Interrupt } else { Interest::Event };
                    oracle.push((Some(list.push(interest, count.clone().into())), interest, count));
                }
                3 => {
                    let count = Arc::new(Count::default());
                    list.insert_poll(count.clone().into());
                    assert!(list.holds_poll(&count.clone().into()));
                    oracle.push((None, Interest::Event, count));
                }
                4 if !oracle.is_empty() => {
                    let (key, _, count) = &oracle[random() as usize % oracle.len()];
                    if let (&Some(key), count) = (key, count.clone()) {
                        assert!(list.remove(key).is_some_and(|waker| waker.will_wake(&count.into())));
                        assert!(list.remove(key).is_none());
                        oracle.retain(|waiting| waiting.0 != Some(key));
                    }
                }
                5 if random().is_multiple_of(8) => {
                    list.take_all(&mut wakers);
                    expected.extend(oracle.drain(..).map(|waiting| waiting.2));
                }
                _ => {
                    let is_empty = list.take_event(&mut wakers);
                    let oldest = oracle.iter().find(|(key, interest, _)| key.is_some() && *interest == Interest::Event);
                    let oldest = oldest.and_then(|waiting| waiting.0);
                    oracle.retain(|(key, _, count)| {
                        let woken = key.is_none() || *key == oldest;
                        expected.extend(woken.then(|| count.clone()));
                        !woken
                    });
                    assert_eq!(is_empty, oracle.is_empty());
                }
            }
            assert_eq!(wakers.wake_all(), expected.len());
            assert!(expected.iter().all(|count| count.0.load(Ordering::SeqCst) == 1));
            assert!(oracle.iter().all(|waiting| waiting.2.0.load(Ordering::SeqCst) == 0));
            assert_eq!((list.len(), list.is_empty()), (oracle.len(), oracle.is_empty()));
        }
    }

    /// xorshift64*: the same numbers on every run.
    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
        }
    }

    struct Silent;

    impl Wake for Silent {
        fn wake(self: Arc<Silent>) {}
    }

    #[test]
    fn a_bound_is_beyond_reach_until_it_is_passed() {
        let mut waiters = Waiters::new();
        for count in 1..8 {
            let _ = waiters.push(Interest::Event, Waker::noop().clone());
            assert_eq!(waiters.len(), count);
            assert_eq!([3, 4, 5].map(|most| waiters.is_beyond(most)), [3, 4, 5].map(|most| count > most));
        }
    }

    #[test]
    fn a_poll_that_is_held_is_known_wherever_it_is_kept() {
        let mut waiters = Waiters::new();
        let wakers = [(); 4].map(|()| Waker::from(Arc::new(Silent)));
        for waker in &wakers {
            assert!(!waiters.holds_poll(waker));
            waiters.insert_poll(waker.clone());
            assert!(waiters.holds_poll(waker));
        }
        assert!(wakers.iter().all(|waker| waiters.holds_poll(waker)));
    }

    /// A task that polls through wakers of its making, a new one each time, on a socket that is silent.
    #[test]
    fn polls_that_nobody_waits_for_do_not_pile_up() {
        let (mut waiters, mut wakers, start) = (Waiters::new(), Wakers::new(), Instant::now());
        for beat in 0..10_000 {
            waiters.take_old_polls(|| start + Duration::from_millis(100) * beat, &mut wakers);
            wakers.wake_all();
            waiters.insert_poll(Waker::from(Arc::new(Silent)));
            assert!(waiters.len() <= 2 * POLLS_MIN + 1, "{} after {beat}", waiters.len());
        }
    }

    /// Beside the one inline: the bound doubles where it is reached twice within the time.
    #[test]
    fn polls_are_taken_when_they_are_as_many_as_the_bound() {
        let (mut waiters, mut wakers, start) = (Waiters::new(), Wakers::new(), Instant::now());
        waiters.insert_poll(Waker::noop().clone());
        let mut bound_at = |seconds| {
            for beside in 0.. {
                waiters.take_old_polls(|| start + POLLS_TIME * seconds, &mut wakers);
                if wakers.len() > 0 {
                    assert_eq!((wakers.wake_all(), waiters.len()), (beside, 1));
                    return beside;
                }
                waiters.insert_poll(Waker::noop().clone());
            }
            unreachable!()
        };
        assert_eq!([0, 0, 1, 2, 2].map(&mut bound_at), [64, 128, 256, 256, 256]);
    }

    #[test]
    fn polls_that_come_again_are_left_alone_in_the_end() {
        let (mut waiters, mut wakers) = (Waiters::new(), Wakers::new());
        let all: Vec<Arc<Count>> = (0..1000).map(|_| Arc::default()).collect();
        let (mut absent, mut woken) = ((0..all.len()).collect::<Vec<_>>(), 0);
        while let Some(index) = absent.pop() {
            waiters.take_old_polls(Instant::now, &mut wakers);
            woken += wakers.wake_all();
            absent.extend((0..all.len()).filter(|&index| all[index].0.swap(0, Ordering::SeqCst) > 0));
            waiters.insert_poll(all[index].clone().into());
        }
        assert_eq!(waiters.len(), all.len());
        assert!(woken < 2 * all.len(), "{woken}");
    }

    #[test]
    fn what_a_panicking_waker_throws_is_not_leaked() {
        let token = Arc::new(());
        for again in [false, true] {
            let mut wakers = Wakers::new();
            for _ in 0..3 {
                wakers.push(Waker::from(Arc::new(Throws(token.clone(), again))));
            }
            assert_eq!(wakers.wake_all(), 3);
            assert_eq!(Arc::strong_count(&token), 1, "payloads are kept");
        }
    }
}
