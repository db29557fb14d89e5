//! Faults in system calls, injected from outside the crate.
//!
//! A test binary with this module defines functions with the names of functions of the C library.
//! The linker uses them for the calls of the crate, socket2 and std. Each function decides on a
//! fault and, unless the fault replaces the call, calls the C library's function. So the tests run
//! the crate's code without changes, in any profile. In a build with a sanitizer, the functions
//! call the sanitizer's interceptors, which record the memory that the kernel writes.
//!
//! # Kinds of faults
//! * [`inject`] makes a given number of calls of one kind, on one descriptor or on any, fail with
//!   an errno. [`inject_after`] makes the calls first.
//! * [`Chaos`] affects the sockets that socket(2) or accept4(2) creates while it is active. Some
//!   calls on them are interrupted (EINTR), fail (EAGAIN, for accept4 also ECONNABORTED) or are cut
//!   short. The fault of a socket's n-th call is determined by the seed, the socket's serial number
//!   and n. Also, some waits for events are interrupted, and some batches of events are small,
//!   shuffled and extended by a spurious event.
//! * [`Stale`] adds up to four events of closed descriptors, with all flags set, to every batch.
//!
//! # Injected faults keep the kernel's contract
//! After EAGAIN, and after a short count on TCP, the kernel reports an edge when the operation can
//! proceed. If the operation can already proceed when a fault is injected, no edge would follow. So
//! the module renews the registration (EPOLL_CTL_MOD), which makes the kernel report an edge.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::cell::UnsafeCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{
    c_int, c_void, epoll_event, iovec, mmsghdr, msghdr, off64_t, pollfd, sigset_t, size_t, sockaddr, socklen_t,
    ssize_t, timespec,
};

use crate::common::stored_original;

/// [`Chaos`] affects only sockets with descriptor numbers less than this.
const NUMBERS: usize = 1 << 12;

#[derive(Debug)]
struct Rule {
    call: &'static str,
    fd: Option<c_int>,
    errno: c_int,
    /// The number of calls that have yet to fail.
    left: AtomicUsize,
    /// The number of calls that have failed.
    hits: AtomicUsize,
    /// Whether the call is made before its result is replaced.
    after: bool,
}

/// An injected fault, active until the value is dropped.
#[derive(Debug)]
pub struct Injection(Arc<Rule>);

impl Injection {
    /// Returns the number of calls that the fault has affected.
    pub fn hits(&self) -> usize {
        self.0.hits.load(SeqCst)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        locked(&RULES).retain(|rule| !Arc::ptr_eq(rule, &self.0));
        ACTIVE.fetch_sub(1, SeqCst);
    }
}

/// Makes the next `times` calls of this kind (on `fd`, if given) fail with `errno`.
pub fn inject(call: &'static str, fd: impl Into<Option<c_int>>, errno: c_int, times: usize) -> Injection {
    add_rule(call, fd.into(), errno, times, false)
}

/// Makes calls return an error as [`inject`] does, but only after they were made. Has no effect on
/// the results of epoll_ctl(2) and of waits for events.
pub fn inject_after(call: &'static str, fd: impl Into<Option<c_int>>, errno: c_int, times: usize) -> Injection {
    add_rule(call, fd.into(), errno, times, true)
}

fn add_rule(call: &'static str, fd: Option<c_int>, errno: c_int, times: usize, after: bool) -> Injection {
    let (left, hits) = (AtomicUsize::new(times), AtomicUsize::new(0));
    let rule = Arc::new(Rule { call, fd, errno, left, hits, after });
    locked(&RULES).push(rule.clone());
    ACTIVE.fetch_add(1, SeqCst);
    Injection(rule)
}

/// Records epoll registrations until the value is dropped. [`inject`] needs the records to renew
/// registrations after EAGAIN.
pub fn watch() -> Injection {
    add_rule("none", None, 0, 0, false)
}

/// Returns the number of calls of all replaced functions that were made while a fault was active.
pub fn calls() -> u64 {
    CALLS.load(SeqCst)
}

/// Returns the number of calls that [`Chaos`] affected.
pub fn faulted() -> u64 {
    FAULTED.load(SeqCst)
}

/// Returns the number of events that [`Stale`] added.
pub fn stale_events() -> u64 {
    STALE_EVENTS.load(SeqCst)
}

