//! Sockets.
mod fd;
