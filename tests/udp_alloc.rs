//! Receiving and sending datagrams, singly or in batches, allocates no memory, even if the receiver
//! waits. A batch does not keep the memory of sent datagrams.
//!
//! The test counts the allocations of the whole process, so this binary has one test.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::run;
use netpoll::net::{Ancillary, RecvBatch, SendBatch, UdpSocket};
use netpoll::{rt, task};

/// The number of allocations so far, with reallocations.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// The number of bytes that are allocated.
static BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` or `realloc` of `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size, Ordering::Relaxed);
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as for `dealloc`, and the caller keeps the contract of `realloc` for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 1000;

/// The number of allocations that the start of a thread of the runtime may add. A round itself
/// makes none.
const ALLOWED: usize = ROUNDS / 20;

/// Calls `round` [`ROUNDS`] times, so that lists and heaps reach their final size, and then asserts
/// that [`ROUNDS`] more calls make at most [`ALLOWED`] allocations.
async fn allocates_nothing(what: &str, mut round: impl AsyncFnMut()) {
    for _ in 0..ROUNDS {
        round().await;
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        round().await;
    }
    let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} rounds of {what}");
}

/// Go: TestAllocs.
#[test]
fn datagrams_do_not_allocate() {
    // On a busy machine a task may count as blocked, and the start of a thread for the other tasks
    // would allocate memory.
    rt::Builder::new().blocked_tasks(rt::BlockedPolicy::Off).start().unwrap();
    run(async {
        let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        other.set_recv_packet_info(true).unwrap();
        other.set_recv_tos(true).unwrap();
        let to = other.local_addr().unwrap();
        let mut buf = [0; 64];

        allocates_nothing("send_to and recv_from", async || {
            one.send_to(&[7; 64], to).await.unwrap();
            assert_eq!(other.recv_from(&mut buf).await.unwrap().0, 64);
        })
        .await;

        let control = Ancillary::new().with_tos(8).with_local(to.ip());
        allocates_nothing("send_msg and recv_msg", async || {
            one.send_msg(&[IoSlice::new(&[7; 64])], to, &control).await.unwrap();
            let info = other.recv_msg(&mut [IoSliceMut::new(&mut buf)]).await.unwrap();
            assert_eq!((info.len, info.ancillary.tos()), (64, Some(8)));
        })
        .await;

        let (mut incoming, mut outgoing) = (RecvBatch::new(16, 64), SendBatch::new());
        allocates_nothing("send_many and recv_many", async || {
            for _ in 0..16 {
                outgoing.push_with(&[7; 64], to, &control).unwrap();
            }
            while !outgoing.is_empty() {
                one.send_many(&mut outgoing).await.unwrap();
            }
            let mut got = 0;
            while got < 16 {
                got += other.recv_many(&mut incoming).await.unwrap();
                assert!(incoming.iter().all(|datagram| datagram.bytes() == [7; 64]));
            }
        })
        .await;

        // Another task echoes, so most receives wait, in this task and in the other.
        let echo = task::spawn({
            let other = other.clone();
            async move {
                let mut buf = [0; 64];
                while let Ok((count, from)) = other.recv_from(&mut buf).await {
                    other.send_to(&buf[..count], from).await.unwrap();
                }
            }
        });
        allocates_nothing("receiving with a wait", async || {
            one.send_to(&[7; 64], to).await.unwrap();
            assert_eq!(one.recv_from(&mut buf).await.unwrap(), (64, to));
        })
        .await;
        other.close().await.unwrap();
        echo.await;

        // Refills a batch before it is empty, with small and large datagrams, with and without
        // ancillary data.
        for ancillary in [None, Some(&control)] {
            let mut batch = SendBatch::new();
            let mut number = 0_usize;
            let mut round = async |batch: &mut SendBatch| {
                while batch.len() < 5000 {
                    let bytes = &[7; 1400][..number * 7919 % 1400];
                    match ancillary {
                        Some(ancillary) => batch.push_with(bytes, to, ancillary).unwrap(),
                        None => batch.push(bytes, to),
                    }
                    number += 1;
                }
                one.send_many(batch).await.unwrap();
                while batch.len() > 4000 {
                    batch.skip();
                }
            };
            let before = BYTES.load(Ordering::Relaxed);
            for _ in 0..100 {
                round(&mut batch).await;
            }
            let grown = BYTES.load(Ordering::Relaxed).saturating_sub(before);
            // 5,000 datagrams of 700 bytes on average, each with an address of 128 bytes and
            // control data. The capacity of a vector may be twice its length.
            assert!(grown < 24 << 20, "{} MiB for 5,000 datagrams", grown >> 20);
        }
    });
}
