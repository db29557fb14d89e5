//! [`stdin()`]: standard input, read by a thread of the blocking pool.
//!
//! # States
//! The process has one [`Input`], which all [`Stdin`] handles share:
//!
//! | `reading` | `outcome` | meaning |
//! | --- | --- | --- |
//! | no | none | no read is in progress; `buffer` may contain input |
//! | yes | none | a blocking read is in progress; waiting callers are in `waiters` |
//! | no | end or error | the result of the last read, until the next caller takes it |
//!
//! # Invariants
//! * At most one blocking read is in progress. A read is started only when a caller asks for input
//!   that is not buffered.
//! * A byte is removed from `buffer` only in the poll that returns it to a caller. So a dropped
//!   future loses no bytes. A blocking read does not belong to a particular caller: its bytes go to
//!   the next caller, through any handle. `read_line` returns a line as a whole or not at all.
//! * Wakers are cloned, woken and dropped outside the lock.
//!
//! # Cancellation
//! The blocking read cannot be cancelled. It ends at the next input, end of input or error, which
//! is kept for the next caller.
//!
//! # O_NONBLOCK
//! The flag belongs to the open file description, which may be shared with other processes. If the
//! flag is set, the thread waits in poll(2).
//!
//! # Compared with Go
//! A read of `os.Stdin` blocks a thread in the same way, unless O_NONBLOCK was set when the program
//! started.

use std::future::poll_fn;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::AsyncRead as Read;

use super::buf_read::find_end;
use super::utf8;
use crate::rt::fork;
use crate::rt::waiters::{Waiters, Wakers};
use crate::sync::Mutex;
use crate::sys::fd;
use crate::task::spawn_blocking;

/// The size of one blocking read, in bytes. It equals the size of std's buffer, because reads of
/// this size bypass that buffer.
const CHUNK_BYTES: usize = 8 << 10;

static STDIN: Input = Input::new(|buf| {
    let stdin = io::stdin();
    fd::blocking(stdin.as_fd(), false, || (&stdin).read(buf))
});

/// The text of the error of a read that returned no result.
const INCOMPLETE: &str =
    "the read of standard input did not complete, because it panicked or the runtime was shut down: read again";

/// The result of a blocking read that returned no bytes.
#[derive(Debug)]
enum Outcome {
    End,
    Failed(io::Error),
}

#[derive(Debug)]
struct State {
    /// `buffer[start..]` is input that no caller has taken yet.
    buffer: Vec<u8>,
    start: usize,
    /// `buffer[start..searched]` contains no LF.
    searched: usize,
    reading: bool,
    outcome: Option<Outcome>,
    waiters: Waiters,
}

impl State {
    fn available(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Removes the first `count` available bytes and passes them to `f`.
    fn take<T>(&mut self, count: usize, f: impl FnOnce(&[u8]) -> T) -> T {
        let taken = f(&self.buffer[self.start..self.start + count]);
        self.start += count;
        if self.start == self.buffer.len() {
            // This frees the memory of a very long line.
            if self.buffer.capacity() > 8 * CHUNK_BYTES {
                self.buffer = Vec::new();
            }
            self.buffer.clear();
            self.start = 0;
        }
        self.searched = self.start;
        taken
    }

    fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }
}

/// A blocking source of bytes with a buffer, shared by tasks. Tests create their own sources.
#[derive(Debug)]
struct Input {
    state: Mutex<State>,
    source: fn(&mut [u8]) -> io::Result<usize>,
}

impl Input {
    const fn new(source: fn(&mut [u8]) -> io::Result<usize>) -> Input {
        let state =
            State { buffer: Vec::new(), start: 0, searched: 0, reading: false, outcome: None, waiters: Waiters::new() };
        Input { state: Mutex::new(state), source }
    }

