//! The runtime's threads: that they leave nothing behind when they end. Each test is a process of its own.

mod common;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{child_with, eventually, park_on, thread_count};
use netpoll::{rt, task};

const LONG: Duration = Duration::from_secs(120);

/// Large enough that the C library keeps few of them for new threads (it keeps 40 MiB).
const STACK: usize = 32 << 20;

/// Runs `body` in a process whose threads have stacks of [`STACK`] bytes, and no heaps of their own, which are as large.
fn with_large_stacks(name: &str, body: impl FnOnce()) {
    child_with(name, &[("RUST_MIN_STACK", &STACK.to_string()), ("MALLOC_ARENA_MAX", "1")], body);
}

/// Stacks that are mapped.
fn stacks() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let length = |line: &str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(to, 16).ok()? - usize::from_str_radix(from, 16).ok()?)
    };
    // Two that lie side by side may be one mapping.
    maps.lines().filter_map(length).filter(|&length| length >= STACK).map(|length| length / STACK).sum()
}

/// They stayed as threads that nobody joined, with their stacks, without bound.
#[test]
fn spare_workers_and_blocking_threads_that_ended_are_gone() {
    with_large_stacks("spare_workers_and_blocking_threads_that_ended_are_gone", || {
        rt::Builder::new().workers(1).start().unwrap();
        let (threads, before) = (thread_count(), stacks());
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let blocks = || {
            let held = held.clone();
            move || assert!(held.lock().unwrap().recv().is_err())
        };
        let blocking: Vec<_> = (0..20).map(|_| task::spawn_blocking(blocks())).collect();
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let block = blocks();
                task::spawn(async move { block() })
            })
            .collect();
        eventually("all block", || thread_count() >= threads + 40);
        assert!(stacks() >= before + 40);
        drop(release);
        for task in tasks.into_iter().chain(blocking) {
            park_on(task);
        }
        // Its worker rests for good; of the others the C library keeps one stack or two.
        eventually("they are gone", || thread_count() <= threads + 1 && stacks() <= before + 4);
        rt::shutdown(LONG).unwrap();
    });
}

#[test]
fn shutdowns_leave_no_threads_behind() {
    with_large_stacks("shutdowns_leave_no_threads_behind", || {
        let (threads, before) = (thread_count(), stacks());
        for round in 0..30 {
            rt::Builder::new().workers(4).start().unwrap();
            park_on(task::spawn_blocking(|| ()));
            let tasks: Vec<_> = (0..8).map(|_| task::spawn(task::sleep(Duration::from_millis(1)))).collect();
            if round % 2 == 0 {
                tasks.into_iter().for_each(park_on);
                rt::shutdown(LONG).unwrap();
                eventually("its threads are gone", || thread_count() == threads);
            } else {
                // Threads that end after it.
                let _ = rt::shutdown(Duration::ZERO);
            }
        }
        eventually("all are gone", || thread_count() <= threads && stacks() <= before + 4);
    });
}
