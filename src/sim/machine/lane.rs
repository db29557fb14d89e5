//! `Lane`: the range of the descriptor numbers of a simulation.
//!
//! The last five digits of a number are the descriptor's number in the log, which depends only on
//! the actions of the simulation. The digits before them identify the lane. No two existing
//! simulations have the same lane, unless all lanes are taken. A lane stays taken while a
//! descriptor of its ended simulation is open. So a socket that a test has kept from another
//! simulation is unknown in this one, and cannot read from, write to or close a socket of this one.
//!
//! The lane depends on the seed and on the name of the thread, which is usually the name of the
//! test. So a repeated run has the same numbers, unless another simulation has taken the lane in
//! one of the runs.
//!
//! # Closing elsewhere
//! A socket may be dropped on a thread that is not in its simulation. While the simulation runs,
//! the lane records the number of the descriptor, and the simulation closes the descriptor at its
//! next step. After the end of the simulation, the lane only frees the number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kernel::{DESCRIPTORS_MAX, FD_BASE};

/// The number of lanes.
const LANES: u32 = 10_000;

/// The first number of lane 0: a round number above [`FD_BASE`].
const FIRST: i32 = 1_100_000_000;

const _: () = assert!(FIRST >= FD_BASE && FIRST.checked_add(LANES as i32 * DESCRIPTORS_MAX).is_some());

/// A function that is called when a descriptor was closed on a thread that is not in its
/// simulation.
type Notify = Arc<dyn Fn() + Send + Sync>;

/// The state of a lane that is taken.
enum Taken {
    /// A running simulation has the lane. The set contains the descriptors that were closed
    /// elsewhere.
    Running(BTreeSet<i32>, Arc<AtomicBool>, Notify),
    /// The simulation has ended. The set contains the descriptors that are still open.
    Ended(BTreeSet<i32>),
}

static TAKEN: Mutex<BTreeMap<u32, Taken>> = Mutex::new(BTreeMap::new());

fn taken() -> MutexGuard<'static, BTreeMap<u32, Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lane of a simulation; see the [module documentation](self).
pub(crate) struct Lane {
    number: u32,
    /// Whether descriptors were closed elsewhere since the last check.
    has_closed: Arc<AtomicBool>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lane").field(&self.number).finish()
    }
}

/// Returns the lane that a simulation takes if the lane is free.
fn wanted(seed: u64, name: &str) -> u32 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = seed.to_le_bytes().into_iter().chain(name.bytes()).fold(0xcbf2_9ce4_8422_2325, mix);
    ((hash ^ hash >> 32) % u64::from(LANES)) as u32
}

impl Lane {
    /// Takes a lane. If all lanes are taken, the simulation shares one with another simulation.
    /// `notify` is called when a descriptor of the lane is closed elsewhere.
    pub(crate) fn take(seed: u64, notify: Notify) -> Lane {
        let first = wanted(seed, std::thread::current().name().unwrap_or_default());
        let mut taken = taken();
        let number = (0..LANES).map(|step| (first + step) % LANES).find(|lane| !taken.contains_key(lane));
        let number = number.unwrap_or(first);
        let has_closed = Arc::<AtomicBool>::default();
        taken.insert(number, Taken::Running(BTreeSet::new(), has_closed.clone(), notify));
        Lane { number, has_closed }
    }

    /// Returns the number of the lane's first descriptor.
    pub(crate) fn first_descriptor(&self) -> i32 {
        FIRST + self.number as i32 * DESCRIPTORS_MAX
    }

    /// Takes the descriptors that were closed elsewhere.
    pub(crate) fn take_closed(&self) -> BTreeSet<i32> {
        // ORDERING: Relaxed: the set is read under the lock that is held when the flag is set.
        if !self.has_closed.swap(false, Ordering::Relaxed) {
            return BTreeSet::new();
        }
        match taken().get_mut(&self.number) {
            Some(Taken::Running(closed, ..)) => std::mem::take(closed),
            _ => BTreeSet::new(),
        }
    }

