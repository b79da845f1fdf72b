//! `hepgate filter inspect`: what a component is made of.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::super::tell::{Grouped, count};
use super::{FilterError, wide};
use crate::filter::{Anatomy, ImportClass, sha256_hex};

/// Show what a component is made of, before anything of it runs
///
/// Interfaces, imports by class, size, sha256 and who made it. Nothing is compiled or run. Exit code 1 if a gateway would
/// refuse the component for what it imports or lacks.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show only what is new since this component
    #[arg(long, value_name = "OLD")]
    pub diff: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs `hepgate filter inspect`.
pub(super) fn inspect(args: &InspectArgs) -> Result<ExitCode, FilterError> {
    let component = Inspected::read(&args.file)?;
    let text = match &args.diff {
        None if args.json => format!("{:#}\n", component.json()),
        None => component.text(),
        Some(old) => {
            let old = Inspected::read(old)?;
            if args.json { format!("{:#}\n", component.new_since_json(&old)) } else { component.new_since(&old) }
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if component.objections().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A component and where it was read.
struct Inspected {
    path: PathBuf,
    sha256: String,
    anatomy: Anatomy,
}

const CALLBACKS: &str = "hep:filter/callbacks@0.1.";
const SUBSCRIPTION: &str = "hep:filter/subscription@0.1.";

impl Inspected {
    fn read(path: &Path) -> Result<Self, FilterError> {
        let wasm = std::fs::read(path).map_err(|reason| FilterError::Read { path: path.to_owned(), reason })?;
        let anatomy = Anatomy::read(&wasm);
        let anatomy = anatomy.map_err(|reason| FilterError::NoComponent { path: path.to_owned(), reason })?;
        Ok(Self { path: path.to_owned(), sha256: sha256_hex(&wasm), anatomy })
    }

    /// Why a gateway would refuse it.
    fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        let refused: Vec<&str> = self.anatomy.imports_of(ImportClass::Refused).collect();
        if !refused.is_empty() {
            objections.push(format!("it imports what filters do not have: {}", refused.join(", ")));
        }
        if !self.anatomy.exports.iter().any(|name| name.starts_with(CALLBACKS)) {
            objections.push(format!("it does not export {CALLBACKS}0, so it is no filter"));
        }
        objections
    }

    const fn classes() -> [(ImportClass, &'static str, &'static str); 3] {
        [
            (ImportClass::Ours, "ours", ""),
            (ImportClass::Stub, "stubs", " (empty: a call is a trap)"),
            (ImportClass::Refused, "refused", " (no filter has this)"),
        ]
    }

    fn subscription(&self) -> &'static str {
        if self.anatomy.imports.iter().any(|name| name.starts_with(SUBSCRIPTION)) {
            "may be said in init; the operator's [filter.subscription] narrows it"
        } else {
            "none: it sees all packets of its tenants, unless [filter.subscription] narrows that"
        }
    }

    fn text(&self) -> String {
        let anatomy = &self.anatomy;
        let mut text = format!("{}\n", self.path.display());
        let mut line = |name: &str, value: &str| {
            // Into a text, it does not fail.
            let _ = writeln!(text, "  {name:<13} {value}");
        };
        line("sha256", &self.sha256);
        line("size", &count(wide(anatomy.octets), "octet"));
        line(
            "code",
            &format!(
                "{} in {}, the longest of {}",
                count(wide(anatomy.functions), "function"),
                count(wide(anatomy.modules), "module"),
                count(wide(anatomy.longest_function), "octet"),
            ),
        );
        for export in &anatomy.exports {
            line("exports", export);
        }
        for (class, name, remark) in Self::classes() {
            for import in anatomy.imports_of(class) {
                line(&format!("import {name}"), &format!("{import}{remark}"));
            }
        }
        line("subscription", self.subscription());
        for (what, names) in &anatomy.producers {
            line(what, &names.iter().cloned().collect::<Vec<_>>().join(", "));
        }
        let objections = self.objections();
        if objections.is_empty() {
            line("verdict", "a gateway may run it, if its types fit and its init succeeds");
        }
        for objection in objections {
            line("refused", &objection);
        }
        text
    }

    fn json(&self) -> Value {
        let anatomy = &self.anatomy;
        let imports = |class| anatomy.imports_of(class).collect::<Vec<_>>();
        json!({
            "file": self.path.display().to_string(),
            "sha256": self.sha256,
            "octets": anatomy.octets,
            "functions": anatomy.functions,
            "longest_function_octets": anatomy.longest_function,
            "modules": anatomy.modules,
            "exports": anatomy.exports,
            "imports": {
                "ours": imports(ImportClass::Ours),
                "stubs": imports(ImportClass::Stub),
                "refused": imports(ImportClass::Refused),
            },
            "subscription": self.subscription(),
            "producers": anatomy.producers,
            "objections": self.objections(),
        })
    }

    /// Names that this has and the old one has not, with what they are.
    fn news(&self, old: &Self) -> Vec<(String, String)> {
        let mut news = Vec::new();
        let (new_anatomy, old_anatomy) = (&self.anatomy, &old.anatomy);
        for export in new_anatomy.exports.difference(&old_anatomy.exports) {
            news.push(("exports".to_owned(), export.clone()));
        }
        for (class, name, _) in Self::classes() {
            let had: BTreeSet<&str> = old_anatomy.imports_of(class).collect();
            for import in new_anatomy.imports_of(class).filter(|import| !had.contains(import)) {
                news.push((format!("import {name}"), import.to_owned()));
            }
        }
        for (what, names) in &new_anatomy.producers {
            let had = old_anatomy.producers.get(what);
            for name in names.iter().filter(|name| had.is_none_or(|had| !had.contains(*name))) {
                news.push((what.clone(), name.clone()));
            }
        }
        news
    }

    fn new_since(&self, old: &Self) -> String {
        let mut text = format!("{} since {}\n", self.path.display(), old.path.display());
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<13} {value}");
        };
        if self.sha256 == old.sha256 {
            line("nothing", "they are the same octets");
            return text;
        }
        line("sha256", &format!("{} (was {})", self.sha256, old.sha256));
        for (what, new, had) in [
            ("octets", self.anatomy.octets, old.anatomy.octets),
            ("functions", self.anatomy.functions, old.anatomy.functions),
        ] {
            if new != had {
                line(what, &format!("{} (was {})", Grouped(wide(new)), Grouped(wide(had))));
            }
        }
        for (what, name) in self.news(old) {
            line(&what, &name);
        }
        for objection in self.objections() {
            line("refused", &objection);
        }
        text
    }

    fn new_since_json(&self, old: &Self) -> Value {
        let news: Vec<Value> =
            self.news(old).iter().map(|(what, name)| json!({ "what": what, "name": name })).collect();
        json!({ "sha256": self.sha256, "was": old.sha256, "new": news, "objections": self.objections() })
    }
}
