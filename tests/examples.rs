//! The examples behave as their headers say. Each example runs in its own process. `cargo test` and
//! `cargo build --examples` build the examples.
//!
//! `example_servers.rs` tests the example servers, and `sim_examples.rs` the examples in
//! simulations.

#[path = "common/example.rs"]
mod example;

use std::process::Command;

use example::{Example, path};

#[test]
fn quickstart_serves_its_clients_and_reports() {
    let (status, output) = Example::start("quickstart", &["50", "1"]).end();
    assert!(status.success(), "{status}: {output}");
    assert!(output.starts_with("50 clients, "), "{output}");
    assert!(output.contains("50 connected"), "{output}");
    for phase in ["10,000 per second", "full speed"] {
        let row = output.lines().rfind(|line| line.starts_with(phase)).expect("a row of the report");
        let rate = row[phase.len()..].split_whitespace().next().and_then(|rate| rate.parse::<u64>().ok());
        assert!(rate.is_some_and(|rate| rate > 0), "{output}");
    }
    assert!(output.contains("p99.9"), "{output}");
}

#[test]
fn quickstart_adapts_to_descriptor_limit() {
    // `ulimit -S` sets only the soft limit, which the example raises. Without `-S`, `ulimit` also
    // lowers the hard limit. The example keeps 64 descriptors for itself, and a client takes two.
    let quickstart = |limit: &str| {
        let script = format!("ulimit {limit} && exec \"$0\" 200 1");
        Example::spawn(Command::new("sh").args(["-c", &script]).arg(path("quickstart"))).end()
    };
    let (status, output) = quickstart("-S -n 100");
    assert!(status.success() && output.starts_with("200 clients, "), "{status}: {output}");
    let (status, output) = quickstart("-n 100");
    assert!(status.success(), "{status}: {output}");
    assert!(output.contains("too few for 200 clients") && output.contains("18 connected"), "{output}");
}

#[test]
fn health_checks_are_answered_in_both_lanes() {
    let (status, output) = Example::start("health", &["20", "5"]).end();
    assert!(status.success(), "{status}: {output}");
    assert!(output.starts_with("5 health checks beside 20 busy tasks"), "{output}");
    for lane in ["lane Normal: p50 ", "lane Control: p50 "] {
        assert!(output.contains(lane), "{output}");
    }
    let turns = output.lines().last().and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    assert!(turns.is_some_and(|turns| turns > 0), "{output}");
}

#[test]
fn happy_eyeballs_reports_winner() {
    let (status, output) = Example::start("happy_eyeballs", &[]).end();
    assert!(status.success(), "{status}: {output}");
    let live = output.split(" is dead, ").nth(1).and_then(|rest| rest.split(" is live").next()).expect("addresses");
    // The example dials with the default stagger, a shorter one, and none. Each dial has two
    // attempts and a winner.
    assert_eq!(output.matches(&format!("connected to {live}")).count(), 3, "{output}");
    assert_eq!(output.matches(": tcp").count(), 6, "{output}");
    let (status, output) = Example::start("happy_eyeballs", &["localhost:bad"]).end();
    assert!(!status.success(), "{output}");
}

#[test]
fn port_scan_finds_open_port() {
    let (status, output) = Example::start("port_scan", &[]).end();
    assert!(status.success() && output.contains(" is open\n") && output.contains(" ports are open"), "{output}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (status, output) = Example::start("port_scan", &["localhost", &port.to_string(), "4", "30"]).end();
    assert!(status.success() && output.starts_with(&format!("{port} is open\n1 of 1 ")), "{output}");
    let (status, output) = Example::start("port_scan", &["localhost", "9-8"]).end();
    assert!(!status.success() && !output.contains("ports are open"), "{status}: {output}");
}

#[test]
fn inotify_reports_its_own_changes() {
    let (status, output) = Example::start("inotify", &[]).end();
    assert!(status.success() && output.starts_with("watching "), "{status}: {output}");
    for event in ["CREATE", "MODIFY", "CLOSE_WRITE", "DELETE"] {
        assert!(output.lines().any(|line| line.contains(event) && line.ends_with(" file")), "{event}: {output}");
    }
}

#[test]
fn black_box_shows_the_long_turn_as_trace_and_picture() {
    let place = |name: &str| std::env::temp_dir().join(format!("netpoll-example-{}-{name}", std::process::id()));
    let (trace, picture) = (place("trace.json"), place("picture.svg"));
    let (status, output) = Example::start("black_box", &[trace.to_str().unwrap(), picture.to_str().unwrap()]).end();
    assert!(status.success(), "{status}: {output}");
    assert!(output.contains(" report (") && output.contains("the longest turn took"), "{output}");
    assert!(std::fs::read_to_string(&trace).unwrap().contains(" report\""));
    assert!(std::fs::read_to_string(&picture).unwrap().ends_with("</svg>\n"));
    std::fs::remove_file(trace).unwrap();
    std::fs::remove_file(picture).unwrap();
}
