//! An echo server: it sends back what it receives.
//!
//! ```text
//! cargo run --release --example echo                    # 127.0.0.1:7000
//! cargo run --release --example echo -- 127.0.0.1:8000
//! printf 'hi\n' | nc -q1 127.0.0.1 7000
//! ```
//!
//! Shows the accept loop. `incoming` waits while the process is out of descriptors; each connection
//! has its own task.

use netpoll::net::{TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{io, task};

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    task::block_on(serve(&addr))
}

pub(crate) async fn serve(addr: &str) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut incoming = listener.incoming();
    while let Some(stream) = incoming.next().await {
        let stream = stream?;
        drop(task::spawn(async move {
            if let Err(error) = echo(&stream).await {
                eprintln!("{stream:?}: {error}");
            }
        }));
    }
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
