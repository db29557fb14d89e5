//! [`Families`]: a stream of a host's addresses as they arrive, for callers that need not wait for
//! all of them.
//!
//! # Rules
//! A query for both families comes first, because only its answer has the host's order across
//! families (RFC 6724, gai.conf(5)). Usually it is the only query. If it is not answered within the
//! *resolution delay* of RFC 8305, 50 ms, each family is also queried separately. A server that
//! answers for one family but not, or only slowly, for the other (RFC 4074) then causes no further
//! delay, whereas the query for both waits for its timeouts. An address that several answers
//! contain is returned once. For a caller that needs all addresses, only the query for both is
//! made.
//!
//! A client of RFC 8305 queries the two families in parallel. If the IPv4 answer arrives first, the
//! client waits 50 ms for the IPv6 answer. Here the delay comes before the separate queries
//! instead, so connecting begins at about the same time.
//!
//! # Compared with Go
//! Go waits for both families (issue 23841).

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::flight::Lookup;
use super::lookup_error::LookupError;
use super::query::{Answer, Query};
use super::source::Resolve;
use crate::sys::names::Family;
use crate::time::Sleep;

/// The time to wait for the query for both families before each family is queried separately
/// (RFC 8305, section 8).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A stream of the addresses of a host. Each item lists its addresses best first; later items may
/// contain better addresses. The stream yields an error only if there is no address. See the
/// [module documentation](self).
#[derive(Debug)]
pub(crate) struct Families<A, L> {
    /// Starts a query.
    ask: A,
    /// The query for both families, until it has an answer.
    both: Option<L>,
    /// The single-family queries, for IPv6 and IPv4, until they have answers.
    single: [Option<L>; 2],
    /// The delay before the single-family queries, as long as they may still start.
    delay: Option<Sleep>,
    /// The addresses returned so far.
    returned: Vec<SocketAddr>,
    error: Option<LookupError>,
    /// The number of families for which an answer was that there is no address. The query for both
    /// families counts twice.
    without: usize,
    /// Whether a single-family query has failed temporarily, so that the query for both may find
    /// further addresses.
    is_unsure: bool,
}

// No field is pinned.
impl<A, L> Unpin for Families<A, L> {}

/// The [`Families`] of a host whose addresses come from an [`Oracle`].
pub(crate) type HostAddrs = Families<Box<dyn FnMut(Family) -> Addrs + Send>, Addrs>;

/// The source of addresses: the host's name service or another resolver.
#[derive(Clone, Debug, Default)]
pub(crate) enum Oracle {
    #[default]
    Host,
    Other(Arc<dyn Resolve>),
}

impl Oracle {
    /// Returns the addresses of `host` with `port`: as they arrive if `as_they_come` is true,
    /// otherwise all together in the order of the answer.
    pub(crate) fn addrs(&self, host: &str, port: u16, as_they_come: bool) -> HostAddrs {
        let (oracle, host) = (self.clone(), host.to_owned());
        let ask = move |family| match &oracle {
            Oracle::Host => Addrs { answer: Asked::Host(Lookup::new(Query::Addrs(host.clone(), family))), port },
            Oracle::Other(resolver) => Addrs { answer: Asked::Other(Mutex::new(resolver.addrs(&host, family))), port },
        };
        Families::new(Box::new(ask), as_they_come.then_some(RESOLUTION_DELAY))
    }
}

/// A look-up of addresses that sets their port.
pub(crate) struct Addrs {
    answer: Asked,
    port: u16,
}

type Boxed = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>>;

enum Asked {
    Host(Lookup),
    /// The future of another resolver. It need not be `Sync`, so it is in a mutex, which is never
    /// locked.
    Other(Mutex<Boxed>),
}

impl Addrs {
    pub(crate) fn new(host: &str, port: u16) -> Addrs {
        Addrs { answer: Asked::Host(Lookup::new(Query::Addrs(host.to_owned(), Family::Any))), port }
    }
}

