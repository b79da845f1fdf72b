//! `hep_id`: collectors as OpenSIPS writes them, `[homer] 10.0.0.1:9060; transport=udp; version=3`.

use std::path::Path;

use super::reader::{Placed, Section};
use super::{Collector, ProtoHep, RemoteAddr, Transport, VersionOut, collector};
use crate::wire::Version;

/// What one string says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct HepId {
    name: String,
    to: RemoteAddr,
    version: Version,
}

/// The collector that a string makes, with every other setting at its default. `section` is `[proto_hep]`.
pub(super) fn read(
    section: &Section<'_, '_>,
    hep_id: Placed<String>,
    proto_hep: &ProtoHep,
    folder: &Path,
) -> Option<Collector> {
    let Placed { value, place } = hep_id;
    let parsed = match parse(&value, proto_hep.hep_port) {
        Ok(parsed) => parsed,
        Err(reason) => {
            section.complain(&place, reason);
            return None;
        }
    };
    let name = section.claim_name("collector", Placed { value: parsed.name, place: place.clone() })?;
    // Nothing else is said of it: an empty table gives each key its default.
    let mut unsaid = section.unsaid(place);
    Some(collector::to_remote(&mut unsaid, name, parsed.to, VersionOut::Only(parsed.version), proto_hep, folder))
}

/// `[NAME] HOST[:PORT][; transport=tcp|udp|tls][; version=1|2|3]`. Without a version it is 3; without a transport TCP for
/// 3 and UDP for 1 and 2, which have no other.
fn parse(text: &str, hep_port: u16) -> Result<HepId, String> {
    let form = "a hep_id is \"[name] host:port; transport=tcp|udp|tls; version=1|2|3\"";
    let named = text.trim().strip_prefix('[').ok_or_else(|| format!("{text:?} does not begin with [name]; {form}"))?;
    let (name, rest) = named.split_once(']').ok_or_else(|| format!("{text:?} lacks the ] behind its name; {form}"))?;
    let mut parts = rest.split(';').map(str::trim);
    let host = parts.next().unwrap_or_default();
    let (mut transport, mut version) = (None, None);
    for part in parts.filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE; {form}"))?;
        let twice = match key.trim().to_ascii_lowercase().as_str() {
            "transport" => transport.replace(parse_transport(value.trim())?).is_some(),
            "version" => version.replace(parse_version(value.trim())?).is_some(),
            _ => return Err(format!("{:?} is unknown; known here: transport, version", key.trim())),
        };
        if twice {
            return Err(format!("{:?} comes twice", key.trim()));
        }
    }
    let version = version.unwrap_or(Version::Hep3);
    let transport = match (transport, version) {
        (Some(Transport::Udp), _) | (None, Version::Hep1 | Version::Hep2) => Transport::Udp,
        (Some(transport), Version::Hep3) => transport,
        (None, Version::Hep3) => Transport::Tcp,
        (Some(transport), Version::Hep1 | Version::Hep2) => {
            let (transport, number) = (transport.as_str(), version.number());
            return Err(format!("transport={transport} takes version 3 only; version {number} goes over udp"));
        }
    };
    Ok(HepId { name: name.trim().to_owned(), to: RemoteAddr::parse_at(transport, host, hep_port)?, version })
}

fn parse_transport(value: &str) -> Result<Transport, String> {
    match value.to_ascii_lowercase().as_str() {
        "udp" => Ok(Transport::Udp),
        "tcp" => Ok(Transport::Tcp),
        "tls" => Ok(Transport::Tls),
        _ => Err(format!("transport={value} is not one of tcp, udp, tls")),
    }
}

fn parse_version(value: &str) -> Result<Version, String> {
    let version = value.parse().ok().and_then(Version::from_number);
    version.ok_or_else(|| format!("version={value} is not one of 1, 2, 3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hep_id_is_read_as_opensips_writes_it() {
        for (text, name, to, version) in [
            ("[homer] 10.0.0.1:9060; transport=udp; version=3", "homer", "hep_udp:10.0.0.1:9060", 3),
            ("[hep_dst]10.0.0.2;version=2", "hep_dst", "hep_udp:10.0.0.2:5656", 2),
            ("[a] homer.example.org", "a", "hep_tcp:homer.example.org:5656", 3),
            ("[a] homer ; version = 1 ;", "a", "hep_udp:homer:5656", 1),
            ("[ a ] homer:1; Transport=TCP", "a", "hep_tcp:homer:1", 3),
            ("[a] [2001:db8::1]:9060; transport=tcp; version=3", "a", "hep_tcp:[2001:db8::1]:9060", 3),
            ("[a] homer.example.org:9061; transport=tls", "a", "hep_tls:homer.example.org:9061", 3),
            ("[a] [::1]", "a", "hep_tcp:[::1]:5656", 3),
        ] {
            let read = parse(text, 5_656).unwrap();
            assert_eq!((read.name.as_str(), read.to.to_string().as_str()), (name, to), "{text}");
            assert_eq!(read.version.number(), version, "{text}");
        }
    }

    #[test]
    fn a_wrong_hep_id_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "does not begin with [name]"),
            ("homer:9060", "does not begin with [name]"),
            ("[homer 10.0.0.1", "lacks the ] behind its name"),
            ("[homer]", "names no host"),
            ("[homer] ; version=3", "names no host"),
            ("[homer] 10.0.0.1:0", "port 0"),
            ("[homer] 10.0.0.1:65536", "is not a port"),
            ("[homer] ::1:9060", "stands in brackets"),
            ("[homer] 10.0.0.1 9060", "has a space in it"),
            ("[homer] a; version=4", "version=4 is not one of 1, 2, 3"),
            ("[homer] a; version=0", "version=0 is not one of 1, 2, 3"),
            ("[homer] a; transport=sctp", "transport=sctp is not one of tcp, udp, tls"),
            ("[homer] a; transport=tls; version=1", "transport=tls takes version 3 only; version 1 goes over udp"),
            ("[homer] a; transport=tcp; version=2", "transport=tcp takes version 3 only; version 2 goes over udp"),
            ("[homer] a; version", "\"version\" is not KEY=VALUE"),
            ("[homer] a; proto=udp", "\"proto\" is unknown; known here: transport, version"),
            ("[homer] a; version=3; version=3", "\"version\" comes twice"),
        ] {
            let refused = parse(text, 5_656).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
