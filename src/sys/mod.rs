//! Functions that make system calls, and the types of their arguments.
//!
//! * [`socket`]: calls on sockets. [`message`]: messages with addresses and control data.
//!   [`batch`]: many messages per call. [`control`]: control data (cmsg(3)). [`calls`]: recv(2) and
//!   send(2) without the C library's cancellation points.
//! * [`option`]: socket options. [`zerocopy`]: MSG_ZEROCOPY. [`splice`]: splice(2) and sendfile(2).
//!   [`unix`]: calls for Unix sockets, user IDs and file locks.
//! * [`fd`]: calls on descriptors of any kind. [`placeholder`]: the descriptor whose duplicates
//!   keep the numbers of closed sockets in use. [`inherit`]: descriptors that pass from process to
//!   process.
//! * [`names`]: getaddrinfo(3), getnameinfo(3) and if_nametoindex(3). [`signal`]: the handler of
//!   SIGUSR1, and a check of signal numbers. [`membarrier`]: asymmetric fences.
//! * [`os`]: the differences between systems. `kqueue`: kqueue(2), or its model. `seam`: scripted
//!   results for unit tests.
//! * [`identity`]: comparison of a generic parameter with a type. It makes no system call.
//!
//! Most functions take and return `OwnedFd` and `BorrowedFd`, the address types of std and
//! `socket2`, and `io::Result`. Calls go through libc's functions, directly or through `socket2`
//! and std, so that sanitizers and preloaded libraries see them. There are two exceptions: recv and
//! send bypass these functions if the functions are glibc's own ([`calls`]), and libc has no
//! function for membarrier(2). A function retries a call, or waits for a socket, only if its
//! documentation says that it blocks. Otherwise `net::fd::operation`, which has the deadlines,
//! handles EINTR and EAGAIN. The calls of epoll(7) are in the poller (`rt/poll/epoll.rs`).

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
