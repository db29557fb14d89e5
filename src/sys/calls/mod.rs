//! recv(2) and send(2), the calls of most operations that move bytes. Where possible, these calls
//! are made without the cancellation points of the C library.

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(target_feature = "crt-static")
))]
mod direct;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(target_feature = "crt-static"),
    not(all(feature = "sim", not(netpoll_no_interpose)))
))]
mod kernel;
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(target_feature = "crt-static")
)))]
use libc as direct;

pub(super) use direct::{recv, send};
