//! hyper's executor and timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::hyper::rt;

use crate::sync::{Arc, Mutex};
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
        Box::pin(Movable { when: sleep.deadline(), sleep, home: None })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Movable { when: Some(deadline), sleep: Sleep::until(deadline), home: None })
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Movable>() {
            Some(movable) => movable.get_mut().reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

/// The timer of one HTTP/1 connection.
///
/// hyper makes a sleep for the head of each request and drops it when the head is there. Here the dropped one is kept, armed as it is, and
/// moved for the next: in a timer's life it wakes the connection once for nothing, and a request costs no timer.
#[derive(Debug, Default)]
pub(super) struct ConnectionTimer(Home);

type Home = Arc<Mutex<Option<Sleep>>>;

impl rt::Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Timer.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        let sleep = self.0.lock().take().unwrap_or_else(|| Sleep::until(deadline));
        let mut movable = Movable { when: None, sleep, home: Some(Arc::clone(&self.0)) };
        movable.reset(deadline);
        Box::pin(movable)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: Instant) {
        Timer.reset(sleep, deadline);
    }
}

/// A sleep until `when` (`None`: for ever), of which the inner one may be earlier.
#[derive(Debug)]
struct Movable {
    when: Option<Instant>,
    sleep: Sleep,
    /// Where the inner one goes in the end.
    home: Option<Home>,
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

impl Drop for Movable {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let sleep = std::mem::replace(&mut self.sleep, Sleep::never());
            let replaced = home.lock().replace(sleep);
            drop(replaced);
        }
    }
}

impl rt::Sleep for Movable {}
