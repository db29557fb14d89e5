//! `Builder::single_threaded`: tasks run on the thread of `block_on`, and the runtime starts no
//! thread until it needs one. Each test runs in a child process.

mod common;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::by_hand::narrow_pair;
use common::{
    BOUND, child, child_for_each, echo, eventually, listener, pair, park_on, ping, ping_pong, poll_now, set_nofile,
    thread_count,
};
use futures::channel::oneshot;
use netpoll::net::{self, TcpListener, TcpStream, is_timeout};
use netpoll::task::TaskSet;
use netpoll::{rt, task};
use rustix::process::{Resource, getrlimit, setrlimit};

const MS: Duration = Duration::from_millis(1);

/// Starts a single-threaded runtime. Returns the number of threads that the process had before.
fn start() -> usize {
    let threads = thread_count();
    rt::Builder::new().single_threaded(true).start().unwrap();
    threads
}

/// Sends 100 messages over a new connection to a task that echoes them.
async fn exchange() {
    let listener = listener().await;
    let addr = listener.local_addr().unwrap();
    let server = task::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        echo(&stream).await.unwrap();
    });
    let client = TcpStream::connect(addr).await.unwrap();
    client.set_read_deadline(Instant::now() + BOUND).unwrap();
    for n in 0..100 {
        ping(&client, &[n; 100]).await.unwrap();
    }
    drop(client);
    server.await;
}

#[test]
fn tasks_timers_and_sockets_need_one_thread() {
    child("tasks_timers_and_sockets_need_one_thread", || {
        let threads = start();
        let own = thread::current().id();
        // The task and the listener are created before the first `block_on`.
        let early = task::spawn(async { thread::current().id() });
        let listener = TcpListener::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        task::block_on(async move {
            assert_eq!(early.await, own);
            for _ in 0..3 {
                exchange().await;
            }
            listener.set_deadline(Instant::now() + 20 * MS).unwrap();
            assert!(is_timeout(&listener.accept().await.unwrap_err()));
            let tasks: Vec<_> = (0..1000)
                .map(|n| {
                    task::spawn(async move {
                        task::sleep(n % 20 * MS).await;
                        task::yield_now().await;
                        thread::current().id()
                    })
                })
                .collect();
            for task in tasks {
                assert_eq!(task.await, own);
            }
        });
        assert_eq!(thread_count(), threads);
        let metrics = rt::metrics();
        assert_eq!((metrics.workers, metrics.worker_threads, metrics.tasks_alive), (1, 0, 0));
        rt::shutdown(BOUND).unwrap();
        assert_eq!(thread_count(), threads);
    });
}

/// Another thread wakes a task, by a waker and by a blocking call, while the thread in `block_on`
/// sleeps.
#[test]
fn other_threads_wake_the_tasks() {
    child("other_threads_wake_the_tasks", || {
        start();
        task::block_on(async {
            let own = thread::current().id();
            for n in 0..100 {
                let (send, receive) = oneshot::channel();
                let waker = thread::spawn(move || send.send(n));
                assert_eq!(task::spawn(receive).await, Ok(n));
                waker.join().unwrap().unwrap();
            }
            let task =
                task::spawn(async { (task::spawn_blocking(|| thread::current().id()).await, thread::current().id()) });
            let (call, after) = task.await;
            assert!(call != own && after == own);
            assert!(net::resolve("localhost:80").await.is_ok());
        });
        assert_eq!(rt::metrics().worker_threads, 0);
    });
}

