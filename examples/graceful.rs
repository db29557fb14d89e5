//! A server with a graceful stop: it accepts no more connections, answers requests in progress, and
//! exits.
//!
//! ```text
//! cargo run --release --example graceful                       # 127.0.0.1:7000; Enter or the end of input stops it
//! cargo run --release --example graceful -- 127.0.0.1:8000 3   # or the third connection does
//! ```
//!
//! Shows `close` on a listener that another task waits on (its `incoming` ends), and a deadline set
//! by another task: it ends the reads of silent clients and lets requests in progress finish. A
//! request is a line; the answer takes 100 ms. A request that was not read when the server stopped
//! gets no answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netpoll::io::BufReader;
use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::prelude::*;
use netpoll::task::{self, JoinHandle};
use netpoll::{future, io};

/// How long the last requests may take.
const DRAIN: Duration = Duration::from_secs(5);

type Open = Arc<Mutex<HashMap<SocketAddr, (TcpStream, JoinHandle<()>)>>>;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let most = args.next().map_or(Ok(usize::MAX), |most| most.parse()).map_err(io::Error::other)?;
    task::block_on(run(&addr, most))
}

async fn run(addr: &str, most: usize) -> io::Result<()> {
    let listener = Arc::new(TcpListener::bind(addr).await?);
    println!("listening on {}", listener.local_addr()?);
    drop(task::spawn({
        let listener = listener.clone();
        async move {
            let _ = io::stdin().read(&mut [0; 1]).await;
            listener.close().await
        }
    }));
    let open = Open::default();
    accept(&listener, most, &open).await?;

    let connections: Vec<_> = lock(&open).drain().map(|(_, connection)| connection).collect();
    println!("closed, {} connections are left", connections.len());
    let drain = async {
        for (stream, handle) in connections {
            // Ends tasks that wait for a request.
            let _ = stream.set_read_deadline(Instant::now());
            handle.await;
        }
    };
    match future::timeout(DRAIN, drain).await {
        Ok(()) => println!("all have ended"),
        Err(_) => println!("some took too long"),
    }
    Ok(())
}

/// Accepts until the listener is closed.
async fn accept(listener: &TcpListener, most: usize, open: &Open) -> io::Result<()> {
    let mut incoming = listener.incoming();
    let mut count = 0;
    while let Some(stream) = incoming.next().await {
        let stream = match stream {
            Err(error) if is_closed(&error) => continue,
            stream => stream?,
        };
        begin(stream, open);
        count += 1;
        if count == most {
            listener.close().await?;
        }
    }
    Ok(())
}

fn begin(stream: TcpStream, open: &Open) {
    // A client that is already gone has no address.
    let Ok(peer) = stream.peer_addr() else { return };
    // Locked during the spawn, so that the task finds itself in the map when it ends.
    let mut connections = lock(open);
    let handle = task::spawn({
        let (stream, open) = (stream.clone(), open.clone());
        async move {
            if let Err(error) = answer(&stream).await {
                eprintln!("{peer}: {error}");
            }
            lock(&open).remove(&peer);
        }
    });
    connections.insert(peer, (stream, handle));
}

async fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).take(1 << 20).lines();
    while let Some(line) = lines.next().await {
        match line {
            Ok(line) => {
                task::sleep(Duration::from_millis(100)).await;
                stream.write_all(format!("answer to {line}\n").as_bytes()).await?;
            }
            Err(error) if is_timeout(&error) => return stream.write_all(b"closing, bye\n").await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
