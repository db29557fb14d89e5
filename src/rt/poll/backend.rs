//! The contract of a back end, and the list of back ends.
//!
//! A back end tells the runtime when a descriptor becomes readable or writable. Everything above it is the same for every system. To add
//! one, write one file that implements [`BackEnd`], and add one line to `back_ends!` below. The tests of the contract
//! (`backend_tests.rs`) run over every line.
//!
//! # The contract
//! **Descriptors.** [`add`](BackEnd::add) registers a descriptor once, for both directions, under a [`Token`]: the index of a slot and a
//! generation. A second `add` of the same descriptor replaces the token. [`delete`](BackEnd::delete) ends the registration and returns when no
//! wait holds the open file any more. Closing the last duplicate of a descriptor ends the registration as well, unless the back end
//! [arms](BackEnd::ARMS). The poller's own descriptors ([`owns`](BackEnd::owns)) are never registered.
//!
//! **Edges.** An event says that the state changed in a direction since it was last reported, or what the state is when the descriptor is
//! added. It may merge any number of changes, and it may be spurious: the operation makes its call and finds nothing. An event must not be
//! missing: after a call failed with EAGAIN, the next change in that direction is reported.
//!
//! | reason | direction | set when |
//! |---|---|---|
//! | `readable` | read | there is data, the end of the stream, a connection to accept, an error, urgent data |
//! | `writable` | write | there is room, the connection is established or refused, an error |
//! | `HANG_UP` | read | the peer sends no more |
//! | `HANG_UP` | write | the peer takes no more either |
//! | `ERROR` | both | the connection has failed; where the system tells, also any pending error and a message in the error queue |
//! | `PRIORITY` | read | urgent data; where the system does not report it, short counts are no evidence (`sys::os`) |
//!
//! HANG_UP does not say that the data before it was read. Each reason is reported once per descriptor at least; reasons stick in the
//! descriptor's word.
//!
//! **Waits.** [`wait`](BackEnd::wait) fills a batch, at most as long as asked for, and returns at its timeout with fewer events or none. Without
//! an event, a break or a signal it does not return before the timeout. One thread at a time waits.
//!
//! **Breaks.** [`wake`](BackEnd::wake) makes the current or the next `wait` return, from any thread. Any number of breaks before that cost one
//! system call.
//!
//! **Close and reuse.** An event may be late: its token may be of a descriptor that is closed. The generation tells; the number of the
//! descriptor is never looked at. After an `add` under a new token no event of that descriptor has the old one.
//!
//! **Arming.** A back end whose system reports levels ([`ARMS`](BackEnd::ARMS)) reports a direction once, and again after
//! [`arm`](BackEnd::arm): each operation arms its direction right before it waits. Where `ARMS` is false, `arm` is never called, and a wait
//! makes no system call but the first. (Go: `netpollarm` of Solaris and AIX.)

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

#[cfg(target_os = "linux")]
use super::epoll;
#[cfg(any(test, not(target_os = "linux")))]
use super::kqueue;
use super::poll;
use super::poll_desc::{ERROR, HANG_UP, PRIORITY};

/// Most events of one batch.
pub(crate) const EVENTS_MAX: usize = 256;

/// The environment variable that names a back end.
pub(crate) const VARIABLE: &str = "NETPOLL_BACKEND";

/// What a descriptor is registered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// The token in the 64 bits that the kernel keeps.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[inline]
    pub(crate) fn unpack(data: u64) -> Token {
        Token { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// What one event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// HANG_UP, ERROR and PRIORITY of `poll_desc`, by direction.
    pub(crate) read_reasons: u64,
    pub(crate) write_reasons: u64,
}

/// The state of a descriptor as poll(2) and epoll(7) describe it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    pub(crate) input: bool,
    pub(crate) output: bool,
    pub(crate) priority: bool,
    /// The peer sends no more.
    pub(crate) half_closed: bool,
    /// Both sides are closed.
    pub(crate) hung_up: bool,
    pub(crate) failed: bool,
}

impl Event {
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

/// The buffer of a batch.
pub(crate) trait Batch {
    fn new() -> Self;

    /// The events of the last wait, without breaks.
    fn events(&self) -> impl Iterator<Item = Event> + '_;

    /// Whether the last wait saw no event and no break.
    #[cfg(test)]
    fn is_empty(&self) -> bool;
}

/// See the module's header.
pub(crate) trait BackEnd: fmt::Debug + Sized {
    /// The name in [`VARIABLE`].
    const NAME: &'static str;

    /// Whether a direction is reported again only after [`arm`](BackEnd::arm), and a registration outlives the descriptor.
    const ARMS: bool;

    type Batch: Batch;

    /// Opens an instance.
    ///
    /// # Errors
    /// The system call's (EMFILE, ENFILE, ENOMEM); `Unsupported`, with a text, where the system lacks something.
    fn open() -> io::Result<Self>;

    /// Registers `fd`. `is_first`: a descriptor that is registered already is refused where the back end can tell.
    ///
    /// # Errors
    /// `InvalidInput` for a file that is never waited for; EEXIST, see above; the system call's.
    fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()>;

