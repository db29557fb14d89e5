//! fork(2): in a child that does not call exec(2), operations that need the runtime fail or panic
//! if the parent has used it before the fork. No child disturbs its parent.
#![cfg(target_os = "linux")] // prctl(2)

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use common::{child, child_with, pair, park_on, ping, poll_now};
use netpoll::io::AsyncFd;
use netpoll::net::{self, OpError, TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::UnixListener;
use netpoll::{rt, task};

/// Runs `body` in a forked process and asserts that it returns 0. Any other value is the number of
/// the step that failed, or 100 for a panic.
fn forked(body: impl FnOnce() -> i32) {
    // SAFETY: this process has threads, but the child uses nothing that they may have left locked:
    // glibc's allocator survives a fork, and the child ends with `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let step = catch_unwind(AssertUnwindSafe(body)).unwrap_or(100);
        // SAFETY: the call ends the process immediately.
        unsafe { libc::_exit(step) };
    }
    reap(pid);
}

/// Waits until the child `pid` has ended, and asserts that it returned 0.
fn reap(pid: libc::pid_t) {
    let mut status = 0;
    let start = std::time::Instant::now();
    loop {
        // SAFETY: `status` is valid for the call.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
            0 => {}
            ended => {
                assert_eq!(ended, pid, "waitpid: {}", std::io::Error::last_os_error());
                break;
            }
        }
        if start.elapsed() > common::BOUND / 2 {
            // SAFETY: our own child, which is not reaped yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(libc::WIFEXITED(status), "a signal ended the child, SIGKILL if it hung: status {status:#x}");
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child failed at this step");
}

/// Returns whether the text of `error` gives the fork as the reason.
fn is_of_fork(error: &std::io::Error) -> bool {
    error.to_string().contains("netpoll cannot be used in a forked child process")
}

#[test]
fn operations_fail_in_forked_child() {
    child("operations_fail_in_forked_child", || {
        std::panic::set_hook(Box::new(|_| {}));
        let (client, server) = park_on(pair());
        let fresh = park_on(pair());
        // The socket is registered, and an operation waits.
        let mut buf = [0; 1];
        let mut read = server.read(&mut buf);
        assert!(poll_now(&mut read).is_pending());
        task::block_on(async { task::spawn(async {}).await });
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        forked(|| {
            let failed =
                |polled: Poll<std::io::Result<_>>| matches!(polled, Poll::Ready(Err(error)) if is_of_fork(&error));
            // Operations that would wait fail, whether or not the descriptor was registered in the
            // parent.
            if !failed(poll_now(&mut server.read(&mut [0; 1]))) {
                return 1;
            }
            if !failed(poll_now(&mut fresh.0.read(&mut [0; 1]))) {
                return 2;
            }
            if !failed(poll_now(&mut read)) {
                return 3;
            }
            let mut bind = Box::pin(TcpListener::bind("127.0.0.1:0"));
            if !matches!(poll_now(&mut bind), Poll::Ready(Err(error)) if is_of_fork(&error)) {
                return 4;
            }
            let refused = catch_unwind(|| task::block_on(async {}));
            if !refused.is_err_and(|text| text.downcast_ref::<String>().is_some_and(|text| text.contains("forked"))) {
                return 5;
            }
            if !rt::Builder::new().start().is_err_and(|error| is_of_fork(&error)) {
                return 6;
            }
            if catch_unwind(|| task::spawn(async {}).task().id()).is_ok() {
                return 7;
            }
            if !task::Builder::new().spawn(async {}).is_err_and(|error| is_of_fork(&error)) {
                return 11;
            }
            if catch_unwind(|| task::spawn_blocking(|| ()).task().id()).is_ok() {
                return 8;
            }
            let mut sleep = netpoll::time::Sleep::new(Duration::from_secs(1));
            if catch_unwind(AssertUnwindSafe(|| poll_now(&mut sleep).is_pending())).is_ok() {
                return 9;
            }
            // Errors of dials and listens name the operation.
            let opens = [
                poll_now(&mut Box::pin(TcpListener::bind("127.0.0.1:0"))).map_ok(drop),
                poll_now(&mut Box::pin(TcpListener::bind("localhost:0"))).map_ok(drop),
                poll_now(&mut Box::pin(TcpStream::connect(address))).map_ok(drop),
                poll_now(&mut Box::pin(TcpStream::connect("localhost:1"))).map_ok(drop),
                poll_now(&mut Box::pin(UdpSocket::bind("127.0.0.1:0"))).map_ok(drop),
                poll_now(&mut Box::pin(UdpSocket::bind("localhost:0"))).map_ok(drop),
                poll_now(&mut Box::pin(UnixListener::bind(""))).map_ok(drop),
                Poll::Ready(UdpSocket::bind_multicast("239.1.2.3:0".parse().unwrap(), 0).map(drop)),
            ];
            for (number, opened) in (20..).zip(opens) {
                let is_named = |error: &std::io::Error| error.get_ref().is_some_and(|inner| inner.is::<OpError>());
                if !matches!(opened, Poll::Ready(Err(error)) if is_of_fork(&error) && is_named(&error)) {
                    return number;
                }
            }
            let mut lookup = Box::pin(net::lookup_host("localhost"));
            if !matches!(poll_now(&mut lookup), Poll::Ready(Err(error)) if is_of_fork(&error)) {
                return 12;
            }
            #[cfg(feature = "signal")]
            {
                use netpoll::signal::{Signal, SignalKind};
                if !Signal::new(SignalKind::USER_DEFINED2).is_err_and(|error| is_of_fork(&error)) {
                    return 13;
                }
                // SAFETY: a struct of numbers and an address that may be null.
                let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
                // SAFETY: `action` is valid for writes. The action of the signal is not changed.
                let asked = unsafe { libc::sigaction(libc::SIGUSR2, std::ptr::null(), &raw mut action) };
                if asked != 0 || action.sa_sigaction != libc::SIG_DFL {
                    return 14;
                }
            }
            // Operations that need no runtime still work.
            if client.local_addr().is_err() || poll_now(&mut client.write(b"x")).is_pending() {
                return 10;
            }
            0
        });
        drop(read);
        // The parent is unaffected.
        assert_eq!(park_on(server.read(&mut [0; 1])).unwrap(), 1);
        let echo = task::spawn(async move { common::echo(&server).await });
        park_on(ping(&client, b"parent")).unwrap();
        drop(client);
        park_on(echo).unwrap();
    });
}

/// Regression: these futures waited forever, for events that occur only in the parent.
#[test]
fn futures_that_wait_panic_in_a_forked_child() {
    child("futures_that_wait_panic_in_a_forked_child", || {
        std::panic::set_hook(Box::new(|_| {}));
        let mut sleep = netpoll::time::Sleep::new(common::BOUND);
        let mut short = netpoll::time::Sleep::new(Duration::from_millis(1));
        let mut handles = [(); 2].map(|()| Some(task::spawn(std::future::pending::<()>())));
        let mut set = task::TaskSet::new();
        set.spawn(std::future::pending::<()>());
        let mut cancel = Box::pin(handles[0].take().unwrap().cancel());
        let mut handle = handles[1].take().unwrap();
        assert!(poll_now(&mut sleep).is_pending());
        // On a busy machine, the time of the short sleep may have passed already.
        let _ = poll_now(&mut short);
        common::eventually("the time of the short sleep has passed", || {
            std::time::Instant::now() > short.deadline().unwrap()
        });
        forked(|| {
            let panics = |poll: &mut dyn FnMut() -> bool| catch_unwind(AssertUnwindSafe(poll)).is_err();
            let all = [
                panics(&mut || poll_now(&mut sleep).is_pending()),
                panics(&mut || poll_now(&mut handle).is_pending()),
                panics(&mut || poll_now(&mut cancel).is_pending()),
                panics(&mut || poll_now(&mut Box::pin(set.join_next())).is_pending()),
                // The time of the short sleep has passed.
                poll_now(&mut short).is_ready(),
            ];
            all.iter().position(|is_right| !is_right).map_or(0, |at| at as i32 + 1)
        });
    });
}

/// The parent has deferred the start of its threads.
#[test]
fn future_outside_block_on_starts_no_thread_in_a_forked_child() {
    child("future_outside_block_on_starts_no_thread_in_a_forked_child", || {
        rt::Builder::new().single_threaded(true).start().unwrap();
        forked(|| {
            let threads = common::thread_count();
            park_on(task::yield_now());
            i32::from(common::thread_count() != threads)
        });
        assert_eq!(task::block_on(task::spawn(async { 7 })), 7);
    });
}

/// Regression: a child whose root future waited took the events of its parent.
#[test]
fn block_on_that_forks_returns_or_panics_in_the_child() {
    child("block_on_that_forks_returns_or_panics_in_the_child", || {
        std::panic::set_hook(Box::new(|_| {}));
        let (client, server) = park_on(pair());
        let echo = task::spawn(async move { common::echo(&server).await });
        for waits in [false, true] {
            let parent = std::process::id();
            let ended = catch_unwind(|| {
                task::block_on(async {
                    // SAFETY: the child only returns or panics, and then ends with `_exit`.
                    let pid = unsafe { libc::fork() };
                    if pid == 0 && waits {
                        std::future::pending::<()>().await;
                    }
                    pid
                })
            });
            if std::process::id() != parent {
                // SAFETY: the call ends the process immediately.
                unsafe { libc::_exit(i32::from(ended.is_ok() == waits)) };
            }
            reap(ended.unwrap());
            park_on(ping(&client, b"parent")).unwrap();
        }
        drop(client);
        park_on(echo).unwrap();
    });
}

/// Regression: the worker of the child dropped the queued tasks.
#[test]
fn task_that_forks_leaves_the_queued_tasks_to_the_parent() {
    /// Writes the id of the process in which it is dropped.
    struct WritesPid(std::io::PipeWriter);
    impl Drop for WritesPid {
        fn drop(&mut self) {
            self.0.write_all(&std::process::id().to_ne_bytes()).unwrap();
        }
    }
    // In the forked child, LeakSanitizer would report all memory to which only the threads of the
    // parent refer.
    child_with("task_that_forks_leaves_the_queued_tasks_to_the_parent", &[("ASAN_OPTIONS", "detect_leaks=0")], || {
        rt::Builder::new().workers(1).start().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let forks = task::spawn(async move {
            for _ in 0..3 {
                let guard = WritesPid(writer.try_clone().unwrap());
                drop(task::spawn(async move { drop(guard) }));
            }
            drop(writer);
            // SAFETY: the child has only this thread, which ends.
            unsafe { libc::fork() }
        });
        reap(park_on(forks));
        let mut written = Vec::new();
        reader.read_to_end(&mut written).unwrap();
        assert_eq!(written, std::process::id().to_ne_bytes().repeat(3));
    });
}

/// Regression: a thread that exists only in the parent had locked the timers at the fork, so the
/// drop of a sleep in the child waited forever.
#[test]
fn sleep_is_dropped_in_a_child_while_the_parent_uses_timers() {
    child("sleep_is_dropped_in_a_child_while_the_parent_uses_timers", || {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let mut sleep = netpoll::time::Sleep::new(common::BOUND);
                        assert!(poll_now(&mut sleep).is_pending());
                    }
                });
            }
            let mut sleep = netpoll::time::Sleep::new(common::BOUND);
            assert!(poll_now(&mut sleep).is_pending());
            let mut sleep = Some(sleep);
            for _ in 0..50 {
                forked(|| {
                    drop(sleep.take());
                    0
                });
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// Regression: the child waited for threads that exist only in the parent, and woke the parent's
/// poller.
#[test]
fn shutdown_in_forked_child_is_a_no_op() {
    child("shutdown_in_forked_child_is_a_no_op", || {
        let (client, server) = park_on(pair());
        let echo = task::spawn(async move { common::echo(&server).await });
        park_on(ping(&client, b"before")).unwrap();
        for _ in 0..20 {
            forked(|| i32::from(rt::shutdown(common::BOUND).is_err() || rt::shutdown(Duration::ZERO).is_err()));
            park_on(ping(&client, b"parent")).unwrap();
        }
        drop(client);
        park_on(echo).unwrap();
        rt::shutdown(common::BOUND).unwrap();
    });
}

#[test]
fn fork_before_first_use_works() {
    child("fork_before_first_use_works", || {
        forked(|| {
            let answer = task::block_on(async {
                let (client, server) = pair().await;
                let echo = task::spawn(async move { common::echo(&server).await });
                ping(&client, b"child").await.unwrap();
                drop(client);
                echo.await.is_ok()
            });
            i32::from(!answer)
        });
        task::block_on(async { task::spawn(async {}).await });
    });
}

#[test]
fn child_that_execs_does_not_disturb_parent() {
    child("child_that_execs_does_not_disturb_parent", || {
        let (client, server) = park_on(pair());
        let echo = task::spawn(async move { common::echo(&server).await });
        for _ in 0..20 {
            park_on(ping(&client, b"before")).unwrap();
            assert!(std::process::Command::new("true").status().unwrap().success());
        }
        drop(client);
        park_on(echo).unwrap();
    });
}

/// Regression: the registration of a socket of which a child had a duplicate remained after the
/// parent's close, and its events woke the parent spuriously.
#[test]
fn sockets_that_a_child_keeps_leave_epoll_when_the_parent_closes_them() {
    child("sockets_that_a_child_keeps_leave_epoll_when_the_parent_closes_them", || {
        let (client, server) = park_on(pair());
        let listener = park_on(common::listener());
        let addr = listener.local_addr().unwrap();
        assert!(poll_now(&mut server.readable()).is_pending());
        assert!(poll_now(&mut listener.accept()).is_pending());
        let (one, other) = park_on(pair());
        let echo = task::spawn(async move { common::echo(&other).await });
        // SAFETY: the child only makes calls that are safe after a fork.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // Ends the child if the test fails.
            // SAFETY: the arguments are numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                // SAFETY: the call takes no arguments.
                unsafe { libc::pause() };
            }
        }
        assert!(pid > 0);
        drop((server, listener));
        park_on(ping(&one, b"before")).unwrap();
        park_on(common::assert_no_stale_events("the sockets of the child", async || {
            client.write_all(b"x").await.unwrap();
            drop(std::net::TcpStream::connect(addr).unwrap());
            ping(&one, b"after").await.unwrap();
        }));
        // SAFETY: our own child, which was not waited for yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        // SAFETY: no status is requested.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        drop(one);
        park_on(echo).unwrap();
    });
}

