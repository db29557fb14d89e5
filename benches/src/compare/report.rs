//! Formats the report, which is in Markdown.

use super::cases::{Case, Kind};
use super::measure::{Figure, Findings, Settings};
use crate::servers::{Hog, Mode, go};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// The measured cases with their findings, in the order of the measurement.
pub type Results = Vec<(Case, Findings)>;

/// Returns the report. It consists of a heading, the cases, `parts`, which are Markdown, and a list
/// of the figures that could not be measured, with the reasons.
#[must_use]
pub fn markdown(results: &Results, parts: &str, notes: &[String], settings: &Settings) -> String {
    let mut text = heading(settings);
    for (kind, title) in [
        (Kind::Cpu, "CPU time of the server per request in µs (ratio to the bare loop), in lock-step on one CPU"),
        (Kind::Calls, "System calls of the server per request"),
        (Kind::Instructions, "User instructions of the server per request"),
    ] {
        let cases: Vec<_> = results.iter().filter(|(case, _)| case.kind == kind).collect();
        if !cases.is_empty() {
            let _ = writeln!(text, "\n## {title}\n");
            text.push_str(&side_by_side(&cases, settings));
        }
        if kind == Kind::Cpu {
            text.push_str(&growth(&cases, settings));
        }
    }
    for (case, findings) in results {
        let title = match case.kind {
            Kind::Cpu | Kind::Calls | Kind::Instructions => continue,
            Kind::Idle if case.mode == Mode::Readable => {
                format!("{} idle connections that wait without a buffer, after one echo each", case.connections)
            }
            Kind::Idle => format!("{} idle connections after one echo each", case.connections),
            Kind::Burst => format!("{} tasks runnable at once, in lock-step on one CPU", case.connections),
            Kind::Free => {
                format!(
                    "{} connections, messages of {} bytes, generator and server on {} CPUs",
                    case.connections, case.size, settings.cpus
                )
            }
            Kind::Hogs => format!(
                "echo on {} connections while {} tasks {}, with {} workers, after the first 100 ms",
                case.connections,
                settings.cpus * 2,
                match case.hog {
                    Hog::Spin => "never yield",
                    Hog::Yield => "yield in a loop",
                    Hog::Sleep => "block their threads in sleeps",
                },
                settings.cpus
            ),
            Kind::Scale => {
                format!("{} connections, {} µs of additional user CPU time per request", case.connections, case.work_us)
            }
        };
        let _ = writeln!(text, "\n## {}: {title}\n", case.name);
        text.push_str(&one_case(findings));
    }
    text.push_str(parts);
    let notes: Vec<&String> = notes.iter().chain(results.iter().flat_map(|(_, findings)| &findings.notes)).collect();
    if !notes.is_empty() {
        text.push_str("\n## Not measured\n\n");
        for note in notes {
            let _ = writeln!(text, "- {note}");
        }
    }
    text
}

