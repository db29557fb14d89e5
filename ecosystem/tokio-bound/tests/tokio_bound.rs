//! Tests of crates that depend on tokio's runtime, in programs on netpoll: axum's `ConnectInfo` and
//! `WebSocketUpgrade`, tower-http's `TimeoutLayer`, and reqwest.
//!
//! `async_compat::Compat` wraps a future, and enters a tokio runtime during each poll of the
//! future. The sockets that the server accepts are netpoll's sockets.

#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "../../../hyper/tests/serving/mod.rs"]
mod serving;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_compat::Compat;
use async_tungstenite::client_async;
use async_tungstenite::tungstenite::Message as ClientMessage;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get};
use common::run;
use futures::StreamExt;
use netpoll::net::TcpStream;
use netpoll::{future, task};
use netpoll_hyper::Server;
use serving::{assert_peers_are_known, get_body, receive, send, start};
use tower::util::MapFutureLayer;
use tower_http::timeout::TimeoutLayer;

#[test]
fn axum_connect_info_is_the_peer_of_the_connection() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let whoami = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
        let app = Router::new().route("/", get(whoami)).into_make_service_with_connect_info::<SocketAddr>();
        Server::new().serve_make_tower(listener, app, assert_peers_are_known(addr)).await.unwrap();
    });
}

/// axum spawns the task of a WebSocket on the runtime that [`Compat`] has entered.
#[test]
fn axum_websocket_echoes_within_compat() {
    async fn echo(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    }
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let app = Router::new().route("/", any(echo)).layer(MapFutureLayer::new(Compat::new));
        let stop = async {
            let stream = TcpStream::connect(addr).await.unwrap();
            let (mut client, _) = client_async(format!("ws://{addr}/"), stream).await.unwrap();
            for text in ["one", "two"] {
                client.send(ClientMessage::text(text)).await.unwrap();
                let answer = client.next().await.unwrap().unwrap();
                assert_eq!(answer.to_text().unwrap(), text);
            }
            client.close(None).await.unwrap();
            // The server answers the close frame, and then the stream ends.
            while let Some(Ok(message)) = client.next().await {
                assert!(message.is_close(), "{message}");
            }
        };
        Server::new().serve_tower_until(listener, app, stop).await.unwrap();
    });
}

#[test]
fn tower_http_timeout_answers_within_compat() {
    run(async {
        let listener = common::listener().await;
        let addr = listener.local_addr().unwrap();
        let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(20));
        let app = Router::new()
            .route("/slow", get(async || std::future::pending::<()>().await))
            .route("/quick", get(async || "quick"))
            .layer(timeout)
            // The layer with `Compat` is added last, so that it wraps the timeout.
            .layer(MapFutureLayer::new(Compat::new));
        let stop = async {
            let stream = TcpStream::connect(addr).await.unwrap();
            send(&stream, "/slow").await;
            let head = receive(&stream).await.unwrap().0;
            assert!(head.starts_with("HTTP/1.1 504"), "{head}");
            assert_eq!(get_body(&stream, "/quick").await, b"quick");
        };
        Server::new().serve_tower_until(listener, app, stop).await.unwrap();
    });
}

#[test]
fn reqwest_runs_within_compat() {
    run(async {
        let server = start(&mut Server::new()).await;
        let addr = server.addr;
        // The request runs in a task of netpoll.
        let answered = task::spawn(Compat::new(async move {
            let response = reqwest::Client::new().get(format!("http://{addr}/hello")).send().await?;
            let status = response.status().as_u16();
            Ok::<_, reqwest::Error>((status, response.text().await?))
        }));
        assert_eq!(answered.await.unwrap(), (200, "hello".to_owned()));

        // The timeout of the reqwest client is a timer of tokio. The timeout around the second
        // request is a timer of netpoll.
        let late = Compat::new(async move {
            let client = reqwest::Client::builder().timeout(Duration::from_millis(20)).build()?;
            client.get(format!("http://{addr}/wait")).send().await
        });
        assert!(late.await.unwrap_err().is_timeout());
        let late = Compat::new(async move { reqwest::get(format!("http://{addr}/wait")).await });
        assert!(future::timeout(Duration::from_millis(20), late).await.is_err());
        server.seen.released.store(usize::MAX, Ordering::SeqCst);
        server.stop().await.unwrap();
    });
}
