//! Metrics of a filter's own, shared by all instances of one filter of one tenant, within bounds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::clean;

/// Octets of names of metrics and labels.
const NAME_OCTETS_MAX: usize = 64;
/// Octets of what a metric is said to be.
const HELP_OCTETS_MAX: usize = 256;
/// Labels of one metric.
const LABELS_MAX: usize = 8;
/// Bounds of one histogram.
const BOUNDS_MAX: usize = 32;
/// Labels that the gateway gives.
const TAKEN_LABELS: [&str; 3] = ["tenant", "filter", "le"];

/// How many there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricLimits {
    /// Metrics.
    pub metrics_max: usize,
    /// Series of all of them.
    pub series_max: usize,
    /// Octets of a label's value.
    pub label_octets_max: usize,
}

/// The metrics of a filter.
#[derive(Debug)]
pub struct GuestMetrics {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: MetricLimits,
    metrics: Vec<Metric>,
    series: Vec<Series>,
    places: HashMap<(usize, Vec<String>), usize>,
}

/// What kind of metric.
#[derive(Clone, PartialEq, Debug)]
pub enum MetricKind {
    /// Counts up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values lie up to each of these bounds.
    Histogram(Vec<f64>),
}

#[derive(Debug)]
struct Metric {
    name: String,
    help: String,
    kind: MetricKind,
    labels: Vec<String>,
}

#[derive(Debug)]
struct Series {
    metric: usize,
    labels: Vec<String>,
    value: MetricValue,
}

/// The value of a series.
#[derive(Clone, PartialEq, Debug)]
pub enum MetricValue {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(f64),
    /// Of a histogram: how many values lie up to each bound and above the one before, at last above all; and their sum.
    Histogram(Vec<u64>, f64),
}

/// A series as it is now.
#[derive(Clone, PartialEq, Debug)]
pub struct MetricSample {
    /// The metric's name.
    pub name: String,
    /// What it is said to be.
    pub help: String,
    /// Its kind.
    pub kind: MetricKind,
    /// Names and values of the labels.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: MetricValue,
}

/// What a call counts, if it returns well.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Counted {
    Add(u64),
    Set(f64),
    Observe(f64),
}

/// Why a metric cannot be declared or counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum MetricRefused {
    BadName(String),
    Conflict,
    Quota(usize),
    WrongLabels(usize),
    TooLong(usize),
    BadNumber,
}

