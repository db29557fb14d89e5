//! The scheduler: tasks that block or spin, fairness, handles, task-local values, panics, blocking
//! calls.

mod common;

use std::cell::Cell;
use std::collections::HashSet;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Watchdog, becomes, child, child_with, echo, eventually, listener, pair, park_on, ping, run};
use netpoll::net::TcpStream;
use netpoll::rt::BlockedPolicy;
use netpoll::{rt, task, task_local};

const MS: Duration = Duration::from_millis(1);

// ---- tasks that block their threads ----

/// One of several threads in `block_on` sleeps in the poller. Regression: when a foreign thread
/// woke the root future of another of these threads, sysmon did not monitor that thread. Tasks that
/// the root future spawned before it blocked its thread did not run.
#[test]
fn root_future_woken_by_foreign_thread_is_monitored() {
    child("root_future_woken_by_foreign_thread_is_monitored", || {
        rt::Builder::new().workers(4).start().unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (wake, woken) = futures::channel::oneshot::channel::<()>();
                let thread = thread::spawn(move || {
                    task::block_on(async {
                        woken.await.unwrap();
                        let (done, wait) = mpsc::channel();
                        drop(task::spawn(async move { done.send(()).unwrap() }));
                        wait.recv_timeout(common::BOUND / 6).is_ok()
                    })
                });
                (wake, thread)
            })
            .collect();
        for (wake, thread) in threads {
            // After 50 ms without activity, sysmon goes to sleep.
            thread::sleep(300 * MS);
            wake.send(()).unwrap();
            assert!(thread.join().unwrap());
        }
    });
}

/// Starts a runtime with one worker, and a task that occupies the worker until the sender is
/// dropped. The task spins if `busy` is true, and otherwise blocks its thread.
fn with_blocked_worker(builder: rt::Builder, busy: bool) -> (mpsc::Sender<()>, task::JoinHandle<()>) {
    builder.workers(1).start().unwrap();
    let (release, wait) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let blocked = task::Builder::new()
        .name("blocker".into())
        .spawn(async move {
            begun.send(()).unwrap();
            if busy {
                while wait.try_recv() == Err(mpsc::TryRecvError::Empty) {}
            } else {
                let _ = wait.recv();
            }
        })
        .unwrap();
    begins.recv().unwrap();
    (release, blocked)
}

/// Checks that other tasks run while a task occupies the only worker as in [`with_blocked_worker`],
/// and that the task is reported once.
fn others_go_on(busy: bool) {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let builder = rt::Builder::new().on_blocked_task({
        let reports = reports.clone();
        move |task| {
            reports.lock().unwrap().push(task.clone());
            // A panic of the callback is contained.
            if task.name.is_some() {
                panic!("in the callback, on purpose");
            }
        }
    });
    let (release, blocked) = with_blocked_worker(builder, busy);
    for _ in 0..20 {
        park_on(task::spawn(async {
            let (client, server) = pair().await;
            let server = task::spawn(async move { echo(&server).await });
            for _ in 0..10 {
                ping(&client, b"beside").await.unwrap();
                task::sleep(MS).await;
            }
            drop(client);
            server.await.unwrap();
        }));
    }
    assert!(!blocked.is_finished());
    assert!(rt::metrics().worker_threads > 1 && rt::metrics().blocked_tasks >= 1);
    let reports: Vec<_> = reports.lock().unwrap().iter().filter(|task| task.name.is_some()).cloned().collect();
    assert_eq!(reports.len(), 1, "reported once: {reports:?}");
    assert_eq!((reports[0].id, reports[0].name.as_deref()), (blocked.task().id(), Some("blocker")));
    assert!(reports[0].blocked_for >= Duration::from_millis(9), "{reports:?}");
    assert!(reports[0].spawned_at.is_some_and(|place| place.file() == file!()), "{reports:?}");
    assert_eq!(reports[0].spawned_at, blocked.task().spawned_at());
    drop(release);
    park_on(blocked);
}

#[test]
fn other_tasks_run_while_a_task_blocks() {
    child("other_tasks_run_while_a_task_blocks", || others_go_on(false));
}

#[test]
fn other_tasks_run_while_a_task_spins() {
    child("other_tasks_run_while_a_task_spins", || others_go_on(true));
}

#[test]
fn blocked_tasks_add_workers_up_to_limit() {
    child("blocked_tasks_add_workers_up_to_limit", || {
        rt::Builder::new().workers(2).spare_workers(10).start().unwrap();
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let running = Arc::new(AtomicUsize::new(0));
        let blocked: Vec<_> = (0..30)
            .map(|_| {
                let (wait, running) = (wait.clone(), running.clone());
                task::spawn(async move {
                    running.fetch_add(1, Ordering::SeqCst);
                    let _ = wait.lock().unwrap().recv();
                })
            })
            .collect();
        eventually("twelve threads block", || running.load(Ordering::SeqCst) == 12);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(running.load(Ordering::SeqCst), 12, "at most one task per worker and spare worker runs");
        assert_eq!(rt::metrics().worker_threads, 12);
        drop(release);
        blocked.into_iter().for_each(park_on);
        assert_eq!(running.load(Ordering::SeqCst), 30);
        // Workers beyond the configured number end after a while.
        eventually("spare workers retire", || rt::metrics().worker_threads <= 2);
        assert_eq!(park_on(task::spawn(async { 1 })), 1);
    });
}

