//! A stream, and at its end how it is split into reads.
#![no_main]

#[path = "../laws/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each target calls some of the laws")]
mod laws;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| laws::framing(octets));
