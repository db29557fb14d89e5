//! Tests of the worker's loop: one turn, the order of the sources of work, and readings of the
//! clock.

use super::*;

fn processor(turn_nanos: u64) -> &'static Processor {
    let processor: &'static Processor = Box::leak(Box::new(Processor::new(0)));
    processor.turn_nanos.store(turn_nanos, Ordering::Relaxed);
    processor
}

/// Runs `test` on a thread that owns `processor`, so that tasks that `test` spawns stay in its
/// queue.
fn on<T: Send>(processor: &'static Processor, test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            context::set_processor(Some(processor));
            let value = test();
            context::set_processor(None);
            value
        });
        thread.join().unwrap()
    })
}

/// Returns an item that is no task. `number` must not be 0.
fn item(number: usize) -> Item {
    Item::new(std::ptr::without_provenance_mut(number)).unwrap()
}

#[test]
fn next_slot_runs_first_three_times_in_a_row() {
    let (mut core, processor) = (Core::new(), processor(1000));
    (1..=4).for_each(|number| processor.queue.push(item(number)));
    let mut taken = Vec::new();
    for number in 11..=18 {
        processor.queue.push_next(item(number));
        core.tick += 1;
        taken.extend(core.next(runtime(), processor, false).map(|item| item.as_ptr().addr()));
    }
    assert_eq!(taken, [11, 12, 13, 1, 15, 16, 17, 2]);
    taken.clear();
    while let Some(item) = core.next(runtime(), processor, false) {
        taken.push(item.as_ptr().addr());
    }
    assert_eq!(taken, [3, 4, 14, 18]);
}

/// A turn that used much of its budget may have been long, so the clock is read after it.
#[test]
fn clock_is_read_after_a_long_turn() {
    let (mut core, processor) = (Core::new(), processor(1000));
    on(processor, || {
        for (left, is_long) in [(BUDGET, false), (REFILL + 1, false), (REFILL, true), (0, true)] {
            let task = crate::task::spawn(async move { processor.budget.store(left, Ordering::Relaxed) });
            let item = processor.queue.pop().unwrap();
            core.tick = 20;
            core.pacing.read_next(24);
            core.turn(runtime(), processor, item, runtime().epoch());
            assert!(task.is_finished() && processor.running_id() == 0);
            assert!(core.pacing.is_due(if is_long { 21 } else { 25 }), "{left}");
        }
        assert_eq!((core.pacing.since_poll(), processor.turns.ended()), (4, 4));
    });
}

/// The task's epoch is the current one, and not that of the thread, so another thread runs the
/// task.
#[test]
fn task_of_another_epoch_gets_no_turn() {
    let (mut core, processor) = (Core::new(), processor(1000));
    let task = on(processor, || {
        let task = crate::task::spawn(async { 5 });
        core.turn(runtime(), processor, processor.queue.pop().unwrap(), runtime().epoch().wrapping_add(1));
        task
    });
    assert_eq!(crate::task::block_on(task), 5);
    assert_eq!((core.pacing.since_poll(), processor.turns.ended(), processor.ended.get()), (0, 0, 0));
}

/// In this test, the clock is read after every turn, as if the tasks used up their turns.
#[test]
fn shared_queue_comes_first_in_at_most_every_second_turn() {
    let (mut core, processor) = (Core::new(), processor(1000));
    (1..=8).for_each(|number| processor.queue.push(item(number)));
    let mut asked = Vec::new();
    for tick in 10..18 {
        core.tick = tick;
        assert!(core.next(runtime(), processor, true).is_some());
        asked.push(core.shared_at == tick);
    }
    assert_eq!(asked, [true, false, true, false, true, false, true, false]);
}

#[test]
fn owner_that_reads_the_clock_is_not_stuck() {
    let (mut core, processor) = (Core::new(), processor(1000));
    processor.stuck.store(true, Ordering::Relaxed);
    core.maintain(runtime(), processor);
    assert!(!processor.stuck.load(Ordering::Relaxed));
}

#[test]
fn spawned_task_runs_next_and_self_woken_task_runs_last() {
    let (mut core, processor) = (Core::new(), processor(1000));
    let mut turn = || core.turn(runtime(), processor, processor.queue.pop().unwrap(), runtime().epoch());
    on(processor, || {
        let spawner = crate::task::spawn(async { drop(crate::task::spawn(async { 7 })) });
        let yielder = crate::task::spawn(crate::task::yield_now());
        assert!(processor.queue.pop_next().is_none(), "no running task has spawned or woken them");
        turn();
        assert!(spawner.is_finished());
        processor.queue.push(processor.queue.pop_next().expect("the spawned task"));
        turn();
        assert!(!yielder.is_finished() && processor.queue.pop_next().is_none());
        turn();
        assert!(!yielder.is_finished());
        turn();
        assert!(yielder.is_finished() && processor.queue.len() == 0);
    });
}
