//! An event wakes one waiting future, and then the next one if data or connections are left. It
//! also wakes every task that waits in a `poll_*` function. Polls with new wakers keep a bounded
//! number of wakers. Most tests count the calls of wakers.
//!
//! Invariant 7. Also invariant 2, as far as tests can observe it: no wake-up is lost.

mod common;

use std::io::IoSliceMut;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use common::by_hand::{Wakes, fresh_pair, round_trip, trait_read};
use common::{becomes, poll_now, poll_with, run};
use netpoll::io::{Read, Write};
use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::os::unix::net::UnixStream;
use netpoll::task;

type Counted = (Arc<Wakes>, Waker);

fn counted(count: usize) -> Vec<Counted> {
    (0..count).map(|_| Wakes::new()).collect()
}

fn counts(wakers: &[Counted]) -> Vec<usize> {
    wakers.iter().map(|(wakes, _)| wakes.count()).collect()
}

fn total(wakers: &[Counted]) -> usize {
    counts(wakers).iter().sum()
}

/// Makes round trips, so that the poller first receives the events that are already in the kernel.
/// (If the poller has several shards, it may receive some of those events later.) Between the
/// registration of a socket and the first data, this keeps the kernel from reporting the data
/// twice: with the event of the registration, and as an event of its own.
async fn settle() {
    let (one, other) = fresh_pair().await;
    for _ in 0..3 {
        round_trip(&one, &other).await;
    }
}

/// Invariant 7.
#[test]
fn connection_wakes_one_of_many_acceptors() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let wakers = counted(8);
        let mut accepts: Vec<_> = wakers.iter().map(|_| Some(listener.accept())).collect();
        for (accept, (_, waker)) in accepts.iter_mut().zip(&wakers) {
            assert!(poll_with(accept.as_mut().unwrap(), waker).is_pending());
        }
        let _one = std::net::TcpStream::connect(addr).unwrap();
        becomes("one acceptor is woken", || total(&wakers) > 0).await;
        settle().await;
        assert_eq!(counts(&wakers), [1, 0, 0, 0, 0, 0, 0, 0], "one connection wakes the first waiter");
        // After an accept the queue may hold more, so the next waiter is woken, finds nothing and
        // returns to the end of the list.
        accepts[0].take().unwrap().await.unwrap();
        assert_eq!(counts(&wakers), [1, 1, 0, 0, 0, 0, 0, 0]);
        assert!(poll_with(accepts[1].as_mut().unwrap(), &wakers[1].1).is_pending());
        settle().await;
        assert_eq!(counts(&wakers), [1, 1, 0, 0, 0, 0, 0, 0]);
        let _two = std::net::TcpStream::connect(addr).unwrap();
        becomes("another acceptor is woken", || total(&wakers) > 2).await;
        settle().await;
        assert_eq!(counts(&wakers), [1, 1, 1, 0, 0, 0, 0, 0]);
        // The woken accept is dropped, so the next one takes the connection.
        drop(accepts[2].take());
        assert_eq!(counts(&wakers), [1, 1, 1, 1, 0, 0, 0, 0]);
        accepts[3].take().unwrap().await.unwrap();
    });
}

/// Invariant 7.
#[test]
fn data_wakes_one_of_many_readers() {
    run(async {
        let (client, server) = fresh_pair().await;
        let wakers = counted(8);
        let mut bufs = [[0; 16]; 8];
        let mut reads: Vec<_> = bufs.iter_mut().map(|buf| Some(client.read(buf))).collect();
        for (read, (_, waker)) in reads.iter_mut().zip(&wakers) {
            assert!(poll_with(read.as_mut().unwrap(), waker).is_pending());
        }
        settle().await;
        for (round, slot) in reads.iter_mut().enumerate().take(4) {
            server.write_all(b"data").await.unwrap();
            becomes("one reader is woken", || total(&wakers) > round).await;
            settle().await;
            assert_eq!(total(&wakers), round + 1, "one segment, one wake-up: {:?}", counts(&wakers));
            assert_eq!(wakers[round].0.count(), 1, "in order of arrival");
            assert_eq!(slot.take().expect("alive").await.unwrap(), 4);
        }
        settle().await;
        assert_eq!(total(&wakers), 4);
    });
}

/// Invariant 7.
#[test]
fn partial_read_wakes_next_reader() {
    run(async {
        let (client, server) = fresh_pair().await;
        let wakers = counted(4);
        let mut bufs = [[0; 4]; 4];
        let mut reads: Vec<_> = bufs.iter_mut().map(|buf| client.read(buf)).collect();
        for (read, (_, waker)) in reads.iter_mut().zip(&wakers) {
            assert!(poll_with(read, waker).is_pending());
        }
        settle().await;
        server.write_all(b"11112222333").await.unwrap();
        for (at, want) in [4, 4, 3].into_iter().enumerate() {
            becomes("the next reader is woken", || wakers[at].0.count() == 1).await;
            assert_eq!(wakers[at + 1].0.count(), 0, "not before the previous one has read");
            assert_eq!((&mut reads[at]).await.unwrap(), want);
        }
        settle().await;
        assert_eq!(counts(&wakers), [1, 1, 1, 0], "the last read was short, so nothing is left");
        drop(reads);
        assert_eq!(bufs, [*b"1111", *b"2222", *b"333\0", [0; 4]]);
    });
}

