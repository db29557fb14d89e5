//! Controls a server by its standard input, without an additional thread.
//!
//! In a process with a second thread, each of glibc's functions that are cancellation points
//! (pthreads(7)) takes 40 instructions more, which would distort the figures of the bare loop. So
//! standard input is set to raise SIGIO (fcntl(2), `O_ASYNC`) and not to block, and the signal
//! handler reads it. For each command, which is any byte except a newline, the handler writes a
//! line with the process's usage to standard output. At the end of the input, it writes such a line
//! and ends the process.
//!
//! The handler calls read, write, open, close and _exit, which signal-safety(7) allows, and
//! getrusage, which in glibc is only a system call. It formats the line on the stack.

use std::fmt::Write;
use std::io;

/// Installs the signal handler, and sets standard input to raise SIGIO and not to block.
///
/// # Errors
/// Returns the errors of sigaction(2), fcntl(2) and raise(3).
pub fn listen() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = on_input;
    // SAFETY: all bits zero is a valid sigaction without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is valid for the call, and the handler makes only async-signal-safe calls.
    checked(unsafe { libc::sigaction(libc::SIGIO, &action, std::ptr::null_mut()) })?;
    // SAFETY: the call takes no argument and cannot fail.
    let own = unsafe { libc::getpid() };
    // SAFETY: the arguments are numbers.
    checked(unsafe { libc::fcntl(0, libc::F_SETOWN, own) })?;
    // SAFETY: the arguments are numbers.
    checked(unsafe { libc::fcntl(0, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK) })?;
    // Input that arrived earlier has raised no signal.
    // SAFETY: the call raises a signal that now has a handler.
    checked(unsafe { libc::raise(libc::SIGIO) })
}

/// Converts a return value of −1 to the error in the calling thread's errno.
fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Handles SIGIO: reads all available input.
extern "C" fn on_input(_: libc::c_int) {
    // The interrupted code may be about to read errno.
    // SAFETY: the call returns the address of this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the address is valid, and only this thread accesses it.
    let before = unsafe { *errno };
    let mut byte = 0u8;
    loop {
        // SAFETY: the kernel writes at most one byte to a valid place.
        match unsafe { libc::read(0, (&raw mut byte).cast(), 1) } {
            1 if byte == b'\n' => {}
            1 => report(),
            0 => {
                report();
                // SAFETY: the call takes a number and ends the process.
                unsafe { libc::_exit(0) }
            }
            _ => break,
        }
    }
    // SAFETY: the address is valid, and only this thread accesses it.
    unsafe { *errno = before };
}

/// A line on the stack. Text beyond its capacity is discarded.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let count = text.len().min(self.bytes.len() - self.length);
        self.bytes[self.length..self.length + count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

/// Writes a line with the process's usage to standard output.
fn report() {
    let Ok(usage) = crate::sys::own_usage() else { return };
    let mut line = Line { bytes: [0; 256], length: 0 };
    // Writing to a `Line` never fails.
    let _ = writeln!(
        line,
        "usage user_us={} system_us={} voluntary={} involuntary={} rss_anon_kib={}",
        usage.user_us,
        usage.system_us,
        usage.voluntary,
        usage.involuntary,
        rss_anon_kib()
    );
    // SAFETY: the kernel reads `length` bytes of the line. An error cannot be reported.
    unsafe { libc::write(1, line.bytes.as_ptr().cast(), line.length) };
}

/// Returns the resident anonymous memory of this process in KiB (`RssAnon` of /proc/self/status),
/// or 0 if it cannot be read.
fn rss_anon_kib() -> u64 {
    let mut text = [0u8; 4096];
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    // SAFETY: the kernel writes at most `text.len()` bytes into the array, or reports a bad
    // descriptor.
    let count = unsafe { libc::read(fd, text.as_mut_ptr().cast(), text.len()) };
    crate::sys::close(fd);
    let text = &text[..usize::try_from(count).unwrap_or(0)];
    let name = b"RssAnon:";
    let Some(place) = text.windows(name.len()).position(|window| window == name) else { return 0 };
    let digits = text[place + name.len()..].iter().skip_while(|byte| !byte.is_ascii_digit());
    digits.take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}
