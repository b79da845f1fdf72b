//! Where HEP comes in: actors that own one socket or one connection each.
//!
//! [`bind()`] makes the sockets before any actor starts, so that a port in use is one sentence and nothing is half
//! started. [`UdpListener`] takes datagrams in batches, [`TcpListener`] takes connections, and each connection is an
//! actor of its own. All of them decode what comes and hand it on to a [`Recipient`](actix::Recipient) of
//! [`Batch`](crate::message::Batch), which somebody gave them.

mod bind;
mod connection;
mod intake;
mod limits;
mod readiness;
mod receive;
mod tcp;
mod udp;

pub use bind::{BindError, Bound, bind};
pub use intake::{Intake, Teller};
pub use limits::ConnectionLimits;
pub use tcp::TcpListener;
pub use udp::UdpListener;

/// Batches that one UDP listener may have under way to its worker's chains. They share a thread, so there is rarely
/// more than one; the bound is for the day when they do not keep up: 64 of 64 packets, 8 MiB of buffers.
pub const UDP_BATCHES_MAX: usize = 64;
/// Batches that one connection may have under way: one to work on, and one that was read meanwhile.
pub const CONNECTION_BATCHES_MAX: usize = 2;
