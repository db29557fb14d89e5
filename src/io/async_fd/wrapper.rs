//! `AsyncFd`: a descriptor of somebody else's, waited for as our sockets are.
//!
//! # Who owns what
//! The number is `T`'s. An [`Fd`] that has it on loan brings the poll handle, the deadlines and the close protocol, and leaves the
//! poller before `T` is dropped or given back. It is registered at once, so that what epoll refuses is refused by `new`.
//!
//! # Evidence
//! Only EAGAIN (`WouldBlock`) clears *ready*: what a short count means depends on the kind of file. Calls are not serialised
//! ([`Hold::Free`]): the kernel keeps those of one descriptor apart as far as it does.
//!
//! # Foreign code
//! Closures, and `T`'s own `Read` and `Write`, run under a reference and outside all mutexes. A panic in one goes on in the caller.
//!
//! # Compared with Go (os/file_unix.go) and others
//! `os.NewFile` makes a file pollable if epoll takes it and falls back to blocking calls otherwise; here that is an error. The guard is
//! tokio's, `read_with` is async-io's; deadlines and `force_close` are as on streams.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::futures::{AsyncFdReadWith, AsyncFdReadable, AsyncFdWritable, AsyncFdWriteWith};
use super::guard::AsyncFdReadyGuard;
use crate::net::error::Op;
use crate::net::fd::fd::Fd;
use crate::net::fd::operation::{Caller, Failure, Hold, Left};
use crate::net::futures::Closed;
use crate::rt::poll::poller::{Direction, WaitError};
use crate::sys;

/// A descriptor of any kind that epoll takes, made to wait for: pipes, terminals, eventfd, inotify, timerfd, signalfd, tun, sockets
/// of other makers.
///
/// Any number of tasks may wait in each direction. A call goes by [`read_with`](AsyncFd::read_with) and
/// [`write_with`](AsyncFd::write_with), which repeat a closure until it need not wait; or by
/// [`readable`](AsyncFd::readable) and [`writable`](AsyncFd::writable), whose guard says when to wait again; or, where `&T` is
/// `std::io::Read` or `Write` (`File`, `PipeReader`, `UnixStream`, …), by futures-io's traits. Deadlines are those of sockets.
///
/// `T` may be a reference: `AsyncFd::new(&file)`, then without the traits. Both directions are always registered, at no cost.
///
/// # O_NONBLOCK
/// [`new`](AsyncFd::new) sets it, and [`into_inner`](AsyncFd::into_inner) clears it again if it was not set before; dropping the
/// `AsyncFd` leaves it set. The flag belongs to the open file, not to the descriptor: duplicates share it, and for a terminal
/// those are the standard streams of other processes too. Open `/dev/tty` anew instead of wrapping one of them. Where another user
/// clears the flag, it is set again before each call: one fcntl(2) per call.
///
/// # SIGPIPE
/// Writing to a pipe without a reader raises it, where a socket of this crate does not. Rust programs ignore it unless told
/// otherwise.
///
/// # Wrapping twice
/// A descriptor can be in the poller once: a second `AsyncFd` for the same number is refused. A socket of this crate has all this
/// itself (and `read_with`, `control`): wrapping one takes its wake-ups away.
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
pub struct AsyncFd<T> {
    /// Before `inner`, so that it is dropped first: the number leaves the poller while it is open.
    pub(super) fd: Fd,
    was_blocking: bool,
    inner: T,
}

impl<T: AsFd> AsyncFd<T> {
    /// Takes a descriptor, sets O_NONBLOCK if it is not set, and registers it with the poller.
    ///
    /// `inner.as_fd()` must name the same open descriptor for as long as the `AsyncFd` lives: what closes it through
    /// [`get_ref`](AsyncFd::get_ref) leaves waiters without events, and the poller with a number that may become another's.
    ///
    /// # Errors
    /// * [`NotPollable`] inside, kind `InvalidInput`, for what epoll(7) refuses: regular files, directories, `/dev/null`;
    /// * kind `AlreadyExists` for a number that is in the poller already;
    /// * the system call's: EBADF for a number that is not open, EMFILE, ENOSPC and ENOMEM of the poller.
    ///
    /// `inner` is dropped then; pass a reference to keep it. O_NONBLOCK is as it was.
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
        let registered = Fd::lent(inner.as_fd()).and_then(|fd| match fd.poll.register_first(fd.borrow()) {
            Ok(_) => Ok(fd),
            Err(WaitError::Io(error)) => Err(explain(inner.as_fd(), error)),
            Err(error) => Err(Failure::from(error).into_error(Op::at("register", "fd", None))),
        });
        match registered {
            Ok(fd) => Ok(AsyncFd { fd, was_blocking, inner }),
            Err(error) => {
                restore(inner.as_fd(), was_blocking);
                Err(error)
            }
        }
    }

    /// Gives `T` back: out of the poller, and blocking again if it was before [`new`](AsyncFd::new).
    pub fn into_inner(self) -> T {
        let AsyncFd { fd, was_blocking, inner } = self;
        drop(fd);
        restore(inner.as_fd(), was_blocking);
        inner
    }
}

