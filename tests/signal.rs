//! Signals: every listener receives each signal, pending signals may merge but are not lost, and
//! other signals and processes are not affected.
#![cfg(feature = "signal")]

mod common;

use std::process::Command;

use common::{child, eventually, park_on, poll_now, run};
use netpoll::signal::{Signal, SignalKind, ctrl_c, termination};
use netpoll::{rt, task};

fn raise(kind: SignalKind) {
    let signal = rustix::process::Signal::from_named_raw(kind.as_raw()).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
}

#[test]
fn every_listener_receives_each_signal() {
    child("every_listener_receives_each_signal", || {
        run(async {
            let mut listeners: Vec<_> = (0..3).map(|_| Signal::new(SignalKind::USER_DEFINED1).unwrap()).collect();
            let mut other = Signal::new(SignalKind::USER_DEFINED2).unwrap();
            for _ in 0..5 {
                raise(SignalKind::USER_DEFINED1);
                for listener in &mut listeners {
                    listener.recv().await.unwrap();
                }
            }
            assert!(poll_now(&mut Box::pin(other.recv())).is_pending());
            // One listener is dropped, and the others continue.
            drop(listeners.pop());
            raise(SignalKind::USER_DEFINED1);
            listeners[0].recv().await.unwrap();
            listeners[1].recv().await.unwrap();
        });
    });
}

#[test]
fn pending_signals_merge_without_loss() {
    child("pending_signals_merge_without_loss", || {
        run(async {
            let mut signal = Signal::new(SignalKind::HANGUP).unwrap();
            (0..10_000).for_each(|_| raise(SignalKind::HANGUP));
            signal.recv().await.unwrap();
            // Each receive merges at most 64 signals, so there may be several receives.
            let mut count = 1;
            while poll_now(&mut Box::pin(signal.recv())).is_ready() {
                count += 1;
            }
            assert!(count < 10_000, "no signals were merged");
            raise(SignalKind::HANGUP);
            drop(poll_now(&mut Box::pin(signal.recv())));
            raise(SignalKind::HANGUP);
            signal.recv().await.unwrap();
        });
    });
}

#[test]
fn signal_listener_outlives_runtime() {
    child("signal_listener_outlives_runtime", || {
        let mut signal = Signal::new(SignalKind::USER_DEFINED1).unwrap();
        for _ in 0..3 {
            let waiting = task::spawn(async move {
                signal.recv().await.unwrap();
                signal
            });
            eventually("the task waits", || rt::metrics().waiters == 1);
            raise(SignalKind::USER_DEFINED1);
            signal = park_on(waiting);
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

#[test]
fn ctrl_c_and_termination_report_the_signal() {
    child("ctrl_c_and_termination_report_the_signal", || {
        run(async {
            for kind in [SignalKind::TERMINATE, SignalKind::INTERRUPT] {
                let mut waiting = Box::pin(termination().unwrap());
                assert!(poll_now(&mut waiting).is_pending());
                raise(kind);
                assert_eq!(waiting.await.unwrap(), kind);
            }
            // Signals are received from the call of `termination` on, not only from the first poll
            // of its future on.
            for kind in [SignalKind::TERMINATE, SignalKind::INTERRUPT] {
                let waiting = termination().unwrap();
                raise(kind);
                assert_eq!(waiting.await.unwrap(), kind);
            }
            let waiting = ctrl_c().unwrap();
            raise(SignalKind::INTERRUPT);
            waiting.await.unwrap();
        });
    });
}

/// The call of `termination` itself fails, so `serve(…).until(termination()?)` does not start. If
/// the future returned the error, the server would start and stop at once.
#[test]
fn termination_fails_at_once_without_descriptors() {
    child("termination_fails_at_once_without_descriptors", || {
        let taken = common::exhaust_descriptors();
        for error in [termination().map(drop).unwrap_err(), ctrl_c().map(drop).unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        }
        drop(taken);
        let waiting = termination().unwrap();
        raise(SignalKind::TERMINATE);
        assert_eq!(park_on(waiting).unwrap(), SignalKind::TERMINATE);
    });
}

#[test]
fn child_processes_have_default_signal_action() {
    child("child_processes_have_default_signal_action", || {
        let _signal = Signal::new(SignalKind::TERMINATE).unwrap();
        let status = Command::new("sh").args(["-c", "kill -TERM $$; exit 0"]).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(SignalKind::TERMINATE.as_raw()));
    });
}

#[test]
fn uncatchable_signals_are_rejected() {
    for (signal, text) in [
        (9, "signal 9 cannot be received"),
        (11, "signal 11 cannot be received"),
        (-1, "-1 is not a signal"),
        (4000, "4000 is not a signal"),
    ] {
        let error = Signal::new(SignalKind::from_raw(signal)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{signal}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// The child inherits the signal handler and the socket to which the handler writes.
#[test]
fn signal_of_a_forked_child_is_not_received_by_its_parent() {
    child("signal_of_a_forked_child_is_not_received_by_its_parent", || {
        run(async {
            let mut listener = Signal::new(SignalKind::USER_DEFINED1).unwrap();
            // SAFETY: the child calls only raise(3) and _exit(2), and runs the signal's handler.
            // All of these are async-signal-safe.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: the signal has a handler.
                unsafe { libc::raise(libc::SIGUSR1) };
                // SAFETY: the call ends the process.
                unsafe { libc::_exit(0) };
            }
            assert!(pid > 0);
            let mut status = 0;
            // SAFETY: `status` is valid for writes.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0, "the signal does not end the child");
            assert!(poll_now(&mut Box::pin(listener.recv())).is_pending());
            raise(SignalKind::USER_DEFINED1);
            listener.recv().await.unwrap();
        });
    });
}

/// Counts the calls of dladdr(3) while a handler may run.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod linker {
    use std::ffi::{c_int, c_void};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    pub(super) static COUNTS: AtomicBool = AtomicBool::new(false);
    pub(super) static CALLS: AtomicUsize = AtomicUsize::new(0);

    /// Replaces the C library's function. Counts the call and calls the original.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn dladdr(address: *const c_void, info: *mut libc::Dl_info) -> c_int {
        if COUNTS.load(Ordering::SeqCst) {
            CALLS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the name is a C string, and the handle is always valid.
        let real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dladdr".as_ptr()) };
        // SAFETY: the C library's function of that name has this signature.
        let real: unsafe extern "C" fn(*const c_void, *mut libc::Dl_info) -> c_int =
            unsafe { std::mem::transmute(real) };
        // SAFETY: the caller's promise.
        unsafe { real(address, info) }
    }
}

/// Regression: the handler's send was the first of the process, so it called dladdr(3), which takes
/// a lock of the dynamic linker.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn handler_does_not_call_the_dynamic_linker() {
    use std::sync::atomic::Ordering;

    child("handler_does_not_call_the_dynamic_linker", || {
        let mut signal = Signal::new(SignalKind::USER_DEFINED1).unwrap();
        linker::COUNTS.store(true, Ordering::SeqCst);
        raise(SignalKind::USER_DEFINED1);
        park_on(signal.recv()).unwrap();
        assert_eq!(linker::CALLS.load(Ordering::SeqCst), 0);
    });
}
