//! pcapng files, as octets: their blocks, and the IP packets in them, made of HEP. No file in it.

mod block;
mod ip;

pub(crate) use block::{beginning, packet};
pub(crate) use ip::{IpMaker, NotMade};
