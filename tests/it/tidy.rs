use std::path::{Path, PathBuf};

/// The layers, from the bottom. A module imports what stands below it, never what stands beside or above.
const LAYERS: &[&[&str]] = &[
    &["wire", "pace", "guest"],
    &["config"],
    &["ledger", "message", "tls"],
    &["filter", "pcapng"],
    &["listener", "tenant", "collector"],
    &["admin"],
    &["gateway"],
    &["cli"],
    &["main", "lib"],
];

/// The only files that may name actix: what is an actor, what actors say, and who starts and asks them.
const ACTIX: &[&str] = &[
    "admin/mod.rs",
    "cli/live.rs",
    "cli/run.rs",
    "collector/file.rs",
    "collector/tcp.rs",
    "collector/udp.rs",
    "gateway/mod.rs",
    "gateway/shown.rs",
    "gateway/worker.rs",
    "listener/connection.rs",
    "listener/mod.rs",
    "listener/tcp.rs",
    "listener/udp.rs",
    "message.rs",
    "tenant/actor.rs",
];

/// The only file with `unsafe` in it.
const UNSAFE: &[&str] = &["filter/cache.rs"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder with one of these endings, as path from there, and its text.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    fn collect(at: &Path, base: &Path, endings: &[&str], found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    collect(&path, base, endings, found);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
                found.push((relative, std::fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    let base = root().join(folder);
    let mut found = Vec::new();
    collect(&base, &base, endings, &mut found);
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The lines of a source file without comments and without its tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

fn layer_of(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or_else(|| panic!("{module} stands in no layer"))
}

#[test]
fn imports_point_down() {
    for (path, text) in files("src", &[".rs"]) {
        let module = module_of(&path);
        for (number, line) in code(&text) {
            for import in line.split("crate::").skip(1) {
                let name = import.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if name == module || name.is_empty() {
                    continue;
                }
                assert!(
                    layer_of(name) < layer_of(module),
                    "src/{path}:{}: {module} may not import {name}: {line}",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn only_the_filter_host_names_wasmtime_and_only_actors_name_actix() {
    for (path, text) in files("src", &[".rs"]) {
        for (number, line) in code(&text) {
            let at = format!("src/{path}:{}: {line}", number + 1);
            assert!(!line.contains("wasmtime") || path.starts_with("filter/"), "{at}");
            assert!(!line.contains("actix") || ACTIX.contains(&path.as_str()), "{at}");
        }
    }
}

#[test]
fn there_is_one_file_with_unsafe_in_it() {
    let has_unsafe = |text: &str| code(text).any(|(_, line)| line.contains("unsafe {") || line.contains("unsafe_code"));
    let found: Vec<String> =
        files("src", &[".rs"]).into_iter().filter(|(_, text)| has_unsafe(text)).map(|(path, _)| path).collect();
    assert_eq!(found, UNSAFE);
}

#[test]
fn the_codec_and_what_decides_have_no_clock_socket_or_log() {
    for (path, text) in files("src", &[".rs"]) {
        let decides = ["wire/", "pace.rs", "collector/postponed.rs", "collector/rotation.rs", "tenant/table.rs"];
        if !decides.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        for (number, line) in code(&text) {
            for word in ["Instant::now", "SystemTime", "tracing::", ".await", "std::fs", "UdpSocket", "TcpStream"] {
                assert!(!line.contains(word), "src/{path}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn every_source_file_begins_with_what_it_is() {
    for (path, text) in files("src", &[".rs"]) {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") || path == "lib.rs", "src/{path}: {first}");
    }
}

/// What is not compiled in has no advisories, and `component-model-async` would make every call four times as dear.
/// Cargo unifies features, so any dependency could bring one back.
#[test]
fn wasmtime_is_compiled_with_what_we_use_and_nothing_else() {
    // Only for this platform: what others need is not on the machine.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let out = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let is_wasmtime = |node: &&serde_json::Value| node["id"].as_str().unwrap().contains("#wasmtime@");
    let wasmtime: Vec<_> = nodes.iter().filter(is_wasmtime).collect();
    assert_eq!(wasmtime.len(), 1, "one version");
    let features: Vec<&str> =
        wasmtime[0]["features"].as_array().unwrap().iter().map(|feature| feature.as_str().unwrap()).collect();
    assert!(features.contains(&"component-model") && features.contains(&"pooling-allocator"), "{features:?}");
    for unwanted in ["component-model-async", "async", "gc", "threads", "wat", "cache", "profiling", "stack-switching"]
    {
        assert!(!features.contains(&unwanted), "{unwanted}: {features:?}");
    }
}

#[test]
fn every_dependency_is_a_sentence() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut in_dependencies = false;
    let mut before = "";
    let mut count = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains(" = ") && !line.starts_with([' ', '#']) {
            assert!(before.starts_with("# "), "Cargo.toml: no sentence before: {line}");
            count += 1;
        }
        before = line;
    }
    assert!(count > 20, "{count}");
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let endings = ["rs", "toml", "md", "wit", "run", "build", "sh", "txt", "json"];
    for (path, text) in files(".", &endings) {
        for word in words_of_a_machine() {
            assert!(!text.contains(&word), "{path} names {word}");
        }
    }
    let built = std::fs::read_dir(root().join("filters")).unwrap().map(|entry| entry.unwrap().path());
    let built: Vec<PathBuf> = built.filter(|path| path.extension().is_some_and(|ending| ending == "wasm")).collect();
    assert!(built.len() >= 3, "{built:?}");
    for path in built {
        let octets = std::fs::read(&path).unwrap();
        for word in words_of_a_machine() {
            let named = octets.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!named, "{} names {word}", path.display());
        }
    }
}

/// Put together here, so that this file does not name them.
fn words_of_a_machine() -> [String; 3] {
    [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["index.cra", "tes.io"].concat()]
}

#[test]
fn a_test_that_is_not_run_by_default_says_why() {
    for (path, text) in files("tests", &[".rs"]) {
        for (number, line) in text.lines().enumerate() {
            let ignored = ["#[ig", "nore]"].concat();
            assert!(!line.contains(&ignored), "tests/{path}:{}", number + 1);
        }
    }
}

#[test]
fn every_test_that_a_table_of_the_documentation_names_is_there() {
    for (path, least) in [("config/proto_hep.md", 20), ("config/sandbox.md", 60)] {
        let table = std::fs::read_to_string(root().join(path)).unwrap();
        let mut named = 0;
        for row in table.lines().filter(|line| line.starts_with("| ") && !line.ends_with("shown by |")) {
            let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            for test in shown_by.split(", ").filter(|test| *test != "missing") {
                let (file, name) = test.trim_matches('`').split_once("::").unwrap_or_else(|| panic!("{row}"));
                let text = std::fs::read_to_string(root().join(format!("tests/it/{file}.rs"))).unwrap();
                assert!(text.contains(&format!("fn {name}(")), "{path} names {test}, which is not there");
                named += 1;
            }
        }
        assert!(named >= least, "{path}: {named}");
    }
}
