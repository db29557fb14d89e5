//! The limits that CI checks. They are on figures that are reproducible: system calls, instructions
//! and context switches, but no times.

use super::cases::{CASES, Case};
use super::measure::{FLOOR, Findings, Settings, measure};
use std::collections::HashMap;

/// The server whose figures have limits.
const OURS: &str = "netpoll";

/// A limit on a figure of netpoll.
#[derive(Debug, Clone, Copy)]
struct Limit {
    case: &'static str,
    /// The index of the figure in the figures of the case.
    figure: usize,
    /// The base of the limit.
    over: Over,
    /// The amount by which the figure may exceed the base.
    at_most: f64,
}

/// The figure that is subtracted from a limited figure.
#[derive(Debug, Clone, Copy)]
enum Over {
    /// No figure. The limit is on the figure itself.
    Nothing,
    /// The figure of the bare loop in the same case.
    Floor,
    /// The figure of netpoll with the same index in another case.
    Ours(&'static str),
}

/// The limits. A case that is the base of a limit ([`Over::Ours`]) must have a limit too, because
/// only cases with limits are measured.
const LIMITS: &[Limit] = &[
    limit("calls-64", 0, Over::Floor, 0.03),
    limit("calls-deadline-64", 0, Over::Floor, 0.03),
    limit("calls-block-on-1", 0, Over::Floor, 0.05),
    // Only the instructions in the functions that serve a request are limited. The number of all
    // instructions varies with the speed of the machine, because sysmon runs more often under
    // valgrind if the machine is slow.
    limit("instructions-echo", 1, Over::Nothing, 860.0),
    limit("instructions-deadline", 1, Over::Ours("instructions-echo"), 82.0),
    limit("instructions-timeout", 1, Over::Ours("instructions-echo"), 102.0),
    limit("idle", 1, Over::Nothing, 0.0),
];

const fn limit(case: &'static str, figure: usize, over: Over, at_most: f64) -> Limit {
    Limit { case, figure, over, at_most }
}

/// The maximum number of measurements per limit. Other programs on the machine only increase a
/// figure. So if a limit does not hold, the figure and the base are measured again, and the least
/// value of each counts.
const ATTEMPTS: usize = 3;

/// Measures the limited figures and prints them with their limits. Returns whether all are within
/// their limits.
///
/// # Errors
/// Returns an error if a figure could not be measured, because a check that cannot be made has not
/// passed.
pub fn check(settings: &Settings) -> Result<bool, String> {
    let settings = Settings { runtimes: vec![FLOOR.to_owned(), OURS.to_owned()], quick: true, ..settings.clone() };
    let mut figures = Figures::default();
    for case in CASES.iter().filter(|case| LIMITS.iter().any(|limit| limit.case == case.name)) {
        figures.add(case, &measure(case, &settings));
    }
    let mut all_hold = true;
    for limit in LIMITS {
        for _ in 1..ATTEMPTS {
            if limit.holds(&figures)? {
                break;
            }
            for case in CASES.iter().filter(|case| limit.concerns(case.name)) {
                figures.add(case, &measure(case, &settings));
            }
        }
        let (value, base, from) = limit.figures(&figures)?;
        let holds = limit.holds(&figures)?;
        all_hold &= holds;
        println!(
            "{} {}: {value:.3}, limit {}{}",
            if holds { "holds " } else { "BROKEN" },
            limit.case,
            limit.at_most,
            from.map_or_else(String::new, |from| format!(" over {from}'s {base:.3}"))
        );
    }
    Ok(all_hold)
}

/// The least value of each figure by case, runtime and index, and the reasons why figures could not
/// be measured.
#[derive(Debug, Default)]
struct Figures {
    least: HashMap<(&'static str, String, usize), f64>,
    notes: Vec<String>,
}

impl Figures {
    fn add(&mut self, case: &Case, findings: &Findings) {
        for (runtime, figures) in &findings.figures {
            for (index, value) in figures.iter().enumerate().filter_map(|(index, figure)| Some((index, figure.value?)))
            {
                let least = self.least.entry((case.name, runtime.clone(), index)).or_insert(value);
                *least = least.min(value);
            }
        }
        self.notes.extend_from_slice(&findings.notes);
    }

    fn get(&self, case: &'static str, runtime: &str, index: usize) -> Result<f64, String> {
        let least = self.least.get(&(case, runtime.to_owned(), index)).copied();
        least.ok_or_else(|| format!("{case} was not measured for {runtime}: {}", self.notes.join("; ")))
    }
}

impl Limit {
    /// Returns netpoll's figure, the base of the limit, and the name of the base.
    fn figures(&self, figures: &Figures) -> Result<(f64, f64, Option<&'static str>), String> {
        let value = figures.get(self.case, OURS, self.figure)?;
        Ok(match self.over {
            Over::Nothing => (value, 0.0, None),
            Over::Floor => (value, figures.get(self.case, FLOOR, self.figure)?, Some("the bare loop")),
            Over::Ours(other) => (value, figures.get(other, OURS, self.figure)?, Some(other)),
        })
    }

    /// Returns whether the figure is within the limit.
    fn holds(&self, figures: &Figures) -> Result<bool, String> {
        let (value, base, _) = self.figures(figures)?;
        Ok(value - base <= self.at_most + 1e-9)
    }

    /// Returns whether the limit is on a figure of `case`, or is relative to a figure of `case`.
    fn concerns(&self, case: &str) -> bool {
        self.case == case || matches!(self.over, Over::Ours(other) if other == case)
    }
}

#[cfg(test)]
mod tests {
    use super::{CASES, LIMITS, Over};

    #[test]
    fn cases_of_limits_and_bases_are_measured() {
        for limit in LIMITS {
            assert!(CASES.iter().any(|case| case.name == limit.case), "{}", limit.case);
            if let Over::Ours(other) = limit.over {
                assert!(LIMITS.iter().any(|limit| limit.case == other), "{other}");
            }
        }
    }
}
