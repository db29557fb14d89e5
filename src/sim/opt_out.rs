//! The clock and the random numbers of a simulation, for programs that define `clock_gettime` or
//! `getrandom` themselves.

use std::time::Duration;

use super::machine::current;

/// Returns the time of the clock `clock` (`CLOCK_MONOTONIC`, `CLOCK_REALTIME` and so on) in the
/// simulation of this thread. Returns `None` outside simulations, and for clocks that measure CPU
/// time, such as `CLOCK_PROCESS_CPUTIME_ID`.
///
/// A program that defines clock_gettime(2) itself must be built with `--cfg netpoll_no_interpose`.
/// In its simulations, std's `Instant` and `SystemTime` show real time, unless the program's
/// definition calls this function. The function takes no lock and makes no system call.
///
/// # Examples
/// ```
/// use netpoll::sim::{self, Sim, ms};
///
/// const CLOCK_MONOTONIC: i32 = 1;
/// assert_eq!(sim::clock_gettime(CLOCK_MONOTONIC), None);
/// Sim::run(1, async |_| {
///     let begin = sim::clock_gettime(CLOCK_MONOTONIC).unwrap();
///     netpoll::task::sleep(ms(3_600_000)).await;
///     assert_eq!(sim::clock_gettime(CLOCK_MONOTONIC), Some(begin + ms(3_600_000)));
/// });
/// ```
pub fn clock_gettime(clock: i32) -> Option<Duration> {
    current::clock(clock).map(Duration::from_nanos)
}

/// Fills `buf` with random bytes that depend on the seed of this thread's simulation, and returns
/// true. Outside simulations, and in tests in which only the clock is virtual, returns false and
/// does not change `buf`.
///
/// A program that defines getrandom(2) itself must be built with `--cfg netpoll_no_interpose`. In
/// its simulations, the seed does not determine the keys of `HashMap`, unless the program's
/// definition calls this function.
///
/// # Examples
/// ```
/// use netpoll::sim::{self, Sim};
///
/// let draw = |seed| Sim::run(seed, async |_| {
///     let mut bytes = [0; 16];
///     assert!(sim::getrandom(&mut bytes));
///     bytes
/// });
/// assert_eq!(draw(1), draw(1));
/// assert!(!sim::getrandom(&mut [0; 16]));
/// ```
pub fn getrandom(buf: &mut [u8]) -> bool {
    current::fill_random(buf)
}
