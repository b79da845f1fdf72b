//! Keeps some of the calls, each whole or not at all, by a hash of its id: so all gateways keep the same ones.

use hepgate_kit::{Config, Counter, PacketFilter, PacketView, Verdict};

struct Sample {
    share: Share,
    /// What is left out.
    action: Verdict,
    /// What has no id.
    without: Verdict,
    /// SIP methods that are kept whatever the call.
    always: Vec<String>,
    seen: Counts,
    counter: Counter,
}

/// What became of the packets of the call at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    kept: u64,
    left_out: u64,
    without_id: u64,
}

/// Which ids are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Share {
    /// Hashes below it are kept. One more than there are hashes keeps all.
    below: u128,
    /// The hash so far: of the seed.
    seed: u64,
}

impl PacketFilter for Sample {
    fn new(mut config: Config) -> Result<Self, String> {
        let rate = config.take("rate");
        let seed = config.take("seed").unwrap_or_default();
        let action = config.choose("action", &[("drop", Verdict::Drop), ("skip", Verdict::Skip)]);
        let without = config.take("without");
        let always: Result<Vec<String>, String> = config.list("always", "a SIP method");
        config.finish()?;
        let rate =
            rate.ok_or("config key \"rate\" is missing: how many of the calls are kept, as \"10%\" or \"0.1\"")?;
        let share = Share::new(&rate, &seed)
            .ok_or_else(|| format!("config key \"rate\": {rate:?} is not a share, as \"10%\" or \"0.1\" (0 to 1)"))?;
        let action = action?;
        let without = match without.as_deref() {
            None | Some("pass") => Verdict::Pass,
            Some("drop") => action,
            Some(other) => return Err(format!("config key \"without\": {other:?} is not pass or drop")),
        };
        let always = always?;
        let counter = Counter::declare("packets", "Packets by what became of them", &["became".to_owned()])
            .map_err(|error| format!("no metric packets: {error}"))?;
        Ok(Self { share, action, without, always, seen: Counts::default(), counter })
    }

    fn on_packet(&mut self, packet: &PacketView<'_>) -> Verdict {
        if !self.always.is_empty()
            && let Some(method) = packet.sip_method()
            && self.always.contains(&method)
        {
            self.seen.kept += 1;
            return Verdict::Pass;
        }
        let given = packet.correlation_id().filter(|id| !id.is_empty());
        // Octets of payloads are not read for this: most agents say the id beside them.
        let call_id = || if packet.is_sip() { packet.sip_header("Call-ID") } else { None };
        let id = given.or_else(|| call_id().filter(|id| !id.is_empty()));
        let Some(id) = id else {
            self.seen.without_id += 1;
            return self.without;
        };
        if self.share.keeps(&id) {
            self.seen.kept += 1;
            Verdict::Pass
        } else {
            self.seen.left_out += 1;
            self.action
        }
    }

    fn after_batch(&mut self) {
        let Counts { kept, left_out, without_id } = std::mem::take(&mut self.seen);
        for (became, packets) in [("kept", kept), ("left_out", left_out), ("without_id", without_id)] {
            if packets > 0 {
                // An error, such as a quota of series, is no reason to fail.
                let _ = self.counter.add(&[became.to_owned()], packets);
            }
        }
    }
}

impl Share {
    /// `rate` as "10%", "0.1" or "1/10".
    fn new(rate: &str, seed: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let rate = if let Some(percent) = rate.trim().strip_suffix('%') {
            number(percent)? / 100.0
        } else if let Some((part, whole)) = rate.split_once('/') {
            number(part)? / number(whole)?
        } else {
            number(rate)?
        };
        if !(0.0..=1.0).contains(&rate) {
            return None;
        }
        // 2^64 hashes, of which so many are kept. A float that is none of these does not come here.
        let below = (rate * 18_446_744_073_709_551_616.0) as u128;
        // The 0 ends the seed, so that no seed with an id is another seed with another id.
        Some(Self { below, seed: fnv1a(fnv1a(FNV_BASIS, seed.as_bytes()), &[0]) })
    }

