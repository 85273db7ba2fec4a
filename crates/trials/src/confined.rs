//! Judges what a program asked of the system: whether a call on a tree could have been led out of it.
//!
//! Owns the rules. Invariant: what is not understood is not allowed. Never asks the program what it meant.

use std::collections::BTreeMap;

/// What a trace came to.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Calls that named one component below an open directory and followed nothing, by the name of the call.
    pub confined: BTreeMap<String, u64>,
    /// Calls that the table of exceptions lets through, by its reason.
    pub excused: BTreeMap<&'static str, u64>,
    /// Lines that could have been led elsewhere.
    pub broken: Vec<String>,
}

/// How the names of the database library's files begin.
const INDEX: &str = "index.db";
/// The calls that take the descriptor of a directory with each name.
const AT: [&str; 17] = [
    "openat",
    "openat2",
    "statx",
    "newfstatat",
    "faccessat",
    "faccessat2",
    "unlinkat",
    "mkdirat",
    "mknodat",
    "renameat",
    "renameat2",
    "linkat",
    "symlinkat",
    "readlinkat",
    "fchmodat2",
    "fchownat",
    "utimensat",
];

impl Verdict {
    /// Judges every line of `strace -f -e trace=%file`; roots are absolute, without links in them.
    pub fn of(trace: &str, roots: &[&str]) -> Self {
        let mut verdict = Self::default();
        for line in trace.lines() {
            verdict.judge(line, roots);
        }
        verdict
    }

    /// How many calls were confined.
    pub fn calls(&self) -> u64 {
        self.confined.values().sum()
    }

    fn judge(&mut self, line: &str, roots: &[&str]) {
        let Some((call, args)) = call(line) else {
            return;
        };
        for path in paths(call, args) {
            match judge_path(call, args, &path, roots) {
                Judged::Confined => *self.confined.entry(call.to_owned()).or_default() += 1,
                Judged::Excused(reason) => *self.excused.entry(reason).or_default() += 1,
                Judged::Broken => self.broken.push(line.to_owned()),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Confined,
    Excused(&'static str),
    Broken,
}

/// The name of a call and what follows the parenthesis; none for lines that continue or end something.
fn call(line: &str) -> Option<(&str, &str)> {
    let text = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let (name, args) = text.trim_start().split_once('(')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, args))
}

/// The quoted arguments that are looked up, not those that are content.
fn paths(call: &str, args: &str) -> Vec<String> {
    let mut all = quoted(args);
    match call {
        "getcwd" => all.clear(),
        "symlink" | "symlinkat" => drop(all.drain(..all.len().min(1))),
        _ if call.ends_with("xattr") || call.starts_with("readlink") || call == "execve" => {
            all.truncate(1);
        }
        _ => {}
    }
    all
}

fn quoted(args: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut chars = args.chars();
    while chars.by_ref().any(|c| c == '"') {
        let mut text = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => text.extend(chars.next()),
                c => text.push(c),
            }
        }
        found.push(text);
    }
    found
}

fn judge_path(call: &str, args: &str, path: &str, roots: &[&str]) -> Judged {
    if path.starts_with('/') {
        return absolute(path, roots);
    }
    if path == "UTC" {
        return Judged::Excused("the time zone that the environment names");
    }
    let by_descriptor = AT.contains(&call) && !args.contains("AT_FDCWD");
    if !by_descriptor || path.split('/').any(|part| part == "..") {
        return Judged::Broken;
    }
    let beneath = ["RESOLVE_BENEATH", "RESOLVE_NO_SYMLINKS"];
    if beneath.iter().all(|flag| args.contains(flag)) {
        return Judged::Confined;
    }
    if path.contains('/') || follows(call, args, path) {
        return Judged::Broken;
    }
    Judged::Confined
}

/// Whether the last component may be a link that is followed.
fn follows(call: &str, args: &str, path: &str) -> bool {
    if path.is_empty() || path == "." {
        return false;
    }
    let has = |flag: &str| args.contains(flag);
    match call {
        "openat" | "openat2" => !(has("O_NOFOLLOW") || has("O_EXCL")),
        "linkat" => has("AT_SYMLINK_FOLLOW"),
        // These take a name as it is.
        "renameat" | "renameat2" | "unlinkat" | "mkdirat" | "symlinkat" | "readlinkat"
        | "mknodat" => false,
        _ => !has("AT_SYMLINK_NOFOLLOW"),
    }
}

