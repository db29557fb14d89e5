//! Socket options. Some affect the simulation, some are only stored or ignored, and all others
//! cause errors.

use std::collections::BTreeMap;

use super::data::IpOverrides;
use super::packet::IpFields;
use super::settings::{MSS_MAX, Settings};

type Result<T> = std::result::Result<T, i32>;

/// Options whose values are stored, with their values on a new socket. Of these, only the options
/// that set fields of the IP headers of datagrams, or request them as control messages, affect the
/// simulation.
const STORED: &[(i32, i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_BROADCAST, 0),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE, 0),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, 0),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, 0),
    (libc::SOL_SOCKET, libc::SO_MARK, 0),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, 1),
    (libc::SOL_SOCKET, libc::SO_PASSCRED, 0),
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU, -1),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL, 0),
    (libc::IPPROTO_TCP, libc::TCP_CORK, 0),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT, 6),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 0),
    // Without effect: no SYN carries data, as if no client had a cookie.
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 0),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 0),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2, 60),
    (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS, 0),
    (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, 0),
    (libc::IPPROTO_IP, libc::IP_TOS, 0),
    (libc::IPPROTO_IP, libc::IP_TTL, 64),
    (libc::IPPROTO_IP, libc::IP_FREEBIND, 0),
    (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 0),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, 1),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 1),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 1),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 64),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, 1),
    (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 1),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 1),
    (libc::IPPROTO_IP, libc::IP_PKTINFO, 0),
    (libc::IPPROTO_IP, libc::IP_RECVTTL, 0),
    (libc::IPPROTO_IP, libc::IP_RECVTOS, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 0),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 0),
];

/// The stored options that are either off or on: any value but 0 is read back as 1.
const SWITCHES: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_BROADCAST),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP),
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_RECVTTL),
    (libc::IPPROTO_IP, libc::IP_RECVTOS),
    (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
];

/// The options of a socket.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) tcp: Settings,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) only_v6: bool,
    /// The time of SO_LINGER in seconds, or `None` if the option is off.
    pub(crate) linger: Option<u32>,
    congestion: Vec<u8>,
    stored: BTreeMap<(i32, i32), i32>,
}

impl Options {
    pub(crate) fn new() -> Options {
        Options {
            tcp: Settings::new(),
            reuse_address: false,
            reuse_port: false,
            only_v6: false,
            linger: None,
            congestion: b"reno".to_vec(),
            stored: BTreeMap::new(),
        }
    }

    /// Returns the value of a stored option: the value that was set, or that of a new socket.
    pub(crate) fn stored(&self, level: i32, name: i32) -> i32 {
        let default =
            || STORED.iter().find(|&&(of, option, _)| (of, option) == (level, name)).map(|&(.., value)| value);
        self.stored.get(&(level, name)).copied().or_else(default).unwrap_or_default()
    }

    /// Returns the fields of the IP header of a datagram.
    pub(crate) fn ip_fields(&self, is_v4: bool, overrides: IpOverrides) -> IpFields {
        let stored = |v4: i32, v6: i32| match is_v4 {
            true => self.stored(libc::IPPROTO_IP, v4) as u8,
            false => self.stored(libc::IPPROTO_IPV6, v6) as u8,
        };
        IpFields {
            tos: overrides.tos.unwrap_or_else(|| stored(libc::IP_TOS, libc::IPV6_TCLASS)),
            hops: overrides.hops.unwrap_or_else(|| stored(libc::IP_TTL, libc::IPV6_UNICAST_HOPS)),
        }
    }

