//! A server whose workers are processes: the parent accepts connections and passes each to a worker
//! over a Unix socket.
//!
//! ```text
//! cargo run --release --example unix_fdpass                       # 127.0.0.1:7000, two workers; for `nc 127.0.0.1 7000`
//! cargo run --release --example unix_fdpass -- 127.0.0.1:8000 4
//! ```
//!
//! Shows `UnixSeqpacket`: one message per connection, with the descriptor in it; the peer's
//! credentials; and sockets made from received descriptors. A worker introduces itself and echoes.
//! It ends with the parent, when the other end of its socket is closed.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use netpoll::net::{TcpListener, TcpStream};
use netpoll::os::unix::net::UnixSeqpacket;
use netpoll::prelude::*;
use netpoll::{io, task};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    if addr == "worker" {
        return task::block_on(worker());
    }
    let workers = args.next().map_or(Ok(2), |workers| workers.parse()).map_err(io::Error::other)?;
    task::block_on(parent(&addr, workers))
}

async fn parent(addr: &str, workers: usize) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let workers = (0..workers.max(1)).map(|_| start_worker()).collect::<io::Result<Vec<_>>>()?;
    println!("listening on {}, {} workers", listener.local_addr()?, workers.len());
    let mut next = workers.iter().cycle();
    let mut incoming = listener.incoming();
    while let Some(stream) = incoming.next().await {
        let stream = stream?;
        let Ok(peer) = stream.peer_addr() else { continue };
        let worker = next.next().expect("at least one worker");
        // The worker gets a duplicate, so this descriptor may be closed as soon as the message is
        // sent.
        worker.send_with_fds(peer.to_string().as_bytes(), &[stream.as_fd()]).await?;
    }
    Ok(())
}

/// Starts this program again with one end of a socket pair as its standard input. Returns the other
/// end.
fn start_worker() -> io::Result<UnixSeqpacket> {
    let (ours, theirs) = UnixSeqpacket::pair()?;
    Command::new(std::env::current_exe()?).arg("worker").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    Ok(ours)
}

async fn worker() -> io::Result<()> {
    let parent = UnixSeqpacket::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let trusted = parent.peer_cred()?.uid();
    let (mut buf, mut fds) = ([0; 64], Vec::new());
    loop {
        let count = match parent.recv_with_fds(&mut buf, &mut fds).await {
            // The parent is gone.
            Ok(0) => return Ok(()),
            result => result?,
        };
        let peer: SocketAddr = String::from_utf8_lossy(&buf[..count]).parse().map_err(io::Error::other)?;
        for stream in fds.drain(..).map(TcpStream::from) {
            drop(task::spawn(async move {
                if let Err(error) = serve(&stream, trusted).await {
                    eprintln!("{peer}: {error}");
                }
            }));
        }
    }
}

async fn serve(stream: &TcpStream, parent_uid: u32) -> io::Result<()> {
    let hello = format!("worker {} of user {parent_uid}\n", std::process::id());
    stream.write_all(hello.as_bytes()).await?;
    io::copy(&mut &*stream, &mut &*stream).await?;
    Ok(())
}
