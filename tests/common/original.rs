//! Looks up the original of a function that the test program replaces.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Returns the address of the sanitizer's function `interceptor` if the process has one, so that
/// calls reach the sanitizer. Otherwise returns the address of the C library's function `name`.
/// Allocates no memory.
pub fn original(name: &CStr, interceptor: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string, and the handle is always valid.
    let mut found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, interceptor.as_ptr()) };
    if found.is_null() {
        // SAFETY: as above.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    }
    assert!(!found.is_null(), "the C library has no {name:?}");
    found
}

/// Returns the result of [`original`], which the first call stores in `slot`.
pub fn stored_original(slot: &AtomicUsize, name: &CStr, interceptor: &CStr) -> usize {
    let known = slot.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let found = original(name, interceptor) as usize;
    slot.store(found, Ordering::Relaxed);
    found
}
