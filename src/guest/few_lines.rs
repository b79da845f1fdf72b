//! Filters in a few lines of text, for `hepgate doctor`, the tests and the benches.

use super::componentize::{GuestError, componentize_for};

/// The parts of a guest that differ; the rest is the same for all.
///
/// `$drop-batch` drops a batch; `$alloc` is the allocator; `$out` and `$ret` are where answers of the host and that of `init`
/// go (offsets 64 and 16), `$verdicts` where those of `on-batch` do (32): pointer and length of a list of octets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guest<'a> {
    /// Further imports: `(import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))`.
    pub imports: &'a str,
    /// Further definitions: functions, data, tables.
    pub definitions: &'a str,
    /// The body of `init`. It answers "ok" unless it stores something else at `$ret`.
    pub init: &'a str,
    /// The body of `on-batch`, which has `$batch` and the locals `$i`, `$j`, `$k`. It answers "all pass" unless it
    /// stores a list at `$verdicts`.
    pub on_batch: &'a str,
    /// The body of `on-tick`; the guest has none if this is empty.
    pub on_tick: &'a str,
    /// The body of `on-stop`; the guest has none if this is empty.
    pub on_stop: &'a str,
    /// What the allocator does first, whenever the host has something for the guest.
    pub on_alloc: &'a str,
}

/// Where `init` puts its answer, and where `on-batch` does: offsets in the guest's memory.
const PRELUDE: &str = r#"
  (import "hep:filter/packets@0.1.0" "[resource-drop]batch" (func $drop-batch (param i32)))
  IMPORTS
  (memory (export "memory") 2)
  (global $ret i32 (i32.const 16))
  (global $verdicts i32 (i32.const 32))
  (global $out i32 (i32.const 64))
  (global $top (mut i32) (i32.const 65536))
  (func $alloc (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $want i32)
    (result i32)
    (local $at i32)
    ON_ALLOC
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (global.set $top (i32.add (local.get $at) (local.get $want)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $fits (i32.ne (i32.const -1) (memory.grow
        (i32.add (i32.const 1) (i32.div_u (local.get $want) (i32.const 65536))))))
      (unreachable))
    (local.get $at))
"#;

/// The component of a guest.
///
/// # Errors
/// [`GuestError`]: what is wrong with its text.
pub fn component(guest: Guest<'_>) -> Result<Vec<u8>, GuestError> {
    let (module, world) = module(guest);
    componentize_for(module.as_bytes(), &[], world)
}

/// A guest that imports more than filters have: what `world` says, in the packages of `more`, beside our interface.
///
/// # Errors
/// [`GuestError`]: what is wrong with its text, or with the packages.
pub fn component_with(guest: Guest<'_>, more: &[&str], world: &str) -> Result<Vec<u8>, GuestError> {
    componentize_for(module(guest).0.as_bytes(), more, world)
}

/// The text of a guest's module, and its world.
fn module(guest: Guest<'_>) -> (String, &'static str) {
    let Guest { imports, definitions, init, on_batch, on_tick, on_stop, on_alloc } = guest;
    let optional = |name: &str, body: &str| match body {
        "" => String::new(),
        body => format!(r#"(func (export "hep:filter/{name}") (local $i i32) (local $j i32) {body})"#),
    };
    let ticker = optional("ticker@0.1.0#on-tick", on_tick);
    let last_call = optional("last-call@0.1.0#on-stop", on_stop);
    let module = format!(
        r#"(module
        {prelude}
        {definitions}
        (func (export "hep:filter/callbacks@0.1.0#init") (result i32)
          (local $i i32) (local $j i32) (local $k i32)
          {init}
          (global.get $ret))
        (func (export "hep:filter/callbacks@0.1.0#on-batch") (param $batch i32) (result i32)
          (local $i i32) (local $j i32) (local $k i32)
          (global.set $top (i32.const 65536))
          (i64.store (global.get $verdicts) (i64.const 0))
          {on_batch}
          (call $drop-batch (local.get $batch))
          (global.get $verdicts))
        {ticker}
        {last_call})"#,
        prelude = PRELUDE.replace("IMPORTS", imports).replace("ON_ALLOC", on_alloc)
    );
    let world = match (on_tick.is_empty(), on_stop.is_empty()) {
        (true, true) => "filter",
        (false, true) => "ticking-filter",
        (true, false) => "stopping-filter",
        (false, false) => "full-filter",
    };
    (module, world)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_text_is_told() {
        let wrong = component(Guest { init: "(unknown)", ..Guest::default() }).unwrap_err();
        assert!(wrong.to_string().contains("unknown"), "{wrong}");
    }
}
