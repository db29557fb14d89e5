//! `net::serve`, and the traits `Conn` and `Listener`: handlers, the stop and the drain time of a
//! server, the ends of its listener, panics.

mod common;

use std::future::{Future, IntoFuture, pending};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::{BOUND, becomes, child, eventually, run};
use futures::channel::oneshot;
use futures::stream::BoxStream;
use netpoll::net::{
    self, Conn, ListenConfig, Listener, Pipe, Report, TcpListener, TcpStream, is_closed, is_timeout, pipe,
};
use netpoll::prelude::*;
use netpoll::rt;
use netpoll::task::{self, JoinHandle};
use netpoll::unix::{UnixListener, UnixStream};

/// Echoes until the end of the stream, and then shuts down the write direction. Returns the number
/// of reads that returned data.
async fn echo(conn: impl Conn) -> io::Result<usize> {
    let mut reads = 0;
    let mut buf = [0; 64];
    loop {
        match conn.read(&mut buf).await? {
            0 => return conn.close_write().map(|()| reads),
            count => conn.write_all(&buf[..count]).await?,
        }
        reads += 1;
    }
}

async fn ping(conn: &impl Conn) -> io::Result<()> {
    conn.write_all(b"x").await?;
    let mut answer = [0; 1];
    match conn.read(&mut answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Starts a server. Returns its address, a sender that stops it, and its task.
async fn server<F>(
    handler: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    drain: Duration,
) -> (std::net::SocketAddr, oneshot::Sender<()>, JoinHandle<io::Result<Report>>)
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = net::serve(listener, handler).until(stopped).drain(drain);
    (addr, stop, task::spawn(server.into_future()))
}

#[test]
fn every_connection_type_implements_conn() {
    async fn check<C: Conn>(client: C, server: C) {
        let serving = task::spawn(echo(server));
        for _ in 0..3 {
            ping(&client).await.unwrap();
        }
        client.set_read_deadline(Some(Instant::now())).unwrap();
        assert!(is_timeout(&client.read(&mut [0; 1]).await.unwrap_err()));
        client.set_deadline(None).unwrap();
        client.set_write_deadline(Some(Instant::now() + BOUND)).unwrap();
        assert!(client.write(b"y").await.unwrap() == 1 && client.read(&mut [0; 1]).await.unwrap() == 1);
        client.close_write().unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(serving.await.unwrap(), 4);
        client.force_close().await.unwrap();
        assert!(is_closed(&client.read(&mut [0; 1]).await.unwrap_err()));
    }
    run(async {
        let (client, server) = common::pair().await;
        assert_eq!(Conn::peer(&client), Conn::local(&server));
        check(client, server).await;
        let (client, server) = UnixStream::pair().unwrap();
        assert!(Conn::peer(&client).is_some());
        check(client, server).await;
        let (client, server) = pipe().unwrap();
        assert!(Conn::peer(&client).is_none());
        check(client, server).await;
    });
}

#[test]
fn connections_are_served_until_close() {
    async fn check<L: Listener, C: Conn>(listener: L, connect: impl AsyncFn() -> C) {
        let listener = Arc::new(listener);
        let server = task::spawn(net::serve(listener.clone(), echo).into_future());
        let clients = [connect().await, connect().await];
        for client in &clients {
            ping(client).await.unwrap();
        }
        drop(clients);
        listener.close().await.unwrap();
        let report = server.await.unwrap();
        assert_eq!((report.accepted, report.panicked, report.stragglers.len()), (2, 0, 0), "{report}");
    }
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        check(listener, async || TcpStream::connect(addr).await.unwrap()).await;
        let folder = common::Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).await.unwrap();
        check(listener, async || UnixStream::connect(&path).await.unwrap()).await;
        assert!(!path.exists());
    });
}