    /// Takes `fd` out, if it is in.
    fn delete(&self, fd: BorrowedFd<'_>);

    /// Reports the directions that are true once more.
    fn arm(&self, token: Token, read: bool, write: bool);

    /// Waits for events, at most `most` of them (1 to [`EVENTS_MAX`]), and for `timeout` nanoseconds at most; `None`: without limit.
    fn wait(&self, batch: &mut Self::Batch, most: usize, timeout: Option<u64>);

    /// Makes the current or the next wait return.
    fn wake(&self);

    /// Whether the descriptor is one of the instance's own.
    fn owns(&self, fd: RawFd) -> bool;
}

/// The error of a file that is never waited for.
#[cold]
pub(crate) fn not_pollable(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("not pollable: {name} refuses this kind of file"))
}

macro_rules! back_ends {
    ($($(#[$cfg:meta])* $variant:ident => $type:ty;)*) => {
        /// The names of the back ends of this system, best first.
        const NAMES: &[&str] = &[$($(#[$cfg])* <$type as BackEnd>::NAME,)*];

        /// An instance of one of the back ends.
        #[derive(Debug)]
        pub(crate) enum Instance {
            $($(#[$cfg])* $variant($type),)*
        }

        /// The buffer of a batch, made for the instance by its first wait.
        pub(crate) enum Events {
            None,
            $($(#[$cfg])* $variant(<$type as BackEnd>::Batch),)*
        }

        impl Instance {
            /// Opens an instance of the back end `name`, or (`None`) of the best one.
            ///
            /// # Errors
            /// `InvalidInput` for a name that no back end of this system has; those of [`BackEnd::open`].
            pub(crate) fn open(name: Option<&str>) -> io::Result<Instance> {
                $($(#[$cfg])* {
                    if name.is_none_or(|name| name == <$type as BackEnd>::NAME) {
                        return <$type as BackEnd>::open().map(Instance::$variant);
                    }
                })*
                Err(unknown(name.unwrap_or_default()))
            }

            /// [`BackEnd::ARMS`].
            pub(crate) fn arms(&self) -> bool {
                match self { $($(#[$cfg])* Instance::$variant(_) => <$type as BackEnd>::ARMS,)* }
            }

            /// [`BackEnd::add`]. A descriptor of the instance's own is refused.
            pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
                match self { $($(#[$cfg])* Instance::$variant(it) => add(it, fd, token, is_first),)* }
            }

            /// [`BackEnd::delete`].
            pub(crate) fn delete(&self, fd: BorrowedFd<'_>) {
                match self { $($(#[$cfg])* Instance::$variant(it) => it.delete(fd),)* }
            }

            /// [`BackEnd::arm`].
            pub(crate) fn arm(&self, token: Token, read: bool, write: bool) {
                match self { $($(#[$cfg])* Instance::$variant(it) => it.arm(token, read, write),)* }
            }

            /// [`BackEnd::wait`].
            #[inline]
            pub(crate) fn wait(&self, events: &mut Events, most: usize, timeout: Option<u64>) {
                match (self, &mut *events) {
                    $($(#[$cfg])* (Instance::$variant(it), Events::$variant(batch)) => it.wait(batch, most, timeout),)*
                    _ => {
                        *events = self.events();
                        self.wait(events, most, timeout);
                    }
                }
            }

            #[cold]
            fn events(&self) -> Events {
                match self { $($(#[$cfg])* Instance::$variant(_) => Events::$variant(Batch::new()),)* }
            }

            /// [`BackEnd::wake`].
            pub(crate) fn wake(&self) {
                match self { $($(#[$cfg])* Instance::$variant(it) => it.wake(),)* }
            }
        }

        impl Events {
            /// Shows the events of the last wait.
            #[inline]
            pub(crate) fn for_each(&self, show: impl FnMut(Event)) {
                match self {
                    Events::None => {}
                    $($(#[$cfg])* Events::$variant(batch) => batch.events().for_each(show),)*
                }
            }

            /// [`Batch::is_empty`].
            #[cfg(test)]
            pub(crate) fn is_empty(&self) -> bool {
                match self {
                    Events::None => true,
                    $($(#[$cfg])* Events::$variant(batch) => batch.is_empty(),)*
                }
            }
        }

        /// Runs a test of the contract over each back end that this system has.
        #[cfg(test)]
        macro_rules! for_each_back_end {
            ($test:ident) => {
                $($(#[$cfg])* super::$test::<$type>();)*
            };
        }
    };
}

// Best first.
back_ends! {
    #[cfg(target_os = "linux")]
    Epoll => epoll::Epoll;
    #[cfg(any(test, not(target_os = "linux")))]
    Kqueue => kqueue::Kqueue;
    Poll => poll::Poll;
}

fn add(instance: &impl BackEnd, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    if instance.owns(fd.as_raw_fd()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is the poller's own"));
    }
    instance.add(fd, token, is_first)
}

#[cold]
fn unknown(name: &str) -> io::Error {
    let text = format!("{VARIABLE}: no back end {name:?} on this system; there are: {}", NAMES.join(", "));
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Instance {
    /// Opens an instance of the back end that the environment names, or of the best one.
    ///
    /// # Errors
    /// As [`open`](Instance::open).
    pub(crate) fn from_environment() -> io::Result<Instance> {
        let name = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
        Instance::open(name.as_ref().map(|name| name.to_string_lossy()).as_deref())
    }
}

impl Events {
    pub(crate) const fn new() -> Events {
        Events::None
    }
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
