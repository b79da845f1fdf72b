//! From a core module, in octets or as text, to a component of our interface.

use wasmparser::{Encoding, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::interface::interface;

/// Why there is no component.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GuestError {
    /// The text or the octets are wrong, or do not fit the interface.
    #[error("{0}")]
    Wrong(String),
    /// It is one.
    #[error("it is a component already")]
    Component,
    /// It has not what every filter has.
    #[error(
        "it does not export {}; a core module of the world `filter` exports these two functions and `cabi_realloc`, \
         under these very names",
        .0.join(" and ")
    )]
    NoFilter(Vec<&'static str>),
}

/// What tool chains that know no components import: WASI's first version.
const PREVIEW_1: &str = "wasi_snapshot_preview1";
/// What it gets instead: all of it without any power.
const NULL_ADAPTER: &str = include_str!("null_adapter.wat");

/// What a filter's core module exports.
const INIT: &str = "hep:filter/callbacks@0.1.0#init";
const ON_BATCH: &str = "hep:filter/callbacks@0.1.0#on-batch";
const ON_TICK: &str = "hep:filter/ticker@0.1.0#on-tick";
const ON_STOP: &str = "hep:filter/last-call@0.1.0#on-stop";

/// Makes a component of a core module, in octets or as text. Which of our worlds it is for is told by what it exports.
/// What it imports of `wasi_snapshot_preview1` it gets without any power: output goes nowhere, there are no files.
///
/// # Errors
/// [`GuestError`].
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, GuestError> {
    let module = wat::parse_bytes(module).map_err(wrong)?;
    let found = Found::read(&module)?;
    let missing: Vec<&str> = [(INIT, found.init), (ON_BATCH, found.on_batch)]
        .into_iter()
        .filter_map(|(name, is_there)| (!is_there).then_some(name))
        .collect();
    if !missing.is_empty() {
        return Err(GuestError::NoFilter(missing));
    }
    let world = match (found.on_tick, found.on_stop) {
        (false, false) => "filter",
        (true, false) => "ticking-filter",
        (false, true) => "stopping-filter",
        (true, true) => "full-filter",
    };
    encode(module.into_owned(), &found, &[], world)
}

/// Makes a component of a core module, for a world of our interface, or of one of the packages `more`.
pub(super) fn componentize_for(module: &[u8], more: &[&str], world: &str) -> Result<Vec<u8>, GuestError> {
    let module = wat::parse_bytes(module).map_err(wrong)?;
    let found = Found::read(&module)?;
    encode(module.into_owned(), &found, more, world)
}

fn encode(mut module: Vec<u8>, found: &Found, more: &[&str], world: &str) -> Result<Vec<u8>, GuestError> {
    if !found.has_world {
        let mut resolve = Resolve::default();
        let mut package = resolve.push_str("hepgate.wit", &interface()).map_err(wrong)?;
        for text in more {
            package = resolve.push_str("more.wit", text).map_err(wrong)?;
        }
        let world = resolve.select_world(&[package], Some(world)).map_err(wrong)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).map_err(wrong)?;
    }
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&module).map_err(wrong)?;
    if found.wants_preview_1 {
        let adapter = wat::parse_str(NULL_ADAPTER).map_err(wrong)?;
        encoder.adapter(PREVIEW_1, &adapter).map_err(wrong)?;
    }
    encoder.encode().map_err(wrong)
}

/// What a core module is made for.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not")]
struct Found {
    init: bool,
    on_batch: bool,
    on_tick: bool,
    on_stop: bool,
    /// Its tool chain has written into it which world it is for.
    has_world: bool,
    wants_preview_1: bool,
}

impl Found {
    fn read(module: &[u8]) -> Result<Self, GuestError> {
        let mut found = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload.map_err(wrong)? {
                Payload::Version { encoding: Encoding::Component, .. } => return Err(GuestError::Component),
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        found.wants_preview_1 |= import.map_err(wrong)?.module == PREVIEW_1;
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        found.export(export.map_err(wrong)?.name);
                    }
                }
                Payload::CustomSection(section) => found.has_world |= section.name().starts_with("component-type"),
                _ => {}
            }
        }
        Ok(found)
    }

    fn export(&mut self, name: &str) {
        match name {
            INIT => self.init = true,
            ON_BATCH => self.on_batch = true,
            ON_TICK => self.on_tick = true,
            ON_STOP => self.on_stop = true,
            _ => {}
        }
    }
}

fn wrong(error: impl std::fmt::Display) -> GuestError {
    GuestError::Wrong(format!("{error:#}"))
}
