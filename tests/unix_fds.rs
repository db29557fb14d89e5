//! Descriptors in messages of Unix sockets: close-on-exec duplicates, limits, unclaimed
//! descriptors, truncation.
#![cfg(target_os = "linux")] // SO_PASSCRED, and seqpacket sockets

mod common;

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net as std_net;
use std::time::{Duration, Instant};

use common::{BOUND, Folder, child, exhaust_descriptors, fd_count, poll_once, run, set_nofile, warm_up};
use netpoll::io::ReadExt;
use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::os::unix::net::{TruncatedFds, UnixDatagram, UnixSeqpacket, UnixStream};
use netpoll::task;

/// Creates a pipe. poll(2) reports a hang-up at the reading end when every copy of the writing end
/// is closed.
fn pipe() -> (File, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    (OwnedFd::from(read).into(), write.into())
}

/// Waits up to `timeout` until all copies of the other end are closed. Returns whether they are
/// closed.
fn hangs_up(read: &File, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one entry, which is valid for the call.
    assert!(unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis() as i32) } >= 0);
    poll.revents & libc::POLLHUP != 0
}

/// Returns whether a copy of the other end is open.
fn is_open_somewhere(read: &File) -> bool {
    !hangs_up(read, Duration::ZERO)
}

/// Returns whether all copies of the other end are closed within [`BOUND`]. A process that a
/// parallel test starts has copies until it calls execve(2).
fn is_closed_everywhere(read: &File) -> bool {
    hangs_up(read, BOUND)
}

