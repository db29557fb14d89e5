//! The fuzz target `timers`, as a binary for `cargo fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpoll_fuzz::state::timers(data));
