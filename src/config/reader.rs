//! Reads TOML tables key by key and collects what is wrong, so that one run shows every complaint.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Complaint {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in that line, from 1, in characters.
    pub column: usize,
    /// Where in the configuration, as `tenant[1].match[0].source`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, with the figures.
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// Collects complaints about one text.
#[derive(Debug)]
pub(super) struct Complaints<'a> {
    text: &'a str,
    found: RefCell<Vec<Complaint>>,
    names: RefCell<BTreeSet<(&'static str, String)>>,
}

impl<'a> Complaints<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::new(Vec::new()), names: RefCell::new(BTreeSet::new()) }
    }

    /// Notes a complaint about what stands at that place of the text.
    pub(super) fn add(&self, at: &Range<usize>, path: &str, text: impl Into<String>) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        self.found.borrow_mut().push(Complaint { line, column, path: path.to_owned(), text: text.into() });
    }

    /// Whether no other table of that kind has this name yet.
    fn is_new_name(&self, kind: &'static str, name: &str) -> bool {
        self.names.borrow_mut().insert((kind, name.to_owned()))
    }

    /// All complaints in the order of the text.
    pub(super) fn into_sorted(self) -> Vec<Complaint> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        found
    }
}

/// Where something stands: for complaints that are found later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) at: Range<usize>,
    pub(super) path: String,
}

/// A value and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A TOML table that is being read. Keys that nobody asked for are complaints when it is [`Section::finish`]ed.
#[derive(Debug)]
pub(super) struct Section<'c, 'a> {
    complaints: &'c Complaints<'a>,
    place: Place,
    table: Option<DeTable<'a>>,
    known: Vec<&'static str>,
}

impl<'c, 'a> Section<'c, 'a> {
    /// The whole file, or `None` if it is not TOML: then the syntax errors are the complaints.
    pub(super) fn root(complaints: &'c Complaints<'a>) -> Option<Self> {
        let (table, errors) = DeTable::parse_recoverable(complaints.text);
        for error in &errors {
            complaints.add(&error.span().unwrap_or(0..0), "", error.message());
        }
        let place = Place { at: 0..0, path: String::new() };
        errors.is_empty().then(|| Self { complaints, place, table: Some(table.into_inner()), known: Vec::new() })
    }

    /// Where complaints about what [`Section::entries`] gave go.
    pub(super) const fn complaints(&self) -> &'c Complaints<'a> {
        self.complaints
    }

