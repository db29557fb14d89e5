//! Processes: items of the crate async-process and of std, as in async-std.

pub use async_process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
pub use std::process::{abort, exit, id};
