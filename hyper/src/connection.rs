//! Serves one connection, HTTP/1 or HTTP/2, from beginning to end.
//!
//! The first bytes identify the HTTP version. These bytes (up to [`HEAD_BYTES`], usually the whole
//! first request) are then passed to hyper, so the identification usually costs no additional
//! system call.
//!
//! # Ending
//! When the server stops, hyper first reads the bytes that have already arrived on an HTTP/1
//! connection. A request in these bytes is answered, with `connection: close`. Then hyper's
//! graceful shutdown begins. It closes an idle connection immediately, and a connection with a
//! request in progress after the response. With HTTP/2, the graceful shutdown begins at once. hyper
//! alone would wait for the rest of the first request's head and, with HTTP/2, for the peer's PING
//! reply. This module ends such a connection if it has no request in progress.
//!
//! An HTTP/2 connection that has no request for the time limit of a request's head is shut down
//! gracefully. From then on it is checked for progress after each interval of the same length, or
//! of [`PING_REPLY`] when the server stops. It ends if no bytes were read or written in an interval
//! and no request is in progress, unless the server stops and bytes wait to be sent. The frames
//! that begin the shutdown do not count as progress. Even with progress, the connection ends at the
//! [`IDLE_CHECKS_MAX`]th check in a row that finds no request in progress and no bytes that wait to
//! be sent, because a peer may send bytes without ever acknowledging the shutdown.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBuf, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use netpoll::time::Sleep;
use pin_project_lite::pin_project;

use super::BoxError;
use super::activity::{Activity, Watched};
use super::drain::{CUT, Member, SERVING};
use super::rt::{ConnectionTimer, Executor};
use super::wire::Wire;

/// The first bytes sent by an HTTP/2 client (RFC 9113, section 3.4). No HTTP/1 request begins with
/// the first line of these bytes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The size of the buffer for the first bytes of a connection, in bytes.
const HEAD_BYTES: usize = 1024;

/// The length of the intervals after which an HTTP/2 connection is checked for progress when the
/// server is stopping. A live peer usually replies to a PING within one round trip.
const PING_REPLY: Duration = Duration::from_secs(1);

/// The maximum number of checks in a row, since the shutdown of an HTTP/2 connection began, that
/// find no request in progress and no bytes that wait to be sent.
const IDLE_CHECKS_MAX: u32 = 3;

/// The minimum interval between two checks of a connection with a request in progress, or with a
/// response that waits to be sent. A very short time limit would otherwise keep a thread busy as
/// long as this lasts.
pub(super) const CHECK_MIN: Duration = Duration::from_millis(10);

/// The settings of a server's connections.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<Executor>,
    /// The time limit for a request's head, for the beginning of a connection (the future of the
    /// closure `connect`, and the first bytes), and for HTTP/2 connections without a request.
    pub(super) head: Option<Duration>,
    pub(super) on_error: Option<OnError>,
}

type Hook = dyn Fn(&(dyn Error + Send + Sync + 'static)) + Send + Sync;

/// The hook of [`Server::on_error`](crate::Server::on_error).
#[derive(Clone)]
pub(super) struct OnError(pub(super) Arc<Hook>);

impl fmt::Debug for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnError")
    }
}

impl Settings {
    /// Calls the hook with an error that ended a connection.
    fn report(&self, error: &(dyn Error + Send + Sync + 'static)) {
        if let Some(OnError(hook)) = &self.on_error {
            hook(error);
        }
    }
}

pin_project! {
    /// The beginning of a connection: the future of the closure `connect`, or the panic of the
    /// closure. The panic is resumed in the connection's task.
    #[project = ConnectingProjection]
    pub(super) enum Connecting<F> {
        Future { #[pin] future: F },
        Panicked { payload: Option<Box<dyn Any + Send>> },
    }
}

impl<F> Connecting<F> {
    /// Calls `connect`, and catches its panic.
    pub(super) fn new(connect: impl FnOnce() -> F) -> Connecting<F> {
        match catch_unwind(AssertUnwindSafe(connect)) {
            Ok(future) => Connecting::Future { future },
            Err(payload) => Connecting::Panicked { payload: Some(payload) },
        }
    }
}

impl<F: Future> Future for Connecting<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            ConnectingProjection::Future { future } => future.poll(cx),
            ConnectingProjection::Panicked { payload } => match payload.take() {
                Some(payload) => resume_unwind(payload),
                None => Poll::Pending,
            },
        }
    }
}

