//! What a simulation shows of its run: snapshots and pictures (feature `sim`).

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use netpoll::net::UdpSocket;
use netpoll::rt::{Snapshot, WokenBy, inspect};
use netpoll::sim::{Sim, ms};
use netpoll::task::{self, JoinHandle};

fn named<F: Future<Output: Send> + Send + 'static>(name: &str, future: F) -> JoinHandle<F::Output> {
    task::Builder::new().name(name.to_owned()).spawn(future).unwrap()
}

/// A flag that tasks wait for, as for a message of a channel.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<(bool, Option<Waker>)>>);

impl Flag {
    async fn wait(self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(cx.waker().clone());
            if state.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn set(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

#[test]
fn snapshot_names_what_woke_each_task() {
    Sim::run(1, async |sim| {
        sim.allow_threads();
        let then_waits = |name: &str, future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            named(name, async move {
                future.await;
                std::future::pending::<()>().await;
            })
        };
        let (by_task, by_thread) = (Flag::default(), Flag::default());
        let udp = UdpSocket::bind("0.0.0.0:7").await.unwrap();
        let spawner = task::current().id();
        let ended = named("ended", task::sleep(ms(1)));
        let ended_id = ended.task().id();
        let tasks = [
            then_waits("spawned", Box::pin(async {})),
            then_waits("yielded", Box::pin(task::yield_now())),
            then_waits("slept", Box::pin(task::sleep(ms(1)))),
            then_waits("joined", Box::pin(ended)),
            then_waits("by task", Box::pin(by_task.clone().wait())),
            then_waits("by thread", Box::pin(by_thread.clone().wait())),
            named("received", async move {
                udp.recv(&mut [0; 8]).await.unwrap();
                std::future::pending::<()>().await;
            }),
        ];
        task::sleep(ms(5)).await;
        let waker = named("waker", async move { by_task.set() });
        let waker_id = waker.task().id();
        waker.await;
        std::thread::spawn(move || by_thread.set()).join().unwrap();
        UdpSocket::bind("0.0.0.0:0").await.unwrap().send_to(b"x", "test:7").await.unwrap();
        task::sleep(ms(5)).await;
        let snapshot: Snapshot = inspect();
        let woken_by = |name: &str| {
            let task = snapshot.tasks.iter().find(|task| task.name.as_deref() == Some(name));
            task.unwrap_or_else(|| panic!("{name} is not in {snapshot}")).woken_by
        };
        for (name, expected) in [
            ("spawned", Some(WokenBy::Task(spawner))),
            ("yielded", Some(WokenBy::Itself)),
            ("slept", Some(WokenBy::Timer)),
            ("joined", Some(WokenBy::Task(ended_id))),
            ("by task", Some(WokenBy::Task(waker_id))),
            ("by thread", Some(WokenBy::Thread)),
        ] {
            assert_eq!(woken_by(name), expected, "{name}: {snapshot}");
        }
        assert!(matches!(woken_by("received"), Some(WokenBy::Socket(_))), "{snapshot}");
        drop(tasks);
    });
}
