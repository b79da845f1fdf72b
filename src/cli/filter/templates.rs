//! What `hepgate filter new` writes: the folders of `filters/languages`, as they are built in. A test holds the lists.

/// Path in the new folder, and content.
pub(super) type File = (&'static str, &'static [u8]);

macro_rules! files {
    ($folder:literal: $($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../filters/", $folder, "/", $path)))),*]
    };
}

/// For every language: packets to test with, and what the filter does with them.
pub(super) const SHARED: &[File] = files!("languages":
    "capture.pcap",
    "expected.json",
);

pub(super) const RUST: &[File] = files!("languages/rust":
    ".cargo/config.toml",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "rustfmt.toml",
    "src/lib.rs",
);

pub(super) const C: &[File] = files!("languages/c":
    ".gitignore",
    "README.md",
    "bindings/filter.c",
    "bindings/filter.h",
    "filter.c",
);

pub(super) const GO: &[File] = files!("languages/go":
    ".gitignore",
    "README.md",
    "bindings/export_hep_filter_callbacks/callbacks.go",
    "bindings/hep_filter_callbacks/empty.s",
    "bindings/hep_filter_callbacks/wit_bindings.go",
    "bindings/hep_filter_clock/empty.s",
    "bindings/hep_filter_clock/wit_bindings.go",
    "bindings/hep_filter_config/empty.s",
    "bindings/hep_filter_config/wit_bindings.go",
    "bindings/hep_filter_log/empty.s",
    "bindings/hep_filter_log/wit_bindings.go",
    "bindings/hep_filter_metrics/empty.s",
    "bindings/hep_filter_metrics/wit_bindings.go",
    "bindings/hep_filter_packets/empty.s",
    "bindings/hep_filter_packets/wit_bindings.go",
    "bindings/hep_filter_packing/empty.s",
    "bindings/hep_filter_packing/wit_bindings.go",
    "bindings/hep_filter_sending/empty.s",
    "bindings/hep_filter_sending/wit_bindings.go",
    "bindings/hep_filter_state/empty.s",
    "bindings/hep_filter_state/wit_bindings.go",
    "bindings/hep_filter_subscription/empty.s",
    "bindings/hep_filter_subscription/wit_bindings.go",
    "bindings/hep_filter_types/empty.s",
    "bindings/hep_filter_types/wit_bindings.go",
    "bindings/pkg/LICENSE",
    "bindings/pkg/go.mod",
    "bindings/pkg/wit/runtime/empty.s",
    "bindings/pkg/wit/runtime/runtime.go",
    "bindings/pkg/wit/types/option.go",
    "bindings/pkg/wit/types/result.go",
    "bindings/pkg/wit/types/tuple.go",
    "bindings/pkg/wit/types/unit.go",
    "bindings/wit_exports/wit_exports.go",
    "filter.go",
    "go.mod",
    "main.go",
);

pub(super) const JAVASCRIPT: &[File] = files!("languages/javascript":
    ".gitignore",
    "README.md",
    "bindings/hep-filter.d.ts",
    "filter.js",
    "package.json",
);

pub(super) const TYPESCRIPT: &[File] = files!("languages/typescript":
    ".gitignore",
    "README.md",
    "bindings/hep-filter.d.ts",
    "filter.ts",
    "package.json",
    "tsconfig.json",
);

pub(super) const PYTHON: &[File] = files!("languages/python":
    ".gitignore",
    "README.md",
    "bindings/componentize_py_types.py",
    "bindings/wit_world/__init__.py",
    "bindings/wit_world/exports/__init__.py",
    "bindings/wit_world/exports/callbacks.py",
    "bindings/wit_world/exports/last_call.py",
    "bindings/wit_world/exports/ticker.py",
    "bindings/wit_world/imports/__init__.py",
    "bindings/wit_world/imports/clock.py",
    "bindings/wit_world/imports/config.py",
    "bindings/wit_world/imports/log.py",
    "bindings/wit_world/imports/metrics.py",
    "bindings/wit_world/imports/packets.py",
    "bindings/wit_world/imports/packing.py",
    "bindings/wit_world/imports/sending.py",
    "bindings/wit_world/imports/state.py",
    "bindings/wit_world/imports/subscription.py",
    "bindings/wit_world/imports/types.py",
    "filter.py",
    "requirements.txt",
);

/// The crates that a filter in Rust depends on.
pub(super) const RUST_BINDINGS: &[File] = files!("bindings":
    "filter/Cargo.toml",
    "filter/src/config.rs",
    "filter/src/generated.rs",
    "filter/src/lib.rs",
    "kit/Cargo.toml",
    "kit/src/lib.rs",
    "kit/src/recent.rs",
    "kit/src/sip.rs",
    "kit/src/view.rs",
    "last-call/Cargo.toml",
    "last-call/src/generated.rs",
    "last-call/src/lib.rs",
    "ticker/Cargo.toml",
    "ticker/src/generated.rs",
    "ticker/src/lib.rs",
);
