//! Tests of the simulated kernel, and helpers for the other tests of the kernel.

use std::cell::Cell;
use std::net::SocketAddr;

use super::link::Latency;
use super::socket::{Family, HostId, Kind};
use super::{Address, FD_BASE, IpOverrides, Kernel};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// The maximum number of steps with one kernel, so that every loop over calls of these helpers
/// ends. No test takes more than 131,072, except the one of this limit.
const STEPS_MAX: u32 = 2_000_000;

thread_local! {
    static STEPS: Cell<u32> = const { Cell::new(0) };
}

/// Counts a step of the test that runs on this thread. Fails a test whose loop does not end.
pub(super) fn step() {
    let steps = STEPS.get() + 1;
    STEPS.set(steps);
    assert!(steps < STEPS_MAX, "a loop of the test, or of the kernel's events, does not end");
}

/// Returns a kernel with two hosts, `a` (0) and `b` (1).
pub(super) fn world(seed: u64) -> Kernel {
    STEPS.set(0);
    let mut kernel = Kernel::new(seed);
    kernel.default_link.latency = Latency::Uniform(MS..=MS);
    kernel.add_host("a");
    kernel.add_host("b");
    kernel.log.keep();
    kernel
}

/// Runs the events up to the time `until`, and advances the time to `until`.
pub(super) fn run_until(kernel: &mut Kernel, until: u64) {
    while let Some(at) = kernel.next_event().filter(|&at| at <= until) {
        kernel.now = at;
        while kernel.step() {
            step();
        }
    }
    kernel.now = kernel.now.max(until);
    step();
}

pub(super) fn run_for(kernel: &mut Kernel, nanos: u64) {
    let until = kernel.now + nanos;
    run_until(kernel, until);
}

pub(super) fn addr(text: &str) -> Address {
    Address::Inet(text.parse().unwrap())
}

pub(super) fn tcp(kernel: &mut Kernel, host: HostId) -> i32 {
    kernel.open(host, Family::V4, Kind::Stream, true).unwrap()
}

fn udp(kernel: &mut Kernel, host: HostId, local: &str) -> i32 {
    let fd = kernel.open(host, Family::V4, Kind::Datagram, true).unwrap();
    kernel.bind(fd, &addr(local)).unwrap();
    fd
}

pub(super) fn listen(kernel: &mut Kernel, backlog: i32) -> i32 {
    let fd = tcp(kernel, 1);
    kernel.bind(fd, &addr("0.0.0.0:80")).unwrap();
    kernel.listen(fd, backlog).unwrap();
    fd
}

pub(super) const SERVER: &str = "10.0.0.2:80";

pub(super) fn connect(kernel: &mut Kernel) -> i32 {
    let fd = tcp(kernel, 0);
    assert_eq!(kernel.connect(fd, &addr(SERVER)), Err(libc::EINPROGRESS));
    fd
}

/// Opens a connection from `a` to `b`. Returns the client, the server and the listener.
pub(super) fn pair(kernel: &mut Kernel) -> (i32, i32, i32) {
    let listener = listen(kernel, 8);
    let client = connect(kernel);
    run_for(kernel, 3 * MS);
    let (server, _) = kernel.accept(listener, true).unwrap();
    (client, server, listener)
}

pub(super) fn send_to(kernel: &mut Kernel, fd: i32, bufs: &[&[u8]], to: Option<&Address>) -> Result<usize, i32> {
    step();
    kernel.send(fd, bufs, to, IpOverrides::default())
}

pub(super) fn send(kernel: &mut Kernel, fd: i32, data: &[u8]) -> Result<usize, i32> {
    send_to(kernel, fd, &[data], None)
}

pub(super) fn receive(kernel: &mut Kernel, fd: i32) -> Result<Vec<u8>, i32> {
    step();
    let mut buf = vec![0; 1 << 20];
    let received = kernel.receive(fd, &mut [&mut buf], false)?;
    buf.truncate(received.bytes);
    Ok(buf)
}

pub(super) fn edges(kernel: &mut Kernel) -> Vec<(u64, u32)> {
    step();
    let mut edges = Vec::new();
    kernel.take_edges(&mut edges);
    edges
}

pub(super) fn is_set(bits: u32, bit: i32) -> bool {
    bits & bit as u32 != 0
}

#[test]
#[should_panic(expected = "does not end")]
fn loop_that_does_not_end_fails() {
    let mut kernel = world(1);
    loop {
        run_for(&mut kernel, 0);
    }
}

