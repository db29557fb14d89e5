//! The control lane: control tasks run before other tasks within the lane's share, and neither lane
//! starves.
//!
//! The tests assert limits on numbers of turns, not on times. A turn spins for at least its given
//! length. On a busy machine turns are longer, so fewer of them fit in a given time.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{becomes, child, eventually, pair, park_on};
use futures::FutureExt as _;
use netpoll::net::{self, TcpListener, TcpStream};
use netpoll::os::unix::net::UnixStream;
use netpoll::rt::{self, BlockedPolicy, Lane};
use netpoll::task::{self, TaskSet};

/// Starts a runtime with one worker, no spare workers, and this share of the control lane.
fn start(share: u32) {
    let builder = rt::Builder::new().workers(1).spare_workers(0).blocked_tasks(BlockedPolicy::Off);
    builder.control_share(share).start().unwrap();
}

fn spawn<F>(lane: Lane, future: F) -> task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    task::Builder::new().lane(lane).spawn(future).unwrap()
}

fn spin(micros: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(micros) {}
}

/// Runs turns of at least `micros` microseconds each without end, and counts them.
async fn hog(turns: Arc<AtomicUsize>, micros: u64) {
    loop {
        spin(micros);
        turns.fetch_add(1, Ordering::SeqCst);
        task::yield_now().await;
    }
}

fn count(turns: &AtomicUsize) -> usize {
    turns.load(Ordering::SeqCst)
}

