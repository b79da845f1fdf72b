//! What the operator said, what time it is, the log, and what is remembered.

use hepgate_filter::state::{self, StateError};
use hepgate_filter::{Level, clock, log};

use crate::checks::Checks;

// example: config.get
/// As the bindings have it; `Config::take`, `Config::parse` and others say what is wrong with a value, too.
fn greeting() -> Option<String> {
    hepgate_filter::generated::hep::filter::config::get("greeting")
}
// end

// example: config.all
/// Keys that nobody knows; `Config::finish` complains of them.
fn unknown(known: &[&str]) -> Vec<String> {
    let all = hepgate_filter::generated::hep::filter::config::all();
    all.into_iter().map(|(key, _)| key).filter(|key| !known.contains(&key.as_str())).collect()
}
// end

// example: log.log
/// For the operator. No payload, and nothing secret.
fn say(greeting: &str) {
    log(Level::Info, &format!("{greeting}, operator"));
}
// end

// example: clock.wall
/// Whether a packet is from the future, as far as more than a minute goes.
fn is_ahead(captured_at: u64) -> bool {
    captured_at > clock::wall() + 60_000_000
}
// end

// example: clock.monotonic
/// Whether a second has gone by, whatever was done to the other clock.
pub(crate) fn is_a_second_ago(then: u64) -> bool {
    clock::monotonic().saturating_sub(then) >= 1_000_000
}
// end

// example: state.set
/// Remembers for an hour where a call began.
fn remember(call: &str, agent: &str) -> Result<(), StateError> {
    let hour = 3_600_000;
    state::set(&format!("call {call}"), agent.as_bytes(), Some(hour))
}
// end

// example: state.get
/// Where a call began, if it is known: to this instance, another one, or one before it.
fn remembered(call: &str) -> Option<Vec<u8>> {
    state::get(&format!("call {call}"))
}
// end

// example: state.remove
/// Forgets a call. Whether it was known.
fn forget(call: &str) -> bool {
    state::remove(&format!("call {call}"))
}
// end

// example: state.add
/// How many calls a user has tried to make since the first one, a minute ago at most.
fn tries(user: &str) -> Result<i64, StateError> {
    state::add(&format!("tries {user}"), 1, Some(60_000))
}
// end

/// The time of the first packet that `tests/it/interface.rs` makes.
const FIRST_AT: u64 = 1_795_418_200_000_000;

pub(crate) fn check(checks: &mut Checks, told: &str) {
    checks.is("config.get", greeting().as_deref(), Some(told));
    checks.is("config.all", (unknown(&["greeting"]).len(), unknown(&[]).len()), (0, 1));
    say(told);
    checks.ran("log.log");
    checks.is("clock.wall", (is_ahead(FIRST_AT), is_ahead(FIRST_AT + 60_000_001)), (false, true));
    assert!(!is_a_second_ago(clock::monotonic()), "now is not a second ago");
    checks.is("state.set", remember("one", "edge-1").is_ok(), true);
    checks.is("state.get", (remembered("one"), remembered("two")), (Some(b"edge-1".to_vec()), None));
    checks.is("state.remove", (forget("one"), forget("one")), (true, false));
    checks.is("state.add", (tries("bob").ok(), tries("bob").ok()), (Some(1), Some(2)));
}
