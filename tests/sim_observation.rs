//! Tests snapshots and pictures of simulations (feature `sim`).

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::rt::{Lane, Metrics, Snapshot, WokenBy, inspect, metrics};
use netpoll::sim::{Sim, ms};
use netpoll::task::{self, JoinHandle};

fn named<F: Future<Output: Send> + Send + 'static>(name: &str, future: F) -> JoinHandle<F::Output> {
    task::Builder::new().name(name.to_owned()).spawn(future).unwrap()
}

/// A flag that one task waits for, as it would wait for a message of a channel.
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
            let task = snapshot.tasks.iter().find(|task| task.name() == Some(name));
            task.unwrap_or_else(|| panic!("{name} is not in {snapshot}")).woken_by()
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

/// Asserts that a picture is well-formed XML: its elements are closed in order, and its texts are
/// escaped.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("{tag}"));
        assert!(!text.contains(['<', '>']), "{text}");
        let entities = text.split('&').skip(1);
        entities.for_each(|rest| assert!(["amp;", "lt;", "gt;"].iter().any(|name| rest.starts_with(name)), "{text}"));
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// Answers one request with 3,000 bytes.
async fn answer(addr: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let (stream, _) = listener.accept().await?;
    stream.read(&mut [0; 16]).await?;
    stream.write_all(&[0; 3000]).await
}

/// Sends a request and reads the answer.
async fn ask() {
    let stream = TcpStream::connect("server:80").await.unwrap();
    stream.write_all(b"request").await.unwrap();
    while stream.read(&mut [0; 4096]).await.unwrap() > 0 {}
}

/// With `NETPOLL_PICTURE=FILE`, the test writes the picture of seed 13 to this file. The picture is
/// also in docs/simulation.svg.
#[test]
fn picture_has_an_arrow_for_each_packet_and_a_cross_for_each_loss() {
    let (mut lost, mut twice) = (0, 0);
    for seed in 0..30 {
        let (svg, counters) = Sim::run(seed, async |sim| {
            sim.keep_log();
            sim.host("server").spawn(|| answer("0.0.0.0:80"));
            sim.host("idle");
            sim.link("*", "*").latency(ms(1)..ms(30)).loss(0.15).duplicate(0.1).reorder(0.1, ms(20));
            sim.host("client").run(ask()).await;
            sim.note("the client is done");
            task::sleep(ms(100_000)).await;
            (sim.diagram_svg(), sim.counters())
        });
        assert_well_formed(&svg);
        let count = |part: &str| svg.matches(part).count() as u64;
        assert_eq!(count("marker-end"), counters.packets_arrived, "seed {seed}: {svg}");
        assert_eq!(count("class=\"k\""), counters.packets_lost, "seed {seed}: {svg}");
        assert_eq!(count(">lost: "), counters.packets_lost, "seed {seed}: {svg}");
        assert_eq!(count("class=\"f\""), 0, "no packet is in flight, seed {seed}: {svg}");
        // The two ends of the link, and the host of the note, each have a label.
        assert_eq!(count("class=\"h\""), 3, "{svg}");
        assert!(svg.contains(">server<") && svg.contains(">the client is done<"), "{svg}");
        (lost, twice) = (lost + counters.packets_lost, twice + count("class=\"d\""));
        if let Some(file) = std::env::var_os("NETPOLL_PICTURE").filter(|_| seed == 13) {
            std::fs::write(file, &svg).unwrap();
        }
    }
    assert!(lost > 20 && twice > 10, "{lost} {twice}");
}