/// Random faults, active until the value is dropped. Only one value may exist at a time.
#[derive(Debug)]
pub struct Chaos(());

impl Chaos {
    /// Begins to affect the calls with a probability of `percent`.
    pub fn begin(seed: u64, percent: u32) -> Chaos {
        SEED.store(seed, SeqCst);
        NEXT_SERIAL.store(1, SeqCst);
        PERCENT.store(percent, SeqCst);
        ACTIVE.fetch_add(1, SeqCst);
        Chaos(())
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        PERCENT.store(0, SeqCst);
        ACTIVE.fetch_sub(1, SeqCst);
    }
}

/// Stale events in every batch, active until the value is dropped.
#[derive(Debug)]
pub struct Stale(());

impl Stale {
    pub fn begin() -> Stale {
        STALE.fetch_add(1, SeqCst);
        ACTIVE.fetch_add(1, SeqCst);
        Stale(())
    }
}

impl Drop for Stale {
    fn drop(&mut self) {
        STALE.fetch_sub(1, SeqCst);
        ACTIVE.fetch_sub(1, SeqCst);
    }
}

// ---- state: plain statics, because calls are made before `main` ----

static ACTIVE: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
static FAULTED: AtomicU64 = AtomicU64::new(0);
static STALE: AtomicUsize = AtomicUsize::new(0);
static STALE_EVENTS: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);
static PERCENT: AtomicU32 = AtomicU32::new(0);
static NEXT_SERIAL: AtomicU32 = AtomicU32::new(1);
/// Serial numbers of the sockets that [`Chaos`] affects, by descriptor; 0 for others.
static SERIALS: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];
/// The number of calls on each of these sockets, from which the next fault is determined.
static COUNTS: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];
static RULES: Mutex<Vec<Arc<Rule>>> = Mutex::new(Vec::new());
static EPOLL: Mutex<Option<Registrations>> = Mutex::new(None);

#[derive(Debug, Default)]
struct Registrations {
    /// The epoll instance, events and data of each registered descriptor.
    live: HashMap<c_int, (c_int, u32, u64)>,
    /// The epoll data of the registered descriptors that were closed last.
    dead: VecDeque<u64>,
}

/// The number of dead registrations that are kept.
const DEAD_MAX: usize = 64;
/// The maximum number of stale events per batch.
const STALE_BATCH: usize = 4;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_epoll<T>(act: impl FnOnce(&mut Registrations) -> T) -> T {
    act(locked(&EPOLL).get_or_insert_default())
}

/// Returns the next number of a splitmix64 generator whose state is `value`.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

// ---- the answer to a call ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The call is made.
    Real,
    /// The call is not made, and fails with this errno.
    Fail(c_int),
    /// The call is made, and then fails with this errno.
    After(c_int),
    /// The call is made with less data. The number determines how much.
    Short(u64),
}

/// Counts a call on this descriptor, and returns a random number if [`Chaos`] is to affect the
/// call.
fn roll(fd: c_int) -> Option<u64> {
    let percent = PERCENT.load(SeqCst);
    let number = usize::try_from(fd).ok().filter(|&number| percent != 0 && number < NUMBERS)?;
    let serial = SERIALS[number].load(SeqCst);
    if serial == 0 {
        return None;
    }
    let count = COUNTS[number].fetch_add(1, SeqCst);
    let random = mix(mix(SEED.load(SeqCst) ^ u64::from(serial) << 32) ^ u64::from(count));
    (random % 100 < u64::from(percent)).then_some(random / 100)
}

