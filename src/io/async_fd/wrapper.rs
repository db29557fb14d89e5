//! [`AsyncFd`]: waiting on any descriptor that the poller accepts, with the semantics of this
//! crate's sockets.
//!
//! # Ownership
//! `T` owns or borrows the descriptor. An [`Fd`] that borrows it has the poll handle, the deadlines
//! and the close protocol. The descriptor is removed from the poller before `T` is dropped or
//! returned. It is registered in `new`, so that `new` returns an error if epoll refuses it.
//!
//! # Readiness
//! Only EAGAIN (`WouldBlock`) and the guard clear readiness. A short read or write does not,
//! because its meaning depends on the type of file. Calls are not serialised ([`LockScope::None`]).
//!
//! # Foreign code
//! Closures, and `T`'s `Read` and `Write`, run with a reference to the `Fd` held and outside all
//! mutexes. A panic propagates to the caller.
//!
//! # Compared with Go (os/file_unix.go) and others
//! If epoll refuses a file, `os.NewFile` falls back to blocking calls; `AsyncFd::new` returns an
//! error. The guard corresponds to tokio's, and `read_with` to async-io's. Deadlines work as on
//! streams, and so does `force_close`, except that it leaves the descriptor open.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use crate::net::error::Op;
use crate::net::fd::fd::Fd;
use crate::net::futures::Closed;
use crate::rt::poll::backend::AlwaysReady;
use crate::rt::poll::poller::{Direction, Failure};
use crate::sync::AtomicU64;
use crate::sys;

/// An asynchronous wrapper for any descriptor that epoll accepts: pipes, terminals, eventfd,
/// inotify, timerfd, signalfd, tun, sockets of other libraries.
///
/// Any number of tasks may wait in each direction. There are three ways to make calls:
/// * [`read_with`](AsyncFd::read_with) and [`write_with`](AsyncFd::write_with) call a closure until
///   it returns a result other than `WouldBlock`;
/// * [`readable`](AsyncFd::readable) and [`writable`](AsyncFd::writable) return a guard that
///   controls when to wait again;
/// * futures-io's traits are available if `&T` implements `std::io::Read` or `Write`, as do
///   `&File`, `&PipeReader` and `&UnixStream`.
///
/// Deadlines work as for sockets. `T` may be a reference, as in `AsyncFd::new(&file)`, but then the
/// traits are not available. Both directions are always registered.
///
/// # O_NONBLOCK
/// [`new`](AsyncFd::new) sets the flag. [`into_inner`](AsyncFd::into_inner) clears it if it was not
/// set before; dropping the `AsyncFd` leaves it set. The flag belongs to the open file description:
/// duplicates share it, and for a terminal these include the standard streams of other processes.
/// Instead of wrapping a standard stream, open `/dev/tty` again. The flag is checked before each
/// call, and set again if another user of the description has cleared it. The check costs one
/// fcntl(2) per call.
///
/// # SIGPIPE
/// Writing to a pipe without a reader raises SIGPIPE, unlike writing to a socket of this crate.
/// Rust programs ignore the signal by default.
///
/// # Wrapping twice
/// A descriptor can be registered with the poller only once: a second `AsyncFd` for the same number
/// is refused. After a shutdown of the runtime, a new `AsyncFd` can register the number. Operations
/// of the earlier one that have to wait then fail with `AlreadyExists`. Do not wrap a socket of
/// this crate, because the socket and the `AsyncFd` cannot both receive events. Use the socket's
/// methods `read_with` and `control` instead.
///
/// # Examples
/// ```
/// use netpoll::{io::{AsyncFd, ReadExt, WriteExt}, task};
///
/// # fn main() -> std::io::Result<()> {
/// task::block_on(async {
///     let (reader, writer) = std::io::pipe()?;
///     let (reader, writer) = (AsyncFd::new(reader)?, AsyncFd::new(writer)?);
///     let task = task::spawn(async move {
///         let mut text = String::new();
///         (&reader).read_to_string(&mut text).await.map(|_| text)
///     });
///     (&writer).write_all(b"through a pipe").await?;
///     drop(writer);
///     assert_eq!(task.await?, "through a pipe");
///     Ok(())
/// })
/// # }
/// ```
#[doc(alias = "os.NewFile")]
#[doc(alias = "Async")]
pub struct AsyncFd<T> {
    /// Declared before `inner`, so that it is dropped first: the descriptor is removed from the
    /// poller while it is open.
    pub(super) fd: Fd,
    was_blocking: bool,
    /// Per direction, the edge count at the time when the user's call would have blocked although
    /// poll(2) reported readiness; or [`NEVER_REFUTED`]. poll(2) is not called again until the next
    /// edge.
    pub(super) refuted: [AtomicU64; 2],
    pub(super) inner: T,
}

