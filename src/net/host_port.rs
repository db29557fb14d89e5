//! Parsing of hosts and ports: IP addresses, `host:port` strings, and the errors of malformed
//! strings.
//!
//! A malformed string is rejected here, with Go's error texts, before a name is looked up.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV6};

use crate::sys::names;

/// The error of an address that is missing, malformed or not suitable.
///
/// It prints like Go's `net.AddrError`: `address 127.0.0.1: missing port in address`. Functions
/// return it inside an [`io::Error`] of kind [`InvalidInput`](ErrorKind::InvalidInput).
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::ToSocketAddrs;
///
/// let error = "127.0.0.1".to_socket_addrs().await.unwrap_err();
/// assert_eq!(error.to_string(), "address 127.0.0.1: missing port in address");
/// let error = "localhost:99999".to_socket_addrs().await.unwrap_err();
/// assert_eq!(error.to_string(), "address 99999: invalid port");
/// # });
/// ```
#[doc(alias = "net.AddrError")]
#[derive(Clone, PartialEq, Eq)]
pub struct AddrError {
    addr: String,
    why: &'static str,
}

impl AddrError {
    /// Returns the address or port that the error names, or an empty string if the address is
    /// missing.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Returns the reason, such as `missing port in address`.
    pub fn reason(&self) -> &str {
        self.why
    }

    /// Creates the error for an empty address.
    #[cold]
    pub(crate) fn missing() -> io::Error {
        AddrError::new("", "missing address").into()
    }

    #[cold]
    pub(crate) fn new(addr: &str, why: &'static str) -> AddrError {
        AddrError { addr: addr.to_owned(), why }
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.addr.is_empty() { f.write_str(self.why) } else { write!(f, "address {}: {}", self.addr, self.why) }
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
impl fmt::Debug for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for AddrError {}

impl From<AddrError> for io::Error {
    fn from(error: AddrError) -> io::Error {
        io::Error::new(ErrorKind::InvalidInput, error)
    }
}

/// The error of a name that could not be resolved. Its text is the same as in async-std.
pub(super) struct ResolveError {
    /// The address in the form that the error prints.
    pub(super) quoted: String,
    pub(super) error: io::Error,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not resolve address `{}`", self.quoted)
    }
}

/// Prints the text of the error and its reason, because `main` prints a returned error with
/// `Debug`.
impl fmt::Debug for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}: {}", self.error)
    }
}

impl Error for ResolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl From<ResolveError> for io::Error {
    fn from(error: ResolveError) -> io::Error {
        io::Error::new(error.error.kind(), error)
    }
}

/// Extracts the error of the look-up from a [`ResolveError`], for callers whose own error names the
/// address. Returns other errors unchanged.
#[cold]
pub(super) fn reason(error: io::Error) -> io::Error {
    error.downcast::<ResolveError>().map_or_else(|error| error, |resolve| resolve.error)
}

/// Parses `host` as an IP address, or as an IPv6 address with a zone (RFC 4007, section 11). The
/// zone is the name or the number of an interface. Returns `None` for anything else, and for the
/// name of an interface that this host does not have.
pub fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = host.parse() {
        return Some(SocketAddr::new(ip, port));
    }
    let (ip, zone) = host.split_once('%')?;
    let ip = ip.parse().ok()?;
    let is_number = !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_digit());
    let scope = if is_number { zone.parse().ok()? } else { names::interface(zone)? };
    Some(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// Returns whether `host` is a name rather than an address.
pub(super) fn is_name(host: &str) -> bool {
    matches!(Parsed::host(host, 0), Ok(Parsed::Name(..)))
}

/// A parsed host and port.
pub(super) enum Parsed<'a> {
    Literal(SocketAddr),
    Name(&'a str, u16),
    /// A port without a host, which means every address of this machine.
    Everywhere(u16),
    /// A host, which may be empty, and the name of a service.
    Service(&'a str, &'a str),
}

impl<'a> Parsed<'a> {
    pub(super) fn parts(host: &'a str, port: u16) -> Result<Parsed<'a>, AddrError> {
        match literal(host, port) {
            Some(addr) => Ok(Parsed::Literal(addr)),
            None if host.is_empty() => Err(AddrError::new(host, "missing address")),
            None => Ok(Parsed::Name(host, port)),
        }
    }

    pub(super) fn text(text: &'a str) -> Result<Parsed<'a>, AddrError> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Parsed::Literal(addr));
        }
        let (host, port) = split_host_port(text)?;
        // A sign may precede the digits of a number, as in Go.
        let digits = port.strip_prefix(['+', '-']).unwrap_or(port);
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Parsed::host(host, port.parse().map_err(|_| AddrError::new(port, "invalid port"))?);
        }
        Ok(Parsed::Service(host, port))
    }

    /// Parses the host of a `host:port` string. The host may be empty.
    pub(super) fn host(host: &'a str, port: u16) -> Result<Parsed<'a>, AddrError> {
        if host.is_empty() { Ok(Parsed::Everywhere(port)) } else { Parsed::parts(host, port) }
    }

    pub(super) fn name(self) -> Option<(&'a str, u16)> {
        match self {
            Parsed::Name(host, port) => Some((host, port)),
            Parsed::Literal(_) | Parsed::Everywhere(_) | Parsed::Service(..) => None,
        }
    }

    pub(super) fn service(self) -> Option<(&'a str, &'a str)> {
        if let Parsed::Service(host, service) = self { Some((host, service)) } else { None }
    }
}

/// Splits `host:port` at the last colon, like Go's `SplitHostPort`. An IPv6 host is in brackets.
/// Unlike in Go, an empty port is an error, and the error of an empty text is `missing address`, as
/// in Go's `Dial`.
fn split_host_port(text: &str) -> Result<(&str, &str), AddrError> {
    const MISSING_PORT: &str = "missing port in address";
    const TOO_MANY_COLONS: &str = "too many colons in address";
    let wrong = |why| Err(AddrError::new(text, why));
    if text.is_empty() {
        return wrong("missing address");
    }
    let Some((before, port)) = text.rsplit_once(':') else { return wrong(MISSING_PORT) };
    let (host, rest) = match text.strip_prefix('[') {
        Some(inside) => {
            let Some((host, after)) = inside.split_once(']') else { return wrong("missing ']' in address") };
            if after.is_empty() {
                return wrong(MISSING_PORT);
            }
            if before.len() != host.len() + 2 {
                return wrong(if after.starts_with(':') { TOO_MANY_COLONS } else { MISSING_PORT });
            }
            (host, port)
        }
        None if before.contains(':') => return wrong(TOO_MANY_COLONS),
        None => (before, text),
    };
    if host.contains('[') || rest.contains('[') {
        return wrong("unexpected '[' in address");
    }
    if host.contains(']') || rest.contains(']') {
        return wrong("unexpected ']' in address");
    }
    if port.is_empty() {
        return wrong(MISSING_PORT);
    }
    Ok((host, port))
}
