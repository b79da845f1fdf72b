//! What is checked in as the pages of the interface, `wit/README.md`, is what `wit/` and the examples say. What stands
//! above the line that says so is written by hand, and held to the interface and to `config/hepgate.toml` where it can be.
//!
//! After a change of `wit/` or `filters/examples`: `HEPGATE_WRITE_BINDINGS=1 cargo test -p hepgate-filter`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use wit_bindgen_core::wit_parser::{
    Docs, Function, FunctionKind, Handle, InterfaceId, PackageId, Resolve, Type, TypeDefKind, TypeId, TypeOwner,
    WorldItem,
};

/// The interfaces as one reads them: what calls a filter, what it is called with, what it can do then, and the rest.
const ORDER: [&str; 13] = [
    "callbacks",
    "ticker",
    "last-call",
    "types",
    "packets",
    "packing",
    "sending",
    "subscription",
    "config",
    "state",
    "metrics",
    "log",
    "clock",
];

/// What stands above this line is written by hand.
const BEGIN: &str =
    "<!-- Below this line everything is made of wit/*.wit and filters/examples: do not edit it here. -->\n";

/// No line of prose is longer.
const WIDTH: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

fn interface() -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit")).unwrap();
    (resolve, package)
}

/// A text in lines, with `indent` before all but the first.
fn wrapped(text: &str, indent: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.chars().count() > WIDTH {
            write!(out, "\n{indent}").unwrap();
            column = indent.len();
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.chars().count();
    }
    out
}

/// A doc comment as it stands there, with its paragraphs.
fn docs(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default();
    let paragraphs = text.split("\n\n").map(|paragraph| wrapped(paragraph, ""));
    paragraphs.filter(|paragraph| !paragraph.is_empty()).collect::<Vec<_>>().join("\n\n")
}

/// A member of a record, variant or enum. Lines that begin with a number are a list: the bits of a set.
fn member(out: &mut String, name: &str, docs: &Docs) {
    let Some(text) = docs.contents.as_deref() else { return };
    let is_bit = |line: &str| line.split_once(": ").is_some_and(|(bit, _)| bit.parse::<u32>().is_ok());
    let mut items = vec![format!("- `{name}`: ")];
    for line in text.lines() {
        if is_bit(line) {
            items.push("  - ".to_owned());
        }
        let item = items.last_mut().unwrap();
        write!(item, "{line} ").unwrap();
    }
    for item in &items {
        let (indent, text) = item.split_at(item.find('-').unwrap());
        writeln!(out, "{indent}{}", wrapped(text, &format!("{indent}  "))).unwrap();
    }
}

/// An interface on its way to the page.
struct Section<'a> {
    resolve: &'a Resolve,
    id: InterfaceId,
    name: &'a str,
    examples: &'a BTreeMap<String, String>,
}

