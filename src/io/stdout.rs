//! [`stdout()`] and [`stderr()`]: standard output and standard error, written by threads of the
//! blocking pool.
//!
//! # States
//! Per handle: idle → writing a chunk → idle; idle → flushing → idle. A write whose bytes begin
//! with the chunk in progress continues that write, and a flush continues a flush in progress. Any
//! other call first waits for the end of the operation in progress.
//!
//! # Invariants
//! * A write is ready when std has accepted the bytes. They are therefore in order with std's
//!   `println!`, and appear when the process exits normally (std flushes `stdout` at exit).
//! * A thread writes all bytes of a chunk unless a write fails, and holds std's lock meanwhile, so
//!   a chunk is not split.
//! * A write returns only the count of its own bytes. If the caller passes bytes that do not begin
//!   with the chunk in progress, the future that began the chunk was dropped. The count of the
//!   chunk is discarded, and the new bytes are written after it, unless the chunk has failed. If
//!   the bytes begin with the chunk, the call continues that write, so a write that timed out can
//!   be retried and appears once.
//!
//! # Cancellation
//! The chunk of a dropped write is still written. The error of a dropped write or flush is returned
//! by the next call.
//!
//! # O_NONBLOCK
//! The flag belongs to the open file description, which may be shared with other processes. If the
//! flag is set, the thread waits in poll(2), and each write flushes std's buffer.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_io::AsyncWrite as Write;

use super::call::Call;
use crate::sys::fd;

/// The maximum number of bytes that one write copies and passes to the thread: the default capacity
/// of a pipe.
const CHUNK_BYTES: usize = 64 << 10;

/// An asynchronous writer on top of a blocking writer. It is generic for testing.
#[derive(Debug)]
struct Output<W> {
    writer: W,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Writing { chunk: Arc<[u8]>, call: Call<Written> },
    Flushing { call: Call<()> },
}

/// The number of bytes of a chunk that std has accepted, and the error that prevented the rest.
#[derive(Debug)]
struct Written {
    count: usize,
    error: Option<io::Error>,
}

/// A blocking writer that is a cloneable handle.
trait Blocking: io::Write + Clone + Send + 'static {
    type Lock;

    /// Makes writes of other threads wait until the lock is dropped. The calling thread may write.
    fn lock(&self) -> Self::Lock;

    /// Writes all of `bytes`, or as many as possible before an error.
    fn write_whole(&mut self, bytes: &[u8]) -> Written {
        let _lock = self.lock();
        let mut count = 0;
        while count < bytes.len() {
            let error = match uninterrupted(|| self.write(&bytes[count..])) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(accepted) => {
                    count += accepted;
                    continue;
                }
                Err(error) => error,
            };
            return Written { count, error: Some(error) };
        }
        Written { count, error: None }
    }
}

/// Repeats `operation` while it fails with `Interrupted`.
fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl<W: Blocking> Output<W> {
    fn new(writer: W) -> Output<W> {
        Output { writer, state: State::Idle }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match &mut self.state {
                State::Idle => {
                    let chunk: Arc<[u8]> = buf[..buf.len().min(CHUNK_BYTES)].into();
                    let (mut writer, bytes) = (self.writer.clone(), chunk.clone());
                    let call = Call::begin(move || Ok(writer.write_whole(&bytes)));
                    self.state = State::Writing { chunk, call };
                }
                State::Writing { chunk, call } => {
                    let result = ready!(Pin::new(call).poll(cx));
                    let ours = buf.starts_with(chunk);
                    self.state = State::Idle;
                    let Written { count, error } = result?;
                    if ours && count > 0 {
                        // If the error persists, the write of the rest returns it.
                        return Poll::Ready(Ok(count));
                    }
                    if let Some(error) = error {
                        return Poll::Ready(Err(error));
                    }
                }
                State::Flushing { call } => {
                    let result = ready!(Pin::new(call).poll(cx));
                    self.state = State::Idle;
                    result?;
                }
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Idle => {
                    let mut writer = self.writer.clone();
                    self.state = State::Flushing { call: Call::begin(move || uninterrupted(|| writer.flush())) };
                }
                State::Writing { call, .. } => {
                    let result = ready!(Pin::new(call).poll(cx));
                    self.state = State::Idle;
                    result?.error.map_or(Ok(()), Err)?;
                }
                // If a dropped future began this flush, no bytes were written through this handle
                // since then.
                State::Flushing { call } => {
                    let result = ready!(Pin::new(call).poll(cx));
                    self.state = State::Idle;
                    return Poll::Ready(result);
                }
            }
        }
    }
}

