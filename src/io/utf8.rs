//! Conversion of bytes to text, shared by the methods that read text.

use std::fmt;
use std::io;
use std::string::FromUtf8Error;

/// The inner error of an `InvalidData` error. Its source is the [`FromUtf8Error`] that owns the
/// bytes.
struct NotUtf8(FromUtf8Error);

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream did not contain valid UTF-8")
    }
}

/// Prints the text of the error, because `main` prints a returned error with `Debug`.
impl fmt::Debug for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NotUtf8 {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Converts `bytes` to text, or returns an `InvalidData` error that contains them.
pub(super) fn into_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, NotUtf8(error)))
}

/// Appends `bytes` to `text` and empties `bytes`. If the bytes are not UTF-8, returns an
/// `InvalidData` error that contains them; `text` is then unchanged.
pub(super) fn append(text: &mut String, bytes: &mut Vec<u8>) -> io::Result<()> {
    if text.is_empty() {
        *text = into_text(std::mem::take(bytes))?;
        return Ok(());
    }
    match std::str::from_utf8(bytes) {
        Ok(valid) => text.push_str(valid),
        Err(_) => return into_text(std::mem::take(bytes)).map(drop),
    }
    bytes.clear();
    Ok(())
}

/// Appends the valid prefix of `bytes` to `text` and discards the remaining bytes, for an operation
/// that fails or is dropped.
pub(super) fn append_prefix(text: &mut String, bytes: &mut Vec<u8>) {
    if let Some(chunk) = bytes.utf8_chunks().next() {
        text.push_str(chunk.valid());
    }
    bytes.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_appended_whole_or_not_at_all() {
        for start in ["", "ab"] {
            let mut text = String::from(start);
            append(&mut text, &mut b"c\xc3\xa9".to_vec()).unwrap();
            assert_eq!(text, format!("{start}c\u{e9}"));
            let error = append(&mut text, &mut b"d\xff".to_vec()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(error.to_string(), "stream did not contain valid UTF-8");
            let source = error.get_ref().and_then(|inner| inner.source()).expect("the error has a source");
            assert_eq!(source.downcast_ref::<FromUtf8Error>().unwrap().as_bytes(), b"d\xff");
            assert_eq!(text, format!("{start}c\u{e9}"), "text is unchanged");
        }
    }

    #[test]
    fn prefix_ends_before_an_incomplete_character() {
        let mut text = String::from("a");
        append_prefix(&mut text, &mut b"b\xe2\x82".to_vec());
        append_prefix(&mut text, &mut Vec::new());
        assert_eq!(text, "ab");
    }
}
