//! `netpoll::stream` through the public API, as async-std programs use it. Tests that use the clock
//! assert that nothing is early, but not how late it is.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::run as block_on;
use netpoll::prelude::*;
use netpoll::stream::{self, Interval};
use netpoll::task;

/// A stream that yields the items of its steps. For a step of `None`, a poll wakes the task and
/// returns Pending. A poll after the end panics.
struct Steps<T> {
    steps: VecDeque<Option<T>>,
    ended: bool,
}

fn steps<T>(steps: impl IntoIterator<Item = Option<T>>) -> Steps<T> {
    Steps { steps: steps.into_iter().collect(), ended: false }
}

impl<T> Unpin for Steps<T> {}

impl<T> Stream for Steps<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        assert!(!self.ended, "polled after the end");
        match self.steps.pop_front() {
            Some(Some(item)) => Poll::Ready(Some(item)),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }
}

fn poll<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn stream_sources_yield_their_items() {
    block_on(async {
        assert_eq!(stream::empty::<u8>().next().await, None);
        assert_eq!(stream::once(1).collect::<Vec<_>>().await, [1]);
        assert_eq!(stream::repeat(1).take(3).collect::<Vec<_>>().await, [1, 1, 1]);
        assert_eq!(stream::from_iter(1..4).collect::<Vec<_>>().await, [1, 2, 3]);
        let mut count = 0;
        let mut counting = stream::repeat_with(|| {
            count += 1;
            count
        });
        assert_eq!((counting.next().await, counting.next().await), (Some(1), Some(2)));
        let mut left = 2;
        let mut down = stream::from_fn(|| {
            left -= 1;
            (left >= 0).then_some(left)
        });
        assert_eq!((down.next().await, down.next().await, down.next().await), (Some(1), Some(0), None));
        let powers = stream::successors(Some(1u8), |n| n.checked_mul(4));
        assert_eq!(powers.collect::<Vec<_>>().await, [1, 4, 16, 64]);
        assert_eq!(stream::successors(None::<u8>, |n| Some(*n)).next().await, None);
        assert!(poll(&mut stream::pending::<u8>()).is_pending());
    });
}

#[test]
fn stream_adapters_cope_with_pending_polls() {
    block_on(async {
        let connections = || steps([Some(Ok(1)), None, Some(Err("refused")), Some(Ok(2)), None, Some(Ok(3))]);
        assert_eq!(connections().filter_map(Result::ok).map(|n| n * 10).collect::<Vec<_>>().await, [10, 20, 30]);
        assert_eq!(connections().take(2).count().await, 2);
        assert_eq!(connections().take_while(Result::is_ok).count().await, 1);
        let mut seen = Vec::new();
        connections().for_each(|item| seen.push(item.is_ok())).await;
        assert_eq!(seen, [true, false, true, true]);

        let mut stream = connections();
        let mut sum = 0;
        let stopped = stream
            .try_for_each(|item| {
                sum += item?;
                Ok(())
            })
            .await;
        assert_eq!((stopped, sum), (Err("refused"), 1));
        assert_eq!(stream.next().await, Some(Ok(2)), "the stream continues after the error");

        let mut fused = connections().fuse();
        assert_eq!(fused.by_ref().count().await, 4);
        assert_eq!((fused.next().await, fused.next().await), (None, None));

        let mut stream = connections();
        let folded = stream.try_fold(0, |sum, item| item.map(|n| sum + n)).await;
        assert_eq!(folded, Err("refused"));
        assert_eq!(stream.try_fold(0, |sum, item| item.map(|n| sum + n)).await, Ok(5));
    });
}

#[test]
fn collect_uses_from_stream() {
    block_on(async {
        let words = || stream::from_iter(["b", "a", "b"]);
        assert_eq!(words().collect::<String>().await, "bab");
        assert_eq!(words().map(String::from).collect::<String>().await, "bab");
        assert_eq!(words().flat_map(|word| stream::from_iter(word.chars())).collect::<String>().await, "bab");
        assert_eq!(words().collect::<VecDeque<_>>().await, ["b", "a", "b"]);
        assert_eq!(*words().collect::<Box<[_]>>().await, ["b", "a", "b"]);
        assert_eq!(words().collect::<HashSet<_>>().await.len(), 2);
        let counted: HashMap<_, _> = words().enumerate().map(|(at, word)| (word, at)).collect().await;
        assert_eq!((counted["a"], counted["b"]), (1, 2));
        let sorted: BTreeMap<_, _> = words().enumerate().map(|(at, word)| (word, at)).collect().await;
        assert_eq!(sorted.into_iter().collect::<Vec<_>>(), [("a", 1), ("b", 2)]);
        words().map(drop).collect::<()>().await;
    });
}

