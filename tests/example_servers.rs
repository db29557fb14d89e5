//! The example servers behave as their headers say and stop cleanly on a signal. Each server runs
//! in its own process. `cargo test` and `cargo build --examples` build the examples.
//!
//! With `NETPOLL_TIMED=1`, on an idle machine (`ci/faults.sh exit`), a test also asserts how soon a
//! server exits after its time limit.
#![cfg(feature = "signal")]

#[path = "common/example.rs"]
mod example;
#[path = "common/kernel.rs"]
mod kernel;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use example::{Example, PATIENCE, terminate};

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
fn redis_like_answers_pipelined_commands_in_order() {
    for mode in ["auto_cork", "plain"] {
        let server = Example::start("redis_like", &["127.0.0.1:0", mode]);
        let mut client = connect(server.addr());
        let set = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n";
        let rest = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\nINCR n\r\nINCR n\r\nDEL k n\r\nGET k\r\nINCR\r\nQUIT\r\n";
        client.write_all(&[&set[..], rest].concat()).expect("write");
        let mut answers = String::new();
        client.read_to_string(&mut answers).expect("end of stream");
        let last = "-ERR unknown command or wrong arguments: INCR\r\n+OK\r\n";
        assert_eq!(answers, format!("+OK\r\n$5\r\nhello\r\n+PONG\r\n:1\r\n:2\r\n:2\r\n$-1\r\n{last}"), "{mode}");
        server.terminate();
        assert!(server.end().0.success());
    }
}

#[test]
fn sigterm_stops_every_server() {
    // Each server has served a client before it is stopped. A connected silent client does not
    // delay the exit. (`redis_like` and `graceful` have their own tests.)
    for (name, args) in [("echo", &["127.0.0.1:0"][..]), ("echo_deadline", &["127.0.0.1:0", "600"])] {
        let server = Example::start(name, args);
        let mut client = BufReader::new(connect(server.addr()));
        client.get_mut().write_all(b"hi\n").expect("write");
        assert_eq!(read_line(&mut client), "hi\n", "{name}");
        server.terminate();
        assert_eq!(client.read(&mut [0]).expect("end of stream"), 0, "{name}");
        let (status, output) = server.end();
        assert!(status.success(), "{name}: {status}");
        assert_eq!(output, "1 connections accepted, 0 not ended in the drain time\n", "{name}");
    }

    let chat = Example::start("chat", &["127.0.0.1:0"]);
    let mut client = BufReader::new(connect(chat.addr()));
    assert!(read_line(&mut client).starts_with("you are "));
    chat.terminate();
    assert!(chat.end().0.success());

    let fdpass = Example::start("unix_fdpass", &["127.0.0.1:0", "2"]);
    let mut client = BufReader::new(connect(fdpass.addr()));
    assert!(read_line(&mut client).starts_with("worker "));
    fdpass.terminate();
    assert_eq!(client.read(&mut [0]).expect("end of stream"), 0);
    assert!(fdpass.end().0.success());

    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Example::start("proxy", &["127.0.0.1:0", &target.local_addr().expect("an address").to_string()]);
    let client = connect(proxy.addr());
    drop(target.accept().expect("the proxy connects"));
    drop(client);
    proxy.line();
    proxy.terminate();
    assert!(proxy.end().0.success());

    let hot_restart = Example::start("hot_restart", &["127.0.0.1:0"]);
    let mut client = connect(hot_restart.addr());
    client.write_all(b"hello\n").expect("write");
    client.read_to_string(&mut String::new()).expect("an answer");
    hot_restart.terminate();
    assert!(hot_restart.end().0.success());

    let udp_echo = Example::start("udp_echo", &["127.0.0.1:0"]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.send_to(b"hi", udp_echo.addr()).expect("send");
    socket.recv(&mut [0; 8]).expect("an answer");
    udp_echo.terminate();
    assert!(udp_echo.end().0.success());
}

/// Sends requests until the server ends. Returns the number of answers, and adds each answer to
/// `answered`. If `reconnects`, each request has its own connection.
fn load(addr: SocketAddr, reconnects: bool, answered: &AtomicU64) -> u64 {
    let mut count = 0;
    while let Ok(stream) = TcpStream::connect(addr) {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            let sent = stream.get_mut().write_all(b"1\n");
            if sent.is_err() || stream.read_line(&mut line).is_err() || line != "1 ms later\n" {
                break;
            }
            count += 1;
            answered.fetch_add(1, Ordering::SeqCst);
            if reconnects {
                break;
            }
        }
    }
    count
}

