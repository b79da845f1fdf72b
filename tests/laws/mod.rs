//! The laws of the codec: functions over octets that panic when a law is broken.
//!
//! Property tests feed them packets that they make, `it/wire_mutations.rs` feeds them packets of real senders gone
//! wrong, and the fuzz targets whatever they find. All of them call the same functions.
//!
//! A law that needs choices (which edit, where to split) takes them from the end of the octets, so that a fuzzer
//! steers them and a failure repeats. See [`dice::Dice`].

mod decode;
pub(crate) mod dice;
mod draft;
mod framer;
mod inflate;
mod pack;
mod sip;

pub(crate) use decode::decoding;
pub(crate) use draft::editing;
pub(crate) use framer::framing;
pub(crate) use inflate::inflating;
pub(crate) use pack::{packing, repacking};
pub(crate) use sip::scanning;
