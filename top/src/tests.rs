//! Tests of the arguments, the snapshots, the tables and the live view. In most tests, the program
//! that serves the snapshots is the test process.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossterm::event::KeyCode;
use netpoll::net::{ListenConfig, TcpListener};
use netpoll::rt::InspectServer;
use netpoll::task;

use crate::request::{Limits, ask};
use crate::rows::{Key, Order, Table, details, follow, rows, waits};
use crate::screen::View;
use crate::snapshot::Snapshot;
use crate::{filtered, parse, printable};

/// A server of snapshots of this process.
struct Served(InspectServer);

impl Served {
    fn new(name: &str) -> Served {
        let path = std::env::temp_dir().join(format!("netpoll-top-{}-{name}", std::process::id()));
        Served(InspectServer::bind(path).unwrap())
    }

    /// Takes snapshots until `wanted` returns true for one, for at most 60 seconds. Returns this
    /// snapshot.
    fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let begin = Instant::now();
        loop {
            let snapshot = Snapshot::take(self.0.path()).unwrap();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{snapshot:?}");
        }
    }
}

#[test]
fn waits_are_shown_and_followed() {
    let served = Served::new("live");
    let acceptor = task::Builder::new().name("acceptor".into()).spawn(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.accept().await.map(drop)
    });
    let acceptor = acceptor.unwrap();
    let id = acceptor.task().id();
    let joiner = task::Builder::new().name("joiner".into()).spawn(acceptor).unwrap();
    let named = |snapshot: &Snapshot, name: &str| {
        snapshot.tasks.iter().find(|task| task.name.as_deref() == Some(name)).cloned()
    };
    let snapshot = served.until(|snapshot| {
        ["acceptor", "joiner"].iter().all(|name| named(snapshot, name).is_some_and(|task| task.waits_for.is_some()))
    });
    let joiner_info = named(&snapshot, "joiner").unwrap();
    let text = waits(&snapshot, &joiner_info);
    assert!(text.starts_with(&format!("task {id} (acceptor), which waits for read of fd ")), "{text}");
    assert!(text.ends_with(')'), "{text}");
    let shown = rows(Table::Tasks, &snapshot, Some(&snapshot), Order::Since, "acceptor");
    assert_eq!(shown.len(), 2, "both rows must name the acceptor: {shown:?}");
    let Some(Key::Task(acceptor_id)) = follow(&snapshot, Key::Task(joiner_info.id)) else { panic!("{joiner_info:?}") };
    let Some(Key::Socket(fd)) = follow(&snapshot, Key::Task(acceptor_id)) else {
        panic!("the acceptor must wait for a socket")
    };
    assert_eq!(follow(&snapshot, Key::Socket(fd)), Some(Key::Task(acceptor_id)));
    let lines = details(&snapshot, Key::Socket(fd));
    assert!(lines.iter().any(|line| line.starts_with("accept queue    0 of ")), "{lines:?}");
    let lines = details(&snapshot, Key::Task(acceptor_id));
    assert!(lines.iter().any(|line| line.contains("awaited by") && line.contains("joiner")), "{lines:?}");
    // The test's own thread spawned the task, which has not been woken since.
    assert!(lines.iter().any(|line| line == "woken by   a thread that runs no task"), "{lines:?}");
    task::block_on(joiner.cancel());
}

