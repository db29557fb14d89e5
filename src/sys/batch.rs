//! [`Inbox`] and [`Outbox`]: many messages per call, with recvmmsg(2) and sendmmsg(2) or their
//! replacements in [`os`].
//!
//! A *box*, which is either of the two, keeps its memory for the next call. After the creation of a
//! box, only `push` allocates.
//!
//! # Invariants
//! * Before each call, the pointers in the headers and vectors of a box are set to memory that the
//!   box owns. The pointers are dereferenced only during the call. A box may therefore be moved,
//!   even to another thread.
//! * The memory of an inbox has a fixed size. The memory of an outbox grows only in `push`, to at
//!   most a few times the maximum size of the unsent messages so far, because sent messages are
//!   released.

#![allow(unsafe_code)]
// Lengths of control data are `size_t` in some C libraries and `socklen_t` in others.
#![allow(clippy::unnecessary_cast)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_int;
use socket2::{SockAddr, SockAddrStorage};

use super::control::{Control, ControlWriter, Messages, Word, space, words};
use super::os::{self, mmsghdr};
use super::socket::SEND_FLAGS;

/// The maximum number of messages per call: the kernel's UIO_MAXIOV.
pub(crate) const MESSAGES_MAX: usize = 1024;

/// The size of the buffer for the control data of a message, in bytes.
pub(crate) const CONTROL_BYTES: usize = 256;

// `net::udp::Ancillary` reads packet information, hop limit and TOS of both families, the segment
// size, and a timestamp of at most 16 bytes. Sending needs less.
const _: () = assert!(
    space(size_of::<os::PacketInfoV4>())
        + space(size_of::<libc::in6_pktinfo>())
        + 5 * space(size_of::<c_int>())
        + space(16)
        <= CONTROL_BYTES
);

/// [`CONTROL_BYTES`] in words.
pub(crate) const CONTROL_WORDS: usize = words(CONTROL_BYTES);

fn empty_header() -> mmsghdr {
    // SAFETY: the header is plain data, for which all zeroes is a valid value.
    unsafe { std::mem::zeroed() }
}

const NO_BYTES: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// The kernel's description of a received message: the lengths of its parts, and its flags.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    bytes: usize,
    control: usize,
    name: libc::socklen_t,
    flags: c_int,
}

/// A set of buffers for received messages.
pub(crate) struct Inbox {
    headers: Vec<mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<SockAddrStorage>,
    control: Vec<Word>,
    bytes: Vec<u8>,
    /// The size of the buffer of each message, in bytes.
    each: usize,
    arrivals: Vec<Arrival>,
}

// SAFETY: the pointers are dereferenced only in a call that borrows the box mutably and sets them
// to memory that the box owns.
unsafe impl Send for Inbox {}
// SAFETY: no pointer is dereferenced through a shared reference.
unsafe impl Sync for Inbox {}

/// A message in an [`Inbox`].
#[derive(Clone, Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) bytes: &'a [u8],
    /// The sender's address; `None` if it is not an IP address.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) flags: c_int,
    pub(crate) control: Messages<'a>,
}

