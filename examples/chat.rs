//! A chat server: every line that a client writes is sent to all other clients.
//!
//! ```text
//! cargo run --release --example chat                      # 127.0.0.1:7000
//! cargo run --release --example chat -- 127.0.0.1:8000
//! nc 127.0.0.1 7000                                       # in several terminals
//! ```
//!
//! The example shows shared handles. Each client has one task, which reads from its stream and
//! writes to all other streams. Any number of tasks may write to one stream at the same time, and
//! `write_all` keeps their lines whole. There is no queue per client and no task that owns the
//! writing side. A client that does not read delays the tasks that write to it by at most the write
//! timeout of one second. The first task whose write times out closes the stream, which ends the
//! task of that client. Ctrl-C or SIGTERM stops the server.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netpoll::io::BufReader;
use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{io, signal, task};

/// The maximum length of a line in bytes, including the line terminator. Without a limit, a client
/// could exhaust the memory.
const LINE_BYTES_MAX: u64 = 1024;
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

type Clients = Arc<Mutex<HashMap<SocketAddr, TcpStream>>>;

// Unused in sim_chat.rs and tests/sim_examples.rs, which include this file as a module.
#[allow(dead_code)]
fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    task::block_on(async {
        let listener = TcpListener::bind(&addr).await?;
        let stop = signal::termination()?;
        println!("listening on {}", listener.local_addr()?);
        serve(listener, stop).await
    })
}

pub(crate) async fn serve(listener: TcpListener, stop: impl Future + Send + 'static) -> io::Result<()> {
    let clients = Clients::default();
    let handler = move |stream: TcpStream| {
        let clients = clients.clone();
        async move {
            // A client that is already gone has no address.
            let Ok(peer) = stream.peer_addr() else { return };
            // As soon as the client is in the table, other tasks write to it.
            if stream.set_write_timeout(Some(WRITE_TIMEOUT)).is_err() {
                return;
            }
            lock(&clients).insert(peer, stream.clone());
            tell_others(&clients, peer, "is here\n").await;
            if let Err(error) = listen_to(&stream, peer, &clients).await {
                eprintln!("{peer}: {error}");
            }
            lock(&clients).remove(&peer);
            tell_others(&clients, peer, "has left\n").await;
        }
    };
    let server = net::serve(listener, handler).until(stop);
    println!("{}", server.when_stopping(|stream| drop(stream.close_read())).await?);
    Ok(())
}

/// Forwards the lines of a client until the client disconnects or sends a line that is too long.
async fn listen_to(stream: &TcpStream, peer: SocketAddr, clients: &Clients) -> io::Result<()> {
    stream.write_all(format!("you are {peer}\n").as_bytes()).await?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        (&mut reader).take(LINE_BYTES_MAX).read_line(&mut line).await?;
        if !line.ends_with('\n') {
            // End of stream, or a line that is too long.
            return Ok(());
        }
        tell_others(clients, peer, &line).await;
    }
}

/// Writes a line to all clients except the speaker.
async fn tell_others(clients: &Clients, speaker: SocketAddr, text: &str) {
    let line = format!("{speaker}: {text}");
    // Cloning the handles is cheap, and the lock is not held across an await.
    let others: Vec<_> = lock(clients).iter().filter(|(peer, _)| **peer != speaker).map(|(_, s)| s.clone()).collect();
    for stream in others {
        if stream.write_all(line.as_bytes()).await.is_err() {
            // Part of the line may have been written, so no other line can follow it.
            drop(stream.force_close());
        }
    }
}

fn lock(clients: &Clients) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, TcpStream>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}
