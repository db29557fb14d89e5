//! Tests of rare events in the life of a connection: a peer that does not read for hours, a reset
//! after the end of the stream, reuse of a port after a crash, a late SYN, and a loss before data
//! that was not sent. Also tests of thousands of successive connections, of datagrams that cannot
//! be delivered, of ports that are all taken, of Unix sockets whose buffer or queue is full, of a
//! larger send buffer, of faults of every edge and of short writes, and of the addresses of hosts.

use super::calls::{FIRST_PORT, LAST_PORT};
use super::packet::Segment;
use super::settings::Settings;
use super::socket::{Family, Kind};
use super::tcp::Connection;
use super::tests::{
    MS, SECOND, SERVER, addr, connect, edges, is_set, listen, pair, receive, run_for, send, tcp, world,
};
use super::{Address, Kernel};

#[test]
fn peer_that_does_not_read_for_hours_loses_no_bytes() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    let mut written = 0;
    while let Ok(count) = send(&mut kernel, client, &[7; 65_536]) {
        written += count;
        run_for(&mut kernel, 10 * MS);
    }
    run_for(&mut kernel, 5 * 3600 * SECOND);
    assert_eq!(kernel.take_error(client), Ok(None), "the peer answers probes");
    let mut read = 0;
    let begin = kernel.now;
    while read < written {
        read += receive(&mut kernel, server).map_or(0, |data| data.len());
        run_for(&mut kernel, 10 * MS);
        assert!(kernel.now < begin + 10 * SECOND, "{read} of {written} bytes read");
    }
}

#[test]
fn reset_after_the_end_of_the_stream_does_not_affect_readers() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    kernel.close(server).unwrap();
    run_for(&mut kernel, 5 * MS);
    send(&mut kernel, client, b"x").unwrap();
    run_for(&mut kernel, 5 * MS);
    assert_eq!(receive(&mut kernel, client).unwrap(), b"");
    assert_eq!(kernel.take_error(client), Ok(Some(libc::EPIPE)));
    assert_eq!(receive(&mut kernel, client).unwrap(), b"");
    assert_eq!(send(&mut kernel, client, b"x"), Err(libc::EPIPE));
}

#[test]
fn crashed_host_reconnects_from_the_same_port() {
    let bound = |kernel: &mut Kernel| {
        let client = tcp(kernel, 0);
        kernel.bind(client, &addr("0.0.0.0:5000")).unwrap();
        assert_eq!(kernel.connect(client, &addr(SERVER)), Err(libc::EINPROGRESS));
        client
    };
    for sent in [&b""[..], b"some bytes"] {
        let mut kernel = world(1);
        let listener = listen(&mut kernel, 8);
        let old = bound(&mut kernel);
        run_for(&mut kernel, 3 * MS);
        let (server, _) = kernel.accept(listener, true).unwrap();
        send(&mut kernel, old, sent).unwrap();
        run_for(&mut kernel, 3 * MS);
        kernel.crash(0);
        kernel.close(old).unwrap();
        kernel.restart(0);
        bound(&mut kernel);
        run_for(&mut kernel, 2 * SECOND);
        assert!(kernel.accept(listener, true).is_ok());
        if !sent.is_empty() {
            assert_eq!(receive(&mut kernel, server).unwrap(), sent);
        }
        assert_eq!(receive(&mut kernel, server), Err(libc::ECONNRESET));
    }
}

#[test]
fn late_retransmitted_syn_opens_no_connection() {
    let mut kernel = world(1);
    let listener = listen(&mut kernel, 8);
    kernel.link_mut(1, 0).is_partitioned = true;
    let client = connect(&mut kernel);
    run_for(&mut kernel, 2 * MS);
    (kernel.link_mut(0, 1).config.reorder, kernel.link_mut(0, 1).config.reorder_by) = (1.0, 100 * SECOND);
    run_for(&mut kernel, SECOND);
    kernel.link_mut(0, 1).config.reorder = 0.0;
    kernel.link_mut(1, 0).is_partitioned = false;
    run_for(&mut kernel, 3 * SECOND);
    let (server, _) = kernel.accept(listener, true).unwrap();
    kernel.close(client).unwrap();
    run_for(&mut kernel, 3 * MS);
    kernel.close(server).unwrap();
    run_for(&mut kernel, 10 * MS);
    let mut has_come = false;
    while kernel.now < 110 * SECOND {
        let before = kernel.log.counters.arrived;
        // The SYN keeps the entry of its connection.
        kernel.accepted_most = 0;
        kernel.forget_accepted();
        run_for(&mut kernel, MS);
        has_come |= kernel.now > 10 * SECOND && kernel.log.counters.arrived > before;
        assert!(kernel.connections.keys().all(|key| key.0 != 1), "a connection is opened again at {} ns", kernel.now);
    }
    assert!(has_come, "the SYN has arrived late");
}