/// The accepts are awaited one after another.
#[test]
fn connections_that_share_an_edge_are_all_accepted() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        // Eight connections at once may cause only one edge.
        let _clients = task::spawn_blocking(move || {
            (0..8).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect::<Vec<_>>()
        });
        let acceptors: Vec<_> = (0..8).map(|_| listener.accept()).collect();
        for accept in acceptors {
            accept.await.unwrap();
        }
    });
}

/// Invariant 7. An unused wake-up passes to the next waiter, even if several in a row are dropped.
#[test]
fn dropped_read_passes_wakeup_on() {
    run(async {
        let (client, server) = fresh_pair().await;
        let wakers = counted(5);
        let (mut b0, mut b2, mut b3, mut b4) = ([0; 8], [0; 8], [0; 8], [0; 8]);
        let mut slices = [IoSliceMut::new(&mut b2)];
        let mut first = client.read(&mut b0);
        let mut second = client.readable();
        let mut third = client.read_vectored(&mut slices);
        let mut fourth = client.peek(&mut b3);
        let mut fifth = client.read(&mut b4);
        assert!(poll_with(&mut first, &wakers[0].1).is_pending());
        assert!(poll_with(&mut second, &wakers[1].1).is_pending());
        assert!(poll_with(&mut third, &wakers[2].1).is_pending());
        assert!(poll_with(&mut fourth, &wakers[3].1).is_pending());
        assert!(poll_with(&mut fifth, &wakers[4].1).is_pending());
        settle().await;
        server.write_all(b"data").await.unwrap();
        becomes("the first waiter is woken", || wakers[0].0.count() == 1).await;
        drop(first);
        assert_eq!(counts(&wakers), [1, 1, 0, 0, 0]);
        drop(second);
        assert_eq!(counts(&wakers), [1, 1, 1, 0, 0]);
        drop(third);
        assert_eq!(counts(&wakers), [1, 1, 1, 1, 0]);
        // An operation that leaves the data in the socket also passes the wake-up on.
        assert_eq!(fourth.await.unwrap(), 4);
        assert_eq!(counts(&wakers), [1, 1, 1, 1, 1]);
        assert_eq!(fifth.await.unwrap(), 4);
    });
}

/// Invariant 7.
#[test]
fn dropped_accept_wakes_next_acceptor() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wakers = counted(3);
        let mut accepts: Vec<_> = wakers.iter().map(|_| listener.accept()).collect();
        for (accept, (_, waker)) in accepts.iter_mut().zip(&wakers) {
            assert!(poll_with(accept, waker).is_pending());
        }
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        becomes("the first waiter is woken", || wakers[0].0.count() == 1).await;
        drop(accepts.remove(0));
        assert_eq!(counts(&wakers), [1, 1, 0]);
        drop(accepts.remove(0));
        assert_eq!(counts(&wakers), [1, 1, 1]);
        accepts.remove(0).await.unwrap();
    });
}

/// Invariant 2. A future that is polled again with another waker is woken through the new waker
/// only.
#[test]
fn last_waker_is_woken() {
    run(async {
        let (client, server) = fresh_pair().await;
        let wakers = counted(3);
        let mut buf = [0; 8];
        let mut read = client.read(&mut buf);
        for (_, waker) in &wakers {
            assert!(poll_with(&mut read, waker).is_pending());
        }
        server.write_all(b"data").await.unwrap();
        becomes("the last waker is woken", || wakers[2].0.count() == 1).await;
        settle().await;
        assert_eq!(counts(&wakers), [0, 0, 1]);
        assert_eq!(read.await.unwrap(), 4);
    });
}

/// Invariant 2. Several tasks call `poll_read`. Each event wakes all of these tasks, and one
/// waiting future if there is one that was not woken before.
#[test]
fn all_poll_callers_are_woken() {
    run(async {
        let (client, server) = fresh_pair().await;
        let (wakers, futures) = (counted(5), counted(2));
        let (mut one, mut two, mut buf) = ([0; 8], [0; 8], [0; 8]);
        let (mut first, mut second) = (client.read(&mut one), client.read(&mut two));
        assert!(poll_with(&mut first, &futures[0].1).is_pending());
        assert!(poll_with(&mut second, &futures[1].1).is_pending());
        settle().await;
        for round in 1..=3 {
            for (_, waker) in &wakers {
                let polled = Pin::new(&mut &client).poll_read(&mut Context::from_waker(waker), &mut buf);
                assert!(polled.is_pending());
            }
            server.write_all(b"data").await.unwrap();
            becomes("all wakers of polls are woken", || counts(&wakers).iter().all(|&count| count == round)).await;
            settle().await;
            assert_eq!(counts(&wakers), [round; 5]);
            assert_eq!(counts(&futures), [usize::from(round >= 1), usize::from(round >= 2)]);
            assert_eq!(client.read(&mut buf).await.unwrap(), 4);
        }
    });
}