#[test]
fn connection_is_made_and_carries_bytes_both_ways() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    assert!(client >= FD_BASE);
    assert_eq!(kernel.peer_address(client), Ok(addr(SERVER)));
    assert_eq!(kernel.local_address(server), Ok(addr(SERVER)));
    assert_eq!(kernel.peer_address(server), kernel.local_address(client));
    assert_eq!(receive(&mut kernel, server), Err(libc::EAGAIN));
    assert_eq!(send(&mut kernel, client, b"ping"), Ok(4));
    assert_eq!(receive(&mut kernel, server), Err(libc::EAGAIN), "the packet is still in flight");
    run_for(&mut kernel, MS);
    assert_eq!(receive(&mut kernel, server).unwrap(), b"ping");
    assert_eq!(send(&mut kernel, server, b"pong"), Ok(4));
    run_for(&mut kernel, MS);
    assert_eq!(receive(&mut kernel, client).unwrap(), b"pong");
}

#[test]
fn loopback_connects_within_a_host() {
    let mut kernel = world(1);
    let listener = listen(&mut kernel, 8);
    let client = kernel.open(1, Family::V4, Kind::Stream, true).unwrap();
    assert_eq!(kernel.connect(client, &addr("127.0.0.1:80")), Err(libc::EINPROGRESS));
    run_for(&mut kernel, MS);
    let (_, peer) = kernel.accept(listener, true).unwrap();
    assert_eq!(Ok(peer), kernel.local_address(client));
    let other = tcp(&mut kernel, 0);
    assert_eq!(kernel.connect(other, &addr("127.0.0.1:80")), Err(libc::EINPROGRESS));
    run_for(&mut kernel, MS);
    assert_eq!(kernel.take_error(other), Ok(Some(libc::ECONNREFUSED)), "the other host has its own loopback");
}

#[test]
fn wildcard_of_ipv6_takes_both_families_and_shows_mapped_addresses() {
    let mut kernel = world(1);
    let listener = kernel.open(1, Family::V6, Kind::Stream, true).unwrap();
    kernel.bind(listener, &addr("[::]:80")).unwrap();
    kernel.listen(listener, 8).unwrap();
    let _v4 = connect(&mut kernel);
    let v6 = kernel.open(0, Family::V6, Kind::Stream, true).unwrap();
    assert_eq!(kernel.connect(v6, &addr("[fd00::2]:80")), Err(libc::EINPROGRESS));
    run_for(&mut kernel, 3 * MS);
    let peers: Vec<_> = (0..2).map(|_| kernel.accept(listener, true).unwrap().1).collect();
    let ip = |peer: &Address| if let Address::Inet(addr) = peer { addr.ip().to_string() } else { String::new() };
    let ips: std::collections::BTreeSet<_> = peers.iter().map(ip).collect();
    assert!(ips.contains("::ffff:10.0.0.1") && ips.contains("fd00::1"), "{ips:?}");
}

#[test]
fn port_without_listener_refuses_and_unknown_host_is_unreachable() {
    let mut kernel = world(1);
    let refused = connect(&mut kernel);
    let lost = tcp(&mut kernel, 0);
    assert_eq!(kernel.connect(lost, &addr("10.9.9.9:80")), Err(libc::EINPROGRESS));
    run_for(&mut kernel, 5 * MS);
    assert_eq!(kernel.take_error(refused), Ok(Some(libc::ECONNREFUSED)));
    assert_eq!(kernel.take_error(lost), Ok(Some(libc::EHOSTUNREACH)));
    assert_eq!(kernel.take_error(lost), Ok(None), "an error is reported once");
    let multicast = tcp(&mut kernel, 0);
    assert_eq!(kernel.connect(multicast, &addr("224.0.0.1:80")), Err(libc::ENETUNREACH));
}

#[test]
fn connect_to_a_silent_host_times_out_after_127_seconds() {
    let mut kernel = world(1);
    kernel.crash(1);
    let client = connect(&mut kernel);
    run_until(&mut kernel, 126 * SECOND);
    assert_eq!(kernel.take_error(client), Ok(None));
    run_until(&mut kernel, 128 * SECOND);
    assert_eq!(kernel.take_error(client), Ok(Some(libc::ETIMEDOUT)));
}

