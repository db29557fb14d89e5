//! Spawns and cancels tasks while the allocator refuses allocations of more than 16 KiB, as it may
//! refuse them at the limit RLIMIT_AS.
//!
//! The allocator refuses them in the whole process, so this binary has one test.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::pending;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::run;
use netpoll::{rt, task};

/// The size in bytes above which allocations are refused.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Limited;

// SAFETY: every call is forwarded to the system's allocator unchanged, or fails without an effect.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LIMIT.load(Ordering::Relaxed) {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` or `realloc` of this allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > LIMIT.load(Ordering::Relaxed) {
            return ptr::null_mut();
        }
        // SAFETY: the pointer came from this allocator, and the caller keeps the contract of
        // `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

const TASKS: usize = 20_000;

/// The maximum number of tasks that are queued at a time. It is small, so that no queue needs a
/// large allocation. (Memory for many blocks of task records is allocated at once. If that is
/// refused, memory for one block is allocated, which is about 1 KiB.)
const QUEUED: usize = 100;

#[test]
fn many_tasks_need_no_large_allocation() {
    rt::Builder::new().workers(1).spare_workers(0).start().unwrap();
    run(async {
        let mut tasks = Vec::with_capacity(TASKS);
        // Creates the only processor.
        task::spawn(async {}).await;
        LIMIT.store(16 << 10, Ordering::Relaxed);
        for _ in 0..2 {
            while tasks.len() < TASKS {
                tasks.extend((0..QUEUED).map(|_| task::spawn(pending::<()>())));
                task::spawn(async {}).await;
            }
            while !tasks.is_empty() {
                for waiting in tasks.drain(tasks.len() - QUEUED..) {
                    assert_eq!(waiting.cancel().await, None);
                }
            }
        }
        LIMIT.store(usize::MAX, Ordering::Relaxed);
    });
}
