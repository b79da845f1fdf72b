//! The integration tests: one binary, so that everything is linked once.

/// What filters may do and what becomes of those that do more.
mod filter;
/// What several of the modules here need.
mod support;
