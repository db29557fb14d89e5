//! An echo server, which sends the data that it receives back to the client.
//!
//! ```text
//! cargo run --release --example echo                    # 127.0.0.1:7000
//! cargo run --release --example echo -- 127.0.0.1:8000
//! printf 'hi\n' | nc -q1 127.0.0.1 7000
//! ```
//!
//! The example shows `net::serve`: an accept loop that waits while the process is out of
//! descriptors, with one task per connection. Ctrl-C or SIGTERM stops the server. The server then
//! echoes the data that has already arrived and closes the connections. Connections that do not end
//! within ten seconds are closed by force.

use std::future::Future;

use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::{io, signal, task};

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    task::block_on(serve(&addr, signal::termination()?))
}

pub(crate) async fn serve(addr: &str, stop: impl Future + Send + 'static) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
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

async fn echo(stream: &TcpStream) -> io::Result<()> {
    let mut buf = [0; 16 * 1024];
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(()),
            count => stream.write_all(&buf[..count]).await?,
        }
    }
}
