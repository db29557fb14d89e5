//! A program that is slow because of chatty tasks. Each of their polls is too short to be reported
//! as blocking, but there are many, and a quiet task waits for all of them.

use std::time::{Duration, Instant};

use netpoll::{rt, task};
use netpoll_hangs::named;

fn main() -> std::io::Result<()> {
    netpoll_hangs::end_after_bound();
    // On a busy machine, a poll may take so long that a spare worker would be added.
    rt::Builder::new().workers(1).spare_workers(0).start()?;
    for number in 0..20 {
        drop(named(&format!("chatty {number}"), async {
            loop {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(5) {
                    std::hint::spin_loop();
                }
                task::yield_now().await;
            }
        }));
    }
    let quiet = named("quiet", async {
        loop {
            task::sleep(Duration::from_millis(1)).await;
        }
    });
    task::block_on(quiet);
    Ok(())
}
