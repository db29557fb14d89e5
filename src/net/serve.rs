//! [`serve`]: an accept loop with a graceful stop.
//!
//! # States
//! ```text
//! serving  → draining   the stop future completes, the listener is closed, or an accept fails (at the
//!                       server's limit: would fail) with an error that would persist
//! draining → done       no connection is left
//! draining → forcing    the drain time is over
//! forcing  → done       the tasks have ended or were cancelled
//! ```
//! *Serving*: connections are accepted, and each is handled in its own task. *Draining*: if the
//! stop future has completed, the connections in the listener's queue, up to [`QUEUED_MAX`], are
//! first accepted too, even beyond the limits of the server and the listener. Then the listener is
//! closed, and `when_stopping` is called for each open connection. The drain time begins at the
//! stop. *Forcing*: the remaining connections are closed by force. Their tasks have [`FORCED`] to
//! end and are then cancelled.
//!
//! # Panics
//! A panic of the handler, a hook or the stop future is caught, because it would drop the server's
//! future, and so cancel all connections. After a panic, the stop future counts as completed.
//!
//! # Cancellation
//! Dropping the future cancels the tasks of all connections.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture, Pending, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;
use pin_project_lite::pin_project;

use super::conn::{Conn, Listener};
use super::error::{Addr, OpError, is_closed, is_timeout};
use crate::future;
use crate::rt::time::clock;
use crate::rt::time::sleep::Sleep;
use crate::rt::waiters::drop_payload;
use crate::task::{TaskId, TaskSet};
use crate::trace;

/// The default of [`Serve::drain`].
const DRAIN: Duration = Duration::from_secs(10);
/// The maximum time that the tasks may take to end after their connections were closed by force,
/// and again after the tasks were cancelled.
const FORCED: Duration = Duration::from_millis(20);
/// The maximum number of connections taken from the listener's queue when the server stops.
const QUEUED_MAX: usize = 4096;
/// The maximum number of accepts per poll while serving, so that other tasks get their turn.
const BATCH_MAX: usize = 64;

/// The time after a failed accept before the next one, so that a lasting error, such as that of a
/// security module, does not keep a thread busy.
const ERROR_PAUSE: Duration = Duration::from_millis(5);

/// Serves each connection that `listener` accepts with `handler`, in its own task.
///
/// Await the returned value. Its methods set limits and control when and how the server stops.
/// Without [`until`](Serve::until), the server runs until the listener is closed or an accept fails
/// with an error that would persist. To close the listener, or to use it while the server runs,
/// pass an `Arc` of it. A connection is closed when its last handle is dropped.
///
/// A panic in a handler ends only its connection. A panic in a hook ends only this call of the
/// hook. A panic of the future passed to [`until`](Serve::until) stops the server, as if the future
/// had completed.
///
/// The returned value is not a future itself: for [`task::spawn`](crate::task::spawn), call its
/// method `into_future`.
///
/// The handler is called once per connection. A handler that uses shared state clones the state for
/// each connection: `move |stream| { let state = state.clone(); async move { … } }`. An `async`
/// closure that captures state is refused by the compiler, because its futures would borrow from
/// the closure.
///
/// # Errors
/// If an accept fails with an error that would persist, the server stops, drains its connections
/// and returns the error. Such errors are EINVAL (another owner of the socket has shut it down),
/// EBADF, ENOTSOCK and EOPNOTSUPP; `TimedOut` after the listener's deadline; and the error of a
/// runtime that was shut down. After other errors the server continues, 5 ms later. If the listener
/// is closed, the server stops without an error. If closing the listener fails, the server returns
/// that error.
///
/// # Cancel safety
/// Dropping the future drops the listener and cancels the tasks of all connections.
///
/// # Examples
/// ```
/// use netpoll::{io, net::{self, TcpListener, TcpStream}, prelude::*, task};
/// use std::time::Duration;
///
/// # fn main() -> io::Result<()> {
/// task::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let addr = listener.local_addr()?;
///     let (stop, stopped) = futures::channel::oneshot::channel::<()>();
///     let server = task::spawn(
///         net::serve(listener, |stream: TcpStream| async move { io::copy(&mut &stream, &mut &stream).await })
///             .max_connections(1000)
///             .until(stopped) // signal::termination()? in a real server
///             .drain(Duration::from_secs(5))
///             .when_stopping(|stream| drop(stream.close_read()))
///             .into_future(),
///     );
///     let client = TcpStream::connect(addr).await?;
///     client.write_all(b"hi").await?;
///     let mut echoed = [0; 2];
///     (&client).read_exact(&mut echoed).await?;
///     drop(stop);
///     let report = server.await?;
///     assert_eq!((report.accepted, report.stragglers.len()), (1, 0));
///     Ok(())
/// })
/// # }
/// ```
pub fn serve<L, H, F>(listener: L, handler: H) -> Serve<L, H>
where
    L: Listener,
    H: Fn(L::Conn) -> F + Send + Sync + 'static,
    F: Future + Send + 'static,
{
    Serve {
        listener,
        handler,
        stop: pending(),
        max_connections: usize::MAX,
        drain: DRAIN,
        when_stopping: None,
        on_error: None,
    }
}