/// A value that differs from every edge count, because the low bits of an edge count are zero.
const NEVER_REFUTED: u64 = 1;

impl<T: AsFd> AsyncFd<T> {
    /// Wraps a descriptor: sets O_NONBLOCK if it is not set, and registers the descriptor with the
    /// poller.
    ///
    /// `inner.as_fd()` must return the same open descriptor for as long as the `AsyncFd` lives.
    /// If the descriptor is closed through [`get_ref`](AsyncFd::get_ref), waiters receive no more
    /// events, and its number may be reused while it is still registered.
    ///
    /// # Errors
    /// * Returns `InvalidInput` with [`NotPollable`] inside for files that epoll(7) refuses:
    ///   regular files, directories, `/dev/null`.
    /// * Returns `AlreadyExists` for a descriptor that is already registered.
    /// * Returns the OS error: EBADF for a descriptor that is not open; EMFILE, ENFILE, ENOSPC,
    ///   ENOMEM or ELOOP from the poller.
    /// * Returns `QuotaExceeded` if the poller uses poll(2), and the number of descriptors has
    ///   reached the limit (RLIMIT_NOFILE).
    /// * Returns `Other` while the runtime is being shut down, if the system refuses to create a
    ///   thread that the runtime needs, and in a child of fork(2) that did not call exec(2).
    ///
    /// After an error `inner` is dropped (pass a reference to keep it), and O_NONBLOCK has its
    /// former value.
    ///
    /// Source: epoll_ctl(2), fcntl(2), `tokio::io::unix::AsyncFd`.
    ///
    /// # Examples
    /// ```
    /// use netpoll::io::{AsyncFd, NotPollable};
    ///
    /// let file = std::fs::File::open("/proc/self/exe")?;
    /// let error = AsyncFd::new(&file).unwrap_err();
    /// assert!(error.get_ref().is_some_and(|inner| inner.is::<NotPollable>()));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(inner: T) -> io::Result<AsyncFd<T>> {
        let was_blocking = sys::fd::make_nonblocking(inner.as_fd())?;
        let registered = Fd::lent(inner.as_fd()).and_then(|fd| match fd.poll.register(fd.borrow(), true) {
            Ok(_) => Ok(fd),
            Err(Failure::Io(error)) => Err(explain(inner.as_fd(), error)),
            Err(failure) => Err(failure.into_error(Op::at("register", "fd", None))),
        });
        match registered {
            Ok(fd) => Ok(AsyncFd { fd, was_blocking, refuted: [const { AtomicU64::new(NEVER_REFUTED) }; 2], inner }),
            Err(error) => {
                restore(inner.as_fd(), was_blocking);
                Err(error)
            }
        }
    }

    /// Removes the descriptor from the poller and returns the wrapped object. Clears O_NONBLOCK if
    /// it was not set before [`new`](AsyncFd::new).
    pub fn into_inner(self) -> T {
        let AsyncFd { fd, was_blocking, inner, .. } = self;
        drop(fd);
        restore(inner.as_fd(), was_blocking);
        inner
    }
}

/// Clears O_NONBLOCK if the descriptor was blocking. Errors are ignored, because they mean that the
/// descriptor is no longer open.
fn restore(fd: BorrowedFd<'_>, was_blocking: bool) {
    if was_blocking {
        let _ = sys::socket::set_nonblocking(fd, false);
    }
}

/// Returns the error of `new` for an error of the poller, with an explanation.
#[cold]
fn explain(fd: BorrowedFd<'_>, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        None if error.get_ref().is_some_and(|inner| inner.is::<AlwaysReady>()) => {
            io::Error::new(io::ErrorKind::InvalidInput, NotPollable { kind: sys::fd::kind(fd), error })
        }
        Some(libc::EEXIST) => io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the descriptor is already registered by another AsyncFd or a socket of this crate",
        ),
        _ => error,
    }
}

