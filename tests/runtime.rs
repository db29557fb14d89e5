//! The runtime as a whole: tasks, timers, the poller's sleep and its interruption.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Watchdog, child, echo, eventually, pair, park_on, ping, run};
use netpoll::time::Sleep;
use netpoll::{rt, task};

#[test]
fn spawned_tasks_run_and_return() {
    let sum = run(async {
        let handles: Vec<_> = (0..10_000_u64).map(|n| task::spawn(async move { n })).collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.await;
        }
        sum
    });
    assert_eq!(sum, 9999 * 10_000 / 2);
}

#[test]
fn sleeps_never_complete_early() {
    run(async {
        let start = Instant::now();
        let handles: Vec<_> = [30_u64, 10, 20]
            .map(|ms| {
                task::spawn(async move {
                    task::sleep(Duration::from_millis(ms)).await;
                    (ms, start.elapsed())
                })
            })
            .into_iter()
            .collect();
        for handle in handles {
            let (ms, took) = handle.await;
            assert!(took >= Duration::from_millis(ms));
        }
    });
}

#[test]
fn nested_block_on_does_not_stop_other_tasks() {
    let count = Arc::new(AtomicUsize::new(0));
    run(async {
        let handles: Vec<_> = (0..16)
            .map(|_| {
                let count = count.clone();
                task::spawn(async move {
                    run(async {
                        task::sleep(Duration::from_millis(5)).await;
                        let count = count.clone();
                        task::spawn(async move { count.fetch_add(1, Ordering::SeqCst) }).await
                    })
                })
            })
            .collect();
        for handle in handles {
            handle.await;
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 16);
}

#[test]
fn dropped_join_handle_detaches_task() {
    let (done, wait) = std::sync::mpsc::channel();
    drop(task::spawn(async move { done.send(7) }));
    assert_eq!(wait.recv_timeout(common::BOUND), Ok(7));
}

#[test]
fn spawn_blocking_call_does_not_block_tasks() {
    run(async {
        let (send, receive) = std::sync::mpsc::channel();
        let blocked = task::spawn_blocking(move || receive.recv_timeout(common::BOUND));
        task::sleep(Duration::from_millis(1)).await;
        send.send(1).unwrap();
        assert_eq!(blocked.await, Ok(1));
    });
    assert!(rt::metrics().blocking_threads >= 1);
}

/// Go: TestNetpollBreak. New work interrupts a long poll, even if several threads add work at once.
#[test]
fn concurrent_wakeups_interrupt_long_poll() {
    child("concurrent_wakeups_interrupt_long_poll", || {
        rt::Builder::new().workers(1).start().unwrap();
        let _far = task::spawn(task::sleep(Duration::from_secs(3600)));
        for _ in 0..300 {
            let wakers: Vec<_> = (0..4)
                .map(|n| {
                    std::thread::spawn(move || match n % 2 {
                        0 => park_on(task::spawn(async {})),
                        // A thread without a processor arms an earlier timer.
                        _ => park_on(task::sleep(Duration::from_micros(50))),
                    })
                })
                .collect();
            wakers.into_iter().for_each(|waker| waker.join().unwrap());
        }
    });
}

/// Go: TestNetpollWaiters.
#[test]
fn no_waiter_remains_after_io() {
    child("no_waiter_remains_after_io", || {
        run(async {
            let pairs: Vec<_> = (0..50_u8)
                .map(|n| {
                    task::spawn(async move {
                        let (client, server) = pair().await;
                        let server = task::spawn(async move { echo(&server).await });
                        for _ in 0..20 {
                            ping(&client, &[n; 100]).await.unwrap();
                        }
                        // One read is dropped, and one times out. The server's read ends when the
                        // client closes.
                        let late = netpoll::io::timeout(Duration::from_micros(100), client.read(&mut [0; 1])).await;
                        assert!(late.is_err());
                        client.set_read_deadline(Instant::now() + Duration::from_millis(1)).unwrap();
                        assert!(client.read(&mut [0; 1]).await.is_err());
                        client.force_close().await.unwrap();
                        server.await.unwrap();
                    })
                })
                .collect();
            for pair in pairs {
                pair.await;
            }
        });
        eventually("no waiter, open descriptor or task is left", || {
            let metrics = rt::metrics();
            (metrics.waiters, metrics.descriptors, metrics.tasks_alive) == (0, 0, 0)
        });
    });
}

/// Go: TestTimerFairness. A timer fires while other tasks are always runnable.
#[test]
fn timer_fires_while_tasks_are_always_runnable() {
    common::child_for_each("timer_fires_while_tasks_are_always_runnable", "NETPOLL_THREADS", &["1", "2"], || {
        run(async {
            let spinners: Vec<_> = (0..4)
                .map(|_| {
                    task::spawn(async {
                        loop {
                            task::yield_now().await;
                        }
                    })
                })
                .collect();
            // A starved timer would never fire.
            for _ in 0..10 {
                task::spawn(task::sleep(Duration::from_millis(20))).await;
            }
            for spinner in spinners {
                assert!(spinner.cancel().await.is_none());
            }
        });
    });
}

/// Go: TestTimerModifiedEarlier.
#[test]
fn sleep_reset_earlier_completes_earlier() {
    run(async {
        for round in 0..20 {
            let start = Instant::now();
            let mut sleep = Sleep::new(Duration::from_secs(3600));
            if round % 2 == 0 {
                assert!(common::poll_once(&mut sleep).await.is_pending());
            }
            sleep.reset(start + Duration::from_millis(2));
            sleep.await;
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(2) && took < Duration::from_secs(3600), "{took:?}");
        }
    });
}

/// Go: TestAdjustTimers. Many tasks reset their sleeps to earlier and later times. Each sleep ends,
/// and none ends early.
#[test]
fn repeatedly_reset_sleeps_complete_and_never_early() {
    run(async {
        let tasks: Vec<_> = (0..50_u64)
            .map(|n| {
                task::spawn(async move {
                    let mut sleep = Sleep::new(Duration::from_secs(100));
                    let mut end = Instant::now();
                    for round in 0..100 {
                        let micros = (n * 7919 + round * 104_729) % 20_000;
                        end = Instant::now() + Duration::from_micros(micros);
                        sleep.reset(end);
                        assert!(common::poll_once(&mut sleep).await.is_pending() || Instant::now() >= end);
                        if round % 10 == 0 {
                            task::yield_now().await;
                        }
                    }
                    (&mut sleep).await;
                    assert!(Instant::now() >= end);
                    // A completed sleep stays ready until it is reset.
                    (&mut sleep).await;
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
}

/// A sleep is polled on a thread without a processor, then in a task, and then on a new thread,
/// which awaits it.
#[test]
fn sleep_moves_between_threads() {
    let _watchdog = Watchdog::new();
    for round in 0..50_u64 {
        let mut sleep = Sleep::new(Duration::from_millis(5 + round % 3));
        let _ = common::poll_now(&mut sleep);
        let [mut sleep] = park_on(task::spawn(async move {
            let _ = common::poll_once(&mut sleep).await;
            // The array prevents the sleep from being awaited here.
            [sleep]
        }));
        std::thread::spawn(move || {
            let _ = common::poll_now(&mut sleep);
            task::block_on(sleep);
        })
        .join()
        .unwrap();
    }
}

/// Arming a timer that is earlier than all others interrupts a worker that sleeps in the poller.
#[test]
fn earlier_timer_interrupts_poller_sleep() {
    let _watchdog = Watchdog::new();
    // The worker would sleep until this timer is due.
    let mut hour = Box::pin(task::sleep(Duration::from_secs(3600)));
    assert!(common::poll_now(&mut hour).is_pending());
    for _ in 0..10 {
        let sleeps: Vec<_> = (1..=20_u32)
            .rev()
            .map(|n| std::thread::spawn(move || park_on(task::sleep(n * Duration::from_millis(2)))))
            .collect();
        sleeps.into_iter().for_each(|sleep| sleep.join().unwrap());
    }
}

/// A `block_on` without tasks starts no worker. If it leaves a descriptor open or a task running, a
/// worker starts.
#[test]
fn block_on_without_tasks_starts_no_worker() {
    child("block_on_without_tasks_starts_no_worker", || {
        let threads = || rt::metrics().worker_threads;
        assert_eq!((task::block_on(async { 7 }), threads()), (7, 0));
        let listener = task::block_on(common::listener());
        assert_eq!((rt::metrics().descriptors, threads()), (1, 1), "a thread polls");
        drop(listener);
        rt::shutdown(common::BOUND).unwrap();
        assert_eq!((task::block_on(async { 7 }), threads()), (7, 0));
        let mut task = None;
        task::block_on(async { task = Some(task::spawn(task::sleep(Duration::from_millis(5)))) });
        assert_eq!(threads(), 1, "a thread runs the task");
        park_on(task.unwrap());
    });
}
