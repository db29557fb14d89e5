//! [`SeekExt`]: the `seek` method.

use futures_io::AsyncSeek as Seek;
use futures_lite::io::{AsyncSeekExt as Lite, SeekFuture};

use super::SeekFrom;

/// An extension method for every [`Seek`](super::Seek).
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::io::{Cursor, SeekFrom, prelude::*};
///
/// let mut cursor = Cursor::new(b"hello".to_vec());
/// assert_eq!(cursor.seek(SeekFrom::End(-1)).await?, 4);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub trait SeekExt: Seek {
    /// Seeks to `pos` and returns the new position in bytes from the start of the stream.
    ///
    /// # Errors
    /// Returns the error of the underlying object, such as `InvalidInput` for a position before the
    /// start of the stream. A [`BufWriter`](super::BufWriter) first writes out its buffered bytes,
    /// and returns the error of this write.
    ///
    /// # Cancel safety
    /// [`Cursor`](super::Cursor) and [`AssertAsync`](super::AssertAsync) do not wait, nor does a
    /// [`BufReader`](super::BufReader) around one of them. With a `BufWriter`, dropping the future
    /// loses no buffered bytes.
    ///
    /// ```
    /// use netpoll::io::{Cursor, ErrorKind, ReadExt, SeekExt, SeekFrom};
    ///
    /// # netpoll::task::block_on(async {
    /// let mut cursor = Cursor::new(b"abc");
    /// assert_eq!(cursor.seek(SeekFrom::End(-1)).await?, 2);
    /// let mut text = String::new();
    /// cursor.read_to_string(&mut text).await?;
    /// assert_eq!(text, "c");
    /// assert_eq!(cursor.seek(SeekFrom::Current(-9)).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    fn seek(&mut self, pos: SeekFrom) -> SeekFuture<'_, Self>
    where
        Self: Unpin,
    {
        Lite::seek(self, pos)
    }
}

impl<S: Seek + ?Sized> SeekExt for S {}
