//! Tests that run the compiler on programs with the attributes. Valid programs must compile. For
//! each invalid program, the compiler must report exactly one error, at the expected place.
//!
//! `proc_macro` works only inside the compiler, so these tests also cover the parsing of tokens.
//! The programs are compiled with the library of this crate that cargo built for this test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns the macro library built for this test, or the newest one if there are several.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libnetpoll_macros-") && name.ends_with(".so")
    };
    let entries = std::fs::read_dir(&deps).unwrap().filter_map(|entry| Some(entry.ok()?.path())).filter(is_library);
    let built = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    entries.max_by_key(built).expect("cargo has built the macro library")
}

/// Compiles a program in which the crate itself is called `netpoll` and has the items that the
/// expansion without `workers`, `flavor`, `sim` and `paused` needs.
fn check(program: &str) -> Output {
    check_in(Path::new(env!("CARGO_MANIFEST_DIR")), "netpoll", program)
}

/// Compiles a program as the package in `folder`. In the program, the crate itself is called
/// `name`.
fn check_in(folder: &Path, name: &str, program: &str) -> Output {
    let source = format!(
        "extern crate self as {name};\n\
         pub use netpoll_macros::{{main, test}};\n\
         pub mod task {{ pub fn block_on<F: Future>(_: F) -> F::Output {{ loop {{}} }} }}\n\
         {program}\n"
    );
    // The output is not /dev/null, because the compiler replaces its output file. A compiler that
    // runs as root would replace the device.
    static PROGRAMS: AtomicU32 = AtomicU32::new(0);
    let number = PROGRAMS.fetch_add(1, Ordering::Relaxed);
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("program-{}-{number}", std::process::id()));
    let mut child = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-name=program", "--crate-type=lib"])
        .env("CARGO_MANIFEST_DIR", folder)
        .arg(format!("--emit=metadata={}", output.display()))
        .args(["--color=never", "--test", "-Awarnings"])
        .arg(format!("--extern=netpoll_macros={}", library().display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the compiler runs");
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    // If the program does not compile, there is no output file.
    let _ = std::fs::remove_file(output);
    ended
}

/// Returns the underlined parts of the line `program` in the compiler's output: `4 | program`
/// followed by `  |   ^^^^`.
fn marked<'a>(errors: &'a str, program: &str) -> Vec<&'a str> {
    let lines = errors.lines().zip(errors.lines().skip(1));
    let marks = lines.filter(|(line, _)| line.contains(program)).filter_map(|(line, marks)| {
        let (from, to) = (marks.find('^')?, marks.rfind('^')?);
        line.get(from..=to)
    });
    marks.collect()
}

/// Checks that the one-line `program` is rejected with `message`, and that exactly `at` is
/// underlined.
#[track_caller]
fn refuses(program: &str, message: &str, at: &str) {
    let output = check(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "accepted: {program}");
    let said: Vec<&str> =
        errors.lines().filter(|line| line.starts_with("error") && !line.contains("aborting")).collect();
    assert_eq!(said, [format!("error: {message}")], "{program}\n{errors}");
    assert_eq!(marked(&errors, program), [at], "{errors}");
}

