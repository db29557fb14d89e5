//! Unix datagrams: names of senders, message boundaries, full queues, deadlines, concurrent use,
//! shutdown.

mod common;

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net as std_net;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use common::by_hand::Wakes;
use common::{Folder, becomes, no_forks, park_on, poll_once, poll_with, run};
use netpoll::net::{is_closed, is_timeout, raw_os_error};
use netpoll::os::unix::net::{UnixDatagram, UnixListener};
use netpoll::{io, task};

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    raw_os_error(&result.unwrap_err())
}

/// Sends from `socket` to `receiver` until a send would wait. Returns the number of datagrams sent.
async fn fill(socket: &UnixDatagram, receiver: &UnixDatagram) -> usize {
    let to = receiver.local_addr().unwrap();
    let mut count = 0;
    while let Poll::Ready(sent) = poll_once(&mut socket.send_to_addr(b"full", &to)).await {
        assert_eq!(sent.unwrap(), 4);
        count += 1;
    }
    count
}

// ---- boundaries and names ----

/// Go: TestReadUnixgramWithUnnamedSocket. Empty datagrams are delivered, and a short buffer
/// truncates a datagram.
#[test]
fn datagrams_keep_message_boundaries() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        for message in [&b"first"[..], b"", b"the third", b"cut", b"last"] {
            assert_eq!(one.send(message).await.unwrap(), message.len());
        }
        let mut buf = [0; 6];
        assert_eq!(other.peek(&mut buf).await.unwrap(), 5);
        assert_eq!(other.recv(&mut buf).await.unwrap(), 5);
        let (count, from) = other.recv_from(&mut buf).await.unwrap();
        assert!(count == 0 && from.is_unnamed(), "an empty datagram");
        assert_eq!((other.recv(&mut buf).await.unwrap(), &buf), (6, b"the th"));
        assert_eq!(other.recv_from(&mut []).await.unwrap().0, 0, "an empty buffer receives a datagram too");
        assert_eq!(other.recv(&mut buf).await.unwrap(), 4);
        assert!(poll_once(&mut other.recv(&mut buf)).await.is_pending());
    });
}

