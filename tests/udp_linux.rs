//! On Linux, a UDP socket still receives datagrams after its receiving side was shut down. (A
//! blocking receive that waits during shutdown(2) returns 0. A non-blocking one returns EAGAIN.)
#![cfg(target_os = "linux")]

mod common;

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::Duration;

use common::{poll_once, run};
use netpoll::net::UdpSocket;
use netpoll::task;

async fn bound() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// Datagrams still arrive after the shutdown, so a receive waits for them.
#[test]
fn receive_waits_on_socket_that_was_shut_down() {
    run(async {
        for is_connected in [false, true] {
            let (one, other) = (bound().await, bound().await);
            other.connect(one.local_addr().unwrap()).await.unwrap();
            if is_connected {
                one.connect(other.local_addr().unwrap()).await.unwrap();
            }
            let mut buf = [0; 8];
            let mut receive = one.recv_from(&mut buf);
            assert!(poll_once(&mut receive).await.is_pending());
            // On an unconnected socket the call fails but still takes effect.
            let duplicate = std::net::TcpStream::from(one.as_fd().try_clone_to_owned().unwrap());
            let done = duplicate.shutdown(std::net::Shutdown::Read);
            assert_eq!(
                done.map_err(|error| error.kind()),
                if is_connected { Ok(()) } else { Err(ErrorKind::NotConnected) }
            );
            assert!(poll_once(&mut receive).await.is_pending());
            let sender = task::spawn(async move {
                // The event of the shutdown usually wakes the receive before the datagram arrives.
                task::sleep(Duration::from_millis(20)).await;
                other.send(b"late").await
            });
            assert_eq!(receive.await.unwrap().0, 4);
            assert_eq!(sender.await.unwrap(), 4);
        }
    });
}
