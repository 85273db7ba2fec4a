//! What cargo knows about the workspace, as JSON.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// `cargo metadata`; `deps`: with everything that is depended on, not the workspace alone.
pub(crate) fn read(top: &Path, deps: bool) -> Result<Value, String> {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo
        .current_dir(top)
        .args(["metadata", "--format-version", "1"]);
    if deps {
        // What is compiled for other systems is not linked here.
        cargo.args(["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    } else {
        cargo.arg("--no-deps");
    }
    let output = cargo
        .output()
        .map_err(|e| format!("start cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("read cargo metadata: {e}"))
}

/// The packages in it.
pub(crate) fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

/// A member of an object as text; empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
