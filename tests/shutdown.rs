//! Shutdown and restart of the runtime. Each test runs in a child process, except
//! `shutdown_inside_runtime_is_rejected`, whose shutdowns have no effect.

mod common;

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::{Watchdog, child, child_with, echo, eventually, fd_count, pair, park_on, ping, poll_now, thread_count};
use netpoll::io::ReadExt;
use netpoll::net::{ListenConfig, OpError, TcpListener, TcpStream, is_timeout, pipe};
use netpoll::{rt, task};

const LONG: Duration = Duration::from_secs(120);

fn is_shut_down(error: &std::io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(OpError::is_shut_down)
}

/// Waits until this process has `count` threads. The kernel lists a thread for a moment after it
/// was joined.
fn threads_are_back_to(count: usize) {
    eventually("no thread is left", || thread_count() == count);
}

/// A value that counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Spawns 1000 tasks that wait for sockets, sleeps, channels and other tasks. Each task holds a
/// [`Counted`]. Returns the peers of the sockets.
fn thousand_tasks(dropped: &Arc<AtomicUsize>) -> Vec<TcpStream> {
    let (streams, peers): (Vec<_>, Vec<_>) = park_on(async {
        let mut all = Vec::new();
        for _ in 0..20 {
            all.push(pair().await);
        }
        all.into_iter().unzip()
    });
    for n in 0..1000 {
        let counted = Counted(dropped.clone());
        let stream = streams[n % 20].clone();
        let (send, receive) = futures::channel::oneshot::channel::<()>();
        drop(task::spawn(async move {
            let _counted = counted;
            match n % 5 {
                0 => drop(stream.read(&mut [0; 8]).await),
                1 => task::sleep(Duration::from_secs(3600)).await,
                // Only the task itself holds the other end.
                2 => drop((receive.await, &send)),
                3 => task::spawn(pending::<()>()).await,
                _ => loop {
                    task::yield_now().await;
                    task::sleep(Duration::from_millis(1)).await;
                },
            }
        }));
    }
    peers
}

#[test]
fn runtime_with_thousand_tasks_shuts_down() {
    child("runtime_with_thousand_tasks_shuts_down", || {
        let (fds, threads) = (fd_count(), thread_count());
        let dropped = Arc::new(AtomicUsize::new(0));
        for round in 1..=5 {
            let peers = thousand_tasks(&dropped);
            // Without this pause, some tasks may not have begun.
            if round % 2 == 0 {
                thread::sleep(Duration::from_millis(20));
            }
            rt::shutdown(LONG).unwrap();
            drop(peers);
            threads_are_back_to(threads);
            let metrics = rt::metrics();
            assert_eq!((metrics.worker_threads, metrics.blocking_threads, metrics.tasks_injected), (0, 0, 0));
            assert_eq!((metrics.tasks_alive, dropped.load(Ordering::SeqCst)), (0, round * 1000));
        }
        eventually("descriptors are closed", || fd_count() <= fds);
    });
}

/// The detached tasks wait for something other than a socket, timer or task of the runtime.
#[test]
fn waiting_tasks_live_until_the_shutdown_drops_them() {
    child("waiting_tasks_live_until_the_shutdown_drops_them", || {
        for _ in 0..3 {
            let dropped = Arc::new(AtomicUsize::new(0));
            let (sender, receiver) = futures::channel::oneshot::channel::<()>();
            let (counted, other) = (Counted(dropped.clone()), Counted(dropped.clone()));
            let mut polls = 0;
            drop(task::spawn(async move {
                let _counted = counted;
                pending::<()>().await;
            }));
            drop(task::spawn(async move {
                let _counted = other;
                receiver.await
            }));
            // This task wakes itself in its first turn, and keeps no waker.
            let counted = Counted(dropped.clone());
            let woken = task::spawn(async move {
                let _counted = counted;
                poll_fn(|cx| {
                    polls += 1;
                    if polls == 1 {
                        cx.waker().wake_by_ref();
                    }
                    Poll::<()>::Pending
                })
                .await;
            });
            let id = woken.task().id();
            drop(woken);
            eventually("the task has been polled twice", || {
                rt::inspect().tasks.iter().any(|task| task.id() == id && task.polls() == 2)
            });
            assert_eq!((dropped.load(Ordering::SeqCst), rt::metrics().tasks_alive), (0, 3));
            rt::shutdown(LONG).unwrap();
            assert_eq!((dropped.load(Ordering::SeqCst), rt::metrics().tasks_alive), (3, 0));
            assert!(sender.is_canceled());
        }
    });
}

/// A task begins to wait in a turn during which the shutdown begins.
#[test]
fn task_that_begins_to_wait_during_the_shutdown_is_dropped() {
    child("task_that_begins_to_wait_during_the_shutdown_is_dropped", || {
        for round in 0..1000_u64 {
            rt::Builder::new().workers(1).start().unwrap();
            let (begun, begins) = mpsc::channel();
            drop(task::spawn(async move {
                begun.send(()).unwrap();
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(round * 7 % 250) {}
                task::sleep(Duration::from_secs(3600)).await;
            }));
            begins.recv().unwrap();
            rt::shutdown(LONG).unwrap();
            assert_eq!(rt::metrics().tasks_alive, 0, "round {round}");
        }
    });
}

