//! `hepgate filters`, `tenants`, `collectors`, `quarantine` and `reload`: what a running gateway says and is asked to do,
//! over its admin address.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tell::Grouped;
use crate::admin::{CaseReport, CollectorReport, FilterReport, QuarantineEntry, TenantReport};
use crate::config::{Config, ConfigError};

/// How long an answer may take; a reload compiles.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a connection to it may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which gateway.
#[derive(Debug, Args)]
pub struct Where {
    /// The gateway's admin address; without it, the one in the configuration
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// The gateway's configuration
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Which gateway, and how what it says is shown.
#[derive(Debug, Args)]
pub struct ControlArgs {
    #[command(flatten)]
    gateway: Where,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Have a running gateway read its configuration again
///
/// What is wrong with it is told and changes nothing. Exit code 0: it runs with it now.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    gateway: Where,
}

/// Filters out of service, and evidence.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// The filters that are out of service, and those of which there is evidence
    List(ControlArgs),
    /// What is known of a case, and where its packets are
    Show {
        /// Which gateway, and how it is shown
        #[command(flatten)]
        args: ControlArgs,
        /// The case, as `list` names it
        case: String,
    },
    /// Put a filter of a tenant in service again
    Release {
        /// Which gateway
        #[command(flatten)]
        gateway: Where,
        /// Whose chain
        tenant: String,
        /// Which filter
        filter: String,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each names itself")]
pub enum ControlError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{}: [admin] listen is \"\", so the gateway cannot be asked", .0.display())]
    NoAdmin(PathBuf),
    #[error("{}: [admin] listen has port 0: say with --admin where the gateway listens", .0.display())]
    AnyPort(PathBuf),
    #[error("the gateway at {address} does not answer: {reason}")]
    Unreachable { address: SocketAddr, reason: String },
    #[error("{0}")]
    Refused(String),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Where {
    fn address(&self) -> Result<SocketAddr, ControlError> {
        if let Some(address) = self.admin {
            return Ok(address);
        }
        let address = Config::load(&self.config)?.admin.ok_or_else(|| ControlError::NoAdmin(self.config.clone()))?;
        if address.port() == 0 { Err(ControlError::AnyPort(self.config.clone())) } else { Ok(address) }
    }

    fn ask(&self, method: Method, path: &str) -> Result<String, ControlError> {
        let address = self.address()?;
        let unreachable =
            |error: &dyn std::fmt::Display| ControlError::Unreachable { address, reason: error.to_string() };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let url = format!("http://{address}{path}");
        let response = match method {
            Method::Get => agent.get(&url).call(),
            Method::Post => agent.post(&url).send_empty(),
        };
        let mut response = response.map_err(|error| unreachable(&error))?;
        let text = response.body_mut().read_to_string().map_err(|error| unreachable(&error))?;
        if response.status().is_success() { Ok(text) } else { Err(ControlError::Refused(text.trim_end().to_owned())) }
    }
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Post,
}

