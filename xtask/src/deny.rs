//! Licences, bans and sources of everything that is depended on, as `deny.toml` says.
//!
//! `cargo deny` does this and more, and takes minutes to compile; this reads the same file, needs nothing
//! installed and no network, and knows no advisories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::metadata::{self, packages, text};

/// What `deny.toml` says, as far as it is read here.
struct Rules {
    licences: BTreeSet<String>,
    banned: BTreeMap<String, String>,
    skipped: BTreeSet<String>,
    registries: BTreeSet<String>,
}

/// The command: prints what it finds.
pub(crate) fn command(top: &Path) -> Result<(), String> {
    let file =
        fs::read_to_string(top.join("deny.toml")).map_err(|e| format!("read deny.toml: {e}"))?;
    let found = check(&parse(&file)?, &metadata::read(top, true)?);
    for line in &found {
        println!("{line}");
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(format!("deny: {} findings", found.len()))
    }
}

fn parse(text: &str) -> Result<Rules, String> {
    let file: toml::Table = text.parse().map_err(|e| format!("read deny.toml: {e}"))?;
    let list = |section: &str, key: &str| -> Vec<toml::Value> {
        let value = file
            .get(section)
            .and_then(|s| s.get(key))
            .and_then(|v| v.as_array());
        value.cloned().unwrap_or_default()
    };
    let texts = |section, key| -> BTreeSet<String> {
        list(section, key)
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let field = |value: &toml::Value, key: &str| {
        value
            .get(key)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    Ok(Rules {
        licences: texts("licenses", "allow"),
        banned: list("bans", "deny")
            .iter()
            .map(|v| (field(v, "crate"), field(v, "reason")))
            .collect(),
        skipped: list("bans", "skip")
            .iter()
            .map(|v| field(v, "crate"))
            .collect(),
        registries: texts("sources", "allow-registry"),
    })
}

fn check(rules: &Rules, metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages(metadata) {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        versions
            .entry(name)
            .or_default()
            .insert(text(package, "version"));
        if !allowed(licence, &rules.licences) {
            found.push(format!(
                "{name}: the licence `{licence}` is not in the list of deny.toml"
            ));
        }
        if let Some(reason) = rules.banned.get(name) {
            found.push(format!("{name}: is banned: {reason}"));
        }
        let source = text(package, "source").trim_start_matches("registry+");
        if !source.is_empty() && !rules.registries.contains(source) {
            found.push(format!(
                "{name}: comes from {source}, which is not in the list of deny.toml"
            ));
        }
    }
    for (name, versions) in versions {
        if versions.len() > 1 && !rules.skipped.contains(name) {
            found.push(format!(
                "{name}: is in the tree in several versions: {versions:?}"
            ));
        }
    }
    found
}

/// Whether a licence expression can be satisfied with these: an alternative suffices, a sum needs every part.
fn allowed(expression: &str, licences: &BTreeSet<String>) -> bool {
    let expression = expression.trim();
    if let Some(parts) = split(expression, " OR ").or_else(|| split(expression, "/")) {
        return parts.iter().any(|part| allowed(part, licences));
    }
    if let Some(parts) = split(expression, " AND ") {
        return parts.iter().all(|part| allowed(part, licences));
    }
    match expression
        .strip_prefix('(')
        .and_then(|e| e.strip_suffix(')'))
    {
        Some(inner) => allowed(inner, licences),
        None => licences.contains(expression),
    }
}

/// Splits at a word outside of parentheses; none when it is not there.
fn split<'a>(expression: &'a str, word: &str) -> Option<Vec<&'a str>> {
    let (mut depth, mut parts, mut start) = (0_i32, Vec::new(), 0);
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= start && expression[at..].starts_with(word) => {
                parts.push(&expression[start..at]);
                start = at + word.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    (parts.len() > 1).then_some(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn licence_expressions_are_understood() {
        let list: BTreeSet<String> = ["MIT", "Unicode-3.0"].map(str::to_owned).into();
        assert!(allowed("MIT OR Apache-2.0", &list));
        assert!(allowed("Unlicense/MIT", &list));
        assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &list));
        assert!(!allowed("MIT AND GPL-3.0", &list));
        assert!(!allowed("", &list));
    }

    #[test]
    fn what_is_not_listed_is_found() {
        let rules = parse(
            "[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [{ crate = \"openssl-sys\", reason = \"no\" }]\n\
             [sources]\nallow-registry = [\"https://ok\"]\n",
        )
        .unwrap();
        let package = |name: &str, version: &str, licence: &str, source: &str| json!({ "name": name, "version": version, "license": licence, "source": source });
        let check = |packages: Value| check(&rules, &json!({ "packages": packages }));
        assert!(check(json!([package("a", "1", "MIT", "registry+https://ok")])).is_empty());
        assert_eq!(
            check(json!([package("a", "1", "GPL-3.0", "registry+https://ok")])).len(),
            1
        );
        assert_eq!(
            check(json!([package(
                "openssl-sys",
                "1",
                "MIT",
                "registry+https://ok"
            )]))
            .len(),
            1
        );
        assert_eq!(
            check(json!([package("a", "1", "MIT", "git+https://else")])).len(),
            1
        );
        let two = json!([
            package("a", "1", "MIT", "registry+https://ok"),
            package("a", "2", "MIT", "registry+https://ok"),
        ]);
        assert_eq!(check(two).len(), 1);
    }

    #[test]
    fn the_dependencies_of_today_pass() {
        let top = crate::top();
        let rules = parse(&fs::read_to_string(top.join("deny.toml")).unwrap()).unwrap();
        let found = check(&rules, &metadata::read(&top, true).unwrap());
        assert!(found.is_empty(), "cargo xtask deny:\n{}", found.join("\n"));
    }
}
