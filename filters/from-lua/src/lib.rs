//! The Lua script of `config/migration.md`, as a filter.

use hepgate_filter::{
    Batch, ChunkId, Config, EditError, Endpoint, Filter, IpAddress, Level, SIP, Scalars, Verdict, log,
};

/// Ours inside, and what the world sees of it.
const INSIDE: IpAddress = IpAddress::Ipv4(u32::from_be_bytes([10, 0, 0, 5]));
const OUTSIDE: IpAddress = IpAddress::Ipv4(u32::from_be_bytes([192, 0, 2, 5]));
/// The agent's name.
const NODE_NAME: ChunkId = ChunkId { vendor: 0, kind: 0x13 };

struct FromLua;

impl Filter for FromLua {
    fn new(config: Config) -> Result<Self, String> {
        config.finish()?;
        Ok(Self)
    }

    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
        for (index, packet) in (0..).zip(batch.scalars()) {
            let changed = check_raw(batch, index, &packet).and_then(|()| name_node(batch, index, &packet));
            if let Err(error) = changed {
                log(Level::Error, &format!("a packet stays as it was: {error}"));
            }
        }
        // An empty list passes them all.
        Vec::new()
    }
}

fn check_raw(batch: &Batch, index: u32, packet: &Scalars) -> Result<(), EditError> {
    if packet.payload_type != SIP {
        return Ok(());
    }
    if is_inside(packet.source) {
        let source = Endpoint { address: OUTSIDE, port: packet.source_port };
        let destination = Endpoint { address: packet.destination, port: packet.destination_port };
        batch.set_flow(index, source, destination)?;
    }
    // Only the packets that matter are read whole: what a filter does not ask for does not move.
    if batch.payload(index, 0, 7) == b"CANCEL " {
        let raw = batch.payload(index, 0, packet.payload_length);
        batch.set_payload(index, &without_user_agent(&raw))?;
    }
    Ok(())
}

fn name_node(batch: &Batch, index: u32, packet: &Scalars) -> Result<(), EditError> {
    if packet.agent_id == 2_001 {
        batch.set_chunk(index, NODE_NAME, b"edge-1")?;
    }
    Ok(())
}

fn is_inside(address: IpAddress) -> bool {
    matches!((address, INSIDE), (IpAddress::Ipv4(address), IpAddress::Ipv4(inside)) if address == inside)
}

/// The message with another value in its User-Agent.
fn without_user_agent(raw: &[u8]) -> Vec<u8> {
    let lines = raw.split_inclusive(|octet| *octet == b'\n');
    let hide = |line: &[u8]| match line.starts_with(b"User-Agent:") {
        true => b"User-Agent: hidden\r\n".to_vec(),
        false => line.to_vec(),
    };
    lines.flat_map(hide).collect()
}

hepgate_filter::filter!(FromLua);
