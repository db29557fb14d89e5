//! `rt::InspectServer`: snapshots over a Unix socket.

mod common;

use std::io::{BufRead as _, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Folder, bounded, child, eventually, fd_count, no_forks, resident};
use netpoll::net::raw_os_error;
use netpoll::rt::{self, InspectServer};
use netpoll::task::{self, TaskSet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn ask(path: &Path, line: &str) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(common::BOUND / 2)).unwrap();
    client.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn text_json_metrics_and_traces_are_served_on_a_socket_of_mode_600() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        assert_eq!(server.path(), path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = ask(&path, "text\n");
        assert!(text.contains(" tasks, ") && text.contains(" sockets, "), "{text}");
        let json = ask(&path, "json\n");
        assert!(json.starts_with("{\"taken\":") && json.ends_with("}}"), "{json}");
        let metrics = ask(&path, "metrics\n");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        let trace = ask(&path, "trace\n");
        assert!(trace.starts_with("{\"displayTimeUnit\"") && trace.ends_with("]}\n"), "{trace}");
        assert!(ask(&path, "else\n").starts_with("unknown request \"else\""));
        drop(server);
        assert!(!path.exists(), "the file is removed");
    });
}

/// Sends a request for JSON. Returns the ids of the tasks in the answer, and the number of further
/// tasks that the answer reports.
fn tasks(path: &Path, request: &str) -> (Vec<u64>, usize) {
    let begin = Instant::now();
    let is_complete = |json: &str| json.contains(",\"more_tasks\":") && json.ends_with("}}");
    let mut json = ask(path, request);
    while !is_complete(&json) {
        // The server abandons an answer that the client has not read within 10 s.
        assert!(begin.elapsed() < common::BOUND / 3, "no complete answer");
        json = ask(path, request);
    }
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap();
    let (tasks, rest) = json.split_once(",\"more_tasks\":").unwrap();
    (tasks.split("{\"id\":").skip(1).map(number).collect(), number(rest) as usize)
}

#[test]
fn answer_with_many_tasks_is_limited_and_continued() {
    child("answer_with_many_tasks_is_limited_and_continued", || {
        const LIMIT: usize = 100_000;
        let folder = Folder::new();
        let path = folder.join("socket");
        let _server = InspectServer::bind(&path).unwrap();
        let handles: Vec<_> = (0..LIMIT + 50).map(|_| task::spawn(std::future::pending::<()>())).collect();
        let (first, more) = tasks(&path, "json\n");
        assert_eq!((first.len(), more), (LIMIT, 50));
        let (rest, more) = tasks(&path, &format!("json {}\n", first.last().unwrap()));
        assert_eq!((rest.len(), more), (50, 0));
        assert!(first.iter().chain(&rest).is_sorted());
        let text = ask(&path, &format!("text {}\n", rest[47]));
        assert!(text.starts_with("2 tasks, "), "{text}");
        assert!(ask(&path, "text\n").starts_with("100000 tasks (50 more not shown), "));
        assert!(ask(&path, "metrics 5\n").starts_with("unknown request"));
        assert!(ask(&path, "json x\n").starts_with("unknown request"));
        drop(handles);
    });
}

/// An answer has at most 100,000 tasks. Of the other tasks, a request stores only the ids.
#[test]
fn answer_for_a_million_tasks_is_limited() {
    child("answer_for_a_million_tasks_is_limited", || {
        const TASKS: usize = 1_000_000;
        let folder = Folder::new();
        let path = folder.join("socket");
        let _server = InspectServer::bind(&path).unwrap();
        let handles: Vec<_> = (0..TASKS).map(|_| task::spawn(std::future::pending::<()>())).collect();
        let before = resident();
        let (first, more) = tasks(&path, "json\n");
        assert_eq!((first.len(), more), (100_000, TASKS - 100_000));
        let (rest, more) = tasks(&path, &format!("json {}\n", first[0] + TASKS as u64 - 10));
        assert_eq!((rest.len(), more), (9, 0));
        // A snapshot of all tasks and its JSON would take over 300 MB.
        let grown = (resident() - before) >> 10;
        assert!(grown < 200 || common::IS_SANITIZED, "{grown} MiB");
        // A drop of the handles would detach the tasks one by one, which takes long.
        std::mem::forget(handles);
    });
}

