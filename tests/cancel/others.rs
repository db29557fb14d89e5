//! Drops futures of UDP and Unix sockets, `pipe`, `AsyncFd`, dialers, name resolution, listeners,
//! copies, `send_file` and `send_zerocopy`.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::time::Duration;

use crate::black_hole::refusing;
use crate::common::by_hand::{both, connect_to, fresh_pair, narrow_pair, round_trip};
use crate::common::{Folder, own_address, poll_now, read_exact, run};
use crate::sweep::{alone, drop_at, no_operation_waits, sweep};
use netpoll::io::AsyncFd;
use netpoll::net::{
    Ancillary, Dialer, ListenConfig, RecvBatch, SendBatch, TcpListener, TcpStream, UdpSocket, lookup_host, pipe,
};
use netpoll::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use netpoll::prelude::*;

type Operation<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + 'a>>;

// ---- datagrams ----

#[test]
fn dropped_udp_receives_lose_no_datagram() {
    let _alone = alone();
    run(async {
        for kind in ["recv_from", "recv_msg", "recv_many", "peek_from", "readable"] {
            sweep(kind, async |at| {
                let (one, other) =
                    (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
                let to = one.local_addr().unwrap();
                let send = async || assert_eq!(other.send_to(b"hello", to).await.unwrap(), 5);
                let (mut buf, mut batch) = ([0; 8], RecvBatch::new(4, 64));
                let mut slices_of = [0; 8];
                let mut slices = [IoSliceMut::new(&mut slices_of)];
                // The output is the number of datagrams that the operation takes from the queue.
                let receive: Operation<'_, usize> = match kind {
                    "recv_from" => Box::pin(async { one.recv_from(&mut buf).await.map(|_| 1) }),
                    "recv_msg" => Box::pin(async { one.recv_msg(&mut slices).await.map(|_| 1) }),
                    "recv_many" => Box::pin(one.recv_many(&mut batch)),
                    "peek_from" => Box::pin(async { one.peek_from(&mut buf).await.map(|_| 0) }),
                    _ => Box::pin(async { one.readable().await.map(|()| 0) }),
                };
                let outcome = drop_at(at, receive, &send).await;
                no_operation_waits(kind, at).await;
                if !outcome.stirred {
                    send().await;
                }
                let taken = outcome.output.map(Result::unwrap);
                let mut rest = [0; 8];
                if taken != Some(1) {
                    let (count, _) = one.recv_from(&mut rest).await.unwrap();
                    assert_eq!(&rest[..count], b"hello", "{kind}");
                }
                other.send_to(b"next", to).await.unwrap();
                let (count, _) = one.recv_from(&mut rest).await.unwrap();
                assert_eq!(&rest[..count], b"next", "{kind}: one datagram, received once");
                taken.is_some()
            })
            .await;
        }
    });
}

#[test]
fn dropped_udp_sends_send_nothing() {
    let _alone = alone();
    run(async {
        for kind in ["send_to", "send_to by name", "send", "send_msg", "send_many", "writable", "connect"] {
            sweep(kind, async |at| {
                let (one, other) =
                    (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
                let to = other.local_addr().unwrap();
                if kind == "send" {
                    one.connect(to).await.unwrap();
                }
                let name = format!("localhost:{}", to.port());
                let mut batch = SendBatch::new();
                batch.push(b"hello", to);
                let slices = [IoSlice::new(b"hello")];
                let ancillary = Ancillary::default();
                let send: Operation<'_, usize> = match kind {
                    "send_to" => Box::pin(one.send_to(b"hello", to)),
                    "send_to by name" => Box::pin(one.send_to(b"hello", name.as_str())),
                    "send" => Box::pin(one.send(b"hello")),
                    "send_msg" => Box::pin(one.send_msg(&slices, to, &ancillary)),
                    "send_many" => Box::pin(one.send_many(&mut batch)),
                    "writable" => Box::pin(async { one.writable().await.map(|()| 0) }),
                    _ => Box::pin(async { one.connect(to).await.map(|()| 0) }),
                };
                let outcome = drop_at(at, send, async || {}).await;
                no_operation_waits(kind, at).await;
                let mut buf = [0; 8];
                let sent = outcome.output.map(Result::unwrap);
                if sent.is_some_and(|sent| sent > 0) {
                    assert_eq!(other.recv_from(&mut buf).await.unwrap().0, 5, "{kind}");
                }
                if kind == "send" || kind == "connect" && sent.is_some() {
                    one.send(b"next").await.unwrap();
                } else {
                    one.send_to(b"next", to).await.unwrap();
                }
                assert_eq!(other.recv_from(&mut buf).await.unwrap().0, 4, "{kind}: the dropped operation sent nothing");
                sent.is_some()
            })
            .await;
        }
    });
}

