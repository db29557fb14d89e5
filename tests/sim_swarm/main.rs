//! A swarm of simulations: random programs of sockets, deadlines, closes, cancellations and faults,
//! with an oracle (feature `sim`).
//!
//! A seed determines a program ([`program`]): a network, rates of faults, disturbances, and
//! sessions ([`streams`], [`others`]). The oracle requires that the bytes received are those sent,
//! that every operation ends, that timers fire exactly at their virtual time, and that each error
//! has a cause in the program.
//!
//! | variable | effect |
//! |---|---|
//! | `NETPOLL_SWARM=n` | run n seeds (default 200) |
//! | `NETPOLL_SWARM_FIRST=n` | run the seeds from n on (default 0) |
//! | `NETPOLL_SWARM_JOBS=n` | use n threads (default 2) |
//! | `NETPOLL_SWARM_TWICE=n` | run every nth seed twice and compare the digests (default 64) |
//! | `NETPOLL_SWARM_LOG=1` | print the log of a run that fails |
#![allow(unreachable_pub)]

mod conn;
mod draw;
mod others;
mod program;
mod scene;
mod streams;
mod turns;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoll::sim::{Builder, Sim, ms};
use netpoll::task;

use draw::Draw;
use program::{Program, Session, Trouble};
use scene::Scene;

/// The maximum virtual time of a program, well above the sum of the timeouts of TCP.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The number of failures after which a swarm stops.
const FAILURES_MAX: usize = 5;

/// Causes one to four disturbances, one after another: partitions and held packets, and with
/// [`Trouble::Crashes`] also restarts, kills and crashes.
async fn trouble(scene: Arc<Scene>) {
    let (sim, mut draw) = (scene.sim, scene.draw(2));
    let server = sim.host("server");
    for _ in 0..1 + draw.below(4) {
        task::sleep(Duration::from_micros(draw.magnitude(1, 2_000_000))).await;
        let client = format!("client{}", draw.below(scene.program.clients));
        // The disturbance is shorter than the time for which a handshake is retransmitted.
        let length = Duration::from_micros(draw.magnitude(1000, 15_000_000));
        let crashes = scene.program.trouble == Trouble::Crashes;
        match draw.below(if crashes { 6 } else { 3 }) {
            0 => {
                sim.partition(&client, "server");
                task::sleep(length).await;
                sim.heal(&client, "server");
            }
            1 => {
                sim.partition_one_way("server", &client);
                task::sleep(length).await;
                sim.heal(&client, "server");
            }
            2 => {
                sim.hold(&client, "server");
                task::sleep(length).await;
                sim.release(&client, "server");
            }
            3 => server.restart(),
            4 => {
                server.kill();
                task::sleep(length).await;
                server.restart();
            }
            _ => {
                server.crash();
                task::sleep(length).await;
                server.restart();
            }
        }
    }
}

/// The statistics of a run that passed.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    digest: u64,
    packets: u64,
    /// The number of timeouts that losses excuse.
    excused: u64,
}

/// Runs a program in its simulation. Returns the failures, the number of excused timeouts, and the
/// log if there are failures. The log is empty unless `NETPOLL_SWARM_LOG` is set.
async fn play(sim: Sim, program: Program) -> (Vec<String>, u64, String) {
    if std::env::var_os("NETPOLL_SWARM_LOG").is_some() {
        sim.keep_log();
    }
    let scene = Scene::new(sim, program.clone());
    program.network.apply(&sim);
    let server = sim.host("server");
    sim.host("dark").crash();
    for service in [0, 1] {
        let scene = scene.clone();
        server.spawn(move || {
            let scene = scene.clone();
            async move { if service == 0 { streams::serve(scene).await } else { others::echo_datagrams().await } }
        });
    }
    // The server starts before the first client.
    task::sleep(ms(1)).await;
    program.rates.apply(&sim);
    let mut draw = scene.draw(3);
    let mut tasks = Vec::new();
    for (number, (after, session)) in (0..).zip(program.sessions.clone()) {
        let (scene, open) = (scene.clone(), scene.open());
        let host = sim.host(&format!("client{}", draw.below(program.clients)));
        tasks.push(host.spawn_task(async move {
            let _open = open;
            task::sleep(Duration::from_micros(after)).await;
            let on_stream = matches!(
                session,
                Session::Exchange { .. } | Session::Shared { .. } | Session::Idle { .. } | Session::Churn { .. }
            );
            if on_stream {
                streams::near_side(scene, number, session).await;
            } else {
                others::run(scene, number, session).await;
            }
        }));
    }
    for client in 0..program.clients {
        sim.host(&format!("client{client}"));
    }
    let disturbances = (program.trouble != Trouble::None).then(|| task::spawn(trouble(scene.clone())));
    for task in tasks {
        task.await;
    }
    if let Some(disturbances) = disturbances {
        disturbances.await;
    }
    // The handlers of the server must end too, and so must the tasks that sessions left behind.
    let begin = Instant::now();
    while scene.still_open() > 0 && begin.elapsed() < LIMIT / 2 {
        task::sleep(ms(500)).await;
    }
    let open = scene.still_open();
    scene.check(open == 0, || format!("{open} handlers and tasks have not ended"));
    if let Some(what) = scene.program.long_turns {
        turns::long_turns(&scene, what).await;
    }
    let log = if scene.failures().is_empty() { String::new() } else { sim.log() };
    (scene.failures(), scene.excused.load(Ordering::Relaxed), log)
}

