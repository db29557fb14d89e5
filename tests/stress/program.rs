//! A program describes one run of the stress test as data.
//!
//! A program has a configuration of the runtime, events that happen while the actors run
//! (shutdowns, refused threads, snapshots), and actors. An actor is a sequence of actions on a
//! host: a task, a thread inside `block_on`, a thread of another executor, and so on. Every action
//! ends by itself, so the other actions still end when any action or actor is removed. Shrinking
//! and the oracle rely on this. Every action has its own connections and peers, except that the
//! actions `Use` and `Shut` of all actors share connections.
//!
//! # Text
//! The text has one line per part: `config …`, `event …`, `actor HOST`, and below each actor its
//! actions. `Program::from_str` parses the output of `Display`, and ignores blank lines and lines
//! that begin with `#`. An unknown action is an error, so a program that is kept in the source
//! stays valid or fails visibly.

use std::fmt;
use std::str::FromStr;

use crate::words::{Bytes, Few, Many, Ms, Polls, Word};
use crate::{actions, words};

words! {
    /// The place where an actor runs.
    Host {
        /// A spawned task.
        Task,
        /// `block_on` on a separate thread.
        Root,
        /// Another executor on a separate thread.
        Foreign,
        /// `block_on` on the main thread. A second such actor runs on a separate thread.
        Main,
        /// `block_on` within a spawned task.
        Nested,
        /// `block_on` within `spawn_blocking`.
        Pool,
        /// A local task of a `block_on`.
        Local,
        /// `block_on` within `block_on`.
        Inner,
    }

    /// The place where the peer of an action runs.
    Party {
        /// The same task, joined with the actor's side.
        Joined,
        Task,
        /// A thread with another executor.
        Foreign,
        /// A thread inside `block_on`.
        Root,
        /// A call of `spawn_blocking` with another executor.
        Pool,
    }

    /// Whether a thread inside `block_on` runs tasks.
    RootMode { Default, No, Yes }

    /// The rate at which threads are stopped at arbitrary instructions.
    Preempt { Off, Light, Heavy }

    /// The way in which a sleep is created, and then reset, dropped, raced or moved to a task.
    SleepHow { Plain, Until, Past, Earlier, Later, Dropped, Raced, Moved }
    /// The future that a loop awaits. It completes without waiting.
    DueHow { Zero, Past, Interval, Nanosecond, Timeout, Literal }
    /// Whether a task ends by itself or is cancelled.
    End { Finish, Cancel }
    /// The future under a timeout.
    TimeoutOf { Pending, Ready, Shorter, Longer, Read }
    /// The state of a task when it is cancelled.
    CancelState { Queued, Yielding, Sleeping, Reading, Due, Finished, Itself }
    /// The effect of a read's waker.
    WakeAct { Block, BlockOn, Spawn, Close, Read }
    /// The future of each `block_on` of a crowd.
    CrowdOf { Sleep, Join, Read, Yield }
    /// The cause that ends the wait in a nested `block_on`.
    WokenBy { Timer, Task, Foreign, Socket }
    /// The sender of the messages for which tasks block their threads.
    Sender { Own, Task, Foreign, Pool }
    /// The await across which a root holds a lock.
    GuardWait { Yield, Sleep, Read }
    /// The operation of a task that computes in each of its turns.
    ComputeOp { Read, Write, Accept, SendTo, RecvFrom, UnixRead, Joined, Sleep }
    /// The end of a chain of tasks. With `Left`, the chain is left for a shutdown to drop.
    ChainEnd { Finish, Cancel, Left }
    /// The effect of the destructor of a task-local value.
    LocalKind { Plain, UsesOther, UsesOwn, Spawns, Panics }
    /// The code that panics.
    PanicPlace { Task, Detached, Waker, Destructor, Pool, PoolDestructor, Root, Output, Local }
    /// The effect of a destructor.
    DropAct { Nothing, Spawn, Sleep, SpawnJoin, Socket, Panic, Cancel, Yield }
    /// The place of the value with the destructor: in a task that is cancelled, ends, is detached
    /// or is left for a shutdown to drop, or in the output of a task.
    DropPlace { Cancelled, Ended, Detached, Output, Left }

    Stream { Tcp, Unix, Pipe }
    Datagram { Udp, Unix }
    /// An operation that only a deadline or a timeout ends. `Queued` waits for a lock.
    WaitOp { Read, Write, Readable, PollRead, Accept, RecvFrom, Queued }
    /// The way in which a deadline or a timeout is set.
    DeadlineHow { Before, Past, During, Moved, MovedEarlier, Cleared, Relative, RelativeAgain }
    /// An operation that is polled with a new waker each time. With `LockedRead` and `LockedWrite`,
    /// another operation holds the lock.
    PollOp { Read, Readable, Write, LockedRead, LockedWrite, RecvFrom, Join, Sleep }

    /// An operation on a shared connection. `Hold` is a read that is polled once and dropped later.
    /// `Copies` is a read of a task that has a clone of the connection.
    SharedOp { Read, Write, Readable, Peek, PollRead, PollWrite, PeerClosed, Hold, Copies }
    /// The bound by which an operation on a shared connection ends.
    Bound { Drop, Deadline, Timeout, Race }
    /// The way in which a shared connection is closed or changed.
    SharedEnd { Close, CloseBoth, Drop, Finish, Clear, Move }

    /// The caller of `shutdown`.
    By { Thread, Two, Task, Destructor, Pool, Root }
    /// The way in which the runtime is started again after a shutdown.
    Restart { Use, Builder, Other, Later }
    /// The effect of the destructor of a thread-local value that a task leaves behind.
    Residue { None, Sleep, Spawn, Shutdown }
}

