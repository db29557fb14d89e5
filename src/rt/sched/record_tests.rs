//! Tests of records.

use super::*;
use crate::counting_waker::CountingWaker;
use std::sync::Arc;

/// Uses more records than a block has, so that numbers within blocks repeat.
#[test]
fn records_are_freed_to_the_slab_under_their_own_numbers() {
    let open =
        || (0..100).map(|_| Record::open(Kind::Task, Lane::Normal, 0, Location::caller(), 0)).collect::<Vec<_>>();
    for _ in 0..10 {
        let records = open();
        let mut numbers: Vec<_> = records.iter().map(|record| record.index()).collect();
        assert!(
            numbers
                .iter()
                .zip(&records)
                .all(|(&number, &record)| { RECORDS.get(number).is_some_and(|found| std::ptr::eq(found, record)) })
        );
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100);
        records.into_iter().for_each(Record::close);
    }
}

#[test]
fn record_outside_the_slab_keeps_a_waker_and_is_freed() {
    let unlisted: Vec<_> = (0..BLOCK_SLOTS + 1).map(|_| Record::unlisted()).collect();
    let wakes = Arc::new(CountingWaker::default());
    for (count, record) in unlisted.iter().enumerate() {
        record.id.store(u64::MAX, Ordering::Relaxed);
        record.keep(Waker::from(wakes.clone()));
        assert_eq!(Arc::strong_count(&wakes), count + 2);
    }
    let before = wakes.wakeups();
    unlisted[0].keeper().wake();
    assert_eq!(wakes.wakeups(), before + 1);
    for record in &unlisted {
        record.release();
        record.close();
    }
    assert_eq!(Arc::strong_count(&wakes), 1);
    let outside = OUTSIDE.lock();
    let is_free = |one: &Record| outside.free.iter().any(|&record| std::ptr::eq(record, one));
    let is_in_block = |one: &Record| outside.blocks.iter().any(|block| block.as_ptr_range().contains(&&raw const *one));
    assert!(unlisted.iter().all(|&record| is_free(record) && is_in_block(record)));
}

#[test]
fn samples_of_a_task_add_up() {
    let record = Record::vacant(0);
    for _ in 0..1000 {
        record.add_cpu(10_000_000);
    }
    record.poll_lasts(Duration::from_millis(80));
    record.poll_lasts(Duration::from_millis(20));
    record.id.store(7, Ordering::Relaxed);
    let reading = record.read().unwrap();
    let cpu = reading.cpu.total();
    // Other tests of this process also change the shared remainder.
    assert!(cpu.abs_diff(Duration::from_secs(10)) < Duration::from_secs(1), "{cpu:?}");
    assert_eq!(reading.cpu.longest_poll(), Duration::from_millis(80));
}

/// A task whose handle still has the result, or the panic, is not alive. Otherwise, a snapshot
/// would show it as waiting.
#[test]
fn ended_tasks_are_not_read() {
    fn panics() {
        std::panic::resume_unwind(Box::new("on purpose"));
    }
    for name in [None, Some("named")] {
        let builder =
            || name.map_or_else(crate::task::Builder::new, |name| crate::task::Builder::new().name(name.to_owned()));
        let handles = [
            builder().spawn(async {}),
            builder().spawn(async { panics() }),
            builder().spawn_blocking(|| {}),
            builder().spawn_blocking(panics),
        ]
        .map(Result::unwrap);
        for handle in &handles {
            let id = handle.task().id().number();
            let start = std::time::Instant::now();
            while all().any(|record| record.live_id() == id) {
                assert!(start.elapsed() < Duration::from_secs(60));
                std::thread::yield_now();
            }
            assert!(all().filter_map(Record::read).all(|reading| reading.id != id));
            // Only a named task keeps its record, so that its name can be found.
            assert_eq!(all().any(|record| record.id() == id), name.is_some());
            let task = handle.task();
            assert_eq!((task.id().number(), task.name()), (id, name));
            assert!(task.spawned_at().unwrap().file().ends_with("record_tests.rs"));
        }
    }
}

/// With optimisation, each codegen unit has its own copies of small functions and of their
/// constants.
#[test]
fn place_is_the_same_in_all_codegen_units() {
    let place = Location::caller();
    let record = Record::open(Kind::Task, Lane::Normal, 0, place, 0);
    let places = [record.place(), record.read().unwrap().place()];
    record.close();
    assert!(places.map(Option::unwrap).into_iter().all(|read| std::ptr::eq(read, place)));
}
