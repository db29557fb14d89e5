//! `Failure`: why an operation on a descriptor failed. The layers above turn it into an `io::Error`
//! that names the operation and the addresses.

use std::io;

use super::fd_mutex::LockError;
use crate::rt::poll::poller::{Stop, WaitError};

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The error of the system call.
    Io(io::Error),
    Closed,
    TimedOut,
    /// The runtime was shut down while the operation waited.
    Stopped,
    /// There are more operations on one socket than the lock can count.
    TooMany,
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        match error {
            LockError::Closed => Failure::Closed,
            LockError::TooMany => Failure::TooMany,
        }
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        WaitError::from(stop).into()
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Failure {
        match error {
            WaitError::Closed => Failure::Closed,
            WaitError::TimedOut => Failure::TimedOut,
            WaitError::Stopped => Failure::Stopped,
            WaitError::TooMany => Failure::TooMany,
            WaitError::Io(error) => Failure::Io(error),
        }
    }
}
