//! Items for specific operating systems. Only Unix has such items here.

pub mod unix {
    //! Items for Unix: child processes, files, descriptors and sockets.

    #[cfg(feature = "unstable")]
    pub use async_process::unix as process;

    pub mod fs {
        //! Symbolic links, and extension traits for Unix-specific options and properties of files
        //! and directories.

        use crate::io;
        use crate::path::Path;
        use crate::task::spawn_blocking;

        pub use std::os::unix::fs::{DirBuilderExt, DirEntryExt, OpenOptionsExt};

        /// Creates `dst` as a symbolic link to `src`: symlink(2).
        ///
        /// # Errors
        /// Returns the OS error, such as `AlreadyExists`.
        pub async fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(src: P, dst: Q) -> io::Result<()> {
            let (src, dst) = (src.as_ref().to_owned(), dst.as_ref().to_owned());
            spawn_blocking(move || std::os::unix::fs::symlink(src, dst)).await
        }
    }

    pub mod io {
        //! Types and traits for file descriptors.

        pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
    }

    pub mod net {
        //! Unix sockets: netpoll's types under async-std's names.

        pub use netpoll::os::unix::net::{Incoming, SocketAddr, UnixDatagram, UnixListener, UnixStream};
    }
}
