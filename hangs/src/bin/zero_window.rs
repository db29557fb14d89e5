//! A program that hangs because the peer does not read. The receive window of the peer is closed,
//! the send buffer is full, and the write waits for room.

use std::net::Shutdown;

use netpoll::net::TcpListener;
use netpoll::task;
use netpoll_hangs::named;

fn main() -> std::io::Result<()> {
    netpoll_hangs::end_after_bound();
    task::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let lazy = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (stream, _) = listener.accept().await?;
        let sender = named("sender", async move { stream.write_all(&vec![0; 64 << 20]).await });
        sender.await?;
        lazy.shutdown(Shutdown::Both)
    })
}
