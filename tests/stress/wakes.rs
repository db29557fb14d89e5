//! Actions on wake-ups. They check that no wake-up is lost, a late wake-up has no effect, a waker
//! may block, spawn, read or close, and tasks that transfer bytes without a pause let other tasks
//! run.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use netpoll::os::unix::net::UnixStream;
use netpoll::task;

use crate::actors::{park_on, peer};
use crate::conn::Conn;
use crate::faults::actor_thread;
use crate::oracle::{Blocking, Span, Token, watch};
use crate::program::{Party, Stream, WakeAct};
use crate::waits::Stops;
use crate::words::{Bytes, Few, Many};

/// Starts threads that increment a counter and wake a future, which completes when the counter has
/// its final value.
pub async fn wakes(span: Span, threads: Few, wakes: Many) {
    let _watch = watch(format!("{} threads that wake {} times each", threads.0, wakes.0));
    let total = threads.0 * wakes.0;
    let shared: Arc<(AtomicU64, Mutex<Option<Waker>>)> = Arc::default();
    let wakers: Vec<_> = (0..threads.0)
        .map(|number| {
            let shared = shared.clone();
            actor_thread("wakes", move || {
                for round in 0..wakes.0 {
                    shared.0.fetch_add(1, SeqCst);
                    let waker = shared.1.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Some(waker) = waker {
                        if (round + number) % 2 == 0 { waker.wake() } else { waker.wake_by_ref() }
                    }
                    thread::yield_now();
                }
            })
        })
        .collect();
    poll_fn(|cx| {
        *shared.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if shared.0.load(SeqCst) == total { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let joined = wakers.into_iter().all(|thread| thread.join().is_ok());
    span.check(joined, || "a thread that wakes panicked".to_owned());
}

/// Calls wakers after their task has ended or been cancelled.
pub async fn stale(span: Span, tasks: Few, wakes: Few) {
    let _watch = watch(format!("wakers of {} tasks that have ended", tasks.0));
    let mut wakers = Vec::new();
    for number in 0..tasks.0 {
        let kept: Arc<Mutex<Option<Waker>>> = Arc::default();
        let (keep, token) = (kept.clone(), Token::new("has wakers"));
        let handle = task::spawn(async move {
            let _token = token;
            poll_fn(|cx| {
                *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
                Poll::Ready(())
            })
            .await;
            if number % 2 == 1 {
                task::sleep(Duration::from_secs(3600)).await;
            }
        });
        if number % 2 == 1 {
            task::yield_now().await;
            let _ = handle.cancel().await;
        } else {
            handle.await;
        }
        wakers.extend(kept.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    let copies = wakers.clone();
    let waking = peer(span, Party::Foreign, async move {
        for _ in 0..wakes.0 {
            copies.iter().for_each(Waker::wake_by_ref);
        }
    });
    for _ in 0..wakes.0 {
        wakers.iter().for_each(Waker::wake_by_ref);
        task::yield_now().await;
    }
    waking.ends().await;
}

/// Runs tasks that transfer bytes without a pause, and checks that another task gets its turns and
/// a timer fires.
pub async fn greedy(span: Span, stream: Stream, tasks: Few, size: Bytes) {
    let _watch = watch(format!("a task and a timer during {} connections without a pause, {stream:?}", tasks.0));
    let stop = Arc::new(AtomicBool::new(false));
    let stops_at_end = Stops(stop.clone());
    let mut pumps = Vec::new();
    for _ in 0..tasks.0 {
        let Some((one, other)) = span.ok(Conn::pair(stream).await, "a pair") else { break };
        let (stops, writes, reads) = (stop.clone(), Token::new("pumps"), Token::new("pumps"));
        let length = size.0 as usize;
        pumps.push(task::spawn(async move {
            let _token = writes;
            let buf = vec![7; length];
            while !stops.load(SeqCst) && one.write_all(&buf).await.is_ok() {}
        }));
        pumps.push(task::spawn(async move {
            let _token = reads;
            let mut buf = vec![0; length];
            while let Ok(1..) = other.read(&mut buf).await {}
        }));
    }
    for round in 0..4 {
        let result = task::spawn(async move { round }).await;
        span.check(result == round, || format!("among greedy tasks a task gives {result}"));
        task::sleep(Duration::from_millis(2)).await;
    }
    drop(stops_at_end);
    for pump in pumps {
        pump.await;
    }
}

/// A waker that has an effect when it is called for the first time.
struct Acts {
    act: WakeAct,
    span: Span,
    woken: AtomicBool,
    conn: Conn,
    _token: Token,
}

impl Wake for Acts {
    fn wake(self: Arc<Self>) {
        if self.woken.swap(true, SeqCst) {
            return;
        }
        let _blocking = Blocking::begin();
        match self.act {
            WakeAct::Block => thread::sleep(Duration::from_millis(40)),
            WakeAct::BlockOn => {
                let result = task::block_on(async {
                    task::sleep(Duration::from_millis(5)).await;
                    task::spawn(async { 7 }).await
                });
                self.span.check(result == 7, || format!("block_on in a waker gives {result}"));
            }
            WakeAct::Spawn => drop(task::spawn(async {})),
            WakeAct::Close => self.conn.close(),
            WakeAct::Read => {
                let Ok((one, other)) = UnixStream::pair() else { return };
                let read = task::block_on(async move {
                    let write = task::spawn(async move { other.write_all(b"abc").await });
                    let read = one.read(&mut [0; 8]).await;
                    let _ = write.await;
                    read
                });
                self.span.check(matches!(read, Ok(3)), || format!("a read in a waker gives {read:?}"));
            }
        }
    }
}

/// Runs a read whose waker has an effect, and another read that the same batch of events may wake.
pub async fn waker(span: Span, act: WakeAct) {
    let _watch = watch(format!("a waker that does {act:?}, and another read"));
    let Some((one, other)) = span.ok(Conn::pair(Stream::Unix).await, "a pair") else { return };
    let Some((another, to_another)) = span.ok(Conn::pair(Stream::Unix).await, "a pair") else { return };
    let reads = peer(span, Party::Task, async move {
        let read = another.read(&mut [0; 8]).await;
        span.check(matches!(read, Ok(1)), || format!("with another waker that does {act:?}, a read gives {read:?}"));
    });
    let reader = one.clone();
    let mut buf = [0; 8];
    let mut read = pin!(reader.read(&mut buf));
    let conn = one.clone();
    let acts = Arc::new(Acts { act, span, woken: AtomicBool::new(false), conn, _token: Token::new("waker") });
    let waker = Waker::from(acts.clone());
    // A poll that is deferred for fairness calls the waker immediately, on this thread. The waker
    // panics if a shutdown drops a task that it awaits.
    let polled = std::panic::catch_unwind(AssertUnwindSafe(|| read.as_mut().poll(&mut Context::from_waker(&waker))));
    drop(waker);
    let is_waiting = polled.is_ok_and(|polled| polled.is_pending());
    let writes = actor_thread("writes", move || {
        let first = park_on(other.write_all(b"x"));
        let second = park_on(to_another.write_all(b"x"));
        // The writing ends are kept until both reads have ended.
        (first, second, other, to_another)
    });
    while is_waiting && !acts.woken.load(SeqCst) && span.is_calm() {
        task::sleep(Duration::from_millis(1)).await;
    }
    if is_waiting {
        let result = read.await;
        let fits = matches!(&result, Ok(1)) || act == WakeAct::Close && result.is_err();
        span.check(fits, || format!("a read whose waker does {act:?} gives {result:?}"));
    }
    reads.ends().await;
    span.check(writes.join().is_ok(), || "a writer panicked".to_owned());
}
