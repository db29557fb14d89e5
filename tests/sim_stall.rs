//! Simulations that stand still say what waits for what, host by host (feature `sim`).

use std::panic::catch_unwind;
use std::time::Duration;

use netpoll::net::{TcpListener, TcpStream};
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
    assert!(has("test", &["`locker`, spawned at tests/sim_stall.rs", "something else than a socket"]), "{text}");
    assert!(has("server", &["`server`, spawned at tests/sim_stall.rs", "waits to accept from socket 0"]), "{text}");
    assert!(has("server", &["spawned at tests/sim_stall.rs", "waits to read from socket 2"]), "{text}");
    assert!(has("server", &["socket 0: tcp 0.0.0.0:7, listening, 0 to accept"]), "{text}");
    assert!(has("client", &["spawned at tests/sim_stall.rs", "waits to read from socket 1"]), "{text}");
    assert!(has("client", &["socket 1: tcp 10.0.0.3:", " > 10.0.0.2:7, Established"]), "{text}");
}

#[test]
fn simulation_that_waits_for_threads_in_vain_fails_as_well() {
    let text = failure(async |sim| {
        sim.allow_threads();
        std::future::pending::<()>().await;
    });
    assert!(text.contains("stands still") && text.contains("the test's own future waits"), "{text}");
}
