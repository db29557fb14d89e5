//! Processes with a limit of 32 descriptors. A server with 200 waiting clients is idle while it has
//! no free descriptor, and continues when it has one. Other tests check sockets, look-ups and
//! listeners at the limit.
//!
//! `NETPOLL_PRESSURE_MS` is the time in milliseconds for which the server is observed while it has
//! no free descriptor. The default is 2000, and `ci/faults.sh --full` sets 30000. With
//! `NETPOLL_TIMED=1`, which needs an idle machine, the test also asserts how soon the server
//! continues. `ci/faults.sh` sets `NETPOLL_TIMED`.
#![cfg(target_os = "linux")] // TCP_INFO, and /proc

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{becomes, echo, is_child, poll_once, run, set_nofile};
use netpoll::net::{TcpListener, TcpStream, UdpSocket, raw_os_error};
use netpoll::os::unix::net::{UnixDatagram, UnixStream};
use netpoll::prelude::*;
use netpoll::{rt, task};

const NOFILE: u64 = 32;
const CLIENTS: usize = 200;
/// The number of descriptors that other code in the server's process holds.
const HELD: usize = 8;
const NAME: &str = "server_with_32_descriptors_serves_200_clients";

/// Runs a server that echoes on each connection of `incoming`, and prints its address. A line on
/// standard input frees descriptors that this crate does not own. The next line ends the process.
fn serve() {
    set_nofile(NOFILE);
    let mut held: Vec<_> = (0..HELD).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("\nat {}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut lines = std::io::stdin().lines();
            lines.next();
            held.clear();
            lines.next();
            std::process::exit(0);
        });
        let mut incoming = listener.incoming();
        while let Some(stream) = incoming.next().await {
            let stream = stream.unwrap();
            drop(task::spawn(async move { echo(&stream).await }));
        }
    });
}

/// Returns the CPU time of a process.
fn cpu_time_of(child: &Child) -> Duration {
    let mut clock = 0;
    // SAFETY: `clock` is valid for the call.
    assert_eq!(unsafe { libc::clock_getcpuclockid(child.id() as libc::pid_t, &raw mut clock) }, 0);
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the number of open descriptors of a process that are below [`NOFILE`]. (Inherited
/// descriptors may be above it.)
fn descriptors_of(child: &Child) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap());
    numbers.filter(|&number| number < NOFILE).count()
}