    /// Calls `take` and returns its result. If the result is `None`, registers the waker, starts a
    /// blocking read unless one is in progress, and returns `Pending`. `take` runs under the lock,
    /// so it must not call foreign code.
    fn poll_take<T>(
        &'static self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut State) -> Option<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Some(result) = take(&mut self.state.lock()) {
            return Poll::Ready(result);
        }
        // A read that is in progress ends only in the parent.
        fork::check()?;
        // The wakers are declared before the guard, so that they are dropped after it, outside the
        // lock.
        let (waker, mut old) = (cx.waker().clone(), Wakers::new());
        let mut state = self.state.lock();
        if let Some(result) = take(&mut state) {
            return Poll::Ready(result);
        }
        let unused = state.waiters.insert_poll(waker, &mut old);
        let begin = !std::mem::replace(&mut state.reading, true);
        drop(state);
        drop(unused);
        old.wake_all();
        if begin {
            // The read is detached, because its bytes do not belong to a particular task: dropping
            // this task must not cancel the read.
            let reading = Reading { input: self, result: None };
            drop(spawn_blocking(move || reading.run()));
        }
        Poll::Pending
    }

    fn poll_read(&'static self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_take(cx, |state| {
            let count = state.available().len().min(buf.len());
            if count > 0 {
                state.take(count, |bytes| buf[..count].copy_from_slice(bytes));
                return Some(Ok(count));
            }
            match state.outcome.take()? {
                Outcome::End => Some(Ok(0)),
                Outcome::Failed(error) => Some(Err(error)),
            }
        })
    }

    /// Polls for a line including its LF, or the remaining bytes before end of input. The line is
    /// empty at end of input.
    fn poll_line(&'static self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        self.poll_take(cx, |state| {
            if let Some(end) = find_end(b'\n', &state.buffer[state.searched..]) {
                let count = state.searched + end - state.start;
                return Some(Ok(state.take(count, <[u8]>::to_vec)));
            }
            state.searched = state.buffer.len();
            match state.outcome.take()? {
                Outcome::End => {
                    let count = state.available().len();
                    Some(Ok(state.take(count, <[u8]>::to_vec)))
                }
                // The beginning of the line stays in the buffer for the next call.
                Outcome::Failed(error) => Some(Err(error)),
            }
        })
    }

    async fn read_line(&'static self, text: &mut String) -> io::Result<usize> {
        let mut line = poll_fn(|cx| self.poll_line(cx)).await?;
        let count = line.len();
        utf8::append(text, &mut line)?;
        Ok(count)
    }
}

/// The blocking read in progress. Dropping it reports the end of the read and wakes the waiters,
/// whether the read has completed, has panicked, or never ran because the pool was shut down.
struct Reading {
    input: &'static Input,
    result: Option<io::Result<Vec<u8>>>,
}

