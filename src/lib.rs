//! Go's network stack for Rust futures.
pub mod future;
pub mod io;
pub mod prelude;
pub mod rt;
pub mod stream;
mod sync;


#[cfg(feature = "attributes")]
pub use netpoll_macros::{main, test};
