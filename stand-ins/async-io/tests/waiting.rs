//! Tests of the handles and timers of the stand-in for async-io 2. `ci/dependents.sh async-io` also
//! runs async-io's own tests.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use async_io::{Async, Timer, block_on};
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt, future};
use socket2::{Domain, Socket, Type};

#[test]
fn connection_carries_bytes_both_ways() -> io::Result<()> {
    block_on(async {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0))?;
        let addr = listener.get_ref().local_addr()?;
        let (client, accepted) = future::try_zip(Async::<TcpStream>::connect(addr), listener.accept()).await?;
        let (mut client, (server, peer)) = (client, accepted);
        assert_eq!(peer, client.get_ref().local_addr()?);
        client.write_all(b"ping").await?;
        let mut buf = [0; 4];
        assert_eq!(server.peek(&mut buf).await?, 4);
        (&server).read_exact(&mut buf).await?;
        (&server).write_all(&buf).await?;
        client.read_exact(&mut buf).await?;
        assert_eq!(&buf, b"ping");
        drop(server);
        assert_eq!(client.read(&mut buf).await?, 0);
        Ok(())
    })
}

#[test]
fn refused_connection_is_an_error() {
    // The socket is bound but does not listen. It stays open, so that no other test gets its port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let error = block_on(Async::<TcpStream>::connect(addr)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn unwrapped_handle_stays_non_blocking_and_can_be_wrapped_again() -> io::Result<()> {
    let (left, mut right) = UnixStream::pair()?;
    let left = Async::new(left)?.into_inner()?;
    assert_eq!((&left).read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let left = Async::new_nonblocking(left)?;
    right.write_all(b"x")?;
    assert_eq!(block_on(left.read_with(|mut io| io.read(&mut [0; 8])))?, 1);
    Ok(())
}

#[test]
fn several_owned_futures_wait_for_one_handle() -> io::Result<()> {
    let (left, right) = Async::<UnixStream>::pair()?;
    let left = Arc::new(left);
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let left = left.clone();
            thread::spawn(move || block_on(left.readable_owned()))
        })
        .collect();
    block_on(async {
        right.writable().await?;
        (&right).write_all(b"x").await
    })?;
    for thread in waiting {
        thread.join().unwrap()?;
    }
    block_on(right.writable())
}

#[test]
fn read_with_mut_waits_for_data() -> io::Result<()> {
    struct Counted(UnixStream, usize);
    impl std::os::fd::AsFd for Counted {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    let (left, mut right) = UnixStream::pair()?;
    let mut counted = Async::new(Counted(left, 0))?;
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        right.write_all(b"x")
    });
    block_on(async {
        // SAFETY: the closure neither closes nor replaces the descriptor.
        let read = unsafe {
            counted.read_with_mut(|io| {
                io.1 += 1;
                io.0.read(&mut [0; 1])
            })
        };
        read.await
    })?;
    writer.join().unwrap()?;
    assert!(counted.get_ref().1 >= 1);
    Ok(())
}

/// A waker that sends a message.
struct Woken(Mutex<Sender<()>>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().send(()).unwrap();
    }
}

/// Returns a waker and the receiver of its messages.
fn waker() -> (Waker, Receiver<()>) {
    let (sender, woken) = channel();
    (Waker::from(Arc::new(Woken(Mutex::new(sender)))), woken)
}

#[test]
fn reset_timer_wakes_its_task_without_another_poll() {
    let (waker, woken) = waker();
    let mut timer = Timer::after(Duration::from_secs(3600));
    assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
    timer.set_after(Duration::from_millis(2));
    woken.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_ready());
}

/// Regression test: a timer that was set to a past time, and then set again before the next poll,
/// woke no task at the last time.
#[test]
fn timer_reset_after_a_past_time_wakes_its_task_without_another_poll() {
    let (waker, woken) = waker();
    let mut timer = Timer::after(Duration::from_secs(3600));
    assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
    timer.set_at(Instant::now());
    woken.recv_timeout(Duration::from_secs(60)).unwrap();
    timer.clear();
    assert!(woken.try_recv().is_err());
    timer.set_after(Duration::from_millis(2));
    woken.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_ready());
}

#[test]
fn interval_that_fires_wakes_its_task_for_the_next_time_without_another_poll() {
    // The first time has passed when the timer is polled. With the short period, the second time
    // has passed too. With the long period, it is usually in the future.
    for period in [Duration::from_nanos(1), Duration::from_millis(50)] {
        let (waker, woken) = waker();
        let mut timer = Timer::interval_at(Instant::now(), period);
        assert!(Pin::new(&mut timer).poll_next(&mut Context::from_waker(&waker)).is_ready());
        woken.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(Pin::new(&mut timer).poll_next(&mut Context::from_waker(&waker)).is_ready());
    }
}

#[test]
fn timer_that_has_fired_for_the_last_time_wakes_no_task_if_it_is_reset() {
    let (waker, woken) = waker();
    let mut timer = Timer::after(Duration::from_millis(2));
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut timer).poll(&mut cx).is_pending());
    woken.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(Pin::new(&mut timer).poll(&mut cx).is_ready());
    timer.set_at(Instant::now());
    assert!(woken.try_recv().is_err());
    assert!(Pin::new(&mut timer).poll(&mut cx).is_ready());
}

#[test]
fn interval_yields_the_instants_that_were_set() {
    block_on(async {
        let (start, period) = (Instant::now(), Duration::from_millis(2));
        let moments: Vec<_> = Timer::interval_at(start, period).take(3).collect().await;
        assert_eq!(moments, [start, start + period, start + 2 * period]);
    });
}

#[test]
fn timer_fires_once_and_cleared_timer_never_fires() {
    block_on(async {
        let mut timer = Timer::after(Duration::ZERO);
        assert!(timer.will_fire());
        (&mut timer).await;
        assert!(!timer.will_fire());
        assert!(future::poll_once(&mut timer).await.is_none());
        timer.set_after(Duration::ZERO);
        timer.clear();
        assert!(!timer.will_fire());
        assert!(future::poll_once(&mut timer).await.is_none());
        assert!(!Timer::after(Duration::MAX).will_fire());
    });
}

/// connect(2) returns EAGAIN while the queue of a Unix listener is full.
#[test]
fn connect_to_a_unix_listener_with_a_full_queue_is_an_error() {
    let path = std::env::temp_dir().join(format!("async-io-full-queue-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    let connected = block_on(async {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(Async::<UnixStream>::connect(&path).await);
        }
        all
    });
    std::fs::remove_file(&path).unwrap();
    assert!(connected[0].is_ok());
    let error = connected.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    for stream in connected.into_iter().flatten() {
        stream.get_ref().peer_addr().unwrap();
    }
}
