//! What a filter remembers: keys with values, shared by all instances of one filter of one tenant, within a quota.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a key counts for beside its octets, so that many small ones do not pass for nothing.
const KEY_OVERHEAD_OCTETS: usize = 64;
/// Octets of a key.
pub(super) const KEY_OCTETS_MAX: usize = 256;
/// Microseconds between two looks for keys whose time is over, when there is no room.
const SWEEP_MICROS: u64 = 1_000_000;

/// What a filter remembers.
#[derive(Debug)]
pub struct Remembered {
    keys_max: AtomicUsize,
    octets_max: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    /// Of the entries.
    octets: usize,
    /// What calls under way have been promised.
    promised_keys: usize,
    promised_octets: usize,
    swept_at: u64,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    /// Microseconds since the epoch.
    expires: Option<u64>,
}

impl Entry {
    fn is_over(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

/// What a call does to a key, if it returns well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Set { value: Vec<u8>, expires: Option<u64> },
    Remove,
    Add { by: i64, expires: Option<u64> },
}

/// Room that a call was promised. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    of: Arc<Remembered>,
    keys: usize,
    octets: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut inner = self.of.lock();
        inner.promised_keys -= self.keys;
        inner.promised_octets -= self.octets;
    }
}

/// Why there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    Keys(usize),
    Octets(usize),
}

/// What a call has changed so far.
pub(super) type Changes = BTreeMap<String, (Change, Option<Room>)>;

impl Remembered {
    /// Nothing yet; at most so many keys, and so many octets of keys and values.
    #[must_use]
    pub fn new(keys_max: usize, octets_max: usize) -> Arc<Self> {
        let (keys_max, octets_max) = (AtomicUsize::new(keys_max), AtomicUsize::new(octets_max));
        Arc::new(Self { keys_max, octets_max, inner: Mutex::default() })
    }

    /// Other limits from now on. What is there already stays.
    pub fn set_limits(&self, keys_max: usize, octets_max: usize) {
        self.keys_max.store(keys_max, Ordering::Relaxed);
        self.octets_max.store(octets_max, Ordering::Relaxed);
    }

    /// Keys and octets, also those whose time is over and which nobody has missed yet.
    #[must_use]
    pub fn used(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.entries.len(), inner.octets)
    }

    /// The value of a key. `now` in microseconds since the epoch.
    pub(super) fn get(&self, key: &str, now: u64) -> Option<Vec<u8>> {
        let inner = self.lock();
        inner.entries.get(key).filter(|entry| !entry.is_over(now)).map(|entry| entry.value.clone())
    }

    /// Promises room for a value of so many octets.
    pub(super) fn promise(self: &Arc<Self>, key: &str, octets: usize, now: u64) -> Result<Room, Full> {
        let mut inner = self.lock();
        let (keys, octets) = match inner.entries.get(key) {
            Some(entry) => (0, octets.saturating_sub(entry.value.len())),
            None => (1, octets.saturating_add(key.len() + KEY_OVERHEAD_OCTETS)),
        };
        let mut fits = self.fits(&inner, keys, octets);
        if fits.is_err() && now.saturating_sub(inner.swept_at) >= SWEEP_MICROS {
            inner.sweep(now);
            fits = self.fits(&inner, keys, octets);
        }
        fits?;
        inner.promised_keys += keys;
        inner.promised_octets += octets;
        drop(inner);
        Ok(Room { of: Arc::clone(self), keys, octets })
    }

    /// Does what a call that returned well has said. Gives the number of changes that found no room after all, as others
    /// had changed the same keys meanwhile.
    pub(super) fn apply(&self, changes: &mut Changes, now: u64) -> u64 {
        let mut lost = 0;
        for (key, (change, room)) in std::mem::take(changes) {
            drop(room);
            let mut inner = self.lock();
            if inner.entries.get(&key).is_some_and(|entry| entry.is_over(now)) {
                inner.remove(&key);
            }
            let entry = match change {
                Change::Remove => {
                    inner.remove(&key);
                    continue;
                }
                Change::Set { value, expires } => Entry { value, expires },
                Change::Add { by, expires } => match inner.entries.get(&key) {
                    Some(entry) => {
                        let sum = number(&entry.value).unwrap_or(0).wrapping_add(by);
                        Entry { value: sum.to_be_bytes().to_vec(), expires: entry.expires }
                    }
                    None => Entry { value: by.to_be_bytes().to_vec(), expires },
                },
            };
            inner.remove(&key);
            let octets = cost(&key, &entry);
            if self.fits(&inner, 1, octets).is_err() {
                lost += 1;
                continue;
            }
            inner.octets += octets;
            inner.entries.insert(key, entry);
        }
        lost
    }

    fn fits(&self, inner: &Inner, keys: usize, octets: usize) -> Result<(), Full> {
        let (keys_max, octets_max) = (self.keys_max.load(Ordering::Relaxed), self.octets_max.load(Ordering::Relaxed));
        // What needs no more than it has is taken, also if there is more than may be since the limits changed.
        if keys > 0 && inner.entries.len() + inner.promised_keys + keys > keys_max {
            return Err(Full::Keys(keys_max));
        }
        if octets > 0 && inner.octets.saturating_add(inner.promised_octets).saturating_add(octets) > octets_max {
            return Err(Full::Octets(octets_max));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.octets -= cost(key, &entry);
        }
    }

    fn sweep(&mut self, now: u64) {
        self.swept_at = now;
        self.entries.retain(|_, entry| !entry.is_over(now));
        self.octets = self.entries.iter().map(|(key, entry)| cost(key, entry)).sum();
    }
}

