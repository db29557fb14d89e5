//! Measures the CPU time of sending and receiving datagrams, singly, in batches and with offload.
//!
//! ```text
//! datagrams [--rounds 11] [--bursts 2000] [--cpu N]
//! ```
//!
//! The program sends bursts of 50 datagrams over loopback and receives each burst before it sends
//! the next. `--bursts` sets the number of bursts that are sent in each way per round, at least 8.
//! The process has the scheduling policy SCHED_BATCH, and with `--cpu` it is pinned to a CPU.
//!
//! The program prints a Markdown table with the CPU time of the process per datagram, in
//! nanoseconds, as medians over the rounds, and the speed-up over a loop of `send_to` and
//! `recv_from`. If it fails, it prints the error to standard error and exits with status 1.

use netpoll::net::{Ancillary, RecvBatch, SendBatch, SocketAddr, UdpSocket};
use netpoll_bench::arguments::Arguments;
use netpoll_bench::sys;
use std::io::{self, IoSlice};
use std::process::ExitCode;

/// The number of datagrams per burst.
const BURST: usize = 50;

/// The way in which datagrams are sent and received. The names are printed in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `send_to` and `recv_from`, once per datagram.
    Loop,
    /// `send_many` and `recv_many`, with batches.
    Many,
    /// One send per burst, which the kernel splits (UDP_SEGMENT), and `recv_many` of datagrams that
    /// the kernel has joined (UDP_GRO).
    Offload,
}

/// The cases, each with the number of bytes per datagram and the way. [`Way::Loop`] is the base of
/// the ratios and the first case of each size.
const CASES: [(usize, Way); 6] =
    [(64, Way::Loop), (64, Way::Many), (64, Way::Offload), (1200, Way::Loop), (1200, Way::Many), (1200, Way::Offload)];

/// The CPU time of sending and of receiving a datagram, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    send: u64,
    receive: u64,
}

struct Bench {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    incoming: RecvBatch,
    outgoing: SendBatch,
    buf: Vec<u8>,
}

impl Bench {
    async fn new(way: Way, size: usize) -> io::Result<Bench> {
        let (sender, receiver) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
        receiver.set_gro(way == Way::Offload)?;
        let incoming = if way == Way::Offload { RecvBatch::new(4, 65_535) } else { RecvBatch::new(BURST, size) };
        let to = receiver.local_addr()?;
        Ok(Bench { sender, receiver, to, incoming, outgoing: SendBatch::new(), buf: vec![7; BURST * size] })
    }

    async fn send(&mut self, way: Way, size: usize) -> io::Result<()> {
        match way {
            Way::Loop => {
                for bytes in self.buf.chunks(size) {
                    self.sender.send_to(bytes, self.to).await?;
                }
            }
            Way::Many => {
                for bytes in self.buf.chunks(size) {
                    self.outgoing.push(bytes, self.to);
                }
                while !self.outgoing.is_empty() {
                    self.sender.send_many(&mut self.outgoing).await?;
                }
            }
            Way::Offload => {
                let cut = Ancillary::new().with_segment_size(size as u16);
                self.sender.send_msg(&[IoSlice::new(&self.buf)], self.to, &cut).await?;
            }
        }
        Ok(())
    }

    async fn receive(&mut self, way: Way, size: usize) -> io::Result<()> {
        let mut got = 0;
        while got < BURST {
            if way == Way::Loop {
                self.receiver.recv_from(&mut self.buf[..size]).await?;
                got += 1;
            } else {
                self.receiver.recv_many(&mut self.incoming).await?;
                got += self.incoming.iter().map(|datagram| datagram.segments().count()).sum::<usize>();
            }
        }
        Ok(())
    }

    async fn run(&mut self, way: Way, size: usize, bursts: u64) -> io::Result<Cost> {
        let mut cost = Cost::default();
        let clock = || sys::process_cpu_ns(std::process::id());
        // Reading the clock is a system call. So the sum is measured over all bursts, without
        // readings in between. The cost of sending is measured in an eighth as many further bursts.
        let start = clock()?;
        for _ in 0..bursts {
            self.send(way, size).await?;
            self.receive(way, size).await?;
        }
        let whole = clock()? - start;
        for _ in 0..bursts / 8 {
            let start = clock()?;
            self.send(way, size).await?;
            cost.send += clock()? - start;
            self.receive(way, size).await?;
        }
        let datagrams = bursts * BURST as u64;
        cost.send = cost.send * 8 / datagrams;
        cost.receive = (whole / datagrams).saturating_sub(cost.send);
        Ok(cost)
    }
}

/// Returns the median, or the upper of the two middle values if their number is even.
fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("datagrams: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = Arguments::from_env(&[])?;
    let (rounds, bursts) = (arguments.value("rounds", 11_usize)?.max(1), arguments.value("bursts", 2000_u64)?.max(8));
    let cpu = arguments.optional("cpu")?;
    arguments.finish()?;
    let text = |error: io::Error| error.to_string();
    sys::place(cpu, true).map_err(text)?;
    netpoll::task::block_on(async {
        let mut costs = vec![Vec::new(); CASES.len()];
        for _ in 0..rounds {
            for (&(size, way), costs) in CASES.iter().zip(&mut costs) {
                let mut bench = Bench::new(way, size).await?;
                bench.run(way, size, bursts / 20).await?;
                costs.push(bench.run(way, size, bursts).await?);
            }
        }
        println!(
            "Nanoseconds of CPU time per datagram, as medians over {rounds} rounds. `loop` calls send_to and \
             recv_from for each datagram. `many` sends and receives batches. `offload` leaves the segmentation to \
             the kernel (UDP_SEGMENT and UDP_GRO).\n"
        );
        println!("| bytes | way | send | receive | sum | speed-up over the loop |\n|---:|---|---:|---:|---:|---:|");
        let mut base = 1;
        for (&(size, way), costs) in CASES.iter().zip(&costs) {
            let part = |of: fn(&Cost) -> u64| median(costs.iter().map(of).collect());
            let sum = part(|cost| cost.send + cost.receive);
            if way == Way::Loop {
                base = sum;
            }
            let (send, receive) = (part(|cost| cost.send), part(|cost| cost.receive));
            let times = base as f64 / sum.max(1) as f64;
            let way = format!("{way:?}").to_lowercase();
            println!("| {size} | {way} | {send} | {receive} | {sum} | {times:.2} |");
        }
        Ok(())
    })
    .map_err(text)
}
