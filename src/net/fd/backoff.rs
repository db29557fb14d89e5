//! [`Backoff`]: the lengths of pauses between retries.

use std::time::Duration;

/// The pauses between retries when no event reports progress. Each pause is twice as long as the
/// previous one, up to `most`.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { next: first, most }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}
