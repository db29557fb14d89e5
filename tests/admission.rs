//! Admission: permits (`max_connections`), and reserved descriptors, which let a process without
//! free descriptors refuse clients.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::by_hand::{Wakes, woken_by};
use common::{
    BOUND, becomes, child, eventually, exhaust_descriptors, fd_count, ping_pong, poll_now, poll_once, poll_with, run,
    set_nofile,
};
use netpoll::net::{ListenConfig, TcpListener, TcpStream, is_closed, is_timeout, raw_os_error};
use netpoll::prelude::*;
use netpoll::rt::{self, Inspect};
use netpoll::task;

async fn limited(most: usize) -> TcpListener {
    ListenConfig::new().max_connections(most).listen("127.0.0.1:0").await.unwrap()
}

/// Opens `count` connections to `listener`. They stay in its queue until they are accepted.
async fn clients(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let addr = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(TcpStream::connect(addr).await.unwrap());
    }
    clients
}

#[test]
fn permit_belongs_to_connection_not_handle() {
    run(async {
        let listener = limited(2).await;
        let _clients = clients(&listener, 6).await;
        assert_eq!(listener.connections(), 0);
        let (first, _) = listener.accept().await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        assert_eq!(listener.connections(), 2);
        let mut accept = listener.accept();
        assert!(poll_once(&mut accept).await.is_pending());
        // A clone counts as the same connection.
        let clone = first.clone();
        drop(first);
        assert!(poll_once(&mut accept).await.is_pending());
        drop(clone);
        let (third, _) = accept.await.unwrap();
        assert_eq!(listener.connections(), 2);
        // A close releases the permit, even while clones remain.
        let clone = second.clone();
        second.force_close().await.unwrap();
        let (fourth, _) = listener.accept().await.unwrap();
        drop((second, clone));
        assert_eq!(listener.connections(), 2);
        // A stream that is converted into another type is no longer counted.
        let third = OwnedFd::from(third);
        let (_fifth, _) = listener.accept().await.unwrap();
        drop(third);
        let fourth = std::net::TcpStream::try_from(fourth).unwrap();
        let (_sixth, _) = listener.accept().await.unwrap();
        drop(fourth);
        assert_eq!(listener.connections(), 2);
    });
}

/// With a linger time above zero, another thread calls close(2) and returns the permit.
#[test]
fn lingering_close_returns_its_permit() {
    run(async {
        let listener = limited(1).await;
        let _clients = clients(&listener, 2).await;
        let (first, _) = listener.accept().await.unwrap();
        first.set_linger(Some(Duration::from_secs(5))).unwrap();
        drop(first);
        listener.accept().await.unwrap();
    });
}

#[test]
fn deadline_and_close_end_accept_waiting_for_permit() {
    run(async {
        let listener = limited(1).await;
        let addr = listener.local_addr().unwrap();
        let _clients = clients(&listener, 2).await;
        let (first, _) = listener.accept().await.unwrap();
        listener.set_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        let error = listener.accept().await.unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert_eq!(error.to_string(), format!("accept tcp {addr}: i/o timeout"));
        listener.set_deadline(None).unwrap();
        // A deadline that has passed ends an accept that waits. Without the deadline, the next
        // accept waits again.
        let expire = async || listener.set_deadline(Instant::now() - Duration::from_secs(1)).unwrap();
        assert!(is_timeout(&woken_by(listener.accept(), expire).await.unwrap_err()));
        listener.set_deadline(None).unwrap();
        let mut accept = listener.accept();
        assert!(poll_once(&mut accept).await.is_pending());
        drop(first);
        let (second, _) = accept.await.unwrap();
        // An `accept` and an `incoming` both wait when the listener is closed.
        let mut incoming = listener.incoming();
        assert!(poll_once(&mut incoming.next()).await.is_pending());
        let close = async || listener.close().await.unwrap();
        let error = woken_by(listener.accept(), close).await.unwrap_err();
        assert_eq!(error.to_string(), format!("accept tcp {addr}: use of closed network connection"));
        assert!(is_closed(&incoming.next().await.unwrap().unwrap_err()));
        assert!(incoming.next().await.is_none());
        drop(second);
    });
}