#[test]
fn dropped_udp_binds_and_closes_leak_nothing() {
    let _alone = alone();
    run(async {
        sweep("bind", async |at| {
            let outcome = drop_at(at, UdpSocket::bind("localhost:0"), async || {}).await;
            no_operation_waits("bind", at).await;
            outcome.output.is_some_and(|socket| socket.unwrap().local_addr().is_ok())
        })
        .await;
        sweep("close", async |at| {
            let socket = UdpSocket::bind(own_address()).await.unwrap();
            let addr = socket.local_addr().unwrap();
            let outcome = drop_at(at, socket.close(), async || {}).await;
            UdpSocket::bind(addr).await.expect("a close that has begun completes");
            outcome.output.is_some()
        })
        .await;
    });
}

// ---- Unix sockets ----

#[test]
fn dropped_unix_reads_lose_no_data() {
    let _alone = alone();
    run(async {
        for kind in ["read", "read_vectored", "peek", "recv_with_fds", "readable", "peer_closed"] {
            sweep(kind, async |at| {
                let (one, other) = UnixStream::pair().unwrap();
                let stir = async || other.write_all(b"hello").await.unwrap();
                let close = async || other.close_write().unwrap();
                let (mut buf, mut two, mut fds) = ([0; 8], [0; 8], Vec::new());
                let mut slices = [IoSliceMut::new(&mut two)];
                let read: Operation<'_, usize> = match kind {
                    "read" => Box::pin(one.read(&mut buf)),
                    "read_vectored" => Box::pin(one.read_vectored(&mut slices)),
                    "peek" => Box::pin(async { one.peek(&mut buf).await.map(|_| 0) }),
                    "recv_with_fds" => Box::pin(one.recv_with_fds(&mut buf, &mut fds)),
                    "readable" => Box::pin(async { one.readable().await.map(|()| 0) }),
                    _ => Box::pin(async { one.peer_closed().await.map(|()| 0) }),
                };
                let outcome = match kind {
                    "peer_closed" => drop_at(at, read, &close).await,
                    _ => drop_at(at, read, &stir).await,
                };
                no_operation_waits(kind, at).await;
                let taken = outcome.output.map(Result::unwrap);
                if kind != "peer_closed" {
                    if !outcome.stirred {
                        stir().await;
                    }
                    let mut rest = [0; 8];
                    if taken != Some(5) {
                        assert_eq!(one.read(&mut rest).await.unwrap(), 5, "{kind}");
                    }
                    other.write_all(b"next").await.unwrap();
                    assert_eq!(one.read(&mut rest).await.unwrap(), 4, "{kind}: the data is read once");
                }
                taken.is_some()
            })
            .await;
        }
    });
}

