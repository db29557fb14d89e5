//! Watches a directory and prints its events.
//!
//! ```text
//! cargo run --release --example inotify                 # a directory of its own, in which it makes things happen; ends by itself
//! cargo run --release --example inotify -- /tmp         # until Ctrl-C
//! cargo run --release --example inotify -- /tmp 10      # ten events
//! ```
//!
//! Shows `io::AsyncFd`: waiting on any descriptor that epoll accepts, with a deadline, as on a
//! socket.

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