#[test]
fn stale_socket_is_replaced_and_other_files_are_not() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = {
            let _no_forks = no_forks();
            drop(UnixListener::bind(&path).unwrap());
            InspectServer::bind(&path).unwrap()
        };
        let error = InspectServer::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("listens there"), "{error}");
        assert!(ask(&path, "text\n").contains("tasks"), "the first server continues");
        drop(server);
        std::fs::write(&path, "precious").unwrap();
        let error = InspectServer::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let error = InspectServer::bind("/nonexistent/folder/socket").unwrap_err();
        assert_eq!((error.kind(), raw_os_error(&error)), (ErrorKind::NotFound, Some(libc::ENOENT)));
    });
}

#[test]
fn errors_name_the_path() {
    child("errors_name_the_path", || {
        let path = "/nonexistent/folder/socket";
        let wanted = "cannot serve snapshots at /nonexistent/folder/socket: No such file or directory (os error 2)";
        assert_eq!(InspectServer::bind(path).unwrap_err().to_string(), wanted);
        assert_eq!(rt::Builder::new().inspect_socket(path).start().unwrap_err().to_string(), wanted);
        let folder = Folder::new();
        std::fs::write(folder.join("file"), "").unwrap();
        let error = InspectServer::bind(folder.join("file")).unwrap_err().to_string();
        assert_eq!(error.matches("cannot serve snapshots at ").count(), 1, "{error}");
        assert!(error.ends_with("/file: the file there is not a socket"), "{error}");
    });
}

/// If another kind of socket is bound to the path, connect(2) of a stream socket fails with
/// EPROTOTYPE, and not with ECONNREFUSED.
#[test]
fn socket_of_another_kind_is_not_replaced() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let _no_forks = no_forks();
        let datagrams = UnixDatagram::bind(&path).unwrap();
        let error = InspectServer::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        let sender = UnixDatagram::unbound().unwrap();
        assert_eq!(sender.send_to(b"x", &path).unwrap(), 1, "the socket keeps its file");
        drop(datagrams);
        drop(InspectServer::bind(&path).unwrap());
    });
}

/// Runs test `name` in another process, with the environment variables `child`, which is 1, and
/// `NETPOLL_INSPECT`, which is `path`. Asserts that the process succeeds, and returns its standard
/// error.
fn messages_of(name: &str, child: &str, path: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(child, "1").env("NETPOLL_INSPECT", path);
    let output = common::output(&mut command).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// The second process runs without a server, and reports the reason.
#[test]
fn second_process_at_the_same_path_reports_the_conflict_and_continues() {
    const CHILD: &str = "NETPOLL_TEST_INSPECT_SECOND";
    if std::env::var_os(CHILD).is_some() {
        assert_eq!(task::block_on(task::spawn(async { 7 })), 7);
        return;
    }
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        let text = messages_of("second_process_at_the_same_path_reports_the_conflict_and_continues", CHILD, &path);
        assert!(text.contains("netpoll: NETPOLL_INSPECT: cannot serve snapshots at "), "{text}");
        assert!(text.contains("another process, or another server of this process, listens there"), "{text}");
        assert!(path.exists(), "the second process has not removed the file");
        assert!(ask(&path, "text\n").contains("tasks"), "the first server continues");
        drop(server);
    });
}

/// An error of the operating system is reported with the path.
#[test]
fn path_in_the_environment_that_cannot_be_bound_is_reported() {
    const CHILD: &str = "NETPOLL_TEST_INSPECT_MISSING";
    if std::env::var_os(CHILD).is_some() {
        assert_eq!(task::block_on(task::spawn(async { 7 })), 7);
        return;
    }
    bounded(|| {
        let path = Path::new("/nonexistent/folder/socket");
        let text = messages_of("path_in_the_environment_that_cannot_be_bound_is_reported", CHILD, path);
        let wanted = "netpoll: NETPOLL_INSPECT: cannot serve snapshots at /nonexistent/folder/socket: No such file";
        assert!(text.contains(wanted), "{text}");
    });
}

