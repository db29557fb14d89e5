//! The rows of tasks, sockets, workers and histograms, and the details of one row.

use crate::snapshot::{Snapshot, Socket, Task, Tcp, WaitsFor, WokenBy};

/// A table that the live view can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Tasks,
    Sockets,
    Workers,
    /// The histograms.
    Times,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Id,
    Cpu,
    Polls,
    Since,
}

impl Order {
    pub(crate) fn next(self) -> Order {
        match self {
            Order::Id => Order::Cpu,
            Order::Cpu => Order::Polls,
            Order::Polls => Order::Since,
            Order::Since => Order::Id,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Order::Id => "id",
            Order::Cpu => "CPU",
            Order::Polls => "polls",
            Order::Since => "since",
        }
    }
}

/// The subject of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Task(u64),
    Socket(i32),
    Worker(u64),
    /// The queues that all workers share.
    SharedQueue,
    /// A range of the histograms, by its index.
    Range(usize),
}

/// A row: its subject and its cells.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: Key,
    pub(crate) cells: Vec<String>,
}

/// Returns the name and the width of each column of `table`. The last column has the width 0 and
/// takes the rest of the line.
pub(crate) fn titles(table: Table) -> &'static [(&'static str, usize)] {
    match table {
        Table::Tasks => {
            &[("TASK", 7), ("STATE", 8), ("SINCE", 7), ("CPU%", 5), ("POLLS/S", 8), ("NAME", 14), ("WAITS FOR", 0)]
        }
        Table::Sockets => {
            &[("FD", 5), ("KIND", 6), ("STATE", 11), ("IN/S", 8), ("OUT/S", 8), ("PEER OR LOCAL", 21), ("WAITING", 0)]
        }
        Table::Workers => &[("WORKER", 7), ("QUEUE", 6), ("TIMERS", 7), ("POLLS/S", 9), ("STEALS", 8), ("RUNS", 0)],
        Table::Times => &[("UP TO", 8), ("DURATION OF POLLS", 32), ("DELAY OF WOKEN TASKS", 0)],
    }
}

