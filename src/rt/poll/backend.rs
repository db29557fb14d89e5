//! [`BackEnd`]: the contract of a back end. [`back_ends`](super::back_ends) lists the back ends.
//!
//! A back end tells the runtime when a descriptor becomes readable or writable. To add one, write a
//! file that implements [`BackEnd`] and add a line to the list. The tests of the contract
//! (`back_ends_tests.rs`) run for every back end in the list.
//!
//! # The contract
//! **Descriptors.** [`add`](BackEnd::add) registers a descriptor once, for both directions, with a
//! [`Token`]: the index of a slot and a generation. A second `add` of the same descriptor replaces
//! the token, or fails if `is_first` is true. [`delete`](BackEnd::delete) ends the registration,
//! and returns when no wait holds a reference to the open file any more. Closing the last duplicate
//! of a descriptor also ends the registration, unless [`ARMS`](BackEnd::ARMS) is true. The back
//! end's own descriptors ([`owns`](BackEnd::owns)) are never registered.
//!
//! **Edges.** An event reports that the state of a direction has changed since the last report, or,
//! after an `add`, the state itself. An event may combine any number of changes. It may also be
//! spurious: the operation then repeats its call and waits again. An event must not be lost: after
//! a call has failed with EAGAIN, the next change in that direction is reported.
//!
//! | reason | direction | set when |
//! |---|---|---|
//! | `readable` | read | there is data, the end of the stream, a connection to accept, an error, or urgent data |
//! | `writable` | write | there is room in the send buffer, the connection is established or refused, no more data can be sent, or there is an error |
//! | `HANG_UP` | read | no more data will arrive, because the peer has closed its sending side or this side has shut down receiving |
//! | `HANG_UP` | write | no more data can be sent, because both directions are closed or (kqueue) the peer accepts no more data or this side was shut down |
//! | `ERROR` | both | the connection has failed; if the system reports it, also a pending error, a message in the error queue or the closed reader of a pipe |
//! | `PRIORITY` | read | there is urgent data; if the system does not report it, a short count is not evidence (`sys::os`) |
//!
//! HANG_UP does not mean that all earlier data has been read. HANG_UP, ERROR and PRIORITY are
//! reported at least once per descriptor and then stay set in the word of the direction. After an
//! error, or a hang-up of both directions, a back end that must be armed reports nothing more about
//! the descriptor until the next call of [`arm`](BackEnd::arm) for it.
//!
//! **Waits.** [`wait`](BackEnd::wait) fills a batch. It returns when there is an event, an
//! interrupt or a signal, or when its timeout has passed. It must not return before its timeout for
//! another reason, except after a failure of the system call or after the longest timeout of the
//! call. One thread waits at a time.
//!
//! **Shards.** If [`SHARDS`](BackEnd::SHARDS) is true, the poller may have several instances of the
//! back end, each for a different set of descriptors. A thread that waits for several instances
//! calls poll(2) for their [`descriptor`](BackEnd::descriptor)s.
//!
//! **Interrupts.** [`wake`](BackEnd::wake), called from any thread, makes the current or the next
//! `wait` return. Any number of calls before `wait` returns cost one system call in total.
//!
//! **Close and reuse.** An event may be late: its token may belong to a descriptor that has been
//! closed. The caller recognises this by the generation, not by the descriptor number. After an
//! `add` with a new token, no event of that descriptor has the old token.
//!
//! **Arming.** If the system reports levels, [`ARMS`](BackEnd::ARMS) is true. Each level of a
//! direction is then reported once, and again only after [`arm`](BackEnd::arm). An operation arms
//! its direction when it begins to wait. If `ARMS` is false, `arm` has no effect, and only the
//! first wait for a descriptor makes a system call. (Go's counterpart is `netpollarm` of Solaris
//! and AIX.)

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use super::side::{ERROR, HANG_UP, PRIORITY};

/// The maximum number of events in one batch.
pub(crate) const EVENTS_MAX: usize = 1024;

/// The maximum number of events that one look takes. It is small, because the thread that waits
/// returns from its wait only if the look leaves events.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only epoll supports looks"))]
pub(crate) const LOOK_MAX: usize = 16;

/// The environment variable that selects a back end by name.
pub(crate) const VARIABLE: &str = "NETPOLL_BACKEND";

/// The identity with which a descriptor is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// Packs the token into the 64 bits of user data that the kernel stores.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[inline]
    pub(crate) fn unpack(data: u64) -> Token {
        Token { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// An event of one descriptor, identified by its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The bits HANG_UP, ERROR and PRIORITY of [`side`](super::side), for the read direction.
    pub(crate) read_reasons: u64,
    /// The bits HANG_UP and ERROR of [`side`](super::side), for the write direction.
    pub(crate) write_reasons: u64,
}

/// The state of a descriptor as poll(2) and epoll(7) describe it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    pub(crate) input: bool,
    pub(crate) output: bool,
    pub(crate) priority: bool,
    /// Whether no more data will arrive, because the peer has shut down sending or this side has
    /// shut down receiving.
    pub(crate) half_closed: bool,
    /// Whether both directions are closed.
    pub(crate) hung_up: bool,
    pub(crate) failed: bool,
}

