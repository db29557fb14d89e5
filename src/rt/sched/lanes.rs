//! [`Lane`]: whether a task runs before others, within a share of the time.
//!
//! A task in the lane [`Control`](Lane::Control), for example one that answers health checks or
//! sheds load, runs soon even while ordinary tasks saturate the workers. When it is spawned or
//! woken, it is queued in the control lane, a queue of the runtime that each worker checks before
//! each turn. So, within the lane's share, it waits only until some worker ends its turn, and for
//! the control tasks that were queued before it.
//!
//! # The lane belongs to the task
//! A socket has no lane; only the task that its events wake has one. A task that a control task
//! spawns on the workers is also a control task, unless
//! [`Builder::lane`](crate::task::Builder::lane) sets another lane. So connections that a control
//! task accepts are served in the control lane. The lane is one bit of the word that holds the
//! task's epoch, so the comparison of epochs before each turn also detects control tasks. While no
//! control task is alive, the only additional cost for other tasks is the check whether the lane is
//! empty.
//!
//! # States of a runnable control task
//! ```text
//! lane ── the worker has no other task, or the lane has some of its share left ──→ runs
//!   └──── the share is used up, and few tasks are queued ──→ queue of that worker ──→ runs in its turn
//! ```
//!
//! # The share
//! Each worker gives the lane a share of its time or of its turns, whichever is more. The default
//! share is 5 %, which the numbers below assume.
//! * Time: a turn of a control task that precedes ordinary tasks and takes the time *t* is charged
//!   as *t* / share. The lane has credit while its charges are at most [`WINDOW`] ahead of the
//!   clock, which permits a burst of 2.5 ms.
//! * Turns: without credit, the lane gets one of 20 turns. If fewer than 20 tasks are queued, a
//!   control task is queued behind them.
//!
//! Therefore neither lane starves:
//! * Between two turns of ordinary tasks, the lane gets at most its burst and one turn. Over a
//!   longer time, it gets its share.
//! * The first task of the lane waits for at most 20 turns of ordinary tasks, or is queued behind
//!   fewer than 20 ordinary tasks.
//!
//! # Events
//! While a control task is alive, a busy worker reads the clock at least every fourth turn, polls
//! if 50 µs have passed since the last poll, and polls up to eight times in a row while batches are
//! full ([`pacing`](super::pacing)). The wake-up of a control task also wakes another worker if the
//! waking worker is in a long turn, or if a thread without a processor wakes the task while all
//! awake workers are stuck or in long turns.
//!
//! # Locks
//! The locks of this crate are FIFO and ignore lanes. A control task that waits for the lock of a
//! socket waits for earlier operations, which may belong to ordinary tasks. With a share below 100
//! %, ordinary tasks always get turns and complete these operations. If control tasks had an
//! unlimited priority, ordinary tasks might never get a turn.
//!
//! # Memory ordering
//! The lane is a [`SharedQueue`]. As in the injector, a wake-up checks the epoch under the queue's
//! lock, and a shutdown first advances the epoch and then empties the lane (model
//! `epoch_ends_against_scheduling`).

use super::shared_queue::SharedQueue;
use crate::sync::{AtomicU32, AtomicUsize, Ordering};

/// The scheduling lane of a task, set by [`task::Builder::lane`](crate::task::Builder::lane) or
/// inherited from the task that spawned it. Local tasks, blocking calls and the futures of
/// `block_on` always have the lane [`Normal`](Lane::Normal).
///
/// # Examples
/// A health check that answers while other tasks saturate the workers:
/// ```
/// use netpoll::{io, net::{self, TcpListener, TcpStream}, prelude::*, rt::Lane, task};
///
/// # fn main() -> io::Result<()> {
/// task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let addr = listener.local_addr()?;
///     task::Builder::new().name("health".into()).lane(Lane::Control).spawn(async {
///         // The tasks of its connections inherit the lane.
///         net::serve(listener, |stream: TcpStream| async move { stream.write_all(b"ok").await }).await
///     })?;
///     let mut answer = String::new();
///     TcpStream::connect(addr).await?.read_to_string(&mut answer).await?;
///     assert_eq!(answer, "ok");
///     Ok(())
/// })
/// # }
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lane {
    /// The task has no priority over other tasks.
    #[default]
    Normal,
    /// The task runs before other tasks, as long as control tasks use no more than their
    /// [share](crate::rt::Builder::control_share) of the time or the turns.
    Control,
}

/// The bit of an epoch word that marks a control task. An epoch would need this bit only after two
/// billion starts of the runtime.
pub(super) const CONTROL: u32 = 1 << 31;

impl Lane {
    /// Returns the epoch word of a task of this lane and `epoch`.
    #[inline]
    pub(super) fn word(self, epoch: u32) -> u32 {
        match self {
            Lane::Normal => epoch,
            Lane::Control => epoch | CONTROL,
        }
    }

    /// Returns the lane in an epoch word.
    #[inline]
    pub(super) fn of_word(word: u32) -> Lane {
        if word & CONTROL == 0 { Lane::Normal } else { Lane::Control }
    }
}

/// The default of [`Builder::control_share`](crate::rt::Builder::control_share), in percent.
pub(crate) const SHARE: u32 = 5;

/// The time by which the charges of the lane may be ahead of the clock on one worker, in
/// nanoseconds.
const WINDOW: u64 = 50_000_000;