/// A cloneable writer to standard output, needed because [`std::io::Stdout`] is not `Clone`.
#[derive(Debug, Clone, Copy)]
struct StdoutWriter;

/// A cloneable writer to standard error, needed because [`std::io::Stderr`] is not `Clone`.
#[derive(Debug, Clone, Copy)]
struct StderrWriter;

impl io::Write for StdoutWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        let count = fd::blocking(stdout.as_fd(), true, || (&stdout).write(buf))?;
        if fd::is_nonblocking(stdout.as_fd()).unwrap_or(false) {
            // The flush at exit does not wait until the descriptor is writable, so bytes in std's
            // buffer could be lost. If this flush fails, the bytes stay in std's buffer, and the
            // next call tries again.
            let _ = self.flush();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let stdout = io::stdout();
        fd::blocking(stdout.as_fd(), true, || (&stdout).flush())
    }
}

impl Blocking for StdoutWriter {
    type Lock = io::StdoutLock<'static>;

    fn lock(&self) -> Self::Lock {
        io::stdout().lock()
    }
}

impl io::Write for StderrWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        fd::blocking(stderr.as_fd(), true, || (&stderr).write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Blocking for StderrWriter {
    type Lock = io::StderrLock<'static>;

    fn lock(&self) -> Self::Lock {
        io::stderr().lock()
    }
}

/// Returns a handle to the standard output of the process.
///
/// The handle writes to std's buffer, which is line-buffered. Text after the last newline may not
/// appear until the handle is flushed or the process exits.
///
/// ```
/// use netpoll::io::{self, WriteExt};
///
/// # netpoll::task::block_on(async {
/// let mut out = io::stdout();
/// out.write_all(b"name? ").await?;
/// out.flush().await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn stdout() -> Stdout {
    Stdout { output: Output::new(StdoutWriter), std: io::stdout() }
}

/// Returns a handle to the standard error of the process. Standard error is not buffered.
///
/// ```
/// use netpoll::io::{self, WriteExt};
///
/// # netpoll::task::block_on(async {
/// writeln!(io::stderr(), "{} left", 3).await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn stderr() -> Stderr {
    Stderr { output: Output::new(StderrWriter), std: io::stderr() }
}

macro_rules! output {
    ($(#[$doc:meta])* $name:ident, $std:ty, $writer:ty) => {
        $(#[$doc])*
        ///
        /// A write passes up to 64 KiB to a thread of the blocking pool, and is ready when std has
        /// accepted the bytes. Writes through one handle keep their order. Writes through several
        /// handles may interleave, but a single write is not split. Closing the handle flushes it;
        /// the descriptor stays open. Writes wait until the descriptor is writable, even if another
        /// process has set O_NONBLOCK.
        ///
        /// # Errors
        /// Returns the error of write(2), such as `BrokenPipe` if the reader of a pipe is gone.
        /// Returns an error of kind `Other` if the call in the thread panics, or a shutdown of the
        /// runtime drops the call before it runs.
        ///
        /// # Cancel safety
        /// The bytes of a dropped write, up to 64 KiB, are still written. If the next call through
        /// the same handle is a write whose bytes begin with these bytes, it continues the dropped
        /// write, so the bytes appear once. The error of a dropped write or flush is returned by
        /// the next call.
        #[derive(Debug)]
        pub struct $name {
            output: Output<$writer>,
            std: $std,
        }

        impl Write for $name {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                self.output.poll_write(cx, buf)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.output.poll_flush(cx)
            }

            fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.output.poll_flush(cx)
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.std.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.std.as_raw_fd()
            }
        }
    };
}

output! {
    /// A handle to standard output; returned by [`stdout()`].
    Stdout, io::Stdout, StdoutWriter
}

