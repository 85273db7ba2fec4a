//! Where instep keeps things outside the folders: the XDG directories.
//!
//! Names only; nothing here creates anything.

use std::path::PathBuf;

/// The user's configuration file: `$XDG_CONFIG_HOME/instep/config.toml`.
pub(crate) fn config_file() -> PathBuf {
    config_dir().join("config.toml")
}

/// Where the key of this device is, and what it knows of hubs: `$XDG_CONFIG_HOME/instep`.
pub(crate) fn config_dir() -> PathBuf {
    base("XDG_CONFIG_HOME", ".config").join("instep")
}

/// Where a hub keeps everything unless it is told otherwise: `$XDG_DATA_HOME/instep/hub`.
pub(crate) fn hub_dir() -> PathBuf {
    base("XDG_DATA_HOME", ".local/share").join("instep/hub")
}

/// The user's state directory: `$XDG_STATE_HOME/instep`.
pub(crate) fn state_dir() -> PathBuf {
    base("XDG_STATE_HOME", ".local/state").join("instep")
}

/// Where sockets are: `$XDG_RUNTIME_DIR/instep`, or `/tmp/instep-UID` where that directory is not there (in a
/// container, under `su`).
pub(crate) fn runtime_dir() -> PathBuf {
    absolute("XDG_RUNTIME_DIR")
        .filter(|dir| dir.is_dir())
        .map_or_else(
            || {
                PathBuf::from(format!(
                    "/tmp/instep-{}",
                    rustix::process::geteuid().as_raw()
                ))
            },
            |dir| dir.join("instep"),
        )
}

/// The specification asks to disregard relative paths.
fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
}

fn base(variable: &str, below_home: &str) -> PathBuf {
    absolute(variable).unwrap_or_else(|| {
        absolute("HOME")
            .unwrap_or_else(|| PathBuf::from("/"))
            .join(below_home)
    })
}
