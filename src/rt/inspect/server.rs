//! [`InspectServer`]: serves snapshots to other processes over a Unix socket.
//!
//! The server has its own thread, so it answers even while all workers are blocked. It uses the
//! sockets of the standard library. The only locks of the runtime that it takes are those of the
//! functions in the table below.
//!
//! # Protocol
//! The client sends one line and reads until the end of the stream:
//!
//! | line | answer |
//! |---|---|
//! | `text` | the tables of [`Snapshot`](super::Snapshot)'s `Display`, with TCP_INFO |
//! | `json` | [`Snapshot::to_json`](super::Snapshot::to_json), with TCP_INFO |
//! | `metrics` | [`openmetrics`](super::openmetrics) |
//! | `trace` | [`BlackBox::to_trace_json`](super::BlackBox::to_trace_json) |
//!
//! After `text` or `json`, a space and the id of a task may follow. The answer then has only the
//! tasks with greater ids.
//!
//! # Limits
//! An answer has at most [`TASKS_MAX`] tasks. The number of sockets is not limited. The client
//! requests further tasks with the last id that it has received. Clients are served one at a time.
//! A client that sends no line within [`PATIENCE`], or does not read the answer within
//! [`ANSWER_PATIENCE`], is disconnected. The socket file has mode 0600, and the server checks the
//! client's credentials (SO_PEERCRED, unix(7)): it serves only the same user and root.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Type};

use super::Inspect;
use super::at_path::at_path;
use super::black_box::black_box;
use super::listeners::openmetrics;
use crate::rt::fork;
use crate::rt::runtime::runtime;
use crate::rt::warn::warn;
use crate::sys::{socket, unix};

/// The time that a client has to send its line. Also the maximum time for which a server that
/// starts waits for the lock of the directory.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time that a client has to read the answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// The pause after accept(2) has failed, for example because no descriptor is free.
const PAUSE: Duration = Duration::from_millis(50);
/// The number of bytes after which no more of the line is read.
const LINE_MAX: usize = 64;
/// The maximum number of tasks in an answer.
const TASKS_MAX: usize = 100_000;
/// The maximum number of bytes per write(2). The time limit is checked before each call.
const PART: usize = 64 << 10;
/// The environment variable with the path of the socket.
const VARIABLE: &str = "NETPOLL_INSPECT";

/// Serves snapshots on a Unix socket, for `netpoll-top` and other tools of the same user.
///
/// The server has its own thread and answers even while all workers are blocked. Dropping the
/// server stops it and removes the socket file. The drop does not wait for a client: a client that
/// is being served gets its answer, and the thread ends afterwards. If the environment variable
/// `NETPOLL_INSPECT` is set to a path, the first start of the runtime starts a server there, which
/// runs until the process ends. Its socket file remains, and the next server at this path replaces
/// it.
///
/// A client sends `text`, `json`, `metrics` or `trace` and a newline, and reads until the end of
/// the stream, for example with `echo text | nc -U PATH`. An answer has at most 100,000 tasks,
/// those with the lowest ids. `more_tasks` in JSON, and the first line of a text, show the number
/// of the remaining tasks. `json 7` and `text 7` return the tasks with ids greater than 7.
///
/// # Examples
/// ```
/// use netpoll::rt::InspectServer;
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// let path = std::env::temp_dir().join(format!("inspect-{}", std::process::id()));
/// let server = InspectServer::bind(&path)?;
/// let mut client = UnixStream::connect(&path)?;
/// client.write_all(b"text\n")?;
/// let mut text = String::new();
/// client.read_to_string(&mut text)?;
/// assert!(text.contains("tasks") && text.contains("workers"));
/// drop(server);
/// assert!(!path.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct InspectServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    /// The device and inode numbers of the socket file.
    file: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    /// Set before the listener is shut down.
    ends: AtomicBool,
    /// Whether the thread serves a client.
    serves: AtomicBool,
}

