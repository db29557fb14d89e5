//! An echo server over TLS with futures-rustls.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example tls_echo    # 127.0.0.1:7443
//! cargo run --release -p netpoll-ecosystem --example tls_echo -- 127.0.0.1:8443 /tmp/own.pem
//! openssl s_client -quiet -connect 127.0.0.1:7443 -servername localhost -CAfile certificate.pem
//! ```
//!
//! At startup the server generates a certificate for localhost and writes it to the file in the
//! second argument, by default `certificate.pem`. The example shows that deadlines belong to the
//! socket. The server sets them on its handle of the stream, and rustls has a clone of the stream.
//! The deadlines end a handshake that takes more than 5 seconds, and the connection of a client
//! that is silent for 60 seconds, although rustls has no time limits. After Ctrl-C or SIGTERM,
//! connections have five seconds to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::ServerConfig;
use futures_rustls::rustls::pki_types::PrivateKeyDer;
use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{io, signal, task};

const HANDSHAKE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:7443".to_owned());
    let file = args.next().unwrap_or_else(|| "certificate.pem".to_owned());
    task::block_on(serve(&addr, &file))
}

fn acceptor(file: &str) -> io::Result<TlsAcceptor> {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    std::fs::write(file, key.cert.pem())?;
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![key.cert.der().clone()], private).map_err(io::Error::other)?;
    Ok(Arc::new(config).into())
}

async fn serve(addr: &str, file: &str) -> io::Result<()> {
    let acceptor = acceptor(file)?;
    let listener = TcpListener::bind(addr).await?;
    let stop = signal::termination()?;
    println!("listening on {}", listener.local_addr()?);
    let handler = move |stream: TcpStream| {
        let acceptor = acceptor.clone();
        async move {
            if let Err(error) = echo(&stream, acceptor).await {
                eprintln!("{stream:?}: {error}");
            }
        }
    };
    println!("{}", net::serve(listener, handler).until(stop).drain(DRAIN).await?);
    Ok(())
}

async fn echo(stream: &TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    stream.set_deadline(Instant::now() + HANDSHAKE)?;
    let mut tls = acceptor.accept(stream.clone()).await?;
    let mut buf = [0; 16 * 1024];
    loop {
        stream.set_deadline(Instant::now() + SILENCE)?;
        match tls.read(&mut buf).await? {
            0 => return tls.close().await,
            count => tls.write_all(&buf[..count]).await?,
        }
        tls.flush().await?;
    }
}
