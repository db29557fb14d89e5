//! What type a generic parameter is, without specialisation and without `'static`.
//!
//! `TypeId::of` wants `T: 'static`, because types that differ in lifetimes only have one id. [`same`] asks for the id with the
//! lifetimes forgotten; what is lost by that is put right by [`with`]: it shows the value for *any* lifetime, so the code
//! that looks at it can rely on none and put nothing shorter-lived in.
//!
//! The way to the id is the one of the crate `typeid`: a method of a trait object that is only callable for `'static`.

#![allow(unsafe_code)]

use std::any::TypeId;
use std::fs::File;
use std::marker::PhantomData;
use std::ptr;

use futures_lite::io::{AssertAsync, Take};

/// A type without any lifetime in it.
///
/// # Safety
/// No lifetime stands in the type's name, not even `'static`.
pub(crate) unsafe trait Plain: 'static {}

// SAFETY: no lifetime.
unsafe impl Plain for File {}

/// Types that are the same but for one lifetime, which `At` shows.
///
/// # Safety
/// A type that is `At<'static>` with lifetimes forgotten is `At<'a>` for some `'a`: all lifetimes in it are that one.
pub(crate) unsafe trait Family {
    /// The member for a lifetime.
    type At<'a>;
}

/// `T` itself.
pub(crate) struct Own<T>(PhantomData<T>);
/// `&T`.
pub(crate) struct Shared<T>(PhantomData<T>);
/// `&mut T`.
pub(crate) struct Unique<T>(PhantomData<T>);
/// `Take<F>`.
pub(crate) struct Limited<F>(PhantomData<F>);
/// `AssertAsync<F>`.
pub(crate) struct Asserted<F>(PhantomData<F>);

// SAFETY: there is no lifetime in `T`.
unsafe impl<T: Plain> Family for Own<T> {
    type At<'a> = T;
}
// SAFETY: the reference's is the only lifetime.
unsafe impl<T: Plain> Family for Shared<T> {
    type At<'a> = &'a T;
}
// SAFETY: the reference's is the only lifetime.
unsafe impl<T: Plain> Family for Unique<T> {
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
    // SAFETY: the same pointer and table; the object has no data, so nothing of too short a life can be reached through it.
    let erased = unsafe { std::mem::transmute::<*const (dyn Erased + '_), *const (dyn Erased + 'static)>(erased) };
    // SAFETY: `value` is alive.
    unsafe { &*erased }.id()
}

/// Whether `R` is a member of `F`.
#[inline]
pub(crate) fn is<F: Family, R: ?Sized>() -> bool {
    id::<R>() == id::<F::At<'static>>()
}

/// Shows `value` as the member of `F` that it is, if it is one.
#[inline]
pub(crate) fn with<F: Family, R: ?Sized, T>(
    value: &mut R,
    look: impl for<'a, 's> FnOnce(&'s mut F::At<'a>) -> T,
) -> Option<T> {
    if !is::<F, R>() {
        return None;
    }
    let known = ptr::from_mut(value).cast::<F::At<'_>>();
    // SAFETY: `R` is `At<'a>` for some `'a` (`Family`), a sized type, and so is what `known` points to but for the lifetime. `look` is
    // good for every `'a`, so for the true one as well, whatever the compiler has put in its place here. `value` is borrowed
    // meanwhile.
    Some(look(unsafe { &mut *known }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_do_not_count_and_all_else_does() {
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
    fn a_value_is_seen_and_changed_in_place() {
        let file = File::open("/dev/null").unwrap();
        let mut reader = futures_lite::AsyncReadExt::take(AssertAsync::new(&file), 7);
        assert_eq!(with::<Limited<Asserted<Shared<File>>>, _, _>(&mut reader, |take| take.set_limit(3)), Some(()));
        assert_eq!(reader.limit(), 3);
        assert_eq!(with::<Own<File>, _, _>(&mut reader, |_| ()), None);
        assert_eq!(with::<Own<File>, str, _>(&mut *String::new(), |_| ()), None);
    }
}