#[test]
fn picture_shows_held_packets_crashes_and_unknown_addresses() {
    let svg = Sim::run(1, async |sim| {
        sim.keep_log();
        let receiver = sim.host("R&D").run(UdpSocket::bind("0.0.0.0:9")).await.unwrap();
        let sender = sim.host("sender").run(UdpSocket::bind("0.0.0.0:0")).await.unwrap();
        sim.hold("sender", "R&D");
        sender.send_to(b"held", "R&D:9").await.unwrap();
        task::sleep(ms(10)).await;
        sim.note("1 < 2");
        sim.release("sender", "R&D");
        task::sleep(ms(10)).await;
        sender.send_to(b"unknown", "192.0.2.1:9").await.unwrap();
        sender.send_to(b"never", "R&D:9").await.unwrap();
        sim.host("R&D").crash();
        task::sleep(ms(10)).await;
        sim.hold("sender", "R&D");
        sender.send_to(b"withheld", "R&D:9").await.unwrap();
        drop(receiver);
        sim.diagram_svg()
    });
    assert_well_formed(&svg);
    let lines_with = |part: &str| svg.lines().filter(|line| line.contains(part)).collect::<Vec<_>>();
    let [held] = lines_with("UDP len 4</title>")[..] else { panic!("{svg}") };
    assert!(held.contains("marker-end"), "released, and arrived: {held}");
    let [never] = lines_with("UDP len 5 (Down)</title>")[..] else { panic!("{svg}") };
    assert!(never.contains("class=\"k\""), "{never}");
    assert_eq!(lines_with(">lost: UDP len 5 (Down)<").len(), 1, "{svg}");
    let [withheld] = lines_with("UDP len 8</title>")[..] else { panic!("{svg}") };
    assert!(withheld.contains("class=\"f\""), "{withheld}");
    assert_eq!(lines_with(">held: UDP len 8<").len(), 1, "{svg}");
    assert_eq!(lines_with("ICMP host unreachable (Udp) from 192.0.2.1:9").len(), 1, "{svg}");
    assert_eq!(lines_with(">crash<").len(), 1, "{svg}");
    assert!(svg.contains(">R&amp;D<") && svg.contains(">1 &lt; 2<"), "{svg}");
}

#[test]
fn picture_of_a_long_run_has_its_last_events() {
    let svg = Sim::run(1, async |sim| {
        sim.keep_log();
        (0..3000).for_each(|number| sim.note(&format!("event {number}.")));
        sim.diagram_svg()
    });
    assert_well_formed(&svg);
    assert!(svg.contains("1000 earlier events are not shown"), "{svg}");
    assert!(!svg.contains("event 999.") && svg.contains("event 1000.") && svg.contains("event 2999."));
}

/// Spawns three tasks, of which one waits for a datagram and one is in the control lane, and makes
/// a blocking call. Returns the metrics before this, while the tasks wait, and after they have
/// ended.
async fn measured() -> [Metrics; 3] {
    let before = metrics();
    let socket = UdpSocket::bind("0.0.0.0:7").await.unwrap();
    let receiver = task::spawn(async move { socket.recv(&mut [0; 8]).await });
    let sleeper = task::spawn(task::sleep(ms(50)));
    let control = task::Builder::new().lane(Lane::Control).spawn(task::sleep(ms(100))).unwrap();
    task::spawn_blocking(|| ()).await;
    task::sleep(ms(10)).await;
    let during = metrics();
    UdpSocket::bind("0.0.0.0:0").await.unwrap().send_to(b"x", "test:7").await.unwrap();
    receiver.await.unwrap();
    sleeper.await;
    control.await;
    [before, during, metrics()]
}

#[test]
fn metrics_are_those_of_the_simulation() {
    let outside = metrics();
    let runs = [(); 2].map(|()| Sim::run(1, async |_| measured().await));
    assert_eq!(runs[0], runs[1], "the metrics of two equal runs");
    let [before, during, after] = runs[0];
    assert_eq!((before.workers, before.worker_threads, before.poller_shards), (1, 0, 1));
    assert_eq!((before.tasks_spawned, before.polls, before.timers_armed, before.descriptors), (0, 0, 0, 0));
    assert_eq!((during.tasks_spawned, during.tasks_alive, during.control_tasks), (4, 3, 1));
    assert_eq!((during.waiters, during.descriptors), (1, 1));
    assert_eq!((during.polls, during.timers_armed, during.timers_fired, during.timer_entries), (4, 3, 1, 2));
    assert!(during.control_turns == 1 && during.parks > 0);
    // The look-up of the name is a blocking call.
    assert_eq!((after.tasks_spawned, after.tasks_alive, after.control_tasks), (5, 0, 0));
    assert_eq!((after.waiters, after.descriptors), (0, 0));
    assert_eq!((after.polls, after.timers_armed, after.timers_fired, after.timer_entries), (8, 3, 3, 0));
    assert!(after.events > during.events && after.poller_waits > during.poller_waits);
    let later = metrics();
    assert_eq!((later.control_tasks, later.timers_fired), (outside.control_tasks, outside.timers_fired));
}

#[netpoll::test(paused)]
async fn metrics_of_a_paused_test_are_its_own() {
    task::spawn(task::sleep(ms(1000))).await;
    let metrics = metrics();
    assert_eq!((metrics.tasks_spawned, metrics.tasks_alive, metrics.polls), (1, 0, 2));
    assert_eq!((metrics.timers_armed, metrics.timers_fired), (1, 1));
    assert_eq!(inspect().metrics.timers_fired, 1, "in a snapshot as well");
}
