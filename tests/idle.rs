//! Invariant 10: an idle process is idle. Each test counts the context switches of its own child
//! process.

mod common;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{child, context_switches, cpu_time, echo, eventually, listener, pair, park_on, ping};
use netpoll::net::TcpStream;
use netpoll::{rt, task, time};

const QUIET: Duration = Duration::from_millis(1200);

/// Asserts that after pending work has ended, no thread except this one runs for a while.
#[track_caller]
fn assert_idle() {
    let start = Instant::now();
    loop {
        let (switches, cpu, before) = (context_switches(), cpu_time(), rt::metrics());
        thread::sleep(QUIET);
        // The switches of a thread that ends disappear from the count.
        let (now, used) = (context_switches(), cpu_time() - cpu);
        if now == switches {
            // The counting itself takes time.
            assert!(used < Duration::from_millis(50), "{used:?} of CPU time");
            return;
        }
        // Sysmon sleeps after a few checks, and resting threads end after a few seconds.
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
        // All waiters are still there, and wake up.
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
        // Cancelled sleeps, and sleeps of many hours.
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
            .map(|_| task::spawn(async { eventually("a spare worker comes", || rt::metrics().worker_threads > 2) }))
            .collect();
        blocked.into_iter().for_each(park_on);
        eventually("spare workers end", || rt::metrics().worker_threads <= 2);
        assert_idle();
    });
}

/// Invariant 10.
#[test]
fn idle_beside_blocked_and_nested_threads() {
    child("idle_beside_blocked_and_nested_threads", || {
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

/// A waker that blocks the thread of sysmon, until the sender is dropped.
struct BlocksSysmon {
    entered: AtomicBool,
    open: Mutex<mpsc::Receiver<()>>,
}

impl Wake for BlocksSysmon {
    fn wake(self: Arc<Self>) {
        if std::thread::current().name() == Some("netpoll-sysmon") && !self.entered.swap(true, Ordering::SeqCst) {
            let _ = self.open.lock().unwrap().recv_timeout(common::BOUND);
        }
    }
}

#[test]
fn long_sleeps_are_idle_and_end_while_sysmon_is_blocked() {
    child("long_sleeps_are_idle_and_end_while_sysmon_is_blocked", || {
        const LONG: Duration = Duration::from_secs(6);
        rt::Builder::new().workers(2).spare_workers(0).start().unwrap();
        // While both workers are blocked, sysmon runs the timers.
        let (ran, runs) = mpsc::channel();
        let (ends, blockers): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (end, blocked) = mpsc::channel::<()>();
                let ran = ran.clone();
                (end, task::spawn(async move { (ran.send(()), blocked.recv_timeout(common::BOUND)) }))
            })
            .unzip();
        for _ in 0..2 {
            runs.recv_timeout(common::BOUND).unwrap();
        }
        let (release, open) = mpsc::channel();
        let gate = Arc::new(BlocksSysmon { entered: AtomicBool::new(false), open: Mutex::new(open) });
        let waker = Waker::from(gate.clone());
        let mut sleeps = Vec::new();
        eventually("sysmon is in the waker", || {
            let mut sleep = Box::pin(time::Sleep::new(Duration::from_millis(1)));
            let _ = sleep.as_mut().poll(&mut Context::from_waker(&waker));
            sleeps.push(sleep);
            gate.entered.load(Ordering::SeqCst)
        });
        drop(ends);
        for blocker in blockers {
            let (sent, _) = park_on(blocker);
            sent.unwrap();
        }
        drop(sleeps);
        let (one, _other) = park_on(pair());
        let (start, cpu) = (Instant::now(), cpu_time());
        // The deadline is moved later, as a server does before each read.
        one.set_read_deadline(start + LONG - Duration::from_millis(1)).unwrap();
        one.set_read_deadline(start + LONG).unwrap();
        let read = task::spawn(async move { one.read(&mut [0; 1]).await.unwrap_err() });
        park_on(task::sleep(LONG));
        assert!(start.elapsed() >= LONG);
        let error = park_on(read);
        assert!(netpoll::net::is_timeout(&error), "{error}");
        let used = cpu_time() - cpu;
        assert!(used < LONG / 4, "{used:?} of CPU time in {:?}", start.elapsed());
        drop(release);
    });
}
