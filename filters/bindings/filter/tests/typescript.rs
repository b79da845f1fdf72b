//! What is checked in as declarations for JavaScript and TypeScript is what `wit/` says, in the types that
//! componentize-qjs hands over: `none` is null, and numbers of 64 bits are numbers. (What jco generates says undefined
//! and bigint, which fit other guests.)
//!
//! After a change of `wit/`: `filters/languages/check-bindings --write`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use wit_bindgen_core::wit_parser::{
    Docs, Function, FunctionKind, Handle, Interface, InterfaceId, Resolve, Type, TypeDefKind, TypeId, TypeOwner,
    WorldItem,
};

const HEAD: &str = "\
// What a filter exports and may import, as wit/ of the gateway says it. Made by its test `typescript`: do not edit it.
//
// A list<u8> is a Uint8Array; where you give one, an array of numbers will do. What is none is null. What the WIT says
// of an error is the `payload` of the Error that is thrown.
//
// A u32 of 2^31 and more comes negative, and must be given so: read it as `x >>> 0`, give it as `x | 0`. Numbers of 64
// bits are signed, and rounded above 2^53: halves of IPv6 addresses are not exact. There is no bigint.
";

/// No line is longer, if it can be helped.
const WIDTH: usize = 120;

fn upper_camel(name: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(word).collect()
}

fn lower_camel(name: &str) -> String {
    let name = upper_camel(name);
    name[..1].to_lowercase() + &name[1..]
}

/// The lines of a text, each of at most so many letters; as they are, if they fit.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    if text.lines().all(|line| line.len() <= width) {
        return text.lines().map(str::to_owned).collect();
    }
    let mut lines = Vec::new();
    for paragraph in text.split("\n\n") {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// A comment: what is said, and what is thrown.
fn comment(out: &mut String, indent: &str, docs: &Docs, throws: Option<String>) {
    let text = docs.contents.as_deref().unwrap_or_default().trim_end().replace("*/", "* /");
    let mut lines = wrapped(&text, WIDTH - indent.len() - " * ".len());
    lines.extend(throws.map(|error| match error.as_str() {
        "string" => "@throws {Error} with a text for the operator".to_owned(),
        error => format!("@throws {{Error & {{ payload: {error} }}}}"),
    }));
    match lines.as_slice() {
        [] => {}
        [line] if line.len() + indent.len() + "/**  */".len() <= WIDTH => {
            writeln!(out, "{indent}/** {line} */").unwrap();
        }
        lines => {
            writeln!(out, "{indent}/**").unwrap();
            for line in lines {
                writeln!(out, "{}", format!("{indent} * {line}").trim_end()).unwrap();
            }
            writeln!(out, "{indent} */").unwrap();
        }
    }
}

/// One interface on its way to a module.
struct Module<'a> {
    resolve: &'a Resolve,
    id: InterfaceId,
    exported: bool,
}

