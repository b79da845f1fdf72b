//! Counts what passes and sends the counts as a HEP log packet, on every tick or after a number of packets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use hepgate_filter::{
    Batch, COMPRESSED, Collector, Config, Endpoint, Filter, IpAddress, LOG, Level, Packet, Payloads, SIP, Verdict, log,
    scalars,
};

/// Octets of each payload that are read: a start line.
const PREFIX: u32 = 64;
/// The same if calls are counted: most headers.
const HEADERS: u32 = 2_048;
/// Names of methods that are counted each for itself; the rest is `other`, so that nonsense takes no memory.
const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "REGISTER",
    "OPTIONS",
    "PRACK",
    "SUBSCRIBE",
    "NOTIFY",
    "PUBLISH",
    "INFO",
    "REFER",
    "MESSAGE",
    "UPDATE",
];
/// Calls of one report that are told apart: a hash of eight octets each.
const CALLS_MAX: usize = 65_536;
/// UDP, as which the report goes out.
const UDP: u8 = 17;
/// The packet's source and destination: the gateway itself.
const OURS: Endpoint = Endpoint { address: IpAddress::Ipv4(0x7f00_0001), port: 0 };

struct Report {
    collector: Collector,
    /// Send after so many packets; 0: on ticks only.
    every: u64,
    /// How many must be counted before the next try, which is further away after one that failed.
    due_at: u64,
    calls: bool,
    counts: Counts,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Counts {
    packets: u64,
    octets: u64,
    not_sip: u64,
    requests: BTreeMap<&'static str, u64>,
    /// By their first digit.
    responses: BTreeMap<char, u64>,
    calls: BTreeSet<u64>,
}

impl Filter for Report {
    fn new(mut config: Config) -> Result<Self, String> {
        let name = config.take("collector").ok_or("config key \"collector\" is missing: where the reports go")?;
        let every = config.parse("every", 0, "a number of packets (0: on ticks only)")?;
        let calls = config.parse("calls", false, "true or false")?;
        config.finish()?;
        let collector = Collector::open(&name)
            .map_err(|_| format!("config key \"collector\": {name:?} is not among this filter's collectors = [...]"))?;
        Ok(Self { collector, every, due_at: every, calls, counts: Counts::default() })
    }

    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
        let packets = scalars(batch);
        let payloads = Payloads::read(batch, &packets, if self.calls { HEADERS } else { PREFIX });
        for (place, packet) in packets.iter().enumerate() {
            let is_sip = packet.payload_type == SIP && packet.marks & COMPRESSED == 0;
            let sip = is_sip.then(|| payloads.of(place));
            self.counts.add(packet.payload_length, sip, self.calls);
            if self.every > 0 && self.counts.packets >= self.due_at {
                self.send();
            }
        }
        Vec::new()
    }
}

impl hepgate_ticker::Ticker for Report {
    fn on_tick(&mut self) {
        self.send();
    }
}

impl Report {
    /// Sends what was counted, if anything, and begins anew. What cannot be sent is counted on.
    fn send(&mut self) {
        if self.counts.packets == 0 {
            return;
        }
        let text = self.counts.text(self.calls);
        let packet = match Packet::pack(OURS, OURS, UDP, LOG, text.as_bytes()) {
            Ok(packet) => packet,
            Err(error) => return log(Level::Error, &format!("no report: {error}")),
        };
        match self.collector.send(&packet) {
            Ok(()) => {
                self.counts = Counts::default();
                self.due_at = self.every;
            }
            Err(error) => {
                self.due_at = self.counts.packets + self.every;
                log(Level::Warn, &format!("the report waits for the next one: {error}"));
            }
        }
    }
}

