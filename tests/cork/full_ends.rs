//! Closes of a full socket, and shutdowns of the runtime and forks while a socket is full.

use std::future::pending;
use std::io::Read;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::os::unix::net as std_net;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netpoll::os::unix::net::UnixStream;
use netpoll::{rt, task};

use super::common::{becomes, child};
use super::ends::fill_and_gather;
use super::{assert_ends, fill_unix, narrow_pair};

/// The time limit of shutdowns that must succeed.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn last_bytes_of_a_unix_stream_survive_a_shutdown_of_the_runtime() {
    let name = "full_ends::last_bytes_of_a_unix_stream_survive_a_shutdown_of_the_runtime";
    child(name, || {
        let (mut peer, total) = task::block_on(async {
            let (ours, peer) = UnixStream::pair().unwrap();
            let (total, _) = fill_unix(&ours).await;
            drop(ours);
            (std_net::UnixStream::try_from(peer).unwrap(), total)
        });
        rt::shutdown(LONG).unwrap();
        peer.set_nonblocking(false).unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), total);
    });
}

#[test]
fn drop_of_a_full_stream_after_a_shutdown_starts_no_runtime() {
    let name = "full_ends::drop_of_a_full_stream_after_a_shutdown_starts_no_runtime";
    child(name, || {
        let (unix, tcp) = task::block_on(async {
            let unix = UnixStream::pair().unwrap();
            fill_unix(&unix.0).await;
            let tcp = narrow_pair().await;
            fill_and_gather(&tcp.0).await;
            #[cfg(target_os = "linux")]
            tcp.0.set_notsent_lowat(1).unwrap();
            (unix, tcp)
        });
        rt::shutdown(LONG).unwrap();
        drop((unix.0, tcp.0));
        // `start` fails if the runtime is already running.
        rt::Builder::new().workers(1).start().unwrap();
        task::block_on(async {
            #[cfg(target_os = "linux")]
            assert_eq!(super::read_to_end(&tcp.1).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            let mut buf = [0; 4096];
            while unix.1.read(&mut buf).await.unwrap() > 0 {}
        });
    });
}

/// The bytes of the duplicate would follow a gap in the stream.
#[cfg(target_os = "linux")]
#[test]
fn duplicate_of_a_truncated_stream_cannot_continue_it() {
    let name = "full_ends::duplicate_of_a_truncated_stream_cannot_continue_it";
    child(name, || {
        for runs in [false, true] {
            let (ours, peer, duplicate) = task::block_on(async {
                let (ours, peer) = narrow_pair().await;
                fill_and_gather(&ours).await;
                ours.set_notsent_lowat(1).unwrap();
                let duplicate = ours.as_fd().try_clone_to_owned().unwrap();
                (ours, peer, duplicate)
            });
            let mut ours = Some(ours);
            if runs {
                // The shutdown drops the task that sends the rest.
                drop(ours.take());
            }
            rt::shutdown(LONG).unwrap();
            drop(ours);
            task::block_on(async {
                assert_eq!(super::read_to_end(&peer).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            });
            assert!(rustix::io::write(&duplicate, b"behind the gap").is_err());
        }
    });
}

#[test]
fn full_socket_that_only_reads_sends_the_rest_after_a_shutdown() {
    let name = "full_ends::full_socket_that_only_reads_sends_the_rest_after_a_shutdown";
    child(name, || {
        let (ours, peer, total) = task::block_on(async {
            let (ours, peer) = UnixStream::pair().unwrap();
            let (total, _) = fill_unix(&ours).await;
            (ours, peer, total)
        });
        rt::shutdown(LONG).unwrap();
        // The test does not use the descriptor of `ours`, because exposing it would send the bytes.
        task::block_on(async move {
            let answer = task::spawn(async move {
                let mut buf = [0; 4];
                ours.read(&mut buf).await
            });
            let mut buf = vec![0; total];
            netpoll::io::ReadExt::read_exact(&mut &peer, &mut buf).await.unwrap();
            peer.write_all(b"done").await.unwrap();
            assert_eq!(answer.await.unwrap(), 4);
        });
    });
}

/// Destructors that block delay the drop of the task that sends the rest until the runtime has
/// started again.
#[test]
fn rest_is_sent_if_its_task_is_dropped_after_a_restart() {
    struct Blocked(Arc<Mutex<()>>);
    impl Drop for Blocked {
        fn drop(&mut self) {
            drop(self.0.lock());
        }
    }
    let name = "full_ends::rest_is_sent_if_its_task_is_dropped_after_a_restart";
    child(name, || {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let (ours, peer, total) = task::block_on(async {
            // These are more tasks than a shutdown has threads that run their destructors.
            for _ in 0..200 {
                let blocked = Blocked(gate.clone());
                drop(task::spawn(async move {
                    let _blocked = blocked;
                    pending::<()>().await;
                }));
            }
            task::yield_now().await;
            let (ours, peer) = UnixStream::pair().unwrap();
            let (total, _) = fill_unix(&ours).await;
            (ours, peer, total)
        });
        rt::shutdown(Duration::from_secs(1)).unwrap_err();
        task::block_on(async move {
            let answer = task::spawn(async move {
                let mut buf = [0; 4];
                ours.read(&mut buf).await
            });
            becomes("the read waits", || rt::metrics().waiters > 0).await;
            drop(closed);
            let mut buf = vec![0; total];
            netpoll::io::ReadExt::read_exact(&mut &peer, &mut buf).await.unwrap();
            peer.write_all(b"done").await.unwrap();
            assert_eq!(answer.await.unwrap(), 4);
        });
    });
}

/// A child of fork(2) discards its copy of the gathered bytes, and does not end the stream, because
/// its parent still has to send the bytes.
#[test]
fn child_process_does_not_end_the_stream_before_the_rest_is_sent() {
    let name = "full_ends::child_process_does_not_end_the_stream_before_the_rest_is_sent";
    child(name, || {
        let (ours, peer, total) = task::block_on(async {
            let (ours, peer) = UnixStream::pair().unwrap();
            let (total, _) = fill_unix(&ours).await;
            ours.close_write().unwrap();
            (ours, peer, total)
        });
        // SAFETY: the child only makes calls of this crate that use no thread, and ends.
        match unsafe { libc::fork() } {
            0 => {
                let _ = ours.set_auto_cork(false);
                // SAFETY: _exit(2) ends the child without running destructors.
                unsafe { libc::_exit(0) }
            }
            pid => assert_ends(pid),
        }
        let mut all = Vec::new();
        task::block_on(netpoll::io::ReadExt::read_to_end(&mut &peer, &mut all)).unwrap();
        assert_eq!(all.len(), total);
        drop(ours);
    });
}
