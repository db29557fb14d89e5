//! [`Waiters`]: a list of the waiters for the same event, such as an edge in one direction of a
//! socket, a lock, a permit, or the end of a close.
//!
//! The list is plain data for use inside a [`Mutex`](crate::sync::Mutex). There are two kinds of
//! waiters:
//!
//! * **Futures** have a key and wait in the order of their arrival. An event wakes *one* of them,
//!   the oldest, unless it wakes all waiters. If a future is no longer in the list and has not
//!   removed itself, it was woken. If such a future is dropped before it makes its call, it passes
//!   the wake-up on. Futures have keys instead of intrusive links, so that named futures are
//!   `Unpin`. A future may wait for *interruption only*: it is woken only by events that wake all
//!   waiters, such as expiry, close or a hang-up.
//! * **Polls** come from `poll_*` methods, which have no object that could pass a wake-up on. The
//!   list has at most one poll per waker (compared by [`Waker::will_wake`]), and each event wakes
//!   *all* of them, in the order of their arrival.
//!
//! # Invariants
//! * W1 — a waker is cloned, woken and dropped outside the lock around the list. Methods return
//!   wakers ([`Wakers`]), and the caller unlocks the list before it uses them.
//! * W2 — a list has at most [`POLLS_MAX`] polls. A task that no longer waits does not remove its
//!   poll. So when a further poll arrives, all stored polls are woken, and the tasks that still
//!   wait poll again.
//! * W3 — on average, no operation takes time proportional to the number of waiters that it does
//!   not wake.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::OnceLock;
use std::task::Waker;

use crate::sync::{MODEL, injected_bug};

/// The key of a waiting future, which is unique for the lifetime of the list.
pub(crate) type Key = NonZeroU64;

/// A waiter: a future, or a task that has called a `poll_*` method. `K` is the state that a future
/// keeps between polls. For a list, this is the key, which is initially `None`.
#[derive(Debug)]
pub(crate) enum Waiter<'a, K = Option<Key>> {
    Future(&'a mut K),
    Poll,
}

impl<'a, K> Waiter<'a, K> {
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Waiter<'_, K> {
        match self {
            Waiter::Future(kept) => Waiter::Future(kept),
            Waiter::Poll => Waiter::Poll,
        }
    }

    /// Returns the waiter with the part of the future's state that `part` selects.
    #[inline]
    pub(crate) fn map<T>(self, part: impl FnOnce(&'a mut K) -> &'a mut T) -> Waiter<'a, T> {
        match self {
            Waiter::Future(kept) => Waiter::Future(part(kept)),
            Waiter::Poll => Waiter::Poll,
        }
    }

    /// Returns the state of a future, or `None` for a poll.
    #[inline]
    pub(crate) fn future(&self) -> Option<&K> {
        match self {
            Waiter::Future(kept) => Some(kept),
            Waiter::Poll => None,
        }
    }
}

/// The events that wake a waiting future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Every event.
    Event,
    /// Only events that wake all waiters: expiry, close, shutdown, a hang-up or an error.
    Interrupt,
}

/// The maximum number of polls in one list. If more tasks call `poll_*` methods of one direction of
/// a socket, they repeatedly wake each other.
pub(crate) const POLLS_MAX: usize = if MODEL { 2 } else { 4096 };

/// The bit of a key that marks [`Interest::Interrupt`]. The keys of a
/// [`WaitSlot`](crate::rt::poll::wait_slot::WaitSlot) do not use it; their flags are the bits from
/// 61 on.
const INTERRUPT_ONLY: u64 = 1 << 60;

/// Returns whether a key is that of a future with [`Interest::Interrupt`].
pub(crate) fn is_of_interrupt(key: Key) -> bool {
    key.get() & INTERRUPT_ONLY != 0
}

/// A queue keeps at most this many vacated places more than occupied ones.
const VACATED_MAX: usize = 32;

/// Futures in the order of their keys.
#[derive(Debug)]
struct Queue {
    /// The places. A vacated place has no waker. The first place is occupied.
    places: VecDeque<(Key, Option<Waker>)>,
    /// The number of occupied places.
    taken: usize,
}

impl Queue {
    const fn new() -> Queue {
        Queue { places: VecDeque::new(), taken: 0 }
    }

