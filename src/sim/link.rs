//! `Link`: the properties of the paths between hosts.

use std::time::Duration;

use super::api::Sim;
use super::machine::kernel::socket::HostId;
use super::rules::{Change, Latency, Rule, add, apply, nanos};

impl Sim {
    /// Returns a handle to the links between two hosts, in both directions. `*` stands for all
    /// hosts, including those added later.
    ///
    /// # Panics
    /// Panics if a host does not exist, as do all methods that take the names of two hosts.
    #[track_caller]
    pub fn link(&self, a: &str, b: &str) -> Link {
        Link { sim: *self, from: self.find(a), to: self.find(b), is_one_way: false }
    }

    /// Returns a handle to the links from one host to another. `*` stands for all hosts, as in
    /// [`link`](Sim::link).
    #[track_caller]
    pub fn one_way(&self, from: &str, to: &str) -> Link {
        Link { sim: *self, from: self.find(from), to: self.find(to), is_one_way: true }
    }

    /// Changes links. `None` stands for all hosts, including those added later.
    #[track_caller]
    pub(super) fn change_links(self, from: Option<HostId>, to: Option<HostId>, is_one_way: bool, change: Change) {
        let mut rules = vec![Rule { from, to, change: change.clone() }];
        if !is_one_way && from != to {
            rules.push(Rule { from: to, to: from, change });
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
            let kept = &mut *world.rules.borrow_mut();
            rules.into_iter().for_each(|rule| add(kept, rule));
        });
    }
}

/// A handle that changes the properties of links between hosts; returned by [`Sim::link`] and
/// [`Sim::one_way`].
///
/// A change applies from the next packet on. If a name is `*`, it also applies to hosts that are
/// added later. It does not apply to traffic within a host.
///
/// # Panics
/// All methods panic outside the simulation.
///
/// # Examples
/// ```
/// use netpoll::sim::{Sim, mbit, ms};
///
/// Sim::run(1, async |sim| {
///     sim.host("a");
///     sim.host("b");
///     sim.link("a", "b").latency(ms(5)..ms(40)).loss(0.01).bandwidth(mbit(10));
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Link {
    sim: Sim,
    from: Option<HostId>,
    to: Option<HostId>,
    is_one_way: bool,
}

#[track_caller]
fn rate(what: &str, rate: f64) -> f64 {
    assert!((0.0..=1.0).contains(&rate), "{what} must be a probability from 0 to 1, not {rate}");
    rate
}

impl Link {
    #[track_caller]
    fn change(self, change: Change) -> Link {
        self.sim.change_links(self.from, self.to, self.is_one_way, change);
        self
    }

    /// Sets the travel time of packets. Packets stay in order, except [reordered](Link::reorder)
    /// packets and [duplicates](Link::duplicate). The default is 100 to 200 µs.
    #[track_caller]
    pub fn latency(self, latency: impl Into<Latency>) -> Link {
        self.change(Change::Latency(latency.into().0))
    }

    /// Sets the probability that a packet is lost. The default is 0.
    ///
    /// # Panics
    /// Panics if `probability` is not between 0 and 1, as all methods that take a probability do.
    #[track_caller]
    pub fn loss(self, probability: f64) -> Link {
        self.change(Change::Loss(rate("loss", probability)))
    }

    /// Sets the probability that a packet arrives twice. The default is 0.
    #[track_caller]
    pub fn duplicate(self, probability: f64) -> Link {
        self.change(Change::Duplicate(rate("duplication", probability)))
    }

    /// Sets the probability that a packet is delayed by up to `by` beyond its latency, so that
    /// later packets may overtake it. The default probability is 0.
    #[track_caller]
    pub fn reorder(self, probability: f64, by: Duration) -> Link {
        self.change(Change::Reorder(rate("reordering", probability), nanos(by)))
    }

    /// Sets the bandwidth in bits per second. Packets that exceed it wait in the
    /// [queue](Link::queue). By default, the bandwidth is unlimited.
    ///
    /// # Panics
    /// Panics if the bandwidth is 0. To send nothing, use [`Sim::partition`].
    #[track_caller]
    pub fn bandwidth(self, bits_per_second: u64) -> Link {
        assert!(bits_per_second > 0, "a bandwidth of 0 sends nothing: use Sim::partition");
        self.change(Change::Bandwidth(bits_per_second))
    }

    /// Sets the maximum number of bytes that wait in the queue of a link with a
    /// [bandwidth](Link::bandwidth). If the queue is full, further packets are lost. A packet that
    /// is longer than the queue is sent only if no bytes wait. The default is 256 KiB.
    #[track_caller]
    pub fn queue(self, bytes: u64) -> Link {
        self.change(Change::Queue(bytes))
    }

    /// Sets the maximum size of an IP packet in bytes, which determines the segment size of new TCP
    /// connections. Larger segments of existing connections are lost. Larger datagrams travel as
    /// one packet. The default is 1500.
    ///
    /// # Panics
    /// Panics if the size is less than 576 or greater than 65535.
    #[track_caller]
    pub fn mtu(self, bytes: u64) -> Link {
        assert!((576..=65_535).contains(&bytes), "an MTU is between 576 and 65535 bytes, not {bytes}");
        self.change(Change::Mtu(bytes))
    }
}
