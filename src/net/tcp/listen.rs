//! Opening TCP listeners with a [`ListenConfig`].

use std::io;

use super::TcpListener;
use crate::net::listen_config::open_first;
use crate::net::{ListenConfig, ToSocketAddrs};

/// Opening listeners.
impl ListenConfig {
    /// Listens on the first of `addrs` that can be bound. Port 0 asks the kernel for a free port.
    ///
    /// # Errors
    /// If every address fails, returns the [`OpError`](crate::net::OpError) of the last address.
    /// Its text is `listen tcp ADDR: CALL: …`, or `listen tcp ADDR: …` if the
    /// [`control`](ListenConfig::control) function returned the error. Its kind is that of the OS
    /// error, such as `AddrInUse`, `AddrNotAvailable` or `PermissionDenied`, or `InvalidInput` for
    /// an option value that is out of range (a buffer of 1 GiB, for example). If there is no
    /// address, returns the same errors as [`TcpListener::bind`]. If the descriptor reserve cannot
    /// be opened, returns an `OpError` with the text `listen tcp: open: …`.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, no listener stays open.
    pub async fn listen<A: ToSocketAddrs>(&self, addrs: A) -> io::Result<TcpListener> {
        let admission = self.admission()?;
        open_first(addrs, |addr| Ok(TcpListener::from_net_fd(self.open(addr)?, admission.clone()))).await
    }

    /// Opens `count` listeners, for example one for each worker thread, on the first of `addrs`
    /// that can be bound `count` times. The sockets have SO_REUSEPORT set; Linux distributes
    /// connections among them. All listen on the same port, even if `addrs` has port 0, and share
    /// the connection limit and the descriptor reserve, if they are configured.
    ///
    /// # Errors
    /// Returns the same errors as [`listen`](ListenConfig::listen), and `InvalidInput` if `count`
    /// is 0.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, no listener stays open.
    ///
    /// # Examples
    /// ```
    /// # netpoll::task::block_on(async {
    /// use netpoll::net::ListenConfig;
    ///
    /// let listeners = ListenConfig::new().listen_many("127.0.0.1:0", 4).await?;
    /// let addr = listeners[0].local_addr()?;
    /// assert!(listeners.iter().all(|listener| listener.local_addr().is_ok_and(|at| at == addr)));
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn listen_many<A: ToSocketAddrs>(&self, addrs: A, count: usize) -> io::Result<Vec<TcpListener>> {
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "count must be at least 1"));
        }
        let config = self.clone().reuse_port(true);
        let admission = config.admission()?;
        let open = |addr| config.open(addr).map(|fd| TcpListener::from_net_fd(fd, admission.clone()));
        open_first(addrs, |mut addr| {
            let first = open(addr)?;
            addr.set_port(first.local_addr()?.port());
            let mut listeners = vec![first];
            while listeners.len() < count {
                listeners.push(open(addr)?);
            }
            Ok(listeners)
        })
        .await
    }

    /// Replaces the limits of `listener` with those of this configuration
    /// ([`max_connections`](ListenConfig::max_connections),
    /// [`reserve_descriptors`](ListenConfig::reserve_descriptors)). Use this for a listener that
    /// was opened elsewhere, such as by [socket activation](crate::net::activation). Open
    /// connections that hold permits of an earlier limit do not count against the new one.
    ///
    /// # Errors
    /// If the descriptor reserve cannot be opened, closes the listener and returns an
    /// [`OpError`](crate::net::OpError) with the text `listen tcp: open: …`.
    pub fn limit(&self, listener: TcpListener) -> io::Result<TcpListener> {
        Ok(listener.admitting(self.admission()?))
    }
}
