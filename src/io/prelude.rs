//! The traits of [`io`](crate::io), for glob imports.
//!
//! ```
//! use netpoll::io::prelude::*;
//!
//! # netpoll::task::block_on(async {
//! let mut reader: &[u8] = b"abc";
//! let mut text = String::new();
//! reader.read_to_string(&mut text).await?;
//! assert_eq!(text, "abc");
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

#[doc(no_inline)]
pub use super::{BufRead, BufReadExt, Read, ReadExt, Seek, SeekExt, Write, WriteExt};
