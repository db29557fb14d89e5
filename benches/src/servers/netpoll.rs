//! The echo server on netpoll, with workers or single-threaded.

use super::{Flavour, Mode, Options, READ_DEADLINE};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::{rt, task};
use std::io;
use std::time::Instant;

/// Runs the echo server until the process ends.
///
/// # Errors
/// Returns an error if configuring the runtime, binding or accepting fails.
pub fn serve(options: &'static Options, flavour: Flavour) -> io::Result<()> {
    match flavour {
        Flavour::Workers => rt::Builder::new().workers(options.workers).start()?,
        Flavour::Single => rt::Builder::new().single_threaded(true).start()?,
    }
    if options.hogs > 0 {
        // The listener is a task, so that it competes with the hogs for a worker. A future passed
        // to `block_on` would run on the calling thread, where no task competes with it.
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
    if options.mode == Mode::Timeout {
        stream.set_read_timeout(Some(READ_DEADLINE))?;
    }
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

/// Serves a connection, which has a buffer only while a message is being answered.
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
