//! hepgate

pub mod cli;
pub mod wire;
