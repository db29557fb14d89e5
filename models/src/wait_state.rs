//! Models of `PollDesc`: edges, waits, closes and expiry of one direction, reuse of a slot, and
//! snapshots.
//!
//! The terms are defined in `rt/poll/side.rs` (edges and the bits of the word), `rt/poll/ticket.rs`
//! (tickets) and `rt/poll/waiting.rs` (the slot and the list).

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::engine::thread;
use crate::harness::block_on;
use crate::net::fd::fd_mutex::FdMutex;
use crate::rt::poll::poll_desc::PollCache;
use crate::rt::poll::poll_desc::{Direction, PollDesc};
use crate::rt::poll::side::{HANG_UP, Side, Stop, Ticket, Wait};
use crate::rt::time::clock::EXPIRED;
use crate::rt::waiters::{Interest, Key, POLLS_MAX, Waiter, Wakers};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, injected_bug};

/// A socket: the kernel's state and the poller's state of one direction.
struct Socket {
    desc: PollDesc,
    generation: u32,
    mutex: FdMutex,
    /// The number of bytes to read, or the room for writes.
    bytes: AtomicUsize,
    /// Whether the stream has ended.
    ended: AtomicBool,
}

impl Socket {
    fn new() -> Arc<Socket> {
        let desc = PollDesc::new(0);
        let generation = desc.open();
        Arc::new(Socket {
            desc,
            generation,
            mutex: FdMutex::new(),
            bytes: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// Creates a socket on which a call has already failed with EAGAIN.
    fn idle() -> Arc<Socket> {
        let socket = Socket::new();
        let side = socket.side();
        assert!(side.clear_ready(side.begin().unwrap()));
        socket
    }

    /// Returns the direction that the models use.
    fn side(&self) -> Side<'_> {
        self.desc.side(Direction::Read, self.generation)
    }

    /// Delivers data, then its edge.
    fn deliver(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.edge(0);
    }

    /// Delivers the end of the stream, then its edge.
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.edge(HANG_UP);
    }

    /// Mirrors an event of the poller.
    fn edge(&self, reasons: u64) {
        let mut wakers = Wakers::new();
        assert!(self.side().set_ready(reasons, &mut wakers));
        wakers.wake_all();
    }

    /// Mirrors a close of the socket, up to the eviction of the waiters.
    fn close(&self) {
        let mut wakers = Wakers::new();
        self.desc.evict(self.generation, &mut wakers);
        wakers.wake_all();
    }

    /// Mirrors a deadline that has passed.
    fn expire(&self) {
        let mut wakers = Wakers::new();
        assert!(self.side().set_deadline(EXPIRED, &mut wakers).is_none());
        wakers.wake_all();
    }

    /// Mirrors read(2) of at most `most` bytes. Returns `None` for EAGAIN, and 0 at the end of the
    /// stream.
    fn call(&self, most: usize) -> Option<usize> {
        let taken = self
            .bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |bytes| (bytes > 0).then(|| bytes - bytes.min(most)));
        match taken {
            Ok(bytes) => Some(bytes.min(most)),
            Err(_) if self.ended.load(Ordering::Acquire) => Some(0),
            Err(_) => None,
        }
    }

    /// Mirrors `Fd::poll_call` without the lock, and without the call that an operation makes when
    /// READY is not set. Returns `None` if the operation must wait.
    fn attempt(&self, most: usize) -> Option<Result<usize, Stop>> {
        let side = self.side();
        let ticket = match side.begin() {
            Ok(ticket) => ticket,
            Err(stop) => return Some(Err(stop)),
        };
        if !ticket.is_ready() {
            return None;
        }
        let Some(count) = self.call(most) else {
            side.clear_ready(ticket);
            return None;
        };
        if count < most && !ticket.distrusts_short_counts() {
            side.clear_ready(ticket);
        } else if ticket.has_waiters() {
            let mut wakers = Wakers::new();
            side.pass_on(&mut wakers);
            wakers.wake_all();
        }
        Some(Ok(count))
    }

