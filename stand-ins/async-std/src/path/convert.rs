//! Conversions between the paths of this package, the standard library's paths, and strings.

use std::borrow::{Borrow, Cow};
use std::ffi::{OsStr, OsString};
use std::path;
use std::rc::Rc;
use std::sync::Arc;

use super::{Component, Components, Iter, Path, PathBuf};

macro_rules! as_path {
    ($($type:ty: $value:ident => $path:expr,)*) => {$(
        impl AsRef<Path> for $type {
            fn as_ref(&self) -> &Path {
                let $value = self;
                $path
            }
        }
    )*};
}

as_path! {
    Path: path => path,
    PathBuf: path => path,
    path::Path: path => Path::wrap(path),
    path::PathBuf: path => Path::wrap(path),
    OsStr: text => Path::new(text),
    OsString: text => Path::new(text),
    Cow<'_, OsStr>: text => Path::new(text),
    str: text => Path::new(text),
    String: text => Path::new(text),
    Component<'_>: component => Path::new(component.as_os_str()),
    Components<'_>: components => components.as_path(),
    Iter<'_>: iter => iter.as_path(),
}

macro_rules! as_other {
    ($($type:ty)*) => {$(
        impl AsRef<path::Path> for $type {
            fn as_ref(&self) -> &path::Path {
                AsRef::<Path>::as_ref(self).as_std()
            }
        }

        impl AsRef<OsStr> for $type {
            fn as_ref(&self) -> &OsStr {
                AsRef::<Path>::as_ref(self).as_os_str()
            }
        }
    )*};
}

as_other!(Path PathBuf Components<'_> Iter<'_>);

impl Borrow<Path> for PathBuf {
    fn borrow(&self) -> &Path {
        self
    }
}

impl<'a> From<&'a path::Path> for &'a Path {
    fn from(path: &'a path::Path) -> &'a Path {
        Path::wrap(path)
    }
}

impl<'a> From<&'a Path> for &'a path::Path {
    fn from(path: &'a Path) -> &'a path::Path {
        path.as_std()
    }
}

impl From<path::PathBuf> for PathBuf {
    fn from(inner: path::PathBuf) -> PathBuf {
        PathBuf { inner }
    }
}

impl From<PathBuf> for path::PathBuf {
    fn from(path: PathBuf) -> path::PathBuf {
        path.inner
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for PathBuf {
    fn from(text: &T) -> PathBuf {
        PathBuf::from(path::PathBuf::from(text))
    }
}

impl From<OsString> for PathBuf {
    fn from(text: OsString) -> PathBuf {
        PathBuf::from(path::PathBuf::from(text))
    }
}

impl From<PathBuf> for OsString {
    fn from(path: PathBuf) -> OsString {
        path.into_os_string()
    }
}

impl From<String> for PathBuf {
    fn from(text: String) -> PathBuf {
        PathBuf::from(path::PathBuf::from(text))
    }
}

impl From<Box<Path>> for PathBuf {
    fn from(path: Box<Path>) -> PathBuf {
        path.into_path_buf()
    }
}

impl From<PathBuf> for Box<Path> {
    fn from(path: PathBuf) -> Box<Path> {
        path.into_boxed_path()
    }
}

impl From<&Path> for Box<Path> {
    fn from(path: &Path) -> Box<Path> {
        path.to_path_buf().into_boxed_path()
    }
}

impl Clone for Box<Path> {
    fn clone(&self) -> Box<Path> {
        (**self).into()
    }
}

impl From<Cow<'_, Path>> for PathBuf {
    fn from(path: Cow<'_, Path>) -> PathBuf {
        path.into_owned()
    }
}

impl<'a> From<&'a Path> for Cow<'a, Path> {
    fn from(path: &'a Path) -> Cow<'a, Path> {
        Cow::Borrowed(path)
    }
}

impl<'a> From<&'a PathBuf> for Cow<'a, Path> {
    fn from(path: &'a PathBuf) -> Cow<'a, Path> {
        Cow::Borrowed(path)
    }
}

impl<'a> From<PathBuf> for Cow<'a, Path> {
    fn from(path: PathBuf) -> Cow<'a, Path> {
        Cow::Owned(path)
    }
}

macro_rules! shared {
    ($($pointer:ident)*) => {$(
        impl From<&Path> for $pointer<Path> {
            fn from(path: &Path) -> $pointer<Path> {
                path.to_path_buf().into_boxed_path().into()
            }
        }

        impl From<PathBuf> for $pointer<Path> {
            fn from(path: PathBuf) -> $pointer<Path> {
                path.into_boxed_path().into()
            }
        }
    )*};
}

shared!(Arc Rc);