#[test]
fn collect_of_results_stops_at_first_error() {
    block_on(async {
        let asked = Cell::new(0);
        let numbers = |end| {
            asked.set(0);
            let asked = &asked;
            stream::from_iter(1..)
                .inspect(move |_| asked.set(asked.get() + 1))
                .map(move |n| if n < end { Ok(n) } else { Err(n) })
        };
        assert_eq!(numbers(3).collect::<Result<Vec<_>, _>>().await, Err(3));
        assert_eq!(asked.get(), 3);
        assert_eq!(numbers(3).map(Result::ok).collect::<Option<Vec<_>>>().await, None);
        assert_eq!(asked.get(), 3);
        assert_eq!(numbers(9).take(2).collect::<Result<Vec<_>, _>>().await, Ok(vec![1, 2]));
        let nested: Option<Result<Vec<_>, _>> = numbers(9).take(2).map(Some).collect().await;
        assert_eq!(nested, Some(Ok(vec![1, 2])));
    });
}

#[test]
fn collect_does_not_trust_size_hint() {
    struct Boaster;
    impl Stream for Boaster {
        type Item = u64;
        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
            Poll::Ready(None)
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (usize::MAX, None)
        }
    }
    assert!(block_on(Boaster.collect::<Vec<_>>()).is_empty());
    assert!(block_on(Boaster.collect::<VecDeque<_>>()).is_empty());
}

#[test]
fn merge_takes_turns() {
    block_on(async {
        let both: Vec<_> = stream::repeat('l').merge(stream::repeat('r')).take(6).collect().await;
        assert_eq!(both.iter().collect::<String>(), "lrlrlr");
        // While one side waits, the other yields. Then the sides take turns again.
        let left = steps([Some(1), None, None, Some(2), Some(3), Some(4)]);
        let right = steps([Some(10), Some(20), Some(30), Some(40)]);
        let both: Vec<_> = left.merge(right).collect().await;
        assert_eq!(both, [1, 10, 20, 30, 2, 40, 3, 4]);
    });
}

#[test]
fn merge_ends_after_both_and_polls_neither_again() {
    block_on(async {
        // `Steps` panics when it is polled after its end.
        let cases: [[&[Option<u8>]; 2]; 4] = [
            [&[], &[]],
            [&[], &[None, Some(1), None, Some(2)]],
            [&[None, Some(1), None, Some(2)], &[]],
            [&[Some(1)], &[None, None, Some(2)]],
        ];
        for [left, right] in cases {
            let mut both = steps(left.to_vec()).merge(steps(right.to_vec()));
            let mut seen = Vec::new();
            while let Some(item) = both.next().await {
                seen.push(item);
            }
            let expected = left.iter().chain(right).flatten().count();
            assert_eq!(seen.len(), expected, "{left:?} and {right:?}");
            assert_eq!(both.next().await, None);
        }
    });
}

#[test]
fn merge_adds_size_hints() {
    let both = stream::from_iter(1..4).merge(stream::from_iter(1..3));
    assert_eq!(both.size_hint(), (5, Some(5)));
    assert_eq!(stream::repeat(1).merge(stream::once(1)).size_hint(), (usize::MAX, None));
}

#[test]
fn merge_wakes_for_either_stream() {
    let ticks = || stream::interval(Duration::from_millis(1)).take(3);
    let (left, right) = (ticks().map(|()| 'l'), ticks().map(|()| 'r'));
    let seen: String = block_on(left.merge(right).collect());
    assert_eq!((seen.matches('l').count(), seen.matches('r').count()), (3, 3));
}