    fn poll_read(&self, most: usize, key: &mut Option<Key>, cx: &mut Context<'_>) -> Poll<Result<usize, Stop>> {
        loop {
            if let Some(ended) = self.attempt(most) {
                self.finish(key, ended.is_ok());
                return Poll::Ready(ended);
            }
            let side = self.side();
            match side.wait(Waiter::Future(key), Interest::Event, cx.waker(), || true) {
                Wait::Listed => return Poll::Pending,
                Wait::Full => unreachable!("a model has few waiters"),
                Wait::Retry => {}
            }
        }
    }

    /// Ends the wait of an operation. If the operation did not act (`acted` is false), passes an
    /// unused wake-up on.
    fn finish(&self, key: &mut Option<Key>, acted: bool) {
        let mut wakers = Wakers::new();
        self.side().end_wait(key, acted, &mut wakers);
        wakers.wake_all();
    }

    /// Returns a future that mirrors the operation of a named future.
    fn reading(&self, most: usize) -> impl Future<Output = Result<usize, Stop>> {
        let mut key = None;
        poll_fn(move |cx| self.poll_read(most, &mut key, cx))
    }

    fn read(&self, most: usize) -> Result<usize, Stop> {
        block_on(self.reading(most))
    }

    /// Mirrors the operation of a `poll_*` method.
    fn read_by_poll(&self, most: usize) -> Result<usize, Stop> {
        block_on(poll_fn(|cx| {
            loop {
                if let Some(ended) = self.attempt(most) {
                    return Poll::Ready(ended);
                }
                match self.side().wait(Waiter::Poll, Interest::Event, cx.waker(), || true) {
                    Wait::Listed => return Poll::Pending,
                    Wait::Full => unreachable!("a model has few waiters"),
                    Wait::Retry => {}
                }
            }
        }))
    }

    /// Mirrors an operation that waits in the queue of a lock (`Side::poll_interrupt`) or, if
    /// `by_hang_up`, for a hang-up (`Side::poll_until`).
    fn interrupted(&self, by_hang_up: bool) -> Result<(), Stop> {
        self.interrupted_as(Waiter::Future(&mut None), by_hang_up)
    }

    fn interrupted_as(&self, mut waiter: Waiter<'_>, by_hang_up: bool) -> Result<(), Stop> {
        let side = self.side();
        block_on(poll_fn(|cx| {
            loop {
                match side.begin() {
                    Err(stop) => return Poll::Ready(Err(stop)),
                    Ok(_) if by_hang_up && side.is_hung_up() => return Poll::Ready(Ok(())),
                    Ok(_) => {}
                }
                let still = || !(by_hang_up && side.is_hung_up());
                match side.wait(waiter.reborrow(), Interest::Interrupt, cx.waker(), still) {
                    Wait::Listed => return Poll::Pending,
                    Wait::Full => unreachable!("a model has few waiters"),
                    Wait::Retry => {}
                }
            }
        }))
    }
}

fn spawn<T: Send + 'static>(
    socket: &Arc<Socket>,
    run: impl FnOnce(&Socket) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let socket = socket.clone();
    thread::spawn(move || run(&socket))
}

/// An edge arrives before or after the call of a read, or while the read begins to wait. The read
/// must get the byte.
pub fn edge_against_wait() {
    let socket = Socket::new();
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    socket.deliver(1);
    reader.join().unwrap();
}

/// Data arrives while a short read clears READY. The next read must get this data.
pub fn short_read_against_edge() {
    let socket = Socket::new();
    let reader = spawn(&socket, |socket| {
        let mut count = 0;
        while count < 2 {
            count += socket.read(2).unwrap();
        }
        assert_eq!(count, 2);
    });
    socket.deliver(1);
    socket.deliver(1);
    reader.join().unwrap();
}

/// Mirrors a short read of one byte, whose evidence is not applied yet. Returns its ticket, or
/// `None` if the call has returned both bytes that may have arrived.
fn short_read(socket: &Socket) -> Option<Ticket> {
    let ticket = socket.side().begin().unwrap();
    assert!(ticket.is_only_ready());
    (socket.call(2) == Some(1)).then_some(ticket)
}

/// Mirrors the next read of the same turn, which waits without a call if nothing has changed since
/// `ticket`.
fn read_after(socket: &Socket, ticket: Ticket, most: usize) -> Result<usize, Stop> {
    let (mut ticket, mut key) = (Some(ticket), None);
    block_on(poll_fn(|cx| {
        if let Some(ticket) = ticket.take()
            && socket.side().wait_after(ticket, &mut key, cx.waker(), || true) == Wait::Listed
        {
            return Poll::Pending;
        }
        socket.poll_read(most, &mut key, cx)
    }))
}

