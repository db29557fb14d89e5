//! [`Path`]: the standard library's path, with asynchronous methods.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::{fmt, path};

use super::{Ancestors, Components, Display, Iter, PathBuf, StripPrefixError};
use crate::fs::{self, Metadata, ReadDir};
use crate::io;

/// A borrowed path: [`std::path::Path`], with asynchronous methods that access the filesystem.
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
    /// Returns a string as a path, without copying the string.
    pub fn new<S: AsRef<OsStr> + ?Sized>(s: &S) -> &Path {
        Path::wrap(path::Path::new(s))
    }

    #[allow(unsafe_code)]
    pub(super) fn wrap(path: &path::Path) -> &Path {
        // SAFETY: `Path` is a transparent wrapper of `std::path::Path`, so pointers to both types
        // have the same layout and the same metadata. The lifetime does not change.
        unsafe { &*(std::ptr::from_ref(path) as *const Path) }
    }

    #[allow(unsafe_code)]
    pub(super) fn wrap_box(path: Box<path::Path>) -> Box<Path> {
        let raw = Box::into_raw(path) as *mut Path;
        // SAFETY: `Path` is a transparent wrapper of `std::path::Path`, so the allocation has the
        // layout of a `Box<Path>`. `path` has owned it until now.
        unsafe { Box::from_raw(raw) }
    }

    #[allow(unsafe_code)]
    fn unwrap_box(path: Box<Path>) -> Box<path::Path> {
        let raw = Box::into_raw(path) as *mut path::Path;
        // SAFETY: `Path` is a transparent wrapper of `std::path::Path`, so the allocation has the
        // layout of a `Box<std::path::Path>`. `path` has owned it until now.
        unsafe { Box::from_raw(raw) }
    }

    pub(crate) fn as_std(&self) -> &path::Path {
        &self.inner
    }

    /// Returns the path as an `OsStr`.
    pub fn as_os_str(&self) -> &OsStr {
        self.inner.as_os_str()
    }

    /// Returns the path as a `&str`, or `None` if it is not valid UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        self.inner.to_str()
    }

    /// Returns the path as a string in which invalid UTF-8 is replaced with U+FFFD.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        self.inner.to_string_lossy()
    }

    /// Returns an owned copy of the path.
    pub fn to_path_buf(&self) -> PathBuf {
        PathBuf::from(self.inner.to_path_buf())
    }

    /// Returns whether the path begins at the root.
    pub fn is_absolute(&self) -> bool {
        self.inner.is_absolute()
    }

    /// Returns whether the path does not begin at the root.
    pub fn is_relative(&self) -> bool {
        self.inner.is_relative()
    }

    /// Returns whether the path has a root.
    pub fn has_root(&self) -> bool {
        self.inner.has_root()
    }

    /// Returns the path without its last component, or `None` if the path is the root or empty.
    pub fn parent(&self) -> Option<&Path> {
        self.inner.parent().map(Path::wrap)
    }

    /// Returns an iterator over the path, its parent, the parent's parent and so on.
    pub fn ancestors(&self) -> Ancestors<'_> {
        Ancestors::new(self)
    }

    /// Returns the last component, or `None` if it is the root, `.` or `..`, or the path is empty.
    pub fn file_name(&self) -> Option<&OsStr> {
        self.inner.file_name()
    }

    /// Returns the path with the prefix `base` removed.
    ///
    /// # Errors
    /// Returns an error if `base` is not a prefix of the path.
    pub fn strip_prefix<P: AsRef<Path>>(&self, base: P) -> Result<&Path, StripPrefixError> {
        self.inner.strip_prefix(base.as_ref().as_std()).map(Path::wrap)
    }

    /// Returns whether `base` is a prefix of the path. Only whole components match.
    pub fn starts_with<P: AsRef<Path>>(&self, base: P) -> bool {
        self.inner.starts_with(base.as_ref().as_std())
    }

    /// Returns whether `child` is a suffix of the path. Only whole components match.
    pub fn ends_with<P: AsRef<Path>>(&self, child: P) -> bool {
        self.inner.ends_with(child.as_ref().as_std())
    }

    /// Returns the file name without its extension, or `None` if the path has no file name.
    pub fn file_stem(&self) -> Option<&OsStr> {
        self.inner.file_stem()
    }

    /// Returns the extension of the file name, or `None` if the file name has no extension.
    pub fn extension(&self) -> Option<&OsStr> {
        self.inner.extension()
    }

    /// Returns this path with `path` appended, or `path` itself if it is absolute.
    pub fn join<P: AsRef<Path>>(&self, path: P) -> PathBuf {
        PathBuf::from(self.inner.join(path.as_ref().as_std()))
    }

    /// Returns a copy of the path with the file name replaced, or appended if the path has none.
    pub fn with_file_name<S: AsRef<OsStr>>(&self, file_name: S) -> PathBuf {
        PathBuf::from(self.inner.with_file_name(file_name))
    }

    /// Returns a copy of the path with the extension replaced, added or, if `extension` is empty,
    /// removed.
    ///
    /// # Panics
    /// Panics if `extension` contains a `/`.
    pub fn with_extension<S: AsRef<OsStr>>(&self, extension: S) -> PathBuf {
        PathBuf::from(self.inner.with_extension(extension))
    }

    /// Returns an iterator over the components.
    pub fn components(&self) -> Components<'_> {
        Components::new(self.inner.components())
    }

    /// Returns an iterator over the components as `OsStr`s.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self.components())
    }

    /// Returns a value that displays the path with invalid UTF-8 replaced.
    pub fn display(&self) -> Display<'_> {
        self.inner.display()
    }

    /// Converts a boxed path into a [`PathBuf`], without copying the path.
    pub fn into_path_buf(self: Box<Path>) -> PathBuf {
        PathBuf::from(Path::unwrap_box(self).into_path_buf())
    }

    /// Returns the metadata of the file: stat(2).
    ///
    /// # Errors
    /// Returns the OS error.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(self).await
    }

    /// Returns the metadata of the file, without following a symbolic link: lstat(2).
    ///
    /// # Errors
    /// Returns the OS error.
    pub async fn symlink_metadata(&self) -> io::Result<Metadata> {
        fs::symlink_metadata(self).await
    }

    /// Returns the absolute path with all symbolic links resolved: realpath(3).
    ///
    /// # Errors
    /// Returns the OS error, with the path in its text.
    pub async fn canonicalize(&self) -> io::Result<PathBuf> {
        fs::canonicalize(self).await
    }

    /// Returns the target of a symbolic link: readlink(2).
    ///
    /// # Errors
    /// Returns the OS error, with the path in its text.
    pub async fn read_link(&self) -> io::Result<PathBuf> {
        fs::read_link(self).await
    }

    /// Returns a stream of the entries of the directory.
    ///
    /// # Errors
    /// Returns the OS error, with the path in its text.
    pub async fn read_dir(&self) -> io::Result<ReadDir> {
        fs::read_dir(self).await
    }

    /// Returns whether the file exists. Returns false if its metadata cannot be read.
    pub async fn exists(&self) -> bool {
        fs::metadata(self).await.is_ok()
    }

    /// Returns whether the path refers to a regular file. Returns false if its metadata cannot be
    /// read.
    pub async fn is_file(&self) -> bool {
        fs::metadata(self).await.is_ok_and(|metadata| metadata.is_file())
    }

    /// Returns whether the path refers to a directory. Returns false if its metadata cannot be
    /// read.
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
