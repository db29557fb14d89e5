//! Directed programs. Most programs have found a defect that is fixed now, or are similar to a
//! program that found one.
//!
//! Random programs find most of these defects too, but later. Each test here finds its defect
//! within seconds. The names of the defects are those of docs/RELIABILITY.md.

use crate::program::Program;
use crate::shrink::{Outcome, run};

/// Runs a program `times` times, each time in a separate process.
#[track_caller]
fn holds(times: usize, text: &str) {
    if std::env::var(crate::shrink::PROGRAM).is_ok() {
        return;
    }
    let program: Program = text.parse().unwrap_or_else(|error| panic!("{error}"));
    for _ in 0..times {
        if let Outcome::Failed(output) = run(&program, "a directed program of tests/stress/scenarios.rs") {
            panic!("{output}");
        }
    }
}

/// Runs a program once with each of the given settings in place of `SETTINGS`. The runs are
/// parallel, because programs mostly wait.
#[track_caller]
fn holds_with(settings: &[&str], text: &str) {
    std::thread::scope(|scope| {
        for settings in settings {
            scope.spawn(|| holds(1, &text.replace("SETTINGS", settings)));
        }
    });
}

/// A1: with the default settings, no blocked task delays a root future.
#[test]
fn roots_run_while_tasks_are_blocked() {
    holds_with(
        &["workers=1", "workers=2", "workers=4"],
        "config SETTINGS
         actor root
             Recv tasks=2 sender=own ms=40
             Guard rounds=100 wait=yield
             Guard rounds=30 wait=sleep
             Guard rounds=30 wait=read
         actor local
             Recv tasks=1 sender=own ms=40
         actor inner
             Recv tasks=1 sender=own ms=40
         actor main
             Recv tasks=3 sender=own ms=60",
    );
}

/// A2: the first operation of a turn is not deferred for fairness, however long the turn is.
#[test]
fn operations_complete_after_computations() {
    holds_with(
        &["workers=1", "workers=2"],
        "config SETTINGS
         actor foreign
             Compute ms=18 op=read
             Compute ms=18 op=write
             Compute ms=18 op=accept
             Compute ms=18 op=sendto
             Compute ms=18 op=recvfrom
             Compute ms=18 op=unixread
             Compute ms=18 op=joined
             Compute ms=18 op=sleep
             Compute ms=9 op=read",
    );
}

/// A3: loops over due timers, and over look-ups of a literal address, use up the task's budget.
#[test]
fn due_timers_let_other_tasks_run() {
    for how in ["zero", "past", "interval", "nanosecond", "timeout", "literal"] {
        holds_with(
            &[how],
            "config workers=1
             actor foreign
                 Due rounds=100 how=SETTINGS end=finish
                 Due rounds=1 how=SETTINGS end=cancel",
        );
    }
}

/// A4: workers, and not only sysmon, poll the network, however many tasks are runnable.
#[test]
fn yielding_tasks_do_not_starve_network() {
    holds_with(
        &["100", "260", "300"],
        "config workers=1 spares=0
         actor foreign
             Yield tasks=SETTINGS echoes=4",
    );
}

/// A5: sysmon watches a thread that a nested `block_on` gives back to its task.
#[test]
fn task_is_monitored_after_nested_block_on() {
    holds_with(
        &["workers=1", "workers=2", "workers=4"],
        "config SETTINGS
         actor foreign
             Nested depth=1 ms=400 woken=foreign
             Nested depth=2 ms=400 woken=foreign
             Nested depth=1 ms=200 woken=timer
             Nested depth=1 ms=200 woken=socket
             Nested depth=1 ms=200 woken=task",
    );
}

/// A6: a thread that holds the role of polling runs no tasks.
#[test]
fn poller_role_is_free_while_task_blocks() {
    holds_with(
        &["root=default", "root=no"],
        "config workers=2 preempt=heavy SETTINGS
         actor root
             Echo stream=unix peer=task bytes=1 rounds=200
             Echo stream=unix peer=foreign bytes=1 rounds=200
         actor foreign
             Echo stream=tcp peer=root bytes=1 rounds=200
         actor task
             Recv tasks=2 sender=foreign ms=60000
         actor task
             Recv tasks=1 sender=foreign ms=60000",
    );
}

