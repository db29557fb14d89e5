//! `Sim`: the handle with which a test controls its simulation.

use std::time::Duration;

use super::machine::kernel::socket::HostId;
use super::machine::kernel::{self, Kernel};
use super::rules::Change;
use super::world::{self, World};
use super::{picture, report};

/// A handle to a simulation, for its test and its tasks. Copies refer to the same simulation.
///
/// # Panics
/// Outside the simulation to which the handle belongs, all methods panic, except
/// [`faults`](Sim::faults), and [`link`](Sim::link) and [`one_way`](Sim::one_way) between `*` and
/// `*`.
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

/// Counters since the simulation began; returned by [`Sim::counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// The number of packets sent.
    pub packets_sent: u64,
    /// The number of packets that arrived, including duplicates and ICMP messages about addresses
    /// that no host has.
    pub packets_arrived: u64,
    /// The number of packets that were lost.
    pub packets_lost: u64,
    /// The number of bytes in the packets sent, including headers.
    pub bytes_sent: u64,
    /// The number of calls on sockets that the log records. A call that creates a pair of sockets
    /// counts as two calls of socket(2). The log does not record, for example, queries, changes of
    /// options and flags that succeeded, calls that duplicate a descriptor, and accepts, receives
    /// and sends that failed with EAGAIN.
    pub calls: u64,
    /// The number of times that a task or the test's own future was polled.
    pub turns: u64,
    /// The number of injected faults, including packets that were lost, reordered or duplicated at
    /// random. Packets lost for other reasons, such as a partition, are not counted.
    pub faults: u64,
}

impl Sim {
    #[track_caller]
    pub(super) fn world<T>(self, f: impl FnOnce(&World) -> T) -> T {
        // The panic is outside the closure, so that it names the line of the caller.
        match world::with(|world| world.filter(|world| world.id() == self.id).map(f)) {
            Some(result) => result,
            None => {
                panic!("a `Sim` was used outside its simulation: use it in the test and in tasks of that simulation")
            }
        }
    }

    #[track_caller]
    pub(super) fn kernel<T>(self, f: impl FnOnce(&mut Kernel) -> T) -> T {
        self.world(|world| world.kernel(f))
    }

    /// Returns the number of the host `name`, or `None` for `*`. Panics if there is no such host.
    #[track_caller]
    pub(super) fn find(self, name: &str) -> Option<HostId> {
        if name == "*" {
            return None;
        }
        let found = self.kernel(|kernel| {
            let names = || kernel.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
            kernel.host_named(name).ok_or_else(names)
        });
        match found {
            Ok(id) => Some(id),
            Err(names) => panic!("there is no host `{name}`: the hosts are {names}; `Sim::host` adds one"),
        }
    }

    #[track_caller]
    fn change_named(self, from: &str, to: &str, is_one_way: bool, change: Change) {
        let (from, to) = (self.find(from), self.find(to));
        self.change_links(from, to, is_one_way, change);
    }

    /// Separates two hosts until [`heal`](Sim::heal) is called. Packets between them that are sent
    /// in this time, or would arrive in it, are lost. Connections stay open until they time out.
    /// `*` stands for all hosts, including those added later.
    ///
    /// # Panics
    /// Panics if a host does not exist, as do all methods that take the names of two hosts.
    #[track_caller]
    pub fn partition(&self, a: &str, b: &str) {
        self.note(&format!("partition {a} and {b}"));
        self.change_named(a, b, false, Change::Partitioned(true));
    }

    /// Separates two hosts in one direction: only packets from `from` to `to` are lost. `*` stands
    /// for all hosts, as in [`partition`](Sim::partition).
    #[track_caller]
    pub fn partition_one_way(&self, from: &str, to: &str) {
        self.note(&format!("partition from {from} to {to}"));
        self.change_named(from, to, true, Change::Partitioned(true));
    }

    /// Ends the partition between two hosts, in both directions. `*` stands for all hosts, as in
    /// [`partition`](Sim::partition).
    #[track_caller]
    pub fn heal(&self, a: &str, b: &str) {
        self.note(&format!("heal {a} and {b}"));
        self.change_named(a, b, false, Change::Partitioned(false));
    }

    /// Holds back the packets that two hosts send to each other from now on, until
    /// [`release`](Sim::release) is called. `*` stands for all hosts, as in
    /// [`partition`](Sim::partition).
    #[track_caller]
    pub fn hold(&self, a: &str, b: &str) {
        self.note(&format!("hold {a} and {b}"));
        self.change_named(a, b, false, Change::Held(true));
    }

