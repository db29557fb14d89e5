//! Vectored reads and writes: leading empty buffers do not use up the entries of a system call.
//! With more buffers than the kernel accepts, no data is lost and none is added.

mod common;

use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut, Write as _};
use std::pin::Pin;

use common::{pair, run};
use futures_io::{AsyncRead, AsyncWrite};
use netpoll::io::{AsyncFd, BufWriter, ReadExt, WriteExt};
use netpoll::net::{Ancillary, UdpSocket, pipe};
use netpoll::os::unix::net::UnixStream;

/// The numbers of leading empty buffers: within the kernel's bound of 1,024, at it, and beyond it.
const EMPTY: [usize; 6] = [1, 1023, 1024, 1025, 2048, 5000];

/// Reads into `empty` empty buffers followed by buffers of 3 and 8 bytes.
async fn read_behind<R: AsyncRead + Unpin>(mut reader: R, empty: usize) -> (usize, [u8; 11]) {
    let mut bytes = [0; 11];
    let (first, second) = bytes.split_at_mut(3);
    let mut bufs: Vec<_> = (0..empty).map(|_| IoSliceMut::new(&mut [])).collect();
    bufs.extend([IoSliceMut::new(first), IoSliceMut::new(second)]);
    let count = poll_fn(|cx| Pin::new(&mut reader).poll_read_vectored(cx, &mut bufs)).await.unwrap();
    drop(bufs);
    (count, bytes)
}

/// Writes `empty` empty buffers, "head", another empty buffer and "body".
async fn write_behind<W: AsyncWrite + Unpin>(mut writer: W, empty: usize) -> usize {
    let mut bufs = vec![IoSlice::new(b""); empty];
    bufs.extend([IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")]);
    poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &bufs)).await.unwrap()
}

/// Asserts that bytes cross from `writer` to `reader`: each call with bytes or room moves some
/// bytes, and a call with only empty buffers returns 0.
async fn assert_crosses<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(mut reader: R, mut writer: W, what: &str) {
    for empty in EMPTY {
        let mut left = write_behind(&mut writer, empty).await;
        assert!(left == 8 || left == 4, "{what}: {empty} empty buffers and {left} bytes");
        writer.flush().await.unwrap();
        let mut all = Vec::new();
        while left > 0 {
            let (count, bytes) = read_behind(&mut reader, empty).await;
            assert!(count > 0, "{what}: {empty} empty buffers, and 0 before the end of the stream");
            all.extend_from_slice(&bytes[..count]);
            left -= count;
        }
        assert!(b"headbody".starts_with(&all), "{what}: {}", all.escape_ascii());
    }
    let mut bufs = vec![IoSlice::new(b""); 3000];
    assert_eq!(poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &bufs)).await.unwrap(), 0, "{what}");
    bufs.clear();
    assert_eq!(poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &bufs)).await.unwrap(), 0, "{what}");
    let mut bufs: Vec<_> = (0..3000).map(|_| IoSliceMut::new(&mut [])).collect();
    assert_eq!(poll_fn(|cx| Pin::new(&mut reader).poll_read_vectored(cx, &mut bufs)).await.unwrap(), 0, "{what}");
}

#[test]
fn leading_empty_buffers_are_skipped() {
    run(async {
        let (client, server) = pair().await;
        assert_crosses(&client, &server, "TCP").await;
        assert_crosses(&server, BufWriter::with_capacity(4, &client), "a buffered writer").await;
        let (one, other) = UnixStream::pair().unwrap();
        assert_crosses(&one, &other, "a Unix stream").await;
        let (reader, writer) = std::io::pipe().unwrap();
        let (reader, writer) = (AsyncFd::new(reader).unwrap(), AsyncFd::new(writer).unwrap());
        assert_crosses(&reader, &writer, "a pipe").await;
    });
}

#[test]
fn named_futures_skip_leading_empty_buffers() {
    run(async {
        let (client, server) = pair().await;
        let (one, other) = UnixStream::pair().unwrap();
        for empty in EMPTY {
            let mut out = vec![IoSlice::new(b""); empty];
            out.push(IoSlice::new(b"x"));
            assert_eq!(client.write_vectored(&out).await.unwrap(), 1, "{empty}");
            assert_eq!(one.write_vectored(&out).await.unwrap(), 1, "{empty}");
            client.write_vectored_all(&mut out).await.unwrap();
            let (mut tcp, mut unix) = ([0; 2], [0; 1]);
            {
                let (first, second) = tcp.split_at_mut(1);
                let mut bufs: Vec<_> = (0..empty).map(|_| IoSliceMut::new(&mut [])).collect();
                bufs.push(IoSliceMut::new(first));
                assert_eq!(server.read_vectored(&mut bufs).await.unwrap(), 1, "{empty}");
                let mut bufs: Vec<_> = (0..empty).map(|_| IoSliceMut::new(&mut [])).collect();
                bufs.push(IoSliceMut::new(second));
                assert_eq!(server.read_vectored(&mut bufs).await.unwrap(), 1, "{empty}");
                let mut bufs: Vec<_> = (0..empty).map(|_| IoSliceMut::new(&mut [])).collect();
                bufs.push(IoSliceMut::new(&mut unix));
                assert_eq!(other.read_vectored(&mut bufs).await.unwrap(), 1, "{empty}");
            }
            assert_eq!((&tcp, &unix), (b"xx", b"x"));
        }
    });
}

