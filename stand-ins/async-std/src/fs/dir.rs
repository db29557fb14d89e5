//! Creating and listing directories.

use std::ffi::OsString;
use std::future::Future;
use std::os::unix::fs::{DirBuilderExt, DirEntryExt};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, fs};

use super::{FileType, Metadata, at};
use crate::io;
use crate::path::{Path, PathBuf};
use crate::stream::Stream;
use crate::task::{JoinHandle, spawn_blocking};

/// Options for creating a directory.
#[derive(Debug, Default)]
pub struct DirBuilder {
    recursive: bool,
    mode: Option<u32>,
}

impl DirBuilder {
    /// Creates options for a single directory with the default mode.
    pub fn new() -> DirBuilder {
        DirBuilder::default()
    }

    /// Sets whether missing parent directories are created too. With true, a directory that already
    /// exists is not an error.
    pub fn recursive(&mut self, recursive: bool) -> &mut DirBuilder {
        self.recursive = recursive;
        self
    }

    /// Creates the directory with mkdir(2).
    ///
    /// # Errors
    /// Returns the OS error.
    pub fn create<P: AsRef<Path>>(&self, path: P) -> impl Future<Output = io::Result<()>> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(self.recursive);
        if let Some(mode) = self.mode {
            builder.mode(mode);
        }
        let path = path.as_ref().to_owned();
        async move { spawn_blocking(move || builder.create(path)).await }
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut DirBuilder {
        self.mode = Some(mode);
        self
    }
}

/// Returns a stream of the entries of a directory, in no particular order.
///
/// # Errors
/// Returns the OS error, such as `NotFound` or `NotADirectory`, if the directory cannot be opened.
/// The stream yields errors that occur while it reads the entries.
pub async fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    let path = path.as_ref().to_owned();
    let inner = at(path, "read directory", |path| fs::read_dir(path)).await?;
    Ok(ReadDir { idle: Some(inner), step: None })
}

/// The result of reading one entry: the iterator over the remaining entries, and the entry, or
/// `None` at the end of the directory.
type Step = (fs::ReadDir, Option<io::Result<fs::DirEntry>>);

/// The stream that [`read_dir`] returns.
#[derive(Debug)]
pub struct ReadDir {
    /// The iterator over the remaining entries, or `None` while `step` reads an entry from it.
    idle: Option<fs::ReadDir>,
    /// The call that reads the next entry, or `None` while no call is in progress.
    step: Option<JoinHandle<Step>>,
}

impl Stream for ReadDir {
    type Item = io::Result<DirEntry>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<DirEntry>>> {
        if let Some(mut rest) = self.idle.take() {
            self.step = Some(spawn_blocking(move || {
                let entry = rest.next();
                (rest, entry)
            }));
        }
        let Some(step) = &mut self.step else { return Poll::Ready(None) };
        let (rest, entry) = ready!(Pin::new(step).poll(cx));
        (self.idle, self.step) = (Some(rest), None);
        Poll::Ready(entry.map(|entry| entry.map(DirEntry::new)))
    }
}

/// An entry of a directory.
#[derive(Clone)]
pub struct DirEntry(Arc<fs::DirEntry>);

impl DirEntry {
    fn new(inner: fs::DirEntry) -> DirEntry {
        DirEntry(Arc::new(inner))
    }

    /// Returns the path that was passed to [`read_dir`], joined with the file name.
    pub fn path(&self) -> PathBuf {
        self.0.path().into()
    }

    /// Returns the file name, without the directory.
    pub fn file_name(&self) -> OsString {
        self.0.file_name()
    }

    /// Returns the metadata of the file, without following a symbolic link.
    ///
    /// # Errors
    /// Returns the OS error, such as `NotFound` if the file no longer exists.
    pub async fn metadata(&self) -> io::Result<Metadata> {
        let entry = self.0.clone();
        spawn_blocking(move || entry.metadata()).await
    }

    /// Returns the file type, without following a symbolic link.
    ///
    /// # Errors
    /// Returns the OS error of lstat(2). Most filesystems return the type together with the name.
    /// Then no system call is made and no error occurs.
    pub async fn file_type(&self) -> io::Result<FileType> {
        let entry = self.0.clone();
        spawn_blocking(move || entry.file_type()).await
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirEntry").field(&self.path()).finish()
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        self.0.ino()
    }
}
