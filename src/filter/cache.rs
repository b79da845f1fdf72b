//! Compiled components, kept on disk so that a filter is compiled once. The only file with `unsafe` in it.
//!
//! A kept file is native code that will be run, so what makes it ours is checked each time:
//! 1. its folder belongs to us and nobody else can write to it;
//! 2. its name is made of the component's sha256 and of everything in the engine that compiled code depends on;
//! 3. its content begins with the sha256 of the rest, so a torn or rotten file is not run.
//!
//! A file that fails any of these is compiled anew. The octets that were checked are the octets that are used: they
//! are read once, not mapped.
#![allow(unsafe_code)]

use std::fs::{DirBuilder, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Octets of the digest that a kept file begins with.
const DIGEST_OCTETS: usize = 32;

/// The compiled component: the kept one or, if there is none that can be trusted, a new one, which is then kept.
///
/// A folder that cannot be used costs the time to compile and nothing else.
pub(super) fn compiled(
    engine: &Engine,
    wasm: &[u8],
    sha256: &[u8; 32],
    folder: Option<&Path>,
) -> wasmtime::Result<Component> {
    let Some(folder) = folder else { return Component::from_binary(engine, wasm) };
    let path = folder.join(file_name(engine, sha256));
    if let Some(component) = read(engine, folder, &path) {
        return Ok(component);
    }
    let component = Component::from_binary(engine, wasm)?;
    if let Err(error) = component.serialize().and_then(|code| Ok(write(folder, &path, &code)?)) {
        tracing::warn!(folder = %folder.display(), error = %format!("{error:#}"), "a compiled component cannot be kept");
    }
    Ok(component)
}

/// `SHA256-ENGINE.cwasm`.
fn file_name(engine: &Engine, sha256: &[u8; 32]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{}-{:016x}.cwasm", super::component::hex(sha256), hasher.finish()).into()
}

fn read(engine: &Engine, folder: &Path, path: &Path) -> Option<Component> {
    if !is_ours_alone(folder) {
        return None;
    }
    let content = std::fs::read(path).ok()?;
    let code = intact(&content)?;
    // SAFETY: `code` must be what `serialize` of a component of a compatible engine gave. `write` is all that makes
    // files of this name, with that content; the name carries the engine's compatibility hash, the digest was just
    // compared, and only our own user can write to the folder. wasmtime itself refuses another version's code.
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(|error| tracing::warn!(file = %path.display(), error = %format!("{error:#}"), "a kept component cannot be used")).ok()
}

/// The code in a kept file, if its digest is right.
fn intact(content: &[u8]) -> Option<&[u8]> {
    let (digest, code) = content.split_first_chunk::<DIGEST_OCTETS>()?;
    (Sha256::digest(code).as_slice() == digest).then_some(code)
}

fn is_ours_alone(folder: &Path) -> bool {
    std::fs::symlink_metadata(folder).is_ok_and(|metadata| {
        metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0
    })
}

/// Writes beside and renames, so that a reader finds the whole file or none.
fn write(folder: &Path, path: &Path, code: &[u8]) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if !is_ours_alone(folder) {
        return Err(std::io::Error::other("others can write to the folder, so nothing is kept there"));
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::File::create(&beside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component() -> (Engine, Vec<u8>, [u8; 32]) {
        let wasm = wat::parse_str("(component)").unwrap();
        let sha256 = Sha256::digest(&wasm).into();
        (Engine::default(), wasm, sha256)
    }

    #[test]
    fn a_component_is_compiled_once_and_then_read() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("cache");
        let (engine, wasm, sha256) = component();
        let path = kept.join(file_name(&engine, &sha256));
        assert!(read(&engine, &kept, &path).is_none());
        compiled(&engine, &wasm, &sha256, Some(&kept)).unwrap();
        assert!(read(&engine, &kept, &path).is_some());
        assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_kept_file_with_any_octet_changed_or_missing_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("cache");
        let (engine, wasm, sha256) = component();
        compiled(&engine, &wasm, &sha256, Some(&kept)).unwrap();
        let path = kept.join(file_name(&engine, &sha256));
        let content = std::fs::read(&path).unwrap();
        for (index, _) in content.iter().enumerate().step_by(97) {
            let mut rotten = content.clone();
            rotten[index] ^= 1;
            assert!(intact(&rotten).is_none(), "octet {index}");
            assert!(intact(&content[..index]).is_none(), "cut at {index}");
        }
        std::fs::write(&path, b"not a component").unwrap();
        assert!(read(&engine, &kept, &path).is_none());
        // It is compiled anew, and kept anew.
        compiled(&engine, &wasm, &sha256, Some(&kept)).unwrap();
        assert!(read(&engine, &kept, &path).is_some());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("cache");
        let (engine, wasm, sha256) = component();
        compiled(&engine, &wasm, &sha256, Some(&kept)).unwrap();
        let path = kept.join(file_name(&engine, &sha256));
        std::fs::set_permissions(&kept, Permissions::from_mode(0o777)).unwrap();
        assert!(read(&engine, &kept, &path).is_none());
        assert!(write(&kept, &path, b"code").is_err());
    }
}
