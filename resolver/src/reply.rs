//! The interpretation of a server's reply.
//!
//! The answer to a query consists of the records of the queried type at the end of the chain of
//! aliases that begins at the queried name. Records of other names are never part of the answer,
//! because the server need not have authority over these names.
//!
//! | reply | result |
//! |---|---|
//! | records at the end of the chain | [`Reply::Records`] |
//! | a chain whose end is not in the reply | [`Reply::Alias`]: its target must be queried |
//! | no such record at the end of the chain | [`Reply::NoRecords`] |
//! | NXDOMAIN | [`Reply::NoName`] |
//! | any other: malformed, an error code, a referral, a loop | a [`Failure`]: the next server is queried |
//!
//! # Compared with Go (net/dnsclient_unix.go)
//! Replies are checked as in `checkHeader` and `skipToAnswer`, including lame referrals. Unlike
//! this module, Go accepts the addresses of every owner name.

use std::io;
use std::sync::Arc;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use netpoll::__private::errno_text;
use netpoll::net::{LookupError, raw_os_error};

/// The maximum number of aliases. A longer chain is treated as a loop.
pub(super) const ALIASES_MAX: usize = 16;

/// The maximum time for which an answer is cached, in seconds (RFC 8767, section 4).
pub(super) const TTL_MAX: u32 = 7 * 24 * 3600;

/// The answer in a reply.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// The records of the queried type, at least one, and the name that has them: the name after
    /// `count` aliases.
    Records { owner: Name, count: usize, data: Arc<[RData]> },
    /// The name after `count` aliases, for which the reply has no records.
    Alias { target: Name, count: usize },
    /// The name has no records of the queried type.
    NoRecords,
    /// The name does not exist.
    NoName,
}

/// The reason why a query has no answer.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server did not reply in time.
    TimedOut,
    /// A temporary failure, with its description.
    Temporary(String),
    /// A system call failed because descriptors or memory ran out.
    Errno(i32),
}

impl Failure {
    /// Creates a temporary failure: another query may succeed, or a query to another server.
    pub(super) fn temporary(text: impl Into<String>) -> Failure {
        Failure::Temporary(text.into())
    }

    /// Creates the failure for an I/O error.
    pub(super) fn of(error: &io::Error) -> Failure {
        // The errors of binds and dials contain an `OpError`, so `io::Error::raw_os_error` does not
        // return their errno.
        match raw_os_error(error) {
            Some(errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => Failure::Errno(errno),
            _ => Failure::temporary(errno_text(error)),
        }
    }

    /// Returns the error for a look-up of `name`.
    pub(super) fn into_error(self, name: &str) -> LookupError {
        match self {
            Failure::TimedOut => LookupError::timed_out(name),
            Failure::Temporary(reason) => LookupError::temporary(name, reason),
            Failure::Errno(errno) => LookupError::os(name, errno),
        }
    }
}

/// Interprets the result of querying a server. Returns the answer, and the number of seconds for
/// which the answer may be cached.
pub(super) fn judge(query: &Query, result: Result<DnsResponse, NetError>) -> Result<(Reply, u32), Failure> {
    match result {
        Ok(response) => match response.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => follow(query, &response),
            code => Err(Failure::temporary(code.to_string())),
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NoError if none.soa.is_none() && none.ns.is_some() => Err(lame()),
            code @ (ResponseCode::NoError | ResponseCode::NXDomain) => {
                Ok((negative(code), none.negative_ttl.unwrap_or(0)))
            }
            code => Err(Failure::temporary(code.to_string())),
        },
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(Failure::temporary(code.to_string())),
        Err(NetError::Timeout) => Err(Failure::TimedOut),
        Err(NetError::Io(error)) => Err(Failure::of(&error)),
        Err(error) => Err(Failure::temporary(error.to_string())),
    }
}

fn negative(code: ResponseCode) -> Reply {
    if code == ResponseCode::NXDomain { Reply::NoName } else { Reply::NoRecords }
}

/// Returns the failure for a referral, which is a reply that names other servers and has no answer.
fn lame() -> Failure {
    Failure::temporary("lame referral")
}

/// Follows the aliases in the answer section, whose records may be in any order. A name that is an
/// alias has no other records (RFC 1034, section 3.6.2), so its other records are ignored.
fn follow(query: &Query, response: &DnsResponse) -> Result<(Reply, u32), Failure> {
    let (mut owner, mut ttl) = (query.name(), TTL_MAX);
    for count in 0..=ALIASES_MAX {
        let of_owner = || response.answers.iter().filter(|record| record.name == *owner);
        let alias = of_owner().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((record.ttl, &target.0)),
            _ => None,
        });
        if let Some((alias_ttl, target)) = alias {
            ttl = ttl.min(alias_ttl);
            owner = target;
            continue;
        }
        let wanted: Vec<_> = of_owner().filter(|record| record.record_type() == query.query_type()).collect();
        let Some(first) = wanted.first() else { return nothing_at(owner, count, ttl, response) };
        // `first.name` is the name as the server wrote it. Its case may differ from that in the
        // query.
        let reply = Reply::Records {
            owner: first.name.clone(),
            count,
            data: wanted.iter().map(|record| record.data.clone()).collect(),
        };
        return Ok((reply, wanted.iter().map(|record| record.ttl).fold(ttl, u32::min)));
    }
    Err(Failure::temporary("too many aliases"))
}

/// Interprets a reply without records for `owner`, the name after `count` aliases.
fn nothing_at(owner: &Name, count: usize, ttl: u32, response: &DnsResponse) -> Result<(Reply, u32), Failure> {
    let has_soa = response.soa().is_some();
    let is_referral = || response.authorities.iter().any(|record| record.record_type() == RecordType::NS);
    if response.answers.is_empty() && !has_soa && is_referral() {
        return Err(lame());
    }
    if count == 0 || has_soa || response.response_code == ResponseCode::NXDomain {
        return Ok((negative(response.response_code), ttl.min(response.negative_ttl().unwrap_or(0))));
    }
    Ok((Reply::Alias { target: owner.clone(), count }, ttl))
}
