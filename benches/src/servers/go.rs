//! The echo server in Go, which is a separate program (`benches/go`).
//!
//! The programs `compare` and `micro` build it if Go's toolchain is installed. The programs
//! `server` and `micro` execute it.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

/// The name of this server in the list of runtimes.
pub const NAME: &str = "go";

/// Returns the path of the Go program, `echo-go` in the directory of the running executable. The
/// program may not be built yet.
///
/// # Errors
/// Returns an error if the path of the running executable is unknown.
pub fn program() -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("echo-go"))
}

/// Builds the Go program, without access to the network. Returns Go's version, such as `go1.22.0`.
///
/// # Errors
/// Returns an error if there is no toolchain, if the build fails, or if the path of the running
/// executable is unknown.
pub fn build() -> Result<String, String> {
    let text = |error: io::Error| format!("go: {error}");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command.args(arguments).current_dir(&source).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod");
        let output = command.output().map_err(text)?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(format!("go: {}", said(&output.stderr))) }
    };
    go(&["build", "-o", &program().map_err(text)?.to_string_lossy(), "."])?;
    go(&["env", "GOVERSION"])
}

/// Replaces this process with the Go program, run with `arguments`. Returns only if this fails.
#[must_use]
pub fn execute(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Error {
    match program() {
        Ok(program) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}
