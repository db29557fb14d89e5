//! [`LazyBox`]: an optional value on the heap that is created on demand. A `LazyBox` takes one
//! word.
//!
//! It is used for fields that are seldom needed, such as the name of a task.
//! `std::sync::OnceLock<Box<T>>` takes two words, and an access to its value loads both.
//!
//! # States
//! *empty* (null) → *created*. Only [`take`](LazyBox::take), which has exclusive access, and
//! [`take_unborrowed`](LazyBox::take_unborrowed) make it *empty* again. If two threads create the
//! value at the same time, one value is stored and the other is dropped.
//!
//! # Memory ordering
//! The Release of the thread that stores the value pairs with the Acquire of every access: a thread
//! that sees the pointer sees the value.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// An optional value that is created on demand; see the [module documentation](self).
pub(crate) struct LazyBox<T> {
    value: AtomicPtr<T>,
    owns: PhantomData<Box<T>>,
}

// SAFETY: shared access returns `&T`, which requires `T: Sync`. A thread may drop a value that
// another thread created, which requires `T: Send`.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Sync for LazyBox<T> {}

impl<T> LazyBox<T> {
    pub(crate) const fn new() -> LazyBox<T> {
        LazyBox { value: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    /// Returns the value, if there is one.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) fn get(&self) -> Option<&T> {
        // ORDERING: Acquire pairs with the Release in `offer`. SAFETY: the pointer is null, or was
        // created by `Box::into_raw`. The value is removed only by `take`, which cannot be called
        // while `self` is borrowed, and by `take_unborrowed`, whose caller guarantees that no
        // reference is used.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    /// Returns the value, creating it if necessary.
    pub(crate) fn get_or_default(&self) -> &T
    where
        T: Default,
    {
        if let Some(value) = self.get() {
            return value;
        }
        self.offer(Box::default())
    }

    /// Stores `value`, unless another thread has stored one. Returns the stored value.
    #[cold]
    #[allow(unsafe_code)]
    pub(crate) fn offer(&self, value: Box<T>) -> &T {
        let made = Box::into_raw(value);
        // ORDERING: Release publishes the value. Acquire makes the value of another thread visible.
        match self.value.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: the value was just created. As in `get`, it stays in place while `self` is
            // borrowed.
            Ok(_) => unsafe { &*made },
            Err(theirs) => {
                // SAFETY: the pointer was never shared.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: the pointer was created by `Box::into_raw`. As in `get`, the value stays
                // in place while `self` is borrowed.
                unsafe { &*theirs }
            }
        }
    }

    #[cold]
    fn drop_value(&mut self) {
        drop(self.take());
    }

    /// Takes the value, if there is one.
    #[allow(unsafe_code)]
    pub(crate) fn take(&mut self) -> Option<Box<T>> {
        let value = std::mem::replace(self.value.get_mut(), ptr::null_mut());
        // SAFETY: if it is not null, it was created by `Box::into_raw`, and it is no longer stored
        // here.
        (!value.is_null()).then(|| unsafe { Box::from_raw(value) })
    }

    /// Takes the value, if there is one, without exclusive access.
    ///
    /// # Safety
    /// No reference to the value may be used any more, and no other thread may call this at the
    /// same time.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn take_unborrowed(&self) -> Option<Box<T>> {
        // ORDERING: Acquire, as in `get`.
        let value = self.value.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: if it is not null, it was created by `Box::into_raw`, and the caller guarantees
        // that it is not used.
        (!value.is_null()).then(|| unsafe { Box::from_raw(value) })
    }
}

impl<T> From<T> for LazyBox<T> {
    fn from(value: T) -> LazyBox<T> {
        LazyBox { value: AtomicPtr::new(Box::into_raw(Box::new(value))), owns: PhantomData }
    }
}

impl<T> Default for LazyBox<T> {
    fn default() -> LazyBox<T> {
        LazyBox::new()
    }
}

impl<T> Drop for LazyBox<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.value.get_mut().is_null() {
            self.drop_value();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for LazyBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

const _: () = assert!(size_of::<LazyBox<[u64; 9]>>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, Barrier};

    static ALIVE: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl Default for Counted {
        fn default() -> Counted {
            ALIVE.fetch_add(1, Ordering::SeqCst);
            Counted
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn all_threads_get_the_same_value_and_none_leaks() {
        for _ in 0..200 {
            let shared = Arc::new((LazyBox::<Counted>::new(), Barrier::new(3)));
            let addresses: Vec<usize> = std::thread::scope(|scope| {
                let threads = [(); 3].map(|()| {
                    let shared = shared.clone();
                    scope.spawn(move || {
                        shared.1.wait();
                        ptr::from_ref(shared.0.get_or_default()) as usize
                    })
                });
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let made = shared.0.get().map(|made| ptr::from_ref(made) as usize);
            assert!(addresses.iter().all(|&address| Some(address) == made));
            assert_eq!(ALIVE.load(Ordering::SeqCst), 1);
        }
        assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn taken_value_is_gone() {
        let mut lazy = LazyBox::from(7);
        assert_eq!(lazy.get(), Some(&7));
        assert_eq!(lazy.take().as_deref(), Some(&7));
        assert_eq!(lazy.get(), None);
        assert_eq!(lazy.take(), None);
    }
}