    /// Sends the held packets between two hosts, in order, and holds no further packets. `*` stands
    /// for all hosts, as in [`partition`](Sim::partition).
    #[track_caller]
    pub fn release(&self, a: &str, b: &str) {
        self.note(&format!("release {a} and {b}"));
        self.change_named(a, b, false, Change::Held(false));
    }

    /// Returns a handle to the probabilities of faults in system calls and in reports of readiness.
    #[track_caller]
    pub fn faults(&self) -> Faults {
        Faults { sim: *self }
    }

    /// Returns the seed of the simulation.
    #[track_caller]
    pub fn seed(&self) -> u64 {
        self.world(|world| world.seed)
    }

    /// Returns the next number of a random sequence that depends only on the seed. getrandom(2)
    /// takes its bytes from the same sequence.
    #[track_caller]
    pub fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.world(|world| world.machine.fill_random(&mut bytes));
        u64::from_le_bytes(bytes)
    }

    /// Returns the virtual time since the simulation began.
    #[track_caller]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.kernel(|kernel| kernel.now))
    }

    /// Returns a digest of all events: packets with their times and data, calls that the log
    /// records with their results, notes, and polls of tasks. Two runs of a test with the same seed
    /// have the same digest, unless something outside the simulation affects one of them, such as
    /// another thread or the contents of a file.
    #[track_caller]
    pub fn digest(&self) -> u64 {
        self.kernel(|kernel| kernel.log.digest())
    }

    /// Returns the counters since the simulation began.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        self.kernel(|kernel| counters(kernel))
    }

    /// Starts to keep a log of packets, calls and notes, which slows the simulation down. If
    /// `NETPOLL_SEED` is set, tests with the attribute `#[netpoll::test(sim)]` keep a log from the
    /// start.
    #[track_caller]
    pub fn keep_log(&self) {
        self.kernel(|kernel| kernel.log.keep());
    }

    /// Returns the lines of the log, at most the last 50,000. There are none unless a log is
    /// [kept](Sim::keep_log). Each line has the virtual time in seconds, the host, and a packet, a
    /// call or a note.
    #[track_caller]
    pub fn log(&self) -> String {
        self.kernel(|kernel| report::log(kernel))
    }

    /// Returns a diagram of the packets and notes in the log as text, with one column per host and
    /// time running downwards. [`diagram_svg`](Sim::diagram_svg) returns it as an image.
    #[track_caller]
    pub fn diagram(&self) -> String {
        self.kernel(|kernel| report::diagram(kernel))
    }

    /// Returns a diagram of the packets and notes in the log as an SVG image, with one column per
    /// host and time running downwards.
    ///
    /// An arrow leads from the departure of a packet to its arrival. Arrows of lost packets are
    /// dashed and end in a cross. Arrows of duplicates are purple. Packets that are held back or
    /// have not arrived yet have dashed lines that end halfway. Pointing at an arrow shows the time
    /// and the addresses. Notes, for example those of [`note`](Sim::note), crashes and partitions,
    /// are in the column of their host. Each departure, arrival, loss at an arrival and note has
    /// its own row, so times are not to scale. The last 2,000 rows are shown. Hosts without a
    /// packet or note in these rows have no column.
    ///
    /// # Examples
    /// ```
    /// use netpoll::net::UdpSocket;
    /// use netpoll::sim::{Sim, ms};
    ///
    /// let picture = Sim::run(1, async |sim| {
    ///     sim.keep_log();
    ///     sim.link("*", "*").latency(ms(1)..ms(30)).loss(0.3);
    ///     let receiver = sim.host("receiver").run(UdpSocket::bind("0.0.0.0:9")).await?;
    ///     let sender = sim.host("sender").run(UdpSocket::bind("0.0.0.0:0")).await?;
    ///     for _ in 0..10 {
    ///         sender.send_to(b"hello", "receiver:9").await?;
    ///     }
    ///     netpoll::task::sleep(ms(100)).await;
    ///     drop(receiver);
    ///     std::io::Result::Ok(sim.diagram_svg())
    /// });
    /// let picture = picture.unwrap();
    /// assert!(picture.starts_with("<svg") && picture.contains("lost: UDP len 5"));
    /// // std::fs::write("run.svg", picture)?;
    /// ```
    #[track_caller]
    pub fn diagram_svg(&self) -> String {
        self.kernel(|kernel| picture::svg(kernel))
    }

    /// Starts to keep all packets that hosts send, for [`capture`](Sim::capture).
    #[track_caller]
    pub fn keep_packets(&self) {
        self.kernel(|kernel| {
            kernel.log.capture.get_or_insert_default();
        });
    }

    /// Returns the packets sent since [`keep_packets`](Sim::keep_packets), including those that
    /// were lost, as a pcap file for Wireshark or tshark.
    #[track_caller]
    pub fn capture(&self) -> Vec<u8> {
        self.kernel(|kernel| report::pcap(kernel))
    }

    /// Adds a note to the digest and, if a log is kept, to the log.
    #[track_caller]
    pub fn note(&self, text: &str) {
        self.world(|world| {
            let host = world.current_host();
            world.kernel(|kernel| kernel.log.text(kernel.now, host, text));
        });
    }

    /// Allows tasks to start threads. A seed does not reproduce the actions of threads. When no
    /// task can run and no packet or timer can wake one, the simulation waits for the threads, for
    /// at most the time of [`Builder::stuck_after`](super::Builder::stuck_after).
    #[track_caller]
    pub fn allow_threads(&self) {
        self.world(|world| world.machine.allows_threads.set(true));
    }

    /// Allows tasks to open files, whose contents a seed does not reproduce. Without this call,
    /// open(2) and openat(2) fail with `PermissionDenied`, except for files in `/proc/self` and
    /// `/sys/fs/cgroup`, and while the thread panics.
    #[track_caller]
    pub fn allow_files(&self) {
        self.world(|world| world.machine.allows_files.set(true));
    }

    /// Returns descriptions of the requests that the simulation has refused: to start a thread, to
    /// open a file or a socket of a kind that is not simulated, to use a socket of another
    /// simulation, to connect a blocking socket, to wait in poll(2) without a time limit, and to
    /// use features of sockets that are not simulated, such as urgent data and unknown options.
    /// Requests that Linux may refuse too, such as MPTCP and MSG_ZEROCOPY, are not listed. Refusals
    /// of threads, files and new sockets are listed each time, others only once. Each description
    /// was also printed to standard error.
    ///
    /// # Examples
    /// ```
    /// use netpoll::net::UdpSocket;
    /// use netpoll::sim::Sim;
    ///
    /// Sim::run(1, async |sim| {
    ///     let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    ///     assert!(socket.send_to(b"hello", "224.0.0.1:9").await.is_err());
    ///     assert!(sim.refusals()[0].contains("multicast"));
    /// });
    /// ```
    #[track_caller]
    pub fn refusals(&self) -> Vec<String> {
        self.world(|world| world.machine.refusals.borrow().clone())
    }

    /// Returns whether the seed reproduces this run. Returns false after a thread outside the
    /// simulation has woken a task or closed a descriptor. Other sources of nondeterminism, such as
    /// the contents of files, are not detected.
    #[track_caller]
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

