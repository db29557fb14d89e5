//! A worker without work takes the events of the poller if the system has not let the sleeping
//! worker run yet.
//!
//! A function of this binary replaces epoll_wait(2), so that the test can hold the sleeping worker.
//! Therefore the binary has one test.
#![cfg(target_os = "linux")] // epoll
#![allow(unsafe_code)]

mod common;

use std::collections::HashSet;
use std::ffi::c_int;
use std::future::{Future as _, poll_fn};
use std::io::Write as _;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::{eventually, run};
use netpoll::net::TcpStream;
use netpoll::{rt, task};

/// While this flag is set, threads that would sleep in epoll do not run.
static HOLDS: AtomicBool = AtomicBool::new(false);
/// The number of threads that are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Replaces epoll_wait(2). While [`HOLDS`] is set, a call that may sleep does not return, as if the
/// system did not let the thread run.
///
/// # Safety
/// Same as epoll_wait(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut libc::epoll_event, most: c_int, millis: c_int) -> c_int {
    if millis != 0 && HOLDS.load(Ordering::SeqCst) {
        HELD.fetch_add(1, Ordering::SeqCst);
        while HOLDS.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        HELD.fetch_sub(1, Ordering::SeqCst);
    }
    // SAFETY: the caller keeps the contract of epoll_wait(2). epoll_pwait(2) with a null mask has
    // the same contract.
    unsafe { libc::epoll_pwait(epoll, events, most, millis, std::ptr::null()) }
}

/// Lets the held threads run when it is dropped.
struct Hold;

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDS.store(false, Ordering::SeqCst);
    }
}

/// The threads that have run [`busy`].
static THREADS: LazyLock<Mutex<HashSet<ThreadId>>> = LazyLock::new(Mutex::default);

/// Runs turns of 100 µs until `ends` is set.
async fn busy(ends: &AtomicBool) {
    while !ends.load(Ordering::SeqCst) {
        THREADS.lock().unwrap().insert(thread::current().id());
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(100) {
            std::hint::spin_loop();
        }
        task::yield_now().await;
    }
}

#[test]
fn worker_without_work_takes_events_of_a_sleeping_worker_that_does_not_run() {
    if std::env::var("NETPOLL_BACKEND").is_ok_and(|name| !name.is_empty() && name != "epoll") {
        return println!("skipped: only on epoll do workers look for events");
    }
    static WAITS: AtomicBool = AtomicBool::new(false);
    static IS_READ: AtomicBool = AtomicBool::new(false);
    static ENDS: [AtomicBool; 8] = [const { AtomicBool::new(false) }; 8];
    rt::Builder::new().workers(2).poller_shards(1).start().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = listener.accept().unwrap().0;
    let duplicate = socket.try_clone().unwrap();
    // Both descriptors become non-blocking.
    let stream = TcpStream::from(socket);
    let reader = task::spawn(async move {
        let mut buf = [0; 8];
        let mut read = pin!(stream.read(&mut buf));
        let count = poll_fn(|cx| {
            let polled = read.as_mut().poll(cx);
            WAITS.fetch_or(polled.is_pending(), Ordering::SeqCst);
            polled
        });
        assert_eq!(count.await.unwrap(), 4);
        IS_READ.store(true, Ordering::SeqCst);
    });
    // The turns of these tasks are long enough that a second worker is woken.
    let tasks = ENDS.each_ref().map(|ends| task::spawn(busy(ends)));
    eventually("the read waits", || WAITS.load(Ordering::SeqCst));
    eventually("both workers run", || THREADS.lock().unwrap().len() > 1);
    let hold = Hold;
    HOLDS.store(true, Ordering::SeqCst);
    // The first task keeps one worker busy. The other worker has no task left, and sleeps.
    ENDS[1..].iter().for_each(|ends| ends.store(true, Ordering::SeqCst));
    eventually("a worker sleeps", || HELD.load(Ordering::SeqCst) == 1);
    peer.write_all(b"ping").unwrap();
    eventually("the bytes arrive", || duplicate.peek(&mut [0]).is_ok());
    ENDS[0].store(true, Ordering::SeqCst);
    eventually("the other worker reads", || IS_READ.load(Ordering::SeqCst));
    assert_eq!(HELD.load(Ordering::SeqCst), 1, "the sleeping worker is still held");
    drop(hold);
    run(async {
        reader.await;
        for task in tasks {
            task.await;
        }
    });
}
