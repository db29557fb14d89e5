//! Models of `FdMutex`.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::engine::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::engine::{UnsafeCell, thread};
use crate::harness::block_on;
use crate::net::fd::fd_mutex::{FdMutex, LockError};
use crate::rt::poll::poll_desc::Direction;
use crate::rt::waiters::Waiter;
use crate::sync::Mutex;

/// A descriptor: its mutex, the data that the mutex protects, and the number of times that the
/// descriptor was destroyed.
struct Socket {
    mutex: FdMutex,
    /// The data that the lock of each direction protects. The checker reports two owners at once,
    /// and an owner that does not see the previous owner's writes.
    sides: [UnsafeCell<u64>; 2],
    /// The data that a reference protects. Calls read this data, and the destruction writes it.
    descriptor: UnsafeCell<bool>,
    destroyed: AtomicUsize,
}

// SAFETY: the checker reports unsynchronised accesses to the cells; detecting them is the purpose
// of the models.
unsafe impl Sync for Socket {}
// SAFETY: as above; the cells hold plain values.
unsafe impl Send for Socket {}

impl Socket {
    fn new() -> Arc<Socket> {
        Arc::new(Socket {
            mutex: FdMutex::new(),
            sides: [UnsafeCell::new(0), UnsafeCell::new(0)],
            descriptor: UnsafeCell::new(true),
            destroyed: AtomicUsize::new(0),
        })
    }

    /// Uses the data that the lock of `direction` protects.
    fn own(&self, direction: Direction) {
        // SAFETY: the pointer is valid; the checker reports a second owner of the direction.
        self.sides[direction as usize].with_mut(|value| unsafe { *value += 1 });
    }

    /// Mirrors a system call.
    fn call(&self) {
        // SAFETY: the pointer is valid; the checker reports a concurrent destruction of the
        // descriptor.
        assert!(self.descriptor.with(|open| unsafe { *open }), "a call on a destroyed descriptor");
    }