/// When the table of accepted connections is large, entries that are not needed are removed.
#[test]
fn connections_that_are_over_are_forgotten() {
    let mut kernel = world(1);
    let listener = listen(&mut kernel, 8);
    let linger: Vec<u8> = [1, 0].into_iter().flat_map(i32::to_ne_bytes).collect();
    for count in 0..3000 {
        let client = connect(&mut kernel);
        run_for(&mut kernel, 3 * MS);
        let (server, _) = kernel.accept(listener, true).unwrap();
        kernel.set_option(client, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
        kernel.close(client).unwrap();
        run_for(&mut kernel, 2 * MS);
        kernel.close(server).unwrap();
        assert!(kernel.accepted.len() <= 1000, "{} of {count}", kernel.accepted.len());
    }
    assert_eq!(kernel.connections.len(), 0);
}

/// Opens a socket of host 0 and connects it.
fn connected_udp(kernel: &mut Kernel, local: &str, remote: &str) -> i32 {
    let fd = kernel.open(0, Family::V4, Kind::Datagram, true).unwrap();
    kernel.bind(fd, &addr(local)).unwrap();
    kernel.connect(fd, &addr(remote)).unwrap();
    fd
}

#[test]
fn datagram_to_an_address_without_a_host_is_lost_without_an_error() {
    let mut kernel = world(1);
    let socket = connected_udp(&mut kernel, "0.0.0.0:5000", "10.9.9.9:7");
    send(&mut kernel, socket, b"x").unwrap();
    run_for(&mut kernel, 5 * MS);
    assert!(!is_set(kernel.poll(socket).unwrap(), libc::EPOLLERR));
    assert_eq!(receive(&mut kernel, socket), Err(libc::EAGAIN));
    assert_eq!(send(&mut kernel, socket, b"x"), Ok(1));
}

#[test]
fn refusal_is_reported_to_the_socket_with_the_address_of_the_sender() {
    let mut kernel = world(1);
    let ips = ["10.0.0.1", "10.0.0.9"].map(|ip| ip.parse().unwrap());
    assert!(kernel.set_addrs(0, &ips));
    let sockets = ["10.0.0.1:5000", "10.0.0.9:5000"].map(|local| connected_udp(&mut kernel, local, "10.0.0.2:7"));
    for (sender, other) in [(0, 1), (1, 0)] {
        send(&mut kernel, sockets[sender], b"x").unwrap();
        run_for(&mut kernel, 5 * MS);
        assert_eq!(kernel.take_error(sockets[other]), Ok(None));
        assert_eq!(kernel.take_error(sockets[sender]), Ok(Some(libc::ECONNREFUSED)));
    }
}

#[test]
fn close_of_a_full_unix_socket_wakes_its_senders() {
    let mut kernel = world(1);
    let [sender, receiver] = [(); 2].map(|()| kernel.open(0, Family::Unix, Kind::Datagram, true).unwrap());
    let name = Address::Unix(b"\0receiver".to_vec());
    kernel.bind(receiver, &name).unwrap();
    kernel.connect(sender, &name).unwrap();
    kernel.watch(sender, 7).unwrap();
    while send(&mut kernel, sender, b"x").is_ok() {}
    edges(&mut kernel);
    kernel.close(receiver).unwrap();
    let bits = edges(&mut kernel).iter().fold(0, |all, edge| all | edge.1);
    assert!(is_set(bits, libc::EPOLLOUT), "{bits:#x}");
    assert_eq!(send(&mut kernel, sender, b"x"), Err(libc::ECONNREFUSED));
    assert_eq!(send(&mut kernel, sender, b"x"), Err(libc::ENOTCONN));
}

#[test]
fn connections_to_different_addresses_share_ports_when_all_are_taken() {
    let mut kernel = world(1);
    let mut dial = |remote: &str| {
        let fd = tcp(&mut kernel, 0);
        (kernel.connect(fd, &addr(remote)), kernel.local_address(fd).unwrap())
    };
    let ports = LAST_PORT - FIRST_PORT + 1;
    for _ in 0..ports {
        assert_eq!(dial("10.9.9.9:7").0, Err(libc::EINPROGRESS));
    }
    assert_eq!(dial("10.9.9.9:7").0, Err(libc::EADDRNOTAVAIL));
    let (result, local) = dial("10.9.9.9:8");
    assert_eq!(result, Err(libc::EINPROGRESS));
    assert!(matches!(local, Address::Inet(local) if (FIRST_PORT..=LAST_PORT).contains(&local.port())), "{local:?}");
    let bound = tcp(&mut kernel, 0);
    assert_eq!(kernel.bind(bound, &addr("0.0.0.0:0")), Err(libc::EADDRINUSE));
    let datagrams = kernel.open(0, Family::V4, Kind::Datagram, true).unwrap();
    assert_eq!(kernel.connect(datagrams, &addr("10.9.9.9:7")), Ok(()), "UDP has its own ports");
}

#[test]
fn writer_to_a_unix_socket_gets_an_edge_when_three_quarters_are_free() {
    let mut kernel = world(1);
    let (writer, reader) = kernel.pair(0, Kind::Stream, true).unwrap();
    kernel.watch(writer, 7).unwrap();
    let mut left = 0;
    while let Ok(count) = send(&mut kernel, writer, &[7; 1000]) {
        left += count;
    }
    edges(&mut kernel);
    let limit = 256 << 10;
    assert_eq!(left, limit, "the default of SO_SNDBUF");
    loop {
        left -= kernel.receive(reader, &mut [&mut [0; 1000]], false).unwrap().bytes;
        let bits = edges(&mut kernel).iter().fold(0, |all, edge| all | edge.1);
        assert_eq!(is_set(bits, libc::EPOLLOUT), left * 4 <= limit, "{left} bytes are left");
        if left * 4 <= limit {
            break;
        }
        assert!(!is_set(kernel.poll(writer).unwrap(), libc::EPOLLOUT));
    }
}

#[test]
fn late_or_repeated_edge_is_not_delayed_or_repeated_again() {
    for (late, repeated) in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
        let mut kernel = world(1);
        let (writer, reader) = kernel.pair(0, Kind::Stream, true).unwrap();
        (kernel.faults.late_edges, kernel.faults.repeated_edges) = (late, repeated);
        kernel.watch(reader, 7).unwrap();
        send(&mut kernel, writer, b"x").unwrap();
        let mut count = 0;
        for _ in 0..10 {
            count += edges(&mut kernel).len();
            run_for(&mut kernel, MS);
        }
        assert_eq!(count, if late == 0.0 { 2 } else { 1 });
        assert_eq!(kernel.faults.count(), 1, "a late edge is not repeated, so no repetition is counted");
    }
}

