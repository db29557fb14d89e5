//! The system refuses threads: pthread_create(3) fails, for a while or permanently. Operations that
//! need no further thread continue. Each test runs in a child process.

mod common;

use std::ffi::{c_int, c_void};
use std::net::ToSocketAddrs as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use common::{child, cpu_time, echo, eventually, listener, original, pair, park_on, ping};
use netpoll::net::{TcpStream, is_timeout, pipe};
use netpoll::task::TaskSet;
use netpoll::{rt, task, time};

const LONG: Duration = Duration::from_secs(120);
/// A number of refusals that no test uses up.
const ALL: usize = usize::MAX / 2;

/// The number of calls of `pthread_create` that are still to succeed before calls fail.
static PERMITTED: AtomicUsize = AtomicUsize::new(0);
/// The number of calls of `pthread_create` that are still to fail.
static REFUSALS: AtomicUsize = AtomicUsize::new(0);
/// The number of calls of `pthread_create` that have failed since the last call of [`refuse`].
static REFUSED: AtomicUsize = AtomicUsize::new(0);

type Create = unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Main, *mut c_void) -> c_int;

/// Whether newly created threads wait before they begin. They begin when the value becomes false.
static HELD: AtomicBool = AtomicBool::new(false);

type Main = extern "C" fn(*mut c_void) -> *mut c_void;

/// Waits until [`HELD`] is false, and then calls a thread's main function. The argument is a boxed
/// pair of this function and its argument.
extern "C" fn held_main(argument: *mut c_void) -> *mut c_void {
    while HELD.load(Ordering::SeqCst) {
        std::thread::sleep(MS);
    }
    // SAFETY: `pthread_create` below created the box for this thread alone.
    let (main, argument) = *unsafe { Box::from_raw(argument.cast::<(Main, *mut c_void)>()) };
    main(argument)
}

/// Replaces the C library's function. Fails if a refusal is due. Otherwise calls the interceptor of
/// a sanitizer, if there is one, or the original. A sanitizer aborts the process if a thread is
/// joined that its interceptor has not created.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    main: Main,
    argument: *mut c_void,
) -> c_int {
    let takes = |count: &AtomicUsize| {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    };
    if !takes(&PERMITTED) && takes(&REFUSALS) {
        REFUSED.fetch_add(1, Ordering::SeqCst);
        return libc::EAGAIN;
    }
    let real = original(c"pthread_create", c"__interceptor_pthread_create");
    // SAFETY: the C library's function and its interceptors have this signature.
    let real: Create = unsafe { std::mem::transmute(real) };
    if !HELD.load(Ordering::SeqCst) {
        // SAFETY: the caller's promise.
        return unsafe { real(thread, attributes, main, argument) };
    }
    let held: *mut (Main, *mut c_void) = Box::into_raw(Box::new((main, argument)));
    // SAFETY: the caller's promise, and the argument has the form that `held_main` expects.
    unsafe { real(thread, attributes, held_main, held.cast()) }
}

/// Refuses the next `count` threads, after those that [`PERMITTED`] permits.
fn refuse(count: usize) {
    REFUSED.store(0, Ordering::SeqCst);
    REFUSALS.store(count, Ordering::SeqCst);
}

fn permit() {
    REFUSALS.store(0, Ordering::SeqCst);
}

fn refused() -> usize {
    REFUSED.load(Ordering::SeqCst)
}

const MS: Duration = Duration::from_millis(1);