impl Inbox {
    /// Creates an inbox for up to `messages` messages of up to `each` bytes. `messages` is clamped
    /// to the range 1 to [`MESSAGES_MAX`], and an `each` of 0 becomes 1.
    pub(crate) fn new(messages: usize, each: usize) -> Inbox {
        let (messages, each) = (messages.clamp(1, MESSAGES_MAX), each.max(1));
        Inbox {
            headers: (0..messages).map(|_| empty_header()).collect(),
            vectors: vec![NO_BYTES; messages],
            names: (0..messages).map(|_| SockAddrStorage::zeroed()).collect(),
            control: vec![0; messages * CONTROL_WORDS],
            bytes: vec![0; messages * each],
            each,
            arrivals: Vec::with_capacity(messages),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Returns the number of messages in the inbox.
    pub(crate) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(crate) fn clear(&mut self) {
        self.arrivals.clear();
    }

    /// Returns the number of bytes in the messages of the inbox.
    pub(crate) fn bytes(&self) -> usize {
        self.arrivals.iter().map(|arrival| arrival.bytes.min(self.each)).sum()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Incoming<'_>> {
        let Arrival { bytes, control, name, flags } = *self.arrivals.get(index)?;
        let start = index * self.each;
        let words = &self.control[index * CONTROL_WORDS..][..CONTROL_WORDS];
        Some(Incoming {
            bytes: &self.bytes[start..start + bytes.min(self.each)],
            from: self.name(index, name),
            flags,
            control: Messages::new(words, control),
        })
    }

    fn name(&self, index: usize, length: libc::socklen_t) -> Option<SocketAddr> {
        // A length below the size of `sockaddr_in` means that the call wrote no IP address.
        if (length as usize) < size_of::<libc::sockaddr_in>() {
            return None;
        }
        // SAFETY: the storage is plain data and is not written while the box is borrowed.
        let storage = unsafe { (&raw const self.names[index]).read() };
        // SAFETY: the kernel wrote an address of that length.
        unsafe { SockAddr::new(storage, length) }.as_socket()
    }

    fn prepare(&mut self) {
        let Inbox { headers, vectors, names, control, bytes, each, .. } = self;
        let rooms = bytes.chunks_exact_mut(*each).zip(control.chunks_exact_mut(CONTROL_WORDS));
        let places = headers.iter_mut().zip(vectors).zip(names).zip(rooms);
        for (((header, vector), name), (room, control)) in places {
            *vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<SockAddrStorage>() as _;
            header.msg_hdr.msg_iov = &raw mut *vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(control) as _;
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} × {}", self.len(), self.capacity(), self.each)
    }
}

/// Calls recvmmsg(2) with `MSG_CMSG_CLOEXEC` (where it exists) and `MSG_DONTWAIT` in addition to
/// `flags`, and closes received descriptors. Returns the number of messages. On failure the inbox
/// keeps its number of messages, but the bytes of the first may have been overwritten.
pub(crate) fn recvmmsg(fd: BorrowedFd<'_>, inbox: &mut Inbox, flags: c_int) -> io::Result<usize> {
    inbox.prepare();
    let (headers, count) = (inbox.headers.as_mut_ptr(), inbox.headers.len() as libc::c_uint);
    let flags = flags | os::RECEIVE_CLOSE_ON_EXEC | libc::MSG_DONTWAIT;
    // SAFETY: `prepare` has just pointed every header at memory of the box, which is valid for
    // writes of the given lengths.
    let count = unsafe { os::recvmmsg(fd.as_raw_fd(), headers, count, flags) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    inbox.arrivals.clear();
    inbox.arrivals.extend(inbox.headers[..count].iter().map(|header| Arrival {
        bytes: header.msg_len as usize,
        control: header.msg_hdr.msg_controllen as usize,
        name: header.msg_hdr.msg_namelen,
        flags: header.msg_hdr.msg_flags,
    }));
    for (arrival, control) in inbox.arrivals.iter().zip(inbox.control.chunks_exact(CONTROL_WORDS)) {
        if arrival.control > 0 {
            // Dropping the control data closes descriptors, which Unix sockets may receive.
            // SAFETY: the kernel has just written this many bytes of control data for this message.
            drop(unsafe { Control::new(control, arrival.control) });
        }
    }
    Ok(count)
}

/// A queue of elements that are appended at the end and released at the front. Positions are
/// counted from the first element that was appended since the last `clear`.
#[derive(Debug)]
struct Tape<T> {
    kept: Vec<T>,
    /// The position of the first element that is kept.
    base: u64,
}

impl<T: Copy> Tape<T> {
    const fn new() -> Tape<T> {
        Tape { kept: Vec::new(), base: 0 }
    }

    /// Appends `elements` and returns the position after them.
    fn push(&mut self, elements: &[T]) -> u64 {
        self.kept.extend_from_slice(elements);
        self.base + self.kept.len() as u64
    }

    fn get(&self, start: u64, end: u64) -> &[T] {
        &self.kept[(start - self.base) as usize..(end - self.base) as usize]
    }

    /// Releases the elements before `position`. They are removed only when they are about half of
    /// all elements or more, so that each element is moved at most about once on average.
    fn release(&mut self, position: u64) {
        let unused = (position - self.base) as usize;
        if unused > 0 && unused >= self.kept.len() / 2 {
            self.kept.drain(..unused);
            self.base = position;
        }
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.base = 0;
    }
}

/// A message in an [`Outbox`].
#[derive(Debug)]
struct Outgoing {
    to: Option<SockAddr>,
    /// The end of the message's bytes, which begin at the end of the previous message's bytes.
    bytes_end: u64,
    /// The end of the message's control data, which begins at the end of the previous message's
    /// data.
    control_end: u64,
    /// Whether the message has the same address as the previous message and neither message has
    /// control data, so that both may be segments of one datagram.
    follows: bool,
}

/// The maximum number of messages sent as segments of one datagram: the smallest limit of any
/// kernel version (UDP_MAX_SEGMENTS).
const SEGMENTS_MAX: usize = 64;

/// The maximum total size of segments, in bytes: the maximum payload of an IPv4 UDP datagram.
const SEGMENTED_MAX: usize = 65_507;

/// Control data that contains the segment size.
type Cut = [Word; words(space(size_of::<u16>()))];

/// A queue of messages to send.
pub(crate) struct Outbox {
    headers: Vec<mmsghdr>,
    vectors: Vec<libc::iovec>,
    cuts: Vec<Cut>,
    /// Per header, the index after its last message.
    ends: Vec<usize>,
    /// The messages that are not yet sent.
    messages: VecDeque<Outgoing>,
    bytes: Tape<u8>,
    control: Tape<Word>,
    /// The positions at which the first message's bytes and control data begin.
    starts: (u64, u64),
}

// SAFETY: as for `Inbox`.
unsafe impl Send for Outbox {}
// SAFETY: as for `Inbox`.
unsafe impl Sync for Outbox {}

impl Outbox {
    pub(crate) const fn new() -> Outbox {
        Outbox {
            headers: Vec::new(),
            vectors: Vec::new(),
            cuts: Vec::new(),
            ends: Vec::new(),
            messages: VecDeque::new(),
            bytes: Tape::new(),
            control: Tape::new(),
            starts: (0, 0),
        }
    }

    /// Returns the number of messages that are not yet sent.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns the number of bytes that are not yet sent.
    pub(crate) fn bytes(&self) -> usize {
        self.messages.back().map_or(0, |last| (last.bytes_end - self.starts.0) as usize)
    }

    /// Returns whether the first message has an address.
    pub(crate) fn first_has_address(&self) -> bool {
        self.messages.front().is_some_and(|message| message.to.is_some())
    }

    pub(crate) fn push(&mut self, bytes: &[u8], to: Option<SockAddr>, control: &ControlWriter<'_>) {
        let follows = control.bytes().is_empty()
            && self.messages.back().is_some_and(|last| {
                let control_start = self.starts(self.messages.len() - 1).1;
                last.control_end == control_start && last.to == to
            });
        let (bytes_end, control_end) = (self.bytes.push(bytes), self.control.push(control.words()));
        self.messages.push_back(Outgoing { to, bytes_end, control_end, follows });
        if self.headers.len() < self.messages.len().min(MESSAGES_MAX) {
            self.headers.push(empty_header());
            self.vectors.push(NO_BYTES);
            self.cuts.push(Cut::default());
            self.ends.push(0);
        }
    }

    /// Removes the first `count` messages, which were sent or are to be skipped.
    pub(crate) fn advance(&mut self, count: usize) {
        if count >= self.len() {
            return self.clear();
        }
        self.starts = self.starts(count);
        self.messages.drain(..count);
        self.bytes.release(self.starts.0);
        self.control.release(self.starts.1);
    }

    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.bytes.clear();
        self.control.clear();
        self.starts = (0, 0);
    }

    /// Returns the positions at which the bytes and the control data of message `index` begin.
    fn starts(&self, index: usize) -> (u64, u64) {
        index
            .checked_sub(1)
            .map_or(self.starts, |before| (self.messages[before].bytes_end, self.messages[before].control_end))
    }

    /// Returns the end of the run of messages from `first` on that may be sent as segments of one
    /// datagram. All of them have the same size, except that the last may be shorter.
    fn run(&self, first: usize) -> usize {
        let start = self.starts(first).0;
        let size = (self.messages[first].bytes_end - start) as usize;
        let mut end = first + 1;
        let mut last = size;
        while let Some(next) = self.messages.get(end) {
            let bytes = (next.bytes_end - self.messages[end - 1].bytes_end) as usize;
            let fits = end - first < SEGMENTS_MAX && (next.bytes_end - start) as usize <= SEGMENTED_MAX;
            if !next.follows || !fits || last < size || bytes == 0 || bytes > size {
                break;
            }
            last = bytes;
            end += 1;
        }
        end
    }

    /// Fills in up to [`MESSAGES_MAX`] headers for the unsent messages, and returns the number of
    /// headers. With `merge`, a header may contain several messages as segments.
    fn prepare(&mut self, merge: bool) -> usize {
        let (mut first, mut count) = (0, 0);
        while first < self.messages.len() && count < self.headers.len() {
            let end = if merge { self.run(first) } else { first + 1 };
            let (bytes_start, control_start) = self.starts(first);
            let (message, last) = (&self.messages[first], &self.messages[end - 1]);
            let mut control = self.control.get(control_start, message.control_end);
            if end > first + 1 {
                let cut = &mut self.cuts[count];
                let pushed = ControlWriter::new(cut).push(
                    libc::IPPROTO_UDP,
                    os::SEGMENT_OPTION,
                    (message.bytes_end - bytes_start) as u16,
                );
                debug_assert!(pushed.is_ok(), "the control data fits");
                control = cut;
            }
            // The kernel only reads the bytes, although the field is a mutable pointer.
            let part = self.bytes.get(bytes_start, last.bytes_end);
            self.vectors[count] = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
            let header = &mut self.headers[count].msg_hdr;
            let (name, length) = message.to.as_ref().map_or((std::ptr::null(), 0), |to| (to.as_ptr(), to.len()));
            header.msg_name = name.cast_mut().cast();
            header.msg_namelen = length;
            header.msg_iov = &raw mut self.vectors[count];
            header.msg_iovlen = 1;
            header.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_controllen = size_of_val(control) as _;
            self.ends[count] = end;
            first = end;
            count += 1;
        }
        count
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to go", self.len())
    }
}

/// Calls sendmmsg(2) with `MSG_NOSIGNAL` and `MSG_DONTWAIT` for up to [`MESSAGES_MAX`] headers. The
/// outbox must not be empty. Removes the sent messages from the outbox, and returns their number,
/// at least 1. With `merge`, up to [`SEGMENTS_MAX`] consecutive non-empty messages without control
/// data, of one size and to one peer, are sent as segments of one datagram (UDP_SEGMENT); the last
/// of them may be shorter. `merge` may be true only if the kernel and the socket support
/// UDP_SEGMENT. Otherwise the peer may receive the segments as one datagram.
pub(crate) fn sendmmsg(fd: BorrowedFd<'_>, outbox: &mut Outbox, merge: bool) -> io::Result<usize> {
    let count = outbox.prepare(merge) as libc::c_uint;
    let (headers, flags) = (outbox.headers.as_mut_ptr(), SEND_FLAGS);
    // SAFETY: `prepare` has just pointed this many headers at memory of the box, which is valid for
    // reads of the given lengths.
    let sent = unsafe { os::sendmmsg(fd.as_raw_fd(), headers, count, flags) };
    let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
    let messages = sent.checked_sub(1).map_or(0, |last| outbox.ends[last]);
    outbox.advance(messages);
    Ok(messages)
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
