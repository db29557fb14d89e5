//! The fuzz target `sockets`, as a binary for `cargo fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpoll_fuzz::sockets::operations(data));
