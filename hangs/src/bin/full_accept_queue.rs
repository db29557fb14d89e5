//! A program that is slow because its accept queue is full. The task that accepts waits for a timer
//! after each connection.

use std::time::Duration;

use netpoll::net::ListenConfig;
use netpoll::task;
use netpoll_hangs::named;

fn main() -> std::io::Result<()> {
    netpoll_hangs::end_after_bound();
    task::block_on(async {
        let listener = ListenConfig::new().backlog(4).listen("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let acceptor = named("acceptor", async move {
            loop {
                let (stream, _) = listener.accept().await?;
                // The sleep stands for a slow look-up of the client.
                task::sleep(Duration::from_secs(3600)).await;
                drop(stream);
            }
            #[allow(unreachable_code)]
            std::io::Result::Ok(())
        });
        let clients = std::thread::spawn(move || {
            let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
            (0..8).map(connect).collect::<Vec<_>>()
        });
        acceptor.await?;
        drop(clients.join());
        Ok(())
    })
}
