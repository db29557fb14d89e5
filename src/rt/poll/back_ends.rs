//! The list of back ends, and [`Instance`], an instance of one of them.
//!
//! `Instance` is an enumeration over the list, so calls need no trait objects.

use std::io;
use std::os::fd::BorrowedFd;

use super::backend::{BackEnd, Batch, Sink, Token, VARIABLE};

macro_rules! back_ends {
    ($($(#[$cfg:meta])* $file:literal => $module:ident::$type:ident;)*) => {
        $($(#[$cfg])* #[path = $file] mod $module;)*

        /// The names of the back ends of this system, best first.
        const NAMES: &[&str] = &[$($(#[$cfg])* <$module::$type as BackEnd>::NAME,)*];

        /// An instance of one of the back ends.
        #[derive(Debug)]
        pub(crate) enum Instance {
            $($(#[$cfg])* $type($module::$type),)*
        }

        /// A buffer for a batch of events. A wait or a look first creates the buffer of the
        /// instance's back end, unless it exists.
        pub(crate) enum Events {
            None,
            $($(#[$cfg])* $type(<$module::$type as BackEnd>::Batch),)*
        }

        impl Instance {
            /// Opens an instance of the back end `name`, or of the best one if `name` is `None`.
            ///
            /// # Errors
            /// Returns `InvalidInput` if this system has no back end of that name, and otherwise
            /// the errors of [`BackEnd::open`].
            pub(crate) fn open(name: Option<&str>) -> io::Result<Instance> {
                $($(#[$cfg])* {
                    if name.is_none_or(|name| name == <$module::$type as BackEnd>::NAME) {
                        return <$module::$type as BackEnd>::open().map(Instance::$type);
                    }
                })*
                Err(unknown(name.unwrap_or_default()))
            }

            /// See [`BackEnd::ARMS`].
            pub(crate) fn arms(&self) -> bool {
                match self { $($(#[$cfg])* Instance::$type(_) => <$module::$type as BackEnd>::ARMS,)* }
            }

            /// Returns whether the poller may have several instances of the back end that
            /// [`open`](Instance::open) would select for `name`.
            fn shards(name: Option<&str>) -> bool {
                $($(#[$cfg])* {
                    if name.is_none_or(|name| name == <$module::$type as BackEnd>::NAME) {
                        return <$module::$type as BackEnd>::SHARDS;
                    }
                })*
                false
            }

            /// See [`BackEnd::descriptor`].
            pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
                match self { $($(#[$cfg])* Instance::$type(it) => it.descriptor(),)* }
            }

            /// See [`BackEnd::knows`].
            pub(crate) fn knows(&self, fd: BorrowedFd<'_>) -> bool {
                match self { $($(#[$cfg])* Instance::$type(it) => it.knows(fd),)* }
            }

            /// See [`BackEnd::add`]. Refuses descriptors of the instance itself.
            pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
                match self { $($(#[$cfg])* Instance::$type(it) => add(it, fd, token, is_first),)* }
            }

            /// See [`BackEnd::delete`].
            pub(crate) fn delete(&self, fd: BorrowedFd<'_>) {
                match self { $($(#[$cfg])* Instance::$type(it) => it.delete(fd),)* }
            }

            /// See [`BackEnd::arm`].
            pub(crate) fn arm(&self, token: Token, read: bool, write: bool) {
                match self { $($(#[$cfg])* Instance::$type(it) => it.arm(token, read, write),)* }
            }

            /// See [`BackEnd::wait`].
            #[inline]
            pub(crate) fn wait(&self, events: &mut Events, most: usize, timeout: Option<u64>) {
                match (self, &mut *events) {
                    $($(#[$cfg])* (Instance::$type(it), Events::$type(batch)) => it.wait(batch, most, timeout),)*
                    _ => {
                        *events = self.new_events();
                        self.wait(events, most, timeout);
                    }
                }
            }

            /// See [`BackEnd::look`].
            pub(crate) fn look(&self, events: &mut Events) -> bool {
                match (self, &mut *events) {
                    $($(#[$cfg])* (Instance::$type(it), Events::$type(batch)) => it.look(batch),)*
                    _ => {
                        *events = self.new_events();
                        self.look(events)
                    }
                }
            }

            /// Creates the buffer of the instance's back end.
            #[cold]
            fn new_events(&self) -> Events {
                match self { $($(#[$cfg])* Instance::$type(_) => Events::$type(Batch::new()),)* }
            }

            /// See [`BackEnd::wake`].
            pub(crate) fn wake(&self) {
                match self { $($(#[$cfg])* Instance::$type(it) => it.wake(),)* }
            }
        }

        impl Events {
            /// Passes each event of the last wait or look to `sink`.
            #[inline]
            pub(crate) fn show(&self, sink: &mut impl Sink) {
                match self {
                    Events::None => {}
                    $($(#[$cfg])* Events::$type(batch) => {
                        for event in batch.events() {
                            sink.take(event);
                        }
                    })*
                }
            }

            /// See [`Batch::is_empty`].
            #[cfg(test)]
            pub(crate) fn is_empty(&self) -> bool {
                match self {
                    Events::None => true,
                    $($(#[$cfg])* Events::$type(batch) => batch.is_empty(),)*
                }
            }
        }

        /// Runs a test of the contract with each back end that this system supports.
        #[cfg(test)]
        macro_rules! for_each_back_end {
            ($test:ident) => {
                $($(#[$cfg])* if super::is_supported::<$module::$type>() { super::$test::<$module::$type>(); })*
            };
        }
    };
}

// The best back end comes first. Each line also declares the module of its file.
back_ends! {
    #[cfg(target_os = "linux")]
    "epoll.rs" => epoll::Epoll;
    #[cfg(any(all(test, target_pointer_width = "64"), not(target_os = "linux")))]
    "kqueue.rs" => kqueue::Kqueue;
    "poll.rs" => poll::Poll;
}

#[cfg(feature = "sim")]
pub(crate) use epoll::event as epoll_event;

fn add(instance: &impl BackEnd, fd: BorrowedFd<'_>, token: Token, is_first: bool) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    if instance.owns(fd.as_raw_fd()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is the poller's own"));
    }
    instance.add(fd, token, is_first)
}

#[cold]
fn unknown(name: &str) -> io::Error {
    let text = format!("{VARIABLE}: this system has no back end {name:?}; available: {}", NAMES.join(", "));
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Instance {
    /// Opens an instance of the back end that the environment selects, or of the best one if the
    /// variable `NETPOLL_BACKEND` is not set or is empty.
    ///
    /// # Errors
    /// Returns the errors of [`open`](Instance::open).
    pub(crate) fn from_environment() -> io::Result<Instance> {
        Instance::open(selected().as_deref())
    }

    /// Returns whether the poller may have several instances of the back end that
    /// [`from_environment`](Instance::from_environment) opens.
    pub(crate) fn shards_by_environment() -> bool {
        Instance::shards(selected().as_deref())
    }
}

/// Returns the name of the back end that the environment selects, if it selects one.
fn selected() -> Option<String> {
    let name = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
    name.map(|name| name.to_string_lossy().into_owned())
}

impl Events {
    pub(crate) const fn new() -> Events {
        Events::None
    }
}

#[cfg(test)]
#[path = "back_ends_tests.rs"]
mod tests;