impl Module<'_> {
    fn interface(&self) -> &Interface {
        &self.resolve.interfaces[self.id]
    }

    fn name(&self, id: InterfaceId) -> String {
        let interface = &self.resolve.interfaces[id];
        let package = &self.resolve.packages[interface.package.unwrap()].name;
        format!("{}:{}/{}", package.namespace, package.name, interface.name.as_deref().unwrap())
    }

    fn ty(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "boolean".into(),
            Type::String | Type::Char => "string".into(),
            Type::Id(id) => self.named(*id),
            Type::ErrorContext => panic!("no type of these bindings"),
            _ => "number".into(),
        }
    }

    fn named(&self, id: TypeId) -> String {
        let def = &self.resolve.types[id];
        def.name.as_deref().map_or_else(|| self.kind(&def.kind), upper_camel)
    }

    fn kind(&self, kind: &TypeDefKind) -> String {
        match kind {
            TypeDefKind::Type(ty) => self.ty(ty),
            TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => self.named(*id),
            TypeDefKind::Option(ty) => format!("{} | null", self.ty(ty)),
            TypeDefKind::List(Type::U8) => "Uint8Array".into(),
            TypeDefKind::List(ty) => format!("{}[]", self.ty(ty)),
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<_> = tuple.types.iter().map(|ty| self.ty(ty)).collect();
                format!("[{}]", types.join(", "))
            }
            kind => panic!("no type of these bindings: {}", kind.as_str()),
        }
    }

    /// What a function gives, and what it throws.
    fn result(&self, result: Option<&Type>) -> (String, Option<String>) {
        if let Some(Type::Id(id)) = result
            && let TypeDefKind::Result(result) = &self.resolve.types[*id].kind
        {
            let ok = result.ok.as_ref().map_or_else(|| "void".to_owned(), |ty| self.ty(ty));
            return (ok, result.err.as_ref().map(|ty| self.ty(ty)));
        }
        (result.map_or_else(|| "void".to_owned(), |ty| self.ty(ty)), None)
    }

    fn function(&self, out: &mut String, indent: &str, before: &str, function: &Function) {
        let method = matches!(function.kind, FunctionKind::Method(_));
        let params = function.params.iter().skip(usize::from(method)).map(|param| {
            let ty = match &param.ty {
                // It takes both.
                Type::Id(id) if matches!(self.resolve.types[*id].kind, TypeDefKind::List(Type::U8)) => {
                    "Uint8Array | number[]".to_owned()
                }
                ty => self.ty(ty),
            };
            format!("{}: {ty}", lower_camel(&param.name))
        });
        let params: Vec<_> = params.collect();
        let (result, error) = self.result(function.result.as_ref());
        comment(out, indent, &function.docs, error);
        let name = lower_camel(function.item_name());
        let line = format!("{indent}{before}{name}({}): {result};", params.join(", "));
        if line.len() <= WIDTH {
            writeln!(out, "{line}").unwrap();
        } else {
            let params: String = params.iter().map(|param| format!("{indent}  {param},\n")).collect();
            writeln!(out, "{indent}{before}{name}(\n{params}{indent}): {result};").unwrap();
        }
    }

    fn definition(&self, out: &mut String, name: &str, id: TypeId) {
        let def = &self.resolve.types[id];
        let (indent, name) = ("  ", upper_camel(name));
        comment(out, indent, &def.docs, None);
        match &def.kind {
            TypeDefKind::Record(record) => {
                writeln!(out, "{indent}export interface {name} {{").unwrap();
                for field in &record.fields {
                    comment(out, "    ", &field.docs, None);
                    writeln!(out, "    {}: {};", lower_camel(&field.name), self.ty(&field.ty)).unwrap();
                }
                writeln!(out, "{indent}}}").unwrap();
            }
            TypeDefKind::Enum(cases) => {
                writeln!(out, "{indent}export type {name} =").unwrap();
                for (i, case) in cases.cases.iter().enumerate() {
                    comment(out, "    ", &case.docs, None);
                    let end = if i + 1 == cases.cases.len() { ";" } else { "" };
                    writeln!(out, "    | \"{}\"{end}", case.name).unwrap();
                }
            }
            TypeDefKind::Variant(variant) => {
                writeln!(out, "{indent}export type {name} =").unwrap();
                for (i, case) in variant.cases.iter().enumerate() {
                    comment(out, "    ", &case.docs, None);
                    let end = if i + 1 == variant.cases.len() { ";" } else { "" };
                    let value = case.ty.as_ref().map(|ty| format!("; val: {}", self.ty(ty))).unwrap_or_default();
                    writeln!(out, "    | {{ tag: \"{}\"{value} }}{end}", case.name).unwrap();
                }
            }
            TypeDefKind::Resource => self.resource(out, indent, &name, id),
            kind => panic!("no type of these bindings: {}", kind.as_str()),
        }
    }

    fn resource(&self, out: &mut String, indent: &str, name: &str, id: TypeId) {
        let of_it: Vec<_> = self.interface().functions.values().filter(|f| f.kind.resource() == Some(id)).collect();
        let is_static = |f: &&Function| matches!(f.kind, FunctionKind::Static(_));
        writeln!(out, "{indent}export class {name} {{").unwrap();
        writeln!(out, "    private constructor();").unwrap();
        for function in &of_it {
            let before = if is_static(function) { "static " } else { "" };
            self.function(out, "    ", before, function);
        }
        // Only what can be made here can be dropped here.
        if of_it.iter().any(is_static) {
            writeln!(out, "    /** Drops it; otherwise it lives until it is collected. */").unwrap();
            writeln!(out, "    [Symbol.dispose](): void;").unwrap();
        }
        writeln!(out, "{indent}}}").unwrap();
    }

    fn text(&self) -> String {
        let mut out = String::new();
        comment(&mut out, "", &self.interface().docs, None);
        writeln!(out, "declare module \"{}\" {{", self.name(self.id)).unwrap();

        let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut parts = Vec::new();
        for (name, id) in &self.interface().types {
            if let TypeDefKind::Type(Type::Id(used)) = self.resolve.types[*id].kind
                && let TypeOwner::Interface(from) = self.resolve.types[used].owner
                && from != self.id
            {
                uses.entry(self.name(from)).or_default().push(upper_camel(name));
            } else {
                let mut part = String::new();
                self.definition(&mut part, name, *id);
                parts.push(part);
            }
        }
        if !uses.is_empty() {
            let line = |(from, names): (&String, &Vec<String>)| {
                format!("  import type {{ {} }} from \"{from}\";\n", names.join(", "))
            };
            parts.insert(0, uses.iter().map(line).collect());
        }

        let functions = self.interface().functions.values().filter(|f| f.kind.resource().is_none());
        if self.exported {
            let name = lower_camel(self.interface().name.as_deref().unwrap());
            let mut part = format!("  /** What `export const {name}` is. */\n");
            writeln!(part, "  export interface {} {{", upper_camel(&name)).unwrap();
            functions.for_each(|function| self.function(&mut part, "    ", "", function));
            part.push_str("  }\n");
            parts.push(part);
        } else {
            for function in functions {
                let mut part = String::new();
                self.function(&mut part, "  ", "export function ", function);
                parts.push(part);
            }
        }
        out.push_str(&parts.join("\n"));
        out.push_str("}\n");
        out
    }
}

#[test]
fn the_declarations_for_typescript_are_what_the_interface_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root.join("wit")).unwrap();
    let world = &resolve.worlds[resolve.select_world(&[package], Some("full-filter")).unwrap()];

    let mut modules: Vec<String> = vec![HEAD.to_owned()];
    for &id in resolve.packages[package].interfaces.values() {
        let is = |item: &WorldItem| matches!(item, WorldItem::Interface { id: other, .. } if *other == id);
        let exported = world.exports.values().any(is);
        modules.push(Module { resolve: &resolve, id, exported }.text());
    }
    let generated = modules.join("\n");

    // For `filters/languages/check-bindings`, which shows what differs.
    if let Some(folder) = std::env::var_os("HEPGATE_BINDINGS_OUT") {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join("hep-filter.d.ts"), generated).unwrap();
        return;
    }
    for language in ["javascript", "typescript"] {
        let path = root.join("filters/languages").join(language).join("bindings/hep-filter.d.ts");
        let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(checked_in == generated, "{} is not what wit/ says: see the top of this test", path.display());
    }
}
