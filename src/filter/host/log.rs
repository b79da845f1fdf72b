//! `log`: lines for the gateway's log, bounded in number and length.

use super::super::bindings::hep::filter::log::{Host, Level};
use super::super::state::{LogLevel, LogLine, State};

impl Host for State {
    fn log(&mut self, level: Level, line: String) -> wasmtime::Result<()> {
        self.charge(line.len())?;
        self.call.log_lines += 1;
        if self.call.log.len() >= self.limits.log_lines_max {
            self.call.log_unwritten += 1;
            return Ok(());
        }
        let level = match level {
            Level::Error => LogLevel::Error,
            Level::Warn => LogLevel::Warn,
            Level::Info => LogLevel::Info,
            Level::Debug => LogLevel::Debug,
        };
        let cut = line.floor_char_boundary(self.limits.log_line_octets_max);
        let (kept, rest) = line.split_at(cut);
        let mut text: String = kept.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        if !rest.is_empty() {
            text.push('…');
        }
        self.call.log.push(LogLine { level, text });
        Ok(())
    }
}
