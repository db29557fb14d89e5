//! Tests of the driver: interrupts, batches, looks, registrations, waits and timeouts.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::*;
use crate::own_process;
use crate::rt::poll::backend::{EVENTS_MAX, LOOK_MAX};
use crate::rt::poll::poll_desc::Direction;

#[test]
fn only_sleeps_of_the_requested_kind_and_length_are_interrupted() {
    let driver = Driver::new();
    let instance = driver.instance(0).unwrap();
    assert!(Arc::ptr_eq(&instance, &driver.instance(0).unwrap()), "all callers share one instance");
    let mut events = Events::new();
    let now = clock::now();
    let mut is_interrupted = |until| {
        driver.poll(0, &instance, &mut events, EVENTS_MAX, now, until);
        !events.is_empty()
    };
    assert!(!driver.wake_worker(0) && !driver.wake_if_later(0, 0) && !is_interrupted(now));
    driver.roles.role(0).sleep(100, By::Worker);
    assert!(driver.wake_if_later(0, 104) && !is_interrupted(now), "the sleep ends at that time anyway");
    assert!(driver.wake_if_later(0, 99) && is_interrupted(clock::NEVER));
    assert!(driver.wake_worker(0) && is_interrupted(clock::NEVER));
    driver.roles.role(0).sleep(100, By::Root);
    assert!(
        !driver.wake_worker(0) && !is_interrupted(now) && driver.wake_if_later(0, 99) && is_interrupted(clock::NEVER)
    );
    assert!(driver.wake_sleeper() && is_interrupted(clock::NEVER));
    driver.roles.role(0).rise();
    assert!(!driver.wake_worker(0) && !driver.wake_sleeper() && !driver.wake_if_later(0, 0) && !is_interrupted(now));
    assert_eq!((driver.counts(0).waits.get(), driver.sum(|counts| &counts.waits)), (8, 8));
    driver.close();
    assert!(!Arc::ptr_eq(&instance, &driver.instance(0).unwrap()), "a new instance is opened after close");
}

#[test]
fn look_takes_events_and_passes_an_interrupt_on() {
    let driver = Driver::new();
    let instance = driver.instance(0).unwrap();
    let mut events = Events::new();
    let (socket, peer) = UnixStream::pair().unwrap();
    driver.add(0, socket.as_fd(), Token { index: 3, generation: 7 }, true, || true).unwrap();
    drop(peer);
    driver.roles.role(0).sleep(100, By::Worker);
    assert!(driver.wake_worker(0));
    if !driver.look(0, &instance, &mut events) {
        return assert!(instance.descriptor().is_none(), "epoll permits a look");
    }
    assert!(!events.is_empty());
    assert_eq!(driver.record(0, &PollCache::new(), &events, &mut Wakers::new()), 1);
    driver.poll(0, &instance, &mut events, EVENTS_MAX, clock::now(), clock::NEVER);
    assert!(!events.is_empty(), "the sleep is interrupted");
    assert_eq!(driver.record(0, &PollCache::new(), &events, &mut Wakers::new()), 0, "no event is reported twice");
}

#[test]
fn look_leaves_events_for_the_thread_that_waits() {
    let driver = Driver::new();
    let instance = driver.instance(0).unwrap();
    let mut events = Events::new();
    let pairs: Vec<_> = (0..LOOK_MAX + 5).map(|_| UnixStream::pair().unwrap()).collect();
    for (index, (socket, _)) in pairs.iter().enumerate() {
        driver.add(0, socket.as_fd(), Token { index: index as u32, generation: 7 }, true, || true).unwrap();
    }
    if driver.look(0, &instance, &mut events) {
        assert_eq!(driver.record(0, &PollCache::new(), &events, &mut Wakers::new()), LOOK_MAX);
        driver.poll(0, &instance, &mut events, EVENTS_MAX, clock::now(), clock::NEVER);
        assert_eq!(driver.record(0, &PollCache::new(), &events, &mut Wakers::new()), 5);
    }
}

