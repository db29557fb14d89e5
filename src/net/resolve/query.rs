//! Queries to the host's name service, their answers and errors.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::host_name::is_host_name;
use crate::net::addr::literal;
use crate::net::error::ErrnoText;
use crate::sys::names::{self, Family, NameFailure};

/// A query. Identical concurrent queries share one answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Query {
    /// The addresses of a host.
    Addrs(String, Family),
    /// The name at the end of a host's aliases.
    CanonicalName(String),
    /// The name of an address.
    Name(IpAddr),
    /// The port of a service.
    Port(String, Transport),
}

/// The transport of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    Any,
    Tcp,
    Udp,
}

/// The answer to a [`Query`] of the same kind.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Best first, with port 0.
    Addrs(Arc<[SocketAddr]>),
    Name(String),
    Port(u16),
}

impl Answer {
    pub(crate) fn into_addrs(self) -> Arc<[SocketAddr]> {
        if let Answer::Addrs(addrs) = self { addrs } else { Arc::default() }
    }

    pub(crate) fn into_name(self) -> String {
        if let Answer::Name(name) = self { name } else { String::new() }
    }

    pub(crate) fn into_port(self) -> u16 {
        if let Answer::Port(port) = self { port } else { 0 }
    }
}

/// Accepts a name from a name service only if it is a host name, because zone owners can choose
/// arbitrary bytes.
fn host_name(name: String) -> Result<Answer, NameFailure> {
    if is_host_name(&name) { Ok(Answer::Name(name)) } else { Err(NameFailure::NotFound) }
}

impl Query {
    /// Queries the host's name service. Blocks.
    pub(crate) fn ask(&self) -> Result<Answer, LookupError> {
        let answer = match self {
            Query::Addrs(host, family) => names::addrs(host, *family).map(|addrs| Answer::Addrs(addrs.into())),
            // The canonical name of a literal is the literal itself.
            Query::CanonicalName(host) if literal(host, 0).is_some() => names::canonical_name(host).map(Answer::Name),
            Query::CanonicalName(host) => names::canonical_name(host).and_then(host_name),
            Query::Name(ip) => names::name(*ip).and_then(host_name),
            Query::Port(service, transport) => {
                let socktype = match transport {
                    Transport::Any => 0,
                    Transport::Tcp => libc::SOCK_STREAM,
                    Transport::Udp => libc::SOCK_DGRAM,
                };
                names::port(service, socktype).map(Answer::Port)
            }
        };
        answer.map_err(|failure| self.error(Reason::Failure(failure)))
    }

    fn error(&self, reason: Reason) -> LookupError {
        let name = match self {
            Query::Addrs(host, _) | Query::CanonicalName(host) => host.clone(),
            Query::Name(ip) => ip.to_string(),
            Query::Port(service, transport) => {
                let network = match transport {
                    Transport::Any => "ip",
                    Transport::Tcp => "tcp",
                    Transport::Udp => "udp",
                };
                format!("{network}/{service}")
            }
        };
        match (self, reason) {
            (Query::Port(..), Reason::Failure(NameFailure::NotFound)) => {
                LookupError { name, reason: Reason::UnknownPort }
            }
            (_, reason) => LookupError { name, reason },
        }
    }

    /// Returns the error of a query that another resolver failed to answer.
    #[cfg(feature = "hickory")]
    pub(crate) fn failed(&self, failure: NameFailure) -> LookupError {
        self.error(Reason::Failure(failure))
    }

    /// Returns the error of a query that was dropped before it ran.
    pub(crate) fn shut_down(&self) -> LookupError {
        self.error(Reason::ShutDown)
    }
}

/// A failed name look-up, with the reason. It prints like Go's `net.DNSError`: `lookup
/// example.invalid: no such host`.
///
/// It is contained in an [`io::Error`]; `downcast_ref` extracts it.
///
/// | situation | reason in the text | kind |
/// |---|---|---|
/// | no such name, or none of the family asked for | `no such host` | [`NotFound`](ErrorKind::NotFound) |
/// | no such service | `unknown port` | [`NotFound`](ErrorKind::NotFound) |
/// | a network that [`lookup_port`](crate::net::lookup_port) does not know | `unknown network` | [`InvalidInput`](ErrorKind::InvalidInput) |
/// | no server answered, or it has a problem now | the C library's | [`Other`](ErrorKind::Other), [`is_temporary`](LookupError::is_temporary) |
/// | a system call failed; EMFILE or ENFILE with no descriptor left to ask with | `too many open files`, … | of the errno, [`raw_os_error`](LookupError::raw_os_error) |
/// | the deadline of a dial passed | `i/o timeout` | [`TimedOut`](ErrorKind::TimedOut) |
/// | the runtime was shut down before the query began | `runtime shut down` | [`Other`](ErrorKind::Other) |
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// let error = netpoll::net::lookup_port("tcp", "no-such-service").await.unwrap_err();
/// assert_eq!(error.to_string(), "lookup tcp/no-such-service: unknown port");
/// # });
/// ```
#[derive(Clone, PartialEq, Eq)]
#[doc(alias = "net.DNSError")]
pub struct LookupError {
    name: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Failure(NameFailure),
    UnknownPort,
    UnknownNetwork,
    TimedOut,
    ShutDown,
}

