//! What the operator can say, and what it is if he says nothing.

use hepgate_filter::{Config, SIP};

use crate::chunks::Chunks;
use crate::hide::Hider;
use crate::members::{self, Members};

/// Payloads that are JSON and mostly figures: RTCP, and reports of quality long and short. They hold users too: the
/// SDES of RTCP has its CNAME in it, which is a user and a host by the book, and some reports have the Call-ID.
const JSON_TYPES: [u8; 3] = [5, 34, 35];

pub struct Settings {
    pub hider: Hider,
    pub keep_bodies: bool,
    /// Payload types beside SIP that pass as they are.
    pub pass_types: Vec<u8>,
    /// Payload types that are masked as JSON.
    pub json_types: Vec<u8>,
    pub members: Members,
    pub chunks: Chunks,
}

impl Settings {
    /// # Errors
    /// A sentence with the key that is wrong.
    pub fn read(mut config: Config) -> Result<Self, String> {
        let hider = hider(&mut config)?;
        let keep_bodies = one_of(&mut config, "bodies", [("hide", false), ("keep", true)])?;
        let pass_types = config.list("pass_types", TYPE)?;
        let json_types = json_types(&mut config, &pass_types)?;
        let members = json_keep(&mut config).map(Members::with)?;
        let modes = [("people", Chunks::People), ("hide", Chunks::Hide), ("keep", Chunks::Keep)];
        let chunks = one_of(&mut config, "chunks", modes)?;
        config.finish()?;
        Ok(Self { hider, keep_bodies, pass_types, json_types, members, chunks })
    }
}

const TYPE: &str = "a payload type (0 to 255)";

fn hider(config: &mut Config) -> Result<Hider, String> {
    let key = config.take("key");
    let realm = config.take("realm");
    let call_ids = one_of(config, "call_ids", [("keep", false), ("pseudonym", true)])?;
    let realm = realm.as_deref().map(str::trim);
    match key {
        Some(_) if realm == Some("") => Err("config key \"realm\": it is empty".to_owned()),
        Some(key) => Hider::pseudonyms(key.trim().as_bytes(), realm.map(str::as_bytes), call_ids),
        None if realm.is_some() => Err("config key \"realm\": without a \"key\" there are no pseudonyms".to_owned()),
        None if call_ids => Err("config key \"call_ids\": \"pseudonym\" needs a \"key\"".to_owned()),
        None => Ok(Hider::fill()),
    }
}

/// What is said in no list is masked if it is known to be JSON; what is said in both cannot be meant.
fn json_types(config: &mut Config, pass_types: &[u8]) -> Result<Vec<u8>, String> {
    let Some(list) = config.take("json_types") else {
        return Ok(JSON_TYPES.into_iter().filter(|kind| !pass_types.contains(kind)).collect());
    };
    let types: Vec<u8> = Config::of([("json_types", list.as_str())]).list("json_types", TYPE)?;
    if types.contains(&SIP) {
        return Err(format!("config key \"json_types\": {SIP} is SIP, which is masked as such"));
    }
    match types.iter().find(|kind| pass_types.contains(kind)) {
        Some(kind) => Err(format!("config key \"json_types\": {kind} is among the pass_types, too")),
        None => Ok(types),
    }
}

fn json_keep(config: &mut Config) -> Result<Vec<String>, String> {
    let names: Vec<String> = config.list("json_keep", "a name")?;
    let plain = |name: String| {
        members::plain(&name).ok_or_else(|| format!("config key \"json_keep\": {name:?} is not a member's name"))
    };
    names.into_iter().map(plain).collect()
}

/// The value that a word means; without one, the first.
fn one_of<T: Copy, const N: usize>(
    config: &mut Config,
    key: &'static str,
    values: [(&str, T); N],
) -> Result<T, String> {
    let said = config.take(key);
    let meant = values.iter().find(|(word, _)| said.as_deref().is_none_or(|said| said == *word));
    meant.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = values.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("config key {key:?}: {:?} is not {}", said.unwrap_or_default(), words.join(" or "))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    const KEY: (&str, &str) = ("key", "0123456789abcdef");

    fn error<const N: usize>(config: [(&str, &str); N]) -> String {
        Settings::read(Config::of(config)).err().unwrap()
    }

    #[test]
    fn a_wrong_value_is_named_in_a_sentence() {
        for (key, value, expected) in [
            ("bodies", "some", "\"some\" is not \"hide\" or \"keep\""),
            ("call_ids", "hide", "\"hide\" is not \"keep\" or \"pseudonym\""),
            ("chunks", "all", "\"all\" is not \"people\" or \"hide\" or \"keep\""),
            ("pass_types", "5,256", "\"256\" is not a payload type (0 to 255)"),
            ("json_types", "rtcp", "\"rtcp\" is not a payload type (0 to 255)"),
            ("json_types", "5,1", "1 is SIP, which is masked as such"),
            ("json_keep", "mos, alice@h", "\"alice@h\" is not a member's name"),
        ] {
            assert_eq!(error([(key, value)]), format!("config key {key:?}: {expected}"));
        }
        assert_eq!(
            error([("keys", "x")]),
            "config key \"keys\" is unknown; known here: key, realm, call_ids, bodies, pass_types, json_types, \
             json_keep, chunks"
        );
    }

    #[test]
    fn what_needs_a_key_is_refused_without_one() {
        assert_eq!(error([("call_ids", "pseudonym")]), "config key \"call_ids\": \"pseudonym\" needs a \"key\"");
        assert_eq!(error([("realm", "north")]), "config key \"realm\": without a \"key\" there are no pseudonyms");
        assert_eq!(error([KEY, ("realm", " ")]), "config key \"realm\": it is empty");
        assert!(Settings::read(Config::of([KEY, ("realm", "north"), ("call_ids", "pseudonym")])).is_ok());
    }

    #[test]
    fn a_type_that_passes_is_not_masked_by_default_and_never_both() {
        let read = |pass| Settings::read(Config::of([("pass_types", pass)])).unwrap();
        assert_eq!((read("").json_types, read("").pass_types), (vec![5, 34, 35], vec![]));
        assert_eq!((read("5,100").json_types, read("5,100").pass_types), (vec![34, 35], vec![5, 100]));
        assert_eq!(
            error([("pass_types", "100"), ("json_types", "5,100")]),
            "config key \"json_types\": 100 is among the pass_types, too"
        );
    }
}
