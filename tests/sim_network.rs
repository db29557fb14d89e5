//! Tests ordinary sockets on the network of a simulation (feature `sim`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use netpoll::io::ReadExt;
use netpoll::net::{self, Dialer, KeepAlive, ListenConfig, TcpListener, TcpStream, UdpSocket, is_timeout};
use netpoll::sim::{Sim, mbit, ms};
use netpoll::task;

const SECOND: Duration = Duration::from_secs(1);

/// Accepts connections, and reads each until the end of its stream.
async fn sink(addr: &str) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        task::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
    }
}

/// Accepts one connection and keeps it open.
async fn silent(addr: &str) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let _stream = listener.accept().await?;
    std::future::pending().await
}

#[test]
fn mtu_limits_tcp_segments() {
    let longest = |mtu| {
        Sim::run(1, async move |sim| {
            sim.keep_log();
            sim.link("*", "*").mtu(mtu);
            sim.host("server").spawn(|| sink("0.0.0.0:7"));
            let stream = sim.host("client").run(TcpStream::connect("server:7")).await.unwrap();
            stream.write_all(&[7; 20_000]).await.unwrap();
            task::sleep(SECOND).await;
            let log = sim.log();
            let lengths =
                log.lines().filter(|line| line.contains("send 10.")).filter_map(|line| line.split(" len ").nth(1));
            lengths.map(|length| length.trim().parse::<u64>().unwrap()).max().unwrap()
        })
    };
    assert_eq!((longest(576), longest(1500), longest(9000)), (536, 1460, 8960));
}

#[test]
fn bandwidth_limits_a_transfer() {
    Sim::run(1, async |sim| {
        sim.link("*", "*").bandwidth(mbit(1));
        let server = sim.host("server");
        let listener = server.run(TcpListener::bind("0.0.0.0:7")).await.unwrap();
        let sender = sim.host("client").spawn_task(async {
            let stream = TcpStream::connect("server:7").await.unwrap();
            stream.write_all(&[7; 125_000]).await.unwrap();
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let begin = Instant::now();
        let mut bytes = Vec::new();
        assert_eq!(stream.read_to_end(&mut bytes).await.unwrap(), 125_000);
        sender.await;
        // The transfer is one million bits, plus the packet headers.
        assert!((ms(1000)..ms(1200)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    });
}

/// Connects to a silent server. The server crashes, and keep-alive ends the connection 25 s later.
async fn connected_to_crashed_host(sim: &Sim) -> TcpStream {
    let server = sim.host("server");
    server.spawn(|| silent("0.0.0.0:7"));
    let stream = TcpStream::connect("server:7").await.unwrap();
    let probes = KeepAlive::new().with_idle(10 * SECOND).with_interval(5 * SECOND).with_count(3);
    stream.set_keepalive(probes).unwrap();
    server.crash();
    stream
}

#[test]
fn keep_alive_detects_a_crashed_host() {
    Sim::run(1, async |sim| {
        let stream = connected_to_crashed_host(&sim).await;
        let begin = Instant::now();
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(110), "ETIMEDOUT");
        assert_eq!(begin.elapsed().as_secs(), 25);
    });
}

/// The server of `netpoll-hyper` drops the handler of a request when the connection is aborted. The
/// kernel's ETIMEDOUT aborts the connection, but a deadline does not.
#[test]
fn keep_alive_aborts_an_idle_connection_and_a_deadline_does_not() {
    Sim::run(1, async |sim| {
        let stream = connected_to_crashed_host(&sim).await;
        let view = netpoll::__private::SocketView::from(&stream);
        assert!(netpoll::future::timeout(60 * SECOND, view.aborted()).await.is_ok());
        let _listener = sim.host("other").run(TcpListener::bind("0.0.0.0:8")).await.unwrap();
        let stream = TcpStream::connect("other:8").await.unwrap();
        stream.set_write_deadline(Instant::now()).unwrap();
        let view = netpoll::__private::SocketView::from(&stream);
        assert!(netpoll::future::timeout(60 * SECOND, view.aborted()).await.is_err(), "a deadline aborts nothing");
    });
}

#[test]
fn user_timeout_ends_a_connection_whose_data_is_not_acknowledged() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| silent("0.0.0.0:7"));
        let stream = TcpStream::connect("server:7").await.unwrap();
        stream.set_user_timeout(Some(20 * SECOND)).unwrap();
        sim.partition("test", "server");
        stream.write_all(b"lost").await.unwrap();
        let begin = Instant::now();
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(110), "ETIMEDOUT");
        assert!((19..40).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    });
}