#[test]
fn stream_timeout_reports_each_gap_and_continues() {
    block_on(async {
        let limit = Duration::from_millis(10);
        let begin = Instant::now();
        let mut silent = stream::pending::<u8>().timeout(limit);
        let error = silent.next().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "stream has timed out");
        assert!(silent.next().await.unwrap().is_err());
        assert!(begin.elapsed() >= 2 * limit, "the limit starts again after each timeout");

        let mut quick = steps([Some(1), None, Some(2)]).timeout(Duration::from_secs(60));
        assert_eq!((quick.next().await, quick.next().await), (Some(Ok(1)), Some(Ok(2))));
        assert_eq!(quick.next().await, None);
        assert!(poll(&mut stream::pending::<u8>().timeout(Duration::MAX)).is_pending());
        let mut never_late = stream::repeat(1).timeout(Duration::MAX);
        assert_eq!((never_late.next().await, never_late.next().await), (Some(Ok(1)), Some(Ok(1))));
        // With a timeout of zero, ready items are still returned.
        assert_eq!(stream::once(1).timeout(Duration::ZERO).next().await, Some(Ok(1)));
    });
}

/// A slow consumer does not make ready items late. If the stream returns Pending only to make its
/// task yield, it is polled again before a timeout is reported.
#[test]
fn stream_timeout_reports_no_gap_while_items_are_ready() {
    async fn consume() {
        let limit = Duration::from_millis(1);
        let mut ticks = stream::interval(Duration::ZERO).timeout(limit);
        for number in 0..40 {
            assert!(ticks.next().await.unwrap().is_ok(), "item {number}");
            std::thread::sleep(2 * limit);
        }
        let mut none = stream::interval(Duration::ZERO).filter(|()| false).timeout(limit);
        assert!(none.next().await.unwrap().is_err() && none.next().await.unwrap().is_err());
    }
    block_on(consume());
    block_on(async { task::spawn(consume()).await });
}

#[test]
fn delay_postpones_first_item_and_throttle_spaces_items() {
    block_on(async {
        let step = Duration::from_millis(5);
        let begin = Instant::now();
        assert_eq!(stream::from_iter([1, 2]).delay(step).collect::<Vec<_>>().await, [1, 2]);
        assert!(begin.elapsed() >= step);
        let begin = Instant::now();
        let mut throttled = stream::from_iter(1..).throttle(step);
        for expected in 1..4 {
            assert_eq!(throttled.next().await, Some(expected));
            assert!(begin.elapsed() >= step * (expected - 1));
        }
        let mut throttled = stream::repeat(1).throttle(Duration::MAX);
        assert_eq!(throttled.next().await, Some(1));
        assert!(poll(&mut throttled).is_pending());
    });
}

#[test]
fn interval_ticks_are_never_early() {
    block_on(async {
        let period = Duration::from_millis(5);
        let begin = Instant::now();
        let mut ticks: Interval = stream::interval(period);
        for count in 1..=4 {
            assert_eq!(ticks.next().await, Some(()));
            assert!(begin.elapsed() >= period * count, "tick {count} is early");
        }
    });
}

#[test]
fn interval_counts_missed_ticks_as_one() {
    block_on(async {
        let period = Duration::from_millis(50);
        let begin = Instant::now();
        let mut ticks = stream::interval(period);
        std::thread::sleep(period * 3 + period / 2);
        assert_eq!(ticks.next().await, Some(()), "the tick is due");
        // The next tick is the fourth, or a later one if this thread was scheduled late. It is not
        // the second.
        assert_eq!(ticks.next().await, Some(()));
        assert!(begin.elapsed() >= period * 4);
    });
}

#[test]
fn zero_interval_is_always_due_and_longest_never() {
    let mut always = stream::interval(Duration::ZERO);
    let count = block_on(async { always.by_ref().take(100).count().await });
    assert_eq!(count, 100);
    assert!(poll(&mut stream::interval(Duration::MAX)).is_pending());
}

