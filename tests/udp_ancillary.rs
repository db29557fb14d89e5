//! Ancillary data of UDP sockets, with a peer that makes the system calls with libc. Other tests
//! check segmentation offload, socket options and multicast.
#![cfg(target_os = "linux")] // Linux's control messages, and offload

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::{has_ipv6, poll_once, run};
use netpoll::net::{Ancillary, Ecn, RecvBatch, RecvInfo, SendBatch, UdpSocket, raw_os_error};

/// Control messages: the level, the type and the data of each.
type Control = Vec<(i32, i32, Vec<u8>)>;

fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) {
    // SAFETY: the value is valid for reads of its size.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "option {level}/{name}: {}", std::io::Error::last_os_error());
}

/// Calls recvmsg(2). Returns the number of bytes and the control messages that libc's macros find.
fn libc_recv(socket: &StdSocket, buf: &mut [u8]) -> (usize, Control) {
    let mut room = [0_u64; 64];
    let mut vector = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = room.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&room) as _;
    // SAFETY: the message points to memory that is valid for writes.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let count = usize::try_from(count).unwrap_or_else(|_| panic!("recvmsg: {}", std::io::Error::last_os_error()));
    let mut control = Control::new();
    // SAFETY: the message describes the part of `room` that the call has written.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: the macros return headers within `room`.
        let header = unsafe { next.read() };
        // SAFETY: the function only does arithmetic.
        let length = header.cmsg_len as usize - unsafe { libc::CMSG_LEN(0) } as usize;
        // SAFETY: `next` is a header within `room`.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: the data is as long as its header says.
        control.push((
            header.cmsg_level,
            header.cmsg_type,
            unsafe { std::slice::from_raw_parts(data, length) }.to_vec(),
        ));
        // SAFETY: the same as for the first header.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    (count, control)
}

/// Calls sendmsg(2) on a connected socket, with control messages laid out by libc's macros.
fn libc_send(socket: &StdSocket, bytes: &[u8], control: &Control) {
    let mut room = [0_u64; 64];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = room.as_mut_ptr().cast();
    // SAFETY: the function only does arithmetic.
    let space = |data: &Vec<u8>| unsafe { libc::CMSG_SPACE(data.len() as u32) } as usize;
    message.msg_controllen = control.iter().map(|(_, _, data)| space(data)).sum::<usize>() as _;
    // SAFETY: `message` describes `room`.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    for (level, kind, data) in control {
        // SAFETY: the function only does arithmetic.
        let length = unsafe { libc::CMSG_LEN(data.len() as u32) };
        // SAFETY: the header is within the buffer, whose zeroes are a valid value.
        let header = unsafe { &mut *next };
        (header.cmsg_level, header.cmsg_type, header.cmsg_len) = (*level, *kind, length as _);
        // SAFETY: `next` is a header within `room`.
        let place = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: `msg_controllen` has room for the data after its header.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), place, data.len()) };
        // SAFETY: the same as for the first header.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    // SAFETY: the message points to memory that is valid for reads.
    let count = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    assert_eq!(count, bytes.len() as isize, "{}", std::io::Error::last_os_error());
}

fn find(control: &Control, level: i32, kind: i32) -> Option<&Vec<u8>> {
    control.iter().find(|message| (message.0, message.1) == (level, kind)).map(|message| &message.2)
}

/// Returns 127.0.0.1 and, if this machine has it, ::1.
fn loopbacks() -> Vec<IpAddr> {
    let mut all = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    if has_ipv6() {
        all.push(Ipv6Addr::LOCALHOST.into());
    }
    all
}

fn loopback_index() -> u32 {
    // SAFETY: the name ends with a zero.
    unsafe { libc::if_nametoindex(c"lo".as_ptr()) }
}

/// Returns the index of an interface that has an IPv6 address and is not the loopback interface,
/// which has no route to multicast groups.
fn multicast_index_v6() -> Option<u32> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.last() != Some(&"lo")).and_then(|row| u32::from_str_radix(row.get(1)?, 16).ok())
}

