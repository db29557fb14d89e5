//! Tests of the events that count as upkeep.

use super::Kernel;
use super::tests::{MS, SECOND, pair, run_for, send, world};

fn set(kernel: &mut Kernel, fd: i32, level: i32, name: i32, value: i32) {
    kernel.set_option(fd, level, name, &value.to_ne_bytes()).unwrap();
}

fn keep_alive(kernel: &mut Kernel, fd: i32, seconds: i32, count: i32) {
    set(kernel, fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds);
    set(kernel, fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds);
    set(kernel, fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, count);
    set(kernel, fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
}

/// Returns a kernel with an idle connection between two hosts, which both ends keep alive, and the
/// descriptors of the client and the server.
fn idle() -> (Kernel, i32, i32) {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    keep_alive(&mut kernel, client, 15, 9);
    keep_alive(&mut kernel, server, 10, 3);
    run_for(&mut kernel, SECOND);
    (kernel, client, server)
}

/// Asserts that all pending events are upkeep if and only if `expected` is true. Runs the
/// simulation for an hour, and asserts that the readiness of the sockets has stayed the same if and
/// only if `expected` is true.
fn assert_upkeep(kernel: &mut Kernel, sockets: [i32; 2], expected: bool) {
    assert_eq!(kernel.has_only_upkeep(), expected);
    let states = |kernel: &mut Kernel| sockets.map(|fd| kernel.poll(fd));
    let before = states(kernel);
    run_for(kernel, 3600 * SECOND);
    assert_eq!(states(kernel) == before, expected);
}

#[test]
fn probes_of_idle_connections_are_upkeep() {
    let (mut kernel, client, server) = idle();
    for _ in 0..500 {
        // This must be true even while a probe or its answer is in flight.
        assert!(kernel.has_only_upkeep(), "at {} ns", kernel.now);
        let next = kernel.next_event().unwrap();
        let pause = next - kernel.now;
        run_for(&mut kernel, pause);
    }
    assert!(kernel.log.counters.sent > 100, "probes were sent");
    assert_upkeep(&mut kernel, [client, server], true);
}

#[test]
fn data_in_flight_is_not_upkeep_until_it_is_acknowledged() {
    let (mut kernel, client, _) = idle();
    send(&mut kernel, client, b"data").unwrap();
    let mut steps = 0;
    while !kernel.has_only_upkeep() {
        let next = kernel.next_event().unwrap();
        let pause = next - kernel.now;
        run_for(&mut kernel, pause);
        steps += 1;
    }
    assert!((2..5).contains(&steps), "{steps}: the data, and its acknowledgement");
    assert!(kernel.now < 2 * SECOND);
}

#[test]
fn keep_alive_that_will_fail_is_not_upkeep() {
    let changes: [fn(&mut Kernel); 7] = [
        |kernel| kernel.crash(1),
        |kernel| kernel.link_mut(0, 1).is_partitioned = true,
        |kernel| kernel.link_mut(1, 0).is_partitioned = true,
        |kernel| kernel.link_mut(1, 0).held = Some(Vec::new()),
        |kernel| kernel.link_mut(0, 1).config.loss = 0.9,
        |kernel| kernel.link_mut(0, 1).config.mtu = 30,
        |kernel| kernel.link_mut(1, 0).config.latency = super::link::Latency::Uniform(400 * SECOND..=400 * SECOND),
    ];
    for change in changes {
        let (mut kernel, client, server) = idle();
        change(&mut kernel);
        assert_upkeep(&mut kernel, [client, server], false);
    }
}

#[test]
fn keep_alive_of_a_connection_unknown_to_the_peer_is_not_upkeep() {
    let (mut kernel, client, server) = idle();
    kernel.crash(1);
    kernel.restart(1);
    assert_upkeep(&mut kernel, [client, server], false);
}

#[test]
fn keep_alive_on_a_link_that_rarely_loses_packets_is_upkeep() {
    let (mut kernel, client, server) = idle();
    set(&mut kernel, server, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0);
    kernel.link_mut(0, 1).config.loss = 0.01;
    assert_upkeep(&mut kernel, [client, server], true);
    // One lost probe ends the connection.
    keep_alive(&mut kernel, client, 15, 1);
    assert!(!kernel.has_only_upkeep());
}

#[test]
fn probes_of_a_window_that_stays_closed_are_upkeep() {
    let (mut kernel, client, server) = idle();
    while send(&mut kernel, client, &[0; 4096]).is_ok() {
        run_for(&mut kernel, 10 * MS);
    }
    run_for(&mut kernel, 10 * SECOND);
    assert_upkeep(&mut kernel, [client, server], true);
    // The user timeout ends the connection.
    set(&mut kernel, client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 5000);
    assert!(!kernel.has_only_upkeep());
}

#[test]
fn probe_after_a_lost_window_update_is_not_upkeep() {
    let (mut kernel, client, server) = idle();
    while send(&mut kernel, client, &[0; 4096]).is_ok() {
        run_for(&mut kernel, 10 * MS);
    }
    run_for(&mut kernel, 10 * SECOND);
    kernel.link_mut(1, 0).is_partitioned = true;
    let mut buf = vec![0; 1 << 20];
    kernel.receive(server, &mut [&mut buf], false).unwrap();
    run_for(&mut kernel, MS);
    kernel.link_mut(1, 0).is_partitioned = false;
    assert_upkeep(&mut kernel, [client, server], false);
}

#[test]
fn time_wait_of_a_closed_socket_is_upkeep() {
    let (mut kernel, client, server) = idle();
    kernel.close(client).unwrap();
    run_for(&mut kernel, 10 * MS);
    kernel.close(server).unwrap();
    assert!(!kernel.has_only_upkeep(), "the server's FIN is not acknowledged");
    run_for(&mut kernel, 10 * MS);
    assert!(kernel.next_event().is_some() && kernel.has_only_upkeep());
}
