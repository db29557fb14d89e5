//! If a program, a sanitizer or a preloaded library defines `recv` or `send`, the crate calls the
//! functions of these names instead of making the system calls itself.
#![cfg(target_os = "linux")] // the C library's functions
#![allow(unsafe_code)]

mod common;

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::run;
use netpoll::io::ReadExt;
use netpoll::net::{TcpListener, TcpStream};

static RECEIVED: AtomicUsize = AtomicUsize::new(0);
static SENT: AtomicUsize = AtomicUsize::new(0);

/// # Safety
/// Same as recv(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn recv(fd: c_int, buf: *mut c_void, len: usize, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    let count = unsafe { libc::recvfrom(fd, buf, len, flags, std::ptr::null_mut(), std::ptr::null_mut()) };
    RECEIVED.fetch_add(count.max(0) as usize, Ordering::Relaxed);
    count
}

/// # Safety
/// Same as send(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn send(fd: c_int, buf: *const c_void, len: usize, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    let count = unsafe { libc::sendto(fd, buf, len, flags, std::ptr::null(), 0) };
    SENT.fetch_add(count.max(0) as usize, Ordering::Relaxed);
    count
}

#[test]
fn functions_of_the_program_see_every_byte() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        for round in 1..=50 {
            stream.write_all(&[7; 100]).await.unwrap();
            (&peer).read_exact(&mut [0; 100]).await.unwrap();
            assert_eq!((SENT.load(Ordering::Relaxed), RECEIVED.load(Ordering::Relaxed)), (100 * round, 100 * round));
        }
    });
}