/// Decides which fault a call has, and renews the registration of the descriptor if the call fails
/// with EAGAIN.
fn decide(call: &'static str, fd: c_int) -> Answer {
    CALLS.fetch_add(1, SeqCst);
    let ruled = locked(&RULES).iter().find_map(|rule| {
        if rule.call != call || rule.fd.is_some_and(|wanted| wanted != fd) {
            return None;
        }
        rule.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).ok()?;
        rule.hits.fetch_add(1, SeqCst);
        Some(if rule.after { Answer::After(rule.errno) } else { Answer::Fail(rule.errno) })
    });
    if let Some(answer) = ruled {
        if answer == Answer::Fail(libc::EAGAIN) {
            renew(fd);
        }
        return answer;
    }
    let answers: &[Answer] = match call {
        "recv" | "send" | "readv" | "sendmsg" | "splice" | "sendfile64" => {
            &[Answer::Fail(libc::EINTR), Answer::Fail(libc::EAGAIN), Answer::Short(0)]
        }
        "accept4" => &[Answer::Fail(libc::EINTR), Answer::Fail(libc::EAGAIN), Answer::Fail(libc::ECONNABORTED)],
        "recvfrom" | "sendto" | "recvmsg" => &[Answer::Fail(libc::EINTR), Answer::Fail(libc::EAGAIN)],
        // The connection proceeds in the background, and the call reports EINTR.
        "connect" => &[Answer::After(libc::EINTR)],
        _ => return Answer::Real,
    };
    let Some(random) = roll(fd) else { return Answer::Real };
    FAULTED.fetch_add(1, SeqCst);
    match answers[random as usize % answers.len()] {
        Answer::Fail(libc::EAGAIN) => {
            renew(fd);
            Answer::Fail(libc::EAGAIN)
        }
        Answer::Short(_) => Answer::Short(random / 3),
        answer => answer,
    }
}

/// Makes epoll report the current state once more.
fn renew(fd: c_int) {
    if let Some((epoll, events, data)) = with_epoll(|table| table.live.get(&fd).copied()) {
        let mut event = epoll_event { events, u64: data };
        // SAFETY: `event` is valid for the call.
        unsafe { epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd, &raw mut event) };
    }
}

/// Gives a new socket a serial number, and renews the registration after a call that was cut short.
fn note(call: &'static str, fd: c_int, result: i64, answer: Answer) {
    match call {
        "socket" | "accept4" if result >= 0 => adopt(result as c_int),
        "recv" | "send" | "readv" | "sendmsg" | "splice" | "sendfile64" if matches!(answer, Answer::Short(_)) => {
            renew(fd);
        }
        _ => {}
    }
}

/// Gives a new socket a serial number while [`Chaos`] is active.
fn adopt(fd: c_int) {
    if PERCENT.load(SeqCst) != 0
        && let Some(serial) = SERIALS.get(fd as usize)
    {
        COUNTS[fd as usize].store(0, SeqCst);
        serial.store(NEXT_SERIAL.fetch_add(1, SeqCst), SeqCst);
    }
}

/// Records that a descriptor is about to be closed.
fn forget(fd: c_int) {
    if let Some(serial) = usize::try_from(fd).ok().and_then(|number| SERIALS.get(number)) {
        serial.store(0, SeqCst);
    }
    with_epoll(|table| {
        if let Some((_, _, data)) = table.live.remove(&fd) {
            table.dead.push_back(data);
            if table.dead.len() > DEAD_MAX {
                table.dead.pop_front();
            }
        }
    });
}

fn set_errno(errno: c_int) {
    // SAFETY: the function has no precondition.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the location is this thread's errno.
    unsafe { *location = errno };
}

macro_rules! c_name {
    ($prefix:literal, $name:ident) => {
        // SAFETY: the string ends with a NUL, and a name contains none.
        unsafe { CStr::from_bytes_with_nul_unchecked(concat!($prefix, stringify!($name), "\0").as_bytes()) }
    };
}

