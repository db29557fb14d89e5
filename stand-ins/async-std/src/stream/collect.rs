//! Collecting the items of a stream. The traits have the same signatures as async-std's, because
//! dependents implement them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::iter;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use super::{IntoStream, StreamExt};
use crate::path::{Path, PathBuf};

/// Types that can be created from a stream.
pub trait FromStream<T: Send> {
    /// Creates a value from all items.
    fn from_stream<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + Send + 'a>>
    where
        S: IntoStream<Item = T> + 'a,
        S::IntoStream: Send;
}

/// Collections that can be extended with the items of a stream.
pub trait Extend<A> {
    /// Adds all items of `stream`.
    fn extend<'a, S>(&'a mut self, stream: S) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>
    where
        S: IntoStream<Item = A> + 'a,
        S::IntoStream: Send;
}

/// Adds all items of `stream` to `collection`.
pub async fn extend<'a, C, T, S>(collection: &mut C, stream: S)
where
    C: Extend<T>,
    S: IntoStream<Item = T> + 'a,
    S::IntoStream: Send,
{
    Extend::extend(collection, stream).await;
}

/// Adds the items one by one to a collection that implements the standard library's `Extend`.
async fn push_all<T, C: iter::Extend<T>>(collection: &mut C, stream: impl super::Stream<Item = T>) {
    let mut stream = pin!(stream);
    while let Some(item) = stream.next().await {
        collection.extend([item]);
    }
}

macro_rules! collection {
    ([$($generics:tt)*] $item:ty => $collection:ty) => {
        impl<$($generics)*> FromStream<$item> for $collection {
            fn from_stream<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + Send + 'a>>
            where
                S: IntoStream<Item = $item> + 'a,
                S::IntoStream: Send,
            {
                let stream = stream.into_stream();
                Box::pin(async move {
                    let mut collection = <$collection>::default();
                    push_all(&mut collection, stream).await;
                    collection
                })
            }
        }

        impl<$($generics)*> Extend<$item> for $collection {
            fn extend<'a, S>(&'a mut self, stream: S) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>
            where
                S: IntoStream<Item = $item> + 'a,
                S::IntoStream: Send,
            {
                let stream = stream.into_stream();
                Box::pin(async move { push_all(self, stream).await })
            }
        }
    };
}

collection!([T: Send] T => Vec<T>);
collection!([T: Send] T => VecDeque<T>);
collection!([T: Send] T => LinkedList<T>);
collection!([T: Ord + Send] T => BinaryHeap<T>);
collection!([T: Ord + Send] T => BTreeSet<T>);
collection!([T: Eq + Hash + Send, H: BuildHasher + Default + Send] T => HashSet<T, H>);
collection!([K: Ord + Send, V: Send] (K, V) => BTreeMap<K, V>);
collection!([K: Eq + Hash + Send, V: Send, H: BuildHasher + Default + Send] (K, V) => HashMap<K, V, H>);
collection!([] char => String);
collection!(['c] &'c char => String);
collection!(['s] &'s str => String);
collection!([] String => String);
collection!(['s] Cow<'s, str> => String);
collection!([] () => ());
collection!([P: AsRef<Path> + Send] P => PathBuf);

macro_rules! of_vec {
    ([$($generics:tt)*] $collection:ty) => {
        impl<$($generics)*> FromStream<T> for $collection {
            fn from_stream<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + Send + 'a>>
            where
                S: IntoStream<Item = T> + 'a,
                S::IntoStream: Send,
            {
                let stream = stream.into_stream();
                Box::pin(async move {
                    let mut items = Vec::new();
                    push_all(&mut items, stream).await;
                    items.into()
                })
            }
        }
    };
}

of_vec!(['v, T: Clone + Send] Cow<'v, [T]>);
of_vec!([T: Send] Box<[T]>);
of_vec!([T: Send] Rc<[T]>);
of_vec!([T: Send] Arc<[T]>);

/// Collects all values, or returns the first error. The stream is not polled after an error.
impl<T: Send, E: Send, C: FromStream<T>> FromStream<Result<T, E>> for Result<C, E> {
    fn from_stream<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + Send + 'a>>
    where
        S: IntoStream<Item = Result<T, E>> + 'a,
        S::IntoStream: Send,
    {
        let stream = stream.into_stream();
        Box::pin(async move {
            let mut error = None;
            let values = {
                let stop = &mut error;
                let values =
                    stream.scan((), move |(), item: Result<T, E>| item.map_err(|error| *stop = Some(error)).ok());
                // The collection may poll the stream again after its end.
                C::from_stream(pin!(values.fuse())).await
            };
            error.map_or(Ok(values), Err)
        })
    }
}

/// Collects all values, or returns `None` if an item is `None`. The stream is not polled after such
/// an item.
impl<T: Send, C: FromStream<T>> FromStream<Option<T>> for Option<C> {
    fn from_stream<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + Send + 'a>>
    where
        S: IntoStream<Item = Option<T>> + 'a,
        S::IntoStream: Send,
    {
        let stream = stream.into_stream();
        Box::pin(async move {
            let mut stopped = false;
            let values = {
                let stop = &mut stopped;
                let values = stream.scan((), move |(), item: Option<T>| {
                    *stop = item.is_none();
                    item
                });
                C::from_stream(pin!(values.fuse())).await
            };
            (!stopped).then_some(values)
        })
    }
}