actions! {
    /// An action of an actor. The number before an action is its weight.
    Action {
        // ---- timers ----
        40 Sleep { ms: Ms, how: SleepHow },
        /// Loops over timers that are already due or over look-ups of a literal address, while
        /// another task runs.
        20 Due { rounds: Many, how: DueHow, end: End },
        15 Interval { ms: Ms, ticks: Few },
        25 Timeout { ms: Ms, of: TimeoutOf },
        20 Sleeps { tasks: Many, ms: Ms },
        // ---- tasks ----
        30 Join { tasks: Many, yields: Few },
        20 Detach { tasks: Many },
        40 Cancel { tasks: Few, state: CancelState },
        20 Pool { calls: Few, ms: Ms },
        /// Nested calls of `block_on` within a task. The task then blocks until a task that it has
        /// spawned sends a message.
        30 Nested { depth: Few, ms: Ms, woken: WokenBy },
        /// Tasks that each call `block_on`.
        10 Crowd { tasks: Many, of: CrowdOf, ms: Ms },
        /// Tasks that block their threads on a channel.
        40 Recv { tasks: Few, sender: Sender, ms: Ms },
        /// A root that holds a lock across an await, while tasks take the lock.
        30 Guard { rounds: Many, wait: GuardWait },
        /// A task that computes in each of its turns before its operation.
        40 Compute { ms: Ms, op: ComputeOp },
        /// Tasks that always yield, during an echo.
        20 Yield { tasks: Many, echoes: Few },
        /// Tasks, each of which awaits the task spawned before it.
        10 Chain { tasks: Many, end: ChainEnd },
        /// Tasks with a task-local value.
        25 Locals { tasks: Few, kind: LocalKind },
        30 Panic { place: PanicPlace },
        30 Destructor { act: DropAct, place: DropPlace },
        /// Blocks the actor's own thread.
        5 Pause { ms: Ms },
        /// Blocks the actor's own thread within a turn and then spawns a task. A restart may happen
        /// in between.
        15 Stall { ms: Ms },
        /// A task that blocks its thread and then wakes another task, which was spawned later.
        15 Bridge { ms: Ms },
        /// Threads that wake one future repeatedly. No wake-up may be lost.
        25 Wakes { threads: Few, wakes: Many },
        /// Wakers that outlive their task.
        10 Stale { tasks: Few, wakes: Few },
        /// Many threads in `block_on`, each with a connection and a timer.
        15 Roots { threads: Many, ms: Ms },
        // ---- sockets ----
        40 Echo { stream: Stream, peer: Party, bytes: Bytes, rounds: Few },
        /// A half close: the actor's side shuts down its sending direction and then reads the
        /// answer.
        20 Half { stream: Stream, peer: Party, bytes: Bytes },
        /// Operations that wait when their end of the connection is closed. Then the slot is used
        /// again.
        40 Close { stream: Stream, waiters: Few, by: Party, ms: Ms },
        50 Deadline { op: WaitOp, how: DeadlineHow, by: Party, ms: Ms },
        /// Reads with a timeout, one per round. A thread closes the reading end at about the time
        /// when the read begins. The socket of the next round usually gets the same slot.
        40 Reuse { stream: Stream, rounds: Many, ms: Ms },
        /// A read with a waker whose destructor closes the reading end. The slot's next owner has a
        /// timeout.
        15 Closer { stream: Stream, ms: Ms },
        30 Accept { dials: Few, by: Party, ms: Ms },
        20 Datagrams { kind: Datagram, count: Few, by: Party },
        /// Polls, each with a new waker.
        30 Wakers { polls: Polls, op: PollOp },
        /// A single poll, made after the kernel has received the end of a stream. The poll must see
        /// the end.
        10 Liveness { stream: Stream },
        /// Tasks that transfer bytes without a pause, while another task runs.
        20 Greedy { stream: Stream, tasks: Few, bytes: Bytes },
        /// A connection that is used again later, perhaps after a restart of the runtime.
        20 Survive { stream: Stream, ms: Ms },
        /// A waker that does more than wake, during another read.
        20 Waker { act: WakeAct },
        /// A dial by name while the blocking pool is busy.
        5 Names { calls: Few, ms: Ms },
        // ---- connections that several actors use ----
        120 Use { slot: Few, op: SharedOp, bound: Bound, ms: Ms },
        40 Shut { slot: Few, how: SharedEnd, ms: Ms },
    }
}

