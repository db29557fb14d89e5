//! Empty option types for systems that have none of these options.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::Domain;

/// The options of a stream: none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpExtras;

impl TcpExtras {
    pub(crate) const fn new() -> TcpExtras {
        TcpExtras
    }

    pub(crate) fn apply(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// The options of a listener: none.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenExtras;

impl ListenExtras {
    pub(crate) fn is_multipath(&self) -> bool {
        false
    }

    pub(crate) fn open(&self, _domain: Domain) -> Option<OwnedFd> {
        None
    }

    pub(crate) fn apply(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// The options of a dial: none.
#[derive(Clone, Debug)]
pub(crate) struct DialExtras;

impl DialExtras {
    pub(crate) const fn new() -> DialExtras {
        DialExtras
    }

    pub(crate) fn open(&self, _domain: Domain) -> Option<OwnedFd> {
        None
    }

    pub(crate) fn apply(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}