/// Returns a socket of this crate and a socket of std, connected to each other. The std socket has
/// a read timeout.
async fn connected(ip: IpAddr) -> (UdpSocket, StdSocket) {
    let (ours, theirs) = (UdpSocket::bind((ip, 0)).await.unwrap(), StdSocket::bind((ip, 0)).unwrap());
    ours.connect(theirs.local_addr().unwrap()).await.unwrap();
    theirs.connect(ours.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(common::BOUND)).unwrap();
    (ours, theirs)
}

async fn receive(socket: &UdpSocket) -> RecvInfo {
    let mut buf = [0; 64];
    socket.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await.unwrap()
}

#[test]
fn libc_reads_sent_ancillary_data() {
    run(async {
        for ip in loopbacks() {
            let v4 = ip.is_ipv4();
            let (ours, theirs) = connected(ip).await;
            let options: &[(i32, i32)] = if v4 {
                &[(libc::SOL_IP, libc::IP_RECVTTL), (libc::SOL_IP, libc::IP_RECVTOS)]
            } else {
                &[(libc::SOL_IPV6, libc::IPV6_RECVHOPLIMIT), (libc::SOL_IPV6, libc::IPV6_RECVTCLASS)]
            };
            for &(level, name) in options {
                set_int(theirs.as_fd(), level, name, 1);
            }
            let read = |control: &Control| {
                if v4 {
                    let tos = find(control, libc::SOL_IP, libc::IP_TOS).unwrap()[0];
                    (find(control, libc::SOL_IP, libc::IP_TTL).unwrap().clone(), int(tos.into()))
                } else {
                    let hops = find(control, libc::SOL_IPV6, libc::IPV6_HOPLIMIT).unwrap();
                    (hops.clone(), find(control, libc::SOL_IPV6, libc::IPV6_TCLASS).unwrap().clone())
                }
            };
            let mut buf = [0; 64];
            let ancillary = Ancillary::new().with_hop_limit(33).with_tos(0x28).with_ecn(Ecn::Capable0);
            ours.send_msg(&[IoSlice::new(b"msg")], None, &ancillary).await.unwrap();
            let (count, control) = libc_recv(&theirs, &mut buf);
            assert_eq!((count, read(&control)), (3, (int(33), int(0x2a))), "{ip}");

            // Sends from an unconnected socket, in a batch. Here the destination determines the
            // address family.
            let other = UdpSocket::bind((ip, 0)).await.unwrap();
            let theirs_open = StdSocket::bind((ip, 0)).unwrap();
            for &(level, name) in options {
                set_int(theirs_open.as_fd(), level, name, 1);
            }
            let mut batch = SendBatch::new();
            let to = theirs_open.local_addr().unwrap();
            batch.push_with(b"one", to, &ancillary.with_local(ip).with_interface(loopback_index())).unwrap();
            batch.push(b"second", to);
            while !batch.is_empty() {
                other.send_many(&mut batch).await.unwrap();
            }
            let (count, control) = libc_recv(&theirs_open, &mut buf);
            assert_eq!((count, read(&control)), (3, (int(33), int(0x2a))), "{ip}");
            let (count, control) = libc_recv(&theirs_open, &mut buf);
            assert_eq!((count, read(&control).1), (6, int(0)), "the next datagram has the socket's setting");

            // Without ancillary data, the socket's own settings apply.
            ours.set_ttl(44).unwrap();
            ours.set_tos(0x10).unwrap();
            ours.send(b"plain").await.unwrap();
            assert_eq!(read(&libc_recv(&theirs, &mut buf).1), (int(44), int(0x10)), "{ip}");
        }
    });
}