output! {
    /// A handle to standard error; returned by [`stderr()`].
    Stderr, io::Stderr, StderrWriter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;
    use crate::task::block_on;
    use std::future::poll_fn;
    use std::task::Waker;

    /// A writer that accepts at most three bytes per write, and fails on request.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Record>>);

    #[derive(Default)]
    struct Record {
        written: Vec<u8>,
        flushes: usize,
        /// The number of writes before the one that fails, and the kind of its error.
        fail: Option<(usize, io::ErrorKind)>,
    }

    impl io::Write for Recorder {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let mut record = self.0.lock();
            match record.fail.take() {
                Some((0, kind)) => return Err(kind.into()),
                fail => record.fail = fail.map(|(writes, kind)| (writes - 1, kind)),
            }
            let count = buf.len().min(3);
            record.written.extend_from_slice(&buf[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.lock().flushes += 1;
            Ok(())
        }
    }

    impl Blocking for Recorder {
        type Lock = ();

        fn lock(&self) {}
    }

    fn write(output: &mut Output<Recorder>, buf: &[u8]) -> io::Result<usize> {
        block_on(poll_fn(|cx| output.poll_write(cx, buf)))
    }

    fn flush(output: &mut Output<Recorder>) -> io::Result<()> {
        block_on(poll_fn(|cx| output.poll_flush(cx)))
    }

    /// Begins a write and abandons it. The write cannot complete in the meantime, because the
    /// record is locked.
    fn begin_write(output: &mut Output<Recorder>, buf: &[u8]) {
        let recorder = output.writer.clone();
        let _record = recorder.0.lock();
        assert!(output.poll_write(&mut Context::from_waker(Waker::noop()), buf).is_pending());
    }

    #[test]
    fn write_returns_the_count_and_flush_reaches_the_writer() {
        let recorder = Recorder::default();
        let mut output = Output::new(recorder.clone());
        assert_eq!(write(&mut output, b"").unwrap(), 0);
        assert_eq!(write(&mut output, b"ab").unwrap(), 2);
        assert_eq!(recorder.0.lock().written, b"ab", "the bytes are written when the call is ready");
        assert_eq!(write(&mut output, b"cdefg").unwrap(), 5);
        flush(&mut output).unwrap();
        let record = recorder.0.lock();
        assert_eq!((record.written.as_slice(), record.flushes), (&b"abcdefg"[..], 1));
    }

    #[test]
    fn dropped_write_is_written_and_its_count_discarded() {
        let recorder = Recorder::default();
        let mut output = Output::new(recorder.clone());
        begin_write(&mut output, b"old");
        assert_eq!(write(&mut output, b"n").unwrap(), 1);
        assert_eq!(recorder.0.lock().written, b"oldn");

        // Writing the same bytes again continues the same write.
        begin_write(&mut output, b"again");
        assert_eq!(write(&mut output, b"again").unwrap(), 5);
        assert_eq!(recorder.0.lock().written, b"oldnagain");
        // A flush after a dropped write flushes its bytes.
        begin_write(&mut output, b"end");
        flush(&mut output).unwrap();
        assert!(recorder.0.lock().written.ends_with(b"end"));
    }

    #[test]
    fn dropped_write_is_written_as_a_whole() {
        let recorder = Recorder::default();
        let mut output = Output::new(recorder.clone());
        begin_write(&mut output, b"more than three bytes");
        assert_eq!(write(&mut output, b"!").unwrap(), 1);
        assert_eq!(recorder.0.lock().written, b"more than three bytes!");
    }

    #[test]
    fn error_behind_accepted_bytes_is_returned_unless_the_caller_writes_the_rest() {
        let recorder = Recorder::default();
        let mut output = Output::new(recorder.clone());
        let fail = || recorder.0.lock().fail = Some((2, io::ErrorKind::StorageFull));
        fail();
        assert_eq!(write(&mut output, b"12345678").unwrap(), 6);
        assert_eq!(write(&mut output, b"78").unwrap(), 2);
        fail();
        begin_write(&mut output, b"abcdefgh");
        assert_eq!(write(&mut output, b"other").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(write(&mut output, b"other").unwrap(), 5);
        fail();
        begin_write(&mut output, b"ijklmnop");
        assert_eq!(flush(&mut output).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(recorder.0.lock().written, b"12345678abcdefotherijklmn");
    }

    #[test]
    fn errors_are_returned_and_interruptions_retried() {
        let recorder = Recorder::default();
        let mut output = Output::new(recorder.clone());
        recorder.0.lock().fail = Some((0, io::ErrorKind::Interrupted));
        assert_eq!(write(&mut output, b"a").unwrap(), 1);
        recorder.0.lock().fail = Some((0, io::ErrorKind::BrokenPipe));
        assert_eq!(write(&mut output, b"b").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(write(&mut output, b"c").unwrap(), 1);
        assert_eq!(recorder.0.lock().written, b"ac");
    }
}
