//! What real agents sent, and what becomes of it on the way: nothing panics, lengths stay, JSON stays JSON.

use super::{Dice, KEY, filter};
use crate::Redact;

/// Payloads of the corpus, with their types.
fn corpus() -> Vec<(u8, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus");
    let mut payloads = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().ends_with(".frames.jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let hex = line.split("\"hex\": \"").nth(1).unwrap().split('"').next().unwrap();
            let digit = |digit: &u8| u8::try_from(char::from(*digit).to_digit(16).unwrap()).unwrap();
            let frame: Vec<u8> = hex.as_bytes().chunks(2).map(|pair| digit(&pair[0]) * 16 + digit(&pair[1])).collect();
            if frame.starts_with(b"HEP3") {
                payloads.push(payload(&frame));
            }
        }
    }
    payloads
}

fn payload(frame: &[u8]) -> (u8, Vec<u8>) {
    let (mut at, mut kind, mut payload) = (6, 0, Vec::new());
    while at + 6 <= frame.len() {
        let end = at + usize::from(u16::from_be_bytes([frame[at + 4], frame[at + 5]]));
        match frame[at..at + 4] {
            [0, 0, 0, 0x0b] => kind = frame[at + 6],
            [0, 0, 0, 0x0f] => payload = frame[at + 6..end].to_vec(),
            _ => {}
        }
        at = end;
    }
    (kind, payload)
}

fn filters() -> [Redact; 3] {
    let all = ("json_types", "5,60,100");
    [
        filter([all]),
        filter([all, ("key", KEY)]),
        filter([all, ("key", KEY), ("call_ids", "pseudonym"), ("realm", "north")]),
    ]
}

#[test]
fn what_rtpengine_sent_loses_nothing_but_its_cname() {
    let reports: Vec<Vec<u8>> = corpus().into_iter().filter(|(kind, _)| *kind == 5).map(|(_, report)| report).collect();
    let with_cname = |report: &&Vec<u8>| report.ends_with(b"\"text\":\"corpus\"}] }");
    assert!(reports.iter().filter(with_cname).count() > 3);
    for report in reports {
        let redacted = filter([]).redacted(5, &report).unwrap();
        let (before, after) = (String::from_utf8(report).unwrap(), String::from_utf8(redacted).unwrap());
        assert_eq!(after, before.replace("\"text\":\"corpus\"", "\"text\":\"xxxxxx\""));
    }
}

#[test]
fn payloads_of_real_agents_gone_wrong_never_panic_and_keep_their_length() {
    let (corpus, filters, mut dice) = (corpus(), filters(), Dice(7));
    let (mut read, rounds) = (0, 3_000);
    for round in 0..rounds {
        let (kind, mut octets) = corpus[round % corpus.len()].clone();
        for _ in 0..=dice.below(4) {
            mangle(&mut octets, &mut dice);
        }
        for filter in &filters {
            // As what it is, and as what it is not.
            for kind in [kind, 1, 5] {
                if let Some(redacted) = filter.redacted(kind, &octets) {
                    assert_eq!(redacted.len(), octets.len());
                    read += 1;
                }
            }
        }
    }
    assert!(read > rounds, "{read}");
}

fn mangle(octets: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(octets.len() + 1);
    let special = *b"\"\\{}[]:,;<>@ \r\n\0\xff0u".get(dice.below(19)).unwrap();
    match dice.below(4) {
        0 => octets.truncate(at.max(16)),
        1 => octets.insert(at, special),
        2 if at < octets.len() => octets[at] = special,
        _ if at < octets.len() => {
            octets.remove(at);
        }
        _ => {}
    }
}

/// JSON with a canary in every place that nobody vouches for, gone wrong: what can still be read holds none of them,
/// and can be read again.
#[test]
fn no_canary_survives_in_json_gone_wrong() {
    let canaries = ["alice", "bob", "4930123", "secret", "wonder"];
    let seed = r#"{"from_user":"alice","to":"\"Wonder\" <sip:bob@h>;tag=1","alice":{"bob":4930123,"x":["secret"]},
        "text":"a\u006cice secret","number":4930123,"cname":"alice@h","call_id":"alice@192.0.2.1","ssrc":1234,
        "jitter":"secret","list":[[4930123],"bob",{"name":"Wonder"}],"method":"INVITE","type":"PERIODIC"}"#;
    let strict = filter([("key", KEY), ("call_ids", "pseudonym")]);
    let (mut dice, mut read) = (Dice(3), 0);
    for _ in 0..10_000 {
        let mut octets = seed.as_bytes().to_vec();
        for _ in 0..dice.below(4) {
            mangle(&mut octets, &mut dice);
        }
        let Some(redacted) = strict.redacted(5, &octets) else { continue };
        read += 1;
        assert_eq!(redacted.len(), octets.len());
        assert!(strict.redacted(5, &redacted).is_some(), "{}", redacted.escape_ascii());
        let text = String::from_utf8_lossy(&redacted).to_lowercase();
        for canary in canaries {
            assert!(!text.contains(canary), "{canary} in {text}\nof {}", octets.escape_ascii());
        }
    }
    assert!(read > 3_000, "{read}");
}

#[test]
fn what_is_hidden_by_one_letter_is_not_changed_a_second_time() {
    let filter = filter([("json_types", "5,60,100")]);
    for (kind, payload) in corpus() {
        let Some(once) = filter.redacted(kind, &payload) else { continue };
        assert_eq!(filter.redacted(kind, &once).unwrap(), once, "{}", payload.escape_ascii());
    }
}
