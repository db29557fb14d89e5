//! Errors with the texts of async-std, which name the failed operation. Some dependents compare
//! these texts.

use std::error::Error;
use std::fmt;
use std::io;

/// An I/O error whose text is replaced by `text`.
#[derive(Debug)]
struct WithContext {
    text: String,
    source: io::Error,
}

impl fmt::Display for WithContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for WithContext {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Replaces the text of an error. The kind stays the same, and the original error becomes the
/// source.
pub(crate) fn with_context<T>(result: io::Result<T>, text: impl FnOnce() -> String) -> io::Result<T> {
    result.map_err(|source| io::Error::new(source.kind(), WithContext { text: text(), source }))
}
