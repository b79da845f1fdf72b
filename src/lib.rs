//! hepgate
pub mod config;
pub mod ledger;
pub mod pace;
pub mod wire;
