//! Futures: netpoll's types and functions under async-std's names, and async-std's trait
//! `IntoFuture` (feature `unstable`).

pub use netpoll::future::{Future, TimeoutError, pending, poll_fn, ready, timeout};

#[cfg(feature = "unstable")]
pub use flatten::{FlattenFuture, IntoFuture};

#[cfg(feature = "unstable")]
mod flatten {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use pin_project_lite_02::pin_project;

    /// Types that can be converted into a future. As in async-std, this trait is not the standard
    /// library's `IntoFuture`.
    pub trait IntoFuture {
        /// The output type of the future.
        type Output;
        /// The type of the future.
        type Future: Future<Output = Self::Output>;

        /// Converts the value into a future.
        fn into_future(self) -> Self::Future;
    }

    impl<F: Future> IntoFuture for F {
        type Output = F::Output;
        type Future = F;

        fn into_future(self) -> F {
            self
        }
    }

    pin_project! {
        /// The future returned by `FutureExt::flatten`.
        #[derive(Debug)]
        #[must_use = "futures do nothing unless you `.await` or poll them"]
        pub struct FlattenFuture<F, G> {
            #[pin]
            state: State<F, G>,
        }
    }

    pin_project! {
        #[derive(Debug)]
        #[project = StateProjection]
        enum State<F, G> {
            Outer { #[pin] future: F },
            Inner { #[pin] future: G },
        }
    }

    impl<F, G> FlattenFuture<F, G> {
        pub(crate) fn new(future: F) -> FlattenFuture<F, G> {
            FlattenFuture { state: State::Outer { future } }
        }
    }

    impl<F> Future for FlattenFuture<F, <F::Output as IntoFuture>::Future>
    where
        F: Future<Output: IntoFuture>,
    {
        type Output = <F::Output as IntoFuture>::Output;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let mut state = self.project().state;
            loop {
                let inner = match state.as_mut().project() {
                    StateProjection::Outer { future } => ready!(future.poll(cx)).into_future(),
                    StateProjection::Inner { future } => return future.poll(cx),
                };
                state.set(State::Inner { future: inner });
            }
        }
    }
}
