//! [`RecvBatch`] and [`SendBatch`]: many datagrams per system call, on Linux. (On other systems,
//! each datagram takes a system call.)
//!
//! A batch owns the memory that the kernel writes to or reads from. The memory is reused, so in the
//! long run datagrams cause no allocations.
//!
//! # Compared with Go
//! Go's net package has neither batches nor offload (Go issue 45886).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::slice::Chunks;

use super::ancillary::Ancillary;
use super::targets::canonical;
use crate::sys::batch::{CONTROL_WORDS, Inbox, Incoming, Outbox};
use crate::sys::control::ControlWriter;

/// Information about a received datagram; returned by
/// [`UdpSocket::recv_msg`](super::UdpSocket::recv_msg).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecvInfo {
    /// The number of bytes received.
    pub len: usize,
    /// The sender's address.
    pub from: SocketAddr,
    /// Whether bytes were lost because the buffers were too small.
    pub is_truncated: bool,
    /// The ancillary data.
    pub ancillary: Ancillary,
}

/// Buffers into which [`UdpSocket::recv_many`](super::UdpSocket::recv_many) receives datagrams.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// use netpoll::net::{RecvBatch, SendBatch, UdpSocket};
///
/// let receiver = UdpSocket::bind("127.0.0.1:0").await?;
/// let sender = UdpSocket::bind("127.0.0.1:0").await?;
///
/// let mut out = SendBatch::new();
/// for word in ["one", "two", "three"] {
///     out.push(word.as_bytes(), receiver.local_addr()?);
/// }
/// while !out.is_empty() {
///     sender.send_many(&mut out).await?;
/// }
///
/// let mut batch = RecvBatch::new(32, 1500);
/// let mut words = Vec::new();
/// while words.len() < 3 {
///     receiver.recv_many(&mut batch).await?;
///     words.extend(batch.iter().map(|datagram| String::from_utf8_lossy(datagram.bytes()).into_owned()));
/// }
/// assert_eq!(words, ["one", "two", "three"]);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Debug)]
#[doc(alias = "recvmmsg")]
pub struct RecvBatch {
    pub(super) inbox: Inbox,
}

impl RecvBatch {
    /// Creates a batch for `packets` datagrams of up to `bytes` bytes each, and allocates all of
    /// its memory. `packets` is clamped to the range 1 to 1,024, and `bytes` to 1 to 65,535. Longer
    /// datagrams are truncated. With [receive offload](super::UdpSocket::set_gro), several
    /// datagrams are received as one datagram of up to 65,535 bytes. `bytes` should then be 65,535,
    /// because the bytes that do not fit are lost.
    pub fn new(packets: usize, bytes: usize) -> RecvBatch {
        RecvBatch { inbox: Inbox::new(packets, bytes.min(usize::from(u16::MAX))) }
    }

    /// Returns the number of datagrams that fit into the batch.
    pub fn capacity(&self) -> usize {
        self.inbox.capacity()
    }

    /// Returns the number of datagrams in the batch.
    pub fn len(&self) -> usize {
        self.inbox.len()
    }

    /// Returns whether the batch holds no datagrams.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Discards the received datagrams.
    pub fn clear(&mut self) {
        self.inbox.clear();
    }

    /// Returns the datagram at `index` in order of arrival, or `None` if `index` is out of range.
    pub fn get(&self, index: usize) -> Option<Datagram<'_>> {
        self.inbox.get(index).map(|message| Datagram { message })
    }

    /// Returns an iterator over the datagrams in the batch, in order of arrival.
    pub fn iter(&self) -> RecvBatchIter<'_> {
        RecvBatchIter { batch: self, next: 0 }
    }
}

impl<'a> IntoIterator for &'a RecvBatch {
    type Item = Datagram<'a>;
    type IntoIter = RecvBatchIter<'a>;

    fn into_iter(self) -> RecvBatchIter<'a> {
        self.iter()
    }
}

