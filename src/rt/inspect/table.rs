//! Formats a [`Snapshot`] as text: tables of tasks, sockets and workers.

use std::fmt;
use std::time::Duration;

use super::{
    Snapshot, SocketAddress, SocketId, SocketInfo, SocketState, SocketWait, TaskInfo, TaskKind, TaskState, TcpDetails,
    WaitsFor, WokenBy, WorkerInfo,
};
use crate::rt::sched::identity::Printable;
use crate::rt::sched::lanes::Lane;

impl fmt::Display for Snapshot {
    /// Prints the tables. `{:#}` omits the sockets for which no task is known to wait.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tasks, sockets) = (self.tasks.len(), self.sockets.len());
        let more = if self.more_tasks > 0 { format!(" ({} more not shown)", self.more_tasks) } else { String::new() };
        writeln!(f, "{tasks} tasks{more}, {sockets} sockets, {} workers", self.workers.len())?;
        let rows = self.tasks.iter().map(|task| self.task_row(task)).collect();
        write_table(
            f,
            &[
                "TASK",
                "NAME",
                "STATE",
                "SINCE",
                "AGE",
                "POLLS",
                "CPU",
                "LONGEST",
                "WOKEN BY",
                "WAITS FOR",
                "SPAWNED AT",
            ],
            rows,
        )?;
        let sockets = self.sockets.iter().filter(|socket| !f.alternate() || !socket.waiting().is_empty());
        let rows = sockets.map(socket_row).collect();
        write_table(f, &["FD", "KIND", "STATE", "AGE", "LOCAL", "PEER", "WAITING", "DEADLINES", "TCP", "USE"], rows)?;
        let rows = self.workers.iter().map(worker_row).chain([self.shared_row()]).collect();
        write_table(f, &["WORKER", "RUNS", "FOR", "QUEUE", "TIMERS", "POLLS", "STEALS"], rows)
    }
}

impl Snapshot {
    /// Returns the row of the shared queues.
    fn shared_row(&self) -> Vec<String> {
        let mut row = vec!["-".to_owned(); 7];
        (row[0], row[3]) = ("shared".to_owned(), self.metrics.tasks_injected.to_string());
        row
    }

    fn task_row(&self, task: &TaskInfo) -> Vec<String> {
        let kind = match task.kind() {
            TaskKind::Task => "",
            TaskKind::Local => " (local)",
            TaskKind::BlockOn => " (block_on)",
            TaskKind::Blocking => " (blocking)",
        };
        let state = match task.state() {
            TaskState::Running => "running",
            TaskState::Ready => "ready",
            TaskState::Waiting => "waiting",
        };
        let mut waits = self.waits_for(task);
        if task.waits_for_more() {
            waits.push_str(", and more");
        }
        vec![
            format!("{}{kind}{}", task.id(), if task.lane() == Lane::Control { " (control)" } else { "" }),
            task.name().unwrap_or("-").to_owned(),
            state.to_owned(),
            short(task.last_poll()),
            short(task.age()),
            task.polls().to_string(),
            short(task.cpu()),
            if task.longest_poll().is_zero() { "-".to_owned() } else { short(task.longest_poll()) },
            self.woken_by(task),
            waits,
            task.spawned_at().map_or_else(|| "-".to_owned(), |place| format!("{}:{}", place.file(), place.line())),
        ]
    }

    fn woken_by(&self, task: &TaskInfo) -> String {
        match task.woken_by() {
            None => "-".to_owned(),
            Some(WokenBy::Socket(socket)) => {
                self.socket(socket).map_or_else(|| "-".to_owned(), |socket| format!("fd {}", socket.fd()))
            }
            Some(WokenBy::Timer) => "a timer".to_owned(),
            Some(WokenBy::Task(id)) => format!("task {id}"),
            Some(WokenBy::Thread) => "a thread".to_owned(),
            Some(WokenBy::Itself) => "itself".to_owned(),
        }
    }

