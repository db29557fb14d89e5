//! Formats a [`Snapshot`] as one JSON object (RFC 8259). Durations are numbers of seconds. Unknown
//! values are omitted; the `fd` of an unknown socket is −1.

use std::fmt::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use super::{
    PollerShard, Snapshot, SocketInfo, SocketState, SocketWait, TaskInfo, TaskKind, TaskState, TcpDetails, WaitsFor,
    WokenBy, WorkerInfo,
};
use crate::rt::sched::lanes::Lane;

impl Snapshot {
    /// Returns the snapshot as JSON: an object with `taken` (seconds since 1970), `tasks`,
    /// `more_tasks`, `sockets`, `workers`, `metrics` and `histograms`, and with `shards` if the
    /// poller has several shards.
    ///
    /// The keys are the names of the fields and methods. [`SocketInfo::id`] is omitted, and so are
    /// values that are `None`. Durations are numbers of seconds. States and kinds are in
    /// `snake_case`, except [`TcpDetails::state`]. `waits_for` is an object with a `kind` and,
    /// depending on it, the time `left`, the `id` of a task, or the `operation` and the `fd` of a
    /// socket (−1 if it is unknown). `woken_by` is an object with a `kind` and, depending on it,
    /// the `id` of a task or the `fd` of a socket (−1 if it is unknown). `lane` is omitted for
    /// ordinary tasks, and `gathered` if it is 0. `waiting` is a list of objects with `task` and
    /// `operation`. A histogram has `count`, `sum` and `buckets`, which are pairs of an upper bound
    /// and the number of values up to it. The range without an upper bound is omitted.
    ///
    /// # Examples
    /// ```
    /// let json = netpoll::rt::inspect().to_json();
    /// assert!(json.starts_with("{\"taken\":") && json.contains("\"metrics\":{\"workers\":"));
    /// ```
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_json(&mut text);
        text
    }

    fn write_json(&self, out: &mut String) -> fmt::Result {
        let taken = self.taken.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(out, "{{\"taken\":{:.3},\"tasks\":", taken.as_secs_f64())?;
        array(out, &self.tasks, |out, task| self.write_task(out, task))?;
        write!(out, ",\"more_tasks\":{},\"sockets\":", self.more_tasks)?;
        array(out, &self.sockets, write_socket)?;
        out.push_str(",\"workers\":");
        array(out, &self.workers, write_worker)?;
        if self.shards.len() > 1 {
            out.push_str(",\"shards\":");
            array(out, &self.shards, |out, shard| {
                let PollerShard { sockets, waits, events } = shard;
                write!(out, "{{\"sockets\":{sockets},\"waits\":{waits},\"events\":{events}}}")
            })?;
        }
        out.push_str(",\"metrics\":{");
        for (at, metric) in self.metrics.iter().enumerate() {
            write!(out, "{}\"{}\":{}", if at == 0 { "" } else { "," }, metric.name, metric.value)?;
        }
        out.push_str("},\"histograms\":{");
        for (at, metric) in self.metrics.histograms().enumerate() {
            let (name, histogram) = (metric.name, metric.histogram);
            write!(
                out,
                "{}\"{name}\":{{\"count\":{},\"sum\":{},\"buckets\":",
                if at == 0 { "" } else { "," },
                histogram.count(),
                histogram.sum()
            )?;
            // Infinity is not a JSON number, so the last range is omitted. Its number of values is
            // `count` minus the number in the last pair.
            let bounded: Vec<_> = histogram.buckets().filter(|(bound, _)| bound.is_finite()).collect();
            array(out, &bounded, |out, (bound, count)| write!(out, "[{bound},{count}]"))?;
            out.push('}');
        }
        out.push_str("}}");
        Ok(())
    }

    fn write_task(&self, out: &mut String, task: &TaskInfo) -> fmt::Result {
        let kind = match task.kind() {
            TaskKind::Task => "task",
            TaskKind::Local => "local",
            TaskKind::BlockOn => "block_on",
            TaskKind::Blocking => "blocking",
        };
        let state = match task.state() {
            TaskState::Running => "running",
            TaskState::Ready => "ready",
            TaskState::Waiting => "waiting",
        };
        write!(out, "{{\"id\":{},\"kind\":\"{kind}\",\"state\":\"{state}\"", task.id())?;
        if task.lane() == Lane::Control {
            out.push_str(",\"lane\":\"control\"");
        }
        if let Some(name) = task.name() {
            out.push_str(",\"name\":");
            string(out, name)?;
        }
        if let Some(place) = task.spawned_at() {
            out.push_str(",\"spawned_at\":");
            string(out, &format!("{}:{}", place.file(), place.line()))?;
        }
        seconds(out, "age", task.age())?;
        seconds(out, "last_poll", task.last_poll())?;
        seconds(out, "cpu", task.cpu())?;
        seconds(out, "longest_poll", task.longest_poll())?;
        write!(out, ",\"polls\":{},\"waits_for_more\":{}", task.polls(), task.waits_for_more())?;
        match task.woken_by() {
            None => {}
            Some(WokenBy::Socket(socket)) => {
                let fd = self.socket(socket).map_or(-1, |socket| socket.fd());
                write!(out, ",\"woken_by\":{{\"kind\":\"socket\",\"fd\":{fd}}}")?;
            }
            Some(WokenBy::Timer) => out.push_str(",\"woken_by\":{\"kind\":\"timer\"}"),
            Some(WokenBy::Task(id)) => write!(out, ",\"woken_by\":{{\"kind\":\"task\",\"id\":{id}}}")?,
            Some(WokenBy::Thread) => out.push_str(",\"woken_by\":{\"kind\":\"thread\"}"),
            Some(WokenBy::Itself) => out.push_str(",\"woken_by\":{\"kind\":\"itself\"}"),
        }
        match task.waits_for() {
            None => {}
            Some(WaitsFor::Time(left)) => {
                out.push_str(",\"waits_for\":{\"kind\":\"time\"");
                seconds(out, "left", left)?;
                out.push('}');
            }
            Some(WaitsFor::Task(id)) => write!(out, ",\"waits_for\":{{\"kind\":\"task\",\"id\":{id}}}")?,
            Some(WaitsFor::Socket { socket, operation }) => {
                let fd = self.socket(socket).map_or(-1, |socket| socket.fd());
                write!(
                    out,
                    ",\"waits_for\":{{\"kind\":\"socket\",\"fd\":{fd},\"operation\":\"{}\"}}",
                    word(operation)
                )?;
            }
        }
        out.push('}');
        Ok(())
    }
}

