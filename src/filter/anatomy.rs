//! What a component is made of, read from its octets: nothing is compiled, and nothing of it runs.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{Parser, Payload, ProducersSectionReader};

/// The package of our interfaces, and the version that this host speaks.
pub(super) const PACKAGE: &str = "hep:filter/";
/// How the versions begin that an older or newer 0.1 has.
const VERSION: &str = "@0.1.";
/// What a component is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Anatomy {
    /// Octets of the file.
    pub octets: usize,
    /// What it imports, by name.
    pub imports: BTreeSet<String>,
    /// What it exports.
    pub exports: BTreeSet<String>,
    /// Functions of all its modules.
    pub functions: usize,
    /// Octets of the longest of them.
    pub longest_function: usize,
    /// Core modules in it.
    pub modules: usize,
    /// Who made it: names with versions, by what they did.
    pub producers: BTreeMap<String, BTreeSet<String>>,
}

/// How an import is met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ImportClass {
    /// An interface of ours.
    Ours,
    /// `wasi:*`: an empty stub, of which every call is a trap.
    Stub,
    /// Nothing that filters have: the component is refused.
    Refused,
}

impl ImportClass {
    /// That of an import by its name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if name.starts_with("wasi:") {
            Self::Stub
        } else if name.starts_with(PACKAGE) && name.contains(VERSION) {
            Self::Ours
        } else {
            Self::Refused
        }
    }
}

impl Anatomy {
    /// Reads a component.
    ///
    /// # Errors
    /// What is wrong with it, if it cannot be taken apart.
    pub fn read(wasm: &[u8]) -> Result<Self, String> {
        let mut anatomy = Self { octets: wasm.len(), ..Self::default() };
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(|error| error.to_string())? {
                Payload::ModuleSection { .. } => {
                    depth += 1;
                    anatomy.modules += 1;
                }
                Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        anatomy.imports.insert(import.map_err(|error| error.to_string())?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        anatomy.exports.insert(export.map_err(|error| error.to_string())?.name.name.to_owned());
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    anatomy.functions += 1;
                    anatomy.longest_function = anatomy.longest_function.max(body.range().len());
                }
                Payload::CustomSection(section) if section.name() == "producers" => {
                    // What is said there is a courtesy: broken, it is left out.
                    let reader = wasmparser::BinaryReader::new(section.data(), section.data_offset());
                    if let Ok(producers) = ProducersSectionReader::new(reader) {
                        anatomy.add_producers(producers);
                    }
                }
                _ => {}
            }
        }
        Ok(anatomy)
    }

    fn add_producers(&mut self, producers: ProducersSectionReader<'_>) {
        for field in producers.into_iter().flatten() {
            let names = self.producers.entry(super::fault::clean(field.name, PRODUCER_OCTETS_MAX)).or_default();
            for value in field.values.into_iter().flatten() {
                let text = if value.version.is_empty() {
                    value.name.to_owned()
                } else {
                    format!("{} {}", value.name, value.version)
                };
                names.insert(super::fault::clean(&text, PRODUCER_OCTETS_MAX));
            }
        }
    }

    /// The imports of a class.
    pub fn imports_of(&self, class: ImportClass) -> impl Iterator<Item = &str> {
        self.imports.iter().map(String::as_str).filter(move |name| ImportClass::of(name) == class)
    }
}

/// Octets of what a producer is called.
const PRODUCER_OCTETS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_taken_apart_and_what_lies_deeper_is_not_its_own() {
        let wasm = wat::parse_str(
            r#"(component
                (import "hep:filter/log@0.1.0" (instance (export "f" (func))))
                (import "wasi:cli/environment@0.2.0" (instance))
                (import "evil:power/all@1.0.0" (instance))
                (component (import "inner" (func)))
                (core module (func) (func (drop (i32.const 1)) (drop (i32.const 2))))
                (core module (func))
                (instance $i) (export "hep:filter/callbacks@0.1.0" (instance $i)))"#,
        )
        .unwrap();
        let anatomy = Anatomy::read(&wasm).unwrap();
        let of = |class| anatomy.imports_of(class).collect::<Vec<_>>();
        assert_eq!(of(ImportClass::Ours), ["hep:filter/log@0.1.0"]);
        assert_eq!(of(ImportClass::Stub), ["wasi:cli/environment@0.2.0"]);
        assert_eq!(of(ImportClass::Refused), ["evil:power/all@1.0.0"]);
        assert_eq!((anatomy.modules, anatomy.functions, anatomy.longest_function), (2, 3, 8));
        assert_eq!(anatomy.exports.into_iter().collect::<Vec<_>>(), ["hep:filter/callbacks@0.1.0"]);
    }

    #[test]
    fn what_is_no_component_is_an_error_and_no_panic() {
        let whole = wat::parse_str("(component (core module (func)))").unwrap();
        // Where a section ends, what is there so far is a component of its own.
        let reads = |length: &usize| Anatomy::read(&whole[..*length]).is_ok();
        let ends: Vec<usize> = (0..=whole.len()).filter(reads).collect();
        assert_eq!((ends.first(), ends.last()), (Some(&8), Some(&whole.len())));
        assert!(ends.len() <= 4, "{ends:?}");
        assert!(Anatomy::read(b"\0asm\x0d\0\x01\0\xff\xff\xff\xff\xff").is_err());
    }
}