/// Clears O_NONBLOCK again. A descriptor that refuses it is none any more.
fn restore(fd: BorrowedFd<'_>, was_blocking: bool) {
    if was_blocking {
        let _ = sys::socket::set_nonblocking(fd, false);
    }
}

/// What the poller's refusal means here.
#[cold]
fn explain(fd: BorrowedFd<'_>, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        // The back end's own word for EPERM.
        None if error.kind() == io::ErrorKind::InvalidInput => {
            io::Error::new(io::ErrorKind::InvalidInput, NotPollable { kind: sys::fd::kind(fd), error })
        }
        Some(libc::EEXIST) => io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the descriptor is in the poller already: another AsyncFd, or a socket of this crate, has it",
        ),
        _ => error,
    }
}

impl<T> AsyncFd<T> {
    /// What was wrapped. Calls made on it directly may fail with `WouldBlock`, and are no evidence for who waits.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What was wrapped.
    ///
    /// # Safety
    /// The descriptor must not be closed or exchanged through the reference: its number is in the poller.
    #[allow(unsafe_code)]
    pub unsafe fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    #[cold]
    pub(super) fn error(&self, op: &'static str, failure: Failure) -> io::Error {
        failure.into_error(Op::at(op, "fd", None))
    }

    // ---- readiness ----

