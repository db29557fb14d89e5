//! Streams and listeners.

use std::time::{Duration, Instant};

use netpoll::net::{TcpListener, TcpStream, is_closed, is_timeout};
use netpoll::task;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

#[test]
fn ping_pong() {
    task::block_on(async {
        let (client, server) = pair().await;
        let echo = task::spawn(async move {
            let mut buf = [0; 512];
            loop {
                let n = server.read(&mut buf).await.unwrap();
                if n == 0 {
                    return;
                }
                server.write_all(&buf[..n]).await.unwrap();
            }
        });
        let mut buf = [0; 512];
        for round in 0..10_000_u32 {
            let message = [round as u8; 64];
            client.write_all(&message).await.unwrap();
            let mut got = 0;
            while got < 64 {
                got += client.read(&mut buf[got..64]).await.unwrap();
            }
            assert_eq!(buf[..64], message);
        }
        client.close_write().unwrap();
        echo.await;
    });
}

#[test]
fn many_connections() {
    task::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            for _ in 0..200 {
                let (stream, _) = listener.accept().await.unwrap();
                drop(task::spawn(async move {
                    let mut buf = [0; 512];
                    while let Ok(n @ 1..) = stream.read(&mut buf).await {
                        stream.write_all(&buf[..n]).await.unwrap();
                    }
                }));
            }
        });
        let clients: Vec<_> = (0..200)
            .map(|id: u32| {
                task::spawn(async move {
                    let stream = TcpStream::connect(addr).await.unwrap();
                    for round in 0..50_u32 {
                        let message = [(id + round) as u8; 100];
                        stream.write_all(&message).await.unwrap();
                        let mut buf = [0; 100];
                        let mut got = 0;
                        while got < 100 {
                            got += stream.read(&mut buf[got..]).await.unwrap();
                        }
                        assert_eq!(buf, message);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
        server.await;
    });
}

#[test]
fn deadlines() {
    task::block_on(async {
        let (client, _server) = pair().await;
        let mut buf = [0; 1];
        let start = Instant::now();
        client.set_read_deadline(start + Duration::from_millis(30)).unwrap();
        let error = client.read(&mut buf).await.unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert!(start.elapsed() >= Duration::from_millis(30));
        client.set_read_deadline(None).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert!(is_timeout(&client.read(&mut buf).await.unwrap_err()));
    });
}

#[test]
fn close_wakes() {
    task::block_on(async {
        let (client, _server) = pair().await;
        let reader = task::spawn({
            let client = client.clone();
            async move { client.read(&mut [0; 1]).await }
        });
        task::sleep(Duration::from_millis(5)).await;
        client.force_close().await.unwrap();
        assert!(is_closed(&reader.await.unwrap_err()));
    });
}
