//! Socket activation: taking listeners and other descriptors from the process that started this
//! process, and passing them to a successor process.
//!
//! The protocol is systemd's, sd_listen_fds(3). The descriptors are numbered from 3. `LISTEN_FDS`
//! is their count, `LISTEN_FDNAMES` lists their names, and `LISTEN_PID` is the id of the process
//! for which they are intended. Children of that process inherit the environment but have other
//! ids, so they do not take the descriptors.
//!
//! # Without `LISTEN_PID`
//! A process does not know the process id of a child before fork(2), and between fork(2) and
//! exec(2) it cannot safely change the environment. Therefore [`pass`] omits `LISTEN_PID` and sets
//! two other variables, which [`take`] checks:
//!
//! * `NETPOLL_LISTEN_PARENT`: the process that passes the descriptors (its id and start time) and
//!   the time of the call. The descriptors are for a child of that process, or for that process
//!   itself after exec(2). If that process has ended, its children were reparented, and the
//!   descriptors are for a process whose current parent has id 1 or is older than the process that
//!   passed them. Children of the child do not take them, unless that process and the child have
//!   both ended.
//! * `NETPOLL_LISTEN_FDS`: the device and inode of each descriptor, and the number under which it
//!   is open if the intended number was in use.
//!
//! A successor that calls sd_listen_fds(3) needs `LISTEN_PID`. Start it as
//! `sh -c 'LISTEN_PID=$$ exec "$0" "$@"' program`.
//!
//! # The environment
//! [`take`] does not change the environment, because a change is not safe in a process with
//! threads. A change is not necessary either: [`take`] makes the descriptors close-on-exec, and
//! `LISTEN_PID` or the check of the parent keeps children from taking them, even children that were
//! started before [`take`] was called.
//!
//! # Unix listeners
//! A [`UnixListener`](crate::os::unix::net::UnixListener) that was bound to a path removes its file
//! when it is closed. Clients that connect by the path then no longer reach the successor. So the
//! old process tells its listener to keep the file:
//!
//! ```no_run
//! use netpoll::{net::activation, os::unix::net::UnixListener};
//! use std::{os::fd::AsFd, process::Command};
//!
//! fn succeed(listener: &UnixListener) -> std::io::Result<()> {
//!     let mut successor = Command::new(std::env::current_exe()?);
//!     activation::pass(&mut successor, [("control", listener.as_fd())])?;
//!     successor.spawn()?;
//!     listener.set_unlink_on_close(false)
//! }
//! ```
//!
//! [`serve`](super::serve()) takes the listener. To use the listener while the server runs, pass an
//! `Arc` of it. The successor's listener, `UnixListener::from(OwnedFd::from(socket))`, keeps the
//! file by default. The process that stops the service removes the file, unless the service manager
//! does.
//!
//! # Examples
//! ```no_run
//! use netpoll::net::{TcpListener, activation};
//!
//! # async fn open() -> std::io::Result<()> {
//! // Use the socket that the service manager opened, or open one.
//! let listener = match activation::take()?.into_iter().find(|socket| socket.name() == "web") {
//!     Some(socket) => socket.into_tcp_listener()?,
//!     None => TcpListener::bind("[::]:8080").await?,
//! };
//! # drop(listener); Ok(()) }
//! ```
//! The example `hot_restart` replaces a running server without refusing a connection.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::time::SystemTime;

use socket2::Type;

use super::TcpListener;
use crate::sync::Mutex;
use crate::sys::inherit::{self, Identity, Process};
use crate::sys::option;

/// The number of the first descriptor (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;

/// The maximum number of descriptors.
const COUNT_MAX: usize = 1 << 16;

/// The maximum length of the list of names and of the list of descriptors. The kernel limits each
/// variable, including its name, to 128 KiB (MAX_ARG_STRLEN, execve(2)), and the longer of the two
/// names, `NETPOLL_LISTEN_FDS`, has 18 bytes.
const VALUE_MAX: usize = (128 << 10) - 32;

const PASSED: &str = "NETPOLL_LISTEN_FDS";
const PARENT: &str = "NETPOLL_LISTEN_PARENT";

/// A descriptor that was passed to this process.
#[derive(Debug)]
pub struct Activated {
    name: String,
    fd: OwnedFd,
}

