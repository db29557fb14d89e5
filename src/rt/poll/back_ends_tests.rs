//! Tests of the contract of [`backend`](crate::rt::poll::backend), which run for each back end of
//! this system, and of the list of back ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::rt::poll::backend::*;
use crate::rt::poll::side::{ERROR, HANG_UP};
use crate::sys;

#[path = "random_tests.rs"]
mod random;

use random::random_orders_lose_no_edge;

/// The time after which an expected event counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

const fn token(index: u32, generation: u32) -> Token {
    Token { index, generation }
}

/// An instance and a batch.
struct Waiting<B: BackEnd> {
    it: B,
    batch: B::Batch,
}

impl<B: BackEnd> Waiting<B> {
    fn open() -> Waiting<B> {
        Waiting { it: B::open().unwrap(), batch: Batch::new() }
    }

    /// Adds a descriptor and arms both directions.
    fn add(&self, fd: &impl AsFd, token: Token) {
        add(&self.it, fd.as_fd(), token, true).unwrap();
        self.it.arm(token, true, true);
    }

    /// Returns the events that are available.
    fn now(&mut self, most: usize) -> Vec<Event> {
        self.it.wait(&mut self.batch, most, Some(0));
        self.batch.events().collect()
    }

    /// Waits until an event of `token` satisfies `is_meant`. Returns the reasons of all events up
    /// to this one.
    fn until(&mut self, token: Token, is_meant: impl Fn(&Event) -> bool) -> (u64, u64) {
        let (begun, mut reasons) = (Instant::now(), (0, 0));
        loop {
            self.it.wait(&mut self.batch, 8, Some(100_000_000));
            for event in self.batch.events() {
                assert_eq!((event.index, event.generation), (token.index, token.generation));
                reasons.0 |= event.read_reasons;
                reasons.1 |= event.write_reasons;
                if is_meant(&event) {
                    return reasons;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{}: no such event", B::NAME);
        }
    }
}

/// Returns whether the system supports the back end. The poll(2) of some systems does not report a
/// half-close.
fn is_supported<B: BackEnd>() -> bool {
    let Err(error) = B::open() else { return true };
    assert!(B::NAME == "poll" && sys::os::POLL_HALF_CLOSED.is_none(), "{}: {error}", B::NAME);
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    false
}

/// Returns the names of the back ends that this system supports.
fn supported_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied().filter(|name| *name != "poll" || sys::os::POLL_HALF_CLOSED.is_some())
}

fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    (one, other)
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    (client, server)
}

fn state_is_reported_when_added_and_then_once<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (socket, mut peer) = pair();
    waiting.add(&socket, token(3, 1));
    waiting.until(token(3, 1), |event| event.writable && !event.readable);
    assert_eq!(waiting.now(8), [], "{}", B::NAME);
    peer.write_all(b"x").unwrap();
    waiting.until(token(3, 1), |event| event.readable);
    assert_eq!(waiting.now(8), [], "{}: unread data is not a new edge", B::NAME);
}

fn data_after_a_read_is_a_new_edge<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (mut socket, mut peer) = pair();
    waiting.add(&socket, token(3, 1));
    for _ in 0..3 {
        peer.write_all(b"x").unwrap();
        waiting.until(token(3, 1), |event| event.readable);
        assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(socket.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        waiting.it.arm(token(3, 1), true, false);
    }
}

fn room_after_a_full_buffer_is_a_new_edge<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (mut socket, mut peer) = pair();
    waiting.add(&socket, token(3, 1));
    waiting.until(token(3, 1), |event| event.writable);
    let full = loop {
        match socket.write(&[0; 4096]) {
            Ok(count) => assert!(count > 0),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    waiting.it.arm(token(3, 1), false, true);
    assert_eq!(waiting.now(8), [], "{}: the buffer is full", B::NAME);
    while peer.read(&mut [0; 1 << 16]).is_ok() {}
    waiting.until(token(3, 1), |event| event.writable);
}

fn half_close_hangs_up_one_direction<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (socket, mut peer) = tcp_pair();
    waiting.add(&socket, token(3, 1));
    peer.write_all(b"x").unwrap();
    waiting.until(token(3, 1), |event| event.readable);
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let reasons = waiting.until(token(3, 1), |event| event.read_reasons & HANG_UP != 0);
    assert_eq!(reasons, (HANG_UP, 0), "{}: with data unread", B::NAME);
}

