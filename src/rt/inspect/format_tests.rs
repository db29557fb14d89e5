//! Unit tests of the two formats of a snapshot, JSON and text, with every kind, state, wait and
//! cause of a wake-up of a task, and every state of a socket. Snapshots of a real runtime have only
//! some of them at a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::socket_info::{Addresses, Extras, NO_DEADLINE, NO_SHARD, SocketKind, SocketWaits};
use super::task_info::Wait;
use super::*;
use crate::rt::sched::cpu_time::CpuTime;
use crate::rt::sched::lanes::Lane;
use crate::task::TaskId;

const SECOND: u64 = 1_000_000_000;

fn id(number: u64) -> TaskId {
    TaskId::from_number(number)
}

fn socket_id(fd: i32) -> SocketId {
    SocketId { index: fd as u32, generation: 1 }
}

fn task(number: u64, state: TaskState, waits_for: Option<Wait>, woken_by: Option<WokenBy>) -> TaskInfo {
    TaskInfo {
        id: id(number),
        name: None,
        spawned_at: None,
        waits_for,
        woken_by,
        age_nanos: 60 * SECOND,
        last_poll_nanos: 2 * SECOND,
        polls: 3,
        cpu: CpuTime::default(),
        kind: TaskKind::Task,
        lane: Lane::Normal,
        state,
        waits_for_more: false,
    }
}

fn socket(fd: i32, kind: SocketKind, state: SocketState) -> SocketInfo {
    SocketInfo {
        id: socket_id(fd),
        fd,
        state,
        kind,
        poller_shard: NO_SHARD,
        errors: 0,
        addresses: Addresses::new(None, None),
        age_nanos: SECOND,
        readers: 0,
        writers: 0,
        waiting: SocketWaits::default(),
        deadlines_nanos: [NO_DEADLINE; 2],
        tcp: None,
        extras: None,
    }
}

fn snapshot(tasks: Vec<TaskInfo>, sockets: Vec<SocketInfo>) -> Snapshot {
    Snapshot {
        taken: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
        tasks,
        more_tasks: 0,
        sockets,
        workers: Vec::new(),
        shards: Vec::new(),
        metrics: crate::rt::Metrics::default(),
        places: Vec::new(),
    }
}

fn parsed(snapshot: &Snapshot) -> Value {
    serde_json::from_str(&snapshot.to_json()).expect("valid JSON")
}

/// Returns the rows that have `first` as their first cell, with `|` between the cells.
fn rows(snapshot: &Snapshot, first: &str) -> Vec<String> {
    let text = snapshot.to_string();
    let cells =
        |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|");
    text.lines().map(cells).filter(|line| line.split('|').next() == Some(first)).collect()
}

