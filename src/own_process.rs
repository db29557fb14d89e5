//! Runs a unit test in a process of its own, because it changes the state of the process.

use std::process::Command;

/// Calls `body` in another process, which runs only the test `test` of the module `module`
/// (`module_path!()`). Asserts that the test has run there and passed.
pub(crate) fn run(module: &str, test: &str, body: impl FnOnce()) {
    run_with(module, test, |_| {}, body);
}

/// Does what [`run`] does. `prepare` changes the command that starts the process.
pub(crate) fn run_with(module: &str, test: &str, prepare: impl FnOnce(&mut Command), body: impl FnOnce()) {
    const CHILD: &str = "NETPOLL_TEST_OWN_PROCESS";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let name = format!("{}::{test}", module.split_once("::").expect("a module of the crate").1);
    let mut command = Command::new(std::env::current_exe().expect("the path of the test binary"));
    command.args(["--exact", &name, "--nocapture"]).env(CHILD, "1");
    prepare(&mut command);
    let output = command.output().expect("the test binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}