impl Section<'_> {
    fn ty(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "bool".into(),
            Type::U8 => "u8".into(),
            Type::U16 => "u16".into(),
            Type::U32 => "u32".into(),
            Type::U64 => "u64".into(),
            Type::S64 => "s64".into(),
            Type::F64 => "f64".into(),
            Type::String => "string".into(),
            Type::Id(id) => self.named(*id),
            other => panic!("write down here how {other:?} is written"),
        }
    }

    fn named(&self, id: TypeId) -> String {
        let def = &self.resolve.types[id];
        if let Some(name) = &def.name {
            return name.clone();
        }
        let optional = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), |ty| self.ty(ty));
        match &def.kind {
            TypeDefKind::Handle(Handle::Own(id)) => self.named(*id),
            TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", self.named(*id)),
            TypeDefKind::Option(ty) => format!("option<{}>", self.ty(ty)),
            TypeDefKind::List(ty) => format!("list<{}>", self.ty(ty)),
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<String> = tuple.types.iter().map(|ty| self.ty(ty)).collect();
                format!("tuple<{}>", types.join(", "))
            }
            TypeDefKind::Result(result) => match (&result.ok, &result.err) {
                (Some(ok), None) => format!("result<{}>", self.ty(ok)),
                (ok, _) => format!("result<{}, {}>", optional(ok), optional(&result.err)),
            },
            other => panic!("write down here how {} is written", other.as_str()),
        }
    }

    fn signature(&self, function: &Function) -> String {
        let is_method = matches!(function.kind, FunctionKind::Method(_));
        let before = if matches!(function.kind, FunctionKind::Static(_)) { "static " } else { "" };
        let params = function.params.iter().skip(usize::from(is_method));
        let params: Vec<String> = params.map(|param| format!("{}: {}", param.name, self.ty(&param.ty))).collect();
        let result = function.result.as_ref().map(|ty| format!("-> {}", self.ty(ty))).unwrap_or_default();
        let head = format!("{}: {before}func({})", function.item_name(), params.join(", "));
        if head.len() + 2 + result.len() <= WIDTH {
            return format!("{head} {result}").trim_end().to_owned() + ";";
        }
        format!("{head}\n  {result};")
    }

    fn function(&self, out: &mut String, function: &Function) {
        let resource = function.kind.resource().map(|id| self.resolve.types[id].name.as_deref().unwrap());
        let name = function.item_name();
        // What a resource has goes by the resource's name, and all else by the interface's.
        let shown = format!("{}.{name}", resource.unwrap_or(self.name));
        let level = if resource.is_some() { "####" } else { "###" };
        let example = full_name(self.resolve, self.name, function);
        let text = self.examples.get(&example);
        let text = text.unwrap_or_else(|| panic!("filters/examples has no `// example: {example}`"));
        let called = if example == "callbacks.init" { "new".to_owned() } else { name.replace('-', "_") };
        assert!(text.contains(&format!("{called}(")), "the example {example} does not call it");
        let docs = docs(&function.docs);
        assert!(!docs.is_empty(), "{example} has no doc comment");
        let signature = self.signature(function);
        writeln!(out, "{level} {shown}\n\n```wit\n{signature}\n```\n\n{docs}\n\n```rust\n{text}```\n").unwrap();
    }

    /// A record, variant or enum.
    fn definition(&self, out: &mut String, name: &str, id: TypeId) {
        let def = &self.resolve.types[id];
        let (mut wit, mut members) = (String::new(), String::new());
        let mut line = |text: String, name: &str, docs: &Docs| {
            writeln!(wit, "  {text},").unwrap();
            member(&mut members, name, docs);
        };
        let with = |name: &str, ty: &Option<Type>| match ty {
            Some(ty) => format!("{name}({})", self.ty(ty)),
            None => name.to_owned(),
        };
        let keyword = match &def.kind {
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter();
                fields.for_each(|field| {
                    line(format!("{}: {}", field.name, self.ty(&field.ty)), &field.name, &field.docs)
                });
                "record"
            }
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().for_each(|case| line(with(&case.name, &case.ty), &case.name, &case.docs));
                "variant"
            }
            TypeDefKind::Enum(cases) => {
                cases.cases.iter().for_each(|case| line(case.name.clone(), &case.name, &case.docs));
                "enum"
            }
            other => panic!("write down here how {} is shown", other.as_str()),
        };
        writeln!(out, "### {name}\n").unwrap();
        let docs = docs(&def.docs);
        if !docs.is_empty() {
            writeln!(out, "{docs}\n").unwrap();
        }
        writeln!(out, "```wit\n{keyword} {name} {{\n{wit}}}\n```\n").unwrap();
        if !members.is_empty() {
            writeln!(out, "{members}").unwrap();
        }
    }

    fn text(&self, limits: &[Limit]) -> String {
        let interface = &self.resolve.interfaces[self.id];
        let mut out = format!("## {}\n\n{}\n\n", self.name, docs(&interface.docs));
        let mine = limits.iter().filter(|limit| limit.interfaces.iter().any(|name| name == self.name));
        let mine: Vec<String> = mine.map(|limit| format!("`{}`", limit.key)).collect();
        if !mine.is_empty() {
            let line = format!("Its [limits](#limits): {}; and those of all calls.", mine.join(", "));
            writeln!(out, "{}\n", wrapped(&line, "")).unwrap();
        }
        let mut resources = Vec::new();
        for (name, id) in &interface.types {
            let def = &self.resolve.types[*id];
            match &def.kind {
                TypeDefKind::Resource => resources.push((name, *id)),
                // What another interface lends.
                TypeDefKind::Type(Type::Id(used))
                    if self.resolve.types[*used].owner != TypeOwner::Interface(self.id) => {}
                _ => self.definition(&mut out, name, *id),
            }
        }
        let functions = interface.functions.values();
        for function in functions.clone().filter(|function| function.kind.resource().is_none()) {
            self.function(&mut out, function);
        }
        for (name, id) in resources {
            writeln!(out, "### {name}\n\n{}\n", docs(&self.resolve.types[id].docs)).unwrap();
            for function in functions.clone().filter(|function| function.kind.resource() == Some(id)) {
                self.function(&mut out, function);
            }
        }
        out
    }
}

