//! Tests of copies whose splice(2) or sendfile(2) fails at the start or later, because the kernel,
//! a sandbox or the file type refuses it. The copy continues through the buffer, and no byte is
//! lost. Any other error ends the copy.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::thread;

use futures_lite::AsyncReadExt;
use futures_lite::io::AssertAsync;

use super::copy;
use crate::net::zero_copy::endpoint;
use crate::net::{TcpListener, TcpStream};
use crate::sys::seam::{self, Call, Outcome};
use crate::task::block_on;

const BYTES: usize = 3 << 20;
const REFUSALS: [i32; 5] = [libc::EINVAL, libc::ENOSYS, libc::EPERM, libc::EOPNOTSUPP, libc::EACCES];
/// The refusals that can also be errors of the connection.
const AMBIGUOUS: [i32; 3] = [libc::EPERM, libc::EOPNOTSUPP, libc::EACCES];

fn bytes() -> Vec<u8> {
    (0..BYTES as u32).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

async fn accept(
    with: impl FnOnce(SocketAddr) -> thread::JoinHandle<Vec<u8>>,
) -> (TcpStream, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = with(listener.local_addr().unwrap());
    (listener.accept().await.unwrap().0, peer)
}

/// Returns a stream whose peer sends [`bytes`], and the thread of the peer.
async fn source() -> (TcpStream, thread::JoinHandle<Vec<u8>>) {
    accept(|addr| {
        thread::spawn(move || {
            let mut peer = std::net::TcpStream::connect(addr).unwrap();
            peer.write_all(&bytes()).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            Vec::new()
        })
    })
    .await
}

/// Returns a stream, and the thread of its peer, which returns the bytes that it receives.
async fn target() -> (TcpStream, thread::JoinHandle<Vec<u8>>) {
    accept(|addr| {
        thread::spawn(move || {
            let mut all = Vec::new();
            std::net::TcpStream::connect(addr).unwrap().read_to_end(&mut all).unwrap();
            all
        })
    })
    .await
}

/// Lets the next `before` calls of `stream` through. The following call fails with EINTR, and the
/// next one with `errno`. So does its repetition, if `errno` can be an error of the connection.
fn refuse_after(call: Call, before: usize, errno: i32, stream: &TcpStream) -> seam::Script {
    let script = seam::descriptor(stream.as_fd());
    for _ in 0..before {
        script.then(call, Outcome::Real);
    }
    script.then(call, Outcome::Fail(libc::EINTR));
    for _ in 0..attempts(errno) {
        script.then(call, Outcome::Fail(errno));
    }
    script
}

/// Returns the number of calls that fail with `errno` before it counts as a refusal.
fn attempts(errno: i32) -> usize {
    1 + usize::from(AMBIGUOUS.contains(&errno))
}

/// Checks that a copy whose splice(2) is refused with `errno` after `before` calls is complete.
fn check_splice(call: Call, before: usize, errno: i32) {
    block_on(async {
        let ((mut source, sender), (mut target, receiver)) = (source().await, target().await);
        let script = refuse_after(call, before, errno, if call == Call::SpliceFrom { &source } else { &target });
        assert_eq!(copy(&mut source, &mut target).await.unwrap(), BYTES as u64, "{call:?} {before} {errno}");
        assert_eq!(script.calls(call), before + 1 + attempts(errno), "no further attempt");
        drop((source, target));
        assert!(receiver.join().unwrap() == bytes(), "{call:?} {before} {errno}");
        sender.join().unwrap();
    });
}

#[test]
fn splice_refused_at_the_start_falls_back_to_the_buffer() {
    REFUSALS.iter().for_each(|&errno| check_splice(Call::SpliceFrom, 0, errno));
}

#[test]
fn splice_refused_later_loses_nothing() {
    check_splice(Call::SpliceFrom, 2, libc::EINVAL);
}

/// The bytes in the pipe were taken from the source before the refusal.
#[test]
fn bytes_in_the_pipe_are_written_when_the_target_refuses_splice() {
    for (before, errno) in [0, 1, 2].into_iter().zip(REFUSALS) {
        check_splice(Call::SpliceTo, before, errno);
    }
}

/// The limit has counted the bytes in the pipe before the refusal.
#[test]
fn limit_holds_across_a_refusal() {
    block_on(async {
        let ((mut source, sender), (mut target, receiver)) = (source().await, target().await);
        let script = refuse_after(Call::SpliceTo, 1, libc::EINVAL, &target);
        let mut limited = (&mut source).take(BYTES as u64 - 7);
        assert_eq!(copy(&mut limited, &mut target).await.unwrap(), BYTES as u64 - 7);
        assert_eq!((limited.limit(), script.calls(Call::SpliceTo)), (0, 3));
        let mut rest = Vec::new();
        source.read_to_end(&mut rest).await.unwrap();
        drop((source, target));
        let mut all = receiver.join().unwrap();
        assert_eq!(rest.len(), 7);
        all.extend(rest);
        assert!(all == bytes());
        sender.join().unwrap();
    });
}

#[test]
fn other_errors_are_returned_by_the_copy() {
    block_on(async {
        let ((mut source, sender), (mut target, _receiver)) = (source().await, target().await);
        let _script = refuse_after(Call::SpliceFrom, 0, libc::EIO, &source);
        assert_eq!(copy(&mut source, &mut target).await.unwrap_err().raw_os_error(), Some(libc::EIO));
        // The copy has taken no bytes from the source: all of them can still be read.
        let mut all = Vec::new();
        source.read_to_end(&mut all).await.unwrap();
        assert!(all == bytes());
        sender.join().unwrap();
    });
}

/// Returns a stream whose peer has closed the connection.
async fn ended() -> TcpStream {
    let (stream, peer) = accept(|addr| {
        thread::spawn(move || {
            drop(std::net::TcpStream::connect(addr).unwrap());
            Vec::new()
        })
    })
    .await;
    peer.join().unwrap();
    stream
}

/// The error of the connection, for example after an ICMP message, can have the number of a
/// refusal. The kernel reports it once, and then the end of the stream.
#[test]
fn error_of_the_source_is_no_refusal() {
    for errno in AMBIGUOUS {
        block_on(async {
            let (mut source, (mut target, receiver)) = (ended().await, target().await);
            let script = seam::descriptor(source.as_fd());
            script.then(Call::SpliceFrom, Outcome::Fail(errno)).then(Call::SpliceFrom, Outcome::Fail(libc::EINTR));
            let error = copy(&mut source, &mut target).await.unwrap_err();
            assert_eq!((error.raw_os_error(), script.calls(Call::SpliceFrom)), (Some(errno), 3));
            drop(target);
            receiver.join().unwrap();
        });
    }
}

/// The error is kept for a read because another operation took it first.
#[test]
fn error_kept_for_the_end_of_the_stream_is_no_refusal() {
    block_on(async {
        let (mut source, (mut target, receiver)) = (ended().await, target().await);
        let script = seam::descriptor(source.as_fd());
        script.then(Call::TakeError, Outcome::Pending(libc::EACCES));
        let socket = endpoint::socket_of(&mut source).unwrap();
        let kept = socket.with("get", |fd| socket.fd.take_error(fd)).unwrap();
        assert_eq!(kept.and_then(|error| error.raw_os_error()), Some(libc::EACCES));
        let error = copy(&mut source, &mut target).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        drop(target);
        receiver.join().unwrap();
    });
}

/// After its error, the target reports EPIPE.
#[test]
fn error_of_the_target_is_no_refusal() {
    for errno in AMBIGUOUS {
        block_on(async {
            let ((mut source, sender), (target, receiver)) = (source().await, target().await);
            let script = seam::descriptor(target.as_fd());
            for call in [Call::SpliceTo, Call::SendFile, Call::SendFile] {
                script.then(call, Outcome::Fail(errno)).then(call, Outcome::Fail(libc::EPIPE));
            }
            let errno_of = |error: std::io::Error| crate::net::raw_os_error(&error);
            assert_eq!(errno_of(copy(&mut source, &mut &target).await.unwrap_err()), Some(errno));
            assert_eq!(errno_of(copy(&mut AssertAsync::new(file()), &mut &target).await.unwrap_err()), Some(errno));
            assert_eq!(errno_of(target.send_file(&file(), 0, 9).await.unwrap_err()), Some(errno));
            // Dropping the source resets its connection, so the thread of its peer may panic.
            drop((source, target));
            let _ = (sender.join(), receiver.join());
        });
    }
}

fn file() -> File {
    let path =
        std::env::temp_dir().join(format!("netpoll-refusal-{}-{:?}", std::process::id(), thread::current().id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all(&bytes()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

#[test]
fn refused_file_continues_through_the_buffer_at_its_position() {
    for (before, errno) in [0, 2, 0, 1, 0].into_iter().zip(REFUSALS) {
        block_on(async {
            let (mut target, receiver) = target().await;
            let script = refuse_after(Call::SendFile, before, errno, &target);
            assert_eq!(copy(&mut AssertAsync::new(file()), &mut target).await.unwrap(), BYTES as u64);
            assert_eq!(script.calls(Call::SendFile), before + 1 + attempts(errno));
            drop(target);
            assert!(receiver.join().unwrap() == bytes(), "{before} {errno}");

            let (target, receiver) = self::target().await;
            let script = refuse_after(Call::SendFile, before, errno, &target);
            assert_eq!(target.send_file(&file(), 5, BYTES as u64).await.unwrap(), BYTES as u64 - 5);
            assert_eq!(script.calls(Call::SendFile), before + 1 + attempts(errno));
            drop(target);
            assert!(receiver.join().unwrap() == bytes()[5..], "{before} {errno}");
        });
    }
}
