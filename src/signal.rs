//! Process signals as streams.
//!
//! Each [`Signal`] has its own socket pair. The signal handler writes a byte to one end; the other
//! end is an ordinary socket of this crate. So a listener needs no thread of its own, shares no
//! socket with other listeners, survives a shutdown of the runtime, and works under any executor.
//! The handler is that of the crate signal-hook-registry. It also calls the functions that other
//! code has registered with that crate, and the handler that was installed before it.
//!
//! # Effects on the process
//! The first [`Signal`] of a kind installs the handler, unless other code has already installed
//! it. The handler replaces the signal's default action. It stays for the lifetime of the process:
//! the default action is not restored after the last listener is dropped. Signal masks and the
//! handlers of other signals are not changed. A child process has the default action after exec(2).
//! In a child that does not call exec(2), listeners receive nothing, and [`Signal::new`] returns an
//! error. To handle the signal there, install another handler in the child.
//!
//! In a simulation, a listener installs no handler. It receives the signals that the test raises on
//! its host (`sim::Host::raise`) and no others.
//!
//! Source: sigaction(2), signal(7), signal-safety(7).

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_io::AsyncRead;
use signal_hook_registry::SigId;

use crate::net::unix::UnixStream;
use crate::rt::fork;
use crate::rt::runtime::runtime;
#[cfg(feature = "sim")]
use crate::sim;
use crate::sys;

// A module of tokio's `signal` that this crate does not have.
#[cfg(false)]
pub mod unix {} // absent: use signal::Signal and signal::SignalKind

/// A kind of signal, identified by its number.
///
/// # Examples
/// ```
/// use netpoll::signal::SignalKind;
///
/// assert_eq!(SignalKind::TERMINATE.to_string(), "SIGTERM");
/// assert_eq!(SignalKind::from_raw(15), SignalKind::TERMINATE);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalKind(libc::c_int);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $signal:ident;)*) => {
        impl SignalKind {
            $($(#[$doc])* pub const $name: SignalKind = SignalKind(libc::$signal);)*
        }

        /// Returns the name of a signal in signal(7), if `SignalKind` has a constant for it.
        fn name_of(signal: libc::c_int) -> Option<&'static str> {
            match signal {
                $(libc::$signal => Some(stringify!($signal)),)*
                _ => None,
            }
        }
    };
}

kinds! {
    /// SIGINT: Ctrl-C was typed.
    INTERRUPT = SIGINT;
    /// SIGTERM: a service manager or kill(1) asks the process to terminate.
    TERMINATE = SIGTERM;
    /// SIGHUP: the terminal was closed, or the program should reload its configuration.
    HANGUP = SIGHUP;
    /// SIGQUIT: Ctrl-\ was typed.
    QUIT = SIGQUIT;
    /// SIGUSR1: its meaning is defined by the program.
    USER_DEFINED1 = SIGUSR1;
    /// SIGUSR2: its meaning is defined by the program.
    USER_DEFINED2 = SIGUSR2;
    /// SIGCHLD: a child process has terminated or stopped.
    CHILD = SIGCHLD;
    /// SIGWINCH: the terminal's size has changed.
    WINDOW_CHANGE = SIGWINCH;
    /// SIGALRM: a timer of alarm(2) or setitimer(2) has expired.
    ALARM = SIGALRM;
    /// SIGPIPE: a write to a pipe or socket without a reader. Sockets of this crate do not raise
    /// it.
    PIPE = SIGPIPE;
    /// SIGCONT: the process continues after a stop.
    CONTINUE = SIGCONT;
    /// SIGTSTP: Ctrl-Z was typed.
    TERMINAL_STOP = SIGTSTP;
}

impl SignalKind {
    /// Creates a kind from a signal number, as used by kill(2). [`Signal::new`] refuses numbers
    /// that are not signals.
    pub const fn from_raw(signal: libc::c_int) -> SignalKind {
        SignalKind(signal)
    }

    /// Returns the signal number.
    pub const fn as_raw(self) -> libc::c_int {
        self.0
    }
}

