//! `metrics`: metrics of a filter's own.

use wasmtime::component::Resource;

use super::super::bindings::hep::filter::metrics::{Host, HostCounter, HostGauge, HostHistogram, MetricError};
use super::super::guest_metrics::{Counted, MetricKind, MetricRefused};
use super::super::state::State;
use super::narrow;

/// A metric that the guest declared: its place among those of the filter.
#[derive(Clone, Copy, Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct CounterHandle(usize);

/// See [`CounterHandle`].
#[derive(Clone, Copy, Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct GaugeHandle(usize);

/// See [`CounterHandle`].
#[derive(Clone, Copy, Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct HistogramHandle(usize);

type Counter = Resource<CounterHandle>;
type Gauge = Resource<GaugeHandle>;
type Histogram = Resource<HistogramHandle>;

impl Host for State {}

impl HostCounter for State {
    fn declare(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> wasmtime::Result<Result<Counter, MetricError>> {
        match self.declare(MetricKind::Counter, name, &help, labels)? {
            Ok(place) => Ok(Ok(self.push(CounterHandle(place))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn add(&mut self, counter: Counter, labels: Vec<String>, by: u64) -> wasmtime::Result<Result<(), MetricError>> {
        let metric = self.get(&counter)?.0;
        self.count(metric, labels, Counted::Add(by))
    }

    fn drop(&mut self, counter: Counter) -> wasmtime::Result<()> {
        self.delete(counter)?;
        Ok(())
    }
}

impl HostGauge for State {
    fn declare(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> wasmtime::Result<Result<Gauge, MetricError>> {
        match self.declare(MetricKind::Gauge, name, &help, labels)? {
            Ok(place) => Ok(Ok(self.push(GaugeHandle(place))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn set(&mut self, gauge: Gauge, labels: Vec<String>, value: f64) -> wasmtime::Result<Result<(), MetricError>> {
        let metric = self.get(&gauge)?.0;
        self.count(metric, labels, Counted::Set(value))
    }

    fn drop(&mut self, gauge: Gauge) -> wasmtime::Result<()> {
        self.delete(gauge)?;
        Ok(())
    }
}

impl HostHistogram for State {
    fn declare(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
        bounds: Vec<f64>,
    ) -> wasmtime::Result<Result<Histogram, MetricError>> {
        match self.declare(MetricKind::Histogram(bounds), name, &help, labels)? {
            Ok(place) => Ok(Ok(self.push(HistogramHandle(place))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn observe(
        &mut self,
        histogram: Histogram,
        labels: Vec<String>,
        value: f64,
    ) -> wasmtime::Result<Result<(), MetricError>> {
        let metric = self.get(&histogram)?.0;
        self.count(metric, labels, Counted::Observe(value))
    }

    fn drop(&mut self, histogram: Histogram) -> wasmtime::Result<()> {
        self.delete(histogram)?;
        Ok(())
    }
}

impl State {
    fn declare(
        &mut self,
        kind: MetricKind,
        name: String,
        help: &str,
        labels: Vec<String>,
    ) -> wasmtime::Result<Result<usize, MetricError>> {
        let octets: usize = labels.iter().map(String::len).sum();
        self.charge(name.len() + help.len() + octets)?;
        if self.subscribing.is_none() {
            return Ok(Err(MetricError::NotNow));
        }
        Ok(self.surroundings.belongings.metrics.declare(kind, name, help, labels).map_err(to_wit_error))
    }

    fn count(
        &mut self,
        metric: usize,
        labels: Vec<String>,
        counted: Counted,
    ) -> wasmtime::Result<Result<(), MetricError>> {
        self.charge(labels.iter().map(String::len).sum())?;
        if let Counted::Set(value) | Counted::Observe(value) = counted
            && value.is_nan()
        {
            return Ok(Err(MetricError::BadNumber));
        }
        match self.surroundings.belongings.metrics.place(metric, labels) {
            Ok(place) => {
                self.call.counted.push((place, counted));
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(to_wit_error(error))),
        }
    }
}

fn to_wit_error(error: MetricRefused) -> MetricError {
    match error {
        MetricRefused::BadName(name) => MetricError::BadName(name),
        MetricRefused::Conflict => MetricError::Conflict,
        MetricRefused::Quota(most) => MetricError::Quota(narrow(most)),
        MetricRefused::WrongLabels(wanted) => MetricError::WrongLabels(narrow(wanted)),
        MetricRefused::TooLong(most) => MetricError::TooLong(narrow(most)),
        MetricRefused::BadNumber => MetricError::BadNumber,
    }
}
