//! [`OpError`]: the errors of network operations.
//!
//! Some errors contain an [`OpError`], which names the operation and the addresses and prints like
//! Go's `net.OpError`:
//!
//! * errors of binding and dialling, including those of the look-up (but a connect timeout of zero
//!   and a count of zero listeners are refused with a plain `InvalidInput` error),
//! * errors of `UdpSocket::send_to`, `send_msg` and `send_many` if the destination is missing or
//!   could not be resolved,
//! * the errors closed, deadline, shutdown and too many operations,
//! * the `BrokenPipe` error of a [`pipe`](super::pipe()).
//!
//! Kernel errors of other operations, such as accept, read and write, are returned unchanged,
//! unless `Builder::wrap_io_errors` is set. So `io::Error::raw_os_error` works on them. It returns
//! `None` for a wrapped error; [`raw_os_error`] looks through the wrapper.
//!
//! # Compared with Go (net/net.go, internal/poll/fd.go)
//! The texts are Go's, except two: Go does not need `runtime shut down`, and it panics on too many
//! operations. Go always wraps kernel errors of reads and writes. Here they are not wrapped by
//! default, because Rust programs match on `ErrorKind` and `raw_os_error`.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use socket2::SockAddr;

use super::errno_text::ErrnoText;
use super::host_port::reason;
use super::resolve::lookup_error::LookupError;
use crate::rt::poll::poller::Failure;
use crate::sys;

/// An address in an [`OpError`].
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{Addr, OpError, TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let addr = listener.local_addr()?;
/// listener.close().await?;
///
/// let error = TcpStream::connect(addr).await.unwrap_err();
/// let error = error.get_ref().and_then(|error| error.downcast_ref::<OpError>()).unwrap();
/// assert_eq!(error.addr(), Some(&Addr::Ip(addr)));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Addr {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix socket's path. An abstract name begins with `@`; an unnamed socket is `@` alone.
    Unix(PathBuf),
    /// An address that was not resolved, as the user gave it. At present, no error has such an
    /// address.
    Name(String),
}

impl Addr {
    /// Converts a kernel address. Returns `None` if it is of a family that this crate does not use.
    ///
    /// This function is public only for `netpoll-fuzz`, which passes arbitrary addresses.
    #[doc(hidden)]
    pub fn of(address: &SockAddr) -> Option<Addr> {
        if let Some(address) = address.as_socket() {
            return Some(Addr::Ip(address));
        }
        sys::unix::from_kernel(address).ok().map(|address| Addr::from(&address))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Ip(address) => address.fmt(f),
            Addr::Unix(path) => path.display().fmt(f),
            Addr::Name(name) => name.fmt(f),
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(address: SocketAddr) -> Addr {
        Addr::Ip(address)
    }
}

impl From<&std::os::unix::net::SocketAddr> for Addr {
    fn from(address: &std::os::unix::net::SocketAddr) -> Addr {
        Addr::Unix(match (address.as_pathname(), crate::sys::os::abstract_name(address)) {
            (Some(path), _) => path.to_owned(),
            (None, name) => {
                let name = [b"@", name.unwrap_or_default()].concat();
                std::ffi::OsStr::from_bytes(&name).into()
            }
        })
    }
}

/// The cause of a failure.
#[derive(Debug)]
enum Cause {
    /// A failed system call: its name and its error.
    Call(&'static str, io::Error),
    /// Another error.
    Other(io::Error),
    Closed,
    Deadline,
    /// A deadline passed during the step that the error names.
    DeadlineIn(io::Error),
    ShutDown,
    TooMany,
}

/// A failed network operation: the operation, the addresses and the reason.
///
/// It is contained in an [`io::Error`]; `downcast_ref` extracts it. For common checks, use
/// [`is_closed`], [`is_timeout`] and [`raw_os_error`].
///
/// The text is Go's: `operation network source->address: reason`.
///
/// | situation | text | kind |
/// |---|---|---|
/// | there is no such host | `dial tcp: lookup example.invalid: no such host` | of the [`LookupError`](super::LookupError) |
/// | no socket listens | `dial tcp 127.0.0.1:1: connect: connection refused` | of the errno |
/// | the port is taken | `listen tcp 127.0.0.1:80: bind: address already in use` | of the errno |
/// | the socket was closed by this process | `read tcp 127.0.0.1:2->127.0.0.1:1: use of closed network connection` | [`NotConnected`](ErrorKind::NotConnected) |
/// | a deadline passed | `read tcp 127.0.0.1:2->127.0.0.1:1: i/o timeout` | [`TimedOut`](ErrorKind::TimedOut) |
/// | the runtime was shut down while an operation waited, or was being shut down when it had to wait | `accept tcp 127.0.0.1:1: runtime shut down` | [`Other`](ErrorKind::Other) |
/// | 2³² concurrent operations on one socket, or 2²⁰ waiting in one direction | `write tcp …: too many concurrent operations on a single file or socket` | [`ResourceBusy`](ErrorKind::ResourceBusy) |
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{OpError, TcpListener};
///
/// let taken = TcpListener::bind("127.0.0.1:0").await?;
/// let error = TcpListener::bind(taken.local_addr()?).await.unwrap_err();
/// let op = error.get_ref().and_then(|inner| inner.downcast_ref::<OpError>()).unwrap();
/// assert_eq!((op.op(), op.network()), ("listen", "tcp"));
/// assert_eq!(op.to_string(), format!("listen tcp {}: bind: address already in use", taken.local_addr()?));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[doc(alias = "net.OpError")]
pub struct OpError {
    op: &'static str,
    network: &'static str,
    source: Option<Addr>,
    addr: Option<Addr>,
    cause: Cause,
}

/// The fields of an [`OpError`] except the cause.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) op: &'static str,
    pub(crate) network: &'static str,
    pub(crate) source: Option<Addr>,
    pub(crate) addr: Option<Addr>,
}

impl Op {
    /// Creates the operation `op network addr`, for listeners, dials and sockets without a peer.
    pub(crate) fn at(op: &'static str, network: &'static str, addr: Option<Addr>) -> Op {
        Op { op, network, source: None, addr }
    }

