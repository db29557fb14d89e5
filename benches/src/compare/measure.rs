//! Measures one case for several servers.
//!
//! Cases of [`Kind::Cpu`], [`Kind::Burst`], [`Kind::Free`] and [`Kind::Scale`] are measured in
//! rounds. All servers of such a case are started first and are idle between measurements. Each
//! round measures every server once, so that disturbances of the machine affect all servers alike.
//! Each round begins with another server. A ratio is the median of the ratios within the rounds. In
//! cases of the other kinds, each server is measured once.

use super::cases::{Case, Kind};
use super::child::{Load, LoadPlan, Server};
use super::counts::{self, Tracer};
use crate::generator::Amount;
use crate::procfs::Snapshot;
use crate::sys;
use std::collections::BTreeMap;
use std::time::Duration;

/// The name of the baseline, which is the server that ratios are relative to.
pub const FLOOR: &str = "bare";

/// The settings of a measurement.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names of the servers to measure, in order.
    pub runtimes: Vec<String>,
    /// Whether to run fewer and shorter rounds.
    pub quick: bool,
    /// The number of rounds. `None` stands for 45, or for 15 if `quick` is true. Cases of
    /// [`Kind::Free`] have half as many rounds, rounded up.
    pub rounds: Option<usize>,
    /// The CPU to which server and generator are pinned in lock-step.
    pub cpu: usize,
    /// The number of CPUs that the process may use. Servers that are not pinned have as many
    /// workers, unless a case needs another number.
    pub cpus: usize,
    /// The tool that counts system calls, if there is one.
    pub tracer: Option<Tracer>,
}

impl Settings {
    /// Returns settings for this machine, with the default number of rounds. The pinned CPU is the
    /// last one that the process may use.
    ///
    /// # Errors
    /// Returns the errors of [`sys::allowed_cpus`].
    pub fn for_this_machine(runtimes: Vec<String>, quick: bool) -> Result<Settings, String> {
        let cpus = sys::allowed_cpus().map_err(|error| error.to_string())?;
        let cpu = *cpus.last().ok_or("the process may not run on any CPU")?;
        Ok(Settings { runtimes, quick, rounds: None, cpu, cpus: cpus.len(), tracer: Tracer::available() })
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 15 } else { 45 })
    }
}

/// One figure of one server in one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The name of the figure, with its unit.
    pub name: &'static str,
    /// The value, or `None` if it could not be measured.
    pub value: Option<f64>,
    /// The ratio to the figure of the baseline. `None` if the figure has no ratio, or if the
    /// baseline was not measured.
    pub ratio: Option<f64>,
}

/// The figures of one case by server, and the reasons for missing figures.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The figures of each server, in the order of the servers.
    pub figures: Vec<(String, Vec<Figure>)>,
    /// For each failed measurement, the case, the server and the error.
    pub notes: Vec<String>,
}

impl Findings {
    fn note(&mut self, case: &Case, runtime: &str, error: &str) {
        self.notes.push(format!("{}, {runtime}: {error}", case.name));
    }

    /// Returns the first figure of a server, if the server was measured.
    #[must_use]
    pub fn first(&self, runtime: &str) -> Option<&Figure> {
        self.figures.iter().find(|(name, _)| name == runtime)?.1.first()
    }
}

/// Measures `case` for all servers of `settings`.
#[must_use]
pub fn measure(case: &Case, settings: &Settings) -> Findings {
    match case.kind {
        Kind::Cpu => rounds(case, settings, &settings.runtimes, &CPU),
        Kind::Burst => rounds(case, settings, &settings.runtimes, &BURST),
        Kind::Free => rounds(case, settings, &with_loop_per_cpu(settings), &FREE),
        Kind::Calls => counted(case, settings, ["calls"], |runtime| {
            let tracer = settings.tracer.ok_or("neither perf nor strace works here")?;
            counts::calls(case, runtime, tracer, settings.cpu, settings.quick).map(|calls| [calls])
        }),
        Kind::Instructions => counted(case, settings, ["instructions", "of requests"], |runtime| {
            if counts::callgrind_works() {
                counts::instructions(case, runtime, settings.cpu, settings.quick)
            } else {
                Err("valgrind is not installed".to_owned())
            }
        }),
        Kind::Idle => idle(case, settings),
        Kind::Hogs => hogs(case, settings),
        Kind::Scale => scale(case, settings),
    }
}

