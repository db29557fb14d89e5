//! The absolute names to look up for a given name, and the names for which no server is queried.
//!
//! | names | treatment | source |
//! |---|---|---|
//! | `onion`, `invalid`, `alt` and names below | do not exist | RFC 7686, RFC 6761 section 6.4, RFC 9476 |
//! | `localhost` and names below | have the loopback addresses and no other records | RFC 6761, section 6.3 |
//! | names below `local` | looked up as given | RFC 6762, section 3 |
//! | names with a final dot | looked up as given | RFC 1034, section 3.1 |
//! | all other names | looked up as given and in the search list, as the options determine | resolv.conf(5) |
//!
//! A name that is in hosts(5) has the addresses in that file instead. Names in the first four rows
//! are never looked up in the search list. For the first three rows, such a look-up would reveal
//! the name of a private or anonymous service to the servers of the search domains, and allow these
//! servers to answer for it.

use hickory_resolver::proto::rr::Name;

use super::config::Config;

/// Parses a name, which is absolute if it ends with a dot. Returns `None` if the text is not a
/// name.
pub(super) fn parse(name: &str) -> Option<Name> {
    // The relaxed form allows underscores anywhere.
    Name::from_str_relaxed(name).ok().filter(|_| !name.is_empty())
}

/// Returns whether `zone` is the last label of `name`, so that `name` is `zone` or below it.
fn is_below(name: &Name, zone: &str) -> bool {
    name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(zone.as_bytes()))
}

/// Returns whether `name` is `localhost` or below it.
pub(super) fn is_localhost(name: &Name) -> bool {
    is_below(name, "localhost")
}

/// Returns whether no server may be queried for `name`.
pub(super) fn is_never_asked(name: &Name) -> bool {
    is_localhost(name) || ["onion", "invalid", "alt"].iter().any(|zone| is_below(name, zone))
}

/// Returns the absolute names to look up for `name`, in order.
pub(super) fn candidates(name: &Name, config: &Config) -> Vec<Name> {
    let absolute = || {
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        absolute
    };
    if is_never_asked(name) {
        return Vec::new();
    }
    let dots = name.iter().count().saturating_sub(1);
    if name.is_fqdn() || dots > 0 && is_below(name, "local") {
        return vec![absolute()];
    }
    // A domain that would make the name too long is skipped.
    let mut all: Vec<_> = config.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
    if dots >= config.ndots {
        all.insert(0, absolute());
    } else if dots > 0 || !config.no_tld_query || config.search.is_empty() {
        all.push(absolute());
    }
    all.retain(|name| !is_never_asked(name));
    let mut seen = Vec::new();
    all.retain(|name| {
        !seen.contains(name) && {
            seen.push(name.clone());
            true
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &str) -> Config {
        let file = format!("search a.example b.example\noptions {options}");
        Config::parse(file.as_bytes(), "", None, None)
    }

    fn names(name: &str, options: &str) -> Vec<String> {
        let name = parse(name).unwrap();
        candidates(&name, &config(options)).iter().map(Name::to_ascii).collect()
    }

    /// Go: TestNameListAvoidsDNS, TestGoLookupIPOrderFallbackToFile, `nameList`.
    #[test]
    fn number_of_dots_decides_the_search_order() {
        assert_eq!(names("x", ""), ["x.a.example.", "x.b.example.", "x."]);
        assert_eq!(names("x.y", ""), ["x.y.", "x.y.a.example.", "x.y.b.example."]);
        assert_eq!(names("x.y", "ndots:2"), ["x.y.a.example.", "x.y.b.example.", "x.y."]);
        assert_eq!(names("x", "ndots:0"), ["x.", "x.a.example.", "x.b.example."]);
        assert_eq!(names("x.", ""), ["x."]);
        assert_eq!(names("x", "no-tld-query"), ["x.a.example.", "x.b.example."]);
        assert_eq!(names("x.y", "ndots:2 no-tld-query"), ["x.y.a.example.", "x.y.b.example.", "x.y."]);
        let long = format!("{}{}", "y.".repeat(121), "z".repeat(9));
        assert_eq!(names(&long, ""), [format!("{long}.")], "too long in any domain");
        let twice = Config::parse(b"search a.example A.EXAMPLE b.example", "", None, None);
        assert_eq!(candidates(&parse("x").unwrap(), &twice).len(), 3);
    }

    /// As in `res_nsearch` of glibc, which queries a name as given if it has tried the name in no
    /// domain.
    #[test]
    fn name_with_one_label_is_looked_up_as_given_without_a_search_list() {
        for file in ["options no-tld-query", "search .\noptions no-tld-query", "options no-tld-query ndots:3"] {
            let config = Config::parse(file.as_bytes(), "", None, None);
            let all = candidates(&parse("x").unwrap(), &config);
            assert_eq!(all.iter().map(Name::to_ascii).collect::<Vec<_>>(), ["x."], "{file}");
        }
        // As in glibc, a domain counts as tried even if it is skipped because the name would be too
        // long.
        let long = ["x".repeat(63), "y".repeat(63), "z".repeat(63), "w".repeat(58)].join(".");
        let config = Config::parse(format!("search {long}\noptions no-tld-query").as_bytes(), "", None, None);
        assert!(candidates(&parse("onelabel").unwrap(), &config).is_empty());
    }

    #[test]
    fn special_use_names_never_reach_the_search_list() {
        let never = [
            "x.onion",
            "X.ONION",
            "x.onion.",
            "onion",
            "a.b.onion",
            "invalid",
            "x.invalid",
            "x.invalid.",
            "alt",
            "x.alt",
            "localhost",
            "LocalHost",
            "localhost.",
            "x.localhost",
        ];
        for name in never {
            assert!(names(name, "ndots:5").is_empty(), "{name}");
        }
        for name in ["printer.local", "a.b.LOCAL", "x.svc.cluster.local"] {
            assert_eq!(names(name, "ndots:5"), [format!("{name}.").to_lowercase()]);
        }
        // Names that only look like special-use names.
        assert_eq!(names("onion.example", "").len(), 3);
        assert_eq!(names("xonion", "").len(), 3);
        assert_eq!(names("local", "").len(), 3);
        assert_eq!(names("x.test", "").len(), 3);
        let odd = Config::parse(b"search x.onion b.example invalid", "", None, None);
        let all: Vec<_> = candidates(&parse("y").unwrap(), &odd).iter().map(Name::to_ascii).collect();
        assert_eq!(all, ["y.b.example.", "y."]);
    }
}
