//! Loom models of netpoll's protocols: the crate's own source files over loom's types.
