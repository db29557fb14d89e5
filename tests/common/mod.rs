//! Helpers for the integration tests: pairs of streams, bounded waits, child processes, counts of
//! descriptors and threads.
//!
//! The module `by_hand` has helpers for tests that poll futures by hand, `kernel` has helpers that
//! rely on Linux, `processes` starts processes, and `original` looks up functions that a test
//! replaces. Three files of this folder are not part of this module, and a test includes them by
//! path: `black_hole` (addresses that refuse connections or do not answer), `example` (runs of
//! examples) and `executors` (checks under other executors).
//!
//! A test that changes its process (a `Builder`, a shutdown, rlimits, fork) uses [`child`], which
//! runs the calling test again, alone, in a child process. The only test of a binary does not need
//! it.
#![allow(dead_code, unreachable_pub, unused_imports)] // Each test binary uses a part.

pub mod by_hand;
mod kernel;
mod original;
mod processes;

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use netpoll::net::{OpError, TcpListener, TcpStream};
use netpoll::task;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use kernel::{in_flight, own_address};
pub use original::{original, stored_original};
#[cfg(target_os = "linux")]
pub use processes::interrupt;
pub use processes::{
    NoForks, ON_EPOLL, ON_ONE_EPOLL, child, child_for_each, child_on_epoll, child_on_host, child_with, is_child,
    is_on_epoll, no_forks, output, spawn,
};

/// The time after which a wait counts as a hang. It is generous, because tests run in parallel and
/// on busy machines. It is longer in a build with a sanitizer, because such a build is slow.
pub const BOUND: Duration = Duration::from_secs(if IS_SANITIZED { 600 } else { 180 });

/// Whether a sanitizer instruments this build (`ci/sanitizer.sh`). The process then uses several
/// times more memory than the crate allocates, so tests of the resident memory assert no limit.
pub const IS_SANITIZED: bool = option_env!("NETPOLL_SLOW").is_some();

/// Returns whether the environment variable `NETPOLL_TIMED` is 1. The value 1 says that the machine
/// is otherwise idle, so a test may assert short time limits.
pub fn is_timed() -> bool {
    std::env::var("NETPOLL_TIMED").is_ok_and(|value| value == "1")
}

/// A guard that prints the test's name and the runtime's metrics and aborts the process, unless the
/// guard is dropped within [`BOUND`]. So a hang of the runtime does not hang the run of the tests.
#[derive(Debug)]
pub struct Watchdog(Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>);

impl Watchdog {
    pub fn new() -> Watchdog {
        let name = thread::current().name().unwrap_or("?").to_owned();
        let (done, wait) = mpsc::channel();
        let thread = thread::spawn(move || {
            if wait.recv_timeout(BOUND) == Err(mpsc::RecvTimeoutError::Timeout) {
                // `eprintln!` is not used, because the harness captures its output, and the abort
                // would lose it.
                let _ = writeln!(io::stderr(), "test {name} hangs: {:#?}", netpoll::rt::metrics());
                std::process::abort();
            }
        });
        Watchdog(Some((done, thread)))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.0.take() {
            drop(done);
            let _ = thread.join();
        }
    }
}

/// Calls `block_on` under a [`Watchdog`].
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let _watchdog = Watchdog::new();
    task::block_on(future)
}

/// Runs `test` under a [`Watchdog`].
pub fn bounded<T>(test: impl FnOnce() -> T) -> T {
    let _watchdog = Watchdog::new();
    test()
}

/// Blocks the thread until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}; {:?}", netpoll::rt::metrics());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits in a task until `condition` holds.
pub async fn becomes(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < BOUND, "not within {BOUND:?}: {what}; {:?}", netpoll::rt::metrics());
        task::sleep(Duration::from_millis(1)).await;
    }
}

