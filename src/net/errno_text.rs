//! Formatting of OS errors in Go's style.

use std::fmt;
use std::io;

/// Displays an OS error as Go does: its first letter in lower case, and without the errno. Displays
/// other errors unchanged.
pub(super) struct ErrnoText<'a>(pub(super) &'a io::Error);

impl fmt::Display for ErrnoText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(errno) = self.0.raw_os_error() else { return self.0.fmt(f) };
        let text = self.0.to_string();
        let text = text.strip_suffix(&format!(" (os error {errno})")).unwrap_or(&text);
        let mut letters = text.chars();
        match letters.next() {
            Some(first) => write!(f, "{}{}", first.to_lowercase(), letters.as_str()),
            None => write!(f, "errno {errno}"),
        }
    }
}

/// Returns the text of an OS error in Go's style, for `netpoll-resolver`.
pub fn errno_text(error: &io::Error) -> String {
    ErrnoText(error).to_string()
}
