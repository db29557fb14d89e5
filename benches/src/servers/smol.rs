//! The echo server on smol, with its global executor. The program `server` sets the number of
//! threads of the executor with `SMOL_THREADS`.

use super::{Mode, Options, READ_DEADLINE};
use smol::future::{FutureExt, yield_now};
use smol::io::{self, AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::{Async, Timer};
use std::sync::Arc;

/// Runs the echo server until the process ends.
///
/// # Errors
/// Returns an error if binding or accepting fails.
pub fn serve(options: &'static Options) -> io::Result<()> {
    smol::block_on(listen(options))
}

async fn listen(options: &'static Options) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    options.ready(listener.local_addr()?.port());
    for _ in 0..options.hogs {
        let hog = options.hog;
        smol::spawn(async move {
            loop {
                hog.turn();
                yield_now().await;
            }
        })
        .detach();
    }
    loop {
        let (stream, _) = listener.accept().await?;
        if options.serve_in_block_on {
            let _ = connection(stream, options).await;
        } else if options.mode == Mode::Readable {
            smol::spawn(on_demand(stream.into(), options)).detach();
        } else {
            smol::spawn(connection(stream, options)).detach();
        }
    }
}

async fn connection(mut stream: TcpStream, options: &'static Options) -> io::Result<()> {
    let mut buffer = vec![0; options.buffer];
    loop {
        let count = match options.mode {
            Mode::Deadline | Mode::Timeout => {
                let expiry = async {
                    Timer::after(READ_DEADLINE).await;
                    Err(io::ErrorKind::TimedOut.into())
                };
                stream.read(&mut buffer).or(expiry).await?
            }
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
async fn on_demand(stream: Arc<Async<std::net::TcpStream>>, options: &'static Options) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut buffer = vec![0; options.buffer];
        let count = (&*stream).read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        options.work.burn();
        (&*stream).write_all(&buffer[..count]).await?;
    }
}
