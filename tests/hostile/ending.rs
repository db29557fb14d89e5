//! Row 12 of the tables in docs/RELIABILITY.md: a shutdown leaks nothing, and programs that are
//! started while sockets are opened and closed inherit no socket.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::UnixStream;
use netpoll::{rt, task};

use crate::common::{eventually, fd_count, pair, park_on, thread_count};
use crate::scale::*;

/// Spawns a thousand tasks that wait for sockets, time and other tasks, or wake every millisecond.
fn thousand(dropped: &Arc<AtomicUsize>) {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let streams: Vec<(TcpStream, TcpStream)> = park_on(async {
        let mut streams = Vec::new();
        for _ in 0..25 {
            streams.push(pair().await);
        }
        streams
    });
    for n in 0..1000 {
        let counted = Counted(dropped.clone());
        // Both ends of each connection belong to tasks, so the shutdown has to close every
        // descriptor.
        let (reader, other) = streams[n % 25].clone();
        drop(task::spawn(async move {
            let _counted = (counted, other);
            match n % 4 {
                0 => {
                    let _ = reader.set_read_deadline(Instant::now() + Duration::from_secs(60));
                    // A read that has to wait after the runtime has ended fails. The task is then
                    // dropped at the next await.
                    while reader.read(&mut [0; 8]).await.is_err() {
                        task::yield_now().await;
                    }
                }
                1 => task::sleep(Duration::from_secs(3600)).await,
                2 => task::spawn(task::sleep(Duration::from_secs(3600))).await,
                _ => loop {
                    task::yield_now().await;
                    task::sleep(Duration::from_millis(1)).await;
                },
            }
        }));
    }
}

#[test]
fn shutdowns_leak_nothing() {
    process("ending::shutdowns_leak_nothing", 90, 120, || {
        let rounds = size(10, 100);
        let (fds, threads) = (fd_count(), thread_count());
        let dropped = Arc::new(AtomicUsize::new(0));
        let (mut times, mut bytes) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            rt::Builder::new().workers(1 + round % 4).start().unwrap();
            thousand(&dropped);
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            let begin = Instant::now();
            let result = rt::shutdown(Duration::from_secs(120));
            times.push(begin.elapsed());
            result.unwrap_or_else(|still| panic!("round {round}: {still}"));
            assert_eq!(dropped.load(Ordering::SeqCst), round * 1000);
            assert_eq!(fd_count(), fds, "round {round}");
            // The kernel lists a thread for a moment after it was joined.
            eventually("no thread is left", || thread_count() == threads);
            let metrics = rt::metrics();
            assert_eq!((metrics.tasks_alive, metrics.descriptors, metrics.waiters), (0, 0, 0), "round {round}");
            bytes.push(live_bytes());
        }
        // The runtime keeps memory for the next start. Its size is the maximum so far, which grows
        // with the number of workers and spare workers, and a busy machine may double the capacity
        // of a list of 240 kB in a late round. A leak of 100 bytes per task adds 500 kB in the five
        // measured rounds of a quick run.
        let grown = bytes.last().unwrap() - bytes[4.max(rounds / 10)];
        figure(
            "12",
            format_args!(
                "{rounds} shutdowns with 1000 live tasks: {}; threads and descriptors as before; heap {} B, {grown:+} B since an early round",
                spread(&mut times),
                bytes.last().unwrap()
            ),
        );
        assert!(grown < 480_000, "the heap grows: {bytes:?}");
        limit("the longest shutdown", *times.iter().max().unwrap(), Duration::from_millis(100));
    });
}

/// Returns the files that a newly started program has open, except pipes, /dev/null and the
/// directory that it reads.
fn inherited() -> BTreeSet<String> {
    let output = Command::new("sh").args(["-c", "for n in /proc/$$/fd/*; do readlink $n || :; done"]).output().unwrap();
    assert!(output.status.success());
    let own = ["pipe:", "/dev/null"];
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).map(str::to_owned).collect()
}

/// TCP, UDP and Unix stream sockets are close-on-exec from their creation, so a program inherits
/// none even if it is started while tasks open and close sockets.
#[test]
fn child_programs_inherit_nothing() {
    process("ending::child_programs_inherit_nothing", 60, 300, || {
        let programs = size(40, 500);
        let before = inherited();
        let stop = Arc::new(AtomicBool::new(false));
        let listener = park_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let kept = park_on(async {
            let udp = UdpSocket::bind("127.0.0.1:0").await?;
            let unix = UnixStream::pair()?;
            let tcp = pair().await;
            io::Result::Ok((udp, unix, tcp))
        })
        .unwrap();
        let accepts = task::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 1]).await;
                }
            }
        });
        let made = Arc::new(AtomicUsize::new(0));
        let churn: Vec<_> = (0..4)
            .map(|n| {
                let (stop, made) = (stop.clone(), made.clone());
                task::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let _ = match n {
                            0 => UdpSocket::bind("127.0.0.1:0").await.map(drop),
                            1 => UnixStream::pair().map(drop),
                            2 => TcpListener::bind("127.0.0.1:0").await.map(drop),
                            _ => match TcpStream::connect(address).await {
                                // The close resets the connection, so that the port can be reused
                                // at once.
                                Ok(stream) => stream.set_linger(Some(Duration::ZERO)),
                                Err(error) => Err(error),
                            },
                        };
                        made.fetch_add(1, Ordering::Relaxed);
                        task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..programs {
            assert_eq!(inherited(), before);
        }
        stop.store(true, Ordering::Relaxed);
        park_on(async {
            for task in churn {
                task.await;
            }
            accepts.cancel().await;
        });
        drop(kept);
        figure(
            "12",
            format_args!(
                "{programs} programs started while {} sockets were made: none inherited one",
                made.load(Ordering::Relaxed)
            ),
        );
        assert!(made.load(Ordering::Relaxed) > programs);
    });
}
