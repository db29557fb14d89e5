//! Loops over operations that are always ready, operations in long turns, and polls with a new
//! waker each. A turn is one poll of a task.
//!
//! The virtual clock stands still while a loop can run, so no timeout could end a loop that keeps
//! its thread. The loops count their rounds instead.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::io::AsyncRead;
use netpoll::time::Sleep;
use netpoll::unix::UnixStream;
use netpoll::{future, task};

use crate::program::Instantly;
use crate::scene::{Scene, retried};

/// The number of rounds of one loop within which the other loop must have completed all of its
/// operations.
const ROUNDS_MAX: u32 = 20_000;

/// The maximum number of wakers of `poll_*` methods that a direction of a socket keeps: 4,096 in
/// its list (`POLLS_MAX` in `rt/waiters.rs`), and one in its slot.
const WAKERS_MAX: usize = 4096 + 1;

/// Completes an operation that is ready. `filled` has a byte to read.
async fn complete(what: Instantly, filled: &UnixStream) {
    match what {
        Instantly::Sleep => task::sleep(Duration::ZERO).await,
        Instantly::Until => Sleep::until(Instant::now()).await,
        Instantly::Timeout => drop(future::timeout(Duration::ZERO, pending::<()>()).await),
        Instantly::Peek => drop(filled.peek(&mut [0; 1]).await),
        Instantly::Readable => drop(filled.readable().await),
    }
}

/// Runs a loop until another loop, in the same task or in another, has completed `count`
/// operations.
pub async fn turns(scene: &Arc<Scene>, greedy: Instantly, other: Instantly, count: u64, is_one_task: bool) {
    let (Ok((first, first_peer)), Ok((second, second_peer))) =
        (retried!(async { UnixStream::pair() }), retried!(async { UnixStream::pair() }))
    else {
        return scene.fail("a pair of Unix sockets".to_owned());
    };
    for peer in [&first_peer, &second_peer] {
        if let Err(error) = peer.write_all(b"x").await {
            scene.fail(format!("a byte for a loop: {error}"));
        }
    }
    // After an injected EAGAIN or with a late edge, an operation needs the clock to advance, which
    // the loop prevents.
    let rates = &scene.program.rates;
    let other = if rates.spurious > 0.0 || rates.late > 0.0 { Instantly::Sleep } else { other };
    let done = Arc::new(AtomicBool::new(false));
    let (notes, is_done) = (scene.clone(), done.clone());
    let keeps_on = async move {
        let mut rounds = 0;
        while !is_done.load(Ordering::Relaxed) {
            complete(greedy, &first).await;
            rounds += 1;
            if rounds > ROUNDS_MAX {
                return notes.fail(format!("a loop over {greedy:?} prevents {other:?} from completing"));
            }
        }
    };
    let gets_done = async move {
        for _ in 0..count {
            complete(other, &second).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    if is_one_task {
        futures::join!(keeps_on, gets_done);
    } else {
        let (one, two) = (task::spawn(keeps_on), task::spawn(gets_done));
        futures::join!(one, two);
    }
}

/// Runs a ready operation, and blocks the thread before each poll for so long that the task is
/// asked to yield. The operation must complete within a limited number of polls. The block advances
/// the clock of the whole simulation, so no session may run at the same time.
pub async fn long_turns(scene: &Scene, what: Instantly) {
    const POLLS_MAX: u32 = 60;
    let Ok((filled, other)) = retried!(async { UnixStream::pair() }) else {
        return scene.fail("a pair of Unix sockets".to_owned());
    };
    if let Err(error) = other.write_all(b"x").await {
        scene.fail(format!("a byte for long turns: {error}"));
    }
    let mut operation = pin!(complete(what, &filled));
    let mut polls = 0;
    let is_done = poll_fn(|cx| {
        std::thread::sleep(Duration::from_millis(25));
        polls += 1;
        if polls > POLLS_MAX { Poll::Ready(false) } else { operation.as_mut().poll(cx).map(|()| true) }
    });
    let is_done = is_done.await;
    scene.check(is_done, || format!("{what:?} is not done in {POLLS_MAX} long turns"));
}

/// A waker that is counted while it exists.
struct Counted(Arc<AtomicUsize>);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Polls a read of a silent peer with a new waker each time. Checks that only a limited number of
/// wakers is kept, and none after the socket is closed.
pub async fn polls(scene: &Scene, count: u64) {
    let Ok((mut near, _far)) = retried!(async { UnixStream::pair() }) else {
        return scene.fail("a pair of Unix sockets".to_owned());
    };
    let live = Arc::new(AtomicUsize::new(0));
    for _ in 0..count {
        live.fetch_add(1, Ordering::Relaxed);
        let waker = Waker::from(Arc::new(Counted(live.clone())));
        let polled = Pin::new(&mut near).poll_read(&mut Context::from_waker(&waker), &mut [0; 1]);
        scene.check(polled.is_pending(), || format!("a read of a silent peer: {polled:?}"));
        drop(waker);
        let kept = live.load(Ordering::Relaxed);
        if kept > WAKERS_MAX {
            return scene.fail(format!("{kept} wakers are kept"));
        }
    }
    drop(near);
    let kept = live.load(Ordering::Relaxed);
    scene.check(kept == 0, || format!("{kept} wakers are left behind by a closed socket"));
}
