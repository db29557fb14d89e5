//! Measures the CPU time of single operations, such as a spawn, a yield, a message or a timer.
//!
//! ```text
//! micro [--only netpoll,tokio] [--case spawn-join,yield] [--rounds 5]
//! ```
//!
//! `--only` selects runtimes and `--case` cases; an unknown name prints the list. The runtime
//! `bare` consists only of async-task and a queue. `bare-threads` is the same in a process with a
//! second, idle thread, because malloc(3) of the GNU C library takes its locks only in a process
//! with several threads, such as that of a runtime with worker threads. The Go program is built
//! beside this program if Go's toolchain is installed, and is left out otherwise.
//!
//! Each measurement runs in a separate process with one worker, pinned to the last CPU that this
//! program may use. The runtimes alternate. The program prints a Markdown table with the medians
//! over the rounds. If it fails, it prints the error to standard error and exits with status 1.

use netpoll_bench::arguments::Arguments;
use netpoll_bench::servers::go;
use netpoll_bench::sys;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::process::{Command, ExitCode};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A runtime with the operations that are measured.
trait Runtime: 'static {
    fn block_on(future: impl Future<Output = ()> + Send + 'static);
    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static;
    fn yield_now() -> impl Future<Output = ()> + Send;
    /// Returns a future that completes at `at`, or `None` if the runtime has no timers.
    fn sleep_until(at: Instant) -> Option<impl Future<Output = ()> + Send>;
}

struct Netpoll;

impl Runtime for Netpoll {
    fn block_on(future: impl Future<Output = ()> + Send + 'static) {
        netpoll::task::block_on(netpoll::task::spawn(future));
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        netpoll::task::spawn(future)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        netpoll::task::yield_now()
    }

    fn sleep_until(at: Instant) -> Option<impl Future<Output = ()> + Send> {
        Some(netpoll::time::Sleep::until(at))
    }
}

struct Tokio<const MULTI: bool>;

impl<const MULTI: bool> Runtime for Tokio<MULTI> {
    fn block_on(future: impl Future<Output = ()> + Send + 'static) {
        use tokio::runtime::Builder;
        let mut builder = if MULTI { Builder::new_multi_thread() } else { Builder::new_current_thread() };
        let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::spawn(future).await.expect("no panic") });
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        let handle = tokio::spawn(future);
        async { handle.await.expect("no panic") }
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep_until(at: Instant) -> Option<impl Future<Output = ()> + Send> {
        Some(tokio::time::sleep_until(at.into()))
    }
}

struct Smol;

impl Runtime for Smol {
    fn block_on(future: impl Future<Output = ()> + Send + 'static) {
        smol::block_on(smol::spawn(future));
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        smol::spawn(future)
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        smol::future::yield_now()
    }

    fn sleep_until(at: Instant) -> Option<impl Future<Output = ()> + Send> {
        let timer = smol::Timer::at(at);
        Some(async {
            timer.await;
        })
    }
}

/// A runtime that consists only of async-task and a queue. Its cost is a lower bound for executors
/// that use async-task.
struct Bare;

thread_local! {
    static QUEUE: RefCell<VecDeque<async_task::Runnable>> = const { RefCell::new(VecDeque::new()) };
}

fn enqueue(runnable: async_task::Runnable) {
    QUEUE.with_borrow_mut(|queue| queue.push_back(runnable));
}

impl Runtime for Bare {
    fn block_on(future: impl Future<Output = ()> + Send + 'static) {
        let mut main = std::pin::pin!(Bare::spawn(future));
        while main.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            while let Some(runnable) = QUEUE.with_borrow_mut(VecDeque::pop_front) {
                runnable.run();
            }
        }
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        let (runnable, task) = async_task::spawn(future, enqueue);
        runnable.schedule();
        task
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        smol::future::yield_now()
    }

    fn sleep_until(_: Instant) -> Option<impl Future<Output = ()> + Send> {
        None::<std::future::Ready<()>>
    }
}

/// The result of a measurement.
struct Outcome {
    /// The CPU time per operation, in nanoseconds.
    cpu_ns: f64,
    /// The median lateness of sleepers, in microseconds.
    late_us: Option<f64>,
}

/// Returns the CPU time of the process in nanoseconds.
fn cpu_ns() -> f64 {
    sys::process_cpu_ns(std::process::id()).expect("the process's own clock") as f64
}

/// Measures `work`, which performs `count` operations.
async fn measured(count: u32, work: impl Future<Output = ()>) -> Outcome {
    let before = cpu_ns();
    work.await;
    Outcome { cpu_ns: (cpu_ns() - before) / f64::from(count), late_us: None }
}

/// Spawns tasks that end at once, and awaits all of them.
async fn spawn_join<R: Runtime>() -> Outcome {
    const TASKS: u32 = 100_000;
    let round = || async {
        let tasks: Vec<_> = (0..TASKS).map(|_| R::spawn(async {})).collect();
        for task in tasks {
            task.await;
        }
    };
    // The first round allocates memory and is not measured.
    round().await;
    measured(TASKS, round()).await
}

