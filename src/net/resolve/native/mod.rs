//! A resolver that asks DNS servers itself, over this crate's sockets: no thread is parked, and a look-up that is dropped is
//! cancelled. Feature `hickory`.
//!
//! Messages, servers, retries, the cache and the search list are hickory-resolver's, without tokio; [`provider`] gives it
//! sockets, timers and tasks. [`order`] puts addresses into the order in which they should be tried, which hickory leaves
//! open. What hickory says becomes a [`LookupError`].
//!
//! # Compared with Go (net/dnsclient_unix.go)
//! The place of Go's own resolver: resolv.conf and hosts are read, A and AAAA are asked for at the same time, forged replies are
//! ignored, a truncated one is asked for again over TCP. nsswitch.conf and gai.conf are not read, and the files are read when the
//! resolver is made and not again.

mod order;
mod provider;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;

use self::provider::Provider;
use super::query::{LookupError, Query};
use crate::sys::names::{Family, NameFailure};

/// A resolver that parks no thread: it asks DNS servers over sockets of this crate, and dropping a look-up cancels it.
///
/// It is shared by cloning. Answers are kept as long as they say (their TTL), and identical questions that are under way are
/// asked once. Needs the feature `hickory`.
///
/// [`Dialer::resolver`](crate::net::Dialer::resolver) has a dialer look names up with it.
///
/// # Errors
/// Its look-ups fail with a [`LookupError`], like [`lookup_host`](crate::net::lookup_host)'s.
///
/// # Examples
/// ```no_run
/// # netpoll::task::block_on(async {
/// use netpoll::net::{Dialer, Resolver};
///
/// let resolver = Resolver::system()?;
/// for mx in resolver.lookup_mx("example.org").await? {
///     println!("{} {}", mx.preference, mx.host);
/// }
/// let stream = Dialer::new().resolver(resolver).dial("example.org:80").await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<hickory_resolver::Resolver<Provider>>,
}

/// What a [`Resolver`] is made of.
///
/// # Examples
/// ```
/// use netpoll::net::Resolver;
/// use std::time::Duration;
///
/// let resolver = Resolver::builder(["192.0.2.53:53".parse().unwrap()])
///     .search(["corp.example"])
///     .timeout(Duration::from_secs(1))
///     .attempts(3)
///     .build()?;
/// # drop(resolver);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct ResolverBuilder {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    options: ResolverOpts,
}

/// A mail server, an answer of [`Resolver::lookup_mx`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mx {
    /// The lower, the sooner it should be tried.
    pub preference: u16,
    /// Its name, with a dot at its end.
    pub host: String,
}

/// A server of some service, an answer of [`Resolver::lookup_srv`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Srv {
    /// The lower, the sooner it should be tried.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its name, with a dot at its end.
    pub target: String,
}

impl ResolverBuilder {
    /// Domains that names without a dot at their end are looked up in.
    #[must_use]
    pub fn search<S: Into<String>>(mut self, domains: impl IntoIterator<Item = S>) -> ResolverBuilder {
        self.search = domains.into_iter().map(Into::into).collect();
        self
    }

    /// How long to wait for a server's answer. 5 s if not said otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> ResolverBuilder {
        self.options.timeout = timeout;
        self
    }

    /// How often to ask again after a timeout. 2 if not said otherwise.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> ResolverBuilder {
        self.options.attempts = attempts;
        self
    }

    /// Whether hosts(5) comes before the servers, as it does if not said otherwise.
    #[must_use]
    pub fn hosts_file(mut self, hosts_file: bool) -> ResolverBuilder {
        self.options.use_hosts_file = if hosts_file { ResolveHosts::Always } else { ResolveHosts::Never };
        self
    }

    /// The resolver. Reads hosts(5).
    ///
    /// # Errors
    /// `InvalidInput` for a search domain that is no domain.
    pub fn build(self) -> io::Result<Resolver> {
        let servers = self.servers.into_iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let search = self.search.iter().map(Name::from_utf8).collect::<Result<_, _>>().map_err(invalid)?;
        let config = ResolverConfig::from_parts(None, search, servers.collect());
        Resolver::with(config, self.options)
    }
}

impl Resolver {
    /// As this host is configured: resolv.conf(5) and hosts(5), which are read now.
    ///
    /// # Errors
    /// Of reading them; `Other` if resolv.conf names no server.
    pub fn system() -> io::Result<Resolver> {
        let (config, options) = read_system_conf().map_err(io::Error::other)?;
        Resolver::with(config, options)
    }

    /// One that asks these servers in their order, two at a time, over UDP, and over TCP what does not fit. A server's answer is final,
    /// also that it cannot answer (SERVFAIL).
    pub fn builder(servers: impl IntoIterator<Item = SocketAddr>) -> ResolverBuilder {
        let servers = servers.into_iter().collect();
        ResolverBuilder { servers, search: Vec::new(), options: ResolverOpts::default() }
    }

    fn with(config: ResolverConfig, mut options: ResolverOpts) -> io::Result<Resolver> {
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        // As resolv.conf(5) has it. Two at a time, because one time covers a question to all of them: asked one after the
        // other, a first that is silent would use it up.
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.num_concurrent_reqs = 2;
        let mut builder = hickory_resolver::Resolver::builder_with_config(config, Provider);
        *builder.options_mut() = options;
        builder.build().map(|inner| Resolver { inner: Arc::new(inner) }).map_err(io::Error::other)
    }

