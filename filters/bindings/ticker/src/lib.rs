//! For filters that want to be called now and then without packets: beside `hepgate_filter::filter!(Type)`,
//! `hepgate_ticker::ticker!(Type)`. How often is the operator's `tick`.
//!
//! A crate of its own, because a component exports what the crates in it are made for: a filter without a ticker must
//! not have this one.

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

/// A filter that ticks.
pub trait Ticker {
    /// Called about as often as the operator's `tick` says.
    fn on_tick(&mut self);
}

/// Makes a filter's type tick. Once in a crate, at its root, after `hepgate_filter::filter!` or
/// `hepgate_kit::packet_filter!`.
#[macro_export]
macro_rules! ticker {
    ($filter:ty) => {
        #[doc(hidden)]
        #[allow(dead_code, reason = "tests on this machine export nothing")]
        mod __hepgate_ticker {
            use super::*;

            struct Exported;

            impl $crate::generated::exports::hep::filter::ticker::Guest for Exported {
                fn on_tick() {
                    // Without a filter, init has failed, and nobody calls.
                    let _ = super::__hepgate::with(|filter| <$filter as $crate::Ticker>::on_tick(filter));
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::generated::export!(Exported with_types_in $crate::generated);
        }
    };
}