#[test]
fn report_only_policy_adds_no_worker() {
    child("report_only_policy_adds_no_worker", || {
        let named = Arc::new(AtomicBool::new(false));
        let builder = rt::Builder::new().blocked_tasks(BlockedPolicy::ReportOnly).on_blocked_task({
            let named = named.clone();
            move |task| named.store(task.name.as_deref() == Some("blocker"), Ordering::SeqCst)
        });
        let (release, blocked) = with_blocked_worker(builder, false);
        let other = task::spawn(async {});
        eventually("the task is counted", || rt::metrics().blocked_tasks == 1);
        eventually("the task is reported", || named.load(Ordering::SeqCst));
        thread::sleep(Duration::from_millis(50));
        assert!(!other.is_finished());
        assert_eq!((rt::metrics().worker_threads, rt::metrics().blocked_tasks), (1, 1));
        drop(release);
        park_on(blocked);
        park_on(other);
    });
}

#[test]
fn off_policy_ignores_blocked_tasks() {
    child("off_policy_ignores_blocked_tasks", || {
        let is_reported = Arc::new(AtomicBool::new(false));
        let builder = rt::Builder::new().blocked_tasks(BlockedPolicy::Off).on_blocked_task({
            let is_reported = is_reported.clone();
            move |_| is_reported.store(true, Ordering::SeqCst)
        });
        let (release, blocked) = with_blocked_worker(builder, true);
        let other = task::spawn(async {});
        thread::sleep(Duration::from_millis(80));
        assert!(!other.is_finished());
        assert_eq!((rt::metrics().worker_threads, rt::metrics().blocked_tasks), (1, 0));
        assert!(!is_reported.load(Ordering::SeqCst));
        drop(release);
        park_on(blocked);
        park_on(other);
    });
}

/// Sockets work under another executor although all workers are blocked and no worker may be added.
#[test]
fn network_is_polled_while_all_workers_are_blocked() {
    child("network_is_polled_while_all_workers_are_blocked", || {
        let (release, blocked) = with_blocked_worker(rt::Builder::new().blocked_tasks(BlockedPolicy::ReportOnly), true);
        let (client, server) = futures::executor::block_on(pair());
        let echo = thread::spawn(move || futures::executor::block_on(echo(&server)));
        futures::executor::block_on(async {
            for _ in 0..5 {
                ping(&client, b"sysmon").await.unwrap();
            }
            task::sleep(MS).await;
        });
        drop(client);
        echo.join().unwrap().unwrap();
        drop(release);
        park_on(blocked);
    });
}

/// An output that is not taken is dropped in the turn of its task, after the task has ended. Here,
/// the destructor of the output spawns a task, which gets the record of the task that has ended,
/// and then blocks the worker.
#[test]
fn task_spawned_by_destructor_of_output_is_not_reported_as_blocked() {
    struct Spawns(mpsc::Sender<task::JoinHandle<()>>, mpsc::Receiver<()>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            self.0.send(task::spawn(async {})).unwrap();
            let _ = self.1.recv();
        }
    }
    child("task_spawned_by_destructor_of_output_is_not_reported_as_blocked", || {
        let builder = rt::Builder::new().workers(1).spare_workers(0).blocked_tasks(BlockedPolicy::ReportOnly);
        builder.start().unwrap();
        let (begun, begins) = mpsc::channel();
        let (release, wait) = mpsc::channel();
        // The handle is dropped before the task runs on the only worker.
        park_on(task::spawn(async move { drop(task::spawn(async move { Spawns(begun, wait) })) }));
        let spawned = begins.recv().unwrap();
        eventually("the worker is stuck", || rt::inspect().workers[0].stuck);
        let snapshot = rt::inspect();
        assert_eq!(snapshot.workers[0].running, None);
        let states: Vec<_> = snapshot.tasks.iter().map(|task| (task.id(), task.state())).collect();
        assert_eq!(states, [(spawned.task().id(), rt::TaskState::Waiting)]);
        let still = rt::shutdown(Duration::ZERO).unwrap_err();
        assert!(!still.threads.is_empty() && still.running.is_empty(), "{still}");
        assert_eq!(rt::metrics().blocked_tasks, 0);
        drop(release);
    });
}

// ---- fairness ----

/// A few long tasks make the runtime wake a second worker, although they are fewer than the turns
/// between two readings of the clock, and end before sysmon would consider them stuck.
#[test]
fn few_long_tasks_are_spread_over_workers() {
    child("few_long_tasks_are_spread_over_workers", || {
        rt::Builder::new().workers(2).blocked_tasks(BlockedPolicy::Off).start().unwrap();
        run(async {
            for _ in 0..1000 {
                let long = || {
                    task::spawn(async {
                        let begin = Instant::now();
                        while begin.elapsed() < MS {}
                    })
                };
                let burst: Vec<_> = (0..8).map(|_| long()).collect();
                for task in burst {
                    task.await;
                }
                if rt::metrics().steals > 0 {
                    return;
                }
            }
            panic!("no task of a millisecond was stolen: {:?}", rt::metrics());
        });
    });
}

