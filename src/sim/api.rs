//! `Sim` and `Host`: the handles with which a test controls its simulation.

use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::kernel::Kernel;
use super::kernel::socket::HostId;
use super::link::{Change, Link};
use super::report;
use super::runner::{Builder, Outcome};
use super::world::{self, World};
use crate::task::JoinHandle;

/// A handle to a simulation, for its test and its tasks. Copies refer to the same simulation.
///
/// # Panics
/// All methods panic outside the simulation that the handle belongs to.
///
/// # Examples
/// ```
/// use netpoll::sim::{Sim, ms};
///
/// let digest = |seed| Sim::run(seed, async |sim| {
///     netpoll::task::sleep(ms(3_600_000)).await;
///     assert_eq!(sim.elapsed(), ms(3_600_000));
///     sim.digest()
/// });
/// assert_eq!(digest(7), digest(7));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sim {
    pub(super) id: u32,
}

/// A change to existing links, which also applies to the links of hosts added later.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    from: Option<HostId>,
    to: Option<HostId>,
    change: Change,
}

impl Rule {
    fn concerns(&self, from: HostId, to: HostId) -> bool {
        from != to && self.from.is_none_or(|id| id == from) && self.to.is_none_or(|id| id == to)
    }
}

/// Counters since the simulation began; returned by [`Sim::counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// The number of packets sent.
    pub packets_sent: u64,
    /// The number of packets that arrived, including duplicates.
    pub packets_arrived: u64,
    /// The number of packets that were lost.
    pub packets_lost: u64,
    /// The number of bytes in the packets sent, including headers.
    pub bytes_sent: u64,
    /// The number of calls on sockets, except calls that would block.
    pub calls: u64,
    /// The number of times that a task was polled.
    pub turns: u64,
    /// The number of injected faults, including lost packets.
    pub faults: u64,
}

impl Sim {
    /// Runs `test` in a new simulation and returns its output. [`Builder`] has more settings.
    ///
    /// # Panics
    /// Panics if `test` panics, or if it cannot continue: no task can run, and no timer or packet
    /// is pending.
    pub fn run<F, Fut>(seed: u64, test: F) -> Fut::Output
    where
        F: FnOnce(Sim) -> Fut + Send + 'static,
        Fut: Future,
        Fut::Output: Send + 'static,
    {
        Builder::new().seed(seed).run(test).output
    }

    #[track_caller]
    pub(super) fn world<T>(self, f: impl FnOnce(&World) -> T) -> T {
        world::with(|world| match world.filter(|world| world.id() == self.id) {
            Some(world) => f(world),
            None => panic!("a `Sim` was used outside its simulation"),
        })
    }

    #[track_caller]
    fn kernel<T>(self, f: impl FnOnce(&mut Kernel) -> T) -> T {
        self.world(|world| world.kernel(f))
    }

    /// Returns the host `name`. The first call adds it.
    ///
    /// A host has an IPv4 and an IPv6 address, its own ports, and a name that resolves on all
    /// hosts. The test itself runs on the host `test`.
    ///
    /// # Panics
    /// Panics if the name is empty, `*`, `localhost` or an IP address.
    #[track_caller]
    pub fn host(&self, name: &str) -> Host {
        let is_name = !matches!(name, "" | "*" | "localhost") && name.parse::<IpAddr>().is_err();
        assert!(is_name, "`{name}` is not a valid host name");
        self.world(|world| {
            let id = world.kernel(|kernel| kernel.host_named(name)).unwrap_or_else(|| {
                let id = world.add_host(name);
                let rules = world.rules.borrow();
                world.kernel(|kernel| {
                    for rule in &*rules {
                        for other in 0..id {
                            apply(kernel, rule, id, other);
                            apply(kernel, rule, other, id);
                        }
                    }
                });
                id
            });
            Host { sim: *self, id }
        })
    }

    /// Returns the number of an existing host, or `None` for `*`.
    #[track_caller]
    fn find(self, name: &str) -> Option<HostId> {
        if name == "*" {
            return None;
        }
        self.kernel(|kernel| {
            let found = kernel.host_named(name);
            let names = || kernel.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
            match found {
                Some(id) => Some(id),
                None => panic!("there is no host `{name}`: the hosts are {}", names()),
            }
        })
    }

    /// Returns the links between two hosts, in both directions, to change them. `*` stands for all
    /// hosts, including those added later.
    ///
    /// # Panics
    /// Panics if there is no such host, as all methods that take host names do.
    #[track_caller]
    pub fn link(&self, a: &str, b: &str) -> Link {
        Link { sim: *self, from: self.find(a), to: self.find(b), is_one_way: false }
    }

