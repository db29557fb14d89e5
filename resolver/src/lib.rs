//! A resolver that queries DNS servers over netpoll's sockets. A look-up occupies no thread, and is
//! cancelled when its future is dropped.
//!
//! | module | contents |
//! |---|---|
//! | `hosts` | the names and addresses in hosts(5) |
//! | `search` | the absolute names to look up for a given name, and the names that are never queried |
//! | `config` | resolv.conf(5) |
//! | `servers` | the order in which servers are queried, and the choice of the reply |
//! | `reply` | the interpretation of replies; aliases |
//! | `cache` | the answers that are cached, and the bounds of the cache |
//! | `order` | the order of addresses |
//! | `choice` | the order of servers in MX and SRV records |
//! | `provider` | hickory's messages and transports over netpoll's sockets, timers and tasks |
//!
//! # When a look-up ends
//! The absolute names for a given name are looked up one after the other, until one has records of
//! the queried type. If a name does not exist or has no such records, the next name is looked up.
//! If a query for a name fails, the whole look-up fails. If the next name were looked up in this
//! case, an attacker who suppresses replies could make the resolver use that name. However, a
//! look-up of addresses succeeds if the query for one family finds addresses, even if the query for
//! the other family fails.
//!
//! # Compared with Go (net/dnsclient_unix.go, net/hosts.go, net/dnsconfig_unix.go)
//! The resolver corresponds to Go's own resolver. A and AAAA are queried concurrently (without the
//! option `single-request`), forged replies are ignored, queries with truncated replies are
//! repeated over TCP, and names in answers are checked. Unlike Go's resolver, this resolver does
//! not read nsswitch.conf. It reads resolv.conf(5) and hosts(5) once, when it is created. Go reads
//! these files again when they change.

#![deny(unsafe_code)]

mod cache;
mod choice;
mod config;
mod hosts;
mod order;
mod provider;
mod reply;
mod search;
mod servers;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::zip;
use hickory_resolver::proto::op::Query as Question;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use self::config::Config;
use self::hosts::Hosts;
use self::reply::{ALIASES_MAX, Failure, Reply};
use self::servers::Servers;
use netpoll::__private::{is_host_name, literal, take_turn};
use netpoll::net::{Family, LookupError, Resolve};

/// The addresses of `localhost`.
const LOOPBACK: [SocketAddr; 2] =
    [SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0), SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)];

/// A DNS resolver that queries servers over netpoll's sockets. A look-up occupies no thread, and is
/// cancelled when its future is dropped.
///
/// Clones share configuration and cache. Answers are cached for their TTL, but for at most one
/// week. The cache holds up to 8,192 answers and about 8 MiB. Identical concurrent queries are
/// merged. Use [`Dialer::resolver`](netpoll::net::Dialer::resolver) to make a dialer use the
/// resolver.
///
/// # Names
/// * A name in hosts(5) has the addresses given in that file, and no server is queried for them.
/// * Otherwise, `localhost` and the names below it have the loopback addresses. `onion`, `invalid`,
///   `alt` and the names below them do not exist. No server is queried for any of these names (RFC
///   6761, RFC 7686, RFC 9476).
/// * Any other name without a final dot is also looked up in the search list, except names below
///   `local` (RFC 6762).
///
/// # Servers
/// Servers are queried in order. With the option `rotate` of resolv.conf(5), successive queries
/// begin with successive servers. The next server is queried if the previous server fails, or does
/// not reply within a fifth of the timeout. A reply with records or with an alias is used
/// immediately. A reply that the name does not exist, or has no records of the queried type, is
/// used only if the earlier servers have failed. A malformed reply, an error code such as SERVFAIL
/// and a referral are failures. If all servers fail in every attempt, the look-up fails with the
/// last error, and the rest of the search list is not tried. This error is temporary unless memory
/// ran out.
///
/// # Answers
/// Only the records at the end of a chain of aliases are used; up to 16 aliases are followed. Names
/// in answers are returned as the server wrote them, in ASCII with a final dot. Names that are not
/// host names are omitted, except `.` in MX and SRV records.
///
/// # Errors
/// A failed look-up returns a [`LookupError`], like [`lookup_host`](netpoll::net::lookup_host).
///
/// # Examples
/// ```no_run
/// # netpoll::task::block_on(async {
/// use netpoll::net::Dialer;
/// use netpoll_resolver::Resolver;
///
/// let resolver = Resolver::system()?;
/// for mx in resolver.lookup_mx("example.org").await? {
///     println!("{} {}", mx.preference, mx.host);
/// }
/// let stream = Dialer::new().resolver(resolver).dial("example.org:80").await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Clone)]
#[doc(alias = "net.Resolver")]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    hosts: Hosts,
    servers: Servers,
}

