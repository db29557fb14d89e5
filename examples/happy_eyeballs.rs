//! Dials an unreachable and a reachable address, with and without a race between them, and prints
//! the times.
//!
//! ```text
//! cargo run --release --example happy_eyeballs                      # two addresses on loopback
//! cargo run --release --example happy_eyeballs -- example.org:80    # addresses of a host
//! ```
//!
//! The example shows three settings of `Dialer`: the stagger, a timeout of four seconds for the
//! whole dial, and a control function, which is called for each socket before it connects. The
//! unreachable address is that of a listener with a full queue, which does not answer. It is an
//! IPv6 address if this host has IPv6.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use netpoll::io;
use netpoll::net::{Dialer, TcpListener, ToSocketAddrs, resolve};

fn main() -> io::Result<()> {
    netpoll::task::block_on(async {
        if let Some(name) = std::env::args().nth(1) {
            println!("{name} is {:?}", resolve(&name).await?);
            return race(&name, Dialer::new()).await;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let live = listener.local_addr()?;
        let (_full, dead) = dead_end()?;
        let addrs = [dead, live];
        println!("{dead} is dead, {live} is live");
        race(&addrs[..], Dialer::new()).await?;
        race(&addrs[..], Dialer::new().stagger(Duration::from_millis(50))).await?;
        println!("one after the other:");
        race(&addrs[..], Dialer::new().stagger(None)).await
    })
}

pub(crate) async fn race(addrs: impl ToSocketAddrs, dialer: Dialer) -> io::Result<()> {
    let start = Instant::now();
    let millis = move || start.elapsed().as_millis();
    let dialer = dialer.timeout(Duration::from_secs(4)).control(move |network, addr, _| {
        println!("{:5} ms: {network} {addr}", millis());
        Ok(())
    });
    let stream = dialer.dial(addrs).await?;
    println!("{:5} ms: connected to {}", millis(), stream.peer_addr()?);
    Ok(())
}

/// Opens a listener and fills its queue. Returns the listener, the clients in the queue, and the
/// address of the listener. The address is unreachable as long as these sockets are open.
fn dead_end() -> io::Result<(Vec<socket2::Socket>, SocketAddr)> {
    let listener = match listen(Ipv6Addr::LOCALHOST.into()) {
        Err(_) => listen(Ipv4Addr::LOCALHOST.into())?,
        listener => listener?,
    };
    let name = listener.local_addr()?;
    let mut full = vec![listener];
    loop {
        let client = socket2::Socket::new(name.domain(), socket2::Type::STREAM, None)?;
        // The kernel completes the first connections. The queue is full when a connection times
        // out.
        if client.connect_timeout(&name, Duration::from_millis(300)).is_err() {
            let addr = name.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
            return Ok((full, addr));
        }
        full.push(client);
    }
}

fn listen(ip: std::net::IpAddr) -> io::Result<socket2::Socket> {
    let addr = SocketAddr::new(ip, 0);
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.bind(&addr.into())?;
    socket.listen(0)?;
    Ok(socket)
}
