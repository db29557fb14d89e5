//! Measures the speed of simulations in CPU time of this process. The simulations are a day with a
//! heartbeat every 10 s, a day with a heartbeat every second, a transfer over TCP, UDP datagrams,
//! and empty simulations.
//!
//! ```text
//! cargo run --release --features sim --example sim_speed
//! ```

use std::time::Duration;

use netpoll::net::{TcpListener, TcpStream, UdpSocket};
use netpoll::sim::{Builder, Sim, ms};
use netpoll::{io, task};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Echoes single bytes and discards larger blocks.
async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        task::spawn(async move {
            let mut buf = [0; 64 << 10];
            loop {
                match stream.read(&mut buf).await? {
                    0 => return io::Result::Ok(()),
                    1 => stream.write_all(&buf[..1]).await?,
                    _ => {}
                }
            }
        });
    }
}

async fn heartbeats(sim: Sim, every: Duration) {
    sim.host("server").spawn(serve);
    sim.link("*", "*").latency(ms(5)..ms(40));
    let beats = sim.host("client").run(async {
        let stream = TcpStream::connect("server:7").await?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        while sim.elapsed() < DAY {
            stream.write_all(b"x").await?;
            stream.read(&mut [0; 1]).await?;
            task::sleep(every).await;
        }
        io::Result::Ok(())
    });
    beats.await.expect("a heartbeat is answered");
}

async fn bulk(sim: Sim) {
    sim.host("server").spawn(serve);
    let sent = sim.host("client").run(async {
        let stream = TcpStream::connect("server:7").await?;
        let block = vec![0; 64 << 10];
        for _ in 0..2048 {
            stream.write_all(&block).await?;
        }
        io::Result::Ok(())
    });
    sent.await.expect("the server reads all");
}

async fn datagrams(sim: Sim) {
    let server = sim.host("server").run(UdpSocket::bind("0.0.0.0:53")).await.expect("a free port");
    sim.host("client").spawn(|| async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        loop {
            for _ in 0..20 {
                socket.send_to(&[0; 100], "server:53").await?;
            }
            task::sleep(ms(1)).await;
        }
        #[allow(unreachable_code)]
        io::Result::Ok(())
    });
    for _ in 0..200_000 {
        server.recv_from(&mut [0; 200]).await.expect("a datagram");
    }
}

/// Returns the CPU time of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn measure<Fut: Future<Output = ()>>(what: &str, test: impl FnOnce(Sim) -> Fut + Send + 'static) {
    let begin = cpu();
    let run = Builder::new().seed(1).run(test);
    let took = cpu() - begin;
    let packets = run.counters.packets_sent;
    let rate = packets as f64 / took.as_secs_f64();
    println!("{what}: {took:.2?} for {:.0?}, {packets} packets, {rate:.0} per second", run.elapsed);
}

fn main() {
    measure("a day with a heartbeat every 10 s", |sim| heartbeats(sim, Duration::from_secs(10)));
    measure("a day with a heartbeat every second", |sim| heartbeats(sim, Duration::from_secs(1)));
    measure("128 MiB over TCP", bulk);
    measure("200,000 datagrams", datagrams);
    let begin = cpu();
    (0..1000).for_each(|seed| Sim::run(seed, async |_| ()));
    println!("an empty simulation: {:.0?}", (cpu() - begin) / 1000);
}
