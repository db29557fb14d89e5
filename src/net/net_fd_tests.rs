//! Tests that a short count clears readiness on TCP sockets only, on Linux only, and not after the
//! descriptor was exposed. (Unix sockets take the place of TCP sockets in these tests.)

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::unix::net::UnixStream;
use std::task::Waker;

use super::*;
use crate::sys;
use std::os::fd::AsFd;

/// Whether a TCP socket stays ready after a short count.
const STAYS_READY: bool = !sys::os::SHORT_COUNTS_ARE_EVIDENCE;

fn pair(is_tcp: bool) -> (NetFd, UnixStream) {
    let (socket, peer) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = if is_tcp { NetFd::tcp(socket.into()) } else { NetFd::new(socket.into(), &"unix") };
    (socket.unwrap(), peer)
}

fn is_ready(socket: &NetFd, direction: Direction) -> bool {
    socket.fd.poll.side(direction).begin().unwrap().is_ready()
}

fn done<T: std::fmt::Debug>(polled: Poll<io::Result<T>>) -> T {
    match polled {
        Poll::Ready(result) => result.unwrap(),
        Poll::Pending => panic!("the call is pending"),
    }
}

/// Reads once into buffers of `rooms` bytes while `there` bytes are available; if `there` is 0, at
/// the end of the stream. `flags` apply to a read into one buffer. Returns whether the socket is
/// still marked readable.
fn read(is_tcp: bool, there: usize, rooms: &[usize], flags: libc::c_int) -> bool {
    let (socket, mut peer) = pair(is_tcp);
    let mut cx = Context::from_waker(Waker::noop());
    peer.write_all(&vec![7; there]).unwrap();
    if there == 0 {
        peer.shutdown(Shutdown::Write).unwrap();
    }
    let mut operation = Operation::new();
    let mut bufs: Vec<_> = rooms.iter().map(|&room| vec![0; room]).collect();
    let all: usize = rooms.iter().sum();
    let count = if let [buf] = &mut bufs[..] {
        done(socket.poll_read(Waiter::Future(&mut operation), &mut cx, buf, flags))
    } else {
        let mut bufs: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        done(socket.poll_read_vectored(Waiter::Future(&mut operation), &mut cx, &mut bufs))
    };
    assert_eq!(count, there.min(all));
    assert!(is_ready(&socket, Direction::Write));
    is_ready(&socket, Direction::Read)
}

#[test]
fn short_read_clears_readiness_on_tcp_only() {
    for (there, rooms) in [(3, &[8][..]), (3, &[2, 2]), (1, &[1, 1])] {
        assert_eq!(read(true, there, rooms, 0), STAYS_READY, "{there} bytes, {rooms:?}");
    }
    assert!(read(true, 4, &[4], 0) && read(true, 5, &[4], 0), "a full read keeps readiness");
    assert!(read(true, 4, &[2, 2], 0) && read(true, 5, &[2, 2], 0));
    assert!(read(true, 3, &[8], libc::MSG_PEEK), "peeked bytes remain");
    assert!(read(true, 0, &[8], 0) && read(true, 0, &[4, 4], 0), "end of stream stays readable");
    assert!(read(true, 3, &[0], 0) && read(true, 3, &[0, 0], 0), "an empty buffer proves nothing");
    assert!(read(false, 3, &[8], 0) && read(false, 3, &[2, 2], 0), "a short count proves nothing on other sockets");
}

/// Writes buffers of `sizes` bytes with one call, and checks that the count is short if `is_short`
/// is true, and full otherwise. Returns whether the socket is still marked writable.
fn write(is_tcp: bool, sizes: &[usize], is_short: bool) -> bool {
    let (socket, mut peer) = pair(is_tcp);
    let mut cx = Context::from_waker(Waker::noop());
    let (bufs, all): (Vec<_>, usize) = (sizes.iter().map(|&size| vec![7; size]).collect(), sizes.iter().sum());
    let count = if let [buf] = &bufs[..] {
        done(socket.poll_write(Waiter::Poll, &mut cx, buf))
    } else {
        let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        done(socket.poll_write_vectored(Waiter::Poll, &mut cx, &bufs))
    };
    assert_eq!((count > 0, count < all), (true, is_short));
    peer.read_exact(&mut vec![0; count]).unwrap();
    assert!(is_ready(&socket, Direction::Read));
    is_ready(&socket, Direction::Write)
}

#[test]
fn short_write_clears_readiness_on_tcp_only() {
    assert_eq!([write(true, &[64 << 20], true), write(true, &[32 << 20; 2], true)], [STAYS_READY; 2]);
    assert!(write(true, &[100], false) && write(true, &[50; 2], false), "a full write keeps readiness");
    assert!(
        write(false, &[64 << 20], true) && write(false, &[32 << 20; 2], true),
        "a short count proves nothing on other sockets"
    );
}

/// Simulates kTLS that was enabled by another user of the descriptor: each call ends at a record,
/// and no edge reports the next record.
#[test]
fn short_read_proves_nothing_after_descriptor_was_exposed() {
    for exposes in [false, true] {
        let (socket, peer) = sys::unix::pair(socket2::Type::DGRAM).unwrap();
        let socket = NetFd::tcp(socket).unwrap();
        if exposes {
            socket.control(|_| Ok(())).unwrap();
        }
        for record in [b"one", b"two"] {
            socket::send(peer.as_fd(), record, 0).unwrap();
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut buf = [0; 8];
        assert_eq!(done(socket.poll_read(Waiter::Future(&mut Operation::new()), &mut cx, &mut buf, 0)), 3);
        assert_eq!(is_ready(&socket, Direction::Read), exposes || STAYS_READY);
        if exposes {
            assert_eq!(done(socket.poll_read(Waiter::Future(&mut Operation::new()), &mut cx, &mut buf, 0)), 3);
            assert_eq!(&buf[..3], b"two");
            assert!(socket.poll_read(Waiter::Future(&mut Operation::new()), &mut cx, &mut buf, 0).is_pending());
        }
    }
}
