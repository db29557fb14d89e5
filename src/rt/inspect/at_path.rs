//! [`at_path`]: errors whose text names a file.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error, with the operation that failed and the path.
#[derive(Debug)]
struct AtPath {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// Returns an error with the text `WHAT PATH: ERROR` and the kind of `error`. The source of its
/// inner error ([`io::Error::get_ref`]) is `error`.
pub(super) fn at_path(what: &'static str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), AtPath { what, path: path.to_owned(), error })
}

impl fmt::Display for AtPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.what, self.path.display(), self.error)
    }
}

impl Error for AtPath {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}
