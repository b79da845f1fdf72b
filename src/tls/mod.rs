//! TLS: certificates and keys out of files, and what they are used for. No socket in it.
//!
//! The library is rustls. Its own asynchronous streams are not used: they call octets written once they are encrypted,
//! and for a collector a packet is sent when the system has taken it. A [`ServerTunnel`] turns the octets of a
//! connection into what the agent said in them.

mod files;
mod server;

pub use files::{FileError, Trouble};
pub use server::{Acceptor, Reloaded, ServerTunnel, TunnelError};