impl Event {
    /// Creates an event without a hang-up, an error or urgent data.
    #[allow(dead_code, reason = "only some back ends tell these events apart")]
    #[inline]
    pub(crate) fn plain(token: Token, readable: bool, writable: bool) -> Event {
        let Token { index, generation } = token;
        Event { index, generation, readable, writable, read_reasons: 0, write_reasons: 0 }
    }

    #[inline]
    pub(crate) fn new(token: Token, state: State) -> Event {
        let State { input, output, priority, half_closed, hung_up, failed } = state;
        let end = hung_up || failed;
        let error = if failed { ERROR } else { 0 };
        Event {
            index: token.index,
            generation: token.generation,
            readable: end || input || half_closed || priority,
            writable: end || output,
            read_reasons: error
                | if hung_up || half_closed { HANG_UP } else { 0 }
                | if priority { PRIORITY } else { 0 },
            write_reasons: error | if hung_up { HANG_UP } else { 0 },
        }
    }
}

/// A buffer for a batch of events.
pub(crate) trait Batch {
    fn new() -> Self;

    /// Returns the events of the last wait or look, without interrupts.
    fn events(&self) -> impl Iterator<Item = Event> + '_;

    /// Returns whether the last wait returned neither an event nor an interrupt.
    #[cfg(test)]
    fn is_empty(&self) -> bool;
}

/// A receiver of the events of a batch. It is a trait because the compiler would not inline a
/// closure that several back ends call.
pub(crate) trait Sink {
    fn take(&mut self, event: Event);
}

/// A mechanism that reports which descriptors are ready; see the [module documentation](self).
pub(crate) trait BackEnd: fmt::Debug + Sized {
    /// The name of the back end, for [`VARIABLE`].
    const NAME: &'static str;

    /// Whether a level is reported again only after [`arm`](BackEnd::arm). If so, a registration
    /// also outlives its descriptor.
    const ARMS: bool;

    /// Whether the poller may have several instances. If so, [`descriptor`](BackEnd::descriptor)
    /// must return a descriptor.
    const SHARDS: bool = false;

    type Batch: Batch;

    /// Opens an instance.
    ///
    /// # Errors
    /// Returns the OS error, such as EMFILE, ENFILE or ENOMEM, or `Unsupported` if the system lacks
    /// a feature that the back end needs.
    fn open() -> io::Result<Self>;

    /// Registers `fd`. If `is_first` is true, refuses a descriptor that is already registered, as
    /// the [module documentation](self) describes.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a file that is always ready, EEXIST for a descriptor that is
    /// refused, `QuotaExceeded` if the back end accepts no more descriptors, and otherwise the OS
    /// error.
    fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()>;

    /// Removes `fd`, if it is registered.
    fn delete(&self, fd: BorrowedFd<'_>);

    /// Arms errors, hang-ups of both directions, and each direction whose flag is true, so that
    /// they are reported again.
    fn arm(&self, token: Token, read: bool, write: bool);

    /// Waits for events for up to `timeout` nanoseconds, or without a limit if it is `None`. Stores
    /// up to `most` events in `batch`; `most` must be in the range from 1 to [`EVENTS_MAX`].
    fn wait(&self, batch: &mut Self::Batch, most: usize, timeout: Option<u64>);

    /// Stores up to [`LOOK_MAX`] available events in `batch`, while another thread may be in
    /// [`wait`](BackEnd::wait). Returns false without doing so if the back end supports only one
    /// thread at a time.
    fn look(&self, _batch: &mut Self::Batch) -> bool {
        false
    }

    /// Makes the current or the next wait return. A [look](BackEnd::look) does not count as a wait.
    fn wake(&self);

    /// Returns whether `fd` is a descriptor of the instance itself.
    fn owns(&self, fd: RawFd) -> bool;

    /// Returns a descriptor that poll(2) reports as readable while a wait would return immediately,
    /// if the back end has one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns whether `fd` is registered. Called only if there are several shards.
    fn knows(&self, _: BorrowedFd<'_>) -> bool {
        false
    }
}

/// The error for a file that is always ready, with the name of the back end.
#[derive(Debug)]
pub(crate) struct AlwaysReady(&'static str);

impl fmt::Display for AlwaysReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not pollable: {} refuses this kind of file", self.0)
    }
}

impl Error for AlwaysReady {}

/// Returns the error [`AlwaysReady`].
#[cold]
pub(crate) fn not_pollable(name: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, AlwaysReady(name))
}
