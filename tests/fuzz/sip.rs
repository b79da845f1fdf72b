//! What may be SIP.
#![no_main]

#[path = "../laws/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each target calls some of the laws")]
mod laws;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| laws::scanning(octets));