fn full_name(resolve: &Resolve, interface: &str, function: &Function) -> String {
    match function.kind.resource() {
        Some(id) => format!("{interface}.{}.{}", resolve.types[id].name.as_deref().unwrap(), function.item_name()),
        None => format!("{interface}.{}", function.name),
    }
}

/// The worlds, with what a filter of each exports.
fn worlds(resolve: &Resolve, package: PackageId) -> String {
    let name = |item: &WorldItem| match item {
        WorldItem::Interface { id, .. } => resolve.interfaces[*id].name.clone().unwrap(),
        _ => panic!("a world has interfaces only"),
    };
    let said = docs(&resolve.packages[package].docs);
    let mut out = format!("## Worlds\n\nThe package is `{}`. {said}\n\n", resolve.packages[package].name);
    out.push_str("| world | what it is | it exports |\n|---|---|---|\n");
    let mut imports = BTreeSet::new();
    for (world, id) in &resolve.packages[package].worlds {
        let item = &resolve.worlds[*id];
        let exports: Vec<String> = item.exports.values().map(|item| format!("[`{0}`](#{0})", name(item))).collect();
        let first = item.docs.contents.as_deref().unwrap().split("\n\n").next().unwrap().replace('\n', " ");
        writeln!(out, "| `{world}` | {first} | {} |", exports.join(", ")).unwrap();
        imports.insert(item.imports.values().map(name).collect::<BTreeSet<_>>());
    }
    assert_eq!(imports.len(), 1, "all worlds import the same");
    let imports: Vec<String> = imports.first().unwrap().iter().map(|name| format!("[`{name}`](#{name})")).collect();
    let line = format!("Each may import {}, and need not.", imports.join(", "));
    writeln!(out, "\n{}\n", wrapped(&line, "")).unwrap();
    for id in resolve.packages[package].worlds.values() {
        let docs = docs(&resolve.worlds[*id].docs);
        if let Some((_, rest)) = docs.split_once("\n\n") {
            writeln!(out, "{rest}\n").unwrap();
        }
    }
    out
}

/// The examples by name, without what they are indented by.
fn examples() -> BTreeMap<String, String> {
    let mut examples = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("filters/examples/src")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut open: Option<(String, usize, String)> = None;
        for line in text.lines() {
            let trimmed = line.trim_start();
            if let Some(name) = trimmed.strip_prefix("// example: ") {
                assert!(open.is_none(), "{}: {name} begins in another example", path.display());
                open = Some((name.to_owned(), line.len() - trimmed.len(), String::new()));
            } else if trimmed == "// end" {
                let (name, _, text) = open.take().unwrap_or_else(|| panic!("{}: an end too many", path.display()));
                assert!(examples.insert(name.clone(), text).is_none(), "{name} is there twice");
            } else if let Some((_, indent, text)) = &mut open {
                writeln!(text, "{}", line.get(*indent..).unwrap_or_default()).unwrap();
            }
        }
        assert!(open.is_none(), "{}: an example has no end", path.display());
    }
    examples
}