/// Regression: a drop in the child removed the parent's sockets from the shared epoll instance, so
/// that waiters of the parent slept forever. The drop also removed a listener's file.
#[test]
fn drops_in_forked_child_do_not_affect_parent() {
    child("drops_in_forked_child_do_not_affect_parent", || {
        let folder = common::Folder::new();
        let path = folder.join("listener");
        let (client, server) = park_on(pair());
        // Code that has seen the number may have a duplicate, so a close removes the socket from
        // the poller.
        let _ = server.as_raw_fd();
        let (lent, mut writer) = std::io::pipe().unwrap();
        let lent = AsyncFd::new(lent).unwrap();
        let listener = park_on(UnixListener::bind(&path)).unwrap();
        let (lingers, _peer) = park_on(pair());
        lingers.set_linger(Some(Duration::from_secs(1))).unwrap();
        let mut all = Some((server, lent, listener, lingers));
        {
            let (server, lent, ..) = all.as_ref().unwrap();
            assert!(poll_now(&mut server.readable()).is_pending());
            assert!(poll_now(&mut lent.readable()).is_pending());
        }
        forked(|| {
            drop(all.take());
            0
        });
        assert!(path.exists());
        let (server, lent, listener, _lingers) = all.take().unwrap();
        // If an event is lost, the deadline makes the test fail instead of hang.
        let deadline = std::time::Instant::now() + common::BOUND / 6;
        server.set_deadline(deadline).unwrap();
        lent.set_deadline(deadline).unwrap();
        let (mut read, mut readable) = (server.readable(), lent.readable());
        assert!(poll_now(&mut read).is_pending() && poll_now(&mut readable).is_pending());
        park_on(client.write_all(b"x")).unwrap();
        writer.write_all(b"x").unwrap();
        park_on(read).unwrap();
        drop(park_on(readable).unwrap());
        drop(listener);
        assert!(!path.exists());
    });
}

