//! Metrics of the filters' own, as `hepgate_guest_NAME`. What a guest calls things cannot break the page, nor pass for
//! what the gateway says itself.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::filter::{MetricKind, MetricSample, MetricValue};

/// A filter of a tenant and what it counts.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Guest {
    pub(super) tenant: String,
    pub(super) filter: String,
    pub(super) samples: Vec<MetricSample>,
}

/// Kinds of metrics on the page: one name must be of one kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    const fn of(kind: &MetricKind) -> Self {
        match kind {
            MetricKind::Counter => Self::Counter,
            MetricKind::Gauge => Self::Gauge,
            MetricKind::Histogram(_) => Self::Histogram,
        }
    }

    const fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }

    /// What distinguishes metrics of one name: two filters may not know of each other.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "",
            Self::Gauge => "_gauge",
            Self::Histogram => "_histogram",
        }
    }
}

/// All of them, sorted by name.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, guests: &[Guest]) -> fmt::Result {
    let mut families: BTreeMap<(String, Kind), Vec<(&Guest, &MetricSample)>> = BTreeMap::new();
    for guest in guests {
        for sample in &guest.samples {
            let kind = Kind::of(&sample.kind);
            let name = format!("hepgate_guest_{}{}", sample.name, kind.suffix());
            families.entry((name, kind)).or_default().push((guest, sample));
        }
    }
    let mut last: Option<&str> = None;
    for ((name, kind), samples) in &families {
        // A gauge `a` and a counter `a_gauge` would be one name: the one that is first in the order stays.
        if last == Some(name.as_str()) {
            continue;
        }
        last = Some(name);
        let help = samples.first().map_or("", |(_, sample)| sample.help.as_str());
        let mut metric = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
        for (guest, sample) in samples {
            let mut labels = vec![("tenant", guest.tenant.as_str()), ("filter", guest.filter.as_str())];
            labels.extend(sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let labels = labels.as_slice();
            let mut series = metric.encode_family(&labels)?;
            match (&sample.value, &sample.kind) {
                (MetricValue::Counter(value), _) => series.encode_counter::<NoLabelSet, u64, f64>(value, None)?,
                (MetricValue::Gauge(value), _) => series.encode_gauge(value)?,
                (MetricValue::Histogram(counts, sum), MetricKind::Histogram(bounds)) => {
                    let bounds = bounds.iter().copied().chain(std::iter::once(f64::INFINITY));
                    let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
                    series.encode_histogram::<NoLabelSet>(*sum, counts.iter().sum(), &buckets, None)?;
                }
                (MetricValue::Histogram(..), _) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct Page(Vec<Guest>);

    impl Collector for Page {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            encode(&mut encoder, &self.0)
        }
    }

    fn sample(name: &str, kind: MetricKind, value: MetricValue) -> MetricSample {
        let labels = vec![("x".to_owned(), "a\"b".to_owned())];
        MetricSample { name: name.to_owned(), help: "what".to_owned(), kind, labels, value }
    }

    #[test]
    fn what_several_filters_call_by_one_name_stands_on_the_page_by_its_kind() {
        let guest = |tenant: &str, samples| Guest { tenant: tenant.to_owned(), filter: "f".to_owned(), samples };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page(vec![
            guest(
                "a",
                vec![
                    sample("n", MetricKind::Counter, MetricValue::Counter(1)),
                    sample("n_gauge", MetricKind::Counter, MetricValue::Counter(9)),
                ],
            ),
            guest("b", vec![sample("n", MetricKind::Counter, MetricValue::Counter(2))]),
            guest("c", vec![sample("n", MetricKind::Gauge, MetricValue::Gauge(0.5))]),
            guest("d", vec![sample("n", MetricKind::Histogram(vec![1.0]), MetricValue::Histogram(vec![1, 2], 7.0))]),
        ])));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE hepgate_guest_n counter",
                "hepgate_guest_n_total{tenant=\"a\",filter=\"f\",x=\"a\\\"b\"} 1",
                "hepgate_guest_n_total{tenant=\"b\",filter=\"f\",x=\"a\\\"b\"} 2",
                "# TYPE hepgate_guest_n_gauge counter",
                "hepgate_guest_n_gauge_total{tenant=\"a\",filter=\"f\",x=\"a\\\"b\"} 9",
                "# TYPE hepgate_guest_n_histogram histogram",
                "hepgate_guest_n_histogram_sum{tenant=\"d\",filter=\"f\",x=\"a\\\"b\"} 7.0",
                "hepgate_guest_n_histogram_count{tenant=\"d\",filter=\"f\",x=\"a\\\"b\"} 3",
                "hepgate_guest_n_histogram_bucket{le=\"1.0\",tenant=\"d\",filter=\"f\",x=\"a\\\"b\"} 1",
                "hepgate_guest_n_histogram_bucket{le=\"+Inf\",tenant=\"d\",filter=\"f\",x=\"a\\\"b\"} 3",
                "# EOF",
            ]
        );
    }
}
