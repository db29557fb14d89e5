//! `block_on`: root futures (those of calls that are not nested), which proceed even if tasks
//! compute or block; nested calls; the thread that polls the sockets; and wakers that call
//! `block_on`.

mod common;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Watchdog, child, child_for_each, echo, eventually, listener, pair, park_on, ping, run};
use netpoll::rt::BlockedPolicy;
use netpoll::{rt, task};

const MS: Duration = Duration::from_millis(1);

#[test]
fn block_on_runs_on_many_threads_at_once() {
    let _watchdog = Watchdog::new();
    let threads: Vec<_> = (0..16_u8)
        .map(|n| {
            thread::spawn(move || {
                for _ in 0..20 {
                    task::block_on(async {
                        let (client, server) = pair().await;
                        let server = task::spawn(async move { echo(&server).await });
                        ping(&client, &[n; 100]).await.unwrap();
                        task::sleep(MS).await;
                        drop(client);
                        server.await.unwrap();
                    });
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Timers and the network make progress while more nested calls wait than there are workers and
/// spare workers.
#[test]
fn more_nested_calls_than_spare_workers_complete() {
    child("more_nested_calls_than_spare_workers_complete", || {
        rt::Builder::new().workers(1).spare_workers(3).start().unwrap();
        for _ in 0..3 {
            let tasks: Vec<_> = (0..20)
                .map(|n| {
                    task::spawn(async move {
                        task::block_on(async {
                            task::sleep(Duration::from_millis(5 + n)).await;
                            // The peer is a thread, so that the call waits for the network and not
                            // for a task.
                            let listener = listener().await;
                            let addr = listener.local_addr().unwrap();
                            let peer = thread::spawn(move || drop(std::net::TcpStream::connect(addr)));
                            thread::yield_now();
                            let (stream, _) = listener.accept().await.unwrap();
                            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
                            peer.join().unwrap();
                        })
                    })
                })
                .collect();
            task::block_on(async {
                for task in tasks {
                    task.await;
                }
            });
            assert_eq!(rt::metrics().nested_block_on, 0);
        }
    });
}

#[test]
fn tasks_of_nested_calls_get_a_thread() {
    child_for_each("tasks_of_nested_calls_get_a_thread", "NETPOLL_THREADS", &["1", "2"], || {
        task::block_on(async {
            let depth = task::spawn(async {
                task::block_on(async {
                    task::spawn(async { task::block_on(async { task::spawn(async { 3 }).await }) }).await
                })
            });
            assert_eq!(depth.await, 3);
        });
    });
}

#[test]
fn block_on_hands_over_tasks_left_running() {
    child("block_on_hands_over_tasks_left_running", || {
        rt::Builder::new().workers(1).start().unwrap();
        for round in 0..50 {
            let turns = Arc::new(AtomicUsize::new(0));
            let (send, receive) = mpsc::channel();
            let (client, echoed) = task::block_on(async {
                drop(task::spawn({
                    let turns = turns.clone();
                    async move {
                        for _ in 0..100 {
                            turns.fetch_add(1, Ordering::SeqCst);
                            task::yield_now().await;
                        }
                        task::sleep(MS).await;
                        send.send(()).unwrap();
                    }
                }));
                let (client, server) = pair().await;
                let echoed = task::spawn(async move { echo(&server).await });
                if round % 2 == 0 {
                    ping(&client, b"inside").await.unwrap();
                }
                (client, echoed)
            });
            receive.recv_timeout(common::BOUND).expect("tasks and timers continue without block_on");
            assert_eq!(turns.load(Ordering::SeqCst), 100);
            park_on(ping(&client, b"outside")).unwrap();
            drop(client);
            park_on(echoed).unwrap();
        }
    });
}

/// With `block_on_runs_tasks`, tasks, timers and the network proceed while the root future only
/// yields.
#[test]
fn yielding_root_future_lets_tasks_run() {
    child("yielding_root_future_lets_tasks_run", || {
        let builder = rt::Builder::new().workers(1).blocked_tasks(BlockedPolicy::Off);
        builder.block_on_runs_tasks(true).start().unwrap();
        run(async {
            let done = Arc::new(AtomicBool::new(false));
            drop(task::spawn({
                let done = done.clone();
                async move {
                    let (client, server) = pair().await;
                    let server = task::spawn(async move { echo(&server).await });
                    for _ in 0..10 {
                        ping(&client, b"beside").await.unwrap();
                        task::sleep(MS).await;
                    }
                    drop(client);
                    server.await.unwrap();
                    done.store(true, Ordering::SeqCst);
                }
            }));
            while !done.load(Ordering::SeqCst) {
                task::yield_now().await;
            }
            // Tasks queued before the yield run before the yield returns.
            let turns = Arc::new(AtomicUsize::new(0));
            for n in 1..=100 {
                let own = turns.clone();
                drop(task::spawn(async move { own.fetch_add(1, Ordering::SeqCst) }));
                task::yield_now().await;
                assert_eq!(turns.load(Ordering::SeqCst), n);
            }
        });
    });
}

#[test]
fn block_on_runs_no_tasks_without_the_option() {
    child("block_on_runs_no_tasks_without_the_option", || {
        rt::Builder::new().workers(2).block_on_runs_tasks(false).start().unwrap();
        let own = thread::current().id();
        task::block_on(async move {
            let tasks: Vec<_> = (0..200)
                .map(|_| {
                    task::spawn(async {
                        task::yield_now().await;
                        thread::current().id()
                    })
                })
                .collect();
            for task in tasks {
                assert_ne!(task.await, own, "a task ran on the thread of block_on");
            }
            let (client, server) = pair().await;
            let server = task::spawn(async move { echo(&server).await });
            for _ in 0..100 {
                ping(&client, b"x").await.unwrap();
            }
            task::sleep(MS).await;
            drop(client);
            server.await.unwrap();
            assert_eq!(thread::current().id(), own);
        });
    });
}

/// Checks that a task that waits for the root future blocks its worker, never the thread of
/// `block_on`.
fn tasks_may_block_on_the_root(workers: usize) {
    rt::Builder::new().workers(workers).start().unwrap();
    // Tasks wait for a channel to which the root future sends.
    assert_eq!(
        task::block_on(async {
            let (sender, receiver) = mpsc::channel();
            let task = task::spawn(async move { receiver.recv().unwrap() });
            task::sleep(20 * MS).await;
            sender.send(7).unwrap();
            task.await
        }),
        7
    );
    // Tasks wait for a lock that the root future holds across an await.
    let lock = Arc::new(Mutex::new(()));
    #[allow(clippy::await_holding_lock)]
    task::block_on(async {
        for _ in 0..500 {
            let other = lock.clone();
            let task = task::spawn(async move { drop(other.lock().unwrap()) });
            let guard = lock.lock().unwrap();
            task::yield_now().await;
            drop(guard);
            task.await;
        }
    });
    // Tasks wait for an answer of the root future on a blocking socket, and in a nested block_on.
    task::block_on(async {
        let listener = netpoll::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = task::spawn(async move {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(addr).unwrap();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
        });
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 1);
        stream.write_all(b"y").await.unwrap();
        task.await;
        let (sender, receiver) = futures::channel::oneshot::channel();
        let task = task::spawn(async { task::block_on(receiver).unwrap() });
        task::sleep(5 * MS).await;
        sender.send(8).unwrap();
        assert_eq!(task.await, 8);
    });
    // The root future wakes tasks that then block.
    task::block_on(async {
        let (wake, woken) = futures::channel::oneshot::channel();
        let (sender, receiver) = mpsc::channel();
        let task = task::spawn(async move {
            woken.await.unwrap();
            receiver.recv().unwrap()
        });
        task::sleep(5 * MS).await;
        wake.send(()).unwrap();
        task::yield_now().await;
        task::sleep(5 * MS).await;
        sender.send(9).unwrap();
        assert_eq!(task.await, 9);
    });
}

#[test]
fn tasks_may_block_on_the_root_with_one_worker() {
    child("tasks_may_block_on_the_root_with_one_worker", || tasks_may_block_on_the_root(1));
}

#[test]
fn tasks_may_block_on_the_root_with_four_workers() {
    child("tasks_may_block_on_the_root_with_four_workers", || tasks_may_block_on_the_root(4));
}

/// The root future's sockets and timers proceed while every worker is busy and no worker can be
/// added.
#[test]
fn root_future_runs_while_workers_never_yield() {
    child("root_future_runs_while_workers_never_yield", || {
        for policy in [BlockedPolicy::AddWorkers, BlockedPolicy::Off] {
            rt::Builder::new().workers(1).spare_workers(0).blocked_tasks(policy).start().unwrap();
            let release = Arc::new(AtomicBool::new(false));
            let (begun, begins) = mpsc::channel();
            let busy = task::spawn({
                let release = release.clone();
                async move {
                    begun.send(()).unwrap();
                    while !release.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                }
            });
            begins.recv().unwrap();
            task::block_on(async {
                let (client, server) = pair().await;
                for _ in 0..50 {
                    client.write_all(b"x").await.unwrap();
                    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 1);
                    task::sleep(MS).await;
                }
            });
            release.store(true, Ordering::Relaxed);
            park_on(busy);
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

/// With `block_on_runs_tasks`, the thread of `block_on` takes a free processor and acts as a
/// worker.
#[test]
fn block_on_runs_tasks_with_the_option() {
    child("block_on_runs_tasks_with_the_option", || {
        let own = thread::current().id();
        rt::Builder::new().workers(3).block_on_runs_tasks(true).start().unwrap();
        let (leave, wait) = mpsc::channel::<()>();
        let task = task::spawn(async move { wait.recv().is_err() });
        eventually("the task is reported", || rt::metrics().blocked_tasks > 0);
        let runs_here = || task::block_on(async { task::spawn(async { thread::current().id() }).await == own });
        assert!((0..1000).any(|_| runs_here()), "{:?}", rt::metrics());
        drop(leave);
        assert!(park_on(task));
    });
}

/// Without a descriptor for the poller, a thread that acts as a worker pauses. A wake-up of its
/// root future ends the pause.
#[test]
fn root_future_is_polled_soon_without_a_poller() {
    child("root_future_is_polled_soon_without_a_poller", || {
        common::set_nofile(3);
        rt::Builder::new().workers(1).block_on_runs_tasks(true).start().unwrap();
        let (send, wakers) = mpsc::channel::<(Waker, Arc<AtomicU64>)>();
        let begin = Instant::now();
        let micros = move || begin.elapsed().as_micros() as u64;
        let waker = thread::spawn(move || {
            for (waker, woken) in wakers {
                // The thread in `block_on` is now in its pause, unless it is slow.
                thread::sleep(Duration::from_millis(1));
                woken.store(micros(), Ordering::SeqCst);
                waker.wake();
            }
        });
        let delay = || {
            let woken = Arc::new(AtomicU64::new(0));
            task::block_on(poll_fn(|cx| match woken.load(Ordering::SeqCst) {
                0 => {
                    send.send((cx.waker().clone(), woken.clone())).unwrap();
                    Poll::Pending
                }
                woken => Poll::Ready(micros() - woken),
            }))
        };
        // A pause takes 10 ms. If a wake-up did not end it, the median would be long in every
        // attempt.
        let is_soon = (0..20).any(|_| {
            let mut delays: Vec<u64> = (0..51).map(|_| delay()).collect();
            delays.sort_unstable();
            println!("{delays:?}");
            delays[25] < 5000
        });
        assert!(is_soon, "the median of the delays is long in every attempt");
        drop(send);
        waker.join().unwrap();
        // LeakSanitizer opens files when the process exits.
        common::set_nofile(1024);
    });
}

// ---- nested ----

/// Makes more nested calls than there are spare workers. The calls wait for timers, the network,
/// other tasks, and tasks that make further nested calls.
fn nested_calls_end(workers: usize) {
    const CALLS: usize = 200;
    rt::Builder::new().workers(workers).start().unwrap();
    let inner = |n: usize| async move {
        match n % 4 {
            0 => task::sleep(Duration::from_millis(n as u64 % 20)).await,
            1 => {
                let (client, server) = pair().await;
                client.write_all(b"x").await.unwrap();
                assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 1);
            }
            2 => assert_eq!(task::spawn(async { task::spawn(async { 7 }).await }).await, 7),
            _ => task::spawn(async { task::block_on(task::sleep(MS)) }).await,
        }
    };
    let tasks: Vec<_> = (0..CALLS).map(|n| task::spawn(async move { task::block_on(inner(n)) })).collect();
    task::block_on(async {
        for task in tasks {
            task.await;
        }
    });
    eventually("no call is counted as running", || rt::metrics().nested_block_on == 0);
    eventually("unneeded threads end", || rt::metrics().worker_threads <= workers);
    assert_eq!(park_on(task::spawn(async { 1 })), 1);
}

#[test]
fn two_hundred_nested_calls_end_with_one_worker() {
    child("two_hundred_nested_calls_end_with_one_worker", || nested_calls_end(1));
}

#[test]
fn two_hundred_nested_calls_end_with_four_workers() {
    child("two_hundred_nested_calls_end_with_four_workers", || nested_calls_end(4));
}

/// A task blocks its thread after a nested call that a foreign thread ended while sysmon slept. The
/// task for which it waits runs nevertheless.
#[test]
fn task_may_block_after_nested_block_on() {
    child_for_each("task_may_block_after_nested_block_on", "NETPOLL_THREADS", &["1", "2"], || {
        let (wake, woken) = futures::channel::oneshot::channel::<()>();
        let done = task::spawn(async move {
            task::block_on(woken).unwrap();
            let (sender, receiver) = mpsc::channel();
            drop(task::spawn(async move { sender.send(()).unwrap() }));
            receiver.recv_timeout(common::BOUND / 2).is_ok()
        });
        // The pause is long enough for sysmon to go to sleep.
        thread::sleep(300 * MS);
        wake.send(()).unwrap();
        assert!(park_on(done));
    });
}

/// A nested call in the turn of a root future polls the network itself, without a worker.
#[test]
fn nested_block_on_in_root_future_polls() {
    child("nested_block_on_in_root_future_polls", || {
        // On a busy machine, sysmon may start a worker, because this thread got no CPU time. It
        // does not do so in every attempt.
        let needs_worker = || {
            rt::Builder::new().workers(1).start().unwrap();
            task::block_on(async {
                let (client, server) = pair().await;
                for _ in 0..20 {
                    task::block_on(async {
                        client.write_all(b"x").await.unwrap();
                        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 1);
                        task::sleep(MS).await;
                    });
                }
            });
            let threads = rt::metrics().worker_threads;
            rt::shutdown(common::BOUND).unwrap();
            threads > 0
        };
        assert!((0..50).any(|_| !needs_worker()), "a worker was needed in every attempt");
    });
}

// ---- the poller role ----

/// A worker's task and the root future both receive events, although the poller role has to move
/// between their threads.
#[test]
fn worker_and_root_future_receive_events_alternately() {
    child("worker_and_root_future_receive_events_alternately", || {
        rt::Builder::new().workers(1).start().unwrap();
        task::block_on(async {
            let (client, server) = pair().await;
            for _ in 0..3 {
                // A task echoes, so the worker polls.
                let echoing = task::spawn({
                    let server = server.clone();
                    async move {
                        for _ in 0..50 {
                            let mut buf = [0; 1];
                            assert_eq!(server.read(&mut buf).await.unwrap(), 1);
                            server.write_all(&buf).await.unwrap();
                        }
                    }
                });
                let peer = client.clone();
                thread::spawn(move || {
                    for _ in 0..50 {
                        futures::executor::block_on(ping(&peer, b"x")).unwrap();
                    }
                });
                echoing.await;
                // The root future echoes, so after a few events its thread polls.
                let peer = client.clone();
                let pinging = thread::spawn(move || {
                    for _ in 0..200 {
                        futures::executor::block_on(ping(&peer, b"x")).unwrap();
                    }
                });
                for _ in 0..200 {
                    let mut buf = [0; 1];
                    assert_eq!(server.read(&mut buf).await.unwrap(), 1);
                    server.write_all(&buf).await.unwrap();
                }
                task::spawn_blocking(move || pinging.join().unwrap()).await;
            }
        });
    });
}

/// Root futures start, end and hand over the poller role while tasks use the network.
#[test]
fn network_is_polled_while_root_futures_start_and_end() {
    child("network_is_polled_while_root_futures_start_and_end", || {
        rt::Builder::new().workers(2).start().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let roots: Vec<_> = (0..3)
            .map(|n| {
                let stop = stop.clone();
                thread::spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        task::block_on(async {
                            let (client, server) = pair().await;
                            client.write_all(b"x").await.unwrap();
                            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 1);
                            task::sleep(MS * n).await;
                        });
                    }
                })
            })
            .collect();
        let (client, server) = park_on(pair());
        let echoing = task::spawn(async move { echo(&server).await });
        for _ in 0..300 {
            park_on(ping(&client, b"beside")).unwrap();
        }
        drop(client);
        park_on(echoing).unwrap();
        stop.store(true, Ordering::SeqCst);
        roots.into_iter().for_each(|root| root.join().unwrap());
    });
}

/// Tasks receive events while a root future blocks its thread, which polled until then.
#[test]
fn tasks_use_network_while_root_is_blocked() {
    child("tasks_use_network_while_root_is_blocked", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (sender, receiver) = mpsc::channel();
        task::block_on(async {
            let (client, server) = pair().await;
            drop(task::spawn(async move { echo(&server).await }));
            drop(task::spawn(async move {
                for _ in 0..20 {
                    ping(&client, b"x").await.unwrap();
                    task::sleep(MS).await;
                }
                sender.send(()).unwrap();
            }));
            assert!(receiver.recv_timeout(common::BOUND).is_ok());
        });
    });
}

/// A waker waits in `block_on`. Workers and threads in `block_on` call the waker for events and for
/// timers, and the runtime proceeds.
#[test]
fn waker_may_call_block_on() {
    struct Waits(mpsc::Sender<()>);
    impl std::task::Wake for Waits {
        fn wake(self: Arc<Self>) {
            task::block_on(async {
                let (client, server) = netpoll::unix::UnixStream::pair().unwrap();
                let write = task::spawn(async move { client.write_all(b"abc").await });
                assert!(server.read(&mut [0; 8]).await.unwrap() > 0);
                write.await.unwrap();
                task::sleep(MS).await;
            });
            self.0.send(()).unwrap();
        }
    }
    child("waker_may_call_block_on", || {
        for runs_tasks in [false, true] {
            rt::Builder::new().workers(2).block_on_runs_tasks(runs_tasks).start().unwrap();
            let (sender, called) = mpsc::channel();
            for round in 0..20 {
                let waker = std::task::Waker::from(Arc::new(Waits(sender.clone())));
                let mut cx = std::task::Context::from_waker(&waker);
                let (client, server) = park_on(pair());
                let mut buf = [0; 1];
                let mut read = server.read(&mut buf);
                assert!(std::pin::Pin::new(&mut read).poll(&mut cx).is_pending());
                // On a busy machine, a sleep may end at its first poll, without a call of the
                // waker.
                let sleep = loop {
                    let mut sleep = Box::pin(task::sleep(MS));
                    if sleep.as_mut().poll(&mut cx).is_pending() {
                        break sleep;
                    }
                };
                let write = async {
                    task::sleep(MS).await;
                    client.write_all(b"x").await.unwrap();
                };
                if round % 2 == 0 {
                    task::block_on(write)
                } else {
                    park_on(write)
                }
                for _ in 0..2 {
                    called.recv_timeout(common::BOUND).unwrap();
                }
                assert_eq!(park_on(read).unwrap(), 1);
                park_on(sleep);
                assert_eq!(park_on(task::spawn(async { task::spawn(async { 7 }).await })), 7);
            }
            eventually("unneeded threads end", || rt::metrics().worker_threads <= 2);
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

/// The polling thread calls a waker while all workers are blocked. The waker waits for tasks that
/// need another worker.
#[test]
fn waker_may_call_block_on_while_workers_are_blocked() {
    struct Waits(mpsc::Sender<()>);
    impl std::task::Wake for Waits {
        fn wake(self: Arc<Self>) {
            task::block_on(task::spawn(async {
                let (sender, receiver) = mpsc::channel();
                drop(task::spawn(async move { sender.send(7).unwrap() }));
                assert_eq!(receiver.recv(), Ok(7));
            }));
            self.0.send(()).unwrap();
        }
    }
    child("waker_may_call_block_on_while_workers_are_blocked", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (sender, called) = mpsc::channel();
        for _ in 0..5 {
            let waker = std::task::Waker::from(Arc::new(Waits(sender.clone())));
            let (client, server) = park_on(pair());
            let mut buf = [0; 1];
            let mut read = server.read(&mut buf);
            assert!(std::pin::Pin::new(&mut read).poll(&mut std::task::Context::from_waker(&waker)).is_pending());
            let (begun, begins) = mpsc::channel();
            let (release, wait) = mpsc::channel::<()>();
            let blocked = task::spawn(async move {
                begun.send(()).unwrap();
                assert!(wait.recv().is_err());
            });
            begins.recv().unwrap();
            park_on(client.write_all(b"x")).unwrap();
            called.recv_timeout(common::BOUND).unwrap();
            drop(release);
            park_on(blocked);
            assert_eq!(park_on(read).unwrap(), 1);
        }
        rt::shutdown(common::BOUND).unwrap();
    });
}

/// A nested call yields until a task behind it in the same queue has run.
#[test]
fn yielding_nested_block_on_releases_its_queue() {
    child("yielding_nested_block_on_releases_its_queue", || {
        for policy in [BlockedPolicy::AddWorkers, BlockedPolicy::ReportOnly, BlockedPolicy::Off] {
            rt::Builder::new().workers(1).blocked_tasks(policy).start().unwrap();
            park_on(task::spawn(async {
                let flag = Arc::new(AtomicBool::new(false));
                let own = flag.clone();
                drop(task::spawn(async move { own.store(true, Ordering::SeqCst) }));
                task::block_on(async {
                    while !flag.load(Ordering::SeqCst) {
                        task::yield_now().await;
                    }
                });
            }));
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

/// A root future yields while another thread shuts the runtime down, and then waits for a foreign
/// thread in the next runtime. Regression: the thread of the root future slept in the epoll
/// instance of the previous runtime, where no thread could wake it.
#[test]
fn yielding_root_survives_shutdown() {
    child("yielding_root_survives_shutdown", || {
        let (stop, stops) = mpsc::channel::<(u64, Arc<AtomicBool>)>();
        let (set, sets) = mpsc::channel::<futures::channel::oneshot::Sender<()>>();
        let stopping = thread::spawn(move || {
            for (micros, done) in stops {
                thread::sleep(Duration::from_micros(micros));
                let _ = rt::shutdown(common::BOUND);
                done.store(true, Ordering::SeqCst);
            }
        });
        let setting = thread::spawn(move || {
            for flag in sets {
                thread::sleep(Duration::from_micros(300));
                flag.send(()).unwrap();
            }
        });
        task::block_on(async move {
            let begin = Instant::now();
            for round in 0..600 {
                // On a busy machine, all rounds could take longer than the watchdog allows.
                if begin.elapsed() > common::BOUND / 6 {
                    break;
                }
                let _ = rt::Builder::new().start();
                let done = Arc::new(AtomicBool::new(false));
                stop.send((round * 37 % 200, done.clone())).unwrap();
                while !done.load(Ordering::SeqCst) {
                    task::yield_now().await;
                }
                let _ = rt::Builder::new().start();
                let (sender, flag) = futures::channel::oneshot::channel();
                set.send(sender).unwrap();
                flag.await.unwrap();
            }
        });
        stopping.join().unwrap();
        setting.join().unwrap();
    });
}
