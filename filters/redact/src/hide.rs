//! How a run of octets is hidden: by one letter, or by a pseudonym that only who has the key can make.

use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What stands where something was.
const FILL: u8 = b'x';
/// Octets that a key must have: a shorter one is guessed.
const KEY_OCTETS_MIN: usize = 16;
/// Letters of pseudonyms.
const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";

/// What an HMAC is made for: the first four octets of what it is made of. The purposes of pseudonyms leave room for the
/// number of the block in a pseudonym longer than one digest; so no two messages for two purposes are ever the same.
const USER: u32 = 0;
const CALL_ID: u32 = 0x8000_0000;
const REALM: u32 = 0xffff_ffff;

/// Hides runs of octets where they stand.
pub struct Hider {
    key: Option<Hmac<Sha256>>,
    call_ids: bool,
}

impl Hider {
    /// One letter for everything; Call-IDs stay.
    pub const fn fill() -> Self {
        Self { key: None, call_ids: false }
    }

    /// The same user is the same pseudonym everywhere, as long as the user part was; a number stays a number. In
    /// another realm it is another one, and without the key nobody can say which belongs to which. Call-IDs stay, or
    /// become pseudonyms too.
    ///
    /// # Errors
    /// A sentence if the key is too short. The key itself is never shown.
    pub fn pseudonyms(key: &[u8], realm: Option<&[u8]>, call_ids: bool) -> Result<Self, String> {
        if key.len() < KEY_OCTETS_MIN {
            let octets = key.len();
            return Err(format!("config key \"key\": {octets} octets are too few, {KEY_OCTETS_MIN} are the least"));
        }
        let key = match realm {
            None => mac(key)?,
            Some(realm) => {
                let own = mac(key)?.chain_update(REALM.to_be_bytes()).chain_update(realm);
                mac(&own.finalize().into_bytes())?
            }
        };
        Ok(Self { key: Some(key), call_ids })
    }

    /// Hides a user: with a key by a pseudonym.
    pub fn user(&self, octets: &mut [u8], run: Range<usize>) {
        let Some(user) = octets.get_mut(run) else { return };
        let in_numbers = |octet: &u8| octet.is_ascii_digit() || matches!(octet, b'+' | b'-' | b'.' | b'(' | b')');
        match &self.key {
            None => user.fill(FILL),
            Some(key) if user.iter().all(in_numbers) => {
                pseudonym(key, USER, user, |octet, dice| if octet.is_ascii_digit() { b'0' + dice % 10 } else { octet })
            }
            Some(key) => pseudonym(key, USER, user, |_, dice| letter(dice)),
        }
    }

    /// Whether Call-IDs do not stay.
    pub const fn hides_call_ids(&self) -> bool {
        self.call_ids
    }

    /// Hides a Call-ID, if they are to be hidden: the same one is the same pseudonym wherever it stands. All of it
    /// becomes letters: an `@` or a dash says which sort of telephone it was.
    pub fn call_id(&self, octets: &mut [u8], run: Range<usize>) {
        if let (true, Some(key), Some(id)) = (self.call_ids, &self.key, octets.get_mut(run)) {
            pseudonym(key, CALL_ID, id, |_, dice| letter(dice));
        }
    }

    /// Hides anything else: every octet but white space, so that lines stay lines.
    pub fn text(&self, octets: &mut [u8], run: Range<usize>) {
        let Some(text) = octets.get_mut(run) else { return };
        for octet in text.iter_mut().filter(|octet| !octet.is_ascii_whitespace()) {
            *octet = FILL;
        }
    }

    /// Hides every octet.
    pub fn octets(&self, octets: &mut [u8], run: Range<usize>) {
        if let Some(octets) = octets.get_mut(run) {
            octets.fill(FILL);
        }
    }
}

fn mac(key: &[u8]) -> Result<Hmac<Sha256>, String> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).map_err(|error| format!("config key \"key\": {error}"))
}

fn letter(dice: u8) -> u8 {
    LETTERS.get(usize::from(dice) % LETTERS.len()).copied().unwrap_or(FILL)
}

