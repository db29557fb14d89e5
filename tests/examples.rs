//! The examples behave as their headers say, each in a process of its own. `cargo test` builds them.

#[path = "common/example.rs"]
mod example;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use example::{Example, PATIENCE, path};

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the example listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn read_line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line
}

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
    // `ulimit -S` leaves room to raise the limit, `ulimit -H` does not.
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
fn echo_returns_its_input() {
    let echo = Example::start("echo", &["127.0.0.1:0"]);
    let mut stream = connect(echo.addr());
    stream.write_all(b"hi\n").expect("room");
    stream.shutdown(Shutdown::Write).expect("an open stream");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "hi\n");
}

#[test]
fn udp_echo_returns_every_datagram() {
    let echo = Example::start("udp_echo", &["0.0.0.0:0"]);
    let asked = SocketAddr::from(([127, 0, 0, 9], echo.addr().port()));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for number in 0..50_u8 {
        socket.send_to(&vec![number; 20 * usize::from(number)], asked).expect("room");
    }
    let mut came = Vec::new();
    for _ in 0..50 {
        let mut buf = [0; 2048];
        let (count, from) = socket.recv_from(&mut buf).expect("an answer");
        assert_eq!(from, asked);
        assert!(buf[..count].iter().all(|byte| usize::from(*byte) * 20 == count));
        came.push(count / 20);
    }
    came.sort_unstable();
    assert!(came.into_iter().eq(0..50));
}

#[test]
fn echo_deadline_drops_idle_client() {
    let echo = Example::start("echo_deadline", &["127.0.0.1:0", "0.05"]);
    let mut stream = connect(echo.addr());
    stream.write_all(b"hi\n").expect("room");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "hi\ntoo slow, bye\n");
}

#[test]
fn chat_broadcasts_to_other_clients() {
    let chat = Example::start("chat", &["127.0.0.1:0"]);
    let addr = chat.addr();
    let mut anna = BufReader::new(connect(addr));
    assert!(read_line(&mut anna).starts_with("you are "));
    let bert = connect(addr);
    let bert_is = bert.local_addr().expect("an address");
    let mut bert = BufReader::new(bert);
    assert_eq!(read_line(&mut bert), format!("you are {bert_is}\n"));
    assert_eq!(read_line(&mut anna), format!("{bert_is}: is here\n"));
    bert.get_mut().write_all(b"hello\nunfinished").expect("room");
    assert_eq!(read_line(&mut anna), format!("{bert_is}: hello\n"));
    drop(bert);
    assert_eq!(read_line(&mut anna), format!("{bert_is}: has left\n"));
}

#[test]
fn graceful_answers_pending_requests_and_exits() {
    let mut graceful = Example::start("graceful", &["127.0.0.1:0"]);
    let addr = graceful.addr();
    let silent = connect(addr);
    let mut busy = connect(addr);
    // Both requests come with one read, so the second is under way when the first is answered.
    busy.write_all(b"one\ntwo\n").expect("room");
    let mut busy = BufReader::new(busy);
    assert_eq!(read_line(&mut busy), "answer to one\n");
    drop(graceful.stdin());
    // Both connections get their answers and the end of the stream.
    let (mut rest, mut nothing) = (String::new(), String::new());
    busy.read_to_string(&mut rest).expect("the end");
    (&silent).read_to_string(&mut nothing).expect("the end");
    assert_eq!(rest, "answer to two\nclosing, bye\n");
    assert_eq!(nothing, "closing, bye\n");
    let (status, output) = graceful.end();
    assert!(status.success() && output.ends_with("all have ended\n"), "{status}: {output}");
    assert!(TcpStream::connect(addr).is_err(), "the listener is closed");
}

#[test]
fn graceful_stops_after_given_number_of_connections() {
    let graceful = Example::start("graceful", &["127.0.0.1:0", "1"]);
    drop(connect(graceful.addr()));
    let (status, output) = graceful.end();
    assert!(status.success() && output.ends_with("all have ended\n"), "{status}: {output}");
}

#[test]
fn proxy_forwards_data_and_half_close() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = listener.local_addr().expect("an address").to_string();
    let proxy = Example::start("proxy", &["127.0.0.1:0", &target]);
    let addr = proxy.addr();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        let mut request = Vec::new();
        stream.read_to_end(&mut request).expect("a request");
        stream.write_all(&request.repeat(3)).expect("room");
    });
    let mut client = connect(addr);
    let request: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    client.write_all(&request).expect("room");
    client.shutdown(Shutdown::Write).expect("an open stream");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an answer");
    assert!(answer == request.repeat(3));
    assert_eq!(proxy.line(), "1000000 bytes up, 3000000 down");
    server.join().expect("a server");
}

