//! Tests of the resolver with DNS servers that run in the test.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{becomes, eventually, poll_once, run};
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, MX, NS, PTR, SRV, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use netpoll::net::{Dialer, LookupError, is_timeout};
use netpoll::{rt, task};
use netpoll_resolver::{Resolver, ResolverBuilder};

/// The server's reply to a question.
enum Reply {
    /// Records of the queried name.
    Answer(Vec<RData>),
    /// Records of any names.
    Records(Vec<Record>),
    Code(ResponseCode),
    /// A truncated reply over UDP, and these records over TCP.
    TooLong(Vec<RData>),
    /// A reply with a wrong id, a reply to another question and an invalid message, and then a
    /// reply with these records.
    Forged(Vec<RData>),
    /// A reply without records, changed by the function.
    Changed(fn(&mut Message)),
    /// The id of the question, followed by these bytes.
    Raw(Vec<u8>),
    /// A truncated reply over UDP, and an invalid message over TCP.
    RawOverTcp,
    /// No reply.
    Silence,
}

/// A DNS server on 127.0.0.1, over UDP and TCP. It runs until it is dropped.
struct Server {
    addr: SocketAddr,
    /// The questions received over UDP.
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
    /// Whether the server was dropped.
    over: Arc<AtomicBool>,
}

impl Server {
    fn new(reply: impl Fn(&str, RecordType) -> Reply + Send + Sync + 'static) -> Server {
        Server::at(0, reply)
    }

    fn at(port: u16, reply: impl Fn(&str, RecordType) -> Reply + Send + Sync + 'static) -> Server {
        // Both protocols must use the same port.
        let (udp, tcp) = std::iter::repeat_with(|| {
            let udp = UdpSocket::bind(("127.0.0.1", port)).unwrap();
            TcpListener::bind(udp.local_addr().unwrap()).ok().map(|tcp| (udp, tcp))
        })
        .flatten()
        .next()
        .unwrap();
        let addr = udp.local_addr().unwrap();
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let reply = Arc::new(reply);
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        thread::spawn({
            let (asked, over, reply) = (asked.clone(), over.clone(), reply.clone());
            move || {
                let mut buf = [0; 4096];
                while !over.load(Ordering::SeqCst) {
                    let Ok((count, from)) = udp.recv_from(&mut buf) else { continue };
                    let question = Message::from_vec(&buf[..count]).unwrap();
                    let (name, kind) = (question.queries[0].name().to_utf8(), question.queries[0].query_type());
                    asked.lock().unwrap().push((name.clone(), kind));
                    for answer in answers(&question, reply(&name, kind), false) {
                        udp.send_to(&answer, from).unwrap();
                    }
                }
            }
        });
        tcp.set_nonblocking(true).unwrap();
        thread::spawn({
            let over = over.clone();
            move || {
                while !over.load(Ordering::SeqCst) {
                    let Ok((mut stream, _)) = tcp.accept() else {
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    stream.set_nonblocking(false).unwrap();
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut buf = vec![0; u16::from_be_bytes(length).into()];
                        stream.read_exact(&mut buf).unwrap();
                        let question = Message::from_vec(&buf).unwrap();
                        let (name, kind) = (question.queries[0].name().to_utf8(), question.queries[0].query_type());
                        for answer in answers(&question, reply(&name, kind), true) {
                            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                            stream.write_all(&answer).unwrap();
                        }
                    }
                }
            }
        });
        Server { addr, asked, over }
    }

    /// Returns settings for a resolver that queries this server, at most twice, without a hosts
    /// file.
    fn builder(&self) -> ResolverBuilder {
        Resolver::builder([self.addr]).hosts_file(false).attempts(1)
    }

    fn resolver(&self) -> Resolver {
        self.builder().build().unwrap()
    }

