//! The system calls of snapshots and of their server. This program defines functions with the C
//! library's names, which count or refuse calls.
#![cfg(target_os = "linux")] // the C library's functions
#![allow(unsafe_code)]

mod common;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use common::{Folder, bounded, child, stored_original};
use netpoll::net::{TcpListener, TcpStream};
use netpoll::rt::{self, InspectServer};
use netpoll::task;

/// Fails with ENOENT for files whose name is `refused`. Otherwise does the same as chmod(2), which
/// it replaces in this program.
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

/// The descriptor whose calls are counted, and their number.
static COUNTED: (AtomicI32, AtomicUsize) = (AtomicI32::new(-1), AtomicUsize::new(0));

fn count(fd: c_int) {
    if fd == COUNTED.0.load(SeqCst) {
        COUNTED.1.fetch_add(1, SeqCst);
    }
}

/// Defines a function that counts its calls and calls the C library's function.
macro_rules! counted {
    ($name:ident($($arg:ident: $type:ty),*), $text:literal, $interceptor:literal) => {
        /// # Safety
        /// Same as the C library's function.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(fd: c_int, $($arg: $type),*) -> c_int {
            static REAL: AtomicUsize = AtomicUsize::new(0);
            count(fd);
            let next = stored_original(&REAL, $text, $interceptor);
            // SAFETY: the C library's function has this type.
            let next: unsafe extern "C" fn(c_int, $($type),*) -> c_int = unsafe { std::mem::transmute(next) };
            // SAFETY: the caller's promise.
            unsafe { next(fd, $($arg),*) }
        }
    };
}

counted!(getsockname(address: *mut c_void, size: *mut u32), c"getsockname", c"__interceptor_getsockname");
counted!(getpeername(address: *mut c_void, size: *mut u32), c"getpeername", c"__interceptor_getpeername");
counted!(
    getsockopt(level: c_int, name: c_int, value: *mut c_void, size: *mut u32),
    c"getsockopt",
    c"__interceptor_getsockopt"
);

/// Regression: `rt::openmetrics` queried the unknown addresses of a listener twice.
#[test]
fn listener_metrics_query_each_address_once() {
    child("listener_metrics_query_each_address_once", || {
        task::block_on(async {
            let calls = |fd: i32| {
                COUNTED.1.store(0, SeqCst);
                COUNTED.0.store(fd, SeqCst);
                let text = rt::openmetrics();
                COUNTED.0.store(-1, SeqCst);
                let is_shown = text.contains(&format!(",fd=\"{fd}\"}}"));
                (COUNTED.1.load(SeqCst), is_shown)
            };
            let adopted = TcpListener::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            // The first text takes getsockname(2), getpeername(2), which finds no peer, and
            // getsockopt(2) for SO_ACCEPTCONN and TCP_INFO. The second text takes only TCP_INFO.
            assert_eq!(calls(adopted.as_raw_fd()), (4, true));
            assert_eq!(calls(adopted.as_raw_fd()), (1, true));
            let client = std::net::TcpStream::connect(adopted.local_addr().unwrap()).unwrap();
            let client = TcpStream::from(client);
            // getsockname(2) and getpeername(2) show that this socket is no listener.
            assert_eq!(calls(client.as_raw_fd()), (2, false));
            assert_eq!(calls(client.as_raw_fd()), (0, false));
            if common::has_ipv6() {
                let wildcard = TcpListener::bind("[::]:0").await.unwrap();
                // getsockname(2), the first time, and TCP_INFO.
                assert_eq!(calls(wildcard.as_raw_fd()), (2, true));
                assert_eq!(calls(wildcard.as_raw_fd()), (1, true));
            }
        });
    });
}