/// Data arrives while a reader begins to wait after a short read. The reader must get the data.
pub fn wait_after_a_short_read_against_edge() {
    let socket = Socket::new();
    socket.bytes.store(1, Ordering::Relaxed);
    let reader = spawn(&socket, |socket| {
        if let Some(ticket) = short_read(socket) {
            assert_eq!(read_after(socket, ticket, 2), Ok(1));
        }
    });
    socket.deliver(1);
    reader.join().unwrap();
}

/// The socket is closed, or its deadline passes, while a reader begins to wait after a short read.
/// The wait must end.
pub fn wait_after_a_short_read_against_close_and_expiry() {
    for (ends, with) in [(Socket::close as fn(&Socket), Stop::Closed), (Socket::expire, Stop::Expired)] {
        let socket = Socket::new();
        socket.bytes.store(1, Ordering::Relaxed);
        let ticket = short_read(&socket).expect("one byte has arrived");
        let reader = spawn(&socket, move |socket| assert_eq!(read_after(socket, ticket, 2), Err(with)));
        ends(&socket);
        reader.join().unwrap();
    }
}

/// One reader waits after a short read, and another waits after EAGAIN. Both must get data.
pub fn a_second_reader_beside_a_wait_after_a_short_read() {
    let socket = Socket::new();
    socket.bytes.store(1, Ordering::Relaxed);
    let ticket = short_read(&socket).expect("one byte has arrived");
    let first = spawn(&socket, move |socket| assert_eq!(read_after(socket, ticket, 1), Ok(1)));
    let second = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    socket.deliver(2);
    first.join().unwrap();
    second.join().unwrap();
}

/// One edge arrives for two readers. It wakes one, which leaves data and must wake the other.
pub fn two_readers_share_an_edge() {
    let socket = Socket::idle();
    let readers = [(); 2].map(|()| spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1))));
    socket.deliver(2);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// A future is dropped, before or after it is woken, while another waits. The other future must get
/// the edge.
pub fn a_dropped_reader_passes_on() {
    let socket = Socket::idle();
    let mut key = None;
    assert!(socket.poll_read(1, &mut key, &mut Context::from_waker(Waker::noop())).is_pending());
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    let dropped = spawn(&socket, move |socket| socket.finish(&mut key, false));
    socket.deliver(1);
    dropped.join().unwrap();
    reader.join().unwrap();
}

/// A future is polled again and then dropped, while an edge arrives. The edge must go to the other
/// reader.
pub fn a_reader_dropped_while_polled_passes_on() {
    let socket = Socket::idle();
    let mut key = None;
    assert!(socket.poll_read(1, &mut key, &mut Context::from_waker(Waker::noop())).is_pending());
    let dropped = spawn(&socket, move |socket| {
        let side = socket.side();
        // This poll makes no call, as if another operation had the lock.
        let _ = side.wait(Waiter::Future(&mut key), Interest::Event, Waker::noop(), || true);
        socket.finish(&mut key, false);
    });
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    socket.deliver(1);
    dropped.join().unwrap();
    reader.join().unwrap();
}

/// A read is polled again, with another waker, while its edge arrives. The read must end.
pub fn a_reader_is_polled_again_with_another_waker() {
    let socket = Socket::new();
    let reader = spawn(&socket, |socket| {
        let mut reading = Box::pin(socket.reading(1));
        let read = match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => read,
            Poll::Pending => block_on(reading),
        };
        assert_eq!(read, Ok(1));
    });
    socket.deliver(1);
    reader.join().unwrap();
}

/// An edge, a close and an expiry happen at the same time. A reader that continues until it is
/// stopped must end.
pub fn edge_close_and_expiry() {
    let socket = Socket::new();
    let expiring = spawn(&socket, Socket::expire);
    let closing = spawn(&socket, |socket| {
        socket.deliver(1);
        socket.close();
    });
    while let Ok(count) = socket.read(1) {
        assert_eq!(count, 1);
    }
    expiring.join().unwrap();
    closing.join().unwrap();
    assert_eq!(socket.read(1), Err(Stop::Closed), "closing precedes expiry");
}

