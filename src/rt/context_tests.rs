//! Unit tests of the budget, of the time for which a turn gathers writes, of the current task and
//! its waker, and of the time of a spawn; see [`context`](super).

use super::*;
use crate::counting_waker::CountingWaker;
use crate::rt::runtime::runtime;
use crate::rt::sched::lanes::Lane;
use crate::rt::sched::processor::TURN_NANOS;
use crate::rt::sched::record::Kind;
use crate::rt::time::ticks;
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Runs `test` on a thread that owns a processor.
fn with_processor(test: impl FnOnce(&'static Processor) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        let processor: &'static Processor = Box::leak(Box::new(Processor::new(0)));
        set_processor(Some(processor));
        test(processor);
        set_processor(None);
    });
    thread.join().unwrap();
}

/// Returns the number of granted polls, up to `most`. Checks that the refusal wakes the task once.
fn polls(most: u32) -> u32 {
    let count = Arc::new(CountingWaker::default());
    let waker = Waker::from(count.clone());
    let poll = || poll_budget(&mut TaskContext::from_waker(&waker), &mut false).is_ready();
    let granted = (0..most).take_while(|_| poll()).count();
    assert_eq!(count.wakeups(), usize::from(granted < most as usize));
    granted as u32
}

#[test]
fn budget_is_used_up_and_refilled() {
    with_processor(|processor| {
        assert_eq!((polls(100), polls(100)), (BUDGET, REFILL));
        processor.budget.store(2, Ordering::Relaxed);
        assert_eq!([(); 4].map(|()| take_budget()), [true, true, false, false]);
        assert_eq!(polls(100), 0);
        assert_eq!(processor.budget.load(Ordering::Relaxed), REFILL);
    });
    std::thread::spawn(|| {
        assert!(!take_budget(), "no budget outside turns");
        assert_eq!((polls(100), polls(100)), (BUDGET, BUDGET));
    })
    .join()
    .unwrap();
}

/// A turn of slow operations ends at the first check of the time. A turn of fast operations uses up
/// its budget.
#[test]
#[cfg(not(netpoll_no_black_box))]
fn long_turn_ends_before_its_budget() {
    with_processor(|processor| {
        let turn = |began| {
            processor.turns.begin(1, began);
            processor.budget.store(BUDGET, Ordering::Relaxed);
            (polls(100), polls(100))
        };
        assert_eq!(turn(1), (BUDGET, REFILL), "no turn is in progress");
        processor.running.store(ptr::dangling_mut(), Ordering::Relaxed);
        // The length of a tick is unknown at first.
        while ticks::in_nanos(1).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(turn(1), (CHECK_EVERY - 1, CHECK_EVERY - 1));
        assert_eq!(turn(u64::MAX), (BUDGET, REFILL), "a time stamp ahead of this core's");
        assert_eq!(turn(0), (BUDGET, REFILL), "the turn was not recorded");
        // An operation that moved many bytes is followed by a check.
        processor.turns.begin(1, 1);
        let state = AtomicU8::new(0);
        processor.budget.store(BUDGET, Ordering::Relaxed);
        assert!(is_granted(&state));
        charge(BYTES_PER_UNIT + 1);
        assert!(is_spent(&state) && !is_granted(&state) && is_granted(&state), "refused once");
    });
}

fn is_granted(state: &AtomicU8) -> bool {
    poll_turn(&mut TaskContext::from_waker(&Arc::new(CountingWaker::default()).into()), state).is_ready()
}

/// If a refused operation could be refused again, a task with 40 operations would have the same
/// operations refused in every turn.
#[test]
fn refused_operation_is_granted_next_time() {
    with_processor(|processor| {
        let states = [const { AtomicU8::new(0) }; 40];
        let turn = || {
            processor.budget.store(BUDGET, Ordering::Relaxed);
            states.each_ref().map(is_granted)
        };
        let first = turn();
        assert_eq!(first.map(usize::from).iter().sum::<usize>(), 39, "{first:?}");
        assert!(!first[31] && turn()[31] && turn()[32]);
        let mut refused = false;
        let waker = Arc::new(CountingWaker::default()).into();
        let mut poll = || poll_budget(&mut TaskContext::from_waker(&waker), &mut refused).is_ready();
        let mut last = || {
            processor.budget.store(0, Ordering::Relaxed);
            poll()
        };
        assert_eq!([(); 5].map(|()| last()), [false, true, false, true, false]);
    });
}

#[test]
fn task_asked_to_yield_keeps_first_operation_of_its_turn() {
    with_processor(|processor| {
        let (first, second) = (AtomicU8::new(0), AtomicU8::new(0));
        for _ in 0..3 {
            processor.budget.store(BUDGET, Ordering::Relaxed);
            (0..3).for_each(|_| ask_to_yield(processor));
            assert!(is_granted(&first));
        }
        assert!(!is_granted(&second));
        processor.budget.store(7, Ordering::Relaxed);
        ask_to_yield(processor);
        assert!(!take_budget());
    });
}

