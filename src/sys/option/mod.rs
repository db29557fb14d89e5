//! Socket options, as functions on borrowed descriptors.
//!
//! Other modules read and set options only through this module, except for SO_ERROR
//! ([`take_error`](super::socket::take_error)) and the options of `sys::os`.

#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_int;

use super::control::Plain;

pub(crate) mod ip;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
pub(crate) mod socket;
pub(crate) mod tcp;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;

/// Sets an option to `value` (setsockopt(2)).
pub(crate) fn set<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for reads of its size during the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the value of an option (getsockopt(2)).
pub(crate) fn get<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for writes of `length` bytes during the call.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the memory was zeroed, and every bit pattern is a valid value of `T`.
    Ok(unsafe { value.assume_init() })
}

/// Returns whether an option is on.
pub(crate) fn is_on(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<bool> {
    get::<c_int>(fd, level, name).map(|value| value != 0)
}

/// Turns an option on or off.
pub(crate) fn switch(fd: BorrowedFd<'_>, level: c_int, name: c_int, on: bool) -> io::Result<()> {
    set(fd, level, name, c_int::from(on))
}

/// The kernel's state of a TCP socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpState {
    /// The number of the state in the kernel.
    pub(crate) state: u8,
    pub(crate) rtt_micros: u32,
    pub(crate) congestion_window: u32,
    pub(crate) retransmits: u32,
    pub(crate) unsent: u32,
    /// The number of bytes that the peer has acknowledged.
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// The numbers of segments with data that were received and sent.
    pub(crate) segments: [u32; 2],
    pub(crate) last_sent_millis: u32,
    pub(crate) last_received_millis: u32,
    /// The number of unacknowledged segments; for a listener, the number of connections in the
    /// accept queue.
    pub(crate) unacknowledged: u32,
    /// The number of selectively acknowledged segments; for a listener, the limit of the accept
    /// queue.
    pub(crate) selectively_acknowledged: u32,
}

/// The names of the TCP states, indexed by their number in the kernel.
const STATES: [&str; 12] = [
    "UNKNOWN",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

impl TcpState {
    /// TCP_LISTEN of netinet/tcp.h.
    const LISTEN: u8 = 10;

    /// Returns the name of the state, such as `ESTABLISHED`.
    pub(crate) fn name(&self) -> &'static str {
        STATES.get(usize::from(self.state)).copied().unwrap_or(STATES[0])
    }

    /// Returns whether the socket is a listener. `unacknowledged` and `selectively_acknowledged`
    /// then describe its accept queue.
    pub(crate) fn is_listener(&self) -> bool {
        self.state == TcpState::LISTEN
    }
}

/// Returns the number of connections in the accept queue of a TCP listener.
///
/// # Errors
/// Returns `InvalidInput` for a TCP socket that does not listen. Returns the error of [`tcp_state`]
/// for sockets of other protocols and, on systems other than Linux, for all sockets.
pub(crate) fn accept_queue(listener: BorrowedFd<'_>) -> io::Result<u32> {
    let state = tcp_state(listener)?;
    if state.is_listener() { Ok(state.unacknowledged) } else { Err(io::ErrorKind::InvalidInput.into()) }
}
