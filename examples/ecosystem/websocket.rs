//! A WebSocket echo server and a client, with async-tungstenite.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example websocket    # 127.0.0.1:7080
//! cargo run --release -p netpoll-ecosystem --example websocket -- 127.0.0.1:8000
//! cargo run --release -p netpoll-ecosystem --example websocket -- 127.0.0.1:7080 hello
//! ```
//!
//! Without arguments or with an address only, the program is the server. With an address and words,
//! it is a client that sends each word and prints the reply. The example shows that a protocol
//! library for futures-io works with netpoll's streams without an adapter. The server has a read
//! deadline on each socket, which every message moves to 60 seconds later. After Ctrl-C or SIGTERM,
//! the server answers the messages that have arrived and stops.

use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{accept_async, client_async};
use futures::StreamExt;
use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::{signal, task};

const SILENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7080".to_owned());
    let words: Vec<_> = args.collect();
    task::block_on(async {
        if words.is_empty() {
            return serve(&addr).await;
        }
        let stream = TcpStream::connect(&addr).await?;
        let (mut socket, _) = client_async(format!("ws://{addr}/"), stream).await?;
        for word in words {
            socket.send(Message::text(word)).await?;
            if let Some(answer) = socket.next().await {
                println!("{}", answer?.to_text()?);
            }
        }
        socket.close(None).await
    })
}

async fn serve(addr: &str) -> Result<(), Error> {
    let listener = TcpListener::bind(addr).await?;
    let stop = signal::termination()?;
    println!("listening on {}", listener.local_addr()?);
    let handler = |stream: TcpStream| async move {
        if let Err(error) = echo(&stream).await {
            eprintln!("{stream:?}: {error}");
        }
    };
    let server = net::serve(listener, handler).until(stop);
    println!("{}", server.when_stopping(|stream| drop(stream.close_read())).await?);
    Ok(())
}

async fn echo(stream: &TcpStream) -> Result<(), Error> {
    let next = || stream.set_read_deadline(Instant::now() + SILENCE);
    next()?;
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = match message {
            // The stream ends because the client has closed the connection without a closing
            // handshake, or because the server stops.
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => break,
            message => message?,
        };
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
        next()?;
    }
    Ok(())
}
