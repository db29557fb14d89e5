//! Tests of WebSocket by async-tungstenite over netpoll's streams: clients on netpoll's and on
//! smol's sockets, soketto as the client and as the server, examples of RFC 6455, deadlines and
//! closing, and an upgrade by hyper.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, accept_async, client_async};
use common::{listener, pair, read_exact, run};
use futures::StreamExt;
use futures::io::{AsyncRead, AsyncWrite};
use netpoll::net::{is_closed, is_timeout};
use netpoll::task;

/// Echoes messages until the connection ends.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Performs the client's handshake, asserts that the server echoes messages, and closes the
/// connection.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let (mut client, response) = client_async("ws://localhost/chat", stream).await.unwrap();
    assert_eq!(response.status().as_u16(), 101);
    for length in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let message = Message::binary(vec![length as u8; length]);
        client.send(message.clone()).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), message);
    }
    client.send(Message::text("hello")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "hello");
    client.close(None).await.unwrap();
    assert!(client.next().await.unwrap().unwrap().is_close());
    assert!(client.next().await.is_none());
}

#[test]
fn messages_of_all_lengths_are_echoed() {
    run(async {
        let (client, server) = pair().await;
        let server = task::spawn(async move { echo(&mut accept_async(server).await.unwrap()).await });
        talk(client).await;
        server.await.unwrap();
    });
}

/// The client uses a socket of smol in a netpoll task.
#[test]
fn websocket_client_on_smol_sockets_is_served() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let client = task::spawn(async move { talk(smol::net::TcpStream::connect(addr).await.unwrap()).await });
        let (stream, _) = listener.accept().await.unwrap();
        echo(&mut accept_async(stream).await.unwrap()).await.unwrap();
        client.await;
    });
}

/// A client of soketto on a socket of smol communicates with a server of async-tungstenite on a
/// stream of netpoll.
#[test]
fn soketto_client_is_served() {
    run(async {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let client = task::spawn(async move {
            let stream = smol::net::TcpStream::connect(addr).await.unwrap();
            let mut client = soketto::handshake::Client::new(stream, "localhost", "/chat");
            let response = client.handshake().await.unwrap();
            assert!(matches!(response, soketto::handshake::ServerResponse::Accepted { .. }), "{response:?}");
            let (mut sender, mut receiver) = client.into_builder().finish();
            let mut answer = Vec::new();
            for length in [0, 125, 126, 65_536, 300_000] {
                let message = vec![length as u8; length];
                sender.send_binary(&message).await.unwrap();
                sender.flush().await.unwrap();
                answer.clear();
                assert!(receiver.receive_data(&mut answer).await.unwrap().is_binary());
                assert!(answer == message);
            }
            sender.close().await.unwrap();
        });
        let (stream, _) = listener.accept().await.unwrap();
        echo(&mut accept_async(stream).await.unwrap()).await.unwrap();
        client.await;
    });
}

/// A client of async-tungstenite communicates with a server of soketto. Both use streams of
/// netpoll.
#[test]
fn soketto_server_runs_on_netpoll_streams() {
    run(async {
        let (client, stream) = pair().await;
        let server = task::spawn(async move {
            let mut server = soketto::handshake::Server::new(stream);
            let key = server.receive_request().await.unwrap().key();
            let accept = soketto::handshake::server::Response::Accept { key, protocol: None };
            server.send_response(&accept).await.unwrap();
            let (mut sender, mut receiver) = server.into_builder().finish();
            let mut message = Vec::new();
            loop {
                message.clear();
                match receiver.receive_data(&mut message).await {
                    Ok(data) if data.is_text() => {
                        sender.send_text(std::str::from_utf8(&message).unwrap()).await.unwrap();
                    }
                    Ok(_) => sender.send_binary(&message).await.unwrap(),
                    Err(error) => break assert!(matches!(error, soketto::connection::Error::Closed), "{error}"),
                }
                sender.flush().await.unwrap();
            }
        });
        talk(client).await;
        server.await;
    });
}

/// The server responds to the handshake with the key of section 1.3, and to the masked message of
/// section 5.7.
#[test]
fn rfc_6455_examples_are_answered() {
    run(async {
        let (client, server) = pair().await;
        let server = task::spawn(async move { echo(&mut accept_async(server).await.unwrap()).await });
        let request = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            read_exact(&client, &mut byte).await.unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        client.write_all(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]).await.unwrap();
        let mut answer = [0; 7];
        read_exact(&client, &mut answer).await.unwrap();
        assert_eq!(&answer, b"\x81\x05Hello");
        // The server answers a close frame without a status with a close frame.
        client.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut close = [0; 2];
        read_exact(&client, &mut close).await.unwrap();
        assert_eq!(close[0], 0x88);
        server.await.unwrap();
    });
}

#[test]
fn deadlines_and_force_close_apply_through_websocket() {
    run(async {
        // The client never begins the handshake, so the server's handshake ends at the deadline.
        let (_stuck, server) = pair().await;
        server.set_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
        let error = accept_async(server).await.map(drop).unwrap_err();
        assert!(matches!(&error, Error::Io(error) if is_timeout(error)), "{error:?}");

        for close in [false, true] {
            let (client, server) = pair().await;
            let ours = server.clone();
            let server = task::spawn(async move { accept_async(server).await.unwrap() });
            let (_client, _) = client_async("ws://localhost/", client).await.unwrap();
            let mut server = server.await;
            let reader = task::spawn(async move { server.next().await.unwrap().unwrap_err() });
            if close {
                ours.force_close().await.unwrap();
            } else {
                ours.set_read_deadline(Instant::now() + Duration::from_millis(20)).unwrap();
            }
            let is_expected = if close { is_closed } else { is_timeout };
            let error = reader.await;
            assert!(matches!(&error, Error::Io(error) if is_expected(error)), "{error:?}");
        }
    });
}

#[test]
fn upgraded_hyper_connection_is_a_websocket() {
    use async_tungstenite::tungstenite::handshake::server::create_response_with_body;
    use async_tungstenite::tungstenite::protocol::Role;
    use http_body_util::Empty;
    use hyper::body::{Bytes, Incoming};
    use hyper::service::service_fn;
    use netpoll_hyper::Io;

    run(async {
        let listener = std::sync::Arc::new(listener().await);
        let addr = listener.local_addr().unwrap();
        let service = service_fn(|mut request: hyper::Request<Incoming>| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            drop(task::spawn(async move {
                let io = Io::new(upgrade.await.unwrap());
                echo(&mut WebSocketStream::from_raw_socket(io, Role::Server, None).await).await.unwrap();
            }));
            create_response_with_body(&request, Empty::<Bytes>::new)
        });
        let server = task::spawn(netpoll_hyper::serve(std::sync::Arc::clone(&listener), service));
        talk(netpoll::net::TcpStream::connect(addr).await.unwrap()).await;
        listener.close().await.unwrap();
        server.await.unwrap();
    });
}
