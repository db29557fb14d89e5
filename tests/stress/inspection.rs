//! Takes snapshots during all other actions. A snapshot may pair a task and a socket only if the
//! task waits for that socket.
//!
//! Each task of this module has one socket and records its descriptor number before it waits for
//! the socket. The socket is open for as long as the task exists, so any other number in the
//! snapshot's row for the task is wrong. The rows of all tasks must agree with the rows of the
//! sockets.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use netpoll::rt::{self, Snapshot, WaitsFor, WokenBy};
use netpoll::task::{self, TaskId};

use crate::actors::park_on;
use crate::conn::Conn;
use crate::oracle::{fail, watch};
use crate::program::Stream;
use crate::words::Many;

/// The number of readers in one round.
const READERS: usize = 8;

/// The descriptor number of the socket that each task waits for.
type Owned = Arc<Mutex<HashMap<TaskId, i32>>>;

fn number(conn: &Conn) -> i32 {
    match conn {
        Conn::Tcp(conn) => conn.as_raw_fd(),
        Conn::Unix(conn) => conn.as_raw_fd(),
        Conn::Pipe(_) => -1,
    }
}

/// Takes three snapshots in each of `looks` rounds, while tasks are spawned, end, and are
/// cancelled, and their sockets are closed. A round during a shutdown may take fewer.
pub fn look(looks: Many) {
    park_on(rounds(looks.0));
}

async fn rounds(looks: u64) {
    let owned = Owned::default();
    for look in 0..looks {
        let _watch = watch("a snapshot while tasks and sockets are created and dropped");
        let kind = if look % 2 == 0 { Stream::Unix } else { Stream::Tcp };
        let (mut peers, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..READERS {
            // A shutdown may prevent the connection.
            let Ok((reader, peer)) = Conn::pair(kind).await else { continue };
            let owned = owned.clone();
            tasks.push(task::spawn(async move {
                let id = task::current().id();
                owned.lock().unwrap_or_else(PoisonError::into_inner).insert(id, number(&reader));
                let _ = reader.read(&mut [0; 8]).await;
            }));
            peers.push(peer);
        }
        check(&owned);
        for (at, (peer, task)) in peers.into_iter().zip(tasks).enumerate() {
            match at % 3 {
                // The task reads a byte or the end of the stream, and ends.
                0 => _ = peer.write(b"x").await,
                1 => drop(peer),
                _ => _ = task.cancel().await,
            }
            if at == READERS / 2 {
                check(&owned);
            }
        }
        check(&owned);
    }
}

/// Takes a snapshot and checks its pairs of tasks and sockets.
fn check(owned: &Owned) {
    let snapshot = rt::inspect();
    let owned = owned.lock().unwrap_or_else(PoisonError::into_inner);
    for socket in &snapshot.sockets {
        for (id, operation) in socket.waiting() {
            if let Some(number) = owned.get(id)
                && *number != socket.fd()
            {
                wrong(&snapshot, format!("task {id}, which reads from fd {number}, is paired with fd {}", socket.fd()));
            }
            let waits_for = snapshot.task(*id).and_then(|task| task.waits_for());
            if waits_for != Some(WaitsFor::Socket { socket: socket.id(), operation: *operation }) {
                wrong(&snapshot, format!("fd {} has task {id}, whose row has {waits_for:?}", socket.fd()));
            }
        }
    }
    for task in &snapshot.tasks {
        // No socket except its own wakes a task of this module.
        if let (Some(number), Some(WokenBy::Socket(by))) = (owned.get(&task.id()), task.woken_by())
            && snapshot.socket(by).map(|socket| socket.fd()) != Some(*number)
        {
            wrong(&snapshot, format!("task {}, which reads from fd {number}, was woken by {by:?}", task.id()));
        }
        let Some(WaitsFor::Socket { socket, operation }) = task.waits_for() else { continue };
        let listed = snapshot.socket(socket).is_some_and(|socket| socket.waiting().contains(&(task.id(), operation)));
        if !listed {
            wrong(&snapshot, format!("task {} waits for a socket whose row does not have it", task.id()));
        }
    }
}

fn wrong(snapshot: &Snapshot, what: String) {
    fail(format!("a snapshot is wrong: {what}\n{snapshot}"));
}
