//! Runs, in simulations, the examples of README.md that need only sockets and time (feature `sim`).
//! The tests include the examples' own source files, and have a copy of the first program of
//! README.md. Most tests draw networks that may lose, delay, duplicate and reorder packets. By
//! default, `ci/sim.sh` runs each test with a thousand seeds, twice, and compares the digests.
//!
//! Other examples also need something else: `quickstart` sets a limit of the process, `health` and
//! `black_box` start the runtime with their own settings, `graceful` waits for a signal,
//! `hot_restart` and `unix_fdpass` start processes, and `inotify` watches files. The `sim_*`
//! examples are simulations themselves. The examples of other packages (`ecosystem`, `hyper`) are
//! not run here.

#[allow(dead_code)]
#[path = "../examples/chat.rs"]
mod chat;
#[allow(dead_code)]
#[path = "../examples/echo.rs"]
mod echo;
#[allow(dead_code)]
#[path = "../examples/echo_deadline.rs"]
mod echo_deadline;
#[allow(dead_code)]
#[path = "../examples/happy_eyeballs.rs"]
mod happy_eyeballs;
#[allow(dead_code)]
#[path = "../examples/port_scan.rs"]
mod port_scan;
#[allow(dead_code)]
#[path = "../examples/proxy.rs"]
mod proxy;
#[allow(dead_code)]
#[path = "../examples/redis_like.rs"]
mod redis_like;
#[allow(dead_code)]
#[path = "../examples/udp_echo.rs"]
mod udp_echo;

use std::collections::BTreeSet;
use std::future::pending;
use std::time::{Duration, Instant};

use netpoll::io::{BufReader, ReadExt};
use netpoll::net::{Dialer, TcpListener, TcpStream, UdpSocket};
use netpoll::prelude::*;
use netpoll::sim::{Sim, mbit, ms};
use netpoll::{future, io, task};

/// Draws the properties of all links and, in half of the runs, adds faults of system calls.
fn random_links(sim: Sim) {
    let pick = |below: u64| sim.random() % below;
    let links = sim.link("*", "*").latency(ms(1 + pick(5))..ms(7 + pick(60)));
    let links = links.loss([0.0, 0.01, 0.05][pick(3) as usize]).duplicate([0.0, 0.05][pick(2) as usize]);
    let links = links.reorder([0.0, 0.1][pick(2) as usize], ms(10));
    if pick(3) == 0 {
        links.bandwidth(mbit(2));
    }
    if pick(2) == 0 {
        sim.faults().short(0.1).interrupted(0.05).spurious(0.05).late_edges(0.05).repeated_edges(0.05);
    }
}

/// Draws a message of up to 20,000 bytes.
fn message(sim: Sim) -> Vec<u8> {
    (0..1 + sim.random() % 20_000).map(|at| at as u8).collect()
}

/// Sends a message, shuts down the sending direction, and returns all bytes received.
async fn exchange(addr: &str, message: &[u8]) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(addr).await?;
    let mut back = Vec::new();
    let writes = async {
        stream.write_all(message).await?;
        stream.close_write()
    };
    let mut reader = &stream;
    let (written, read) = futures::join!(writes, ReadExt::read_to_end(&mut reader, &mut back));
    written.and(read).map(|_| back)
}

/// Sends messages from three clients to the server, and checks the echoes.
async fn check_echo(sim: Sim) {
    let clients: Vec<_> = (0..3)
        .map(|number| {
            let message = message(sim);
            sim.host(&format!("client{number}")).spawn_task(async move {
                assert!(exchange("server:7000", &message).await.unwrap() == message);
            })
        })
        .collect();
    for client in clients {
        client.await;
    }
}

#[netpoll::test(sim, seeds = 20)]
async fn echo_returns_all_bytes(sim: Sim) {
    random_links(sim);
    sim.host("server").spawn(|| echo::serve("0.0.0.0:7000", pending::<()>()));
    check_echo(sim).await;
}

/// A copy of the first program of README.md, with another address.
#[netpoll::test(sim, seeds = 20)]
async fn first_program_of_the_readme_echoes(sim: Sim) {
    random_links(sim);
    sim.host("server").spawn(|| async {
        let listener = TcpListener::bind("0.0.0.0:7000").await?;
        let mut incoming = listener.incoming();
        while let Some(stream) = incoming.next().await {
            let stream = stream?;
            task::spawn(async move { io::copy(&mut &stream, &mut &stream).await });
        }
        io::Result::Ok(())
    });
    check_echo(sim).await;
}

#[netpoll::test(sim, seeds = 20)]
async fn echo_deadline_disconnects_silent_client(sim: Sim) {
    random_links(sim);
    sim.host("server").spawn(|| echo_deadline::serve("0.0.0.0:7000", Duration::from_secs(10), pending::<()>()));
    let spoken = message(sim);
    let silent = sim.host("client").run(async {
        let stream = TcpStream::connect("server:7000").await?;
        stream.write_all(&spoken).await?;
        let begin = Instant::now();
        let mut all = Vec::new();
        ReadExt::read_to_end(&mut &stream, &mut all).await.map(|_| (all, begin.elapsed()))
    });
    let (all, waited) = silent.await.unwrap();
    assert!(all == [&spoken[..], b"too slow, bye\n"].concat());
    assert!(waited >= Duration::from_secs(10) && waited < Duration::from_secs(60), "{waited:?}");
}

