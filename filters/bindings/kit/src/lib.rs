//! Hepgate filters packet by packet: a callback over the batches that the gateway calls a filter with, SIP without
//! copies, and a bounded memory. Everything of `hepgate_filter` is here too.
//!
//! A filter is a type that implements [`PacketFilter`] and is named to [`packet_filter!`]:
//!
//! ```
//! use hepgate_kit::{Config, PacketFilter, PacketView, Verdict};
//!
//! struct NoOptions;
//!
//! impl PacketFilter for NoOptions {
//!     const PREFIX_OCTETS: u32 = 1_024;
//!
//!     fn new(config: Config) -> Result<Self, String> {
//!         config.finish()?; // no key is known
//!         Ok(Self)
//!     }
//!
//!     fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
//!         if packet.method().as_deref() == Some(b"OPTIONS") { Verdict::Drop } else { Verdict::Pass }
//!     }
//! }
//!
//! hepgate_kit::packet_filter!(NoOptions);
//! # fn main() {}
//! ```

pub mod recent;
pub mod sip;
mod view;

#[doc(hidden)]
pub use hepgate_filter;
pub use hepgate_filter::*;
pub use view::{Call, PacketView};

use std::ops::{Deref, DerefMut};

/// A filter that looks at one packet after the other. An instance of it lives as long as nothing goes wrong: after a
/// panic, a new one is made.
pub trait PacketFilter: Sized + 'static {
    /// Octets of each payload that are read, with one host call for all packets: 0 for none, [`u32::MAX`] for all.
    const PREFIX_OCTETS: u32 = 0;

    /// The same for a filter whose configuration decides.
    #[inline]
    fn prefix_octets(&self) -> u32 {
        Self::PREFIX_OCTETS
    }

    /// Called once, before anything else, with what the operator wrote into the filter's `config` table.
    ///
    /// # Errors
    /// A sentence for the operator; at start-up it keeps the gateway from starting.
    fn new(config: Config) -> Result<Self, String>;

    /// Called with each packet, in the order in which they came.
    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict;

    /// Called after the last packet of a call: the place to tell the host what was counted, once for all of them.
    #[inline]
    fn after_batch(&mut self) {}
}

/// What makes a [`Filter`] of a [`PacketFilter`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Packets<F>(F);

impl<F: PacketFilter> Filter for Packets<F> {
    fn new(config: Config) -> Result<Self, String> {
        F::new(config).map(Self)
    }

    #[inline]
    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
        let numbers = batch.packed_scalars();
        let packets = unpacked(&numbers);
        let wanted = self.0.prefix_octets();
        let payloads = if wanted == 0 { Vec::new() } else { batch.payloads(wanted) };
        let mut payloads = payloads.as_slice();
        let call = Call::new(batch);
        let mut verdicts = Vec::with_capacity(packets.len());
        for (index, scalars) in (0..).zip(packets) {
            let share = usize::try_from(scalars.payload_length.min(wanted)).unwrap_or(usize::MAX);
            let (payload, behind) = payloads.split_at_checked(share).unwrap_or((payloads, &[]));
            payloads = behind;
            verdicts.push(self.0.on_packet(&PacketView::new(&call, index, &scalars, payload)));
        }
        self.0.after_batch();
        verdicts
    }
}

// So that what ticks, and what has a last call, is the filter itself.
impl<F> Deref for Packets<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.0
    }
}

impl<F> DerefMut for Packets<F> {
    fn deref_mut(&mut self) -> &mut F {
        &mut self.0
    }
}

/// Makes a type the filter of this component. Once in a crate, at its root. A panic says its text in the gateway's log.
#[macro_export]
macro_rules! packet_filter {
    ($filter:ty) => {
        $crate::hepgate_filter::filter!($crate::Packets<$filter>);
    };
}