#[test]
fn clients_beyond_the_backlog_wait_until_others_are_accepted() {
    Sim::run(1, async |sim| {
        let listener = sim.host("server").run(ListenConfig::new().backlog(2).listen("0.0.0.0:7")).await.unwrap();
        let clients: Vec<_> = (0..8)
            .map(|number| sim.host(&format!("client{number}")).spawn_task(TcpStream::connect("server:7")))
            .collect();
        task::sleep(SECOND / 2).await;
        let connected = clients.iter().filter(|client| client.is_finished()).count();
        assert_eq!(connected, 3, "as on Linux, one more than the backlog");
        let mut accepted = Vec::new();
        for _ in 0..8 {
            accepted.push(listener.accept().await.unwrap());
        }
        for client in clients {
            client.await.unwrap();
        }
    });
}

#[test]
fn connected_datagram_socket_reports_a_closed_port() {
    Sim::run(1, async |sim| {
        sim.host("server");
        for addr in ["0.0.0.0:0", "[::]:0"] {
            let socket = UdpSocket::bind(addr).await.unwrap();
            let of_family = sim.host("server").addrs().into_iter().find(|ip| ip.is_ipv4() == addr.starts_with('0'));
            socket.connect((of_family.unwrap(), 9)).await.unwrap();
            socket.send(b"x").await.unwrap();
            let error = socket.recv(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn datagrams_are_duplicated_and_reordered() {
    Sim::run(1, async |sim| {
        sim.link("*", "*").duplicate(0.2).reorder(0.2, ms(10));
        let receiver = sim.host("server").run(UdpSocket::bind("0.0.0.0:9")).await.unwrap();
        let sender = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        sender.connect("server:9").await.unwrap();
        let mut got = Vec::new();
        for number in 0..200_u8 {
            sender.send(&[number]).await.unwrap();
            task::sleep(ms(1)).await;
        }
        let mut buf = [0; 1];
        while let Ok(received) = netpoll::future::timeout(SECOND, receiver.recv_from(&mut buf)).await {
            received.unwrap();
            got.push(buf[0]);
        }
        assert!((220..260).contains(&got.len()), "{}", got.len());
        assert!((0..200).all(|number| got.contains(&number)));
        assert!(got.windows(2).filter(|pair| pair[0] > pair[1]).count() > 10);
    });
}

#[test]
fn calls_fail_without_descriptors_or_memory() {
    Sim::run(1, async |sim| {
        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        sim.faults().no_buffers(1.0);
        let error = socket.send_to(b"x", "127.0.0.1:9").await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(105), "ENOBUFS");
        sim.faults().no_buffers(0.0).no_descriptors(1.0);
        let error = UdpSocket::bind("0.0.0.0:0").await.unwrap_err();
        assert_eq!(netpoll::net::raw_os_error(&error), Some(24), "EMFILE");
        sim.faults().no_descriptors(0.0);
        assert!(UdpSocket::bind("0.0.0.0:0").await.is_ok());
    });
}

#[test]
fn restarted_host_resets_old_connections_and_serves_new_ones() {
    Sim::run(1, async |sim| {
        let server = sim.host("server");
        server.spawn(|| silent("0.0.0.0:7"));
        let old = TcpStream::connect("server:7").await.unwrap();
        old.set_read_timeout(Some(60 * SECOND)).unwrap();
        server.crash();
        assert!(!server.is_up() && server.tasks() == 0);
        assert!(is_timeout(&old.read(&mut [0; 1]).await.unwrap_err()), "a crashed host does not answer");
        server.restart();
        old.write_all(b"x").await.unwrap();
        assert_eq!(old.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(TcpStream::connect("server:7").await.is_ok());
    });
}

#[netpoll::test(sim, seeds = 200)]
async fn old_segments_do_not_reach_a_new_connection_between_the_same_ports(sim: Sim) -> io::Result<()> {
    const CONNECTIONS: u8 = 8;
    let (server, client) = (sim.host("server"), sim.host("client"));
    // Without a latency, all connections begin at the same time.
    let latency = ms(40 * (sim.random() % 2));
    sim.link("*", "*").latency(ms(0)..=latency).duplicate(0.5);
    server.spawn(|| async {
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        for number in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await?;
            let mut buf = [0; 4];
            (&stream).read_exact(&mut buf).await?;
            assert_eq!(buf, [number; 4]);
            stream.write_all(&buf).await?;
            let end = stream.read(&mut buf).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        io::Result::Ok(())
    });
    task::sleep(ms(1)).await;
    let from = SocketAddr::new(client.addrs()[0], 4000);
    for number in 0..CONNECTIONS {
        let dialer = Dialer::new().local_addr(Some(from)).timeout(SECOND);
        let stream = client.run(dialer.dial("server:80")).await?;
        stream.write_all(&[number; 4]).await?;
        let mut buf = [0; 4];
        (&stream).read_exact(&mut buf).await?;
        assert_eq!(buf, [number; 4]);
        // The close resets the connection, so the port is free at once.
        stream.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// The test `failing_seed_is_printed_with_the_faults_that_it_needs` runs this test in child
/// processes with the environment variable `NETPOLL_TEST_FAILS`. Otherwise the test does nothing.
#[netpoll::test(sim, seeds = 50)]
async fn fails_if_the_fourth_datagram_is_lost(sim: Sim) {
    if std::env::var_os("NETPOLL_TEST_FAILS").is_none() {
        return;
    }
    sim.link("*", "*").loss(0.3);
    let receiver = sim.host("server").run(UdpSocket::bind("0.0.0.0:9")).await.unwrap();
    let sender = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    sender.connect("server:9").await.unwrap();
    let (mut got, mut buf) = (Vec::new(), [0; 1]);
    for number in 0..20_u8 {
        sender.send(&[number]).await.unwrap();
        if netpoll::future::timeout(SECOND, receiver.recv_from(&mut buf)).await.is_ok() {
            got.push(buf[0]);
        }
    }
    assert!(got.contains(&3), "the fourth datagram was lost");
}

/// Runs the failing test in a child process, and returns its output.
fn output(variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fails_if_the_fourth_datagram_is_lost", "--nocapture"])
        .env("NETPOLL_TEST_FAILS", "1")
        .env_remove("NETPOLL_SEED")
        .env_remove("NETPOLL_SEEDS")
        .env_remove("NETPOLL_SIM")
        .env("RUST_BACKTRACE", "0")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Also checks the two diagrams of the failing run: in the output, and as a picture in a file.
#[test]
fn failing_seed_is_printed_with_the_faults_that_it_needs() {
    let text = output(&[("NETPOLL_SIM", "minimize")]);
    let again = "to repeat the run: NETPOLL_SEED=";
    let from = text.find(again).unwrap_or_else(|| panic!("{text}")) + again.len();
    let seed: String = text[from..].chars().take_while(char::is_ascii_digit).collect();
    assert!(text[from..].contains(" fails_if_the_fourth_datagram_is_lost"), "{text}");
    assert!(text.contains("faults are needed:") && text.contains("1 of "), "{text}");
    assert_eq!(text.matches("s: packet lost, from test to server: 10.0.0.1:").count(), 1, "{text}");

    let text = output(&[("NETPOLL_SEED", &seed), ("NETPOLL_SIM", "diagram")]);
    assert!(text.contains("the fourth datagram was lost") && text.contains("lines of the log:"), "{text}");
    assert!(text.contains("drop 10.0.0.1:") && text.contains("- lost: UDP len 1 (Loss) -"), "{text}");

    let picture = std::env::temp_dir().join(format!("netpoll-picture-{}.svg", std::process::id()));
    let text = output(&[("NETPOLL_SEED", &seed), ("NETPOLL_DIAGRAM", picture.to_str().unwrap())]);
    assert!(text.contains("a picture of the packets is in"), "{text}");
    let svg = std::fs::read_to_string(&picture).unwrap();
    std::fs::remove_file(picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("lost: UDP len 1 (Loss)"), "{svg}");
}

#[test]
fn urgent_data_is_refused_with_a_clear_error() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| silent("0.0.0.0:7"));
        let stream = TcpStream::connect("server:7").await.unwrap();
        for _ in 0..2 {
            let error = stream.send_out_of_band(b'!').await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(95), "EOPNOTSUPP");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
        let refusals = sim.refusals();
        assert!(refusals.len() == 1 && refusals[0].contains("urgent data"), "{refusals:?}");
        assert!(refusals[0].contains("not simulated"), "{refusals:?}");
        // The connection continues.
        stream.write_all(b"not urgent").await.unwrap();
    });
}

#[test]
fn socket_features_that_are_not_simulated_are_named() {
    Sim::run(1, async |sim| {
        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let joined = socket.join_multicast_v4("224.0.0.9".parse().unwrap(), "0.0.0.0".parse().unwrap());
        assert_eq!(joined.unwrap_err().raw_os_error(), Some(92), "ENOPROTOOPT");
        let error = socket.send_to(b"x", "255.255.255.255:9").await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(101), "ENETUNREACH");
        let bound = UdpSocket::bind("test:0").await.unwrap();
        let error = bound.send_to(b"x", "224.0.0.9:9").await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(101), "ENETUNREACH");
        let (one, _other) = netpoll::os::unix::net::UnixStream::pair().unwrap();
        let passed = one.send_with_fds(b"x", &[std::os::fd::AsFd::as_fd(&socket)]).await;
        assert_eq!(passed.unwrap_err().raw_os_error(), Some(22), "EINVAL");
        let refusals = sim.refusals();
        let parts = ["option 35 at level 0", "255.255.255.255", "224.0.0.9", "SCM_RIGHTS"];
        assert_eq!(refusals.len(), parts.len(), "{refusals:?}");
        for (refusal, part) in refusals.iter().zip(parts) {
            assert!(refusal.contains(part) && refusal.contains("not simulated"), "{refusal}");
        }
    });
}

#[test]
fn lookup_addr_returns_the_names_of_hosts() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| silent("0.0.0.0:7"));
        for addr in net::lookup_host("server").await.unwrap() {
            assert_eq!(net::lookup_addr(addr).await.unwrap(), ["server"]);
        }
        assert_eq!(net::lookup_addr([127, 0, 0, 1].into()).await.unwrap(), ["localhost"]);
        let error = net::lookup_addr([192, 0, 2, 1].into()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    });
}

