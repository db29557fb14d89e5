//! Tests of [`FdMutex`]. The models test the orders of concurrent steps.

use super::*;
use crate::counting_waker::CountingWaker;
use crate::rt::waiters::POLLS_MAX;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use futures_lite::future::block_on;

const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];

fn counter() -> (Arc<CountingWaker>, Waker) {
    let count = Arc::new(CountingWaker::default());
    (count.clone(), Waker::from(count))
}

/// Polls once for the lock with a reference.
fn poll(mutex: &FdMutex, direction: Direction, waker: &Waker, key: &mut Option<Key>) -> Poll<Result<(), LockError>> {
    mutex.poll_lock(direction, &mut Context::from_waker(waker), Waiter::Future(key))
}

/// Takes the lock and keeps it without a reference, as `write_all` does.
fn keep_lock(mutex: &FdMutex, direction: Direction) -> Result<bool, LockError> {
    let locked = mutex.try_lock_ref(direction)?;
    assert!(!(locked && mutex.decref()));
    Ok(locked)
}

fn lock(mutex: &FdMutex, direction: Direction) -> Result<(), LockError> {
    let mut key = None;
    block_on(poll_fn(|cx| mutex.poll_lock(direction, cx, Waiter::Future(&mut key))))
}

fn waiters_bits(mutex: &FdMutex) -> u64 {
    mutex.word.load(Ordering::SeqCst) & (READ_WAITERS | WRITE_WAITERS)
}

/// Go: TestMutexLock.
#[test]
fn open_descriptor_grants_locks_and_is_not_destroyed_by_a_release() {
    let mutex = FdMutex::new();
    mutex.incref().unwrap();
    assert!(!mutex.decref());
    for direction in DIRECTIONS {
        assert!(!mutex.is_locked(direction));
        assert_eq!(mutex.try_lock_ref(direction), Ok(true));
        assert!(mutex.is_locked(direction));
        assert_eq!(mutex.try_lock_ref(direction), Ok(false));
        assert_eq!(keep_lock(&mutex, direction), Ok(false));
        assert!(!mutex.unlock_ref(direction));
        assert_eq!(keep_lock(&mutex, direction), Ok(true));
        mutex.unlock(direction);
    }
    assert_eq!(mutex.word.load(Ordering::SeqCst), 0);
}

/// Go: TestMutexClose.
#[test]
fn closed_descriptor_refuses_locks_and_references() {
    let mutex = FdMutex::new();
    assert_eq!(mutex.begin_close().unwrap().len(), 0);
    assert!(mutex.is_closed());
    assert_eq!(mutex.incref(), Err(LockError::Closed));
    for direction in DIRECTIONS {
        assert_eq!(keep_lock(&mutex, direction), Err(LockError::Closed));
        assert_eq!(lock(&mutex, direction), Err(LockError::Closed));
        let waker = Waker::noop();
        let poll = mutex.poll_lock(direction, &mut Context::from_waker(waker), Waiter::Poll);
        assert_eq!(poll, Poll::Ready(Err(LockError::Closed)));
    }
    assert!(mutex.begin_close().is_err());
    assert!(mutex.decref());
}

/// Go: TestMutexCloseUnblock, invariant 1.
#[test]
fn close_wakes_the_queue_and_the_lock_holder_drops_the_last_reference() {
    let mutex = Arc::new(FdMutex::new());
    assert_eq!(mutex.try_lock_ref(Direction::Read), Ok(true));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mutex = mutex.clone();
            std::thread::spawn(move || lock(&mutex, Direction::Read))
        })
        .collect();
    let queued = || mutex.queues.lock().as_ref().map_or(0, |queues| queues.read.len());
    while queued() < 4 {
        std::thread::yield_now();
    }
    let mut wakers = mutex.begin_close().unwrap();
    assert_eq!(waiters_bits(&mutex), 0);
    assert_eq!(wakers.wake_all(), 4);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Err(LockError::Closed));
    }
    assert!(!mutex.decref());
    assert!(mutex.unlock_ref(Direction::Read));
}

/// Go: TestMutexPanic.
#[test]
fn unbalanced_release_panics_and_changes_nothing() {
    let mutex = FdMutex::new();
    let refused = |operation: &dyn Fn()| {
        let before = mutex.word.load(Ordering::SeqCst);
        let payload = catch_unwind(AssertUnwindSafe(operation)).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"inconsistent FdMutex"));
        assert_eq!(mutex.word.load(Ordering::SeqCst), before);
    };
    for round in 0..2 {
        refused(&|| assert!(mutex.decref()));
        for direction in DIRECTIONS {
            refused(&|| mutex.unlock(direction));
            refused(&|| assert!(mutex.unlock_ref(direction)));
            // The owner of a lock that has dropped its reference cannot drop it again.
            assert_eq!(keep_lock(&mutex, direction), Ok(true));
            refused(&|| assert!(mutex.unlock_ref(direction)));
            mutex.unlock(direction);
        }
        mutex.incref().unwrap();
        assert!(!mutex.decref(), "round {round}: the mutex still works");
    }
}