/// Stores the id of the process in which it is dropped.
struct Dropped(&'static AtomicU32);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(std::process::id(), Ordering::SeqCst);
    }
}

/// A close in the child wakes the child's copy of a task that waits. The task continues in the
/// parent.
#[test]
fn destructors_of_the_parents_tasks_do_not_run_in_a_child() {
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    child("destructors_of_the_parents_tasks_do_not_run_in_a_child", || {
        let (_client, server) = park_on(pair());
        let own = server.clone();
        let waits = task::spawn(async move {
            let _dropped = Dropped(&DROPPED);
            let _ = own.read(&mut [0; 1]).await;
        });
        common::eventually("the task waits", || rt::metrics().waiters == 1);
        forked(|| {
            drop(server.force_close());
            if DROPPED.load(Ordering::SeqCst) != 0 { 1 } else { 0 }
        });
        drop(server.force_close());
        park_on(waits);
        assert_eq!(DROPPED.load(Ordering::SeqCst), std::process::id());
    });
}

#[test]
fn drop_in_a_child_does_not_stop_the_inspect_server() {
    child("drop_in_a_child_does_not_stop_the_inspect_server", || {
        let folder = common::Folder::new();
        let path = folder.join("socket");
        let mut server = Some(rt::InspectServer::bind(&path).unwrap());
        forked(|| {
            drop(server.take());
            0
        });
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        client.write_all(b"text\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("tasks"), "{answer}");
        drop(server);
        assert!(!path.exists());
    });
}

/// Returns the numbers of the open descriptors.
fn numbers() -> Vec<i32> {
    // SAFETY: no pointer is passed.
    (0..1024).filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0).collect()
}