#[test]
fn full_backlog_ignores_syns_and_the_client_tries_again() {
    let mut kernel = world(1);
    let listener = listen(&mut kernel, 1);
    let clients: Vec<_> = (0..3).map(|_| connect(&mut kernel)).collect();
    run_for(&mut kernel, 10 * MS);
    let connected = |kernel: &Kernel| clients.iter().filter(|&&fd| kernel.peer_address(fd).is_ok()).count();
    assert_eq!(connected(&kernel), 2);
    kernel.accept(listener, true).unwrap();
    run_until(&mut kernel, 2 * SECOND);
    assert_eq!(connected(&kernel), 3, "a SYN is retransmitted after a second");
}

#[test]
fn large_write_arrives_in_segments_and_stops_at_the_buffers() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    let data: Vec<u8> = (0..2_000_000).map(|at| (at % 251) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    loop {
        match send(&mut kernel, client, &data[sent..]) {
            Ok(count) => {
                assert!(count <= 256 << 10, "the send buffer holds no more");
                sent += count;
            }
            Err(libc::EAGAIN) => {}
            Err(other) => panic!("{other}"),
        }
        run_for(&mut kernel, 2 * MS);
        if sent < data.len() && got.is_empty() && kernel.now < SECOND {
            continue;
        }
        while let Ok(part) = receive(&mut kernel, server) {
            assert!(part.len() <= 128 << 10, "the receive buffer holds no more");
            got.extend(part);
        }
        if got.len() == data.len() {
            break;
        }
    }
    assert!(got == data, "the bytes are the same");
    assert!(kernel.log.counters.sent > 1000, "{:?}", kernel.log.counters);
}

#[test]
fn full_buffers_stop_the_writer_and_room_is_an_edge() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    kernel.watch(client, 7).unwrap();
    let first = edges(&mut kernel);
    assert!(
        matches!(first[..], [(7, bits)] if is_set(bits, libc::EPOLLOUT)),
        "a registration reports the current readiness"
    );
    let mut sent = 0;
    loop {
        match send(&mut kernel, client, &[1; 10_000]) {
            Ok(count) => sent += count,
            Err(errno) => {
                assert_eq!(errno, libc::EAGAIN);
                run_for(&mut kernel, 50 * MS);
                let woken = edges(&mut kernel).iter().any(|&(_, bits)| is_set(bits, libc::EPOLLOUT));
                if !woken {
                    break;
                }
            }
        }
        assert!(sent < 1 << 20, "the writer never has to wait");
    }
    run_for(&mut kernel, SECOND);
    assert!(edges(&mut kernel).is_empty());
    let mut got = 0;
    while let Ok(part) = receive(&mut kernel, server) {
        got += part.len();
        run_for(&mut kernel, 20 * MS);
    }
    assert_eq!(got, sent);
    assert!(edges(&mut kernel).iter().any(|&(data, bits)| data == 7 && is_set(bits, libc::EPOLLOUT)));
}

/// Mirrors tcp_poll() of Linux, which sets SOCK_NOSPACE.
#[test]
fn poll_that_finds_little_room_makes_more_room_an_edge() {
    let mut kernel = world(1);
    let (client, _, _) = pair(&mut kernel);
    kernel.set_option(client, libc::SOL_SOCKET, libc::SO_SNDBUF, &4096_i32.to_ne_bytes()).unwrap();
    kernel.watch(client, 7).unwrap();
    edges(&mut kernel);
    assert_eq!(send(&mut kernel, client, &[1; 8000]), Ok(8000));
    assert!(!is_set(kernel.poll(client).unwrap(), libc::EPOLLOUT), "less than a third is free");
    run_for(&mut kernel, SECOND);
    assert!(edges(&mut kernel).iter().any(|&(_, bits)| is_set(bits, libc::EPOLLOUT)));
}

#[test]
fn close_with_unread_data_resets_and_error_is_reported_once() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    send(&mut kernel, client, b"unread").unwrap();
    run_for(&mut kernel, 2 * MS);
    kernel.close(server).unwrap();
    run_for(&mut kernel, 2 * MS);
    let bits = kernel.poll(client).unwrap();
    assert!(is_set(bits, libc::EPOLLERR) && is_set(bits, libc::EPOLLHUP) && is_set(bits, libc::EPOLLIN));
    assert_eq!(receive(&mut kernel, client), Err(libc::ECONNRESET));
    assert_eq!(receive(&mut kernel, client).unwrap(), b"");
    assert_eq!(send(&mut kernel, client, b"x"), Err(libc::EPIPE));
    assert_eq!(kernel.peer_address(client), Err(libc::ENOTCONN));
}