/// Uses of the runtime under another executor. All of them except that at [`WAITS_FOR_CALLER`] need
/// no thread besides the caller's.
const USES: [fn(); 10] = [
    || assert_eq!(park_on(task::spawn(async { task::spawn(async { 7 }).await })), 7),
    || park_on(task::sleep(20 * MS)),
    || {
        // The later sleeps are not the first timers in their heap.
        let first = begun(task::sleep(10 * MS));
        (0..3).for_each(|n| park_on(task::sleep((20 + n) * MS)));
        drop(first);
    },
    || {
        let (end, _other) = pipe().unwrap();
        end.set_read_deadline(Instant::now() + 20 * MS).unwrap();
        assert!(is_timeout(&park_on(end.read(&mut [0; 1])).unwrap_err()));
    },
    || {
        let (end, _other) = pipe().unwrap();
        end.set_read_timeout(Some(20 * MS)).unwrap();
        assert!(is_timeout(&park_on(end.read(&mut [0; 1])).unwrap_err()));
    },
    || assert_eq!(park_on(task::spawn_blocking(|| 8)), 8),
    || {
        // This is the use with the index `WAITS_FOR_CALLER`.
        let (send, receive) = mpsc::channel();
        let call = task::spawn_blocking(move || receive.recv_timeout(LONG).unwrap());
        send.send(9).unwrap();
        assert_eq!(park_on(call), 9);
    },
    || {
        // The thread waits for the task without polling it.
        let (send, receive) = mpsc::channel();
        drop(task::spawn(async move {
            task::yield_now().await;
            send.send(10).unwrap();
        }));
        assert_eq!(receive.recv_timeout(LONG), Ok(10));
    },
    || {
        let mut set = TaskSet::new();
        set.spawn(async {
            task::sleep(20 * MS).await;
            11
        });
        assert_eq!(park_on(set.join_next()), Some(11));
    },
    || {
        // A thread of the runtime, or the waiting thread, drops the task.
        let sleeps = || async { task::sleep(LONG).await };
        assert_eq!(park_on(task::spawn(sleeps()).cancel()), None);
        let mut set = TaskSet::new();
        set.spawn(sleeps());
        park_on(set.cancel_all());
    },
];

/// The index of the use whose blocking call waits for its caller. This use needs a second thread.
const WAITS_FOR_CALLER: usize = 6;
/// The index of the use whose thread waits for a task without polling it.
const WAITS_UNPOLLED: usize = 7;

/// Polls `future` once, which arms its timer, and returns it.
fn begun<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    let mut future = Box::pin(future);
    // On a busy machine the timer may have expired.
    let _ = common::poll_now(&mut future);
    future
}

/// Uses that need the poller. If the runtime has no thread and cannot start one, they fail under
/// another executor.
const SOCKETS: [fn(); 4] = [
    || {
        let answer = park_on(async {
            let (client, server) = pair().await;
            let server = task::spawn(async move { echo(&server).await });
            ping(&client, b"hello").await.unwrap();
            drop(client);
            server.await
        });
        answer.unwrap();
    },
    || {
        let (client, _server) = park_on(pair());
        client.set_read_deadline(Instant::now() + 20 * MS).unwrap();
        assert!(is_timeout(&park_on(client.read(&mut [0; 1])).unwrap_err()));
    },
    || {
        let listener = park_on(listener());
        let addr = listener.local_addr().unwrap();
        let port = addr.port();
        let dial = park_on(TcpStream::connect(("localhost", port)));
        assert!(dial.is_ok(), "{dial:?}");
        assert_eq!(addr.to_socket_addrs().unwrap().count(), 1);
    },
    || {
        let (client, server) = park_on(pair());
        let reader = task::spawn(async move { server.read(&mut [0; 8]).await });
        park_on(task::sleep(5 * MS));
        park_on(client.write_all(b"late")).unwrap();
        assert_eq!(park_on(reader).unwrap(), 4);
    },
];

fn start_with_workers(workers: usize) {
    rt::Builder::new().workers(workers).start().unwrap();
}

/// Regression: if the system refused the thread for the first use, the runtime did not try again to
/// start it.
#[test]
fn refused_thread_is_started_later() {
    child("refused_thread_is_started_later", || {
        for count in [1, 2, 7] {
            for use_it in USES.into_iter().chain(SOCKETS) {
                start_with_workers(2);
                refuse(count);
                use_it();
                eventually("a thread is started after the refusals", || {
                    refused() == count && rt::metrics().worker_threads + rt::metrics().blocking_threads > 0
                });
                rt::shutdown(LONG).unwrap();
            }
        }
    });
}