    /// Returns the links from one host to another, to change them.
    #[track_caller]
    pub fn one_way(&self, from: &str, to: &str) -> Link {
        Link { sim: *self, from: self.find(from), to: self.find(to), is_one_way: true }
    }

    pub(super) fn change_links(self, link: &Link, change: Change) {
        let mut rules = vec![Rule { from: link.from, to: link.to, change: change.clone() }];
        if !link.is_one_way && link.from != link.to {
            rules.push(Rule { from: link.to, to: link.from, change });
        }
        self.world(|world| {
            world.kernel(|kernel| {
                let hosts = kernel.hosts.len() as HostId;
                for rule in &rules {
                    for from in 0..hosts {
                        (0..hosts).for_each(|to| apply(kernel, rule, from, to));
                    }
                }
            });
            world.rules.borrow_mut().extend(rules);
        });
    }

    #[track_caller]
    fn each_link(self, from: &str, to: &str, both: bool, mut f: impl FnMut(&mut Kernel, HostId, HostId)) {
        let (from, to) = (self.find(from), self.find(to));
        self.kernel(|kernel| {
            let hosts = kernel.hosts.len() as HostId;
            let is = |pattern: Option<HostId>, id: HostId| pattern.is_none_or(|of| of == id);
            for a in 0..hosts {
                for b in (0..hosts).filter(|&b| b != a) {
                    if (is(from, a) && is(to, b)) || (both && is(from, b) && is(to, a)) {
                        f(kernel, a, b);
                    }
                }
            }
        });
    }

    /// Separates two hosts: packets between them are lost, including those in flight. Connections
    /// stay open until they time out.
    #[track_caller]
    pub fn partition(&self, a: &str, b: &str) {
        self.note(&format!("partition {a} and {b}"));
        self.each_link(a, b, true, |kernel, from, to| kernel.link_mut(from, to).is_partitioned = true);
    }

    /// Separates two hosts in one direction.
    #[track_caller]
    pub fn partition_one_way(&self, from: &str, to: &str) {
        self.note(&format!("partition from {from} to {to}"));
        self.each_link(from, to, false, |kernel, from, to| kernel.link_mut(from, to).is_partitioned = true);
    }

    /// Ends partitions between two hosts, in both directions.
    #[track_caller]
    pub fn heal(&self, a: &str, b: &str) {
        self.note(&format!("heal {a} and {b}"));
        self.each_link(a, b, true, |kernel, from, to| kernel.link_mut(from, to).is_partitioned = false);
    }

    /// Holds packets between two hosts back until [`release`](Sim::release).
    #[track_caller]
    pub fn hold(&self, a: &str, b: &str) {
        self.note(&format!("hold {a} and {b}"));
        self.each_link(a, b, true, |kernel, from, to| {
            kernel.link_mut(from, to).held.get_or_insert_default();
        });
    }

    /// Delivers the packets that were held back, in order.
    #[track_caller]
    pub fn release(&self, a: &str, b: &str) {
        self.note(&format!("release {a} and {b}"));
        self.each_link(a, b, true, Kernel::release);
    }

    /// Returns the faults of system calls, to change them.
    pub fn faults(&self) -> Faults {
        Faults { sim: *self }
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.world(|world| world.seed)
    }

    /// Returns a random number that depends only on the seed.
    pub fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.world(|world| world.fill_random(&mut bytes));
        u64::from_le_bytes(bytes)
    }

    /// Returns the virtual time since the simulation began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.kernel(|kernel| kernel.now))
    }

    /// Returns a digest of all events: packets with their times and data, calls with their results,
    /// and polls of tasks. Two runs with the same seed have the same digest.
    pub fn digest(&self) -> u64 {
        self.kernel(|kernel| kernel.log.digest())
    }

    /// Returns the counters since the simulation began.
    pub fn counters(&self) -> Counters {
        self.kernel(|kernel| counters(kernel))
    }

    /// Starts to keep a log of packets and calls, which slows the simulation down. If
    /// `NETPOLL_SEED` is set, the log is kept from the start.
    pub fn keep_log(&self) {
        self.kernel(|kernel| kernel.log.keep());
    }

    /// Returns the log since [`keep_log`](Sim::keep_log), one line per packet and call: virtual
    /// time in seconds, host, event. It has the last 50,000 lines.
    pub fn log(&self) -> String {
        self.kernel(|kernel| report::log(kernel))
    }

    /// Returns a diagram of the packets in the log: one column per host, time downwards.
    pub fn diagram(&self) -> String {
        self.kernel(|kernel| report::diagram(kernel))
    }

    /// Starts to keep all packets for [`capture`](Sim::capture).
    pub fn keep_packets(&self) {
        self.kernel(|kernel| {
            kernel.log.capture.get_or_insert_default();
        });
    }

    /// Returns the packets since [`keep_packets`](Sim::keep_packets) as a pcap file, for Wireshark
    /// or tshark.
    pub fn capture(&self) -> Vec<u8> {
        self.kernel(|kernel| report::pcap(kernel))
    }

    /// Adds a line to the log and to the digest.
    pub fn note(&self, text: &str) {
        self.world(|world| {
            let host = world.current_host();
            world.kernel(|kernel| kernel.log.text(kernel.now, host, text));
        });
    }

    /// Allows tasks to start threads. A seed does not reproduce the actions of threads. When no
    /// other event is pending, the simulation waits for them.
    pub fn allow_threads(&self) {
        self.world(|world| world.allows_threads.set(true));
    }

    /// Returns whether the seed reproduces this run, as far as is known. It is false after a thread
    /// outside the simulation has woken a task.
    pub fn is_replayable(&self) -> bool {
        self.world(|world| world.shared.foreign().is_empty())
    }
}

