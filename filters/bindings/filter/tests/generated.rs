//! What is checked in as bindings is what the generator makes of `wit/` today.
//!
//! After a change of `wit/`: `HEPGATE_WRITE_BINDINGS=1 cargo test -p hepgate-filter`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use wit_bindgen_core::wit_parser::{PackageId, Resolve};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::{Opts, Ownership};

/// What the ticker's crate adds to a filter. It is no world of `wit/`: the linker puts both together.
const TICKER: &str = "package hepgate:parts;\nworld ticker { export hep:filter/ticker@0.1.0; }\n";
/// The same for the last call.
const LAST_CALL: &str = "package hepgate:parts;\nworld last-call { export hep:filter/last-call@0.1.0; }\n";

fn interface() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit")).unwrap();
    (resolve, package)
}

fn generated(mut resolve: Resolve, package: PackageId, world: &str) -> String {
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let options = Opts { generate_all: true, pub_export_macro: true, ownership: Ownership::Owning, ..Opts::default() };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let mut texts = files.iter().map(|(_, octets)| String::from_utf8(octets.to_vec()).unwrap());
    let text = texts.next().unwrap();
    assert!(texts.next().is_none(), "one file for a world");
    text
}

fn check(krate: &str, generated: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate).join("src/generated.rs");
    if std::env::var_os("HEPGATE_WRITE_BINDINGS").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(checked_in == generated, "{} is not what wit/ says: see the top of this test", path.display());
}

#[test]
fn the_filters_bindings_are_what_the_interface_says() {
    let (resolve, package) = interface();
    check("filter", &generated(resolve, package, "filter"));
}

#[test]
fn the_tickers_bindings_are_what_the_interface_says() {
    let (mut resolve, _) = interface();
    let parts = resolve.push_str("parts.wit", TICKER).unwrap();
    check("ticker", &generated(resolve, parts, "ticker"));
}

#[test]
fn the_last_calls_bindings_are_what_the_interface_says() {
    let (mut resolve, _) = interface();
    let parts = resolve.push_str("parts.wit", LAST_CALL).unwrap();
    check("last-call", &generated(resolve, parts, "last-call"));
}
