//! Socket activation: sockets that a process inherits from the process that started it, and passes to its successor.
//!
//! The protocol is systemd's, sd_listen_fds(3): the descriptors are 3 and those that follow; `LISTEN_FDS` says how many,
//! `LISTEN_FDNAMES` what they are called, `LISTEN_PID` for which process they are, so that children who inherit the environment do
//! not take them for theirs.
//!
//! # Without `LISTEN_PID`
//! A process that starts another does not know its number before fork(2), and between fork and exec(2) the environment can no longer be
//! written safely. So [`pass`] leaves `LISTEN_PID` out and sets two variables of its own, which [`take`] checks:
//!
//! * `NETPOLL_LISTEN_PARENT`, the process that passes (its number and its start), and when it does. The descriptors are for its
//!   child, and not for the children of that child. If it has ended, they are for a process that an older one has adopted.
//! * `NETPOLL_LISTEN_FDS`, the device and inode of each descriptor, and the number under which it is open if it could not have its own.
//!
//! A successor that reads the environment by sd_listen_fds(3) itself needs `LISTEN_PID`: start it as
//! `sh -c 'LISTEN_PID=$$ exec "$0" "$@"' program`.
//!
//! # The environment
//! It is left as it is: changing it is not safe in a process with threads, and not needed. Taken descriptors are close-on-exec, and
//! `LISTEN_PID`, or the check of the parent, keeps children from taking them, also those that were started before [`take`] was called.
//!
//! # Examples
//! ```no_run
//! use netpoll::net::{TcpListener, activation};
//!
//! # async fn open() -> std::io::Result<()> {
//! // The socket that the service manager opened, or one of our own.
//! let listener = match activation::take()?.into_iter().find(|socket| socket.name() == "web") {
//!     Some(socket) => socket.into_tcp_listener()?,
//!     None => TcpListener::bind("[::]:8080").await?,
//! };
//! # drop(listener); Ok(()) }
//! ```
//! The example `hot_restart` replaces a running server with no connection refused.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::Command;
use std::time::SystemTime;

use socket2::{Domain, SockRef, Type};

use super::TcpListener;
use crate::sync::Mutex;
use crate::sys::inherit::{self, Identity, Process};

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;

/// More are taken for a mistake.
const COUNT_MAX: usize = 1 << 16;

const PASSED: &str = "NETPOLL_LISTEN_FDS";
const PARENT: &str = "NETPOLL_LISTEN_PARENT";

/// A descriptor that this process was started with.
#[derive(Debug)]
pub struct Activated {
    name: String,
    fd: OwnedFd,
}

impl Activated {
    /// Its name: systemd's `FileDescriptorName=`, what [`pass`] was given, or `unknown`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a TCP socket that listens.
    pub fn is_tcp_listener(&self) -> bool {
        let socket = SockRef::from(&self.fd);
        let is_ip = socket.domain().is_ok_and(|domain| domain == Domain::IPV4 || domain == Domain::IPV6);
        is_ip && socket.r#type().is_ok_and(|ty| ty == Type::STREAM) && socket.is_listener().is_ok_and(|listens| listens)
    }

    /// The listener. Its options are as they were set where it was opened;
    /// [`ListenConfig::limit`](super::ListenConfig::limit) gives it limits.
    ///
    /// # Errors
    /// `InvalidInput` when it is something else, which is closed.
    pub fn into_tcp_listener(self) -> io::Result<TcpListener> {
        if self.is_tcp_listener() {
            Ok(TcpListener::from(self.fd))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no TCP socket that listens", self.name)))
        }
    }
}

impl AsFd for Activated {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Activated> for OwnedFd {
    /// For sockets of other kinds, as `UnixListener::from(OwnedFd::from(socket))`, and what is no socket.
    fn from(activated: Activated) -> OwnedFd {
        activated.fd
    }
}

/// What the environment says.
#[derive(Debug, PartialEq)]
struct Announced {
    names: Vec<String>,
    /// By [`pass`], where no `LISTEN_PID` says that they are ours: the value of `NETPOLL_LISTEN_PARENT`, its process, and what it passed.
    passed: Option<(String, Process, Vec<Passed>)>,
}

/// A descriptor of [`pass`].
#[derive(Debug, PartialEq)]
struct Passed {
    identity: Identity,
    /// Its number, if it is not open under the one that it is meant to have.
    otherwise: Option<RawFd>,
}

impl Passed {
    fn parse(text: &str) -> Option<Passed> {
        let (identity, otherwise) = match text.split_once('@') {
            Some((identity, number)) => (identity, Some(number.parse().ok().filter(|&number| number >= FIRST)?)),
            None => (text, None),
        };
        Some(Passed { identity: Identity::parse(identity)?, otherwise })
    }

