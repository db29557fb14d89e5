//! Tests the descriptor numbers and slots of several simulations, and of a simulation that runs
//! while there are real sockets (feature `sim`). Also tests links to hosts that are added later,
//! names and signals of hosts, and the end of a simulation.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream, UdpSocket, is_timeout};
use netpoll::signal::{Signal, SignalKind};
use netpoll::sim::{Builder, Sim, ms};
use netpoll::task;

/// Returns a connection within one host.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[test]
fn socket_kept_from_another_simulation_closes_none_of_this_one() {
    // Two runs of one test with the same seed would use the same descriptor numbers, but a
    // simulation avoids the numbers of another simulation that runs or whose descriptors are still
    // open.
    let kept = Sim::run(1, async |_| connection().await);
    Sim::run(1, async move |_| {
        let (client, server) = connection().await;
        drop(kept);
        client.write_all(b"open").await.unwrap();
        let mut buf = [0; 8];
        assert_eq!(server.read(&mut buf).await.unwrap(), 4);
    });
}

#[test]
fn socket_of_another_simulation_is_unknown_and_named() {
    let (kept, _peer) = Sim::run(1, async |_| connection().await);
    Sim::run(1, async move |sim| {
        let (_client, _server) = connection().await;
        for _ in 0..2 {
            assert_eq!(kept.write_all(b"x").await.unwrap_err().raw_os_error(), Some(9), "EBADF");
        }
        let refusals = sim.refusals();
        assert!(refusals[0].contains("of another simulation") && refusals.len() == 1, "{refusals:?}");
    });
}

#[test]
fn descriptors_of_repeated_runs_have_the_same_numbers_in_the_log() {
    let run = |kept: &mut Vec<TcpStream>| {
        let (stream, log, digest) = Sim::run(7, async |sim| {
            sim.keep_log();
            let (client, _server) = connection().await;
            (client, sim.log(), sim.digest())
        });
        kept.push(stream);
        (log, digest)
    };
    let mut kept = Vec::new();
    let first = run(&mut kept);
    assert_eq!(run(&mut kept), first);
    assert!(first.0.contains("socket(0) = 0"), "{}", first.0);
    assert_ne!(kept[0].as_raw_fd(), kept[1].as_raw_fd(), "the first is still open");
    let number = kept[0].as_raw_fd();
    drop(kept);
    let again = Sim::run(7, async |_| connection().await.0.as_raw_fd());
    assert_eq!(again, number, "a run that is repeated has the same numbers");
}

#[test]
fn peer_sees_the_end_when_another_thread_drops_a_socket() {
    let run = Builder::new().run(async |sim| {
        sim.allow_threads();
        let (client, server) = connection().await;
        // No other event occurs, so the simulation waits for the thread.
        let thread = std::thread::Builder::new().name("dropper".to_owned()).spawn(move || drop(client)).unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        thread.join().unwrap();
    });
    assert_eq!(run.foreign, ["dropper"]);
}

/// The end of a simulation must not remove the deadlines of real sockets, even if sockets of the
/// simulation were dropped on another thread.
#[test]
fn deadline_of_a_real_socket_survives_the_end_of_a_simulation() {
    let shared = Arc::new(Mutex::new(None));
    let (taken, waits) = (shared.clone(), Arc::new(std::sync::Barrier::new(2)));
    let ends = waits.clone();
    let simulation = std::thread::spawn(move || {
        Sim::run(1, async move |_| {
            let mut sockets = Vec::new();
            for _ in 0..50 {
                sockets.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            }
            *taken.lock().unwrap() = Some(sockets);
            waits.wait();
            waits.wait();
        });
    });
    ends.wait();
    // This thread drops the sockets while their simulation is still running.
    drop(shared.lock().unwrap().take());
    task::block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..60 {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.set_read_deadline(Instant::now() + ms(300)).unwrap();
            sockets.push(socket);
        }
        let readers: Vec<_> = sockets
            .into_iter()
            .map(|socket| {
                task::spawn(async move {
                    netpoll::future::timeout(Duration::from_secs(60), socket.recv_from(&mut [0; 1])).await
                })
            })
            .collect();
        task::spawn_blocking(move || {
            ends.wait();
            simulation.join().unwrap();
        })
        .await;
        for reader in readers {
            let result = reader.await.expect("the deadline fires");
            assert!(is_timeout(&result.unwrap_err()));
        }
    });
}