    fn asked(&self) -> Vec<(String, RecordType)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// Returns the messages of the reply to `question`.
fn answers(question: &Message, reply: Reply, over_tcp: bool) -> Vec<Vec<u8>> {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.metadata.recursion_desired = true;
    answer.add_query(query.clone());
    let records = |data: Vec<RData>| {
        let name = query.name().clone();
        data.into_iter().map(move |data| Record::from_rdata(name.clone(), 60, data)).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    match reply {
        Reply::Answer(data) => drop(answer.add_answers(records(data))),
        Reply::Records(records) => drop(answer.add_answers(records)),
        Reply::Code(code) => answer.metadata.response_code = code,
        Reply::TooLong(data) if over_tcp => drop(answer.add_answers(records(data))),
        Reply::TooLong(_) => answer.metadata.truncation = true,
        Reply::RawOverTcp if !over_tcp => answer.metadata.truncation = true,
        Reply::RawOverTcp => {
            all.push([&question.metadata.id.to_be_bytes()[..], &[0xff; 100]].concat());
            return all;
        }
        Reply::Forged(data) => {
            let forged = vec![RData::A(Ipv4Addr::new(6, 6, 6, 6).into())];
            let mut other = answer.clone();
            other.add_answers(records(forged.clone()));
            other.metadata.id = other.metadata.id.wrapping_add(1);
            all.push(other.to_vec().unwrap());
            let mut other = Message::response(question.metadata.id, OpCode::Query);
            let mut wrong = query.clone();
            wrong.set_name(name("elsewhere.test."));
            other.add_query(wrong).add_answers(records(forged));
            all.push(other.to_vec().unwrap());
            all.push(b"no message".to_vec());
            answer.add_answers(records(data));
        }
        Reply::Changed(change) => change(&mut answer),
        Reply::Raw(bytes) => {
            all.push([&question.metadata.id.to_be_bytes()[..], &bytes].concat());
            return all;
        }
        Reply::Silence => return all,
    }
    all.push(answer.to_vec().unwrap());
    all
}

fn name(text: &str) -> Name {
    Name::from_utf8(text).unwrap()
}

fn v4(last: u8) -> RData {
    RData::A(Ipv4Addr::new(192, 0, 2, last).into())
}

/// Returns the `LookupError` in an error.
fn error(error: &std::io::Error) -> &LookupError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap_or_else(|| panic!("no LookupError: {error:?}"))
}

/// Clients share the load of servers with the same preference (RFC 5321, section 5.1) or priority
/// (RFC 2782).
#[test]
fn any_of_equal_servers_may_be_first() {
    let server = Server::new(|_, kind| match kind {
        RecordType::MX => Reply::Answer(["a.test.", "b.test."].map(|host| RData::MX(MX::new(10, name(host)))).into()),
        _ => Reply::Answer(
            [("a.test.", 1), ("b.test.", 2)]
                .map(|(host, weight)| RData::SRV(SRV::new(1, weight, 1, name(host))))
                .into(),
        ),
    });
    run(async {
        let resolver = server.resolver();
        let (mut mx, mut srv) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..200 {
            mx.insert(resolver.lookup_mx("host.test.").await.unwrap().swap_remove(0).host);
            srv.insert(resolver.lookup_srv("", "", "host.test.").await.unwrap().swap_remove(0).target);
        }
        assert_eq!((mx.len(), srv.len()), (2, 2));
    });
}

#[test]
fn record_types_resolve_without_a_thread() {
    common::child("record_types_resolve_without_a_thread", || {
        let server = Server::new(|asked, kind| match kind {
            RecordType::A => Reply::Answer(vec![v4(1), v4(2)]),
            RecordType::AAAA => Reply::Answer(Vec::new()),
            RecordType::MX => Reply::Answer(vec![
                RData::MX(MX::new(20, name("second.test."))),
                RData::MX(MX::new(10, name("first.test."))),
            ]),
            RecordType::NS => Reply::Answer(vec![RData::NS(NS(name("ns.test.")))]),
            RecordType::TXT => Reply::Answer(vec![RData::TXT(TXT::new(vec!["in two ".into(), "pieces".into()]))]),
            RecordType::SRV if asked == "_http._tcp.host.test." => Reply::Answer(vec![
                RData::SRV(SRV::new(2, 5, 80, name("backup.test."))),
                RData::SRV(SRV::new(1, 1, 80, name("small.test."))),
                RData::SRV(SRV::new(1, 9, 8080, name("big.test."))),
            ]),
            RecordType::PTR if asked == "1.2.0.192.in-addr.arpa." => {
                Reply::Answer(vec![RData::PTR(PTR(name("host.test.")))])
            }
            _ => Reply::Code(ResponseCode::NXDomain),
        });
        run(async {
            let resolver = server.resolver();
            let ips: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
            let mut got = resolver.lookup_host("host.test.").await.unwrap();
            got.sort();
            assert_eq!(got, ips);
            assert_eq!(resolver.lookup_host("::1").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
            let mx = resolver.lookup_mx("host.test.").await.unwrap();
            let mx: Vec<_> = mx.iter().map(|mx| (mx.preference, &mx.host[..])).collect();
            assert_eq!(mx, [(10, "first.test."), (20, "second.test.")]);
            assert_eq!(resolver.lookup_ns("host.test.").await.unwrap(), ["ns.test."]);
            assert_eq!(resolver.lookup_txt("host.test.").await.unwrap(), ["in two pieces"]);
            let srv = resolver.lookup_srv("http", "tcp", "host.test.").await.unwrap();
            let targets: Vec<_> = srv.iter().map(|srv| (&srv.target[..], srv.port)).collect();
            // The order of servers of the same priority is random.
            assert_eq!(targets.iter().find(|(target, _)| *target == "big.test."), Some(&("big.test.", 8080)));
            assert_eq!((targets.len(), targets[2]), (3, ("backup.test.", 80)));
            assert_eq!(resolver.lookup_srv("", "", "_http._tcp.host.test.").await.unwrap().len(), 3);
            assert_eq!(resolver.lookup_addr(ips[0]).await.unwrap(), ["host.test."]);
            assert!(error(&resolver.lookup_addr(ips[1]).await.unwrap_err()).is_not_found());
            // A cached answer is not queried again until the cache is cleared.
            let asked = server.asked().len();
            resolver.lookup_ns("host.test.").await.unwrap();
            assert_eq!(server.asked().len(), asked);
            resolver.clear_cache();
            resolver.lookup_ns("host.test.").await.unwrap();
            assert_eq!(server.asked().len(), asked + 1);
            assert_eq!(rt::metrics().blocking_threads, 0);
        });
    });
}

#[test]
fn alias_chain_resolves_to_its_end() {
    let server = Server::new(|_, kind| match kind {
        RecordType::A => Reply::Records(vec![
            Record::from_rdata(name("www.test."), 60, RData::CNAME(CNAME(name("real.test.")))),
            Record::from_rdata(name("real.test."), 60, v4(1)),
        ]),
        _ => Reply::Answer(Vec::new()),
    });
    run(async {
        let resolver = server.resolver();
        assert_eq!(resolver.lookup_cname("www.test.").await.unwrap(), "real.test.");
        assert_eq!(resolver.lookup_host("www.test.").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
    });
}

#[test]
fn resolver_failures_are_classified() {
    let server = Server::new(|asked, _| match asked {
        "empty.test." => Reply::Answer(Vec::new()),
        "broken.test." => Reply::Code(ResponseCode::ServFail),
        "silent.test." => Reply::Silence,
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    run(async {
        let resolver = server.resolver();
        for none in ["missing.test.", "empty.test."] {
            let failed = resolver.lookup_host(none).await.unwrap_err();
            assert_eq!(
                (failed.to_string(), failed.kind()),
                (format!("lookup {none}: no such host"), ErrorKind::NotFound)
            );
            assert!(error(&resolver.lookup_txt(none).await.unwrap_err()).is_not_found());
        }
        let failed = resolver.lookup_host("broken.test.").await.unwrap_err();
        assert!(error(&failed).is_temporary() && !error(&failed).is_not_found(), "{failed}");
        let start = Instant::now();
        let hurried = server.builder().timeout(Duration::from_millis(300)).build().unwrap();
        let failed = hurried.lookup_host("silent.test.").await.unwrap_err();
        assert!(error(&failed).is_timeout() && is_timeout(&failed), "{failed}");
        assert_eq!(failed.to_string(), "lookup silent.test.: i/o timeout");
        assert!(start.elapsed() >= Duration::from_millis(300));
        let long = "x".repeat(64) + ".test.";
        assert!(error(&resolver.lookup_host(&long).await.unwrap_err()).is_not_found());
        let failed = server.builder().search(["x".repeat(64)]).build().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::InvalidInput);
    });
}

/// Go: TestIgnoreDNSForgeries. The test also covers a reply that does not fit into a datagram.
#[test]
fn forged_replies_are_ignored_and_truncated_ones_retry_over_tcp() {
    let server = Server::new(|asked, kind| match (asked, kind) {
        (_, RecordType::AAAA) => Reply::Answer(Vec::new()),
        ("forged.test.", _) => Reply::Forged(vec![v4(7)]),
        _ => Reply::TooLong((0..200).map(v4).collect()),
    });
    run(async {
        let resolver = server.resolver();
        assert_eq!(resolver.lookup_host("forged.test.").await.unwrap(), [IpAddr::from([192, 0, 2, 7])]);
        assert_eq!(resolver.lookup_host("long.test.").await.unwrap().len(), 200);
    });
}

/// Go: TestLookupHostCancel, TestDNSTimeout.
#[test]
fn dropped_lookup_leaks_nothing() {
    common::child("dropped_lookup_leaks_nothing", || {
        let server = Server::new(|_, _| Reply::Silence);
        run(async {
            let resolver = server.builder().timeout(Duration::from_secs(3600)).build().unwrap();
            let before = rt::metrics().descriptors;
            for number in 0..10 {
                let host = format!("silent{number}.test.");
                let mut lookup = Box::pin(resolver.lookup_host(&host));
                let asked = || server.asked().iter().any(|(name, _)| *name == host);
                let start = Instant::now();
                while !asked() {
                    assert!(poll_once(&mut lookup).await.is_pending());
                    assert!(start.elapsed() < common::BOUND);
                    task::sleep(Duration::from_millis(1)).await;
                }
                assert!(rt::metrics().descriptors > before);
            }
            drop(resolver);
            becomes("the sockets are closed", || rt::metrics().descriptors == before).await;
            becomes("the tasks have ended", || rt::metrics().tasks_alive == 0).await;
        });
    });
}

/// Regression test: the text was "no connections available".
#[test]
fn look_up_at_a_closed_port_fails_with_the_reason() {
    let closed = UdpSocket::bind(common::own_address()).unwrap().local_addr().unwrap();
    run(async {
        let resolver = Resolver::builder([closed]).hosts_file(false).build().unwrap();
        let failed = resolver.lookup_host("host.test.").await.unwrap_err();
        assert_eq!(failed.to_string(), "lookup host.test.: connection refused");
        assert!(error(&failed).is_temporary());
    });
}

/// Regression test: the error had no errno, and the text was "no connections available".
/// Regression test: the longest timeout caused a panic in hickory, and a resolver without servers
/// made all of its attempts.
#[test]
fn longest_timeout_and_most_attempts_are_accepted() {
    let server = Server::new(|_, kind| Reply::Answer(if kind == RecordType::A { vec![v4(1)] } else { Vec::new() }));
    let build = |servers: &[SocketAddr]| {
        let builder = Resolver::builder(servers.iter().copied()).hosts_file(false);
        builder.timeout(Duration::MAX).attempts(usize::MAX).build().unwrap()
    };
    run(async {
        let found = build(&[server.addr]).lookup_host("long.test").await.unwrap();
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
        let none = build(&[]).lookup_host("long.test").await.unwrap_err();
        assert!(error(&none).is_temporary());
    });
}

#[test]
fn lookup_without_a_free_descriptor_fails_with_the_errno() {
    common::child("lookup_without_a_free_descriptor_fails_with_the_errno", || {
        let server = Server::new(|_, _| Reply::Answer(Vec::new()));
        run(async {
            let resolver = server.resolver();
            // The first look-up makes the poller open its descriptors.
            assert!(error(&resolver.lookup_txt("first.test.").await.unwrap_err()).is_not_found());
            common::set_nofile(64);
            let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            let failed = resolver.lookup_host("host.test.").await.unwrap_err();
            assert_eq!(failed.to_string(), "lookup host.test.: too many open files");
            assert_eq!(error(&failed).raw_os_error(), Some(libc::EMFILE));
            assert!(error(&failed).is_temporary());
            drop(files);
        });
    });
}

/// Go: TestRetryTimeout.
#[test]
fn next_server_answers_for_silent_or_closed_one() {
    let silent = Server::new(|_, _| Reply::Silence);
    let good = Server::new(|_, _| Reply::Answer(vec![v4(1)]));
    // The kernel reports that no socket is bound to this port.
    let closed = UdpSocket::bind(common::own_address()).unwrap().local_addr().unwrap();
    run(async {
        for bad in [silent.addr, closed] {
            let resolver = Resolver::builder([bad, good.addr]).hosts_file(false).build().unwrap();
            assert!(!resolver.lookup_host("host.test.").await.unwrap().is_empty());
        }
    });
}

type MakeReply = fn() -> Reply;

/// Returns replies that cannot be parsed, that are inconsistent, or with which the server declines
/// to answer.
fn replies_that_are_no_answer() -> Vec<(&'static str, MakeReply)> {
    vec![
        ("a header alone that promises an answer", || Reply::Raw(b"\x81\x80\0\x01\0\x01\0\0\0\0".to_vec())),
        ("noise", || Reply::Raw(vec![0xff; 100])),
        ("a question in place of an answer", || {
            Reply::Changed(|reply| reply.metadata.message_type = MessageType::Query)
        }),
        ("a record that ends early", || {
            Reply::Raw(b"\x81\x80\0\0\0\x01\0\0\0\0\x04host\x04test\0\0\x01\0\x01\0\0\0\x3c\0\x04\xc0".to_vec())
        }),
        ("a name that points at itself", || Reply::Raw(b"\x81\x80\0\0\0\x01\0\0\0\0\xc0\x0c\0\x01\0\x01".to_vec())),
        ("SERVFAIL", || Reply::Code(ResponseCode::ServFail)),
        ("REFUSED", || Reply::Code(ResponseCode::Refused)),
        ("NOTIMP", || Reply::Code(ResponseCode::NotImp)),
        ("FORMERR", || Reply::Code(ResponseCode::FormErr)),
        ("an unknown code", || Reply::Code(ResponseCode::Unknown(14))),
        ("a referral", || {
            Reply::Changed(|reply| {
                reply.metadata.recursion_available = false;
                reply.add_authority(Record::from_rdata(name("test."), 60, RData::NS(NS(name("ns.test.")))));
            })
        }),
        ("an alias of itself", || {
            Reply::Changed(|reply| {
                let own = reply.queries[0].name().clone();
                reply.add_answer(Record::from_rdata(own.clone(), 60, RData::CNAME(CNAME(own))));
            })
        }),
    ]
}

#[test]
fn unusable_reply_is_temporary_and_ends_search() {
    for (what, reply) in replies_that_are_no_answer() {
        let server = Server::new(move |_, _| reply());
        let builder = || server.builder().attempts(0).search(["corp.test", "other.test"]);
        run(async {
            // A name with a dot is first looked up as given. A name without a dot is first looked
            // up in the search list.
            for (host, first) in [("host", "host.corp.test."), ("www.host", "www.host.")] {
                let resolver = builder().build().unwrap();
                server.asked.lock().unwrap().clear();
                let failures = [
                    resolver.lookup_host(host).await.unwrap_err(),
                    resolver.lookup_cname(host).await.unwrap_err(),
                    resolver.lookup_mx(host).await.unwrap_err(),
                    resolver.lookup_txt(host).await.unwrap_err(),
                ];
                for failure in failures {
                    assert!(error(&failure).is_temporary() && !error(&failure).is_not_found(), "{what}: {failure}");
                }
                assert!(server.asked().iter().all(|(asked, _)| asked == first), "{what}: {:?}", server.asked());
            }
            let failure = builder().build().unwrap().lookup_addr([192, 0, 2, 1].into()).await.unwrap_err();
            assert!(error(&failure).is_temporary(), "{what}: {failure}");
        });
    }
}

#[test]
fn next_server_answers_for_failing_one() {
    let good = Server::new(|_, kind| match kind {
        RecordType::A => Reply::Answer(vec![v4(1)]),
        RecordType::TXT => Reply::Answer(vec![RData::TXT(TXT::new(vec!["text".into()]))]),
        _ => Reply::Answer(Vec::new()),
    });
    for (what, reply) in replies_that_are_no_answer() {
        let bad = Server::new(move |_, _| reply());
        for servers in [vec![bad.addr, good.addr], vec![bad.addr, bad.addr, good.addr], vec![good.addr, bad.addr]] {
            run(async {
                let resolver = Resolver::builder(servers).hosts_file(false).build().unwrap();
                let addrs = resolver.lookup_host("host.test.").await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(addrs, [IpAddr::from([192, 0, 2, 1])], "{what}");
                assert_eq!(resolver.lookup_txt("host.test.").await.unwrap(), ["text"], "{what}");
                let missing = resolver.lookup_mx("host.test.").await.unwrap_err();
                assert!(error(&missing).is_not_found(), "{what}: {missing}");
            });
        }
    }
}

/// After a truncated reply over UDP, the server sends an invalid or another truncated reply over
/// TCP. The next server is then queried.
#[test]
fn malformed_reply_over_tcp_is_a_temporary_failure() {
    let noise = Server::new(|_, _| Reply::RawOverTcp);
    let truncated = Server::new(|_, _| Reply::Changed(|reply| reply.metadata.truncation = true));
    let good = Server::new(|_, _| Reply::Answer(vec![v4(1)]));
    run(async {
        for bad in [noise, truncated] {
            let resolver =
                bad.builder().attempts(0).timeout(Duration::from_secs(1)).search(["corp.test"]).build().unwrap();
            let failure = resolver.lookup_host("host").await.unwrap_err();
            assert!(error(&failure).is_temporary(), "{failure}");
            assert!(bad.asked().iter().all(|(asked, _)| asked == "host.corp.test."), "{:?}", bad.asked());
            let resolver = Resolver::builder([bad.addr, good.addr]).hosts_file(false).build().unwrap();
            assert_eq!(resolver.lookup_host("host.test.").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        }
    });
}

/// As in glibc, a negative answer is used if all earlier servers have failed, even if a later
/// server has records.
#[test]
fn first_answering_server_decides() {
    let knows = Server::new(|_, _| Reply::Answer(vec![v4(1)]));
    let does_not = Server::new(|_, _| Reply::Code(ResponseCode::NXDomain));
    let has_none = Server::new(|_, _| Reply::Answer(Vec::new()));
    let fails = Server::new(|_, _| Reply::Code(ResponseCode::ServFail));
    let silent = Server::new(|_, _| Reply::Silence);
    run(async {
        let resolver = |servers: &[&Server]| {
            let servers: Vec<_> = servers.iter().map(|server| server.addr).collect();
            Resolver::builder(servers).hosts_file(false).attempts(0).timeout(Duration::from_secs(2)).build().unwrap()
        };
        for server in [&does_not, &has_none] {
            let missing = resolver(&[server, &knows]).lookup_txt("host.test.").await.unwrap_err();
            assert!(error(&missing).is_not_found());
            assert!(knows.asked().is_empty());
            let missing = resolver(&[&fails, server, &knows]).lookup_txt("host.test.").await.unwrap_err();
            assert!(error(&missing).is_not_found());
        }
        // A silent server may still reply until its timeout has passed, so the negative answer is
        // used only then.
        for server in [&does_not, &has_none] {
            let missing = resolver(&[&silent, server]).lookup_txt("host.test.").await.unwrap_err();
            assert!(error(&missing).is_not_found());
        }
        assert!(knows.asked().is_empty());
        assert!(resolver(&[&silent, &knows]).lookup_host("host.test.").await.is_ok());
    });
}

/// Regression test: a negative answer was used immediately, like an answer with records.
#[test]
fn negative_answer_of_a_later_server_does_not_precede_records_of_an_earlier_one() {
    let negatives: [fn() -> Reply; 2] = [|| Reply::Answer(Vec::new()), || Reply::Code(ResponseCode::NXDomain)];
    for negative in negatives {
        let later = Server::new(move |_, _| negative());
        let later_asked = later.asked.clone();
        let earlier = Server::new(move |_, _| {
            // Wait until the later server has been queried.
            while later_asked.lock().unwrap().is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(100));
            Reply::Answer(vec![RData::TXT(TXT::new(vec!["text".into()]))])
        });
        run(async {
            // The later server is queried after a fifth of the timeout.
            let resolver = Resolver::builder([earlier.addr, later.addr]).hosts_file(false).attempts(0);
            let resolver = resolver.timeout(Duration::from_secs(10)).search(["corp.test"]).build().unwrap();
            assert_eq!(resolver.lookup_txt("host.test").await.unwrap(), ["text"]);
            // The search list is not used either.
            let asked = [earlier.asked(), later.asked()].concat();
            assert!(asked.iter().all(|(name, _)| name == "host.test."), "{asked:?}");
        });
    }
}

/// Looks up "host.test." with a server that answers A queries with `records`.
fn addrs_of(records: impl Fn() -> Vec<Record> + Send + Sync + 'static) -> Result<Vec<IpAddr>, std::io::Error> {
    let server = Server::new(move |_, kind| match kind {
        RecordType::A => Reply::Records(records()),
        _ => Reply::Answer(Vec::new()),
    });
    run(async { server.builder().attempts(0).build().unwrap().lookup_host("host.test.").await })
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

fn alias(owner: &str, target: &str) -> Record {
    record(owner, RData::CNAME(CNAME(name(target))))
}

#[test]
fn only_records_of_final_alias_count() {
    let ip = |last| IpAddr::from([192, 0, 2, last]);
    let others = || vec![record("other.test.", v4(6)), record("test.", v4(6)), record("x.host.test.", v4(6))];
    let with = move |mut records: Vec<Record>| {
        records.extend(others());
        records
    };
    assert_eq!(addrs_of(move || with(vec![record("host.test.", v4(1))])).unwrap(), [ip(1)]);
    assert_eq!(
        addrs_of(move || with(vec![record("HOST.test.", v4(1)), record("host.TEST.", v4(2))])).unwrap().len(),
        2
    );
    let missing = addrs_of(others).unwrap_err();
    assert!(error(&missing).is_not_found(), "{missing}");
    let chain = || vec![alias("host.test.", "a.test."), alias("a.test.", "b.test."), record("b.test.", v4(1))];
    assert_eq!(addrs_of(move || with(chain())).unwrap(), [ip(1)]);
    let backwards = move || with(chain()).into_iter().rev().collect();
    assert_eq!(addrs_of(backwards).unwrap(), [ip(1)]);
    // The addresses of an alias, at the beginning or in the middle of a chain, are ignored.
    let own = move || {
        let mut records = vec![record("host.test.", v4(6)), record("a.test.", v4(6))];
        records.extend(chain());
        records
    };
    assert_eq!(addrs_of(own).unwrap(), [ip(1)]);
    // Records of another type than the queried one are ignored.
    let other_kind =
        || vec![record("host.test.", RData::TXT(TXT::new(vec!["text".into()]))), record("other.test.", v4(6))];
    assert!(error(&addrs_of(other_kind).unwrap_err()).is_not_found());
}

#[test]
fn records_of_other_owners_are_ignored() {
    let server = Server::new(|_, kind| {
        let data = |last: &str| match kind {
            RecordType::MX => RData::MX(MX::new(1, name(last))),
            RecordType::NS => RData::NS(NS(name(last))),
            RecordType::SRV => RData::SRV(SRV::new(1, 1, 1, name(last))),
            RecordType::PTR => RData::PTR(PTR(name(last))),
            _ => RData::TXT(TXT::new(vec![last.into()])),
        };
        Reply::Records(vec![
            record("other.test.", data("bad.test.")),
            alias("host.test.", "real.test."),
            alias("1.2.0.192.in-addr.arpa.", "real.test."),
            record("real.test.", data("good.test.")),
            record("host.test.", data("bad.test.")),
        ])
    });
    run(async {
        let resolver = server.resolver();
        let mx = resolver.lookup_mx("host.test.").await.unwrap();
        assert_eq!(mx.iter().map(|mx| &mx.host[..]).collect::<Vec<_>>(), ["good.test."]);
        let srv = resolver.lookup_srv("", "", "host.test.").await.unwrap();
        assert_eq!(srv.iter().map(|srv| &srv.target[..]).collect::<Vec<_>>(), ["good.test."]);
        assert_eq!(resolver.lookup_ns("host.test.").await.unwrap(), ["good.test."]);
        assert_eq!(resolver.lookup_txt("host.test.").await.unwrap(), ["good.test."]);
        assert_eq!(resolver.lookup_addr([192, 0, 2, 1].into()).await.unwrap(), ["good.test."]);
    });
}

#[test]
fn alias_loops_and_long_chains_are_errors() {
    let chain = |length: u32| {
        let name = |at| if at == 0 { "host.test.".to_owned() } else { format!("n{at}.test.") };
        let mut records: Vec<_> = (0..length).map(|at| alias(&name(at), &name(at + 1))).collect();
        records.push(record(&name(length), v4(1)));
        records
    };
    assert_eq!(addrs_of(move || chain(16)).unwrap().len(), 1);
    assert!(error(&addrs_of(move || chain(17)).unwrap_err()).is_temporary());
    assert!(error(&addrs_of(move || chain(1000)).unwrap_err()).is_temporary());
    let circle = || vec![alias("host.test.", "a.test."), alias("a.test.", "host.test."), record("host.test.", v4(6))];
    assert!(error(&addrs_of(circle).unwrap_err()).is_temporary());
    // The aliases may also be in several replies, each with one alias.
    let server = Server::new(|asked, _| {
        let next = match asked.strip_suffix(".test.").and_then(|first| first.strip_prefix('n')).map(str::parse::<u32>) {
            Some(Ok(number)) => format!("n{}.test.", number + 1),
            _ if asked == "a.test." => "b.test.".to_owned(),
            _ => "a.test.".to_owned(),
        };
        Reply::Records(vec![alias(asked, &next)])
    });
    run(async {
        for first in ["a.test.", "n1.test."] {
            let resolver = server.builder().attempts(0).search(["corp.test"]).build().unwrap();
            server.asked.lock().unwrap().clear();
            let failure = resolver.lookup_txt(first.trim_end_matches('.')).await.unwrap_err();
            assert!(error(&failure).is_temporary(), "{failure}");
            assert!(server.asked().len() <= 17, "{:?}", server.asked());
        }
    });
}

/// The aliases of a reply with records count together with those of the replies before it.
#[test]
fn aliases_of_all_replies_are_counted() {
    for (first, last, is_found) in [(8, 8, true), (16, 1, false)] {
        let chain = |from: u32, length: u32| {
            let name = |at: u32| if at == 0 { "host.test.".to_owned() } else { format!("n{at}.test.") };
            (from..from + length).map(|at| alias(&name(at), &name(at + 1))).collect::<Vec<_>>()
        };
        let server = Server::new(move |asked, _| {
            Reply::Records(match asked {
                "host.test." => chain(0, first),
                _ => {
                    let mut records = chain(first, last);
                    records.push(record(&format!("n{}.test.", first + last), v4(1)));
                    records
                }
            })
        });
        run(async {
            match server.resolver().lookup_host("host.test.").await {
                Ok(addrs) => assert!(is_found && addrs.len() == 1, "{first} + {last}"),
                Err(failure) => assert!(!is_found && error(&failure).is_temporary(), "{failure}"),
            }
        });
    }
}

#[test]
fn unresolved_alias_is_looked_up() {
    let server = Server::new(|asked, kind| match (asked, kind) {
        ("www.test.", _) => Reply::Records(vec![alias("www.test.", "a.test."), alias("a.test.", "real.test.")]),
        ("real.test.", RecordType::A) => Reply::Answer(vec![v4(1)]),
        ("gone.test.", _) => Reply::Records(vec![alias("gone.test.", "nothing.test.")]),
        ("hidden.test.", _) => Reply::Records(vec![alias("hidden.test.", "x.onion.")]),
        ("own.test.", _) => Reply::Records(vec![alias("own.test.", "localhost.")]),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    run(async {
        let resolver = server.resolver();
        assert_eq!(resolver.lookup_host("www.test.").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(resolver.lookup_cname("www.test.").await.unwrap(), "real.test.");
        for none in ["gone.test.", "hidden.test.", "own.test."] {
            assert!(error(&resolver.lookup_host(none).await.unwrap_err()).is_not_found(), "{none}");
        }
        assert!(server.asked().iter().all(|(asked, _)| asked.ends_with(".test.")), "{:?}", server.asked());
    });
}

#[test]
fn invalid_host_names_are_omitted() {
    let bad = || {
        let label = |label: &[u8]| Name::from_labels([label, b"test"]).unwrap();
        [
            label(b"new\nline"),
            label(b"\x1b[31mred"),
            label(b"<script>"),
            label(b"a b"),
            label(b"a.b"),
            label(b"nul\0"),
            label("m\u{fc}nchen".as_bytes()),
            label(b"*"),
            label(b"-a"),
            Name::from_labels([&b"127"[..], b"0", b"0", b"1"]).unwrap(),
        ]
    };
    let server = Server::new(move |asked, kind| {
        let data = |name: Name| match kind {
            RecordType::MX => RData::MX(MX::new(1, name)),
            RecordType::NS => RData::NS(NS(name)),
            RecordType::SRV => RData::SRV(SRV::new(1, 1, 1, name)),
            _ => RData::PTR(PTR(name)),
        };
        if let Some(number) = asked.strip_prefix("alias").and_then(|rest| rest.strip_suffix(".test.")) {
            let target = bad()[number.parse::<usize>().unwrap()].clone();
            let alias = Record::from_rdata(name(asked), 60, RData::CNAME(CNAME(target.clone())));
            return Reply::Records(vec![alias, Record::from_rdata(target, 60, v4(1))]);
        }
        let mut all: Vec<_> = bad().into_iter().map(data).collect();
        if asked.starts_with("good") || asked.starts_with("1.") {
            all.push(data(Name::from_ascii("xn--mnchen-3ya.Test.").unwrap()));
        }
        if asked == "none.test." {
            all = vec![data(Name::root())];
        }
        Reply::Answer(all)
    });
    run(async {
        let resolver = server.resolver();
        let good = ["xn--mnchen-3ya.Test."];
        let mx = async |domain| {
            resolver.lookup_mx(domain).await.map(|all| all.into_iter().map(|mx| mx.host).collect::<Vec<_>>())
        };
        let srv = async |domain| {
            let all = resolver.lookup_srv("", "", domain).await;
            all.map(|all| all.into_iter().map(|srv| srv.target).collect::<Vec<_>>())
        };
        assert_eq!(resolver.lookup_addr([192, 0, 2, 1].into()).await.unwrap(), good);
        assert_eq!(resolver.lookup_ns("good.test.").await.unwrap(), good);
        assert_eq!(mx("good.test.").await.unwrap(), good);
        assert_eq!(srv("good.test.").await.unwrap(), good);
        let ip = [192, 0, 2, 2].into();
        let nothing = [
            resolver.lookup_addr(ip).await,
            resolver.lookup_ns("bad.test.").await,
            mx("bad.test.").await,
            srv("bad.test.").await,
            // The root is not a host. In MX and SRV records it means "none".
            resolver.lookup_ns("none.test.").await,
        ];
        for nothing in nothing {
            assert!(error(&nothing.unwrap_err()).is_not_found());
        }
        assert_eq!(
            (mx("none.test.").await.unwrap(), srv("none.test.").await.unwrap()),
            (vec![".".into()], vec![".".into()])
        );
        for number in 0..bad().len() {
            let host = format!("alias{number}.test.");
            assert!(error(&resolver.lookup_cname(&host).await.unwrap_err()).is_not_found(), "{:?}", bad()[number]);
        }
    });
}

/// RFC 7686, RFC 6761, RFC 9476, RFC 6762.
#[test]
fn special_use_names_are_not_sent_to_servers() {
    let server = Server::new(|_, _| Reply::Answer(vec![v4(6)]));
    run(async {
        let resolver = server.builder().search(["corp.test"]).build().unwrap();
        for host in ["x.onion", "X.Onion.", "a.b.onion", "onion", "x.invalid", "x.alt"] {
            let failures = [
                resolver.lookup_host(host).await.unwrap_err(),
                resolver.lookup_cname(host).await.unwrap_err(),
                resolver.lookup_mx(host).await.unwrap_err(),
                resolver.lookup_ns(host).await.unwrap_err(),
                resolver.lookup_txt(host).await.unwrap_err(),
                resolver.lookup_srv("http", "tcp", host).await.unwrap_err(),
            ];
            for failure in failures {
                assert!(error(&failure).is_not_found() && failure.kind() == ErrorKind::NotFound, "{failure}");
            }
            let failure = Dialer::new().resolver(resolver.clone()).dial((host, 1)).await.unwrap_err();
            assert_eq!(failure.to_string(), format!("dial tcp: lookup {host}: no such host"));
        }
        assert!(resolver.lookup_host("x.localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(server.asked().is_empty(), "{:?}", server.asked());
        let missing = Server::new(|_, _| Reply::Code(ResponseCode::NXDomain));
        let resolver = missing.builder().search(["corp.test"]).build().unwrap();
        assert!(resolver.lookup_host("printer.local").await.is_err());
        assert!(missing.asked().iter().all(|(asked, _)| asked == "printer.local."), "{:?}", missing.asked());
    });
}

/// The test uses the hosts file of this machine.
#[test]
fn hosts_file_names_are_not_queried() {
    let server = Server::new(|_, _| Reply::Silence);
    let file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let lines =
        file.lines().filter_map(|line| line.split('#').next()).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let entries: Vec<_> = lines.filter(|words| words.len() > 1 && words[0].parse::<IpAddr>().is_ok()).collect();
    if entries.is_empty() {
        println!("skipped: /etc/hosts has no names");
    }
    run(async {
        let resolver = server.builder().hosts_file(true).build().unwrap();
        for words in &entries {
            let ip: IpAddr = words[0].parse().unwrap();
            for name in &words[1..] {
                assert!(resolver.lookup_host(name).await.unwrap().contains(&ip), "{name}");
            }
            assert!(resolver.lookup_addr(ip).await.unwrap().contains(&format!("{}.", words[1])));
        }
    });
    assert!(server.asked().is_empty());
}

#[test]
fn system_resolver_skips_malformed_lines() {
    let hosts = "127.0.0.1 localhost\nnonsense\n2001:db8::5 override.test\n\u{ff}\n";
    let resolv_conf = "nameserver\nnameserver bad\n;nameserver 192.0.2.1\nsearch -- corp.test a..b\noptions ndots:x attempts:0 bogus\n";
    for resolv_conf in [resolv_conf, "search -- corp.test"] {
        let name = "system_resolver_skips_malformed_lines";
        common::child_on_host(name, &[("/etc/hosts", hosts), ("/etc/resolv.conf", resolv_conf)], || {
            let server = Server::at(53, |asked, kind| match (asked, kind) {
                ("host.corp.test.", RecordType::A) => Reply::Answer(vec![v4(1)]),
                _ => Reply::Code(ResponseCode::NXDomain),
            });
            run(async {
                let resolver = Resolver::system().unwrap();
                let overridden = [IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 5])];
                assert_eq!(resolver.lookup_host("override.test").await.unwrap(), overridden);
                assert!(server.asked().is_empty(), "the name is in hosts");
                assert_eq!(resolver.lookup_host("host").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
                assert!(error(&resolver.lookup_host("missing").await.unwrap_err()).is_not_found());
                let mut asked: Vec<_> = server.asked().into_iter().map(|(asked, _)| asked).collect();
                asked.sort();
                asked.dedup();
                assert_eq!(asked, ["host.corp.test.", "missing.", "missing.corp.test."]);
            });
        });
        if common::is_child(name) {
            return;
        }
    }
}

/// The look-ups are of a literal, of `localhost`, of cached names and of a loopback address, so
/// they complete without waiting. The exceptions are the AAAA queries for `host.test.`, whose empty
/// answers are not cached.
#[test]
fn loop_of_ready_lookups_can_be_cancelled() {
    let server = Server::new(|_, kind| match kind {
        RecordType::TXT => Reply::Answer(vec![RData::TXT(TXT::new(vec!["text".into()]))]),
        RecordType::A => Reply::Answer(vec![v4(1)]),
        _ => Reply::Answer(Vec::new()),
    });
    run(async {
        for (what, number) in
            [("127.0.0.1", 0), ("localhost", 0), ("host.test.", 0), ("host.test.", 1), ("host.test.", 2), ("", 3)]
        {
            let resolver = server.resolver();
            let rounds = Arc::new(AtomicUsize::new(0));
            let counted = rounds.clone();
            let task = task::spawn(async move {
                loop {
                    match number {
                        0 => drop(resolver.lookup_host(what).await),
                        1 => drop(resolver.lookup_txt(what).await),
                        2 => drop(resolver.lookup_cname(what).await),
                        _ => drop(resolver.lookup_addr(Ipv4Addr::LOCALHOST.into()).await),
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            });
            becomes("the loop runs", || rounds.load(Ordering::SeqCst) > 100).await;
            assert!(task.cancel().await.is_none());
        }
    });
}

#[test]
fn zoned_literal_needs_no_server() {
    let server = Server::new(|_, _| Reply::Silence);
    run(async {
        let Ok(listener) = netpoll::net::TcpListener::bind("[::1]:0").await else {
            println!("skipped: IPv6 is not available");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        for stagger in [None, Some(Duration::from_millis(250))] {
            let dialer = Dialer::new().resolver(server.resolver()).timeout(common::BOUND).stagger(stagger);
            for host in ["::1", "::1%lo", "::1%1"] {
                dialer.dial((host, port)).await.unwrap_or_else(|error| panic!("{host}: {error}"));
                dialer.dial(format!("[{host}]:{port}")).await.unwrap_or_else(|error| panic!("{host}: {error}"));
            }
            let failed = dialer.dial(("fe80::1%no-such-if", port)).await.unwrap_err();
            assert_eq!(failed.to_string(), "dial tcp: lookup fe80::1%no-such-if: no such host");
        }
        // The zone is part of the address.
        let addrs = netpoll::net::resolve("[fe80::1%lo]:80").await.unwrap();
        assert!(matches!(addrs[..], [SocketAddr::V6(addr)] if addr.scope_id() != 0 && addr.port() == 80), "{addrs:?}");
    });
    assert!(server.asked().is_empty());
}

#[test]
fn search_list_is_used_and_localhost_is_loopback() {
    let server = Server::new(|asked, kind| match (asked, kind) {
        ("host.corp.test.", RecordType::A) => Reply::Answer(vec![v4(9)]),
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    run(async {
        let resolver = server.builder().search(["corp.test."]).build().unwrap();
        assert_eq!(resolver.lookup_host("host").await.unwrap(), [IpAddr::from([192, 0, 2, 9])]);
        let resolver = server.builder().hosts_file(true).build().unwrap();
        assert!(resolver.lookup_host("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    });
}

/// An address family without an answer does not delay the other family (RFC 8305, section 3).
#[test]
fn dialer_does_not_wait_for_silent_family() {
    let server = Server::new(|asked, kind| match (asked, kind) {
        ("host.test.", RecordType::A) => Reply::Answer(vec![RData::A(Ipv4Addr::LOCALHOST.into())]),
        ("host.test.", _) => Reply::Silence,
        _ => Reply::Code(ResponseCode::NXDomain),
    });
    run(async {
        let listener = common::listener().await;
        let port = listener.local_addr().unwrap().port();
        let resolver = server.builder().timeout(Duration::from_secs(3600)).build().unwrap();
        let dialer = Dialer::new().resolver(resolver).timeout(Duration::from_secs(30));
        let stream = dialer.dial(("host.test.", port)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        let failed = dialer.dial(("missing.test.", port)).await.unwrap_err();
        assert_eq!(failed.to_string(), "dial tcp: lookup missing.test.: no such host");
        let hurried = dialer.stagger(None).timeout(Duration::from_millis(50));
        let failed = hurried.dial(("host.test.", port)).await.unwrap_err();
        assert_eq!(failed.to_string(), "dial tcp: lookup host.test.: i/o timeout");
    });
}

#[test]
fn resolver_is_shared_by_threads_of_another_executor() {
    let server = Server::new(|_, kind| match kind {
        RecordType::A => Reply::Answer(vec![v4(1)]),
        _ => Reply::Answer(Vec::new()),
    });
    let resolver = server.resolver();
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let resolver = resolver.clone();
            thread::spawn(move || common::park_on(async { resolver.lookup_host(&format!("h{number}.test.")).await }))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap().unwrap(), [IpAddr::from([192, 0, 2, 1])]);
    }
    assert!(format!("{resolver:?}").starts_with("Resolver"));
}

#[test]
fn identical_concurrent_queries_are_merged() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let seen = under_way.clone();
    let server = Server::new(move |_, kind| {
        eventually("all look-ups are under way", || seen.load(Ordering::SeqCst) == 20);
        if kind == RecordType::MX {
            Reply::Answer(vec![RData::MX(MX::new(1, name("mx.test.")))])
        } else {
            Reply::Silence
        }
    });
    run(async {
        let resolver = server.builder().timeout(common::BOUND).build().unwrap();
        let lookups: Vec<_> = (0..20)
            .map(|_| {
                let (resolver, under_way) = (resolver.clone(), under_way.clone());
                task::spawn(async move {
                    let mut lookup = Box::pin(resolver.lookup_mx("host.test."));
                    assert!(poll_once(&mut lookup).await.is_pending());
                    under_way.fetch_add(1, Ordering::SeqCst);
                    lookup.await
                })
            })
            .collect();
        for lookup in lookups {
            assert_eq!(lookup.await.unwrap().len(), 1);
        }
        assert_eq!(server.asked().len(), 1);
    });
}
