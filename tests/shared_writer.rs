//! A write and a `write_all` on clones of one stream wait for the same buffer space. The edge wakes
//! the write, which cannot use the space while the `write_all` holds the lock. So the write passes the
//! edge on to the `write_all`, and both complete.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use netpoll::io;
use netpoll::net::{TcpListener, TcpStream};
use netpoll::task;

/// Runs `operation`, and sets `polled` after its first poll.
async fn noted<F: Future>(operation: F, polled: Arc<AtomicBool>) -> F::Output {
    let mut operation = pin!(operation);
    poll_fn(|cx| {
        let result = operation.as_mut().poll(cx);
        polled.store(true, Ordering::SeqCst);
        result
    })
    .await
}

async fn until_set(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        task::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn edge_is_passed_to_lock_owner() {
    task::block_on(io::timeout(Duration::from_secs(180), async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let ours = TcpStream::connect(listener.local_addr()?).await?;
        let (peer, _) = listener.accept().await?;
        let block = [7; 64 * 1024];
        let mut sent = 0;
        loop {
            let mut write = pin!(ours.write(&block));
            match poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await {
                Poll::Ready(count) => sent += count?,
                Poll::Pending => break,
            }
        }
        let (first, second) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let write = task::spawn({
            let (ours, polled) = (ours.clone(), first.clone());
            async move { noted(ours.write(&[7; 1000]), polled).await }
        });
        until_set(&first).await;
        let write_all = task::spawn({
            let (ours, polled) = (ours.clone(), second.clone());
            async move { noted(ours.write_all(&[7; 1000]), polled).await }
        });
        until_set(&second).await;
        drop(ours);
        let (mut buf, mut received) = (vec![0; 64 * 1024], 0);
        let reader = task::spawn(async move {
            loop {
                match peer.read(&mut buf).await? {
                    0 => return io::Result::Ok(received),
                    count => received += count,
                }
            }
        });
        let written = write.await?;
        write_all.await?;
        assert_eq!(reader.await?, sent + written + 1000);
        Ok(())
    }))
    .unwrap();
}