#[test]
fn accept_without_a_permit_waits_for_one() {
    let served = Served::new("permit");
    let listener = task::block_on(ListenConfig::new().max_connections(1).listen("127.0.0.1:0")).unwrap();
    let (fd, _client) = (listener.as_raw_fd(), std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let _only = task::block_on(listener.accept()).unwrap();
    let limited = task::spawn(async move { listener.accept().await.map(drop) });
    let id = limited.task().id();
    let of = |snapshot: &Snapshot| {
        let task = snapshot.tasks.iter().find(|task| task.id.to_string() == id.to_string());
        task.map_or_else(String::new, |task| waits(snapshot, task))
    };
    let snapshot = served.until(|snapshot| of(snapshot).contains(" of fd "));
    let text = of(&snapshot);
    assert!(text.starts_with(&format!("permit or descriptor of fd {fd} (")), "{text}");
    let lines = details(&snapshot, Key::Socket(fd));
    assert!(lines.iter().any(|line| line.ends_with(&format!(" permit or descriptor task {id}"))), "{lines:?}");
    task::block_on(limited.cancel());
}

/// The JSON has the descriptor -1 for a socket that was closed before the snapshot.
#[test]
fn closed_socket_is_named_and_not_followed() {
    let task = |waits_for: &str| {
        format!(
            r#"{{"id":7,"kind":"task","state":"waiting","age":1,"last_poll":1,"cpu":0,"longest_poll":0,"polls":1,
                "waits_for_more":false,"waits_for":{waits_for},"woken_by":{{"kind":"socket","fd":-1}}}}"#
        )
    };
    let snapshot = |waits_for| {
        let json = format!(r#"{{"taken":1,"tasks":[{}],"sockets":[],"workers":[]}}"#, task(waits_for));
        serde_json::from_str::<Snapshot>(&json).unwrap()
    };
    let closed = snapshot(r#"{"kind":"socket","fd":-1,"operation":"readable"}"#);
    assert_eq!(waits(&closed, &closed.tasks[0]), "read of a socket that is closed");
    let lines = details(&closed, Key::Task(7));
    assert!(lines.iter().any(|line| line == "woken by   a socket that is closed"), "{lines:?}");
    assert_eq!(follow(&closed, Key::Task(7)), None);
    let open = snapshot(r#"{"kind":"socket","fd":3,"operation":"writable"}"#);
    assert_eq!(waits(&open, &open.tasks[0]), "write to fd 3");
    assert_eq!(follow(&open, Key::Task(7)), Some(Key::Socket(3)));
}

#[test]
fn keys_of_the_table_do_nothing_while_details_are_shown() {
    let served = Served::new("keys");
    let sleepers = [0; 3].map(|_| task::spawn(task::sleep(Duration::from_secs(3600))));
    served.until(|snapshot| rows(Table::Tasks, snapshot, None, Order::Id, "a timer").len() >= 3);
    let mut view = View::new(served.0.path().to_owned(), Order::Id, "a timer".to_owned());
    view.refresh_for_tests();
    let before = view.lines(200, 50);
    assert!(before.len() >= 5 && before[2].1, "{before:?}");
    view.press(KeyCode::Enter);
    let details = view.lines(200, 50);
    let keys = ['j', 'k', 'o', '/'].map(KeyCode::Char);
    for key in keys.into_iter().chain([KeyCode::Down, KeyCode::Up, KeyCode::PageDown, KeyCode::PageUp]) {
        view.press(key);
        assert_eq!(view.lines(200, 50), details, "{key:?}");
    }
    view.press(KeyCode::Esc);
    assert_eq!(view.lines(200, 50), before);
    for sleeper in sleepers {
        task::block_on(sleeper.cancel());
    }
}

#[test]
fn screen_always_fits_the_terminal() {
    let served = Served::new("screen");
    let sleeper = task::Builder::new().name("a name\u{1b}[31m with an escape sequence".into());
    let sleeper = sleeper.spawn(task::sleep(Duration::from_secs(3600))).unwrap();
    served.until(|snapshot| snapshot.tasks.iter().any(|task| task.waits_for.is_some()));
    let mut view = View::new(served.0.path().to_owned(), Order::Id, String::new());
    view.refresh_for_tests();
    let keys = ['t', 's', 'w', 'h', 'o', 'p', '/'].map(KeyCode::Char);
    for key in keys.into_iter().chain([KeyCode::Enter, KeyCode::Enter, KeyCode::Esc, KeyCode::Down, KeyCode::PageUp]) {
        assert!(view.press(key));
        for (width, height) in [(80, 24), (20, 5), (1, 1), (300, 100)] {
            let lines = view.lines(width, height);
            assert!(lines.len() <= height.max(1), "{} lines of {height}", lines.len());
            for (line, _) in lines {
                assert!(line.chars().count() <= width && !line.contains('\u{1b}'), "{line:?}");
            }
        }
    }
    assert!(!view.press(KeyCode::Char('q')));
    task::block_on(sleeper.cancel());
}

#[test]
fn histograms_are_shown_as_ranges() {
    let served = Served::new("times");
    let begin = Instant::now();
    let snapshot = served.until(|snapshot| {
        // A worker measures only some polls, such as the first poll after every eighth sleep of the
        // worker. The worker sleeps while the task sleeps.
        task::block_on(async { task::spawn(task::sleep(Duration::from_micros(10))).await });
        assert!(begin.elapsed() < Duration::from_secs(60));
        snapshot.histograms.get("poll_seconds").is_some_and(|histogram| histogram.count > 0)
    });
    let polls = &snapshot.histograms["poll_seconds"];
    assert_eq!(polls.ranges().iter().map(|range| range.1).sum::<u64>(), polls.count);
    let shown = rows(Table::Times, &snapshot, None, Order::Id, "");
    assert_eq!(shown.len(), polls.buckets.len() + 1);
    assert_eq!((shown[0].cells[0].as_str(), shown[shown.len() - 1].cells[0].as_str()), ("1 us", "more"));
    assert!(shown.iter().any(|row| row.cells[1].starts_with('#')), "{shown:?}");
    assert_eq!(follow(&snapshot, shown[0].key), None);
    assert!(details(&snapshot, shown[0].key)[0].starts_with("sampled polls "));
}

#[test]
fn full_accept_queue_and_unsent_bytes_are_in_the_table_of_sockets() {
    let served = Served::new("hints");
    let listener = task::block_on(netpoll::net::ListenConfig::new().backlog(1).listen("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, clients) = task::block_on(async {
        let client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        (accepted, [client, std::net::TcpStream::connect(address).unwrap()])
    });
    let sender = task::spawn(async move { accepted.write_all(&vec![0; 64 << 20]).await });
    let cells = |snapshot: &Snapshot| {
        let shown = rows(Table::Sockets, snapshot, None, Order::Id, "");
        shown.into_iter().map(|row| row.cells[6].clone()).collect::<Vec<_>>()
    };
    let snapshot = served.until(|snapshot| {
        let cells = cells(snapshot);
        cells.iter().any(|cell| cell.starts_with("queue 1 of 1"))
            && cells.iter().any(|cell| cell.contains(" unsent; write task "))
    });
    let shown = rows(Table::Workers, &snapshot, None, Order::Id, "");
    let shared = shown.last().unwrap();
    assert_eq!((shared.key, shared.cells[0].as_str()), (Key::SharedQueue, "shared"));
    assert!(details(&snapshot, Key::SharedQueue)[0].ends_with("shared"));
    assert_eq!(follow(&snapshot, Key::SharedQueue), None);
    task::block_on(sender.cancel());
    drop(clients);
}

#[test]
fn arguments_are_checked() {
    let parse = |arguments: &[&str]| parse(arguments.iter().map(Into::into));
    let parsed = parse(&["--sort", "cpu", "--interval", "0.5", "--filter", "x", "/tmp/s"]).unwrap();
    assert_eq!(
        (parsed.order, parsed.interval, parsed.path),
        (Order::Cpu, Duration::from_millis(500), PathBuf::from("/tmp/s"))
    );
    for (wrong, expected) in [
        (&["--sort", "size", "s"][..], "the order must be"),
        (&["--interval", "0", "s"], "from 0.05 to 3600"),
        (&["--interval"], "needs a value"),
        (&["--else", "s"], "is not an option"),
        (&[], "no socket"),
        (&["a", "b"], "more than one"),
        (&["--once", "--sort", "cpu", "s"], "--sort does not apply"),
        (&["--json", "--filter", "x", "s"], "--filter does not apply"),
    ] {
        let error = parse(wrong).unwrap_err();
        assert!(error.contains(expected), "{wrong:?}: {error}");
    }
}

#[test]
fn filter_keeps_titles_and_matching_rows_of_the_tables() {
    let answer = "2 tasks\nID  NAME\n7   reader\n8   writer\n\nsockets\n9   tcp\n";
    assert_eq!(filtered(answer, ""), answer);
    assert_eq!(filtered(answer, "writer"), "2 tasks\nID  NAME\n8   writer\n\nsockets\n");
}

#[test]
fn running_task_waits_for_nothing() {
    let served = Served::new("running");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let runner = task::Builder::new().name("runner".into()).spawn(async move { held.recv().is_err() }).unwrap();
    let joiner = task::Builder::new().name("awaiter".into()).spawn(runner).unwrap();
    let named = |snapshot: &Snapshot, name: &str| {
        snapshot.tasks.iter().find(|task| task.name.as_deref() == Some(name)).cloned()
    };
    let snapshot = served.until(|snapshot| {
        named(snapshot, "runner").is_some_and(|task| task.state == "running")
            && named(snapshot, "awaiter").is_some_and(|task| task.waits_for.is_some())
    });
    assert_eq!(waits(&snapshot, &named(&snapshot, "runner").unwrap()), "");
    let text = waits(&snapshot, &named(&snapshot, "awaiter").unwrap());
    assert!(text.ends_with(" (runner), which is running"), "{text}");
    drop(release);
    assert!(task::block_on(joiner));
}

#[test]
fn close_without_an_answer_is_an_error() {
    let path = std::env::temp_dir().join(format!("netpoll-top-{}-closes", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    for (reads, kind) in [(false, ErrorKind::PermissionDenied), (true, ErrorKind::UnexpectedEof)] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (client, _) = listener.accept().unwrap();
                if reads {
                    BufReader::new(&client).read_line(&mut String::new()).unwrap();
                }
            });
            let error = Snapshot::take(&path).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        });
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn error_for_the_socket_of_an_ended_program_names_the_cause() {
    let path = std::env::temp_dir().join(format!("netpoll-top-{}-ended", std::process::id()));
    drop(UnixListener::bind(&path).unwrap());
    let error = Snapshot::take(&path).unwrap_err();
    std::fs::remove_file(path).unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.to_string().ends_with("has ended"), "{error}");
}

