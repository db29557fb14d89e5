//! [`Connector`]: connections for hyper-util's pooled HTTP client (feature `client`).
//!
//! hyper-util's client pools connections per origin, speaks HTTP/1 and HTTP/2, and is parameterised
//! by a connector, an executor and a timer. All three are netpoll's, so requests can be made under
//! any executor.
//!
//! # States
//! A connection is first *dialled* (look-up, Happy Eyeballs). With `https` the TLS *handshake*
//! follows, in which ALPN selects the HTTP version. Then the connection carries requests. An HTTP/1
//! connection is in the *pool* between two requests, and an HTTP/2 connection from its first
//! request on. The first state is limited by the dialer's settings, the second by the handshake
//! timeout, and the time in the pool by hyper-util's settings. Requests have no time limit.
//!
//! A connection that has been unused for the *idle timeout* is not used again. This time is
//! counted from the end of the last response over HTTP/1, and from the start of the last request
//! over HTTP/2.
//!
//! # Compared with Go (net/http.Transport)
//! The defaults are those of `DefaultTransport`: 30 s to dial, 10 s for the TLS handshake, 90 s
//! unused in the pool.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
#[cfg(feature = "rustls")]
use std::{sync::Arc, time::Instant};

#[cfg(feature = "rustls")]
use futures_rustls::rustls::{ClientConfig, pki_types::ServerName};
#[cfg(feature = "rustls")]
use futures_rustls::{TlsConnector, client::TlsStream};
use http_body::Body;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Builder, Client};
use netpoll::net::{Dialer, TcpStream};
use tower_service::Service;

#[cfg(feature = "rustls")]
use super::io::Io;
use super::rt::{Executor, Timer};
use super::socket::Socket;

/// The default time limit for look-up and connect.
const DIAL: Duration = Duration::from_secs(30);
/// The default time limit for the TLS handshake.
#[cfg(feature = "rustls")]
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The default idle timeout of pooled connections.
const IDLE: Duration = Duration::from_secs(90);

/// A connector for hyper-util's client. It dials with a [`Dialer`], and with the feature `rustls`
/// it makes TLS connections for `https` URLs.
///
/// [`client`](Connector::client) creates a client from the connector.
/// [`builder`](Connector::builder) gives access to the client's settings. The connector implements
/// `tower_service::Service<Uri>`, so other clients that accept such a service can use it as well.
///
/// # Examples
/// ```
/// use http_body_util::BodyExt;
/// use hyper::{Request, Response, body::Incoming, service::service_fn};
/// use netpoll::{net::TcpListener, task};
/// use netpoll_hyper::Connector;
/// use std::convert::Infallible;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let url = format!("http://{}/", listener.local_addr()?).parse::<hyper::Uri>()?;
///     let hello = |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new("hello".to_owned())) };
///     task::spawn(netpoll_hyper::serve(listener, service_fn(hello)));
///
///     let client = Connector::new().client::<String>();
///     // Both requests use one connection, which returns to the pool when the response has been read.
///     for _ in 0..2 {
///         let response = client.get(url.clone()).await?;
///         assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
///     }
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "http.Client")]
#[doc(alias = "http.Transport")]
#[doc(alias = "HttpConnector")]
pub struct Connector {
    dialer: Dialer,
    #[cfg(feature = "rustls")]
    tls: Option<TlsConnector>,
    #[cfg(feature = "rustls")]
    handshake: Duration,
}

impl Connector {
    /// Creates a connector with the settings of [`Dialer::new`] and a time limit of 30 s for
    /// look-up and connect.
    pub fn new() -> Connector {
        Connector {
            dialer: Dialer::new().timeout(DIAL),
            #[cfg(feature = "rustls")]
            tls: None,
            #[cfg(feature = "rustls")]
            handshake: HANDSHAKE,
        }
    }

    /// Sets the dialer, whose settings, such as its time limit, local address, resolver and socket
    /// options, apply to all connections. The default limit of 30 s does not apply to this dialer,
    /// even if it has no time limit of its own.
    pub fn dialer(mut self, dialer: Dialer) -> Connector {
        self.dialer = dialer;
        self
    }

    /// Sets the TLS configuration of connections for `https` URLs. Without a configuration,
    /// requests for such URLs fail.
    ///
    /// If `config` has no ALPN protocols, this method sets `h2` and `http/1.1`.
    #[cfg(feature = "rustls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
    pub fn tls(mut self, config: impl Into<Arc<ClientConfig>>) -> Connector {
        let mut config = config.into();
        if config.alpn_protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        self.tls = Some(TlsConnector::from(config));
        self
    }

