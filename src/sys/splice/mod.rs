//! System calls that move bytes inside the kernel. If the system does not have them, they are
//! refused, and the callers copy.

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
