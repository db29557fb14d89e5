//! The poller with several shards: a descriptor stays in its shard, every shard is polled
//! regardless of which threads sleep, and the number of shards follows the configuration and may
//! change with a restart.
#![cfg(target_os = "linux")] // epoll, and /proc

mod common;

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{child_with, echo, eventually, is_on_epoll, listener, pair, park_on, ping};
use netpoll::net::{TcpStream, is_timeout};
use netpoll::rt::{self, Builder};
use netpoll::task;

/// Runs `body`, which sets the number of shards, in a child process that uses epoll.
#[track_caller]
fn sharded(name: &str, body: impl FnOnce()) {
    child_with(name, &[common::ON_EPOLL], || {
        assert!(is_on_epoll());
        body();
    });
}

/// Returns the numbers of the descriptors that are registered with each epoll instance, except
/// those of the poller itself, ordered by the number of the instance.
fn registered() -> Vec<Vec<i32>> {
    let mut instances = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if target.to_string_lossy() != "anon_inode:[eventpoll]" {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap();
        let fds = info.lines().filter_map(|line| line.strip_prefix("tfd:"));
        let fds = fds.map(|rest| rest.split_whitespace().next().unwrap().parse::<i32>().unwrap());
        let is_own = |fd: &i32| {
            std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().to_string_lossy() == "anon_inode:[eventfd]"
        };
        instances.insert(name.parse::<i32>().unwrap(), fds.filter(|fd| !is_own(fd)).collect());
    }
    instances.into_values().collect()
}

/// Connects `count` clients to an echo server with one task per connection, and exchanges a message
/// over each connection. Returns when the server's tasks wait, so its sockets are registered.
fn echo_clients(count: usize) -> Vec<TcpStream> {
    let listener = park_on(listener());
    let addr = listener.local_addr().unwrap();
    drop(task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(task::spawn(async move { echo(&stream).await }));
        }
    }));
    let clients: Vec<_> = (0..count).map(|_| park_on(task::spawn(TcpStream::connect(addr))).unwrap()).collect();
    clients.iter().for_each(|client| park_on(ping(client, b"hello")).unwrap());
    eventually("the server's tasks wait", || rt::metrics().waiters == 1 + count);
    clients
}

#[test]
fn descriptors_are_spread_over_all_shards_and_stay() {
    sharded("descriptors_are_spread_over_all_shards_and_stay", || {
        Builder::new().workers(2).poller_shards(4).start().unwrap();
        assert_eq!(rt::metrics().poller_shards, 4);
        let clients = echo_clients(64);
        let before = registered();
        assert_eq!(before.len(), 4);
        // The sockets of the server are spread over the shards. Clients that had to wait add
        // theirs.
        assert!(before.iter().all(|fds| fds.len() >= 8), "{before:?}");
        for _ in 0..10 {
            let pings: Vec<_> = clients.iter().map(|client| ping(client, b"again")).collect();
            park_on(futures::future::try_join_all(pings)).unwrap();
        }
        for (before, now) in before.iter().zip(registered()) {
            assert!(before.iter().all(|fd| now.contains(fd)), "{before:?} and then {now:?}");
        }
    });
}

/// A snapshot shows the shard of each registered socket. Snapshots and the OpenMetrics text show
/// the activity of each shard. With one shard, sockets have no shard in snapshots, and the JSON and
/// the OpenMetrics text have no shards.
#[test]
fn snapshot_and_metrics_show_the_shards() {
    sharded("snapshot_and_metrics_show_the_shards", || {
        Builder::new().workers(2).poller_shards(2).start().unwrap();
        let clients = echo_clients(16);
        let (fresh, _peer) = park_on(pair());
        eventually("all shards have been polled", || rt::inspect().shards.iter().all(|shard| shard.events > 0));
        let (by_instance, snapshot) = (registered(), rt::inspect());
        assert_eq!((snapshot.shards.len(), by_instance.len()), (2, 2));
        for (shard, fds) in by_instance.iter().enumerate() {
            let shown = snapshot.sockets.iter().filter(|socket| socket.poller_shard() == Some(shard as u8));
            let mut shown: Vec<i32> = shown.map(|socket| socket.fd()).collect();
            let mut fds = fds.clone();
            fds.sort_unstable();
            shown.sort_unstable();
            assert_eq!((&shown, snapshot.shards[shard].sockets), (&fds, fds.len()));
            assert!(snapshot.shards[shard].waits > 0 && snapshot.shards[shard].events > 0);
        }
        let fresh = snapshot.sockets.iter().find(|socket| socket.fd() == fresh.as_raw_fd()).unwrap();
        assert_eq!(fresh.poller_shard(), None, "the socket never had to wait");
        let metrics = &snapshot.metrics;
        assert!(snapshot.shards.iter().map(|shard| shard.events).sum::<u64>() <= metrics.events);
        assert!(snapshot.to_json().contains(",\"shards\":[{\"sockets\":"));
        let text = rt::openmetrics();
        assert!(text.contains("\nnetpoll_poller_shards 2\n"), "{text}");
        assert!(text.contains("\nnetpoll_poller_shard_events_total{shard=\"1\"} "), "{text}");
        drop(clients);
        rt::shutdown(common::BOUND).unwrap();
        Builder::new().poller_shards(1).start().unwrap();
        let (one, other) = park_on(pair());
        park_on(common::ping_pong(&one, &other));
        let snapshot = rt::inspect();
        assert!(snapshot.shards.len() == 1 && snapshot.sockets.iter().all(|socket| socket.poller_shard().is_none()));
        assert!(!snapshot.to_json().contains("\"shards\":[") && !rt::openmetrics().contains("poller_shard_"));
    });
}

