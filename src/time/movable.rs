//! [`Movable`]: a sleep that is reset more often than it ends.
//!
//! A protocol resets its timer on every packet or request, usually to a later time. A reset to a
//! later time only stores that time. If the inner sleep ends before the stored time, the next poll
//! resets the inner sleep to the stored time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::rt::time::clock;
use crate::rt::time::sleep::Sleep;

/// A sleep that is cheap to reset to a later time.
#[derive(Debug)]
pub struct Movable {
    /// The time at which the sleep ends, or `None` if it never ends.
    when: Option<Instant>,
    /// The deadline of `sleep`, which may be earlier than `when`. A copy is kept because
    /// `Sleep::deadline` converts the time on each call.
    armed: Option<Instant>,
    sleep: Sleep,
}

impl Movable {
    /// Wraps `sleep` and keeps its deadline.
    pub fn new(sleep: Sleep) -> Movable {
        let armed = sleep.deadline();
        Movable { when: armed, armed, sleep }
    }

    /// Moves the end of the sleep to `deadline`.
    pub fn reset(&mut self, deadline: Instant) {
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
                Some(when) if self.armed.is_some_and(|armed| armed < when) && clock::instant() < when => self.arm(when),
                _ => return Poll::Ready(()),
            }
        }
    }
}