fn cost(key: &str, entry: &Entry) -> usize {
    key.len() + entry.value.len() + KEY_OVERHEAD_OCTETS
}

/// The number that a value is.
pub(super) fn number(value: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(of: &Arc<Remembered>, key: &str, octets: usize, expires: Option<u64>, now: u64) -> Result<(), Full> {
        let room = of.promise(key, octets, now)?;
        let change = Change::Set { value: vec![0; octets], expires };
        let mut changes = Changes::from([(key.to_owned(), (change, Some(room)))]);
        assert_eq!(of.apply(&mut changes, now), 0);
        Ok(())
    }

    #[test]
    fn as_many_keys_and_octets_fit_as_may_and_not_one_more() {
        let of = Remembered::new(2, 1_000);
        assert_eq!(set(&of, "a", 100, None, 0), Ok(()));
        assert_eq!(set(&of, "b", 1_000 - 165 - 65, None, 0), Ok(()));
        assert_eq!(of.used(), (2, 1_000));
        assert_eq!(set(&of, "c", 0, None, 0), Err(Full::Keys(2)));
        assert_eq!(set(&of, "a", 101, None, 0), Err(Full::Octets(1_000)));
        // What takes the place of something needs no room of its own.
        assert_eq!(set(&of, "a", 100, None, 0), Ok(()));
        assert_eq!(set(&of, "a", 0, None, 0), Ok(()));
        assert_eq!(of.used(), (2, 900));
    }

    #[test]
    fn what_is_promised_is_given_back_if_the_call_fails() {
        let of = Remembered::new(1, 1_000);
        let room = of.promise("a", 10, 0).unwrap();
        assert_eq!(of.promise("b", 10, 0).err(), Some(Full::Keys(1)));
        drop(room);
        assert!(of.promise("b", 10, 0).is_ok());
        assert_eq!(of.used(), (0, 0));
    }

    #[test]
    fn a_key_whose_time_is_over_is_not_there_and_makes_room() {
        let of = Remembered::new(1, 1_000);
        set(&of, "a", 1, Some(5_000_000), 1_000_000).unwrap();
        assert!(of.get("a", 4_999_999).is_some());
        assert!(of.get("a", 5_000_000).is_none());
        assert_eq!(set(&of, "b", 1, None, 4_999_999), Err(Full::Keys(1)));
        assert_eq!(set(&of, "b", 1, None, 6_000_000), Ok(()));
    }

    #[test]
    fn what_two_calls_add_at_the_same_time_is_added() {
        let of = Remembered::new(1, 1_000);
        let adding = |by| {
            let room = of.promise("n", 8, 0).ok();
            Changes::from([("n".to_owned(), (Change::Add { by, expires: Some(9) }, room))])
        };
        of.apply(&mut adding(40), 0);
        let (mut one, mut other) = (adding(1), adding(1));
        of.apply(&mut one, 0);
        of.apply(&mut other, 0);
        assert_eq!(number(&of.get("n", 8).unwrap()), Some(42));
        assert_eq!(of.get("n", 9), None, "the first one's time counts");
    }

    #[test]
    fn what_others_changed_meanwhile_does_not_break_the_quota() {
        let of = Remembered::new(10, 1_000);
        set(&of, "a", 800, None, 0).unwrap();
        // This call is promised no room, as it takes the place of as much.
        let room = of.promise("a", 800, 0).ok();
        let change = Change::Set { value: vec![0; 800], expires: None };
        let mut changes = Changes::from([("a".to_owned(), (change, room))]);
        set(&of, "a", 0, None, 0).unwrap();
        set(&of, "b", 800, None, 0).unwrap();
        assert_eq!(of.apply(&mut changes, 0), 1);
        assert!(of.used().1 <= 1_000, "{:?}", of.used());
    }
}
