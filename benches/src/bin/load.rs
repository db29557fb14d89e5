//! Runs the load generator.
//!
//! ```text
//! load --port P [--connections 1] [--size 64] [--churn server|client] [--free]
//!      [--amount 1000|1.5s] [--stay] [--patience 10] [--cpu N] [--batch]
//! ```
//!
//! The program connects to port P of 127.0.0.1, makes one run and prints `result` and the figures
//! of the run (`generator::Outcome`). If it fails, it prints `failed` and the error, also to
//! standard output, and exits with status 1.
//!
//! - `--size` sets the bytes per message. `--amount` sets the messages per connection, or the
//!   seconds, after which the run ends. `--patience` sets the time limit of a blocking read or
//!   write in seconds.
//! - With `--churn`, each connection is closed after one echo, by the side named. Otherwise
//!   connections stay open.
//! - Without `--free`, and always with `--churn`, the generator runs in lock-step. The measured CPU
//!   time is meaningful only if generator and server have the same options `--cpu N --batch`.
//! - `--cpu` pins the process to a CPU. `--batch` sets the scheduling policy SCHED_BATCH.
//! - With `--stay`, the program prints `warm` when its connections are open. It then reads amounts
//!   from standard input, one per line, and makes a run for each, until the input ends. `--amount`
//!   has no effect.

use netpoll_bench::arguments::Arguments;
use netpoll_bench::generator::{Amount, Generator, PATIENCE, Plan};
use netpoll_bench::sys;
use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&["free", "stay", "batch"])?;
    let plan = Plan {
        port: arguments.optional("port")?.ok_or("--port is required")?,
        connections: arguments.value("connections", 1)?,
        size: arguments.value("size", 64)?,
        churn: arguments.optional("churn")?,
        lock_step: !arguments.flag("free"),
        patience: Duration::from_secs(arguments.value("patience", PATIENCE.as_secs())?.max(1)),
    };
    let amount = arguments.value("amount", Amount::Requests(1000))?;
    let stay = arguments.flag("stay");
    let (cpu, batch) = (arguments.optional("cpu")?, arguments.flag("batch"));
    arguments.finish()?;
    if plan.connections == 0 || plan.size == 0 {
        return Err("--connections and --size must be at least 1".to_owned());
    }
    let text = |error: std::io::Error| error.to_string();
    sys::place(cpu, batch).map_err(text)?;
    let mut generator = Generator::new(plan).map_err(text)?;
    if !stay {
        println!("result {}", generator.run(amount).map_err(text)?);
        return Ok(());
    }
    println!("warm");
    for line in std::io::stdin().lock().lines() {
        let amount = line.map_err(text)?.trim().parse()?;
        println!("result {}", generator.run(amount).map_err(text)?);
    }
    Ok(())
}
