//! Tests simulations of ordinary code (feature `sim`).

use std::collections::HashMap;
use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::rt::Lane;
use netpoll::sim::{Builder, Order, Sim, mbit, ms};
use netpoll::task;

const HOUR: Duration = Duration::from_secs(3600);

/// Accepts connections, and echoes each until the end of its stream.
async fn echo(addr: &str) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        task::spawn(async move {
            let mut buf = [0; 4096];
            loop {
                match stream.read(&mut buf).await? {
                    0 => return io::Result::Ok(()),
                    count => stream.write_all(&buf[..count]).await?,
                }
            }
        });
    }
}

/// Connects, sends `text`, and returns as many bytes of the answer.
async fn ask(addr: &str, text: &[u8]) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(addr).await?;
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    let mut got = 0;
    while got < answer.len() {
        match stream.read(&mut answer[got..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => got += count,
        }
    }
    Ok(answer)
}

/// Returns the message of a panic.
fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().map(|text| (*text).to_owned()).unwrap_or_default(),
    }
}

#[test]
fn hours_of_sleep_take_no_time() {
    let real = Instant::now();
    let run = Builder::new().run(async |sim| {
        let (begin, wall) = (Instant::now(), SystemTime::now());
        task::sleep(24 * HOUR).await;
        assert_eq!(begin.elapsed(), 24 * HOUR);
        assert_eq!(wall.elapsed().unwrap(), 24 * HOUR);
        assert_eq!(sim.elapsed(), 24 * HOUR);
    });
    assert_eq!(run.elapsed, 24 * HOUR);
    assert!(real.elapsed() < HOUR);
}

#[test]
fn echo_over_a_link_takes_its_latency() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| echo("0.0.0.0:7"));
        sim.link("*", "*").latency(ms(10));
        let begin = Instant::now();
        assert_eq!(sim.host("client").run(ask("server:7", b"hello")).await.unwrap(), b"hello");
        assert_eq!(begin.elapsed(), ms(40), "handshake and answer are two round trips");
    });
}

#[test]
fn read_timeout_fires_at_its_virtual_time() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| echo("0.0.0.0:7"));
        let stream = TcpStream::connect("server:7").await.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let begin = Instant::now();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed(), Duration::from_secs(30));
    });
}

