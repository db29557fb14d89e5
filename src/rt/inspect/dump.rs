//! Prints snapshots to standard error: on SIGUSR1, and when the main thread panics.

use std::io::{self, Read, Write};
use std::sync::{Mutex, Once, PoisonError};

use super::Inspect;
use super::black_box::write_file;
use crate::rt::runtime::runtime;
use crate::rt::sched::identity::{Printable, Task};
use crate::rt::sched::task_data::TaskData;
use crate::rt::{context, fork};
use crate::sys::signal;

/// Prints a [`Snapshot`](super::Snapshot) to standard error whenever the process receives SIGUSR1,
/// for example from `kill -USR1 PID`.
///
/// The snapshot includes TCP_INFO. A separate thread prints it, so this works even while all
/// workers are blocked. If there is a [black box file](crate::rt::Builder::black_box_file), it is
/// written too. A call after a successful one does nothing. The handler remains installed until the
/// process ends. In a child of fork(2) that has not called exec(2), the handler does nothing.
///
/// # Errors
/// Returns `AlreadyExists` if SIGUSR1 already has a handler or is ignored. Returns `Other` in a
/// child of fork(2) that has not called exec(2), if the parent used the runtime before the fork.
/// Returns the OS error if a system call, such as pipe(2) or sigaction(2), or starting the thread
/// fails.
///
/// # Examples
/// ```
/// netpoll::rt::dump_on_sigusr1()?;
/// # std::io::Result::Ok(())
/// ```
#[doc(alias = "SIGQUIT")]
pub fn dump_on_sigusr1() -> io::Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    // Checked first, because the parent may have held the lock during the fork.
    fork::check()?;
    let mut is_done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_done {
        return Ok(());
    }
    let (mut reader, writer) = io::pipe()?;
    let run = move || {
        let mut bytes = [0; 64];
        loop {
            match reader.read(&mut bytes) {
                // Signals that arrive at the same time cause one snapshot.
                Ok(1..) => dump("SIGUSR1"),
                // A handler without SA_RESTART ran on this thread.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    };
    // The thread starts before the handler is installed. If the installation fails, the writer is
    // dropped and the thread ends.
    std::thread::Builder::new().name("netpoll-dump".to_owned()).spawn(run)?;
    fork::watch(|| runtime().disown());
    signal::write_on_sigusr1(writer.into(), fork::is_child)?;
    *is_done = true;
    Ok(())
}

/// Prints a [`Snapshot`](super::Snapshot) to standard error whenever the main thread panics outside
/// a task, after the message of the panic hook that is set at the time of this call.
///
/// If there is a [black box file](crate::rt::Builder::black_box_file), it is written too. The
/// future of [`block_on`](crate::task::block_on) does not count as a task here.
///
/// A panic of a task does not affect other tasks. For such a panic, the hook prints no snapshot,
/// but a line with the task's id, its name and the place where it was spawned. Outside a task, it
/// prints nothing for a panic of another thread, or in a child of fork(2) that has not called
/// exec(2). A second call does nothing. A hook that is set later replaces this hook.
///
/// # Panics
/// Panics if the calling thread is panicking, like [`std::panic::set_hook`], unless the hook was
/// set before.
///
/// # Examples
/// ```
/// netpoll::rt::dump_on_panic();
/// ```
pub fn dump_on_panic() {
    static ONCE: Once = Once::new();
    if ONCE.is_completed() {
        return;
    }
    // A panic inside of `call_once` would make all later calls panic.
    assert!(!std::thread::panicking(), "dump_on_panic cannot set the hook from a panicking thread");
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            let task = context::with_task(|task| task.filter(|task| !task.is_root()).map(TaskData::task));
            if let Some(task) = task {
                name_task(&task);
            } else if std::thread::current().name() == Some("main") && !fork::is_child() {
                // In a forked child, the tasks, the locks and the file are those of the parent.
                dump("the main thread panicked");
            }
        }));
    });
}

/// Prints the id and the name of the task that has panicked, and the place where it was spawned.
fn name_task(task: &Task) {
    let name = task.name().map(|name| format!(" `{}`", Printable(name))).unwrap_or_default();
    let place = task.spawned_at().map(|place| format!(", spawned at {place}")).unwrap_or_default();
    let text = format!("netpoll: the panic was in task {}{name}{place}\n", task.id());
    let _ = io::stderr().write_all(text.as_bytes());
}

fn dump(reason: &str) {
    let text = format!(
        "netpoll: snapshot of process {} ({reason})\n{}\n",
        std::process::id(),
        Inspect::new().addresses(true).tcp(true).take()
    );
    // A failure to write to standard error cannot be reported.
    let _ = io::stderr().write_all(text.as_bytes());
    write_file();
}
