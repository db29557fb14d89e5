//! Standard input, output and error, in a child process: this test binary again, at the test named below, with pipes.

mod common;

use std::error::Error as _;
use std::string::FromUtf8Error;
use std::time::Duration;

use netpoll::io::{self, ErrorKind, prelude::*};
use netpoll::task::block_on;

const CHILD: &str = "NETPOLL_TEST_STANDARD_STREAMS";

/// In the child: reads lines, with a read dropped in between, and echoes them. In any other run there is nothing to do.
#[test]
fn standard_streams_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    block_on(async {
        let stdin = io::stdin();
        let mut out = io::stdout();
        let mut line = String::new();
        out.write_all(b"ready\n").await?;

        // Nothing has been sent: this read is dropped while a thread waits for the input.
        let dropped = io::timeout(Duration::from_millis(20), stdin.read_line(&mut line)).await;
        assert_eq!(dropped.unwrap_err().kind(), ErrorKind::TimedOut);
        writeln!(out, "dropped").await?;

        // Another handle gets what that thread reads.
        let mut stdin = io::stdin();
        assert_eq!(stdin.read_line(&mut line).await?, 6);
        write!(out, "line {line}").await?;
        let mut bytes = [0; 2];
        stdin.read_exact(&mut bytes).await?;
        writeln!(out, "bytes {}", bytes.escape_ascii()).await?;
        let error = stdin.read_line(&mut line).await.unwrap_err();
        let bytes =
            error.source().and_then(|source| source.downcast_ref::<FromUtf8Error>()).expect("the bytes").as_bytes();
        writeln!(out, "{}: {}", error, bytes.escape_ascii()).await?;
        let mut rest = String::new();
        stdin.read_to_string(&mut rest).await?;
        writeln!(io::stderr(), "rest {rest:?}").await?;
        assert_eq!(stdin.read_line(&mut line).await?, 0);
        // Not flushed: the process does it at its end.
        out.write_all(b"end").await?;
        io::Result::Ok(())
    })
    .unwrap();
    println!();
}

#[test]
fn standard_streams() {
    use std::io::{BufRead as _, Read as _, Write as _};
    use std::process::{Command, Stdio};

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "standard_streams_child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    let mut expect = |text: &str| {
        seen.clear();
        // The harness has lines of its own in between.
        while !seen.ends_with(text) {
            assert!(output.read_line(&mut seen).unwrap() > 0, "ended before {text:?}: {seen:?}");
        }
    };
    expect("ready\n");
    expect("dropped\n");
    input.write_all(b"first\nxyno text \xff\nthe ").unwrap();
    expect("line first\n");
    expect("bytes xy\n");
    expect("stream did not contain valid UTF-8: no text \\xff\\n\n");
    input.write_all(b"rest").unwrap();
    drop(input);
    expect("end\n");
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(errors.contains("rest \"the rest\""), "{errors}");
    assert!(child.wait().unwrap().success(), "{rest}{errors}");
}

#[test]
fn awaited_macros_print() {
    const NAME: &str = "awaited_macros_print";
    let printed = common::child_with(NAME, &[], || {
        block_on(async {
            netpoll::print!("a {}", 1).await;
            netpoll::println!(" b {two}", two = 2).await;
            netpoll::println!().await;
            netpoll::println!("c").await;
            netpoll::eprint!("d").await;
            // The future owns its text: it can be sent elsewhere.
            netpoll::task::spawn(netpoll::eprintln!(" {}", String::from("e"))).await;
        });
    });
    let Some(printed) = printed else { return };
    assert!(printed.contains("a 1 b 2\n\nc\n"), "{printed}");
    assert!(printed.contains("d e\n"), "{printed}");
}
