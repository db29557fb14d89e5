//! Invariant 10: no thread of an idle process wakes up. Each test counts the context switches of
//! its own child process.

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{child, context_switches, cpu_time, echo, eventually, listener, pair, park_on, ping};
use netpoll::net::TcpStream;
use netpoll::{rt, task};

/// The time for which no thread may run.
const QUIET: Duration = Duration::from_millis(1200);

/// Asserts that, when pending work has ended, no thread except this one runs for [`QUIET`].
#[track_caller]
fn assert_idle() {
    let start = Instant::now();
    loop {
        let (switches, cpu, before) = (context_switches(), cpu_time(), rt::metrics());
        thread::sleep(QUIET);
        // The switches of a thread that has ended are no longer in the count.
        let (now, used) = (context_switches(), cpu_time() - cpu);
        if now == switches {
            // The counting itself takes CPU time.
            assert!(used < Duration::from_millis(50), "{used:?} of CPU time");
            return;
        }
        // Sysmon sleeps after a few checks. Surplus workers and threads for blocking calls end
        // after some seconds without work.
        assert!(
            start.elapsed() < common::BOUND / 3,
            "{switches} and then {now} context switches, {QUIET:?} of idleness between them\n{before:?}\n{:?}",
            rt::metrics()
        );
    }
}

/// Invariant 10.
#[test]
fn idle_after_traffic() {
    child("idle_after_traffic", || {
        let listener = park_on(listener());
        let addr = listener.local_addr().unwrap();
        drop(task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(task::spawn(async move { echo(&stream).await }));
            }
        }));
        let streams: Vec<_> = (0..50_u8)
            .map(|n| {
                task::spawn(async move {
                    let stream = TcpStream::connect(addr).await.unwrap();
                    for _ in 0..50 {
                        ping(&stream, &[n; 64]).await.unwrap();
                    }
                    stream
                })
            })
            .map(park_on)
            .collect();
        assert_idle();
        // All waiters still exist, and are woken.
        for stream in &streams {
            park_on(ping(stream, b"again")).unwrap();
        }
        assert_idle();
    });
}

/// Invariant 10.
#[test]
fn idle_after_block_on_left_sockets_open() {
    child("idle_after_block_on_left_sockets_open", || {
        let streams = task::block_on(async {
            let (client, server) = pair().await;
            let echo = task::spawn(async move { echo(&server).await });
            ping(&client, b"hello").await.unwrap();
            (client, echo)
        });
        assert_idle();
        task::block_on(ping(&streams.0, b"hello")).unwrap();
        assert_idle();
    });
}

/// Invariant 10.
#[test]
fn idle_inside_waiting_block_on() {
    child("idle_inside_waiting_block_on", || {
        let (send, receive) = futures::channel::oneshot::channel::<()>();
        let (begun, wait) = mpsc::channel();
        let thread = thread::spawn(move || {
            task::block_on(async {
                let (client, server) = pair().await;
                drop(task::spawn(async move { echo(&server).await }));
                ping(&client, b"hello").await.unwrap();
                begun.send(()).unwrap();
                receive.await.unwrap();
            });
        });
        wait.recv().unwrap();
        assert_idle();
        send.send(()).unwrap();
        thread.join().unwrap();
        assert_idle();
    });
}

/// Invariant 10.
#[test]
fn idle_after_timers() {
    child("idle_after_timers", || {
        let (client, _server) = park_on(pair());
        let sleeps: Vec<_> = (1..100).map(|n| task::spawn(task::sleep(Duration::from_micros(n * 100)))).collect();
        sleeps.into_iter().for_each(park_on);
        client.set_read_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        park_on(client.read(&mut [0; 1])).unwrap_err();
        // Cancels sleeps, and leaves a sleep and a deadline of one hour.
        for _ in 0..100 {
            park_on(task::spawn(task::sleep(Duration::from_secs(2))).cancel());
        }
        let far = task::spawn(task::sleep(Duration::from_secs(3600)));
        client.set_read_deadline(Instant::now() + Duration::from_secs(3600)).unwrap();
        assert_idle();
        park_on(far.cancel());
    });
}

/// Invariant 10.
#[test]
fn idle_after_spare_workers_ran() {
    child("idle_after_spare_workers_ran", || {
        rt::Builder::new().workers(2).start().unwrap();
        let blocked: Vec<_> = (0..10)
            .map(|_| task::spawn(async { eventually("a spare worker starts", || rt::metrics().worker_threads > 2) }))
            .collect();
        blocked.into_iter().for_each(park_on);
        eventually("spare workers end", || rt::metrics().worker_threads <= 2);
        assert_idle();
    });
}

/// Invariant 10.
#[test]
fn idle_with_a_nested_block_on_and_a_blocking_call() {
    child("idle_with_a_nested_block_on_and_a_blocking_call", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (send, receive) = futures::channel::oneshot::channel::<()>();
        let nested = task::spawn(async move { task::block_on(receive).unwrap() });
        let (release, wait) = mpsc::channel::<()>();
        let blocking = task::spawn_blocking(move || wait.recv().is_err());
        park_on(task::spawn(async {}));
        assert_idle();
        send.send(()).unwrap();
        drop(release);
        park_on(nested);
        park_on(blocking);
    });
}

/// Invariant 10.
#[test]
fn idle_with_sockets_of_other_executors() {
    child("idle_with_sockets_of_other_executors", || {
        let (client, server) = futures::executor::block_on(pair());
        let echo = thread::spawn(move || futures::executor::block_on(echo(&server)));
        futures::executor::block_on(ping(&client, b"hello")).unwrap();
        assert_idle();
        futures::executor::block_on(ping(&client, b"hello")).unwrap();
        drop(client);
        echo.join().unwrap().unwrap();
    });
}

/// Invariant 10.
#[test]
fn idle_after_shutdown() {
    child("idle_after_shutdown", || {
        task::block_on(async { task::spawn(async {}).await });
        rt::shutdown(common::BOUND).unwrap();
        assert_idle();
    });
}
