//! A filter run over captures, with no gateway around it and no clock but theirs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;

use super::FilterError;
use super::record::{Fate, Record, Sending, Treated, fault_line, log_line, metric_line};
use crate::cli::capture::{Capture, Fault as CaptureFault, Found, HepFinder, SipFinder};
use crate::config::{CollectorId, Config, Filter as FilterConfig, ListenerId};
use crate::filter::{
    Belongings, Budget, Fault, Filter, Grant, Host, Instance, LogLine, Now, Outcome, Part, Sent, Size, Surroundings,
    Work,
};
use crate::gateway::default_cache;
use crate::message::{Backlog, Origin, Received};
use crate::wire::{CapturedAt, Packet, Version, decode};

/// Octets that may wait for a collector here, where nobody takes them: more than any capture sends.
const BACKLOG_OCTETS: usize = 1 << 40;
/// Ticks that a silence in the capture causes at most: it may last for years.
const TICKS_MAX: u32 = 1_000;

/// What a filter is tried with.
#[derive(Debug, Args)]
pub struct TrialArgs {
    /// A capture, pcap or pcapng, with HEP or with plain SIP, which is packed as HEP; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    pub read: Vec<PathBuf>,
    /// Take the SIP of the captures, even if there is HEP in them
    #[arg(long)]
    pub sip: bool,
    /// Agent id of packed SIP
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub agent_id: u32,
    /// A key of the filter's configuration; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<Setting>,
    /// Another limit than the default, as in [filter.limits]; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub limit: Vec<Setting>,
    /// A collector that the filter may open; may be given several times. Nothing leaves: what is sent is shown
    #[arg(long, value_name = "NAME")]
    pub collector: Vec<String>,
    /// Call its on-tick as often, by the time of the capture
    #[arg(long, value_name = "DURATION")]
    pub tick: Option<String>,
    /// Packets of a call, at most
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub batch: u8,
}

/// `KEY=VALUE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

impl FromStr for Setting {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("wants KEY=VALUE")?;
        let key = key.trim();
        if key.is_empty() {
            Err("wants a key before the =")
        } else {
            Ok(Self { key: key.to_owned(), value: value.to_owned() })
        }
    }
}

/// The packets of some captures.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) packets: Vec<Received>,
    /// What could not be read, in words.
    pub(super) faults: Vec<String>,
    /// Whether they hold SIP that was packed.
    pub(super) packed: bool,
}

/// A component that is tried.
pub(super) struct Subject {
    path: PathBuf,
    pub(super) filter: Arc<Filter>,
    pub(super) compiled_in: Duration,
    settings: FilterConfig,
    collectors: Vec<String>,
}

/// What a run over a capture was like.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) record: Record,
    /// Faults, with the packet that a call was for if it was one (counted from 0).
    pub(super) faults: Vec<(Option<usize>, String)>,
    pub(super) calls: u64,
    pub(super) time: Duration,
    pub(super) longest_call: Duration,
    pub(super) fuel: u64,
    pub(super) memory_octets: usize,
    pub(super) seen: u64,
    pub(super) keys: usize,
}

impl TrialArgs {
    /// Reads the captures.
    pub(super) fn input(&self) -> Result<Input, FilterError> {
        let mut input = Input::default();
        for path in &self.read {
            self.read_into(path, &mut input)?;
        }
        Ok(input)
    }

    fn read_into(&self, path: &Path, input: &mut Input) -> Result<(), FilterError> {
        let open = || {
            let capture: Result<Capture<File>, _> = Capture::open(path, &[]);
            capture.map_err(|reason| FilterError::Capture { path: path.to_owned(), reason })
        };
        let before = input.packets.len();
        if !self.sip {
            take(open()?.find(HepFinder::new(true)), path, input, |found| {
                let octets = found.what.octets().clone();
                decode(octets).map_err(|reason| reason.to_string())
            });
        }
        if input.packets.len() == before {
            take(open()?.find(SipFinder::new()), path, input, |found| self.pack(found));
            input.packed |= input.packets.len() > before;
        }
        if input.packets.len() == before {
            return Err(FilterError::Nothing { path: path.to_owned() });
        }
        Ok(())
    }

    fn pack(&self, found: &Found<Bytes>) -> Result<Packet, String> {
        let octets = found.to_pack(self.agent_id, Vec::new()).encode(Version::Hep3);
        decode(octets.map_err(|reason| reason.to_string())?).map_err(|reason| reason.to_string())
    }