/// A control task that an event wakes runs after a bounded number of turns, however many other
/// tasks are runnable.
#[test]
fn control_task_waits_for_no_queue() {
    child("control_task_waits_for_no_queue", || {
        for others in [1, 255, 256, 257, 1000, 10_000] {
            start(5);
            let turns = Arc::new(AtomicUsize::new(0));
            let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
            let waits = Arc::new(AtomicUsize::new(0));
            let (sent_in, seen) = (Arc::new(AtomicUsize::new(0)), turns.clone());
            let control = spawn(Lane::Control, {
                let (sent_in, waits) = (sent_in.clone(), waits.clone());
                async move {
                    let reader = netpoll::os::unix::net::UnixStream::from(reader);
                    for _ in 0..20 {
                        assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 1);
                        waits.fetch_max(count(&seen) - sent_in.swap(0, Ordering::SeqCst), Ordering::SeqCst);
                    }
                }
            });
            let writer = Arc::new(writer);
            for _ in 0..others {
                let (turns, sent_in, writer) = (turns.clone(), sent_in.clone(), writer.clone());
                drop(task::spawn(async move {
                    loop {
                        // A turn of this length counts as long (`LONG_NANOS`).
                        spin(60);
                        let turn = turns.fetch_add(1, Ordering::SeqCst) + 1;
                        // Sends as soon as the control task has read the previous byte, whichever
                        // task has its turn.
                        if turn > 10 && sent_in.load(Ordering::SeqCst) == 0 {
                            sent_in.store(turn, Ordering::SeqCst);
                            std::io::Write::write_all(&mut &*writer, b"x").unwrap();
                        }
                        task::yield_now().await;
                    }
                }));
            }
            park_on(control);
            // The clock is read at least every fourth turn. If the machine delays a control turn,
            // the lane gets only one of 20 turns.
            assert!(count(&waits) <= 25, "{} turns of {others} other tasks", count(&waits));
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

/// Beyond the lane's share, control tasks get one of 20 turns or queue behind ordinary tasks, so no
/// ordinary task starves.
#[test]
fn endless_control_tasks_do_not_starve_others() {
    // The maximum number of consecutive control turns: the burst of 2.5 ms, with the credit that
    // accrues during it, and one turn of each of the 8 control tasks, which are queued behind the
    // ordinary task when the credit is used up.
    const ROW_MAX: usize = 28 + 8;
    child("endless_control_tasks_do_not_starve_others", || {
        start(5);
        let (control, normal) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let long_rows = Arc::new(AtomicUsize::new(0));
        for _ in 0..8 {
            drop(spawn(Lane::Control, hog(control.clone(), 100)));
        }
        drop(task::spawn({
            let (control, normal, long_rows) = (control.clone(), normal.clone(), long_rows.clone());
            async move {
                let mut before = count(&control);
                loop {
                    task::yield_now().await;
                    let now = count(&control);
                    long_rows.fetch_add(usize::from(now - before > ROW_MAX), Ordering::SeqCst);
                    before = now;
                    normal.fetch_add(1, Ordering::SeqCst);
                }
            }
        }));
        eventually("each lane has had 300 turns", || count(&normal) >= 300 && count(&control) >= 300);
        // On a busy machine, credit for another burst may accrue while the worker waits for a CPU.
        let (long, rows) = (count(&long_rows), count(&normal));
        assert!(long <= rows / 10, "{long} of {rows} rows of control turns have more than {ROW_MAX} turns");
        let metrics = rt::metrics();
        assert_eq!(metrics.control_tasks, 8);
        assert!(metrics.control_turns > 0 && metrics.control_queued > metrics.control_turns, "{metrics:?}");
    });
}

/// A control task that has used up the lane's share waits for at most one turn of each other task.
/// With many other tasks, it waits for at most 20 turns at a share of 5 %, because the lane gets
/// one of 20 turns.
#[test]
fn control_task_without_credit_has_its_turns_among_others() {
    child("control_task_without_credit_has_its_turns_among_others", || {
        for (share, others, bound) in [(0, 10, 10), (5, 10, 10), (0, 100, 100), (5, 100, 20), (20, 100, 5)] {
            start(share);
            let (control, normal) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            for _ in 0..others {
                drop(task::spawn(hog(normal.clone(), 20)));
            }
            let most = Arc::new(AtomicUsize::new(0));
            drop(spawn(Lane::Control, {
                let (control, normal, most) = (control.clone(), normal.clone(), most.clone());
                async move {
                    let mut before = count(&normal);
                    loop {
                        // At a share of 5 %, a turn of 3 ms uses up the lane's share of 60 ms.
                        spin(3000);
                        task::yield_now().await;
                        let now = count(&normal);
                        if control.fetch_add(1, Ordering::SeqCst) > 0 {
                            most.fetch_max(now - before, Ordering::SeqCst);
                        }
                        before = now;
                    }
                }
            }));
            eventually("the control task has had 50 turns", || count(&control) >= 50);
            assert!(
                count(&most) <= bound + 1,
                "{} turns of {others} other tasks before one of the control task",
                count(&most)
            );
            rt::shutdown(common::BOUND).unwrap();
        }
    });
}

#[test]
fn tasks_inherit_the_lane_of_the_task_that_spawns_them() {
    child("tasks_inherit_the_lane_of_the_task_that_spawns_them", || {
        let lane = || async { task::current().lane() };
        park_on(async move {
            assert_eq!(task::spawn(lane()).await, Lane::Normal);
            let lanes = spawn(Lane::Control, async move {
                let mut set = TaskSet::new();
                set.spawn(lane());
                set.spawn(async move { task::spawn(lane()).await });
                set.spawn_with(task::Builder::new().lane(Lane::Normal), async move { task::spawn(lane()).await })
                    .unwrap();
                (set.join_all().await, task::spawn_blocking(|| task::current().lane()).await)
            });
            let (mut lanes, blocking) = lanes.await;
            lanes.sort_by_key(|lane| *lane == Lane::Normal);
            assert_eq!((lanes, blocking), (vec![Lane::Control, Lane::Control, Lane::Normal], Lane::Normal));
        });
        eventually("all tasks have ended", || rt::metrics().control_tasks == 0);
    });
}

/// Connections that a control task accepts are served in the lane, as a snapshot shows.
#[test]
fn connections_of_a_control_listener_are_control_tasks() {
    child("connections_of_a_control_listener_are_control_tasks", || {
        task::block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let server = spawn(Lane::Control, async move {
                net::serve(listener, |stream: TcpStream| async move { common::echo(&stream).await }).await
            });
            let ordinary = task::spawn(std::future::pending::<()>());
            let client = TcpStream::connect(addr).await.unwrap();
            common::ping(&client, b"ping").await.unwrap();
            let snapshot = rt::inspect();
            let lane = |id| snapshot.task(id).unwrap().lane();
            assert_eq!((lane(server.task().id()), lane(ordinary.task().id())), (Lane::Control, Lane::Normal));
            let control = snapshot.tasks.iter().filter(|task| task.lane() == Lane::Control);
            assert_eq!(control.count(), 2, "the server and the task of its connection: {snapshot}");
            assert_eq!(snapshot.metrics.control_tasks, 2);
            assert_eq!(snapshot.to_json().matches("\"lane\":\"control\"").count(), 2);
            assert_eq!(snapshot.to_string().matches(" (control)").count(), 2);
            drop(client);
            server.cancel().await;
            becomes("the lane is empty", || rt::metrics().control_tasks == 0).await;
        });
    });
}

/// The lock of a socket is FIFO. A control task that waits for the lock behind an ordinary task
/// gets it when the ordinary task, which always gets its turns, is done. Hogs in either lane do not
/// prevent this.
#[test]
fn lock_held_by_an_ordinary_task_delays_a_control_task_by_a_bounded_time() {
    child("lock_held_by_an_ordinary_task_delays_a_control_task_by_a_bounded_time", || {
        start(50);
        let turns = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        park_on(async {
            let (one, other) = pair().await;
            let filled = common::fill(&one).await;
            let one = Arc::new(one);
            let holder = task::spawn({
                let one = one.clone();
                async move { one.write_all(&[1; 100_000]).await }
            });
            becomes("the operation waits and holds the lock", || {
                let snapshot = rt::inspect();
                snapshot.task(holder.task().id()).is_some_and(|task| task.waits_for().is_some())
            })
            .await;
            let control = spawn(Lane::Control, {
                let (one, ended) = (one.clone(), ended.clone());
                async move {
                    one.write_all(&[2; 10]).await.unwrap();
                    ended.store(true, Ordering::SeqCst);
                }
            });
            for lane in [Lane::Normal, Lane::Control] {
                drop(spawn(lane, hog(turns.clone(), 50)));
            }
            becomes("the hogs run", || count(&turns) > 10).await;
            assert!(!ended.load(Ordering::SeqCst), "the control task gets the lock before the holder is done");
            let mut all = vec![0; filled + 100_010];
            common::read_exact(&other, &mut all).await.unwrap();
            assert!(all[filled..].iter().take(100_000).all(|byte| *byte == 1) && all.ends_with(&[2; 10]));
            control.await;
            holder.await.unwrap();
        });
    });
}

/// A shutdown drops control tasks that are queued, and the next runtime has an empty lane.
#[test]
fn shutdown_drops_control_tasks() {
    child("shutdown_drops_control_tasks", || {
        for _ in 0..20 {
            start(5);
            let turns = Arc::new(AtomicUsize::new(0));
            for _ in 0..100 {
                drop(spawn(Lane::Control, hog(turns.clone(), 1)));
                drop(task::spawn(hog(turns.clone(), 1)));
            }
            eventually("the hogs run", || count(&turns) > 1000);
            rt::shutdown(common::BOUND).unwrap();
            let metrics = rt::metrics();
            assert_eq!((metrics.tasks_alive, metrics.control_tasks, metrics.tasks_injected), (0, 0, 0));
            assert_eq!(Arc::strong_count(&turns), 1);
        }
    });
}

/// No wake-up of a control task is lost, whether a task or a thread without a processor causes it.
/// The workers may sleep between two wake-ups.
#[test]
fn wake_ups_of_control_tasks_are_not_lost() {
    child("wake_ups_of_control_tasks_are_not_lost", || {
        rt::Builder::new().workers(2).start().unwrap();
        for round in 0..2000 {
            let (to, from) = futures::channel::oneshot::channel();
            let (there, back) = futures::channel::oneshot::channel();
            let control = spawn(Lane::Control, async move {
                let number: usize = from.await.unwrap();
                there.send(number + 1).unwrap();
            });
            let other = spawn([Lane::Normal, Lane::Control][round % 2], back);
            to.send(round).unwrap();
            park_on(control);
            assert_eq!(park_on(other), Ok(round + 1));
        }
    });
}

/// A thread in `block_on` that runs tasks runs those of the lane too.
#[test]
fn block_on_that_runs_tasks_runs_the_control_lane() {
    child("block_on_that_runs_tasks_runs_the_control_lane", || {
        rt::Builder::new().workers(1).block_on_runs_tasks(true).start().unwrap();
        task::block_on(async {
            for _ in 0..100 {
                let control = spawn(Lane::Control, async { task::spawn(async { 7 }).await });
                let mut both = pin!(futures::future::join(control, spawn(Lane::Normal, async { 8 })).fuse());
                assert_eq!(both.as_mut().await, (7, 8));
            }
        });
    });
}

#[test]
fn shares_above_one_hundred_are_refused() {
    let error = rt::Builder::new().control_share(101).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

/// A task that another thread wakes gets its turn, although the lane is beyond its share and the
/// other tasks use up their budgets.
#[test]
fn tasks_of_other_threads_run_despite_an_endless_control_task() {
    child("tasks_of_other_threads_run_despite_an_endless_control_task", || {
        start(5);
        drop(spawn(Lane::Control, async {
            loop {
                task::yield_now().await;
            }
        }));
        for _ in 0..32 {
            drop(task::spawn(async {
                let (reader, writer) = UnixStream::pair().unwrap();
                writer.write_all(b"x").await.unwrap();
                loop {
                    // The operation is always ready, so the budget ends the turn.
                    reader.readable().await.unwrap();
                }
            }));
        }
        park_on(task::spawn(async {
            for _ in 0..50 {
                task::spawn_blocking(|| ()).await;
            }
        }));
    });
}

/// Without credit, the lane gets no more than about one of 20 turns.
#[test]
fn lane_without_credit_has_one_of_twenty_turns() {
    child("lane_without_credit_has_one_of_twenty_turns", || {
        start(5);
        let (control, normal) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        drop(spawn(Lane::Control, hog(control.clone(), 100)));
        for _ in 0..32 {
            drop(task::spawn(hog(normal.clone(), 0)));
        }
        eventually("ordinary tasks have had 10,000 turns", || count(&normal) >= 10_000);
        let (control, normal) = (count(&control), count(&normal));
        assert!(control <= normal / 16 + 60, "{control} turns of the lane, {normal} of others");
    });
}
