//! Processes: re-exports items of the crate async-process and of std, as async-std does.

pub use async_process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
pub use std::process::{abort, exit, id};
