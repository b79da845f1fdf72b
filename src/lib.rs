//! hepgate
pub mod collector;
pub mod config;
pub mod filter;
pub mod ledger;
pub mod listener;
pub mod message;
pub mod pace;
pub mod tenant;
pub mod wire;