    /// Where this table begins.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// Complains of a key, or of the whole table if the key is not there.
    pub(super) fn complain(&self, place: &Place, text: impl Into<String>) {
        self.complaints.add(&place.at, &place.path, text);
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Placed<String>> {
        let (value, place) = self.take(key)?;
        self.expect_text(value, place)
    }

    /// A text that must be there.
    pub(super) fn text_required(&mut self, key: &'static str, what: &str) -> Option<Placed<String>> {
        if !self.has(key) {
            self.known.push(key);
            self.complain(&self.place, format!("`{key}` is missing: {what}"));
            return None;
        }
        self.text(key)
    }

    /// The `name` of a `[[kind]]`, by which others refer to it. Names become metric labels and log fields.
    pub(super) fn name(&mut self, kind: &'static str) -> Option<String> {
        let name = self.text_required("name", "logs, metrics and other tables call it by that")?;
        self.claim_name(kind, name)
    }

    /// The same for a name that stands elsewhere.
    pub(super) fn claim_name(&self, kind: &'static str, name: Placed<String>) -> Option<String> {
        let Placed { value, place } = name;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if value.is_empty() || value.len() > 64 || !value.chars().all(fits) {
            self.complain(&place, format!("{value:?} is not a name: 1 to 64 of a-z, A-Z, 0-9, -, _ and ."));
            return None;
        }
        if !self.complaints.is_new_name(kind, &value) {
            self.complain(&place, format!("another [[{kind}]] is named {value:?}"));
        }
        Some(value)
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<Placed<String>> {
        let Some((value, place)) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.complain(&place, format!("a list of texts is wanted, not {}", kind_of(&value)));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let place = Place { at: item.span(), path: format!("{}[{index}]", place.path) };
            texts.extend(self.expect_text(item.into_inner(), place));
        }
        texts
    }

    /// A list of values of any kind, each with its place.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<(DeValue<'a>, Place)> {
        let Some((value, place)) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.complain(&place, format!("a list is wanted, not {}", kind_of(&value)));
            return Vec::new();
        };
        let placed = |(index, item): (usize, Spanned<DeValue<'a>>)| {
            let place = Place { at: item.span(), path: format!("{}[{index}]", place.path) };
            (item.into_inner(), place)
        };
        items.into_iter().enumerate().map(placed).collect()
    }

    /// A value of any kind.
    pub(super) fn value(&mut self, key: &'static str) -> Option<(DeValue<'a>, Place)> {
        self.take(key)
    }

    /// A whole number.
    pub(super) fn whole(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some((value, place)) = self.take(key) else { return default };
        number_of(&value, range).unwrap_or_else(|text| {
            self.complain(&place, text);
            default
        })
    }

    /// A number of things, for a `usize`.
    pub(super) fn count(&mut self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let value = self.whole(key, wide(default), wide(*range.start())..=wide(*range.end()));
        usize::try_from(value).unwrap_or(default)
    }

    /// A time as text with a unit: `"250ms"`, `"10s"`, `"5m"`, `"1h"`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(Placed { value, place }) = self.text(key) else { return default };
        match parse_duration(&value) {
            Some(duration) if range.contains(&duration) => duration,
            Some(_) => {
                let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
                self.complain(&place, format!("{value:?} is not between {least} and {most}"));
                default
            }
            None => {
                self.complain(&place, format!("{value:?} is not a time such as \"250ms\", \"10s\", \"5m\" or \"1h\""));
                default
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        let Some(Placed { value, place }) = self.text(key) else { return default };
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == value) {
            return *chosen;
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.complain(&place, format!("{value:?} is not one of {}", words.join(", ")));
        default
    }

    /// A table inside this one; an empty one if it is not there, so that its defaults are read the same way.
    pub(super) fn table(&mut self, key: &'static str) -> Self {
        let path = self.path_of(key);
        let (table, at) = match self.take(key) {
            None => (DeTable::new(), self.place.at.clone()),
            Some((DeValue::Table(table), place)) => (table, place.at),
            Some((value, place)) => {
                self.complain(&place, format!("a table is wanted, not {}", kind_of(&value)));
                (DeTable::new(), place.at)
            }
        };
        Self { complaints: self.complaints, place: Place { at, path }, table: Some(table), known: Vec::new() }
    }

    /// A table that is not there, so that everything in it stands at its default. Complaints go to `place`.
    pub(super) fn unsaid(&self, place: Place) -> Self {
        Self { complaints: self.complaints, place, table: Some(DeTable::new()), known: Vec::new() }
    }

    /// A list of tables, as `[[listener]]` makes them.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        let Some((value, place)) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.complain(&place, format!("write [[{}]]: there may be several", place.path));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let place = Place { at: item.span(), path: format!("{}[{index}]", place.path) };
            match item.into_inner() {
                DeValue::Table(table) => {
                    let (complaints, table) = (self.complaints, Some(table));
                    sections.push(Self { complaints, place, table, known: Vec::new() });
                }
                value => self.complain(&place, format!("a table is wanted, not {}", kind_of(&value))),
            }
        }
        sections
    }

    /// Every key with its value, for tables whose keys are not ours.
    pub(super) fn entries(mut self) -> Vec<(String, DeValue<'a>, Place)> {
        let table = self.table.take().unwrap_or_default();
        let mut entries = Vec::new();
        for (key, value) in table {
            let place = Place { at: value.span(), path: format!("{}.{}", self.place.path, key.get_ref()) };
            entries.push((key.into_inner().into_owned(), value.into_inner(), place));
        }
        entries
    }

    /// Every key with its table, for tables of tables whose keys are not ours.
    pub(super) fn subtables(self) -> Vec<(String, Self, Place)> {
        let complaints = self.complaints;
        let mut tables = Vec::new();
        for (key, value, place) in self.entries() {
            match value {
                DeValue::Table(table) => {
                    let section = Self { complaints, place: place.clone(), table: Some(table), known: Vec::new() };
                    tables.push((key, section, place));
                }
                value => complaints.add(&place.at, &place.path, format!("a table is wanted, not {}", kind_of(&value))),
            }
        }
        tables
    }

    /// Whether the key is there and nobody has read it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.as_ref().is_some_and(|table| table.contains_key(key))
    }

    /// Complains of every key that nobody asked for.
    pub(super) fn finish(mut self) {
        for (key, _) in self.table.take().unwrap_or_default() {
            let (at, name) = (key.span(), key.into_inner());
            let mut known = self.known.clone();
            known.sort_unstable();
            let place = Place { at, path: self.path_of(&name) };
            self.complain(&place, format!("unknown key; known here: {}", known.join(", ")));
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(DeValue<'a>, Place)> {
        self.known.push(key);
        let value: Spanned<DeValue<'a>> = self.table.as_mut()?.remove(key)?;
        let place = Place { at: value.span(), path: self.path_of(key) };
        Some((value.into_inner(), place))
    }

    fn expect_text(&self, value: DeValue<'a>, place: Place) -> Option<Placed<String>> {
        match value {
            DeValue::String(text) => Some(Placed { value: text.into_owned(), place }),
            value => {
                self.complain(&place, format!("a text in quotes is wanted, not {}", kind_of(&value)));
                None
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.place.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place.path) }
    }
}

/// A whole number in that range, or what is wrong with it.
pub(super) fn number_of(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let DeValue::Integer(integer) = value else {
        return Err(format!("a whole number is wanted, not {}", kind_of(value)));
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    let number = number.and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{integer} is not between {} and {}", range.start(), range.end()))
}

/// What a value is, in words.
pub(super) const fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
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

/// A time in the form in which it is configured.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds >= size && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let times = ["250ms", "10s", "5m", "1h", "2d", "10 s"].map(|text| parse_duration(text).unwrap().as_millis());
        assert_eq!(times, [250, 10_000, 300_000, 3_600_000, 172_800_000, 10_000]);
        for text in ["", "10", "s", "-1s", "1.5s", "10 parsecs", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_written() {
        for text in ["250ms", "10s", "5m", "1h", "2d", "0ms"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn a_complaint_names_line_column_path_and_what_is_known() {
        let complaints = Complaints::new("[gateway]\nworkers = 1\n  wrokers = 2\n");
        let mut root = Section::root(&complaints).unwrap();
        let mut gateway = root.table("gateway");
        assert_eq!(gateway.whole("workers", 0, 0..=64), 1);
        gateway.finish();
        root.finish();
        let texts: Vec<String> = complaints.into_sorted().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["3:3: gateway.wrokers: unknown key; known here: workers"]);
    }

    #[test]
    fn several_syntax_errors_are_told_at_once() {
        let complaints = Complaints::new("a = \nb = [1, \nc = 3\n");
        assert!(Section::root(&complaints).is_none());
        assert!(complaints.into_sorted().len() >= 2);
    }
}
