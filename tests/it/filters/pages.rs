//! The pages of the filters: their examples work, and their keys are those that there are.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::folder;
use crate::support::gateway::HEPGATE;

/// The page of the filters, and that of each.
fn pages() -> Vec<(String, String)> {
    let filters = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters");
    let read = |name: String| {
        let path = filters.join(&name).join("README.md");
        (name, std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    let mut names: Vec<String> = std::fs::read_dir(&filters)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".wasm").map(str::to_owned))
        // The examples of config/migration.md and of wit/README.md.
        .filter(|name| !["examples", "from-lua"].contains(&name.as_str()))
        .collect();
    names.sort();
    names.insert(0, ".".to_owned());
    names.into_iter().map(read).collect()
}

/// The examples of a configuration with filters on a page.
fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.filter(|block| block.contains("[[filter]]")).collect()
}

/// An example as a whole configuration: with a listener, and with the collectors that it names.
fn completed(example: &str) -> String {
    let table: toml::Table = example.parse().unwrap_or_else(|error| panic!("{error}\n{example}"));
    let named = |of: &str, key: &str| -> Vec<String> {
        let tables = table.get(of).and_then(toml::Value::as_array).into_iter().flatten();
        let lists = tables.filter_map(|table| table.get(key)?.as_array());
        lists.flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let collectors: BTreeSet<String> =
        named("filter", "collectors").into_iter().chain(named("tenant", "route")).collect();
    let collector = |name: &String| format!("[[collector]]\nname = \"{name}\"\nto = \"hep_udp:127.0.0.1:9060\"\n");
    let place = format!("{}/", folder().display());
    [
        example.replace("../filters/", &place),
        "[[listener]]\nname = \"udp\"\nlisten = \"hep_udp:127.0.0.1:5656\"\n".to_owned(),
        collectors.iter().map(collector).collect(),
    ]
    .concat()
}

/// What the checker says of a configuration, and whether it is content.
fn check(config: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    for key in ["redact.key", "north.key"] {
        std::fs::write(folder.path().join(key), "0123456789abcdef0123456789abcdef\n").unwrap();
    }
    let path = folder.path().join("hepgate.toml");
    std::fs::write(&path, config).unwrap();
    let out = Command::new(HEPGATE).arg("check").arg(&path).output().unwrap();
    (out.status.success(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn the_examples_on_the_pages_work() {
    for (name, page) in pages() {
        let examples = examples(&page);
        assert!(name == "." || !examples.is_empty(), "{name} has no example");
        for example in examples {
            let (is_content, complaints) = check(&completed(example));
            assert!(is_content, "{name}: {complaints}\n{example}");
        }
    }
}

#[test]
fn the_keys_on_a_page_are_those_that_the_filter_knows() {
    for (name, page) in pages().into_iter().skip(1) {
        let example = examples(&page)[0];
        let planted = if example.contains("[filter.config]\n") {
            example.replacen("[filter.config]\n", "[filter.config]\nplanted = 1\n", 1)
        } else {
            example.replacen("config = { ", "config = { planted = 1, ", 1)
        };
        let (_, complaints) = check(&completed(&planted));
        let known = complaints.split("config key \"planted\" is unknown; known here: ").nth(1);
        let known = known.unwrap_or_else(|| panic!("{name}: {complaints}\n{planted}")).lines().next().unwrap();
        let known: BTreeSet<&str> = known.split(", ").collect();
        let table = page.split("| key | default |").nth(1).unwrap().lines().skip(2);
        let first_cells = table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
        let told: BTreeSet<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        // Rules are numbered.
        let told =
            told.into_iter().filter(|key| *key != "rule_2").map(|key| if key == "rule_1" { "rule_N" } else { key });
        assert_eq!(told.collect::<BTreeSet<_>>(), known, "{name}");
    }
}

#[test]
fn what_the_pages_link_to_is_there() {
    let filters = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters");
    let mut count = 0;
    for (name, page) in pages() {
        for target in page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if let Some(heading) = target.strip_prefix('#') {
                let slug =
                    |line: &str| line.trim_start_matches("## ").to_lowercase().replace(' ', "-").replace(',', "");
                assert!(page.lines().any(|line| line.starts_with("## ") && slug(line) == heading), "{name}: {target}");
            } else {
                assert!(filters.join(&name).join(target).exists(), "{name}: {target}");
            }
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
}
