//! Calls are still found, under a name that says nothing.

use super::{KEY, filter};
use hepgate_filter::SIP;

const PSEUDONYMS: [(&str, &str); 2] = [("key", KEY), ("call_ids", "pseudonym")];

/// The headers after redaction.
fn headers(lines: &str) -> String {
    let message = format!("BYE sip:h.org SIP/2.0\r\n{lines}\r\n\r\n");
    let redacted = filter(PSEUDONYMS).redacted(SIP, message.as_bytes()).unwrap();
    assert_eq!(redacted.len(), message.len());
    let text = String::from_utf8(redacted).unwrap();
    text.strip_prefix("BYE sip:h.org SIP/2.0\r\n").unwrap().strip_suffix("\r\n\r\n").unwrap().to_owned()
}

fn pseudonym(id: &str) -> String {
    let mut octets = id.as_bytes().to_vec();
    crate::ids::hide_words(&mut octets, 0..id.len(), &filter(PSEUDONYMS).0.hider);
    String::from_utf8(octets).unwrap()
}

#[test]
fn a_call_has_the_same_pseudonym_in_every_header_that_names_it() {
    let (id, other) = ("alice-1@192.0.2.1", "4930123@h");
    let (one, two) = (pseudonym(id), pseudonym(other));
    assert_eq!((one.len(), two.len()), (id.len(), other.len()));
    for (line, expected) in [
        (format!("Call-ID: {id}"), format!("Call-ID: {one}")),
        (format!("i:{id}  "), format!("i:{one}  ")),
        (format!("CALL-ID :\r\n {id}"), format!("CALL-ID :\r\n {one}")),
        (format!("X-CID: {id}"), format!("X-CID: {one}")),
        (format!("In-Reply-To: {id}, {other}"), format!("In-Reply-To: {one}, {two}")),
        (
            format!("Replaces: {id};to-tag=7;from-tag=8;early-only;alice=bob"),
            format!("Replaces: {one};to-tag=7;from-tag=8;early-only;xxxxxxxxx"),
        ),
        (format!("Join: {id} ;to-tag=7"), format!("Join: {one} ;to-tag=7")),
        (format!("Target-Dialog: {id};local-tag=1"), format!("Target-Dialog: {one};local-tag=1")),
        (format!("Session-ID: {id};remote={other}"), format!("Session-ID: {one};remote={two}")),
        ("Call-ID:".to_owned(), "Call-ID:".to_owned()),
        ("Replaces: ;;".to_owned(), "Replaces: ;;".to_owned()),
    ] {
        assert_eq!(headers(&line), expected, "{line}");
    }
}

#[test]
fn a_call_has_the_same_pseudonym_in_sip_and_json_however_it_is_escaped() {
    let (id, filter) = ("a/1@192.0.2.1", filter(PSEUDONYMS));
    let json = |text: &str| String::from_utf8(filter.redacted(5, text.as_bytes()).unwrap()).unwrap();
    let expected = pseudonym(id);
    assert_eq!(headers(&format!("Call-ID: {id}")), format!("Call-ID: {expected}"));
    assert_eq!(json(&format!(r#"{{"call_id":"{id}"}}"#)), format!(r#"{{"call_id":"{expected}"}}"#));
    assert_eq!(json(r#"{"callId":"a\/1@192.0.2.1","mos":4}"#), format!(r#"{{"callId":"{expected}" ,"mos":4}}"#));
    assert_eq!(
        json(r#"{"CORRELATION_ID":["a\/1\u0040192.0.2.1"]}"#),
        format!(r#"{{"CORRELATION_ID":["{expected}"      ]}}"#)
    );
    assert_eq!(json(r#"{"call_id":4930123}"#), r#"{"call_id":1111111}"#);
}

#[test]
fn call_ids_stay_where_nothing_else_is_said() {
    let filter = filter([("key", KEY)]);
    let sip = "BYE sip:h.org SIP/2.0\r\nCall-ID: alice@h\r\nReplaces: alice@h;to-tag=1\r\nX-CID: alice@h\r\n\r\n";
    let redacted = String::from_utf8(filter.redacted(SIP, sip.as_bytes()).unwrap()).unwrap();
    assert_eq!(redacted, sip.replace("X-CID: alice@h", "X-CID: xxxxxxx"));
    let json = br#"{"call_id":"a\/lice@h","correlation_id":"alice@h","sid":7}"#;
    assert_eq!(filter.redacted(5, json).unwrap(), json);
}

#[test]
fn tenants_with_realms_of_their_own_have_no_pseudonym_in_common() {
    let sip = b"BYE sip:alice.wonder@h.org SIP/2.0\r\nCall-ID: 1-12469@192.0.2.1\r\n\r\n";
    let of = |realm| {
        let config = [PSEUDONYMS[0], PSEUDONYMS[1], ("realm", realm)];
        String::from_utf8(filter(config).redacted(SIP, sip).unwrap()).unwrap()
    };
    let (north, south) = (of("north"), of("south"));
    assert_eq!(north, of("north"));
    let words = |text: &str| text.split(['\n', ' ', ':', '@', '\r']).map(str::to_owned).collect::<Vec<_>>();
    let same = words(&north).into_iter().zip(words(&south)).filter(|(one, other)| one == other).map(|(one, _)| one);
    let same: Vec<String> = same.filter(|word| !word.is_empty()).collect();
    assert_eq!(same, ["BYE", "sip", "h.org", "SIP/2.0", "Call-ID"]);
}
