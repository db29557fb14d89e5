//! [`IntoStream`] and [`Extend`]: converting a value into a stream, and extending a collection with
//! the items of a stream, as in async-std.

use std::future::Future;
use std::iter;
use std::pin::{Pin, pin};

use futures_core::Stream;

use super::StreamExt;

/// A trait for types that can be converted into a stream. Every [`Stream`] implements it.
pub trait IntoStream {
    /// The type of the items.
    type Item;
    /// The type of the stream.
    type IntoStream: Stream<Item = Self::Item>;

    /// Converts the value into a stream.
    fn into_stream(self) -> Self::IntoStream;
}

impl<S: Stream> IntoStream for S {
    type Item = S::Item;
    type IntoStream = S;

    fn into_stream(self) -> S {
        self
    }
}

/// A trait for collections that can be extended with the items of a stream. Every [`Send`] type
/// that implements std's [`Extend`](iter::Extend) for a [`Send`] type of items implements this
/// trait.
pub trait Extend<T> {
    /// Adds all items of `stream` to the collection.
    ///
    /// # Cancel safety
    /// If the future is dropped, the items received so far have been added.
    ///
    /// ```
    /// use netpoll::stream::{self, Extend};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut all = vec![1];
    /// Extend::extend(&mut all, stream::from_iter([2, 3])).await;
    /// assert_eq!(all, [1, 2, 3]);
    /// # });
    /// ```
    fn extend<'a, S>(&'a mut self, stream: S) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>
    where
        S: IntoStream<Item = T> + 'a,
        S::IntoStream: Send,
        T: 'a;
}

impl<T: Send, C: iter::Extend<T> + Send> Extend<T> for C {
    fn extend<'a, S>(&'a mut self, stream: S) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>
    where
        S: IntoStream<Item = T> + 'a,
        S::IntoStream: Send,
        T: 'a,
    {
        let stream = stream.into_stream();
        Box::pin(async move {
            let mut stream = pin!(stream);
            while let Some(item) = stream.next().await {
                iter::Extend::extend(self, [item]);
            }
        })
    }
}

/// Adds all items of `stream` to `collection`.
///
/// # Cancel safety
/// If the future is dropped, the items received so far have been added.
///
/// ```
/// use netpoll::stream;
/// use std::collections::BTreeSet;
///
/// # netpoll::task::block_on(async {
/// let mut all = BTreeSet::from([1]);
/// stream::extend(&mut all, stream::from_iter([3, 2, 1])).await;
/// assert_eq!(all, BTreeSet::from([1, 2, 3]));
/// # });
/// ```
pub async fn extend<C, T, S>(collection: &mut C, stream: S)
where
    C: Extend<T>,
    S: IntoStream<Item = T>,
    S::IntoStream: Send,
{
    Extend::extend(collection, stream).await;
}
