//! Watches a directory with inotify(7) and prints its events. Without arguments, it creates, writes
//! and removes a file in a temporary directory to cause events. Linux only.
//!
//! ```text
//! cargo run --release --example inotify               # a temporary directory
//! cargo run --release --example inotify -- /tmp       # until Ctrl-C
//! cargo run --release --example inotify -- /tmp 10    # ten events
//! ```
//!
//! The example shows `io::AsyncFd`, which waits on any descriptor that epoll(7) supports, and has
//! deadlines like a socket.

#[cfg(target_os = "linux")]
#[path = "linux/inotify.rs"]
mod inotify;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    inotify::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("inotify(7) exists only on Linux");
    std::process::exit(1);
}
