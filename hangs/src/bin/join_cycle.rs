//! A program that hangs because three tasks await each other in a cycle.

use futures::channel::oneshot;
use netpoll::task::{self, JoinHandle};
use netpoll_hangs::named;

fn main() {
    netpoll_hangs::end_after_bound();
    let names = ["parser", "planner", "writer"];
    let (senders, receivers): (Vec<_>, Vec<_>) = names.iter().map(|_| oneshot::channel::<JoinHandle<()>>()).unzip();
    let mut tasks: Vec<JoinHandle<()>> = Vec::new();
    for (name, next) in names.into_iter().zip(receivers) {
        tasks.push(named(name, async move { next.await.expect("the next task").await }));
    }
    // Each task gets the handle of the next task, and the last task gets that of the first.
    tasks.rotate_left(1);
    for (sender, next) in senders.into_iter().zip(tasks) {
        assert!(sender.send(next).is_ok(), "the task waits for the handle");
    }
    task::block_on(std::future::pending::<()>());
}