    fn find(&mut self, key: Key) -> Option<&mut Option<Waker>> {
        let at = self.places.partition_point(|place| place.0 < key);
        self.places.get_mut(at).filter(|place| place.0 == key).map(|place| &mut place.1)
    }

    fn push(&mut self, key: Key, waker: Waker) {
        self.places.push_back((key, Some(waker)));
        self.taken += 1;
    }

    fn take(&mut self, key: Key) -> Option<Waker> {
        let waker = self.find(key)?.take()?;
        self.count_vacated();
        Some(waker)
    }

    /// Takes the oldest waker.
    fn pop(&mut self) -> Option<Waker> {
        let waker = self.places.front_mut()?.1.take()?;
        self.count_vacated();
        Some(waker)
    }

    /// Counts a vacated place. Removes the vacated places at the front, and the others if there are
    /// too many. Frees unused memory.
    fn count_vacated(&mut self) {
        self.taken -= 1;
        while self.places.front().is_some_and(|place| place.1.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > 2 * self.taken + VACATED_MAX {
            self.places.retain(|place| place.1.is_some());
        }
        if self.places.capacity() > 4 * (self.taken + VACATED_MAX) {
            self.places.shrink_to(2 * (self.taken + VACATED_MAX));
        }
    }

    fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        self.taken = 0;
        std::mem::take(&mut self.places).into_iter().filter_map(|place| place.1)
    }
}

/// The identity of a waker, as compared by [`Waker::will_wake`].
type Identity = (usize, usize);

fn identity(waker: &Waker) -> Identity {
    (waker.data().addr(), ptr::from_ref(waker.vtable()).addr())
}

/// A list of waiters; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Waiters {
    events: Queue,
    interrupts: Queue,
    /// The wakers of polls, each with a number that increases in the order of arrival.
    polls: BTreeMap<Identity, (u64, Waker)>,
    /// The total number of keys and arrival numbers that were issued.
    keys: u64,
}

