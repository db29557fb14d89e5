//! `Machine`: the part of a thread's simulation below the scheduler: the kernel, the clock, and the
//! host whose code is running.
//!
//! The functions that replace those of the C library find the machine of their thread by a
//! thread-local pointer. The time has its own thread-local.
//!
//! # Invariants
//! * The kernel is not borrowed while user code runs.
//! * [`Machine::enter`] sets the pointer, and [`Inside`] clears it before the machine is dropped.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, ptr};

use super::kernel::Kernel;
use super::kernel::random::Random;
use super::kernel::socket::HostId;
use super::lane::Lane;
use super::real::Real;
use super::slots::Slots;
use super::tag::Tag;

/// CLOCK_MONOTONIC at the start of a simulation, in nanoseconds: 100 days after boot.
const MONOTONIC_START: u64 = 8_640_000 * 1_000_000_000;

/// CLOCK_REALTIME at the start of a simulation, in nanoseconds: 2026-01-01 00:00:00 UTC.
pub(crate) const WALL_START: u64 = 1_767_225_600 * 1_000_000_000;

/// The last time that the clock of a simulation shows, in nanoseconds since its start: 146 years.
/// The sum of four such times does not overflow.
pub(crate) const TIME_MAX: u64 = u64::MAX / 4;

/// The time, in nanoseconds, after which sysmon would have asked a task that blocks its thread to
/// yield.
const LONG_NANOS: u64 = 20_000_000;

thread_local! {
    static CURRENT: Cell<*const Machine> = const { Cell::new(ptr::null()) };
    /// The result of [`simulates`].
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    /// The result of [`now`].
    static NOW: Cell<u64> = const { Cell::new(0) };
    /// The start of the crate's clock in the simulations of this thread.
    static BASE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The lower half of a simulation.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: RefCell<Kernel>,
    lane: Lane,
    /// The random numbers of getrandom(2) and [`Sim::random`](crate::sim::Sim::random).
    entropy: RefCell<Random>,
    /// The host whose code is running.
    pub(crate) host: Cell<HostId>,
    /// The tag for tasks that this code spawns.
    pub(crate) tag: Cell<Tag>,
    /// Whether tasks may start threads.
    pub(crate) allows_threads: Cell<bool>,
    /// Whether tasks may open files.
    pub(crate) allows_files: Cell<bool>,
    /// Descriptions of the requests that the simulation has refused.
    pub(crate) refusals: RefCell<Vec<String>>,
    pub(crate) slots: RefCell<Slots>,
    /// Called when a task has blocked its thread for at least [`LONG_NANOS`] of virtual time.
    pub(crate) on_long_block: Cell<Option<fn()>>,
    /// The real sockets, if only the clock is virtual.
    pub(crate) real: Option<Real>,
}

/// A guard. Until it is dropped, its machine is the machine of the thread.
#[derive(Debug)]
pub(crate) struct Inside(());

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(ptr::null()));
        SIMULATES.with(|simulates| simulates.set(false));
        NOW.with(|now| now.set(0));
    }
}

/// Calls `f` with the machine of this thread, or with `None` if the thread is in no simulation.
#[allow(unsafe_code)]
pub(crate) fn with<T>(f: impl FnOnce(Option<&Machine>) -> T) -> T {
    // SAFETY: the pointer is null, or that of a machine that outlives its `Inside`, which clears
    // the pointer.
    f(CURRENT.with(|current| unsafe { current.get().as_ref() }))
}

/// Returns whether this thread is in a simulation.
#[inline]
pub(crate) fn is_here() -> bool {
    CURRENT.with(|current| !current.get().is_null())
}

/// Returns whether this thread is in a simulation in which more than the clock is virtual: in which
/// sockets are simulated, random numbers come from the seed, and threads and files need permission.
#[inline]
pub(crate) fn simulates() -> bool {
    SIMULATES.with(Cell::get)
}

/// Returns the tag for a task spawned on this thread.
pub(crate) fn tag() -> Tag {
    with(|machine| machine.map_or(Tag::default(), |machine| machine.tag.get()))
}

/// Returns the time of CLOCK_MONOTONIC in this thread's simulation in nanoseconds. Returns 0
/// outside simulations and in [`in_real_time`].
#[inline]
pub(crate) fn now() -> u64 {
    NOW.with(Cell::get)
}

/// Returns the virtual time of this thread's simulation. Returns `None` outside simulations and in
/// [`in_real_time`].
#[cfg(netpoll_no_interpose)]
pub(crate) fn instant() -> Option<Instant> {
    let since = Duration::from_nanos(now().checked_sub(MONOTONIC_START)?);
    clock_base()?.checked_add(since)
}

