//! Deadline and timeout methods shared by all socket types, over
//! [`NetFd`](super::net_fd::NetFd).

use std::io;
use std::time::{Duration, Instant};

use crate::rt::context;
use crate::rt::time::clock;

/// Returns the time at which a dial with this timeout ends; `None` if it is beyond the clock's
/// range.
///
/// # Errors
/// Returns `InvalidInput` for a timeout of zero, as in std.
pub(super) async fn dial_ends(timeout: Duration) -> io::Result<Option<Instant>> {
    if timeout.is_zero() {
        context::take_turn().await;
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "connect timeout must not be zero"));
    }
    Ok(clock::instant().checked_add(timeout))
}

/// Implements the methods for a type with a field `fd`, where `io`, `Direction`, `Duration` and
/// `Instant` are in scope. Attributes after the name, such as an example, are added to the
/// documentation of `set_deadline`.
macro_rules! deadline_methods {
    ($type:ident $(; $(#[$example:meta])*)?) => {
        /// Deadlines and timeouts.
        impl $type {
            /// Sets the time at which reads and writes (or receives and sends) fail with
            /// `TimedOut`; `None` removes it.
            ///
            /// The deadline applies to operations that already wait and stays until it is changed.
            /// A deadline in the past fails waiting operations at once. An expired deadline takes
            /// precedence over available data, which is kept.
            /// [`is_timeout`](crate::net::is_timeout) recognises the error.
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after an explicit close.
            $($(#[$example])*)?
            #[doc(alias = "SetDeadline")]
            pub fn set_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                let deadline = deadline.into();
                self.fd.set_deadline(Direction::Read, deadline)?;
                self.fd.set_deadline(Direction::Write, deadline)
            }

            /// Sets the deadline of reads (receives) only; see
            /// [`set_deadline`](Self::set_deadline).
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after an explicit close.
            #[doc(alias = "SetReadDeadline")]
            pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Read, deadline.into())
            }

            /// Sets the deadline of writes (sends) only; see [`set_deadline`](Self::set_deadline).
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after an explicit close.
            #[doc(alias = "SetWriteDeadline")]
            pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Write, deadline.into())
            }

            /// Sets how long each read may wait; `None` removes the limit. The time is counted from
            /// when the read begins to wait. If a deadline is set as well, the earlier one applies.
            ///
            /// With the stream traits, where a read is a series of polls, the time runs from the
            /// first poll that waits to the one that completes.
            ///
            /// # Errors
            /// Returns `InvalidInput` for zero, as in std.
            #[doc(alias = "SO_RCVTIMEO")]
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Read, timeout)
            }

            /// Sets how long each write may wait; otherwise like
            /// [`set_read_timeout`](Self::set_read_timeout).
            ///
            /// # Errors
            /// Returns `InvalidInput` for zero, as in std.
            #[doc(alias = "SO_SNDTIMEO")]
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Write, timeout)
            }

            /// Returns the timeout set by [`set_read_timeout`](Self::set_read_timeout).
            ///
            /// # Errors
            /// None; the signature is std's.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeout(Direction::Read))
            }

            /// Returns the timeout set by [`set_write_timeout`](Self::set_write_timeout).
            ///
            /// # Errors
            /// None; the signature is std's.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeout(Direction::Write))
            }
        }
    };
}

pub(super) use deadline_methods;