    /// Waits until a read would not wait: data, end of file, or an error that it would return. The guard is for clearing that state
    /// when a call says `WouldBlock`; a call by [`try_io`](AsyncFdReadyGuard::try_io) does so by itself. Without, the next
    /// `readable` asks the kernel (poll(2)) and so does not spin.
    ///
    /// # Errors
    /// `TimedOut` past the read deadline; [closed](crate::net::is_closed).
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::io::AsyncFd;
    /// use std::io::{Read, Write};
    ///
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let reader = AsyncFd::new(reader)?;
    /// writer.write_all(b"x")?;
    /// let mut buf = [0; 8];
    /// let count = loop {
    ///     let mut guard = reader.readable().await?;
    ///     match guard.try_io(|fd| fd.get_ref().read(&mut buf)) {
    ///         Ok(result) => break result?,
    ///         Err(_would_block) => continue,
    ///     }
    /// };
    /// assert_eq!(&buf[..count], b"x");
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn readable(&self) -> AsyncFdReadable<'_, T> {
        AsyncFdReadable::new(self)
    }

    /// The same for writing: room, or an error that a write would return.
    ///
    /// # Errors
    /// `TimedOut` past the write deadline; [closed](crate::net::is_closed).
    pub fn writable(&self) -> AsyncFdWritable<'_, T> {
        AsyncFdWritable::new(self)
    }

    /// [`readable`](AsyncFd::readable) for `poll_*` methods of your own. The waker is kept until the next event, and any number of tasks
    /// may wait this way.
    ///
    /// # Errors
    /// As [`readable`](AsyncFd::readable).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        self.poll_ready(Direction::Read, None, cx)
    }

    /// [`writable`](AsyncFd::writable) for `poll_*` methods of your own.
    ///
    /// # Errors
    /// As [`writable`](AsyncFd::writable).
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        self.poll_ready(Direction::Write, None, cx)
    }

    pub(super) fn poll_ready(
        &self,
        direction: Direction,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, T>>> {
        // An edge that comes while this operation waits needs no proof; a readiness that is older may be used up.
        let woken = caller.as_ref().is_some_and(|operation| operation.has_waited());
        let polled = self.fd.poll_call(direction, Hold::Free, caller, cx, |fd| {
            if woken || sys::socket::is_ready(fd, direction == Direction::Write)? {
                return Ok(((), Left::Maybe));
            }
            Err(io::ErrorKind::WouldBlock.into())
        });
        // The ticket is taken before the user's call, whose evidence it is for.
        let ready = ready!(polled).and_then(|()| self.fd.poll.begin(direction).map_err(Failure::from));
        Poll::Ready(match ready {
            Ok(ticket) => Ok(AsyncFdReadyGuard::new(self, direction, ticket)),
            Err(failure) => Err(self.error(op(direction), failure)),
        })
    }

    // ---- calls ----

    /// Calls `call` until it answers with anything but `WouldBlock`, and in between waits until the descriptor is readable.
    ///
    /// `call` must use up what it was called for or answer `WouldBlock`, and must not block; `Interrupted` calls it again at once.
    ///
    /// # Errors
    /// Those of `call`, as they are; `TimedOut` past the read deadline or timeout; [closed](crate::net::is_closed).
    ///
    /// # Cancel safety
    /// What a completed `call` did is in the result. One that answered `WouldBlock` is expected to have done nothing.
    ///
    /// Source: `async_io::Async::read_with`.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::io::AsyncFd;
    /// use std::io::{Read, Write};
    ///
    /// let (reader, writer) = std::io::pipe()?;
    /// let (reader, writer) = (AsyncFd::new(reader)?, AsyncFd::new(writer)?);
    /// writer.write_with(|mut pipe| pipe.write(b"hello")).await?;
    /// let mut buf = [0; 8];
    /// assert_eq!(reader.read_with(|mut pipe| pipe.read(&mut buf)).await?, 5);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub fn read_with<R, F: FnMut(&T) -> io::Result<R>>(&self, call: F) -> AsyncFdReadWith<'_, T, F> {
        AsyncFdReadWith::new(self, call)
    }

    /// The same for writing; see [`read_with`](AsyncFd::read_with).
    ///
    /// # Errors
    /// Those of `call`, as they are; `TimedOut` past the write deadline or timeout; [closed](crate::net::is_closed).
    pub fn write_with<R, F: FnMut(&T) -> io::Result<R>>(&self, call: F) -> AsyncFdWriteWith<'_, T, F> {
        AsyncFdWriteWith::new(self, call)
    }

    /// [`read_with`](AsyncFd::read_with) for `poll_*` methods of your own.
    ///
    /// # Errors
    /// As [`read_with`](AsyncFd::read_with).
    pub fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(Direction::Read, None, cx, call)
    }

    /// [`write_with`](AsyncFd::write_with) for `poll_*` methods of your own.
    ///
    /// # Errors
    /// As [`write_with`](AsyncFd::write_with).
    pub fn poll_write_with<R>(
        &self,
        cx: &mut Context<'_>,
        call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(Direction::Write, None, cx, call)
    }

    pub(super) fn poll_with<R>(
        &self,
        direction: Direction,
        caller: Caller<'_>,
        cx: &mut Context<'_>,
        mut call: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        let polled = self.fd.poll_pinned(direction, Hold::Free, caller, cx, |_| call(&self.inner));
        polled.map_err(|failure| self.error(op(direction), failure))
    }

    // ---- deadlines ----

    /// Sets when operations time out, or (`None`) that they do not. It applies to what waits already and stays until it is moved; an
    /// expired one comes before data that is there.
    ///
    /// # Errors
    /// Closed after [`force_close`](AsyncFd::force_close).
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
    pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let deadline = deadline.into();
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }

    /// The same for reads only.
    ///
    /// # Errors
    /// Closed after [`force_close`](AsyncFd::force_close).
    pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let set = self.fd.set_deadline(Direction::Read, deadline.into());
        set.map_err(|failure| self.error("set", failure))
    }

    /// The same for writes only.
    ///
    /// # Errors
    /// Closed after [`force_close`](AsyncFd::force_close).
    pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
        let set = self.fd.set_deadline(Direction::Write, deadline.into());
        set.map_err(|failure| self.error("set", failure))
    }

    /// Sets for how long a read may wait, counted anew by each that has to.
    ///
    /// # Errors
    /// `InvalidInput` for zero, as in std.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.fd.set_timeout(Direction::Read, timeout)
    }

    /// The same for writes.
    ///
    /// # Errors
    /// `InvalidInput` for zero, as in std.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.fd.set_timeout(Direction::Write, timeout)
    }

    /// What [`set_read_timeout`](AsyncFd::set_read_timeout) set.
    ///
    /// # Errors
    /// None today; the signature is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.fd.timeout(Direction::Read))
    }

    /// What [`set_write_timeout`](AsyncFd::set_write_timeout) set.
    ///
    /// # Errors
    /// None today; the signature is std's.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.fd.timeout(Direction::Write))
    }

    // ---- closing ----

    /// Ends all operations, now and later: whoever waits gets the [closed](crate::net::is_closed) error. Begins at once; the future ends
    /// when no call is under way and the descriptor is out of the poller. Closing twice is no error.
    ///
    /// The number itself is `T`'s and closed with it: when the `AsyncFd` is dropped, or by who takes it
    /// [out](AsyncFd::into_inner). (`close` of the traits flushes.)
    pub fn force_close(&self) -> Closed {
        Closed::new(self.fd.close(|| ()))
    }
}

/// How an operation in a direction is called.
pub(super) fn op(direction: Direction) -> &'static str {
    if direction == Direction::Read { "read" } else { "write" }
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

/// epoll(7) does not take this kind of file: calls on it never wait for readiness, they block. Inside the error of
/// [`AsyncFd::new`]. Go: `os.ErrNoDeadline` from such a file's deadlines.
pub struct NotPollable {
    kind: &'static str,
    error: io::Error,
}

impl fmt::Display for NotPollable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        write!(f, "not pollable: epoll takes no {kind}; use it on the blocking pool (netpoll::task::spawn_blocking)")
    }
}

/// The text of the error: `main` prints the error that it returns by `Debug`.
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
