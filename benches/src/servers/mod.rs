//! The same echo server for each runtime, one file per runtime, written in the usual style of that runtime's users.
//!
//! Each server except [`go`], which is a separate program, has a function `serve` with an argument `&'static Options`. The function binds
//! 127.0.0.1 with port 0, calls [`Options::ready`] with the port, and serves until the process ends. The process exits when its standard input
//! ends.

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

/// The deadline that [`Mode::Deadline`] sets before every read.
pub const READ_DEADLINE: Duration = Duration::from_secs(30);

/// How the server handles a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Writes back the bytes it reads, until the client ends its stream.
    Echo,
    /// Like [`Mode::Echo`], with [`READ_DEADLINE`] set before every read.
    Deadline,
    /// Like [`Mode::Echo`], with [`READ_DEADLINE`] as the timeout of every read. netpoll sets it once per connection. Other runtimes have no such
    /// option and treat this mode as [`Mode::Deadline`].
    Timeout,
    /// Makes one read and one write, and closes the connection.
    Churn,
    /// Like [`Mode::Echo`], with a buffer that exists only from the arrival of a message until its answer is sent. async-std refuses this mode,
    /// and the bare loop treats it as [`Mode::Echo`].
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

/// The behaviour of a hog: a task (in the bare loop, a thread) that competes with the echo for the CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hog {
    /// Computes and never yields.
    Spin,
    /// Yields to its executor in a loop.
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
    /// Runs a hog until it yields. [`Hog::Spin`] never yields.
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

/// Which threads of a server run its tasks. Only runtimes that have two kinds use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Workers, as many as the options say.
    Workers,
    /// The thread of `block_on`.
    Single,
}

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the server handles a connection.
    pub mode: Mode,
    /// The number of worker threads.
    pub workers: usize,
    /// The size of a connection's buffer in bytes.
    pub buffer: usize,
    /// Whether the future of `block_on`, not a spawned task, serves the only connection.
    pub serve_in_block_on: bool,
    /// The number of hogs, which run at the same time as the echo.
    pub hogs: usize,
    /// The behaviour of the hogs.
    pub hog: Hog,
    /// The user CPU time to spend on each request in addition to the echo.
    pub work: Work,
}

impl Options {
    /// Tells the parent that the server listens, and begins to read commands from it ([`control`]).
    ///
    /// # Panics
    /// Panics if [`control::listen`] fails, for example because standard input is closed.
    pub fn ready(&self, port: u16) {
        control::listen().expect("standard input must be a pipe or a terminal");
        println!("ready {port}");
    }
}

/// An amount of user CPU time, as a number of loop iterations that is calibrated once. Unlike a loop that reads the clock, the work takes
/// longer when another thread uses the CPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    turns: u64,
}

impl Work {
    /// Finds the number of iterations for `microseconds`.
    #[must_use]
    pub fn calibrated(microseconds: u64) -> Work {
        if microseconds == 0 {
            return Work::default();
        }
        const TRIAL: u64 = 2_000_000;
        // Uses the thread's CPU clock, because wall-clock time includes the time of other programs.
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

/// The servers in this build, in the order of the report.
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

/// Serves with the runtime named `runtime` until the process ends.
///
/// # Errors
/// Returns `InvalidInput` if this build does not have the runtime, and an error if the server cannot start or accepting fails.
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
