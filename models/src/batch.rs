//! A model of `Batch`: the owner calls the wakers of a batch while another thread takes the
//! remaining ones.

use std::sync::Arc;
use std::task::Waker;

use crate::counting_waker::CountingWaker;
use crate::engine::thread;
use crate::rt::sched::batch::Batch;
use crate::rt::waiters::Wakers;

/// The owner calls two batches of three wakers while another thread takes the remaining wakers of
/// one batch. Each waker must be called once.
pub fn wakers_of_a_batch_are_called_once() {
    let batch = Arc::new(Batch::new());
    let counts = [(); 6].map(|()| Arc::new(CountingWaker::default()));
    let taker = thread::spawn({
        let batch = batch.clone();
        move || {
            let mut taken = Wakers::new();
            batch.take(&mut taken);
            taken.wake_all();
        }
    });
    let mut wakers = Wakers::new();
    for round in counts.chunks(3) {
        wakers.extend(round.iter().map(|count| Waker::from(count.clone())));
        assert_eq!((batch.call(&mut wakers), wakers.len()), (3, 0));
    }
    taker.join().unwrap();
    for count in counts {
        assert_eq!((count.wakeups(), Arc::strong_count(&count)), (1, 1), "a waker is not called exactly once");
    }
}
