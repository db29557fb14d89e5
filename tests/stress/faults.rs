//! Counts threads, refuses to create them, and stops them at arbitrary instructions.
//!
//! The test binary defines `pthread_create` and the functions that join and detach threads. The
//! linker prefers these definitions for the calls of std and the crate. They call the C library's
//! functions and count the calls that succeed. `pthread_create` also refuses calls if requested.
//! The stress test's own threads, created by [`own_thread`], are neither refused nor stopped.
//!
//! # Stops
//! A thread of the stress test sends a signal to a thread of the process from time to time. The
//! handler sleeps for up to 12 ms, so the thread stops at an arbitrary instruction while other
//! threads continue and see its intermediate state. A stop within a race window of a few
//! nanoseconds is thereby far more likely than by preemption alone.

use std::collections::HashSet;
use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libc::{c_int, c_void, pthread_attr_t, pthread_t};

use crate::original::stored_original;
use crate::program::Preempt;
use crate::words::Random;

/// The number of further calls of pthread_create(3) that are refused.
static REFUSALS: AtomicI64 = AtomicI64::new(0);
/// The number of threads created.
static CREATED: AtomicU64 = AtomicU64::new(0);
/// The number of threads joined or detached.
static REAPED: AtomicU64 = AtomicU64::new(0);
/// The number of running threads of actors.
static ACTORS: AtomicU64 = AtomicU64::new(0);
/// Threads that receive no signal.
static EXEMPT: Mutex<Vec<i32>> = Mutex::new(Vec::new());

thread_local! {
    /// Set while this thread creates one of the stress test's own threads or the thread of an
    /// actor.
    static IS_OWN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Refuses to create the next `count` threads, except those that [`own_thread`] and
/// [`actor_thread`] start.
pub fn refuse_threads(count: u64) {
    REFUSALS.fetch_add(count as i64, SeqCst);
}

/// Cancels the refusals that were not used up.
pub fn refuse_no_more() {
    REFUSALS.store(0, SeqCst);
}

/// Returns the number of threads of this process.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count())
}

/// Returns the number of threads that were created and neither joined nor detached, whether they
/// run or have ended.
pub fn unreaped() -> u64 {
    // Read first, so that a thread that is created and reaped between the two reads counts as
    // unreaped.
    let reaped = REAPED.load(SeqCst);
    CREATED.load(SeqCst) - reaped
}

/// Starts one of the stress test's own threads, which is neither refused nor stopped.
pub fn own_thread<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    start(name, || {
        exempt();
        body()
    })
}

/// Starts a thread for an actor. The thread is not refused, but it is stopped like any other.
pub fn actor_thread<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    /// Counts the thread while it runs.
    struct Alive;
    impl Drop for Alive {
        fn drop(&mut self) {
            ACTORS.fetch_sub(1, SeqCst);
        }
    }
    ACTORS.fetch_add(1, SeqCst);
    let alive = Alive;
    start(name, move || {
        let _alive = alive;
        body()
    })
}

/// Returns the number of running threads of actors.
pub fn actor_threads() -> u64 {
    ACTORS.load(SeqCst)
}

fn start<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    IS_OWN.set(true);
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    IS_OWN.set(false);
    match thread {
        Ok(thread) => thread,
        Err(error) => crate::oracle::fail(format!("a thread of the stress test cannot be created: {error}")),
    }
}

/// Exempts the calling thread from stops.
pub fn exempt() {
    // SAFETY: no arguments, cannot fail.
    let id = unsafe { libc::gettid() };
    EXEMPT.lock().unwrap_or_else(PoisonError::into_inner).push(id);
}

type Main = extern "C" fn(*mut c_void) -> *mut c_void;

#[unsafe(no_mangle)]
#[allow(clippy::missing_safety_doc)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    main: Main,
    argument: *mut c_void,
) -> c_int {
    type Function = unsafe extern "C" fn(*mut pthread_t, *const pthread_attr_t, Main, *mut c_void) -> c_int;
    static REAL: AtomicUsize = AtomicUsize::new(0);
    let is_own = IS_OWN.try_with(std::cell::Cell::get).unwrap_or(false);
    if !is_own && REFUSALS.fetch_update(SeqCst, SeqCst, |left| (left > 0).then(|| left - 1)).is_ok() {
        return libc::EAGAIN;
    }
    let address = stored_original(&REAL, c"pthread_create", c"__interceptor_pthread_create");
    // SAFETY: the C library's function of that name has this signature.
    let function = unsafe { std::mem::transmute::<usize, Function>(address) };
    CREATED.fetch_add(1, SeqCst);
    // SAFETY: the caller keeps the function's contract.
    let result = unsafe { function(thread, attributes, main, argument) };
    if result != 0 {
        CREATED.fetch_sub(1, SeqCst);
    }
    result
}