#[test]
fn same_seed_gives_same_digest_and_different_seed_gives_different_digest() {
    let run = |seed| {
        let run = Builder::new().seed(seed).run(async |sim| {
            sim.host("server").spawn(|| echo("[::]:7"));
            sim.link("*", "*").latency(ms(1)..ms(20)).loss(0.05).bandwidth(mbit(50)).reorder(0.05, ms(5));
            sim.faults().short(0.1).interrupted(0.05).spurious(0.05).late_edges(0.05).repeated_edges(0.05);
            let clients: Vec<_> = (0..5)
                .map(|number| {
                    let client = sim.host(&format!("client{number}"));
                    client
                        .run(async move { task::spawn(async move { ask("server:7", &[number; 20_000]).await }).await })
                })
                .collect();
            for (number, client) in (0..).zip(clients) {
                assert!(client.await.unwrap() == [number; 20_000]);
            }
            let order: Vec<_> = (0..20).map(|key| (key, ())).collect::<HashMap<_, _>>().into_keys().collect();
            (order, sim.random())
        });
        (run.output, run.digest, run.elapsed, run.counters)
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn datagrams_are_lost_at_the_rate_of_their_link() {
    let got = Sim::run(1, async |sim| {
        let server = sim.host("server");
        sim.link("test", "server").loss(0.5);
        let socket = server.run(UdpSocket::bind("0.0.0.0:5")).await.unwrap();
        let client = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        for number in 0..100 {
            client.send_to(&[number], "server:5").await.unwrap();
            task::sleep(ms(1)).await;
        }
        let mut got = 0;
        socket.set_read_timeout(Some(ms(100))).unwrap();
        while socket.recv_from(&mut [0; 16]).await.is_ok() {
            got += 1;
        }
        got
    });
    assert!((25..75).contains(&got), "{got}");
}

#[test]
fn peers_notice_partition_and_crash() {
    Sim::run(1, async |sim| {
        let server = sim.host("server");
        server.spawn(|| echo("0.0.0.0:7"));
        let client = sim.host("client");
        let stream = client.run(TcpStream::connect("server:7")).await.unwrap();
        sim.partition("client", "server");
        stream.write_all(b"x").await.unwrap();
        stream.set_read_timeout(Some(ms(5000))).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        sim.heal("client", "server");
        stream.set_read_timeout(None).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 1, "the segment was retransmitted");

        server.crash();
        assert!(server.tasks() == 0 && !server.is_up());
        server.restart();
        stream.write_all(b"y").await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(client.run(ask("server:7", b"again")).await.unwrap(), b"again");

        let stream = client.run(TcpStream::connect("server:7")).await.unwrap();
        task::sleep(ms(100)).await;
        server.kill();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "the system closes its sockets");
        assert_eq!(
            client.run(TcpStream::connect("server:7")).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    });
}

/// A waker may be called under a lock that a destructor takes, so the wake-up of an ended task does
/// not drop the task.
#[test]
fn tasks_that_wake_each_other_under_a_lock_end_with_their_host() {
    use std::sync::{Arc, Mutex};
    use std::task::Waker;
    #[derive(Clone)]
    struct Peers(Arc<Mutex<Vec<Waker>>>);
    impl Drop for Peers {
        fn drop(&mut self) {
            self.0.lock().unwrap().drain(..).for_each(Waker::wake);
        }
    }
    Builder::new().stuck_after(Duration::from_secs(20)).run(async |sim| {
        let peers = Arc::new(Mutex::new(Vec::new()));
        let spawn = |host: &str| {
            for _ in 0..3 {
                let peers = Peers(peers.clone());
                drop(sim.host(host).spawn_task(std::future::poll_fn(move |cx| {
                    peers.0.lock().unwrap().push(cx.waker().clone());
                    std::task::Poll::<()>::Pending
                })));
            }
        };
        spawn("a");
        task::sleep(ms(1)).await;
        sim.host("a").crash();
        assert_eq!(sim.host("a").tasks(), 0);
        // The tasks also end at the end of the simulation.
        spawn("b");
        task::sleep(ms(1)).await;
    });
}

#[test]
fn host_names_resolve_to_their_addresses() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| echo("0.0.0.0:7"));
        let addr = sim.host("server").addrs()[0];
        let stream = TcpStream::connect("server:7").await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), addr);
        assert!(TcpStream::connect("nobody:7").await.unwrap_err().to_string().contains("no such host"));
        assert_eq!(sim.refusals(), [""; 0], "a look-up opens no file");
        assert_eq!(std::net::ToSocketAddrs::to_socket_addrs("server:7").unwrap().next().unwrap().ip(), addr);
        for name in ["localhost:7", "LOCALHOST:7", "localhost.:7", "LocalHost.:7"] {
            assert!(std::net::ToSocketAddrs::to_socket_addrs(name).unwrap().all(|addr| addr.ip().is_loopback()));
        }
    });
}

#[test]
fn unix_sockets_and_blocking_calls_work_within_a_host() {
    Sim::run(1, async |sim| {
        let (near, far) = netpoll::unix::UnixStream::pair().unwrap();
        near.write_all(b"pair").await.unwrap();
        let mut buf = [0; 8];
        assert_eq!(far.read(&mut buf).await.unwrap(), 4);
        let listener = netpoll::unix::UnixListener::bind("/simulated/socket").await.unwrap();
        let client = task::spawn(async { netpoll::unix::UnixStream::connect("/simulated/socket").await });
        let (server, _) = listener.accept().await.unwrap();
        client.await.unwrap().write_all(b"named").await.unwrap();
        assert_eq!(server.read(&mut buf).await.unwrap(), 5);
        assert_eq!(task::spawn_blocking(|| 7).await, 7);
        assert_eq!(task::spawn_local(async { 8 }).await, 8);
        assert!(sim.is_replayable());
    });
}

