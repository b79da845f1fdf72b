//! hepgate

pub mod wire;
