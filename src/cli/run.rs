//! `hepgate run`: the gateway itself, until a signal.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::logging;
use crate::admin::{Command, View};
use crate::config::{Config, ConfigError, Transport};
use crate::gateway::{Gateway, GatewayError, Summary};
use crate::ledger::Totals;

/// Run the gateway until SIGTERM or SIGINT
///
/// SIGHUP has it read its configuration again: what is wrong is told, and changes nothing; what did not change goes on
/// untouched. The first of the other signals ends it in order: nothing more is taken, what is under way is finished, within the grace period of
/// the configuration. A second one ends it at once.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("signals cannot be waited for: {0}")]
    Signals(#[from] io::Error),
}

/// Runs the gateway until a signal.
///
/// # Errors
/// [`RunError`]: it could not be started.
pub fn run(args: &RunArgs) -> Result<ExitCode, RunError> {
    let config = Config::load(&args.config)?;
    let logging = logging::start(config.log);
    let served = actix_rt::System::new().block_on(serve(&config, args));
    if logging.lost() > 0 {
        tracing::warn!(lines = logging.lost(), "log lines were lost: nobody read them fast enough");
    }
    served
}

/// Requests to the gateway that may wait: one who reloads does so now and then.
const COMMANDS_MAX: usize = 4;

async fn serve(config: &Config, args: &RunArgs) -> Result<ExitCode, RunError> {
    let mut signals = Signals::new()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %args.config.display(), "hepgate starts");
    raise_descriptor_limit(config);
    let (commands, mut incoming) = mpsc::channel(COMMANDS_MAX);
    let mut gateway = Gateway::start(config, commands).await?;
    introduce(config, &gateway);
    let summaries = config.gateway.summary.map(|every| actix_rt::spawn(summarize(Arc::clone(gateway.view()), every)));
    let name = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                "SIGHUP" => drop(reload(&mut gateway, args).await),
                name => break name,
            },
            Some(Command::Reload(answer)) = incoming.recv() => {
                let result = reload(&mut gateway, args).await;
                // Who asked may have lost patience.
                let _ = answer.send(result);
            }
        }
    };
    let grace = gateway.config().gateway.grace;
    tracing::info!(signal = name, grace_ms = grace.as_millis(), "stopping");
    if let Some(summaries) = summaries {
        summaries.abort();
    }
    let view = Arc::clone(gateway.view());
    let stop = gateway.stop(grace);
    tokio::pin!(stop);
    let totals = loop {
        tokio::select! {
            totals = &mut stop => break totals,
            name = signals.next() => {
                // There is nothing left to reload.
                if name == "SIGHUP" {
                    continue;
                }
                tracing::warn!(signal = name, "stopped at once");
                say_farewell(&view.ledger.totals());
                return Ok(ExitCode::FAILURE);
            }
        }
    };
    say_farewell(&totals);
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration again and takes it, or says why not.
async fn reload(gateway: &mut Gateway, args: &RunArgs) -> Result<String, String> {
    let result = match Config::load(&args.config) {
        Ok(config) => gateway.reload(config).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(reloaded) => {
            tracing::info!("reloaded: {reloaded}");
            for listening in gateway.listening() {
                let (name, transport) = (listening.name.as_str(), listening.transport.as_str());
                tracing::debug!(listener = name, at = %format!("hep_{transport}:{}", listening.address), "listens");
            }
            Ok(reloaded.to_string())
        }
        Err(complaints) => {
            for complaint in complaints.lines() {
                tracing::error!("not reloaded: {complaint}");
            }
            Err(complaints)
        }
    }
}

/// Descriptors beside those of the connections that agents may open: sockets of workers and collectors, files, epoll.
const DESCRIPTORS_SPARE: u64 = 256;

/// Every connection is a descriptor, and most systems start a program with 1024. As many as the system lets us have.
fn raise_descriptor_limit(config: &Config) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let available = if raised { hard } else { soft };
    let streams = config.listeners.iter().filter(|listener| listener.listen.transport != Transport::Udp);
    let connections: usize = streams.map(|listener| listener.stream.connections_max).sum();
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(DESCRIPTORS_SPARE);
    if available < wanted {
        tracing::warn!(available, wanted, "fewer descriptors (ulimit -n) than connections_max needs");
    }
}

/// What listens, which filters run, where packets go.
fn introduce(config: &Config, gateway: &Gateway) {
    for listening in gateway.listening() {
        let (name, transport) = (listening.name.as_str(), listening.transport.as_str());
        tracing::info!(listener = name, at = %format!("hep_{transport}:{}", listening.address), "listening");
    }
    for filter in &gateway.view().shown().filters {
        tracing::info!(filter = filter.name, sha256 = filter.sha256, "filter");
    }
    for collector in &config.collectors {
        tracing::info!(collector = collector.name, to = %collector.destination, "collector");
    }
    for tenant in &config.tenants {
        let filters =
            tenant.filters.iter().filter_map(|id| config.filters.get(id.0)).map(|filter| filter.name.as_str());
        let route = tenant.route.iter().filter_map(|id| config.collectors.get(id.0)).map(|c| c.name.as_str());
        let chain: Vec<&str> = filters.collect();
        let route: Vec<&str> = route.collect();
        tracing::info!(tenant = tenant.name, filters = chain.join(" > "), route = route.join(" + "), "tenant");
    }
    if let Some(address) = gateway.admin() {
        tracing::info!(at = %format!("http://{address}/metrics"), "admin");
    }
    tracing::info!("ready");
}

/// One line every so often, about the time since the last one.
async fn summarize(view: Arc<View>, every: Duration) {
    let mut before = view.ledger.totals();
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = view.ledger.totals();
        tracing::info!("last {} s: {}", every.as_secs_f64(), Summary::between(&before, &now));
        for dead in view.dead_actors() {
            tracing::error!(
                actor = dead.as_str(),
                "dead: its part of the work is not done any more; restart the gateway"
            );
        }
        before = now;
    }
}

/// All that happened, and whether anything was lost uncounted.
fn say_farewell(totals: &Totals) {
    let nothing = Totals::nothing(totals.rows());
    tracing::info!("stopped: {}", Summary::between(&nothing, totals));
    for discrepancy in totals.discrepancies() {
        tracing::error!("the ledger does not add up: {discrepancy}");
    }
}

/// SIGTERM and SIGINT end the gateway, SIGHUP has it read its configuration again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
