//! Models of a listener's permits.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::engine::{UnsafeCell, thread};
use crate::harness::block_on;
use crate::net::permits::{Limit, Permit};

/// A limit of one connection, with data that its permit protects. The checker reports two holders
/// of the permit.
struct Door {
    limit: Arc<Limit>,
    inside: UnsafeCell<u64>,
}

// SAFETY: the checker reports unsynchronised accesses to the cell; detecting them is the purpose of
// the models.
unsafe impl Sync for Door {}
// SAFETY: as above; the cell holds a number.
unsafe impl Send for Door {}

impl Door {
    fn new() -> Arc<Door> {
        Arc::new(Door { limit: Arc::new(Limit::new(1)), inside: UnsafeCell::new(0) })
    }

    /// Mirrors the use of the limit in an accept.
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

    /// Accepts a connection, uses the data that the permit protects, and closes the connection.
    fn pass(&self) {
        let permit = self.accept();
        // SAFETY: the pointer is valid; the checker reports a second holder of the permit.
        self.inside.with_mut(|count| unsafe { *count += 1 });
        drop(permit);
    }
}

/// Two accepts wait for the permit of a connection. Both must get the permit, one after the other.
pub fn parked_accepts_get_their_turn() {
    let door = Door::new();
    let permit = door.limit.try_take().expect("a free permit");
    let accepts = [(), ()].map(|()| {
        let door = door.clone();
        thread::spawn(move || door.pass())
    });
    drop(permit);
    for accept in accepts {
        accept.join().expect("the accept gets the permit");
    }
    assert_eq!(door.limit.taken(), 0);
}

/// The accept that waits first is dropped, possibly after it was woken. The other accept must get
/// the permit.
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
    other.join().expect("the accept gets the permit");
    closer.join().expect("the connection closes");
    assert_eq!(door.limit.taken(), 0);
}
