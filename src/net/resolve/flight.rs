//! [`Lookup`]: look-ups in progress. Identical look-ups share one query, a *flight*.
//!
//! # States
//! A flight is *open* while it is in the table, where other look-ups can join it. The *job* of the
//! flight runs the query on a thread for look-ups, and removes the flight when there is an answer.
//! If all look-ups of the flight are dropped before the query begins, the job removes the flight
//! without running the query. Dropping a job that was not run, or whose query panicked, also
//! removes its flight. A later look-up starts a new query, so nothing is cached. In a simulation,
//! no flight is in the table.
//!
//! # Invariants
//! * Every flight gets a reply. Its job replies at the latest when the job is dropped, even if a
//!   shutdown empties the pool's queue.
//! * Joining a flight and abandoning it before the query exclude each other through the table's
//!   lock, which is taken before a flight's lock.
//! * Wakers are cloned, woken and dropped outside both locks.
//!
//! # Cancellation
//! A dropped [`Lookup`] removes its waker; the other look-ups of the flight continue. A query that
//! has begun runs to completion on its thread.
//!
//! # Compared with Go (internal/singleflight)
//! The rule is the same, with one exception: Go runs a shared query even if the contexts of all its
//! callers have ended; here such a query is not run if it has not begun.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use super::lookup_error::LookupError;
use super::query::{Answer, Query};
use crate::rt::fork;
use crate::rt::runtime::runtime;
use crate::rt::waiters::{Interest, Key, Waiters, Wakers};
use crate::sync::{Arc, Mutex};
use crate::task::spawn_lookup;

static TABLE: LazyLock<Table> = LazyLock::new(Table::default);

/// Creates the table outside of a simulation, because its hasher takes random numbers from the
/// thread that first uses it.
#[cfg(feature = "sim")]
pub(crate) fn prepare() {
    LazyLock::force(&TABLE);
}

type Reply = Result<Answer, LookupError>;

/// The flights that can be joined.
#[derive(Debug, Default)]
struct Table(Mutex<HashMap<Query, Arc<Flight>>>);

#[derive(Debug)]
struct Flight {
    query: Query,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reply: Option<Reply>,
    /// The number of look-ups of the flight that were not dropped, whether or not they have been
    /// polled.
    joined: usize,
    waiters: Waiters,
}

impl Flight {
    /// Creates a flight that one look-up has joined.
    fn new(query: Query, reply: Option<Reply>) -> Arc<Flight> {
        Arc::new(Flight { query, state: Mutex::new(State { reply, joined: 1, waiters: Waiters::new() }) })
    }
}

/// A future that returns the answer to a query.
pub(crate) struct Lookup {
    flight: Arc<Flight>,
    key: Option<Key>,
}

impl Lookup {
    /// Joins the open flight of an equal query. If there is none, starts the query on a thread for
    /// look-ups. In a forked child, the look-up fails.
    pub(crate) fn new(query: Query) -> Lookup {
        if let Err(error) = fork::check() {
            let reply = Some(Err(query.refused(&error)));
            return Lookup { flight: Flight::new(query, reply), key: None };
        }
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            // The query is not shared, because another simulation, or another host of this one, may
            // get other answers.
            let (lookup, job) = TABLE.alone(query);
            drop(spawn_lookup(move || job.run(Query::ask)));
            return lookup;
        }
        let (lookup, job) = TABLE.join(query);
        if let Some(job) = job {
            drop(spawn_lookup(move || job.run(Query::ask)));
        }
        lookup
    }

    pub(crate) fn query(&self) -> &Query {
        &self.flight.query
    }
}

impl Future for Lookup {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let this = &mut *self;
        {
            let mut state = this.flight.state.lock();
            if let Some(reply) = &state.reply {
                return Poll::Ready(reply.clone());
            }
            if this.key.is_some_and(|key| state.waiters.holds(key, cx.waker())) {
                drop(state);
                return look_up_is_pending(cx);
            }
        }
        let waker = cx.waker().clone();
        let (_replaced, _unused);
        let mut state = this.flight.state.lock();
        if let Some(reply) = state.reply.clone() {
            drop(state);
            _unused = waker;
            return Poll::Ready(reply);
        }
        let (key, replaced) = state.waiters.insert(this.key, Interest::Event, waker);
        drop(state);
        this.key = Some(key);
        _replaced = replaced;
        look_up_is_pending(cx)
    }
}