/// The probabilities of faults in system calls and in reports of readiness, which are initially 0;
/// returned by [`Sim::faults`].
///
/// # Panics
/// All methods panic outside the simulation, and if `rate` is not between 0 and 1.
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
    fn set(self, rate: f64, place: impl FnOnce(&mut kernel::Faults) -> &mut f64) -> Faults {
        assert!((0.0..=1.0).contains(&rate), "a fault's rate must be a probability from 0 to 1, not {rate}");
        self.sim.kernel(|kernel| *place(&mut kernel.faults) = rate);
        self
    }

    /// Sets the probability that a call that accepts, receives or sends fails with EINTR before it
    /// has an effect.
    #[track_caller]
    pub fn interrupted(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.interrupted)
    }

    /// Sets the probability that a read or write of a TCP stream, or a write to a Unix stream,
    /// transfers fewer bytes than it could.
    #[track_caller]
    pub fn short(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.short)
    }

    /// Sets the probability that an accept or a receive on a ready socket, or a send on a TCP
    /// stream in any state, fails with EAGAIN. The readiness of the socket is reported again later.
    #[track_caller]
    pub fn spurious(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.again)
    }

    /// Sets the probability that a call that creates a descriptor fails as if no descriptor were
    /// free (EMFILE).
    #[track_caller]
    pub fn no_descriptors(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.no_descriptors)
    }

    /// Sets the probability that sending a UDP datagram fails for lack of memory (ENOBUFS).
    #[track_caller]
    pub fn no_buffers(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.no_buffers)
    }

    /// Sets the probability that readiness is reported late, by up to 2 ms.
    #[track_caller]
    pub fn late_edges(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.late_edges)
    }

    /// Sets the probability that readiness is reported twice.
    #[track_caller]
    pub fn repeated_edges(self, rate: f64) -> Faults {
        self.set(rate, |faults| &mut faults.repeated_edges)
    }
}
