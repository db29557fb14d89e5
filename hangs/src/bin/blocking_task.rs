//! A program that hangs because a task blocks its thread. The task waits for a lock of the standard
//! library, which another thread holds.

use std::sync::Mutex;

use netpoll::task;
use netpoll_hangs::named;

static TABLE: Mutex<u32> = Mutex::new(0);

fn main() {
    netpoll_hangs::end_after_bound();
    let held = TABLE.lock().expect("not poisoned");
    let resizer = named("resizer", async { *TABLE.lock().expect("not poisoned") += 1 });
    task::block_on(resizer);
    drop(held);
}
