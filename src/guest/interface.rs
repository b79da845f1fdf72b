//! The files of `wit/`, as they are built in.

/// Names and texts of the files, sorted by name.
pub const INTERFACE: [(&str, &str); 14] = [
    ("callbacks.wit", include_str!("../../wit/callbacks.wit")),
    ("clock.wit", include_str!("../../wit/clock.wit")),
    ("config.wit", include_str!("../../wit/config.wit")),
    ("last-call.wit", include_str!("../../wit/last-call.wit")),
    ("log.wit", include_str!("../../wit/log.wit")),
    ("metrics.wit", include_str!("../../wit/metrics.wit")),
    ("packets.wit", include_str!("../../wit/packets.wit")),
    ("packing.wit", include_str!("../../wit/packing.wit")),
    ("sending.wit", include_str!("../../wit/sending.wit")),
    ("state.wit", include_str!("../../wit/state.wit")),
    ("subscription.wit", include_str!("../../wit/subscription.wit")),
    ("ticker.wit", include_str!("../../wit/ticker.wit")),
    ("types.wit", include_str!("../../wit/types.wit")),
    ("world.wit", include_str!("../../wit/world.wit")),
];

const PACKAGE: &str = "package hep:filter@0.1.0;";

/// The interface as one text.
pub(super) fn interface() -> String {
    let parts = INTERFACE.iter().map(|(_, text)| text.replacen(PACKAGE, "", 1));
    std::iter::once(PACKAGE.to_owned()).chain(parts).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_interface_is_in_it() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("wit");
        let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        // The page about them is not part of them.
        let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "wit"));
        let mut files: Vec<_> = files.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect();
        files.sort();
        assert!(files == INTERFACE.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