/// Returns the heading of the report, with the date, the machine, the versions and the kind of run.
fn heading(settings: &Settings) -> String {
    let kernel = output("uname", &["-sr"]);
    let date = output("date", &["-u", "+%F %R UTC"]);
    let cpu_model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            Some(text.lines().find(|line| line.starts_with("model name"))?.split(':').nth(1)?.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown CPU".to_owned());
    format!(
        "# Comparison of {date}\n\nMachine: {} × {cpu_model}, {kernel}. Compiler: {}. Runtimes: {}. Messages are sent \
         over loopback, and have 64 bytes unless stated otherwise. {}. This is a {} run.\n",
        settings.cpus,
        output("rustc", &["--version"]),
        versions(&settings.runtimes),
        settings.tracer.map_or("System calls were not counted".to_owned(), |tracer| {
            format!("System calls were counted with {}", format!("{tracer:?}").to_lowercase())
        }),
        if settings.quick { "quick" } else { "full" },
    )
}

/// Returns the first line of a program's output, or an empty string if the program cannot be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}

/// Returns the names and versions of the measured runtimes. The versions of crates are from this
/// package's lock file, and Go's is from `go env`.
fn versions(runtimes: &[String]) -> String {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap_or_default();
    let mut names: Vec<&str> = Vec::new();
    for runtime in runtimes {
        let name = runtime.split('-').next().filter(|name| matches!(*name, "netpoll" | "tokio")).unwrap_or(runtime);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let found = names.iter().filter_map(|name| {
        if *name == go::NAME {
            return Some(output("go", &["env", "GOVERSION"]).replacen("go", "Go ", 1));
        }
        let package = lock.split("[[package]]").find(|text| text.contains(&format!("\nname = \"{name}\"\n")))?;
        let version = package.lines().find_map(|line| line.strip_prefix("version = "))?;
        Some(format!("{name} {}", version.trim_matches('"')))
    });
    found.collect::<Vec<_>>().join(", ")
}

/// Returns a table with one row per server and one column per case. A cell has the first figure of
/// the server in the case.
fn side_by_side(cases: &[&(Case, Findings)], settings: &Settings) -> String {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(cases.iter().map(|(case, _)| case.name.to_owned()));
    for runtime in &settings.runtimes {
        let figures: Vec<Option<&Figure>> = cases.iter().map(|(_, findings)| findings.first(runtime)).collect();
        if figures.iter().any(Option::is_some) {
            let mut row = vec![runtime.clone()];
            row.extend(figures.into_iter().map(|figure| figure.map_or("–".to_owned(), cell)));
            rows.push(row);
        }
    }
    table(&rows)
}

/// Returns a table that shows how the cost of a request grows with the number of connections,
/// compared with the bare loop. A cell has the ratio to the bare loop, divided by the same ratio in
/// the first case. The cases are those of a plain echo on at least 64 connections. Returns an empty
/// string if there are fewer than two such cases.
fn growth(cases: &[&(Case, Findings)], settings: &Settings) -> String {
    let cases: Vec<_> = cases
        .iter()
        .filter(|(case, _)| {
            case.mode == Mode::Echo
                && case.churn.is_none()
                && !case.in_block_on
                && !case.idle_thread
                && case.connections >= 64
        })
        .collect();
    if cases.len() < 2 {
        return String::new();
    }
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(cases.iter().map(|(case, _)| case.name.to_owned()));
    for runtime in &settings.runtimes {
        let ratios: Option<Vec<f64>> = cases.iter().map(|(_, findings)| findings.first(runtime)?.ratio).collect();
        if let Some(ratios) = ratios {
            let mut row = vec![runtime.clone()];
            row.extend(ratios.iter().map(|ratio| format!("{:.3}", ratio / ratios[0])));
            rows.push(row);
        }
    }
    format!(
        "\n## growth: the ratio of the CPU time per request to that of the bare loop, divided by the same ratio in {}\n\n{}",
        cases[0].0.name,
        table(&rows)
    )
}

/// Returns a table with one row per server and one column per figure.
fn one_case(findings: &Findings) -> String {
    let Some((_, first)) = findings.figures.first() else { return "No figures.\n".to_owned() };
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(first.iter().map(|figure| figure.name.to_owned()));
    for (runtime, figures) in &findings.figures {
        let mut row = vec![runtime.clone()];
        row.extend(figures.iter().map(cell));
        rows.push(row);
    }
    table(&rows)
}

/// Returns the text of a figure: the value, and the ratio in brackets if there is one.
fn cell(figure: &Figure) -> String {
    let value = figure.value.map_or("–".to_owned(), number);
    match figure.ratio {
        Some(ratio) if ratio >= 10.0 => format!("{value} ({ratio:.0})"),
        Some(ratio) => format!("{value} ({ratio:.3})"),
        None => value,
    }
}

/// Formats a value with up to three decimal places.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Returns a Markdown table with padded columns. The first row is the header.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(3)).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                text.push_str(if column == 0 { "| " } else { "|-" });
                text.push_str(&"-".repeat(*width));
                text.push_str(if column == 0 { " " } else { ":" });
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn tables_are_padded_markdown() {
        let rows =
            [vec!["", "µs"], vec!["bare", "4.330 (1.000)"]].map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(
            super::table(&rows),
            "|      |            µs |\n| ---- |--------------:|\n| bare | 4.330 (1.000) |\n"
        );
    }
}