#[test]
fn write_vectored_all_skips_empty_buffers() {
    run(async {
        let (client, server) = pair().await;
        let mut bufs = vec![IoSlice::new(b""); 1500];
        let mut expected = Vec::new();
        for part in [&b"one"[..], b"two", b"three"] {
            bufs.push(IoSlice::new(part));
            bufs.extend(vec![IoSlice::new(b""); 1500]);
            expected.extend_from_slice(part);
        }
        client.write_vectored_all(&mut bufs).await.unwrap();
        client.close_write().unwrap();
        let mut all = Vec::new();
        (&mut &server).read_to_end(&mut all).await.unwrap();
        assert_eq!(all, expected);
        // After `close_write`, a write of empty buffers fails too.
        client.write_vectored_all(&mut vec![IoSlice::new(b""); 3000]).await.unwrap_err();
    });
}

#[test]
fn memory_pipe_skips_empty_buffers() {
    run(async {
        let (one, other) = pipe().unwrap();
        for empty in EMPTY {
            let write = async {
                write_behind(&one, empty).await;
                (&mut &one).flush().await.unwrap();
            };
            let ((), (count, bytes)) = futures_lite::future::zip(write, read_behind(&other, empty)).await;
            assert!(count > 0 && b"headbody".starts_with(&bytes[..count]), "{empty}: {count}");
        }
    });
}

/// As in std, standard output and standard error write from the first buffer that is not empty.
#[test]
fn standard_output_skips_empty_buffers() {
    run(async {
        let mut bufs = vec![IoSlice::new(b""); 2000];
        bufs.push(IoSlice::new(b"\n"));
        for mut out in [Box::new(netpoll::io::stdout()) as Box<dyn AsyncWrite + Unpin>, Box::new(netpoll::io::stderr())]
        {
            assert_eq!(poll_fn(|cx| Pin::new(&mut out).poll_write_vectored(cx, &bufs)).await.unwrap(), 1);
        }
        std::io::stdout().flush().unwrap();
    });
}

/// A datagram is never split, and a received datagram fills the buffers in order.
#[test]
fn datagram_of_many_buffers_is_whole() {
    run(async {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let addr = to.local_addr().unwrap();
        let plain = Ancillary::new();
        let bytes: Vec<u8> = (0..3000).map(|index: u32| index as u8).collect();
        for empty in [0, 1024, 4000] {
            // The first buffers are empty. The others have one byte each.
            let mut bufs = vec![IoSlice::new(b""); empty];
            bufs.extend(bytes.chunks(1).map(IoSlice::new));
            assert_eq!(from.send_msg(&bufs, addr, &plain).await.unwrap(), 3000, "{empty}");
            let mut got = [0; 3100];
            {
                let mut bufs: Vec<_> = (0..empty).map(|_| IoSliceMut::new(&mut [])).collect();
                bufs.extend(got.chunks_mut(1).map(IoSliceMut::new));
                let info = to.recv_msg(&mut bufs).await.unwrap();
                assert_eq!((info.len, info.is_truncated), (3000, false), "{empty}");
                assert_eq!(info.from, from.local_addr().unwrap());
            }
            assert!(got[..3000] == bytes && got[3000..] == [0; 100], "{empty}");
            // The receiver's buffer is shorter than the datagram.
            from.send_msg(&bufs, addr, &plain).await.unwrap();
            let mut got = [0; 2000];
            {
                let mut bufs: Vec<_> = (0..empty).map(|_| IoSliceMut::new(&mut [])).collect();
                bufs.extend(got.chunks_mut(1).map(IoSliceMut::new));
                let info = to.recv_msg(&mut bufs).await.unwrap();
                assert_eq!((info.len, info.is_truncated), (2000, true), "{empty}");
            }
            assert!(got == bytes[..2000], "{empty}");
        }
        // The buffers together are too long for a datagram.
        let chunk = [7; 64];
        let error = from.send_msg(&vec![IoSlice::new(&chunk); 1100], addr, &plain).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        // If all buffers are empty, the datagram is empty.
        assert_eq!(from.send_msg(&vec![IoSlice::new(b""); 3000], addr, &plain).await.unwrap(), 0);
        assert_eq!(to.recv_msg(&mut [IoSliceMut::new(&mut [0; 4])]).await.unwrap().len, 0);
        from.connect(addr).await.unwrap();
        let mut bufs = vec![IoSlice::new(b""); 1024];
        bufs.push(IoSlice::new(b"to the peer"));
        assert_eq!(from.send_msg(&bufs, None, &plain).await.unwrap(), 11);
        assert_eq!(to.recv(&mut [0; 16]).await.unwrap(), 11);
    });
}

/// Regression: where addresses have 32 bits, the sum of the lengths overflowed.
#[test]
fn buffers_that_overlap_may_exceed_the_address_space_of_32_bits() {
    run(async {
        let (client, _server) = pair().await;
        let (corked, _peer) = pair().await;
        corked.set_auto_cork(true).unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        // The buffers have 4 GiB together, within the kernel's bound of 1,024 buffers.
        let chunk = vec![7; 4 << 20];
        let bufs = vec![IoSlice::new(&chunk); 1024];
        assert!(client.write_vectored(&bufs).await.unwrap() > 0);
        assert!(one.write_vectored(&bufs).await.unwrap() > 0);
        assert!(corked.write_vectored(&bufs).await.unwrap() > 0);
    });
}