/// Settings for a [`Resolver`]. [`Resolver::builder`] creates them.
///
/// # Examples
/// ```
/// use netpoll_resolver::Resolver;
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
    config: Config,
    search: Vec<String>,
    hosts_file: bool,
}

/// A mail server, returned by [`Resolver::lookup_mx`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mx {
    /// The preference. Servers with lower values should be tried first.
    pub preference: u16,
    /// The name of the server, with a final dot.
    pub host: String,
}

/// A server of a service, returned by [`Resolver::lookup_srv`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Srv {
    /// The priority. Servers with lower values should be tried first.
    pub priority: u16,
    /// The relative share of requests among servers of the same priority.
    pub weight: u16,
    /// The port of the service.
    pub port: u16,
    /// The name of the server, with a final dot.
    pub target: String,
}

impl ResolverBuilder {
    /// Sets the domains in which names without a final dot are looked up. The domain `.` is
    /// ignored. The default is no domain.
    #[must_use]
    pub fn search<S: Into<String>>(mut self, domains: impl IntoIterator<Item = S>) -> ResolverBuilder {
        self.search = domains.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the time limit for the reply of each server. The default is 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> ResolverBuilder {
        self.config.timeout = timeout;
        self
    }

    /// Sets how many times the servers are queried again after all of them have failed. The default
    /// is 2.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> ResolverBuilder {
        self.config.rounds = attempts.saturating_add(1);
        self
    }

    /// Sets whether hosts(5) is used before the servers. The default is true.
    #[must_use]
    pub fn hosts_file(mut self, hosts_file: bool) -> ResolverBuilder {
        self.hosts_file = hosts_file;
        self
    }

    /// Creates the resolver, and reads hosts(5) if that file is used. A file that cannot be read
    /// counts as empty.
    ///
    /// # Errors
    /// Returns `InvalidInput` if a search domain is not a valid domain name.
    pub fn build(self) -> io::Result<Resolver> {
        let ResolverBuilder { mut config, search, hosts_file } = self;
        for domain in search.iter().filter(|domain| *domain != ".") {
            let invalid = || {
                io::Error::new(io::ErrorKind::InvalidInput, format!("search domain {domain:?} is not a domain name"))
            };
            config.search.push(config::domain(domain).ok_or_else(invalid)?);
        }
        Resolver::with(config, if hosts_file { Hosts::read() } else { Hosts::default() })
    }
}

/// The result of a look-up: the name that has the records, and the records.
struct Found {
    owner: Name,
    data: Arc<[RData]>,
}

impl Resolver {
    /// Creates a resolver with this host's configuration, which is read from resolv.conf(5),
    /// hosts(5) and the environment variables `LOCALDOMAIN` and `RES_OPTIONS`.
    ///
    /// If there is no resolv.conf(5), or no server in it, the server at 127.0.0.1 is used. If there
    /// is no search list, the domain of the host name is used (on Linux). Invalid lines, options
    /// and domains are skipped. A hosts(5) that cannot be read counts as empty.
    ///
    /// # Errors
    /// Returns the OS error if reading resolv.conf(5) fails. As in glibc, a file that does not
    /// exist or may not be read counts as empty. A directory, a path through a file that is not a
    /// directory, and a loop of symbolic links count as empty too.
    pub fn system() -> io::Result<Resolver> {
        Resolver::with(Config::system()?, Hosts::read())
    }

