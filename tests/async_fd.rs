//! `io::AsyncFd` over pipes and a std socket: rejected descriptors, O_NONBLOCK, readiness,
//! deadlines, closes, dropped waits, errors and panics of closures, and values of an earlier
//! runtime.

mod common;

use std::fs::File;
use std::future::poll_fn;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::by_hand::{Wakes, woken_by};
use common::*;
use netpoll::io::{AsyncFd, NotPollable, ReadExt, WriteExt};
use netpoll::net::{is_closed, is_timeout};
use netpoll::{io, rt, task};

fn pipe() -> (AsyncFd<PipeReader>, AsyncFd<PipeWriter>) {
    let (reader, writer) = std::io::pipe().unwrap();
    (AsyncFd::new(reader).unwrap(), AsyncFd::new(writer).unwrap())
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK)
}

// ---- kinds ----

#[test]
fn pipes_work_through_traits() {
    run(async {
        let (reader, mut writer) = pipe();
        let data: Vec<u8> = (0..500_000u32).map(|at| at as u8).collect();
        let task = task::spawn({
            let data = data.clone();
            async move {
                writer.write_all(&data).await.unwrap();
                writer.flush().await.unwrap();
                // The traits' `close` flushes, and leaves the descriptor open.
                writer.close().await.unwrap();
                writer.write_all(b"!").await.unwrap();
            }
        });
        let mut back = Vec::new();
        (&reader).read_to_end(&mut back).await.unwrap();
        assert!(back.pop() == Some(b'!') && back == data);
        task.await;
    });
}

#[test]
fn std_socket_works_through_async_fd() {
    run(async {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (AsyncFd::new(one).unwrap(), AsyncFd::new(other).unwrap());
        (&one).write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        (&other).read_exact(&mut buf).await.unwrap();
        drop(one);
        assert_eq!((&other).read(&mut buf).await.unwrap(), 0);
    });
}

// ---- rejected descriptors ----

fn assert_not_pollable(path: &str, kind: &str) {
    let file = File::open(path).unwrap();
    let error = AsyncFd::new(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.get_ref().unwrap().is::<NotPollable>());
    let text = error.to_string();
    assert!(text.contains(kind) && text.contains("spawn_blocking"), "{text}");
    assert!(!is_nonblocking(&file), "O_NONBLOCK must not be set");
}

#[test]
fn regular_file_and_directory_are_rejected() {
    assert_not_pollable("/proc/self/exe", "regular file");
    assert_not_pollable("/", "directory");
}

#[test]
fn second_async_fd_of_a_descriptor_is_rejected() {
    run(async {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let first = AsyncFd::new(&reader).unwrap();
        assert_eq!(AsyncFd::new(&reader).unwrap_err().kind(), ErrorKind::AlreadyExists);
        writer.write_all(b"x").unwrap();
        assert_eq!(
            first.read_with(|fd| Read::read(&mut &**fd, &mut [0; 1])).await.unwrap(),
            1,
            "the first value is unaffected"
        );
        drop(first);
        let again = AsyncFd::new(&reader).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(again.read_with(|fd| Read::read(&mut &**fd, &mut [0; 1])).await.unwrap(), 1);
    });
}

#[test]
fn closed_descriptor_is_an_error() {
    struct Nothing;
    impl AsFd for Nothing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: the number is beyond every process's limit, so no descriptor has it, and
            // calls on it only return EBADF.
            unsafe { BorrowedFd::borrow_raw(i32::MAX - 1) }
        }
    }
    assert_eq!(AsyncFd::new(Nothing).err().unwrap().raw_os_error(), Some(libc::EBADF));
}

// ---- O_NONBLOCK and ownership ----

#[test]
fn nonblocking_flag_is_set_and_restored() {
    let (reader, writer) = std::io::pipe().unwrap();
    assert!(!is_nonblocking(&reader));
    let reader = AsyncFd::new(reader).unwrap();
    assert!(is_nonblocking(&reader));
    let number = reader.as_raw_fd();
    let reader = reader.into_inner();
    assert_eq!(reader.as_raw_fd(), number, "the same descriptor");
    assert!(!is_nonblocking(&reader));
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    assert!(is_nonblocking(AsyncFd::new(writer).unwrap().into_inner()), "O_NONBLOCK was set before");
}

#[test]
fn descriptor_is_closed_with_wrapped_value() {
    run(async {
        let (reader, writer) = std::io::pipe().unwrap();
        {
            let wrapped = AsyncFd::new(&writer).unwrap();
            wrapped.force_close().await.unwrap();
            assert!(is_closed(&wrapped.writable().await.unwrap_err()));
        }
        (&writer).write_all(b"still open").unwrap();
        drop(AsyncFd::new(writer).unwrap());
        let reader = AsyncFd::new(reader).unwrap();
        let mut text = String::new();
        (&reader).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "still open");
    });
}

// ---- readiness ----