/// Returns `Pending`. The caller must hold no lock.
fn look_up_is_pending(cx: &Context<'_>) -> Poll<Reply> {
    // If the runtime has no threads, this call runs queued work, such as the query's job.
    runtime().wait_begins(cx);
    Poll::Pending
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock();
        state.joined -= 1;
        let waker = self.key.and_then(|key| state.waiters.remove(key));
        drop(state);
        drop(waker);
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(self.query()).finish()
    }
}

impl Table {
    /// Creates a look-up. Also returns the job to run if the look-up starts a new flight.
    fn join(&'static self, query: Query) -> (Lookup, Option<Job>) {
        let mut open = self.0.lock();
        if let Some(flight) = open.get(&query) {
            flight.state.lock().joined += 1;
            return (Lookup { flight: flight.clone(), key: None }, None);
        }
        let flight = Flight::new(query.clone(), None);
        open.insert(query, flight.clone());
        let job = Job { table: self, flight: flight.clone() };
        (Lookup { flight, key: None }, Some(job))
    }
}

#[cfg(feature = "sim")]
impl Table {
    /// Creates a look-up that is not shared, and its job.
    fn alone(&'static self, query: Query) -> (Lookup, Job) {
        let flight = Flight::new(query, None);
        (Lookup { flight: flight.clone(), key: None }, Job { table: self, flight })
    }
}

/// The job that runs a flight's query. A job that is dropped without running also answers its
/// flight.
struct Job {
    table: &'static Table,
    flight: Arc<Flight>,
}

impl Job {
    fn run(self, ask: impl FnOnce(&Query) -> Reply) {
        let open = self.table.0.lock();
        let abandoned = self.flight.state.lock().joined == 0;
        if abandoned {
            // The table stays locked, so no look-up can join between the check and the removal.
            return self.end(open, None);
        }
        drop(open);
        let reply = ask(&self.flight.query);
        self.end(self.table.0.lock(), Some(reply));
    }