#[test]
fn simulation_has_a_limit_of_open_descriptors() {
    Sim::run(1, async |_| {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut copies: Vec<OwnedFd> = Vec::new();
        let error = loop {
            match one.try_clone() {
                Ok(copy) => copies.push(copy.into()),
                Err(error) => break error,
            }
        };
        assert_eq!((error.raw_os_error(), copies.len()), (Some(24), 99_998), "EMFILE");
        copies.pop();
        assert!(one.try_clone().is_ok());
    });
}

#[test]
fn partition_of_all_hosts_holds_for_hosts_added_later() {
    async fn reaches(sim: Sim, from: &str, to: &str) -> bool {
        let asked = sim.host(from).run(TcpStream::connect((sim.host(to).addrs()[0], 7)));
        netpoll::future::timeout(ms(900), asked).await.is_ok_and(|stream| stream.is_ok())
    }
    async fn serve() -> std::io::Result<()> {
        let listener = TcpListener::bind("0.0.0.0:7").await?;
        loop {
            listener.accept().await?;
        }
    }
    Sim::run(1, async |sim| {
        sim.host("early").spawn(serve);
        sim.partition("*", "*");
        sim.host("late").spawn(serve);
        assert!(!reaches(sim, "early", "late").await && !reaches(sim, "late", "early").await);
        sim.heal("early", "*");
        sim.host("last").spawn(serve);
        assert!(reaches(sim, "early", "last").await && reaches(sim, "last", "early").await);
        assert!(!reaches(sim, "late", "last").await);
        sim.heal("*", "*");
        sim.partition_one_way("*", "early");
        sim.host("new").spawn(serve);
        assert!(!reaches(sim, "new", "early").await);
        assert!(reaches(sim, "new", "late").await);
    });
}

#[test]
fn traffic_of_all_hosts_is_held_for_hosts_added_later() {
    Sim::run(1, async |sim| {
        let server = sim.host("server");
        let socket = server.run(UdpSocket::bind("0.0.0.0:9")).await.unwrap();
        sim.hold("*", "server");
        let client = sim.host("client");
        let sender = client.run(UdpSocket::bind("0.0.0.0:0")).await.unwrap();
        client.run(sender.send_to(b"held", (server.addrs()[0], 9))).await.unwrap();
        let mut buf = [0; 8];
        assert!(netpoll::future::timeout(ms(5000), socket.recv_from(&mut buf)).await.is_err());
        sim.release("*", "*");
        assert_eq!(socket.recv_from(&mut buf).await.unwrap().0, 4);
    });
}

#[test]
fn signal_reaches_the_listeners_of_its_host() {
    Sim::run(1, async |sim| {
        let (one, other) = (sim.host("one"), sim.host("other"));
        let listen = |times: usize| async move {
            let mut hangups = Signal::new(SignalKind::HANGUP).unwrap();
            for _ in 0..times {
                hangups.recv().await.unwrap();
            }
        };
        assert!(!one.raise(SignalKind::HANGUP), "nothing listens yet");
        let first = one.spawn_task(listen(1));
        let second = one.spawn_task(listen(2));
        drop(other.spawn_task(listen(1)));
        task::sleep(ms(1)).await;
        assert!(!one.raise(SignalKind::TERMINATE), "nothing listens for this signal");
        // Pending signals of the same kind merge.
        assert!(one.raise(SignalKind::HANGUP) && one.raise(SignalKind::HANGUP));
        first.await;
        task::sleep(ms(1)).await;
        assert_eq!((one.tasks(), other.tasks()), (1, 1));
        assert!(one.raise(SignalKind::HANGUP));
        second.await;
        assert!(!one.raise(SignalKind::HANGUP), "both listeners were dropped");
        other.kill();
        assert!(!other.raise(SignalKind::HANGUP), "the listener was dropped with its host");
    });
}

