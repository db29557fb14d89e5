//! Connections that several actors use at the same time: operations of every kind, deadlines that
//! other actors move, closes while other actors wait, and new connections that immediately take the
//! place of closed ones.
//!
//! The result of an operation is not predictable, so any result is accepted. But each operation
//! must end by its own bound: it is dropped, loses a race, or its deadline or timeout passes,
//! unless another actor has changed the deadline or timeout. A timeout must not be reported before
//! the earliest time that was set.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use netpoll::net::is_timeout;
use netpoll::{future, task};

use crate::conn::{Conn, Counting};
use crate::oracle::{self, Span, Token, watch_for};
use crate::program::{Bound, SharedEnd, SharedOp, Stream};
use crate::words::{Few, Ms};

/// One connection, with the deadlines and timeouts that were set on it.
#[derive(Debug)]
struct Shared {
    ends: [Conn; 2],
    made: Instant,
    /// Changes whenever deadlines or timeouts are set or cleared.
    version: AtomicU64,
    /// The earliest time, in nanoseconds after `made`, at which a timeout may be reported.
    earliest: AtomicU64,
}

/// The number of places for connections.
const PLACES: usize = 8;
static PLACE: [Mutex<Option<Arc<Shared>>>; PLACES] = [const { Mutex::new(None) }; PLACES];
/// Selects the end of the connection that an operation uses.
static TURN: AtomicU64 = AtomicU64::new(0);

fn place(slot: Few) -> MutexGuard<'static, Option<Arc<Shared>>> {
    PLACE[slot.0 as usize % PLACES].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Records a deadline at `due`, or a timeout that may fire at `due` at the earliest. Returns
    /// the new version.
    fn note(&self, due: Instant) -> u64 {
        self.earliest.fetch_min(due.saturating_duration_since(self.made).as_nanos() as u64, SeqCst);
        self.version.fetch_add(1, SeqCst) + 1
    }
}

/// Returns the connection in this place. Opens a connection if there is none.
async fn connection(span: Span, slot: Few) -> Option<Arc<Shared>> {
    if let Some(shared) = &*place(slot) {
        return Some(shared.clone());
    }
    let kind = [Stream::Unix, Stream::Tcp, Stream::Pipe, Stream::Unix][slot.0 as usize % 4];
    let (one, other) = span.ok(Conn::pair(kind).await, "a pair")?;
    let shared = Arc::new(Shared {
        ends: [one, other],
        made: Instant::now(),
        version: AtomicU64::new(0),
        earliest: AtomicU64::new(u64::MAX),
    });
    // Two actors may have opened a connection at the same time. The first connection stays.
    Some(place(slot).get_or_insert(shared).clone())
}

/// Performs an operation on a shared connection, and checks that its bound ends it.
pub async fn operate(span: Span, slot: Few, op: SharedOp, bound: Bound, ms: Ms) {
    let length = ms.duration().min(Duration::from_millis(400));
    let _watch = watch_for(length, format!("{op:?} on shared connection {}, bound {bound:?} {length:?}", slot.0));
    let Some(shared) = connection(span, slot).await else { return };
    let conn = &shared.ends[TURN.fetch_add(1, SeqCst) as usize % 2];
    let is_write = matches!(op, SharedOp::Write | SharedOp::PollWrite);
    let act = perform(conn.clone(), op, length);
    let result = match bound {
        Bound::Drop => future::timeout(length, act).await.ok(),
        Bound::Race => {
            let (act, sleep) = (pin!(act), pin!(task::sleep(length)));
            match select(act, sleep).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            }
        }
        Bound::Deadline | Bound::Timeout => {
            let due = Instant::now() + length;
            let version = shared.note(if bound == Bound::Deadline { due } else { Instant::now() });
            // On a closed end the setter fails, and the operation fails too.
            let _ = match (bound, is_write) {
                (Bound::Deadline, true) => conn.set_write_deadline(Some(due)),
                (Bound::Deadline, false) => conn.set_read_deadline(Some(due)),
                (_, true) => conn.set_write_timeout(Some(length.max(Duration::from_millis(1)))),
                (_, false) => conn.set_read_timeout(Some(length.max(Duration::from_millis(1)))),
            };
            let patience = length + oracle::late() / 2;
            let act = pin!(act);
            match select(act, pin!(task::sleep(patience))).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => {
                    // Other actors may have moved the deadline. Then the time at which the
                    // operation ends is unknown.
                    let was_moved = shared.version.load(SeqCst) != version;
                    // A hold has no deadline, a copy ends by itself, and a timeout does not apply
                    // to a wait for the peer's end.
                    let must_end = match op {
                        SharedOp::Hold | SharedOp::Copies => false,
                        SharedOp::PeerClosed => bound == Bound::Deadline,
                        _ => true,
                    };
                    span.check(was_moved || !must_end, || {
                        format!("{op:?} with {bound:?} of {length:?} has not ended after {patience:?}")
                    });
                    None
                }
            }
        }
    };
    if let Some(Err(error)) = result
        && is_timeout(&error)
    {
        let (now, earliest) = (shared.made.elapsed().as_nanos() as u64, shared.earliest.load(SeqCst));
        span.check(now >= earliest, || format!("{op:?} timed out {} ns early", earliest - now));
    }
}

