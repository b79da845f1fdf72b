//! What a hepgate filter in Rust is written against: the interface of `wit/`, and a few lines around it.
//!
//! A filter is a type that implements [`Filter`] and is named to [`filter!`]:
//!
//! ```
//! use hepgate_filter::{Batch, Config, Filter, Verdict};
//!
//! struct NoLogs;
//!
//! impl Filter for NoLogs {
//!     fn new(config: Config) -> Result<Self, String> {
//!         config.finish()?;
//!         Ok(Self)
//!     }
//!
//!     fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
//!         let packets = hepgate_filter::scalars(batch);
//!         packets.iter().map(|packet| if packet.payload_type == 100 { Verdict::Drop } else { Verdict::Pass }).collect()
//!     }
//! }
//!
//! hepgate_filter::filter!(NoLogs);
//! # fn main() {}
//! ```

mod config;
#[doc(hidden)]
#[allow(
    missing_docs,
    unused_qualifications,
    elided_lifetimes_in_paths,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    clippy::nursery,
    reason = "generated"
)]
#[rustfmt::skip]
pub mod generated;

pub use config::Config;
/// When the call at hand began.
pub use generated::hep::filter::clock;
pub use generated::hep::filter::log::Level;
pub use generated::hep::filter::metrics::{Counter, Gauge, Histogram, MetricError};
pub use generated::hep::filter::packets::{Batch, Scalars, Sender, Span};
pub use generated::hep::filter::packing::Packet;
pub use generated::hep::filter::sending::{Collector, OpenError, SendError};
/// What the filter remembers beyond an instance.
pub use generated::hep::filter::state;
/// Which packets the filter wants to see; said in [`Filter::new`].
pub use generated::hep::filter::subscription;
pub use generated::hep::filter::types::{
    Chunk, ChunkForm, ChunkId, ChunkValue, EditError, Endpoint, IpAddress, Verdict,
};

/// The payload is compressed and cannot be read; one that can reads inflated. A bit of [`Scalars::marks`].
pub const COMPRESSED: u8 = 1;
/// A careless receiver could read another payload than this one. A bit of [`Scalars::marks`].
pub const AMBIGUOUS: u8 = 2;
/// An earlier filter of the chain has skipped the packet. A bit of [`Scalars::marks`].
pub const SKIPPED: u8 = 4;
/// The packet has no payload. A bit of [`Scalars::marks`].
pub const NO_PAYLOAD: u8 = 8;

/// Payload type of SIP.
pub const SIP: u8 = 1;
/// Payload type of log lines.
pub const LOG: u8 = 100;

/// A filter. An instance of it lives as long as nothing goes wrong: after a panic, a new one is made.
pub trait Filter: Sized + 'static {
    /// Called once, before anything else, with what the operator wrote into the filter's `config` table.
    ///
    /// # Errors
    /// A sentence for the operator; at start-up it keeps the gateway from starting.
    fn new(config: Config) -> Result<Self, String>;

    /// Called with packets in the order in which they came. One verdict for each, or none at all to pass them all.
    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict>;
}

/// Writes a line to the gateway's log, with the filter's name beside it.
pub fn log(level: Level, line: &str) {
    generated::hep::filter::log::log(level, line);
}

/// The scalars of all packets of a batch: what [`Batch::scalars`] gives, for a third of its price.
#[must_use]
pub fn scalars(batch: &Batch) -> Vec<Scalars> {
    unpacked(&batch.packed_scalars()).collect()
}

/// The scalars that numbers of [`Batch::packed_scalars`] say, a packet after the other.
#[inline]
pub fn unpacked(numbers: &[u32]) -> impl ExactSizeIterator<Item = Scalars> + '_ {
    let (packets, _) = numbers.as_chunks::<16>();
    packets.iter().map(|[kinds, ports, agent_id, payload_length, low, high, addresses, _, ends @ ..]| {
        let [version, ip_protocol, payload_type, marks] = kinds.to_le_bytes();
        let [source_kind, destination_kind, ..] = addresses.to_le_bytes();
        let [s0, s1, s2, s3, d0, d1, d2, d3] = *ends;
        Scalars {
            version,
            ip_protocol,
            payload_type,
            marks,
            source_port: (ports & 0xffff) as u16,
            destination_port: (ports >> 16) as u16,
            agent_id: *agent_id,
            payload_length: *payload_length,
            source: unpacked_address(source_kind, [s0, s1, s2, s3]),
            destination: unpacked_address(destination_kind, [d0, d1, d2, d3]),
            captured_at: both(*high, *low),
        }
    })
}

