//! Components of our interface, made of core modules: those that other tool chains make, and those in a few lines of text.

mod componentize;
mod few_lines;
mod interface;
mod mend;

pub use componentize::{GuestError, componentize};
pub use few_lines::{Guest, component, component_with};
pub use interface::INTERFACE;
pub use mend::{MendError, mend};
