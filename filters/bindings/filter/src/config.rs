//! What the operator wrote into the filter's `config` table.

use std::collections::BTreeMap;

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
}