/// Defines functions that replace those of the C library. `call` is the kind of the call, `fd` is
/// its descriptor, and the block shortens the call's arguments.
macro_rules! interpose {
    ($($name:ident($($arg:ident: $type:ty),*) -> $return:ty, $call:expr, $fd:expr, |$r:ident| $short:block;)*) => {$(
        #[unsafe(no_mangle)]
        #[allow(unused_mut, clippy::missing_safety_doc)]
        pub unsafe extern "C" fn $name($(mut $arg: $type),*) -> $return {
            type Function = unsafe extern "C" fn($($type),*) -> $return;
            static REAL: AtomicUsize = AtomicUsize::new(0);
            let address = stored_original(&REAL, c_name!("", $name), c_name!("__interceptor_", $name));
            // SAFETY: the C library's function of that name has this signature. (fcntl(2) is
            // variadic, which makes no difference to calls on Linux.)
            let function = unsafe { std::mem::transmute::<usize, Function>(address) };
            if ACTIVE.load(SeqCst) == 0 {
                // SAFETY: the caller upholds the function's contract.
                return unsafe { function($($arg),*) };
            }
            let (call, fd): (&'static str, c_int) = ($call, $fd);
            let answer = decide(call, fd);
            match answer {
                Answer::Fail(errno) => {
                    set_errno(errno);
                    return -1;
                }
                Answer::Short($r) => $short,
                Answer::Real | Answer::After(_) => {}
            }
            // SAFETY: the caller upholds the function's contract. A length was only made shorter,
            // and the copy of a message is valid until this thread makes the next copy.
            let result = unsafe { function($($arg),*) };
            if let Answer::After(errno) = answer {
                set_errno(errno);
                return -1;
            }
            note(call, fd, result as i64, answer);
            result
        }
    )*};
}

/// Returns a random length from 1 to less than `length`, or `length` if it is less than 2.
fn shorter(length: size_t, random: u64) -> size_t {
    if length < 2 { length } else { 1 + random as usize % (length - 1) }
}

/// Returns a copy of the message that has only the first buffer, shortened. A message with control
/// data or without a buffer is returned as it is.
fn shorter_message(message: *const msghdr, random: u64) -> *const msghdr {
    thread_local!(static COPY: UnsafeCell<(MaybeUninit<msghdr>, iovec)> =
        const { UnsafeCell::new((MaybeUninit::uninit(), iovec { iov_base: std::ptr::null_mut(), iov_len: 0 })) });
    // SAFETY: the caller's message is valid for the call.
    let mut copy = unsafe { *message };
    if copy.msg_controllen != 0 || copy.msg_iovlen == 0 {
        return message;
    }
    // SAFETY: the message has at least one buffer.
    let mut first = unsafe { *copy.msg_iov };
    first.iov_len = shorter(first.iov_len, random);
    COPY.with(|cell| {
        let place = cell.get();
        // SAFETY: the cell belongs to this thread, and no other reference exists.
        let place = unsafe { &mut *place };
        place.1 = first;
        copy.msg_iov = &raw mut place.1;
        copy.msg_iovlen = 1;
        place.0.write(copy) as *const msghdr
    })
}

fn control_name(operation: c_int) -> &'static str {
    match operation {
        libc::EPOLL_CTL_ADD => "epoll_ctl ADD",
        libc::EPOLL_CTL_MOD => "epoll_ctl MOD",
        _ => "epoll_ctl DEL",
    }
}

fn fcntl_name(command: c_int) -> &'static str {
    match command {
        libc::F_GETFL => "fcntl F_GETFL",
        libc::F_SETFL => "fcntl F_SETFL",
        libc::F_DUPFD_CLOEXEC => "fcntl F_DUPFD_CLOEXEC",
        libc::F_SETPIPE_SZ => "fcntl F_SETPIPE_SZ",
        _ => "fcntl",
    }
}

/// Returns the kind of a connect call. Unix sockets have a separate kind, because their connect has
/// completed when the call returns.
fn connect_name(address: *const sockaddr) -> &'static str {
    // SAFETY: the caller's address has at least a family.
    if c_int::from(unsafe { (*address).sa_family }) == libc::AF_UNIX { "connect unix" } else { "connect" }
}

