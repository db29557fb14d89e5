//! The gathered bytes are sent at the end of a turn, or earlier, for example before a wait, with a
//! large write, when much is gathered, by sysmon, or by a change of the option or the write
//! deadline.

use std::future::pending;
use std::io::IoSlice;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use netpoll::io::{ReadExt, WriteExt};
use netpoll::net::{self, TcpStream};
use netpoll::os::unix::net::UnixStream;
use netpoll::task::{self, TaskSet};

use super::common::{self, bounded, poll_now, read_exact, run};
use super::{Counted, info, pair, pattern, sends, some_round_is_undisturbed};

/// Serves requests of one byte. Reads up to `depth` requests at once, and answers each with one
/// `write_all`.
async fn serve(server: &TcpStream, depth: usize) {
    let mut buf = vec![0; depth];
    loop {
        let count = server.read(&mut buf).await.unwrap();
        if count == 0 {
            return;
        }
        for request in &buf[..count] {
            server.write_all(&[*request; 16]).await.unwrap();
        }
    }
}

#[test]
fn answers_to_a_batch_leave_as_one_send() {
    run(async {
        for depth in [10, 100] {
            let Counted { ours, peer, number } = Counted::new().await;
            let server = task::spawn(async move { serve(&ours, depth).await });
            for round in 0..20 {
                some_round_is_undisturbed(async || {
                    let before = sends(number);
                    let requests = vec![round; depth];
                    peer.write_all(&requests).await.unwrap();
                    let mut answers = vec![0; 16 * depth];
                    ReadExt::read_exact(&mut &peer, &mut answers).await.unwrap();
                    assert!(answers.iter().all(|byte| *byte == round));
                    sends(number) - before == 1
                })
                .await;
            }
            drop(peer);
            server.await;
        }
    });
}

/// A write of 16 KiB or more is not gathered.
#[test]
fn write_that_does_not_fit_leaves_with_the_gathered_bytes() {
    run(some_round_is_undisturbed(async || {
        let Counted { ours, peer, number } = Counted::new().await;
        let before = sends(number);
        ours.write_all(&[1; 100]).await.unwrap();
        ours.write_all(&[2; 20_000]).await.unwrap();
        ours.write_all(&[3; 100]).await.unwrap();
        let mut all = vec![0; 20_100];
        ReadExt::read_exact(&mut &peer, &mut all).await.unwrap();
        assert!(all[..100] == [1; 100] && all[100..] == [2; 20_000]);
        ReadExt::read_exact(&mut &peer, &mut all[..100]).await.unwrap();
        assert_eq!(all[..100], [3; 100]);
        sends(number) - before == 2
    }));
}

#[test]
fn all_ways_to_write_are_gathered_in_order() {
    run(some_round_is_undisturbed(async || {
        let Counted { ours, peer, number } = Counted::new().await;
        let turn = task::spawn(async move {
            let other = ours.clone();
            let before = sends(number);
            ours.write_all(b"a").await.unwrap();
            assert_eq!(other.write(b"bc").await.unwrap(), 2);
            let pieces = [IoSlice::new(b"d"), IoSlice::new(b""), IoSlice::new(b"ef")];
            assert_eq!(ours.write_vectored(&pieces).await.unwrap(), 3);
            WriteExt::write_all(&mut &other, b"gh").await.unwrap();
            assert_eq!(WriteExt::write_vectored(&mut &ours, &pieces).await.unwrap(), 3);
            let is_gathered = (sends(number), info(number).gathered()) == (before, 11);
            task::yield_now().await;
            is_gathered && (sends(number), info(number).gathered()) == (before + 1, 0)
        });
        let mut buf = [0; 11];
        ReadExt::read_exact(&mut &peer, &mut buf).await.unwrap();
        assert_eq!(&buf, b"abcdefghdef");
        turn.await
    }));
}