/// A worker polls the network itself with any number of runnable tasks. (Sysmon would poll only
/// every 10 ms.)
#[test]
fn network_is_polled_at_any_number_of_tasks() {
    struct Caller(mpsc::Sender<thread::ThreadId>);
    impl Wake for Caller {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(thread::current().id());
        }
    }
    child("network_is_polled_at_any_number_of_tasks", || {
        rt::Builder::new().workers(1).spare_workers(0).blocked_tasks(BlockedPolicy::Off).start().unwrap();
        let worker = park_on(task::spawn(async { thread::current().id() }));
        let (client, server) = park_on(pair());
        let (sender, called) = mpsc::channel();
        let waker = Waker::from(Arc::new(Caller(sender)));
        let mut tasks = 0;
        for count in [1, 254, 255, 256, 257, 258, 300, 3000] {
            while tasks < count {
                drop(task::spawn(async {
                    loop {
                        task::yield_now().await;
                    }
                }));
                tasks += 1;
            }
            if count < 256 {
                // The worker moves tasks from the shared queue to its own queue one at a time. For
                // larger counts, the test does not wait until it has moved all of them.
                common::eventually("the worker has all tasks", || rt::metrics().tasks_injected == 0);
            }
            let worker_polls = (0..1000).any(|_| {
                let mut buf = [0; 1];
                let mut read = server.read(&mut buf);
                assert!(common::poll_with(&mut read, &waker).is_pending());
                park_on(client.write_all(b"x")).unwrap();
                let by = called.recv_timeout(common::BOUND).unwrap();
                assert_eq!(park_on(read).unwrap(), 1);
                by == worker
            });
            assert!(worker_polls, "the worker does not poll while {count} tasks are runnable");
        }
        rt::shutdown(common::BOUND).unwrap();
    });
}

/// The network is polled while a few tasks have long turns, although a worker with short turns
/// reads the clock only every 16 turns. A round trip takes at most six turns of these tasks.
#[test]
fn long_turns_do_not_delay_network() {
    child("long_turns_do_not_delay_network", || {
        rt::Builder::new().workers(1).blocked_tasks(BlockedPolicy::Off).start().unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let (client, _echo) = task::block_on(async {
            let (client, server) = pair().await;
            for _ in 0..2 {
                let turns = turns.clone();
                drop(task::spawn(async move {
                    loop {
                        let begin = Instant::now();
                        while begin.elapsed() < MS {}
                        turns.fetch_add(1, Ordering::Relaxed);
                        task::yield_now().await;
                    }
                }));
            }
            (client, task::spawn(async move { echo(&server).await }))
        });
        // The request waits for the current turn, for a turn of each other task and for that of the
        // echo task. The answer waits for one more turn until the next poll. On a busy machine this
        // thread also waits for a CPU, so it is enough if a quarter of the round trips of one
        // attempt are fast.
        let mut waited = Vec::new();
        let is_soon = (0..10).any(|_| {
            let round_trips = (0..100).map(|_| {
                let before = turns.load(Ordering::Relaxed);
                park_on(ping(&client, b"x")).unwrap();
                turns.load(Ordering::Relaxed) - before
            });
            waited = round_trips.collect();
            waited.sort_unstable();
            waited[25] <= 6
        });
        assert!(is_soon, "{waited:?}");
    });
}

/// The number of operations that a turn must not reach.
const MOST: usize = 1000;