/// Many processes bind the path of a stale socket at once, for example if a supervisor restarts all
/// workers of a server after a crash.
#[test]
fn one_of_many_processes_takes_over_a_stale_socket() {
    const NAME: &str = "one_of_many_processes_takes_over_a_stale_socket";
    const CHILD: &str = "NETPOLL_TEST_INSPECT_STALE";
    if let Some(path) = std::env::var_os(CHILD) {
        let server = InspectServer::bind(path);
        println!("{}", if server.is_ok() { "serves" } else { "does not serve" });
        // Waits until the parent closes standard input.
        let _ = std::io::stdin().read(&mut [0]);
        return drop(server);
    }
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        for _ in 0..5 {
            drop(UnixListener::bind(&path).unwrap());
            let start = |_| {
                let mut child = Command::new(std::env::current_exe().unwrap());
                let child = child.args(["--exact", NAME, "--nocapture"]).env(CHILD, &path);
                common::spawn(child.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap()
            };
            let mut children: Vec<_> = (0..4).map(start).collect();
            let mut outputs = children.iter_mut().map(|child| child.stdout.take().unwrap()).collect::<Vec<_>>();
            let mut serving = 0;
            for output in &mut outputs {
                let lines = std::io::BufReader::new(output).lines();
                let line = lines.map(Result::unwrap).find(|line| line.ends_with("serves") || line.ends_with("serve"));
                serving += usize::from(line.unwrap().ends_with("serves"));
            }
            assert_eq!(serving, 1, "processes that serve");
            assert!(ask(&path, "text\n").contains("tasks"));
            for mut child in children {
                drop(child.stdin.take());
                assert!(child.wait().unwrap().success());
            }
            assert!(!path.exists());
        }
    });
}

#[test]
fn silent_client_delays_others_for_a_bounded_time() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        let silent = UnixStream::connect(&path).unwrap();
        assert!(ask(&path, "text\n").contains("tasks"));
        drop(server);
        drop(silent);
    });
}

/// Spawns tasks whose text does not fit into the socket's buffers.
fn long_answer() -> TaskSet<()> {
    let mut tasks = TaskSet::new();
    (0..10_000).for_each(|_| _ = tasks.spawn(std::future::pending()));
    tasks
}

#[test]
fn client_that_stops_reading_delays_others_for_a_bounded_time() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        let mut tasks = long_answer();
        let mut lazy = UnixStream::connect(&path).unwrap();
        lazy.write_all(b"text\n").unwrap();
        assert!(ask(&path, "text\n").len() > 1 << 19);
        let mut rest = Vec::new();
        lazy.read_to_end(&mut rest).unwrap();
        assert!(!rest.is_empty() && rest.len() < 1 << 19, "the connection was dropped after {} bytes", rest.len());
        drop(server);
        task::block_on(tasks.cancel_all());
    });
}

/// Regression: the drop waited until the client had the answer, or was disconnected.
#[test]
fn drop_does_not_wait_for_a_client_that_is_served() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        let mut tasks = long_answer();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"text\n").unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(server);
        assert!(!path.exists(), "the file is removed");
        // The server disconnects a client that does not read for some time. So the drop has not
        // waited if the answer is complete.
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(rest.len() > 1 << 19, "the answer was cut after {} bytes", rest.len());
        task::block_on(tasks.cancel_all());
    });
}

/// The mode of the socket file keeps other users out. Even if the mode is changed to permit them,
/// the server refuses them by their credentials.
#[test]
fn other_users_are_refused() {
    const NAME: &str = "other_users_are_refused";
    const CHILD: &str = "NETPOLL_TEST_INSPECT_OTHER";
    if let Some(path) = std::env::var_os(CHILD) {
        let mut client = match UnixStream::connect(path) {
            Ok(client) => client,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => std::process::exit(13),
            Err(error) => panic!("{error}"),
        };
        // The server may have closed the connection already.
        let _ = client.write_all(b"text\n");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        std::process::exit(if answer.is_empty() { 14 } else { 1 });
    }
    if !rustix::process::getuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        let executable = folder.join("test");
        {
            // A process that starts during the copy would have a descriptor that is open for
            // writing the file. This would prevent the execution of the file.
            let _no_forks = no_forks();
            std::fs::copy(std::env::current_exe().unwrap(), &executable).unwrap();
        }
        std::fs::set_permissions(&executable, std::fs::Permissions::from_mode(0o755)).unwrap();
        for (mode, code) in [(0o600, 13), (0o666, 14)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut child = Command::new(&executable);
            let child = child.args(["--exact", NAME]).env(CHILD, &path).current_dir("/").uid(65_534);
            let status = common::spawn(child.stdout(Stdio::null())).unwrap().wait().unwrap();
            assert_eq!(status.code(), Some(code), "mode {mode:o}");
        }
        assert!(ask(&path, "text\n").contains("tasks"), "requests of the same user still work");
        drop(server);
    });
}