/// Tasks continue on another thread in `block_on` if the thread that runs them leaves.
#[test]
fn another_thread_in_block_on_takes_over() {
    child("another_thread_in_block_on_takes_over", || {
        start();
        for _ in 0..20 {
            let ticks = Arc::new(AtomicUsize::new(0));
            let count = ticks.clone();
            let task = task::spawn(async move {
                loop {
                    task::sleep(MS).await;
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
            let [leave, left] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            let (leaves, has_left, counted) = (leave.clone(), left.clone(), ticks.clone());
            let first = thread::spawn(move || {
                task::block_on(async move {
                    while !leaves.load(Ordering::SeqCst) {
                        task::sleep(MS).await;
                    }
                });
            });
            let second = thread::spawn(move || {
                task::block_on(async move {
                    while !has_left.load(Ordering::SeqCst) {
                        task::sleep(MS).await;
                    }
                    let before = counted.load(Ordering::SeqCst);
                    while counted.load(Ordering::SeqCst) < before + 20 {
                        task::sleep(MS).await;
                    }
                });
            });
            eventually("tasks run", || ticks.load(Ordering::SeqCst) > 0);
            leave.store(true, Ordering::SeqCst);
            first.join().unwrap();
            left.store(true, Ordering::SeqCst);
            second.join().unwrap();
            task::block_on(task.cancel());
        }
        assert_eq!(rt::metrics().worker_threads, 0);
    });
}

#[test]
fn nested_block_on_starts_the_threads_that_it_needs() {
    child("nested_block_on_starts_the_threads_that_it_needs", || {
        for _ in 0..3 {
            let threads = start();
            task::block_on(async {
                let task = task::spawn(async { task::block_on(async { task::spawn(async { 7 }).await }) });
                assert_eq!(task.await, 7);
            });
            assert!(rt::metrics().worker_threads > 0 && thread_count() > threads);
            // A worker runs this task outside `block_on`.
            assert_eq!(park_on(task::spawn(async { 8 })), 8);
            rt::shutdown(BOUND).unwrap();
        }
    });
}

/// The future of a `block_on` calls `block_on`, which waits for a task.
#[test]
fn block_on_in_a_root_future_starts_threads() {
    child("block_on_in_a_root_future_starts_threads", || {
        start();
        task::block_on(async { assert_eq!(task::block_on(task::spawn(async { 7 })), 7) });
        assert!(rt::metrics().worker_threads > 0);
    });
}

/// Another executor polls futures of this crate outside `block_on`. Each use is the first one in
/// its process.
#[test]
fn futures_outside_block_on_start_the_threads_that_they_need() {
    const USES: [fn(); 12] = [
        || assert_eq!(park_on(task::spawn(async { task::spawn(async { 7 }).await })), 7),
        || park_on(task::sleep(20 * MS)),
        || {
            let (send, receive) = mpsc::channel();
            drop(task::spawn(async move {
                task::sleep(MS).await;
                send.send(7).unwrap();
            }));
            park_on(task::sleep(MS));
            assert_eq!(receive.recv_timeout(BOUND), Ok(7));
        },
        || {
            let (one, other) = park_on(pair());
            let echoes = task::spawn(async move { echo(&other).await });
            park_on(ping(&one, b"ping")).unwrap();
            drop(one);
            park_on(echoes).unwrap();
        },
        || {
            // The socket is registered in `block_on`, and waits outside.
            let (one, other) = task::block_on(async {
                let (one, other) = pair().await;
                ping_pong(&one, &other).await;
                (one, other)
            });
            assert_eq!(rt::metrics().worker_threads, 0);
            let peer = thread::spawn(move || {
                eventually("the read waits", || rt::metrics().waiters > 0);
                task::block_on(other.write_all(b"x")).unwrap();
                other
            });
            assert_eq!(park_on(one.read(&mut [0; 8])).unwrap(), 1);
            drop(peer.join());
        },
        || {
            let (one, _other) = task::block_on(async {
                let (one, other) = pair().await;
                ping_pong(&one, &other).await;
                (one, other)
            });
            one.set_read_timeout(Some(20 * MS)).unwrap();
            assert!(is_timeout(&park_on(one.read(&mut [0; 8])).unwrap_err()));
        },
        || {
            let mut set = TaskSet::new();
            set.spawn(async { 7 });
            assert_eq!(park_on(set.join_next()), Some(7));
        },
        || {
            // A thread of the runtime drops a task that no thread has polled.
            let _ = park_on(task::spawn(task::sleep(MS)).cancel());
            let mut set = TaskSet::new();
            set.spawn(task::sleep(MS));
            park_on(set.cancel_all());
        },
        || {
            let mut set = TaskSet::new();
            set.spawn(task::sleep(MS));
            park_on(set.cancel_all());
        },
        || {
            // The close waits for a task, which sends the bytes that are left. The task owns the
            // descriptor, because no number is free for a duplicate.
            let (one, other) = task::block_on(async {
                let (one, other) = narrow_pair().await;
                one.set_auto_cork(true).unwrap();
                one.set_write_timeout(Some(20 * MS)).unwrap();
                while one.write_all(&[0; 1000]).await.is_ok() {}
                (one, other)
            });
            assert_eq!(rt::metrics().worker_threads, 0);
            // Linux might otherwise accept the bytes into a larger buffer.
            #[cfg(target_os = "linux")]
            one.set_notsent_lowat(1).unwrap();
            let socket = std::net::TcpStream::from(rustix::io::dup(&other).unwrap());
            let limit = getrlimit(Resource::Nofile);
            set_nofile(0);
            let mut close = one.force_close();
            setrlimit(Resource::Nofile, limit).unwrap();
            assert!(poll_now(&mut close).is_pending());
            let reader = thread::spawn(move || {
                socket.set_nonblocking(false).unwrap();
                std::io::copy(&mut &socket, &mut std::io::sink()).unwrap()
            });
            park_on(close).unwrap();
            drop((one, other));
            reader.join().unwrap();
        },
        || {
            // The other executor runs in a blocking call, which outlives the `block_on`.
            let (send, receive) = mpsc::channel();
            task::block_on(async {
                task::spawn_blocking(move || {
                    park_on(task::sleep(MS));
                    send.send(task::try_current().is_some()).unwrap();
                });
            });
            assert_eq!(receive.recv_timeout(BOUND), Ok(true));
        },
        || {
            let (one, other) = task::block_on(async {
                let (one, other) = pair().await;
                ping_pong(&one, &other).await;
                (one, other)
            });
            let (send, receive) = mpsc::channel();
            drop(task::spawn_blocking(move || send.send(park_on(one.read(&mut [0; 8])).unwrap()).unwrap()));
            // This write does not use the runtime.
            rustix::io::write(&other, b"x").unwrap();
            assert_eq!(receive.recv_timeout(BOUND), Ok(1));
        },
    ];
    let numbers: Vec<_> = (0..USES.len()).map(|number| number.to_string()).collect();
    let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
    child_for_each("futures_outside_block_on_start_the_threads_that_they_need", "USE", &numbers, || {
        let number: usize = std::env::var("USE").unwrap().parse().unwrap();
        let threads = start();
        USES[number]();
        assert!(thread_count() > threads);
    });
}

#[test]
fn single_threaded_runtime_has_one_worker() {
    child("single_threaded_runtime_has_one_worker", || {
        let error = rt::Builder::new().workers(2).single_threaded(true).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "a single-threaded runtime has 1 worker, not 2");
        rt::Builder::new().workers(1).single_threaded(true).start().unwrap();
        assert_eq!(task::block_on(task::spawn(async { 7 })), 7);
        rt::shutdown(BOUND).unwrap();
        // The setting does not apply to the next runtime.
        rt::Builder::new().workers(2).start().unwrap();
        let own = thread::current().id();
        assert_ne!(task::block_on(task::spawn(async { thread::current().id() })), own);
    });
}

/// While another thread has the only processor, a thread in `block_on` waits for a queued task
/// without spinning.
#[test]
fn waiting_thread_does_not_spin_during_a_long_turn() {
    child("waiting_thread_does_not_spin_during_a_long_turn", || {
        start();
        let (begun, begins) = mpsc::channel();
        let busy = thread::spawn(move || {
            task::block_on(task::spawn(async move {
                // A thread whose turns are long wakes another thread in `block_on`, which then
                // polls.
                for _ in 0..20 {
                    thread::sleep(5 * MS);
                    task::yield_now().await;
                }
                begun.send(()).unwrap();
                thread::sleep(500 * MS);
            }));
        });
        begins.recv().unwrap();
        let queued = task::spawn(async {});
        let before = common::cpu_time();
        task::block_on(queued);
        assert!(common::cpu_time() - before < 250 * MS);
        busy.join().unwrap();
    });
}
