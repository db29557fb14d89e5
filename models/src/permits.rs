//! Models of a listener's permits.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::engine::{UnsafeCell, thread};
use crate::harness::block_on;
use crate::net::permits::{Limit, Permit};

/// A limit of one, with the data that its permit protects: the checker reports two holders.
struct Door {
    limit: Arc<Limit>,
    inside: UnsafeCell<u64>,
}

// SAFETY: the checker sees every access to the cell, which is what the models are for.
unsafe impl Sync for Door {}
// SAFETY: as above; the cell holds a number.
unsafe impl Send for Door {}

impl Door {
    fn new() -> Arc<Door> {
        Arc::new(Door { limit: Arc::new(Limit::new(1)), inside: UnsafeCell::new(0) })
    }

    /// An accept, reduced to its use of the limit.
    fn accept(&self) -> Permit {
        let mut place = None;
        block_on(poll_fn(|cx| {
            while self.limit.poll_free(&mut place, cx).is_ready() {
                if let Some(permit) = self.limit.try_take() {
                    return Poll::Ready(permit);
                }
            }
            Poll::Pending
        }))
    }

    fn pass(&self) {
        let permit = self.accept();
        // SAFETY: the pointer is valid; the checker sees that nobody else has the cell.
        self.inside.with_mut(|count| unsafe { *count += 1 });
        drop(permit);
    }
}

/// Two accepts park behind a connection: both get the permit, one after the other.
pub fn parked_accepts_get_their_turn() {
    let door = Door::new();
    let permit = door.limit.try_take().expect("a free permit");
    let accepts = [(), ()].map(|()| {
        let door = door.clone();
        thread::spawn(move || door.pass())
    });
    drop(permit);
    for accept in accepts {
        accept.join().expect("it gets in");
    }
    assert_eq!(door.limit.taken(), 0);
}

/// The accept that parked first is dropped, perhaps after it was woken: the other one gets the permit.
pub fn dropped_waiter_passes_the_permit_on() {
    let door = Door::new();
    let permit = door.limit.try_take().expect("a free permit");
    let mut place = None;
    assert!(door.limit.poll_free(&mut place, &mut Context::from_waker(Waker::noop())).is_pending());
    let other = thread::spawn({
        let door = door.clone();
        move || door.pass()
    });
    let closer = thread::spawn(move || drop(permit));
    door.limit.leave(&mut place);
    other.join().expect("it gets in");
    closer.join().expect("it closes");
    assert_eq!(door.limit.taken(), 0);
}