/// The runtime has not been started, so the first use starts it.
#[test]
fn refused_first_thread_is_started_later() {
    child("refused_first_thread_is_started_later", || {
        for count in [1, 2, 5] {
            for use_it in USES.into_iter().chain(SOCKETS) {
                refuse(count);
                use_it();
                assert_eq!(refused(), count);
                rt::shutdown(LONG).unwrap();
            }
            refuse(count);
            start_with_workers(1);
            // Sysmon runs, so it adds a worker while a task blocks the only one.
            let (begun, begins) = mpsc::channel();
            let (release, held) = mpsc::channel::<()>();
            let blocks = task::spawn(async move {
                begun.send(()).unwrap();
                assert!(held.recv().is_err());
            });
            begins.recv_timeout(LONG).unwrap();
            refuse(count);
            park_on(task::spawn(async move { drop(release) }));
            park_on(blocks);
            rt::shutdown(LONG).unwrap();
        }
    });
}

/// Sysmon does the work of missing workers.
#[test]
fn runtime_works_when_workers_are_refused() {
    child("runtime_works_when_workers_are_refused", || {
        for use_it in USES.into_iter().chain(SOCKETS) {
            start_with_workers(2);
            refuse(ALL);
            use_it();
            use_it();
            // An attempt to start a thread counts as a thread until it is refused.
            eventually("no thread is running", || rt::metrics().worker_threads + rt::metrics().blocking_threads == 0);
            permit();
            let _ = rt::shutdown(LONG);
        }
    });
}

#[test]
fn block_on_runs_everything_when_threads_are_refused() {
    child("block_on_runs_everything_when_threads_are_refused", || {
        for starts in [true, false] {
            for runs_tasks in [true, false] {
                if starts {
                    rt::Builder::new().workers(2).block_on_runs_tasks(runs_tasks).start().unwrap();
                }
                refuse(ALL);
                for _ in 0..2 {
                    task::block_on(async {
                        let (client, server) = pair().await;
                        let server = task::spawn(async move { echo(&server).await });
                        ping(&client, b"hello").await.unwrap();
                        task::sleep(5 * MS).await;
                        assert_eq!(task::spawn_blocking(|| 8).await, 8);
                        let addr = ("localhost", client.peer_addr().unwrap().port());
                        drop(TcpStream::connect(addr).await);
                        drop(client);
                        server.await.unwrap();
                    });
                }
                permit();
                rt::shutdown(LONG).unwrap();
            }
        }
    });
}

#[test]
fn start_that_fails_leaves_no_inspect_socket() {
    child("start_that_fails_leaves_no_inspect_socket", || {
        let folder = common::Folder::new();
        let path = folder.join("socket");
        // The thread of the inspection server is created, and the thread of sysmon is refused.
        PERMITTED.store(1, Ordering::SeqCst);
        refuse(ALL);
        let error = rt::Builder::new().inspect_socket(&path).start().unwrap_err();
        assert!(error.to_string().contains("cannot start a thread") && refused() > 0, "{error}");
        assert!(!path.exists());
        permit();
        rt::Builder::new().inspect_socket(&path).start().unwrap();
        assert!(path.exists());
    });
}

/// Regression: the settings of the failed start stayed in effect until the next one.
#[test]
fn start_that_fails_leaves_the_settings_as_they_were() {
    child("start_that_fails_leaves_the_settings_as_they_were", || {
        for had_run in [false, true] {
            let before = rt::metrics().workers;
            refuse(ALL);
            rt::Builder::new().workers(before + 3).start().unwrap_err();
            assert_eq!(rt::metrics().workers, before);
            permit();
            if !had_run {
                rt::Builder::new().workers(before + 1).start().unwrap();
                assert_eq!(rt::metrics().workers, before + 1);
                rt::shutdown(LONG).unwrap();
            }
        }
    });
}