fn word(operation: SocketWait) -> &'static str {
    match operation {
        SocketWait::Readable => "readable",
        SocketWait::Writable => "writable",
        SocketWait::ReadLock => "read_lock",
        SocketWait::WriteLock => "write_lock",
        SocketWait::HangUp => "hang_up",
    }
}

fn write_socket(out: &mut String, socket: &SocketInfo) -> fmt::Result {
    let state = match socket.state() {
        SocketState::Listening => "listening",
        SocketState::Unconnected => "unconnected",
        SocketState::Connecting => "connecting",
        SocketState::Open => "open",
        SocketState::HalfClosed => "half_closed",
        SocketState::HungUp => "hung_up",
        SocketState::Closing => "closing",
        SocketState::Unknown => "unknown",
    };
    write!(out, "{{\"fd\":{},\"kind\":\"{}\",\"state\":\"{state}\"", socket.fd(), socket.kind())?;
    for (name, address) in [("local", socket.local()), ("peer", socket.peer())] {
        if let Some(address) = address {
            write!(out, ",\"{name}\":")?;
            string(out, &address.to_string())?;
        }
    }
    if let Some(host) = socket.host() {
        out.push_str(",\"host\":");
        string(out, host)?;
    }
    if let Some(shard) = socket.poller_shard() {
        write!(out, ",\"poller_shard\":{shard}")?;
    }
    seconds(out, "age", socket.age())?;
    write!(out, ",\"errors\":{}", socket.errors())?;
    for (name, count) in [
        ("reads", socket.reads().map(u64::from)),
        ("writes", socket.writes().map(u64::from)),
        ("bytes_received", socket.bytes_received()),
        ("bytes_sent", socket.bytes_sent()),
    ] {
        if let Some(count) = count {
            write!(out, ",\"{name}\":{count}")?;
        }
    }
    if let Some(last_use) = socket.last_use() {
        seconds(out, "last_use", last_use)?;
    }
    if socket.gathered() > 0 {
        write!(out, ",\"gathered\":{}", socket.gathered())?;
    }
    if let Some(errno) = socket.last_errno() {
        write!(out, ",\"last_errno\":{errno}")?;
    }
    if let Some(limits) = socket.limits() {
        write!(out, ",\"limits\":{{\"connections\":{},\"refused\":{}", limits.connections, limits.refused)?;
        if let Some(most) = limits.max_connections {
            write!(out, ",\"max_connections\":{most}")?;
        }
        out.push('}');
    }
    write!(out, ",\"readers\":{},\"writers\":{},\"waiting\":", socket.readers(), socket.writers())?;
    array(out, socket.waiting(), |out, (task, operation)| {
        write!(out, "{{\"task\":{task},\"operation\":\"{}\"}}", word(*operation))
    })?;
    for (name, left) in [("read_deadline", socket.read_deadline()), ("write_deadline", socket.write_deadline())] {
        if let Some(left) = left {
            seconds(out, name, left)?;
        }
    }
    if let Some(tcp) = socket.tcp() {
        write_tcp(out, tcp)?;
    }
    out.push('}');
    Ok(())
}

