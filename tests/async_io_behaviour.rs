//! Checks that this crate's sockets, under another executor, behave as async-io's socket tests
//! require. The tests have the names of async-io's tests.

mod common;

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::time::Duration;

use common::{Folder, park_on, poll_once};
use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use netpoll::prelude::*;
use netpoll::task;

const TEXT: &[u8] = b"A sentence that is long enough to be seen whole, and short enough to come in one piece.";

/// Runs `test` under a [`Watchdog`](common::Watchdog) and another executor, so that no thread of
/// the runtime polls it.
fn run(test: impl Future<Output = io::Result<()>>) {
    let _watchdog = common::Watchdog::new();
    park_on(test).unwrap();
}

async fn listen() -> io::Result<(TcpListener, std::net::SocketAddr)> {
    let listener = TcpListener::bind(common::own_address()).await?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let (listener, addr) = listen().await?;
    let (client, server) = TcpStream::connect(addr).try_join(listener.accept()).await?;
    Ok((client, server.0))
}

/// Drops `value` on another thread after a poll of `waiting` has returned Pending. Returns the
/// output of `waiting`.
async fn drop_while<T: Send + 'static, F: Future + Unpin>(value: T, mut waiting: F) -> F::Output {
    assert!(poll_once(&mut waiting).await.is_pending());
    let dropped = task::spawn(async move { drop(value) });
    let output = waiting.await;
    dropped.await;
    output
}

#[test]
fn tcp_connect() {
    run(async {
        let (listener, addr) = listen().await?;
        let accept = task::spawn(async move { listener.accept().await });
        let client = TcpStream::connect(addr).await?;
        let (server, from) = accept.await?;
        assert_eq!(from, client.local_addr()?);
        assert_eq!(server.peer_addr()?, client.local_addr()?);
        assert_eq!(client.peer_addr()?, server.local_addr()?);
        // The task dropped the listener.
        let error = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        Ok(())
    });
}

#[test]
fn tcp_peek_read() {
    run(async {
        let (listener, addr) = listen().await?;
        let client = TcpStream::connect(addr).await?;
        client.write_all(TEXT).await?;
        let mut incoming = listener.incoming();
        let server = incoming.next().await.unwrap()?;
        let mut buf = [0; 1024];
        let count = server.peek(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);
        let count = server.read(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);
        Ok(())
    });
}

#[test]
fn tcp_reader_hangup() {
    run(async {
        let (reader, writer) = pair().await?;
        // When the buffers are full, a write waits, and dropping the reader must end it.
        common::fill(&writer).await;
        let chunk = vec![0; 1 << 20];
        let error = drop_while(reader, writer.write_all(&chunk)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        let error = writer.write_all(&chunk).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
}

#[test]
fn tcp_writer_hangup() {
    run(async {
        let (writer, mut reader) = pair().await?;
        let mut bytes = Vec::new();
        assert_eq!(drop_while(writer, reader.read_to_end(&mut bytes)).await?, 0);
        assert!(bytes.is_empty());
        Ok(())
    });
}

#[test]
fn udp_send_recv() {
    run(async {
        let a = UdpSocket::bind("127.0.0.1:0").await?;
        let b = UdpSocket::bind("127.0.0.1:0").await?;
        a.connect(b.local_addr()?).await?;
        let mut buf = [0; 1024];

        assert_eq!(a.send(TEXT).await?, TEXT.len());
        let count = b.peek(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);
        let count = b.recv(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);

        assert_eq!(b.send_to(TEXT, a.local_addr()?).await?, TEXT.len());
        let (count, from) = a.peek_from(&mut buf).await?;
        assert_eq!((&buf[..count], from), (TEXT, b.local_addr()?));
        let (count, from) = a.recv_from(&mut buf).await?;
        assert_eq!((&buf[..count], from), (TEXT, b.local_addr()?));
        Ok(())
    });
}

/// Named after async-io's test, which uses Unix streams.
#[test]
fn udp_connect() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).await?;
        let client = UnixStream::connect(&path).await?;
        client.write_all(TEXT).await?;
        let mut incoming = listener.incoming();
        let server = incoming.next().await.unwrap()?;
        let mut buf = [0; 1024];
        let count = server.read(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);
        Ok(())
    });
}

