//! `Sleep` and `timeout`: moves to earlier and later times, busy tasks, the shortest and longest
//! durations, other executors.
//!
//! Some tests follow Go's time/sleep_test.go and time/tick_test.go. Most tests limit lateness only
//! by the time limit of the test.

mod common;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use common::by_hand::{Wakes, drive, in_ms, past};
use common::{Watchdog, becomes, poll_now, poll_with, run};
use netpoll::time::Sleep;
use netpoll::{future, task};

/// A pseudo-random generator with a fixed seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Go: TestTimerModifiedEarlier.
#[test]
fn timer_moved_earlier_fires_at_new_time() {
    run(async {
        for _ in 0..50 {
            let mut sleep = Sleep::new(Duration::from_secs(3600));
            let (wakes, waker) = Wakes::new();
            assert!(poll_with(&mut sleep, &waker).is_pending());
            let deadline = in_ms(2);
            sleep.reset(deadline);
            assert_eq!(sleep.deadline(), Some(deadline));
            drive(&mut sleep, &wakes, &waker).await;
            assert!(Instant::now() >= deadline);
        }
    });
}

#[test]
fn timer_moved_later_skips_old_time() {
    run(async {
        let mut sleep = Sleep::new(Duration::from_millis(100));
        // The poll returns Pending, unless the time has already passed on a busy machine.
        let _ = poll_now(&mut sleep);
        let deadline = in_ms(160);
        sleep.reset(deadline);
        sleep.await;
        assert!(Instant::now() >= deadline);
    });
}