#[test]
fn readable_guard_clears_readiness() {
    run(async {
        let (reader, writer) = pipe();
        let mut readable = reader.readable();
        assert!(poll_once(&mut readable).await.is_pending(), "no data has been written");
        writer.get_ref().write_all(b"xy").unwrap();
        let mut guard = readable.await.unwrap();
        let mut buf = [0; 1];
        for _ in 0..2 {
            assert_eq!(guard.try_io(|fd| fd.get_ref().read(&mut buf)).unwrap().unwrap(), 1);
            // After the first byte, the pipe still contains the second.
            assert!(poll_once(&mut reader.readable()).await.is_ready() || buf == *b"y");
        }
        assert!(guard.try_io(|fd| fd.get_ref().read(&mut buf)).is_err(), "the call would block");
        assert!(poll_once(&mut reader.readable()).await.is_pending());
        writer.get_ref().write_all(b"z").unwrap();
        let mut kept = reader.readable().await.unwrap();
        // After `retain_ready`, `clear_ready` has no effect.
        kept.retain_ready();
        kept.clear_ready();
        assert!(poll_once(&mut reader.readable()).await.is_ready());
    });
}

/// The event arrives after the guard was created.
#[test]
fn guard_does_not_clear_a_later_event() {
    child("guard_does_not_clear_a_later_event", || {
        task::block_on(async {
            let (reader, writer) = pipe();
            assert!(poll_once(&mut reader.readable()).await.is_pending());
            writer.get_ref().write_all(b"x").unwrap();
            let mut stale = reader.readable().await.unwrap();
            reader.get_ref().read_exact(&mut [0; 1]).unwrap();
            let before = rt::metrics().events;
            writer.get_ref().write_all(b"y").unwrap();
            becomes("the poller reports the byte", || rt::metrics().events > before).await;
            stale.clear_ready();
            assert!(poll_once(&mut reader.readable()).await.is_ready());
        });
    });
}