/// The conversion of a socket removes its descriptor, which stays open, from the shard in which it
/// is registered.
#[test]
fn converted_socket_is_removed_from_its_shard() {
    sharded("converted_socket_is_removed_from_its_shard", || {
        Builder::new().workers(2).poller_shards(4).start().unwrap();
        let clients = echo_clients(32);
        let convert = |client| std::net::TcpStream::try_from(client).unwrap();
        let clients: Vec<_> = clients.into_iter().map(convert).collect();
        let all: Vec<i32> = registered().concat();
        assert!(clients.iter().all(|client| !all.contains(&client.as_raw_fd())), "{all:?}");
        assert!(all.len() >= 32, "the server's sockets stay registered: {all:?}");
    });
}

/// The only thread is in `block_on` and waits for all shards.
#[test]
fn single_thread_waits_for_all_shards() {
    sharded("single_thread_waits_for_all_shards", || {
        // On a busy machine sysmon may take events, and a worker then calls their wakers.
        eventually("no worker is needed", || {
            Builder::new().workers(1).poller_shards(4).start().unwrap();
            task::block_on(async {
                let mut pairs = Vec::new();
                for _ in 0..16 {
                    pairs.push(pair().await);
                }
                for round in 0..50_u8 {
                    let (one, other) = &pairs[usize::from(round) % pairs.len()];
                    let mut buf = [0; 1];
                    let (read, ()) = futures::join!(other.read(&mut buf), async {
                        // The thread sleeps before each write.
                        task::sleep(Duration::from_millis(1)).await;
                        one.write_all(&[round]).await.unwrap();
                    });
                    assert_eq!((read.unwrap(), buf[0]), (1, round));
                }
                assert_eq!(registered().iter().filter(|fds| !fds.is_empty()).count(), 4);
            });
            let workers = rt::metrics().worker_threads;
            rt::shutdown(common::BOUND).unwrap();
            workers == 0
        });
    });
}

/// A worker is in a long turn. The other worker serves the sockets of the first worker's shard, and
/// timers fire.
#[test]
fn shard_of_a_blocked_worker_is_polled_by_another() {
    sharded("shard_of_a_blocked_worker_is_polled_by_another", || {
        Builder::new().workers(2).spare_workers(0).poller_shards(2).start().unwrap();
        let clients = echo_clients(32);
        assert_eq!(registered().len(), 2);
        let (begun, begins) = mpsc::channel();
        let release = Arc::new(AtomicBool::new(false));
        let blocked = task::spawn({
            let release = release.clone();
            async move {
                let sleeper = task::spawn(task::sleep(Duration::from_millis(30)));
                begun.send(()).unwrap();
                while !release.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                sleeper.await;
            }
        });
        begins.recv().unwrap();
        // The messages are sent one after the other, so that a thread falls asleep before most of
        // them.
        for client in clients.iter().chain(&clients) {
            park_on(ping(client, b"hello")).unwrap();
        }
        park_on(task::spawn(task::sleep(Duration::from_millis(5))));
        release.store(true, Ordering::Relaxed);
        park_on(blocked);
    });
}

/// A thread without a processor arms a timer while all threads sleep.
#[test]
fn foreign_timers_interrupt_sleeps_in_any_shard() {
    sharded("foreign_timers_interrupt_sleeps_in_any_shard", || {
        Builder::new().workers(2).poller_shards(4).start().unwrap();
        let clients = echo_clients(16);
        let far = task::spawn(task::sleep(Duration::from_secs(3600)));
        for client in &clients {
            futures::executor::block_on(task::sleep(Duration::from_millis(2)));
            client.set_read_deadline(Instant::now() + Duration::from_millis(2)).unwrap();
            let error = futures::executor::block_on(client.read(&mut [0; 1])).unwrap_err();
            assert!(is_timeout(&error), "{error}");
        }
        park_on(far.cancel());
    });
}