/// Go: TestAdjustTimers. Many tasks move hundreds of timers. Each timer fires, and none fires
/// early.
#[test]
fn repeatedly_moved_timers_all_fire() {
    run(async {
        let handles: Vec<_> = (0..16_u64)
            .map(|id| {
                task::spawn(async move {
                    let mut random = Random(0x9e37_79b9 + id);
                    for _ in 0..20 {
                        let mut sleeps: Vec<_> = (0..20).map(|_| Sleep::new(Duration::from_secs(3600))).collect();
                        for _ in 0..5 {
                            for sleep in &mut sleeps {
                                assert!(poll_now(sleep).is_pending());
                                sleep.reset(in_ms(3_600_000 + random.below(1000)));
                            }
                        }
                        for sleep in &mut sleeps {
                            sleep.reset(Instant::now() + Duration::from_micros(random.below(3000)));
                        }
                        for sleep in sleeps {
                            let deadline = sleep.deadline().expect("a time");
                            sleep.await;
                            assert!(Instant::now() >= deadline);
                        }
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
    });
}

/// Go: TestLongAdjustTimers. A near timer fires among very many far timers, some of which are
/// moved.
#[test]
fn near_timer_fires_among_many_far_ones() {
    run(async {
        let mut far: Vec<_> = (0..20_000_u64).map(|n| Sleep::new(Duration::from_secs(1000 + n))).collect();
        for sleep in &mut far {
            assert!(poll_now(sleep).is_pending());
        }
        // In this time, a thread checks the timers while all far ones are armed.
        task::sleep(Duration::from_millis(1)).await;
        for (n, sleep) in far.iter_mut().enumerate() {
            if n % 2 == 0 {
                sleep.reset(in_ms(5_000_000 - n as u64));
                assert!(poll_now(sleep).is_pending());
            }
        }
        let deadline = in_ms(1);
        Sleep::until(deadline).await;
        assert!(Instant::now() >= deadline);
        drop(far);
        // In this time, a thread checks the timers without the far ones.
        task::sleep(Duration::from_millis(1)).await;
    });
}

/// Go: TestMultiWakeup. Tasks end, and wake the tasks that await them, while timers of other tasks
/// fire.
#[test]
fn coinciding_timers_and_wakeups_lose_no_task() {
    run(async {
        let count = Arc::new(AtomicUsize::new(0));
        let handles: Vec<_> = (0..32_u64)
            .map(|id| {
                let count = count.clone();
                task::spawn(async move {
                    for round in 0..100 {
                        task::sleep(Duration::from_micros(10 + (id * 7 + round) % 50)).await;
                        task::spawn({
                            let count = count.clone();
                            async move { count.fetch_add(1, Ordering::Relaxed) }
                        })
                        .await;
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
        assert_eq!(count.load(Ordering::Relaxed), 3200);
    });
}

#[test]
fn timers_fire_while_other_tasks_are_always_runnable() {
    run(async {
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..8)
            .map(|_| {
                let stop = stop.clone();
                task::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            task::sleep(Duration::from_millis(2)).await;
        }
        let handle = task::spawn(async { task::sleep(Duration::from_millis(5)).await });
        handle.await;
        stop.store(true, Ordering::Relaxed);
        for task in busy {
            task.await;
        }
    });
}

/// Go: TestAfterFuncStarvation. A task whose timer is due again as soon as it has fired does not
/// starve other tasks.
#[test]
fn always_due_timer_starves_no_task() {
    run(async {
        let stop = Arc::new(AtomicBool::new(false));
        let eager: Vec<_> = (0..4)
            .map(|_| {
                let stop = stop.clone();
                task::spawn(async move {
                    let mut fired = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        task::sleep(Duration::from_nanos(1)).await;
                        fired += 1;
                        if fired.is_multiple_of(64) {
                            // A sleep whose time has passed before it begins need not yield.
                            task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            task::sleep(Duration::from_millis(1)).await;
        }
        stop.store(true, Ordering::Relaxed);
        for task in eager {
            task.await;
        }
    });
}

/// Go: TestOverflowSleep.
#[test]
fn longest_sleeps_do_not_overflow() {
    run(async {
        for longest in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_nanos(i64::MAX as u64)] {
            let mut sleep = Sleep::new(longest);
            assert!(poll_now(&mut sleep).is_pending());
            let result = future::timeout(Duration::from_millis(3), &mut sleep).await;
            assert!(result.is_err(), "a sleep of {longest:?} ended");
            sleep.reset(in_ms(1));
            sleep.await;
            assert!(future::timeout(Duration::from_millis(1), task::sleep(longest)).await.is_err());
        }
        assert_eq!(Sleep::new(Duration::MAX).deadline(), None);
        assert_eq!(Sleep::never().deadline(), None);
        assert!(future::timeout(Duration::from_millis(1), Sleep::never()).await.is_err());
        assert_eq!(future::timeout(Duration::MAX, async { 7 }).await.unwrap(), 7);
        // This `Instant` is billions of years away.
        let mut end = Instant::now();
        while let Some(later) = end.checked_add(Duration::from_secs(1 << 56)) {
            end = later;
        }
        assert!(future::timeout(Duration::from_millis(1), Sleep::until(end)).await.is_err());
    });
}

#[test]
fn past_sleeps_complete_immediately() {
    run(async {
        assert!(poll_now(&mut Sleep::new(Duration::ZERO)).is_ready());
        assert!(poll_now(&mut Sleep::until(Instant::now())).is_ready());
        if let Some(early) = Instant::now().checked_sub(Duration::from_secs(3600)) {
            assert!(poll_now(&mut Sleep::until(early)).is_ready());
        }
        // A sleep can be moved after it has fired.
        let mut sleep = Sleep::new(Duration::ZERO);
        assert!(poll_now(&mut sleep).is_ready());
        let deadline = in_ms(3);
        sleep.reset(deadline);
        Pin::new(&mut sleep).await;
        assert!(Instant::now() >= deadline);
        sleep.reset(past());
        assert!(poll_now(&mut sleep).is_ready());
    });
}

#[test]
fn timers_work_under_other_executors_and_move_threads() {
    let _watchdog = Watchdog::new();
    let deadline = in_ms(10);
    futures_lite::future::block_on(Sleep::until(deadline));
    assert!(Instant::now() >= deadline);
    // The sleep is armed on one thread, awaited on another, and dropped on a third.
    let mut sleep = Sleep::new(Duration::from_millis(20));
    let deadline = sleep.deadline().unwrap();
    let _ = poll_now(&mut sleep);
    let mut sleep = std::thread::spawn(move || {
        futures_lite::future::block_on(&mut sleep);
        sleep
    })
    .join()
    .unwrap();
    assert!(Instant::now() >= deadline);
    sleep.reset(in_ms(3_600_000));
    task::block_on(async {
        assert!(poll_now(&mut sleep).is_pending());
    });
    std::thread::spawn(move || drop(sleep)).join().unwrap();
}

#[test]
fn last_waker_of_sleep_is_woken() {
    run(async {
        let mut length = Duration::from_millis(5);
        // On a busy machine the sleep may end before the last poll. Then a longer sleep follows.
        let (mut sleep, wakers) = loop {
            let (mut sleep, wakers) = (Sleep::new(length), [(); 3].map(|()| Wakes::new()));
            if wakers.iter().all(|(_, waker)| poll_with(&mut sleep, waker).is_pending()) {
                break (sleep, wakers);
            }
            length *= 2;
        };
        becomes("the last waker is woken", || wakers[2].0.count() > 0).await;
        assert_eq!((wakers[0].0.count(), wakers[1].0.count()), (0, 0));
        assert!(poll_with(&mut sleep, Waker::noop()).is_ready());
    });
}

#[test]
fn timeout_ends_its_future_but_not_early() {
    run(async {
        let start = Instant::now();
        assert!(future::timeout(Duration::from_millis(10), std::future::pending::<()>()).await.is_err());
        assert!(start.elapsed() >= Duration::from_millis(10));
        let inner = pin!(async {
            task::sleep(Duration::from_millis(2)).await;
            5
        });
        assert_eq!(future::timeout(Duration::from_secs(60), inner).await.unwrap(), 5);
        let error = netpoll::io::timeout(Duration::from_millis(1), std::future::pending::<std::io::Result<()>>()).await;
        assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    });
}

/// Regression: sleeps ended up to ten milliseconds late, because their length was counted from the
/// coarse clock.
#[test]
fn subsecond_sleep_is_not_late_by_a_tick() {
    const SLEEP: Duration = Duration::from_millis(150);
    let mut least = Duration::MAX;
    // On a busy machine any of the sleeps may be late.
    for _ in 0..50 {
        let start = Instant::now();
        run(task::sleep(SLEEP));
        least = least.min(start.elapsed() - SLEEP);
        if least < Duration::from_millis(3) {
            return;
        }
    }
    panic!("all sleeps are late, by at least {least:?}");
}
