//! A server with worker processes: the parent accepts connections and passes each to a worker over
//! a Unix socket.
//!
//! ```text
//! cargo run --release --example unix_fdpass                          # 127.0.0.1:7000, two workers
//! cargo run --release --example unix_fdpass -- 127.0.0.1:8000 4      # four workers
//! nc 127.0.0.1 7000
//! ```
//!
//! The example shows messages with descriptors (one byte per connection, with the connection's
//! descriptor), the credentials of a peer, and sockets created from received descriptors. A worker
//! sends a greeting to each client and then echoes its data. When Ctrl-C or SIGTERM stops the
//! parent, the parent closes the workers' sockets. Each worker then echoes the data that has
//! already arrived from its clients, and exits. The parent starts each worker as the same program
//! with the argument `worker`.

use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use netpoll::net::{self, Listener, TcpListener, TcpStream};
use netpoll::os::unix::net::UnixStream;
use netpoll::prelude::*;
use netpoll::signal::{self, Signal, SignalKind};
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
    let (sockets, children): (Vec<_>, Vec<_>) =
        (0..workers.max(1)).map(|_| start_worker()).collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
    let stop = signal::termination()?;
    println!("listening on {}, {} workers", listener.local_addr()?, sockets.len());
    let (sockets, next) = (Arc::new(sockets), AtomicUsize::new(0));
    let hand_out = move |stream: TcpStream| {
        let (sockets, next) = (sockets.clone(), next.fetch_add(1, Ordering::Relaxed));
        async move {
            // The worker gets a duplicate, so this descriptor may be closed as soon as the message
            // is sent.
            let sent = sockets[next % sockets.len()].send_with_fds(b"1", &[stream.as_fd()]).await;
            if let Err(error) = sent {
                eprintln!("{stream:?}: {error}");
            }
        }
    };
    // When the server ends, it drops the handler and with it the sockets, which ends the workers.
    net::serve(listener, hand_out).until(stop).await?;
    task::spawn_blocking(|| children.into_iter().try_for_each(|mut child| child.wait().map(drop))).await
}

/// Starts this program again with one end of a socket pair as its standard input. Returns the other
/// end and the process.
fn start_worker() -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg("worker").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    Ok((ours, child))
}

async fn worker() -> io::Result<()> {
    // Ctrl-C sends SIGINT to the foreground process group, which includes the workers. A worker
    // ignores the signal, and ends when the parent has closed its socket.
    let _interrupts = Signal::new(SignalKind::INTERRUPT)?;
    let parent = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let user = parent.peer_cred()?.uid();
    let handler = move |stream: TcpStream| async move {
        if let Err(error) = serve(&stream, user).await {
            eprintln!("{stream:?}: {error}");
        }
    };
    net::serve(Passed(parent), handler).when_stopping(|stream| drop(stream.close_read())).await.map(drop)
}

/// A listener that receives its connections from the parent, over a Unix socket.
struct Passed(UnixStream);

impl Listener for Passed {
    type Conn = TcpStream;
    type Incoming<'a> = Pin<Box<dyn Stream<Item = io::Result<TcpStream>> + Send + 'a>>;

    fn incoming(&self) -> Self::Incoming<'_> {
        Box::pin(futures::stream::unfold(&self.0, async |parent| {
            loop {
                let mut fds = Vec::new();
                match parent.recv_with_fds(&mut [0], &mut fds).await {
                    // The parent has closed its end.
                    Ok(0) => return None,
                    // A message without a descriptor has no connection.
                    Ok(_) => {
                        if let Some(fd) = fds.pop() {
                            return Some((Ok(TcpStream::from(fd)), parent));
                        }
                    }
                    Err(error) => return Some((Err(error), parent)),
                }
            }
        }))
    }

    fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        self.0.force_close()
    }
}

async fn serve(stream: &TcpStream, parent_uid: u32) -> io::Result<()> {
    let hello = format!("worker {} of user {parent_uid}\n", std::process::id());
    stream.write_all(hello.as_bytes()).await?;
    io::copy(&mut &*stream, &mut &*stream).await?;
    Ok(())
}
