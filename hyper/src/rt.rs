//! [`Executor`] and [`Timer`]: implementations of hyper's runtime traits.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt;
use netpoll::task;
use netpoll::time::{Movable, Sleep};

use super::activity::Activity;
use super::connection::CHECK_MIN;
use super::lock;

/// An executor for hyper. It runs hyper's futures, such as one per HTTP/2 stream, as tasks with
/// [`task::spawn`].
///
/// # Examples
/// ```
/// let http2 = hyper::server::conn::http2::Builder::new(netpoll_hyper::Executor);
/// # drop(http2);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(task::spawn(future));
    }
}

/// A timer for hyper, based on [`Sleep`].
///
/// Resetting a sleep of this timer does not allocate. A reset to a later time only stores this
/// time. netpoll's timer still fires at the earlier time, and is then armed for the later time.
///
/// # Examples
/// ```
/// let mut http1 = hyper::server::conn::http1::Builder::new();
/// http1.timer(netpoll_hyper::Timer).header_read_timeout(std::time::Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Pause::new(Sleep::new(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Pause::new(Sleep::until(deadline)))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Pause>() {
            Some(pause) => pause.get_mut().movable.reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

/// The timer of one HTTP/1 connection, which limits the time for the head of a request.
///
/// hyper creates a sleep for the head of each request and drops the sleep when the head has
/// arrived. This timer keeps the dropped sleep armed and resets it for the next request. So only
/// the first request arms a new sleep, but the sleep wakes the connection spuriously about once per
/// time limit.
///
/// If the body of a request ends after hyper has taken the whole response, hyper creates the sleep
/// for the next head although part of the response may still have to be sent. Therefore, a sleep
/// does not end before the time limit has passed since the response was sent.
#[derive(Debug)]
pub(super) struct ConnectionTimer(Arc<Home>);

/// The state that the sleeps of a connection share.
#[derive(Debug)]
struct Home {
    /// A dropped sleep, for the next request.
    movable: Mutex<Option<Movable>>,
    activity: Arc<Activity>,
    limit: Option<Duration>,
}

impl ConnectionTimer {
    /// Creates the timer of a connection. `limit` is the time limit for the head of a request.
    pub(super) fn new(activity: Arc<Activity>, limit: Option<Duration>) -> ConnectionTimer {
        ConnectionTimer(Arc::new(Home { movable: Mutex::new(None), activity, limit }))
    }
}

impl Home {
    /// Returns the time at which a sleep that is due ends, or `None` if it ends now.
    fn later(&self) -> Option<Instant> {
        let (now, limit) = (Instant::now(), self.limit?.max(CHECK_MIN));
        let sent = if self.activity.is_blocked() { now } else { self.activity.sent() };
        (self.activity.used() && sent + limit > now).then(|| sent + limit)
    }
}

impl rt::Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Timer.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        let kept = lock(&self.0.movable).take();
        let mut movable = kept.unwrap_or_else(|| Movable::new(Sleep::until(deadline)));
        movable.reset(deadline);
        Box::pin(Pause { movable, home: Some(Arc::clone(&self.0)) })
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        Timer.reset(sleep, deadline);
    }
}

/// An implementation of hyper's `Sleep`.
#[derive(Debug)]
struct Pause {
    movable: Movable,
    /// The place to which `movable` returns when the `Pause` is dropped.
    home: Option<Arc<Home>>,
}

impl Pause {
    fn new(sleep: Sleep) -> Pause {
        Pause { movable: Movable::new(sleep), home: None }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(Pin::new(&mut self.movable).poll(cx));
            match self.home.as_ref().and_then(|home| home.later()) {
                Some(later) => self.movable.reset(later),
                None => return Poll::Ready(()),
            }
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let movable = std::mem::replace(&mut self.movable, Movable::new(Sleep::never()));
            let replaced = lock(&home.movable).replace(movable);
            drop(replaced);
        }
    }
}

impl rt::Sleep for Pause {}
