//! A program that hangs because a task holds the lock of a cache while it waits for a server that
//! does not answer. All users of the cache wait for the lock.

use std::sync::Arc;

use futures::future::join_all;
use futures::lock::Mutex;
use netpoll::net::{TcpListener, TcpStream};
use netpoll::task;
use netpoll_hangs::named;

fn main() -> std::io::Result<()> {
    netpoll_hangs::end_after_bound();
    // The kernel completes the connection, and the program never accepts it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?;
    task::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let cache = Arc::new(Mutex::new(Vec::new()));
        let refresher = named("refresher", {
            let cache = cache.clone();
            async move {
                let mut cache = cache.lock().await;
                let server = TcpStream::connect(address).await?;
                cache.resize(64, 0);
                server.read(&mut cache).await
            }
        });
        // The refresher takes the lock before the users do.
        task::sleep(std::time::Duration::from_millis(50)).await;
        let users = (0..3).map(|number| {
            let cache = cache.clone();
            named(&format!("user {number}"), async move { cache.lock().await.len() })
        });
        join_all(users.collect::<Vec<_>>()).await;
        refresher.await?;
        drop(listener);
        Ok(())
    })
}
