//! Sessions of datagrams, dials, listeners, timers and tasks. [`run`] also starts the sessions of
//! [`turns`].

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netpoll::io::ReadExt;
use netpoll::net::{Dialer, TcpStream, UdpSocket, is_closed};
use netpoll::prelude::*;
use netpoll::time::Sleep;
use netpoll::{future, stream, task};

use crate::conn::byte;
use crate::program::{Dial, Session, Trouble};
use crate::scene::{Scene, is_deadline, lacks_descriptors, retried};
use crate::turns;

fn us(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// Echoes datagrams on the server.
pub async fn echo_datagrams() -> io::Result<()> {
    let socket = retried!(UdpSocket::bind("0.0.0.0:53"))?;
    let mut buf = vec![0; 8192];
    loop {
        let (count, from) = socket.recv_from(&mut buf).await?;
        // If the send fails for lack of memory, the datagram is lost.
        let _ = socket.send_to(&buf[..count], from).await;
    }
}

/// Runs a session that is not on streams.
pub async fn run(scene: Arc<Scene>, number: u64, session: Session) {
    match session {
        Session::Datagrams { count, size, is_connected } => {
            if let Err(error) = datagrams(&scene, number, count, size, is_connected).await {
                let is_refused = error.kind() == ErrorKind::ConnectionRefused && is_connected;
                let explains = scene.program.trouble == Trouble::Crashes && is_refused;
                scene.check(explains, || format!("datagrams: {error}"));
            }
        }
        Session::Dial { what, after_us } => dial(&scene, what, us(after_us)).await,
        Session::Accept { acceptors, dials, after_us } => accept(&scene, acceptors, dials, us(after_us)).await,
        Session::Timers { tasks } => timers(&scene, number, tasks).await,
        Session::Cancel { tasks } => cancel(&scene, number, tasks).await,
        Session::Turns { greedy, other, count, is_one_task } => {
            turns::turns(&scene, greedy, other, count, is_one_task).await;
        }
        Session::Polls { count } => turns::polls(&scene, count).await,
        other => scene.fail(format!("{other:?} is a session on streams")),
    }
}

/// Sends datagrams and receives their echoes until two seconds have passed since the last send or
/// echo.
async fn datagrams(scene: &Scene, number: u64, count: u64, size: usize, is_connected: bool) -> io::Result<()> {
    let socket = retried!(UdpSocket::bind("0.0.0.0:0"))?;
    if is_connected {
        socket.connect("server:53").await?;
    }
    let mut draw = scene.draw(number * 100 + 3);
    let mut came: BTreeMap<u64, u64> = BTreeMap::new();
    let mut buf = vec![0; 8192];
    let mut sent = 0;
    let mut quiet_since = Instant::now();
    while sent < count || quiet_since.elapsed() < us(2_000_000) {
        if sent < count {
            let mut data = vec![sent as u8];
            data.extend((1..1 + draw.below(size as u64) as usize).map(|at| byte(number + sent, at)));
            let result = if is_connected { socket.send(&data).await } else { socket.send_to(&data, "server:53").await };
            match result {
                Ok(length) => {
                    scene.check(length == data.len(), || format!("{length} of {} bytes were sent", data.len()));
                    sent += 1;
                    quiet_since = Instant::now();
                }
                // ENOBUFS
                Err(error) if error.raw_os_error() == Some(105) => task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
        let (begin, patience) = (Instant::now(), us(draw.magnitude(1, 400_000)));
        socket.set_read_deadline(begin + patience)?;
        let received = match draw.below(3) {
            0 if is_connected => socket.recv(&mut buf).await,
            1 => match future::timeout(us(draw.magnitude(1, 400_000)), socket.recv_from(&mut buf)).await {
                Ok(received) => received.map(|(length, _)| length),
                Err(_) => continue,
            },
            _ => socket.recv_from(&mut buf).await.map(|(length, _)| length),
        };
        let length = match received {
            Ok(length) => length,
            Err(error) if is_deadline(&error) => {
                scene.exactly(begin, patience, "a deadline for datagrams");
                continue;
            }
            Err(error) => return Err(error),
        };
        quiet_since = Instant::now();
        let index = u64::from(buf[0]);
        let is_right =
            index < sent && buf[1..length].iter().zip(1..).all(|(&value, at)| value == byte(number + index, at));
        scene.check(length > 0 && is_right, || format!("datagram {index} of {length} bytes was not sent"));
        *came.entry(index).or_default() += 1;
    }
    let is_exact = scene.program.network.duplicate == 0.0;
    scene.check(!is_exact || came.values().all(|&times| times == 1), || format!("datagrams arrived twice: {came:?}"));
    let loses = scene.program.network.is_lossy()
        || scene.program.trouble != Trouble::None
        || scene.program.rates.no_buffers > 0.0
        // Datagrams that wait for their receiver may fill its buffer.
        || 2 * count as usize * (size + 512) > 100_000;
    scene.check(loses || came.len() as u64 == count, || format!("{} of {count} datagrams arrived", came.len()));
    Ok(())
}

/// Makes the dial `what`, or sends its datagram. The attempt must fail for the reason that `what`
/// names. Another error is accepted only if lost packets, disturbances or injected faults explain
/// it.
async fn dial(scene: &Scene, what: Dial, after: Duration) {
    let begin = Instant::now();
    let kind = |result: &io::Result<TcpStream>| result.as_ref().err().map(io::Error::kind);
    let may_time_out = scene.program.network.is_lossy() || scene.program.trouble == Trouble::Crashes;
    match what {
        Dial::Refused => {
            let result = scene.connect("server:9").await;
            let is_right = kind(&result) == Some(ErrorKind::ConnectionRefused)
                || (may_time_out && kind(&result) == Some(ErrorKind::TimedOut));
            scene.check(is_right, || format!("a dial to a closed port: {result:?}"));
        }
        Dial::UnknownName => {
            let result = scene.connect("nowhere:80").await;
            let is_right = matches!(&result, Err(error) if error.to_string().ends_with("no such host"));
            scene.check(is_right, || format!("a dial to an unknown name: {result:?}"));
        }
        Dial::Unreachable => {
            let result = scene.connect("192.0.2.1:80").await;
            scene.check(kind(&result) == Some(ErrorKind::HostUnreachable), || format!("a dial to no host: {result:?}"));
        }
        Dial::Dark => {
            let dialer = Dialer::new().timeout(after).stagger(None);
            let mut begin;
            let result = retried!({
                begin = Instant::now();
                dialer.dial("dark:80")
            });
            let is_right = kind(&result) == Some(ErrorKind::TimedOut);
            scene.check(is_right, || format!("a dial to a silent host: {result:?}"));
            // The host has two addresses. The second attempt lasts for the rest of the timeout,
            // unless no descriptor is free for this attempt.
            if scene.program.rates.no_descriptors == 0.0 {
                scene.exactly(begin, after, "a dial with a timeout");
            }
        }
        Dial::DarkDropped => {
            let result = future::timeout(after, scene.connect("dark:80")).await;
            scene.check(result.is_err(), || format!("a dial to a silent host: {result:?}"));
            scene.exactly(begin, after, "a dropped dial");
        }
        Dial::DatagramRefused => {
            let refused = async {
                let socket = retried!(UdpSocket::bind("0.0.0.0:0"))?;
                socket.connect("server:9").await?;
                socket.send(b"x").await?;
                socket.set_read_timeout(Some(Duration::from_secs(60)))?;
                socket.recv(&mut [0; 4]).await
            };
            match refused.await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if error.raw_os_error() == Some(105) => {}
                Err(error) if is_deadline(&error) && (may_time_out || scene.program.trouble != Trouble::None) => {}
                other => scene.fail(format!("a datagram to a closed port: {other:?}")),
            }
        }
    }
}

/// Runs tasks that accept, and dials their listener. Then closes the listener, or cancels the tasks
/// if the time of the close has passed.
async fn accept(scene: &Arc<Scene>, acceptors: u64, dials: u64, after: Duration) {
    let listener = match scene.listen("127.0.0.1:0").await {
        Ok(listener) => Arc::new(listener),
        Err(error) => return scene.fail(format!("a listener: {error}")),
    };
    let Ok(addr) = listener.local_addr() else { return scene.fail("a listener without an address".to_owned()) };
    let begin = Instant::now();
    let accepted = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..acceptors)
        .map(|_| {
            let (scene, listener, accepted) = (scene.clone(), listener.clone(), accepted.clone());
            task::spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            accepted.fetch_add(1, Ordering::Relaxed);
                            if let Err(error) = stream.write_all(b"welcome").await {
                                scene.fail(format!("a welcome: {error}"));
                            }
                        }
                        Err(error) if is_closed(&error) => return scene.exactly(begin, after, "a close of a listener"),
                        Err(error) if lacks_descriptors(&error) => {}
                        Err(error) => scene.fail(format!("an accept: {error}")),
                    }
                }
            })
        })
        .collect();
    for _ in 0..dials {
        let greeted = async {
            let stream = scene.connect(&addr.to_string()).await?;
            let mut all = Vec::new();
            ReadExt::read_to_end(&mut &stream, &mut all).await.map(|_| all)
        };
        match greeted.await {
            Ok(all) => scene.check(all == b"welcome", || format!("a greeting of {all:?}")),
            Err(error) => {
                let is_end = matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset);
                scene.check(is_end && begin.elapsed() >= after, || format!("a dial to a listener: {error}"));
            }
        }
        if begin.elapsed() >= after {
            break;
        }
    }
    let (count, is_early) = (accepted.load(Ordering::Relaxed), begin.elapsed() < after);
    scene.check(!is_early || count == dials, || format!("{count} of {dials} dials were accepted"));
    if is_early {
        task::sleep(after - begin.elapsed()).await;
        if let Err(error) = listener.close().await {
            scene.fail(format!("a close of a listener: {error}"));
        }
        for task in tasks {
            task.await;
        }
    } else {
        for task in tasks {
            task.cancel().await;
        }
    }
}