/// Serves a connection until it ends. Errors, such as malformed input, a broken pipe or a time
/// limit, end only this connection, and are reported to the hook.
pub(super) async fn serve<F, T, S, B>(connect: F, activity: Arc<Activity>, settings: Arc<Settings>, mut member: Member)
where
    F: Future<Output = io::Result<(T, S)>>,
    T: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let begin = async {
        let (io, service) = connect.await?;
        let mut wire = Wire::new(io, Arc::clone(&activity));
        let is_http2 = is_http2(&mut wire).await?;
        io::Result::Ok((wire, service, is_http2))
    };
    let begun = member.while_serving(settings.head, &activity, begin).await;
    let (wire, service, is_http2) = match begun {
        Some(Ok(begun)) => begun,
        Some(Err(error)) => return settings.report(&error),
        None => return,
    };
    let service = Watched { service, activity: Arc::clone(&activity) };
    if is_http2 {
        let connection = settings.http2.serve_connection(wire, service);
        let limit = settings.head;
        let ended =
            drive_http2(connection, |connection| connection.graceful_shutdown(), &activity, limit, &mut member).await;
        ended.unwrap_or_else(|error| settings.report(&error));
    } else {
        let mut http1 = settings.http1.clone();
        http1.timer(ConnectionTimer::new(Arc::clone(&activity), settings.head));
        let connection = http1.serve_connection(wire, service).with_upgrades();
        let ended = drive_http1(connection, |connection| connection.graceful_shutdown(), &activity, &mut member).await;
        ended.unwrap_or_else(|error| settings.report(&error));
    }
    activity.set_released(true);
}

/// Reads until it is known whether the first bytes are the HTTP/2 preface. Returns true if they
/// are. Returns false if they are not, or if the stream ends within the preface.
async fn is_http2<T: Read + Unpin>(wire: &mut Wire<T>) -> io::Result<bool> {
    let mut head = vec![0; HEAD_BYTES];
    let mut count = 0;
    let is_http2 = loop {
        let mut buf = ReadBuf::new(&mut head[count..]);
        poll_fn(|cx| wire.poll_fill(cx, &mut buf)).await?;
        let more = buf.filled().len();
        count += more;
        let known = count.min(PREFACE.len());
        if more == 0 || head[..known] != PREFACE[..known] {
            break false;
        }
        if known == PREFACE.len() {
            break true;
        }
    };
    head.truncate(count);
    wire.set_head(head);
    Ok(is_http2)
}

/// Drives an HTTP/1 connection until it ends. It is not an error if the connection ends because the
/// server stops, or because the connection is reset or closed while the service handles a request.
async fn drive_http1<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    activity: &Activity,
    member: &mut Member,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let mut aborted = pin!(activity.aborted());
    let mut is_shut_down = false;
    poll_fn(|cx| {
        let stage = member.stage(cx);
        if stage == CUT {
            return Poll::Ready(Ok(()));
        }
        activity.set_draining(stage != SERVING);
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if stage == SERVING {
                break;
            }
            if !is_shut_down {
                // Bytes that have arrived are read first, because hyper's shutdown closes an idle
                // connection immediately.
                if !activity.is_busy() && activity.is_readable() {
                    break;
                }
                is_shut_down = true;
                shut_down(connection.as_mut());
                continue;
            }
            // No request has arrived, and no error response is being written, so the head is
            // incomplete.
            if !activity.used() && !activity.is_blocked() && !activity.closing() {
                return Poll::Ready(Ok(()));
            }
            break;
        }
        // hyper reads from the stream, and so detects a reset, except while it waits for the
        // service.
        if activity.is_busy() { aborted.as_mut().poll(cx).map(Ok) } else { Poll::Pending }
    })
    .await
}