#[netpoll::test(sim, seeds = 20)]
async fn udp_echo_answers_from_the_address_asked(sim: Sim) {
    random_links(sim);
    let server = sim.host("server");
    server.spawn(|| udp_echo::serve("0.0.0.0:7000"));
    let addr = server.addrs()[0];
    let client = sim.host("client").run(async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.set_read_timeout(Some(ms(3000)))?;
        let mut arrived = BTreeSet::new();
        for number in 0..40_u8 {
            socket.send_to(&vec![number; 1 + 20 * usize::from(number)], (addr, 7000)).await?;
        }
        let mut buf = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buf).await {
            assert_eq!(from.ip(), addr);
            assert!(buf[..count].iter().all(|&byte| 1 + 20 * usize::from(byte) == count));
            arrived.insert(buf[0]);
        }
        io::Result::Ok(arrived.len())
    });
    let arrived = client.await.unwrap();
    assert!((20..=40).contains(&arrived), "{arrived} of 40 datagrams arrived");
}

#[netpoll::test(sim, seeds = 20)]
async fn chat_lines_are_whole_and_in_order(sim: Sim) {
    random_links(sim);
    sim.host("server").spawn(|| async { chat::serve(TcpListener::bind("0.0.0.0:7000").await?, pending::<()>()).await });
    let listener = sim.host("listener").spawn_task(async {
        let stream = TcpStream::connect("server:7000").await?;
        let mut lines = BufReader::new(stream).lines();
        let mut heard = Vec::new();
        while let Ok(Some(line)) = future::timeout(ms(60_000), lines.next()).await {
            heard.push(line?);
        }
        io::Result::Ok(heard)
    });
    // The listening client connects before the others begin.
    task::sleep(ms(20_000)).await;
    let talkers = ["ann", "bob"].map(|name| {
        sim.host(name).spawn_task(async move {
            let stream = TcpStream::connect("server:7000").await?;
            for number in 0..10 {
                stream.write_all(format!("{name} {number}\n").as_bytes()).await?;
                task::sleep(ms(100)).await;
            }
            // The last line may be lost if unread greetings make the close a reset.
            task::sleep(ms(20_000)).await;
            io::Result::Ok(())
        })
    });
    for talker in talkers {
        talker.await.unwrap();
    }
    let heard = listener.await.unwrap();
    for name in ["ann", "bob"] {
        let number = |line: &String| line.split_once(": ")?.1.strip_prefix(name)?.trim().parse::<usize>().ok();
        let numbers: Vec<_> = heard.iter().filter_map(number).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "{heard:?}");
    }
}

#[netpoll::test(sim, seeds = 20)]
async fn proxy_carries_both_directions_and_half_closes(sim: Sim) {
    random_links(sim);
    sim.host("origin").spawn(|| echo::serve("0.0.0.0:80", pending::<()>()));
    sim.host("server")
        .spawn(|| proxy::run("0.0.0.0:7000", "origin:80".to_owned(), Duration::from_secs(300), pending::<()>()));
    check_echo(sim).await;
}

#[netpoll::test(sim, seeds = 20)]
async fn port_scan_ends_and_times_out_on_a_silent_host(sim: Sim) {
    sim.link("*", "*").latency(ms(1)..ms(20));
    let server = sim.host("server");
    server.spawn(|| async {
        let _open = [TcpListener::bind("0.0.0.0:22").await?, TcpListener::bind("0.0.0.0:80").await?];
        pending::<io::Result<()>>().await
    });
    task::sleep(ms(1)).await;
    let client = sim.host("client");
    client.run(port_scan::scan(server.addrs()[0], (1, 100), 16, ms(500))).await.unwrap();
    let (begin, dark) = (Instant::now(), sim.host("dark"));
    dark.crash();
    client.run(port_scan::scan(dark.addrs()[0], (1, 64), 16, ms(500))).await.unwrap();
    assert_eq!(begin.elapsed(), ms(2000), "64 ports, 16 at a time: four timeouts of 500 ms");
}

#[netpoll::test(sim, seeds = 20)]
async fn happy_eyeballs_bypasses_dead_address(sim: Sim) {
    sim.link("*", "*").latency(ms(1)..ms(20));
    sim.host("dead").crash();
    sim.host("live").spawn(|| echo::serve("0.0.0.0:80", pending::<()>()));
    let addrs = ["dead", "live"].map(|name| (sim.host(name).addrs()[0], 80).into());
    let client = sim.host("client");
    for (stagger, least) in [(Some(ms(250)), 250), (Some(ms(50)), 50), (None, 2000)] {
        let begin = Instant::now();
        client.run(happy_eyeballs::race(&addrs[..], Dialer::new().stagger(stagger))).await.unwrap();
        let took = begin.elapsed();
        assert!(took >= ms(least) && took < ms(least + 100), "{took:?} with a stagger of {stagger:?}");
    }
}

/// Returns a command in the form in which clients of Redis send it.
fn redis_command(words: &[&str]) -> String {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n", words.len()) + &words.collect::<String>()
}

#[netpoll::test(sim, seeds = 20)]
async fn redis_like_answers_pipelined_commands_in_order(sim: Sim) {
    random_links(sim);
    let gather = sim.random().is_multiple_of(2);
    sim.host("server").spawn(move || redis_like::serve("0.0.0.0:7000", gather, pending::<()>()));
    let clients = (0..3).map(|number| {
        let (rounds, key) = (1 + sim.random() % 60, format!("key {number}"));
        sim.host(&format!("client{number}")).spawn_task(async move {
            let (mut commands, mut expected) = (String::new(), String::new());
            for round in 1..=rounds {
                let text = "x".repeat(round as usize * 20);
                commands += &(redis_command(&["INCR", &key]) + &redis_command(&["ECHO", &text]) + "GET nothing\r\n");
                expected += &format!(":{round}\r\n${}\r\n{text}\r\n$-1\r\n", text.len());
            }
            commands += &redis_command(&["QUIT"]);
            expected += "+OK\r\n";
            let answer = exchange("server:7000", commands.as_bytes()).await.unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), expected);
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await;
    }
}