#[test]
fn data_after_close_is_answered_with_a_reset() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    kernel.close(server).unwrap();
    run_for(&mut kernel, 2 * MS);
    assert_eq!(receive(&mut kernel, client).unwrap(), b"", "the end of the stream precedes the error");
    assert_eq!(send(&mut kernel, client, b"late"), Ok(4));
    run_for(&mut kernel, 3 * MS);
    assert_eq!(send(&mut kernel, client, b"late"), Err(libc::EPIPE), "a reset after a FIN is reported as EPIPE");
}

#[test]
fn linger_of_zero_resets() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    let linger: Vec<u8> = [1, 0].into_iter().flat_map(i32::to_ne_bytes).collect();
    kernel.set_option(server, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    kernel.close(server).unwrap();
    run_for(&mut kernel, 2 * MS);
    assert_eq!(receive(&mut kernel, client), Err(libc::ECONNRESET));
}

#[test]
fn closing_a_listener_resets_unaccepted_connections() {
    let mut kernel = world(1);
    let listener = listen(&mut kernel, 8);
    let client = connect(&mut kernel);
    run_for(&mut kernel, 3 * MS);
    kernel.close(listener).unwrap();
    run_for(&mut kernel, 3 * MS);
    assert_eq!(receive(&mut kernel, client), Err(libc::ECONNRESET));
    let next = connect(&mut kernel);
    run_for(&mut kernel, 3 * MS);
    assert_eq!(kernel.take_error(next), Ok(Some(libc::ECONNREFUSED)));
}

#[test]
fn lost_segments_are_sent_again() {
    for seed in 0..20 {
        let mut kernel = world(seed);
        let (client, server, _) = pair(&mut kernel);
        kernel.link_mut(0, 1).config.loss = 0.3;
        kernel.link_mut(1, 0).config.loss = 0.3;
        let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut sent, mut got) = (0, Vec::new());
        while got.len() < data.len() {
            sent += send(&mut kernel, client, &data[sent..]).unwrap_or_default();
            let next = kernel.next_event().expect("a timer is running");
            run_until(&mut kernel, next);
            got.extend(receive(&mut kernel, server).unwrap_or_default());
            assert!(kernel.now < 10_000 * SECOND, "seed {seed}: {} of {} bytes received", got.len(), data.len());
        }
        assert!(got == data, "seed {seed}");
    }
}

#[test]
fn partition_ends_a_connection_by_timeout_only() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    kernel.link_mut(0, 1).is_partitioned = true;
    send(&mut kernel, client, b"x").unwrap();
    run_for(&mut kernel, 60 * SECOND);
    assert_eq!(receive(&mut kernel, client), Err(libc::EAGAIN));
    kernel.link_mut(0, 1).is_partitioned = false;
    run_for(&mut kernel, 120 * SECOND);
    assert_eq!(receive(&mut kernel, server).unwrap(), b"x", "the data arrives after the partition");
    kernel.link_mut(0, 1).is_partitioned = true;
    send(&mut kernel, client, b"y").unwrap();
    run_for(&mut kernel, 1200 * SECOND);
    assert_eq!(receive(&mut kernel, client), Err(libc::ETIMEDOUT));
}

