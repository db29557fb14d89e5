//! Tests the reports of simulations that cannot end (feature `sim`). A simulation that stands still
//! reports, for each host, the event that each task waits for. A simulation whose clock stands
//! still or passes the limit also fails.

use std::panic::catch_unwind;
use std::time::Duration;

use netpoll::net::{KeepAlive, ListenConfig, TcpListener, TcpStream};
use netpoll::sim::{Builder, Sim, ms};
use netpoll::task;

/// Returns the message of a simulation that fails.
fn failure<F: Future<Output: Send>>(test: impl FnOnce(Sim) -> F + Send + 'static) -> String {
    let run = || {
        Builder::new().stuck_after(ms(2000)).run(async |sim| {
            test(sim).await;
        });
    };
    let payload = catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    *payload.downcast::<String>().unwrap()
}

async fn serve(addr: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        task::spawn(async move { stream.read(&mut [0; 1]).await });
    }
}

#[test]
fn stalled_simulation_lists_what_waits_for_what() {
    let text = failure(async |sim| {
        sim.host("server").spawn(|| serve("0.0.0.0:7"));
        let client = sim.host("client");
        client.spawn_task(async {
            let stream = TcpStream::connect("server:7").await.unwrap();
            stream.read(&mut [0; 1]).await.unwrap();
        });
        let named = task::Builder::new().name("locker".to_owned());
        let task = named.spawn(std::future::pending::<()>()).unwrap();
        let _sleeper = client.spawn_task(task::sleep(Duration::MAX));
        task.await;
    });
    let lines: Vec<_> = text.lines().collect();
    let has = |host: &str, parts: &[&str]| {
        let from = lines.iter().position(|line| line.starts_with(&format!("  host `{host}`"))).unwrap();
        let of_host = lines[from + 1..].iter().take_while(|line| line.starts_with("    "));
        of_host.into_iter().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(lines[0].contains("the simulation stands still at"), "{text}");
    assert!(has("test", &["the test's own future waits for task", "`locker`"]), "{text}");
    assert!(has("test", &["`locker`, spawned at tests/sim_stall.rs", "something other than a socket"]), "{text}");
    assert!(has("server", &["`server`, spawned at tests/sim_stall.rs", "waits to accept from socket 0"]), "{text}");
    assert!(has("server", &["spawned at tests/sim_stall.rs", "waits to read from socket 2"]), "{text}");
    assert!(has("server", &["socket 0: tcp 0.0.0.0:7, listening, 0 to accept"]), "{text}");
    assert!(has("client", &["spawned at tests/sim_stall.rs", "waits to read from socket 1"]), "{text}");
    assert!(has("client", &["socket 1: tcp 10.0.0.3:", " > 10.0.0.2:7, Established"]), "{text}");
}

#[test]
fn accept_without_a_permit_waits_for_one_and_not_for_a_peer() {
    let text = failure(async |sim| {
        let limited = async || {
            let listener = ListenConfig::new().max_connections(1).listen("0.0.0.0:7").await?;
            let _only = listener.accept().await?;
            listener.accept().await.map(drop)
        };
        sim.host("server").spawn(limited);
        let _client = TcpStream::connect("server:7").await.unwrap();
        std::future::pending::<()>().await;
    });
    assert!(text.contains("waits for a permit or a descriptor to accept from socket 0"), "{text}");
}

#[test]
fn wait_for_an_in_memory_pipe_is_named() {
    let text = failure(async |_sim| {
        let (one, _other) = netpoll::net::pipe().unwrap();
        let writer = one.clone();
        let _writer = task::Builder::new().name("writer".to_owned()).spawn(async move { writer.write(&[0]).await });
        one.read(&mut [0; 1]).await.unwrap();
    });
    assert!(text.contains("the test's own future waits to read from an in-memory pipe"), "{text}");
    assert!(
        text.lines().any(|line| line.contains("`writer`") && line.ends_with("write to an in-memory pipe")),
        "{text}"
    );
}

#[test]
fn simulation_that_allows_threads_fails_if_nothing_happens() {
    let text = failure(async |sim| {
        sim.allow_threads();
        std::future::pending::<()>().await;
    });
    assert!(text.contains("stands still") && text.contains("the test's own future waits"), "{text}");
}

/// Returns the virtual time in the message of a simulation that stands still.
fn stood_still_at(text: &str) -> f64 {
    let at = text.strip_prefix("the simulation stands still at ").and_then(|rest| rest.split(' ').next());
    at.and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn hang_on_idle_connections_is_reported_when_only_keep_alive_is_left() {
    let text = failure(async |sim| {
        sim.host("server").spawn(|| serve("0.0.0.0:7"));
        sim.link("*", "*").latency(ms(5)..ms(40)).loss(0.01);
        // The keep-alive probes of the clients are spread over time, so that a probe is always due
        // soon.
        let clients = (0..50).map(|number| {
            sim.host("client").spawn_task(async move {
                task::sleep(ms(number * 300)).await;
                let stream = TcpStream::connect("server:7").await.unwrap();
                stream.read(&mut [0; 1]).await.unwrap();
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await;
        }
    });
    assert!((14.0..30.0).contains(&stood_still_at(&text)), "the last client connects after 14.7 s: {text}");
    assert_eq!(text.matches("waits to read from socket").count(), 100, "{text}");
}

#[test]
fn writers_that_wait_for_each_other_are_reported_within_10_s() {
    let text = failure(async |sim| {
        sim.host("server").spawn(|| async {
            let listener = TcpListener::bind("0.0.0.0:7").await?;
            let (stream, _) = listener.accept().await?;
            stream.write_all(&[0; 1 << 20]).await
        });
        let stream = TcpStream::connect("server:7").await.unwrap();
        stream.write_all(&[0; 1 << 20]).await.unwrap();
    });
    assert!(stood_still_at(&text) < 10.0, "{text}");
    assert_eq!(text.matches("waits to write to socket").count(), 2, "{text}");
}

#[test]
fn keep_alive_detects_a_dead_peer_although_all_tasks_wait() {
    for crashes in [true, false] {
        Sim::run(1, async move |sim| {
            let server = sim.host("server");
            server.spawn(|| serve("0.0.0.0:7"));
            let stream = TcpStream::connect("server:7").await.unwrap();
            let probes = KeepAlive::new().with_idle(ms(10_000)).with_interval(ms(5000)).with_count(3);
            stream.set_keepalive(probes).unwrap();
            // The first probes are answered.
            task::sleep(ms(60_000)).await;
            if crashes {
                server.crash()
            } else {
                sim.partition("test", "server")
            }
            let error = stream.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(110), "ETIMEDOUT");
        });
    }
}

#[test]
fn simulation_whose_tasks_only_yield_is_reported() {
    let text = failure(async |_| {
        let sleep = task::spawn(task::sleep(ms(1)));
        while !sleep.is_finished() {
            task::yield_now().await;
        }
    });
    assert!(text.contains("a task could always run, so the clock has not advanced"), "{text}");
}

#[test]
fn thread_that_sleeps_past_the_limit_is_reported() {
    for sleep in [Duration::from_secs(31 * 24 * 3600), Duration::from_secs(1 << 40), Duration::MAX] {
        let text = failure(async move |_| {
            std::thread::sleep(sleep);
            task::yield_now().await;
        });
        assert!(text.contains("the simulation has not ended after"), "{text}");
    }
}
