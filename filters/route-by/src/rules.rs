//! Rules: what a packet must be like, and the collectors that it goes to then.

use std::net::IpAddr;

use hepgate_kit::{IpAddress, sip};

/// What stands between a rule's conditions and its collectors.
const ARROW: &str = "->";
/// In the place of a collector: the tenant's own.
const PASS: &str = "pass";
/// Rules that are taken. Each is looked at for each packet, in the worst case.
pub(crate) const RULES_MAX: usize = 256;

/// What rules can ask of a packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) agent_id: u32,
    pub(crate) payload_type: u8,
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) method: Option<&'a [u8]>,
    /// Values of the headers.
    pub(crate) from: Option<&'a [u8]>,
    pub(crate) to: Option<&'a [u8]>,
}

/// All conditions must be true.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rule {
    conditions: Vec<Condition>,
    /// Places in [`Rules::collectors`].
    pub(crate) collectors: Vec<usize>,
    /// Whether the tenant's collectors have it, too.
    pub(crate) passes: bool,
}

/// One of the values must be true.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Condition {
    Agents(Vec<u32>),
    Types(Vec<u8>),
    Networks(Ends, Vec<Network>),
    Methods(Vec<String>),
    /// Beginnings of numbers, as [`number_of`] gives them.
    Numbers(Ends, Vec<String>),
}

/// Which end of a packet's way, or of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    First,
    Second,
    Either,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The rules in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    /// The collectors that they name, each once.
    pub(crate) collectors: Vec<String>,
    pub(crate) want_methods: bool,
    pub(crate) want_numbers: bool,
}

impl Rules {
    /// Reads rules, each with its key.
    pub(crate) fn read(rules: &[(String, String)]) -> Result<Self, String> {
        if rules.is_empty() {
            return Err("config key \"rule_1\" is missing: what goes where".to_owned());
        }
        if rules.len() > RULES_MAX {
            return Err(format!("there are {} rules; there may be {RULES_MAX}", rules.len()));
        }
        let mut read = Self::default();
        for (key, text) in rules {
            let rule = read.rule(text).map_err(|why| format!("config key {key:?}: {why}"))?;
            read.rules.push(rule);
        }
        Ok(read)
    }

    /// The first rule that the packet fulfils.
    pub(crate) fn find(&self, facts: &Facts<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.conditions.iter().all(|condition| condition.is_true(facts)))
    }

    fn rule(&mut self, text: &str) -> Result<Rule, String> {
        let Some((conditions, collectors)) = text.split_once(ARROW) else {
            return Err(format!("{text:?} has no {ARROW:?} before the collectors"));
        };
        let mut rule = Rule::default();
        for word in conditions.split_whitespace() {
            rule.conditions.push(self.condition(word)?);
        }
        for name in collectors.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == PASS {
                rule.passes = true;
                continue;
            }
            let place = self.collectors.iter().position(|known| known == name).unwrap_or_else(|| {
                self.collectors.push(name.to_owned());
                self.collectors.len() - 1
            });
            // Named twice is sent once.
            if !rule.collectors.contains(&place) {
                rule.collectors.push(place);
            }
        }
        if rule.collectors.is_empty() && !rule.passes {
            return Err(format!("{text:?} names no collector"));
        }
        Ok(rule)
    }

    fn condition(&mut self, word: &str) -> Result<Condition, String> {
        let Some((name, values)) = word.split_once('=') else {
            return Err(format!("{word:?} is no condition: NAME=VALUE,VALUE without spaces is one"));
        };
        let values: Vec<&str> = values.split(',').filter(|value| !value.is_empty()).collect();
        if values.is_empty() {
            return Err(format!("{word:?} has no value"));
        }
        match name {
            "agent" => {
                each(&values, "an agent id (0 to 4294967295)", |value| value.parse().ok()).map(Condition::Agents)
            }
            "type" => each(&values, "a payload type (0 to 255)", |value| value.parse().ok()).map(Condition::Types),
            "network" => each(&values, "a network", network).map(|values| Condition::Networks(Ends::Either, values)),
            "source" => each(&values, "a network", network).map(|values| Condition::Networks(Ends::First, values)),
            "destination" => {
                each(&values, "a network", network).map(|values| Condition::Networks(Ends::Second, values))
            }
            "method" => {
                self.want_methods = true;
                each(&values, "a SIP method", method).map(Condition::Methods)
            }
            "number" | "from" | "to" => {
                self.want_numbers = true;
                let ends = match name {
                    "from" => Ends::First,
                    "to" => Ends::Second,
                    _ => Ends::Either,
                };
                let number = |value: &str| Some(number_of(value.as_bytes())).filter(|number| !number.is_empty());
                each(&values, "the beginning of a number", number).map(|values| Condition::Numbers(ends, values))
            }
            name => Err(format!(
                "{name:?} is no condition; there are agent, type, network, source, destination, method, number, from, to"
            )),
        }
    }
}

