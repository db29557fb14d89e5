//! The message of a simulation that stands still: the tasks of each host with their waits, and the
//! sockets of the host.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::machine::kernel::Kernel;
use super::machine::kernel::log::seconds;
use super::machine::kernel::socket::{HostId, Role};
use super::report;
use super::world::World;
use crate::rt::poll::poll_desc::{NO_TAG, tag_index, tag_is_of};
use crate::rt::runtime::runtime;
use crate::rt::sched::record::{self, Reading, Record};
use crate::rt::sched::waits::Waits;
use crate::rt::time::clock;

/// Returns the number that the log uses for the descriptor with this tag (see `PollDesc::tag`), or
/// `None` if the descriptor is closed.
fn place(kernel: &Kernel, tag: u32) -> Option<i32> {
    let of = runtime().cache.get(u32::try_from(tag_index(tag)).ok()?)?.described()?;
    let place = i32::try_from(of.number).ok()?.checked_sub(kernel.first_descriptor)?;
    tag_is_of(tag, of.generation).then_some(place)
}

/// Describes what a task waits for.
fn wait(kernel: &Kernel, (waits, waits_for_more): (Waits, bool), members: &BTreeMap<u64, Option<String>>) -> String {
    let on = |verb: &str, tag| match place(kernel, tag) {
        Some(place) => format!("waits {verb} socket {place}"),
        None => format!("waits {verb} a socket that is closed"),
    };
    let is_listener = |tag| {
        let mut sockets = kernel.open_descriptors();
        let of = place(kernel, tag).and_then(|place| sockets.find(|&(number, _)| number == place));
        of.is_some_and(|(_, socket)| matches!(socket.role, Role::Listener(_)))
    };
    let text = match waits {
        Waits::Nothing => "waits for something other than a socket, timer or task (a lock or channel)".to_owned(),
        Waits::Turn | Waits::WokenByThread | Waits::WokenByTask(_) => "is about to run".to_owned(),
        // Unless the process has more than 2²⁰ sockets and pipe ends, only the ends of in-memory
        // pipes have no tag.
        Waits::ReadLock(NO_TAG) => "waits to read from an in-memory pipe".to_owned(),
        Waits::WriteLock(NO_TAG) => "waits to write to an in-memory pipe".to_owned(),
        Waits::Readable(tag) if is_listener(tag) => on("to accept from", tag),
        Waits::Readable(tag) => on("to read from", tag),
        Waits::Writable(tag) => on("to write to", tag),
        Waits::ReadLock(tag) => on("for another reader of", tag),
        Waits::WriteLock(tag) => on("for another writer of", tag),
        // A listener has no peer. Without a permit or a descriptor, an accept waits only for the
        // end of the listener.
        Waits::HangUp(tag) if is_listener(tag) => on("for a permit or a descriptor to accept from", tag),
        Waits::HangUp(tag) => on("for the peer of", tag),
        Waits::Time(_) => "waits for a timer".to_owned(),
        Waits::Task(bits) => match members.iter().find(|(id, _)| **id & ((1 << waits.id_bits()) - 1) == bits) {
            Some((id, Some(name))) => format!("waits for task {id} `{name}`"),
            Some((id, None)) => format!("waits for task {id}"),
            None => "waits for a task that has ended".to_owned(),
        },
    };
    text + if waits_for_more { ", or for something else" } else { "" }
}

impl World {
    /// Fails the simulation, because no task can run, and no event or timer will change that.
    #[cold]
    pub(super) fn stop_as_quiet(&self) -> ! {
        panic!("{}", self.waits())
    }

    /// Describes the waiting tasks and the sockets of each host that has tasks or sockets.
    fn waits(&self) -> String {
        let kernel = self.machine.kernel.borrow();
        let (at, now) = (seconds(kernel.now), clock::now());
        let mut members = BTreeMap::new();
        let mut hosts: Vec<Vec<u64>> = vec![Vec::new(); kernel.hosts.len()];
        hosts[0].push(self.root.get());
        for (&id, member) in &self.schedule.borrow().members {
            hosts[usize::from(member.host)].push(id);
            members.insert(id, member.name.clone());
        }
        let is_here = |reading: &Reading| reading.id == self.root.get() || members.contains_key(&reading.id);
        let readings = record::all().filter_map(Record::read).filter(is_here);
        let readings: BTreeMap<u64, Reading> = readings.map(|reading| (reading.id, reading)).collect();
        let mut text =
            format!("the simulation stands still at {at} s: no task can run, and no timer or packet will wake one");
        for (id, (host, tasks)) in kernel.hosts.iter().zip(hosts).enumerate() {
            let sockets: Vec<_> = kernel.open_descriptors().filter(|(_, socket)| socket.host == id as HostId).collect();
            if tasks.is_empty() && sockets.is_empty() {
                continue;
            }
            let state = if host.is_up { "" } else { " (down)" };
            let what = if tasks.len() == 1 { "task waits" } else { "tasks wait" };
            let _ = write!(text, "\n  host `{}`{state}: {} {what}", host.name, tasks.len());
            for task in tasks {
                text.push_str("\n    ");
                match members.get(&task) {
                    None => text.push_str("the test's own future"),
                    Some(Some(name)) => drop(write!(text, "task {task} `{name}`")),
                    Some(None) => drop(write!(text, "task {task}")),
                }
                let Some(reading) = readings.get(&task) else { continue };
                if let Some(place) = reading.place().filter(|_| members.contains_key(&task)) {
                    let _ = write!(text, ", spawned at {place},");
                }
                let _ = write!(text, " {}", wait(&kernel, reading.waits(now), &members));
            }
            for (place, socket) in sockets {
                let _ = write!(text, "\n    socket {}", report::describe(place, socket));
            }
        }
        text
    }
}
