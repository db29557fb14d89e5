//! Simulations on the calling thread: tests in which only the clock is virtual, and `block_on` with
//! `NETPOLL_SIM=everywhere`.

use std::future::Future;
use std::sync::OnceLock;

use super::runner::{self, prepare};
use super::world::World;

/// Runs the future of `test` on this thread with a virtual clock and real sockets. With the feature
/// `attributes`, `#[netpoll::test(paused)]` does this for a test.
///
/// `Instant`, `SystemTime`, [`sleep`](crate::task::sleep), deadlines and timeouts are virtual on
/// this thread, as in a [simulation](crate::sim), and all tasks run on it. The clock advances to
/// the next timer when no task can run, no event of a socket is pending, and no bytes of this
/// crate's TCP sockets, except multipath ones, are in flight (sent but not acknowledged). So a test
/// of a 30 s timeout takes almost no time. The clock does not wait for other processes or threads:
/// if a task waits with a timeout for one of them, the timeout usually expires first. The same
/// holds for events of a socket on which a task has waited before the call, because such a socket
/// belongs to the poller of the runtime: create the sockets in the test. While a task yields
/// instead of waiting, the clock does not advance, and no events of sockets are taken; after a
/// minute of real time, the test fails.
///
/// # Panics
/// Panics if `test` panics, if the call is made inside a simulation or a runtime, and if no epoll
/// instance can be created. Panics if no task can run, no event wakes one for a minute of real
/// time, and the clock cannot advance, because there is no timer or because bytes are in flight.
/// Panics if a task could always run for a minute of real time. A task that does not return from a
/// poll is not reported.
///
/// # Examples
/// ```
/// use netpoll::net::{TcpListener, TcpStream};
/// use std::time::{Duration, Instant};
///
/// netpoll::sim::paused(async || {
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let stream = TcpStream::connect(listener.local_addr()?).await?;
///     stream.set_read_timeout(Some(Duration::from_secs(3600)))?;
///     let begin = Instant::now();
///     assert!(netpoll::net::is_timeout(&stream.read(&mut [0; 1]).await.unwrap_err()));
///     assert_eq!(begin.elapsed().as_secs(), 3600); // took microseconds
///     std::io::Result::Ok(())
/// })
/// .unwrap();
/// ```
pub fn paused<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    prepare();
    let world = World::with_real_sockets()
        .unwrap_or_else(|error| panic!("cannot create an epoll instance for a test with a virtual clock: {error}"));
    world.run(test)
}

/// Returns whether `block_on` runs its future in a simulation.
pub(crate) fn replaces_block_on() -> bool {
    static REPLACES: OnceLock<bool> = OnceLock::new();
    *REPLACES.get_or_init(|| runner::mode("everywhere"))
}

/// Runs `future` on this thread in a simulation of one host, `test`.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    prepare();
    everywhere().run(|| future)
}

/// Creates the simulation of a `block_on`.
fn everywhere() -> World {
    let world = World::new(runner::number("NETPOLL_SEED").unwrap_or_default());
    world.machine.allows_threads.set(true);
    world.machine.allows_files.set(true);
    world
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    /// Returns the message of a test that fails because its tasks only yield.
    fn failure(world: &World) -> String {
        world.patience_ms.set(20);
        let yields = || async {
            let sleep = task::spawn(task::sleep(Duration::from_millis(1)));
            while !sleep.is_finished() {
                task::yield_now().await;
            }
        };
        let payload = catch_unwind(AssertUnwindSafe(|| world.run(yields))).unwrap_err();
        *payload.downcast::<String>().unwrap()
    }

    #[test]
    fn tasks_that_only_yield_are_reported_without_a_watchdog() {
        prepare();
        let paused = failure(&World::with_real_sockets().unwrap());
        assert!(
            paused.starts_with("the test with a virtual clock is stuck: for 20ms, a task could always"),
            "{paused}"
        );
        let text = failure(&everywhere());
        assert!(text.contains("is stuck: for 20ms, a task could always run"), "{text}");
    }

    /// A task that waits between its turns is not stuck, however many turns it makes.
    #[test]
    fn pauses_between_turns_are_not_reported() {
        prepare();
        let world = everywhere();
        world.patience_ms.set(0);
        world.run(|| async {
            for _ in 0..1000 {
                task::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}
