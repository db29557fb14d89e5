//! Empty counterparts of the Linux-only options of new sockets in `linux.rs`, for systems on which
//! this crate does not support these options.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::Domain;

/// The Linux-only options of a TCP socket. This system has none.
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

/// The Linux-only options of a listener. This system has none.
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

/// The Linux-only options of a dial. This system has none.
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
