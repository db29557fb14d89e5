//! The part for CI: limits on reproducible figures. No times.

use super::cases::{CASES, Case};
use super::measure::{FLOOR, Findings, Settings, measure};

/// The server that must keep the limits.
const OURS: &str = "netpoll";

/// A limit on a figure of netpoll.
#[derive(Debug, Clone, Copy)]
struct Limit {
    case: &'static str,
    /// Which figure of the case.
    figure: usize,
    over: Over,
    /// More than this is a step back.
    at_most: f64,
    /// Where it is to go, if that is lower.
    goal: Option<f64>,
}

/// The base of a limit.
#[derive(Debug, Clone, Copy)]
enum Over {
    /// Zero.
    Nothing,
    /// The bare loop's figure in the same case.
    Floor,
    /// Our own first figure in another case.
    Ours(&'static str),
}

const LIMITS: &[Limit] = &[
    limit("calls-64", 0, Over::Floor, 0.03),
    limit("calls-deadline-64", 0, Over::Floor, 0.03),
    limit("calls-block-on-1", 0, Over::Floor, 0.05),
    Limit { goal: Some(700.0), ..limit("instructions-echo", 0, Over::Nothing, 1100.0) },
    Limit { goal: Some(100.0), ..limit("instructions-deadline", 0, Over::Ours("instructions-echo"), 190.0) },
    limit("idle", 1, Over::Nothing, 0.0),
];

const fn limit(case: &'static str, figure: usize, over: Over, at_most: f64) -> Limit {
    Limit { case, figure, over, at_most, goal: None }
}

/// Measures and prints the limited figures; returns whether all limits hold.
///
/// # Errors
/// A figure could not be measured: a check that cannot be made has not passed.
pub fn check(settings: &Settings) -> Result<bool, String> {
    let settings = Settings { runtimes: vec![FLOOR.to_owned(), OURS.to_owned()], quick: true, ..settings.clone() };
    let mut measured: Vec<(&Case, Findings)> = Vec::new();
    for case in CASES.iter().filter(|case| LIMITS.iter().any(|limit| limit.case == case.name)) {
        measured.push((case, measure(case, &settings)));
    }
    let figure = |name: &str, runtime: &str, index: usize| {
        let (_, findings) =
            measured.iter().find(|(case, _)| case.name == name).ok_or_else(|| format!("no case {name}"))?;
        let figures = findings.figures.iter().find(|(have, _)| have == runtime);
        figures
            .and_then(|(_, figures)| figures.get(index)?.value)
            .ok_or_else(|| format!("{name} was not measured for {runtime}: {}", findings.notes.join("; ")))
    };
    let mut all_hold = true;
    for limit in LIMITS {
        let value = figure(limit.case, OURS, limit.figure)?;
        let (base, from) = match limit.over {
            Over::Nothing => (0.0, String::new()),
            Over::Floor => {
                let base = figure(limit.case, FLOOR, limit.figure)?;
                (base, format!(" over the bare loop's {base:.3}"))
            }
            Over::Ours(other) => {
                let base = figure(other, OURS, 0)?;
                (base, format!(" over {other}'s {base:.3}"))
            }
        };
        let holds = value - base <= limit.at_most + 1e-9;
        all_hold &= holds;
        let goal = limit.goal.map_or_else(String::new, |goal| format!(" (goal {goal})"));
        println!(
            "{} {}: {value:.3}, limit {}{goal}{from}",
            if holds { "holds " } else { "BROKEN" },
            limit.case,
            limit.at_most
        );
    }
    Ok(all_hold)
}

#[cfg(test)]
mod tests {
    use super::{CASES, LIMITS, Over};

    #[test]
    fn every_limit_names_a_case() {
        for limit in LIMITS {
            assert!(CASES.iter().any(|case| case.name == limit.case), "{}", limit.case);
            if let Over::Ours(other) = limit.over {
                assert!(LIMITS.iter().any(|limit| limit.case == other), "{other}");
            }
        }
    }
}
