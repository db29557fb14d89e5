//! Paths with methods that access the filesystem without blocking the thread.
//!
//! As in async-std, [`Path`] and [`PathBuf`] are distinct from the standard library's types,
//! because some dependents implement a trait both for these types and for the standard library's.

mod compare;
mod convert;
mod owned;
mod parts;
mod slice;

pub use std::path::{Component, Display, MAIN_SEPARATOR, Prefix, PrefixComponent, StripPrefixError, is_separator};

pub use owned::PathBuf;
pub use parts::{Ancestors, Components, Iter};
pub use slice::Path;