type Hook<T> = Option<Arc<dyn Fn(&T) + Send + Sync>>;

/// A server that runs when it is awaited; returned by [`serve`].
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<L: Listener, H, S = Pending<()>> {
    listener: L,
    handler: H,
    stop: S,
    max_connections: usize,
    drain: Duration,
    when_stopping: Hook<L::Conn>,
    on_error: Hook<io::Error>,
}

impl<L: Listener, H, S> Serve<L, H, S> {
    /// Stops the server gracefully when `stop` completes or panics. The output of `stop` is
    /// ignored.
    ///
    /// The server first accepts the connections in the listener's queue, up to 4,096, even beyond
    /// its own limit and that of the listener, because their clients may have sent requests. Then
    /// it closes the listener. Connections that cannot be accepted for lack of descriptors or
    /// memory are reset, unless the listener has [reserved
    /// descriptors](super::ListenConfig::reserve_descriptors) with which it refuses them.
    #[doc(alias = "with_graceful_shutdown")]
    pub fn until<T: Future>(self, stop: T) -> Serve<L, H, T> {
        let Serve { listener, handler, max_connections, drain, when_stopping, on_error, .. } = self;
        Serve { listener, handler, stop, max_connections, drain, when_stopping, on_error }
    }

    /// Limits the number of connections that are served at a time. A limit of 0 counts as 1.
    /// Further connections wait in the listener's queue. The default is no limit. The listener's
    /// own limit also applies. When the server stops, it also serves up to 4,096 connections from
    /// the queue, even beyond this limit and that of the listener.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Sets how long connections may take to end after the server has begun to stop. The default is
    /// 10 seconds. The server returns at most 50 ms after this time, unless the thread that polls
    /// it is blocked, for example by a hook.
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// Sets a function that is called for each connection that is still open when the server begins
    /// to stop.
    ///
    /// If the hook calls [`TcpStream::close_read`](super::TcpStream::close_read), no request that
    /// has arrived is lost: the handler reads these requests, then end of stream, as if the client
    /// had closed its sending side. A read deadline in the past also ends a handler that is waiting
    /// for a request, but a request that has arrived and has not been read yet is lost.
    ///
    /// If the hook panics, the server continues with the next connection.
    pub fn when_stopping(mut self, hook: impl Fn(&L::Conn) + Send + Sync + 'static) -> Self {
        self.when_stopping = Some(Arc::new(hook));
        self
    }

    /// Sets a function that is called with each error of accepting a connection, whether or not the
    /// error stops the server. The function is not called when the listener is closed, or when no
    /// descriptor or memory is available. While none is available, the server waits. If the
    /// function panics, the server continues.
    pub fn on_error(mut self, hook: impl Fn(&io::Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(hook));
        self
    }
}

impl<L: Listener, H, S> fmt::Debug for Serve<L, H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("max_connections", &self.max_connections)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

impl<L, H, F, S> IntoFuture for Serve<L, H, S>
where
    L: Listener,
    H: Fn(L::Conn) -> F + Send + Sync + 'static,
    F: Future + Send + 'static,
    F::Output: Send,
    S: Future + Send + 'static,
{
    type Output = io::Result<Report>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<Report>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// Statistics about a server's connections; the output of [`serve`]'s future.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{self, TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let addr = listener.local_addr()?;
/// let report = net::serve(listener, |stream: TcpStream| async move {
///     let _ = stream.write_all(b"hello").await;
/// })
/// .until(async move {
///     let client = TcpStream::connect(addr).await.unwrap();
///     client.read(&mut [0; 8]).await.unwrap();
/// })
/// .await?;
/// assert_eq!((report.accepted, report.panicked), (1, 0));
/// assert!(report.stragglers.is_empty());
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The number of accepted connections.
    pub accepted: u64,
    /// The number of handlers that panicked.
    pub panicked: u64,
    /// The connections whose tasks had not ended at the end of the drain time. Those that were
    /// still open were closed by force.
    pub stragglers: Vec<Straggler>,
}

