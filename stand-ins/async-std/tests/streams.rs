//! Tests of the parts of async-std's feature `unstable` that this package implements: collecting,
//! sums and products, double-ended streams, flattened streams and futures, `copy` by value, and the
//! condition variable.
#![cfg(feature = "unstable")]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_std::future::IntoFuture;
use async_std::prelude::*;
use async_std::stream::{self, Extend, FromStream, IntoStream};
use async_std::sync::{Condvar, Mutex};
use async_std::{future, io, task};

/// A collection that polls the stream again after its end.
#[derive(Debug, PartialEq)]
struct PollsAgain(Vec<i32>);

impl PollsAgain {
    async fn poll_beyond_the_end(stream: impl Stream<Item = i32>) -> PollsAgain {
        let mut stream = std::pin::pin!(stream);
        let mut items = Vec::new();
        for _ in 0..2 {
            while let Some(item) = stream.next().await {
                items.push(item);
            }
        }
        PollsAgain(items)
    }
}

impl FromStream<i32> for PollsAgain {
    fn from_stream<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + Send + 'a>>
    where
        S: IntoStream<Item = i32> + 'a,
        S::IntoStream: Send,
    {
        Box::pin(PollsAgain::poll_beyond_the_end(stream.into_stream()))
    }
}

impl stream::Sum<i32> for PollsAgain {
    fn sum<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + 'a>>
    where
        S: Stream<Item = i32> + 'a,
    {
        Box::pin(PollsAgain::poll_beyond_the_end(stream))
    }
}

#[test]
fn stream_is_not_polled_after_a_failure_even_if_the_collection_polls_again() {
    task::block_on(async {
        let mut seen = 0;
        let options = stream::from_iter([Some(1), None, Some(2)]).inspect(|_| seen += 1);
        assert_eq!(options.collect::<Option<PollsAgain>>().await, None);
        assert_eq!(seen, 2);
        let mut seen = 0;
        let results = stream::from_iter([Ok(1), Err("first"), Ok(2), Err("second")]).inspect(|_| seen += 1);
        assert_eq!(results.collect::<Result<PollsAgain, _>>().await, Err("first"));
        assert_eq!(seen, 2);
        let mut seen = 0;
        let results = stream::from_iter([Ok(1), Err("first"), Ok(2), Err("second")]).inspect(|_| seen += 1);
        assert_eq!(<Result<PollsAgain, _> as stream::Sum<_>>::sum(results).await, Err("first"));
        assert_eq!(seen, 2);
    });
}

#[test]
fn streams_collect_into_collections_texts_and_paths() {
    task::block_on(async {
        let numbers = || stream::from_iter([3, 1, 2]);
        assert_eq!(numbers().collect::<Vec<_>>().await, [3, 1, 2]);
        assert_eq!(numbers().collect::<VecDeque<_>>().await, [3, 1, 2]);
        assert_eq!(numbers().collect::<BTreeSet<_>>().await, BTreeSet::from([1, 2, 3]));
        assert_eq!(&*numbers().collect::<Arc<[i32]>>().await, [3, 1, 2]);
        let pairs = || stream::from_iter([("a", 1), ("b", 2)]);
        assert_eq!(pairs().collect::<BTreeMap<_, _>>().await["b"], 2);
        assert_eq!(pairs().collect::<HashMap<_, _>>().await["a"], 1);
        assert_eq!(stream::from_iter(["a", "b"]).collect::<String>().await, "ab");
        let path: async_std::path::PathBuf = stream::from_iter(["/usr", "lib"]).collect().await;
        assert_eq!(path, async_std::path::Path::new("/usr/lib"));
        let texts = stream::from_iter(["1", "x", "y"]);
        let mut seen = 0;
        let parsed: Result<Vec<u8>, _> = texts.inspect(|_| seen += 1).map(str::parse).collect().await;
        assert!(parsed.is_err());
        assert_eq!(seen, 2);
        assert_eq!(stream::from_iter([Some(1), None]).collect::<Option<Vec<_>>>().await, None);
        let mut all = vec![0];
        stream::extend(&mut all, numbers()).await;
        assert_eq!(all, [0, 3, 1, 2]);
    });
}

/// The longest text of a stream.
struct Longest(String);

impl FromStream<&'static str> for Longest {
    fn from_stream<'a, S: IntoStream<Item = &'static str> + 'a>(
        stream: S,
    ) -> Pin<Box<dyn Future<Output = Self> + 'a + Send>>
    where
        <S as IntoStream>::IntoStream: Send,
    {
        let stream = stream.into_stream();
        Box::pin(async move {
            let longest = stream.fold("", |best, text| if text.len() > best.len() { text } else { best }).await;
            Longest(longest.to_owned())
        })
    }
}

/// The number of items that were added.
struct Count(usize);