/// A row of the table of limits.
struct Limit {
    key: String,
    default: String,
    /// Which interfaces it is about; none if it is about all of them.
    interfaces: Vec<String>,
}

/// `| KEY | DEFAULT | OF WHAT | WHAT THEN | INTERFACES |`, as the part by hand has it.
fn limits(by_hand: &str) -> Vec<Limit> {
    let begin = by_hand.find("| limit |").expect("a table of limits");
    let rows = by_hand[begin..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = cells.last().unwrap().split(", ").filter(|name| *name != "all");
        let bare = |text: &str| text.trim_matches('`').to_owned();
        Limit { key: bare(cells[0]), default: bare(cells[1]), interfaces: names.map(bare).collect() }
    };
    rows.map(row).collect()
}

#[test]
fn the_page_of_the_interface_is_what_the_interface_and_the_examples_say() {
    let (resolve, package) = interface();
    let path = root().join("wit/README.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (by_hand, _) = page.split_once(BEGIN).expect("the line below which everything is made");
    let (limits, examples) = (limits(by_hand), examples());

    let mut made = format!("{by_hand}{BEGIN}\n{}", worlds(&resolve, package));
    let interfaces = &resolve.packages[package].interfaces;
    let names: BTreeSet<&str> = interfaces.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(ORDER), "write down in ORDER where a new interface comes");
    for name in ORDER {
        made.push_str(&Section { resolve: &resolve, id: interfaces[name], name, examples: &examples }.text(&limits));
    }
    let made = made.trim_end().to_owned() + "\n";

    let functions = interfaces.iter().flat_map(|(name, id)| {
        let functions = resolve.interfaces[*id].functions.values();
        functions.map(|function| full_name(&resolve, name, function))
    });
    assert_eq!(functions.collect::<BTreeSet<_>>(), examples.into_keys().collect(), "an example of nothing");

    if std::env::var_os("HEPGATE_WRITE_BINDINGS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == made,
        "{} is not that: see the top of this test",
        path.display()
    );
}

#[test]
fn the_limits_of_the_page_are_those_of_the_configuration_with_their_defaults() {
    let page = std::fs::read_to_string(root().join("wit/README.md")).unwrap();
    let config = std::fs::read_to_string(root().join("config/hepgate.toml")).unwrap();
    let (_, section) = config.split_once("[filter.limits]\n").unwrap();
    let (section, _) = section.split_once("\n[").unwrap();
    let keys = section.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" = "));
    let keys: BTreeSet<_> = keys.map(|(key, default)| (key.to_owned(), default.trim_matches('"').to_owned())).collect();
    let (resolve, package) = interface();
    let limits = limits(&page);
    for name in limits.iter().flat_map(|limit| &limit.interfaces) {
        assert!(resolve.packages[package].interfaces.contains_key(name), "{name} is no interface");
    }
    assert_eq!(limits.into_iter().map(|limit| (limit.key, limit.default)).collect::<BTreeSet<_>>(), keys);
}

/// The page says that the kit's view of a packet has all of them.
#[test]
fn the_kit_has_every_function_of_a_batch_that_is_about_one_packet() {
    let kit = std::fs::read_to_string(root().join("filters/bindings/kit/src/view.rs")).unwrap();
    let (resolve, package) = interface();
    let packets = &resolve.interfaces[resolve.packages[package].interfaces["packets"]];
    for function in packets.functions.values().filter(|function| function.params.iter().any(|p| p.name == "index")) {
        let name = match function.item_name() {
            // What is called `payload` there costs nothing.
            "payload" => "read_payload".to_owned(),
            name => name.replace('-', "_"),
        };
        assert!(kit.contains(&format!("pub fn {name}(&self")), "the kit lacks {name}");
    }
}
