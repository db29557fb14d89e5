//! The traits whose methods most programs call, for `use netpoll::prelude::*`.
//!
//! As in async-std, the prelude exports `Future`, `Stream` and their extension traits by name, the
//! I/O traits anonymously, and `task_local!`.
//!
//! ```
//! use netpoll::io::BufReader;
//! use netpoll::prelude::*;
//!
//! # netpoll::task::block_on(async {
//! let mut lines = BufReader::new(&b"one\ntwo"[..]).lines();
//! assert_eq!(lines.next().await.transpose()?.as_deref(), Some("one"));
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

#[doc(no_inline)]
pub use crate::future::{Future, FutureExt};
#[doc(no_inline)]
pub use crate::io::{
    BufRead as _, BufReadExt as _, Read as _, ReadExt as _, Seek as _, SeekExt as _, Write as _, WriteExt as _,
};
#[doc(no_inline)]
pub use crate::stream::{Stream, StreamExt};
#[doc(no_inline)]
pub use crate::task_local;
