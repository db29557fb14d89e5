//! [`StillRunning`]: the error of a shutdown that did not complete in time.

use std::fmt;
use std::io;
use std::panic::Location;

use super::sched::identity::{Printable, TaskId};

/// The error of [`shutdown`](crate::rt::shutdown()): some threads or tasks were still running at
/// the end of the timeout, or the function was called inside the runtime.
///
/// Converted to an [`io::Error`], it has the kind `Unsupported` if the function was called inside
/// the runtime, and otherwise `TimedOut`.
///
/// # Examples
/// ```
/// use netpoll::{rt, task};
/// use std::time::Duration;
///
/// // A task must not shut down the runtime that runs it.
/// let refused = task::block_on(task::spawn(async { rt::shutdown(Duration::ZERO) })).unwrap_err();
/// assert!(refused.on_runtime_thread);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StillRunning {
    /// Whether the call had no effect, because it was made inside the runtime, for example in a
    /// task, in a blocking call or in `block_on`.
    pub on_runtime_thread: bool,
    /// The names of the runtime's threads that have not ended.
    pub threads: Vec<String>,
    /// The tasks and blocking calls that occupy a thread, each with its name if it has one. Tasks
    /// that wait in a nested `block_on`, or have waited in one during their current poll, are not
    /// included.
    pub running: Vec<(TaskId, Option<String>)>,
    /// The number of tasks and blocking calls that have not ended. Those that are not in `running`
    /// wait in a nested `block_on`, have waited in one during their current poll, or have not been
    /// dropped yet, because their destructors or those of tasks before them have not returned.
    /// Local tasks are not counted.
    pub tasks: u64,
    /// The places where the tasks of `running` were spawned.
    pub(super) places: Vec<Option<&'static Location<'static>>>,
}

impl StillRunning {
    /// Returns the error of a shutdown that was called inside the runtime.
    pub(super) fn on_runtime_thread() -> StillRunning {
        let (threads, running, places) = (Vec::new(), Vec::new(), Vec::new());
        StillRunning { on_runtime_thread: true, threads, running, tasks: 0, places }
    }
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.on_runtime_thread {
            return f.write_str(
                "the runtime cannot be shut down from a task or from block_on: call rt::shutdown outside the runtime",
            );
        }
        let (threads, tasks) = (self.threads.len(), self.tasks);
        let of_threads = if threads == 1 { "thread" } else { "threads" };
        let of_tasks = if tasks == 1 { "task" } else { "tasks" };
        write!(f, "{threads} {of_threads} and {tasks} {of_tasks} are still running")?;
        for (at, (id, name)) in self.running.iter().enumerate() {
            f.write_str(if at == 0 { ": " } else { ", " })?;
            write!(f, "task {id}")?;
            match (name, self.places.get(at).copied().flatten()) {
                (Some(name), _) => write!(f, " ({})", Printable(name))?,
                (None, Some(place)) => write!(f, " (spawned at {place})")?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

/// Formats the error as `Display` does, because an error that `main` returns is printed with
/// `Debug`.
impl fmt::Debug for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for StillRunning {}

impl From<StillRunning> for io::Error {
    fn from(still: StillRunning) -> io::Error {
        let kind = if still.on_runtime_thread { io::ErrorKind::Unsupported } else { io::ErrorKind::TimedOut };
        io::Error::new(kind, still)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_printed() {
        let running = vec![(TaskId::from_number(7), Some("a\x1b[2J\nb".to_owned()))];
        let still = StillRunning { on_runtime_thread: false, running, tasks: 1, ..StillRunning::on_runtime_thread() };
        assert_eq!(still.to_string(), "0 threads and 1 task are still running: task 7 (a?[2J?b)");
    }

    #[test]
    fn nouns_agree_with_the_numbers_of_threads_and_tasks() {
        for (threads, tasks, expected) in [
            (1, 1, "1 thread and 1 task are still running"),
            (0, 2, "0 threads and 2 tasks are still running"),
            (2, 1, "2 threads and 1 task are still running"),
        ] {
            let threads = vec!["netpoll".to_owned(); threads];
            let still = StillRunning { on_runtime_thread: false, threads, tasks, ..StillRunning::on_runtime_thread() };
            assert_eq!(still.to_string(), expected);
        }
    }
}
