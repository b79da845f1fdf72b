//! Who owns a packet, and what it goes through: the tenants' rules, their chains of filters in the two lanes, and
//! their routes.
//!
//! [`Chains`] is the actor: one on each worker, with a chain of each tenant. It is a shell over [`TenantTable`] (whose
//! is it), [`Chain`] (what the filters say) and [`SlowLane`] (where chains run that missed a deadline).

mod actor;
mod chain;
mod evidence;
mod quota;
mod seat;
mod slow;
mod standing;
mod table;

pub use actor::{Chains, Change, HomeChange, HomeSettings};
pub use chain::{Chain, Lane};
pub use evidence::{Case, Evidence, EvidenceLimits};
pub use quota::Quota;
pub use seat::Seat;
pub use slow::SlowLane;
pub use standing::{Report, Standing};
pub use table::{KeyError, TenantTable};
