//! `rt::dump_on_sigusr1` and `Builder::inspect_socket`. Each test starts itself again in a separate
//! process.

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{bounded, eventually};
use netpoll::net::UdpSocket;
use netpoll::{rt, task};

/// The environment variable that contains the role of a started process.
const ROLE: &str = "NETPOLL_TEST_DUMP_ROLE";

/// Starts `test` again in a new process, which has the role `role`.
fn start(test: &str, role: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role);
    common::spawn(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped())).unwrap()
}

/// Returns the role of this process, or `None` if no test has started it.
fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Spawns a task, and returns when the task waits for a datagram.
fn spawn_a_reader() {
    let reader = task::Builder::new().name("waits for a datagram".into());
    let reader = reader.spawn(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.recv(&mut [0; 8]).await
    });
    drop(reader.unwrap());
    eventually("the task waits", || rt::inspect().to_string().contains("read of fd"));
}

#[test]
fn signal_prints_a_snapshot_each_time() {
    const NAME: &str = "signal_prints_a_snapshot_each_time";
    if role().is_some() {
        rt::dump_on_sigusr1().unwrap();
        // The second call does nothing.
        rt::dump_on_sigusr1().unwrap();
        spawn_a_reader();
        eprintln!("ready");
        #[cfg(target_os = "linux")]
        while std::io::stdin().read(&mut [0]).unwrap() > 0 {
            common::interrupt("netpoll-dump");
            std::thread::sleep(Duration::from_millis(20));
            eprintln!("ready");
        }
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    bounded(|| {
        let mut child = start(NAME, "child");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "ready").unwrap();
        for _ in 0..3 {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
            let title = lines.find(|line| line.starts_with("netpoll: snapshot of process")).unwrap();
            assert_eq!(title, format!("netpoll: snapshot of process {} (SIGUSR1)", child.id()));
            let row = lines.find(|line| line.contains("waits for a datagram")).unwrap();
            assert!(row.contains("waiting") && row.contains("read of fd") && row.contains("(udp 127.0.0.1:"), "{row}");
            // Regression: after a signal with another handler, the thread ended.
            if cfg!(target_os = "linux") {
                child.stdin.as_ref().unwrap().write_all(b"i").unwrap();
                lines.find(|line| line == "ready").unwrap();
            }
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn signal_that_the_program_ignores_is_not_taken_over() {
    const NAME: &str = "signal_that_the_program_ignores_is_not_taken_over";
    if role().is_some() {
        let error = rt::dump_on_sigusr1().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        return;
    }
    bounded(|| {
        // The shell ignores the signal, and exec(2) keeps it ignored.
        let script = format!("trap '' USR1; exec \"$0\" --exact {NAME}");
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", &script]).arg(std::env::current_exe().unwrap()).env(ROLE, "child");
        assert!(common::spawn(shell.stdout(Stdio::null())).unwrap().wait().unwrap().success());
    });
}

#[test]
fn builder_serves_snapshots_and_refuses_a_path_in_use() {
    const NAME: &str = "builder_serves_snapshots_and_refuses_a_path_in_use";
    let path = std::env::temp_dir().join(format!("netpoll-dump-{}", std::process::id()));
    // The role is the path of the child's socket.
    if let Some(path) = role() {
        rt::Builder::new().inspect_socket(&path).start().unwrap();
        rt::shutdown(Duration::from_secs(60)).unwrap();
        // The server outlives the runtime and serves the next runtime.
        rt::Builder::new().inspect_socket(&path).start().unwrap();
        eprintln!("ready");
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    bounded(|| {
        let mut child = start(NAME, path.to_str().unwrap());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "ready").unwrap();
        // This process cannot bind the path that the child has bound.
        let error = rt::Builder::new().inspect_socket(&path).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let error = rt::InspectServer::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"text\n").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.contains("0 tasks, 0 sockets"), "{text}");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        // The socket file of the ended process remains, and a new server replaces it.
        assert!(path.exists());
        drop(rt::InspectServer::bind(&path).unwrap());
        assert!(!path.exists());
    });
}