/// Runs sleeps, intervals and time limits, each of which must end exactly at its time.
async fn timers(scene: &Arc<Scene>, number: u64, tasks: u64) {
    let tasks: Vec<_> = (0..tasks)
        .map(|at| {
            let (scene, mut draw) = (scene.clone(), scene.draw(number * 100 + at));
            task::spawn(async move {
                for _ in 0..1 + draw.below(5) {
                    // A third of the timers have the same length, so that several often end at the
                    // same time.
                    let length = if draw.one_in(3) { us(10_000) } else { us(draw.magnitude(1, 60_000_000)) };
                    let begin = Instant::now();
                    match draw.below(6) {
                        0 => {
                            let timed_out = future::timeout(length, std::future::pending::<()>()).await;
                            scene.check(timed_out.is_err(), || "a pending future is ready".to_owned());
                        }
                        1 => {
                            let mut ticks = stream::interval(length);
                            for _ in 0..3 {
                                ticks.next().await;
                            }
                            scene.exactly(begin, 3 * length, "three ticks");
                            continue;
                        }
                        2 => {
                            let mut sleep = Sleep::new(us(draw.magnitude(1, 60_000_000)));
                            let _ = future::timeout(length / 2, std::future::pending::<()>()).await;
                            sleep.reset(begin + length);
                            sleep.await;
                        }
                        3 => Sleep::until(begin + length).await,
                        4 => {
                            let longer = task::sleep(length + us(1));
                            let shorter = future::timeout(length, longer).await;
                            scene.check(shorter.is_err(), || "the longer sleep ends first".to_owned());
                        }
                        _ => task::sleep(length).await,
                    }
                    scene.exactly(begin, length, "a timer");
                }
                // Timers that are due let other tasks run.
                for _ in 0..draw.below(80) {
                    task::sleep(Duration::ZERO).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
}

/// Counts its drop.
struct Ends(Arc<AtomicU64>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Cancels or joins tasks. Each task must be dropped once, and return its result if it ended before
/// the cancellation. Each round also makes a blocking call and checks its result.
async fn cancel(scene: &Scene, number: u64, tasks: u64) {
    let mut draw = scene.draw(number * 100 + 9);
    let ended = Arc::new(AtomicU64::new(0));
    for count in 1..=tasks {
        let (length, after) = (us(draw.magnitude(1, 100_000)), us(draw.magnitude(1, 100_000)));
        let ends = Ends(ended.clone());
        let yields = draw.below(4);
        let task = task::spawn(async move {
            let _ends = ends;
            for _ in 0..yields {
                task::yield_now().await;
            }
            task::sleep(length).await;
            count
        });
        task::sleep(after).await;
        let result = if draw.one_in(3) { Some(task.await) } else { task.cancel().await };
        let expected = if length < after { Some(count) } else { result };
        scene.check(result == expected && result.is_none_or(|result| result == count), || {
            format!("a task gives {result:?}")
        });
        let dropped = ended.load(Ordering::Relaxed);
        scene.check(dropped == count, || format!("{dropped} of {count} tasks were dropped"));
        let blocking = draw.below(1000);
        let echoed = task::spawn_blocking(move || blocking).await;
        scene.check(echoed == blocking, || format!("a blocking call gives {echoed}"));
    }
}