    /// Releases the lane at the end of its simulation, or keeps it taken while descriptors of
    /// `open` are open.
    pub(crate) fn end(&self, mut open: BTreeSet<i32>) {
        let mut taken = taken();
        if let Some(Taken::Running(closed, ..)) = taken.remove(&self.number) {
            open.retain(|fd| !closed.contains(fd));
        }
        if !open.is_empty() {
            taken.insert(self.number, Taken::Ended(open));
        }
    }
}

/// Returns the number of the lane of a descriptor, or `None` if it belongs to no lane.
fn lane_of(fd: i32) -> Option<u32> {
    let number = fd.checked_sub(FIRST)?.div_euclid(DESCRIPTORS_MAX);
    u32::try_from(number).ok().filter(|&number| number < LANES)
}

/// Closes a descriptor of a simulation from a thread that is not in that simulation.
pub(crate) fn close_elsewhere(fd: i32) {
    let Some(number) = lane_of(fd) else { return };
    let mut taken = taken();
    let notify = match taken.get_mut(&number) {
        Some(Taken::Running(closed, has_closed, notify)) => {
            closed.insert(fd);
            has_closed.store(true, Ordering::Relaxed);
            notify.clone()
        }
        Some(Taken::Ended(open)) => {
            open.remove(&fd);
            if open.is_empty() {
                taken.remove(&number);
            }
            return;
        }
        None => return,
    };
    drop(taken);
    notify();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(seed: u64) -> Lane {
        Lane::take(seed, Arc::new(|| ()))
    }

    #[test]
    fn lane_follows_from_the_seed_and_is_not_shared_while_taken() {
        let one = lane(u64::MAX);
        let same = lane(u64::MAX);
        assert_ne!(one.first_descriptor(), same.first_descriptor());
        same.end(BTreeSet::new());
        let again = lane(u64::MAX);
        assert_eq!(again.first_descriptor(), same.first_descriptor(), "the next one after a lane that is taken");
        again.end(BTreeSet::new());
        one.end(BTreeSet::new());
    }

    #[test]
    fn lane_is_free_after_its_last_descriptor_is_closed() {
        let ended = lane(u64::MAX - 1);
        let fd = ended.first_descriptor() + 7;
        ended.end(BTreeSet::from([fd]));
        let other = lane(u64::MAX - 1);
        assert_ne!(other.first_descriptor(), ended.first_descriptor());
        other.end(BTreeSet::new());
        close_elsewhere(fd);
        let again = lane(u64::MAX - 1);
        assert_eq!(again.first_descriptor(), ended.first_descriptor());
        again.end(BTreeSet::new());
    }

    #[test]
    fn numbers_outside_the_lanes_belong_to_no_lane() {
        assert_eq!(lane_of(FIRST), Some(0));
        assert_eq!(lane_of(FIRST + LANES as i32 * DESCRIPTORS_MAX - 1), Some(LANES - 1));
        for fd in [FD_BASE, FIRST - DESCRIPTORS_MAX, FIRST - 1, i32::MAX, i32::MIN] {
            assert_eq!(lane_of(fd), None, "{fd}");
        }
    }

    #[test]
    fn running_simulation_is_notified_of_descriptors_closed_elsewhere() {
        let told = Arc::<AtomicBool>::default();
        let notified = told.clone();
        let lane = Lane::take(u64::MAX - 2, Arc::new(move || notified.store(true, Ordering::Relaxed)));
        let fd = lane.first_descriptor();
        assert!(lane.take_closed().is_empty());
        close_elsewhere(fd);
        assert!(told.load(Ordering::Relaxed));
        assert_eq!(lane.take_closed(), BTreeSet::from([fd]));
        assert!(lane.take_closed().is_empty());
        close_elsewhere(fd);
        lane.end(BTreeSet::from([fd]));
        assert!(!taken().contains_key(&lane.number), "the last descriptor was closed before the end");
    }
}