    /// Loads a component as these options say; compiled, it is kept where a gateway would look for it.
    pub(super) fn subject(&self, component: &Path, counts_fuel: bool) -> Result<Subject, FilterError> {
        self.subject_in(component, counts_fuel, default_cache())
    }

    /// The same, kept elsewhere or nowhere.
    pub(super) fn subject_in(
        &self,
        component: &Path,
        counts_fuel: bool,
        cache: Option<PathBuf>,
    ) -> Result<Subject, FilterError> {
        let settings = self.settings(component)?;
        let size = Size {
            instances: 2,
            memory_octets_max: settings.limits.memory_octets_max,
            table_elements_max: settings.limits.table_elements_max,
            stack_octets_max: 512 << 10,
            counts_fuel,
            cache,
        };
        let host = Host::new(&size)?;
        host.set_listeners(vec!["capture".to_owned()]);
        let began = Instant::now();
        let filter = host.load(&settings, &crate::config::ProtoHep::default())?;
        let compiled_in = began.elapsed();
        Ok(Subject { path: component.to_owned(), filter, compiled_in, settings, collectors: self.collector.clone() })
    }

    /// The filter's table as a gateway would have it: it is read, and refused, by the same code.
    fn settings(&self, component: &Path) -> Result<FilterConfig, FilterError> {
        let mut filter = toml::Table::new();
        filter.insert("name".to_owned(), "filter".into());
        // Relative paths are those of the configuration's folder, which there is none here.
        filter.insert("component".to_owned(), component.to_string_lossy().into_owned().into());
        filter.insert("config".to_owned(), table(&self.set, |value| value.into()).into());
        filter.insert("limits".to_owned(), table(&self.limit, limit_value).into());
        filter.insert("collectors".to_owned(), self.collector.clone().into());
        if let Some(tick) = &self.tick {
            filter.insert("tick".to_owned(), tick.clone().into());
        }
        let named = |name: &str, key: &str, value: &str| {
            let pairs = [("name", name), (key, value)].map(|(key, value)| (key.to_owned(), value.into()));
            toml::Value::from(toml::Table::from_iter(pairs))
        };
        let collectors = self.collector.iter().map(|name| named(name, "to", "hep_udp:127.0.0.1:9")).collect::<Vec<_>>();
        let mut all = toml::Table::new();
        all.insert("listener".to_owned(), vec![named("capture", "listen", "hep_udp:127.0.0.1:1")].into());
        all.insert("collector".to_owned(), collectors.into());
        all.insert("tenant".to_owned(), vec![toml::Table::from_iter([("name".to_owned(), "trial".into())])].into());
        all.insert("filter".to_owned(), vec![filter].into());
        let text = toml::to_string(&all).map_err(|error| FilterError::Settings(error.to_string()))?;
        let config = Config::parse(&text, Path::new(".")).map_err(|complaints| {
            let lines: Vec<String> = complaints.iter().map(|complaint| format!("  {complaint}")).collect();
            FilterError::Settings(lines.join("\n"))
        })?;
        let nothing = || FilterError::Settings("there is no filter".to_owned());
        config.filters.into_iter().next().ok_or_else(nothing)
    }
}

fn table(settings: &[Setting], value: impl Fn(&str) -> toml::Value) -> toml::Table {
    settings.iter().map(|setting| (setting.key.clone(), value(&setting.value))).collect()
}

/// Limits are numbers, or durations in quotes.
fn limit_value(value: &str) -> toml::Value {
    value.replace('_', "").parse::<i64>().map_or_else(|_| value.into(), toml::Value::from)
}

/// Takes what is found in a capture.
fn take<T>(
    finds: impl Iterator<Item = Result<Found<T>, CaptureFault>>,
    path: &Path,
    input: &mut Input,
    packet: impl Fn(&Found<T>) -> Result<Packet, String>,
) {
    for found in finds {
        let found = found.map_err(|fault| format!("{}, frame {}: {fault}", path.display(), fault.frame));
        let made = found.and_then(|found| {
            let made =
                packet(&found).map_err(|reason| format!("{}, frame {}: {reason}", path.display(), found.at.frame))?;
            let at =
                found.at.micros.map(CapturedAt::from_micros).or_else(|| made.head().captured_at).unwrap_or_default();
            let origin = Origin {
                listener: Some(ListenerId(0)),
                transport: found.flow.transport,
                peer: found.flow.source,
                local: found.flow.destination,
                received_at: at,
            };
            Ok(Received { packet: made, origin })
        });
        match made {
            Ok(received) => input.packets.push(received),
            Err(fault) => input.faults.push(fault),
        }
    }
}