/// A7: all calls of `block_on` in tasks complete, even if there are more of them than threads.
#[test]
fn many_nested_block_on_calls_complete() {
    holds_with(
        &["workers=1", "workers=4"],
        "config SETTINGS
         actor foreign
             Crowd tasks=200 of=sleep ms=30
             Crowd tasks=200 of=yield ms=0
             Crowd tasks=200 of=read ms=30
             Crowd tasks=200 of=join ms=1",
    );
}

/// A8: names are resolved while the blocking pool is full.
#[test]
fn lookups_complete_while_blocking_pool_is_full() {
    holds(
        1,
        "config blocking=16
         actor foreign
             Names calls=1 ms=100",
    );
}

/// B1: a timer that a closed socket left armed has no effect on the slot's next owner.
#[test]
fn deadline_fires_in_reused_slot() {
    for stream in ["unix", "tcp", "pipe"] {
        holds_with(
            &[stream],
            "config workers=2
             actor root
                 Closer stream=SETTINGS ms=10
                 Closer stream=SETTINGS ms=0
             actor foreign
                 Closer stream=SETTINGS ms=10",
        );
    }
}

/// B1, B2: deadlines fire in a slot whose last socket was closed while a timeout was being armed.
/// Threads are stopped at arbitrary instructions.
#[test]
fn deadlines_fire_in_repeatedly_reused_slots() {
    holds_with(
        &["unix", "tcp"],
        "config workers=2 preempt=heavy
         actor root
             Reuse stream=SETTINGS rounds=1000 ms=19
         actor foreign
             Reuse stream=SETTINGS rounds=1000 ms=10",
    );
}

/// B3: a task of the current epoch does not go into a queue of an earlier epoch.
#[test]
fn tasks_of_sleeping_spawner_run_after_restart() {
    for host in ["root", "main", "local", "foreign", "nested", "pool"] {
        holds_with(
            &[host],
            "config workers=2
             event Shutdown after=60 timeout=0 by=thread restart=use residue=none
             actor SETTINGS
                 Sleep ms=5 how=plain
                 Stall ms=200
                 Stall ms=0
             actor SETTINGS
                 Bridge ms=300
                 Bridge ms=0",
        );
    }
}

/// B4: timers that a shutdown leaves in a heap have a poller after the restart.
#[test]
fn timers_of_another_executor_fire_after_a_restart() {
    holds(
        2,
        "config workers=1
         event Shutdown after=150 timeout=1000 by=thread restart=use residue=none
         actor foreign
             Use slot=4 op=read bound=drop ms=0
             Shut slot=4 how=move ms=900
             Pause ms=300
             Sleep ms=1500 how=plain",
    );
}

/// B5: a slow report of a blocked task delays no sleep.
#[test]
fn sleeps_are_on_time_during_slow_report() {
    holds(
        1,
        "config workers=2 report=60000
         actor foreign
             Recv tasks=1 sender=foreign ms=100
             Sleep ms=6000 how=plain",
    );
}

/// C1: destructors that wait, spawn, cancel, panic or call shutdown do not hold up a shutdown.
#[test]
fn shutdown_returns_despite_destructors() {
    for act in ["sleep", "spawnjoin", "socket", "spawn", "cancel", "panic"] {
        holds_with(
            &[act],
            "config workers=2
             event Shutdown after=100 timeout=500 by=destructor restart=use residue=none
             actor foreign
                 Destructor act=SETTINGS place=left
                 Destructor act=SETTINGS place=left
                 Sleep ms=300 how=plain",
        );
    }
    for residue in ["sleep", "spawn", "shutdown"] {
        holds_with(
            &[residue],
            "config workers=2
             event Shutdown after=50 timeout=500 by=thread restart=use residue=SETTINGS
             actor foreign
                 Sleep ms=300 how=plain",
        );
    }
}

/// C1: the tasks of a chain, each of which awaits another, are dropped one by one.
#[test]
fn shutdown_drops_long_task_chain() {
    holds(
        1,
        "config workers=2
         event Shutdown after=1500 timeout=5000 by=thread restart=use residue=none
         actor foreign
             Chain tasks=100000 end=left
             Sleep ms=2000 how=plain",
    );
}