    /// Creates the operation `op network source->addr`, for connections and for dials from a chosen
    /// local address.
    pub(crate) fn between(op: &'static str, network: &'static str, source: Option<Addr>, addr: Option<Addr>) -> Op {
        Op { op, network, source, addr }
    }

    fn failed(self, cause: Cause) -> io::Error {
        let Op { op, network, source, addr } = self;
        OpError { op, network, source, addr, cause }.into()
    }

    /// Returns the error for the failed system call `call`.
    #[cold]
    pub(crate) fn call(self, call: &'static str, error: io::Error) -> io::Error {
        self.failed(Cause::Call(call, error))
    }

    /// Returns the error for another cause, such as an invalid address.
    #[cold]
    pub(crate) fn other(self, error: io::Error) -> io::Error {
        self.failed(Cause::Other(reason(error)))
    }

    /// Returns the error for a closed socket.
    #[cold]
    pub(crate) fn closed(self) -> io::Error {
        self.failed(Cause::Closed)
    }

    /// Returns the error for an expired deadline.
    #[cold]
    pub(crate) fn timed_out(self) -> io::Error {
        self.failed(Cause::Deadline)
    }

    /// Returns the error for a deadline that passed during a step, such as a look-up. `error` names
    /// the step.
    #[cold]
    pub(crate) fn timed_out_in(self, error: io::Error) -> io::Error {
        self.failed(Cause::DeadlineIn(error))
    }

    /// Returns the error for a runtime that was shut down.
    #[cold]
    pub(crate) fn shut_down(self) -> io::Error {
        self.failed(Cause::ShutDown)
    }

    /// Returns the error for too many concurrent operations on one socket.
    #[cold]
    pub(crate) fn too_many(self) -> io::Error {
        self.failed(Cause::TooMany)
    }
}

impl Failure {
    /// Converts the failure to an error of `op`. The error of a system call stays unchanged; an
    /// error of this crate gets the operation and the addresses.
    #[cold]
    pub(crate) fn into_error(self, op: Op) -> io::Error {
        match self {
            Failure::Io(error) => error,
            Failure::Closed => op.closed(),
            Failure::TimedOut => op.timed_out(),
            Failure::Stopped => op.shut_down(),
            Failure::TooMany => op.too_many(),
        }
    }
}

impl OpError {
    /// Returns the operation: `dial`, `listen`, `accept`, `read`, `write` or `close`; `set` and
    /// `get` for options, deadlines and kernel statistics; `local-addr` and `peer-addr`; `file` for
    /// releasing the descriptor; `raw-control`, `raw-read` and `raw-write`; `register` for
    /// [`AsyncFd::new`](crate::io::AsyncFd::new).
    pub fn op(&self) -> &str {
        self.op
    }

