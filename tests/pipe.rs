//! `net::pipe`: transfers, errors after a close, deadlines, the traits and cancellation. The
//! package `nettest` has the tests that apply to any connection.

mod common;

use std::io::ErrorKind;
use std::task::Poll;
use std::time::{Duration, Instant};

use common::*;
use netpoll::io::{ReadExt, WriteExt};
use netpoll::net::{Pipe, is_closed, is_timeout, pipe, raw_os_error};
use netpoll::prelude::*;
use netpoll::rt::{self, TaskState};
use netpoll::{future, io, task};

/// Waits until the task of `handle` waits.
async fn begins_to_wait<T>(handle: &task::JoinHandle<T>) {
    let id = handle.task().id();
    becomes("the task waits", || {
        rt::inspect().task(id).is_some_and(|task| task.polls() > 0 && task.state() == TaskState::Waiting)
    })
    .await;
}

// ---- transfers ----

#[test]
fn write_completes_when_fully_read() {
    run(async {
        let (one, other) = pipe().unwrap();
        let mut write = one.write(b"hello");
        assert!(poll_once(&mut write).await.is_pending());
        let mut buf = [0; 2];
        for part in [b"he", b"ll"] {
            assert_eq!(other.read(&mut buf).await.unwrap(), 2);
            assert_eq!(&buf, part);
            assert!(poll_once(&mut write).await.is_pending());
        }
        assert_eq!(other.read(&mut buf).await.unwrap(), 1);
        assert_eq!(write.await.unwrap(), 5);
        assert!(poll_once(&mut other.read(&mut buf)).await.is_pending());
    });
}

#[test]
fn read_takes_from_one_write_only() {
    run(async {
        let (one, other) = pipe().unwrap();
        let (mut first, mut second) = (one.write(b"first"), one.write(b"second"));
        assert!(poll_once(&mut first).await.is_pending());
        assert!(poll_once(&mut second).await.is_pending());
        let mut buf = [0; 64];
        assert_eq!(other.read(&mut buf).await.unwrap(), 5);
        assert_eq!(first.await.unwrap(), 5);
        let mut read = other.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending());
        assert!(poll_once(&mut second).await.is_pending());
        assert_eq!(read.await.unwrap(), 6);
        assert_eq!(second.await.unwrap(), 6);
        assert_eq!(&buf[..6], b"second");
    });
}

#[test]
fn pipe_writes_of_many_tasks_do_not_interleave() {
    run(async {
        let (one, other) = pipe().unwrap();
        let writers: Vec<_> = (0..20u8)
            .map(|number| {
                let one = one.clone();
                task::spawn(async move { one.write_all(&[number; 50]).await })
            })
            .collect();
        let mut seen = [0; 20];
        let mut buf = [0; 7];
        for _ in 0..20 {
            let mut message = Vec::new();
            while message.len() < 50 {
                let count = other.read(&mut buf).await.unwrap();
                message.extend_from_slice(&buf[..count]);
            }
            assert_eq!(message, [message[0]; 50]);
            seen[usize::from(message[0])] += 1;
        }
        assert_eq!(seen, [1; 20]);
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn many_pipe_readers_share_data() {
    run(async {
        let (one, other) = pipe().unwrap();
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let other = other.clone();
                task::spawn(async move {
                    let mut buf = [0; 3];
                    let mut total = 0;
                    while let count @ 1.. = other.read(&mut buf).await.unwrap() {
                        total += count;
                    }
                    total
                })
            })
            .collect();
        for _ in 0..50 {
            one.write_all(&[1; 100]).await.unwrap();
        }
        drop(one);
        let mut total = 0;
        for reader in readers {
            total += reader.await;
        }
        assert_eq!(total, 5000);
    });
}

#[test]
fn empty_pipe_operations_complete_immediately() {
    run(async {
        let (one, _other) = pipe().unwrap();
        assert_eq!(one.write(b"").await.unwrap(), 0);
        one.write_all(b"").await.unwrap();
        assert_eq!(one.read(&mut []).await.unwrap(), 0);
    });
}

// ---- errors after a close (Go: TestPipe, TestPipeCloseError) ----

#[test]
fn pipe_errors_tell_which_end_is_closed() {
    run(async {
        let (one, other) = pipe().unwrap();
        one.force_close().await.unwrap();
        let read = one.read(&mut [0; 1]).await.unwrap_err();
        assert!(is_closed(&read));
        assert_eq!(read.to_string(), "read pipe: use of closed network connection");
        let write = one.write(b"x").await.unwrap_err();
        assert!(is_closed(&write));
        assert_eq!(write.to_string(), "write pipe: use of closed network connection");
        assert!(is_closed(&one.write_all(b"").await.unwrap_err()));
        assert!(is_closed(&one.set_read_deadline(None).unwrap_err()));
        assert!(is_closed(&one.close_write().unwrap_err()));

        assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0);
        let write = other.write(b"x").await.unwrap_err();
        assert_eq!(write.kind(), ErrorKind::BrokenPipe);
        assert_eq!(raw_os_error(&write), Some(libc::EPIPE));
        assert_eq!(write.to_string(), "write pipe: broken pipe");
        // A loop that sets a deadline before each read sees the end of the stream.
        other.set_deadline(Instant::now()).unwrap();
        assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0, "the peer's close precedes expiry");
        assert_eq!(other.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        other.force_close().await.unwrap();
        assert!(is_closed(&other.read(&mut [0; 1]).await.unwrap_err()), "its own close precedes the peer's");
        one.force_close().await.unwrap();
    });
}

