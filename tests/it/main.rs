//! What users and neighbours of hepgate see, tested from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

/// Captures of every kind give the packets that are in them.
mod capture;
/// `hepgate dump` prints what is in a capture, and nothing secret.
mod dump;
/// `hepgate send` brings a capture to a collector.
mod send;
