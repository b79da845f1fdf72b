//! What the operator wrote into the filter's `config` table.

use std::collections::BTreeMap;
use std::time::Duration;

/// Keys and values. Every key is taken once; [`Config::finish`] complains of those that nobody took.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl Config {
    /// What the host says.
    #[must_use]
    pub fn read() -> Self {
        Self::of(crate::generated::hep::filter::config::all())
    }

    /// These keys and values: for tests.
    #[must_use]
    pub fn of<T: Into<String>>(values: impl IntoIterator<Item = (T, T)>) -> Self {
        let values = values.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self { values, known: Vec::new() }
    }

    /// The value of a key.
    pub fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.values.remove(key)
    }

    /// The value of a key as a number or whatever else can be read from a text; `default` without one.
    ///
    /// # Errors
    /// A sentence with key and value; `wanted` says what would be right.
    pub fn parse<T: std::str::FromStr>(&mut self, key: &'static str, default: T, wanted: &str) -> Result<T, String> {
        let Some(value) = self.take(key) else { return Ok(default) };
        value.trim().parse().map_err(|_| format!("config key {key:?}: {value:?} is not {wanted}"))
    }

    /// What a key chooses among these names; the first of them without the key.
    ///
    /// # Errors
    /// A sentence with key and value.
    pub fn choose<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Result<T, String> {
        let value = self.take(key);
        let chosen = match value.as_deref() {
            None => choices.first(),
            Some(value) => choices.iter().find(|(name, _)| *name == value),
        };
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let names = match names.as_slice() {
                [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
                names => names.concat(),
            };
            format!("config key {key:?}: {:?} is not {names}", value.unwrap_or_default())
        })
    }

    /// The value of a key as a time with a unit, as in the gateway's configuration: "250ms", "10s", "5m", "1h", "1d".
    ///
    /// # Errors
    /// A sentence with key and value.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Result<Duration, String> {
        let Some(value) = self.take(key) else { return Ok(default) };
        read_duration(value.trim()).ok_or_else(|| {
            format!("config key {key:?}: {value:?} is not a time, as \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"")
        })
    }

    /// The values of the keys `PREFIX1`, `PREFIX2` and so on, in the order of their numbers, each with its key. `known` is
    /// how [`Config::finish`] calls them.
    pub fn numbered(&mut self, prefix: &str, known: &'static str) -> Vec<(String, String)> {
        self.known.push(known);
        let number = |key: &str| key.strip_prefix(prefix)?.parse::<u32>().ok();
        let mut found: Vec<(u32, String)> =
            self.values.keys().filter_map(|key| Some((number(key)?, key.clone()))).collect();
        found.sort();
        found.into_iter().filter_map(|(_, key)| self.values.remove_entry(&key)).collect()
    }

    /// The values of a key that holds a list with commas.
    ///
    /// # Errors
    /// A sentence with key and value; `wanted` says what each would have to be.
    pub fn list<T: std::str::FromStr>(&mut self, key: &'static str, wanted: &str) -> Result<Vec<T>, String> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
        let parse = |item: &str| item.parse().map_err(|_| format!("config key {key:?}: {item:?} is not {wanted}"));
        items.map(parse).collect()
    }

    /// # Errors
    /// A sentence about a key that nobody took.
    pub fn finish(self) -> Result<(), String> {
        let Some((key, _)) = self.values.first_key_value() else { return Ok(()) };
        let known = if self.known.is_empty() { "no key".to_owned() } else { self.known.join(", ") };
        Err(format!("config key {key:?} is unknown; known here: {known}"))
    }
}

fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn a_list_is_read_and_a_wrong_item_is_named() {
        let mut config = Config::of([("types", "1, 5,,100 "), ("bad", "1,many")]);
        assert_eq!(config.list::<u8>("types", "a number").unwrap(), [1, 5, 100]);
        assert_eq!(config.list::<u8>("none", "a number").unwrap(), []);
        let error = config.list::<u8>("bad", "a payload type (0 to 255)").unwrap_err();
        assert_eq!(error, "config key \"bad\": \"many\" is not a payload type (0 to 255)");
        config.finish().unwrap();
    }

    #[test]
    fn a_key_that_nobody_took_is_named_with_those_that_are_known() {
        let mut config = Config::of([("evry", "5")]);
        assert_eq!(config.parse("every", 7, "a number").unwrap(), 7);
        assert_eq!(config.finish().unwrap_err(), "config key \"evry\" is unknown; known here: every");
    }

    #[test]
    fn a_choice_is_one_of_its_names_or_the_first() {
        const CHOICES: [(&str, u8); 3] = [("drop", 1), ("skip", 2), ("mark", 3)];
        let mut config = Config::of([("action", "skip"), ("other", "Skip"), ("one", "x")]);
        assert_eq!(config.choose("action", &CHOICES).unwrap(), 2);
        assert_eq!(config.choose("none", &CHOICES).unwrap(), 1);
        let error = config.choose("other", &CHOICES).unwrap_err();
        assert_eq!(error, "config key \"other\": \"Skip\" is not drop, skip or mark");
        assert_eq!(config.choose("one", &[("y", ())]).unwrap_err(), "config key \"one\": \"x\" is not y");
    }

    #[test]
    fn a_time_has_a_unit() {
        for (text, expected) in [
            ("250ms", Some(250)),
            (" 10s", Some(10_000)),
            ("5 m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("10", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("18446744073709551615d", None),
        ] {
            let read = Config::of([("window", text)]).duration("window", Duration::ZERO);
            assert_eq!(read.ok(), expected.map(Duration::from_millis), "{text}");
        }
        assert_eq!(Config::default().duration("window", Duration::from_secs(1)), Ok(Duration::from_secs(1)));
    }

    #[test]
    fn numbered_keys_come_in_the_order_of_their_numbers() {
        let mut config = Config::of([("rule_10", "c"), ("rule_9", "b"), ("rule_1", "a"), ("rule_x", "?")]);
        let values: Vec<String> = config.numbered("rule_", "rule_N").into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["a", "b", "c"]);
        assert_eq!(config.finish().unwrap_err(), "config key \"rule_x\" is unknown; known here: rule_N");
    }
}
