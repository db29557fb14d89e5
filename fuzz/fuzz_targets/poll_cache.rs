//! The fuzz target `poll_cache`, as a binary for `cargo fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpoll_fuzz::state::poll_cache(data));
