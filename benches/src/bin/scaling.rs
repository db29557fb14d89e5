//! Measures the cost of accesses to the runtime's shared state, and models more cores than this
//! machine has.
//!
//! ```text
//! scaling [--cores 2,16,64,192] [--request-ns 4300] [--event-ns 180] [--transfer-ns 100]
//!         [--think-us 30] [--write FILE]
//! ```
//!
//! For each shared state, the measurement makes the atomic operations of the runtime on a similar
//! data structure, without the runtime's logic. It does so with one thread, and with two threads at
//! once if there are two CPUs. Each thread is pinned to a CPU.
//!
//! In the model, cores serve requests of a fixed cost. A core takes requests from pollers and
//! steals requests from other cores. Only one core at a time may hold a poller. The options set the
//! numbers of cores and the costs (`Costs`).
//!
//! The program prints both results in Markdown. With `--write`, it also writes them into a
//! document, between two markers. docs/SCALING.md has the results and the conclusions. If the
//! program fails, it prints the error to standard error and exits with status 1.

use netpoll_bench::arguments::Arguments;
use netpoll_bench::compare::document;
use netpoll_bench::sys::{self, Epoll, NO_EVENT};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Barrier, Mutex};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scaling: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    let mut cores: Vec<usize> = arguments.list("cores")?;
    if cores.is_empty() {
        cores = vec![2, 16, 64, 192];
    }
    let costs = Costs {
        request: arguments.value("request-ns", 4_300)?,
        event: arguments.value("event-ns", 180)?,
        transfer: arguments.value("transfer-ns", 100)?,
        think: arguments.value("think-us", 30_u64)? * 1_000,
        ..Costs::DEFAULT
    };
    let document: Option<PathBuf> = arguments.optional("write")?;
    arguments.finish()?;
    let text = format!("{}{}", touches().map_err(|error| error.to_string())?, simulate(&cores, costs));
    println!("{text}");
    document.map_or(Ok(()), |file| document::write(&file, &text))
}

// ---- the cost of an access ----

/// A value on its own cache lines.
#[repr(align(128))]
struct Line<T>(T);

/// The number of entries in the timer set, for a million connections with a deadline.
const ENTRIES: u64 = 1_000_000;
/// The number of timer sets, one per core of a large machine.
const SETS: usize = 192;

/// A timer set. An entry consists of a time and a target.
type Heap = BinaryHeap<Reverse<(u64, u64)>>;

/// Data structures similar to the shared state of the runtime.
struct Shared {
    role: Line<AtomicBool>,
    awake: Line<AtomicU64>,
    injected: Line<AtomicUsize>,
    injector: Line<Mutex<VecDeque<usize>>>,
    free: Line<AtomicU64>,
    links: Vec<AtomicU32>,
    heap: Line<Mutex<Heap>>,
    next: Vec<Line<AtomicU64>>,
    idle: Line<Mutex<Vec<usize>>>,
    descriptors: Line<AtomicUsize>,
    epoll: Epoll,
}

impl Shared {
    fn new() -> std::io::Result<Shared> {
        Ok(Shared {
            role: Line(AtomicBool::new(false)),
            awake: Line(AtomicU64::new(2)),
            injected: Line(AtomicUsize::new(0)),
            injector: Line(Mutex::default()),
            free: Line(AtomicU64::new(1)),
            links: (0..4096_u32).map(|link| AtomicU32::new((link + 2) % 4097)).collect(),
            heap: Line(Mutex::new((0..ENTRIES).map(|at| Reverse((at * 7_919 % ENTRIES, at))).collect())),
            next: (0..SETS).map(|_| Line(AtomicU64::new(u64::MAX))).collect(),
            idle: Line(Mutex::default()),
            descriptors: Line(AtomicUsize::new(0)),
            epoll: Epoll::new()?,
        })
    }

    /// Makes the accesses of `Role::try_take` and `Role::release`.
    fn role(&self) {
        if !self.role.0.load(Ordering::Relaxed)
            && self.role.0.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        {
            self.role.0.swap(false, Ordering::SeqCst);
        }
    }

