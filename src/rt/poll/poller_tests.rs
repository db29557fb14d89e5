//! Unit tests of the state of a `poll_*` operation between polls and after its end, and of the
//! record of failures; see [`poller`](super).

use super::*;
use crate::sys::socket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Returns a socket, its peer, its registered handle, and the epoch of the registration.
fn registered() -> (UnixStream, UnixStream, PollHandle, u32) {
    let (socket, peer) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let handle = PollHandle::open().unwrap();
    let epoch = handle.register(socket.as_fd(), false).unwrap();
    (socket, peer, handle, epoch)
}

/// Ends the waits and the registration of a socket, as its close does.
fn close(handle: &PollHandle, socket: &UnixStream) {
    handle.evict(&mut Wakers::new());
    handle.retire(socket.as_fd(), false);
}

/// The timeout of a poll that had to wait, and that an edge then made ready, must not apply to the
/// next poll.
#[test]
fn poll_that_found_an_edge_leaves_no_timeout() {
    let (socket, _peer, handle, epoch) = registered();
    let side = handle.side(Direction::Read);
    let mut cx = Context::from_waker(Waker::noop());
    let mut wait = || side.poll_wait(epoch, &mut cx, Waiter::Poll, NonZeroU64::new(60_000_000_000));
    assert!(side.clear_ready(side.begin().unwrap()));
    assert!(wait().is_pending());
    assert_ne!(side.until_of_poll().load(Ordering::Relaxed), clock::NONE);
    assert!(side.set_ready(0, &mut Wakers::new()));
    let polled = wait();
    assert!(matches!(polled, Poll::Ready(Ok(()))), "{polled:?}");
    side.end_poll();
    assert_eq!(side.until_of_poll().load(Ordering::Relaxed), clock::NONE);
    close(&handle, &socket);
    drop(socket::close(socket.into()));
}

/// A close ends the registration, as a shutdown does. Regression: a close between two checks of the
/// wait for a hang-up was reported as a shutdown.
#[test]
fn close_during_a_wait_for_a_hang_up_is_no_shutdown() {
    let (socket, _peer, handle, epoch) = registered();
    let mut cx = Context::from_waker(Waker::noop());
    let closes = |_: Side<'_>| {
        close(&handle, &socket);
        false
    };
    let polled = handle.side(Direction::Read).poll_until(epoch, &mut cx, &mut WaitKey::default(), closes);
    assert!(matches!(polled, Poll::Ready(Err(Failure::Closed))), "{polled:?}");
    drop(socket::close(socket.into()));
}

/// The epoch in which a poll waited must not apply to the next poll, which may wait in another
/// epoch.
#[test]
fn poll_that_has_ended_leaves_no_epoch() {
    let (socket, _peer, handle, epoch) = registered();
    let mut cx = Context::from_waker(Waker::noop());
    let side = handle.side(Direction::Read);
    side.clear_ready(side.begin().unwrap());
    assert!(side.poll_wait(epoch, &mut cx, Waiter::Poll, None).is_pending());
    let began = || side.epoch_of_poll().load(Ordering::Relaxed);
    let now = poll_of(epoch, Waker::noop());
    assert_eq!(began(), now);
    handle.side(Direction::Write).end_poll();
    assert_eq!(began(), now, "the poll of the other direction has ended");
    side.end_poll();
    assert_eq!(began(), 0);
    close(&handle, &socket);
    drop(socket::close(socket.into()));
}

#[test]
fn poll_of_an_earlier_epoch_ends_unless_another_task_polls() {
    struct Owner;
    impl std::task::Wake for Owner {
        fn wake(self: std::sync::Arc<Owner>) {}
    }
    let handle = PollHandle::open().unwrap();
    let side = handle.side(Direction::Read);
    let wakers = [(); 2].map(|()| Waker::from(std::sync::Arc::new(Owner)));
    assert!(side.record_epoch(7, &mut Waiter::Poll, &wakers[0]));
    assert!(side.record_epoch(7, &mut Waiter::Poll, &wakers[1]));
    assert!(!side.record_epoch(8, &mut Waiter::Poll, &wakers[1]));
    side.until_of_poll().store(1, Ordering::Relaxed);
    assert!(side.record_epoch(9, &mut Waiter::Poll, &wakers[0]), "the earlier poll belongs to another task");
    assert_eq!(side.until_of_poll().load(Ordering::Relaxed), clock::NONE, "and so does its timeout");
    side.end_poll();
    assert!(side.record_epoch(10, &mut Waiter::Poll, &wakers[0]));
    handle.retire_bare();
}

#[test]
fn failure_without_an_errno_keeps_the_last_errno() {
    let handle = PollHandle::open().unwrap();
    handle.count_failure(&io::Error::from_raw_os_error(libc::EPIPE));
    handle.count_failure(&io::ErrorKind::InvalidData.into());
    let failures = handle.desc.failures();
    handle.retire_bare();
    assert_eq!(failures, (2, libc::EPIPE as u8));
}