impl Waiters {
    pub(crate) const fn new() -> Waiters {
        Waiters { events: Queue::new(), interrupts: Queue::new(), polls: BTreeMap::new(), keys: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of waiters of both kinds.
    pub(crate) fn len(&self) -> usize {
        self.events.taken + self.interrupts.taken + self.polls.len()
    }

    fn queue(&mut self, key: Key) -> &mut Queue {
        if key.get() & INTERRUPT_ONLY == 0 { &mut self.events } else { &mut self.interrupts }
    }

    fn place(&mut self, key: Key) -> Option<&mut Waker> {
        self.queue(key).find(key)?.as_mut()
    }

    /// Returns whether the future `key` is in the list with a waker that is equivalent to `waker`.
    pub(crate) fn holds(&mut self, key: Key, waker: &Waker) -> bool {
        self.place(key).is_some_and(|held| held.will_wake(waker))
    }

    /// Stores `waker` for the future `key`. If `key` is `None` or no longer in the list, adds a new
    /// future at the end. Returns the key and the replaced waker, which the caller must drop
    /// outside the lock.
    #[must_use]
    pub(crate) fn insert(&mut self, key: Option<Key>, interest: Interest, waker: Waker) -> (Key, Option<Waker>) {
        if let Some(key) = key
            && let Some(held) = self.place(key)
        {
            return (key, Some(std::mem::replace(held, waker)));
        }
        (self.push(interest, waker), None)
    }

    /// Adds a new future at the end, and returns its key.
    pub(crate) fn push(&mut self, interest: Interest, waker: Waker) -> Key {
        let kind = if interest == Interest::Interrupt { INTERRUPT_ONLY } else { 0 };
        let key = Key::MIN.saturating_add(self.keys) | kind;
        self.keys += 1;
        self.queue(key).push(key, waker);
        key
    }

    /// Removes the future `key` and returns its waker. Returns `None` if the future is not in the
    /// list, for example because it was woken.
    #[must_use]
    pub(crate) fn remove(&mut self, key: Key) -> Option<Waker> {
        self.queue(key).take(key)
    }

    /// Stores the waker of a poll. If an equivalent waker is already stored, returns `waker`, which
    /// the caller must drop outside the lock. If there are too many polls, moves them to `wakers`
    /// (W2).
    #[must_use]
    pub(crate) fn insert_poll(&mut self, waker: Waker, wakers: &mut Wakers) -> Option<Waker> {
        let identity = identity(&waker);
        if self.polls.contains_key(&identity) {
            return Some(waker);
        }
        if self.polls.len() >= POLLS_MAX && !injected_bug!("polls_pile_up") {
            self.take_polls(wakers);
        }
        self.keys += 1;
        self.polls.insert(identity, (self.keys, waker)).map(|(_, waker)| waker)
    }

    /// Takes the wakers that one event wakes: those of all polls and of the oldest future that
    /// waits for events.
    pub(crate) fn take_event(&mut self, wakers: &mut Wakers) {
        self.take_polls(wakers);
        wakers.extend(self.events.pop());
    }

    /// Takes the wakers of all polls, for an event that has already woken a future outside the
    /// list.
    pub(crate) fn take_polls(&mut self, wakers: &mut Wakers) {
        // Sorted by arrival, because the order of the map depends on addresses, which differ from
        // run to run.
        let mut polls: Vec<_> = std::mem::take(&mut self.polls).into_values().collect();
        polls.sort_unstable_by_key(|&(arrival, _)| arrival);
        wakers.extend(polls.into_iter().map(|(_, waker)| waker));
    }

    /// Takes all wakers, for an event that wakes all waiters.
    pub(crate) fn take_all(&mut self, wakers: &mut Wakers) {
        self.take_polls(wakers);
        wakers.extend(self.events.take_all().chain(self.interrupts.take_all()));
    }
}

impl Default for Waiters {
    fn default() -> Waiters {
        Waiters::new()
    }
}

/// Wakers that were taken out of lists and that the caller must wake when it holds no lock. The
/// first waker is stored inline. The own wakers of tasks, which run no user code, are separate, so
/// that they can be woken first.
#[derive(Debug, Default)]
#[must_use = "wakers that are dropped instead of woken are lost wake-ups"]
pub(crate) struct Wakers {
    one: Option<Waker>,
    rest: Vec<Waker>,
    own: Vec<Waker>,
}

impl Wakers {
    pub(crate) const fn new() -> Wakers {
        Wakers { one: None, rest: Vec::new(), own: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, waker: Waker) {
        if self.one.is_none() {
            self.one = Some(waker);
        } else {
            self.rest.push(waker);
        }
    }

    /// Adds the own waker of a task; see [`own_waker`](crate::rt::sched::own_waker).
    #[inline]
    pub(crate) fn push_own(&mut self, waker: Waker) {
        self.own.push(waker);
    }

    /// Moves the own wakers of tasks to the end of the other wakers.
    pub(crate) fn demote_own(&mut self) {
        let mut own = std::mem::take(&mut self.own);
        self.extend(own.drain(..));
        // Keeps the allocation.
        self.own = own;
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.one.is_some()) + self.rest.len() + self.own.len()
    }

    /// Takes all wakers.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.own.drain(..).chain(self.one.take()).chain(self.rest.drain(..))
    }

    /// Returns the own wakers of tasks in order.
    #[inline]
    pub(crate) fn own(&mut self) -> &mut Vec<Waker> {
        &mut self.own
    }

    /// Returns the first of the other wakers, and the rest of them in order.
    pub(crate) fn parts(&mut self) -> (&mut Option<Waker>, &mut Vec<Waker>) {
        (&mut self.one, &mut self.rest)
    }

    /// Wakes all wakers, and returns their number. A waker is user code: if one panics, the panic
    /// is caught and the remaining wakers are still woken. Keeps the allocation.
    ///
    /// The own wakers of tasks come first. If there are several wakers and the runtime runs, except
    /// in a simulation, they come last, and if a waker blocks, another thread wakes the remaining
    /// wakers, unless sysmon is missing. The order within both groups is kept.
    pub(crate) fn wake_all(&mut self) -> usize {
        let woken = self.len();
        match WATCHED.get() {
            _ if woken == 0 => {}
            Some(call) if woken > 1 => call(self),
            _ => self.wake_in_place(),
        }
        woken
    }

    /// Wakes all wakers on this thread.
    pub(crate) fn wake_in_place(&mut self) {
        self.own.drain(..).for_each(wake);
        if let Some(first) = self.one.take() {
            wake(first);
            self.rest.drain(..).for_each(wake);
        }
    }
}

/// The function that wakes several wakers so that another thread can take over. It belongs to a
/// higher layer, which registers it.
static WATCHED: OnceLock<fn(&mut Wakers)> = OnceLock::new();

/// Registers the function that wakes several wakers. Later calls, which pass the same function,
/// have no effect.
pub(crate) fn watch_with(call: fn(&mut Wakers)) {
    let _ = WATCHED.set(call);
}

/// Calls `take`, which must release its locks before it returns, and then wakes the wakers that it
/// has taken.
pub(crate) fn wake_taken(take: impl FnOnce(&mut Wakers)) {
    let mut wakers = Wakers::new();
    take(&mut wakers);
    wakers.wake_all();
}

/// Wakes a task and catches a panic of its waker.
#[inline(always)]
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        drop_payload(payload);
    }
}