/// An expiry alone must end waits that begin at the same time.
pub fn expiry_against_wait() {
    let socket = Socket::idle();
    let future = spawn(&socket, |socket| assert_eq!(socket.read(1), Err(Stop::Expired)));
    let poll = spawn(&socket, |socket| assert_eq!(socket.read_by_poll(1), Err(Stop::Expired)));
    socket.expire();
    future.join().unwrap();
    poll.join().unwrap();
}

/// A close alone must end a read and a wait for a lock that begin at the same time.
pub fn close_against_wait() {
    let socket = Socket::idle();
    let future = spawn(&socket, |socket| assert_eq!(socket.read(1), Err(Stop::Closed)));
    let queued = spawn(&socket, |socket| assert_eq!(socket.interrupted(false), Err(Stop::Closed)));
    socket.close();
    future.join().unwrap();
    queued.join().unwrap();
}

/// A caller of a `poll_*` method waits for the lock while a future waits for an edge in the slot or
/// the list. The edge must go to the future, and a close must end the wait for the lock.
pub fn a_poll_that_queues_takes_no_edge_and_is_closed() {
    let socket = Socket::idle();
    let queued = spawn(&socket, |socket| assert_eq!(socket.interrupted_as(Waiter::Poll, false), Err(Stop::Closed)));
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    socket.deliver(1);
    reader.join().unwrap();
    socket.close();
    queued.join().unwrap();
}

/// A caller of a `poll_*` method and a future wait for the same edge. Both must be woken.
pub fn polls_beside_futures() {
    let socket = Socket::idle();
    let future = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    let poll = spawn(&socket, |socket| assert_eq!(socket.read_by_poll(1), Ok(1)));
    socket.deliver(2);
    future.join().unwrap();
    poll.join().unwrap();
}

/// A future is removed from the slot without an edge, and another future takes the slot, while the
/// first one is dropped. An edge must go to the second one.
pub fn the_slot_changes_hands() {
    let socket = Socket::idle();
    let mut key = None;
    assert!(socket.poll_read(1, &mut key, &mut Context::from_waker(Waker::noop())).is_pending());
    let leaving = spawn(&socket, move |socket| socket.finish(&mut key, false));
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    let mut wakers = Wakers::new();
    // The waiters are interrupted as by the timeout of another operation.
    socket.side().interrupt(&mut wakers);
    wakers.wake_all();
    leaving.join().unwrap();
    socket.deliver(1);
    reader.join().unwrap();
}

/// A caller of a `poll_*` method checks whether it has the slot while the wait of another caller in
/// the slot expires. The wait must end.
pub fn a_poll_looks_into_the_slot() {
    let socket = Socket::idle();
    let waiting = spawn(&socket, |socket| assert_eq!(socket.read_by_poll(1), Err(Stop::Expired)));
    let looking = spawn(&socket, |socket| {
        let side = socket.side();
        let _ = side.wait(Waiter::Poll, Interest::Event, Waker::noop(), || true);
    });
    socket.expire();
    waiting.join().unwrap();
    looking.join().unwrap();
}

/// Mirrors the end of a relative timeout: all waiters are woken to check the clock. `has_passed`
/// takes the place of the clock, because the word of the direction does not show that the timeout
/// has ended.
fn end_timeout(socket: &Socket, has_passed: &AtomicBool) {
    has_passed.store(true, Ordering::Release);
    let mut wakers = Wakers::new();
    socket.side().interrupt(&mut wakers);
    wakers.wake_all();
}

/// The keys of a list that was emptied must not be reused. A woken waiter that still has a key must
/// not remove another waiter when the woken one is dropped.
pub fn a_key_is_not_given_out_again() {
    let socket = Socket::idle();
    let [mut first, mut second] = [None; 2];
    let mut noop = Context::from_waker(Waker::noop());
    assert!(socket.poll_read(1, &mut first, &mut noop).is_pending());
    assert!(socket.poll_read(1, &mut second, &mut noop).is_pending());
    // The waiters are interrupted as by the timeout of another operation.
    let mut wakers = Wakers::new();
    socket.side().interrupt(&mut wakers);
    assert_eq!(wakers.wake_all(), 2);
    assert!(socket.poll_read(1, &mut first, &mut noop).is_pending());
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    let leaving = spawn(&socket, move |socket| socket.finish(&mut second, false));
    leaving.join().unwrap();
    socket.finish(&mut first, false);
    socket.deliver(1);
    reader.join().unwrap();
}

