use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::bench::load;
use crate::support::gateway::HEPGATE;
use crate::support::guest::{self, Guest};
use crate::support::settings::{BOTH_LISTENERS, BY_FIRST_OCTET, filter};

fn inspect(arguments: &[&str], files: &[&Path]) -> (Output, String) {
    let output = Command::new(HEPGATE).args(["filter", "inspect"]).args(arguments).args(files).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[test]
fn a_component_is_shown_before_anything_of_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    // It would never end if it were run.
    let guest = Guest { init: "(loop $l (br $l))", ..BY_FIRST_OCTET };
    let path = guest::write(folder.path(), "f", guest);
    let (output, text) = inspect(&[], &[&path]);
    assert!(output.status.success());
    let sum = Command::new("sha256sum").arg(&path).output().unwrap();
    let sha256 = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
    for part in [
        &format!("sha256        {sha256}"),
        "exports       hep:filter/callbacks@0.1.0",
        "import ours   hep:filter/packets@0.1.0",
        "subscription  none: it sees all packets",
        "processed-by  wit-component",
        "verdict       a gateway may run it",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (_, json) = inspect(&["--json"], &[&path]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["sha256"], &json["octets"]), (&sha256.into(), &std::fs::metadata(&path).unwrap().len().into()));
    assert_eq!(json["objections"], Value::Array(Vec::new()));
}

#[test]
fn what_a_component_asks_for_beyond_what_filters_have_is_named_by_class() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greedy.wasm");
    let wat = r#"(component
        (import "wasi:filesystem/types@0.2.0" (instance))
        (import "hep:filter/packets@0.2.0" (instance))
        (import "hep:filter/log@0.1.7" (instance)))"#;
    std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
    let (output, text) = inspect(&[], &[&path]);
    assert!(!output.status.success());
    for part in [
        "import stubs  wasi:filesystem/types@0.2.0 (empty: a call is a trap)",
        "import refused hep:filter/packets@0.2.0 (no filter has this)",
        "import ours   hep:filter/log@0.1.7",
        "refused       it imports what filters do not have: hep:filter/packets@0.2.0",
        "refused       it does not export hep:filter/callbacks@0.1.0, so it is no filter",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn with_diff_only_what_is_new_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let old = guest::write(folder.path(), "old", Guest::default());
    let new = guest::write(folder.path(), "new", Guest { on_tick: "(nop)", ..BY_FIRST_OCTET });
    let old_text = old.to_str().unwrap();
    let (output, text) = inspect(&["--diff", old_text], &[&new]);
    assert!(output.status.success());
    assert!(text.contains("exports       hep:filter/ticker@0.1.0"), "{text}");
    assert!(text.contains("(was "), "{text}");
    assert!(!text.contains("callbacks@0.1.0") && !text.contains("wit-component"), "both have it: {text}");
    let (_, same) = inspect(&["--diff", old_text], &[&old]);
    assert!(same.contains("they are the same octets"), "{same}");
    let (output, _) = inspect(&[], &[Path::new("nowhere.wasm")]);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "hepgate: nowhere.wasm: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_pin_lets_only_its_own_octets_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = guest::write(folder.path(), "f", BY_FIRST_OCTET);
    let (_, json) = inspect(&["--json"], &[&path]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let sha256 = json["sha256"].as_str().unwrap();
    let check = |pin: &str| {
        let config = folder.path().join("hepgate.toml");
        let tenant = "[[tenant]]\nname = \"t\"\nfilters = [\"f\"]\n";
        let text = [BOTH_LISTENERS, &filter("f", &format!("sha256 = \"{pin}\"")), tenant].concat();
        std::fs::write(&config, text).unwrap();
        let output = Command::new(HEPGATE).arg("check").arg(&config).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(check(sha256).0);
    assert!(check(&sha256.to_uppercase()).0);
    let other = sha256.replace(['0', '1'], "2");
    let (good, told) = check(&other);
    assert!(!good && told.contains(&format!("has sha256 {sha256}; the configuration pins {other}")), "{told}");
    for wrong in ["abc", &sha256[1..], &sha256.replace(&sha256[..2], "+1")] {
        let (good, told) = check(wrong);
        assert!(!good && told.contains("is not a sha256: 64 hexadecimal digits"), "{wrong}: {told}");
    }
}

#[test]
fn a_component_with_more_functions_or_longer_ones_than_it_may_have_is_not_compiled() {
    let functions = "(func (nop))".repeat(10_000);
    let guest = Guest { definitions: &functions, ..Guest::default() };
    let wasm = guest::component(guest);
    let fits = |functions_max: usize| load(&wasm, |filter| filter.limits.functions_max = functions_max);
    // Those of the prelude, and of what the encoder adds.
    let all = (10_000..10_100).find(|most| fits(*most).is_ok()).unwrap();
    assert!(
        fits(all - 1).unwrap_err().to_string().contains(&format!("has {all} functions; functions_max is {}", all - 1))
    );
    let body = "(drop (i32.const 1))".repeat(10_000);
    let wasm = guest::component(Guest { on_batch: &body, ..Guest::default() });
    let error = load(&wasm, |filter| filter.limits.function_octets_max = 10_000).unwrap_err().to_string();
    assert!(error.contains("octets in one function; function_octets_max is 10000"), "{error}");
    load(&wasm, |_| {}).unwrap();
}