impl<T> AsyncFd<T> {
    /// Returns a reference to the wrapped object. Calls made directly on it may fail with
    /// `WouldBlock`, which does not clear readiness.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Returns a mutable reference to the wrapped object.
    ///
    /// # Safety
    /// The descriptor must not be closed or replaced through the reference, because its number is
    /// registered with the poller.
    #[allow(unsafe_code)]
    pub unsafe fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    #[cold]
    pub(super) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        failure.into_error(Op::at(op, "fd", None))
    }

    // ---- deadlines ----

    /// Sets the deadline after which operations fail with `TimedOut`; `None` removes it. The
    /// deadline also applies to operations that are already waiting, and stays until it is changed.
    /// After the deadline, operations fail even if data is available.
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::{io::{AsyncFd, ReadExt}, net};
    /// use std::time::{Duration, Instant};
    ///
    /// let (reader, _writer) = std::io::pipe()?;
    /// let reader = AsyncFd::new(reader)?;
    /// reader.set_deadline(Instant::now() + Duration::from_millis(5))?;
    /// assert!(net::is_timeout(&(&reader).read(&mut [0; 1]).await.unwrap_err()));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    #[doc(alias = "SetDeadline")]
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let deadline = deadline.into();
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }

    /// Sets the deadline of reads only; see [`set_deadline`](AsyncFd::set_deadline).
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    #[doc(alias = "SetReadDeadline")]
    pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let set = self.fd.set_deadline(Direction::Read, deadline.into());
        set.map_err(|failure| self.error("set", failure))
    }

    /// Sets the deadline of writes only; see [`set_deadline`](AsyncFd::set_deadline).
    ///
    /// # Errors
    /// Returns a [closed](crate::net::is_closed) error after `force_close`.
    #[doc(alias = "SetWriteDeadline")]
    pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let set = self.fd.set_deadline(Direction::Write, deadline.into());
        set.map_err(|failure| self.error("set", failure))
    }

    /// Sets how long each read may wait; `None` removes the limit. The time is counted from the
    /// moment when the read begins to wait.
    ///
    /// # Errors
    /// Returns `InvalidInput` for zero, as in std.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.fd.timeouts.set(Direction::Read, timeout)
    }

    /// Sets how long each write may wait; `None` removes the limit. The time is counted from the
    /// moment when the write begins to wait.
    ///
    /// # Errors
    /// Returns `InvalidInput` for zero, as in std.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.fd.timeouts.set(Direction::Write, timeout)
    }

    /// Returns the timeout set by [`set_read_timeout`](AsyncFd::set_read_timeout).
    ///
    /// # Errors
    /// Never fails; the signature is that of std.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.fd.timeouts.get(Direction::Read))
    }

    /// Returns the timeout set by [`set_write_timeout`](AsyncFd::set_write_timeout).
    ///
    /// # Errors
    /// Never fails; the signature is that of std.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.fd.timeouts.get(Direction::Write))
    }

    // ---- closing ----

    /// Makes all current and later operations fail with a [closed](crate::net::is_closed) error.
    /// The close begins immediately. The returned future completes when no call is in progress and
    /// the descriptor is removed from the poller. Closing twice is not an error.
    ///
    /// `force_close` does not close the descriptor itself. Dropping a `T` that owns the descriptor
    /// does: together with the `AsyncFd`, or separately after [`into_inner`](AsyncFd::into_inner).
    /// The method `close` of the I/O traits only flushes.
    pub fn force_close(&self) -> Closed {
        Closed::new(self.fd.close(|| ()))
    }
}

impl<T: AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd> AsRawFd for AsyncFd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_fd().as_raw_fd()
    }
}

impl<T: fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncFd").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// The error of [`AsyncFd::new`] for a type of file that epoll(7) does not accept. A call on such a
/// file may block, and no event reports when it would not. In Go, setting a deadline on such a file
/// returns `os.ErrNoDeadline`.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::io::{AsyncFd, NotPollable};
///
/// let file = std::fs::File::open("/proc/self/exe")?;
/// let error = AsyncFd::new(file).unwrap_err();
/// assert!(error.get_ref().unwrap().is::<NotPollable>());
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct NotPollable {
    kind: &'static str,
    error: io::Error,
}

impl fmt::Display for NotPollable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        write!(
            f,
            "not pollable: epoll does not accept a {kind}; use it on the blocking pool (netpoll::task::spawn_blocking)"
        )
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
impl fmt::Debug for NotPollable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for NotPollable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}
