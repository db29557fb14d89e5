//! [`Threads`]: the list of the runtime's threads.
//!
//! Threads that serve or print snapshots, or write files, are not listed.
//!
//! # States of a thread
//! A thread is listed when it starts. If it ends before its epoch does (for example a spare worker,
//! or a thread of a blocking pool), it removes itself from the list and is detached. Otherwise it
//! stays in the list until a shutdown or the next start joins it. At its end, a shutdown detaches
//! the threads that are still listed.
//!
//! # Joining
//! `std::thread::JoinHandle::join` waits for the thread-local destructors of the thread, which are
//! user code and may wait forever. `is_finished` returns true as soon as the closure has returned,
//! before these destructors run. On Linux, pthread_tryjoin_np(3) does not wait, and succeeds once
//! the thread has ended. On macOS and FreeBSD, a thread whose closure has returned is joined by a
//! call that waits for its destructors.
//!
//! # Thread-local destructors
//! A thread counts as inside the runtime (`context::is_inside`) until it has ended. Otherwise a
//! thread-local destructor that calls `rt::shutdown` would wait for its own thread.

use std::io;
use std::mem;
use std::thread::{self, JoinHandle};

use super::context;
use crate::sync::Mutex;
use crate::sys::os;

/// The runtime's threads; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    pub(crate) const fn new() -> Threads {
        Threads(Mutex::new(Vec::new()))
    }

    /// Starts a thread that runs `main`.
    ///
    /// # Errors
    /// Returns the error of pthread_create(3): EAGAIN if a limit on the number of threads is
    /// reached or the system lacks resources, such as memory.
    pub(crate) fn start(&self, name: String, main: impl FnOnce() + Send + 'static) -> io::Result<()> {
        // Locked during the start, so that even a thread that ends immediately is in the list when
        // it leaves.
        let mut list = self.0.lock();
        let thread = thread::Builder::new().name(name).spawn(move || {
            context::enter();
            main();
        })?;
        list.push(thread);
        Ok(())
    }

    /// Removes and detaches the calling thread, which is about to end and will not be joined.
    pub(crate) fn leave(&self) {
        let own = thread::current().id();
        let mut list = self.0.lock();
        let thread = list.iter().position(|thread| thread.thread().id() == own).map(|at| list.swap_remove(at));
        drop(list);
        drop(thread);
    }

    /// Joins the threads that have ended. Returns the number of threads that are still listed.
    pub(crate) fn join_ended(&self) -> usize {
        let mut list = self.0.lock();
        *list = mem::take(&mut *list).into_iter().filter_map(|thread| os::try_join(thread).err()).collect();
        list.len()
    }

    /// Returns the names of the listed threads.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().iter().map(|thread| thread.thread().name().unwrap_or("?").to_owned()).collect()
    }

    /// Detaches all listed threads.
    pub(crate) fn detach_all(&self) {
        let threads = mem::take(&mut *self.0.lock());
        drop(threads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    const BOUND: Duration = Duration::from_secs(120);

    fn becomes_empty(threads: &Threads) {
        let start = Instant::now();
        while threads.join_ended() > 0 {
            assert!(start.elapsed() < BOUND);
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn thread_is_joined_after_its_local_destructors() {
        struct Waits(mpsc::Receiver<()>, mpsc::Sender<bool>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.1.send(context::is_inside()).unwrap();
                let _ = self.0.recv();
            }
        }
        thread_local!(static LOCAL: std::cell::RefCell<Option<Waits>> = const { std::cell::RefCell::new(None) });
        let threads = Threads::new();
        let ((release, wait), (begun, begins)) = (mpsc::channel(), mpsc::channel());
        threads.start("slow".into(), move || LOCAL.set(Some(Waits(wait, begun)))).unwrap();
        assert_eq!(begins.recv_timeout(BOUND), Ok(true), "the thread is inside the runtime until it has ended");
        assert_eq!((threads.join_ended(), threads.names()), (1, vec!["slow".to_owned()]));
        release.send(()).unwrap();
        becomes_empty(&threads);
    }

    #[test]
    fn thread_that_leaves_is_not_joined() {
        let threads = Arc::new(Threads::new());
        let (release, wait) = mpsc::channel::<()>();
        threads.start("stays".into(), move || assert!(wait.recv().is_err())).unwrap();
        let own = threads.clone();
        threads.start("leaves".into(), move || own.leave()).unwrap();
        let start = Instant::now();
        while threads.names() != ["stays"] {
            assert!(start.elapsed() < BOUND);
            thread::yield_now();
        }
        assert_eq!(threads.join_ended(), 1);
        drop(release);
        becomes_empty(&threads);
        threads.start("detached".into(), || {}).unwrap();
        threads.detach_all();
        assert_eq!(threads.join_ended(), 0);
    }
}
