//! Runs models, checks that a model finds the bug that is injected for it, and polls futures in
//! models.

use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, INJECTED_VARIABLE, Mutex};

/// The maximum number of preemptions per execution that loom tries. Each additional preemption
/// multiplies the time. Most concurrency bugs need only one or two.
const PREEMPTIONS: usize = 3;

/// The checkers' message for a model in which threads wait forever.
pub const DEADLOCK: &str = "deadlock";
/// loom's message for a model with two conflicting accesses of which neither happens before the
/// other. The cell of `engine` for shuttle prints it too.
pub const RACE: &str = "Causality violation";

/// The time in which a child process must end, in seconds.
const CHILD_SECONDS_MAX: u64 = 120;

/// The maximum number of shuttle's schedules per child process.
#[cfg(feature = "shuttle")]
const CHILD_SCHEDULES_MAX: usize = 20_000;

/// Runs `model` in every order of events within the bound on preemptions, or with shuttle in a
/// number of random orders.
pub fn check(model: fn()) {
    check_within(PREEMPTIONS, model);
}

/// Runs `model` like [`check`], but with a different bound on preemptions, for a model with many
/// threads. shuttle ignores the bound.
pub fn check_within(preemptions: usize, model: fn()) {
    #[cfg(feature = "shuttle")]
    {
        let _ = preemptions;
        crate::schedules::play(model);
    }
    #[cfg(not(feature = "shuttle"))]
    {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }
}

/// Checks that the test `test` of this test binary fails with `message` on its standard error when
/// the bug `injected` is enabled. The test runs in a child process, because loom aborts the process
/// on a deadlock. With shuttle, any panic is sufficient if the message is [`RACE`], and a bug in
/// the list `WEAK` of `schedules.rs` must not be found.
///
/// # Panics
/// Panics if the test has another result, or does not end within 120 s.
pub fn finds(injected: &str, test: &str, message: &str) {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INJECTED_VARIABLE, injected)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    #[cfg(feature = "shuttle")]
    command.env(crate::schedules::SCHEDULES_VARIABLE, CHILD_SCHEDULES_MAX.to_string());
    let mut child = command.spawn().expect("the test binary runs as a child");
    let mut pipe = child.stderr.take().expect("stderr is piped");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).expect("a pipe can be read");
        String::from_utf8_lossy(&text).into_owned()
    });
    let give_up = Instant::now() + Duration::from_secs(CHILD_SECONDS_MAX);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if Instant::now() > give_up {
            child.kill().expect("a child can be killed");
            panic!("`{test}` with `{injected}` did not end within {CHILD_SECONDS_MAX} s");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reader.join().expect("the reader does not panic");
    #[cfg(feature = "shuttle")]
    if crate::schedules::WEAK.contains(&injected) {
        assert!(status.success(), "shuttle finds `{injected}`, which is listed as out of its reach:\n{text}");
        println!("out of reach: `{injected}`");
        return;
    }
    assert!(!status.success(), "`{test}` does not find the injected bug `{injected}`");
    // shuttle may find a consequence of the race, such as a failed assertion, instead of the race.
    let seen = text.contains(message) || cfg!(feature = "shuttle") && message == RACE && text.contains("panicked");
    assert!(seen, "`{test}` with `{injected}` failed for another reason:\n{text}");
    println!("found: `{injected}`");
}

/// Declares one test per model: `models! { module: model … }`.
#[macro_export]
macro_rules! models {
    ($module:ident: $($model:ident)*) => {
        $(
            #[test]
            fn $model() {
                $crate::harness::check($crate::$module::$model);
            }
        )*
    };
}

/// Declares one test per injected bug, from the name of the test, the name of the bug, the model
/// that must find the bug, and the message of the failure.
#[macro_export]
macro_rules! injected_bugs {
    ($($test:ident: $injected:literal by $model:ident, $message:expr;)*) => {
        $(
            #[test]
            fn $test() {
                $crate::harness::finds($injected, stringify!($model), $message);
            }
        )*
    };
}

/// The state of a waker. A thread in [`block_on`] waits until the waker is called.
///
/// The thread does not use loom's `park`, because loom's `unpark` also releases a thread that is
/// blocked on a lock. loom then reports an internal error.
#[derive(Debug, Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Signal {
    fn wake(self: Arc<Signal>) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}

/// Polls `future` to completion on this thread of the model. The checker reports a lost wake-up as
/// a deadlock.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = signal.woken.lock();
        while !*woken {
            woken = signal.changed.wait(woken);
        }
        *woken = false;
    }
}