#[test]
fn later_shutdown_waits_for_work_left_by_an_earlier_one() {
    child("later_shutdown_waits_for_work_left_by_an_earlier_one", || {
        for (is_call, restarts) in [(true, false), (true, true), (false, false), (false, true)] {
            let (release, wait) = mpsc::channel::<()>();
            let (begun, begins) = mpsc::channel();
            let body = move || {
                begun.send(()).unwrap();
                let _ = wait.recv();
            };
            let place = if is_call {
                drop(task::spawn_blocking(body));
                format!("tests/shutdown.rs:{}", line!() - 1)
            } else {
                drop(task::spawn(async move { body() }));
                format!("tests/shutdown.rs:{}", line!() - 1)
            };
            begins.recv().unwrap();
            for _ in 0..3 {
                let still = rt::shutdown(Duration::from_millis(20)).unwrap_err();
                assert_eq!((still.tasks, still.running.len()), (1, 1), "{still}");
                assert!(still.to_string().contains(&place), "{still}");
                if restarts {
                    assert_eq!(task::block_on(task::spawn(async { 5 })), 5);
                }
            }
            let last = thread::spawn(|| rt::shutdown(LONG));
            thread::sleep(Duration::from_millis(20));
            assert!(!last.is_finished());
            drop(release);
            last.join().unwrap().unwrap();
            assert_eq!(rt::metrics().tasks_alive, 0);
        }
    });
}

/// A shutdown waits for a blocking call that has started, so a call that awaits a dropped task must
/// learn of it. Regression: the await never returned, so the call occupied its thread forever.
#[test]
fn blocking_call_that_awaits_a_dropped_task_ends() {
    child("blocking_call_that_awaits_a_dropped_task_ends", || {
        for joins_set in [false, true] {
            let (begun, begins) = mpsc::channel();
            let mut set = task::TaskSet::new();
            let handle = task::spawn(pending::<u8>());
            set.spawn(pending::<u8>());
            let call = task::spawn_blocking(move || {
                begun.send(()).unwrap();
                let awaits = || if joins_set { park_on(set.join_next()) } else { Some(park_on(handle)) };
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(awaits)).is_err()
            });
            begins.recv().unwrap();
            rt::shutdown(LONG).unwrap();
            assert!(park_on(call), "the await panics");
        }
    });
}

/// A task that blocks its thread in another executor cannot be dropped until that executor returns.
/// Regression: the await never returned, so the task occupied its worker forever.
#[test]
fn task_that_awaits_a_dropped_task_under_another_executor_ends() {
    child("task_that_awaits_a_dropped_task_under_another_executor_ends", || {
        for joins_set in [false, true] {
            let (begun, begins) = mpsc::channel();
            let (ended, ends) = mpsc::channel();
            let mut set = task::TaskSet::new();
            let handle = task::spawn(pending::<u8>());
            set.spawn(pending::<u8>());
            drop(task::spawn(async move {
                begun.send(()).unwrap();
                let awaits = || if joins_set { park_on(set.join_next()) } else { Some(park_on(handle)) };
                ended.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(awaits)).is_err()).unwrap();
            }));
            begins.recv().unwrap();
            rt::shutdown(LONG).unwrap();
            assert!(ends.recv().unwrap(), "the await panics");
        }
    });
}

