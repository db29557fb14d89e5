//! A write and a `write_all` on clones of one stream wait for the same buffer space. The edge wakes
//! the write, which cannot use the space while the `write_all` holds the lock. So the write passes
//! the edge on to the `write_all`, and both complete.

mod common;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{becomes, fill, pair, run};
use netpoll::{io, task};

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

#[test]
fn edge_is_passed_to_lock_owner() {
    run(async {
        let (ours, peer) = pair().await;
        let sent = fill(&ours).await;
        let (first, second) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let write = task::spawn({
            let (ours, polled) = (ours.clone(), first.clone());
            async move { noted(ours.write(&[7; 1000]), polled).await }
        });
        becomes("the write is polled", || first.load(Ordering::SeqCst)).await;
        let write_all = task::spawn({
            let (ours, polled) = (ours.clone(), second.clone());
            async move { noted(ours.write_all(&[7; 1000]), polled).await }
        });
        becomes("the write_all is polled", || second.load(Ordering::SeqCst)).await;
        assert!(!write.is_finished() && !write_all.is_finished());
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
        let written = write.await.unwrap();
        write_all.await.unwrap();
        assert_eq!(reader.await.unwrap(), sent + written + 1000);
    });
}
