//! The same echo server for each runtime. Each runtime has a file, which is written as a user of
//! the runtime would write it.
//!
//! [`go`] is a separate program. The module of any other server has a function `serve` with an
//! argument `&'static Options`. The function binds 127.0.0.1 with port 0, calls [`Options::ready`]
//! with the port, and serves until the process ends. The process exits when its standard input ends
//! ([`control`]).

pub mod bare;
pub mod control;

#[cfg(feature = "peers")]
pub mod async_std;
pub mod go;
#[cfg(feature = "peers")]
pub mod monoio;
#[cfg(feature = "netpoll")]
pub mod netpoll;
#[cfg(feature = "peers")]
pub mod smol;
#[cfg(feature = "peers")]
pub mod tokio;

use crate::sys;
use std::hint::black_box;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// The time limit of a read in [`Mode::Deadline`] and [`Mode::Timeout`].
pub const READ_DEADLINE: Duration = Duration::from_secs(30);

/// How the server handles a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Sends back the bytes that it reads, until the client ends its stream.
    Echo,
    /// Like [`Mode::Echo`], with a time limit of [`READ_DEADLINE`] for every read, which is set
    /// before each read. The bare loop sets it after each read, for the next one.
    Deadline,
    /// Like [`Mode::Echo`], with a time limit of [`READ_DEADLINE`] for every read, which is set
    /// once per connection. Only netpoll has such an option. The other servers treat this mode as
    /// [`Mode::Deadline`].
    Timeout,
    /// Makes one read and one write, and closes the connection.
    Churn,
    /// Like [`Mode::Echo`], with a buffer that exists only from the arrival of a message until its
    /// answer is sent. The server on async-std refuses this mode. The bare loop, which has one
    /// buffer for all connections, treats it as [`Mode::Echo`].
    Readable,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        match text {
            "echo" => Ok(Mode::Echo),
            "deadline" => Ok(Mode::Deadline),
            "timeout" => Ok(Mode::Timeout),
            "churn" => Ok(Mode::Churn),
            "readable" => Ok(Mode::Readable),
            _ => Err("must be echo, deadline, timeout, churn or readable".to_owned()),
        }
    }
}

impl Mode {
    /// Returns whether each read has the time limit [`READ_DEADLINE`].
    #[must_use]
    pub fn has_deadline(self) -> bool {
        matches!(self, Mode::Deadline | Mode::Timeout)
    }

    /// Returns the name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Deadline => "deadline",
            Mode::Timeout => "timeout",
            Mode::Churn => "churn",
            Mode::Readable => "readable",
        }
    }
}

/// The behaviour of a hog: a task (in the bare loop, a thread) that competes with the echo for the
/// CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hog {
    /// Computes and never yields.
    Spin,
    /// Yields to its executor (in the bare loop, to the kernel) in a loop.
    Yield,
    /// Blocks its thread for 100 ms and then yields, in a loop.
    Sleep,
}

impl FromStr for Hog {
    type Err = String;

    fn from_str(text: &str) -> Result<Hog, String> {
        match text {
            "spin" => Ok(Hog::Spin),
            "yield" => Ok(Hog::Yield),
            "sleep" => Ok(Hog::Sleep),
            _ => Err("must be spin, yield or sleep".to_owned()),
        }
    }
}

