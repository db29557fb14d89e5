//! `rt::inspect`: the reported state of tasks, sockets and workers, and pages of tasks. Also
//! histograms, counts of blocking calls, and the OpenMetrics text.

mod common;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use common::{child, run};
use netpoll::net::{ListenConfig, TcpListener, TcpStream, UdpSocket, pipe};
use netpoll::os::unix::net::{UnixDatagram, UnixStream};
use netpoll::rt::{
    self, Inspect, Snapshot, SocketAddress, SocketState, SocketWait, TaskInfo, TaskKind, TaskState, WaitsFor, WokenBy,
};
use netpoll::task::{self, JoinHandle};
use netpoll::time::Sleep;

/// The bound of each wait, less than that of `run`, so that a failure shows the snapshot.
const BOUND: Duration = Duration::from_secs(common::BOUND.as_secs() / 4);

/// Takes snapshots until one satisfies `wanted`, and returns it.
async fn until(wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let begin = Instant::now();
    loop {
        let snapshot = rt::inspect();
        if wanted(&snapshot) {
            return snapshot;
        }
        assert!(begin.elapsed() < BOUND, "not seen within {BOUND:?}:\n{snapshot}");
        task::sleep(Duration::from_millis(1)).await;
    }
}

/// Spawns a task with a name. Each name must be unique in this file, because a snapshot contains
/// the tasks of all tests.
fn named<T: Send + 'static>(name: &str, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    task::Builder::new().name(name.into()).spawn(future).unwrap()
}

fn by_name<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a TaskInfo> {
    snapshot.tasks.iter().find(|task| task.name() == Some(name))
}

/// Returns the descriptor and the operation that task `name` waits for, if it waits for a socket.
fn waits_on(snapshot: &Snapshot, name: &str) -> Option<(i32, SocketWait)> {
    match by_name(snapshot, name)?.waits_for()? {
        WaitsFor::Socket { socket, operation } => Some((snapshot.socket(socket)?.fd(), operation)),
        _ => None,
    }
}

#[test]
fn reads_writes_accepts_and_datagrams_are_shown_with_their_sockets() {
    use std::os::fd::AsRawFd;
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (datagram, _peer) = UnixDatagram::pair().unwrap();
        let (unix, _other) = UnixStream::pair().unwrap();
        let fds = [listener.as_raw_fd(), client.as_raw_fd(), udp.as_raw_fd(), datagram.as_raw_fd()];
        let unix_fd = unix.as_raw_fd();
        let tasks = [
            named("i1 accept", async move { listener.accept().await.map(drop) }),
            named("i1 write", async move { client.write_all(&vec![0; 64 << 20]).await }),
            named("i1 udp", async move { udp.recv(&mut [0; 8]).await.map(drop) }),
            named("i1 datagram", async move { datagram.recv(&mut [0; 8]).await.map(drop) }),
            named("i1 unix", async move { unix.peer_closed().await }),
        ];
        let expected = [
            ("i1 accept", fds[0], SocketWait::Readable),
            ("i1 write", fds[1], SocketWait::Writable),
            ("i1 udp", fds[2], SocketWait::Readable),
            ("i1 datagram", fds[3], SocketWait::Readable),
            ("i1 unix", unix_fd, SocketWait::HangUp),
        ];
        let snapshot =
            until(|snapshot| expected.iter().all(|&(name, fd, wait)| waits_on(snapshot, name) == Some((fd, wait))))
                .await;
        for (name, fd, wait) in expected {
            let task = by_name(&snapshot, name).unwrap();
            assert_eq!((task.kind(), task.state()), (TaskKind::Task, TaskState::Waiting), "{name}");
            assert!(task.polls() >= 1 && task.age() >= task.last_poll(), "{task:?}");
            assert!(task.spawned_at().as_ref().is_some_and(|place| place.file() == file!()), "{task:?}");
            let socket = snapshot.sockets.iter().find(|socket| socket.fd() == fd).unwrap();
            assert_eq!(*socket.waiting(), [(task.id(), wait)], "{name}");
        }
        let listening = snapshot.sockets.iter().find(|socket| socket.fd() == fds[0]).unwrap();
        assert_eq!((listening.kind(), listening.state()), ("tcp", SocketState::Listening));
        assert_eq!(listening.local(), Some(SocketAddress::Ip(address)));
        let writing = snapshot.sockets.iter().find(|socket| socket.fd() == fds[1]).unwrap();
        assert_eq!((writing.kind(), writing.state(), writing.writers()), ("tcp", SocketState::Open, 1));
        assert_eq!(writing.peer(), Some(SocketAddress::Ip(address)));
        let kinds: Vec<&str> = [fds[2], fds[3], unix_fd]
            .iter()
            .map(|&fd| snapshot.sockets.iter().find(|socket| socket.fd() == fd).unwrap().kind())
            .collect();
        assert_eq!(kinds, ["udp", "unixgram", "unix"]);
        for task in tasks {
            task.cancel().await;
        }
        drop(server);
    });
}

