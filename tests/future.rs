//! `netpoll::future`: the timeout and the combinators, through the public API.

mod common;

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::run as block_on;
use netpoll::future::{self, TimeoutError};
use netpoll::prelude::*;
use netpoll::{io, task};

const LONG: Duration = Duration::from_secs(60);

/// A future that returns `output` after `waits` polls that return Pending. When dropped, appends
/// its name to `log`.
struct After<T> {
    waits: usize,
    output: Option<T>,
    log: Rc<RefCell<Vec<&'static str>>>,
    name: &'static str,
}

impl<T: Unpin> Future for After<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if self.waits == 0 {
            return Poll::Ready(self.output.take().expect("polled after it was ready"));
        }
        self.waits -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T> Drop for After<T> {
    fn drop(&mut self) {
        self.log.borrow_mut().push(self.name);
    }
}

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    fn after<T>(&self, waits: usize, output: T, name: &'static str) -> After<T> {
        After { waits, output: Some(output), log: self.0.clone(), name }
    }
}

#[test]
fn timeout_returns_output_or_error() {
    block_on(async {
        assert_eq!(future::timeout(LONG, async { 1 }).await, Ok(1));
        assert_eq!(future::timeout(Duration::MAX, task::sleep(Duration::from_millis(1))).await, Ok(()));
        let begin = Instant::now();
        let limit = Duration::from_millis(10);
        let error: TimeoutError = future::timeout(limit, future::pending::<()>()).await.unwrap_err();
        assert!(begin.elapsed() >= limit);
        assert_eq!(error.to_string(), "future has timed out");
        let error: Box<dyn std::error::Error + Send + Sync> = error.into();
        assert!(error.source().is_none());
    });
}

#[test]
fn timeout_errors_convert_to_io_errors() {
    block_on(async {
        let limited = async {
            future::timeout(Duration::from_millis(1), future::pending::<()>()).await?;
            std::io::Result::Ok(())
        };
        let error = limited.await.unwrap_err();
        assert!(netpoll::net::is_timeout(&error) && error.get_ref().unwrap().is::<TimeoutError>());
        let mut silent = netpoll::stream::pending::<()>().timeout(Duration::from_millis(1));
        let error = std::io::Error::from(silent.next().await.unwrap().unwrap_err());
        assert!(netpoll::net::is_timeout(&error) && error.to_string() == "stream has timed out");
    });
}