/// Runs the program of a seed once.
fn run(seed: u64) -> Result<Told, String> {
    let program = Program::new(seed);
    let played = catch_unwind(|| Builder::new().seed(seed).limit(LIMIT).run(move |sim| play(sim, program)));
    match played {
        Ok(run) if run.output.0.is_empty() => {
            Ok(Told { digest: run.digest, packets: run.counters.packets_sent, excused: run.output.1 })
        }
        Ok(run) => Err(format!("{}\n{}", run.output.2, run.output.0.join("\n"))),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            Err(text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        }
    }
}

/// Runs a seed. Runs every `twice`th seed a second time and compares the digests.
fn run_and_compare(seed: u64, twice: u64) -> Result<Told, String> {
    let told = run(seed)?;
    if seed.is_multiple_of(twice) {
        let again = run(seed)?;
        if again.digest != told.digest {
            return Err(format!("the digests are {:016x} and {:016x}", told.digest, again.digest));
        }
    }
    Ok(told)
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

#[test]
fn random_programs_keep_their_guarantees() {
    let (first, count) = (number("NETPOLL_SWARM_FIRST", 0), number("NETPOLL_SWARM", 200));
    let (jobs, next) = (number("NETPOLL_SWARM_JOBS", 2), AtomicU64::new(first));
    let twice = number("NETPOLL_SWARM_TWICE", 64);
    let failures = Mutex::new(Vec::new());
    let (passed, packets, excused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failures.lock().unwrap().len() >= FAILURES_MAX {
                        return;
                    }
                    match run_and_compare(seed, twice) {
                        Ok(told) => {
                            let passed = passed.fetch_add(1, Ordering::Relaxed) + 1;
                            packets.fetch_add(told.packets, Ordering::Relaxed);
                            excused.fetch_add(told.excused, Ordering::Relaxed);
                            if passed.is_multiple_of(50_000) {
                                eprintln!("{passed} seeds in {:?}", begin.elapsed());
                            }
                        }
                        Err(text) => {
                            eprintln!("seed {seed} fails: {:#?}\n{text}", Program::new(seed));
                            failures.lock().unwrap().push(seed);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let (passed, packets, excused) = (passed.into_inner(), packets.into_inner(), excused.into_inner());
    eprintln!(
        "{passed} seeds from {first} passed in {:.1} s: {packets} packets; {excused} timeouts excused by losses",
        begin.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "seeds {failures:?} fail; to repeat seed n: NETPOLL_SWARM_FIRST=n NETPOLL_SWARM=1");
    assert_eq!(passed, count);
    assert!(excused * 200 <= passed + 200, "losses excuse {excused} timeouts, which is too many");
}

/// Runs seeds that found defects, each twice. The defects were lost edges of writability (seeds 209
/// and 223), an order of wake-ups that depended on addresses in memory (2104, 2122), connections
/// reopened by a late SYN that was duplicated (390405) or retransmitted (107501), and readers that
/// outlived their session and that the oracle did not count (178382).
#[test]
fn seeds_that_found_defects_pass() {
    for seed in [209, 223, 2104, 2122, 107_501, 178_382, 390_405] {
        let told = run_and_compare(seed, 1);
        assert!(told.is_ok(), "seed {seed}: {told:?}");
    }
}

/// Checks that a seed alone determines its program. Also checks that `Draw::magnitude` returns
/// numbers in its range.
#[test]
fn programs_depend_on_their_seeds_alone() {
    for seed in 0..100 {
        assert_eq!(format!("{:?}", Program::new(seed)), format!("{:?}", Program::new(seed)));
    }
    let mut draw = Draw::new(1, 2);
    for _ in 0..1000 {
        assert!((3..=900).contains(&draw.magnitude(3, 900)));
    }
}