#[test]
fn every_wait_and_cause_is_named() {
    let wait = |operation| Some(Wait::Socket { socket: socket_id(7), operation });
    let cases = [
        (wait(SocketWait::Readable), "socket", "readable", "read of fd 7 (tcp)"),
        (wait(SocketWait::Writable), "socket", "writable", "write to fd 7 (tcp)"),
        (wait(SocketWait::ReadLock), "socket", "read_lock", "read lock of fd 7 (tcp)"),
        (wait(SocketWait::WriteLock), "socket", "write_lock", "write lock of fd 7 (tcp)"),
        (wait(SocketWait::HangUp), "socket", "hang_up", "hang-up of fd 7 (tcp)"),
        (Some(Wait::Time(3 * SECOND)), "time", "", "a timer, in 3.0 s"),
        (Some(Wait::Task(id(900))), "task", "", "task 900"),
        (
            Some(Wait::Socket { socket: socket_id(8), operation: SocketWait::Readable }),
            "socket",
            "readable",
            "read of a socket that is closed",
        ),
        (None, "", "", "something foreign"),
    ];
    for (waits_for, kind, operation, text) in cases {
        let task = task(5, TaskState::Waiting, waits_for, None);
        let snapshot = snapshot(vec![task], vec![socket(7, SocketKind::Tcp, SocketState::Open)]);
        let row = &parsed(&snapshot)["tasks"][0]["waits_for"];
        assert_eq!(row["kind"].as_str().unwrap_or(""), kind, "{row}");
        assert_eq!(row["operation"].as_str().unwrap_or(""), operation, "{row}");
        assert_eq!(rows(&snapshot, "5"), [format!("5|-|waiting|2.0 s|60 s|3|0 us|-|-|{text}|-")]);
    }
    let causes = [
        (WokenBy::Socket(socket_id(7)), json!({"kind": "socket", "fd": 7}), "fd 7"),
        (WokenBy::Socket(socket_id(8)), json!({"kind": "socket", "fd": -1}), "-"),
        (WokenBy::Timer, json!({"kind": "timer"}), "a timer"),
        (WokenBy::Task(id(6)), json!({"kind": "task", "id": 6}), "task 6"),
        (WokenBy::Thread, json!({"kind": "thread"}), "a thread"),
        (WokenBy::Itself, json!({"kind": "itself"}), "itself"),
    ];
    for (cause, json, text) in causes {
        let task = task(5, TaskState::Ready, None, Some(cause));
        let snapshot = snapshot(vec![task], vec![socket(7, SocketKind::Tcp, SocketState::Open)]);
        assert_eq!(parsed(&snapshot)["tasks"][0]["woken_by"], json);
        assert_eq!(rows(&snapshot, "5"), [format!("5|-|ready|2.0 s|60 s|3|0 us|-|{text}|-|-")]);
    }
}

#[test]
fn every_kind_of_task_is_named() {
    let kinds = [
        (TaskKind::Task, "task", ""),
        (TaskKind::Local, "local", " (local)"),
        (TaskKind::BlockOn, "block_on", " (block_on)"),
        (TaskKind::Blocking, "blocking", " (blocking)"),
    ];
    for (kind, name, text) in kinds {
        let mut row = task(5, TaskState::Running, None, None);
        (row.kind, row.lane, row.waits_for_more) = (kind, Lane::Control, true);
        let snapshot = snapshot(vec![row], Vec::new());
        let json = parsed(&snapshot);
        let json = &json["tasks"][0];
        assert_eq!(
            (&json["kind"], &json["lane"], &json["state"]),
            (&json!(name), &json!("control"), &json!("running"))
        );
        let first = format!("5{text} (control)");
        assert_eq!(rows(&snapshot, &first), [format!("{first}|-|running|2.0 s|60 s|3|0 us|-|-|-, and more|-")]);
    }
}

#[test]
fn every_state_of_a_socket_is_named() {
    let states = [
        (SocketState::Listening, "listening", "listening", "accepted 0"),
        (SocketState::Unconnected, "unconnected", "unconnected", "-"),
        (SocketState::Connecting, "connecting", "connecting", "-"),
        (SocketState::Open, "open", "open", "-"),
        (SocketState::HalfClosed, "half_closed", "half closed", "-"),
        (SocketState::HungUp, "hung_up", "hung up", "-"),
        (SocketState::Closing, "closing", "closing", "-"),
        (SocketState::Unknown, "unknown", "-", "-"),
    ];
    for (state, json, text, usage) in states {
        let snapshot = snapshot(Vec::new(), vec![socket(9, SocketKind::Unixpacket, state)]);
        let socket = &parsed(&snapshot)["sockets"][0];
        assert_eq!((&socket["state"], &socket["kind"]), (&json!(json), &json!("unixpacket")));
        assert_eq!(rows(&snapshot, "9"), [format!("9|unixpacket|{text}|1.0 s|-|-|-|-|-|{usage}")]);
    }
}