#[test]
fn write_vectored_all_is_gathered() {
    run(some_round_is_undisturbed(async || {
        let Counted { ours, peer, number } = Counted::new().await;
        let turn = task::spawn(async move {
            ours.write_all(b"1").await.unwrap();
            let mut pieces = [IoSlice::new(b"23"), IoSlice::new(b"4")];
            ours.write_vectored_all(&mut pieces).await.unwrap();
            ours.write_all(b"5").await.unwrap();
            let is_gathered = (sends(number), info(number).gathered()) == (0, 5);
            task::yield_now().await;
            is_gathered && (sends(number), info(number).gathered()) == (1, 0)
        });
        let mut buf = [0; 5];
        read_exact(&peer, &mut buf).await.unwrap();
        assert_eq!(&buf, b"12345");
        turn.await
    }));
}

/// Each case waits for the echo of the byte that it has written.
#[test]
fn every_wait_sends_gathered_bytes_first() {
    run(async {
        for kind in 0..5 {
            let (ours, peer) = pair().await;
            let echo = task::spawn(async move { common::echo(&peer).await });
            let turn = task::spawn(async move {
                ours.write_all(b"x").await.unwrap();
                let mut buf = [0; 1];
                match kind {
                    0 => read_exact(&ours, &mut buf).await.unwrap(),
                    // The wait is in another executor within the turn.
                    1 => common::park_on(read_exact(&ours, &mut buf)).unwrap(),
                    // The wait is in a nested `block_on` of this crate.
                    2 => task::block_on(read_exact(&ours, &mut buf)).unwrap(),
                    3 => {
                        let clone = ours.clone();
                        let reader = task::spawn(async move { read_exact(&clone, &mut [0; 1]).await });
                        common::park_on(reader).unwrap();
                    }
                    _ => {
                        common::park_on(task::sleep(Duration::from_millis(1)));
                        read_exact(&ours, &mut buf).await.unwrap();
                    }
                }
            });
            turn.await;
            echo.cancel().await;
        }
    });
}

/// Each case polls one of these waits as another executor within the turn would.
#[test]
fn wait_for_a_set_a_look_up_a_close_or_a_cancel_sends_gathered_bytes_first() {
    run(async {
        for kind in 0..4 {
            some_round_is_undisturbed(async || {
                let Counted { ours, peer: _peer, number } = Counted::new().await;
                let (closing, _other) = pair().await;
                closing.set_linger(Some(Duration::from_secs(1))).unwrap();
                let turn = task::spawn(async move {
                    ours.write_all(b"x").await.unwrap();
                    let is_gathered = info(number).gathered() == 1;
                    let mut set = TaskSet::new();
                    set.spawn(pending::<()>());
                    let polled = match kind {
                        0 => poll_now(&mut Box::pin(set.join_next())).is_pending(),
                        1 => poll_now(&mut Box::pin(net::resolve("localhost:80"))).is_pending(),
                        2 => poll_now(&mut closing.force_close()).is_pending(),
                        _ => poll_now(&mut Box::pin(task::spawn(pending::<()>()).cancel())).is_pending(),
                    };
                    is_gathered && polled && info(number).gathered() == 0
                });
                turn.await
            })
            .await;
        }
    });
}

/// After its writes the turn makes no further call of this crate.
#[test]
fn sysmon_sends_for_turn_that_blocks_its_thread() {
    run(async {
        let (ours, peer) = pair().await;
        let (got, wait) = mpsc::channel();
        let reader = task::spawn(async move {
            let mut buf = [0; 100];
            read_exact(&peer, &mut buf).await.unwrap();
            got.send(buf).unwrap();
        });
        let turn = task::spawn(async move {
            ours.write_all(&pattern(0, 100)).await.unwrap();
            assert_eq!(wait.recv_timeout(common::BOUND).unwrap()[..], pattern(0, 100));
        });
        turn.await;
        reader.await;
    });
}

#[test]
fn sysmon_sends_for_root_future_that_blocks_its_thread() {
    run(async {
        let (ours, peer) = pair().await;
        let (got, wait) = mpsc::channel();
        let reader = task::spawn(async move {
            read_exact(&peer, &mut [0; 1]).await.unwrap();
            got.send(()).unwrap();
        });
        ours.write_all(b"x").await.unwrap();
        wait.recv_timeout(common::BOUND).unwrap();
        reader.await;
    });
}

