//! `Host`: the handle with which a test controls a host.

use std::future::Future;
#[cfg(feature = "signal")]
use std::io;
use std::net::IpAddr;
#[cfg(feature = "signal")]
use std::os::{fd::AsFd, unix::net::UnixStream};
use std::panic::{AssertUnwindSafe, Location};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::FutureExt as _;
use pin_project_lite::pin_project;

use super::api::Sim;
use super::machine::kernel::is_group;
use super::machine::kernel::socket::HostId;
use super::outcome::Outcome;
use super::rules::apply;
use super::world::{self, Start};
use crate::rt::sched;
#[cfg(feature = "signal")]
use crate::signal::SignalKind;
#[cfg(feature = "signal")]
use crate::sys;
use crate::task::JoinHandle;

impl Sim {
    /// Returns the host `name`. The first call adds it.
    ///
    /// A host has an IPv4 and an IPv6 address, its own ports, and a name that resolves on all
    /// hosts. As in DNS, the case of letters and a dot at the end of the name do not matter. The
    /// test itself runs on the host `test`.
    ///
    /// # Panics
    /// Panics if the name is empty, `*`, `localhost` or an IP address, and if all 65,535 pairs of
    /// addresses for new hosts are taken.
    #[track_caller]
    pub fn host(&self, name: &str) -> Host {
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_name = !matches!(name, "" | "*") && name.parse::<IpAddr>().is_err();
        let is_name = is_name && !name.eq_ignore_ascii_case("localhost");
        assert!(
            is_name,
            "`{name}` is not a valid host name: a name must not be empty, `*`, `localhost` or an IP address"
        );
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
}

/// A host of a simulation; returned by [`Sim::host`].
///
/// # Panics
/// Outside the simulation of the host, all methods panic, except [`run`](Host::run), whose future
/// panics when it is polled.
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
///     let result = client.run(TcpStream::connect("server:80")).await;
///     assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    sim: Sim,
    id: HostId,
}