/// Returns the rows of `table` that contain `filter` in a cell, in `order`. Rates are per second
/// since the snapshot `before`. A rate is 0 if there is no such snapshot or if the subject of the
/// row is not in it.
pub(crate) fn rows(table: Table, now: &Snapshot, before: Option<&Snapshot>, order: Order, filter: &str) -> Vec<Row> {
    let seconds = before.map_or(0.0, |before| now.taken - before.taken);
    let rate = |new: f64, old: Option<f64>| match old {
        Some(old) if seconds > 0.0 => (new - old).max(0.0) / seconds,
        _ => 0.0,
    };
    let mut rows: Vec<(f64, Row)> = match table {
        Table::Tasks => now
            .tasks
            .iter()
            .map(|task| {
                let old = before.and_then(|before| before.task(task.id));
                let cpu = rate(task.cpu, old.map(|old| old.cpu)) * 100.0;
                let polls = rate(task.polls as f64, old.map(|old| old.polls as f64));
                let weight = match order {
                    Order::Id => -(task.id as f64),
                    Order::Cpu => cpu,
                    Order::Polls => polls,
                    Order::Since => task.last_poll,
                };
                let cells = vec![
                    task.id.to_string(),
                    task.state.clone(),
                    time(task.last_poll),
                    format!("{cpu:.0}"),
                    format!("{polls:.0}"),
                    task.name.clone().or_else(|| task.spawned_at.as_deref().map(file_name)).unwrap_or_default(),
                    waits(now, task),
                ];
                (weight, Row { key: Key::Task(task.id), cells })
            })
            .collect(),
        Table::Sockets => now
            .sockets
            .iter()
            .map(|socket| {
                // In the earlier snapshot, the descriptor number may have belonged to another
                // socket.
                let is_same =
                    |old: &&Socket| old.local == socket.local && old.peer == socket.peer && old.age <= socket.age;
                let old = before.and_then(|before| before.socket(socket.fd)).filter(is_same);
                let bytes = |of: fn(&Socket) -> Option<u64>| {
                    of(socket).map_or(0.0, |now| rate(now as f64, old.and_then(of).map(|then| then as f64)))
                };
                let (received, sent) = (bytes(|socket| socket.bytes_received), bytes(|socket| socket.bytes_sent));
                let weight = match order {
                    Order::Id => -f64::from(socket.fd),
                    Order::Cpu | Order::Polls => received + sent,
                    Order::Since => socket.age,
                };
                let cells = vec![
                    socket.fd.to_string(),
                    socket.kind.clone(),
                    socket_state(socket),
                    size(received),
                    size(sent),
                    far_end(socket),
                    [hint(socket), waiters(now, socket)]
                        .into_iter()
                        .filter(|part| !part.is_empty())
                        .collect::<Vec<_>>()
                        .join("; "),
                ];
                (weight, Row { key: Key::Socket(socket.fd), cells })
            })
            .collect(),
        Table::Workers => now
            .workers
            .iter()
            .map(|worker| {
                let old = before.and_then(|before| before.workers.iter().find(|old| old.id == worker.id));
                let polls = rate(worker.polls as f64, old.map(|old| old.polls as f64));
                let runs = match worker.running {
                    Some(id) => {
                        let name = now.task(id).map(label).unwrap_or_else(|| id.to_string());
                        let since = worker.running_for.map(|since| format!(" for {}", time(since))).unwrap_or_default();
                        format!("task {name}{since}{}", if worker.stuck { ": it blocks its thread" } else { "" })
                    }
                    None if worker.owned => "nothing".to_owned(),
                    None => "no thread has it".to_owned(),
                };
                let weight = if order == Order::Id { -(worker.id as f64) } else { polls };
                let cells = vec![
                    worker.id.to_string(),
                    worker.queued.to_string(),
                    worker.timers.to_string(),
                    format!("{polls:.0}"),
                    worker.steals.to_string(),
                    runs,
                ];
                (weight, Row { key: Key::Worker(worker.id), cells })
            })
            .chain([(f64::NEG_INFINITY, shared_queue(now))])
            .collect(),
        Table::Times => {
            let [polls, delays] = ["poll_seconds", "wake_delay_seconds"]
                .map(|name| now.histograms.get(name).map(|histogram| histogram.ranges()).unwrap_or_default());
            let bars = |ranges: &[(Option<f64>, u64)], at: usize| {
                let most = ranges.iter().map(|range| range.1).max().unwrap_or(0).max(1);
                let count = ranges.get(at).map_or(0, |range| range.1);
                format!("{:20} {count}", "#".repeat((u128::from(count) * 20).div_ceil(most.into()) as usize))
            };
            let row = |at: usize, bound: Option<f64>| {
                let bound = bound.map_or("more".to_owned(), time);
                (-(at as f64), Row { key: Key::Range(at), cells: vec![bound, bars(&polls, at), bars(&delays, at)] })
            };
            polls.iter().enumerate().map(|(at, range)| row(at, range.0)).collect()
        }
    };
    rows.retain(|(_, row)| filter.is_empty() || row.cells.iter().any(|cell| cell.contains(filter)));
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

fn shared_queue(now: &Snapshot) -> Row {
    let queued = now.metrics.tasks_injected.to_string();
    let cells = ["shared", &queued, "", "", "", "tasks that wait for any worker"].map(str::to_owned);
    Row { key: Key::SharedQueue, cells: cells.into() }
}

/// Describes an operation with the words that precede the socket, such as "read of". `listens` is
/// true if the socket is a listener, which has no peer that could hang up.
fn verb(operation: &str, listens: bool) -> &str {
    match operation {
        "readable" => "read of",
        "writable" => "write to",
        "read_lock" => "read lock of",
        "write_lock" => "write lock of",
        "hang_up" if listens => "permit or descriptor of",
        "hang_up" => "hang-up of",
        other => other,
    }
}

fn is_listening(socket: &Socket) -> bool {
    socket.state == "listening"
}

/// Describes an operation without the final preposition of [`verb`].
fn short_verb(operation: &str, listens: bool) -> &str {
    verb(operation, listens).trim_end_matches(" of").trim_end_matches(" to")
}

fn file_name(place: &str) -> String {
    place.rsplit('/').next().unwrap_or(place).to_owned()
}

fn label(task: &Task) -> String {
    task.name.as_ref().map_or_else(|| task.id.to_string(), |name| format!("{} ({name})", task.id))
}

/// The maximum number of tasks of a chain in one text. Each task of a long chain has a text, so
/// their total size would grow with the square of the length.
const CHAIN_MAX: usize = 32;

/// Describes the socket, task or timer that a task waits for. If the task waits for another task,
/// also describes the wait of that task, and so on. Returns an empty string if the task runs or is
/// ready, unless the snapshot still has a wait of the task, such as a timer that is due.
pub(crate) fn waits(now: &Snapshot, task: &Task) -> String {
    let mut text = String::new();
    let mut seen = vec![task.id];
    let mut current = task;
    loop {
        match &current.waits_for {
            None if current.state == "waiting" => text.push_str("something foreign"),
            None => {}
            Some(WaitsFor::Time { left }) => text.push_str(&format!("a timer, in {}", time(*left))),
            Some(WaitsFor::Socket { fd, operation }) => {
                let end = |socket: &Socket| socket.peer.clone().or_else(|| socket.local.clone());
                let listens = now.socket(*fd).is_some_and(is_listening);
                text.push_str(&format!("{} {}", verb(operation, listens), socket_name(now, *fd, end)));
            }
            Some(WaitsFor::Task { id }) => {
                text.push_str(&format!("task {}", now.task(*id).map_or_else(|| id.to_string(), label)));
                if seen.contains(id) {
                    text.push_str(": a cycle");
                } else if let Some(next) = now.task(*id) {
                    if next.waits_for.is_none() && next.state != "waiting" {
                        text.push_str(&format!(", which is {}", next.state));
                        break;
                    }
                    if seen.len() == CHAIN_MAX {
                        text.push_str(", and so on");
                        break;
                    }
                    seen.push(*id);
                    current = next;
                    text.push_str(", which waits for ");
                    continue;
                }
            }
        }
        break;
    }
    if task.waits_for_more {
        text.push_str(", and more");
    }
    text
}

/// Returns a text that names a socket by its descriptor and, if the socket is in the snapshot, by
/// the result of `end`. A snapshot has the descriptor -1 for a closed socket.
fn socket_name(now: &Snapshot, fd: i32, end: impl Fn(&Socket) -> Option<String>) -> String {
    match now.socket(fd).and_then(end) {
        Some(end) => format!("fd {fd} ({end})"),
        None if fd < 0 => "a socket that is closed".to_owned(),
        None => format!("fd {fd}"),
    }
}

/// Describes the cause of the wake-up before a task's last poll.
fn woken_by(now: &Snapshot, task: &Task) -> String {
    match &task.woken_by {
        None => "something unknown".to_owned(),
        Some(WokenBy::Socket { fd }) => socket_name(now, *fd, |socket| Some(far_end(socket))),
        Some(WokenBy::Timer) => "a timer".to_owned(),
        Some(WokenBy::Task { id }) => {
            format!("task {}", now.task(*id).map_or_else(|| format!("{id}, which is not in the snapshot"), label))
        }
        Some(WokenBy::Thread) => "a thread that runs no task".to_owned(),
        Some(WokenBy::Itself) => "itself, or while it ran".to_owned(),
    }
}

/// Returns the host name of the peer, or else the peer's address, or else the local address.
fn far_end(socket: &Socket) -> String {
    let ends = [&socket.host, &socket.peer, &socket.local];
    ends.into_iter().flatten().next().cloned().unwrap_or_default()
}

/// Lists the operations that wait for a socket, each with its task if the task is known.
fn waiters(now: &Snapshot, socket: &Socket) -> String {
    let known = socket.waiting.iter().map(|waiting| {
        let task = now.task(waiting.task).map_or_else(|| waiting.task.to_string(), label);
        format!("{} task {task}", short_verb(&waiting.operation, is_listening(socket)))
    });
    let mut parts: Vec<String> = known.collect();
    let all = socket.readers.saturating_add(socket.writers);
    if all > parts.len() as u64 {
        parts.push(format!("{} unknown", all - parts.len() as u64));
    }
    parts.join(", ")
}

/// Returns figures of the kernel that may explain a wait for the socket: the length of the accept
/// queue and its maximum, or the number of unsent bytes. The text is short, because its column has
/// only 15 characters in a terminal of 80 columns.
fn hint(socket: &Socket) -> String {
    match &socket.tcp {
        Some(tcp) if tcp.state == "LISTEN" && tcp.accept_queue > 0 => {
            format!("queue {} of {}", tcp.accept_queue, tcp.accept_queue_max)
        }
        Some(tcp) if tcp.state != "LISTEN" && tcp.unsent > 0 => {
            format!("{} unsent", size(tcp.unsent as f64))
        }
        _ => String::new(),
    }
}

fn socket_state(socket: &Socket) -> String {
    socket.tcp.as_ref().map_or_else(|| socket.state.replace('_', " "), |tcp| tcp.state.to_lowercase().replace('_', " "))
}

/// Returns the details of one row, one detail per line.
pub(crate) fn details(now: &Snapshot, key: Key) -> Vec<String> {
    let gone = || vec!["It is not in the snapshot.".to_owned()];
    match key {
        Key::Task(id) => now.task(id).map_or_else(gone, |task| task_details(now, task)),
        Key::Socket(fd) => now.socket(fd).map_or_else(gone, |socket| socket_details(now, socket)),
        Key::Range(_) => {
            let count = |name| now.histograms.get(name).map_or(0, |histogram| histogram.count);
            vec![
                format!("sampled polls          {}", count("poll_seconds")),
                format!("sampled delays         {}", count("wake_delay_seconds")),
                format!("sampled accept queues  {}", count("accept_queue")),
            ]
        }
        Key::Worker(_) | Key::SharedQueue => {
            let rows = rows(Table::Workers, now, None, Order::Id, "");
            let row = rows.iter().find(|row| row.key == key);
            row.map_or_else(gone, |row| {
                titles(Table::Workers)
                    .iter()
                    .zip(&row.cells)
                    .map(|((title, _), cell)| format!("{title:10} {cell}"))
                    .collect()
            })
        }
    }
}

fn task_details(now: &Snapshot, task: &Task) -> Vec<String> {
    let mut lines = vec![
        format!("task       {}", label(task)),
        format!(
            "kind       {}{}",
            task.kind,
            task.lane.as_ref().map_or(String::new(), |lane| format!(", lane {lane}"))
        ),
        format!("state      {}", task.state),
        format!("waits for  {}", Some(waits(now, task)).filter(|text| !text.is_empty()).as_deref().unwrap_or("-")),
        format!("woken by   {}", woken_by(now, task)),
        format!("last poll  {} ago", time(task.last_poll)),
        format!("age        {}", time(task.age)),
        format!("polls      {}", task.polls),
        format!("CPU        {}", time(task.cpu)),
        if task.longest_poll > 0.0 {
            format!("longest    {} in one poll, or more", time(task.longest_poll))
        } else {
            "longest    unknown, or under 20 ms in one poll".to_owned()
        },
        format!("spawned at {}", task.spawned_at.as_deref().unwrap_or("unknown")),
    ];
    let joiners = now.tasks.iter().filter(|other| other.waits_for == Some(WaitsFor::Task { id: task.id }));
    let joiners: Vec<String> = joiners.map(label).collect();
    if !joiners.is_empty() {
        lines.push(format!("awaited by {}", joiners.join(", ")));
    }
    lines
}

fn socket_details(now: &Snapshot, socket: &Socket) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let deadline = |left: Option<f64>| match left {
        None => "none".to_owned(),
        Some(0.0) => "passed".to_owned(),
        Some(left) => format!("in {}", time(left)),
    };
    let mut lines = vec![
        format!("fd              {} ({})", socket.fd, socket.kind),
        format!("state           {}", socket_state(socket)),
        format!("local           {}", or_dash(&socket.local)),
        format!("peer            {}", or_dash(&socket.peer)),
        format!("host name       {}", or_dash(&socket.host)),
        format!("age             {}", time(socket.age)),
        format!("waiting         {}", waiters(now, socket)),
        format!("read deadline   {}", deadline(socket.read_deadline)),
        format!("write deadline  {}", deadline(socket.write_deadline)),
    ];
    if is_listening(socket) {
        lines.push(format!("accepted        {}", socket.reads.unwrap_or(0)));
    } else {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| format!(", {bytes} bytes")).unwrap_or_default();
        // The counts of some TCP sockets, such as those of multipath TCP, are operations.
        let are_segments =
            |tcp: &Tcp| [socket.reads, socket.writes] == [Some(tcp.segments_received), Some(tcp.segments_sent)];
        let unit = if socket.tcp.as_ref().is_some_and(are_segments) { "segments" } else { "operations" };
        let count = |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |count| format!("{count} {unit}"));
        lines.push(format!("received        {}{}", count(socket.reads), bytes(socket.bytes_received)));
        lines.push(format!("sent            {}{}", count(socket.writes), bytes(socket.bytes_sent)));
    }
    if let Some(last_use) = socket.last_use {
        lines.push(format!("last use        {} ago", time(last_use)));
    }
    let errno = socket.last_errno.map(|errno| format!(", the last {}", std::io::Error::from_raw_os_error(errno)));
    lines.push(format!("errors          {}{}", socket.errors, errno.unwrap_or_default()));
    if let Some(limits) = &socket.limits {
        let most = limits.max_connections.map_or_else(|| "any number of".to_owned(), |most| most.to_string());
        lines.push(format!("connections     {} of {most} permits", limits.connections));
        lines.push(format!("refused         {}", limits.refused));
    }
    if let Some(tcp) = &socket.tcp {
        lines.extend([
            format!("round trip      {}", time(tcp.rtt)),
            format!("window          {} segments", tcp.congestion_window),
            format!("retransmits     {}", tcp.retransmits),
            format!("unsent          {} bytes", tcp.unsent),
            format!("last sent       {} ago", time(tcp.last_sent)),
            format!("last received   {} ago", time(tcp.last_received)),
        ]);
        if tcp.state == "LISTEN" {
            lines.push(format!("accept queue    {} of {}", tcp.accept_queue, tcp.accept_queue_max));
        }
    }
    lines
}

