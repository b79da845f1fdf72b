//! `route-by`: each packet goes where the first rule that fits it says, and nowhere else.

use hepgate::wire::{Packet, PayloadType};

use super::traffic::{Trial, UNHURRIED, calls, exchange, of_agent, time, trial_from};
use super::{corpus_packets, method, people, read, shipped};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::peers::{Nobody, UdpSink, udp_agent};
use crate::support::settings::{BOTH_LISTENERS, collector};

const ROUTED: &str = "hepgate_guest_routed_total";
const NOT_TAKEN: &str = "hepgate_guest_not_taken_total";
const SKIPPED: &str = "hepgate_tenant_skipped_packets_total";

/// A gateway with the rules, two collectors for them, and another one that is the tenant's.
fn start(rules: &[&str], filters: &str, further: &str, sinks: &[UdpSink; 3]) -> Gateway {
    let [homer, archive, out] = sinks;
    let rules: String = (1..).zip(rules).map(|(n, rule)| format!("rule_{n} = \"{rule}\"\n")).collect();
    let config = [
        BOTH_LISTENERS,
        &collector("homer", &homer.to()),
        &collector("archive", &archive.to()),
        &collector("out", &out.to()),
        &shipped("route-by", &format!("collectors = [\"homer\", \"archive\"]\n{UNHURRIED}[filter.config]\n{rules}")),
        further,
        &format!("[[tenant]]\nname = \"default\"\nfilters = [{filters}]\nroute = [\"out\"]\n"),
    ];
    Gateway::start(&config.concat())
}

/// Whether the user of From or To begins so.
fn has_number(packet: &Packet, header: &str, beginning: &str) -> bool {
    let text = String::from_utf8_lossy(packet.payload()).into_owned();
    let line = text.lines().find(|line| line.starts_with(header)).unwrap_or_default().to_owned();
    packet.head().payload_type == PayloadType::SIP
        && people(line.as_bytes()).iter().any(|user| user.starts_with(beginning))
}

#[test]
fn every_packet_of_every_sender_goes_where_its_first_rule_says_and_nowhere_else() {
    let rules = [
        "agent=5510,3333 method=INVITE,BYE -> homer",
        "type=5,100 -> homer, archive",
        "from=sip source=127.0.0.0/8 -> archive, pass",
        "to=nobody -> homer",
        "destination=127.0.0.1 method=INVITE -> pass",
        "network=192.0.2.0/24,::/0 -> homer",
    ];
    // Who gets it: homer, archive, the tenant's own.
    let ways = |packet: &Packet| -> [bool; 3] {
        let head = packet.head();
        let method = method(packet).unwrap_or_default();
        if head.agent_id == 5_510 && ["INVITE", "BYE"].contains(&method.as_str()) {
            [true, false, false]
        } else if [5, 100].contains(&head.payload_type.0) {
            [true, true, false]
        } else if has_number(packet, "From:", "sip") {
            [false, true, true]
        } else {
            [false, false, true]
        }
    };
    let sinks = [(); 3].map(|()| UdpSink::new());
    let gateway = start(&rules, "\"route-by\"", "", &sinks);
    let agent = udp_agent(gateway.listener("udp"));
    let (mut counts, mut skipped) = ([0; 3], 0);
    for (name, octets) in corpus_packets() {
        agent.send(&octets).unwrap();
        let ways = ways(&read(&octets));
        for ((sink, goes), count) in sinks.iter().zip(ways).zip(&mut counts) {
            if goes {
                assert_eq!(sink.next(), octets, "{name} {ways:?}");
                *count += 1;
            }
        }
        skipped += u64::from(!ways[2]);
    }
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    gateway.await_metric(ROUTED, &[("collector", "homer")], counts[0]);
    gateway.await_metric(ROUTED, &[("collector", "archive")], counts[1]);
    gateway.await_metric("hepgate_tenant_routed_packets_total", &[], counts[2]);
    gateway.await_metric(SKIPPED, &[], skipped);
    assert!(sinks.iter().all(UdpSink::is_empty));
    gateway.stop();
}

#[test]
fn numbers_are_compared_as_they_are_written_but_for_what_makes_them_easy_to_read() {
    let number = |user: &str| super::traffic::replaced(&calls()[0], "sip:sipp@", &format!("sip:{user}@"));
    let cases = [
        ("+49301234", "homer"),
        ("+(49)-30.1234", "homer"),
        ("0049301234", "archive"),
        ("4930", "out"),
        ("+4", "out"),
        ("+33148", "archive"),
    ];
    let sinks = [(); 3].map(|()| UdpSink::new());
    let rules = ["from=+49 -> homer", "number=0049,+33-1,service -> archive", "to=+49 -> homer"];
    // `service`, which is called, would fit all.
    let rules = [rules[0], &rules[1].replace(",service", ""), rules[2]];
    let gateway = start(&rules, "\"route-by\"", "", &sinks);
    let agent = udp_agent(gateway.listener("udp"));
    for (user, to) in cases {
        agent.send(&number(user)).unwrap();
        let sink = ["homer", "archive", "out"].iter().position(|name| *name == to).unwrap();
        assert_eq!(sinks[sink].next(), number(user), "{user}");
    }
    assert!(sinks.iter().all(UdpSink::is_empty));
    gateway.stop();
}