#[test]
fn misuse_is_reported() {
    let cases: [(fn(), &str); 13] = [
        (|| Sim::run(1, async |sim| _ = sim.link("*", "*").loss(1.5)), "probability from 0 to 1, not 1.5"),
        (|| Sim::run(1, async |sim| sim.partition("a", "test")), "there is no host `a`: the hosts are test"),
        (|| Sim::run(1, async |sim| _ = sim.link("*", "*").latency(ms(2)..ms(1))), "is empty"),
        (|| Sim::run(1, async |sim| _ = sim.link("*", "*").bandwidth(0)), "a bandwidth of 0"),
        (|| Sim::run(1, async |sim| _ = sim.link("*", "*").mtu(10)), "an MTU is between 576 and 65535 bytes, not 10"),
        (|| Sim::run(1, async |sim| _ = sim.faults().short(-0.1)), "probability from 0 to 1, not -0.1"),
        (|| Sim::run(1, async |sim| _ = sim.host("*")), "`*` is not a valid host name"),
        (|| Sim::run(1, async |sim| _ = sim.host("10.0.0.1")), "`10.0.0.1` is not a valid host name"),
        (
            || task::block_on(async { Sim::run(2, async |_| netpoll::sim::paused(async || ())) }),
            "cannot run inside another",
        ),
        (|| Sim::run(1, async |_| Sim::run(2, async |_| ())), "a simulation cannot run inside another"),
        (|| Sim::run(1, async |_| task::block_on(async {})), "`block_on` inside a simulation"),
        (|| Sim::run(1, async |_| task::spawn(async { task::block_on(async {}) }).await), "`block_on` inside"),
        (|| _ = Builder::new().limit(HOUR).run(async |_| task::sleep(2 * HOUR).await), "has not ended after"),
    ];
    for (case, expected) in cases {
        let text = message(catch_unwind(case).unwrap_err());
        assert!(text.contains(expected), "{expected}: {text}");
    }
    Sim::run(1, async |_| {
        let second = netpoll::rt::Builder::new().start().unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::Unsupported);
        assert!(second.to_string().contains("simulation"), "{second}");
        assert!(netpoll::rt::shutdown(ms(1)).unwrap_err().on_runtime_thread);
        assert!(std::thread::Builder::new().spawn(|| ()).is_err());
    });
}

/// Regression: the values were dropped outside the task, so the destructor panicked again, which
/// aborted the process.
#[test]
fn task_locals_of_a_panicking_test_are_dropped_in_its_task() {
    struct Uses;
    impl Drop for Uses {
        fn drop(&mut self) {
            NUMBER.with(|number| assert_eq!(*number, 7));
            DROPS.fetch_add(1, Ordering::SeqCst);
        }
    }
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    task::task_local! {
        static NUMBER: u32 = 7;
        static USES: Uses = Uses;
    }
    let case = || {
        Sim::run(1, async |_| {
            NUMBER.with(|_| ());
            USES.with(|_| ());
            panic!("the test fails");
        })
    };
    assert!(message(catch_unwind(case).unwrap_err()).contains("the test fails"));
    assert_eq!(DROPS.load(Ordering::SeqCst), 1);
}

/// If a task does not yield within the limit of real time, the simulation fails with a message that
/// names the task.
#[test]
fn task_that_never_yields_is_named() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = Arc::new(AtomicBool::new(false));
    let spins = stop.clone();
    let payload = catch_unwind(move || {
        Builder::new().stuck_after(ms(1000)).run(async |_| {
            let spin = async move {
                while !spins.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            task::Builder::new().name("spinner".to_owned()).spawn(spin).unwrap().await;
        })
    });
    stop.store(true, Ordering::Relaxed);
    let text = message(payload.unwrap_err());
    assert!(text.contains("is stuck: `spinner` has run for 1s without yielding"), "{text}");
}