async fn perform(conn: Conn, op: SharedOp, length: Duration) -> io::Result<()> {
    let mut buf = [0; 600];
    match op {
        SharedOp::Read => conn.read(&mut buf).await.map(drop),
        SharedOp::Write => conn.write(&buf).await.map(drop),
        SharedOp::Readable => conn.readable().await,
        SharedOp::Peek => conn.peek(&mut buf).await.map(drop),
        SharedOp::PollRead => poll_fn(|cx| conn.poll_read(cx, &mut buf)).await.map(drop),
        SharedOp::PollWrite => poll_fn(|cx| conn.poll_write(cx, &buf)).await.map(drop),
        SharedOp::PeerClosed => conn.peer_closed().await,
        SharedOp::Hold => {
            // This future only occupies a place in the queue of waiters. A call of its waker polls
            // nothing.
            let waker = Waker::from(Counting::new());
            let mut read: Pin<Box<dyn Future<Output = io::Result<usize>> + Send>> = Box::pin(conn.read(&mut buf));
            let _ = read.as_mut().poll(&mut Context::from_waker(&waker));
            task::sleep(length).await;
            Ok(())
        }
        SharedOp::Copies => {
            let (copy, token) = (conn.clone(), Token::new("copy"));
            drop(conn);
            let reader = task::spawn(async move {
                let _token = token;
                let _ = future::timeout(length, copy.read(&mut [0; 100])).await;
            });
            reader.await;
            Ok(())
        }
    }
}

/// Closes a connection, or changes it while others use it.
pub fn shut(slot: Few, how: SharedEnd, ms: Ms) {
    let taken = match how {
        SharedEnd::Close | SharedEnd::CloseBoth | SharedEnd::Drop => place(slot).take(),
        SharedEnd::Finish | SharedEnd::Clear | SharedEnd::Move => place(slot).clone(),
    };
    let Some(shared) = taken else { return };
    // Errors are expected, because another actor may have closed the connection.
    match how {
        SharedEnd::Close => shared.ends[0].close(),
        SharedEnd::CloseBoth => shared.ends.iter().for_each(Conn::close),
        SharedEnd::Drop => {}
        SharedEnd::Finish => _ = shared.ends[0].finish(),
        SharedEnd::Clear => {
            shared.version.fetch_add(1, SeqCst);
            for end in &shared.ends {
                let _ = end.set_deadline(None);
                let _ = end.set_read_timeout(None);
                let _ = end.set_write_timeout(None);
            }
        }
        SharedEnd::Move => {
            let due = Instant::now() + ms.duration();
            shared.note(due);
            for end in &shared.ends {
                let _ = end.set_deadline(Some(due));
            }
        }
    }
}

/// Drops all connections.
pub fn clear() {
    for place in &PLACE {
        let taken = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(taken);
    }
}