impl fmt::Display for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name_of(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A listener for one kind of signal. It is a [`Stream`] that never ends.
///
/// Several signals that arrive before the listener receives one may be merged into one, as the
/// kernel merges pending signals.
///
/// # Examples
/// ```
/// use netpoll::signal::{Signal, SignalKind};
///
/// # fn main() -> std::io::Result<()> {
/// netpoll::task::block_on(async {
///     let mut hangups = Signal::new(SignalKind::HANGUP)?;
/// #   rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP)?;
///     // kill -HUP
///     hangups.recv().await?;
///     println!("reading the configuration again");
///     Ok(())
/// })
/// # }
/// ```
#[doc(alias = "signal.Notify")]
pub struct Signal {
    kind: SignalKind,
    /// `None` in a simulation.
    id: Option<SigId>,
    /// The registration in a simulation. The drop removes it.
    #[cfg(feature = "sim")]
    _listening: Option<sim::Listening>,
    received: UnixStream,
}

impl Signal {
    /// Creates a listener for signals of `kind`. It receives signals that arrive after this call.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a number that is not a signal; for SIGKILL and SIGSTOP, which
    /// cannot be handled; and for SIGILL, SIGFPE and SIGSEGV, which report a fault of the thread.
    /// Returns `Other` in a child of fork(2) that did not call exec(2). Otherwise returns the OS
    /// error, such as EMFILE or ENFILE if no descriptor is available.
    ///
    /// Source: sigaction(2), socketpair(2).
    pub fn new(kind: SignalKind) -> io::Result<Signal> {
        fork::check()?;
        if signal_hook_registry::FORBIDDEN.contains(&kind.0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{kind} cannot be received: the system or Rust reserves it; use SIGUSR1, for example"),
            ));
        }
        sys::signal::check(kind.0)
            .map_err(|error| io::Error::new(error.kind(), format!("{} is not a signal", kind.0)))?;
        let (sender, receiver) = std::os::unix::net::UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        #[cfg(feature = "sim")]
        if sim::simulates() {
            let listening = sim::listen(kind, sender);
            return Ok(Signal { kind, id: None, _listening: listening, received: UnixStream::from(receiver) });
        }
        // With glibc, the first send of a process calls dladdr(3) to choose how system calls are
        // made. A signal handler must not call dladdr(3), so the first send is made here, with no
        // bytes.
        sys::socket::send(sender.as_fd(), &[], 0)?;
        // A child of fork(2) shares the socket, so it must not notify the parent of the child's
        // signals. Without this call, `is_child` might return false there.
        fork::watch(|| runtime().disown());
        let action = move || {
            // If the socket buffer is full, a notification is already pending.
            if !fork::is_child() {
                let _ = sys::socket::send(sender.as_fd(), &[0], 0);
            }
        };
        // SAFETY: the action loads atomics and calls send(2) once, which is async-signal-safe
        // (signal-safety(7)). It does not allocate, lock or panic.
        #[allow(unsafe_code)]
        let id = unsafe { signal_hook_registry::register(kind.0, action) }?;
        Ok(Signal {
            kind,
            id: Some(id),
            #[cfg(feature = "sim")]
            _listening: None,
            received: UnixStream::from(receiver),
        })
    }

    /// Returns the kind of signal that this listener receives.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    /// Returns the error of a read from the internal socket, for example an error of the kind
    /// `Other` if [`rt::shutdown`](crate::rt::shutdown) interrupts the wait. The listener then
    /// stays usable, and the call can be repeated.
    ///
    /// # Cancel safety
    /// If the future is dropped, no signal is lost.
    pub async fn recv(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Attempts to receive the next signal, as [`recv`](Signal::recv) does. If none has arrived,
    /// returns `Pending` and wakes the task when a signal arrives.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Any number of bytes counts as one signal, because signals are merged.
        let mut merged = [0; 64];
        match ready!(Pin::new(&mut &self.received).poll_read(cx, &mut merged)) {
            // Not expected: the sending end stays open until this listener is dropped. The
            // handler's action or, in a simulation, the simulated world owns it.
            Ok(0) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Stream for Signal {
    type Item = io::Result<()>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<()>>> {
        self.poll_recv(cx).map(Some)
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            signal_hook_registry::unregister(id);
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Returns a future that waits for SIGINT, which Ctrl-C sends. After this call, even before the
/// future is polled, the signal no longer terminates the process.
///
/// # Errors
/// The call itself returns the errors of [`Signal::new`], so a server that cannot receive the
/// signal fails before it starts. The future returns the errors of [`Signal::recv`].
///
/// # Cancel safety
/// A signal that arrives while no such future exists is lost. To receive every signal, keep a
/// [`Signal`].
///
/// # Examples
/// ```no_run
/// netpoll::task::block_on(async {
///     netpoll::signal::ctrl_c()?.await?;
///     println!("stopping");
///     Ok::<_, std::io::Error>(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
#[doc(alias = "SIGINT")]
pub fn ctrl_c() -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let mut signal = Signal::new(SignalKind::INTERRUPT)?;
    Ok(async move { signal.recv().await })
}

/// Returns a future that waits for SIGINT or SIGTERM, and returns the kind of the signal. After
/// this call, even before the future is polled, neither signal terminates the process.
///
/// # Errors
/// The call and the future return the same errors as those of [`ctrl_c`].
///
/// # Cancel safety
/// As with [`ctrl_c`], a signal that arrives while no such future exists is lost.
///
/// # Examples
/// ```no_run
/// let signal = netpoll::task::block_on(netpoll::signal::termination()?)?;
/// println!("{signal}: stopping");
/// # std::io::Result::Ok(())
/// ```
#[doc(alias = "SIGTERM")]
pub fn termination() -> io::Result<impl Future<Output = io::Result<SignalKind>> + Send + 'static> {
    let mut signals = [Signal::new(SignalKind::INTERRUPT)?, Signal::new(SignalKind::TERMINATE)?];
    Ok(std::future::poll_fn(move |cx| {
        for signal in &mut signals {
            if let Poll::Ready(received) = signal.poll_recv(cx) {
                return Poll::Ready(received.map(|()| signal.kind));
            }
        }
        Poll::Pending
    }))
}
