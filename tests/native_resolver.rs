//! The resolver of feature `hickory`, asking a DNS server of the test's own: answers, failures, forgeries, giving up.
#![cfg(feature = "hickory")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{becomes, eventually, poll_once, run};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, MX, NS, PTR, SRV, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use netpoll::net::{Dialer, LookupError, Resolver, ResolverBuilder, is_timeout};
use netpoll::{rt, task};

/// What the server does about a question.
enum Reply {
    Answer(Vec<RData>),
    /// Records with names of their own.
    Records(Vec<Record>),
    Code(ResponseCode),
    /// Says over UDP that it does not fit.
    TooLong(Vec<RData>),
    /// Replies with the wrong number and to the wrong question first, then this.
    Forged(Vec<RData>),
    Silence,
}

/// A DNS server of 127.0.0.1, until it is dropped.
struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    fn new(reply: impl Fn(&str, RecordType) -> Reply + Send + Sync + 'static) -> Server {
        // The same port for both protocols.
        let (udp, tcp) = std::iter::repeat_with(|| {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
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

/// The datagrams that answer `question`.
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

fn error(error: &std::io::Error) -> &LookupError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap_or_else(|| panic!("no LookupError: {error:?}"))
}

#[test]
fn records_of_every_kind_without_a_thread() {
    common::child("records_of_every_kind_without_a_thread", || {
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
            assert_eq!(targets, [("big.test.", 8080), ("small.test.", 80), ("backup.test.", 80)]);
            assert_eq!(resolver.lookup_srv("", "", "_http._tcp.host.test.").await.unwrap(), srv);
            assert_eq!(resolver.lookup_addr(ips[0]).await.unwrap(), ["host.test."]);
            assert!(error(&resolver.lookup_addr(ips[1]).await.unwrap_err()).is_not_found());
            // What is known is not asked for again, until it is to be forgotten.
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
fn aliases_end_somewhere() {
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
fn failures_say_what_they_are() {
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

/// Go: TestIgnoreDNSForgeries, and a reply that does not fit.
#[test]
fn forged_replies_are_ignored_and_long_ones_come_over_tcp() {
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
fn a_look_up_that_is_given_up_leaves_nothing() {
    common::child("a_look_up_that_is_given_up_leaves_nothing", || {
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

/// Go: TestRetryTimeout.
#[test]
fn another_server_answers_for_one_that_does_not() {
    let silent = Server::new(|_, _| Reply::Silence);
    let good = Server::new(|_, _| Reply::Answer(vec![v4(1)]));
    // Nobody's port: the kernel says so.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    run(async {
        for bad in [silent.addr, closed] {
            let resolver = Resolver::builder([bad, good.addr]).hosts_file(false).build().unwrap();
            assert!(!resolver.lookup_host("host.test.").await.unwrap().is_empty());
        }
    });
}

#[test]
fn names_go_through_the_search_list_and_the_hosts_file() {
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

/// RFC 8305, section 3: the family that is not answered keeps nobody waiting.
#[test]
fn a_dialer_asks_it_and_waits_for_no_silent_family() {
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
fn it_is_shared_and_works_under_any_executor() {
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
fn identical_questions_under_way_are_asked_once() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let seen = under_way.clone();
    let server = Server::new(move |_, kind| {
        eventually("all of them are under way", || seen.load(Ordering::SeqCst) == 20);
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
