//! [`Activity`]: whether a connection has a request in progress, and whether bytes are transferred.
//!
//! The decision when to end a connection depends on both, and hyper reports neither. [`Watched`]
//! wraps the service and counts requests from their head to the end of their response. An HTTP/2
//! response ends when the last of its data has been written to the connection, or when its HTTP/2
//! stream is reset. [`Wire`](super::wire::Wire) wraps the connection's stream and counts progress.
//! The task that drives the connection reads both counts.
//!
//! # Memory ordering
//! With HTTP/2, requests are answered in separate tasks, which store `answered` and `has_tunnel`.
//! These tasks then decrement `requests` with Release, and the connection's task reads `requests`
//! with Acquire.
//!
//! The task that owns an upgraded stream reads `released`, and reads and writes `progress`,
//! `blocked`, `unflushed`, `sent` and `closing`. Only the connection's own task writes and reads
//! `used`, `has_body` and `draining`. The fields `watch`, `start` and `counted` are set before the
//! first request, and do not change afterwards.

use std::future::{Future, pending};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body::{Body, Frame, SizeHint};
use hyper::body::{Buf, Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;

use super::drain::Counted;
use super::listener::Watch;

/// The activity of one connection, shared by its task, its service and its stream.
#[derive(Debug)]
pub(super) struct Activity {
    watch: Option<Watch>,
    start: Instant,
    /// The guard that counts the connection. Only the connection's task and the requests in
    /// progress keep it, because an upgraded stream no longer counts.
    counted: Weak<Counted>,
    /// The number of requests whose responses have not ended, plus the number of chunks of HTTP/2
    /// responses that hyper has not dropped. hyper drops a chunk when it has been written.
    requests: AtomicUsize,
    /// The time at which the last HTTP/2 response ended, in nanoseconds since `start`, or 0 if none
    /// has ended.
    answered: AtomicU64,
    /// The number of completed reads and writes of the underlying stream, and of completed flushes
    /// that had to wait, modulo 2⁶⁴. Failed writes and flushes are counted. Failed reads, reads of
    /// the bytes that identify the HTTP version, and reads that discard bytes at the end are not
    /// counted.
    progress: AtomicU64,
    /// Whether at least one request has arrived.
    used: AtomicBool,
    /// Whether the last request had a body, which the service may not have read.
    has_body: AtomicBool,
    /// Whether a CONNECT request over HTTP/2 was accepted. Its tunnel is inside this connection,
    /// and the end of the tunnel cannot be observed.
    has_tunnel: AtomicBool,
    /// Whether the server is stopping, so that the connection ends after the response. Always false
    /// for HTTP/2.
    draining: AtomicBool,
    /// Whether the last write to the stream had to wait.
    blocked: AtomicBool,
    /// Whether the last flush of the stream had to wait. A stream that buffers, such as TLS, may
    /// accept the end of a response before it can send these bytes.
    unflushed: AtomicBool,
    /// The time at which a write or a flush that had to wait last ended, in nanoseconds since
    /// `start`, or 0 if none has ended.
    sent: AtomicU64,
    /// Whether hyper, or the owner of an upgraded stream, has begun to shut the stream down.
    closing: AtomicBool,
    /// Whether the connection has ended or will be upgraded, so that hyper no longer shuts the
    /// stream down.
    released: AtomicBool,
}

/// Declares a getter and a setter per flag. ORDERING: Relaxed, because a flag guards no other
/// memory.
macro_rules! flags {
    ($($flag:ident, $set:ident;)*) => {$(
        pub(super) fn $flag(&self) -> bool {
            self.$flag.load(Ordering::Relaxed)
        }

        pub(super) fn $set(&self, value: bool) {
            self.$flag.store(value, Ordering::Relaxed);
        }
    )*};
}

impl Activity {
    pub(super) fn new(watch: Option<Watch>, counted: Weak<Counted>) -> Arc<Activity> {
        Arc::new(Activity {
            watch,
            start: Instant::now(),
            counted,
            requests: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            used: AtomicBool::new(false),
            has_body: AtomicBool::new(false),
            has_tunnel: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            released: AtomicBool::new(false),
        })
    }

    flags! {
        used, set_used;
        has_body, set_has_body;
        draining, set_draining;
        closing, set_closing;
        released, set_released;
    }

    /// Returns whether bytes, the peer's FIN or an error can be read. Without a view of the socket,
    /// returns false.
    pub(super) fn is_readable(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_readable)
    }

    /// Waits for the end of the connection like [`Watch::aborted`]. Without a view of the socket,
    /// never completes.
    pub(super) async fn aborted(&self) {
        match &self.watch {
            Some(watch) => watch.aborted().await,
            None => pending().await,
        }
    }

    /// Returns whether bytes for the peer have to wait, because the peer does not read or the
    /// network is slow.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) || self.unflushed.load(Ordering::Relaxed)
    }

    /// Records whether a write to the stream has to wait.
    #[inline]
    pub(super) fn set_blocked(&self, waits: bool) {
        self.note_wait(&self.blocked, waits);
    }

    /// Records whether a flush of the stream has to wait. Returns whether the last one had to.
    pub(super) fn set_unflushed(&self, waits: bool) -> bool {
        self.note_wait(&self.unflushed, waits)
    }

    #[inline]
    fn note_wait(&self, flag: &AtomicBool, waits: bool) -> bool {
        let waited = flag.load(Ordering::Relaxed);
        if waited && !waits {
            self.sent.store(self.nanos(), Ordering::Relaxed);
        }
        flag.store(waits, Ordering::Relaxed);
        waited
    }

    /// Returns the time at which a write or a flush that had to wait last ended or, if none has
    /// ended, at which the connection began.
    pub(super) fn sent(&self) -> Instant {
        self.start + Duration::from_nanos(self.sent.load(Ordering::Relaxed))
    }

    /// Returns the time since the connection began, in nanoseconds.
    fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns whether a request is in progress or a tunnel was accepted.
    pub(super) fn is_busy(&self) -> bool {
        // ORDERING: Acquire pairs with the Release in `UnderWay::drop`, for `answered`.
        self.requests.load(Ordering::Acquire) > 0 || self.has_tunnel.load(Ordering::Relaxed)
    }

    /// Returns the time at which the last HTTP/2 response ended or, if none has ended, at which the
    /// connection began. The result is meaningless while a request is in progress.
    pub(super) fn idle_since(&self) -> Instant {
        self.start + Duration::from_nanos(self.answered.load(Ordering::Relaxed))
    }

    /// Returns a number that changes whenever hyper, or the owner of an upgraded stream, transfers
    /// bytes.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn note_progress(&self) {
        self.progress.store(self.progress().wrapping_add(1), Ordering::Relaxed);
    }
}