    /// The number under which it is, `number` if possible.
    fn find(&self, number: RawFd) -> Option<RawFd> {
        [Some(number), self.otherwise].into_iter().flatten().find(|&number| {
            Identity::of(number).is_ok_and(|found| found == self.identity)
                && inherit::is_inherited(number).is_ok_and(|is| is)
        })
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn announced(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Option<Announced>> {
    let text = |name: &str| match variable(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(text)) => Err(invalid(format!("{name} is not text: {text:?}"))),
    };
    let Some(count) = text("LISTEN_FDS")? else { return Ok(None) };
    let passed = match text("LISTEN_PID")? {
        Some(of) => match of.parse::<u32>() {
            Ok(of) if of == pid => None,
            Ok(_) => return Ok(None),
            Err(_) => return Err(invalid(format!("LISTEN_PID is no process: {of}"))),
        },
        None => match text(PASSED)?.zip(text(PARENT)?) {
            Some(passed) => Some(passed),
            None => return Ok(None),
        },
    };
    let count = count.parse().ok().filter(|&count: &usize| count <= COUNT_MAX);
    let count = count.ok_or_else(|| invalid("LISTEN_FDS is no count".to_owned()))?;
    let passed = match passed {
        None => None,
        Some((passed, parent)) => {
            let all: Option<Vec<_>> = passed.split_terminator(',').map(Passed::parse).collect();
            let all = all.filter(|all| all.len() == count);
            let all =
                all.ok_or_else(|| invalid(format!("{PASSED} does not describe {count} descriptors: {passed}")))?;
            let process = parent.split_once('@').and_then(|(process, _)| Process::parse(process));
            let process = process.ok_or_else(|| invalid(format!("{PARENT} is no process: {parent}")))?;
            Some((parent, process, all))
        }
    };
    let names: Vec<String> = match text("LISTEN_FDNAMES")? {
        None => vec!["unknown".to_owned(); count],
        Some(names) if names.is_empty() && count == 0 => Vec::new(),
        Some(names) => names.split(':').map(str::to_owned).collect(),
    };
    if names.len() != count {
        return Err(invalid(format!("LISTEN_FDNAMES has {} names for {count} descriptors", names.len())));
    }
    Ok(Some(Announced { names, passed }))
}

/// Takes the descriptors that this process was started with, in order. Returns none if it was not started with any, and at every call
/// after one that returned some.
///
/// Call it early: until then, processes that this one starts inherit the descriptors too, though they do not take them. They are made
/// close-on-exec.
///
/// # Errors
/// `InvalidData` when the variables contradict themselves, or a number announced by `LISTEN_PID` was not inherited (it is close-on-exec);
/// EBADF when it is not open. Nothing is taken then.
///
/// Source: sd_listen_fds(3), sd_listen_fds_with_names(3).
pub fn take() -> io::Result<Vec<Activated>> {
    static TAKEN: Mutex<bool> = Mutex::new(false);
    let mut taken = TAKEN.lock();
    if *taken {
        return Ok(Vec::new());
    }
    let Some(Announced { names, passed }) = announced(std::process::id(), |name| std::env::var_os(name))? else {
        return Ok(Vec::new());
    };
    let numbers = match passed {
        Some((mark, parent, passed)) => {
            let found = (FIRST..).zip(&passed).map(|(number, passed)| passed.find(number)).collect::<Option<Vec<_>>>();
            // Each number has one owner, whatever the variable says.
            let is_distinct = |found: &Vec<RawFd>| found.iter().collect::<BTreeSet<_>>().len() == found.len();
            let found = found.filter(is_distinct).filter(|_| parent.started_this_one((PARENT, &mark)));
            let Some(found) = found else { return Ok(Vec::new()) };
            found
        }
        None => (FIRST..).take(names.len()).collect(),
    };
    for (number, name) in numbers.iter().zip(&names) {
        if !inherit::is_inherited(*number)? {
            return Err(invalid(format!("descriptor {number} ({name}) was not inherited")));
        }
    }
    *taken = true;
    numbers
        .into_iter()
        .zip(names)
        .map(|(number, name)| Ok(Activated { name, fd: inherit::adopt_inherited(number)? }))
        .collect()
}

/// Has the processes that `command` starts inherit `fds`, each under a name, for [`take`] to find them.
///
/// The command holds duplicates, which keep a listener's port open: drop it when the successor runs. The caller may close its own
/// listener: connections that wait in the queue belong to both. Only a process that this one starts takes the descriptors.
///
/// The numbers are 3 and those that follow. If one of them is closed here between this call and the spawning, another number may be
/// used in its place. [`take`] finds that one; a successor that reads the environment by itself does not.
///
/// # Errors
/// `InvalidInput` for a name that has a `:`, a control character or more than 255 bytes, for more than 65,536 descriptors, and for a
/// command that has been given some already. EMFILE: as many more are needed, and up to as many again.
///
/// # Examples
/// ```no_run
/// use netpoll::net::{TcpListener, activation};
/// use std::{os::fd::AsFd, process::Command};
///
/// # fn succeed(listener: &TcpListener) -> std::io::Result<()> {
/// let mut successor = Command::new(std::env::current_exe()?);
/// activation::pass(&mut successor, [("web", listener.as_fd())])?;
/// successor.spawn()?;
/// # Ok(()) }
/// ```
pub fn pass<'a>(command: &mut Command, fds: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>) -> io::Result<()> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    if command.get_envs().any(|(name, value)| name == PASSED && value.is_some()) {
        return Err(refused("the command passes descriptors already"));
    }
    let (names, fds): (Vec<_>, Vec<_>) = fds.into_iter().unzip();
    if names.iter().any(|name| name.len() > 255 || name.contains(|c: char| c == ':' || c.is_control())) {
        return Err(refused("a descriptor's name has up to 255 bytes, no colon and no control character"));
    }
    if fds.len() > COUNT_MAX {
        return Err(refused("too many descriptors"));
    }
    // Sources beyond all targets, so that no dup2(2) replaces one that is still to come. No number below is left free, so that the
    // channel by which `Command` learns of a failed exec(2) gets none of them, unless one is closed before the spawning.
    let beyond = FIRST + fds.len() as RawFd;
    let sources = fds.iter().map(|fd| inherit::dup_above(*fd, beyond)).collect::<io::Result<Vec<_>>>()?;
    let mut kept = Vec::new();
    if let Some(source) = sources.first() {
        loop {
            let filler = inherit::dup_above(source.as_fd(), FIRST)?;
            if filler.as_raw_fd() >= beyond {
                break;
            }
            kept.push(filler);
        }
    }
    // No two calls have the same, also not of a process that became another by exec(2) in between.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut passed = String::new();
    for source in &sources {
        let _ = write!(passed, "{}@{},", Identity::of_open(source.as_fd())?, source.as_raw_fd());
    }
    command
        .env("LISTEN_FDS", sources.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .env(PASSED, passed)
        .env(PARENT, format!("{}@{}", Process::own(), now.as_nanos()))
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_PIDFDID");
    inherit::pass_at(command, FIRST, sources, kept);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> io::Result<Option<Announced>> {
        announced(100, |name| variables.iter().find(|(have, _)| *have == name).map(|(_, value)| value.into()))
    }

    fn names(variables: &[(&str, &str)]) -> Option<Vec<String>> {
        read(variables).unwrap().map(|announced| announced.names)
    }

    #[test]
    fn the_environment_says_whose_they_are() {
        let to_100 = ("LISTEN_PID", "100");
        assert_eq!(names(&[]), None);
        assert_eq!(names(&[to_100]), None);
        assert_eq!(names(&[("LISTEN_FDS", "1")]), None, "for nobody in particular");
        assert_eq!(names(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "99")]), None);
        assert_eq!(names(&[("LISTEN_FDS", "0"), to_100]), Some(vec![]));
        assert_eq!(names(&[("LISTEN_FDS", "0"), to_100, ("LISTEN_FDNAMES", "")]), Some(vec![]));
        assert_eq!(names(&[("LISTEN_FDS", "2"), to_100]), Some(vec!["unknown".to_owned(); 2]));
        let named = [("LISTEN_FDS", "3"), to_100, ("LISTEN_FDNAMES", "a::c")];
        assert_eq!(names(&named), Some(["a", "", "c"].map(str::to_owned).to_vec()));
        let parent = (PARENT, "7-55@9");
        let passed = read(&[("LISTEN_FDS", "2"), (PASSED, "8-1234,8-99@17,"), parent]).unwrap().unwrap().passed;
        let (_, process, passed) = passed.unwrap();
        assert_eq!(process.to_string(), "7-55");
        assert_eq!(passed.iter().map(|passed| passed.otherwise).collect::<Vec<_>>(), [None, Some(17)]);
        assert_eq!(names(&[("LISTEN_FDS", "1"), (PASSED, "8-1")]), None, "nobody passes them");
        assert!(Process::parse("7-").is_some(), "without a start, where there is no proc(5)");
    }

