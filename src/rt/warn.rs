//! Messages on standard error.

use std::fmt;
use std::io::{self, Write as _};

/// Prints a line to standard error. Unlike `eprintln!`, does not panic if the write fails, for
/// example with EPIPE because standard error is a pipe without a reader. Such a failure cannot be
/// reported.
pub(crate) fn warn(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "netpoll: {text}");
}

#[cfg(test)]
mod tests {
    use crate::own_process;
    use crate::rt::config::Config;
    use std::io;
    use std::process::Command;

    #[test]
    fn message_without_a_reader_causes_no_panic() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let prepare = |command: &mut Command| _ = command.env("NETPOLL_THREADS", "none").stderr(writer);
        own_process::run_with(module_path!(), "message_without_a_reader_causes_no_panic", prepare, || {
            assert!(Config::from_environment().workers > 0);
        });
    }
}