impl GuestMetrics {
    /// None yet.
    #[must_use]
    pub fn new(limits: MetricLimits) -> Arc<Self> {
        let inner = Inner { limits, metrics: Vec::new(), series: Vec::new(), places: HashMap::new() };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Other limits from now on. What is there already stays.
    pub fn set_limits(&self, limits: MetricLimits) {
        self.lock().limits = limits;
    }

    /// How many series there are.
    #[must_use]
    pub fn series(&self) -> usize {
        self.lock().series.len()
    }

    /// All series as they are now.
    #[must_use]
    pub fn samples(&self) -> Vec<MetricSample> {
        let inner = self.lock();
        let sample = |series: &Series| {
            let metric = inner.metrics.get(series.metric)?;
            Some(MetricSample {
                name: metric.name.clone(),
                help: metric.help.clone(),
                kind: metric.kind.clone(),
                labels: metric.labels.iter().cloned().zip(series.labels.iter().cloned()).collect(),
                value: series.value.clone(),
            })
        };
        inner.series.iter().filter_map(sample).collect()
    }

    /// The place of a metric, new or declared before.
    pub(super) fn declare(
        &self,
        kind: MetricKind,
        name: String,
        help: &str,
        labels: Vec<String>,
    ) -> Result<usize, MetricRefused> {
        for name in std::iter::once(&name).chain(&labels) {
            if !is_name(name) || TAKEN_LABELS.contains(&name.as_str()) {
                return Err(MetricRefused::BadName(clean(name, NAME_OCTETS_MAX)));
            }
        }
        if labels.len() > LABELS_MAX {
            return Err(MetricRefused::WrongLabels(LABELS_MAX));
        }
        if let Some((_, twice)) = labels.iter().enumerate().find(|(place, label)| labels[..*place].contains(label)) {
            return Err(MetricRefused::BadName(twice.clone()));
        }
        if let MetricKind::Histogram(bounds) = &kind {
            let rises = bounds.iter().zip(bounds.iter().skip(1)).all(|(a, b)| a < b);
            if !rises || !(1..=BOUNDS_MAX).contains(&bounds.len()) || !bounds.iter().all(|bound| bound.is_finite()) {
                return Err(MetricRefused::BadNumber);
            }
        }
        let mut inner = self.lock();
        if let Some(place) = inner.metrics.iter().position(|metric| metric.name == name) {
            let same = inner.metrics.get(place).is_some_and(|metric| metric.kind == kind && metric.labels == labels);
            return if same { Ok(place) } else { Err(MetricRefused::Conflict) };
        }
        if inner.metrics.len() >= inner.limits.metrics_max {
            return Err(MetricRefused::Quota(inner.limits.metrics_max));
        }
        inner.metrics.push(Metric { name, help: clean(help, HELP_OCTETS_MAX), kind, labels });
        Ok(inner.metrics.len() - 1)
    }

    /// The place of a series, which is there from now on.
    pub(super) fn place(&self, metric: usize, labels: Vec<String>) -> Result<usize, MetricRefused> {
        let mut inner = self.lock();
        let Some(declared) = inner.metrics.get(metric) else { return Err(MetricRefused::Conflict) };
        if labels.len() != declared.labels.len() {
            return Err(MetricRefused::WrongLabels(declared.labels.len()));
        }
        if labels.iter().any(|label| label.len() > inner.limits.label_octets_max) {
            return Err(MetricRefused::TooLong(inner.limits.label_octets_max));
        }
        let value = match &declared.kind {
            MetricKind::Counter => MetricValue::Counter(0),
            MetricKind::Gauge => MetricValue::Gauge(0.0),
            MetricKind::Histogram(bounds) => MetricValue::Histogram(vec![0; bounds.len() + 1], 0.0),
        };
        let labels: Vec<String> = labels.iter().map(|label| clean(label, inner.limits.label_octets_max)).collect();
        let key = (metric, labels);
        if let Some(place) = inner.places.get(&key) {
            return Ok(*place);
        }
        let place = inner.series.len();
        if place >= inner.limits.series_max {
            return Err(MetricRefused::Quota(inner.limits.series_max));
        }
        inner.series.push(Series { metric, labels: key.1.clone(), value });
        inner.places.insert(key, place);
        Ok(place)
    }

    /// Counts what a call that returned well has counted.
    pub(super) fn apply(&self, counted: &mut Vec<(usize, Counted)>) {
        if counted.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let Inner { metrics, series, .. } = &mut *inner;
        for (place, counted) in counted.drain(..) {
            let Some(series) = series.get_mut(place) else { continue };
            match (&mut series.value, counted) {
                (MetricValue::Counter(sum), Counted::Add(by)) => *sum = sum.wrapping_add(by),
                (MetricValue::Gauge(value), Counted::Set(new)) => *value = new,
                (MetricValue::Histogram(counts, sum), Counted::Observe(value)) => {
                    let Some(MetricKind::Histogram(bounds)) = metrics.get(series.metric).map(|metric| &metric.kind)
                    else {
                        continue;
                    };
                    let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
                    if let Some(count) = counts.get_mut(bucket) {
                        *count += 1;
                    }
                    *sum += value;
                }
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_OCTETS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Arc<GuestMetrics> {
        GuestMetrics::new(MetricLimits { metrics_max: 2, series_max: 3, label_octets_max: 4 })
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn counter(of: &GuestMetrics, name: &str, labels: &[&str]) -> Result<usize, MetricRefused> {
        of.declare(MetricKind::Counter, name.to_owned(), "", texts(labels))
    }

    #[test]
    fn as_many_metrics_and_series_fit_as_may_and_not_one_more() {
        let of = metrics();
        let calls = counter(&of, "calls", &["method"]).unwrap();
        assert_eq!(counter(&of, "calls", &["method"]), Ok(calls), "declared again it is the same");
        assert_eq!(counter(&of, "calls", &["other"]), Err(MetricRefused::Conflict));
        counter(&of, "more", &[]).unwrap();
        assert_eq!(counter(&of, "third", &[]), Err(MetricRefused::Quota(2)));
        for label in ["a", "b", "c", "a"] {
            of.place(calls, texts(&[label])).unwrap();
        }
        assert_eq!(of.place(calls, texts(&["d"])), Err(MetricRefused::Quota(3)));
        assert_eq!(of.place(calls, texts(&["12345"])), Err(MetricRefused::TooLong(4)));
        assert_eq!(of.place(calls, texts(&[])), Err(MetricRefused::WrongLabels(1)));
        assert_eq!(of.series(), 3);
    }

    #[test]
    fn names_that_would_break_the_page_are_refused() {
        let of = metrics();
        for name in ["", "1a", "a-b", "a b", "a\n", "é", &"a".repeat(65), "tenant", "le"] {
            assert!(matches!(counter(&of, name, &[]), Err(MetricRefused::BadName(_))), "{name}");
            assert!(matches!(counter(&of, "a", &[name]), Err(MetricRefused::BadName(_))), "{name}");
        }
        assert!(matches!(counter(&of, "a", &["b", "b"]), Err(MetricRefused::BadName(_))));
        assert!(matches!(
            counter(&of, "a", &["b", "c", "d", "e", "f", "g", "h", "i", "j"]),
            Err(MetricRefused::WrongLabels(8))
        ));
        for bounds in [vec![], vec![1.0, 1.0], vec![f64::NAN], vec![f64::INFINITY], vec![0.0; 33]] {
            let refused = of.declare(MetricKind::Histogram(bounds.clone()), "h".into(), "", vec![]);
            assert_eq!(refused, Err(MetricRefused::BadNumber), "{bounds:?}");
        }
    }

    #[test]
    fn what_is_counted_is_there() {
        let of = GuestMetrics::new(MetricLimits { metrics_max: 9, series_max: 9, label_octets_max: 9 });
        let counter = counter(&of, "c", &["x"]).unwrap();
        let gauge = of.declare(MetricKind::Gauge, "g".into(), "", vec![]).unwrap();
        let histogram = of.declare(MetricKind::Histogram(vec![1.0, 10.0]), "h".into(), "", vec![]).unwrap();
        let places = [of.place(counter, texts(&["a\nb"])), of.place(gauge, vec![]), of.place(histogram, vec![])];
        let [counter, gauge, histogram] = places.map(Result::unwrap);
        of.apply(&mut vec![
            (counter, Counted::Add(2)),
            (counter, Counted::Add(3)),
            (gauge, Counted::Set(-1.5)),
            (histogram, Counted::Observe(1.0)),
            (histogram, Counted::Observe(1.5)),
            (histogram, Counted::Observe(99.0)),
        ]);
        let samples = of.samples();
        let values: Vec<MetricValue> = samples.iter().map(|sample| sample.value.clone()).collect();
        let histogram = MetricValue::Histogram(vec![1, 1, 1], 101.5);
        assert_eq!(values, [MetricValue::Counter(5), MetricValue::Gauge(-1.5), histogram]);
        assert_eq!(samples[0].labels, [("x".to_owned(), "a b".to_owned())], "one line");
    }
}
