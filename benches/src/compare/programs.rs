//! The parts of the report that are not cases: the profile of netpoll's echo, and the output of the
//! programs `micro`, `datagrams` and `proxy`. These programs print Markdown.

use super::child::program;
use super::counts::{callgrind_works, profile};
use super::measure::Settings;
use std::process::Command;

/// A part of the report that is not a case.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The name in the option `--case` of `compare`.
    pub name: &'static str,
    title: &'static str,
    run: fn(&Settings) -> Result<String, String>,
}

/// All parts, in the order of the report.
pub const PARTS: &[Part] = &[
    Part { name: "profile", title: "netpoll's instructions per echo (64 connections)", run: echo_profile },
    Part { name: "micro", title: "Single operations", run: micro },
    Part { name: "datagrams", title: "Datagrams, 50 per burst", run: datagrams },
    Part { name: "proxy", title: "Streams and files copied in the kernel", run: proxy },
];

impl Part {
    /// Measures the part. Returns its heading and its text as Markdown. If the part could not be
    /// measured, the text is the reason.
    #[must_use]
    pub fn markdown(&self, settings: &Settings) -> String {
        let text = (self.run)(settings).unwrap_or_else(|error| format!("Not measured: {error}\n"));
        format!("\n## {}: {}\n\n{}\n", self.name, self.title, text.trim_end())
    }
}

fn echo_profile(settings: &Settings) -> Result<String, String> {
    if !callgrind_works() {
        return Err("valgrind is not installed".to_owned());
    }
    profile("netpoll", settings.cpu, settings.quick)
}

fn micro(settings: &Settings) -> Result<String, String> {
    let arguments: &[&str] = if settings.quick {
        &["--rounds", "1", "--case", "spawn-join,yield,yield-257,ping-pong,arm-and-cancel,deadline-later,sleepers"]
    } else {
        &["--rounds", "7"]
    };
    output("micro", arguments)
}

fn datagrams(settings: &Settings) -> Result<String, String> {
    let cpu = settings.cpu.to_string();
    let (rounds, bursts) = if settings.quick { ("3", "400") } else { ("11", "2000") };
    output("datagrams", &["--cpu", &cpu, "--rounds", rounds, "--bursts", bursts])
}

fn proxy(settings: &Settings) -> Result<String, String> {
    let (mib, rounds) = if settings.quick { ("256", "1") } else { ("1024", "5") };
    output("proxy", &["--mib", mib, "--rounds", rounds])
}

/// Runs a program in the directory of the running executable. Returns its output.
fn output(name: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program(name)?).args(arguments).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{name}: {}", text(&output.stderr))) }
}
