//! Gathering of writes (`set_auto_cork`) on simulated sockets (feature `sim`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netpoll::net::{Dialer, ListenConfig, TcpListener, TcpStream};
use netpoll::sim::{Sim, ms};
use netpoll::task;

/// Serves requests of one byte. Answers each with one `write_all` of ten bytes.
async fn serve(gather: bool) -> std::io::Result<()> {
    let listener = ListenConfig::new().auto_cork(gather).listen("0.0.0.0:7").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        task::spawn(async move {
            let mut buf = [0; 100];
            loop {
                match stream.read(&mut buf).await? {
                    0 => return std::io::Result::Ok(()),
                    count => {
                        for request in &buf[..count] {
                            stream.write_all(&[*request; 10]).await?;
                        }
                    }
                }
            }
        });
    }
}

/// Sends batches of requests and checks the answers.
async fn ask(batches: u8, depth: usize) -> std::io::Result<()> {
    let stream = Dialer::new().auto_cork(true).dial("server:7").await?;
    for batch in 0..batches {
        for _ in 0..depth {
            stream.write_all(&[batch]).await?;
        }
        let mut answer = vec![0; 10 * depth];
        let mut got = 0;
        while got < answer.len() {
            match stream.read(&mut answer[got..]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => got += count,
            }
        }
        assert!(answer.iter().all(|byte| *byte == batch));
    }
    Ok(())
}

/// Returns the number of packets in a run of [`serve`] and [`ask`]. `gather` is the option of the
/// server.
fn packets(gather: bool) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let result = count.clone();
    Sim::run(7, async move |sim: Sim| {
        sim.host("server").spawn(move || serve(gather));
        task::sleep(ms(10)).await;
        sim.host("client").run(ask(20, 50)).await.unwrap();
        result.store(sim.counters().packets_sent, Ordering::SeqCst);
    });
    count.load(Ordering::SeqCst)
}

#[test]
fn gathering_sends_less_than_a_fifth_of_the_packets() {
    let (plain, gathered) = (packets(false), packets(true));
    assert!(gathered * 5 < plain, "{gathered} packets with gathering, {plain} without");
}

#[test]
fn lost_packets_do_not_change_the_bytes() {
    for seed in 0..30 {
        Sim::run(seed, async move |sim: Sim| {
            sim.link("*", "*").loss(0.1);
            sim.host("server").spawn(move || serve(true));
            task::sleep(ms(10)).await;
            sim.host("client").run(ask(10, 20)).await.unwrap();
        });
    }
}

/// Accepts a connection, waits for a second, and reads until the end of the stream. Sets `done` if
/// it has read `total` correct bytes.
async fn read_late(total: usize, done: Arc<AtomicBool>) -> std::io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7").await?;
    let (stream, _) = listener.accept().await?;
    task::sleep(Duration::from_secs(1)).await;
    let (mut at, mut buf) = (0, vec![0; 10_000]);
    loop {
        let count = stream.read(&mut buf).await?;
        if count == 0 {
            assert_eq!(at, total);
            done.store(true, Ordering::SeqCst);
            return Ok(());
        }
        let is_right = buf[..count].iter().zip(at..).all(|(byte, place)| *byte == (place % 251) as u8);
        assert!(is_right, "the bytes from {at} on");
        at += count;
    }
}

/// The peer reads late, so the bytes fill the socket and the buffer of gathered writes.
#[test]
fn full_socket_delivers_everything_after_the_close() {
    for seed in 0..10 {
        Sim::run(seed, async move |sim: Sim| {
            let (total, done) = (1_000_000, Arc::new(AtomicBool::new(false)));
            let set = done.clone();
            sim.host("server").spawn(move || read_late(total, set.clone()));
            task::sleep(ms(10)).await;
            let write = async move {
                let stream = TcpStream::connect("server:7").await.unwrap();
                stream.set_auto_cork(true).unwrap();
                let mut at = 0;
                while at < total {
                    let bytes: Vec<u8> = (at..total.min(at + 1 + at % 5000)).map(|place| (place % 251) as u8).collect();
                    stream.write_all(&bytes).await.unwrap();
                    at += bytes.len();
                }
            };
            sim.host("client").run(write).await;
            while !done.load(Ordering::SeqCst) {
                task::sleep(ms(10)).await;
            }
        });
    }
}