#[test]
fn task_that_never_waits_sends_when_much_is_gathered() {
    run(async {
        let Counted { ours, peer, number } = Counted::new().await;
        let reader = task::spawn(async move {
            let mut all = vec![0; 1_000_000];
            ReadExt::read_exact(&mut &peer, &mut all).await.unwrap();
            all
        });
        let before = sends(number);
        let writer = task::spawn(async move {
            let begin = Instant::now();
            for at in 0..1000 {
                // The operations are always ready, so the budget ends a turn from time to time.
                ours.write_all(&pattern(at * 1000, 1000)).await.unwrap();
                assert!(info(number).gathered() <= 64 << 10);
            }
            (ours, begin.elapsed())
        });
        let (_ours, took) = writer.await;
        assert!(reader.await == pattern(0, 1_000_000));
        let count = sends(number) - before;
        // Sysmon may also send, every 10 ms.
        let most = 300 + took.as_millis() as u32 / 10;
        assert!((15..=most).contains(&count), "{count} sends in {took:?}");
    });
}

#[test]
fn writes_outside_of_a_turn_are_sent_at_once() {
    bounded(|| {
        let Counted { ours, peer, number } = task::block_on(Counted::new());
        common::park_on(async {
            for count in 1..=3 {
                ours.write_all(b"abc").await.unwrap();
                assert_eq!((sends(number), info(number).gathered()), (count, 0));
            }
        });
        task::block_on(task::spawn_blocking(move || {
            common::park_on(async {
                ours.write_all(b"d").await.unwrap();
                assert_eq!(sends(number), 4);
            });
        }));
        let mut all = Vec::new();
        task::block_on(ReadExt::read_to_end(&mut &peer, &mut all)).unwrap();
        assert_eq!(all, b"abcabcabcd");
    });
}

#[test]
fn block_on_sends_before_it_returns() {
    bounded(|| {
        common::park_on(some_round_is_undisturbed(async || {
            let Counted { ours, peer, number } = task::block_on(Counted::new());
            let is_gathered = task::block_on(async {
                ours.write_all(b"abc").await.unwrap();
                ours.write_all(b"def").await.unwrap();
                sends(number) == 0
            });
            let is_sent = sends(number) == 1;
            let mut buf = [0; 6];
            task::block_on(ReadExt::read_exact(&mut &peer, &mut buf)).unwrap();
            assert_eq!(&buf, b"abcdef");
            is_gathered && is_sent
        }));
    });
}

#[test]
fn local_task_sends_at_the_end_of_its_turn() {
    run(some_round_is_undisturbed(async || {
        let Counted { ours, peer, number } = Counted::new().await;
        let (send, receive) = mpsc::channel();
        let local = task::spawn_local(async move {
            ours.write_all(b"abc").await.unwrap();
            ours.write_all(b"def").await.unwrap();
            send.send(sends(number) == 0).unwrap();
            std::future::pending::<()>().await;
        });
        let mut buf = [0; 6];
        ReadExt::read_exact(&mut &peer, &mut buf).await.unwrap();
        assert_eq!(&buf, b"abcdef");
        let is_sent_once = sends(number) == 1;
        drop(local);
        receive.recv_timeout(common::BOUND).unwrap() && is_sent_once
    }));
}

#[test]
fn panic_in_the_turn_loses_nothing() {
    run(async {
        let (ours, peer) = pair().await;
        let clone = ours.clone();
        let turn = task::spawn(async move {
            clone.write_all(b"before").await.unwrap();
            panic!("injected");
        });
        let mut buf = [0; 6];
        read_exact(&peer, &mut buf).await.unwrap();
        assert_eq!(&buf, b"before");
        assert!(std::panic::AssertUnwindSafe(turn).catch().await);
        drop(ours);
    });
}

trait Catch {
    /// Returns whether the future panics.
    async fn catch(self) -> bool;
}

impl<F: Future + Unpin> Catch for std::panic::AssertUnwindSafe<F> {
    async fn catch(mut self) -> bool {
        std::future::poll_fn(|cx| {
            let poll = std::panic::AssertUnwindSafe(|| std::pin::Pin::new(&mut self.0).poll(cx));
            match std::panic::catch_unwind(poll) {
                Ok(polled) => polled.map(|_| false),
                Err(_) => std::task::Poll::Ready(true),
            }
        })
        .await
    }
}