#[test]
fn fast_open_options_do_not_prevent_connections() {
    Sim::run(1, async |sim| {
        let server = async || {
            let listener = ListenConfig::new().fast_open(16).listen("0.0.0.0:7").await?;
            let (stream, _) = listener.accept().await?;
            netpoll::io::copy(&mut &stream, &mut &stream).await.map(drop)
        };
        sim.host("server").spawn(server);
        let stream = Dialer::new().fast_open(true).dial("server:7").await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.close_write().unwrap();
        let mut echo = String::new();
        (&stream).read_to_string(&mut echo).await.unwrap();
        assert_eq!(echo, "hello");
        assert_eq!(sim.refusals(), Vec::<String>::new());
    });
}

/// No event occurs while the only thread of the simulation waits in poll(2), so the wait lasts for
/// its whole timeout of virtual time. A wait without a timeout would not end, so it is refused.
#[test]
fn wait_in_poll_advances_the_clock_or_is_refused() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| silent("0.0.0.0:7"));
        sim.partition("*", "server");
        let addr = std::net::SocketAddr::new(sim.host("server").addrs()[0], 7);
        let (begin, limit) = (std::time::Instant::now(), Duration::from_secs(3));
        let error = std::net::TcpStream::connect_timeout(&addr, limit).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= limit);
        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one entry, which is valid during the call.
        assert_eq!(unsafe { libc::poll(&raw mut entry, 1, -1) }, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EDEADLK));
        let refusals = sim.refusals();
        assert!(refusals.len() == 1 && refusals[0].contains("waits in poll(2)"), "{refusals:?}");
    });
}

