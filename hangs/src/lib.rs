//! Functions shared by the programs that docs/HANGS.md explains. Each program hangs or is slow for
//! a known reason. Run a program with `NETPOLL_INSPECT=/tmp/hang.sock` and inspect it with
//! `netpoll-top /tmp/hang.sock`.
//!
//! Each program exits after ten minutes, or after the number of seconds in `NETPOLL_HANG_SECONDS`,
//! with the exit code [`ENDED`].

use std::time::Duration;

use netpoll::task::{self, JoinHandle};

/// The time in seconds after which a program exits, unless `NETPOLL_HANG_SECONDS` sets another
/// time.
const BOUND_SECONDS: u64 = 600;

/// The exit code of a program that has reached its time limit.
pub const ENDED: u8 = 3;

/// Starts a thread that exits the process at the time limit.
pub fn end_after_bound() {
    let seconds = std::env::var("NETPOLL_HANG_SECONDS").ok().and_then(|text| text.parse().ok());
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds.unwrap_or(BOUND_SECONDS)));
        std::process::exit(i32::from(ENDED));
    });
}

/// Spawns a task with a name.
#[track_caller]
pub fn named<T: Send + 'static>(name: &str, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    task::Builder::new().name(name.to_owned()).spawn(future).expect("this process was not forked")
}
