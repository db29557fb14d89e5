//! The scheduler, block_on and timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netpoll::{rt, task};

#[test]
fn spawned_tasks_run_and_return() {
    let sum = task::block_on(async {
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
fn sleeps_end_in_order_and_never_early() {
    task::block_on(async {
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
fn nested_block_on_does_not_stop_the_world() {
    let count = Arc::new(AtomicUsize::new(0));
    task::block_on(async {
        let handles: Vec<_> = (0..16)
            .map(|_| {
                let count = count.clone();
                task::spawn(async move {
                    task::block_on(async {
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
fn a_handle_that_is_dropped_lets_the_task_run_on() {
    let (done, wait) = std::sync::mpsc::channel();
    drop(task::spawn(async move { done.send(7) }));
    assert_eq!(wait.recv_timeout(Duration::from_secs(10)), Ok(7));
}

#[test]
fn spawn_blocking_runs_beside_tasks() {
    task::block_on(async {
        let (send, receive) = std::sync::mpsc::channel();
        let blocked = task::spawn_blocking(move || receive.recv_timeout(Duration::from_secs(10)));
        task::sleep(Duration::from_millis(1)).await;
        send.send(1).unwrap();
        assert_eq!(blocked.await, Ok(1));
    });
    assert!(rt::metrics().blocking_threads >= 1);
}
