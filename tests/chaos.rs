//! Echoes while about four of five calls that transfer, accept or, for TCP, connect are
//! interrupted, fail or are cut short. Most batches of events are limited to a random size,
//! shuffled, and padded with an event that may be spurious. Every byte must come back, in order.
//!
//! `NETPOLL_ECHOES` sets the number of echoes, by default 10,000, which is rounded up to a multiple
//! of [`ECHOES_EACH`]. `ci/faults.sh --full` sets it. `NETPOLL_SEED` sets the seed, which by
//! default depends on the process id. A failure prints the seed.
#![cfg(target_os = "linux")] // epoll, and the C library's functions

mod common;
mod faults;

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::Folder;
use faults::{Chaos, mix};
use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::{UnixListener, UnixStream};
use netpoll::task;

/// The percentage of calls and of waits for events that [`Chaos`] affects.
const PERCENT: u32 = 80;
/// The number of echoes per connection.
const ECHOES_EACH: u64 = 50;
/// The number of client tasks, each of which uses one connection or one pair of UDP sockets at a
/// time.
const CLIENTS: u64 = 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Returns the message of an echo. The seed and the number of the echo determine its length and
/// bytes.
fn message(seed: u64, echo: u64) -> Vec<u8> {
    let mut state = mix(seed ^ echo.wrapping_mul(0x1_0001));
    (0..1 + state % 700)
        .map(|_| {
            state = mix(state);
            state as u8
        })
        .collect()
}

macro_rules! echo_server {
    ($name:ident, $stream:ty) => {
        async fn $name(stream: $stream) -> io::Result<()> {
            let mut buf = [0; 256];
            loop {
                match stream.read(&mut buf).await? {
                    0 => return Ok(()),
                    count => stream.write_all(&buf[..count]).await?,
                }
            }
        }
    };
}
echo_server!(serve_tcp, TcpStream);
echo_server!(serve_unix, UnixStream);

macro_rules! echoes {
    ($name:ident, $stream:ty) => {
        async fn $name(stream: $stream, seed: u64, from: u64) -> io::Result<()> {
            for echo in from..from + ECHOES_EACH {
                let sent = message(seed, echo);
                stream.write_all(&sent).await?;
                let (mut back, mut got) = (vec![0; sent.len()], 0);
                while got < back.len() {
                    // Every second message is read into two buffers.
                    let count = if echo % 2 == 0 {
                        stream.read(&mut back[got..]).await?
                    } else {
                        let middle = (back.len() - got).div_ceil(2);
                        let (one, two) = back[got..].split_at_mut(middle);
                        stream.read_vectored(&mut [IoSliceMut::new(one), IoSliceMut::new(two)]).await?
                    };
                    assert_ne!(count, 0, "echo {echo}: the end of the stream");
                    got += count;
                }
                assert!(sent == back, "echo {echo}: wrong bytes");
            }
            Ok(())
        }
    };
}
echoes!(echo_tcp, TcpStream);
echoes!(echo_unix, UnixStream);

/// Echoes with vectored writes.
async fn echo_vectored(stream: TcpStream, seed: u64, from: u64) -> io::Result<()> {
    for echo in from..from + ECHOES_EACH {
        let sent = message(seed, echo);
        let (one, two) = sent.split_at(sent.len() / 3);
        stream.write_vectored_all(&mut [IoSlice::new(one), IoSlice::new(two)]).await?;
        let (mut back, mut got) = (vec![0; sent.len()], 0);
        while got < back.len() {
            let count = stream.read(&mut back[got..]).await?;
            assert_ne!(count, 0, "echo {echo}: the end of the stream");
            got += count;
        }
        assert!(sent == back, "echo {echo}: wrong bytes");
    }
    Ok(())
}

/// Echoes datagrams one at a time, so that loopback loses none.
async fn echo_udp(seed: u64, from: u64) -> io::Result<()> {
    let (client, server) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    let to = server.local_addr()?;
    let own = client.local_addr()?;
    for echo in from..from + ECHOES_EACH {
        let sent = message(seed, echo);
        client.send_to(&sent, to).await?;
        let mut buf = [0; 1024];
        let (count, peer) = server.recv_from(&mut buf).await?;
        assert_eq!(peer, own, "echo {echo}");
        server.send_to(&buf[..count], peer).await?;
        let mut back = [0; 1024];
        let (count, peer) = client.recv_from(&mut back).await?;
        assert_eq!(peer, to, "echo {echo}");
        assert!(sent == back[..count], "echo {echo}: wrong datagram");
    }
    Ok(())
}