impl Reading {
    fn run(mut self) {
        let mut chunk = vec![0; CHUNK_BYTES];
        self.result = Some(loop {
            match (self.input.source)(&mut chunk) {
                Ok(count) => {
                    chunk.truncate(count);
                    break Ok(chunk);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        });
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut wakers = Wakers::new();
        let mut state = self.input.state.lock();
        state.reading = false;
        match self.result.take() {
            Some(Ok(chunk)) if chunk.is_empty() => state.outcome = Some(Outcome::End),
            Some(Ok(chunk)) => state.push(&chunk),
            Some(Err(error)) => state.outcome = Some(Outcome::Failed(error)),
            None => {
                state.outcome = Some(Outcome::Failed(io::Error::other(INCOMPLETE)));
            }
        }
        state.waiters.take_all(&mut wakers);
        drop(state);
        wakers.wake_all();
    }
}

/// Returns a handle to the standard input of the process.
///
/// All handles share one buffer, like those of [`std::io::stdin`]. Input that std has already
/// buffered comes first. Input that is in this crate's buffer is not available through std.
///
/// ```no_run
/// use netpoll::io;
///
/// # netpoll::task::block_on(async {
/// let mut line = String::new();
/// while io::stdin().read_line(&mut line).await? > 0 {
///     println!("read {line:?}");
///     line.clear();
/// }
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub fn stdin() -> Stdin {
    Stdin { std: io::stdin() }
}

/// A handle to standard input; returned by [`stdin()`].
///
/// If a call needs more input than is buffered, a thread of the blocking pool reads up to 8 KiB. It
/// waits for input even if another process has set O_NONBLOCK.
///
/// # Errors
/// Reads return the error of read(2), or an error of kind `Other` if the blocking read panics or a
/// shutdown of the runtime drops the blocking read.
///
/// # Cancel safety
/// If a future or the handle is dropped, no input is lost: the next caller gets it. The thread
/// stays in its read until there is input, end of input or an error. The process can exit in the
/// meantime, but [`rt::shutdown`](crate::rt::shutdown()) waits for the read, and returns an error
/// if its time limit passes.
#[derive(Debug)]
pub struct Stdin {
    std: io::Stdin,
}

impl Stdin {
    /// Reads a line including its LF, or the remaining text before end of input, appending to
    /// `buf`. Returns the number of bytes read; 0 means end of input.
    ///
    /// Concurrent callers get whole, separate lines. Reading can continue after end of input, as on
    /// a terminal. The length of a line is unlimited. To limit it, use
    /// [`read_line_bounded`](super::BufReadExt::read_line_bounded) of a `BufReader` that wraps this
    /// handle.
    ///
    /// # Errors
    /// Returns the error of read(2); the part of the line read so far is kept for the next call.
    /// Returns `InvalidData` if the line is not UTF-8; the line is then consumed and the error
    /// contains the bytes (see [`BufReadExt::read_line`](super::BufReadExt::read_line)). Returns an
    /// error of kind `Other` if the read panics or a shutdown of the runtime drops the read.
    ///
    /// # Cancel safety
    /// If the future is dropped, no input is lost and `buf` is unchanged: a line is removed from
    /// the input only when it is complete.
    ///
    /// ```no_run
    /// # netpoll::task::block_on(async {
    /// let mut line = String::new();
    /// netpoll::io::stdin().read_line(&mut line).await?;
    /// # std::io::Result::Ok(()) }).unwrap();
    /// ```
    pub async fn read_line(&self, buf: &mut String) -> io::Result<usize> {
        STDIN.read_line(buf).await
    }
}

impl Read for Stdin {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        STDIN.poll_read(cx, buf)
    }
}

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.std.as_fd()
    }
}