impl Activated {
    /// Returns the name of the descriptor: systemd's `FileDescriptorName=`, the name given to
    /// [`pass`], or `unknown`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the descriptor is a listening TCP socket.
    pub fn is_tcp_listener(&self) -> bool {
        let fd = self.fd.as_fd();
        option::is_ip(fd).is_ok_and(|is| is)
            && option::socket::kind(fd).is_ok_and(|kind| kind == Type::STREAM)
            && option::socket::is_listener(fd).is_ok_and(|listens| listens)
    }

    /// Converts the descriptor to a listener. The socket keeps the options set by the process that
    /// opened it. Use [`ListenConfig::limit`](super::ListenConfig::limit) to add limits.
    ///
    /// # Errors
    /// Returns `InvalidInput` and closes the descriptor if it is not a listening TCP socket.
    ///
    /// # Panics
    /// Panics in the same cases as the conversion of an `OwnedFd` into a [`TcpListener`].
    pub fn into_tcp_listener(self) -> io::Result<TcpListener> {
        if self.is_tcp_listener() {
            Ok(TcpListener::from(self.fd))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a listening TCP socket", self.name)))
        }
    }
}

impl AsFd for Activated {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Activated> for OwnedFd {
    /// Returns the descriptor. Use it for other kinds of sockets, such as
    /// `UnixListener::from(OwnedFd::from(socket))`, and for descriptors that are not sockets.
    fn from(activated: Activated) -> OwnedFd {
        activated.fd
    }
}

/// The parsed environment variables.
#[derive(Debug, PartialEq)]
struct Announced {
    names: Vec<String>,
    /// The value of `NETPOLL_LISTEN_PARENT`, the process that it names, and the descriptors, all of
    /// which [`pass`] has set. `None` if `LISTEN_PID` is set.
    passed: Option<(String, Process, Vec<Passed>)>,
}

/// A descriptor passed by [`pass`].
#[derive(Debug, PartialEq)]
struct Passed {
    identity: Identity,
    /// The number under which the descriptor is open if the intended number was in use.
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

