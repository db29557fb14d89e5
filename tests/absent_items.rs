//! Compile errors of programs that use items of async-std, tokio or smol that this crate does not
//! have, or that pass an argument of a wrong type. The errors of many items name the alternative,
//! and those of some functions name the types that they accept. The tests run the compiler on small
//! programs, with the newest library of this crate that cargo has built for the tests.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns the folder of cargo's libraries, and the newest library of this crate.
fn library() -> (PathBuf, PathBuf) {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libnetpoll-") && name.ends_with(".rlib")
    };
    let entries = std::fs::read_dir(&folder).unwrap().filter_map(|entry| Some(entry.ok()?.path())).filter(is_library);
    let built = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    let library = entries.max_by_key(built).expect("cargo has built the library");
    (folder, library)
}

/// Returns the compiler's messages for a program, or `None` if it compiles.
fn errors(program: &str) -> Option<String> {
    let (folder, library) = library();
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("absent-{}", std::process::id()));
    let mut child = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-name=program", "--crate-type=lib", "--color=never", "-Awarnings"])
        .arg(format!("--emit=metadata={}", output.display()))
        .arg(format!("--extern=netpoll={}", library.display()))
        .arg(format!("-Ldependency={}", folder.display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the compiler runs");
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let _ = std::fs::remove_file(output);
    (!ended.status.success()).then(|| String::from_utf8(ended.stderr).unwrap())
}

fn errors_name_the_alternatives(items: &[(&str, &str)]) {
    for (item, alternative) in items {
        let errors =
            errors(&format!("use netpoll::{item};")).unwrap_or_else(|| panic!("a program that uses {item} compiles"));
        assert!(errors.contains(alternative), "{item}: {errors}");
    }
}

#[test]
fn absent_items_of_async_std_are_errors_that_name_the_alternative() {
    errors_name_the_alternatives(&[
        ("channel::bounded", "use the crate async-channel"),
        ("collections::HashMap", "use std::collections"),
        ("fs::File", "use the crate async-fs"),
        ("path::PathBuf", "use std::path, and async-fs"),
        ("pin::Pin", "use std::pin"),
        ("process::Command", "use the crate async-process"),
        ("sync::Mutex", "use the crate async-lock"),
        ("os::unix::fs::symlink", "use the crate async-fs"),
        ("os::unix::process::CommandExt", "use the crate async-process"),
        ("stream::DoubleEndedStream", "collect into a Vec"),
        ("stream::ExactSizeStream", "use size_hint"),
        ("stream::FusedStream", "use fuse of StreamExt"),
        ("stream::Product", "implement std::iter::Product"),
        ("stream::Sum", "implement std::iter::Sum"),
    ]);
}

#[test]
fn absent_items_of_tokio_are_errors_that_name_the_alternative() {
    errors_name_the_alternatives(&[
        ("join", "use join and try_join of FutureExt"),
        ("runtime::Runtime", "use rt::Builder"),
        ("select", "use race of FutureExt"),
        ("spawn", "use task::spawn"),
        ("sync::mpsc", "async-channel or tokio"),
        ("io::AsyncBufRead", "use io::BufRead"),
        ("io::AsyncBufReadExt", "io::BufReadExt"),
        ("io::AsyncRead", "use io::Read"),
        ("io::AsyncReadExt", "io::ReadExt"),
        ("io::AsyncWrite", "use io::Write"),
        ("io::AsyncWriteExt", "io::WriteExt"),
        ("io::split", "use (&stream, &stream)"),
        ("net::TcpSocket", "use net::ListenConfig"),
        ("net::UnixDatagram", "use os::unix::net::UnixDatagram"),
        ("net::UnixListener", "use os::unix::net::UnixListener"),
        ("net::UnixStream", "use os::unix::net::UnixStream"),
        ("task::block_in_place", "call the function"),
        ("task::JoinError", "resumes the panic"),
        ("task::JoinSet", "use task::TaskSet"),
        ("task::LocalSet", "use task::spawn_local"),
        ("time::interval", "use stream::interval"),
        ("time::sleep", "use task::sleep"),
        ("time::sleep_until", "use time::Sleep::until"),
        ("time::timeout", "use future::timeout"),
        ("time::timeout_at", "use a deadline"),
    ]);
}

#[test]
fn absent_items_of_smol_are_errors_that_name_the_alternative() {
    errors_name_the_alternatives(&[
        ("Async", "io::AsyncFd"),
        ("Executor", "use task::spawn"),
        ("LocalExecutor", "use task::spawn_local"),
        ("Task", "use task::JoinHandle"),
        ("Timer", "use task::sleep"),
        ("block_on", "use task::block_on"),
        ("lock::Mutex", "use the crate async-lock"),
        ("unblock", "use task::spawn_blocking"),
    ]);
}

/// Passes a number as the address of a listener, and a number as the listener of `serve`.
#[test]
fn arguments_of_wrong_types_are_errors_that_name_accepted_types() {
    for (call, right) in [
        ("net::TcpListener::bind(8080).await", "an address is a string such as"),
        ("net::serve(5, |_: net::TcpStream| async {}).await", "an `Arc` of one are listeners"),
    ] {
        let program = format!("use netpoll::net; pub async fn program() {{ let _ = {call}; }}");
        let errors = errors(&program).unwrap_or_else(|| panic!("{call} compiles"));
        assert!(errors.contains(right), "{call}: {errors}");
    }
}

#[test]
fn present_items_compile() {
    let program = "use netpoll::{io, net::TcpStream, prelude::*, stream::FromStream, os::unix::net::UnixStream, task};";
    assert_eq!(errors(program), None);
}
