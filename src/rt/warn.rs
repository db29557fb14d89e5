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
    use crate::rt::config::Config;
    use std::io;
    use std::process::Command;

    #[test]
    fn message_without_a_reader_causes_no_panic() {
        const CHILD: &str = "NETPOLL_TEST_WARN_CHILD";
        if std::env::var_os(CHILD).is_some() {
            assert!(Config::from_environment().workers > 0);
            return;
        }
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let path = module_path!().split_once("::").unwrap().1;
        let name = format!("{path}::message_without_a_reader_causes_no_panic");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &name, "--nocapture"]).env(CHILD, "1").env("NETPOLL_THREADS", "none").stderr(writer);
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }
}
