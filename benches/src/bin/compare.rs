//! The comparison: `compare [--quick] [--only netpoll,bare] [--case echo-1,echo-64] [--rounds N] [--check]`.
//!
//! Prints tables with ratios and writes them to `target/comparison.md`. With `--check` it measures only what CI holds us
//! to, and fails when a limit is broken.

use netpoll_bench::arguments::Arguments;
use netpoll_bench::compare::cases::{CASES, Case};
use netpoll_bench::compare::check::check;
use netpoll_bench::compare::measure::{Settings, measure};
use netpoll_bench::compare::{child, report};
use netpoll_bench::servers::RUNTIMES;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, String> {
    let mut arguments = Arguments::from_env(&["quick", "check"])?;
    let quick = arguments.flag("quick");
    let checking = arguments.flag("check");
    let only: Vec<String> = arguments.list("only")?;
    let names: Vec<String> = arguments.list("case")?;
    let rounds = arguments.optional("rounds")?;
    arguments.finish()?;
    for name in &only {
        if !RUNTIMES.contains(&name.as_str()) {
            return Err(format!("runtime `{name}` is not one of {RUNTIMES:?}"));
        }
    }
    for name in &names {
        if !CASES.iter().any(|case| case.name == name) {
            let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
            return Err(format!("case `{name}` is not one of {known:?}"));
        }
    }
    child::program("server")?;
    child::program("load")?;
    let runtimes = RUNTIMES.iter().map(|name| (*name).to_owned());
    let runtimes = runtimes.filter(|name| only.is_empty() || only.contains(name)).collect();
    let settings = Settings { rounds, ..Settings::for_this_machine(runtimes, quick)? };
    if checking {
        return check(&settings);
    }
    let wanted =
        |case: &Case| if names.is_empty() { case.quick || !quick } else { names.iter().any(|name| name == case.name) };
    let start = Instant::now();
    let mut results = Vec::new();
    for case in CASES.iter().filter(|case| wanted(case)) {
        eprintln!("{:6.1} s  {}", start.elapsed().as_secs_f64(), case.name);
        results.push((*case, measure(case, &settings)));
    }
    let text = report::markdown(&results, &settings);
    println!("{text}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join("comparison.md");
    std::fs::write(&file, &text).map_err(|error| format!("{}: {error}", file.display()))?;
    eprintln!("{:6.1} s  written to {}", start.elapsed().as_secs_f64(), file.display());
    Ok(true)
}