#[test]
fn short_write_is_shorter_than_the_room() {
    for seed in 0..20 {
        let mut kernel = world(seed);
        let (client, _, _) = pair(&mut kernel);
        let data = vec![7; 16 << 20];
        kernel.faults.short = 1.0;
        let short = send(&mut kernel, client, &data).unwrap();
        assert_eq!(kernel.faults.count(), 1);
        kernel.faults.short = 0.0;
        assert!(send(&mut kernel, client, &data).unwrap() > 0, "{short} bytes were written");
    }
}

#[test]
fn new_host_has_addresses_that_no_other_host_has() {
    let mut kernel = world(1);
    let taken = "10.0.0.3".parse().unwrap();
    assert!(kernel.set_addrs(0, &[taken]));
    let (third, fourth) = (kernel.add_host("c"), kernel.add_host("d"));
    let addrs = |host: u16| kernel.hosts[usize::from(host)].addrs.clone();
    assert_eq!((addrs(0), addrs(third).len(), addrs(fourth).len()), (vec![taken], 2, 2));
    assert!(addrs(third).iter().all(|addr| *addr != taken && !addrs(fourth).contains(addr)));
    assert_eq!(kernel.by_addr.get(&taken), Some(&0));
}

#[test]
fn larger_send_buffer_wakes_a_writer() {
    let mut kernel = world(1);
    let (client, _, _) = pair(&mut kernel);
    kernel.watch(client, 7).unwrap();
    while send(&mut kernel, client, &[7; 65_536]).is_ok() {
        run_for(&mut kernel, 10 * MS);
    }
    edges(&mut kernel);
    run_for(&mut kernel, SECOND);
    assert!(edges(&mut kernel).is_empty(), "the peer does not read");
    kernel.set_option(client, libc::SOL_SOCKET, libc::SO_SNDBUF, &i32::to_ne_bytes(212_992)).unwrap();
    let bits = edges(&mut kernel).iter().fold(0, |all, edge| all | edge.1);
    assert!(is_set(bits, libc::EPOLLOUT), "{bits:#x}");
}

/// An acknowledgement of data that does not count as sent is answered with an acknowledgement. So
/// if a retransmission contained such data, the two ends would answer each other forever.
#[test]
fn fast_retransmission_sends_only_data_that_was_sent_before() {
    let mut out = Vec::new();
    let mut connection = Connection::connect(Settings { no_delay: true, ..Settings::new() }, 1, 0, &mut out);
    let ack = |ack: u64, syn: bool| Segment {
        seq: u64::from(!syn),
        ack: Some(ack),
        syn,
        fin: false,
        rst: false,
        window: 250,
        data: Box::default(),
        connection: 1,
    };
    connection.input(MS, &ack(1, true), &mut out);
    // The window has no room for the last 300 bytes.
    for length in [100, 100, 300] {
        assert_eq!(connection.write(MS, &vec![7; length], &mut out), length);
    }
    assert_eq!(out.last().map(Segment::end), Some(201));
    out.clear();
    for _ in 0..4 {
        connection.input(2 * MS, &ack(1, false), &mut out);
    }
    assert_eq!(out.iter().map(|segment| (segment.seq, segment.end())).collect::<Vec<_>>(), [(1, 201)]);
    out.clear();
    connection.input(3 * MS, &ack(201, false), &mut out);
    assert_eq!(out.iter().map(|segment| (segment.seq, segment.end())).collect::<Vec<_>>(), [(201, 451)]);
}

#[test]
#[should_panic(expected = "a simulation has at most 65,535 hosts")]
fn number_of_hosts_is_limited() {
    let mut kernel = Kernel::new(1);
    for number in 0..65_535 {
        assert_eq!(kernel.add_host(&format!("host-{number}")), number);
    }
    kernel.add_host("one more");
}
