//! What the programs share. Each hangs or crawls for a planted reason, for docs/HANGS.md: run it with
//! `NETPOLL_INSPECT=/tmp/hang.sock` and look at it with `netpoll-top /tmp/hang.sock`.
//!
//! Each ends by itself after ten minutes, or after `NETPOLL_HANG_SECONDS`.

use std::time::Duration;

use netpoll::task::{self, JoinHandle};

/// How long a program hangs, unless the environment says otherwise.
const BOUND_SECONDS: u64 = 600;

/// The exit code of a program that has hung for as long as it may.
pub const ENDED: u8 = 3;

/// Ends the process after the bound, from a thread of its own.
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
    task::Builder::new().name(name.to_owned()).spawn(future).expect("a valid name")
}