pub(super) fn counters(kernel: &Kernel) -> Counters {
    let counters = kernel.log.counters;
    Counters {
        packets_sent: counters.sent,
        packets_arrived: counters.arrived,
        packets_lost: counters.lost,
        bytes_sent: counters.bytes,
        calls: counters.calls,
        turns: counters.turns,
        faults: kernel.faults.count(),
    }
}

fn apply(kernel: &mut Kernel, rule: &Rule, from: HostId, to: HostId) {
    if rule.concerns(from, to) {
        rule.change.apply(&mut kernel.link_mut(from, to).config);
    }
}

/// Probabilities of faults in system calls; returned by [`Sim::faults`]. All are 0 at first.
///
/// # Panics
/// All methods panic if the rate is not between 0 and 1.
///
/// # Examples
/// ```
/// use netpoll::sim::Sim;
///
/// Sim::run(1, async |sim| {
///     sim.faults().interrupted(0.05).short(0.2).spurious(0.1);
/// });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    sim: Sim,
}

impl Faults {
    #[track_caller]
    fn set(self, rate: f64, place: impl FnOnce(&mut super::kernel::Faults) -> &mut f64) -> Faults {
        assert!((0.0..=1.0).contains(&rate), "a fault's rate must be a probability from 0 to 1, not {rate}");
        self.sim.kernel(|kernel| *place(&mut kernel.faults) = rate);
        self
    }

    /// Sets how often a call fails with EINTR before it has an effect.
    #[track_caller]
    pub fn interrupted(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.interrupted)
    }

    /// Sets how often a read or write of a stream transfers fewer bytes than it could.
    #[track_caller]
    pub fn short(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.short)
    }

    /// Sets how often a call fails with EAGAIN although the socket was ready. The socket becomes
    /// ready again later.
    #[track_caller]
    pub fn spurious(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.again)
    }

    /// Sets how often a call that creates a descriptor fails because there are none left (EMFILE).
    #[track_caller]
    pub fn no_descriptors(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.no_descriptors)
    }

    /// Sets how often sending a datagram fails for lack of memory (ENOBUFS).
    #[track_caller]
    pub fn no_buffers(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.no_buffers)
    }

    /// Sets how often readiness is reported late, by up to 2 ms.
    #[track_caller]
    pub fn late_edges(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.late_edges)
    }

    /// Sets how often readiness is reported twice.
    #[track_caller]
    pub fn repeated_edges(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.repeated_edges)
    }
}

/// The program of a host, which can be started again.
pub(super) type Start = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A host of a simulation; returned by [`Sim::host`].
///
/// # Examples
/// ```
/// use netpoll::net::{TcpListener, TcpStream};
/// use netpoll::sim::Sim;
///
/// Sim::run(1, async |sim| {
///     let server = sim.host("server");
///     server.spawn(|| async {
///         let listener = TcpListener::bind("0.0.0.0:80").await?;
///         loop {
///             listener.accept().await?.0.write_all(b"hi").await?;
///         }
///         #[allow(unreachable_code)]
///         std::io::Result::Ok(())
///     });
///     let client = sim.host("client");
///     client.run(TcpStream::connect("server:80")).await.unwrap();
///     server.crash();
///     let refused = client.run(TcpStream::connect("server:80")).await;
///     assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    sim: Sim,
    id: HostId,
}

