//! [`PathBuf`]: an owned path.

use std::ffi::{OsStr, OsString};
use std::ops::Deref;
use std::str::FromStr;
use std::{convert::Infallible, fmt, iter, path};

use super::{Iter, Path};

/// An owned path: [`std::path::PathBuf`], with the asynchronous methods of [`Path`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathBuf {
    pub(super) inner: path::PathBuf,
}

impl fmt::Debug for PathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PathBuf {
    /// Creates an empty path.
    pub fn new() -> PathBuf {
        PathBuf::default()
    }

    /// Returns the path as a [`Path`].
    pub fn as_path(&self) -> &Path {
        Path::wrap(&self.inner)
    }

    /// Appends `path` to this path, or replaces this path if `path` is absolute.
    pub fn push<P: AsRef<Path>>(&mut self, path: P) {
        self.inner.push(path.as_ref().as_std());
    }

    /// Removes the last component and returns true, or returns false if the path has no parent.
    pub fn pop(&mut self) -> bool {
        self.inner.pop()
    }

    /// Replaces the file name, or appends one if the path has none.
    pub fn set_file_name<S: AsRef<OsStr>>(&mut self, file_name: S) {
        self.inner.set_file_name(file_name);
    }

    /// Replaces, adds or removes the extension and returns true, or returns false if the path has
    /// no file name.
    ///
    /// # Panics
    /// Panics if `extension` contains a `/`.
    pub fn set_extension<S: AsRef<OsStr>>(&mut self, extension: S) -> bool {
        self.inner.set_extension(extension)
    }

    /// Returns the path as an `OsString`.
    pub fn into_os_string(self) -> OsString {
        self.inner.into_os_string()
    }

    /// Returns the path as a boxed [`Path`].
    pub fn into_boxed_path(self) -> Box<Path> {
        Path::wrap_box(self.inner.into_boxed_path())
    }
}

impl Deref for PathBuf {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.as_path()
    }
}

impl FromStr for PathBuf {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<PathBuf, Infallible> {
        Ok(PathBuf::from(text))
    }
}

impl<P: AsRef<Path>> FromIterator<P> for PathBuf {
    fn from_iter<I: IntoIterator<Item = P>>(parts: I) -> PathBuf {
        let mut path = PathBuf::new();
        iter::Extend::extend(&mut path, parts);
        path
    }
}

impl<P: AsRef<Path>> iter::Extend<P> for PathBuf {
    fn extend<I: IntoIterator<Item = P>>(&mut self, parts: I) {
        for part in parts {
            self.push(part);
        }
    }
}

impl<'a> IntoIterator for &'a PathBuf {
    type Item = &'a OsStr;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
