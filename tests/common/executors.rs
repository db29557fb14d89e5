//! Checks that sockets must pass under every executor. The tests of this package and those of the
//! package `ecosystem` share this file.

use std::time::{Duration, Instant};

use futures::io::{AsyncReadExt, AsyncWriteExt};
use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::prelude::*;
use netpoll::task;

use crate::common::{echo, ping};

/// Uses name resolution, accepts, plain and trait reads and writes, deadlines, sleeps, timeouts,
/// tasks, blocking calls and closes under the calling executor.
pub(crate) async fn everything() {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = async {
        let mut incoming = listener.incoming();
        let stream = incoming.next().await.unwrap().unwrap();
        echo(&stream).await.unwrap();
    };
    let client = async {
        let stream = TcpStream::connect(addr).await.unwrap();
        for n in 0..200_usize {
            ping(&stream, &vec![n as u8; 1 + n * 100]).await.unwrap();
            let message = [n as u8; 100];
            AsyncWriteExt::write_all(&mut &stream, &message).await.unwrap();
            let mut back = [0; 100];
            AsyncReadExt::read_exact(&mut &stream, &mut back).await.unwrap();
            assert_eq!(back, message);
        }
        stream.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        assert!(is_timeout(&stream.read(&mut [0; 1]).await.unwrap_err()));
        stream.set_read_deadline(None).unwrap();
        let start = Instant::now();
        task::sleep(Duration::from_millis(3)).await;
        assert!(start.elapsed() >= Duration::from_millis(3));
        assert_eq!(task::spawn(async { 1 }).await, 1);
        assert_eq!(task::spawn_blocking(|| 2).await, 2);
        let late = netpoll::io::timeout(Duration::from_millis(2), stream.read(&mut [0; 1])).await;
        assert!(is_timeout(&late.unwrap_err()));
        AsyncWriteExt::close(&mut &stream).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        stream.force_close().await.unwrap();
        assert!(is_closed(&stream.read(&mut [0; 1]).await.unwrap_err()));
    };
    futures::future::join(server, client).await;
}
