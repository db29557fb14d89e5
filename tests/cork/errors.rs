//! If the bytes of a gathered write that has returned `Ok` cannot be sent, the next write, flush or
//! shutdown, or a read at the end of the stream, returns the error, once.

use std::io::{self, ErrorKind};
use std::time::Duration;

use netpoll::io::WriteExt;
use netpoll::net::TcpStream;
use netpoll::task;

use super::common::run;
use super::pair;

/// Returns a stream whose gathered bytes could not be sent, because the peer had reset the
/// connection.
async fn failed() -> TcpStream {
    let (ours, peer) = pair().await;
    peer.set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    ours.peer_closed().await.unwrap();
    ours.write_all(b"lost").await.unwrap();
    // The end of the turn tries to send the bytes.
    task::yield_now().await;
    ours
}

/// Asserts that an operation returns the error of the earlier send.
fn assert_late<T: std::fmt::Debug>(result: io::Result<T>) {
    let kind = result.unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind:?}");
}

#[test]
fn next_write_reports_the_failure() {
    run(async {
        let ours = failed().await;
        assert_late(ours.write(b"x").await);
        // From here on the kernel returns the errors.
        for _ in 0..3 {
            assert_eq!(ours.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        let ours = failed().await;
        assert_late(ours.write_all(&[0; 100_000]).await);
        let ours = failed().await;
        assert_late(WriteExt::write(&mut &ours, b"x").await);
        let ours = failed().await;
        assert_late(ours.write_vectored_all(&mut [io::IoSlice::new(b"x")]).await);
        let ours = failed().await;
        assert_late(ours.write_with(|fd| rustix::io::write(fd, b"raw").map_err(Into::into)).await);
    });
}

#[test]
fn wait_for_room_ends_at_a_failure_and_leaves_it_to_the_next_write() {
    run(async {
        let ours = failed().await;
        for _ in 0..2 {
            ours.writable().await.unwrap();
        }
        assert_late(ours.write(b"x").await);
    });
}

/// The option is turned off after the send has failed, or the send fails in the call that turns the
/// option off.
#[test]
fn next_write_reports_the_failure_although_the_option_is_off() {
    run(async {
        for sends in [false, true] {
            let ours = if sends {
                let (ours, peer) = pair().await;
                peer.set_linger(Some(Duration::ZERO)).unwrap();
                drop(peer);
                ours.peer_closed().await.unwrap();
                ours.write_all(b"lost").await.unwrap();
                ours
            } else {
                failed().await
            };
            ours.set_auto_cork(false).unwrap();
            assert_late(ours.write(b"x").await);
            // The write has returned the error of the gathered bytes, not one of its own.
            ours.flush().await.unwrap();
            assert_eq!(ours.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn next_flush_reports_the_failure() {
    run(async {
        let ours = failed().await;
        assert_late(ours.flush().await);
        ours.flush().await.unwrap();
        let ours = failed().await;
        assert_late(WriteExt::flush(&mut &ours).await);
    });
}

#[test]
fn next_close_reports_the_failure() {
    run(async {
        let ours = failed().await;
        assert_late(WriteExt::close(&mut &ours).await);
        WriteExt::close(&mut &ours).await.unwrap();
        let ours = failed().await;
        assert_late(ours.close_write());
        let ours = failed().await;
        assert_late(ours.shutdown(std::net::Shutdown::Both));
    });
}

/// The failed send has consumed the socket's error, so the kernel reports only the end of the
/// stream to the read.
#[test]
fn read_at_the_end_reports_the_failure() {
    run(async {
        let ours = failed().await;
        assert_late(ours.read(&mut [0; 8]).await);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        let ours = failed().await;
        assert_late(netpoll::io::ReadExt::read(&mut &ours, &mut [0; 8]).await);
        let ours = failed().await;
        let mut buf = [0; 8];
        assert_late(ours.read_vectored(&mut [io::IoSliceMut::new(&mut buf)]).await);
    });
}

#[test]
fn flush_or_next_write_reports_the_reset_of_a_full_stream() {
    run(async {
        let (ours, peer) = super::narrow_pair().await;
        ours.write_all(&[1; 15_000]).await.unwrap();
        // Fills the socket, regardless of its buffer size.
        while let std::task::Poll::Ready(written) = super::common::poll_once(&mut ours.write(&[1; 30_000])).await {
            written.unwrap();
        }
        let flushing = task::spawn({
            let ours = ours.clone();
            async move { ours.flush().await }
        });
        peer.set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        let flushed = flushing.await;
        let written = ours.write(b"x").await;
        assert!(flushed.is_err() || written.is_err(), "{flushed:?} {written:?}");
        assert!(ours.write(b"x").await.is_err());
    });
}