fn each<T>(values: &[&str], wanted: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    values.iter().map(|value| read(value).ok_or_else(|| format!("{value:?} is not {wanted}"))).collect()
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(most), |prefix| prefix.parse().ok())?;
    (prefix <= most).then_some(Network { address, prefix })
}

fn method(text: &str) -> Option<String> {
    let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet);
    text.bytes().all(is_token).then(|| text.to_owned())
}

/// A number without what only makes it easier to read (RFC 3966, 5.1.1).
fn number_of(user: &[u8]) -> String {
    let kept = user.iter().filter(|octet| !matches!(octet, b'-' | b'.' | b'(' | b')'));
    kept.map(|octet| char::from(*octet)).collect()
}

/// Whether the number in a From or To begins so.
fn begins(header: Option<&[u8]>, prefixes: &[String]) -> bool {
    let Some(user) = header.and_then(sip::uri).and_then(sip::user) else { return false };
    prefixes.iter().any(|prefix| {
        let mut kept = user.iter().filter(|octet| !matches!(octet, b'-' | b'.' | b'(' | b')'));
        prefix.bytes().all(|wanted| kept.next() == Some(&wanted))
    })
}

impl Condition {
    fn is_true(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Agents(ids) => ids.contains(&facts.agent_id),
            Self::Types(types) => types.contains(&facts.payload_type),
            Self::Networks(ends, networks) => ends.any(facts.source, facts.destination, |address| {
                address.is_some_and(|address| networks.iter().any(|network| network.has(address)))
            }),
            // Methods are case-sensitive (RFC 3261, 7.1).
            Self::Methods(methods) => {
                facts.method.is_some_and(|method| methods.iter().any(|wanted| wanted.as_bytes() == method))
            }
            Self::Numbers(ends, prefixes) => ends.any(facts.from, facts.to, |header| begins(header, prefixes)),
        }
    }
}