/// Returns the names of the servers of a free-running case. If there are several CPUs, the name of
/// the baseline is followed by a second one, such as `bare*2`, which stands for the baseline with
/// one event loop per CPU.
fn with_loop_per_cpu(settings: &Settings) -> Vec<String> {
    let mut runtimes = settings.runtimes.clone();
    if settings.cpus > 1
        && let Some(place) = runtimes.iter().position(|runtime| runtime == FLOOR)
    {
        runtimes.insert(place + 1, format!("{FLOOR}*{}", settings.cpus));
    }
    runtimes
}

/// Returns the runtime and the number of workers of a server in a free-running case. The baseline
/// has one event loop, unless its name is followed by `*` and the number of loops.
fn workers(runtime: &str, settings: &Settings) -> (String, usize) {
    match runtime.split_once('*') {
        Some((name, workers)) => (name.to_owned(), workers.parse().unwrap_or(1)),
        None if runtime == FLOOR => (runtime.to_owned(), 1),
        None => (runtime.to_owned(), settings.cpus),
    }
}

/// A server, its generator, and the figures of each round.
struct Pair {
    runtime: String,
    server: Server,
    load: Load,
    rounds: Vec<Vec<f64>>,
    failed: bool,
}

/// The method for measuring a case in rounds: the names of its figures, whether it is in lock-step,
/// and the function that measures one server in one round.
struct Method {
    names: &'static [&'static str],
    lock_step: bool,
    visit: fn(&mut Pair, &Case, &Settings) -> Result<Vec<f64>, String>,
}

const CPU: Method = Method { names: &["µs CPU"], lock_step: true, visit: visit_cpu };

const FREE: Method =
    Method {
        names: &["requests/s", "p50 µs", "p99 µs", "p99.9 µs", "µs CPU"], lock_step: false, visit: visit_free
    };

const BURST: Method = Method { names: &["p50 µs", "p99 µs", "µs CPU"], lock_step: true, visit: visit_burst };

fn visit_cpu(pair: &mut Pair, case: &Case, settings: &Settings) -> Result<Vec<f64>, String> {
    let budget: u64 = if case.churn.is_some() { 2_000 } else { 8_000 };
    let amount = budget * if settings.quick { 1 } else { 2 } / case.connections as u64;
    let before = pair.server.cpu_ns()?;
    let outcome = pair.load.run(Amount::Requests(amount.max(3)))?;
    let spent = pair.server.cpu_ns()? - before;
    Ok(vec![spent as f64 / 1e3 / outcome.requests as f64])
}

fn visit_burst(pair: &mut Pair, case: &Case, settings: &Settings) -> Result<Vec<f64>, String> {
    let before = pair.server.cpu_ns()?;
    let amount = if settings.quick { 8_000 } else { 32_000 } / case.connections as u64;
    let outcome = pair.load.run(Amount::Requests(amount.max(3)))?;
    let spent = pair.server.cpu_ns()? - before;
    let cpu = spent as f64 / 1e3 / outcome.requests as f64;
    Ok(vec![outcome.p50_ns as f64 / 1e3, outcome.p99_ns as f64 / 1e3, cpu])
}

fn visit_free(pair: &mut Pair, _: &Case, settings: &Settings) -> Result<Vec<f64>, String> {
    let time = Duration::from_millis(if settings.quick { 250 } else { 1_000 });
    let before = pair.server.cpu_ns()?;
    let outcome = pair.load.run(Amount::Time(time))?;
    let spent = pair.server.cpu_ns()? - before;
    let requests = outcome.requests.max(1) as f64;
    Ok(vec![
        outcome.requests as f64 / (outcome.wall_ns as f64 / 1e9),
        outcome.p50_ns as f64 / 1e3,
        outcome.p99_ns as f64 / 1e3,
        outcome.p999_ns as f64 / 1e3,
        spent as f64 / 1e3 / requests,
    ])
}