fn full_close_hangs_up_the_write_direction<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (socket, peer) = pair();
    waiting.add(&socket, token(3, 1));
    waiting.until(token(3, 1), |event| event.writable);
    drop(peer);
    waiting.until(token(3, 1), |event| event.write_reasons & HANG_UP != 0);
    waiting.it.arm(token(3, 1), true, true);
    waiting.it.delete(socket.as_fd());
}

fn reset_is_an_error<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (socket, peer) = tcp_pair();
    waiting.add(&socket, token(3, 1));
    waiting.until(token(3, 1), |event| event.writable);
    sys::option::socket::set_linger(peer.as_fd(), Some(Duration::ZERO)).unwrap();
    drop(peer);
    let reasons = waiting.until(token(3, 1), |event| event.read_reasons & HANG_UP != 0);
    assert!(reasons.0 & ERROR != 0, "{}: {reasons:?}", B::NAME);
}

fn refused_datagram_is_an_error<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(gone.local_addr().unwrap()).unwrap();
    drop(gone);
    waiting.add(&socket, token(3, 1));
    // For a short time, another test may use the port, or a process that is being started may have
    // a duplicate of the closed socket. Both would receive the datagram.
    let begun = Instant::now();
    let is_refused = |waiting: &mut Waiting<B>| {
        let _ = socket.send(b"x");
        std::thread::sleep(Duration::from_millis(1));
        // kqueue does not report an error if the connection continues.
        let is_error = |event: &Event| event.read_reasons & ERROR != 0 || B::NAME == "kqueue";
        waiting.now(8).iter().any(|event| event.readable && is_error(event))
    };
    while !is_refused(&mut waiting) {
        assert!(begun.elapsed() < PATIENCE, "{}: no error", B::NAME);
        waiting.it.arm(token(3, 1), true, true);
    }
}

fn listener_is_readable_for_a_connection<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    waiting.add(&listener, token(3, 1));
    for _ in 0..2 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        waiting.until(token(3, 1), |event| event.readable);
        drop((client, listener.accept().unwrap()));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        waiting.it.arm(token(3, 1), true, false);
    }
}

fn new_token_replaces_the_old_one<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (socket, mut peer) = pair();
    waiting.add(&socket, token(3, 1));
    peer.write_all(b"x").unwrap();
    add(&waiting.it, socket.as_fd(), token(4, u32::MAX), false).unwrap();
    waiting.it.arm(token(4, u32::MAX), true, true);
    waiting.until(token(4, u32::MAX), |event| event.readable);
    assert_eq!(waiting.now(8), []);
    let refused = add(&waiting.it, socket.as_fd(), token(5, 1), true);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EEXIST), "{}", B::NAME);
}

/// The refusal must not depend on `is_first` of the earlier `add`, and must not change that
/// registration.
fn second_registration_is_refused<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    for is_first in [false, true] {
        let (mut socket, mut peer) = pair();
        add(&waiting.it, socket.as_fd(), token(3, 1), is_first).unwrap();
        waiting.it.arm(token(3, 1), true, true);
        waiting.until(token(3, 1), |event| event.writable);
        let refused = add(&waiting.it, socket.as_fd(), token(4, 1), true);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EEXIST), "{}", B::NAME);
        peer.write_all(b"x").unwrap();
        waiting.until(token(3, 1), |event| event.readable);
        assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
        // Unless the back end must be armed, the close of the socket ends the registration, so the
        // next socket with the same number is not refused.
        if B::ARMS {
            waiting.it.delete(socket.as_fd());
        }
    }
    let (socket, _peer) = pair();
    waiting.add(&socket, token(3, 2));
    waiting.until(token(3, 2), |event| event.writable);
}

