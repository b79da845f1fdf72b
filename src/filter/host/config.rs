//! `config`: what the operator told this filter.

use super::super::bindings::hep::filter::config::Host;
use super::super::state::State;

impl Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        let value = self.config.get(&key).cloned();
        self.charge(key.len() + value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn all(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        let all: Vec<(String, String)> = self.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        self.charge(all.iter().map(|(key, value)| key.len() + value.len()).sum())?;
        Ok(all)
    }
}
