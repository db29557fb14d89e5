//! `SocketFile`: the name of a listener in the filesystem, and when it is removed.
//!
//! # Rules (Go's, and one more)
//! * A listener that bound a path removes the file when it is closed or dropped, before the descriptor goes, once.
//! * One that came from elsewhere, or has an abstract name, leaves everything as it is; `set_unlink_on_close` decides otherwise.
//! * What is converted into another type is not closed, and keeps its file.
//! * Only the file that was bound is removed: not another that has taken its name since, as a successor's may have.
//! * A forked child leaves it to its parent.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::rt::fork;
use crate::sync::Mutex;

/// See the module's header. `None`: there is nothing to remove.
#[derive(Debug, Default)]
pub(super) struct SocketFile {
    file: Mutex<Option<Bound>>,
}

/// A file by name and identity.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Bound {
    fn find(path: &Path) -> io::Result<Bound> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Bound { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
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
        SocketFile { file: Mutex::new(Bound::find(path).ok()) }
    }

    /// What has the name `path` now.
    ///
    /// # Errors
    /// Those of lstat(2).
    pub(super) fn set(&self, path: Option<&Path>) -> io::Result<()> {
        let file = path.map(Bound::find).transpose()?;
        *self.file.lock() = file;
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
