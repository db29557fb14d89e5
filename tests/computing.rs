//! Timers, deadlines, dials, sockets and tasks while other tasks compute without yielding, or while
//! a task, a waker or a report blocks its thread. Also accepts and dials that wait for a permit or
//! for room in a queue.
#![cfg(target_os = "linux")] // abstract names, and SOCK_SEQPACKET

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use black_hole::BlackHole;
use common::{child, child_for_each, eventually, pair, park_on, ping, poll_once};
use netpoll::net::{self, ListenConfig, TcpListener, TcpStream, UdpSocket, is_timeout};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixSeqpacketListener, UnixStream};
use netpoll::prelude::*;
use netpoll::time::Sleep;
use netpoll::{future, rt, stream, task};

const MS: Duration = Duration::from_millis(1);

/// Tasks that compute until the value is dropped, one per worker.
struct Computing {
    ends: Arc<AtomicBool>,
    tasks: Vec<task::JoinHandle<()>>,
}

impl Computing {
    fn begin(workers: usize) -> Computing {
        let (ends, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..workers).map(|_| {
            let (ends, begun) = (ends.clone(), begun.clone());
            task::spawn(async move {
                begun.fetch_add(1, Ordering::SeqCst);
                while !ends.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        });
        let tasks = tasks.collect();
        eventually("all compute", || begun.load(Ordering::SeqCst) == workers);
        Computing { ends, tasks }
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.tasks.drain(..).for_each(park_on);
    }
}

fn times_out<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.unwrap_err();
    assert!(is_timeout(&error), "{error}");
}

/// Runs waits of many kinds, each of which ends by itself.
async fn waits_end() {
    task::sleep(5 * MS).await;
    assert_eq!(stream::interval(MS).take(3).count().await, 3);
    assert!(future::timeout(5 * MS, pending::<()>()).await.is_err());

    let (one, _other) = pair().await;
    one.set_read_timeout(Some(5 * MS)).unwrap();
    times_out(one.read(&mut [0; 1]).await);
    one.set_read_timeout(None).unwrap();
    one.set_read_deadline(Instant::now() + 5 * MS).unwrap();
    times_out(one.readable().await);

    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.set_read_timeout(Some(5 * MS)).unwrap();
    times_out(udp.recv_from(&mut [0; 1]).await);
    udp.set_read_timeout(None).unwrap();
    let addr = udp.local_addr().unwrap();
    udp.send_to(b"x", addr).await.unwrap();
    assert_eq!(udp.recv_from(&mut [0; 1]).await.unwrap(), (1, addr));

    let (datagrams, _other) = UnixDatagram::pair().unwrap();
    datagrams.set_read_deadline(Instant::now() + 5 * MS).unwrap();
    times_out(datagrams.recv(&mut [0; 1]).await);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.set_deadline(Instant::now() + 5 * MS).unwrap();
    times_out(listener.accept().await);
    let local = UnixListener::bind("").await.unwrap();
    local.set_deadline(Instant::now() + 5 * MS).unwrap();
    times_out(local.accept().await);

    let hole = BlackHole::new();
    times_out(TcpStream::connect_timeout(&hole.addr, 20 * MS).await);
    times_out(net::Dialer::new().timeout(20 * MS).dial(hole.addr).await);
}

/// Waits of root futures, of another executor and of foreign threads end although tasks compute on
/// every worker.
#[test]
fn waits_end_while_tasks_compute() {
    child("waits_end_while_tasks_compute", || {
        for workers in [1, 2] {
            for policy in [rt::BlockedPolicy::AddWorkers, rt::BlockedPolicy::Off] {
                rt::Builder::new().workers(workers).spare_workers(0).blocked_tasks(policy).start().unwrap();
                let computing = Computing::begin(workers);
                task::block_on(waits_end());
                park_on(waits_end());
                let threads: Vec<_> = (0..2).map(|_| thread::spawn(|| task::block_on(waits_end()))).collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                // This call is nested in a poll of a root future.
                task::block_on(async { task::block_on(waits_end()) });
                drop(computing);
                rt::shutdown(common::BOUND).unwrap();
            }
        }
    });
}

/// Waits of tasks end although other tasks compute on every worker, whether the waits began before
/// the computations or after.
#[test]
fn waits_of_tasks_end_while_other_tasks_compute() {
    child_for_each("waits_of_tasks_end_while_other_tasks_compute", "NETPOLL_THREADS", &["1", "2"], || {
        let sleeps = (0..20).map(|at| task::spawn(task::sleep((50 + at) * MS)));
        let sleeps: Vec<_> = sleeps.collect();
        let (client, server) = park_on(pair());
        let server = task::spawn(async move {
            server.set_read_timeout(Some(common::BOUND)).unwrap();
            common::echo(&server).await
        });
        park_on(ping(&client, b"before")).unwrap();
        let workers = std::env::var("NETPOLL_THREADS").unwrap().parse().unwrap();
        let computing = Computing::begin(workers);
        park_on(ping(&client, b"meanwhile")).unwrap();
        sleeps.into_iter().for_each(park_on);
        park_on(task::spawn(waits_end()));
        park_on(task::spawn(async { task::block_on(waits_end()) }));
        park_on(task::spawn_blocking(|| task::block_on(waits_end())));
        drop(computing);
        drop(client);
        park_on(server).unwrap();
    });
}

/// While a task occupies its worker, the other worker takes the tasks queued behind it, under any
/// policy for blocked tasks.
#[test]
fn free_worker_takes_tasks_queued_behind_one_that_computes_or_blocks() {
    use rt::BlockedPolicy::{AddWorkers, Off, ReportOnly};
    /// Checks that `count` tasks run while another task occupies its worker, by computing or by
    /// waiting for a channel. That other task spawns them, or this thread does.
    fn all_run(count: usize, spawned_by_task: bool, computes: bool) {
        let done = Arc::new(AtomicUsize::new(0));
        let (finished, finishes) = mpsc::channel();
        let others = done.clone();
        let spawns = move || {
            for _ in 0..count {
                let (others, finished) = (others.clone(), finished.clone());
                drop(task::spawn(async move {
                    others.fetch_add(1, Ordering::SeqCst);
                    finished.send(()).unwrap();
                }));
            }
        };
        let (begun, begins) = mpsc::channel();
        let (mut by_task, by_thread) = if spawned_by_task { (Some(spawns), None) } else { (None, Some(spawns)) };
        let occupying = task::spawn(async move {
            begun.send(()).unwrap();
            by_task.take().into_iter().for_each(|spawns| spawns());
            while computes && done.load(Ordering::SeqCst) < count {
                std::hint::spin_loop();
            }
            for _ in 0..count {
                finishes.recv_timeout(common::BOUND / 2).expect("the other worker runs the task");
            }
        });
        begins.recv().unwrap();
        by_thread.into_iter().for_each(|spawns| spawns());
        park_on(occupying);
    }
    child("free_worker_takes_tasks_queued_behind_one_that_computes_or_blocks", || {
        for policy in [AddWorkers, ReportOnly, Off] {
            rt::Builder::new().workers(2).spare_workers(0).blocked_tasks(policy).start().unwrap();
            for count in [1, 2, 300] {
                for (spawned_by_task, computes) in [(true, true), (true, false), (false, true), (false, false)] {
                    println!("{policy:?}, {count} tasks, spawned by the task: {spawned_by_task}, computes: {computes}");
                    all_run(count, spawned_by_task, computes);
                }
            }
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

/// A waker that blocks in `wake` until it receives a message, and then sends one.
struct Waits(Mutex<mpsc::Receiver<()>>, mpsc::Sender<()>);

impl Wake for Waits {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().recv_timeout(common::BOUND).expect("the waker is released");
        self.1.send(()).unwrap();
    }
}

/// Returns a sleep that waits with `waker`.
fn waiting_sleep(duration: Duration, waker: &Waker) -> Sleep {
    loop {
        let mut sleep = Sleep::new(duration);
        // On a busy machine, a sleep may end at its first poll, without a call of the waker.
        if Pin::new(&mut sleep).poll(&mut Context::from_waker(waker)).is_pending() {
            return sleep;
        }
    }
}

/// Regression: only a thread that ran a task counted as blocked, not a thread that called a waker.
#[test]
fn tasks_run_while_a_waker_blocks_its_worker() {
    child("tasks_run_while_a_waker_blocks_its_worker", || {
        rt::Builder::new().workers(1).start().unwrap();
        let ((ran, runs), (woke, wakes)) = (mpsc::channel(), mpsc::channel());
        let waker = Waker::from(Arc::new(Waits(Mutex::new(runs), woke)));
        let sleep = waiting_sleep(20 * MS, &waker);
        let task = task::spawn(async move {
            task::sleep(40 * MS).await;
            ran.send(()).unwrap();
        });
        wakes.recv_timeout(common::BOUND).unwrap();
        park_on(task);
        park_on(sleep);
    });
}

/// Regression: sysmon called wakers, so a waker that blocked stopped the timers and the monitoring
/// of workers.
#[test]
fn timers_fire_while_wakers_block() {
    child("timers_fire_while_wakers_block", || {
        rt::Builder::new().workers(1).spare_workers(0).start().unwrap();
        let ((begun, begins), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let blocked = task::spawn(async move {
            begun.send(()).unwrap();
            assert_eq!(released.recv_timeout(common::BOUND), Err(mpsc::RecvTimeoutError::Disconnected));
        });
        begins.recv_timeout(common::BOUND).unwrap();
        // Only sysmon checks the timers.
        let (woke, wakes) = mpsc::channel();
        let (resumes, mut sleeps): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (resume, resumed) = mpsc::channel();
                let waker = Waker::from(Arc::new(Waits(Mutex::new(resumed), woke.clone())));
                (resume, waiting_sleep(5 * MS, &waker))
            })
            .unzip();
        park_on(Sleep::new(5 * MS));
        park_on(Sleep::new(40 * MS));
        assert!(wakes.try_recv().is_err(), "a waker has returned too early");
        resumes.iter().for_each(|resume| resume.send(()).unwrap());
        for _ in 0..3 {
            wakes.recv_timeout(common::BOUND).unwrap();
        }
        sleeps.drain(..).for_each(park_on);
        drop(release);
        park_on(blocked);
        rt::shutdown(common::BOUND).unwrap();
    });
}

/// A waker whose calls of `wake` wait for one another.
struct Meets(Barrier);

impl Wake for Meets {
    fn wake(self: Arc<Self>) {
        self.0.wait();
    }
}

/// Regression: a batch of wakers belonged to the thread that polled. While one waker of the batch
/// blocked, no other thread could call the others, and neither a close nor a deadline found their
/// waiters.
#[test]
fn wakers_of_one_batch_run_while_one_blocks() {
    const NAME: &str = "wakers_of_one_batch_run_while_one_blocks";
    child_for_each(NAME, "POLLED_BY", &["worker", "block_on"], || {
        rt::Builder::new().workers(1).start().unwrap();
        let (release, released) = futures::channel::oneshot::channel::<()>();
        let root = (std::env::var("POLLED_BY").unwrap() == "block_on")
            .then(|| thread::spawn(move || task::block_on(released).unwrap_err()));
        for count in [2, 3, 8] {
            let waker = Arc::new(Meets(Barrier::new(count)));
            let pairs: Vec<_> = (0..count).map(|_| park_on(pair())).collect();
            let mut reads: Vec<_> = pairs.iter().map(|(one, _)| (one, [0; 1])).collect();
            let mut reads: Vec<_> = reads.iter_mut().map(|(one, buf)| Box::pin(one.read(buf))).collect();
            for read in &mut reads {
                let waker = Waker::from(waker.clone());
                assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
            let deadline = Instant::now() + 500 * MS;
            pairs.iter().for_each(|(one, _)| one.set_read_deadline(deadline).unwrap());
            eventually("all wakers are called", || Arc::strong_count(&waker) == 1);
            reads.into_iter().for_each(|read| times_out(park_on(read)));
        }
        drop(release);
        root.into_iter().for_each(|root| assert!(root.join().is_ok()));
        rt::shutdown(common::BOUND).unwrap();
    });
}

/// Regression: a shutdown did not find waiters whose wakers were in a batch.
#[test]
fn shutdown_calls_the_wakers_behind_one_that_blocks() {
    /// A waker whose first call blocks.
    struct Blocks(AtomicUsize, Mutex<mpsc::Receiver<()>>);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                let _ = self.1.lock().unwrap().recv_timeout(common::BOUND);
            }
        }
    }
    child("shutdown_calls_the_wakers_behind_one_that_blocks", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (release, released) = mpsc::channel();
        let waker = Arc::new(Blocks(AtomicUsize::new(0), Mutex::new(released)));
        let pairs: Vec<_> = (0..5).map(|_| park_on(pair())).collect();
        let mut bufs = [[0; 1]; 5];
        let mut reads: Vec<_> = pairs.iter().zip(&mut bufs).map(|(pair, buf)| Box::pin(pair.0.read(buf))).collect();
        for read in &mut reads {
            let waker = Waker::from(waker.clone());
            assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let deadline = Instant::now() + 500 * MS;
        pairs.iter().for_each(|(one, _)| one.set_read_deadline(deadline).unwrap());
        eventually("one waker is called", || waker.0.load(Ordering::SeqCst) > 0);
        assert!(rt::shutdown(100 * MS).is_err());
        eventually("all wakers are called", || waker.0.load(Ordering::SeqCst) >= 5);
        drop(release);
        drop(reads);
        eventually("the blocked waker returns", || Arc::strong_count(&waker) == 1);
    });
}

/// Regression: reports were made on the thread that monitors the workers. While a report blocked,
/// no worker was added.
#[test]
fn tasks_run_while_a_report_blocks() {
    child("tasks_run_while_a_report_blocks", || {
        let ((ran, runs), (reported, reports)) = (mpsc::channel::<()>(), mpsc::channel());
        let runs = Mutex::new(runs);
        let report = move |_: &rt::BlockedTask| {
            runs.lock().unwrap().recv_timeout(common::BOUND).unwrap();
            assert_eq!(task::block_on(async { task::spawn(async { 7 }).await }), 7);
            reported.send(()).unwrap();
        };
        rt::Builder::new().workers(1).on_blocked_task(report).start().unwrap();
        // Each task blocks its thread until both tasks are reported.
        let release = Arc::new(Barrier::new(3));
        let block = |release: Arc<Barrier>| task::spawn(async move { _ = release.wait() });
        let blocked = [block(release.clone()), block(release.clone())];
        for _ in 0..2 {
            let ran = ran.clone();
            park_on(task::spawn(async move { ran.send(()).unwrap() }));
        }
        for _ in 0..2 {
            reports.recv_timeout(common::BOUND).expect("each task is reported");
        }
        release.wait();
        blocked.into_iter().for_each(park_on);
    });
}

/// The thread that takes over from a blocked thread always has other tasks to run, but still runs
/// the blocked thread's tasks.
#[test]
fn tasks_queued_behind_a_blocked_one_run_while_others_yield_without_end() {
    const NAME: &str = "tasks_queued_behind_a_blocked_one_run_while_others_yield_without_end";
    const PAIRS: usize = 32;
    child_for_each(NAME, "NETPOLL_THREADS", &["1", "2"], || {
        let workers = std::env::var("NETPOLL_THREADS").unwrap().parse().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let blocked = (0..workers).map(|_| {
            let ends = ends.clone();
            task::spawn(async move {
                let (finished, finishes) = mpsc::channel();
                for _ in 0..PAIRS {
                    let (ends, finished) = (ends.clone(), finished.clone());
                    drop(task::spawn(async move {
                        while !ends.load(Ordering::Relaxed) {
                            task::yield_now().await;
                        }
                    }));
                    drop(task::spawn(async move { finished.send(()).unwrap() }));
                }
                for _ in 0..PAIRS {
                    finishes.recv_timeout(common::BOUND).expect("all tasks run");
                }
            })
        });
        blocked.collect::<Vec<_>>().into_iter().for_each(park_on);
        ends.store(true, Ordering::Relaxed);
    });
}

/// Timers fire in a task that computes before and between its operations for longer than the
/// timers' duration.
#[test]
fn timers_fire_after_a_long_computation() {
    async fn compute() {
        let begin = Instant::now();
        while begin.elapsed() < 30 * MS {}
    }
    async fn compute_between_waits() {
        let (one, other) = pair().await;
        for _ in 0..3 {
            let mut sleep = Box::pin(task::sleep(5 * MS));
            let begin = Instant::now();
            // The timer fires during a computation, so the next poll finds that the sleep has
            // ended.
            while poll_once(&mut sleep).await.is_pending() {
                assert!(begin.elapsed() < common::BOUND);
                compute().await;
            }
            one.set_read_timeout(Some(5 * MS)).unwrap();
            let mut read_buf = [0; 1];
            let mut read = one.read(&mut read_buf);
            // On a busy machine the timeout may already have expired.
            match poll_once(&mut read).await {
                Poll::Ready(result) => times_out(result),
                Poll::Pending => {
                    compute().await;
                    times_out(read.await);
                }
            }
            // The deadline is set before the computation and used after it.
            one.set_read_timeout(None).unwrap();
            one.set_read_deadline(Instant::now() + 5 * MS).unwrap();
            compute().await;
            times_out(one.read(&mut [0; 1]).await);
            one.set_read_deadline(None).unwrap();
            other.write_all(b"x").await.unwrap();
            compute().await;
            assert_eq!(one.read(&mut [0; 1]).await.unwrap(), 1);
        }
    }
    child_for_each("timers_fire_after_a_long_computation", "NETPOLL_THREADS", &["1", "2"], || {
        task::block_on(compute_between_waits());
        park_on(compute_between_waits());
        park_on(task::spawn(compute_between_waits()));
        let tasks: Vec<_> = (0..4).map(|_| task::spawn(compute_between_waits())).collect();
        tasks.into_iter().for_each(park_on);
    });
}

/// An accept may wait for a permit, and a dial for room in a listener's queue, instead of an edge.
/// Deadlines and timeouts end these waits too.
#[test]
fn timeouts_end_waits_for_permits_and_queues() {
    async fn all() {
        // Waits for a permit.
        let listener = ListenConfig::new().max_connections(1).listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let first = TcpStream::connect(addr).await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        let _second = TcpStream::connect(addr).await.unwrap();
        for _ in 0..2 {
            listener.set_deadline(Instant::now() + 5 * MS).unwrap();
            times_out(listener.accept().await);
        }
        listener.set_deadline(None).unwrap();
        let mut waiting = listener.accept();
        assert!(poll_once(&mut waiting).await.is_pending());
        listener.set_deadline(Instant::now() + 5 * MS).unwrap();
        times_out(waiting.await);
        listener.set_deadline(None).unwrap();
        let mut waiting = listener.accept();
        assert!(poll_once(&mut waiting).await.is_pending());
        drop((first, accepted));
        let (third, _) = waiting.await.unwrap();
        let mut waiting = listener.accept();
        assert!(poll_once(&mut waiting).await.is_pending());
        listener.close().await.unwrap();
        assert!(net::is_closed(&waiting.await.unwrap_err()));
        drop(third);
        // Waits for room in the queue of a Unix listener.
        let full = std::os::unix::net::UnixListener::bind_addr(&unix_addr("full")).unwrap();
        let addr = full.local_addr().unwrap();
        socket2::SockRef::from(&full).listen(0).unwrap();
        let mut held = Vec::new();
        loop {
            let mut dial = Box::pin(UnixStream::connect_addr(&addr));
            match dial.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(client) => held.push(client.unwrap()),
                Poll::Pending => break,
            }
        }
        let dial = future::timeout(20 * MS, UnixStream::connect_addr(&addr)).await;
        assert!(dial.is_err(), "{dial:?}");
        let packets = UnixSeqpacketListener::bind("").await.unwrap();
        packets.set_deadline(Instant::now() + 5 * MS).unwrap();
        times_out(packets.accept().await);
        let mut later = Box::pin(UnixStream::connect_addr(&addr));
        assert!(poll_fn(|cx| Poll::Ready(later.as_mut().poll(cx))).await.is_pending());
        full.accept().unwrap();
        later.await.unwrap();
    }
    child_for_each("timeouts_end_waits_for_permits_and_queues", "NETPOLL_THREADS", &["1", "4"], || {
        task::block_on(all());
        park_on(all());
        park_on(task::spawn(all()));
    });
}

fn unix_addr(name: &str) -> std::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt;
    use std::sync::atomic::AtomicU32;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::os::unix::net::SocketAddr::from_abstract_name(format!("netpoll-{name}-{}-{count}", std::process::id()))
        .unwrap()
}
