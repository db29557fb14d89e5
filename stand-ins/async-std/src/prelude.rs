//! The traits that most programs need, and the macro `task_local`.

#[doc(inline)]
pub use crate::extension::{FutureExt, StreamExt};
#[doc(no_inline)]
pub use crate::future::Future;
#[doc(no_inline)]
pub use crate::io::prelude::{BufReadExt as _, ReadExt as _, SeekExt as _, WriteExt as _};
#[doc(no_inline)]
pub use crate::io::{BufRead as _, Read as _, Seek as _, Write as _};
#[doc(no_inline)]
pub use crate::stream::Stream;
#[cfg(feature = "unstable")]
#[doc(no_inline)]
pub use crate::stream::{DoubleEndedStream, ExactSizeStream};
#[doc(no_inline)]
pub use crate::task_local;
