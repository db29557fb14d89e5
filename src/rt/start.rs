//! Starts the runtime, on a use while it is stopped or by
//! [`Builder::start`](super::Builder::start). [`shutdown`](super::shutdown()) is the counterpart.

use std::io;

use super::config::Config;
use super::context;
use super::fork;
use super::inspect;
use super::poll::roles::Shards;
use super::runtime::{Runtime, runtime};
use super::sched::task::contain;
use super::sched::user_code::wake_watched;
use super::time::{clock, ticks};
use super::waiters;
use crate::sync::{Arc, Ordering, fence};

/// The configuration that a start has replaced. It may have the last reference to a function of the
/// user, whose destructor must not run under a lock (invariant 12).
#[derive(Default)]
pub(super) struct Replaced(Option<Arc<Config>>);

impl Drop for Replaced {
    fn drop(&mut self) {
        contain(|| drop(self.0.take()));
    }
}

impl Runtime {
    /// Starts the runtime, if it is stopped, because it is used. Returns the epoch; see
    /// [`ensure_running`](Runtime::ensure_running).
    #[cold]
    pub(super) fn start_by_use(&'static self) -> u32 {
        // A simulation runs its tasks itself.
        #[cfg(feature = "sim")]
        if crate::sim::is_here() {
            return self.epoch();
        }
        // Dropped after the lock is released.
        let mut replaced = Replaced::default();
        let _lifecycle = self.lifecycle.lock();
        if self.is_stopping() {
            // The epoch that is ending is returned, so everything that is created in it is invalid.
            return self.epoch().wrapping_sub(1);
        }
        if !self.is_running() {
            if self.prepare_start(Config::from_environment(), &mut replaced).is_err() {
                self.sysmon.set_missing();
                self.set_short_of_threads(true);
            }
            self.start();
        }
        self.epoch()
    }

    /// Prepares a start with `config`: installs the fork handlers, registers functions of higher
    /// layers, serves snapshots if the environment requests it, joins threads that have ended,
    /// publishes the configuration, and starts sysmon or defers its start. The caller must hold
    /// `lifecycle`, and drop `replaced` after it has released the lock.
    ///
    /// # Errors
    /// Returns the error of creating the thread of sysmon.
    pub(super) fn prepare_start(&'static self, mut config: Config, replaced: &mut Replaced) -> io::Result<()> {
        fork::watch(|| runtime().disown());
        waiters::watch_with(wake_watched);
        context::watch_waits_outside(|waker| runtime().stand_in_for(waker));
        inspect::serve_from_environment();
        // Joins threads that were started while the previous runtime shut down.
        self.threads.join_ended();
        config.on_stall = inspect::write_file_of_stall;
        config.publish();
        let is_single_threaded = config.single_threaded;
        replaced.0 = self.config.lock().replace(Arc::new(config));
        if is_single_threaded {
            self.sysmon.defer();
            return Ok(());
        }
        self.start_sysmon_patiently(self.epoch())
    }

    /// Publishes the configuration again that [`prepare_start`](Runtime::prepare_start) has
    /// replaced, because the start has failed. The caller must hold `lifecycle`, and drop
    /// `replaced`, which then has the other configuration, after it has released the lock.
    pub(super) fn restore_config(&'static self, replaced: &mut Replaced) {
        let mut config = self.config.lock();
        std::mem::swap(&mut *config, &mut replaced.0);
        match &*config {
            Some(config) => config.publish(),
            None => Config::new().publish(),
        }
    }

    /// Starts a stopped runtime with the published configuration. The caller must hold `lifecycle`.
    pub(crate) fn start(&'static self) {
        let (config, epoch) = (self.config(), self.epoch());
        ticks::calibrate();
        self.awake.begin(epoch);
        self.driver.configure(config.poller_shards(), config.workers);
        self.idle.lock().fill(epoch, config.workers, config.spares, |id| self.is_owned(id));
        self.begin_run(epoch);
        // ORDERING: SeqCst: this stores the state before it reads the timers. A caller of
        // `timer_moved` arms the timer before `timer_moved` reads the state (model
        // `timer_armed_against_start`).
        fence(Ordering::SeqCst);
        // Deadlines survive a shutdown, so a thread must sleep until the first timer is due. Arming
        // another timer would not ensure this, because a timer that is not the first of its set
        // wakes no thread.
        if self.next_timer(Shards::ALL) != clock::NEVER {
            self.ensure_poller();
        }
    }
}
