//! Paths with methods that ask the filesystem without blocking.
//!
//! [`Path`] and [`PathBuf`] are types of their own, as in async-std: dependents implement traits for them beside the standard library's.

mod compare;
mod convert;
mod owned;
mod parts;
mod slice;

pub use std::path::{Component, Display, MAIN_SEPARATOR, Prefix, PrefixComponent, StripPrefixError, is_separator};

pub use owned::PathBuf;
pub use parts::{Ancestors, Components, Iter};
pub use slice::Path;
