//! An HTTP client that requests URLs and prints the responses.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example http_get -- [--ca CERTIFICATES] URL...
//! cargo run --release -p netpoll-ecosystem --example http_get -- http://127.0.0.1:8080/
//! cargo run --release -p netpoll-ecosystem --example http_get -- \
//!     --ca certificate.pem https://localhost:8443/hello/you
//! ```
//!
//! The example shows hyper-util's client with `netpoll_hyper::Connector`: pooled connections,
//! HTTP/1 or HTTP/2 as negotiated by ALPN, Happy Eyeballs, and a time limit of 30 s per request.
//! The client trusts only the certificates in the PEM file that follows `--ca`. The client also
//! works under any other executor.

use std::error::Error;
use std::time::Duration;

use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::{ClientConfig, RootCertStore};
use http_body_util::{BodyExt, Empty};
use hyper::Uri;
use hyper::body::Bytes;
use netpoll::{future, task};
use netpoll_hyper::Connector;

const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = std::env::args().skip(1).peekable();
    let mut roots = RootCertStore::empty();
    if args.next_if_eq("--ca").is_some() {
        for certificate in CertificateDer::pem_file_iter(args.next().unwrap_or_default())? {
            roots.add(certificate?)?;
        }
    }
    // For public servers, use the root certificates of the crate webpki-roots or
    // rustls-native-certs.
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = Connector::new().tls(tls).client::<Empty<Bytes>>();
    task::block_on(async {
        for url in args {
            let url: Uri = url.parse()?;
            let exchange = async {
                let response = client.get(url.clone()).await?;
                let (status, version) = (response.status(), response.version());
                let page = response.into_body().collect().await?.to_bytes();
                Ok::<_, Box<dyn Error + Send + Sync>>((status, version, page))
            };
            let (status, version, page) = future::timeout(TIMEOUT, exchange).await??;
            println!("{url}: {status}, {version:?}, {} bytes", page.len());
            println!("{}", String::from_utf8_lossy(&page));
        }
        Ok(())
    })
}
