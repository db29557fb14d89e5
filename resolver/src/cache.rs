//! [`Cache`]: cached answers.
//!
//! An answer is used until its TTL expires, for at most one week. The number of answers and the
//! memory that they use are bounded, because a server determines the size of its answers and,
//! through the names in them, also some of the queries. If a new answer would exceed a bound,
//! answers whose TTL has expired are removed. If this does not free enough memory or entries, all
//! answers are removed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData};

use super::reply::{Reply, TTL_MAX};

/// The maximum number of cached answers.
const ANSWERS_MAX: usize = 8192;

/// The maximum memory of cached answers, in bytes as estimated by [`size`].
const BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
struct Answer {
    until: Instant,
    reply: Reply,
    size: usize,
}

#[derive(Debug, Default)]
struct Answers {
    by_query: HashMap<Query, Answer>,
    /// The sum of the sizes of all answers.
    bytes: usize,
}

impl Answers {
    fn has_room(&self, size: usize) -> bool {
        self.by_query.len() < ANSWERS_MAX && self.bytes + size <= BYTES_MAX
    }

    /// Removes the answers for which `keep` returns false.
    fn retain(&mut self, keep: impl Fn(&Answer) -> bool) {
        let bytes = &mut self.bytes;
        self.by_query.retain(|_, answer| {
            let kept = keep(answer);
            if !kept {
                *bytes -= answer.size;
            }
            kept
        });
    }
}

/// A cache of answers, by query.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Answers>);

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        // Poisoning is ignored, because no code that may panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the cached answer to a query, unless its TTL has expired.
    pub(super) fn get(&self, query: &Query) -> Option<Reply> {
        let answers = self.lock();
        let answer = answers.by_query.get(query)?;
        (Instant::now() < answer.until).then(|| answer.reply.clone())
    }

    /// Caches an answer for `ttl` seconds, at most [`TTL_MAX`]. A TTL with the highest bit set
    /// counts as 0 (RFC 2181, section 8). An answer whose TTL is 0, or which is larger than
    /// [`BYTES_MAX`], is not cached.
    pub(super) fn put(&self, query: Query, reply: Reply, ttl: u32) {
        if ttl == 0 || i32::try_from(ttl).is_err() {
            return;
        }
        let size = size(&query, &reply);
        if size > BYTES_MAX {
            return;
        }
        let now = Instant::now();
        let until = now + Duration::from_secs(ttl.min(TTL_MAX).into());
        let mut answers = self.lock();
        if !answers.has_room(size) {
            answers.retain(|answer| now < answer.until);
        }
        if !answers.has_room(size) {
            *answers = Answers::default();
        }
        if let Some(replaced) = answers.by_query.insert(query, Answer { until, reply, size }) {
            answers.bytes -= replaced.size;
        }
        answers.bytes += size;
    }

    pub(super) fn clear(&self) {
        *self.lock() = Answers::default();
    }
}

/// Returns an estimate of the memory of an answer in the map, in bytes, without the overhead of the
/// allocator and of the map.
fn size(query: &Query, reply: &Reply) -> usize {
    let entry = size_of::<(Query, Answer)>() + heap_of_name(query.name());
    entry
        + match reply {
            Reply::Records { owner, data, .. } => {
                heap_of_name(owner) + size_of_val::<[RData]>(data) + data.iter().map(heap_of_data).sum::<usize>()
            }
            Reply::Alias { target, .. } => heap_of_name(target),
            Reply::NoRecords | Reply::NoName => 0,
        }
}

/// Returns the maximum heap memory of a name, in bytes. A short name is stored inline. A longer
/// name may have a vector of its bytes and a vector with one byte per label. The capacity of a
/// vector is at most twice its length.
fn heap_of_name(name: &Name) -> usize {
    if name.len() <= 32 { 0 } else { 2 * name.len() }
}

/// Returns the heap memory of a record, in bytes, for the record types that a
/// [`Resolver`](super::Resolver) queries.
fn heap_of_data(data: &RData) -> usize {
    match data {
        RData::MX(mx) => heap_of_name(&mx.exchange),
        RData::NS(ns) => heap_of_name(&ns.0),
        RData::PTR(ptr) => heap_of_name(&ptr.0),
        RData::SRV(srv) => heap_of_name(&srv.target),
        RData::TXT(txt) => txt.txt_data.iter().map(|text| size_of_val(text) + text.len()).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use hickory_resolver::proto::rr::RecordType;
    use hickory_resolver::proto::rr::rdata::{A, TXT};

    fn query(name: &str) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), RecordType::TXT)
    }

    fn records(data: impl IntoIterator<Item = RData>) -> Reply {
        Reply::Records { owner: Name::root(), count: 0, data: data.into_iter().collect() }
    }

    /// Returns nearly as much text as fits into the largest message, whose size is 65,535 bytes.
    fn large_text() -> Reply {
        records([RData::TXT(TXT::from_bytes(vec![&[b'x'; 255]; 255]))])
    }

    #[test]
    fn large_answers_do_not_exceed_the_byte_limit() {
        let cache = Cache::default();
        for number in 0..1000 {
            let query = query(&format!("{number}.test."));
            cache.put(query.clone(), large_text(), 60);
            assert!(cache.get(&query).is_some());
            let answers = cache.lock();
            let sum: usize = answers.by_query.values().map(|answer| answer.size).sum();
            assert_eq!(answers.bytes, sum);
            // Each answer has 255 texts of 255 bytes.
            assert!(answers.by_query.len() * 255 * 255 < BYTES_MAX);
        }
    }

    #[test]
    fn size_of_empty_texts_includes_their_pointers() {
        let texts: &[u8] = &[];
        let reply = records([RData::TXT(TXT::from_bytes(vec![texts; 60_000]))]);
        assert!(size(&query("a.test."), &reply) >= 60_000 * size_of::<Box<[u8]>>());
    }

    #[test]
    fn size_of_a_replaced_answer_is_subtracted() {
        let cache = Cache::default();
        for _ in 0..1000 {
            cache.put(query("a.test."), large_text(), 60);
        }
        cache.put(query("a.test."), records([RData::A(A::new(192, 0, 2, 1))]), 60);
        let answers = cache.lock();
        assert_eq!(answers.by_query.len(), 1);
        assert!(answers.bytes < 1000, "{}", answers.bytes);
    }

    #[test]
    fn number_of_answers_is_bounded() {
        let cache = Cache::default();
        for number in 0..=ANSWERS_MAX {
            cache.put(query(&format!("{number}.test.")), Reply::NoName, 60);
            assert!(cache.lock().by_query.len() <= ANSWERS_MAX);
        }
        assert!(cache.get(&query(&format!("{ANSWERS_MAX}.test."))).is_some());
    }

    #[test]
    fn answer_without_time_to_live_is_not_cached() {
        let cache = Cache::default();
        for ttl in [0, 1 << 31] {
            cache.put(query("a.test."), Reply::NoName, ttl);
            assert!(cache.get(&query("a.test.")).is_none());
        }
    }
}
