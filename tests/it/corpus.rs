//! Packets that real senders sent: see `tests/corpus/README.md`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One exchange.
pub(crate) struct Exchange {
    pub(crate) name: String,
    pub(crate) frames: Vec<Frame>,
}

/// One packet as it came.
pub(crate) struct Frame {
    pub(crate) is_tcp: bool,
    pub(crate) octets: Vec<u8>,
}

#[derive(Deserialize)]
struct Line {
    proto: String,
    len: usize,
    hex: String,
}

/// All exchanges, in the order of their names.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".frames.jsonl").map(str::to_owned))
        .collect();
    names.sort();
    names.into_iter().map(|name| Exchange { frames: frames(&name), name }).collect()
}

/// What an independent decoder read from that exchange, as text.
pub(crate) fn expected(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.expected.json"))).unwrap()
}

fn frames(name: &str) -> Vec<Frame> {
    let lines = fs::read_to_string(folder().join(format!("{name}.frames.jsonl"))).unwrap();
    lines.lines().map(|line| frame(&serde_json::from_str(line).unwrap())).collect()
}

fn frame(line: &Line) -> Frame {
    let octets = unhex(&line.hex);
    assert_eq!(octets.len(), line.len);
    Frame { is_tcp: line.proto == "tcp", octets }
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}
