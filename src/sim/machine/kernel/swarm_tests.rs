//! Tests of connections in the simulated kernel, with random actions that depend on a seed.
//! `NETPOLL_SWARM=n` sets the number of seeds (default 60).

use super::Kernel;
use super::link::Latency;
use super::random::Random;
use super::tests::{MS, SECOND, connect, listen, run_for, run_until, send, step};

/// One end of a connection, with the data that it sends and the data that it has received.
struct End {
    fd: i32,
    data: Vec<u8>,
    sent: usize,
    is_shut: bool,
    got: Vec<u8>,
    has_ended: bool,
}

impl End {
    fn new(fd: i32, random: &mut Random) -> End {
        let mut data = vec![0; random.below(200_000) as usize];
        random.fill(&mut data);
        End { fd, data, sent: 0, is_shut: false, got: Vec::new(), has_ended: false }
    }

    fn act(&mut self, kernel: &mut Kernel, random: &mut Random) {
        if self.sent < self.data.len() {
            let most = 1 + random.below(40_000) as usize;
            let part = &self.data[self.sent..][..most.min(self.data.len() - self.sent)];
            match send(kernel, self.fd, part) {
                Ok(count) => self.sent += count,
                Err(errno) => assert!([libc::EAGAIN, libc::EINTR].contains(&errno), "send: {errno}"),
            }
        } else if !self.is_shut {
            kernel.shutdown(self.fd, false, true).unwrap();
            self.is_shut = true;
        }
        let mut buf = vec![0; 1 + random.below(60_000) as usize];
        match kernel.receive(self.fd, &mut [&mut buf], false) {
            Ok(received) if received.bytes == 0 => self.has_ended = true,
            Ok(received) => self.got.extend_from_slice(&buf[..received.bytes]),
            Err(errno) => assert!([libc::EAGAIN, libc::EINTR].contains(&errno), "receive: {errno}"),
        }
    }

    fn is_done(&self) -> bool {
        self.is_shut && self.has_ended
    }
}

/// Lets two ends send random amounts of data over a link, which may be lossy, and close. All bytes
/// must arrive, both ends must read the end of the stream, and no socket or event may remain after
/// the close, unless the handshake fails. Returns the digest of the run.
fn swarm(seed: u64) -> u64 {
    let mut kernel = Kernel::new(seed);
    let mut random = Random::new(seed, 77);
    let link = &mut kernel.default_link;
    link.latency = Latency::Uniform(10_000..=1 + random.below(50 * MS) + 10_000);
    link.duplicate = [0.0, 0.1][random.below(2) as usize];
    link.reorder = [0.0, 0.1, 0.5][random.below(3) as usize];
    link.loss = [0.0, 0.01, 0.1, 0.2][random.below(4) as usize];
    link.bandwidth = [0, 1_000_000, 100_000_000][random.below(3) as usize];
    link.queue = 8_000 + random.below(100_000);
    link.mtu = [576, 1500, 9000][random.below(3) as usize];
    kernel.add_host("a");
    kernel.add_host("b");
    if random.below(3) == 0 {
        (kernel.faults.short, kernel.faults.again, kernel.faults.interrupted) = (0.2, 0.1, 0.05);
    }
    let listener = listen(&mut kernel, 8);
    let client = connect(&mut kernel);
    let server = loop {
        step();
        match kernel.accept(listener, true) {
            Ok((server, _)) => break server,
            Err(errno) if errno == libc::EINTR => continue,
            Err(errno) => assert_eq!(errno, libc::EAGAIN),
        }
        // If the link loses packets, the handshake may fail at the client or at the server.
        let next = kernel.next_event();
        if next.is_none() || kernel.take_error(client).is_ok_and(|error| error.is_some()) {
            assert!(kernel.default_link.loss > 0.0, "seed {seed}: no connection");
            return kernel.log.digest();
        }
        run_until(&mut kernel, next.unwrap_or_default());
    };
    run_for(&mut kernel, 120 * SECOND);
    let small = [4096, 1 << 17][random.below(2) as usize];
    for fd in [client, server] {
        let value = i32::to_ne_bytes(small);
        kernel.set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &value).unwrap();
        kernel
            .set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &i32::to_ne_bytes(i32::from(random.below(2) == 0)))
            .unwrap();
    }
    let mut ends = [End::new(client, &mut random), End::new(server, &mut random)];
    while !ends.iter().all(End::is_done) {
        for end in &mut ends {
            if random.below(3) > 0 {
                end.act(&mut kernel, &mut random);
            }
        }
        match kernel.next_event() {
            Some(next) => {
                let until = next.max(kernel.now + random.below(MS));
                run_until(&mut kernel, until);
            }
            None => run_for(&mut kernel, MS),
        }
        assert!(kernel.now < 100_000 * SECOND, "seed {seed} does not end");
    }
    let [one, other] = &ends;
    assert!(one.got == other.data && other.got == one.data, "seed {seed}: wrong bytes");
    for end in &ends {
        kernel.close(end.fd).unwrap();
    }
    kernel.close(listener).unwrap();
    run_for(&mut kernel, 2000 * SECOND);
    assert!(
        kernel.connections.is_empty() && kernel.ports.is_empty() && kernel.next_event().is_none(),
        "seed {seed}: sockets or events remain after the close"
    );
    kernel.log.digest()
}

#[test]
fn swarm_of_connections_delivers_all_bytes_and_ends() {
    let seeds = std::env::var("NETPOLL_SWARM").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        swarm(seed);
    }
}

#[test]
fn same_seed_gives_the_same_digest() {
    for seed in 0..5 {
        assert_eq!(swarm(seed), swarm(seed));
    }
    assert_ne!(swarm(1), swarm(2));
}
