//! Child processes: re-exports the crate async-process, as async-std does.

pub use async_process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
pub use std::process::{abort, exit, id};
