//! `fix-time`: times of capture that are none, far away, or in other fractions of a second.

use std::time::{SystemTime, UNIX_EPOCH};

use hepgate::wire::Version;

use super::traffic::{
    TwoWorkers, UNHURRIED, calls, captured, captured_at, exchange, of_agent, time, trial, trial_from,
};
use super::{corpus_packets, read, through};
use crate::support::peers::{UdpSink, udp_agent};

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;

/// What the times of capture were changed to; nothing for one that was left alone.
fn times(name: &str, packets: &[(u64, Vec<u8>)], options: &[&str]) -> Vec<Option<u64>> {
    let time = |changes: &Vec<String>| {
        let (_, time) = changes.iter().find(|change| change.starts_with("captured at: "))?.rsplit_once(' ').unwrap();
        let (seconds, fraction) = time.split_once('.').unwrap();
        Some(seconds.parse::<u64>().unwrap() * SECOND + fraction.parse::<u64>().unwrap())
    };
    trial(name, packets, options).changes().iter().map(time).collect()
}

/// The packets of two calls, of which each comes 2 to 5 ms after it was captured, with what `write` makes of the time.
fn stream(seconds: u64, write: impl Fn(&[u8], u64) -> Vec<u8>) -> Vec<(u64, Vec<u8>)> {
    let start = time(&calls()[0]) / SECOND * SECOND;
    let packet = |(n, packet): (u64, Vec<u8>)| {
        let at = start + n * 137_911;
        (at + 2_000 + n % 4 * 1_000, write(&packet, at))
    };
    (0..seconds * 7).zip(calls().into_iter().cycle()).map(packet).collect()
}

#[test]
fn times_of_real_senders_are_right_and_stay() {
    for (name, octets) in corpus_packets() {
        if read(&octets).head().version == Version::Hep1 {
            continue;
        }
        // It came 20 ms later.
        assert_eq!(times("fix-time", &[(time(&octets) + 20_000, octets)], &[]), [None], "{name}");
    }
}

#[test]
fn what_has_no_time_or_one_that_is_far_away_gets_that_of_its_receipt_or_fares_as_is_said() {
    // A filter's clock shows whole milliseconds.
    let packet = calls().remove(0);
    let now = time(&packet) / 1_000 * 1_000;
    let (none, ahead, behind) = (0, now + 60 * SECOND + 1, now - DAY - 1);
    for (at, options, expected, kind) in [
        (none, &[][..], "received", "zero"),
        (999_999, &[], "received", "zero"),
        (none, &["--set zero=leave"], "leave", "zero"),
        (none, &["--set zero=drop"], "drop", "zero"),
        (now + 60 * SECOND, &[], "leave", ""),
        (ahead, &[], "received", "future"),
        (ahead, &["--set future=leave"], "leave", "future"),
        (ahead, &["--set future=drop"], "drop", "future"),
        (ahead, &["--set max_future=2m"], "leave", ""),
        (now - DAY, &[], "leave", ""),
        (behind, &[], "leave", "past"),
        (behind, &["--set past=received"], "received", "past"),
        (behind, &["--set past=drop"], "drop", "past"),
        (behind, &["--set past=drop", "--set max_past=2d"], "leave", ""),
    ] {
        let packets = [(now, captured_at(&packet, at))];
        let trial = trial("fix-time", &packets, options);
        assert_eq!(trial.verdicts(), if expected == "drop" { "d" } else { "p" }, "{at} {options:?}");
        let found = if kind.is_empty() { vec![] } else { vec![format!("found{{kind=\"{kind}\"}} 1")] };
        assert_eq!(trial.metrics(), found, "{at} {options:?}");
        let times = times("fix-time", &packets, options);
        assert_eq!(times, [(expected == "received").then_some(now)], "{at} {options:?}");
    }
}

#[test]
fn hep1_gets_a_time_and_becomes_hep3_only_if_it_is_told_so() {
    for (config, expected) in [("", Version::Hep1), ("config = { hep1 = \"received\" }\n", Version::Hep3)] {
        let sink = UdpSink::new();
        let gateway = through("fix-time", &[config, UNHURRIED].concat(), &sink);
        let agent = udp_agent(gateway.listener("udp"));
        for octets in exchange("opensips-tracer-v1-udp") {
            agent.send(&octets).unwrap();
            let arrived = read(&sink.next());
            assert_eq!(arrived.head().version, expected);
            assert_eq!(arrived.payload(), read(&octets).payload());
            let is_new = arrived.head().captured_at.is_some_and(|at| at.as_micros() + DAY > wall());
            assert_eq!(is_new, expected == Version::Hep3);
        }
        gateway.stop();
    }
    let packets: Vec<(u64, Vec<u8>)> =
        (0..).zip(exchange("kamailio-siptrace-v1-udp")).map(|(n, packet)| (DAY + n, packet)).collect();
    let trial = trial("fix-time", &packets, &["--set hep1=drop"]);
    assert_eq!(trial.verdicts(), "d".repeat(packets.len()));
}