#[test]
fn zero_timeout_takes_only_ready_output() {
    block_on(async {
        assert_eq!(future::timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        assert!(future::timeout(Duration::ZERO, future::pending::<()>()).await.is_err());
        // A sleep of zero is ready at once, and therefore within any timeout.
        assert!(future::timeout(Duration::ZERO, task::sleep(Duration::ZERO)).await.is_ok());
    });
}

/// An operation that could complete but makes its task yield is polled again before the timeout
/// ends it.
#[test]
fn timeout_does_not_end_an_operation_that_yields() {
    async fn operations() {
        let (stream, peer) = common::pair().await;
        peer.write_all(&[1; 200]).await.unwrap();
        stream.peek(&mut [0; 200]).await.unwrap();
        for number in 0..200 {
            let read = io::timeout(Duration::ZERO, stream.read(&mut [0; 1])).await;
            assert_eq!(read.unwrap(), 1, "read {number}");
            let sleep = future::timeout(Duration::ZERO, task::sleep(Duration::ZERO));
            assert!(sleep.timeout(Duration::ZERO).await.is_ok_and(|inner| inner.is_ok()), "sleep {number}");
        }
    }
    block_on(operations());
    block_on(async { task::spawn(operations()).await });
    futures::executor::block_on(operations());
}

#[test]
fn timeout_ends_a_future_that_always_yields() {
    let yields = async || {
        loop {
            task::sleep(Duration::ZERO).await;
        }
    };
    let limited = || future::timeout::<_, ()>(Duration::from_millis(2), yields());
    assert!(block_on(limited()).is_err());
    assert!(futures::executor::block_on(limited()).is_err());
}

#[test]
fn timeout_function_starts_at_first_poll_and_method_at_call() {
    let limit = Duration::from_millis(30);
    let mut by_function = Box::pin(future::timeout(limit, future::pending::<()>()));
    let mut by_method = Box::pin(future::pending::<()>().timeout(limit));
    std::thread::sleep(limit);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(by_method.as_mut().poll(&mut cx).map(|result| result.is_err()), Poll::Ready(true));
    assert!(by_function.as_mut().poll(&mut cx).is_pending());
    assert!(block_on(by_function).is_err());
}

#[test]
fn delay_polls_its_future_only_after_the_delay() {
    let begin = Instant::now();
    let delay = Duration::from_millis(10);
    let started = block_on(async { Instant::now() }.delay(delay));
    assert!(started.duration_since(begin) >= delay);
    let mut never = pin!(async { 1 }.delay(Duration::MAX));
    assert!(never.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn flatten_awaits_both() {
    let log = Log::default();
    let nested = log.after(2, log.after(2, 7, "inner"), "outer");
    assert_eq!(block_on(nested.flatten()), 7);
    assert_eq!(*log.0.borrow(), ["outer", "inner"]);
}

#[test]
fn race_prefers_left_and_drops_both_with_the_combinator() {
    for (left_waits, winner) in [(1, 'l'), (2, 'r')] {
        let log = Log::default();
        let mut race = log.after(left_waits, 'l', "left").race(log.after(1, 'r', "right"));
        assert_eq!(block_on(&mut race), winner);
        assert!(log.0.borrow().is_empty());
        drop(race);
        assert_eq!(log.0.borrow().len(), 2);
    }
}

#[test]
fn try_race_returns_first_success_or_last_error() {
    let log = Log::default();
    type Outcome = Result<char, char>;
    let cases: [(Outcome, usize, Outcome, usize, Outcome); 5] = [
        (Ok('l'), 0, Ok('r'), 0, Ok('l')),
        (Err('l'), 0, Ok('r'), 2, Ok('r')),
        (Ok('l'), 2, Err('r'), 0, Ok('l')),
        (Err('l'), 0, Err('r'), 1, Err('r')),
        (Err('l'), 1, Err('r'), 0, Err('l')),
    ];
    for (left, left_waits, right, right_waits, outcome) in cases {
        let race = log.after(left_waits, left, "left").try_race(log.after(right_waits, right, "right"));
        assert_eq!(block_on(race), outcome, "{left:?} after {left_waits}, {right:?} after {right_waits}");
    }
}

#[test]
fn join_awaits_both_in_any_order() {
    let log = Log::default();
    assert_eq!(block_on(log.after(3, 1, "left").join(log.after(0, "b", "right"))), (1, "b"));
    assert_eq!(*log.0.borrow(), ["right", "left"], "each is dropped when it is ready");
}

#[test]
fn try_join_stops_at_first_error() {
    let log = Log::default();
    let both = log.after(1, Ok::<_, ()>(1), "left").try_join(log.after(2, Ok('b'), "right"));
    assert_eq!(block_on(both), Ok((1, 'b')));
    let failing = log.after(9, Ok::<u8, _>(1), "left").try_join(log.after(1, Err::<u8, _>("no"), "right"));
    assert_eq!(block_on(failing), Err("no"));
    let never = future::pending::<Result<(), &str>>();
    assert_eq!(block_on(log.after(0, Err::<(), _>("no"), "left").try_join(never)), Err("no"));
}

#[test]
fn dropped_combinators_drop_their_futures() {
    for polls in 0..5 {
        let log = Log::default();
        {
            let left = log.after(9, Ok::<u8, ()>(1), "left");
            let nested = log.after(1, log.after(9, Ok::<u8, ()>(2), "inner"), "outer").flatten();
            let mut both = pin!(left.try_join(nested).timeout(LONG));
            for _ in 0..polls {
                assert!(both.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        }
        let mut dropped = log.0.borrow().clone();
        dropped.sort_unstable();
        assert_eq!(dropped, ["inner", "left", "outer"], "after {polls} polls");
    }
}

#[test]
fn combinators_are_send_sync_and_unpin_if_their_parts_are() {
    fn check<T: Send + Sync + Unpin>(_: &T) {}
    let ready = || future::ready(Ok::<u8, ()>(1));
    check(&ready().timeout(LONG));
    check(&ready().delay(LONG));
    check(&ready().join(ready()));
    check(&ready().try_join(ready()));
    check(&ready().race(ready()));
    check(&ready().try_race(ready()));
    check(&future::ready(ready()).flatten());
}
