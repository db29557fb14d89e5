//! Tests of shutdown(2) on TCP sockets.

use super::tests::{MS, connect, edges, is_set, listen, pair, receive, run_for, send, world};

#[test]
fn half_close_ends_one_direction() {
    let mut kernel = world(1);
    let (client, server, _) = pair(&mut kernel);
    send(&mut kernel, client, b"last").unwrap();
    kernel.shutdown(client, false, true).unwrap();
    assert_eq!(send(&mut kernel, client, b"x"), Err(libc::EPIPE));
    run_for(&mut kernel, 2 * MS);
    assert_eq!(receive(&mut kernel, server).unwrap(), b"last");
    assert_eq!(receive(&mut kernel, server).unwrap(), b"");
    assert!(
        is_set(kernel.poll(server).unwrap(), libc::EPOLLRDHUP) && !is_set(kernel.poll(server).unwrap(), libc::EPOLLHUP)
    );
    send(&mut kernel, server, b"answer").unwrap();
    run_for(&mut kernel, 2 * MS);
    assert_eq!(receive(&mut kernel, client).unwrap(), b"answer");
    kernel.shutdown(server, false, true).unwrap();
    run_for(&mut kernel, 2 * MS);
    assert_eq!(receive(&mut kernel, client).unwrap(), b"");
    assert!(is_set(kernel.poll(client).unwrap(), libc::EPOLLHUP));
}

/// As on Linux, data that arrives later can still be read, unless writing was shut down as well.
#[test]
fn shutdown_of_reading_raises_an_edge() {
    for write in [false, true] {
        let mut kernel = world(1);
        let (client, server, _) = pair(&mut kernel);
        kernel.watch(server, 7).unwrap();
        assert_eq!(receive(&mut kernel, server), Err(libc::EAGAIN));
        edges(&mut kernel);
        kernel.shutdown(server, true, write).unwrap();
        let bits = edges(&mut kernel).iter().fold(0, |all, edge| all | edge.1);
        assert!(is_set(bits, libc::EPOLLIN) && is_set(bits, libc::EPOLLRDHUP), "{bits:#x}");
        assert_eq!(is_set(kernel.poll(server).unwrap(), libc::EPOLLHUP), write);
        assert_eq!(receive(&mut kernel, server).unwrap(), b"");
        send(&mut kernel, client, b"late").unwrap();
        run_for(&mut kernel, 2 * MS);
        if write {
            assert_eq!(receive(&mut kernel, server), Err(libc::ECONNRESET));
        } else {
            assert_eq!(receive(&mut kernel, server).unwrap(), b"late");
        }
        assert_eq!(receive(&mut kernel, server).unwrap(), b"");
    }
}

/// As on Linux, shutdown(2) with SHUT_WR has no effect on a listener.
#[test]
fn shutdown_of_writing_keeps_the_queue_of_a_listener() {
    let mut kernel = world(1);
    let listener = listen(&mut kernel, 8);
    let client = connect(&mut kernel);
    run_for(&mut kernel, 3 * MS);
    kernel.shutdown(listener, false, true).unwrap();
    let (server, _) = kernel.accept(listener, true).unwrap();
    send(&mut kernel, client, b"x").unwrap();
    run_for(&mut kernel, 2 * MS);
    assert_eq!(receive(&mut kernel, server).unwrap(), b"x");
}