#[test]
fn record_stores_events_and_counts_stale_ones() {
    let (driver, cache) = (Driver::new(), PollCache::new());
    let desc = cache.alloc().unwrap();
    let generation = desc.open();
    let record = |index, generation| {
        let (socket, peer) = UnixStream::pair().unwrap();
        let token = Token { index, generation };
        if driver.add(0, socket.as_fd(), token, true, || true).unwrap().arms {
            driver.arm(0, token, true, true);
        }
        let instance = driver.instance(0).unwrap();
        let mut events = Events::new();
        let mut poll = || {
            let now = clock::now();
            driver.poll(0, &instance, &mut events, EVENTS_MAX, now, now);
            driver.record(0, &cache, &events, &mut Wakers::new());
        };
        poll();
        drop(peer);
        poll();
        driver.delete(0, socket.as_fd(), || true);
        (driver.sum(|counts| &counts.events), driver.sum(|counts| &counts.stale))
    };
    assert_eq!(record(desc.index, generation), (2, 0));
    let edges = |direction| desc.side(direction, generation).edges();
    let (read, write) = (edges(Direction::Read), edges(Direction::Write));
    assert!(read != 0 && write != 0 && desc.side(Direction::Read, generation).is_hung_up());
    assert_eq!(record(desc.index, generation + 1), (4, 2));
    assert_eq!(record(u32::MAX, generation), (6, 2), "no slot has this index");
    assert_eq!((edges(Direction::Read), edges(Direction::Write)), (read, write));
}

/// Returns a driver with `shards` shards for two workers, or `None` if the back end has only one
/// shard.
fn sharded(shards: usize) -> Option<Driver> {
    let driver = Driver::new();
    driver.configure(shards, 2);
    driver.instance(0).unwrap().descriptor().is_some().then_some(driver)
}

fn token(index: u32) -> Token {
    Token { index, generation: 1 }
}

#[test]
fn descriptors_are_registered_in_the_own_shard_until_it_has_many_more() {
    let Some(driver) = sharded(3) else { return };
    let pairs: Vec<_> = (0..32).map(|_| UnixStream::pair().unwrap()).collect();
    let mut counts = [0; 3];
    for (index, (socket, _)) in pairs.iter().enumerate() {
        counts[driver.add(2, socket.as_fd(), token(index as u32), false, || true).unwrap().shard] += 1;
    }
    assert!(counts[2] >= counts[0] && counts[0] >= 8 && counts[1] >= 8, "{counts:?}");
    assert_eq!(driver.roles.open().into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    (0..counts[2]).for_each(|_| driver.retired(2));
    assert_eq!(driver.choose(0), 2, "the emptiest");
    driver.close();
    assert_eq!((driver.roles.open(), driver.choose(1)), (Shards::one(0), 1));
}

/// epoll_ctl(2) detects a second registration only in the same instance, so the driver must check
/// the other instances.
#[test]
fn first_registration_is_refused_for_a_descriptor_of_any_shard() {
    let Some(driver) = sharded(2) else { return };
    let (socket, _peer) = UnixStream::pair().unwrap();
    let (other, _peer) = UnixStream::pair().unwrap();
    assert_eq!(driver.add(1, socket.as_fd(), token(1), true, || true).unwrap().shard, 1);
    assert_eq!(driver.add(0, other.as_fd(), token(2), true, || true).unwrap().shard, 0);
    for (own, fd) in [(0, &socket), (1, &socket), (0, &other), (1, &other)] {
        let error = driver.add(own, fd.as_fd(), token(3), true, || true).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    }
    assert_eq!([0, 1].map(|shard| driver.shards[shard].registered.load(Ordering::Relaxed)), [1, 1]);
    driver.delete(1, socket.as_fd(), || true);
    assert_eq!(driver.add(0, socket.as_fd(), token(3), true, || true).unwrap().shard, 0);
}

/// Regression test: each of the two registrations found the other one, and both were refused.
#[test]
fn one_of_two_first_registrations_in_different_shards_succeeds() {
    let Some(driver) = sharded(2) else { return };
    let (socket, _peer) = UnixStream::pair().unwrap();
    let barrier = std::sync::Barrier::new(2);
    let add = |own: usize| {
        barrier.wait();
        let added = driver.add(own, socket.as_fd(), token(own as u32), true, || true);
        added.map_err(|error| assert_eq!(error.raw_os_error(), Some(libc::EEXIST))).ok()
    };
    for _ in 0..1000 {
        let added = std::thread::scope(|scope| {
            let other = scope.spawn(|| add(1));
            [add(0), other.join().unwrap()]
        });
        let ([Some(one), None] | [None, Some(one)]) = added else { panic!("{added:?}") };
        driver.delete(one.shard, socket.as_fd(), || true);
        driver.retired(one.shard);
    }
}

/// The runtime may be shut down and started again while a thread registers a descriptor. In the
/// meantime, an operation of the next epoch may have registered it in another shard. The thread's
/// own registration would then be a second one, which would remain when the other one is removed.
#[test]
fn registration_that_comes_too_late_is_not_made() {
    let driver = Driver::new();
    let (socket, _peer) = UnixStream::pair().unwrap();
    for is_first in [false, true] {
        assert!(!driver.add(0, socket.as_fd(), token(1), is_first, || false).unwrap().stays);
    }
    assert!(driver.add(0, socket.as_fd(), token(2), true, || true).unwrap().stays);
    assert!(!driver.add(0, socket.as_fd(), token(3), false, || false).unwrap().stays);
    let error = driver.add(0, socket.as_fd(), token(3), true, || true).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
}

/// Regression test: an operation of the next epoch found the registration that came too late, and
/// failed with EEXIST.
#[test]
fn late_registration_does_not_refuse_the_one_that_overtakes_it() {
    let driver = Driver::new();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let overtake = || driver.add(0, socket.as_fd(), token(1), true, || true).unwrap().stays;
    let is_not_overtaken = || !std::thread::scope(|scope| scope.spawn(overtake).join().unwrap());
    assert!(!driver.add(0, socket.as_fd(), token(1), true, is_not_overtaken).unwrap().stays);
    let error = driver.add(0, socket.as_fd(), token(3), true, || true).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "the registration stays");
}