interpose! {
    recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t, "recv", fd, |r| { len = shorter(len, r) };
    send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t, "send", fd, |r| { len = shorter(len, r) };
    readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t, "readv", fd,
        |r| { count = shorter(count as size_t, r) as c_int };
    sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t, "sendmsg", fd, |r| { msg = shorter_message(msg, r) };
    splice(from: c_int, at: *mut off64_t, to: c_int, out: *mut off64_t, len: size_t, flags: u32) -> ssize_t,
        "splice", from, |r| { len = shorter(len, r) };
    sendfile64(to: c_int, from: c_int, at: *mut off64_t, len: size_t) -> ssize_t, "sendfile64", to,
        |r| { len = shorter(len, r) };
    recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t, "recvmsg", fd, |_r| {};
    recvfrom(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr, size: *mut socklen_t)
        -> ssize_t, "recvfrom", fd, |_r| {};
    sendto(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, to: *const sockaddr, size: socklen_t) -> ssize_t,
        "sendto", fd, |_r| {};
    recvmmsg(fd: c_int, headers: *mut mmsghdr, count: u32, flags: c_int, timeout: *mut timespec) -> c_int,
        "recvmmsg", fd, |_r| {};
    sendmmsg(fd: c_int, headers: *mut mmsghdr, count: u32, flags: c_int) -> c_int, "sendmmsg", fd, |_r| {};
    accept4(fd: c_int, from: *mut sockaddr, size: *mut socklen_t, flags: c_int) -> c_int, "accept4", fd, |_r| {};
    connect(fd: c_int, to: *const sockaddr, size: socklen_t) -> c_int, connect_name(to), fd, |_r| {};
    bind(fd: c_int, to: *const sockaddr, size: socklen_t) -> c_int, "bind", fd, |_r| {};
    listen(fd: c_int, backlog: c_int) -> c_int, "listen", fd, |_r| {};
    shutdown(fd: c_int, how: c_int) -> c_int, "shutdown", fd, |_r| {};
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, "socket", -1, |_r| {};
    socketpair(domain: c_int, kind: c_int, protocol: c_int, ends: *mut c_int) -> c_int, "socketpair", -1, |_r| {};
    pipe2(ends: *mut c_int, flags: c_int) -> c_int, "pipe2", -1, |_r| {};
    getsockname(fd: c_int, name: *mut sockaddr, size: *mut socklen_t) -> c_int, "getsockname", fd, |_r| {};
    getpeername(fd: c_int, name: *mut sockaddr, size: *mut socklen_t) -> c_int, "getpeername", fd, |_r| {};
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, size: *mut socklen_t) -> c_int,
        "getsockopt", fd, |_r| {};
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, size: socklen_t) -> c_int,
        "setsockopt", fd, |_r| {};
    poll(entries: *mut pollfd, count: libc::nfds_t, millis: c_int) -> c_int, "poll", -1, |_r| {};
    fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int, fcntl_name(command), fd, |_r| {};
    write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t, "write", fd, |_r| {};
    read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t, "read", fd, |_r| {};
    pread64(fd: c_int, buf: *mut c_void, len: size_t, at: off64_t) -> ssize_t, "pread64", fd, |_r| {};
    epoll_create1(flags: c_int) -> c_int, "epoll_create1", -1, |_r| {};
    eventfd(value: u32, flags: c_int) -> c_int, "eventfd", -1, |_r| {};
}

/// Replaces close(2). Forgets the descriptor before the call, because the number may be reused
/// afterwards.
#[unsafe(no_mangle)]
#[allow(clippy::missing_safety_doc)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    let address = stored_original(&REAL, c"close", c"__interceptor_close");
    // SAFETY: the C library's function of that name has this signature.
    let function = unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(c_int) -> c_int>(address) };
    if ACTIVE.load(SeqCst) != 0 {
        forget(fd);
        // Linux closes the descriptor even if the call fails.
        if let Answer::Fail(errno) | Answer::After(errno) = decide("close", fd) {
            // SAFETY: the caller upholds the function's contract.
            unsafe { function(fd) };
            set_errno(errno);
            return -1;
        }
    }
    // SAFETY: the caller upholds the function's contract.
    unsafe { function(fd) }
}

/// Replaces epoll_ctl(2) and records registrations.
#[unsafe(no_mangle)]
#[allow(clippy::missing_safety_doc)]
pub unsafe extern "C" fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    type Function = unsafe extern "C" fn(c_int, c_int, c_int, *mut epoll_event) -> c_int;
    let address = stored_original(&REAL, c"epoll_ctl", c"__interceptor_epoll_ctl");
    // SAFETY: the C library's function of that name has this signature.
    let function = unsafe { std::mem::transmute::<usize, Function>(address) };
    if ACTIVE.load(SeqCst) == 0 {
        // SAFETY: the caller upholds the function's contract.
        return unsafe { function(epoll, operation, fd, event) };
    }
    if let Answer::Fail(errno) = decide(control_name(operation), fd) {
        set_errno(errno);
        return -1;
    }
    // SAFETY: the caller upholds the function's contract.
    let result = unsafe { function(epoll, operation, fd, event) };
    if result == 0 {
        with_epoll(|table| match operation {
            libc::EPOLL_CTL_DEL => drop(table.live.remove(&fd)),
            _ => {
                // SAFETY: the caller promises that the event is readable.
                let event = unsafe { *event };
                table.live.insert(fd, (epoll, event.events, event.u64));
            }
        });
    }
    result
}