fn deleted_descriptor_is_silent_and_can_be_added_again<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (socket, mut peer) = pair();
    waiting.add(&socket, token(3, 1));
    waiting.it.delete(socket.as_fd());
    waiting.it.delete(socket.as_fd());
    peer.write_all(b"x").unwrap();
    waiting.it.arm(token(3, 1), true, true);
    assert_eq!(waiting.now(8), [], "{}", B::NAME);
    waiting.add(&socket, token(3, 2));
    waiting.until(token(3, 2), |event| event.readable);
}

fn number_used_again_has_the_new_token<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    for generation in 1..5 {
        let (socket, mut peer) = pair();
        waiting.add(&socket, token(3, generation));
        peer.write_all(b"x").unwrap();
        waiting.until(token(3, generation), |event| event.readable);
        if B::ARMS {
            waiting.it.delete(socket.as_fd());
        }
    }
    assert_eq!(waiting.now(8), [], "{}: closed", B::NAME);
}

fn file_that_is_always_ready_is_refused<B: BackEnd>() {
    let it = B::open().unwrap();
    for path in [std::env::current_exe().unwrap(), "/".into()] {
        let file = std::fs::File::open(path).unwrap();
        for is_first in [true, false] {
            let error = add(&it, file.as_fd(), token(0, 0), is_first).unwrap_err();
            assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::InvalidInput, None), "{error}");
            assert!(error.to_string().contains(B::NAME), "{error}");
        }
    }
}

fn own_descriptors_are_recognised<B: BackEnd>() {
    let (it, other) = (B::open().unwrap(), pair().0);
    assert!(!it.owns(other.as_raw_fd()));
    let own: Vec<_> = (0..1024).filter(|&fd| it.owns(fd)).collect();
    assert!(!own.is_empty());
}

fn batch_has_at_most_the_requested_length<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let pairs: Vec<_> = (0..5).map(|_| pair()).collect();
    pairs.iter().zip(0..).for_each(|(pair, index)| waiting.add(&pair.0, token(index, 0)));
    let mut seen = std::collections::BTreeSet::new();
    for most in [2, 1, EVENTS_MAX] {
        let events = waiting.now(most);
        assert!(events.len() <= most);
        seen.extend(events.iter().map(|event| event.index));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{}: no event is lost", B::NAME);
}

fn interrupt_ends_one_wait<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    for _ in 0..3 {
        (0..3).for_each(|_| waiting.it.wake());
        waiting.it.wait(&mut waiting.batch, 8, None);
        assert!(!waiting.batch.is_empty() && waiting.batch.events().count() == 0);
        waiting.it.wait(&mut waiting.batch, 8, Some(0));
        assert!(waiting.batch.is_empty(), "{}: interrupts before a wait are merged", B::NAME);
    }
}

fn interrupt_from_another_thread_ends_a_wait<B: BackEnd + Sync>() {
    let mut waiting = Waiting::<B>::open();
    let (it, batch) = (&waiting.it, &mut waiting.batch);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(5));
            it.wake();
        });
        it.wait(batch, 8, None);
    });
    assert!(!waiting.batch.is_empty());
}

fn wait_does_not_end_before_its_timeout<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    for nanos in [1, 3_000_000, 1_001_000_000] {
        let start = Instant::now();
        waiting.it.wait(&mut waiting.batch, 8, Some(nanos));
        let waited = start.elapsed();
        assert!(waited >= Duration::from_nanos(nanos), "{}: {waited:?} for {nanos} ns", B::NAME);
    }
}

