//! Tests of rare events in the life of a connection: a peer that does not read for hours, a reset after the end of the
//! stream, reuse of a port after a crash, and a late SYN.

use super::Kernel;
use super::tests::{MS, SECOND, SERVER, addr, connect, listen, pair, receive, run_for, send, tcp, world};

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
    let mut has_come = false;
    while kernel.now < 110 * SECOND {
        let before = kernel.log.counters.arrived;
        run_for(&mut kernel, 10 * MS);
        has_come |= kernel.now > 10 * SECOND && kernel.log.counters.arrived > before;
        assert!(kernel.connections.keys().all(|key| key.0 != 1), "a connection is opened again at {} ns", kernel.now);
    }
    assert!(has_come, "the SYN has arrived late");
}