/// Defines functions that replace the C library's and, after a success, count the thread as joined
/// or detached.
macro_rules! reaps {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[unsafe(no_mangle)]
        #[allow(clippy::missing_safety_doc)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            type Function = unsafe extern "C" fn($($type),*) -> c_int;
            static REAL: AtomicUsize = AtomicUsize::new(0);
            const NAMES: [&str; 2] =
                [concat!(stringify!($name), "\0"), concat!("__interceptor_", stringify!($name), "\0")];
            let [name, interceptor] = NAMES.map(|name| CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or_default());
            // SAFETY: the C library's function of that name has this signature.
            let function = unsafe { std::mem::transmute::<usize, Function>(stored_original(&REAL, name, interceptor)) };
            // SAFETY: the caller keeps the function's contract.
            let result = unsafe { function($($argument),*) };
            if result == 0 {
                REAPED.fetch_add(1, SeqCst);
            }
            result
        }
    )*};
}

reaps! {
    pthread_join(thread: pthread_t, value: *mut *mut c_void);
    pthread_tryjoin_np(thread: pthread_t, value: *mut *mut c_void);
    pthread_detach(thread: pthread_t);
}

// ---- stops ----

const SIGNAL: c_int = libc::SIGUSR2;
/// The maximum duration of a stop in microseconds; 0 while stops are off.
static STOP_MAX: AtomicU32 = AtomicU32::new(0);
static STOPS: AtomicU64 = AtomicU64::new(0);

/// The signal handler: stops the thread on which it runs. It calls only functions that are safe in
/// a signal handler.
extern "C" fn stop(_: c_int) {
    let most = STOP_MAX.load(SeqCst);
    if most == 0 {
        return;
    }
    let number = STOPS.fetch_add(1, SeqCst);
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    // Most stops are short; every fourth may be long.
    let micros = if number.is_multiple_of(4) { random % u64::from(most) } else { random % 300 };
    let length = libc::timespec { tv_sec: 0, tv_nsec: (micros * 1000) as _ };
    // SAFETY: no precondition; the location is this thread's.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it is this thread's errno.
    let before = unsafe { *errno };
    // SAFETY: `length` is valid for the call, and a second pointer is not needed.
    unsafe { libc::nanosleep(&raw const length, std::ptr::null_mut()) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Unless `level` is [`Preempt::Off`], starts a thread that stops other threads until the process
/// ends or [`end_stops`] is called.
pub fn begin_stops(level: Preempt, seed: u64) {
    let (every, most) = match level {
        Preempt::Off => return,
        Preempt::Light => (Duration::from_millis(3), 3_000),
        Preempt::Heavy => (Duration::from_micros(400), 12_000),
    };
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes are a valid value of this type.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = stop as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid, and its handler calls only functions that are safe in a signal
    // handler.
    assert_eq!(unsafe { libc::sigaction(SIGNAL, action, std::ptr::null_mut()) }, 0);
    STOP_MAX.store(most, SeqCst);
    let _ = own_thread("stops", move || send_stops(every, seed));
}

/// Ends the stops. A stop in progress continues.
pub fn end_stops() {
    STOP_MAX.store(0, SeqCst);
}

fn send_stops(every: Duration, seed: u64) {
    let mut random = Random::new(seed);
    let process = std::process::id() as i32;
    let mut threads = Vec::new();
    loop {
        if STOP_MAX.load(SeqCst) == 0 {
            return;
        }
        if threads.is_empty() || random.chance(5) {
            threads = targets();
        }
        thread::sleep(every / 2 + every.mul_f64(random.below(100) as f64 / 100.0));
        if !threads.is_empty() {
            // Usually draws four threads and prefers one that runs.
            let tries = if random.chance(30) { 1 } else { 4 };
            let draws: Vec<_> = (0..tries).map(|_| threads[random.below(threads.len() as u64) as usize]).collect();
            let thread = draws.iter().copied().skip(1).find(|&thread| runs(thread)).unwrap_or(draws[0]);
            // SAFETY: the arguments are numbers that the kernel checks; for a thread that has
            // ended, the call fails without effect.
            unsafe { libc::tgkill(process, thread, SIGNAL) };
        }
    }
}

/// Returns whether a thread is on a CPU or waits for one.
fn runs(thread: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R'))
}

/// Returns the threads that may be stopped.
fn targets() -> Vec<i32> {
    let exempt: HashSet<_> = EXEMPT.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|thread| !exempt.contains(thread))
        .collect()
}
