//! Exhausted resources: descriptors, memory for threads, queued operations. Also extreme time
//! values and a reset with many waiting reads.

mod common;

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Watchdog, becomes, by_hand::Wakes, child, cpu_time, eventually, exhaust_descriptors, fill, listener, op_error,
    pair, park_on, poll_once, poll_with, run, set_nofile,
};
use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout, raw_os_error};
use netpoll::prelude::*;
use netpoll::rt::{self, TaskState};
use netpoll::task;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Returns a listener with `count` connections in its queue, and their clients.
async fn with_clients(count: usize) -> (TcpListener, Vec<TcpStream>) {
    let listener = listener().await;
    let addr = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(TcpStream::connect(addr).await.unwrap());
    }
    (listener, clients)
}

/// Runs `test` in a child process that may have 64 descriptors. `name` is the calling test's name.
#[track_caller]
fn with_few_descriptors(name: &str, test: impl Future<Output = ()>) {
    child(name, || {
        set_nofile(64);
        run(test);
    });
}

#[test]
fn accept_returns_emfile_and_keeps_the_connection() {
    with_few_descriptors("accept_returns_emfile_and_keeps_the_connection", async {
        let (listener, clients) = with_clients(1).await;
        common::warm_up().await;
        let held = exhaust_descriptors();
        for _ in 0..5 {
            let error = listener.accept().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
        }
        drop(held);
        // The connection has stayed in the queue and causes no further edge, so this accept must
        // make its call without one.
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, clients[0].local_addr().unwrap());
    });
}

#[test]
fn accept_that_waited_returns_emfile() {
    with_few_descriptors("accept_that_waited_returns_emfile", async {
        let listener = listener().await;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let mut accept = listener.accept();
        assert!(poll_once(&mut accept).await.is_pending());
        let held = exhaust_descriptors();
        socket.connect(&listener.local_addr().unwrap().into()).unwrap();
        assert_eq!(accept.await.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        drop(held);
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(Some(peer), socket.local_addr().unwrap().as_socket());
    });
}

#[test]
fn incoming_waits_for_descriptors_without_spinning() {
    with_few_descriptors("incoming_waits_for_descriptors_without_spinning", async {
        let (listener, clients) = with_clients(3).await;
        common::warm_up().await;
        let mut held = exhaust_descriptors();
        let mut incoming = listener.incoming();
        let polled = poll_once(&mut incoming.next()).await;
        assert!(polled.is_pending(), "the accept waits instead of failing");
        let before = cpu_time();
        let polled = netpoll::future::timeout(Duration::from_millis(500), incoming.next()).await;
        assert!(polled.is_err());
        let used = cpu_time() - before;
        assert!(used < Duration::from_millis(100), "{used:?} of CPU time in half a second");
        // After other code has freed a descriptor, the accept at the end of the pause succeeds.
        held.pop();
        let first = incoming.next().await.unwrap().unwrap();
        assert_eq!(first.peer_addr().unwrap(), clients[0].local_addr().unwrap());
        let mut kept = Vec::new();
        // Again, no descriptor is free. Closing a socket of this crate ends a pause immediately,
        // every time.
        for n in 1..3 {
            // Waits until the pauses are long.
            let waited = netpoll::future::timeout(Duration::from_millis(700), incoming.next()).await;
            assert!(waited.is_err());
            let (wakes, waker) = Wakes::new();
            let mut next = incoming.next();
            assert!(poll_with(&mut next, &waker).is_pending());
            let closing = if n == 1 { clients[0].clone() } else { first.clone() };
            closing.force_close().await.unwrap();
            assert!(wakes.count() > 0, "woken by the close, not by the end of the pause");
            let stream = next.await.unwrap().unwrap();
            assert_eq!(stream.peer_addr().unwrap(), clients[n].local_addr().unwrap());
            kept.push(stream);
        }
    });
}

#[test]
fn close_ends_incoming_during_backoff() {
    with_few_descriptors("close_ends_incoming_during_backoff", async {
        let (listener, _clients) = with_clients(1).await;
        let listener = Arc::new(listener);
        common::warm_up().await;
        let _held = exhaust_descriptors();
        let server = task::spawn({
            let listener = listener.clone();
            async move {
                let mut incoming = listener.incoming();
                let mut results = Vec::new();
                while let Some(stream) = incoming.next().await {
                    results.push(stream.map(drop));
                }
                results
            }
        });
        let id = server.task().id();
        becomes("the server waits", || {
            rt::inspect().task(id).is_some_and(|task| task.polls() > 0 && task.state() == TaskState::Waiting)
        })
        .await;
        listener.close().await.unwrap();
        let results = server.await;
        assert_eq!(results.len(), 1);
        assert!(is_closed(results[0].as_ref().unwrap_err()));
    });
}

/// Regression: the stream noticed a deadline only at the end of its pause, which lasts up to a
/// second.
#[test]
fn deadline_ends_incoming_during_backoff() {
    with_few_descriptors("deadline_ends_incoming_during_backoff", async {
        let (listener, clients) = with_clients(1).await;
        common::warm_up().await;
        let held = exhaust_descriptors();
        let mut incoming = listener.incoming();
        // Waits until the pauses are long.
        assert!(netpoll::future::timeout(Duration::from_millis(700), incoming.next()).await.is_err());
        let (wakes, waker) = Wakes::new();
        let mut next = incoming.next();
        assert!(poll_with(&mut next, &waker).is_pending());
        listener.set_deadline(Instant::now() - Duration::from_secs(1)).unwrap();
        assert!(wakes.count() > 0, "woken by the deadline, not by the end of the pause");
        assert!(is_timeout(&next.await.unwrap().unwrap_err()));
        // Without the deadline, the stream goes on.
        listener.set_deadline(None).unwrap();
        assert!(poll_once(&mut incoming.next()).await.is_pending());
        drop(held);
        let stream = incoming.next().await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), clients[0].local_addr().unwrap());
    });
}

