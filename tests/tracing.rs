//! The events and spans of the feature `tracing`, as docs/INSPECTION.md lists them.

#[path = "common/black_hole.rs"]
mod black_hole;
mod common;

use std::cell::Cell;
use std::fmt::{Debug, Write as _};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use black_hole::BlackHole;
use common::run;
use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::prelude::*;
use netpoll::{rt, task};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The recorded lines. The line of an event has its target, level, fields and message. The line of
/// a span begins with `span`, and that of an update of a span with `record`.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A subscriber that appends to [`SEEN`]. The field is the number of spans so far.
struct Collector(AtomicU64);

/// A line, to which the visits append fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {}={value}", field.name());
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("netpoll::")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line =
            Line(format!("span {} {} {}", span.metadata().target(), span.metadata().level(), span.metadata().name()));
        span.record(&mut line);
        SEEN.lock().unwrap().push(line.0);
        Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        let mut line = Line("record".to_owned());
        values.record(&mut line);
        SEEN.lock().unwrap().push(line.0);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().target(), event.metadata().level()));
        event.record(&mut line);
        SEEN.lock().unwrap().push(line.0);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// Waits until a line contains all of `parts`, and returns this line.
fn seen(parts: &[&str]) -> String {
    let begin = Instant::now();
    loop {
        let lines = SEEN.lock().unwrap().clone();
        if let Some(line) = lines.iter().find(|line| parts.iter().all(|part| line.contains(part))) {
            return line.clone();
        }
        assert!(begin.elapsed() < common::BOUND, "no line with {parts:?} in {lines:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs in a child process, because the test takes all descriptors.
#[test]
fn pause_of_accepts_and_abandoned_dial_are_reported() {
    common::child("pause_of_accepts_and_abandoned_dial_are_reported", || {
        tracing::subscriber::set_global_default(Collector(AtomicU64::new(0))).unwrap();
        common::set_nofile(128);
        run(async {
            let silent = BlackHole::new();
            let addr = silent.addr;
            assert!(common::poll_once(&mut Box::pin(TcpStream::connect(addr))).await.is_pending());
            let line = seen(&[
                "netpoll::dial DEBUG ",
                &format!("addr={addr} "),
                "outcome=abandoned",
                "message=dial attempt ended",
            ]);
            assert!(line.contains("elapsed_us=") && !line.contains("error="), "{line}");

            let listener = TcpListener::bind(common::own_address()).await.unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let _held = common::exhaust_descriptors();
            assert!(common::poll_once(&mut listener.incoming().next()).await.is_pending());
            let line =
                seen(&["netpoll::accept WARN ", "pause_ms=5 ", "message=accept backs off for lack of resources"]);
            assert!(line.contains("error=") && line.contains("(os error 24)"), "{line}");
        });
    });
}

/// The system refuses threads. With the feature `sim`, the crate itself defines `pthread_create`,
/// so the test cannot replace it.
#[cfg(all(target_os = "linux", not(feature = "sim")))]
mod refused {
    use std::ffi::{c_int, c_void};
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::*;

    /// Whether the system refuses new threads.
    static REFUSES: AtomicBool = AtomicBool::new(false);
    /// The number of threads that were refused.
    static REFUSED: AtomicUsize = AtomicUsize::new(0);

    type Main = extern "C" fn(*mut c_void) -> *mut c_void;
    type Create = unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Main, *mut c_void) -> c_int;

    /// Replaces the C library's function. Fails if [`REFUSES`] is true, and otherwise calls the
    /// original.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        main: Main,
        argument: *mut c_void,
    ) -> c_int {
        if REFUSES.load(Ordering::SeqCst) {
            REFUSED.fetch_add(1, Ordering::SeqCst);
            return libc::EAGAIN;
        }
        let real = common::original(c"pthread_create", c"__interceptor_pthread_create");
        // SAFETY: the functions of these names have this signature.
        let real: Create = unsafe { std::mem::transmute(real) };
        // SAFETY: the caller's promise.
        unsafe { real(thread, attributes, main, argument) }
    }

    /// Returns whether this process has a thread whose name ends with `name`.
    fn has_thread(name: &str) -> bool {
        common::of_other_threads("comm").any(|thread| thread.trim_end().ends_with(name))
    }

    /// Regression: if the system refused the thread for reports, a report about a spare worker
    /// waited until another report was queued. Runs in a child process, because all threads are
    /// refused.
    #[test]
    fn spare_worker_is_reported_although_threads_are_refused() {
        common::child("refused::spare_worker_is_reported_although_threads_are_refused", || {
            tracing::subscriber::set_global_default(Collector(AtomicU64::new(0))).unwrap();
            rt::Builder::new().workers(1).start().unwrap();
            let (release, blocked) = mpsc::channel::<()>();
            let blocker = task::spawn(async move { blocked.recv() });
            common::park_on(task::spawn(async {}));
            seen(&["netpoll::worker INFO ", "message=spare worker started"]);
            common::eventually("the thread for reports ends", || !has_thread("-reports"));
            REFUSES.store(true, Ordering::SeqCst);
            // A nested `block_on` gives the spare processor away.
            common::park_on(task::spawn(async { task::block_on(task::sleep(Duration::from_millis(1))) }));
            common::eventually("a thread is refused", || REFUSED.load(Ordering::SeqCst) > 0);
            seen(&["netpoll::worker INFO ", "message=spare worker ended"]);
            REFUSES.store(false, Ordering::SeqCst);
            release.send(()).unwrap();
            common::park_on(blocker).unwrap();
            rt::shutdown(Duration::from_secs(60)).unwrap();
        });
    }
}

/// This is a single test because the subscriber and the shutdown affect the whole process.
#[test]
fn documented_events_and_spans_are_emitted() {
    tracing::subscriber::set_global_default(Collector(AtomicU64::new(0))).unwrap();
    rt::Builder::new().workers(1).start().unwrap();
    run(async {
        let listener = TcpListener::bind(common::own_address()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        seen(&[
            "netpoll::dial DEBUG ",
            &format!("addr={address}"),
            "elapsed_us=",
            "outcome=connected",
            "message=dial attempt ended",
        ]);
        seen(&["netpoll::accept DEBUG ", "fd=", &format!("local={address} peer={peer}"), "message=accepted"]);

        client.set_read_deadline(Some(Instant::now())).unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::TimedOut);
        seen(&[
            "netpoll::deadline DEBUG ",
            "op=read network=tcp",
            &format!("local={peer} peer={address}"),
            "deadline expired",
        ]);
        listener.set_deadline(Some(Instant::now())).unwrap();
        assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::TimedOut);
        seen(&["netpoll::deadline DEBUG ", "op=accept network=tcp", &format!("local={address}")]);

        server.write_all(b"hello").await.unwrap();
        client.set_read_deadline(None).unwrap();
        client.read(&mut [0; 8]).await.unwrap();
        drop(client);
        let line = seen(&[
            "netpoll::close DEBUG ",
            &format!("local={peer} peer={address}"),
            "reason=drop",
            "bytes_received=5",
        ]);
        assert!(line.contains("bytes_sent=") && line.contains("tcp_state=ESTABLISHED"), "{line}");
        server.force_close().await.unwrap();
        seen(&[
            "netpoll::close DEBUG ",
            &format!("local={address} peer={peer}"),
            "reason=close",
            "tcp_state=CLOSE_WAIT",
        ]);
        let no_forks = common::no_forks();
        listener.close().await.unwrap();
        seen(&["netpoll::close DEBUG ", &format!("local={address}"), "reason=close", "tcp_state=LISTEN"]);
        assert!(TcpStream::connect(address).await.is_err());
        drop(no_forks);
        seen(&["netpoll::dial DEBUG ", &format!("addr={address}"), "outcome=failed", "connection refused"]);

        let task = task::Builder::new().name("named task".into()).spawn(async {}).unwrap();
        let id = task.task().id();
        task.await;
        seen(&["span netpoll::task INFO task ", &format!("task={id} "), "spawned_at=tests/tracing.rs:"]);
        seen(&["record", "name=named task"]);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = task::spawn(async move {
            let client = TcpStream::connect(address).await.unwrap();
            client.read(&mut [0; 1]).await.unwrap();
            client.local_addr().unwrap()
        });
        let (stop, stopped) = stop_signal();
        let server = task::spawn(async move {
            net::serve(listener, |_: TcpStream| async {}).until(stopped).await.unwrap();
        });
        let local = client.await;
        seen(&["span netpoll::connection INFO connection ", &format!("peer={local}")]);
        stop();
        server.await;

        // The only worker is blocked, so a spare worker runs the second task.
        let (release, blocked) = mpsc::channel::<()>();
        let blocker = task::Builder::new().name("blocker".into()).spawn(async move { blocked.recv() }).unwrap();
        task::spawn(async {}).await;
        let line = seen(&["netpoll::task WARN ", "name=blocker", "blocked_ms=", "message=task blocks its thread"]);
        assert!(line.contains(&format!("task={} ", blocker.task().id())), "{line}");
        seen(&["netpoll::worker INFO ", "worker=", "message=spare worker started"]);
        // A nested `block_on` gives the spare processor away, and another worker may get it. Each
        // of these ends must be reported. A few spare workers may still run, because the blocker
        // occupies its worker.
        for _ in 0..50 {
            task::spawn(async { task::block_on(task::sleep(Duration::from_millis(1))) }).await;
        }
        common::eventually("spare workers end", || {
            let lines = SEEN.lock().unwrap();
            let count = |what| lines.iter().filter(|line| line.contains(what)).count();
            let (started, ended) = (count("message=spare worker started"), count("message=spare worker ended"));
            started <= ended + 5
        });
        release.send(()).unwrap();
        let _ = blocker.await;
    });
    rt::shutdown(Duration::from_secs(60)).unwrap();
    // The spare worker ends when it has no work, or with the runtime.
    seen(&["netpoll::worker INFO ", "worker=", "message=spare worker ended"]);
    seen(&["netpoll::shutdown INFO ", "timeout_ms=60000", "message=shutdown begins"]);
    seen(&["netpoll::shutdown INFO ", "threads=0 tasks=0", "message=shutdown ended"]);
}