    /// Returns settings for a resolver that queries `servers` over UDP, and over TCP if a reply is
    /// too long for UDP.
    pub fn builder(servers: impl IntoIterator<Item = SocketAddr>) -> ResolverBuilder {
        let config = Config { rounds: 3, edns: true, ..Config::new(servers.into_iter().collect()) };
        ResolverBuilder { config, search: Vec::new(), hosts_file: true }
    }

    fn with(config: Config, hosts: Hosts) -> io::Result<Resolver> {
        let servers = Servers::new(&config).map_err(io::Error::other)?;
        Ok(Resolver { inner: Arc::new(Inner { config, hosts, servers }) })
    }

    /// Looks up the addresses of `host` and returns them in the order of RFC 6724. A literal
    /// address is returned unchanged, but without its zone.
    ///
    /// # Errors
    /// Returns a [`LookupError`]. Its kind is `NotFound` if the name does not exist, has no
    /// addresses or is not a host name. If all servers failed, the error describes the failure of
    /// one of them. The error is temporary if the resolver has no servers or the chain of aliases
    /// is too long.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the look-up.
    pub async fn lookup_host(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let addrs = self.addrs(host, Family::Any).await?;
        Ok(addrs.into_iter().map(|addr| addr.ip()).collect())
    }

    /// Looks up the names of `ip`. These are the names in hosts(5). If that file has none, a
    /// loopback address has the name `localhost.`, and any other address has the names in its PTR
    /// records that are host names.
    ///
    /// # Errors
    /// Returns a [`LookupError`], like [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// Same as [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_addr(&self, ip: IpAddr) -> io::Result<Vec<String>> {
        let ip = ip.to_canonical();
        let known = self.inner.hosts.by_addr(ip).map(<[String]>::to_vec);
        if let Some(names) = known.or_else(|| ip.is_loopback().then(|| vec!["localhost.".to_owned()])) {
            take_turn().await;
            return Ok(names);
        }
        let name = Name::from(ip);
        self.records(&ip.to_string(), Some(name), RecordType::PTR, |data| match data {
            RData::PTR(name) => printed(&name.0),
            _ => None,
        })
        .await
    }

    /// Looks up the canonical name of `host`, which is the name at the end of its chain of aliases.
    /// For a name in hosts(5), the canonical name is the first host name of the first line that
    /// contains the name. For `localhost` and the names below it, the canonical name is
    /// `localhost.`.
    ///
    /// # Errors
    /// Returns a [`LookupError`], like [`lookup_host`](Resolver::lookup_host). Its kind is also
    /// `NotFound` if `host` is a literal address, or if the canonical name is not a host name.
    ///
    /// # Cancel safety
    /// Same as [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_cname(&self, host: &str) -> io::Result<String> {
        let (canonical, _) = self.host(host, Family::Any).await?;
        canonical.ok_or_else(|| not_found(host).into())
    }

    /// Looks up the mail servers of `domain`, ordered by ascending preference. Servers of the same
    /// preference are in a random order, so that clients share the load (RFC 5321, section 5.1). A
    /// server named `.` means that the domain accepts no mail (RFC 7505). Other servers whose names
    /// are not host names are omitted.
    ///
    /// # Errors
    /// Returns a [`LookupError`], like [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// Same as [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_mx(&self, domain: &str) -> io::Result<Vec<Mx>> {
        let servers = self.records(domain, search::parse(domain), RecordType::MX, |data| match data {
            RData::MX(mx) => Some(Mx { preference: mx.preference, host: printed_or_root(&mx.exchange)? }),
            _ => None,
        });
        let mut servers = servers.await?;
        choice::order_mx(&mut servers);
        Ok(servers)
    }

    /// Looks up the name servers of `domain`. Servers whose names are not host names are omitted.
    ///
    /// # Errors
    /// Returns a [`LookupError`], like [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// Same as [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_ns(&self, domain: &str) -> io::Result<Vec<String>> {
        self.records(domain, search::parse(domain), RecordType::NS, |data| match data {
            RData::NS(name) => printed(&name.0),
            _ => None,
        })
        .await
    }

    /// Looks up the TXT records of `name`, and returns each as one string. Invalid UTF-8 is
    /// replaced. The strings may contain any character.
    ///
    /// # Errors
    /// Returns a [`LookupError`], like [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// Same as [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_txt(&self, name: &str) -> io::Result<Vec<String>> {
        self.records(name, search::parse(name), RecordType::TXT, |data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    /// Looks up the servers of `service` over `protocol` in `domain` (the SRV records of
    /// `_service._protocol.domain`, RFC 2782), ordered by ascending priority. Servers of the same
    /// priority are in a random order in which a server with a larger weight is more likely to be
    /// first. If `service` and `protocol` are empty, the SRV records of `domain` itself are looked
    /// up. A server named `.` means that the domain does not have the service. Other servers whose
    /// names are not host names are omitted.
    ///
    /// # Errors
    /// Returns a [`LookupError`], like [`lookup_host`](Resolver::lookup_host).
    ///
    /// # Cancel safety
    /// Same as [`lookup_host`](Resolver::lookup_host).
    pub async fn lookup_srv(&self, service: &str, protocol: &str, domain: &str) -> io::Result<Vec<Srv>> {
        let name = match (service, protocol) {
            ("", "") => domain.to_owned(),
            _ => format!("_{service}._{protocol}.{domain}"),
        };
        let servers = self.records(&name, search::parse(&name), RecordType::SRV, |data| match data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: printed_or_root(&srv.target)?,
            }),
            _ => None,
        });
        let mut servers = servers.await?;
        choice::order_srv(&mut servers);
        Ok(servers)
    }

    /// Discards all cached answers.
    pub fn clear_cache(&self) {
        self.inner.servers.clear_cache();
    }

    /// Looks up the addresses of `host` with port 0, best first.
    async fn addrs(&self, host: &str, family: Family) -> Result<Vec<SocketAddr>, LookupError> {
        let (_, mut addrs) = self.host(host, family).await?;
        let mut sources = order::Sources::default();
        addrs.retain(|addr| match family {
            Family::Any => true,
            Family::V4 => addr.is_ipv4(),
            Family::V6 => addr.is_ipv6(),
        });
        if addrs.is_empty() { Err(not_found(host)) } else { Ok(order::sorted(addrs, |addr| sources.of(addr))) }
    }

    /// Looks up `host`. Returns its canonical name and its addresses, at least those of `family`.
    /// The name is `None` if `host` is a literal address, or if the canonical name is not a host
    /// name.
    async fn host(&self, host: &str, family: Family) -> Result<(Option<String>, Vec<SocketAddr>), LookupError> {
        // A look-up may complete without waiting, so a task that looks up names in a loop might
        // never yield. This call makes the task yield from time to time.
        take_turn().await;
        if let Some(addr) = literal(host, 0) {
            return Ok((None, vec![addr]));
        }
        let name = search::parse(host).filter(|name| is_host_name(&name.to_ascii()));
        let Some(name) = name else { return Err(not_found(host)) };
        if let Some(entry) = self.inner.hosts.by_name(&name.to_ascii()) {
            return Ok((Some(entry.canonical.clone()), entry.addrs.clone()));
        }
        if search::is_localhost(&name) {
            return Ok((Some("localhost.".to_owned()), LOOPBACK.to_vec()));
        }
        let found = self.search(host, Some(name), |name| self.families(name, family)).await?;
        let addrs = found.iter().flat_map(|found| found.data.iter()).filter_map(RData::ip_addr);
        let canonical = found.first().and_then(|found| printed(&found.owner));
        Ok((canonical, addrs.map(|ip| SocketAddr::new(ip, 0)).collect()))
    }

    /// Looks up the addresses of an absolute name. Returns one entry per family for which the name
    /// has addresses, or `None` if it has no addresses.
    async fn families(&self, name: Name, family: Family) -> Result<Option<Vec<Found>>, Failure> {
        let v4 =
            async { if family == Family::V6 { Ok(None) } else { self.look_up(name.clone(), RecordType::A).await } };
        let v6 = async {
            let unwanted = family == Family::V4 || self.inner.config.no_aaaa;
            if unwanted { Ok(None) } else { self.look_up(name.clone(), RecordType::AAAA).await }
        };
        let (v4, v6) = if self.inner.config.single_request { (v4.await, v6.await) } else { zip(v4, v6).await };
        // The answer for one family is sufficient if it has addresses. If neither answer has any,
        // both queries must have succeeded.
        let mut failure = None;
        let mut found = Vec::new();
        for answer in [v6, v4] {
            match answer {
                Ok(some) => found.extend(some),
                Err(failed) => failure = Some(failed),
            }
        }
        match failure {
            Some(failure) if found.is_empty() => Err(failure),
            _ => Ok(Some(found).filter(|found| !found.is_empty())),
        }
    }

    /// Looks up the records of type `kind` of an absolute name, and follows its aliases. Returns
    /// `None` if there are no such records.
    async fn look_up(&self, mut name: Name, kind: RecordType) -> Result<Option<Found>, Failure> {
        let mut aliases = 0;
        while !search::is_never_asked(&name) {
            match self.inner.servers.ask(Question::query(name, kind)).await? {
                Reply::Records { count, .. } | Reply::Alias { count, .. } if aliases + count > ALIASES_MAX => {
                    return Err(Failure::temporary("too many aliases"));
                }
                Reply::Records { owner, data, .. } => return Ok(Some(Found { owner, data })),
                Reply::NoRecords | Reply::NoName => return Ok(None),
                Reply::Alias { target, count } => (name, aliases) = (target, aliases + count),
            }
        }
        Ok(None)
    }

    /// Calls `ask` for the absolute names to look up for `name`, in order, until a call finds an
    /// answer or fails. `text` is the name as the user wrote it.
    async fn search<T, F>(&self, text: &str, name: Option<Name>, ask: impl Fn(Name) -> F) -> Result<T, LookupError>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let names = name.map_or_else(Vec::new, |name| search::candidates(&name, &self.inner.config));
        for name in names {
            match ask(name).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(failure) => return Err(failure.into_error(text)),
            }
        }
        Err(not_found(text))
    }

    /// Looks up the records of `name`, which the user wrote as `text`, and converts each with
    /// `convert`. A record for which `convert` returns `None` is omitted.
    async fn records<T>(
        &self,
        text: &str,
        name: Option<Name>,
        kind: RecordType,
        convert: impl Fn(&RData) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        take_turn().await;
        let found = self.search(text, name, |name| self.look_up(name, kind)).await?;
        let records: Vec<T> = found.data.iter().filter_map(convert).collect();
        if records.is_empty() { Err(not_found(text).into()) } else { Ok(records) }
    }
}

impl Resolve for Resolver {
    fn addrs(
        &self,
        host: &str,
        family: Family,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LookupError>> + Send>> {
        let (resolver, host) = (self.clone(), host.to_owned());
        Box::pin(async move { Resolver::addrs(&resolver, &host, family).await })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// Returns the text of a name, or `None` if the name is not a host name. A host name contains no
/// escaped bytes.
fn printed(name: &Name) -> Option<String> {
    Some(name.to_ascii()).filter(|name| is_host_name(name))
}

/// Returns `.` for the root, and the result of [`printed`] for any other name. Used for records in
/// which the root means that there is no host.
fn printed_or_root(name: &Name) -> Option<String> {
    if name.is_root() { Some(".".to_owned()) } else { printed(name) }
}

fn not_found(name: &str) -> LookupError {
    LookupError::not_found(name)
}