impl ControlArgs {
    /// Prints a list as a table, or as it came.
    fn print<T: DeserializeOwned>(
        &self,
        path: &str,
        show: impl FnOnce(&[T]) -> String,
    ) -> Result<ExitCode, ControlError> {
        let text = self.gateway.ask(Method::Get, path)?;
        let wrong =
            |error: serde_json::Error| ControlError::Refused(format!("the gateway is of another version: {error}"));
        if self.json {
            let value: Value = serde_json::from_str(&text).map_err(wrong)?;
            writeln!(io::stdout(), "{value:#}")?;
        } else {
            let list: Vec<T> = serde_json::from_str(&text).map_err(wrong)?;
            io::stdout().write_all(show(&list).as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `hepgate filters`.
///
/// # Errors
/// [`ControlError`].
pub fn filters(args: &ControlArgs) -> Result<ExitCode, ControlError> {
    args.print("/filters", |filters: &[FilterReport]| {
        let mut table = Table::new(&[
            "TENANT", "FILTER", "STATE", "SHA256", "CALLS", "P50", "P99", "MEMORY", "FAULTS", "STRIKES", "DROPPED",
            "FAILED",
        ]);
        for filter in filters {
            let state = if filter.quarantine.is_some() { "quarantined" } else { "in service" };
            let memory = filter.limits.get("memory_octets_max");
            let memory = memory.map_or_else(String::new, |used| format!("{}/{}", mebi(used.peak), mebi(used.limit)));
            let faults: Vec<String> = filter.faults.iter().map(|(kind, calls)| format!("{calls} {kind}")).collect();
            table.row([
                filter.tenant.clone(),
                filter.filter.clone(),
                state.to_owned(),
                filter.sha256.chars().take(12).collect(),
                number(filter.calls),
                time(filter.p50_us, filter.calls),
                time(filter.p99_us, filter.calls),
                memory,
                if faults.is_empty() { "-".to_owned() } else { faults.join(", ") },
                format!("{}/{}", filter.strikes, filter.strikes_max),
                number(filter.dropped),
                number(filter.failed),
            ]);
        }
        table.text()
    })
}

/// `hepgate tenants`.
///
/// # Errors
/// [`ControlError`].
pub fn tenants(args: &ControlArgs) -> Result<ExitCode, ControlError> {
    args.print("/tenants", |tenants: &[TenantReport]| {
        let mut table = Table::new(&[
            "TENANT",
            "FILTERS",
            "ROUTE",
            "RECEIVED",
            "ROUTED",
            "SKIPPED",
            "FILTER DROPPED",
            "DROPPED",
            "IN FLIGHT",
        ]);
        for tenant in tenants {
            table.row([
                tenant.tenant.clone(),
                list(&tenant.filters, " > "),
                list(&tenant.route, " + "),
                number(tenant.received),
                number(tenant.routed),
                number(tenant.skipped),
                number(tenant.filter_dropped),
                reasons(&tenant.dropped),
                number(tenant.in_flight),
            ]);
        }
        table.text()
    })
}

/// `hepgate collectors`.
///
/// # Errors
/// [`ControlError`].
pub fn collectors(args: &ControlArgs) -> Result<ExitCode, ControlError> {
    args.print("/collectors", |collectors: &[CollectorReport]| {
        let mut table =
            Table::new(&["COLLECTOR", "TO", "ACCEPTED", "SENT", "WAITING", "DROPPED", "CONNECTED", "FAILED", "BROKEN"]);
        for collector in collectors {
            table.row([
                collector.collector.clone(),
                collector.to.clone(),
                number(collector.accepted),
                number(collector.sent),
                number(collector.waiting),
                reasons(&collector.dropped),
                number(collector.connected),
                number(collector.connect_failures),
                number(collector.broken),
            ]);
        }
        table.text()
    })
}

/// `hepgate quarantine`.
///
/// # Errors
/// [`ControlError`].
pub fn quarantine(command: &QuarantineCommand) -> Result<ExitCode, ControlError> {
    match command {
        QuarantineCommand::List(args) => args.print("/quarantine", |entries: &[QuarantineEntry]| {
            let mut table = Table::new(&["TENANT", "FILTER", "STATE", "LEFT", "EVIDENCE", "REASON"]);
            for entry in entries {
                let (state, left, reason) = match &entry.quarantine {
                    None => ("in service", "-".to_owned(), "-".to_owned()),
                    Some(out) => {
                        let left =
                            out.left_seconds.map_or_else(|| "until released".to_owned(), |left| format!("{left} s"));
                        ("quarantined", left, out.reason.clone())
                    }
                };
                let last = entry
                    .evidence
                    .last()
                    .map_or_else(|| "-".to_owned(), |last| format!("{} ({} of them)", last, entry.evidence.len()));
                table.row([entry.tenant.clone(), entry.filter.clone(), state.to_owned(), left, last, reason]);
            }
            table.text()
        }),
        QuarantineCommand::Show { args, case } => {
            let text = args.gateway.ask(Method::Get, &format!("/quarantine/{}", in_path(case)))?;
            let shown: CaseReport =
                serde_json::from_str(&text).map_err(|error| ControlError::Refused(error.to_string()))?;
            if args.json {
                let value: Value =
                    serde_json::from_str(&text).map_err(|error| ControlError::Refused(error.to_string()))?;
                writeln!(io::stdout(), "{value:#}")?;
                return Ok(ExitCode::SUCCESS);
            }
            let CaseReport { case, pcapng } = shown;
            let mut out = io::stdout().lock();
            for (name, value) in [
                ("at", case.at),
                ("tenant", case.tenant),
                ("filter", case.filter),
                ("sha256", case.sha256),
                ("kind", case.kind),
                ("fault", case.fault),
                ("packets", format!("{}, in {pcapng}", case.packets)),
            ] {
                writeln!(out, "{name:<8} {value}")?;
            }
            for (key, value) in case.config {
                writeln!(out, "{:<8} {key} = {value}", "config")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        QuarantineCommand::Release { gateway, tenant, filter } => {
            let text = gateway.ask(Method::Post, &format!("/release/{}/{}", in_path(tenant), in_path(filter)))?;
            io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// `hepgate reload`.
///
/// # Errors
/// [`ControlError`].
pub fn reload(args: &ReloadArgs) -> Result<ExitCode, ControlError> {
    let text = args.gateway.ask(Method::Post, "/reload")?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Names have no other characters than these but the + of cases; what has is no name, and would be another path.
fn in_path(name: &str) -> String {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    let encoded = |octet| if is_plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") };
    name.bytes().map(encoded).collect()
}

fn number(n: u64) -> String {
    Grouped(n).to_string()
}

/// A time that calls kept to.
fn time(micros: Option<u64>, calls: u64) -> String {
    match micros {
        Some(micros) if micros >= 1_000 => format!("≤{} ms", micros.div_ceil(1_000)),
        Some(micros) => format!("≤{micros} µs"),
        None if calls > 0 => "long".to_owned(),
        None => "-".to_owned(),
    }
}

fn mebi(octets: u64) -> String {
    let tenths = octets * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn list(names: &[String], between: &str) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(between) }
}

fn reasons(dropped: &std::collections::BTreeMap<String, u64>) -> String {
    if dropped.is_empty() {
        return "-".to_owned();
    }
    let reasons: Vec<String> = dropped.iter().map(|(reason, n)| format!("{} {reason}", Grouped(*n))).collect();
    reasons.join(", ")
}

/// Columns as wide as what stands in them.
struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(header: &[&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned)] }
    }

    fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    fn text(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
            let line: Vec<String> = cells.collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_as_wide_as_what_stands_in_them() {
        let mut table = Table::new(&["A", "BB"]);
        table.row(["one".to_owned(), "≤2 µs".to_owned()]);
        table.row(["four".to_owned(), String::new()]);
        assert_eq!(table.text(), "A     BB\none   ≤2 µs\nfour\n");
    }

    #[test]
    fn what_is_asked_for_stays_one_part_of_a_path() {
        assert_eq!(in_path("20261128T091459Z-000001+t+f"), "20261128T091459Z-000001%2Bt%2Bf");
        assert_eq!(in_path("../x y"), "..%2Fx%20y");
    }
}