async fn hog(stream: &TcpStream, operations: &AtomicUsize) {
    loop {
        // Peeking leaves the byte in the buffer, so the socket is always ready.
        assert_eq!(stream.peek(&mut [0; 1]).await.unwrap(), 1);
        operations.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns a connection whose second side has a byte to read.
async fn ready() -> (TcpStream, TcpStream) {
    let (client, server) = pair().await;
    client.write_all(b"x").await.unwrap();
    server.readable().await.unwrap();
    (client, server)
}

/// A waker that ignores wake-ups. Unlike [`Waker::noop`], it has data, so operations that are
/// polled with it yield.
struct IgnoringWaker;

impl Wake for IgnoringWaker {
    fn wake(self: Arc<Self>) {}
}

/// A task whose socket is always ready yields. The test counts the operations of each poll.
#[test]
fn always_ready_task_yields() {
    // The future is polled by hand, without any executor.
    let _watchdog = Watchdog::new();
    let (_client, server) = park_on(ready());
    let operations = AtomicUsize::new(0);
    let mut future = Box::pin(hog(&server, &operations));
    // Each poll makes progress before it yields.
    let waker = Waker::from(Arc::new(IgnoringWaker));
    for _ in 0..5 {
        operations.store(0, Ordering::Relaxed);
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let count = operations.load(Ordering::Relaxed);
        assert!((1..MOST).contains(&count), "{count} operations in one turn");
    }
    // Under another executor, another future of the same task also runs.
    futures::executor::block_on(async {
        let mut others = 0;
        let other = async {
            while others < 100 {
                others += 1;
                task::yield_now().await;
            }
        };
        futures::future::select(Box::pin(other), Box::pin(hog(&server, &operations))).await;
    });
}

#[test]
fn always_ready_task_lets_other_tasks_run() {
    child("always_ready_task_lets_other_tasks_run", || {
        rt::Builder::new().workers(1).blocked_tasks(BlockedPolicy::Off).start().unwrap();
        task::block_on(async {
            let (_client, server) = ready().await;
            let operations = Arc::new(AtomicUsize::new(0));
            let hog = task::spawn({
                let operations = operations.clone();
                async move { hog(&server, &operations).await }
            });
            task::spawn(async move {
                for _ in 0..100 {
                    let before = operations.load(Ordering::Relaxed);
                    task::yield_now().await;
                    assert!(operations.load(Ordering::Relaxed) - before < MOST);
                }
            })
            .await;
            hog.cancel().await;
        });
    });
}

/// Runs `count` tasks, which are always runnable, for `rounds` rounds. Returns the longest wait of
/// a task for its next turn, in rounds: the number of turns of all tasks during the wait, divided
/// by `count`.
fn longest_wait(count: usize, rounds: usize) -> f64 {
    let turns = Arc::new(AtomicUsize::new(0));
    let longest = Arc::new(AtomicUsize::new(0));
    let ready = Arc::new(AtomicUsize::new(0));
    run(async {
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let (turns, longest, ready) = (turns.clone(), longest.clone(), ready.clone());
                task::spawn(async move {
                    ready.fetch_add(1, Ordering::SeqCst);
                    while ready.load(Ordering::SeqCst) < count {
                        task::yield_now().await;
                    }
                    let mut last = turns.fetch_add(1, Ordering::SeqCst);
                    for _ in 0..rounds {
                        task::yield_now().await;
                        let now = turns.fetch_add(1, Ordering::SeqCst);
                        longest.fetch_max(now - last, Ordering::SeqCst);
                        last = now;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
    longest.load(Ordering::SeqCst) as f64 / count as f64
}

/// Every task has its next turn within two rounds, at any length of the queue.
#[test]
fn every_task_gets_a_turn_at_any_queue_length() {
    child("every_task_gets_a_turn_at_any_queue_length", || {
        // On a busy machine a task may seem stuck, and another thread would change the order.
        rt::Builder::new().workers(1).blocked_tasks(BlockedPolicy::Off).start().unwrap();
        for count in [2, 16, 255, 256, 257, 300, 1000, 5000] {
            let longest = longest_wait(count, 30);
            // Between two turns of a task, the only worker runs one turn of each other task.
            assert!(longest <= 2.0, "one of {count} tasks waited for {longest} rounds");
        }
    });
}

/// All tasks stay runnable until the last one has had its turns, so the test detects only
/// starvation. It asserts no limit of a wait, because one worker's queue may be longer than
/// another's, and a thread without a CPU keeps its task.
#[test]
fn every_task_gets_a_turn_on_several_workers() {
    child("every_task_gets_a_turn_on_several_workers", || {
        // The policy is `Off`, because on a busy machine spare workers would be added that compete
        // for the CPUs.
        rt::Builder::new().workers(4).blocked_tasks(BlockedPolicy::Off).start().unwrap();
        for count in [257, 1000] {
            task::block_on(async {
                let behind = Arc::new(AtomicUsize::new(count));
                let tasks: Vec<_> = (0..count)
                    .map(|_| {
                        let behind = behind.clone();
                        task::spawn(async move {
                            for _ in 0..100 {
                                task::yield_now().await;
                            }
                            behind.fetch_sub(1, Ordering::SeqCst);
                            while behind.load(Ordering::SeqCst) > 0 {
                                task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await;
                }
            });
        }
    });
}

/// Two tasks that wake each other without end do not starve a third one.
#[test]
fn ping_pong_starves_no_task() {
    child_with("ping_pong_starves_no_task", &[("NETPOLL_THREADS", "1")], || {
        run(async {
            let (left, right) = (Arc::new(Mutex::new(None::<Waker>)), Arc::new(Mutex::new(None::<Waker>)));
            let player = |own: &Arc<Mutex<Option<Waker>>>, other: &Arc<Mutex<Option<Waker>>>| {
                let (own, other) = (own.clone(), other.clone());
                task::spawn(poll_fn(move |cx| -> Poll<()> {
                    *own.lock().unwrap() = Some(cx.waker().clone());
                    if let Some(waker) = other.lock().unwrap().take() {
                        waker.wake();
                    }
                    Poll::Pending
                }))
            };
            let players = [player(&left, &right), player(&right, &left)];
            // Other tasks, a timer and a socket make progress.
            for _ in 0..100 {
                task::spawn(task::yield_now()).await;
            }
            task::spawn(task::sleep(MS)).await;
            let (client, server) = pair().await;
            let server = task::spawn(async move { echo(&server).await });
            ping(&client, b"in between").await.unwrap();
            drop(client);
            server.await.unwrap();
            for player in players {
                assert!(player.cancel().await.is_none());
            }
        });
    });
}

/// Regression: the thread that slept in epoll owned the last processor and was not woken.
#[test]
fn backlog_is_shared_with_thread_sleeping_in_epoll() {
    child("backlog_is_shared_with_thread_sleeping_in_epoll", || {
        // The policy is `Off`, because a spare worker that is added for a thread that seems blocked
        // could be mistaken for the thread that must be woken.
        let builder = rt::Builder::new().workers(2).block_on_runs_tasks(false);
        builder.blocked_tasks(BlockedPolicy::Off).start().unwrap();
        let spin = |time: Duration| {
            let start = Instant::now();
            while start.elapsed() < time {
                std::hint::spin_loop();
            }
        };
        // On a busy machine the second thread may come too late, or may not sleep yet.
        let is_shared = |_: &u32| {
            let threads = run(async move {
                let begin = task::spawn(async move {
                    // In this time, the second thread finds no work and goes to sleep.
                    spin(60 * MS);
                    let work = move || async move {
                        spin(3 * MS);
                        thread::current().id()
                    };
                    (0..64).map(|_| task::spawn(work())).collect::<Vec<_>>()
                });
                let mut threads = HashSet::new();
                for task in begin.await {
                    threads.insert(task.await);
                }
                threads.len()
            });
            threads == 2
        };
        // In the first rounds, the second thread may still be awake.
        let shared = (0..40).filter(is_shared).take(6).count();
        assert!(shared == 6, "one thread runs everything except in {shared} rounds: {:?}", rt::metrics());
    });
}

#[test]
fn yield_now_runs_queued_tasks_first() {
    child("yield_now_runs_queued_tasks_first", || {
        // The policy is `Off`, because a spare worker that is added for a worker without a CPU
        // would change the order.
        rt::Builder::new().workers(1).blocked_tasks(BlockedPolicy::Off).start().unwrap();
        // A task spawns the others, so that one worker has queued all of them before it runs the
        // first.
        let order = park_on(task::spawn(async {
            let order = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = (0..4)
                .map(|n| {
                    let order = order.clone();
                    task::spawn(async move {
                        for round in 0..3 {
                            order.lock().unwrap().push((round, n));
                            task::yield_now().await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.lock().unwrap().clone()
        }));
        let rounds: Vec<_> = order.iter().map(|turn| turn.0).collect();
        assert_eq!(rounds, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], "{order:?}");
    });
}

// ---- handles and task-local values ----

#[test]
fn cancel_drops_the_future_before_it_returns() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    run(async {
        for begun in [false, true] {
            let dropped = Arc::new(AtomicBool::new(false));
            let flag = Flag(dropped.clone());
            let task = task::spawn(async move {
                let _flag = flag;
                pending::<()>().await
            });
            if begun {
                task::yield_now().await;
            }
            assert!(task.cancel().await.is_none());
            assert!(dropped.load(Ordering::SeqCst));
        }
        let done = task::spawn(async { 5 });
        becomes("the task is done", || done.is_finished()).await;
        assert_eq!(done.cancel().await, Some(5));
    });
}

#[test]
fn ids_are_unique_and_names_are_kept() {
    run(async {
        let mut seen = HashSet::new();
        assert!(seen.insert(task::current().id()));
        for n in 0..1000 {
            let handle = task::Builder::new()
                .name(format!("task {n}"))
                .spawn(async { (task::current().id(), task::current().name().map(str::to_owned)) })
                .unwrap();
            let id = handle.task().id();
            assert_eq!(handle.await, (id, Some(format!("task {n}"))));
            assert!(seen.insert(id));
        }
        assert_eq!(task::spawn(async { task::current().name().map(str::to_owned) }).await, None);
    });
    assert!(task::try_current().is_none());
    assert!(catch_unwind(task::current).is_err());
    assert_eq!(
        task::Builder::new().name("root".into()).blocking(async { task::current().name().map(str::len) }),
        Some(4)
    );
}

task_local! {
    static NUMBER: Cell<u32> = const { Cell::new(1) };
}

#[test]
fn locals_are_per_task() {
    run(async {
        NUMBER.with(|number| number.set(7));
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                task::spawn(async move {
                    assert_eq!(NUMBER.with(Cell::get), 1);
                    NUMBER.with(|number| number.set(n));
                    for _ in 0..5 {
                        task::yield_now().await;
                        assert_eq!(NUMBER.with(Cell::get), n, "wherever it runs");
                    }
                    // The future of a nested `block_on` is a separate task.
                    task::block_on(async { NUMBER.with(Cell::get) })
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await, 1);
        }
        assert_eq!(NUMBER.with(Cell::get), 7);
    });
    assert!(NUMBER.try_with(Cell::get).is_err());
}

struct Noted;

static NOTED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Noted {
    fn drop(&mut self) {
        NOTED.fetch_add(1, Ordering::SeqCst);
    }
}

/// Regression: a task-local value lived until the last waker of its task was dropped.
#[test]
fn cancel_drops_task_locals_with_the_future() {
    task_local! {
        static NOTE: Noted = Noted;
    }
    run(async {
        let (send, receive) = mpsc::channel();
        let handle = task::spawn(poll_fn(move |cx| {
            NOTE.with(|_| ());
            send.send(cx.waker().clone()).unwrap();
            Poll::<()>::Pending
        }));
        let mut waker = None;
        becomes("the task has begun", || {
            waker = receive.try_recv().ok();
            waker.is_some()
        })
        .await;
        assert_eq!(NOTED.load(Ordering::SeqCst), 0);
        assert_eq!(handle.cancel().await, None);
        assert_eq!(NOTED.load(Ordering::SeqCst), 1);
    });
}

/// Regression: if the future of a `block_on` panicked, its task-local values were dropped in the
/// order of their creation and outside the task. A destructor that used another key got the value
/// of the outer task, or panicked, and the process aborted.
#[test]
fn task_locals_of_a_panicking_root_are_dropped_in_its_task() {
    struct Notes(&'static str);
    impl Drop for Notes {
        fn drop(&mut self) {
            let other = FIRST.try_with(|_| task::current().name().map(str::to_owned));
            DROPS.lock().unwrap().push((self.0, other.ok().flatten()));
            PANICS.with(|_| ());
        }
    }
    static DROPS: Mutex<Vec<(&str, Option<String>)>> = Mutex::new(Vec::new());
    task_local! {
        static FIRST: Notes = Notes("first");
        static LAST: Notes = Notes("last");
        static PANICS: PanicOnDrop = PanicOnDrop;
    }
    child("task_locals_of_a_panicking_root_are_dropped_in_its_task", || {
        let root = |name: &str| {
            task::Builder::new().name(name.to_owned()).blocking(async {
                FIRST.with(|_| ());
                LAST.with(|_| ());
                panic!("the root future panics");
            })
        };
        let expected = |name: &str| [("last", Some(name.to_owned())), ("first", None)];
        assert!(catch_unwind(|| root("outer")).is_err());
        assert_eq!(DROPS.lock().unwrap().drain(..).collect::<Vec<_>>(), expected("outer"));
        let nested = task::spawn(async move {
            FIRST.with(|_| ());
            let panicked = catch_unwind(|| root("inner")).is_err();
            (panicked, DROPS.lock().unwrap().drain(..).collect::<Vec<_>>())
        });
        assert_eq!(park_on(nested), (true, expected("inner").to_vec()));
    });
}

/// Regression: the destructor of a task-local value that used its own key created the value again
/// without end.
#[test]
fn task_local_destructor_using_its_key_terminates() {
    struct Reuses(mpsc::Sender<[bool; 3]>);
    impl Drop for Reuses {
        fn drop(&mut self) {
            let other_works = OTHER.try_with(|_| ()).is_ok();
            let is_usable = [OWN.try_with(|_| ()).is_ok(), catch_unwind(|| OWN.with(|_| ())).is_ok(), other_works];
            let _ = self.0.send(is_usable);
        }
    }
    struct Partner;
    impl Drop for Partner {
        fn drop(&mut self) {
            // This value is dropped after the value that created it, whose key is then unusable. If
            // that key were usable, each value would create the other again.
            assert!(OWN.try_with(|_| ()).is_err_and(|error| error.to_string().contains("ending")));
            PARTNERS.fetch_add(1, Ordering::SeqCst);
        }
    }
    static RESULTS: std::sync::Mutex<Option<mpsc::Sender<[bool; 3]>>> = std::sync::Mutex::new(None);
    static PARTNERS: AtomicUsize = AtomicUsize::new(0);
    task_local! {
        static OWN: Reuses = Reuses(RESULTS.lock().unwrap().clone().unwrap());
        static OTHER: Partner = Partner;
    }
    let _watchdog = common::Watchdog::new();
    let (send, receive) = mpsc::channel();
    *RESULTS.lock().unwrap() = Some(send);
    let expected = [false, false, true];
    let check = |count| {
        assert_eq!(receive.recv_timeout(common::BOUND), Ok(expected));
        assert_eq!(PARTNERS.load(Ordering::SeqCst), count);
    };
    run(async {
        task::spawn(async { OWN.with(|_| ()) }).await;
        check(1);
        task::spawn_blocking(|| OWN.with(|_| ())).await;
        check(2);
        task::spawn_local(async { OWN.with(|_| ()) }).await;
        check(3);
        let (begun, begins) = futures::channel::oneshot::channel();
        let cancelled = task::spawn(async {
            OWN.with(|_| ());
            begun.send(()).unwrap();
            pending::<()>().await
        });
        begins.await.unwrap();
        assert_eq!(cancelled.cancel().await, None);
        check(4);
    });
    task::block_on(async { OWN.with(|_| ()) });
    check(5);
    task::block_on(async { task::block_on(async { OWN.with(|_| ()) }) });
    check(6);
}

// ---- panics ----

struct PanicOnDrop;

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("in a destructor, on purpose");
        }
    }
}

/// Invariant 11.
#[test]
fn panic_stays_in_its_task() {
    run(async {
        for round in 0..20 {
            let panics = task::spawn(async move {
                if round % 2 == 0 {
                    task::yield_now().await;
                }
                panic!("on purpose");
            });
            let error = catch(panics).await.unwrap_err();
            assert_eq!(error.downcast_ref::<&str>(), Some(&"on purpose"));
            // The handle of this task is not awaited.
            drop(task::spawn(async { panic!("unheard") }));
            assert_eq!(task::spawn(async { 1 }).await, 1);
        }
        let error = catch(task::spawn_blocking(|| panic!("in a blocking call"))).await.unwrap_err();
        assert_eq!(error.downcast_ref::<&str>(), Some(&"in a blocking call"));
        assert_eq!(task::spawn_blocking(|| 2).await, 2);
    });
    // A panic of the root future reaches the caller, and the runtime continues.
    assert!(catch_unwind(|| task::block_on(async { panic!("in the root") })).is_err());
    assert!(catch_unwind(|| task::block_on(async { task::block_on(async { panic!("nested") }) })).is_err());
    assert_eq!(run(async { task::spawn(async { 3 }).await }), 3);
}

/// Regression: the turn of a root future that panicked did not end, so the next owner of the
/// processor was considered blocked.
#[test]
fn panicked_root_future_is_not_counted_as_blocked() {
    child("panicked_root_future_is_not_counted_as_blocked", || {
        rt::Builder::new().workers(1).start().unwrap();
        // Printing the panic could take so long that the task would be considered blocked.
        std::panic::set_hook(Box::new(|_| {}));
        // Because of the open descriptor, a worker polls after `block_on` has returned. It runs no
        // task.
        let listener = park_on(listener());
        assert!(catch_unwind(|| task::block_on(async { panic!("in the root") })).is_err());
        let before = rt::metrics().blocked_tasks;
        eventually("a worker polls", || rt::metrics().worker_threads == 1);
        thread::sleep(100 * MS);
        assert_eq!(rt::metrics().blocked_tasks, before);
        drop(listener);
    });
}

/// Awaits a task that may have panicked.
async fn catch<T>(mut handle: task::JoinHandle<T>) -> thread::Result<T> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut handle).poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await
}

/// Invariant 11.
#[test]
fn panicking_destructor_does_not_end_worker() {
    child("panicking_destructor_does_not_end_worker", || {
        rt::Builder::new().workers(1).start().unwrap();
        for _ in 0..10 {
            // The destructor panics in a future that completes, in an output and in a cancelled
            // future. In a future that panics, it does not panic again.
            drop(task::spawn(async {
                let _bomb = PanicOnDrop;
                task::yield_now().await;
            }));
            drop(task::spawn(async { PanicOnDrop }));
            let (begun, begins) = mpsc::channel();
            let pending_one = task::spawn(async move {
                let _bomb = PanicOnDrop;
                begun.send(()).unwrap();
                pending::<()>().await
            });
            begins.recv_timeout(common::BOUND).unwrap();
            assert_eq!(park_on(pending_one.cancel()), None);
            let both = task::spawn(async {
                let _bomb = PanicOnDrop;
                panic!("first");
            });
            assert!(park_on(catch(both)).is_err());
            assert_eq!(park_on(task::spawn(async { 4 })), 4);
        }
        // The dropped handles are not awaited, so the last task may still run, on a spare worker.
        park_on(becomes("the contained panics are counted", || rt::metrics().contained_panics >= 20));
        assert_eq!(rt::metrics().contained_panics, 20);
        assert!(rt::metrics().worker_threads >= 1);
        let _ = rt::shutdown(common::BOUND);
        assert_eq!(rt::metrics().worker_threads, 0);
    });
}

/// Invariant 11. Regression: the process aborted, because the task-local value was dropped with the
/// task's memory, where `async-task` tolerates no panic.
#[test]
fn panicking_task_local_drop_is_contained() {
    task_local! {
        static BOMB: PanicOnDrop = PanicOnDrop;
    }
    child("panicking_task_local_drop_is_contained", || {
        rt::Builder::new().workers(1).start().unwrap();
        let create_bomb = || BOMB.with(|_| ());
        park_on(task::spawn(async move { create_bomb() }));
        park_on(task::spawn_blocking(create_bomb));
        let (begun, begins) = mpsc::channel();
        let spawn_with_bomb = || {
            let begun = begun.clone();
            task::spawn(async move {
                create_bomb();
                begun.send(()).unwrap();
                pending::<()>().await
            })
        };
        let cancelled = spawn_with_bomb();
        begins.recv_timeout(common::BOUND).unwrap();
        assert_eq!(park_on(cancelled.cancel()), None);
        let panics = task::spawn(async move {
            create_bomb();
            panic!("first");
        });
        assert!(park_on(catch(panics)).is_err());
        assert_eq!(rt::metrics().contained_panics, 4);
        let left = spawn_with_bomb();
        begins.recv_timeout(common::BOUND).unwrap();
        let _ = rt::shutdown(common::BOUND);
        drop(left);
        assert_eq!(rt::metrics().contained_panics, 5);
    });
}

/// Invariant 11. Regression: the process aborted, because `async-task` dropped the payload of the
/// panic, and its destructor panicked.
#[test]
fn panicking_destructor_of_a_panic_payload_is_contained() {
    child("panicking_destructor_of_a_panic_payload_is_contained", || {
        rt::Builder::new().workers(1).start().unwrap();
        let panics = || std::panic::panic_any(PanicOnDrop);
        let ended = |handle: task::JoinHandle<()>| eventually("the task has ended", || handle.is_finished());
        drop(task::spawn(async move { panics() }));
        drop(task::spawn_blocking(panics));
        ended(task::spawn(async move { panics() }));
        ended(task::spawn_blocking(panics));
        let mut set = task::TaskSet::new();
        set.spawn(async move { panics() });
        eventually("the member has ended", || rt::metrics().tasks_alive == 0);
        drop(set);
        task::block_on(async {
            drop(task::spawn_local(async move { panics() }));
            task::yield_now().await;
        });
        eventually("the payloads are dropped", || rt::metrics().contained_panics >= 6);
        assert_eq!(rt::metrics().contained_panics, 6);
        // The payload still reaches a caller that awaits the handle.
        let payload = park_on(catch(task::spawn(async move { panics() }))).unwrap_err();
        assert!(payload.is::<PanicOnDrop>());
        std::mem::forget(payload);
    });
}

/// Regression: the payload of each panic of a destructor leaked, so a program whose tasks panic in
/// destructors grew without bound.
#[test]
fn panicking_destructor_payload_is_freed() {
    struct Throws(Arc<()>);
    impl Drop for Throws {
        fn drop(&mut self) {
            if !thread::panicking() {
                std::panic::panic_any(self.0.clone());
            }
        }
    }
    let token = Arc::new(());
    run(async {
        for _ in 0..20 {
            let (output, future) = (Throws(token.clone()), Throws(token.clone()));
            drop(task::spawn(async { output }));
            drop(task::spawn(async move {
                let _future = future;
                task::yield_now().await;
            }));
        }
        becomes("every payload is dropped", || Arc::strong_count(&token) == 1).await;
    });
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("in a waker, on purpose");
    }

    // An operation calls this in its own poll if the budget is used up.
    fn wake_by_ref(self: &Arc<Self>) {}
}

/// Invariant 11.
#[test]
fn panicking_waker_does_not_stop_other_wakeups() {
    let _watchdog = Watchdog::new();
    let bad = Waker::from(Arc::new(PanickingWaker));
    park_on(async {
        for _ in 0..20 {
            // The waker is called for an edge. Another operation waits behind the first.
            let (client, server) = pair().await;
            let mut first = server.readable();
            assert!(common::poll_with(&mut first, &bad).is_pending());
            let other = thread::spawn({
                let server = server.clone();
                move || task::block_on(server.readable()).unwrap()
            });
            becomes("both operations wait", || rt::metrics().waiters >= 2).await;
            client.write_all(b"xx").await.unwrap();
            let mut buf = [0; 1];
            drop(first);
            assert_eq!(server.read(&mut buf).await.unwrap(), 1);
            other.join().unwrap();
            // The waker is called when a deadline expires and when the socket is closed.
            let (client, _server) = pair().await;
            let mut buf = [0; 1];
            let mut read = client.read(&mut buf);
            assert!(common::poll_with(&mut read, &bad).is_pending());
            client.set_read_deadline(Instant::now() + MS).unwrap();
            assert!(client.read(&mut [0; 1]).await.is_err());
            drop(read);
            client.set_read_deadline(None).unwrap();
            let mut buf = [0; 1];
            let mut read = client.read(&mut buf);
            assert!(common::poll_with(&mut read, &bad).is_pending());
            client.force_close().await.unwrap();
            // The waker is called when a sleep ends.
            let mut sleep = netpoll::time::Sleep::new(20 * MS);
            // On a very busy machine the sleep may have ended by now, and then does not call the
            // waker.
            if common::poll_with(&mut sleep, &bad).is_pending() {
                netpoll::time::Sleep::new(21 * MS).await;
            }
        }
    });
    assert_eq!(run(async { task::spawn(async { 5 }).await }), 5);
}

// ---- blocking calls ----

#[test]
fn blocking_threads_stay_within_limit() {
    child("blocking_threads_stay_within_limit", || {
        rt::Builder::new().workers(1).blocking_threads(3).start().unwrap();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let calls: Vec<_> = (0..30)
            .map(|n| {
                let (running, most) = (running.clone(), most.clone());
                task::spawn_blocking(move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // The first calls wait for each other. The others run long enough that more
                    // than three at a time would be seen.
                    eventually("three run at a time", || most.load(Ordering::SeqCst) >= 3);
                    thread::sleep(2 * MS);
                    running.fetch_sub(1, Ordering::SeqCst);
                    n
                })
            })
            .collect();
        // Tasks run during the calls.
        assert_eq!(park_on(task::spawn(async { 1 })), 1);
        let results: Vec<_> = calls.into_iter().map(park_on).collect();
        assert_eq!(results, (0..30).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(rt::metrics().blocking_threads, 3);
        // A queued call can be cancelled.
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let blockers: Vec<_> = (0..3)
            .map(|_| {
                let wait = wait.clone();
                task::spawn_blocking(move || {
                    let _ = wait.lock().unwrap().recv();
                })
            })
            .collect();
        let queued = task::spawn_blocking(|| panic!("cancelled before it began"));
        let mut cancelled = Box::pin(queued.cancel());
        let polled = common::poll_now(&mut cancelled);
        drop(release);
        blockers.into_iter().for_each(park_on);
        assert!(matches!(polled, Poll::Ready(None)) || park_on(cancelled).is_none());
    });
}

#[test]
fn blocking_call_may_use_block_on() {
    run(async {
        let calls: Vec<_> = (0..20_u64)
            .map(|n| {
                task::spawn_blocking(move || {
                    task::block_on(async move {
                        task::sleep(MS).await;
                        task::spawn(async move { n }).await
                    })
                })
            })
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await, n as u64);
        }
    });
}
