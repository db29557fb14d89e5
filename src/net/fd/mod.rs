//! The layers between a socket type and its descriptor: [`net_fd`] knows addresses and names,
//! [`fd`](self::fd) makes the calls and closes, [`fd_mutex`] decides which operation may call.

pub(crate) mod dial;
mod fast_open;
#[allow(clippy::module_inception)]
pub(crate) mod fd;
pub(crate) mod fd_mutex;
pub(crate) mod net_fd;
pub(crate) mod operation;
#[cfg(test)]
mod seam_tests;
