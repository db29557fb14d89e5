//! Actions on tasks, blocking calls and task-local values. They check that tasks that are joined or
//! detached run once, results arrive, each future is dropped once, and a panic or a destructor
//! affects no other actor.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::{mpsc, oneshot};
use futures::stream::StreamExt;
use netpoll::os::unix::net::UnixStream;
use netpoll::task::JoinHandle;
use netpoll::{task, task_local};

use crate::faults::actor_thread;
use crate::oracle::{self, Blocking, Span, Token, fail, watch, watch_for};
use crate::program::{CancelState, ChainEnd, DropAct, DropPlace, LocalKind, PanicPlace};
use crate::words::{Few, Many, Ms};

/// The payload of deliberate panics.
pub const ON_PURPOSE: &str = "on purpose";

/// Never completes. Its task ends when it is cancelled or when a shutdown drops it.
async fn forever() {
    loop {
        task::sleep(Duration::from_secs(3600)).await;
    }
}

fn panic_on_purpose() -> ! {
    std::panic::panic_any(ON_PURPOSE)
}

pub async fn join(span: Span, tasks: Many, yields: Few) {
    let _watch = watch(format!("{} tasks that yield and are joined", tasks.0));
    let ran: Arc<Vec<AtomicU64>> = Arc::new((0..tasks.0).map(|_| AtomicU64::new(0)).collect());
    let handles: Vec<_> = (0..tasks.0)
        .map(|number| {
            let (token, ran) = (Token::new("joined"), ran.clone());
            task::spawn(async move {
                let _token = token;
                for _ in 0..yields.0 {
                    task::yield_now().await;
                }
                ran[number as usize].fetch_add(1, SeqCst);
                number
            })
        })
        .collect();
    for (number, handle) in handles.into_iter().enumerate() {
        let result = handle.await;
        if result != number as u64 {
            fail(format!("task {number} has the result {result}"));
        }
    }
    span.check(ran.iter().all(|ran| ran.load(SeqCst) == 1), || format!("tasks ran {ran:?} times"));
}

pub async fn detach(span: Span, tasks: Many) {
    let _watch = watch(format!("{} detached tasks", tasks.0));
    let (send, receive) = mpsc::unbounded();
    for number in 0..tasks.0 {
        let (token, send) = (Token::new("detached"), send.clone());
        drop(task::spawn(async move {
            let _token = token;
            task::yield_now().await;
            let _ = send.unbounded_send(number);
        }));
    }
    drop(send);
    let mut got: Vec<_> = receive.collect().await;
    got.sort_unstable();
    span.check(got.iter().copied().eq(0..tasks.0), || format!("of {} detached tasks {got:?} ran", tasks.0));
}

pub async fn cancel(span: Span, tasks: Few, state: CancelState) {
    let _watch = watch(format!("{} tasks cancelled, {state:?}", tasks.0));
    if state == CancelState::Itself {
        return cancels_itself(span, tasks).await;
    }
    for _ in 0..tasks.0 {
        let (marker, begun) = (Arc::new(()), Arc::new(AtomicBool::new(false)));
        let (held, token, begins) = (marker.clone(), Token::new("cancelled"), begun.clone());
        let handle = task::spawn(async move {
            let _held = (held, token);
            begins.store(true, SeqCst);
            match state {
                CancelState::Queued | CancelState::Finished | CancelState::Itself => {}
                CancelState::Yielding => loop {
                    task::yield_now().await;
                },
                CancelState::Due => loop {
                    task::sleep(Duration::ZERO).await;
                },
                CancelState::Sleeping => task::sleep(Duration::from_secs(3600)).await,
                CancelState::Reading => {
                    let Ok((one, _other)) = UnixStream::pair() else { return 7 };
                    let read = one.read(&mut [0; 1]).await;
                    span.check(read.is_err(), || "a read without data ends".to_owned());
                    forever().await;
                }
            }
            7
        });
        while state != CancelState::Queued && !begun.load(SeqCst) && span.is_calm() {
            task::yield_now().await;
        }
        while state == CancelState::Finished && !handle.is_finished() && span.is_calm() {
            task::yield_now().await;
        }
        let result = handle.cancel().await;
        let fits = match state {
            CancelState::Queued => matches!(result, None | Some(7)),
            CancelState::Finished => result == Some(7),
            _ => result.is_none(),
        };
        span.check(fits, || format!("a task that was cancelled ({state:?}) gives {result:?}"));
        span.check(Arc::strong_count(&marker) == 1, || format!("a cancelled task ({state:?}) is not dropped"));
    }
}

