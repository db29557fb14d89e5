//! The fuzz target `sockets`: operations on the two ends of a Unix stream. A model of both ends
//! predicts every result.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use netpoll::net::{OpError, Shutdown, is_closed};
use netpoll::os::unix::net::UnixStream;
use netpoll::task::block_on;

use super::Input;

/// The maximum number of bytes in flight in each direction. It is well below the capacity of a
/// socket, so that no write waits.
const QUEUE_MAX: usize = 8192;
/// The maximum number of operations per input.
const STEPS_MAX: usize = 200;
/// The time limit of an operation that must complete.
const BOUND: Duration = Duration::from_secs(60);

/// The expected state of one end.
#[derive(Debug, Default)]
struct End {
    /// The clones of the stream. There are none if the end was dropped.
    handles: Vec<UnixStream>,
    closed: bool,
    read_shut: bool,
    write_shut: bool,
    /// Whether the read deadline and the write deadline have expired.
    expired: [bool; 2],
    /// Bytes sent to this end and not read yet.
    queue: VecDeque<u8>,
    /// Whether the peer closed with unread data. The next read of an empty queue reports it once,
    /// as `ConnectionReset`.
    reset: bool,
}

/// The expected result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Closed,
    Expired,
    Kind(ErrorKind),
    End,
    Data,
    Pending,
}

const BROKEN_PIPE: Expected = Expected::Kind(ErrorKind::BrokenPipe);

impl End {
    fn is_gone(&self) -> bool {
        self.closed || self.handles.is_empty()
    }

    /// Returns the expected result of a read.
    fn reads(&self, peer: &End) -> Expected {
        if self.closed {
            Expected::Closed
        } else if self.expired[0] {
            Expected::Expired
        } else if !self.queue.is_empty() {
            Expected::Data
        } else if self.reset {
            Expected::Kind(ErrorKind::ConnectionReset)
        } else if self.read_shut || peer.write_shut || peer.is_gone() {
            Expected::End
        } else {
            Expected::Pending
        }
    }

    /// Returns the expected result of a write.
    fn writes(&self, peer: &End) -> Expected {
        if self.closed {
            Expected::Closed
        } else if self.expired[1] {
            Expected::Expired
        } else if self.write_shut || peer.read_shut || peer.is_gone() {
            BROKEN_PIPE
        } else {
            Expected::Data
        }
    }
}

fn is_deadline(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<OpError>()).is_some_and(OpError::is_deadline)
}

/// Checks a result and returns the number of bytes.
#[track_caller]
fn check(expected: Expected, result: io::Result<usize>) -> usize {
    match (expected, result) {
        (Expected::Data, Ok(count)) if count > 0 => count,
        (Expected::End, Ok(0)) => 0,
        (Expected::Closed, Err(error)) if is_closed(&error) => 0,
        (Expected::Expired, Err(error)) if is_deadline(&error) => 0,
        (Expected::Kind(kind), Err(error)) if error.kind() == kind => 0,
        (expected, result) => panic!("expected {expected:?}, got {result:?}"),
    }
}

/// Returns whether the future is pending. Polls it up to twice, because a poll without budget
/// returns `Pending` without a call.
fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    (0..2).all(|_| matches!(Pin::new(&mut *future).poll(&mut cx), Poll::Pending))
}

async fn bounded<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    netpoll::io::timeout(BOUND, future).await
}

/// Records that `end` was closed or dropped.
fn record_close(end: &mut End, peer: &mut End) {
    // On Linux, a close with unread data resets the connection.
    peer.reset |= !end.queue.is_empty() && !peer.is_gone();
    end.queue.clear();
}