impl Counts {
    /// `sip`: the beginning of a SIP payload.
    fn add(&mut self, octets: u32, sip: Option<&[u8]>, calls: bool) {
        self.packets += 1;
        self.octets += u64::from(octets);
        let Some(sip) = sip else {
            self.not_sip += 1;
            return;
        };
        match sip.strip_prefix(b"SIP/2.0 ").and_then(<[u8]>::first) {
            Some(digit @ b'1'..=b'6') => *self.responses.entry(char::from(*digit)).or_default() += 1,
            _ => *self.requests.entry(known_method(sip)).or_default() += 1,
        }
        if let Some(call_id) = call_id(sip).filter(|_| calls && self.calls.len() < CALLS_MAX) {
            self.calls.insert(fnv1a(call_id));
        }
    }

    /// One JSON object.
    fn text(&self, calls: bool) -> String {
        let list = |entries: Vec<String>| entries.join(",");
        let requests = list(self.requests.iter().map(|(method, n)| format!("\"{method}\":{n}")).collect());
        let responses = list(self.responses.iter().map(|(class, n)| format!("\"{class}xx\":{n}")).collect());
        let Self { packets, octets, not_sip, .. } = self;
        let mut text = format!(
            "{{\"report\":\"hepgate\",\"packets\":{packets},\"payload_octets\":{octets},\"not_sip\":{not_sip},\
             \"requests\":{{{requests}}},\"responses\":{{{responses}}}"
        );
        if calls {
            // Writing into a String does not fail.
            let _ = write!(text, ",\"calls\":{}", self.calls.len());
        }
        text.push('}');
        text
    }
}

fn known_method(sip: &[u8]) -> &'static str {
    let end = sip.iter().position(|octet| *octet == b' ').unwrap_or(0);
    let method = sip.get(..end).unwrap_or_default();
    METHODS.into_iter().find(|known| known.as_bytes() == method).unwrap_or("other")
}

/// The Call-ID header's value, also in its compact form.
fn call_id(sip: &[u8]) -> Option<&[u8]> {
    for line in sip.split(|octet| *octet == b'\n').take_while(|line| !line.trim_ascii().is_empty()) {
        let Some((name, value)) = line.iter().position(|octet| *octet == b':').and_then(|at| line.split_at_checked(at))
        else {
            continue;
        };
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"Call-ID") || name.eq_ignore_ascii_case(b"i") {
            return Some(value.get(1..)?.trim_ascii());
        }
    }
    None
}

/// A hash to tell calls apart (FNV-1a, 64 bits). Who makes calls collide makes them count as one.
fn fnv1a(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}

hepgate_filter::filter!(Report);
hepgate_ticker::ticker!(Report);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_responses_and_the_rest_are_counted() {
        let mut counts = Counts::default();
        for sip in [
            &b"INVITE sip:a SIP/2.0\r\nCall-ID: one\r\n\r\n"[..],
            b"SIP/2.0 180 Ringing\r\ni: one\r\n\r\n",
            b"SIP/2.0 200 OK\r\nCALL-ID:one\r\n\r\n",
            b"INVITE sip:b SIP/2.0\r\nCall-ID: two\r\n\r\n",
            b"NONSENSE sip:b SIP/2.0\r\n",
            b"\r\n\r\n",
            b"SIP/2.0 999 What\r\n",
        ] {
            counts.add(10, Some(sip), true);
        }
        counts.add(7, None, true);
        assert_eq!(
            counts.text(true),
            "{\"report\":\"hepgate\",\"packets\":8,\"payload_octets\":77,\"not_sip\":1,\
             \"requests\":{\"INVITE\":2,\"other\":3},\"responses\":{\"1xx\":1,\"2xx\":1},\"calls\":2}"
        );
    }

    #[test]
    fn the_calls_that_are_told_apart_are_bounded() {
        let mut counts = Counts::default();
        for call in 0..CALLS_MAX + 10 {
            counts.add(0, Some(format!("BYE sip:a SIP/2.0\r\nCall-ID: {call}\r\n").as_bytes()), true);
        }
        assert_eq!(counts.calls.len(), CALLS_MAX);
    }
}
