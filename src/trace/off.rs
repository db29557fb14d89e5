//! The functions used without the feature `tracing`, which do nothing.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::time::Duration;

#[inline(always)]
pub(crate) fn wants_accepts() -> bool {
    false
}

#[inline(always)]
pub(crate) fn accepted(_fd: i32, _local: Option<&dyn Display>, _peer: Option<&dyn Display>) {}

#[inline(always)]
pub(crate) fn accept_backs_off(_pause: Duration, _error: &io::Error) {}

#[inline(always)]
pub(crate) fn deadline_expired(
    _op: &'static str,
    _network: &'static str,
    _local: Option<&dyn Display>,
    _peer: Option<&dyn Display>,
) {
}

#[inline(always)]
pub(crate) fn closes(_fd: BorrowedFd<'_>, _was_asked: bool) {}

#[derive(Debug)]
pub(crate) struct Attempt;

impl Attempt {
    #[inline(always)]
    pub(crate) fn begin(_addr: SocketAddr) -> Attempt {
        Attempt
    }

    #[inline(always)]
    pub(crate) fn end<T>(self, _result: &io::Result<T>) {}
}

#[inline(always)]
pub(crate) fn task_blocks(_task: u64, _name: Option<&str>, _blocked_for: Duration) {}

#[inline(always)]
pub(crate) fn spare_started(_worker: usize) {}

#[inline(always)]
pub(crate) fn spare_ended(_worker: usize) {}

#[inline(always)]
pub(crate) fn shutdown_begins(_timeout: Duration) {}

#[inline(always)]
pub(crate) fn shutdown_ended(_threads: usize, _tasks: u64) {}

#[inline(always)]
pub(crate) fn in_task<F: Future>(_task: u64, _name: Option<&str>, _place: &'static Location<'static>, future: F) -> F {
    future
}

#[inline(always)]
pub(crate) fn in_connection<F: Future>(_peer: Option<&dyn Display>, future: F) -> F {
    future
}
