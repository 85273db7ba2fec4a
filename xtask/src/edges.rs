//! Which crate may use which: the direction of the whole, and the quarantine of heavy dependencies.
//!
//! An edge that is not in these tables does not exist. Adding one is a decision: say why in the commit, and
//! change section 4 of the map of the code.

use serde_json::Value;

use crate::finding::Finding;
use crate::metadata::{packages, text};

/// Each of our crates, and those of ours that it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("chunk", &["core"]),
    ("fs", &["core"]),
    ("vfs", &[]),
    ("store", &["core", "vfs"]),
    ("replica", &["core", "chunk"]),
    ("local", &["replica", "fs", "store", "chunk", "core"]),
    ("hub", &["replica", "fs", "store", "chunk", "core"]),
    // Of the file system it needs the key file, the clock and randomness.
    ("wire", &["fs", "core"]),
    ("remote", &["replica", "store", "chunk", "core", "wire"]),
    ("engine", &["replica", "chunk", "core"]),
    (
        "cli",
        &[
            "engine", "local", "hub", "remote", "wire", "replica", "fs", "store", "chunk", "core",
        ],
    ),
    ("testkit", &[]),
    (
        "sim",
        &[
            "engine", "local", "replica", "fs", "store", "chunk", "core", "testkit",
        ],
    ),
    // Its own code uses the testkit, and of the rest what it takes to ask one local replica for one operation at a time,
    // which is what a race needs; otherwise the rest is for the program that it builds for trials.
    (
        "trials",
        &[
            "testkit", "engine", "local", "hub", "remote", "wire", "replica", "fs", "store",
            "chunk", "core",
        ],
    ),
    // Every reader of bytes and text, wherever it is.
    (
        "fuzz",
        &[
            "core", "chunk", "fs", "store", "replica", "local", "engine", "cli", "wire",
        ],
    ),
    ("xtask", &[]),
];

/// What any crate may use for its tests beyond its edges.
const FOR_TESTS: &[&str] = &["testkit"];

/// What one crate's tests may use in addition: the engine is tried on a real disk where that disk is known.
const FOR_TESTS_OF: &[(&str, &str)] =
    &[("local", "engine"), ("hub", "engine"), ("remote", "engine")];

/// Dependencies that are not ours and stay where they are: the only crates that may use them.
const QUARANTINE: &[(&str, &[&str])] = &[
    // In the front end for who is at the other end of a socket; its file system calls are banned there. In the trials
    // for mounts.
    ("rustix", &["fs", "cli", "trials"]),
    ("rusqlite", &["store", "vfs"]),
    // Everything asynchronous, encrypted or made from a schema.
    ("tokio", &["wire"]),
    ("tokio-rustls", &["wire"]),
    ("tokio-stream", &["wire"]),
    ("tonic", &["wire"]),
    ("hyper", &["wire"]),
    ("hyper-util", &["wire"]),
    ("http", &["wire"]),
    ("prost", &["wire"]),
    ("prost-build", &["wire"]),
    ("protox", &["wire"]),
    ("rustls", &["wire"]),
    ("aws-lc-rs", &["wire"]),
    ("rcgen", &["wire"]),
    ("spake2", &["wire"]),
    // For the few calls that rustix does not have.
    ("libc", &["fs"]),
    ("clap", &["cli", "sim", "trials"]),
    ("indicatif", &["cli", "trials"]),
    ("jiff", &["cli", "trials"]),
    ("signal-hook", &["cli", "trials"]),
    ("toml", &["cli", "trials", "xtask"]),
];

/// Checks every member of the workspace.
pub(crate) fn check(metadata: &Value) -> Vec<Finding> {
    packages(metadata).flat_map(check_package).collect()
}

fn check_package(package: &Value) -> Vec<Finding> {
    let name = short(text(package, "name"));
    let manifest = text(package, "manifest_path");
    let file = manifest
        .rfind("/crates/")
        .map_or("xtask/Cargo.toml", |at| &manifest[at + 1..]);
    let Some((_, allowed)) = EDGES.iter().find(|(of, _)| *of == name) else {
        let text = format!("`{name}` is not in the table of edges: decide what it may use");
        return vec![Finding::new(file, 0, text)];
    };
    let mut found = Vec::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let to = text(dependency, "name");
        let for_tests = text(dependency, "kind") == "dev";
        let ours = dependency["path"].is_string();
        let quarantined = QUARANTINE.iter().find(|(what, _)| *what == to);
        if ours {
            let to = short(to);
            // A crate's tests may use the crate itself with other features.
            let itself = for_tests && (to == name || FOR_TESTS_OF.contains(&(name, to)));
            let may = itself || allowed.contains(&to) || (for_tests && FOR_TESTS.contains(&to));
            if !may {
                found.push(Finding::new(
                    file,
                    0,
                    format!("`{name}` may not use `{to}`"),
                ));
            }
        } else if let Some((_, homes)) = quarantined
            && !homes.contains(&name)
            && !for_tests
        {
            let text = format!("`{to}` may be used by {homes:?} alone, not by `{name}`");
            found.push(Finding::new(file, 0, text));
        }
    }
    found
}

fn short(name: &str) -> &str {
    name.strip_prefix("instep-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependency: Value) -> Vec<Finding> {
        let manifest = format!("/x/crates/{name}/Cargo.toml");
        let package = json!({
            "name": format!("instep-{name}"), "manifest_path": manifest, "dependencies": [dependency],
        });
        check(&json!({ "packages": [package] }))
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found() {
        let on_core = json!({ "name": "instep-core", "kind": null, "path": "/x/crates/core" });
        assert!(package("chunk", on_core.clone()).is_empty());
        let on_local = json!({ "name": "instep-local", "kind": null, "path": "/x/crates/local" });
        let found = package("engine", on_local);
        assert_eq!(found[0].text, "`engine` may not use `local`");
        assert_eq!(found[0].file, "crates/engine/Cargo.toml");
        assert_eq!(package("newcomer", on_core).len(), 1);
    }

    #[test]
    fn tests_may_use_the_testkit_and_programs_may_not() {
        let dev = json!({ "name": "instep-testkit", "kind": "dev", "path": "/x/crates/testkit" });
        assert!(package("local", dev).is_empty());
        let normal = json!({ "name": "instep-testkit", "kind": null, "path": "/x/crates/testkit" });
        assert_eq!(package("local", normal).len(), 1);
    }

    #[test]
    fn the_database_stays_in_the_store() {
        let sqlite = json!({ "name": "rusqlite", "kind": null });
        assert!(package("store", sqlite.clone()).is_empty());
        assert_eq!(package("local", sqlite).len(), 1);
    }
}