    /// The addresses of `host`, in the order of RFC 6724. A literal is its own.
    ///
    /// # Errors
    /// A [`LookupError`]: `NotFound` where there is no such name, otherwise as the servers say.
    ///
    /// # Cancel safety
    /// Dropping the future ends the look-up.
    pub async fn lookup_host(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let addrs = self.addrs(host, Family::Any).await?;
        Ok(addrs.into_iter().map(|addr| addr.ip()).collect())
    }

    /// The names of `ip`.
    ///
    /// # Errors
    /// A [`LookupError`], as [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// As [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_addr(&self, ip: IpAddr) -> io::Result<Vec<String>> {
        self.records(&ip.to_string(), self.inner.reverse_lookup(Name::from(ip)), |data| match data {
            RData::PTR(name) => Some(name.0.to_utf8()),
            _ => None,
        })
        .await
    }

    /// The canonical name of `host`: where its aliases end.
    ///
    /// # Errors
    /// A [`LookupError`], as [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// As [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_cname(&self, host: &str) -> io::Result<String> {
        let looked_up = self.inner.lookup_ip(host).await.map_err(|error| failed(host, error))?;
        // The addresses belong to the last name of the chain.
        let answers = looked_up.as_lookup().answers();
        let last = answers.iter().find(|record| record.data.ip_addr().is_some());
        last.map(|record| record.name.to_utf8()).ok_or_else(|| not_found(host))
    }

    /// The mail servers of `domain`, in the order in which they should be tried (RFC 5321).
    ///
    /// # Errors
    /// A [`LookupError`], as [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// As [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_mx(&self, domain: &str) -> io::Result<Vec<Mx>> {
        let servers = self.records(domain, self.inner.mx_lookup(domain), |data| match data {
            RData::MX(mx) => Some(Mx { preference: mx.preference, host: mx.exchange.to_utf8() }),
            _ => None,
        });
        let mut servers = servers.await?;
        servers.sort_by_key(|mx| mx.preference);
        Ok(servers)
    }

    /// The name servers of `domain`.
    ///
    /// # Errors
    /// A [`LookupError`], as [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// As [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_ns(&self, domain: &str) -> io::Result<Vec<String>> {
        self.records(domain, self.inner.ns_lookup(domain), |data| match data {
            RData::NS(name) => Some(name.0.to_utf8()),
            _ => None,
        })
        .await
    }

    /// The texts of `name`, each in one piece. What is not UTF-8 in them is replaced.
    ///
    /// # Errors
    /// A [`LookupError`], as [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// As [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_txt(&self, name: &str) -> io::Result<Vec<String>> {
        self.records(name, self.inner.txt_lookup(name), |data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    /// The servers of `service` over `protocol` in `domain` (`_service._protocol.domain`, RFC 2782), those of the least
    /// priority first, and the greatest weight first among equals. With service and protocol empty, `domain` itself is
    /// looked up.
    ///
    /// # Errors
    /// A [`LookupError`], as [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// As [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_srv(&self, service: &str, protocol: &str, domain: &str) -> io::Result<Vec<Srv>> {
        let name = match (service, protocol) {
            ("", "") => domain.to_owned(),
            _ => format!("_{service}._{protocol}.{domain}"),
        };
        let servers = self.records(&name, self.inner.srv_lookup(&name[..]), |data| match data {
            RData::SRV(srv) => {
                Some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target: srv.target.to_utf8() })
            }
            _ => None,
        });
        let mut servers = servers.await?;
        servers.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
        Ok(servers)
    }

    /// Forgets all answers.
    pub fn clear_cache(&self) {
        self.inner.clear_cache();
    }

    /// The addresses of `host` with port 0, best first.
    pub(crate) async fn addrs(&self, host: &str, family: Family) -> Result<Vec<SocketAddr>, LookupError> {
        let looked_up = match family {
            Family::Any => self.inner.lookup_ip(host).await.map(Lookup::from),
            Family::V4 => self.inner.lookup(host, RecordType::A).await,
            Family::V6 => self.inner.lookup(host, RecordType::AAAA).await,
        };
        let looked_up = looked_up.map_err(|error| lookup_error(host, error))?;
        let ips = looked_up.answers().iter().filter_map(|record| record.data.ip_addr());
        let addrs = order::sorted(ips.collect(), order::source);
        if addrs.is_empty() {
            return Err(Query::Addrs(host.to_owned(), family).failed(NameFailure::NotFound));
        }
        Ok(addrs.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
    }

    /// What the records of an answer say.
    async fn records<T>(
        &self,
        name: &str,
        lookup: impl Future<Output = Result<Lookup, NetError>>,
        says: impl Fn(&RData) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let answer = lookup.await.map_err(|error| failed(name, error))?;
        let records: Vec<T> = answer.answers().iter().filter_map(|record| says(&record.data)).collect();
        if records.is_empty() { Err(not_found(name)) } else { Ok(records) }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

fn not_found(name: &str) -> io::Error {
    Query::CanonicalName(name.to_owned()).failed(NameFailure::NotFound).into()
}

fn failed(name: &str, error: NetError) -> io::Error {
    lookup_error(name, error).into()
}

fn lookup_error(name: &str, error: NetError) -> LookupError {
    let query = Query::CanonicalName(name.to_owned());
    match error {
        NetError::Timeout => LookupError::timed_out(name.to_owned()),
        // No such name, or nothing of the kind. Without an answer section a server that refuses counts as one too, and is none.
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            query.failed(NameFailure::NotFound)
        }
        // A name that cannot be written down is nobody's.
        NetError::Proto(_) => query.failed(NameFailure::NotFound),
        NetError::Io(error) if error.raw_os_error().is_some() => {
            query.failed(NameFailure::Errno(error.raw_os_error().unwrap_or(libc::EIO)))
        }
        error => query.failed(NameFailure::Temporary(error.to_string())),
    }
}