/// A wait for a permit is a [`SocketWait::HangUp`] of the listener. The text names the permit.
#[test]
fn accept_without_a_permit_is_shown_as_waiting_for_one() {
    use std::os::fd::AsRawFd;
    run(async {
        let listener = ListenConfig::new().max_connections(1).listen("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let only = listener.accept().await.unwrap();
        let fd = listener.as_raw_fd();
        let accepts = named("permit", async move { listener.accept().await.map(drop) });
        let snapshot = until(|snapshot| waits_on(snapshot, "permit") == Some((fd, SocketWait::HangUp))).await;
        let (text, id) = (snapshot.to_string(), by_name(&snapshot, "permit").unwrap().id());
        for part in [format!("permit or descriptor of fd {fd} ("), format!("permit or descriptor task {id}")] {
            assert!(text.contains(&part), "{part} is not in\n{text}");
        }
        accepts.cancel().await;
        drop((client, only));
    });
}

#[test]
fn wait_for_an_in_memory_pipe_is_not_shown_as_one_for_a_socket() {
    run(async {
        // One end has the slot of a socket that was open before, unless another test takes that
        // slot.
        drop(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (one, other) = pipe().unwrap();
        let (reader, writer) = (one.clone(), one);
        let tasks = [
            named("pipe read", async move { reader.read(&mut [0; 8]).await.map(drop) }),
            named("pipe write", async move { writer.write(&[0; 8]).await.map(drop) }),
        ];
        let was_polled = |snapshot: &Snapshot, name: &str| by_name(snapshot, name).is_some_and(|task| task.polls() > 0);
        let is_running = |snapshot: &Snapshot, name| by_name(snapshot, name).unwrap().state() == TaskState::Running;
        let names = ["pipe read", "pipe write"];
        let all =
            |snapshot: &Snapshot| names.iter().all(|name| was_polled(snapshot, name) && !is_running(snapshot, name));
        let snapshot = until(all).await;
        for name in names {
            let task = by_name(&snapshot, name).unwrap();
            assert_eq!((task.state(), task.waits_for()), (TaskState::Waiting, None), "{name}:\n{snapshot}");
        }
        drop(other);
        for task in tasks {
            let _ = task.await;
        }
    });
}

#[test]
fn waits_for_timers_and_joins_name_time_and_task() {
    run(async {
        let sleeper = named("i2 sleeper", task::sleep(Duration::from_secs(3600)));
        let id = sleeper.task().id();
        let joiner = named("i2 joiner", sleeper);
        let joiner_id = joiner.task().id();
        let last = named("i2 last", joiner);
        let wait_of = |snapshot: &Snapshot, name: &str| by_name(snapshot, name).and_then(|task| task.waits_for());
        let snapshot = until(|snapshot| {
            wait_of(snapshot, "i2 last") == Some(WaitsFor::Task(joiner_id))
                && wait_of(snapshot, "i2 joiner") == Some(WaitsFor::Task(id))
                && matches!(wait_of(snapshot, "i2 sleeper"), Some(WaitsFor::Time(_)))
        })
        .await;
        let Some(WaitsFor::Time(left)) = wait_of(&snapshot, "i2 sleeper") else { unreachable!() };
        assert!(left > Duration::from_secs(3000) && left <= Duration::from_secs(3601), "{left:?}");
        assert_eq!(snapshot.chain(last.task().id()), [last.task().id(), joiner_id, id]);
        let text = snapshot.to_string();
        let row = text.lines().find(|line| line.contains("i2 last")).unwrap();
        assert!(
            row.contains(&format!("task {joiner_id}, which waits for task {id}, which waits for a timer, in ")),
            "{row}"
        );
        last.cancel().await;
    });
}

/// A flag that a task can wait for. It is not part of the crate, so a snapshot does not name it.
#[derive(Default)]
struct Flag(Mutex<(bool, Option<Waker>)>);

impl Flag {
    fn set(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            state.1.take()
        };
        waker.expect("a task waits").wake();
    }

    async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(cx.waker().clone());
            if state.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn has_waiter(&self) -> bool {
        self.0.lock().unwrap().1.is_some()
    }
}

/// Waits until a timer wakes the calling task. (On a busy machine, a sleep may end at its first
/// poll, without a wake-up.)
async fn be_woken_by_a_timer() {
    let mut sleep = Sleep::new(Duration::from_millis(1));
    let mut waits = false;
    std::future::poll_fn(|cx| {
        if waits {
            return Poll::Ready(());
        }
        while Pin::new(&mut sleep).poll(cx).is_ready() {
            sleep = Sleep::new(Duration::from_millis(1));
        }
        waits = true;
        Poll::Pending
    })
    .await;
}

#[test]
fn task_is_shown_with_the_cause_of_its_last_wakeup() {
    use std::os::fd::AsRawFd;
    run(async {
        let spawner = task::current().id();
        let (by_task, by_thread, ending) =
            (Arc::new(Flag::default()), Arc::new(Flag::default()), Arc::new(Flag::default()));
        let waits = |flag: &Arc<Flag>| {
            let flag = flag.clone();
            async move { flag.wait().await }
        };
        let then_waits = |name: &str, future: Pin<Box<dyn Future<Output = ()> + Send>>| {
            named(name, async move {
                future.await;
                std::future::pending::<()>().await;
            })
        };
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (fd, address) = (udp.as_raw_fd(), udp.local_addr().unwrap());
        let ended = named("i4 ended", waits(&ending));
        let ended_id = ended.task().id();
        let tasks = [
            then_waits("i4 spawned", Box::pin(async {})),
            then_waits("i4 yielded", Box::pin(task::yield_now())),
            then_waits("i4 slept", Box::pin(be_woken_by_a_timer())),
            then_waits("i4 joined", Box::pin(ended)),
            then_waits("i4 by task", Box::pin(waits(&by_task))),
            then_waits("i4 by thread", Box::pin(waits(&by_thread))),
            named("i4 received", async move {
                udp.recv(&mut [0; 8]).await.unwrap();
                std::future::pending::<()>().await;
            }),
        ];
        until(|snapshot| {
            let joins =
                by_name(snapshot, "i4 joined").and_then(|task| task.waits_for()) == Some(WaitsFor::Task(ended_id));
            let flags = [&by_task, &by_thread, &ending];
            joins && flags.iter().all(|flag| flag.has_waiter()) && waits_on(snapshot, "i4 received").is_some()
        })
        .await;
        ending.set();
        let waker = named("i4 waker", async move { by_task.set() });
        let waker_id = waker.task().id();
        waker.await;
        std::thread::spawn(move || by_thread.set()).join().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"1", address).unwrap();
        let socket =
            |snapshot: &Snapshot| snapshot.sockets.iter().find(|socket| socket.fd() == fd).map(|socket| socket.id());
        let expected = |snapshot: &Snapshot| {
            [
                ("i4 spawned", Some(WokenBy::Task(spawner))),
                ("i4 yielded", Some(WokenBy::Itself)),
                ("i4 slept", Some(WokenBy::Timer)),
                ("i4 joined", Some(WokenBy::Task(ended_id))),
                ("i4 by task", Some(WokenBy::Task(waker_id))),
                ("i4 by thread", Some(WokenBy::Thread)),
                ("i4 received", socket(snapshot).map(WokenBy::Socket)),
            ]
        };
        let snapshot = until(|snapshot| {
            expected(snapshot)
                .iter()
                .all(|&(name, by)| by_name(snapshot, name).is_some_and(|task| task.woken_by() == by))
        })
        .await;
        let text = snapshot.to_string();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("i4 by task").contains(&format!(" task {waker_id} ")), "{text}");
        assert!(line("i4 received").contains(&format!(" fd {fd} ")), "{text}");
        let json = snapshot.to_json();
        for part in [
            format!("\"woken_by\":{{\"kind\":\"task\",\"id\":{waker_id}}}"),
            format!("\"woken_by\":{{\"kind\":\"socket\",\"fd\":{fd}}}"),
            "\"woken_by\":{\"kind\":\"timer\"}".to_owned(),
            "\"woken_by\":{\"kind\":\"thread\"}".to_owned(),
            "\"woken_by\":{\"kind\":\"itself\"}".to_owned(),
        ] {
            assert!(json.contains(&part), "{part} is not in {json}");
        }
        for task in tasks {
            task.cancel().await;
        }
    });
}

