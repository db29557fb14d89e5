//! UDP socket options and ancillary data that only Linux has: segmentation, receive offload,
//! devices.

use std::io;

use libc::c_int;

use super::{Ancillary, UdpSocket};
use crate::net::options::system;
use crate::sys::option;

/// Segmentation, receive offload and devices, which only Linux has.
impl UdpSocket {
    /// Returns the size in bytes of the datagrams into which each send is split (UDP_SEGMENT);
    /// `None` if sends are not split.
    ///
    /// # Errors
    /// Returns ENOPROTOOPT before Linux 4.18, and a [closed](crate::net::is_closed) error after
    /// `close`.
    ///
    /// Linux only.
    pub fn segment_size(&self) -> io::Result<Option<u16>> {
        let size = self.net_fd().with("get", |fd| option::get::<c_int>(fd, libc::IPPROTO_UDP, libc::UDP_SEGMENT))?;
        Ok(u16::try_from(size).ok().filter(|size| *size > 0))
    }

    /// Sets the size in bytes of the datagrams into which each send is split; the last datagram of
    /// a send may be shorter. `None` or zero turns splitting off. One send can be split into at
    /// most 64 datagrams (128 on newer kernels).
    /// [`Ancillary::with_segment_size`](super::Ancillary::with_segment_size) sets the size for one
    /// send.
    ///
    /// # Errors
    /// Returns ENOPROTOOPT before Linux 4.18, and a [closed](crate::net::is_closed) error after
    /// `close`.
    ///
    /// Linux only.
    #[doc(alias = "UDP_SEGMENT")]
    #[doc(alias = "GSO")]
    pub fn set_segment_size(&self, bytes: Option<u16>) -> io::Result<()> {
        let size = c_int::from(bytes.unwrap_or(0));
        let set = self.net_fd().with("set", |fd| option::set(fd, libc::IPPROTO_UDP, libc::UDP_SEGMENT, size));
        self.segmentation.forget();
        set
    }

    /// Binds the socket to the network device `name` (SO_BINDTODEVICE), so that it sends and
    /// receives only there. `None` removes the binding.
    ///
    /// # Errors
    /// Returns `InvalidInput` unless `name` has 1 to 15 bytes and no NUL, ENODEV if there is no
    /// such device, `PermissionDenied` if the process may not change the binding, and a
    /// [closed](crate::net::is_closed) error after `close`.
    ///
    /// Linux only.
    pub fn bind_device(&self, name: Option<&str>) -> io::Result<()> {
        self.net_fd().with("set", |fd| system::set_device(fd, name))
    }

    /// Returns the network device that the socket is bound to, if any.
    ///
    /// # Errors
    /// Returns the OS error, or a [closed](crate::net::is_closed) error after `close`.
    ///
    /// Linux only.
    pub fn device(&self) -> io::Result<Option<String>> {
        self.net_fd().with("get", system::device)
    }

    /// Returns whether receive offload is on (UDP_GRO).
    ///
    /// # Errors
    /// Returns ENOPROTOOPT before Linux 5.0, and a [closed](crate::net::is_closed) error after
    /// `close`.
    ///
    /// Linux only.
    pub fn gro(&self) -> io::Result<bool> {
        self.net_fd().with("get", |fd| option::is_on(fd, libc::IPPROTO_UDP, libc::UDP_GRO))
    }

    /// Sets whether receive offload is on (UDP_GRO). When it is on, datagrams of equal size from
    /// one sender that arrive together are received as one datagram of up to 65,535 bytes. Receive
    /// into buffers of this size: if the buffer is smaller, the datagrams that do not fit are lost,
    /// the last one may be cut, and [`is_truncated`](super::Datagram::is_truncated) is true.
    /// [`Ancillary::segment_size`](super::Ancillary::segment_size) returns their size, and
    /// [`Datagram::segments`](super::Datagram::segments) splits them.
    ///
    /// # Errors
    /// Returns ENOPROTOOPT before Linux 5.0, and a [closed](crate::net::is_closed) error after
    /// `close`.
    ///
    /// Linux only.
    pub fn set_gro(&self, on: bool) -> io::Result<()> {
        self.net_fd().with("set", |fd| option::switch(fd, libc::IPPROTO_UDP, libc::UDP_GRO, on))
    }
}

/// The segment size, which only Linux has.
impl Ancillary {
    /// Splits the send into datagrams of `bytes` bytes each (UDP_SEGMENT, Linux 4.18). The last
    /// datagram may be shorter. One send can have at most 64 datagrams (128 on newer kernels) and,
    /// over IPv4, 65,507 bytes in total.
    ///
    /// Linux only.
    #[must_use]
    pub const fn with_segment_size(mut self, bytes: u16) -> Ancillary {
        self.segment_size = Some(bytes);
        self
    }

    /// Returns the size in bytes of the datagrams that receive offload combined (UDP_GRO); the last
    /// datagram may be shorter. `None` means that the bytes are one datagram.
    ///
    /// Linux only.
    pub const fn segment_size(&self) -> Option<u16> {
        self.segment_size
    }
}
