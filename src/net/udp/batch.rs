//! Many datagrams a call: `RecvBatch` and `SendBatch`.
//!
//! They own the memory that the kernel writes to and reads from, and are used again and again: a datagram allocates nothing.
//!
//! # Compared with Go
//! Go's net has neither batches nor offload (Go issue 45886).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::slice::Chunks;

use super::ancillary::Ancillary;
use super::calls::canonical;
use crate::sys::batch::{CONTROL_WORDS, Inbox, Incoming, Outbox};
use crate::sys::control::ControlWriter;

/// What [`UdpSocket::recv_msg`](super::UdpSocket::recv_msg) says of a datagram whose bytes are in the buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecvInfo {
    /// Bytes in the buffers.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Whether bytes were lost for want of room.
    pub is_truncated: bool,
    /// What came beside the bytes.
    pub ancillary: Ancillary,
}

/// Room for many datagrams, for [`UdpSocket::recv_many`](super::UdpSocket::recv_many).
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
pub struct RecvBatch {
    pub(super) inbox: Inbox,
}

impl RecvBatch {
    /// Room for `packets` datagrams (1 to 1,024) of `bytes` each: all of its memory, also for addresses and what else comes.
    /// What is longer than `bytes` loses its end. With receive offload a "datagram" has up to 65,535 bytes.
    ///
    /// # Panics
    /// Where memory of that size cannot be had.
    pub fn new(packets: usize, bytes: usize) -> RecvBatch {
        RecvBatch { inbox: Inbox::new(packets, bytes.min(usize::from(u16::MAX))) }
    }

    /// How many there is room for.
    pub fn capacity(&self) -> usize {
        self.inbox.capacity()
    }

    /// How many the last call brought.
    pub fn len(&self) -> usize {
        self.inbox.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what came.
    pub fn clear(&mut self) {
        self.inbox.clear();
    }

    /// The one at `index`, in the order in which they came.
    pub fn get(&self, index: usize) -> Option<Datagram<'_>> {
        self.inbox.get(index).map(|message| Datagram { message })
    }

    /// All that the last call brought.
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

/// The datagrams of a [`RecvBatch`], in the order in which they came.
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

/// A datagram in a [`RecvBatch`]; with receive offload, several of one sender.
#[derive(Clone)]
pub struct Datagram<'a> {
    message: Incoming<'a>,
}

impl<'a> Datagram<'a> {
    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.message.bytes
    }

    /// Who sent it; none on a socket of another kind that was passed off as one of UDP.
    pub fn from(&self) -> Option<SocketAddr> {
        self.message.from
    }

    /// Whether bytes were lost for want of room.
    pub fn is_truncated(&self) -> bool {
        self.message.flags & libc::MSG_TRUNC != 0
    }

    /// What came beside the bytes.
    pub fn ancillary(&self) -> Ancillary {
        Ancillary::decode(self.message.control.clone(), self.message.flags)
    }

    /// The datagrams that receive offload has put together; otherwise the one. An empty one has no segments.
    pub fn segments(&self) -> Chunks<'a, u8> {
        let size = self.ancillary().segment_size().map_or(self.bytes().len(), usize::from);
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

/// Datagrams that are to go, for [`UdpSocket::send_many`](super::UdpSocket::send_many), which takes out what went. There is an
/// example at [`RecvBatch`].
#[derive(Debug)]
pub struct SendBatch {
    pub(super) outbox: Outbox,
}

impl SendBatch {
    /// An empty one. Its memory grows as datagrams are pushed, and is kept.
    pub const fn new() -> SendBatch {
        SendBatch { outbox: Outbox::new() }
    }

    /// Adds a datagram; `None` as its address on a connected socket. The bytes are copied.
    pub fn push(&mut self, bytes: &[u8], to: impl Into<Option<SocketAddr>>) {
        self.outbox.push(bytes, to.into().map(canonical), &ControlWriter::new(&mut []));
    }

    /// Adds a datagram with something beside its bytes, or with segmentation offload several
    /// ([`Ancillary::with_segment_size`]).
    ///
    /// # Errors
    /// `InvalidInput` for a local address of another family than `to`.
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

    /// How many are still to go.
    pub fn len(&self) -> usize {
        self.outbox.len()
    }

    /// Whether all have gone.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the first out without sending it: one that the kernel refuses stands in the way of the others.
    pub fn skip(&mut self) {
        self.outbox.advance(1);
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.outbox.clear();
    }
}

impl Default for SendBatch {
    fn default() -> SendBatch {
        SendBatch::new()
    }
}