#[test]
fn sigterm_under_load_loses_no_accepted_request() {
    let graceful = Example::start("graceful", &["127.0.0.1:0", &PATIENCE.as_secs().to_string()]);
    let addr = graceful.addr();
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let answered = Arc::clone(&answered);
            thread::spawn(move || load(addr, number % 2 == 0, &answered))
        })
        .collect();
    let start = Instant::now();
    while answered.load(Ordering::SeqCst) < 400 {
        assert!(start.elapsed() < PATIENCE, "no progress");
        thread::sleep(Duration::from_millis(1));
    }
    graceful.terminate();
    let received: u64 = clients.into_iter().map(|client| client.join().expect("a client")).sum();
    let (status, output) = graceful.end();
    assert!(status.success() && output.starts_with("SIGTERM: stopping\n"), "{status}: {output}");
    assert!(output.contains("connections accepted, 0 not ended in the drain time\n"), "{output}");
    // The clients received every answer, and the server answered every request that it read.
    assert!(output.ends_with(&format!("\n{received} of {received} requests answered\n")), "{received}: {output}");
}

#[test]
fn sigterm_answers_requests_that_have_arrived() {
    let graceful = Example::start("graceful", &["127.0.0.1:0", &PATIENCE.as_secs().to_string()]);
    let mut client = BufReader::new(connect(graceful.addr()));
    // The requests are in one segment, so the second and the third have arrived when the first is
    // answered.
    client.get_mut().write_all(b"0\n100\n1\n").expect("write");
    assert_eq!(read_line(&mut client), "0 ms later\n");
    graceful.terminate();
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("end of stream");
    assert_eq!(rest, "100 ms later\n1 ms later\n");
    let (status, output) = graceful.end();
    assert!(status.success() && output.ends_with("\n3 of 3 requests answered\n"), "{status}: {output}");
}

#[test]
fn sigterm_names_stragglers_at_the_time_limit() {
    let graceful = Example::start("graceful", &["127.0.0.1:0", "0.1"]);
    let mut client = BufReader::new(connect(graceful.addr()));
    client.get_mut().write_all(b"0\n3600000\n").expect("write");
    assert_eq!(read_line(&mut client), "0 ms later\n");
    let peer = client.get_ref().local_addr().expect("an address");
    let asked = Instant::now();
    graceful.terminate();
    let (status, output) = graceful.end();
    let past_limit = asked.elapsed().checked_sub(Duration::from_millis(100)).expect("the server waits until the limit");
    println!("exit {past_limit:.1?} after the limit");
    if std::env::var("NETPOLL_TIMED").is_ok_and(|value| value == "1") {
        assert!(past_limit <= Duration::from_millis(50), "{past_limit:?}");
    }
    assert!(status.success(), "{status}: {output}");
    assert!(output.contains("\n1 connections accepted, 1 not ended in the drain time\ntask "), "{output}");
    assert!(output.contains(&format!(", connection from {peer}, open for ")), "{output}");
    assert!(output.ends_with(", did not end when it was closed\n1 of 2 requests answered\n"), "{output}");
}

#[test]
fn echo_returns_its_input() {
    let echo = Example::start("echo", &["127.0.0.1:0"]);
    let mut stream = connect(echo.addr());
    stream.write_all(b"hi\n").expect("write");
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
        socket.send_to(&vec![number; 20 * usize::from(number)], asked).expect("send");
    }
    let mut numbers = Vec::new();
    for _ in 0..50 {
        let mut buf = [0; 2048];
        let (count, from) = socket.recv_from(&mut buf).expect("an answer");
        assert_eq!(from, asked);
        assert!(buf[..count].iter().all(|byte| usize::from(*byte) * 20 == count));
        numbers.push(count / 20);
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..50), "every datagram is answered once");
}

#[test]
fn echo_deadline_drops_idle_client() {
    let echo = Example::start("echo_deadline", &["127.0.0.1:0", "1"]);
    let addr = echo.addr();
    let start = Instant::now();
    loop {
        let mut stream = connect(addr);
        stream.write_all(b"hi\n").expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        if answer == "hi\ntoo slow, bye\n" {
            return;
        }
        // On a busy machine, this client may be too slow from the beginning.
        assert!(answer == "too slow, bye\n" && start.elapsed() < PATIENCE, "{answer}");
    }
}

