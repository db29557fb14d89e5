//! [`Config`]: the servers, their settings and the search list, from resolv.conf(5).
//!
//! The option `usevc` is FreeBSD's. The other keywords and options in the table, the environment
//! variables `LOCALDOMAIN` and `RES_OPTIONS`, and the host name have the same meaning as for glibc.
//! If there is no file, or no server in it, the server at 127.0.0.1 is used. Invalid lines, domains
//! and options are skipped individually, so an error in one does not affect the others. Unlike
//! glibc, this parser accepts white space before a keyword, ends the values of a line at a word
//! that begins with `#` or `;`, and skips an option whose number is followed by other characters.
//!
//! | keyword, option | meaning |
//! |---|---|
//! | `nameserver` | up to three servers, queried in this order |
//! | `domain`, `search` | the search list; the last of these lines is used |
//! | `ndots:n` | names with fewer dots are looked up in the search list first; at most 15 |
//! | `timeout:n` | the time for a server to reply, in seconds, 1 to 30 |
//! | `attempts:n` | the number of times that all servers are queried, 1 to 5 |
//! | `rotate` | each query begins with the next server |
//! | `use-vc`, `usevc` | only TCP is used |
//! | `edns0` | replies over UDP may have up to 1,232 bytes |
//! | `single-request`, `single-request-reopen` | AAAA is queried after A |
//! | `no-tld-query` | a name of one label is looked up only in the search list, if there is one and `ndots` is not 0 |
//! | `no-aaaa` | IPv6 addresses are not queried |
//! | others | ignored |

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::Name;

use netpoll::__private::{is_host_name, literal};

const PATH: &str = "/etc/resolv.conf";

/// The default port of a server.
const PORT: u16 = 53;

// The limits of resolv.h: MAXNS, RES_MAXNDOTS, RES_MAXRETRANS, RES_MAXRETRY.
const SERVERS_MAX: usize = 3;
const NDOTS_MAX: u32 = 15;
const TIMEOUT_MAX: u32 = 30;
const ATTEMPTS_MAX: u32 = 5;

/// The configuration of name look-ups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) servers: Vec<SocketAddr>,
    /// The search list, as absolute names.
    pub(super) search: Vec<Name>,
    /// Names with fewer dots are looked up in the search list first.
    pub(super) ndots: usize,
    /// The time limit for the reply of a server.
    pub(super) timeout: Duration,
    /// The number of times that all servers are queried.
    pub(super) rounds: usize,
    pub(super) rotate: bool,
    pub(super) tcp_only: bool,
    pub(super) edns: bool,
    pub(super) single_request: bool,
    pub(super) no_tld_query: bool,
    pub(super) no_aaaa: bool,
}

impl Config {
    /// Creates a configuration with `servers` and the defaults of resolv.conf(5).
    pub(super) fn new(servers: Vec<SocketAddr>) -> Config {
        Config {
            servers,
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            rounds: 2,
            rotate: false,
            tcp_only: false,
            edns: false,
            single_request: false,
            no_tld_query: false,
            no_aaaa: false,
        }
    }

    /// Reads this host's configuration.
    ///
    /// # Errors
    /// Returns the error of reading resolv.conf(5), except errors that glibc treats like an empty
    /// file.
    pub(super) fn system() -> io::Result<Config> {
        Config::read(PATH)
    }

