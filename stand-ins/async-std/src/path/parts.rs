//! Iterators over the components and ancestors of a path.

use std::ffi::OsStr;
use std::iter::FusedIterator;
use std::{fmt, path};

use super::{Component, Path};

/// An iterator over a path and its parents, returned by [`Path::ancestors`].
#[derive(Clone, Copy, Debug)]
pub struct Ancestors<'a> {
    next: Option<&'a Path>,
}

impl<'a> Ancestors<'a> {
    pub(super) fn new(path: &'a Path) -> Ancestors<'a> {
        Ancestors { next: Some(path) }
    }
}

impl<'a> Iterator for Ancestors<'a> {
    type Item = &'a Path;

    fn next(&mut self) -> Option<&'a Path> {
        let path = self.next?;
        self.next = path.parent();
        Some(path)
    }
}

impl FusedIterator for Ancestors<'_> {}

/// An iterator over the components of a path, returned by [`Path::components`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Components<'a> {
    inner: path::Components<'a>,
}

impl<'a> Components<'a> {
    pub(super) fn new(inner: path::Components<'a>) -> Components<'a> {
        Components { inner }
    }

    /// Returns the remaining components as a path.
    pub fn as_path(&self) -> &'a Path {
        Path::wrap(self.inner.as_path())
    }
}

impl<'a> Iterator for Components<'a> {
    type Item = Component<'a>;

    fn next(&mut self) -> Option<Component<'a>> {
        self.inner.next()
    }
}

impl<'a> DoubleEndedIterator for Components<'a> {
    fn next_back(&mut self) -> Option<Component<'a>> {
        self.inner.next_back()
    }
}

impl FusedIterator for Components<'_> {}

/// An iterator over the components of a path as `OsStr`s, returned by [`Path::iter`].
#[derive(Clone)]
pub struct Iter<'a> {
    inner: Components<'a>,
}

impl<'a> Iter<'a> {
    pub(super) fn new(inner: Components<'a>) -> Iter<'a> {
        Iter { inner }
    }

    /// Returns the remaining components as a path.
    pub fn as_path(&self) -> &'a Path {
        self.inner.as_path()
    }
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Iter(")?;
        f.debug_list().entries(self.clone()).finish()?;
        f.write_str(")")
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a OsStr;

    fn next(&mut self) -> Option<&'a OsStr> {
        self.inner.next().map(Component::as_os_str)
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    fn next_back(&mut self) -> Option<&'a OsStr> {
        self.inner.next_back().map(Component::as_os_str)
    }
}

impl FusedIterator for Iter<'_> {}
