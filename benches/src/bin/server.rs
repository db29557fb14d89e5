//! Runs the echo server of one runtime.
//!
//! ```text
//! server --runtime NAME [--mode echo|deadline|timeout|churn|readable] [--workers 1]
//!        [--buffer 4096] [--serve-in-block-on] [--idle-thread] [--hogs 0]
//!        [--hog spin|yield|sleep] [--work-us 0] [--cpu N] [--batch]
//! ```
//!
//! The program listens on a free port of 127.0.0.1 and prints `ready PORT`. For each byte on
//! standard input except a newline, it prints a line with its CPU time, context switches and
//! memory. It prints such a line when standard input ends, and then exits with status 0. (The Go
//! server prints no such lines.) If the server fails, the program prints the error to standard
//! error and exits with status 1.
//!
//! - NAME is one of `servers::RUNTIMES`; an unknown name prints the list. `go` needs the program
//!   `echo-go` beside this one.
//! - `--mode` sets how a connection is handled (`servers::Mode`), and `--buffer` the size of its
//!   buffer in bytes. With `--serve-in-block-on`, the future of `block_on` serves the only
//!   connection.
//! - `--hogs` adds tasks that compete with the echo, and `--hog` sets their behaviour
//!   (`servers::Hog`). `--work-us` adds microseconds of CPU time to each request. `--idle-thread`
//!   adds a thread that does nothing.
//! - `--cpu` pins the process to a CPU. `--batch` sets the scheduling policy SCHED_BATCH.

use netpoll_bench::arguments::Arguments;
use netpoll_bench::servers::{self, Hog, Mode, Options, Work, go};
use netpoll_bench::sys;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&["serve-in-block-on", "idle-thread", "batch"])?;
    let runtime: String = arguments.optional("runtime")?.ok_or("--runtime is required")?;
    // Called before the process starts a thread, because threads inherit the CPU and the scheduling
    // policy.
    sys::place(arguments.optional("cpu")?, arguments.flag("batch")).map_err(|error| error.to_string())?;
    if runtime == go::NAME {
        // Go's runtime starts threads before `main`, so the Go program cannot place itself.
        return Err(go::execute(arguments.into_words()).to_string());
    }
    let options = Options {
        mode: arguments.value("mode", Mode::Echo)?,
        workers: arguments.value("workers", 1)?,
        buffer: arguments.value("buffer", 4096)?,
        serve_in_block_on: arguments.flag("serve-in-block-on"),
        hogs: arguments.value("hogs", 0)?,
        hog: arguments.value("hog", Hog::Spin)?,
        work: Work::calibrated(arguments.value("work-us", 0)?),
    };
    let idle_thread = arguments.flag("idle-thread");
    arguments.finish()?;
    if options.workers == 0 || options.buffer == 0 {
        return Err("--workers and --buffer must be at least 1".to_owned());
    }
    sys::raise_descriptor_limit().map_err(|error| error.to_string())?;
    for name in ["SMOL_THREADS", "ASYNC_STD_THREAD_COUNT"] {
        // SAFETY: no thread has been started yet that could read the environment.
        unsafe { std::env::set_var(name, options.workers.to_string()) };
    }
    if idle_thread {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    // The options are leaked, so that the task of a connection has only a reference to them.
    servers::serve(&runtime, Box::leak(Box::new(options))).map_err(|error| format!("{runtime}: {error}"))
}
