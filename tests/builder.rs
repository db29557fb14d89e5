//! The settings of `rt::Builder` and of the environment: accepted and rejected values, error texts,
//! and metrics.

mod common;

use std::io::ErrorKind;
use std::sync::mpsc;
use std::thread;

use common::{child, child_with, eventually, pair, park_on, ping};
use netpoll::rt::{self, Builder};
use netpoll::task;

/// Asserts that `builder` refuses to start a runtime, and returns the text of the error.
fn refused(builder: Builder) -> String {
    let error = builder.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    error.to_string()
}

#[test]
fn invalid_numbers_are_rejected() {
    child("invalid_numbers_are_rejected", || {
        assert_eq!(refused(Builder::new().workers(0)), "a runtime needs at least one worker");
        assert!(refused(Builder::new().blocking_threads(0)).contains("at least one thread for blocking calls"));
        assert_eq!(refused(Builder::new().workers(500)), "500 workers and 64 spare workers exceed the maximum of 512");
        assert!(refused(Builder::new().workers(1).spare_workers(512)).contains("the maximum of 512"));
        assert!(refused(Builder::new().workers(usize::MAX)).contains("the maximum of 512"));
        assert!(refused(Builder::new().workers(usize::MAX).spare_workers(usize::MAX)).contains("the maximum of 512"));
        assert_eq!(refused(Builder::new().thread_name("a\0b")), "a thread name must not contain a NUL byte");
        // None of these attempts started a runtime.
        Builder::new().workers(3).spare_workers(0).blocking_threads(1).thread_name("").start().unwrap();
        assert_eq!(rt::metrics().workers, 3);
        assert_eq!(park_on(task::spawn(async { 1 })), 1);
        assert_eq!(park_on(task::spawn_blocking(|| 2)), 2);
    });
}

#[test]
fn second_start_is_rejected() {
    child("second_start_is_rejected", || {
        Builder::new().workers(2).start().unwrap();
        for _ in 0..3 {
            let error = Builder::new().workers(4).start().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert!(error.to_string().contains("before its first use, or after rt::shutdown"), "{error}");
        }
        assert_eq!(rt::metrics().workers, 2);
        rt::shutdown(common::BOUND).unwrap();
        Builder::new().workers(4).start().unwrap();
        assert_eq!(rt::metrics().workers, 4);
    });
}