#[test]
fn uds_connect() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).await?;
        // The socket's file remains, as with async-io.
        listener.set_unlink_on_close(false)?;
        assert_eq!(listener.local_addr()?.as_pathname(), Some(&*path));
        let accept = task::spawn(async move { listener.accept().await });
        let client = UnixStream::connect(&path).await?;
        let (server, _) = accept.await?;
        assert_eq!(server.peer_addr()?.as_pathname(), client.local_addr()?.as_pathname());
        assert_eq!(client.peer_addr()?.as_pathname(), server.local_addr()?.as_pathname());
        let error = UnixStream::connect(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        Ok(())
    });
}

#[test]
fn uds_send_recv() {
    run(async {
        let (a, b) = UnixDatagram::pair()?;
        a.send(TEXT).await?;
        let mut buf = [0; 1024];
        let count = b.recv(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);
        Ok(())
    });
}

#[test]
fn uds_send_to_recv_from() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("socket");
        let a = UnixDatagram::bind(&path).await?;
        let b = UnixDatagram::unbound()?;
        b.send_to(TEXT, &path).await?;
        let mut buf = [0; 1024];
        let (count, from) = a.recv_from(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);
        assert!(from.is_unnamed());
        Ok(())
    });
}

#[test]
fn uds_reader_hangup() {
    run(async {
        let (reader, writer) = UnixStream::pair()?;
        let chunk = vec![0; 1 << 20];
        let error = drop_while(reader, writer.write_all(&chunk)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        let error = writer.write_all(&chunk).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
}

#[test]
fn uds_writer_hangup() {
    run(async {
        let (writer, mut reader) = UnixStream::pair()?;
        let mut bytes = Vec::new();
        assert_eq!(drop_while(writer, reader.read_to_end(&mut bytes)).await?, 0);
        assert!(bytes.is_empty());
        Ok(())
    });
}

#[test]
fn tcp_duplex() {
    const CHUNK: usize = 4096;
    const CHUNKS: usize = 1024;

    async fn read(stream: TcpStream) -> io::Result<usize> {
        let mut buf = vec![0; CHUNK];
        let mut total = 0;
        loop {
            match stream.read(&mut buf).await? {
                0 => return Ok(total),
                count => total += count,
            }
        }
    }

    async fn write(stream: TcpStream) -> io::Result<()> {
        for _ in 0..CHUNKS {
            stream.write_all(&[0; CHUNK]).await?;
        }
        stream.shutdown(Shutdown::Write)
    }

    run(async {
        let (a, b) = pair().await?;
        // During the pause, `a` begins to wait in both directions. Then its writes proceed, and
        // later its reads.
        let a_reads = task::spawn(read(a.clone()));
        let a_writes = task::spawn(write(a));
        task::sleep(Duration::from_millis(5)).await;
        let b_reads = task::spawn(read(b.clone()));
        a_writes.await?;
        assert_eq!(b_reads.await?, CHUNK * CHUNKS);
        let b_writes = task::spawn(write(b));
        assert_eq!(a_reads.await?, CHUNK * CHUNKS);
        b_writes.await
    });
}

#[test]
fn shutdown() {
    run(async {
        let (mut reader, writer) = pair().await?;
        let mut bytes = Vec::new();
        let end = async { writer.shutdown(Shutdown::Write).map(|()| 0) };
        assert_eq!(reader.read_to_end(&mut bytes).try_join(end).await?, (0, 0));
        // The other direction stays open.
        reader.write_all(TEXT).await?;
        let mut buf = [0; 1024];
        let count = writer.read(&mut buf).await?;
        assert_eq!(&buf[..count], TEXT);
        Ok(())
    });
}

/// Two descriptors refer to one socket. When one is dropped, the registration of the other remains.
#[test]
fn duplicate_socket_insert() {
    run(async {
        let std = std::net::TcpListener::bind("127.0.0.1:0")?;
        let addr = std.local_addr()?;
        let duplicate = TcpListener::from(std.try_clone()?);
        let listener = TcpListener::from(std);
        for registered in [&listener, &duplicate] {
            assert!(poll_once(&mut registered.accept()).await.is_pending());
        }
        drop(duplicate);

        let accept = task::spawn(async move { listener.accept().await });
        let client = TcpStream::connect(addr).await?;
        client.write_all(TEXT).await?;
        client.shutdown(Shutdown::Write)?;
        let (mut server, _) = accept.await?;
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await?;
        assert_eq!(bytes, TEXT);
        Ok(())
    });
}