    /// Mirrors the destruction of the descriptor by the release of the last reference.
    fn destroy_if(&self, last: bool) {
        if last {
            // SAFETY: the pointer is valid; the checker reports a use of the descriptor that has
            // not ended.
            self.descriptor.with_mut(|open| unsafe { *open = false });
            self.destroyed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Mirrors a close of the descriptor.
    fn close(&self) {
        if let Ok(mut wakers) = self.mutex.begin_close() {
            wakers.wake_all();
            self.call();
            self.destroy_if(self.mutex.decref());
        }
    }

    fn unlock_ref(&self, direction: Direction) {
        self.destroy_if(self.mutex.unlock_ref(direction));
    }

    /// Mirrors an operation that has the lock and a reference: makes its call and releases both.
    fn operate(&self, direction: Direction) {
        self.own(direction);
        self.call();
        self.unlock_ref(direction);
    }

    /// Mirrors an operation of a named future.
    fn future(&self, direction: Direction) -> Result<(), LockError> {
        block_on(self.locked(direction))?;
        self.operate(direction);
        Ok(())
    }

    fn locked(&self, direction: Direction) -> impl Future<Output = Result<(), LockError>> {
        let mut key = None;
        poll_fn(move |cx| self.mutex.poll_lock(direction, cx, Waiter::Future(&mut key)))
    }

    /// Mirrors an operation of a `poll_*` method.
    fn poll(&self, direction: Direction) -> Result<(), LockError> {
        block_on(poll_fn(|cx| self.mutex.poll_lock(direction, cx, Waiter::Poll)))?;
        self.operate(direction);
        Ok(())
    }

    /// Takes the free lock of `direction`, and a reference.
    fn lock(&self, direction: Direction) {
        assert_eq!(self.mutex.try_lock_ref(direction), Ok(true));
    }
}

/// A named future and a caller of a `poll_*` method wait behind an owner. There must be one owner
/// at a time, and both waiters must get the lock.
pub fn one_owner_per_direction() {
    let socket = Socket::new();
    socket.lock(Direction::Read);
    let future = thread::spawn({
        let socket = socket.clone();
        move || assert_eq!(socket.future(Direction::Read), Ok(()))
    });
    let poll = thread::spawn({
        let socket = socket.clone();
        move || assert_eq!(socket.poll(Direction::Read), Ok(()))
    });
    socket.operate(Direction::Read);
    future.join().unwrap();
    poll.join().unwrap();
    assert_eq!(socket.destroyed.load(Ordering::SeqCst), 0);
}

/// Two futures wait behind an owner. Each unlock must wake one, and the waiters bit must stay set
/// until the last waiter has left the queue.
pub fn every_queued_future_gets_its_turn() {
    let socket = Socket::new();
    socket.lock(Direction::Write);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let socket = socket.clone();
            thread::spawn(move || assert_eq!(socket.future(Direction::Write), Ok(())))
        })
        .collect();
    socket.operate(Direction::Write);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A waiter is dropped, before or after it is woken, while another waits. The other waiter must get
/// the lock.
pub fn a_dropped_waiter_passes_on() {
    let socket = Socket::new();
    socket.lock(Direction::Read);
    let mut key = None;
    let polled =
        socket.mutex.poll_lock(Direction::Read, &mut Context::from_waker(Waker::noop()), Waiter::Future(&mut key));
    assert!(polled.is_pending());
    let waiting = thread::spawn({
        let socket = socket.clone();
        move || assert_eq!(socket.future(Direction::Read), Ok(()))
    });
    let dropped = thread::spawn({
        let socket = socket.clone();
        move || socket.mutex.cancel(Direction::Read, key.unwrap())
    });
    socket.operate(Direction::Read);
    dropped.join().unwrap();
    waiting.join().unwrap();
}

/// A lock future is polled again, with another waker, while the lock is released. The future must
/// get the lock.
pub fn a_waiter_is_polled_again_with_another_waker() {
    let socket = Socket::new();
    socket.lock(Direction::Read);
    let waiting = thread::spawn({
        let socket = socket.clone();
        move || {
            let mut lock = Box::pin(socket.locked(Direction::Read));
            let polled = lock.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let locked = match polled {
                Poll::Ready(locked) => locked,
                Poll::Pending => block_on(lock),
            };
            assert_eq!(locked, Ok(()));
            socket.operate(Direction::Read);
        }
    });
    socket.operate(Direction::Read);
    waiting.join().unwrap();
}

/// The descriptor is closed while the owner unlocks and a waiter enters the queue. The wait must
/// end, with or without the lock, and the last reference must destroy the descriptor once, after
/// every call.
pub fn last_reference_destroys_once() {
    let socket = Socket::new();
    socket.lock(Direction::Read);
    let waiting = thread::spawn({
        let socket = socket.clone();
        move || {
            let result = socket.future(Direction::Read);
            assert!(result == Ok(()) || result == Err(LockError::Closed));
        }
    });
    let closing = thread::spawn({
        let socket = socket.clone();
        move || socket.close()
    });
    socket.operate(Direction::Read);
    waiting.join().unwrap();
    closing.join().unwrap();
    assert_eq!(socket.destroyed.load(Ordering::SeqCst), 1);
}

/// The descriptor is closed while waiters enter the queue. The waits must end, although the owner
/// unlocks only afterwards.
pub fn close_frees_the_queue() {
    let socket = Socket::new();
    socket.lock(Direction::Write);
    let future = thread::spawn({
        let socket = socket.clone();
        move || assert_eq!(socket.future(Direction::Write), Err(LockError::Closed))
    });
    let poll = thread::spawn({
        let socket = socket.clone();
        move || assert_eq!(socket.poll(Direction::Write), Err(LockError::Closed))
    });
    socket.close();
    future.join().unwrap();
    poll.join().unwrap();
    assert_eq!(socket.destroyed.load(Ordering::SeqCst), 0);
    socket.operate(Direction::Write);
    assert_eq!(socket.destroyed.load(Ordering::SeqCst), 1);
}

/// A reader and a writer run concurrently with a close. They must not block each other, and the
/// descriptor must be destroyed once.
pub fn two_sides_in_parallel() {
    let socket = Socket::new();
    let threads: Vec<_> = [Direction::Read, Direction::Write]
        .into_iter()
        .map(|direction| {
            let socket = socket.clone();
            thread::spawn(move || match socket.mutex.try_lock_ref(direction) {
                Ok(locked) => {
                    assert!(locked, "no other operation uses this direction");
                    socket.operate(direction);
                }
                Err(error) => assert_eq!(error, LockError::Closed),
            })
        })
        .collect();
    socket.close();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(socket.destroyed.load(Ordering::SeqCst), 1);
}

/// `write_all` keeps the lock between its calls and takes a reference per call. A close must not
/// wait for the lock.
pub fn a_lock_without_a_reference_does_not_hold_the_descriptor() {
    let socket = Socket::new();
    assert_eq!(socket.mutex.try_lock_ref(Direction::Write), Ok(true));
    assert!(!socket.mutex.decref());
    let closing = thread::spawn({
        let socket = socket.clone();
        move || {
            socket.close();
            socket.close();
        }
    });
    for _ in 0..2 {
        match socket.mutex.incref() {
            Ok(()) => {
                socket.own(Direction::Write);
                socket.call();
                socket.destroy_if(socket.mutex.decref());
            }
            Err(error) => assert_eq!(error, LockError::Closed),
        }
    }
    closing.join().unwrap();
    assert_eq!(socket.destroyed.load(Ordering::SeqCst), 1);
    socket.mutex.unlock(Direction::Write);
    assert_eq!(socket.destroyed.load(Ordering::SeqCst), 1);
}

/// A thread tries to append a write to gathered bytes, without the write lock, while a `write_all`
/// of two calls has this lock. The append must not come between the two calls.
pub fn appends_come_between_operations() {
    let socket = Socket::new();
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let appending = thread::spawn({
        let (socket, bytes) = (socket.clone(), bytes.clone());
        move || {
            if let Some(mut bytes) = socket.mutex.lock_while_free(Direction::Write, || bytes.lock()) {
                bytes.push("append");
            }
        }
    });
    socket.lock(Direction::Write);
    for call in ["first", "second"] {
        bytes.lock().push(call);
    }
    socket.unlock_ref(Direction::Write);
    appending.join().unwrap();
    let bytes = bytes.lock();
    let first = bytes.iter().position(|call| *call == "first").unwrap();
    assert_eq!(bytes.get(first + 1), Some(&"second"), "the bytes of `write_all` are not adjacent: {bytes:?}");
}