impl Host {
    /// Returns the name of the host.
    #[track_caller]
    pub fn name(&self) -> String {
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].name.clone())
    }

    /// Returns the addresses of the host. Initially, these are an IPv4 address in 10.0.0.0/16 and
    /// an IPv6 address in fd00::/112.
    #[track_caller]
    pub fn addrs(&self) -> Vec<IpAddr> {
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].addrs.clone())
    }

    /// Replaces the addresses of the host. From now on, packets that are sent to its former
    /// addresses do not reach it, so established connections that use these addresses time out.
    /// Connecting to an address that no host has fails with `HostUnreachable`.
    ///
    /// # Panics
    /// Panics if another host has one of the addresses, or if one is a loopback, wildcard,
    /// multicast, broadcast or IPv4-mapped address.
    #[track_caller]
    pub fn set_addrs(&self, addrs: &[IpAddr]) {
        for addr in addrs {
            let is_of_host = addr.to_canonical() == *addr && !addr.is_loopback() && !addr.is_unspecified();
            assert!(is_of_host && !is_group(*addr), "{addr} cannot be the address of a host");
        }
        let is_free = self.sim.kernel(|kernel| kernel.set_addrs(self.id, addrs));
        assert!(is_free, "another host has one of the addresses {addrs:?}");
    }

    /// Starts a program on the host: calls `start`, and runs the future that it returns as a task.
    /// [`restart`](Host::restart) calls `start` again.
    ///
    /// If the program panics or returns an error, the simulation fails. If a task that the program
    /// has spawned panics, the simulation goes on, unless the program awaits the task.
    #[track_caller]
    pub fn spawn<F, Fut>(&self, start: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Outcome,
    {
        let name = self.name();
        let program = Arc::new(move || {
            let (future, name) = (start(), name.clone());
            Box::pin(async move {
                let failure = match AssertUnwindSafe(future).catch_unwind().await {
                    Ok(output) => output.failure().map(|text| -> Box<dyn std::any::Any + Send> {
                        let text = format!("the program of host `{name}` failed: {text}");
                        // This is not a panic, so no panic hook prints the text.
                        eprintln!("{text}");
                        Box::new(text)
                    }),
                    Err(payload) => Some(payload),
                };
                if let Some(payload) = failure {
                    world::with(|world| world.map(|world| world.fail(payload)));
                }
            }) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
        let start = Start { place: Location::caller(), program };
        self.sim.world(|world| world.starts.borrow_mut().push((self.id, start.clone())));
        self.start(&start);
    }

    fn start(&self, start: &Start) {
        let name = self.name();
        self.sim.world(|world| {
            world.on_host(self.id, || {
                let future = (start.program)();
                sched::task::spawn(Some(Arc::new(name.into())), None, start.place, future).task.detach();
            });
        });
    }

    /// Spawns a task on the host. [`crash`](Host::crash), [`kill`](Host::kill) and
    /// [`restart`](Host::restart) drop the task. Unlike the program of [`spawn`](Host::spawn), the
    /// task is not started again. Awaiting the handle panics if the task panicked or was dropped
    /// with its host.
    #[track_caller]
    pub fn spawn_task<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let place = Location::caller();
        self.sim
            .world(|world| world.on_host(self.id, || JoinHandle::new(sched::task::spawn(None, None, place, future))))
    }

    /// Runs `future` on this host within the current task: the sockets that the future creates and
    /// the tasks that it spawns belong to the host, except local tasks, which run on the host
    /// `test`.
    ///
    /// This also applies while the future is dropped.
    ///
    /// The future itself belongs to the current task: a crash of the host makes the future's
    /// sockets fail, but does not drop the future.
    #[track_caller]
    pub fn run<F: Future>(&self, future: F) -> HostRun<F> {
        HostRun { host: *self, future: Some(future) }
    }

    /// Cuts the power of the host: it sends no more packets, its tasks are dropped, and its sockets
    /// fail with `NetworkDown`, as do sockets that are created before a [`restart`](Host::restart).
    /// Until then, peers receive only the packets that are already on the way, and connections with
    /// the host end only by a timeout. After a restart, the host answers packets of these
    /// connections with resets.
    #[track_caller]
    pub fn crash(&self) {
        self.sim.kernel(|kernel| kernel.crash(self.id));
        self.sim.world(|world| world.end_tasks(self.id));
    }

    /// Kills the programs of the host: drops its tasks. This closes their sockets, as the operating
    /// system does when a process ends. Tasks that their destructors spawn are dropped as well, in
    /// [`crash`](Host::crash) and [`restart`](Host::restart) too.
    #[track_caller]
    pub fn kill(&self) {
        self.sim.note(&format!("kill {}", self.name()));
        self.sim.world(|world| world.end_tasks(self.id));
    }

    /// Kills the programs of the host, turns its power on, and starts the programs of
    /// [`spawn`](Host::spawn) again.
    #[track_caller]
    pub fn restart(&self) {
        self.sim.world(|world| world.end_tasks(self.id));
        self.sim.kernel(|kernel| kernel.restart(self.id));
        let starts = self.sim.world(|world| world.starts.borrow().clone());
        starts.iter().filter(|(host, _)| *host == self.id).for_each(|(_, start)| self.start(start));
    }

    /// Sends a signal to the programs of the host. Each [`Signal`](crate::signal::Signal) of this
    /// kind that was created on the host receives it. Returns whether there is such a `Signal`. If
    /// there is none, nothing happens, even if the signal would end a process on Linux.
    ///
    /// # Examples
    /// ```
    /// use netpoll::signal::{self, SignalKind};
    /// use netpoll::sim::Sim;
    ///
    /// Sim::run(1, async |sim| {
    ///     let server = sim.host("server");
    ///     let stopped = server.spawn_task(async { signal::termination()?.await });
    ///     netpoll::task::yield_now().await;
    ///     assert!(server.raise(SignalKind::TERMINATE));
    ///     assert_eq!(stopped.await.unwrap(), SignalKind::TERMINATE);
    ///     assert!(!server.raise(SignalKind::TERMINATE));
    /// });
    /// ```
    #[cfg(feature = "signal")]
    #[track_caller]
    pub fn raise(&self, kind: SignalKind) -> bool {
        self.sim.note(&format!("raise {kind} on {}", self.name()));
        self.sim.world(|world| {
            let mut received = false;
            world.signals.borrow_mut().retain(|_, (host, listens_for, sender)| {
                if (*host, *listens_for) != (self.id, kind) {
                    return true;
                }
                let sent = loop {
                    match sys::socket::send(sender.as_fd(), &[0], 0) {
                        // An injected fault.
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        sent => break sent,
                    }
                };
                // If the buffer is full, a signal is pending. Another error means that the listener
                // was dropped on another thread, or that the host has crashed.
                let is_open = match sent {
                    Ok(_) => true,
                    Err(error) => error.kind() == io::ErrorKind::WouldBlock,
                };
                received |= is_open;
                is_open
            });
            received
        })
    }

    /// Returns whether the host has power: false after a [`crash`](Host::crash) until a
    /// [`restart`](Host::restart).
    #[track_caller]
    pub fn is_up(&self) -> bool {
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].is_up)
    }

    /// Returns the number of tasks on the host, including its programs. Futures of
    /// [`run`](Host::run), local tasks and the test's own future do not count.
    #[track_caller]
    pub fn tasks(&self) -> usize {
        self.sim.world(|world| world.tasks_of(self.id))
    }

    /// Sets how far the wall clock (`SystemTime`) of the host is ahead of the simulation's wall
    /// clock.
    #[track_caller]
    pub fn skew_ahead(&self, ahead: Duration) {
        let nanos = i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX);
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].clock_offset = nanos);
    }

    /// Sets how far the wall clock (`SystemTime`) of the host is behind the simulation's wall
    /// clock.
    #[track_caller]
    pub fn skew_behind(&self, behind: Duration) {
        let nanos = i64::try_from(behind.as_nanos()).unwrap_or(i64::MAX);
        self.sim.kernel(|kernel| kernel.hosts[usize::from(self.id)].clock_offset = -nanos);
    }
}

