//! Recorded output, for tests: what a user sees is compared with a file under `tests/snapshots`.
//!
//! `INSTEP_BLESS=1 cargo test -p instep-cli` records what is printed now.

use std::path::PathBuf;

/// Compares a text with its recording, or records it when asked to.
pub(crate) fn check(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(format!("{name}.txt"));
    let text = text
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
        + "\n";
    if std::env::var_os("INSTEP_BLESS").is_some() {
        let dir = file.parent().expect("the file was joined to a directory");
        std::fs::create_dir_all(dir).expect("create the directory of recordings");
        std::fs::write(&file, text).expect("record");
        return;
    }
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        text, recorded,
        "{name} differs from its recording; INSTEP_BLESS=1 records it anew"
    );
}
