//! A descriptor and the calls on it: [`fd`](self::fd) is the number and how it is closed, [`operation`] makes calls and waits, [`fd_mutex`] says
//! who may call, [`connect`] and [`fast_open`] begin TCP connections, [`deferred`] ends those that have not begun, and [`failure`] is why
//! a call failed.
//!
//! This floor knows descriptors only. It imports nothing else of `net`: what a layer above wants done at a close is given to it as a
//! [`Guard`](fd::Guard) or as [`Loans`](fd::Loans).

pub(crate) mod connect;
mod deferred;
pub(crate) mod failure;
mod fast_open;
#[allow(clippy::module_inception)]
pub(crate) mod fd;
pub(crate) mod fd_mutex;
pub(crate) mod operation;