impl Subject {
    /// Makes an instance.
    pub(super) fn start(&self, belongings: &Belongings, now: Now, log: &mut Vec<LogLine>) -> Result<Instance, Fault> {
        let grant = |(place, name): (usize, &String)| Grant {
            id: CollectorId(place),
            name: name.clone(),
            backlog: Backlog::new(BACKLOG_OCTETS),
        };
        let grants: Vec<Grant> = self.collectors.iter().enumerate().map(grant).collect();
        let surroundings = Surroundings { grants: grants.into(), belongings: belongings.clone() };
        self.filter.start(surroundings, Budget::computing(self.settings.limits.init_deadline), now, log)
    }

    /// Runs it over packets, at most `batch` a call.
    pub(super) fn run(&self, packets: &[Received], batch: usize) -> Result<Run, FilterError> {
        let belongings = Belongings::new(self.filter.limits());
        let mut walk = Walk { subject: self, belongings, instance: None, now: Now::default(), run: Run::default() };
        walk.set_time(packets.first());
        walk.instance()?;
        let mut next_tick = walk.now.wall.as_micros().saturating_add(self.tick_micros());
        let mut place = 0;
        while place < packets.len() {
            let end = Self::end_of_call(packets, place, batch, next_tick);
            if end == place {
                next_tick = walk.ticks(next_tick, packets.get(place))?;
                continue;
            }
            let part = packets.get(place..end).unwrap_or_default();
            walk.set_time(part.first());
            walk.call(place, part)?;
            place = end;
        }
        walk.finish()
    }

    /// Microseconds between ticks; without ticks, more than any capture lasts.
    fn tick_micros(&self) -> u64 {
        let ticks = self.settings.tick.filter(|_| self.filter.has_tick());
        ticks.map_or(u64::MAX, |tick| u64::try_from(tick.as_micros()).unwrap_or(u64::MAX).max(1))
    }

    /// Where a call ends that begins at a place: at the next tick, if that comes first.
    fn end_of_call(packets: &[Received], from: usize, batch: usize, next_tick: u64) -> usize {
        let rest = packets.iter().skip(from).take(batch);
        from + rest.take_while(|received| received.origin.received_at.as_micros() < next_tick).count()
    }

    /// The error of a call that failed where none should.
    pub(super) fn failed(&self, fault: Fault) -> FilterError {
        FilterError::Call { path: self.path.clone(), fault }
    }

    pub(super) fn start_error(&self, fault: Fault) -> FilterError {
        let hint = if fault.text.contains("config key") { "; --set KEY=VALUE sets it" } else { "" };
        FilterError::Start { path: self.path.clone(), fault, hint: hint.to_owned() }
    }
}

/// A run under way.
struct Walk<'a> {
    subject: &'a Subject,
    belongings: Belongings,
    instance: Option<Instance>,
    now: Now,
    run: Run,
}

