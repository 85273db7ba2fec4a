//! What a machine must have for a test, and which tests may be left out where it has not.
//!
//! Invariant: nothing is left out silently. A test that cannot run is one of the lines of `skips.txt`, which are
//! checked when code is; any other skip fails. Never decides by the name of a system: each need is tried.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To be root in the namespace that the test runs in.
    Root,
    /// Loop devices, and mounting a file system that `mkfs` made in a file.
    Loop,
    /// `/dev/fuse`, and mounting it.
    Fuse,
    /// Mounting an overlay.
    Overlay,
    /// Tracing the system calls of a child with `strace`.
    Strace,
    /// An ssh server that can be started, and a client.
    Sshd,
}

impl Need {
    /// Every need.
    pub const ALL: [Self; 6] = [
        Self::Root,
        Self::Loop,
        Self::Fuse,
        Self::Overlay,
        Self::Strace,
        Self::Sshd,
    ];

    /// As `skips.txt` spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Loop => "loop",
            Self::Fuse => "fuse",
            Self::Overlay => "overlay",
            Self::Strace => "strace",
            Self::Sshd => "sshd",
        }
    }

    /// Whether this machine has it.
    pub fn is_met(self) -> bool {
        match self {
            Self::Root => is_root(),
            Self::Loop => is_root() && runs("losetup", &["--find"]) && may_mount(),
            Self::Fuse => is_root() && opens("/dev/fuse") && may_mount(),
            Self::Overlay => is_root() && lists("/proc/filesystems", "overlay") && may_mount(),
            Self::Strace => runs("strace", &["-f", "-o", "/dev/null", "true"]),
            Self::Sshd => Path::new(SSHD).exists() && runs("ssh", &["-V"]),
        }
    }
}

/// Where the ssh server is; it insists on being started by its whole path.
pub const SSHD: &str = "/usr/sbin/sshd";

/// The list of expected skips.
const SKIPS: &str = include_str!("../skips.txt");

/// Whether the test may run here. `test` is its path as `cargo test` prints it, after the program's name.
///
/// # Panics
/// When something is missing and the test is not one that may be left out for that.
pub fn met(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.word())
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        std::env::var_os("INSTEP_NO_SKIPS").is_none(),
        "{test}: this machine lacks {missing:?}, and nothing may be left out"
    );
    assert!(
        missing.iter().all(|word| may_skip(SKIPS, test, word)),
        "{test}: this machine lacks {missing:?}, and crates/testkit/skips.txt does not expect that"
    );
    note(&format!("left out {test}: this machine lacks {missing:?}"));
    false
}

/// Each line of the list: the test, and what it may lack.
pub fn expected() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    lines(SKIPS)
}

fn lines(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().map(|test| (test, words.collect()))
    })
}

fn may_skip(text: &str, test: &str, word: &str) -> bool {
    lines(text).any(|(name, needs)| name == test && needs.contains(&word))
}

#[expect(
    clippy::print_stderr,
    reason = "whoever reads the tests' output must see what was left out"
)]
fn note(text: &str) {
    eprintln!("{text}");
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:"));
    uid.and_then(|l| l.split_whitespace().nth(1)) == Some("0")
}

fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

fn opens(path: &str) -> bool {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.is_ok()
}

fn lists(path: &str, word: &str) -> bool {
    let text = std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    text.split_whitespace().any(|w| w == word)
}

/// In a mount namespace of its own, so that nothing stays.
fn may_mount() -> bool {
    runs("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_well_formed() {
        for (test, needs) in expected() {
            assert!(test.contains("::"), "{test} names no program");
            assert!(!needs.is_empty(), "{test} lacks nothing");
            for word in needs {
                let known = Need::ALL.iter().any(|n| n.word() == word);
                assert!(known, "{test}: {word} is not a need");
            }
        }
    }

    #[test]
    fn only_a_line_with_that_need_excuses_a_test() {
        let text = "# head\ntrials::power::cut loop root\n";
        assert!(may_skip(text, "trials::power::cut", "loop"));
        assert!(!may_skip(text, "trials::power::cut", "fuse"));
        assert!(!may_skip(text, "trials::power", "loop"));
    }
}
