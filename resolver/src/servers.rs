//! [`Servers`]: querying the servers.
//!
//! # Order
//! A round queries the servers in order. The next server is queried when the previous server has
//! failed, or has not replied for a fifth of the timeout. The earlier query then continues. An
//! answer with records or with an alias ends the round. An answer that the name does *not* exist,
//! or has no such record, is used only when all earlier servers have failed. So, as in glibc, the
//! negative answer of the first server that does not fail ends the round, even if a later server
//! has records of the name. A failure (see [`reply`](super::reply)) never takes precedence over an
//! answer.
//!
//! hickory implements messages, the choice of ports, retransmission and the fallback to TCP, and
//! merges identical concurrent queries. Each server has its own hickory pool, so hickory's order of
//! servers is not used. hickory's resolver and its cache are not used either: [`judge`] interprets
//! the replies, and the errors that the pool returns in place of malformed replies and of replies
//! that have an error code or no records in the answer section.
//!
//! # Cancellation
//! Dropping the future of [`Servers::ask`] cancels its queries, unless other look-ups share them.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts, ServerOrderingStrategy};
use hickory_resolver::net::NetError;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequestOptions, Query};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::cache::Cache;
use super::config::Config;
use super::provider::{LastFailure, Provider};
use super::reply::{Failure, Reply, judge};
use netpoll::future::timeout;
use netpoll::time::Sleep;

/// The next server is queried when a server has not replied for the timeout divided by this number.
const PATIENCE: u32 = 5;

/// The longest time limit that is passed to hickory, which panics if the sum of the limit and the
/// current time overflows.
const HICKORY_TIMEOUT_MAX: Duration = Duration::from_secs(u32::MAX as u64);

type Answered = Result<(Reply, u32), Failure>;

/// The servers of a configuration, and the cache of their answers.
pub(super) struct Servers {
    pools: Vec<(NameServerPool<Provider>, LastFailure)>,
    options: DnsRequestOptions,
    timeout: Duration,
    rounds: usize,
    rotate: bool,
    /// The number of queries so far, counted only with `rotate`.
    turn: AtomicUsize,
    cache: Cache,
}

/// A server that has been queried.
enum Asked {
    /// The server has not replied yet.
    Waiting(Pin<Box<dyn Future<Output = Answered> + Send>>),
    /// The query has failed.
    Failed,
    /// The server has answered that the name does not exist or has no such record.
    Negative(Reply, u32),
}

impl Servers {
    pub(super) fn new(config: &Config) -> Result<Servers, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = config.timeout.min(HICKORY_TIMEOUT_MAX);
        options.edns0 = config.edns;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        let mut request = DnsRequestOptions::default();
        request.use_edns = options.edns0;
        request.edns_payload_len = options.edns_payload_len;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let pool = |server: &SocketAddr| {
            let server = reachable(*server);
            let mut connections = vec![ConnectionConfig::tcp()];
            if !config.tcp_only {
                connections.insert(0, ConnectionConfig::udp());
            }
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            let config = NameServerConfig::new(server.ip(), true, connections);
            let last = LastFailure::default();
            let provider = Provider { server, last: last.clone() };
            (NameServerPool::from_config([config], context.clone(), provider), last)
        };
        Ok(Servers {
            pools: config.servers.iter().map(pool).collect(),
            options: request,
            timeout: config.timeout,
            rounds: config.rounds,
            rotate: config.rotate,
            turn: AtomicUsize::new(0),
            cache: Cache::default(),
        })
    }

    pub(super) fn clear_cache(&self) {
        self.cache.clear();
    }

    /// Returns the answer to `query`, from the cache or from a server.
    pub(super) async fn ask(&self, query: Query) -> Result<Reply, Failure> {
        if let Some(reply) = self.cache.get(&query) {
            return Ok(reply);
        }
        let first = if self.rotate { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let mut failure = Failure::temporary("no name server");
        for _ in 0..self.rounds {
            match self.round(&query, first).await {
                Ok((reply, ttl)) => {
                    self.cache.put(query, reply.clone(), ttl);
                    return Ok(reply);
                }
                Err(Some(failed)) => failure = failed,
                // There are no servers, so further rounds would not wait for anything.
                Err(None) => break,
            }
        }
        Err(failure)
    }

    /// Queries the servers in order, each at most once, beginning with the server `first`, modulo
    /// the number of servers. The error is `None` if there are no servers.
    async fn round(&self, query: &Query, first: usize) -> Result<(Reply, u32), Option<Failure>> {
        let count = self.pools.len();
        let mut left = (0..count).map(|at| &self.pools[(first % count + at) % count]);
        let mut asked: Vec<Asked> = Vec::with_capacity(count);
        let mut patience = Sleep::new(Duration::ZERO);
        let mut failure = None;
        poll_fn(move |cx: &mut Context<'_>| {
            loop {
                for server in &mut asked {
                    let Asked::Waiting(answer) = server else { continue };
                    let Poll::Ready(answer) = answer.as_mut().poll(cx) else { continue };
                    *server = match answer {
                        Ok((reply @ (Reply::NoName | Reply::NoRecords), ttl)) => Asked::Negative(reply, ttl),
                        Ok(reply) => return Poll::Ready(Ok(reply)),
                        Err(failed) => {
                            failure = Some(failed);
                            Asked::Failed
                        }
                    };
                }
                if let Some(Asked::Negative(reply, ttl)) = asked.iter().find(|asked| !matches!(asked, Asked::Failed)) {
                    return Poll::Ready(Ok((reply.clone(), *ttl)));
                }
                let is_due = match asked.last() {
                    None | Some(Asked::Failed) => true,
                    Some(Asked::Waiting(_)) => left.len() > 0 && Pin::new(&mut patience).poll(cx).is_ready(),
                    // This answer is used if the earlier servers fail.
                    Some(Asked::Negative(..)) => false,
                };
                if is_due && let Some((pool, last)) = left.next() {
                    asked.push(Asked::Waiting(self.question(pool, last.clone(), query)));
                    patience = Sleep::new(self.timeout / PATIENCE);
                } else if asked.iter().any(|asked| matches!(asked, Asked::Waiting(_))) {
                    return Poll::Pending;
                } else {
                    return Poll::Ready(Err(failure.take()));
                }
            }
        })
        .await
    }

    /// Returns a future that queries one server.
    fn question(
        &self,
        pool: &NameServerPool<Provider>,
        last: LastFailure,
        query: &Query,
    ) -> Pin<Box<dyn Future<Output = Answered> + Send>> {
        let (answer, query, time) = (pool.lookup(query.clone(), self.options), query.clone(), self.timeout);
        Box::pin(async move {
            let start = Instant::now();
            let answer = timeout(time, answer.first_answer()).await.unwrap_or(Err(NetError::Timeout));
            // The pool replaces an I/O error with `NoConnections`.
            if matches!(answer, Err(NetError::NoConnections))
                && let Some(failure) = last.since(start)
            {
                return Err(failure);
            }
            judge(&query, answer)
        })
    }
}

/// Replaces the unspecified address, which means this host, with the loopback address. Replies come
/// from the loopback address.
fn reachable(server: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    if server.ip().is_unspecified() { SocketAddr::new(loopback, server.port()) } else { server }
}
