//! A UDP echo server that, on Linux, receives and sends many datagrams per system call.
//!
//! ```text
//! cargo run --release --example udp_echo                    # 127.0.0.1:7000
//! cargo run --release --example udp_echo -- 0.0.0.0:8000
//! printf 'hi\n' | nc -u -w1 127.0.0.1 7000
//! ```
//!
//! The example shows `recv_many` and `send_many`, which use receive and segmentation offload if the
//! kernel supports them. It also shows how to reply from the address to which the request was sent.
//! Ctrl-C or SIGTERM stops the server.

use netpoll::net::{RecvBatch, SendBatch, UdpSocket};
use netpoll::prelude::*;
use netpoll::{io, signal, task};

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let terminated = signal::termination()?;
    task::block_on(async { terminated.await.map(drop) }.race(serve(&addr)))
}

/// Enables receive offload. Returns whether the kernel supports it.
#[cfg(target_os = "linux")]
fn receives_combined(socket: &UdpSocket) -> bool {
    socket.set_gro(true).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn receives_combined(_: &UdpSocket) -> bool {
    false
}

pub(crate) async fn serve(addr: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(addr).await?;
    socket.set_recv_packet_info(true)?;
    let offload = receives_combined(&socket);
    println!("listening on {}, {}", socket.local_addr()?, if offload { "with offload" } else { "without offload" });

    // With offload, several datagrams of one sender may be received as one datagram of up to 65,535
    // bytes.
    let mut incoming = RecvBatch::new(64, if offload { 65_535 } else { 2_048 });
    let mut outgoing = SendBatch::new();
    loop {
        socket.recv_many(&mut incoming).await?;
        for datagram in &incoming {
            // The reply is sent from the destination address of the request. If the request
            // consists of combined datagrams, the kernel splits the reply into datagrams of the
            // same size.
            outgoing.push_with(datagram.bytes(), datagram.from(), &datagram.ancillary().reply())?;
        }
        while !outgoing.is_empty() {
            if let Err(error) = socket.send_many(&mut outgoing).await {
                // The datagrams behind a refused one are not sent until it is removed.
                eprintln!("not sent: {error}");
                outgoing.skip();
            }
        }
    }
}
