//! [`IntoStream`] and [`Extend`]: async-std's names for what is given as a stream and what takes one.

use std::future::Future;
use std::iter;
use std::pin::{Pin, pin};

use futures_core::Stream;

use super::StreamExt;

/// What can be turned into a stream: every [`Stream`], and what implements this.
pub trait IntoStream {
    /// What the stream yields.
    type Item;
    /// The stream.
    type IntoStream: Stream<Item = Self::Item>;

    /// Turns it into a stream.
    fn into_stream(self) -> Self::IntoStream;
}

impl<S: Stream> IntoStream for S {
    type Item = S::Item;
    type IntoStream = S;

    fn into_stream(self) -> S {
        self
    }
}

/// What takes the items of a stream, one by one: every collection with the standard library's [`Extend`](iter::Extend).
pub trait Extend<T> {
    /// Adds all items of `stream`. A dropped future has added those that had come.
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