/// Regression: an accept at the limit noticed the shutdown only when a connection had ended.
#[test]
fn shutdown_by_another_owner_ends_accept_waiting_for_permit() {
    run(async {
        // In the second round, an accept has waited for a connection before.
        for waits_first in [false, true] {
            let listener = Arc::new(limited(1).await);
            let other = listener.as_fd().try_clone_to_owned().unwrap();
            let mut first = listener.accept();
            if waits_first {
                assert!(poll_once(&mut first).await.is_pending());
            }
            let _clients = clients(&listener, 2).await;
            let (_stream, _) = first.await.unwrap();
            let waiting = task::spawn({
                let listener = listener.clone();
                async move { listener.accept().await.map(drop) }
            });
            let mut incoming = listener.incoming();
            assert!(poll_once(&mut incoming.next()).await.is_pending());
            becomes("the accept and the stream wait", || netpoll::rt::metrics().waiters >= 2).await;
            socket2::SockRef::from(&other).shutdown(std::net::Shutdown::Read).unwrap();
            let error = waiting.await.unwrap_err();
            assert_eq!(raw_os_error(&error), Some(libc::EINVAL), "{error}");
            let error = incoming.next().await.unwrap().unwrap_err();
            assert_eq!(raw_os_error(&error), Some(libc::EINVAL), "{error}");
        }
    });
}

/// Regression: the accept continued to wait and, after a restart of the runtime, did not notice
/// that another owner had shut the listener down.
#[test]
fn shutdown_of_the_runtime_ends_accept_waiting_for_permit() {
    child("shutdown_of_the_runtime_ends_accept_waiting_for_permit", || {
        let (begun, begins) = mpsc::channel();
        let server = thread::spawn(move || {
            task::block_on(async {
                let listener = limited(1).await;
                let _clients = clients(&listener, 2).await;
                let (_stream, _) = listener.accept().await.unwrap();
                begun.send(()).unwrap();
                listener.accept().await.map(drop)
            })
        });
        begins.recv().unwrap();
        eventually("the accept waits", || rt::metrics().waiters == 1);
        rt::shutdown(BOUND).unwrap();
        let error = server.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("runtime"), "{error}");
    });
}

#[test]
fn zero_permits_accept_no_connection() {
    run(async {
        let listener = limited(0).await;
        let _clients = clients(&listener, 1).await;
        listener.set_deadline(Instant::now() + Duration::from_millis(10)).unwrap();
        assert!(is_timeout(&listener.accept().await.unwrap_err()));
    });
}

#[test]
fn permit_wakes_one_accept_and_drop_passes_it_on() {
    run(async {
        let listener = limited(1).await;
        let _clients = clients(&listener, 3).await;
        let (first, _) = listener.accept().await.unwrap();
        let wakers: Vec<_> = (0..4).map(|_| Wakes::new()).collect();
        let mut accepts: Vec<_> = wakers.iter().map(|_| listener.accept()).collect();
        for (accept, (_, waker)) in accepts.iter_mut().zip(&wakers) {
            assert!(poll_with(accept, waker).is_pending());
        }
        // Returns 1 for each waker that was called since the last call of this closure, and 0 for
        // the others.
        let mut seen = [0; 4];
        let mut woken = || {
            let counts = [0, 1, 2, 3].map(|at: usize| wakers[at].0.count());
            let before = std::mem::replace(&mut seen, counts);
            [0, 1, 2, 3].map(|at| usize::from(counts[at] > before[at]))
        };
        woken();
        drop(first);
        assert_eq!(woken(), [1, 0, 0, 0]);
        drop(accepts.remove(0));
        assert_eq!(woken(), [0, 1, 0, 0]);
        // The woken accept takes the connection and the permit, so no other accept is woken.
        let Poll::Ready(Ok((second, _))) = poll_now(&mut accepts[0]) else { panic!("no accept despite a free permit") };
        assert_eq!(woken(), [0; 4]);
        // An accept that was not woken is dropped. The next accept takes its place in the queue.
        drop(accepts.remove(1));
        drop(second);
        assert_eq!(woken(), [0, 0, 0, 1]);
        let Poll::Ready(Ok(_third)) = poll_now(&mut accepts[1]) else { panic!("no accept despite a free permit") };
    });
}

