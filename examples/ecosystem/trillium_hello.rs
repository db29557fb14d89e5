//! A trillium application on netpoll: an adapter of netpoll for trillium, and a server with two
//! routes.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example trillium_hello    # 127.0.0.1:8080
//! cargo run --release -p netpoll-ecosystem --example trillium_hello -- 127.0.0.1:9090
//! curl http://127.0.0.1:8080/
//! curl --http2-prior-knowledge --data 'some text' http://127.0.0.1:8080/shout
//! ```
//!
//! The example implements `Server`, `RuntimeTrait` and `Transport` of trillium-server-common with
//! netpoll's listener and streams. It serves HTTP/1 and HTTP/2. After Ctrl-C or SIGTERM, the server
//! stops accepting connections and answers the requests in progress. QUIC is not supported, so
//! `UdpTransport` is `()`.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use netpoll::io::{Read, Write};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::{signal, task};
use trillium::{Conn, Info, Transport};
use trillium_server_common::{Config, DroppableFuture, Runtime, RuntimeTrait, Server, Stream};

#[derive(Clone, Copy, Debug)]
struct Netpoll;

impl From<Netpoll> for Runtime {
    fn from(netpoll: Netpoll) -> Runtime {
        Arc::new(netpoll).into()
    }
}

impl RuntimeTrait for Netpoll {
    fn spawn<F>(&self, future: F) -> DroppableFuture<impl Future<Output = Option<F::Output>> + Send + 'static>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        // Awaiting the handle of a netpoll task resumes the task's panic, but trillium expects
        // `None`. Dropping the handle detaches the task in both.
        DroppableFuture::new(AssertUnwindSafe(task::spawn(future)).catch_unwind().map(Result::ok))
    }

    async fn delay(&self, duration: Duration) {
        task::sleep(duration).await;
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = ()> + Send + 'static {
        netpoll::stream::interval(period)
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        task::block_on(future)
    }
}

#[derive(Debug)]
struct Listener(TcpListener);

impl Server for Listener {
    type Transport = Connection;
    type Runtime = Netpoll;
    type UdpTransport = ();

    async fn accept(&mut self) -> io::Result<Connection> {
        // Unlike `accept`, `incoming` waits while the process is out of descriptors. After an error
        // of `accept`, trillium would retry immediately.
        let stream = self.0.incoming().next().await.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))?;
        Ok(Connection(stream))
    }

    fn init(&self, info: &mut Info) {
        info.insert_shared_state(self.0.local_addr().expect("a listener has an address"));
    }

    fn runtime() -> Netpoll {
        Netpoll
    }

    fn from_tcp(listener: std::net::TcpListener) -> Listener {
        Listener(listener.into())
    }
}

/// A `TcpStream` in a type of this crate, because `Transport` and `TcpStream` belong to other
/// crates.
struct Connection(TcpStream);

impl Transport for Connection {
    fn set_linger(&mut self, linger: Option<Duration>) -> io::Result<()> {
        self.0.set_linger(linger)
    }

    fn set_nodelay(&mut self, nodelay: bool) -> io::Result<()> {
        self.0.set_nodelay(nodelay)
    }

    fn set_ip_ttl(&mut self, ttl: u32) -> io::Result<()> {
        self.0.set_ttl(ttl)
    }

    fn peer_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.0.peer_addr().map(Some)
    }
}

impl Read for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read_vectored(cx, bufs)
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

async fn application(mut conn: Conn) -> Conn {
    if conn.path() != "/shout" {
        return conn.ok("hello\n");
    }
    match conn.request_body_string().await {
        Ok(text) => conn.ok(text.to_uppercase()),
        Err(error) => conn.with_status(400).with_body(error.to_string()),
    }
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    task::block_on(async {
        let listener = TcpListener::bind(addr).await?;
        let stop = signal::termination()?;
        println!("listening on {}", listener.local_addr()?);
        let config = Config::<Listener, ()>::new().with_prebound_server(Listener(listener)).with_nodelay();
        let server = config.without_signals().spawn(application);
        stop.await?;
        server.shut_down();
        server.await;
        Ok(())
    })
}