/// Drops the payload of a panic in user code. The destructor is also user code: if it panics, the
/// payload of this second panic is leaked.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
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
    use crate::counting_waker::CountingWaker;
    use std::panic::panic_any;
    use std::sync::Arc;
    use std::task::Wake;

    /// A panic payload that panics again when it is dropped.
    struct Bomb {
        _token: Arc<()>,
        again: bool,
    }

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.again || std::thread::panicking(), "an intended panic in the destructor of a payload");
        }
    }

    struct Throws(Arc<()>, bool);

    impl Wake for Throws {
        fn wake(self: Arc<Throws>) {
            panic_any(Bomb { _token: self.0.clone(), again: self.1 });
        }
    }

    /// A waiter of the oracle: its key (`None` for a poll), its interest, and the counter of its
    /// wake-ups.
    type Waiting = (Option<Key>, Interest, Arc<CountingWaker>);

    /// Wakes all wakers on this thread, and returns their number. Other tests start the runtime, so
    /// `wake_all` might leave wakers to another thread if this thread is delayed.
    fn wake_here(wakers: &mut Wakers) -> usize {
        let woken = wakers.len();
        wakers.wake_in_place();
        woken
    }

    /// The list must behave like one queue of futures and a set of polls.
    #[test]
    fn list_agrees_with_an_oracle() {
        let mut random = numbers(7);
        let mut list = Waiters::new();
        let mut oracle: Vec<Waiting> = Vec::new();
        let mut wakers = Wakers::new();
        for _ in 0..100_000 {
            let mut expected: Vec<Arc<CountingWaker>> = Vec::new();
            match random() % 8 {
                kind @ 0..=2 => {
                    let count = Arc::new(CountingWaker::default());
                    let interest = if kind == 0 { Interest::Interrupt } else { Interest::Event };
                    oracle.push((Some(list.push(interest, count.clone().into())), interest, count));
                }
                3 => {
                    let count = Arc::new(CountingWaker::default());
                    assert!(list.insert_poll(count.clone().into(), &mut wakers).is_none());
                    assert!(list.insert_poll(count.clone().into(), &mut wakers).is_some());
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
                    list.take_event(&mut wakers);
                    let oldest = oracle.iter().find(|(key, interest, _)| key.is_some() && *interest == Interest::Event);
                    let oldest = oldest.and_then(|waiting| waiting.0);
                    oracle.retain(|(key, _, count)| {
                        let woken = key.is_none() || *key == oldest;
                        expected.extend(woken.then(|| count.clone()));
                        !woken
                    });
                }
            }
            assert_eq!(wake_here(&mut wakers), expected.len());
            assert!(expected.iter().all(|count| count.wakeups() == 1));
            assert!(oracle.iter().all(|waiting| waiting.2.wakeups() == 0));
            assert_eq!((list.len(), list.is_empty()), (oracle.len(), oracle.is_empty()));
        }
    }

    /// xorshift64*, with the same numbers on every run.
    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
        }
    }

    #[test]
    fn poll_is_stored_once() {
        let (mut waiters, mut wakers) = (Waiters::new(), Wakers::new());
        let counts = [(); 4].map(|()| Arc::new(CountingWaker::default()));
        for round in 0..3 {
            for count in &counts {
                let unused = waiters.insert_poll(count.clone().into(), &mut wakers);
                assert_eq!(unused.is_some(), round > 0);
            }
            assert_eq!((waiters.len(), wakers.len()), (counts.len(), 0));
        }
        waiters.take_polls(&mut wakers);
        assert_eq!((wake_here(&mut wakers), waiters.len()), (counts.len(), 0));
        assert!(counts.iter().all(|count| count.wakeups() == 1));
    }

    #[test]
    fn polls_are_woken_in_order_of_arrival() {
        struct Tells(usize, Arc<std::sync::Mutex<Vec<usize>>>);
        impl Wake for Tells {
            fn wake(self: Arc<Tells>) {
                self.1.lock().unwrap().push(self.0);
            }
        }
        let (mut waiters, mut wakers, told) = (Waiters::new(), Wakers::new(), Arc::default());
        let mut all: Vec<Waker> = (0..20).map(|number| Arc::new(Tells(number, Arc::clone(&told))).into()).collect();
        // The wakers are inserted in an order that is neither ascending nor descending by address.
        all.sort_by_key(|waker| (waker.data().addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        all.iter().for_each(|waker| assert!(waiters.insert_poll(waker.clone(), &mut wakers).is_none()));
        waiters.take_polls(&mut wakers);
        assert_eq!(wake_here(&mut wakers), 20);
        let woken = std::mem::take(&mut *told.lock().unwrap());
        all.into_iter().for_each(Waker::wake);
        assert_eq!(woken, *told.lock().unwrap());
    }

    /// Tasks poll with a new waker each time, while no event arrives.
    #[test]
    fn polls_with_new_wakers_do_not_accumulate() {
        let (mut waiters, mut wakers, mut woken) = (Waiters::new(), Wakers::new(), 0);
        for polls in 1..=10 * POLLS_MAX {
            assert!(waiters.insert_poll(Arc::new(CountingWaker::default()).into(), &mut wakers).is_none());
            woken += wake_here(&mut wakers);
            assert!(waiters.len() <= POLLS_MAX && waiters.len() + woken == polls);
        }
    }

    #[test]
    fn polls_up_to_the_maximum_are_kept() {
        let (mut waiters, mut wakers) = (Waiters::new(), Wakers::new());
        let all: Vec<Waker> = (0..POLLS_MAX).map(|_| Arc::new(CountingWaker::default()).into()).collect();
        for _ in 0..3 {
            all.iter().for_each(|waker| drop(waiters.insert_poll(waker.clone(), &mut wakers)));
            assert_eq!((waiters.len(), wakers.len()), (POLLS_MAX, 0));
        }
    }

    /// Many futures leave the list in the most expensive order (W3).
    #[test]
    fn vacated_places_do_not_accumulate_when_many_futures_leave() {
        const COUNT: usize = 200_000;
        let (mut waiters, mut wakers) = (Waiters::new(), Wakers::new());
        let interest = |n: usize| if n.is_multiple_of(2) { Interest::Event } else { Interest::Interrupt };
        let waker = Waker::from(Arc::new(CountingWaker::default()));
        let mut keys: Vec<Key> = (0..COUNT).map(|n| waiters.push(interest(n), waker.clone())).collect();
        assert_eq!(waiters.len(), COUNT);
        // Beginning in the middle, with a look-up of each future before its removal.
        keys.rotate_left(COUNT / 2);
        for (left, &key) in keys[..COUNT - 2].iter().enumerate() {
            assert!(waiters.holds(key, &waker) && waiters.remove(key).is_some() && waiters.remove(key).is_none());
            let places = waiters.events.places.len() + waiters.interrupts.places.len();
            assert!(places <= 2 * (COUNT - 1 - left) + 2 * VACATED_MAX, "{places} places for {}", COUNT - 1 - left);
        }
        waiters.take_event(&mut wakers);
        assert_eq!((wake_here(&mut wakers), waiters.len()), (1, 1), "the other waits for interruption only");
        assert!(
            waiters.events.places.capacity() <= 4 * VACATED_MAX,
            "{} places are kept",
            waiters.events.places.capacity()
        );
    }

    #[test]
    fn payload_of_a_panicking_waker_is_not_leaked() {
        let token = Arc::new(());
        for again in [false, true] {
            let mut wakers = Wakers::new();
            for _ in 0..3 {
                wakers.push(Waker::from(Arc::new(Throws(token.clone(), again))));
            }
            assert_eq!(wake_here(&mut wakers), 3);
            assert_eq!(Arc::strong_count(&token), 1, "payloads are kept");
        }
    }
}