#[test]
fn ancillary_data_sent_by_libc_is_read() {
    run(async {
        for ip in loopbacks() {
            let (ours, theirs) = connected(ip).await;
            theirs.send(b"x").unwrap();
            assert_eq!(receive(&ours).await.ancillary, Ancillary::new(), "nothing was requested");
            ours.set_recv_packet_info(true).unwrap();
            ours.set_recv_hop_limit(true).unwrap();
            ours.set_recv_tos(true).unwrap();
            ours.set_recv_timestamp(true).unwrap();
            let control = if ip.is_ipv4() {
                vec![(libc::SOL_IP, libc::IP_TTL, int(21)), (libc::SOL_IP, libc::IP_TOS, int(0x2b))]
            } else {
                vec![(libc::SOL_IPV6, libc::IPV6_HOPLIMIT, int(21)), (libc::SOL_IPV6, libc::IPV6_TCLASS, int(0x2b))]
            };
            let check = |ancillary: Ancillary| {
                assert_eq!(ancillary.hop_limit(), Some(21));
                assert_eq!((ancillary.tos(), ancillary.ecn()), (Some(0x2b), Some(Ecn::CongestionExperienced)));
                assert_eq!((ancillary.local(), ancillary.destination()), (Some(ip), Some(ip)));
                assert_eq!(ancillary.interface(), Some(loopback_index()));
                let now = SystemTime::now();
                let timestamp = ancillary.timestamp().unwrap();
                assert!(timestamp + common::BOUND > now && timestamp < now + common::BOUND, "{timestamp:?}");
                assert_eq!((ancillary.segment_size(), ancillary.is_truncated()), (None, false));
            };
            libc_send(&theirs, b"one", &control);
            let info = receive(&ours).await;
            assert_eq!((info.len, info.from), (3, theirs.local_addr().unwrap()));
            check(info.ancillary);
            libc_send(&theirs, b"many", &control);
            let mut batch = RecvBatch::new(4, 64);
            assert_eq!(ours.recv_many(&mut batch).await.unwrap(), 1);
            check(batch.get(0).unwrap().ancillary());
            assert!(format!("{:?}", batch.get(0)).contains("hop_limit: Some(21)"));
        }
    });
}