    fn read(path: &str) -> io::Result<Config> {
        let file = match fs::read(path) {
            Ok(file) => file,
            Err(error) if means_empty(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Ok(Config::parse(
            &file,
            host_name.trim(),
            variable("LOCALDOMAIN").as_deref(),
            variable("RES_OPTIONS").as_deref(),
        ))
    }

    /// Parses the contents of resolv.conf(5). `local_domain` and `options` are the values of
    /// `LOCALDOMAIN` and `RES_OPTIONS`.
    pub(super) fn parse(file: &[u8], host_name: &str, local_domain: Option<&str>, options: Option<&str>) -> Config {
        let mut config = Config::new(Vec::new());
        let mut search: Option<Vec<Name>> = None;
        for line in String::from_utf8_lossy(file).lines() {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default();
            // A line that begins with one of these characters is a comment. A value that begins
            // with one of them is invalid, so the rest of the line is skipped too.
            let mut values = words.take_while(|word| !word.starts_with(['#', ';'])).peekable();
            match keyword {
                "nameserver" if config.servers.len() < SERVERS_MAX => {
                    config.servers.extend(values.next().and_then(|word| literal(word, PORT)));
                }
                "domain" if values.peek().is_some() => search = Some(values.take(1).filter_map(domain).collect()),
                "search" if values.peek().is_some() => search = Some(values.filter_map(domain).collect()),
                "options" => values.for_each(|option| config.set(option)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        if let Some(domains) = local_domain {
            search = Some(domains.split_ascii_whitespace().filter_map(domain).collect());
        }
        // The default search list is the host's own domain. `read` finds the host name only on
        // Linux.
        config.search = search.unwrap_or_else(|| {
            let own = host_name.split_once('.').map(|(_, own)| own);
            own.and_then(domain).into_iter().collect()
        });
        options.unwrap_or_default().split_ascii_whitespace().for_each(|option| config.set(option));
        config
    }

    /// Sets an option, such as `ndots:2`. Ignores unknown and malformed options.
    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').map_or((option, None), |(name, value)| (name, number(value)));
        match (name, value) {
            ("ndots", Some(ndots)) => self.ndots = ndots.min(NDOTS_MAX) as usize,
            ("timeout", Some(timeout)) => self.timeout = Duration::from_secs(timeout.clamp(1, TIMEOUT_MAX).into()),
            ("attempts", Some(attempts)) => self.rounds = attempts.clamp(1, ATTEMPTS_MAX) as usize,
            ("rotate", _) => self.rotate = true,
            ("use-vc" | "usevc", _) => self.tcp_only = true,
            ("edns0", _) => self.edns = true,
            ("single-request" | "single-request-reopen", _) => self.single_request = true,
            ("no-tld-query", _) => self.no_tld_query = true,
            ("no-aaaa", _) => self.no_aaaa = true,
            _ => {}
        }
    }
}

/// Returns whether this error of opening or reading the file is a permanent one, for which
/// `__resolv_conf_load` of glibc uses the defaults.
fn means_empty(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        || matches!(error.raw_os_error(), Some(libc::EISDIR | libc::ELOOP | libc::ENOTDIR))
}

/// Parses a number without a sign. A number that is too large becomes the maximum. Returns `None`
/// if the text is not a number.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// Parses a domain of the search list and makes it absolute. Returns `None` if the text is not a
/// domain. Also returns `None` for the root, because the search list does not decide whether a name
/// is looked up as given.
pub(super) fn domain(text: &str) -> Option<Name> {
    let mut name = if is_host_name(text) { Name::from_ascii(text).ok()? } else { Name::from_utf8(text).ok()? };
    name.set_fqdn(true);
    is_host_name(&name.to_ascii()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(file: &str) -> Config {
        Config::parse(file.as_bytes(), "", None, None)
    }

    fn search(config: &Config) -> Vec<String> {
        config.search.iter().map(Name::to_ascii).collect()
    }

    fn servers(file: &str) -> Vec<String> {
        parse(file).servers.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn file_without_a_server_means_the_local_server() {
        let files = [
            "",
            "\n\n",
            "# nothing",
            "search corp.example",
            "nameserver",
            "nameserver x",
            "nameserver 1.2.3",
            "nameserver 1.2.3.4.5",
            "nameserver # 192.0.2.1",
            "#nameserver 192.0.2.1",
            ";nameserver 192.0.2.1",
            "Nameserver 192.0.2.1",
        ];
        for file in files {
            assert_eq!(servers(file), ["127.0.0.1:53"], "{file:?}");
        }
    }

    #[test]
    fn missing_file_means_the_local_server() {
        // A missing directory, a file in place of a directory, and a directory in place of the
        // file.
        for path in ["/nonexistent/resolv.conf", "/etc/passwd/resolv.conf", "/etc"] {
            assert_eq!(Config::read(path).unwrap().servers, parse("").servers, "{path}");
        }
    }

    #[test]
    fn server_lines_that_do_not_parse_are_skipped() {
        let file = "nameserver bad\nnameserver 192.0.2.1 # first\nnameserver 300.1.1.1\r\n\tnameserver\t2001:db8::1\r\n\
            nameserver fe80::1%1\nnameserver 192.0.2.4";
        assert_eq!(servers(file), ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"], "MAXNS is 3");
        assert_eq!(servers("nameserver fe80::1%no-such-interface"), ["127.0.0.1:53"]);
        assert_eq!(
            Config::parse(b"nameserver 192.0.2.1\n\xff\xfe\nsearch \xff a.example", "", None, None).search.len(),
            1
        );
    }

    #[test]
    fn malformed_search_domains_are_skipped() {
        let long = format!("{}.example", "x".repeat(64));
        let file = format!(
            "search -- a.example .. b..example {long} . -x.example a/b B.Example. under_score.example # c.example"
        );
        assert_eq!(search(&parse(&file)), ["a.example.", "B.Example.", "under_score.example."]);
    }

    #[test]
    fn last_of_search_and_domain_applies() {
        assert_eq!(search(&parse("domain a.example\nsearch b.example c.example")), ["b.example.", "c.example."]);
        assert_eq!(search(&parse("search b.example c.example\ndomain a.example d.example")), ["a.example."]);
        assert_eq!(search(&parse("search a.example\nsearch")), ["a.example."], "a line without a value is ignored");
        assert_eq!(search(&parse("domain --\n")), [""; 0]);
    }

    #[test]
    fn search_list_defaults_to_the_domain_of_the_host() {
        let of_host = |file: &str, host| search(&Config::parse(file.as_bytes(), host, None, None));
        assert_eq!(of_host("", "host.corp.example"), ["corp.example."]);
        assert_eq!(of_host("search a.example", "host.corp.example"), ["a.example."]);
        assert_eq!(of_host("", "host"), [""; 0]);
        assert_eq!(of_host("", "matt.schulte's computer"), [""; 0]);
    }

    #[test]
    fn environment_overrides_the_file() {
        let file = b"search a.example\noptions ndots:2 timeout:3";
        let config = Config::parse(file, "", Some("b.example -- c.example"), Some("ndots:4 bogus attempts:3"));
        assert_eq!(search(&config), ["b.example.", "c.example."]);
        assert_eq!((config.ndots, config.timeout, config.rounds), (4, Duration::from_secs(3), 3));
    }

    #[test]
    fn options_have_bounds_and_malformed_ones_are_skipped() {
        let defaults = parse("");
        assert_eq!((defaults.ndots, defaults.timeout, defaults.rounds), (1, Duration::from_secs(5), 2));
        for malformed in [
            "ndots",
            "ndots:",
            "ndots:x",
            "ndots:-1",
            "ndots:1x",
            "timeout:",
            "attempts:+3",
            ":",
            "::",
            "ndots=3",
            "inet6",
            "trust-ad",
            "# rotate",
            "; rotate",
        ] {
            assert_eq!(parse(&format!("options {malformed}")), defaults, "{malformed}");
        }
        let number = |option: &str| {
            let config = parse(&format!("options {option}"));
            (config.ndots, config.timeout.as_secs(), config.rounds)
        };
        assert_eq!(number("ndots:0"), (0, 5, 2));
        assert_eq!(number("ndots:15"), (15, 5, 2));
        assert_eq!(number("ndots:16 ndots:99999999999999999999"), (15, 5, 2));
        assert_eq!(number("timeout:0 attempts:0"), (1, 1, 1));
        assert_eq!(number("timeout:31 attempts:6"), (1, 30, 5));
        let flags = parse("options rotate use-vc edns0\noptions single-request-reopen no-tld-query no-aaaa unknown");
        assert!(flags.rotate && flags.tcp_only && flags.edns);
        assert!(flags.single_request && flags.no_tld_query && flags.no_aaaa);
    }
}
