//! The real `hepgate run`, in a process of its own, on ports that the system chose.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually};

/// The program under test.
pub(crate) const HEPGATE: &str = env!("CARGO_BIN_EXE_hepgate");

/// A gateway that runs, in a folder of its own that goes with it.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
    pub(crate) folder: TempDir,
    /// The lines in `[gateway]`.
    settings: String,
}

/// Writes a configuration with `[log]`, `[admin]` and `[gateway]` before it.
fn write_config(folder: &Path, gateway: &str, config: &str) -> PathBuf {
    let (path, cache) = (folder.join("hepgate.toml"), folder.join("cache"));
    let text = format!(
        "[log]\nformat = \"json\"\nlevel = \"debug\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[gateway]\n\
         cache = \"{}\"\nevidence = \"evidence\"\n{gateway}\n{config}",
        cache.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A gateway that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<Value>,
    pub(crate) folder: TempDir,
}

impl Gateway {
    /// Starts it with this configuration and waits until it is ready. `[log]`, `[admin]` and `[gateway]` are added.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    /// The same, in a folder where things lie already.
    pub(crate) fn start_in(folder: TempDir, config: &str) -> Self {
        Self::start_with(folder, "workers = 1\nsummary = \"0s\"", config)
    }

    /// The same, with other lines in `[gateway]`.
    pub(crate) fn start_with(folder: TempDir, gateway: &str, config: &str) -> Self {
        Self::start_as(folder, gateway, config, |_| {})
    }

    /// The same, as a process that `change` has prepared.
    pub(crate) fn start_as(folder: TempDir, gateway: &str, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let path = write_config(folder.path(), gateway, config);
        let mut command = Command::new(HEPGATE);
        command.args(["run", "--config"]).arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (theirs, stderr) = (Arc::clone(&lines), child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let line = line.unwrap();
                // What is not JSON is a complaint from before the log, or a panic.
                let line = serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "message": line }));
                theirs.lock().unwrap().push(line);
            }
        });
        let settings = gateway.to_owned();
        let mut gateway = Self { child, lines, reader: Some(reader), folder, settings };
        gateway.wait_until_ready();
        gateway
    }

    fn wait_until_ready(&mut self) {
        let start = std::time::Instant::now();
        while self.lines_saying("ready").is_empty() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "hepgate ended: {ended:?}\n{}", self.log_text());
            assert!(start.elapsed() < PATIENCE, "hepgate was never ready\n{}", self.log_text());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Where the listener of that name is.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        let lines = self.lines_saying("listening");
        let line = lines.iter().find(|line| line["listener"] == name).expect("no such listener");
        let at = line["at"].as_str().unwrap();
        at.split_once(':').unwrap().1.parse().unwrap()
    }

    /// Has it read this configuration, and gives status and text of its answer.
    pub(crate) fn reload(&self, config: &str) -> (u16, String) {
        write_config(self.folder.path(), &self.settings, config);
        self.request("POST", "/reload", "")
    }

    /// The log lines whose message is this.
    pub(crate) fn lines_saying(&self, message: &str) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter(|line| line["message"] == message).cloned().collect()
    }

    /// The log lines that have this in their message.
    pub(crate) fn lines_with(&self, part: &str) -> Vec<Value> {
        let has = |line: &&Value| line["message"].as_str().is_some_and(|message| message.contains(part));
        self.lines.lock().unwrap().iter().filter(has).cloned().collect()
    }

    /// The same, once there is one: the log is written by a thread of its own, after what it tells of.
    pub(crate) fn await_lines(&self, part: &str) -> Vec<Value> {
        eventually(part, || !self.lines_with(part).is_empty());
        self.lines_with(part)
    }

    pub(crate) fn log_text(&self) -> String {
        self.lines.lock().unwrap().iter().map(|line| format!("{line}\n")).collect()
    }

    /// Where the admin server is.
    pub(crate) fn admin(&self) -> String {
        let line = self.lines_saying("admin").pop().expect("no admin server");
        line["at"].as_str().unwrap().strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned()
    }

    /// A page of the admin server: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, "")
    }

    /// The same with another method, and with further headers.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin()).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: hepgate\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").1)
    }

    /// Waits until a metric has this value. That of a filter is there once it has counted.
    pub(crate) fn await_metric(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let start = std::time::Instant::now();
        loop {
            let last = self.metrics().find(name, labels);
            if last == Some(value) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{name} {labels:?} is {last:?} and never {value}\n{}{}",
                self.get("/metrics").1.lines().filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>().join("\n"),
                self.log_text()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits until all that came is through: nothing queued, in flight or waiting.
    pub(crate) fn await_quiet(&self) {
        eventually("quiet", || {
            let metrics = self.metrics();
            ["hepgate_listener_queued_packets", "hepgate_tenant_in_flight_packets", "hepgate_collector_waiting_packets"]
                .iter()
                .all(|gauge| metrics.sum(gauge) == 0)
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// SIGTERM, and what came of it. The ledger must add up, and no actor may have died.
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        let ended = self.wait();
        assert!(ended.status.success(), "{:?}\n{}", ended.status, ended.log_text());
        ended.check_ledger();
        ended
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> Ended {
        let start = std::time::Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "hepgate does not end\n{}", self.log_text());
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        self.reader.take().unwrap().join().unwrap();
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Ended { status, lines, folder }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // A test that failed leaves no process behind. One that has ended is ended once more, to no effect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(crate) fn check_ledger(&self) {
        let text = self.log_text();
        let farewell = self.lines.iter().any(|line| line["message"].as_str().unwrap_or("").starts_with("stopped: "));
        assert!(farewell, "no farewell\n{text}");
        for bad in ["does not add up", "panicked", "dead:"] {
            assert!(!text.contains(bad), "{bad}\n{text}");
        }
    }

    pub(crate) fn log_text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The files in a folder of it, whose names begin so, sorted.
    pub(crate) fn files(&self, folder: &str, prefix: &str) -> Vec<PathBuf> {
        files_in(&self.folder.path().join(folder), prefix)
    }
}

/// The files in a folder whose names begin so, sorted.
pub(crate) fn files_in(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_wanted = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let mut files: Vec<PathBuf> = entries.filter(is_wanted).collect();
    files.sort();
    files
}

/// Metrics as Prometheus reads them.
#[derive(Debug)]
pub(crate) struct Metrics(BTreeMap<String, BTreeMap<BTreeMap<String, String>, f64>>);

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let mut metrics: BTreeMap<String, BTreeMap<_, f64>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a metric: {line}"));
            let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
            let labels = labels.strip_suffix('}').unwrap().split("\",").filter(|label| !label.is_empty());
            let labels = labels.map(|label| {
                let (name, value) = label.split_once("=\"").unwrap();
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            });
            metrics.entry(name.to_owned()).or_default().insert(labels.collect(), value.parse().unwrap());
        }
        Self(metrics)
    }

    /// The sum of all series of that name that have these labels.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no series {name} {labels:?}"))
    }

    /// The same, if there is any such series.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let matches = |has: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| has.get(*name).is_some_and(|has| has == value))
        };
        let series = self.0.get(name)?;
        let found: Vec<f64> = series.iter().filter(|(has, _)| matches(has)).map(|(_, value)| *value).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of packets")]
        let sum = found.iter().sum::<f64>() as u64;
        (!found.is_empty()).then_some(sum)
    }

    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.get(name, &[])
    }
}