actions! {
    /// An event that happens while the actors run.
    Event {
        10 Shutdown { after: Ms, timeout: Ms, by: By, restart: Restart, residue: Residue },
        /// The next `threads` calls of pthread_create(3) fail. Calls that create threads of the
        /// stress test or of actors do not fail and do not count.
        10 Refuse { after: Ms, threads: Few },
        /// Takes snapshots in a loop, while its own tasks and sockets are created and dropped.
        10 Inspect { after: Ms, looks: Many },
    }
}

/// The settings of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub workers: u64,
    pub spares: u64,
    /// The number of threads for blocking calls.
    pub blocking: u64,
    pub root: RootMode,
    /// The maximum time for which the function for reports of blocked tasks runs. With 0, no
    /// function is set.
    pub report: Ms,
    pub preempt: Preempt,
    /// The bound on lateness. 0 stands for the default.
    pub late: Ms,
    /// The number of threads that are refused from the start.
    pub refuse: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub host: Host,
    pub actions: Vec<Action>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub config: Config,
    pub events: Vec<Event>,
    pub actors: Vec<Actor>,
}

impl Program {
    /// Returns whether the runtime may be shut down while actors run, so that tasks may be dropped
    /// and operations may fail.
    pub fn is_stormy(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Shutdown { .. }))
    }

    /// Returns the number of parts, as a measure for shrinking.
    pub fn parts(&self) -> usize {
        self.events.len() + self.actors.iter().map(|actor| 1 + actor.actions.len()).sum::<usize>()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            workers: 2,
            spares: 64,
            blocking: 256,
            root: RootMode::Default,
            report: Ms(0),
            preempt: Preempt::Off,
            late: Ms(0),
            refuse: 0,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { workers, spares, blocking, root, report, preempt, late, refuse } = self;
        write!(f, "workers={workers} spares={spares} blocking={blocking} root={} ", root.write())?;
        write!(f, "report={} preempt={} late={} refuse={refuse}", report.write(), preempt.write(), late.write())
    }
}

impl FromStr for Config {
    type Err = String;

    fn from_str(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        for part in text.split_whitespace() {
            let (name, value) = part.split_once('=').ok_or(format!("`{part}` is not a setting"))?;
            fn put<T>(place: &mut T, value: Option<T>, part: &str) -> Result<(), String> {
                *place = value.ok_or(format!("`{part}` has no such value"))?;
                Ok(())
            }
            match name {
                "workers" => put(&mut config.workers, value.parse().ok(), part)?,
                "spares" => put(&mut config.spares, value.parse().ok(), part)?,
                "blocking" => put(&mut config.blocking, value.parse().ok(), part)?,
                "root" => put(&mut config.root, Word::read(value), part)?,
                "report" => put(&mut config.report, Word::read(value), part)?,
                "preempt" => put(&mut config.preempt, Word::read(value), part)?,
                "late" => put(&mut config.late, Word::read(value), part)?,
                "refuse" => put(&mut config.refuse, value.parse().ok(), part)?,
                _ => return Err(format!("`{part}` is not a setting")),
            }
        }
        Ok(config)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "config {}", self.config)?;
        self.events.iter().try_for_each(|event| writeln!(f, "event {event}"))?;
        for actor in &self.actors {
            writeln!(f, "actor {}", actor.host.write())?;
            actor.actions.iter().try_for_each(|action| writeln!(f, "    {action}"))?;
        }
        Ok(())
    }
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Program, String> {
        let mut program = Program { config: Config::default(), events: Vec::new(), actors: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("config", rest) => program.config = rest.parse()?,
                ("event", rest) => program.events.push(rest.parse()?),
                ("actor", host) => {
                    let host = Host::read(host).ok_or(format!("`{host}` is not a host"))?;
                    program.actors.push(Actor { host, actions: Vec::new() });
                }
                _ => {
                    let actor = program.actors.last_mut().ok_or(format!("`{line}` has no actor"))?;
                    actor.actions.push(line.parse()?);
                }
            }
        }
        Ok(program)
    }
}