/// The runtime may be shut down and started again while a handle is dropped. In the meantime,
/// another handle may have registered the descriptor.
#[test]
fn registration_of_the_next_epoch_is_not_removed() {
    let driver = Driver::new();
    let (socket, _peer) = UnixStream::pair().unwrap();
    driver.add(0, socket.as_fd(), token(1), true, || true).unwrap();
    driver.delete(0, socket.as_fd(), || false);
    let error = driver.add(0, socket.as_fd(), token(2), true, || true).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    driver.delete(0, socket.as_fd(), || true);
    assert!(driver.add(0, socket.as_fd(), token(2), true, || true).is_ok());
}

/// Regression test: a registration that came too late found the one of the next epoch in another
/// shard. It then removed the descriptor from its own shard, whose instance could be of the next
/// epoch.
#[test]
fn late_registration_does_not_find_the_one_that_has_overtaken_it() {
    let Some(driver) = sharded(2) else { return };
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(driver.add(1, socket.as_fd(), token(1), true, || true).unwrap().shard, 1);
    let checks = std::cell::Cell::new(0);
    let is_not_over = || checks.replace(checks.get() + 1) == 0;
    assert!(!driver.add(0, socket.as_fd(), token(1), true, is_not_over).unwrap().stays);
    assert_eq!([0, 1].map(|shard| driver.shards[shard].registered.load(Ordering::Relaxed)), [0, 1]);
}

