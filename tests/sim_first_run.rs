//! The first simulation of a process behaves like its later ones (feature `sim`). A run that
//! `NETPOLL_SEED` repeats is the first of its process. This binary has only one test, so that
//! nothing runs before it.

use std::collections::HashMap;
use std::io;

use netpoll::net::{Dialer, ListenConfig, TcpListener, TcpStream, UdpSocket, serve};
use netpoll::sim::{Sim, ms};
use netpoll::task::{self, TaskSet};

/// Accepts connections on a listener with a limit.
async fn limited() -> io::Result<()> {
    let listener = ListenConfig::new().max_connections(4).listen("0.0.0.0:8").await?;
    loop {
        listener.accept().await?;
    }
}

/// Uses parts of the crate that keep tables for the whole process. Returns the digest and the order
/// of a `HashMap`, which would reveal a difference.
async fn tour(sim: Sim) -> (u64, Vec<u32>) {
    sim.host("server").spawn(|| async {
        let listener = TcpListener::bind("0.0.0.0:7").await?;
        serve(listener, async |stream: TcpStream| drop(stream.read(&mut [0; 8]).await)).await?;
        io::Result::Ok(())
    });
    sim.host("server").spawn(limited);
    // The server binds its listeners during this sleep.
    task::sleep(ms(1)).await;
    let stream = TcpStream::connect("server:7").await.unwrap();
    stream.write_all(b"x").await.unwrap();
    Dialer::new().timeout(ms(1000)).dial("server:8").await.unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.send_to(b"x", "server:9").await.unwrap();
    netpoll::net::lookup_host("server").await.unwrap();
    task::Builder::new().name("named".to_owned()).spawn(task::sleep(ms(10))).unwrap().await;
    task::spawn_blocking(|| ()).await;
    let mut tasks = TaskSet::new();
    tasks.spawn(task::yield_now());
    while tasks.join_next().await.is_some() {}
    drop(netpoll::rt::inspect().to_json());
    let map: HashMap<u32, ()> = (0..1000).map(|number| (number, ())).collect();
    (sim.digest(), map.into_keys().collect())
}

#[test]
fn first_run_of_a_process_is_like_its_later_ones() {
    let first = Sim::run(5, tour);
    for _ in 0..3 {
        let again = Sim::run(5, tour);
        assert_eq!(first.0, again.0, "the digests");
        assert!(first.1 == again.1, "the order of a map");
    }
    assert!(Sim::run(6, tour).1 != first.1, "another seed, another order");
}