/// Asserts that the events that `cause` causes are not counted as stale. After a close, further
/// events are stale if a duplicate of the socket's descriptor is left in epoll. A thread may have
/// received an event before the close and count it later, so the assertion fails only if a stale
/// event is counted in each of 20 attempts.
pub async fn assert_no_stale_events(what: &str, mut cause: impl AsyncFnMut()) {
    for _ in 0..20 {
        let before = netpoll::rt::metrics().stale_events;
        cause().await;
        if netpoll::rt::metrics().stale_events == before {
            return;
        }
    }
    panic!("{what}: a closed socket is in epoll");
}

/// Polls `future` such that Pending means that the operation waits. For fairness, an operation of a
/// task whose budget is used up returns Pending once although it need not wait, unless it is polled
/// with a no-op waker. So the first poll has a no-op waker. If it returns Pending, a second poll
/// has `waker`.
pub fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    match Pin::new(&mut *future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Pin::new(future).poll(&mut Context::from_waker(waker)),
        ready => ready,
    }
}

/// Calls [`poll_with`] with the current task's waker.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(poll_with(future, cx.waker()))).await
}

/// Calls [`poll_with`] with a waker that does nothing.
pub fn poll_now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// Runs `future` on the calling thread, which parks between polls.
pub fn park_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Calls `dial` with a timeout of 200 ms, and again with twice the timeout until the dial succeeds.
/// Returns the connection and the last timeout.
pub async fn within_a_timeout(mut dial: impl AsyncFnMut(Duration) -> io::Result<TcpStream>) -> (TcpStream, Duration) {
    let mut timeout = Duration::from_millis(200);
    loop {
        match dial(timeout).await {
            Ok(stream) => return (stream, timeout),
            Err(error) => assert!(netpoll::net::is_timeout(&error) && timeout < BOUND, "{error}"),
        }
        timeout *= 2;
    }
}

/// Makes the process open the descriptors of the poller, which stay open. Tests that count or
/// exhaust descriptors call this function first.
pub async fn warm_up() {
    let mut pairs = Vec::new();
    // The first registration in a shard of the poller opens the shard.
    let metrics = netpoll::rt::metrics();
    let (shards, workers) = (metrics.poller_shards, metrics.workers);
    for _ in 0..if shards > 1 { shards + workers.div_ceil(shards) } else { 1 } {
        let (client, server) = pair().await;
        assert!(poll_once(&mut client.read(&mut [0; 1])).await.is_pending());
        pairs.push((client, server));
    }
    for (client, _server) in pairs {
        client.force_close().await.unwrap();
    }
}

pub async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Returns a loopback connection (the connecting side, the accepting side).
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = listener().await;
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// Writes back the bytes that it reads, until the end of the stream.
pub async fn echo(stream: &TcpStream) -> io::Result<()> {
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf).await? {
            0 => return Ok(()),
            count => stream.write_all(&buf[..count]).await?,
        }
    }
}

/// Reads exactly `buf.len()` bytes.
pub async fn read_exact(stream: &TcpStream, buf: &mut [u8]) -> io::Result<()> {
    let mut got = 0;
    while got < buf.len() {
        match stream.read(&mut buf[got..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => got += count,
        }
    }
    Ok(())
}

/// Sends `message` and checks that it comes back.
pub async fn ping(stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(message).await?;
    let mut back = vec![0; message.len()];
    read_exact(stream, &mut back).await?;
    assert_eq!(back, message);
    Ok(())
}

/// Transfers a byte in each direction.
pub async fn ping_pong(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        from.write_all(b"x").await.unwrap();
        read_exact(to, &mut [0; 1]).await.unwrap();
    }
}