/// An iterator over the datagrams of a [`RecvBatch`], in order of arrival.
#[derive(Clone, Debug)]
pub struct RecvBatchIter<'a> {
    batch: &'a RecvBatch,
    next: usize,
}

impl<'a> Iterator for RecvBatchIter<'a> {
    type Item = Datagram<'a>;

    fn next(&mut self) -> Option<Datagram<'a>> {
        let datagram = self.batch.get(self.next)?;
        self.next += 1;
        Some(datagram)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for RecvBatchIter<'_> {}

/// A datagram in a [`RecvBatch`]; with receive offload, several datagrams from one sender.
#[derive(Clone)]
pub struct Datagram<'a> {
    message: Incoming<'a>,
}

impl<'a> Datagram<'a> {
    /// Returns the bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.message.bytes
    }

    /// Returns the sender's address; `None` if the descriptor is not a UDP socket.
    pub fn from(&self) -> Option<SocketAddr> {
        self.message.from
    }

    /// Returns whether bytes were lost because the buffer was too small.
    pub fn is_truncated(&self) -> bool {
        self.message.flags & libc::MSG_TRUNC != 0
    }

    /// Returns the ancillary data.
    pub fn ancillary(&self) -> Ancillary {
        Ancillary::decode(self.message.control.clone(), self.message.flags)
    }

    /// Returns an iterator over the datagrams that receive offload combined, or over the single
    /// datagram. An empty datagram has no segments.
    pub fn segments(&self) -> Chunks<'a, u8> {
        let size = self.ancillary().segment_size.map_or(self.bytes().len(), usize::from);
        self.bytes().chunks(size.max(1))
    }
}

impl fmt::Debug for Datagram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram")
            .field("bytes", &self.bytes().len())
            .field("from", &self.from())
            .field("is_truncated", &self.is_truncated())
            .field("ancillary", &self.ancillary())
            .finish()
    }
}

/// Datagrams for [`UdpSocket::send_many`](super::UdpSocket::send_many), which removes the datagrams
/// that it has sent. [`RecvBatch`] has an example.
#[derive(Debug)]
#[doc(alias = "sendmmsg")]
pub struct SendBatch {
    pub(super) outbox: Outbox,
}

impl SendBatch {
    /// Creates an empty batch. Its memory grows as datagrams are added, and is kept for reuse.
    pub const fn new() -> SendBatch {
        SendBatch { outbox: Outbox::new() }
    }

    /// Adds a datagram whose destination is `to`, or the peer of a connected socket if `to` is
    /// `None`. The bytes are copied.
    pub fn push(&mut self, bytes: &[u8], to: impl Into<Option<SocketAddr>>) {
        self.outbox.push(bytes, to.into().map(canonical), &ControlWriter::new(&mut []));
    }

    /// Adds a datagram with ancillary data. With a segment size ([`Ancillary::with_segment_size`]),
    /// the bytes are sent as several datagrams.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the local address in `ancillary` and `to` are of different
    /// families, or if the interface index is 2³¹ or more.
    pub fn push_with(
        &mut self,
        bytes: &[u8],
        to: impl Into<Option<SocketAddr>>,
        ancillary: &Ancillary,
    ) -> io::Result<()> {
        let to = to.into().map(canonical);
        let mut words = [0; CONTROL_WORDS];
        let mut control = ControlWriter::new(&mut words);
        ancillary.encode(to.as_ref(), &mut control)?;
        self.outbox.push(bytes, to, &control);
        Ok(())
    }

    /// Returns the number of datagrams that have not been sent yet.
    pub fn len(&self) -> usize {
        self.outbox.len()
    }

    /// Returns whether no datagram is left to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the first datagram without sending it. Use this if the kernel refuses the datagram,
    /// because the following datagrams are not sent until it is removed.
    pub fn skip(&mut self) {
        self.outbox.advance(1);
    }

    /// Removes all datagrams.
    pub fn clear(&mut self) {
        self.outbox.clear();
    }
}

impl Default for SendBatch {
    fn default() -> SendBatch {
        SendBatch::new()
    }
}