#[test]
fn chat_broadcasts_to_other_clients() {
    let chat = Example::start("chat", &["127.0.0.1:0"]);
    let addr = chat.addr();
    let mut anna = BufReader::new(connect(addr));
    assert!(read_line(&mut anna).starts_with("you are "));
    let bert = connect(addr);
    let bert_addr = bert.local_addr().expect("an address");
    let mut bert = BufReader::new(bert);
    assert_eq!(read_line(&mut bert), format!("you are {bert_addr}\n"));
    assert_eq!(read_line(&mut anna), format!("{bert_addr}: is here\n"));
    bert.get_mut().write_all(b"hello\nunfinished").expect("write");
    assert_eq!(read_line(&mut anna), format!("{bert_addr}: hello\n"));
    drop(bert);
    assert_eq!(read_line(&mut anna), format!("{bert_addr}: has left\n"));
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
        stream.write_all(&request.repeat(3)).expect("write");
    });
    let mut client = connect(addr);
    let request: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    client.write_all(&request).expect("write");
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
    assert_eq!(client.read(&mut [0]).expect("end of stream"), 0);
}

/// The ids of processes that replace each other. If the test panics, the last one is terminated.
struct Processes(Vec<u32>);

impl Drop for Processes {
    fn drop(&mut self) {
        if let Some(&last) = self.0.last().filter(|_| thread::panicking()) {
            let _ = terminate(last);
        }
    }
}

/// Clients connect continuously. No connection is refused or reset, and every process of the
/// sequence serves clients.
#[test]
fn hot_restart_refuses_no_connection() {
    let mut server = Example::start("hot_restart", &[&kernel::own_address().to_string()]);
    let process_of = |line: &str| line.rsplit(' ').next().expect("a word").parse::<u32>().expect("a process");
    let line = server.line();
    let addr: SocketAddr = line
        .strip_prefix("listening on ")
        .and_then(|rest| rest.split(',').next())
        .expect("an address")
        .parse()
        .expect("an address");
    let mut processes = Processes(vec![process_of(&line)]);

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
                    stream.write_all(b"hello\n").expect("write");
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
    is_served_by(processes.0[0]);
    for _ in 0..3 {
        stdin.write_all(b"\n").expect("the process accepts the input");
        let mut lines = [server.line(), server.line()];
        // The successor prints its address, and the predecessor prints that it has ended, in either
        // order.
        lines.sort();
        let next = process_of(&lines[0]);
        assert_eq!(lines[1], format!("process {} has ended", processes.0.last().expect("at least one")));
        assert!(!processes.0.contains(&next));
        processes.0.push(next);
        is_served_by(next);
    }
    stop.store(true, Ordering::SeqCst);
    let served: usize = clients.into_iter().map(|client| client.join().expect("no client was refused")).sum();
    assert!(served >= 4, "{served}");
    // The end of the input stops no server.
    drop(stdin);
    drop(connect(addr));
    terminate(processes.0[3]).expect("the last process runs");
    let (status, output) = server.end();
    assert!(status.success(), "{status}: {output}");
    assert!(output.contains(&format!("process {} has ended", processes.0[3])), "{output}");
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
        let worker: u32 = hello.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("the worker's pid");
        client.get_mut().write_all(b"hi\n").expect("write");
        assert_eq!(read_line(&mut client), "hi\n");
        workers.push(worker);
    }
    assert!(workers[0] != workers[1] && !workers.contains(&parent), "{workers:?}");
    assert_eq!(workers[..2], workers[2..], "the workers take turns");
}

#[test]
fn unix_fdpass_worker_skips_messages_without_descriptors() {
    let (parent, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut command = Command::new(example::path("unix_fdpass"));
    let mut worker = command.arg("worker").stdin(OwnedFd::from(theirs)).spawn().expect("a process");
    // The command owns this process's copy of `theirs`. Without the copy, the writes below fail if
    // the worker has ended.
    drop(command);
    let parent = netpoll::os::unix::net::UnixStream::from(OwnedFd::from(parent));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut client = BufReader::new(connect(listener.local_addr().expect("an address")));
    let (stream, _) = listener.accept().expect("a client");
    netpoll::task::block_on(async {
        parent.write_all(b"1").await.expect("write");
        parent.send_with_fds(b"1", &[stream.as_fd()]).await.expect("write");
    });
    drop(stream);
    assert!(read_line(&mut client).starts_with(&format!("worker {} ", worker.id())));
    drop((parent, client));
    assert!(worker.wait().expect("a child").success());
}