    fn keeps(&self, id: &[u8]) -> bool {
        u128::from(mixed(fnv1a(self.seed, id))) < self.below
    }
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits, from an earlier state on.
fn fnv1a(state: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(state, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}

/// The last step of MurmurHash3: FNV alone leaves the high bits of similar ids alike, and those decide.
const fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

hepgate_kit::packet_filter!(Sample);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn kept(share: Share, id: impl Fn(u32) -> String) -> u32 {
        (0..100_000).map(|n| u32::from(share.keeps(id(n).as_bytes()))).sum()
    }

    #[test]
    fn so_many_of_the_calls_are_kept_as_the_rate_says() {
        for (rate, expected) in [("10%", 10_000), ("0.5", 50_000), ("1/100", 1_000), ("0.25%", 250)] {
            let share = Share::new(rate, "").unwrap();
            // Ids that differ in front, at the end, and hardly at all.
            for kept in [
                kept(share, |n| format!("{n}-8892@127.0.0.1")),
                kept(share, |n| format!("a84b4c76e66710@pc{n}")),
                kept(share, |n| n.to_string()),
            ] {
                // Five standard deviations.
                let far = (f64::from(expected).sqrt() * 5.0) as u32;
                assert!(kept.abs_diff(expected) < far, "{rate}: {kept}");
            }
        }
    }

    #[test]
    fn all_and_none_are_all_and_none() {
        assert_eq!(kept(Share::new("100%", "").unwrap(), |n| n.to_string()), 100_000);
        assert_eq!(kept(Share::new("0", "").unwrap(), |n| n.to_string()), 0);
    }

    #[test]
    fn a_smaller_sample_is_part_of_a_greater_one_and_of_another_seed_it_is_another() {
        let (tenth, half) = (Share::new("10%", "x").unwrap(), Share::new("50%", "x").unwrap());
        let other = Share::new("10%", "y").unwrap();
        let ids = || (0..100_000_u32).map(|n| n.to_string());
        assert!(ids().filter(|id| tenth.keeps(id.as_bytes())).all(|id| half.keeps(id.as_bytes())));
        let both = ids().filter(|id| tenth.keeps(id.as_bytes()) && other.keeps(id.as_bytes())).count();
        assert!((800..1_200).contains(&both), "independent: a hundredth is in both, {both}");
    }

    /// Gateways of different versions must agree: a change of these is a change of what is kept everywhere.
    #[test]
    fn the_hash_never_changes() {
        for (seed, id, hash) in [
            ("", "1-8892@127.0.0.1", 0xe8f2_23e9_ccf5_f9d0),
            ("berlin", "a84b4c76e66710@pc33.atlanta.example.com", 0xcc8b_69c5_8f54_661a),
        ] {
            let share = Share::new("50%", seed).unwrap();
            assert_eq!(mixed(fnv1a(share.seed, id.as_bytes())), hash, "{id}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for rate in ["", "x", "-1", "1.1", "101%", "1/0", "NaN", "inf", "%"] {
            assert_eq!(Share::new(rate, ""), None, "{rate}");
        }
        for (values, error) in [
            (&[("rat", "1")][..], "config key \"rat\" is unknown; known here: rate, seed, action, without, always"),
            (&[], "config key \"rate\" is missing: how many of the calls are kept, as \"10%\" or \"0.1\""),
            (&[("rate", "2")], "config key \"rate\": \"2\" is not a share, as \"10%\" or \"0.1\" (0 to 1)"),
            (&[("rate", "1"), ("without", "skip")], "config key \"without\": \"skip\" is not pass or drop"),
            (&[("rate", "1"), ("action", "mark")], "config key \"action\": \"mark\" is not drop or skip"),
        ] {
            assert_eq!(Sample::new(Config::of(values.iter().copied())).err().unwrap(), error);
        }
    }
}
