//! Threads of the runtime release their stacks when they end, and a stop of the process (SIGSTOP)
//! is not mistaken for blocked tasks. Each test runs in a child process.

mod common;

use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{child, child_with, eventually, park_on, thread_count};
use netpoll::{rt, task};

const LONG: Duration = Duration::from_secs(120);

/// The size of a stack in bytes. It is so large that the C library keeps few stacks of ended
/// threads for new ones (it keeps up to 40 MiB).
const STACK: usize = 32 << 20;

/// Runs `body` in a child process whose threads have stacks of [`STACK`] bytes and share one malloc
/// arena. (A thread's own arena may be as large as a stack, and would be counted as one.)
fn with_large_stacks(name: &str, body: impl FnOnce()) {
    child_with(name, &[("RUST_MIN_STACK", &STACK.to_string()), ("MALLOC_ARENA_MAX", "1")], body);
}

/// Returns the number of mapped stacks, or 0 under a sanitizer, which has other large mappings that
/// change.
fn stacks() -> usize {
    if common::IS_SANITIZED {
        return 0;
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let length = |line: &str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(to, 16).ok()? - usize::from_str_radix(from, 16).ok()?)
    };
    // Two adjacent stacks may be one mapping.
    maps.lines().filter_map(length).filter(|&length| length >= STACK).map(|length| length / STACK).sum()
}

/// Regression: ended threads were never joined and kept their stacks.
#[test]
fn ended_spare_and_blocking_threads_are_joined() {
    with_large_stacks("ended_spare_and_blocking_threads_are_joined", || {
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
        eventually("all tasks and calls block", || thread_count() >= threads + 40);
        assert!(stacks() >= before + 40 || common::IS_SANITIZED);
        drop(release);
        for task in tasks.into_iter().chain(blocking) {
            park_on(task);
        }
        // The configured worker remains. The C library keeps few stacks of the ended threads.
        eventually("the threads have ended", || thread_count() <= threads + 1 && stacks() <= before + 4);
        rt::shutdown(LONG).unwrap();
    });
}

#[test]
fn shutdowns_leave_no_threads() {
    with_large_stacks("shutdowns_leave_no_threads", || {
        let (threads, before) = (thread_count(), stacks());
        for round in 0..30 {
            rt::Builder::new().workers(4).start().unwrap();
            park_on(task::spawn_blocking(|| ()));
            let tasks: Vec<_> = (0..8).map(|_| task::spawn(task::sleep(Duration::from_millis(1)))).collect();
            if round % 2 == 0 {
                tasks.into_iter().for_each(park_on);
                rt::shutdown(LONG).unwrap();
                eventually("the threads of the runtime have ended", || thread_count() == threads);
            } else {
                // This shutdown does not wait for the runtime's threads, which end later.
                let _ = rt::shutdown(Duration::ZERO);
            }
        }
        eventually("all threads have ended", || thread_count() <= threads && stacks() <= before + 4);
    });
}

/// Regression: after a stop of the process, sysmon found each task still in its turn, and counted
/// the task as blocked for the whole time.
#[test]
fn stopped_process_is_not_counted_as_blocked() {
    child("stopped_process_is_not_counted_as_blocked", || {
        const STOP: Duration = Duration::from_secs(1);
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let report = {
            let longest = longest.clone();
            move |task: &rt::BlockedTask| {
                let mut longest = longest.lock().unwrap();
                *longest = task.blocked_for.max(*longest);
            }
        };
        rt::Builder::new().workers(2).on_blocked_task(report).start().unwrap();
        // At most checks, sysmon finds this task in a turn.
        let (ends, is_over) = mpsc::channel::<()>();
        let busy = task::spawn(async move {
            while is_over.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(12) {}
                task::yield_now().await;
            }
        });
        // On a busy machine, sysmon may have been late before the stop. It then cannot tell the
        // stop from its own delay, and counts the stop. So the test requires only that six stops in
        // a row are not counted.
        let (mut rounds, mut in_a_row) = (0, 0);
        while in_a_row < 6 {
            assert!(rounds < 60, "many stops are counted: the last for {:?}", longest.lock().unwrap());
            rounds += 1;
            *longest.lock().unwrap() = Duration::ZERO;
            let polls = rt::metrics().polls;
            eventually("the task runs", || rt::metrics().polls > polls + 5);
            let start = Instant::now();
            let script = format!("kill -STOP $0; sleep {}; kill -CONT $0", STOP.as_secs());
            let mut helper = Command::new("sh").args(["-c", &script, &std::process::id().to_string()]).spawn().unwrap();
            assert!(helper.wait().unwrap().success() && start.elapsed() >= STOP);
            // In this time, sysmon reports the stop if it has counted the stop. On a busy machine a
            // turn may last longer than the 12 ms of the loop, so a short report is permitted.
            let polls = rt::metrics().polls;
            eventually("the task runs", || rt::metrics().polls > polls + 5);
            in_a_row = if *longest.lock().unwrap() < STOP / 2 { in_a_row + 1 } else { 0 };
        }
        // Tasks that block are still found.
        let (release, held) = mpsc::channel::<()>();
        let before = rt::metrics().blocked_tasks;
        let blocks = task::spawn(async move { assert!(held.recv().is_err()) });
        eventually("the task is found", || rt::metrics().blocked_tasks > before);
        drop((release, ends));
        park_on(blocks);
        park_on(busy);
        rt::shutdown(LONG).unwrap();
    });
}