#[test]
fn error_for_a_missing_socket_is_shown() {
    let error = Snapshot::take("/nonexistent/socket".as_ref()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let mut view = View::new("/nonexistent/socket".into(), Order::Id, String::new());
    view.refresh_for_tests();
    let lines = view.lines(80, 24);
    assert!(lines[lines.len() - 1].0.starts_with("/nonexistent/socket: "), "{lines:?}");
}

/// Returns the JSON of tasks of which each awaits the next one. The last one awaits the first.
fn circle(tasks: u64) -> String {
    let task = |id: u64| {
        format!(
            r#"{{"id":{id},"kind":"task","state":"waiting","age":1,"last_poll":1,"cpu":0,"longest_poll":0,"polls":1,
                "waits_for_more":false,"waits_for":{{"kind":"task","id":{}}}}}"#,
            id % tasks + 1
        )
    };
    let tasks: Vec<_> = (1..=tasks).map(task).collect();
    format!(r#"{{"taken":1,"tasks":[{}],"sockets":[],"workers":[]}}"#, tasks.join(","))
}

/// Regression: the text of each task named the rest of the chain, so the texts of 10,000 tasks took
/// gigabytes.
#[test]
fn text_of_a_long_chain_is_cut() {
    let snapshot: Snapshot = serde_json::from_str(&circle(10_000)).unwrap();
    let shown = rows(Table::Tasks, &snapshot, None, Order::Id, "");
    assert!(shown[0].cells[6].starts_with("task 2, which waits for task 3, "), "{:?}", shown[0]);
    assert!(shown.iter().all(|row| row.cells[6].ends_with(", and so on") && row.cells[6].len() < 1000));
    let snapshot: Snapshot = serde_json::from_str(&circle(20)).unwrap();
    assert!(waits(&snapshot, &snapshot.tasks[0]).ends_with("task 20, which waits for task 1: a cycle"));
}