impl InspectServer {
    /// Starts a server that listens at `path`. Replaces a socket file on which no process listens.
    ///
    /// # Errors
    /// Returns `AddrInUse` if a process listens at `path`, if connect(2) to `path` fails with an
    /// error other than ECONNREFUSED and ENOENT, so that the socket may be in use, or if `path` is
    /// a file of another kind. Returns `InvalidInput` if `path` is too long or contains a NUL byte.
    /// Otherwise, the kind is that of the OS error if a system call, such as bind(2) or chmod(2),
    /// or starting the thread fails, and [`raw_os_error`](crate::net::raw_os_error) returns the
    /// errno. The text of each error names the path.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<InspectServer> {
        let path = path.as_ref();
        InspectServer::start(path).map_err(|error| at_path("cannot serve snapshots at", path, error))
    }

    fn start(path: &Path) -> io::Result<InspectServer> {
        let path = path.to_owned();
        // A child of fork(2) must not stop the server of its parent.
        fork::watch(|| runtime().disown());
        let shared =
            Arc::new(Shared { listener: listen(&path)?, ends: AtomicBool::new(false), serves: AtomicBool::new(false) });
        let file = identity(&path);
        let serving = shared.clone();
        match std::thread::Builder::new().name("netpoll-inspect".to_owned()).spawn(move || serving.run()) {
            Ok(thread) => Ok(InspectServer { shared, thread: Some(thread), path, file }),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for InspectServer {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if fork::is_child() {
            // The thread, the listener and the file are the parent's.
            std::mem::forget(thread);
            return;
        }
        // ORDERING: SeqCst: this thread stores `ends` before it loads `serves`. The other thread
        // stores `serves` before it loads `ends`, so it serves no further client if `serves` is
        // false here.
        self.shared.ends.store(true, Ordering::SeqCst);
        // Ends accept(2) in the thread.
        let _ = socket::shutdown(self.shared.listener.as_fd(), std::net::Shutdown::Both);
        if let Some(thread) = thread
            && !self.shared.serves.load(Ordering::SeqCst)
        {
            let _ = thread.join();
        }
        if self.file.is_some() && identity(&self.path) == self.file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Shared {
    /// Serves clients until the server is dropped.
    fn run(&self) {
        for client in self.listener.incoming() {
            self.serves.store(client.is_ok(), Ordering::SeqCst);
            // ORDERING: SeqCst; see `drop`, which stores `ends` before the shutdown(2) that ends
            // accept(2).
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            match client {
                Ok(client) => _ = serve(&client),
                Err(_) => std::thread::sleep(PAUSE),
            }
            self.serves.store(false, Ordering::SeqCst);
        }
    }
}

/// Returns the device and inode numbers of the file at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Starts the server at the path in `NETPOLL_INSPECT`, once per process. Prints an error to
/// standard error, because the first use of the runtime cannot return it.
pub(crate) fn serve_from_environment() {
    static SERVER: OnceLock<Option<InspectServer>> = OnceLock::new();
    SERVER.get_or_init(|| {
        let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty())?;
        InspectServer::bind(&path).map_err(|error| warn(format_args!("{VARIABLE}: {error}"))).ok()
    });
}

/// The servers of [`serve_at`].
static SERVERS: Mutex<Vec<InspectServer>> = Mutex::new(Vec::new());

/// Starts a server at `path` that runs until [`stop_serving_at`] is called or the process ends.
/// Returns false if a server that an earlier call has started already runs there.
///
/// # Errors
/// Returns the errors of [`InspectServer::bind`].
pub(crate) fn serve_at(path: &Path) -> io::Result<bool> {
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_new = !servers.iter().any(|server| server.path == path);
    if is_new {
        servers.push(InspectServer::bind(path)?);
    }
    Ok(is_new)
}

/// Stops the server that [`serve_at`] has started at `path`.
pub(crate) fn stop_serving_at(path: &Path) {
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    servers.retain(|server| server.path != path);
}

impl fmt::Debug for InspectServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectServer").field("path", &self.path).finish_non_exhaustive()
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let in_use = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, what);
    // The lock makes sure that only one of several processes replaces the file of a process that
    // has ended. If the directory cannot be locked, because it cannot be opened or another program
    // keeps it locked, two processes may race.
    let _lock = lock_directory(path);
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let is_other = std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket());
            if is_other {
                return Err(in_use("the file there is not a socket"));
            }
            let probe = socket::socket(Domain::UNIX, Type::STREAM, None)?;
            match socket::connect(probe.as_fd(), &SockAddr::unix(path)?) {
                Ok(()) => return Err(in_use("another process, or another server of this process, listens there")),
                // No process listens there, or the file has gone.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)) => {}
                // For example EAGAIN for a listener with a full backlog (the call does not wait),
                // EACCES for the socket of another user, or EPROTOTYPE for a datagram socket.
                Err(error) => return Err(in_use(&format!("the socket there may be in use: {error}"))),
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let restricted = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    if restricted.is_err() {
        let _ = std::fs::remove_file(path);
    }
    restricted.map(|()| listener)
}

/// Locks the directory of `path` against other processes that start a server there. They hold the
/// lock only while they bind the socket.
///
/// # Errors
/// Returns the errors of open(2) and flock(2), and `WouldBlock` if the directory is locked for
/// longer than [`PATIENCE`].
fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(directory)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match unix::try_lock(directory.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            locked => return locked.map(|()| directory),
        }
    }
}

fn serve(client: &UnixStream) -> io::Result<()> {
    if !is_trusted(client)? {
        return Ok(());
    }
    let line = read_line(client, Instant::now() + PATIENCE)?;
    let (format, after) = line.trim().split_once(' ').unwrap_or((line.trim(), "0"));
    let inspect = Inspect::new().addresses(true).tcp(true).max_tasks(TASKS_MAX);
    let snapshot = |after| inspect.after_task(after).take();
    let answer = match (format, after.parse()) {
        ("text", Ok(after)) => snapshot(after).to_string(),
        ("json", Ok(after)) => snapshot(after).to_json(),
        ("metrics", Ok(0)) => openmetrics(),
        ("trace", Ok(0)) => black_box().to_trace_json(),
        _ => format!("unknown request {:?}: send text, json, metrics or trace\n", line.trim()),
    };
    write_all(client, answer.as_bytes(), Instant::now() + ANSWER_PATIENCE)
}

/// Returns the time until `end`.
///
/// # Errors
/// Returns `TimedOut` if `end` has passed.
fn left(end: Instant) -> io::Result<Option<Duration>> {
    match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(Some(left)),
    }
}

/// Reads until a newline, the end of the stream or [`LINE_MAX`] bytes. With a timeout, a signal
/// interrupts the call even if its handler has SA_RESTART (signal(7)), so the call is repeated here
/// and in [`write_all`].
fn read_line(mut client: &UnixStream, end: Instant) -> io::Result<String> {
    let (mut line, mut buf) = (Vec::new(), [0; LINE_MAX]);
    while line.len() < LINE_MAX && !line.contains(&b'\n') {
        client.set_read_timeout(left(end)?)?;
        match client.read(&mut buf) {
            Ok(0) => break,
            Ok(count) => line.extend_from_slice(&buf[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn write_all(mut client: &UnixStream, mut bytes: &[u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        client.set_write_timeout(left(end)?)?;
        let part = &bytes[..bytes.len().min(PART)];
        match client.write(part) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns whether the client runs as the same user or as root.
fn is_trusted(client: &UnixStream) -> io::Result<bool> {
    let user = unix::peer_cred(client.as_fd())?.1;
    Ok(user == 0 || user == unix::user())
}
