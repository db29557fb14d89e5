//! [`Socket`]: a [`UdpSocket`] that sends and receives with quinn-udp.
//!
//! quinn checks before each send whether the socket is writable. This check needs no system call,
//! because the socket counts as writable until a send returns `WouldBlock`. The sender then waits
//! until the socket is writable.
//!
//! An OS error of a receive is usually that of a datagram sent earlier: if a router or the peer's
//! host answers it with an ICMP message, a connected socket returns ECONNREFUSED, EHOSTUNREACH or,
//! after an MTU probe, EMSGSIZE. quinn would end the endpoint, with all its connections, so such
//! errors are ignored, as by quinn's own sockets.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};

use netpoll::net::{self, UdpSocket};

/// The maximum number of receives in a row whose OS errors are ignored. An error of a datagram is
/// returned by one receive, and a lasting error of the socket by every receive.
const ERRORS_MAX: u32 = 64;

/// A [`UdpSocket`] that implements quinn's socket trait. A program that uses
/// [`endpoint`](super::endpoint) need not create a `Socket` itself.
#[derive(Debug)]
pub struct Socket {
    socket: Arc<UdpSocket>,
    offload: UdpSocketState,
    /// The number of sends that returned `WouldBlock`.
    full: AtomicUsize,
}

impl Socket {
    /// Wraps `socket` and sets the options that quinn needs: receive offload, the ECN bits and the
    /// destination of each received datagram, and no fragmentation. Other users of `socket` can set
    /// its deadlines and close it, but should not receive from it.
    ///
    /// # Errors
    /// Returns the OS error of reading the socket's address or of reading or setting its options,
    /// `TimedOut` after the write deadline, or a [closed](netpoll::net::is_closed) error after
    /// `close`.
    pub fn new(socket: Arc<UdpSocket>) -> io::Result<Socket> {
        let offload = socket.try_write_io(|fd| UdpSocketState::new((&fd).into()))?;
        Ok(Socket { socket, offload, full: AtomicUsize::new(0) })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        // ORDERING: see `poll_writable`.
        let seen = self.full.load(Ordering::Relaxed);
        Box::pin(Poller { socket: self, seen })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.socket.try_write_io(|fd| self.offload.send((&fd).into(), transmit));
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            // ORDERING: see `poll_writable`.
            self.full.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut errors = 0;
        loop {
            let call = |fd: BorrowedFd<'_>| self.offload.recv((&fd).into(), bufs, meta);
            match ready!(self.socket.poll_read_io(cx, call)) {
                // The error may be wrapped (`Builder::wrap_io_errors`).
                Err(error) if net::raw_os_error(&error).is_some() && errors < ERRORS_MAX => errors += 1,
                received => return Poll::Ready(received),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.offload.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.offload.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.offload.may_fragment()
    }
}

/// The state of a sender that may have to wait until the socket is writable.
#[derive(Debug)]
struct Poller {
    socket: Arc<Socket>,
    /// The value of `Socket::full` for which the socket counts as writable.
    seen: usize,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Poller { socket, seen } = &mut *self;
        // ORDERING: Relaxed, because the counter guards no other memory. A sender sees the
        // increment of its own send in program order. If the sender misses the increment of another
        // sender and the socket is still full, its next send returns `WouldBlock` and increments
        // the counter.
        let full = socket.full.load(Ordering::Relaxed);
        if full != *seen {
            ready!(socket.socket.poll_writable(cx))?;
            *seen = full;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;
    use netpoll::net::is_closed;
    use netpoll::task;

    /// Regression test: the error that an ICMP message reports ended the endpoint.
    #[test]
    fn refused_datagram_is_not_an_error_of_a_receive() {
        task::block_on(async {
            let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let addr = peer.local_addr().unwrap();
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            let quic = Socket::new(Arc::clone(&socket)).unwrap();
            socket.connect(addr).await.unwrap();
            drop(peer);
            socket.send(b"to no one").await.unwrap();
            let mut bytes = [0; 64];
            let mut receive = |cx: &mut Context<'_>| {
                let mut meta = [RecvMeta::default()];
                let received = quic.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta);
                received.map(|count| count.map(|_| meta[0].len))
            };
            let polled = receive(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "{polled:?}");
            let peer = UdpSocket::bind(addr).await.unwrap();
            peer.send_to(b"datagram", socket.local_addr().unwrap()).await.unwrap();
            assert_eq!(poll_fn(&mut receive).await.unwrap(), 8);
            socket.close().await.unwrap();
            assert!(is_closed(&poll_fn(&mut receive).await.unwrap_err()));
        });
    }

    #[test]
    fn writability_is_checked_only_after_a_send_would_block() {
        task::block_on(async {
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            let quic = Arc::new(Socket::new(Arc::clone(&socket)).unwrap());
            let mut poller = Arc::clone(&quic).create_io_poller();
            // A poll with a waker that wakes no task does not yield for fairness.
            let mut poll = || match poller.as_mut().poll_writable(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => result,
                Poll::Pending => panic!("the socket is writable"),
            };
            poll().unwrap();
            quic.full.fetch_add(1, Ordering::SeqCst);
            poll().unwrap();
            // A poll that checks the socket fails now, because the socket is closed.
            socket.close().await.unwrap();
            poll().unwrap();
            quic.full.fetch_add(1, Ordering::SeqCst);
            assert!(is_closed(&poll().unwrap_err()));
        });
    }
}