fn wall() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

#[test]
fn packets_that_get_the_time_of_their_receipt_keep_their_order_whatever_call_they_came_in() {
    let (at, packet) = (time(&calls()[0]) / 1_000 * 1_000, captured(&calls()[0], 0, 0));
    let packets = vec![(at, packet); 12];
    for batch in ["--batch 1", "--batch 5", "--batch 64"] {
        let trial = trial_from("fix-time", "192.0.2.1:40000", &packets, &[batch]);
        let last = |changes: &Vec<String>| {
            changes
                .iter()
                .find(|change| change.starts_with("captured at: "))
                .unwrap()
                .rsplit(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        let times: Vec<String> = trial.changes().iter().map(last).collect();
        let expected: Vec<String> = (at..at + 12).map(|at| format!("{}.{:06}", at / SECOND, at % SECOND)).collect();
        assert_eq!(times, expected, "{batch}");
    }
}

#[test]
fn milliseconds_in_the_place_of_microseconds_are_learnt_scaled_and_given_up() {
    let mut packets = stream(10, |packet, at| captured(packet, at / SECOND, at % SECOND / 1_000));
    let count = packets.len();
    // In the end the agent is set right.
    packets.extend(stream(12, captured_at).drain(count..));
    let fixed = times("fix-time", &packets, &[]);
    let first = fixed.iter().position(Option::is_some).unwrap();
    assert!((32..36).contains(&first), "{first}");
    for ((came, packet), fixed) in packets.iter().zip(&fixed).skip(first).take(count - first) {
        // One that was captured at a full second has no milliseconds to scale.
        let at = fixed.unwrap_or_else(|| time(packet));
        assert!((1_000..6_000).contains(&(came - at)), "{came} {at}");
    }
    assert!(fixed[count..].iter().all(Option::is_none));
    let said = trial("fix-time", &packets, &[]);
    assert_eq!(
        said.log(),
        ["info: agent 218431488 sends milliseconds for microseconds", "info: agent 218431488 sends microseconds again"]
    );
    let left = times("fix-time", &packets, &["--set fractions=leave"]);
    assert!(left.iter().all(Option::is_none));
}

#[test]
fn agents_that_know_microseconds_whole_milliseconds_or_whole_seconds_are_left_alone() {
    for unit in [1, 1_000, SECOND] {
        let packets = stream(20, |packet, at| captured_at(packet, at / unit * unit));
        let trial = trial("fix-time", &packets, &[]);
        assert!(trial.changes().iter().all(Vec::is_empty));
        assert!(trial.metrics().is_empty() && trial.log().is_empty(), "{trial:?}");
    }
}

#[test]
fn nanoseconds_in_the_place_of_microseconds_are_found_by_a_time_that_lies_ahead() {
    let packets = stream(3, |packet, at| captured(packet, at / SECOND, at % SECOND * 1_000));
    let fixed = times("fix-time", &packets, &[]);
    // More than a minute ahead: 60 ms and more into the second. The first one lies on the second.
    assert_eq!((fixed[0], fixed[1].is_some()), (None, true));
    for ((came, packet), fixed) in packets.iter().zip(&fixed).skip(1) {
        let at = fixed.unwrap_or_else(|| time(packet));
        assert!((1_000..6_000).contains(&(came - at)), "{came} {at}");
    }
    let log = trial("fix-time", &packets, &[]).log();
    assert_eq!(log, ["info: agent 218431488 sends nanoseconds for microseconds"]);
}

#[test]
fn what_one_worker_has_learnt_of_an_agent_all_of_them_know() {
    let sink = UdpSink::new();
    let TwoWorkers { gateway, agents: [one, other] } = TwoWorkers::start("fix-time", "", "", &sink);
    let call = calls();
    let now_in_milliseconds = |id: u32| {
        let now = wall();
        (now, captured(&of_agent(&call[0], id), now / SECOND, now % SECOND / 1_000))
    };
    let is_right = |now: u64, octets: &[u8]| now - time(octets) < 1_000;
    // One packet after the other, so that all together take longer than each.
    let mut sent = 0;
    while sent == 0 || gateway.lines_with("agent 7 sends milliseconds").is_empty() {
        let (_, packet) = now_in_milliseconds(7);
        one.send(&packet).unwrap();
        sink.next();
        sent += 1;
        assert!(sent < 10_000, "it is never learnt");
    }
    assert!(sent >= 32, "{sent}");
    for agent in [&one, &other] {
        let (now, packet) = now_in_milliseconds(7);
        agent.send(&packet).unwrap();
        assert!(is_right(now, &sink.next()));
    }
    // Of another agent nothing is known.
    let (_, packet) = now_in_milliseconds(8);
    other.send(&packet).unwrap();
    assert_eq!(sink.next(), packet);
    gateway.stop();
}
