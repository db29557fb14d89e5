//! Scripted results of system calls, for unit tests only.
//!
//! A test creates a [`Script`] for a descriptor ([`descriptor`]), or for sockets that will connect
//! to an address ([`destination`]). With `destination`, a descriptor joins the script when
//! `connect` is called on it. Calls on other descriptors are not affected, so tests can run in
//! parallel. A descriptor leaves its script when `socket::close` or `socket::close_and_keep_number`
//! closes it. A script ends when it is dropped.
//!
//! In a script, each kind of call has its own queue of [`Outcome`]s. If the queue is empty, the
//! real call is made.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use socket2::SockAddr;

/// A call whose result a script may determine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Accept4,
    Connect,
    /// getsockopt(2) with `SO_ERROR`.
    TakeError,
    /// getpeername(2).
    PeerAddr,
    /// close(2), also by `socket::close_and_keep_number`, which ignores the outcome.
    Close,
    /// splice(2) out of the socket.
    #[cfg(target_os = "linux")]
    SpliceFrom,
    /// splice(2) into the socket.
    #[cfg(target_os = "linux")]
    SpliceTo,
    /// sendfile(2) to the socket.
    #[cfg(target_os = "linux")]
    SendFile,
}

/// The result of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The call is made and returns its own result.
    Real,
    /// The call fails with this errno. The real call is not made, except for `close`.
    Fail(i32),
    /// `connect` succeeds, and `take_error` returns no error. The real call is not made. Other
    /// calls are made as with `Real`.
    Succeed,
    /// `take_error` returns this errno. The real call is not made. Other calls are made as with
    /// `Real`.
    Pending(i32),
}

#[derive(Debug, Default)]
struct State {
    outcomes: HashMap<Call, VecDeque<Outcome>>,
    calls: HashMap<Call, usize>,
}

type Shared = Arc<Mutex<State>>;

#[derive(Debug, Default)]
struct Registry {
    descriptors: HashMap<RawFd, Shared>,
    destinations: HashMap<SocketAddr, Shared>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);
    locked(&REGISTRY)
}

/// A script of results. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Script(Shared);

/// Creates a script for the calls on `fd`.
pub(crate) fn descriptor(fd: BorrowedFd<'_>) -> Script {
    let script = Script(Shared::default());
    registry().descriptors.insert(fd.as_raw_fd(), script.0.clone());
    script
}

/// Creates a script for the calls on sockets that connect to `address` from now on.
pub(crate) fn destination(address: SocketAddr) -> Script {
    let script = Script(Shared::default());
    registry().destinations.insert(address, script.0.clone());
    script
}

impl Script {
    /// Appends `outcome` to the queue of `call`.
    pub(crate) fn then(&self, call: Call, outcome: Outcome) -> &Script {
        locked(&self.0).outcomes.entry(call).or_default().push_back(outcome);
        self
    }

    /// Returns the number of `call`s so far, scripted or real.
    pub(crate) fn calls(&self, call: Call) -> usize {
        locked(&self.0).calls.get(&call).copied().unwrap_or(0)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let mut registry = registry();
        registry.descriptors.retain(|_, state| !Arc::ptr_eq(state, &self.0));
        registry.destinations.retain(|_, state| !Arc::ptr_eq(state, &self.0));
    }
}

fn next(state: Option<Shared>, call: Call) -> Outcome {
    let Some(state) = state else { return Outcome::Real };
    let mut state = locked(&state);
    *state.calls.entry(call).or_default() += 1;
    state.outcomes.get_mut(&call).and_then(VecDeque::pop_front).unwrap_or(Outcome::Real)
}

fn of_descriptor(fd: RawFd) -> Option<Shared> {
    registry().descriptors.get(&fd).cloned()
}

fn refuse(outcome: Outcome) -> io::Result<()> {
    match outcome {
        Outcome::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(()),
    }
}

pub(super) fn accept4(fd: BorrowedFd<'_>) -> io::Result<()> {
    refuse(next(of_descriptor(fd.as_raw_fd()), Call::Accept4))
}

/// Returns the scripted error of `call`, or `Ok` if the caller must make the real call.
#[allow(dead_code, reason = "only the Linux code consults it")]
pub(super) fn fail(fd: BorrowedFd<'_>, call: Call) -> io::Result<()> {
    refuse(next(of_descriptor(fd.as_raw_fd()), call))
}