#[test]
fn real_threads_files_and_sockets_are_refused_and_named() {
    use std::os::fd::AsRawFd;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    Sim::run(1, async move |sim| {
        assert_eq!(std::fs::read(file).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(std::fs::File::create("/tmp/x").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(std::thread::Builder::new().spawn(|| ()).is_err());
        let netlink = socket2::Socket::new(16.into(), 3.into(), None).unwrap_err();
        assert_eq!(netlink.raw_os_error(), Some(97), "EAFNOSUPPORT");
        let raw = socket2::Socket::new(socket2::Domain::IPV4, 3.into(), None).unwrap_err();
        assert_eq!(raw.raw_os_error(), Some(94), "ESOCKTNOSUPPORT");
        let refusals = sim.refusals();
        for (refusal, expected) in
            refusals.iter().zip(["Cargo.toml`", "the file `/tmp/x`", "starts a thread", "family 16", "of type 3"])
        {
            assert!(refusal.contains(expected), "{refusal}");
        }
        assert_eq!(refusals.len(), 5);
        assert!(std::thread::available_parallelism().is_ok());
        assert_eq!(sim.refusals().len(), 5, "files about the process itself are allowed");

        sim.allow_files();
        sim.allow_threads();
        assert!(std::fs::read(file).unwrap().starts_with(b"[package]"));
        std::thread::spawn(|| ()).join().unwrap();
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(one.as_raw_fd() >= 1 << 30, "sockets stay simulated");
        assert_eq!(sim.refusals().len(), 5);
    });
    assert!(std::fs::read(file).is_ok());
}

#[test]
fn errors_and_panics_of_host_programs_end_the_simulation() {
    let failed = |run: fn()| message(catch_unwind(run).unwrap_err());
    let text = failed(|| {
        Sim::run(1, async |sim| {
            sim.host("server").spawn(|| async { TcpListener::bind("192.0.2.1:1").await.map(drop) });
            std::future::pending::<()>().await;
        });
    });
    assert!(text.contains("the program of host `server` failed") && text.contains("bind"), "{text}");
    let text = failed(|| {
        Sim::run(1, async |sim| {
            sim.host("server").spawn(|| async { assert!(std::hint::black_box(false), "on purpose") });
            std::future::pending::<()>().await;
        })
    });
    assert_eq!(text, "on purpose");
}

#[test]
fn threads_are_allowed_on_request_and_mark_the_run() {
    let run = Builder::new().run(async |sim| {
        sim.allow_threads();
        let (sender, receiver) = std::sync::mpsc::channel();
        let parked = task::spawn(async move {
            let mut sent = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut sent, true) {
                    return std::task::Poll::Ready(());
                }
                sender.send(cx.waker().clone()).unwrap();
                std::task::Poll::Pending
            })
            .await;
        });
        let waker: std::task::Waker = loop {
            match receiver.try_recv() {
                Ok(waker) => break waker,
                Err(_) => task::yield_now().await,
            }
        };
        std::thread::Builder::new().name("foreigner".into()).spawn(|| waker.wake()).unwrap().join().unwrap();
        parked.await;
        assert!(!sim.is_replayable());
    });
    assert_eq!(run.foreign, ["foreigner"]);
}

