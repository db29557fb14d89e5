//! Tests of the parts that differ from the stand-in for async-io 2: handles that implement only
//! `AsRawFd`, safe mutable access, and futures-io's traits for every handle that implements std's
//! `Read` or `Write`. The tests in stand-ins/async-io/tests cover the shared code. Two tests here
//! check that it also works in version 1.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::{Async, Timer, block_on};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};

/// A type that implements `AsRawFd` but not `AsFd`, like the types of older crates. It counts the
/// calls of `read`.
struct Old {
    stream: UnixStream,
    reads: usize,
}

impl AsRawFd for Old {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl Read for Old {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        self.stream.read(buf)
    }
}

impl Write for Old {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn type_with_only_as_raw_fd_is_read_and_written() -> io::Result<()> {
    let (stream, peer) = UnixStream::pair()?;
    let (mut old, mut peer) = (Async::new(Old { stream, reads: 0 })?, Async::new(peer)?);
    block_on(async {
        let mut buf = [0; 4];
        let echo = async {
            let mut buf = [0; 4];
            peer.read_exact(&mut buf).await?;
            peer.write_all(&buf).await
        };
        old.write_all(b"ping").await?;
        future::try_zip(echo, old.read_exact(&mut buf)).await?;
        assert_eq!(&buf, b"ping");
        io::Result::Ok(())
    })?;
    assert!(old.get_ref().reads > 0);
    old.get_mut().reads = 0;
    old.as_mut().stream.set_nonblocking(true)?;
    assert_eq!(old.into_inner()?.reads, 0);
    Ok(())
}

#[test]
fn calls_with_mutable_access_wait_for_readiness() -> io::Result<()> {
    let (left, right) = Async::<UnixStream>::pair()?;
    let mut left = left;
    block_on(async {
        let mut buf = [0; 8];
        let read = left.read_with_mut(|stream| stream.read(&mut buf));
        let write = async { right.write_with(|mut stream| stream.write(b"abc")).await };
        assert_eq!(future::try_zip(read, write).await?, (3, 3));
        assert_eq!(left.write_with_mut(|stream| stream.write(b"d")).await?, 1);
        right.readable().await
    })
}

#[test]
fn tcp_sockets_connect_and_owned_wait_completes() -> io::Result<()> {
    block_on(async {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0))?;
        let addr = listener.get_ref().local_addr()?;
        let (client, (server, _)) = future::try_zip(Async::<TcpStream>::connect(addr), listener.accept()).await?;
        let server = Arc::new(server);
        let waiting = Arc::clone(&server).readable_owned();
        (&client).write_all(b"x").await?;
        waiting.await?;
        let mut buf = [0; 1];
        assert_eq!(server.peek(&mut buf).await?, 1);
        let fd = OwnedFd::try_from(client)?;
        drop(Async::<TcpStream>::try_from(fd)?);
        let server = Arc::into_inner(server).expect("there is no other reference");
        assert_eq!((&server).read(&mut buf).await?, 1);
        assert_eq!((&server).read(&mut buf).await?, 0);
        Ok(())
    })
}

#[test]
fn timer_fires_and_cleared_timer_does_not() {
    let begin = Instant::now();
    assert!(block_on(Timer::after(Duration::from_millis(5))) >= begin);
    assert!(begin.elapsed() >= Duration::from_millis(5));
    let mut timer = Timer::after(Duration::from_secs(3600));
    assert!(timer.will_fire());
    timer.clear();
    assert!(!timer.will_fire());
}
