//! A TCP proxy. It accepts connections at LISTEN and forwards the bytes of each to TARGET and back.
//! On Linux, the bytes usually stay in the kernel.
//!
//! ```text
//! cargo run --release --example proxy -- LISTEN TARGET [IDLE-SECONDS]
//! cargo run --release --example proxy -- 127.0.0.1:8080 example.com:80
//! curl -H 'Host: example.com' http://127.0.0.1:8080/
//! ```
//!
//! The example shows `copy_bidirectional_with`, which uses splice(2) between the sockets, forwards
//! a half-close, and ends idle connections. A connection is idle if no bytes are copied for
//! IDLE-SECONDS. The default is 300. After Ctrl-C or SIGTERM, connections have ten seconds to end.

use std::future::Future;
use std::time::Duration;

use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::{io, signal, task};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(target)) = (args.next(), args.next()) else {
        return Err(io::Error::other("usage: proxy LISTEN TARGET [IDLE-SECONDS]"));
    };
    let idle = args.next().map_or(Ok(300), |idle| idle.parse()).map_err(io::Error::other)?;
    task::block_on(run(&listen, target, Duration::from_secs(idle), signal::termination()?))
}

pub(crate) async fn run(
    listen: &str,
    target: String,
    idle: Duration,
    stop: impl Future + Send + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    let handler = move |inbound: TcpStream| {
        let target = target.clone();
        async move {
            if let Err(error) = carry(inbound, &target, idle).await {
                eprintln!("{error}");
            }
        }
    };
    println!("{}", net::serve(listener, handler).until(stop).await?);
    Ok(())
}

async fn carry(mut inbound: TcpStream, target: &str, idle: Duration) -> io::Result<()> {
    let mut outbound = TcpStream::connect(target).await?;
    let (up, down) = io::copy_bidirectional_with(&mut inbound, &mut outbound, idle).await?;
    println!("{up} bytes up, {down} down");
    Ok(())
}
