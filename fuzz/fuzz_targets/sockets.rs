#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netpoll_fuzz::sockets::operations(data));
