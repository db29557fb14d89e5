//! Stores data about descriptors for [`inspect`](crate::rt::inspect()): number, time of opening,
//! kind, addresses, host name and limits.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Weak;

use super::addresses;
use super::labels::{self, Limits};
use super::poller::{PollHandle, is_open};
use super::usage;
use crate::rt::context;
use crate::rt::sched::waits;
use crate::rt::time::ticks;

impl PollHandle {
    /// Stores the number of the handle's descriptor, the time at which it was opened, and whether
    /// it is known to be a TCP socket without multipath. Clears the addresses or the usage of the
    /// slot's previous descriptor.
    pub(crate) fn describe(&mut self, number: RawFd, is_tcp: bool) {
        let now = ticks::rough_now();
        self.desc.describe(number as u32, is_tcp, now, waits::edge_notes);
        if is_tcp {
            self.uncounted = context::BYTES_PER_UNIT as u32;
            addresses::reset(self.desc.index);
        } else {
            usage::of(self.desc.index).reset(now);
        }
    }

    /// Stores the kind of a new socket that is not TCP.
    pub(crate) fn set_kind(&self, kind: &str) {
        usage::of(self.desc.index).set_kind(kind);
    }

    /// Stores the host name to which the socket was dialled.
    pub(crate) fn set_host(&self, host: &str) {
        labels::set_host(self.desc.index, self.generation, host, is_open);
    }

    /// Returns the slot and the generation of a TCP socket without multipath, or `None` for another
    /// descriptor. The methods below that store addresses have no effect on other descriptors.
    fn tcp_id(&self) -> Option<addresses::Id> {
        (self.uncounted != 0).then_some((self.desc.index, self.generation))
    }

    /// Stores the addresses of a new TCP connection. `local` is `None` if it is unknown.
    pub(crate) fn set_connection(&self, local: Option<SocketAddr>, peer: SocketAddr) {
        if let Some(id) = self.tcp_id() {
            addresses::set_connection(id, local, peer);
        }
    }

    /// Stores the addresses of a TCP connection that `listener` has accepted.
    pub(crate) fn set_accepted(&self, listener: &PollHandle, peer: SocketAddr) {
        if let (Some(id), Some(listener)) = (self.tcp_id(), listener.tcp_id()) {
            addresses::set_accepted(id, listener, peer);
        }
    }

    /// Stores the address of a new TCP listener. With port 0, the address is not known yet.
    pub(crate) fn set_listener(&self, local: SocketAddr) {
        if let Some(id) = self.tcp_id() {
            addresses::set_listener(id, local);
        }
    }

    /// Adds the local address that the kernel has returned for a TCP socket.
    pub(crate) fn add_local(&self, local: SocketAddr) {
        if let Some(id) = self.tcp_id() {
            addresses::add_local(id, local);
        }
    }

    /// Stores the limits of a listener.
    pub(crate) fn set_limits(&self, limits: Weak<dyn Limits>) {
        labels::set_limits(self.desc.index, self.generation, limits, is_open);
    }
}
