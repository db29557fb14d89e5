//! System calls that move bytes inside the kernel. On a system that does not have one of these
//! calls, the function that needs it returns ENOSYS, and its caller copies the bytes through a
//! buffer.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(any(test, not(target_os = "linux")))]
mod send_file;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;