#[test]
fn user_timeout_and_keep_alive_end_a_silent_connection() {
    let set = |kernel: &mut Kernel, fd, level, name, value: i32| {
        kernel.set_option(fd, level, name, &value.to_ne_bytes()).unwrap();
    };
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    set(&mut kernel, client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 5000);
    set(&mut kernel, server, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    set(&mut kernel, server, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 15);
    set(&mut kernel, server, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 15);
    set(&mut kernel, server, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3);
    run_for(&mut kernel, 1000 * SECOND);
    assert_eq!(receive(&mut kernel, server), Err(libc::EAGAIN), "the peer answers");
    kernel.link_mut(0, 1).is_partitioned = true;
    kernel.link_mut(1, 0).is_partitioned = true;
    send(&mut kernel, client, b"x").unwrap();
    run_for(&mut kernel, 4 * SECOND);
    assert_eq!(kernel.take_error(client), Ok(None));
    run_for(&mut kernel, 2 * SECOND);
    assert_eq!(kernel.take_error(client), Ok(Some(libc::ETIMEDOUT)));
    run_for(&mut kernel, 70 * SECOND);
    assert_eq!(kernel.take_error(server), Ok(Some(libc::ETIMEDOUT)));
}

/// On Linux (tcp_keepalive_timer), a user timeout replaces the number of probes, and the end is a
/// reset.
#[test]
fn keep_alive_with_a_user_timeout_ends_with_a_reset_after_the_timeout() {
    for (timeout_ms, ends_after) in [(0, 20), (45_000, 50)] {
        let mut kernel = world(1);
        let (client, server, _) = pair(&mut kernel);
        let mut set = |level, name, value: i32| kernel.set_option(server, level, name, &value.to_ne_bytes()).unwrap();
        set(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout_ms);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 10);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 10);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 1);
        set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        // Only the answers of the client are lost.
        kernel.link_mut(0, 1).is_partitioned = true;
        run_for(&mut kernel, (ends_after - 1) * SECOND);
        assert_eq!(kernel.take_error(server), Ok(None), "{timeout_ms}");
        assert_eq!(receive(&mut kernel, client), Err(libc::EAGAIN), "{timeout_ms}");
        run_for(&mut kernel, 2 * SECOND);
        assert_eq!(kernel.take_error(server), Ok(Some(libc::ETIMEDOUT)), "{timeout_ms}");
        assert_eq!(receive(&mut kernel, client), Err(libc::ECONNRESET), "{timeout_ms}");
    }
}

#[test]
fn held_packets_arrive_when_they_are_released() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    kernel.link_mut(0, 1).held = Some(Vec::new());
    send(&mut kernel, client, b"held").unwrap();
    run_for(&mut kernel, 100 * MS);
    assert_eq!(receive(&mut kernel, server), Err(libc::EAGAIN));
    kernel.release(0, 1);
    run_for(&mut kernel, MS);
    assert_eq!(receive(&mut kernel, server).unwrap(), b"held");
}

#[test]
fn restarted_host_resets_old_connections() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    kernel.crash(1);
    assert_eq!(send(&mut kernel, server, b"x"), Err(libc::ENETDOWN));
    send(&mut kernel, client, b"x").unwrap();
    run_for(&mut kernel, 100 * MS);
    assert_eq!(receive(&mut kernel, client), Err(libc::EAGAIN), "a host that is down sends no reset");
    kernel.restart(1);
    run_for(&mut kernel, 10 * SECOND);
    assert_eq!(receive(&mut kernel, client), Err(libc::ECONNRESET));
    kernel.close(server).unwrap();
    listen(&mut kernel, 8);
}

#[test]
fn port_is_bound_once_and_free_after_close() {
    let mut kernel = world(1);
    let listener = listen(&mut kernel, 8);
    let other = tcp(&mut kernel, 1);
    assert_eq!(kernel.bind(other, &addr("10.0.0.2:80")), Err(libc::EADDRINUSE));
    assert_eq!(kernel.bind(other, &addr("10.0.0.1:81")), Err(libc::EADDRNOTAVAIL));
    kernel.close(listener).unwrap();
    kernel.bind(other, &addr("10.0.0.2:80")).unwrap();
    assert_eq!(kernel.bind(other, &addr("10.0.0.2:81")), Err(libc::EINVAL));
    let any = udp(&mut kernel, 0, "0.0.0.0:0");
    let Ok(Address::Inet(local)) = kernel.local_address(any) else { panic!() };
    assert!(local.port() >= 32_768);
    assert_eq!(kernel.close(any), Ok(()));
    assert_eq!(kernel.close(any), Err(libc::EBADF));
}

#[test]
fn server_that_closes_first_keeps_its_port_busy_without_reuse_address() {
    let mut kernel = world(1);
    let (client, server, listener) = pair(&mut kernel);
    kernel.close(listener).unwrap();
    kernel.close(server).unwrap();
    run_for(&mut kernel, 5 * MS);
    kernel.close(client).unwrap();
    run_for(&mut kernel, 5 * MS);
    let next = tcp(&mut kernel, 1);
    assert_eq!(kernel.bind(next, &addr("0.0.0.0:80")), Err(libc::EADDRINUSE), "the port is in TIME-WAIT");
    run_for(&mut kernel, 61 * SECOND);
    kernel.bind(next, &addr("0.0.0.0:80")).unwrap();
}

