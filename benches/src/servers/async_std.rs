//! The echo server on async-std. The program `server` sets the number of threads of async-std with
//! `ASYNC_STD_THREAD_COUNT`.

use super::{Mode, Options, READ_DEADLINE};
use async_std::io::{self, ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use async_std::task;

/// Runs the echo server until the process ends.
///
/// # Errors
/// Returns `Unsupported` for [`Mode::Readable`], and an error if binding or accepting fails.
pub fn serve(options: &'static Options) -> io::Result<()> {
    if options.mode == Mode::Readable {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "async-std cannot wait without a buffer"));
    }
    task::block_on(listen(options))
}

async fn listen(options: &'static Options) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    options.ready(listener.local_addr()?.port());
    for _ in 0..options.hogs {
        let hog = options.hog;
        task::spawn(async move {
            loop {
                hog.turn();
                task::yield_now().await;
            }
        });
    }
    loop {
        let (stream, _) = listener.accept().await?;
        if options.serve_in_block_on {
            let _ = connection(stream, options).await;
        } else {
            task::spawn(connection(stream, options));
        }
    }
}

async fn connection(mut stream: TcpStream, options: &'static Options) -> io::Result<()> {
    let mut buffer = vec![0; options.buffer];
    loop {
        let count = match options.mode {
            Mode::Deadline | Mode::Timeout => io::timeout(READ_DEADLINE, stream.read(&mut buffer)).await?,
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
