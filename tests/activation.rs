//! Socket activation: a process takes the descriptors that were passed to it, once and with their
//! names, and does not take descriptors that were passed to another process.
//!
//! Most tests start the test executable again, as the process that takes the descriptors (the
//! successor). `activation::pass`, or a shell in the role of the service manager, passes the
//! descriptors to it.

mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{Watchdog, fd_count, is_child, run};
use netpoll::net::{TcpListener, activation};

/// Returns a command that runs test `name` of this executable.
fn successor(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments(name)).env("NETPOLL_TEST_CHILD", name).stdin(Stdio::null());
    command
}

fn arguments(name: &str) -> [&str; 4] {
    ["--exact", name, "--nocapture", "--test-threads=1"]
}

/// Runs a command of [`successor`] or [`activated_by_shell`], asserts that its test passes, and
/// returns its output.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = common::output(command).unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}", output.status);
    text
}

fn is_close_on_exec(fd: impl AsFd) -> bool {
    // SAFETY: no memory is passed.
    let flags = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC != 0
}

#[test]
fn successor_takes_passed_listeners() {
    let name = "successor_takes_passed_listeners";
    if is_child(name) {
        let _watchdog = Watchdog::new();
        let before = fd_count();
        let mut taken = activation::take().unwrap();
        assert_eq!(fd_count(), before, "take() must not duplicate descriptors");
        assert_eq!(taken.iter().map(|taken| taken.name()).collect::<Vec<_>>(), ["web", "log", "", "web"]);
        // A number outside 3 to 6 is possible, because other tests of the parent close descriptors
        // meanwhile.
        let mut numbers: Vec<_> = taken.iter().map(|taken| taken.as_fd().as_raw_fd()).collect();
        assert!(numbers.iter().zip(3..).filter(|&(&number, expected)| number == expected).count() >= 3, "{numbers:?}");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 4);
        assert!(taken.iter().all(is_close_on_exec));
        assert_eq!(taken.iter().map(|taken| taken.is_tcp_listener()).collect::<Vec<_>>(), [true, false, false, true]);
        assert!(activation::take().unwrap().is_empty(), "descriptors are taken only once");
        // The other descriptors are a datagram socket and a file.
        let mut text = String::new();
        File::from(OwnedFd::from(taken.remove(2))).read_to_string(&mut text).unwrap();
        assert!(text.contains("socket activation"));
        let log = UnixDatagram::from(OwnedFd::from(taken.remove(1)));
        log.send(b"ready").unwrap();
        let [first, second] = taken.try_into().unwrap();
        run(async {
            for listener in [first, second] {
                let listener = listener.into_tcp_listener().unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"from the successor").await.unwrap();
            }
        });
        // A grandchild inherits the variables, but not the passed descriptors.
        succeeds(&mut successor("descriptors_for_other_processes_are_left_alone"));
        return;
    }
    let _watchdog = Watchdog::new();
    let (first, second) = run(async {
        let bind = || TcpListener::bind(common::own_address());
        (bind().await.unwrap(), bind().await.unwrap())
    });
    let addrs = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let (log, their_log) = UnixDatagram::pair().unwrap();
    let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/activation.rs")).unwrap();
    let mut command = successor(name);
    let passed = [("web", first.as_fd()), ("log", their_log.as_fd()), ("", file.as_fd()), ("web", second.as_fd())];
    activation::pass(&mut command, passed).unwrap();
    // Below, this process closes its copies of the listeners. The successor's copies stay open, so
    // a connection made before the close waits in the queue for the successor.
    let mut early = StdStream::connect(addrs[0]).unwrap();
    let child = common::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
    drop((command, first, second, their_log));
    let mut late = StdStream::connect(addrs[1]).unwrap();
    let texts = [&mut early, &mut late].map(|stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    let output = child.wait_with_output().unwrap();
    // If the successor has failed, its output says why.
    assert!(output.status.success(), "{texts:?}; {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(texts.map(Result::unwrap), ["from the successor"; 2]);
    let mut buf = [0; 16];
    let count = log.recv(&mut buf).unwrap();
    assert_eq!(&buf[..count], b"ready");
    // No copy of the listener is open, so the port is closed.
    let _no_forks = common::no_forks();
    assert_eq!(StdStream::connect(addrs[0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// `successor_takes_passed_listeners` also runs this test, in a child process of the successor.
#[test]
fn descriptors_for_other_processes_are_left_alone() {
    let name = "descriptors_for_other_processes_are_left_alone";
    if is_child(name) {
        let _watchdog = Watchdog::new();
        let before = fd_count();
        assert!(activation::take().unwrap().is_empty());
        assert_eq!(fd_count(), before);
        return;
    }
    // The cases are: no variables; the id of another process; a count alone; descriptors but not
    // the process that passes them, first without names and then with names; a passing process that
    // is not the parent.
    let foreign: &[&[(&str, &str)]] = &[
        &[],
        &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")],
        &[("LISTEN_FDS", "1")],
        &[("LISTEN_FDS", "1"), ("NETPOLL_LISTEN_FDS", "8-1")],
        &[("LISTEN_FDS", "2"), ("NETPOLL_LISTEN_FDS", "0-0,0-0"), ("LISTEN_FDNAMES", "a:b")],
        &[("LISTEN_FDS", "1"), ("NETPOLL_LISTEN_FDS", "8-1@9"), ("NETPOLL_LISTEN_PARENT", "1-1@1")],
    ];
    for variables in foreign {
        succeeds(successor(name).envs(variables.iter().copied()));
    }
}

/// Returns a command that activates test `name` as systemd does: a shell opens descriptors with
/// `script` and executes the test, so that `LISTEN_PID` is the process id of the test.
fn activated_by_shell(name: &str, script: &str) -> Command {
    let mut shell = Command::new("sh");
    let exec = format!("{script}; exec env LISTEN_PID=$$ \"$0\" \"$@\"");
    shell.args([OsStr::new("-c"), exec.as_ref(), std::env::current_exe().unwrap().as_ref()]);
    shell.args(arguments(name)).env("NETPOLL_TEST_CHILD", name).stdin(Stdio::null());
    shell
}

/// `LISTEN_PID` names the process.
#[test]
fn named_process_takes_its_descriptors() {
    let name = "named_process_takes_its_descriptors";
    let _watchdog = Watchdog::new();
    if is_child(name) {
        let taken = activation::take().unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].name(), taken[0].is_tcp_listener()), ("unknown", false));
        let error = taken.into_iter().next().unwrap().into_tcp_listener().unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::InvalidInput, "unknown is not a listening TCP socket")
        );
        return;
    }
    succeeds(activated_by_shell(name, "exec 3</dev/null").env("LISTEN_FDS", "1"));
}

