//! Manifests: every dependency has a sentence, and every crate inherits what is the same for all.

use crate::finding::Finding;

/// Checks the root manifest: a comment line stands above each dependency that is not ours.
pub(crate) fn check_root(file: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut inside = false;
    let mut before = "";
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        }
        let name = line.split([' ', '=']).next().unwrap_or("");
        let dependency = inside && line.contains('=') && !line.starts_with(['#', '[']);
        let sentence = before.starts_with("# ") && !before.starts_with("# ---");
        let shared = before
            .split([' ', '='])
            .next()
            .is_some_and(|b| name.starts_with(&format!("{b}_")));
        if dependency && !name.starts_with("instep-") && !sentence && !shared {
            let text = format!("`{name}` has no sentence above it that says what it is for");
            found.push(Finding::new(file, at + 1, text));
        }
        before = line;
    }
    found
}

/// Checks a crate's manifest: lints, edition and versions come from the workspace.
pub(crate) fn check_member(file: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    if !text.contains("[lints]\nworkspace = true") {
        found.push(Finding::new(
            file,
            0,
            "does not inherit the lints: `[lints]` `workspace = true`",
        ));
    }
    let mut section = "";
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        }
        let dependency = section.ends_with("dependencies]") && line.contains('=');
        let itself = line.contains("path = \".\"");
        if dependency && !line.starts_with('#') && !line.contains("workspace = true") && !itself {
            let text = "a version of its own: put it in the root manifest, with a sentence";
            found.push(Finding::new(file, at + 1, text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_without_a_sentence_is_found() {
        let head = "[workspace.dependencies]\n# --- ours\ninstep-core = { path = \"x\" }\n";
        let good = format!("{head}# --- data\n# Content ids.\nblake3 = \"1\"\n");
        assert!(check_root("Cargo.toml", &good).is_empty());
        let bad = format!("{head}# --- data\nblake3 = \"1\"\n");
        assert_eq!(check_root("Cargo.toml", &bad)[0].line, 5);
    }

    #[test]
    fn a_family_shares_a_sentence() {
        let text =
            "[workspace.dependencies]\n# JSON.\nserde = \"1\"\nserde_json = \"1\"\nother = \"1\"\n";
        assert_eq!(check_root("Cargo.toml", text).len(), 1);
    }

    #[test]
    fn members_inherit() {
        let good = "[dependencies]\na = { workspace = true }\n\n[lints]\nworkspace = true\n";
        assert!(check_member("x", good).is_empty());
        assert_eq!(check_member("x", "[dependencies]\na = \"1\"\n").len(), 2);
    }
}