/// Without a free descriptor, accept4(2) fails with EMFILE even if the listener was shut down, so
/// the stream has to detect the shutdown in another way.
#[test]
fn shutdown_of_the_listener_ends_incoming_during_backoff() {
    with_few_descriptors("shutdown_of_the_listener_ends_incoming_during_backoff", async {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = socket.try_clone().unwrap();
        let listener = TcpListener::from(socket);
        common::warm_up().await;
        let _held = exhaust_descriptors();
        let mut incoming = listener.incoming();
        assert!(poll_once(&mut incoming.next()).await.is_pending());
        socket2::SockRef::from(&other).shutdown(std::net::Shutdown::Read).unwrap();
        let error = incoming.next().await.unwrap().unwrap_err();
        assert_eq!(raw_os_error(&error), Some(libc::EINVAL), "{error}");
    });
}

#[test]
fn operations_without_descriptors_report_emfile() {
    with_few_descriptors("operations_without_descriptors_report_emfile", async {
        let (listener, clients) = with_clients(1).await;
        let addr = listener.local_addr().unwrap();
        let (server, _) = listener.accept().await.unwrap();
        common::warm_up().await;
        let held = exhaust_descriptors();
        let error = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(raw_os_error(&error), Some(libc::EMFILE), "{error}");
        assert!(error.to_string().starts_with(&format!("dial tcp {addr}: ")), "{error}");
        let error = TcpListener::bind("127.0.0.1:0").await.unwrap_err();
        assert_eq!(raw_os_error(&error), Some(libc::EMFILE), "{error}");
        // Open sockets work.
        clients[0].write_all(b"x").await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 1);
        drop(held);
        TcpStream::connect(addr).await.unwrap();
    });
}