/// Returns whether the clock with this number is virtual in simulations. Clocks that measure CPU
/// time are real; those of clock_getcpuclockid(3) and pthread_getcpuclockid(3) have negative
/// numbers.
#[inline]
pub(super) fn is_virtual(clock: i32) -> bool {
    clock >= 0 && !matches!(clock, libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Returns the time of a clock in this thread's simulation in nanoseconds. Returns `None` outside
/// simulations, in [`in_real_time`], and for clocks that measure CPU time.
pub(crate) fn clock(clock: i32) -> Option<u64> {
    if now() == 0 || !is_virtual(clock) {
        return None;
    }
    let is_wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI);
    Some(if is_wall { with(|machine| machine.map_or(WALL_START, Machine::wall_clock)) } else { now() })
}

/// Fills `buf` with random bytes that depend on the seed of this thread's simulation. Returns false
/// outside simulations, and if only the clock is virtual.
pub(crate) fn fill_random(buf: &mut [u8]) -> bool {
    simulates() && with(|machine| machine.map(|machine| machine.fill_random(buf))).is_some()
}

/// Calls `read` with the real clocks in place of this thread's virtual clocks.
pub(crate) fn in_real_time<T>(read: impl FnOnce() -> T) -> T {
    let before = NOW.replace(0);
    let result = read();
    NOW.set(before);
    result
}

/// Returns the start of the crate's clock in a simulation. Returns `None` outside simulations and
/// in [`in_real_time`].
#[inline]
pub(crate) fn clock_base() -> Option<Instant> {
    if now() == 0 { None } else { simulated_base() }
}

#[cold]
fn simulated_base() -> Option<Instant> {
    // All simulations on a thread begin at the same virtual time, to which the base belongs.
    BASE.with(|base| {
        if base.get().is_none() {
            let since = Duration::from_nanos(now().saturating_sub(MONOTONIC_START));
            base.set(Instant::now().checked_sub(since));
        }
        base.get()
    })
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.lane.end(self.kernel.get_mut().numbers_in_use());
    }
}

impl Machine {
    /// Creates a machine whose random choices depend on `seed`. `notify` is called when another
    /// thread has closed a descriptor of this simulation.
    pub(crate) fn new(seed: u64, notify: impl Fn() + Send + Sync + 'static) -> Machine {
        let lane = Lane::take(seed, Arc::new(notify));
        let mut kernel = Kernel::new(seed);
        kernel.first_descriptor = lane.first_descriptor();
        Machine {
            kernel: RefCell::new(kernel),
            lane,
            entropy: RefCell::new(Random::new(seed, 4)),
            host: Cell::new(0),
            tag: Cell::default(),
            allows_threads: Cell::new(false),
            allows_files: Cell::new(false),
            refusals: RefCell::default(),
            slots: RefCell::default(),
            on_long_block: Cell::new(None),
            real: None,
        }
    }

    /// Creates a machine in which only the clock is virtual.
    pub(crate) fn with_real_sockets(notify: impl Fn() + Send + Sync + 'static) -> io::Result<Machine> {
        let mut machine = Machine::new(0, notify);
        machine.real = Some(Real::new()?);
        Ok(machine)
    }

    /// Returns the number of the simulation.
    pub(crate) fn world(&self) -> u32 {
        self.tag.get().world
    }

    /// Closes the descriptors that other threads have asked to close.
    pub(crate) fn close_from_elsewhere(&self) {
        for fd in self.lane.take_closed() {
            let _ = self.kernel.borrow_mut().close(fd);
        }
    }

    /// Records a refusal, and prints it to standard error.
    pub(crate) fn refuse(&self, text: String) {
        eprintln!("netpoll: {text}");
        self.refusals.borrow_mut().push(text);
    }

    /// Records and prints a refusal unless it was recorded before.
    pub(crate) fn refuse_once(&self, text: String) {
        if !self.refusals.borrow().contains(&text) {
            self.refuse(text);
        }
    }

    /// Makes this the thread's machine until the guard is dropped. The guard must be dropped before
    /// the machine.
    pub(crate) fn enter(&self) -> Inside {
        CURRENT.with(|current| current.set(self));
        SIMULATES.with(|simulates| simulates.set(self.real.is_none()));
        self.set_clock(0);
        Inside(())
    }

    /// Calls `f` with the kernel. Returns `None` if the kernel is already borrowed, which should
    /// not happen, because this crate calls no replaced function while it borrows the kernel.
    pub(crate) fn try_kernel<T>(&self, f: impl FnOnce(&mut Kernel) -> T) -> Option<T> {
        self.kernel.try_borrow_mut().ok().map(|mut kernel| f(&mut kernel))
    }

    /// Sets the time since the start of the simulation to `now` nanoseconds, or to [`TIME_MAX`] if
    /// that is earlier.
    pub(crate) fn set_clock(&self, now: u64) {
        let now = now.min(TIME_MAX);
        self.kernel.borrow_mut().now = now;
        NOW.with(|cell| cell.set(MONOTONIC_START + now));
    }

    /// Advances the clock by `nanos`, even if tasks can run, because a task blocks its thread for
    /// this time.
    pub(crate) fn block_for(&self, nanos: u64) {
        let now = self.kernel.borrow().now;
        self.set_clock(now.saturating_add(nanos));
        if nanos >= LONG_NANOS
            && let Some(call) = self.on_long_block.get()
        {
            call();
        }
    }

    /// Returns CLOCK_REALTIME on the host whose code is running, in nanoseconds since 1970.
    pub(crate) fn wall_clock(&self) -> u64 {
        let Ok(kernel) = self.kernel.try_borrow() else { return WALL_START };
        let offset = kernel.hosts[usize::from(self.host.get())].clock_offset;
        (WALL_START + kernel.now).saturating_add_signed(offset)
    }

    pub(crate) fn fill_random(&self, bytes: &mut [u8]) {
        self.entropy.borrow_mut().fill(bytes);
    }
}