#[test]
fn dropped_next_loses_no_item() {
    block_on(async {
        let (begin, period) = (Instant::now(), Duration::from_millis(100));
        let mut ticks = stream::interval(period);
        for _ in 0..5 {
            let mut next = pin!(ticks.next());
            let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending() || begin.elapsed() >= period);
        }
        assert_eq!(ticks.next().await, Some(()));

        let script = || steps([None, Some(1), None, None, Some(2), None, Some(3)]);
        for polls in 0..8 {
            let mut both = script().merge(script()).timeout(Duration::from_secs(60));
            let mut seen = Vec::new();
            for _ in 0..polls {
                // Each future is polled once and dropped.
                let mut next = pin!(both.next());
                if let Poll::Ready(item) = next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    seen.extend(item);
                }
            }
            while let Some(item) = both.next().await {
                seen.push(item);
            }
            let mut seen: Vec<_> = seen.into_iter().map(Result::unwrap).collect();
            seen.sort_unstable();
            assert_eq!(seen, [1, 1, 2, 2, 3, 3], "after {polls} polls");
        }
    });
}

#[test]
fn streams_run_in_tasks() {
    fn check<T: Send + Sync>(_: &T) {}
    let stream =
        stream::interval(Duration::from_millis(1)).merge(stream::once(())).timeout(Duration::from_secs(60)).take(2);
    check(&stream);
    let task = task::spawn(async move { stream.collect::<Result<Vec<_>, _>>().await });
    assert_eq!(block_on(task), Ok(vec![(), ()]));
}

/// Returns a stream that returns Pending once before each item and before the end.
fn slow<T>(items: impl IntoIterator<Item = T>) -> impl Stream<Item = T> {
    let mut items = items.into_iter();
    let mut waited = false;
    futures::stream::poll_fn(move |cx: &mut Context<'_>| {
        waited = !waited;
        if waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(items.next())
    })
}

#[test]
fn comparisons_wait_for_both_streams() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    block_on(async {
        for (left, right, ordering) in [
            (vec![], vec![], Equal),
            (vec![], vec![1], Less),
            (vec![1, 2], vec![1], Greater),
            (vec![1, 2], vec![1, 2], Equal),
            (vec![1, 3], vec![1, 2, 9], Greater),
            (vec![0, 3], vec![1], Less),
        ] {
            let fast = || stream::from_iter(right.clone());
            assert_eq!(slow(left.clone()).cmp(fast()).await, ordering);
            assert_eq!(fast().cmp(slow(left.clone())).await, ordering.reverse());
            assert_eq!(slow(left.clone()).partial_cmp(slow(right.clone())).await, Some(ordering));
            assert_eq!(slow(left.clone()).eq(fast()).await, ordering == Equal);
            assert_eq!(slow(left.clone()).ne(fast()).await, ordering != Equal);
            assert_eq!(slow(left.clone()).lt(fast()).await, ordering == Less);
            assert_eq!(slow(left.clone()).le(fast()).await, ordering != Greater);
            assert_eq!(slow(left.clone()).gt(fast()).await, ordering == Greater);
            assert_eq!(slow(left.clone()).ge(fast()).await, ordering != Less);
        }
        let nan = || stream::once(f64::NAN);
        assert!(!nan().eq(nan()).await && nan().ne(nan()).await && !nan().le(nan()).await && !nan().ge(nan()).await);
    });
}

#[test]
fn min_returns_first_and_max_last_of_equals() {
    block_on(async {
        let items = [(1, 'a'), (0, 'b'), (1, 'c'), (0, 'd')];
        assert_eq!(slow(items).min_by_key(|item| item.0).await, Some((0, 'b')));
        assert_eq!(slow(items).max_by_key(|item| item.0).await, Some((1, 'c')));
        assert_eq!(slow(items).min_by(|a, b| a.0.cmp(&b.0)).await, Some((0, 'b')));
        assert_eq!(slow(items).max_by(|a, b| a.0.cmp(&b.0)).await, Some((1, 'c')));
        assert_eq!((slow([2, 1, 3]).min().await, slow([2, 1, 3]).max().await), (Some(1), Some(3)));
        assert_eq!((slow([0; 0]).min().await, slow([0; 0]).max_by_key(|n| *n).await), (None, None));
        let total: f64 = slow([0.5, 0.25]).sum().await;
        assert_eq!(total, 0.75);
        assert_eq!(slow([0u8; 0]).product::<u8>().await, 1);
        let mut all = vec![1];
        stream::extend(&mut all, slow([2, 3])).await;
        assert_eq!(all, [1, 2, 3]);
    });
}