    /// Makes the accesses of `Awake::down` and `Awake::up`.
    fn awake(&self) {
        for by in [u64::MAX, 1] {
            let mut word = self.awake.0.load(Ordering::Relaxed);
            while let Err(now) =
                self.awake.0.compare_exchange_weak(word, word.wrapping_add(by), Ordering::SeqCst, Ordering::Relaxed)
            {
                word = now;
            }
        }
    }

    /// Makes the accesses of `Runtime::ensure_worker` while a worker is awake, except the load of
    /// the number of stuck threads.
    fn ensure_worker(&self) {
        fence(Ordering::SeqCst);
        black_box(self.awake.0.load(Ordering::SeqCst));
    }

    /// Loads the length of the shared queue. `Runtime::injected` also loads that of the control
    /// lane.
    fn look(&self) {
        black_box(self.injected.0.load(Ordering::SeqCst));
    }

    /// Pushes a task to the shared queue and pops one.
    fn inject(&self) {
        for is_push in [true, false] {
            let mut queue = self.injector.0.lock().expect("no thread panics");
            if is_push {
                queue.push_back(1);
            } else {
                black_box(queue.pop_front());
            }
            self.injected.0.store(queue.len(), Ordering::SeqCst);
        }
    }

    /// Makes the accesses of `PollCache::alloc` and `PollCache::free`.
    fn slot(&self) {
        let index = loop {
            let head = self.free.0.load(Ordering::Acquire);
            let Some(index) = (head as u32).checked_sub(1) else { return };
            let next = u64::from(self.links[index as usize].load(Ordering::Relaxed));
            let pops = (head >> 32).wrapping_add(1) << 32;
            if self.free.0.compare_exchange_weak(head, pops | next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                break index;
            }
        };
        let mut head = self.free.0.load(Ordering::Relaxed);
        loop {
            self.links[index as usize].store(head as u32, Ordering::Release);
            let next = head & !u64::from(u32::MAX) | u64::from(index + 1);
            match self.free.0.compare_exchange_weak(head, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Pushes an entry to a timer set of a million entries and pops the first one.
    fn timer(&self, step: u64) {
        let mut heap = self.heap.0.lock().expect("no thread panics");
        heap.push(Reverse((step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ENTRIES, step)));
        black_box(heap.pop());
        self.next[0].0.store(step, Ordering::SeqCst);
    }

    /// Stores a time in the first timer set, as a core that arms a timer does, and finds the
    /// earliest time of all sets, as `Runtime::next_timer` does.
    fn sets(&self, step: u64) {
        self.next[0].0.store(step, Ordering::SeqCst);
        black_box(self.next.iter().map(|next| next.0.load(Ordering::SeqCst)).min());
    }

    /// Pushes a thread to the idle list and pops one, as `Runtime::give_back` and
    /// `Runtime::wake_one` do.
    fn rest(&self) {
        self.idle.0.lock().expect("no thread panics").push(1);
        black_box(self.idle.0.lock().expect("no thread panics").pop());
    }

    /// Increments and decrements the number of descriptors.
    fn count(&self) {
        self.descriptors.0.fetch_add(1, Ordering::Relaxed);
        self.descriptors.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A function that makes one access. The second argument is the number of accesses that the thread
/// has made before.
type Touch = fn(&Shared, u64);

/// Measures all accesses. Returns the table.
fn touches() -> std::io::Result<String> {
    let cpus = sys::allowed_cpus()?;
    let shared = Shared::new()?;
    let cases: [(&str, &str, u64, Touch); 10] = [
        ("poller role: take, release", "a sleep, a poll", 400_000, |shared, _| shared.role()),
        ("awake count: down, up", "a sleep", 400_000, |shared, _| shared.awake()),
        (
            "ensure_worker: fence, load of the awake count",
            "a wake-up by a thread without a processor",
            400_000,
            |shared, _| shared.ensure_worker(),
        ),
        ("shared queue: check", "at least every 17th turn; a lack of work", 400_000, |shared, _| shared.look()),
        ("shared queue: push, pop", "a wake-up by a thread without a processor", 200_000, |shared, _| shared.inject()),
        ("poll cache: alloc, free", "a connection", 200_000, |shared, _| shared.slot()),
        ("timer set of 1,000,000: push, pop", "a timer armed", 100_000, |shared, step| shared.timer(step)),
        ("192 timer sets: store one, find the earliest", "a sleep", 20_000, |shared, step| shared.sets(step)),
        ("idle list: push, pop", "a rest, a wake-up", 200_000, |shared, _| shared.rest()),
        ("descriptor count: up, down", "a connection", 400_000, |shared, _| shared.count()),
    ];
    let mut text =
        "CPU time per access in ns. One thread: the least of 7 rounds. Two threads at once: the median of 7 rounds, per thread.\n\n\
                    | shared state | accessed by | one thread | two threads | ratio |\n|---|---|---:|---:|---:|\n"
            .to_owned();
    for (name, when, count, touch) in cases {
        text += &row(name, when, &cpus, count, |step, _| touch(&shared, step))?;
    }
    let own = [Epoll::new()?, Epoll::new()?];
    let pipes = [std::io::pipe()?, std::io::pipe()?];
    let register = |epoll: &Epoll, thread: usize| {
        use std::os::fd::AsRawFd;
        let fd = pipes[thread].0.as_raw_fd();
        // Neither call is expected to fail: the descriptor belongs to this thread, and is
        // registered once.
        let _ = epoll.add(fd, libc::EPOLLIN | libc::EPOLLET, 1);
        let _ = epoll.delete(fd);
    };
    text += &row("one epoll instance: add, delete", "a connection (add)", &cpus, 20_000, |_, thread| {
        register(&shared.epoll, thread)
    })?;
    text +=
        &row("one instance per thread: add, delete", "–", &cpus, 20_000, |_, thread| register(&own[thread], thread))?;
    Ok(format!("{text}\nepoll_wait(2): {:.0} ns per event in batches of 256\n\n", event_cost()?))
}

/// Measures an access. Returns its row of the table.
fn row(
    name: &str,
    when: &str,
    cpus: &[usize],
    count: u64,
    touch: impl Fn(u64, usize) + Sync,
) -> std::io::Result<String> {
    const ROUNDS: usize = 7;
    let mut alone = f64::MAX;
    let mut together = Vec::new();
    for _ in 0..ROUNDS {
        alone = alone.min(by_threads(&cpus[..1], count, &touch)?);
        if cpus.len() > 1 {
            together.push(by_threads(&cpus[..2], count, &touch)?);
        }
    }
    together.sort_by(f64::total_cmp);
    Ok(match together.get(ROUNDS / 2) {
        Some(both) => format!("| {name} | {when} | {alone:.1} | {both:.1} | {:.1} |\n", both / alone),
        None => format!("| {name} | {when} | {alone:.1} | – | – |\n"),
    })
}

/// Runs a thread on each of `cpus`. Returns the mean CPU time per access in nanoseconds.
fn by_threads(cpus: &[usize], count: u64, touch: &(impl Fn(u64, usize) + Sync)) -> std::io::Result<f64> {
    let barrier = Barrier::new(cpus.len());
    let nanos = std::thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .enumerate()
            .map(|(thread, &cpu)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    sys::pin_to(cpu)?;
                    barrier.wait();
                    let before = sys::thread_cpu_ns()?;
                    for step in 0..count {
                        touch(step, thread);
                    }
                    Ok(sys::thread_cpu_ns()? - before)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        joined.sum::<std::io::Result<u64>>()
    })?;
    Ok(nanos as f64 / count as f64 / cpus.len() as f64)
}

/// Returns the CPU time of epoll_wait(2) per event in nanoseconds, for level-triggered pipes that
/// contain a byte.
fn event_cost() -> std::io::Result<f64> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    const EVENTS: usize = 256;
    let epoll = Epoll::new()?;
    let mut pipes = Vec::with_capacity(EVENTS);
    for _ in 0..EVENTS {
        let (reader, mut writer) = std::io::pipe()?;
        writer.write_all(&[1])?;
        epoll.add(reader.as_raw_fd(), libc::EPOLLIN, 1)?;
        pipes.push((reader, writer));
    }
    let mut events = [NO_EVENT; EVENTS];
    let mut least = f64::MAX;
    for _ in 0..7 {
        let before = sys::thread_cpu_ns()?;
        let mut taken = 0;
        for _ in 0..200 {
            taken += epoll.wait(&mut events, 0)?;
        }
        least = least.min((sys::thread_cpu_ns()? - before) as f64 / taken.max(1) as f64);
    }
    Ok(least)
}

// ---- the model ----

/// The costs of the model, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// The cost of a request, which consists of a read, the user's code and a write.
    request: u64,
    /// The cost of an event in the kernel, in the readiness word and in the wake-up. The poller is
    /// held for this time.
    event: u64,
    /// The fixed cost of a poll, in addition to that of its events and to `transfer`.
    poll: u64,
    /// The cost of transferring a cache line from another core. A steal transfers three lines. A
    /// poll transfers one line for the poller role, and one line twice for the count of awake
    /// threads, unless the count is sharded.
    transfer: u64,
    /// The time that the wake-up of a resting thread takes.
    wake: u64,
    /// The time from an answer to the next request of the same connection.
    think: u64,
}

impl Costs {
    const DEFAULT: Costs = Costs { request: 4_300, event: 180, poll: 700, transfer: 100, wake: 5_000, think: 30_000 };
}

/// The maximum number of events per poll, as `EVENTS_MAX` of the runtime.
const BATCH: usize = 1024;
/// The number of connections per core, which suffices to keep the core busy.
const CONNECTIONS: usize = 64;
/// The simulated time of a run, in nanoseconds.
const SPAN: u64 = 20_000_000;

/// The result of a run of the model.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// The number of requests served.
    requests: u64,
    /// The share of the time for which the busiest poller was held, from 0 to 1.
    held: f64,
}

/// Runs the model for each number of cores. Returns the table.
fn simulate(cores: &[usize], costs: Costs) -> String {
    let mut text = format!(
        "Costs: {} ns per request, {} ns per event while the role is held, {} ns per transfer of a cache line. \
         {CONNECTIONS} connections per core, {} µs from an answer to the next request. A cell has the throughput in \
         million requests/s and, in brackets, its share of the cores' capacity and the share of the time for which \
         the busiest poller is held.\n\n",
        costs.request,
        costs.event,
        costs.transfer,
        costs.think / 1_000
    );
    type Pollers = fn(usize) -> usize;
    let shards: [(&str, Pollers, bool); 5] = [
        ("one poller", |_| 1, true),
        ("one per 16 cores", |cores| cores.div_ceil(16), true),
        ("one per 4 cores", |cores| cores.div_ceil(4), true),
        ("one per core", |cores| cores, true),
        ("one per core, `awake` sharded too", |cores| cores, false),
    ];
    let head: Vec<&str> = shards.iter().map(|(name, ..)| *name).collect();
    let _ = writeln!(text, "| cores | {} |\n|---:|{}", head.join(" | "), "---:|".repeat(shards.len()));
    for &count in cores {
        let cells = shards.iter().map(|&(_, pollers, counts_together)| {
            let outcome = play(count, pollers(count), counts_together, costs);
            let rate = outcome.requests as f64 / SPAN as f64 * 1e3;
            let ideal = count as f64 / (costs.request + costs.event) as f64 * 1e3;
            format!("{rate:.2} ({:.0} %; {:.0} %)", rate / ideal * 100.0, outcome.held * 100.0)
        });
        let _ = writeln!(text, "| {count} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

/// A poller.
#[derive(Debug, Default)]
struct Poller {
    /// The time at which the poller becomes free.
    free_at: u64,
    /// The total time for which the poller was held.
    held: u64,
    /// The times at which its connections become ready.
    ready: BinaryHeap<Reverse<u64>>,
}

/// Simulates a time of [`SPAN`]. In each step, the core that is earliest in time runs a task of its
/// queue. If the queue is empty, the core polls, steals half of the fullest queue, or rests. If
/// `counts_together` is true, all cores that poll decrement and increment the same word, one core
/// at a time.
fn play(cores: usize, pollers: usize, counts_together: bool, costs: Costs) -> Outcome {
    let mut shards: Vec<Poller> = (0..pollers).map(|_| Poller::default()).collect();
    for connection in 0..cores * CONNECTIONS {
        // All connections send their first request within the first think time.
        let at = connection as u64 * 7_919 % costs.think.max(1);
        shards[connection % pollers].ready.push(Reverse(at));
    }
    // A task is represented by its shard.
    let mut queues: Vec<VecDeque<usize>> = vec![VecDeque::new(); cores];
    let mut line_free = vec![0_u64; cores];
    let mut clock: BinaryHeap<Reverse<(u64, usize)>> = (0..cores).map(|core| Reverse((0, core))).collect();
    let (mut requests, mut word_free) = (0, 0_u64);
    while let Some(Reverse((now, core))) = clock.pop() {
        if now >= SPAN {
            break;
        }
        let then = if let Some(shard) = queues[core].pop_front() {
            let done = now + costs.request;
            shards[shard].ready.push(Reverse(done + costs.think));
            requests += 1;
            done
        } else if let Some(got) = poll(&mut shards, core, now, costs) {
            queues[core].extend(std::iter::repeat_n(got.shard, got.events));
            if counts_together {
                word_free = got.until.max(word_free) + 2 * costs.transfer;
                word_free
            } else {
                got.until
            }
        } else if let Some(victim) = fullest(&queues, costs) {
            let moved = queues[victim].len().div_ceil(2);
            let stolen: Vec<usize> = queues[victim].drain(..moved).collect();
            queues[core].extend(stolen);
            // Thieves of the same victim wait for its cache line.
            let begin = now.max(line_free[victim]);
            line_free[victim] = begin + 3 * costs.transfer;
            line_free[victim]
        } else {
            // The core rests for the time of a wake-up, and then tries again.
            now + costs.wake
        };
        clock.push(Reverse((then, core)));
    }
    let held = shards.iter().map(|shard| shard.held).max().unwrap_or(0);
    Outcome { requests, held: (held as f64 / SPAN as f64).min(1.0) }
}

/// The result of a poll: the shard, the number of events, and the time at which the poll ends.
struct Got {
    shard: usize,
    events: usize,
    until: u64,
}

/// Polls the first poller that is free and has events, beginning with the core's own. Returns
/// `None` if there is none.
fn poll(shards: &mut [Poller], core: usize, now: u64, costs: Costs) -> Option<Got> {
    let count = shards.len();
    let own = core % count;
    let shard = (0..count).map(|step| (own + step) % count).find(|&shard| {
        let shard = &shards[shard];
        shard.free_at <= now && shard.ready.peek().is_some_and(|Reverse(at)| *at <= now)
    })?;
    let poller = &mut shards[shard];
    let mut events = 0;
    while events < BATCH && poller.ready.peek().is_some_and(|Reverse(at)| *at <= now) {
        poller.ready.pop();
        events += 1;
    }
    let length = costs.transfer + costs.poll + events as u64 * costs.event;
    poller.free_at = now + length;
    poller.held += length;
    Some(Got { shard, events, until: now + length })
}

/// Returns the core with the fullest queue, if the work in this queue takes at least 50 µs
/// (`STEAL_NANOS` of the runtime).
fn fullest(queues: &[VecDeque<usize>], costs: Costs) -> Option<usize> {
    let (victim, queue) = queues.iter().enumerate().max_by_key(|(_, queue)| queue.len())?;
    (queue.len() as u64 * costs.request >= 50_000).then_some(victim)
}