/// Regression: sums of such numbers overflowed, which is a panic in a debug build.
#[test]
fn huge_numbers_of_an_answer_are_shown() {
    let json = format!(
        r#"{{"taken":1e308,"tasks":[],"more_tasks":{max},"workers":[],"metrics":{{"tasks_injected":{max}}},
            "sockets":[{{"fd":{fd},"kind":"tcp","state":"open","errors":255,"age":1e308,"readers":{max},
            "writers":{max},"waiting":[],"last_errno":{fd}}}],
            "histograms":{{"poll_seconds":{{"count":{max},"buckets":[[1e308,{max}]]}}}}}}"#,
        max = u64::MAX,
        fd = i32::MAX
    );
    let path = std::env::temp_dir().join(format!("netpoll-top-{}-huge", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let mut view = View::new(path.clone(), Order::Id, String::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut client, _) = listener.accept().unwrap();
            BufReader::new(&client).read_line(&mut String::new()).unwrap();
            client.write_all(json.as_bytes()).unwrap();
        });
        view.refresh_for_tests();
    });
    std::fs::remove_file(path).unwrap();
    for table in ['t', 's', 'w', 'h'].map(KeyCode::Char) {
        view.press(table);
        for key in [KeyCode::Esc, KeyCode::Enter] {
            view.press(key);
            for (width, height) in [(80, 24), (0, 0), (0, 1), (1, 0), (1, 2)] {
                let lines = view.lines(width, height);
                assert!(lines.len() <= height.max(1), "{lines:?}");
                assert!(lines.iter().all(|(line, _)| line.chars().count() <= width), "{lines:?}");
            }
        }
    }
    let lines = view.lines(80, 24);
    assert!(lines[0].0.starts_with("0 tasks of 18446744073709551615, 1 sockets"), "{lines:?}");
}

