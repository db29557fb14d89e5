//! Requests to the program that serves snapshots.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// The limits of a request. A server that is stopped, slow or hostile must not block the view,
/// whose keys are not read meanwhile, nor use up the memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The time limit of the connection, of the write and of each read.
    pub(crate) patience: Duration,
    /// The time limit of all reads together.
    pub(crate) total: Duration,
    /// The maximum number of bytes of an answer. A socket takes about 1 KB.
    pub(crate) bytes: usize,
}

pub(crate) const LIMITS: Limits =
    Limits { patience: Duration::from_secs(10), total: Duration::from_secs(30), bytes: 2_000_000_000 };

/// Requests an answer from the program that serves snapshots at `path`. The format is `text`,
/// `json`, `metrics` or `trace`.
pub(crate) fn ask(path: &Path, format: &str, limits: Limits) -> io::Result<String> {
    let mut stream = connect(path, limits.patience).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            let text = format!("{error}: the program that served this socket has ended");
            io::Error::new(error.kind(), text)
        }
        io::ErrorKind::WouldBlock => no_answer(),
        _ => error,
    })?;
    let mut answer = Vec::new();
    let asked = writeln!(stream, "{format}").and_then(|()| read(&mut stream, &mut answer, limits));
    match asked {
        Ok(()) if answer.is_empty() => {
            let text = "the program closed the connection without an answer";
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
        }
        Ok(()) => String::from_utf8(answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        // The server closes the connection of a client of another user without reading the request.
        Err(error)
            if answer.is_empty()
                && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
        {
            let text = "the program did not read the request; it serves only its own user and root";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(no_answer()),
        Err(error) => Err(error),
    }
}

/// Connects to `path`. The time limit also applies to the connection, which waits if the queue of
/// the listener is full.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Reads until the end of the stream.
fn read(stream: &mut UnixStream, answer: &mut Vec<u8>, limits: Limits) -> io::Result<()> {
    let end = Instant::now() + limits.total;
    let mut buf = vec![0; 64 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_answer());
        }
        stream.set_read_timeout(Some(left.min(limits.patience)))?;
        match stream.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(count) if count > limits.bytes - answer.len() => {
                let text = format!("the answer has more than {} bytes", limits.bytes);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Ok(count) => answer.extend_from_slice(&buf[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the program has not answered in time")
}
