//! Payloads that are JSON.

use super::{KEY, filter};

fn json(text: &str) -> String {
    let redacted = filter([]).redacted(5, text.as_bytes()).unwrap_or_else(|| panic!("not JSON: {text}"));
    assert_eq!(redacted.len(), text.len(), "{text}");
    String::from_utf8(redacted).unwrap()
}

#[test]
fn a_report_keeps_its_figures_and_loses_its_cname() {
    let report = r#"{ "sender_information":{"ntp_timestamp_sec":4004407322,"octets":3200, "packets":20},"ssrc":4369,
        "type":200,"report_count":1,"report_blocks":[{"source_ssrc":8738,"fraction_lost":12,"ia_jitter":7,"dlsr":0}],
        "report_blocks_xr":{"round_trip_delay":5,"MOS_LQ":4.2},"mos":nan,
        "sdes_information": [ {"sdes_chunk_ssrc":4369,"type":1,"text":"alice@h"},],} "#;
    assert_eq!(json(report), report.replace("alice@h", "xxxxxxx"));
}

#[test]
fn a_value_stays_if_its_name_vouches_for_it_and_no_address_is_in_it() {
    for (text, expected) in [
        (r#"{"CODEC_NAME":"PCMU","method":"INVITE"}"#, r#"{"CODEC_NAME":"PCMU","method":"INVITE"}"#),
        (r#"{"src_ip":"192.0.2.1","JITTER":"1.5"}"#, r#"{"src_ip":"192.0.2.1","JITTER":"1.5"}"#),
        (r#"{"method":"alice@h.org","jitter":"alice"}"#, r#"{"method":"xxxxx@h.org","jitter":"xxxxx"}"#),
        (r#"{"event":"to tel:4930123"}"#, r#"{"event":"to tel:xxxxxxx"}"#),
        (r#"{"user_agent":"a\u0040h \"b\""}"#, r#"{"user_agent":"xxx xxx"       }"#),
        (r#"{"useragent":"x\/1"}"#, r#"{"useragent":"x\/1"}"#),
        (r#"{"message":"a\"b","text":["c",["d"]]}"#, r#"{"message":"xxxx","text":["x",["x"]]}"#),
        (r#"{"number":4930123,"x":-0.5e3,"y":true}"#, r#"{"number":1111111,"x":-1.1e1,"x":true}"#),
        (r#"{"alice":{"mos":4.1,"alice":"bob"}}"#, r#"{"xxxxx":{"mos":4.1,"xxxxx":"xxx"}}"#),
        (r#"{"jitter":1,"alice"}"#, r#"{"jitter":1,"xxxxx"}"#),
        (r#"{"jitter":1 4930123}"#, r#"{"jitter":1 1111111}"#),
        (r#"{"j\u0069tter":4930123}"#, r#"{"xxxxxxxxxxx":1111111}"#),
        (r#"{"method":"\x"}"#, r#"{"method":"xx"}"#),
        (r#""alice" 4930123"#, r#""xxxxx" 1111111"#),
        ("[]\0\0", "[]\0\0"),
        ("", ""),
    ] {
        assert_eq!(json(text), expected, "{text}");
    }
}

#[test]
fn a_user_is_hidden_however_it_is_written_and_has_the_pseudonym_that_it_has_in_sip() {
    for (value, expected) in [
        ("alice", "xxxxx"),
        ("+4930123", "xxxxxxxx"),
        ("sip:alice@h.org;tag=1", "sip:xxxxx@h.org;tag=1"),
        ("alice@h.org", "xxxxx@h.org"),
        ("Alice Wonder", "xxxxx xxxxxx"),
        (r#"\"Alice\" <sip:alice@h.org>;tag=1"#, r#"xxxxxxx <sip:xxxxx@h.org>;tag=1"  "#),
    ] {
        let padded = expected.ends_with(' ');
        let expected = format!(r#"{{"from_user":"{expected}{}}}"#, if padded { "" } else { "\"" });
        assert_eq!(json(&format!(r#"{{"from_user":"{value}"}}"#)), expected);
    }
    let keyed = filter([("key", KEY)]);
    let of = |kind, text: &str| String::from_utf8(keyed.redacted(kind, text.as_bytes()).unwrap()).unwrap();
    let sip = of(1, "BYE sip:alice@h.org SIP/2.0\r\n\r\n");
    let user = sip.strip_prefix("BYE sip:").unwrap().split('@').next().unwrap();
    assert_eq!(of(5, r#"{"caller":"alice","alice":1}"#), format!(r#"{{"caller":"{user}","{user}":1}}"#));
}

#[test]
fn a_name_that_the_operator_vouches_for_stays_with_its_value() {
    let filter = filter([("json_types", "60"), ("json_keep", "leg, Cost-Per-Minute")]);
    let cdr = br#"{"LEG":"a","cost_per_minute":12,"number":"4930123"}"#;
    let expected = br#"{"LEG":"a","cost_per_minute":12,"number":"xxxxxxx"}"#;
    assert_eq!(filter.redacted(60, cdr).unwrap(), expected);
    assert_eq!(filter.redacted(5, cdr), None, "json_types name all that are masked");
}

#[test]
fn what_is_not_json_is_refused() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(filter([]).redacted(5, deep(32).as_bytes()).is_some());
    for text in [
        "alice",
        "{\"jitter\":1",
        "{\"jitter\":\"1",
        "{\"jitter\":\"1\\",
        "{\"jitter\":1]",
        "]",
        "[\"alice\":1]",
        "\"alice\":1",
        "{:1}",
        "{'alice':1}",
        "{\"mos\":0x12}",
        "INVITE sip:alice@h SIP/2.0\r\n",
        "\u{feff}{}",
        &deep(33),
        &"[".repeat(100_000),
    ] {
        assert_eq!(filter([]).redacted(5, text.as_bytes()), None, "{text:.40}");
    }
}