#[test]
fn dropped_unix_writes_accepts_and_dials_lose_and_leak_nothing() {
    let _alone = alone();
    run(async {
        for kind in ["write_all", "send_with_fds", "writable"] {
            sweep(kind, async |at| {
                let (one, other) = UnixStream::pair().unwrap();
                // Fills the buffer, so that the operation has to wait.
                let mut filled = 0;
                while let Ok(count) = netpoll::future::timeout(Duration::from_millis(5), one.write(&[7; 65536])).await {
                    filled += count.unwrap();
                }
                let drained = Cell::new(0);
                let drain = async || {
                    let mut buf = vec![0; 1 << 20];
                    while drained.get() < filled {
                        drained.set(drained.get() + other.read(&mut buf).await.unwrap());
                    }
                };
                let file = std::fs::File::open("/dev/null").unwrap();
                let fds = [file.as_fd()];
                let write: Operation<'_, usize> = match kind {
                    "write_all" => Box::pin(async { one.write_all(b"hello").await.map(|()| 5) }),
                    "send_with_fds" => Box::pin(one.send_with_fds(b"hello", &fds)),
                    _ => Box::pin(async { one.writable().await.map(|()| 0) }),
                };
                let outcome = drop_at(at, write, &drain).await;
                no_operation_waits(kind, at).await;
                if !outcome.stirred {
                    drain().await;
                }
                let written = outcome.output.map(Result::unwrap);
                one.write_all(b"end").await.unwrap();
                one.close_write().unwrap();
                let (mut rest, mut buf) = (Vec::new(), [0; 64]);
                while let count @ 1.. = other.read(&mut buf).await.unwrap() {
                    rest.extend_from_slice(&buf[..count]);
                }
                let rest = &rest[rest.iter().take_while(|&&byte| byte == 7).count()..];
                assert_eq!(rest, if written == Some(5) { &b"helloend"[..] } else { b"end" }, "{kind}");
                written.is_some()
            })
            .await;
        }
        for kind in ["accept", "incoming"] {
            sweep(kind, async |at| {
                let folder = Folder::new();
                let path = folder.join("socket");
                let listener = UnixListener::bind(&path).await.unwrap();
                let client = std::cell::RefCell::new(None);
                let connect = async || drop(client.replace(Some(UnixStream::connect(&path).await.unwrap())));
                let outcome = if kind == "accept" {
                    drop_at(at, async { listener.accept().await.map(|(stream, _)| stream) }, &connect).await
                } else {
                    let mut incoming = listener.incoming();
                    drop_at(at, async { incoming.next().await.unwrap() }, &connect).await
                };
                no_operation_waits(kind, at).await;
                if !outcome.stirred {
                    connect().await;
                }
                let completed = outcome.output.is_some();
                let server = match outcome.output {
                    Some(stream) => stream.unwrap(),
                    None => listener.accept().await.unwrap().0,
                };
                client.take().unwrap().write_all(b"hello").await.unwrap();
                assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 5);
                completed
            })
            .await;
        }
        // The dials go to a listener with a full queue.
        sweep("dial", async |at| {
            let folder = Folder::new();
            let path = folder.join("socket");
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
            socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
            socket.listen(0).unwrap();
            let first = UnixStream::connect(&path).await.unwrap();
            let accept = async || drop(socket.accept().unwrap());
            let outcome = drop_at(at, UnixStream::connect(&path), &accept).await;
            no_operation_waits("dial", at).await;
            drop(first);
            outcome.output.is_some_and(|stream| stream.unwrap().local_addr().is_ok())
        })
        .await;
    });
}

#[test]
fn dropped_unix_datagram_operations_lose_no_datagram() {
    let _alone = alone();
    run(async {
        for kind in ["datagram recv", "datagram recv_from"] {
            sweep(kind, async |at| {
                let (one, other) = UnixDatagram::pair().unwrap();
                let mut buf = [0; 8];
                let stir = async || assert_eq!(other.send(b"hello").await.unwrap(), 5);
                let receive: Operation<'_, usize> = match kind {
                    "datagram recv" => Box::pin(one.recv(&mut buf)),
                    _ => Box::pin(async { one.recv_from(&mut buf).await.map(|(count, _)| count) }),
                };
                let outcome = drop_at(at, receive, &stir).await;
                no_operation_waits(kind, at).await;
                if !outcome.stirred {
                    stir().await;
                }
                let mut rest = [0; 8];
                if outcome.output.is_none() {
                    let count = one.recv(&mut rest).await.unwrap();
                    assert_eq!(&rest[..count], b"hello", "{kind}");
                }
                outcome.output.is_some()
            })
            .await;
        }
        // The sends go to a receiver with a full queue, so they are retried on a timer.
        sweep("datagram send_to", async |at| {
            let folder = Folder::new();
            let path = folder.join("socket");
            let receiver = UnixDatagram::bind(&path).await.unwrap();
            let sender = UnixDatagram::unbound().unwrap();
            let mut sent = 0;
            while let Ok(result) =
                netpoll::future::timeout(Duration::from_millis(3), sender.send_to(b"fill", &path)).await
            {
                result.unwrap();
                sent += 1;
            }
            let mut buf = [0; 8];
            let received = Cell::new(0);
            let drain = async || {
                let mut buf = [0; 8];
                while received.get() < sent {
                    receiver.recv_from(&mut buf).await.unwrap();
                    received.set(received.get() + 1);
                }
            };
            let outcome = drop_at(at, sender.send_to(b"hello", &path), &drain).await;
            no_operation_waits("datagram send_to", at).await;
            drain().await;
            sender.send_to(b"end", &path).await.unwrap();
            if outcome.output.is_some() {
                assert_eq!(receiver.recv_from(&mut buf).await.unwrap().0, 5);
            }
            assert_eq!(receiver.recv_from(&mut buf).await.unwrap().0, 3, "the dropped operation sent nothing");
            outcome.output.is_some()
        })
        .await;
    });
}

// ---- `pipe` and `AsyncFd` ----