/// A future that was removed from the slot is polled again, while the future that has the slot now
/// is dropped. The first future must get the next edge.
pub fn another_waiter_leaves_while_its_slot_is_inspected() {
    let socket = Socket::idle();
    let mut key = None;
    assert!(socket.poll_read(1, &mut key, &mut Context::from_waker(Waker::noop())).is_pending());
    let reader = spawn(&socket, move |socket| {
        assert_eq!(block_on(poll_fn(|cx| socket.poll_read(1, &mut key, cx))), Ok(1));
    });
    let other = spawn(&socket, |socket| {
        let mut wakers = Wakers::new();
        socket.side().interrupt(&mut wakers);
        wakers.wake_all();
        let mut key = None;
        let polled = socket.poll_read(1, &mut key, &mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        socket.finish(&mut key, false);
    });
    other.join().unwrap();
    socket.deliver(1);
    reader.join().unwrap();
}

/// A caller of a `poll_*` method checks whether it has the slot while another caller in the slot is
/// woken to check the clock. The wait must end.
pub fn a_timeout_against_a_look_into_the_slot() {
    let (socket, has_passed) = (Socket::idle(), Arc::new(AtomicBool::new(false)));
    let waiting = spawn(&socket, {
        let has_passed = has_passed.clone();
        move |socket| {
            block_on(poll_fn(|cx| {
                let side = socket.side();
                assert_eq!(side.wait(Waiter::Poll, Interest::Event, cx.waker(), || true), Wait::Listed);
                // The waiter is listed before it checks the time, as in `Side::arm_timeout`.
                if has_passed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
            }));
        }
    });
    let looking = spawn(&socket, |socket| {
        let side = socket.side();
        let _ = side.wait(Waiter::Poll, Interest::Event, Waker::noop(), || true);
    });
    end_timeout(&socket, &has_passed);
    waiting.join().unwrap();
    looking.join().unwrap();
}

/// A future that a timeout has removed from the slot checks whether it has the slot, while another
/// future in the slot is woken to check the clock. The wait must end.
pub fn a_timeout_against_a_look_for_another() {
    let (socket, has_passed) = (Socket::idle(), Arc::new(AtomicBool::new(false)));
    let mut old = None;
    assert!(socket.poll_read(1, &mut old, &mut Context::from_waker(Waker::noop())).is_pending());
    let looking = spawn(&socket, move |socket| {
        let side = socket.side();
        let _ = side.wait(Waiter::Future(&mut old), Interest::Event, Waker::noop(), || true);
    });
    let waiting = spawn(&socket, {
        let has_passed = has_passed.clone();
        move |socket| {
            let (side, mut key) = (socket.side(), None);
            let mut wakers = Wakers::new();
            side.interrupt(&mut wakers);
            wakers.wake_all();
            block_on(poll_fn(|cx| {
                let waits = side.wait(Waiter::Future(&mut key), Interest::Event, cx.waker(), || true);
                assert_eq!(waits, Wait::Listed);
                if has_passed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
            }));
        }
    });
    end_timeout(&socket, &has_passed);
    waiting.join().unwrap();
    looking.join().unwrap();
}

/// Mirrors `Fd::poll_call` with the order of `Fd::end`. The operation clears READY if the call
/// shows that the direction is idle, then leaves the list, and then wakes the next waiter if READY
/// is set.
fn poll_read_in_order(socket: &Socket, most: usize, key: &mut Option<Key>, cx: &mut Context<'_>) -> Poll<usize> {
    let side = socket.side();
    loop {
        let ticket = side.begin().unwrap();
        if ticket.is_ready() {
            if let Some(count) = socket.call(most) {
                let spent = count < most && !ticket.distrusts_short_counts();
                if spent {
                    side.clear_ready(ticket);
                }
                if ticket.has_waiters() {
                    socket.finish(key, true);
                    if !spent || !injected_bug!("evidence_keeps_the_edge") {
                        let mut wakers = Wakers::new();
                        side.pass_on(&mut wakers);
                        wakers.wake_all();
                    }
                }
                *key = None;
                return Poll::Ready(count);
            }
            side.clear_ready(ticket);
        }
        if side.wait(Waiter::Future(key), Interest::Event, cx.waker(), || true) == Wait::Listed {
            return Poll::Pending;
        }
    }
}

/// A listed reader is polled without a wake-up, reads, and is removed from the list by the next
/// edge before it has left the list itself. This edge must go to the other reader.
pub fn spurious_poll_keeps_no_edge() {
    let socket = Socket::idle();
    let [mut first, mut second] = [None; 2];
    let mut noop = Context::from_waker(Waker::noop());
    assert!(poll_read_in_order(&socket, 2, &mut first, &mut noop).is_pending());
    assert!(poll_read_in_order(&socket, 2, &mut second, &mut noop).is_pending());
    socket.deliver(1);
    let reader = spawn(&socket, move |socket| block_on(poll_fn(|cx| poll_read_in_order(socket, 2, &mut first, cx))));
    let unasked = spawn(&socket, move |socket| {
        let polled = poll_read_in_order(socket, 2, &mut second, &mut Context::from_waker(Waker::noop()));
        if polled.is_pending() {
            socket.finish(&mut second, false);
        }
        polled
    });
    socket.deliver(1);
    if unasked.join().unwrap() == Poll::Ready(2) {
        socket.deliver(1);
    }
    reader.join().unwrap();
}

/// The end of the stream must wake every reader and every waiter for a hang-up.
pub fn a_hang_up_wakes_all() {
    let socket = Socket::idle();
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(0)));
    let ending = spawn(&socket, |socket| assert_eq!(socket.interrupted(true), Ok(())));
    socket.end();
    reader.join().unwrap();
    ending.join().unwrap();
}