/// Threads sleep in different shards, or one thread sleeps in all shards, and a shutdown ends the
/// sleeps. The next start may have another number of shards. Sockets survive.
#[test]
fn shutdown_ends_the_sleeps_in_all_shards() {
    sharded("shutdown_ends_the_sleeps_in_all_shards", || {
        let mut streams = Vec::new();
        for shards in [2, 4, 1, 3, 64, 1] {
            Builder::new().workers(2).poller_shards(shards).start().unwrap();
            let clients = echo_clients(8);
            clients.iter().for_each(|client| park_on(ping(client, b"again")).unwrap());
            streams.push(park_on(pair()));
            for (one, other) in &streams {
                park_on(common::ping_pong(one, other));
            }
            let open = registered().len();
            assert!(open <= shards, "{open} instances with {shards} shards");
            rt::shutdown(common::BOUND).unwrap();
            assert_eq!(registered().len(), 0, "all instances are closed");
        }
    });
}

/// Shards that cannot be opened are not used.
#[test]
fn registration_without_free_descriptors_uses_an_open_shard() {
    sharded("registration_without_free_descriptors_uses_an_open_shard", || {
        // Eight pairs register at most 24 descriptors, so some shards are never opened.
        Builder::new().workers(1).poller_shards(64).start().unwrap();
        let pairs: Vec<_> = (0..8).map(|_| park_on(pair())).collect();
        let open = registered().len();
        assert!((1..64).contains(&open), "{open} of 64 shards are open");
        let full = common::exhaust_descriptors();
        for (one, other) in &pairs {
            let reads = [one, other].map(|stream| async move { stream.read(&mut [0; 1]).await });
            let writes = async {
                task::yield_now().await;
                other.write_all(&[1]).await.unwrap();
                one.write_all(&[1]).await.unwrap();
            };
            let (reads, ()) = park_on(async { futures::join!(futures::future::join_all(reads), writes) });
            assert!(reads.into_iter().all(|read| read.is_ok_and(|count| count == 1)));
        }
        drop(full);
        assert_eq!(registered().len(), open);
        eventually("the sockets are registered", || registered().concat().len() >= 16);
    });
}

#[test]
fn invalid_numbers_of_shards_are_refused() {
    sharded("invalid_numbers_of_shards_are_refused", || {
        for shards in [0, 65, usize::MAX] {
            let error = Builder::new().poller_shards(shards).start().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), format!("the poller has 1 to 64 shards, not {shards}"));
        }
    });
}

#[test]
fn environment_sets_the_number_of_shards() {
    let variable = "NETPOLL_POLLER_SHARDS";
    child_with("environment_sets_the_number_of_shards", &[common::ON_EPOLL, (variable, " 3 ")], || {
        task::block_on(async {});
        assert_eq!(rt::metrics().poller_shards, 3);
        rt::shutdown(common::BOUND).unwrap();
        Builder::new().poller_shards(2).start().unwrap();
        assert_eq!(rt::metrics().poller_shards, 2);
    });
}

#[test]
fn invalid_environment_is_an_error_of_start() {
    let variables = [common::ON_EPOLL, ("NETPOLL_POLLER_SHARDS", "65")];
    child_with("invalid_environment_is_an_error_of_start", &variables, || {
        let error = Builder::new().start().unwrap_err();
        assert_eq!(error.to_string(), "NETPOLL_POLLER_SHARDS=65 is not a number of shards from 1 to 64");
        Builder::new().workers(1).poller_shards(1).start().unwrap();
    });
}

/// By default, there is one shard per 8 workers, rounded down, and at least one.
#[test]
fn default_number_of_shards_follows_the_workers() {
    for (workers, shards) in [("1", "1"), ("15", "1"), ("16", "2"), ("64", "8")] {
        let variables = [common::ON_EPOLL, ("NETPOLL_POLLER_SHARDS_EXPECTED", shards), ("NETPOLL_THREADS", workers)];
        child_with("default_number_of_shards_follows_the_workers", &variables, || {
            if std::env::var_os("NETPOLL_POLLER_SHARDS").is_none() {
                task::block_on(async {});
                let expected = std::env::var("NETPOLL_POLLER_SHARDS_EXPECTED").unwrap();
                assert_eq!(rt::metrics().poller_shards.to_string(), expected);
            }
        });
        if common::is_child("default_number_of_shards_follows_the_workers") {
            break;
        }
    }
}

/// A back end other than epoll has one shard.
#[test]
fn poll_back_end_has_one_shard() {
    let variables = [("NETPOLL_BACKEND", "poll")];
    child_with("poll_back_end_has_one_shard", &variables, || {
        Builder::new().workers(2).poller_shards(4).start().unwrap();
        let (one, other) = park_on(pair());
        park_on(common::ping_pong(&one, &other));
        assert_eq!(rt::metrics().poller_shards, 1);
    });
}
