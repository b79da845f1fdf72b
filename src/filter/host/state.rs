//! `state`: what a filter remembers.

use std::sync::Arc;

use super::super::bindings::hep::filter::state::{Host, StateError};
use super::super::remembered::{Change, Full, KEY_OCTETS_MAX, Room, number};
use super::super::state::State;
use super::narrow;

impl Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.charge(key.len())?;
        let value = self.remembered(&key);
        self.charge(value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl: Option<u64>) -> wasmtime::Result<Result<(), StateError>> {
        self.charge(key.len() + value.len())?;
        if let Err(error) = check_key(&key) {
            return Ok(Err(error));
        }
        let room = match self.room(&key, value.len()) {
            Ok(room) => room,
            Err(error) => return Ok(Err(error)),
        };
        let expires = self.expires(ttl);
        self.call.changes.insert(key, (Change::Set { value, expires }, Some(room)));
        Ok(Ok(()))
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<bool> {
        self.charge(key.len())?;
        let was_there = self.remembered(&key).is_some();
        if was_there {
            self.call.changes.insert(key, (Change::Remove, None));
        }
        Ok(was_there)
    }

    fn add(&mut self, key: String, by: i64, ttl: Option<u64>) -> wasmtime::Result<Result<i64, StateError>> {
        self.charge(key.len() + size_of::<i64>())?;
        if let Err(error) = check_key(&key) {
            return Ok(Err(error));
        }
        let before = match self.remembered(&key).map(|value| number(&value)) {
            Some(None) => return Ok(Err(StateError::NotANumber)),
            Some(Some(before)) => before,
            None => 0,
        };
        let sum = before.wrapping_add(by);
        let expires = self.expires(ttl);
        // What this call has set or removed is no longer what others add to.
        let change = match self.call.changes.get(&key) {
            Some((Change::Set { expires, .. }, _)) => {
                Change::Set { value: sum.to_be_bytes().to_vec(), expires: *expires }
            }
            Some((Change::Remove, _)) => Change::Set { value: sum.to_be_bytes().to_vec(), expires },
            Some((Change::Add { by: earlier, expires }, _)) => {
                Change::Add { by: earlier.wrapping_add(by), expires: *expires }
            }
            None => Change::Add { by, expires },
        };
        let room = match self.room(&key, size_of::<i64>()) {
            Ok(room) => room,
            Err(error) => return Ok(Err(error)),
        };
        self.call.changes.insert(key, (change, Some(room)));
        Ok(Ok(sum))
    }
}

impl State {
    /// The value of a key as this call sees it.
    fn remembered(&self, key: &str) -> Option<Vec<u8>> {
        let now = self.call.now.wall.as_micros();
        let committed = || self.surroundings.belongings.remembered.get(key, now);
        match self.call.changes.get(key) {
            None => committed(),
            Some((Change::Remove, _)) => None,
            Some((Change::Set { value, expires }, _)) => {
                expires.is_none_or(|expires| now < expires).then(|| value.clone())
            }
            Some((Change::Add { by, .. }, _)) => {
                let before = committed().and_then(|value| number(&value)).unwrap_or(0);
                Some(before.wrapping_add(*by).to_be_bytes().to_vec())
            }
        }
    }

    /// Room for a value, in place of what this call was promised for the key before. Without it, everything is as before.
    fn room(&mut self, key: &str, octets: usize) -> Result<Room, StateError> {
        let earlier = self.call.changes.get_mut(key).and_then(|(_, room)| room.take());
        let had_room = earlier.is_some();
        drop(earlier);
        let remembered = Arc::clone(&self.surroundings.belongings.remembered);
        let now = self.call.now.wall.as_micros();
        let room = remembered.promise(key, octets, now).map_err(|full| match full {
            Full::Keys(most) => StateError::TooManyKeys(narrow(most)),
            Full::Octets(most) => StateError::TooManyOctets(u64::try_from(most).unwrap_or(u64::MAX)),
        });
        if room.is_err() && had_room {
            let octets = match self.call.changes.get(key) {
                Some((Change::Set { value, .. }, _)) => value.len(),
                _ => size_of::<i64>(),
            };
            let again = remembered.promise(key, octets, now).ok();
            if let Some((_, room)) = self.call.changes.get_mut(key) {
                *room = again;
            }
        }
        room
    }

    fn expires(&self, ttl_milliseconds: Option<u64>) -> Option<u64> {
        let micros = ttl_milliseconds?.saturating_mul(1_000);
        Some(self.call.now.wall.as_micros().saturating_add(micros))
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    if (1..=KEY_OCTETS_MAX).contains(&key.len()) { Ok(()) } else { Err(StateError::BadKey) }
}
