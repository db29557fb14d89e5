//! Deadlines and timeouts as every socket has them: the methods, over [`NetFd`](super::fd::net_fd::NetFd).

use std::io;
use std::time::{Duration, Instant};

/// Until when a dial that begins now may take; none where that is beyond the clock.
///
/// # Errors
/// `InvalidInput` for a timeout of zero, as in std.
pub(super) fn dial_ends(timeout: Duration) -> io::Result<Option<Instant>> {
    if timeout.is_zero() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a connect timeout of zero leaves no time"));
    }
    Ok(Instant::now().checked_add(timeout))
}

/// Declares them for a type with a field `fd`, where `io`, `Direction`, `Duration` and `Instant` are in scope. What follows the
/// name is added to the documentation of `set_deadline`: an example.
macro_rules! deadline_methods {
    ($type:ident $(; $(#[$example:meta])*)?) => {
        /// Deadlines and timeouts.
        impl $type {
            /// Sets when reads and writes (receiving and sending) time out, or (`None`) that they do not. It applies to what waits
            /// already and stays until it is moved; one in the past ends what waits at once. An expired deadline comes before data
            /// that is there.
            ///
            /// # Errors
            /// [Closed](crate::net::is_closed) after an explicit close.
            $($(#[$example])*)?
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                let deadline = deadline.into();
                self.fd.set_deadline(Direction::Read, deadline)?;
                self.fd.set_deadline(Direction::Write, deadline)
            }

            /// The same for reads only.
            ///
            /// # Errors
            /// [Closed](crate::net::is_closed) after an explicit close.
            pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Read, deadline.into())
            }

            /// The same for writes only.
            ///
            /// # Errors
            /// [Closed](crate::net::is_closed) after an explicit close.
            pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Write, deadline.into())
            }

            /// Sets for how long a read may wait, counted anew by each that has to. Where a deadline is set as well, the earlier wins.
            ///
            /// Through the traits of streams, where a read is a series of polls, it begins with the first poll that has to wait and ends
            /// with the one that does not.
            ///
            /// # Errors
            /// `InvalidInput` for zero, as in std.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Read, timeout)
            }

            /// The same for writes.
            ///
            /// # Errors
            /// `InvalidInput` for zero, as in std.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Write, timeout)
            }

            /// What [`set_read_timeout`](Self::set_read_timeout) set.
            ///
            /// # Errors
            /// None today; the signature is std's.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeout(Direction::Read))
            }

            /// What [`set_write_timeout`](Self::set_write_timeout) set.
            ///
            /// # Errors
            /// None today; the signature is std's.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeout(Direction::Write))
            }
        }
    };
}

pub(super) use deadline_methods;
