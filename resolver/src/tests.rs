//! Tests of look-ups with a hosts file and a configuration that the test defines. The server is a
//! socket that never replies, and from which the test reads the queries.

use std::net::UdpSocket;

use super::*;
use netpoll::net::{Dialer, TcpListener};
use netpoll::task::block_on;

/// Returns a resolver with the given hosts file and configuration, and its server.
fn resolver(hosts: &str, resolv_conf: &str) -> (Resolver, UdpSocket) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let mut config = Config::parse(resolv_conf.as_bytes(), "", None, None);
    config.servers = vec![server.local_addr().unwrap()];
    (Resolver::with(config, Hosts::parse(hosts.as_bytes())).unwrap(), server)
}

/// Returns whether the server has received a query, and takes the query.
fn was_asked(server: &UdpSocket) -> bool {
    server.recv(&mut [0; 512]).is_ok()
}

const HOSTS: &str = "127.0.0.1 four.test Alias.test short\n::1 six.test\n192.0.2.1 both.test\n2001:db8::1 both.test\n";

#[test]
fn hosts_entry_of_any_family_is_the_whole_answer() {
    let (resolver, server) = resolver(HOSTS, "search corp.test\noptions ndots:5");
    block_on(async {
        let addrs = async |host: &str, family| {
            let addrs = resolver.addrs(host, family).await;
            addrs.map(|addrs| addrs.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>())
        };
        for host in ["four.test", "FOUR.test.", "alias.test", "short"] {
            assert_eq!(addrs(host, Family::Any).await.unwrap(), ["127.0.0.1"]);
            assert_eq!(addrs(host, Family::V4).await.unwrap(), ["127.0.0.1"]);
            let missing = addrs(host, Family::V6).await.unwrap_err();
            assert!(missing.is_not_found() && missing.name() == host, "{missing}");
        }
        assert!(addrs("six.test", Family::V4).await.unwrap_err().is_not_found());
        assert_eq!(addrs("six.test", Family::V6).await.unwrap(), ["::1"]);
        assert_eq!(addrs("both.test", Family::Any).await.unwrap().len(), 2);
        assert_eq!(addrs("both.test", Family::V6).await.unwrap(), ["2001:db8::1"]);
        assert_eq!(resolver.lookup_host("short").await.unwrap().len(), 1);
        assert_eq!(resolver.lookup_cname("alias.TEST").await.unwrap(), "four.test.");
        let names = resolver.lookup_addr([127, 0, 0, 1].into()).await.unwrap();
        assert_eq!(names, ["four.test.", "Alias.test.", "short."]);
        assert_eq!(resolver.lookup_addr("2001:db8::1".parse().unwrap()).await.unwrap(), ["both.test."]);
        // The same holds for a dialer. It looks up both families first and, unless `stagger` is
        // `None`, each family separately if there is no answer within 50 ms.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for stagger in [None, Some(Duration::from_millis(1))] {
            let dialer = Dialer::new().resolver(resolver.clone()).stagger(stagger).timeout(Duration::from_secs(120));
            dialer.dial(("four.test", port)).await.unwrap();
        }
    });
    assert!(!was_asked(&server));
}

#[test]
fn special_use_names_are_not_queried() {
    let (resolver, server) = resolver("192.0.2.7 own.localhost", "search corp.test");
    block_on(async {
        for host in ["localhost", "LOCALHOST.", "a.b.localhost"] {
            let addrs = resolver.lookup_host(host).await.unwrap();
            assert!(addrs.len() == 2 && addrs.iter().all(IpAddr::is_loopback), "{addrs:?}");
            assert!(resolver.lookup_txt(host).await.is_err());
        }
        assert_eq!(resolver.addrs("localhost", Family::V6).await.unwrap(), LOOPBACK[..1]);
        assert_eq!(resolver.lookup_host("own.localhost").await.unwrap(), [IpAddr::from([192, 0, 2, 7])]);
        assert_eq!(resolver.lookup_addr([127, 1, 2, 3].into()).await.unwrap(), ["localhost."]);
        for host in [
            "",
            ".",
            "1.2.3",
            "1.2.3.4.",
            "127.1",
            "a b",
            "nul\0byte",
            "fe80::1%no-such-if",
            "::1%",
            "::1%x",
            "a/b",
            "-a",
        ] {
            for error in [resolver.lookup_host(host).await.unwrap_err(), resolver.lookup_cname(host).await.unwrap_err()]
            {
                assert_eq!(error.to_string(), format!("lookup {host}: no such host"));
            }
        }
        for literal in ["127.0.0.1", "::1", "::1%1", "::1%lo", "::ffff:127.0.0.1"] {
            assert_eq!(resolver.lookup_host(literal).await.unwrap().len(), 1, "{literal}");
        }
    });
    assert!(!was_asked(&server));
}

#[test]
fn no_server_is_a_temporary_failure() {
    let resolver = Resolver::builder([]).hosts_file(false).build().unwrap();
    let error = block_on(resolver.addrs("host.test.", Family::Any)).unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(block_on(resolver.lookup_host("localhost")).is_ok());
}

#[test]
fn no_aaaa_asks_for_ipv4_only() {
    let (resolver, server) = resolver("", "options no-aaaa timeout:1 attempts:1");
    let error = block_on(resolver.addrs("host.test.", Family::V6)).unwrap_err();
    assert!(error.is_not_found() && !was_asked(&server));
    assert!(block_on(resolver.addrs("host.test.", Family::Any)).unwrap_err().is_timeout());
    assert!(was_asked(&server));
}