#[test]
fn active_and_queued_requests_are_answered() {
    run(async {
        let (release, released) = oneshot::channel::<()>();
        let released = futures::FutureExt::shared(released);
        let begun = Arc::new(AtomicUsize::new(0));
        let (addr, stop, server) = {
            let begun = begun.clone();
            let handler = move |stream: TcpStream| {
                let (released, begun) = (released.clone(), begun.clone());
                async move {
                    stream.read(&mut [0; 1]).await?;
                    begun.fetch_add(1, Ordering::SeqCst);
                    let _ = released.await;
                    stream.write_all(b"answer").await
                }
            };
            let listener = TcpListener::bind(common::own_address()).await.unwrap();
            let addr = listener.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            // The server handles one connection at a time, so the second waits in the queue of the
            // listener.
            let server = net::serve(listener, handler).max_connections(1).until(stopped);
            (addr, stop, task::spawn(server.into_future()))
        };
        let clients = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
        for client in &clients {
            client.write_all(b"?").await.unwrap();
        }
        eventually("the first request is read", || begun.load(Ordering::SeqCst) == 1);
        let _no_forks = common::no_forks();
        drop(stop);
        eventually("the second is taken from the queue", || begun.load(Ordering::SeqCst) == 2);
        release.send(()).unwrap();
        for client in &clients {
            let mut answer = [0; 6];
            futures::AsyncReadExt::read_exact(&mut &*client, &mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
        }
        let report = server.await.unwrap();
        assert_eq!((report.accepted, report.stragglers.len()), (2, 0));
        assert!(TcpStream::connect(addr).await.is_err(), "the listener is closed");
    });
}

/// The queue holds more connections than a task accepts in one turn.
#[test]
fn whole_queue_is_served_at_stop() {
    whole_queue_is_served(ListenConfig::new(), 1);
}

/// Regression: the connections in the queue of a listener at its own limit were reset.
#[test]
fn whole_queue_of_a_listener_at_its_limit_is_served_at_stop() {
    whole_queue_is_served(ListenConfig::new().max_connections(1), 1);
    whole_queue_is_served(ListenConfig::new().max_connections(1), 200);
}

/// Starts a server that serves one connection at a time, by its own limit or by that of the
/// listener. Stops the server while 100 more connections are in the queue.
fn whole_queue_is_served(config: ListenConfig, limit: usize) {
    run(async {
        let listener = config.listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = net::serve(listener, echo).max_connections(limit).until(stopped).drain(BOUND);
        let server = task::spawn(server.into_future());
        let first = TcpStream::connect(addr).await.unwrap();
        ping(&first).await.unwrap();
        let mut queued = Vec::new();
        for _ in 0..100 {
            let client = TcpStream::connect(addr).await.unwrap();
            client.write_all(b"x").await.unwrap();
            queued.push(client);
        }
        drop(stop);
        for client in queued {
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 1);
        }
        drop(first);
        let report = server.await.unwrap();
        assert_eq!((report.accepted, report.stragglers.len()), (101, 0), "{report}");
    });
}

/// Regression: the text of the report said that the connection was closed by force.
#[test]
fn straggler_that_has_dropped_its_connection_is_not_shown_as_closed_by_force() {
    run(async {
        let handler = |conn: TcpStream| async move {
            drop(conn);
            std::future::pending::<()>().await
        };
        let (addr, stop, server) = server(handler, Duration::from_millis(30)).await;
        let client = TcpStream::connect(addr).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "the handler drops the connection");
        drop(stop);
        let report = server.await.unwrap();
        assert_eq!(report.stragglers.len(), 1);
        let text = report.to_string();
        assert!(text.starts_with("1 connections accepted, 1 not ended in the drain time\n"), "{text}");
    });
}

