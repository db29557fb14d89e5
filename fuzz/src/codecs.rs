//! Fuzz targets for decoders of control messages, addresses, and text that arrives in pieces.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use libc::c_int;
use netpoll::io::{BufReadExt as _, BufReader, Read, ReadExt as _};
use netpoll::net::{Addr, ToSocketAddrs};
use netpoll::task::block_on;
use socket2::{SockAddr, SockAddrStorage};

use super::Input;
use crate::ancillary::{Ancillary, Ecn};
use crate::sys::control::{ControlWriter, Messages, Word, space, words};

/// The size of the buffers for control data, in words.
const CONTROL_WORDS: usize = 64;

/// Decodes control data as a hostile kernel may write it, or control data that the crate has
/// written. The first byte of the input selects one of them.
pub fn control(data: &[u8]) {
    let mut input = Input(data);
    let ours = input.byte();
    if ours & 1 == 0 {
        let mut buffer = [0; CONTROL_WORDS];
        for (word, bytes) in buffer.iter_mut().zip(input.0.chunks(size_of::<Word>())) {
            let mut whole = [0; size_of::<Word>()];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = Word::from_ne_bytes(whole);
        }
        let held = size_of_val(&buffer);
        let mut taken = 0;
        for message in Messages::new(&buffer, input.0.len()) {
            taken += space(0) + message.data.len();
            assert!(taken <= held, "a message exceeds the buffer");
        }
        let found = Ancillary::decode(Messages::new(&buffer, input.0.len()), c_int::from(ours));
        assert_eq!(found.is_truncated(), c_int::from(ours) & libc::MSG_CTRUNC != 0);
        return;
    }
    let mut buffer = [Word::MAX; CONTROL_WORDS];
    let mut writer = ControlWriter::new(&mut buffer);
    let (mut expected, mut used) = (Vec::new(), 0);
    while !input.is_empty() {
        let (level, kind, value) = (c_int::from(input.byte()), c_int::from(input.byte()), input.number());
        let (result, bytes) = match value % 3 {
            0 => (writer.push(level, kind, value as u8), vec![value as u8]),
            1 => (writer.push(level, kind, value), value.to_ne_bytes().to_vec()),
            _ => (writer.push(level, kind, u32::from(value)), u32::from(value).to_ne_bytes().to_vec()),
        };
        let fits = words(used + space(bytes.len())) <= CONTROL_WORDS;
        assert_eq!(result.is_ok(), fits, "{used} bytes and {} more", bytes.len());
        if fits {
            used += space(bytes.len());
            expected.push((level, kind, bytes));
        }
    }
    let len = writer.bytes().len();
    assert_eq!(len, used);
    let found = Messages::new(&buffer, len).map(|message| (message.level, message.kind, message.data.to_vec()));
    assert!(found.eq(expected), "data read differs from data written");
    ancillary(data);
}

/// Encodes and decodes an `Ancillary`, and checks that its fields are unchanged.
fn ancillary(data: &[u8]) {
    let mut input = Input(data);
    let mut sent = Ancillary::new();
    let what = input.byte();
    if what & 2 != 0 {
        sent = sent.with_hop_limit(input.byte());
    }
    if what & 4 != 0 {
        sent = sent.with_tos(input.byte()).with_ecn(Ecn::of(input.byte()));
    }
    if what & 8 != 0 {
        sent = sent.with_interface(u32::from(input.number()));
    }
    let mut buffer = [0; CONTROL_WORDS];
    let mut writer = ControlWriter::new(&mut buffer);
    let to = SocketAddr::from(([0; 16], 1)).into();
    sent.encode(Some(&to), &mut writer).expect("everything fits");
    let len = writer.bytes().len();
    let came = Ancillary::decode(Messages::new(&buffer, len), 0);
    assert_eq!((came.hop_limit(), came.tos()), (sent.hop_limit(), sent.tos()));
    assert_eq!(came.interface(), sent.interface());
}

/// Creates an address from bytes that a hostile kernel might write.
#[allow(unsafe_code)]
fn address_of(bytes: &[u8]) -> SockAddr {
    let count = bytes.len().min(size_of::<libc::sockaddr_storage>());
    let fill = |storage: *mut SockAddrStorage, len: *mut libc::socklen_t| {
        // SAFETY: the storage has at least `count` bytes, and `bytes` does not overlap it.
        unsafe { storage.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), count) };
        // SAFETY: `len` is valid for the call.
        unsafe { len.write(count as libc::socklen_t) };
        Ok(())
    };
    // SAFETY: socket2 zeroes the storage, so all of it is initialised, and every bit pattern is
    // valid in it. The length is at most that of the storage. The length may not match the family,
    // but socket2 reads nothing beyond the storage.
    let filled = unsafe { SockAddr::try_init(fill) };
    filled.expect("nothing fails").1
}

