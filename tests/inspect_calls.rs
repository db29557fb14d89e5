//! The system calls of snapshots and of their server. This program defines functions with the C library's names, which
//! refuse calls.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

mod common;

use std::ffi::{CStr, c_char, c_int};
use std::io::ErrorKind;

use common::{Folder, bounded};
use netpoll::rt::InspectServer;

/// Fails with ENOENT for files whose name is `refused`. Otherwise does the same as chmod(2), which it replaces in this program.
///
/// # Safety
/// Same as chmod(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn chmod(path: *const c_char, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    let is_refused = unsafe { CStr::from_ptr(path) }.to_bytes().ends_with(b"/refused");
    let path = if is_refused { c"/nonexistent/file".as_ptr() } else { path };
    // SAFETY: the caller's promise.
    unsafe { libc::fchmodat(libc::AT_FDCWD, path, mode, 0) }
}

#[test]
fn server_that_does_not_start_leaves_no_file() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("refused");
        let error = InspectServer::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(!path.exists());
    });
}