/// A waiter for interruption must not take an edge from a reader, and must be woken by an expiry.
pub fn interrupts_take_no_events() {
    let socket = Socket::idle();
    let interrupted = spawn(&socket, |socket| assert_eq!(socket.interrupted(false), Err(Stop::Expired)));
    let reader = spawn(&socket, |socket| assert_eq!(socket.read(1), Ok(1)));
    socket.deliver(1);
    reader.join().unwrap();
    socket.expire();
    interrupted.join().unwrap();
}

/// An event of a closed descriptor arrives while its slot is reused. It must not make the new
/// descriptor ready or report a hang-up of it.
pub fn stale_event_has_no_effect() {
    let cache = Arc::new(PollCache::new());
    let desc = cache.alloc().unwrap();
    let (index, old) = (desc.index, desc.open());
    let late = thread::spawn({
        let cache = cache.clone();
        move || {
            let mut wakers = Wakers::new();
            cache.get(index).unwrap().side(Direction::Read, old).set_ready(HANG_UP, &mut wakers);
            wakers.wake_all();
        }
    });
    let mut wakers = Wakers::new();
    desc.evict(old, &mut wakers);
    wakers.wake_all();
    desc.retire(old);
    cache.free(desc);
    let again = cache.alloc().unwrap();
    assert_eq!(again.index, index, "last in, first out");
    let new = again.open();
    let side = again.side(Direction::Read, new);
    assert_eq!(again.side(Direction::Read, old).begin().unwrap_err(), Stop::Closed);
    let ticket = side.begin().unwrap();
    assert!(ticket.is_ready() && !side.is_hung_up(), "a stale event was accepted");
    assert!(side.clear_ready(ticket), "a stale event counted as an edge");
    late.join().unwrap();
    assert!(!side.begin().unwrap().is_ready() && !side.is_hung_up(), "a stale event was accepted");
}

