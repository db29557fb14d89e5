//! The C interface to the clock and the random numbers of a simulation, and the checks that refuse
//! threads and files.
//!
//! Pointers are those that a program passes to the C library's functions. They are used only during
//! the call.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::slice;

use libc::{c_char, c_int, c_void, clockid_t, timespec};

use super::abi::Result;
use super::current;

pub(super) fn clock_gettime(clock: clockid_t, time: *mut timespec) -> Result<c_int> {
    let nanos = current::clock(clock).ok_or(libc::EINVAL)?;
    let value = timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
    // SAFETY: the caller passes a place for the time.
    unsafe { time.write(value) };
    Ok(0)
}

/// Returns a time in nanoseconds.
///
/// # Errors
/// Returns EINVAL for negative seconds, and for nanoseconds outside 0 to 999,999,999, as
/// nanosleep(2) does.
fn nanos(time: *const timespec) -> Result<u64> {
    // SAFETY: the caller passes a time.
    let time = unsafe { time.read() };
    match (u64::try_from(time.tv_sec), time.tv_nsec) {
        (Ok(seconds), part @ 0..1_000_000_000) => Ok(seconds.saturating_mul(1_000_000_000).saturating_add(part as u64)),
        _ => Err(libc::EINVAL),
    }
}

/// Implements nanosleep(2) by advancing the clock. A thread that sleeps blocks its simulation, so
/// no task runs and no packet arrives in the meantime.
pub(super) fn block_for(time: *const timespec) -> Result<c_int> {
    advance(nanos(time)?);
    Ok(0)
}

/// Advances the clock for a call that blocks the thread for `nanos` nanoseconds.
pub(super) fn advance(nanos: u64) {
    current::with(|machine| machine.map(|machine| machine.block_for(nanos)));
}

pub(super) fn clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec) -> Result<c_int> {
    // Unlike most functions, this one returns the number of the error.
    Ok(try_clock_nanosleep(clock, flags, time).err().unwrap_or(0))
}

fn try_clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec) -> Result<()> {
    if flags & libc::TIMER_ABSTIME == 0 {
        return block_for(time).map(drop);
    }
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    clock_gettime(clock, &raw mut now)?;
    advance(nanos(time)?.saturating_sub(nanos(&raw const now)?));
    Ok(())
}

#[cfg_attr(netpoll_no_interpose, allow(dead_code))]
pub(super) fn getrandom(buf: *mut c_void, count: usize) -> Result<isize> {
    if count > 0 {
        // SAFETY: the caller passes a buffer of `count` bytes.
        let buf = unsafe { slice::from_raw_parts_mut(buf.cast::<u8>(), count) };
        current::fill_random(buf);
    }
    Ok(count as isize)
}

/// Returns whether this thread may start a thread. Records a refusal if it may not.
pub(super) fn allows_threads() -> bool {
    current::with(|machine| {
        let Some(machine) = machine else { return true };
        let allowed = machine.allows_threads.get();
        if !allowed {
            machine.refuse(
                "a task of a simulation starts a thread, whose work a seed does not reproduce: use task::spawn or \
                 spawn_blocking, or permit it with Sim::allow_threads"
                    .to_owned(),
            );
        }
        allowed
    })
}

/// Returns whether this thread may open the file at `path`. Records a refusal if it may not. A
/// panicking thread may open any file, because its backtrace reads the program file.
pub(super) fn allows_file(path: *const c_char) -> bool {
    current::with(|machine| {
        let Some(machine) = machine else { return true };
        if machine.allows_files.get() || std::thread::panicking() || path.is_null() {
            return true;
        }
        // SAFETY: the caller passes a string that ends in a zero byte.
        let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
        // These files contain data about the process itself, for example the number of CPUs that it
        // may use.
        if path.starts_with("/proc/self/") || path.starts_with("/sys/fs/cgroup/") {
            return true;
        }
        machine.refuse(format!(
            "a task of a simulation opens the file `{path}`, whose contents a seed does not reproduce: permit it with \
             Sim::allow_files"
        ));
        false
    })
}
