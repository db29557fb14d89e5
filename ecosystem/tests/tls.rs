//! Tests of TLS by futures-rustls over netpoll's streams: data, certificates, deadlines, closing,
//! the graceful stop of a server, `openssl s_client` as a client, and HTTPS with curl. The tests
//! with openssl and curl are skipped if the program is not installed.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{listener, pair, poll_once, run};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};
use netpoll::net::{self, TcpStream, is_closed, is_timeout};
use netpoll::task;

/// Returns an acceptor with a new certificate for localhost and the ALPN protocols h2 and http/1.1,
/// a connector that trusts the certificate, and the certificate in PEM.
fn certificate() -> (TlsAcceptor, TlsConnector, String) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let mut server =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server).into(), Arc::new(client).into(), key.cert.pem())
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A temporary file with a certificate. Dropping the value removes the file.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("netpoll-{name}-{}.pem", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn tls_stream_transfers_data_in_both_directions() {
    run(async {
        let (acceptor, connector, _) = certificate();
        let (client, server) = pair().await;
        let server = task::spawn(async move {
            let mut tls = acceptor.accept(server).await.unwrap();
            let mut all = vec![0; 300_000];
            tls.read_exact(&mut all).await.unwrap();
            tls.write_all(&all).await.unwrap();
            tls.close().await.unwrap();
            assert_eq!(tls.read(&mut all).await.unwrap(), 0);
        });
        let mut tls = connector.connect(localhost(), client).await.unwrap();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n / 3) as u8).collect();
        tls.write_all(&sent).await.unwrap();
        tls.flush().await.unwrap();
        let mut back = Vec::new();
        tls.read_to_end(&mut back).await.unwrap();
        assert!(back == sent);
        tls.close().await.unwrap();
        server.await;
    });
}

#[test]
fn wrong_certificate_is_rejected() {
    run(async {
        let ((acceptor, ..), (_, connector, _)) = (certificate(), certificate());
        let (client, server) = pair().await;
        let server = task::spawn(async move { acceptor.accept(server).await.map(drop) });
        let error = connector.connect(localhost(), client).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        server.await.unwrap_err();
    });
}

/// A deadline of the socket ends operations that wait for the peer, during the handshake and after
/// it.
#[test]
fn deadlines_apply_through_tls() {
    run(async {
        let (acceptor, connector, _) = certificate();
        let (stuck, server) = pair().await;
        server.set_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        assert!(is_timeout(&acceptor.accept(server).await.unwrap_err()));
        drop(stuck);

        let (client, server) = pair().await;
        let ours = server.clone();
        let server = task::spawn(async move { acceptor.accept(server).await });
        let mut client = connector.connect(localhost(), client).await.unwrap();
        let mut server = server.await.unwrap();
        ours.set_read_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        assert!(is_timeout(&server.read(&mut [0; 1]).await.unwrap_err()));
        // A write to a peer that does not read also ends at the deadline.
        ours.set_write_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        let flood = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = server.write_all(&flood).await {
                break error;
            }
        };
        assert!(is_timeout(&error), "{error}");
        // No received data is lost. Without a deadline, the connection can be read again.
        ours.set_deadline(None).unwrap();
        let mut buf = [0; 5];
        client.write_all(b"hello").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hello");
    });
}

