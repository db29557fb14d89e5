//! Sessions on streams. Both sides take the session from the program. Over TCP, the client sends
//! the session's number in two bytes.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpoll::net::{TcpStream, is_closed};
use netpoll::unix::{UnixListener, UnixStream};
use netpoll::{future, task};

use crate::conn::{Conn, read_flow, write_flow};
use crate::program::{Cut, CutHow, Flow, Session, Transport};
use crate::scene::{Fate, Scene, is_deadline, lacks_descriptors, retried};

fn us(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// Accepts the connections of sessions on the server.
pub async fn serve(scene: Arc<Scene>) -> io::Result<()> {
    let listener = scene.listen("[::]:80").await?;
    let mut draw = scene.draw(1);
    loop {
        let accepted = if draw.one_in(4) {
            // A dropped accept has taken no connection.
            match future::timeout(us(draw.magnitude(1, 1_000_000)), listener.accept()).await {
                Ok(accepted) => accepted,
                Err(_) => continue,
            }
        } else {
            listener.accept().await
        };
        match accepted {
            Ok((stream, _)) => {
                let notes = scene.clone();
                scene.spawn(async move { handle(&notes, stream).await });
            }
            Err(error) if lacks_descriptors(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Runs the server's side of the session that the client names.
async fn handle(scene: &Arc<Scene>, stream: TcpStream) {
    let mut header = [0; 2];
    let mut got = 0;
    while got < 2 {
        match stream.read(&mut header[got..]).await {
            Ok(0) => {
                return scene.judge(Fate::Cut { is_local: false }, &io::ErrorKind::UnexpectedEof.into(), "a header");
            }
            Ok(count) => got += count,
            Err(error) => return scene.judge(Fate::Cut { is_local: false }, &error, "a header"),
        }
    }
    let number = u16::from_le_bytes(header);
    let Some((_, session)) = scene.program.sessions.get(usize::from(number)).cloned() else {
        return scene.fail(format!("a client names session {number}"));
    };
    far_side(scene, u64::from(number), &session, Conn::Tcp(stream), Fate::Remote).await;
}

/// Opens a connection of a session. The far side of a local connection runs as a task.
async fn open(scene: &Arc<Scene>, number: u64, session: &Session, transport: Transport) -> io::Result<(Conn, Fate)> {
    let far = |conn: UnixStream| {
        let (notes, session) = (scene.clone(), session.clone());
        scene.spawn(async move { far_side(&notes, number, &session, Conn::Unix(conn), Fate::Local).await });
    };
    match transport {
        Transport::Tcp => {
            let stream = scene.connect("server:80").await?;
            stream.write_all(&(number as u16).to_le_bytes()).await?;
            Ok((Conn::Tcp(stream), Fate::Remote))
        }
        Transport::UnixPair => {
            let (near, other) = retried!(async { UnixStream::pair() })?;
            far(other);
            Ok((Conn::Unix(near), Fate::Local))
        }
        Transport::UnixNamed => {
            let path = format!("/swarm/{number}/{}", scene.sim.elapsed().as_nanos());
            let listener = retried!(UnixListener::bind(&path))?;
            let connects = async { retried!(UnixStream::connect(&path)) };
            let accepts = async { retried!(listener.accept()) };
            let (near, accepted) = futures::join!(connects, accepts);
            far(accepted?.0);
            Ok((Conn::Unix(near?), Fate::Local))
        }
    }
}

/// Runs the far side of a session on streams.
async fn far_side(scene: &Arc<Scene>, number: u64, session: &Session, conn: Conn, fate: Fate) {
    match session {
        Session::Exchange { up, down, cut, narrow, .. } => {
            exchange(
                scene,
                number * 10 + 5,
                conn,
                down,
                up,
                cut.as_ref().map(|cut| (cut, !cut.by_client)),
                *narrow,
                fate,
            )
            .await;
        }
        Session::Shared { writers, records, size, .. } => {
            read_records(scene, number, &conn, *writers, *records, *size, fate).await;
        }
        // The client of such a session sends nothing further and closes the connection.
        _ => match conn.read(&mut [0; 16]).await {
            Ok(0) => {}
            Ok(count) => scene.fail(format!("{count} bytes on a silent connection")),
            Err(error) => scene.judge(cut(fate), &error, "a silent connection"),
        },
    }
}

/// Returns the fate of a connection that one side ends early.
fn cut(fate: Fate) -> Fate {
    Fate::Cut { is_local: fate == Fate::Local }
}

/// Runs the client's side of a session on streams.
pub async fn near_side(scene: Arc<Scene>, number: u64, session: Session) {
    let transport = match &session {
        Session::Exchange { transport, .. }
        | Session::Shared { transport, .. }
        | Session::Idle { transport, .. }
        | Session::Churn { transport, .. } => *transport,
        _ => return scene.fail(format!("{session:?} is not a session on streams")),
    };
    if let Session::Churn { rounds, .. } = session {
        return churn(&scene, number, &session, transport, rounds).await;
    }
    let (conn, fate) = match open(&scene, number, &session, transport).await {
        Ok(opened) => opened,
        Err(error) => return scene.judge(Fate::Remote, &error, "opening a connection"),
    };
    match &session {
        Session::Exchange { up, down, cut, narrow, .. } => {
            exchange(&scene, number * 10, conn, up, down, cut.as_ref().map(|cut| (cut, cut.by_client)), *narrow, fate)
                .await;
        }
        Session::Shared { writers, records, size, .. } => {
            write_records(&scene, number, conn, *writers, *records, *size, fate).await;
        }
        Session::Idle { waiters, moves, close_us, .. } => idle(&scene, conn, *waiters, moves, *close_us, fate).await,
        _ => {}
    }
}

/// Writes one flow of a connection and reads the other. `ends` is the cut of the connection, if
/// there is one, and whether this side makes it.
#[allow(clippy::too_many_arguments)]
async fn exchange(
    scene: &Arc<Scene>,
    stream: u64,
    conn: Conn,
    out: &Flow,
    into: &Flow,
    ends: Option<(&Cut, bool)>,
    narrow: bool,
    fate: Fate,
) {
    let mut draw = scene.draw(stream * 8);
    let fate = if ends.is_some() { cut(fate) } else { fate };
    if narrow && let Err(error) = conn.narrow() {
        return scene.judge(fate, &error, "a small buffer");
    }
    let both = async {
        let (writes, reads) = (scene.draw(stream * 8 + 1), scene.draw(stream * 8 + 2));
        let (written, read) =
            futures::join!(write_flow(scene, &conn, out, writes), read_flow(scene, &conn, into, reads));
        if let Err(error) = written {
            scene.judge(fate, &error, "writing");
        }
        match read {
            Err(error) => scene.judge(fate, &error, "reading"),
            Ok(count) if count == into.bytes => {}
            Ok(count) => {
                let end = io::ErrorKind::UnexpectedEof.into();
                scene.check(scene.explains(fate, &end), || {
                    format!("the stream ends after {count} of {} bytes", into.bytes)
                });
            }
        }
    };
    let Some((cut, true)) = ends else { return both.await };
    let after = us(cut.after_us);
    match cut.how {
        CutHow::Drop => {
            let _ = future::timeout(after, both).await;
        }
        CutHow::Reset => {
            let result = conn.reset_on_drop();
            if let Err(error) = result {
                scene.judge(fate, &error, "a linger time");
            }
            let _ = future::timeout(after, both).await;
        }
        CutHow::Close | CutHow::CloseRead => {
            let ends = async {
                task::sleep(after).await;
                let result = match cut.how {
                    CutHow::Close => conn.force_close().await,
                    _ => conn.shutdown(Shutdown::Read),
                };
                if let Err(error) = result {
                    scene.judge(fate, &error, "a close");
                }
                if draw.one_in(2) {
                    task::yield_now().await;
                }
            };
            futures::join!(both, ends);
        }
    }
}

/// Returns a record: its writer, its number, its length, and that many bytes.
fn record(number: u64, writer: u64, index: u64, size: usize) -> Vec<u8> {
    let length = 1 + (number.wrapping_mul(31) + writer * 17 + index * 101) as usize % size;
    let mut record = vec![writer as u8, index as u8];
    record.extend((length as u16).to_le_bytes());
    record.resize(4 + length, (writer * 64 + index) as u8);
    record
}

/// Runs tasks that write whole records, and then waits until the far side closes the connection.
async fn write_records(
    scene: &Arc<Scene>,
    number: u64,
    conn: Conn,
    writers: u64,
    records: u64,
    size: usize,
    fate: Fate,
) {
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (scene, conn, mut draw) = (scene.clone(), conn.clone(), scene.draw(number * 100 + writer));
            task::spawn(async move {
                for index in 0..records {
                    if draw.one_in(3) {
                        task::sleep(us(draw.magnitude(1, 50_000))).await;
                    }
                    // `writable` takes no lock, so its waiters begin and end while other tasks
                    // write.
                    if draw.one_in(4) {
                        let _ = future::timeout(us(draw.magnitude(1, 1000)), conn.writable()).await;
                    }
                    if let Err(error) = conn.write_all(&record(number, writer, index, size)).await {
                        return scene.judge(fate, &error, "writing a record");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    if let Err(error) = conn.shutdown(Shutdown::Write) {
        scene.judge(fate, &error, "the end of records");
    }
    // The far side closes when it has read everything.
    let ended = async {
        match conn.peer_closed().await {
            Ok(()) => conn.read(&mut [0; 1]).await,
            Err(error) => Err(error),
        }
    };
    match ended.await {
        Ok(0) => {}
        Ok(_) => scene.fail("bytes on a connection of records".to_owned()),
        Err(error) => scene.judge(fate, &error, "the end of the far side"),
    }
}

/// Reads records until the end of the stream, and checks that each is whole and that those of each
/// writer are in order.
async fn read_records(
    scene: &Arc<Scene>,
    number: u64,
    conn: &Conn,
    writers: u64,
    records: u64,
    size: usize,
    fate: Fate,
) {
    let mut all = Vec::new();
    let mut buf = vec![0; 1 + size * 2];
    let mut draw = scene.draw(number * 100 + 50);
    loop {
        if draw.one_in(4) {
            task::sleep(us(draw.magnitude(1, 50_000))).await;
        }
        match conn.read(&mut buf).await {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&buf[..count]),
            Err(error) => return scene.judge(fate, &error, "reading records"),
        }
    }
    let mut next = vec![0; writers as usize];
    let mut rest = &all[..];
    while let [writer, index, low, high, ..] = *rest {
        let length = 4 + usize::from(u16::from_le_bytes([low, high]));
        let is_next = next.get(usize::from(writer)) == Some(&u64::from(index));
        let expected = record(number, u64::from(writer), u64::from(index), size);
        if !is_next || rest.len() < length || rest[..length] != expected[..] {
            break;
        }
        next[usize::from(writer)] += 1;
        rest = &rest[length..];
    }
    let is_complete = rest.is_empty() && next.iter().all(|&next| next == records);
    let end = io::ErrorKind::UnexpectedEof.into();
    scene.check(is_complete || scene.explains(fate, &end), || {
        format!("records {next:?} of {records} each are whole, {} bytes are left", rest.len())
    });
}

/// Runs operations that wait while the deadline is moved, until a close.
async fn idle(scene: &Arc<Scene>, conn: Conn, waiters: u64, moves: &[(u64, Option<u64>)], close_us: u64, fate: Fate) {
    let begin = Instant::now();
    // The deadline that ends the waiting operations, unless the close comes first. Moves after this
    // deadline do not affect these operations.
    let mut due: Option<u64> = None;
    for &(at, to) in moves {
        if due.is_some_and(|due| due <= at) {
            break;
        }
        due = to.map(|after| at + after);
    }
    let is_due = due.is_some_and(|due| due <= close_us);
    let ends = us(if is_due { due.unwrap_or_default() } else { close_us });
    let tasks: Vec<_> = (0..waiters)
        .map(|waiter| {
            let (scene, conn) = (scene.clone(), conn.clone());
            task::spawn(async move {
                let mut buf = [0; 8];
                let result = match waiter % 4 {
                    0 => conn.read(&mut buf).await.map(drop),
                    1 => conn.peek(&mut buf).await.map(drop),
                    2 => conn.readable().await,
                    _ => conn.trait_read(&mut buf).await.map(drop),
                };
                match result {
                    Err(error) if is_due && is_deadline(&error) => scene.exactly(begin, ends, "a moved deadline"),
                    Err(error) if !is_due && is_closed(&error) => scene.exactly(begin, ends, "a close"),
                    Err(error) if begin.elapsed() < ends => scene.judge(fate, &error, "a wait"),
                    Err(error) => scene.fail(format!("a wait ends with {error}, due {is_due}")),
                    Ok(()) => {
                        let end = io::ErrorKind::UnexpectedEof.into();
                        scene.check(scene.explains(fate, &end), || "a wait ends with data".to_owned());
                    }
                }
            })
        })
        .collect();
    for &(at, to) in moves {
        task::sleep(us(at).saturating_sub(begin.elapsed())).await;
        if let Err(error) = conn.set_read_deadline(to.map(|after| begin + us(at + after))) {
            scene.judge(fate, &error, "a deadline");
        }
    }
    task::sleep(us(close_us).saturating_sub(begin.elapsed())).await;
    if let Err(error) = conn.force_close().await {
        scene.fail(format!("a close: {error}"));
    }
    for task in tasks {
        task.await;
    }
}

/// Opens connections one after another, so that their slots are reused. A connection may be closed
/// while an operation waits with a time limit. This limit must not affect the next connection.
async fn churn(scene: &Arc<Scene>, number: u64, session: &Session, transport: Transport, rounds: u64) {
    let mut draw = scene.draw(number * 100 + 70);
    for _ in 0..rounds {
        let (conn, fate) = match open(scene, number, session, transport).await {
            Ok(opened) => opened,
            Err(error) => return scene.judge(Fate::Remote, &error, "opening a connection"),
        };
        let (begin, limit) = (Instant::now(), us(draw.magnitude(1, 300_000)));
        let is_absolute = draw.one_in(2);
        let set =
            if is_absolute { conn.set_read_deadline(Some(begin + limit)) } else { conn.set_read_timeout(Some(limit)) };
        if let Err(error) = set {
            return scene.judge(fate, &error, "a time limit");
        }
        match draw.below(3) {
            // The limit ends the read.
            0 => match conn.read(&mut [0; 4]).await {
                Err(error) if is_deadline(&error) => scene.exactly(begin, limit, "a time limit"),
                Err(error) => scene.judge(fate, &error, "a silent read"),
                Ok(count) => {
                    let end = io::ErrorKind::UnexpectedEof.into();
                    scene.check(count == 0 && scene.explains(fate, &end), || format!("{count} bytes of a silent peer"));
                }
            },
            // The read waits and is dropped with the connection, before or after the limit.
            1 => drop(future::timeout(us(draw.magnitude(1, 300_000)), conn.read(&mut [0; 4])).await),
            // The connection is closed while the read waits, or after the limit has ended the read.
            _ => {
                let reader = conn.clone();
                let waits = task::spawn(async move { reader.read(&mut [0; 4]).await });
                task::sleep(us(draw.magnitude(1, 300_000))).await;
                if let Err(error) = conn.force_close().await {
                    scene.fail(format!("a close: {error}"));
                }
                match waits.await {
                    Err(error) if is_closed(&error) || is_deadline(&error) => {}
                    Err(error) => scene.judge(fate, &error, "a read of a closed connection"),
                    Ok(count) => {
                        let end = io::ErrorKind::UnexpectedEof.into();
                        scene.check(count == 0 && scene.explains(fate, &end), || {
                            format!("{count} bytes of a silent peer")
                        });
                    }
                }
            }
        }
        drop(conn);
    }
}
