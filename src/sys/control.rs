//! Control messages, the ancillary data of a message (cmsg(3)): building them, iterating over them,
//! and ownership of the descriptors in them.
//!
//! libc's `CMSG_SPACE` computes the layout. Iteration ends at a message whose length is less than
//! that of a header or exceeds the rest of the data, so the complete messages in truncated control
//! data are read.
//!
//! # Invariants
//! * The buffer consists of [`Word`]s, which have at least the alignment of a `cmsghdr`.
//! * A [`Control`] is created only from data that the kernel has just written, so it owns the
//!   descriptors in the data. Each descriptor is returned once by [`Control::take_fds`], or closed
//!   when the `Control` is dropped.
//!
//! # Compared with Go (syscall/sockcmsg_linux.go)
//! `ParseUnixRights` returns descriptor numbers, which leak if the caller does not close them. Here
//! the descriptors are owned from the start.

#![allow(unsafe_code)]
// Lengths of control data are `size_t` in some C libraries and `socklen_t` in others.
#![allow(clippy::unnecessary_cast)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use socket2::SockRef;

use super::os;

/// The element type of a control buffer.
pub(crate) type Word = usize;

/// The maximum number of descriptors per message: SCM_MAX_FD of Linux.
pub(crate) const FDS_MAX: usize = 253;

const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<Word>());

/// The size of a header with its padding, in bytes.
const HEADER: usize = space(0);

/// Returns the size of a control message with `data` bytes of data, including its header and
/// padding.
pub(crate) const fn space(data: usize) -> usize {
    // SAFETY: the function only does arithmetic.
    unsafe { libc::CMSG_SPACE(data as libc::c_uint) as usize }
}

/// Returns the number of words needed for `bytes` bytes.
pub(crate) const fn words(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<Word>())
}

/// The number of words needed for the maximum number of descriptors in a message.
pub(crate) const RIGHTS_WORDS: usize = words(space(FDS_MAX * size_of::<c_int>()));

/// Types for which every bit pattern is a valid value.
///
/// # Safety
/// Every bit pattern must be a valid value. The type must have no padding, unless it is only read
/// ([`option::get`](super::option::get)).
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer has no padding.
unsafe impl Plain for c_int {}
// SAFETY: an integer has no padding.
unsafe impl Plain for u32 {}
// SAFETY: an integer has no padding.
unsafe impl Plain for u16 {}
// SAFETY: an integer has no padding.
unsafe impl Plain for u8 {}
// SAFETY: it consists of integers of four bytes.
unsafe impl Plain for os::PacketInfoV4 {}
// SAFETY: it consists of three integers of four bytes.
unsafe impl Plain for libc::ip_mreqn {}
// SAFETY: it consists of sixteen bytes and an integer of four bytes.
unsafe impl Plain for libc::in6_pktinfo {}

fn bytes_of(words: &[Word]) -> &[u8] {
    // SAFETY: the slice covers the same initialised memory; bytes need no alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

fn bytes_of_mut(words: &mut [Word]) -> &mut [u8] {
    // SAFETY: as above; the memory is borrowed mutably, and every bit pattern is a valid word.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

/// Builds control data in a buffer.
#[derive(Debug)]
pub(crate) struct ControlWriter<'a> {
    words: &'a mut [Word],
    /// The number of bytes written.
    len: usize,
}

impl<'a> ControlWriter<'a> {
    pub(crate) fn new(words: &'a mut [Word]) -> ControlWriter<'a> {
        ControlWriter { words, len: 0 }
    }

    /// Returns the control data for a `msghdr`; empty if no message was pushed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &bytes_of(self.words)[..self.len]
    }

    /// Returns the control data as words. On Linux and FreeBSD every message ends at a word
    /// boundary. On macOS the end of the last word may not belong to a message; it is zeroed.
    pub(crate) fn words(&self) -> &[Word] {
        &self.words[..words(self.len)]
    }

    /// Appends a header, and returns the space for `data` bytes of data after it. Zeroes the bytes
    /// behind the data, up to the end of the last word.
    fn reserve(&mut self, level: c_int, kind: c_int, data: usize) -> io::Result<&mut [u8]> {
        let (start, whole) = (self.len, space(data));
        let end = words(start + whole) * size_of::<Word>();
        let Some(room) = bytes_of_mut(self.words).get_mut(start..end) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "control data does not fit into its buffer"));
        };
        // SAFETY: a header is plain data, for which all zeroes is a valid value. In some C
        // libraries it has padding.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = (HEADER + data) as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        // SAFETY: `room` has at least the size of a header, and the write needs no alignment.
        unsafe { room.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
        self.len = start + whole;
        let (data, padding) = room[HEADER..].split_at_mut(data);
        padding.fill(0);
        Ok(data)
    }

    /// Appends a message that contains one value.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the message does not fit into the buffer.
    pub(crate) fn push<T: Plain>(&mut self, level: c_int, kind: c_int, value: T) -> io::Result<()> {
        let room = self.reserve(level, kind, size_of::<T>())?;
        // SAFETY: the space has the size of `T`, and the write needs no alignment.
        unsafe { room.as_mut_ptr().cast::<T>().write_unaligned(value) };
        Ok(())
    }

    /// Appends descriptors (SCM_RIGHTS); the receiver gets duplicates. Appends nothing if `fds` is
    /// empty.
    ///
    /// # Errors
    /// Returns `InvalidInput` for more than [`FDS_MAX`] descriptors, or if they do not fit into the
    /// buffer.
    pub(crate) fn push_fds(&mut self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.is_empty() {
            return Ok(());
        }
        if fds.len() > FDS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message can carry at most 253 descriptors"));
        }
        let room = self.reserve(libc::SOL_SOCKET, libc::SCM_RIGHTS, fds.len() * size_of::<c_int>())?;
        for (place, fd) in room.chunks_exact_mut(size_of::<c_int>()).zip(fds) {
            place.copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
        }
        Ok(())
    }
}