#[test]
fn pipe_close_wakes_both_sides() {
    run(async {
        for drops in [false, true] {
            let (one, other) = pipe().unwrap();
            let spawn_read = |pipe: &Pipe| {
                let pipe = pipe.clone();
                task::spawn(async move { pipe.read(&mut [0; 1]).await })
            };
            let spawn_write = |pipe: &Pipe| {
                let pipe = pipe.clone();
                task::spawn(async move {
                    let written = pipe.write(b"xy").await;
                    drop(pipe);
                    written
                })
            };
            let read = spawn_read(&other);
            begins_to_wait(&read).await;
            if drops {
                drop(one);
            } else {
                let own = spawn_read(&one);
                begins_to_wait(&own).await;
                one.force_close().await.unwrap();
                assert!(is_closed(&own.await.unwrap_err()));
            }
            assert_eq!(read.await.unwrap(), 0);

            let (one, other) = pipe().unwrap();
            let write = spawn_write(&one);
            let mut buf = [0; 1];
            assert_eq!(other.read(&mut buf).await.unwrap(), 1);
            begins_to_wait(&write).await;
            if drops {
                drop(other);
            } else {
                other.force_close().await.unwrap();
            }
            assert_eq!(write.await.unwrap(), 1, "a part was read");
            let last = one.write_all(b"x").await.unwrap_err();
            assert_eq!(last.kind(), ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn write_ended_by_close_leaves_no_data_to_read() {
    run(async {
        let (one, other) = pipe().unwrap();
        let mut write = one.write(b"lent");
        assert!(poll_once(&mut write).await.is_pending());
        one.force_close().await.unwrap();
        assert_eq!(other.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(is_closed(&write.await.unwrap_err()));
    });
}

#[test]
fn closing_write_side_keeps_other_direction() {
    run(async {
        let (one, other) = pipe().unwrap();
        let mut write = one.write_all(b"last");
        assert!(poll_once(&mut write).await.is_pending());
        one.close_write().unwrap();
        let mut buf = [0; 8];
        assert_eq!(other.read(&mut buf).await.unwrap(), 4);
        write.await.unwrap();
        assert_eq!(other.read(&mut buf).await.unwrap(), 0);
        assert_eq!(one.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let back = task::spawn(async move { other.write_all(b"back").await });
        assert_eq!(one.read(&mut buf).await.unwrap(), 4);
        back.await.unwrap();
    });
}

// ---- deadlines ----

#[test]
fn pipe_deadline_precedes_data_and_loses_none() {
    run(async {
        let (one, other) = pipe().unwrap();
        let mut write = one.write(b"data");
        assert!(poll_once(&mut write).await.is_pending());
        other.set_read_deadline(Instant::now()).unwrap();
        let error = other.read(&mut [0; 8]).await.unwrap_err();
        assert!(is_timeout(&error));
        assert_eq!(error.to_string(), "read pipe: i/o timeout");
        other.set_read_deadline(None).unwrap();
        assert_eq!(other.read(&mut [0; 8]).await.unwrap(), 4);
        assert_eq!(write.await.unwrap(), 4);
    });
}

#[test]
fn timed_out_pipe_write_reports_bytes_written() {
    run(async {
        let (one, other) = pipe().unwrap();
        let mut write = one.write(b"data");
        assert!(poll_once(&mut write).await.is_pending());
        assert_eq!(other.read(&mut [0; 3]).await.unwrap(), 3);
        one.set_write_deadline(Instant::now()).unwrap();
        assert_eq!(write.await.unwrap(), 3);
        assert!(is_timeout(&one.write(b"x").await.unwrap_err()));
        assert!(poll_once(&mut other.read(&mut [0; 1])).await.is_pending(), "the rest is withdrawn");
        one.set_write_deadline(None).unwrap();
        let mut whole = one.write_all(b"data");
        assert!(poll_once(&mut whole).await.is_pending());
        assert_eq!(other.read(&mut [0; 3]).await.unwrap(), 3);
        one.set_write_deadline(Instant::now()).unwrap();
        assert!(is_timeout(&whole.await.unwrap_err()), "a partial write_all is an error");
    });
}

/// Regression test: after a timeout, the rest of a `write_all` was written behind another write.
#[test]
fn timeout_lets_no_write_into_the_middle_of_a_write_all() {
    run(async {
        let (one, other) = pipe().unwrap();
        one.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut first = one.write_all(b"first");
        assert!(poll_once(&mut first).await.is_pending());
        one.set_write_timeout(None).unwrap();
        let mut second = one.write(b"second");
        assert!(poll_once(&mut second).await.is_pending());
        one.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut buf = [0; 16];
        assert_eq!(other.read(&mut buf[..2]).await.unwrap(), 2);
        task::sleep(Duration::from_millis(30)).await;
        assert!(poll_once(&mut first).await.is_pending(), "a part was taken within the timeout");
        assert_eq!(other.read(&mut buf[2..]).await.unwrap(), 3);
        assert_eq!(&buf[..5], b"first");
        first.await.unwrap();
        one.set_write_timeout(None).unwrap();
        assert!(poll_once(&mut second).await.is_pending());
        assert_eq!(other.read(&mut buf).await.unwrap(), 6);
        assert_eq!(&buf[..6], b"second");
        assert_eq!(second.await.unwrap(), 6);
        // Without progress, the timeout ends the write, although a part was taken before.
        one.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut third = one.write_all(b"third");
        assert!(poll_once(&mut third).await.is_pending());
        assert_eq!(other.read(&mut buf[..2]).await.unwrap(), 2);
        assert!(is_timeout(&third.await.unwrap_err()));
        assert!(poll_once(&mut other.read(&mut buf)).await.is_pending(), "the rest is withdrawn");
    });
}

#[test]
fn pipe_timeouts_restart_for_each_operation() {
    run(async {
        let (one, other) = pipe().unwrap();
        assert_eq!(one.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        one.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        one.set_write_timeout(Some(Duration::from_millis(11))).unwrap();
        assert_eq!(one.read_timeout().unwrap(), Some(Duration::from_millis(10)));
        assert_eq!(one.write_timeout().unwrap(), Some(Duration::from_millis(11)));
        assert_eq!(other.read_timeout().unwrap(), None);
        for _ in 0..2 {
            let start = Instant::now();
            assert!(is_timeout(&one.read(&mut [0; 1]).await.unwrap_err()));
            assert!(is_timeout(&one.write(&[0; 1]).await.unwrap_err()));
            assert!(start.elapsed() >= Duration::from_millis(20));
            assert!(is_timeout(&ReadExt::read(&mut &one, &mut [0; 1]).await.unwrap_err()));
        }
        one.set_read_timeout(None).unwrap();
        let write = task::spawn(async move { other.write(b"x").await });
        assert_eq!(one.read(&mut [0; 1]).await.unwrap(), 1);
        write.await.unwrap();
    });
}

/// Another executor polls, and there are no sockets, so the runtime is used only for its timers.
#[test]
fn pipe_deadlines_work_under_another_executor() {
    let (one, _other) = pipe().unwrap();
    one.set_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
    assert!(is_timeout(&park_on(one.read(&mut [0; 1])).unwrap_err()));
    one.set_deadline(None).unwrap();
    one.set_write_timeout(Some(Duration::from_millis(5))).unwrap();
    assert!(is_timeout(&park_on(one.write(&[0; 1])).unwrap_err()));
}

// ---- the traits ----

#[test]
fn trait_write_waits_for_matching_read() {
    run(async {
        let (one, other) = pipe().unwrap();
        let mut half = &one;
        let mut write = WriteExt::write(&mut half, b"hello");
        assert!(poll_once(&mut write).await.is_pending(), "no reader");
        let mut buf = [0; 3];
        let mut read = other.read(&mut buf);
        assert!(poll_once(&mut read).await.is_pending());
        assert_eq!(write.await.unwrap(), 3);
        let mut flush = WriteExt::flush(&mut half);
        assert!(poll_once(&mut flush).await.is_pending(), "not read yet");
        assert_eq!(read.await.unwrap(), 3);
        flush.await.unwrap();
        assert_eq!(&buf, b"hel");
        // If a read to which data was passed is dropped, the next read gets the data, before the
        // end of the stream.
        let mut dropped = other.read(&mut buf);
        assert!(poll_once(&mut dropped).await.is_pending());
        assert_eq!(WriteExt::write(&mut half, b"lo").await.unwrap(), 2);
        drop(dropped);
        WriteExt::close(&mut half).await.unwrap();
        assert_eq!(other.read(&mut buf).await.unwrap(), 2);
        assert_eq!(other.read(&mut buf).await.unwrap(), 0);
    });
}

#[test]
fn protocols_run_over_pipe_traits() {
    run(async {
        let (one, other) = pipe().unwrap();
        let server = task::spawn(async move {
            let mut lines = io::BufReader::new(&other).lines();
            let mut writer = &other;
            while let Some(line) = lines.next().await {
                writer.write_all(format!("{}\n", line.unwrap().to_uppercase()).as_bytes()).await.unwrap();
                writer.flush().await.unwrap();
            }
        });
        let mut replies = io::BufReader::new(&one);
        for word in ["one", "two", "three"] {
            WriteExt::write_all(&mut &one, format!("{word}\n").as_bytes()).await.unwrap();
            let mut reply = String::new();
            replies.read_line(&mut reply).await.unwrap();
            assert_eq!(reply, format!("{}\n", word.to_uppercase()));
        }
        WriteExt::close(&mut &one).await.unwrap();
        server.await;
    });
}

#[test]
fn copy_through_pipe_is_complete() {
    run(async {
        let (one, other) = pipe().unwrap();
        let data: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
        let echo = task::spawn(async move {
            io::copy(&mut &other, &mut &other).await.unwrap();
            WriteExt::close(&mut &other).await.unwrap();
        });
        let writer = task::spawn({
            let (one, data) = (one.clone(), data.clone());
            async move {
                WriteExt::write_all(&mut &one, &data).await.unwrap();
                WriteExt::close(&mut &one).await.unwrap();
            }
        });
        let mut back = Vec::new();
        ReadExt::read_to_end(&mut &one, &mut back).await.unwrap();
        assert!(back == data);
        writer.await;
        echo.await;
    });
}

// ---- cancellation ----

#[test]
fn dropped_pipe_write_withdraws_unread_data() {
    run(async {
        let (one, other) = pipe().unwrap();
        let mut buf = [0; 8];
        let mut gone = one.write(b"gone");
        assert!(poll_once(&mut gone).await.is_pending());
        assert_eq!(other.read(&mut buf[..1]).await.unwrap(), 1);
        let mut next = one.write(b"next");
        assert!(poll_once(&mut next).await.is_pending());
        drop(gone);
        assert!(poll_once(&mut next).await.is_pending());
        assert_eq!(other.read(&mut buf).await.unwrap(), 4);
        assert_eq!(&buf[..4], b"next");
        assert_eq!(next.await.unwrap(), 4);
    });
}

/// A read or a write is dropped after zero to three polls, before or after the other end offers or
/// takes data. The operation that waits beside it completes.
#[test]
fn dropped_pipe_future_strands_no_waiter() {
    run(async {
        for polls in 0..4 {
            for woken in [false, true] {
                for reads in [false, true] {
                    let (one, other) = pipe().unwrap();
                    let (mut buf, mut beside_buf) = ([0; 4], [0; 4]);
                    if reads {
                        let mut dropped = other.read(&mut buf);
                        for _ in 0..polls {
                            assert!(poll_once(&mut dropped).await.is_pending());
                        }
                        let mut beside = other.read(&mut beside_buf);
                        assert!(poll_once(&mut beside).await.is_pending());
                        let mut write = one.write(b"data");
                        if woken {
                            assert!(poll_once(&mut write).await.is_pending());
                        }
                        drop(dropped);
                        let (count, written) = futures::future::join(beside, write).await;
                        assert_eq!((count.unwrap(), written.unwrap()), (4, 4), "{polls} {woken}");
                    } else {
                        let mut holder = one.write(b"hold");
                        assert!(poll_once(&mut holder).await.is_pending());
                        let mut dropped = one.write(b"gone");
                        for _ in 0..polls {
                            assert!(poll_once(&mut dropped).await.is_pending());
                        }
                        let mut beside = one.write(b"data");
                        assert!(poll_once(&mut beside).await.is_pending());
                        if woken {
                            assert_eq!(other.read(&mut buf).await.unwrap(), 4);
                        }
                        drop((holder, dropped));
                        let (written, count) = futures::future::join(beside, other.read(&mut beside_buf)).await;
                        assert_eq!((count.unwrap(), written.unwrap()), (4, 4), "{polls} {woken}");
                        assert_eq!(&beside_buf, b"data");
                    }
                }
            }
        }
    });
}

#[test]
fn mixed_pipe_futures_and_polls_lose_no_data() {
    run(async {
        let (one, other) = pipe().unwrap();
        let reader = task::spawn(async move {
            let (mut buf, mut total, mut turn) = ([0; 5], 0, 0);
            loop {
                turn += 1;
                let count = match turn % 3 {
                    0 => ReadExt::read(&mut &other, &mut buf).await.unwrap(),
                    1 => other.read(&mut buf).await.unwrap(),
                    // Some reads are dropped while they wait.
                    _ => match future::timeout(Duration::from_micros(50), other.read(&mut buf)).await {
                        Ok(count) => count.unwrap(),
                        Err(_) => continue,
                    },
                };
                if count == 0 {
                    return total;
                }
                total += count;
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let one = one.clone();
                task::spawn(async move {
                    for _ in 0..200 {
                        match number {
                            0 | 1 => one.write_all(&[0; 13]).await.unwrap(),
                            _ => WriteExt::write_all(&mut &one, &[0; 13]).await.unwrap(),
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await;
        }
        WriteExt::flush(&mut &one).await.unwrap();
        drop(one);
        assert_eq!(reader.await, 4 * 200 * 13);
    });
}

#[test]
fn pipe_operations_are_ready_once_their_data_has_moved() {
    let (one, other) = pipe().unwrap();
    let mut write = one.write(b"x");
    assert!(poll_now(&mut write).is_pending());
    assert!(matches!(poll_now(&mut other.read(&mut [0; 1])), Poll::Ready(Ok(1))));
    assert!(matches!(poll_now(&mut write), Poll::Ready(Ok(1))));
}
