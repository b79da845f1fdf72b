#![doc = include_str!("README.md")]

pub mod guest;
pub mod pace;
pub mod wire;

pub mod config;

pub mod ledger;
pub mod message;
pub mod tls;

pub mod filter;
mod pcapng;

pub mod collector;
pub mod listener;
pub mod tenant;

pub mod admin;

pub mod gateway;

pub mod cli;
