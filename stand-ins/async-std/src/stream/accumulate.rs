//! Sums and products of streams.

use std::future::Future;
use std::num::Wrapping;
use std::ops::{Add, Mul};
use std::pin::{Pin, pin};

use super::{Stream, StreamExt};

/// Types that can be the sum of a stream.
pub trait Sum<A = Self>: Sized {
    /// Returns the sum of all items.
    fn sum<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + 'a>>
    where
        S: Stream<Item = A> + 'a;
}

/// Types that can be the product of a stream.
pub trait Product<A = Self>: Sized {
    /// Returns the product of all items.
    fn product<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Self> + 'a>>
    where
        S: Stream<Item = A> + 'a;
}

macro_rules! accumulate {
    ($trait:ident $method:ident $start:expr, $operation:path: $($number:ty)*) => {$(
        impl $trait for $number {
            fn $method<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = $number> + 'a>>
            where
                S: Stream<Item = $number> + 'a,
            {
                Box::pin(async move { stream.fold($start, $operation).await })
            }
        }

        impl<'n> $trait<&'n $number> for $number {
            fn $method<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = $number> + 'a>>
            where
                S: Stream<Item = &'n $number> + 'a,
            {
                Box::pin(async move { stream.fold($start, $operation).await })
            }
        }
    )*};
}

macro_rules! integers {
    ($($number:ty)*) => {
        accumulate!(Sum sum 0, Add::add: $($number)*);
        accumulate!(Sum sum Wrapping(0), Add::add: $(Wrapping<$number>)*);
        accumulate!(Product product 1, Mul::mul: $($number)*);
        accumulate!(Product product Wrapping(1), Mul::mul: $(Wrapping<$number>)*);
    };
}

integers!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);
accumulate!(Sum sum 0.0, Add::add: f32 f64);
accumulate!(Product product 1.0, Mul::mul: f32 f64);

/// Returns a stream of the values that `value` returns for the items. At the first `Err`, the
/// stream stores the error in `stop` and ends.
fn values<'a, S, T, V: 'a>(
    stream: S,
    stop: &'a mut Option<T>,
    value: impl Fn(S::Item) -> Result<V, T> + 'a,
) -> impl Stream<Item = V> + 'a
where
    S: Stream + 'a,
{
    let values = stream.scan((), move |(), item| match value(item) {
        Ok(value) => Some(value),
        Err(item) => {
            *stop = Some(item);
            None
        }
    });
    // A dependent's `Sum` may poll the stream again after its end.
    values.fuse()
}

macro_rules! of_fallible {
    ($trait:ident $method:ident) => {
        /// Combines the values of all items, or returns the first error.
        impl<T: $trait<U>, U, E> $trait<Result<U, E>> for Result<T, E> {
            fn $method<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Result<T, E>> + 'a>>
            where
                S: Stream<Item = Result<U, E>> + 'a,
            {
                Box::pin(async move {
                    let mut error = None;
                    let total = {
                        let stream = pin!(values(stream, &mut error, |item| item));
                        T::$method(stream).await
                    };
                    error.map_or(Ok(total), Err)
                })
            }
        }

        /// Combines the values of all items, or returns `None` if an item is `None`.
        impl<T: $trait<U>, U> $trait<Option<U>> for Option<T> {
            fn $method<'a, S>(stream: S) -> Pin<Box<dyn Future<Output = Option<T>> + 'a>>
            where
                S: Stream<Item = Option<U>> + 'a,
            {
                Box::pin(async move {
                    let mut stopped = None;
                    let total = {
                        let stream = pin!(values(stream, &mut stopped, |item: Option<U>| item.ok_or(())));
                        T::$method(stream).await
                    };
                    stopped.is_none().then_some(total)
                })
            }
        }
    };
}

of_fallible!(Sum sum);
of_fallible!(Product product);
