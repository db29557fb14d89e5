//! An echo server that drops silent clients.
//!
//! ```text
//! cargo run --release --example echo_deadline                         # 127.0.0.1:7000, 10 seconds
//! cargo run --release --example echo_deadline -- 127.0.0.1:8000 0.5   # half a second
//! nc 127.0.0.1 7000                                                   # type nothing
//! ```
//!
//! The example shows the read deadline, which is a point in time that is stored in the socket.
//! After this time every read fails, including a read that is already waiting. The server moves the
//! deadline before each read. Moving it to a later time costs one atomic swap and arms no timer.
//! The write timeout is a duration, as in std, and is counted from the moment when a write begins
//! to wait. It ends the connection of a client that sends data but reads none for five seconds.
//! Ctrl-C or SIGTERM stops the server.

use std::future::Future;
use std::time::{Duration, Instant};

use netpoll::net::{self, TcpListener, TcpStream, is_timeout};
use netpoll::{io, signal, task};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let seconds = args.next().map_or(Ok(10.0), |seconds| seconds.parse()).map_err(io::Error::other)?;
    let idle = Duration::try_from_secs_f64(seconds).map_err(io::Error::other)?;
    task::block_on(serve(&addr, idle, signal::termination()?))
}

pub(crate) async fn serve(addr: &str, idle: Duration, stop: impl Future + Send + 'static) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}, idle limit {idle:?}", listener.local_addr()?);
    let handler = move |stream: TcpStream| async move {
        if let Err(error) = echo(&stream, idle).await {
            eprintln!("{stream:?}: {error}");
        }
    };
    let server = net::serve(listener, handler).until(stop);
    println!("{}", server.when_stopping(|stream| drop(stream.close_read())).await?);
    Ok(())
}

async fn echo(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut buf = [0; 16 * 1024];
    loop {
        stream.set_read_deadline(Instant::now() + idle)?;
        match stream.read(&mut buf).await {
            Ok(0) => return Ok(()),
            Ok(count) => stream.write_all(&buf[..count]).await?,
            // The deadline applies only to reads: writing still works.
            Err(error) if is_timeout(&error) => return stream.write_all(b"too slow, bye\n").await,
            Err(error) => return Err(error),
        }
    }
}
