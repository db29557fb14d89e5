//! A gRPC server and client with tonic on hyper's HTTP/2, without tonic's feature `transport`,
//! tokio's runtime or generated code.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example grpc_hello                       # both sides
//! cargo run --release -p netpoll-ecosystem --example grpc_hello -- 127.0.0.1:50051    # the server
//! ```
//!
//! The example shows how to replace tonic's transport. The server uses `service_fn` and
//! `netpoll_hyper::Server`, and the client a tower service around hyper's `SendRequest`. The
//! example has a codec for its message type. The codec of prost can be used in the same way. Ctrl-C
//! or SIGTERM stops the server.
//!
//! ```proto
//! message Text { string text = 1; }
//! service Greeter { rpc SayHello (Text) returns (Text); }
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::http;
use hyper::service::service_fn;
use netpoll::net::{TcpListener, TcpStream};
use netpoll::{signal, task};
use netpoll_hyper::{Executor, Server, Socket};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status};
use tower_service::Service;

const SAY_HELLO: &str = "/hello.Greeter/SayHello";

type Later<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// The codec of the message `Text`, which has one field: number 1, of type string.
#[derive(Clone, Copy, Debug)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Text;
    type Decoder = Text;
    fn encoder(&mut self) -> Text {
        Text
    }
    fn decoder(&mut self) -> Text {
        Text
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;
    fn encode(&mut self, text: String, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put_u8(1 << 3 | 2);
        let mut length = text.len();
        while length >= 0x80 {
            buf.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        buf.put_u8(length as u8);
        buf.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;
    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let mut bytes = buf.copy_to_bytes(buf.remaining());
        if bytes.is_empty() {
            return Ok(Some(String::new()));
        }
        let malformed = || Status::invalid_argument("not a message of one string");
        let tag = bytes.get_u8();
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = bytes.try_get_u8().map_err(|_| malformed())?;
            length |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            match byte {
                0..0x80 => break,
                _ if shift > 28 => return Err(malformed()),
                _ => {}
            }
        }
        if tag != (1 << 3 | 2) || bytes.len() as u64 != length {
            return Err(malformed());
        }
        String::from_utf8(bytes.into()).map(Some).map_err(|_| malformed())
    }
}

/// The method `SayHello` as a tower service, like the one in generated code.
struct SayHello;

impl Service<Request<String>> for SayHello {
    type Response = Response<String>;
    type Error = Status;
    type Future = Later<Response<String>, Status>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<String>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(format!("Hello, {}!", request.into_inner()))) })
    }
}

async fn route(request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        SAY_HELLO => tonic::server::Grpc::new(Text).unary(SayHello, request).await,
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// An HTTP/2 connection as a tower service, on which tonic's client sends its requests.
struct Channel(SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Later<Self::Response, hyper::Error>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn ask(addr: std::net::SocketAddr) -> Result<String, Box<dyn Error + Send + Sync>> {
    let (sender, connection) = handshake(Executor, Socket::new(TcpStream::connect(addr).await?)).await?;
    drop(task::spawn(connection));
    let origin = http::Uri::try_from(format!("http://{addr}"))?;
    let mut client = tonic::client::Grpc::with_origin(Channel(sender), origin);
    client.ready().await?;
    let path = http::uri::PathAndQuery::from_static(SAY_HELLO);
    Ok(client.unary(Request::new("gRPC".to_owned()), path, Text).await?.into_inner())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    task::block_on(async {
        let addr = std::env::args().nth(1);
        let listener = TcpListener::bind(addr.as_deref().unwrap_or("127.0.0.1:0")).await?;
        let bound = listener.local_addr()?;
        let stop = signal::termination()?;
        println!("listening on {bound}");
        let serve = async move { Server::new().serve_until(listener, service_fn(route), stop).await };
        let server = task::spawn(serve);
        if addr.is_none() {
            println!("{}", ask(bound).await?);
            return Ok(());
        }
        Ok(server.await?)
    })
}