#[track_caller]
fn accepts(program: &str) {
    let output = check(program);
    assert!(output.status.success(), "{program}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn valid_uses_are_accepted() {
    accepts("#[netpoll::main] async fn main() {}");
    accepts("#[netpoll::main()] async fn main() -> Result<(), String> { Ok(()) }");
    accepts("#[netpoll::test] async fn works() {}");
    accepts("pub mod np { pub use netpoll::*; } #[np::test(crate = \"crate::np\")] async fn works() {}");
    accepts("#[netpoll::test(crate = \"netpoll\",)] async fn works() {}");
    accepts("pub mod np { pub use netpoll::*; } #[np::test(crate = crate::np,)] async fn works() {}");
    accepts("#[netpoll::main(crate = ::netpoll)] async fn main() {}");
    accepts(
        "#[macro_export] macro_rules! works { ($path:path) => { #[netpoll::test(crate = $crate)] async fn one() {} \
         #[netpoll::test(crate = $path)] async fn other() {} } } works!(crate);",
    );
}

/// A macro variable may put its tokens into a group without delimiters.
#[test]
fn numbers_of_macro_variables_are_accepted() {
    let rt = "pub mod rt { pub struct Builder; impl Builder { pub fn new() -> Self { Builder } \
         pub fn workers(self, _: usize) -> Self { self } pub fn start(self) -> std::io::Result<()> { Ok(()) } } }";
    for kind in ["literal", "expr", "tt"] {
        accepts(&format!(
            "{rt} macro_rules! starts {{ ($n:{kind}) => {{ #[netpoll::main(workers = $n)] async fn main() {{}} }} }} starts!(2);"
        ));
    }
    // The error is about the missing argument `sim`, so the number was read.
    let none = "macro_rules! works { ($n:literal) => { #[netpoll::test(seeds = $n)] async fn one() {} } } works!(5);";
    refuses(none, "`seeds` requires a simulation: `sim, seeds = N`", "5");
}

/// The macro reads the name of the dependency from the manifest of the package being compiled.
#[test]
fn renamed_dependency_is_accepted() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("renamed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let check = |manifest: &str, name: &str| {
        std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
        let output = check_in(&folder, name, &format!("#[{name}::main] async fn main() {{}}"));
        assert!(output.status.success(), "{manifest}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    check("[dependencies]\nasync-std = { package = \"netpoll\", version = \"0.1\" }\n", "async_std");
    check("[dev-dependencies.np]\npackage = \"netpoll\"\n", "np");
    check("[dependencies]\nnetpoll = \"0.1\"\n", "netpoll");
    check("[dependencies]\n", "netpoll");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn wrong_function_kinds_are_rejected() {
    let message = "the `async` keyword is missing from the function declaration";
    refuses("#[netpoll::main] fn main() {}", message, "fn");
    refuses("#[netpoll::test] pub fn works() {}", message, "fn");
    let message = "only the main function can be tagged with #[netpoll::main]";
    refuses("#[netpoll::main] async fn start() {}", message, "start");
    refuses("#[netpoll::main] async unsafe fn main() {}", "the main function cannot be `unsafe`", "unsafe");
    refuses("#[netpoll::test] unsafe fn works() {}", "a test function cannot be `unsafe`", "unsafe");
    refuses("#[netpoll::test] async extern \"C\" fn works() {}", "a test function cannot be `extern`", "extern");
    refuses("#[netpoll::main] const fn main() {}", "the main function cannot be `const`", "const");
}

#[test]
fn function_arguments_are_rejected() {
    refuses("#[netpoll::main] async fn main(a: u8) {}", "the main function cannot take arguments", "a: u8");
    let message = "a test function cannot take arguments";
    let several = "a: u8, (b, c): (u8, u8)";
    refuses(&format!("#[netpoll::test] async fn works({several}) {{}}"), message, several);
    let message = "a test function cannot take arguments: for a `Sim`, write `#[netpoll::test(sim)]`";
    refuses("#[netpoll::test] async fn works(sim: Sim) {}", message, "sim: Sim");
}

#[test]
fn generics_and_where_clauses_are_rejected() {
    let message = "the main function cannot have generic parameters";
    refuses("#[netpoll::main] async fn main<T>() {}", message, "<T>");
    refuses("#[netpoll::main] async fn main<'a, const N: usize>() {}", message, "<'a, const N: usize>");
    let message = "a test function cannot have generic parameters";
    refuses("#[netpoll::test] async fn works<F: Fn() -> Vec<Vec<u8>>>() {}", message, "<F: Fn() -> Vec<Vec<u8>>>");
    let message = "a test function cannot have a `where` clause";
    refuses("#[netpoll::test] async fn works() -> u8 where u8: Copy { 1 }", message, "where u8: Copy");
}

#[test]
fn items_other_than_functions_are_rejected() {
    let message = "this attribute belongs on an `async fn`";
    refuses("#[netpoll::test] struct Thing;", message, "struct Thing;");
    refuses("#[netpoll::main] mod things {}", message, "mod things {}");
    let message = "a test function must have a body";
    refuses("pub trait Tests { #[netpoll::test] async fn works(); }", message, "works");
}

#[test]
fn invalid_attribute_arguments_are_rejected() {
    let only = "the arguments accepted are `sim`, `seeds = N`, `paused` and `crate = \"path::to::netpoll\"`";
    let accepted =
        "the arguments accepted are `workers = N`, `flavor = \"current_thread\"` and `crate = \"path::to::netpoll\"`";
    let unknown = format!("unknown argument `start_paused`: {accepted}");
    refuses("#[netpoll::main(start_paused = true)] async fn main() {}", &unknown, "start_paused");
    let unknown = format!("unknown argument `start_paused`: {only}");
    refuses("#[netpoll::test(start_paused = true)] async fn works() {}", &unknown, "start_paused");
    let seeds = "`seeds` requires a simulation: `sim, seeds = N`";
    refuses("#[netpoll::test(seeds = 5)] async fn works() {}", seeds, "5");
    let seeds = "expected a number of seeds, at least 1, such as `seeds = 100`";
    refuses("#[netpoll::test(sim, seeds = 0)] async fn works() {}", seeds, "0");
    let comma = "expected `,` after `sim`";
    refuses("#[netpoll::test(sim = true)] async fn works() {}", comma, "=");
    let comma = "expected `,` after `paused`";
    refuses("#[netpoll::test(paused = true)] async fn works() {}", comma, "=");
    let both = "the clock of a simulation is already virtual: remove `paused`";
    refuses("#[netpoll::test(sim, paused)] async fn works() {}", both, "paused");
    let seeds = "`seeds` requires a simulation: `sim, seeds = N`";
    refuses("#[netpoll::test(paused, seeds = 5)] async fn works() {}", seeds, "5");
    let flavors = "expected `flavor = \"multi_thread\"` or `flavor = \"current_thread\"`";
    refuses("#[netpoll::main(flavor = \"local\")] async fn main() {}", flavors, "flavor");
    let one = "the flavor \"current_thread\" has one thread: remove `workers`";
    refuses("#[netpoll::main(flavor = \"current_thread\", workers = 1)] async fn main() {}", one, "flavor");
    let one = "tests share one runtime: remove `flavor`";
    refuses("#[netpoll::test(flavor = \"current_thread\")] async fn works() {}", one, "flavor");
    let workers = "expected a number of threads, at least 1, such as `workers = 4`";
    refuses("#[netpoll::main(workers = 0)] async fn main() {}", workers, "0");
    refuses("#[netpoll::main(worker_threads = \"2\")] async fn main() {}", workers, "\"2\"");
    refuses("#[netpoll::main(workers =)] async fn main() {}", workers, "workers");
    let workers = "expected a number of threads, at most 4294967295";
    refuses("#[netpoll::main(workers = 4294967296)] async fn main() {}", workers, "4294967296");
    let seeds = "expected a number of seeds, at most 18446744073709551615";
    let many = "18446744073709551616";
    refuses(&format!("#[netpoll::test(sim, seeds = {many})] async fn works() {{}}"), seeds, many);
    let shared = "tests share one runtime: set NETPOLL_THREADS for all of them";
    refuses("#[netpoll::test(worker_threads = 2)] async fn works() {}", shared, "worker_threads");
    let twice = "the argument `workers` is given twice";
    refuses("#[netpoll::main(workers = 2, worker_threads = 3)] async fn main() {}", twice, "worker_threads");
    refuses("#[netpoll::main(2)] async fn main() {}", &format!("unexpected `2`: {accepted}"), "2");
    let equals = format!("expected `=` after `crate`: {accepted}");
    refuses("#[netpoll::main(crate)] async fn main() {}", &equals, "crate");
    refuses("#[netpoll::main(crate(netpoll))] async fn main() {}", &equals, "(netpoll)");
    let value = format!("expected a path after `=`: {accepted}");
    refuses("#[netpoll::main(crate =)] async fn main() {}", &value, "crate");
    let path = format!("expected a path such as \"netpoll\": {accepted}");
    refuses("#[netpoll::main(crate = net-poll)] async fn main() {}", &path, "net");
    refuses("#[netpoll::main(crate = np(7))] async fn main() {}", &path, "np");
    refuses("#[netpoll::main(crate = 7)] async fn main() {}", &path, "7");
    let bad = "`net poll` is not a path: expected names separated by `::`";
    refuses("#[netpoll::main(crate = \"net poll\")] async fn main() {}", bad, "\"net poll\"");
    let comma = "expected `,` between arguments";
    refuses("#[netpoll::test(crate = \"netpoll\" 7)] async fn works() {}", comma, "7");
    let twice = "the argument `crate` is given twice";
    refuses("#[netpoll::test(crate = \"a\", crate = \"b\")] async fn works() {}", twice, "crate");
}

/// The compiler reports errors in the body where they occur, as in any async function. If the path
/// in the argument `crate` does not exist, the compiler reports the error at this argument.
#[test]
fn type_errors_point_at_their_source() {
    let shown = |program: &str, code: &str, at: &str| {
        let output = check(program);
        let errors = String::from_utf8_lossy(&output.stderr);
        let said: Vec<_> = errors.lines().filter(|line| line.starts_with("error[")).collect();
        assert!(said.len() == 1 && said[0].contains(code), "{said:?}\n{errors}");
        assert!(marked(&errors, program).contains(&at), "{at} is not marked:\n{errors}");
    };
    shown("#[netpoll::main] async fn main() -> u8 { let n = 1u8; \"text\" }", "E0308", "\"text\"");
    shown("#[netpoll::main] async fn main() { missing().await }", "E0425", "missing");
    shown("#[netpoll::main] async fn main() -> Result<(), u8> { Err(\"no\") }", "E0308", "\"no\"");
    shown("#[netpoll::test] async fn works() -> Result<(), u8> { Err::<(), &str>(\"no\")?; Ok(()) }", "E0277", "?");
    shown("#[netpoll::test(crate = \"missing\")] async fn works() {}", "E0433", "\"missing\"");
}
