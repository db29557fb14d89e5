//! The deadline and timeout methods of all sockets except listeners, and the end of a dial with a
//! timeout.

use std::io;
use std::time::{Duration, Instant};

use crate::rt::context;
use crate::rt::time::clock;

/// Returns the time at which a dial with `timeout` times out; `None` if it is beyond the clock's
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
            /// Sets the deadline, after which reads and writes (or receives and sends) fail with
            /// `TimedOut`. `None` removes the deadline.
            ///
            /// The deadline also applies to operations that are already waiting, and stays set
            /// until it is changed. A deadline in the past fails waiting operations immediately. An
            /// expired deadline takes precedence over available data, which stays in the socket.
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

            /// Sets the deadline only of reads (receives); see
            /// [`set_deadline`](Self::set_deadline).
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after an explicit close.
            #[doc(alias = "SetReadDeadline")]
            pub fn set_read_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Read, deadline.into())
            }

            /// Sets the deadline only of writes (sends); see [`set_deadline`](Self::set_deadline).
            ///
            /// # Errors
            /// Returns a [closed](crate::net::is_closed) error after an explicit close.
            #[doc(alias = "SetWriteDeadline")]
            pub fn set_write_deadline(&self, deadline: impl Into<Option<Instant>>) -> io::Result<()> {
                self.fd.set_deadline(Direction::Write, deadline.into())
            }

            /// Sets how long each read may wait; `None` removes the limit. The time starts when the
            /// read begins to wait. If a deadline is also set, the earlier limit applies.
            ///
            /// With the stream traits, where a read is a series of polls, the time runs from the
            /// first poll that waits to the poll that completes. If the next poll comes long after
            /// the time has passed, it begins a new read.
            ///
            /// # Errors
            /// Returns `InvalidInput` if `timeout` is zero, as in std.
            #[doc(alias = "SO_RCVTIMEO")]
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Read, timeout)
            }

            /// Sets how long each write may wait. This method works like
            /// [`set_read_timeout`](Self::set_read_timeout). For an operation that writes all of a
            /// buffer or a file, the time starts again after each partial write.
            ///
            /// # Errors
            /// Returns `InvalidInput` if `timeout` is zero, as in std.
            #[doc(alias = "SO_SNDTIMEO")]
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.fd.set_timeout(Direction::Write, timeout)
            }

            /// Returns the timeout set by [`set_read_timeout`](Self::set_read_timeout).
            ///
            /// # Errors
            /// Never returns an error. The signature is std's.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeouts.get(Direction::Read))
            }

            /// Returns the timeout set by [`set_write_timeout`](Self::set_write_timeout).
            ///
            /// # Errors
            /// Never returns an error. The signature is std's.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.fd.fd.timeouts.get(Direction::Write))
            }
        }
    };
}

pub(super) use deadline_methods;
