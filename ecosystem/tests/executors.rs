//! Tests of netpoll's sockets and timers under the executors of tokio and smol, and of tokio's and
//! smol's sockets and timers in netpoll's tasks.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/executors.rs"]
mod executors;

use std::time::Duration;

use common::{Watchdog, echo, listener, pair};
use executors::everything;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use netpoll::task;

#[test]
fn sockets_work_under_tokio() {
    let _watchdog = Watchdog::new();
    let current = tokio::runtime::Builder::new_current_thread().build().unwrap();
    current.block_on(everything());
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    many.block_on(async {
        let tasks: Vec<_> = (0..10).map(|_| tokio::spawn(everything())).collect();
        for task in tasks {
            task.await.unwrap();
        }
        // A timeout of tokio ends an operation of netpoll.
        let (client, _server) = pair().await;
        let late = tokio::time::timeout(Duration::from_millis(5), client.read(&mut [0; 1])).await;
        assert!(late.is_err());
    });
}

#[test]
fn sockets_work_under_smol() {
    let _watchdog = Watchdog::new();
    smol::block_on(everything());
    let executor = smol::Executor::new();
    let tasks: Vec<_> = (0..10).map(|_| executor.spawn(everything())).collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
    }));
}

#[test]
fn smol_block_on_nests_in_netpoll_block_on() {
    let _watchdog = Watchdog::new();
    task::block_on(async { smol::block_on(everything()) });
}

#[test]
fn lookup_works_under_smol() {
    assert!(!smol::block_on(netpoll::net::resolve("localhost:1")).unwrap().is_empty());
}

/// Sockets and timers of tokio and smol work in netpoll's tasks, and the sockets can communicate
/// with netpoll's sockets. tokio's sockets and timers must be created inside tokio's runtime, but
/// can be used outside of it. A thread of async-io polls for smol's sockets and timers.
#[test]
fn tokio_and_smol_sockets_work_in_netpoll_tasks() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let _watchdog = Watchdog::new();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    task::block_on(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let handle = tokio.handle().clone();
        let theirs = task::spawn(async move {
            let std = std::net::TcpStream::connect(addr).unwrap();
            std.set_nonblocking(true).unwrap();
            let mut stream = {
                let _guard = handle.enter();
                tokio::net::TcpStream::from_std(std).unwrap()
            };
            for n in 0..100_u8 {
                stream.write_all(&[n; 100]).await.unwrap();
                let mut back = [0; 100];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(back, [n; 100]);
            }
            let sleep = {
                let _guard = handle.enter();
                tokio::time::sleep(Duration::from_millis(2))
            };
            sleep.await;
        });
        let (stream, _) = listener.accept().await.unwrap();
        echo(&stream).await.unwrap();
        theirs.await;
        // The handle of a tokio task can be awaited in a netpoll task.
        assert_eq!(tokio.spawn(async { 1 }).await.unwrap(), 1);

        let theirs = task::spawn(async move {
            let mut stream = smol::net::TcpStream::connect(addr).await.unwrap();
            for n in 0..100_u8 {
                AsyncWriteExt::write_all(&mut stream, &[n; 100]).await.unwrap();
                let mut back = [0; 100];
                AsyncReadExt::read_exact(&mut stream, &mut back).await.unwrap();
                assert_eq!(back, [n; 100]);
            }
            smol::Timer::after(Duration::from_millis(2)).await;
        });
        let (stream, _) = listener.accept().await.unwrap();
        echo(&stream).await.unwrap();
        theirs.await;
        assert_eq!(smol::spawn(async { 2 }).await, 2);
    });
}