/// Performs an action on the end number `at`. The action may end a wait.
async fn act(ends: &mut [End; 2], at: usize, action: u8, input: &mut Input<'_>) {
    let (left, right) = ends.split_at_mut(1);
    let (end, peer) = if at == 0 { (&mut left[0], &mut right[0]) } else { (&mut right[0], &mut left[0]) };
    let Some(handle) = end.handles.first() else { return };
    match action % 6 {
        0 => {
            let bytes = [input.byte()].repeat(1 + input.below(100));
            let expected = end.writes(peer);
            if expected != Expected::Data || peer.queue.len() + bytes.len() <= QUEUE_MAX {
                let mut result = bounded(handle.write(&bytes)).await;
                // If epoll_wait(2) checks a socket while the socket is closed, the kernel releases
                // the socket in epoll_wait(2), slightly after the close. Data written in the
                // meantime is not read, so a reset follows.
                let (start, was_late) = (Instant::now(), expected == BROKEN_PIPE && result.is_ok());
                while was_late && result.is_ok() && start.elapsed() < BOUND {
                    std::thread::yield_now();
                    result = bounded(handle.write(&bytes)).await;
                }
                end.reset |= was_late;
                let count = check(expected, result);
                peer.queue.extend(&bytes[..count]);
            }
        }
        1 => {
            let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][input.below(3)];
            let result = handle.shutdown(how);
            if end.closed {
                assert!(is_closed(&result.expect_err("the socket is closed")));
            } else if result.is_ok() {
                end.read_shut |= how != Shutdown::Write;
                end.write_shut |= how != Shutdown::Read;
            } else {
                assert!(peer.is_gone(), "{result:?}");
            }
        }
        2 | 3 => {
            let direction = usize::from(action % 6 == 3);
            let choice = input.byte() % 3;
            let deadline = match choice {
                0 => None,
                1 => Some(Instant::now()),
                _ => Some(Instant::now() + Duration::from_secs(3600)),
            };
            let set = if direction == 0 { UnixStream::set_read_deadline } else { UnixStream::set_write_deadline };
            let result = set(handle, deadline);
            assert_eq!(result.is_err(), end.closed, "{result:?}");
            end.expired[direction] = choice == 1;
        }
        4 => {
            handle.force_close().await.expect("close returns no error");
            if !std::mem::replace(&mut end.closed, true) {
                record_close(end, peer);
            }
        }
        _ => {
            let was_gone = end.is_gone();
            end.handles.pop();
            if end.handles.is_empty() && !was_gone {
                record_close(end, peer);
            }
        }
    }
}

/// Reads or peeks up to `room` bytes, and checks the result.
async fn read(end: &mut End, peer: &End, peek: bool, room: usize) {
    let Some(handle) = end.handles.last() else { return };
    let mut buf = vec![0; room];
    let expected = end.reads(peer);
    if expected == Expected::Pending {
        assert!(if peek { is_pending(&mut handle.peek(&mut buf)) } else { is_pending(&mut handle.read(&mut buf)) });
        return;
    }
    let result = if peek { bounded(handle.peek(&mut buf)).await } else { bounded(handle.read(&mut buf)).await };
    let count = check(expected, result);
    assert!(end.queue.iter().take(count).eq(&buf[..count]), "received bytes differ from those sent");
    if !peek {
        end.queue.drain(..count);
    }
    end.reset &= expected != Expected::Kind(ErrorKind::ConnectionReset);
}

/// Performs operations on both ends: reads, peeks, writes, shutdowns, deadlines, closes, clones and
/// drops. Some reads wait while another operation happens, and some are dropped while they wait.
pub fn operations(data: &[u8]) {
    block_on(play(data));
}

/// Performs the operations of [`operations`] in the calling task. In a simulation, the simulated
/// kernel must return the same results.
pub async fn play(data: &[u8]) {
    let mut input = Input(data);
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    let end = |handle| End { handles: vec![handle], ..End::default() };
    let mut ends = [end(one), end(other)];
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let command = input.byte();
        let at = usize::from(command >> 7);
        match command % 8 {
            0..=2 => act(&mut ends, at, command >> 3, &mut input).await,
            3 => act(&mut ends, at, 0, &mut input).await,
            4 | 5 => {
                let room = 1 + input.below(256);
                let [first, second] = &mut ends;
                let (end, peer) = if at == 0 { (first, second) } else { (second, first) };
                read(end, peer, command % 8 == 5, room).await;
            }
            6 if ends[at].handles.len() < 4 => {
                let clone = ends[at].handles.first().cloned();
                ends[at].handles.extend(clone);
            }
            6 => {}
            _ => {
                // A read waits while an action is performed on one of the ends.
                let [first, second] = &ends;
                let (end, peer) = if at == 0 { (first, second) } else { (second, first) };
                if end.reads(peer) != Expected::Pending {
                    continue;
                }
                // The additional handle prevents the action from dropping the end during the read.
                let Some(handle) = end.handles.first().cloned() else { continue };
                ends[at].handles.push(handle.clone());
                let mut buf = [0; 64];
                let mut waits = handle.read(&mut buf);
                assert!(is_pending(&mut waits));
                let action = input.byte();
                act(&mut ends, usize::from(action >> 7), action, &mut input).await;
                let [first, second] = &ends;
                let (end, peer) = if at == 0 { (first, second) } else { (second, first) };
                let expected = end.reads(peer);
                if expected == Expected::Pending {
                    assert!(is_pending(&mut waits));
                } else {
                    let count = check(expected, bounded(&mut waits).await);
                    drop(waits);
                    assert!(end.queue.iter().take(count).eq(&buf[..count]), "received bytes differ from those sent");
                    ends[at].queue.drain(..count);
                    ends[at].reset &= expected != Expected::Kind(ErrorKind::ConnectionReset);
                }
                if ends[at].handles.len() > 1 {
                    ends[at].handles.pop();
                }
            }
        }
    }
}
