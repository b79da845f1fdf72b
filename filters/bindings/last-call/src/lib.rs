//! For filters that want to be called before the end: beside `hepgate_filter::filter!(Type)`,
//! `hepgate_last_call::last_call!(Type)`.
//!
//! A crate of its own, because a component exports what the crates in it are made for: a filter without a last call
//! must not have this one.

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

/// A filter that is called before the end.
pub trait LastCall {
    /// Called once, as the last call of an instance that ends in order: the gateway stops, another version takes over,
    /// or the instance is replaced because it has grown. It may send, log, count and remember. After a panic there is
    /// none.
    fn on_stop(&mut self);
}

/// Gives a filter's type a last call. Once in a crate, at its root, after `hepgate_filter::filter!` or
/// `hepgate_kit::packet_filter!`.
#[macro_export]
macro_rules! last_call {
    ($filter:ty) => {
        #[doc(hidden)]
        #[allow(dead_code, reason = "tests on this machine export nothing")]
        mod __hepgate_last_call {
            use super::*;

            struct Exported;

            impl $crate::generated::exports::hep::filter::last_call::Guest for Exported {
                fn on_stop() {
                    // Without a filter, init has failed, and nobody calls.
                    let _ = super::__hepgate::with(|filter| <$filter as $crate::LastCall>::on_stop(filter));
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::generated::export!(Exported with_types_in $crate::generated);
        }
    };
}