#[test]
fn operations_outside_turns_are_limited_per_direction() {
    let count = |state: &AtomicU8| (0..100).take_while(|_| is_granted(state)).count();
    let (one, other) = (AtomicU8::new(0), AtomicU8::new(0));
    assert_eq!([&one, &one, &other].map(count), [BUDGET as usize; 3]);
    let refused_in_turn = AtomicU8::new(REFUSED);
    assert!(!is_spent(&refused_in_turn));
    assert_eq!([&refused_in_turn; 2].map(count), [BUDGET as usize + 1, BUDGET as usize]);
}

#[test]
fn wait_under_another_executor_ends_the_run_of_operations() {
    let state = AtomicU8::new(0);
    let waker = Waker::from(Arc::new(CountingWaker::default()));
    let mut cx = TaskContext::from_waker(&waker);
    for _ in 0..2 * BUDGET {
        assert!(poll_turn(&mut cx, &state).is_ready());
        // A second operation waits, whether or not the direction was marked as ready.
        for only_asked in [true, false] {
            assert!(poll_turn(&mut cx, &state).is_ready());
            end_run(&state, only_asked);
        }
    }
}

#[test]
fn root_future_has_a_budget_per_turn() {
    let state = AtomicU8::new(0);
    assert!(!set_root(true));
    for _ in 0..2 {
        refill_budget();
        let granted = (0..100).take_while(|_| is_granted(&state)).count();
        assert!((BUDGET as usize..=BUDGET as usize + 1).contains(&granted), "{granted}");
    }
    charge(100 * BYTES_PER_UNIT);
    assert!(!take_budget() && set_root(false));
    charge(1 << 20);
}

#[test]
fn operation_that_has_to_wait_gives_its_unit_back() {
    let is_granted_and_back = |state: &AtomicU8| {
        let granted = is_granted(state);
        end_run(state, true);
        granted
    };
    let state = AtomicU8::new(0);
    assert!((0..100).all(|_| is_granted_and_back(&state) && !is_spent(&state)));
    with_processor(move |processor| {
        processor.budget.store(1, Ordering::Relaxed);
        assert!((0..100).all(|_| is_granted_and_back(&state) && processor.budget.load(Ordering::Relaxed) == 1));
        processor.budget.store(0, Ordering::Relaxed);
        assert!(is_spent(&state));
    });
}

/// A caller with such a waker may poll only once, and act on the result.
#[test]
fn waker_that_wakes_no_task_is_never_refused() {
    let (state, mut cx) = (AtomicU8::new(0), TaskContext::from_waker(Waker::noop()));
    assert!((0..100).all(|_| poll_turn(&mut cx, &state).is_ready()));
    with_processor(|_| {
        let (state, mut cx) = (AtomicU8::new(0), TaskContext::from_waker(Waker::noop()));
        assert!((0..100).all(|_| poll_turn(&mut cx, &state).is_ready()));
    });
}

/// The refusal applies to the next operation instead, unless that operation was refused before.
#[test]
fn waker_that_wakes_no_task_leaves_the_refusal_to_others() {
    let once = |state: &AtomicU8| poll_turn(&mut TaskContext::from_waker(Waker::noop()), state).is_ready();
    with_processor(move |processor| {
        for count in 0..3 * BUDGET {
            let (polled, state) = (AtomicU8::new(0), AtomicU8::new(0));
            processor.budget.store(BUDGET, Ordering::Relaxed);
            assert!((0..count).all(|_| once(&polled)));
            assert_eq!(is_granted(&state), count < BUDGET, "after {count}");
        }
        let state = AtomicU8::new(REFUSED);
        for left in [BUDGET, 0] {
            processor.budget.store(left, Ordering::Relaxed);
            assert!((0..100).all(|_| once(&state)));
            assert_eq!(state.load(Ordering::Relaxed), REFUSED);
        }
        assert!(is_granted(&state) && !is_granted(&state));
        let mut refused = false;
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert!((0..100).all(|_| poll_budget(&mut cx, &mut refused).is_ready()) && !refused);
        let waker = Arc::new(CountingWaker::default()).into();
        processor.budget.store(0, Ordering::Relaxed);
        assert!(poll_budget(&mut TaskContext::from_waker(&waker), &mut refused).is_pending() && refused);
        assert!(poll_budget(&mut cx, &mut refused).is_ready() && refused);
    });
    let state = AtomicU8::new(0);
    assert!((0..100).all(|_| once(&state)) && !is_granted(&state), "outside turns");
}

/// The record of a short count relies on the comparison of wakers.
#[test]
fn waker_of_a_turn_is_recognised() {
    let knows = || std::future::poll_fn(|cx| Poll::Ready(own_waker::has_data_of(cx.waker())));
    crate::task::block_on(async {
        assert!(knows().await);
        assert!(crate::task::spawn(knows()).await);
        assert!(crate::task::spawn_local(knows()).await);
    });
}

