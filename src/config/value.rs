//! Values that are written out, or read from elsewhere when the gateway starts: what filters are told, and keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::reader::{Place, Section, kind_of};

/// A value that is written out, or read from elsewhere when the gateway starts.
#[derive(Clone, PartialEq, Eq)]
pub enum ConfigValue {
    /// As written.
    Text(String),
    /// The content of a file without its last line end.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
}

impl fmt::Debug for ConfigValue {
    /// Never shows a value: any of them may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(…)",
            Self::File(_) => "File(…)",
            Self::Environment(_) => "Environment(…)",
        })
    }
}

/// A value that was to be read from elsewhere and could not.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(String);

impl ConfigValue {
    /// The value itself.
    ///
    /// # Errors
    /// [`SecretError`]: the file or the variable is not there, or is not UTF-8.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)),
                Err(error) => Err(SecretError(format!("{}: {error}", path.display()))),
            },
            Self::Environment(name) => {
                std::env::var(name).map_err(|error| SecretError(format!("environment variable {name}: {error}")))
            }
        }
    }
}

/// A value, or what is wrong with it.
pub(super) fn read(value: DeValue<'_>, folder: &Path) -> Result<ConfigValue, String> {
    match value {
        DeValue::String(text) => Ok(ConfigValue::Text(text.into_owned())),
        DeValue::Integer(number) => Ok(ConfigValue::Text(number.to_string())),
        DeValue::Boolean(flag) => Ok(ConfigValue::Text(flag.to_string())),
        DeValue::Table(table) => {
            elsewhere(&table, folder).ok_or_else(|| "a table here is { file = \"…\" } or { env = \"…\" }".to_owned())
        }
        value => Err(format!("a text, a whole number, true or false is wanted, not {}", kind_of(&value))),
    }
}

/// A secret: a text, or where it is to be read from.
pub(super) fn read_secret(
    section: &Section<'_, '_>,
    value: DeValue<'_>,
    place: &Place,
    folder: &Path,
) -> Option<ConfigValue> {
    let wanted = "a text, { file = \"…\" } or { env = \"…\" } is wanted";
    let secret = match value {
        DeValue::String(text) if text.is_empty() => Err("an empty text is no key".to_owned()),
        DeValue::String(_) | DeValue::Table(_) => read(value, folder),
        value => Err(format!("{wanted}, not {}", kind_of(&value))),
    };
    secret.map_err(|text| section.complain(place, text)).ok()
}

/// Every key of a table with its value.
pub(super) fn read_all(section: Section<'_, '_>, folder: &Path) -> BTreeMap<String, ConfigValue> {
    let complaints = section.complaints();
    let mut config = BTreeMap::new();
    for (key, value, place) in section.entries() {
        match read(value, folder) {
            Ok(value) => {
                config.insert(key, value);
            }
            Err(text) => complaints.add(&place.at, &place.path, text),
        }
    }
    config
}

/// `{ file = "…" }` or `{ env = "…" }`.
fn elsewhere(table: &DeTable<'_>, folder: &Path) -> Option<ConfigValue> {
    let mut entries = table.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else { return None };
    let text = value.get_ref().as_str()?;
    match key.get_ref().as_ref() {
        "file" => Some(ConfigValue::File(folder.join(text))),
        "env" => Some(ConfigValue::Environment(text.to_owned())),
        _ => None,
    }
}