#[inline]
const fn unpacked_address(kind: u8, [n0, n1, n2, n3]: [u32; 4]) -> IpAddress {
    match kind {
        4 => IpAddress::Ipv4(n0),
        6 => IpAddress::Ipv6((both(n0, n1), both(n2, n3))),
        _ => IpAddress::None,
    }
}

#[inline]
const fn both(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// Octets of every payload in a batch, of each the first `max`: one call for all of them.
#[derive(Debug)]
pub struct Payloads {
    octets: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Payloads {
    /// Reads them. `packets` are the batch's scalars.
    #[must_use]
    pub fn read(batch: &Batch, packets: &[Scalars], max: u32) -> Self {
        let mut end = 0;
        let mut ends = Vec::with_capacity(packets.len());
        for packet in packets {
            end += usize::try_from(packet.payload_length.min(max)).unwrap_or(0);
            ends.push(end);
        }
        Self { octets: batch.payloads(max), ends }
    }

    /// What was read of the payload of one packet.
    #[must_use]
    pub fn of(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|end| self.octets.get(start..*end)).unwrap_or_default()
    }
}

/// Makes a type the filter of this component. Once in a crate, at its root.
#[macro_export]
macro_rules! filter {
    ($filter:ty) => {
        #[doc(hidden)]
        #[allow(dead_code, reason = "tests on this machine export nothing")]
        mod __hepgate {
            use super::*;

            std::thread_local! {
                static FILTER: std::cell::RefCell<Option<$filter>> = const { std::cell::RefCell::new(None) };
            }

            pub(crate) fn with<R>(call: impl FnOnce(&mut $filter) -> R) -> Option<R> {
                FILTER.with_borrow_mut(|filter| filter.as_mut().map(call))
            }

            struct Exported;

            impl $crate::generated::exports::hep::filter::callbacks::Guest for Exported {
                fn init() -> Result<(), String> {
                    $crate::log_panics();
                    let filter = <$filter as $crate::Filter>::new($crate::Config::read())?;
                    FILTER.set(Some(filter));
                    Ok(())
                }

                fn on_batch(batch: &$crate::Batch) -> Vec<$crate::Verdict> {
                    with(|filter| $crate::Filter::on_batch(filter, batch)).unwrap_or_default()
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::generated::export!(Exported with_types_in $crate::generated);
        }
    };
}

/// Panics say their text in the gateway's log: the trap that follows has none.
#[doc(hidden)]
pub fn log_panics() {
    // On one line, as the log has it.
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string().replace('\n', " "))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unpacked_as_the_interface_says() {
        let ipv4 = [
            0x0801_1103,
            0x13c4_13d8,
            2_001,
            700,
            0x0000_0005,
            0x0000_0001,
            0x0404,
            0,
            0x0a00_0001,
            0,
            0,
            0,
            0x0a00_0002,
            0,
            0,
            0,
        ];
        let ipv6 = [1, 0, 0, 0, 0, 0, 0x0006, 0, 0x2001_0db8, 0, 0, 0x0000_0007, 9, 9, 9, 9];
        // What follows the last whole packet is not one.
        let numbers = [&ipv4[..], &ipv6, &[1, 2, 3]].concat();
        let all: Vec<Scalars> = unpacked(&numbers).collect();
        let [first, second] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(
            (first.version, first.ip_protocol, first.payload_type, first.marks),
            (3, 17, 1, NO_PAYLOAD),
            "{first:?}"
        );
        assert_eq!((first.source_port, first.destination_port), (5_080, 5_060));
        assert_eq!((first.agent_id, first.payload_length, first.captured_at), (2_001, 700, 0x1_0000_0005));
        assert!(matches!(first.source, IpAddress::Ipv4(0x0a00_0001)), "{first:?}");
        assert!(matches!(first.destination, IpAddress::Ipv4(0x0a00_0002)), "{first:?}");
        assert!(matches!(second.source, IpAddress::Ipv6((0x2001_0db8_0000_0000, 7))), "{second:?}");
        assert!(matches!(second.destination, IpAddress::None), "{second:?}");
    }
}
