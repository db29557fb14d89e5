//! [`SocketFile`]: the file of a listener, and when it is removed.
//!
//! # Rules
//! The first two rules are Go's.
//!
//! * A listener that bound a path removes the file once, when it is closed or dropped, before the
//!   descriptor is closed, unless `set_unlink_on_close(false)` forbids it.
//! * A listener that was opened elsewhere removes nothing, unless `set_unlink_on_close` requests
//!   it. A listener that has an abstract name never removes a file.
//! * If opening the listener fails after a successful bind(2), the file is removed.
//! * Nothing is removed after the close, even if `set_unlink_on_close` is called during the close,
//!   because the inode may then belong to another socket.
//! * A listener that is converted into another type is not closed and keeps its file.
//! * Only the file that was bound is removed, not another file that has since taken its name, such
//!   as a new server's. The file is identified by device and inode. No other file can have the same
//!   device and inode while the socket is open, because the socket holds the inode.
//! * A relative path is resolved against the working directory at the time of the bind or, if the
//!   listener was opened elsewhere, of the call of `set_unlink_on_close`.
//! * A forked child leaves the file to its parent.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{self, Path, PathBuf};

use crate::rt::fork;
use crate::sync::Mutex;

/// The file of a listener; see the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct SocketFile {
    /// The file that this crate bound; `None` if the listener was opened elsewhere or has an
    /// abstract name, or if the file was not found after the bind.
    bound: Option<Bound>,
    /// The file to remove when the listener is closed.
    removal: Mutex<Removal>,
}

/// What to remove when the listener is closed or dropped.
#[derive(Debug, Default)]
struct Removal {
    file: Option<Bound>,
    /// Whether the listener was closed, so that nothing is to be removed any more.
    is_over: bool,
}

/// A file, by path and identity.
#[derive(Clone, Debug)]
struct Bound {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Bound {
    fn find(path: &Path) -> io::Result<Bound> {
        // If the working directory is unknown, the relative path is used unchanged.
        let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let metadata = std::fs::symlink_metadata(&path)?;
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file at the listener's path is not a socket"));
        }
        Ok(Bound { path, device: metadata.dev(), inode: metadata.ino() })
    }

    fn remove(&self) {
        // Errors are ignored, because no caller could handle them, and a name that is already gone
        // needs no removal.
        if let Ok(Bound { device, inode, .. }) = Bound::find(&self.path)
            && (device, inode) == (self.device, self.inode)
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SocketFile {
    /// Records the file that bind(2) has just created at `path`.
    pub(super) fn bound(path: &Path) -> SocketFile {
        let bound = Bound::find(path).ok();
        let removal = Removal { file: bound.clone(), is_over: false };
        SocketFile { bound, removal: Mutex::new(removal) }
    }

    /// Makes a later close remove the file that this crate bound or, if this crate bound none, the
    /// socket that is now at `path`. Has no effect after [`remove`](SocketFile::remove).
    ///
    /// # Errors
    /// Returns the error of lstat(2), or `InvalidInput` if the file is not a socket.
    pub(super) fn unlink_on_close(&self, path: &Path) -> io::Result<()> {
        let file = self.bound.clone().map_or_else(|| Bound::find(path), Ok)?;
        let mut removal = self.removal.lock();
        if !removal.is_over {
            removal.file = Some(file);
        }
        Ok(())
    }

    /// Removes the file. Only the first call has an effect.
    pub(super) fn remove(&self) {
        let file = {
            let mut removal = self.removal.lock();
            removal.is_over = true;
            removal.file.take()
        };
        if let Some(file) = file
            && !fork::is_child()
        {
            file.remove();
        }
    }

    /// Makes a later close keep the file.
    pub(super) fn keep(&self) {
        self.removal.lock().file = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Regression test: `set_unlink_on_close` during a close stored the file again, and the drop
    /// removed the file of a new server that had got the same inode.
    #[test]
    fn nothing_is_removed_after_the_close() {
        let path = std::env::temp_dir().join(format!("netpoll-file-{}", std::process::id()));
        let other = path.with_extension("other");
        let _listener = UnixListener::bind(&path).unwrap();
        let file = SocketFile::bound(&path);
        std::fs::hard_link(&path, &other).unwrap();
        file.remove();
        assert!(!path.exists());
        // A file with the same identity takes the name.
        std::fs::rename(&other, &path).unwrap();
        file.unlink_on_close(&path).unwrap();
        drop(file);
        assert!(path.exists(), "removed after the close");
        std::fs::remove_file(&path).unwrap();
    }
}