#[test]
fn tasks_that_join_each_other_are_named_as_a_cycle() {
    run(async {
        let (to_first, from_second) = mpsc::channel::<JoinHandle<()>>();
        let (to_second, from_first) = mpsc::channel::<JoinHandle<()>>();
        let first = named("i3 first", async move {
            let second = loop {
                match from_second.try_recv() {
                    Ok(second) => break second,
                    Err(_) => task::yield_now().await,
                }
            };
            second.await;
        });
        let second = named("i3 second", async move {
            let first = loop {
                match from_first.try_recv() {
                    Ok(first) => break first,
                    Err(_) => task::yield_now().await,
                }
            };
            first.await;
        });
        let ids = [first.task().id(), second.task().id()];
        to_first.send(second).unwrap();
        to_second.send(first).unwrap();
        let snapshot = until(|snapshot| {
            ids.iter().all(|&id| matches!(snapshot.task(id).and_then(|task| task.waits_for()), Some(WaitsFor::Task(_))))
        })
        .await;
        assert_eq!(snapshot.chain(ids[0]), [ids[0], ids[1], ids[0]]);
        let text = snapshot.to_string();
        let row = text.lines().find(|line| line.contains("i3 first")).unwrap();
        assert!(row.contains("a cycle"), "{row}");
    });
}