/// An accept that waits for a connection holds no permit.
#[test]
fn idle_accepts_use_no_permits() {
    run(async {
        let listener = limited(1).await;
        let mut accepts: Vec<_> = (0..5).map(|_| listener.accept()).collect();
        for accept in &mut accepts {
            assert!(poll_once(accept).await.is_pending());
        }
        assert_eq!(listener.connections(), 0);
        let _clients = clients(&listener, 1).await;
        let (stream, _) = accepts.pop().unwrap().await.unwrap();
        assert_eq!(listener.connections(), 1);
        drop(stream);
        assert_eq!(listener.connections(), 0);
    });
}

#[test]
fn connections_stay_within_limit_and_all_are_served() {
    const MOST: usize = 3;
    const CLIENTS: usize = 200;
    for incoming in [false, true] {
        run(async {
            let listener = Arc::new(limited(MOST).await);
            let (served, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let serve = {
                let (served, most) = (served.clone(), most.clone());
                move |stream: TcpStream, listener: Arc<TcpListener>| {
                    let (served, most) = (served.clone(), most.clone());
                    async move {
                        most.fetch_max(listener.connections(), Ordering::SeqCst);
                        stream.write_all(b"hello").await.unwrap();
                        task::yield_now().await;
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                }
            };
            let acceptors: Vec<_> = (0..8)
                .map(|_| {
                    let (listener, serve) = (listener.clone(), serve.clone());
                    task::spawn(async move {
                        let mut stream = incoming.then(|| listener.incoming());
                        loop {
                            let accepted = match &mut stream {
                                Some(incoming) => incoming.next().await.unwrap(),
                                None => listener.accept().await.map(|(stream, _)| stream),
                            };
                            let Ok(accepted) = accepted else { return };
                            drop(task::spawn(serve(accepted, listener.clone())));
                        }
                    })
                })
                .collect();
            let addr = listener.local_addr().unwrap();
            let dials: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    task::spawn(async move {
                        let stream = TcpStream::connect(addr).await.unwrap();
                        let mut hello = String::new();
                        (&stream).read_to_string(&mut hello).await.unwrap();
                        assert_eq!(hello, "hello");
                    })
                })
                .collect();
            for dial in dials {
                dial.await;
            }
            becomes("all clients are served", || served.load(Ordering::SeqCst) == CLIENTS).await;
            becomes("all permits are returned", || listener.connections() == 0).await;
            assert!(most.load(Ordering::SeqCst) <= MOST);
            listener.close().await.unwrap();
            for acceptor in acceptors {
                acceptor.await;
            }
        });
    }
}

#[test]
fn listener_group_shares_one_limit() {
    run(async {
        let listeners = ListenConfig::new().max_connections(2).listen_many("127.0.0.1:0", 3).await.unwrap();
        let _clients = clients(&listeners[0], 9).await;
        let mut streams = Vec::new();
        for listener in listeners.iter().cycle() {
            if let Poll::Ready(accepted) = poll_once(&mut listener.accept()).await {
                streams.push(accepted.unwrap());
            }
            if streams.len() == 2 {
                break;
            }
        }
        for listener in &listeners {
            assert_eq!(listener.connections(), 2);
            assert!(poll_once(&mut listener.accept()).await.is_pending());
        }
    });
}

