//! Tests of the poll(2) back end: the conversion of levels to edges, and the limits.

use std::os::unix::net::UnixStream;

use super::*;
use crate::own_process;
use crate::rt::poll::side::{ERROR, HANG_UP, PRIORITY};

fn entry() -> Entry {
    let file = File::of(io::pipe().unwrap().0.as_fd()).unwrap();
    Entry::new(9, 7, file)
}

#[test]
fn reported_level_is_not_requested_until_armed() {
    let mut entry = entry();
    let all = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | HALF_CLOSED;
    assert_eq!(entry.request(0), Some(all));
    let event = entry.report(3, libc::POLLIN | libc::POLLOUT, 0).unwrap();
    assert_eq!((event.index, event.generation), (3, 7));
    assert!(event.readable && event.writable && event.read_reasons == 0);
    assert_eq!(entry.request(0), Some(libc::POLLPRI | HALF_CLOSED));
    assert_eq!(entry.report(3, libc::POLLIN, 0), None, "already reported");
    entry.arm(true, false);
    assert_eq!(entry.request(0), Some(all & !libc::POLLOUT));
    entry.arm(false, true);
    assert_eq!(entry.request(0), Some(all));
}

#[test]
fn half_close_is_reported_with_unread_data() {
    let mut entry = entry();
    assert!(entry.report(0, libc::POLLIN, 0).is_some());
    let event = entry.report(0, libc::POLLIN | HALF_CLOSED, 0).unwrap();
    assert!(event.readable && !event.writable);
    assert_eq!((event.read_reasons, event.write_reasons), (HANG_UP, 0));
}

#[test]
fn descriptor_is_omitted_after_a_hang_up_until_armed() {
    let mut entry = entry();
    let event = entry.report(0, libc::POLLIN | libc::POLLHUP, 5).unwrap();
    assert_eq!((event.read_reasons, event.write_reasons), (HANG_UP, HANG_UP));
    assert_eq!(entry.request(6), None);
    entry.arm(false, false);
    assert!(entry.request(5 + QUIET_NANOS).is_some_and(|events| events & libc::POLLIN == 0));
}

#[test]
fn lasting_level_is_reported_again_after_a_pause() {
    let mut entry = entry();
    for level in [libc::POLLERR, libc::POLLPRI] {
        let (now, reason) = (entry.quiet_until + 10, if level == libc::POLLERR { ERROR } else { PRIORITY });
        assert!(entry.request(now).is_some());
        assert_eq!(entry.report(0, level, now).unwrap().read_reasons, reason);
        entry.arm(true, true);
        let requested = entry.request(now);
        assert!(requested.is_none_or(|events| events & level == 0), "too soon");
        assert!(level == libc::POLLERR || requested.is_some_and(|events| events & libc::POLLIN != 0));
        let again = entry.request(now + QUIET_NANOS);
        assert!(again.is_some());
        assert!(entry.report(0, level, now + QUIET_NANOS).is_some());
        entry.arm(true, true);
    }
}

#[test]
fn all_descriptors_are_polled_in_turn_under_a_small_limit() {
    let mut table = Table::default();
    for index in 0..5 {
        table.entries.insert(index, Entry { fd: index as RawFd, ..entry() });
    }
    let mut batch: Batch = backend::Batch::new();
    batch.polled.push(libc::pollfd { fd: 0, events: 0, revents: 0 });
    let mut seen = std::collections::HashSet::new();
    for start in 0..5 {
        batch.start = start;
        assert!(table.request(&mut batch, 2, 0).is_some(), "the rest is requested soon");
        assert_eq!((batch.polled.len(), batch.indices.len()), (3, 2));
        seen.extend(batch.indices.iter().copied());
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn system_without_half_close_events_is_refused() {
    let error = check(None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("POLLRDHUP"), "{error}");
}

/// Runs `body`, which changes a limit of the process, in a separate process.
fn in_child(test: &str, body: impl FnOnce()) {
    own_process::run(module_path!(), test, body);
}

/// Calls `body` with the soft limit RLIMIT_NOFILE set to `descriptors`.
fn with_limit(descriptors: u64, body: impl FnOnce()) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), ..before }).unwrap();
    body();
    // LeakSanitizer opens files when the process exits.
    setrlimit(Resource::Nofile, before).unwrap();
}

fn pairs(count: usize) -> Vec<(UnixStream, UnixStream)> {
    (0..count).map(|_| UnixStream::pair().unwrap()).collect()
}

fn add(poll: &Poll, fd: &UnixStream, index: u32) -> io::Result<()> {
    poll.add(fd.as_fd(), Token { index, generation: 1 }, true)
}

#[test]
fn more_descriptors_than_poll_accepts_is_an_error() {
    in_child("more_descriptors_than_poll_accepts_is_an_error", || {
        let (poll, pairs) = (Poll::open().unwrap(), pairs(5));
        with_limit(4, || {
            // The pipe needs one of the four entries.
            for index in 0..3 {
                add(&poll, &pairs[index as usize].0, index).unwrap();
            }
            let error = add(&poll, &pairs[3].0, 3).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
            assert!(error.to_string().contains("poll(2)") && error.to_string().contains("RLIMIT_NOFILE"), "{error}");
            // poll(2) still accepts the descriptors that were added.
            (&pairs[2].1).write_all(b"x").unwrap();
            let mut batch: Batch = backend::Batch::new();
            poll.wait(&mut batch, 8, Some(0));
            assert!(backend::Batch::events(&batch).any(|event| event.index == 2 && event.readable));
            poll.delete(pairs[0].0.as_fd());
            add(&poll, &pairs[3].0, 3).unwrap();
        });
    });
}

#[test]
fn descriptors_above_a_lowered_limit_are_still_polled() {
    in_child("descriptors_above_a_lowered_limit_are_still_polled", || {
        let (poll, pairs) = (Poll::open().unwrap(), pairs(9));
        for (pair, index) in pairs.iter().zip(0..) {
            add(&poll, &pair.0, index).unwrap();
            (&pair.1).write_all(b"x").unwrap();
        }
        with_limit(3, || {
            let mut batch: Batch = backend::Batch::new();
            let mut seen = std::collections::HashSet::new();
            let begun = std::time::Instant::now();
            while seen.len() < pairs.len() {
                assert!(begun.elapsed() < Duration::from_secs(60), "only {seen:?}");
                poll.wait(&mut batch, 8, Some(1_000_000));
                seen.extend(backend::Batch::events(&batch).filter(|event| event.readable).map(|event| event.index));
            }
        });
    });
}