#[test]
fn task_that_blocks_its_thread_is_shown_running() {
    run(async {
        let (release, blocked) = mpsc::channel::<()>();
        let task = named("i4 blocks", async move { blocked.recv() });
        let id = task.task().id();
        let snapshot = until(|snapshot| {
            // A snapshot that is taken at the beginning of a poll may not count this poll.
            by_name(snapshot, "i4 blocks").is_some_and(|task| task.state() == TaskState::Running && task.polls() > 0)
                && snapshot.workers.iter().any(|worker| worker.running == Some(id) && worker.stuck)
        })
        .await;
        let worker = snapshot.workers.iter().find(|worker| worker.running == Some(id)).unwrap();
        assert!(worker.owned && worker.running_for.is_some(), "{worker:?}");
        let task_info = by_name(&snapshot, "i4 blocks").unwrap();
        assert_eq!((task_info.waits_for(), task_info.polls()), (None, 1));
        release.send(()).unwrap();
        task.await.unwrap();
        // Snapshots omit tasks that have ended.
        until(|snapshot| snapshot.task(id).is_none()).await;
    });
}

#[test]
fn longest_poll_stays_after_its_end() {
    run(async {
        let (release, blocked) = mpsc::channel::<()>();
        let task = named("i16 blocks once", async move {
            blocked.recv().unwrap();
            std::future::pending::<()>().await;
        });
        let long = Duration::from_millis(50);
        let lasts = |snapshot: &Snapshot| {
            by_name(snapshot, "i16 blocks once").is_some_and(|task| task.longest_poll() >= long && task.cpu() >= long)
        };
        until(|snapshot| lasts(snapshot) && snapshot.workers.iter().any(|worker| worker.stuck)).await;
        release.send(()).unwrap();
        let waits = |snapshot: &Snapshot| by_name(snapshot, "i16 blocks once").unwrap().state() == TaskState::Waiting;
        let snapshot = until(waits).await;
        assert!(lasts(&snapshot), "{snapshot}");
        let other = named("i16 other", std::future::pending::<()>());
        let snapshot = until(|snapshot| by_name(snapshot, "i16 other").is_some()).await;
        assert_eq!(by_name(&snapshot, "i16 other").unwrap().longest_poll(), Duration::ZERO);
        other.cancel().await;
        task.cancel().await;
    });
}

