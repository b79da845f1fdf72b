//! The languages that `hepgate filter new` and `hepgate filter build` know.

use std::path::Path;

use clap::ValueEnum;

/// What a filter is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Language {
    Rust,
    C,
    Go,
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    #[value(name = "ts", alias = "typescript")]
    TypeScript,
    /// Experimental
    Python,
}

impl Language {
    pub(super) const ALL: [Self; 6] = [Self::Rust, Self::C, Self::Go, Self::JavaScript, Self::TypeScript, Self::Python];

    /// The file by which a folder is known. TypeScript and JavaScript both have a package.json.
    pub(super) const fn mark(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::C => "filter.c",
            Self::Go => "go.mod",
            Self::JavaScript => "filter.js",
            Self::TypeScript => "filter.ts",
            Self::Python => "filter.py",
        }
    }

    /// What the filter in a folder is written in.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        Self::ALL.into_iter().find(|language| folder.join(language.mark()).is_file())
    }
}
