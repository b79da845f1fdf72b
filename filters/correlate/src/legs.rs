//! Which id a leg of a call goes by: the one that another leg is known by, if a header says so.

use std::time::Duration;

use hepgate_kit::recent::Recent;
use hepgate_kit::{sip, state};
use xxhash_rust::xxh3::xxh3_128;

/// Octets of an id. Longer ones are none.
const ID_OCTETS_MAX: usize = 256;
/// Legs from one to the first of its call, when each names the one before.
const STEPS_MAX: usize = 8;
/// The bit of an entry's time that says that its pair has not been told; no time needs it.
const UNTOLD: u64 = 1 << 63;

/// A header that names another leg.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    pub(crate) header: String,
    /// The parameter that holds the id; without, the value is the id.
    parameter: Option<String>,
}

impl std::str::FromStr for Names {
    type Err = ();

    /// "X-CID" or "P-Charging-Vector icid-value".
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split_whitespace();
        let (header, parameter) = (words.next().ok_or(())?, words.next());
        let is_token =
            |word: &str| word.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet));
        if words.next().is_some() || !is_token(header) || !parameter.is_none_or(is_token) {
            return Err(());
        }
        Ok(Self { header: header.to_owned(), parameter: parameter.map(str::to_owned) })
    }
}

impl Names {
    /// The id in such a header's value.
    pub(crate) fn id<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let value = match &self.parameter {
            Some(name) => sip::parameter(value, name)?,
            // A Call-ID has none of these in it.
            None => value.split(|octet| matches!(octet, b';' | b',') || octet.is_ascii_whitespace()).next()?,
        };
        is_id(value).then_some(value)
    }
}

pub(crate) fn is_id(octets: &[u8]) -> bool {
    (1..=ID_OCTETS_MAX).contains(&octets.len())
}

/// Legs, and the ids that they go by.
pub(crate) struct Legs {
    memory: Memory,
    /// How long a leg is remembered after its last packet, in microseconds.
    remember: u64,
    /// What could not be remembered so long, since it was last asked.
    pub(crate) forgotten_early: u64,
}

/// Where legs are remembered.
pub(crate) enum Memory {
    /// For all instances, with the host.
    Shared,
    /// In this instance.
    Instance(Recent<u128, Entry>),
}

/// The id that a leg goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    id: Vec<u8>,
    /// When it was written, in microseconds since the epoch.
    at: u64,
    /// Whether the pair has been sent, or needs not be.
    is_told: bool,
}

impl Entry {
    fn write(&self) -> Vec<u8> {
        let at = if self.is_told { self.at } else { self.at | UNTOLD };
        [&at.to_be_bytes(), self.id.as_slice()].concat()
    }

    fn read(octets: &[u8]) -> Option<Self> {
        let (at, id) = octets.split_first_chunk()?;
        let at = u64::from_be_bytes(*at);
        Some(Self { id: id.to_vec(), at: at & !UNTOLD, is_told: at & UNTOLD == 0 })
    }
}

/// What a leg goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) id: Vec<u8>,
    /// Whether this was not known before, or has not been told.
    pub(crate) is_new: bool,
}

impl Legs {
    pub(crate) fn new(memory: Memory, remember: Duration) -> Self {
        Self { memory, remember: u64::try_from(remember.as_micros()).unwrap_or(u64::MAX), forgotten_early: 0 }
    }

    /// The id of a leg of which a packet names another one, or none.
    pub(crate) fn find(&mut self, own: &[u8], other: Option<&[u8]>, now: u64) -> Option<Found> {
        let known = self.get(own, now);
        let (first, is_new) = match other.filter(|other| *other != own) {
            Some(other) => (other.to_vec(), known.as_ref().is_none_or(|known| !known.is_told || known.id != other)),
            None => (known.as_ref()?.id.clone(), false),
        };
        let mut id = first;
        for _ in 0..STEPS_MAX {
            match self.get(&id, now) {
                // Legs that name each other in a circle go by nobody's id.
                Some(next) if next.id == own => return None,
                Some(next) => id = next.id,
                None => break,
            }
        }
        // What is still spoken of is remembered on, without writing it with every packet.
        if let Some(known) = known.filter(|known| !is_new && now.saturating_sub(known.at) > self.remember / 4) {
            self.set(own, known.id, now, known.is_told);
        }
        Some(Found { id, is_new })
    }

    /// What the operator can give more of.
    pub(crate) const fn limits(&self) -> &'static str {
        match self.memory {
            Memory::Shared => "state_keys_max and state_octets_max of [filter.limits]",
            Memory::Instance(_) => "entries_max",
        }
    }

    /// Remembers that a leg has named another one, and whether that has been told.
    pub(crate) fn set(&mut self, own: &[u8], other: Vec<u8>, now: u64, is_told: bool) {
        let key = xxh3_128(own);
        let entry = Entry { id: other, at: now, is_told };
        let is_forgotten = match &mut self.memory {
            Memory::Shared => state::set(&name(key), &entry.write(), Some(self.remember / 1_000)).is_err(),
            Memory::Instance(recent) => {
                recent.insert(key, entry).is_some_and(|gone| now.saturating_sub(gone.at) < self.remember)
            }
        };
        self.forgotten_early += u64::from(is_forgotten);
    }

    fn get(&self, own: &[u8], now: u64) -> Option<Entry> {
        let key = xxh3_128(own);
        let entry = match &self.memory {
            Memory::Shared => Entry::read(&state::get(&name(key))?),
            Memory::Instance(recent) => recent.get(&key).cloned(),
        };
        entry.filter(|entry| now.saturating_sub(entry.at) < self.remember)
    }
}

