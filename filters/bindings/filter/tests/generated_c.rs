//! What is checked in as the C template's bindings is what the generator makes of `wit/` today.
//!
//! After a change of `wit/`: `HEPGATE_WRITE_BINDINGS=1 cargo test -p hepgate-filter`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may")]

use std::path::Path;

use wit_bindgen_c::{Enabled, Opts};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

/// The generator's last lines ask the linker for an object file with the component's type. `hepgate filter build` puts
/// the type in itself, so they go.
const TYPE_OBJECT: &str = "\n// Ensure that the *_component_type.o object is linked in\n";

#[test]
fn the_c_templates_bindings_are_what_the_interface_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some("filter")).unwrap();
    let options = Opts { no_object_file: true, autodrop_borrows: Enabled::Yes, ..Opts::default() };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let folder = root.join("filters/languages/c/bindings");
    let mut names = Vec::new();
    for (name, octets) in files.iter() {
        let text = std::str::from_utf8(octets).unwrap();
        let text = if name.ends_with(".c") { text.split_once(TYPE_OBJECT).expect("its last lines").0 } else { text };
        let path = folder.join(name);
        if std::env::var_os("HEPGATE_WRITE_BINDINGS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, text).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap();
        assert!(checked_in == text, "{} is not what wit/ says: see the top of this test", path.display());
        names.push(name);
    }
    assert_eq!(names, ["filter.c", "filter.h"]);
}
