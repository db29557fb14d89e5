//! `rt::dump_on_panic`: a panic of the main thread prints a snapshot, and a panic of a task names
//! the task. This file has no test harness, because a harness usually runs tests on threads other
//! than the main thread.

use std::panic::catch_unwind;
use std::process::{Command, ExitCode};

use netpoll::{rt, task};

/// The environment variable that tells a child process where to panic: `main`, `task`,
/// `panicking` or `forked`.
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

/// Calls `dump_on_panic` while its thread panics.
struct CallsOnDrop;

impl Drop for CallsOnDrop {
    fn drop(&mut self) {
        assert!(catch_unwind(rt::dump_on_panic).is_err(), "the hook cannot be set now");
    }
}

/// Regression: the first call came from a panicking thread and panicked, and then every later call
/// panicked too.
fn first_call_from_a_panicking_thread_does_not_affect_later_calls() {
    let panics = std::thread::spawn(|| {
        let _calls = CallsOnDrop;
        panic!("a panic for the test");
    });
    assert!(panics.join().is_err());
    rt::dump_on_panic();
    rt::dump_on_panic();
}

/// Forks, and panics in the main thread of the child.
fn forked_child_panics() {
    rt::dump_on_panic();
    // The first use of the runtime installs the handlers of fork(2).
    task::block_on(async { task::spawn(async {}).await });
    // SAFETY: the child only panics and ends, and glibc's allocator survives a fork.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let panicked = catch_unwind(|| panic!("a panic for the test")).is_err();
        // SAFETY: the call ends the process immediately.
        unsafe { libc::_exit(i32::from(!panicked)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for the call.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
}

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        match role.as_str() {
            "panicking" => first_call_from_a_panicking_thread_does_not_affect_later_calls(),
            "forked" => forked_child_panics(),
            role => child(role),
        }
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
    let output = Command::new(std::env::current_exe().unwrap()).env(ROLE, "panicking").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Regression: a child of fork(2) printed the tasks of its parent, replaced the black box file
    // of its parent, and could wait forever for a lock that a thread of the parent had held.
    let output = Command::new(std::env::current_exe().unwrap()).env(ROLE, "forked").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("a panic for the test"), "{text}");
    assert!(!text.contains("(the main thread panicked)"), "{text}");
    println!("main_thread_panic_prints_a_snapshot_and_task_panic_names_the_task: ok");
    ExitCode::SUCCESS
}
