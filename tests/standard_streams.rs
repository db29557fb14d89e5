//! Standard input, output and error, in child processes. A child runs one test of this binary, and
//! the streams that the test uses are pipes.

mod common;

use std::error::Error as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::string::FromUtf8Error;
use std::time::Duration;

use netpoll::io::{self, ErrorKind, prelude::*};
use netpoll::prelude::*;
use netpoll::task::block_on;

const CHILD: &str = "NETPOLL_TEST_STANDARD_STREAMS";

/// In the child process, drops a read that waits for input, and then reads lines, bytes, invalid
/// UTF-8 and the rest of the input, and prints them. In other processes, does nothing.
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

        // No input has been sent yet, so this read is dropped while a thread waits for the input.
        let dropped = io::timeout(Duration::from_millis(20), stdin.read_line(&mut line)).await;
        assert_eq!(dropped.unwrap_err().kind(), ErrorKind::TimedOut);
        writeln!(out, "dropped").await?;

        // Another handle gets the bytes that the waiting thread reads.
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
        // These bytes stay in the buffer of std until the `println!` below.
        out.write_all(b"end").await?;
        io::Result::Ok(())
    })
    .unwrap();
    println!();
}

#[test]
fn standard_streams_lose_no_bytes() {
    use std::io::{BufRead as _, Read as _, Write as _};
    use std::process::{Command, Stdio};

    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "standard_streams_child", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = common::spawn(&mut command).unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    let mut expect = |text: &str| {
        seen.clear();
        // The test harness prints lines in between.
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

/// Returns the number of bytes in a pipe.
fn bytes_in(pipe: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: `count` is valid for the call.
    assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) }, 0);
    count as usize
}

/// Creates a pipe whose end for the child is non-blocking. All users of this end share the flag
/// O_NONBLOCK.
fn nonblocking_pipe(child_reads: bool) -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let end = if child_reads { reader.as_fd() } else { writer.as_fd() };
    socket2::SockRef::from(&end).set_nonblocking(true).unwrap();
    (reader, writer)
}

const NONBLOCKING: &str = "NETPOLL_TEST_NONBLOCKING";
/// The number of bytes that a child writes: more than a pipe has room for.
const LONG: usize = 1 << 20;

/// In the child process, writes to a non-blocking pipe, or checks that reads of such a pipe wait
/// for input. In other processes, does nothing. The parent checks that all written data arrives.
#[test]
fn nonblocking_streams_child() {
    let Some(way) = std::env::var_os(NONBLOCKING) else { return };
    let way = way.to_str().unwrap();
    block_on(async {
        let text = "x".repeat(LONG);
        let mut line = String::new();
        match way {
            "stdin line" => drop(io::stdin().read_line(&mut line).await?),
            "stdin bytes" => drop(io::stdin().read_to_string(&mut line).await?),
            "stdin lines" => {
                let mut lines = io::BufReader::new(io::stdin()).lines();
                line = lines.next().await.unwrap()? + "\n";
            }
            "stdout" => io::stdout().write_all((text + "\nend").as_bytes()).await?,
            "stdout line" => io::stdout().write_all((text + "\n").as_bytes()).await?,
            "stdout flush" => {
                let mut out = io::stdout();
                out.write_all(text.as_bytes()).await?;
                out.write_all(b"\nend").await?;
                out.flush().await?;
            }
            "stdout pieces" => {
                let mut out = io::stdout();
                for piece in text.as_bytes().chunks(1000) {
                    out.write_all(piece).await?;
                }
                out.write_all(b"\nend").await?;
            }
            "print" => {
                netpoll::println!("{text}").await;
                netpoll::print!("end").await;
            }
            "stderr" => io::stderr().write_all((text + "\nend").as_bytes()).await?,
            "eprint" => {
                netpoll::eprintln!("{text}").await;
                netpoll::eprint!("end").await;
            }
            _ => unreachable!("{way}"),
        }
        if way.starts_with("stdin") {
            assert_eq!(line, "a line\n");
        }
        io::Result::Ok(())
    })
    .unwrap();
    // The process ends here, so that the harness prints nothing after the data. At the end of the
    // process, std writes the data in its buffer, but does not wait if the pipe is full.
    std::process::exit(0);
}

fn nonblocking_child(way: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "nonblocking_streams_child", "--nocapture", "--test-threads=1"]).env(NONBLOCKING, way);
    command
}

#[test]
fn nonblocking_stdin_is_waited_for() {
    use std::io::{Read as _, Write as _};
    use std::process::Stdio;
    for way in ["stdin line", "stdin bytes", "stdin lines"] {
        let (reader, mut writer) = nonblocking_pipe(true);
        let mut command = nonblocking_child(way);
        let mut child = common::spawn(command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::piped())).unwrap();
        drop(command);
        // The input arrives in two pieces, usually after the child has begun to wait. If a piece
        // arrives earlier, the test checks less but still passes.
        std::thread::sleep(Duration::from_millis(200));
        writer.write_all(b"a li").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        writer.write_all(b"ne\n").unwrap();
        drop(writer);
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(child.wait().unwrap().success(), "{way}: {errors}");
    }
}

#[test]
fn nonblocking_output_is_not_lost() {
    use std::io::Read as _;
    use std::process::Stdio;
    let ways = ["stdout", "stdout line", "stdout flush", "stdout pieces", "print", "stderr", "eprint"];
    for way in ways {
        let (mut reader, writer) = nonblocking_pipe(false);
        let mut command = nonblocking_child(way);
        command.stdin(Stdio::null());
        let to_stderr = way.starts_with('e') || way == "stderr";
        if to_stderr {
            command.stdout(Stdio::null()).stderr(writer);
        } else {
            command.stdout(writer).stderr(Stdio::null());
        }
        let mut child = common::spawn(&mut command).unwrap();
        drop(command);
        // The pipe is read when it is full, so that a write finds no room. Small writes leave gaps
        // in its pages, so the full pipe has fewer bytes than its capacity of 65,536.
        common::eventually("the pipe is full", || {
            bytes_in(reader.as_fd()) >= 60_000 || child.try_wait().unwrap().is_some()
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert!(child.wait().unwrap().success(), "{way}: {}", String::from_utf8_lossy(&all[..all.len().min(4000)]));
        let all = String::from_utf8(all).unwrap();
        let (before, end) = all.rsplit_once('\n').unwrap();
        assert_eq!(end, if way == "stdout line" { "" } else { "end" }, "{way}");
        // The test harness prints lines before the text.
        let count = before.len() - before.trim_end_matches('x').len();
        assert_eq!(count, LONG, "{way}");
    }
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
            // The future owns its text, so it can be sent to another thread.
            netpoll::task::spawn(netpoll::eprintln!(" {}", String::from("e"))).await;
        });
    });
    let Some(printed) = printed else { return };
    assert!(printed.contains("a 1 b 2\n\nc\n"), "{printed}");
    assert!(printed.contains("d e\n"), "{printed}");
}