/// Measures a case in rounds.
fn rounds(case: &Case, settings: &Settings, runtimes: &[String], method: &Method) -> Findings {
    let mut findings = Findings::default();
    let mut pairs: Vec<Pair> = Vec::new();
    let place = method.lock_step.then_some(settings.cpu);
    let rounds = if method.lock_step { settings.rounds() } else { settings.rounds().div_ceil(2) };
    for runtime in runtimes {
        let (name, count) = if method.lock_step { (runtime.clone(), 1) } else { workers(runtime, settings) };
        let start = || {
            let server = Server::start(&case.server(&name, count, place), &[])?;
            let load = Load::start(&case.load(method.lock_step, place), server.port)?;
            Ok::<_, String>((server, load))
        };
        match start() {
            Ok((server, load)) => {
                pairs.push(Pair { runtime: runtime.clone(), server, load, rounds: Vec::new(), failed: false });
            }
            Err(error) => findings.note(case, runtime, &error),
        }
    }
    // Round 0 fills the caches and is not counted.
    for round in 0..=rounds {
        let count = pairs.len();
        for step in 0..count {
            let pair = &mut pairs[(step + round) % count];
            match (method.visit)(pair, case, settings) {
                Ok(values) if round > 0 => pair.rounds.push(values),
                Ok(_) => {}
                Err(error) => {
                    findings.note(case, &pair.runtime, &error);
                    pair.failed = true;
                }
            }
        }
        pairs.retain(|pair| !pair.failed);
    }
    let floor = pairs.iter().find(|pair| pair.runtime == FLOOR).map(|pair| pair.rounds.clone());
    for pair in &pairs {
        findings.figures.push((pair.runtime.clone(), figures(method.names, &pair.rounds, floor.as_deref())));
    }
    findings
}