/// Combinators may poll the handles of dropped tasks repeatedly in one turn.
#[test]
fn repeated_polls_for_dropped_tasks_in_one_turn_do_not_panic() {
    child("repeated_polls_for_dropped_tasks_in_one_turn_do_not_panic", || {
        static PANICS: AtomicUsize = AtomicUsize::new(0);
        std::panic::set_hook(Box::new(|_| _ = PANICS.fetch_add(1, Ordering::SeqCst)));
        let mut handles: Vec<_> = (0..10).map(|_| task::spawn(pending::<()>())).collect();
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = Counted(Arc::clone(&drops));
        let (begun, begins) = mpsc::channel();
        drop(task::spawn(async move {
            let _counted = counted;
            begun.send(()).unwrap();
            // The turn lasts until the shutdown has dropped the other tasks.
            while !handles.iter().all(task::JoinHandle::is_finished) {
                thread::yield_now();
            }
            poll_fn(|cx| {
                for _ in 0..1000 {
                    assert!(handles.iter_mut().all(|handle| std::pin::Pin::new(handle).poll(cx).is_pending()));
                }
                Poll::<()>::Pending
            })
            .await;
        }));
        begins.recv().unwrap();
        rt::shutdown(LONG).unwrap();
        eventually("the task is dropped", || drops.load(Ordering::SeqCst) == 1);
        let _ = std::panic::take_hook();
        assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn fifty_restarts_leak_no_descriptors_or_threads() {
    child("fifty_restarts_leak_no_descriptors_or_threads", || {
        let (fds, threads) = (fd_count(), thread_count());
        for round in 0..50 {
            rt::Builder::new().workers(1 + round % 3).start().unwrap();
            task::block_on(async {
                let (client, server) = pair().await;
                let server = task::spawn(async move { echo(&server).await });
                ping(&client, b"hello").await.unwrap();
                task::spawn_blocking(|| ()).await;
                task::sleep(Duration::from_micros(100)).await;
                drop(client);
                server.await.unwrap();
            });
            assert_eq!(rt::metrics().workers, 1 + round % 3);
            rt::shutdown(LONG).unwrap();
            assert_eq!(fd_count(), fds, "round {round}");
            threads_are_back_to(threads);
            assert_eq!(rt::metrics().tasks_alive, 0);
        }
    });
}

#[test]
fn shutdown_without_runtime_succeeds() {
    child("shutdown_without_runtime_succeeds", || {
        let threads = thread_count();
        rt::shutdown(Duration::ZERO).unwrap();
        rt::shutdown(LONG).unwrap();
        assert_eq!(thread_count(), threads);
        task::block_on(async {});
        rt::shutdown(Duration::MAX).unwrap();
        rt::shutdown(Duration::MAX).unwrap();
        threads_are_back_to(threads);
    });
}

#[test]
fn shutdown_inside_runtime_is_rejected() {
    let _watchdog = Watchdog::new();
    let refused = |result: Result<(), rt::StillRunning>| {
        let still = result.unwrap_err();
        assert!(still.on_runtime_thread);
        assert!(still.to_string().contains("call rt::shutdown outside"), "{still}");
        assert_eq!(std::io::Error::from(still).kind(), std::io::ErrorKind::Unsupported);
    };
    task::block_on(async {
        refused(rt::shutdown(LONG));
        task::spawn(async move { refused(rt::shutdown(LONG)) }).await;
        task::spawn_blocking(move || refused(rt::shutdown(LONG))).await;
        // The refused shutdown had no effect.
        assert_eq!(task::spawn(async { 1 }).await, 1);
    });
}

#[test]
fn waiter_of_another_executor_gets_shutdown_error() {
    child("waiter_of_another_executor_gets_shutdown_error", || {
        let (client, server) = park_on(pair());
        let reader = thread::spawn({
            let client = client.clone();
            move || futures::executor::block_on(client.read(&mut [0; 8]))
        });
        let poller = thread::spawn({
            let client = client.clone();
            move || {
                use futures::io::AsyncReadExt;
                futures::executor::block_on(AsyncReadExt::read(&mut &client, &mut [0; 8]))
            }
        });
        let acceptor = thread::spawn(|| {
            futures::executor::block_on(async {
                let listener = common::listener().await;
                listener.accept().await.map(drop)
            })
        });
        eventually("all operations wait", || rt::metrics().waiters >= 3);
        rt::shutdown(LONG).unwrap();
        let error = reader.join().unwrap().unwrap_err();
        assert!(is_shut_down(&error), "{error}");
        assert!(error.to_string().ends_with("runtime shut down"), "{error}");
        assert!(is_shut_down(&poller.join().unwrap().unwrap_err()));
        assert!(is_shut_down(&acceptor.join().unwrap().unwrap_err()));
        // The socket is unchanged and works with the next runtime.
        let answer = task::block_on(async {
            let echo = task::spawn(async move { echo(&server).await });
            ping(&client, b"again").await.unwrap();
            drop(client);
            echo.await
        });
        answer.unwrap();
    });
}

#[test]
fn block_on_in_another_thread_survives_shutdown() {
    child("block_on_in_another_thread_survives_shutdown", || {
        let (client, _server) = park_on(pair());
        let (begun, wait) = mpsc::channel();
        let other = thread::spawn(move || {
            task::block_on(async {
                begun.send(()).unwrap();
                client.read(&mut [0; 8]).await
            })
        });
        wait.recv().unwrap();
        eventually("the read waits", || rt::metrics().waiters >= 1);
        rt::shutdown(LONG).unwrap();
        assert!(is_shut_down(&other.join().unwrap().unwrap_err()));
    });
}

/// A sleep under another executor or in `block_on` outlives the runtime. After a shutdown the sleep
/// reads the clock again, and starts a runtime if it has to wait longer.
#[test]
fn sleep_of_another_executor_outlives_runtime() {
    child("sleep_of_another_executor_outlives_runtime", || {
        for _ in 0..10 {
            let start = Instant::now();
            let sleepers: Vec<_> = (0..4)
                .map(|n| {
                    thread::spawn(move || {
                        let sleep = task::sleep(Duration::from_millis(100 + n));
                        if n % 2 == 0 { futures::executor::block_on(sleep) } else { task::block_on(sleep) }
                    })
                })
                .collect();
            eventually("all sleep, or have slept", || {
                rt::metrics().timer_entries >= 4 || start.elapsed() > Duration::from_millis(100)
            });
            rt::shutdown(LONG).unwrap();
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
            assert!(start.elapsed() >= Duration::from_millis(100));
            rt::shutdown(LONG).unwrap();
        }
    });
}

#[test]
fn deadlines_survive_shutdown() {
    child("deadlines_survive_shutdown", || {
        let (client, server) = park_on(pair());
        let deadline = Instant::now() + Duration::from_millis(300);
        client.set_read_deadline(deadline).unwrap();
        rt::shutdown(LONG).unwrap();
        let error = task::block_on(client.read(&mut [0; 1])).unwrap_err();
        assert!(is_timeout(&error) && Instant::now() >= deadline, "{error}");
        // A deadline replaces an older one after the shutdown.
        server.set_read_deadline(Instant::now() + Duration::from_millis(50)).unwrap();
        rt::shutdown(LONG).unwrap();
        let deadline = Instant::now() + Duration::from_millis(100);
        server.set_read_deadline(deadline).unwrap();
        let error = task::block_on(server.read(&mut [0; 1])).unwrap_err();
        assert!(is_timeout(&error) && Instant::now() >= deadline, "{error}");
        // A relative timeout also fires after the shutdown.
        server.set_read_deadline(None).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        assert!(is_timeout(&task::block_on(server.read(&mut [0; 1])).unwrap_err()));
        rt::shutdown(LONG).unwrap();
        assert!(is_timeout(&task::block_on(server.read(&mut [0; 1])).unwrap_err()));
    });
}

/// Regression: a deadline from before the shutdown stayed in the heap of timers, so the new timer
/// was not the first there, and no thread slept for it.
#[test]
fn timers_fire_after_restart() {
    child("timers_fire_after_restart", || {
        // All waits but the last are under another executor, so that nothing else starts a thread.
        let (client, _server) = park_on(pair());
        for wait in [
            || park_on(task::sleep(Duration::from_millis(250))),
            || {
                let (end, _other) = pipe().unwrap();
                end.set_read_deadline(Instant::now() + Duration::from_millis(250)).unwrap();
                assert!(is_timeout(&park_on(end.read(&mut [0; 1])).unwrap_err()));
            },
            || {
                let (end, _other) = pipe().unwrap();
                end.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
                assert!(is_timeout(&park_on(end.read(&mut [0; 1])).unwrap_err()));
            },
            || {
                let listener = park_on(TcpListener::bind("127.0.0.1:0")).unwrap();
                listener.set_deadline(Instant::now() + Duration::from_millis(250)).unwrap();
                assert!(is_timeout(&park_on(listener.accept()).unwrap_err()));
            },
            || {
                let sleeper = thread::spawn(|| task::block_on(task::sleep(Duration::from_millis(250))));
                sleeper.join().unwrap();
            },
        ] {
            client.set_read_deadline(Instant::now() + Duration::from_millis(100)).unwrap();
            rt::shutdown(LONG).unwrap();
            wait();
            rt::shutdown(LONG).unwrap();
        }
    });
}

/// Regression: the shutdown woke the operation, which read the clock and waited again, although no
/// thread ran timers any more.
#[test]
fn waiting_deadline_fires_after_shutdown() {
    child("waiting_deadline_fires_after_shutdown", || {
        for round in 0..20 {
            let (end, _other) = pipe().unwrap();
            let start = Instant::now();
            let reader = thread::spawn(move || {
                if round % 2 == 0 {
                    end.set_read_deadline(start + Duration::from_millis(60)).unwrap();
                } else {
                    end.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
                }
                park_on(end.read(&mut [0; 1]))
            });
            eventually("the read waits, or has waited", || {
                rt::metrics().timer_entries > 0 || start.elapsed() > Duration::from_millis(60)
            });
            rt::shutdown(LONG).unwrap();
            assert!(is_timeout(&reader.join().unwrap().unwrap_err()));
            rt::shutdown(LONG).unwrap();
        }
    });
}

/// The operations wait for another operation of their socket, or for a permit. They do not register
/// the socket, which would start the runtime again.
#[test]
fn deadline_of_an_operation_that_waits_for_another_one_fires_after_shutdown() {
    child("deadline_of_an_operation_that_waits_for_another_one_fires_after_shutdown", || {
        let _watchdog = Watchdog::new();
        let (ours, _peer) = park_on(pair());
        let bytes = vec![0; 64 << 20];
        let mut holder = ours.write_all(&bytes);
        assert!(poll_now(&mut holder).is_pending(), "it keeps the write lock");
        for by_deadline in [false, true] {
            if by_deadline {
                ours.set_write_timeout(None).unwrap();
                ours.set_write_deadline(Instant::now() + Duration::from_millis(300)).unwrap();
            } else {
                ours.set_write_timeout(Some(Duration::from_millis(60))).unwrap();
            }
            rt::shutdown(LONG).unwrap();
            assert!(is_timeout(&park_on(ours.write(b"x")).unwrap_err()));
        }
        drop(holder);

        let listener = park_on(ListenConfig::new().max_connections(1).listen("127.0.0.1:0")).unwrap();
        let _client = park_on(TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        let _server = park_on(listener.accept()).unwrap();
        listener.set_deadline(Instant::now() + Duration::from_millis(300)).unwrap();
        rt::shutdown(LONG).unwrap();
        assert!(is_timeout(&park_on(listener.accept()).map(drop).unwrap_err()));
    });
}

#[test]
fn future_of_block_on_is_not_reported_as_a_stuck_task() {
    child("future_of_block_on_is_not_reported_as_a_stuck_task", || {
        rt::Builder::new().workers(2).block_on_runs_tasks(true).start().unwrap();
        let (begun, begins) = mpsc::channel();
        let stuck = || {
            let ((release, wait), begun) = (mpsc::channel::<()>(), begun.clone());
            (release, async move {
                begun.send(()).unwrap();
                let _ = wait.recv();
            })
        };
        let ((release, task), (release_root, root)) = (stuck(), stuck());
        let task = task::spawn(task);
        begins.recv().unwrap();
        let root = thread::spawn(|| task::block_on(root));
        begins.recv().unwrap();
        let still = rt::shutdown(Duration::from_millis(20)).unwrap_err();
        assert_eq!((still.running.as_slice(), still.tasks), ([(task.task().id(), None)].as_slice(), 1), "{still}");
        drop((release, release_root));
        root.join().unwrap();
    });
}

#[test]
fn stuck_task_is_reported_and_next_runtime_works() {
    let text = child_with("stuck_task_is_reported_and_next_runtime_works", &[], || {
        for policy in [rt::BlockedPolicy::AddWorkers, rt::BlockedPolicy::ReportOnly, rt::BlockedPolicy::Off] {
            rt::Builder::new().workers(1).spare_workers(2).blocked_tasks(policy).start().unwrap();
            let (release, wait) = mpsc::channel::<()>();
            let (begun, begins) = mpsc::channel();
            let stuck = task::Builder::new()
                .name("stuck".into())
                .spawn(async move {
                    begun.send(()).unwrap();
                    let _ = wait.recv();
                })
                .unwrap();
            begins.recv().unwrap();
            let start = Instant::now();
            // The timeout is long enough for the other threads to end on a busy machine.
            let timeout = Duration::from_secs(3);
            let still = rt::shutdown(timeout).unwrap_err();
            assert!(start.elapsed() >= timeout);
            assert!(!still.on_runtime_thread);
            assert_eq!(still.threads, ["netpoll"]);
            assert_eq!(still.running, [(stuck.task().id(), Some("stuck".to_owned()))]);
            assert_eq!(still.tasks, 1);
            let text = still.to_string();
            assert!(text.contains("1 thread and 1 task are still running") && text.contains("(stuck)"), "{text}");
            println!("{text}");
            assert_eq!(std::io::Error::from(still).kind(), std::io::ErrorKind::TimedOut);
            // The next runtime has all its configured threads beside the stuck one.
            rt::Builder::new().workers(1).spare_workers(2).blocked_tasks(policy).start().unwrap();
            for _ in 0..20 {
                assert_eq!(park_on(task::spawn(async { task::spawn(async { 5 }).await })), 5);
                park_on(task::spawn(task::sleep(Duration::from_millis(1))));
                let echoed = park_on(task::spawn(async {
                    let (client, server) = pair().await;
                    let server = task::spawn(async move { echo(&server).await });
                    ping(&client, b"beside").await.unwrap();
                    drop(client);
                    server.await
                }));
                echoed.unwrap();
                assert_eq!(task::block_on(async { task::spawn(async { 6 }).await }), 6);
            }
            drop(release);
            eventually("the stuck thread ends", || rt::metrics().worker_threads <= 1);
            for _ in 0..20 {
                assert_eq!(park_on(task::spawn(async { task::spawn(async { 7 }).await })), 7);
            }
            rt::shutdown(LONG).unwrap();
            assert_eq!(rt::metrics().worker_threads, 0);
        }
    });
    assert!(text.is_none_or(|text| text.contains("(stuck)")));
}

/// Sysmon and the blocking pool of the next runtime do not rely on threads of the previous one that
/// are about to end.
#[test]
fn start_right_after_zero_timeout_shutdown_works() {
    child("start_right_after_zero_timeout_shutdown_works", || {
        for _ in 0..100 {
            rt::Builder::new().workers(1).start().unwrap();
            // After these uses, a blocking thread rests, a worker sleeps, and sysmon runs.
            assert_eq!(park_on(task::spawn_blocking(|| 1)), 1);
            assert_eq!(park_on(task::spawn(async { 2 })), 2);
            let _ = rt::shutdown(Duration::ZERO);
            rt::Builder::new().workers(1).start().unwrap();
            assert_eq!(park_on(task::spawn_blocking(|| 3)), 3);
            // Only sysmon can start the worker that runs the second task.
            let (release, wait) = mpsc::channel();
            let blocked = task::spawn(async move { wait.recv().unwrap() });
            park_on(task::spawn(async move { release.send(4).unwrap() }));
            assert_eq!(park_on(blocked), 4);
            let _ = rt::shutdown(LONG);
        }
        eventually("no thread is left", || rt::shutdown(LONG).is_ok() && rt::metrics().worker_threads == 0);
    });
}

#[test]
fn join_handles_report_that_their_tasks_were_dropped() {
    child("join_handles_report_that_their_tasks_were_dropped", || {
        let sleeper = || task::spawn(task::sleep(Duration::from_secs(3600)));
        let (cancelled, awaited) = (sleeper(), sleeper());
        let done = task::spawn(async { 9 });
        eventually("the task is done", || done.is_finished());
        rt::shutdown(LONG).unwrap();
        assert_eq!(park_on(cancelled.cancel()), None);
        assert_eq!(park_on(done), 9, "a result that existed stays");
        let panic = thread::spawn(move || park_on(awaited)).join();
        assert!(panic.is_err(), "awaiting a task that was dropped panics");
    });
}

#[test]
fn destructors_may_use_runtime_during_shutdown() {
    child("destructors_may_use_runtime_during_shutdown", || {
        struct Busy(Option<TcpStream>, Arc<AtomicBool>);
        impl Drop for Busy {
            fn drop(&mut self) {
                drop(task::spawn(async { task::yield_now().await }));
                drop(task::spawn_blocking(|| ()));
                let mut sleep = Box::pin(task::sleep(Duration::from_millis(1)));
                let _ = common::poll_now(&mut sleep);
                let stream = self.0.take().unwrap();
                stream.set_read_deadline(Instant::now() + Duration::from_secs(1)).unwrap();
                let _ = common::poll_now(&mut stream.read(&mut [0; 1]));
                self.1.store(true, Ordering::SeqCst);
            }
        }
        for _ in 0..20 {
            let ran = Arc::new(AtomicBool::new(false));
            let (client, _server) = park_on(pair());
            let busy = Busy(Some(client), ran.clone());
            let (begun, begins) = mpsc::channel();
            drop(task::spawn(async move {
                let _busy = busy;
                begun.send(()).unwrap();
                task::sleep(Duration::from_secs(3600)).await;
            }));
            begins.recv().unwrap();
            eventually("the task sleeps", || rt::metrics().timer_entries >= 1);
            rt::shutdown(LONG).unwrap();
            assert!(ran.load(Ordering::SeqCst));
            // The task and the call that the destructor spawned were dropped too.
            assert_eq!(rt::metrics().tasks_alive, 0);
            task::block_on(async {});
            assert_eq!(task::block_on(task::spawn(async { 3 })), 3);
            rt::shutdown(LONG).unwrap();
        }
    });
}

#[test]
fn sockets_survive_shutdown() {
    child("sockets_survive_shutdown", || {
        let listener = park_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let client = park_on(TcpStream::connect(addr)).unwrap();
        let (server, _) = park_on(listener.accept()).unwrap();
        for round in 0..50_u8 {
            task::block_on(async {
                // The read waits, so its socket is registered with this runtime.
                let answer = task::spawn({
                    let server = server.clone();
                    async move {
                        let mut buf = [0];
                        common::read_exact(&server, &mut buf).await.unwrap();
                        server.write_all(&buf).await.unwrap();
                    }
                });
                task::yield_now().await;
                ping(&client, &[round]).await.unwrap();
                answer.await;
                let dial = task::spawn(TcpStream::connect(addr));
                listener.accept().await.unwrap();
                dial.await.unwrap();
            });
            rt::shutdown(LONG).unwrap();
        }
    });
}

/// The state of a read through the traits is in the socket, so it remains when the task is dropped.
#[test]
fn read_through_the_traits_after_a_restart_does_not_get_the_error_of_a_dropped_one() {
    child("read_through_the_traits_after_a_restart_does_not_get_the_error_of_a_dropped_one", || {
        let _watchdog = Watchdog::new();
        let (client, server) = park_on(pair());
        let read = || {
            let client = client.clone();
            let read = task::spawn(async move {
                use futures::io::AsyncReadExt;
                AsyncReadExt::read(&mut &client, &mut [0; 8]).await
            });
            eventually("the read waits", || rt::metrics().waiters > 0 || read.is_finished());
            read
        };
        for _ in 0..20 {
            drop(read());
            rt::shutdown(LONG).unwrap();
            let read = read();
            park_on(server.write_all(b"x")).unwrap();
            assert_eq!(park_on(read).unwrap(), 1);
        }
    });
}

/// A task that is in its turn when the runtime ends, and awaits a task that was dropped, is dropped
/// as well and does not panic.
#[test]
fn task_awaiting_dropped_task_ends_without_panic_message() {
    child("task_awaiting_dropped_task_ends_without_panic_message", || {
        let panics = Arc::new(AtomicUsize::new(0));
        let counted = panics.clone();
        std::panic::set_hook(Box::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let (began, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let awaited = task::spawn(task::sleep(Duration::from_secs(3600)));
        drop(task::spawn({
            let (began, counted) = (began.clone(), Counted(dropped.clone()));
            async move {
                let _counted = counted;
                began.store(true, Ordering::SeqCst);
                while !awaited.is_finished() {
                    thread::yield_now();
                }
                awaited.await;
            }
        }));
        let outside = task::spawn(task::sleep(Duration::from_secs(3600)));
        eventually("the task runs", || began.load(Ordering::SeqCst));
        rt::shutdown(LONG).unwrap();
        assert_eq!((dropped.load(Ordering::SeqCst), panics.load(Ordering::SeqCst)), (1, 0));
        // Awaiting the handle outside the runtime panics.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| park_on(outside)));
        assert!(
            result.is_err_and(|payload| payload.downcast_ref::<&str>().is_some_and(|text| text.contains("shutdown")))
        );
    });
}

/// Regression: a shutdown in the callback for blocked tasks ended the runtime and waited for its
/// own thread.
#[test]
fn shutdown_in_blocked_task_report_is_rejected() {
    child("shutdown_in_blocked_task_report_is_rejected", || {
        let (send, receive) = mpsc::channel();
        let report = move |_: &rt::BlockedTask| drop(send.send(rt::shutdown(Duration::from_millis(10))));
        rt::Builder::new().workers(1).on_blocked_task(report).start().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let blocks = task::spawn(async move { held.recv().is_err() });
        let refused = receive.recv_timeout(LONG).unwrap();
        assert!(refused.is_err_and(|still| still.on_runtime_thread));
        drop(release);
        assert!(park_on(blocks));
        rt::shutdown(LONG).unwrap();
    });
}

/// Regression: the close never completed, because its call was queued behind another and was
/// dropped with the queue.
#[test]
fn queued_lingering_close_completes_at_shutdown() {
    child("queued_lingering_close_completes_at_shutdown", || {
        rt::Builder::new().blocking_threads(1).start().unwrap();
        let ((lingers, reader), (client, server)) = (park_on(pair()), park_on(pair()));
        park_on(common::fill(&lingers));
        lingers.set_linger(Some(common::BOUND)).unwrap();
        let number = format!("/proc/self/fd/{}", common::number(&lingers));
        let socket = std::fs::read_link(&number).unwrap();
        assert!(poll_now(&mut lingers.force_close()).is_pending());
        // After the close, a placeholder has the number.
        eventually("the thread closes the socket", || std::fs::read_link(&number).ok().as_ref() != Some(&socket));
        client.set_linger(Some(Duration::from_secs(1))).unwrap();
        let mut closed = client.force_close();
        assert!(poll_now(&mut closed).is_pending());
        assert!(rt::shutdown(Duration::ZERO).is_err());
        assert!(poll_now(&mut closed).is_ready());
        drop(reader);
        assert_eq!(park_on(server.read(&mut [0; 1])).unwrap(), 0);
    });
}

/// Regression: the drop started the runtime again, with the default settings.
#[test]
fn drop_of_lingering_socket_after_shutdown_starts_no_runtime() {
    child("drop_of_lingering_socket_after_shutdown_starts_no_runtime", || {
        let (client, server) = park_on(pair());
        let sent = park_on(common::fill(&client));
        client.set_linger(Some(common::BOUND)).unwrap();
        rt::shutdown(LONG).unwrap();
        drop(client);
        rt::Builder::new().workers(1).start().unwrap();
        let mut all = Vec::new();
        park_on((&server).read_to_end(&mut all)).unwrap();
        assert_eq!(all.len(), sent);
    });
}

/// A task that a shutdown left in its turn wakes and spawns tasks after the next runtime has
/// started. These tasks run on the next runtime.
#[test]
fn thread_of_previous_runtime_schedules_on_next() {
    child("thread_of_previous_runtime_schedules_on_next", || {
        for workers in [1, 4] {
            for _ in 0..5 {
                rt::Builder::new().workers(workers).start().unwrap();
                let (wake, woken) = futures::channel::oneshot::channel::<u32>();
                let (go, wait) = mpsc::channel::<()>();
                let (begun, begins) = mpsc::channel();
                let (spawned, spawns) = mpsc::channel();
                drop(task::spawn(async move {
                    begun.send(()).unwrap();
                    wait.recv().unwrap();
                    wake.send(7).unwrap();
                    spawned.send(task::spawn(async { task::spawn(async { 8 }).await })).unwrap();
                    // The turn lasts until the tasks have run.
                    let _ = wait.recv();
                }));
                begins.recv().unwrap();
                rt::shutdown(Duration::from_millis(20)).unwrap_err();
                rt::Builder::new().workers(workers).start().unwrap();
                let waiting = task::spawn(async move { woken.await.unwrap() });
                go.send(()).unwrap();
                assert_eq!(park_on(waiting), 7);
                assert_eq!(park_on(spawns.recv().unwrap()), 8);
                drop(go);
                eventually("the runtime ends", || rt::shutdown(LONG).is_ok());
            }
        }
    });
}

/// The runtime ends and starts within one turn of a root future.
#[test]
fn root_future_outlives_shutdown_in_its_turn() {
    child("root_future_outlives_shutdown_in_its_turn", || {
        for round in 0..40 {
            rt::Builder::new().workers(1).block_on_runs_tasks(round % 2 == 0).start().unwrap();
            task::block_on(async {
                task::yield_now().await;
                thread::spawn(|| rt::shutdown(LONG)).join().unwrap().unwrap();
                assert_eq!(task::spawn(async { 7 }).await, 7);
                task::sleep(Duration::from_millis(1)).await;
            });
            eventually("the runtime ends", || rt::shutdown(LONG).is_ok());
        }
    });
}

/// A shutdown waits for a task that is in its turn on the thread of a `block_on`, even if the task
/// itself calls `block_on`.
#[test]
fn shutdown_waits_for_task_on_block_on_thread() {
    /// Returns whether the task ran on the thread of the `block_on`. A worker may have taken the
    /// task first.
    fn task_was_on_block_on_thread(nested: bool) -> bool {
        rt::Builder::new().workers(1).spare_workers(0).block_on_runs_tasks(true).start().unwrap();
        let (began, begins) = mpsc::channel();
        let root = thread::spawn(move || {
            task::block_on(async move {
                // Now this thread has the only processor.
                began.send(()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        begins.recv().unwrap();
        let (begun, begins) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let ends = ended.clone();
        drop(task::spawn(async move {
            begun.send(thread::current().id()).unwrap();
            let pause = Duration::from_millis(100);
            if nested {
                task::block_on(task::sleep(pause))
            } else {
                thread::sleep(pause)
            }
            ends.store(true, Ordering::SeqCst);
        }));
        let is_on_root = begins.recv().unwrap() == root.thread().id();
        rt::shutdown(LONG).unwrap();
        assert!(ended.load(Ordering::SeqCst), "the shutdown has waited");
        is_on_root
    }
    child("shutdown_waits_for_task_on_block_on_thread", || {
        for nested in [false, true] {
            eventually("the task runs on the thread of `block_on`", || task_was_on_block_on_thread(nested));
        }
    });
}

/// A shutdown fires timers. A timer that is armed again, for a later deadline of the same pipe end,
/// starts no runtime.
#[test]
fn timer_that_fires_during_shutdown_starts_no_runtime() {
    child("timer_that_fires_during_shutdown_starts_no_runtime", || {
        let threads = thread_count();
        for round in 0..300 {
            rt::Builder::new().workers(1).start().unwrap();
            let (end, _other) = pipe().unwrap();
            let now = Instant::now();
            end.set_write_deadline(now + LONG).unwrap();
            end.set_read_deadline(now + Duration::from_micros(100 + 10 * round)).unwrap();
            rt::shutdown(LONG).unwrap();
            threads_are_back_to(threads);
        }
    });
}

/// A turn waits for the end of tasks that are queued behind it. The shutdown drops these tasks, so
/// the turn ends.
#[test]
fn shutdown_drops_tasks_queued_behind_a_turn() {
    child("shutdown_drops_tasks_queued_behind_a_turn", || {
        for count in [1, 2, 600] {
            rt::Builder::new().workers(1).blocked_tasks(rt::BlockedPolicy::Off).start().unwrap();
            let (begun, begins) = mpsc::channel();
            drop(task::spawn(async move {
                let (keep, kept) = mpsc::channel::<()>();
                for _ in 0..count {
                    let keep = keep.clone();
                    drop(task::spawn(async move {
                        let _keep = keep;
                        task::sleep(LONG).await;
                    }));
                }
                drop(keep);
                begun.send(()).unwrap();
                assert!(kept.recv().is_err());
            }));
            begins.recv().unwrap();
            rt::shutdown(LONG).unwrap();
        }
    });
}

/// The next shutdown waits for a task that the previous one left in its turn.
#[test]
fn shutdown_waits_for_turn_left_by_previous_shutdown() {
    struct Releases(mpsc::Sender<()>);
    impl Drop for Releases {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    child("shutdown_waits_for_turn_left_by_previous_shutdown", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (begun, begins) = mpsc::channel();
        let (release, wait) = mpsc::channel();
        drop(task::spawn(async move {
            begun.send(()).unwrap();
            wait.recv().unwrap();
            thread::sleep(Duration::from_millis(200));
        }));
        begins.recv().unwrap();
        assert_eq!(rt::shutdown(Duration::from_millis(20)).unwrap_err().running.len(), 1);
        rt::Builder::new().workers(1).start().unwrap();
        // The next shutdown drops this task, whose destructor releases the turn.
        let releases = Releases(release);
        drop(task::spawn(async move {
            let _releases = releases;
            task::sleep(LONG).await;
        }));
        rt::shutdown(LONG).unwrap();
        assert_eq!(rt::metrics().tasks_alive, 0);
    });
}

/// The callback for blocked tasks of the previous runtime has not returned when the next runtime
/// starts.
#[test]
fn report_of_previous_runtime_takes_no_task_of_the_next() {
    let reporters = || common::of_other_threads("comm").filter(|name| name.trim() == "netpoll-reports").count();
    child("report_of_previous_runtime_takes_no_task_of_the_next", || {
        let (entered, enters) = mpsc::channel();
        let start = || {
            let entered = std::sync::Mutex::new(entered.clone());
            let report = move |_: &rt::BlockedTask| {
                let (release, released) = mpsc::channel::<()>();
                entered.lock().unwrap().send(release).unwrap();
                // Blocks until the sender is dropped.
                let _ = released.recv_timeout(common::BOUND);
            };
            rt::Builder::new().workers(1).on_blocked_task(report).start().unwrap();
        };
        start();
        let (first_ends, first) = mpsc::channel::<()>();
        drop(task::spawn(async move { first.recv_timeout(common::BOUND) }));
        let first_report = enters.recv_timeout(common::BOUND).unwrap();
        rt::shutdown(Duration::ZERO).unwrap_err();
        drop(first_ends);

        start();
        let (second_ends, second) = mpsc::channel::<()>();
        let (spawned, queued) = mpsc::channel();
        let blocks = task::spawn(async move {
            let others: Vec<_> = (0..20).map(|at| task::spawn(async move { at })).collect();
            spawned.send(others).unwrap();
            let _ = second.recv_timeout(common::BOUND);
        });
        let second_report = enters.recv_timeout(common::BOUND).unwrap();
        assert_eq!(reporters(), 2);
        drop(first_report);
        eventually("the first thread ends", || reporters() == 1);
        drop(second_report);
        for (at, task) in queued.recv_timeout(common::BOUND).unwrap().into_iter().enumerate() {
            assert_eq!(park_on(task), at);
        }
        drop(second_ends);
        park_on(blocks);
    });
}