#[test]
fn callers_do_the_work_without_threads() {
    child("callers_do_the_work_without_threads", || {
        refuse(ALL);
        let error = rt::Builder::new().start().unwrap_err();
        assert!(error.to_string().contains("cannot start a thread"), "{error}");
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock);
        for (number, use_it) in USES.into_iter().enumerate() {
            if number != WAITS_FOR_CALLER {
                use_it();
            }
        }
        // An operation on a socket fails if it would have to wait.
        let (client, server) = task::block_on(pair());
        let error = park_on(client.read(&mut [0; 1])).unwrap_err();
        assert!(error.to_string().contains("cannot start a thread"), "{error}");
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock);
        // A task can still be spawned.
        assert_eq!(task::spawn(async {}).task().name(), None);
        permit();
        // From here on everything works as usual.
        let echo = task::spawn(async move { echo(&server).await });
        park_on(ping(&client, b"hello")).unwrap();
        drop(client);
        park_on(echo).unwrap();
        assert!(rt::metrics().worker_threads > 0);
        rt::shutdown(LONG).unwrap();
    });
}

/// The first use outside `block_on` ends the deferral of threads, but the system refuses them.
#[test]
fn deferred_threads_are_refused() {
    child("deferred_threads_are_refused", || {
        let defer = || rt::Builder::new().single_threaded(true).start().unwrap();
        for count in [1, 2, ALL] {
            for (number, use_it) in USES.into_iter().enumerate() {
                // With this setting, a task that no future waits for runs only while a thread is in
                // `block_on`.
                if number != WAITS_UNPOLLED && (number != WAITS_FOR_CALLER || count != ALL) {
                    defer();
                    refuse(count);
                    use_it();
                    permit();
                    rt::shutdown(LONG).unwrap();
                }
            }
            // Regression: the first wait of a socket failed, although the next attempt to start a
            // thread would have succeeded.
            for use_it in SOCKETS.into_iter().filter(|_| count != ALL) {
                defer();
                refuse(count);
                use_it();
                permit();
                rt::shutdown(LONG).unwrap();
            }
            // The socket is registered in `block_on` and waits outside.
            defer();
            let (one, other) = task::block_on(pair());
            assert!(task::block_on(async { common::poll_once(&mut one.read(&mut [0; 1])).await.is_pending() }));
            refuse(count);
            let writer = task::spawn(async move {
                task::sleep(5 * MS).await;
                other.write_all(b"late").await.unwrap();
                other
            });
            assert_eq!(park_on(one.read(&mut [0; 8])).unwrap(), 4);
            let _other = park_on(writer);
            one.set_read_deadline(Instant::now() + 20 * MS).unwrap();
            assert!(is_timeout(&park_on(one.read(&mut [0; 1])).unwrap_err()));
            permit();
            rt::shutdown(LONG).unwrap();
            // Regression: the blocking call became a task, which blocked the only thread that runs
            // timers.
            if count != ALL {
                defer();
                refuse(count);
                task::block_on(task::spawn_blocking(|| park_on(task::sleep(5 * MS))));
                permit();
                rt::shutdown(LONG).unwrap();
            }
            // A nested `block_on` tries again to start a thread.
            if count != ALL {
                defer();
                refuse(count);
                assert_eq!(task::block_on(async { task::block_on(task::spawn(async { 7 })) }), 7);
                permit();
                rt::shutdown(LONG).unwrap();
            }
        }
    });
}

