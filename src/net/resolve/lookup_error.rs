//! [`LookupError`]: the error of a failed name look-up.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

use crate::net::errno_text::ErrnoText;
use crate::sys::names::NameFailure;

/// A failed name look-up, with the reason. It prints like Go's `net.DNSError`:
/// `lookup example.invalid: no such host`.
///
/// The look-up functions return it inside an [`io::Error`]; `downcast_ref` gives access to it.
///
/// | situation | reason in the text | kind |
/// |---|---|---|
/// | no such name, no address of the requested family, or the name found is not a valid host name | `no such host` | [`NotFound`](ErrorKind::NotFound) |
/// | no such service | `unknown port` | [`NotFound`](ErrorKind::NotFound) |
/// | a network that [`lookup_port`](crate::net::lookup_port) does not know | `unknown network` | [`InvalidInput`](ErrorKind::InvalidInput) |
/// | no server answered, or a server has a temporary failure or refused the query | that of the C library or of the [`Resolve`](crate::net::Resolve) | [`Other`](ErrorKind::Other), [`is_temporary`](LookupError::is_temporary) |
/// | the name service failed in another way, such as EAI_FAIL | that of the C library | [`Other`](ErrorKind::Other) |
/// | a system call failed, or memory or descriptors are exhausted (ENOMEM, EMFILE, ENFILE) | `too many open files`, … | that of the errno, [`raw_os_error`](LookupError::raw_os_error); [`is_temporary`](LookupError::is_temporary) for EMFILE and ENFILE |
/// | the look-up did not finish in time, for example before the deadline of a dial | `i/o timeout` | [`TimedOut`](ErrorKind::TimedOut), [`is_timeout`](LookupError::is_timeout), [`is_temporary`](LookupError::is_temporary) |
/// | the runtime was shut down before the query ran, or the query panicked | `runtime shut down` | [`Other`](ErrorKind::Other) |
/// | this process is a child of fork(2) that did not call exec(2) | `netpoll cannot be used in a forked child process`, … | [`Other`](ErrorKind::Other) |
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
    pub(super) name: String,
    pub(super) reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Failure(NameFailure),
    UnknownPort,
    UnknownNetwork,
    TimedOut,
    ShutDown,
}

impl LookupError {
    /// Creates the error that a [`Resolve`](crate::net::Resolve) returns for a name that does not
    /// exist or has no address of the family.
    pub fn not_found(name: impl Into<String>) -> LookupError {
        LookupError { name: name.into(), reason: Reason::Failure(NameFailure::NotFound) }
    }

    /// Creates the error of a look-up of `name` that did not finish in time.
    pub fn timed_out(name: impl Into<String>) -> LookupError {
        LookupError { name: name.into(), reason: Reason::TimedOut }
    }

    /// Creates the error that a [`Resolve`](crate::net::Resolve) returns for a temporary failure,
    /// such as that of a server. The text of the error ends with `reason`. A later look-up may
    /// succeed.
    pub fn temporary(name: impl Into<String>, reason: impl Into<String>) -> LookupError {
        LookupError { name: name.into(), reason: Reason::Failure(NameFailure::Temporary(reason.into())) }
    }

    /// Creates the error that a [`Resolve`](crate::net::Resolve) returns for a system call that
    /// failed with `errno`.
    pub fn os(name: impl Into<String>, errno: i32) -> LookupError {
        LookupError { name: name.into(), reason: Reason::Failure(NameFailure::Errno(errno)) }
    }

    pub(crate) fn unknown_network(network: &str, service: &str) -> LookupError {
        LookupError { name: format!("{network}/{service}"), reason: Reason::UnknownNetwork }
    }

    /// Returns the name that was looked up: a host, an address, or network/service.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the name or service does not exist, the name has no address of the requested
    /// family, or the name that was found is not a valid host name.
    pub fn is_not_found(&self) -> bool {
        matches!(self.reason, Reason::Failure(NameFailure::NotFound) | Reason::UnknownPort)
    }

    /// Returns whether a later look-up may succeed: no server answered, the look-up did not finish
    /// in time, a server has a temporary failure or refused the query, or no descriptor was
    /// available for the query.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.reason,
            Reason::Failure(NameFailure::Temporary(_) | NameFailure::Errno(libc::EMFILE | libc::ENFILE))
                | Reason::TimedOut
        )
    }

    /// Returns whether the look-up did not finish in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason, Reason::TimedOut)
    }

    /// Returns the errno if a system call failed, or if memory or descriptors were exhausted, such
    /// as EMFILE if no descriptor was available for the query.
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
