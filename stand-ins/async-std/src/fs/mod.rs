//! Files and directories. System calls run on netpoll's threads for blocking calls, so they do not
//! block other tasks. There are two exceptions. lseek(2) runs on the calling thread. Dropping a
//! [`File`], or converting it to a descriptor, blocks the thread while earlier calls run.
//!
//! Dropping a future does not stop a call that has begun. Most errors have async-std's texts, which
//! name the path. The source of such an error is the OS error. A path with a NUL byte causes an
//! `InvalidInput` error.

mod dir;
mod file;
mod open_options;

pub use std::fs::{FileType, Metadata, Permissions};

use crate::error::with_context;
use crate::io;
use crate::path::{Path, PathBuf};
use crate::task::spawn_blocking;

pub use dir::{DirBuilder, DirEntry, ReadDir, read_dir};
pub use file::File;
pub use open_options::OpenOptions;

/// Runs `call` with `path` on a thread for blocking calls. The text of an error is "could not",
/// followed by `what` and the path.
async fn at<T, F>(path: PathBuf, what: &'static str, call: F) -> io::Result<T>
where
    F: FnOnce(&std::path::Path) -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    spawn_blocking(move || with_context(call(path.as_std()), || format!("could not {what} `{}`", path.display()))).await
}

/// Runs `call` with both paths on a thread for blocking calls. The text of an error is "could not",
/// followed by `what`, `from`, "to" and `to`.
async fn between<T, F>(from: PathBuf, to: PathBuf, what: &'static str, call: F) -> io::Result<T>
where
    F: FnOnce(&std::path::Path, &std::path::Path) -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    spawn_blocking(move || {
        let result = call(from.as_std(), to.as_std());
        with_context(result, || format!("could not {what} `{}` to `{}`", from.display(), to.display()))
    })
    .await
}

/// Returns the absolute path with all symbolic links resolved: realpath(3).
///
/// # Errors
/// Returns the OS error, such as `NotFound` if a component of the path does not exist.
pub async fn canonicalize<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    let path = path.as_ref().to_owned();
    at(path, "canonicalize", |path| std::fs::canonicalize(path)).await.map(PathBuf::from)
}

/// Copies the contents and permissions of a file and returns the number of bytes copied.
///
/// # Errors
/// Returns the OS error, or `InvalidInput` if `from` is not a regular file. Some of the contents
/// may have been copied.
pub async fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    between(from, to, "copy", |from, to| std::fs::copy(from, to)).await
}

/// Creates a directory: mkdir(2).
///
/// # Errors
/// Returns the OS error, such as `AlreadyExists`, or `NotFound` if the parent does not exist.
pub async fn create_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    at(path, "create directory", |path| std::fs::create_dir(path)).await
}

/// Creates a directory and all missing parents.
///
/// # Errors
/// Returns the OS error.
pub async fn create_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    at(path, "create directory path", |path| std::fs::create_dir_all(path)).await
}

/// Creates `to` as a hard link to the file `from`: link(2).
///
/// # Errors
/// Returns the OS error.
pub async fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    between(from, to, "create a hard link from", |from, to| std::fs::hard_link(from, to)).await
}

/// Returns the metadata of a file: stat(2).
///
/// # Errors
/// Returns the OS error.
pub async fn metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    let path = path.as_ref().to_owned();
    spawn_blocking(move || std::fs::metadata(path)).await
}

/// Reads a whole file into a vector.
///
/// # Errors
/// Returns the OS error.
pub async fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    let path = path.as_ref().to_owned();
    at(path, "read file", |path| std::fs::read(path)).await
}

/// Returns the target of a symbolic link: readlink(2).
///
/// # Errors
/// Returns the OS error, such as `InvalidInput` if the file is not a symbolic link.
pub async fn read_link<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    let path = path.as_ref().to_owned();
    at(path, "read link", |path| std::fs::read_link(path)).await.map(PathBuf::from)
}

/// Reads a whole UTF-8 file into a string.
///
/// # Errors
/// Returns the OS error, or `InvalidData` if the file is not UTF-8.
pub async fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    let path = path.as_ref().to_owned();
    at(path, "read file", |path| std::fs::read_to_string(path)).await
}

/// Removes an empty directory: rmdir(2).
///
/// # Errors
/// Returns the OS error.
pub async fn remove_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    at(path, "remove directory", |path| std::fs::remove_dir(path)).await
}

/// Removes a directory and all of its contents.
///
/// # Errors
/// Returns the OS error. Some of the contents may have been removed.
pub async fn remove_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    at(path, "remove directory", |path| std::fs::remove_dir_all(path)).await
}

/// Removes a file: unlink(2).
///
/// # Errors
/// Returns the OS error.
pub async fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    at(path, "remove file", |path| std::fs::remove_file(path)).await
}

/// Renames a file or directory: rename(2). Replaces a file or an empty directory that has the new
/// name.
///
/// # Errors
/// Returns the OS error.
pub async fn rename<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    between(from, to, "rename", |from, to| std::fs::rename(from, to)).await
}

/// Changes the permissions of a file: chmod(2).
///
/// # Errors
/// Returns the OS error.
pub async fn set_permissions<P: AsRef<Path>>(path: P, perm: Permissions) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    spawn_blocking(move || std::fs::set_permissions(path, perm)).await
}

/// Returns the metadata of a file, without following a symbolic link: lstat(2).
///
/// # Errors
/// Returns the OS error.
pub async fn symlink_metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    let path = path.as_ref().to_owned();
    spawn_blocking(move || std::fs::symlink_metadata(path)).await
}

/// Writes `contents` to a file. Replaces the previous contents, or creates the file if it does not
/// exist.
///
/// # Errors
/// Returns the OS error. Some of the contents may have been written.
pub async fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    let contents = contents.as_ref().to_owned();
    at(path, "write to file", move |path| std::fs::write(path, contents)).await
}
