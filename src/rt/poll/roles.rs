//! [`Roles`]: the shards of the poller, and the rules for which thread polls which shard.
//!
//! A shard is an instance of the back end with a [`Role`]. A descriptor stays in the shard in which
//! it was registered, even if its task moves to another thread. A shard is *open* from its first
//! registration to the shutdown. Shard 0 always counts as open.
//!
//! Each processor has an *own* shard. Its *home* is its own shard if that shard is open, and shard
//! 0 otherwise. The timers of a processor belong to its home, and those of threads without a
//! processor to shard 0.
//!
//! # Which shards a thread polls
//! An open shard is *free* if no thread has its role. A thread that owns a processor and has no
//! work [takes](Roles::take) the roles of these shards, and sleeps in all of them until an event
//! arrives or their earliest timer is due:
//! 1. its home, if it is free;
//! 2. the free shards that no thread except sysmon has polled for [`STALE_NANOS`], for example
//!    because their workers are in long turns;
//! 3. all free shards, if no other thread is awake.
//!
//! A worker that gets no role may look for events (`looks.rs`) before it rests. A busy worker polls
//! the shards of rules 1 and 2 without waiting. A thread in `block_on` that polls takes all free
//! shards, and so does a thread that stands in for the runtime's threads (`shortage.rs`). Sysmon
//! checks each shard. If no thread polls a shard, sysmon interrupts a sleeping thread, which then
//! also takes this shard. If no thread sleeps, or if this has not helped, sysmon polls the shard
//! itself.
//!
//! # Invariants
//! * R1 (`runtime.rs`) — while a descriptor is registered or a timer is armed, and the start of
//!   threads is neither refused nor deferred (`shortage.rs`): if no thread is awake, the role of
//!   every open shard is taken, or some thread is between its step and its check in the table
//!   below, and then makes sure that the role is taken.
//! * D1 (`driver.rs`) — the end of the sleep that is announced in the role of a shard is not later
//!   than any timer of the shard.
//!
//! # Memory ordering
//! All changes of roles, of the set of open shards and of the count of awake threads are SeqCst,
//! and so are the checks below. In each row, two threads each make a step and then a check, so at
//! least one of the checks sees the step of the other thread:
//!
//! | step, then check | step, then check | model |
//! |---|---|---|
//! | announces its sleep and decrements `awake`; are all open shards taken? | releases a role, or opens a shard; is a thread awake? | `some_thread_polls_both_shards`, `shard_opened_against_sleep` |
//! | rests: decrements `awake`; are all open shards taken? | releases a role, or opens a shard; is a thread awake? | `last_awake_thread_polls_both_shards` |
//! | announces its sleep in each shard; is there work? | brings work; does a worker sleep in any shard? | `sleep_in_two_shards_against_inject` |
//! | announces its sleep in each shard; do these have an earlier timer? | arms a timer; does a thread sleep in its shard beyond it? | `timer_against_sleep_in_two_shards` |
//! | announces its sleep in each shard; is the epoch unchanged? | advances the epoch; which threads sleep? | `an_epoch_ends_against_two_sleeps` |

use std::ops::Range;

use crate::rt::poll::role::{By, Role};
use crate::sync::{AtomicU64, Ordering, array_of, const_fn, injected_bug};

/// The maximum number of shards.
pub(crate) const SHARDS_MAX: usize = if crate::sync::MODEL { 2 } else { 64 };

/// The time, in nanoseconds, after which workers of other shards take over a shard that no thread
/// polls.
pub(crate) const STALE_NANOS: u64 = 100_000;

/// A set of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shards(u64);

impl Shards {
    pub(crate) const NONE: Shards = Shards(0);
    pub(crate) const ALL: Shards = Shards(u64::MAX);

    pub(crate) const fn one(shard: usize) -> Shards {
        Shards(1 << shard)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn contains(self, shard: usize) -> bool {
        self.0 >> shard & 1 != 0
    }

    pub(crate) fn with(self, other: Shards) -> Shards {
        Shards(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Shards) -> Shards {
        Shards(self.0 & !other.0)
    }

    /// Returns the first shard. The set must not be empty.
    #[inline]
    pub(crate) fn first(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    /// Returns the shard if the set has exactly one.
    #[inline]
    pub(crate) fn only(self) -> Option<usize> {
        self.0.is_power_of_two().then_some(self.first())
    }
}

impl IntoIterator for Shards {
    type Item = usize;
    type IntoIter = Iter;

    #[inline]
    fn into_iter(self) -> Iter {
        Iter(self.0)
    }
}

impl FromIterator<usize> for Shards {
    #[inline]
    fn from_iter<T: IntoIterator<Item = usize>>(shards: T) -> Shards {
        shards.into_iter().fold(Shards::NONE, |set, shard| set.with(Shards::one(shard)))
    }
}

/// The shards of a set, in order.
#[derive(Debug)]
pub(crate) struct Iter(u64);

impl Iterator for Iter {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let shard = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(shard)
    }
}

/// The state of one shard in [`Roles`], on its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Line {
    role: Role,
    /// The time at which a thread other than sysmon last polled the shard. Not recorded by sleeps
    /// if there is only one shard.
    polled_at: AtomicU64,
}

impl Line {
    const_fn! {
        fn new() -> Line {
            Line { role: Role::new(), polled_at: AtomicU64::new(0) }
        }
    }
}

/// The roles of all shards; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Roles {
    /// The number of shards in the high half, and the number of consecutive processors that own the
    /// same shard in the low half.
    layout: AtomicU64,
    /// The set of open shards.
    open: AtomicU64,
    lines: [Line; SHARDS_MAX],
}

