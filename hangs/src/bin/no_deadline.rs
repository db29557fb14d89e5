//! A program that hangs because no deadline limits its read from a server that never answers.

use netpoll::net::TcpStream;
use netpoll::task;
use netpoll_hangs::named;

fn main() -> std::io::Result<()> {
    netpoll_hangs::end_after_bound();
    // The kernel completes the connection, and the program never accepts it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?;
    let client = named("client", async move {
        let stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: silent\r\n\r\n").await?;
        stream.read(&mut [0; 1024]).await
    });
    task::block_on(client).map(drop)
}