#[test]
fn fifo_order_runs_tasks_as_they_were_woken() {
    let order = |order| {
        Builder::new().seed(5).order(order).run(async |_| {
            let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let tasks: Vec<_> = (0..20)
                .map(|number| {
                    let seen = seen.clone();
                    task::spawn(async move { seen.lock().unwrap().push(number) })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            seen.lock().unwrap().clone()
        })
    };
    let sorted: Vec<_> = (0..20).collect();
    assert_eq!(order(Order::Fifo).output, sorted);
    assert_ne!(order(Order::Random).output, sorted);
}

/// In either order of the scheduler, a draw chooses a control task if one is runnable, except that
/// about one of 20 draws chooses among all runnable tasks.
#[test]
fn control_tasks_go_first_and_starve_no_task() {
    const PER_LANE: usize = 5;
    for order in [Order::Fifo, Order::Random] {
        let run = Builder::new().order(order).seed(7).run(|_sim| async {
            let turns = Arc::new([const { AtomicUsize::new(0) }; 2]);
            for lane in [Lane::Normal, Lane::Control] {
                for _ in 0..PER_LANE {
                    let turns = turns.clone();
                    let endless = async move {
                        loop {
                            turns[usize::from(lane == Lane::Control)].fetch_add(1, Ordering::SeqCst);
                            task::yield_now().await;
                        }
                    };
                    drop(task::Builder::new().lane(lane).spawn(endless));
                }
            }
            while turns[0].load(Ordering::SeqCst) < 100 {
                task::yield_now().await;
            }
            turns[1].load(Ordering::SeqCst)
        });
        // The test's own future takes some of the turns of ordinary tasks.
        assert!((1000..20_000).contains(&run.output), "{} control turns, {order:?}", run.output);
    }
}

#[test]
fn log_diagram_and_capture_show_the_packets() {
    Sim::run(1, async |sim| {
        sim.keep_log();
        sim.keep_packets();
        sim.host("server").spawn(|| echo("0.0.0.0:7"));
        sim.host("client").run(ask("server:7", b"hello")).await.unwrap();
        sim.note("done");
        let (log, diagram) = (sim.log(), sim.diagram());
        assert!(log.contains("TCP SYN seq 0") && log.contains("connect("), "{log}");
        assert!(diagram.lines().next().unwrap().contains("server") && diagram.contains("->"), "{diagram}");
        assert!(diagram.contains("* done"), "{diagram}");
        assert!(sim.capture().len() > 400);
        assert!(sim.counters().packets_sent >= 7);
    });
}

/// With `NETPOLL_CAPTURE=FILE`, the test writes the capture to this file. `ci/sim.sh capture`
/// passes the file to tshark.
#[test]
fn capture_is_written_for_other_tools() {
    let capture = Sim::run(1, async |sim| {
        sim.keep_packets();
        sim.link("*", "*").loss(0.1).duplicate(0.1);
        let server = sim.host("server");
        server.spawn(|| echo("[::]:7"));
        let client = sim.host("client");
        for addr in server.addrs() {
            client.run(ask(&std::net::SocketAddr::new(addr, 7).to_string(), &[7; 5000])).await.unwrap();
            let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = client.run(UdpSocket::bind(any)).await.unwrap();
            socket.send_to(b"odd", (addr, 9)).await.unwrap();
            task::sleep(ms(10)).await;
        }
        assert!(client.run(TcpStream::connect("192.0.2.1:1")).await.is_err());
        assert!(client.run(TcpStream::connect("server:9")).await.is_err());
        sim.capture()
    });
    assert!(capture.len() > 10_000);
    if let Some(path) = std::env::var_os("NETPOLL_CAPTURE") {
        std::fs::write(path, capture).unwrap();
    }
}

#[test]
fn wall_clocks_of_hosts_may_differ() {
    Sim::run(1, async |sim| {
        let (fast, slow) = (sim.host("fast"), sim.host("slow"));
        fast.skew_ahead(HOUR);
        slow.skew_behind(HOUR);
        let now = SystemTime::now();
        assert_eq!(fast.run(async { SystemTime::now() }).await.duration_since(now).unwrap(), HOUR);
        assert_eq!(now.duration_since(slow.run(async { SystemTime::now() }).await).unwrap(), HOUR);
    });
}

#[test]
fn sleep_of_the_thread_advances_the_clock() {
    Sim::run(1, async |_| {
        let begin = Instant::now();
        std::thread::sleep(HOUR);
        assert_eq!(begin.elapsed(), HOUR);
    });
}

/// A slot keeps the timer entry of its previous socket. The time of the entry is that of the
/// previous socket's clock, which may be virtual.
#[test]
fn deadlines_hold_in_slots_that_a_simulation_has_used() {
    async fn sockets() -> Vec<UdpSocket> {
        let mut sockets = Vec::new();
        for _ in 0..20 {
            sockets.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        }
        sockets
    }
    async fn deadlines_come(after: Duration) {
        for socket in sockets().await {
            socket.set_read_deadline(Instant::now() + after).unwrap();
            let result = netpoll::future::timeout(Duration::from_secs(60), socket.recv_from(&mut [0; 1])).await;
            assert_eq!(result.expect("the deadline fires").unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }
    let armed_and_left = || {
        Sim::run(1, async |_| {
            for socket in sockets().await {
                socket.set_read_deadline(Instant::now() + ms(1)).unwrap();
            }
        })
    };
    armed_and_left();
    task::block_on(deadlines_come(ms(5)));
    armed_and_left();
    Sim::run(2, async |_| deadlines_come(ms(5)).await);
}

#[test]
fn real_sockets_work_outside_simulations() {
    let real = task::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = task::spawn(async move { TcpStream::connect(addr).await.unwrap().write_all(b"real").await });
        let mut buf = [0; 8];
        let count = listener.accept().await.unwrap().0.read(&mut buf).await.unwrap();
        client.await.unwrap();
        buf[..count].to_vec()
    });
    assert_eq!(real, b"real");
}

/// A server drops silent clients, as in the example of `netpoll::sim`.
#[netpoll::test(sim, seeds = 20)]
async fn silent_clients_are_dropped(sim: Sim) {
    sim.host("server").spawn(|| async {
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        loop {
            let (stream, _) = listener.accept().await?;
            task::spawn(async move {
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                stream.read(&mut [0; 512]).await
            });
        }
        #[allow(unreachable_code)]
        io::Result::Ok(())
    });
    sim.link("*", "server").latency(ms(5)..ms(40)).loss(0.01).bandwidth(mbit(10));
    let client = sim.host("client");
    let waited = client.run(async {
        let stream = TcpStream::connect("server:80").await?;
        let begin = Instant::now();
        assert_eq!(stream.read(&mut [0; 1]).await?, 0);
        io::Result::Ok(begin.elapsed().as_secs())
    });
    // A lost packet adds a retransmission timeout.
    assert!((29..=33).contains(&waited.await.unwrap()));
}

#[netpoll::test(sim)]
async fn test_without_parameter_returns_a_result() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = task::spawn(TcpStream::connect(listener.local_addr()?));
    listener.accept().await?;
    client.await.map(drop)
}

#[netpoll::test(sim)]
#[should_panic(expected = "the test returned an error")]
async fn test_that_returns_an_error_fails() -> io::Result<()> {
    TcpStream::connect("127.0.0.1:1").await.map(drop)
}

/// Clients send requests during partitions, crashes and faults. Every request is answered in full,
/// fails with an error of a kind that real networks cause, or is dropped when the client's timeout
/// ends.
#[netpoll::test(sim, seeds = 30)]
async fn all_requests_end_under_partitions_and_crashes(sim: Sim) {
    let server = sim.host("server");
    server.spawn(|| echo("[::]:7"));
    let pick = |below: u64| sim.random() % below;
    sim.link("*", "*").latency(ms(1)..ms(2 + pick(50))).loss([0.0, 0.02, 0.2][pick(3) as usize]);
    if pick(2) == 0 {
        sim.link("*", "*").reorder(0.1, ms(20)).duplicate(0.05);
        sim.faults().short(0.2).interrupted(0.05).spurious(0.1).late_edges(0.1).repeated_edges(0.1);
    }
    let mut clients = Vec::new();
    for number in 0..6_u8 {
        let host = sim.host(&format!("client{number}"));
        let length = 1 + pick(30_000) as usize;
        let patience = Duration::from_millis(50 + pick(60_000));
        clients.push(host.spawn_task(async move {
            for _ in 0..3 {
                let asked = netpoll::future::timeout(patience, ask("server:7", &vec![number; length])).await;
                match asked {
                    Ok(Ok(answer)) => assert!(answer == vec![number; length]),
                    Ok(Err(error)) => assert!(
                        matches!(
                            error.kind(),
                            io::ErrorKind::TimedOut
                                | io::ErrorKind::ConnectionRefused
                                | io::ErrorKind::ConnectionReset
                                | io::ErrorKind::BrokenPipe
                                | io::ErrorKind::UnexpectedEof
                                | io::ErrorKind::HostUnreachable
                        ),
                        "{error}"
                    ),
                    Err(_) => {}
                }
            }
        }));
    }
    let trouble = task::spawn(async move {
        for _ in 0..4 {
            task::sleep(ms(sim.random() % 5000)).await;
            let client = format!("client{}", sim.random() % 6);
            match sim.random() % 4 {
                0 => sim.partition(&client, "server"),
                1 => sim.heal("*", "*"),
                2 => server.restart(),
                _ => {
                    server.crash();
                    task::sleep(ms(sim.random() % 3000)).await;
                    server.restart();
                }
            }
        }
        sim.heal("*", "*");
    });
    for client in clients {
        client.await;
    }
    trouble.await;
    // The network is healed and the server runs, so a patient client is answered.
    sim.link("*", "*").loss(0.0);
    let patient = async {
        while ask("server:7", b"still there").await.is_err() {
            task::sleep(ms(100)).await;
        }
    };
    netpoll::future::timeout(HOUR, sim.host("patient").run(patient)).await.expect("the server answers");
}

/// A seed that fails once fails again, alone and among all seeds of the test.
#[test]
fn seed_that_fails_fails_again_when_repeated() {
    let failing = |sim: Sim| async move {
        sim.link("*", "*").loss(0.3);
        sim.host("server").spawn(|| echo("0.0.0.0:7"));
        let begin = Instant::now();
        sim.host("client").run(ask("server:7", b"x")).await.unwrap();
        assert!(begin.elapsed() < ms(200), "a packet was lost");
    };
    let failed: Vec<_> = (0..20).filter(|&seed| catch_unwind(|| Sim::run(seed, failing)).is_err()).collect();
    assert!(!failed.is_empty() && failed.len() < 20, "{failed:?}");
    for &seed in &failed {
        let text = message(catch_unwind(|| Sim::run(seed, failing)).unwrap_err());
        assert!(text.contains("a packet was lost"), "{text}");
    }
    let text = message(catch_unwind(|| netpoll::sim::test("sim::name", 20, failing)).unwrap_err());
    assert!(text.contains("a packet was lost"), "{text}");
}

/// The first run on this thread reads the crate's clock after two seconds, and the second run at
/// its beginning.
#[test]
fn second_simulation_on_a_thread_sleeps_as_long_as_the_first() {
    for blocks in [2, 0] {
        netpoll::sim::paused(|| async move {
            std::thread::sleep(Duration::from_secs(blocks));
            let start = Instant::now();
            task::sleep(ms(100)).await;
            assert_eq!(start.elapsed(), ms(100));
        });
    }
}

#[netpoll::test(sim)]
async fn host_name_that_is_not_utf8_does_not_exist(_sim: Sim) {
    let mut list = std::ptr::null_mut();
    let (name, null) = (c"\xff.example".as_ptr(), std::ptr::null());
    // SAFETY: the pointers are valid for the call, or null.
    let code = unsafe { libc::getaddrinfo(name, null, null.cast(), &raw mut list) };
    assert_eq!((code, list.is_null()), (libc::EAI_NONAME, true));
}

/// As on real sockets, a read that already waits returns the end of the stream.
#[netpoll::test(sim)]
async fn shutdown_of_reading_wakes_a_waiting_read(sim: Sim) -> io::Result<()> {
    for how in [std::net::Shutdown::Read, std::net::Shutdown::Both] {
        let listener = TcpListener::bind("[::]:0").await?;
        let port = listener.local_addr()?.port();
        let client = sim.host("client").run(TcpStream::connect(("test", port))).await?;
        let (server, _) = listener.accept().await?;
        let reader = server.clone();
        let read = task::spawn(async move { reader.read(&mut [0; 8]).await });
        task::sleep(ms(10)).await;
        server.shutdown(how)?;
        assert_eq!(read.await?, 0);
        drop(client);
    }
    Ok(())
}

/// The task does not belong to the simulation, so a worker runs it.
#[test]
fn task_outside_is_woken_from_inside_a_simulation() {
    let (sender, receiver) = futures::channel::oneshot::channel::<()>();
    let outside = task::spawn(receiver);
    Builder::new().run(async move |_| sender.send(()).unwrap());
    task::block_on(netpoll::future::timeout(Duration::from_secs(180), outside))
        .expect("a worker runs the task")
        .unwrap();
}
