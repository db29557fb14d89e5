//! Runs code that is written for the traits of async-rs on netpoll. An adapter implements the
//! traits. The function `talk` uses only the traits.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example async_rs
//! ```
//!
//! The example shows implementations of `Executor` and `Reactor`: tasks that can be detached and
//! cancelled, timers, streams, and any descriptor that epoll accepts.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Runtime;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::{Task, TaskImpl};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use futures::stream::{self, Stream, StreamExt};
use netpoll::io::AsyncFd;
use netpoll::net::{TcpListener, TcpStream};
use netpoll::task::{self, JoinHandle};
use netpoll::time::Sleep;

#[derive(Clone, Copy, Debug)]
struct Netpoll;

impl RuntimeKit for Netpoll {}

impl Executor for Netpoll {
    type Task<T: Send + 'static> = Handle<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        task::block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Handle<T>> {
        Handle(Some(task::spawn(future))).into()
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, f: F) -> Task<Handle<T>> {
        Handle(Some(task::spawn_blocking(f))).into()
    }
}

/// A handle to a task. Dropping the handle detaches the task, as in netpoll.
struct Handle<T>(Option<JoinHandle<T>>);

impl<T: Send + 'static> TaskImpl for Handle<T> {
    fn cancel<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = Option<T>> + Send + 'b>>
    where
        'a: 'b,
    {
        Box::pin(async { self.0.take()?.cancel().await })
    }
}

impl<T> Future for Handle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(self.0.as_mut().expect("a task that is not cancelled")).poll(cx)
    }
}

impl Reactor for Netpoll {
    type TcpStream = TcpStream;
    type Sleep = Sleep;

    // In the trait, the bound of `H` is `AsSysFd`, which is not public. Its supertrait `AsFd` is
    // sufficient here.
    fn register<H: Read + Write + AsFd + Send + 'static>(
        &self,
        handle: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        // A duplicate of the descriptor reports the readiness of the handle.
        Ok(Registered { readiness: AsyncFd::new(handle.as_fd().try_clone_to_owned()?)?, handle })
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(duration)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        stream::once(async {}).chain(netpoll::stream::interval(period)).map(|()| Instant::now())
    }

    fn tcp_connect_addr(&self, addr: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        TcpStream::connect(addr)
    }
}

struct Registered<H> {
    readiness: AsyncFd<OwnedFd>,
    handle: H,
}

// The handle is never pinned.
impl<H> Unpin for Registered<H> {}

impl<H: Read> AsyncRead for Registered<H> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let Registered { readiness, handle } = &mut *self;
        readiness.poll_read_with(cx, |_| handle.read(buf))
    }
}

impl<H: Write> AsyncWrite for Registered<H> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Registered { readiness, handle } = &mut *self;
        readiness.poll_write_with(cx, |_| handle.write(buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Registered { readiness, handle } = &mut *self;
        readiness.poll_write_with(cx, |_| handle.flush())
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

fn main() -> io::Result<()> {
    let runtime = Runtime::new(Netpoll);
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        drop(runtime.spawn(async move {
            let (stream, _) = listener.accept().await?;
            netpoll::io::copy(&mut &stream, &mut &stream).await
        }));
        println!("echo: {}", talk(&runtime, addr).await?);
        let (one, other) = UnixStream::pair()?;
        let (mut one, mut other) = (runtime.register(one)?, runtime.register(other)?);
        let mut word = [0; 5];
        let (read, written) = futures::join!(one.read_exact(&mut word), other.write_all(b"hello"));
        read.and(written)?;
        println!("registered: {}", String::from_utf8_lossy(&word));
        println!("{} ticks", runtime.interval(Duration::from_millis(1)).take(3).count().await);
        let mut asleep = runtime.spawn(task::sleep(Duration::MAX));
        println!("cancelled: {}", asleep.cancel().await.is_none());
        Ok(())
    })
}

/// Sends a word to an echo server and returns the reply. Uses only the traits of async-rs.
async fn talk<R: RuntimeKit + Sync>(runtime: &Runtime<R>, addr: SocketAddr) -> io::Result<String> {
    let mut stream = runtime.tcp_connect(addr).await?;
    runtime.sleep(Duration::from_millis(1)).await;
    stream.write_all(b"hello").await?;
    stream.close().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