#[test]
fn many_bytes_cost_more() {
    with_processor(|processor| {
        let left = |bytes| {
            processor.budget.store(BUDGET, Ordering::Relaxed);
            charge(bytes);
            processor.budget.load(Ordering::Relaxed)
        };
        assert_eq!([0, 1, BYTES_PER_UNIT - 1].map(left), [BUDGET; 3]);
        assert_eq!([2, 5, 31].map(|units| left(units * BYTES_PER_UNIT)), [BUDGET - 2, BUDGET - 5, 0]);
        assert_eq!(left(3 * BYTES_PER_UNIT - 1), BUDGET - 2);
        assert_eq!([left(1 << 20), left(usize::MAX)], [0; 2]);
        if !cfg!(netpoll_no_black_box) {
            // In a turn whose beginning is recorded, the next operation checks the time.
            processor.turns.begin(1, 1);
            assert_eq!([2, 5, 31].map(|units| left(units * BYTES_PER_UNIT)), [28, 24, 0]);
        }
    });
    charge(1 << 20);
}

#[test]
fn turn_may_gather_for_longer_than_it_makes_calls() {
    if cfg!(netpoll_no_black_box) {
        // The beginnings of turns are not recorded.
        return;
    }
    ticks::calibrate();
    while ticks::in_nanos(1000).is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    with_processor(|processor| {
        let begin = |ticks, left| {
            processor.running.store(ptr::without_provenance_mut(8), Ordering::Relaxed);
            processor.turns.begin(1, ticks);
            processor.budget.store(left, Ordering::Relaxed);
        };
        let left = || processor.budget.load(Ordering::Relaxed);
        let second = ticks::in_nanos(1_000_000_000).unwrap();
        // The turn begins in the future, so that it cannot be over.
        begin(ticks::ticks() + second, BUDGET);
        assert!(may_gather() && left() == REFILL, "the turn counts as possibly long");
        begin(ticks::ticks() + second, 9);
        assert!(may_gather() && left() == 9);
        begin(ticks::ticks() - second, 10);
        assert!(!may_gather() && left() == 8 && !take_budget(), "the next operation ends the turn");
        // After twice the time for calls, the turn may still gather. This is tried again, because a
        // preemption of this thread may use up the time for gathering too.
        let time_for_calls = ticks::in_nanos(TURN_NANOS).unwrap();
        let gathers_after_calls = |_| {
            begin(ticks::ticks() - 2 * time_for_calls, BUDGET);
            processor.is_turn_over() && may_gather()
        };
        assert!((0..1000).any(gathers_after_calls));
        // Without the beginning of the turn, the budget counts.
        begin(0, 2);
        assert!(may_gather() && may_gather() && !may_gather());
        processor.running.store(ptr::null_mut(), Ordering::Relaxed);
    });
}

#[test]
fn context_follows_the_running_task() {
    assert!(!is_inside());
    assert!(!enter() && enter() && is_inside());
    leave();
    assert!(is_inside());
    leave();
    assert!(!is_inside());
    with_processor(|processor| {
        let is_own = |own: Option<&Processor>| own.is_some_and(|own| ptr::eq(own, processor));
        assert!(is_own(processor_and_task(0).0) && !processor_and_task(0).1 && is_own(processor_in(0)));
        assert!(processor_in(1).is_none() && processor_and_task(1).0.is_none());
        let task = ptr::without_provenance(8);
        let ran = std::panic::catch_unwind(|| run_task(task, || assert!(!processor_and_task(0).1, "on purpose")));
        assert!(ran.is_err() && !processor_and_task(0).1, "even if the turn panics");
        run_task(task, || {
            assert!(processor_and_task(0).1);
            run_task(ptr::null(), || assert!(!processor_and_task(0).1));
            assert!(processor_and_task(0).1);
        });
    });
    assert!(processor().is_none());
}

#[test]
fn time_of_spawn_is_the_beginning_of_the_turn_or_a_later_check() {
    if cfg!(netpoll_no_black_box) {
        // The beginnings of turns are not recorded.
        return;
    }
    let epoch = runtime().ensure_running();
    with_processor(move |processor| {
        let data = TaskData::new(Kind::Root, None, Lane::Normal, epoch, Location::caller(), 0);
        run_task(&data, || {
            assert_eq!(processor.turn_began(), None, "no turn has begun");
            processor.running.store(ptr::from_ref(data.record()).cast_mut(), Ordering::Relaxed);
            // Sysmon sleeps if nothing happens.
            let checks = || {
                runtime().notice_activity();
                runtime().sysmon.checked().is_some_and(|checked| checked > 1)
            };
            let is_found = |began, expected: &dyn Fn(u32) -> bool| {
                processor.turns.begin(1, began);
                while !(checks() && expected(runtime().time_of_spawn())) {
                    std::thread::yield_now();
                }
            };
            let later = ticks::ticks() + (1 << 40);
            is_found(later, &|time| time == ticks::rough(later));
            is_found(1, &|time| time != ticks::rough(1));
        });
        processor.running.store(ptr::null_mut(), Ordering::Relaxed);
        assert_eq!(processor.turn_began(), None, "the turn has ended");
    });
}
