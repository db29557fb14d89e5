//! The interpreter: runs the actors of a program on their hosts, the events at the same time, and
//! the checks at the end.
//!
//! The *main thread*, which calls [`run`], controls the run. It starts the runtime with the
//! program's settings, then the events and all actors. The first actor on [`Host::Main`] runs on
//! the main thread itself. The main thread waits until all actors and events have ended, and shuts
//! the runtime down. Afterwards, no thread, descriptor, task or waker of the runtime may remain.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{Either, select};
use netpoll::{rt, task};

use crate::faults::{self, actor_thread};
use crate::oracle::{self, Span, Token, fail, watch};
use crate::program::{Action, Actor, Config, Host, Party, Program, RootMode};
use crate::{deadlines, endings, shared, sockets, tasks, timers, waits, wakes};

/// A `Send` future with its type erased.
pub type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs a program. Returns if every check passes. If a check fails, the process ends.
pub fn run(program: Program) {
    let (threads, unreaped, descriptors) = (faults::threads(), faults::unreaped(), open_descriptors());
    faults::refuse_threads(program.config.refuse);
    if let Err(error) = builder(&program.config).start() {
        fail(format!("the runtime does not start: {error}"));
    }
    faults::begin_stops(program.config.preempt, program.parts() as u64);
    let events: Vec<_> = program
        .events
        .iter()
        .cloned()
        .map(|event| {
            let config = program.config.clone();
            faults::own_thread("event", move || endings::happen(event, &config))
        })
        .collect();
    let mut started = Vec::new();
    let mut main = None;
    for (number, actor) in program.actors.iter().cloned().enumerate() {
        match actor.host {
            Host::Main if main.is_none() => main = Some((number, actor)),
            _ => started.push(start(number, actor)),
        }
    }
    if let Some((number, actor)) = main {
        task::block_on(act(number, actor));
    }
    for actor in started {
        actor.join();
    }
    for event in events {
        if event.join().is_err() {
            fail("an event panicked");
        }
    }
    faults::refuse_no_more();
    endings::all_is_at_rest(unreaped, threads);
    // Stopping threads during the remaining checks would only delay the end.
    faults::end_stops();
    endings::nothing_is_left(threads, unreaped, &descriptors);
}

/// Returns a builder with the settings of `config`.
pub fn builder(config: &Config) -> rt::Builder {
    let builder = rt::Builder::new()
        .workers(config.workers as usize)
        .spare_workers(config.spares as usize)
        .blocking_threads(config.blocking as usize)
        .thread_name("netpoll");
    let builder = match config.root {
        RootMode::Default => builder,
        RootMode::No => builder.block_on_runs_tasks(false),
        RootMode::Yes => builder.block_on_runs_tasks(true),
    };
    let report = config.report.duration();
    if report.is_zero() { builder } else { builder.on_blocked_task(move |_| oracle::keep(report, false)) }
}

/// Returns the targets of the open descriptors, except those in /proc, which the heartbeat thread
/// opens at any time, and the placeholder, which the first call of `as_fd` opens.
pub fn open_descriptors() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let mut targets: Vec<_> = targets.filter(|target| !target.starts_with("/proc")).collect();
    // The placeholder refers to the root directory, like the descriptors that keep the numbers of
    // closed sockets in use. One of them is left out.
    if let Some(placeholder) = targets.iter().position(|target| target == std::path::Path::new("/")) {
        targets.remove(placeholder);
    }
    targets
}

/// An actor that was started.
enum Started {
    Thread(thread::JoinHandle<()>),
    /// Completes when the actor's future is dropped.
    Task(oneshot::Receiver<()>),
}

impl Started {
    fn join(self) {
        match self {
            Started::Thread(thread) => {
                if let Err(payload) = thread.join() {
                    fail(format!("the thread of an actor panicked: {}", oracle::panic_text(&*payload)));
                }
            }
            Started::Task(gone) => _ = futures::executor::block_on(gone),
        }
    }
}

