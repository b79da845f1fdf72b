//! Filters in a few lines of text: WebAssembly core modules, made into components.

use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The parts of a guest that a test writes; the rest is the same for all.
#[derive(Clone, Copy, Default)]
pub(crate) struct Guest<'a> {
    /// Further imports: `(import "hep:filter/packets@0.1.0" "[method]batch.len" (func $len (param i32) (result i32)))`.
    pub(crate) imports: &'a str,
    /// Further definitions: functions, data, tables.
    pub(crate) definitions: &'a str,
    /// The body of `init`. It answers "ok" unless it stores something else at `$ret`.
    pub(crate) init: &'a str,
    /// The body of `on-batch`, which has `$batch` and the locals `$i`, `$j`, `$k`. It answers "all pass" unless it
    /// stores a list at `$verdicts`.
    pub(crate) on_batch: &'a str,
    /// The body of `on-tick`; the guest has none if this is empty.
    pub(crate) on_tick: &'a str,
    /// The body of `on-stop`; the guest has none if this is empty.
    pub(crate) on_stop: &'a str,
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
pub(crate) fn component(guest: Guest<'_>) -> Vec<u8> {
    let Guest { imports, definitions, init, on_batch, on_tick, on_stop } = guest;
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
        prelude = PRELUDE.replace("IMPORTS", imports)
    );
    let world = match (on_tick.is_empty(), on_stop.is_empty()) {
        (true, true) => "filter",
        (false, true) => "ticking-filter",
        (true, false) => "stopping-filter",
        (false, false) => "full-filter",
    };
    componentize(&module, world)
}

/// Makes a component of a core module in text form.
pub(crate) fn componentize(module: &str, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit()).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Writes a guest's component into a folder.
pub(crate) fn write(folder: &Path, name: &str, guest: Guest<'_>) -> PathBuf {
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, component(guest)).unwrap();
    path
}

fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("wit")
}
