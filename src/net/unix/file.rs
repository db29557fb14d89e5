//! `SocketFile`: the name of a listener in the filesystem, and when it is removed.
//!
//! # Rules (Go's, and three more)
//! * A listener that bound a path removes the file when it is closed or dropped, before the descriptor goes, once. So does a bind that
//!   fails afterwards, in listen(2).
//! * One that came from elsewhere, or has an abstract name, leaves everything as it is; `set_unlink_on_close` decides otherwise.
//! * A listener that is converted into another type is not closed, and keeps its file.
//! * Only the file that was bound is removed: not another that has taken its name since, as a successor's may have. The bound file is
//!   known by device and inode, which no other file gets as long as the socket is open: the socket holds the inode.
//! * A relative path is that of the working directory at the time of the bind, wherever the process has gone since.
//! * A forked child leaves it to its parent.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{self, Path, PathBuf};

use crate::rt::fork;
use crate::sync::Mutex;

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct SocketFile {
    /// The file that was bound here; none if the listener came from elsewhere.
    bound: Option<Bound>,
    /// What is removed at the end.
    file: Mutex<Option<Bound>>,
}

/// A file by name and identity.
#[derive(Clone, Debug)]
struct Bound {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Bound {
    fn find(path: &Path) -> io::Result<Bound> {
        // Without a working directory there is none to leave either.
        let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let metadata = std::fs::symlink_metadata(&path)?;
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file at the listener's path is no socket"));
        }
        Ok(Bound { path, device: metadata.dev(), inode: metadata.ino() })
    }

    fn remove(&self) {
        // There is nobody to tell, and a name that is gone already is what was wanted.
        if let Ok(Bound { device, inode, .. }) = Bound::find(&self.path)
            && (device, inode) == (self.device, self.inode)
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl SocketFile {
    /// The file that was just bound to `path`.
    pub(super) fn bound(path: &Path) -> SocketFile {
        let bound = Bound::find(path).ok();
        SocketFile { file: Mutex::new(bound.clone()), bound }
    }

    /// Removes the file at the end that was bound here, or else the socket that has the name `path` now.
    ///
    /// # Errors
    /// Those of lstat(2); `InvalidInput` where something else has the name.
    pub(super) fn unlink_on_close(&self, path: &Path) -> io::Result<()> {
        let file = self.bound.clone().map_or_else(|| Bound::find(path), Ok)?;
        *self.file.lock() = Some(file);
        Ok(())
    }

    /// Removes it, the first time.
    pub(super) fn remove(&self) {
        let file = self.file.lock().take();
        if let Some(file) = file
            && !fork::is_child()
        {
            file.remove();
        }
    }

    /// It stays.
    pub(super) fn keep(&self) {
        *self.file.lock() = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}
