//! [`IoSafe`]: handles for which futures-io's traits are implemented.

use std::io::{self, Read, Write};

/// Types whose `Read` and `Write` neither close nor replace the descriptor.
///
/// # Safety
/// `std::io::Read` and `Write` of the type must not close its descriptor or replace it with another one.
#[allow(unsafe_code)]
pub unsafe trait IoSafe {}

macro_rules! io_safe {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        // SAFETY: reading and writing call read(2) and write(2) on the descriptor that the value was created with; wrappers forward the
        // calls.
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
