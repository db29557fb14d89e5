//! netpoll, this repository's crate.

use super::{Mode, Options, READ_DEADLINE};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::{rt, task};
use std::io;
use std::time::Instant;

/// Serves for ever.
///
/// # Errors
/// Those of configuring the runtime, of binding and accepting.
pub fn serve(options: &'static Options) -> io::Result<()> {
    rt::Builder::new().workers(options.workers).start()?;
    if options.hogs > 0 {
        // The thread of `block_on` runs tasks while its own future waits. One that never yields keeps that future from
        // being polled, so beside such tasks the listener is a task itself: those are rescued.
        return task::block_on(task::spawn(listen(options)));
    }
    task::block_on(listen(options))
}

async fn listen(options: &'static Options) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    options.ready(listener.local_addr()?.port());
    for _ in 0..options.hogs {
        let hog = options.hog;
        drop(task::spawn(async move {
            loop {
                hog.turn();
                task::yield_now().await;
            }
        }));
    }
    loop {
        let (stream, _) = listener.accept().await?;
        if options.serve_in_block_on {
            let _ = connection(stream, options).await;
        } else if options.mode == Mode::Readable {
            drop(task::spawn(on_demand(stream, options)));
        } else {
            drop(task::spawn(connection(stream, options)));
        }
    }
}

async fn connection(stream: TcpStream, options: &'static Options) -> io::Result<()> {
    let mut buffer = vec![0; options.buffer];
    loop {
        if options.mode == Mode::Deadline {
            stream.set_read_deadline(Instant::now() + READ_DEADLINE)?;
        }
        let count = stream.read(&mut buffer).await?;
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

/// Allocates its buffer when there is something to read.
async fn on_demand(stream: TcpStream, options: &'static Options) -> io::Result<()> {
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