/// Drives an HTTP/2 connection until it ends. It is not an error if the connection ends because of
/// a time limit, or because the server stops. A peer may close the connection as soon as it
/// receives GOAWAY. A write after GOAWAY may then fail or make the peer send a reset, which is not
/// an error either.
async fn drive_http2<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    activity: &Activity,
    limit: Option<Duration>,
    member: &mut Member,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let mut check = Http2Check::new(limit);
    poll_fn(|cx| {
        let stage = member.stage(cx);
        if stage == CUT {
            return Poll::Ready(Ok(()));
        }
        if stage != SERVING && check.stop() {
            shut_down(connection.as_mut());
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                let is_over = check.is_ending() && !activity.is_busy();
                return Poll::Ready(ended.or_else(|error| if is_over && is_io(&error) { Ok(()) } else { Err(error) }));
            }
            match check.poll(cx, activity) {
                Poll::Ready(Verdict::ShutDown) => shut_down(connection.as_mut()),
                Poll::Ready(Verdict::End) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Returns whether the error is an I/O error of a connection's stream, and not a protocol error.
fn is_io(error: &hyper::Error) -> bool {
    error.source().is_some_and(|source| source.is::<io::Error>())
}

/// Checks an HTTP/2 connection for requests and, during its shutdown, for progress.
struct Http2Check {
    sleep: Sleep,
    /// The time limit without a request or, after the graceful shutdown has begun, the interval
    /// between checks for progress.
    limit: Option<Duration>,
    ending: Ending,
    /// The number of checks in a row, since the shutdown began, that found no request in progress
    /// and no bytes that wait to be sent.
    idle_checks: u32,
    /// Whether the server is stopping.
    is_stopping: bool,
}

/// The state of the graceful shutdown.
#[derive(Clone, Copy)]
enum Ending {
    /// The shutdown has not begun.
    No,
    /// The shutdown has begun. hyper writes GOAWAY and PING when the connection is polled next.
    Begun,
    /// The progress at the last check, or after GOAWAY and PING were written.
    Since(u64),
}

/// The result of a check.
enum Verdict {
    /// The graceful shutdown should begin.
    ShutDown,
    /// The connection should end immediately.
    End,
}

impl Http2Check {
    fn new(limit: Option<Duration>) -> Http2Check {
        let sleep = limit.map_or_else(Sleep::never, Sleep::new);
        Http2Check { sleep, limit, ending: Ending::No, idle_checks: 0, is_stopping: false }
    }

    /// Notes that the server is stopping. Returns whether the graceful shutdown should begin now.
    fn stop(&mut self) -> bool {
        if std::mem::replace(&mut self.is_stopping, true) {
            return false;
        }
        self.limit = Some(PING_REPLY);
        self.sleep = Sleep::new(PING_REPLY);
        let begins = matches!(self.ending, Ending::No);
        self.ending = Ending::Begun;
        self.idle_checks = 0;
        begins
    }

    /// Returns whether the graceful shutdown has begun.
    fn is_ending(&self) -> bool {
        !matches!(self.ending, Ending::No)
    }

    /// Checks the connection, which the caller has polled before. Returns `Pending` if the
    /// connection should continue.
    fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<Verdict> {
        if matches!(self.ending, Ending::Begun) {
            self.ending = Ending::Since(activity.progress());
        }
        loop {
            ready!(Pin::new(&mut self.sleep).poll(cx));
            let Some(limit) = self.limit else { return Poll::Pending };
            let (now, progress) = (Instant::now(), activity.progress());
            let mut next = now + limit.max(CHECK_MIN);
            let is_idle = self.is_ending() && !activity.is_busy() && !activity.is_blocked();
            self.idle_checks = if is_idle { self.idle_checks + 1 } else { 0 };
            if self.idle_checks >= IDLE_CHECKS_MAX {
                return Poll::Ready(Verdict::End);
            }
            if !activity.is_busy() {
                match self.ending {
                    Ending::No if activity.idle_since() + limit <= now => {
                        self.ending = Ending::Begun;
                        self.sleep.reset(next);
                        return Poll::Ready(Verdict::ShutDown);
                    }
                    Ending::No => next = activity.idle_since() + limit,
                    // A slow peer may not have received the whole last response yet. The server's
                    // grace period limits this wait.
                    Ending::Since(before) if before == progress && !(self.is_stopping && activity.is_blocked()) => {
                        return Poll::Ready(Verdict::End);
                    }
                    Ending::Begun | Ending::Since(_) => {}
                }
            }
            if self.is_ending() {
                self.ending = Ending::Since(progress);
            }
            self.sleep.reset(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::activity::UnderWay;
    use super::*;
    use hyper::rt::ReadBufCursor;
    use std::sync::Weak;
    use std::task::Waker;

    /// Returns the activity and the check of a connection whose server is stopping.
    fn stopping() -> (Arc<Activity>, Http2Check) {
        let mut check = Http2Check::new(None);
        assert!(check.stop());
        (Activity::new(None, Weak::new()), check)
    }

    /// Regression test: the bytes of GOAWAY counted as progress of the first interval, so the
    /// connection of a silent peer ended one interval late.
    #[test]
    fn goaway_does_not_count_as_progress() {
        let mut cx = Context::from_waker(Waker::noop());
        let (activity, mut check) = stopping();
        // hyper is polled and writes GOAWAY.
        activity.note_progress();
        assert!(check.poll(&mut cx, &activity).is_pending());
        check.sleep = Sleep::new(Duration::ZERO);
        assert!(matches!(check.poll(&mut cx, &activity), Poll::Ready(Verdict::End)));
    }

    #[test]
    fn progress_in_an_interval_starts_another_interval() {
        let mut cx = Context::from_waker(Waker::noop());
        let (activity, mut check) = stopping();
        assert!(check.poll(&mut cx, &activity).is_pending());
        activity.note_progress();
        check.sleep = Sleep::new(Duration::ZERO);
        assert!(check.poll(&mut cx, &activity).is_pending());
        check.sleep = Sleep::new(Duration::ZERO);
        assert!(matches!(check.poll(&mut cx, &activity), Poll::Ready(Verdict::End)));
    }

    /// Regression test: a peer that sent a byte per interval, and did not acknowledge the shutdown,
    /// kept its connection forever.
    #[test]
    fn progress_without_requests_does_not_keep_the_connection() {
        let mut cx = Context::from_waker(Waker::noop());
        let (activity, mut check) = stopping();
        assert!(check.poll(&mut cx, &activity).is_pending());
        let mut interval = |check: &mut Http2Check| {
            activity.note_progress();
            check.sleep = Sleep::new(Duration::ZERO);
            check.poll(&mut cx, &activity)
        };
        assert!(interval(&mut check).is_pending());
        // The intervals are counted anew after a request, or after bytes had to wait.
        let request = UnderWay::begin(&activity, true);
        assert!(interval(&mut check).is_pending());
        drop(request);
        assert!(interval(&mut check).is_pending());
        activity.set_blocked(true);
        assert!(interval(&mut check).is_pending());
        activity.set_blocked(false);
        for _ in 1..IDLE_CHECKS_MAX {
            assert!(interval(&mut check).is_pending());
        }
        assert!(matches!(interval(&mut check), Poll::Ready(Verdict::End)));
    }

    /// Regression test: a limit of zero kept a thread busy while a request was in progress.
    #[test]
    fn zero_limit_does_not_check_a_busy_connection_all_the_time() {
        let activity = Activity::new(None, Weak::new());
        let mut check = Http2Check::new(Some(Duration::ZERO));
        let request = UnderWay::begin(&activity, true);
        let start = Instant::now();
        let begun = |cx: &mut Context<'_>| Poll::Ready(check.poll(cx, &activity).is_pending());
        // In a turn of `block_on`, which bounds the number of sleeps that need not wait.
        assert!(netpoll::task::block_on(poll_fn(begun)));
        assert!(check.sleep.deadline() >= Some(start + CHECK_MIN));
        drop(request);
        check.sleep = Sleep::new(Duration::ZERO);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(check.poll(&mut cx, &activity), Poll::Ready(Verdict::ShutDown)));
    }

    /// A stream that accepts all bytes, and sends them when `sends` is true.
    struct Buffer {
        sends: bool,
    }

    impl Read for Buffer {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl Write for Buffer {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.sends { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// Regression test: the end of the last response was in the buffer of a TLS library, and the
    /// connection was closed before the peer had received this end.
    #[test]
    fn connection_of_a_stopping_server_waits_for_a_flush() {
        let mut cx = Context::from_waker(Waker::noop());
        let (activity, mut check) = stopping();
        let wire = |sends| Wire::new(Buffer { sends }, Arc::clone(&activity));
        assert!(Pin::new(&mut wire(false)).poll_write(&mut cx, b"the end").is_ready());
        assert!(Pin::new(&mut wire(false)).poll_flush(&mut cx).is_pending());
        for _ in 0..3 {
            assert!(check.poll(&mut cx, &activity).is_pending());
            check.sleep = Sleep::new(Duration::ZERO);
        }
        // The end of the flush is progress, so another interval follows.
        assert!(Pin::new(&mut wire(true)).poll_flush(&mut cx).is_ready());
        assert!(check.poll(&mut cx, &activity).is_pending());
        check.sleep = Sleep::new(Duration::ZERO);
        assert!(matches!(check.poll(&mut cx, &activity), Poll::Ready(Verdict::End)));
    }
}