/// Regression: the request waited forever, and the live view did not read its keys meanwhile.
#[test]
fn slow_and_endless_answers_are_abandoned() {
    let limits = Limits { patience: Duration::from_millis(200), total: Duration::from_millis(500), bytes: 100_000 };
    let path = std::env::temp_dir().join(format!("netpoll-top-{}-slow", std::process::id()));
    // The queue of a listener with the backlog 0 has room for one connection.
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
    let asks = |format, limits| {
        let begin = Instant::now();
        let error = ask(&path, format, limits).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(30), "{error}");
        error.kind()
    };
    let first = UnixStream::connect(&path).unwrap();
    assert_eq!(asks("full queue", limits), ErrorKind::TimedOut);
    drop((first, listener.accept().unwrap()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (pause, part) in [(Duration::from_secs(30), 1), (Duration::from_millis(50), 1), (Duration::ZERO, 4096)]
            {
                let (mut client, _) = listener.accept().unwrap();
                client.set_read_timeout(Some(pause).filter(|pause| !pause.is_zero())).unwrap();
                client.read_exact(&mut [0; 5]).unwrap();
                let begin = Instant::now();
                // The pause ends early when the client closes the connection.
                while begin.elapsed() < Duration::from_secs(30) {
                    if !pause.is_zero() && client.read(&mut [0]).is_ok_and(|count| count == 0) {
                        break;
                    }
                    if client.write_all(&vec![b' '; part]).is_err() {
                        break;
                    }
                }
            }
        });
        assert_eq!(asks("text", limits), ErrorKind::TimedOut, "no answer");
        assert_eq!(asks("text", limits), ErrorKind::TimedOut, "one byte at a time");
        let long = Duration::from_secs(20);
        let limits = Limits { patience: long, total: long, ..limits };
        assert_eq!(asks("text", limits), ErrorKind::InvalidData, "an endless answer");
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn control_characters_of_an_answer_are_not_printed() {
    assert_eq!(printable("2 tasks\n7  a\u{1b}[2J\u{9b}2J\r\té\n"), "2 tasks\n7  a?[2J?2J??é\n");
}
