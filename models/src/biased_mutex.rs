//! Models of `BiasedMutex`, the mutex that its owner may enter without a read-modify-write.

use std::sync::Arc;

use crate::engine::thread;
use crate::net::fd::biased_mutex::BiasedMutex;
use crate::net::fd::fd_mutex::FdMutex;
use crate::rt::poll::poll_desc::Direction;

type Calls = BiasedMutex<Vec<&'static str>>;

/// Adds `call`. If this thread is not the owner, locks the mutex, and makes this thread the owner
/// if possible.
fn add(calls: &Calls, call: &'static str) {
    if !add_owned(calls, call, || true) {
        let mut locked = calls.lock();
        locked.push(call);
        locked.own();
    }
}

/// Adds `call` if this thread is the owner and `may` returns true. Returns whether it was added.
fn add_owned(calls: &Calls, call: &'static str, may: impl Fn() -> bool) -> bool {
    let push = |calls: &mut Vec<_>| {
        let may = may();
        if may {
            calls.push(call);
        }
        may
    };
    // SAFETY: neither `push` nor the `may` of any caller uses the mutex or panics in a model that
    // passes. No model forks, so the value need not be valid at every step.
    unsafe { calls.with_owned(push) }
}

/// A thread uses the value as the owner while another thread locks the mutex. No two uses may
/// overlap, and none may be lost.
pub fn owner_and_lock_exclude_each_other() {
    let calls = Arc::new(Calls::new(Vec::new()));
    add(&calls, "first");
    let locking = thread::spawn({
        let calls = calls.clone();
        move || {
            calls.lock().push("locked");
            calls.lock().push("locked");
        }
    });
    add(&calls, "second");
    add(&calls, "third");
    locking.join().unwrap();
    assert_eq!(calls.lock().len(), 5);
}

/// A thread revokes the ownership of another thread and tries to become the owner. This must fail
/// until the former owner has locked the mutex. Otherwise, a former owner that has not seen the
/// revocation yet may clear `is_busy` while the new owner uses the value, and a third thread that
/// locks the mutex does not wait for the new owner.
pub fn former_owner_does_not_hide_the_next() {
    let calls = Arc::new(Calls::new(Vec::new()));
    add(&calls, "first");
    let next = thread::spawn({
        let calls = calls.clone();
        move || {
            add(&calls, "next");
            add(&calls, "next");
        }
    });
    let third = thread::spawn({
        let calls = calls.clone();
        move || calls.lock().push("third")
    });
    add_owned(&calls, "second", || true);
    next.join().unwrap();
    third.join().unwrap();
}

/// Two threads use the value. If the other thread becomes the owner first, the main thread's lock
/// ends this ownership. The main thread can become the owner after the other thread's next lock. No
/// use of the value may be lost.
pub fn no_use_is_lost_while_ownership_passes() {
    let calls = Arc::new(Calls::new(Vec::new()));
    let adding = thread::spawn({
        let calls = calls.clone();
        move || {
            add(&calls, "other");
            // A lock without becoming the owner again, so that the main thread can.
            calls.lock().push("other");
        }
    });
    add(&calls, "main");
    add(&calls, "main");
    adding.join().unwrap();
    add(&calls, "last");
    add(&calls, "last");
    assert_eq!(calls.lock().len(), 6);
}

/// The owner of the gathered bytes tries to append a write, without any lock, while a `write_all`
/// of two calls has the write lock. The append must not come between the two calls.
pub fn owned_appends_come_between_operations() {
    let socket = Arc::new((FdMutex::new(), Calls::new(Vec::new())));
    add(&socket.1, "append");
    let writing = thread::spawn({
        let socket = socket.clone();
        move || {
            assert_eq!(socket.0.try_lock_ref(Direction::Write), Ok(true));
            for call in ["first", "second"] {
                socket.1.lock().push(call);
            }
            let _ = socket.0.unlock_ref(Direction::Write);
        }
    });
    let is_free = || socket.0.is_free(Direction::Write);
    if !add_owned(&socket.1, "append", is_free)
        && let Some(mut calls) = socket.0.lock_while_free(Direction::Write, || socket.1.lock())
    {
        calls.push("append");
        calls.own();
    }
    add_owned(&socket.1, "append", is_free);
    writing.join().unwrap();
    let calls = socket.1.lock();
    let first = calls.iter().position(|call| *call == "first").unwrap();
    assert_eq!(calls.get(first + 1), Some(&"second"), "the bytes of `write_all` are not adjacent: {:?}", *calls);
}
