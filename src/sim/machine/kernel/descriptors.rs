//! Descriptors: their numbers and flags, the calls that open, duplicate and close them, and the log
//! of calls.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use super::calls::Result;
use super::network::{DESCRIPTORS_MAX, Kernel};
use super::socket::{Family, HostId, Kind, Role, Socket, SocketId};

impl Kernel {
    /// Returns whether the number is in the range of this simulation's descriptors.
    pub(crate) fn owns(&self, fd: i32) -> bool {
        (0..DESCRIPTORS_MAX).contains(&fd.wrapping_sub(self.first_descriptor))
    }

    /// Returns the socket of a descriptor. Fails with EBADF if the descriptor is not open or does
    /// not belong to this simulation; in the latter case, records it in `stranger`.
    pub(crate) fn id(&self, fd: i32) -> Result<SocketId> {
        if !self.owns(fd) {
            // The greatest number stands for a closed descriptor (`sys::placeholder`).
            self.stranger.set(Some(fd).filter(|fd| *fd != i32::MAX));
            return Err(libc::EBADF);
        }
        self.descriptors.get(self.index(fd) as usize).copied().flatten().ok_or(libc::EBADF)
    }

    pub(super) fn get(&self, fd: i32) -> Result<(SocketId, &Socket)> {
        let id = self.id(fd)?;
        Ok((id, self.socket(id).ok_or(libc::EBADF)?))
    }

    pub(super) fn get_mut(&mut self, fd: i32) -> Result<(SocketId, &mut Socket)> {
        let id = self.id(fd)?;
        Ok((id, self.socket_mut(id).ok_or(libc::EBADF)?))
    }

    /// Returns the host to which the socket belongs.
    pub(crate) fn host_of(&self, fd: i32) -> Result<HostId> {
        Ok(self.get(fd)?.1.host)
    }

    /// Assigns the lowest free descriptor to `id`. Fails with EMFILE if none is free, or if a fault
    /// is injected.
    pub(super) fn assign_descriptor(&mut self, id: SocketId) -> Result<i32> {
        if self.faults.strikes(self.faults.no_descriptors, self.now, "EMFILE") {
            return Err(libc::EMFILE);
        }
        let index = match self.free_descriptors.pop() {
            Some(lowest) => lowest.0,
            None if self.descriptors.len() < DESCRIPTORS_MAX as usize => {
                self.descriptors.push(None);
                self.descriptors.len() as u32 - 1
            }
            None => return Err(libc::EMFILE),
        };
        self.descriptors[index as usize] = Some(id);
        if let Some(socket) = self.socket_mut(id) {
            socket.descriptors += 1;
        }
        Ok(self.first_descriptor + index as i32)
    }

    /// Returns whether a descriptor has the flag FD_CLOEXEC.
    pub(crate) fn closes_on_exec(&self, fd: i32) -> Result<bool> {
        self.id(fd)?;
        Ok(self.closed_on_exec.contains(&self.index(fd)))
    }

    /// Sets or clears the flag FD_CLOEXEC, which new descriptors do not have.
    pub(crate) fn set_closes_on_exec(&mut self, fd: i32, closes: bool) -> Result<()> {
        self.id(fd)?;
        let index = self.index(fd);
        if closes {
            self.closed_on_exec.insert(index);
        } else {
            self.closed_on_exec.remove(&index);
        }
        Ok(())
    }

    /// Returns the index in `descriptors` of a descriptor of this simulation.
    fn index(&self, fd: i32) -> u32 {
        (fd - self.first_descriptor) as u32
    }

    /// Returns the number of a descriptor in the log. These numbers begin with 0, independently of
    /// other simulations. -1 stands for no descriptor.
    pub(super) fn log_number(&self, fd: i32) -> i32 {
        if fd < 0 { -1 } else { fd - self.first_descriptor }
    }

    /// Returns the open descriptors, numbered as in the log, with their sockets.
    pub(crate) fn open_descriptors(&self) -> impl Iterator<Item = (i32, &Socket)> {
        let open = (0..).zip(&self.descriptors);
        open.filter_map(|(fd, id)| Some((fd, self.socket((*id)?)?)))
    }

    /// Makes a call and logs its result, unless the descriptor is not open.
    pub(super) fn logged(
        &mut self,
        name: &'static str,
        fd: i32,
        call: impl FnOnce(&mut Kernel) -> Result<()>,
    ) -> Result<()> {
        let result = call(self);
        let host = self.host_of(fd)?;
        self.log_call(host, name, fd, result.map(|()| 0));
        result
    }

    /// Logs a call. Its descriptor is -1 if the call has none.
    pub(crate) fn log_call(&mut self, host: HostId, name: &'static str, fd: i32, result: Result<i64>) {
        let number = self.log_number(fd);
        self.log.call(self.now, host, name, number, result);
    }

