//! Tests of tokio's I/O traits on netpoll's streams, without tokio's runtime: tokio's extension
//! traits and `copy`, uninitialised buffers, vectored writes, deadlines and closing, and h2.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::future::poll_fn;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{pair, run};
use netpoll::net::{is_closed, is_timeout};
use netpoll::task;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};

#[test]
fn tokio_io_helpers_work_on_streams_and_references() {
    run(async {
        let (mut client, server) = pair().await;
        let echo = task::spawn(async move { tokio::io::copy(&mut &server, &mut &server).await });
        AsyncWriteExt::write_all(&mut client, b"one\ntwo\n").await.unwrap();
        let mut lines = BufReader::new(&client).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "one");
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "two");
        AsyncWriteExt::shutdown(&mut client).await.unwrap();
        let mut rest = Vec::new();
        AsyncReadExt::read_to_end(&mut client, &mut rest).await.unwrap();
        assert!(rest.is_empty());
        assert_eq!(echo.await.unwrap(), 8);
        // A second shutdown, after the peer has closed the connection, is not an error.
        AsyncWriteExt::shutdown(&mut &client).await.unwrap();
    });
}

#[test]
fn read_initialises_only_the_bytes_that_it_fills() {
    run(async {
        let (client, mut server) = pair().await;
        client.write_all(b"abc").await.unwrap();
        let mut memory = [MaybeUninit::new(0xAA); 64];
        let mut buf = ReadBuf::uninit(&mut memory);
        buf.put_slice(b"..");
        poll_fn(|cx| AsyncRead::poll_read(Pin::new(&mut server), cx, &mut buf)).await.unwrap();
        assert_eq!((buf.filled(), buf.initialized().len()), (&b"..abc"[..], 5));
        // SAFETY: the whole array was initialised above.
        assert!(memory[5..].iter().all(|byte| unsafe { byte.assume_init() } == 0xAA));
    });
}

#[test]
fn writes_are_vectored() {
    run(async {
        let (mut client, server) = pair().await;
        assert!(AsyncWrite::is_write_vectored(&client) && AsyncWrite::is_write_vectored(&&client));
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        let count = poll_fn(|cx| AsyncWrite::poll_write_vectored(Pin::new(&mut client), cx, &slices)).await;
        assert_eq!(count.unwrap(), 5);
        let mut buf = [0; 8];
        assert_eq!(server.read(&mut buf).await.unwrap(), 5);
        assert_eq!(&buf[..5], b"abcde");
    });
}

#[test]
fn deadlines_and_force_close_apply_through_tokio_traits() {
    run(async {
        let (client, _server) = pair().await;
        client.set_read_deadline(Instant::now() + Duration::from_millis(5)).unwrap();
        assert!(is_timeout(&AsyncReadExt::read_u8(&mut &client).await.unwrap_err()));
        client.set_read_deadline(None).unwrap();
        let reader = task::spawn({
            let mut client = client.clone();
            async move { AsyncReadExt::read_u8(&mut client).await }
        });
        client.force_close().await.unwrap();
        assert!(is_closed(&reader.await.unwrap_err()));
    });
}

#[test]
fn h2_runs_on_netpoll_streams_and_tasks() {
    run(async {
        let (client, server) = pair().await;
        let server = task::spawn(async move {
            let mut connection = h2::server::handshake(server).await.unwrap();
            let mut count = 0;
            while let Some(request) = connection.accept().await {
                let (request, mut respond) = request.unwrap();
                drop(task::spawn(async move {
                    let mut body = request.into_body();
                    let mut length = 0;
                    while let Some(data) = body.data().await {
                        length += data.as_ref().unwrap().len();
                        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
                    }
                    let mut stream = respond.send_response(Default::default(), false).unwrap();
                    stream.send_data(Bytes::from(length.to_string()), true).unwrap();
                }));
                count += 1;
            }
            count
        });
        let (sender, connection) = h2::client::handshake(client).await.unwrap();
        let connection = task::spawn(connection);
        let tasks: Vec<_> = (0..20_usize)
            .map(|n| {
                let sender = sender.clone();
                task::spawn(async move {
                    let request = hyper::Request::post("http://h/").body(()).unwrap();
                    let (response, mut body) = sender.ready().await.unwrap().send_request(request, false).unwrap();
                    body.send_data(Bytes::from(vec![7; n * 1000]), true).unwrap();
                    let mut answer = response.await.unwrap().into_body();
                    assert_eq!(answer.data().await.unwrap().unwrap(), (n * 1000).to_string());
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        drop(sender);
        connection.await.unwrap();
        assert_eq!(server.await, 20);
    });
}
