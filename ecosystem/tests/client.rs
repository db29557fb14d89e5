//! Tests of hyper-util's HTTP client with `netpoll_hyper::Connector`: HTTP/1 and HTTP/2, the
//! connector's dialer, TLS, other executors and errors.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../hyper/tests/serving/mod.rs"]
mod serving;

use std::future::Future;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{becomes, run};
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::pki_types::PrivateKeyDer;
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, Version};
use netpoll::net::{Dialer, Family, LookupError, Resolve, TcpStream};
use netpoll::task;
use netpoll_hyper::{Connector, Io, Server, Socket};
use serving::{Seen, answer, start};

fn url(authority: impl std::fmt::Display, path: &str) -> Uri {
    format!("http://{authority}{path}").parse().unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Returns the text of an error and of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[test]
fn client_reuses_connections_over_http1() {
    run(async {
        let server = start(&mut Server::new()).await;
        let client = Connector::new().client::<Full<Bytes>>();
        // A connection returns to the pool some time after the end of the response. A request that
        // is sent before that opens another connection.
        let mut reused = 0;
        while reused < 5 {
            let opened = server.seen.connections.load(Ordering::SeqCst);
            let response = client.get(url(server.addr, "/hello")).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_11));
            assert_eq!(text(response).await, "hello");
            reused += u32::from(server.seen.connections.load(Ordering::SeqCst) == opened);
        }
        let request = Request::post(url(server.addr, "/echo")).body(Full::from("data")).unwrap();
        assert_eq!(text(client.request(request).await.unwrap()).await, "data");
        drop(client);
        server.stop().await.unwrap();
    });
}

#[test]
fn client_multiplexes_over_http2() {
    run(async {
        let server = start(&mut Server::new()).await;
        let client = Connector::builder().http2_only(true).build::<_, Full<Bytes>>(Connector::new());
        // This request opens the connection that the others share.
        assert_eq!(text(client.get(url(server.addr, "/version")).await.unwrap()).await, "HTTP/2.0");
        let waiting: Vec<_> = (0..10).map(|_| task::spawn(client.get(url(server.addr, "/wait")))).collect();
        becomes("all requests are in progress", || server.seen.waiting.load(Ordering::SeqCst) == 10).await;
        server.seen.released.store(10, Ordering::SeqCst);
        for response in waiting {
            assert_eq!(text(response.await.unwrap()).await, "waited");
        }
        assert_eq!(server.seen.connections.load(Ordering::SeqCst), 1);
        drop(client);
        server.stop().await.unwrap();
    });
}

/// A resolver that returns the IPv6 address of localhost, on which the server does not listen, and
/// the IPv4 address of the server.
#[derive(Debug)]
struct DeadFirst(SocketAddr);

impl Resolve for DeadFirst {
    fn addrs(
        &self,
        host: &str,
        family: Family,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>> {
        assert_eq!(host, "web.internal");
        let addrs = match family {
            Family::V6 => vec![(Ipv6Addr::LOCALHOST, 0).into()],
            Family::V4 => vec![self.0],
            _ => vec![(Ipv6Addr::LOCALHOST, 0).into(), self.0],
        };
        Box::pin(async move { Ok(addrs) })
    }
}

#[test]
fn client_uses_dialer_of_connector() {
    run(async {
        let server = start(&mut Server::new()).await;
        let dialer = Dialer::new().resolver(DeadFirst(server.addr)).timeout(common::BOUND);
        let client = Connector::new().dialer(dialer).client::<Empty<Bytes>>();
        let response = client.get(url(format!("web.internal:{}", server.addr.port()), "/hello")).await.unwrap();
        assert_eq!(text(response).await, "hello");
        drop(client);
        server.stop().await.unwrap();
    });
}

#[test]
fn client_runs_under_any_executor() {
    let server = run(async { start(&mut Server::new()).await });
    let addr = server.addr;
    let ask = move || async move {
        let client = Connector::new().client::<Empty<Bytes>>();
        text(client.get(url(addr, "/hello")).await.unwrap()).await
    };
    assert_eq!(futures::executor::block_on(ask()), "hello");
    assert_eq!(smol::block_on(ask()), "hello");
    // This runtime of tokio has neither I/O nor timers.
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(tokio.block_on(ask()), "hello");
    run(server.stop()).unwrap();
}

/// Returns the TLS configurations of a server and of a client. The server has a new certificate for
/// localhost and the ALPN protocols h2 and http/1.1. The client trusts the certificate and has no
/// ALPN protocols.
fn tls_configs() -> (Arc<ServerConfig>, ClientConfig) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let mut server = config.with_single_cert(vec![key.cert.der().clone()], private).unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(server), ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn client_and_server_choose_http_version_by_alpn() {
    run(async {
        let (config, trusting) = tls_configs();
        let acceptor = TlsAcceptor::from(config);
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let connect = |stream: Socket<TcpStream>| {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            async move {
                let tls = acceptor.accept(stream.into_inner()).await?;
                Ok((Io::new(tls), service_fn(move |request| answer(Arc::clone(&seen), request))))
            }
        };
        let (failed, failures) = std::sync::mpsc::channel();
        let requests = async move {
            let url: Uri = format!("https://localhost:{}/version", addr.port()).parse().unwrap();
            let mut http1 = trusting.clone();
            http1.alpn_protocols = vec![b"http/1.1".to_vec()];
            for (config, version) in [(trusting, "HTTP/2.0"), (http1, "HTTP/1.1")] {
                let client = Connector::new().tls(config).client::<Empty<Bytes>>();
                assert_eq!(text(client.get(url.clone()).await.unwrap()).await, version);
            }
            // A client that does not trust the certificate gets an error.
            let suspicious =
                ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            let client = Connector::new().tls(suspicious).client::<Empty<Bytes>>();
            let error = client.get(url).await.unwrap_err();
            assert!(error.is_connect() && chain(&error).contains("invalid peer certificate"), "{}", chain(&error));
            becomes("the server reports the failed handshake", || failures.try_recv().is_ok()).await;
        };
        let mut server = Server::new();
        server.on_error(move |error| {
            if error.is::<io::Error>() {
                let _ = failed.send(());
            }
        });
        server.serve_with(listener, connect, requests).await.unwrap();
    });
}

#[test]
fn tls_handshake_has_a_time_limit() {
    run(async {
        // The kernel completes the connection, but no server responds to the TLS handshake.
        let listener = common::listener().await;
        let url: Uri = format!("https://localhost:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
        let connector = Connector::new().tls(tls_configs().1).handshake_timeout(Duration::from_millis(20));
        let error = connector.client::<Empty<Bytes>>().get(url).await.unwrap_err();
        assert!(error.is_connect() && chain(&error).contains("timeout"), "{}", chain(&error));
    });
}

#[test]
fn client_reports_unsupported_urls_and_refused_connections() {
    run(async {
        let client = Connector::new().client::<Empty<Bytes>>();
        let error = client.get("https://localhost/".parse().unwrap()).await.unwrap_err();
        assert!(chain(&error).contains("https needs Connector::tls"), "{}", chain(&error));
        let error = client.get("ftp://localhost/".parse().unwrap()).await.unwrap_err();
        assert!(chain(&error).contains("not an http or https URL"), "{}", chain(&error));
        let listener = common::listener().await;
        let refused = listener.local_addr().unwrap();
        listener.close().await.unwrap();
        let error = client.get(url(refused, "/")).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(&format!("dial tcp {refused}: ")) && text.contains("connection refused"), "{text}");
    });
}