/// Runs series of [`ECHOES_EACH`] echoes, over one kind of socket after the other, until `next`
/// reaches `total`.
async fn client(
    id: u64,
    seed: u64,
    next: Arc<AtomicU64>,
    total: u64,
    tcp: std::net::SocketAddr,
    unix: std::path::PathBuf,
) {
    loop {
        let from = next.fetch_add(ECHOES_EACH, Ordering::SeqCst);
        if from >= total {
            return;
        }
        let kind = (id + from / ECHOES_EACH) % 4;
        let result = match kind {
            0 => match TcpStream::connect(tcp).await {
                Ok(stream) => echo_tcp(stream, seed, from).await,
                Err(error) => Err(error),
            },
            1 => match UnixStream::connect(&unix).await {
                Ok(stream) => echo_unix(stream, seed, from).await,
                Err(error) => Err(error),
            },
            2 => match TcpStream::connect(tcp).await {
                Ok(stream) => echo_vectored(stream, seed, from).await,
                Err(error) => Err(error),
            },
            _ => echo_udp(seed, from).await,
        };
        result.unwrap_or_else(|error| panic!("kind {kind}, echoes from {from}: {error}"));
    }
}

#[test]
fn echoes_are_byte_exact_when_four_of_five_calls_are_faulted() {
    let total = setting("NETPOLL_ECHOES", 10_000);
    let seed = setting("NETPOLL_SEED", 1 + u64::from(std::process::id()));
    // Another thread aborts the process if this counter does not change for `BOUND`.
    let next = Arc::new(AtomicU64::new(0));
    let running = Arc::new(Mutex::new(true));
    let watch = std::thread::spawn({
        let (next, running) = (next.clone(), running.clone());
        move || {
            let mut last = (0, std::time::Instant::now());
            while *running.lock().unwrap() {
                std::thread::sleep(std::time::Duration::from_millis(20));
                let now = next.load(Ordering::SeqCst);
                if now != last.0 {
                    last = (now, std::time::Instant::now());
                } else if last.1.elapsed() > common::BOUND {
                    // `eprintln!` is not used, because the harness captures its output, and the
                    // abort would lose it.
                    let metrics = netpoll::rt::metrics();
                    let _ = writeln!(io::stderr(), "NETPOLL_SEED={seed}: hang at echo {now}: {metrics:#?}");
                    std::process::abort();
                }
            }
        }
    });
    let descriptors = netpoll::rt::metrics().descriptors;
    let begin = std::time::Instant::now();
    let folder = Folder::new();
    let chaos = Chaos::begin(seed, PERCENT);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        task::block_on(async {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let path = folder.join("echo");
            let unix = UnixListener::bind(&path).await.unwrap();
            let addr = tcp.local_addr().unwrap();
            let (tcp, unix) = (Arc::new(tcp), Arc::new(unix));
            let servers = [
                task::spawn({
                    let tcp = tcp.clone();
                    async move {
                        while let Ok((stream, _)) = tcp.accept().await {
                            drop(task::spawn(serve_tcp(stream)));
                        }
                    }
                }),
                task::spawn({
                    let unix = unix.clone();
                    async move {
                        while let Ok((stream, _)) = unix.accept().await {
                            drop(task::spawn(serve_unix(stream)));
                        }
                    }
                }),
            ];
            let clients: Vec<_> =
                (0..CLIENTS).map(|id| task::spawn(client(id, seed, next.clone(), total, addr, path.clone()))).collect();
            for client in clients {
                client.await;
            }
            tcp.close().await.unwrap();
            unix.close().await.unwrap();
            for server in servers {
                server.await;
            }
        });
    }));
    drop(chaos);
    *running.lock().unwrap() = false;
    watch.join().unwrap();
    let (calls, faulted) = (faults::calls(), faults::faulted());
    println!("{total} echoes, {calls} calls, {faulted} faulted, {:.1?}, NETPOLL_SEED={seed}", begin.elapsed());
    if let Err(panic) = ended {
        eprintln!("replay with NETPOLL_SEED={seed} NETPOLL_ECHOES={total}");
        std::panic::resume_unwind(panic);
    }
    assert!(faulted > total * 4, "only {faulted} faults in {calls} calls: the interposed functions are not called");
    common::eventually("every socket is closed", || netpoll::rt::metrics().descriptors == descriptors);
}