const fn layout(count: usize, processors: usize) -> u64 {
    (count as u64) << 32 | processors as u64
}

/// The layout with one shard for all processors.
const SINGLE: u64 = layout(1, u32::MAX as usize);

impl Roles {
    const_fn! {
        pub(crate) fn new() -> Roles {
            Roles {
                layout: AtomicU64::new(SINGLE),
                open: AtomicU64::new(1),
                lines: array_of![Line::new(); SHARDS_MAX],
            }
        }
    }

    // ---- the layout ----

    /// Sets the number of shards, clamped to the range from 1 to [`SHARDS_MAX`], for `workers`
    /// processors (not counting spare processors). Called by a start of the runtime, which then
    /// closes all shards.
    pub(crate) fn configure(&self, count: usize, workers: usize) {
        let count = count.clamp(1, SHARDS_MAX);
        // ORDERING: Relaxed, here and below: the state of the runtime publishes the layout at a
        // start. A thread of an earlier epoch may still use the earlier layout.
        let layout = if count == 1 { SINGLE } else { layout(count, workers.div_ceil(count).max(1)) };
        self.layout.store(layout, Ordering::Relaxed);
    }

    /// Returns the number of shards, and the number of consecutive processors that own the same
    /// shard.
    fn layout(&self) -> (usize, usize) {
        let layout = self.layout.load(Ordering::Relaxed);
        ((layout >> 32) as usize, layout as u32 as usize)
    }

    /// Returns the number of shards.
    pub(crate) fn count(&self) -> usize {
        self.layout().0
    }

    /// Returns the number of consecutive processors that own the same shard.
    pub(crate) fn processors_each(&self) -> usize {
        self.layout().1
    }

    /// Returns whether there is only one shard.
    #[inline]
    pub(crate) fn is_single(&self) -> bool {
        self.layout.load(Ordering::Relaxed) == SINGLE
    }

    /// Returns the own shard of a processor.
    pub(crate) fn own(&self, processor: usize) -> usize {
        let (count, processors) = self.layout();
        processor / processors % count
    }

    /// Returns the home of a processor.
    #[inline]
    pub(crate) fn home(&self, processor: usize) -> usize {
        if self.is_single() { 0 } else { self.home_of_many(processor) }
    }

    #[cold]
    fn home_of_many(&self, processor: usize) -> usize {
        let own = self.own(processor);
        if self.open().contains(own) { own } else { 0 }
    }

    /// Returns those of the first `len` processors whose home is in `shards`, as ranges.
    pub(crate) fn processors_of(&self, shards: Shards, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (count, processors) = self.layout();
        // Processors whose own shard is not open have shard 0 as home.
        let closed = if count > 1 && shards.contains(0) { Shards::ALL.without(self.open()) } else { Shards::NONE };
        let of = shards.with(closed);
        (0..len)
            .step_by(processors)
            .enumerate()
            .filter(move |(block, _)| of.contains(block % count))
            .map(move |(_, first)| first..first.saturating_add(processors).min(len))
    }

    // ---- open shards ----

    /// Returns the open shards.
    #[inline]
    pub(crate) fn open(&self) -> Shards {
        Shards(self.open.load(Ordering::SeqCst))
    }

    /// Marks a shard as open. Afterwards, a caller that owns no processor must make sure that a
    /// thread polls.
    pub(crate) fn set_open(&self, shard: usize) {
        // ORDERING: SeqCst; see the module documentation.
        self.open.fetch_or(1 << shard, Ordering::SeqCst);
    }

    /// Marks a shard as closed, unless it is shard 0.
    pub(crate) fn set_closed(&self, shard: usize) {
        if shard != 0 {
            self.open.fetch_and(!(1 << shard), Ordering::SeqCst);
        }
    }

    // ---- roles ----

