//! Actions on timers. They check that no timer is early, every timer fires within its bound, and
//! timers that are due let other tasks run.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use netpoll::os::unix::net::UnixStream;
use netpoll::stream::{self, StreamExt};
use netpoll::time::Sleep;
use netpoll::{future, task};

use crate::oracle::{Quiet, Span, Token, fail, watch, watch_for};
use crate::program::{DueHow, End, SleepHow, TimeoutOf};
use crate::words::{Few, Many, Ms};

const HOUR: Duration = Duration::from_secs(3600);

/// Requires that `length` has passed since `start`.
#[track_caller]
pub fn not_early(start: Instant, length: Duration, what: &str) {
    let passed = start.elapsed();
    if passed < length {
        fail(format!("{what} of {length:?} ends after {passed:?}"));
    }
}

/// Polls `sleep` once.
async fn begin(sleep: &mut Sleep) -> Poll<()> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *sleep).poll(cx))).await
}

pub async fn sleep(ms: Ms, how: SleepHow) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("a sleep of {length:?}, {how:?}"));
    let _quiet = Quiet::begin();
    let start = Instant::now();
    match how {
        SleepHow::Plain => task::sleep(length).await,
        SleepHow::Until => Sleep::until(start + length).await,
        SleepHow::Past => return Sleep::until(start.checked_sub(length).unwrap_or(start)).await,
        SleepHow::Earlier => {
            let mut sleep = Sleep::new(HOUR);
            if begin(&mut sleep).await.is_ready() {
                fail("a sleep of an hour ends immediately");
            }
            sleep.reset(start + length);
            sleep.await;
        }
        SleepHow::Later => {
            let mut sleep = Sleep::new(length / 2);
            let _ = begin(&mut sleep).await;
            sleep.reset(start + length);
            sleep.await;
        }
        SleepHow::Dropped => {
            let mut sleep = Sleep::new(HOUR);
            let _ = begin(&mut sleep).await;
            task::sleep(length).await;
        }
        SleepHow::Raced => {
            let (short, long) = (Sleep::new(length), Sleep::new(HOUR));
            if let Either::Left(_) = select(long, short).await {
                fail("a sleep of an hour ends first");
            }
        }
        SleepHow::Moved => {
            let mut sleep = Sleep::new(length);
            let _ = begin(&mut sleep).await;
            // The sleep continues in a task, perhaps on another thread. The handle of a task that a
            // shutdown dropped panics.
            let moved = task::spawn(sleep);
            moved.await;
        }
    }
    not_early(start, length, "a sleep");
}

/// Runs a task that loops over timers that are due, or over look-ups of a literal address, which
/// need not wait either. Checks that another task runs, and that the looping task ends or can be
/// cancelled.
pub async fn due(span: Span, rounds: Many, how: DueHow, end: End) {
    let _watch = watch(format!("{} rounds of timers that are due ({how:?}), and another task", rounds.0));
    let token = Token::new("due");
    let counted = Arc::new(AtomicU64::new(0));
    let count = counted.clone();
    let most = if end == End::Cancel { u64::MAX } else { rounds.0 };
    let looper = task::spawn(async move {
        let _token = token;
        let mut zero = pin!(stream::interval(Duration::ZERO));
        let mut nano = pin!(stream::interval(Duration::from_nanos(1)));
        while count.load(SeqCst) < most {
            match how {
                DueHow::Zero => task::sleep(Duration::ZERO).await,
                DueHow::Past => Sleep::until(Instant::now()).await,
                DueHow::Interval => _ = zero.next().await,
                DueHow::Nanosecond => _ = nano.next().await,
                DueHow::Timeout => _ = future::timeout(Duration::ZERO, pending::<()>()).await,
                DueHow::Literal => {
                    let resolved = netpoll::net::ToSocketAddrs::to_socket_addrs(&("127.0.0.1", 80)).await;
                    if resolved.is_err() {
                        fail("a literal address has no address");
                    }
                }
            }
            count.fetch_add(1, SeqCst);
        }
    });
    if task::spawn(async { 7 }).await != 7 {
        fail("a task has a wrong result");
    }
    match end {
        End::Finish => {
            looper.await;
            span.check(counted.load(SeqCst) == rounds.0, || "a task ended before its last round".to_owned());
        }
        End::Cancel => _ = looper.cancel().await,
    }
}

pub async fn interval(ms: Ms, ticks: Few) {
    let length = ms.duration();
    let _watch = watch_for(length * ticks.0 as u32, format!("{} ticks of {length:?}", ticks.0));
    let _quiet = Quiet::begin();
    let start = Instant::now();
    let mut interval = stream::interval(length);
    for _ in 0..ticks.0 {
        if interval.next().await.is_none() {
            fail("an interval ended");
        }
    }
    not_early(start, length * ticks.0 as u32, "an interval");
}

pub async fn timeout(span: Span, ms: Ms, of: TimeoutOf) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("a timeout of {length:?}, {of:?}"));
    let _quiet = Quiet::begin();
    let start = Instant::now();
    match of {
        TimeoutOf::Pending => {
            if future::timeout(length, pending::<()>()).await.is_ok() {
                fail("a future that never ends has ended");
            }
            not_early(start, length, "a timeout");
        }
        TimeoutOf::Ready => {
            let result = future::timeout(length, async { 7 }).await;
            if result.is_err() && !length.is_zero() {
                fail("a future that is ready at once timed out");
            }
        }
        TimeoutOf::Shorter => {
            if future::timeout(length, task::sleep(length / 2)).await.is_err() {
                not_early(start, length, "a timeout");
            } else {
                not_early(start, length / 2, "a sleep under a timeout");
            }
        }
        TimeoutOf::Longer => {
            if future::timeout(length, task::sleep(length + HOUR)).await.is_ok() {
                fail("a sleep of more than an hour has ended");
            }
            not_early(start, length, "a timeout");
        }
        TimeoutOf::Read => {
            let Some((one, _other)) = span.ok(UnixStream::pair(), "a pair") else { return };
            let mut buf = [0; 8];
            match future::timeout(length, one.read(&mut buf)).await {
                Ok(result) => span.check(false, || format!("nothing was sent, and a read gives {result:?}")),
                Err(_) => not_early(start, length, "a timeout"),
            }
        }
    }
}

/// Runs many tasks that sleep. Their times are spread evenly up to `ms`.
pub async fn sleeps(span: Span, tasks: Many, ms: Ms) {
    let length = ms.duration();
    let _watch = watch_for(length, format!("{} tasks that sleep up to {length:?}", tasks.0));
    let ended = Arc::new(AtomicU64::new(0));
    let handles: Vec<_> = (0..tasks.0)
        .map(|number| {
            let (token, ended) = (Token::new("sleeper"), ended.clone());
            let own = length.mul_f64((number + 1) as f64 / tasks.0 as f64);
            task::spawn(async move {
                let _token = token;
                let start = Instant::now();
                task::sleep(own).await;
                not_early(start, own, "a sleep among many");
                ended.fetch_add(1, SeqCst);
            })
        })
        .collect();
    for handle in handles {
        handle.await;
    }
    span.check(ended.load(SeqCst) == tasks.0, || format!("{} of {} tasks ran", ended.load(SeqCst), tasks.0));
}
