//! Where HEP goes: actors that own one way out each.
//!
//! [`UdpCollector`] and [`TcpCollector`] live on the worker whose chains feed them, so that a packet leaves on the
//! thread on which it came. [`FileCollector`] has a thread of its own, because disks stall. What does not go out at
//! once is [`Postponed`](postponed::Postponed), within bounds; every packet ends as sent or as dropped with a reason.

mod attempts;
mod channel;
mod connect;
mod counter;
mod encode;
mod file;
mod postponed;
mod rotation;
mod tcp;
mod udp;

pub use counter::Counter;
pub use encode::{Encoding, STREAM_VERSION};
pub use file::{FileCollector, FileError};
pub use tcp::TcpCollector;
pub use udp::{UdpCollector, UdpError};