impl Future for Addrs {
    type Output = Result<Vec<SocketAddr>, LookupError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let port = self.port;
        let with_port = |mut addr: SocketAddr| {
            addr.set_port(port);
            addr
        };
        match &mut self.answer {
            Asked::Host(lookup) => {
                let polled = Pin::new(lookup).poll(cx).map_ok(Answer::into_addrs);
                polled.map_ok(|addrs| addrs.iter().copied().map(with_port).collect())
            }
            Asked::Other(lookup) => {
                let lookup = lookup.get_mut().unwrap_or_else(PoisonError::into_inner);
                lookup.as_mut().poll(cx).map_ok(|addrs| addrs.into_iter().map(with_port).collect())
            }
        }
    }
}

impl<A, L> Families<A, L>
where
    A: FnMut(Family) -> L,
    L: Future<Output = Result<Vec<SocketAddr>, LookupError>> + Unpin,
{
    fn new(mut ask: A, delay: Option<Duration>) -> Families<A, L> {
        let both = Some(ask(Family::Any));
        Families {
            ask,
            both,
            single: [None, None],
            delay: delay.map(Sleep::new),
            returned: Vec::new(),
            error: None,
            without: 0,
            is_unsure: false,
        }
    }

    /// Returns the addresses in `addrs` that have not been returned before, or `None` if there are
    /// no such addresses.
    fn fresh(&mut self, addrs: Vec<SocketAddr>) -> Option<Vec<SocketAddr>> {
        let fresh: Vec<_> = addrs.into_iter().filter(|addr| !self.returned.contains(addr)).collect();
        self.returned.extend(&fresh);
        (!fresh.is_empty()).then_some(fresh)
    }

    /// Stores the error of a query for `families` families (1 or 2). The answer that there is no
    /// address replaces another error, and is not replaced, if neither family has an address.
    /// Otherwise any other error replaces it. So the error does not depend on the order of the
    /// answers.
    fn note(&mut self, error: LookupError, families: usize) {
        let was_absent = self.without >= self.single.len();
        let takes = if error.is_not_found() {
            self.without += families;
            self.without >= self.single.len() || self.error.is_none()
        } else {
            !was_absent
        };
        if takes {
            self.error = Some(error);
        }
    }

    fn end(&mut self) {
        (self.both, self.single, self.delay) = (None, [None, None], None);
    }

    fn is_over(&self) -> bool {
        self.both.is_none() && self.single.iter().all(Option::is_none)
    }
}

/// Polls the future in `lookup`, and sets `lookup` to `None` when the future is ready. Returns
/// `Pending` if `lookup` is `None`.
fn poll_some<L: Future + Unpin>(lookup: &mut Option<L>, cx: &mut Context<'_>) -> Poll<L::Output> {
    let Some(future) = lookup else { return Poll::Pending };
    let polled = Pin::new(future).poll(cx);
    if polled.is_ready() {
        *lookup = None;
    }
    polled
}

