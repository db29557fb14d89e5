//! WebSocket in an axum application, without axum's feature `ws`, which requires tokio's runtime.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example axum_websocket    # 127.0.0.1:7080
//! cargo run --release -p netpoll-ecosystem --example axum_websocket -- 127.0.0.1:8000
//! cargo run --release -p netpoll-ecosystem --example websocket -- 127.0.0.1:7080 hello
//! ```
//!
//! The server sends each message back. The example shows hyper's upgrade in an axum handler, and
//! async-tungstenite on the upgraded connection in a netpoll task. Ctrl-C or SIGTERM stops the
//! server. Upgraded connections end with the process.

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::Role;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::routing::any;
use futures::StreamExt;
use hyper::upgrade::{OnUpgrade, on};
use netpoll::net::TcpListener;
use netpoll::{io, signal, task};
use netpoll_hyper::{Io, Server};

async fn websocket(mut request: Request<Body>) -> Response<Body> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
    let Some(key) = key.filter(|_| asks_for_websocket(request.headers())) else {
        let mut response = Response::new(Body::from("this is for WebSocket\n"));
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    drop(task::spawn(echo(on(&mut request))));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(|value| value.as_bytes());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket")) && version == Some(b"13")
}

async fn echo(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut socket = WebSocketStream::from_raw_socket(Io::new(upgraded), Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7080".to_owned());
    let app = Router::new().route("/", any(websocket));
    task::block_on(async {
        let listener = TcpListener::bind(addr).await?;
        let stop = signal::termination()?;
        println!("listening on {}", listener.local_addr()?);
        Server::new().serve_tower_until(listener, app, stop).await
    })
}
