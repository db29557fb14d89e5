//! [`IoSafe`]: the trait of the handles for which futures-io's traits are implemented.

use std::io::{self, Read, Write};

/// Types whose implementations of `Read` and `Write` neither close nor replace the descriptor.
///
/// # Safety
/// The implementations of `std::io::Read` and `std::io::Write` must not close the descriptor or
/// replace it with another one.
#[allow(unsafe_code)]
pub unsafe trait IoSafe {}

macro_rules! io_safe {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        // SAFETY: std's types read from and write to the descriptor that they were created with,
        // and wrappers forward the calls. A `&T` cannot be used to close or replace the descriptor
        // that `AsFd` has returned for the `T`.
        #[allow(unsafe_code)]
        unsafe impl<$($generics)*> IoSafe for $type {}
    )*};
}

io_safe! {
    [T: ?Sized] &T;
    [T: IoSafe + ?Sized] &mut T;
    [T: IoSafe + ?Sized] Box<T>;
    [T: IoSafe + Clone] std::borrow::Cow<'_, T>;
    [] std::fs::File;
    [] io::Stderr;
    [] io::Stdin;
    [] io::Stdout;
    [] io::StderrLock<'_>;
    [] io::StdinLock<'_>;
    [] io::StdoutLock<'_>;
    [] io::PipeReader;
    [] io::PipeWriter;
    [] std::net::TcpStream;
    [] std::os::unix::net::UnixStream;
    [] std::process::ChildStdin;
    [] std::process::ChildStdout;
    [] std::process::ChildStderr;
    [T: IoSafe + Read] io::BufReader<T>;
    [T: IoSafe + Write] io::BufWriter<T>;
    [T: IoSafe + Write] io::LineWriter<T>;
}