impl Hog {
    /// Does the work of a hog between two yields. Never returns for [`Hog::Spin`].
    pub fn turn(self) {
        match self {
            Hog::Spin => loop {
                black_box(());
            },
            Hog::Yield => {}
            Hog::Sleep => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The threads that run the tasks of a server on netpoll or tokio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// [`Options::workers`] worker threads.
    Workers,
    /// The thread that calls `block_on`.
    Single,
}

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the server handles a connection.
    pub mode: Mode,
    /// The number of worker threads. For the bare loop, this is the number of loops. Ignored with
    /// [`Flavour::Single`].
    pub workers: usize,
    /// The size of a connection's buffer in bytes.
    pub buffer: usize,
    /// Whether the future of `block_on`, not a spawned task, serves the only connection.
    pub serve_in_block_on: bool,
    /// The number of hogs.
    pub hogs: usize,
    /// The behaviour of the hogs.
    pub hog: Hog,
    /// The user CPU time to spend on each request in addition to the echo.
    pub work: Work,
}

impl Options {
    /// Begins to read commands from standard input ([`control`]), and then prints `ready` and the
    /// port.
    ///
    /// # Panics
    /// Panics if [`control::listen`] fails, for example because standard input is closed, or if
    /// standard output cannot be written.
    pub fn ready(&self, port: u16) {
        control::listen().expect("standard input must be a pipe or a terminal");
        println!("ready {port}");
    }
}

/// An amount of user CPU time, as a number of loop iterations, which is calibrated once. A loop
/// that ends at a given time would instead do less work when other threads use the CPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    turns: u64,
}

impl Work {
    /// Returns work that takes this number of microseconds of CPU time.
    #[must_use]
    pub fn calibrated(microseconds: u64) -> Work {
        if microseconds == 0 {
            return Work::default();
        }
        const TRIAL: u64 = 2_000_000;
        // Uses the thread's CPU clock, because wall-clock time includes the time for which other
        // threads had the CPU.
        let trial = || {
            let start = sys::thread_cpu_ns()?;
            Work { turns: TRIAL }.burn();
            Ok::<u64, io::Error>(sys::thread_cpu_ns()? - start)
        };
        let best = (0..5).filter_map(|_| trial().ok()).min().unwrap_or(u64::MAX);
        Work { turns: TRIAL * microseconds * 1_000 / best.max(1) }
    }

    /// Uses the CPU time.
    #[inline]
    pub fn burn(self) {
        let mut state = 1u64;
        for _ in 0..self.turns {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

/// The names of the servers in this build, in the order of the report.
pub const RUNTIMES: &[&str] = &[
    "bare",
    #[cfg(feature = "netpoll")]
    "netpoll",
    #[cfg(feature = "netpoll")]
    "netpoll-single",
    #[cfg(feature = "peers")]
    "tokio",
    #[cfg(feature = "peers")]
    "tokio-current",
    #[cfg(feature = "peers")]
    "smol",
    #[cfg(feature = "peers")]
    "async-std",
    #[cfg(feature = "peers")]
    "monoio",
    #[cfg(feature = "peers")]
    go::NAME,
];

/// Runs the server named `runtime` until the process ends.
///
/// # Errors
/// Returns `InvalidInput` if this build does not have the server, or if it is [`go`], which is a
/// separate program. Returns an error if the server cannot start or if accepting fails.
pub fn serve(runtime: &str, options: &'static Options) -> io::Result<()> {
    match runtime {
        "bare" => bare::serve(options),
        #[cfg(feature = "netpoll")]
        "netpoll" => netpoll::serve(options, Flavour::Workers),
        #[cfg(feature = "netpoll")]
        "netpoll-single" => netpoll::serve(options, Flavour::Single),
        #[cfg(feature = "peers")]
        "tokio" => tokio::serve(options, Flavour::Workers),
        #[cfg(feature = "peers")]
        "tokio-current" => tokio::serve(options, Flavour::Single),
        #[cfg(feature = "peers")]
        "smol" => smol::serve(options),
        #[cfg(feature = "peers")]
        "async-std" => async_std::serve(options),
        #[cfg(feature = "peers")]
        "monoio" => monoio::serve(options),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("runtime `{runtime}` is not one of {RUNTIMES:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Work;

    #[test]
    fn calibrated_work_takes_about_its_time() {
        let work = Work::calibrated(1_000);
        let fastest = (0..20)
            .map(|_| {
                let start = crate::sys::thread_cpu_ns().unwrap();
                work.burn();
                (crate::sys::thread_cpu_ns().unwrap() - start) / 1_000
            })
            .min()
            .unwrap();
        assert!((300..5_000).contains(&fastest), "{fastest} µs instead of 1,000");
        assert_eq!(Work::calibrated(0).turns, 0);
    }
}
