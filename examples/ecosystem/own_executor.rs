//! Uses netpoll's sockets under the executors of `futures`, smol and tokio, and under netpoll's own
//! executor.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example own_executor
//! ```
//!
//! A socket needs only the waker of the task that uses it. netpoll's threads poll the network and
//! run the timers for every executor. So there is no adapter, no context to enter and no feature to
//! enable.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use netpoll::io;
use netpoll::net::{TcpListener, TcpStream, is_timeout};
use netpoll::prelude::*;

const ROUNDS: u32 = 1000;

fn main() -> io::Result<()> {
    futures::executor::block_on(session("futures"))?;
    smol::block_on(session("smol"))?;
    tokio::runtime::Builder::new_current_thread().build()?.block_on(session("tokio"))?;
    netpoll::task::block_on(session("netpoll"))
}

/// Runs a client and a server in one future, which the executor polls.
async fn session(executor: &str) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;

    let (mut reader, mut writer) = (&server, &server);
    let echo = io::copy(&mut reader, &mut writer);
    let requests = async {
        let mut buf = [0; 64];
        for round in 0..ROUNDS {
            let message = [round as u8; 64];
            client.write_all(&message).await?;
            (&client).read_exact(&mut buf).await?;
            assert_eq!(buf, message);
        }
        client.shutdown(Shutdown::Write)
    };
    let (bytes, ()) = echo.try_join(requests).await?;
    assert_eq!(bytes, u64::from(ROUNDS) * 64);

    // Deadlines and sleeps also work under each executor.
    server.set_read_deadline(Instant::now() + Duration::from_millis(5))?;
    netpoll::task::sleep(Duration::from_millis(10)).await;
    let error = server.read(&mut [0; 1]).await.expect_err("the deadline has passed");
    assert!(is_timeout(&error));
    println!("{executor}: {ROUNDS} round trips, then {error}");
    Ok(())
}
