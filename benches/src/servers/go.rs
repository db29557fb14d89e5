//! Go: a program of its own (`benches/go`), built if Go's toolchain is installed, and executed by the `server` program.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

/// Its name among the runtimes.
pub const NAME: &str = "go";

/// Where the built program is: beside this one.
///
/// # Errors
/// The program's own path is unknown.
pub fn program() -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("echo-go"))
}

/// Builds the program; without a network, from its own sources alone. Returns Go's version.
///
/// # Errors
/// There is no toolchain, or it fails.
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

/// Turns this process into the Go program with these arguments. Returns only if that fails.
#[must_use]
pub fn execute(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Error {
    match program() {
        Ok(program) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}
