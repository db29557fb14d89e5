//! The future of `TcpListener::accept`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::TcpStream;
use crate::net::accept::Accepting;
use crate::net::limits::Admission;
use crate::net::net_fd::NetFd;

/// Accepts a connection; returned by [`TcpListener::accept`](crate::net::TcpListener::accept).
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Accept<'a> {
    listener: &'a NetFd,
    admission: Option<&'a Admission>,
    accepting: Accepting,
}

impl<'a> Accept<'a> {
    pub(super) fn new(listener: &'a NetFd, admission: Option<&'a Admission>) -> Accept<'a> {
        Accept { listener, admission, accepting: Accepting::default() }
    }
}

impl Future for Accept<'_> {
    type Output = io::Result<(TcpStream, SocketAddr)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Accept { listener, admission, accepting } = &mut *self;
        accepting.poll(listener, *admission, cx, TcpStream::adopt)
    }
}

impl Drop for Accept<'_> {
    fn drop(&mut self) {
        self.accepting.cancel(self.listener, self.admission);
    }
}