/// A connection whose task did not end within the drain time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Straggler {
    /// The peer's address, if there is one.
    pub peer: Option<Addr>,
    /// The task of the handler.
    pub task: TaskId,
    /// The time from accepting the connection until the report was made.
    pub age: Duration,
    /// Whether the task ended by itself after its connection was closed. If false, the task was
    /// cancelled.
    pub ended: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The handler of a straggler may have dropped its connection before the forced close.
        write!(f, "{} connections accepted, {} not ended in the drain time", self.accepted, self.stragglers.len())?;
        self.stragglers.iter().try_for_each(|straggler| write!(f, "\n{straggler}"))
    }
}

impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}, connection", self.task)?;
        if let Some(peer) = &self.peer {
            write!(f, " from {peer}")?;
        }
        write!(f, ", open for {:.1?}", self.age)?;
        if self.ended { Ok(()) } else { f.write_str(", did not end when it was closed") }
    }
}

/// A connection that is being served.
struct Open<C> {
    /// Returns a handle, or `None` if the last handle has been dropped.
    conn: Box<dyn Fn() -> Option<C> + Send + Sync>,
    peer: Option<Addr>,
    since: Instant,
}

/// The open connections, and the report so far.
struct Serving<C> {
    /// The map is ordered, so that a simulation can repeat the calls of `when_stopping`.
    open: BTreeMap<TaskId, Open<C>>,
    /// The handlers' tasks. Each returns whether its handler panicked.
    tasks: TaskSet<bool>,
    report: Report,
}

impl<C: Conn + Clone> Serving<C> {
    fn begin<F>(&mut self, conn: C, handler: impl FnOnce(C) -> F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.report.accepted += 1;
        let begun = contained(|| {
            let open = Open { peer: conn.peer(), conn: conn.handles(), since: clock::instant() };
            (open, handler(conn))
        });
        let Some((open, future)) = begun else {
            self.report.panicked += 1;
            return;
        };
        let served = trace::in_connection(open.peer.as_ref().map(|addr| addr as _), Contained { future });
        let id = self.tasks.spawn(served);
        self.open.insert(id, open);
    }

    /// Removes the connections that have ended. Returns `Ready` when no connection is left.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.tasks.poll_end(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(()),
                // A task without a result was dropped by a shutdown of the runtime, which also ends
                // the accept loop.
                Poll::Ready(Some((id, panicked))) => {
                    contained(|| drop(self.open.remove(&id)));
                    self.report.panicked += u64::from(panicked == Some(true));
                }
            }
        }
    }

    /// Waits until no connection is left, or `most` is over.
    async fn all_ended(&mut self, most: &mut Sleep) {
        poll_fn(|cx| match self.poll_ended(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Pin::new(&mut *most).poll(cx),
        })
        .await;
    }

    /// Closes the remaining connections by force, cancels the tasks that do not end, and returns
    /// the report.
    async fn end(mut self) -> Report {
        let left: Vec<_> = self.open.iter().map(|(&id, open)| (id, open.peer.clone(), open.since)).collect();
        for open in self.open.values() {
            contained(|| (open.conn)().map(|conn| drop(conn.force_close())));
        }
        self.all_ended(&mut Sleep::new(FORCED)).await;
        let stragglers = left.into_iter().map(|(task, peer, since)| {
            let ended = !self.open.contains_key(&task);
            Straggler { peer, task, age: clock::instant().saturating_duration_since(since), ended }
        });
        self.report.stragglers = stragglers.collect();
        // A task that blocks its thread is cancelled only when its poll returns.
        let _ = future::timeout(FORCED, self.tasks.cancel_all()).await;
        self.report
    }
}

/// How many connections a server accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// None, because the server is at its limit.
    None,
    /// At least one, if the listener's limit permits it.
    Some,
    /// All connections of the queue, because the server stops.
    Unlimited,
}

/// The waker for one attempt to empty the listener's queue. If a listener wakes its task and then
/// returns `Pending`, its queue may still contain connections, because the task's budget is used
/// up, the listener has refused many connections, or a connection has just arrived.
struct Attempt {
    task: Waker,
    woken: AtomicBool,
}

impl Wake for Attempt {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

pin_project! {
    /// The future of a handler whose panic is caught. Its output is whether the handler panicked.
    struct Contained<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let future = self.project().future;
        match contained(|| future.poll(cx).map(drop)) {
            Some(polled) => polled.map(|()| false),
            None => Poll::Ready(true),
        }
    }
}

/// Calls user code. Returns `None` if it panics.
fn contained<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(drop_payload).ok()
}