/// Replaces a name by its pseudonym: `turn` says what an octet becomes with a dice.
fn pseudonym(key: &Hmac<Sha256>, purpose: u32, name: &mut [u8], turn: impl Fn(u8, u8) -> u8) {
    let whole = name.to_vec();
    for (block, octets) in (purpose..).zip(name.chunks_mut(32)) {
        let digest = key.clone().chain_update(block.to_be_bytes()).chain_update(&whole).finalize().into_bytes();
        for (octet, dice) in octets.iter_mut().zip(digest) {
            *octet = turn(*octet, dice);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef";

    fn hidden(hider: &Hider, user: &str) -> String {
        changed(user, |octets, all| hider.user(octets, all))
    }

    fn call(hider: &Hider, id: &str) -> String {
        changed(id, |octets, all| hider.call_id(octets, all))
    }

    fn changed(text: &str, change: impl Fn(&mut [u8], Range<usize>)) -> String {
        let mut octets = text.as_bytes().to_vec();
        let all = 0..octets.len();
        change(&mut octets, all);
        String::from_utf8(octets).unwrap()
    }

    fn keyed(key: &[u8], realm: Option<&str>) -> Hider {
        Hider::pseudonyms(key, realm.map(str::as_bytes), true).unwrap()
    }

    #[test]
    fn a_user_has_one_pseudonym_for_each_key_and_of_its_own_length() {
        let (one, other) = (keyed(KEY, None), keyed(b"fedcba9876543210", None));
        for user in ["alice", "+49 30 1234", "a", &"long".repeat(40)] {
            let pseudonym = hidden(&one, user);
            assert_eq!(pseudonym.len(), user.len());
            assert_eq!(pseudonym, hidden(&one, user));
            if user.len() > 3 {
                assert_ne!(pseudonym, user);
                assert_ne!(pseudonym, hidden(&other, user));
            }
        }
        assert_eq!(hidden(&Hider::fill(), "alice"), "xxxxx");
    }

    #[test]
    fn pseudonyms_of_users_are_those_of_earlier_versions() {
        assert_eq!(hidden(&keyed(KEY, None), "alice"), "prtta");
        assert_eq!(hidden(&keyed(KEY, None), "+4930-1234567"), "+3232-6082580");
    }

    #[test]
    fn a_realm_has_pseudonyms_of_its_own() {
        let realms = [None, Some("north"), Some("south"), Some("northern")];
        for name in ["alice.wonder", "+49301234567", &"1-12469@192.0.2.1".repeat(4)] {
            let mut seen = Vec::new();
            for realm in realms {
                let (user, id) = (hidden(&keyed(KEY, realm), name), call(&keyed(KEY, realm), name));
                assert_eq!(user, hidden(&keyed(KEY, realm), name), "the same realm is the same pseudonym");
                assert_eq!((user.len(), id.len()), (name.len(), name.len()));
                seen.extend([user, id]);
            }
            seen.push(name.to_owned());
            let all = seen.len();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), all, "no two are the same: {seen:?}");
        }
    }

    #[test]
    fn a_call_id_stays_or_becomes_letters_of_its_own_length() {
        let id = "1-12469@192.0.2.1";
        assert_eq!(call(&Hider::fill(), id), id);
        assert_eq!(call(&Hider::pseudonyms(KEY, None, false).unwrap(), id), id);
        let pseudonym = call(&keyed(KEY, None), id);
        assert_eq!(pseudonym.len(), id.len());
        assert!(pseudonym.bytes().all(|octet| octet.is_ascii_lowercase()), "{pseudonym}");
        assert_ne!(call(&keyed(KEY, None), "1-12469@192.0.2.2"), pseudonym);
    }

    #[test]
    fn a_number_stays_a_number() {
        let number = hidden(&keyed(KEY, None), "+4930-1234567");
        assert!(number.starts_with('+') && number.as_bytes()[5] == b'-', "{number}");
        assert!(number.bytes().all(|octet| octet.is_ascii_digit() || matches!(octet, b'+' | b'-')), "{number}");
        assert_ne!(number, "+4930-1234567");
    }

    #[test]
    fn a_short_key_is_refused_and_not_shown() {
        assert!(Hider::pseudonyms(KEY, None, false).is_ok());
        let error = Hider::pseudonyms(b"0123456789abcde", None, false).err().unwrap();
        assert_eq!(error, "config key \"key\": 15 octets are too few, 16 are the least");
    }
}
