//! What a filter of a tenant has beyond its instances.

use std::sync::Arc;

use super::guest_metrics::{GuestMetrics, MetricLimits};
use super::remembered::Remembered;
use super::state::Grant;
use crate::config::Limits;

/// What a filter of a tenant has beyond its instances: all of them share it, and nobody else sees it.
#[derive(Clone, Debug)]
pub struct Belongings {
    /// What it remembers.
    pub remembered: Arc<Remembered>,
    /// Its own metrics.
    pub metrics: Arc<GuestMetrics>,
}

impl Belongings {
    /// Nothing yet, within these limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            remembered: Remembered::new(limits.state_keys_max, limits.state_octets_max),
            metrics: GuestMetrics::new(metric_limits(limits)),
        }
    }

    /// Other limits from now on; what there is stays.
    pub fn set_limits(&self, limits: &Limits) {
        self.remembered.set_limits(limits.state_keys_max, limits.state_octets_max);
        self.metrics.set_limits(metric_limits(limits));
    }
}

const fn metric_limits(limits: &Limits) -> MetricLimits {
    MetricLimits {
        metrics_max: limits.metrics_max,
        series_max: limits.metric_series_max,
        label_octets_max: limits.metric_label_octets_max,
    }
}

/// What an instance has around it: what its filter has, and the collectors that it may open.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Collectors, with the ways to them from this worker.
    pub grants: Arc<[Grant]>,
    /// What it shares with the other instances.
    pub belongings: Belongings,
}

impl Surroundings {
    /// Those of a filter that is only tried.
    #[must_use]
    pub fn for_trial(grants: Arc<[Grant]>, limits: &Limits) -> Self {
        Self { grants, belongings: Belongings::new(limits) }
    }
}