impl<L, H, F, S> Serve<L, H, S>
where
    L: Listener,
    H: Fn(L::Conn) -> F + Send + Sync + 'static,
    F: Future + Send + 'static,
    F::Output: Send,
    S: Future + Send + 'static,
{
    async fn run(self) -> io::Result<Report> {
        let Serve { listener, handler, stop, max_connections, drain, when_stopping, on_error } = self;
        let mut serving = Serving { open: BTreeMap::new(), tasks: TaskSet::new(), report: Report::default() };
        // `None` once the stream has ended or an error would persist, because a stream must not be
        // polled after its end.
        let mut incoming = Some(listener.incoming());
        // Whether the stream ignores the listener's limit.
        let mut is_unlimited = false;
        let mut stop = pin!(stop);
        let mut ended = None;
        // Waits for the end of the listener while the server is at its limit and does not accept.
        let mut watch: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + '_>>> = None;
        let mut pause: Option<Sleep> = None;
        let mut accept = |serving: &mut Serving<L::Conn>, room: Room, cx: &mut Context<'_>| {
            let Some(stream) = &mut incoming else { return Poll::Ready(false) };
            let is_full = room == Room::None;
            if let Some(sleep) = pause.as_mut().filter(|_| room != Room::Unlimited) {
                ready!(Pin::new(sleep).poll(cx));
                pause = None;
            }
            if room == Room::Unlimited && !is_unlimited {
                is_unlimited = true;
                if let Some(unlimited) = listener.incoming_beyond_limit() {
                    *stream = unlimited;
                }
            }
            let next = if is_full {
                let watch = watch.get_or_insert_with(|| Box::pin(listener.ended()));
                watch.as_mut().poll(cx).map(|reason| reason.err().map(Err))
            } else {
                watch = None;
                Pin::new(stream).poll_next(cx)
            };
            match next {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => {
                    incoming = None;
                    Poll::Ready(false)
                }
                Poll::Ready(Some(Ok(conn))) => {
                    serving.begin(conn, &handler);
                    Poll::Ready(true)
                }
                Poll::Ready(Some(Err(error))) => {
                    if is_closed(&error) {
                        return Poll::Ready(false);
                    }
                    if is_full && !is_last(&error) {
                        // An accept may still succeed. The wait is repeated when a connection has
                        // ended.
                        watch = None;
                        return Poll::Pending;
                    }
                    if let Some(hook) = &on_error {
                        contained(|| hook(&error));
                    }
                    if !is_last(&error) {
                        pause = Some(Sleep::new(ERROR_PAUSE));
                        return Poll::Ready(true);
                    }
                    incoming = None;
                    ended = Some(error);
                    Poll::Ready(false)
                }
            }
        };
        poll_fn(|cx| {
            if contained(|| stop.as_mut().poll(cx).is_ready()).unwrap_or(true) {
                return Poll::Ready(());
            }
            for _ in 0..BATCH_MAX {
                // Polled again after each spawn, because polling an empty set does not register the
                // waker.
                let _ = serving.poll_ended(cx);
                let room = if serving.open.len() < max_connections { Room::Some } else { Room::None };
                match accept(&mut serving, room, cx) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        let mut drain = Sleep::new(drain);
        // Takes the queued connections first, because closing the listener would reset them.
        let mut queued = 0;
        poll_fn(|cx| {
            let attempt = Arc::new(Attempt { task: cx.waker().clone(), woken: AtomicBool::new(false) });
            let waker = Waker::from(attempt.clone());
            while queued < QUEUED_MAX {
                match accept(&mut serving, Room::Unlimited, &mut Context::from_waker(&waker)) {
                    Poll::Ready(true) => queued += 1,
                    Poll::Ready(false) => break,
                    // A listener may refuse connections without end.
                    Poll::Pending if attempt.woken.load(Ordering::Acquire) => return Pin::new(&mut drain).poll(cx),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(())
        })
        .await;
        drop((incoming, watch));
        let closed = listener.close();
        if let Some(hook) = &when_stopping {
            for open in serving.open.values() {
                contained(|| (open.conn)().map(|conn| hook(&conn)));
            }
        }
        serving.all_ended(&mut drain).await;
        let report = serving.end().await;
        let closed = closed.await;
        match ended.or_else(|| closed.err().filter(|error| !is_closed(error))) {
            Some(error) => Err(error),
            None => Ok(report),
        }
    }
}

/// Returns whether the next accept would fail with the same error.
fn is_last(error: &io::Error) -> bool {
    let op = error.get_ref().and_then(|inner| inner.downcast_ref::<OpError>());
    let number = error.raw_os_error().or_else(|| op?.raw_os_error());
    is_timeout(error)
        || op.is_some_and(OpError::is_shut_down)
        || matches!(number, Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP))
}
