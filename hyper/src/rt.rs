//! [`Executor`] and [`Timer`]: implementations of hyper's runtime traits.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt;
use netpoll::task;
use netpoll::time::{Movable, Sleep};

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

/// The timer of one HTTP/1 connection.
///
/// hyper creates a sleep for the head of each request and drops the sleep when the head has
/// arrived. This timer keeps the dropped sleep armed and resets it for the next request. So only
/// the first request arms a new sleep, but the sleep wakes the connection spuriously about once per
/// time limit.
#[derive(Debug, Default)]
pub(super) struct ConnectionTimer(Home);

/// The place where a dropped sleep is kept for the next request.
type Home = Arc<Mutex<Option<Movable>>>;

impl rt::Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Timer.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        let mut movable = lock(&self.0).take().unwrap_or_else(|| Movable::new(Sleep::until(deadline)));
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
    home: Option<Home>,
}

impl Pause {
    fn new(sleep: Sleep) -> Pause {
        Pause { movable: Movable::new(sleep), home: None }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.movable).poll(cx)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let movable = std::mem::replace(&mut self.movable, Movable::new(Sleep::never()));
            let replaced = lock(&home).replace(movable);
            drop(replaced);
        }
    }
}

impl rt::Sleep for Pause {}