    /// Sets the time limit for the TLS handshake. A request whose handshake takes longer fails. The
    /// default is 10 s.
    #[cfg(feature = "rustls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Connector {
        self.handshake = timeout;
        self
    }

    /// Returns a client with hyper-util's default settings and netpoll's executor and timers. A
    /// pooled connection that has been unused for 90 s is not used again. `B` is the type of the
    /// request bodies.
    pub fn client<B>(self) -> Client<Connector, B>
    where
        B: Body + Send,
        B::Data: Send,
    {
        Connector::builder().build(self)
    }

    /// Returns hyper-util's builder with the settings of [`client`](Connector::client), which the
    /// caller can change before `build(connector)` creates a client.
    pub fn builder() -> Builder {
        let mut builder = Client::<(), ()>::builder(Executor);
        builder.timer(Timer).pool_timer(Timer).pool_idle_timeout(IDLE);
        builder
    }

    async fn connect(self, uri: Uri) -> io::Result<ClientStream> {
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(invalid(format!("{uri}: not an http or https URL"))),
        };
        let Some(host) = uri.host() else { return Err(invalid(format!("{uri}: no host"))) };
        let port = port(&uri)?.unwrap_or(if is_tls { 443 } else { 80 });
        #[cfg(not(feature = "rustls"))]
        if is_tls {
            return Err(invalid(format!("{uri}: https needs the feature rustls")));
        }
        #[cfg(feature = "rustls")]
        if is_tls {
            let Some(tls) = &self.tls else { return Err(invalid(format!("{uri}: https needs Connector::tls"))) };
            let name =
                ServerName::try_from(host_name(host).to_owned()).map_err(|error| invalid(format!("{uri}: {error}")))?;
            let stream = self.dialer.dial((host_name(host), port)).await?;
            // rustls reads from and writes to the socket, so the socket's deadline limits the
            // handshake.
            stream.set_deadline(Instant::now().checked_add(self.handshake))?;
            let encrypted = tls.connect(name, stream.clone()).await?;
            stream.set_deadline(None)?;
            return Ok(ClientStream(Transport::Tls(Io::new(Box::new(encrypted)))));
        }
        let stream = self.dialer.dial((host_name(host), port)).await?;
        Ok(ClientStream(Transport::Plain(Socket::new(stream))))
    }
}

/// Returns the host without the brackets of an IPv6 address.
fn host_name(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Returns the port of `uri`, or `None` if it has none or an empty one. `Uri::port_u16` also
/// returns `None` for a number that is not a port, such as 65536.
fn port(uri: &Uri) -> io::Result<Option<u16>> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    let text = host_and_port.strip_prefix(uri.host().unwrap_or_default()).unwrap_or_default();
    match text {
        "" | ":" => Ok(None),
        _ => uri.port_u16().map(Some).ok_or_else(|| invalid(format!("{uri}: invalid port"))),
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Default for Connector {
    fn default() -> Connector {
        Connector::new()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = ClientStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<ClientStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection made by a [`Connector`].
///
/// # Examples
/// ```
/// use hyper::rt::{Read, Write};
///
/// fn is_for_hyper<T: Read + Write + Unpin + Send>() {}
/// is_for_hyper::<netpoll_hyper::ClientStream>();
/// ```
#[derive(Debug)]
pub struct ClientStream(Transport);

#[derive(Debug)]
enum Transport {
    Plain(Socket<TcpStream>),
    #[cfg(feature = "rustls")]
    Tls(Io<Box<TlsStream<TcpStream>>>),
}

/// Calls a method of the underlying stream.
macro_rules! forward {
    ($self:ident.$method:ident($($argument:ident),*)) => {
        match &mut $self.0 {
            Transport::Plain(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(feature = "rustls")]
            Transport::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl Connection for ClientStream {
    fn connected(&self) -> Connected {
        match &self.0 {
            Transport::Plain(_) => Connected::new(),
            #[cfg(feature = "rustls")]
            Transport::Tls(stream) => match stream.get_ref().get_ref().1.alpn_protocol() {
                Some(b"h2") => Connected::new().negotiated_h2(),
                _ => Connected::new(),
            },
        }
    }
}

impl Read for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_read(cx, cursor))
    }
}

impl Write for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Transport::Plain(stream) => stream.is_write_vectored(),
            #[cfg(feature = "rustls")]
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self.poll_write_vectored(cx, bufs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression test: a request for a URL whose port is out of range went to port 80.
    #[test]
    fn invalid_port_is_an_error() {
        let port = |uri: &str| port(&uri.parse().unwrap()).map_err(|error| error.kind());
        for uri in ["http://h/", "http://h:/", "http://[::1]/", "http://[::1]:/", "http://user:1@h/"] {
            assert_eq!(port(uri), Ok(None), "{uri}");
        }
        for uri in ["http://h:65535/", "http://[::1]:65535/", "http://user:1@h:65535/"] {
            assert_eq!(port(uri), Ok(Some(65535)), "{uri}");
        }
        for uri in ["http://h:65536/", "http://[::1]:65536/", "http://user:1@h:65536/", "http://h:x/"] {
            assert_eq!(port(uri), Err(io::ErrorKind::InvalidInput), "{uri}");
        }
        let connecting = Connector::new().connect("http://127.0.0.1:65536/".parse().unwrap());
        let error = netpoll::task::block_on(connecting).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
}