/// Regression: the handler wrote to the pipe that the child shares with its parent.
#[test]
fn signal_of_forked_child_does_not_request_a_snapshot_of_its_parent() {
    child("signal_of_forked_child_does_not_request_a_snapshot_of_its_parent", || {
        let before = numbers();
        rt::dump_on_sigusr1().unwrap();
        // Regression: the call returned `Ok` in the child.
        forked(|| i32::from(!rt::dump_on_sigusr1().is_err_and(|error| is_of_fork(&error))));
        // SAFETY: no pointer is passed.
        let is_reader = |fd| unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_ACCMODE == libc::O_RDONLY;
        let reader = numbers().into_iter().find(|&fd| !before.contains(&fd) && is_reader(fd)).unwrap();
        let unread = || {
            let mut count: libc::c_int = 0;
            // SAFETY: FIONREAD writes an int.
            assert_eq!(unsafe { libc::ioctl(reader, libc::FIONREAD, &raw mut count) }, 0);
            count
        };
        // SAFETY: no pointer is passed.
        let signal = || unsafe { libc::raise(libc::SIGUSR1) };
        // Standard error is a full pipe, so the thread that prints snapshots takes the first byte
        // and then blocks.
        let (mut output, mut full) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&full, true).unwrap();
        while full.write(&[0; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&full, false).unwrap();
        // SAFETY: no pointer is passed.
        let stderr = unsafe { libc::dup(2) };
        // SAFETY: no pointer is passed.
        assert_eq!(unsafe { libc::dup2(full.as_raw_fd(), 2) }, 2);
        signal();
        common::eventually("the first request is taken", || unread() == 0);
        forked(signal);
        let of_child = unread();
        signal();
        let of_both = unread();
        // SAFETY: no pointer is passed.
        assert_eq!(unsafe { libc::dup2(stderr, 2) }, 2);
        std::thread::spawn(move || while output.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {});
        assert_eq!((of_child, of_both), (0, 1));
    });
}