/// Go: TestMutexOverflowPanic. Here the overflow is an error.
#[test]
fn too_many_references_are_an_error_but_the_closer_still_gets_one() {
    let mutex = FdMutex::new();
    mutex.word.store(REFS_MAX << REFS_SHIFT, Ordering::SeqCst);
    assert_eq!(mutex.incref(), Err(LockError::TooMany));
    assert_eq!(mutex.try_lock_ref(Direction::Read), Err(LockError::TooMany));
    assert_eq!(lock(&mutex, Direction::Write), Err(LockError::TooMany));
    assert_eq!(mutex.begin_close().unwrap().len(), 0);
    assert!(!mutex.decref());
    assert_eq!(mutex.word.load(Ordering::SeqCst), (REFS_MAX << REFS_SHIFT) | CLOSED);
}

/// Invariant 13: the number of waiters is limited.
#[test]
fn too_many_waiters_are_an_error() {
    let mutex = FdMutex::new();
    assert_eq!(keep_lock(&mutex, Direction::Write), Ok(true));
    let waker = Waker::noop();
    let mut last = None;
    for _ in 0..WAITERS_MAX {
        last = None;
        assert!(poll(&mutex, Direction::Write, waker, &mut last).is_pending());
    }
    let mut key = None;
    assert_eq!(poll(&mutex, Direction::Write, waker, &mut key), Poll::Ready(Err(LockError::TooMany)));
    assert_eq!(key, None);
    // A queued waiter keeps its place, and a place that was given up is available.
    assert!(poll(&mutex, Direction::Write, waker, &mut last).is_pending());
    mutex.cancel(Direction::Write, last.unwrap());
    assert!(poll(&mutex, Direction::Write, waker, &mut key).is_pending());
    // Poll callers have a separate limit.
    assert!(mutex.poll_lock(Direction::Write, &mut Context::from_waker(waker), Waiter::Poll).is_pending());
    mutex.unlock(Direction::Write);
}

/// A writer is polled with a new waker each time while another writer has the lock.
#[test]
fn polls_with_new_wakers_do_not_accumulate() {
    let mutex = FdMutex::new();
    assert_eq!(keep_lock(&mutex, Direction::Write), Ok(true));
    for _ in 0..3 * POLLS_MAX {
        let (_, waker) = counter();
        assert!(mutex.poll_lock(Direction::Write, &mut Context::from_waker(&waker), Waiter::Poll).is_pending());
    }
    let waiting = mutex.queues.lock().as_mut().map_or(0, |queues| queues.of(Direction::Write).len());
    assert!(waiting <= POLLS_MAX, "{waiting}");
    mutex.unlock(Direction::Write);
}

#[test]
fn unlock_wakes_the_oldest_future_and_a_poll() {
    let mutex = FdMutex::new();
    for direction in DIRECTIONS {
        assert_eq!(keep_lock(&mutex, direction), Ok(true));
        let (first, first_waker) = counter();
        let (second, second_waker) = counter();
        let (polled, polled_waker) = counter();
        let (mut first_key, mut second_key) = (None, None);
        assert!(poll(&mutex, direction, &first_waker, &mut first_key).is_pending());
        assert!(poll(&mutex, direction, &second_waker, &mut second_key).is_pending());
        for _ in 0..3 {
            assert!(mutex.poll_lock(direction, &mut Context::from_waker(&polled_waker), Waiter::Poll).is_pending());
        }
        mutex.unlock(direction);
        assert_eq!((first.wakeups(), second.wakeups(), polled.wakeups()), (1, 0, 1));
        // A newcomer overtakes the woken waiter, which queues again behind the second waiter.
        assert_eq!(mutex.try_lock_ref(direction), Ok(true));
        assert!(poll(&mutex, direction, &first_waker, &mut first_key).is_pending());
        assert!(!mutex.unlock_ref(direction));
        assert_eq!((first.wakeups(), second.wakeups()), (1, 1));
        assert_eq!(poll(&mutex, direction, &second_waker, &mut second_key), Poll::Ready(Ok(())));
        assert_eq!(second_key, None);
        assert!(!mutex.unlock_ref(direction));
        assert_eq!(first.wakeups(), 2);
        assert_eq!(poll(&mutex, direction, &first_waker, &mut first_key), Poll::Ready(Ok(())));
        assert!(!mutex.unlock_ref(direction));
        assert_eq!(mutex.word.load(Ordering::SeqCst), 0);
    }
}

