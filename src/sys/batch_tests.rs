//! Unit tests of `batch.rs`.

use super::*;
use std::net::UdpSocket;
use std::os::fd::AsFd;

fn sockets() -> (UdpSocket, UdpSocket) {
    let sockets = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.1.set_nonblocking(true).unwrap();
    sockets
}

#[test]
fn many_messages_are_sent_and_received_in_order() {
    let (from, to) = sockets();
    let address = SockAddr::from(to.local_addr().unwrap());
    let mut outbox = Outbox::new();
    let mut inbox = Inbox::new(8, 4);
    for _ in 0..2 {
        for message in [&b"one"[..], b"", b"three"] {
            outbox.push(message, Some(address.clone()), &ControlWriter::new(&mut []));
        }
        assert_eq!((outbox.len(), outbox.bytes(), outbox.first_has_address()), (3, 8, true));
        assert_eq!(sendmmsg(from.as_fd(), &mut outbox, false).unwrap(), 3);
        assert_eq!((outbox.len(), outbox.bytes()), (0, 0));
        assert_eq!(recvmmsg(to.as_fd(), &mut inbox, 0).unwrap(), 3);
        assert_eq!(inbox.bytes(), 7);
        let came: Vec<_> = (0..9).map_while(|index| inbox.get(index)).collect();
        let bytes: Vec<_> = came.iter().map(|message| message.bytes).collect();
        assert_eq!(bytes, [&b"one"[..], b"", b"thre"]);
        assert!(came.iter().all(|message| message.from == from.local_addr().ok()));
        let cut: Vec<_> = came.iter().map(|message| message.flags & libc::MSG_TRUNC != 0).collect();
        assert_eq!(cut, [false, false, true]);
    }
    let error = recvmmsg(to.as_fd(), &mut inbox, 0).unwrap_err();
    assert_eq!((error.kind(), inbox.len()), (io::ErrorKind::WouldBlock, 3));
    inbox.clear();
    assert!(inbox.get(0).is_none());
}

#[test]
fn refused_message_stays_and_earlier_ones_are_counted() {
    let (from, to) = sockets();
    let address = SockAddr::from(to.local_addr().unwrap());
    let mut outbox = Outbox::new();
    let long = vec![0; 70_000];
    for message in [&b"first"[..], &long, b"last"] {
        outbox.push(message, Some(address.clone()), &ControlWriter::new(&mut []));
    }
    assert_eq!(sendmmsg(from.as_fd(), &mut outbox, false).unwrap(), 1);
    let error = sendmmsg(from.as_fd(), &mut outbox, false).unwrap_err();
    assert_eq!((error.raw_os_error(), outbox.len()), (Some(libc::EMSGSIZE), 2));
    outbox.advance(1);
    assert_eq!(sendmmsg(from.as_fd(), &mut outbox, false).unwrap(), 1);
    let mut inbox = Inbox::new(4, 100);
    assert_eq!(recvmmsg(to.as_fd(), &mut inbox, 0).unwrap(), 2);
    assert_eq!(inbox.get(1).unwrap().bytes, b"last");
}

#[test]
fn messages_beyond_the_limit_are_left_for_the_next_call() {
    let (from, to) = sockets();
    let address = SockAddr::from(to.local_addr().unwrap());
    let mut outbox = Outbox::new();
    for _ in 0..MESSAGES_MAX + 3 {
        outbox.push(b"", Some(address.clone()), &ControlWriter::new(&mut []));
    }
    let first = sendmmsg(from.as_fd(), &mut outbox, false).unwrap();
    assert_eq!((first, outbox.len()), (MESSAGES_MAX, 3));
    assert_eq!(Inbox::new(1 << 20, 1).capacity(), MESSAGES_MAX);
}

#[test]
fn received_descriptors_are_closed() {
    use std::io::Read;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let mut words = [0; CONTROL_WORDS];
    let mut control = ControlWriter::new(&mut words);
    control.push_fds(&[far.as_fd()]).unwrap();
    let mut outbox = Outbox::new();
    outbox.push(b"x", None, &control);
    assert_eq!(sendmmsg(ours.as_fd(), &mut outbox, false).unwrap(), 1);
    drop(far);
    theirs.set_nonblocking(true).unwrap();
    let mut inbox = Inbox::new(2, 8);
    assert_eq!(recvmmsg(theirs.as_fd(), &mut inbox, 0).unwrap(), 1);
    let message = inbox.get(0).unwrap();
    assert_eq!((message.from, message.control.count()), (None, 1));
    assert_eq!(near.read(&mut [0]).unwrap(), 0, "the last copy is closed");
}

