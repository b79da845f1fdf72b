//! What is checked in as the Go template's bindings is what the generator makes of `wit/` today.
//!
//! After a change of `wit/`, with `gofmt` in the PATH: `HEPGATE_WRITE_BINDINGS=1 cargo test -p hepgate-filter`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]

use std::path::Path;

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_go::Opts;

/// What remains of Go code whether or not `gofmt` was there when it was generated: it changes white space and sorts
/// imports.
fn unformatted(code: &str) -> String {
    let (begin, rest) = code.split_once("import (").unwrap_or(("", code));
    let (imports, end) = if begin.is_empty() { ("", rest) } else { rest.split_once(')').unwrap() };
    let mut imports: Vec<&str> = imports.lines().map(str::trim).collect();
    imports.sort_unstable();
    [begin, &imports.concat(), end].concat().split_whitespace().collect()
}

#[test]
fn the_go_templates_bindings_are_what_the_interface_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some("filter")).unwrap();
    let options = Opts { pkg_name: Some("filter/bindings".to_owned()), ..Opts::default() };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let folder = root.join("filters/languages/go/bindings");
    let mut number = 0;
    for (name, octets) in files.iter() {
        let path = folder.join(name);
        let text = std::str::from_utf8(octets).unwrap();
        if std::env::var_os("HEPGATE_WRITE_BINDINGS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap();
        let same = unformatted(&checked_in) == unformatted(text);
        assert!(same, "{} is not what wit/ says: see the top of this test", path.display());
        number += 1;
    }
    assert!(number > 0);
}
