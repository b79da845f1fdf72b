//! Where log lines go: to the standard error, as text or as JSON, by a thread of their own. Whoever reads them and does
//! not keep up, or stopped reading, loses lines, and stops nothing.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogLevel};

/// Lines that may wait to be written: far more than the bounds on repeated lines let through in a second, and at 200
/// octets a line less than a mebibyte.
const LINES_MAX: usize = 4_096;

/// The log, as long as this lives. What waits is written when it goes, within about a second.
pub(super) struct Logging {
    lost: ErrorCounter,
    _guard: WorkerGuard,
}

impl Logging {
    /// Lines that were lost because nobody read fast enough.
    pub(super) fn lost(&self) -> usize {
        self.lost.dropped_lines()
    }
}

/// From now on, log lines are written.
pub(super) fn start(log: Log) -> Logging {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("hepgate-log")
        .finish(std::io::stderr());
    let lost = writer.error_counter();
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    // What the libraries have to say is of interest when it is bad.
    let levels = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("hepgate", level);
    let registry = tracing_subscriber::registry().with(levels);
    // It fails if there is a subscriber already, which is then as good.
    let _ = if log.json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(colour)).try_init()
    };
    Logging { lost, _guard: guard }
}