/// Returns a function and a future, which completes when the function is called.
fn stop_signal() -> (impl FnOnce(), impl Future<Output = ()> + Send + 'static) {
    let (sender, receiver) = futures::channel::oneshot::channel::<()>();
    (move || drop(sender), async move { _ = receiver.await })
}

/// The crate holds no lock of the listener when it asks a subscriber whether it wants the event of
/// an accept. So the subscriber may use the listener.
#[test]
fn subscriber_may_accept_when_it_is_asked_about_an_accept() {
    static LISTENER: OnceLock<TcpListener> = OnceLock::new();
    static ACCEPTED: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static IS_ASKED: Cell<bool> = const { Cell::new(false) };
    }
    struct Accepts;
    impl Subscriber for Accepts {
        fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
            tracing::subscriber::Interest::sometimes()
        }
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            if metadata.target() == "netpoll::accept" && !IS_ASKED.replace(true) {
                let listener = LISTENER.get().expect("the listener accepts");
                if common::poll_now(&mut std::pin::pin!(listener.accept())).is_ready() {
                    ACCEPTED.fetch_add(1, Ordering::SeqCst);
                }
                IS_ASKED.set(false);
            }
            false
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    common::child("subscriber_may_accept_when_it_is_asked_about_an_accept", || {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let listener = LISTENER.get_or_init(|| listener);
            tracing::subscriber::set_global_default(Accepts).unwrap();
            let _clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
            listener.accept().await.unwrap();
        });
        assert!(ACCEPTED.load(Ordering::SeqCst) > 0, "the accept of the subscriber waited for a lock");
    });
}

/// A subscriber that panics in every event of the target.
struct Panics(&'static str);

impl Subscriber for Panics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == self.0
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        panic!("in a subscriber, on purpose");
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Regression: if a subscriber panicked, the runtime stayed in the shutdown, and the next start
/// waited forever.
#[test]
fn subscriber_may_panic_during_a_shutdown() {
    common::child("subscriber_may_panic_during_a_shutdown", || {
        tracing::subscriber::set_global_default(Panics("netpoll::shutdown")).unwrap();
        for _ in 0..3 {
            rt::Builder::new().workers(1).start().unwrap();
            assert_eq!(task::block_on(task::spawn(async { 7 })), 7);
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

/// Regression: if a subscriber panicked, the descriptor stayed open and the close never completed.
#[test]
fn subscriber_may_panic_during_a_close() {
    common::child("subscriber_may_panic_during_a_close", || {
        run(async {
            let (client, server) = common::pair().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tracing::subscriber::set_global_default(Panics("netpoll::close")).unwrap();
            let before = rt::metrics().contained_panics;
            listener.close().await.unwrap();
            assert_eq!(rt::metrics().contained_panics, before + 1);
            drop(client);
            assert_eq!(rt::metrics().contained_panics, before + 2);
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        });
    });
}