/// Go: TestReadUnixgramWithUnnamedSocket, TestUnixConnLocalAndRemoteNames. Senders may be named or
/// unnamed.
#[test]
fn receivers_see_sender_names() {
    run(async {
        let folder = Folder::new();
        let path = folder.join("server");
        let server = UnixDatagram::bind(&path).await.unwrap();
        let unnamed = UnixDatagram::unbound().unwrap();
        let named = UnixDatagram::bind(folder.join("client")).await.unwrap();
        let chosen = UnixDatagram::bind("").await.unwrap();
        assert!(unnamed.local_addr().unwrap().is_unnamed());
        assert_eq!(server.local_addr().unwrap().as_pathname(), Some(&*path));
        let mut buf = [0; 16];
        for (client, expected) in [(&unnamed, None), (&named, Some(&named)), (&chosen, Some(&chosen))] {
            client.send_to(b"who am I?", &path).await.unwrap();
            let (_, peeked) = server.peek_from(&mut buf).await.unwrap();
            let (count, from) = server.recv_from(&mut buf).await.unwrap();
            assert_eq!((count, format!("{from:?}")), (9, format!("{peeked:?}")));
            match expected {
                None => {
                    assert!(from.is_unnamed());
                    assert!(
                        errno(server.send_to_addr(b"x", &from).await).is_some(),
                        "there is no socket with an empty name"
                    );
                }
                Some(socket) => {
                    assert_eq!(format!("{from:?}"), format!("{:?}", socket.local_addr().unwrap()));
                    // The server can answer to the sender's name.
                    server.send_to_addr(b"you", &from).await.unwrap();
                    assert_eq!(socket.recv(&mut buf).await.unwrap(), 3);
                }
            }
        }
        // Go: TestUnixgramAutobind. The name that the kernel chose is abstract, and is released
        // with its socket.
        let addr = chosen.local_addr().unwrap();
        let _no_forks = no_forks();
        chosen.close().await.unwrap();
        assert_eq!(server.send_to_addr(b"x", &addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // The socket file remains, as with std.
        drop(server);
        assert!(path.exists());
        assert_eq!(named.send_to(b"x", &path).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

/// Go: TestUnixgramWrite. Connected and unconnected sockets can send and receive.
#[test]
fn connected_and_unconnected_sockets_send_and_receive() {
    run(async {
        let folder = Folder::new();
        let (path, path_other) = (folder.join("a"), folder.join("b"));
        let (server, other) =
            (UnixDatagram::bind(&path).await.unwrap(), UnixDatagram::bind(&path_other).await.unwrap());
        let client = UnixDatagram::bind("").await.unwrap();
        let mut buf = [0; 16];
        assert_eq!(errno(client.send(b"x").await), Some(libc::ENOTCONN));
        assert_eq!(errno(client.peer_addr()), Some(libc::ENOTCONN));
        client.connect(&path).await.unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*path));
        client.send(b"connected").await.unwrap();
        assert_eq!(server.recv(&mut buf).await.unwrap(), 9);
        // A connected socket can send to other receivers by name, and only its peer can send to it.
        client.send_to(b"named", &path_other).await.unwrap();
        assert_eq!(other.recv(&mut buf).await.unwrap(), 5);
        let addr = client.local_addr().unwrap();
        assert_eq!(errno(other.send_to_addr(b"x", &addr).await), Some(libc::EPERM));
        server.send_to_addr(b"peer", &addr).await.unwrap();
        assert_eq!(client.recv(&mut buf).await.unwrap(), 4);
        // The peer can be changed, even to a socket with an abstract name.
        let third = UnixDatagram::bind("").await.unwrap();
        client.connect_addr(&third.local_addr().unwrap()).await.unwrap();
        client.send(b"moved").await.unwrap();
        assert_eq!(third.recv(&mut buf).await.unwrap(), 5);

        let missing = folder.join("missing");
        let error = client.connect(&missing).await.unwrap_err();
        let at = missing.display();
        assert_eq!(error.to_string(), format!("dial unixgram {at}: connect: no such file or directory"));
        assert_eq!(client.send_to(b"x", &missing).await.unwrap_err().kind(), ErrorKind::NotFound);
        let stream = folder.join("stream");
        let _listener = UnixListener::bind(&stream).await.unwrap();
        assert_eq!(errno(client.connect(&stream).await), Some(libc::EPROTOTYPE));
        assert_eq!(errno(client.send_to(b"x", &stream).await), Some(libc::EPROTOTYPE));
        assert_eq!(errno(client.send_to(&vec![0; 64 << 20], &path).await), Some(libc::EMSGSIZE));
        // The peer of a connected socket is closed.
        client.connect(&path).await.unwrap();
        let _no_forks = no_forks();
        drop(server);
        assert_eq!(client.send(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn std_datagram_sockets_interoperate() {
    run(async {
        let folder = Folder::new();
        let ours = UnixDatagram::bind(folder.join("ours")).await.unwrap();
        let theirs = std_net::UnixDatagram::bind(folder.join("theirs")).unwrap();
        theirs.send_to(b"hello", folder.join("ours")).unwrap();
        let mut buf = [0; 16];
        let (count, from) = ours.recv_from(&mut buf).await.unwrap();
        assert_eq!((count, from.as_pathname()), (5, Some(&*folder.join("theirs"))));
        ours.send_to_addr(b"back", &from).await.unwrap();
        assert_eq!(theirs.recv(&mut buf).unwrap(), 4);
    });
}

// ---- full queues ----

/// If a receive takes the datagram of another sender, the kernel does not wake a waiting sender
/// that is not connected to the receiver. In this test another sender has filled the queue.
#[test]
fn sender_gets_room_in_a_queue_that_another_sender_filled() {
    #[derive(Clone, Copy, PartialEq)]
    enum Sender {
        Connected,
        Unconnected,
        /// Connected to a third socket, whose queue is full and stays full.
        ConnectedElsewhere,
    }
    for kind in [Sender::Connected, Sender::Unconnected, Sender::ConnectedElsewhere] {
        run(async {
            let (receiver, third) = (UnixDatagram::bind("").await.unwrap(), UnixDatagram::bind("").await.unwrap());
            let to = receiver.local_addr().unwrap();
            let other = UnixDatagram::unbound().unwrap();
            let filled = fill(&other, &receiver).await;
            fill(&other, &third).await;
            let sender = UnixDatagram::unbound().unwrap();
            match kind {
                Sender::Connected => sender.connect_addr(&to).await.unwrap(),
                Sender::Unconnected => {}
                Sender::ConnectedElsewhere => sender.connect_addr(&third.local_addr().unwrap()).await.unwrap(),
            }
            let waiting = task::spawn(async move {
                match kind {
                    Sender::Connected => sender.send(b"mine").await,
                    _ => sender.send_to_addr(b"mine", &to).await,
                }
            });
            // In this time, the sender usually waits more than once.
            task::sleep(Duration::from_millis(10)).await;
            assert!(!waiting.is_finished());
            let mut buf = [0; 8];
            for _ in 0..filled {
                assert_eq!(receiver.recv(&mut buf).await.unwrap(), 4);
                assert_eq!(&buf[..4], b"full");
            }
            assert_eq!(receiver.recv(&mut buf).await.unwrap(), 4);
            assert_eq!(&buf[..4], b"mine");
            assert_eq!(waiting.await.unwrap(), 4);
        });
    }
}

/// The kernel reports room in the sender's own buffer. In this test the buffer is full of datagrams
/// to several receivers.
#[test]
fn sender_is_woken_by_its_own_buffer_space() {
    run(async {
        let sender = UnixDatagram::unbound().unwrap();
        let big = vec![7; 64 << 10];
        let mut receivers = Vec::new();
        // Stops when the sender's buffer is full.
        let last = loop {
            let receiver = UnixDatagram::bind("").await.unwrap();
            let to = receiver.local_addr().unwrap();
            receivers.push(receiver);
            if poll_once(&mut sender.send_to_addr(&big, &to)).await.is_pending() {
                break to;
            }
            assert!(receivers.len() < 1000, "the send buffer does not fill");
        };
        let mut waiting = sender.send_to_addr(&big, &last);
        assert!(poll_once(&mut waiting).await.is_pending());
        let mut buf = vec![0; 64 << 10];
        for receiver in &receivers[..receivers.len() - 1] {
            assert_eq!(receiver.recv(&mut buf).await.unwrap(), big.len());
        }
        assert_eq!(waiting.await.unwrap(), big.len());
        assert_eq!(receivers.last().unwrap().recv(&mut buf).await.unwrap(), big.len());
    });
}

/// The sender retries rarely. Each failed attempt causes an event, which must not cause the next
/// attempt.
#[test]
fn waiting_sender_does_not_spin() {
    common::child("waiting_sender_does_not_spin", || {
        task::block_on(async {
            let receiver = UnixDatagram::bind("").await.unwrap();
            let to = receiver.local_addr().unwrap();
            for own in [false, true] {
                let (sender, other) = (UnixDatagram::unbound().unwrap(), UnixDatagram::unbound().unwrap());
                let filled = fill(if own { &sender } else { &other }, &receiver).await;
                sender.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
                let before = netpoll::rt::metrics();
                let start = Instant::now();
                assert!(is_timeout(&sender.send_to_addr(b"x", &to).await.unwrap_err()));
                assert!(start.elapsed() >= Duration::from_millis(300));
                let after = netpoll::rt::metrics();
                // The sender makes eight pauses from 0.1 to 12.8 ms, and then pauses of 20 ms.
                // These are 22 pauses in 300 ms, and fewer on a busy machine.
                let (timers, polls) = (after.timers_fired - before.timers_fired, after.polls - before.polls);
                assert!((1..=40).contains(&timers) && polls <= 200, "{timers} timers, {polls} polls");
                for _ in 0..filled {
                    receiver.recv(&mut [0; 8]).await.unwrap();
                }
            }
        });
    });
}

#[test]
fn deadline_and_close_end_waiting_send() {
    run(async {
        let receiver = UnixDatagram::bind("").await.unwrap();
        let to = receiver.local_addr().unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        fill(&sender, &receiver).await;
        sender.set_write_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        let error = sender.send_to_addr(b"x", &to).await.unwrap_err();
        assert_eq!(error.to_string(), "write unixgram @: i/o timeout");
        sender.set_write_deadline(None).unwrap();
        let mut waiting = sender.send_to_addr(b"x", &to);
        assert!(poll_once(&mut waiting).await.is_pending());
        sender.close().await.unwrap();
        assert!(is_closed(&waiting.await.unwrap_err()));
        assert!(is_closed(&sender.send_to_addr(b"x", &to).await.unwrap_err()));
        // Closing the receiver also ends a send that waits.
        let sender = UnixDatagram::unbound().unwrap();
        let mut waiting = sender.send_to_addr(b"x", &to);
        assert!(poll_once(&mut waiting).await.is_pending());
        drop(receiver);
        assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

/// A send that is dropped while it waits has sent nothing.
#[test]
fn dropped_send_sends_nothing() {
    park_on(async {
        let receiver = UnixDatagram::bind("").await.unwrap();
        let to = receiver.local_addr().unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let filled = fill(&sender, &receiver).await;
        for _ in 0..10 {
            let mut waiting = sender.send_to_addr(b"dropped", &to);
            assert!(poll_once(&mut waiting).await.is_pending());
        }
        let mut buf = [0; 8];
        for _ in 0..filled {
            assert_eq!(receiver.recv(&mut buf).await.unwrap(), 4);
        }
        assert!(poll_once(&mut receiver.recv(&mut buf)).await.is_pending());
        assert_eq!(sender.send_to_addr(b"next", &to).await.unwrap(), 4);
    });
}

// ---- concurrent use ----

/// Receivers and senders run in parallel. Datagrams that share an event leave no receiver waiting.
#[test]
fn concurrent_datagram_tasks_lose_nothing() {
    const EACH: usize = 500;
    run(async {
        let receiver = Arc::new(UnixDatagram::bind("").await.unwrap());
        let to = receiver.local_addr().unwrap();
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let receiver = receiver.clone();
                task::spawn(async move {
                    let mut sum = 0;
                    let mut buf = [0; 8];
                    loop {
                        match receiver.recv(&mut buf).await.unwrap() {
                            0 => return sum,
                            8 => sum += u64::from_le_bytes(buf),
                            count => panic!("{count} bytes"),
                        }
                    }
                })
            })
            .collect();
        let senders: Vec<_> = (0..4)
            .map(|number| {
                let to = to.clone();
                task::spawn(async move {
                    let socket = UnixDatagram::unbound().unwrap();
                    if number % 2 == 0 {
                        socket.connect_addr(&to).await.unwrap();
                    }
                    for n in 0..EACH as u64 {
                        match number % 2 {
                            0 => socket.send(&n.to_le_bytes()).await.unwrap(),
                            _ => socket.send_to_addr(&n.to_le_bytes(), &to).await.unwrap(),
                        };
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await;
        }
        let end = UnixDatagram::unbound().unwrap();
        for _ in 0..4 {
            end.send_to_addr(b"", &to).await.unwrap();
        }
        let mut sum = 0;
        for receiver in receivers {
            sum += receiver.await;
        }
        assert_eq!(sum, 4 * (EACH * (EACH - 1) / 2) as u64);
    });
}

#[test]
fn burst_wakes_every_receiver() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let other = Arc::new(other);
        for _ in 0..20 {
            let waiting = Arc::new(AtomicUsize::new(0));
            let receivers: Vec<_> = (0..5)
                .map(|_| {
                    let (other, waiting) = (other.clone(), waiting.clone());
                    task::spawn(async move {
                        let mut buf = [0; 8];
                        let mut recv = other.recv(&mut buf);
                        assert!(poll_once(&mut recv).await.is_pending());
                        waiting.fetch_add(1, Ordering::SeqCst);
                        recv.await
                    })
                })
                .collect();
            becomes("all receivers wait", || waiting.load(Ordering::SeqCst) == 5).await;
            for _ in 0..5 {
                one.send(b"burst").await.unwrap();
            }
            for receiver in receivers {
                assert_eq!(receiver.await.unwrap(), 5);
            }
        }
    });
}

// ---- shutdown ----

#[test]
fn deadline_close_and_shutdown_end_receives() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        other.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        let mut buf = [0; 8];
        assert!(is_timeout(&other.recv(&mut buf).await.unwrap_err()));
        one.send(b"kept").await.unwrap();
        assert!(is_timeout(&other.recv_from(&mut buf).await.unwrap_err()));
        other.set_deadline(None).unwrap();
        other.readable().await.unwrap();
        assert_eq!(other.recv(&mut buf).await.unwrap(), 4);
        one.writable().await.unwrap();
        other.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        assert!(is_timeout(&other.recv(&mut buf).await.unwrap_err()));
        other.set_read_timeout(None).unwrap();
        let (wakes, waker) = Wakes::new();
        let mut waiting = other.recv(&mut buf);
        assert!(poll_with(&mut waiting, &waker).is_pending());
        other.close().await.unwrap();
        becomes("the receive is woken", || wakes.count() > 0).await;
        let error = waiting.await.unwrap_err();
        assert!(is_closed(&error));
        assert_eq!(error.to_string(), "read unixgram @->@: use of closed network connection");
        assert!(is_closed(&other.recv(&mut buf).await.unwrap_err()));
        other.close().await.unwrap();
        let (one, _other) = UnixDatagram::pair().unwrap();
        let mut waiting = one.recv_from(&mut buf);
        assert!(poll_once(&mut waiting).await.is_pending());
        one.shutdown(Shutdown::Read).unwrap();
        let (count, from) = waiting.await.unwrap();
        assert!(count == 0 && from.is_unnamed());
        assert_eq!(one.recv(&mut buf).await.unwrap(), 0);
        assert_eq!(one.recv_with_fds(&mut buf, &mut Vec::new()).await.unwrap(), 0);
    });
}

/// The kernel answers EAGAIN to a receive after shutdown(2), as for an empty queue. A poll before
/// the event must not wait.
#[test]
fn shut_down_receiving_side_is_at_its_end_immediately() {
    async fn is_at_its_end(socket: &UnixDatagram) {
        let (mut buf, mut fds, mut other) = ([0; 8], Vec::new(), Vec::new());
        let ends = [
            poll_once(&mut socket.recv(&mut buf)).await.map_ok(|count| (count, true)),
            poll_once(&mut socket.peek(&mut [0; 8])).await.map_ok(|count| (count, true)),
            poll_once(&mut socket.recv_with_fds(&mut [0; 8], &mut fds)).await.map_ok(|count| (count, true)),
            poll_once(&mut socket.recv_from(&mut [0; 8])).await.map_ok(|(count, from)| (count, from.is_unnamed())),
            poll_once(&mut socket.peek_from(&mut [0; 8])).await.map_ok(|(count, from)| (count, from.is_unnamed())),
            poll_once(&mut socket.recv_from_with_fds(&mut [0; 8], &mut other))
                .await
                .map_ok(|(count, from)| (count, from.is_unnamed())),
        ];
        for (at, end) in ends.into_iter().enumerate() {
            assert!(matches!(end, Poll::Ready(Ok((0, true)))), "{at}: {end:?}");
        }
    }
    run(async {
        for how in [Shutdown::Read, Shutdown::Both] {
            for by_duplicate in [false, true] {
                for has_waited in [false, true] {
                    for message in [None, Some(b"last")] {
                        let (one, other) = UnixDatagram::pair().unwrap();
                        if has_waited {
                            assert!(poll_once(&mut one.recv(&mut [0; 8])).await.is_pending());
                        }
                        if let Some(message) = message {
                            other.send(message).await.unwrap();
                        }
                        if by_duplicate {
                            let duplicate = one.as_fd().try_clone_to_owned().unwrap();
                            std_net::UnixDatagram::from(duplicate).shutdown(how).unwrap();
                        } else {
                            one.shutdown(how).unwrap();
                        }
                        if message.is_some() {
                            let received = poll_once(&mut one.recv(&mut [0; 8])).await;
                            assert!(matches!(received, Poll::Ready(Ok(4))), "{received:?}");
                        }
                        is_at_its_end(&one).await;
                    }
                }
            }
        }
    });
}
