//! A burst of sleeps leaves little memory behind, apart from the records of its tasks.
//!
//! The allocator counts the bytes of the whole process, so this binary has one test.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::becomes;
use netpoll::task;
use netpoll::time::Sleep;

static BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` of this allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SLEEPS: usize = 200_000;

/// The entries of these sleeps take 16 bytes each, their slots 32, and their wakers 16.
#[test]
fn burst_of_sleeps_leaves_no_memory_behind() {
    task::block_on(async {
        task::spawn(task::sleep(Duration::from_millis(1))).await;
        let before = BYTES.load(Ordering::Relaxed);
        let end = Instant::now() + Duration::from_secs(2);
        let mut sleeps: Vec<_> = (0..SLEEPS).map(|_| Sleep::until(end)).collect();
        let mut cx = Context::from_waker(Waker::noop());
        for sleep in &mut sleeps {
            // A sleep that has ended in the meantime does not matter.
            let _: Poll<()> = Pin::new(sleep).poll(&mut cx);
        }
        task::sleep(Duration::from_secs(2)).await;
        drop(sleeps);
        // The thread that has called the wakers frees their list.
        becomes("the memory is freed", || BYTES.load(Ordering::Relaxed) < before + 4 * SLEEPS).await;
    });
}