    /// Returns the network: `tcp` or `udp`, for both IP versions; `unix`, `unixgram` or
    /// `unixpacket`; `pipe` for [`net::pipe`](super::pipe()); `fd` for
    /// [`AsyncFd`](crate::io::AsyncFd).
    pub fn network(&self) -> &str {
        self.network
    }

    /// Returns the local address of a connection, or the local address that a dial was configured
    /// with; `None` for listeners, other dials, sockets without a peer, and the operations `set`
    /// and `raw-control`.
    pub fn source_addr(&self) -> Option<&Addr> {
        self.source.as_ref()
    }

    /// Returns the peer's address, or the address of a listener. For a socket without a peer, and
    /// for the operations `set` and `raw-control`, returns the local address. Returns `None` if the
    /// address is not known, for example for a failed look-up and for a [`pipe`](super::pipe()).
    pub fn addr(&self) -> Option<&Addr> {
        self.addr.as_ref()
    }

    /// Returns the underlying error, such as that of a system call, of the resolver or of a
    /// malformed address, or `None` if there is none (closed, deadline and so on).
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.cause {
            Cause::Call(_, error) | Cause::Other(error) | Cause::DeadlineIn(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the kind, which is also the kind of the [`io::Error`] that contains this error.
    pub fn kind(&self) -> ErrorKind {
        match &self.cause {
            Cause::Call(_, error) | Cause::Other(error) => error.kind(),
            Cause::Closed => ErrorKind::NotConnected,
            Cause::Deadline | Cause::DeadlineIn(_) => ErrorKind::TimedOut,
            Cause::ShutDown => ErrorKind::Other,
            Cause::TooMany => ErrorKind::ResourceBusy,
        }
    }

    /// Returns the errno of the underlying system call, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.io_error().and_then(raw_os_error)
    }

    /// Returns whether the socket was closed by this process.
    pub fn is_closed(&self) -> bool {
        matches!(self.cause, Cause::Closed)
    }

    /// Returns whether a deadline or timeout of this crate has passed. Returns false for a timeout
    /// that the kernel reports (ETIMEDOUT).
    pub fn is_deadline(&self) -> bool {
        matches!(self.cause, Cause::Deadline | Cause::DeadlineIn(_))
    }

    /// Returns whether the runtime was shut down while the operation waited, or was being shut down
    /// when the operation had to wait. The socket itself is unchanged.
    pub fn is_shut_down(&self) -> bool {
        matches!(self.cause, Cause::ShutDown)
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op)?;
        if !self.network.is_empty() {
            write!(f, " {}", self.network)?;
        }
        match (&self.source, &self.addr) {
            (Some(source), Some(addr)) => write!(f, " {source}->{addr}")?,
            (Some(one), None) | (None, Some(one)) => write!(f, " {one}")?,
            (None, None) => {}
        }
        f.write_str(": ")?;
        match &self.cause {
            Cause::Call(call, error) => write!(f, "{call}: {}", ErrnoText(error)),
            Cause::Other(error) | Cause::DeadlineIn(error) => ErrnoText(error).fmt(f),
            Cause::Closed => f.write_str("use of closed network connection"),
            Cause::Deadline => f.write_str("i/o timeout"),
            Cause::ShutDown => f.write_str("runtime shut down"),
            Cause::TooMany => f.write_str("too many concurrent operations on a single file or socket"),
        }
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
impl fmt::Debug for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.io_error().map(|error| error as _)
    }
}

impl From<OpError> for io::Error {
    fn from(error: OpError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

fn op_error(error: &io::Error) -> Option<&OpError> {
    error.get_ref()?.downcast_ref()
}

/// Returns whether `error` means that this process closed the socket before or during the
/// operation.
///
/// The kind of such an error is [`NotConnected`](ErrorKind::NotConnected), which is also the kind
/// of the kernel's ENOTCONN; this function tells them apart. (Go: `errors.Is(err, net.ErrClosed)`.)
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{self, TcpListener};
///
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// listener.close().await?;
/// assert!(net::is_closed(&listener.accept().await.unwrap_err()));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[doc(alias = "net.ErrClosed")]
pub fn is_closed(error: &io::Error) -> bool {
    op_error(error).is_some_and(OpError::is_closed)
}

/// Returns whether `error` is a timeout, that is, an error of kind
/// [`TimedOut`](ErrorKind::TimedOut). Examples are a deadline or timeout of a socket, a timeout of
/// `io::timeout`, of connecting or of a name look-up, the idle limit of
/// `io::copy_bidirectional_with`, and the kernel's ETIMEDOUT. [`OpError::is_deadline`]
/// distinguishes a deadline of this crate from the kernel's timeout. (Go: `net.Error.Timeout`.)
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{self, TcpListener};
///
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// listener.set_deadline(std::time::Instant::now())?;
/// assert!(net::is_timeout(&listener.accept().await.unwrap_err()));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[doc(alias = "os.ErrDeadlineExceeded")]
pub fn is_timeout(error: &io::Error) -> bool {
    error.kind() == ErrorKind::TimedOut
}

/// Returns whether `error` is that of a deadline or timeout of this crate, and not of the kernel.
pub(crate) fn is_deadline(error: &io::Error) -> bool {
    op_error(error).is_some_and(OpError::is_deadline)
}

/// Returns the errno in `error`, even if the error is wrapped. `io::Error::raw_os_error` works only
/// for errors that come directly from a system call; this function also looks through [`OpError`]
/// and other wrappers that have a source.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{self, TcpListener};
///
/// let taken = TcpListener::bind("127.0.0.1:0").await?;
/// let error = TcpListener::bind(taken.local_addr()?).await.unwrap_err();
/// assert_eq!(error.raw_os_error(), None);
/// assert_eq!(net::raw_os_error(&error), Some(libc::EADDRINUSE));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn raw_os_error(error: &io::Error) -> Option<i32> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    // The limit protects against a cyclic chain of sources.
    for _ in 0..16 {
        let error = next?;
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if let Some(errno) = error.raw_os_error() {
                return Some(errno);
            }
            // `io::Error::source` returns the source of the inner error and skips the inner error
            // itself.
            next = error.get_ref().map(|inner| inner as _);
        } else if let Some(lookup) = error.downcast_ref::<LookupError>() {
            return lookup.raw_os_error();
        } else {
            next = error.source();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Option<Addr> {
        Some(Addr::from(SocketAddr::from(([127, 0, 0, 1], 2000))))
    }

    fn remote() -> Option<Addr> {
        Some(Addr::from("[::1]:80".parse::<SocketAddr>().unwrap()))
    }

    fn os(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    /// A `main` that returns an error prints the error with `Debug`.
    #[test]
    fn debug_prints_the_text() {
        let error = Op::at("listen", "tcp", local()).call("bind", os(libc::EADDRINUSE));
        let text = "listen tcp 127.0.0.1:2000: bind: address already in use";
        assert_eq!(format!("{:?}", op_error(&error).unwrap()), text);
        assert_eq!(format!("{error:?}"), format!("Custom {{ kind: AddrInUse, error: {text} }}"));
        let missing = crate::net::AddrError::missing();
        assert_eq!(format!("{missing:?}"), "Custom { kind: InvalidInput, error: missing address }");
        // One error inside another.
        let dial = Op::at("dial", "tcp", None).other(missing);
        assert_eq!(format!("{:?}", dial.get_ref().unwrap()), "dial tcp: missing address");
    }

    #[test]
    fn error_texts_match_go() {
        let read = || Op::between("read", "tcp", local(), remote());
        let dial = || Op::at("dial", "tcp", remote());
        let texts = [
            (dial().call("connect", os(libc::ECONNREFUSED)), "dial tcp [::1]:80: connect: connection refused"),
            (dial().timed_out(), "dial tcp [::1]:80: i/o timeout"),
            (
                Op::at("listen", "tcp", local()).call("bind", os(libc::EADDRINUSE)),
                "listen tcp 127.0.0.1:2000: bind: address already in use",
            ),
            (read().timed_out(), "read tcp 127.0.0.1:2000->[::1]:80: i/o timeout"),
            (read().closed(), "read tcp 127.0.0.1:2000->[::1]:80: use of closed network connection"),
            (
                Op::between("write", "tcp", local(), remote()).call("write", os(libc::EPIPE)),
                "write tcp 127.0.0.1:2000->[::1]:80: write: broken pipe",
            ),
            (Op::at("accept", "tcp", local()).closed(), "accept tcp 127.0.0.1:2000: use of closed network connection"),
            (
                Op::at("accept", "tcp", local()).call("accept4", os(libc::EMFILE)),
                "accept tcp 127.0.0.1:2000: accept4: too many open files",
            ),
            (Op::at("dial", "tcp", None).other(io::Error::other("missing address")), "dial tcp: missing address"),
            (Op::at("read", "", None).other(os(libc::ECONNRESET)), "read: connection reset by peer"),
            (
                Op::at("dial", "unix", Some(Addr::Unix("/p".into()))).call("connect", os(libc::EAGAIN)),
                "dial unix /p: connect: resource temporarily unavailable",
            ),
            (
                Op::between("read", "tcp", local(), None).closed(),
                "read tcp 127.0.0.1:2000: use of closed network connection",
            ),
        ];
        for (error, text) in texts {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn kind_errno_and_source_survive_the_wrapping() {
        let refused = Op::at("dial", "tcp", remote()).call("connect", os(libc::ECONNREFUSED));
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(refused.raw_os_error(), None);
        assert_eq!(raw_os_error(&refused), Some(libc::ECONNREFUSED));
        let op = op_error(&refused).unwrap();
        assert_eq!((op.op(), op.network(), op.source_addr(), op.addr()), ("dial", "tcp", None, remote().as_ref()));
        assert_eq!(op.raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(Error::source(op).unwrap().is::<io::Error>());
        // Wrapped once more.
        let twice = Op::at("dial", "tcp", None).other(refused);
        assert_eq!((twice.kind(), raw_os_error(&twice)), (ErrorKind::ConnectionRefused, Some(libc::ECONNREFUSED)));
        assert_eq!(raw_os_error(&io::Error::other(twice)), Some(libc::ECONNREFUSED));
        assert_eq!(raw_os_error(&os(libc::EPERM)), Some(libc::EPERM));
        assert_eq!(raw_os_error(&io::Error::other("no errno")), None);
    }

    #[test]
    fn closed_and_timeout_differ_from_kernel_errors() {
        let op = || Op::at("accept", "tcp", local());
        let closed = op().closed();
        assert!(is_closed(&closed) && !is_timeout(&closed));
        assert_eq!(closed.kind(), ErrorKind::NotConnected);
        assert!(!is_closed(&os(libc::ENOTCONN)));
        let late = op().timed_out();
        assert!(is_timeout(&late) && !is_closed(&late) && op_error(&late).unwrap().is_deadline());
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(is_timeout(&os(libc::ETIMEDOUT)));
        assert!(!op_error(&op().call("connect", os(libc::ETIMEDOUT))).unwrap().is_deadline());
        let down = op().shut_down();
        assert!(!is_closed(&down) && !is_timeout(&down) && op_error(&down).unwrap().is_shut_down());
        assert_eq!(down.kind(), ErrorKind::Other);
        assert_eq!(op().too_many().kind(), ErrorKind::ResourceBusy);
        assert!(op_error(&closed).unwrap().io_error().is_none());
    }

    #[test]
    fn unix_addresses_print_like_go() {
        use std::os::unix::net::SocketAddr;
        assert_eq!(Addr::from(&SocketAddr::from_pathname("/tmp/p").unwrap()).to_string(), "/tmp/p");
        if let Ok(hidden) = crate::sys::os::from_abstract_name(b"n") {
            assert_eq!(Addr::from(&hidden).to_string(), "@n");
        }
        let unnamed = std::os::unix::net::UnixDatagram::unbound().unwrap().local_addr().unwrap();
        assert_eq!(Addr::from(&unnamed).to_string(), "@");
    }
}
