//! The auto traits of the types of seqpacket sockets, which macOS does not have. (`unix.rs`,
//! `unix_names.rs` and `unix_fds.rs` test their behaviour.)
#![cfg(not(target_os = "macos"))]

use std::panic::{RefUnwindSafe, UnwindSafe};

use netpoll::os::unix::net::{UnixSeqpacket, UnixSeqpacketListener};

#[test]
fn seqpacket_types_have_the_auto_traits() {
    fn everywhere<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static>() {}
    everywhere::<UnixSeqpacket>();
    everywhere::<UnixSeqpacketListener>();
}