impl Ends {
    fn any<T>(self, first: T, second: T, is_it: impl Fn(T) -> bool) -> bool {
        match self {
            Self::First => is_it(first),
            Self::Second => is_it(second),
            Self::Either => is_it(first) || is_it(second),
        }
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = u64::from(network.to_bits() ^ address.to_bits());
                differ >> (32 - u32::from(self.prefix).min(32)) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - u32::from(self.prefix).min(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// An address of the interface as one of the standard library.
pub(crate) fn address(address: IpAddress) -> Option<IpAddr> {
    match address {
        IpAddress::None => None,
        IpAddress::Ipv4(bits) => Some(IpAddr::V4(bits.into())),
        IpAddress::Ipv6((high, low)) => Some(IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn rules(texts: &[&str]) -> Result<Rules, String> {
        let texts: Vec<(String, String)> =
            (1..).zip(texts).map(|(n, text)| (format!("rule_{n}"), (*text).to_owned())).collect();
        Rules::read(&texts)
    }

    fn goes_to(rules: &Rules, facts: &Facts<'_>) -> Option<String> {
        let rule = rules.find(facts)?;
        let names: Vec<&str> = rule.collectors.iter().map(|place| rules.collectors[*place].as_str()).collect();
        Some(names.join(",") + if rule.passes { "+" } else { "" })
    }

    #[test]
    fn the_first_rule_of_which_all_is_true_decides() {
        let rules = rules(&[
            "to=+4930 -> pass",
            "agent=2001,2002 method=INVITE,BYE number=+49,0049 -> homer-de, archive",
            "source=10.0.0.0/8,2001:db8::/32 -> inside,pass",
            "network=192.0.2.7 type=100 -> logs",
        ])
        .unwrap();
        assert_eq!(rules.collectors, ["homer-de", "archive", "inside", "logs"]);
        assert!(rules.want_methods && rules.want_numbers);
        let call = Facts {
            agent_id: 2_002,
            payload_type: 1,
            source: Some("192.0.2.7".parse().unwrap()),
            method: Some(b"BYE"),
            from: Some(b"<sip:+(49)40-1@a>;tag=x"),
            to: Some(b"<sip:+33@a>"),
            ..Facts::default()
        };
        assert_eq!(goes_to(&rules, &call).unwrap(), "homer-de,archive");
        let to_berlin = Facts { to: Some(b"Berlin <tel:+49-30-1>"), ..call.clone() };
        assert_eq!(goes_to(&rules, &to_berlin).unwrap(), "+");
        let other_method = Facts { method: Some(b"bye"), ..call.clone() };
        assert_eq!(goes_to(&rules, &other_method), None);
        let inside = Facts { source: Some("2001:db8::1".parse().unwrap()), ..other_method.clone() };
        assert_eq!(goes_to(&rules, &inside).unwrap(), "inside+");
        let towards_inside = Facts { destination: Some("10.1.1.1".parse().unwrap()), ..other_method };
        assert_eq!(goes_to(&rules, &towards_inside), None, "source is one end only");
        let log = Facts { payload_type: 100, destination: Some("192.0.2.7".parse().unwrap()), ..Facts::default() };
        assert_eq!(goes_to(&rules, &log).unwrap(), "logs");
        assert_eq!(goes_to(&rules, &Facts::default()), None);
    }

    #[test]
    fn a_collector_that_a_rule_names_twice_has_a_packet_once() {
        let rules = rules(&["type=1 -> a, b, a, pass"]).unwrap();
        assert_eq!(goes_to(&rules, &Facts { payload_type: 1, ..Facts::default() }).unwrap(), "a,b+");
    }

    #[test]
    fn a_rule_without_conditions_takes_all_and_asks_for_nothing() {
        let rules = rules(&["-> archive"]).unwrap();
        assert!(!rules.want_methods && !rules.want_numbers);
        assert_eq!(goes_to(&rules, &Facts::default()).unwrap(), "archive");
    }

    #[test]
    fn a_network_is_as_wide_as_its_prefix_says() {
        for (network, address, is_inside) in [
            ("0.0.0.0/0", "255.255.255.255", true),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("::/0", "::1", true),
            ("::/0", "0.0.0.1", false),
            ("2001:db8::/33", "2001:db8:8000::", false),
            ("2001:db8::1", "2001:db8::1", true),
        ] {
            let has = super::network(network).unwrap().has(address.parse().unwrap());
            assert_eq!(has, is_inside, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_key_and_a_sentence() {
        for (text, error) in [
            ("agent=1", "\"agent=1\" has no \"->\" before the collectors"),
            ("agent=1 ->", "\"agent=1 ->\" names no collector"),
            ("agent=x -> a", "\"x\" is not an agent id (0 to 4294967295)"),
            ("type=256 -> a", "\"256\" is not a payload type (0 to 255)"),
            ("network=10.0.0.0/33 -> a", "\"10.0.0.0/33\" is not a network"),
            ("method=IN/VITE -> a", "\"IN/VITE\" is not a SIP method"),
            ("to=-- -> a", "\"--\" is not the beginning of a number"),
            ("method= -> a", "\"method=\" has no value"),
            ("method=INVITE, BYE -> a", "\"BYE\" is no condition: NAME=VALUE,VALUE without spaces is one"),
            (
                "agnt=1 -> a",
                "\"agnt\" is no condition; there are agent, type, network, source, destination, method, number, from, to",
            ),
        ] {
            assert_eq!(rules(&[text]).unwrap_err(), format!("config key \"rule_1\": {error}"));
        }
        assert_eq!(rules(&[]).unwrap_err(), "config key \"rule_1\" is missing: what goes where");
    }
}
