//! Chunks beside the payload: what of them is hidden, in place, octet for octet.

use hepgate_filter::{Batch, ChunkId, EditError};

use crate::hide::Hider;
use crate::members::Names;
use crate::{ids, json};

const AUTHENTICATION_KEY: u16 = 0x0e;
const CORRELATION_ID: u16 = 0x11;
const AGENT_NAME: u16 = 0x13;
const GEO_LOCATION: u16 = 0x22;
const TRANSACTION_TYPE: u16 = 0x24;
const PAYLOAD_JSON_KEYS: u16 = 0x25;
const TAGS: u16 = 0x26;
const GROUP_ID: u16 = 0x29;
/// The last one of the specification, rev. 37: what is above it may be anything.
const LAST_KNOWN: u16 = GROUP_ID;
/// OpenSIPS' further correlation ids, as JSON.
const EXTRA_CORRELATION: u16 = 0x65;

/// Chunks that speak of people. They are asked for one by one, which costs less than all chunks with their payload.
const PEOPLE: [u16; 2] = [GEO_LOCATION, TAGS];
/// Chunks that hold texts.
const TEXTS: [u16; 7] =
    [AUTHENTICATION_KEY, AGENT_NAME, GEO_LOCATION, TRANSACTION_TYPE, PAYLOAD_JSON_KEYS, TAGS, GROUP_ID];

/// Which chunks are hidden. The correlation ids are a matter of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunks {
    /// None.
    Keep,
    /// Where somebody is, and what an operator has tagged calls with.
    People,
    /// All that hold texts, and all that nobody knows: those of vendors and of later specifications.
    Hide,
}

impl Chunks {
    /// Hides them, and the correlation ids if Call-IDs are hidden, in a packet that has chunks.
    ///
    /// # Errors
    /// The packet cannot be changed.
    pub fn hide(self, batch: &Batch, index: u32, hider: &Hider) -> Result<(), EditError> {
        match self {
            Self::Keep => {}
            Self::People => {
                for kind in PEOPLE {
                    change(batch, index, kind, |body| fill(body, hider))?;
                }
            }
            Self::Hide => {
                let all = batch.chunks(index).into_iter().filter(|chunk| is_text(chunk.id));
                for mut chunk in all {
                    fill(&mut chunk.body, hider);
                    batch.set_chunk(index, chunk.id, &chunk.body)?;
                }
            }
        }
        if hider.hides_call_ids() {
            change(batch, index, CORRELATION_ID, |body| correlation_id(body, hider))?;
            change(batch, index, EXTRA_CORRELATION, |body| extra_correlation(body, hider))?;
        }
        Ok(())
    }
}

/// Sets a chunk even if nothing in it was changed: of several of a kind only the one that was changed is left.
fn change(batch: &Batch, index: u32, kind: u16, with: impl Fn(&mut Vec<u8>)) -> Result<(), EditError> {
    let id = ChunkId { vendor: 0, kind };
    let Some(mut body) = batch.chunk(index, id) else { return Ok(()) };
    with(&mut body);
    batch.set_chunk(index, id, &body)
}

/// Whether a chunk may hold a text that is no correlation id.
fn is_text(id: ChunkId) -> bool {
    id.vendor != 0 || TEXTS.contains(&id.kind) || (id.kind > LAST_KNOWN && id.kind != EXTRA_CORRELATION)
}

fn fill(body: &mut [u8], hider: &Hider) {
    hider.octets(body, 0..body.len());
}

fn correlation_id(body: &mut [u8], hider: &Hider) {
    ids::hide_words(body, 0..body.len(), hider);
}

/// What is not JSON in it is hidden whole.
fn extra_correlation(body: &mut [u8], hider: &Hider) {
    if !json::hide(body, &Names::Correlation, hider) {
        fill(body, hider);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn changed(body: &str, change: fn(&mut [u8], &Hider)) -> String {
        let hider = Hider::pseudonyms(b"0123456789abcdef", None, true).unwrap();
        let mut octets = body.as_bytes().to_vec();
        change(&mut octets, &hider);
        assert_eq!(octets.len(), body.len());
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn both_correlation_chunks_have_the_same_pseudonym_of_a_call() {
        let id = changed("1@192.0.2.1", correlation_id);
        assert_eq!(changed("1@192.0.2.1\0", correlation_id), format!("{id}\0"));
        assert_eq!(
            changed(r#"{"isup":"alice","sip":"1@192.0.2.1"}"#, extra_correlation),
            format!(r#"{{"isup":"{}","sip":"{id}"}}"#, changed("alice", correlation_id))
        );
    }

    #[test]
    fn extra_correlation_that_is_no_json_is_hidden_whole() {
        assert_eq!(changed(r#"{"sip":"1@192.0.2.1"#, extra_correlation), "x".repeat(19));
    }

    #[test]
    fn texts_are_told_from_numbers_and_from_correlation_ids() {
        let is = |vendor, kind| is_text(ChunkId { vendor, kind });
        assert!([0x0e, 0x13, 0x22, 0x24, 0x25, 0x26, 0x29, 0x2a, 0x66].iter().all(|kind| is(0, *kind)));
        assert!([0x01, 0x0c, 0x0f, 0x10, 0x11, 0x14, 0x20, 0x27, 0x28, 0x65].iter().all(|kind| !is(0, *kind)));
        assert!(is(3, 0x11) && is(1, 0x02));
    }
}
