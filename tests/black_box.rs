//! `rt::black_box`: the last events of the workers, as values and as trace files.

mod common;

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Folder, child, child_with, pair, ping};
use netpoll::net::{UdpSocket, raw_os_error};
use netpoll::rt::{self, WorkerEventKind};
use netpoll::task;

#[test]
fn turns_calls_and_sleeps_are_recorded() {
    child("turns_calls_and_sleeps_are_recorded", || {
        // The policy is `Off`, because a spare worker would take some of the turns.
        rt::Builder::new().workers(1).blocked_tasks(rt::BlockedPolicy::Off).start().unwrap();
        let (id, fd) = task::block_on(async {
            let (client, server) = pair().await;
            let fd = server.as_raw_fd();
            let serve = async move { common::echo(&server).await.unwrap() };
            let server = task::Builder::new().name("server".to_owned()).spawn(serve).unwrap();
            for _ in 0..50 {
                ping(&client, b"ping").await.unwrap();
                // The worker sleeps during this wait.
                task::sleep(Duration::from_millis(1)).await;
            }
            let id = server.task().id();
            let black_box = rt::black_box();
            assert_eq!(black_box.label(id), Some("server"));
            drop(client);
            server.await;
            (id, fd)
        });
        common::eventually("the task has ended", || rt::black_box().label(id).is_none());
        let black_box = rt::black_box();
        let of_worker = || black_box.events.iter().filter(|event| event.worker == Some(0));
        let served = of_worker().filter(|event| match &event.kind {
            WorkerEventKind::Turn { task, calls } => *task == id && *calls == [(fd, false), (fd, true)],
            _ => false,
        });
        let served = served.count();
        // On a busy machine, some turns end between the read and the write.
        assert!((10..=50).contains(&served), "{served} turns with a read and a write:\n{black_box}");
        for expected in ["sleeps", "rises with", "begins"] {
            assert!(black_box.to_string().contains(expected), "no event `{expected}`:\n{black_box}");
        }
        assert!(black_box.events.is_sorted_by(|one, other| one.ago >= other.ago));
        // Each event lasts until the next one.
        let times: Vec<_> = of_worker().map(|event| (event.ago, event.lasted)).collect();
        for two in times.windows(2) {
            assert_eq!(two[0].0 - two[0].1, two[1].0);
        }
    });
}

/// Returns the system calls in each turn of a task: each call's descriptor, and whether the call
/// writes.
fn calls_by_turn(black_box: &rt::BlackBox, of: task::TaskId) -> Vec<Vec<(i32, bool)>> {
    let turns = black_box.events.iter().filter_map(|event| match &event.kind {
        WorkerEventKind::Turn { task, calls } if *task == of => Some(calls.clone()),
        _ => None,
    });
    turns.collect()
}

/// Returns the system calls in the last turn of a task.
fn last_calls(black_box: &rt::BlackBox, of: task::TaskId) -> Vec<(i32, bool)> {
    calls_by_turn(black_box, of).pop().unwrap_or_default()
}

/// Opens `count` sockets on which a send does not wait. Returns them and the numbers of their
/// descriptors.
async fn sockets(count: usize) -> (Vec<UdpSocket>, Vec<i32>) {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(socket.local_addr().unwrap()).await.unwrap();
        sockets.push(socket);
    }
    let numbers = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    (sockets, numbers)
}

#[test]
fn all_calls_of_a_long_turn_are_recorded_in_order() {
    child("all_calls_of_a_long_turn_are_recorded_in_order", || {
        rt::Builder::new().workers(1).start().unwrap();
        for count in 1..=9 {
            let (sockets, numbers) = task::block_on(sockets(count));
            let task = task::spawn(async move {
                task::yield_now().await;
                for socket in &sockets {
                    socket.send(b"1").await.unwrap();
                }
                task::yield_now().await;
                // The sockets are dropped in a separate turn.
                drop(sockets);
            });
            let id = task.task().id();
            task::block_on(task);
            let black_box = rt::black_box();
            let mut turns = calls_by_turn(&black_box, id);
            // The first and the last turn make no calls.
            let expected: Vec<_> = numbers.iter().map(|&number| (number, true)).collect();
            assert_eq!((turns.remove(0), turns.pop()), (Vec::new(), Some(Vec::new())), "{black_box}");
            // On a slow machine, a turn may reach its time limit before all datagrams are sent.
            assert!(turns.iter().all(|calls| !calls.is_empty()) && turns.concat() == expected, "{black_box}");
        }
    });
}

#[test]
fn turn_in_progress_is_shown_with_its_calls() {
    child("turn_in_progress_is_shown_with_its_calls", || {
        rt::Builder::new().workers(1).start().unwrap();
        for count in 1..=5 {
            let (sockets, numbers) = task::block_on(sockets(count));
            let (sent, has_sent) = std::sync::mpsc::channel();
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let task = task::spawn(async move {
                for socket in &sockets {
                    socket.send(b"1").await.unwrap();
                }
                sent.send(()).unwrap();
                let _ = ends.recv();
            });
            let id = task.task().id();
            has_sent.recv().unwrap();
            let expected: Vec<_> = numbers.iter().map(|&number| (number, true)).collect();
            let black_box = rt::black_box();
            // On a slow machine, a turn may reach its time limit before all datagrams are sent.
            let turns = calls_by_turn(&black_box, id);
            assert!(turns.concat() == expected && turns.last().is_some_and(|calls| !calls.is_empty()), "{black_box}");
            drop(end);
            task::block_on(task);
        }
    });
}

