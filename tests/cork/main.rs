//! Gathering of writes (`set_auto_cork`): when and in which order bytes are sent, and the behaviour
//! on errors, full sockets, deadlines and closes.
//!
//! `turns` tests when the bytes of a turn are sent. `room` tests full sockets, deadlines and other
//! calls that write, `errors` the operations after a failure, `ends` shutdowns, closes and forks,
//! and `converted` conversions to other types. `full_ends` tests closes, forks and shutdowns of the
//! runtime while a socket is full, and `rest` the bytes that a task sends after a close. `random`
//! compares random programs with an oracle.

#[path = "../common/mod.rs"]
mod common;

mod converted;
mod ends;
mod errors;
mod full_ends;
mod random;
#[cfg(target_os = "linux")]
mod rest;
mod room;
mod turns;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::Poll;

use netpoll::net::TcpStream;
use netpoll::os::unix::net::UnixStream;
use netpoll::rt::SocketInfo;
use netpoll::task;

/// Returns a connected TCP pair. Writes to the first stream are gathered.
async fn pair() -> (TcpStream, TcpStream) {
    let (corked, peer) = common::pair().await;
    corked.set_auto_cork(true).unwrap();
    (corked, peer)
}

/// Returns a connected TCP pair with small socket buffers. Writes to the first stream are gathered.
async fn narrow_pair() -> (TcpStream, TcpStream) {
    let (corked, peer) = common::by_hand::narrow_pair().await;
    corked.set_auto_cork(true).unwrap();
    (corked, peer)
}

/// A pair and the descriptor number of `ours`, whose writes are gathered. With the number, a test
/// can count the sends. Calling `as_raw_fd` later would send the gathered bytes.
struct Counted {
    ours: TcpStream,
    peer: TcpStream,
    number: RawFd,
}

impl Counted {
    async fn new() -> Counted {
        let (ours, peer) = common::pair().await;
        let number = ours.as_raw_fd();
        ours.set_auto_cork(true).unwrap();
        Counted { ours, peer, number }
    }
}

/// Fills a Unix stream with bytes `a`, and writes more bytes `a`, which are gathered. Returns the
/// number of bytes written, and how many of them the kernel has.
async fn fill_unix(ours: &UnixStream) -> (usize, usize) {
    let mut kernel = 0;
    while let Poll::Ready(count) = common::poll_once(&mut ours.write(&[b'a'; 7000])).await {
        kernel += count.unwrap();
    }
    ours.set_auto_cork(true).unwrap();
    // On a busy machine, sysmon may end the gathering early. The next write then waits, and fewer
    // than 42,000 bytes are gathered.
    let mut rest = 0;
    while rest < 42_000
        && let Poll::Ready(count) = common::poll_once(&mut ours.write(&[b'a'; 7000])).await
    {
        rest += count.unwrap();
    }
    // The end of the turn tries to send the bytes.
    task::yield_now().await;
    let held = gathered(ours);
    assert!(rest > 0 && held == rest, "{rest} bytes were written, of which {held} are gathered");
    (kernel + rest, kernel)
}

/// Returns the number of gathered bytes of a stream, after an attempt to send them, which
/// `as_raw_fd` makes.
fn gathered(stream: &impl AsRawFd) -> usize {
    info(stream.as_raw_fd()).gathered()
}

/// Returns the entry of the socket with descriptor `number` in a snapshot.
fn info(number: RawFd) -> SocketInfo {
    let snapshot = netpoll::rt::Inspect::new().tcp(true).take();
    snapshot.sockets.into_iter().find(|socket| socket.fd() == number).expect("an open socket")
}

/// Returns the number of data segments that the socket with descriptor `number` has sent: one per
/// send of few bytes.
fn sends(number: RawFd) -> u32 {
    info(number).tcp().expect("a TCP socket").segments_sent
}

/// Runs `round` until it returns true, up to 20 times. Sysmon sends the bytes of a turn that two of
/// its checks, 10 ms apart, find in progress. On a busy machine, a turn may wait that long for a
/// CPU. So a round with an early send is repeated.
async fn some_round_is_undisturbed(mut round: impl AsyncFnMut() -> bool) {
    for _ in 0..20 {
        if round().await {
            return;
        }
    }
    panic!("bytes were sent before the end of the turn in every round");
}

/// Reads until the end of the stream.
async fn read_to_end(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buf[..count]),
        }
    }
}

/// Returns `len` bytes of a fixed sequence, from offset `from` on.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Asserts that fork(2) has created the process `pid`, waits until it ends, and asserts that its
/// status is 0.
fn assert_ends(pid: libc::pid_t) {
    assert!(pid > 0, "fork: {}", io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and `pid` is a child that was not waited for yet.
    common::eventually("the child ends", || unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } == pid);
    assert_eq!(status, 0);
}
