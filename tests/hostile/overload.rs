//! Row 11 of the tables in docs/RELIABILITY.md: clients that need more memory than the server may
//! use, very many tasks, and panics in polls, destructors and wakers.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use futures::future::FutureExt;
use netpoll::net::{ListenConfig, TcpStream};
use netpoll::{rt, task};

use crate::common::{IS_SANITIZED, echo, eventually, pair, park_on, ping, poll_with, read_exact, set_nofile};
use crate::scale::*;

/// The memory limit of the server, in bytes.
const CEILING: u64 = 64 << 20;
/// The bytes that a refused client receives.
const BUSY: &[u8] = b"busy\n";

/// A memory control group (version 1) that is removed when the value is dropped.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> io::Result<Group> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/netpoll-{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let group = Group(path);
        std::fs::write(group.0.join("memory.limit_in_bytes"), CEILING.to_string())?;
        Ok(group)
    }

    /// Returns the maximum memory use so far, in bytes.
    fn peak(&self) -> u64 {
        std::fs::read_to_string(self.0.join("memory.max_usage_in_bytes")).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The group is empty unless the test has failed: its process has ended and was waited for.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Returns the number of clients, and the size of the server's buffer per connection in bytes. The
/// buffers for all clients take 160 MiB.
fn crowd() -> (usize, usize) {
    let clients = size(400, 5_000);
    (clients, (160 << 20) / clients)
}

/// Runs the server in this process. The server echoes, with a large buffer per connection. The
/// process joins the control group with the path `group`, unless `group` is empty. If `limited`,
/// the server has descriptors for about an eighth of the clients, and sends a refusal to the
/// others.
fn serve(group: &str, limited: bool) {
    if !group.is_empty() {
        std::fs::write(PathBuf::from(group).join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }
    let (clients, buffer) = crowd();
    let mut config = ListenConfig::new();
    if limited {
        set_nofile(clients as u64 / 8 + 32);
        config = config.reserve_descriptors(4).refuse_with(BUSY).max_connections(clients / 8 + 64);
    }
    task::block_on(async {
        let listener = config.listen("127.0.0.1:0").await.unwrap();
        println!("\nport {}", listener.local_addr().unwrap().port());
        io::stdout().flush().unwrap();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            drop(task::spawn(async move {
                let mut buf = vec![1; buffer];
                while let Ok(count @ 1..) = stream.read(&mut buf).await {
                    if stream.write_all(&buf[..count]).await.is_err() {
                        break;
                    }
                }
            }));
        }
    });
}

const CEILING_TEST: &str = "overload::server_memory_stays_below_limit";

/// Starts a process with the server. Returns the process and the address of the server.
/// `NETPOLL_GROUP` and `NETPOLL_LIMITED` pass the arguments of [`serve`].
fn start(group: Option<&Group>, limited: bool) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CEILING_TEST, "--nocapture", "--test-threads=1"])
        .env("NETPOLL_GROUP", group.map_or(PathBuf::new(), |group| group.0.clone()))
        .env("NETPOLL_LIMITED", if limited { "1" } else { "0" })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.find_map(|line| line.unwrap().strip_prefix("port ").map(|port| port.parse::<u16>().unwrap()));
    (child, SocketAddr::from(([127, 0, 0, 1], port.expect("a port"))))
}

/// Counts of visits by their result.
#[derive(Debug, Default)]
struct Clients {
    served: AtomicUsize,
    refused: AtomicUsize,
    /// Visits that failed without a refusal.
    cut: AtomicUsize,
}