#[test]
fn hang_up_wakes_all_waiters() {
    run(async {
        let (reader, writer) = pipe();
        let reader = Arc::new(reader);
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let reader = reader.clone();
                task::spawn(async move {
                    match number % 3 {
                        0 => drop(reader.readable().await.unwrap()),
                        1 => drop(poll_fn(|cx| reader.poll_readable(cx)).await.unwrap()),
                        _ => assert_eq!((&*reader).read(&mut [0; 1]).await.unwrap(), 0),
                    }
                })
            })
            .collect();
        becomes("the tasks wait", || rt::metrics().waiters >= 50).await;
        drop(writer);
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn many_async_fd_readers_receive_every_byte() {
    run(async {
        let (reader, writer) = pipe();
        let reader = Arc::new(reader);
        let total = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (reader, total) = (reader.clone(), total.clone());
                task::spawn(async move {
                    let mut buf = [0; 10];
                    while let count @ 1.. = reader.read_with(|mut fd| fd.read(&mut buf)).await.unwrap() {
                        total.fetch_add(count, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            (&writer).write_all(&[1; 77]).await.unwrap();
        }
        drop(writer);
        for task in tasks {
            task.await;
        }
        assert_eq!(total.load(Ordering::Relaxed), 200 * 77);
    });
}

#[test]
fn writer_learns_that_reader_closed() {
    run(async {
        let (reader, writer) = pipe();
        let mut total = 0;
        while let Poll::Ready(count) = poll_once(&mut writer.write_with(|mut fd| fd.write(&[0; 4096]))).await {
            total += count.unwrap();
        }
        assert_ne!(total, 0);
        let mut write = writer.write_with(|mut fd| fd.write(&[0; 4096]));
        assert!(poll_once(&mut write).await.is_pending());
        (&writer).flush().await.unwrap();
        drop(reader);
        assert_eq!(write.await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

// ---- deadlines, closes, dropped waits ----

#[test]
fn deadlines_and_timeouts_end_reads_and_readable() {
    run(async {
        let (reader, _writer) = pipe();
        let expire = async || reader.set_deadline(Instant::now()).unwrap();
        let error = woken_by(reader.readable(), expire).await.map(drop).unwrap_err();
        assert!(is_timeout(&error));
        assert_eq!(error.to_string(), "read fd: i/o timeout");
        assert!(is_timeout(&(&reader).read(&mut [0; 1]).await.unwrap_err()));
        reader.set_read_deadline(None).unwrap();
        reader.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
        assert_eq!(reader.read_timeout().unwrap(), Some(Duration::from_millis(3)));
        assert_eq!(reader.write_timeout().unwrap(), None);
        assert!(is_timeout(&reader.read_with(|mut fd| fd.read(&mut [0; 1])).await.unwrap_err()));
        assert!(is_timeout(&reader.readable().await.unwrap_err()));
    });
}

/// A write fails even if it would not wait. A flush and a close fail even if there is nothing to
/// flush.
#[test]
fn writes_flushes_and_closes_fail_after_the_write_deadline() {
    run(async {
        let (_reader, writer) = pipe();
        writer.set_write_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&(&writer).write(b"x").await.unwrap_err()));
        let error = (&writer).flush().await.unwrap_err();
        assert_eq!((is_timeout(&error), error.to_string()), (true, "write fd: i/o timeout".into()));
        assert!(is_timeout(&(&writer).close().await.unwrap_err()));
        writer.set_write_deadline(None).unwrap();
        (&writer).flush().await.unwrap();
    });
}

#[test]
fn close_ends_waits_on_async_fd() {
    run(async {
        let (reader, _writer) = pipe();
        let mut read = reader.read_with(|mut fd| fd.read(&mut [0; 1]));
        let mut readable = reader.readable();
        assert!(poll_once(&mut read).await.is_pending());
        assert!(poll_once(&mut readable).await.is_pending());
        reader.force_close().await.unwrap();
        assert!(is_closed(&read.await.unwrap_err()));
        assert!(is_closed(&readable.await.unwrap_err()));
        assert!(is_closed(&reader.set_deadline(None).unwrap_err()));
        reader.force_close().await.unwrap();
        let reader = OwnedFd::from(reader.into_inner());
        assert!(!is_nonblocking(reader));
    });
}

#[test]
fn dropped_wait_passes_wakeup_on() {
    run(async {
        let (reader, writer) = pipe();
        for polls in 0..3 {
            let mut dropped = reader.read_with(|mut fd| fd.read(&mut [0; 1]));
            let mut also_dropped = reader.readable();
            let (wakes, waker) = Wakes::new();
            for _ in 0..polls {
                assert!(poll_with(&mut dropped, &waker).is_pending());
                assert!(poll_with(&mut also_dropped, &waker).is_pending());
            }
            let mut last = reader.read_with(|mut fd| fd.read(&mut [0; 1]));
            let (last_wakes, last_waker) = Wakes::new();
            assert!(poll_with(&mut last, &last_waker).is_pending());
            (&writer).write_all(b"x").await.unwrap();
            if polls > 0 {
                becomes("a dropped wait is woken", || wakes.count() > 0).await;
            }
            drop((dropped, also_dropped));
            becomes("the last wait is woken", || last_wakes.count() > 0).await;
            assert_eq!(last.await.unwrap(), 1);
        }
    });
}

// ---- closures ----

/// A leaked reference would keep the close from completing.
#[test]
fn panic_in_closure_releases_reference() {
    run(async {
        let (reader, _writer) = pipe();
        let panics = catch_unwind(AssertUnwindSafe(|| {
            poll_now(&mut reader.read_with(|_| -> io::Result<()> { panic!("in the call") }))
        }));
        assert!(panics.is_err());
        reader.force_close().await.unwrap();
    });
}

#[test]
fn closure_errors_are_returned_unchanged() {
    run(async {
        let (reader, _writer) = pipe();
        let write = reader.read_with(|fd| fd.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).write(b"x")));
        // An error that contains an `OpError` would have no `raw_os_error`.
        assert_eq!(write.await.unwrap_err().raw_os_error(), Some(libc::EBADF), "not open for writing");
    });
}

// ---- values of an earlier runtime ----

/// Returns two values for one descriptor. The first belongs to a runtime that was shut down, the
/// second to the next runtime. The shutdown has ended the registration of the first value, so the
/// second is accepted.
fn of_two_runtimes(reader: &PipeReader) -> [AsyncFd<&PipeReader>; 2] {
    let first = AsyncFd::new(reader).unwrap();
    rt::shutdown(Duration::from_secs(60)).unwrap();
    [first, AsyncFd::new(reader).unwrap()]
}

#[test]
fn drop_of_an_async_fd_of_an_earlier_runtime_removes_no_other_registration() {
    child("drop_of_an_async_fd_of_an_earlier_runtime_removes_no_other_registration", || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let [first, second] = of_two_runtimes(&reader);
        drop(first);
        let writer = std::thread::spawn(move || {
            eventually("the read waits", || rt::metrics().waiters > 0);
            writer.write_all(b"x")
        });
        let read = second.read_with(|fd| Read::read(&mut &**fd, &mut [0; 1]));
        assert_eq!(task::block_on(read).unwrap(), 1);
        writer.join().unwrap().unwrap();
    });
}

#[test]
fn async_fd_of_an_earlier_runtime_does_not_take_over_the_registration() {
    child("async_fd_of_an_earlier_runtime_does_not_take_over_the_registration", || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let [first, second] = of_two_runtimes(&reader);
        let call = |fd: &&PipeReader| Read::read(&mut &**fd, &mut [0; 1]);
        let error = task::block_on(first.read_with(call)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let writer = std::thread::spawn(move || {
            eventually("the read waits", || rt::metrics().waiters > 0);
            writer.write_all(b"x").map(|()| writer)
        });
        assert_eq!(task::block_on(second.read_with(call)).unwrap(), 1);
        let _writer = writer.join().unwrap().unwrap();
        drop(second);
        // The first value can register the descriptor again.
        assert!(task::block_on(poll_fn(|cx| Poll::Ready(first.poll_readable(cx).is_pending()))));
    });
}
