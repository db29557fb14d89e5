//! Calls on Unix sockets whose buffers or queues are full: which writes succeed, and when the
//! sockets become writable.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use netpoll::io::AsyncFd;

use super::kinds::{name, recv_many, send_many, unix, unix_types};
use super::*;

/// The directions that the peer of a full socket shuts down. With `None`, it shuts down neither.
const SHUTS: [Option<Shutdown>; 4] = [None, Some(Shutdown::Read), Some(Shutdown::Write), Some(Shutdown::Both)];

/// Returns a pair whose first end has a send buffer of 200,000 bytes. (The kernel doubles the
/// value.)
fn pair(ty: Type) -> (Socket, Socket) {
    let (one, other) = Socket::pair(Domain::UNIX, ty, None).unwrap();
    for socket in [&one, &other] {
        socket.set_nonblocking(true).unwrap();
    }
    one.set_send_buffer_size(100_000).unwrap();
    (one, other)
}

/// Sends messages of 20,000 bytes until a call does not send a whole message. Returns the number of
/// whole messages, the result of the last call and the readiness.
fn fill(socket: &Socket) -> String {
    let mut count = 0;
    loop {
        match send_many(socket, 20_000) {
            result if result == "20000" => count += 1,
            error => return format!("{count} {error} {}", ready(socket.as_raw_fd())),
        }
    }
}

#[test]
fn unix_socket_is_writable_while_at_most_a_quarter_of_its_buffer_is_used() {
    same(async |trace| {
        for ty in unix_types() {
            for shuts in SHUTS {
                let (one, other) = pair(ty);
                trace.note("full", fill(&one));
                if let Some(how) = shuts {
                    other.shutdown(how).unwrap();
                    trace.note("shut", format!("{how:?} {} {}", ready(one.as_raw_fd()), send(&one)));
                }
                for _ in 0..10 {
                    trace.note("read", format!("{} {}", recv_many(&other, 20_000), ready(one.as_raw_fd())));
                }
                trace.note("full", fill(&one));
                drop(other);
                trace.note("closed", format!("{} {}", ready(one.as_raw_fd()), send(&one)));
            }
        }
    });
}

#[test]
fn unix_message_may_be_longer_than_the_free_part_of_the_buffer() {
    same(async |trace| {
        for ty in [Type::DGRAM, Type::SEQPACKET] {
            let (one, other) = pair(ty);
            for count in [40_000, 190_000, 1] {
                trace.note("send", format!("{} {}", send_many(&one, count), ready(one.as_raw_fd())));
            }
            for _ in 0..3 {
                trace.note("read", format!("{} {}", recv_many(&other, 200_000), ready(one.as_raw_fd())));
            }
        }
    });
}

#[test]
fn unix_socket_with_a_full_buffer_is_not_writable_after_its_peer_was_closed() {
    same(async |trace| {
        for is_mutual in [false, true] {
            let (sender, peer, receiver) = (unix(Type::DGRAM), unix(Type::DGRAM), unix(Type::DGRAM));
            for (socket, text) in [(&sender, "sender"), (&peer, "peer"), (&receiver, "receiver")] {
                socket.bind(&name(&format!("{text} {is_mutual}"))).unwrap();
            }
            let other = receiver.local_addr().unwrap();
            sender.connect(&peer.local_addr().unwrap()).unwrap();
            if is_mutual {
                peer.connect(&sender.local_addr().unwrap()).unwrap();
            }
            while shown(sender.send_to(&[7; 60_000], &other)) == "60000" {}
            trace.note("full", ready(sender.as_raw_fd()));
            drop(peer);
            trace.note("closed", ready(sender.as_raw_fd()));
            while recv_many(&receiver, 60_000) == "60000" {}
            trace.note("read", format!("{} {}", ready(sender.as_raw_fd()), send(&sender)));
        }
    });
}

/// Whether a waker was called.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        // ORDERING: Release pairs with the Acquire of the task that sees the wake-up.
        self.0.store(true, Ordering::Release);
    }
}

/// Begins a write, which waits. Then calls `then` with the peer, and receives messages of 20,000
/// bytes at the peer. Notes after which of these calls the write is woken, and the result of the
/// write.
async fn wait_to_write(trace: &mut Trace, one: Socket, other: &Socket, then: impl Fn(&Socket)) {
    let one = AsyncFd::new(one).unwrap();
    let mut write = pin!(one.write_with(|one: &Socket| one.send_vectored(&[io::IoSlice::new(b"x")])));
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = woken.clone().into();
    let mut poll = async || {
        // Unlike `settle`, this lets the runtime report events.
        task::sleep(ms(20)).await;
        if !woken.0.swap(false, Ordering::Acquire) {
            return "waits".to_owned();
        }
        match write.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => shown(result),
            Poll::Pending => "woken, waits".to_owned(),
        }
    };
    trace.note("begin", poll().await);
    trace.note("full", poll().await);
    then(other);
    for _ in 0..12 {
        let result = poll().await;
        trace.note("write", &*result);
        if !result.contains("waits") {
            return;
        }
        trace.note("read", recv_many(other, 20_000));
    }
}

#[test]
fn waiting_write_continues_when_a_full_unix_socket_becomes_writable() {
    same(async |trace| {
        for ty in unix_types() {
            for how in SHUTS {
                let (one, other) = pair(ty);
                trace.note("full", format!("{how:?} {}", fill(&one)));
                wait_to_write(trace, one, &other, |other| how.map_or(Ok(()), |how| other.shutdown(how)).unwrap()).await;
            }
        }
        let (one, other) = (unix(Type::DGRAM), unix(Type::DGRAM));
        other.bind(&name("full queue")).unwrap();
        one.connect(&name("full queue")).unwrap();
        let count = (0..50).take_while(|_| send(&one) == "1").count();
        trace.note("full", format!("{count} {}", ready(one.as_raw_fd())));
        wait_to_write(trace, one, &other, |_| ()).await;
    });
}