/// As in the runtime, one thread waits while another one adds, arms and deletes descriptors.
fn changes_reach_a_thread_that_waits<B: BackEnd + Sync>() {
    let mut waiting = Waiting::<B>::open();
    let (it, batch) = (&waiting.it, &mut waiting.batch);
    // The generation in the last event of readability.
    let seen = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for round in 1..=20 {
                let (socket, mut peer) = pair();
                peer.write_all(b"x").unwrap();
                add(it, socket.as_fd(), token(3, round), true).unwrap();
                it.arm(token(3, round), true, true);
                let begun = Instant::now();
                while seen.load(Ordering::Acquire) != round {
                    assert!(begun.elapsed() < PATIENCE);
                    std::thread::yield_now();
                }
                // The other thread probably waits again after this pause.
                std::thread::sleep(Duration::from_millis(1));
                it.delete(socket.as_fd());
                drop(socket);
                // No wait may hold a reference to the open file any more, so the peer reads the end
                // of the stream, or an error because of the byte that was not read.
                let end = peer.read(&mut [0; 1]).map_err(|error| error.kind());
                assert!(matches!(end, Ok(0) | Err(io::ErrorKind::ConnectionReset)), "{}: {end:?}", B::NAME);
            }
            it.wake();
        });
        while !changes.is_finished() {
            it.wait(batch, 8, Some(100_000_000));
            if let Some(event) = batch.events().find(|event| event.readable) {
                seen.store(event.generation, Ordering::Release);
            }
        }
    });
}

fn closed_reader_of_a_pipe_wakes_the_writer<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (reader, mut writer) = io::pipe().unwrap();
    sys::socket::set_nonblocking(writer.as_fd(), true).unwrap();
    waiting.add(&writer, token(3, 1));
    waiting.until(token(3, 1), |event| event.writable);
    while writer.write(&[0; 4096]).is_ok() {}
    waiting.it.arm(token(3, 1), false, true);
    assert_eq!(waiting.now(8), [], "{}: the pipe is full", B::NAME);
    drop(reader);
    waiting.until(token(3, 1), |event| event.writable);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

fn closed_writer_of_a_pipe_is_a_hang_up_and_loses_no_data<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (mut reader, mut writer) = io::pipe().unwrap();
    sys::socket::set_nonblocking(reader.as_fd(), true).unwrap();
    waiting.add(&reader, token(3, 1));
    writer.write_all(b"abc").unwrap();
    drop(writer);
    waiting.until(token(3, 1), |event| event.readable && event.read_reasons & HANG_UP != 0);
    assert_eq!((reader.read(&mut [0; 8]).unwrap(), reader.read(&mut [0; 8]).unwrap()), (3, 0));
}

fn hang_up_before_the_registration_is_reported<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (socket, mut peer) = tcp_pair();
    peer.write_all(b"abc").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    // Waits until the FIN has arrived.
    let begun = Instant::now();
    while !sys::socket::is_hung_up(socket.as_fd()).unwrap() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    waiting.add(&socket, token(3, 1));
    let reasons = waiting.until(token(3, 1), |event| event.readable && event.read_reasons & HANG_UP != 0);
    assert_eq!(reasons, (HANG_UP, 0), "{}", B::NAME);
}

fn directions_are_reported_separately<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    let (mut socket, mut peer) = pair();
    waiting.add(&socket, token(3, 1));
    waiting.until(token(3, 1), |event| event.writable);
    while socket.write(&[0; 4096]).is_ok() {}
    waiting.it.arm(token(3, 1), true, true);
    peer.write_all(b"x").unwrap();
    waiting.until(token(3, 1), |event| event.readable);
    assert_eq!(socket.write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock, "{}", B::NAME);
    while peer.read(&mut [0; 1 << 16]).is_ok() {}
    waiting.until(token(3, 1), |event| event.writable);
    assert_eq!((socket.read(&mut [0; 8]).unwrap(), socket.write(b"x").unwrap()), (1, 1));
}

