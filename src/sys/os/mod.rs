//! Differences between systems. There is one file per system, and one per group of systems that
//! share definitions. Together they define the same names on every system, except that `sendfile`
//! is not defined on Linux.

#[cfg(not(target_os = "linux"))]
mod bsd;
#[cfg(any(target_os = "freebsd", target_os = "linux"))]
mod flags;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;

#[cfg(not(target_os = "linux"))]
pub(crate) use bsd::*;
#[cfg(any(target_os = "freebsd", target_os = "linux"))]
pub(crate) use flags::*;
#[cfg(target_os = "freebsd")]
pub(crate) use freebsd::*;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;