/// A woken write finds that a `write_all`, which waits for the same room, has the lock. Both must
/// make progress.
///
/// Mirrors `Fd::poll_lock` and `Fd::poll_call`.
pub fn an_edge_reaches_the_owner() {
    let socket = Socket::idle();
    let mut key = None;
    // The write waits for room, without the lock.
    assert!(socket.poll_read(1, &mut key, &mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(socket.mutex.try_lock_ref(Direction::Write), Ok(true));
    assert!(!socket.mutex.decref());
    // `write_all` keeps the lock while it waits for room.
    let all = spawn(&socket, |socket| {
        assert_eq!(socket.read(1), Ok(1));
        socket.mutex.unlock(Direction::Write);
    });
    let write = spawn(&socket, move |socket| {
        let mut queued = None;
        let written = block_on(poll_fn(|cx| {
            loop {
                match socket.mutex.poll_lock(Direction::Write, cx, Waiter::Future(&mut queued)) {
                    Poll::Ready(locked) => assert_eq!(locked, Ok(())),
                    Poll::Pending => {
                        if !injected_bug!("edge_kept_without_the_lock") {
                            socket.finish(&mut key, false);
                        }
                        return Poll::Pending;
                    }
                }
                let attempted = socket.attempt(1);
                assert!(!socket.mutex.unlock_ref(Direction::Write), "the socket is not being closed");
                if let Some(ended) = attempted {
                    socket.finish(&mut key, ended.is_ok());
                    return Poll::Ready(ended);
                }
                let side = socket.side();
                match side.wait(Waiter::Future(&mut key), Interest::Event, cx.waker(), || true) {
                    Wait::Listed => return Poll::Pending,
                    Wait::Full => unreachable!("a model has few waiters"),
                    Wait::Retry => {}
                }
            }
        }));
        assert_eq!(written, Ok(1));
    });
    socket.deliver(2);
    all.join().unwrap();
    write.join().unwrap();
}

/// Polls with different wakers wait while an edge arrives. A list cannot keep all of these wakers.
/// Each waker must be kept or called, and at most `POLLS_MAX` + 1 may be kept.
pub fn polls_beyond_the_bound_are_woken() {
    let socket = Socket::idle();
    let delivering = spawn(&socket, |socket| socket.deliver(1));
    let wakes = [(); 2 * POLLS_MAX + 1].map(|()| Arc::new(Woken::default()));
    let side = socket.side();
    let mut most = 0;
    for woken in &wakes {
        let _ = side.wait(Waiter::Poll, Interest::Event, &Waker::from(woken.clone()), || true);
        most = most.max(side.waiting());
    }
    delivering.join().unwrap();
    assert!(most <= POLLS_MAX + 1, "{most} polls are kept");
    let woken = wakes.iter().filter(|woken| woken.0.load(std::sync::atomic::Ordering::Relaxed)).count();
    assert_eq!(woken + side.waiting(), wakes.len(), "a waker is neither kept nor woken");
}

/// A waker that records whether it was called.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Room for a write becomes available while a writer finds none. The edge may arrive while the
/// poller still skips edges of the direction. The write must end.
pub fn skipped_edges_lose_no_room() {
    let desc = Arc::new(PollDesc::new(0));
    let generation = desc.open();
    desc.side(Direction::Write, generation).skip_edges();
    // The kernel orders the calls on one socket and the events that make room.
    let room = Arc::new(Mutex::new(false));
    let writing = {
        let (desc, room) = (desc.clone(), room.clone());
        thread::spawn(move || {
            let (side, mut key) = (desc.side(Direction::Write, generation), None);
            block_on(poll_fn(|cx| {
                loop {
                    let ticket = side.begin().unwrap();
                    if ticket.is_ready() {
                        if std::mem::take(&mut *room.lock()) {
                            return Poll::Ready(());
                        }
                        side.clear_ready(ticket);
                    }
                    if side.wait(Waiter::Future(&mut key), Interest::Event, cx.waker(), || true) == Wait::Listed {
                        return Poll::Pending;
                    }
                }
            }));
        })
    };
    *room.lock() = true;
    let mut wakers = Wakers::new();
    assert!(desc.side(Direction::Write, generation).set_ready(0, &mut wakers));
    wakers.wake_all();
    writing.join().unwrap();
}

/// A descriptor is closed while a snapshot reads the slot. The snapshot must not combine the number
/// of the descriptor with another generation.
pub fn a_snapshot_pairs_no_number_with_another_generation() {
    let desc = Arc::new(PollDesc::new(0));
    let generation = desc.open();
    desc.describe(7, false, 0, |tag| [tag; 2]);
    let reading = {
        let desc = desc.clone();
        thread::spawn(move || desc.described())
    };
    desc.retire(generation);
    if let Some(described) = reading.join().unwrap() {
        assert_eq!((described.generation, described.number), (generation, 7), "another socket's number");
    }
}
