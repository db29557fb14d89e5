//! Helpers for all tests of this directory: sizes, figures, memory, percentiles, a random source,
//! child processes and network namespaces.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::{has_descriptors, is_child};

static LIVE: AtomicI64 = AtomicI64::new(0);

/// An allocator that counts the allocated bytes. The count is exact. The resident size also depends
/// on the system.
struct Counting;

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and every block is the system
        // allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`, and every block is the system
        // allocator's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the number of bytes allocated now.
pub(crate) fn live_bytes() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

/// Returns whether this is a run at full size, in which time limits apply: whether the environment
/// variable `NETPOLL_FULL` is set. `ci/hostile.sh` sets it, except with `QUICK=1`.
pub(crate) fn is_full() -> bool {
    std::env::var_os("NETPOLL_FULL").is_some()
}

/// Returns `full` in a run at full size, and `quick` otherwise.
pub(crate) fn size(quick: usize, full: usize) -> usize {
    if is_full() { full } else { quick }
}

/// Returns the number in environment variable `name`, or `otherwise` if the variable is not set or
/// is not a number.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Prints a figure for a row of the tables in docs/RELIABILITY.md to standard error. The test
/// harness does not capture this output.
pub(crate) fn figure(row: &str, text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "row {row}: {text}");
}

/// Asserts a time limit, in a full run only.
#[track_caller]
pub(crate) fn limit(what: &str, got: Duration, most: Duration) {
    assert!(!is_full() || got <= most, "{what}: {got:?}, at most {most:?}");
}

/// Runs `body` in a child process, for at most `full` seconds in a full run and four times `quick`
/// seconds otherwise. `name` is the calling test's name with its module. Skips the test if 4,096
/// descriptors are not permitted.
#[track_caller]
pub(crate) fn process(name: &str, quick: u64, full: u64, body: impl FnOnce()) {
    // The time limit is generous, because the machine may be slow or busy.
    let most = Duration::from_secs(if is_full() { full } else { 4 * quick });
    if !has_descriptors(4096) {
        return;
    }
    if is_child(name) {
        let (done, wait) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            if wait.recv_timeout(most) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = writeln!(io::stderr(), "{:#?}", netpoll::rt::metrics());
                let _ = writeln!(io::stderr(), "not ended within {most:?}");
                std::process::abort();
            }
        });
        body();
        drop(done);
        watchdog.join().unwrap();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("NETPOLL_TEST_CHILD", name)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the process of {name}: {}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "no test has the name {name}");
}

#[test]
fn process_of_an_unknown_test_fails() {
    let failed = std::panic::catch_unwind(|| process("scale::unknown", 1, 1, || {})).is_err();
    assert!(failed || !has_descriptors(4096));
}

/// Moves this thread into a new network namespace, which the threads that it starts inherit.
/// Returns false if that is not permitted, or if the loopback device cannot be set up.
pub(crate) fn own_network() -> bool {
    // SAFETY: the call affects only this thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    // The command inherits the namespace.
    ip("link set lo up")
}

/// Runs ip(8) in the namespace of this thread. Returns whether it succeeds.
pub(crate) fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split_whitespace()).stdin(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Returns the given percentile. Sorts `values`.
pub(crate) fn percentile(values: &mut [Duration], percent: f64) -> Duration {
    values.sort_unstable();
    let at = (values.len() as f64 * percent / 100.0) as usize;
    values[at.min(values.len() - 1)]
}

/// Formats the median, the 99th percentile and the maximum for a table.
pub(crate) fn spread(values: &mut [Duration]) -> String {
    let [half, most] = [50.0, 99.0].map(|percent| percentile(values, percent));
    format!("p50 {half:.1?}, p99 {most:.1?}, max {:.1?}", values[values.len() - 1])
}

/// A pseudo-random generator with a fixed seed (xorshift64), so that a failure can be repeated.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Returns generator number `stream`. The environment variable `NETPOLL_SEED` changes the
    /// numbers of all generators.
    pub(crate) fn new(stream: u64) -> Random {
        let seed = setting("NETPOLL_SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (stream + 1).wrapping_mul(0xd134_2543_de82_ef95);
        let mut random = Random(seed | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