#[test]
fn a_packet_goes_as_the_filters_before_have_made_it_and_not_at_all_if_they_skipped_it() {
    let sinks = [(); 3].map(|()| UdpSink::new());
    // Agent 2's packets are skipped, and SIP is redacted before it is sent.
    let further = [
        shipped("redact", &["on_error = \"drop\"\n", UNHURRIED].concat()),
        shipped(
            "sample",
            &format!(
                "config = {{ rate = \"0\", action = \"skip\" }}\n{UNHURRIED}[filter.subscription]\nagent_ids = [2]\n"
            ),
        ),
    ];
    let filters = "\"redact\", \"sample\", \"route-by\"";
    let gateway = start(&["type=1 -> homer"], filters, &further.concat(), &sinks);
    let agent = udp_agent(gateway.listener("udp"));
    for octets in calls() {
        for id in [2, 1] {
            agent.send(&of_agent(&octets, id)).unwrap();
        }
        let arrived = read(&sinks[0].next());
        assert_eq!(arrived.head().agent_id, 1);
        assert!(!String::from_utf8_lossy(arrived.payload()).contains("sipp@"));
    }
    gateway.await_metric(SKIPPED, &[], 24);
    gateway.await_metric(ROUTED, &[], 12);
    assert!(sinks.iter().all(UdpSink::is_empty));
    gateway.stop();
}

#[test]
fn what_a_collector_does_not_take_goes_the_tenants_way_or_is_lost_and_counted() {
    for (on_full, passes) in [("", true), ("on_full = \"drop\"\n", false)] {
        let (nobody, sink) = (Nobody::new(), UdpSink::new());
        let config = [
            BOTH_LISTENERS,
            &collector("homer", &nobody.to()),
            // Two may wait for a connection, which never comes about.
            "hep_async_max_postponed_chunks = 2\nhep_async_local_connect_timeout = 0\nhep_max_retries = 0\n",
            "backoff_min = \"1ms\"\nbackoff_max = \"10ms\"\n",
            &collector("out", &sink.to()),
            &shipped(
                "route-by",
                &format!("collectors = [\"homer\"]\n{UNHURRIED}[filter.config]\nrule_1 = \"-> homer\"\n{on_full}"),
            ),
            "[[tenant]]\nname = \"default\"\nfilters = [\"route-by\"]\nroute = [\"out\"]\n",
        ];
        let gateway = Gateway::start(&config.concat());
        let agent = udp_agent(gateway.listener("udp"));
        let packets = calls();
        for octets in &packets[..2] {
            agent.send(octets).unwrap();
        }
        gateway.await_metric("hepgate_collector_waiting_packets", &[("collector", "homer")], 2);
        for octets in &packets[2..] {
            agent.send(octets).unwrap();
        }
        gateway.await_metric(NOT_TAKEN, &[("collector", "homer"), ("reason", "postponed-full")], 10);
        gateway.await_metric(SKIPPED, &[], 2);
        if passes {
            assert_eq!(sink.take(10), packets[2..]);
        } else {
            gateway.await_metric("hepgate_tenant_filter_dropped_packets_total", &[], 10);
        }
        assert!(sink.is_empty());
        // At 1, 2, 4 and 8.
        eventually("it is in the log", || gateway.log_text().contains("(postponed-full), 8 so far"));
        assert_eq!(gateway.lines_with("collector homer does not take a packet").len(), 4);
        gateway.stop();
    }
}

#[test]
fn what_one_call_may_not_send_any_more_is_not_taken_either() {
    let packets: Vec<(u64, Vec<u8>)> = calls().into_iter().map(|packet| (time(&packet), packet)).collect();
    let of = |more: &[&str]| -> Trial {
        let options = ["--set rule_1=-> a, b", "--collector a", "--collector b", "--limit sends_max=5", "--batch 6"];
        trial_from("route-by", "192.0.2.1:40000", &packets, &[&options[..], more].concat())
    };
    // Two packets went to both, one to the first only, in each of two calls.
    let passes = of(&[]);
    assert_eq!(passes.verdicts(), "sspppp".repeat(2));
    assert_eq!(passes.sent_to().concat(), "ababa".repeat(2));
    assert_eq!(of(&["--set on_full=drop"]).verdicts(), "sssddd".repeat(2));
    for metric in [
        "routed{collector=\"a\"} 6",
        "routed{collector=\"b\"} 4",
        "not_taken{collector=\"a\",reason=\"quota\"} 6",
        "not_taken{collector=\"b\",reason=\"quota\"} 8",
    ] {
        assert!(passes.metrics().contains(&metric.to_owned()), "{metric} is not in {:?}", passes.metrics());
    }
}

#[test]
fn a_collector_that_a_rule_names_twice_has_a_packet_once() {
    let reports: Vec<(u64, Vec<u8>)> =
        exchange("rtpengine-v3-udp").into_iter().map(|packet| (time(&packet), packet)).collect();
    let options = ["--set rule_1=type=5 -> a, a, pass", "--collector a"];
    let trial = trial_from("route-by", "192.0.2.1:40000", &reports, &options);
    assert_eq!((trial.verdicts(), trial.sent_to().len()), ("p".repeat(reports.len()), reports.len()));
}
