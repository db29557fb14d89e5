//! System calls of the socket layer.
//!
//! Most functions take and return `OwnedFd` and `BorrowedFd`, the address types of std and `socket2`, and
//! `io::Result`. Calls go through libc's functions, directly or through `socket2` and std, so that
//! sanitizers and preloaded libraries see them. There are two exceptions: recv and send bypass these
//! functions if the functions are glibc's own ([`calls`]), and libc has no function for
//! membarrier(2). A function that does not say that it blocks neither retries nor waits for a socket,
//! because `net::fd::operation`, which knows the deadlines, handles EINTR and EAGAIN. The calls of epoll(7)
//! are in the poller (`rt/poll/epoll.rs`).

pub(crate) mod batch;
mod calls;
pub(crate) mod control;
pub(crate) mod fd;
pub(crate) mod identity;
pub(crate) mod inherit;
#[cfg(any(all(test, target_pointer_width = "64"), not(target_os = "linux")))]
pub(crate) mod kqueue;
pub(crate) mod membarrier;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod option;
pub(crate) mod os;
pub(crate) mod placeholder;
#[cfg(test)]
pub(crate) mod seam;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod splice;
pub(crate) mod unix;
pub(crate) mod zerocopy;
