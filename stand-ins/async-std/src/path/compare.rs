//! Comparisons of paths with OS strings and between the path types. Both sides are compared as
//! paths, component by component.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};

use super::{Path, PathBuf};

macro_rules! compare {
    ($([$($generics:tt)*] $left:ty, $right:ty;)*) => {$(
        impl<$($generics)*> PartialEq<$right> for $left {
            fn eq(&self, other: &$right) -> bool {
                AsRef::<Path>::as_ref(self).eq(AsRef::<Path>::as_ref(other))
            }
        }

        impl<$($generics)*> PartialEq<$left> for $right {
            fn eq(&self, other: &$left) -> bool {
                other == self
            }
        }

        impl<$($generics)*> PartialOrd<$right> for $left {
            fn partial_cmp(&self, other: &$right) -> Option<Ordering> {
                AsRef::<Path>::as_ref(self).partial_cmp(AsRef::<Path>::as_ref(other))
            }
        }

        impl<$($generics)*> PartialOrd<$left> for $right {
            fn partial_cmp(&self, other: &$left) -> Option<Ordering> {
                other.partial_cmp(self).map(Ordering::reverse)
            }
        }
    )*};
}

compare! {
    [] PathBuf, Path;
    ['a] PathBuf, &'a Path;
    ['a] Cow<'a, Path>, Path;
    ['a, 'b] Cow<'a, Path>, &'b Path;
    ['a] Cow<'a, Path>, PathBuf;
    [] PathBuf, OsStr;
    ['a] PathBuf, &'a OsStr;
    ['a] PathBuf, Cow<'a, OsStr>;
    [] PathBuf, OsString;
    [] Path, OsStr;
    ['a] Path, &'a OsStr;
    ['a] Path, Cow<'a, OsStr>;
    [] Path, OsString;
    ['a] &'a Path, OsStr;
    ['a, 'b] &'a Path, Cow<'b, OsStr>;
    ['a] &'a Path, OsString;
}