/// Returns the number of `clients` that have been answered.
fn answered(clients: &mut [(StdStream, bool)]) -> usize {
    for (stream, is_answered) in clients.iter_mut().filter(|(_, is_answered)| !is_answered) {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => *is_answered = true,
            Ok(_) => panic!("the server has hung up"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    clients.iter().filter(|(_, is_answered)| *is_answered).count()
}

#[test]
fn server_with_32_descriptors_serves_200_clients() {
    if is_child(NAME) {
        return serve();
    }
    let idle_time =
        Duration::from_millis(std::env::var("NETPOLL_PRESSURE_MS").map_or(2000, |text| text.parse().unwrap()));
    let mut command = Command::new(std::env::current_exe().unwrap());
    // The descriptors are counted, and each shard of the poller takes two when it is first used.
    let variables = [("NETPOLL_TEST_CHILD", NAME), ("NETPOLL_POLLER_SHARDS", "1")];
    command.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).envs(variables);
    let mut child = common::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let (mut commands, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut lines = output.lines().map(Result::unwrap);
    let addr = lines.find_map(|line| line.strip_prefix("at ").map(str::to_owned)).expect("an address");
    let addr: SocketAddr = addr.parse().unwrap();
    // The server's own descriptors, and those inherited from the test runner.
    let without_clients = descriptors_of(&child);

    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream = StdStream::connect(addr).unwrap();
            stream.write_all(b"x").unwrap();
            stream.set_nonblocking(true).unwrap();
            (stream, false)
        })
        .collect();
    // No descriptor is free, so no further client is served.
    let mut full = 0;
    common::eventually("no descriptor to be free, and all accepted clients to be answered", || {
        let open = descriptors_of(&child);
        full = answered(&mut clients);
        open == NOFILE as usize && full == open - without_clients
    });
    let before = cpu_time_of(&child);
    let begin = Instant::now();
    std::thread::sleep(idle_time);
    let used = cpu_time_of(&child) - before;
    let share = used.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
    assert_eq!(answered(&mut clients), full);
    assert!(full < NOFILE as usize, "{full}");
    assert!(share <= 1.0, "{used:?} of CPU time in {:?}", begin.elapsed());

    // The crate does not learn of descriptors that other code closes. By now, the pauses between
    // its attempts have grown to 1 s.
    commands.write_all(b"free\n").unwrap();
    let begin = Instant::now();
    common::eventually("further clients to be answered", || answered(&mut clients) > full);
    let unseen = begin.elapsed();
    common::eventually("one client per freed descriptor to be answered", || answered(&mut clients) == full + HELD);

    // Closing a socket of this crate ends the pause immediately, so all other clients are served in
    // waves.
    let mut longest = Duration::ZERO;
    let mut served = full + HELD;
    let mut waves = 0;
    while !clients.is_empty() {
        let before = clients.len();
        clients.retain(|(_, is_answered)| !is_answered);
        assert!(clients.len() < before, "no further client is served");
        if clients.is_empty() {
            break;
        }
        let begin = Instant::now();
        common::eventually("the next client is served", || answered(&mut clients) > 0);
        longest = longest.max(begin.elapsed());
        waves += 1;
        let most = clients.len().min(full + HELD);
        common::eventually("the wave to be served", || answered(&mut clients) >= most);
        served += answered(&mut clients);
    }
    assert_eq!(served, CLIENTS);
    // The first of the further clients is served after the pause, the others immediately.
    if common::is_timed() {
        assert!(unseen <= Duration::from_millis(1500), "{unseen:?}");
        assert!(longest <= Duration::from_secs(1), "{longest:?}");
    }
    println!(
        "{full} served, {share:.2} % CPU for {idle_time:?}; descriptors freed elsewhere: {unseen:.1?}; own: \
         {longest:.1?} at most in {waves} waves"
    );
    let _ = commands.write_all(b"end\n");
    child.wait().unwrap();
}

/// A socket that was opened in `block_on` can wait, because the poller, which needs two
/// descriptors, is created before the first socket.
#[test]
fn socket_opened_with_last_descriptors_can_wait() {
    common::child("socket_opened_with_last_descriptors_can_wait", || {
        set_nofile(NOFILE);
        run(async {
            let mut held = common::exhaust_descriptors();
            // One descriptor is enough for a socket, but not for the poller.
            held.pop();
            let refused = [
                TcpListener::bind("127.0.0.1:0").await.err(),
                TcpStream::connect("127.0.0.1:9").await.err(),
                UdpSocket::bind("127.0.0.1:0").await.err(),
                UnixDatagram::unbound().err(),
                UnixStream::pair().err(),
            ];
            for (at, error) in refused.into_iter().enumerate() {
                let error = error.unwrap_or_else(|| panic!("{at}: a socket that cannot be registered"));
                assert_eq!(raw_os_error(&error), Some(libc::EMFILE), "{at}: {error}");
            }
            held.truncate(held.len() - 2);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            assert!(std::fs::File::open("/dev/null").is_err(), "no descriptor is left");
            // Frees two descriptors: one for a client and one for its connection.
            held.truncate(held.len() - 2);
            let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut buf = [0; 2];
            let mut read = stream.read(&mut buf);
            assert!(poll_once(&mut read).await.is_pending());
            client.write_all(b"hi").unwrap();
            assert_eq!(read.await.unwrap(), 2);
        });
    });
}