/// Regression test: while a start closed the instances, a thread of an earlier epoch opened a shard
/// that was then marked as closed. No thread polled the descriptors of this shard.
#[test]
fn shard_that_is_opened_while_all_are_closed_is_marked_as_open() {
    let Some(driver) = sharded(2) else { return };
    let first = driver.instance(1).unwrap();
    std::thread::scope(|scope| {
        // The start waits for this lock.
        let last = driver.shards[SHARDS_MAX - 1].slot();
        scope.spawn(|| driver.configure(2, 2));
        let begun = Instant::now();
        while Arc::ptr_eq(&first, &driver.instance(1).unwrap()) {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        drop(last);
    });
    assert!(driver.shards[1].slot().is_some() && driver.roles.open().contains(1));
}

/// Regression test: if the last free descriptors were used for another shard, no thread could sleep
/// in this shard, because a thread that takes the roles of both shards must open shard 0.
#[test]
fn shard_0_is_opened_before_another_shard() {
    let Some(driver) = sharded(2) else { return };
    driver.close();
    driver.instance(1).unwrap();
    assert!([0, 1].iter().all(|&shard| driver.shards[shard].slot().is_some()));
}

/// A thread of an earlier epoch may register a descriptor in a shard that no longer exists.
#[test]
fn shard_that_does_not_exist_is_not_opened() {
    let Some(driver) = sharded(2) else { return };
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(driver.add(3, socket.as_fd(), token(1), false, || false).unwrap().shard, 0);
    assert_eq!(driver.roles.open(), Shards::one(0));
    assert_eq!(driver.instance(2).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn wait_for_several_shards_returns_those_with_events_or_an_interrupt() {
    let Some(driver) = sharded(3) else { return };
    let instances = [0, 1, 2].map(|shard| driver.instance(shard).unwrap());
    let shards: Shards = (0..3).collect();
    let mut descriptors: Vec<_> = instances
        .iter()
        .filter_map(|instance| instance.descriptor())
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    driver.add(1, socket.as_fd(), token(7), true, || true).unwrap();
    let mut events = Events::new();
    let mut wait = |until| {
        let ready = driver.wait_for_any(shards, &mut descriptors, clock::now(), until);
        ready.into_iter().for_each(|shard| instances[shard].wait(&mut events, EVENTS_MAX, Some(0)));
        ready
    };
    assert_eq!(wait(clock::NEVER), Shards::one(1), "the first state of the socket");
    assert_eq!(wait(0), Shards::NONE);
    peer.write_all(&[1]).unwrap();
    assert_eq!(wait(clock::NEVER), Shards::one(1));
    driver.roles.sleep(shards, clock::NEVER, By::Root);
    assert!(driver.wake_if_later(2, 5) && driver.wake_if_later(0, 5));
    assert_eq!(wait(clock::NEVER), [0, 2].into_iter().collect());
    driver.wake();
    assert_eq!(wait(clock::NEVER), shards);
    let begun = clock::now();
    assert_eq!((wait(begun + 2_000_000), clock::now() >= begun + 2_000_000), (Shards::NONE, true));
    assert_eq!([0, 1, 2].map(|shard| driver.counts(shard).waits.get()), [6; 3]);
}

/// The kernel may exceed a timeout by 0.5 % of it, up to 100 ms, if the thread has a positive nice
/// value.
#[test]
fn first_step_of_a_long_sleep_ends_in_time_on_a_thread_with_a_nice_value() {
    for length in (ONE_STEP_NANOS..60_000_000_000).step_by(9_999_991) {
        let step = timeout(7, 7 + length).unwrap();
        let slack = (step / 200).min(100_000_000);
        let latest = clock::COARSE_BEHIND_NANOS + step + slack;
        assert!(step > 0 && latest <= length, "the first step of {length} ns may end after {latest} ns");
    }
    assert_eq!((timeout(7, 9), timeout(9, 7), timeout(7, clock::NEVER)), (Some(2), Some(0), None));
}

/// Regression test: a forked child that opened a socket waited for ever if a thread of its parent
/// was opening the instance of shard 0 at the time of the fork.
#[test]
#[allow(unsafe_code)]
fn forked_child_waits_for_no_lock_of_the_driver() {
    // In this process, other tests use descriptors that the forked child would keep open.
    own_process::run(module_path!(), "forked_child_waits_for_no_lock_of_the_driver", || {
        let runtime = crate::rt::runtime::runtime();
        runtime.ensure_running();
        let slot = runtime.driver.shards[0].slot_mut();
        // SAFETY: the child creates an error, for which the C library permits an allocation, and
        // exits, or it waits for the lock until the alarm ends it.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: no pointer is passed.
            unsafe { libc::alarm(60) };
            let is_refused = crate::rt::poll::poller::prepare().is_err();
            // SAFETY: no pointer is passed.
            unsafe { libc::_exit(i32::from(!is_refused)) };
        }
        drop(slot);
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    });
}
