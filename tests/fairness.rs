//! Turns of tasks: a task whose operations are always ready ends its turn, and a task with long
//! turns completes its operations. A task that uses up its turns does not starve the tasks that are
//! woken by events, and they do not starve it.
//!
//! Most tests of long turns and of loops cover many kinds of operations, in tasks, in the future of
//! `block_on` or under another executor.

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use black_hole::refusing;
use common::{Watchdog, child, pair, park_on};
use futures::task::LocalSpawnExt;
use netpoll::io::{AsyncFd, ReadExt, WriteExt};
use netpoll::net::{self, TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use netpoll::prelude::*;
use netpoll::time::Sleep;
use netpoll::{future, rt, stream, task};

type Operations = Vec<(&'static str, Pin<Box<dyn Future<Output = ()> + Send>>)>;

const ANY: &str = "127.0.0.1:0";

/// Returns a connection whose first side has `bytes` bytes to read.
async fn filled(bytes: usize) -> (TcpStream, TcpStream) {
    let (one, other) = pair().await;
    other.write_all(&vec![7; bytes]).await.unwrap();
    let mut peeked = vec![0; bytes];
    while one.peek(&mut peeked).await.unwrap() < bytes {}
    (one, other)
}

// ---- long turns ----

/// Polls `operation` until it completes. Before each poll, blocks the thread for at least two
/// checks of sysmon, so that sysmon finds the task stuck. Returns the number of polls.
async fn turns(operation: impl Future<Output = ()>) -> usize {
    let mut operation = pin!(operation);
    let mut polls = 0;
    poll_fn(|cx| {
        std::thread::sleep(Duration::from_millis(25));
        polls += 1;
        operation.as_mut().poll(cx)
    })
    .await;
    polls
}

/// Returns operations of many kinds. Each completes without input from outside. A few wait briefly
/// for the kernel or another thread.
async fn ready_operations() -> Operations {
    let mut all: Operations = Vec::new();
    let mut add = |name, operation: Pin<Box<dyn Future<Output = ()> + Send>>| all.push((name, operation));
    let (one, other) = filled(4).await;
    add(
        "TCP read",
        Box::pin(async move {
            assert_eq!(one.read(&mut [0; 4]).await.unwrap(), 4);
            drop(other)
        }),
    );
    let (one, other) = filled(4).await;
    add(
        "TCP read by the traits",
        Box::pin(async move {
            let count = ReadExt::read(&mut &one, &mut [0; 4]).await.unwrap();
            assert_eq!(count, 4);
            drop(other)
        }),
    );
    let (one, other) = pair().await;
    add(
        "TCP write",
        Box::pin(async move {
            one.write_all(b"some").await.unwrap();
            drop(other)
        }),
    );
    let (one, other) = filled(4).await;
    add(
        "TCP readable",
        Box::pin(async move {
            one.readable().await.unwrap();
            drop(other)
        }),
    );
    let listener = TcpListener::bind(ANY).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    add(
        "accept",
        Box::pin(async move {
            drop(listener.accept().await.unwrap());
            drop(client)
        }),
    );
    let listener = TcpListener::bind(ANY).await.unwrap();
    add(
        "connect",
        Box::pin(async move {
            drop(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        }),
    );
    let socket = UdpSocket::bind(ANY).await.unwrap();
    add(
        "UDP",
        Box::pin(async move {
            let addr = socket.local_addr().unwrap();
            assert_eq!(socket.send_to(b"some", addr).await.unwrap(), 4);
            assert_eq!(socket.recv_from(&mut [0; 8]).await.unwrap(), (4, addr));
        }),
    );
    let (one, other) = UnixStream::pair().unwrap();
    add(
        "Unix stream",
        Box::pin(async move {
            one.write_all(b"some").await.unwrap();
            assert_eq!(other.read(&mut [0; 8]).await.unwrap(), 4);
        }),
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let (reader, writer) = (AsyncFd::new(reader).unwrap(), AsyncFd::new(writer).unwrap());
    add(
        "AsyncFd",
        Box::pin(async move {
            (&writer).write_all(b"some").await.unwrap();
            assert_eq!((&reader).read(&mut [0; 8]).await.unwrap(), 4);
        }),
    );
    let (one, other) = net::pipe().unwrap();
    add(
        "pipe",
        Box::pin(async move {
            let mut buf = [0; 4];
            let (written, read) = futures::join!(one.write(b"some"), other.read(&mut buf));
            assert_eq!((written.unwrap(), read.unwrap()), (4, 4));
        }),
    );
    let ((from, source), (into, sink)) = (filled(4).await, pair().await);
    source.shutdown(std::net::Shutdown::Write).unwrap();
    add(
        "copy",
        Box::pin(async move {
            assert_eq!(netpoll::io::copy(&mut &from, &mut &into).await.unwrap(), 4);
            drop(sink);
        }),
    );
    let (one, other) = UnixDatagram::pair().unwrap();
    add(
        "Unix datagrams",
        Box::pin(async move {
            one.send(b"some").await.unwrap();
            assert_eq!(other.recv_from(&mut [0; 8]).await.unwrap().0, 4);
        }),
    );
    let (one, other) = UnixDatagram::pair().unwrap();
    add(
        "datagrams with descriptors",
        Box::pin(async move {
            one.send_with_fds(b"some", &[std::os::fd::AsFd::as_fd(&one)]).await.unwrap();
            let mut fds = Vec::new();
            assert_eq!(other.recv_with_fds(&mut [0; 8], &mut fds).await.unwrap(), 4);
            assert_eq!(fds.len(), 1);
        }),
    );
    let listener = UnixListener::bind("").await.unwrap();
    add(
        "Unix connect and accept",
        Box::pin(async move {
            let client = UnixStream::connect_addr(&listener.local_addr().unwrap()).await.unwrap();
            drop(listener.accept().await.unwrap());
            drop(client);
        }),
    );
    let (one, other) = filled(4).await;
    other.shutdown(std::net::Shutdown::Write).unwrap();
    add(
        "the end of a stream",
        Box::pin(async move {
            let mut all = Vec::new();
            (&one).read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [7; 4]);
            one.peer_closed().await.unwrap();
        }),
    );
    add(
        "tasks",
        Box::pin(async {
            assert_eq!(task::spawn(async { 7 }).await, 7);
            assert_eq!(task::spawn_blocking(|| 8).await, 8);
        }),
    );
    add(
        "timeout",
        Box::pin(async {
            assert!(future::timeout(Duration::ZERO, pending::<()>()).await.is_err());
            assert!(future::timeout(Duration::from_secs(3600), async {}).await.is_ok());
        }),
    );
    add("interval", Box::pin(async { stream::interval(Duration::from_nanos(1)).take(3).for_each(drop).await }));
    add("sleep", Box::pin(async { task::sleep(Duration::ZERO).await }));
    add("resolve", Box::pin(async { drop(net::resolve(ANY).await.unwrap()) }));
    all
}

/// Each operation completes within a few turns, although every turn is long.
#[test]
fn task_with_long_turns_gets_its_operations_done() {
    child("task_with_long_turns_gets_its_operations_done", || {
        rt::Builder::new().workers(2).start().unwrap();
        task::block_on(async {
            let tasks: Vec<_> = ready_operations()
                .await
                .into_iter()
                .map(|(name, operation)| (name, task::spawn(turns(operation))))
                .collect();
            for (name, task) in tasks {
                let polls = task.await;
                assert!(polls <= 12, "{name} took {polls} turns");
            }
        });
    });
}

/// Performs one operation per turn, without end. The caller polls it first, so that it takes from
/// the budget before other operations do.
async fn greedy(stream: &TcpStream) {
    loop {
        stream.readable().await.unwrap();
        task::yield_now().await;
    }
}

/// Operations that follow a greedy one in a task make progress even if sysmon makes the task yield
/// in every turn.
#[test]
fn operations_behind_a_greedy_one_of_the_same_task_make_progress() {
    child("operations_behind_a_greedy_one_of_the_same_task_make_progress", || {
        rt::Builder::new().workers(2).start().unwrap();
        task::block_on(async {
            let ((hog, _hogs_peer), (first, _firsts_peer), (second, _seconds_peer)) =
                (filled(1).await, filled(8).await, filled(8).await);
            let bytes = |stream: TcpStream| async move {
                for _ in 0..8 {
                    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 1);
                }
            };
            let operation = async move {
                let both = async {
                    futures::join!(bytes(first), future::timeout(Duration::ZERO, pending::<()>()), bytes(second))
                };
                futures::future::select(pin!(greedy(&hog)), pin!(both)).await;
            };
            let polls = task::spawn(turns(operation)).await;
            assert!(polls <= 60, "{polls} turns");
        });
    });
}

// ---- loops ----

/// Returns loops over operations that never wait, one per kind.
async fn loops() -> Operations {
    macro_rules! forever {
        ($all:ident: $($name:literal $step:expr;)*) => {
            $($all.push(($name, Box::pin(async move { loop { let _ = $step.await; } })));)*
        };
    }
    let mut all: Operations = Vec::new();
    let past = Instant::now();
    let (_bound, refused) = refusing();
    let unbound = std::env::temp_dir().join(format!("netpoll-no-socket-{}", std::process::id()));
    let pair_with_deadline = Arc::new(pair().await);
    pair_with_deadline.0.set_read_deadline(past).unwrap();
    let (hung_up, peer) = pair().await;
    drop(peer);
    hung_up.peer_closed().await.unwrap();
    let hung_up = Arc::new(hung_up);
    let udp = Arc::new(UdpSocket::bind(ANY).await.unwrap());
    let (expired, empty, ended) = (pair_with_deadline.clone(), pair_with_deadline, hung_up.clone());
    let datagrams = Arc::new(UnixDatagram::pair().unwrap());
    datagrams.1.send(b"x").await.unwrap();
    let (ready, peeked) = (datagrams.clone(), datagrams);
    let local = UnixListener::bind("").await.unwrap();
    local.set_deadline(past).unwrap();
    let local = Arc::new(local);
    let echo = Arc::new(UdpSocket::bind(ANY).await.unwrap());
    echo.connect(echo.local_addr().unwrap()).await.unwrap();
    let pipe = Arc::new(net::pipe().unwrap());
    pipe.1.close_write().unwrap();
    let closed = pair().await.0;
    closed.force_close().await.unwrap();
    let (named, unnamed) = (UnixDatagram::bind("").await.unwrap(), UnixDatagram::unbound().unwrap());
    forever! { all:
        "a completed close" closed.force_close();
        "a bind of a Unix listener" UnixListener::bind("");
        "a Unix bind that fails" UnixListener::bind("/no/such/folder/socket");
        "a bind of a Unix datagram socket" UnixDatagram::bind("");
        "a connect of a Unix datagram socket" async { unnamed.connect_addr(&named.local_addr().unwrap()).await };
        "connect_timeout(ZERO)" TcpStream::connect_timeout(&refused, Duration::ZERO);
        "connect_timeout(1 ns)" TcpStream::connect_timeout(&refused, Duration::from_nanos(1));
        "a ready datagram" ready.0.readable();
        "a datagram that is only peeked" peeked.0.peek(&mut [0; 1]);
        "an expired Unix accept" local.accept();
        "datagrams of a socket to itself" async {
            echo.send(b"x").await.unwrap();
            echo.recv(&mut [0; 1]).await
        };
        "the end of a pipe" pipe.0.read(&mut [0; 1]);
        "an endless copy" netpoll::io::copy(&mut netpoll::io::repeat(7), &mut netpoll::io::sink());
        "sleep(ZERO)" task::sleep(Duration::ZERO);
        "Sleep::until(past)" Sleep::until(past);
        "sleep(1 ns)" task::sleep(Duration::from_nanos(1));
        "timeout(ZERO, pending())" future::timeout(Duration::ZERO, pending::<()>());
        "FutureExt::timeout" pending::<()>().timeout(Duration::ZERO);
        "FutureExt::delay" async {}.delay(Duration::ZERO);
        "resolve" net::resolve(ANY);
        "resolve an address" net::resolve(SocketAddr::from(([127, 0, 0, 1], 80)));
        "resolve nonsense" net::resolve("nonsense");
        "lookup_host" net::lookup_host("127.0.0.1");
        "lookup_port" net::lookup_port("tcp", "80");
        "bind" TcpListener::bind(ANY);
        "a refused connect" TcpStream::connect(refused);
        "a refused Unix connect" UnixStream::connect(&unbound);
        "an expired deadline" expired.0.read(&mut [0; 1]);
        "an empty read" empty.1.read(&mut []);
        "an empty datagram" udp.recv(&mut []);
        "the end of a TCP stream" ended.read(&mut [0; 1]);
        "peer_closed" hung_up.peer_closed();
    }
    macro_rules! streams {
        ($($name:literal $stream:expr;)*) => {
            $(all.push(($name, Box::pin(async move {
                let mut stream = pin!($stream);
                while let Some(_item) = StreamExt::next(&mut stream).await {}
            })));)*
        };
    }
    streams! {
        "interval(ZERO)" stream::interval(Duration::ZERO);
        "interval(1 ns)" stream::interval(Duration::from_nanos(1));
        "throttle" stream::repeat(1).throttle(Duration::ZERO);
        "timeout" stream::pending::<()>().timeout(Duration::ZERO);
    }
    all.push((
        "an expired sleep",
        Box::pin(async {
            let mut sleep = Sleep::new(Duration::ZERO);
            loop {
                (&mut sleep).await;
            }
        }),
    ));
    all.push((
        "delays of a stream",
        Box::pin(async {
            loop {
                stream::once(1).delay(Duration::ZERO).for_each(drop).await;
            }
        }),
    ));
    all
}

#[test]
fn loop_that_never_waits_can_be_cancelled() {
    child("loop_that_never_waits_can_be_cancelled", || {
        rt::Builder::new().workers(2).start().unwrap();
        task::block_on(async {
            for (name, operation) in loops().await {
                println!("{name}");
                let begun = Arc::new(AtomicUsize::new(0));
                let begins = begun.clone();
                let hog = task::spawn(async move {
                    begins.fetch_add(1, Ordering::SeqCst);
                    operation.await;
                });
                common::becomes("the task has begun", || begun.load(Ordering::SeqCst) == 1).await;
                assert_eq!(hog.cancel().await, None, "{name}");
            }
        });
    });
}

#[test]
fn loop_that_never_waits_lets_other_parts_of_its_future_run() {
    let _watchdog = Watchdog::new();
    task::block_on(async {
        for (name, operation) in loops().await {
            println!("{name}");
            let other = async {
                for _ in 0..3 {
                    task::yield_now().await;
                }
            };
            futures::future::select(pin!(other), operation).await;
        }
    });
}

#[test]
fn loop_that_never_waits_lets_other_futures_run_under_another_executor() {
    let _watchdog = Watchdog::new();
    for (name, operation) in park_on(loops()) {
        println!("{name}");
        let mut pool = futures::executor::LocalPool::new();
        pool.spawner().spawn_local(operation).unwrap();
        let steps = Arc::new(AtomicUsize::new(0));
        pool.run_until({
            let steps = steps.clone();
            poll_fn(move |cx| {
                cx.waker().wake_by_ref();
                if steps.fetch_add(1, Ordering::Relaxed) < 3 { Poll::Pending } else { Poll::Ready(()) }
            })
        });
        assert_eq!(steps.load(Ordering::Relaxed), 4, "{name}");
    }
}

/// A poll with a no-op waker never returns `Pending` for the sake of fairness. A task that makes
/// many such polls still ends its turns, at the operations that it awaits.
#[test]
fn task_that_polls_with_a_noop_waker_still_yields() {
    const ROUNDS: usize = 200;
    child("task_that_polls_with_a_noop_waker_still_yields", || {
        rt::Builder::new().workers(1).spare_workers(0).blocked_tasks(rt::BlockedPolicy::Off).start().unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let others = turns.clone();
        drop(task::spawn(async move {
            loop {
                others.fetch_add(1, Ordering::SeqCst);
                task::yield_now().await;
            }
        }));
        park_on(task::spawn(async move {
            let ((one, _keep), (other, _too)) = (filled(4).await, filled(4).await);
            for polls in 0..70 {
                let before = turns.load(Ordering::SeqCst);
                for _ in 0..ROUNDS {
                    for _ in 0..polls {
                        assert!(common::poll_now(&mut pin!(one.peek(&mut [0; 1]))).is_ready());
                    }
                    assert_eq!(other.peek(&mut [0; 1]).await.unwrap(), 1);
                }
                let passed = turns.load(Ordering::SeqCst) - before;
                assert!(passed >= ROUNDS / 50, "{passed} turns of another task in {ROUNDS} rounds of {polls} polls");
            }
        }));
    });
}

// ---- together with a connection that always has data ----

/// Spins for `micros` µs, in place of an operation on a saturated connection.
fn spin(micros: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(micros) {}
}

/// Counts its turns in `turns`, and uses up each turn with operations that need not wait. After
/// each operation, passes the number of the turn to `step`.
async fn saturating(turns: Arc<AtomicUsize>, step: impl Fn(usize)) {
    let (stream, _peer) = filled(1).await;
    let mut operations = pin!(async {
        loop {
            stream.readable().await.unwrap();
            spin(5);
            step(turns.load(Ordering::SeqCst));
        }
    });
    poll_fn(|cx| {
        turns.fetch_add(1, Ordering::SeqCst);
        operations.as_mut().poll(cx)
    })
    .await
}

/// Starts a runtime with one worker and no spare workers.
fn one_worker() {
    rt::Builder::new().workers(1).spare_workers(0).blocked_tasks(rt::BlockedPolicy::Off).start().unwrap();
    // Turns have no time limit in the first 100 ms after the start.
    std::thread::sleep(Duration::from_millis(150));
}

/// A waiter whose event arrives in a turn of a saturating task runs after that turn, before the
/// saturating task's next turn.
#[test]
fn event_goes_before_a_task_that_used_up_its_turn() {
    const ROUNDS: usize = 200;
    // If the worker gets no CPU time for 10 ms, sysmon polls, and its wake-ups arrive through the
    // shared queue. The saturating task may then have further turns first.
    const LATE_MAX: usize = ROUNDS / 10;
    child("event_goes_before_a_task_that_used_up_its_turn", || {
        one_worker();
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let (sent_in, seen) = (Arc::new(AtomicUsize::new(0)), turns.clone());
        let quiet = task::spawn({
            let sent_in = sent_in.clone();
            async move {
                let reader = UnixStream::from(reader);
                let mut late = Vec::new();
                for _ in 0..ROUNDS {
                    assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 1);
                    let turns = seen.load(Ordering::SeqCst) - sent_in.swap(0, Ordering::SeqCst);
                    late.extend((turns > 0).then_some(turns));
                }
                assert!(late.len() <= LATE_MAX, "further turns of the other task before an event: {late:?}");
            }
        });
        drop(task::spawn(saturating(turns, move |turn| {
            // Sends the next byte after the quiet task has seen the previous one, at most once per
            // turn.
            if turn > 2 && sent_in.load(Ordering::SeqCst) == 0 {
                sent_in.store(turn, Ordering::SeqCst);
                std::io::Write::write_all(&mut &writer, b"x").unwrap();
            }
        })));
        park_on(quiet);
    });
}

/// A saturating task gets its turns while the events of other tasks never end. Between two
/// consecutive turns of the saturating task, the others read at most twice each on average.
#[test]
fn endless_events_do_not_starve_a_task_that_uses_up_its_turns() {
    const OTHERS: usize = 64;
    const TURNS: usize = 100;
    child("endless_events_do_not_starve_a_task_that_uses_up_its_turns", || {
        one_worker();
        let (turns, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..OTHERS {
            let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut &writer, b"x").unwrap();
            let others = others.clone();
            drop(task::spawn(async move {
                let reader = UnixStream::from(reader);
                while reader.read(&mut [0; 8]).await.unwrap() > 0 {
                    others.fetch_add(1, Ordering::SeqCst);
                    std::io::Write::write_all(&mut &writer, b"x").unwrap();
                    // The next poll of the network receives the event that this write causes.
                    task::yield_now().await;
                }
            }));
        }
        let most = Arc::new(AtomicUsize::new(0));
        let (last, longest) = ((AtomicUsize::new(0), AtomicUsize::new(0)), most.clone());
        let task = task::spawn(saturating(turns.clone(), move |turn| {
            let before = last.0.swap(turn, Ordering::SeqCst);
            if before != turn {
                let now = others.load(Ordering::SeqCst);
                let reads = now - last.1.swap(now, Ordering::SeqCst);
                // Reads before the saturating task's first turn do not count.
                longest.fetch_max(if before == 0 { 0 } else { reads }, Ordering::SeqCst);
            }
        }));
        common::eventually("the saturating task has had its turns", || turns.load(Ordering::SeqCst) >= TURNS);
        let most = most.load(Ordering::SeqCst);
        assert!(most > 0, "the others have turns too");
        assert!(most <= 2 * OTHERS, "{most} reads between two consecutive turns");
        drop(task);
    });
}

/// The bytes that a write sends count towards the turn of its task, whichever method sends them.
#[test]
fn large_writes_use_up_a_turn() {
    const SIZE: usize = 64 << 10;
    park_on(task::spawn(async {
        let (ours, peer) = pair().await;
        ours.set_send_buffer_size(4 << 20).unwrap();
        let mut peer = std::net::TcpStream::try_from(peer).unwrap();
        peer.set_nonblocking(false).unwrap();
        let drain = std::thread::spawn(move || std::io::copy(&mut peer, &mut std::io::sink()));
        let bytes = vec![0; SIZE];
        for vectored in [false, true] {
            let mut most = 0;
            for _ in 0..20 {
                ours.writable().await.unwrap();
                task::yield_now().await;
                let mut writes = 0;
                poll_fn(|cx| {
                    loop {
                        let mut bufs = [std::io::IoSlice::new(&bytes)];
                        let written = if vectored {
                            pin!(ours.write_vectored_all(&mut bufs)).poll(cx)
                        } else {
                            pin!(ours.write_all(&bytes)).poll(cx)
                        };
                        match written {
                            Poll::Ready(result) => result.unwrap(),
                            Poll::Pending => return Poll::Ready(()),
                        }
                        writes += 1;
                    }
                })
                .await;
                most = most.max(writes);
            }
            // A turn has 31 units. A write takes one, and another for each 16 KiB. Six of these
            // writes take 30 units, and a seventh takes the last unit.
            assert!((1..=7).contains(&most), "vectored: {vectored}, {most} writes of {SIZE} bytes in one turn");
        }
        drop(ours);
        drain.join().unwrap().unwrap();
    }));
}
