//! Incoming connections as a stream, for TCP and Unix sockets, with backoff when no descriptor,
//! memory or epoll registration is available.
//!
//! # States
//! * *accepting*: EMFILE, ENFILE, ENOBUFS, ENOMEM or ENOSPC (the user's limit of registrations with
//!   epoll, when the listener is registered) leads to *backing off*. If the listener is closed, the
//!   stream yields one error and is *ended*. After any other error, which the stream also yields,
//!   it stays *accepting*.
//! * *backing off*: returns to *accepting* when the timer fires, or when a socket of this crate is
//!   closed. At the end of the listener (its deadline, its close, a shutdown of the runtime, or a
//!   shutdown of the socket by another owner), the stream yields the error immediately. It is then
//!   *ended* if the listener was closed, and otherwise *accepting*. If the listener cannot be
//!   registered with epoll, the two shutdowns are not noticed during the pause.
//! * *ended*: yields `None`.
//!
//! A lasting lack of resources therefore costs one accept4(2) per pause instead of a busy loop.
//! Pauses double from 5 ms to 1 s and start over after a success, as in Go's net/http.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::{TcpListener, TcpStream};
use crate::net::accept::Accepting;
use crate::net::error::raw_os_error;
use crate::net::is_closed;
use crate::net::net_fd::NetFd;
use crate::rt::poll::poller;
use crate::rt::time::sleep::Sleep;
use crate::trace;

/// The first pause. Each further pause is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The maximum pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The state of a stream of connections.
#[derive(Debug, Default)]
pub(in crate::net) struct Accepts {
    pub(in crate::net) accepting: Accepting,
    pause: Option<Pause>,
    /// The last pause; zero after a success.
    last: Duration,
    ended: bool,
}

#[derive(Debug)]
struct Pause {
    sleep: Sleep,
    /// The result of [`poller::descriptors_closed`] before the failed accept.
    closings: u64,
}

impl Accepts {
    /// Polls the stream. `accept` polls for one connection.
    pub(in crate::net) fn poll_next<T>(
        &mut self,
        fd: &NetFd,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(&mut Accepting, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<Option<io::Result<T>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(pause) = &mut self.pause {
                // Without a free descriptor, accept4(2) does not report that the listener was shut
                // down.
                if let Poll::Ready(error) = self.accepting.poll_end(fd, cx) {
                    self.pause = None;
                    return Poll::Ready(Some(Err(self.failed(error))));
                }
                let freed = poller::poll_descriptor_closed(cx, pause.closings).is_ready();
                if Pin::new(&mut pause.sleep).poll(cx).is_pending() && !freed {
                    return Poll::Pending;
                }
                self.accepting.cancel(fd, None);
                self.pause = None;
            }
            // The count is read before the accept, so that a descriptor that is closed while the
            // accept fails ends the pause.
            let closings = poller::descriptors_closed();
            return match accept(&mut self.accepting, cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(stream)) => {
                    self.last = Duration::ZERO;
                    Poll::Ready(Some(Ok(stream)))
                }
                Poll::Ready(Err(error)) if is_lack_of_resources(&error) => {
                    self.last = (self.last * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                    trace::accept_backs_off(self.last, &error);
                    self.pause = Some(Pause { sleep: Sleep::new(self.last), closings });
                    continue;
                }
                Poll::Ready(Err(error)) => Poll::Ready(Some(Err(self.failed(error)))),
            };
        }
    }

    /// Notes an error that the stream yields.
    fn failed(&mut self, error: io::Error) -> io::Error {
        self.ended = is_closed(&error);
        error
    }

