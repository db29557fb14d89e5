//! kqueue(2) and kevent(2). On Linux, which does not have these calls, unit tests use a model of
//! them.

#[cfg(not(target_os = "linux"))]
mod calls;
#[cfg(target_os = "linux")]
mod model;
#[cfg(all(test, target_os = "linux"))]
mod model_tests;

#[cfg(not(target_os = "linux"))]
pub(crate) use calls::*;
#[cfg(target_os = "linux")]
pub(crate) use model::*;

/// Returns a `kevent` with the given fields and zero in all others.
#[allow(unsafe_code)]
pub(crate) fn kevent_of(ident: usize, filter: i16, flags: u16, fflags: u32, udata: u64) -> Kevent {
    // SAFETY: `Kevent` is plain data, for which all zeroes is a valid value. On some systems it has
    // more fields than those set here.
    let mut event: Kevent = unsafe { std::mem::zeroed() };
    (event.ident, event.filter, event.flags, event.fflags) = (ident, filter, flags, fflags);
    event.udata = udata as usize as _;
    event
}

// `udata` must hold a token of 64 bits.
const _: () = assert!(size_of::<usize>() == 8);
