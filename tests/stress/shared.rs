//! Connections that several actors use at a time: operations of every kind, deadlines that others move, closes under whoever waits, and a
//! new connection in the same place at once.
//!
//! Nobody knows what an operation finds, so the result may be anything. But each operation has a bound of its own (it is dropped,
//! loses a race, or its deadline comes), and ends by then; and a timeout is never told before the earliest that was ever set.

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

/// One connection, with what was ever set on it.
#[derive(Debug)]
struct Shared {
    ends: [Conn; 2],
    made: Instant,
    /// Changes with every deadline and timeout that is set.
    version: AtomicU64,
    /// The earliest time, in nanoseconds after `made`, at which a timeout may be told.
    earliest: AtomicU64,
}

const PLACES: usize = 8;
static PLACE: [Mutex<Option<Arc<Shared>>>; PLACES] = [const { Mutex::new(None) }; PLACES];
/// Which end an operation takes.
static TURN: AtomicU64 = AtomicU64::new(0);

fn place(slot: Few) -> MutexGuard<'static, Option<Arc<Shared>>> {
    PLACE[slot.0 as usize % PLACES].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Something was set that fires at `due`, or is counted from when it was set.
    fn note(&self, due: Instant) -> u64 {
        self.earliest.fetch_min(due.saturating_duration_since(self.made).as_nanos() as u64, SeqCst);
        self.version.fetch_add(1, SeqCst) + 1
    }
}

/// The connection in this place, which is opened if there is none.
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
    // Two may have opened one at a time: the first stays.
    Some(place(slot).get_or_insert(shared).clone())
}

pub async fn operate(span: Span, slot: Few, op: SharedOp, bound: Bound, ms: Ms) {
    let length = ms.duration().min(Duration::from_millis(400));
    let _watch = watch_for(length, format!("{op:?} on shared connection {}, bound {bound:?} {length:?}", slot.0));
    let Some(shared) = connection(span, slot).await else { return };
    let conn = &shared.ends[TURN.fetch_add(1, SeqCst) as usize % 2];
    let is_write = matches!(op, SharedOp::Write | SharedOp::PollWrite);
    let act = perform(span, conn.clone(), op, length);
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
            // On a socket that was closed it is an error, and so is the operation.
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
                    // Others may have moved it: then its end is not known.
                    let was_moved = shared.version.load(SeqCst) != version;
                    // A hold has no deadline, a copy ends by itself, and a timeout does not apply to waiting for the peer's end.
                    let must_end = match op {
                        SharedOp::Hold | SharedOp::Copies => false,
                        SharedOp::PeerClosed => bound == Bound::Deadline,
                        _ => true,
                    };
                    span.check(was_moved || !must_end, || {
                        format!("{op:?} with {bound:?} of {length:?} has not ended after {patience:?} more")
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

async fn perform(span: Span, conn: Conn, op: SharedOp, length: Duration) -> io::Result<()> {
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
            // Waits by name only: the future is there, its waker is heard by nobody.
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
            let _ = span;
            Ok(())
        }
    }
}

/// Closes a connection, or changes it for whoever uses it.
pub fn shut(slot: Few, how: SharedEnd, ms: Ms) {
    let taken = match how {
        SharedEnd::Close | SharedEnd::CloseBoth | SharedEnd::Drop => place(slot).take(),
        SharedEnd::Finish | SharedEnd::Clear | SharedEnd::Move => place(slot).clone(),
    };
    let Some(shared) = taken else { return };
    // Errors are expected: another actor may have closed it before.
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

/// Lets go of all connections.
pub fn clear() {
    for place in &PLACE {
        let taken = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(taken);
    }
}
