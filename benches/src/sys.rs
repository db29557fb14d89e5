//! Functions over system calls: epoll, sockets as raw descriptors, scheduling, limits, CPU clocks
//! and usage.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Converts a return value of −1 to the error in the calling thread's errno.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An epoll instance. A registration without `EPOLLET` is level-triggered.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Creates an epoll instance.
    ///
    /// # Errors
    /// Returns the errors of epoll_create1(2).
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: the call takes a flag and returns a descriptor or −1.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and has no other owner.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers `fd` for `events`, which are reported with `data`.
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    pub fn add(&self, fd: RawFd, events: i32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events, data)
    }

    /// Changes the events for which `fd` is registered, and their data.
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    pub fn modify(&self, fd: RawFd, events: i32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events, data)
    }

    /// Removes `fd` from the instance.
    ///
    /// # Errors
    /// Returns the errors of epoll_ctl(2).
    pub fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: data };
        // SAFETY: `event` is valid for the call; the kernel checks both descriptors.
        checked(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Waits up to `timeout_ms` milliseconds for events, or without a limit if `timeout_ms` is −1.
    /// Returns the number of events, which is 0 after a timeout or a signal.
    ///
    /// # Errors
    /// Returns the errors of epoll_wait(2), except EINTR.
    pub fn wait(&self, events: &mut [libc::epoll_event], timeout_ms: i32) -> io::Result<usize> {
        let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `capacity` events to the slice.
        match checked(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), capacity, timeout_ms) }) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// An event without content, to initialise a buffer for [`Epoll::wait`].
pub const NO_EVENT: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

/// Accepts a connection with accept4(2), `SOCK_NONBLOCK` and `SOCK_CLOEXEC`, without retrieving the
/// peer's address.
///
/// # Errors
/// Returns the errors of accept4(2). The error is `WouldBlock` if the listener is non-blocking and
/// no connection is waiting.
pub fn accept_nonblocking(listener: RawFd) -> io::Result<RawFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: both address pointers are null, so the kernel writes no address.
    checked(unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) })
}

/// Receives into `buffer` with recv(2). Returns the number of bytes, which is 0 at the end of the
/// stream.
///
/// # Errors
/// Returns the errors of recv(2).
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the slice.
    let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Sends `bytes` with send(2), without SIGPIPE. Returns the number of bytes that the kernel
/// accepted.
///
/// # Errors
/// Returns the errors of send(2).
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads `bytes.len()` bytes of the slice.
    let count = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Closes `fd`, which must belong to the caller.
pub fn close(fd: RawFd) {
    // SAFETY: the call takes a number, and the caller owns the descriptor. An error needs no
    // action.
    unsafe { libc::close(fd) };
}

/// Binds `fd` to the loopback address 127.0.`network`.1. The kernel chooses the port at connect(2).
/// With several source addresses, there can be more connections to a port than one address has
/// ephemeral ports (28,232 by default).
///
/// # Errors
/// Returns the errors of setsockopt(2) and bind(2).
pub fn bind_loopback(fd: RawFd, network: u8) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the option is a c_int that is valid for the call.
    checked(unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const yes).cast(),
            size_of::<libc::c_int>() as u32,
        )
    })?;
    let address = internet_address(std::net::SocketAddrV4::new([127, 0, network, 1].into(), 0));
    // SAFETY: the address is valid for the call, and its length is that of its type.
    checked(unsafe { libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_in>() as u32) }).map(drop)
}

/// Opens a blocking TCP connection to `to`, from 127.0.`network`.1.
///
/// # Errors
/// Returns the errors of socket(2), setsockopt(2), bind(2) and connect(2).
pub fn connect(to: std::net::SocketAddrV4, network: u8) -> io::Result<std::net::TcpStream> {
    // SAFETY: the call takes three numbers and returns a descriptor or −1.
    let fd = checked(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and has no other owner.
    let stream = unsafe { std::net::TcpStream::from_raw_fd(fd) };
    bind_loopback(fd, network)?;
    let address = internet_address(to);
    // SAFETY: the address is valid for the call, and its length is that of its type.
    checked(unsafe { libc::connect(fd, (&raw const address).cast(), size_of::<libc::sockaddr_in>() as u32) })?;
    Ok(stream)
}

/// Converts an address to the kernel's format.
fn internet_address(address: std::net::SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// Pins the calling thread to one CPU, and with it the threads and processes that it starts
/// afterwards.
///
/// # Errors
/// Returns the errors of sched_setaffinity(2). The error is EINVAL if the thread cannot run on this
/// CPU, or if the number does not fit in a `cpu_set_t`.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all bits zero is an empty set.
    let set = unsafe { set.assume_init_mut() };
    // SAFETY: the set is initialised, and the number is within its size.
    unsafe { libc::CPU_SET(cpu, set) };
    // SAFETY: the set is valid for the call, and its size is that of its type.
    checked(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) }).map(drop)
}

