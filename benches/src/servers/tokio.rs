//! The echo server on tokio, with its multi-threaded or its current-thread runtime.

use super::{Flavour, Mode, Options, READ_DEADLINE};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::timeout;

/// Runs the echo server until the process ends.
///
/// # Errors
/// Returns an error if building the runtime, binding or accepting fails.
pub fn serve(options: &'static Options, flavour: Flavour) -> io::Result<()> {
    let mut builder = match flavour {
        Flavour::Workers => Builder::new_multi_thread(),
        Flavour::Single => Builder::new_current_thread(),
    };
    builder.worker_threads(options.workers).enable_all().build()?.block_on(listen(options))
}

async fn listen(options: &'static Options) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    options.ready(listener.local_addr()?.port());
    for _ in 0..options.hogs {
        let hog = options.hog;
        tokio::spawn(async move {
            loop {
                hog.turn();
                tokio::task::yield_now().await;
            }
        });
    }
    loop {
        let (stream, _) = listener.accept().await?;
        if options.serve_in_block_on {
            let _ = connection(stream, options).await;
        } else if options.mode == Mode::Readable {
            tokio::spawn(on_demand(stream, options));
        } else {
            tokio::spawn(connection(stream, options));
        }
    }
}

async fn connection(mut stream: TcpStream, options: &'static Options) -> io::Result<()> {
    let mut buffer = vec![0; options.buffer];
    loop {
        let count = match options.mode {
            Mode::Deadline | Mode::Timeout => timeout(READ_DEADLINE, stream.read(&mut buffer)).await??,
            Mode::Echo | Mode::Churn | Mode::Readable => stream.read(&mut buffer).await?,
        };
        if count == 0 {
            return Ok(());
        }
        options.work.burn();
        stream.write_all(&buffer[..count]).await?;
        if options.mode == Mode::Churn {
            return Ok(());
        }
    }
}

/// Serves a connection, which has a buffer only while a message is being answered.
async fn on_demand(mut stream: TcpStream, options: &'static Options) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut buffer = vec![0; options.buffer];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        options.work.burn();
        stream.write_all(&buffer[..count]).await?;
    }
}