/// Decodes an address from a kernel that may write anything. Parses an address from a user, and
/// compares the result with that of std's parser.
pub fn addresses(data: &[u8]) {
    let address = address_of(data);
    if let Some(addr) = Addr::of(&address) {
        let printed = addr.to_string();
        if let Addr::Ip(ip) = addr {
            // Flow information is not printed. A scope is printed as a number.
            let mut expected = ip;
            if let SocketAddr::V6(ip) = &mut expected {
                ip.set_flowinfo(0);
            }
            assert_eq!(printed.parse(), Ok(expected));
            assert_eq!(SockAddr::from(ip).as_socket(), Some(ip));
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match (text.parse::<SocketAddr>(), text.host_and_port()) {
        (Ok(_), name) => assert_eq!(name, None, "a literal is not a name"),
        (Err(_), Some((host, port))) => {
            assert!(!host.is_empty() && !host.contains(['[', ']']));
            let (before, after) = text.rsplit_once(':').expect("there was a port");
            assert_eq!(after.parse(), Ok(port));
            // Brackets are meant for IPv6, but are removed from any host.
            assert!(before == format!("[{host}]") || (before == host && !host.contains(':')), "{before} became {host}");
        }
        (Err(_), None) => {
            // A port that is not a number may be the name of a service. This target looks up no
            // names.
            let port = text.rsplit_once(':').map_or("", |(_, port)| port);
            if port.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'+' && byte != b'-') {
                return;
            }
            // The host is not a name either, so the answer is available immediately. It is an error
            // or the wildcard addresses.
            match block_on(text.to_socket_addrs()) {
                Ok(mut addrs) => assert!(addrs.all(|addr| addr.ip().is_unspecified())),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidInput),
            }
        }
    }
}

/// A reader that returns `rest` in pieces of at most 16 bytes. `lengths` determines the lengths of
/// the first pieces. Later pieces have at most 8 bytes.
struct Pieces<'a> {
    rest: &'a [u8],
    lengths: &'a [u8],
    at: usize,
}

impl Read for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let length = self.lengths.get(self.at).map_or(7, |&length| usize::from(length % 16));
        self.at += 1;
        let (now, later) = self.rest.split_at(self.rest.len().min(length + 1).min(buf.len()));
        buf[..now.len()].copy_from_slice(now);
        self.rest = later;
        Poll::Ready(Ok(now.len()))
    }
}

/// Reads delimited parts, lines and a whole text from bytes that arrive in pieces, and compares the
/// results with those of std's traits.
pub fn text(data: &[u8]) {
    let mut input = Input(data);
    let (delimiter, capacity) = (input.byte(), 1 + input.below(32));
    let count = input.below(16);
    let lengths = input.bytes(count);
    let rest = input.0;
    let pieces = || BufReader::with_capacity(capacity, Pieces { rest, lengths, at: 0 });

    let (mut ours, mut std) = (pieces(), rest);
    loop {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        let read = block_on(ours.read_until(delimiter, &mut mine)).expect("reading the pieces returns no error");
        let expected =
            io::BufRead::read_until(&mut std, delimiter, &mut theirs).expect("reading a slice returns no error");
        assert_eq!((read, mine), (expected, theirs));
        if read == 0 {
            break;
        }
    }
    let (mut ours, mut std) = (pieces(), rest);
    loop {
        let (mut mine, mut theirs) = (String::from("x"), String::from("x"));
        let (read, expected) = (block_on(ours.read_line(&mut mine)), io::BufRead::read_line(&mut std, &mut theirs));
        assert_eq!(read.as_ref().map_err(io::Error::kind).ok(), expected.as_ref().map_err(io::Error::kind).ok());
        assert_eq!(mine, theirs);
        if read.is_err() || matches!(read, Ok(0)) {
            break;
        }
    }
    let (mut mine, mut theirs) = (String::new(), String::new());
    let (read, expected) =
        (block_on(pieces().read_to_string(&mut mine)), io::Read::read_to_string(&mut { rest }, &mut theirs));
    assert_eq!((read.ok(), mine), (expected.ok(), theirs));
}