/// No external event occurs, so only a further attempt of the runtime starts the refused thread.
#[test]
fn threads_start_when_refusals_end() {
    child("threads_start_when_refusals_end", || {
        for is_first_use in [false, true] {
            if !is_first_use {
                start_with_workers(2);
            }
            refuse(ALL);
            let turns = Arc::new(AtomicU64::new(0));
            let ends = Arc::new(AtomicBool::new(false));
            let ticks = task::spawn({
                let (turns, ends) = (turns.clone(), ends.clone());
                async move {
                    while !ends.load(Ordering::SeqCst) {
                        task::sleep(MS).await;
                        turns.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            let refusals = refused();
            let waits = || {
                if is_first_use {
                    // The runtime has no thread, so the calling thread does its work.
                    park_on(task::sleep(MS));
                }
            };
            eventually("the task runs without a worker thread, and a further thread is refused", || {
                waits();
                turns.load(Ordering::SeqCst) > 20 && refused() > refusals
            });
            eventually("no worker is running", || rt::metrics().worker_threads == 0);
            permit();
            eventually("a worker is started", || {
                waits();
                rt::metrics().worker_threads > 0
            });
            let now = turns.load(Ordering::SeqCst);
            eventually("the task continues to run", || turns.load(Ordering::SeqCst) > now + 20);
            ends.store(true, Ordering::SeqCst);
            park_on(ticks);
            rt::shutdown(LONG).unwrap();
        }
    });
}

/// Regression: a call for which a thread had been started was run as a task if the thread was late,
/// and blocked the only thread that runs tasks.
#[test]
fn call_is_left_to_the_thread_that_was_started_for_it() {
    child("call_is_left_to_the_thread_that_was_started_for_it", || {
        start_with_workers(2);
        HELD.store(true, Ordering::SeqCst);
        let (release, held) = mpsc::channel::<()>();
        let kept = task::spawn_blocking(move || assert!(held.recv().is_err()));
        assert_eq!(rt::metrics().blocking_threads, 1);
        refuse(ALL);
        let calls: Vec<_> = (0..20).map(|n| task::spawn_blocking(move || n)).collect();
        assert_eq!(calls.into_iter().map(park_on).sum::<i32>(), 190);
        permit();
        HELD.store(false, Ordering::SeqCst);
        drop(release);
        park_on(kept);
        rt::shutdown(LONG).unwrap();
    });
}

#[test]
fn refused_blocking_threads_do_not_stall_calls() {
    child("refused_blocking_threads_do_not_stall_calls", || {
        start_with_workers(2);
        // The only thread for blocking calls is blocked, and the next threads are refused.
        let (release, held) = mpsc::channel::<()>();
        let kept = task::spawn_blocking(move || assert!(held.recv().is_err()));
        eventually("the thread is started", || rt::metrics().blocking_threads == 1);
        refuse(3);
        assert_eq!(park_on(task::spawn_blocking(|| 1)), 1);
        permit();
        drop(release);
        park_on(kept);
        rt::shutdown(LONG).unwrap();
        // If threads are refused permanently, sysmon queues the calls as tasks.
        start_with_workers(2);
        let (release, held) = mpsc::channel::<()>();
        let kept = task::spawn_blocking(move || assert!(held.recv().is_err()));
        eventually("the thread is started", || rt::metrics().blocking_threads == 1);
        refuse(ALL);
        let calls: Vec<_> = (0..20).map(|n| task::spawn_blocking(move || n)).collect();
        assert_eq!(calls.into_iter().map(park_on).sum::<i32>(), 190);
        permit();
        drop(release);
        park_on(kept);
        rt::shutdown(LONG).unwrap();
    });
}

#[test]
fn spare_workers_start_when_refusals_end() {
    child("spare_workers_start_when_refusals_end", || {
        start_with_workers(1);
        park_on(task::spawn(async {}));
        refuse(10);
        let (send, receive) = mpsc::channel();
        // Each of the five tasks blocks its worker. The first waits for the task that is spawned
        // last, and the others wait for the task before them.
        let mut receive = receive;
        let mut tasks = Vec::new();
        for _ in 0..5 {
            let (next, receives) = mpsc::channel();
            tasks.push(task::spawn(async move { next.send(receive.recv_timeout(LONG).unwrap()).unwrap() }));
            receive = receives;
        }
        park_on(task::spawn(async move { send.send(11).unwrap() }));
        assert_eq!(receive.recv_timeout(LONG), Ok(11));
        tasks.into_iter().for_each(park_on);
        assert!(refused() > 0);
        permit();
        rt::shutdown(LONG).unwrap();
    });
}

/// A root future holds a lock across an await, and there is no worker for a task that needs the
/// lock. Sysmon runs the task and blocks. The root future and its timers proceed.
#[test]
#[allow(clippy::await_holding_lock)]
fn root_future_depends_on_no_task_when_workers_are_refused() {
    child("root_future_depends_on_no_task_when_workers_are_refused", || {
        start_with_workers(2);
        refuse(ALL);
        let lock = Arc::new(Mutex::new(0));
        task::block_on(async {
            for round in 1..=2 {
                let guard = lock.lock().unwrap();
                let shared = lock.clone();
                let taker = task::spawn(async move {
                    let mut count = shared.lock().unwrap();
                    *count += 1;
                    *count
                });
                for _ in 0..5 {
                    task::sleep(100 * MS).await;
                }
                drop(guard);
                assert_eq!(taker.await, round);
            }
        });
        permit();
        rt::shutdown(LONG).unwrap();
    });
}

/// If no thread can be started to run destructors, the calling thread runs them.
#[test]
fn shutdown_completes_when_threads_are_refused() {
    child("shutdown_completes_when_threads_are_refused", || {
        struct Sleeps(Arc<AtomicUsize>);
        impl Drop for Sleeps {
            fn drop(&mut self) {
                task::block_on(task::sleep(MS));
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        for round in 1..=3 {
            if round != 2 {
                start_with_workers(2);
            }
            for _ in 0..10 {
                let sleeps = Sleeps(dropped.clone());
                drop(task::spawn(async move {
                    let _sleeps = sleeps;
                    task::sleep(LONG).await;
                }));
            }
            if round == 2 {
                park_on(task::spawn(async {}));
            }
            refuse(ALL);
            rt::shutdown(LONG).unwrap();
            permit();
            assert_eq!(dropped.load(Ordering::SeqCst), 10 * round);
        }
    });
}

/// Regression: the destructor of a task waited for the end of another task, which the same thread
/// would have dropped later.
#[test]
fn destructor_may_wait_for_another_task_without_threads() {
    child("destructor_may_wait_for_another_task_without_threads", || {
        type Handle = Arc<Mutex<Option<task::JoinHandle<()>>>>;
        struct Cancels(Handle, Arc<AtomicUsize>);
        impl Drop for Cancels {
            fn drop(&mut self) {
                let other = self.0.lock().unwrap().take();
                task::block_on(other.unwrap().cancel());
                self.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        start_with_workers(1);
        let ended = Arc::new(AtomicUsize::new(0));
        // In one of the two orders, the shutdown drops the task that cancels before the other task.
        for is_first in [true, false] {
            let other = Handle::default();
            let spawn_other = || *other.lock().unwrap() = Some(task::spawn(task::sleep(LONG)));
            if !is_first {
                spawn_other();
            }
            let cancels = Cancels(other.clone(), ended.clone());
            drop(task::spawn(async move {
                let _cancels = cancels;
                task::sleep(LONG).await;
            }));
            if is_first {
                spawn_other();
            }
        }
        eventually("the tasks sleep", || rt::metrics().timer_entries >= 4);
        refuse(ALL);
        rt::shutdown(LONG).unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), 2);
        permit();
    });
}

/// If no thread can be started, the shutdown runs destructors on the calling thread. If such a
/// destructor calls `shutdown`, that call returns an error and does not wait.
#[test]
fn shutdown_in_a_destructor_is_rejected_without_threads() {
    child("shutdown_in_a_destructor_is_rejected_without_threads", || {
        struct Stops(mpsc::Sender<bool>);
        impl Drop for Stops {
            fn drop(&mut self) {
                let refused = rt::shutdown(Duration::MAX).unwrap_err();
                self.0.send(refused.on_runtime_thread).unwrap();
            }
        }
        start_with_workers(1);
        let (send, receive) = mpsc::channel();
        let sleeper = task::spawn(async move {
            let _stops = Stops(send);
            task::sleep(LONG).await;
        });
        eventually("the worker sleeps", || rt::metrics().polls > 0 && rt::metrics().timer_entries > 0);
        refuse(ALL);
        rt::shutdown(LONG).unwrap();
        assert_eq!(receive.recv_timeout(LONG), Ok(true));
        assert!(refused() > 0);
        drop(sleeper);
    });
}

/// Sysmon calls wakers itself if no thread can be started. Here, the waker waits on sysmon's thread
/// for tasks that need a further worker, and the system refuses the replacement of sysmon.
#[test]
fn waker_may_call_block_on_when_a_second_sysmon_is_refused() {
    struct Waits(usize, mpsc::Sender<bool>);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            refuse(self.0);
            task::block_on(task::spawn(async {
                let (sender, receiver) = mpsc::channel();
                drop(task::spawn(async move { sender.send(7).unwrap() }));
                assert_eq!(receiver.recv(), Ok(7));
            }));
            permit();
            self.1.send(std::thread::current().name() == Some("netpoll-sysmon")).unwrap();
        }
    }
    child("waker_may_call_block_on_when_a_second_sysmon_is_refused", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (sender, called) = mpsc::channel();
        let round = |count| {
            let waker = Waker::from(Arc::new(Waits(count, sender.clone())));
            let (client, server) = park_on(pair());
            let mut buf = [0; 1];
            let mut read = std::pin::pin!(server.read(&mut buf));
            assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let (begun, begins) = mpsc::channel();
            let (release, wait) = mpsc::channel::<()>();
            let blocked = task::spawn(async move {
                begun.send(()).unwrap();
                assert!(wait.recv().is_err());
            });
            begins.recv_timeout(LONG).unwrap();
            refuse(ALL);
            park_on(client.write_all(b"x")).unwrap();
            let was_sysmon = called.recv_timeout(LONG).unwrap();
            drop(release);
            park_on(blocked);
            assert_eq!(park_on(read).unwrap(), 1);
            was_sysmon
        };
        for count in [1, 2, 12, 100] {
            // A spare worker of the previous round may call the waker instead.
            eventually("sysmon calls the waker", || round(count));
        }
        rt::shutdown(LONG).unwrap();
    });
}

/// A waker that blocks the thread of sysmon once, until the sender of `open` is dropped or [`LONG`]
/// has passed.
struct BlocksSysmon {
    entered: AtomicBool,
    open: Mutex<mpsc::Receiver<()>>,
}

impl Wake for BlocksSysmon {
    fn wake(self: Arc<Self>) {
        if std::thread::current().name() == Some("netpoll-sysmon") && !self.entered.swap(true, Ordering::SeqCst) {
            let _ = self.open.lock().unwrap().recv_timeout(LONG);
        }
    }
}

#[test]
fn long_sleeps_are_idle_and_end_while_sysmon_is_blocked() {
    child("long_sleeps_are_idle_and_end_while_sysmon_is_blocked", || {
        const SLEEP: Duration = Duration::from_secs(6);
        rt::Builder::new().workers(2).spare_workers(0).start().unwrap();
        // While both workers are blocked, sysmon runs the timers, and calls their wakers if no
        // thread can be started.
        let (ran, runs) = mpsc::channel();
        let (ends, blockers): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (end, blocked) = mpsc::channel::<()>();
                let ran = ran.clone();
                (end, task::spawn(async move { (ran.send(()), blocked.recv_timeout(LONG)) }))
            })
            .unzip();
        for _ in 0..2 {
            runs.recv_timeout(LONG).unwrap();
        }
        let (release, open) = mpsc::channel();
        let gate = Arc::new(BlocksSysmon { entered: AtomicBool::new(false), open: Mutex::new(open) });
        let waker = Waker::from(gate.clone());
        refuse(ALL);
        let mut sleeps = Vec::new();
        eventually("sysmon is in the waker", || {
            let mut sleep = Box::pin(time::Sleep::new(Duration::from_millis(1)));
            let _ = sleep.as_mut().poll(&mut Context::from_waker(&waker));
            sleeps.push(sleep);
            gate.entered.load(Ordering::SeqCst)
        });
        permit();
        drop(ends);
        for blocker in blockers {
            let (sent, _) = park_on(blocker);
            sent.unwrap();
        }
        drop(sleeps);
        let (one, _other) = park_on(pair());
        let (start, cpu) = (Instant::now(), cpu_time());
        // Moves the deadline to a later time, as a server does before each read.
        one.set_read_deadline(start + SLEEP - Duration::from_millis(1)).unwrap();
        one.set_read_deadline(start + SLEEP).unwrap();
        let read = task::spawn(async move { one.read(&mut [0; 1]).await.unwrap_err() });
        park_on(task::sleep(SLEEP));
        assert!(start.elapsed() >= SLEEP);
        let error = park_on(read);
        assert!(netpoll::net::is_timeout(&error), "{error}");
        let used = cpu_time() - cpu;
        assert!(used < SLEEP / 4, "{used:?} of CPU time in {:?}", start.elapsed());
        drop(release);
    });
}
