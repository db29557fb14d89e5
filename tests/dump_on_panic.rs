//! `rt::dump_on_panic`: a panic of the main thread prints a snapshot, and a panic of a task names
//! the task. This file has no test harness, because a harness usually runs tests on threads other
//! than the main thread.

use std::process::{Command, ExitCode};

use netpoll::{rt, task};

/// The environment variable that tells a child process where to panic: `main` or `task`.
const ROLE: &str = "NETPOLL_TEST_DUMP_ON_PANIC_ROLE";

/// Panics in the main thread outside a task if `role` is `main`, and otherwise in a task that the
/// main thread awaits.
fn child(role: &str) {
    rt::dump_on_panic();
    task::block_on(async {
        let waiting = task::Builder::new().name("never answered".into()).spawn(std::future::pending::<()>());
        assert!(role != "main", "a panic for the test");
        drop(waiting);
        let panics = async { panic!("a panic for the test") };
        task::Builder::new().name("panics\n\x1b[2J".into()).spawn(panics).unwrap().await
    });
}

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        child(&role);
        return ExitCode::SUCCESS;
    }
    // The panic of a task resumes in the main thread, which awaits the task, without another
    // message or a dump.
    for (role, has_dump) in [("main", true), ("task", false)] {
        let output = Command::new(std::env::current_exe().unwrap()).env(ROLE, role).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("a panic for the test"), "{role}: {text}");
        assert_eq!(text.contains("(the main thread panicked)"), has_dump, "{role}: {text}");
        assert_eq!(text.contains("never answered"), has_dump, "{role}: {text}");
        let line = text.lines().find(|line| line.starts_with("netpoll: the panic was in task "));
        assert_eq!(line.is_some(), role == "task", "{role}: {text}");
        if let Some(line) = line {
            assert!(line.contains(" `panics??[2J`, spawned at ") && line.contains("dump_on_panic.rs:"), "{line}");
        }
    }
    println!("main_thread_panic_prints_a_snapshot_and_task_panic_names_the_task: ok");
    ExitCode::SUCCESS
}
