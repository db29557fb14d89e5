//! Formats a [`BlackBox`] in Chrome's Trace Event Format, which ui.perfetto.dev and
//! chrome://tracing display.
//!
//! Each worker, and sysmon, is a thread of the trace, named by a metadata event (`M`). Turns,
//! sleeps and rests are complete events (`X`); other events are instant events (`i`). Times are
//! microseconds since the oldest event.

use std::fmt::{self, Write};
use std::time::Duration;

use super::black_box::{BlackBox, WorkerEventKind};
use super::json::string;
use crate::task::TaskId;

/// The thread number of sysmon, which is greater than the numbers of all workers.
const SYSMON: usize = 10_000;

impl BlackBox {
    /// Returns the events in the Trace Event Format, which ui.perfetto.dev and chrome://tracing
    /// open.
    ///
    /// The name of a turn is its task's id and [`label`](BlackBox::label). The argument `calls`
    /// lists the descriptors that the turn read and wrote.
    ///
    /// # Examples
    /// ```
    /// let json = netpoll::rt::black_box().to_trace_json();
    /// assert!(json.starts_with("{\"displayTimeUnit\":\"ns\",\"traceEvents\":["));
    /// ```
    pub fn to_trace_json(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_trace(&mut text);
        text
    }

    fn write_trace(&self, out: &mut String) -> fmt::Result {
        let process = std::process::id();
        let began = self.events.iter().map(|event| event.ago).max().unwrap_or_default();
        out.push_str("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
        let mut threads: Vec<_> = self.events.iter().map(|event| event.worker).collect();
        threads.sort_unstable();
        threads.dedup();
        for (at, worker) in threads.iter().enumerate() {
            let name = worker.map_or("sysmon".to_owned(), |worker| format!("worker {worker}"));
            let separator = if at == 0 { "" } else { "," };
            let thread = worker.unwrap_or(SYSMON);
            write!(
                out,
                "{separator}{{\"ph\":\"M\",\"pid\":{process},\"tid\":{thread},\"name\":\"thread_name\",\
                 \"args\":{{\"name\":\"{name}\"}}}}"
            )?;
        }
        for event in &self.events {
            let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
            let (thread, at) = (event.worker.unwrap_or(SYSMON), micros(began - event.ago));
            write!(out, ",{{\"pid\":{process},\"tid\":{thread},\"ts\":{at:.3},")?;
            if event.is_span() {
                write!(out, "\"ph\":\"X\",\"dur\":{:.3},", micros(event.lasted))?;
            } else {
                out.push_str("\"ph\":\"i\",\"s\":\"t\",");
            }
            self.write_kind(out, &event.kind)?;
            out.push('}');
        }
        out.push_str("]}\n");
        Ok(())
    }

    fn write_kind(&self, out: &mut String, kind: &WorkerEventKind) -> fmt::Result {
        let named = |out: &mut String, task: TaskId, suffix: &str| {
            let label = self.label(task).map(|label| format!(" {label}")).unwrap_or_default();
            out.push_str("\"name\":");
            string(out, &format!("task {task}{label}{suffix}"))
        };
        let counted = |out: &mut String, name: &str, count: &str, value: usize| {
            write!(out, "\"name\":\"{name}\",\"args\":{{\"{count}\":{value}}}")
        };
        match kind {
            WorkerEventKind::Turn { task, calls } => {
                named(out, *task, "")?;
                out.push_str(",\"args\":{\"calls\":\"");
                for (at, (fd, writes)) in calls.iter().enumerate() {
                    let separator = if at == 0 { "" } else { ", " };
                    write!(out, "{separator}{} {fd}", if *writes { "write" } else { "read" })?;
                }
                out.push_str("\"}");
                Ok(())
            }
            WorkerEventKind::Sleeps => out.write_str("\"name\":\"sleeps\""),
            WorkerEventKind::Rests => out.write_str("\"name\":\"rests\""),
            WorkerEventKind::Leaves => out.write_str("\"name\":\"leaves\""),
            WorkerEventKind::RunsTimers { wakeups } => counted(out, "timers", "wakeups", *wakeups),
            WorkerEventKind::Begins => out.write_str("\"name\":\"begins\""),
            WorkerEventKind::Rises { wakeups } => counted(out, "rises", "wakeups", *wakeups),
            WorkerEventKind::Polls { wakeups } => counted(out, "polls", "wakeups", *wakeups),
            WorkerEventKind::Steals { from } => counted(out, "steals", "from", *from),
            WorkerEventKind::Blocks { task } => named(out, *task, " blocks its worker"),
        }
    }
}