/// Invariant 5: a waiter that is dropped after it was woken passes the wake-up on. Dropping a
/// waiter that was not woken wakes no other.
#[test]
fn dropped_waiter_passes_its_wake_up_on() {
    let mutex = FdMutex::new();
    assert_eq!(mutex.try_lock_ref(Direction::Write), Ok(true));
    let (counts, wakers): (Vec<_>, Vec<_>) = (0..3).map(|_| counter()).unzip();
    let mut keys = [None; 3];
    for (waker, key) in wakers.iter().zip(&mut keys) {
        assert!(poll(&mutex, Direction::Write, waker, key).is_pending());
    }
    mutex.cancel(Direction::Write, keys[1].unwrap());
    assert_eq!(counts.iter().map(|count| count.wakeups()).sum::<usize>(), 0);
    assert!(!mutex.unlock_ref(Direction::Write));
    assert_eq!(counts[0].wakeups(), 1);
    mutex.cancel(Direction::Write, keys[0].unwrap());
    assert_eq!(counts[2].wakeups(), 1);
    assert_eq!(waiters_bits(&mutex), 0);
}

/// The queues are unlocked while wakers run and while wakers are dropped, because a waker may use
/// this or another socket.
#[test]
fn wakers_run_with_no_lock_held() {
    struct Reenter(Arc<FdMutex>, AtomicUsize);
    impl Wake for Reenter {
        fn wake(self: Arc<Reenter>) {
            self.0.cancel(Direction::Read, Key::MIN);
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    impl Drop for Reenter {
        fn drop(&mut self) {
            self.0.cancel(Direction::Read, Key::MIN);
        }
    }
    let mutex = Arc::new(FdMutex::new());
    for round in 0..4 {
        let task = Arc::new(Reenter(mutex.clone(), AtomicUsize::new(0)));
        let waker = Waker::from(task.clone());
        let mut key = None;
        if !mutex.is_closed() {
            assert_eq!(mutex.try_lock_ref(Direction::Read), Ok(true));
            assert!(poll(&mutex, Direction::Read, &waker, &mut key).is_pending());
            assert!(mutex.poll_lock(Direction::Read, &mut Context::from_waker(&waker), Waiter::Poll).is_pending());
        }
        drop(waker);
        match round {
            0 => assert!(!mutex.unlock_ref(Direction::Read)),
            1 => {
                mutex.cancel(Direction::Read, key.unwrap());
                assert!(!mutex.unlock_ref(Direction::Read));
            }
            2 => {
                // A different waker replaces the stored one, which is dropped.
                assert!(poll(&mutex, Direction::Read, Waker::noop(), &mut key).is_pending());
                assert!(!mutex.unlock_ref(Direction::Read));
            }
            _ => {
                let mut wakers = mutex.begin_close().unwrap();
                assert_eq!(wakers.len(), 2);
                wakers.wake_in_place();
            }
        }
        assert!(round == 1 || round == 2 || task.1.load(Ordering::SeqCst) >= 2);
    }
}

/// Two words that the owner of a direction increments one after the other. If a direction had two
/// owners at a time, an owner could see that the words differ.
#[derive(Debug, Default)]
struct Torn([AtomicU64; 2]);

impl Torn {
    fn touch(&self) {
        let first = self.0[0].fetch_add(1, Ordering::Relaxed);
        std::hint::spin_loop();
        let second = self.0[1].fetch_add(1, Ordering::Relaxed);
        assert_eq!(first, second, "two owners of one direction");
    }
}

/// Go: TestMutexStress. Eight threads use futures, polls, kept locks and references.
#[test]
fn stress_keeps_one_owner_per_direction() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 20_000;
    let shared = Arc::new((FdMutex::new(), [Torn::default(), Torn::default()]));
    let threads: Vec<_> = (1..=THREADS)
        .map(|seed| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let (mutex, torn) = &*shared;
                let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                for _ in 0..ROUNDS {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let at = usize::from(random & 1 != 0);
                    let direction = DIRECTIONS[at];
                    match (random >> 8) % 5 {
                        0 => {
                            mutex.incref().unwrap();
                            assert!(!mutex.decref());
                        }
                        1 => {
                            lock(mutex, direction).unwrap();
                            torn[at].touch();
                            assert!(!mutex.unlock_ref(direction));
                        }
                        2 => {
                            block_on(poll_fn(|cx| mutex.poll_lock(direction, cx, Waiter::Poll))).unwrap();
                            torn[at].touch();
                            assert!(!mutex.unlock_ref(direction));
                        }
                        3 => {
                            if keep_lock(mutex, direction) == Ok(true) {
                                torn[at].touch();
                                mutex.unlock(direction);
                            }
                        }
                        _ => {
                            // A future that is dropped after one poll.
                            let mut key = None;
                            match poll(mutex, direction, Waker::noop(), &mut key) {
                                Poll::Ready(result) => {
                                    result.unwrap();
                                    torn[at].touch();
                                    assert!(!mutex.unlock_ref(direction));
                                }
                                Poll::Pending => mutex.cancel(direction, key.unwrap()),
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let (mutex, _) = &*shared;
    assert_eq!(mutex.word.load(Ordering::SeqCst), 0);
    assert_eq!(mutex.begin_close().unwrap().len(), 0);
    assert!(mutex.decref());
}