#[test]
fn force_close_applies_through_tls() {
    run(async {
        let (acceptor, connector, _) = certificate();
        // The close ends a handshake in progress.
        let (_stuck, server) = pair().await;
        let ours = server.clone();
        let mut handshake = acceptor.accept(server);
        assert!(poll_once(&mut handshake).await.is_pending());
        let handshake = task::spawn(handshake);
        ours.force_close().await.unwrap();
        assert!(is_closed(&handshake.await.unwrap_err()));
        // The close ends a read that waits in another task.
        let (client, server) = pair().await;
        let ours = server.clone();
        let server = task::spawn(async move { acceptor.accept(server).await });
        let mut client = connector.connect(localhost(), client).await.unwrap();
        let mut server = server.await.unwrap();
        let reader = task::spawn(async move { server.read(&mut [0; 1]).await });
        ours.force_close().await.unwrap();
        assert!(is_closed(&reader.await.unwrap_err()));
        // The peer reaches the end of the stream without a close_notify, which is an error.
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

/// Echoes bytes one at a time over TLS. Waits forever after it has echoed the byte `s`.
async fn echo_bytes(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<Infallible> {
    let mut tls = acceptor.accept(stream).await?;
    let mut byte = [0];
    loop {
        tls.read_exact(&mut byte).await?;
        tls.write_all(&byte).await?;
        tls.flush().await?;
        if byte == *b"s" {
            std::future::pending::<()>().await;
        }
    }
}

#[test]
fn serve_stops_tls_connections_and_names_stragglers() {
    run(async {
        let (acceptor, connector, _) = certificate();
        for (byte, drain, stays) in [(b"i", common::BOUND, false), (b"s", Duration::from_millis(30), true)] {
            let listener = listener().await;
            let addr = listener.local_addr().unwrap();
            let acceptor = acceptor.clone();
            let handler = move |stream: TcpStream| echo_bytes(acceptor.clone(), stream);
            let (stop, stopped) = futures::channel::oneshot::channel::<()>();
            let serving = net::serve(listener, handler).until(stopped).drain(drain);
            let server = task::spawn(serving.when_stopping(|stream| drop(stream.close_read())).into_future());
            let stream = TcpStream::connect(addr).await.unwrap();
            let own = stream.local_addr().unwrap();
            let mut client = connector.connect(localhost(), stream).await.unwrap();
            client.write_all(byte).await.unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, byte);
            drop(stop);
            let report = server.await.unwrap();
            let peers: Vec<_> = report.stragglers.iter().map(|straggler| straggler.peer.clone()).collect();
            assert_eq!((report.accepted, peers), (1, if stays { vec![Some(own.into())] } else { vec![] }), "{report}");
            assert!(!matches!(client.read(&mut [0; 1]).await, Ok(1..)));
        }
    });
}

#[test]
fn openssl_client_gets_its_echo() {
    run(async {
        let (acceptor, _, pem) = certificate();
        let file = File::new("s-client", &pem);
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost", "-CAfile"]);
        command.arg(&file.0).args(["-connect", &addr.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match common::spawn(&mut command) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return eprintln!("skipped: openssl is not installed");
            }
            child => child.unwrap(),
        };
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_deadline(Instant::now() + common::BOUND).unwrap();
        let server = task::spawn(async move {
            let mut tls = acceptor.accept(stream).await?;
            let mut buf = [0; 6];
            tls.read_exact(&mut buf).await?;
            tls.write_all(&buf).await?;
            tls.close().await
        });
        let output = task::spawn_blocking(move || {
            child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
            let mut back = [0; 6];
            let read = child.stdout.as_mut().unwrap().read_exact(&mut back);
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            read.unwrap_or_else(|error| panic!("{error}: {output:?}"));
            back
        });
        assert_eq!(&output.await, b"hello\n");
        server.await.unwrap();
    });
}

#[test]
fn curl_gets_responses_over_https_with_http1_and_http2() {
    use http_body_util::Full;
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response, service::service_fn};
    use netpoll_hyper::{Io, Server, Socket};

    async fn version(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
        Ok(Response::new(format!("{:?} {}", request.version(), "x".repeat(100_000)).into()))
    }
    run(async {
        let (acceptor, _, pem) = certificate();
        let file = File::new("https", &pem);
        let listener = Arc::new(listener().await);
        let addr = listener.local_addr().unwrap();
        let connect = move |stream: Socket<TcpStream>| {
            let handshake = acceptor.accept(stream.into_inner());
            async move { Ok((Io::new(handshake.await?), service_fn(version))) }
        };
        let (server, ours) = (Server::new(), Arc::clone(&listener));
        let server = task::spawn(async move { server.serve_with(ours, connect, std::future::pending::<()>()).await });
        // A client that never completes the handshake delays neither other clients nor the end of
        // the server.
        let _silent = TcpStream::connect(addr).await.unwrap();
        for (option, version) in [("--http1.1", "HTTP/1.1 x"), ("--http2", "HTTP/2.0 x")] {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--max-time", "60", option, "--cacert"]).arg(&file.0);
            curl.args(["--resolve", &format!("localhost:{}:127.0.0.1", addr.port())]);
            curl.arg(format!("https://localhost:{}/", addr.port()));
            let output = match task::spawn_blocking(move || common::output(&mut curl)).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return eprintln!("skipped: curl is not installed");
                }
                output => output.unwrap(),
            };
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.starts_with(version) && text.len() == 9 + 100_000, "{}", &text[..10]);
        }
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}