/// Regression: a send that failed with EINTR removed the listener.
#[test]
fn signal_is_not_lost_when_calls_are_interrupted() {
    Sim::run(1, async |sim| {
        let host = sim.host("host");
        let listener = host.spawn_task(async {
            let mut hangups = Signal::new(SignalKind::HANGUP).unwrap();
            for _ in 0..50 {
                hangups.recv().await.unwrap();
            }
        });
        task::sleep(ms(1)).await;
        sim.faults().interrupted(0.5);
        for _ in 0..50 {
            assert!(host.raise(SignalKind::HANGUP));
            task::sleep(ms(1)).await;
        }
        listener.await;
    });
}

/// Regression: the simulation kept the sending end of a dropped listener, and so its number.
#[test]
fn dropped_listener_for_signals_leaves_no_socket() {
    Sim::run(1, async |_| {
        let number = async || UdpSocket::bind("127.0.0.1:0").await.unwrap().as_raw_fd();
        let free = number().await;
        let signals = [SignalKind::HANGUP, SignalKind::TERMINATE].map(|kind| Signal::new(kind).unwrap());
        assert_ne!(number().await, free);
        drop(signals);
        assert_eq!(number().await, free);
    });
}

/// Regression: `Signal::new` returned a listener for a number that is not a signal.
#[test]
fn number_that_is_no_signal_is_refused() {
    let error = || Signal::new(SignalKind::from_raw(1000)).unwrap_err();
    let check = move || {
        assert_eq!((error().kind(), error().to_string()), (ErrorKind::InvalidInput, "1000 is not a signal".into()))
    };
    check();
    Sim::run(1, async move |_| check());
}

/// Regression: after an explicit close, the borrowed number of a simulated socket belonged to the
/// next socket.
#[test]
fn borrowed_number_of_a_closed_socket_is_in_use_until_the_socket_is_dropped() {
    const EBADF: Option<i32> = Some(9);
    Sim::run(1, async |_| {
        let (stream, peer) = connection().await;
        let fd = stream.as_fd();
        let number = fd.as_raw_fd();
        stream.force_close().await.unwrap();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        let sockets = [(); 4].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!(socket2::SockRef::from(&fd).local_addr().unwrap_err().raw_os_error(), EBADF);
        assert_eq!(stream.as_raw_fd(), number);
        drop((stream, sockets));
        let sockets = [(); 4].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(sockets.iter().any(|socket| socket.as_raw_fd() == number));
    });
}

/// A socket that outlives its simulation keeps its number in use until it is dropped, even if it
/// was closed before. So no later simulation uses the number, and the drop closes no socket of a
/// later simulation.
#[test]
fn kept_number_of_an_ended_simulation_is_not_used_by_another_one() {
    let (kept, number) = Sim::run(1, async |_| {
        let stream = connection().await.0;
        let number = stream.as_raw_fd();
        stream.force_close().await.unwrap();
        (stream, number)
    });
    Sim::run(1, async move |_| {
        let (client, server) = connection().await;
        assert_ne!(client.as_raw_fd(), number);
        drop(kept);
        client.write_all(b"open").await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 4);
    });
}

/// Regression: `as_fd` on a closed socket opened a file, which a simulation refuses.
#[test]
fn borrow_of_a_closed_socket_is_not_refused() {
    Sim::run(1, async |sim| {
        let (stream, _peer) = connection().await;
        stream.force_close().await.unwrap();
        assert!(socket2::SockRef::from(&stream).local_addr().is_err());
        assert!(sim.refusals().is_empty(), "{:?}", sim.refusals());
    });
}

#[test]
fn host_is_found_by_its_name_with_a_dot_at_the_end() {
    Sim::run(1, async |sim| {
        let host = sim.host("Web.");
        assert!(host == sim.host("web") && host == sim.host("web."));
        assert_eq!(host.name(), "Web");
        sim.link("WEB.", "*").latency(ms(1));
        let names = ["LocalHost", "localhost.", "."];
        let is_refused = |name: &&str| std::panic::catch_unwind(|| sim.host(name)).is_err();
        assert!(names.iter().all(is_refused));
    });
}

