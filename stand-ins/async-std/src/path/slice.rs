//! [`Path`]: the standard library's, with asynchronous methods.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::{fmt, path};

use super::{Ancestors, Components, Display, Iter, PathBuf, StripPrefixError};
use crate::fs::{self, Metadata, ReadDir};
use crate::io;

/// A slice of a path: [`std::path::Path`], whose methods that ask the filesystem are asynchronous.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Path {
    inner: path::Path,
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Path {
    /// Wraps a string; no copy is made.
    pub fn new<S: AsRef<OsStr> + ?Sized>(s: &S) -> &Path {
        Path::wrap(path::Path::new(s))
    }

    #[allow(unsafe_code)]
    pub(super) fn wrap(path: &path::Path) -> &Path {
        // SAFETY: `Path` is transparent over `std::path::Path`, so the pointers have one layout, metadata included. The lifetime is kept.
        unsafe { &*(std::ptr::from_ref(path) as *const Path) }
    }

    #[allow(unsafe_code)]
    pub(super) fn wrap_box(path: Box<path::Path>) -> Box<Path> {
        let raw = Box::into_raw(path) as *mut Path;
        // SAFETY: `Path` is transparent over `std::path::Path`, so this is the same allocation with the same layout, owned by `path` until now.
        unsafe { Box::from_raw(raw) }
    }

    #[allow(unsafe_code)]
    fn unwrap_box(path: Box<Path>) -> Box<path::Path> {
        let raw = Box::into_raw(path) as *mut path::Path;
        // SAFETY: as in `wrap_box`, the other way round.
        unsafe { Box::from_raw(raw) }
    }

    pub(crate) fn as_std(&self) -> &path::Path {
        &self.inner
    }

    /// The whole as an `OsStr`.
    pub fn as_os_str(&self) -> &OsStr {
        self.inner.as_os_str()
    }

    /// The whole as text, if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        self.inner.to_str()
    }

    /// The whole as text; what is not UTF-8 is replaced.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        self.inner.to_string_lossy()
    }

    /// An owned copy.
    pub fn to_path_buf(&self) -> PathBuf {
        PathBuf::from(self.inner.to_path_buf())
    }

    /// Whether it begins at the root.
    pub fn is_absolute(&self) -> bool {
        self.inner.is_absolute()
    }

    /// Whether it does not begin at the root.
    pub fn is_relative(&self) -> bool {
        self.inner.is_relative()
    }

    /// Whether it has a root.
    pub fn has_root(&self) -> bool {
        self.inner.has_root()
    }

    /// The path without its last component.
    pub fn parent(&self) -> Option<&Path> {
        self.inner.parent().map(Path::wrap)
    }

    /// The path, its parent, the parent's parent and so on.
    pub fn ancestors(&self) -> Ancestors<'_> {
        Ancestors::new(self)
    }

    /// The last component, if it is a name.
    pub fn file_name(&self) -> Option<&OsStr> {
        self.inner.file_name()
    }

    /// The path relative to `base`.
    ///
    /// # Errors
    /// If `base` is not a prefix.
    pub fn strip_prefix<P: AsRef<Path>>(&self, base: P) -> Result<&Path, StripPrefixError> {
        self.inner.strip_prefix(base.as_ref().as_std()).map(Path::wrap)
    }

    /// Whether `base` is a prefix, by whole components.
    pub fn starts_with<P: AsRef<Path>>(&self, base: P) -> bool {
        self.inner.starts_with(base.as_ref().as_std())
    }

    /// Whether `child` is a suffix, by whole components.
    pub fn ends_with<P: AsRef<Path>>(&self, child: P) -> bool {
        self.inner.ends_with(child.as_ref().as_std())
    }

    /// The name without its extension.
    pub fn file_stem(&self) -> Option<&OsStr> {
        self.inner.file_stem()
    }

    /// The extension of the name.
    pub fn extension(&self) -> Option<&OsStr> {
        self.inner.extension()
    }

    /// This path with `path` behind it, or `path` if that is absolute.
    pub fn join<P: AsRef<Path>>(&self, path: P) -> PathBuf {
        PathBuf::from(self.inner.join(path.as_ref().as_std()))
    }

    /// The path with another name.
    pub fn with_file_name<S: AsRef<OsStr>>(&self, file_name: S) -> PathBuf {
        PathBuf::from(self.inner.with_file_name(file_name))
    }

    /// The path with another extension.
    pub fn with_extension<S: AsRef<OsStr>>(&self, extension: S) -> PathBuf {
        PathBuf::from(self.inner.with_extension(extension))
    }

    /// The components.
    pub fn components(&self) -> Components<'_> {
        Components::new(self.inner.components())
    }

    /// The components as `OsStr`s.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self.components())
    }

    /// A value that prints the path; what is not UTF-8 is replaced.
    pub fn display(&self) -> Display<'_> {
        self.inner.display()
    }

    /// Turns a box into an owned path; no copy is made.
    pub fn into_path_buf(self: Box<Path>) -> PathBuf {
        PathBuf::from(Path::unwrap_box(self).into_path_buf())
    }

    /// What the file is: stat(2).
    ///
    /// # Errors
    /// The system's error.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(self).await
    }

    /// What the file is, without following a symbolic link: lstat(2).
    ///
    /// # Errors
    /// The system's error.
    pub async fn symlink_metadata(&self) -> io::Result<Metadata> {
        fs::symlink_metadata(self).await
    }

    /// The absolute path without links: realpath(3).
    ///
    /// # Errors
    /// The system's error, with the path in its text.
    pub async fn canonicalize(&self) -> io::Result<PathBuf> {
        fs::canonicalize(self).await
    }

    /// Where a symbolic link leads: readlink(2).
    ///
    /// # Errors
    /// The system's error, with the path in its text.
    pub async fn read_link(&self) -> io::Result<PathBuf> {
        fs::read_link(self).await
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// The system's error, with the path in its text.
    pub async fn read_dir(&self) -> io::Result<ReadDir> {
        fs::read_dir(self).await
    }

    /// Whether there is a file that can be asked for.
    pub async fn exists(&self) -> bool {
        fs::metadata(self).await.is_ok()
    }

    /// Whether there is a regular file.
    pub async fn is_file(&self) -> bool {
        fs::metadata(self).await.is_ok_and(|metadata| metadata.is_file())
    }

    /// Whether there is a directory.
    pub async fn is_dir(&self) -> bool {
        fs::metadata(self).await.is_ok_and(|metadata| metadata.is_dir())
    }
}

impl ToOwned for Path {
    type Owned = PathBuf;

    fn to_owned(&self) -> PathBuf {
        self.to_path_buf()
    }
}

impl<'a> IntoIterator for &'a Path {
    type Item = &'a OsStr;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
