//! [`Flatten`]: flattens a stream of streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite_02::pin_project;

use super::{IntoStream, Stream};

pin_project! {
    /// The stream returned by `StreamExt::flatten`.
    pub struct Flatten<S>
    where
        S: Stream,
        S::Item: IntoStream,
    {
        #[pin]
        outer: S,
        #[pin]
        inner: Option<<S::Item as IntoStream>::IntoStream>,
    }
}

impl<S> Flatten<S>
where
    S: Stream,
    S::Item: IntoStream,
{
    pub(crate) fn new(outer: S) -> Flatten<S> {
        Flatten { outer, inner: None }
    }
}

impl<S> Stream for Flatten<S>
where
    S: Stream,
    S::Item: IntoStream,
{
    type Item = <S::Item as IntoStream>::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            if let Some(inner) = this.inner.as_mut().as_pin_mut() {
                match ready!(inner.poll_next(cx)) {
                    Some(item) => return Poll::Ready(Some(item)),
                    None => this.inner.set(None),
                }
            }
            match ready!(this.outer.as_mut().poll_next(cx)) {
                Some(next) => this.inner.set(Some(next.into_stream())),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<S> fmt::Debug for Flatten<S>
where
    S: Stream + fmt::Debug,
    S::Item: IntoStream,
    <S::Item as IntoStream>::IntoStream: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flatten").field("outer", &self.outer).field("inner", &self.inner).finish()
    }
}
