//! [`File`]: an open file. Reads and writes run on the threads for blocking calls.
//!
//! # States
//! All clones of a file share a [`Shared`]. At most one call (a read, a write or `set_len`) is
//! queued or running:
//!
//! ```text
//! Idle ──queue──▶ Queued ──first thread to take it──▶ Running ──▶ Idle, all waiters woken
//! ```
//!
//! A thread of the pool for blocking calls runs the queued call. Dropping a `File` waits for writes
//! and `set_len`, and may run the queued call on the dropping thread, so the drop does not depend
//! on a free thread of the pool. If the pool drops the closure of a call without running the
//! closure, the drop of the closure runs the call.
//!
//! A read puts bytes into `buffer`, and the next `poll_read` calls of any clone return them. Until
//! then the kernel's offset is ahead of the position of the `File` by the number of unread bytes. A
//! write, a seek, `set_len` or a conversion to a descriptor moves the offset back to the position.
//! A write copies the bytes into `buffer` and returns. If writing them to the file fails, the next
//! write, flush, close, seek, `set_len` or sync returns the error.
//!
//! # Cancellation
//! Dropping the future of a read loses no data. The bytes that were read from the file stay in
//! `buffer` for the next read. If the file cannot seek, a write, a seek or `set_len` before that
//! read discards the bytes.

use std::fs;
use std::future::poll_fn;
use std::io::{Read as _, Seek as _, Write as _};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::thread;
use std::time::Duration;

use super::{Metadata, Permissions, at};
use crate::io::{self, Read, Seek, SeekFrom, Write};
use crate::path::Path;
use crate::task::spawn_blocking;

/// The maximum number of bytes per queued call. A larger buffer takes several calls.
const CALL_MAX: usize = 1 << 20;

/// The pause of a conversion before the next attempt to duplicate a descriptor, because the kernel
/// has no event for a free descriptor.
const RETRY: Duration = Duration::from_millis(1);

/// An open file. Clones share the position.
///
/// Reads and writes run on netpoll's threads for blocking calls. A write returns when its bytes are
/// buffered. [`flush`] waits until they have been passed to write(2). If write(2) fails, the next
/// write, flush, close, seek, `set_len` or sync returns the error. Dropping a `File` blocks the
/// thread until writes and `set_len` have ended. The drop or conversion of the last clone discards
/// an error.
///
/// A conversion to a descriptor blocks the thread in the same way and, unless the file is a pipe or
/// another file without an offset, until reads have ended too. If a clone or a call in progress
/// still uses the file, the descriptor is a duplicate. Then the conversion also blocks while the
/// process has no free descriptor.
///
/// [`flush`]: crate::io::prelude::WriteExt::flush
#[derive(Clone)]
pub struct File {
    shared: Arc<Shared>,
}

/// The state that all clones of a [`File`] share.
struct Shared {
    file: fs::File,
    state: Mutex<State>,
    /// Signalled when a call completes.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    call: Call,
    /// After a read, the bytes that were read. While a write is queued, the bytes to write. Empty
    /// while a call is running and while `set_len` is queued.
    buffer: Vec<u8>,
    /// The number of bytes at the start of `buffer` that `poll_read` has already returned.
    taken: usize,
    /// The result of the last read, until a `poll_read` takes it, or a write, a seek, `set_len` or
    /// a conversion discards it. If the read succeeded, the result is the size of the file before
    /// the read.
    read: Option<io::Result<u64>>,
    /// The error of the last write, until an operation returns it.
    write_error: Option<io::Error>,
    /// The place for the result of a queued `set_len`.
    resized: Option<Arc<Resized>>,
    /// The wakers of the tasks that wait for the end of a call.
    waiting: Vec<Waker>,
}

/// The result of a `set_len`, until the future of the `set_len` takes it.
type Resized = Mutex<Option<io::Result<()>>>;

/// The state of the call of a file.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Call {
    #[default]
    Idle,
    Queued(Kind),
    Running(Kind),
}

/// The kind of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A read of at most the given number of bytes.
    Read(usize),
    Write,
    /// A `set_len` with the given size in bytes.
    Resize(u64),
}

