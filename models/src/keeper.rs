//! Models of `Keeper`: a shutdown clones the waker of a task while the task ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use crate::engine::thread;
use crate::rt::sched::keeper::Keeper;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Two tasks use the same record one after the other, while another thread wakes the task of the record.
pub fn keeper_is_cloned_while_its_task_exists() {
    let keeper = Arc::new(Keeper::new());
    let counts = [(); 2].map(|()| Arc::<Count>::default());
    let tasks = thread::spawn({
        let (keeper, counts) = (keeper.clone(), counts.clone());
        move || {
            for count in counts {
                keeper.keep(Waker::from(count));
                keeper.release();
            }
        }
    });
    let has_woken = keeper.clone_waker().map(Waker::wake).is_some();
    tasks.join().unwrap();
    let woken: usize = counts.iter().map(|count| count.0.load(Ordering::SeqCst)).sum();
    assert_eq!(woken, usize::from(has_woken));
    assert!(counts.iter().all(|count| Arc::strong_count(count) == 1), "a waker is not dropped");
}
