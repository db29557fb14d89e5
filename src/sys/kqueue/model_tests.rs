//! Tests that the model behaves as the manual pages describe.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::*;

fn change(fd: &impl AsRawFd, filter: i16, flags: u16) -> Kevent {
    kevent_of(fd.as_raw_fd() as usize, filter, flags, 0, 7)
}

fn empty() -> Kevent {
    kevent_of(0, 0, 0, 0, 0)
}

fn apply(queue: &OwnedFd, change: Kevent) -> i32 {
    let changed = kevent(queue.as_fd(), &[change], &mut [], Some(0));
    changed.err().map_or(0, |error| error.raw_os_error().unwrap())
}

/// Waits for events for up to a minute and returns them. If `waits` is false, returns the events
/// that are available now.
fn taken(queue: &OwnedFd, waits: bool) -> Vec<Kevent> {
    let mut events = [empty(); 8];
    let timeout = if waits { 60_000_000_000 } else { 0 };
    let count = kevent(queue.as_fd(), &[], &mut events, Some(timeout)).unwrap();
    events[..count].to_vec()
}

fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    (one, other)
}

#[test]
fn cleared_filter_is_taken_once_per_change() {
    let (queue, (mut socket, mut peer)) = (kqueue().unwrap(), pair());
    assert_eq!(apply(&queue, change(&socket, EVFILT_READ, EV_ADD | EV_CLEAR)), 0);
    assert_eq!(taken(&queue, false), []);
    for _ in 0..2 {
        peer.write_all(b"ab").unwrap();
        let events = taken(&queue, true);
        assert_eq!((events.len(), events[0].filter, events[0].udata as usize), (1, EVFILT_READ, 7));
        assert_eq!(taken(&queue, false), []);
    }
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 4);
}

#[test]
fn level_triggered_event_is_returned_while_the_condition_holds() {
    let (queue, (mut socket, mut peer)) = (kqueue().unwrap(), pair());
    peer.write_all(b"ab").unwrap();
    assert_eq!(apply(&queue, change(&socket, EVFILT_READ, EV_ADD)), 0);
    assert_eq!((taken(&queue, true).len(), taken(&queue, true).len()), (1, 1));
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 2);
    assert_eq!(taken(&queue, false), []);
}

#[test]
fn clear_is_lost_when_a_filter_is_added_again_without_it() {
    let (queue, (socket, mut peer)) = (kqueue().unwrap(), pair());
    peer.write_all(b"x").unwrap();
    assert_eq!(apply(&queue, change(&socket, EVFILT_READ, EV_ADD | EV_CLEAR)), 0);
    assert_eq!(taken(&queue, true).len(), 1);
    assert_eq!(apply(&queue, change(&socket, EVFILT_READ, EV_ADD)), 0);
    assert_eq!((taken(&queue, true).len(), taken(&queue, true).len()), (1, 1));
}

#[test]
fn one_shot_is_deleted_and_dispatch_disabled() {
    let (queue, (socket, _peer)) = (kqueue().unwrap(), pair());
    assert_eq!(apply(&queue, change(&socket, EVFILT_WRITE, EV_ADD | EV_ONESHOT)), 0);
    assert_eq!((taken(&queue, true).len(), taken(&queue, false).len()), (1, 0));
    assert_eq!(apply(&queue, change(&socket, EVFILT_WRITE, EV_DELETE)), libc::ENOENT);
    assert_eq!(apply(&queue, change(&socket, EVFILT_WRITE, EV_ADD | EV_DISPATCH)), 0);
    assert_eq!((taken(&queue, true).len(), taken(&queue, false).len()), (1, 0));
    assert_eq!(apply(&queue, change(&socket, EVFILT_WRITE, EV_ENABLE)), 0);
    assert_eq!(taken(&queue, true).len(), 1);
    assert_eq!(apply(&queue, change(&socket, EVFILT_WRITE, EV_DELETE)), 0);
    assert_eq!(taken(&queue, false), []);
}

#[test]
fn end_of_file_is_reported_with_the_data_before_it() {
    let queue = kqueue().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    client.write_all(b"abc").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(apply(&queue, change(&server, EVFILT_READ, EV_ADD | EV_CLEAR)), 0);
    loop {
        let event = taken(&queue, true)[0];
        if event.flags & EV_EOF != 0 {
            assert_eq!((event.data, event.fflags), (3, 0));
            break;
        }
    }
    crate::sys::option::socket::set_linger(client.as_fd(), Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    let event = taken(&queue, true)[0];
    assert_eq!(event.fflags, libc::ECONNRESET as u32, "the error is in fflags");
}

#[test]
fn failed_changes_are_reported_in_the_list_or_fail_the_call() {
    let (queue, (socket, _peer)) = (kqueue().unwrap(), pair());
    let bad = kevent_of(1 << 20, EVFILT_READ, EV_ADD, 0, 0);
    assert_eq!(apply(&queue, bad), libc::EBADF);
    let changes = [change(&socket, EVFILT_WRITE, EV_ADD | EV_RECEIPT), bad];
    let mut events = [empty(); 8];
    assert_eq!(kevent(queue.as_fd(), &changes, &mut events, None).unwrap(), 2, "no event is taken");
    let answers: Vec<_> = events[..2].iter().map(|event| (event.flags & EV_ERROR != 0, event.data as i32)).collect();
    assert_eq!(answers, [(true, 0), (true, libc::EBADF)]);
    assert_eq!(taken(&queue, true).len(), 1);
    assert_eq!(apply(&queue, change(&socket, -99, EV_ADD)), libc::EINVAL);
}

#[test]
fn triggers_of_a_user_filter_merge() {
    let queue = kqueue().unwrap();
    let user = |flags, fflags| kevent_of(0, EVFILT_USER, flags, fflags, 0);
    assert_eq!(apply(&queue, user(EV_ADD | EV_CLEAR, 0)), 0);
    assert_eq!(taken(&queue, false), []);
    for _ in 0..2 {
        assert_eq!((0..3).map(|_| apply(&queue, user(0, NOTE_TRIGGER))).max(), Some(0));
        assert_eq!((taken(&queue, true).len(), taken(&queue, false).len()), (1, 0));
    }
}

#[test]
fn close_deletes_the_filters_of_a_descriptor() {
    let queue = kqueue().unwrap();
    let (socket, mut peer) = pair();
    let number = socket.as_raw_fd();
    assert_eq!(apply(&queue, change(&socket, EVFILT_READ, EV_ADD | EV_CLEAR)), 0);
    // SAFETY: `socket` owns the descriptor `number`, which is open. From here on `socket` owns the
    // duplicate.
    #[allow(unsafe_code)]
    let replaced = unsafe { libc::dup2(peer.as_raw_fd(), number) };
    assert_eq!(replaced, number);
    let _ = peer.write(b"x");
    assert_eq!(taken(&queue, false), []);
    assert_eq!(apply(&queue, change(&socket, EVFILT_WRITE, EV_ADD | EV_CLEAR)), 0);
    assert_eq!(apply(&queue, change(&socket, EVFILT_READ, EV_DELETE)), libc::ENOENT);
}