fn foreign_close_does_not_disturb_the_next_descriptor<B: BackEnd>() {
    let mut waiting = Waiting::<B>::open();
    for generation in (1..9).step_by(2) {
        let (socket, _peer) = pair();
        waiting.add(&socket, token(3, generation));
        waiting.until(token(3, generation), |event| event.writable);
        // Closes the descriptor as other code would, without a call of `delete`.
        drop(socket);
        waiting.it.arm(token(3, generation), true, true);
        let events = waiting.now(8);
        assert!(events.iter().all(|event| event.generation == generation), "{}: {events:?}", B::NAME);
        let (socket, mut peer) = pair();
        waiting.add(&socket, token(4, generation + 1));
        waiting.until(token(4, generation + 1), |event| event.writable);
        peer.write_all(b"x").unwrap();
        waiting.until(token(4, generation + 1), |event| event.readable);
        waiting.it.delete(socket.as_fd());
    }
}

fn interrupts_by_many_threads_are_not_lost<B: BackEnd + Sync>() {
    const THREADS: usize = 3;
    const ROUNDS: usize = 300;
    let mut waiting = Waiting::<B>::open();
    let (it, batch) = (&waiting.it, &mut waiting.batch);
    let (sent, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let sent = sent.fetch_add(1, Ordering::SeqCst) + 1;
                    it.wake();
                    // The waiting thread sees the work that preceded the interrupt.
                    let begun = Instant::now();
                    while seen.load(Ordering::SeqCst) < sent {
                        assert!(begun.elapsed() < PATIENCE, "{}: an interrupt is lost", B::NAME);
                        std::thread::yield_now();
                    }
                }
            });
        }
        while seen.load(Ordering::SeqCst) < THREADS * ROUNDS {
            it.wait(batch, 8, Some(PATIENCE.as_nanos() as u64));
            assert!(!batch.is_empty(), "{}: an interrupt is lost", B::NAME);
            seen.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    });
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod each {
            use super::super::*;
            $(
                #[test]
                fn $name() {
                    for_each_back_end!($name);
                }
            )*
        }
    };
}

contract! {
    state_is_reported_when_added_and_then_once
    data_after_a_read_is_a_new_edge
    room_after_a_full_buffer_is_a_new_edge
    half_close_hangs_up_one_direction
    full_close_hangs_up_the_write_direction
    reset_is_an_error
    refused_datagram_is_an_error
    listener_is_readable_for_a_connection
    new_token_replaces_the_old_one
    second_registration_is_refused
    deleted_descriptor_is_silent_and_can_be_added_again
    number_used_again_has_the_new_token
    file_that_is_always_ready_is_refused
    own_descriptors_are_recognised
    batch_has_at_most_the_requested_length
    interrupt_ends_one_wait
    interrupt_from_another_thread_ends_a_wait
    wait_does_not_end_before_its_timeout
    changes_reach_a_thread_that_waits
    closed_reader_of_a_pipe_wakes_the_writer
    closed_writer_of_a_pipe_is_a_hang_up_and_loses_no_data
    hang_up_before_the_registration_is_reported
    directions_are_reported_separately
    foreign_close_does_not_disturb_the_next_descriptor
    random_orders_lose_no_edge
    interrupts_by_many_threads_are_not_lost
}

#[test]
fn unknown_back_end_is_an_error_that_lists_the_known_ones() {
    let error = Instance::open(Some("io_ring")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(text.contains(VARIABLE) && text.contains("\"io_ring\""), "{text}");
    assert!(NAMES.iter().all(|name| text.contains(name)), "{text}");
    for name in supported_names() {
        assert!(Instance::open(Some(name)).is_ok(), "{name}");
    }
    assert!(Instance::open(None).is_ok());
}

#[test]
fn batch_follows_its_instance() {
    let mut events = Events::new();
    assert!(events.is_empty());
    for name in supported_names().chain(supported_names()) {
        let instance = Instance::open(Some(name)).unwrap();
        instance.wake();
        instance.wait(&mut events, 8, None);
        assert!(!events.is_empty());
        struct Nothing;
        impl Sink for Nothing {
            fn take(&mut self, event: Event) {
                panic!("{event:?}");
            }
        }
        events.show(&mut Nothing);
    }
}
