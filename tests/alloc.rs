//! Reads and writes allocate no memory, even if the read waits, with and without deadlines and
//! timeouts. Datagrams of Unix sockets and sleeps allocate no memory either.
//!
//! The allocator counts the allocations of the whole process, so this binary has one test.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::by_hand::{fresh_pair, trait_read, trait_write_all};
use common::run;
use netpoll::net::TcpStream;
use netpoll::os::unix::net::UnixDatagram;
use netpoll::{rt, task};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` or `realloc` of this allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the pointer came from this allocator, and the caller keeps the contract of
        // `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 1000;

/// Calls `round` [`ROUNDS`] times, so that lists and heaps reach their final size. Returns the
/// number of allocations of [`ROUNDS`] more calls.
async fn allocations(mut round: impl AsyncFnMut()) -> usize {
    for _ in 0..ROUNDS {
        round().await;
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        round().await;
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// The number of allocations that the start of a thread of the runtime may add. A round itself
/// makes none.
const ALLOWED: usize = ROUNDS / 20;

async fn write_then_read(from: &TcpStream, to: &TcpStream) {
    let mut buf = [0; 64];
    assert_eq!(from.write(&[7; 64]).await.unwrap(), 64);
    let mut got = 0;
    while got < 64 {
        got += to.read(&mut buf[got..]).await.unwrap();
    }
}

async fn traits_write_then_read(from: &TcpStream, to: &TcpStream) {
    let mut buf = [0; 64];
    trait_write_all(from, &[7; 64]).await.unwrap();
    let mut got = 0;
    while got < 64 {
        got += trait_read(to, &mut buf[got..]).await.unwrap();
    }
}

/// Go: TestTCPReadWriteAllocs.
#[test]
fn reads_writes_datagrams_and_sleeps_do_not_allocate() {
    // On a busy machine a task may seem stuck, and the start of a thread for it would allocate
    // memory.
    rt::Builder::new().blocked_tasks(rt::BlockedPolicy::Off).start().unwrap();
    run(async {
        let (client, server) = fresh_pair().await;
        let count = allocations(async || write_then_read(&client, &server).await).await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} writes and reads");
        let count = allocations(async || traits_write_then_read(&client, &server).await).await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} writes and reads through the traits");

        // Another task echoes, so the reads of both tasks wait.
        let echo = task::spawn({
            let server = server.clone();
            async move {
                let mut buf = [0; 64];
                while let Ok(count @ 1..) = server.read(&mut buf).await {
                    server.write_all(&buf[..count]).await.unwrap();
                }
            }
        });
        let count = allocations(async || write_then_read(&client, &client).await).await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} reads that wait");
        let count = allocations(async || traits_write_then_read(&client, &client).await).await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} reads that wait, through the traits");
        let count = allocations(async || {
            client.set_deadline(Instant::now() + Duration::from_secs(30)).unwrap();
            server.set_read_deadline(Instant::now() + Duration::from_secs(30)).unwrap();
            write_then_read(&client, &client).await;
        })
        .await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} reads with a deadline");
        client.set_deadline(None).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let count = allocations(async || write_then_read(&client, &client).await).await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} reads with a timeout");
        client.close_write().unwrap();
        echo.await;

        let sockets = (UnixDatagram::bind("").await.unwrap(), UnixDatagram::bind("").await.unwrap());
        let to = sockets.1.local_addr().unwrap();
        let count = allocations(async || {
            sockets.0.send_to_addr(&[7; 64], &to).await.unwrap();
            let (count, from) = sockets.1.recv_from(&mut [0; 64]).await.unwrap();
            assert!(count == 64 && !from.is_unnamed());
        })
        .await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} datagrams");

        let count = allocations(async || task::sleep(Duration::from_micros(1)).await).await;
        assert!(count <= ALLOWED, "{count} allocations in {ROUNDS} sleeps");
    });
}