    /// Returns the role of a shard.
    #[inline]
    pub(crate) fn role(&self, shard: usize) -> &Role {
        &self.lines[shard].role
    }

    /// Takes the roles with which a worker whose home is `home` sleeps, by the rules of the [module
    /// documentation](self). `is_last` returns whether no other thread is awake, and `now` returns
    /// the time. Both are called only if several shards are open.
    #[inline]
    pub(crate) fn take(&self, home: usize, is_last: impl FnOnce() -> bool, now: impl FnOnce() -> u64) -> Shards {
        let taken = if self.role(home).try_take() { Shards::one(home) } else { Shards::NONE };
        let others = self.open().without(Shards::one(home));
        if others.is_empty() { taken } else { taken.with(self.take_others(others, is_last(), now())) }
    }

    #[cold]
    fn take_others(&self, others: Shards, is_last: bool, now: u64) -> Shards {
        self.take_each(others.into_iter().filter(|&shard| is_last || self.is_stale(shard, now)))
    }

    /// Takes the roles with which a busy worker polls at `now`, those of its home and of stale
    /// shards. Records the shards as polled.
    pub(crate) fn take_to_look(&self, home: usize, now: u64) -> Shards {
        let taken = self.take(home, || false, || now);
        self.note_polled(taken, now);
        taken
    }

    /// Takes the free roles of all open shards.
    pub(crate) fn take_free(&self) -> Shards {
        self.take_each(self.open().into_iter())
    }

    /// Takes the free roles of `shards`.
    pub(crate) fn take_each(&self, shards: impl Iterator<Item = usize>) -> Shards {
        shards.filter(|&shard| self.role(shard).try_take()).collect()
    }

    /// Returns whether workers of other shards may take a shard at `now`.
    fn is_stale(&self, shard: usize, now: u64) -> bool {
        // ORDERING: Relaxed: a wrong result only delays a poll, because sysmon detects a shard that
        // is not polled.
        now.saturating_sub(self.lines[shard].polled_at.load(Ordering::Relaxed)) >= STALE_NANOS
    }

    /// Returns the shards whose timers a busy worker runs: its home and the stale shards whose
    /// roles are free.
    #[inline]
    pub(crate) fn looked_at(&self, home: usize, now: u64) -> Shards {
        if self.is_single() { Shards::one(0) } else { self.looked_at_by(home, now) }
    }

    #[cold]
    fn looked_at_by(&self, home: usize, now: u64) -> Shards {
        let is_due = |&shard: &usize| shard == home || (!self.role(shard).is_taken() && self.is_stale(shard, now));
        self.open().into_iter().filter(is_due).collect::<Shards>().with(Shards::one(home))
    }

    /// Records that `shards` were polled at `now`.
    pub(crate) fn note_polled(&self, shards: Shards, now: u64) {
        shards.into_iter().for_each(|shard| self.lines[shard].polled_at.store(now, Ordering::Relaxed));
    }

    /// Releases the roles of `shards`.
    #[inline]
    pub(crate) fn release(&self, shards: Shards) {
        shards.into_iter().for_each(|shard| self.role(shard).release());
    }

    /// Announces a sleep until `until` in each shard; see [`Role::sleep`].
    #[inline]
    pub(crate) fn sleep(&self, shards: Shards, until: u64, by: By) {
        let announced = if injected_bug!("sleep_announced_in_one_shard") { shards.take_one() } else { shards };
        announced.into_iter().for_each(|shard| self.role(shard).sleep(until, by));
    }

    /// Ends a sleep in `shards`; see [`Role::rise`].
    #[inline]
    pub(crate) fn rise(&self, shards: Shards) {
        shards.into_iter().for_each(|shard| self.role(shard).rise());
    }

    /// Returns whether the role of each open shard is taken.
    pub(crate) fn are_taken(&self) -> bool {
        let mut open = self.open();
        if injected_bug!("looks_at_one_shard") {
            open = open.take_one();
        }
        open.into_iter().all(|shard| self.role(shard).is_taken())
    }

    /// Returns whether the role of any shard is taken.
    pub(crate) fn is_any_taken(&self) -> bool {
        (0..SHARDS_MAX).any(|shard| self.role(shard).is_taken())
    }

    /// Returns an open shard in which a thread of the kind `by` sleeps, or a thread of any kind if
    /// `by` is `None`. Prefers the shard `first`.
    pub(crate) fn asleep(&self, first: usize, by: Option<By>) -> Option<usize> {
        let is_meant = |&shard: &usize| self.role(shard).asleep().is_some_and(|of| by.is_none_or(|by| by == of));
        Some(first).filter(is_meant).or_else(|| self.open().into_iter().find(is_meant))
    }
}