/// The poller itself needs descriptors. If no descriptors are free, an operation that has to wait
/// fails. When they are free again, the next attempt succeeds.
#[test]
fn missing_poller_descriptors_are_reported() {
    child("missing_poller_descriptors_are_reported", || {
        set_nofile(64);
        // Runs under another executor, so that no epoll instance exists yet.
        park_on(async {
            let (client, server) = {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (TcpStream::from(client), TcpStream::from(listener.accept().unwrap().0))
            };
            let held = exhaust_descriptors();
            let error = server.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
            // Sleeps need no descriptor.
            task::sleep(Duration::from_millis(5)).await;
            assert_eq!(task::spawn(async { 1 }).await, 1);
            drop(held);
            let mut buf = [0; 1];
            let mut read = server.read(&mut buf);
            assert!(poll_once(&mut read).await.is_pending());
            client.write_all(b"x").await.unwrap();
            assert_eq!(read.await.unwrap(), 1);
        });
    });
}

/// Returns whether all other threads of this process sleep.
fn other_threads_sleep() -> bool {
    let sleeps = |stat: &str| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'));
    common::of_other_threads("stat").all(|stat| sleeps(&stat))
}

/// If no thread can be started, tasks and blocking calls still end. When threads can be started
/// again, they run the tasks and calls.
#[test]
fn tasks_and_calls_end_without_memory_for_threads() {
    child("tasks_and_calls_end_without_memory_for_threads", || {
        rt::Builder::new().workers(2).start().unwrap();
        // std ends the process if a thread that begins cannot allocate its signal stack.
        eventually("all other threads have begun, and sleep", other_threads_sleep);
        // Leaves less memory than the stack of a thread takes.
        let maximum = getrlimit(Resource::As).maximum;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix(" kB")).unwrap();
        let size = size.trim().parse::<u64>().unwrap() << 10;
        let limit = |current| setrlimit(Resource::As, Rlimit { current, maximum }).unwrap();
        limit(Some(size + (1 << 20)));
        if thread::Builder::new().spawn(|| {}).is_ok() {
            println!("skipped: a thread can be started within 1 MiB");
            return;
        }
        let own = thread::current().id();
        for is_over in [false, true] {
            if is_over {
                limit(maximum);
            }
            let call = task::spawn_blocking(|| thread::current().id());
            let tasks: Vec<_> = (0..3).map(|number| task::spawn(async move { number })).collect();
            park_on(async {
                assert_ne!(call.await, own, "a call runs on another thread, because it may wait for its caller");
                for (task, number) in tasks.into_iter().zip(0..) {
                    assert_eq!(task.await, number);
                }
            });
        }
        assert!((1..=2).contains(&rt::metrics().worker_threads), "{:?}", rt::metrics());
    });
}

/// Invariant 13. Each queue accepts about 2^20 operations, and the next operation fails. After
/// these operations are dropped, the socket works.
#[test]
fn queued_operations_are_bounded() {
    const MOST: usize = 1 << 20;

    fn too_many(error: &std::io::Error) {
        let op = op_error(error);
        assert_eq!((error.kind(), op.network()), (ErrorKind::ResourceBusy, "tcp"));
        assert!(error.to_string().ends_with("too many concurrent operations on a single file or socket"), "{error}");
    }

    /// Polls futures until one fails with "too many". Returns those that wait.
    fn queue<F: Future<Output = std::io::Result<T>> + Unpin, T>(mut make: impl FnMut() -> F) -> Vec<F> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        loop {
            let mut future = make();
            match Pin::new(&mut future).poll(&mut cx) {
                Poll::Pending => waiting.push(future),
                Poll::Ready(Err(error)) => {
                    too_many(&error);
                    return waiting;
                }
                Poll::Ready(Ok(_)) => panic!("an operation that has to wait completed"),
            }
            assert!(waiting.len() < 2 * MOST, "no limit of {}", std::any::type_name::<F>());
        }
    }

    // A poll with a no-op waker is never deferred for fairness, so each pending operation in a
    // queue waits.
    let _watchdog = Watchdog::new();
    park_on(async {
        let bounds = MOST - 1..=MOST + MOST / 100;
        let (client, server) = pair().await;
        // Writers that wait behind an operation that holds the write lock.
        fill(&client).await;
        let mut first = client.write_all(b"first");
        assert!(poll_once(&mut first).await.is_pending());
        let writers = queue(|| client.write_all(b"x"));
        assert!(bounds.contains(&writers.len()), "{}", writers.len());
        drop((writers, first));
        // Readers that wait for an edge.
        let readers = queue(|| client.readable());
        assert!(bounds.contains(&readers.len()), "{}", readers.len());
        drop(readers);
        // The socket still works.
        let mut buf = vec![0; 1 << 16];
        assert!(server.read(&mut buf).await.unwrap() > 0);
        server.write_all(b"x").await.unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 1);
    });
}