/// Writes until a write would wait. Returns the number of bytes written.
pub async fn fill(stream: &TcpStream) -> usize {
    let chunk = vec![7; 64 << 10];
    let mut total = 0;
    let mut idle = 0;
    loop {
        // Room may appear while the kernel moves bytes to the peer, so the last attempt must start
        // when no bytes are in flight. (If the peer has dropped bytes, the kernel retransmits them
        // without end, so this function gives up after 1000 attempts in a row without progress.)
        let moves = in_flight(stream.as_fd()) > 0;
        let mut write = stream.write(&chunk);
        match poll_once(&mut write).await {
            Poll::Ready(count) => (total, idle) = (total + count.unwrap(), 0),
            Poll::Pending if idle >= 20 && (!moves || idle >= 1000) => return total,
            Poll::Pending => {
                idle += 1;
                task::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Prints the lines of a child's output that contain `with`.
pub fn print_lines(output: Option<String>, with: &str) {
    for line in output.iter().flat_map(|text| text.lines()).filter(|line| line.contains(with)) {
        println!("{line}");
    }
}

/// Returns the number of open descriptors of this process, without the placeholder, which the first
/// call of `as_fd` opens. The placeholder refers to the root directory. So do the descriptors that
/// keep the numbers of closed sockets in use, which are counted.
pub fn fd_count() -> usize {
    let (mut count, mut has_placeholder) = (0, false);
    for entry in std::fs::read_dir("/dev/fd").unwrap() {
        count += 1;
        has_placeholder |= std::fs::read_link(entry.unwrap().path()).is_ok_and(|target| target == Path::new("/"));
    }
    // One entry is the descriptor of the directory itself.
    count - 1 - usize::from(has_placeholder)
}

/// Returns the number of a socket's descriptor, from the socket's debug text. Unlike `as_raw_fd`,
/// this does not mark the descriptor as exposed or as handed out.
pub fn number(socket: &impl Debug) -> i32 {
    let text = format!("{socket:?}");
    let (_, number) = text.rsplit_once("fd: ").expect("the number is in the debug text");
    number.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

/// Returns the [`OpError`] that `error` contains.
#[track_caller]
pub fn op_error(error: &io::Error) -> &OpError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap_or_else(|| panic!("no OpError: {error:?}"))
}

/// Returns the resident memory of this process in KiB (proc_pid_status(5)).
pub fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Returns the number of threads of this process.
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Returns the contents of a file of proc(5), such as `stat`, of all threads of this process except
/// the calling one.
pub fn of_other_threads(file: &str) -> impl Iterator<Item = String> {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    // A thread may have ended since the directory was read.
    threads
        .filter(move |thread| thread.file_name() != own.file_name())
        .filter_map(move |thread| std::fs::read_to_string(thread.join(file)).ok())
}

/// Returns the number of context switches, voluntary and not, of all threads of this process except
/// the calling one.
pub fn context_switches() -> u64 {
    let switches = |status: String| {
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>()
    };
    of_other_threads("status").map(switches).sum()
}

/// Returns the CPU time of this process.
pub fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) }, 0);
    // SAFETY: all zeroes are a valid `rusage`, and the call filled it in.
    let usage = unsafe { usage.assume_init() };
    let time =
        |value: libc::timeval| Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Sets the soft limit on open descriptors of this process to `count`, or to the hard limit if that
/// is less. Tests lower the soft limit only in child processes.
pub fn set_nofile(count: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(count, |most| count.min(most)));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// Returns whether this machine has ::1, and prints a note if not.
pub fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        println!("skipped: no ::1 on this machine");
    }
    has
}

/// Returns whether the hard limit on open descriptors permits `count`, and prints a note if not. If
/// the hard limit permits it and the soft limit is less than `count`, raises the soft limit to the
/// hard limit, or to `count` if there is no hard limit.
pub fn has_descriptors(count: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < count) {
        println!("skipped: {count} descriptors are needed, the limit is {:?}", limit.maximum);
        return false;
    }
    if limit.current.is_some_and(|now| now < count) {
        set_nofile(limit.maximum.unwrap_or(count));
    }
    true
}

/// Opens files until no descriptor is free.
pub fn exhaust_descriptors() -> Vec<std::fs::File> {
    let mut held = Vec::new();
    loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                return held;
            }
        }
    }
}

/// A temporary directory that is removed when the value is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("netpoll-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
