//! The auto traits of the types of seqpacket sockets, which macOS does not have. (`unix.rs`,
//! `unix_names.rs` and `unix_fds.rs` test their behaviour.)
#![cfg(not(target_os = "macos"))]

use std::panic::{RefUnwindSafe, UnwindSafe};

use netpoll::os::unix::net::{UnixSeqpacket, UnixSeqpacketListener};

#[test]
fn packet_sockets_are_send_sync_and_unpin() {
    fn everywhere<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static>() {}
    everywhere::<UnixSeqpacket>();
    everywhere::<UnixSeqpacketListener>();
}