/// Invariant 2. Many readers receive many small messages. Each byte is read once, and no reader
/// sleeps while there is data.
#[test]
fn many_readers_receive_every_byte() {
    run(async {
        let (client, server) = fresh_pair().await;
        let handles: Vec<_> = (0..8)
            .map(|id| {
                let client: TcpStream = client.clone();
                task::spawn(async move {
                    let (mut buf, mut total) = ([0; 7], 0);
                    loop {
                        let read = match id % 2 {
                            0 => client.read(&mut buf).await,
                            _ => trait_read(&client, &mut buf).await,
                        };
                        match read.unwrap() {
                            0 => return total,
                            count => total += count,
                        }
                    }
                })
            })
            .collect();
        for round in 0..2000_usize {
            server.write_all(&vec![1; 1 + round % 40]).await.unwrap();
            if round % 16 == 0 {
                task::yield_now().await;
            }
        }
        server.close_write().unwrap();
        let mut total = 0;
        for handle in handles {
            total += handle.await;
        }
        assert_eq!(total, (0..2000).map(|round| 1 + round % 40).sum::<usize>());
    });
}

/// A waker that is counted while it exists.
struct Kept(Arc<AtomicUsize>);

impl Wake for Kept {
    fn wake(self: Arc<Kept>) {}
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Polls with a new waker each time. Returns the maximum number of wakers kept at a time.
fn most_kept(mut poll: impl FnMut(&mut Context<'_>) -> bool) -> usize {
    let (kept, mut most) = (Arc::new(AtomicUsize::new(0)), 0);
    for _ in 0..50_000 {
        kept.fetch_add(1, Ordering::Relaxed);
        let waker = Waker::from(Arc::new(Kept(kept.clone())));
        assert!(poll(&mut Context::from_waker(&waker)), "the operation must wait");
        drop(waker);
        most = most.max(kept.load(Ordering::Relaxed));
    }
    most
}

#[test]
fn polls_with_new_wakers_do_not_accumulate() {
    /// The maximum number of kept wakers: those of two lists of at most 4,096 each, and of two
    /// slots.
    const MOST: usize = 2 * 4096 + 2;
    run(async {
        // Polls that wait for a lock, which another operation holds.
        let (one, _other) = UnixStream::pair().unwrap();
        let bytes = vec![0; 4 << 20];
        let writer = one.clone();
        let mut all = pin!(writer.write_all(&bytes));
        assert!(poll_now(&mut all).is_pending());
        let mut one = one;
        let most = most_kept(|cx| Pin::new(&mut one).poll_write(cx, b"x").is_pending());
        assert!(most <= MOST, "{most} wakers kept behind a lock");
        // Polls that wait for data.
        let most = most_kept(|cx| Pin::new(&mut one).poll_read(cx, &mut [0; 1]).is_pending());
        assert!(most <= MOST, "{most} wakers kept for a silent peer");
        // Polls that wait for a connection.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut incoming = listener.incoming();
        let most = most_kept(|cx| futures::Stream::poll_next(Pin::new(&mut incoming), cx).is_pending());
        assert!(most <= MOST, "{most} wakers kept for a connection");
        // Polls that wait for the other end of a pipe.
        let (mut end, _other) = net::pipe().unwrap();
        let most = most_kept(|cx| Pin::new(&mut end).poll_read(cx, &mut [0; 1]).is_pending());
        assert!(most <= MOST, "{most} wakers kept for the other end of a pipe");
        // Polls that wait for a close to complete while a call is in progress.
        let (stream, _peer) = fresh_pair().await;
        let ((begun, begins), (ends, wait)) = (mpsc::channel(), mpsc::channel::<()>());
        let call = std::thread::spawn({
            let stream = stream.clone();
            move || {
                let called = stream.control(|_| {
                    begun.send(()).unwrap();
                    assert!(wait.recv().is_err());
                    Ok(())
                });
                drop(called);
            }
        });
        begins.recv().unwrap();
        let most = most_kept(|cx| Pin::new(&mut stream.force_close()).poll(cx).is_pending());
        assert!(most <= MOST, "{most} wakers kept for the end of a close");
        drop(ends);
        call.join().unwrap();
        assert!(matches!(
            Pin::new(&mut stream.force_close()).poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(Ok(()))
        ));
    });
}