    #[test]
    fn nonsense_is_an_error() {
        let to_100 = ("LISTEN_PID", "100");
        let cases: &[&[(&str, &str)]] = &[
            &[("LISTEN_FDS", "x"), to_100],
            &[("LISTEN_FDS", "-1"), to_100],
            &[("LISTEN_FDS", ""), to_100],
            &[("LISTEN_FDS", "99999999999999999999"), to_100],
            &[("LISTEN_FDS", "2000000"), to_100],
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "")],
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "100x")],
            &[("LISTEN_FDS", "1"), to_100, ("LISTEN_FDNAMES", "a:b")],
            &[("LISTEN_FDS", "2"), to_100, ("LISTEN_FDNAMES", "a")],
            &[("LISTEN_FDS", "1"), (PASSED, ""), (PARENT, "7-55@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1,8-2"), (PARENT, "7-55@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8"), (PARENT, "7-55@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-x"), (PARENT, "7-55@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1@"), (PARENT, "7-55@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1@-1"), (PARENT, "7-55@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1@2"), (PARENT, "7-55@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1"), (PARENT, "")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1"), (PARENT, "7-55")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1"), (PARENT, "7@9")],
            &[("LISTEN_FDS", "1"), (PASSED, "8-1"), (PARENT, "x-1@9")],
        ];
        for case in cases {
            assert_eq!(read(case).unwrap_err().kind(), io::ErrorKind::InvalidData, "{case:?}");
        }
    }
}