#[test]
fn dropped_pipe_operations_lose_no_data() {
    let _alone = alone();
    run(async {
        sweep("pipe read", async |at| {
            let (one, other) = pipe().unwrap();
            let mut buf = [0; 8];
            // A write to a `pipe` completes when all of its bytes have been read, so `stir` only
            // starts the write.
            let mut write = Box::pin(other.write_all(b"hello"));
            let stir = async || drop(poll_now(&mut write));
            let outcome = drop_at(at, one.read(&mut buf), stir).await;
            let completed = outcome.output.is_some();
            let mut got = outcome.output.map_or(0, Result::unwrap);
            let rest = async {
                let mut buf = [0; 8];
                while got < 5 {
                    got += one.read(&mut buf).await.unwrap();
                }
            };
            let (written, ()) = both(&mut write, rest).await;
            written.unwrap();
            completed
        })
        .await;
        sweep("pipe write", async |at| {
            let (one, other) = pipe().unwrap();
            let got = Cell::new(0);
            let stir = async || {
                let mut buf = [0; 8];
                got.set(one.read(&mut buf).await.unwrap());
            };
            let outcome = drop_at(at, other.write_all(b"hello"), stir).await;
            assert!(outcome.output.is_none() || got.get() == 5);
            let mut buf = [0; 8];
            let (next, read) = both(other.write_all(b"next"), one.read(&mut buf)).await;
            next.unwrap();
            assert_eq!(read.unwrap(), 4, "the dropped write leaves no data");
            outcome.output.is_some()
        })
        .await;
    });
}

#[test]
fn dropped_async_fd_waits_lose_no_data() {
    let _alone = alone();
    run(async {
        for kind in ["readable", "read_with"] {
            sweep(kind, async |at| {
                let (reader, mut writer) = io::pipe().unwrap();
                let reader = AsyncFd::new(reader).unwrap();
                let stir = async || writer.write_all(b"hello").unwrap();
                let operation: Operation<'_, usize> = match kind {
                    "readable" => Box::pin(async {
                        reader.readable().await.map(|mut guard| {
                            guard.retain_ready();
                            0
                        })
                    }),
                    _ => Box::pin(reader.read_with(|mut pipe| pipe.read(&mut [0; 8]))),
                };
                let outcome = drop_at(at, operation, stir).await;
                no_operation_waits(kind, at).await;
                let taken = outcome.output.map(Result::unwrap);
                if !outcome.stirred {
                    writer.write_all(b"hello").unwrap();
                }
                if taken != Some(5) {
                    assert_eq!(reader.read_with(|mut pipe| pipe.read(&mut [0; 8])).await.unwrap(), 5);
                }
                writer.write_all(b"next").unwrap();
                assert_eq!(reader.read_with(|mut pipe| pipe.read(&mut [0; 8])).await.unwrap(), 4);
                taken.is_some()
            })
            .await;
        }
    });
}

// ---- dialling, resolving, listening ----

#[test]
fn dropped_dials_lookups_and_listens_leak_nothing() {
    let _alone = alone();
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (_refusing, dead) = refusing();
        for kind in ["dial", "dial by name", "dial past a refusal"] {
            sweep(kind, async |at| {
                let (dialer, attempts) = (Dialer::new().timeout(Duration::from_secs(60)), [dead, addr]);
                let dial: Operation<'_, TcpStream> = match kind {
                    "dial" => Box::pin(dialer.dial(addr)),
                    "dial by name" => Box::pin(dialer.dial(("localhost", addr.port()))),
                    _ => Box::pin(dialer.dial(&attempts[..])),
                };
                let outcome = drop_at(at, dial, async || {}).await;
                no_operation_waits(kind, at).await;
                // Connections of dropped dials may be in the queue.
                let completed = outcome.output.is_some();
                let client = match outcome.output {
                    Some(client) => client.unwrap(),
                    None => TcpStream::connect(addr).await.unwrap(),
                };
                loop {
                    let (server, peer) = listener.accept().await.unwrap();
                    if peer == client.local_addr().unwrap() {
                        round_trip(&client, &server).await;
                        break;
                    }
                    assert_eq!(server.read(&mut [0; 1]).await.unwrap_or(0), 0, "a dropped dial is closed");
                }
                completed
            })
            .await;
        }
        sweep("lookup_host", async |at| {
            let outcome = drop_at(at, lookup_host("localhost"), async || {}).await;
            outcome.output.is_some_and(|found| !found.unwrap().is_empty())
        })
        .await;
        sweep("listen", async |at| {
            let config = ListenConfig::new();
            let outcome = drop_at(at, config.listen("localhost:0"), async || {}).await;
            match outcome.output {
                Some(listener) => {
                    connect_to(&listener.unwrap()).await;
                    true
                }
                None => false,
            }
        })
        .await;
    });
}

