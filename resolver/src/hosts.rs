//! [`Hosts`]: the names and addresses in hosts(5).
//!
//! The addresses of a name in the file are taken only from the file, even if the file has none of
//! the requested family. So an entry overrides all addresses of a name, and no server is queried
//! for them. As in Go, names are compared without regard to case or a final dot. As in glibc, names
//! are not combined with the domains of the search list.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use netpoll::__private::{is_host_name, literal};

const PATH: &str = "/etc/hosts";

/// The entry of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The first host name of the first line that contains the name, with a final dot.
    pub(super) canonical: String,
    /// The addresses of the name with port 0, in the order of the file.
    pub(super) addrs: Vec<SocketAddr>,
}

/// A parsed hosts file.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// The entries by name, in lower case and without a final dot.
    by_name: HashMap<String, Entry>,
    /// The names by address, with a final dot. An IPv4-mapped address is stored as IPv4.
    by_addr: HashMap<IpAddr, Vec<String>>,
}

fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn absolute(name: &str) -> String {
    format!("{}.", name.strip_suffix('.').unwrap_or(name))
}

impl Hosts {
    /// Reads the host's file. If it cannot be read, the result has no entries.
    pub(super) fn read() -> Hosts {
        Hosts::parse(&std::fs::read(PATH).unwrap_or_default())
    }

    /// Parses the contents of hosts(5). Lines without a valid address, and names that are not host
    /// names, are skipped.
    pub(super) fn parse(file: &[u8]) -> Hosts {
        let mut hosts = Hosts::default();
        for line in String::from_utf8_lossy(file).trim_start_matches('\u{feff}').lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(addr) = words.next().and_then(|word| literal(word, 0)) else { continue };
            let names: Vec<_> = words.filter(|name| is_host_name(name)).collect();
            for name in &names {
                let new = || Entry { canonical: absolute(names[0]), addrs: Vec::new() };
                let entry = hosts.by_name.entry(key(name)).or_insert_with(new);
                if !entry.addrs.contains(&addr) {
                    entry.addrs.push(addr);
                }
                let known = hosts.by_addr.entry(addr.ip().to_canonical()).or_default();
                let name = absolute(name);
                if !known.contains(&name) {
                    known.push(name);
                }
            }
        }
        hosts
    }

    /// Returns the entry of `name`, if the file has one.
    pub(super) fn by_name(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(&key(name))
    }

    /// Returns the names of `ip` with a final dot, in the order of the file, or `None` if the file
    /// has no name for `ip`. The first name of a line is the canonical name.
    pub(super) fn by_addr(&self, ip: IpAddr) -> Option<&[String]> {
        self.by_addr.get(&ip.to_canonical()).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(hosts: &Hosts, name: &str) -> Vec<String> {
        hosts.by_name(name).map_or(Vec::new(), |entry| entry.addrs.iter().map(|addr| addr.ip().to_string()).collect())
    }

    /// Go: TestLookupStaticHost, TestLookupStaticAddr.
    #[test]
    fn hosts_file_is_parsed_as_hosts_5_describes() {
        let file = b"\xef\xbb\xbf127.0.0.1\tlocalhost localhost.localdomain # comment\n\
            ::1 localhost\n\
            # 192.0.2.9 commented\n\
            \n\
            192.0.2.1   Main.Example main alias. \xff bad/name 127.1\n\
            192.0.2.2 main.example\r\n\
            192.0.2.2 main.example\n\
            no.address name\n\
            300.0.0.1 name\n\
            192.0.2.3\n\
            ::ffff:192.0.2.4 mapped\n\
            fe80::1%1 zone";
        let hosts = Hosts::parse(file);
        assert_eq!(addrs(&hosts, "LOCALHOST."), ["127.0.0.1", "::1"]);
        assert_eq!(addrs(&hosts, "localhost.localdomain"), ["127.0.0.1"]);
        assert_eq!(hosts.by_name("localhost.localdomain").unwrap().canonical, "localhost.");
        assert_eq!(addrs(&hosts, "main.example"), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(addrs(&hosts, "Alias"), ["192.0.2.1"]);
        assert_eq!(hosts.by_name("alias").unwrap().canonical, "Main.Example.");
        for none in ["commented", "name", "bad/name", "127.1", "main.example.", "localdomain", ""] {
            assert_eq!(addrs(&hosts, none).is_empty(), none != "main.example.", "{none}");
        }
        let names = |ip: &str| hosts.by_addr(ip.parse().unwrap()).unwrap_or_default().to_vec();
        assert_eq!(names("127.0.0.1"), ["localhost.", "localhost.localdomain."]);
        assert_eq!(names("192.0.2.1"), ["Main.Example.", "main.", "alias."]);
        assert_eq!(names("192.0.2.4"), ["mapped."]);
        assert!(names("192.0.2.3").is_empty() && names("192.0.2.9").is_empty());
        let SocketAddr::V6(zone) = hosts.by_name("zone").unwrap().addrs[0] else { panic!() };
        assert_eq!(zone.scope_id(), 1);
    }
}
