//! The codec of the gateway and nothing else of it.

#[path = "../../src/wire/mod.rs"]
pub mod wire;