/// Returns the end of each run of messages that are sent as segments of one datagram.
fn runs(messages: &[(usize, u16)]) -> Vec<usize> {
    let mut outbox = Outbox::new();
    for &(bytes, port) in messages {
        let to = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], port)));
        outbox.push(&vec![0; bytes], Some(to), &ControlWriter::new(&mut []));
    }
    let count = outbox.prepare(true);
    outbox.ends[..count].to_vec()
}

#[test]
fn only_neighbours_of_one_size_and_peer_are_merged() {
    assert_eq!(runs(&[(9, 1), (9, 1), (9, 1)]), [3]);
    assert_eq!(runs(&[(9, 1), (9, 2), (9, 1)]), [1, 2, 3], "different peers");
    assert_eq!(runs(&[(9, 1), (8, 1), (8, 1), (9, 1)]), [2, 3, 4], "the last may be shorter, and ends the run");
    assert_eq!(runs(&[(0, 1), (0, 1), (9, 1), (0, 1)]), [1, 2, 3, 4], "empty messages are not segments");
    assert_eq!(runs(&[(1, 1); 100]), [64, 100], "at most as many as every kernel accepts");
    assert_eq!(runs(&[(30_000, 1), (30_000, 1), (30_000, 1)]), [2, 3], "as many bytes as fit into a datagram");
    let mut words = [0; CONTROL_WORDS];
    let mut control = ControlWriter::new(&mut words);
    control.push(libc::IPPROTO_IP, libc::IP_TTL, 1 as c_int).unwrap();
    let mut outbox = Outbox::new();
    outbox.push(b"x", None, &ControlWriter::new(&mut []));
    outbox.push(b"x", None, &control);
    outbox.push(b"x", None, &ControlWriter::new(&mut []));
    outbox.push(b"x", None, &ControlWriter::new(&mut []));
    assert_eq!(outbox.prepare(true), 3);
    assert_eq!(outbox.ends[..3], [1, 2, 4], "control data prevents merging");
    outbox.advance(3);
    assert_eq!((outbox.prepare(true), outbox.ends[0]), (1, 1), "sent messages are not counted");
}

/// The queue is refilled before it is empty, so sent messages must be released while others
/// remain.
#[test]
fn sent_messages_are_released() {
    let (from, to) = sockets();
    let address = SockAddr::from(to.local_addr().unwrap());
    let mut words = [0; CONTROL_WORDS];
    let mut control = ControlWriter::new(&mut words);
    control.push(libc::IPPROTO_IP, libc::IP_TTL, 1 as c_int).unwrap();
    let mut outbox = Outbox::new();
    let (mut pushed, mut gone) = (0_u32, 0_u32);
    for round in 0..200 {
        while outbox.len() < 500 {
            // The messages have many different sizes.
            let size = 4 + pushed as usize * 37 % 1000;
            let bytes = [&pushed.to_ne_bytes()[..], &vec![7; size]].concat();
            let plain = ControlWriter::new(&mut []);
            outbox.push(&bytes, Some(address.clone()), if pushed % 3 == 0 { &control } else { &plain });
            pushed += 1;
        }
        let (skip, send) = (round % 7, 1 + round % 90);
        outbox.advance(skip);
        gone += skip as u32;
        for _ in 0..send {
            // Each message must have the expected number, and control data exactly if it was
            // pushed with some.
            let starts = outbox.starts;
            let first = outbox.bytes.get(starts.0, outbox.messages[0].bytes_end);
            assert_eq!(first[..4], gone.to_ne_bytes());
            assert_eq!(outbox.messages[0].control_end - starts.1 > 0, gone % 3 == 0);
            outbox.advance(1);
            gone += 1;
        }
        let bytes = outbox.bytes.kept.capacity();
        assert!(bytes <= 500 * 1008 * 4, "round {round}: room for {bytes} bytes");
        assert!(outbox.control.kept.capacity() <= 500 * 8, "round {round}");
        assert!(outbox.messages.capacity() <= 2048, "round {round}");
    }
    // The remaining messages can be sent.
    let left = outbox.len();
    outbox.advance(left - 2);
    assert_eq!(sendmmsg(from.as_fd(), &mut outbox, false).unwrap(), 2);
    let mut inbox = Inbox::new(2, 2000);
    assert_eq!(recvmmsg(to.as_fd(), &mut inbox, 0).unwrap(), 2);
    assert_eq!(inbox.get(1).unwrap().bytes[..4], (pushed - 1).to_ne_bytes());
}
