//! Tests of the examples in `examples/ecosystem`. Each example runs in a separate process, and
//! `cargo test` builds the examples. Most servers are tested with programs of other projects:
//! openssl, curl, wrk and h2load. If such a program is not installed, the parts of the tests that
//! need it are skipped.

#[path = "../../tests/common/example.rs"]
mod example;

use std::io::Write;
use std::process::{Command, Stdio};

use example::Example;

#[test]
fn tls_echo_answers_openssl() {
    if Command::new("openssl").arg("version").output().is_err() {
        return eprintln!("skipped: openssl is not installed");
    }
    let file = std::env::temp_dir().join(format!("netpoll-tls-echo-{}.pem", std::process::id()));
    let tls_echo = Example::start("tls_echo", &["127.0.0.1:0", file.to_str().expect("a UTF-8 path")]);
    let addr = tls_echo.addr().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-servername",
        "localhost",
        "-connect",
        &addr,
        "-CAfile",
    ]);
    openssl.arg(&file).stderr(Stdio::null());
    let mut client = Example::spawn(&mut openssl);
    let mut stdin = client.stdin();
    stdin.write_all(b"hi\n").expect("room in the pipe");
    assert_eq!(client.line(), "hi");
    std::fs::remove_file(&file).expect("the example wrote it");
}

#[test]
fn websocket_server_answers_its_own_client() {
    let server = Example::start("websocket", &["127.0.0.1:0"]);
    let (status, output) = Example::start("websocket", &[&server.addr().to_string(), "one", "two"]).end();
    assert!(status.success(), "{status}");
    assert_eq!(output, "one\ntwo\n");
}

/// Runs curl. Returns its output, or `None` if curl is not installed.
fn curl(args: &[&str]) -> Option<String> {
    match Command::new("curl").args(["-sS", "--max-time", "60"]).args(args).output() {
        Err(_) => {
            eprintln!("skipped: curl is not installed");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(String::from_utf8(output.stdout).expect("UTF-8 output"))
        }
    }
}

#[test]
fn http_hello_answers_curl_and_ends_gracefully() {
    let server = Example::start("http_hello", &["-w", "2", "127.0.0.1:0"]);
    let url = format!("http://{}/", server.addr());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let Some(answer) = curl(&[version, &url]) else { return };
        assert_eq!(answer, "Hello, World!");
    }
    server.terminate();
    let (status, _) = server.end();
    assert!(status.success(), "{status}");
}

/// Runs h2load, which makes 2,000 requests on 16 connections. Returns its report, or `None` if
/// h2load is not installed.
fn h2load(url: &str) -> Option<String> {
    let output = Command::new("h2load").args(["-c16", "-m10", "-n2000", url]).output();
    let output = output.map_err(|_| eprintln!("skipped in part: h2load is not installed")).ok()?;
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).expect("UTF-8 output"))
}

/// Every request of wrk and h2load succeeds.
#[test]
fn http_hello_survives_load() {
    let server = Example::start("http_hello", &["127.0.0.1:0"]);
    let url = format!("http://{}/", server.addr());
    let run = |command: &mut Command| {
        let output =
            command.arg(&url).output().map_err(|_| eprintln!("skipped in part: cannot run {command:?}")).ok()?;
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8(output.stdout).expect("UTF-8 output"))
    };
    if let Some(report) = run(Command::new("wrk").args(["-t1", "-c64", "-d1"])) {
        assert!(report.contains("requests in") && !report.contains("Socket errors"), "{report}");
        assert!(!report.contains("Non-2xx"), "{report}");
    }
    if let Some(report) = h2load(&url) {
        assert!(report.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
    }
}

