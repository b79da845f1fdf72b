//! `hepgate filter new`: a folder with a filter that builds, does something sensible, and has a test.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::FilterError;
use super::language::Language;
use super::templates::{C, GO, JAVASCRIPT, PYTHON, RUST, RUST_BINDINGS, SHARED, TYPESCRIPT};
use crate::guest::INTERFACE;

/// What the filter of the folders in `filters/languages` is called.
const NAME: &str = "scanners";
/// The longest name of a filter.
const NAME_OCTETS_MAX: usize = 64;

/// Make a folder with a new filter, in the language of your choice
///
/// It finds SIP of scanning programs by their User-Agent, and can be built, tested and run as it is: change it into what you
/// want. Everything that is needed of hepgate lies in the folder; the language's own tools are told by `hepgate filter
/// build` if they are missing.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The filter's name: letters, digits and -, and a letter first
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it is to be written in
    #[arg(long, value_name = "LANGUAGE")]
    pub lang: Language,
    /// Where to; without it, a folder with the filter's name
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
}

/// Runs `hepgate filter new`.
pub(super) fn new(args: &NewArgs) -> Result<ExitCode, FilterError> {
    if !is_name(&args.name) {
        return Err(FilterError::Name { name: args.name.clone() });
    }
    let folder = args.into.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let is_taken = fs::read_dir(&folder).map_or_else(|_| folder.exists(), |mut entries| entries.next().is_some());
    if is_taken {
        return Err(FilterError::Taken { path: folder });
    }
    let (files, source) = match args.lang {
        Language::Rust => (RUST, "src/lib.rs"),
        Language::C => (C, "filter.c"),
        Language::Go => (GO, "filter.go"),
        Language::JavaScript => (JAVASCRIPT, "filter.js"),
        Language::TypeScript => (TYPESCRIPT, "filter.ts"),
        Language::Python => (PYTHON, "filter.py"),
    };
    for (path, content) in files {
        write(&folder, path, &named(path, content, &args.name))?;
    }
    for (path, content) in SHARED {
        write(&folder, path, content)?;
    }
    for (name, text) in INTERFACE {
        write(&folder, &format!("wit/{name}"), text.as_bytes())?;
    }
    if args.lang == Language::Rust {
        for (path, content) in RUST_BINDINGS {
            write(&folder, &format!("bindings/{path}"), content)?;
        }
    }
    let (shown, name) = (folder.display(), &args.name);
    let text = format!(
        "made {shown}: what the filter does stands in {shown}/{source}, how to go on in {shown}/README.md\n\n  \
         cd {shown}\n  hepgate filter build\n  \
         hepgate filter test {name}.wasm --read capture.pcap --expect expected.json\n"
    );
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Cargo, npm and Go take such names, and so does a `[[filter]]`.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_OCTETS_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A file of the folder with the filter's own name in it. What is generated does not know it.
fn named(path: &str, content: &[u8], name: &str) -> Vec<u8> {
    match str::from_utf8(content) {
        Ok(text) if !path.starts_with("bindings/") => {
            // In a new place the bindings lie in the folder itself.
            text.replace(NAME, name).replace("../../bindings", "bindings").into_bytes()
        }
        _ => content.to_vec(),
    }
}

fn write(folder: &Path, path: &str, content: &[u8]) -> Result<(), FilterError> {
    let path = folder.join(path);
    let parent = path.parent().unwrap_or(folder);
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, content));
    written.map_err(|reason| FilterError::Write { path, reason })
}

#[cfg(test)]
mod tests {
    use super::super::templates::File;
    use super::*;

    #[test]
    fn names_are_those_that_every_language_takes() {
        let length = |octets| "a".repeat(octets);
        for name in ["a", "no-logs", "x9", &length(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "9x", "-a", "A", "a_b", "a/b", "..", "ä", "a b", &length(65)] {
            assert!(!is_name(name), "{name}");
        }
    }

    /// What builds make; all else in the folders is their source.
    const MADE: [&str; 6] = ["target", "node_modules", "package-lock.json", ".venv", "__pycache__", "Cargo.lock.orig"];

    fn files_below(folder: &Path, below: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if MADE.contains(&name.as_str()) || name.ends_with(".wasm") {
                continue;
            }
            let path = format!("{below}{name}");
            if entry.path().is_dir() {
                files_below(&entry.path(), &format!("{path}/"), found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_file_of_the_folders_is_built_in() {
        let filters = Path::new(env!("CARGO_MANIFEST_DIR")).join("filters");
        for (folder, files) in [
            ("languages/rust", RUST),
            ("languages/c", C),
            ("languages/go", GO),
            ("languages/javascript", JAVASCRIPT),
            ("languages/typescript", TYPESCRIPT),
            ("languages/python", PYTHON),
            ("bindings", RUST_BINDINGS),
        ] {
            let mut there = Vec::new();
            files_below(&filters.join(folder), "", &mut there);
            there.retain(|path| !path.contains("/tests/") && !path.ends_with("_tests.rs"));
            there.sort();
            let mut ours: Vec<&str> = files.iter().map(|(path, _): &File| *path).collect();
            ours.sort_unstable();
            assert_eq!(ours, there, "{folder}");
        }
    }
}
