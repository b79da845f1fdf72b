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

/// Hides runs of octets where they stand.
pub struct Hider {
    key: Option<Hmac<Sha256>>,
}

impl Hider {
    /// One letter for everything.
    pub const fn fill() -> Self {
        Self { key: None }
    }

    /// The same user is the same pseudonym everywhere, as long as the user part was; a number stays a number.
    ///
    /// # Errors
    /// A sentence if the key is too short. The key itself is never shown.
    pub fn pseudonyms(key: &[u8]) -> Result<Self, String> {
        if key.len() < KEY_OCTETS_MIN {
            let octets = key.len();
            return Err(format!("config key \"key\": {octets} octets are too few, {KEY_OCTETS_MIN} are the least"));
        }
        let mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(key).map_err(|error| format!("config key \"key\": {error}"))?;
        Ok(Self { key: Some(mac) })
    }

    /// Hides a user: with a key by a pseudonym.
    pub fn user(&self, octets: &mut [u8], run: Range<usize>) {
        let Some(user) = octets.get_mut(run) else { return };
        match &self.key {
            None => user.fill(FILL),
            Some(key) => pseudonym(key, user),
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

/// Replaces a user by its pseudonym. Digits become digits if there is nothing else in it but what stands in numbers.
fn pseudonym(key: &Hmac<Sha256>, user: &mut [u8]) {
    let is_number =
        user.iter().all(|octet| octet.is_ascii_digit() || matches!(octet, b'+' | b'-' | b'.' | b'(' | b')'));
    let name = user.to_vec();
    let mut digest = [0; 32];
    for (place, octet) in user.iter_mut().enumerate() {
        if place % digest.len() == 0 {
            let block = u32::try_from(place / digest.len()).unwrap_or(u32::MAX);
            let mac = key.clone().chain_update(block.to_be_bytes()).chain_update(&name);
            digest.copy_from_slice(&mac.finalize().into_bytes());
        }
        let dice = digest.get(place % digest.len()).copied().unwrap_or(0);
        if !is_number {
            *octet = LETTERS.get(usize::from(dice) % LETTERS.len()).copied().unwrap_or(FILL);
        } else if octet.is_ascii_digit() {
            *octet = b'0' + dice % 10;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn hidden(hider: &Hider, user: &str) -> String {
        let mut octets = user.as_bytes().to_vec();
        let all = 0..octets.len();
        hider.user(&mut octets, all);
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn a_user_has_one_pseudonym_for_each_key_and_of_its_own_length() {
        let one = Hider::pseudonyms(b"0123456789abcdef").unwrap();
        let other = Hider::pseudonyms(b"fedcba9876543210").unwrap();
        for user in ["alice", "+49 30 1234".trim(), "a", &"long".repeat(40)] {
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
    fn a_number_stays_a_number() {
        let hider = Hider::pseudonyms(b"0123456789abcdef").unwrap();
        let number = hidden(&hider, "+4930-1234567");
        assert!(number.starts_with('+') && number.as_bytes()[5] == b'-', "{number}");
        assert!(number.bytes().all(|octet| octet.is_ascii_digit() || matches!(octet, b'+' | b'-')), "{number}");
        assert_ne!(number, "+4930-1234567");
    }

    #[test]
    fn a_short_key_is_refused_and_not_shown() {
        assert!(Hider::pseudonyms(b"0123456789abcdef").is_ok());
        let error = Hider::pseudonyms(b"0123456789abcde").err().unwrap();
        assert_eq!(error, "config key \"key\": 15 octets are too few, 16 are the least");
    }
}