#[test]
fn drain_timeout_closes_and_reports_connections() {
    /// Returns whether the handler ended within the short time that it has after a forced close.
    async fn ends_in_time() -> bool {
        let (addr, stop, server) = server(echo, Duration::from_millis(30)).await;
        let client = TcpStream::connect(addr).await.unwrap();
        ping(&client).await.unwrap();
        drop(stop);
        let report = server.await.unwrap();
        let [straggler] = &report.stragglers[..] else { panic!("{report}") };
        assert_eq!(straggler.peer, Some(client.local_addr().unwrap().into()));
        assert!(straggler.age >= Duration::from_millis(30));
        let text = report.to_string();
        assert!(
            text.contains(&format!("task {}, connection from {}", straggler.task, client.local_addr().unwrap())),
            "{text}"
        );
        assert!(!matches!(client.read(&mut [0; 1]).await, Ok(1..)));
        straggler.ended
    }
    run(async {
        // On a busy machine the handler may get no CPU within this time.
        let begin = Instant::now();
        while !ends_in_time().await {
            assert!(begin.elapsed() < BOUND, "no handler ended in time");
        }
    });
}

#[test]
fn handler_that_ignores_close_is_cancelled() {
    struct Gone(Arc<AtomicUsize>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    run(async {
        let (begun, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handler = {
            let (begun, gone) = (begun.clone(), gone.clone());
            move |stream: TcpStream| {
                let (begun, guard) = (begun.clone(), Gone(gone.clone()));
                async move {
                    let _both = (stream, guard);
                    begun.fetch_add(1, Ordering::SeqCst);
                    pending::<()>().await
                }
            }
        };
        let (addr, stop, serving) = server(handler.clone(), Duration::ZERO).await;
        let _client = TcpStream::connect(addr).await.unwrap();
        drop(stop);
        let report = serving.await.unwrap();
        assert!(report.stragglers.len() == 1 && !report.stragglers[0].ended, "{report}");
        // The server waits only for a short time for the cancelled task to end, so the task may end
        // later.
        becomes("the task is dropped", || gone.load(Ordering::SeqCst) == 1).await;
        // The task is also dropped if the future of the server is dropped.
        let (addr, _stop, serving) = server(handler, BOUND).await;
        let client = TcpStream::connect(addr).await.unwrap();
        becomes("the handler runs", || begun.load(Ordering::SeqCst) == 2).await;
        assert_eq!(serving.cancel().await.map(|report| report.is_ok()), None);
        becomes("the task is dropped", || gone.load(Ordering::SeqCst) == 2).await;
        assert!(!matches!(client.read(&mut [0; 1]).await, Ok(1..)), "the client's connection is closed");
    });
}

#[test]
fn stop_hook_informs_handlers() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = net::serve(listener, echo)
            .until(stopped)
            .drain(BOUND)
            .when_stopping(|stream| stream.set_read_deadline(Instant::now()).unwrap());
        let server = task::spawn(server.into_future());
        let client = TcpStream::connect(addr).await.unwrap();
        ping(&client).await.unwrap();
        drop(stop);
        assert_eq!(server.await.unwrap().stragglers, []);
    });
}

#[test]
fn request_in_receive_buffer_is_answered_at_stop() {
    run(async {
        let (release, released) = oneshot::channel::<()>();
        let released = futures::FutureExt::shared(released);
        let (serving, mut served) = futures::channel::mpsc::unbounded();
        let handler = move |stream: TcpStream| {
            let (released, serving) = (released.clone(), serving.clone());
            async move {
                let mut request = [0; 1];
                while stream.read(&mut request).await? > 0 {
                    serving.unbounded_send(stream.clone()).unwrap();
                    let _ = released.clone().await;
                    stream.write_all(&request).await?;
                }
                io::Result::Ok(())
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (stopping, mut is_stopping) = futures::channel::mpsc::unbounded();
        let server = net::serve(listener, handler).until(stopped).drain(BOUND).when_stopping(move |stream| {
            stream.close_read().unwrap();
            stopping.unbounded_send(()).unwrap();
        });
        let server = task::spawn(server.into_future());
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"1").await.unwrap();
        let accepted = served.next().await.unwrap();
        client.write_all(b"2").await.unwrap();
        eventually("the second request arrives", || rustix::io::ioctl_fionread(&accepted).unwrap() == 1);
        drop((stop, accepted));
        is_stopping.next().await.unwrap();
        release.send(()).unwrap();
        drop(served.next().await);
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers, "12");
        assert_eq!(server.await.unwrap().stragglers, []);
    });
}