impl Extend<u8> for Count {
    fn extend<'a, T: IntoStream<Item = u8> + 'a>(
        &'a mut self,
        stream: T,
    ) -> Pin<Box<dyn Future<Output = ()> + 'a + Send>>
    where
        <T as IntoStream>::IntoStream: Send,
    {
        let stream = stream.into_stream();
        Box::pin(async move { self.0 += stream.count().await })
    }
}

#[test]
fn other_crates_can_implement_the_collection_traits() {
    task::block_on(async {
        let longest: Longest = stream::from_iter(["a", "ccc", "bb"]).collect().await;
        assert_eq!(longest.0, "ccc");
        let mut count = Count(1);
        stream::extend(&mut count, stream::from_iter([7, 8])).await;
        assert_eq!(count.0, 3);
    });
}

#[test]
fn numbers_results_and_options_have_sums_and_products() {
    task::block_on(async {
        assert_eq!(stream::from_iter([1u8, 2, 3]).sum::<u8>().await, 6);
        assert_eq!(stream::from_iter([1.5, 2.0]).product::<f64>().await, 3.0);
        let sum =
            |items: [Result<u32, &'static str>; 3]| <Result<u32, _> as stream::Sum<_>>::sum(stream::from_iter(items));
        assert_eq!(sum([Ok(1), Ok(2), Ok(3)]).await, Ok(6));
        assert_eq!(sum([Ok(1), Err("no"), Ok(3)]).await, Err("no"));
        let options = stream::from_iter([Some(2), None]);
        assert_eq!(<Option<i32> as stream::Product<_>>::product(options).await, None);
    });
}

#[test]
fn streams_of_existing_values_yield_items_from_both_ends() {
    task::block_on(async {
        let mut numbers = stream::from_iter(1..=5);
        assert_eq!(numbers.next_back().await, Some(5));
        assert_eq!(numbers.next().await, Some(1));
        assert_eq!(numbers.nth_back(1).await, Some(3));
        assert_eq!(numbers.next_back().await, Some(2));
        assert_eq!(numbers.next_back().await, None);
        assert_eq!(stream::from_iter(1..5).rfind(|number| number % 2 == 1).await, Some(3));
        assert_eq!(stream::from_iter(["a", "b"]).rfold(String::new(), |all, text| all + text).await, "ba");
        let failed =
            stream::from_iter(1..5).try_rfold(0, |sum, number| if number > 2 { Ok(sum + number) } else { Err(sum) });
        assert_eq!(failed.await, Err(7));
        assert_eq!(stream::once(7).next_back().await, Some(7));
        assert_eq!(ExactSizeStream::len(&stream::pending::<()>()), 0);
    });
}

#[test]
fn flatten_returns_items_of_inner_streams_and_output_of_inner_future() {
    struct Later(u8);
    impl IntoFuture for Later {
        type Output = u8;
        type Future = std::future::Ready<u8>;

        fn into_future(self) -> Self::Future {
            std::future::ready(self.0)
        }
    }

    task::block_on(async {
        let nested =
            stream::from_iter([stream::from_iter(vec![1, 2]), stream::from_iter(vec![]), stream::from_iter(vec![3])]);
        assert_eq!(nested.flatten().collect::<Vec<_>>().await, [1, 2, 3]);
        assert_eq!(async { Later(7) }.flatten().await, 7);
        assert_eq!(future::ready(1).join(future::ready('b')).await, (1, 'b'));
    });
}

#[test]
fn copy_takes_reader_by_value_and_writer_by_reference() {
    task::block_on(async {
        let mut out = io::Cursor::new(Vec::new());
        assert_eq!(io::copy(&b"text"[..], &mut out).await?, 4);
        assert_eq!(out.into_inner(), b"text");
        io::Result::Ok(())
    })
    .unwrap();
}

#[test]
fn condition_variable_wakes_one_waiter_or_all() {
    task::block_on(async {
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let shared = shared.clone();
                task::spawn(async move {
                    let (lock, changed) = &*shared;
                    let mut tickets = changed.wait_until(lock.lock().await, |tickets| *tickets > 0).await;
                    *tickets -= 1;
                })
            })
            .collect();
        let (lock, changed) = &*shared;
        *lock.lock().await = 1;
        changed.notify_one();
        while *lock.lock().await > 0 {
            task::yield_now().await;
        }
        *lock.lock().await = 2;
        changed.notify_all();
        for waiter in waiters {
            waiter.await;
        }
        assert_eq!(*lock.lock().await, 0);
        let (guard, result) = changed.wait_timeout(lock.lock().await, Duration::from_millis(1)).await;
        assert!(result.timed_out());
        let (_, result) = changed.wait_timeout_until(guard, Duration::from_secs(60), |_| true).await;
        assert!(!result.timed_out());
    });
}