/// The registration of a listener for signals on a host. Dropping it unregisters the listener.
#[cfg(feature = "signal")]
#[derive(Debug)]
pub(crate) struct Listening {
    /// The number of the world.
    world: u32,
    number: u64,
}

/// Registers a listener for signals on the current host. [`Host::raise`] writes to `sender`.
/// Returns `None` outside a simulation.
#[cfg(feature = "signal")]
pub(crate) fn listen(kind: SignalKind, sender: UnixStream) -> Option<Listening> {
    world::with(|world| {
        let world = world?;
        let mut signals = world.signals.borrow_mut();
        let number = signals.last_key_value().map_or(0, |(last, _)| last + 1);
        signals.insert(number, (world.current_host(), kind, sender));
        Some(Listening { world: world.id(), number })
    })
}

#[cfg(feature = "signal")]
impl Drop for Listening {
    fn drop(&mut self) {
        // If this is another thread, the sender stays until the next signal of its kind or the end
        // of the simulation.
        let sender = world::with(|world| {
            let world = world.filter(|world| world.id() == self.world)?;
            world.signals.borrow_mut().remove(&self.number)
        });
        drop(sender);
    }
}

pin_project! {
    /// A future that runs on a host; returned by [`Host::run`].
    #[derive(Debug)]
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct HostRun<F> {
        host: Host,
        // `None` only during the drop.
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for HostRun<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let host = this.host;
            world::with(|world| match world.filter(|world| world.id() == host.sim.id) {
                Some(world) => world.on_host(host.id, || this.future.set(None)),
                None => this.future.set(None),
            });
        }
    }
}

impl<F: Future> Future for HostRun<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let host = this.host;
        let future = this.future.as_pin_mut().expect("the future is not dropped before this poll");
        host.sim.world(|world| world.on_host(host.id, || future.poll(cx)))
    }
}
