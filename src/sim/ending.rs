//! The end of the tasks of a host, and of a simulation.

use std::sync::atomic::Ordering;
use std::task::Waker;

use super::machine::kernel::socket::HostId;
use super::machine::slots;
use super::shared::lock;
use super::world::{Ready, WORLDS, World, is_current};
use crate::rt::runtime::runtime;
use crate::rt::sched::task::{contain, discard};
use crate::rt::waiters::Wakers;

/// The maximum number of times that tasks are ended again because destructors have spawned more.
const ROUNDS_MAX: u32 = 16;

impl World {
    /// Ends all tasks of a host by dropping their futures. The future of the task that is running
    /// is dropped when the task would next be polled.
    pub(super) fn end_tasks(&self, host: HostId) {
        let wakers: Vec<_> = {
            let mut schedule = self.schedule.borrow_mut();
            schedule.lives[usize::from(host)] = schedule.lives[usize::from(host)].wrapping_add(1);
            let of_host = schedule.members.values().filter(|member| member.host == host);
            of_host.map(|member| member.waker.clone()).collect()
        };
        self.on_host(host, || {
            self.drop_ended();
            wakers.into_iter().for_each(Waker::wake);
            self.drop_ended();
        });
    }

    /// Drops the futures of queued tasks whose hosts have ended them, including tasks that become
    /// runnable as a result. Tasks that the destructors spawn have ended as well, except those of
    /// the last round, because destructors may spawn tasks without end.
    pub(super) fn drop_ended(&self) {
        for round in 0.. {
            let ended: Vec<Ready> = {
                let schedule = &mut *self.schedule.borrow_mut();
                let is_ended = |ready: &Ready| match ready {
                    Ready::Task(task) => !is_current(&schedule.lives, task.metadata().tag()),
                    Ready::Main => false,
                };
                let (ended, ready) = std::mem::take(&mut schedule.ready).into_iter().partition(is_ended);
                schedule.ready = ready;
                ended
            };
            if ended.is_empty() {
                return;
            }
            ended.into_iter().for_each(|ready| {
                if let Ready::Task(task) = ready {
                    let tag = task.metadata().tag();
                    self.on_host(tag.host, || {
                        let mut running = None;
                        if round < ROUNDS_MAX {
                            self.machine.tag.set(tag);
                            running = Some(tag);
                        }
                        let before = self.running.replace(running);
                        discard(task);
                        self.running.set(before);
                    });
                }
            });
        }
    }

    /// Ends the simulation: drops the programs of the hosts, ends all tasks, closes the inbox,
    /// clears the timers and returns the slots. Ending the tasks may take several rounds, at most
    /// [`ROUNDS_MAX`], because destructors may spawn tasks.
    pub(super) fn end(&self) {
        #[cfg(feature = "signal")]
        drop(self.signals.take());
        // The destructors of the closures are user code, so they run in the simulation.
        self.starts.take().into_iter().for_each(|(host, start)| self.on_host(host, || contain(|| drop(start))));
        for _ in 0..ROUNDS_MAX {
            let hosts = self.machine.kernel.borrow().hosts.len() as HostId;
            (0..hosts).for_each(|host| self.end_tasks(host));
            let inbox = std::mem::take(&mut *lock(&self.shared.inbox));
            if self.schedule.borrow().members.is_empty() && inbox.is_empty() {
                break;
            }
            inbox.into_iter().for_each(discard);
        }
        // Destructors may go on spawning tasks without end, so the remaining tasks are leaked.
        std::mem::take(&mut self.schedule.borrow_mut().ready).into_iter().for_each(std::mem::forget);
        self.shared.is_over.store(true, Ordering::SeqCst);
        let late = std::mem::take(&mut *lock(&self.shared.inbox));
        late.into_iter().for_each(discard);
        lock(&WORLDS).remove(&self.id);
        let mut wakers = Wakers::new();
        self.processor.timers.clear_sleeps(&mut wakers, |_, _| false);
        wakers.wake_all();
        self.processor.timers.reset();
        self.give_back_slots();
    }

    /// Returns the slots to the poll cache. A socket that is still open keeps its slot.
    fn give_back_slots(&self) {
        let cache = &runtime().cache;
        // The timers of the slots are disarmed while the slots still belong to the simulation.
        self.machine.slots.borrow().taken.iter().filter_map(|&index| cache.get(index)).for_each(|desc| desc.disarm());
        let free = slots::release(&self.machine);
        free.iter().filter_map(|&index| cache.get(index)).for_each(|desc| cache.free(desc));
    }
}
