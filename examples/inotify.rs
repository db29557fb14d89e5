//! Watches a directory and prints its events.
//!
//! ```text
//! cargo run --release --example inotify                 # a temporary directory, in which the program creates events
//! cargo run --release --example inotify -- /tmp         # until Ctrl-C
//! cargo run --release --example inotify -- /tmp 10      # ten events
//! ```
//!
//! The example shows `io::AsyncFd`, which can wait on any descriptor that epoll accepts, with deadlines like those of
//! a socket.

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