/// Returns the subject that Enter opens from the details of `key`: for a task, the task or socket
/// that it waits for; for a socket, its first waiting task; for a worker, the task that it runs.
/// Returns `None` if there is no such subject.
pub(crate) fn follow(now: &Snapshot, key: Key) -> Option<Key> {
    match key {
        Key::Task(id) => match &now.task(id)?.waits_for {
            Some(WaitsFor::Task { id }) => Some(Key::Task(*id)),
            Some(WaitsFor::Socket { fd, .. }) if *fd >= 0 => Some(Key::Socket(*fd)),
            _ => None,
        },
        Key::Socket(fd) => Some(Key::Task(now.socket(fd)?.waiting.first()?.task)),
        Key::Worker(id) => now.workers.iter().find(|worker| worker.id == id)?.running.map(Key::Task),
        Key::Range(_) | Key::SharedQueue => None,
    }
}

/// Formats seconds in at most seven characters.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 600.0 => format!("{s:.0} s"),
        s if s < 36_000.0 => format!("{:.0} min", s / 60.0),
        s if s < 864_000.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// Formats a number of bytes in at most seven characters.
fn size(bytes: f64) -> String {
    match bytes {
        b if b < 1.0 => "-".to_owned(),
        b if b < 10_000.0 => format!("{b:.0}"),
        b if b < 10_000_000.0 => format!("{:.0} K", b / 1e3),
        b if b < 1e10 => format!("{:.0} M", b / 1e6),
        b => format!("{:.0} G", b / 1e9),
    }
}