impl<A, L> Stream for Families<A, L>
where
    A: FnMut(Family) -> L,
    L: Future<Output = Result<Vec<SocketAddr>, LookupError>> + Unpin,
{
    type Item = Result<Vec<SocketAddr>, LookupError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(answer) = poll_some(&mut this.both, cx) {
            match answer {
                Ok(addrs) => {
                    // The answer for both families has all addresses.
                    this.end();
                    if let Some(fresh) = this.fresh(addrs) {
                        return Poll::Ready(Some(Ok(fresh)));
                    }
                }
                // The queries for single families, if they were started, may still succeed.
                Err(error) => {
                    this.delay = None;
                    this.note(error, 2);
                }
            }
        }
        if poll_some(&mut this.delay, cx).is_ready() {
            this.single = [Family::V6, Family::V4].map(|family| Some((this.ask)(family)));
        }
        for at in 0..this.single.len() {
            match poll_some(&mut this.single[at], cx) {
                Poll::Ready(Ok(addrs)) => {
                    if let Some(fresh) = this.fresh(addrs) {
                        return Poll::Ready(Some(Ok(fresh)));
                    }
                }
                Poll::Ready(Err(error)) => {
                    this.is_unsure |= error.is_temporary();
                    this.note(error, 1);
                }
                Poll::Pending => {}
            }
        }
        let have_ended = this.delay.is_none() && this.single.iter().all(Option::is_none);
        if have_ended && !this.returned.is_empty() && !this.is_unsure {
            // Both single-family queries have ended, at least one with an address and neither with
            // a temporary failure, so the stream does not wait for the query for both.
            this.end();
        }
        if !this.is_over() {
            return Poll::Pending;
        }
        match this.error.take() {
            Some(error) if this.returned.is_empty() => Poll::Ready(Some(Err(error))),
            _ => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::stream::StreamExt;
    use futures_lite::{FutureExt, future};
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    type Answered = Result<Vec<SocketAddr>, LookupError>;

    fn v4(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 1).into()
    }

    fn v6() -> SocketAddr {
        "[2001:db8::1]:1".parse().unwrap()
    }

    fn failed() -> LookupError {
        Query::Addrs("x".to_owned(), Family::Any).shut_down()
    }

    /// Runs a stream whose queries are answered by `script`: after a number of milliseconds, or
    /// never (`None`). Returns the items of the stream with their times, and the families that were
    /// queried.
    fn items_of(
        script: impl Fn(Family) -> Option<(u64, Answered)> + Send + Sync + 'static,
    ) -> (Vec<(Answered, Duration)>, Vec<Family>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let ask = move |family| {
            log.lock().unwrap().push(family);
            let answer = script(family);
            async move {
                match answer {
                    Some((millis, answer)) => {
                        Sleep::new(Duration::from_millis(millis)).await;
                        answer
                    }
                    None => future::pending().await,
                }
            }
            .boxed()
        };
        let start = Instant::now();
        let families = Families::new(ask, Some(RESOLUTION_DELAY));
        let items = future::block_on(families.map(|item| (item, start.elapsed())).collect());
        (items, Arc::into_inner(asked).unwrap().into_inner().unwrap())
    }

    #[test]
    fn fast_answer_prevents_other_queries_and_keeps_its_order() {
        let (items, asked) = items_of(|_| Some((0, Ok(vec![v4(1), v6(), v4(2)]))));
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].0, Ok(vec![v4(1), v6(), v4(2)]));
        assert_eq!(asked, [Family::Any]);
    }

    #[test]
    fn unanswered_family_delays_the_other_by_the_resolution_delay() {
        let script = |family| match family {
            Family::V4 => Some((10, Ok(vec![v4(1)]))),
            Family::Any => Some((1500, Ok(vec![v4(1), v4(2)]))),
            Family::V6 => None,
        };
        // If the machine stalls for 1.5 s, all answers arrive together, so the run is repeated.
        let in_time = |(items, _): &(Vec<(Answered, Duration)>, _)| items[0].1 < Duration::from_millis(1500);
        let (items, asked) = (0..10).map(|_| items_of(script)).find(in_time).expect("no run out of ten was in time");
        assert_eq!(asked, [Family::Any, Family::V6, Family::V4]);
        assert_eq!(items[0].0, Ok(vec![v4(1)]));
        assert!(items[0].1 >= Duration::from_millis(60), "{items:?}");
        // The stream still waits for the query for both, and returns no address twice.
        assert_eq!(items[1].0, Ok(vec![v4(2)]));
        assert_eq!(items.len(), 2);
    }

    #[test]
    fn two_single_family_answers_end_the_stream() {
        let (items, _) = items_of(|family| match family {
            Family::V4 => Some((30, Ok(vec![v4(1)]))),
            Family::V6 => Some((0, Ok(vec![v6()]))),
            Family::Any => None,
        });
        let items: Vec<_> = items.into_iter().map(|(addrs, _)| addrs).collect();
        assert_eq!(items, [Ok(vec![v6()]), Ok(vec![v4(1)])]);
    }

    /// The query for both families may still have the addresses of the family whose own query has
    /// failed.
    #[test]
    fn temporary_failure_of_one_family_does_not_end_the_stream() {
        let (items, _) = items_of(|family| match family {
            Family::V4 => Some((0, Ok(vec![v4(1)]))),
            Family::V6 => Some((0, Err(LookupError::timed_out("x".to_owned())))),
            Family::Any => Some((200, Ok(vec![v6(), v4(1)]))),
        });
        let items: Vec<_> = items.into_iter().map(|(addrs, _)| addrs).collect();
        assert_eq!(items, [Ok(vec![v4(1)]), Ok(vec![v6()])]);
    }

    /// Regression test: if the answer that one family has no address was last, the name seemed not
    /// to exist.
    #[test]
    fn missing_family_does_not_hide_the_failure_of_the_other() {
        let failed = || LookupError::temporary("x", "server failure");
        let missing = || LookupError::not_found("x");
        let (items, _) = items_of(move |family| match family {
            Family::V4 => Some((0, Err(failed()))),
            Family::Any => Some((100, Err(failed()))),
            Family::V6 => Some((200, Err(missing()))),
        });
        let items: Vec<_> = items.into_iter().map(|(addrs, _)| addrs).collect();
        assert_eq!(items, [Err(failed())]);
    }

    #[test]
    fn name_without_addresses_of_either_family_is_not_found() {
        let (items, _) = items_of(|family| match family {
            Family::Any => Some((100, Err(LookupError::temporary("x", "server failure")))),
            _ => Some((200, Err(LookupError::not_found("x")))),
        });
        let items: Vec<_> = items.into_iter().map(|(addrs, _)| addrs).collect();
        assert_eq!(items, [Err(LookupError::not_found("x"))]);
    }

    /// Regression test: the error of the query that ended last was returned.
    #[test]
    fn error_does_not_depend_on_the_order_of_the_answers() {
        let temporary = || LookupError::temporary("x", "server failure");
        let missing = || LookupError::not_found("x");
        for (both_ms, single_ms) in [(300, 0), (100, 200)] {
            let answers = [(temporary(), missing()), (missing(), temporary())];
            for (both, single) in answers {
                let (items, asked) = items_of(move |family| match family {
                    Family::Any => Some((both_ms, Err(both.clone()))),
                    _ => Some((single_ms, Err(single.clone()))),
                });
                let items: Vec<_> = items.into_iter().map(|(addrs, _)| addrs).collect();
                assert_eq!((items, asked.len()), (vec![Err(missing())], 3), "{both_ms} {single_ms}");
            }
        }
    }

    #[test]
    fn an_error_is_returned_only_without_addresses() {
        let (none, asked) = items_of(|_| Some((0, Err(failed()))));
        assert_eq!((none.len(), &none[0].0), (1, &Err(failed())));
        assert_eq!(asked, [Family::Any], "a failed query for both families starts no other query");
        // The failure of the query for one family does not end the stream.
        let (some, _) = items_of(|family| match family {
            Family::V6 => Some((0, Err(failed()))),
            Family::V4 => Some((20, Ok(vec![v4(1)]))),
            Family::Any => Some((1500, Err(failed()))),
        });
        assert_eq!((some.len(), &some[0].0), (1, &Ok(vec![v4(1)])));
        let (late, _) = items_of(|family| match family {
            Family::Any => Some((100, Ok(vec![v4(1)]))),
            _ => Some((0, Err(failed()))),
        });
        assert_eq!((late.len(), &late[0].0), (1, &Ok(vec![v4(1)])));
    }
}