#[test]
fn tasks_that_destructors_spawn_without_end_do_not_keep_a_simulation_from_ending() {
    struct Spawner;
    impl Drop for Spawner {
        fn drop(&mut self) {
            start();
        }
    }
    fn start() {
        let spawner = Spawner;
        task::spawn(async move {
            let _spawner = spawner;
            std::future::pending::<()>().await;
        });
    }
    Sim::run(1, async |_| {
        start();
        task::sleep(ms(1)).await;
    });
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn tasks_that_destructors_spawn_end_with_their_host() {
    Sim::run(1, async |sim| {
        let server = sim.host("server");
        server.spawn(|| async {
            let listener = Arc::new(TcpListener::bind("0.0.0.0:80").await?);
            let kept = listener.clone();
            let _spawns = OnDrop(move || {
                let kept = kept.clone();
                task::spawn(async move {
                    task::sleep(ms(100)).await;
                    drop(kept);
                });
            });
            std::future::pending::<std::io::Result<()>>().await
        });
        for _ in 0..3 {
            task::sleep(ms(1)).await;
            // The port must be free.
            server.restart();
        }
        task::sleep(ms(1)).await;
        assert_eq!(server.tasks(), 1);
        server.kill();
        assert_eq!(server.tasks(), 0);
    });
}

#[test]
fn task_that_ends_its_own_host_leaves_no_task() {
    Sim::run(1, async |sim| {
        let server = sim.host("server");
        server.spawn_task(async move {
            let _spawns = OnDrop(|| drop(task::spawn(std::future::pending::<()>())));
            server.kill();
            std::future::pending::<()>().await;
        });
        task::sleep(ms(1)).await;
        assert_eq!(server.tasks(), 0);
    });
}

#[test]
fn task_that_ends_its_own_host_spawns_no_more_tasks() {
    Sim::run(1, async |sim| {
        let server = sim.host("server");
        for restarts in [false, true] {
            let ends = move || if restarts { server.restart() } else { server.kill() };
            server.spawn_task(async move {
                ends();
                task::spawn(std::future::pending::<()>());
                task::yield_now().await;
                task::spawn(std::future::pending::<()>());
            });
            task::sleep(ms(1)).await;
            assert_eq!(server.tasks(), 0, "restarts: {restarts}");
            let on_drop = OnDrop(move || {
                ends();
                task::spawn(std::future::pending::<()>());
            });
            server.spawn_task(async move {
                let _on_drop = on_drop;
                std::future::pending::<()>().await;
            });
            task::sleep(ms(1)).await;
            server.kill();
            assert_eq!(server.tasks(), 0, "in a destructor, restarts: {restarts}");
        }
        // What the task spawns on the host by name belongs to the host's new life.
        server.spawn_task(async move {
            server.restart();
            server.spawn_task(std::future::pending::<()>());
        });
        task::sleep(ms(1)).await;
        assert_eq!(server.tasks(), 1);
        // The test's own future has not ended.
        sim.host("test").kill();
        assert_eq!(task::spawn(async { 7 }).await, 7);
        server
            .run(async move {
                server.kill();
                assert_eq!(task::spawn(async { 8 }).await, 8);
            })
            .await;
    });
}

#[test]
fn programs_are_dropped_in_their_simulation() {
    let dropped = Arc::<Mutex<Vec<_>>>::default();
    let seen = dropped.clone();
    let output = Sim::run(1, async move |sim| {
        let on_drop = OnDrop(move || {
            let bound = std::net::UdpSocket::bind("server:0").map(drop).map_err(|error| error.kind());
            seen.lock().unwrap().push((sim.elapsed(), bound));
            panic!("contained");
        });
        sim.host("server").spawn(move || {
            let _ = &on_drop;
            async {}
        });
        task::sleep(ms(5)).await;
        7
    });
    assert_eq!(output, 7);
    assert_eq!(*dropped.lock().unwrap(), [(ms(5), Ok(()))]);
}

#[test]
fn future_of_a_host_is_dropped_on_its_host() {
    Sim::run(1, async |sim| {
        let (client, bound) = (sim.host("client"), Arc::<Mutex<Vec<_>>>::default());
        let seen = bound.clone();
        // The bind succeeds only on the host `client`, because `client` is the name of its address.
        let on_drop = OnDrop(move || {
            let is_bound = std::net::UdpSocket::bind("client:0").is_ok();
            seen.lock().unwrap().push(is_bound);
        });
        let waits = client.run(async move {
            let _on_drop = on_drop;
            std::future::pending::<()>().await;
        });
        netpoll::future::timeout(ms(1), waits).await.unwrap_err();
        assert_eq!(*bound.lock().unwrap(), [true]);
    });
}
