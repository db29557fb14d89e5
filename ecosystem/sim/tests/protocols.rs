//! Tests of protocols in simulations: a hyper server and client, an axum application, TLS by
//! futures-rustls, and QUIC by quinn. Most of the simulated networks lose packets. With
//! `NETPOLL_SIM=twice`, each seed runs twice, and both runs must be identical. `NETPOLL_SEED` and
//! `NETPOLL_SEEDS` select the seeds.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use futures_rustls::rustls::{self, RootCertStore};
use futures_rustls::{TlsAcceptor, TlsConnector};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::sim::{Sim, mbit, ms};
use netpoll::task;
use netpoll_hyper::{Executor, Socket};
use quinn::EndpointConfig;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A certificate for the host `server`, and its key.
#[derive(Clone)]
struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// Generates a key and a certificate. If they were in a static, only the first run would
    /// generate them, and two runs with one seed would differ.
    fn new() -> Identity {
        let key = rcgen::generate_simple_self_signed(["server".to_owned()]).unwrap();
        Identity { certificate: key.cert.der().clone(), key: key.signing_key.serialize_der() }
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }
}

/// Makes all links slow and unreliable.
fn impair_links(sim: Sim) {
    sim.link("*", "*").latency(ms(2)..ms(30)).loss(0.03).reorder(0.05, ms(10)).bandwidth(mbit(20));
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::from([path.as_bytes(), &body].concat())))
}

/// Sends a request to `server:80` on a new connection.
async fn ask(path: &str, body: Vec<u8>, is_http2: bool) -> Result<(StatusCode, Bytes), Failure> {
    let stream = TcpStream::connect("server:80").await?;
    let request: Request<Full<Bytes>> =
        Request::post(format!("http://server{path}")).header("host", "server").body(Full::from(body))?;
    let response = if is_http2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(Executor, Socket::new(stream)).await?;
        task::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(Socket::new(stream)).await?;
        task::spawn(connection);
        sender.send_request(request).await?
    };
    Ok((response.status(), response.into_body().collect().await?.to_bytes()))
}

#[netpoll::test(sim, seeds = 5)]
async fn hyper_server_and_client_work_over_a_bad_network(sim: Sim) {
    impair_links(sim);
    sim.host("server").spawn(|| async {
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        netpoll_hyper::serve(listener, service_fn(answer)).await
    });
    let clients: Vec<_> = (0..4)
        .map(|number| {
            sim.host(&format!("client{number}")).spawn_task(async move {
                for round in 0..3 {
                    let body = vec![number; 30_000 * round];
                    let (status, answer) = ask("/echo", body.clone(), number % 2 == 0).await.unwrap();
                    assert_eq!(status, StatusCode::OK);
                    assert!(answer == [b"/echo", &body[..]].concat());
                }
            })
        })
        .collect();
    for client in clients {
        client.await;
    }
}

/// The server is cut off. A timeout around the request ends it at the exact virtual time.
#[netpoll::test(sim, seeds = 5)]
async fn hyper_client_times_out_during_a_partition(sim: Sim) {
    let server = sim.host("server");
    server.spawn(|| async {
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        netpoll_hyper::serve(listener, service_fn(answer)).await
    });
    let client = sim.host("client");
    client.run(ask("/", Vec::new(), false)).await.unwrap();
    sim.partition("client", "server");
    let begin = Instant::now();
    let patience = Duration::from_secs(20);
    assert!(netpoll::future::timeout(patience, client.run(ask("/", Vec::new(), false))).await.is_err());
    assert_eq!(begin.elapsed(), patience);
    sim.heal("client", "server");
    client.run(ask("/", Vec::new(), false)).await.unwrap();
}

async fn hello(Path(name): Path<String>) -> String {
    task::sleep(Duration::from_secs(60)).await;
    format!("Hello, {name}!")
}

#[netpoll::test(sim, seeds = 5)]
async fn axum_application_answers_after_a_virtual_minute(sim: Sim) {
    impair_links(sim);
    sim.host("server").spawn(|| async {
        let app = Router::new().route("/hello/{name}", get(hello).post(hello));
        let listener = TcpListener::bind("0.0.0.0:80").await?;
        netpoll_hyper::serve_tower(listener, app).await
    });
    let begin = Instant::now();
    let client = sim.host("client");
    let (status, body) = client.run(ask("/hello/sim", Vec::new(), false)).await.unwrap();
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"Hello, sim!"[..]));
    assert!(begin.elapsed() >= Duration::from_secs(60));
    assert_eq!(client.run(ask("/nothing", Vec::new(), true)).await.unwrap().0, StatusCode::NOT_FOUND);
}

/// Reads the bytes of each client until the end of the stream, and sends them back in reverse
/// order.
async fn serve_tls(acceptor: TlsAcceptor) -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:443").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        task::spawn(async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await?;
            text.reverse();
            stream.write_all(&text).await?;
            stream.close().await
        });
    }
}

#[netpoll::test(sim, seeds = 5)]
async fn tls_carries_bytes_over_a_bad_network(sim: Sim) {
    impair_links(sim);
    let identity = Identity::new();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(identity.chain(), identity.key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    sim.host("server").spawn(move || serve_tls(acceptor.clone()));
    let exchanged = sim.host("client").run(async {
        let config = rustls::ClientConfig::builder().with_root_certificates(identity.roots()).with_no_client_auth();
        let stream = TcpStream::connect("server:443").await?;
        let name = ServerName::try_from("server").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let text: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        stream.write_all(&text).await?;
        stream.close().await?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await?;
        back.reverse();
        io::Result::Ok(back == text)
    });
    assert!(exchanged.await.unwrap());
}

#[netpoll::test(sim, seeds = 5)]
async fn quic_delivers_a_file_although_datagrams_are_lost(sim: Sim) {
    sim.link("*", "*").latency(ms(2)..ms(30)).loss(0.05).reorder(0.05, ms(10));
    let file: Vec<u8> = (0..200_000_u32).map(|at| (at % 253) as u8).collect();
    let expected = file.clone();
    let identity = Identity::new();
    let roots = identity.roots();
    sim.host("server").spawn(move || {
        let (file, identity) = (file.clone(), identity.clone());
        async move {
            let config = quinn::ServerConfig::with_single_cert(identity.chain(), identity.key())?;
            let socket = Arc::new(UdpSocket::bind("0.0.0.0:443").await?);
            let endpoint = netpoll_quinn::endpoint(EndpointConfig::default(), Some(config), socket)?;
            while let Some(incoming) = endpoint.accept().await {
                let connection = incoming.await?;
                let mut stream = connection.open_uni().await?;
                stream.write_all(&file).await?;
                stream.finish()?;
                connection.closed().await;
            }
            Result::<(), Failure>::Ok(())
        }
    });
    let server = sim.host("server").addrs()[0];
    let received = sim.host("client").run(async {
        let socket = Arc::new(UdpSocket::bind("0.0.0.0:0").await?);
        let mut endpoint = netpoll_quinn::endpoint(EndpointConfig::default(), None, socket)?;
        endpoint.set_default_client_config(quinn::ClientConfig::with_root_certificates(Arc::new(roots))?);
        let connection = endpoint.connect((server, 443).into(), "server")?.await?;
        let received = connection.accept_uni().await?.read_to_end(1 << 20).await?;
        connection.close(0_u8.into(), b"done");
        endpoint.wait_idle().await;
        Result::<_, Failure>::Ok(received)
    });
    assert!(received.await.unwrap() == expected);
    assert!(sim.counters().packets_lost > 0);
}