fn start(number: usize, actor: Actor) -> Started {
    let name = format!("actor {number}");
    let host = actor.host;
    match host {
        Host::Root | Host::Main => Started::Thread(actor_thread(&name, move || task::block_on(act(number, actor)))),
        Host::Foreign => Started::Thread(actor_thread(&name, move || park_on(act(number, actor)))),
        Host::Local => Started::Thread(actor_thread(&name, move || {
            task::block_on(async { task::spawn_local(act(number, actor)).await });
        })),
        Host::Inner => Started::Thread(actor_thread(&name, move || {
            task::block_on(async { task::block_on(act(number, actor)) });
        })),
        Host::Task | Host::Nested | Host::Pool => {
            let (alive, gone) = oneshot::channel();
            let report = EndReport { number, done: false, _alive: alive, _token: Token::new("actor") };
            let body = async move {
                let mut report = report;
                match host {
                    Host::Nested => task::block_on(act(number, actor)),
                    _ => act(number, actor).await,
                }
                report.done = true;
            };
            let _watch = watch(format!("actor {number} is spawned"));
            match host {
                Host::Pool => drop(task::spawn_blocking(move || task::block_on(body))),
                _ => drop(task::spawn(body)),
            }
            Started::Task(gone)
        }
    }
}

/// Reports the end of an actor's task or blocking call, however it ended.
struct EndReport {
    number: usize,
    done: bool,
    _alive: oneshot::Sender<()>,
    _token: Token,
}

impl Drop for EndReport {
    fn drop(&mut self) {
        oracle::leaves(self.number, if self.done { "has ended at" } else { "was dropped at" });
    }
}

/// Runs the actions of an actor.
async fn act(number: usize, actor: Actor) {
    // A task belongs to the epoch in which it was spawned. On any other host an action may rely on
    // the current runtime.
    let whole = Span::begin();
    let mut dropped = Dropped { number, whole, ended: false };
    for (step, action) in actor.actions.iter().enumerate() {
        oracle::at(number, step, &action.to_string());
        let span = if actor.host == Host::Task { whole } else { Span::begin() };
        if let Err(payload) = AssertUnwindSafe(perform(action, span)).catch_unwind().await {
            let text = oracle::panic_text(&*payload);
            span.check(false, || format!("`{action}` panics: {text}"));
        }
    }
    oracle::leaves(number, "has ended at");
    dropped.ended = true;
}

/// Checks that only a shutdown drops an actor's future.
struct Dropped {
    number: usize,
    whole: Span,
    ended: bool,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if !self.ended && !thread::panicking() {
            self.whole.check(false, || format!("actor {} was dropped", self.number));
        }
    }
}

async fn perform(action: &Action, span: Span) {
    let action = action.clone();
    match action {
        Action::Sleep { ms, how } => timers::sleep(ms, how).await,
        Action::Due { rounds, how, end } => timers::due(span, rounds, how, end).await,
        Action::Interval { ms, ticks } => timers::interval(ms, ticks).await,
        Action::Timeout { ms, of } => timers::timeout(span, ms, of).await,
        Action::Sleeps { tasks, ms } => timers::sleeps(span, tasks, ms).await,
        Action::Join { tasks, yields } => tasks::join(span, tasks, yields).await,
        Action::Detach { tasks } => tasks::detach(span, tasks).await,
        Action::Cancel { tasks, state } => tasks::cancel(span, tasks, state).await,
        Action::Pool { calls, ms } => tasks::pool(span, calls, ms).await,
        Action::Nested { depth, ms, woken } => waits::nested(span, depth, ms, woken).await,
        Action::Crowd { tasks, of, ms } => waits::crowd(span, tasks, of, ms).await,
        Action::Recv { tasks, sender, ms } => waits::recv(span, tasks, sender, ms).await,
        Action::Guard { rounds, wait } => waits::guard(span, rounds, wait).await,
        Action::Compute { ms, op } => waits::compute(span, ms, op).await,
        Action::Yield { tasks, echoes } => waits::yielding(span, tasks, echoes).await,
        Action::Pause { ms } => waits::pause(ms),
        Action::Stall { ms } => waits::stall(ms).await,
        Action::Bridge { ms } => waits::bridge(ms).await,
        Action::Chain { tasks, end } => tasks::chain(span, tasks, end).await,
        Action::Locals { tasks, kind } => tasks::locals(span, tasks, kind).await,
        Action::Panic { place } => tasks::panics(span, place).await,
        Action::Destructor { act, place } => tasks::destructor(span, act, place).await,
        Action::Wakes { threads, wakes } => wakes::wakes(span, threads, wakes).await,
        Action::Stale { tasks, wakes } => wakes::stale(span, tasks, wakes).await,
        Action::Roots { threads, ms } => waits::roots(span, threads, ms).await,
        Action::Greedy { stream, tasks, bytes } => wakes::greedy(span, stream, tasks, bytes).await,
        Action::Survive { stream, ms } => sockets::survive(stream, ms).await,
        Action::Waker { act } => wakes::waker(span, act).await,
        Action::Echo { stream, peer, bytes, rounds } => sockets::echo(span, stream, peer, bytes, rounds).await,
        Action::Half { stream, peer, bytes } => sockets::half(span, stream, peer, bytes).await,
        Action::Close { stream, waiters, by, ms } => sockets::close(span, stream, waiters, by, ms).await,
        Action::Deadline { op, how, by, ms } => deadlines::deadline(span, op, how, by, ms).await,
        Action::Reuse { stream, rounds, ms } => deadlines::reuse(span, stream, rounds, ms).await,
        Action::Closer { stream, ms } => deadlines::closer(span, stream, ms).await,
        Action::Accept { dials, by, ms } => sockets::accept(span, dials, by, ms).await,
        Action::Datagrams { kind, count, by } => sockets::datagrams(span, kind, count, by).await,
        Action::Wakers { polls, op } => sockets::wakers(span, polls, op).await,
        Action::Liveness { stream } => sockets::liveness(span, stream).await,
        Action::Names { calls, ms } => sockets::names(span, calls, ms).await,
        Action::Use { slot, op, bound, ms } => shared::operate(span, slot, op, bound, ms).await,
        Action::Shut { slot, how, ms } => shared::shut(slot, how, ms),
    }
}

