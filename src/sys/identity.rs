//! Comparison of a generic parameter with a type, without specialisation and without `'static`.
//!
//! `TypeId::of` requires `T: 'static`, because types that differ only in lifetimes have the same
//! id. [`is`] compares ids with the lifetimes erased. [`with`] makes this sound: it passes the
//! value to a closure that must accept *any* lifetime. So the closure cannot rely on a particular
//! lifetime and cannot store anything with a shorter lifetime in the value.
//!
//! The id is obtained as in the crate `typeid`: by a method of a trait object that is callable only
//! for `'static`.

#![allow(unsafe_code)]

use std::any::TypeId;
use std::fs::File;
use std::marker::PhantomData;
use std::ptr;

use futures_lite::io::{AssertAsync, Take};

/// A type that contains no lifetime.
///
/// # Safety
/// The type's name must contain no lifetime, not even `'static`.
pub(crate) unsafe trait NoLifetime: 'static {}

// SAFETY: the type has no lifetime parameter.
unsafe impl NoLifetime for File {}

/// A family of types that differ only in one lifetime, the parameter of `At`.
///
/// # Safety
/// Every type that equals `At<'static>` after lifetimes are erased must be `At<'a>` for some `'a`:
/// all lifetimes in it must be the same.
pub(crate) unsafe trait Family {
    /// The member of the family for lifetime `'a`.
    type At<'a>;
}

/// The type `T` itself.
pub(crate) struct Own<T>(PhantomData<T>);
/// The type `&T`.
pub(crate) struct Shared<T>(PhantomData<T>);
/// The type `&mut T`.
pub(crate) struct Unique<T>(PhantomData<T>);
/// The type `Take<F>`.
pub(crate) struct Limited<F>(PhantomData<F>);
/// The type `AssertAsync<F>`.
pub(crate) struct Asserted<F>(PhantomData<F>);

// SAFETY: `T` contains no lifetime.
unsafe impl<T: NoLifetime> Family for Own<T> {
    type At<'a> = T;
}
// SAFETY: the lifetime of the reference is the only one.
unsafe impl<T: NoLifetime> Family for Shared<T> {
    type At<'a> = &'a T;
}
// SAFETY: the lifetime of the reference is the only one.
unsafe impl<T: NoLifetime> Family for Unique<T> {
    type At<'a> = &'a mut T;
}
// SAFETY: the lifetimes of `Take<R>` are those of `R`.
unsafe impl<F: Family> Family for Limited<F> {
    type At<'a> = Take<F::At<'a>>;
}
// SAFETY: the lifetimes of `AssertAsync<R>` are those of `R`.
unsafe impl<F: Family> Family for Asserted<F> {
    type At<'a> = AssertAsync<F::At<'a>>;
}

trait Erased {
    fn id(&self) -> TypeId
    where
        Self: 'static;
}

impl<T: ?Sized> Erased for PhantomData<T> {
    fn id(&self) -> TypeId
    where
        Self: 'static,
    {
        TypeId::of::<T>()
    }
}

fn id<T: ?Sized>() -> TypeId {
    let value = PhantomData::<T>;
    let erased: *const (dyn Erased + '_) = &raw const value;
    // SAFETY: pointer and vtable are unchanged; the object has no data, so nothing with a shorter
    // lifetime is reachable through it.
    let erased = unsafe { std::mem::transmute::<*const (dyn Erased + '_), *const (dyn Erased + 'static)>(erased) };
    // SAFETY: `value` is alive.
    unsafe { &*erased }.id()
}

/// Returns whether `R` is a member of `F`.
#[inline]
pub(crate) fn is<F: Family, R: ?Sized>() -> bool {
    id::<R>() == id::<F::At<'static>>()
}

/// Calls `look` with `value` as a member of `F`. Returns `None` if `R` is not a member of `F`.
#[inline]
pub(crate) fn with<F: Family, R: ?Sized, T>(
    value: &mut R,
    look: impl for<'a, 's> FnOnce(&'s mut F::At<'a>) -> T,
) -> Option<T> {
    if !is::<F, R>() {
        return None;
    }
    let known = ptr::from_mut(value).cast::<F::At<'_>>();
    // SAFETY: `R` is `At<'a>` for some `'a` (see `Family`) and sized, so `known` points to a value
    // of this type, except for the lifetime. `look` accepts every lifetime, including the true one,
    // whatever lifetime the compiler infers here. `value` is borrowed during the call.
    Some(look(unsafe { &mut *known }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lifetimes_are_ignored() {
        fn check<'a>(_: &'a File) {
            assert!(is::<Shared<File>, &'a File>() && is::<Shared<File>, &'static File>());
            assert!(is::<Limited<Asserted<Shared<File>>>, Take<AssertAsync<&'a File>>>());
            assert!(!is::<Own<File>, &'a File>() && !is::<Unique<File>, &'a File>());
        }
        check(&File::open("/dev/null").unwrap());
        assert!(is::<Own<File>, File>() && is::<Unique<File>, &mut File>());
        assert!(!is::<Own<File>, dyn std::io::Read>() && !is::<Own<File>, Option<File>>() && !is::<Own<File>, [u8]>());
        assert!(!is::<Limited<Own<File>>, File>());
    }

    #[test]
    fn value_is_accessed_in_place() {
        let file = File::open("/dev/null").unwrap();
        let mut reader = futures_lite::AsyncReadExt::take(AssertAsync::new(&file), 7);
        assert_eq!(with::<Limited<Asserted<Shared<File>>>, _, _>(&mut reader, |take| take.set_limit(3)), Some(()));
        assert_eq!(reader.limit(), 3);
        assert_eq!(with::<Own<File>, _, _>(&mut reader, |_| ()), None);
        assert_eq!(with::<Own<File>, str, _>(&mut *String::new(), |_| ()), None);
    }
}