#[test]
fn deadlines_and_tcp_details_are_shown() {
    use std::os::fd::AsRawFd;
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let waiting = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_read_deadline(Some(Instant::now() + Duration::from_secs(1000))).unwrap();
        client.set_write_deadline(Some(Instant::now() - Duration::from_secs(1))).unwrap();
        server.write_all(b"hello").await.unwrap();
        client.read(&mut [0; 5]).await.unwrap();
        let begin = Instant::now();
        loop {
            let snapshot = Inspect::new().tcp(true).take();
            let find = |fd: i32| snapshot.sockets.iter().find(|socket| socket.fd() == fd).unwrap();
            let (client, listener) = (find(client.as_raw_fd()), find(listener.as_raw_fd()));
            assert!(client.read_deadline().is_some_and(|left| left > Duration::from_secs(900)), "{client:?}");
            assert_eq!(client.write_deadline(), Some(Duration::ZERO));
            let tcp = client.tcp().expect("it was requested");
            assert_eq!((tcp.state, tcp.bytes_received, tcp.unsent), ("ESTABLISHED", 5, 0));
            let tcp = listener.tcp().expect("it was requested");
            assert_eq!((tcp.state, tcp.accept_queue_max > 0), ("LISTEN", true));
            if tcp.accept_queue == 1 {
                break;
            }
            assert!(begin.elapsed() < BOUND, "the accept queue does not have one connection: {tcp:?}");
            task::sleep(Duration::from_millis(1)).await;
        }
        assert!(rt::inspect().sockets.iter().all(|socket| socket.tcp().is_none()), "TCP_INFO was not requested");
        drop(waiting);
    });
}