/// A guard that counts a request, or a chunk of its response, as in progress until the guard is
/// dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    /// Whether the request came over HTTP/2. The end of the response is recorded only for HTTP/2,
    /// because hyper has its own time limit for HTTP/1.
    is_http2: bool,
    /// Makes the connection count until the request has ended. `None` for HTTP/1, whose requests
    /// end with the task of the connection.
    _counted: Option<Arc<Counted>>,
}

impl UnderWay {
    pub(super) fn begin(activity: &Arc<Activity>, is_http2: bool) -> UnderWay {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        let counted = if is_http2 { activity.counted.upgrade() } else { None };
        UnderWay { activity: Arc::clone(activity), is_http2, _counted: counted }
    }

    /// Returns a guard for a chunk of the response. Returns `None` for HTTP/1, because an HTTP/1
    /// connection is not checked for progress.
    fn of_chunk(&self) -> Option<UnderWay> {
        self.is_http2.then(|| UnderWay::begin(&self.activity, true))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.is_http2 {
            // If two responses end at the same time, the earlier time may be stored last. The time
            // limit is then counted from the earlier time.
            self.activity.answered.store(self.activity.nanos(), Ordering::Relaxed);
        }
        // ORDERING: Release pairs with the Acquire in `Activity::is_busy`.
        self.activity.requests.fetch_sub(1, Ordering::Release);
    }
}

/// A service that counts its requests. When the server is stopping, the service adds
/// `connection: close` to HTTP/1 responses, except those that upgrade the connection.
#[derive(Debug)]
pub(super) struct Watched<S> {
    pub(super) service: S,
    pub(super) activity: Arc<Activity>,
}

impl<S, B> Service<Request<Incoming>> for Watched<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<WatchedBody<B>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Answering<S::Future> {
        let is_http2 = request.version() >= Version::HTTP_2;
        let is_connect = request.method() == Method::CONNECT;
        let wants_upgrade = request.headers().contains_key(UPGRADE);
        let under_way = UnderWay::begin(&self.activity, is_http2);
        self.activity.set_used(true);
        self.activity.set_has_body(!request.body().is_end_stream());
        Answering { future: self.service.call(request), under_way: Some(under_way), is_connect, wants_upgrade }
    }
}

pin_project! {
    /// The future of a response. Its request counts as in progress until the response ends.
    pub(super) struct Answering<F> {
        #[pin]
        future: F,
        under_way: Option<UnderWay>,
        is_connect: bool,
        wants_upgrade: bool,
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<WatchedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        if let Some(UnderWay { activity, is_http2, .. }) = &*this.under_way {
            let is_tunnel = *this.is_connect && response.status().is_success();
            let is_switch = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if *is_http2 {
                activity.has_tunnel.fetch_or(is_tunnel, Ordering::Relaxed);
            } else if is_tunnel || is_switch {
                // The new owner may shut the stream down before the connection's task continues. If
                // hyper refuses the switch because the request does not ask for one, hyper remains
                // the owner.
                activity.set_released(is_tunnel || *this.wants_upgrade);
            } else if activity.draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        let under_way = this.under_way.take();
        Poll::Ready(Ok(response.map(|body| WatchedBody { body, under_way })))
    }
}

pin_project! {
    /// The body of a response. The request is in progress until the body and, with HTTP/2, all
    /// chunks of the body have been dropped.
    pub(super) struct WatchedBody<B> {
        #[pin]
        body: B,
        under_way: Option<UnderWay>,
    }
}

impl<B: Body> Body for WatchedBody<B> {
    type Data = Chunk<B::Data>;
    type Error = B::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, B::Error>>> {
        let this = self.project();
        let under_way = &*this.under_way;
        let chunk = |data| Chunk { data, _under_way: under_way.as_ref().and_then(UnderWay::of_chunk) };
        this.body.poll_frame(cx).map_ok(|frame| frame.map_data(chunk))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A chunk of the body of a response. hyper drops the body when it has taken the last chunk. With
/// HTTP/2, this chunk may then still wait for the peer to open the flow-control window, so the
/// request is in progress until the chunk is dropped.
#[derive(Debug)]
pub(super) struct Chunk<D> {
    data: D,
    _under_way: Option<UnderWay>,
}

impl<D: Buf> Buf for Chunk<D> {
    #[inline]
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    #[inline]
    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    #[inline]
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.data.copy_to_bytes(count)
    }
}