fn write_tcp(out: &mut String, tcp: &TcpDetails) -> fmt::Result {
    write!(out, ",\"tcp\":{{\"state\":\"{}\"", tcp.state)?;
    seconds(out, "rtt", tcp.rtt)?;
    seconds(out, "last_sent", tcp.last_sent)?;
    seconds(out, "last_received", tcp.last_received)?;
    for (name, number) in [
        ("congestion_window", u64::from(tcp.congestion_window)),
        ("retransmits", u64::from(tcp.retransmits)),
        ("unsent", u64::from(tcp.unsent)),
        ("bytes_sent", tcp.bytes_sent),
        ("bytes_received", tcp.bytes_received),
        ("segments_received", u64::from(tcp.segments_received)),
        ("segments_sent", u64::from(tcp.segments_sent)),
        ("accept_queue", u64::from(tcp.accept_queue)),
        ("accept_queue_max", u64::from(tcp.accept_queue_max)),
    ] {
        write!(out, ",\"{name}\":{number}")?;
    }
    out.push('}');
    Ok(())
}

fn write_worker(out: &mut String, worker: &WorkerInfo) -> fmt::Result {
    write!(out, "{{\"id\":{},\"owned\":{},\"stuck\":{}", worker.id, worker.owned, worker.stuck)?;
    if let Some(task) = worker.running {
        write!(out, ",\"running\":{task}")?;
    }
    if let Some(time) = worker.running_for {
        seconds(out, "running_for", time)?;
    }
    write!(
        out,
        ",\"queued\":{},\"timers\":{},\"polls\":{},\"steals\":{}}}",
        worker.queued, worker.timers, worker.polls, worker.steals
    )
}

fn array<T>(out: &mut String, items: &[T], mut item: impl FnMut(&mut String, &T) -> fmt::Result) -> fmt::Result {
    out.push('[');
    for (at, value) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        item(out, value)?;
    }
    out.push(']');
    Ok(())
}

fn seconds(out: &mut String, name: &str, duration: Duration) -> fmt::Result {
    write!(out, ",\"{name}\":{:.6}", duration.as_secs_f64())
}

pub(super) fn string(out: &mut String, text: &str) -> fmt::Result {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            // JSON permits those from U+007F on, but the text may be printed on a terminal.
            letter if letter.is_control() => write!(out, "\\u{:04x}", u32::from(letter))?,
            letter => out.push(letter),
        }
    }
    out.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        let mut out = String::new();
        string(&mut out, "a\"b\\c\n\u{1f}é\u{7f}\u{9b}2J").unwrap();
        assert_eq!(out, "\"a\\\"b\\\\c\\u000a\\u001fé\\u007f\\u009b2J\"");
    }
}
