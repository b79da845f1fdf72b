//! Load and what it costs: packets, the agent that sends them, the collector that counts them, the process between the
//! two, and a bare relay in its place.
#![allow(dead_code, reason = "no bench needs all of it")]

pub(crate) mod packets;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod run;
pub(crate) mod traffic;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The part of a relay, if this process was started for that. Every bench that has a floor begins with it.
pub(crate) fn is_relay() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, relay, from, to, port, slot_octets] if relay == "relay" => {
            let to = (to != "nowhere").then(|| traffic::Transport::parse(to));
            relay::run(traffic::Transport::parse(from), to, port.parse().unwrap(), slot_octets.parse().unwrap());
            true
        }
        _ => false,
    }
}

/// As many open files as the system lets us have, for us and the processes that we start.
pub(crate) fn raise_open_files() -> u64 {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    most
}
