//! When a stream is closed, a task sends the gathered bytes that the kernel has not accepted.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::common::{child, poll_once, run, set_nofile};
use super::ends::fill_and_gather;
use super::{narrow_pair, pattern, read_to_end};

/// TCP_NOTSENT_LOWAT keeps the kernel from accepting the remaining bytes into a larger buffer, so a
/// task has to send them.
#[test]
fn rest_that_the_kernel_refuses_is_sent_after_the_close() {
    run(async {
        for explicit in [false, true] {
            let (ours, peer) = narrow_pair().await;
            let total = fill_and_gather(&ours).await;
            ours.set_notsent_lowat(1).unwrap();
            if explicit {
                ours.force_close().await.unwrap();
            }
            drop(ours);
            assert!(read_to_end(&peer).await.unwrap() == pattern(0, total));
        }
    });
}

/// A duplicate keeps the socket open after the close, so the close sends no FIN. The shutdown
/// before the close ends the stream nevertheless.
#[test]
fn shutdown_before_the_close_ends_the_stream_of_a_duplicate() {
    run(async {
        for explicit in [false, true] {
            let (ours, peer) = narrow_pair().await;
            let total = fill_and_gather(&ours).await;
            ours.set_notsent_lowat(1).unwrap();
            let _duplicate = ours.as_fd().try_clone_to_owned().unwrap();
            ours.close_write().unwrap();
            if explicit {
                ours.force_close().await.unwrap();
            }
            drop(ours);
            assert!(read_to_end(&peer).await.unwrap() == pattern(0, total));
        }
    });
}

/// Calls `close` while this process cannot open descriptors.
fn without_spare_descriptor<T>(close: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::Nofile);
    set_nofile(0);
    let closed = close();
    setrlimit(Resource::Nofile, limit).unwrap();
    closed
}

/// If no descriptor is free for a duplicate, the task owns the number itself, so the close ends
/// when all bytes are sent.
#[test]
fn close_without_a_descriptor_to_spare_ends_when_the_rest_is_sent() {
    let name = "rest::close_without_a_descriptor_to_spare_ends_when_the_rest_is_sent";
    child(name, || {
        run(async {
            let (ours, peer) = narrow_pair().await;
            let total = fill_and_gather(&ours).await;
            ours.set_notsent_lowat(1).unwrap();
            let number = ours.as_raw_fd();
            let mut closed = without_spare_descriptor(|| ours.force_close());
            // SAFETY: the number is open, because the task still has bytes to send while the peer
            // reads nothing.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            assert!(rustix::io::fcntl_getfd(fd).is_ok());
            assert!(poll_once(&mut closed).await.is_pending());
            assert!(read_to_end(&peer).await.unwrap() == pattern(0, total));
            closed.await.unwrap();
        });
    });
}

/// The remaining bytes are sent even if peers have used up the descriptors of a server.
#[test]
fn rest_is_sent_after_the_close_without_a_descriptor_to_spare() {
    let name = "rest::rest_is_sent_after_the_close_without_a_descriptor_to_spare";
    child(name, || {
        run(async {
            let (ours, peer) = narrow_pair().await;
            let total = fill_and_gather(&ours).await;
            ours.set_notsent_lowat(1).unwrap();
            without_spare_descriptor(|| drop(ours));
            assert!(read_to_end(&peer).await.unwrap() == pattern(0, total));
        });
    });
}
