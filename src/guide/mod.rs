//! Guides: a tutorial, and one page per subject. The tests of this crate compile the programs on
//! these pages, except those in [`migration`] that need other crates, and run most of them.
//!
//! * [`tutorial`]: from an empty `Cargo.toml` to a chat server with deadlines, an orderly shutdown
//!   and a test.
//! * [`deadlines`]: time limits on sockets, requests, connects and whole connections.
//! * [`testing`]: tests of network programs that run in parallel and do not depend on timing.
//! * [`shutdown`]: how to stop a server, a connection, a task and the runtime.
//! * [`production`]: limits, settings and metrics for a server on the public internet.
//! * [`migration`]: from async-std, smol and tokio.

#[doc = include_str!("deadlines.md")]
pub mod deadlines {}

#[doc = include_str!("../../docs/MIGRATION.md")]
pub mod migration {}

#[doc = include_str!("production.md")]
pub mod production {}

#[doc = include_str!("shutdown.md")]
pub mod shutdown {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("tutorial.md")]
pub mod tutorial {}