/// A listener whose connections come from a stream.
struct Streamed<C>(fn() -> BoxStream<'static, io::Result<C>>);

impl<C: Conn + Clone> Listener for Streamed<C> {
    type Conn = C;
    type Incoming<'a>
        = BoxStream<'static, io::Result<C>>
    where
        C: 'a;
    fn incoming(&self) -> Self::Incoming<'_> {
        (self.0)()
    }
    fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<C> {
        std::future::ready(Ok(()))
    }
}

/// Regression: the server never stopped. A listener with reserved descriptors behaves like
/// `refusing` while clients connect faster than it can refuse them.
#[test]
fn listener_that_refuses_connections_without_end_does_not_delay_the_stop() {
    let refusing = Streamed::<Pipe>(|| {
        Box::pin(futures::stream::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    });
    run(async {
        let server = net::serve(refusing, echo).until(std::future::ready(())).drain(Duration::from_millis(20));
        assert_eq!(server.await.unwrap(), Report::default());
    });
}

#[test]
fn server_ends_when_its_listener_ends() {
    struct Once(std::sync::Mutex<Option<Pipe>>);
    impl Listener for Once {
        type Conn = Pipe;
        type Incoming<'a> = BoxStream<'a, io::Result<Pipe>>;
        fn incoming(&self) -> Self::Incoming<'_> {
            // The stream panics if it is polled after its end.
            let next = move |()| async move { self.0.lock().unwrap().take().map(|pipe| (Ok(pipe), ())) };
            Box::pin(futures::stream::unfold((), next))
        }
        fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
            std::future::ready(Ok(()))
        }
    }
    run(async {
        let (client, server) = pipe().unwrap();
        let server = task::spawn(net::serve(Once(Some(server).into()), echo).into_future());
        ping(&client).await.unwrap();
        client.close_write().unwrap();
        let report = server.await.unwrap();
        assert_eq!((report.accepted, report.panicked, report.stragglers.len()), (1, 0, 0), "{report}");
    });
}

#[test]
fn handler_panic_ends_one_connection() {
    run(async {
        let handler = |stream: TcpStream| async move {
            let mut order = [0; 1];
            stream.read(&mut order).await.unwrap();
            assert_ne!(&order, b"!", "on purpose");
            stream.write_all(&order).await.unwrap();
        };
        let (addr, stop, server) = server(handler, BOUND).await;
        let bad = TcpStream::connect(addr).await.unwrap();
        bad.write_all(b"!").await.unwrap();
        assert_eq!(bad.read(&mut [0; 1]).await.unwrap_or(0), 0);
        ping(&TcpStream::connect(addr).await.unwrap()).await.unwrap();
        drop(stop);
        let report = server.await.unwrap();
        assert_eq!((report.accepted, report.panicked), (2, 1));
    });
}

/// Regression: a panic in a hook or in the future of `until` cancelled the tasks of all
/// connections.
#[test]
fn panics_in_hooks_and_in_the_stop_lose_no_connection() {
    /// A listener whose first accept fails.
    struct Failing(TcpListener);
    impl Listener for Failing {
        type Conn = TcpStream;
        type Incoming<'a> = BoxStream<'a, io::Result<TcpStream>>;
        fn incoming(&self) -> Self::Incoming<'_> {
            let failed = futures::stream::iter([Err(io::ErrorKind::Other.into())]);
            Box::pin(futures::StreamExt::chain(failed, self.0.incoming()))
        }
        fn close(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
            TcpListener::close(&self.0)
        }
    }
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = net::serve(Failing(listener), echo)
            .on_error(|_| panic!("on purpose"))
            .until(async { stopped.await.expect("on purpose") })
            .when_stopping(|stream| {
                stream.close_read().unwrap();
                panic!("on purpose");
            })
            .drain(BOUND);
        let server = task::spawn(server.into_future());
        let (first, second) = (TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap());
        ping(&first).await.unwrap();
        ping(&second).await.unwrap();
        drop(stop);
        // Both handlers end, because the hook is called for both connections.
        for client in [first, second] {
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        }
        let report = server.await.unwrap();
        assert_eq!((report.accepted, report.panicked, report.stragglers.len()), (2, 0, 0), "{report}");
    });
}