/// A look-up that fails for lack of a descriptor is not reported as "not found" or invalid input.
#[test]
fn lookup_without_descriptors_reports_emfile() {
    common::child("lookup_without_descriptors_reports_emfile", || {
        set_nofile(NOFILE);
        run(async {
            common::warm_up().await;
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let held = common::exhaust_descriptors();
            let dialer = netpoll::net::Dialer::new();
            let results = [
                ("connect", TcpStream::connect("localhost:1").await.err()),
                ("connect, a pair", TcpStream::connect(("localhost", 1)).await.err()),
                ("dial", dialer.dial("localhost:1").await.err()),
                ("sequential dial", dialer.clone().stagger(None).dial("localhost:1").await.err()),
                ("no such host", TcpStream::connect("name.invalid:1").await.err()),
                ("literal", TcpStream::connect("127.0.0.1:1").await.err()),
                ("bind", TcpListener::bind("localhost:0").await.err()),
                ("bind UDP", UdpSocket::bind("localhost:0").await.err()),
                ("resolve", netpoll::net::resolve("localhost:1").await.err()),
                ("lookup_host", netpoll::net::lookup_host("localhost").await.err()),
                ("lookup_addr", netpoll::net::lookup_addr([127, 0, 0, 1].into()).await.err()),
                ("lookup_cname", netpoll::net::lookup_cname("localhost").await.err()),
                ("lookup_port", netpoll::net::lookup_port("tcp", "no-such-service").await.err()),
                ("send_to", socket.send_to(b"x", "localhost:1").await.err()),
            ];
            for (what, error) in results {
                let error = error.unwrap_or_else(|| panic!("{what} succeeds without a descriptor"));
                assert_eq!(raw_os_error(&error), Some(libc::EMFILE), "{what}: {error}");
                let mut text = error.to_string();
                let mut next = std::error::Error::source(&error);
                while let Some(source) = next {
                    text += &source.to_string();
                    next = source.source();
                }
                assert!(text.to_lowercase().contains("too many open files"), "{what}: {text}");
            }
            drop(held);
            assert!(!netpoll::net::lookup_host("localhost").await.unwrap().is_empty());
        });
    });
}

/// A listener opened with the last descriptor, and one opened after it, have the full backlog. (A
/// program that reads the maximum from /proc, as Go does, needs a further descriptor for this.)
#[test]
fn listener_opened_with_last_descriptor_has_full_backlog() {
    common::child("listener_opened_with_last_descriptor_has_full_backlog", || {
        set_nofile(NOFILE);
        run(async {
            // Creates the poller, but no listener.
            let (one, _other) = UnixStream::pair().unwrap();
            assert!(poll_once(&mut one.read(&mut [0; 1])).await.is_pending());
            let mut held = common::exhaust_descriptors();
            held.pop();
            let last = TcpListener::bind("127.0.0.1:0").await.unwrap();
            drop(held);
            let next = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
            for listener in [last, next] {
                // TCP_INFO of a listener has the backlog in `tcpi_sacked`.
                let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
                let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
                let (fd, value) = (std::os::fd::AsRawFd::as_raw_fd(&listener), info.as_mut_ptr().cast());
                // SAFETY: the buffer is valid for writes of `size` bytes.
                let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut size) };
                assert_eq!(result, 0);
                // SAFETY: the structure was zeroed, which is a valid value, and the call has filled
                // it in.
                let info = unsafe { info.assume_init() };
                assert_eq!(info.tcpi_sacked.to_string(), somaxconn.trim());
            }
        });
    });
}

/// No descriptor leaks during heavy use at the limit.
#[test]
fn nothing_leaks_at_descriptor_limit() {
    common::child("nothing_leaks_at_descriptor_limit", || {
        set_nofile(NOFILE);
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let before = common::fd_count();
            for _ in 0..20 {
                let mut streams = Vec::new();
                // Connects until a dial finds no free descriptor. The accept below then finds none
                // either.
                loop {
                    match TcpStream::connect(addr).await {
                        Ok(client) => streams.push(client),
                        Err(error) => {
                            assert_eq!(raw_os_error(&error), Some(libc::EMFILE), "{error}");
                            break;
                        }
                    }
                }
                let error = listener.accept().await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                let count = streams.len();
                drop(streams);
                for _ in 0..count {
                    listener.accept().await.unwrap();
                }
            }
            becomes("all streams to be closed", || rt::metrics().descriptors == 1).await;
            assert_eq!(common::fd_count(), before);
        });
    });
}
