//! `rt::Builder::wrap_io_errors`. The tests have their own binary, because the setting applies to
//! the whole process.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::run;
use netpoll::net::{self, Ancillary, OpError, SendBatch, SocketAddr, TcpListener, TcpStream, UdpSocket};
use netpoll::prelude::*;
use netpoll::rt;

fn op(error: &std::io::Error) -> &OpError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap_or_else(|| panic!("not wrapped: {error:?}"))
}

#[test]
fn errors_of_the_system_name_operation_and_addresses() {
    rt::Builder::new().wrap_io_errors(true).start().unwrap();
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let local = client.local_addr().unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.set_linger(Some(Duration::ZERO)).unwrap();
        server.force_close().await.unwrap();
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("read tcp {local}->{address}: read: connection reset by peer"));
        assert_eq!((error.kind(), net::raw_os_error(&error)), (ErrorKind::ConnectionReset, Some(libc::ECONNRESET)));
        assert_eq!((op(&error).op(), error.raw_os_error()), ("read", None));
        let error = client.write_all(b"lost").await.unwrap_err();
        assert!(
            error.to_string().starts_with("write tcp ") && error.to_string().ends_with("write: broken pipe"),
            "{error}"
        );
        assert_eq!((error.kind(), net::raw_os_error(&error)), (ErrorKind::BrokenPipe, Some(libc::EPIPE)));
        // Errors of the traits' methods are wrapped as well.
        let error = netpoll::io::WriteExt::write(&mut &client, b"lost").await.unwrap_err();
        assert_eq!((op(&error).op(), net::raw_os_error(&error)), ("write", Some(libc::EPIPE)));
        // An error that this crate creates is wrapped only once.
        client.force_close().await.unwrap();
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        let text = error.to_string();
        assert!(net::is_closed(&error) && text.ends_with("use of closed network connection"), "{text}");
        assert_eq!(text.matches("read tcp").count(), 1, "{text}");
    });
}

/// The connection is deferred, so the kernel does not report the peer yet when the dial ends.
#[cfg(target_os = "linux")]
#[test]
fn errors_of_a_fast_open_connection_name_the_peer() {
    common::child("errors_of_a_fast_open_connection_name_the_peer", || {
        rt::Builder::new().wrap_io_errors(true).start().unwrap();
        run(async {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let dialer = net::Dialer::new().fast_open(true).control(|_, _, fd| {
                /// The value in <linux/tcp.h>. With this option, the kernel defers even the first
                /// connection to a server.
                const TCP_FASTOPEN_NO_COOKIE: libc::c_int = 34;
                let (fd, one): (_, libc::c_int) = (std::os::fd::AsRawFd::as_raw_fd(&fd), 1);
                // SAFETY: `one` is valid for the call, and has 4 bytes.
                unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, (&raw const one).cast(), 4) };
                Ok(())
            });
            let client = dialer.dial(address).await.unwrap();
            drop(socket);
            let error = client.read(&mut [0; 8]).await.unwrap_err();
            assert!(error.to_string().contains(&format!("->{address}: ")), "{error}");
        });
    });
}

/// Regression: if errors were wrapped, a send did not try the next address after a refusal, and did
/// not report a missing address.
#[test]
fn udp_sends_recognise_wrapped_errors() {
    common::child("udp_sends_recognise_wrapped_errors", || {
        rt::Builder::new().wrap_io_errors(true).start().unwrap();
        run(async {
            let [socket, receiver] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0"));
            let (socket, receiver) = (socket.await.unwrap(), receiver.await.unwrap());
            let to = [SocketAddr::from(([127, 0, 0, 1], 0)), receiver.local_addr().unwrap()];
            let refused = socket.send_to(b"x", to[0]).await.unwrap_err();
            assert_eq!((op(&refused).op(), net::raw_os_error(&refused)), ("write", Some(libc::EINVAL)));
            assert_eq!(socket.send_to(b"next", &to[..]).await.unwrap(), 4);
            assert_eq!(receiver.recv(&mut [0; 8]).await.unwrap(), 4);
            let mut batch = SendBatch::new();
            batch.push(b"x", None);
            for error in [
                socket.send_msg(&[], None, &Ancillary::new()).await.unwrap_err(),
                socket.send_many(&mut batch).await.unwrap_err(),
            ] {
                assert!(
                    error.kind() == ErrorKind::InvalidInput && error.to_string().ends_with("missing address"),
                    "{error}"
                );
            }
        });
    });
}

/// `incoming` recognises a lack of descriptors in a wrapped error too: it waits, and yields no
/// error.
#[test]
fn wrapped_lack_of_descriptors_makes_incoming_wait() {
    common::child("wrapped_lack_of_descriptors_makes_incoming_wait", || {
        rt::Builder::new().wrap_io_errors(true).start().unwrap();
        common::set_nofile(256);
        run(accept_without_descriptors());
    });
}

async fn accept_without_descriptors() {
    common::warm_up().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let held = common::exhaust_descriptors();
    let error = listener.accept().await.unwrap_err();
    assert_eq!((op(&error).op(), net::raw_os_error(&error)), ("accept", Some(libc::EMFILE)));
    let mut incoming = listener.incoming();
    let next = netpoll::future::timeout(Duration::from_millis(50), incoming.next()).await;
    assert!(next.is_err(), "`incoming` waits for descriptors: {next:?}");
    drop(held);
    assert!(incoming.next().await.unwrap().is_ok());
}
