//! What the programs share. Each hangs or crawls for a planted reason, for docs/HANGS.md: run it with
//! `NETPOLL_INSPECT=/tmp/hang.sock` and look at it with `netpoll-top /tmp/hang.sock`.

use netpoll::task::{self, JoinHandle};

/// Spawns a task with a name.
#[track_caller]
pub fn named<T: Send + 'static>(name: &str, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    task::Builder::new().name(name.to_owned()).spawn(future).expect("a valid name")
}
