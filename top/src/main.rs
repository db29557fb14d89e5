//! `netpoll-top`: shows what the tasks, sockets and workers of a running netpoll program are doing.
//!
//! The exit status is 0 on success, 1 after an error, and 2 if the arguments are invalid.

mod request;
mod rows;
mod screen;
mod snapshot;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rows::Order;

const USAGE: &str =
    "usage: netpoll-top [--once | --json | --metrics | --trace] [--interval SECONDS] [--sort id|cpu|polls|since]
                   [--filter TEXT] SOCKET

Shows the tasks, sockets and workers of a running program in a live view, or prints one answer and exits.
SOCKET is the path that the program was given with NETPOLL_INSPECT, rt::Builder::inspect_socket or rt::InspectServer.
  --once              print the tables of one snapshot
  --json              print one snapshot as JSON
  --metrics           print the program's metrics in the OpenMetrics format
  --trace             print the last events of the workers as a trace for ui.perfetto.dev
  --interval SECONDS  minimum time between two snapshots of the live view, 0.05 to 3600 (default 1)
  --sort ORDER        first order of the rows of the live view (default id)
  --filter TEXT       show only the rows of tasks, sockets and workers that contain TEXT in a column, in the live
                      view and with --once, whose rows of sockets name tasks by their ids only
  -h, --help          print this text
";

#[derive(Debug)]
struct Arguments {
    /// The format of a single answer, or `None` for the live view.
    format: Option<&'static str>,
    interval: Duration,
    order: Order,
    filter: String,
    path: PathBuf,
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Arguments, String> {
    let (mut format, mut interval, mut order) = (None, Duration::from_secs(1), Order::Id);
    let (mut filter, mut path) = (String::new(), None);
    // The last option that applies only to the live view and `--once`, and the last that applies
    // only to the live view.
    let (mut rows_only, mut live_only) = (None, None);
    while let Some(argument) = arguments.next() {
        let mut value = |name: &str| {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            value.into_string().map_err(|_| format!("the value of {name} is not UTF-8"))
        };
        match argument.to_str() {
            Some("--once") => format = Some("text"),
            Some("--json") => format = Some("json"),
            Some("--metrics") => format = Some("metrics"),
            Some("--trace") => format = Some("trace"),
            Some("--interval") => {
                live_only = Some("--interval");
                let text = value("--interval")?;
                let seconds = text.parse().ok().filter(|&seconds| (0.05..=3600.0).contains(&seconds));
                let seconds =
                    seconds.ok_or(format!("--interval {text}: the number of seconds must be from 0.05 to 3600"))?;
                interval = Duration::from_secs_f64(seconds);
            }
            Some("--sort") => {
                live_only = Some("--sort");
                order = match value("--sort")?.as_str() {
                    "id" => Order::Id,
                    "cpu" => Order::Cpu,
                    "polls" => Order::Polls,
                    "since" => Order::Since,
                    other => return Err(format!("--sort {other}: the order must be id, cpu, polls or since")),
                };
            }
            Some("--filter") => {
                rows_only = Some("--filter");
                filter = value("--filter")?;
            }
            Some("--help" | "-h") => return Err(String::new()),
            Some(option) if option.starts_with('-') => return Err(format!("{option} is not an option")),
            _ if path.is_none() => path = Some(PathBuf::from(argument)),
            _ => return Err("more than one socket was given".to_owned()),
        }
    }
    let unused = match format {
        None => None,
        Some("text") => live_only,
        Some(_) => live_only.or(rows_only),
    };
    if let Some(option) = unused {
        return Err(format!("{option} does not apply to this output format"));
    }
    let path = path.ok_or("no socket was given")?;
    Ok(Arguments { format, interval, order, filter, path })
}

fn run(arguments: Arguments) -> io::Result<()> {
    let Some(format) = arguments.format else {
        return screen::View::new(arguments.path, arguments.order, arguments.filter).run(arguments.interval);
    };
    let mut answer = request::ask(&arguments.path, format, request::LIMITS)?;
    if format == "text" {
        answer = filtered(&printable(&answer), &arguments.filter);
    }
    let mut out = io::stdout().lock();
    out.write_all(answer.as_bytes())?;
    if !answer.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Returns `answer` with control characters other than newlines replaced by question marks. netpoll
/// sends none, but another program may serve the socket, and the output may be a terminal.
fn printable(answer: &str) -> String {
    answer.replace(|letter: char| letter.is_control() && letter != '\n', "?")
}

/// Returns `answer` without the rows that do not contain `filter`. Lines that begin with a digit
/// are rows, except the first line, which is the summary. All other lines are kept, such as the row
/// of the shared queues, which begins with a word.
fn filtered(answer: &str, filter: &str) -> String {
    let is_row = |line: &str| line.starts_with(|c: char| c.is_ascii_digit());
    let lines = answer.split_inclusive('\n').enumerate();
    lines
        .filter(|(number, line)| *number == 0 || line.contains(filter) || !is_row(line))
        .map(|(_, line)| line)
        .collect()
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) if error.is_empty() => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("netpoll-top: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let path = arguments.path.clone();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the output.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netpoll-top: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
