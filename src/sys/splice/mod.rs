//! System calls that move bytes inside the kernel. On systems that do not have a call, its function
//! returns ENOSYS, and the caller copies the bytes through a buffer.

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
