//! The slots of the runtime's poll cache that belong to simulations. The poll cache holds the
//! states of descriptors (`rt/slab.rs`).
//!
//! A simulation keeps its slots until its end, because a slot keeps the timer entry of its last
//! descriptor for the next one, and the time of the entry is that of the simulated clock. If a
//! descriptor is dropped on another thread or in another simulation, its slot still belongs to the
//! simulation that allocated it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::current::{Machine, with};

/// The simulation that has a slot.
#[derive(Debug)]
struct Owner {
    world: u32,
    /// Whether the slot was freed on a thread that is not in the simulation. If so, the slot stays
    /// unused until the end of the simulation.
    is_freed_elsewhere: bool,
}

static OWNERS: Mutex<BTreeMap<u32, Owner>> = Mutex::new(BTreeMap::new());

/// The number of slots in `OWNERS`. While it is 0, [`keep_slot`] does not take the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn owners() -> MutexGuard<'static, BTreeMap<u32, Owner>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The slots of one simulation.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// All slots that the simulation has taken from the poll cache, whether in use or not.
    pub(crate) taken: Vec<u32>,
    /// Those of `taken` that were freed in the simulation and can be reused.
    free: Vec<u32>,
}

/// Returns a free slot that belongs to this thread's simulation, or `None` if there is none.
pub(crate) fn reuse_slot() -> Option<u32> {
    with(|machine| machine?.slots.borrow_mut().free.pop())
}

/// Records that a slot that was allocated on this thread belongs to this thread's simulation. Has
/// no effect outside simulations.
pub(crate) fn note_slot(index: u32) {
    with(|machine| {
        let Some(machine) = machine else { return };
        let mut owners = owners();
        owners.insert(index, Owner { world: machine.world(), is_freed_elsewhere: false });
        COUNT.store(owners.len(), Ordering::Relaxed);
        machine.slots.borrow_mut().taken.push(index);
    });
}

/// Keeps a freed slot for its simulation. Returns false if the slot belongs to no running
/// simulation, so that the caller frees the slot.
pub(crate) fn keep_slot(index: u32) -> bool {
    // ORDERING: Relaxed: a thread that frees a slot got the descriptor from the thread that counted
    // the slot.
    if COUNT.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let mut owners = owners();
    let Some(owner) = owners.get_mut(&index) else { return false };
    with(|machine| match machine.filter(|machine| machine.world() == owner.world) {
        Some(machine) => machine.slots.borrow_mut().free.push(index),
        None => owner.is_freed_elsewhere = true,
    });
    true
}

/// Releases all slots of a simulation, and returns the free ones. A descriptor that is still open
/// keeps its slot.
pub(crate) fn release(machine: &Machine) -> Vec<u32> {
    let slots = std::mem::take(&mut *machine.slots.borrow_mut());
    let mut free: Vec<u32> = slots.free.into_iter().rev().collect();
    let mut owners = owners();
    for index in slots.taken {
        if owners.remove(&index).is_some_and(|owner| owner.is_freed_elsewhere) {
            free.push(index);
        }
    }
    COUNT.store(owners.len(), Ordering::Relaxed);
    free
}