fn is_cloexec(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFD takes no argument.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

/// Go: TestUnixConnReadMsgUnixSCMRightsCloseOnExec, for all three kinds of sockets.
#[test]
fn received_descriptors_are_cloexec_duplicates() {
    run(async {
        let stream = UnixStream::pair().unwrap();
        let packet = UnixSeqpacket::pair().unwrap();
        let datagram = UnixDatagram::pair().unwrap();
        for kind in 0..3 {
            let (mut read, write) = pipe();
            let mut buf = [0; 16];
            let mut fds = vec![OwnedFd::from(File::open("/dev/null").unwrap())];
            let held = [write.as_fd(), write.as_fd()];
            let count = match kind {
                0 => {
                    assert_eq!(stream.0.send_with_fds(b"take", &held).await.unwrap(), 4);
                    stream.1.recv_with_fds(&mut buf, &mut fds).await.unwrap()
                }
                1 => {
                    assert_eq!(packet.0.send_with_fds(b"take", &held).await.unwrap(), 4);
                    packet.1.recv_with_fds(&mut buf, &mut fds).await.unwrap()
                }
                _ => {
                    assert_eq!(datagram.0.send_with_fds(b"take", &held).await.unwrap(), 4);
                    datagram.1.recv_with_fds(&mut buf, &mut fds).await.unwrap()
                }
            };
            assert_eq!((&buf[..count], fds.len()), (&b"take"[..], 3), "appended to the existing descriptors");
            assert!(fds.iter().all(|fd| is_cloexec(fd.as_fd())));
            assert_ne!(fds[1].as_raw_fd(), write.as_raw_fd());
            drop(write);
            File::from(fds.pop().unwrap()).write_all(b"through").unwrap();
            drop(fds);
            let mut text = String::new();
            read.read_to_string(&mut text).unwrap();
            assert_eq!(text, "through");
        }
    });
}

/// A connection and a listener work after they were passed over a Unix socket.
#[test]
fn passed_connection_and_listener_work() {
    run(async {
        let (parent, worker) = UnixStream::pair().unwrap();
        let (client, server) = common::pair().await;
        let serving = task::spawn(async move {
            let (mut buf, mut fds) = ([0; 64], Vec::new());
            let count = worker.recv_with_fds(&mut buf, &mut fds).await.unwrap();
            assert_eq!(&buf[..count], b"a client");
            let stream = TcpStream::from(fds.pop().unwrap());
            common::echo(&stream).await.unwrap();
        });
        parent.send_with_fds(b"a client", &[server.as_fd()]).await.unwrap();
        drop(server);
        common::ping(&client, b"to the worker").await.unwrap();
        client.close_write().unwrap();
        serving.await;
        // A listener can be passed too.
        let (one, other) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        one.send_with_fds(b"l", &[listener.as_fd()]).await.unwrap();
        listener.close().await.unwrap();
        let mut fds = Vec::new();
        other.recv_with_fds(&mut [0; 1], &mut fds).await.unwrap();
        let listener = TcpListener::from(fds.pop().unwrap());
        let _client = TcpStream::connect(addr).await.unwrap();
        listener.accept().await.unwrap();
    });
}

/// Datagrams that are sent to an address also carry descriptors, and the receiver learns the
/// sender's name.
#[test]
fn datagrams_with_descriptors_have_senders() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("server");
        let server = UnixDatagram::bind(&path).await.unwrap();
        let client = UnixDatagram::bind(folder.join("client")).await.unwrap();
        let (read, write) = pipe();
        // A datagram can carry descriptors without bytes.
        client.send_to_with_fds(b"", &[write.as_fd()], &path).await.unwrap();
        drop(write);
        let mut fds = Vec::new();
        let (count, from) = server.recv_from_with_fds(&mut [], &mut fds).await.unwrap();
        assert_eq!((count, fds.len()), (0, 1));
        assert_eq!(from.as_pathname(), Some(&*folder.join("client")));
        assert!(is_open_somewhere(&read));
        fds.clear();
        assert!(is_closed_everywhere(&read));
        let refused = client.send_to_with_fds(b"x", &[], folder.join("missing")).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// On a stream, descriptors arrive with the first byte of their write. A read that receives some
/// ends before the next byte that carries others.
#[test]
fn descriptors_arrive_with_their_bytes() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        one.write_all(b"plain ").await.unwrap();
        one.send_with_fds(b"first ", &[null.as_fd()]).await.unwrap();
        one.send_with_fds(b"second ", &[null.as_fd(), null.as_fd()]).await.unwrap();
        one.write_all(b"plain").await.unwrap();
        one.close_write().unwrap();
        let (mut bytes, mut counts) = (Vec::new(), Vec::new());
        loop {
            let (mut buf, mut fds) = ([0; 64], Vec::new());
            let count = other.recv_with_fds(&mut buf, &mut fds).await.unwrap();
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&buf[..count]);
            if !fds.is_empty() {
                counts.push((fds.len(), String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        assert_eq!(bytes, b"plain first second plain");
        let descriptors: Vec<_> = counts.iter().map(|(count, _)| *count).collect();
        assert_eq!(descriptors, [1, 2]);
        assert!(counts[0].1.starts_with("plain first") && !counts[0].1.contains("second"), "{counts:?}");
        // Without descriptors the call is a plain write.
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(one.send_with_fds(b"none", &[]).await.unwrap(), 4);
        let mut fds = Vec::new();
        assert_eq!(other.recv_with_fds(&mut [0; 8], &mut fds).await.unwrap(), 4);
        assert_eq!(one.send_with_fds(b"", &[]).await.unwrap(), 0);
        assert_eq!(
            other.recv_with_fds(&mut [], &mut fds).await.unwrap(),
            0,
            "a receive into an empty buffer does not wait"
        );
        assert!(fds.is_empty());
    });
}

#[test]
fn unsendable_descriptors_are_rejected() {
    if !common::has_descriptors(1000) {
        return;
    }
    run(async {
        let null = File::open("/dev/null").unwrap();
        let most = [null.as_fd(); 253];
        let more = [null.as_fd(); 254];
        let (one, other) = UnixStream::pair().unwrap();
        let (packet, _peer) = UnixSeqpacket::pair().unwrap();
        let (datagram, _peer_datagram) = UnixDatagram::pair().unwrap();
        assert_eq!(one.send_with_fds(b"x", &more).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(packet.send_with_fds(b"x", &more).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(datagram.send_with_fds(b"x", &more).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        let empty = one.send_with_fds(b"", &most).await.unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::InvalidInput);
        assert!(empty.to_string().contains("at least one byte"), "{empty}");
        // The refused calls have sent nothing.
        let mut fds = Vec::new();
        assert!(poll_once(&mut other.recv_with_fds(&mut [0; 1], &mut fds)).await.is_pending());
        one.send_with_fds(b"x", &most).await.unwrap();
        assert_eq!(other.recv_with_fds(&mut [0; 1], &mut fds).await.unwrap(), 1);
        assert_eq!(fds.len(), 253);
    });
}

/// Reads that do not ask for descriptors close them, so that no read leaks a peer's descriptors.
#[test]
fn plain_reads_close_received_descriptors() {
    run(async {
        let stream = UnixStream::pair().unwrap();
        let packet = UnixSeqpacket::pair().unwrap();
        let datagram = UnixDatagram::pair().unwrap();
        for way in 0..6 {
            let (read, write) = pipe();
            let fds = [write.as_fd()];
            let (mut buf, mut second) = ([0; 2], [0; 2]);
            match way {
                0..=3 => {
                    stream.0.send_with_fds(b"x", &fds).await.unwrap();
                    // Peeking leaves the descriptor in the socket.
                    assert_eq!(stream.1.peek(&mut buf).await.unwrap(), 1);
                }
                4 => drop(packet.0.send_with_fds(b"x", &fds).await.unwrap()),
                _ => drop(datagram.0.send_with_fds(b"x", &fds).await.unwrap()),
            }
            drop(write);
            assert!(is_open_somewhere(&read), "the message contains a copy");
            let count = match way {
                0 => stream.1.read(&mut buf).await.unwrap(),
                1 => {
                    let mut bufs = [IoSliceMut::new(&mut buf), IoSliceMut::new(&mut second)];
                    stream.1.read_vectored(&mut bufs).await.unwrap()
                }
                2 => ReadExt::read(&mut &stream.1, &mut buf).await.unwrap(),
                3 => {
                    let mut taken = Vec::new();
                    // Receives the descriptors and drops them.
                    stream.1.recv_with_fds(&mut buf, &mut taken).await.unwrap()
                }
                4 => packet.1.recv(&mut buf).await.unwrap(),
                _ => datagram.1.recv_from(&mut buf).await.unwrap().0,
            };
            assert_eq!(count, 1);
            assert!(is_closed_everywhere(&read), "way {way}");
        }
        // Closing a socket also closes the descriptors in its queue.
        let (read, write) = pipe();
        stream.0.send_with_fds(b"x", &[write.as_fd()]).await.unwrap();
        drop(write);
        stream.1.force_close().await.unwrap();
        assert!(is_closed_everywhere(&read));
    });
}

/// If too few descriptor numbers are free, the error reports the length of the message, and the
/// received descriptors are closed.
#[test]
fn descriptors_of_a_truncated_message_are_closed() {
    child("descriptors_of_a_truncated_message_are_closed", || {
        task::block_on(async {
            let stream = UnixStream::pair().unwrap();
            let packet = UnixSeqpacket::pair().unwrap();
            let datagram = UnixDatagram::pair().unwrap();
            warm_up().await;
            set_nofile(64);
            for way in 0..3 {
                let (read, write) = pipe();
                let fds = [write.as_fd(); 8];
                match way {
                    0 => stream.0.send_with_fds(b"bytes", &fds).await.unwrap(),
                    1 => packet.0.send_with_fds(b"bytes", &fds).await.unwrap(),
                    _ => datagram.0.send_with_fds(b"bytes", &fds).await.unwrap(),
                };
                drop(write);
                let mut held = exhaust_descriptors();
                // Frees three descriptors. The message has eight.
                held.truncate(held.len() - 3);
                let (mut buf, mut taken) = ([0; 8], Vec::new());
                let result = match way {
                    0 => stream.1.recv_with_fds(&mut buf, &mut taken).await,
                    1 => packet.1.recv_with_fds(&mut buf, &mut taken).await,
                    _ => datagram.1.recv_with_fds(&mut buf, &mut taken).await,
                };
                let error = result.unwrap_err();
                assert_eq!((error.kind(), taken.len()), (ErrorKind::InvalidData, 0));
                let truncated = error.get_ref().unwrap().downcast_ref::<TruncatedFds>().unwrap();
                assert_eq!((truncated.bytes(), &buf[..5]), (5, &b"bytes"[..]));
                assert!(is_closed_everywhere(&read), "way {way}");
                drop(held);
            }
            // The stream continues.
            stream.0.write_all(b"next").await.unwrap();
            assert_eq!(stream.1.read(&mut [0; 8]).await.unwrap(), 4);
        });
    });
}

/// The descriptors of a thousand messages are all closed, whether they were taken or not.
#[test]
fn messages_leak_no_descriptors() {
    child("messages_leak_no_descriptors", || {
        task::block_on(async {
            let (one, other) = UnixStream::pair().unwrap();
            let null = File::open("/dev/null").unwrap();
            let round = async |most: u32| {
                for n in 0..most {
                    one.send_with_fds(b"x", &[null.as_fd(); 5]).await.unwrap();
                    let (mut buf, mut fds) = ([0; 1], Vec::new());
                    match n % 3 {
                        0 => other.recv_with_fds(&mut buf, &mut fds).await.unwrap(),
                        1 => other.read(&mut buf).await.unwrap(),
                        _ => {
                            // Drops one future before its first poll, and awaits another.
                            drop(other.recv_with_fds(&mut buf, &mut fds));
                            other.recv_with_fds(&mut buf, &mut fds).await.unwrap()
                        }
                    };
                }
            };
            round(3).await;
            warm_up().await;
            let before = fd_count();
            round(1000).await;
            assert_eq!(fd_count(), before);
        });
    });
}

#[test]
fn descriptor_messages_wait_and_time_out() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let (mut buf, mut fds) = ([0; 8], Vec::new());
        let mut receiving = other.recv_with_fds(&mut buf, &mut fds);
        assert!(poll_once(&mut receiving).await.is_pending());
        one.send_with_fds(b"late", &[null.as_fd()]).await.unwrap();
        assert_eq!((receiving.await.unwrap(), fds.len()), (4, 1));
        other.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        let late = other.recv_with_fds(&mut [0; 8], &mut Vec::new()).await;
        assert!(is_timeout(&late.unwrap_err()));
        other.set_read_deadline(None).unwrap();
        // The stream is full, so the descriptors are sent later, and only once.
        let mut total = 0;
        loop {
            let mut write = one.write(&[7; 65536]);
            match poll_once(&mut write).await {
                std::task::Poll::Ready(count) => total += count.unwrap(),
                std::task::Poll::Pending => break,
            }
        }
        let fds = [null.as_fd()];
        let mut send = one.send_with_fds(b"!", &fds);
        assert!(poll_once(&mut send).await.is_pending());
        let mut taken = Vec::new();
        let mut buf = vec![0; 65536];
        while total > 0 {
            total -= other.recv_with_fds(&mut buf[..total.min(65536)], &mut taken).await.unwrap();
        }
        assert_eq!((send.await.unwrap(), taken.len()), (1, 0));
        assert_eq!(other.recv_with_fds(&mut buf, &mut taken).await.unwrap(), 1);
        assert_eq!((taken.len(), buf[0]), (1, b'!'));
        one.force_close().await.unwrap();
        assert!(is_closed(&one.send_with_fds(b"x", &[null.as_fd()]).await.unwrap_err()));
        assert!(is_closed(&one.recv_with_fds(&mut [], &mut taken).await.unwrap_err()));
    });
}

/// The kernel adds credentials to a message if the program has requested them. The credentials must
/// not take the room of the descriptors.
#[test]
fn credentials_beside_descriptors_are_ignored() {
    if !common::has_descriptors(1000) {
        return;
    }
    run(async {
        let (ours, theirs) = std_net::UnixStream::pair().unwrap();
        let on: libc::c_int = 1;
        let (value, size) = ((&raw const on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the value is valid for reads of its size during the call.
        let set = unsafe { libc::setsockopt(theirs.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, value, size) };
        assert_eq!(set, 0);
        let (ours, theirs) = (UnixStream::from(ours), UnixStream::from(theirs));
        let null = File::open("/dev/null").unwrap();
        ours.send_with_fds(b"x", &[null.as_fd(); 253]).await.unwrap();
        let mut fds = Vec::new();
        assert_eq!(theirs.recv_with_fds(&mut [0; 1], &mut fds).await.unwrap(), 1);
        assert_eq!(fds.len(), 253);
    });
}