#[test]
fn adopted_listener_gets_limits() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = ListenConfig::new().max_connections(1).limit(listener.into()).unwrap();
        let clients = clients(&listener, 2).await;
        let (first, _) = listener.accept().await.unwrap();
        ping_pong(&clients[0], &first).await;
        assert!(poll_once(&mut listener.accept()).await.is_pending());
    });
}

/// A connection that has a permit works after its listener is dropped.
#[test]
fn streams_outlive_their_limited_listener() {
    run(async {
        let listener = limited(1).await;
        let clients = clients(&listener, 1).await;
        let (first, _) = listener.accept().await.unwrap();
        drop(listener);
        ping_pong(&clients[0], &first).await;
    });
}

const BUSY: &[u8] = b"busy, come back later\n";

/// Reads a std stream to its end, like a client that does not use this crate.
fn read_all(mut stream: &StdStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(common::BOUND)).unwrap();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn reserve_refuses_clients_when_descriptors_run_out_and_recovers() {
    child("reserve_refuses_clients_when_descriptors_run_out_and_recovers", || {
        set_nofile(64);
        run(async {
            common::warm_up().await;
            let before = fd_count();
            let config = ListenConfig::new().reserve_descriptors(2).refuse_with(BUSY);
            let listener = config.listen("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            assert_eq!(fd_count() - before, 3, "the listener and its reserve");
            // One connection is accepted first.
            let early = StdStream::connect(addr).unwrap();
            let (early_server, _) = listener.accept().await.unwrap();
            let mut accept = listener.accept();
            assert!(poll_once(&mut accept).await.is_pending());

            let late: Vec<_> = (0..5).map(|_| StdStream::connect(addr).unwrap()).collect();
            (&late[0]).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let held = exhaust_descriptors();
            // The accept does not fail, and the waiting clients get `BUSY`.
            becomes("the clients are refused", || {
                assert!(poll_now(&mut accept).is_pending());
                listener.turned_away() == 5
            })
            .await;
            for client in &late {
                assert_eq!(read_all(client), BUSY);
            }
            // The accepted connection is unaffected.
            early_server.write_all(b"x").await.unwrap();
            assert_eq!((&early).read(&mut [0; 8]).unwrap(), 1);
            assert!(poll_once(&mut listener.accept()).await.is_pending());

            drop((late, held));
            let client = StdStream::connect(addr).unwrap();
            let (_, peer) = accept.await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            // The reserve is full again. When the descriptors run out a second time, the next
            // client is refused too.
            let next = StdStream::connect(addr).unwrap();
            let _held = exhaust_descriptors();
            let mut incoming = listener.incoming();
            becomes("the client is refused", || {
                assert!(poll_now(&mut incoming.next()).is_pending());
                listener.turned_away() == 6
            })
            .await;
            assert_eq!(read_all(&next), BUSY);
        });
    });
}

#[test]
fn accept_yields_after_a_batch_of_refusals() {
    if !common::has_descriptors(400) {
        return;
    }
    child("accept_yields_after_a_batch_of_refusals", || {
        set_nofile(400);
        run(async {
            let listener = ListenConfig::new().reserve_descriptors(1).listen("127.0.0.1:0").await.unwrap();
            // The first wait creates the runtime's own descriptors.
            assert!(poll_once(&mut listener.accept()).await.is_pending());
            let crowd: Vec<_> = (0..150).map(|_| StdStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
            let number = common::number(&listener);
            // connect(2) may return before the kernel has queued the connection.
            becomes("all connections are in the queue", || {
                let snapshot = Inspect::new().tcp(true).take();
                let socket = snapshot.sockets.iter().find(|socket| socket.fd() == number).unwrap();
                socket.tcp().is_some_and(|tcp| tcp.accept_queue == 150)
            })
            .await;
            let _held = exhaust_descriptors();
            let mut accept = listener.accept();
            let (wakes, waker) = Wakes::new();
            let mut polls = 0;
            while listener.turned_away() < 150 {
                let (before, woken) = (listener.turned_away(), wakes.count());
                assert!(poll_with(&mut accept, &waker).is_pending());
                let now = listener.turned_away();
                if now == before {
                    // The poller has not reported the connection yet.
                    task::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                polls += 1;
                assert!(now == 150 || wakes.count() > woken, "the accept must wake its task to be polled again");
            }
            assert!((2..=6).contains(&polls), "150 refusals, up to 64 per poll, took {polls} pairs of polls");
            for client in &crowd {
                assert_eq!(read_all(client), b"", "closed without a message");
            }
        });
    });
}

/// The number of a listener whose descriptor was handed out stays in use after the close, so the
/// close frees no descriptor. The stream of `incoming` must be woken nevertheless.
#[test]
fn close_of_a_borrowed_listener_wakes_a_stream_that_waits_for_a_descriptor() {
    child("close_of_a_borrowed_listener_wakes_a_stream_that_waits_for_a_descriptor", || {
        set_nofile(64);
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(listener.as_raw_fd() >= 0);
            let held = exhaust_descriptors();
            let (wakes, waker) = Wakes::new();
            let mut incoming = listener.incoming();
            // After an accept that fails for lack of a descriptor, `incoming` pauses, each time
            // twice as long as before. A pause after these five is unlikely to end during the
            // close.
            while wakes.count() < 5 {
                let before = wakes.count();
                assert!(poll_with(&mut incoming.next(), &waker).is_pending());
                becomes("the pause ends", || wakes.count() > before).await;
            }
            // This count is taken before the pause begins, because on a busy machine the pause may
            // end before the close.
            let before = wakes.count();
            assert!(poll_with(&mut incoming.next(), &waker).is_pending());
            drop(listener.close());
            assert!(wakes.count() > before);
            assert!(is_closed(&incoming.next().await.unwrap().unwrap_err()));
            drop(held);
        });
    });
}

/// Other threads open and close files all the time, and may take a descriptor that the reserve
/// frees for a moment.
#[test]
fn reserve_survives_threads_that_take_its_descriptors() {
    child("reserve_survives_threads_that_take_its_descriptors", || {
        set_nofile(64);
        run(async {
            let config = ListenConfig::new().reserve_descriptors(3).refuse_with(BUSY);
            let listener = config.listen("127.0.0.1:0").await.unwrap();
            assert!(poll_once(&mut listener.accept()).await.is_pending());
            let before = fd_count();
            let addr = listener.local_addr().unwrap();
            let crowd: Vec<_> = (0..20).map(|_| StdStream::connect(addr).unwrap()).collect();
            let held = exhaust_descriptors();
            let stop = Arc::new(AtomicBool::new(false));
            let thieves: Vec<_> = (0..2)
                .map(|_| {
                    let stop = stop.clone();
                    std::thread::spawn(move || {
                        while !stop.load(Ordering::SeqCst) {
                            let _ = std::fs::File::open("/dev/null");
                            std::thread::yield_now();
                        }
                    })
                })
                .collect();
            let mut incoming = listener.incoming();
            // The other threads may take all descriptors of the reserve. Then the accept fails, and
            // `incoming` pauses.
            let all = netpoll::future::timeout(common::BOUND, async {
                let mut next = incoming.next();
                becomes("all clients are refused", || {
                    assert!(poll_now(&mut next).is_pending());
                    listener.turned_away() == 20
                })
                .await;
            });
            all.await.unwrap();
            stop.store(true, Ordering::SeqCst);
            for thief in thieves {
                thief.join().unwrap();
            }
            for client in &crowd {
                assert_eq!(read_all(client), BUSY);
            }
            drop((crowd, held));
            // The next connection refills the reserve.
            let _client = StdStream::connect(addr).unwrap();
            let _server = incoming.next().await.unwrap().unwrap();
            assert_eq!(fd_count(), before + 2);
        });
    });
}