/// C2: a shutdown waits for a task that is in its turn, on any thread.
#[test]
fn shutdown_waits_for_running_turns() {
    holds_with(
        &["root=yes", "root=no", "root=default"],
        "config workers=1 SETTINGS
         event Shutdown after=150 timeout=5000 by=thread restart=use residue=none
         actor root
             Sleep ms=1000 how=plain
         actor foreign
             Sleep ms=50 how=plain
             Recv tasks=1 sender=foreign ms=600",
    );
}

/// C3: the runtime tries again to create a thread that was refused.
#[test]
fn runtime_continues_after_refused_thread() {
    for threads in [1, 3] {
        holds_with(
            &[&threads.to_string()],
            "config workers=2 preempt=off
             event Refuse after=0 threads=SETTINGS
             actor foreign
                 Sleep ms=60 how=plain
                 Join tasks=3 yields=1
             actor foreign
                 Sleep ms=80 how=plain
                 Echo stream=unix peer=foreign bytes=1 rounds=3",
        );
        holds_with(
            &[&threads.to_string()],
            "config workers=2 preempt=off refuse=SETTINGS
             actor foreign
                 Recv tasks=2 sender=task ms=40
                 Recv tasks=2 sender=pool ms=40
                 Timeout ms=20 of=read",
        );
    }
    // If the thread for a blocking call is refused, the thread that waits for the call does not
    // make the call itself.
    holds(
        1,
        "config workers=2
         event Refuse after=30 threads=1
         actor foreign
             Sleep ms=20 how=plain
         actor foreign
             Sleep ms=60 how=plain
             Datagrams kind=udp count=1 by=pool",
    );
}

/// C4: spare workers that have ended are joined or detached.
#[test]
fn ended_threads_are_joined() {
    holds(
        1,
        "config workers=1
         actor foreign
             Crowd tasks=60 of=sleep ms=300
             Sleep ms=3500 how=plain
             Crowd tasks=60 of=sleep ms=300",
    );
}

/// C5: dropping a task-local value terminates, even if its destructor uses its own key.
#[test]
fn task_local_destructors_terminate() {
    for kind in ["plain", "usesother", "usesown", "spawns", "panics"] {
        holds_with(
            &[kind],
            "config workers=2
             actor task
                 Locals tasks=3 kind=SETTINGS
             actor root
                 Locals tasks=3 kind=SETTINGS",
        );
    }
}

/// C6: polls with a new waker each keep a bounded number of wakers.
#[test]
fn polls_with_new_wakers_keep_few_wakers() {
    for op in ["read", "readable", "write", "lockedread", "lockedwrite", "recvfrom", "join", "sleep"] {
        holds_with(
            &[op],
            "config workers=2
             actor foreign
                 Wakers polls=60000 op=SETTINGS
             actor task
                 Wakers polls=60000 op=SETTINGS",
        );
    }
}

/// D15: a poll sees the end of a stream that the kernel has received, before any thread has taken
/// the event.
#[test]
fn one_poll_sees_that_peer_has_gone() {
    let actions = ["tcp", "unix"].map(|stream| format!("             Liveness stream={stream}\n").repeat(60)).concat();
    let actors = ["root", "task", "foreign", "nested"].map(|host| format!("         actor {host}\n{actions}")).concat();
    holds_with(
        &["workers=1", "workers=2", "workers=4 preempt=heavy", "workers=2 root=yes"],
        &format!("config SETTINGS\n{actors}"),
    );
}

/// Snapshots pair tasks with their own sockets during shutdowns and while threads are stopped at
/// arbitrary instructions.
#[test]
fn snapshots_pair_tasks_with_their_sockets() {
    for settings in ["workers=1", "workers=2 preempt=heavy"] {
        holds_with(
            &[settings],
            "config SETTINGS
             event Inspect after=0 looks=60
             event Inspect after=5 looks=60
             event Shutdown after=100 timeout=500 by=thread restart=use residue=none
             actor task
                 Reuse stream=tcp rounds=60 ms=2
             actor foreign
                 Close stream=unix waiters=4 by=task ms=5
                 Join tasks=200 yields=2",
        );
    }
}