#[test]
fn datagrams_arrive_whole_with_their_sender() {
    let mut kernel = world(1);
    let (one, other) = (udp(&mut kernel, 0, "0.0.0.0:5000"), udp(&mut kernel, 1, "0.0.0.0:6000"));
    send_to(&mut kernel, one, &[b"ab", b"cde"], Some(&addr("10.0.0.2:6000"))).unwrap();
    send_to(&mut kernel, one, &[b""], Some(&addr("10.0.0.2:6000"))).unwrap();
    run_for(&mut kernel, 2 * MS);
    let mut short = [0; 3];
    let received = kernel.receive(other, &mut [&mut short], true).unwrap();
    assert_eq!((received.bytes, received.whole, &short), (3, 5, b"abc"));
    let received = kernel.receive(other, &mut [&mut short], false).unwrap();
    assert_eq!((received.whole, received.from), (5, Some(addr("10.0.0.1:5000"))));
    assert_eq!(receive(&mut kernel, other).unwrap(), b"");
    assert_eq!(receive(&mut kernel, other), Err(libc::EAGAIN));
    assert_eq!(send_to(&mut kernel, one, &[&[0; 65_508]], Some(&addr("10.0.0.2:6000"))), Err(libc::EMSGSIZE));
    assert_eq!(send_to(&mut kernel, one, &[b"x"], None), Err(libc::EDESTADDRREQ));
}

#[test]
fn connected_datagram_socket_sees_refusal_and_ignores_other_senders() {
    let mut kernel = world(1);
    let (one, other) = (udp(&mut kernel, 0, "0.0.0.0:5000"), udp(&mut kernel, 1, "0.0.0.0:6000"));
    kernel.connect(one, &addr("10.0.0.2:7")).unwrap();
    send_to(&mut kernel, other, &[b"stranger"], Some(&addr("10.0.0.1:5000"))).unwrap();
    run_for(&mut kernel, 5 * MS);
    assert_eq!(receive(&mut kernel, one), Err(libc::EAGAIN));
    send(&mut kernel, one, b"x").unwrap();
    run_for(&mut kernel, 5 * MS);
    assert!(is_set(kernel.poll(one).unwrap(), libc::EPOLLERR));
    assert_eq!(receive(&mut kernel, one), Err(libc::ECONNREFUSED));
    assert_eq!(receive(&mut kernel, one), Err(libc::EAGAIN));
}

#[test]
fn receive_buffer_of_datagrams_is_bounded() {
    let mut kernel = world(1);
    let (one, other) = (udp(&mut kernel, 0, "0.0.0.0:5000"), udp(&mut kernel, 1, "0.0.0.0:6000"));
    for _ in 0..1000 {
        send_to(&mut kernel, one, &[&[0; 1000]], Some(&addr("10.0.0.2:6000"))).unwrap();
    }
    run_for(&mut kernel, SECOND);
    let got = (0..1000).take_while(|_| receive(&mut kernel, other).is_ok()).count();
    assert!((50..200).contains(&got), "{got}");
}

#[test]
fn calls_fail_with_injected_faults_and_bytes_still_arrive() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    kernel.faults.again = 0.5;
    kernel.faults.interrupted = 0.2;
    kernel.faults.short = 0.5;
    kernel.watch(server, 1).unwrap();
    edges(&mut kernel);
    let mut seen = std::collections::BTreeSet::new();
    let (mut sent, mut got) = (0, 0);
    while got < 50_000 {
        match send(&mut kernel, client, &[7; 1000]) {
            Ok(count) => sent += count,
            Err(errno) => drop(seen.insert(errno)),
        }
        run_for(&mut kernel, MS);
        match receive(&mut kernel, server) {
            Ok(part) => got += part.len(),
            Err(errno) => drop(seen.insert(errno)),
        }
    }
    assert!(got <= sent && kernel.faults.count() > 10);
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [libc::EINTR, libc::EAGAIN]);
    assert!(!edges(&mut kernel).is_empty());
}

#[test]
fn addresses_of_hosts_are_unique() {
    let mut kernel = world(1);
    let addr: SocketAddr = "192.0.2.7:0".parse().unwrap();
    assert!(kernel.set_addrs(0, &[addr.ip()]) && !kernel.set_addrs(1, &[addr.ip()]));
    assert_eq!((kernel.host_named("A."), kernel.host_named("c")), (Some(0), None));
    let socket = tcp(&mut kernel, 0);
    assert_eq!(kernel.bind(socket, &Address::Inet(addr)), Ok(()));
    let old = tcp(&mut kernel, 0);
    assert_eq!(kernel.bind(old, &super::tests::addr("10.0.0.1:0")), Err(libc::EADDRNOTAVAIL));
}
