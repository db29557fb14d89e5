//! An axum application on netpoll. `netpoll-hyper` serves it, and axum's feature `tokio` is
//! disabled.
//!
//! ```text
//! cargo run --release -p netpoll-ecosystem --example axum_hello    # 127.0.0.1:8080
//! cargo run --release -p netpoll-ecosystem --example axum_hello -- 127.0.0.1:9090
//! curl http://127.0.0.1:8080/hello/you
//! curl --http2-prior-knowledge --data 'some text' http://127.0.0.1:8080/shout
//! ```
//!
//! `netpoll_hyper::serve_tower(listener, app)` replaces `axum::serve`. This program uses
//! `Server::serve_tower_until`, which stops on Ctrl-C or SIGTERM. Requests in progress then have
//! ten seconds to finish.

use axum::Router;
use axum::extract::Path;
use axum::extract::State;
use axum::routing::get;
use axum::routing::post;
use netpoll::net::TcpListener;
use netpoll::{io, signal, task};
use netpoll_hyper::Server;
use std::time::Duration;

async fn hello(Path(name): Path<String>) -> String {
    // Handlers can use netpoll's timers.
    task::sleep(Duration::from_millis(1)).await;
    format!("Hello, {name}!\n")
}

async fn shout(State(mark): State<&'static str>, text: String) -> String {
    format!("{}{mark}\n", text.to_uppercase())
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let app = Router::new().route("/hello/{name}", get(hello));
    let app = app.route("/shout", post(shout)).with_state("!");
    task::block_on(async {
        let listener = TcpListener::bind(addr).await?;
        let stop = signal::termination()?;
        println!("listening on {}", listener.local_addr()?);
        Server::new().serve_tower_until(listener, app, stop).await
    })
}
