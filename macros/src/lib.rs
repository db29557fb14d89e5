//! Attribute macros of netpoll.
