//! Generates a program from a seed.
//!
//! The kinds of program differ in their actions and in their disturbances: shutdowns, refused
//! threads, a slow report, long sleeps. A generated program must end on a correct runtime however
//! its threads are scheduled, so [`fits`] excludes actions that would need more threads than the
//! configuration grants, or that would delay a root future for too long.

use crate::oracle::LATE_MS;
use crate::program::*;
use crate::words::{Few, Many, Ms, Random, Word};

/// The kind of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Actions of every kind, under the settings that most programs use.
    Mixed,
    /// Mostly repetitions and simpler variants of one to three actions.
    Narrow,
    /// Actions of every kind, with shutdowns, restarts and a few refused threads.
    Stormy,
    /// Actions of every kind, with threads that are refused.
    Refused,
    /// Mostly operations on shared connections.
    Shared,
    /// Mostly actions that take seconds, such as long sleeps and blocked threads, often with a slow
    /// report.
    Long,
}

/// Returns the program of `seed`. A program of the kind [`Kind::Long`] may take more than half a
/// minute.
pub fn program(seed: u64) -> Program {
    let random = &mut Random::new(seed);
    let kind = random.weighted(&[
        (40, Kind::Mixed),
        (25, Kind::Narrow),
        (20, Kind::Stormy),
        (10, Kind::Refused),
        (15, Kind::Shared),
        (6, Kind::Long),
    ]);
    let config = config(random, kind);
    let mut events = events(random, kind);
    let count = match kind {
        Kind::Narrow | Kind::Long => 1 + random.below(4),
        _ => 1 + random.below(9),
    };
    let palette: Vec<_> = (0..1 + random.below(3)).map(|_| Action::draw(random)).collect();
    let mut actors = Vec::new();
    for _ in 0..count {
        let host = host(random, kind, &config);
        let length = 1 + random.below(if kind == Kind::Shared { 24 } else { 7 });
        let mut actions = Vec::new();
        while (actions.len() as u64) < length {
            let action = action(random, kind, &palette);
            if fits(&action, host, &config) {
                actions.push(action);
            }
        }
        actors.push(Actor { host, actions });
    }
    // Computed without `random`, so that this event does not change the rest of a seed's program.
    if seed.is_multiple_of(8) && kind != Kind::Long {
        events.push(Event::Inspect { after: Ms(seed / 8 % 50), looks: Many(20 + seed / 8 % 100) });
    }
    Program { config, events, actors }
}

fn config(random: &mut Random, kind: Kind) -> Config {
    let preempt = match kind {
        Kind::Long => Preempt::Off,
        _ => random.weighted(&[(5, Preempt::Off), (3, Preempt::Light), (2, Preempt::Heavy)]),
    };
    Config {
        workers: random.weighted(&[(4, 1), (4, 2), (1, 3), (2, 4)]),
        spares: random.weighted(&[(9, 64), (1, 0)]),
        blocking: random.weighted(&[(4, 256), (1, 8)]),
        root: random.weighted(&[(6, RootMode::Default), (1, RootMode::No), (2, RootMode::Yes)]),
        report: if kind == Kind::Long && random.chance(60) { Ms(25_000 + random.below(10_000)) } else { Ms(0) },
        preempt,
        late: Ms(0),
        refuse: if kind == Kind::Refused && random.chance(30) { 1 } else { 0 },
    }
}

fn events(random: &mut Random, kind: Kind) -> Vec<Event> {
    let mut events = Vec::new();
    let many = match kind {
        Kind::Stormy => random.magnitude(1, 6),
        Kind::Refused => random.magnitude(1, 4),
        _ => 0,
    };
    for _ in 0..many {
        let after = Ms(random.magnitude(1, 400) - 1);
        let shutdown = kind == Kind::Stormy && random.chance(90);
        events.push(if shutdown {
            Event::Shutdown {
                after,
                timeout: Ms(random.weighted(&[(1, 0), (3, 20), (3, 300), (3, 5_000)])),
                by: By::draw(random),
                restart: Restart::draw(random),
                residue: random.weighted(&[
                    (12, Residue::None),
                    (1, Residue::Sleep),
                    (1, Residue::Spawn),
                    (1, Residue::Shutdown),
                ]),
            }
        } else {
            Event::Refuse { after, threads: Few::draw(random) }
        });
    }
    events
}

