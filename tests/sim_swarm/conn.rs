//! `Conn`: a TCP or Unix stream, and the bytes that flow through it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netpoll::io::{ReadExt, WriteExt};
use netpoll::net::TcpStream;
use netpoll::unix::UnixStream;
use netpoll::{future, task};

use crate::draw::Draw;
use crate::program::Flow;
use crate::scene::{Scene, is_deadline};

/// One end of a connection.
#[derive(Clone, Debug)]
pub enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls the same method of either stream.
macro_rules! either {
    ($conn:expr, $stream:ident => $call:expr) => {
        match $conn {
            Conn::Tcp($stream) => $call,
            Conn::Unix($stream) => $call,
        }
    };
}

impl Conn {
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(buf).await)
    }

    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.peek(buf).await)
    }

    pub async fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // The stream's `read_vectored` borrows the slices for their whole lifetime, so it gets new
        // slices.
        let [first, second] = bufs else { return Ok(0) };
        let mut two = [IoSliceMut::new(first), IoSliceMut::new(second)];
        either!(self, stream => stream.read_vectored(&mut two).await)
    }

    pub async fn trait_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => ReadExt::read(&mut &*stream, buf).await)
    }

    pub async fn readable(&self) -> io::Result<()> {
        either!(self, stream => stream.readable().await)
    }

    pub async fn write(&self, buf: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.write(buf).await)
    }

    pub async fn write_all(&self, buf: &[u8]) -> io::Result<()> {
        either!(self, stream => stream.write_all(buf).await)
    }

    pub async fn trait_write(&self, buf: &[u8]) -> io::Result<usize> {
        either!(self, stream => WriteExt::write(&mut &*stream, buf).await)
    }

    pub async fn write_vectored(&self, one: &[u8], other: &[u8]) -> io::Result<usize> {
        let bufs = [IoSlice::new(one), IoSlice::new(other)];
        either!(self, stream => stream.write_vectored(&bufs).await)
    }

    pub async fn writable(&self) -> io::Result<()> {
        either!(self, stream => stream.writable().await)
    }

    pub async fn peer_closed(&self) -> io::Result<()> {
        either!(self, stream => stream.peer_closed().await)
    }

    pub async fn force_close(&self) -> io::Result<()> {
        either!(self, stream => stream.force_close().await)
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        either!(self, stream => stream.shutdown(how))
    }

    pub fn set_read_deadline(&self, at: Option<Instant>) -> io::Result<()> {
        either!(self, stream => stream.set_read_deadline(at))
    }

    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(timeout))
    }

    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(timeout))
    }

    /// Makes the buffers of a TCP stream small, so that few bytes fill them. Does not change a Unix
    /// stream.
    pub fn narrow(&self) -> io::Result<()> {
        match self {
            Conn::Tcp(stream) => {
                stream.set_send_buffer_size(4096)?;
                stream.set_recv_buffer_size(4096)
            }
            Conn::Unix(_) => Ok(()),
        }
    }

    /// Makes the drop of the last handle reset a TCP connection. Does not change a Unix stream.
    pub fn reset_on_drop(&self) -> io::Result<()> {
        match self {
            Conn::Tcp(stream) => stream.set_linger(Some(Duration::ZERO)),
            Conn::Unix(_) => Ok(()),
        }
    }
}

