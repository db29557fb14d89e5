//! A program that hangs because the server keeps every third request and never answers it.

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use netpoll::task;
use netpoll_hangs::named;

fn main() {
    netpoll_hangs::end_after_bound();
    let (requests, mut inbox) = mpsc::unbounded::<oneshot::Sender<u32>>();
    let server = named("server", async move {
        let (mut count, mut kept) = (0, Vec::new());
        while let Some(reply) = inbox.next().await {
            count += 1;
            if count % 3 == 0 {
                kept.push(reply);
            } else {
                let _ = reply.send(count);
            }
        }
    });
    let client = named("client", async move {
        loop {
            let (reply, answer) = oneshot::channel();
            requests.unbounded_send(reply).expect("the server runs");
            let _ = answer.await;
        }
    });
    task::block_on(async {
        client.await;
        server.await;
    });
}
