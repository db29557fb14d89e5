//! An axum application on netpoll: axum without its `tokio` feature, served by `netpoll::hyper`.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example axum_hello                # 127.0.0.1:8080
//! curl http://127.0.0.1:8080/hello/you
//! curl --http2-prior-knowledge --data 'some text' http://127.0.0.1:8080/shout
//! ```
//!
//! Shows the one line that an axum program changes: `netpoll::hyper::serve_tower` instead of
//! `axum::serve`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use netpoll::net::TcpListener;
use netpoll::{io, task, time};

async fn hello(Path(name): Path<String>) -> String {
    // Sleeps use netpoll's timers.
    task::sleep(time::Duration::from_millis(1)).await;
    format!("Hello, {name}!\n")
}

async fn shout(State(mark): State<&'static str>, text: String) -> String {
    format!("{}{mark}\n", text.to_uppercase())
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let app = Router::new().route("/hello/{name}", get(hello)).route("/shout", post(shout)).with_state("!");
    task::block_on(async {
        let listener = TcpListener::bind(addr).await?;
        println!("listening on {}", listener.local_addr()?);
        netpoll::hyper::serve_tower(listener, app).await
    })
}
