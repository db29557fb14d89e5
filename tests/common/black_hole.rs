//! TCP addresses that refuse connections or do not answer.
#![allow(dead_code)] // Each test binary uses a part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use crate::common::BOUND;

/// Binds a port of `ip`, an address of this host, without listening. While the returned socket is
/// open, the kernel refuses connections to the port, and no other process can take the port.
pub(crate) fn refusing_at(ip: IpAddr) -> (Socket, SocketAddr) {
    let wanted = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, None).unwrap();
    socket.bind(&wanted.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// Calls [`refusing_at`] with 127.0.0.1.
pub(crate) fn refusing() -> (Socket, SocketAddr) {
    refusing_at(Ipv4Addr::LOCALHOST.into())
}

/// A listener with a full queue. Connection attempts get no answer before
/// [`serve`](BlackHole::serve).
#[derive(Debug)]
pub(crate) struct BlackHole {
    pub(crate) addr: SocketAddr,
    listener: Socket,
    /// The socket of the connection in the queue, and the sockets that try to connect.
    clients: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn at(ip: IpAddr) -> BlackHole {
        let (listener, addr) = refusing_at(ip);
        listener.listen(0).unwrap();
        let client = || Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        // A backlog of 0 allows one connection. poll(2) reports when the connection is in the
        // queue.
        let first = client();
        first.connect(&addr.into()).unwrap();
        let bound = Timespec { tv_sec: BOUND.as_secs() as i64, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&bound)).unwrap(), 1);
        let mut clients = vec![first];
        for _ in 0..4 {
            let client = client();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&addr.into());
            clients.push(client);
        }
        BlackHole { addr, listener, clients }
    }

    pub(crate) fn new() -> BlackHole {
        BlackHole::at(Ipv4Addr::LOCALHOST.into())
    }

    /// Accepts the connection that fills the queue, so that later connections can complete. Returns
    /// the listener.
    pub(crate) fn serve(self) -> TcpListener {
        drop(self.clients);
        self.listener.accept().unwrap();
        self.listener.into()
    }
}
