//! Validation of host names.
//!
//! Names in DNS replies are arbitrary bytes chosen by the owner of a zone. Programs put them into
//! logs, shell commands, web pages and further look-ups. A name from a name service is therefore
//! returned only if it is a valid host name: it consists of ASCII letters, digits, hyphens and
//! underscores, in labels of 1 to 63 bytes that neither begin nor end with a hyphen. It has at most
//! 253 bytes without the final dot. It does not consist only of digits and dots, because such a
//! name would be taken for an address.
//!
//! # Compared with Go (`isDomainName`, net/dnsclient.go)
//! The rule is the same, except that Go also accepts the root (`.`).

/// Returns whether `name` is a valid host name, with or without a final dot.
pub fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        matches!(label.len(), 1..=63)
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253
        && name.split('.').all(is_label)
        && name.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go: TestDNSNames.
    #[test]
    fn valid_host_names_are_accepted_and_others_are_not() {
        let long = |labels: usize, last: usize| format!("{}{}", "x.".repeat(labels), "y".repeat(last));
        let good = [
            "localhost",
            "example.org",
            "example.org.",
            "EXAMPLE",
            "_sip._tcp.example",
            "a_b",
            "1a",
            "a1",
            "3com.com",
            "1-2",
            "xn--mnchen-3ya.de",
            "a.b-c.d",
            &"x".repeat(63),
            &long(126, 1),
            &format!("{}.", long(126, 1)),
        ];
        for name in good {
            assert!(is_host_name(name), "{name:?}");
        }
        let bad = [
            "",
            ".",
            "..",
            ".a",
            "a..b",
            "a.b..",
            "-a",
            "a-",
            "a.-b",
            "a-.b",
            "a b",
            "a\tb",
            "a\nb",
            "a\0",
            "a\x1b[31m",
            "<b>",
            "a/b",
            "a\\.b",
            "*.a",
            "a:1",
            "a%eth0",
            "münchen.de",
            "127.0.0.1",
            "1.2.3.4.",
            "1",
            "fe80::1",
            &"x".repeat(64),
            &long(126, 2),
            &format!("{}..", long(126, 1)),
        ];
        for name in bad {
            assert!(!is_host_name(name), "{name:?}");
        }
    }
}