#[test]
fn socket_is_found_by_id_before_and_after_sockets_were_reordered() {
    run(async {
        let sockets = [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        let mut snapshot = rt::inspect();
        let ids: Vec<_> = snapshot.sockets.iter().map(|socket| (socket.id(), socket.fd())).collect();
        assert!(ids.len() >= sockets.len());
        for _ in 0..2 {
            for &(id, fd) in &ids {
                assert_eq!(snapshot.socket(id).map(|socket| socket.fd()), Some(fd));
            }
            snapshot.sockets.reverse();
        }
    });
}

#[test]
fn tasks_are_taken_in_pages() {
    child("tasks_are_taken_in_pages", || {
        run(async {
            let last = task::spawn(std::future::pending::<()>());
            let awaited = last.task().id();
            let joiner = task::spawn(last);
            let tasks: Vec<_> = (0..25).map(|_| task::spawn(std::future::pending::<()>())).collect();
            let joins = |snapshot: &Snapshot| {
                snapshot.tasks.iter().any(|task| task.waits_for() == Some(WaitsFor::Task(awaited)))
            };
            let all = until(joins).await;
            assert_eq!(all.more_tasks, 0);
            let inspect = Inspect::new().max_tasks(10);
            let (mut page, mut seen) = (inspect.take(), Vec::new());
            while !page.tasks.is_empty() {
                assert_eq!(page.tasks.len(), 10.min(all.tasks.len() - seen.len()));
                seen.extend(page.tasks.iter().map(|task| task.id()));
                assert_eq!(page.more_tasks, all.tasks.len() - seen.len());
                page = inspect.after(&page).take();
            }
            assert_eq!(seen, all.tasks.iter().map(|task| task.id()).collect::<Vec<_>>());
            // The awaited task exists, but is not in the page.
            let before = Inspect::new().max_tasks(seen.iter().position(|&id| id == awaited).unwrap() + 1).take();
            let page = Inspect::new().max_tasks(1).after(&before).take();
            assert!(page.tasks.len() == 1 && joins(&page), "{page}");
            for (none, more) in
                [(Inspect::new(), seen.len()), (inspect.after(&before), seen.len() - before.tasks.len())]
            {
                let none = none.max_tasks(0).take();
                assert_eq!((none.tasks.len(), none.more_tasks), (0, more));
            }
            assert_eq!(Inspect::new().after(&all).take().more_tasks, 0);
            drop((joiner, tasks));
        });
    });
}

#[test]
fn long_chain_of_joins_is_cut_in_the_table_only() {
    run(async {
        let mut last = named("i9 0", std::future::pending::<()>());
        let first = last.task().id();
        let mut ids = vec![first];
        for at in 1..100 {
            last = named(&format!("i9 {at}"), last);
            ids.insert(0, last.task().id());
        }
        let snapshot = until(|snapshot| snapshot.chain(ids[0]).len() == ids.len()).await;
        assert_eq!(snapshot.chain(ids[0]), ids);
        let text = snapshot.to_string();
        let row = text.lines().find(|line| line.contains("i9 99 ")).unwrap();
        assert!(row.contains(", and so on") && row.len() < 2000, "{row}");
        let row = text.lines().find(|line| line.contains("i9 1 ")).unwrap();
        assert!(row.contains(&format!("  task {first}  ")), "{row}");
        last.cancel().await;
    });
}

#[test]
fn histograms_count_polls_delays_and_accept_queues() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = task::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                // These tasks wait, so that events wake them.
                held.push(task::spawn(async move {
                    let mut buf = [0; 8];
                    while let Ok(1..) = stream.read(&mut buf).await {
                        if stream.write_all(&buf).await.is_err() {
                            break;
                        }
                    }
                }));
            }
        });
        let begin = Instant::now();
        loop {
            let metrics = rt::metrics();
            let counts = [metrics.poll_seconds, metrics.wake_delay_seconds, metrics.accept_queue].map(|h| h.count());
            if counts.iter().all(|&count| count > 0) {
                assert!(metrics.poll_seconds.sum() > 0.0 && metrics.poll_seconds.quantile(1.0) >= 1e-6);
                assert!(metrics.accept_queue.sum() >= 1.0, "the accepted connection is counted: {metrics:?}");
                break;
            }
            assert!(begin.elapsed() < BOUND, "no sample in each histogram within {BOUND:?}: {counts:?}");
            for _ in 0..16 {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(&[7; 8]).await.unwrap();
                assert!(stream.read(&mut [0; 8]).await.unwrap() > 0);
            }
        }
        echo.cancel().await;
    });
}