/// One control message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) level: c_int,
    pub(crate) kind: c_int,
    pub(crate) data: &'a [u8],
}

impl Message<'_> {
    /// Returns the value of type `T` at the start of the data, or `None` if there are too few
    /// bytes.
    pub(crate) fn value<T: Plain>(&self) -> Option<T> {
        let data = self.data.get(..size_of::<T>())?;
        // SAFETY: `data` has the size of `T`, every bit pattern is a valid value, and the read
        // needs no alignment.
        Some(unsafe { data.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// An iterator over the messages in control data.
#[derive(Clone, Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Creates an iterator over the messages in the first `len` bytes of a buffer.
    pub(crate) fn new(words: &'a [Word], len: usize) -> Messages<'a> {
        let bytes = bytes_of(words);
        Messages { rest: &bytes[..len.min(bytes.len())] }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let rest = self.rest;
        if rest.len() < HEADER {
            return None;
        }
        // SAFETY: `rest` has at least the size of a header, which is plain data; the read needs no
        // alignment.
        let header = unsafe { rest.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        let data = rest.get(HEADER..header.cmsg_len as usize)?;
        self.rest = rest.get(space(data.len())..).unwrap_or_default();
        Some(Message { level: header.cmsg_level, kind: header.cmsg_type, data })
    }
}

/// Returns the descriptor numbers in SCM_RIGHTS messages.
fn rights(messages: Messages<'_>) -> impl Iterator<Item = RawFd> {
    numbers(messages, libc::SCM_RIGHTS)
}

/// Returns the descriptor numbers in `SOL_SOCKET` messages of one kind.
fn numbers(messages: Messages<'_>, kind: c_int) -> impl Iterator<Item = RawFd> {
    messages
        .filter(move |message| (message.level, message.kind) == (libc::SOL_SOCKET, kind))
        .flat_map(|message| message.data.chunks_exact(size_of::<c_int>()))
        .map(|number| RawFd::from_ne_bytes(number.try_into().expect("a chunk of four bytes")))
}

/// Received control data. Dropping it closes descriptors that were not taken.
#[derive(Debug)]
pub(crate) struct Control<'a> {
    words: &'a [Word],
    len: usize,
    /// Whether the passed descriptors were taken.
    taken: bool,
}

impl<'a> Control<'a> {
    /// Takes ownership of the descriptors in received control data.
    ///
    /// # Safety
    /// The kernel must have written the first `len` bytes of `words` as the control data of one
    /// message, and no other `Control` may have been created from them.
    pub(super) unsafe fn new(words: &'a [Word], len: usize) -> Control<'a> {
        Control { words, len, taken: false }
    }

    pub(crate) fn messages(&self) -> Messages<'_> {
        Messages::new(self.words, self.len)
    }

    /// Moves the received descriptors to the end of `into`, and makes them close-on-exec if the
    /// kernel has not done so. Returns their number, or 0 if they were taken before.
    pub(crate) fn take_fds(&mut self, into: &mut Vec<OwnedFd>) -> usize {
        if std::mem::replace(&mut self.taken, true) {
            return 0;
        }
        let before = into.len();
        // SAFETY: the kernel installed the descriptor for this message, and `taken` ensures that it
        // is returned only once.
        into.extend(rights(self.messages()).map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        if os::RECEIVE_CLOSE_ON_EXEC == 0 {
            for fd in &into[before..] {
                // This fails only if the number is not an open descriptor.
                let _ = SockRef::from(fd).set_cloexec(true);
            }
        }
        into.len() - before
    }
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        let passed = rights(self.messages()).filter(|_| !self.taken);
        // With SO_PASSPIDFD the message contains a pidfd of the sender, or a negative number. This
        // crate does not use the pidfd.
        let senders = os::PIDFD_KIND.map(|kind| numbers(self.messages(), kind)).into_iter().flatten();
        let senders = senders.filter(|&number| number >= 0);
        for number in passed.chain(senders) {
            // SAFETY: the kernel installed the descriptor for this message, and it was not taken.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Iterates over the data with libc's own macros.
    fn by_libc(bytes: &[u8]) -> Vec<(c_int, c_int, Vec<u8>)> {
        let mut buffer = vec![0 as Word; words(bytes.len())];
        bytes_of_mut(&mut buffer)[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: `msghdr` is plain data, for which all zeroes is a valid value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_control = buffer.as_mut_ptr().cast();
        message.msg_controllen = bytes.len() as _;
        let mut found = Vec::new();
        // SAFETY: the message describes an aligned buffer that is alive.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !next.is_null() {
            // SAFETY: the macros return headers within the buffer.
            let header = unsafe { next.read() };
            // SAFETY: the function only does arithmetic.
            let length = header.cmsg_len as usize - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: `next` is a header within the buffer.
            let data = unsafe { libc::CMSG_DATA(next) };
            // SAFETY: the data has the length in its header.
            let data = unsafe { std::slice::from_raw_parts(data, length) };
            found.push((header.cmsg_level, header.cmsg_type, data.to_vec()));
            // SAFETY: the same as for the first header.
            next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
        }
        found
    }

    fn owned(messages: Messages<'_>) -> Vec<(c_int, c_int, Vec<u8>)> {
        messages.map(|message| (message.level, message.kind, message.data.to_vec())).collect()
    }

    #[test]
    fn libc_and_messages_read_the_written_data() {
        let mut buffer = [usize::MAX; words(space(4) + space(2) + space(20))];
        let mut writer = ControlWriter::new(&mut buffer);
        assert!(writer.bytes().is_empty());
        writer.push(libc::IPPROTO_IP, libc::IP_TTL, 7 as c_int).unwrap();
        writer.push(libc::IPPROTO_UDP, 103, 1200_u16).unwrap();
        let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: [3; 16] }, ipi6_ifindex: 9 };
        writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info).unwrap();
        let bytes = writer.bytes().to_vec();
        let ours = owned(Messages::new(&buffer, bytes.len()));
        assert_eq!(ours, by_libc(&bytes));
        let lengths: Vec<_> = ours.iter().map(|message| message.2.len()).collect();
        assert_eq!(lengths, [4, 2, 20]);
        let values: Vec<_> = Messages::new(&buffer, bytes.len()).collect();
        assert_eq!(values[0].value::<c_int>(), Some(7));
        assert_eq!(values[1].value::<u16>(), Some(1200));
        assert_eq!(values[1].value::<c_int>(), None, "fewer bytes than the value has");
        assert_eq!(values[2].value::<libc::in6_pktinfo>().unwrap().ipi6_ifindex, 9);
    }

    #[test]
    fn padding_does_not_contain_former_bytes_of_the_buffer() {
        for len in 1..=2 {
            let mut buffer = [usize::MAX; 8];
            let mut writer = ControlWriter::new(&mut buffer);
            for _ in 0..len {
                writer.push(1, 1, 0_u8).unwrap();
            }
            let messages = owned(Messages::new(writer.words(), writer.bytes().len()));
            assert_eq!(messages, vec![(1, 1, vec![0]); len]);
            assert!(!bytes_of(writer.words()).contains(&u8::MAX), "{len} messages");
        }
    }

    #[test]
    fn oversized_message_is_refused_and_others_are_kept() {
        let mut buffer = [0; words(space(4))];
        let mut writer = ControlWriter::new(&mut buffer);
        writer.push(1, 1, 1_u32).unwrap();
        assert_eq!(writer.push(1, 1, 1_u8).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(writer.bytes().len(), space(4));
        let mut none = ControlWriter::new(&mut []);
        assert!(none.push(1, 1, 1_u8).is_err());
        assert!(none.push_fds(&[]).is_ok() && none.bytes().is_empty());
    }

    #[test]
    fn truncated_or_invalid_data_ends_iteration() {
        let mut buffer = [0; words(space(4) + space(4))];
        let mut writer = ControlWriter::new(&mut buffer);
        writer.push(1, 1, 1_u32).unwrap();
        writer.push(2, 2, 2_u32).unwrap();
        let whole = writer.bytes().len();
        for len in 0..=whole {
            let count = Messages::new(&buffer, len).count();
            let expected = usize::from(len >= HEADER + 4) + usize::from(len >= space(4) + HEADER + 4);
            assert_eq!(count, expected, "{len} bytes");
        }
        assert_eq!(Messages::new(&buffer, usize::MAX).count(), 2);
        for senseless in [0, 1, HEADER - 1, whole + 1, usize::MAX] {
            let mut buffer = buffer;
            bytes_of_mut(&mut buffer)[..size_of::<usize>()].copy_from_slice(&senseless.to_ne_bytes());
            assert_eq!(Messages::new(&buffer, whole).count(), 0, "a length of {senseless}");
        }
    }

    #[test]
    fn maximum_number_of_descriptors_fits() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut buffer = [0; RIGHTS_WORDS];
        let mut writer = ControlWriter::new(&mut buffer);
        writer.push_fds(&[file.as_fd(); FDS_MAX]).unwrap();
        assert_eq!(by_libc(writer.bytes())[0].2.len(), 4 * FDS_MAX);
        let mut large = [0; RIGHTS_WORDS + 8];
        let error = ControlWriter::new(&mut large).push_fds(&[file.as_fd(); FDS_MAX + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
