//! [`LazyFrom`]: a value that is created on demand from a static reference, and takes one word.
//!
//! It is used for the identity in a task's handle, which few programs ask for.
//!
//! # States
//! *seed* (the reference) → *created* (a box, with the lowest bit set). If two threads create the value at the same
//! time, one value is stored and the other is dropped.
//!
//! # Memory ordering
//! The Release of the thread that stores the value pairs with the Acquire of every access: a thread that sees the box
//! sees the value.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Set in the word if it is the address of a box.
const CREATED: usize = 1;

/// A value that is created on demand; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct LazyFrom<S: 'static, T> {
    word: AtomicPtr<()>,
    has: PhantomData<(&'static S, Box<T>)>,
}

// SAFETY: shared access returns `&T`, which requires `T: Sync`, and `&'static S`. A thread may drop a value that another
// thread created, which requires `T: Send`.
unsafe impl<S: Sync, T: Send + Sync> Sync for LazyFrom<S, T> {}

/// The state of a [`LazyFrom`].
#[derive(Debug)]
pub(crate) enum State<'a, S: 'static, T> {
    Seed(&'static S),
    Created(&'a T),
}

impl<S, T> LazyFrom<S, T> {
    const ALIGNED: () = assert!(align_of::<S>() > CREATED && align_of::<T>() > CREATED);

    pub(crate) fn new(seed: &'static S) -> LazyFrom<S, T> {
        const { Self::ALIGNED };
        LazyFrom { word: AtomicPtr::new(ptr::from_ref(seed).cast::<()>().cast_mut()), has: PhantomData }
    }

    pub(crate) fn created(value: T) -> LazyFrom<S, T> {
        const { Self::ALIGNED };
        LazyFrom { word: AtomicPtr::new(boxed(value)), has: PhantomData }
    }

    #[inline]
    pub(crate) fn state(&self) -> State<'_, S, T> {
        // ORDERING: Acquire pairs with the Release in `get`.
        let word = self.word.load(Ordering::Acquire);
        match unboxed::<T>(word) {
            // SAFETY: the pointer was created by `boxed` and is given back only when `self` is dropped.
            Some(value) => State::Created(unsafe { &*value }),
            // SAFETY: without the bit, the word is the seed of `new`.
            None => State::Seed(unsafe { &*word.cast::<S>() }),
        }
    }

    /// Returns the value. If it was not created, creates it by `create`.
    pub(crate) fn get(&self, create: impl FnOnce(&'static S) -> T) -> &T {
        let seed = match self.state() {
            State::Created(value) => return value,
            State::Seed(seed) => seed,
        };
        let (made, unmade) = (boxed(create(seed)), ptr::from_ref(seed).cast::<()>().cast_mut());
        // ORDERING: Release publishes the value.
        if self.word.compare_exchange(unmade, made, Ordering::Release, Ordering::Relaxed).is_err() {
            drop_boxed::<T>(made);
        }
        match self.state() {
            State::Created(value) => value,
            State::Seed(_) => unreachable!("a value was stored"),
        }
    }
}

/// Returns the word of a box with `value`.
fn boxed<T>(value: T) -> *mut () {
    Box::into_raw(Box::new(value)).cast::<()>().map_addr(|addr| addr | CREATED)
}

/// Returns the pointer to the value in the box, if `word` is that of a box.
#[inline]
fn unboxed<T>(word: *mut ()) -> Option<*mut T> {
    (word.addr() & CREATED != 0).then(|| word.map_addr(|addr| addr & !CREATED).cast::<T>())
}

/// Drops the value if `word` is that of a box. The word must not be used again.
#[cold]
fn drop_boxed<T>(word: *mut ()) {
    if let Some(value) = unboxed::<T>(word) {
        // SAFETY: the pointer was created by `Box::into_raw` in `boxed`. The caller does not use it again.
        drop(unsafe { Box::from_raw(value) });
    }
}

impl<S, T> Drop for LazyFrom<S, T> {
    #[inline]
    fn drop(&mut self) {
        let word = *self.word.get_mut();
        if unboxed::<T>(word).is_some() {
            drop_boxed::<T>(word);
        }
    }
}

const _: () = assert!(size_of::<LazyFrom<u64, [u64; 9]>>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    static SEED: u64 = 7;

    #[test]
    fn all_threads_get_the_same_value_and_none_leaks() {
        let alive = Arc::new(());
        for _ in 0..200 {
            let shared = (LazyFrom::<u64, (u64, Arc<()>)>::new(&SEED), Barrier::new(3));
            assert!(matches!(shared.0.state(), State::Seed(&7)));
            let addresses: Vec<usize> = std::thread::scope(|scope| {
                let threads = [(); 3].map(|()| {
                    scope.spawn(|| {
                        shared.1.wait();
                        ptr::from_ref(shared.0.get(|seed| (*seed + 1, alive.clone()))).addr()
                    })
                });
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let State::Created(value) = shared.0.state() else { panic!("it was created") };
            assert!(value.0 == 8 && addresses.iter().all(|&address| address == ptr::from_ref(value).addr()));
            assert_eq!(Arc::strong_count(&alive), 2);
        }
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn created_value_is_kept_and_seed_is_not_dropped() {
        let lazy = LazyFrom::<u64, String>::created("value".to_owned());
        assert_eq!(lazy.get(|_| unreachable!()), "value");
        drop(LazyFrom::<u64, String>::new(&SEED));
    }
}
