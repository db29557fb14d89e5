//! The implementation of the example `inotify` for Linux.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netpoll::io::AsyncFd;
use netpoll::{io, task};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

pub(crate) fn main() -> io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (dir, count) = (args.next().map(PathBuf::from), args.next());
    let count = count.and_then(|count| count.to_str()?.parse().ok()).unwrap_or(usize::MAX);
    task::block_on(async {
        match dir {
            Some(dir) => watch(&dir, count, None).await,
            None => demo().await,
        }
    })
}

/// Watches a temporary directory while a task creates, writes and removes a file in it.
async fn demo() -> io::Result<()> {
    let dir = std::env::temp_dir().join(format!("netpoll-inotify-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let file = dir.join("file");
    let busy = task::spawn(async move {
        task::sleep(Duration::from_millis(100)).await;
        std::fs::write(&file, "hello")?;
        task::sleep(Duration::from_millis(100)).await;
        std::fs::remove_file(&file)
    });
    let watched = watch(&dir, 4, Some(Instant::now() + Duration::from_secs(30))).await;
    let busy = busy.await;
    std::fs::remove_dir_all(&dir)?;
    watched.and(busy)
}

async fn watch(dir: &Path, mut count: usize, deadline: Option<Instant>) -> io::Result<()> {
    let inotify = AsyncFd::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)?;
    let events =
        WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::MOVE | WatchFlags::DELETE;
    inotify::add_watch(&inotify, dir, events)?;
    inotify.set_read_deadline(deadline)?;
    println!("watching {}", dir.display());
    let mut buf = [MaybeUninit::uninit(); 4096];
    while count > 0 {
        // A read(2) may return several events. `read_events` reads until no more events are
        // available.
        let events = inotify.read_with(|fd| read_events(fd, &mut buf)).await?;
        for (flags, name) in events.iter().take(count) {
            println!("{:?} {name}", flags);
        }
        count = count.saturating_sub(events.len());
    }
    Ok(())
}

fn read_events(fd: impl rustix::fd::AsFd, buf: &mut [MaybeUninit<u8>]) -> io::Result<Vec<(ReadFlags, String)>> {
    let mut reader = Reader::new(fd, buf);
    let mut events = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                events.push((event.events(), name.unwrap_or_default()));
            }
            Err(rustix::io::Errno::AGAIN) if !events.is_empty() => return Ok(events),
            Err(error) => return Err(error.into()),
        }
    }
}