impl AsRawFd for Stdin {
    fn as_raw_fd(&self) -> RawFd {
        self.std.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::block_on;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::{Condvar, Mutex as StdMutex};
    use std::task::Waker;
    use std::time::{Duration, Instant};

    /// The results of the blocking reads of one test, in order. A read waits until there is a
    /// result.
    struct Script {
        answers: StdMutex<Vec<io::Result<&'static [u8]>>>,
        more: Condvar,
    }

    impl Script {
        const fn new() -> Script {
            Script { answers: StdMutex::new(Vec::new()), more: Condvar::new() }
        }

        fn give(&self, answer: io::Result<&'static [u8]>) {
            self.answers.lock().unwrap().push(answer);
            self.more.notify_one();
        }

        fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
            let answers = self.answers.lock().unwrap();
            let mut answers = self.more.wait_while(answers, |answers| answers.is_empty()).unwrap();
            let bytes = answers.remove(0)?;
            buf[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        }
    }

    macro_rules! input {
        ($input:ident, $script:ident) => {
            static $script: Script = Script::new();
            static $input: Input = Input::new(|buf| $script.read(buf));
        };
    }

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Waits until the read in progress has ended.
    fn settle(input: &'static Input) {
        let begin = Instant::now();
        while input.state.lock().reading {
            assert!(begin.elapsed() < Duration::from_secs(180), "the blocking read does not end");
            std::thread::yield_now();
        }
    }

    fn read_line(input: &'static Input) -> io::Result<String> {
        let mut line = String::new();
        block_on(input.read_line(&mut line)).map(|_| line)
    }

    #[test]
    fn next_read_gets_the_input_of_a_dropped_read() {
        input!(INPUT, SCRIPT);
        let mut line = String::from("> ");
        assert!(poll_once(INPUT.read_line(&mut line)).is_pending());
        assert_eq!(line, "> ");
        SCRIPT.give(Ok(b"one\ntw"));
        settle(&INPUT);
        assert_eq!(read_line(&INPUT).unwrap(), "one\n");
        // Half a line is buffered. Dropping futures does not remove it.
        for _ in 0..3 {
            assert!(poll_once(INPUT.read_line(&mut line)).is_pending());
        }
        SCRIPT.give(Ok(b"o\n"));
        assert_eq!(read_line(&INPUT).unwrap(), "two\n");
    }

    #[test]
    fn byte_reads_leave_the_rest_buffered() {
        input!(INPUT, SCRIPT);
        SCRIPT.give(Ok(b"abc\ndef"));
        let mut buf = [0; 2];
        let read = |buf: &mut [u8]| block_on(poll_fn(|cx| INPUT.poll_read(cx, buf)));
        assert_eq!(read(&mut []).unwrap(), 0);
        assert_eq!(read(&mut buf).unwrap(), 2);
        assert_eq!(&buf, b"ab");
        assert_eq!(read_line(&INPUT).unwrap(), "c\n");
        assert_eq!(read(&mut buf).unwrap(), 2);
        assert_eq!(&buf, b"de");
        SCRIPT.give(Ok(b""));
        assert_eq!(read_line(&INPUT).unwrap(), "f", "end of input ends a line");
        SCRIPT.give(Ok(b""));
        assert_eq!(read(&mut buf).unwrap(), 0);
        SCRIPT.give(Ok(b"on"));
        assert_eq!(read(&mut buf).unwrap(), 2, "input continues after its end, as on a terminal");
    }

    #[test]
    fn errors_are_reported_once_and_lose_no_input() {
        input!(INPUT, SCRIPT);
        SCRIPT.give(Ok(b"ha"));
        SCRIPT.give(Err(io::ErrorKind::Interrupted.into()));
        SCRIPT.give(Err(io::Error::from_raw_os_error(libc::EIO)));
        assert_eq!(read_line(&INPUT).unwrap_err().raw_os_error(), Some(libc::EIO));
        SCRIPT.give(Ok(b"lf\n\xff\nok\n"));
        assert_eq!(read_line(&INPUT).unwrap(), "half\n");
        assert_eq!(read_line(&INPUT).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_line(&INPUT).unwrap(), "ok\n");
    }

    #[test]
    fn each_waiter_gets_one_line() {
        input!(INPUT, SCRIPT);
        let readers: Vec<_> = (0..4).map(|_| std::thread::spawn(|| read_line(&INPUT).unwrap())).collect();
        for bytes in [&b"a"[..], b"a\nbb\n", b"cc", b"\ndd\n"] {
            SCRIPT.give(Ok(bytes));
        }
        let mut lines: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        lines.sort();
        assert_eq!(lines, ["aa\n", "bb\n", "cc\n", "dd\n"]);
        assert!(INPUT.state.lock().waiters.is_empty());
    }

    #[test]
    fn read_that_never_runs_is_an_error_once() {
        input!(INPUT, SCRIPT);
        INPUT.state.lock().reading = true;
        drop(Reading { input: &INPUT, result: None });
        assert_eq!(read_line(&INPUT).unwrap_err().to_string(), INCOMPLETE);
        SCRIPT.give(Ok(b"ok\n"));
        assert_eq!(read_line(&INPUT).unwrap(), "ok\n");
    }

    #[test]
    fn read_that_panics_is_an_error() {
        static INPUT: Input = Input::new(|_| panic!("intended"));
        assert_eq!(read_line(&INPUT).unwrap_err().to_string(), INCOMPLETE);
    }

    #[test]
    fn long_line_is_whole_and_its_memory_is_freed() {
        input!(INPUT, SCRIPT);
        static LONG: [u8; CHUNK_BYTES] = [b'x'; CHUNK_BYTES];
        let chunks = 64;
        for _ in 0..chunks {
            SCRIPT.give(Ok(&LONG));
        }
        SCRIPT.give(Ok(b"\nnext\n"));
        assert_eq!(read_line(&INPUT).unwrap().len(), chunks * CHUNK_BYTES + 1);
        assert_eq!(read_line(&INPUT).unwrap(), "next\n");
        assert!(INPUT.state.lock().buffer.capacity() <= 8 * CHUNK_BYTES, "the memory of a long line is freed");
    }
}