    /// socket(2) on `host`.
    pub(crate) fn open(&mut self, host: HostId, family: Family, kind: Kind, nonblocking: bool) -> Result<i32> {
        let mut socket = self.fresh(host, family, kind);
        socket.is_nonblocking = nonblocking;
        if !self.hosts[host as usize].is_up {
            socket.role = Role::Dead;
        }
        let id = self.insert(socket);
        let fd = self.assign_descriptor(id);
        if fd.is_err() {
            self.remove(id);
        }
        self.log_call(host, "socket", fd.unwrap_or(-1), fd.map(|fd| self.log_number(fd).into()));
        fd
    }

    /// fcntl(2) `F_DUPFD`: `least` is the lowest permitted descriptor.
    pub(crate) fn duplicate(&mut self, fd: i32, least: i32) -> Result<i32> {
        let id = self.id(fd)?;
        let least = least.saturating_sub(self.first_descriptor);
        if least >= DESCRIPTORS_MAX {
            return Err(libc::EINVAL);
        }
        let least = least.max(0) as u32;
        let below: Vec<_> = std::iter::from_fn(|| {
            let lowest = self.free_descriptors.peek()?.0;
            (lowest < least).then(|| self.free_descriptors.pop()).flatten()
        })
        .collect();
        let end = self.descriptors.len() as u32;
        let unused = if self.free_descriptors.is_empty() { end..least.max(end) } else { 0..0 };
        self.descriptors.resize(self.descriptors.len() + unused.len(), None);
        let result = self.assign_descriptor(id);
        self.free_descriptors.extend(below.into_iter().chain(unused.map(Reverse)));
        result
    }

    /// close(2). Also frees a number that [`close_and_keep_number`](Kernel::close_and_keep_number)
    /// has kept.
    pub(crate) fn close(&mut self, fd: i32) -> Result<()> {
        if !self.is_kept(fd) {
            self.close_and_keep_number(fd)?;
        }
        let index = self.index(fd);
        self.kept_numbers.remove(&index);
        self.free_descriptors.push(Reverse(index));
        Ok(())
    }

    /// Returns whether the number `fd` is in use although its descriptor is closed.
    fn is_kept(&self, fd: i32) -> bool {
        self.owns(fd) && self.kept_numbers.contains(&self.index(fd))
    }

    /// Returns the numbers that are in use: those of open descriptors, and those that
    /// [`close_and_keep_number`](Kernel::close_and_keep_number) has kept.
    pub(crate) fn numbers_in_use(&self) -> BTreeSet<i32> {
        let kept = self.kept_numbers.iter().map(|&index| index as i32);
        self.open_descriptors().map(|(index, _)| index).chain(kept).map(|index| self.first_descriptor + index).collect()
    }

    /// Closes a descriptor, but keeps its number in use until [`close`](Kernel::close) is called.
    /// Calls on it fail with EBADF.
    pub(crate) fn close_and_keep_number(&mut self, fd: i32) -> Result<()> {
        let (id, socket) = self.get_mut(fd)?;
        socket.watchers.retain(|&(watched, _)| watched != fd);
        socket.descriptors -= 1;
        let (host, is_last) = (socket.host, socket.descriptors == 0);
        let index = self.index(fd);
        self.descriptors[index as usize] = None;
        self.closed_on_exec.remove(&index);
        self.kept_numbers.insert(index);
        if is_last {
            self.close_socket(id);
        }
        self.log_call(host, "close", fd, Ok(0));
        Ok(())
    }

    fn close_socket(&mut self, id: SocketId) {
        let Some(socket) = self.socket_mut(id) else { return };
        let resets = socket.options.linger == Some(0);
        match &mut socket.role {
            Role::Tcp(_) => {
                self.with_connection(id, |connection, now, out| connection.close(now, resets, out));
                self.after(id, false);
            }
            Role::Listener(listener) => {
                let queued = std::mem::take(&mut listener.queue);
                self.close_listener(id, queued);
                self.remove(id);
            }
            Role::Unix(_) => self.close_unix(id, false),
            Role::Unconnected | Role::Udp(_) | Role::Dead => self.remove(id),
        }
    }

    /// Ends the connections that a listener has not accepted, because it is closed or no longer
    /// listens. TCP connections are reset.
    pub(super) fn close_listener(&mut self, id: SocketId, queued: VecDeque<SocketId>) {
        let half_open = self.places.iter().zip(0..).filter_map(|(place, index)| {
            let is_child = place.socket.as_ref().is_some_and(|socket| socket.parent == Some(id));
            is_child.then_some(SocketId { index, generation: place.generation })
        });
        let children: Vec<_> = queued.into_iter().chain(half_open).collect();
        for child in children {
            if let Some(socket) = self.socket_mut(child) {
                socket.parent = None;
                if matches!(socket.role, Role::Unix(_)) {
                    self.close_unix(child, true);
                    continue;
                }
            }
            self.with_connection(child, |connection, _, out| {
                connection.is_orphan = true;
                connection.abort(out);
            });
            self.after(child, false);
        }
    }
}