fn host(random: &mut Random, kind: Kind, config: &Config) -> Host {
    loop {
        let host = random.weighted(&[
            (6, Host::Task),
            (4, Host::Root),
            (3, Host::Foreign),
            (2, Host::Main),
            (2, Host::Nested),
            (1, Host::Pool),
            (2, Host::Local),
            (1, Host::Inner),
        ]);
        // A nested actor occupies the thread of its task until the actor ends. The thread may be
        // one inside `block_on` that runs tasks.
        let delays_root = kind == Kind::Long && config.root == RootMode::Yes;
        let takes_thread = matches!(host, Host::Nested) && (config.spares == 0 || delays_root);
        let takes_place = matches!(host, Host::Pool) && config.blocking < 64;
        if !takes_thread && !takes_place {
            return host;
        }
    }
}

fn action(random: &mut Random, kind: Kind, palette: &[Action]) -> Action {
    match kind {
        Kind::Narrow if random.chance(85) => {
            // Repeats an action of the palette, usually with one value simplified.
            let like = &palette[random.below(palette.len() as u64) as usize];
            let mut variants = like.simpler();
            variants.push(like.clone());
            variants.swap_remove(random.below(variants.len() as u64) as usize)
        }
        Kind::Shared if random.chance(92) => loop {
            let action = Action::draw(random);
            if matches!(action, Action::Use { .. } | Action::Shut { .. }) {
                return action;
            }
        },
        Kind::Long if random.chance(60) => match random.below(4) {
            0 => Action::Sleep { ms: Ms(5_100 + random.below(4_000)), how: SleepHow::draw(random) },
            1 => {
                let sender = Sender::draw(random);
                // The threads of these senders end at the latest when the other actors have ended.
                let is_kept = matches!(sender, Sender::Foreign | Sender::Pool);
                let ms = Ms(if is_kept { 25_000 } else { 4_000 } + random.below(6_000));
                Action::Recv { tasks: Few::draw(random), sender, ms }
            }
            2 => Action::Deadline {
                op: WaitOp::draw(random),
                how: DeadlineHow::draw(random),
                by: Party::draw(random),
                ms: Ms(5_100 + random.below(3_000)),
            },
            _ => Action::Nested { depth: Few(1), ms: Ms(5_100 + random.below(2_000)), woken: WokenBy::draw(random) },
        },
        _ => Action::draw(random),
    }
}

/// Returns whether an action is sure to end on this host with these settings.
fn fits(action: &Action, host: Host, config: &Config) -> bool {
    let blocks_tasks = match action {
        Action::Nested { .. } | Action::Crowd { .. } | Action::Guard { .. } | Action::Bridge { .. } => true,
        Action::Recv { .. } => true,
        Action::Stall { .. } | Action::Pause { .. } => host == Host::Task,
        Action::Waker { act } => matches!(act, WakeAct::Block | WakeAct::BlockOn | WakeAct::Read),
        Action::Destructor { act, .. } => matches!(act, DropAct::Sleep | DropAct::SpawnJoin | DropAct::Socket),
        _ => false,
    };
    if blocks_tasks && config.spares == 0 {
        return false;
    }
    // As documented, a blocking call may occupy a thread inside `block_on` that runs tasks, and
    // then delays everything that relies on its root future.
    let is_root = matches!(host, Host::Root | Host::Main | Host::Local | Host::Inner);
    let relies_on_root = match action {
        Action::Recv { sender, .. } => is_root && *sender == Sender::Own,
        Action::Bridge { .. } => is_root,
        Action::Guard { .. } => true,
        _ => false,
    };
    // A root future is late by the length of such a call, so the call must end well within the
    // bound on lateness.
    let delays_root = matches!(action, Action::Recv { ms, .. } if ms.0 > LATE_MS / 2);
    if (relies_on_root || delays_root) && config.root == RootMode::Yes {
        return false;
    }
    match action {
        Action::Recv { sender: Sender::Pool, .. } | Action::Names { .. } => config.blocking >= 64,
        Action::Recv { sender: Sender::Own, .. } => config.spares > 0 && host != Host::Pool,
        _ => true,
    }
}
