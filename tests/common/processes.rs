//! Starts the processes of tests: the calling test again in a child process, and other programs.
//!
//! From fork(2) to execve(2), a new process has copies of all descriptors of this process. A socket
//! or pipe that another test closes in between stays open until execve(2), so its peer receives no
//! EOF, and its port or name stays taken. Tests run in parallel, so a binary whose tests hold a
//! [`NoForks`] starts processes with [`spawn`] or [`output`]. A test that needs a close to take
//! effect immediately holds a [`NoForks`] from the close to the assertion.

use std::io::{self, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rustix::io::fcntl_dupfd_cloexec;

use super::Watchdog;

/// Locked for writing while a process starts, and for reading by [`NoForks`].
static FORKS: RwLock<()> = RwLock::new(());

/// While this value lives, [`spawn`] starts no process, and no process that [`spawn`] has started
/// has copies of this process's close-on-exec descriptors. The holder must not call [`spawn`],
/// which would wait for the holder's own lock.
#[derive(Debug)]
pub struct NoForks {
    _held: RwLockReadGuard<'static, ()>,
}

/// Waits until the process that [`spawn`] is starting, if any, has closed its copies of
/// descriptors. [`spawn`] starts no other process while the returned value lives.
pub fn no_forks() -> NoForks {
    NoForks { _held: FORKS.read().unwrap_or_else(PoisonError::into_inner) }
}

/// Starts `command` when no [`NoForks`] lives. Returns when the new process has closed its copies
/// of this process's descriptors.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _alone = FORKS.write().unwrap_or_else(PoisonError::into_inner);
    // `Command::spawn` may return before execve(2) closes the copies. execve(2) closes them in the
    // order of their numbers, so the marker gets a large number, if the descriptor limit permits
    // one.
    let (mut end, marker) = io::pipe()?;
    let marker = fcntl_dupfd_cloexec(&marker, 1000).unwrap_or_else(|_| marker.into());
    let spawned = command.spawn();
    drop(marker);
    // EOF means that no copy of the marker is open.
    assert_eq!(end.read(&mut [0])?, 0);
    spawned
}

/// Starts `command` as [`spawn`] does, with an empty standard input. Waits until the process ends,
/// and returns its output.
pub fn output(command: &mut Command) -> io::Result<Output> {
    spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?.wait_with_output()
}

/// The environment variable that contains, in a child process, the name of the test to run.
const CHILD: &str = "NETPOLL_TEST_CHILD";

/// Returns whether this is the child process of test `name`.
pub fn is_child(name: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|child| child == name)
}

/// Runs `body` in a child process. `name` is the calling test's name.
#[track_caller]
pub fn child(name: &str, body: impl FnOnce()) {
    child_with(name, &[], body);
}

/// Works like [`child`], with a poller that has a single epoll instance, for tests that count the
/// poller's system calls.
#[track_caller]
pub fn child_on_epoll(name: &str, body: impl FnOnce()) {
    child_with(name, &ON_ONE_EPOLL, body);
}

/// The environment variable that selects epoll.
pub const ON_EPOLL: (&str, &str) = ("NETPOLL_BACKEND", "epoll");

/// The environment variables that select epoll and one shard of the poller.
pub const ON_ONE_EPOLL: [(&str, &str); 2] = [ON_EPOLL, ("NETPOLL_POLLER_SHARDS", "1")];

/// Returns whether `NETPOLL_BACKEND` names epoll or no back end. On Linux, this process then uses
/// epoll.
pub fn is_on_epoll() -> bool {
    std::env::var_os(ON_EPOLL.0).is_none_or(|name| name.is_empty() || name == ON_EPOLL.1)
}

/// Works like [`child`], with environment variables. Returns the child's standard output and
/// standard error, or `None` in the child.
#[track_caller]
pub fn child_with(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) -> Option<String> {
    if is_child(name) {
        let _watchdog = Watchdog::new();
        body();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, name);
    let output = output(command.envs(variables.iter().copied())).unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "child of {name}: {}\n{text}", output.status);
    assert!(text.contains("1 passed"), "no test has the name {name}\n{text}");
    Some(text)
}

/// Calls [`child_with`] once for each value of an environment variable. A child process runs `body`
/// once.
#[track_caller]
pub fn child_for_each(name: &str, variable: &str, values: &[&str], body: impl Fn()) {
    for value in values {
        if child_with(name, &[(variable, value)], &body).is_none() {
            return;
        }
    }
}

/// Works like [`child`], in new mount and network namespaces with a loopback interface. `files`, as
/// (path, contents), replace the host's files. Skips the test if the namespaces cannot be set up,
/// for example because the process lacks the privilege, or because unshare(1) or ip(8) is missing.
#[track_caller]
pub fn child_on_host(name: &str, files: &[(&str, &str)], body: impl FnOnce()) {
    if is_child(name) {
        let _watchdog = Watchdog::new();
        return body();
    }
    let folder = std::env::temp_dir().join(format!("netpoll-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut script = "ip link set lo up".to_owned();
    for (path, text) in files {
        let own = folder.join(path.replace('/', "-"));
        std::fs::write(&own, text).unwrap();
        script += &format!(" && mount --bind {} {path}", own.display());
    }
    script += " || exit 77; exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "-n", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    let output = output(command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, name));
    std::fs::remove_dir_all(&folder).unwrap();
    let Ok(output) = output else { return println!("skipped: no unshare(1) on this machine") };
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let is_skipped = !output.status.success() && !text.contains("running 1 test");
    if is_skipped {
        return println!("skipped: cannot set up namespaces: {text}");
    }
    assert!(output.status.success() && text.contains("1 passed"), "child of {name}: {}\n{text}", output.status);
}

/// Sends SIGUSR2, with a handler that does nothing and has no SA_RESTART, to the thread of this
/// process with this name, so that the call in which the thread waits is interrupted. Call it in a
/// child process only, because the handler remains.
#[cfg(target_os = "linux")]
pub fn interrupt(thread_name: &str) {
    extern "C" fn ignore(_signal: libc::c_int) {}
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes are a valid value of this type.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = ignore as *const () as usize;
    // SAFETY: `action` is valid, and its handler does nothing.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR2, action, std::ptr::null_mut()) }, 0);
    // The kernel keeps 15 bytes of a name.
    let kept = &thread_name[..thread_name.len().min(15)];
    let is_named = |folder: &std::path::PathBuf| {
        std::fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim_end() == kept)
    };
    let mut found = None;
    // A new thread sets its name itself.
    super::eventually("a thread has the name", || {
        let mut folders = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
        found = folders.find(is_named);
        found.is_some()
    });
    let folder = found.unwrap();
    let thread = folder.file_name().unwrap().to_str().unwrap().parse().unwrap();
    // SAFETY: the arguments are numbers that the kernel checks.
    assert_eq!(unsafe { libc::tgkill(std::process::id() as i32, thread, libc::SIGUSR2) }, 0);
}