    /// Removes the flight from the table and answers it, unless this was already done. `None` means
    /// that the query has no answer, and the look-ups get the error of a shutdown.
    fn end(&self, mut open: crate::sync::MutexGuard<'_, HashMap<Query, Arc<Flight>>>, reply: Option<Reply>) {
        let ours = open.get(&self.flight.query).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        let entry = if ours { open.remove_entry(&self.flight.query) } else { None };
        drop(open);
        drop(entry);
        let mut wakers = Wakers::new();
        {
            let mut state = self.flight.state.lock();
            if state.reply.is_none() {
                state.reply = Some(reply.unwrap_or_else(|| Err(self.flight.query.shut_down())));
                state.waiters.take_all(&mut wakers);
            }
        }
        wakers.wake_all();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // If `run` has ended the flight, this does nothing.
        self.end(self.table.0.lock(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Wake, Waker};

    use crate::counting_waker::CountingWaker;
    use crate::sys::names::Family;

    fn table() -> &'static Table {
        Box::leak(Box::default())
    }

    fn query(host: &str) -> Query {
        Query::Addrs(host.to_owned(), Family::Any)
    }

    fn answer() -> Reply {
        Ok(Answer::Port(7))
    }

    fn poll(lookup: &mut Lookup, count: &Arc<CountingWaker>) -> Poll<Reply> {
        Pin::new(lookup).poll(&mut Context::from_waker(&Waker::from(count.clone())))
    }

    fn is_answered(lookup: &mut Lookup) -> bool {
        matches!(poll(lookup, &Arc::default()), Poll::Ready(Ok(Answer::Port(7))))
    }

    #[test]
    fn identical_look_ups_share_a_query_and_others_do_not() {
        let table = table();
        let (mut first, job) = table.join(query("a"));
        let (mut second, none) = table.join(query("a"));
        assert!(none.is_none());
        let (_other, other_job) = table.join(query("b"));
        assert!(other_job.is_some());
        let counts: [Arc<CountingWaker>; 2] = Default::default();
        assert!(poll(&mut first, &counts[0]).is_pending() && poll(&mut second, &counts[1]).is_pending());
        job.unwrap().run(|_| answer());
        assert_eq!(counts.each_ref().map(|count| count.wakeups()), [1, 1]);
        assert!(is_answered(&mut first) && is_answered(&mut second));
        // Nothing is cached: the next look-up starts a query.
        assert!(table.join(query("a")).1.is_some());
    }

    #[test]
    fn dropping_a_lookup_leaves_the_others() {
        let table = table();
        let (mut first, job) = table.join(query("a"));
        let (mut second, _) = table.join(query("a"));
        let counts: [Arc<CountingWaker>; 2] = Default::default();
        assert!(poll(&mut first, &counts[0]).is_pending() && poll(&mut second, &counts[1]).is_pending());
        drop(first);
        assert_eq!(Arc::strong_count(&counts[0]), 1, "the waker of the dropped look-up is still held");
        let (mut late, none) = table.join(query("a"));
        assert!(none.is_none());
        job.unwrap().run(|_| answer());
        assert_eq!(counts.each_ref().map(|count| count.wakeups()), [0, 1]);
        assert!(is_answered(&mut second) && is_answered(&mut late));
    }

    #[test]
    fn abandoned_query_is_not_run() {
        let table = table();
        let (first, job) = table.join(query("a"));
        drop(first);
        job.unwrap().run(|_| panic!("the query was run"));
        assert!(table.0.lock().is_empty());
        // If a look-up joins before the job runs, the job runs the query.
        let (first, job) = table.join(query("a"));
        drop(first);
        let (mut second, none) = table.join(query("a"));
        assert!(none.is_none());
        job.unwrap().run(|_| answer());
        assert!(is_answered(&mut second));
    }

    #[test]
    fn dropped_or_panicked_job_still_answers() {
        let table = table();
        for panics in [false, true] {
            let (mut lookup, job) = table.join(query("a"));
            let count = Arc::default();
            assert!(poll(&mut lookup, &count).is_pending());
            let job = job.unwrap();
            if panics {
                let run = std::panic::AssertUnwindSafe(|| job.run(|_| panic!("a test")));
                assert!(std::panic::catch_unwind(run).is_err());
            } else {
                drop(job);
            }
            assert_eq!(count.wakeups(), 1);
            let Poll::Ready(Err(error)) = poll(&mut lookup, &count) else { panic!("no answer") };
            assert_eq!(error.to_string(), "lookup a: runtime shut down");
            assert!(table.0.lock().is_empty());
        }
    }

    /// Invariant 12: wakers are woken and dropped while no lock is held, so they may start
    /// look-ups.
    #[test]
    fn wakers_run_under_no_lock() {
        struct Nosy(&'static Table);
        impl Nosy {
            fn look(&self) {
                drop(self.0.join(query("a")));
                drop(self.0.join(query("b")));
            }
        }
        impl Wake for Nosy {
            fn wake(self: Arc<Self>) {
                self.look();
            }
        }
        impl Drop for Nosy {
            fn drop(&mut self) {
                self.look();
            }
        }
        let table = table();
        let nosy = || Waker::from(Arc::new(Nosy(table)));
        let (mut first, job) = table.join(query("a"));
        let (mut second, _) = table.join(query("a"));
        for _ in 0..2 {
            // The second waker differs from the first and replaces it.
            assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&nosy())).is_pending());
        }
        assert!(Pin::new(&mut second).poll(&mut Context::from_waker(&nosy())).is_pending());
        drop(first);
        job.unwrap().run(|_| answer());
        assert!(is_answered(&mut second));
    }
}