fn name(key: u128) -> String {
    format!("{key:032x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn legs(entries_max: usize) -> Legs {
        Legs::new(Memory::Instance(Recent::new(entries_max)), Duration::from_secs(3_600))
    }

    /// As the filter does it.
    fn see(legs: &mut Legs, own: &str, other: Option<&str>, now: u64) -> Option<String> {
        let found = legs.find(own.as_bytes(), other.map(str::as_bytes), now)?;
        if let Some(other) = other.filter(|_| found.is_new) {
            legs.set(own.as_bytes(), other.as_bytes().to_vec(), now, true);
        }
        Some(String::from_utf8(found.id).unwrap())
    }

    #[test]
    fn a_leg_goes_by_the_id_that_its_first_packet_named() {
        let mut legs = legs(8);
        assert_eq!(see(&mut legs, "A", None, 0), None);
        assert_eq!(see(&mut legs, "B", Some("A"), 0).as_deref(), Some("A"));
        assert_eq!(see(&mut legs, "B", None, 1).as_deref(), Some("A"));
        assert_eq!(see(&mut legs, "A", None, 1), None, "the first leg keeps its own");
        assert!(!legs.find(b"B", Some(b"A"), 2).unwrap().is_new, "a pair is new once");
        assert!(legs.find(b"B", Some(b"X"), 2).unwrap().is_new);
    }

    /// A pair that no collector took was not remembered at all, so that packets without the header were not joined.
    #[test]
    fn a_pair_that_could_not_be_told_is_known_and_new_again_where_it_is_named() {
        let mut legs = legs(8);
        assert!(legs.find(b"B", Some(b"A"), 0).unwrap().is_new);
        legs.set(b"B", b"A".to_vec(), 0, false);
        assert_eq!(legs.find(b"B", None, HOUR / 2), Some(Found { id: b"A".to_vec(), is_new: false }));
        assert!(legs.find(b"B", Some(b"A"), HOUR / 2).unwrap().is_new, "also after it was remembered on");
        legs.set(b"B", b"A".to_vec(), HOUR / 2, true);
        assert!(!legs.find(b"B", Some(b"A"), HOUR / 2).unwrap().is_new);
    }

    #[test]
    fn a_chain_of_legs_goes_by_its_first_in_whatever_order_they_come() {
        let mut legs = legs(8);
        assert_eq!(see(&mut legs, "C", Some("B"), 0).as_deref(), Some("B"));
        assert_eq!(see(&mut legs, "B", Some("A"), 0).as_deref(), Some("A"));
        assert_eq!(see(&mut legs, "C", None, 0).as_deref(), Some("A"));
        assert_eq!(see(&mut legs, "D", Some("C"), 0).as_deref(), Some("A"));
    }

    #[test]
    fn legs_in_a_circle_end() {
        let mut legs = legs(8);
        assert_eq!(see(&mut legs, "A", Some("A"), 0), None);
        assert_eq!(see(&mut legs, "A", Some("B"), 0).as_deref(), Some("B"));
        assert_eq!(see(&mut legs, "B", Some("A"), 0), None);
        assert_eq!(see(&mut legs, "A", None, 0).as_deref(), Some("B"));
        for leg in 0..100 {
            assert!(see(&mut legs, &leg.to_string(), Some(&(leg + 1).to_string()), 0).is_some());
        }
    }

    #[test]
    fn a_leg_is_remembered_as_long_as_it_is_heard_of_and_there_is_room() {
        let mut legs = legs(2);
        see(&mut legs, "B", Some("A"), 0);
        for quarter in 1..10 {
            let at = quarter * (HOUR / 4 + 1);
            assert_eq!(see(&mut legs, "B", None, at).as_deref(), Some("A"), "{at}");
        }
        assert_eq!(see(&mut legs, "B", None, 9 * (HOUR / 4 + 1) + HOUR), None);
        see(&mut legs, "D", Some("C"), 10 * HOUR);
        assert_eq!(legs.forgotten_early, 0);
        see(&mut legs, "F", Some("E"), 10 * HOUR);
        see(&mut legs, "H", Some("G"), 10 * HOUR);
        assert_eq!(legs.forgotten_early, 1);
        assert_eq!(see(&mut legs, "D", None, 10 * HOUR), None);
    }

    #[test]
    fn an_id_is_read_from_a_value_or_a_parameter() {
        let plain: Names = "X-CID".parse().unwrap();
        assert_eq!(plain.id(b"abc@host;x=y"), Some(&b"abc@host"[..]));
        assert_eq!(plain.id(b""), None);
        assert_eq!(plain.id(&[b'a'; 257]), None);
        let vector: Names = " P-Charging-Vector  icid-value".parse().unwrap();
        assert_eq!(vector.header, "P-Charging-Vector");
        assert_eq!(vector.id(b"orig-ioi=home; icid-value=\"a b\""), Some(&b"a b"[..]));
        assert_eq!(vector.id(b"abc"), None);
        for text in ["", "X CID x", "X:CID", "X-CID a=b"] {
            assert_eq!(text.parse::<Names>(), Err(()), "{text}");
        }
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        for is_told in [true, false] {
            let entry = Entry { id: b"abc".to_vec(), at: 7, is_told };
            assert_eq!(Entry::read(&entry.write()), Some(entry));
        }
        assert_eq!(Entry::read(b"short"), None);
    }
}