#[test]
fn panic_of_the_root_future_loses_nothing() {
    bounded(|| {
        let Counted { ours, peer, number } = task::block_on(Counted::new());
        let root = std::panic::AssertUnwindSafe(|| {
            task::block_on(async {
                ours.write_all(b"before").await.unwrap();
                panic!("injected");
            })
        });
        assert!(std::panic::catch_unwind(root).is_err());
        assert_eq!(sends(number), 1);
        drop(peer);
    });
}

#[test]
fn gathered_messages_of_tasks_with_clones_do_not_interleave() {
    run(async {
        let (ours, peer) = pair().await;
        let writers: Vec<_> = (0..4u8)
            .map(|id| {
                let ours = ours.clone();
                task::spawn(async move {
                    for number in 0..500u16 {
                        let mut message = [id; 64];
                        message[1..3].copy_from_slice(&number.to_le_bytes());
                        ours.write_all(&message).await.unwrap();
                        if number % 7 == u16::from(id) {
                            task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        drop(ours);
        let mut next = [0u16; 4];
        for _ in 0..4 * 500 {
            let mut message = [0; 64];
            read_exact(&peer, &mut message).await.unwrap();
            let id = message[0];
            assert!(message[3..].iter().all(|byte| *byte == id), "interleaved message: {message:?}");
            assert_eq!(u16::from_le_bytes([message[1], message[2]]), next[usize::from(id)]);
            next[usize::from(id)] += 1;
        }
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
        for writer in writers {
            writer.await;
        }
    });
}

/// A task that gathers and another thread write alternately.
#[test]
fn threads_that_write_alternately_keep_their_order() {
    const ROUNDS: usize = 20;
    const WRITES: usize = 1100;
    run(async {
        let (ours, peer) = pair().await;
        let (ask, asked) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let other = thread::spawn({
            let ours = ours.clone();
            move || {
                while asked.recv().is_ok() {
                    task::block_on(ours.write_all(b"B")).unwrap();
                    answer.send(()).unwrap();
                }
            }
        });
        let writer = task::spawn(async move {
            for round in 0..ROUNDS {
                for _ in 0..WRITES {
                    ours.write_all(b"a").await.unwrap();
                }
                ask.send(()).unwrap();
                answered.recv().unwrap();
                if round == 0 {
                    // By the end of this sleep, the process is usually registered for
                    // membarrier(2), so writes can do without the lock.
                    task::sleep(Duration::from_millis(100)).await;
                }
            }
        });
        let mut received = vec![0; ROUNDS * (WRITES + 1)];
        read_exact(&peer, &mut received).await.unwrap();
        for round in received.chunks(WRITES + 1) {
            let (other, own) = round.split_last().unwrap();
            assert_eq!(*other, b'B');
            assert!(own.iter().all(|byte| *byte == b'a'));
        }
        writer.await;
        other.join().unwrap();
    });
}

#[test]
fn unix_sockets_gather() {
    run(some_round_is_undisturbed(async || {
        let (ours, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let ours = UnixStream::from(ours);
        ours.set_auto_cork(true).unwrap();
        let mut buf = [0; 8];
        let mut has_arrived = false;
        for part in [&b"abc"[..], b"d", b"ef"] {
            ours.write_all(part).await.unwrap();
            has_arrived |= std::io::Read::read(&mut &peer, &mut buf).is_ok();
        }
        ours.flush().await.unwrap();
        drop(ours);
        if !has_arrived {
            assert_eq!(std::io::Read::read(&mut &peer, &mut buf).unwrap(), 6);
            assert_eq!(buf[..6], *b"abcdef");
        }
        !has_arrived
    }));
}

#[test]
fn option_can_be_turned_off_and_on() {
    run(some_round_is_undisturbed(async || {
        let Counted { ours, peer, number } = Counted::new().await;
        assert!(ours.auto_cork());
        ours.write_all(b"a").await.unwrap();
        ours.set_auto_cork(false).unwrap();
        assert!(!ours.clone().auto_cork());
        assert_eq!(sends(number), 1);
        ours.write_all(b"b").await.unwrap();
        assert_eq!(sends(number), 2);
        ours.set_auto_cork(true).unwrap();
        ours.write_all(b"c").await.unwrap();
        let is_gathered = sends(number) == 2;
        ours.flush().await.unwrap();
        assert_eq!(sends(number), 3);
        let mut buf = [0; 3];
        ReadExt::read_exact(&mut &peer, &mut buf).await.unwrap();
        assert_eq!(&buf, b"abc");
        is_gathered
    }));
}

#[test]
fn listeners_and_dialers_pass_the_option_on() {
    use netpoll::net::{Dialer, ListenConfig};
    run(async {
        let listener = ListenConfig::new().auto_cork(true).listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = Dialer::new().auto_cork(true).dial(addr).await.unwrap();
        let plain = Dialer::new().dial(addr).await.unwrap();
        assert!(client.auto_cork() && !plain.auto_cork());
        for _ in 0..2 {
            assert!(listener.accept().await.unwrap().0.auto_cork());
        }
        drop(client);
    });
}

#[test]
fn deadline_change_sends() {
    run(async {
        let Counted { ours, peer, number } = Counted::new().await;
        ours.write_all(b"abc").await.unwrap();
        ours.set_write_deadline(common::by_hand::in_ms(100_000)).unwrap();
        assert_eq!(sends(number), 1);
        ours.write_all(b"def").await.unwrap();
        ours.set_write_deadline(common::by_hand::past()).unwrap();
        assert_eq!(sends(number), 2);
        common::by_hand::assert_timeout(ours.write_all(b"g").await);
        ours.set_write_deadline(None).unwrap();
        drop(ours);
        let mut all = Vec::new();
        ReadExt::read_to_end(&mut &peer, &mut all).await.unwrap();
        assert_eq!(all, b"abcdef");
    });
}

/// In a debug build, the writes take longer than the time limit of a turn that makes system calls,
/// but less than that of a turn that only gathers. Ending the turn early would cost a send.
#[test]
fn time_does_not_end_a_turn_that_only_gathers() {
    run(async {
        task::spawn(async {}).await;
        // The runtime limits the time of turns only after it has measured the rate of the CPU's
        // counter for 100 ms.
        task::sleep(Duration::from_millis(150)).await;
        some_round_is_undisturbed(async || {
            let Counted { ours, peer, number } = Counted::new().await;
            let turn = task::spawn(async move {
                for _ in 0..400 {
                    ours.write_all(b"x").await.unwrap();
                }
                (sends(number), ours)
            });
            read_exact(&peer, &mut [0; 400]).await.unwrap();
            let (before_the_end, _ours) = turn.await;
            before_the_end == 0 && sends(number) == 1
        })
        .await;
    });
}

#[test]
fn fan_out_of_one_turn_reaches_every_member_with_fewer_sends_than_messages() {
    run(some_round_is_undisturbed(async || {
        let mut members = Vec::new();
        while members.len() < 100 {
            members.push(Counted::new().await);
        }
        let streams: Vec<_> = members.iter().map(|member| member.ours.clone()).collect();
        let turn = task::spawn(async move {
            for message in 0..5u8 {
                for stream in &streams {
                    stream.write_all(&[message; 10]).await.unwrap();
                }
            }
            std::future::pending::<()>().await;
        });
        for member in &members {
            let mut buf = [0; 50];
            ReadExt::read_exact(&mut &member.peer, &mut buf).await.unwrap();
            assert!(buf.chunks(10).zip(0..).all(|(chunk, message)| chunk == [message; 10]));
        }
        turn.cancel().await;
        members.iter().map(|member| sends(member.number)).sum::<u32>() < 500
    }));
}

/// A write that waits for room first sends the bytes that other streams have gathered.
#[test]
fn write_that_waits_sends_gathered_bytes_of_other_streams() {
    run(async {
        let Counted { ours, peer, number } = Counted::new().await;
        let bytes = vec![0; 64 << 20];
        for _ in 0..5 {
            let (large, _large_peer) = pair().await;
            ours.write_all(b"x").await.unwrap();
            // The write is larger than any send buffer.
            assert!(common::poll_once(&mut large.write_all(&bytes)).await.is_pending());
            assert_eq!(info(number).gathered(), 0);
            read_exact(&peer, &mut [0; 1]).await.unwrap();
        }
    });
}