#[test]
fn listeners_are_in_the_openmetrics_text() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).await.unwrap();
        let begin = Instant::now();
        loop {
            let text = rt::openmetrics();
            assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
            let of = |name: &str| {
                let start = format!("netpoll_listener_{name}{{local=\"{address}\",fd=\"");
                let line = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{text}"));
                line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
            };
            assert!(of("accept_queue_max") > 0);
            assert_eq!(of("accepts"), 0);
            if of("accept_queue") == 1 {
                break;
            }
            assert!(begin.elapsed() < BOUND, "{text}");
            task::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn task_that_yields_is_shown_ready() {
    run(async {
        let yielder = named("i12 yields", async {
            loop {
                task::yield_now().await;
            }
        });
        let snapshot =
            until(|snapshot| by_name(snapshot, "i12 yields").is_some_and(|task| task.state() == TaskState::Ready))
                .await;
        assert_eq!(by_name(&snapshot, "i12 yields").unwrap().waits_for(), None);
        yielder.cancel().await;
    });
}

#[test]
fn kinds_of_tasks_are_distinguished() {
    let (release, blocked) = mpsc::channel::<()>();
    task::Builder::new().name("i6 root".into()).blocking(async {
        let call = task::spawn_blocking(move || blocked.recv());
        let local = task::Builder::new().name("i6 local".into()).local(std::future::pending::<()>()).unwrap();
        let snapshot = until(|snapshot| {
            by_name(snapshot, "i6 local").is_some_and(|task| task.polls() > 0)
                && snapshot.task(call.task().id()).is_some_and(|task| task.polls() > 0)
        })
        .await;
        let kind = |id| snapshot.task(id).map(|task| task.kind());
        assert_eq!(kind(call.task().id()), Some(TaskKind::Blocking));
        assert_eq!(kind(local.task().id()), Some(TaskKind::Local));
        assert_eq!(kind(task::current().id()), Some(TaskKind::BlockOn));
        let row = snapshot.to_string();
        let row = row.lines().find(|line| line.contains("i6 local")).unwrap().to_owned();
        assert!(row.contains("(local)") && row.contains("something foreign"), "{row}");
        release.send(()).unwrap();
        call.await.unwrap();
        local.cancel().await;
    });
}

/// Each reading task is named after the local address of its only socket, so a wrong pair of task
/// and socket is detected.
#[test]
fn pairs_are_right_during_spawns_and_closes() {
    run(async {
        let stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
                if open.len() > 16 {
                    open.clear();
                }
            }
        });
        let churn = |stop: Arc<AtomicBool>| async move {
            while !stop.load(Ordering::Relaxed) {
                // At the end, the listener is closed before this loop ends.
                let Ok(stream) = TcpStream::connect(address).await else { continue };
                let name = format!("i7 {}", stream.local_addr().unwrap());
                named(&name, async move { stream.read(&mut [0; 8]).await.map(drop) }).await.ok();
            }
        };
        let churns: Vec<_> = (0..24).map(|_| task::spawn(churn(stop.clone()))).collect();
        let (mut pairs, mut snapshots) = (0, 0);
        let begin = Instant::now();
        while (snapshots < 300 || pairs < 300) && begin.elapsed() < BOUND {
            let snapshot = rt::inspect();
            snapshots += 1;
            let names: HashMap<_, _> = snapshot.tasks.iter().map(|task| (task.id(), task.name())).collect();
            for socket in &snapshot.sockets {
                for (task, _) in socket.waiting() {
                    let Some(name) = names[task].and_then(|name| name.strip_prefix("i7 ")) else { continue };
                    let local = socket.local().as_ref().map(|local| local.to_string());
                    assert_eq!(Some(name), local.as_deref(), "a wrong pair in\n{snapshot}");
                    pairs += 1;
                }
            }
            task::yield_now().await;
        }
        assert!(pairs > 0, "no pair in {snapshots} snapshots");
        stop.store(true, Ordering::Relaxed);
        server.cancel().await;
        for churn in churns {
            churn.await;
        }
    });
}

#[test]
fn blocking_calls_that_wait_for_a_thread_are_counted() {
    common::child("blocking_calls_that_wait_for_a_thread_are_counted", || {
        rt::Builder::new().blocking_threads(1).start().unwrap();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let first = task::spawn_blocking(move || _ = blocked.recv());
        common::eventually("the first call runs", || rt::metrics().blocking_queued == 0);
        let others: Vec<_> = (0..3).map(|_| task::spawn_blocking(|| ())).collect();
        assert_eq!((rt::metrics().blocking_queued, rt::metrics().blocking_threads), (3, 1));
        assert!(rt::inspect().metrics.openmetrics().contains("\nnetpoll_blocking_queued 3\n"));
        drop(release);
        task::block_on(async {
            first.await;
            for other in others {
                other.await;
            }
        });
        assert_eq!(rt::metrics().blocking_queued, 0);
    });
}