impl LookupError {
    /// Returns the error that the time for `host` is over.
    pub(crate) fn timed_out(host: String) -> LookupError {
        LookupError { name: host, reason: Reason::TimedOut }
    }

    pub(crate) fn unknown_network(network: &str, service: &str) -> LookupError {
        LookupError { name: format!("{network}/{service}"), reason: Reason::UnknownNetwork }
    }

    /// Returns the name that was looked up: a host, an address, or network/service.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the name does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.reason, Reason::Failure(NameFailure::NotFound) | Reason::UnknownPort)
    }

    /// Returns whether a later look-up may succeed: no server answered, a server has a temporary
    /// failure, or no descriptor was available for the query.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.reason,
            Reason::Failure(NameFailure::Temporary(_) | NameFailure::Errno(libc::EMFILE | libc::ENFILE))
                | Reason::TimedOut
        )
    }

    /// Returns whether the caller's time limit was reached.
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason, Reason::TimedOut)
    }

    /// Returns the errno of a failed system call, if there is one: EMFILE if no descriptor was
    /// available for the query.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self.reason {
            Reason::Failure(NameFailure::Errno(errno)) => Some(errno),
            _ => None,
        }
    }

    fn kind(&self) -> ErrorKind {
        match &self.reason {
            Reason::Failure(NameFailure::Errno(errno)) => io::Error::from_raw_os_error(*errno).kind(),
            Reason::UnknownNetwork => ErrorKind::InvalidInput,
            Reason::TimedOut => ErrorKind::TimedOut,
            _ if self.is_not_found() => ErrorKind::NotFound,
            _ => ErrorKind::Other,
        }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lookup {}: ", self.name)?;
        match &self.reason {
            Reason::Failure(NameFailure::NotFound) => f.write_str("no such host"),
            Reason::Failure(NameFailure::Temporary(text) | NameFailure::Other(text)) => f.write_str(text),
            Reason::Failure(NameFailure::Errno(errno)) => ErrnoText(&io::Error::from_raw_os_error(*errno)).fmt(f),
            Reason::UnknownPort => f.write_str("unknown port"),
            Reason::UnknownNetwork => f.write_str("unknown network"),
            Reason::TimedOut => f.write_str("i/o timeout"),
            Reason::ShutDown => f.write_str("runtime shut down"),
        }
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
impl fmt::Debug for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for LookupError {}

impl From<LookupError> for io::Error {
    fn from(error: LookupError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_texts_and_kinds() {
        let host = Query::Addrs("example.invalid".to_owned(), Family::Any);
        let failure = |failure| host.error(Reason::Failure(failure));
        let again = failure(NameFailure::Temporary("try again".to_owned()));
        assert!(again.is_temporary() && !again.is_not_found() && !again.is_timeout());
        assert!(failure(NameFailure::NotFound).is_not_found());
        assert!(LookupError::timed_out("example.invalid".to_owned()).is_timeout());
        let expected = [
            (failure(NameFailure::NotFound), "no such host", ErrorKind::NotFound),
            (again, "try again", ErrorKind::Other),
            (failure(NameFailure::Errno(libc::ETIMEDOUT)), "connection timed out", ErrorKind::TimedOut),
            (LookupError::timed_out("example.invalid".to_owned()), "i/o timeout", ErrorKind::TimedOut),
            (host.shut_down(), "runtime shut down", ErrorKind::Other),
        ];
        for (error, text, kind) in expected {
            assert_eq!(
                (error.to_string(), error.name()),
                (format!("lookup example.invalid: {text}"), "example.invalid")
            );
            assert_eq!(io::Error::from(error).kind(), kind);
        }
        let port = Query::Port("x".to_owned(), Transport::Udp).error(Reason::Failure(NameFailure::NotFound));
        assert_eq!(port.to_string(), "lookup udp/x: unknown port");
        assert!(port.is_not_found());
        let reverse = Query::Name([192, 0, 2, 1].into()).error(Reason::Failure(NameFailure::NotFound));
        assert_eq!(reverse.to_string(), "lookup 192.0.2.1: no such host");
    }
}