impl State {
    fn unread(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Discards the result of the last read.
    fn discard(&mut self) {
        self.buffer.clear();
        self.taken = 0;
        self.read = None;
    }

    /// Returns whether a call that changes the file is queued or running.
    fn is_writing(&self) -> bool {
        matches!(self.call, Call::Queued(Kind::Write | Kind::Resize(_)) | Call::Running(Kind::Write | Kind::Resize(_)))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the locked state if `busy` returns false for it. Otherwise, returns `Pending` and
    /// wakes the task when a call completes.
    fn poll_until_not(&self, cx: &mut Context<'_>, busy: fn(&State) -> bool) -> Poll<MutexGuard<'_, State>> {
        let state = self.lock();
        if !busy(&state) {
            return Poll::Ready(state);
        }
        drop(state);
        // The waker is cloned and dropped outside the lock, because both may run foreign code.
        let mut waker = Some(cx.waker().clone());
        let mut state = self.lock();
        if busy(&state) {
            if !state.waiting.iter().any(|other| other.will_wake(cx.waker())) {
                state.waiting.extend(waker.take());
            }
            drop(state);
            return Poll::Pending;
        }
        drop(state);
        drop(waker);
        // The state changed before the waker was registered, so the task must be polled again.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<MutexGuard<'_, State>> {
        self.poll_until_not(cx, |state| state.call != Call::Idle)
    }

    /// Waits until no call is queued or running. Then returns the error of an earlier write, if
    /// there is one. Otherwise, moves the kernel's offset back by the number of unread bytes,
    /// discards these bytes, and returns the locked state.
    fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<io::Result<MutexGuard<'_, State>>> {
        let mut state = ready!(self.poll_idle(cx));
        if let Some(error) = state.write_error.take() {
            return Poll::Ready(Err(error));
        }
        // The error is ignored, because files without an offset, such as pipes, cannot seek.
        let _ = self.move_back(&state);
        state.discard();
        Poll::Ready(Ok(state))
    }

    /// Moves the kernel's offset back by the number of unread bytes.
    fn move_back(&self, state: &State) -> io::Result<()> {
        match state.unread().len() {
            0 => Ok(()),
            unread => (&self.file).seek(SeekFrom::Current(-(unread as i64))).map(drop),
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = ready!(self.poll_until_not(cx, State::is_writing));
        Poll::Ready(state.write_error.take().map_or(Ok(()), Err))
    }

    /// Runs the queued call on this thread, unless another thread has taken it.
    fn run_queued(&self) {
        let mut state = self.lock();
        let Call::Queued(kind) = state.call else { return };
        state.call = Call::Running(kind);
        let mut buffer = mem::take(&mut state.buffer);
        let resized = state.resized.take();
        drop(state);
        let result = match kind {
            Kind::Read(len) => {
                let size = size(&self.file);
                buffer.clear();
                buffer.resize(len, 0);
                let count = read(&self.file, &mut buffer);
                buffer.truncate(*count.as_ref().unwrap_or(&0));
                count.map(|_| size)
            }
            Kind::Write => {
                let result = (&self.file).write_all(&buffer);
                buffer.clear();
                result.map(|()| 0)
            }
            Kind::Resize(size) => self.file.set_len(size).map(|()| 0),
        };
        // The result is stored before the call ends, because the end of the call wakes the future
        // that takes the result.
        let result = match resized {
            Some(resized) => {
                *resized.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.map(drop));
                Ok(0)
            }
            None => result,
        };
        let mut state = self.lock();
        (state.call, state.buffer, state.taken) = (Call::Idle, buffer, 0);
        match kind {
            Kind::Read(_) => state.read = Some(result),
            Kind::Write => state.write_error = result.err(),
            Kind::Resize(_) => {}
        }
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        self.ended.notify_all();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Blocks this thread until no write and no `set_len` is queued or running.
    fn wait_for_writes(&self) {
        if matches!(self.lock().call, Call::Queued(Kind::Write | Kind::Resize(_))) {
            self.run_queued();
        }
        let state = self.lock();
        let ended = self.ended.wait_while(state, |state| state.is_writing());
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    /// Blocks this thread until no call is queued or running, and moves the kernel's offset back to
    /// the position. For a file without an offset, such as a pipe, waits only for writes and
    /// `set_len`, because a read may wait for a peer. The bytes of such a read stay in `buffer` for
    /// the clones.
    fn settle(&self) {
        self.wait_for_writes();
        if (&self.file).stream_position().is_err() {
            return;
        }
        loop {
            self.run_queued();
            let state = self.lock();
            let ended = self.ended.wait_while(state, |state| matches!(state.call, Call::Running(_)));
            let mut state = ended.unwrap_or_else(PoisonError::into_inner);
            if state.call == Call::Idle {
                if self.move_back(&state).is_ok() {
                    state.discard();
                }
                return;
            }
        }
    }
}

fn read(mut file: &fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Returns the size of the file, or 0 if the system does not return the size. The size of a pipe or
/// another file without an end is always 0.
fn size(file: &fs::File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// A guard in the closure of a queued call. Dropping the guard runs the call, whether or not the
/// closure was run.
struct Runner(Arc<Shared>);

impl Drop for Runner {
    fn drop(&mut self) {
        self.0.run_queued();
    }
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// Returns the OS error.
    pub async fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        let path = path.as_ref().to_owned();
        at(path, "open", |path| fs::File::open(path)).await.map(File::from)
    }

    /// Opens a file for writing. Creates the file if it does not exist, and truncates it if it
    /// does.
    ///
    /// # Errors
    /// Returns the OS error.
    pub async fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        let path = path.as_ref().to_owned();
        spawn_blocking(move || fs::File::create(path)).await.map(File::from)
    }

    /// Waits until the file's contents and metadata are on disk: fsync(2).
    ///
    /// # Errors
    /// Returns the OS error, including that of an earlier write.
    pub async fn sync_all(&self) -> io::Result<()> {
        self.after_writes(fs::File::sync_all).await
    }

    /// Waits until the file's contents are on disk: fdatasync(2).
    ///
    /// # Errors
    /// Returns the OS error, including that of an earlier write.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.after_writes(fs::File::sync_data).await
    }

    /// Truncates the file to `size` bytes, or extends it with zeros: ftruncate(2).
    ///
    /// # Errors
    /// Returns the OS error, including that of an earlier write.
    pub async fn set_len(&self, size: u64) -> io::Result<()> {
        let resized = Arc::new(Resized::default());
        poll_fn(|cx| {
            let mut state = ready!(self.shared.poll_settled(cx))?;
            state.resized = Some(resized.clone());
            self.queue(state, Kind::Resize(size));
            Poll::Ready(io::Result::Ok(()))
        })
        .await?;
        poll_fn(|cx| {
            loop {
                if let Some(result) = resized.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    return Poll::Ready(result);
                }
                drop(ready!(self.shared.poll_idle(cx)));
            }
        })
        .await
    }

    /// Returns the metadata of the file: fstat(2).
    ///
    /// # Errors
    /// Returns the OS error.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        poll_fn(|cx| self.shared.poll_until_not(cx, State::is_writing).map(drop)).await;
        let shared = self.shared.clone();
        spawn_blocking(move || shared.file.metadata()).await
    }

    /// Changes the permissions of the file: fchmod(2).
    ///
    /// # Errors
    /// Returns the OS error.
    pub async fn set_permissions(&self, perm: Permissions) -> io::Result<()> {
        let shared = self.shared.clone();
        spawn_blocking(move || shared.file.set_permissions(perm)).await
    }

    async fn after_writes(&self, call: fn(&fs::File) -> io::Result<()>) -> io::Result<()> {
        poll_fn(|cx| self.shared.poll_flush(cx)).await?;
        let shared = self.shared.clone();
        spawn_blocking(move || call(&shared.file)).await
    }

    /// Queues a call. The state must be idle.
    fn queue(&self, mut state: MutexGuard<'_, State>, kind: Kind) {
        state.call = Call::Queued(kind);
        drop(state);
        let runner = Runner(self.shared.clone());
        drop(spawn_blocking(move || drop(runner)));
    }

    /// Moves the kernel's offset to the position and returns the std file, or a duplicate if a
    /// clone or a call in progress still uses the file.
    fn into_std(self) -> fs::File {
        let shared = self.shared.clone();
        drop(self);
        shared.settle();
        owned(shared, fs::File::try_clone)
    }
}

/// Returns the file, or a duplicate if `shared` has other owners. If the duplication fails, for
/// example because the process has no free descriptor, blocks this thread until it succeeds or
/// there are no other owners. The function returns no error, because the traits of the callers,
/// such as `From<File> for OwnedFd`, cannot return one.
fn owned(mut shared: Arc<Shared>, mut duplicate: impl FnMut(&fs::File) -> io::Result<fs::File>) -> fs::File {
    loop {
        shared = match Arc::try_unwrap(shared) {
            Ok(shared) => return shared.file,
            Err(shared) => shared,
        };
        match duplicate(&shared.file) {
            Ok(file) => return file,
            Err(_) => thread::sleep(RETRY),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.shared.wait_for_writes();
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shared.file.fmt(f)
    }
}

impl Read for &File {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut state = ready!(self.shared.poll_idle(cx));
            match state.read.take() {
                Some(Err(error)) => return Poll::Ready(Err(error)),
                // End of file. The next read makes another call, because the file may grow. If the
                // future of the read that found the end was dropped, the file may have grown since.
                Some(Ok(before)) if state.unread().is_empty() && size(&self.shared.file) <= before => {
                    return Poll::Ready(Ok(0));
                }
                _ => {}
            }
            let unread = state.unread();
            if !unread.is_empty() || buf.is_empty() {
                let count = unread.len().min(buf.len());
                buf[..count].copy_from_slice(&unread[..count]);
                state.taken += count;
                return Poll::Ready(Ok(count));
            }
            self.queue(state, Kind::Read(buf.len().min(CALL_MAX)));
        }
    }
}