/// Regression: the operations waited for calls that continue only in the parent.
#[test]
fn standard_streams_in_use_at_the_fork_fail_in_the_child() {
    use netpoll::io::{ReadExt as _, WriteExt as _};
    child("standard_streams_in_use_at_the_fork_fail_in_the_child", || {
        // A standard input without bytes, and a standard output without room.
        let ((empty, _feeder), (_reader, full)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let output = rustix::io::dup(std::io::stdout()).unwrap();
        let place = |fd: i32, number: i32| {
            // SAFETY: both are descriptors of this process, and nothing else uses `number` now.
            assert_eq!(unsafe { libc::dup2(fd, number) }, number);
        };
        place(empty.as_raw_fd(), 0);
        place(full.as_raw_fd(), 1);
        let (mut stdin, mut stdout) = (netpoll::io::stdin(), netpoll::io::stdout());
        let mut poll_both = || {
            let read = poll_now(&mut stdin.read(&mut [0; 1]));
            let written = poll_now(&mut stdout.write_all(&[b'x'; 1 << 20]));
            let flushed = poll_now(&mut stdout.flush());
            [read.map(|read| read.is_err()), written.map(|written| written.is_err()), flushed.map(|done| done.is_err())]
        };
        assert!(poll_both().iter().all(Poll::is_pending));
        forked(|| i32::from(poll_both().iter().any(|polled| *polled != Poll::Ready(true))));
        place(output.as_raw_fd(), 1);
    });
}