/// The queue of runnable control tasks, and the number of control tasks that have not ended.
#[derive(Debug)]
pub(crate) struct ControlLane {
    pub(crate) queue: SharedQueue,
    alive: AtomicUsize,
}

/// The share of the current or last runtime, in percent.
static CURRENT_SHARE: AtomicU32 = AtomicU32::new(SHARE);

/// Returns the share of the control lane, in percent.
pub(super) fn share() -> u32 {
    CURRENT_SHARE.load(Ordering::Relaxed)
}

/// Sets the share of the control lane, in percent.
pub(crate) fn set_share(percent: u32) {
    CURRENT_SHARE.store(percent, Ordering::Relaxed);
}

impl ControlLane {
    pub(crate) const fn new() -> ControlLane {
        ControlLane { queue: SharedQueue::new(), alive: AtomicUsize::new(0) }
    }

    /// Returns the number of control tasks that have not ended.
    #[inline]
    pub(crate) fn alive(&self) -> usize {
        // ORDERING: Relaxed: the number only affects how often workers poll.
        self.alive.load(Ordering::Relaxed)
    }

    pub(super) fn task_begins(&self) {
        self.alive.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn task_ended(&self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The account of one worker's control turns; see "The share" in the [module documentation](self).
#[derive(Debug)]
pub(super) struct Account {
    /// The time up to which the control turns so far have used up the lane's share.
    paid_until: u64,
    /// The tick of the last turn in which a control task preceded ordinary tasks.
    turn_at: u32,
}

/// Returns the number of turns of which the lane gets one, with a share of `percent`: 20 for 5 %.
pub(super) fn turns_per_control_turn(percent: u32) -> usize {
    100_usize.checked_div(percent as usize).unwrap_or(usize::MAX)
}

impl Account {
    pub(super) const fn new() -> Account {
        Account { paid_until: 0, turn_at: 0 }
    }

    /// Returns whether the lane has credit at `now`, with a share of `percent`, so that a control
    /// task may precede ordinary tasks.
    pub(super) fn has_credit(&self, now: u64, percent: u32) -> bool {
        percent > 0 && self.paid_until <= now.saturating_add(WINDOW)
    }

    /// Returns whether a control task may precede ordinary tasks in the turn `tick`, because enough
    /// turns have passed since the last such turn, with a share of `percent`.
    pub(super) fn has_turn(&self, tick: u32, percent: u32) -> bool {
        tick.wrapping_sub(self.turn_at) as usize >= turns_per_control_turn(percent)
    }

    /// Records that a control task preceded ordinary tasks in the turn `tick`.
    pub(super) fn take_turn(&mut self, tick: u32) {
        self.turn_at = tick;
    }

    /// Charges a turn that began at `now` and took `length`, with a share of `percent`.
    pub(super) fn charge(&mut self, now: u64, length: u64, percent: u32) {
        let price = length.saturating_mul(100) / u64::from(percent.max(1));
        self.paid_until = self.paid_until.max(now).saturating_add(price);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn lane_is_one_bit_of_the_epoch_word() {
        for epoch in [0, 1, 77, CONTROL - 1] {
            for lane in [Lane::Normal, Lane::Control] {
                let word = lane.word(epoch);
                assert_eq!((Lane::of_word(word), word & !CONTROL), (lane, epoch));
            }
        }
    }

    /// Turns of 100 µs at 5 %: a burst of a little more than 2.5 ms, then one turn per 2 ms.
    #[test]
    fn control_turns_have_their_share_and_no_more() {
        let (mut account, mut now) = (Account::new(), 1_000 * MS);
        let mut turns_until = |end: u64| {
            let mut turns = 0;
            while now < end {
                if account.has_credit(now, 5) {
                    account.charge(now, MS / 10, 5);
                    turns += 1;
                }
                // Either a control task or an ordinary task has run for this time.
                now += MS / 10;
            }
            turns
        };
        assert_eq!(turns_until(1_004 * MS), 27, "the burst");
        assert_eq!(turns_until(1_104 * MS), 50, "5 % of 100 ms");
        assert_eq!(turns_until(2_104 * MS), 500, "5 % of a second");
        // After a time without control turns, the lane has credit for one burst only.
        account.charge(9_000 * MS, 0, 5);
        now = 9_000 * MS;
        let mut burst = 0;
        while account.has_credit(now, 5) {
            account.charge(now, MS / 10, 5);
            burst += 1;
        }
        assert_eq!(burst, 26);
    }

    #[test]
    fn control_task_without_credit_has_one_of_twenty_turns() {
        let mut account = Account::new();
        account.take_turn(u32::MAX - 3);
        let first = (1..100).find(|turns| account.has_turn((u32::MAX - 3).wrapping_add(*turns), 5));
        assert_eq!(first, Some(20));
        assert_eq!([0, 1, 5, 10, 100].map(turns_per_control_turn), [usize::MAX, 100, 20, 10, 1]);
        assert!(!account.has_turn(u32::MAX / 2, 0));
    }

    #[test]
    fn share_of_zero_gives_no_priority_and_full_share_always_does() {
        let mut account = Account::new();
        assert!(!account.has_credit(MS, 0));
        let mut now = MS;
        for _ in 0..10_000 {
            assert!(account.has_credit(now, 100));
            account.charge(now, MS, 100);
            now += MS;
        }
        // A turn of a second at 5 %: no credit for almost 20 s.
        account.charge(now, 1000 * MS, 5);
        assert!(!account.has_credit(now + 19_000 * MS, 5) && account.has_credit(now + 20_000 * MS, 5));
    }
}
