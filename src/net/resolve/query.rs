//! Queries to the host's name service, and their answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::host_name::is_host_name;
use super::lookup_error::{LookupError, Reason};
use crate::net::host_port::literal;
use crate::sys::names::{self, Family, NameFailure};

/// A query to the host's name service. Concurrent look-ups with equal queries share one call; see
/// [`flight`](super::flight).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Query {
    /// The addresses of a host.
    Addrs(String, Family),
    /// The name at the end of a host's chain of aliases.
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

/// The answer to a [`Query`].
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The addresses of a host, best first, with port 0.
    Addrs(Arc<[SocketAddr]>),
    /// The canonical name of a host, or the name of an address.
    Name(String),
    /// The port of a service.
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

/// Returns the answer with a name from a name service, or `NotFound` if the name is not a valid
/// host name, because zone owners can choose arbitrary bytes.
fn host_name(name: String) -> Result<Answer, NameFailure> {
    if is_host_name(&name) { Ok(Answer::Name(name)) } else { Err(NameFailure::NotFound) }
}

impl Query {
    /// Queries the host's name service. The call blocks the thread.
    pub(crate) fn ask(&self) -> Result<Answer, LookupError> {
        let answer = match self {
            Query::Addrs(host, family) => names::addrs(host, *family).map(|addrs| Answer::Addrs(addrs.into())),
            // The canonical name of a literal is the literal itself, which is not a host name.
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

    /// Returns the error of a query that was not started because of `error`.
    pub(super) fn refused(&self, error: &std::io::Error) -> LookupError {
        self.error(Reason::Failure(NameFailure::Other(error.to_string())))
    }

    /// Returns the error of a query that was dropped before it ran, or that panicked.
    pub(crate) fn shut_down(&self) -> LookupError {
        self.error(Reason::ShutDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, ErrorKind};

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
