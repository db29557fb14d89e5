//! Models of `Keeper`: a shutdown wakes a task while the task ends, or while the task begins to
//! wait.

use std::sync::Arc;
use std::task::Waker;

use crate::counting_waker::CountingWaker;
use crate::engine::thread;
use crate::rt::sched::keeper::Keeper;
use crate::sync::{AtomicU32, Ordering, fence, injected_bug};

/// Two tasks use the same record (`rt/sched/record.rs`), and thus the same keeper, one after the
/// other, while another thread wakes the task of the record. At most one of the tasks may be woken,
/// and both wakers must be dropped.
pub fn keeper_is_used_while_its_task_exists() {
    let keeper = Arc::new(Keeper::new());
    let counts = [(); 2].map(|()| Arc::<CountingWaker>::default());
    let tasks = thread::spawn({
        let (keeper, counts) = (keeper.clone(), counts.clone());
        move || {
            for count in counts {
                keeper.keep(Waker::from(count));
                keeper.release();
            }
        }
    });
    keeper.wake();
    tasks.join().unwrap();
    assert!(counts.iter().map(|count| count.wakeups()).sum::<usize>() <= 1);
    assert!(counts.iter().all(|count| Arc::strong_count(count) == 1), "a waker is not dropped");
}

/// A task returns `Pending` for the first time while the epoch advances. One of the two threads
/// must wake the task.
///
/// Mirrors `task::keep` and `record::wake_others`.
pub fn first_wait_against_shutdown() {
    let (keeper, epoch) = (Arc::new(Keeper::new()), Arc::new(AtomicU32::new(0)));
    let count = Arc::<CountingWaker>::default();
    let shutdown = thread::spawn({
        let (keeper, epoch) = (keeper.clone(), epoch.clone());
        move || {
            epoch.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            keeper.wake();
        }
    });
    keeper.keep(Waker::from(count.clone()));
    if !injected_bug!("first_wait_is_not_checked") {
        fence(Ordering::SeqCst);
        if epoch.load(Ordering::Acquire) != 0 {
            Waker::from(count.clone()).wake_by_ref();
        }
    }
    shutdown.join().unwrap();
    keeper.release();
    assert!(count.wakeups() > 0, "no thread wakes the task");
}
