//! `io::AsyncFd` over descriptors that only Linux has (an eventfd, a timerfd, inotify), a terminal
//! that is opened as only Linux permits (TIOCGPTPEER), and a device that epoll rejects.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use common::by_hand::woken_by;
use common::*;
use netpoll::io::{AsyncFd, NotPollable, ReadExt, WriteExt};
use rustix::event::EventfdFlags;

#[test]
fn eventfd_wakes_waiters() {
    run(async {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let event = AsyncFd::new(File::from(fd)).unwrap();
        let mut count = [0; 8];
        let read = event.read_with(|mut fd| fd.read(&mut count));
        let write = async || assert_eq!(event.write_with(|mut fd| fd.write(&3u64.to_ne_bytes())).await.unwrap(), 8);
        woken_by(read, write).await.unwrap();
        assert_eq!(u64::from_ne_bytes(count), 3);
        // This write raises the counter to its maximum, so the next write waits for a read.
        event.write_with(|mut fd| fd.write(&(u64::MAX - 1).to_ne_bytes())).await.unwrap();
        let mut write = event.write_with(|mut fd| fd.write(&1u64.to_ne_bytes()));
        assert!(poll_once(&mut write).await.is_pending());
        event.read_with(|mut fd| fd.read(&mut count)).await.unwrap();
        assert_eq!(write.await.unwrap(), 8);
    });
}

#[test]
fn timerfd_fires_repeatedly() {
    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
    run(async {
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).unwrap();
        let every = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let spec = Itimerspec { it_interval: every, it_value: every };
        let (start, mut fired) = (Instant::now(), 0);
        rustix::time::timerfd_settime(&fd, TimerfdTimerFlags::empty(), &spec).unwrap();
        let timer = AsyncFd::new(File::from(fd)).unwrap();
        while fired < 5 {
            let mut count = [0; 8];
            assert_eq!((&timer).read(&mut count).await.unwrap(), 8);
            fired += u64::from_ne_bytes(count);
        }
        assert!(start.elapsed() >= Duration::from_millis(9));
    });
}

#[test]
fn inotify_reports_new_file() {
    use rustix::fs::inotify;
    run(async {
        let folder = Folder::new();
        let watch = AsyncFd::new(inotify::init(inotify::CreateFlags::CLOEXEC).unwrap()).unwrap();
        inotify::add_watch(&watch, folder.path(), inotify::WatchFlags::CREATE).unwrap();
        let mut buf = [MaybeUninit::uninit(); 1024];
        let mut read = watch.read_with(|fd| {
            let mut reader = inotify::Reader::new(fd, &mut buf);
            let event = reader.next()?;
            Ok(event.file_name().map(|name| name.to_string_lossy().into_owned()))
        });
        assert!(poll_once(&mut read).await.is_pending());
        std::fs::write(folder.join("new"), "").unwrap();
        assert_eq!(read.await.unwrap().as_deref(), Some("new"));
    });
}

#[test]
fn terminal_transfers_data_and_hangs_up() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    run(async {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let opened = openpt(flags).and_then(|pty| {
            grantpt(&pty)?;
            unlockpt(&pty)?;
            let peer = ioctl_tiocgptpeer(&pty, flags)?;
            Ok((pty, peer))
        });
        let (pty, terminal) = match opened {
            Ok(pair) => pair,
            Err(error) => return println!("skipped: no pseudo terminal here ({error})"),
        };
        let pty = AsyncFd::new(File::from(pty)).unwrap();
        let terminal = AsyncFd::new(File::from(terminal)).unwrap();
        let mut buf = [0; 64];
        let mut reader = &terminal;
        let mut read = reader.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending());
        (&pty).write_all(b"typed\n").await.unwrap();
        assert_eq!(read.await.unwrap(), 6);
        assert_eq!(&buf[..6], b"typed\n");
        // The pty returns the terminal's echo of the input, then EIO, because the terminal is
        // closed.
        drop(terminal);
        let end = loop {
            match (&pty).read(&mut buf).await {
                Ok(count) => assert_ne!(count, 0),
                Err(error) => break error,
            }
        };
        assert_eq!(end.raw_os_error(), Some(libc::EIO));
    });
}

/// epoll rejects /dev/null, whereas poll(2) always reports it as ready.
#[test]
fn device_unsupported_by_epoll_is_rejected() {
    let file = File::open("/dev/null").unwrap();
    let error = AsyncFd::new(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.get_ref().unwrap().is::<NotPollable>());
    let text = error.to_string();
    assert!(text.contains("character device without poll") && text.contains("spawn_blocking"), "{text}");
}