    /// Returns the number under which the descriptor is open, preferably `number`. Returns `None`
    /// if it is not open or was not inherited.
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

/// Parses the environment variables. Returns `None` if they announce no descriptors for the process
/// `pid`.
fn announced(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Option<Announced>> {
    let text = |name: &str| match variable(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(text)) => Err(invalid(format!("{name} is not valid UTF-8: {text:?}"))),
    };
    let Some(count) = text("LISTEN_FDS")? else { return Ok(None) };
    let passed = match text("LISTEN_PID")? {
        Some(of) => match of.parse::<u32>() {
            Ok(of) if of == pid => None,
            Ok(_) => return Ok(None),
            Err(_) => return Err(invalid(format!("LISTEN_PID is not a process id: {of}"))),
        },
        None => match text(PASSED)?.zip(text(PARENT)?) {
            Some(passed) => Some(passed),
            None => return Ok(None),
        },
    };
    let count = count.parse().ok().filter(|&count: &usize| count <= COUNT_MAX);
    let count = count.ok_or_else(|| invalid("LISTEN_FDS is not a number from 0 to 65536".to_owned()))?;
    let passed = match passed {
        None => None,
        Some((passed, parent)) => {
            let all: Option<Vec<_>> = passed.split_terminator(',').map(Passed::parse).collect();
            let all = all.filter(|all| all.len() == count);
            let all =
                all.ok_or_else(|| invalid(format!("{PASSED} does not describe {count} descriptors: {passed}")))?;
            let process = parent.split_once('@').and_then(|(process, _)| Process::parse(process));
            let process = process.ok_or_else(|| invalid(format!("{PARENT} does not name a process: {parent}")))?;
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

/// Takes the descriptors that were passed to this process, in order. Returns an empty list if no
/// descriptors were passed, and on every call after the call that took them.
///
/// Call this function early. Until it is called, processes that this process starts also inherit
/// the descriptors, although they do not take them. The descriptors are made close-on-exec.
///
/// # Errors
/// Returns `InvalidData` if the variables are invalid or inconsistent. If `LISTEN_PID` is set, also
/// returns `InvalidData` if a descriptor was not inherited (it is close-on-exec), and EBADF if a
/// descriptor is not open; without `LISTEN_PID`, returns an empty list in these two cases. A call
/// that returns an error takes nothing.
///
/// Source: sd_listen_fds(3), sd_listen_fds_with_names(3).
#[doc(alias = "sd_listen_fds")]
#[allow(unsafe_code)]
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
            // Each number must be taken only once, even if the variable lists it twice.
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
    inherit::make_private(&numbers)?;
    *taken = true;
    let adopt = |(number, name)| {
        // SAFETY: the descriptor was passed to this process, and this function takes it only once
        // (`taken`, and the numbers are distinct). It was inherited, and no other code in this
        // process owns it, because descriptors that this process opens are close-on-exec. It is
        // open: `make_private` has succeeded.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        Activated { name, fd }
    };
    Ok(numbers.into_iter().zip(names).map(adopt).collect())
}

/// Passes `fds`, each with a name, to the process that `command` starts. The process calls [`take`]
/// to get them.
///
/// The command holds duplicates, which keep a listener's port open, so drop the command when the
/// successor is running. The caller may then close its listener, because the successor shares the
/// queue of connections. A [Unix listener](self#unix-listeners) must first be told to keep its
/// file. Only a child of this process takes the descriptors, or this process itself after
/// [`exec`](std::os::unix::process::CommandExt::exec).
///
/// The descriptors are passed under consecutive numbers from 3 on. If this process closes a
/// descriptor with one of these numbers between this call and the spawn, a descriptor may be passed
/// under another number. [`take`] finds it; a successor that calls sd_listen_fds(3) does not.
///
/// # Errors
/// Returns `InvalidInput` if a name contains `:` or a control character or is longer than 255
/// bytes, if the names, or the list of descriptors, exceed 128 KiB (about 8,000 descriptors), or if
/// the command already passes descriptors. Returns EMFILE or EINVAL at the descriptor limit. For
/// each descriptor that it passes, the call opens one or two further descriptors.
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
#[doc(alias = "hot restart")]
#[doc(alias = "systemd")]
pub fn pass<'a>(command: &mut Command, fds: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>) -> io::Result<()> {
    const TOO_MANY: &str =
        "too many descriptors: their names, or their list, exceed an environment variable of 128 KiB";
    let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    if command.get_envs().any(|(name, value)| name == PASSED && value.is_some()) {
        return Err(refused("the command already passes descriptors"));
    }
    let (names, fds): (Vec<_>, Vec<_>) = fds.into_iter().unzip();
    if names.iter().any(|name| name.len() > 255 || name.contains(|c: char| c == ':' || c.is_control())) {
        return Err(refused("descriptor name must have at most 255 bytes, no colon and no control character"));
    }
    let names = names.join(":");
    let check = |text: &str| if text.len() > VALUE_MAX { Err(refused(TOO_MANY)) } else { Ok(()) };
    check(&names)?;
    // The duplicates have numbers above all targets, so that no dup2(2) replaces a source that is
    // still needed. All target numbers are filled, so that the channel by which `Command` learns of
    // a failed exec(2) does not get one of them, unless one is closed before the spawn.
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
    // The time makes the mark of each call unique, even if the process replaces itself with exec(2)
    // between two calls.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut passed = String::new();
    for source in &sources {
        let _ = write!(passed, "{}@{},", Identity::of_open(source.as_fd())?, source.as_raw_fd());
    }
    check(&passed)?;
    command
        .env("LISTEN_FDS", sources.len().to_string())
        .env("LISTEN_FDNAMES", names)
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
    fn variables_apply_only_to_the_process_they_name() {
        let to_100 = ("LISTEN_PID", "100");
        assert_eq!(names(&[]), None);
        assert_eq!(names(&[to_100]), None);
        assert_eq!(names(&[("LISTEN_FDS", "1")]), None, "no process is named");
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
        assert_eq!(names(&[("LISTEN_FDS", "1"), (PASSED, "8-1")]), None, "no parent is named");
        assert!(Process::parse("7-").is_some(), "a start time is optional, because proc(5) may be absent");
    }

    #[test]
    fn invalid_variables_are_errors() {
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