    fn poll_stream(&mut self, listener: &TcpListener, cx: &mut Context<'_>) -> Poll<Option<io::Result<TcpStream>>> {
        let admission = listener.admission.as_deref();
        let accept = |accepting: &mut Accepting, cx: &mut Context<'_>| {
            accepting.poll(&listener.fd, admission, cx, TcpStream::adopt)
        };
        self.poll_next(&listener.fd, cx, accept).map_ok(|(stream, _)| stream)
    }

    fn cancel(&mut self, listener: &TcpListener) {
        self.accepting.cancel(&listener.fd, listener.admission.as_deref());
    }
}

/// Returns whether an accept, or a wait for one, failed for lack of descriptors, memory or epoll
/// registrations.
pub(in crate::net) fn is_lack_of_resources(error: &io::Error) -> bool {
    matches!(raw_os_error(error), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC))
}

/// Connections as a stream.
impl TcpListener {
    /// Returns a stream of accepted connections that borrows the listener.
    ///
    /// If an accept fails for lack of descriptors, memory or epoll registrations (ENOSPC), the
    /// stream waits before it tries again: 5 ms at first, then twice as long each time, up to 1 s.
    /// The wait ends early when a socket of this crate is closed. It also ends, with an error, at
    /// the listener's deadline or close, at a shutdown of the runtime, and when another user of the
    /// socket shuts it down. If the listener itself cannot be registered, the last two only become
    /// apparent after the wait.
    ///
    /// After [`close`](TcpListener::close) the stream yields one error and then `None`. Other
    /// errors, which are those of [`accept`](TcpListener::accept), do not end the stream.
    ///
    /// # Cancel safety
    /// Dropping the future of `next()`, or the stream, loses no connection. A stream that has
    /// returned `Pending` counts as a waiting accept until it is polled again or dropped, even if
    /// the future of `next()` is dropped, and a connection wakes only one waiting accept. So while
    /// other tasks accept from the same listener, do not keep such a stream without polling it: a
    /// connection that wakes its task would wait in the queue until another connection arrives.
    ///
    /// # Examples
    /// ```no_run
    /// use netpoll::{io, net::TcpListener, prelude::*, task};
    ///
    /// # async fn serve() -> std::io::Result<()> {
    /// let listener = TcpListener::bind("127.0.0.1:8080").await?;
    /// let mut incoming = listener.incoming();
    /// while let Some(stream) = incoming.next().await {
    ///     let stream = stream?;
    ///     task::spawn(async move { io::copy(&mut &stream, &mut &stream).await });
    /// }
    /// # Ok(()) }
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self, accepts: Accepts::default() }
    }

    /// Returns a stream like that of [`incoming`](TcpListener::incoming) that ignores the maximum
    /// number of connections. Connections that it accepts hold no permit.
    pub(in crate::net) fn incoming_beyond_limit(&self) -> Incoming<'_> {
        let mut incoming = self.incoming();
        incoming.accepts.accepting.ignore_limit();
        incoming
    }

    /// Returns a stream of accepted connections that owns the listener. The stream behaves like
    /// that of [`incoming`](TcpListener::incoming).
    pub fn into_incoming(self) -> IntoIncoming {
        IntoIncoming { listener: self, accepts: Accepts::default() }
    }
}

/// A stream of connections, returned by [`TcpListener::incoming`].
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    accepts: Accepts,
}

impl Stream for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Incoming { listener, accepts } = &mut *self;
        accepts.poll_stream(listener, cx)
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        self.accepts.cancel(self.listener);
    }
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("listener", self.listener).finish_non_exhaustive()
    }
}

/// A stream of connections that owns its listener, returned by [`TcpListener::into_incoming`].
pub struct IntoIncoming {
    listener: TcpListener,
    accepts: Accepts,
}

impl IntoIncoming {
    /// Returns the listener.
    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }
}

impl Stream for IntoIncoming {
    type Item = io::Result<TcpStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.accepts.poll_stream(&this.listener, cx)
    }
}

impl Drop for IntoIncoming {
    fn drop(&mut self) {
        self.accepts.cancel(&self.listener);
    }
}

impl fmt::Debug for IntoIncoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoIncoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}
