//! Tests of `Ring`: growth, release of memory, and threads that steal.

use super::*;
use crate::sync::AtomicUsize;

fn item(number: usize) -> Item {
    NonNull::new(ptr::without_provenance_mut(number + 1)).expect("not null")
}

fn push(ring: &Ring, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| ring.push(item(number)));
}

fn pop(ring: &Ring, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| assert_eq!(ring.pop(), Some(item(number))));
}

fn slots(ring: &Ring) -> usize {
    ring.view().mask as usize + 1
}

#[allow(unsafe_code)]
fn retired(ring: &Ring) -> usize {
    // SAFETY: the tests call this on the owner's thread.
    ring.retired.with(|retired| unsafe { (*retired).len() })
}

#[test]
fn order_is_fifo_across_growth() {
    // The indices begin at various slots, and wrap around.
    for start in [0, 1, RING as u32 - 1, RING as u32, 1000, u32::MAX - 5 * RING as u32 / 2, u32::MAX] {
        let ring = Ring::new();
        ring.head.store(start, Ordering::Relaxed);
        ring.tail.store(start, Ordering::Relaxed);
        push(&ring, 0..RING);
        assert_eq!((ring.len(), slots(&ring)), (RING, RING), "a full ring has not grown");
        push(&ring, RING..3 * RING);
        assert_eq!((ring.len(), slots(&ring)), (3 * RING, 4 * RING));
        pop(&ring, 0..RING);
        let end = ring.end();
        push(&ring, 3 * RING..8 * RING);
        assert_eq!((ring.len(), slots(&ring)), (7 * RING, 8 * RING));
        assert!(!ring.has_passed(end));
        pop(&ring, RING..3 * RING - 1);
        assert!(!ring.has_passed(end));
        pop(&ring, 3 * RING - 1..3 * RING);
        assert!(ring.has_passed(end));
        pop(&ring, 3 * RING..8 * RING);
        assert_eq!((ring.pop(), ring.len(), retired(&ring)), (None, 0, 0));
    }
}

#[test]
fn steady_backlog_neither_grows_nor_shrinks_the_ring() {
    for length in [1, RING - 1, RING, RING + 1, 1000, 10_000] {
        let ring = Ring::new();
        push(&ring, 0..length);
        let expected = length.next_power_of_two().max(RING);
        for number in 0..3 * expected {
            pop(&ring, number..number + 1);
            push(&ring, length + number..length + number + 1);
        }
        assert_eq!((ring.len(), slots(&ring)), (length, expected));
    }
}

#[test]
fn thieves_take_half_of_the_items_but_at_most_a_batch() {
    let (ring, thief) = (Ring::new(), Ring::new());
    assert_eq!(ring.steal(&thief), None);
    push(&ring, 0..10);
    assert_eq!(ring.steal(&thief), Some(item(4)), "the youngest of five");
    pop(&thief, 0..4);
    push(&ring, 10..3 * RING);
    let mut first = 5;
    while ring.len() > 3 {
        let count = ring.len().div_ceil(2).min(BATCH);
        assert_eq!(ring.steal(&thief), Some(item(first + count - 1)));
        assert_eq!(thief.len(), count - 1);
        pop(&thief, first..first + count - 1);
        first += count;
    }
    assert_eq!(slots(&thief), RING, "a theft fits in a new ring");
    let mut taken = Vec::new();
    assert!(ring.take(&mut taken) && ring.take(&mut taken) && !ring.take(&mut taken));
    assert_eq!(taken, (3 * RING - 3..3 * RING).map(item).collect::<Vec<_>>());
}

#[test]
fn memory_of_a_long_backlog_is_freed_when_the_ring_is_empty() {
    let ring = Ring::new();
    let fill_and_empty = |length: usize, by_thieves: bool| {
        push(&ring, 0..length);
        assert_eq!((slots(&ring), retired(&ring)), (length, 0));
        let mut taken = Vec::new();
        while by_thieves && ring.take(&mut taken) {}
        pop(&ring, taken.len()..length);
        assert_eq!((ring.pop(), retired(&ring)), (None, 0));
    };
    for by_thieves in [false, true] {
        fill_and_empty(2 * KEPT_MAX, by_thieves);
        assert_eq!(slots(&ring), RING);
    }
    // The memory of a short backlog is kept.
    fill_and_empty(KEPT_MAX, false);
    assert_eq!(slots(&ring), KEPT_MAX);
    push(&ring, 0..3);
    pop(&ring, 0..3);
}

#[test]
fn retired_memory_is_bounded_and_freed_after_the_last_thief() {
    let ring = Ring::new();
    ring.thieves.fetch_add(1, Ordering::SeqCst);
    for _ in 0..10 {
        push(&ring, 0..2 * KEPT_MAX);
        pop(&ring, 0..2 * KEPT_MAX);
        assert_eq!(ring.pop(), None);
        assert_eq!((slots(&ring), retired(&ring)), (2 * KEPT_MAX, 5), "buffers of 256 to 4096 slots");
    }
    ring.thieves.fetch_sub(1, Ordering::SeqCst);
    assert_eq!((ring.pop(), slots(&ring), retired(&ring)), (None, RING, 0));
    // A thief that comes right before the ring shrinks delays only the release of the old buffer.
    push(&ring, 0..2 * KEPT_MAX);
    pop(&ring, 0..2 * KEPT_MAX);
    ring.thieves.fetch_add(1, Ordering::SeqCst);
    ring.replace(RING as u32, ring.end());
    assert_eq!((slots(&ring), retired(&ring)), (RING, 1));
    ring.thieves.fetch_sub(1, Ordering::SeqCst);
    assert_eq!((ring.pop(), retired(&ring)), (None, 0));
}

/// The owner fills the ring in bursts of various lengths, so it grows and shrinks while thieves
/// read it.
#[test]
fn no_item_is_lost_or_duplicated_under_theft() {
    const ITEMS: usize = 600_000;
    let ring = Ring::new();
    let seen: Vec<AtomicU32> = (0..ITEMS).map(|_| AtomicU32::new(0)).collect();
    let done = AtomicUsize::new(0);
    let see = |item: Item| {
        seen[item.as_ptr().addr() - 1].fetch_add(1, Ordering::Relaxed);
        done.fetch_add(1, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (ring, done, see) = (&ring, &done, &see);
            scope.spawn(move || {
                let (own, mut taken) = (Ring::new(), Vec::new());
                while done.load(Ordering::Relaxed) < ITEMS {
                    if number == 0 {
                        ring.take(&mut taken);
                        taken.drain(..).for_each(see);
                    } else {
                        ring.steal(&own).into_iter().for_each(see);
                        std::iter::from_fn(|| own.pop()).for_each(see);
                    }
                }
            });
        }
        let (mut number, mut burst) = (0, 1);
        while number < ITEMS {
            for _ in 0..burst.min(ITEMS - number) {
                ring.push(item(number));
                number += 1;
                if number % 3 == 0 {
                    ring.pop().into_iter().for_each(see);
                }
            }
            std::iter::from_fn(|| ring.pop()).for_each(see);
            burst = if burst > 20_000 { 1 } else { burst * 2 };
        }
    });
    assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert_eq!((ring.pop(), ring.len(), retired(&ring)), (None, 0, 0));
}