/// Returns, for each figure, the median over the rounds, and the median of the ratios to the
/// baseline in the same round.
fn figures(names: &[&'static str], rounds: &[Vec<f64>], floor: Option<&[Vec<f64>]>) -> Vec<Figure> {
    let figure = |(index, name): (usize, &&'static str)| {
        let pairs = floor.iter().flat_map(|floor| rounds.iter().zip(*floor));
        let ratio = median(pairs.map(|(values, floor)| values[index] / floor[index]).collect());
        Figure { name, value: median(rounds.iter().map(|values| values[index]).collect()), ratio }
    };
    names.iter().enumerate().map(figure).collect()
}

/// Measures each server once, with `count`.
fn counted<const N: usize>(
    case: &Case,
    settings: &Settings,
    names: [&'static str; N],
    count: impl Fn(&str) -> Result<[f64; N], String>,
) -> Findings {
    let mut findings = Findings::default();
    let mut floor = None;
    for runtime in &settings.runtimes {
        match count(runtime) {
            Ok(values) => {
                if runtime == FLOOR {
                    floor = Some(values);
                }
                let figure = |index: usize| Figure {
                    name: names[index],
                    value: Some(values[index]),
                    ratio: floor.map(|floor| values[index] / floor[index]),
                };
                findings.figures.push((runtime.clone(), (0..N).map(figure).collect()));
            }
            Err(error) => findings.note(case, runtime, &error),
        }
    }
    findings
}

/// The number of connections that are open when the memory is measured for the first time. So
/// one-time allocations of a server do not count.
const FIRST_CONNECTIONS: usize = 200;

/// Measures a case of [`Kind::Idle`].
fn idle(case: &Case, settings: &Settings) -> Findings {
    let mut findings = Findings::default();
    let mut idlers = Vec::new();
    for runtime in &settings.runtimes {
        let start = || {
            let server = Server::start(&case.server(runtime, settings.cpus, None), &[])?;
            let plan = case.load(true, None);
            let first = Load::start(&LoadPlan { connections: FIRST_CONNECTIONS, ..plan }, server.port)?;
            let before = server.snapshot()?.rss_anon_bytes;
            let rest = Load::start(&plan, server.port)?;
            let after = server.snapshot()?.rss_anon_bytes;
            let bytes = (after as f64 - before as f64) / case.connections as f64;
            Ok::<_, String>((server, (first, rest), bytes))
        };
        match start() {
            Ok(idler) => idlers.push((runtime.clone(), idler)),
            Err(error) => findings.note(case, runtime, &error),
        }
    }
    // During this pause the runtimes become idle, and the threads that they added for a burst end.
    std::thread::sleep(Duration::from_secs(4));
    let before: BTreeMap<String, Snapshot> =
        idlers.iter().filter_map(|(runtime, (server, ..))| Some((runtime.clone(), server.snapshot().ok()?))).collect();
    std::thread::sleep(Duration::from_secs(2));
    let floor = idlers.iter().find(|(runtime, _)| runtime == FLOOR).map(|(_, (.., bytes))| *bytes);
    for (runtime, (server, _, bytes)) in &idlers {
        let switches =
            server.snapshot().ok().and_then(|snapshot| Some(snapshot.switches_since(before.get(runtime)?) as f64));
        findings.figures.push((
            runtime.clone(),
            vec![
                Figure { name: "bytes/idle connection", value: Some(*bytes), ratio: floor.map(|floor| bytes / floor) },
                Figure { name: "switches in 2 s", value: switches, ratio: None },
            ],
        ));
    }
    findings
}

/// Measures a case of [`Kind::Hogs`].
fn hogs(case: &Case, settings: &Settings) -> Findings {
    let mut findings = Findings::default();
    for runtime in &settings.runtimes {
        let run = || {
            let server = Server::start(&case.server(runtime, settings.cpus, None), &[])?;
            let mut load = Load::start(&case.load(false, None), server.port)?;
            load.run(Amount::Time(Duration::from_millis(100)))?;
            load.run(Amount::Time(Duration::from_secs(if settings.quick { 2 } else { 5 })))
        };
        match run() {
            Ok(outcome) => {
                let figure = |name, value: f64| Figure { name, value: Some(value), ratio: None };
                findings.figures.push((
                    runtime.clone(),
                    vec![
                        figure("p50 ms", outcome.p50_ns as f64 / 1e6),
                        figure("p99 ms", outcome.p99_ns as f64 / 1e6),
                        figure("max ms", outcome.max_ns as f64 / 1e6),
                        figure("requests/s", outcome.requests as f64 / (outcome.wall_ns as f64 / 1e9)),
                    ],
                ));
            }
            Err(error) => findings.note(case, runtime, &format!("could not be measured while the hogs ran: {error}")),
        }
    }
    findings
}

/// Measures a case of [`Kind::Scale`]. Each round measures each runtime with one worker and with
/// one worker per CPU. The gain is the ratio of the two rates within a round.
fn scale(case: &Case, settings: &Settings) -> Findings {
    struct Scaled {
        runtime: String,
        loads: [(Server, Load); 2],
        rounds: Vec<Vec<f64>>,
    }
    let mut findings = Findings::default();
    let start = |runtime: &str, workers| {
        let server = Server::start(&case.server(runtime, workers, None), &[])?;
        let load = Load::start(&case.load(false, None), server.port)?;
        Ok::<_, String>((server, load))
    };
    let mut all = Vec::new();
    for runtime in &settings.runtimes {
        match start(runtime, 1).and_then(|one| Ok([one, start(runtime, settings.cpus)?])) {
            Ok(loads) => all.push(Scaled { runtime: runtime.clone(), loads, rounds: Vec::new() }),
            Err(error) => findings.note(case, runtime, &error),
        }
    }
    let time = Amount::Time(Duration::from_millis(if settings.quick { 250 } else { 500 }));
    // Round 0 fills the caches and is not counted.
    for round in 0..=settings.rounds() {
        // Each round begins with another runtime.
        let servers = all.len().max(1);
        all.rotate_left(1 % servers);
        all.retain_mut(|scaled| {
            let rates = scaled.loads.each_mut().map(|(_, load)| {
                let outcome = load.run(time)?;
                Ok::<_, String>(outcome.requests as f64 / (outcome.wall_ns as f64 / 1e9))
            });
            match rates {
                [Ok(one), Ok(several)] => {
                    if round > 0 {
                        scaled.rounds.push(vec![one, several, several / one]);
                    }
                    true
                }
                [Err(error), _] | [_, Err(error)] => {
                    findings.note(case, &scaled.runtime, &error);
                    false
                }
            }
        });
    }
    all.sort_by_key(|scaled| settings.runtimes.iter().position(|runtime| *runtime == scaled.runtime));
    let floor = all.iter().find(|scaled| scaled.runtime == FLOOR).map(|scaled| scaled.rounds.clone());
    let names = ["requests/s, one worker", "requests/s, one worker per CPU", "gain"];
    for scaled in &all {
        findings.figures.push((scaled.runtime.clone(), figures(&names, &scaled.rounds, floor.as_deref())));
    }
    findings
}

/// Returns the median of `values`, or `None` if there are none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn median_handles_empty_odd_and_even_counts() {
        assert_eq!(super::median(vec![]), None);
        assert_eq!(super::median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(super::median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