impl Host {
    /// Returns the name.
    pub fn name(&self) -> String {
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].name.clone())
    }

    /// Returns the addresses. Initially these are an IPv4 address in 10.0.0.0/16 and an IPv6
    /// address in fd00::/112.
    pub fn addrs(&self) -> Vec<IpAddr> {
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].addrs.clone())
    }

    /// Replaces the addresses of the host, for sockets created from now on.
    ///
    /// # Panics
    /// Panics if another host has one of them.
    #[track_caller]
    pub fn set_addrs(&self, addrs: &[IpAddr]) {
        let is_free = self.sim.kernel(|kernel| kernel.set_addrs(self.id, addrs));
        assert!(is_free, "another host has one of the addresses {addrs:?}");
    }

    /// Starts a program on the host: runs the future that `start` returns as a task.
    /// [`restart`](Host::restart) calls `start` again.
    ///
    /// If the program panics or returns an error, the simulation ends.
    pub fn spawn<F, Fut>(&self, start: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        let name = self.name();
        let start: Start = Arc::new(move || {
            let (future, name) = (start(), name.clone());
            Box::pin(async move {
                let failure = match (CatchUnwind { future }).await {
                    Ok(output) => output.failure().map(|text| -> Box<dyn std::any::Any + Send> {
                        Box::new(format!("the program of host `{name}` failed: {text}"))
                    }),
                    Err(payload) => Some(payload),
                };
                if let Some(payload) = failure {
                    world::with(|world| world.map(|world| world.fail(payload)));
                }
            })
        });
        self.sim.world(|world| world.starts.borrow_mut().push((self.id, start.clone())));
        self.start(&start);
    }

    fn start(&self, start: &Start) {
        let name = self.name();
        self.sim.world(|world| {
            world.on_host(self.id, || {
                let future = start();
                let task = crate::task::Builder::new().name(name).spawn(future);
                drop(task);
            });
        });
    }

    /// Spawns a task on the host. A crash of the host drops it, and it is not started again, unlike
    /// the program of [`spawn`](Host::spawn). Awaiting the handle panics if the task panicked or
    /// the host dropped it.
    pub fn spawn_task<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.sim.world(|world| world.on_host(self.id, || crate::task::spawn(future)))
    }

    /// Runs `future` on this host within the current task: its sockets and the tasks that it spawns
    /// belong to the host.
    ///
    /// The future itself belongs to the test: a crash of the host makes its sockets fail, but does
    /// not drop it.
    pub fn run<F: Future>(&self, future: F) -> HostRun<F> {
        HostRun { host: *self, future }
    }

    /// Turns the host's power off: nothing more is sent, its tasks are dropped, and its sockets
    /// fail. Peers receive nothing and time out; after [`restart`](Host::restart) their old
    /// connections are reset.
    pub fn crash(&self) {
        self.sim.kernel(|kernel| kernel.crash(self.id));
        self.sim.world(|world| world.end_tasks(self.id));
    }

    /// Kills the programs of the host: drops its tasks, which closes their sockets, as the
    /// operating system does when a process ends.
    pub fn kill(&self) {
        self.sim.note(&format!("kill {}", self.name()));
        self.sim.world(|world| world.end_tasks(self.id));
    }

    /// Kills the programs of the host and starts those given to [`spawn`](Host::spawn) again.
    pub fn restart(&self) {
        self.sim.world(|world| world.end_tasks(self.id));
        self.sim.kernel(|kernel| kernel.restart(self.id));
        let starts = self.sim.world(|world| world.starts.borrow().clone());
        starts.iter().filter(|(host, _)| *host == self.id).for_each(|(_, start)| self.start(start));
    }

    /// Returns whether the host has power.
    pub fn is_up(&self) -> bool {
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].is_up)
    }

    /// Returns the number of tasks on the host.
    pub fn tasks(&self) -> usize {
        self.sim.world(|world| world.tasks_of(self.id))
    }

    /// Sets the wall clock (`SystemTime`) of the host ahead of the others by `ahead`.
    pub fn skew_ahead(&self, ahead: Duration) {
        let nanos = i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX);
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].clock_offset = nanos);
    }

    /// Sets the wall clock (`SystemTime`) of the host behind the others by `behind`.
    pub fn skew_behind(&self, behind: Duration) {
        let nanos = i64::try_from(behind.as_nanos()).unwrap_or(i64::MAX);
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].clock_offset = -nanos);
    }
}

pin_project! {
    /// A future that runs on a host; returned by [`Host::run`].
    #[derive(Debug)]
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct HostRun<F> {
        host: Host,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for HostRun<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let host = this.host;
        host.sim.world(|world| world.on_host(host.id, || this.future.poll(cx)))
    }
}

pin_project! {
    /// A future that returns the panic of its inner future as a value.
    struct CatchUnwind<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for CatchUnwind<F> {
    type Output = std::thread::Result<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.project().future.poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    }
}