/// Invariant 12. Regression: a start dropped the `on_blocked_task` function of the previous runtime
/// under the locks of the life cycle and of the configuration, so the destructor of a value in the
/// function waited forever when it used the runtime.
#[test]
fn function_of_the_previous_runtime_is_dropped_without_a_lock() {
    struct Uses(mpsc::Sender<usize>);
    impl Drop for Uses {
        fn drop(&mut self) {
            let result = task::block_on(async { task::spawn_blocking(|| rt::metrics().workers).await });
            self.0.send(result).unwrap();
            panic!("the destructor panics");
        }
    }
    child("function_of_the_previous_runtime_is_dropped_without_a_lock", || {
        for starts_by_use in [false, true] {
            let (send, dropped) = mpsc::channel();
            let uses = std::sync::Mutex::new(Uses(send));
            Builder::new().workers(2).on_blocked_task(move |_| drop(uses.lock())).start().unwrap();
            rt::shutdown(common::BOUND).unwrap();
            if starts_by_use {
                task::block_on(async {})
            } else {
                Builder::new().workers(3).start().unwrap()
            }
            assert_eq!(dropped.try_recv(), Ok(rt::metrics().workers));
            // The count includes the panic of the first round.
            assert_eq!(rt::metrics().contained_panics, 1 + u64::from(starts_by_use));
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

#[test]
fn start_after_first_use_is_rejected() {
    child("start_after_first_use_is_rejected", || {
        // Reading the metrics and binding a listener do not start the runtime; `block_on` does.
        let _ = rt::metrics();
        let _listener = park_on(common::listener());
        task::block_on(async {});
        assert_eq!(Builder::new().start().unwrap_err().kind(), ErrorKind::AlreadyExists);
    });
}

#[test]
fn one_of_many_concurrent_starts_wins() {
    child("one_of_many_concurrent_starts_wins", || {
        for _ in 0..20 {
            let starts: Vec<_> = (1..=8).map(|n| thread::spawn(move || Builder::new().workers(n).start())).collect();
            let won: Vec<_> = starts
                .into_iter()
                .zip(1..)
                .filter_map(|(start, n)| match start.join().unwrap() {
                    Ok(()) => Some(n),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
                        None
                    }
                })
                .collect();
            assert_eq!(won, [rt::metrics().workers]);
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

#[test]
fn environment_sets_number_of_threads() {
    child_with("environment_sets_number_of_threads", &[("NETPOLL_THREADS", "3")], || {
        task::block_on(async {});
        assert_eq!(rt::metrics().workers, 3);
        rt::shutdown(common::BOUND).unwrap();
        Builder::new().start().unwrap();
        assert_eq!(rt::metrics().workers, 3);
        rt::shutdown(common::BOUND).unwrap();
        // The builder takes precedence.
        Builder::new().workers(2).start().unwrap();
        assert_eq!(rt::metrics().workers, 2);
    });
}

#[test]
fn async_std_variables_are_a_fallback() {
    const NAME: &str = "async_std_variables_are_a_fallback";
    if !common::is_child(NAME) && ["NETPOLL_THREADS", "NETPOLL_THREAD_NAME"].map(std::env::var_os) != [None, None] {
        return println!("skipped: the variables of netpoll are set");
    }
    let expect = |threads: &str, name: &str| {
        let threads = threads.parse().unwrap();
        task::block_on(async { task::spawn(async {}).await });
        assert_eq!(rt::metrics().workers, threads);
        let named = common::park_on(task::spawn(async { thread::current().name().map(str::to_owned) }));
        assert_eq!(named.as_deref(), Some(name));
        rt::shutdown(common::BOUND).unwrap();
        // The builder takes precedence.
        Builder::new().workers(2).thread_name("mine").start().unwrap();
        let named = common::park_on(task::spawn(async { thread::current().name().map(str::to_owned) }));
        assert_eq!((rt::metrics().workers, named.as_deref()), (2, Some("mine")));
    };
    let sees = |name| std::env::var(name).unwrap();
    // In each of the three child processes, the first of these calls makes the checks. The closures
    // of the other calls do nothing.
    let theirs = [("ASYNC_STD_THREAD_COUNT", "3"), ("ASYNC_STD_THREAD_NAME", "theirs")];
    child_with(NAME, &[theirs[0], theirs[1], ("EXPECTED", "3 theirs")], || {
        let expected = sees("EXPECTED");
        let (threads, name) = expected.split_once(' ').unwrap();
        expect(threads, name);
    });
    let ours = [("NETPOLL_THREADS", "4"), ("NETPOLL_THREAD_NAME", "ours")];
    child_with(NAME, &[theirs[0], theirs[1], ours[0], ours[1], ("EXPECTED", "4 ours")], || {});
    // A value that is not a number has no effect, as in async-std.
    let all = thread::available_parallelism().unwrap().get();
    child_with(NAME, &[("ASYNC_STD_THREAD_COUNT", "many"), ("EXPECTED", &format!("{all} netpoll"))], || {});
}

#[test]
fn malformed_environment_is_reported() {
    const NAME: &str = "malformed_environment_is_reported";
    for value in ["0", "-1", "many", "", "512", "99999999999999999999", "1.5"] {
        let text = child_with(NAME, &[("NETPOLL_THREADS", value)], || {
            // A builder returns an error for the variable. The first use of a runtime without a
            // builder reports the error on standard error and continues.
            let error = Builder::new().start().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("NETPOLL_THREADS"), "{error}");
            assert_eq!(task::block_on(async { task::spawn(async { 1 }).await }), 1);
            assert!(rt::metrics().workers >= 1);
        });
        let Some(text) = text else { return };
        let line = format!("netpoll: NETPOLL_THREADS={value} is not a number of threads from 1 to 448; using ");
        assert!(text.contains(&line), "{value:?}: {text}");
    }
}

#[test]
fn setting_of_a_builder_replaces_the_malformed_environment() {
    child_with("setting_of_a_builder_replaces_the_malformed_environment", &[("NETPOLL_THREADS", "0")], || {
        Builder::new().workers(2).start().unwrap();
        assert_eq!(rt::metrics().workers, 2);
    });
}

/// Returns the names of the process's other threads, as the kernel reports them.
fn thread_names() -> Vec<String> {
    common::of_other_threads("comm").map(|name| name.trim_end().to_owned()).collect()
}

#[test]
fn threads_have_configured_name() {
    child("threads_have_configured_name", || {
        Builder::new().workers(1).thread_name("app").start().unwrap();
        park_on(task::spawn(async {}));
        park_on(task::spawn_blocking(|| {}));
        let is_there = |name: &str| thread_names().iter().any(|thread| thread == name);
        eventually("all threads have names", || ["app", "app-sysmon", "app-blocking"].into_iter().all(is_there));
    });
}

#[test]
fn metrics_count_events() {
    child("metrics_count_events", || {
        assert_eq!(rt::metrics().worker_threads, 0);
        // The policy is `Off`, because a spare worker would be counted too.
        Builder::new().workers(2).blocked_tasks(rt::BlockedPolicy::Off).start().unwrap();
        let before = rt::metrics();
        assert_eq!((before.workers, before.tasks_spawned, before.descriptors, before.waiters), (2, 0, 0, 0));
        let (client, server) = park_on(pair());
        assert_eq!(rt::metrics().descriptors, 2);
        let sleeper = task::spawn(task::sleep(common::BOUND));
        let reader = task::spawn({
            let server = server.clone();
            async move { common::echo(&server).await }
        });
        eventually("both tasks wait", || {
            let metrics = rt::metrics();
            metrics.waiters == 1 && metrics.timer_entries >= 1 && metrics.tasks_alive == 2
        });
        park_on(ping(&client, b"hello")).unwrap();
        eventually("the turn that answers has ended", || rt::metrics().polls >= 3);
        let metrics = rt::metrics();
        assert_eq!(metrics.tasks_spawned, 2);
        assert!(metrics.events >= 1 && metrics.poller_waits >= 1 && metrics.timers_armed >= 1);
        assert!((1..=2).contains(&metrics.worker_threads), "{metrics:?}");
        assert_eq!((metrics.nested_block_on, metrics.contained_panics, metrics.blocking_threads), (0, 0, 0));
        park_on(sleeper.cancel());
        drop((client, server));
        park_on(reader).unwrap();
        eventually("nothing is left", || {
            let metrics = rt::metrics();
            (metrics.tasks_alive, metrics.waiters, metrics.descriptors) == (0, 0, 0)
        });
        let fired = rt::metrics().timers_fired;
        eventually("another timer fires", || {
            // On a busy machine the sleep may end at its first poll, without a timer.
            park_on(task::sleep(std::time::Duration::from_millis(1)));
            rt::metrics().timers_fired > fired
        });
    });
}
