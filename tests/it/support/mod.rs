//! What several of the test modules need.

pub(crate) mod guest;