/// Regression: the server repeated a failed accept immediately, so a lasting error, such as EPERM
/// from a security module, kept a thread busy.
#[test]
fn lasting_error_of_accept_does_not_keep_a_thread_busy() {
    let failing = Streamed::<TcpStream>(|| {
        Box::pin(futures::stream::repeat_with(|| Err(io::ErrorKind::PermissionDenied.into())))
    });
    run(async {
        let errors = Arc::new(AtomicUsize::new(0));
        let seen = errors.clone();
        let failed = net::serve(failing, echo)
            .on_error(move |_| _ = seen.fetch_add(1, Ordering::SeqCst))
            .until(task::sleep(Duration::from_millis(300)));
        let start = Instant::now();
        let at_stop = std::pin::pin!(async {
            task::sleep(Duration::from_millis(250)).await;
            errors.load(Ordering::SeqCst)
        });
        let (report, count) = futures::future::join(failed.into_future(), at_stop).await;
        assert_eq!(report.unwrap().accepted, 0);
        let most = start.elapsed().as_millis() as usize / 5 + 1;
        assert!((1..=most).contains(&count), "{count} errors");
    });
}

/// During a hot restart, two processes share the socket of the listener, so the other process may
/// shut it down.
#[test]
fn listener_that_can_accept_no_more_ends_the_server_with_its_error() {
    run(async {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = socket.try_clone().unwrap();
        let addr = socket.local_addr().unwrap();
        let errors = Arc::new(AtomicUsize::new(0));
        let counter = errors.clone();
        let count = move |_: &io::Error| _ = counter.fetch_add(1, Ordering::Relaxed);
        let server = net::serve(TcpListener::from(socket), echo).on_error(count);
        let server = task::spawn(server.into_future());
        let client = TcpStream::connect(addr).await.unwrap();
        ping(&client).await.unwrap();
        drop(client);
        socket2::SockRef::from(&other).shutdown(std::net::Shutdown::Read).unwrap();
        let error = server.await.unwrap_err();
        assert_eq!((error.raw_os_error(), errors.load(Ordering::Relaxed)), (Some(libc::EINVAL), 1), "{error}");
    });
}

/// Regression: a server at its connection limit noticed the end of its listener only after a
/// connection had ended.
#[test]
fn listener_that_can_accept_no_more_ends_a_server_at_its_limit() {
    run(async {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = socket.try_clone().unwrap();
        let addr = socket.local_addr().unwrap();
        let server = net::serve(TcpListener::from(socket), echo)
            .max_connections(1)
            .drain(BOUND)
            .when_stopping(|stream| drop(stream.close_read()));
        let server = task::spawn(server.into_future());
        let client = TcpStream::connect(addr).await.unwrap();
        ping(&client).await.unwrap();
        socket2::SockRef::from(&other).shutdown(std::net::Shutdown::Read).unwrap();
        let error = server.await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        drop(client);
    });
}

#[test]
fn deadline_of_the_listener_ends_the_server_with_timed_out() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.set_deadline(Instant::now() + Duration::from_millis(10)).unwrap();
        let error = net::serve(listener, echo).await.unwrap_err();
        assert!(is_timeout(&error), "{error}");
    });
}