/// Runs tasks that cancel themselves.
async fn cancels_itself(span: Span, tasks: Few) {
    for _ in 0..tasks.0 {
        let (send, receive) = oneshot::channel::<JoinHandle<()>>();
        let (alive, gone) = oneshot::channel::<()>();
        let token = Token::new("cancels itself");
        let handle = task::spawn(async move {
            let _held = (token, alive);
            if let Ok(own) = receive.await {
                own.cancel().await;
                span.check(false, || "a task continues after it has cancelled itself".to_owned());
            }
        });
        span.check(send.send(handle).is_ok(), || "a task was dropped before it had its handle".to_owned());
        let _: Result<(), _> = gone.await;
    }
}

pub async fn pool(span: Span, calls: Few, ms: Ms) {
    let length = ms.duration();
    // A call waits while other calls, including those of other actors, occupy all threads.
    let rounds = 1 + calls.0 * 8 / oracle::config().blocking;
    let _watch = watch_for(length * rounds as u32, format!("{} blocking calls of {length:?}", calls.0));
    let handles: Vec<_> = (0..calls.0)
        .map(|number| {
            let token = Token::new("call");
            task::spawn_blocking(move || {
                let _token = token;
                thread::sleep(length);
                number
            })
        })
        .collect();
    for (number, handle) in handles.into_iter().enumerate() {
        let result = handle.await;
        span.check(result == number as u64, || format!("call {number} has the result {result}"));
    }
}

/// Runs a chain of tasks. The first task waits for a message, or forever, and each later task
/// awaits the task spawned before it.
pub async fn chain(span: Span, tasks: Many, end: ChainEnd) {
    let _watch = watch(format!("a chain of {} tasks", tasks.0));
    let (release, released) = oneshot::channel::<u64>();
    let token = Token::new("chain");
    let mut last: JoinHandle<u64> = task::spawn(async move {
        let _token = token;
        if end == ChainEnd::Left {
            forever().await;
        }
        released.await.unwrap_or(0)
    });
    for _ in 0..tasks.0 {
        let (token, before) = (Token::new("chain"), last);
        last = task::spawn(async move {
            let _token = token;
            before.await + 1
        });
    }
    task::yield_now().await;
    match end {
        ChainEnd::Finish => {
            span.check(release.send(7).is_ok(), || "the first task of a chain was dropped".to_owned());
            let result = last.await;
            span.check(result == 7 + tasks.0, || format!("a chain of {} tasks gives {result}", tasks.0));
        }
        ChainEnd::Cancel => {
            let result = last.cancel().await;
            span.check(result.is_none(), || format!("a chain that waits gives {result:?}"));
            drop(release);
        }
        ChainEnd::Left => {
            // The chain is left for a shutdown to drop.
            oracle::leave_tasks();
            drop(last);
        }
    }
}

// ---- task-local values ----

/// A value with an effect when it is dropped.
struct Local {
    _token: Token,
    number: AtomicU64,
    at_end: fn(),
}

impl Local {
    fn new(at_end: fn()) -> Local {
        Local { _token: Token::new("local"), number: AtomicU64::new(0), at_end }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        (self.at_end)();
    }
}

task_local! {
    static PLAIN: Local = Local::new(|| ());
    static USES_OTHER: Local = Local::new(|| _ = PLAIN.try_with(|_| ()));
    static USES_OWN: Local = Local::new(|| _ = USES_OWN.try_with(|_| ()));
    static SPAWNS: Local = Local::new(|| drop(task::spawn(async {})));
    static PANICS: Local = Local::new(|| panic_on_purpose());
}