/// The first file, or one that the library puts beside it.
fn is_index(name: &str) -> bool {
    name.starts_with(INDEX) && !name.contains('/')
}

/// Paths from the top: none that leads into a tree, but for what is listed here.
fn absolute(path: &str, roots: &[&str]) -> Judged {
    if let Some(rest) = path.strip_prefix("/proc/self/fd/") {
        return match rest.split_once('/') {
            None => Judged::Excused("what a descriptor holds, which no name can change"),
            Some((_, name)) if is_index(name) => {
                Judged::Excused("the index, below the descriptor of its directory")
            }
            Some((_, name)) if name.strip_suffix(".sock").is_some() && !name.contains('/') => {
                Judged::Excused("a socket, below the descriptor of the runtime directory")
            }
            Some(_) => Judged::Broken,
        };
    }
    let below = roots.iter().find_map(|root| path.strip_prefix(root));
    let Some(below) = below.filter(|b| b.is_empty() || b.starts_with('/')) else {
        return Judged::Excused("outside of all roots: settings, state, the system");
    };
    if below.is_empty() {
        return Judged::Excused("the root itself, as the user named it");
    }
    Judged::Broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(line: &str) -> bool {
        let verdict = Verdict::of(line, &["/r/a"]);
        assert_eq!(
            verdict.calls() + verdict.excused.len() as u64 + verdict.broken.len() as u64,
            1
        );
        !verdict.broken.is_empty()
    }

    #[test]
    fn a_call_that_can_be_led_elsewhere_is_let_through() {
        for line in [
            r#"7 openat(AT_FDCWD, "/r/a/f", O_RDONLY|O_NOFOLLOW) = 3"#,
            r#"7 open("/r/a/d/f", O_RDONLY) = 3"#,
            r#"7 openat(AT_FDCWD, "/r/a/.instep", O_RDONLY|O_CLOEXEC) = 3"#,
            r#"7 openat(AT_FDCWD, "/r/a/.instep/index.db-wal", O_RDWR|O_CREAT|O_NOFOLLOW, 0600) = 3"#,
            r#"7 unlink("/r/a/.instep/index.db-shm") = 0"#,
            r#"7 openat(5, "d/f", O_RDONLY|O_NOFOLLOW) = 3"#,
            r#"7 openat(5, "f", O_RDONLY) = 3"#,
            r#"7 openat2(5, "d/f", {flags=O_RDONLY, resolve=RESOLVE_BENEATH}, 24) = 3"#,
            r#"7 unlink("f") = 0"#,
            r#"7 unlinkat(AT_FDCWD, "f", 0) = 0"#,
            r#"7 unlinkat(5, "..", 0) = 0"#,
            r#"7 fchmodat(5, "f", 0600) = 0"#,
            r#"7 utimensat(5, "f", NULL, 0) = 0"#,
            r#"7 chmod("/proc/self/fd/5/f", 0600) = 0"#,
            r#"7 unlinkat(5, "d/../f", 0) = 0"#,
        ] {
            assert!(broken(line), "{line}");
        }
    }

    #[test]
    fn a_call_that_stays_in_the_tree_is_refused() {
        for line in [
            r#"7 openat(5, "f", O_RDONLY|O_NOFOLLOW) = 3"#,
            r#"7 openat(5, "f", O_RDONLY|O_NOFOLLOW <unfinished ...>"#,
            r#"7 openat2(5, "d/f", {resolve=RESOLVE_NO_SYMLINKS|RESOLVE_BENEATH}, 24) = 3"#,
            r#"7 symlinkat("/etc/x", 5, "l") = 0"#,
            r#"7 readlinkat(5, "l", "/etc/x", 4096) = 6"#,
            r#"7 unlinkat(5, "a\"b", 0) = 0"#,
            r#"7 chmod("/proc/self/fd/5", 0600) = 0"#,
            r#"7 stat("/r/ab/f", 0x1) = 0"#,
            r#"7 stat("/r/a", 0x1) = 0"#,
        ] {
            assert!(!broken(line), "{line}");
        }
    }
}