    /// Describes the wait of a task. If it waits for another task, the description follows the
    /// chain.
    fn waits_for(&self, task: &TaskInfo) -> String {
        match task.waits_for() {
            None if task.state() == TaskState::Waiting => "something foreign".to_owned(),
            None => "-".to_owned(),
            Some(WaitsFor::Time(left)) => format!("a timer, in {}", short(left)),
            Some(WaitsFor::Socket { socket, operation }) => {
                let listens = self.socket(socket).is_some_and(is_listening);
                format!("{} {} {}", noun(operation, listens), preposition(operation), self.socket_name(socket))
            }
            Some(WaitsFor::Task(_)) => {
                let chain = self.chain_up_to(task.id(), CHAIN_MAX);
                let (last, before) = chain.split_last().expect("a chain begins with its task");
                let names: Vec<String> = chain[1..].iter().map(|id| format!("task {id}")).collect();
                let mut text = names.join(", which waits for ");
                if before.contains(last) {
                    text.push_str(": a cycle");
                } else if chain.len() == CHAIN_MAX {
                    text.push_str(", and so on");
                } else if let Some(end) = self.task(*last)
                    && end.waits_for().is_some()
                {
                    text = format!("{text}, which waits for {}", self.waits_for(end));
                }
                text
            }
        }
    }

    fn socket_name(&self, id: SocketId) -> String {
        let Some(socket) = self.socket(id) else { return "a socket that is closed".to_owned() };
        match (socket.peer(), socket.local()) {
            (Some(peer), _) => format!("fd {} (peer {peer})", socket.fd()),
            (None, Some(local)) => format!("fd {} ({} {local})", socket.fd(), socket.kind()),
            _ => format!("fd {} ({})", socket.fd(), socket.kind()),
        }
    }
}

/// The maximum number of tasks of a chain in one row. It bounds the size of the table.
const CHAIN_MAX: usize = 32;

fn is_listening(socket: &SocketInfo) -> bool {
    socket.state() == SocketState::Listening
}

/// Names an operation before its task: `read task 7`. `listens` says whether its socket is a
/// listener, which has no peer that could hang up.
fn noun(operation: SocketWait, listens: bool) -> &'static str {
    match operation {
        SocketWait::Readable => "read",
        SocketWait::Writable => "write",
        SocketWait::ReadLock => "read lock",
        SocketWait::WriteLock => "write lock",
        SocketWait::HangUp if listens => "permit or descriptor",
        SocketWait::HangUp => "hang-up",
    }
}

/// Returns the word between an operation and its socket: `read of fd 7`.
fn preposition(operation: SocketWait) -> &'static str {
    if operation == SocketWait::Writable { "to" } else { "of" }
}

fn socket_row(socket: &SocketInfo) -> Vec<String> {
    let state = match socket.state() {
        SocketState::Listening => "listening",
        SocketState::Unconnected => "unconnected",
        SocketState::Connecting => "connecting",
        SocketState::Open => "open",
        SocketState::HalfClosed => "half closed",
        SocketState::HungUp => "hung up",
        SocketState::Closing => "closing",
        SocketState::Unknown => "-",
    };
    let dash = |address: Option<SocketAddress>| address.map_or_else(|| "-".to_owned(), |a| a.to_string());
    let mut waiting: Vec<String> =
        socket.waiting().iter().map(|(id, wait)| format!("{} task {id}", noun(*wait, is_listening(socket)))).collect();
    let known = socket.waiting().len();
    let all = socket.readers() + socket.writers();
    if all > known {
        waiting.push(format!("{} unknown", all - known));
    }
    let deadline = |name, left: Option<Duration>| left.map(|left| format!("{name} {}", short(left)));
    let deadlines = [deadline("read", socket.read_deadline()), deadline("write", socket.write_deadline())];
    let deadlines: Vec<String> = deadlines.into_iter().flatten().collect();
    let mut row = vec![
        socket.fd().to_string(),
        socket.kind().to_owned(),
        state.to_owned(),
        short(socket.age()),
        dash(socket.local()),
        match socket.host() {
            Some(host) => format!("{} ({host})", dash(socket.peer())),
            None => dash(socket.peer()),
        },
        list(&waiting),
        // An operation waits, and no deadline limits the wait.
        if all > 0 && deadlines.is_empty() { "none".to_owned() } else { list(&deadlines) },
        "-".to_owned(),
        usage_cell(socket),
    ];
    if let Some(tcp) = socket.tcp() {
        row[2] = tcp.state.to_owned();
        row[8] = tcp_cell(tcp);
    }
    row
}