/// Returns the CPUs on which the calling thread may run.
///
/// # Errors
/// Returns the errors of sched_getaffinity(2).
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the given size to the set.
    checked(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) })?;
    // SAFETY: the set was zeroed and then written by the kernel.
    let set = unsafe { set.assume_init() };
    // SAFETY: the set is initialised and the numbers are within its size.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Sets the scheduling policy SCHED_BATCH for the calling thread, and for the threads and processes
/// that it starts afterwards. A thread with this policy does not preempt the running thread when it
/// wakes up.
///
/// # Errors
/// Returns the errors of sched_setscheduler(2).
pub fn schedule_batch() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are valid for the call.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) }).map(drop)
}

/// Calls [`pin_to`] if `cpu` is `Some`, and [`schedule_batch`] if `batch` is true.
///
/// # Errors
/// Returns the errors of [`pin_to`] and [`schedule_batch`].
pub fn place(cpu: Option<usize>, batch: bool) -> io::Result<()> {
    if let Some(cpu) = cpu {
        pin_to(cpu)?;
    }
    if batch { schedule_batch() } else { Ok(()) }
}

/// Raises the soft limit on open descriptors to the hard limit. Returns the new limit.
///
/// # Errors
/// Returns the errors of getrlimit(2) and setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the limit is valid for the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Returns the CPU time of all threads of process `pid` in nanoseconds. This does not interrupt the
/// process.
///
/// # Errors
/// Returns the errors of clock_getcpuclockid(3), which fails with ESRCH if there is no such
/// process, and of clock_gettime(2).
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut clock = 0;
    // SAFETY: the clock id is written to a valid place.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a valid place.
    checked(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Returns the CPU time of the calling thread in nanoseconds.
///
/// # Errors
/// Returns the errors of clock_gettime(2). None is expected.
pub fn thread_cpu_ns() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a valid place.
    checked(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Returns the number of minor page faults of the calling thread, or 0 if getrusage(2) fails.
pub fn thread_faults() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the usage is written to a valid place.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: the usage consists of plain numbers, which were zeroed.
    if result == 0 { unsafe { usage.assume_init() }.ru_minflt as u64 } else { 0 }
}

/// The CPU time and the context switches of a process, as returned by getrusage(2).
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// The CPU time in user space, in microseconds.
    pub user_us: u64,
    /// The CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// The number of times that a thread gave up its CPU in order to wait.
    pub voluntary: u64,
    /// The number of times that a thread lost its CPU while it was runnable.
    pub involuntary: u64,
}

/// Returns the usage of the calling process.
///
/// # Errors
/// Returns the errors of getrusage(2).
pub fn own_usage() -> io::Result<Usage> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one rusage.
    checked(unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) })?;
    // SAFETY: the usage was zeroed and then written by the kernel.
    let usage = unsafe { usage.assume_init() };
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Ok(Usage {
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        voluntary: usage.ru_nvcsw as u64,
        involuntary: usage.ru_nivcsw as u64,
    })
}

/// Sends SIGINT to process `pid`, a child of the caller.
pub fn interrupt(pid: u32) {
    // SAFETY: the call takes two numbers. It fails only if the process has already ended.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGINT) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn cpu_time_of_own_process_advances() {
        let before = super::process_cpu_ns(std::process::id()).unwrap();
        let mut sum = 0u64;
        while super::process_cpu_ns(std::process::id()).unwrap() < before + 2_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = super::own_usage().unwrap();
        assert!(usage.user_us + usage.system_us > 0);
    }

    #[test]
    fn at_least_one_cpu_is_allowed() {
        assert!(!super::allowed_cpus().unwrap().is_empty());
    }

    #[test]
    fn pinning_to_a_number_beyond_any_cpu_is_an_error() {
        for cpu in [libc::CPU_SETSIZE as usize, usize::MAX] {
            assert_eq!(super::pin_to(cpu).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }
}
