//! hyper's executor and timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::hyper::rt;

use crate::task;
use crate::time::Sleep;

/// Runs hyper's futures (HTTP/2 has one a stream) as tasks: [`task::spawn`].
///
/// # Examples
/// ```
/// let http2 = hyper::server::conn::http2::Builder::new(netpoll::hyper::Executor);
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

/// hyper's timer, made of [`Sleep`]s that are moved in place.
///
/// Moving one to a later time stores the time and nothing else: the sleep wakes once at the earlier time and goes on.
///
/// # Examples
/// ```
/// let mut http1 = hyper::server::conn::http1::Builder::new();
/// http1.timer(netpoll::hyper::Timer).header_read_timeout(std::time::Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        let sleep = Sleep::new(duration);
        Box::pin(Movable { when: sleep.deadline(), sleep })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Movable { when: Some(deadline), sleep: Sleep::until(deadline) })
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Movable>() {
            Some(movable) => movable.get_mut().reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

/// A sleep until `when` (`None`: for ever), of which the inner one may be earlier.
#[derive(Debug)]
struct Movable {
    when: Option<Instant>,
    sleep: Sleep,
}

impl Movable {
    fn reset(&mut self, deadline: Instant) {
        self.when = Some(deadline);
        if self.sleep.deadline().is_none_or(|armed| deadline < armed) {
            self.sleep.reset(deadline);
        }
    }
}

impl Future for Movable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(Pin::new(&mut self.sleep).poll(cx));
            match self.when {
                Some(when) if self.sleep.deadline().is_some_and(|armed| armed < when) && Instant::now() < when => {
                    self.sleep.reset(when);
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl rt::Sleep for Movable {}