/// A turn that waits in `block_on` gives its worker's queue away. The record keeps the calls that
/// the turn made before, and does not contain those that it makes afterwards.
#[test]
fn turn_that_leaves_its_worker_keeps_its_calls() {
    child("turn_that_leaves_its_worker_keeps_its_calls", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (sockets, numbers) = task::block_on(sockets(2));
        let task = task::spawn(async move {
            sockets[0].send(b"1").await.unwrap();
            task::block_on(task::sleep(Duration::from_millis(1)));
            sockets[1].send(b"1").await.unwrap();
        });
        let id = task.task().id();
        task::block_on(task);
        let black_box = rt::black_box();
        assert_eq!(last_calls(&black_box, id), [(numbers[0], true)], "{black_box}");
        assert!(black_box.events.iter().any(|event| event.kind == WorkerEventKind::Leaves), "{black_box}");
    });
}

#[test]
fn trace_has_a_thread_per_worker_and_a_span_per_turn() {
    child("trace_has_a_thread_per_worker_and_a_span_per_turn", || {
        rt::Builder::new().workers(1).start().unwrap();
        let named =
            task::Builder::new().name("a \"quoted\" name".to_owned()).spawn(std::future::pending::<()>()).unwrap();
        let tasks: Vec<_> = (0..10).map(|_| task::spawn(async {})).collect();
        for task in tasks {
            task::block_on(task);
        }
        let json = rt::black_box().to_trace_json();
        assert!(json.starts_with("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[") && json.ends_with("]}\n"));
        assert!(json.contains("\"name\":\"thread_name\",\"args\":{\"name\":\"worker 0\"}"), "{json}");
        assert!(json.contains("a \\\"quoted\\\" name\""), "{json}");
        assert!(json.matches("\"ph\":\"X\"").count() > 10, "{json}");
        let (opened, closed) = (json.matches('{').count(), json.matches('}').count());
        assert_eq!(opened, closed, "{json}");
        drop(named);
    });
}

/// Runs a task named `culprit` that blocks its thread until the file exists.
fn block_until_file_exists(path: PathBuf) {
    let blocks = async move {
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    task::block_on(task::Builder::new().name("culprit".to_owned()).spawn(blocks).unwrap());
}

/// Asserts that the trace file names the task `culprit`, and that its folder has no other file. (A
/// trace is first written to a *part file*, which is then renamed.)
fn assert_trace_names_culprit(path: &Path) {
    let json = std::fs::read_to_string(path).unwrap();
    assert!(json.contains("culprit blocks its worker\""), "{json}");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no part file is left");
}

#[test]
fn file_is_written_when_a_task_blocks() {
    child("file_is_written_when_a_task_blocks", || {
        let folder = Folder::new();
        let path = folder.join("trace.json");
        rt::Builder::new().black_box_file(&path).start().unwrap();
        block_until_file_exists(path.clone());
        assert_trace_names_culprit(&path);
    });
}

#[test]
fn environment_names_the_file() {
    let folder = Folder::new();
    let path = folder.join("trace.json");
    child_with("environment_names_the_file", &[("NETPOLL_BLACK_BOX", path.to_str().unwrap())], || {
        let path = PathBuf::from(std::env::var_os("NETPOLL_BLACK_BOX").unwrap());
        block_until_file_exists(path.clone());
        assert_trace_names_culprit(&path);
    });
}

/// Regression: a name with a line break looked like another event.
#[test]
fn control_characters_in_names_are_not_printed() {
    child("control_characters_in_names_are_not_printed", || {
        rt::Builder::new().workers(1).start().unwrap();
        let named = task::Builder::new().name("a\x1b[2J\nb".to_owned()).spawn(async {}).unwrap();
        common::eventually("the task has ended", || named.is_finished());
        let black_box = rt::black_box();
        assert_eq!(black_box.label(named.task().id()), Some("a\x1b[2J\nb"));
        let text = black_box.to_string();
        assert_eq!(text.lines().count(), black_box.events.len(), "{text:?}");
        assert!(text.contains(" a?[2J?b ("), "{text:?}");
    });
}

/// `BlackBox::events` is public, so a program may reorder and remove events before it makes a
/// trace.
#[test]
fn events_in_any_order_become_a_trace() {
    child("events_in_any_order_become_a_trace", || {
        for _ in 0..10 {
            task::block_on(task::spawn(async {}));
        }
        let mut black_box = rt::black_box();
        black_box.events.sort_by_key(|event| event.ago);
        assert!(black_box.events.len() > 10);
        assert!(black_box.to_trace_json().ends_with("]}\n"));
        black_box.events.clear();
        assert_eq!(black_box.to_trace_json(), "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[]}\n");
    });
}

#[test]
fn threads_may_write_the_same_file() {
    let folder = Folder::new();
    let path = folder.join("trace.json");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    rt::black_box().write_to(&path).unwrap();
                    assert!(std::fs::read_to_string(&path).unwrap().ends_with("]}\n"));
                }
            });
        }
    });
}

/// A process that was killed while it wrote leaves its part file. A later process may have the same
/// process id.
#[test]
fn part_files_of_an_earlier_process_are_skipped() {
    let folder = Folder::new();
    let path = folder.join("trace.json");
    for number in 0..200 {
        std::fs::write(folder.join(&format!("trace.json.{}-{number}.part", std::process::id())), "").unwrap();
    }
    rt::black_box().write_to(&path).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("]}\n"));
}

#[test]
fn file_that_cannot_be_written_is_reported() {
    let error = rt::black_box().write_to("/nonexistent/folder/trace.json").unwrap_err();
    let wanted = "cannot write the black box to /nonexistent/folder/trace.json: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), wanted);
    assert_eq!((error.kind(), raw_os_error(&error)), (ErrorKind::NotFound, Some(libc::ENOENT)));
}
