//! What several of the test modules need.

pub mod guest;
