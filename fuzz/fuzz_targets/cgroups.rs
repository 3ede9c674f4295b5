#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tcp_tools::hostile::cgroups(bytes));
