//! Models of `Parker`.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::{UnsafeCell, thread};
use crate::rt::parker::Parker;
use crate::sync::{AtomicBool, Ordering};

/// A parker, with data that threads write before they call `unpark`.
struct Letter {
    parker: Parker,
    text: UnsafeCell<u32>,
    flags: [AtomicBool; 2],
}

// SAFETY: the checker reports unsynchronised accesses to the cell; detecting them is the purpose of
// the models.
unsafe impl Sync for Letter {}
// SAFETY: as above; the cell holds a plain value.
unsafe impl Send for Letter {}

impl Letter {
    fn new() -> Arc<Letter> {
        Arc::new(Letter {
            parker: Parker::new(),
            text: UnsafeCell::new(0),
            flags: [AtomicBool::new(false), AtomicBool::new(false)],
        })
    }

    /// Writes the data. The checker reports a thread that does not see earlier writes.
    fn write(&self) {
        // SAFETY: the pointer is valid; the checker reports overlapping uses of the cell.
        self.text.with_mut(|text| unsafe { *text += 1 });
    }
}

/// `unpark` is called before, while or after the thread parks. `park` must return, and the thread
/// must see everything that was written before `unpark`.
pub fn parker_wakes_whenever_it_is_unparked() {
    let letter = Letter::new();
    let parked = thread::spawn({
        let letter = letter.clone();
        move || {
            letter.parker.park();
            letter.write();
        }
    });
    letter.write();
    letter.parker.unpark();
    parked.join().unwrap();
    assert!(!letter.parker.try_take(), "one token for one unpark");
}

/// Two threads call `unpark`. Their tokens may be merged, but the writes of both must be visible
/// after the last token was taken.
pub fn parker_sees_every_unpark() {
    let letter = Letter::new();
    let threads = [0, 1].map(|at| {
        let letter = letter.clone();
        thread::spawn(move || {
            letter.flags[at].store(true, Ordering::Relaxed);
            letter.parker.unpark();
        })
    });
    while !letter.flags.iter().all(|flag| flag.load(Ordering::Relaxed)) {
        letter.parker.park();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A park times out while the thread is unparked. If the park returns without the token, the next
/// park must find the token.
pub fn parker_keeps_the_token_of_a_timeout() {
    let letter = Letter::new();
    let parked = thread::spawn({
        let letter = letter.clone();
        move || {
            let over = Instant::now();
            if !letter.parker.park_until(Some(over)) {
                letter.parker.park();
            }
            letter.write();
        }
    });
    letter.write();
    letter.parker.unpark();
    parked.join().unwrap();
}