/// The call would block the only thread of the simulation, so that no event could end the call.
#[test]
fn connect_of_a_blocking_socket_is_refused_with_the_reason() {
    Sim::run(1, async |sim| {
        sim.host("server").spawn(|| silent("0.0.0.0:7"));
        let addr = std::net::SocketAddr::new(sim.host("server").addrs()[0], 7);
        for _ in 0..2 {
            assert_eq!(std::net::TcpStream::connect(addr).unwrap_err().raw_os_error(), Some(35), "EDEADLK");
        }
        let refusals = sim.refusals();
        assert!(refusals.len() == 1 && refusals[0].contains("connect with netpoll::net"), "{refusals:?}");
    });
}

#[test]
fn shutdown_of_writing_ends_the_waiting_writes_of_unix_streams() {
    Sim::run(1, async |_| {
        let (stream, _peer) = netpoll::os::unix::net::UnixStream::pair().unwrap();
        let writers = [(); 2].map(|()| {
            let stream = stream.clone();
            task::spawn(async move { stream.write_all(&vec![7; 1 << 20]).await })
        });
        task::sleep(SECOND).await;
        stream.close_write().unwrap();
        for writer in writers {
            assert_eq!(writer.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
        stream.writable().await.unwrap();
    });
}

#[test]
fn read_leaves_the_bytes_that_it_does_not_receive() {
    Sim::run(1, async |_| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        client.write_all(b"abc").await.unwrap();
        let mut buf = *b"--------";
        assert_eq!(server.read(&mut buf).await.unwrap(), 3);
        assert_eq!(buf, *b"abc-----");
        server.set_read_deadline(Instant::now() + SECOND).unwrap();
        assert!(is_timeout(&server.read(&mut buf).await.unwrap_err()));
        assert_eq!(buf, *b"abc-----");
    });
}

#[test]
fn host_cannot_have_the_address_of_no_host() {
    let addrs = ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:10.9.9.9"];
    for addr in addrs {
        let set = move || Sim::run(1, async move |sim| sim.host("server").set_addrs(&[addr.parse().unwrap()]));
        let payload = std::panic::catch_unwind(set).unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains("cannot be the address of a host"), "{text}");
    }
}