/// Writes until the socket accepts no more bytes.
async fn fill(stream: &TcpStream) {
    let mut refused = 0;
    while refused < 3 {
        let write = std::pin::pin!(stream.write(&[7; 10_000]));
        if futures::poll!(write).is_pending() {
            refused += 1;
            task::sleep(ms(100)).await;
        } else {
            refused = 0;
        }
    }
}

/// Returns a connection to the server with 100 gathered bytes, for which the send buffer has no
/// room.
async fn gathered_behind_a_full_buffer() -> TcpStream {
    let stream = TcpStream::connect("server:7").await.unwrap();
    fill(&stream).await;
    stream.set_auto_cork(true).unwrap();
    stream.write_all(&[8; 100]).await.unwrap();
    task::yield_now().await;
    stream
}

/// The only edge wakes the task that sends the gathered bytes, and is then passed to a write whose
/// call returns `WouldBlock` every time. The flush that waits behind these two gets no edge.
#[test]
fn flush_ends_when_others_have_used_the_edge() {
    Sim::run(3, async move |sim: Sim| {
        let ends = Arc::new(AtomicBool::new(false));
        let end = ends.clone();
        sim.host("server").spawn(async || {
            let listener = TcpListener::bind("0.0.0.0:7").await?;
            let (stream, _) = listener.accept().await?;
            task::sleep(Duration::from_secs(5)).await;
            let mut buf = vec![0; 10_000];
            while stream.read(&mut buf).await? > 0 {}
            std::io::Result::Ok(())
        });
        task::sleep(ms(10)).await;
        let client = async move {
            let stream = gathered_behind_a_full_buffer().await;
            let raw = stream.clone();
            let write = task::spawn(async move {
                let call = |_: std::os::fd::BorrowedFd<'_>| -> std::io::Result<()> {
                    Err(std::io::ErrorKind::WouldBlock.into())
                };
                raw.write_with(call).await
            });
            task::sleep(ms(10)).await;
            let flushed = stream.clone();
            let flush = task::spawn(async move {
                flushed.flush().await.unwrap();
                end.store(true, Ordering::SeqCst);
            });
            task::sleep(ms(10)).await;
            assert!(!ends.load(Ordering::SeqCst), "the socket has accepted the bytes");
            task::sleep(Duration::from_secs(20)).await;
            assert!(ends.load(Ordering::SeqCst));
            flush.await;
            drop(write);
        };
        sim.host("client").run(client).await;
    });
}

/// After a write deadline has passed, the task that sends the gathered bytes pauses between its
/// attempts. A write sends the bytes during a pause.
#[test]
fn flush_ends_when_a_write_sends_the_rest_during_a_pause() {
    Sim::run(3, async move |sim: Sim| {
        let reads = Arc::new(AtomicBool::new(false));
        let begins = reads.clone();
        sim.host("server").spawn(move || {
            let begins = begins.clone();
            async move {
                let listener = TcpListener::bind("0.0.0.0:7").await?;
                let (stream, _) = listener.accept().await?;
                while !begins.load(Ordering::SeqCst) {
                    task::sleep(ms(1)).await;
                }
                let mut buf = vec![0; 10_000];
                while stream.read(&mut buf).await? > 0 {}
                std::io::Result::Ok(())
            }
        });
        task::sleep(ms(10)).await;
        let client = async move {
            let stream = gathered_behind_a_full_buffer().await;
            stream.set_write_deadline(Instant::now()).unwrap();
            // The pauses have grown, and one of 320 ms has just begun.
            task::sleep(ms(975)).await;
            stream.set_write_deadline(None).unwrap();
            let (raw, sent) = (stream.clone(), Arc::new(AtomicBool::new(false)));
            let sends = sent.clone();
            let write = task::spawn(async move {
                // Called when the gathered bytes are sent.
                let call = |_: std::os::fd::BorrowedFd<'_>| -> std::io::Result<()> {
                    sends.store(true, Ordering::SeqCst);
                    Err(std::io::ErrorKind::WouldBlock.into())
                };
                raw.write_with(call).await
            });
            task::sleep(ms(1)).await;
            let flushed = stream.clone();
            let flush = task::spawn(async move { flushed.flush().await });
            task::sleep(ms(1)).await;
            assert!(!flush.is_finished(), "the socket has accepted the bytes");
            reads.store(true, Ordering::SeqCst);
            while !sent.load(Ordering::SeqCst) {
                task::sleep(ms(1)).await;
            }
            task::sleep(ms(1)).await;
            assert!(flush.is_finished());
            flush.await.unwrap();
            drop(write);
        };
        sim.host("client").run(client).await;
    });
}