#[test]
fn missing_descriptors_and_malformed_variables_are_errors() {
    let name = "missing_descriptors_and_malformed_variables_are_errors";
    let _watchdog = Watchdog::new();
    if is_child(name) {
        let expected = (std::env::var("EXPECT").unwrap() == "EBADF").then_some(libc::EBADF);
        // Both calls fail in the same way, because the first one takes nothing.
        for _ in 0..2 {
            let error = activation::take().unwrap_err();
            assert_eq!(error.raw_os_error(), expected);
            assert!(expected.is_some() || error.kind() == ErrorKind::InvalidData);
        }
        return;
    }
    // `LISTEN_FDS` counts 600 descriptors. The script opens two of them. The shell may inherit
    // others, but not all.
    let script = "exec 3</dev/null 4</dev/null";
    succeeds(activated_by_shell(name, script).env("LISTEN_FDS", "600").env("EXPECT", "EBADF"));
    succeeds(activated_by_shell(name, script).env("LISTEN_FDS", "many").env("EXPECT", "InvalidData"));
    let contradicting = &mut activated_by_shell(name, script);
    succeeds(contradicting.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "one").env("EXPECT", "InvalidData"));
}

#[test]
fn refused_arguments_and_failed_exec_are_reported() {
    common::child("refused_arguments_and_failed_exec_are_reported", || {
        let file = File::open("/dev/null").unwrap();
        let mut command = Command::new("/nonexistent/successor");
        for name in ["a:b", "line\n", &"n".repeat(256)] {
            let error = activation::pass(&mut command, [(name, file.as_fd())]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        // The kernel would refuse the variable with E2BIG.
        let long = "n".repeat(255);
        let many = activation::pass(&mut command, (0..600).map(|_| (&*long, file.as_fd()))).unwrap_err();
        assert_eq!(many.kind(), ErrorKind::InvalidInput);
        activation::pass(&mut command, [("file", file.as_fd())]).unwrap();
        let again = activation::pass(&mut command, [("file", file.as_fd())]).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::InvalidInput);
        // `Command` reports the error of exec(2), because the pipe of that report does not get the
        // number of the passed descriptor.
        assert_eq!(command.spawn().unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// Opens files until all descriptor numbers up to `last` are in use.
fn fill(last: i32) -> Vec<File> {
    let mut files = Vec::new();
    loop {
        let file = File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        files.push(file);
        if number >= last {
            return files;
        }
    }
}

/// Descriptor numbers that are in use during `activation::pass` may be free when the process
/// starts. Then the pipe by which `Command` learns that exec(2) failed gets one of these numbers.
#[test]
fn failed_exec_is_reported_despite_freed_numbers() {
    common::child("failed_exec_is_reported_despite_freed_numbers", || {
        let (listener, file) =
            (run(TcpListener::bind(common::own_address())).unwrap(), File::open("/dev/null").unwrap());
        let (stream, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let missing = [("/nonexistent/successor", ErrorKind::NotFound), ("/etc/passwd", ErrorKind::PermissionDenied)];
        for (count, (program, kind)) in (1..=12).flat_map(|count| missing.map(|missing| (count, missing))) {
            for fd in [listener.as_fd(), file.as_fd(), stream.as_fd()] {
                for piped in [false, true] {
                    let mut command = Command::new(program);
                    if piped {
                        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                    }
                    let held = fill(3 + count + 12);
                    activation::pass(&mut command, (0..count).map(|_| ("fd", fd))).unwrap();
                    drop(held);
                    for _ in 0..2 {
                        assert_eq!(command.spawn().unwrap_err().kind(), kind, "{program}, {count}, {piped}");
                    }
                }
            }
        }
    });
}

#[test]
fn successor_takes_descriptors_despite_freed_numbers() {
    let name = "successor_takes_descriptors_despite_freed_numbers";
    if std::env::var_os("SUCCESSOR").is_some() {
        let taken = activation::take().unwrap();
        assert_eq!(
            taken.iter().map(|taken| taken.name()).collect::<Vec<_>>(),
            ["a", "b", "c", "d", "e", "f", "g", "h"]
        );
        assert!(taken.iter().all(|taken| taken.is_tcp_listener() && is_close_on_exec(taken)));
        return;
    }
    common::child(name, || {
        let listener = run(TcpListener::bind(common::own_address())).unwrap();
        let mut command = successor(name);
        command.env("SUCCESSOR", "");
        let held = fill(30);
        activation::pass(&mut command, ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| (name, listener.as_fd())))
            .unwrap();
        drop(held);
        // The second round passes the descriptors again.
        for _ in 0..2 {
            succeeds(&mut command);
        }
    });
}

/// Returns the role of this process in a test, which the variable `ROLE` sets.
fn role() -> String {
    std::env::var("ROLE").unwrap_or_default()
}

/// Takes the passed descriptors. Returns whether one of them is named `web`.
fn takes_web() -> bool {
    activation::take().unwrap().into_iter().any(|taken| taken.name() == "web")
}

/// A helper process inherits its parent's environment. If it is started before the parent takes the
/// passed descriptors, it inherits these too. It must take none of them.
#[test]
fn helper_process_does_not_take_parent_descriptors() {
    let name = "helper_process_does_not_take_parent_descriptors";
    let _watchdog = Watchdog::new();
    match &role()[..] {
        "helper" => return assert!(!takes_web()),
        role @ ("successor" | "executed") => {
            let helpers = || {
                succeeds(successor(name).env("ROLE", "helper"));
                // A shell, which is a process in between, starts this helper.
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "\"$0\" \"$@\"; exit $?"])
                    .arg(std::env::current_exe().unwrap())
                    .args(arguments(name));
                succeeds(shell.env("ROLE", "helper").stdin(Stdio::null()));
            };
            helpers();
            assert!(takes_web());
            helpers();
            if role == "executed" {
                // A process that was activated passes descriptors in turn.
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let mut command = successor(name);
                activation::pass(&mut command, [("web", listener.as_fd())]).unwrap();
                succeeds(command.env("ROLE", "successor"));
            }
            return;
        }
        "becomes another" => {
            let mut command = successor(name);
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            activation::pass(&mut command, [("web", listener.as_fd())]).unwrap();
            panic!("{}", command.env("ROLE", "executed").exec());
        }
        _ => {}
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = successor(name);
    activation::pass(&mut command, [("web", listener.as_fd())]).unwrap();
    succeeds(command.env("ROLE", "successor"));
    succeeds(successor(name).env("ROLE", "becomes another"));
}

#[test]
fn successor_takes_its_descriptors_when_its_parent_has_ended() {
    let name = "successor_takes_its_descriptors_when_its_parent_has_ended";
    match &role()[..] {
        "successor" => {
            let parent: u32 = std::env::var("PARENT").unwrap().parse().unwrap();
            common::eventually("the parent has ended", || std::os::unix::process::parent_id() != parent);
            // A helper does not take the descriptors of the successor.
            succeeds(successor(name).env("ROLE", "helper"));
            assert!(takes_web());
            println!("taken by the orphan");
            return;
        }
        "helper" => return assert!(!takes_web()),
        "parent" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut command = successor(name);
            command.env("ROLE", "successor").env("PARENT", std::process::id().to_string());
            activation::pass(&mut command, [("web", listener.as_fd())]).unwrap();
            drop(command.spawn().unwrap());
            return;
        }
        _ => {}
    }
    // The successor inherits the pipe of the output, so the output ends when the successor has
    // ended.
    let _watchdog = Watchdog::new();
    let text = succeeds(successor(name).env("ROLE", "parent"));
    assert!(text.contains("taken by the orphan"), "{text}");
}

#[test]
fn command_holds_passed_descriptors_until_its_drop() {
    common::child("command_holds_passed_descriptors_until_its_drop", || {
        run(common::warm_up());
        let listener = run(TcpListener::bind(common::own_address())).unwrap();
        let addr = listener.local_addr().unwrap();
        let before = fd_count();
        let mut command = Command::new("true");
        activation::pass(&mut command, [("web", listener.as_fd()), ("web", listener.as_fd())]).unwrap();
        run(listener.close()).unwrap();
        assert!(StdStream::connect(addr).is_ok(), "the command holds the descriptor open");
        // A command can start any number of processes.
        for _ in 0..2 {
            assert!(command.status().unwrap().success());
        }
        drop(command);
        assert_eq!(StdStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // The number was handed out, so it is in use as long as the listener exists.
        assert_eq!(fd_count(), before);
        drop(listener);
        assert_eq!(fd_count(), before - 1);
        // An empty list is valid.
        let mut command = Command::new("true");
        activation::pass(&mut command, []).unwrap();
        assert!(command.status().unwrap().success());
    });
}