#[test]
fn all_details_of_a_listener_and_a_connection_are_shown() {
    let address = |text: &str| Some(SocketAddress::Ip(text.parse().expect("an address")));
    let mut listener = socket(3, SocketKind::Tcp, SocketState::Listening);
    listener.addresses = Addresses::new(address("[::]:80"), None);
    listener.readers = 2;
    listener.waiting.push((id(5), SocketWait::HangUp));
    listener.tcp =
        Some(Box::new(TcpDetails { state: "LISTEN", accept_queue: 4, accept_queue_max: 128, ..Default::default() }));
    listener.extras = Some(Box::new(Extras {
        limits: Some(ListenerLimits { connections: 9, max_connections: Some(10), refused: 2 }),
        operations: Some([11, 0]),
        ..Default::default()
    }));
    let mut connection = socket(4, SocketKind::Tcp, SocketState::Open);
    connection.addresses = Addresses::new(address("127.0.0.1:1"), address("127.0.0.1:2"));
    (connection.poller_shard, connection.errors) = (1, 3);
    connection.deadlines_nanos = [5 * SECOND, 0];
    connection.tcp = Some(Box::new(TcpDetails {
        state: "ESTABLISHED",
        rtt: Duration::from_millis(250),
        congestion_window: 10,
        retransmits: 6,
        unsent: 70,
        bytes_sent: 20_000,
        bytes_received: 30_000_000,
        segments_received: 12,
        segments_sent: 13,
        last_sent: Duration::from_secs(8),
        last_received: Duration::from_secs(9),
        accept_queue: 0,
        accept_queue_max: 0,
    }));
    connection.extras = Some(Box::new(Extras {
        host: Some(Arc::from("a\"b")),
        operations: Some([12, 13]),
        bytes: Some([30_000_000, 20_000]),
        last_use: Some(Duration::from_secs(8)),
        gathered: 99,
        last_errno: Some(104),
        limits: None,
    }));
    let snapshot = snapshot(Vec::new(), vec![listener, connection]);
    let json = parsed(&snapshot);
    assert_eq!(json["taken"], json!(1.5));
    assert_eq!(
        json["sockets"][0],
        json!({
            "fd": 3, "kind": "tcp", "state": "listening", "local": "[::]:80", "age": 1.0, "errors": 0,
            "reads": 11, "writes": 0, "limits": {"connections": 9, "refused": 2, "max_connections": 10},
            "readers": 2, "writers": 0, "waiting": [{"task": 5, "operation": "hang_up"}],
            "tcp": {
                "state": "LISTEN", "rtt": 0.0, "last_sent": 0.0, "last_received": 0.0, "congestion_window": 0,
                "retransmits": 0, "unsent": 0, "bytes_sent": 0, "bytes_received": 0, "segments_received": 0,
                "segments_sent": 0, "accept_queue": 4, "accept_queue_max": 128,
            },
        })
    );
    assert_eq!(
        json["sockets"][1],
        json!({
            "fd": 4, "kind": "tcp", "state": "open", "local": "127.0.0.1:1", "peer": "127.0.0.1:2", "host": "a\"b",
            "poller_shard": 1, "age": 1.0, "errors": 3, "reads": 12, "writes": 13, "bytes_received": 30_000_000,
            "bytes_sent": 20_000, "last_use": 8.0, "gathered": 99, "last_errno": 104, "readers": 0, "writers": 0,
            "waiting": [], "read_deadline": 5.0, "write_deadline": 0.0,
            "tcp": {
                "state": "ESTABLISHED", "rtt": 0.25, "last_sent": 8.0, "last_received": 9.0, "congestion_window": 10,
                "retransmits": 6, "unsent": 70, "bytes_sent": 20_000, "bytes_received": 30_000_000,
                "segments_received": 12, "segments_sent": 13, "accept_queue": 0, "accept_queue_max": 0,
            },
        })
    );
    assert_eq!(
        rows(&snapshot, "3"),
        ["3|tcp|LISTEN|1.0 s|[::]:80|-|permit or descriptor task 5, 1 unknown|none|accept queue 4 of 128|\
          accepted 11, 9 of 10 permits, refused 2"]
    );
    assert_eq!(
        rows(&snapshot, "4"),
        ["4|tcp|ESTABLISHED|1.0 s|127.0.0.1:1|127.0.0.1:2 (a\"b)|-|read 5.0 s, write 0 us|\
          unsent 70, last sent 8.0 s ago, retransmits 6|in 12 (30 MB), out 13 (20 KB), used 8.0 s ago, gathered 99 B, \
          errors 3 (errno 104)"]
    );
}
