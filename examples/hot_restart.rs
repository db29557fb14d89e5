//! A server whose process can be replaced without refusing a connection. The new process takes over
//! the listening socket.
//!
//! ```text
//! cargo run --release --example hot_restart                      # 127.0.0.1:7000; press Enter
//! cargo run --release --example hot_restart -- 127.0.0.1:8000
//! while sleep 5; do echo; done | cargo run --release --example hot_restart    # every 5 seconds
//! echo hello | nc 127.0.0.1 7000
//! ```
//!
//! Each line of standard input replaces the process. In a terminal, only the first line does,
//! because the shell takes the terminal back when the first process has ended. The old process
//! starts the new process and passes it two descriptors: the listening socket, and one end of a
//! socket pair over which the new process reports that it is ready. Then the old process closes its
//! own copy of the listening socket, and exits when its last connection has ended, or after ten
//! seconds. Connections that are not yet accepted wait in the socket's queue, which both processes
//! share.
//!
//! If the environment announces a socket (`LISTEN_FDS`, sd_listen_fds(3)), the server uses it
//! instead of the address. A request is a line. The response is the id of the process and the line.
//! Ctrl-C or SIGTERM stops the server. The end of standard input does not, so the server also runs
//! as a service, whose standard input is /dev/null.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use netpoll::net::{self, TcpListener, TcpStream, activation};
use netpoll::prelude::*;
use netpoll::{future, io, signal, task};

const CONNECTIONS_MAX: usize = 10_000;

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    task::block_on(run(&addr))
}

async fn run(addr: &str) -> io::Result<()> {
    let (mut inherited, mut ready) = (None, None);
    for socket in activation::take()? {
        match socket.name() {
            "ready" => ready = Some(UnixStream::from(OwnedFd::from(socket))),
            _ => inherited = Some(socket.into_tcp_listener()?),
        }
    }
    let listener = match inherited {
        Some(listener) => listener,
        None => TcpListener::bind(addr).await?,
    };
    // A duplicate of the descriptor, which is passed to the new process.
    let handle = listener.as_fd().try_clone_to_owned()?;
    let terminated = signal::termination()?;
    println!("listening on {}, process {}", listener.local_addr()?, std::process::id());
    if let Some(mut ready) = ready {
        ready.write_all(b"!")?;
    }

    let replaced = async move {
        let mut lines = io::BufReader::new(io::stdin()).lines();
        while let Some(Ok(_)) = lines.next().await {
            match replace(&handle).await {
                Ok(()) => return,
                Err(error) => eprintln!("not replaced: {error}"),
            }
        }
        // At the end of the input, `handle` is no longer needed, and only a signal stops the
        // server.
        drop(handle);
        future::pending().await
    };
    // `replaced` owns `handle`, which is dropped when `stop` completes.
    let stop = async move { replaced.race(async { drop(terminated.await) }).await };
    let report = net::serve(listener, answer).max_connections(CONNECTIONS_MAX).until(stop).await?;
    report.stragglers.iter().for_each(|straggler| eprintln!("{straggler}"));
    println!("process {} has ended", std::process::id());
    Ok(())
}

/// Starts this program again with the listener, and waits until the new process reports that it is
/// ready.
async fn replace(listener: &OwnedFd) -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    activation::pass(&mut command, [("web", listener.as_fd()), ("ready", theirs.as_fd())])?;
    task::spawn_blocking(move || {
        command.spawn()?;
        // The command owns a duplicate of `theirs`. Both are dropped, so that the read fails if the
        // new process ends before it is ready.
        drop((command, theirs));
        ours.read_exact(&mut [0; 1])
    })
    .await
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut line = String::new();
    io::BufReader::new(&stream).take(1 << 16).read_line(&mut line).await?;
    stream.write_all(format!("{}: {line}", std::process::id()).as_bytes()).await
}
