//! The examples of `wit/README.md`: one for each function of the interface, between `// example: NAME` and `// end`.
//!
//! As a filter it runs all of them over the packets of its first call, whose capture `tests/it/interface.rs` makes, and
//! looks at what they give. One that does not give what it should ends the call.

mod checks;
mod editing;
mod meters;
mod packing;
mod reading;
mod sending;
mod subscribing;
mod surroundings;

use hepgate_filter::{Batch, Collector, Config, Counter, Filter, Gauge, Level, Verdict, log};
use hepgate_last_call::LastCall;
use hepgate_ticker::Ticker;

use checks::Checks;
use meters::Meters;

struct Examples {
    collector: Collector,
    greeting: String,
    /// Which examples ran, by name.
    ran: Counter,
    /// Beside those of the examples themselves.
    meters: Meters,
    waiting: Gauge,
    packets: u64,
    /// Those of `init`, until they can be counted.
    checks: Checks,
    /// By the clock that never goes back.
    began_at: Option<u64>,
}

impl Filter for Examples {
    // example: callbacks.init
    fn new(mut config: Config) -> Result<Self, String> {
        let greeting = config.take("greeting").unwrap_or_else(|| "hello".to_owned());
        // Who misspells a key is told so, and the gateway does not start.
        config.finish()?;
        Self::start(greeting)
    }
    // end

    // example: callbacks.on-batch
    fn on_batch(&mut self, batch: &Batch) -> Vec<Verdict> {
        self.packets += u64::from(batch.len());
        self.run_the_other_examples(batch);
        let verdict = |index| match batch.sip_method(index).as_deref() {
            Some("OPTIONS") => Verdict::Drop,
            _ => Verdict::Pass,
        };
        (0..batch.len()).map(verdict).collect()
    }
    // end
}

// example: ticker.on-tick
impl Ticker for Examples {
    fn on_tick(&mut self) {
        log(Level::Info, &format!("{} packets so far", self.packets));
        self.count("ticker.on-tick");
    }
}
// end

// example: last-call.on-stop
impl LastCall for Examples {
    fn on_stop(&mut self) {
        // It may still send, log, count and remember.
        log(Level::Info, &format!("{} packets in all", self.packets));
        self.count("last-call.on-stop");
    }
}
// end

impl Examples {
    fn start(greeting: String) -> Result<Self, String> {
        let mut checks = Checks::default();
        let ran = Counter::declare("ran", "Examples that ran", &["example".to_owned()])
            .map_err(|error| format!("no metric ran: {error}"))?;
        checks.ran("callbacks.init");
        subscribing::check(&mut checks);
        let collector = sending::open("homer")?;
        checks.ran("sending.collector.open");
        let meters = Meters::declare(&mut checks).map_err(|error| format!("no metric: {error}"))?;
        let waiting = meters::waiting().map_err(|error| format!("no metric: {error}"))?;
        checks.ran("metrics.gauge.declare");
        Ok(Self { collector, greeting, ran, meters, waiting, packets: 0, checks, began_at: None })
    }

    /// On the packets of the first call.
    fn run_the_other_examples(&mut self, batch: &Batch) {
        let mut checks = std::mem::take(&mut self.checks);
        if let Some(began_at) = self.began_at {
            checks.is("clock.monotonic", surroundings::is_a_second_ago(began_at), true);
        } else {
            self.began_at = Some(hepgate_filter::clock::monotonic());
            checks.ran("callbacks.on-batch");
            reading::check(&mut checks, batch);
            editing::check(&mut checks, batch);
            packing::check(&mut checks);
            sending::check(&mut checks, &self.collector, batch);
            surroundings::check(&mut checks, &self.greeting);
            self.meters.check(&mut checks);
            checks.is("metrics.gauge.set", meters::set_waiting(&self.waiting, 3).is_ok(), true);
        }
        for example in checks.names() {
            self.count(example);
        }
    }

    fn count(&self, example: &str) {
        let counted = self.ran.add(&[example.to_owned()], 1);
        assert!(counted.is_ok(), "{example}: {counted:?}");
    }
}

hepgate_filter::filter!(Examples);
hepgate_ticker::ticker!(Examples);
hepgate_last_call::last_call!(Examples);