impl Write for &File {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = ready!(self.shared.poll_settled(cx))?;
        let count = buf.len().min(CALL_MAX);
        if count > 0 {
            state.buffer.extend_from_slice(&buf[..count]);
            self.queue(state, Kind::Write);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_flush(cx)
    }
}

impl Seek for &File {
    fn poll_seek(self: Pin<&mut Self>, cx: &mut Context<'_>, pos: SeekFrom) -> Poll<io::Result<u64>> {
        let state = ready!(self.shared.poll_settled(cx))?;
        // lseek(2) on a local file does not wait for the disk.
        let position = (&self.shared.file).seek(pos);
        drop(state);
        Poll::Ready(position)
    }
}

impl Read for File {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }
}

impl Write for File {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_flush(cx)
    }
}

impl Seek for File {
    fn poll_seek(self: Pin<&mut Self>, cx: &mut Context<'_>, pos: SeekFrom) -> Poll<io::Result<u64>> {
        Pin::new(&mut &*self).poll_seek(cx, pos)
    }
}

impl From<fs::File> for File {
    fn from(file: fs::File) -> File {
        File { shared: Arc::new(Shared { file, state: Mutex::default(), ended: Condvar::new() }) }
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.file.as_raw_fd()
    }
}

impl FromRawFd for File {
    #[allow(unsafe_code)]
    unsafe fn from_raw_fd(fd: RawFd) -> File {
        // SAFETY: the caller owns the descriptor, as this function requires.
        unsafe { fs::File::from_raw_fd(fd) }.into()
    }
}

impl IntoRawFd for File {
    fn into_raw_fd(self) -> RawFd {
        self.into_std().into_raw_fd()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.file.as_fd()
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> File {
        fs::File::from(fd).into()
    }
}

impl From<File> for OwnedFd {
    fn from(file: File) -> OwnedFd {
        file.into_std().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_waits_for_a_free_descriptor_or_for_the_drop_of_the_clones() {
        const EMFILE: i32 = 24;
        let open = || File::from(fs::File::open("/dev/null").unwrap());
        let file = open();
        let mut attempts_left = 3;
        owned(file.shared.clone(), |file| {
            attempts_left -= 1;
            if attempts_left > 0 { Err(io::Error::from_raw_os_error(EMFILE)) } else { file.try_clone() }
        });
        assert_eq!(attempts_left, 0);
        let cloned = open();
        let mut clones = vec![cloned.clone()];
        let fd = cloned.as_raw_fd();
        let shared = cloned.shared.clone();
        drop(cloned);
        let last = owned(shared, |_| {
            clones.clear();
            Err(io::Error::from_raw_os_error(EMFILE))
        });
        assert_eq!(last.as_raw_fd(), fd);
    }
}
