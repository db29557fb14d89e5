//! Models of `RunQueue`: the owner uses the queue while other threads steal.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::engine::{UnsafeCell, thread};
use crate::rt::sched::queue::{Item, RunQueue};

/// The number of tasks that a model may use.
const ITEMS: usize = 9;

/// A queue, and the state of the tasks that its items represent.
struct Tasks {
    queue: RunQueue,
    /// The number of runs of each task. The checker reports a thread that runs a task without
    /// seeing the writes before the task was queued.
    runs: [UnsafeCell<u32>; ITEMS],
}

// SAFETY: the checker reports unsynchronised accesses to the cells; detecting them is the purpose
// of the models.
unsafe impl Sync for Tasks {}
// SAFETY: as above; the cells hold plain values.
unsafe impl Send for Tasks {}

impl Tasks {
    fn new() -> Arc<Tasks> {
        Arc::new(Tasks { queue: RunQueue::new(), runs: std::array::from_fn(|_| UnsafeCell::new(0)) })
    }

    /// Writes to a task and returns its item.
    fn item(&self, at: usize) -> Item {
        // SAFETY: the pointer is valid; the checker reports overlapping uses of the cell.
        self.runs[at].with_mut(|runs| unsafe { *runs = 0 });
        NonNull::new(std::ptr::without_provenance_mut(at + 1)).expect("not null")
    }

    /// Counts a run of a task.
    fn run(&self, item: Item) {
        // SAFETY: the pointer is valid; the checker reports overlapping uses of the cell.
        self.runs[item.as_ptr().addr() - 1].with_mut(|runs| unsafe { *runs += 1 });
    }

    /// Mirrors a thread without work, which steals once and runs the stolen items.
    fn steal(&self) {
        let own = RunQueue::new();
        if let Some(item) = self.queue.steal(&own) {
            self.run(item);
        }
        own.drain().for_each(|item| self.run(item));
    }

    /// Runs all items that are left in the queue, as its owner.
    fn drain(&self) {
        self.queue.drain().for_each(|item| self.run(item));
    }

    /// Asserts that each of the first `count` tasks has run once.
    fn each_ran_once(&self, count: usize) {
        for runs in &self.runs[..count] {
            // SAFETY: the pointer is valid; the other threads have ended.
            assert_eq!(runs.with(|runs| unsafe { *runs }), 1, "an item was lost or taken twice");
        }
    }
}

fn thief(tasks: &Arc<Tasks>) -> thread::JoinHandle<()> {
    let tasks = tasks.clone();
    thread::spawn(move || tasks.steal())
}

/// The owner pushes and pops while another thread steals.
pub fn ring_owner_against_thief() {
    let tasks = Tasks::new();
    let thief = thief(&tasks);
    for at in 0..3 {
        tasks.queue.push(tasks.item(at));
        if at == 1 {
            tasks.queue.pop().into_iter().for_each(|item| tasks.run(item));
        }
    }
    tasks.drain();
    thief.join().unwrap();
    tasks.each_ran_once(3);
}

/// Two threads steal while the owner takes the items.
pub fn ring_two_thieves() {
    let tasks = Tasks::new();
    (0..3).for_each(|at| tasks.queue.push(tasks.item(at)));
    let thieves = [thief(&tasks), thief(&tasks)];
    tasks.drain();
    thieves.into_iter().for_each(|thief| thief.join().unwrap());
    tasks.each_ran_once(3);
}

/// The owner pushes items, which may reuse the slots of stolen items, while another thread steals.
pub fn ring_slots_are_used_again() {
    let tasks = Tasks::new();
    (0..4).for_each(|at| tasks.queue.push(tasks.item(at)));
    let thief = thief(&tasks);
    (4..6).for_each(|at| tasks.queue.push(tasks.item(at)));
    tasks.drain();
    thief.join().unwrap();
    tasks.each_ran_once(6);
}

/// The owner reuses slots of the buffer, and then the ring grows, while another thread steals.
pub fn ring_grows_against_thief() {
    let tasks = Tasks::new();
    (0..4).for_each(|at| tasks.queue.push(tasks.item(at)));
    (0..2).for_each(|_| tasks.run(tasks.queue.pop().unwrap()));
    let thief = thief(&tasks);
    // In the old buffer, the fifth item of the queue would have the slot of the first one.
    (4..7).for_each(|at| tasks.queue.push(tasks.item(at)));
    tasks.drain();
    thief.join().unwrap();
    tasks.each_ran_once(7);
}

/// The ring grows twice, so that its first two buffers are replaced and freed, while another thread
/// steals.
pub fn ring_grows_twice_against_thief() {
    let tasks = Tasks::new();
    (0..4).for_each(|at| tasks.queue.push(tasks.item(at)));
    let thief = thief(&tasks);
    (4..9).for_each(|at| tasks.queue.push(tasks.item(at)));
    tasks.drain();
    thief.join().unwrap();
    tasks.each_ran_once(9);
}

/// The owner empties a ring that has grown, so that its buffer is replaced and freed, while another
/// thread steals.
pub fn ring_shrinks_against_thief() {
    let tasks = Tasks::new();
    (0..5).for_each(|at| tasks.queue.push(tasks.item(at)));
    (0..4).for_each(|_| tasks.run(tasks.queue.pop().unwrap()));
    let thief = thief(&tasks);
    tasks.drain();
    thief.join().unwrap();
    tasks.each_ran_once(5);
}

/// The owner empties a ring that has grown, and queues an item in the smaller buffer, while another
/// thread steals.
pub fn ring_is_used_again_after_it_has_shrunk() {
    let tasks = Tasks::new();
    (0..5).for_each(|at| tasks.queue.push(tasks.item(at)));
    (0..4).for_each(|_| tasks.run(tasks.queue.pop().unwrap()));
    let thief = thief(&tasks);
    tasks.drain();
    tasks.queue.push(tasks.item(5));
    thief.join().unwrap();
    tasks.drain();
    tasks.each_ran_once(6);
}

/// Two threads steal while the ring shrinks.
pub fn ring_shrinks_against_two_thieves() {
    let tasks = Tasks::new();
    (0..5).for_each(|at| tasks.queue.push(tasks.item(at)));
    (0..3).for_each(|_| tasks.run(tasks.queue.pop().unwrap()));
    let thieves = [thief(&tasks), thief(&tasks)];
    tasks.drain();
    thieves.into_iter().for_each(|thief| thief.join().unwrap());
    tasks.each_ran_once(5);
}

/// The owner fills the next slot while another thread empties it.
pub fn next_slot_against_thief() {
    let tasks = Tasks::new();
    let thief = thread::spawn({
        let tasks = tasks.clone();
        move || tasks.queue.pop_next().into_iter().for_each(|item| tasks.run(item))
    });
    (0..2).for_each(|at| tasks.queue.push_next(tasks.item(at)));
    tasks.drain();
    thief.join().unwrap();
    tasks.each_ran_once(2);
}

/// The owner puts items into the aside slot and moves them to the ring while another thread, which
/// has found the owner stuck, empties the slot.
pub fn aside_slot_against_thief() {
    let tasks = Tasks::new();
    let thief = thread::spawn({
        let tasks = tasks.clone();
        move || tasks.queue.pop_aside().into_iter().for_each(|item| tasks.run(item))
    });
    (0..2).for_each(|at| tasks.queue.push_aside(tasks.item(at)));
    tasks.queue.settle();
    tasks.drain();
    thief.join().unwrap();
    tasks.each_ran_once(2);
}
