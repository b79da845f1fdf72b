//! What is checked in as the Go template's bindings is what the generator makes of `wit/` today.
//!
//! After a change of `wit/`, with `gofmt` in the PATH: `HEPGATE_WRITE_BINDINGS=1 cargo test -p hepgate-filter`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]

use std::path::Path;

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_go::Opts;

/// What remains of Go code whether or not `gofmt` was there when it was generated: it changes white space, takes
/// semicolons from the ends of lines, and sorts imports.
fn unformatted(code: &str) -> String {
    let (begin, rest) = code.split_once("import (").unwrap_or((code, ")"));
    let (imports, end) = rest.split_once(')').unwrap();
    let mut imports: Vec<&str> = imports.lines().map(str::trim).collect();
    imports.sort_unstable();
    let lines = begin.lines().chain(imports).chain(end.lines());
    lines.flat_map(|line| line.trim_end().trim_end_matches(';').split_whitespace()).collect()
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
    for (name, octets) in files.iter() {
        let path = folder.join(name);
        let text = std::str::from_utf8(octets).unwrap();
        let same = || std::fs::read_to_string(&path).is_ok_and(|there| unformatted(&there) == unformatted(text));
        if std::env::var_os("HEPGATE_WRITE_BINDINGS").is_some() && !same() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        assert!(same(), "{} is not what wit/ says: see the top of this test", path.display());
    }
    // What the generator makes no more has to go, too. Two folders are not made by it.
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let made = files.iter().any(|(path, _)| path.starts_with(&format!("{name}/")));
        assert!(made || ["pkg", "export_hep_filter_callbacks"].contains(&name.as_str()), "{name} is left over");
    }
}
