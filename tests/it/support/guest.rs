//! Filters in a few lines of text, as files.

use std::path::{Path, PathBuf};

pub(crate) use hepgate::guest::Guest;

/// The component of a guest.
pub(crate) fn component(guest: Guest<'_>) -> Vec<u8> {
    hepgate::guest::component(guest).unwrap_or_else(|error| panic!("{error}\n{guest:?}"))
}

/// Writes a guest's component into a folder.
pub(crate) fn write(folder: &Path, name: &str, guest: Guest<'_>) -> PathBuf {
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, component(guest)).unwrap();
    path
}