/// The peer of an action.
#[must_use]
pub struct Peer<T> {
    span: Span,
    /// Returns the peer's result, or `None` if the peer was dropped, panicked or was told to stop,
    /// which only a shutdown may cause.
    job: Job<Option<T>>,
    stop: oneshot::Sender<()>,
}

impl<T> Peer<T> {
    /// Waits for the peer. Returns its result, or `None` if it was dropped or panicked.
    pub async fn ends(self) -> Option<T> {
        let _stop = self.stop;
        self.job.await
    }
}

/// Starts the peer of an action. A [`Party::Joined`] peer starts when its end is awaited.
pub fn peer<T: Send + 'static>(span: Span, party: Party, body: impl Future<Output = T> + Send + 'static) -> Peer<T> {
    let (done, result) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let token = Token::new("peer");
    let body = async move {
        let _token = token;
        let (body, stopped) = (pin!(AssertUnwindSafe(body).catch_unwind()), pin!(stopped));
        match select(body, stopped).await {
            Either::Left((Ok(value), _)) => _ = done.send(value),
            Either::Left((Err(payload), _)) => {
                span.check(false, || format!("a peer panics: {}", oracle::panic_text(&*payload)));
            }
            // The actor's side of the action is over.
            Either::Right(_) => {}
        }
    };
    let name = "peer";
    let job: Job<Option<T>> = match party {
        Party::Joined => Box::pin(async move {
            body.await;
            result.await.ok()
        }),
        _ => {
            match party {
                Party::Task => drop(task::spawn(body)),
                Party::Foreign => drop(actor_thread(name, move || park_on(body))),
                Party::Root => drop(actor_thread(name, move || task::block_on(body))),
                _ => drop(task::spawn_blocking(move || park_on(body))),
            }
            Box::pin(async move {
                let value = result.await.ok();
                span.check(value.is_some(), || format!("a peer ({party:?}) was dropped"));
                value
            })
        }
    };
    Peer { span, job, stop }
}

/// Runs both sides of an action. Returns the result of the actor's side, or `None` if the peer was
/// dropped or panicked, which only a shutdown may cause. After a shutdown the peer is told to stop.
pub async fn with_peer<T, U>(own: impl Future<Output = T>, peer: Peer<U>) -> Option<T> {
    let Peer { span, job, stop } = peer;
    match select(pin!(own), job).await {
        Either::Left((value, job)) => {
            if span.is_calm() {
                job.await?;
            }
            drop(stop);
            Some(value)
        }
        Either::Right((Some(_), own)) => Some(own.await),
        Either::Right((None, _)) => None,
    }
}

/// Runs a future on the calling thread, which parks between polls.
pub fn park_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Keeps the CPU busy for the given duration.
pub fn spin(length: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < length {
        std::hint::spin_loop();
    }
}