#[test]
fn axum_hello_answers_curl() {
    let server = Example::start("axum_hello", &["127.0.0.1:0"]);
    let addr = server.addr();
    let Some(answer) = curl(&[&format!("http://{addr}/hello/you")]) else { return };
    assert_eq!(answer, "Hello, you!\n");
    let shout = format!("http://{addr}/shout");
    assert_eq!(curl(&["--http2-prior-knowledge", "--data", "some text", &shout]).as_deref(), Some("SOME TEXT!\n"));
    let url = format!("http://{addr}/hello/load");
    if let Some(report) = h2load(&url) {
        assert!(report.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
    }
    server.terminate();
    assert!(server.end().0.success());
}

#[test]
fn http_get_prints_pages() {
    let server = Example::start("http_hello", &["127.0.0.1:0"]);
    let url = format!("http://{}/", server.addr());
    let (status, output) = Example::start("http_get", &[&url, &url]).end();
    assert!(status.success(), "{status}");
    assert_eq!(output, format!("{url}: 200 OK, HTTP/1.1, 13 bytes\nHello, World!\n").repeat(2));
}

#[test]
fn https_hello_answers_http_get_and_curl() {
    let file = std::env::temp_dir().join(format!("netpoll-https-hello-{}.pem", std::process::id()));
    let path = file.to_str().expect("a UTF-8 path");
    let server = Example::start("https_hello", &["127.0.0.1:0", path]);
    let url = format!("https://localhost:{}/hello/you", server.addr().port());
    let (status, output) = Example::start("http_get", &["--ca", path, &url]).end();
    assert!(status.success(), "{status}");
    assert_eq!(output, format!("{url}: 200 OK, HTTP/2.0, 12 bytes\nHello, you!\n\n"));
    if let Some(answer) = curl(&["--http1.1", "--cacert", path, &url]) {
        assert_eq!(answer, "Hello, you!\n");
    }
    std::fs::remove_file(&file).expect("the example wrote it");
    server.terminate();
    assert!(server.end().0.success());
}

#[test]
fn axum_websocket_answers_the_client_of_the_websocket_example() {
    let server = Example::start("axum_websocket", &["127.0.0.1:0"]);
    let addr = server.addr().to_string();
    let (status, output) = Example::start("websocket", &[&addr, "one", "two"]).end();
    assert!(status.success(), "{status}");
    assert_eq!(output, "one\ntwo\n");
    let Some(answer) = curl(&[&format!("http://{addr}/")]) else { return };
    assert_eq!(answer, "this is for WebSocket\n");
    server.terminate();
    assert!(server.end().0.success());
}

#[test]
fn grpc_hello_calls_itself_and_answers_curl() {
    let (status, output) = Example::start("grpc_hello", &[]).end();
    assert!(status.success(), "{status}: {output}");
    assert!(output.ends_with("Hello, gRPC!\n"), "{output}");
    let server = Example::start("grpc_hello", &["127.0.0.1:0"]);
    let url = format!("http://{}/hello.Greeter/SayHello", server.addr());
    // The file contains a gRPC message: a zero byte for no compression, the length in four bytes,
    // and field 1.
    let file = std::env::temp_dir().join(format!("netpoll-grpc-{}", std::process::id()));
    std::fs::write(&file, b"\0\0\0\0\x06\x0a\x04curl").expect("a temporary file");
    let data = format!("@{}", file.display());
    let headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
    let args = ["--http2-prior-knowledge", "--data-binary", &data, &url];
    let answer = curl(&[&headers[..], &args].concat());
    std::fs::remove_file(&file).expect("the file exists");
    let Some(answer) = answer else { return };
    assert_eq!(answer, "\0\0\0\0\x0e\x0a\x0cHello, curl!");
}

#[test]
fn quic_file_copies_a_file() {
    let folder = std::env::temp_dir().join(format!("netpoll-quic-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a temporary folder");
    let [from, to] = ["from", "to"].map(|name| folder.join(name));
    let file: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 241) as u8).collect();
    std::fs::write(&from, &file).expect("a temporary file");
    let args = [&from, &to].map(|path| path.to_str().expect("a UTF-8 path"));
    let (status, output) = Example::start("quic_file", &args).end();
    let copy = std::fs::read(&to);
    std::fs::remove_dir_all(&folder).expect("the folder exists");
    assert!(status.success() && output.contains("1000000 bytes in "), "{status}: {output}");
    assert!(copy.expect("the example wrote it") == file);
}

#[test]
fn async_rs_adapter_runs_program_that_uses_only_the_traits() {
    let (status, output) = Example::start("async_rs", &[]).end();
    assert!(status.success(), "{status}: {output}");
    assert_eq!(output, "echo: hello\nregistered: hello\n3 ticks\ncancelled: true\n");
}

#[test]
fn trillium_hello_answers_curl_and_ends_gracefully() {
    let server = Example::start("trillium_hello", &["127.0.0.1:0"]);
    let addr = server.addr();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let Some(answer) = curl(&[version, &format!("http://{addr}/")]) else { return };
        assert_eq!(answer, "hello\n");
        let shout = format!("http://{addr}/shout");
        assert_eq!(curl(&[version, "--data", "some text", &shout]).as_deref(), Some("SOME TEXT"));
    }
    server.terminate();
    let (status, _) = server.end();
    assert!(status.success(), "{status}");
}

#[test]
fn own_executor_runs_under_each_executor() {
    let (status, output) = Example::start("own_executor", &[]).end();
    assert!(status.success(), "{status}: {output}");
    let executors: Vec<_> = output.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(executors, ["futures", "smol", "tokio", "netpoll"], "{output}");
}
