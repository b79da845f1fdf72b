//! The sandbox: runs filters, which are WebAssembly components that somebody else wrote. Only this module names
//! wasmtime. It knows no actor, socket or file but the component's own.
//!
//! [`Host`] is the engine. [`Host::load`] makes a checked and compiled [`Filter`] of a file; [`Filter::start`] makes an
//! [`Instance`] of it, which has a store of its own for life. A call of an instance is a transaction: what it edits and
//! sends takes effect when it returns well ([`Outcome`]), and not at all when it fails ([`Fault`]). After any failure
//! the instance must be thrown away: wasmtime does not mark every broken store as broken.
//!
//! What bounds a guest, and where:
//! - time: the epoch, set before instantiation, `init` and every call, and a look at the clock in host functions
//!   ([`ticker`], [`deadline`], [`instance`]);
//! - memory, tables, instances: the store's limiter and the pool ([`state`], [`engine`]);
//! - stack: the engine; handles and octets handed over in one host call: the store;
//! - host calls, octets moved, packets sent, log lines of a call: the host functions ([`state::Call`]).

mod anatomy;
mod belongings;
mod bindings;
mod cache;
mod component;
mod deadline;
mod engine;
mod fault;
mod guest_metrics;
mod host;
mod instance;
mod made;
mod peaks;
mod remembered;
mod state;
mod subscription;
mod ticker;
mod work;

pub use anatomy::{Anatomy, ImportClass};
pub use belongings::{Belongings, Surroundings};
pub use component::{Filter, LoadError, Unfit, sha256_hex};
pub use deadline::{Budget, Now};
pub use engine::{Host, HostError, Size};
pub use fault::Fault;
pub use guest_metrics::{GuestMetrics, MetricKind, MetricLimits, MetricSample, MetricValue};
pub use instance::{Instance, Outcome, Sent, Verdict};
pub use peaks::Peaks;
pub use remembered::Remembered;
pub use state::{Grant, LogLevel, LogLine};
pub use subscription::Wanted;
pub use work::{Mark, Part, Work};