    /// setsockopt(2).
    pub(crate) fn set(&mut self, level: i32, name: i32, bytes: &[u8], is_tcp: bool) -> Result<()> {
        if !is_tcp && level == libc::IPPROTO_TCP {
            return Err(libc::ENOPROTOOPT);
        }
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let on = number(bytes)?;
                let seconds = number(bytes.get(4..).unwrap_or_default())?;
                self.linger = (on != 0).then_some(seconds.max(0) as u32);
                return Ok(());
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => return Ok(()),
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                if !matches!(bytes, b"reno" | b"cubic" | b"reno\0" | b"cubic\0") {
                    return Err(libc::ENOENT);
                }
                self.congestion = bytes.iter().copied().take_while(|&byte| byte != 0).collect();
                return Ok(());
            }
            _ => {}
        }
        let value = match bytes {
            // As on Linux, options of this level may be passed as one byte.
            [byte] | [byte, _] | [byte, _, _] if level == libc::IPPROTO_IP => i32::from(*byte),
            _ => number(bytes)?,
        };
        let tcp = &mut self.tcp;
        let seconds = |most: i32| match value {
            1.. if value <= most => Ok(value as u64 * 1_000_000_000),
            _ => Err(libc::EINVAL),
        };
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => self.reuse_address = value != 0,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => self.reuse_port = value != 0,
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => tcp.keep_alive = value != 0,
            // Linux doubles the value of either option, and has these minimum values.
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => tcp.receive_buffer = buffer(value, 2304),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => tcp.send_buffer = buffer(value, 4608),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => tcp.no_delay = value != 0,
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => tcp.keep_idle = seconds(32767)?,
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => tcp.keep_interval = seconds(32767)?,
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) if (1..=127).contains(&value) => tcp.keep_count = value as u32,
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => return Err(libc::EINVAL),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) if value >= 0 => tcp.user_timeout = value as u64 * 1_000_000,
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => return Err(libc::EINVAL),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) if (88..=32767).contains(&value) => tcp.mss = value as u64,
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => return Err(libc::EINVAL),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => self.only_v6 = value != 0,
            (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL) if is_tcp => return Err(libc::EINVAL),
            (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS) if is_tcp => return Err(libc::ENOPROTOOPT),
            _ if STORED.iter().any(|&(of, option, _)| (of, option) == (level, name)) => {
                match stored_value(level, name, value)? {
                    // The last two bits of the type of service belong to TCP (ECN).
                    Some(value) if is_tcp && is_traffic_class(level, name) => {
                        self.stored.insert((level, name), value & !3)
                    }
                    Some(value) => self.stored.insert((level, name), value),
                    None => self.stored.remove(&(level, name)),
                };
            }
            _ => return Err(libc::ENOPROTOOPT),
        }
        Ok(())
    }

    /// getsockopt(2) for values stored in the options.
    pub(crate) fn get(&self, level: i32, name: i32, is_tcp: bool) -> Result<Vec<u8>> {
        if !is_tcp && level == libc::IPPROTO_TCP {
            return Err(libc::EOPNOTSUPP);
        }
        let tcp = &self.tcp;
        let seconds = |nanos: u64| (nanos / 1_000_000_000) as i32;
        let value = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let words = [i32::from(self.linger.is_some()), self.linger.unwrap_or_default() as i32];
                return Ok(words.into_iter().flat_map(i32::to_ne_bytes).collect());
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => {
                return Ok(vec![0; size_of::<libc::timeval>()]);
            }
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let mut name = self.congestion.clone();
                name.resize(16, 0);
                return Ok(name);
            }
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => i32::from(self.reuse_address),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => i32::from(self.reuse_port),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => i32::from(tcp.keep_alive),
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => tcp.receive_buffer as i32,
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => tcp.send_buffer as i32,
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => i32::from(tcp.no_delay),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => seconds(tcp.keep_idle),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => seconds(tcp.keep_interval),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => tcp.keep_count as i32,
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => (tcp.user_timeout / 1_000_000) as i32,
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) if tcp.mss == MSS_MAX => 1460,
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => tcp.mss as i32,
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => i32::from(self.only_v6),
            _ => {
                let default = STORED.iter().find(|&&(of, option, _)| (of, option) == (level, name));
                let default = default.ok_or(libc::ENOPROTOOPT)?.2;
                self.stored.get(&(level, name)).copied().unwrap_or(default)
            }
        };
        Ok(value.to_ne_bytes().to_vec())
    }
}

fn is_traffic_class(level: i32, name: i32) -> bool {
    matches!((level, name), (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS))
}

fn number(bytes: &[u8]) -> Result<i32> {
    bytes.first_chunk().map(|word| i32::from_ne_bytes(*word)).ok_or(libc::EINVAL)
}

/// Returns the value to store for an option that a program sets to `value`, or `None` for the value
/// of a new socket.
fn stored_value(level: i32, name: i32, value: i32) -> Result<Option<i32>> {
    let least = match (level, name) {
        (libc::IPPROTO_IP, libc::IP_TOS) => return Ok(Some(value & 0xff)),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN) if value < 0 => return Err(libc::EINVAL),
        _ if SWITCHES.contains(&(level, name)) => return Ok(Some(i32::from(value != 0))),
        (libc::IPPROTO_IP, libc::IP_TTL) => 1,
        (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL) => 0,
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS | libc::IPV6_MULTICAST_HOPS | libc::IPV6_TCLASS) => 0,
        _ => return Ok(Some(value)),
    };
    match value {
        -1 => Ok(None),
        value if (least..=255).contains(&value) => Ok(Some(value)),
        _ => Err(libc::EINVAL),
    }
}

fn buffer(value: i32, least: u64) -> u64 {
    // The default of net.core.rmem_max and net.core.wmem_max on Linux before 6.18. As on Linux, a
    // negative value counts as the maximum.
    (u64::from((value as u32).min(212_992)) * 2).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(options: &Options, level: i32, name: i32) -> i32 {
        number(&options.get(level, name, true).unwrap()).unwrap()
    }

    #[test]
    fn options_read_back_as_stored() {
        let mut options = Options::new();
        for (level, name, set, got) in [
            (libc::SOL_SOCKET, libc::SO_REUSEADDR, 1, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 10_000, 20_000),
            (libc::SOL_SOCKET, libc::SO_SNDBUF, 1, 4608),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1, 1),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 15, 15),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3, 3),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1500, 1500),
            (libc::IPPROTO_IP, libc::IP_TTL, 3, 3),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1, 1),
        ] {
            options.set(level, name, &i32::to_ne_bytes(set), true).unwrap();
            assert_eq!(value(&options, level, name), got, "{level} {name}");
        }
        let linger: Vec<u8> = [1, 7].into_iter().flat_map(i32::to_ne_bytes).collect();
        options.set(libc::SOL_SOCKET, libc::SO_LINGER, &linger, true).unwrap();
        assert_eq!((options.linger, options.get(libc::SOL_SOCKET, libc::SO_LINGER, true)), (Some(7), Ok(linger)));
        assert_eq!(value(&options, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS), 64, "the default");
    }

    #[test]
    fn unknown_options_and_invalid_values_are_errors() {
        let mut options = Options::new();
        let one = i32::to_ne_bytes(1);
        let membership = (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP);
        assert_eq!(options.set(membership.0, membership.1, &one, false), Err(libc::ENOPROTOOPT));
        assert_eq!(options.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, &one, false), Err(libc::ENOPROTOOPT));
        assert_eq!(options.set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &[0; 4], true), Err(libc::EINVAL));
        assert_eq!(options.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, &[], true), Err(libc::EINVAL));
        assert_eq!(options.set(libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"bbr", true), Err(libc::ENOENT));
    }
}
