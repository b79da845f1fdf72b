//! What may be a compressed payload, and at its end how long it may become.
#![no_main]

#[path = "../laws/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each target calls some of the laws")]
mod laws;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| laws::inflating(octets));