pub async fn locals(span: Span, tasks: Few, kind: LocalKind) {
    let _watch = watch(format!("{} tasks with local values, {kind:?}", tasks.0));
    let handles: Vec<_> = (1..=tasks.0)
        .map(|number| {
            let token = Token::new("with locals");
            task::spawn(async move {
                let _token = token;
                let key = match kind {
                    LocalKind::Plain => &PLAIN,
                    LocalKind::UsesOther => &USES_OTHER,
                    LocalKind::UsesOwn => &USES_OWN,
                    LocalKind::Spawns => &SPAWNS,
                    LocalKind::Panics => &PANICS,
                };
                key.with(|local| local.number.store(number, SeqCst));
                task::yield_now().await;
                key.with(|local| local.number.load(SeqCst))
            })
        })
        .collect();
    for (number, handle) in (1..).zip(handles) {
        let result = handle.await;
        span.check(result == number, || format!("task {number} has the local value {result}"));
    }
}

// ---- panics ----

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic_on_purpose();
        }
    }
}

/// Checks that the handle of a task that panicked on purpose panics with the same payload.
async fn passes_on<T>(span: Span, handle: JoinHandle<T>) {
    match AssertUnwindSafe(handle).catch_unwind().await {
        Ok(_) => span.check(false, || "the handle of a task that panicked gives a value".to_owned()),
        Err(payload) => {
            let text = oracle::panic_text(&*payload);
            span.check(text == ON_PURPOSE, || format!("the handle of a task that panicked panics with `{text}`"));
        }
    }
}

pub async fn panics(span: Span, place: PanicPlace) {
    let _watch = watch(format!("a panic, {place:?}"));
    match place {
        PanicPlace::Task => passes_on(span, task::spawn(async { panic_on_purpose() })).await,
        PanicPlace::Detached => drop(task::spawn(async { panic_on_purpose() })),
        PanicPlace::Pool => passes_on(span, task::spawn_blocking(|| panic_on_purpose())).await,
        PanicPlace::PoolDestructor => {
            let guard = PanicsWhenDropped;
            passes_on(span, task::spawn_blocking(move || drop(guard))).await;
        }
        PanicPlace::Destructor => {
            let guard = PanicsWhenDropped;
            let handle = task::spawn(async move {
                let _guard = guard;
                forever().await;
            });
            task::yield_now().await;
            let _ = handle.cancel().await;
        }
        PanicPlace::Output => drop(task::spawn(async { PanicsWhenDropped })),
        PanicPlace::Root => {
            let (done, waits) = oneshot::channel();
            let thread = actor_thread("panics", move || {
                let _done = done;
                task::block_on(async {
                    task::yield_now().await;
                    panic_on_purpose()
                })
            });
            // The sender is dropped without a message.
            let _: Result<(), _> = waits.await;
            let joined = task::spawn_blocking(move || thread.join().is_err()).await;
            span.check(joined, || "the thread of a root that panicked returns".to_owned());
        }
        PanicPlace::Local => {
            let (done, waits) = oneshot::channel();
            drop(actor_thread("panics", move || {
                task::block_on(async move {
                    let local = task::spawn_local(async { panic_on_purpose() });
                    passes_on(span, local).await;
                    let _ = done.send(());
                });
            }));
            span.ok(waits.await, "a root with a local task that panics");
        }
        PanicPlace::Waker => waker_panics(span).await,
    }
    // The runtime continues after the panic.
    let result = task::spawn(async { 7 }).await;
    span.check(result == 7, || format!("after a panic a task gives {result}"));
}