#[test]
fn extreme_deadlines_and_durations_do_not_overflow() {
    run(async {
        let (client, server) = pair().await;
        let now = Instant::now();
        // `far` becomes the last instant that can be represented.
        let mut far = now;
        for shift in (0..63).rev() {
            far = far.checked_add(Duration::from_secs(1 << shift)).unwrap_or(far);
        }
        for late in [far, now + Duration::from_secs(u32::MAX.into())] {
            client.set_deadline(late).unwrap();
            let mut buf = [0; 1];
            let mut read = client.read(&mut buf);
            assert!(poll_once(&mut read).await.is_pending());
            server.write_all(b"x").await.unwrap();
            assert_eq!(read.await.unwrap(), 1);
            client.write_all(b"y").await.unwrap();
        }
        // `early` becomes the first instant that can be represented.
        let mut early = now;
        for shift in (0..63).rev() {
            early = early.checked_sub(Duration::from_secs(1 << shift)).unwrap_or(early);
        }
        for past in [early, now, now - Duration::from_nanos(1)] {
            client.set_deadline(past).unwrap();
            assert!(is_timeout(&client.read(&mut [0; 1]).await.unwrap_err()));
            assert!(is_timeout(&client.write(b"x").await.unwrap_err()));
        }
        client.set_deadline(None).unwrap();
        client.write_all(b"z").await.unwrap();
        for timeout in [Duration::MAX, Duration::from_nanos(u64::MAX)] {
            client.set_read_timeout(Some(timeout)).unwrap();
            let mut buf = [0; 1];
            let mut read = client.read(&mut buf);
            assert!(poll_once(&mut read).await.is_pending());
            server.write_all(b"x").await.unwrap();
            assert_eq!(read.await.unwrap(), 1);
        }
        assert_eq!(client.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        // Sleeps accept the same extreme times.
        let mut never = Box::pin(task::sleep(Duration::MAX));
        assert!(poll_once(&mut never).await.is_pending());
        task::sleep(Duration::ZERO).await;
        netpoll::time::Sleep::until(early).await;
        assert_eq!(netpoll::time::Sleep::new(Duration::MAX).deadline(), None);
    });
}

#[test]
fn peer_reset_ends_all_waiting_reads() {
    run(async {
        let (client, server) = pair().await;
        let server = Arc::new(server);
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let server = server.clone();
                task::spawn(async move { server.read(&mut [0; 1]).await })
            })
            .collect();
        let ids: Vec<_> = waiting.iter().map(|read| read.task().id()).collect();
        becomes("all reads wait", || {
            let snapshot = rt::inspect();
            ids.iter().all(|&id| snapshot.task(id).is_some_and(|task| task.waits_for().is_some()))
        })
        .await;
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let results: Vec<_> = futures::future::join_all(waiting).await;
        // The kernel reports the error once, so one operation returns it. The others see the end of
        // the stream.
        let resets = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(resets, 1, "{results:?}");
        let error = results.into_iter().find_map(Result::err).unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        assert_eq!(server.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(server.take_error().unwrap().is_none());
    });
}
