//! When a new file is begun, what it is called, and which files go. Decides; touches no file.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// When a new file is begun.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    octets_max: u64,
    age_max: Duration,
    /// Of the file that is open.
    octets: u64,
    begun: Option<Instant>,
}

impl Rotation {
    /// No file is open yet.
    pub(super) const fn new(octets_max: u64, age_max: Duration) -> Self {
        Self { octets_max, age_max, octets: 0, begun: None }
    }

    /// A file was begun, with so many octets.
    pub(super) const fn begin(&mut self, octets: u64, now: Instant) {
        self.octets = octets;
        self.begun = Some(now);
    }

    /// The file was closed.
    pub(super) const fn end(&mut self) {
        self.begun = None;
    }

    /// So many octets were written.
    pub(super) const fn wrote(&mut self, octets: u64) {
        self.octets = self.octets.saturating_add(octets);
    }

    /// Whether a new file is needed for so many octets more: there is none, or this one would be too long.
    pub(super) const fn is_full_for(&self, octets: u64) -> bool {
        self.begun.is_none() || self.octets.saturating_add(octets) > self.octets_max
    }

    /// Whether the file has been open long enough.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.begun.is_some_and(|begun| now.saturating_duration_since(begun) >= self.age_max)
    }
}

/// `NAME-20261123T091500Z-000001.pcapng`: names sort as the files were begun.
pub(super) fn file_name(collector: &str, seconds: u32, number: u32) -> String {
    let time = Timestamp::from_second(i64::from(seconds)).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
    format!("{collector}-{}-{number:06}.pcapng", time.strftime("%Y%m%dT%H%M%SZ"))
}

/// The number in a file name that [`file_name`] made for this collector. Nobody else's file is ever touched.
pub(super) fn number_of(collector: &str, file_name: &str) -> Option<u32> {
    let rest = file_name.strip_prefix(collector)?.strip_prefix('-')?.strip_suffix(".pcapng")?;
    let (time, number) = rest.split_once('-')?;
    let (date, clock) = time.split_once('T')?;
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|octet| octet.is_ascii_digit());
    let is_ours = digits(date, 8) && digits(clock.strip_suffix('Z')?, 6) && digits(number, 6);
    if is_ours { number.parse().ok() } else { None }
}

/// The name of the next file: after `last`, the greatest of this collector's names that there are, whatever the clock
/// says. A clock that went back would otherwise make new files the oldest.
pub(super) fn next_name(collector: &str, last: Option<&str>, seconds: u32) -> String {
    let fresh = file_name(collector, seconds, 1);
    let Some((last, number)) = last.and_then(|last| Some((last, number_of(collector, last)?))) else { return fresh };
    if fresh.as_str() > last {
        return fresh;
    }
    let stem = last.len().saturating_sub("000000.pcapng".len());
    match (last.get(..stem), number.checked_add(1).filter(|number| *number < NUMBERS)) {
        (Some(stem), Some(number)) => format!("{stem}{number:06}.pcapng"),
        // A million files in a second, or since the clock went back.
        _ => fresh,
    }
}

/// Numbers of files of one second.
const NUMBERS: u32 = 1_000_000;

/// Which of a collector's files go when at most `files_max` may stay: the oldest. 0 keeps them all. The one that is
/// open (`current`) stays in any case.
pub(super) fn surplus(collector: &str, mut file_names: Vec<String>, current: &str, files_max: usize) -> Vec<String> {
    if files_max == 0 {
        return Vec::new();
    }
    file_names.retain(|name| number_of(collector, name).is_some() && name != current);
    let files_max = files_max.saturating_sub(1);
    file_names.sort();
    let over = file_names.len().saturating_sub(files_max);
    file_names.truncate(over);
    file_names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_full_at_its_octets_and_old_at_its_age() {
        let start = Instant::now();
        let mut rotation = Rotation::new(1_000, Duration::from_secs(60));
        assert!(rotation.is_full_for(1), "there is no file yet");
        rotation.begin(100, start);
        assert!(!rotation.is_full_for(900));
        assert!(rotation.is_full_for(901));
        rotation.wrote(900);
        assert!(rotation.is_full_for(1));
        assert!(!rotation.is_old(start + Duration::from_millis(59_999)));
        assert!(rotation.is_old(start + Duration::from_secs(60)));
        rotation.end();
        assert!(!rotation.is_old(start + Duration::from_secs(60)));
    }

    #[test]
    fn names_sort_as_the_files_were_begun_and_are_known_again() {
        let names = [
            file_name("captured", 1_795_418_238, 9),
            file_name("captured", 1_795_418_238, 10),
            file_name("captured", 1_795_418_239, 1),
        ];
        assert_eq!(names[0], "captured-20261123T071718Z-000009.pcapng");
        assert!(names.is_sorted());
        assert_eq!(number_of("captured", &names[1]), Some(10));
    }

    #[test]
    fn only_files_of_this_collector_go_and_the_oldest_first() {
        let ours: Vec<String> = (1..=4).map(|n| file_name("captured", 1_795_418_238, n)).collect();
        let theirs = [
            "captured.pcapng",
            "captured-holiday.pcapng",
            "captured-20261123T081718Z-000001.pcapng.bak",
            "captured-20261123T081718Z-1.pcapng",
            "captured-2026112éT081718Z-000001.pcapng",
            "captured-b-20261123T081718Z-000001.pcapng",
        ];
        let all = ours.iter().cloned().chain(theirs.map(str::to_owned)).collect::<Vec<_>>();
        assert_eq!(surplus("captured", all.clone(), &ours[3], 2), ours[..2]);
        assert_eq!(surplus("captured", all.clone(), &ours[3], 4), Vec::<String>::new());
        assert_eq!(surplus("captured", all.clone(), &ours[3], 0), Vec::<String>::new());
        assert_eq!(surplus("captured", all, &ours[0], 2), ours[1..3], "the open one is never the oldest");
    }

    #[test]
    fn a_clock_that_went_back_makes_no_new_file_the_oldest() {
        let mut last = None;
        let mut names = Vec::new();
        for seconds in [1_795_418_238, 1_795_418_238, 1_795_418_000, 5, 1_795_418_239] {
            let name = next_name("captured", last.as_deref(), seconds);
            names.push(name.clone());
            last = Some(name);
        }
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert_eq!(names[3], "captured-20261123T071718Z-000004.pcapng");
        assert_eq!(names[4], "captured-20261123T071719Z-000001.pcapng");
    }
}
