//! The echo server on monoio, which uses io_uring. Each worker is a thread with its own runtime and
//! its own listener. All listeners have the same port (SO_REUSEPORT).

use super::{Mode, Options, READ_DEADLINE};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use std::io;

/// Runs the echo server until the process ends.
///
/// # Errors
/// Returns an error if io_uring is not available, or if binding or accepting fails on the calling
/// thread. If one of these fails on another thread, the server continues without that thread.
pub fn serve(options: &'static Options) -> io::Result<()> {
    let first = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = first.local_addr()?;
    let mut others = Vec::new();
    if options.workers > 1 {
        // This socket only chose the port. It has no SO_REUSEPORT, so the threads can bind the port
        // only after it is closed.
        drop(first);
        for _ in 1..options.workers {
            others.push(std::thread::spawn(move || {
                run(|| async move { accept(TcpListener::bind(address)?, options).await })
            }));
        }
        run(|| async move {
            let listener = TcpListener::bind(address)?;
            options.ready(address.port());
            accept(listener, options).await
        })
    } else {
        run(|| async move {
            let listener = TcpListener::from_std(first)?;
            options.ready(address.port());
            accept(listener, options).await
        })
    }
}

/// Runs a future on a new runtime.
fn run<F: Future<Output = io::Result<()>>>(main: impl FnOnce() -> F) -> io::Result<()> {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build()?.block_on(async { main().await })
}

async fn accept(listener: TcpListener, options: &'static Options) -> io::Result<()> {
    // Each thread runs an equal part of the hogs, rounded up.
    for _ in 0..options.hogs.div_ceil(options.workers) {
        let hog = options.hog;
        monoio::spawn(async move {
            loop {
                hog.turn();
                yield_now().await;
            }
        });
    }
    loop {
        let (stream, _) = listener.accept().await?;
        if options.serve_in_block_on {
            let _ = connection(stream, options).await;
        } else if options.mode == Mode::Readable {
            monoio::spawn(on_demand(stream, options));
        } else {
            monoio::spawn(connection(stream, options));
        }
    }
}

/// Yields to the executor once. monoio has no function for this.
async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

async fn connection(mut stream: TcpStream, options: &'static Options) -> io::Result<()> {
    // The kernel fills the buffer up to its capacity. monoio then sets the length of the buffer to
    // the number of bytes read.
    let mut buffer = Vec::with_capacity(options.buffer);
    loop {
        let result;
        (result, buffer) = match options.mode {
            Mode::Deadline | Mode::Timeout => match monoio::time::timeout(READ_DEADLINE, stream.read(buffer)).await {
                Ok(done) => done,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            },
            Mode::Echo | Mode::Churn | Mode::Readable => stream.read(buffer).await,
        };
        let count = result?;
        if count == 0 {
            return Ok(());
        }
        options.work.burn();
        let written;
        (written, buffer) = stream.write_all(buffer).await;
        written?;
        if options.mode == Mode::Churn {
            return Ok(());
        }
    }
}

/// Serves a connection, which has a buffer only while a message is being answered.
async fn on_demand(mut stream: TcpStream, options: &'static Options) -> io::Result<()> {
    loop {
        stream.readable(false).await?;
        let (result, buffer) = stream.read(Vec::with_capacity(options.buffer)).await;
        let count = result?;
        if count == 0 {
            return Ok(());
        }
        options.work.burn();
        stream.write_all(buffer).await.0?;
    }
}