pub(super) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<()> {
    refuse(next(of_descriptor(fd.as_raw_fd()), Call::PeerAddr))
}

/// Adds `fd` to the script of `address`, if there is one. Returns the scripted result, or `None` if
/// the caller must make the real call.
pub(super) fn connect(fd: BorrowedFd<'_>, address: &SockAddr) -> Option<io::Result<()>> {
    let state = {
        let mut registry = registry();
        let destined = address.as_socket().and_then(|address| registry.destinations.get(&address).cloned());
        if let Some(state) = destined {
            registry.descriptors.insert(fd.as_raw_fd(), state);
        }
        registry.descriptors.get(&fd.as_raw_fd()).cloned()
    };
    match next(state, Call::Connect) {
        Outcome::Succeed => Some(Ok(())),
        outcome => refuse(outcome).err().map(Err),
    }
}

/// Returns the scripted result, or `None` if the caller must make the real call.
pub(super) fn take_error(fd: BorrowedFd<'_>) -> Option<io::Result<Option<io::Error>>> {
    match next(of_descriptor(fd.as_raw_fd()), Call::TakeError) {
        Outcome::Succeed => Some(Ok(None)),
        Outcome::Pending(errno) => Some(Ok(Some(io::Error::from_raw_os_error(errno)))),
        outcome => refuse(outcome).err().map(Err),
    }
}

/// Returns the scripted result of `close`, and removes the descriptor from its script, because its
/// number may be reused.
pub(super) fn close(fd: &OwnedFd) -> io::Result<()> {
    let state = registry().descriptors.remove(&fd.as_raw_fd());
    refuse(next(state, Call::Close))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::fd::AsFd;

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
        result.unwrap_err().raw_os_error()
    }

    #[test]
    fn script_applies_in_order_to_its_descriptor_only() {
        let listeners: Vec<_> = (0..2)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .inspect(|listener| listener.set_nonblocking(true).unwrap())
            .collect();
        let script = descriptor(listeners[0].as_fd());
        script
            .then(Call::Accept4, Outcome::Fail(libc::EMFILE))
            .then(Call::Accept4, Outcome::Real)
            .then(Call::Accept4, Outcome::Fail(libc::ECONNABORTED));
        assert_eq!(errno(socket::accept4(listeners[0].as_fd())), Some(libc::EMFILE));
        assert_eq!(errno(socket::accept4(listeners[1].as_fd())), Some(libc::EAGAIN));
        assert_eq!(errno(socket::accept4(listeners[0].as_fd())), Some(libc::EAGAIN));
        assert_eq!(errno(socket::accept4(listeners[0].as_fd())), Some(libc::ECONNABORTED));
        assert_eq!(errno(socket::accept4(listeners[0].as_fd())), Some(libc::EAGAIN));
        assert_eq!(script.calls(Call::Accept4), 4);
        script.then(Call::Accept4, Outcome::Fail(libc::EMFILE));
        drop(script);
        assert_eq!(errno(socket::accept4(listeners[0].as_fd())), Some(libc::EAGAIN));
    }

    #[test]
    fn socket_joins_the_script_of_its_destination_until_closed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let script = destination(address);
        script
            .then(Call::Connect, Outcome::Fail(libc::EINPROGRESS))
            .then(Call::TakeError, Outcome::Pending(libc::ECONNREFUSED))
            .then(Call::TakeError, Outcome::Succeed)
            .then(Call::PeerAddr, Outcome::Fail(libc::ENOTCONN))
            .then(Call::Close, Outcome::Fail(libc::EIO));
        let client = socket::socket(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let raw = client.as_raw_fd();
        assert_eq!(errno(socket::connect(client.as_fd(), &address.into())), Some(libc::EINPROGRESS));
        let pending = socket::take_error(client.as_fd()).unwrap().unwrap();
        assert_eq!(pending.raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(socket::take_error(client.as_fd()).unwrap().is_none());
        assert_eq!(errno(socket::peer_addr(client.as_fd())), Some(libc::ENOTCONN));
        assert_eq!(errno(socket::close(client)), Some(libc::EIO));
        assert!(!registry().descriptors.contains_key(&raw) || !Arc::ptr_eq(&of_descriptor(raw).unwrap(), &script.0));
        assert_eq!(script.calls(Call::Close), 1);
    }
}