/// Runs `tasks` tasks, which yield in a loop.
async fn yields<R: Runtime>(tasks: u32) -> Outcome {
    let turns = 1_280_000 / tasks;
    measured(tasks * turns, async {
        let task = || async move {
            for _ in 0..turns {
                R::yield_now().await;
            }
        };
        let tasks: Vec<_> = (0..tasks).map(|_| R::spawn(task())).collect();
        for task in tasks {
            task.await;
        }
    })
    .await
}

/// Sends a message to another task and waits for the answer, in a loop. The operation is one
/// message with its answer.
async fn ping_pong<R: Runtime>() -> Outcome {
    const ROUNDS: u32 = 300_000;
    let (to, from) = (smol::channel::bounded::<u32>(1), smol::channel::bounded::<u32>(1));
    let answerer = R::spawn(async move {
        while let Ok(message) = to.1.recv().await {
            if from.0.send(message).await.is_err() {
                return;
            }
        }
    });
    let outcome = measured(ROUNDS, async {
        for message in 0..ROUNDS {
            to.0.send(message).await.expect("the other end is open");
            from.1.recv().await.expect("the other end is open");
        }
    })
    .await;
    drop(to.0);
    answerer.await;
    outcome
}

/// Arms a timer and drops it, in a loop.
async fn arm_and_cancel<R: Runtime>() -> Option<Outcome> {
    const TIMERS: u32 = 500_000;
    let at = Instant::now() + Duration::from_secs(3600);
    drop(R::sleep_until(at)?);
    let outcome = measured(TIMERS, async {
        for _ in 0..TIMERS {
            let mut sleep = Box::pin(R::sleep_until(at).expect("timers"));
            std::future::poll_fn(|cx| {
                assert!(sleep.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
    });
    Some(outcome.await)
}

/// Runs many tasks that each sleep once.
async fn sleepers<R: Runtime>() -> Option<Outcome> {
    const SLEEPERS: u32 = 100_000;
    let start = Instant::now() + Duration::from_millis(500);
    drop(R::sleep_until(start)?);
    let late = std::sync::Arc::new(std::sync::Mutex::new(Vec::with_capacity(SLEEPERS as usize)));
    let outcome = measured(SLEEPERS, async {
        let tasks: Vec<_> = (0..SLEEPERS)
            .map(|n| {
                // The deadlines are spread over a second, in an order that is unfavourable for a
                // heap.
                let at = start + Duration::from_micros(u64::from(n) * 7_919 % 100_000 * 10);
                let late = late.clone();
                R::spawn(async move {
                    R::sleep_until(at).expect("timers").await;
                    late.lock().expect("no panic").push(at.elapsed());
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    })
    .await;
    let mut late = std::mem::take(&mut *late.lock().expect("no panic"));
    late.sort_unstable();
    Some(Outcome { late_us: Some(late[late.len() / 2].as_secs_f64() * 1e6), ..outcome })
}

/// Moves a read deadline to a later time, in a loop, without reading the clock. Of the Rust
/// runtimes here, only netpoll has read deadlines.
async fn deadline_later() -> Outcome {
    const MOVES: u32 = 2_000_000;
    let listener = netpoll::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let stream = netpoll::net::TcpStream::connect(addr).await.expect("a connection");
    let mut at = Instant::now() + Duration::from_secs(60);
    stream.set_read_deadline(at).expect("an open socket");
    measured(MOVES, async {
        for _ in 0..MOVES {
            at += Duration::from_nanos(100);
            stream.set_read_deadline(at).expect("an open socket");
        }
    })
    .await
}

/// The names of the cases. `yield` has 64 tasks, and `yield-N` has N tasks. Some values of N are
/// close to 256, the initial capacity of a run queue of netpoll, and others are far above it.
const CASES: &[&str] = &[
    "spawn-join",
    "yield",
    "yield-255",
    "yield-256",
    "yield-257",
    "yield-512",
    "yield-8000",
    "ping-pong",
    "arm-and-cancel",
    "deadline-later",
    "sleepers",
];
/// The names of the runtimes, in the order of the table.
const RUNTIMES: &[&str] = &["bare", "bare-threads", "netpoll", "tokio", "tokio-current", "smol", go::NAME];

/// Runs a case on a runtime. Returns `None` if the runtime does not have the case.
fn run<R: Runtime>(case: &str) -> Option<Outcome> {
    let (send, receive) = std::sync::mpsc::channel();
    let case = case.to_owned();
    let is_netpoll = std::any::TypeId::of::<R>() == std::any::TypeId::of::<Netpoll>();
    R::block_on(async move {
        let outcome = match case.as_str() {
            "spawn-join" => Some(spawn_join::<R>().await),
            "yield" => Some(yields::<R>(64).await),
            "ping-pong" => Some(ping_pong::<R>().await),
            "arm-and-cancel" => arm_and_cancel::<R>().await,
            "sleepers" => sleepers::<R>().await,
            "deadline-later" if is_netpoll => Some(deadline_later().await),
            other => match other.strip_prefix("yield-").and_then(|tasks| tasks.parse().ok()) {
                Some(tasks) => Some(yields::<R>(tasks).await),
                None => None,
            },
        };
        let _ = send.send(outcome);
    });
    receive.recv().ok().flatten()
}

/// Makes one measurement in this process, which is a child process. Prints the CPU time in
/// nanoseconds and the lateness in microseconds (−1 if there is none), or `none` if the runtime
/// does not have the case.
fn measure(runtime: &str, case: &str) -> Result<(), String> {
    let cpus = sys::allowed_cpus().map_err(|error| error.to_string())?;
    if let Some(&last) = cpus.last() {
        sys::pin_to(last).map_err(|error| error.to_string())?;
    }
    let outcome = match runtime {
        go::NAME => return Err(go::execute(["-micro", case]).to_string()),
        "bare" => run::<Bare>(case),
        "bare-threads" => {
            std::thread::spawn(std::thread::park);
            run::<Bare>(case)
        }
        "netpoll" => run::<Netpoll>(case),
        "tokio" => run::<Tokio<true>>(case),
        "tokio-current" => run::<Tokio<false>>(case),
        "smol" => run::<Smol>(case),
        _ => return Err(format!("unknown runtime {runtime}")),
    };
    match outcome {
        Some(outcome) => println!("{} {}", outcome.cpu_ns, outcome.late_us.unwrap_or(-1.0)),
        None => println!("none"),
    }
    Ok(())
}

/// Starts a child process that makes one measurement. Returns its two figures, or `None` if the
/// runtime does not have the case.
fn ask(runtime: &str, case: &str) -> Result<Option<(f64, f64)>, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(own)
        .args(["--run", runtime, "--case", case])
        .envs([("NETPOLL_THREADS", "1"), ("SMOL_THREADS", "1")])
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{runtime}, {case}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    Ok(match (numbers.next(), numbers.next()) {
        (Some(Ok(cpu)), Some(Ok(late))) => Some((cpu, late)),
        _ => None,
    })
}

/// Returns the median, or the upper of the two middle values if their number is even.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the names in `asked`, or all known names if it is empty.
///
/// # Errors
/// Returns an error if a name is not known.
fn chosen(known: &[&str], asked: Vec<String>, what: &str) -> Result<Vec<String>, String> {
    match asked.iter().find(|name| !known.contains(&name.as_str())) {
        Some(wrong) => Err(format!("{what} `{wrong}` is not one of {known:?}")),
        None if asked.is_empty() => Ok(known.iter().map(|name| (*name).to_owned()).collect()),
        None => Ok(asked),
    }
}

fn try_main() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    if let Some(runtime) = arguments.optional::<String>("run")? {
        let case: String = arguments.optional("case")?.ok_or("--case is required")?;
        arguments.finish()?;
        return measure(&runtime, &case);
    }
    let cases = chosen(CASES, arguments.list("case")?, "case")?;
    let runtimes = chosen(RUNTIMES, arguments.list("only")?, "runtime")?;
    let rounds: usize = arguments.value("rounds", 5)?.max(1);
    arguments.finish()?;
    let mut runtimes = runtimes;
    if runtimes.iter().any(|name| name == go::NAME)
        && let Err(error) = go::build()
    {
        runtimes.retain(|name| name != go::NAME);
        eprintln!("{error}");
    }
    println!(
        "Nanoseconds of CPU time per operation with one worker, as medians over {rounds} rounds. In brackets: the \
         ratio to `bare`, which is async-task with a plain queue. For sleepers, also the median lateness.\n"
    );
    println!("| | {} |\n|---|{}", runtimes.join(" | "), "---:|".repeat(runtimes.len()));
    for case in &cases {
        let mut figures: Vec<Vec<(f64, f64)>> = vec![Vec::new(); runtimes.len()];
        for _ in 0..rounds {
            for (runtime, figures) in runtimes.iter().zip(&mut figures) {
                figures.extend(ask(runtime, case)?);
            }
        }
        let bare = runtimes.iter().position(|name| name == "bare").filter(|&at| !figures[at].is_empty());
        let bare = bare.map(|at| median(figures[at].iter().map(|figure| figure.0).collect()));
        let cells = figures.into_iter().map(|figures| match figures.first() {
            None => "–".to_owned(),
            Some(&(_, late)) => {
                let cpu = median(figures.iter().map(|figure| figure.0).collect());
                let late = (late >= 0.0).then(|| median(figures.iter().map(|figure| figure.1).collect()));
                match (late, bare) {
                    (Some(late), _) => format!("{cpu:.0}, {late:.0} µs late"),
                    (None, Some(bare)) => format!("{cpu:.1} ({:.2})", cpu / bare),
                    (None, None) => format!("{cpu:.1}"),
                }
            }
        });
        println!("| {case} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

fn main() -> ExitCode {
    match try_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("micro: {error}");
            ExitCode::FAILURE
        }
    }
}