/// Describes the operations of the socket so far.
fn usage_cell(socket: &SocketInfo) -> String {
    let mut parts = Vec::new();
    let way = |name, operations: u32, bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{name} {operations} ({})", size(bytes)),
        None => format!("{name} {operations}"),
    };
    let is_listener = socket.state() == SocketState::Listening;
    if is_listener {
        parts.push(format!("accepted {}", socket.reads().unwrap_or(0)));
    } else if let (Some(reads), Some(writes)) = (socket.reads(), socket.writes())
        && reads | writes != 0
    {
        parts.push(way("in", reads, socket.bytes_received()));
        parts.push(way("out", writes, socket.bytes_sent()));
    }
    if let Some(limits) = socket.limits() {
        if let Some(most) = limits.max_connections {
            parts.push(format!("{} of {most} permits", limits.connections));
        }
        if limits.refused > 0 {
            parts.push(format!("refused {}", limits.refused));
        }
    }
    if let Some(last_use) = socket.last_use().filter(|_| !is_listener) {
        parts.push(format!("used {} ago", short(last_use)));
    }
    if socket.gathered() > 0 {
        parts.push(format!("gathered {}", size(socket.gathered() as u64)));
    }
    if socket.errors() > 0 {
        let errno = socket.last_errno().map(|errno| format!(" (errno {errno})")).unwrap_or_default();
        parts.push(format!("errors {}{errno}", socket.errors()));
    }
    list(&parts)
}

/// Formats a number of bytes. The result has at most seven characters if `bytes` is less than 10
/// TB.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} KB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// Describes the parts of a TCP socket's state that may explain a wait.
fn tcp_cell(tcp: &TcpDetails) -> String {
    let mut parts = Vec::new();
    if tcp.accept_queue_max > 0 {
        parts.push(format!("accept queue {} of {}", tcp.accept_queue, tcp.accept_queue_max));
    }
    if tcp.unsent > 0 {
        parts.push(format!("unsent {}, last sent {} ago", tcp.unsent, short(tcp.last_sent)));
    }
    if tcp.retransmits > 0 {
        parts.push(format!("retransmits {}", tcp.retransmits));
    }
    list(&parts)
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

fn worker_row(worker: &WorkerInfo) -> Vec<String> {
    let runs = match (worker.running, worker.owned) {
        (Some(task), _) if worker.stuck => format!("task {task} (blocks)"),
        (Some(task), _) => format!("task {task}"),
        (None, true) => "-".to_owned(),
        (None, false) => "no thread".to_owned(),
    };
    vec![
        worker.id.to_string(),
        runs,
        worker.running_for.map_or_else(|| "-".to_owned(), short),
        worker.queued.to_string(),
        worker.timers.to_string(),
        worker.polls.to_string(),
        worker.steals.to_string(),
    ]
}

/// Formats a duration, in at most seven characters if it is less than 100,000 days.
fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration < Duration::from_millis(1) => format!("{} us", duration.as_micros()),
        0 => format!("{} ms", duration.as_millis()),
        1..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=599 => format!("{seconds} s"),
        600..=35_999 => format!("{} min", seconds / 60),
        36_000..=863_999 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Writes a table. Control characters are replaced, because names of tasks and sockets may come
/// from peers, and the table may be printed on a terminal.
fn write_table(f: &mut fmt::Formatter<'_>, titles: &[&str], rows: Vec<Vec<String>>) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let mut widths: Vec<usize> = titles.iter().map(|title| title.len()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    writeln!(f)?;
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        writeln!(f, "{}", Printable(cells.join("  ").trim_end()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_printed() {
        struct Table;
        impl fmt::Display for Table {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_table(f, &["NAME", "STATE"], vec![vec!["a\x1b[2J\nb".to_owned(), "ready".to_owned()]])
            }
        }
        assert_eq!(Table.to_string(), "\nNAME     STATE\na?[2J?b  ready\n");
    }

    #[test]
    fn durations_take_at_most_seven_characters() {
        for (seconds, text) in [
            (0.0, "0 us"),
            (0.000_7, "700 us"),
            (0.25, "250 ms"),
            (1.25, "1.2 s"),
            (59.0, "59 s"),
            (3599.0, "59 min"),
            (90_000.0, "25 h"),
            (9e6, "104 d"),
        ] {
            let printed = short(Duration::from_secs_f64(seconds));
            assert_eq!(printed, text);
            assert!(printed.len() <= 7);
        }
    }
}
