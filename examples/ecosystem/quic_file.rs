//! Sends a file over QUIC with quinn, from a server to a client in the same process.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example quic_file    # 16 MiB of generated data
//! cargo run --release -p netpoll-ecosystem --example quic_file -- README.md /tmp/copy.md
//! ```
//!
//! The first argument is the file, of at most 1 GiB, and the second the path of the copy. Without a
//! second argument, the copy is only compared with the file. The example shows
//! `netpoll_quinn::endpoint`: both sides are quinn endpoints on netpoll's UDP sockets. The
//! endpoints use the kernel's offload for sending and receiving if the kernel supports it. The
//! server's certificate is generated at startup.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use futures_rustls::pki_types::PrivateKeyDer;
use futures_rustls::rustls::RootCertStore;
use netpoll::net::UdpSocket;
use netpoll::task;
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The maximum size of the file, in bytes.
const FILE_MAX: usize = 1 << 30;

/// Returns the configurations of a server and of a client that trusts the server's certificate.
fn configure() -> Result<(ServerConfig, ClientConfig)> {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der())?;
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.der().clone())?;
    let server = ServerConfig::with_single_cert(vec![key.cert.der().clone()], private)?;
    Ok((server, ClientConfig::with_root_certificates(Arc::new(roots))?))
}

async fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(netpoll_quinn::endpoint(EndpointConfig::default(), server, Arc::new(socket))?)
}

async fn send(server: Endpoint, file: Vec<u8>) -> Result<()> {
    let connection = server.accept().await.ok_or("the endpoint is closed")?.await?;
    let mut stream = connection.open_uni().await?;
    stream.write_all(&file).await?;
    stream.finish()?;
    connection.closed().await;
    let sent = connection.stats().udp_tx;
    println!("{} datagrams in {} calls", sent.datagrams, sent.ios);
    Ok(())
}

async fn receive(client: Endpoint, server: &Endpoint) -> Result<Vec<u8>> {
    let connection = client.connect(server.local_addr()?, "localhost")?.await?;
    let file = connection.accept_uni().await?.read_to_end(FILE_MAX).await?;
    connection.close(0_u8.into(), b"done");
    client.wait_idle().await;
    Ok(file)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let file = match args.next() {
        Some(name) => std::fs::read(name)?,
        None => (0..16_u32 << 20).map(|at| (at % 251) as u8).collect(),
    };
    let copy = task::block_on(async {
        let (server_config, client_config) = configure()?;
        let server = endpoint(Some(server_config)).await?;
        let mut client = endpoint(None).await?;
        client.set_default_client_config(client_config);
        let begin = Instant::now();
        let sender = task::spawn(send(server.clone(), file.clone()));
        let copy = receive(client, &server).await?;
        println!("{} bytes in {:.0?}", copy.len(), begin.elapsed());
        sender.await?;
        Result::Ok(copy)
    })?;
    if copy != file {
        return Err("the copy differs".into());
    }
    if let Some(name) = args.next() {
        std::fs::write(name, copy)?;
    }
    Ok(())
}