impl Walk<'_> {
    /// The time of a packet; it never goes back.
    fn set_time(&mut self, received: Option<&Received>) {
        if let Some(at) = received.map(|received| received.origin.received_at) {
            self.advance_to(at.as_micros());
        }
    }

    fn advance_to(&mut self, micros: u64) {
        if micros > self.now.wall.as_micros() {
            self.now = CapturedAt::from_micros(micros).into();
        }
    }

    /// The instance, new if there is none: after a fault.
    fn instance(&mut self) -> Result<&mut Instance, FilterError> {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let mut log = Vec::new();
                let started = self.subject.start(&self.belongings, self.now, &mut log);
                self.run.record.log.extend(log.iter().map(log_line));
                started.map_err(|fault| self.subject.start_error(fault))?
            }
        };
        Ok(self.instance.insert(instance))
    }

    /// Calls for the packets from `place` on. A call that fails is repeated in halves, as the gateway does it.
    fn call(&mut self, place: usize, packets: &[Received]) -> Result<(), FilterError> {
        let wanted = self.instance()?.wanted().cloned();
        let is_seen = |received: &Received| wanted.as_ref().is_none_or(|wanted| wanted.wants(&received.packet));
        let seen: Vec<usize> = (0..packets.len()).filter(|at| packets.get(*at).is_some_and(is_seen)).collect();
        self.run.seen += super::wide(seen.len());
        let mut work = Work::new(packets.to_vec());
        let mut fates = vec![Fate::NotSeen; packets.len()];
        let mut pending = if seen.is_empty() { Vec::new() } else { vec![Part::picked(seen)] };
        while let Some(part) = pending.pop() {
            match self.call_part(&mut work, &part)? {
                Ok(outcome) => {
                    for (index, at) in part.places().enumerate() {
                        // No verdicts at all are one `pass` for each.
                        let fate = outcome.verdicts.get(index).copied().map_or(Fate::Pass, Fate::from);
                        if let Some(slot) = fates.get_mut(at) {
                            *slot = fate;
                        }
                    }
                    self.take_sent(outcome.sent);
                }
                Err(_) if part.len() > 1 => {
                    let [left, right] = part.halves();
                    pending.extend([right, left]);
                }
                Err(fault) => {
                    let at = part.place(0).unwrap_or_default();
                    if let Some(slot) = fates.get_mut(at) {
                        *slot = Fate::Failed;
                    }
                    self.run.faults.push((Some(place + at), fault_line(&fault)));
                }
            }
        }
        for ((before, after), fate) in packets.iter().zip(&work.packets).zip(fates) {
            self.run.record.packets.push(Treated::new(fate, &before.packet, &after.packet));
        }
        Ok(())
    }

    fn call_part(&mut self, work: &mut Work, part: &Part) -> Result<Result<Outcome, Fault>, FilterError> {
        self.timed(|instance, budget, now| instance.on_batch(work, part, budget, now))
    }

    /// Calls `on-tick` until the packet's time, and gives when the next tick is due.
    fn ticks(&mut self, mut due: u64, until: Option<&Received>) -> Result<u64, FilterError> {
        let until = until.map_or(due, |received| received.origin.received_at.as_micros());
        let every = self.subject.tick_micros();
        for _ in 0..TICKS_MAX {
            if due > until {
                return Ok(due);
            }
            self.advance_to(due);
            match self.timed(Instance::on_tick)? {
                Ok(outcome) => self.take_sent(outcome.sent),
                Err(fault) => self.run.faults.push((None, format!("on-tick: {}", fault_line(&fault)))),
            }
            due = due.saturating_add(every);
        }
        Ok(until.saturating_add(every))
    }

    fn timed(
        &mut self,
        call: impl FnOnce(&mut Instance, Budget, Now) -> Result<Outcome, Fault>,
    ) -> Result<Result<Outcome, Fault>, FilterError> {
        let (now, budget) = (self.now, Budget::computing(self.subject.settings.limits.slow_deadline));
        let instance = self.instance()?;
        let began = Instant::now();
        let result = call(instance, budget, now);
        let took = began.elapsed();
        let (log, unwritten) = instance.take_log();
        let (fuel, memory) = (instance.fuel_used(), instance.memory_octets());
        let run = &mut self.run;
        run.calls += 1;
        run.time += took;
        run.longest_call = run.longest_call.max(took);
        run.fuel += fuel;
        run.memory_octets = run.memory_octets.max(memory);
        run.record.log.extend(log.iter().map(log_line));
        if unwritten > 0 {
            run.record.log.push(format!("({unwritten} more lines of this call: log_lines_max)"));
        }
        if result.is_err() {
            // After any failure an instance is thrown away.
            self.instance = None;
        }
        Ok(result)
    }

    fn take_sent(&mut self, sent: Vec<Sent>) {
        for Sent { to, packet } in sent {
            let name = self.subject.collectors.get(to.0).cloned().unwrap_or_default();
            self.run.record.sent.push(Sending::new(name, &packet.packet));
        }
    }

    /// The last call, and what there is at the end.
    fn finish(mut self) -> Result<Run, FilterError> {
        if self.subject.filter.has_last_call() && self.instance.is_some() {
            match self.timed(Instance::on_stop)? {
                Ok(outcome) => self.take_sent(outcome.sent),
                Err(fault) => self.run.faults.push((None, format!("on-stop: {}", fault_line(&fault)))),
            }
        }
        let mut metrics: Vec<String> = self.belongings.metrics.samples().iter().map(metric_line).collect();
        metrics.sort();
        self.run.record.metrics = metrics;
        (self.run.keys, _) = self.belongings.remembered.used();
        Ok(self.run)
    }
}