impl Shards {
    /// Returns a set with only the first shard. Used by injected bugs.
    fn take_one(self) -> Shards {
        self.into_iter().take(1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shards: &[usize]) -> Shards {
        shards.iter().copied().collect()
    }

    fn roles(count: usize, workers: usize, open: &[usize]) -> Roles {
        let roles = Roles::new();
        roles.configure(count, workers);
        open.iter().for_each(|&shard| roles.set_open(shard));
        roles
    }

    #[test]
    fn set_yields_its_shards_in_order() {
        assert_eq!(set(&[63, 5, 0]).into_iter().collect::<Vec<_>>(), [0, 5, 63]);
        assert_eq!((Shards::NONE.len(), Shards::ALL.into_iter().count()), (0, 64));
        assert_eq!((set(&[7]).only(), set(&[7, 9]).only(), Shards::NONE.only()), (Some(7), None, None));
        assert!(set(&[1, 2]).without(set(&[2, 3])) == set(&[1]) && set(&[1, 2]).len() == 2);
    }

    #[test]
    fn consecutive_processors_own_a_shard() {
        let own = |roles: &Roles, ids: [usize; 6]| ids.map(|id| roles.own(id));
        assert_eq!(own(&roles(1, 8, &[]), [0, 1, 7, 8, 100, 511]), [0; 6]);
        assert_eq!(own(&roles(2, 16, &[]), [0, 7, 8, 15, 16, 24]), [0, 0, 1, 1, 0, 1]);
        assert_eq!(own(&roles(4, 2, &[]), [0, 1, 2, 3, 4, 5]), [0, 1, 2, 3, 0, 1], "more shards than workers");
        assert_eq!(own(&roles(3, 7, &[]), [0, 2, 3, 6, 8, 9]), [0, 0, 1, 2, 2, 0]);
        assert!(roles(0, 1, &[]).is_single() && roles(1000, 1, &[]).count() == SHARDS_MAX);
    }

    #[test]
    fn home_is_shard_0_until_the_own_shard_is_open() {
        let roles = roles(4, 8, &[2]);
        assert_eq!([0, 2, 4, 5, 6].map(|id| roles.home(id)), [0, 0, 2, 2, 0]);
        let of = |shards: &[usize]| -> Vec<usize> { roles.processors_of(set(shards), 9).flatten().collect() };
        assert_eq!(of(&[0]), [0, 1, 2, 3, 6, 7, 8]);
        assert_eq!((of(&[2]), of(&[0, 2])), (vec![4, 5], (0..9).collect()));
        (0..4).for_each(|shard| roles.set_closed(shard));
        assert_eq!((of(&[0]), roles.home(4)), ((0..9).collect(), 0));
        let single = Roles::new();
        assert_eq!(single.processors_of(Shards::one(0), 300).next(), Some(0..300));
    }

    #[test]
    fn thread_takes_its_home_and_stale_shards() {
        let roles = roles(4, 8, &[1, 2]);
        let take = |home, is_last| roles.take(home, || is_last, || 10 * STALE_NANOS);
        roles.note_polled(set(&[0, 1]), 9 * STALE_NANOS + 1);
        assert_eq!(take(0, false), set(&[0, 2]), "1 was polled recently, 3 is not open");
        assert_eq!(take(0, false), Shards::NONE);
        assert!(!roles.are_taken());
        assert_eq!(take(0, true), set(&[1]), "the last awake thread takes all free shards");
        assert!(roles.are_taken() && roles.is_any_taken());
        roles.release(set(&[0, 1, 2]));
        assert_eq!(roles.looked_at(1, 10 * STALE_NANOS), set(&[1, 2]));
        assert_eq!(roles.take_to_look(1, 10 * STALE_NANOS), set(&[1, 2]));
        assert_eq!((roles.looked_at(0, u64::MAX), roles.take_free()), (set(&[0]), set(&[0])));
    }

    #[test]
    fn sleep_is_announced_in_each_shard() {
        let roles = roles(4, 8, &[1, 3]);
        assert_eq!((roles.take_free(), roles.asleep(0, None)), (set(&[0, 1, 3]), None));
        roles.sleep(set(&[0, 1]), 1 << 30, By::Root);
        roles.sleep(set(&[3]), 1 << 20, By::Worker);
        assert_eq!(roles.asleep(1, None), Some(1));
        assert_eq!((roles.asleep(1, Some(By::Worker)), roles.asleep(3, Some(By::Root))), (Some(3), Some(0)));
        assert_eq!([0, 1, 3].map(|shard| roles.role(shard).asleep_beyond(1 << 25).1), [true, true, false]);
        roles.rise(set(&[0, 1, 3]));
        assert!(roles.asleep(0, None).is_none() && roles.are_taken());
    }
}