/// Visits the server: connects, and exchanges 16 KiB with the server ten times. If `stubborn`,
/// visits until a visit succeeds.
async fn client(address: SocketAddr, counts: Arc<Clients>, stubborn: bool) {
    let message = vec![9; 16 << 10];
    let mut pause = Duration::from_millis(20);
    loop {
        let visit = async {
            let stream = TcpStream::connect(address).await?;
            for _ in 0..10 {
                // The server may send a refusal instead of an answer, even before it has read the
                // message.
                let sent = stream.write_all(&message).await;
                let mut first = [0; 1];
                read_exact(&stream, &mut first).await?;
                if first[0] == BUSY[0] {
                    return Ok(false);
                }
                sent?;
                let mut rest = vec![0; message.len() - 1];
                read_exact(&stream, &mut rest).await?;
                assert!(rest == message[1..]);
                task::sleep(Duration::from_millis(10)).await;
            }
            io::Result::Ok(true)
        };
        match visit.await {
            Ok(true) => {
                counts.served.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(false) => counts.refused.fetch_add(1, Ordering::Relaxed),
            Err(_) => counts.cut.fetch_add(1, Ordering::Relaxed),
        };
        if !stubborn {
            return;
        }
        task::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

#[test]
fn server_memory_stays_below_limit() {
    if IS_SANITIZED {
        return println!("skipped: the memory that a sanitizer needs exceeds the limit");
    }
    process(CEILING_TEST, 120, 300, || {
        if let (Ok(group), Ok(limited)) = (std::env::var("NETPOLL_GROUP"), std::env::var("NETPOLL_LIMITED")) {
            serve(&group, limited == "1");
            return;
        }
        let (clients, buffer) = crowd();
        let group = Group::new("limited").ok();
        if group.is_none() {
            figure("11", "no memory control group (version 1) can be created, so the limit is not enforced");
        }
        let (mut server, address) = start(group.as_ref(), true);
        let counts = Arc::new(Clients::default());
        let begin = Instant::now();
        for _ in 0..clients {
            drop(task::spawn(client(address, counts.clone(), true)));
        }
        while counts.served.load(Ordering::Relaxed) < clients {
            if let Some(status) = server.try_wait().unwrap() {
                panic!("the server ended: {status}, {counts:?}, peak {:?}", group.as_ref().map(Group::peak));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(counts.refused.load(Ordering::Relaxed) > 0, "no client was refused: {counts:?}");
        figure(
            "11",
            format_args!(
                "{clients} busy clients, {buffer} B each: all served in {:.1?}, {} visits refused, {} cut; {}",
                begin.elapsed(),
                counts.refused.load(Ordering::Relaxed),
                counts.cut.load(Ordering::Relaxed),
                group.as_ref().map_or_else(
                    || "no ceiling".to_owned(),
                    |group| format!("ceiling 64 MiB, peak {} KiB", group.peak() / 1024)
                )
            ),
        );
        drop(group);
        if !is_full() {
            return;
        }
        // Without limits the kernel kills the server. Otherwise this test would prove nothing.
        let Ok(group) = Group::new("unlimited") else { return };
        let (mut server, address) = start(Some(&group), false);
        let counts = Arc::new(Clients::default());
        let tasks: Vec<_> = (0..clients).map(|_| task::spawn(client(address, counts.clone(), false))).collect();
        eventually("the kernel ends the server", || server.try_wait().unwrap().is_some());
        let status = server.wait().unwrap();
        assert!(!status.success());
        park_on(async {
            for task in tasks {
                task.cancel().await;
            }
        });
        figure("11", format_args!("the same without limits: {status}"));
    });
}

/// Runs `count` tasks at once. Returns the memory per waiting task in bytes, the time taken to
/// spawn all tasks, and the time until all tasks have ended.
fn crowd_of_tasks(count: usize) -> (i64, Duration, Duration) {
    let (before, alive) = (live_bytes(), rt::metrics().tasks_alive);
    let done = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    // All tasks wait until all are spawned.
    let (open, gate) = futures::channel::oneshot::channel::<()>();
    let gate = gate.shared();
    let handles: Vec<_> = (0..count)
        .map(|_| {
            let (gate, done) = (gate.clone(), done.clone());
            task::spawn(async move {
                let _ = gate.await;
                task::yield_now().await;
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    let spawned = begin.elapsed();
    assert_eq!(rt::metrics().tasks_alive, alive + count as u64);
    let bytes = live_bytes() - before;
    open.send(()).unwrap();
    drop(gate);
    park_on(async {
        for handle in handles {
            handle.await;
        }
    });
    let took = begin.elapsed();
    eventually("no task is left", || rt::metrics().tasks_alive == alive);
    assert_eq!(done.load(Ordering::Relaxed), count);
    (bytes / count as i64, spawned, took)
}

#[test]
fn million_tasks_complete() {
    process("overload::million_tasks_complete", 90, 120, || {
        let count = size(100_000, 1_000_000);
        let begin = live_bytes();
        let (each, spawned, took) = crowd_of_tasks(count);
        let first = live_bytes() - begin;
        crowd_of_tasks(count);
        let workers = rt::inspect().workers.len();
        rt::shutdown(Duration::from_secs(120)).unwrap();
        let second = live_bytes() - begin;
        figure(
            "11",
            format_args!(
                "{count} tasks at once: spawned in {spawned:.1?}, over after {took:.1?}, {each} B each; \
                 {first} B kept after the first crowd, {second} B after another and a shutdown; {workers} workers"
            ),
        );
        // After the tasks have ended, the runtime keeps their records for reuse, as many as tasks
        // were alive at once, and a black box per worker. A record has 40 bytes, and its keeper has
        // 16. A place in the vector of free records has 8 bytes, and a vector that grows may have
        // twice as many places as it needs. Records are allocated in steps of 1 MiB. A busy machine
        // may have many workers. After the second crowd, about three times the memory of the first
        // is permitted.
        let most = 72 * count as i64 + workers as i64 * (144 << 10) + (2 << 20);
        assert!(second < most && second < first * 3 + (64 << 10), "{first} and {second} bytes are left");
    });
}

/// A value that panics when it is dropped, unless the thread is already panicking.
struct Spiteful;

impl Drop for Spiteful {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("in a destructor");
        }
    }
}

thread_local! {
    /// Whether a panic on this thread is expected.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether `call` panics.
fn panics<T>(call: impl FnOnce() -> T) -> bool {
    EXPECTED.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    EXPECTED.set(false);
    result.is_err()
}

/// A foreign waker that panics.
struct Trap(Arc<AtomicUsize>);

impl Wake for Trap {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("in a waker");
    }
}

#[test]
fn panics_stay_contained() {
    process("overload::panics_stay_contained", 90, 120, || {
        // Only unexpected panics are reported: those with other messages, and those on this thread
        // while `EXPECTED` is false.
        let (report, own) = (std::panic::take_hook(), std::thread::current().id());
        std::panic::set_hook(Box::new(move |panic| {
            let meant = ["in a poll", "in a destructor", "in a waker"];
            let is_meant = panic.payload().downcast_ref::<&str>().is_some_and(|text| meant.contains(text));
            if !is_meant || std::thread::current().id() == own && !EXPECTED.get() {
                report(panic);
            }
        }));
        let rounds = size(300, 20_000);
        let trapped = Arc::new(AtomicUsize::new(0));
        let begin = Instant::now();
        let (client, server) = park_on(pair());
        let service = task::spawn(async move { echo(&server).await });
        let mut caught = 0;
        for round in 0..rounds {
            // A task panics in its first or its second poll.
            let late = round % 2 == 0;
            let task = task::spawn(async move {
                if late {
                    task::yield_now().await;
                }
                panic!("in a poll");
            });
            caught += usize::from(panics(|| park_on(task)));
            // A destructor panics in the poll of a task, and in a task that is cancelled (even
            // rounds) or that the shutdown drops (odd rounds).
            let ending = task::spawn(async { drop(Spiteful) });
            caught += usize::from(panics(|| park_on(ending)));
            let waiting = task::spawn(async {
                let _spiteful = Spiteful;
                task::sleep(Duration::from_secs(3600)).await;
            });
            if round % 2 == 0 {
                // If the task has begun, its destructor panics. `cancel` does not resume this
                // panic.
                assert_eq!(park_on(waiting.cancel()), None);
            } else {
                drop(waiting);
            }
            // The polling thread calls a waker that panics.
            if round % 10 == 0 {
                let (one, other) = park_on(pair());
                let waker = Waker::from(Arc::new(Trap(trapped.clone())));
                let mut buf = [0; 1];
                let mut read = one.read(&mut buf);
                let mut is_pending = || poll_with(&mut read, &waker).is_pending();
                // An operation may yield by calling its waker. The waker then panics in this poll,
                // and the next poll waits.
                let mut waits = false;
                if panics(|| waits = is_pending()) {
                    waits = is_pending();
                }
                assert!(waits);
                let before = trapped.load(Ordering::SeqCst);
                park_on(other.write_all(b"x")).unwrap();
                eventually("the waker is called", || trapped.load(Ordering::SeqCst) > before);
                drop(read);
                assert_eq!(park_on(one.read(&mut [0; 1])).unwrap(), 1);
            }
            if round % 50 == 0 {
                park_on(ping(&client, b"still here")).unwrap();
            }
        }
        assert_eq!(caught, rounds * 2);
        drop(client);
        park_on(service).unwrap();
        eventually("nothing is left", || rt::metrics().descriptors == 0 && rt::metrics().waiters == 0);
        eventually("half of the sleeping tasks are left", || rt::metrics().tasks_alive == rounds as u64 / 2);
        // The shutdown drops these tasks on other threads or, if it can start none, on this thread.
        // It contains their panics.
        EXPECTED.set(true);
        rt::shutdown(Duration::from_secs(120)).unwrap();
        EXPECTED.set(false);
        assert_eq!(rt::metrics().tasks_alive, 0);
        figure(
            "11",
            format_args!(
                "{rounds} × a panic in a poll, two in destructors; {} in wakers: {} contained outside tasks, the service continued; {:.1?}",
                trapped.load(Ordering::SeqCst),
                rt::metrics().contained_panics,
                begin.elapsed()
            ),
        );
    });
}