/// Regression: the error of a server at its connection limit named the operation `read`.
#[test]
fn deadline_of_the_listener_ends_a_server_at_its_limit_with_the_error_of_accept() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, deadlines) = (listener.local_addr().unwrap(), Arc::new(listener));
        let server = net::serve(deadlines.clone(), echo).max_connections(1).drain(BOUND);
        let server = task::spawn(server.when_stopping(|stream| drop(stream.close_read())).into_future());
        let client = TcpStream::connect(addr).await.unwrap();
        ping(&client).await.unwrap();
        deadlines.set_deadline(Instant::now()).unwrap();
        assert_eq!(server.await.unwrap_err().to_string(), format!("accept tcp {addr}: i/o timeout"));
        drop(client);
    });
}

/// Regression: the server panicked if connections were open.
#[test]
fn shutdown_of_the_runtime_ends_the_server_with_its_error() {
    child("shutdown_of_the_runtime_ends_the_server_with_its_error", || {
        for connections in [0, 1, 3] {
            let (begun, begins) = mpsc::channel();
            let server = thread::spawn(move || {
                task::block_on(async {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    begun.send(listener.local_addr().unwrap()).unwrap();
                    net::serve(listener, echo).drain(Duration::ZERO).await
                })
            });
            let addr = begins.recv_timeout(BOUND).unwrap();
            let clients: Vec<_> = (0..connections)
                .map(|_| {
                    task::block_on(async {
                        let client = TcpStream::connect(addr).await.unwrap();
                        ping(&client).await.unwrap();
                        client
                    })
                })
                .collect();
            // A registration after the shutdown would start the runtime again, so the test first
            // waits until all sockets are registered.
            eventually("all connections wait", || rt::metrics().waiters == 1 + connections);
            rt::shutdown(BOUND).unwrap();
            let error = server.join().expect("no panic").unwrap_err();
            assert!(error.to_string().contains("runtime"), "{error}");
            drop(clients);
        }
    });
}

/// Regression: the server kept a handle of the connection until the handler had ended.
#[test]
fn connection_is_closed_when_its_handler_drops_it() {
    run(async {
        let (release, released) = oneshot::channel::<()>();
        let released = futures::future::FutureExt::shared(released);
        let handler = move |stream: TcpStream| {
            let released = released.clone();
            async move {
                stream.write_all(b"bye").await.unwrap();
                let stream = std::net::TcpStream::try_from(stream).expect("the handler has the only handle");
                drop(stream);
                let _ = released.await;
            }
        };
        let (addr, stop, server) = server(handler, Duration::ZERO).await;
        let mut answer = Vec::new();
        TcpStream::connect(addr).await.unwrap().read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"bye");
        // The handler still runs at the end of the drain time, and has no connection to close.
        drop(stop);
        let report = server.await.unwrap();
        assert_eq!((report.accepted, report.stragglers.len()), (1, 1), "{report}");
        drop(release);
    });
}

/// The idle connections end as soon as their read direction is shut down, in the same order in each
/// run.
#[cfg(feature = "sim")]
#[test]
fn stop_of_a_server_repeats_in_a_simulation() {
    use netpoll::sim::{Builder, ms};

    let run = || {
        Builder::new().seed(3).run(async |sim| {
            let listener = sim.host("server").run(TcpListener::bind("0.0.0.0:80")).await.unwrap();
            let (stop, stopped) = futures::channel::oneshot::channel::<()>();
            let server = sim.host("server").spawn_task(async move {
                netpoll::net::serve(listener, async |stream: TcpStream| drop(stream.read(&mut [0; 1]).await))
                    .until(stopped)
                    .when_stopping(|stream| stream.close_read().unwrap())
                    .drain(Duration::from_secs(10))
                    .await
            });
            let mut clients = Vec::new();
            for number in 0..20 {
                let client = sim.host(&format!("client-{number}"));
                clients.push(client.run(TcpStream::connect("server:80")).await.unwrap());
            }
            task::sleep(ms(100)).await;
            let start = std::time::Instant::now();
            drop(stop);
            let report = server.await.unwrap();
            assert!(start.elapsed() < ms(100), "the server waits for its idle connections: {report}");
        })
    };
    let digest = run().digest;
    for _ in 0..5 {
        assert_eq!(run().digest, digest);
    }
}