#[test]
fn proxy_drops_idle_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = listener.local_addr().expect("an address").to_string();
    let proxy = Example::start("proxy", &["127.0.0.1:0", &target, "0"]);
    let mut client = connect(proxy.addr());
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn happy_eyeballs_reports_winner() {
    let (status, output) = Example::start("happy_eyeballs", &[]).end();
    assert!(status.success(), "{status}: {output}");
    let live = output.split(" is dead, ").nth(1).and_then(|rest| rest.split(" is live").next()).expect("addresses");
    // The default, a shorter stagger, one after the other: two attempts and a winner each.
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
}

/// Clients come all the while; none is refused or cut off, and every process of the line has served.
#[test]
fn hot_restart_refuses_no_connection() {
    let mut server = Example::start("hot_restart", &["127.0.0.1:0"]);
    let process_of = |line: &str| line.rsplit(' ').next().expect("a word").parse::<u32>().expect("a process");
    let line = server.line();
    let addr: SocketAddr = line
        .strip_prefix("listening on ")
        .and_then(|rest| rest.split(',').next())
        .expect("an address")
        .parse()
        .expect("an address");
    let mut processes = vec![process_of(&line)];

    let stop = Arc::new(AtomicBool::new(false));
    let (answered, answers) = channel();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    let mut stream = TcpStream::connect(addr).expect("no connection is refused");
                    stream.set_read_timeout(Some(PATIENCE)).expect("a valid timeout");
                    stream.write_all(b"hello\n").expect("room");
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("no connection is reset");
                    let process =
                        answer.strip_suffix(": hello\n").expect("an answer").parse::<u32>().expect("a process");
                    let _ = answered.send(process);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut stdin = server.stdin();
    let is_served_by = |process| {
        let start = Instant::now();
        while answers.recv_timeout(PATIENCE).expect("an answer") != process {
            assert!(start.elapsed() < PATIENCE, "process {process} serves no client");
        }
    };
    is_served_by(processes[0]);
    for _ in 0..3 {
        stdin.write_all(b"\n").expect("the process reads");
        let mut lines = [server.line(), server.line()];
        lines.sort();
        // The successor prints its address, the predecessor that it has ended.
        let next = process_of(&lines[0]);
        assert_eq!(lines[1], format!("process {} has ended", processes.last().expect("one at least")));
        assert!(!processes.contains(&next));
        processes.push(next);
        is_served_by(next);
    }
    stop.store(true, Ordering::SeqCst);
    let served: usize = clients.into_iter().map(|client| client.join().expect("no client was refused")).sum();
    assert!(served >= 4, "{served}");
    drop(stdin);
    let (status, output) = server.end();
    assert!(status.success(), "{status}: {output}");
    assert!(output.contains(&format!("process {} has ended", processes[3])), "{output}");
    assert!(TcpStream::connect(addr).is_err(), "the listener is closed");
}

#[test]
fn unix_fdpass_hands_connections_to_other_processes() {
    let fdpass = Example::start("unix_fdpass", &["127.0.0.1:0", "2"]);
    let addr = fdpass.addr();
    let parent = fdpass.child.id();
    let mut workers = Vec::new();
    for _ in 0..4 {
        let mut client = BufReader::new(connect(addr));
        let hello = read_line(&mut client);
        let worker: u32 = hello.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("who serves");
        client.get_mut().write_all(b"hi\n").expect("room");
        assert_eq!(read_line(&mut client), "hi\n");
        workers.push(worker);
    }
    assert!(workers[0] != workers[1] && !workers.contains(&parent), "{workers:?}");
    assert_eq!(workers[..2], workers[2..], "in turn");
}

#[test]
fn inotify_reports_its_own_changes() {
    let (status, output) = Example::start("inotify", &[]).end();
    assert!(status.success() && output.starts_with("watching "), "{status}: {output}");
    for event in ["CREATE", "MODIFY", "CLOSE_WRITE", "DELETE"] {
        assert!(output.lines().any(|line| line.contains(event) && line.ends_with(" file")), "{event}: {output}");
    }
}