#[test]
fn server_answers_while_workers_are_blocked() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        let (releases, tasks): (Vec<_>, Vec<_>) = (0..8)
            .map(|_| {
                let (release, blocked) = mpsc::channel::<()>();
                let task = task::Builder::new().name("blocked".into()).spawn(async move { blocked.recv() }).unwrap();
                (release, task)
            })
            .unzip();
        let begin = Instant::now();
        while ask(&path, "text\n").matches("(blocks)").count() < 2 {
            assert!(begin.elapsed() < common::BOUND / 3, "{}", ask(&path, "text\n"));
        }
        drop(releases);
        for task in tasks {
            let _ = task::block_on(task);
        }
        drop(server);
    });
}

/// Regression: a signal of the server's thread disconnected the client, because a socket call with
/// a timeout fails with EINTR, even if the signal's handler has SA_RESTART.
#[cfg(target_os = "linux")]
#[test]
fn signal_during_a_request_does_not_disconnect_the_client() {
    child("signal_during_a_request_does_not_disconnect_the_client", || {
        let folder = Folder::new();
        let path = folder.join("socket");
        let _server = InspectServer::bind(&path).unwrap();
        // The text does not fit the buffer of a socket, so the server also waits while it answers.
        let names = (0..5000).map(|_| task::Builder::new().name("n".repeat(200)));
        let _tasks: Vec<_> = names.map(|task| task.spawn(std::future::pending::<()>()).unwrap()).collect();
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(common::BOUND / 2)).unwrap();
        let interrupt = || {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(10));
                common::interrupt("netpoll-inspect");
            }
        };
        interrupt();
        client.write_all(b"text\n").unwrap();
        client.read_exact(&mut [0]).unwrap();
        interrupt();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.lines().last().unwrap().starts_with("shared"), "the answer is complete");
    });
}

/// The server continues after accept(2) has failed because the process had no free descriptor.
#[test]
fn server_survives_a_lack_of_descriptors() {
    common::child("server_survives_a_lack_of_descriptors", || {
        let folder = Folder::new();
        let path = folder.join("socket");
        let server = InspectServer::bind(&path).unwrap();
        let limit = getrlimit(Resource::Nofile);
        for _ in 0..3 {
            let before = fd_count();
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"met").unwrap();
            eventually("the server accepts the client", || fd_count() == before + 2);
            setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: limit.maximum }).unwrap();
            client.write_all(b"rics\n").unwrap();
            client.read_to_string(&mut String::new()).unwrap();
            // Gives the server time for an accept(2) that fails.
            std::thread::sleep(Duration::from_millis(20));
            setrlimit(Resource::Nofile, limit).unwrap();
            assert!(ask(&path, "text\n").contains("tasks"));
        }
        drop(server);
    });
}

/// `bind` reports a listener at its path without a connect(2) that could block on a full queue.
#[test]
fn busy_listener_at_the_path_is_reported_at_once() {
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let _fills = UnixStream::connect(&path).unwrap();
        let error = InspectServer::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

/// A process with threads cannot change its environment safely, so the test starts another process.
#[test]
fn environment_variable_starts_a_server_with_the_runtime() {
    const CHILD: &str = "NETPOLL_TEST_INSPECT_CHILD";
    if std::env::var_os(CHILD).is_some() {
        task::block_on(task::spawn(async {}));
        // Waits until the parent closes standard input.
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    bounded(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "environment_variable_starts_a_server_with_the_runtime"])
            .env(CHILD, "1")
            .env("NETPOLL_INSPECT", &path);
        let mut child = common::spawn(command.stdin(Stdio::piped()).stdout(Stdio::null())).unwrap();
        let begin = Instant::now();
        while UnixStream::connect(&path).is_err() {
            assert!(begin.elapsed() < common::BOUND / 3, "no server at {}", path.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        // The server starts with the runtime, before the first task is counted.
        while !ask(&path, "metrics\n").contains("netpoll_tasks_spawned_total 1\n") {
            assert!(begin.elapsed() < common::BOUND / 3, "the task is not counted");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    });
}
