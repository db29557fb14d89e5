//! Descriptor numbers and slots are reused while events for their previous owners are in flight. No
//! event may reach the next owner. A timer that a closed socket leaves in its slot must not disturb
//! the timers of the next socket.
//!
//! With epoll, every batch that the poller fetches begins with up to four events of the descriptors
//! that were closed last, such as the previous owner of a slot, with all flags set: readable,
//! writable, urgent, hung up, failed (`faults::Stale`). There are real events as well, because
//! connections are closed with a hang-up in flight, while another thread polls.
//!
//! `NETPOLL_REUSES` is the number of reuses, 100,000 by default. If the variable is set, as in
//! `ci/faults.sh`, the reuses have no time limit.
#![cfg(target_os = "linux")] // epoll, and the C library's functions

mod common;
mod faults;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::{child, number, poll_now, poll_once};
use netpoll::net::{is_closed, is_timeout};
use netpoll::os::unix::net::UnixStream;
use netpoll::{rt, task};

/// The number of descriptors whose number an earlier descriptor had. Only every 64th round is
/// examined.
static REUSED: AtomicU64 = AtomicU64::new(0);

async fn reuse(rounds: u64) {
    let mut seen = HashSet::new();
    for round in 0..rounds {
        let (one, other) = UnixStream::pair().unwrap();
        // `number` does not expose the descriptor. The close would explicitly remove an exposed
        // descriptor from epoll.
        if round % 64 == 0 && !seen.insert(number(&one)) {
            REUSED.fetch_add(1, Ordering::SeqCst);
        }
        let byte = [round as u8];
        let mut buf = [0; 4];
        assert!(!one.is_peer_closed() && !other.is_peer_closed(), "round {round}: the hang-up of another socket");
        let mut read = one.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending(), "round {round}: there is nothing to read");
        if round % 4 == 0 {
            // The next batch begins with the stale events.
            task::yield_now().await;
            assert!(poll_once(&mut read).await.is_pending(), "round {round}: there is nothing to read, after a batch");
        }
        other.write_all(&byte).await.unwrap();
        assert_eq!(read.await.unwrap(), 1, "round {round}: an end, or another connection's bytes");
        assert_eq!(buf[0], byte[0], "round {round}: a byte of an earlier connection");
        assert!(!one.is_peer_closed(), "round {round}: the hang-up of another socket");
        // The event of the first close is in flight when the second end is closed.
        match round % 3 {
            0 => drop(other),
            1 => {
                let mut read = one.read(&mut buf);
                assert!(poll_once(&mut read).await.is_pending());
                drop(other);
                drop(read);
            }
            _ => {
                let mut read = one.read(&mut buf);
                assert!(poll_once(&mut read).await.is_pending());
                drop(other.force_close());
                let closing = one.force_close();
                // The first of the two closes determines the result.
                match read.await {
                    Ok(count) => assert_eq!(count, 0, "round {round}"),
                    Err(error) => assert!(is_closed(&error), "round {round}: {error}"),
                }
                closing.await.unwrap();
            }
        }
    }
}

#[test]
fn no_event_reaches_next_owner_of_fd_or_slot() {
    const NAME: &str = "no_event_reaches_next_owner_of_fd_or_slot";
    let reuses = std::env::var("NETPOLL_REUSES").map_or(100_000, |text| text.parse::<u64>().expect("a number"));
    let body = || {
        let begin = std::time::Instant::now();
        let stale = faults::Stale::begin();
        // Two tasks run the rounds, and a round uses two descriptors.
        let rounds = reuses / 4;
        task::block_on(async {
            let tasks = [task::spawn(reuse(rounds)), task::spawn(reuse(rounds))];
            for task in tasks {
                task.await;
            }
        });
        drop(stale);
        // Without `child`, the other test of this file may run in the same process.
        common::eventually("sockets to be closed and waits to end", || {
            let metrics = rt::metrics();
            metrics.descriptors == 0 && metrics.waiters == 0
        });
        let metrics = rt::metrics();
        let (events, harmless) = (faults::stale_events(), metrics.stale_events);
        println!("{reuses} reuses, {events} stale events sent, {harmless} recognised, {:.1?}", begin.elapsed());
        assert!(events > reuses / 100 || !common::is_on_epoll(), "{events} events: too few to prove anything");
        assert!(harmless >= events, "{events} stale events were sent, {harmless} recognised");
        assert!(REUSED.load(Ordering::SeqCst) > rounds / 256, "numbers are reused");
    };
    // `child` would set a time limit.
    if std::env::var_os("NETPOLL_REUSES").is_some() { body() } else { child(NAME, body) }
}

/// A waker that closes a socket when it is dropped. The operation drops the waker after it has
/// stored a new one, and before it arms its timeout.
struct CloseOnDrop(Mutex<Option<UnixStream>>);

impl Wake for CloseOnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(stream) = self.0.get_mut().unwrap().take() {
            drop(stream.force_close());
        }
    }
}

/// Closes a socket before its last operation has armed its timer, so that the timer stays in the
/// slot. Returns false if the timeout passes too soon, as it may on a busy machine.
#[must_use]
fn close_while_timeout_is_armed() -> bool {
    let (one, _other) = UnixStream::pair().unwrap();
    one.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (reader, mut buf) = (one.clone(), [0; 8]);
    let mut read = reader.read(&mut buf);
    let closer = Waker::from(Arc::new(CloseOnDrop(Mutex::new(Some(one)))));
    assert!(Pin::new(&mut read).poll(&mut Context::from_waker(&closer)).is_pending());
    drop(closer);
    // The poll that drops the waker, and so closes the socket, still returns `Pending`.
    if let Poll::Ready(result) = Pin::new(&mut read).poll(&mut Context::from_waker(Waker::noop())) {
        assert!(is_timeout(&result.unwrap_err()));
        return false;
    }
    let closed = matches!(poll_now(&mut read), Poll::Ready(Err(error)) if is_closed(&error));
    assert!(closed);
    true
}

#[test]
fn timeout_armed_during_close_leaves_next_socket_its_timers() {
    for later in [10, 60, 200] {
        let later = Duration::from_millis(later);
        common::run(async move {
            for _ in 0..4 {
                common::eventually("a socket is closed in time", close_while_timeout_is_armed);
            }
            // Other tests may take a slot, but not all of them.
            let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
            let begin = Instant::now();
            let reads = pairs.iter().flat_map(|(one, other)| {
                one.set_read_timeout(Some(later)).unwrap();
                other.set_read_deadline(Some(Instant::now() + later)).unwrap();
                [one.clone(), other.clone()]
            });
            let reads: Vec<_> = reads
                .map(|stream| task::spawn(async move { (stream.read(&mut [0; 8]).await, begin.elapsed()) }))
                .collect();
            for read in reads {
                let (result, after) = read.await;
                let error = result.unwrap_err();
                assert!(is_timeout(&error) && after >= later, "{error} after {after:?}");
            }
        });
    }
}