#[test]
fn reply_uses_requested_address() {
    run(async {
        let server = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        server.set_recv_packet_info(true).unwrap();
        let port = server.local_addr().unwrap().port();
        let asked = SocketAddr::from(([127, 0, 0, 77], port));
        let client = StdSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"?", asked).unwrap();
        let info = receive(&server).await;
        assert_eq!(info.ancillary.local(), Some(asked.ip()));
        server.send_msg(&[IoSlice::new(b"!")], info.from, &info.ancillary.reply()).await.unwrap();
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (1, asked));
        // 192.0.2.99 is not an address of this host.
        let foreign = Ancillary::new().with_local(IpAddr::from([192, 0, 2, 99]));
        assert!(server.send_msg(&[IoSlice::new(b"!")], info.from, &foreign).await.is_err());
        let v6 = Ancillary::new().with_local(Ipv6Addr::LOCALHOST.into());
        let error = server.send_msg(&[IoSlice::new(b"!")], info.from, &v6).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(SendBatch::new().push_with(b"!", info.from, &v6).unwrap_err().kind(), ErrorKind::InvalidInput);
        let no_hops = Ancillary::new().with_hop_limit(0);
        let error = server.send_msg(&[IoSlice::new(b"!")], info.from, &no_hops).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn dual_stack_socket_reports_both_families() {
    run(async {
        if !has_ipv6() {
            return;
        }
        let dual = UdpSocket::bind("[::]:0").await.unwrap();
        let port = dual.local_addr().unwrap().port();
        dual.set_recv_hop_limit(true).unwrap();
        dual.set_recv_tos(true).unwrap();
        dual.set_recv_packet_info(true).unwrap();
        dual.set_ttl(99).unwrap();
        dual.set_tos(0x20).unwrap();
        for ip in loopbacks() {
            let theirs = StdSocket::bind((ip, 0)).unwrap();
            match ip {
                IpAddr::V4(_) => theirs.set_ttl(9).unwrap(),
                IpAddr::V6(_) => set_int(theirs.as_fd(), libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS, 9),
            }
            theirs.send_to(b"?", (ip, port)).unwrap();
            let info = receive(&dual).await;
            assert_eq!(info.ancillary.local().map(|local| local.to_canonical()), Some(ip));
            assert_eq!((info.ancillary.hop_limit(), info.ancillary.tos()), (Some(9), Some(0)));
            dual.send_msg(&[IoSlice::new(b"!")], info.from, &info.ancillary.reply()).await.unwrap();
            assert_eq!(theirs.recv_from(&mut [0; 8]).unwrap(), (1, (ip, port).into()));
        }
    });
}

/// Regression: the kernel refused the reply, because its ancillary data had no interface.
#[test]
fn reply_from_link_local_address_reaches_global_address() {
    common::child_on_host("reply_from_link_local_address_reaches_global_address", &[], || {
        let mut ip = Command::new("ip");
        let added = ip.args("-6 addr add fe80::99/64 dev lo nodad".split(' ')).status().unwrap().success();
        if !added {
            return println!("skipped: cannot add an IPv6 address");
        }
        // The kernel adds the route to a new address later, and until then loses datagrams to it.
        let probe = StdSocket::bind("[::]:0").unwrap();
        let own = format!("[fe80::99%{}]:{}", loopback_index(), probe.local_addr().unwrap().port());
        probe.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let own: SocketAddr = own.parse().unwrap();
        while probe.send_to(b"?", own).is_err() || probe.recv(&mut [0; 8]).is_err() {}
        run(async {
            let server = UdpSocket::bind("[::]:0").await.unwrap();
            server.set_recv_packet_info(true).unwrap();
            let to = format!("[fe80::99%{}]:{}", loopback_index(), server.local_addr().unwrap().port());
            for client in ["[::1]:0".to_owned(), format!("[fe80::99%{}]:0", loopback_index())] {
                let client = UdpSocket::bind(client).await.unwrap();
                client.send_to(b"?", &to).await.unwrap();
                let info = receive(&server).await;
                server.send_msg(&[IoSlice::new(b"!")], info.from, &info.ancillary.reply()).await.unwrap();
                let (_, from) = client.recv_from(&mut [0; 8]).await.unwrap();
                assert_eq!(from.to_string(), to);
            }
        });
    });
}

/// Regression: when an IPv6 socket with an IPv4 peer sent without an address, the kernel refused
/// the interface.
#[test]
fn interface_is_chosen_for_a_peer_of_either_family() {
    run(async {
        let through = Ancillary::new().with_interface(loopback_index()).with_hop_limit(9).with_tos(0x20);
        for ip in loopbacks() {
            let theirs = StdSocket::bind((ip, 0)).unwrap();
            let own = if has_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            for own in [own.parse().unwrap(), SocketAddr::new(ip, 0)] {
                let socket = UdpSocket::bind(own).await.unwrap();
                socket.connect(theirs.local_addr().unwrap()).await.unwrap();
                let mut batch = SendBatch::new();
                batch.push_with(b"two", None, &through).unwrap();
                assert_eq!(socket.send_msg(&[IoSlice::new(b"one")], None, &through).await.unwrap(), 3, "{own} {ip}");
                assert_eq!(socket.send_many(&mut batch).await.unwrap(), 1, "{own} {ip}");
                for sent in [b"one", b"two"] {
                    let mut buf = [0; 8];
                    assert_eq!(theirs.recv(&mut buf).unwrap(), 3);
                    assert_eq!(&buf[..3], sent);
                }
            }
            // The index is not ignored.
            let socket = UdpSocket::bind(own).await.unwrap();
            socket.connect(theirs.local_addr().unwrap()).await.unwrap();
            let nowhere = Ancillary::new().with_interface(i32::MAX as u32);
            let error = socket.send_msg(&[IoSlice::new(b"x")], None, &nowhere).await.unwrap_err();
            assert!(raw_os_error(&error).is_some(), "{ip}: {error}");
        }
    });
}

/// Options that the crate does not know produce more control data than its buffer holds.
#[test]
fn truncated_control_data_is_flagged() {
    run(async {
        if !has_ipv6() {
            return;
        }
        let socket = UdpSocket::bind("[::]:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        socket.set_recv_packet_info(true).unwrap();
        socket.set_recv_hop_limit(true).unwrap();
        socket.set_recv_tos(true).unwrap();
        socket.set_recv_timestamp(true).unwrap();
        /// The value in <asm-generic/socket.h>.
        const SO_RCVMARK: i32 = 75;
        let software = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
        set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPING, software as i32);
        set_int(socket.as_fd(), libc::SOL_SOCKET, SO_RCVMARK, 1);
        set_int(socket.as_fd(), libc::SOL_IP, libc::IP_RECVORIGDSTADDR, 1);
        let theirs = StdSocket::bind("127.0.0.1:0").unwrap();
        theirs.send_to(b"whole", ("127.0.0.1", addr.port())).unwrap();
        theirs.send_to(b"whole", ("127.0.0.1", addr.port())).unwrap();
        let info = receive(&socket).await;
        assert!(info.ancillary.is_truncated(), "{info:?}");
        assert_eq!((info.len, info.is_truncated), (5, false), "the bytes are whole");
        let mut batch = RecvBatch::new(1, 64);
        socket.recv_many(&mut batch).await.unwrap();
        let datagram = batch.get(0).unwrap();
        assert!(datagram.ancillary().is_truncated() && !datagram.is_truncated());
    });
}

#[test]
fn offload_segments_and_coalesces() {
    run(async {
        for ip in loopbacks() {
            let (ours, theirs) = (UdpSocket::bind((ip, 0)).await.unwrap(), UdpSocket::bind((ip, 0)).await.unwrap());
            let to = theirs.local_addr().unwrap();
            if let Err(error) = theirs.set_gro(true) {
                eprintln!("skipped: this kernel has no receive offload: {error}");
                return;
            }
            let bytes: Vec<u8> = (0..10_100).map(|n| (n / 1000) as u8).collect();
            let cut = Ancillary::new().with_segment_size(1000);
            let mut batch = RecvBatch::new(16, 65_535);
            let segments = |batch: &RecvBatch| -> Vec<Vec<u8>> {
                batch.iter().flat_map(|datagram| datagram.segments().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
            };
            let expected: Vec<Vec<u8>> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();

            assert_eq!(ours.send_msg(&[IoSlice::new(&bytes)], to, &cut).await.unwrap(), bytes.len());
            assert_eq!(theirs.recv_many(&mut batch).await.unwrap(), 1);
            let datagram = batch.get(0).unwrap();
            assert_eq!((datagram.bytes().len(), datagram.ancillary().segment_size()), (10_100, Some(1000)));
            assert_eq!(segments(&batch), expected);

            // Sends in a batch, and then with the segment size set on the socket. The receiver no
            // longer requests offload.
            theirs.set_gro(false).unwrap();
            let mut out = SendBatch::new();
            out.push_with(&bytes, to, &cut).unwrap();
            ours.send_many(&mut out).await.unwrap();
            let mut got = Vec::new();
            while got.len() < expected.len() {
                theirs.recv_many(&mut batch).await.unwrap();
                got.extend(segments(&batch));
            }
            assert_eq!(got, expected);
            ours.set_segment_size(Some(1000)).unwrap();
            ours.send_to(&bytes, to).await.unwrap();
            got.clear();
            while got.len() < expected.len() {
                let mut buf = [0; 2000];
                let count = theirs.recv(&mut buf).await.unwrap();
                got.push(buf[..count].to_vec());
            }
            assert_eq!(got, expected);
            // The datagram has more segments than the kernel accepts.
            ours.set_segment_size(Some(1)).unwrap();
            assert!(ours.send_to(&bytes, to).await.is_err());
            assert!(poll_once(&mut theirs.readable()).await.is_pending());
        }
    });
}

/// Where possible, `send_many` passes several datagrams as one buffer, which the kernel splits. The
/// peer receives the same datagrams in any case.
#[test]
fn batches_use_offload_when_possible() {
    run(async {
        const COUNT: usize = 10;
        let theirs = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = theirs.local_addr().unwrap();
        if theirs.set_gro(true).is_err() {
            eprintln!("skipped: this kernel has no receive offload");
            return;
        }
        // Returns the number of units that pass through the network stack for `COUNT` datagrams,
        // and the first byte and the length of each datagram received.
        let send = async |ours: &UdpSocket, size: usize| {
            let (mut out, mut batch) = (SendBatch::new(), RecvBatch::new(32, 65_535));
            for n in 0..COUNT {
                out.push(&vec![n as u8; size], to);
            }
            while !out.is_empty() {
                ours.send_many(&mut out).await.unwrap();
            }
            let (mut units, mut datagrams, mut bytes) = (0, Vec::new(), 0);
            while bytes < COUNT * size {
                units += theirs.recv_many(&mut batch).await.unwrap();
                for segment in batch.iter().flat_map(|datagram| datagram.segments().collect::<Vec<_>>()) {
                    bytes += segment.len();
                    datagrams.push((segment[0], segment.len()));
                }
            }
            (units, datagrams)
        };
        let each: Vec<_> = (0..COUNT).map(|n| (n as u8, 1200)).collect();
        let plain = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(send(&plain, 1200).await, (1, each.clone()));
        // Without checksums the kernel refuses to split, so datagrams are sent one by one.
        let refused = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        set_int(refused.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
        assert_eq!(send(&refused, 1200).await, (COUNT, each.clone()));
        // A segment size set on the socket splits each datagram.
        plain.set_segment_size(Some(1000)).unwrap();
        let cut: Vec<_> = (0..COUNT).flat_map(|n| [(n as u8, 1000), (n as u8, 200)]).collect();
        assert_eq!(send(&plain, 1200).await, (COUNT, cut));
        plain.set_segment_size(None).unwrap();
        assert_eq!(send(&plain, 1200).await, (1, each));
    });
}

/// Each option reads back as it was set, except that the kernel doubles the sizes of buffers.
/// Setting a switch changes no other switch.
#[test]
fn options_read_back_as_set() {
    run(async {
        for ip in loopbacks() {
            let socket = UdpSocket::bind((ip, 0)).await.unwrap();
            type Switch = (fn(&UdpSocket) -> std::io::Result<bool>, fn(&UdpSocket, bool) -> std::io::Result<()>);
            let mut switches: Vec<Switch> = vec![
                (UdpSocket::broadcast, UdpSocket::set_broadcast),
                (UdpSocket::recv_packet_info, UdpSocket::set_recv_packet_info),
                (UdpSocket::recv_hop_limit, UdpSocket::set_recv_hop_limit),
                (UdpSocket::recv_tos, UdpSocket::set_recv_tos),
                (UdpSocket::recv_timestamp, UdpSocket::set_recv_timestamp),
                (UdpSocket::multicast_loop_v4, UdpSocket::set_multicast_loop_v4),
            ];
            if socket.gro().is_ok() && socket.set_gro(false).is_ok() {
                switches.push((UdpSocket::gro, UdpSocket::set_gro));
            }
            if ip.is_ipv6() {
                switches.push((UdpSocket::multicast_loop_v6, UdpSocket::set_multicast_loop_v6));
            }
            let all =
                |socket: &UdpSocket| -> Vec<bool> { switches.iter().map(|(get, _)| get(socket).unwrap()).collect() };
            for (index, (_, set)) in switches.iter().enumerate() {
                for on in [true, false, true, false] {
                    let mut expected = all(&socket);
                    set(&socket, on).unwrap();
                    expected[index] = on;
                    assert_eq!(all(&socket), expected, "{ip}: switch {index}");
                }
            }
            socket.set_ttl(77).unwrap();
            socket.set_tos(0xb8).unwrap();
            assert_eq!((socket.ttl().unwrap(), socket.tos().unwrap()), (77, 0xb8));
            assert_eq!(raw_os_error(&socket.set_ttl(256).unwrap_err()), Some(libc::EINVAL));
            socket.set_recv_buffer_size(40_000).unwrap();
            socket.set_send_buffer_size(50_000).unwrap();
            assert_eq!(socket.recv_buffer_size().unwrap(), 80_000);
            assert_eq!(socket.send_buffer_size().unwrap(), 100_000);
            if socket.segment_size().is_ok() {
                for size in [Some(1200), None] {
                    socket.set_segment_size(size).unwrap();
                    assert_eq!(socket.segment_size().unwrap(), size);
                }
            }
            assert_eq!(socket.set_multicast_ttl_v4(u32::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
            socket.set_multicast_ttl_v4(7).unwrap();
            assert_eq!(socket.multicast_ttl_v4().unwrap(), 7);
            if ip.is_ipv4() {
                assert_eq!(socket.multicast_interface_v4().unwrap(), Ipv4Addr::UNSPECIFIED);
                socket.set_multicast_interface_v4(Ipv4Addr::LOCALHOST).unwrap();
                assert_eq!(socket.multicast_interface_v4().unwrap(), Ipv4Addr::LOCALHOST);
                assert!(socket.set_multicast_interface_v4_by_index(1 << 20).is_err());
            } else {
                assert_eq!(socket.set_multicast_hops_v6(u32::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
                socket.set_multicast_hops_v6(3).unwrap();
                socket.set_multicast_interface_v6(loopback_index()).unwrap();
                assert_eq!(socket.multicast_hops_v6().unwrap(), 3);
                assert_eq!(socket.multicast_interface_v6().unwrap(), loopback_index());
            }
            match socket.bind_device(Some("lo")) {
                Ok(()) => {
                    assert_eq!(socket.device().unwrap().as_deref(), Some("lo"));
                    socket.bind_device(None).unwrap();
                }
                Err(error) => eprintln!("skipped: a socket cannot be bound to a device: {error}"),
            }
            assert_eq!(socket.device().unwrap(), None);
            assert_eq!(socket.bind_device(Some("none-such")).unwrap_err().raw_os_error(), Some(libc::ENODEV));
            assert_eq!(socket.bind_device(Some("")).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert!(socket.take_error().unwrap().is_none());
        }
    });
}

/// Go: TestIPv4MulticastListener, TestIPv6MulticastListener. The group depends on the process id,
/// so that parallel runs do not receive each other's datagrams.
#[test]
fn multicast_reaches_every_member() {
    run(async {
        let process = std::process::id();
        let v4 = Ipv4Addr::new(239, 255, (process >> 8) as u8, process as u8);
        let v6 = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0x6e70, (process >> 16) as u16, process as u16);
        for ip in loopbacks() {
            let interface = if ip.is_ipv4() { Some(loopback_index()) } else { multicast_index_v6() };
            let Some(interface) = interface else {
                eprintln!("skipped: no interface has IPv6 multicast");
                continue;
            };
            let (group, other_group) = match ip {
                IpAddr::V4(_) => (IpAddr::from(v4), IpAddr::from(Ipv4Addr::from(u32::from(v4) ^ 1 << 16))),
                IpAddr::V6(_) => (IpAddr::from(v6), IpAddr::from(Ipv6Addr::from(u128::from(v6) ^ 1 << 40))),
            };
            let first = UdpSocket::bind_multicast((group, 0).into(), interface).unwrap();
            let port = first.local_addr().unwrap().port();
            let second = UdpSocket::bind_multicast((group, port).into(), interface).unwrap();
            let stranger = UdpSocket::bind_multicast((other_group, port).into(), interface).unwrap();
            let sender = UdpSocket::bind((if ip.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).await.unwrap();
            let (table, text) = match group {
                IpAddr::V4(group) => {
                    sender.set_multicast_interface_v4_by_index(interface).unwrap();
                    ("/proc/net/igmp", format!("{:08X}", u32::from_ne_bytes(group.octets())))
                }
                IpAddr::V6(group) => {
                    sender.set_multicast_interface_v6(interface).unwrap();
                    // With a hop limit of 0, the datagram does not leave this host.
                    sender.set_multicast_hops_v6(0).unwrap();
                    ("/proc/net/igmp6", group.octets().iter().map(|byte| format!("{byte:02x}")).collect())
                }
            };
            let is_member = || std::fs::read_to_string(table).unwrap().contains(&text);
            assert!(is_member(), "{text} in {table}");
            first.set_recv_packet_info(true).unwrap();
            sender.send_to(b"to all", (group, port)).await.unwrap();
            let info = receive(&first).await;
            assert_eq!((info.len, info.ancillary.destination()), (6, Some(group)));
            assert_eq!(receive(&second).await.len, 6);
            assert!(poll_once(&mut stranger.readable()).await.is_pending(), "the socket is in another group");

            // Leaves the group, and joins it again by address and by index.
            match group {
                IpAddr::V4(group) => {
                    for socket in [&first, &second] {
                        socket.leave_multicast_v4_by_index(group, interface).unwrap();
                    }
                    assert!(!is_member());
                    first.join_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
                    assert!(first.join_multicast_v4(group, Ipv4Addr::LOCALHOST).is_err(), "a second join fails");
                    sender.set_multicast_interface_v4(Ipv4Addr::LOCALHOST).unwrap();
                }
                IpAddr::V6(group) => {
                    for socket in [&first, &second] {
                        socket.leave_multicast_v6(&group, interface).unwrap();
                    }
                    assert!(!is_member());
                    first.join_multicast_v6(&group, interface).unwrap();
                }
            }
            assert!(is_member());
            sender.send_to(b"again", (group, port)).await.unwrap();
            assert_eq!(receive(&first).await.len, 5);
            assert!(poll_once(&mut second.readable()).await.is_pending(), "the socket has left the group");
            match group {
                IpAddr::V4(group) => {
                    first.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap();
                    let error = first.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
                    first.join_multicast_v4_by_index(group, interface).unwrap();
                }
                IpAddr::V6(group) => first.leave_multicast_v6(&group, interface).unwrap(),
            }
        }
        let error = UdpSocket::bind_multicast("127.0.0.1:0".parse().unwrap(), 0).unwrap_err();
        assert_eq!(error.to_string(), "listen udp 127.0.0.1:0: not a multicast address");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = UdpSocket::bind_multicast((v4, 0).into(), 1 << 20).unwrap_err();
        assert!(error.to_string().contains(": setsockopt: "), "{error}");
        if has_ipv6() {
            // Regression test: the zone of the group was ignored.
            let group = |zone| SocketAddrV6::new("ff02::1234".parse().unwrap(), 0, 0, zone).into();
            for (zone, interface) in [(loopback_index(), 0), (1 << 20, loopback_index())] {
                let socket = UdpSocket::bind_multicast(group(zone), interface).unwrap();
                assert_eq!(socket.multicast_interface_v6().unwrap(), loopback_index());
            }
        }
    });
}

#[test]
fn offload_of_other_sockets_is_an_error() {
    run(async {
        let (tcp, _peer) = common::pair().await;
        let tcp = UdpSocket::from(std::os::fd::OwnedFd::from(tcp));
        assert!(tcp.set_gro(true).is_err() && tcp.set_segment_size(Some(1)).is_err());
    });
}