/// Waits for events in three steps: decides whether to make the call and for how many events, makes
/// the call, and changes the returned batch.
fn wait(
    call: &'static str,
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    real: impl Fn(c_int) -> c_int,
) -> c_int {
    if ACTIVE.load(SeqCst) == 0 {
        return real(most);
    }
    if let Answer::Fail(errno) = decide(call, epoll) {
        set_errno(errno);
        return -1;
    }
    let (percent, stale) = (u64::from(PERCENT.load(SeqCst)), STALE.load(SeqCst) != 0);
    let mut random = mix(SEED.load(SeqCst) ^ CALLS.load(SeqCst));
    let mut next = || {
        random = mix(random);
        random
    };
    let is_chaotic = percent != 0 && next() % 100 < percent;
    if is_chaotic && next() % 4 == 0 {
        FAULTED.fetch_add(1, SeqCst);
        set_errno(libc::EINTR);
        return -1;
    }
    let room = most as usize;
    let mut asked = room;
    if is_chaotic {
        asked = 1 + next() as usize % room;
    }
    if stale && asked > STALE_BATCH {
        asked -= STALE_BATCH;
    }
    let count = real(asked as c_int);
    if count < 0 || !is_chaotic && !stale {
        return count;
    }
    let mut batch: Vec<epoll_event> = Vec::with_capacity(room);
    if stale {
        let all = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
        with_epoll(|table| {
            let dead = table.dead.iter().rev().take(STALE_BATCH.min(room - count as usize));
            batch.extend(dead.map(|&u64| epoll_event { events: all as u32, u64 }));
        });
        STALE_EVENTS.fetch_add(batch.len() as u64, SeqCst);
    }
    // SAFETY: the kernel has initialised `count` events.
    batch.extend(unsafe { std::slice::from_raw_parts(events, count as usize) });
    if is_chaotic {
        FAULTED.fetch_add(1, SeqCst);
        if batch.len() < room {
            // The added event may be spurious. If so, the next call on the descriptor returns
            // EAGAIN.
            let live: Option<u64> = with_epoll(|table| {
                let skip = next() as usize % table.live.len().max(1);
                table.live.values().nth(skip).filter(|live| live.2 != u64::MAX).map(|live| live.2)
            });
            let spurious = (libc::EPOLLIN | libc::EPOLLOUT) as u32;
            batch.extend(live.map(|u64| epoll_event { events: spurious, u64 }));
        }
        for index in (1..batch.len()).rev() {
            batch.swap(index, next() as usize % (index + 1));
        }
    }
    // SAFETY: the caller's buffer has room for `most` events. The batch has at most as many, and
    // does not overlap the buffer.
    unsafe { std::ptr::copy_nonoverlapping(batch.as_ptr(), events, batch.len()) };
    batch.len() as c_int
}

#[unsafe(no_mangle)]
#[allow(clippy::missing_safety_doc)]
pub unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, millis: c_int) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    type Function = unsafe extern "C" fn(c_int, *mut epoll_event, c_int, c_int) -> c_int;
    let address = stored_original(&REAL, c"epoll_wait", c"__interceptor_epoll_wait");
    // SAFETY: the C library's function of that name has this signature.
    let function = unsafe { std::mem::transmute::<usize, Function>(address) };
    // SAFETY: the caller upholds the function's contract, and `wait` requests at most as many
    // events as the caller.
    wait("epoll_wait", epoll, events, most, |most| unsafe { function(epoll, events, most, millis) })
}

#[unsafe(no_mangle)]
#[allow(clippy::missing_safety_doc)]
pub unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    limit: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    type Function = unsafe extern "C" fn(c_int, *mut epoll_event, c_int, *const timespec, *const sigset_t) -> c_int;
    let address = stored_original(&REAL, c"epoll_pwait2", c"__interceptor_epoll_pwait2");
    // SAFETY: the C library's function of that name has this signature.
    let function = unsafe { std::mem::transmute::<usize, Function>(address) };
    // SAFETY: the caller upholds the function's contract, and `wait` requests at most as many
    // events as the caller.
    wait("epoll_pwait2", epoll, events, most, |most| unsafe { function(epoll, events, most, limit, mask) })
}