// ---- copies, `send_file` and `send_zerocopy` ----

#[test]
fn dropped_copies_and_sends_leave_their_sockets_usable() {
    let _alone = alone();
    run(async {
        // A dropped copy loses the data that it has read and not written. Its sockets remain
        // usable.
        for kind in ["copy", "copy_bidirectional", "copy_bidirectional_with", "copy through a buffer"] {
            sweep(kind, async |at| {
                let (mut source, from) = fresh_pair().await;
                let (mut to, sink) = fresh_pair().await;
                let stir = async || {
                    from.write_all(b"hello").await.unwrap();
                    from.close_write().unwrap();
                    sink.close_write().unwrap();
                };
                let mut buffered = netpoll::io::BufReader::new(&b"hello"[..]);
                let idle = Duration::from_secs(60);
                let copy: Operation<'_, u64> = match kind {
                    "copy" => Box::pin(netpoll::io::copy(&mut source, &mut to)),
                    "copy through a buffer" => Box::pin(netpoll::io::copy(&mut buffered, &mut to)),
                    "copy_bidirectional" => Box::pin(async {
                        netpoll::io::copy_bidirectional(&mut source, &mut to).await.map(|(there, _)| there)
                    }),
                    _ => Box::pin(async {
                        let both = netpoll::io::copy_bidirectional_with(&mut source, &mut to, idle).await;
                        both.map(|(there, _)| there)
                    }),
                };
                let outcome = drop_at(at, copy, stir).await;
                no_operation_waits(kind, at).await;
                if let Some(copied) = &outcome.output {
                    assert_eq!(*copied.as_ref().unwrap(), 5);
                    let mut got = [0; 5];
                    read_exact(&sink, &mut got).await.unwrap();
                    assert_eq!(&got, b"hello");
                } else if !outcome.stirred {
                    round_trip(&source, &from).await;
                    round_trip(&to, &sink).await;
                }
                outcome.output.is_some()
            })
            .await;
        }
        sweep("send_file", async |at| {
            let (client, server) = narrow_pair().await;
            let file = std::fs::File::open("/proc/self/exe").unwrap();
            const BYTES: usize = 300_000;
            let got = Cell::new(0);
            let drain = async || {
                let mut buf = vec![0; 65536];
                // Reads until at least one byte has arrived and none arrives for 20 ms. The sender
                // is not polled meanwhile, so it sends no more.
                let idle = Duration::from_millis(20);
                loop {
                    match netpoll::future::timeout(idle, server.read(&mut buf)).await {
                        Ok(count) => got.set(got.get() + count.unwrap()),
                        Err(_) if got.get() > 0 => break,
                        Err(_) => {}
                    }
                }
            };
            let mut sending = client.send_file(&file, 0, BYTES as u64);
            let outcome = drop_at(at, &mut sending, drain).await;
            let sent = sending.sent() as usize;
            drop(sending);
            no_operation_waits("send_file", at).await;
            client.close_write().unwrap();
            let mut buf = vec![0; 65536];
            while let count @ 1.. = server.read(&mut buf).await.unwrap() {
                got.set(got.get() + count);
            }
            assert_eq!(got.get(), sent, "all data reported as sent has arrived");
            // The peer makes room only once in this test, so there is no further wake-up.
            outcome.output.is_some() || at.polls >= 2
        })
        .await;
        sweep("send_zerocopy", async |at| {
            let (client, server) = fresh_pair().await;
            if client.set_zerocopy(true).is_err() {
                println!("skipped: no MSG_ZEROCOPY");
                return true;
            }
            let outcome = drop_at(at, client.send_zerocopy(vec![5; 1000]), async || {}).await;
            let completed = outcome.output.is_some();
            drop(outcome);
            no_operation_waits("send_zerocopy", at).await;
            client.write_all(b"end").await.unwrap();
            client.close_write().unwrap();
            let (mut all, mut buf) = (Vec::new(), [0; 4096]);
            while let count @ 1.. = server.read(&mut buf).await.unwrap() {
                all.extend_from_slice(&buf[..count]);
            }
            assert!(all.ends_with(b"end") && (all.len() == 3 || all.len() == 1003), "all or nothing: {}", all.len());
            completed
        })
        .await;
    });
}