struct PanicsWhenWoken(#[expect(dead_code, reason = "the oracle counts tokens")] Token);

impl Wake for PanicsWhenWoken {
    fn wake(self: Arc<Self>) {
        panic_on_purpose();
    }
}

async fn waker_panics(span: Span) {
    let Some((one, other)) = span.ok(UnixStream::pair(), "a pair") else { return };
    let Some((calm, to_calm)) = span.ok(UnixStream::pair(), "a pair") else { return };
    let calm_reader = task::spawn(async move {
        let read = calm.read(&mut [0; 8]).await;
        span.check(matches!(read, Ok(1)), || format!("while another waker panics, a read gives {read:?}"));
    });
    {
        let mut buf = [0; 8];
        let mut read = pin!(one.read(&mut buf));
        let waker = Waker::from(Arc::new(PanicsWhenWoken(Token::new("waker"))));
        let polled =
            std::panic::catch_unwind(AssertUnwindSafe(|| read.as_mut().poll(&mut Context::from_waker(&waker))));
        // A poll that is deferred for fairness calls the waker immediately, so the panic occurs
        // here.
        if polled.is_ok_and(|polled| polled.is_pending()) {
            span.ok(other.write_all(b"x").await, "a write");
            span.ok(to_calm.write_all(b"x").await, "a write");
            let read = read.await;
            span.check(matches!(read, Ok(1)), || format!("a read whose waker panicked gives {read:?}"));
        } else {
            span.ok(to_calm.write_all(b"x").await, "a write");
        }
    }
    calm_reader.await;
}

// ---- destructors ----

/// A value whose destructor has an effect and then sends a message.
struct Acts {
    act: DropAct,
    span: Span,
    done: Option<oneshot::Sender<()>>,
    spawned: Option<oneshot::Sender<()>>,
    other: Option<JoinHandle<()>>,
    _token: Token,
}

impl Drop for Acts {
    fn drop(&mut self) {
        let _blocking = Blocking::begin();
        let _tells = self.done.take().map(Tells);
        match self.act {
            DropAct::Nothing => {}
            DropAct::Spawn => {
                let spawned = self.spawned.take();
                drop(task::spawn(async move { spawned.map(|spawned| spawned.send(())) }));
            }
            DropAct::Sleep => task::block_on(task::sleep(Duration::from_millis(10))),
            DropAct::Yield => task::block_on(task::yield_now()),
            DropAct::SpawnJoin => {
                let result = task::block_on(task::spawn(async { 7 }));
                self.span.check(result == 7, || "a task spawned by a destructor has no result".to_owned());
            }
            DropAct::Socket => {
                let Ok((one, other)) = UnixStream::pair() else { return };
                let read = task::block_on(async move {
                    let read = task::spawn(async move { one.read(&mut [0; 4]).await });
                    task::yield_now().await;
                    let _ = other.write_all(b"abc").await;
                    read.await
                });
                self.span.check(matches!(read, Ok(3)), || format!("a read of a destructor gives {read:?}"));
            }
            DropAct::Panic => {
                if !thread::panicking() {
                    panic_on_purpose();
                }
            }
            DropAct::Cancel => {
                if let Some(other) = self.other.take() {
                    let mut cancel = pin!(other.cancel());
                    let _ = cancel.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
            }
        }
    }
}

/// Sends a message when it is dropped, including during a panic.
struct Tells(oneshot::Sender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        let (fresh, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.0, fresh).send(());
    }
}

pub async fn destructor(span: Span, act: DropAct, place: DropPlace) {
    let _watch = watch(format!("a destructor that does {act:?}, {place:?}"));
    let (done, is_done) = oneshot::channel();
    let (spawned, is_spawned) = oneshot::channel();
    let (_keep, kept) = oneshot::channel::<()>();
    let token = Token::new("other");
    let other = task::spawn(async move {
        let _token = token;
        let _ = kept.await;
    });
    let acts =
        Acts { act, span, done: Some(done), spawned: Some(spawned), other: Some(other), _token: Token::new("acts") };
    match place {
        DropPlace::Cancelled => {
            let handle = task::spawn(async move {
                let _acts = acts;
                forever().await;
            });
            task::yield_now().await;
            let _ = handle.cancel().await;
        }
        DropPlace::Ended => {
            let handle = task::spawn(async move {
                let _acts = acts;
                task::yield_now().await;
            });
            let _ = AssertUnwindSafe(handle).catch_unwind().await;
        }
        DropPlace::Detached => {
            drop(task::spawn(async move {
                let _acts = acts;
                task::yield_now().await;
            }));
        }
        DropPlace::Output => drop(task::spawn(async move {
            task::yield_now().await;
            acts
        })),
        DropPlace::Left => {
            // The task is left for a shutdown to drop.
            oracle::leave_tasks();
            return drop(task::spawn(async move {
                let _acts = acts;
                forever().await;
            }));
        }
    }
    span.ok(is_done.await, "a destructor");
    if act == DropAct::Spawn {
        span.ok(is_spawned.await, "a task that a destructor spawned");
    }
}
