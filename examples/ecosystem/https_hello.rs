//! An HTTPS server: an axum application over TLS with futures-rustls.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example https_hello    # 127.0.0.1:8443
//! cargo run --release -p netpoll-ecosystem --example https_hello -- 127.0.0.1:9443 /tmp/own.pem
//! curl --cacert certificate.pem https://localhost:8443/hello/you
//! cargo run --release -p netpoll-ecosystem --example http_get -- \
//!     --ca certificate.pem https://localhost:8443/hello/you
//! ```
//!
//! At startup the server generates a certificate for localhost and writes it to the file in the
//! second argument, by default `certificate.pem`. The example shows `Server::serve_with`. Its
//! closure makes the TLS handshake in the task of the connection, and returns the stream and the
//! service. The handshake is subject to `header_read_timeout`, and its errors go to `on_error`.
//! With `alpn_protocols`, the server offers HTTP/2, which browsers otherwise do not use. The server
//! stops on Ctrl-C or SIGTERM.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::pki_types::PrivateKeyDer;
use netpoll::net::{TcpListener, TcpStream};
use netpoll::{io, signal, task};
use netpoll_hyper::{Io, Server, Socket, Tower};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let file = args.next().unwrap_or_else(|| "certificate.pem".to_owned());
    task::block_on(serve(&addr, &file))
}

fn acceptor(file: &str) -> io::Result<TlsAcceptor> {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    std::fs::write(file, key.cert.pem())?;
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![key.cert.der().clone()], private).map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

async fn hello(Path(name): Path<String>) -> String {
    format!("Hello, {name}!\n")
}

async fn serve(addr: &str, file: &str) -> io::Result<()> {
    let app = Router::new().route("/hello/{name}", get(hello));
    let acceptor = acceptor(file)?;
    let connect = move |stream: Socket<TcpStream>| {
        let (acceptor, app) = (acceptor.clone(), app.clone());
        async move {
            let tls = acceptor.accept(stream.into_inner()).await?;
            Ok((Io::new(tls), Tower::new(app)))
        }
    };
    let listener = TcpListener::bind(addr).await?;
    let stop = signal::termination()?;
    println!("listening on {}", listener.local_addr()?);
    let mut server = Server::new();
    server.max_connections(10_000).header_read_timeout(Duration::from_secs(10));
    server.on_error(|error| eprintln!("{error:?}"));
    server.serve_with(listener, connect, stop).await
}
