//! Signals of the process as streams.
//!
//! Each [`Signal`] has a socket pair of its own. The handler writes a byte to it, and the reading half is an ordinary socket of this
//! crate. So there is no thread, no state that listeners share, and nothing that a shutdown of the runtime ends; any executor may poll
//! it. The handler is signal-hook-registry's, which calls what others in the process have registered with it, or had installed before,
//! as well.
//!
//! # What is changed, and what is not
//! The first [`Signal`] of a kind installs a handler in place of the default action, for the life of the process: after the last one is
//! dropped, the signal does nothing. No mask and no other handler is touched, and child processes start with the default action.
//!
//! Source: sigaction(2), signal(7), signal-safety(7).

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_io::AsyncRead;
use signal_hook_registry::SigId;

use crate::sys;
use crate::unix::UnixStream;

/// The number of a signal.
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

        /// The signal's name in signal(7), if it has a constant here.
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
    /// SIGTERM: the process is asked to end, by a service manager or kill(1).
    TERMINATE = SIGTERM;
    /// SIGHUP: the terminal is gone, or the configuration is to be read again.
    HANGUP = SIGHUP;
    /// SIGQUIT: Ctrl-\ was typed.
    QUIT = SIGQUIT;
    /// SIGUSR1.
    USER_DEFINED1 = SIGUSR1;
    /// SIGUSR2.
    USER_DEFINED2 = SIGUSR2;
    /// SIGCHLD: a child process has ended or stopped.
    CHILD = SIGCHLD;
    /// SIGWINCH: the terminal's size has changed.
    WINDOW_CHANGE = SIGWINCH;
    /// SIGALRM: a timer of alarm(2) or setitimer(2) has expired.
    ALARM = SIGALRM;
    /// SIGPIPE: a write to a pipe or socket without a reader. Sockets of this crate raise none.
    PIPE = SIGPIPE;
    /// SIGCONT: the process goes on after a stop.
    CONTINUE = SIGCONT;
    /// SIGTSTP: Ctrl-Z was typed.
    TERMINAL_STOP = SIGTSTP;
}

impl SignalKind {
    /// Returns the kind with this number, as kill(2) takes it. [`Signal::new`] refuses numbers that are no signal.
    pub const fn from_raw(signal: libc::c_int) -> SignalKind {
        SignalKind(signal)
    }

    /// Returns the number.
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
/// Signals that come while one waits to be received are merged into it, as the kernel merges pending signals.
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
pub struct Signal {
    kind: SignalKind,
    id: SigId,
    received: UnixStream,
}

impl Signal {
    /// Starts to listen for signals of this kind. Signals from this moment on are received.
    ///
    /// # Errors
    /// Kind `InvalidInput` for a number that is no signal, for SIGKILL and SIGSTOP, which no process can handle, and for SIGILL, SIGFPE and
    /// SIGSEGV, which report a fault of the thread. EMFILE and ENFILE when no descriptors are left.
    ///
    /// Source: sigaction(2), socketpair(2).
    pub fn new(kind: SignalKind) -> io::Result<Signal> {
        if signal_hook_registry::FORBIDDEN.contains(&kind.0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{kind} cannot be received")));
        }
        let (sender, receiver) = std::os::unix::net::UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        // A full socket has enough to tell.
        let action = move || drop(sys::socket::send(sender.as_fd(), &[0], 0));
        // SAFETY: the action makes one call of send(2), which signal-safety(7) allows, and neither allocates, locks nor panics.
        #[allow(unsafe_code)]
        let id = unsafe { signal_hook_registry::register(kind.0, action) }?;
        Ok(Signal { kind, id, received: UnixStream::from(receiver) })
    }

    /// Returns the kind that this listens for.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    /// The OS error of the socket that brings the signal, and an error when [`rt::shutdown`](crate::rt::shutdown) interrupts the wait. The
    /// listener stays, and the call may be repeated.
    ///
    /// # Cancel safety
    /// Dropping the future loses no signal.
    pub async fn recv(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Polls for the next signal: the `poll` form of [`recv`](Signal::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whatever is there is one: signals are merged.
        let mut merged = [0; 64];
        match ready!(Pin::new(&mut &self.received).poll_read(cx, &mut merged)) {
            // The sending half lives as long as the handler's action.
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
        signal_hook_registry::unregister(self.id);
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Waits for Ctrl-C, or any other SIGINT. From the first poll on the signal does not end the process any more.
///
/// # Errors
/// As [`Signal::new`] and [`Signal::recv`].
///
/// # Cancel safety
/// A signal that comes while no future of this kind exists is lost; keep a [`Signal`] to receive each.
///
/// # Examples
/// ```no_run
/// netpoll::task::block_on(async {
///     netpoll::signal::ctrl_c().await?;
///     println!("stopping");
///     Ok::<_, std::io::Error>(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub async fn ctrl_c() -> io::Result<()> {
    Signal::new(SignalKind::INTERRUPT)?.recv().await
}

/// Waits until the process is asked to end, by SIGINT or SIGTERM, and returns which signal came. From the first poll on neither ends the
/// process any more.
///
/// # Errors
/// As [`Signal::new`] and [`Signal::recv`].
///
/// # Cancel safety
/// As [`ctrl_c`].
///
/// # Examples
/// ```no_run
/// let signal = netpoll::task::block_on(netpoll::signal::termination())?;
/// println!("{signal}: stopping");
/// # std::io::Result::Ok(())
/// ```
pub async fn termination() -> io::Result<SignalKind> {
    let mut signals = [Signal::new(SignalKind::INTERRUPT)?, Signal::new(SignalKind::TERMINATE)?];
    std::future::poll_fn(|cx| {
        for signal in &mut signals {
            if let Poll::Ready(received) = signal.poll_recv(cx) {
                return Poll::Ready(received.map(|()| signal.kind));
            }
        }
        Poll::Pending
    })
    .await
}
