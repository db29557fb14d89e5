//! Random programs against an oracle: the peer receives exactly the bytes that writes have
//! accepted, in order and without interleaving, whatever other operations run in between. If a
//! close aborts the connection, the peer receives a prefix of these bytes.
//!
//! `NETPOLL_CORK_RUNS` sets the number of programs per test (by default 12), and `NETPOLL_SEED` the
//! first seed of `peer_receives_exactly_the_accepted_bytes` (by default 1).

use std::io;
use std::task::Poll;
use std::time::Duration;

use netpoll::io::WriteExt;
use netpoll::net::TcpStream;
use netpoll::task;

use super::common::{poll_once, run};
use super::{narrow_pair, pair, pattern};

/// An xorshift64* generator.
struct Random(u64);

impl Random {
    /// Returns a number less than `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    /// Returns the size of a write.
    fn size(&mut self) -> usize {
        match self.below(20) {
            0 => 16_000 + self.below(1000),
            1 => self.below(100_000),
            2..5 => self.below(3000),
            _ => 1 + self.below(60),
        }
    }
}

/// Reads to the end of the stream, with random pauses and sizes, and compares the bytes. Returns
/// their number.
async fn verify(peer: TcpStream, mut random: Random) -> usize {
    let (mut at, mut buf) = (0, vec![0; 70_000]);
    loop {
        let most = if random.below(3) == 0 { 1 + random.below(200) } else { buf.len() };
        match peer.read(&mut buf[..most]).await.unwrap() {
            0 => return at,
            count => {
                let expected = pattern(at, count);
                assert!(buf[..count] == expected, "the {count} bytes from byte {at} on differ");
                at += count;
            }
        }
        match random.below(40) {
            0 => task::sleep(Duration::from_millis(1)).await,
            1 => task::yield_now().await,
            _ => {}
        }
    }
}

/// Makes 400 random steps, and may then end the stream. Returns the number of bytes that the writes
/// have accepted.
async fn write(ours: TcpStream, mut random: Random) -> io::Result<usize> {
    let mut streams = vec![ours];
    let mut at = 0;
    for _ in 0..400 {
        let ours = &streams[random.below(streams.len())].clone();
        let bytes = pattern(at, random.size());
        match random.below(16) {
            0..5 => {
                ours.write_all(&bytes).await?;
                at += bytes.len();
            }
            5 => at += ours.write(&bytes).await?,
            6 => at += WriteExt::write(&mut &*ours, &bytes).await?,
            7 => {
                let middle = random.below(bytes.len() + 1);
                let (one, two) = bytes.split_at(middle);
                let pieces = [io::IoSlice::new(one), io::IoSlice::new(two)];
                at += ours.write_vectored(&pieces).await?;
            }
            8 => {
                let middle = random.below(bytes.len() + 1);
                let (one, two) = bytes.split_at(middle);
                ours.write_vectored_all(&mut [io::IoSlice::new(one), io::IoSlice::new(two)]).await?;
                at += bytes.len();
            }
            9 => {
                // The write is cancelled unless it is ready.
                if let Poll::Ready(count) = poll_once(&mut ours.write(&bytes)).await {
                    at += count?;
                }
            }
            10 => ours.flush().await?,
            11 => {
                let mut flush = ours.flush();
                if let Poll::Ready(flushed) = poll_once(&mut flush).await {
                    flushed?;
                }
            }
            12 => match random.below(4) {
                0 => task::sleep(Duration::from_millis(1)).await,
                _ => task::yield_now().await,
            },
            13 => {
                at += ours.write_with(|fd| rustix::io::write(fd, &bytes).map_err(Into::into)).await?;
            }
            14 => match random.below(4) {
                0 => ours.set_auto_cork(false)?,
                1 => ours.set_auto_cork(true)?,
                2 if streams.len() > 1 => drop(streams.swap_remove(random.below(streams.len()))),
                _ => streams.push(ours.clone()),
            },
            _ => {
                // The write may move to another thread.
                let (clone, owned) = (ours.clone(), bytes.clone());
                task::spawn(async move { clone.write_all(&owned).await }).await?;
                at += bytes.len();
            }
        }
    }
    match random.below(3) {
        0 => streams[0].close_write()?,
        1 => WriteExt::close(&mut &streams[0]).await?,
        _ => {}
    }
    Ok(at)
}

/// Returns the number of programs per test.
fn runs() -> u64 {
    std::env::var("NETPOLL_CORK_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(12)
}

#[test]
fn peer_receives_exactly_the_accepted_bytes() {
    run(async {
        let seed = std::env::var("NETPOLL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
        for seed in seed..seed + runs() {
            let (ours, peer) = if seed % 2 == 0 { pair().await } else { narrow_pair().await };
            let random = |number: u64| Random((seed * 4 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let reader = task::spawn(verify(peer, random(1)));
            let writer = task::spawn(write(ours, random(2)));
            let written = writer.await.unwrap();
            assert_eq!(reader.await, written, "seed {seed}");
        }
    });
}

/// The connection is closed at a random time. The peer receives a prefix of the written bytes, and
/// all of them unless the close aborts the connection.
#[test]
fn close_delivers_all_bytes_and_abort_a_prefix() {
    run(async {
        for seed in 1..=runs() {
            let (ours, peer) = if seed % 2 == 0 { pair().await } else { narrow_pair().await };
            let mut random = Random((seed + 77).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let aborts = random.below(3) == 0;
            let pause = random.below(4) as u64;
            let closer = task::spawn({
                let ours = ours.clone();
                async move {
                    task::sleep(Duration::from_millis(pause)).await;
                    if aborts {
                        ours.set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    ours.force_close().await.unwrap();
                }
            });
            let writer = task::spawn(async move {
                let mut at = 0;
                loop {
                    let bytes = pattern(at, random.size());
                    match ours.write(&bytes).await {
                        Ok(count) => at += count,
                        Err(_) => return at,
                    }
                }
            });
            let reader = task::spawn(async move {
                let (mut at, mut buf) = (0, vec![0; 70_000]);
                loop {
                    match peer.read(&mut buf).await {
                        Ok(0) => return Ok(at),
                        Ok(count) => {
                            assert!(buf[..count] == pattern(at, count), "byte {at}");
                            at += count;
                        }
                        Err(error) => return Err((at, error)),
                    }
                }
            });
            closer.await;
            let written = writer.await;
            match reader.await {
                // Without an abort, no accepted byte is lost.
                Ok(received) => {
                    let is_right = if aborts { received <= written } else { received == written };
                    assert!(is_right, "seed {seed}: {received} of {written}");
                }
                Err((received, error)) => {
                    assert!(aborts && received <= written, "seed {seed}: {error}");
                }
            }
        }
    });
}