/// Returns byte `at` of the flow `key`.
pub fn byte(key: u64, at: usize) -> u8 {
    let word = (at as u64 / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(key);
    (word ^ (word >> 29)).to_le_bytes()[at % 8]
}

fn bytes(key: u64, at: usize, count: usize) -> Vec<u8> {
    (at..at + count).map(|at| byte(key, at)).collect()
}

/// Sleeps for a random time, and checks that the sleep is exact.
async fn pause(scene: &Scene, draw: &mut Draw) {
    let (begin, length) = (Instant::now(), Duration::from_micros(draw.magnitude(1, 100_000)));
    task::sleep(length).await;
    scene.exactly(begin, length, "a sleep");
}

/// Writes a flow, and then shuts down the write direction.
pub async fn write_flow(scene: &Scene, conn: &Conn, flow: &Flow, mut draw: Draw) -> io::Result<()> {
    let mut at = 0;
    while at < flow.bytes {
        if draw.one_in(6) {
            pause(scene, &mut draw).await;
        }
        let size = (1 + draw.below(flow.chunk as u64) as usize).min(flow.bytes - at);
        let data = bytes(flow.key, at, size);
        at += match draw.below(8) {
            0 | 1 => conn.write_all(&data).await.map(|()| size)?,
            2 => conn.write_vectored(&data[..size / 2], &data[size / 2..]).await?,
            3 => {
                conn.writable().await?;
                conn.write(&data).await?
            }
            4 => conn.trait_write(&data).await?,
            // A dropped write has written nothing.
            5 => {
                let patience = Duration::from_micros(draw.magnitude(1, 100_000));
                future::timeout(patience, conn.write(&data)).await.unwrap_or(Ok(0))?
            }
            6 => {
                let (begin, patience) = (Instant::now(), Duration::from_micros(draw.magnitude(1, 100_000)));
                conn.set_write_timeout(Some(patience))?;
                let result = conn.write(&data).await;
                let count = match result {
                    Err(error) if is_deadline(&error) => {
                        scene.exactly(begin, patience, "a write timeout");
                        0
                    }
                    result => result?,
                };
                conn.set_write_timeout(None)?;
                count
            }
            _ => conn.write(&data).await?,
        };
    }
    conn.shutdown(Shutdown::Write)
}

/// Reads until the end of the stream with `flow.readers` concurrent readers, and compares the bytes
/// with those of the flow. Returns the number of bytes.
pub async fn read_flow(scene: &Arc<Scene>, conn: &Conn, flow: &Flow, mut draw: Draw) -> io::Result<usize> {
    let at = Arc::new(Mutex::new(0));
    let mut others = Vec::new();
    for _ in 1..flow.readers {
        let (notes, conn, flow, at) = (scene.clone(), conn.clone(), flow.clone(), at.clone());
        let draw = Draw::new(draw.next(), 0);
        others.push(scene.spawn(async move { read_some(&notes, &conn, &flow, draw, &at).await }));
    }
    let mut result = read_some(scene, conn, flow, draw, &at).await;
    for other in others {
        result = result.and(other.await);
    }
    let count = *at.lock().unwrap_or_else(PoisonError::into_inner);
    result.map(|()| count)
}

async fn read_some(scene: &Scene, conn: &Conn, flow: &Flow, mut draw: Draw, at: &Mutex<usize>) -> io::Result<()> {
    let is_alone = flow.readers == 1;
    // One thread runs all tasks, so no other task reads between the end of a read and the update
    // of `at`.
    let enter = |got: &[u8], consumes: bool| {
        let mut at = at.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = got.iter().zip(*at..).find(|&(&value, at)| value != byte(flow.key, at));
        scene.check(wrong.is_none(), || format!("byte {:?} of a stream is wrong", wrong.map(|(_, at)| at)));
        if consumes {
            *at += got.len();
        }
        let at = *at;
        scene.check(at <= flow.bytes, || format!("{at} bytes of {} were read", flow.bytes));
    };
    loop {
        if draw.one_in(6) {
            pause(scene, &mut draw).await;
        }
        let size = 1 + draw.below((flow.chunk as u64 * 2).max(flow.bytes as u64 / 20)) as usize;
        let mut buf = vec![0; size];
        let patience = Duration::from_micros(draw.magnitude(1, 200_000));
        let got = match draw.below(9) {
            0 => {
                let (one, other) = buf.split_at_mut(size / 2);
                if one.is_empty() {
                    conn.read(other).await?
                } else {
                    conn.read_vectored(&mut [IoSliceMut::new(one), IoSliceMut::new(other)]).await?
                }
            }
            1 => {
                conn.readable().await?;
                conn.read(&mut buf).await?
            }
            2 => conn.trait_read(&mut buf).await?,
            3 => {
                let got = conn.peek(&mut buf).await?;
                enter(&buf[..got], false);
                if got > 0 {
                    continue;
                }
                0
            }
            // A dropped read has taken nothing.
            4 | 5 => match future::timeout(patience, conn.read(&mut buf)).await {
                Ok(result) => result?,
                Err(_) => continue,
            },
            6 if is_alone => {
                let begin = Instant::now();
                conn.set_read_deadline(Some(begin + patience))?;
                let result = conn.read(&mut buf).await;
                conn.set_read_deadline(None)?;
                match result {
                    Err(error) if is_deadline(&error) => {
                        scene.exactly(begin, patience, "a read deadline");
                        continue;
                    }
                    result => result?,
                }
            }
            7 if is_alone => {
                let begin = Instant::now();
                conn.set_read_timeout(Some(patience))?;
                let result = conn.read(&mut buf).await;
                conn.set_read_timeout(None)?;
                match result {
                    Err(error) if is_deadline(&error) => {
                        scene.exactly(begin, patience, "a read timeout");
                        continue;
                    }
                    result => result?,
                }
            }
            _ => conn.read(&mut buf).await?,
        };
        enter(&buf[..got], true);
        if got == 0 {
            return Ok(());
        }
    }
}
