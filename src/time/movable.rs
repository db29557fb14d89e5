//! `Movable`: a sleep that is moved more often than it ends.
//!
//! A protocol moves its timer with every packet or request, mostly to a later time. That stores the time and nothing else: the sleep
//! beneath wakes once at the earlier time and goes on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::rt::time::sleep::Sleep;

/// A sleep until `when` (`None`: for ever), of which the inner one, until `armed`, may be earlier.
#[derive(Debug)]
pub(crate) struct Movable {
    when: Option<Instant>,
    /// What `sleep` says, which takes a conversion.
    armed: Option<Instant>,
    sleep: Sleep,
}

impl Movable {
    /// Ends with `sleep`, which it takes armed as it is.
    pub(crate) fn new(sleep: Sleep) -> Movable {
        let armed = sleep.deadline();
        Movable { when: armed, armed, sleep }
    }

    pub(crate) fn reset(&mut self, deadline: Instant) {
        self.when = Some(deadline);
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.arm(deadline);
        }
    }

    fn arm(&mut self, deadline: Instant) {
        self.sleep.reset(deadline);
        self.armed = self.sleep.deadline();
    }
}

impl Future for Movable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(Pin::new(&mut self.sleep).poll(cx));
            match self.when {
                Some(when) if self.armed.is_some_and(|armed| armed < when) && Instant::now() < when => self.arm(when),
                _ => return Poll::Ready(()),
            }
        }
    }
}
